"""The GPIO drivers on a kernel's simulated chip; run inside the guest by tests/board."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import gpiod
import pytest
from doorboard.gpio import GpioButton, GpioContact, GpioRelay, ensure_pin_factory
from doorboard.gpiod_factory import GpiodFactory, find_chip
from doorboard.interfaces import BoardError, ButtonEvent
from doorboard.rest import main, noted
from gpiozero import Device

from tests.support.uml.gpiosim import GpioSim
from tests.support.waiting import wait_until

BELL, CONTACT, RELAY = 17, 22, 27


@pytest.fixture
def chip() -> Iterator[GpioSim]:
    sim = GpioSim(names={BELL: "BELL"})
    yield sim
    if Device.pin_factory is not None:
        Device.pin_factory.close()
        Device.pin_factory = None
    sim.close()


def kinds(events: list[ButtonEvent]) -> list[str]:
    return [event.kind for event in events]


def levels(chip: GpioSim, line: int, program: str) -> list[int]:
    """What a line did while a program ran: its level at every change the kernel saw.

    Another program's line cannot be watched for edges, so the level is read as fast as it goes.
    """
    child = subprocess.Popen([sys.executable, "-c", program])
    seen = [chip.level(line)]
    while child.poll() is None:
        level = chip.level(line)
        if level != seen[-1]:
            seen.append(level)
    return seen


def test_the_factory_is_ours_and_finds_the_header_by_its_label(chip: GpioSim) -> None:
    other = GpioSim("other", label="raspberrypi-exp-gpio", lines=8)
    factory = ensure_pin_factory()
    assert isinstance(factory, GpiodFactory)
    assert (factory.label, Path(factory.path)) == ("pinctrl-bcm2711", chip.path)
    other.close()


def test_of_two_unknown_chips_none_is_guessed(chip: GpioSim) -> None:
    chip.close()
    one, other = GpioSim("one", label="first"), GpioSim("other", label="second")
    with pytest.raises(BoardError, match=r"there are: .*\(first\), .*\(second\)"):
        find_chip(None)
    assert find_chip("second") == str(other.path)
    one.close()
    assert find_chip(None) == str(other.path)
    other.close()
    chip.__init__()  # type: ignore[misc]  # the fixture closes it


@pytest.mark.parametrize(("active_high", "rest"), [(True, 0), (False, 1)])
def test_a_relay_does_not_click_at_the_start(chip: GpioSim, active_high: bool, rest: int) -> None:
    chip.pull(RELAY, rest)  # as the relay's own resistor does
    program = (
        "import time\nfrom doorboard.gpio import GpioRelay\n"
        f"relay = GpioRelay({RELAY}, active_high={active_high})\n"
        "time.sleep(0.05)\nrelay.close()"
    )
    assert levels(chip, RELAY, program) == [rest]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Direction and level of every request to the kernel."""
    asked: list[tuple[str, bool]] = []
    request_lines = gpiod.Chip.request_lines

    def request(self: gpiod.Chip, config: Any, **others: Any) -> gpiod.LineRequest:
        for settings in config.values():
            asked.append(
                (settings.direction.name, settings.output_value is gpiod.line.Value.ACTIVE)
            )
        return request_lines(self, config, **others)

    monkeypatch.setattr(gpiod.Chip, "request_lines", request)
    return asked


@pytest.mark.parametrize(("active_high", "rest"), [(True, 0), (False, 1)])
def test_direction_and_level_reach_the_kernel_in_one_call(
    chip: GpioSim, active_high: bool, rest: int, asked: list[tuple[str, bool]]
) -> None:
    with GpioRelay(RELAY, active_high=active_high):
        assert asked == [("OUTPUT", bool(rest))]


def test_a_relay_pulls_releases_and_keeps_its_limit(chip: GpioSim) -> None:
    with GpioRelay(RELAY, hold_limit=0.2) as relay:
        relay.energise()
        assert chip.level(RELAY) == 1
        relay.release()
        assert chip.level(RELAY) == 0
        relay.energise()
        wait_until(lambda: not chip.level(RELAY))
        assert not relay.on


@pytest.mark.parametrize("ending", ["", "os.kill(os.getpid(), 9)", "os._exit(1)", "1 / 0"])
def test_whatever_ends_the_process_releases_the_relay(chip: GpioSim, ending: str) -> None:
    program = (
        "import os, time\nfrom doorboard.gpio import GpioRelay\n"
        f"relay = GpioRelay({RELAY}, hold_limit=60)\nrelay.energise()\ntime.sleep(0.1)\n{ending}"
    )
    assert 1 in levels(chip, RELAY, program)
    assert chip.level(RELAY) == 0


