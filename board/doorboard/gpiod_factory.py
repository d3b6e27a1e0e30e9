"""A pin factory for gpiozero over libgpiod 2: edges come from the kernel, nobody asks for them.

gpiozero's lgpio factory wakes some 1,500 times a second once an input is watched. Here one thread
sleeps in epoll on the line requests and wakes when a line changes; the kernel debounces and stamps
the time. It works wherever Linux has the GPIO character device (5.10 or later), Pi 5 included: the
chip is chosen by its label, since the numbers of /dev/gpiochip* have changed between kernels.
"""

import errno
import logging
import os
import re
import select
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import MethodType
from typing import Any, Final
from weakref import WeakMethod, ref

import gpiod
from gpiod.line import Bias, Direction, Edge, Value
from gpiozero.exc import (
    GPIOPinInUse,
    PinInvalidBounce,
    PinInvalidEdges,
    PinInvalidFunction,
    PinInvalidPull,
    PinInvalidState,
    PinSetInput,
)
from gpiozero.pins import Factory, Pin, PinInfo

from doorboard.interfaces import BoardError

log = logging.getLogger(__name__)

if not hasattr(gpiod, "LineSettings"):
    raise ImportError("the module gpiod is version 1 of libgpiod, version 2 is needed")

HEADER_CHIPS: Final = ("pinctrl-rp1", "pinctrl-bcm2711", "pinctrl-bcm2835")
"""Labels of the chips behind the pin header: Pi 5, Pi 4, and all before it."""

CONSUMER: Final = "doorstation"

PULLS: Final = {"up": Bias.PULL_UP, "down": Bias.PULL_DOWN, "floating": Bias.DISABLED}
EDGES: Final = {
    "both": Edge.BOTH,
    "rising": Edge.RISING,
    "falling": Edge.FALLING,
    "none": Edge.NONE,
}


def chips() -> dict[str, str]:
    """Label of every GPIO chip by its path; BoardError where one may not be opened."""
    found: dict[str, str] = {}
    for path in sorted(map(str, Path("/dev").glob("gpiochip*"))):
        if not gpiod.is_gpiochip_device(path):
            continue
        try:
            with gpiod.Chip(path) as chip:
                found[path] = chip.get_info().label
        except PermissionError as error:
            raise BoardError(f"no permission for {path}: is the user in group gpio?") from error
        except OSError as error:
            raise BoardError(f"{path}: {error.strerror}") from error
    return found


def find_chip(wanted: str | None) -> str:
    """Path of the chip with this label, name or path; None: the one behind the pin header."""
    found = chips()
    there = ", ".join(f"{path} ({label})" for path, label in found.items()) or "none"
    if wanted is None:
        for label in HEADER_CHIPS:
            for path, its in found.items():
                if its == label:
                    return path
        if len(found) == 1:
            return next(iter(found))
        raise BoardError(f"no GPIO chip is known to be the pin header's; there are: {there}")
    for path, label in found.items():
        if wanted in {path, path.removeprefix("/dev/"), label}:
            return path
    raise BoardError(f"no GPIO chip {wanted}; there are: {there}")


