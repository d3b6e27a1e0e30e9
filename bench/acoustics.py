"""`python -m bench.acoustics`: echo, double talk and drift in simulated rooms, mode by mode.

Writes docs/audio.md. Needs no sound card and no network; about two minutes.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from doorstation.media.echo import Canceller, Mode, Options, make

from bench import rooms
from bench.rooms import FRAME, LEAD, PORCH, RATE, Heard, Samples, Scene
from bench.table import processor, today

ROOT: Final = Path(__file__).resolve().parent.parent

DRIVE: Final = 5.0
PPM: Final = 80.0

LINEAR: Final = Scene()
DISTORTED: Final = Scene(drive=DRIVE)
DRIFTING: Final = Scene(ppm=PPM)
HALL: Final = Scene(room=rooms.HALL)
HAND: Final = Scene(hand_at=15.0)
BOTH: Final = Scene(visitor_at=10.0)
BOTH_DISTORTED: Final = Scene(visitor_at=10.0, drive=DRIVE)
QUIET_VISITOR: Final = Scene(visitor_at=10.0, visitor_db=-6.0)


def canceller(mode: Mode) -> Canceller:
    """As the station makes it at 16 kHz, with the card's true delay."""
    made = make(Options(mode=mode), RATE)
    made.call_began(LEAD)
    return made


def run(processor: Canceller, scene: Heard) -> Samples:
    """All of a scene through it."""
    size = 2 * FRAME
    out = b"".join(
        processor.process(scene.microphone[i : i + size], scene.reference[i : i + size])
        for i in range(0, len(scene.microphone) - size + 1, size)
    )
    return np.frombuffer(out, np.int16).astype(np.float64)


def _samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, np.int16).astype(np.float64)


def erle_db(scene: Heard, out: Samples, first: float, last: float) -> float:
    """By how much the microphone's power fell between two instants."""
    here = slice(round(first * RATE), round(last * RATE))
    before, after = _samples(scene.microphone)[here], out[here]
    return float(10 * np.log10((before**2).mean() / ((after**2).mean() + 1e-9)))


