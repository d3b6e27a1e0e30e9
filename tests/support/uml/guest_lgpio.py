"""The GPIO drivers over gpiozero's lgpio factory, where libgpiod is missing; in the guest."""

import sys
from collections.abc import Iterator

import pytest
from gpiozero import Device

from tests.support.uml.gpiosim import GpioSim
from tests.support.waiting import wait_until

BELL, RELAY = 17, 27


@pytest.fixture
def chip(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[GpioSim]:
    monkeypatch.setenv("LG_WD", str(tmp_path))  # lgpio makes a FIFO in its working folder
    monkeypatch.setitem(sys.modules, "gpiod", None)
    monkeypatch.delitem(sys.modules, "doorboard.gpiod_factory", raising=False)
    sim = GpioSim()
    for line in range(28):
        sim.pull(line, 1)
    yield sim
    if Device.pin_factory is not None:
        Device.pin_factory.close()
        Device.pin_factory = None


def test_without_libgpiod_lgpio_serves_and_an_active_low_relay_does_not_click(
    chip: GpioSim,
) -> None:
    import lgpio
    from doorboard.gpio import GpioButton, GpioRelay, ensure_pin_factory
    from doorboard.interfaces import ButtonEvent

    claims: list[tuple[int, ...]] = []
    real = lgpio.gpio_claim_output

    def claim(handle: int, *args: int) -> int:
        claims.append(args)
        return int(real(handle, *args))

    lgpio.gpio_claim_output = claim
    try:
        assert type(ensure_pin_factory()).__name__ == "LGPIOFactory"
        with GpioRelay(RELAY, active_high=False) as relay:
            assert claims == [(RELAY, 1)]
            assert chip.level(RELAY) == 1
            relay.energise()
            assert chip.level(RELAY) == 0
            relay.release()
            assert chip.level(RELAY) == 1
    finally:
        lgpio.gpio_claim_output = real
    seen: list[ButtonEvent] = []
    with GpioButton(BELL, debounce=0.02) as button:
        button.watch(seen.append)
        for _ in range(5):
            chip.pull(BELL, 0)
            chip.pull(BELL, 1)
        chip.pull(BELL, 0)
        wait_until(lambda: seen)
        chip.pull(BELL, 1)
        wait_until(lambda: len(seen) == 2)
    assert [event.kind for event in seen] == ["pressed", "released"]
