"""The loudspeaker's sound, kept in step with the microphone's clock for the echo canceller.

What is written to the card is heard by the microphone `lead` seconds later at the soonest. The
canceller's filter need not spend taps on that time, so the reference is held back for most of it,
never for all: a reference that comes after its own echo cancels nothing.

*Drift.* A loudspeaker on another clock than the microphone (two USB devices) plays a few samples a
second more or fewer than are captured: 80 ppm moves the echo by 1.3 samples a second at 16 kHz,
faster than the filter follows, and costs 20 dB. The filter's own impulse response shows the
movement, so its strongest part is watched once a second, a straight line is fitted to where it
should be (an alpha-beta filter whose gains begin as least squares and end as a sliding window), and
the reference is resampled by the line's slope. Below a few ppm it is left as it is.
"""

import math
import operator
from collections.abc import Sequence
from typing import Final

from doorstation.media.pcm import audioop

MARGIN: Final = 0.008
"""Seconds of `lead` that are not used up: room for drift, and for a card that reports too much."""

_LONGEST: Final = 0.25
"""Seconds held back at most: bounds memory when the loudspeaker's clock is slow for hours."""

_TAPS: Final = 8
"""Frames that interpolation looks at: 40 dB right up to 3 kHz, where the echo of a voice is."""

_MOST_PPM: Final = 500.0
"""No crystal is worse; a measurement may be."""

_WINDOW: Final = 40
"""Taps each side of the strongest: the direct sound, the wall, the frame of the door."""

_REACH: Final = 6
"""Taps by which it may have moved in a second: 375 ppm at 16 kHz, more than any crystal."""

_LIKENESS: Final = 0.5
"""Least correlation of two responses, a second apart, of the same place."""

_FITTED: Final = 5
"""Measurements before the slope is believed."""

_MEMORY: Final = 16
"""Measurements that the slope remembers."""

_LEAST_PPM: Final = 8.0
"""What a filter costs nothing to follow; also what is measured on a card with one clock."""


class Drift:
    """Fits a line to where the echo is, in frames, as measured about once a second."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._before: Sequence[int] = ()
        self._at = 0.0
        self._place = 0.0
        self._line = 0.0
        self._slope = 0.0
        self._count = 0

    @property
    def ppm(self) -> float | None:
        """How much faster the loudspeaker's clock is; None until it is known."""
        return -self._slope / self._rate * 1e6 if self._count >= _FITTED else None

    def measured(self, response: Sequence[int], slipped: float, now: float) -> None:
        """The filter's impulse response at `now`; `slipped`: frames the reference was advanced."""
        before, self._before = self._before, response
        if not before:
            self._at = now
            self._line = -slipped
            return
        moved = shift(before, response)
        seconds = now - self._at
        self._at = now
        if moved is None:
            self._count = 0
            self._slope = 0.0
            self._place = 0.0
            self._line = -slipped
            return
        # Where the echo is without the reference's own movement.
        self._place += moved
        where = self._place - slipped
        self._count += 1
        if self._count == _FITTED + 1:
            # Followed for the first time: the filter, no longer behind, has caught up at once.
            self._line = where
            return
        n = min(self._count + 1, _MEMORY)
        self._line += self._slope * seconds
        miss = where - self._line
        self._line += miss * 2 * (2 * n - 1) / (n * (n + 1))
        self._slope += miss * 6 / (n * (n + 1)) / seconds


