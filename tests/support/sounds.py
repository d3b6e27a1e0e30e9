"""Sound that is known, and how much of it arrived: correlation with a search for the delay."""

import random
import wave
from array import array
from collections.abc import Sequence
from operator import mul
from pathlib import Path
from statistics import median

from doorstation.media.pcm import audioop

RATE = 8000
PIECE = 2 * 1200  # octets: 0.15 s


def write_speech(path: Path, seconds: float, seed: int, rate: int = RATE) -> Path:
    """A mono S16 WAV that is like nothing else: noise below 2 kHz, louder and softer as speech."""
    chance = random.Random(seed)
    low = lower = 0.0
    loud = aim = 4000.0
    samples = array("h")
    keep = 0.5 if rate <= 8000 else 0.75
    for n in range(int(seconds * rate)):
        if n % (rate // 8) == 0:
            aim = chance.uniform(1500, 7000)
        loud += (aim - loud) * 8 / rate
        low = keep * low + (1 - keep) * chance.uniform(-1, 1)
        lower = keep * lower + (1 - keep) * low
        samples.append(max(-32000, min(32000, round(3 * loud * lower))))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def read_pcm(path: Path) -> bytes:
    """The samples of a mono S16 WAV, also of one that is still being written."""
    data = path.read_bytes()
    start = data.find(b"data")
    return b"" if start < 0 else data[start + 8 :][: (len(data) - start - 8) // 2 * 2]


def at_8k(pcm: bytes, rate: int) -> bytes:
    if rate == RATE:
        return pcm
    return bytes(audioop.ratecv(pcm, 2, 1, rate, RATE, None)[0])


def likeness(said: bytes, heard: bytes, pieces: int = 8) -> float:
    """Median correlation of the last loud pieces of `heard` with `said`; both S16 mono at 8 kHz.

    Each piece finds its own place in what was said, so a gap or a drifting clock costs the piece
    it falls in and not everything behind it. 0.0 when nothing loud was heard.
    """
    found: list[float] = []
    place: int | None = None
    end = len(heard) // 2 * 2
    while end >= PIECE and len(found) < pieces:
        piece = heard[end - PIECE : end]
        if audioop.rms(piece, 2) > 300:
            best = 0.0
            if place is not None:  # where the piece before was found, there this one is near
                best, place = _fit(said, piece, max(0, place - 2 * PIECE), place + PIECE)
            if best < 0.9:
                best, place = _fit(said, piece, 0, len(said))
            found.append(best)
        end -= PIECE
    return median(found) if found else 0.0


def _fit(said: bytes, piece: bytes, begin: int, end: int) -> tuple[float, int]:
    """The best correlation of `piece` with a part of said[begin:end], and where, in octets."""
    part = said[begin:end]
    if len(part) < len(piece):
        return 0.0, begin
    place = begin + 2 * audioop.findfit(part, piece)[0]
    return correlation(said[place : place + len(piece)], piece), place


def correlation(one: bytes, other: bytes) -> float:
    """Pearson's, of two sounds of one length: 1.0 for the same shape, whatever the loudness."""
    x, y = _centred(one), _centred(other)
    energy = sum(map(mul, x, x)) * sum(map(mul, y, y))
    return sum(map(mul, x, y)) / energy**0.5 if energy else 0.0


def _centred(pcm: bytes) -> Sequence[float]:
    values = array("h", pcm)
    mean = sum(values) / len(values)
    return [value - mean for value in values]
