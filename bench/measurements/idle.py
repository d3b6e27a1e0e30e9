"""Idle.

Registered for an hour, no call: CPU of the process (the kernel's clock of it, all threads), how
often one of its threads slept and woke, and resident memory. Doorstation with its fake board, the
default keep-alive and an open control socket; baresip with its control port. *Inputs watched*:
Doorstation on its own driver for GPIO, button and door contact of the kernel's simulated chip being
watched, no account, in a User Mode Linux kernel whose time passes at once: how often a thread woke
in an hour. What polls would show there 3,600 times or more.
"""

import re
import sys
import time

from bench.agents import Agent, Setup
from bench.process import Watched
from bench.run import Bench, Values
from bench.table import Row, Target
from tests.support.uml import in_guest

STARTED = 20.0
"""Seconds after which nobody asks the network for settings any more."""


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    seconds = bench.seconds(60, 10)

    def one(agent: Agent) -> Values:
        with bench.start(agent, Setup(sound=False)) as running:
            time.sleep(STARTED)
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
        Row(
            "wake-ups idle, inputs watched",
            "an hour",
            {"Doorstation": _at_real_inputs()},
            Target(0),
        ),
        Row("RSS idle, registered", "MB", found["memory"], Target(30)),
    ], []


def _at_real_inputs() -> float | str:
    try:
        written = in_guest([sys.executable, "-m", "bench.guest_idle"], "-s")
    except (AssertionError, RuntimeError) as fault:  # it runs on x86-64, where a kernel was built
        return f"failed: {str(fault).splitlines()[0]}"
    found = re.search(r"^wake-ups (\d+)$", written, re.MULTILINE)
    return float(found[1]) if found else "failed: no figure"
