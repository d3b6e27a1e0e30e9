"""Relays that a dead program left on; that the service does so is in tests/test_deploy.py."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doorboard import rest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory


@pytest.fixture(autouse=True)
def pins() -> Iterator[Any]:
    before, Device.pin_factory = Device.pin_factory, MockFactory()
    yield Device.pin_factory
    Device.pin_factory.reset()
    Device.pin_factory = before


@pytest.fixture(autouse=True)
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}:/run/another")
    return tmp_path / "relays.json"


def test_a_relay_that_cannot_be_reached_holds_no_other(
    note: Path, pins: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt), rest.noted(None, {99: True, 27: False}):
        raise KeyboardInterrupt
    assert rest.main() == 1
    assert pins.pin(27).states[-1].state == 1
    assert "relay on pin 99" in capsys.readouterr().err


def test_what_was_closed_in_order_is_left_alone(note: Path, pins: Any) -> None:
    with rest.noted("pinctrl-bcm2711", {27: True}):
        assert json.loads(note.read_text()) == {"chip": "pinctrl-bcm2711", "relays": [[27, True]]}
    assert not note.exists()
    assert rest.main() == 0
    assert not pins.pins


def test_without_a_service_nothing_is_noted(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    with rest.noted(None, {27: True}):
        assert not note.exists()
    assert rest.main() == 0


def test_a_note_that_cannot_be_written_keeps_no_door_shut(
    note: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(note / "nowhere"))
    with rest.noted(None, {27: True}):
        assert "stay as they are" in caplog.text
