"""Start.

From making the process to its first REGISTER at the registrar, median of ten starts with warm
files; entering the network namespace, about 2 ms, is in it for all alike. Then the memory of the
registered, idle program.
"""

from bench.agents import Agent, Setup
from bench.process import Watched
from bench.run import Bench, Values
from bench.table import Row, Target, median


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    def one(agent: Agent) -> Values:
        starts, memory = [], []
        for _ in range(bench.count(11, 3)):
            with bench.start(agent, Setup(sound=False)) as running:
                starts.append((bench.far_end.registered[0] - running.started) * 1e-9)
                memory.append(Watched(running.pid).memory())
        return {"start": median(starts[1:]), "memory": median(memory)}

    found = bench.each(one)
    return [
        Row("exec to first REGISTER", "s", found["start"], Target(0.5)),
    ], []
