"""How much sound waits in front of the loudspeaker, kept where it belongs.

The microphone's clock writes and the loudspeaker's clock plays. On one card they are the same; two
USB devices, or a sound server, drift apart by some ten parts per million, and a program that was
held up writes several periods at once. Left alone the queue runs dry (a gap) or fills (an echo path
and a delay that grow). So its level is measured before each write: a standing surplus of a whole
period loses that period at once, a small difference is walked off one frame per period, which
nobody hears. What only some writes of a second find is no difference of the level: a late wake-up
finds less, a card that counts in whole periods now one more and now one less. A card that runs dry
twice in ten seconds gets a longer queue.
"""

import warnings
from typing import Final

with warnings.catch_warnings():
    # 3.11 and 3.12 announce the removal on every import; pyproject.toml already follows it.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

TARGET_PERIODS: Final = 2
"""Queued right after a write: one being played and one to spare for a late wake-up."""

LIMIT_PERIODS: Final = 3
"""A card that keeps running dry gets no more than this: past it, delay is worse than gaps."""

LONG_WINDOW: Final = 50
SHORT_WINDOW: Final = 10
RELAPSE_PERIODS: Final = 500

_NEVER: Final = 1 << 30
"""More frames than any queue has."""


class PlaybackQueue:
    """Decides by the level before each write what to do with the period; all counts are frames."""

    __slots__ = (
        "_least",
        "_low",
        "_most",
        "_period",
        "_since_dry",
        "_slip",
        "_target",
        "_ticks",
    )

    def __init__(self, period: int, *, least: int = 0):
        """`least`: what the card moves in one go, when that is more than a period."""
        self._period = period
        self._target = max(TARGET_PERIODS * period, least + period)
        self._since_dry = RELAPSE_PERIODS
        self._ticks = self._slip = self._most = 0
        self._least = self._low = _NEVER

    @property
    def target(self) -> int:
        """Frames that should be queued right after a write."""
        return self._target

    def ran_dry(self) -> None:
        """The card played everything before the next write came."""
        if self._since_dry < RELAPSE_PERIODS:
            limit = max(LIMIT_PERIODS * self._period, self._target)
            self._target = min(self._target + self._period // 2, limit)
        self._since_dry = 0
        self._restart()

    def correction(self, queued: int) -> int:
        """Frames to add to (+1), or to leave out of (-1 or a whole period), the next write."""
        self._ticks += 1
        if queued < self._least:
            self._least = queued
        if queued > self._most:
            self._most = queued
        if self._slip or self._ticks % SHORT_WINDOW == 0:
            return self._decision()
        return 0

    def _decision(self) -> int:
        """What is not needed before every write."""
        resting = self._target - self._period
        if self._ticks % SHORT_WINDOW == 0:
            self._since_dry += SHORT_WINDOW
            least, self._least = self._least, _NEVER
            self._low = min(self._low, least)
            if least - resting >= self._period:
                self._restart()
                return -self._period
        if self._slip:
            step = 1 if self._slip > 0 else -1
            self._slip -= step
            if not self._slip:
                self._restart()
            return step
        if self._ticks == LONG_WINDOW:
            surplus, lack = self._low - resting, resting - self._most
            self._restart()
            if max(surplus, lack) > self._period / 4:
                self._slip = lack if lack > 0 else -surplus
        return 0

    def _restart(self) -> None:
        self._ticks = self._slip = self._most = 0
        self._least = self._low = _NEVER


def stretch(period: bytes, frames: int) -> bytes:
    """S16 samples brought to another number of frames, two or more, by linear interpolation."""
    # Steps between samples, of which there is one fewer: so the first and the last stay in place.
    steps = len(period) // 2 - 1
    return audioop.ratecv(period, 2, 1, steps, frames - 1, None)[0]