class EdgeWatcher:
    """The one thread that waits for edges on every watched line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pins: dict[int, GpiodPin] = {}
        self._epoll: select.epoll | None = None
        self._stop = -1
        self._thread: threading.Thread | None = None

    def add(self, fd: int, pin: "GpiodPin") -> None:
        with self._lock:
            if self._epoll is None:
                self._epoll = select.epoll()
                self._stop = os.eventfd(0, os.EFD_CLOEXEC)
                self._epoll.register(self._stop, select.EPOLLIN)
                self._thread = threading.Thread(
                    target=self._run, args=(self._epoll, self._stop), name="gpio-edges", daemon=True
                )
                self._thread.start()
            self._pins[fd] = pin
            self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        with self._lock:
            if self._pins.pop(fd, None) is not None and self._epoll is not None:
                self._epoll.unregister(fd)

    def close(self) -> None:
        with self._lock:
            epoll, self._epoll = self._epoll, None
            thread, self._thread = self._thread, None
            self._pins.clear()
        if epoll is None or thread is None:
            return
        os.eventfd_write(self._stop, 1)
        if thread is not threading.current_thread():
            thread.join()
        epoll.close()
        os.close(self._stop)

    def _run(self, epoll: select.epoll, stop: int) -> None:
        while True:
            for fd, _ in epoll.poll():
                if fd == stop:
                    return
                self._edges(epoll, fd)

    def _edges(self, epoll: select.epoll, fd: int) -> None:
        """Hand on what one line did. It is the thread of every line: no failure is its last."""
        # Read under the lock, so that a line being closed is not read; call outside, so that a
        # callback may close lines.
        with self._lock:
            pin = self._pins.get(fd)
            if pin is None:
                return
            try:
                events = pin.read_events()
            except Exception:
                log.exception("%r fails and is watched no more", pin)
                del self._pins[fd]
                epoll.unregister(fd)  # or it would be ready for ever
                return
        for when, state in events:
            try:
                pin.changed(when, state)
            except Exception:
                log.exception("an edge of %r is lost", pin)


class GpiodFactory(Factory):  # type: ignore[misc]  # gpiozero has no types
    """Pins by number, by "GPIO17" or "BCM17", or by the name the kernel knows the line by."""

    def __init__(self, chip: str | None = None):
        """`chip`: a label, name or path; None finds the pin header's. Raises BoardError."""
        super().__init__()
        self.path = find_chip(chip)
        self._chip = gpiod.Chip(self.path)
        info = self._chip.get_info()
        self.label: str = info.label
        self.lines: int = info.num_lines
        self.watcher = EdgeWatcher()
        self._pins: dict[int, GpiodPin] = {}

    def close(self) -> None:
        for pin in list(self._pins.values()):
            pin.close()
        self._pins.clear()
        self.watcher.close()
        self._chip.close()

    def pin(self, name: int | str) -> "GpiodPin":
        offset = self.offset(name)
        if offset not in self._pins:
            self._pins[offset] = GpiodPin(self, self._chip, offset)
        return self._pins[offset]

    def offset(self, name: int | str) -> int:
        """Line number of a pin name; BoardError says what the chip has."""
        number: int | None = name if isinstance(name, int) else None
        if isinstance(name, str):
            try:
                number = self._chip.line_offset_from_id(name)
            except OSError:
                match = re.fullmatch(r"(?:GPIO|BCM)?(\d{1,3})", name)
                number = int(match[1]) if match else None
        if number is None or not 0 <= number < self.lines:
            raise BoardError(
                f"no pin {name} on {self.path} ({self.label}): it has 0 to {self.lines - 1}"
            )
        return number

    def reserve_pins(self, requester: Any, *names: int | str) -> None:
        with self._res_lock:
            for offset in map(self.offset, names):
                for reserver in (reserved() for reserved in self._reservations[offset]):
                    if reserver is not None and requester._conflicts_with(reserver):
                        raise GPIOPinInUse(f"pin {offset} is already in use by {reserver!r}")
                self._reservations[offset].append(ref(requester))

    def release_pins(self, reserver: Any, *names: int | str) -> None:
        with self._res_lock:
            for offset in map(self.offset, names):
                self._reservations[offset] = [
                    reserved
                    for reserved in self._reservations[offset]
                    if reserved() not in (reserver, None)
                ]

    def release_all(self, reserver: Any) -> None:
        self.release_pins(reserver, *list(self._reservations))

    def ticks(self) -> float:
        return time.monotonic()

    def ticks_diff(self, later: float, earlier: float) -> float:
        return later - earlier


