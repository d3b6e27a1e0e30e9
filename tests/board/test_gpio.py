"""The GPIO drivers on gpiozero's mock pins; the kernel's own pins are in test_kernel.py."""

import atexit
import errno
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, cast

import gpiozero.devices
import pytest
from doorboard import gpio
from doorboard.gpio import GpioButton, GpioContact, GpioIndicator, GpioRelay
from doorboard.interfaces import BoardError, Button, ButtonEvent, Contact, Indicator, Relay
from gpiozero import Device
from gpiozero.exc import BadPinFactory
from gpiozero.pins.mock import MockFactory

from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def pins() -> Iterator[Any]:
    """Mock pins of a test's own; a mock pulled up is high, which is a button at rest."""
    before, Device.pin_factory = Device.pin_factory, MockFactory()
    yield Device.pin_factory
    Device.pin_factory.reset()
    Device.pin_factory = before


def kinds(events: list[ButtonEvent]) -> list[str]:
    return [event.kind for event in events]


def test_the_drivers_are_what_the_firmware_expects() -> None:
    with GpioButton(17) as b, GpioContact(22) as c, GpioRelay(27) as r, GpioIndicator(5) as i:
        button: Button = b
        contact: Contact = c
        relay: Relay = r
        indicator: Indicator = i
        assert (button, contact, relay, indicator) == (b, c, r, i)


# --- button ---


def test_a_press_is_reported_once_it_has_stood_still(pins: Any) -> None:
    seen: list[ButtonEvent] = []
    with GpioButton(17, debounce=0.02) as button:
        button.watch(seen.append)
        pins.pin(17).drive_low()
        assert seen == []
        wait_until(lambda: seen)
        pins.pin(17).drive_high()
        wait_until(lambda: len(seen) == 2)
    assert kinds(seen) == ["pressed", "released"]


def test_bounces_are_one_press(pins: Any) -> None:
    seen: list[ButtonEvent] = []
    with GpioButton(17, debounce=0.05) as button:
        button.watch(seen.append)
        for _ in range(20):
            pins.pin(17).drive_low()
            pins.pin(17).drive_high()
        pins.pin(17).drive_low()
        wait_until(lambda: seen)
        pins.pin(17).drive_high()
        wait_until(lambda: len(seen) == 2)
    assert kinds(seen) == ["pressed", "released"]


def test_a_button_between_pin_and_plus_is_pulled_down(pins: Any) -> None:
    seen: list[ButtonEvent] = []
    with GpioButton(17, pull="down", debounce=0.01) as button:
        button.watch(seen.append)
        pins.pin(17).drive_high()
        wait_until(lambda: seen)
    assert kinds(seen) == ["pressed"]


def test_long_press_and_stuck_button_are_reported(pins: Any) -> None:
    seen: list[ButtonEvent] = []
    with GpioButton(17, debounce=0.01, hold=0.03, stuck=0.06) as button:
        button.watch(seen.append)
        pins.pin(17).drive_low()
        wait_until(lambda: len(seen) == 3)
        pins.pin(17).drive_high()
        wait_until(lambda: len(seen) == 5)
    assert kinds(seen) == ["pressed", "held", "stuck", "released", "freed"]


def test_a_button_without_pull_must_say_its_level() -> None:
    with pytest.raises(BoardError, match="button on pin 17: without a pull, say which level"):
        GpioButton(17, pull="none")
    with GpioButton(17, pull="none", active_high=True):
        pass


def test_a_closed_button_is_silent_and_its_pin_free(pins: Any) -> None:
    seen: list[ButtonEvent] = []
    button = GpioButton(17, debounce=0.0)
    button.watch(seen.append)
    button.close()
    button.close()
    with GpioButton(17):
        pins.pin(17).drive_low()
    assert seen == []


def test_a_callback_may_close_its_button(pins: Any) -> None:
    done = threading.Event()
    button = GpioButton(17, debounce=0.01)

    def pressed(event: ButtonEvent) -> None:
        button.close()
        done.set()

    button.watch(pressed)
    pins.pin(17).drive_low()
    assert done.wait(5)


# --- contact ---