def seconds_to_20_db(scene: Heard, out: Samples, since: float = 0.0) -> float | None:
    """From the first echo after `since` until half a second that is 20 dB down; None: never."""
    window = RATE // 2
    late = FRAME  # the preprocessor's: else an onset that has not come out yet is taken for success
    microphone = _samples(scene.microphone)
    began: float | None = None
    for start in range(round(since * RATE), len(out) - window - late, RATE // 100):
        before = microphone[start : start + window]
        if (before[: RATE // 50] ** 2).mean() < 3e4 and began is None:
            continue
        if began is None:
            began = start / RATE
        after = out[start + late : start + window + late]
        if (before**2).mean() > max(3e4, 100 * (after**2).mean()):
            return start / RATE - began
    return None


@dataclass(frozen=True, slots=True)
class Talk:
    """What the far end has of the visitor while both talk."""

    level_db: float
    stoi: float
    pesq: float


def talk(scene: Heard, out: Samples, first: float) -> Talk:
    """Compare with the visitor alone, the processor's own delay taken out."""
    from pesq import pesq
    from pystoi import stoi

    said = scene.visitor[round(first * RATE) :]
    sent = out[round(first * RATE) :]
    size = 2 * max(len(said), len(sent))
    likeness = np.fft.irfft(np.fft.rfft(sent, size) * np.conj(np.fft.rfft(said, size)), size)
    late = int(np.argmax(likeness[: RATE // 10]))
    sent = sent[late:]
    count = min(len(said), len(sent))
    said, sent = said[:count], sent[:count]
    power = rooms.frames(said)
    talks = power > power.max() * 1e-3
    level = rooms.frames(sent)[talks].mean() / power[talks].mean()
    return Talk(
        float(10 * np.log10(level)),
        float(stoi(said, sent, RATE)),
        float(pesq(RATE, said / rooms.FULL_SCALE, sent / rooms.FULL_SCALE, "wb")),
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of every mode; `target` is the standard mode's."""

    name: str
    measure: Callable[[Mode], float | None]
    digits: int
    target: float | None = None
    at_least: bool = True


def _erle(scene: Scene) -> Callable[[Mode], float | None]:
    def measure(mode: Mode) -> float:
        played = rooms.heard(scene)
        return erle_db(played, run(canceller(mode), played), 15, 25)

    return measure


def _first_call(mode: Mode) -> float | None:
    played = rooms.heard(LINEAR)
    return seconds_to_20_db(played, run(canceller(mode), played))


def _kept(mode: Mode) -> float | None:
    """A second call of the same canceller."""
    played = rooms.heard(LINEAR)
    kept = canceller(mode)
    run(kept, played)
    kept.call_began(LEAD)
    return seconds_to_20_db(played, run(kept, played))


def _hand(mode: Mode) -> float | None:
    played = rooms.heard(HAND)
    return seconds_to_20_db(played, run(canceller(mode), played), since=15.0)


def _talk(scene: Scene, figure: str) -> Callable[[Mode], float | None]:
    def measure(mode: Mode) -> float:
        played = rooms.heard(scene)
        judged = talk(played, run(canceller(mode), played), scene.visitor_at or 0.0)
        return float(getattr(judged, figure))

    return measure


def _cpu(mode: Mode) -> float:
    """Seconds of CPU for a minute of sound; the least of three."""
    played = rooms.heard(LINEAR)
    times = []
    for _ in range(3):
        processor = canceller(mode)
        begin = time.process_time()
        run(processor, played)
        times.append((time.process_time() - begin) * 60 / LINEAR.seconds)
    return min(times)


ECHO: Final = (
    Column("linear room", _erle(LINEAR), 1, 35),
    Column("distorted loudspeaker", _erle(DISTORTED), 1, 30),
    Column("80 ppm drift", _erle(DRIFTING), 1, 30),
    Column("reverberant hall", _erle(HALL), 1),
)
TIME: Final = (
    Column("first call ever", _first_call, 2),
    Column("filter kept", _kept, 2, 0.5, at_least=False),
    Column("after a hand covers the loudspeaker", _hand, 2),
)
TALK: Final = (
    Column("level", _talk(BOTH, "level_db"), 1, -1),
    Column("STOI", _talk(BOTH, "stoi"), 2, 0.95),
    Column("PESQ", _talk(BOTH, "pesq"), 2, 2.8),
    Column("visitor 6 dB quieter: level", _talk(QUIET_VISITOR, "level_db"), 1),
    Column("STOI", _talk(QUIET_VISITOR, "stoi"), 2),
    Column("PESQ", _talk(QUIET_VISITOR, "pesq"), 2),
    Column("distorted loudspeaker: level", _talk(BOTH_DISTORTED, "level_db"), 1),
    Column("STOI", _talk(BOTH_DISTORTED, "stoi"), 2),
    Column("PESQ", _talk(BOTH_DISTORTED, "pesq"), 2),
)
CPU: Final = (Column("CPU", _cpu, 2),)

STANDARD: Final = "speex"


def table(columns: tuple[Column, ...], modes: tuple[Mode, ...]) -> Iterator[str]:
    """Markdown rows; the last one says what the standard mode has to reach."""
    yield "| mode | " + " | ".join(column.name for column in columns) + " |"
    yield "|---|" + "---:|" * len(columns)
    verdicts = ["" for _ in columns]
    for mode in modes:
        cells = []
        for index, column in enumerate(columns):
            value = column.measure(mode)
            cells.append("never" if value is None else f"{value:.{column.digits}f}")
            if mode == STANDARD and column.target is not None:
                verdicts[index] = _verdict(column, value)
        yield f"| `{mode}` | " + " | ".join(cells) + " |"
        print(mode, *cells, file=sys.stderr)
    if any(verdicts):
        yield "| to reach, `speex` | " + " | ".join(verdicts) + " |"


def _verdict(column: Column, value: float | None) -> str:
    assert column.target is not None
    if column.at_least:
        met = value is not None and value >= column.target
        return f"at least {column.target:g}: {'met' if met else '**missed**'}"
    met = value is not None and value <= column.target
    return f"at most {column.target:g}: {'met' if met else '**missed**'}"


def page(modes: tuple[Mode, ...]) -> str:
    """docs/audio.md."""
    far = rooms.at_level(rooms.woman(LINEAR.seconds), -22.0)
    limit = rooms.linear_limit_db(far, rooms.distorted(far, DRIVE))
    load = os.getloadavg()[0]
    parts: dict[str, Any] = {
        "ECHO": "\n".join(table(ECHO, modes)),
        "TIME": "\n".join(table(TIME, modes)),
        "TALK": "\n".join(table(TALK, modes)),
        "CPU": "\n".join(table(CPU, modes)),
        "LOAD": f"{load:.1f} and {os.getloadavg()[0]:.1f}",
        "LIMIT": f"{limit:.0f}",
        "NOISE": f"{-LINEAR.noise_db:.0f}",
        "DATE": today(),
        "MACHINE": processor(),
        "PYTHON": platform.python_version(),
        "SIZE": " x ".join(f"{side:g}" for side in PORCH.size),
    }
    text = _PAGE
    for name, value in parts.items():
        text = text.replace(f"@{name}@", value)
    return text


_PAGE: Final = """\
# Sound that people can talk over

Made by `python -m bench.acoustics` on @DATE@, @MACHINE@, Python @PYTHON@: the
station's own modules on real voices in rooms that are not there. Figures, not promises; one that
misses its target stands here as it was measured. What the modes are and what they need is in
[settings.md](settings.md), under `audio.echo`; `doorstation doctor audio` measures the room that is
there.

## Echo: dB down, far end alone, 15 to 25 s into the first call

@ECHO@

A porch of @SIZE@ m, loudspeaker and microphone ten centimetres apart in one wall,
40 ms of queue in the sound card, and a street @NOISE@ dB below the echo: what a linear filter alone
can reach is @NOISE@ dB. The distorted loudspeaker saturates and is not symmetric; a linear filter
can take away @LIMIT@ dB of it. With drift the loudspeaker's clock is faster than the microphone's.
The hall is 4 x 6 x 3 m with hard walls and rings for longer than the filter.

## Time until the echo is 20 dB down, s

@TIME@

From the first audible echo until half a second of it is 20 dB down. *Filter kept*: a second call,
the canceller as the first call left it. *Hand*: at 15 s another path takes the place of the first.

## Both talk: what the far end has of the visitor

@TALK@

The far end talks all the time, the visitor for 20 s from the tenth second on, at the echo's level
at the microphone (or 6 dB below it). Level: what is sent while the visitor talks beside the visitor
alone, in dB. STOI and wide-band PESQ compare what is sent with the visitor without street and echo.

## CPU, seconds a minute

@CPU@

The least of three runs, all of Python's share included. It is a call's first half minute: `speex`
runs two filters in the first eight seconds of the far end's talk. The machine's load before and
after: @LOAD@; one that is shared makes all of them slower.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.acoustics", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "audio.md")
    parser.add_argument("--modes", default=",".join(get_args(Mode)))
    options = parser.parse_args()
    modes = tuple(mode for mode in get_args(Mode) if mode in options.modes.split(","))
    text = page(modes)
    options.output.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
