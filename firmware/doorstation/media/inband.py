"""Digits as tones in the far end's voice (ITU-T Q.23, Q.24), for far ends that send nothing better.

    tones = InbandDigits(echo_rate=16000, rate=8000)
    key = tones.take(heard, sent)       once per 20 ms: what the far end sent, what we sent

*How.* A tone's strength in a window is its correlation with a sine and a cosine, which audioop
computes in C. Every period is looked at once, at the eight frequencies; only one that may hold a
digit is looked at closely: windows of 20 ms every 5 ms, in which the two tones must be nearly all
that is heard, at the right frequencies (by the advance of their phases from window to window, good
to a few Hz, where the window alone would tell no better than 50), within the twist that Q.24
allows, and without the second harmonics that a voice has. Five such windows in a row are a
digit: a voice does not hold still so long.

*Whose.* Tones played at the panel go out with the visitor's voice, and a far end that echoes sends
them back: they would open the door. So the strengths of all eight frequencies in what we sent are
kept for as long as an echo may take, and a digit whose two tones we sent ourselves, not much weaker
than they come, counts for nothing. It is a comparison of strengths alone: noise played on top of
the tones hides nothing.
"""

import math
from array import array
from collections import deque
from typing import Final

from doorstation.media.pcm import audioop

LOW: Final = (697, 770, 852, 941)
HIGH: Final = (1209, 1336, 1477, 1633)
KEYS: Final = ("123A", "456B", "789C", "*0#D")

ECHO_SECONDS: Final = 1.5
"""The longest way of an echo: there, through a phone's speaker and microphone, and back."""

ECHO_GAIN: Final = 4.0
"""How much louder than it was an echo may come back (12 dB): some phones even levels out."""

_QUIETEST: Final = 230
"""RMS (-43 dBFS) below which nothing is looked at; Q.24's receivers work from -25 dBm0 a tone."""

_TWIST_HIGH: Final = 10.0 ** (4.5 / 20.0)
"""The high tone may be louder by 4 dB, and half a dB of noise (Q.24, table 1)."""
_TWIST_LOW: Final = 10.0 ** (8.5 / 20.0)
"""The low tone by 8 dB."""

_TOLERANCE: Final = 0.025
"""Between the 1.5 % that must be taken and the 3.5 % that must not."""

_HINT: Final = 0.4
"""Part of a period's power in two of the tones from which it is looked at closely."""
_PURE: Final = 0.8
"""Part of a window's power that is the two tones."""
_HARMONIC: Final = 0.2
"""Most of a second harmonic, as part of its tone's amplitude (-14 dB)."""

_STEPS: Final = 4
"""Close windows begin this often in a period."""
_LEAST: Final = 5
"""Windows in a row, each with the phases of the one before, that are a digit. As a window
is faded, one that is not quite filled passes too: 40 ms hold enough, 23 ms do not."""
_PAUSE: Final = 8
"""Windows without it that end it: a pause of 40 ms has ten, an interruption of 10 ms seven."""


_PEAK: Final = 32000


class _Bank:
    """Sines and cosines of one window of 20 ms at `rate` Hz, faded in and out (Hann): what is
    beside a frequency then weighs little."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.frames = rate // 50
        self._waves: dict[int, tuple[bytes, bytes]] = {}

    def _wave(self, hertz: int) -> tuple[bytes, bytes]:
        known = self._waves.get(hertz)
        if known is None:
            turn = 2.0 * math.pi / self.frames
            step = 2.0 * math.pi * hertz / self.rate
            fade = [_PEAK / 2 * (1.0 - math.cos(turn * n)) for n in range(self.frames)]
            cosine = array("h", (round(w * math.cos(step * n)) for n, w in enumerate(fade)))
            sine = array("h", (round(w * math.sin(step * n)) for n, w in enumerate(fade)))
            known = self._waves[hertz] = cosine.tobytes(), sine.tobytes()
        return known

    def tone(self, pcm: bytes, hertz: int) -> tuple[float, float]:
        """Amplitude and phase at the window's beginning."""
        cosine, sine = self._wave(hertz)
        # findfactor divides by the wave's own power: 3/8 of a faded one's for 1/2 of its mean.
        x = audioop.findfactor(pcm, cosine)
        y = audioop.findfactor(pcm, sine)
        return 0.75 * _PEAK * math.hypot(x, y), math.atan2(-y, x)

    def amplitudes(self, pcm: bytes, group: tuple[int, ...]) -> list[float]:
        """Of each frequency of a group."""
        return [self.tone(pcm, hertz)[0] for hertz in group]


_Strengths = tuple[list[float], list[float]]
_NOTHING: Final[_Strengths] = ([0.0] * 4, [0.0] * 4)


