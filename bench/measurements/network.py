"""Bad lines.

Speech of a woman and a man in G.711 A-law, 20 ms packets, over lines that lose and delay them:
each packet by itself, with one seed for all programs. Gaussian: 100 ms on the way, standard
deviation 30 ms. Pareto: shape 3, standard deviation 30 ms. Packets overtake each other. The far end
sends each packet when it would have arrived. *PESQ* (ITU-T P.862, as MOS-LQO: 4.55 at most) of
8 s at a time, the first 3 s of a call left out, against what was encoded. *Damaged*: frames of
20 ms with sound in them that were not heard as they were said. *Delay*: from the arrival of the
median packet to its sound. *Engine*: this firmware's media engine alone in virtual time, three
minutes and more, without a card and its queue; the other rows are real calls over the virtual card.
"""

import functools
import time
from statistics import median

from doorstation.media.g711 import encode_pcma

from bench.agents import Agent, Setup
from bench.card import played
from bench.far_end import PCMA, Spoken
from bench.line import DRIFTS, PATTERNS, Pattern, repaired, through_engine
from bench.run import Bench, Values
from bench.speech import RATE, Quality, quality, speech
from bench.table import OURS, Row, Target

BEGIN = 3 * RATE
_TAIL = 1.5
"""Seconds in which the last packets are heard."""

PESQ = {
    "1 % loss": 3.98,
    "5 % loss": 3.21,
    "10 % loss": 2.85,
    "Gaussian jitter 30 ms": 4.3,
    "Pareto jitter 30 ms": 4.2,
    "5 % loss and Gaussian jitter 30 ms": 3.6,
}
DELAY = {
    "Gaussian jitter 30 ms": 150,
    "Pareto jitter 30 ms": 400,
    "5 % loss and Gaussian jitter 30 ms": 250,
}


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    seconds = bench.seconds(195, 20)
    said = speech(seconds)
    rows: list[Row] = []
    notes: list[str] = []
    for pattern in PATTERNS:
        arrivals = pattern.arrivals(len(said) // 320)
        found = quality(said, through_engine(said, arrivals)[0], BEGIN)
        rows += _rows(f"engine, {pattern.name}", pattern.name, _values(found, arrivals))
        if pattern.loss and pattern.name not in DELAY:
            silent, again = (
                quality(said, repaired(said, arrivals, repeat), BEGIN).pesq
                for repeat in (False, True)
            )
            notes.append(
                f"PESQ at {pattern.name} with silence inserted {silent:.2f}, "
                f"with the last packet repeated {again:.2f}"
            )
    for pattern in DRIFTS:
        rows += _drift(bench, pattern)
    for pattern in PATTERNS:
        row = bench.each(functools.partial(_call, bench, pattern))
        rows += [
            Row(f"PESQ, {pattern.name}", "", row["pesq"], _pesq(pattern.name)),
            Row(f"damaged, {pattern.name}", "%", row["damaged"]),
            Row(f"delay, {pattern.name}", "ms", row["delay"], _delay(pattern.name)),
        ]
    return rows, notes


def _rows(title: str, name: str, values: dict[str, float]) -> list[Row]:
    return [
        Row(f"PESQ, {title}", "", {OURS: values["pesq"]}, _pesq(name)),
        Row(f"damaged, {title}", "%", {OURS: values["damaged"]}),
        Row(f"delay, {title}", "ms", {OURS: values["delay"]}, _delay(name)),
    ]


def _pesq(name: str) -> Target:
    return Target(PESQ[name], at_least=True)


def _delay(name: str) -> Target | None:
    return Target(DELAY[name]) if name in DELAY else None


def _values(found: Quality, arrivals: list[tuple[float, int]]) -> dict[str, float]:
    on_the_way = median(at - 0.02 * number for at, number in arrivals)
    return {
        "pesq": found.pesq,
        "damaged": 100 * found.damaged / found.frames,
        "delay": 1e3 * (median(found.delays) / RATE - on_the_way),
    }


def _drift(bench: Bench, pattern: Pattern) -> list[Row]:
    """Five minutes; the delay's way from where it was between 5 and 15 s."""
    said = speech(bench.seconds(300, 30))
    heard = through_engine(said, pattern.arrivals(len(said) // 320))[0]
    found = quality(said, heard, BEGIN, pattern.ppm)
    start = median(found.delays[:500])
    away = max(abs(delay - start) for delay in found.delays[500:])
    return [
        Row(f"PESQ, engine, {pattern.name}", "", {OURS: found.pesq}, Target(4.5, at_least=True)),
        Row(f"damaged, engine, {pattern.name}", "frames", {OURS: found.damaged}, Target(0)),
        Row(f"delay from its start, engine, {pattern.name}", "ms", {OURS: away / 8}, Target(20)),
    ]


def _call(bench: Bench, pattern: Pattern, agent: Agent) -> Values:
    said = speech(bench.seconds(3 + 5 * 8, 3 + 8) + _TAIL)
    payload = encode_pcma(said)
    payloads = [payload[at : at + 160] for at in range(0, len(payload), 160)]
    arrivals = pattern.arrivals(len(payloads))
    far_end = bench.far_end
    with bench.start(agent, Setup()) as running:
        line = Spoken(PCMA, "PCMA/8000", 160, payloads, arrivals)
        call = far_end.connected(far_end.call(running.peer, speech=line))
        seconds = len(payloads) * 0.02 + _TAIL
        time.sleep(seconds)
        far_end.hang_up(call)
        time.sleep(0.5)
    heard = played(bench.card.folder, call.media.began, seconds)
    return {**_values(quality(said, heard, BEGIN), arrivals)}