def test_a_contact_is_closed_when_it_pulls_the_pin_low(pins: Any) -> None:
    seen: list[bool] = []
    with GpioContact(22, debounce=0.01) as contact:
        contact.watch(lambda closed, at: seen.append(closed))
        assert not contact.closed
        pins.pin(22).drive_low()
        wait_until(lambda: contact.closed)
        pins.pin(22).drive_high()
        wait_until(lambda: not contact.closed)
    assert seen == [True, False]


def test_a_contact_that_opens_when_the_door_closes_is_turned_round(pins: Any) -> None:
    with GpioContact(22, active_high=True) as contact:
        assert contact.closed


# --- relay ---


@pytest.mark.parametrize(("active_high", "rest"), [(True, 0), (False, 1)])
def test_a_relay_rests_released_and_pulls(pins: Any, active_high: bool, rest: int) -> None:
    with GpioRelay(27, active_high=active_high) as relay:
        assert (relay.on, pins.pin(27).state) == (False, rest)
        relay.energise()
        assert (relay.on, pins.pin(27).state) == (True, 1 - rest)
        relay.release()
        assert (relay.on, pins.pin(27).state) == (False, rest)
        assert relay.pulses == 1


@pytest.mark.parametrize("active_high", [True, False])
def test_direction_and_level_reach_the_pin_in_one_step(
    pins: Any, active_high: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, object]] = []
    pin = pins.pin(27)
    monkeypatch.setattr(pin, "output_with_state", lambda state: steps.append(("both", state)))
    monkeypatch.setattr(pin, "_set_function", lambda value: steps.append(("function", value)))
    relay = GpioRelay(27, active_high=active_high)
    assert steps == [("both", not active_high)]
    relay.close()


def test_the_driver_releases_a_relay_that_was_forgotten(
    pins: Any, caplog: pytest.LogCaptureFixture
) -> None:
    changes: list[bool] = []
    with GpioRelay(27, hold_limit=0.03) as relay, caplog.at_level(logging.WARNING):
        relay.watch(lambda on, at: changes.append(on))
        relay.energise()
        wait_until(lambda: changes == [True, False])
        assert pins.pin(27).state == 0
        wait_until(lambda: "was on for 0.03 s: released" in caplog.text)


def test_a_pulse_as_long_as_the_limit_is_no_fault(
    pins: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpio, "OWNER_LATE", 0.05)
    with GpioRelay(27, hold_limit=0.02) as relay, caplog.at_level(logging.WARNING):
        relay.energise()
        wait_until(lambda: not relay.on)
        relay.release()  # by its owner, a moment late
        threading.Event().wait(0.1)
    assert caplog.text == ""