def shift(before: Sequence[int], now: Sequence[int]) -> float | None:
    """Taps by which an impulse response has moved; None when it is another one.

    Up to 0.15 too near to a whole tap, which costs nothing: once followed, it does not move.
    """
    heights = [abs(tap) for tap in before]
    peak = heights.index(max(heights))
    first, last = peak - _WINDOW, peak + _WINDOW
    if first < _REACH or last > len(now) - _REACH:
        first = min(max(first, _REACH), len(now) - _REACH)
        last = min(max(last, _REACH), len(now) - _REACH)
    piece = before[first:last]
    power = _product(piece, piece)
    likeness: list[float] = []
    best = 0
    for lag in range(-_REACH, _REACH + 1):
        other = now[first + lag : last + lag]
        norm = power * _product(other, other)
        likeness.append(_product(piece, other) / norm**0.5 if norm > 0 else 0.0)
        if likeness[-1] > likeness[best]:
            best = len(likeness) - 1
    if likeness[best] < _LIKENESS or not 0 < best < 2 * _REACH:
        return None
    left, top, right = likeness[best - 1 : best + 2]
    return best - _REACH + 0.5 * (left - right) / (left - 2 * top + right)


def _product(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(map(operator.mul, one, other))


class Reference:
    """Takes what is written to the loudspeaker, gives what the microphone may be hearing of it."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._frames = rate // 50
        self._silence = bytes(2 * self._frames)
        self._least = 2 * (self._frames + _TAPS)
        self._most = round(2 * _LONGEST * rate)
        """Bytes that have to wait for a period to be given, and that may."""
        self._waiting = bytes(2 * _TAPS)
        self._cushion = 0
        self._step = 0.0
        self._fraction = 0.0
        self._begun = False
        self.slipped = 0.0
        """Frames by which it has been advanced against the loudspeaker's clock."""

    @property
    def delay(self) -> float:
        """Seconds that it is held back."""
        return (len(self._waiting) / 2 - _TAPS) / self._rate

    @property
    def following(self) -> bool:
        """Whether it is being resampled."""
        return self._step != 0.0

    def align(self, lead: float) -> None:
        """Hold back what `lead` seconds between hand-over and sound allow."""
        self._begun = False
        cushion = round(max(0.0, min(lead - MARGIN, _LONGEST / 2)) * self._rate)
        missing = 2 * (cushion - self._cushion)
        self._cushion = cushion
        if missing > 0:
            self._waiting = bytes(missing) + self._waiting
        else:
            self._waiting = self._waiting[min(-missing, len(self._waiting) - 2 * _TAPS) :]

    def follow(self, ppm: float) -> None:
        """Run the reference faster by so much, from now on; a small drift is left alone."""
        if self._step or abs(ppm) >= _LEAST_PPM:
            self._step = self._frames * max(-_MOST_PPM, min(ppm, _MOST_PPM)) * 1e-6

    def next(self, written: bytes) -> bytes:
        """Take what was written now, any number of frames; give the next 20 ms.

        Nothing, before the first that is written: the card plays the silence of its start.
        """
        if written:
            self._begun = True
        elif not self._begun:
            written = self._silence
        waiting = self._waiting + written
        if not self._least <= len(waiting) <= self._most:
            waiting = self._bounded(waiting)
        size = 2 * self._frames
        if not self._step:
            self._waiting = waiting[size:]
            return waiting[_TAPS : _TAPS + size]
        self.slipped += self._step
        self._fraction += self._step
        whole = math.floor(self._fraction)
        self._fraction -= whole
        self._waiting = waiting[size + 2 * whole :]
        return self._between(waiting, self._fraction)

    def _bounded(self, waiting: bytes) -> bytes:
        """Not too much of it, and enough for a period."""
        if len(waiting) > self._most:
            return waiting[-self._least - 2 * self._cushion :]
        return bytes(self._least - len(waiting)) + waiting

    def _between(self, waiting: bytes, fraction: float) -> bytes:
        """20 ms from `fraction` of a frame later: a sum of shifted copies, in C."""
        size = 2 * self._frames
        out = b""
        for tap in range(_TAPS):
            x = tap - _TAPS // 2 - fraction
            weight = math.cos(math.pi * x / (_TAPS + 2)) ** 2
            weight *= math.sin(math.pi * x) / (math.pi * x) if x else 1.0
            part = audioop.mul(waiting[2 * tap : 2 * tap + size], 2, weight)
            out = audioop.add(out, part, 2) if out else part
        return out
