"""Rooms for the fake sound card: what its microphone hears of its loudspeaker, without hardware.

A few reflections summed in C, a loudspeaker that may be driven too far, and noise: enough that the
acoustic self-test has something to find, a few microseconds a period.
"""

import math
import random
import warnings
from array import array
from dataclasses import dataclass
from typing import Final

with warnings.catch_warnings():
    # 3.11 and 3.12 announce its removal on every import; pyproject.toml already follows it.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop


@dataclass(frozen=True, slots=True)
class Acoustics:
    """`coupling_db`: what a reflection of gain 1 loses from loudspeaker to microphone.

    `drive`: how far the loudspeaker saturates, 0: not at all. `noise_rms`: of the microphone.
    """

    coupling_db: float
    drive: float = 0.0
    noise_rms: float = 12.0
    hears: bool = True


ROOMS: Final = {
    "good": Acoustics(-18.0),
    "loud": Acoustics(3.0, drive=6.0),
    "howl": Acoustics(9.0),
    "broken-mic": Acoustics(-18.0, noise_rms=0.0, hears=False),
}

# Seconds and gain: ten centimetres in one wall, then floor, ceiling and opposite wall of a porch.
_REFLECTIONS: Final = (
    (0.0003, 0.8), (0.0011, -0.2), (0.0043, 0.22), (0.0081, 0.15), (0.0127, -0.11),
    (0.0188, 0.08), (0.0264, 0.05), (0.0371, -0.03), (0.0502, 0.018), (0.0690, 0.01),
)  # fmt: skip

_LONGEST: Final = 0.1
"""Seconds of what was played that can still be heard, and a period."""


class FakeRoom:
    """One of ROOMS around a card of `rate` Hz. Raises KeyError for another name."""

    def __init__(self, name: str, rate: int) -> None:
        acoustics = ROOMS[name]
        self._hears = acoustics.hears
        gain = math.pow(10.0, acoustics.coupling_db / 20.0)
        self._taps = [(2 * round(at * rate), share * gain) for at, share in _REFLECTIONS]
        self._played = bytes(2 * round(_LONGEST * rate))
        self._curve = _saturation(acoustics.drive) if acoustics.drive else b""
        chance = random.Random(1)
        hiss = array("h", (round(chance.gauss(0, acoustics.noise_rms)) for _ in range(rate)))
        self._hiss = hiss.tobytes()
        self._at = 0

    def heard(self, period: bytes, said: bytes) -> bytes:
        """What the microphone captures while the loudspeaker plays `period` and somebody talks."""
        size = len(period)
        if self._curve:
            period = audioop.ulaw2lin(audioop.lin2ulaw(period, 2).translate(self._curve), 2)
        self._played = played = self._played[size:] + period
        if not self._hears:
            return bytes(size)
        hiss = self._hiss[self._at : self._at + size].ljust(size, b"\0")
        out = audioop.add(said, hiss, 2)
        self._at = (self._at + size) % len(self._hiss)
        for late, gain in self._taps:
            start = len(played) - size - late
            out = audioop.add(out, audioop.mul(played[start : start + size], 2, gain), 2)
        return out


def _saturation(drive: float) -> bytes:
    """A table from mu-law to mu-law."""
    samples = array("h", audioop.ulaw2lin(bytes(range(256)), 2))
    for index, sample in enumerate(samples):
        x = sample / 32768
        samples[index] = round(32767 * math.tanh(drive * x) / drive)
    return audioop.lin2ulaw(samples.tobytes(), 2)
