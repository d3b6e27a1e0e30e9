"""A line between a speaking far end and our engine, in virtual time and with a fixed seed."""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from doorstation.ids import SeededIds
from doorstation.media.engine import CallAudio
from doorstation.media.g711 import encode_pcma
from doorstation.media.rtp import HEADER

from tests.support.agreed import agreed

PERIOD: Final = 0.020
_REMOTE: Final = ("192.0.2.1", 4000)


Way = Iterator[float | None]
"""Each packet's seconds on the way; None: lost."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a line does to packets."""

    name: str
    way: Callable[[random.Random], Way]
    ppm: float = 0.0
    """How much faster the far end's clock runs than the card's."""

    def arrivals(self, count: int, seed: int = 1) -> list[tuple[float, int]]:
        """(when, number) of every packet that arrives, in this order."""
        way = zip(range(count), self.way(random.Random(seed)), strict=False)
        speed = 1.0 + self.ppm * 1e-6
        return sorted((number * PERIOD / speed + took, number) for number, took in way if took)


Delay = Callable[[random.Random], float]


def _short(chance: random.Random) -> float:
    return 0.0005


def line(delay: Delay = _short, loss: float = 0.0) -> Callable[[random.Random], Way]:
    """Each packet by itself."""

    def way(chance: random.Random) -> Way:
        while True:
            lost = chance.random() < loss
            took = delay(chance)
            yield None if lost else took

    return way


def gaussian(chance: random.Random) -> float:
    """30 ms of jitter: netem's `delay 100ms 30ms distribution normal`."""
    return max(0.0005, chance.gauss(0.1, 0.03))


def pareto(chance: random.Random) -> float:
    """30 ms of jitter (standard deviation), with a long tail: shape 3."""
    return 0.03464 * chance.paretovariate(3.0)


def reordering(chance: random.Random) -> float:
    """One packet in twenty is overtaken by the two behind it."""
    return 0.055 if chance.random() < 0.05 else 0.005


def bursty(loss: float) -> Callable[[random.Random], Way]:
    """Gilbert and Elliott's line: `loss`, all of it in bad times of four packets on average.

    Of ten packets in a bad time seven are lost.
    """
    bad_share = loss / 0.7

    def way(chance: random.Random) -> Way:
        bad = False
        while True:
            lost = chance.random() < 0.7 and bad
            yield None if lost else _short(chance)
            change = 0.25 if bad else 0.25 * bad_share / (1.0 - bad_share)
            bad ^= chance.random() < change

    return way


def recorded(chance: random.Random) -> Way:
    """What record_jitter.py wrote, again and again: a line, and its queue, that others use too."""
    words = Path(__file__).with_name("recorded_jitter.txt").read_text().split()
    for word in itertools.cycle(words):
        yield None if word == "-" else 0.0005 + float(word) / 1e3


PATTERNS: Final = (
    Pattern("1 % loss", line(loss=0.01)),
    Pattern("5 % loss", line(loss=0.05)),
    Pattern("10 % loss", line(loss=0.10)),
    Pattern("1 % bursty loss", bursty(0.01)),
    Pattern("5 % bursty loss", bursty(0.05)),
    Pattern("10 % bursty loss", bursty(0.10)),
    Pattern("Gaussian jitter 30 ms", line(gaussian)),
    Pattern("Pareto jitter 30 ms", line(pareto)),
    Pattern("5 % loss and Gaussian jitter 30 ms", line(gaussian, loss=0.05)),
    Pattern("5 % out of order", line(reordering)),
    Pattern("recorded jitter", recorded),
)
DRIFTS: Final = (
    Pattern("far end 200 ppm fast", line(), ppm=200),
    Pattern("far end 200 ppm slow", line(), ppm=-200),
)


def repaired(said: bytes, arrivals: list[tuple[float, int]], repeat: bool) -> bytes:
    """The least that can be done for a loss: silence, or the last packet again."""
    there = {number for _, number in arrivals}
    last = silence = bytes(320)
    heard = []
    for number in range(len(said) // 320):
        if number in there:
            last = said[number * 320 : number * 320 + 320]
            heard.append(last)
        else:
            heard.append(last if repeat else silence)
    return b"".join(heard)


def through_engine(
    said: bytes, arrivals: list[tuple[float, int]], phase: float = 0.007
) -> tuple[bytes, CallAudio]:
    """What the engine makes of packets of A-law: (for the loudspeaker, the engine itself).

    What is handed to the card in a tick counts as heard from then on. `phase`: of the card's
    ticks, seconds. The socket is read as net/media.py does it: in a tick up to the first packet
    that is younger than a period.
    """
    audio = CallAudio(SeededIds(1), 0.0)
    audio.configure(agreed(_REMOTE), 0.0)
    payload = encode_pcma(said)
    waiting = list(reversed(arrivals))
    heard = []
    silence = bytes(320)
    ticks = len(said) // 320
    for tick in range(ticks):
        now = tick * PERIOD + phase
        audio.microphone(silence)
        while waiting and waiting[-1][0] <= now:
            at, number = waiting.pop()
            head = HEADER.pack(0x80, 8, number & 0xFFFF, number * 160 & 0xFFFFFFFF, 7)
            piece = payload[number * 160 : number * 160 + 160]
            audio.datagram(head + piece, _REMOTE, now, now - at)
            if now - at < PERIOD:
                break
        out = audio.loudspeaker()
        if tick % 10 == 0:
            audio.upkeep(now)
        assert out is not None
        heard.append(out)
    return bytes(int(phase * 8000) * 2) + b"".join(heard), audio
