"""A line between a speaking far end and our engine, in virtual time and with a fixed seed."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from doorstation.ids import SeededIds
from doorstation.media.engine import CallAudio
from doorstation.media.g711 import encode_pcma
from doorstation.media.rtp import HEADER

from tests.support.agreed import agreed

PERIOD: Final = 0.020
_REMOTE: Final = ("192.0.2.1", 4000)


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a line does to packets. `delay` gives each packet's seconds on the way."""

    name: str
    delay: Callable[[random.Random], float] = lambda chance: 0.0005
    loss: float = 0.0
    ppm: float = 0.0
    """How much faster the far end's clock runs than the card's."""

    def arrivals(self, count: int, seed: int = 1) -> list[tuple[float, int]]:
        """(when, number) of every packet that arrives, in this order."""
        chance = random.Random(seed)
        arrived = []
        for number in range(count):
            sent = number * PERIOD / (1.0 + self.ppm * 1e-6)
            lost = chance.random() < self.loss
            took = self.delay(chance)
            if not lost:
                arrived.append((sent + took, number))
        return sorted(arrived)


def gaussian(chance: random.Random) -> float:
    """30 ms of jitter: netem's `delay 100ms 30ms distribution normal`."""
    return max(0.0, chance.gauss(0.1, 0.03))


def pareto(chance: random.Random) -> float:
    """30 ms of jitter (standard deviation), with a long tail: shape 3."""
    return 0.03464 * chance.paretovariate(3.0)


PATTERNS: Final = (
    Pattern("1 % loss", loss=0.01),
    Pattern("5 % loss", loss=0.05),
    Pattern("10 % loss", loss=0.10),
    Pattern("Gaussian jitter 30 ms", gaussian),
    Pattern("Pareto jitter 30 ms", pareto),
    Pattern("5 % loss and Gaussian jitter 30 ms", gaussian, loss=0.05),
)
DRIFTS: Final = (
    Pattern("far end 200 ppm fast", ppm=200),
    Pattern("far end 200 ppm slow", ppm=-200),
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