class InbandDigits:
    """One call's. `rate`: Hz of what is heard, `echo_rate`: of what is sent."""

    __slots__ = (
        "_active",
        "_bank",
        "_candidate",
        "_misses",
        "_phases",
        "_previous",
        "_run",
        "_sent",
        "_sent_bank",
    )

    def __init__(self, rate: int, echo_rate: int) -> None:
        self._bank = _Bank(rate)
        self._sent_bank = _Bank(echo_rate)
        self._sent: deque[_Strengths] = deque(maxlen=round(ECHO_SECONDS * 50))
        self._previous = bytes(2 * self._bank.frames)
        self._candidate: tuple[int, int] | None = None
        """Places in LOW and HIGH of what the last period may hold."""
        self._active: tuple[int, int] | None = None
        """The digit that is being heard."""
        self._run = 0
        self._misses = 0
        self._phases: tuple[float, float] | None = None

    def take(self, heard: bytes, sent: bytes) -> str | None:
        """The digit that begins in this period, or in the one before; None for none.

        Periods of another length than 20 ms are cut or filled up.
        """
        heard = _whole(heard, self._bank)
        before, self._previous = self._previous, heard
        self._sent.append(self._strengths(_whole(sent, self._sent_bank)))
        candidate, self._candidate = self._candidate, self._hint(heard)
        if self._candidate is not None:
            candidate = self._candidate
        if candidate is None:
            candidate = self._active
            if candidate is None:
                self._phases = None
                self._run = 0
                return None
        return self._look(candidate, before + heard)

    def _strengths(self, pcm: bytes) -> _Strengths:
        """Of all eight frequencies in what is sent: no matter how much else there is."""
        if audioop.rms(pcm, 2) < _QUIETEST / ECHO_GAIN / 4:
            return _NOTHING
        bank = self._sent_bank
        return bank.amplitudes(pcm, LOW), bank.amplitudes(pcm, HIGH)

    def _hint(self, pcm: bytes) -> tuple[int, int] | None:
        rms = audioop.rms(pcm, 2)
        if rms < _QUIETEST:
            return None
        low = self._bank.amplitudes(pcm, LOW)
        high = self._bank.amplitudes(pcm, HIGH)
        row, column = low.index(max(low)), high.index(max(high))
        power = (low[row] ** 2 + high[column] ** 2) / 2.0
        return (row, column) if power > _HINT * rms * rms else None

    def _look(self, candidate: tuple[int, int], pcm: bytes) -> str | None:
        """The windows that begin in the first of two periods."""
        size = 2 * self._bank.frames
        found: str | None = None
        for step in range(_STEPS):
            start = size // 2 * step // _STEPS * 2
            strengths = self._close(candidate, pcm[start : start + size])
            if strengths is None:
                self._run = 0
                self._misses += 1
                if self._misses >= _PAUSE:
                    self._active = None
                continue
            self._run += 1
            if self._run < _LEAST:
                continue
            self._misses = 0
            if self._active != candidate:
                self._active = candidate
                if not self._is_ours(candidate, strengths):
                    found = KEYS[candidate[0]][candidate[1]]
        return found

    def _close(self, candidate: tuple[int, int], pcm: bytes) -> tuple[float, float] | None:
        """The two tones' amplitudes if this window is nothing else."""
        before, self._phases = self._phases, None
        rms = audioop.rms(pcm, 2)
        if rms < _QUIETEST:
            return None
        low, high = LOW[candidate[0]], HIGH[candidate[1]]
        bank = self._bank
        low_seen, low_phase = bank.tone(pcm, low)
        high_seen, high_phase = bank.tone(pcm, high)
        self._phases = (low_phase, high_phase)
        if before is None:
            return None
        low_off = _off(before[0], low_phase, low)
        high_off = _off(before[1], high_phase, high)
        if abs(low_off) > _TOLERANCE * low or abs(high_off) > _TOLERANCE * high:
            return None
        low_true, high_true = low_seen / _seen_of(low_off), high_seen / _seen_of(high_off)
        if not low_true / _TWIST_LOW <= high_true <= low_true * _TWIST_HIGH:
            return None
        if (low_true**2 + high_true**2) / 2.0 < _PURE * rms * rms:
            return None
        # Twice the low tone is too near to the high ones to be told from them.
        if bank.tone(pcm, 2 * high)[0] > _HARMONIC * high_true:
            return None
        return low_true, high_true

    def _is_ours(self, candidate: tuple[int, int], strengths: tuple[float, float]) -> bool:
        """Whether the far end may only return what we sent."""
        row, column = candidate
        low, high = strengths[0] / ECHO_GAIN, strengths[1] / ECHO_GAIN
        return any(lows[row] >= low and highs[column] >= high for lows, highs in self._sent)


def _whole(pcm: bytes, bank: _Bank) -> bytes:
    size = 2 * bank.frames
    return pcm if len(pcm) == size else pcm[:size].ljust(size, b"\0")


_HOP: Final = 0.02 / _STEPS


def _off(before: float, phase: float, hertz: int) -> float:
    """Hz that a tone is beside `hertz`, by its phase in two windows."""
    advance = phase - before - 2.0 * math.pi * hertz * _HOP
    return math.remainder(advance, 2.0 * math.pi) / (2.0 * math.pi * _HOP)


def _seen_of(off: float) -> float:
    """The part of its amplitude that a tone `off` Hz beside shows in a faded window of 20 ms."""
    x = off * 0.02
    return math.sin(math.pi * x) / (math.pi * x * (1.0 - x * x)) if abs(x) > 0.01 else 1.0
