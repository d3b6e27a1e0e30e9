"""Comfort noise (RFC 3389): what is heard while the far end sends no sound but how its silence is.

The payload has a level and the reflection coefficients of a filter; white noise through the filter
sounds like the room at the far end. The filter's impulse response is cut after 2 ms or so and laid
over whole periods at a time, in C; what is cut off is far below what anybody hears in noise.
"""

import math
from array import array
from typing import Final

from doorstation.errors import MalformedPacket
from doorstation.media.pcm import audioop

_TAPS: Final = 32
_ORDER: Final = 12
"""Coefficients used: what comes after them is detail that no ear finds in noise."""

_LOUDEST: Final = 30
"""-dBov. What a silent room never is, is turned down: the level is a number from the network."""

_WHITE: Final = 16384
"""Samples of white noise, walked through in odd steps: no ear finds the seam."""
_STEP: Final = 5557
_WHITE_RMS: Final = 32768 / math.sqrt(3.0)

_UNITY: Final = 1 << 12
"""Headroom, in 32 bits, for the sum of all taps."""


class ComfortNoise:
    """The far end's silence at its clock's rate, from the payloads of type CN that it sends."""

    __slots__ = ("_at", "_gain", "_payload", "_taps", "_target", "_white")

    def __init__(self) -> None:
        self._white = _white_noise()
        self._at = 0
        self._payload = b""
        self._taps: list[float] = []
        self._target = 0.0
        self._gain: float | None = None

    def received(self, payload: bytes) -> None:
        """How the far end's silence is from now on. Raises MalformedPacket if empty."""
        if not payload:
            raise MalformedPacket("comfort noise of 0 octets, a level needed")
        if payload == self._payload:
            return
        self._payload = payload
        level = max(payload[0] & 0x7F, _LOUDEST)
        # 255 is none of RFC 3389's values: it would be a filter that never fades.
        taps = _impulse_response(
            [258 * (min(octet, 254) - 127) / 32768 for octet in payload[1 : 1 + _ORDER]]
        )
        # The filter itself makes nothing louder: so another colour is no step in the level.
        loudness = _WHITE_RMS * math.sqrt(sum(tap * tap for tap in taps))
        self._taps = [tap / loudness for tap in taps]
        self._target = 32768 * 10 ** (-level / 20)

    def read(self, count: int) -> bytes:
        """The next `count` samples; the level glides to another, silence before any was said."""
        if self._gain is None:
            self._gain = self._target
        self._gain += (self._target - self._gain) / 4
        size = 4 * count
        white = self._white
        start = self._at = (self._at + 4 * _STEP) % (len(white) - size - 4 * _TAPS)
        sound = bytes(size)
        for delay, tap in enumerate(self._taps):
            begin = start + 4 * (_TAPS - delay)
            sound = audioop.add(
                sound, audioop.mul(white[begin : begin + size], 4, tap * self._gain), 4
            )
        return audioop.lin2lin(audioop.mul(sound, 4, _UNITY), 4, 2)


def _impulse_response(reflections: list[float]) -> list[float]:
    """The first taps of the all-pole filter with these reflection coefficients."""
    # Levinson's step up: prediction coefficients of each order out of those of the one before.
    predictor: list[float] = []
    for k in reflections:
        predictor = [a + k * b for a, b in zip(predictor, reversed(predictor), strict=True)] + [k]
    taps = [1.0]
    for n in range(1, _TAPS):
        taps.append(-sum(a * taps[n - 1 - i] for i, a in enumerate(predictor[:n])))
    return taps


def _white_noise() -> bytes:
    """32-bit samples, evenly spread over +-32768 * 2^4, by a congruential generator.

    Not by chance: the same noise in every test, and nobody's secret.
    """
    state = 1
    samples = array("i")
    for _ in range(_WHITE):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        samples.append((state >> 12) - (1 << 19))
    return samples.tobytes()
