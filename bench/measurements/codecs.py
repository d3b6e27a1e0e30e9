"""Codecs.

Encoding and decoding 20 ms of speech, through the same interface as a call does: CPU time of
the thread, the best of many batches. Opus at the complexities of the board profiles, in-band FEC
asked for; *concealing* is what a lost packet costs.

*CPU in a call*: as in *In a call* with a card at 48 kHz, all programs and codecs at the same time,
each in a call of its own in which the far end says speech; baresip as it comes, with Opus of full
band and stereo, which the far end's offer names like everybody's. *Echo cancelled*: Doorstation as
its defaults have it, noise suppression and gain control included; baresip cancels nothing.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from doorstation.media import codecs

from bench.agents import Doorstation, Setup
from bench.far_end import spoken
from bench.process import Watched
from bench.run import Bench
from bench.table import OURS, YARDSTICK, Row, Target, median
from tests.support.sounds import voice

_CANCELLING = "echo cancelled"
_SECONDS = 2
_SETTLING = 3.0
_CODECS: Sequence[tuple[str, int, int]] = (
    ("PCMA", 8000, 0),
    ("L16", 16000, 0),
    ("G722", 8000, 0),
    ("opus", 48000, 2),
    ("opus", 48000, 5),
)


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    batches = bench.count(40, 5)
    for name, clock, complexity in _CODECS:
        codec = codecs.make(name, clock, "useinbandfec=1", complexity)
        spoken = voice(_SECONDS, codec.rate)
        payloads = [codec.encode(period) for period in spoken]
        title = f"{name}, complexity {complexity}" if complexity else f"{name} at {codec.rate} Hz"
        rows.append(Row(f"encode, {title}", "µs", _cost(codec.encode, spoken, batches)))
        rows.append(Row(f"decode, {title}", "µs", _cost(codec.decode, payloads, batches)))
    count = codec.rate // 50
    rows.append(Row("conceal, opus", "µs", _cost(codec.conceal, [count] * len(payloads), batches)))
    return [*rows, *_calls(bench)], []


def _calls(bench: Bench) -> list[Row]:
    far_end = bench.far_end
    names = ("PCMA", "G722", "opus")
    setups = {name: Setup(rate=48000, record=False, wide_band=name != "PCMA") for name in names}
    kinds = [((name, agent.name), agent, setups[name]) for name in names for agent in bench.agents]
    cancelling = replace(setups["G722"], plain=False)
    kinds.append((("G722", _CANCELLING), Doorstation(), cancelling))
    with contextlib.ExitStack() as stack:
        running = {
            which: stack.enter_context(bench.start(agent, setup)) for which, agent, setup in kinds
        }
        calls = [
            far_end.connected(far_end.call(program.peer, speech=spoken(name)))
            for (name, _), program in running.items()
        ]
        time.sleep(_SETTLING)
        watched = {which: Watched(program.pid) for which, program in running.items()}
        costs: dict[tuple[str, str], list[float]] = {which: [] for which in watched}
        for _ in range(3):
            time.sleep(bench.seconds(60, 5))
            for which, program in watched.items():
                cost = program.cost()
                costs[which].append(cost.cpu / cost.seconds * 60)
        for call in calls:
            far_end.hang_up(call)
    found = {which: median(each) for which, each in costs.items()}
    rows = [
        Row(
            f"CPU in a call by {name}",
            "s a minute",
            {agent.name: found[name, agent.name] for agent in bench.agents},
        )
        for name in names
    ]
    for title, ours in (("by G722", OURS), ("by G722, echo cancelled", _CANCELLING)):
        beside = {OURS: found["G722", ours], YARDSTICK: found["PCMA", YARDSTICK]}
        what = f"CPU in a call {title}, baresip's by PCMA"
        rows.append(Row(what, "s a minute", beside, Target(times=2.0)))
    return rows


def _cost(work: Callable[[Any], object], pieces: Sequence[object], batches: int) -> dict[str, Any]:
    best = math.inf
    for _ in range(batches):
        begin = time.thread_time()
        for piece in pieces:
            work(piece)
        best = min(best, (time.thread_time() - begin) / len(pieces))
    return {OURS: 1e6 * best}
