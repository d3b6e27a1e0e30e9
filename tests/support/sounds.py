"""Sound that is known, and how much of it arrived: correlation with a search for the delay."""

import random
import struct
import wave
from array import array
from collections.abc import Sequence
from pathlib import Path

from doorstation.media.pcm import audioop

RATE = 8000


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


def likeness(said: bytes, heard: bytes, window: float = 0.6) -> list[float]:
    """Correlation of each whole window of `heard` with what was said, at its best delay.

    Both mono S16 at 8 kHz. Each window looks for its own place in `said`, which may repeat. Silent
    windows (nothing had been said yet) are left out.
    """
    size = 2 * int(window * RATE)
    found = []
    for at in range(0, len(heard) - size + 1, size):
        piece = heard[at : at + size]
        if audioop.rms(piece, 2) < 100:
            continue
        found.append(_best(piece, said))
    return found


def _best(piece: bytes, said: bytes) -> float:
    """The highest correlation of `piece` with any part of `said`."""
    place, _ = audioop.findfit(said, piece)
    return correlation(said[2 * place : 2 * place + len(piece)], piece)


def correlation(a: bytes, b: bytes) -> float:
    x, y = _centred(a), _centred(b)
    energy = sum(v * v for v in x) * sum(v * v for v in y)
    product = sum(v * w for v, w in zip(x, y, strict=True))
    return product / energy**0.5 if energy else 0.0


def _centred(pcm: bytes) -> Sequence[float]:
    values = struct.unpack(f"<{len(pcm) // 2}h", pcm)
    mean = sum(values) / len(values)
    return [v - mean for v in values]
