"""A sound card whose clock the test turns: `read` waits for `step`, not for time."""

import queue
import threading
from collections import deque

from doorboard.interfaces import BoardError

PERIOD = 0.02


class StepClock:
    """Seconds that only move when a period is stepped."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SteppedPort:
    """An AudioPort for the media thread, driven from the test's thread.

    `step(n)` captures n periods and returns when the thread waits for the next one. What the
    thread wrote is in `written`; what it reads comes from `microphone`, then silence.
    """

    def __init__(self, clock: StepClock, rate: int = 8000) -> None:
        self.rate = rate
        self.period = rate // 50
        self.overruns = 0
        self.underruns = 0
        self.opened = 0
        self.closed = 0
        self.is_open = threading.Event()
        self.is_closed = threading.Event()
        self.fault = ""
        """Why the next open, read or write fails; empty for a card that works."""
        self.microphone: deque[bytes] = deque()
        self.written: deque[bytes] = deque(maxlen=100_000)
        self._clock = clock
        self._ticks: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._waiting = threading.Semaphore(0)

    def open(self) -> None:
        if self.fault:
            raise BoardError(self.fault)
        self.opened += 1
        self.is_closed.clear()
        self.is_open.set()

    def read(self) -> bytes:
        self._waiting.release()
        self._ticks.get(timeout=10.0)
        if self.fault:
            self._waiting.release()
            raise BoardError(self.fault)
        return self.microphone.popleft() if self.microphone else bytes(2 * self.period)

    def write(self, period: bytes) -> None:
        if self.fault:
            raise BoardError(self.fault)
        assert len(period) == 2 * self.period
        self.written.append(period)

    def close(self) -> None:
        self.closed += 1
        self.is_open.clear()
        self.is_closed.set()

    def step(self, count: int = 1) -> None:
        """Let the thread run `count` ticks, each 20 ms later than the one before."""
        for _ in range(count):
            assert self._waiting.acquire(timeout=10.0), "the media thread does not read"
            self._clock.now += PERIOD
            self._ticks.put(True)
        # The thread is back in read(): everything of the last tick is done.
        assert self._waiting.acquire(timeout=10.0), "the media thread does not read"
        self._waiting.release()
