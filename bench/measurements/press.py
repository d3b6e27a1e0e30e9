"""A press calls out.

From a press (already debounced: the control socket's `press`; baresip: `dial` on its control port)
to the kernel's receive stamp of the INVITE. The call is then given up.
"""

import time

from bench.agents import Agent, Setup
from bench.run import Bench, Values
from bench.table import Row, Target, median, percentile


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    far_end = bench.far_end

    def one(agent: Agent) -> Values:
        delays = []
        far_end.answers = False
        try:
            with bench.start(agent, Setup(sound=False)) as running:
                for number in range(bench.count(100, 10)):
                    at = running.place_call()
                    far_end.wait(lambda n=number: len(far_end.incoming) > n, "an INVITE")  # type: ignore[misc]
                    call = far_end.incoming[number]
                    delays.append((call.sent - at) / 1e6)
                    running.hang_up()
                    far_end.wait(lambda call=call: call.ended, "the call's end")  # type: ignore[misc]
                    time.sleep(0.05)
        finally:
            far_end.answers = True
        return {"press": median(delays), "press99": percentile(delays, 0.99)}

    found = bench.each(one)
    return [
        Row("press to INVITE out, median", "ms", found["press"], Target(2)),
        Row("press to INVITE out, 99 %", "ms", found["press99"]),
    ], []
