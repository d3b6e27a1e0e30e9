"""Results on their way to who ordered something: a server that is down for a moment loses none.

Sans-I/O. It outlives the station: what one could not tell before its end, the next one tells.
"""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

PAUSES: Final = (2.0, 8.0, 30.0)
"""Seconds between the attempts; the last one ends it."""
MAX_RESULTS: Final = 16
"""Results that wait: a commander whose server is away cannot fill the memory."""


class _Entry(Generic[T]):
    __slots__ = ("due", "failures", "name", "result")

    def __init__(self, result: T, due: float) -> None:
        self.result = result
        self.due: float | None = due
        """When to send it; None while it is on its way as the message `name`."""
        self.name = ""
        self.failures = 0


class Outbox(Generic[T]):
    """A few results, the oldest first; of too many the oldest is dropped."""

    def __init__(self) -> None:
        self._entries: list[_Entry[T]] = []

    def deadline(self, now: float) -> float | None:
        """When the next one that is not due yet is to be sent."""
        return min(
            (e.due for e in self._entries if e.due is not None and e.due > now), default=None
        )

    def add(self, result: T, now: float) -> None:
        self._entries = [*self._entries, _Entry(result, now)][-MAX_RESULTS:]

    def take(self, now: float, may: Callable[[T], bool] = lambda result: True) -> list[T]:
        """Those to send now, if they may be; `sent` or `dropped` follows for each."""
        taken = []
        for entry in self._entries:
            if entry.due is not None and entry.due <= now and may(entry.result):
                entry.due, entry.name = None, ""
                taken.append(entry.result)
        return taken

    def sent(self, result: T, name: str) -> None:
        for entry in self._entries:
            if entry.result is result:
                entry.name = name

    def dropped(self, result: T) -> None:
        """It cannot be sent at all."""
        self._entries = [entry for entry in self._entries if entry.result is not result]

    def answered(self, name: str, status: int, now: float) -> None:
        """How a message went. A time-out or a fault of a server (5xx) may pass."""
        for entry in self._entries:
            if entry.due is None and entry.name == name:
                if (status == 408 or status // 100 == 5) and entry.failures < len(PAUSES):
                    entry.due = now + PAUSES[entry.failures]
                    entry.failures += 1
                else:
                    self.dropped(entry.result)
                return

    def station_ended(self, now: float) -> None:
        """Nobody will say any more how those fared that are on their way: once more."""
        for entry in self._entries:
            if entry.due is None:
                entry.due = now
