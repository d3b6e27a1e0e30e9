"""In a call.

A G.711 call over ALSA, the far end sending 20 ms packets at an exact cadence. *CPU*: all programs
in a call of their own at the same time, so that whatever else the machine does costs all of them;
the median of whole minutes, card not recording; once with an 8 kHz card, once with one at 48 kHz,
which has to be converted. Doorstation with the drivers of a Pi, gpiozero's mock pins below. All
else, one program after the other. *Packet to loudspeaker*: from the
far end's system call to the instant at which the card puts the packet's first sample out, median
over all packets of several calls, so that every phase between the far end's clock and the card's
comes in. *Gaps*: places in one long call where the loudspeaker's next sound was not the next
packet, in time. *Microphone to packet*: from the instant at which the card has taken a packet's
last sample in to the kernel's receive stamp at the far end. *Cadence*: gaps between these stamps,
standard deviation and 99.9 % percentile. *The machine itself*, in the same long call: processor
time that a virtual machine's host took for others, and the longest gap in the far end's own
sending, which goes before all programs measured: what stands still meanwhile can be no better.
"""

import contextlib
import os
import statistics
import time
from itertools import pairwise
from pathlib import Path

from bench.agents import Agent, Setup
from bench.card import listen, microphone_delays
from bench.process import Cost, Watched
from bench.run import Bench, Values
from bench.table import Row, Target, median, percentile

SETTLING = 3.0
"""Seconds in which a jitter buffer may find its place before anything is measured."""


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    at_8, at_48 = (_costs(bench, rate) for rate in (8000, 48000))

    def one(agent: Agent) -> Values:
        return {
            **at_8[agent.name],
            **{f"{name}48": value for name, value in at_48[agent.name].items()},
            **_long_call(bench, agent),
            **_phases(bench, agent, 8000),
            **{f"{name}48": v for name, v in _phases(bench, agent, 48000).items()},
        }

    row = bench.each(one)
    minutes = f"{bench.minutes:g} minutes"
    return [
        Row("CPU in a call", "s a minute", row["cpu"], Target(times=1.0)),
        Row("CPU in a call, card at 48 kHz", "s a minute", row["cpu48"], Target(times=1.0)),
        Row("wake-ups in a call", "a second", row["wakeups"]),
        Row("RSS in a call", "MB", row["memory"], Target(34)),
        Row("packet in to loudspeaker, median", "ms", row["delay"], Target(80)),
        Row("packet in to loudspeaker, 99 %", "ms", row["delay99"]),
        Row("the same, card at 48 kHz, median", "ms", row["delay48"], Target(80)),
        Row(f"gaps in {minutes}", "", row["gaps"], Target(0)),
        Row("xruns of the card meanwhile", "", row["xruns"]),
        Row("microphone to packet, median", "ms", row["microphone"], Target(1)),
        Row("microphone to packet, 99 %", "ms", row["microphone99"]),
        Row("the same, card at 48 kHz, median", "ms", row["microphone48"], Target(1)),
        Row("cadence, standard deviation", "ms", row["cadence"], Target(0.3)),
        Row("cadence, 99.9 % gap", "ms", row["cadence999"], Target(22)),
        Row("the machine itself: time taken by its host", "ms a minute", row["stolen"]),
        Row("the machine itself: the far end's longest gap", "ms", row["own_gap"]),
    ], []


def _costs(bench: Bench, rate: int) -> dict[str, Values]:
    far_end = bench.far_end
    with contextlib.ExitStack() as stack:
        setup = Setup(rate=rate, record=False)
        running = {a.name: stack.enter_context(bench.start(a, setup)) for a in bench.agents}
        calls = {name: far_end.connected(far_end.call(r.peer)) for name, r in running.items()}
        time.sleep(SETTLING)
        watched = {name: Watched(program.pid) for name, program in running.items()}
        costs: dict[str, list[Cost]] = {name: [] for name in watched}
        for _ in range(3):
            time.sleep(bench.seconds(60, 5))
            for name, program in watched.items():
                costs[name].append(program.cost())
        memory = {name: program.memory() for name, program in watched.items()}
        for call in calls.values():
            far_end.hang_up(call)
    return {
        name: {
            "cpu": median([cost.cpu / cost.seconds * 60 for cost in each]),
            "wakeups": median([cost.wakeups / cost.seconds for cost in each]),
            "memory": memory[name],
        }
        for name, each in costs.items()
    }


def _long_call(bench: Bench, agent: Agent) -> Values:
    far_end = bench.far_end
    with bench.start(agent, Setup()) as running:
        call = far_end.connected(far_end.call(running.peer))
        time.sleep(SETTLING)
        stolen = stolen_ms()
        begin = time.time_ns()
        time.sleep(bench.minutes * 60)
        end = time.time_ns()
        stolen = stolen_ms() - stolen
        far_end.hang_up(call)
        time.sleep(0.5)
    heard = listen(bench.card.folder, call.media.sent, begin, end)
    if heard.packets < (end - begin) / 20e6 / 2:
        raise AssertionError(f"only {heard.packets} packets were heard")
    gaps = cadence([at for at in call.media.packets.arrivals if begin < at < end])
    marks = [mark for mark in call.media.packets.marks if begin < mark[0] < end]
    delays = [1e3 * delay for delay in microphone_delays(bench.card.folder, marks)]
    return {
        "gaps": heard.gaps,
        "xruns": xruns_between(bench, begin, end),
        "microphone": median(delays),
        "microphone99": percentile(delays, 0.99),
        "cadence": statistics.pstdev(gaps),
        "cadence999": percentile(gaps, 0.999),
        "stolen": stolen / bench.minutes,
        "own_gap": max(cadence([at for at in call.media.sent if begin < at < end])),
    }


def stolen_ms() -> float:
    """What the host of a virtual machine has taken since its start, of all processors, in ms."""
    total = Path("/proc/stat").read_text().partition("\n")[0].split()
    return int(total[8]) * 1000 / os.sysconf("SC_CLK_TCK")


def xruns_between(bench: Bench, begin: int, end: int) -> int:
    from bench.card import streams

    found = (*streams(bench.card.folder, "play"), *streams(bench.card.folder, "capt"))
    return sum(begin < at < end for stream in found for at in stream.xruns)


def cadence(arrivals: list[int]) -> list[float]:
    """Milliseconds from each packet to the next."""
    return [(after - before) / 1e6 for before, after in pairwise(arrivals)]


def _phases(bench: Bench, agent: Agent, rate: int) -> Values:
    far_end = bench.far_end
    delays: list[float] = []
    microphone: list[float] = []
    with bench.start(agent, Setup(rate=rate)) as running:
        for number in range(bench.count(10, 2)):
            call = far_end.connected(far_end.call(running.peer))
            time.sleep(SETTLING)
            begin = time.time_ns()
            time.sleep(3)
            end = time.time_ns()
            far_end.hang_up(call)
            time.sleep(0.7 + 0.0037 * number)  # the card closes; another phase
            delays += listen(bench.card.folder, call.media.sent, begin, end).delays
            marks = [mark for mark in call.media.packets.marks if begin < mark[0] < end]
            microphone += microphone_delays(bench.card.folder, marks)
    if not delays or not microphone:
        raise AssertionError("nothing was heard")
    return {
        "delay": 1e3 * median(delays),
        "delay99": 1e3 * percentile(delays, 0.99),
        "microphone": 1e3 * median(microphone),
    }
