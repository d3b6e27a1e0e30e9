"""More known peers.

With 10, 100 and 1,000 phones in the settings (baresip: contacts): from making the process to its
first REGISTER, INVITE in to 200, and resident memory.
"""

import time

from bench.agents import Agent, Setup
from bench.process import Watched
from bench.run import Bench, Values
from bench.table import Row, median

COUNTS = (10, 100, 1000)


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    far_end = bench.far_end

    def one(agent: Agent) -> Values:
        values: Values = {}
        for peers in COUNTS:
            starts, answers = [], []
            for _ in range(bench.count(5, 2)):
                with bench.start(agent, Setup(sound=False, peers=peers)) as running:
                    starts.append((far_end.registered[0] - running.started) * 1e-9)
                    for _ in range(bench.count(20, 5)):
                        call = far_end.connected(far_end.call(running.peer))
                        answers.append((call.heard[200] - call.sent) / 1e6)
                        far_end.hang_up(call)
                        time.sleep(0.05)
                    memory = Watched(running.pid).memory()
            values[f"start{peers}"] = median(starts)
            values[f"answer{peers}"] = median(answers)
            values[f"memory{peers}"] = memory
        return values

    found = bench.each(one)
    return [
        Row(f"{text}, {peers:,} peers", unit, found[f"{name}{peers}"])
        for name, text, unit in (
            ("start", "exec to first REGISTER", "s"),
            ("answer", "INVITE in to 200, median", "ms"),
            ("memory", "RSS", "MB"),
        )
        for peers in COUNTS
    ], []
