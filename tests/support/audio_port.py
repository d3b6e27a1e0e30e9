"""A sound card whose clock the test turns: `read` waits for `step`, not for time."""

import queue
import threading
from collections import deque
from collections.abc import Callable

from doorboard.interfaces import BoardError

PERIOD = 0.02

PATIENCE = 10.0
"""Real seconds after which a thread that should have come is given up."""


class StepClock:
    """Seconds that only move when a period is stepped."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SteppedPort:
    """An AudioPort for the media thread, driven from the test's thread.

    `step(n)` captures n periods and returns when the thread waits for the next one. What the
    thread wrote is in `written`; what it reads comes from `microphone`, then silence. A card with
    a `fault` fails to open, read and write; the thread's `sleep` is then stepped in its place. One
    that is `dumb` opens and plays, and is waited for in vain for a second.
    """

    def __init__(self, clock: StepClock, rate: int = 8000) -> None:
        self.rate = rate
        self.period = rate // 50
        self.overruns = 0
        self.underruns = 0
        self.opened = 0
        self.refused = 0
        self.is_open = threading.Event()
        self.fault = ""
        self.dumb = False
        self.microphone: deque[bytes] = deque()
        self.written: deque[bytes] = deque(maxlen=100_000)
        self._clock = clock
        self._ticks: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._waiting = threading.Semaphore(0)
        self._released = False

    def open(self) -> None:
        if self.fault:
            self.refused += 1
            raise BoardError(self.fault)
        self.opened += 1
        self.is_open.set()

    def read(self) -> bytes:
        self._wait(1.0 if self.dumb else PERIOD)
        if self.dumb:
            raise BoardError("no sound for 1000 ms")
        if self.fault:
            raise BoardError(self.fault)
        return self.microphone.popleft() if self.microphone else bytes(2 * self.period)

    delay = PERIOD

    def write(self, period: bytes) -> bytes:
        if self.fault:
            raise BoardError(self.fault)
        assert len(period) == 2 * self.period
        self.written.append(period)
        return period

    def close(self) -> None:
        self.is_open.clear()

    def sleep(self, seconds: float) -> None:
        """The media thread's sleep while it has no card."""
        self._wait(seconds)

    def change_rate(self, rate: int) -> None:
        """Another card in the same socket."""
        self.rate = rate
        self.period = rate // 50

    def step(self, count: int = 1) -> None:
        """Let the thread run `count` ticks, each 20 ms later than the one before."""
        for _ in range(count):
            assert self._waiting.acquire(timeout=PATIENCE), "the media thread does not read"
            self._ticks.put(1.0)
        # The thread waits again: everything of the last tick is done.
        assert self._waiting.acquire(timeout=PATIENCE), "the media thread does not read"
        self._waiting.release()

    def step_if_running(self, running: Callable[[], bool]) -> None:
        """One tick, of a thread that may end instead of waiting for it."""
        for _ in range(round(PATIENCE / 0.005)):
            if self._waiting.acquire(timeout=0.005):
                self._ticks.put(1.0)
                return
            if not running():
                return

    def release(self) -> None:
        """Let the thread run freely from now on, so that it can end."""
        self._released = True
        self._ticks.put(1.0)

    def _wait(self, seconds: float) -> None:
        if not self._released:
            self._waiting.release()
            self._ticks.get(timeout=PATIENCE)
        self._clock.now += seconds
