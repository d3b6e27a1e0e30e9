"""A call at a time, from a thread that sleeps without waking while nothing is due."""

import logging
import threading
import time
from collections.abc import Callable

from doorboard.closing import Closing

log = logging.getLogger(__name__)


class Alarm(Closing):
    """One time, one callback. The thread is made with the first time set, so that an LED that
    never blinks and a relay that never pulls have none.
    """

    def __init__(self, callback: Callable[[float], None], name: str):
        """`callback` gets `time.monotonic()`, runs in the alarm's thread, may set the next time."""
        self._callback = callback
        self._name = name
        self._at: float | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def set(self, at: float | None) -> None:
        """Call back at this monotonic time, or (None) not at all; replaces the time before."""
        with self._changed:
            if self._closed or at == self._at:
                return
            # A later time need not wake the thread: it looks again when the earlier one comes.
            sooner = at is not None and (self._at is None or at < self._at)
            self._at = at
            if at is None:
                return
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()  # where there is no room for one, the next time set tries again
                self._thread = thread
            elif sooner:
                self._changed.notify()

    def close(self) -> None:
        """No call begins after this one; the thread ends by itself, so a callback may close."""
        with self._changed:
            self._closed = True
            self._at = None
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while True:
                    if self._closed:
                        return
                    now = time.monotonic()
                    if self._at is not None and now >= self._at:
                        self._at = None
                        break
                    self._changed.wait(None if self._at is None else self._at - now)
            try:
                self._callback(now)
            except Exception:
                # This thread is what releases a relay: one failure must not be its last.
                log.exception("%s failed", self._name)
