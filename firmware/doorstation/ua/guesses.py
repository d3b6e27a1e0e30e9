"""Guessing the passwords of peers: slowed down for each source, in bounded memory. Pure."""

from ipaddress import ip_address
from typing import Final

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
        wrong, last = self._rows.get(source_key(source), (0, 0.0))
        return wrong >= LIMIT and now < last + LOCKED

    def wrong(self, source: str, now: float) -> None:
        key = source_key(source)
        wrong, last = self._rows.pop(key, (0, 0.0))
        if now >= last + LOCKED:
            wrong = 0
        if len(self._rows) >= MAX_SOURCES:
            del self._rows[next(iter(self._rows))]
        self._rows[key] = (wrong + 1, now)

    def right(self, source: str) -> None:
        self._rows.pop(source_key(source), None)


def source_key(source: str) -> str:
    """What one host cannot change of its address: IPv4 whole, of IPv6 the /64 that it has whole."""
    if ":" not in source:
        return source
    try:
        return ip_address(source.partition("%")[0]).packed[:8].hex()
    except ValueError:
        return source
