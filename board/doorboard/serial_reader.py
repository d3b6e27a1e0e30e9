"""A card reader or keypad on a serial port (pyserial): one thread that sleeps in read.

The reader may be pulled out and come back, or not be there at the start: the port is tried again
with growing pauses, and every change is one event.
"""

import logging
import termios
import threading
import time
from collections.abc import Callable
from typing import Final

import serial
from serial.tools import list_ports

from doorboard.closing import Closing
from doorboard.framing import Framing
from doorboard.interfaces import ReaderEvent

log = logging.getLogger(__name__)

BACK_OFF: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds between attempts to open the port; the last one stays."""

CLOSE_WITHIN: Final = 2.0
"""Seconds given to a driver that does not come back from opening its port: a door with other
settings, or the end of the service, waits behind it."""

NOISE_REPORT_SECONDS: Final = 60.0
"""A line full of noise is reported this often, not with every byte."""


class SerialReader(Closing):
    """Cards and key lines from a port such as /dev/serial0 or /dev/serial/by-id/...

    The thread starts with `watch()`. Events: "card", "keys", "unplugged" (value: why), "back",
    "bad_bytes" (value: how many since the start).
    """

    def __init__(
        self,
        port: str,
        *,
        baud_rate: int = 9600,
        clock: Callable[[], float] = time.monotonic,
        back_off: tuple[float, ...] = BACK_OFF,
    ):
        self.port = port
        self.baud_rate = baud_rate
        self._clock = clock
        self._back_off = back_off
        self._framing = Framing()
        self._lock = threading.Lock()
        self._serial: serial.Serial | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._callback: Callable[[ReaderEvent], None] | None = None
        self._noise_told = 0
        self._noise_told_at = 0.0

    @property
    def bad_bytes(self) -> int:
        return self._framing.bad_bytes

    def watch(self, callback: Callable[[ReaderEvent], None]) -> None:
        self._callback = callback
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._run, name=f"reader-{self.port}")
            self._thread.daemon = True
            self._thread.start()

    def close(self) -> None:
        """Ends the thread and frees the port; may be called from a callback."""
        with self._lock:
            self._stop.set()
            if self._serial is not None:
                self._serial.cancel_read()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_WITHIN)
        self._callback = None

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                with serial.Serial(self.port, self.baud_rate, exclusive=True) as line:
                    with self._lock:
                        self._serial = line
                    try:
                        if failures:
                            self._tell("back", "")
                        failures = 0
                        self._read(line)
                    finally:
                        with self._lock:
                            self._serial = None
            # SerialException is an OSError; a speed that the port cannot do is a ValueError.
            except (OSError, ValueError, termios.error) as error:
                if not self._stop.is_set():
                    if not failures:
                        why = self._why(error)
                        log.warning("reader %s: %s; trying again", self.port, why)
                        self._tell("unplugged", why)
                    failures += 1
            if failures:
                self._framing.reset()
                self._stop.wait(self._back_off[min(failures, len(self._back_off)) - 1])

    def _read(self, line: serial.Serial) -> None:
        while not self._stop.is_set():
            # Sleeps in select without a time-out until there is a byte, an unplug or a close().
            data = line.read(1)
            waiting = line.in_waiting
            if waiting:
                data += line.read(waiting)
            now = self._clock()
            for frame in self._framing.receive(data, now):
                self._tell(frame.kind, frame.value)
            self._tell_noise(now)

    def _tell_noise(self, now: float) -> None:
        bad = self._framing.bad_bytes
        due = not self._noise_told or now - self._noise_told_at >= NOISE_REPORT_SECONDS
        if bad > self._noise_told and due:
            self._noise_told, self._noise_told_at = bad, now
            self._tell("bad_bytes", str(bad))

    def _tell(self, kind: str, value: str) -> None:
        callback = self._callback
        if callback is not None:
            callback(ReaderEvent(kind, value, self._clock()))

    def _why(self, error: Exception) -> str:
        # Ports of which the system knows nothing ("n/a") are numbers without hardware.
        there = sorted(port.device for port in list_ports.comports() if port.hwid != "n/a")
        return f"{error}; serial ports there are: {', '.join(there) or 'none'}"