@pytest.mark.parametrize(("active_high", "rest"), [(True, 0), (False, 1)])
def test_a_relay_that_a_dead_program_left_on_is_driven_to_rest(
    chip: GpioSim,
    active_high: bool,
    rest: int,
    asked: list[tuple[str, bool]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    with pytest.raises(ZeroDivisionError), noted("pinctrl-bcm2711", {RELAY: active_high}):
        raise ZeroDivisionError
    assert main() == 0
    assert asked == [("OUTPUT", bool(rest))]
    with GpioRelay(RELAY):
        pass  # and the line is free


def test_a_press_is_seen_once_and_dated_by_the_kernel(chip: GpioSim) -> None:
    seen: list[ButtonEvent] = []
    with GpioButton(BELL, debounce=0.02) as button:
        button.watch(seen.append)
        pressed = time.monotonic()
        chip.pull(BELL, 0)
        wait_until(lambda: seen)
        chip.pull(BELL, 1)
        wait_until(lambda: len(seen) == 2)
    assert kinds(seen) == ["pressed", "released"]
    assert pressed <= seen[0].at <= time.monotonic()


def test_the_kernel_debounces(chip: GpioSim) -> None:
    def bounce() -> float:
        """Press as a bad contact does; the longest that a level stayed meanwhile."""
        times = []
        for level in (0, 1) * 10 + (0,):
            chip.pull(BELL, level)
            times.append(time.monotonic())
            time.sleep(0.002)
        return max(later - sooner for sooner, later in pairwise(times))

    for _ in range(20):
        seen: list[ButtonEvent] = []
        with GpioButton(BELL, debounce=0.03) as button:
            button.watch(seen.append)
            longest = bounce()
            wait_until(lambda: seen)  # noqa: B023
            time.sleep(0.1)
        chip.pull(BELL, 1)
        if longest < 0.02:  # else a busy host held the guest up, and those were presses
            break
    assert longest < 0.02
    assert kinds(seen) == ["pressed"]


def test_a_pull_of_the_pin_makes_its_level(chip: GpioSim) -> None:
    with GpioButton(BELL), GpioContact(CONTACT, pull="down", active_high=False) as contact:
        assert chip.level(BELL) == 1
        assert chip.level(CONTACT) == 0
        assert contact.closed


def test_a_line_may_be_named_as_the_kernel_names_it(chip: GpioSim) -> None:
    seen: list[ButtonEvent] = []
    with GpioButton("BELL") as button:
        button.watch(seen.append)
        chip.pull(BELL, 0)
        wait_until(lambda: seen)
    with GpioButton("GPIO4"), GpioButton("BCM6"), GpioButton("7"):
        pass


def test_many_inputs_share_one_thread(chip: GpioSim) -> None:
    before = threading.active_count()
    buttons = [GpioButton(pin) for pin in range(10)]
    assert threading.active_count() <= before + 1
    for button in buttons:
        button.close()


def test_a_pin_in_use_names_its_user(chip: GpioSim) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import gpiod, time\n"
            f"lines = {{{RELAY}: None}}\n"
            f"held = gpiod.request_lines({str(chip.path)!r}, consumer='kettle', config=lines)\n"
            "print('held', flush=True)\ntime.sleep(3600)",
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        with pytest.raises(BoardError, match=r"relay on pin 27: .*is in use by kettle"):
            GpioRelay(RELAY)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with GpioRelay(RELAY):
        pass


def test_a_pin_beyond_the_chip_is_told_with_its_range(chip: GpioSim) -> None:
    with pytest.raises(BoardError, match=r"no pin 99 on .*it has 0 to 27"):
        GpioRelay(99)


def test_a_chip_that_may_not_be_opened_names_the_group(chip: GpioSim) -> None:
    chip.path.chmod(0o600)
    program = (
        "import os, doorboard.gpiod_factory\nfrom doorboard.gpio import GpioRelay\n"
        "os.setgid(65534); os.setuid(65534)\nGpioRelay(27)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "is the user in group gpio?" in done.stderr


def test_a_closed_pin_can_be_used_again_as_something_else(chip: GpioSim) -> None:
    for _ in range(3):
        with GpioRelay(BELL) as relay:
            relay.energise()
            assert chip.level(BELL) == 1
        seen: list[ButtonEvent] = []
        with GpioButton(BELL) as button:
            button.watch(seen.append)
            chip.pull(BELL, 0)
            wait_until(lambda: seen)  # noqa: B023
            chip.pull(BELL, 1)


def test_a_lost_edge_is_found_out(chip: GpioSim) -> None:
    seen: list[ButtonEvent] = []
    with GpioButton(BELL, debounce=0.01, hold=0.1) as button:
        button.watch(seen.append)
        chip.pull(BELL, 0)
        wait_until(lambda: seen)
        hide: Callable[[], object] = lambda: Device.pin_factory.watcher.remove(  # noqa: E731
            Device.pin_factory.pin(BELL)._request.fd
        )
        hide()
        chip.pull(BELL, 1)
        wait_until(lambda: "released" in kinds(seen))
