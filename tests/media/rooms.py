"""Rooms small enough for a unit test: a few reflections, whole samples, everything repeatable."""

import math
import random
from array import array
from collections.abc import Sequence

from doorstation.media.pcm import audioop

RATE = 16000
FRAME = 640
"""Bytes of 20 ms."""

REFLECTIONS = ((0.0003, 0.5), (0.0021, 0.25), (0.0058, -0.15), (0.0113, 0.1), (0.0208, 0.05))
"""(seconds, gain): ten centimetres, then the walls of a porch."""


def voice(seconds: float, seed: int, pitch: float = 120.0, peak: float = 6000.0) -> bytes:
    """Something like speech: noisy pitch periods, syllables of a quarter second, pauses."""
    chance = random.Random(seed)
    out = array("h")
    sample = 0.0
    phase = 0.0
    for i in range(int(seconds * RATE)):
        at = i / RATE
        envelope = max(0.0, math.sin(2 * math.pi * 2.1 * at + seed)) ** 0.5
        phase += pitch * (1 + 0.1 * math.sin(3.7 * at)) / RATE
        pulse = 1.0 if phase >= 1.0 else 0.0
        phase -= pulse
        # One pole makes of pulses and breath what a throat does.
        sample = 0.9 * sample + 2.2 * pulse + 0.15 * chance.uniform(-1, 1)
        out.append(round(max(-1.0, min(1.0, sample)) * envelope * peak))
    return out.tobytes()


def delayed(pcm: bytes, seconds: float) -> bytes:
    """Later by so much, of the same length; earlier when negative."""
    shift = 2 * round(seconds * RATE)
    if shift >= 0:
        return (bytes(shift) + pcm)[: len(pcm)]
    return pcm[-shift:] + bytes(-shift)


def added(*parts: bytes) -> bytes:
    out = parts[0]
    for part in parts[1:]:
        out = audioop.add(out, part, 2)
    return out


def heard(
    pcm: bytes, lead: float = 0.04, reflections: Sequence[tuple[float, float]] = REFLECTIONS
) -> bytes:
    """What the microphone has of the loudspeaker."""
    return added(*(delayed(audioop.mul(pcm, 2, gain), lead + at) for at, gain in reflections))


def noise(pcm: bytes, rms: float, seed: int = 5) -> bytes:
    """`pcm` in some street noise."""
    chance = random.Random(seed)
    hiss = array("h", (round(chance.gauss(0, rms)) for _ in range(len(pcm) // 2)))
    return audioop.add(pcm, hiss.tobytes(), 2)


def frames(pcm: bytes, size: int = FRAME) -> list[bytes]:
    return [pcm[i : i + size] for i in range(0, len(pcm) - size + 1, size)]


def seconds(pcm: bytes, first: float, last: float) -> bytes:
    return pcm[2 * round(first * RATE) : 2 * round(last * RATE)]


def fell_db(before: bytes, after: bytes) -> float:
    """By how much the level fell."""
    return 20 * math.log10(max(audioop.rms(before, 2), 1) / max(audioop.rms(after, 2), 1))
