"""A call comes in.

From sending INVITE to the kernel's receive stamp of the 180 (a program that rings; the call is then
cancelled) and of the 200 (a program that answers by itself, and opens the card for it). Calls one
after the other, 50 ms apart.
"""

import time

from bench.agents import Agent, Setup
from bench.run import Bench, Values
from bench.table import Row, Target, median, percentile


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    count = bench.count(300, 20)
    far_end = bench.far_end

    def one(agent: Agent) -> Values:
        rings, answers = [], []
        with bench.start(agent, Setup(auto_answer=False)) as running:
            for _ in range(count):
                call = far_end.call(running.peer)
                far_end.wait(lambda call=call: 180 in call.heard, "180")  # type: ignore[misc]
                rings.append((call.heard[180] - call.sent) / 1e6)
                far_end.cancel(call)
                time.sleep(0.05)
        with bench.start(agent, Setup(record=False)) as running:
            for _ in range(count):
                call = far_end.connected(far_end.call(running.peer))
                answers.append((call.heard[200] - call.sent) / 1e6)
                far_end.hang_up(call)
                time.sleep(0.05)
        return {
            "ring": median(rings),
            "ring99": percentile(rings, 0.99),
            "answer": median(answers),
            "answer99": percentile(answers, 0.99),
        }

    found = bench.each(one)
    return [
        Row("INVITE in to 180, median", "ms", found["ring"], Target(2)),
        Row("INVITE in to 180, 99 %", "ms", found["ring99"], Target(10)),
        Row("INVITE in to 200, median", "ms", found["answer"], Target(2)),
        Row("INVITE in to 200, 99 %", "ms", found["answer99"], Target(10)),
    ], []
