"""How long after a sound was written to the loudspeaker does the microphone hear it?

Half a second of both, at 4 kHz, and the best fit of one in the other: a millisecond of work, once
or twice in a call. A negative answer is a fault of whoever tapped the reference.
"""

from typing import Any, Final

from doorstation.media.pcm import audioop

_RATE: Final = 4000
"""A quarter of a millisecond is enough, and speech has most of its power below 2 kHz."""

EARLIEST: Final = -0.06
_REACH: Final = 0.36
"""Seconds of delay that are looked for: from the earliest on."""

_FAULTY: Final = -0.3
"""The earliest in every second look of those that come when nothing was found for long."""

SURE: Final = -0.045
"""Nearer to EARLIEST, what was found may be a voice's next pitch period, and the echo before it."""

_PIECE: Final = 0.25
"""Seconds of the loudspeaker that are looked for: more than one pitch of a voice."""

_AUDIBLE: Final = 150
"""RMS of a piece worth looking for (-47 dBFS)."""

LIKENESS: Final = 0.45
"""Least correlation of what was found."""

_FAULT_LIKENESS: Final = 0.6
"""And of what would be a fault: of looks at two voices and no echo 3 % find 0.45, 0.3 % this; of
those at an echo as loud as the street four in five do."""

_AGREE: Final = 0.002
"""Seconds by which two measurements in a row may differ."""

_PATIENCE: Final = 20
"""Pieces of talk, five seconds, that are looked for one after the other."""

_REST: Final = 200
"""Ticks between two looks from then on: where no echo is heard, looking costs as much as half of
the canceller."""


def _bytes(seconds: float) -> int:
    return round(seconds * _RATE) * 2


def find_delay(microphone: bytes, loudspeaker: bytes) -> tuple[float, float]:
    """(seconds from the microphone's begin, correlation) of the best fit, at 4 kHz S16."""
    offset, _ = audioop.findfit(microphone, loudspeaker)
    found = microphone[2 * offset : 2 * offset + len(loudspeaker)]
    level = audioop.rms(found, 2)
    factor = audioop.findfactor(found, loudspeaker)
    likeness = abs(factor) * audioop.rms(loudspeaker, 2) / level if level else 0.0
    return offset / _RATE, likeness


class DelayFinder:
    """Collects both sides until two pieces agree. Silence costs nothing but time.

    Where they do not agree, because no echo is heard, it looks less often after a while.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._microphone = b""
        self._loudspeaker = b""
        self._states: tuple[Any, Any] = (None, None)
        self._last: float | None = None
        self._looks = 0
        self._resting = 0

    def take(self, microphone: bytes, loudspeaker: bytes) -> float | None:
        """A period of both; the delay in seconds when it has just become known."""
        if self._resting:
            self._resting -= 1
            return None
        low, one = audioop.ratecv(microphone, 2, 1, self._rate, _RATE, self._states[0], 1, 1)
        far, other = audioop.ratecv(loudspeaker, 2, 1, self._rate, _RATE, self._states[1], 1, 1)
        self._states = (one, other)
        self._microphone += low
        self._loudspeaker += far
        if len(self._microphone) < _bytes(_PIECE + _REACH):
            return None
        # Two looks that follow each other have to agree.
        earliest = _FAULTY if self._looks >= _PATIENCE and self._looks % 4 < 2 else EARLIEST
        begin = _bytes(-earliest)
        piece = self._loudspeaker[begin : begin + _bytes(_PIECE)]
        found = None
        if audioop.rms(piece, 2) > _AUDIBLE:
            window = self._microphone[: _bytes(_PIECE + _REACH)]
            offset, likeness = find_delay(window, piece)
            found = self._agreed(earliest + offset, likeness)
            self._looks += 1
            if self._looks >= _PATIENCE:
                self._resting = _REST
                self._microphone = self._loudspeaker = b""
                return found
        self._microphone = self._microphone[_bytes(_PIECE) :]
        self._loudspeaker = self._loudspeaker[_bytes(_PIECE) :]
        return found

    def _agreed(self, seconds: float, likeness: float) -> float | None:
        if likeness < (_FAULT_LIKENESS if seconds < 0.0 else LIKENESS):
            return None
        last, self._last = self._last, seconds
        if last is None or abs(seconds - last) > _AGREE:
            return None
        return min(seconds, last)
