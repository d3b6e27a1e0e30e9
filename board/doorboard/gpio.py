"""Button, contact, relay and LED on gpiozero pins.

Pins come from our factory on libgpiod, from lgpio where that is missing, or from the one that
GPIOZERO_PIN_FACTORY names or somebody has set (gpiozero's mock in tests). A pin is a number on the
header's chip, "GPIO17", or a name that the kernel gives the line.
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from traceback import clear_frames
from typing import Any, Final, Generic, Literal, TypeVar

from gpiozero import Device, InputDevice, OutputDevice

from doorboard.alarm import Alarm
from doorboard.closing import Closing
from doorboard.debounce import ButtonLogic, Debounce
from doorboard.interfaces import BoardError, ButtonEvent
from doorboard.patterns import lengths, light_at

log = logging.getLogger(__name__)

Pull = Literal["up", "down", "none"]

PULL_UP: Final[dict[Pull, bool | None]] = {"up": True, "down": False, "none": None}

OWNER_LATE: Final = 0.25
"""Seconds after its hold limit by which a relay's owner releases it, too: a pulse may be as long as
the limit, and is no fault then."""


@contextmanager
def _translated(part: str) -> Iterator[None]:
    """Every library's error becomes a BoardError that names the part.

    Of whatever class: those of lgpio and gpiod have nothing in common with any other.
    """
    try:
        yield
    except Exception as error:
        # Its frames hold a half-made device, and that holds its pin: on Python 3.13 until the
        # collector runs.
        clear_frames(error.__traceback__)
        raise BoardError(f"{part}: {error}") from error


def ensure_pin_factory(chip: str | None = None) -> Any:
    """The pin factory of this process, made on the first call; `chip` is a label, name or path.

    Raises BoardError: no chip, no permission, no library.
    """
    if Device.pin_factory is None:
        name = os.environ.get("GPIOZERO_PIN_FACTORY", "").lower()
        with _translated("GPIO"):
            if name == "lgpio":
                Device.pin_factory = _lgpio_factory()
            elif name in {"", "gpiod"}:
                Device.pin_factory = _best_factory(chip)
            elif name == "mock":
                from gpiozero.pins.mock import MockFactory

                Device.pin_factory = MockFactory()
            else:  # by name, among all installed packages
                Device.ensure_pin_factory()
        log.debug("pins by %s", type(Device.pin_factory).__name__)
    return Device.pin_factory


def _best_factory(chip: str | None) -> Any:
    try:
        from doorboard.gpiod_factory import GpiodFactory
    except ImportError as error:
        log.warning("no libgpiod 2 (%s): lgpio reads the pins, at some cost in power", error)
        return _lgpio_factory()
    return GpiodFactory(chip)


def _lgpio_factory() -> Any:
    try:
        import lgpio
        from gpiozero.pins.lgpio import LGPIOFactory, LGPIOPin
    except ImportError as error:
        raise BoardError(f"neither gpiod (version 2) nor lgpio is installed: {error}") from error

    class SilentPin(LGPIOPin):  # type: ignore[misc]  # gpiozero has no types
        """gpiozero's pin claims an output at 0 and sets it after: an active-low relay clicks."""

        def output_with_state(self, state: int) -> None:
            lgpio.gpio_claim_output(self.factory._handle, self._number, int(state))

    try:
        factory = LGPIOFactory()
    except lgpio.error as error:
        raise BoardError(f"lgpio: {error}") from error
    factory.pin_class = SilentPin
    return factory


Logic = TypeVar("Logic", Debounce, ButtonLogic)


