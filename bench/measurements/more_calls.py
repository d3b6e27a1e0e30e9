"""More calls in one process.

1, 2, 4 and 8 calls at once, all on one sound card: CPU and resident memory. A door has one
conversation, so of Doorstation it is the media thread that is measured, in a process of its own
with that many sessions, each with a far end of its own; of baresip the whole program, which opens
the card once for each call.
"""

import contextlib
import json
import sys
import time
from collections.abc import Iterator

from bench.agents import Agent, Doorstation, Setup, program_id
from bench.process import Watched
from bench.run import Bench, Values
from bench.table import Row
from tests.support.lab import Process, eventually

COUNTS = (1, 2, 4, 8)


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    def one(agent: Agent) -> Values:
        values: Values = {}
        for calls in COUNTS:
            calling = _sessions if isinstance(agent, Doorstation) else _calls
            with calling(bench, agent, calls) as pid:
                time.sleep(3)
                watched = Watched(pid)
                time.sleep(bench.seconds(30, 5))
                cost = watched.cost()
                values[f"cpu{calls}"] = cost.cpu / cost.seconds * 60
                values[f"memory{calls}"] = watched.memory()
        return values

    found = bench.each(one)
    return [
        Row(f"{text}, {calls} at once", unit, found[f"{name}{calls}"])
        for name, text, unit in (("cpu", "CPU in calls", "s a minute"), ("memory", "RSS", "MB"))
        for calls in COUNTS
    ], []


@contextlib.contextmanager
def _calls(bench: Bench, agent: Agent, calls: int) -> Iterator[int]:
    far_end = bench.far_end
    with bench.start(agent, Setup(record=False, calls=calls)) as running:
        made = [far_end.connected(far_end.call(running.peer)) for _ in range(calls)]
        yield running.pid
        for call in made:
            far_end.hang_up(call)


@contextlib.contextmanager
def _sessions(bench: Bench, agent: Agent, calls: int) -> Iterator[int]:
    far_end = bench.far_end
    media = [far_end.new_media() for _ in range(calls)]
    address = bench.lab.address()
    ports = [str(one.port) for one in media]
    command = [sys.executable, "-m", "bench.sessions", address, far_end.address, *ports]
    bench.card.clear()
    bench.card.speak(8000)
    with bench.lab.program(
        *command,
        directory=bench.root,
        log=str(bench.folder / f"sessions-{calls}.log"),
        environment=bench.card.environment(record=False),
    ) as process:
        for one, port in zip(media, _ports(process), strict=True):
            one.start((address, port))
        yield program_id(process)
    for one in media:
        far_end.drop(one)


def _ports(process: Process) -> list[int]:
    eventually(lambda: process.log_text().endswith("\n"), f"sessions\n{process.tail()}", 10)
    found: list[int] = json.loads(process.log_text())
    return found
