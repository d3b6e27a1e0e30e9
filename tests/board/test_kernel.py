"""The drivers on a real kernel: its GPIO character device, its ALSA, its USB serial port.

The tests themselves are tests/support/uml/guest_*.py; each file runs in a guest of its own.
"""

import sys

import pytest

from tests.support.uml import run_guest

pytestmark = pytest.mark.kernel


def test_gpio_on_the_kernels_simulated_chip() -> None:
    run_guest("guest_gpio.py")


def test_a_door_at_rest_wakes_nobody_for_an_hour() -> None:
    run_guest("guest_idle.py", "-s")


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="lgpio has no wheel for this Python")
def test_gpio_over_lgpio_where_libgpiod_is_missing() -> None:
    run_guest("guest_lgpio.py", "-p", "c03115")


def test_sound_on_the_kernels_loopback_card() -> None:
    run_guest("guest_alsa.py", "-s")


def test_a_usb_reader_really_unplugged() -> None:
    run_guest("guest_serial.py")


def test_a_whole_door_on_real_lines_and_a_real_card() -> None:
    run_guest("guest_door.py", limit=150)