class _Input(Closing, Generic[Logic]):
    """A pin with its pull, debounced by the kernel or by lgpio where they can, and its logic."""

    def __init__(
        self,
        pin: int | str,
        pull: Pull,
        active_high: bool | None,
        debounce: float,
        part: str,
        logic: Callable[[bool, float], Logic],
    ):
        """`logic` is made of the level now and of the seconds that it has to debounce."""
        if active_high is None:
            if pull == "none":
                raise BoardError(f"{part} on pin {pin}: without a pull, say which level is active")
            active_high = pull == "down"
        self._active_high = active_high
        self._lock = threading.RLock()
        self._closed = False
        self._name = f"{part}-{pin}"
        self._tell: Callable[[Any], None] | None = None
        with _translated(f"{part} on pin {pin}"):
            factory = ensure_pin_factory()
            self._device = InputDevice(
                pin,
                pull_up=PULL_UP[pull],
                active_state=True if pull == "none" else None,
                pin_factory=factory,
            )
            # The mock takes a bounce time and ignores it: there the logic debounces by itself.
            kernel = type(factory).__name__ in {"GpiodFactory", "LGPIOFactory"}
            if kernel:
                self._device.pin.bounce = debounce
        self._logic: Logic = logic(self._active(), 0.0 if kernel else debounce)
        self._alarm = Alarm(self._timer, self._name)
        with _translated(self._name):
            self._device.pin.edges = "both"
            self._device.pin.when_changed = self._changed
        self._alarm.set(self._logic.deadline)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        if not self._device.closed:
            self._device.pin.when_changed = None
            self._device.close()
        self._alarm.close()

    def _active(self) -> bool:
        return bool(self._device.pin.state) == self._active_high

    def _changed(self, ticks: float, state: int) -> None:
        # Our factory stamps in monotonic seconds, as the mock does; lgpio counts from the epoch.
        now = time.monotonic()
        at = ticks if 0 <= now - ticks < 1 else now
        with self._lock:
            if not self._closed:
                self._report(self._logic.edge(bool(state) == self._active_high, at))

    def _timer(self, now: float) -> None:
        with self._lock:
            if self._closed:
                return
            events = self._logic.timer_fired(now)
            # An edge that was lost (a full event queue, electrical noise) is found out here.
            events += self._logic.edge(self._active(), now)
            self._report(events)

    def _report(self, events: Iterable[object]) -> None:
        for event in events:
            if self._tell is not None:
                self._tell(event)
        self._alarm.set(self._logic.deadline)


class GpioButton(_Input[ButtonLogic]):
    """A call button. A press is one event, however the contact bounces."""

    def __init__(
        self,
        pin: int | str,
        *,
        pull: Pull = "up",
        active_high: bool | None = None,
        debounce: float = 0.03,
        hold: float | None = 2.0,
        stuck: float | None = 30.0,
    ):
        """Seconds until an edge counts, until a press is a long one, until it is a fault.

        `active_high` None: the level opposite to the pull.
        """

        def logic(pressed: bool, debounce: float) -> ButtonLogic:
            return ButtonLogic(
                pressed=pressed, now=time.monotonic(), debounce=debounce, hold=hold, stuck=stuck
            )

        super().__init__(pin, pull, active_high, debounce, "button", logic)

    @property
    def pressed(self) -> bool:
        return self._logic.pressed

    def watch(self, callback: Callable[[ButtonEvent], None]) -> None:
        with self._lock:
            self._tell = callback


class GpioContact(_Input[Debounce]):
    """A door contact; closed is the active level."""

    def __init__(
        self,
        pin: int | str,
        *,
        pull: Pull = "up",
        active_high: bool | None = None,
        debounce: float = 0.05,
    ):
        super().__init__(pin, pull, active_high, debounce, "contact", Debounce)

    @property
    def closed(self) -> bool:
        return self._logic.level

    def watch(self, callback: Callable[[bool, float], None]) -> None:
        with self._lock:
            self._tell = lambda change: callback(*change)


