"""A setting changes.

From sending `config set` with another volume to the control socket to the event `configuration`
that says that the door runs with it: checked whole, on disk (two syncs), taken over; and to the one
that says that it is kept (two more). The disk is that of this machine. Only Doorstation has it.
"""

import time

from doorstation.net import control_client

from bench.agents import Doorstation, RunningDoorstation, Setup
from bench.run import Bench
from bench.table import OURS, Row, Target, median, percentile


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    seen: dict[str, list[int]] = {"applied": [], "confirmed": []}

    def heard(event: dict[str, object]) -> None:
        if event.get("event") == "configuration" and event["state"] in seen:
            seen[str(event["state"])].append(time.time_ns())

    sent: list[int] = []
    with bench.start(Doorstation(), Setup(sound=False)) as running:
        assert isinstance(running, RunningDoorstation)
        with running.follow("record", heard):
            for number in range(bench.count(100, 10)):
                sent.append(time.time_ns())
                change = {"audio.speaker_gain": -1.0 - number % 20}
                control_client.call(str(running.control), "config set", {"set": change})
                limit = time.monotonic() + 5
                while len(seen["confirmed"]) <= number:
                    if time.monotonic() > limit:
                        raise AssertionError(f"a change was not kept:\n{running.story()}")
                    time.sleep(0.001)
                time.sleep(0.05)  # the audit log's lines are on disk

    def delays(state: str) -> list[float]:
        return [(at - begun) / 1e6 for at, begun in zip(seen[state], sent, strict=True)]

    applied = delays("applied")
    return [
        Row("config set to applied, median", "ms", {OURS: median(applied)}, Target(20)),
        Row("config set to applied, 99 %", "ms", {OURS: percentile(applied, 0.99)}),
        Row("config set to kept, median", "ms", {OURS: median(delays("confirmed"))}),
    ], []
