"""Sound that is known, and how much of it arrived: correlation with a search for the delay."""

import math
import random
import wave
from array import array
from collections.abc import Sequence
from operator import mul
from pathlib import Path
from statistics import median

from doorstation.media.pcm import audioop

RATE = 8000
WHISTLE = 5000
"""Hz."""


def write_speech(
    path: Path,
    seconds: float,
    seed: int,
    rate: int = RATE,
    pole: float = 0.14,
    gain: float = 11,
    whistle: float = 0,
) -> Path:
    """A mono S16 WAV that is like nothing else: low noise, louder and softer as speech.

    Low as a voice, so that a sample left out now and then, as a card's own clock asks for, shifts
    it by little; higher with a `pole` nearer to 1, which wants less `gain`. `whistle`: amplitude of
    a tone of 5 kHz in it, which no telephone of old carries.
    """
    chance = random.Random(seed)
    low = lower = 0.0
    loud = aim = 4000.0
    samples = array("h")
    for n in range(int(seconds * rate)):
        if n % (rate // 8) == 0:
            aim = chance.uniform(1500, 7000)
        loud += (aim - loud) * 8 / rate
        low += pole * (chance.uniform(-1, 1) - low)
        lower += pole * (low - lower)
        high = whistle * math.sin(2 * math.pi * WHISTLE * n / rate) if whistle else 0
        samples.append(max(-32000, min(32000, round(gain * loud * lower + high))))
    write_pcm(path, samples.tobytes(), rate)
    return path


def write_pcm(path: Path, pcm: bytes, rate: int) -> None:
    """Mono S16 as a WAV."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(pcm)


def sine(
    hertz: float, count: int, rate: int = 16000, *, peak: float = 9000, begin: int = 0
) -> bytes:
    """`count` samples S16 of a tone, from its sample `begin` on."""
    step = 2 * math.pi * hertz / rate
    wave = (round(peak * math.sin(step * n)) for n in range(begin, begin + count))
    return array("h", wave).tobytes()


def voice(seconds: float, rate: int = 16000, pitch: float = 130) -> list[bytes]:
    """Periods of 20 ms: a voice around that pitch with its overtones, loud and soft."""
    samples = array("h")
    phase = 0.0
    for n in range(int(seconds * rate)):
        at = n / rate
        phase += 2 * math.pi * (pitch + 20 * math.sin(2 * math.pi * 0.7 * at)) / rate
        tone = sum(math.sin(k * phase) / k for k in range(1, 20))
        samples.append(round(5000 * tone * (0.55 + 0.45 * math.sin(2 * math.pi * 3 * at))))
    pcm = samples.tobytes()
    size = 2 * rate // 50
    return [pcm[at : at + size] for at in range(0, len(pcm), size)]


def whistle_in(pcm: bytes, rate: int) -> float:
    """The amplitude of the tone of 5 kHz in a sound, on average over pieces of 20 ms."""
    step = 2 * math.pi * WHISTLE / rate
    count = rate // 50
    samples = memoryview(pcm[: len(pcm) // (2 * count) * 2 * count]).cast("h")
    found: list[float] = []
    for at in range(0, len(samples), count):
        piece = samples[at : at + count]
        real = sum(sample * math.cos(step * n) for n, sample in enumerate(piece))
        imaginary = sum(sample * math.sin(step * n) for n, sample in enumerate(piece))
        found.append(2 * math.hypot(real, imaginary) / count)
    return sum(found) / len(found)


def read_pcm(path: Path) -> bytes:
    """The samples of a mono S16 WAV, also of one that is still being written."""
    data = path.read_bytes()
    start = data.find(b"data")
    return b"" if start < 0 else data[start + 8 :][: (len(data) - start - 8) // 2 * 2]


def likeness(
    said: bytes, heard: bytes, *, piece_seconds: float = 0.1, pieces: int = 12, sure: float = 0.9
) -> float:
    """Median correlation of the last loud pieces of `heard` with `said`; both S16 mono at 8 kHz.

    Each piece finds its own place in what was said, so a gap or a drifting clock costs the piece
    it falls in and not everything behind it. Real speech needs longer pieces to be unlike itself.
    What fits by `sure` beside the piece before is looked for nowhere else, which takes long.
    0.0 when nothing loud was heard.
    """
    size = 2 * round(piece_seconds * RATE)
    found: list[float] = []
    place: int | None = None
    end = len(heard) // 2 * 2
    while end >= size and len(found) < pieces:
        piece = heard[end - size : end]
        if audioop.rms(piece, 2) > 300:
            best = 0.0
            if place is not None:  # where the piece before was found, there this one is near
                best, place = _fit(said, piece, max(0, place - 2 * size), place + size)
            if best < sure:
                best, place = _fit(said, piece, 0, len(said))
            found.append(best)
        end -= size
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