def test_a_log_that_stands_still_keeps_no_relay_on(pins: Any) -> None:
    class Blocked(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.set()
            read.wait(5)

    written, read = threading.Event(), threading.Event()
    handler = Blocked()
    gpio.log.addHandler(handler)
    try:
        with GpioRelay(27, hold_limit=0.02) as relay:
            relay.energise()
            assert written.wait(5)
            assert pins.pin(27).state == 0
            relay.release()  # nor does it hold up whoever wants something of the relay
            read.set()
    finally:
        read.set()
        gpio.log.removeHandler(handler)


def test_energising_again_does_not_prolong_the_limit(pins: Any) -> None:
    changes: list[bool] = []
    with GpioRelay(27, hold_limit=0.05) as relay:
        relay.watch(lambda on, at: changes.append(on))
        while not changes[1:]:
            relay.energise()
            threading.Event().wait(0.001)
        assert changes[:2] == [True, False]


def test_the_limit_of_an_earlier_pulse_does_not_cut_the_next_one_short(pins: Any) -> None:
    released: list[float] = []
    with GpioRelay(27, hold_limit=0.06) as relay:
        relay.energise()
        threading.Event().wait(0.04)
        relay.release()
        relay.watch(lambda on, at: None if on else released.append(at))
        before = time.monotonic()
        relay.energise()
        wait_until(lambda: released != [])
        assert released[0] - before >= 0.06


def test_closing_releases_and_a_closed_relay_does_not_pull(pins: Any) -> None:
    relay = GpioRelay(27, active_high=False)
    relay.energise()
    states = pins.pin(27).states
    relay.close()
    relay.close()
    assert states[-1].state == 1
    relay.release()
    with pytest.raises(BoardError, match="closed"):
        relay.energise()


def test_the_end_of_the_process_releases_the_relay() -> None:
    # The level is seen by what the mock pin was told last; os.write, since exit closes the rest.
    program = """
import os
from gpiozero import Device
from gpiozero.pins.mock import MockFactory, MockPin
class Pin(MockPin):
    def _set_state(self, value):
        os.write(1, b"%d" % value)
        super()._set_state(value)
Device.pin_factory = MockFactory(pin_class=Pin)
from doorboard.gpio import GpioRelay
relay = GpioRelay(27)
relay.energise()
{}
"""
    for ending in ("", "raise SystemExit(3)", "raise RuntimeError"):
        done = subprocess.run(
            [sys.executable, "-c", program.format(ending)], capture_output=True, check=False
        )
        assert done.stdout == b"010", ending


def test_a_closed_relay_leaves_nothing_for_the_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", registered.append)
    monkeypatch.setattr(atexit, "unregister", registered.remove)
    relay = GpioRelay(27)
    assert len(registered) == 1
    relay.close()
    assert registered == []


def test_a_pin_that_fails_to_release_is_tried_again(
    pins: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    relay = GpioRelay(27, hold_limit=0.02)
    relay.energise()
    alarms: list[float | None] = []
    monkeypatch.setattr(relay._alarm, "set", alarms.append)
    with monkeypatch.context() as broken:
        broken.setattr(relay, "_write", lambda on: (_ for _ in ()).throw(BoardError("bus")))
        with pytest.raises(BoardError, match="bus"):
            relay._expired(relay._until)
    assert alarms == [relay._until + 1]
    relay.close()
    assert not relay.on


@pytest.mark.parametrize("by_limit", [False, True])
def test_a_relay_that_pulled_though_its_pin_reported_a_failure_is_released(
    by_limit: bool, pins: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = pins.pin(27)
    with GpioRelay(27, hold_limit=0.2 if by_limit else 60.0) as relay:
        write = type(pin)._set_state

        def half_done(self: Any, value: int) -> None:
            write(self, value)
            if value:
                raise OSError("no acknowledgement")

        with monkeypatch.context() as broken:
            broken.setattr(type(pin), "_set_state", half_done)
            with pytest.raises(BoardError, match="no acknowledgement"):
                relay.energise()
            assert pin.state == 1
            if not by_limit:
                relay.release()
            wait_until(lambda: not relay.on)
        assert (pin.state, relay.pulses) == (0, 0)


def test_an_error_of_a_library_s_own_kind_is_a_board_error_that_names_the_part(
    pins: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy(Exception):
        """As lgpio.error and gpiod's: of no common class."""

    def busy(*_: object) -> None:
        raise Busy("GPIO busy")

    with GpioIndicator(5) as led, GpioRelay(27) as relay:
        with monkeypatch.context() as broken:
            broken.setattr(type(pins.pin(5)), "_set_state", busy)
            with pytest.raises(BoardError, match="led-5: GPIO busy"):
                led.show("idle")
            with pytest.raises(BoardError, match="relay-27: GPIO busy"):
                relay.energise()
        monkeypatch.setattr(type(pins.pin(6)), "output_with_state", busy)
        with pytest.raises(BoardError, match="relay on pin 6: GPIO busy"):
            GpioRelay(6)


def test_a_relay_without_a_limit_is_refused() -> None:
    with pytest.raises(BoardError, match="must be above 0"):
        GpioRelay(27, hold_limit=0)


# --- LED ---


def test_a_constant_pattern_needs_no_thread(pins: Any) -> None:
    before = threading.active_count()
    with GpioIndicator(5) as led:
        for pattern, state in (("idle", 1), ("off", 0), ("idle", 1)):
            led.show(pattern)
            assert (led.pattern, pins.pin(5).state) == (pattern, state)
        assert threading.active_count() == before
    assert not pins.pin(5).state


def test_a_pattern_blinks_until_the_next_one(pins: Any) -> None:
    with GpioIndicator(5, active_high=False) as led:
        states = pins.pin(5).states
        led.show("door_open")
        wait_until(lambda: len(states) >= 6)
        led.show("off")
        assert pins.pin(5).state == 1
        shown = [state.state for state in states]
        assert all(one != other for one, other in pairwise(shown))


def test_a_wrong_pattern_is_refused() -> None:
    with GpioIndicator(5) as led, pytest.raises(ValueError, match="disco"):
        led.show("disco")


# --- pins ---


def test_a_pin_used_twice_is_named_with_its_part() -> None:
    with GpioButton(17), pytest.raises(BoardError, match=r"relay on pin 17: pin GPIO17 is already"):
        GpioRelay(17)


def test_a_pin_that_is_not_there_is_named() -> None:
    with pytest.raises(BoardError, match="LED on pin 99"):
        GpioIndicator(99)


def test_a_factory_that_is_set_or_named_is_respected(
    pins: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpio.ensure_pin_factory() is pins
    monkeypatch.setattr(Device, "pin_factory", None)
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "mock")
    assert isinstance(gpio.ensure_pin_factory(), MockFactory)


def test_a_factory_that_does_not_exist_is_a_board_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "pin_factory", None)
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "abacus")
    with pytest.raises(BoardError, match="abacus"):
        gpio.ensure_pin_factory()
    assert issubclass(BadPinFactory, gpiozero.exc.GPIOZeroError)


def test_a_machine_without_gpio_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from doorboard import gpiod_factory

    monkeypatch.setattr(Device, "pin_factory", None)
    monkeypatch.delenv("GPIOZERO_PIN_FACTORY", raising=False)
    monkeypatch.setattr(gpiod_factory, "chips", dict)
    with pytest.raises(BoardError, match=r"GPIO: no GPIO chip is known.*there are: none"):
        gpio.ensure_pin_factory()


def test_the_chip_is_chosen_by_label_not_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from doorboard import gpiod_factory

    there = {
        "/dev/gpiochip0": "gpio-brcmstb@107d508500",
        "/dev/gpiochip4": "pinctrl-rp1",
        "/dev/gpiochip10": "raspberrypi-exp-gpio",
    }
    monkeypatch.setattr(gpiod_factory, "chips", lambda: there)
    assert gpiod_factory.find_chip(None) == "/dev/gpiochip4"
    assert gpiod_factory.find_chip("gpiochip10") == "/dev/gpiochip10"
    assert gpiod_factory.find_chip("raspberrypi-exp-gpio") == "/dev/gpiochip10"
    with pytest.raises(BoardError, match=r"no GPIO chip pcf8574; there are: /dev/gpiochip0 \("):
        gpiod_factory.find_chip("pcf8574")


def test_a_line_that_fails_silences_no_other(caplog: pytest.LogCaptureFixture) -> None:
    from doorboard.gpiod_factory import EdgeWatcher

    class Line:
        """A line whose edges are counted by an eventfd."""

        def __init__(self, name: str, fault: Exception | None = None) -> None:
            self.fd = os.eventfd(0, os.EFD_CLOEXEC)
            self.name, self.fault = name, fault
            self.seen: list[float] = []

        def __repr__(self) -> str:
            return self.name

        def read_events(self) -> list[tuple[float, int]]:
            if self.fault is not None:
                raise self.fault
            return [(float(os.eventfd_read(self.fd)), 1)]

        def changed(self, when: float, state: int) -> None:
            self.seen.append(when)
            if len(self.seen) == 1:
                raise RuntimeError("a callback's own")

    gone, good = Line("GPIO4", OSError(errno.ENODEV, "No such device")), Line("GPIO17")
    watcher = EdgeWatcher()
    for line in (gone, good):
        watcher.add(line.fd, cast(Any, line))
    try:
        os.eventfd_write(gone.fd, 1)
        wait_until(lambda: "GPIO4 fails and is watched no more" in caplog.text)
        for edges in (1, 2):
            os.eventfd_write(good.fd, 1)
            wait_until(lambda: len(good.seen) == edges)  # noqa: B023
        assert "an edge of GPIO17 is lost" in caplog.text
        assert caplog.text.count("GPIO4 fails") == 1
        watcher.remove(gone.fd)  # as its close() does
    finally:
        watcher.close()
        os.close(gone.fd)
        os.close(good.fd)
