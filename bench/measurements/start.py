"""Start.

From making the process to its first REGISTER at the registrar, median of ten starts with warm
files; entering the network namespace, about 2 ms, is in it for all alike. Then the memory of the
registered, idle program. Doorstation with its fake board, and with the drivers of a Pi (gpiozero's
mock pins below): importing gpiozero is the difference.
"""

from bench.agents import Agent, Setup
from bench.process import Watched
from bench.run import Bench, Values
from bench.table import Row, Target, median


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    found = bench.each(
        lambda agent: {
            **_starts(bench, agent, Setup(sound=False), "fake"),
            **_starts(bench, agent, Setup(), "pi"),
        }
    )
    return [
        Row("exec to first REGISTER", "s", found["start fake"], Target(0.5)),
        Row("exec to first REGISTER, drivers of a Pi", "s", found["start pi"], Target(0.5)),
        Row("RSS then", "MB", found["memory fake"]),
        Row("RSS then, drivers of a Pi", "MB", found["memory pi"]),
    ], []


def _starts(bench: Bench, agent: Agent, setup: Setup, board: str) -> Values:
    starts, memory = [], []
    for _ in range(bench.count(11, 3)):
        with bench.start(agent, setup) as running:
            starts.append((bench.far_end.registered[0] - running.started) * 1e-9)
            memory.append(Watched(running.pid).memory())
    return {f"start {board}": median(starts[1:]), f"memory {board}": median(memory)}
