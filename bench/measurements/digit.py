"""A digit opens.

In a call, from sending the first packet of a telephone-event (RFC 4733), or the INFO, to the
event `release` on the control socket: relay on, record written. Of the fake board: a real relay
adds one system call. In ten calls, so that the digit comes at every phase of the card's clock. Only
Doorstation has a relay.
"""

import time
from collections.abc import Callable

from bench.agents import Doorstation, RunningDoorstation, Setup
from bench.far_end import Call
from bench.run import Bench
from bench.table import OURS, Row, Target, median, percentile

CALLS = 10


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    count = bench.count(10, 2)
    opened: list[int] = []

    def seen(event: dict[str, object]) -> None:
        if event.get("event") == "release":
            opened.append(time.time_ns())

    far_end = bench.far_end
    with bench.start(Doorstation(), Setup(sound=False)) as running:
        assert isinstance(running, RunningDoorstation)

        def delays(send: Callable[[Call], int]) -> list[float]:
            opened.clear()
            found: list[float] = []
            for number in range(CALLS):
                call = far_end.connected(far_end.call(running.peer))
                time.sleep(1 + 0.0023 * number)  # every phase between the two clocks
                for _ in range(count):
                    at = send(call)
                    limit = time.monotonic() + 5
                    while len(opened) <= len(found):
                        if time.monotonic() > limit:
                            raise AssertionError(f"a digit opened nothing:\n{running.story()}")
                        time.sleep(0.001)
                    found.append((opened[len(found)] - at) / 1e6)
                    time.sleep(0.35)  # the pulse is over, and the event's last packets through
                far_end.hang_up(call)
                time.sleep(0.7)
            return found

        with running.follow("record", seen):
            events = delays(lambda call: call.media.send_digit("5"))
            infos = delays(lambda call: far_end.info_digit(call, "5"))
    return [
        Row("digit (RFC 4733) to relay, median", "ms", {OURS: median(events)}, Target(5)),
        Row("digit (RFC 4733) to relay, 99 %", "ms", {OURS: percentile(events, 0.99)}),
        Row("digit (INFO) to relay, median", "ms", {OURS: median(infos)}, Target(5)),
        Row("digit (INFO) to relay, 99 %", "ms", {OURS: percentile(infos, 0.99)}),
    ], []
