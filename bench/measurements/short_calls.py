"""Short calls.

INVITE, 200, ACK, BYE, 200, and the next call at once, the program kept on one core and the far end
on the others. Each opens and closes the sound card, and baresip waits for that. *A core could*:
calls done for each second of CPU that the program used.
"""

import os

from bench.agents import Agent, Setup
from bench.process import Watched
from bench.run import Bench, Values, cores
from bench.table import Row, Target


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    seconds = bench.seconds(20, 4)
    far_end = bench.far_end
    all_cores = os.sched_getaffinity(0)

    def one(agent: Agent) -> Values:
        others, _ = cores()
        with bench.start(agent, Setup(record=False, one_core=True)) as running:
            try:
                os.sched_setaffinity(0, others)
                watched = Watched(running.pid)
                run = far_end.short_calls(running.peer, seconds)
                cost = watched.cost()
            finally:
                os.sched_setaffinity(0, all_cores)
            if not run.done:
                raise AssertionError(f"no call came about, {run.refused} were refused")
            return {
                "rate": run.done / seconds,
                "capacity": run.done / cost.cpu,
                "refused": run.refused,
            }

    found = bench.each(one)
    return [
        Row("short calls, one after the other", "a second", found["rate"],
            Target(times=1.0, at_least=True)),
        Row("short calls that a core could do", "a second of CPU", found["capacity"]),
        Row("of them refused", "", found["refused"]),
    ], []  # fmt: skip
