"""How much of a known sound arrived: correlation, each piece looked for where it fits best."""

from array import array
from collections.abc import Sequence
from math import sqrt
from operator import mul
from statistics import median

WINDOW = 2400  # 0.3 s at 8 kHz
COARSE = 8
ENOUGH = 6


def likeness(said: bytes, heard: bytes) -> float:
    """Median correlation of the loud pieces of `heard` with `said`; both S16 mono at 8 kHz.

    Each piece finds its own place, so a gap or a drifting clock costs the piece it falls in and
    not everything behind it. 0.0 when nothing loud was heard.
    """
    original, received = array("h", said), array("h", heard)
    shape = _envelope(original)
    found: list[float] = []
    for start in range(0, len(received) - WINDOW + 1, WINDOW):
        piece = received[start : start + WINDOW]
        if sum(map(abs, piece)) / WINDOW < 300:
            continue
        if len(found) == ENOUGH:
            break
        outline = _envelope(piece)
        places = range(len(shape) - len(outline) + 1)
        best = sorted(places, key=lambda at: -correlation(shape[at : at + len(outline)], outline))
        fine = {
            at for near in best[:3] for at in range((near - 2) * COARSE, (near + 2) * COARSE + 1)
        }
        found.append(
            max(
                correlation(original[at : at + WINDOW], piece)
                for at in fine
                if 0 <= at <= len(original) - WINDOW
            )
        )
    return median(found) if found else 0.0


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Pearson's, of two sequences of one length: 1.0 for the same shape, whatever the loudness."""
    count = len(one)
    mean, other_mean = sum(one) / count, sum(other) / count
    energy: float = sum(map(mul, one, one)) - count * mean * mean
    other_energy: float = sum(map(mul, other, other)) - count * other_mean * other_mean
    if energy <= 0 or other_energy <= 0:
        return 0.0
    common: float = sum(map(mul, one, other)) - count * mean * other_mean
    return common / sqrt(energy * other_energy)


def _envelope(samples: Sequence[int]) -> list[int]:
    """Loudness in steps of a millisecond: enough to find the place, an eighth of the work."""
    return [
        sum(map(abs, samples[at : at + COARSE]))
        for at in range(0, len(samples) - COARSE + 1, COARSE)
    ]
