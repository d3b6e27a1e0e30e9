"""How much may be written into the event log."""

from typing import Final

AT_ONCE: Final = 10
"""Records in a row: more than a visitor with a bunch of cards makes, and a code guessed at with."""
EVERY: Final = 60.0
"""Seconds for each one after that: noise on a reader's line, or a loose plug, writes for months."""


class Ration:
    """Allows some records at once, then one in each `every` seconds; the others are counted."""

    __slots__ = ("_at_once", "_every", "_held_back", "_spent_until")

    def __init__(self, at_once: int = AT_ONCE, every: float = EVERY) -> None:
        self._at_once = at_once
        self._every = every
        self._spent_until = 0.0
        self._held_back = 0

    def take(self, now: float) -> bool:
        """Whether one more may be written; otherwise it is counted, to be told at `due`."""
        if self.due > now:
            self._held_back += 1
            return False
        self._spend(now)
        return True

    @property
    def due(self) -> float:
        """From when on one may be written."""
        return self._spent_until - (self._at_once - 1) * self._every

    def tell(self, now: float) -> int:
        """How many were not written since this was asked; the answer counts as one that is."""
        self._spend(now)
        told, self._held_back = self._held_back, 0
        return told

    def _spend(self, now: float) -> None:
        self._spent_until = max(self._spent_until, now) + self._every
