"""Idle.

Registered for an hour, no call: CPU of the process (the kernel's clock of it, all threads), how
often one of its threads slept and woke, and resident memory. Doorstation with its fake board, the
default keep-alive and an open control socket; baresip with its control port.
"""

import time

from bench.agents import Agent, Setup
from bench.process import Watched
from bench.run import Bench, Values
from bench.table import Row, Target


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    seconds = bench.seconds(60, 10)

    def one(agent: Agent) -> Values:
        with bench.start(agent, Setup(sound=False)) as running:
            time.sleep(2)
            watched = Watched(running.pid)
            time.sleep(seconds)
            cost = watched.cost()
            return {
                "cpu": cost.cpu / cost.seconds * 60,
                "wakeups": cost.wakeups / cost.seconds,
                "memory": watched.memory(),
            }

    found = bench.each(one)
    return [
        Row("CPU idle, registered", "s a minute", found["cpu"], Target(0.02)),
        Row("wake-ups idle", "a second", found["wakeups"]),
        Row("RSS idle, registered", "MB", found["memory"], Target(30)),
    ], []
