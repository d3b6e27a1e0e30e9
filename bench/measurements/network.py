"""Bad lines.

Speech of a woman and a man in G.711 A-law, 20 ms packets, over lines that lose and delay them: with
one seed for all programs, each packet by itself but where losses are *bursty* (Gilbert and
Elliott's line: bad times of four packets on average, in which seven of ten are lost). Gaussian: 100
ms on the way, standard deviation 30 ms. Pareto: shape 3, standard deviation 30 ms. Packets overtake
each other in both; *out of order*: one in twenty comes after the two behind it. *Recorded*: a
minute of packets that shared a line of 1.5 Mbit/s, 120 ms of queue, with uploads by TCP
(bench/record_jitter.py). The far end sends each packet when it would have arrived. *PESQ* (ITU-T
P.862, as MOS-LQO: 4.55 at most) of 8 s at a time, from where they begin to be heard to where they
end, the first 3 s of a call left out, against what was encoded. *Damaged*: frames of 20 ms with
sound in them that were not heard as they were said. *Delay*: from the arrival of the median packet
to its sound. *Engine*: this firmware's media engine alone in virtual time, three minutes and more,
without a card and its queue; the other rows are real calls of 45 s over virtual cards, all programs
on two lines at the same time; with a clock that drifts, of five minutes. *From its start*: from the
median delay of the first 10 s.
"""

import contextlib
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from doorstation.media.g711 import encode_pcma

from bench.agents import Setup
from bench.card import Card, played
from bench.far_end import PCMA, Spoken
from bench.line import DRIFTS, PATTERNS, Pattern, repaired, through_engine
from bench.run import FAULTS, Bench, Found, Values, first_line
from bench.speech import RATE, Quality, quality, speech
from bench.table import OURS, Row, Target

BEGIN = 3 * RATE
_TAIL = 1.5
"""Seconds more, in which the last packets of what is judged are heard while others still come: a
buffer of fixed length never gives its last ones out."""

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
        if pattern.name.endswith("loss"):
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
    for place in range(0, len(PATTERNS), 2):
        some = PATTERNS[place : place + 2]
        for pattern, row in _calls(bench, some, bench.seconds(3 + 5 * 8, 3 + 8), notes).items():
            rows += [
                Row(f"PESQ, {pattern.name}", "", row["pesq"], _pesq(pattern.name)),
                Row(f"damaged, {pattern.name}", "%", row["damaged"]),
                Row(f"delay, {pattern.name}", "ms", row["delay"], _delay(pattern.name)),
            ]
    for pattern, row in _calls(bench, DRIFTS, bench.seconds(300, 30), notes).items():
        rows += _drift_rows(pattern.name, row["pesq"], row["frames"], row["away"])
    return rows, notes


def _rows(title: str, name: str, values: dict[str, float]) -> list[Row]:
    return [
        Row(f"PESQ, {title}", "", {OURS: values["pesq"]}, _pesq(name)),
        Row(f"damaged, {title}", "%", {OURS: values["damaged"]}),
        Row(f"delay, {title}", "ms", {OURS: values["delay"]}, _delay(name)),
    ]


def _pesq(name: str) -> Target | None:
    return Target(PESQ[name], at_least=True) if name in PESQ else None


def _delay(name: str) -> Target | None:
    return Target(DELAY[name]) if name in DELAY else None


def _values(found: Quality, arrivals: list[tuple[float, int]]) -> dict[str, float]:
    on_the_way = median(at - 0.02 * number for at, number in arrivals)
    return {
        "pesq": found.pesq,
        "damaged": 100 * found.damaged / found.frames,
        "frames": found.damaged,
        "away": _away(found),
        "delay": 1e3 * (median(found.delays) / RATE - on_the_way),
    }


def _away(found: Quality) -> float:
    """The delay's way, in ms, from where it was between 5 and 15 s."""
    start = median(found.delays[:500])
    return max((abs(delay - start) for delay in found.delays[500:]), default=0.0) / 8


def _drift(bench: Bench, pattern: Pattern) -> list[Row]:
    """Five minutes."""
    said = speech(bench.seconds(300, 30))
    heard = through_engine(said, pattern.arrivals(len(said) // 320))[0]
    found = quality(said, heard, BEGIN, pattern.ppm)
    pesq: Values = {OURS: found.pesq}
    damaged: Values = {OURS: found.damaged}
    return _drift_rows(f"engine, {pattern.name}", pesq, damaged, {OURS: _away(found)})


def _drift_rows(title: str, pesq: Values, damaged: Values, away: Values) -> list[Row]:
    return [
        Row(f"PESQ, {title}", "", pesq, Target(4.5, at_least=True)),
        Row(f"damaged, {title}", "frames", damaged, Target(0)),
        Row(f"delay from its start, {title}", "ms", away, Target(20)),
    ]


def _calls(
    bench: Bench, patterns: Sequence[Pattern], seconds: float, notes: list[str]
) -> dict[Pattern, Found]:
    """Every program on each of these lines, all at the same time; a note in place of failures."""
    try:
        return _measured(bench, patterns, seconds)
    except FAULTS as fault:
        names = " and ".join(pattern.name for pattern in patterns)
        notes.append(f"{names} failed: {first_line(fault)}")
        return {}


def _measured(bench: Bench, patterns: Sequence[Pattern], seconds: float) -> dict[Pattern, Found]:
    said = speech(seconds + _TAIL)
    seconds = len(said) / 2 / RATE
    payload = encode_pcma(said)
    payloads = [payload[at : at + 160] for at in range(0, len(payload), 160)]
    found: dict[Pattern, Found] = {}
    with contextlib.ExitStack() as stack:
        running = []
        for pattern, agent in itertools.product(patterns, bench.agents):
            folder = Path(tempfile.mkdtemp(dir=bench.folder))
            own = dataclasses.replace(bench, card=Card(bench.card.library, folder))
            peer = stack.enter_context(own.start(agent, Setup())).peer
            running.append((pattern, agent, folder, peer))
        calls = []
        for pattern, agent, folder, peer in running:
            arrivals = pattern.arrivals(len(payloads))
            line = Spoken(PCMA, "PCMA/8000", 160, payloads, arrivals)
            call = bench.far_end.connected(bench.far_end.call(peer, speech=line))
            calls.append((pattern, agent, folder, arrivals, call))
        time.sleep(seconds)
        for *_, call in calls:
            bench.far_end.hang_up(call)
        time.sleep(0.5)
    for pattern, agent, folder, arrivals, call in calls:
        heard = played(folder, call.media.began, seconds)
        values = _values(quality(said, heard, BEGIN, pattern.ppm), arrivals)
        row = found.setdefault(pattern, Found())
        for name, value in values.items():
            row.setdefault(name, {})[agent.name] = value
    return found
