"""Which of thousands of deadlines comes first, while most of them change or go before they come."""

from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """What has a deadline, in the seconds of whoever drives it; None: nothing pending."""

    wake: float | None
    """Of `Alarms` alone: the time of the entry that counts."""

    @property
    def deadline(self) -> float | None: ...


T = TypeVar("T", bound=Timed)


class Alarms(Generic[T]):
    """A heap of deadlines. An entry is good while its time is the item's `wake`.

    Entries whose time has changed are put right when they surface; dropped ones are cleared out
    once they are the majority, so that a flood of refused requests leaves nothing behind.
    """

    __slots__ = ("_count", "_dropped", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._heap)

    def arm(self, item: T) -> None:
        """Call after anything that may have changed the item's deadline."""
        at = item.deadline
        if at is not None and (item.wake is None or at < item.wake):
            item.wake = at
            self._count += 1
            heappush(self._heap, (at, self._count, item))

    def drop(self, item: T) -> None:
        """The item has ended."""
        if item.wake is None:
            return
        item.wake = None
        self._dropped += 1
        if self._dropped > 32 and self._dropped * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].wake == entry[0]]
            heapify(self._heap)
            self._dropped = 0

    def next(self) -> float | None:
        """The first deadline there is."""
        heap = self._heap
        while heap:
            at, _, item = heap[0]
            if item.wake == at and item.deadline == at:
                return at
            heappop(heap)
            if item.wake == at:
                item.wake = None
                self.arm(item)
        return None

    def pop(self, now: float) -> T | None:
        """The item due first, if it is due."""
        at = self.next()
        if at is None or at > now:
            return None
        item = heappop(self._heap)[2]
        item.wake = None
        return item
