"""Speech for measurements, and how well it came through: PESQ, frames damaged, delay.

The speech is Debian's asterisk-core-sounds-en-wav and -it-wav: a woman and a man, with the pauses
of real sentences, 8 kHz. PESQ is ITU-T P.862 as MOS-LQO (P.862.1), at most 4.55, by the package
`pesq`; numpy is for benchmarks alone.
"""

import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from doorstation.media.pcm import audioop

RATE: Final = 8000
FRAME: Final = RATE // 50

_FOLDER: Final = Path("/usr/share/asterisk/sounds")
_FILES: Final = (
    "en_US_f_Allison/demo-congrats.wav", "it_IT_m_Carlo/demo-congrats.wav",
    "en_US_f_Allison/demo-instruct.wav", "it_IT_m_Carlo/demo-instruct.wav",
)  # fmt: skip

SEGMENT: Final = 8 * RATE
"""What one PESQ compares: P.862 wants 8 to 12 s."""

_REACH: Final = 1.2
"""Seconds that a packet may take."""

Samples = np.ndarray[Any, np.dtype[Any]]


def speech(seconds: float) -> bytes:
    """So much speech, again from the beginning when it is over: S16, as G.711 A-law lets it be.

    Raises OSError naming the packages when they are not installed.
    """
    pieces = []
    for name in _FILES:
        try:
            with wave.open(str(_FOLDER / name)) as file:
                pieces.append(file.readframes(file.getnframes()))
        except FileNotFoundError as error:
            raise OSError(
                f"{error.filename} is missing: install asterisk-core-sounds-en-wav and -it-wav"
            ) from error
    said = b"".join(pieces)
    count = int(seconds * RATE)
    said = (said * (2 * count // len(said) + 1))[: 2 * count]
    return audioop.alaw2lin(audioop.lin2alaw(said, 2), 2)


@dataclass(frozen=True, slots=True)
class Quality:
    """What became of speech. `delays`: of each frame that arrived whole, in samples."""

    pesq: float
    damaged: int
    frames: int
    delays: tuple[int, ...]


def quality(said: bytes, heard: bytes, begin: int, ppm: float = 0.0) -> Quality:
    """Compare what was said from sample `begin` on with what was heard.

    `ppm`: how much faster the speaker's clock runs than the listener's, on which delays are.
    """
    import pesq

    reference = np.frombuffer(said, dtype=np.int16).astype(np.float64)
    output = np.frombuffer(heard, dtype=np.int16).astype(np.float64)
    speed = 1.0 + ppm * 1e-6
    places = dict(_places(reference, output, begin, speed))
    delays = tuple(places[frame] for frame in sorted(places))
    scores = []
    for start in range(begin, len(reference) - SEGMENT + 1, SEGMENT):
        inside = [
            round(frame / speed) + places[frame] - frame
            for frame in range(start, start + SEGMENT, FRAME)
            if frame in places
        ]
        # From where its beginning is heard to where its end is: a delay that grew cuts nothing off.
        first, last = (inside[0], inside[-1]) if inside else (0, 0)
        piece = output[start + first : start + SEGMENT + last]
        if len(piece) < SEGMENT + last - first:
            break
        scores.append(
            pesq.pesq(
                RATE,
                reference[start : start + SEGMENT].astype(np.int16),
                piece.astype(np.int16),
                "nb",
            )
        )
    spoken = sum(1 for _ in _spoken(reference, begin, len(output)))
    return Quality(float(np.mean(scores)), spoken - len(places), spoken, delays)


def _spoken(reference: Samples, begin: int, end: int) -> Iterator[int]:
    """Where each frame begins that has sound in it (over -50 dBFS)."""
    last = min(len(reference), end - int(_REACH * RATE)) - FRAME
    for start in range(begin, last, FRAME):
        frame = reference[start : start + FRAME]
        if np.sqrt(np.mean(frame * frame)) > 100.0:
            yield start


def _places(
    reference: Samples, output: Samples, begin: int, speed: float
) -> Iterator[tuple[int, int]]:
    """(frame, its delay) of every spoken frame that is found in the output as it was said."""
    known = 0
    for start in _spoken(reference, begin, len(output)):
        frame = reference[start : start + FRAME]
        sent = round(start / speed)
        near = max(0, known - 2 * FRAME)
        found = _found(frame, output[sent + near : sent + near + 5 * FRAME])
        if found is None:
            near = 0
            found = _found(frame, output[sent : sent + int(_REACH * RATE)])
        if found is not None:
            known = near + found
            yield start, known


def _found(frame: Samples, window: Samples) -> int | None:
    """Where in the window the frame is, at nearly its own level; None when it is not."""
    if len(window) < len(frame):
        return None
    products = np.correlate(window, frame, "valid")
    sums = np.concatenate(([0.0], np.cumsum(window * window)))
    energy = sums[len(frame) :] - sums[: -len(frame)]
    own = float(np.dot(frame, frame))
    place = int(np.argmax(products / np.sqrt(np.maximum(energy, 1.0))))
    error = energy[place] - 2 * products[place] + own
    return place if error < 0.04 * own else None
