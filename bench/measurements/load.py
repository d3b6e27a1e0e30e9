"""In a call, under load.

The call of *In a call* again, while every 50 ms a stranger's REGISTER has to be refused, every
second somebody makes a TLS connection to the SIP port, and (Doorstation) what the try page follows
is followed: every SIP message, state, levels and both directions of sound.
"""

import contextlib
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Callable, Iterator

from bench.agents import Agent, Running, RunningDoorstation, Setup
from bench.card import listen
from bench.measurements.talk import SETTLING, cadence
from bench.process import Watched
from bench.run import Bench, Values
from bench.table import Row, Target, percentile

PAGE = "record,sip,state,levels,audio:microphone,audio:speaker"


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    def one(agent: Agent) -> Values:
        far_end = bench.far_end
        far_end.refused.clear()
        connections: list[float] = []
        with bench.start(agent, Setup(tls=True)) as running, contextlib.ExitStack() as stack:
            call = far_end.connected(far_end.call(running.peer))
            if isinstance(running, RunningDoorstation):
                stack.enter_context(running.follow(PAGE, lambda _: None))
            stray = lambda: far_end.register_stray(running.peer)  # noqa: E731
            stack.enter_context(_every(0.05, stray))
            stack.enter_context(_every(1.0, lambda: connections.append(_handshake(running))))
            time.sleep(SETTLING)
            watched = Watched(running.pid)
            begin = time.time_ns()
            time.sleep(bench.seconds(60, 10))
            end = time.time_ns()
            cost = watched.cost()
            stack.close()
            far_end.hang_up(call)
            time.sleep(0.5)
        if not connections or len(far_end.refused) < 20:
            raise AssertionError(
                f"{len(connections)} TLS connections, {len(far_end.refused)} refusals: no load"
            )
        gaps = cadence([at for at in call.media.packets.arrivals if begin < at < end])
        return {
            "cadence": statistics.pstdev(gaps),
            "cadence999": percentile(gaps, 0.999),
            "cpu": cost.cpu / cost.seconds * 60,
            "gaps": listen(bench.card.folder, call.media.sent, begin, end).gaps,
        }

    found = bench.each(one)
    return [
        Row("cadence under load, standard deviation", "ms", found["cadence"], Target(0.3)),
        Row("cadence under load, 99.9 % gap", "ms", found["cadence999"], Target(22)),
        Row("gaps under load", "", found["gaps"]),
        Row("CPU in a call under load", "s a minute", found["cpu"]),
    ], []


@contextlib.contextmanager
def _every(seconds: float, action: Callable[[], object]) -> Iterator[None]:
    """Do something again and again, in a thread, meanwhile."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            with contextlib.suppress(OSError):
                action()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _handshake(running: Running) -> float:
    """Seconds that a TLS connection took."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    begin = time.monotonic()
    with (
        socket.create_connection((running.peer[0], 5061), 5) as plain,
        context.wrap_socket(plain) as link,
    ):
        link.send(b"\r\n\r\n")
        return time.monotonic() - begin
