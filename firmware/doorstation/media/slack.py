"""How long before they are needed packets arrive: what the delay of a jitter buffer hangs on.

Slack is counted in samples and goes with the delay: when that grows by a period, so does every
slack that was ever measured. They are kept less an offset, which alone moves.
"""

import math
from collections import deque
from typing import Final, NamedTuple

_EPOCHS: Final = 60
"""Reviews, about one a second, for which a late packet is remembered."""
_TOO_LATE: Final = 500
"""One packet in so many may come too late; a bad second counts as one."""
_SURE: Final = 5
"""Reviews after which the smallest slack is worth something."""
_STEP: Final = 5
"""Reviews in a row that all show another level: a shorter way, not jitter."""
_FASTEST: Final = 0.0005
"""Share by which the far end's clock may be another than ours; more is no clock."""
_REACH: Final = 2.3
"""Of Gaussian jitter, how much further one packet in 500 lies from the median than one in ten."""
_TROUBLE: Final = 3
"""Packets too late that are not waited for the end of the second."""
_LOSSY: Final = 3
"""Losses in the last minute from which on a packet is kept to bridge them."""


class _Epoch(NamedTuple):
    """What is kept of the packets between two reviews."""

    packets: int
    middle: float
    tenth: float
    """Nine of ten packets had more."""
    smallest: float
    whole: bool


class Slack:
    """Slack of one source's packets; `period`: samples in 20 ms."""

    __slots__ = (
        "_epochs",
        "_fresh",
        "_losses",
        "_lost",
        "_period",
        "late",
        "latest",
        "offset",
        "reserve",
        "spare",
        "typical",
    )

    def __init__(self, period: int) -> None:
        self.latest: list[float] = []
        """Of the packets since the last review, each less the offset."""
        self.offset = 0
        self.late = 0
        """Packets since the last review that came too late to be played."""
        self.typical = 0.0
        """That of the median packet."""
        self.spare = 0.0
        """What nearly all packets have: by so much the delay could shrink."""
        self.reserve = 0.0
        """So much more is kept where a few packets come far later than the rest: where jitter has
        such a tail, worse is to come."""
        self._period = period
        self._epochs: deque[_Epoch] = deque(maxlen=_EPOCHS)
        self._losses: deque[int] = deque(maxlen=_EPOCHS)
        self._lost = 0
        self._fresh = True

    @property
    def sure(self) -> bool:
        """Whether it was watched for long enough."""
        return len(self._epochs) >= _SURE

    @property
    def trouble(self) -> bool:
        """Whether so many packets came too late that something has to be done at once."""
        return self.late >= _TROUBLE

    def moved(self, samples: int) -> None:
        """The delay is longer by so much; negative: shorter."""
        self.offset += samples
        self.typical += samples

    def forget(self) -> None:
        """What held packets back until now says nothing about those to come."""
        self.latest.clear()
        self._epochs.clear()
        self._fresh = True

    def review(self, lost: int, whole: bool) -> None:
        """Take the latest, at least one, into account.

        `lost`: gaps so far, those of packets that came too late among them; `whole`: whether a
        second's packets are there.
        """
        latest = sorted(self.latest)
        self.latest.clear()
        packets = len(latest)
        middle, tenth, smallest = latest[packets // 2], latest[packets // 10], latest[0]
        if self._epochs and not self._epochs[-1].whole:
            before = self._epochs.pop()
            smallest, packets = min(smallest, before.smallest), packets + before.packets
        self._epochs.append(_Epoch(packets, middle, tenth, smallest, whole))
        self._losses.append(max(0, lost - self._lost - self.late))
        self._lost = lost
        self.late = 0
        self.typical = middle + self.offset
        if self._fresh and len(self._epochs) > _SURE:
            # Of a line's first second, with its look-ups and starting threads, nothing is learned.
            # But for its level: to be back at that is no step.
            self._fresh = False
            self._epochs[0] = self._epochs[0]._replace(packets=0, smallest=math.inf)
        self._follow_steps()
        drift = self._drift()
        last = len(self._epochs) - 1
        worst = sorted(
            epoch.smallest + drift * (last - place)
            for place, epoch in enumerate(self._epochs)
            if epoch.packets  # the first second, of which nothing is learned, has none
        )
        seen = sum(epoch.packets for epoch in self._epochs)
        spare = worst[min(seen // _TOO_LATE, len(worst) - 1)]
        # A clock that drifts shows in the last second first.
        self.spare = (min(spare, latest[1]) if whole else spare) + self.offset
        self.reserve = self._tail(self.typical - spare - self.offset)
        if sum(self._losses) >= _LOSSY:
            # Most packets are to be there a period before they are needed.
            most = latest[len(latest) // 20] + self.offset
            self.spare = min(self.spare, most - self._period)

    def _follow_steps(self) -> None:
        """Forget what was before the line, or a clock, became another by a step."""
        middles = [epoch.middle for epoch in self._epochs]
        before, since = middles[:-_STEP], middles[-_STEP:]
        if before and min(since) > max(before) + 2 * self._period:
            for _ in range(len(before) + 1):  # and the second in which it happened
                self._epochs.popleft()

    def _tail(self, reach: float) -> float:
        """How much is to come, where the worst lies `reach` below the median packet."""
        width = sum(epoch.middle - epoch.tenth for epoch in self._epochs) / len(self._epochs)
        return max(0.0, min((reach - _REACH * width) / 2, 2 * width))

    def _drift(self) -> float:
        """By how much all slacks grow from one review to the next, as clocks that differ do it."""
        third = len(self._epochs) // 3
        if third < _SURE:
            return 0.0
        middles = [epoch.middle for epoch in self._epochs]
        grown = (sum(middles[-third:]) - sum(middles[:third])) / third
        most = _FASTEST * 50 * self._period
        return max(-most, min(most, grown / (len(middles) - third)))
