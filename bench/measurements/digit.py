"""A digit opens.

In a call, from sending the first packet of a telephone-event (RFC 4733), or the INFO, to the
event `opened` on the control socket: relay on, record written. Of the fake board: a real relay adds
one system call. Only Doorstation has a relay.
"""

import time

from bench.agents import Doorstation, RunningDoorstation, Setup
from bench.run import Bench
from bench.table import OURS, Row, Target, median, percentile


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    count = bench.count(100, 10)
    opened: list[int] = []

    def seen(event: dict[str, object]) -> None:
        if event.get("event") == "opened":
            opened.append(time.time_ns())

    far_end = bench.far_end
    events, infos = [], []
    with bench.start(Doorstation(), Setup(sound=False)) as running:
        assert isinstance(running, RunningDoorstation)
        with running.follow("record", seen):
            call = far_end.connected(far_end.call(running.peer))
            time.sleep(1)
            for number in range(2 * count):
                if number % 2:
                    at = far_end.info_digit(call, "5")
                else:
                    # Not in step with anything: the event may come anywhere in a period.
                    time.sleep(0.0007 * (number % 31))
                    at = call.media.send_digit("5")
                limit = time.monotonic() + 5
                while len(opened) <= number:
                    if time.monotonic() > limit:
                        raise AssertionError(f"digit {number} opened nothing: {running}")
                    time.sleep(0.001)
                (infos if number % 2 else events).append((opened[number] - at) / 1e6)
                time.sleep(0.35)  # the pulse is over, and the event's last packets are through
            far_end.hang_up(call)
    return [
        Row("digit (RFC 4733) to relay, median", "ms", {OURS: median(events)}, Target(5)),
        Row("digit (RFC 4733) to relay, 99 %", "ms", {OURS: percentile(events, 0.99)}),
        Row("digit (INFO) to relay, median", "ms", {OURS: median(infos)}, Target(5)),
        Row("digit (INFO) to relay, 99 %", "ms", {OURS: percentile(infos, 0.99)}),
    ], []
