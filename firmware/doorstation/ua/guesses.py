"""Guessing the passwords of peers: slowed down for each source, in bounded memory. Pure."""

from typing import Final

from doorstation.sip.transport import stranger_of

LIMIT: Final = 5
"""Wrong passwords in a row from one source."""
LOCKED: Final = 60.0
"""Seconds after the last wrong one until the row is forgotten: five guesses a minute at most."""
MAX_SOURCES: Final = 256
"""Attack bounded: guesses from ever new addresses. The oldest row is forgotten."""


class Guesses:
    """Wrong passwords of each source: an IPv4 address, or the /64 that any IPv6 host has whole."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[str, tuple[int, float]] = {}  # source -> wrong in a row, the last one

    def __len__(self) -> int:
        return len(self._rows)

    def locked(self, source: str, now: float) -> bool:
        """Whether no password from there is looked at now."""
        wrong, last = self._rows.get(stranger_of(source), (0, 0.0))
        return wrong >= LIMIT and now < last + LOCKED

    def wrong(self, source: str, now: float) -> None:
        """One more wrong password from there."""
        key = stranger_of(source)
        wrong, last = self._rows.pop(key, (0, 0.0))
        if now >= last + LOCKED:
            wrong = 0
        if len(self._rows) >= MAX_SOURCES:
            del self._rows[next(iter(self._rows))]
        self._rows[key] = (wrong + 1, now)

    def right(self, source: str) -> None:
        """A right one: the row is forgotten."""
        self._rows.pop(stranger_of(source), None)