class GpiodPin(Pin):  # type: ignore[misc]  # gpiozero has no types
    """One line, requested from the kernel when it gets its function, and freed by `close()`."""

    def __init__(self, factory: GpiodFactory, chip: gpiod.Chip, offset: int):
        self._factory = factory
        self._chip = chip
        self._offset = offset
        self._lock = threading.RLock()
        self._request: gpiod.LineRequest | None = None
        self._output = False
        self._pull = "floating"
        self._bounce: float | None = None
        self._edges = "both"
        self._when_changed: Callable[[], Callable[[float, int], None] | None] | None = None

    def __repr__(self) -> str:
        return f"GPIO{self._offset}"

    def close(self) -> None:
        """Free the line, left at the level it had: the kernel decides what becomes of it.

        Raspberry Pi's keeps an output as it is unless told otherwise (`dtparam=strict_gpiod`).
        """
        with self._lock:
            self._set_when_changed(None)
            if self._request is not None:
                self._request.release()
                self._request = None
            self._output, self._pull, self._bounce, self._edges = False, "floating", None, "both"

    def output_with_state(self, state: int) -> None:
        with self._lock:
            self._set_when_changed(None)
            self._output = True
            self._configure(Value.ACTIVE if state else Value.INACTIVE)

    def input_with_pull(self, pull: str) -> None:
        with self._lock:
            self._output = False
            self._set_pull(pull)

    def read_events(self) -> list[tuple[float, int]]:
        """Edges that wait, as time and level; only for the watcher, when there are some."""
        if self._request is None:
            return []
        return [
            (event.timestamp_ns / 1e9, int(event.event_type is event.Type.RISING_EDGE))
            for event in self._request.read_edge_events()
        ]

    def changed(self, when: float, state: int) -> None:
        """Hand an edge to whoever watches, in the watcher's thread."""
        watching = self._when_changed
        callback = None if watching is None else watching()
        if callback is not None:
            callback(when, state)

    # --- what gpiozero's properties call ---

    def _get_info(self) -> PinInfo:
        name = repr(self)
        names = frozenset({self._offset, str(self._offset), name, f"BCM{self._offset}"})
        return PinInfo(self._offset, name, names, "", 0, 0, frozenset({"gpio"}))

    def _get_function(self) -> str:
        return "output" if self._output else "input"

    def _set_function(self, value: str) -> None:
        if value == "output":
            self.output_with_state(0)
        elif value == "input":
            with self._lock:
                self._output = False
                self._configure()
        else:
            raise PinInvalidFunction(f"no function {value!r} for pin {self!r}")

    def _get_state(self) -> int:
        return int(self._live().get_value(self._offset) is Value.ACTIVE)

    def _set_state(self, value: int) -> None:
        if not self._output:
            raise PinSetInput(f"pin {self!r} is an input")
        if value not in (0, 1):
            raise PinInvalidState(f"state {value} of pin {self!r}: 0 or 1 needed")
        self._live().set_value(self._offset, Value.ACTIVE if value else Value.INACTIVE)

    def _get_pull(self) -> str:
        return self._pull

    def _set_pull(self, value: str) -> None:
        if value not in PULLS:
            raise PinInvalidPull(
                f"no pull {value!r} for pin {self!r}; there are {', '.join(PULLS)}"
            )
        with self._lock:
            self._pull = value
            self._configure()

    def _get_bounce(self) -> float | None:
        return self._bounce

    def _set_bounce(self, value: float | None) -> None:
        if value is not None and value < 0:
            raise PinInvalidBounce(f"bounce time {value} of pin {self!r} is negative")
        with self._lock:
            self._bounce = value
            self._configure()

    def _get_edges(self) -> str:
        return self._edges

    def _set_edges(self, value: str) -> None:
        if value not in EDGES:
            raise PinInvalidEdges(f"no edges {value!r} for pin {self!r}")
        with self._lock:
            self._edges = value
            self._configure()

    def _get_when_changed(self) -> Callable[[float, int], None] | None:
        return None if self._when_changed is None else self._when_changed()

    def _set_when_changed(self, value: Callable[[float, int], None] | None) -> None:
        with self._lock:
            watched = self._when_changed is not None
            if value is None:
                self._when_changed = None
                if watched and self._request is not None:
                    self._factory.watcher.remove(self._request.fd)
                    self._configure()
                return
            # gpiozero's own rule: a pin must not keep the device alive that watches it.
            self._when_changed = WeakMethod(value) if isinstance(value, MethodType) else ref(value)
            if not watched:
                self._configure()
                self._factory.watcher.add(self._live().fd, self)

    when_changed = property(_get_when_changed, _set_when_changed)

    # --- the kernel ---

    def _live(self) -> gpiod.LineRequest:
        if self._request is None:
            self._configure()
        if self._request is None:
            raise BoardError(f"pin {self!r} is closed")
        return self._request

    def _configure(self, value: Value = Value.INACTIVE) -> None:
        """Bring direction, level, pull, edges and debouncing to the line in one step."""
        if self._output:
            settings = gpiod.LineSettings(direction=Direction.OUTPUT, output_value=value)
        else:
            watched = self._when_changed is not None
            settings = gpiod.LineSettings(
                direction=Direction.INPUT,
                bias=PULLS[self._pull],
                edge_detection=EDGES[self._edges] if watched else Edge.NONE,
                debounce_period=timedelta(seconds=self._bounce or 0),
            )
        try:
            if self._request is None:
                self._request = self._chip.request_lines(
                    {self._offset: settings}, consumer=CONSUMER
                )
            else:
                self._request.reconfigure_lines({self._offset: settings})
        except OSError as error:
            raise BoardError(self._why(error)) from error

    def _why(self, error: OSError) -> str:
        where = f"pin {self!r} of {self._factory.path} ({self._factory.label})"
        if error.errno == errno.EBUSY:
            consumer = self._chip.get_line_info(self._offset).consumer
            return f"{where} is in use by {consumer or 'the kernel'}"
        if error.errno in (errno.EPERM, errno.EACCES):
            return f"no permission for {where}: is the user in group gpio?"
        return f"{where}: {error.strerror}"