class GpioRelay(Closing):
    """A relay that rests released, and is released by whatever ends: `close()`, the process, or
    `hold_limit` seconds after it was energised, counted by a thread that does nothing else.
    """

    def __init__(self, pin: int | str, *, active_high: bool = True, hold_limit: float = 10.0):
        if hold_limit <= 0:
            raise BoardError(f"relay on pin {pin}: hold limit {hold_limit} s must be above 0")
        self.hold_limit = hold_limit
        self._name = f"relay-{pin}"
        self._lock = threading.RLock()
        self._on = False
        self._until = 0.0
        self._pulses = 0
        self._forgotten = False
        """The limit released it, and its owner has not yet."""
        self._callback: Callable[[bool, float], None] | None = None
        with _translated(f"relay on pin {pin}"):
            # gpiozero hands direction and level to the pin together: no click at the start.
            self._device = OutputDevice(
                pin,
                active_high=active_high,
                initial_value=False,
                pin_factory=ensure_pin_factory(),
            )
        self._alarm = Alarm(self._expired, self._name)
        atexit.register(self.close)

    @property
    def on(self) -> bool:
        return self._on

    @property
    def pulses(self) -> int:
        return self._pulses

    def watch(self, callback: Callable[[bool, float], None]) -> None:
        with self._lock:
            self._callback = callback

    def energise(self) -> None:
        """Pull; when it is pulled already the limit still counts from the first time."""
        with self._lock:
            if self._device.closed:
                raise BoardError(f"{self._name} is closed")
            if self._on:
                return
            # The limit first: were the thread not to start, the relay must not pull.
            self._until = time.monotonic() + self.hold_limit
            self._alarm.set(self._until)
            try:
                self._write(True)
            except BoardError:
                self._on = True  # perhaps it pulled all the same: it is released like one that did
                raise
            self._pulses += 1
            self._tell()

    def release(self) -> None:
        with self._lock:
            self._forgotten = False
            if self._on and not self._device.closed:
                self._write(False)
                self._alarm.set(None)
                self._tell()

    def close(self) -> None:
        try:
            self.release()
        finally:
            self._alarm.close()
            with self._lock, _translated(self._name):
                self._callback = None
                self._device.close()
            atexit.unregister(self.close)

    def _expired(self, now: float) -> None:
        with self._lock:
            if self._on:
                if now < self._until:  # pulled anew in between
                    return
                try:
                    self.release()
                except BoardError:
                    self._alarm.set(now + 1)  # there is nothing else to be done than to try again
                    raise
                self._forgotten = True
                self._alarm.set(now + OWNER_LATE)
                return
            if not self._forgotten:
                return
            self._forgotten = False
        # After the release, and without the lock: a log that nobody reads holds up who writes it.
        log.warning("%s was on for %g s: released", self._name, self.hold_limit)

    def _write(self, on: bool) -> None:
        with _translated(self._name):
            self._device.value = on
        self._on = on

    def _tell(self) -> None:
        if self._callback is not None:
            self._callback(self._on, time.monotonic())


class GpioIndicator(Closing):
    """An LED. A pattern that blinks wakes at its changes, one that does not never."""

    def __init__(self, pin: int | str, *, active_high: bool = True):
        self._name = f"led-{pin}"
        self._lock = threading.RLock()
        self._pattern = "off"
        self._row: tuple[float, ...] = ()
        self._start = 0.0
        with _translated(f"LED on pin {pin}"):
            self._device = OutputDevice(
                pin,
                active_high=active_high,
                initial_value=False,
                pin_factory=ensure_pin_factory(),
            )
        self._alarm = Alarm(self._step, self._name)

    @property
    def pattern(self) -> str:
        return self._pattern

    def show(self, pattern: str) -> None:
        row = lengths(pattern)
        with self._lock:
            if pattern != self._pattern and not self._device.closed:
                self._pattern, self._row, self._start = pattern, row, time.monotonic()
                self._step(self._start)

    def close(self) -> None:
        """Dark, and the pin freed."""
        self._alarm.close()
        with self._lock, _translated(self._name):
            if not self._device.closed:
                self._device.off()
                self._device.close()

    def _step(self, now: float) -> None:
        with self._lock, _translated(self._name):
            if self._device.closed:
                return
            lit, change = light_at(self._row, max(0.0, now - self._start))
            self._device.value = lit
            self._alarm.set(None if change is None else self._start + change)
