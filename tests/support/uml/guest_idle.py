"""What a door at rest costs: wake-ups over an hour, in simulated time, inside the guest."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doorboard.gpio import GpioButton, GpioContact, GpioIndicator, GpioRelay
from gpiozero import Device

from tests.support.uml.gpiosim import GpioSim

BELL, CONTACT, LED, RELAY = 17, 22, 5, 27


@pytest.fixture(autouse=True)
def chip() -> Iterator[GpioSim]:
    sim = GpioSim()
    yield sim
    Device.pin_factory.close()
    Device.pin_factory = None
    sim.close()


def sleeps() -> int:
    """How often this process's threads have gone to sleep of their own accord."""
    total = 0
    for task in Path("/proc/self/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def idle_sleeps(seconds: float) -> int:
    before = sleeps()
    time.sleep(seconds)
    return sleeps() - before


def test_nothing_wakes_while_nothing_happens() -> None:
    with (
        GpioButton(BELL),
        GpioContact(CONTACT),
        GpioRelay(RELAY) as relay,
        GpioIndicator(LED) as led,
    ):
        relay.energise()
        relay.release()
        led.show("idle")
        time.sleep(15)  # the alarm of the pulse that was taken back
        assert idle_sleeps(3600) <= 2  # the test's own


def test_a_blinking_led_wakes_at_its_changes_only() -> None:
    with GpioIndicator(LED) as led:
        led.show("registering")
        assert idle_sleeps(20) <= 2 + 2 * 21
