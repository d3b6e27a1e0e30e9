"""A door some of whose pins another program has; they are gpiozero's mock ones."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.lab import Lab
from tests.support.peers import baresip
from tests.support.station import CODE, station

PINS: Mapping[str, Any] = {
    "board.kind": "pi",
    "buttons.call.pin": 17,
    "buttons.call.steps": [{"ring": ["indoor"]}],
    "relays.door.pin": 27,
    "leds.status": {"pin": 22},
    "audio.device": "plughw:Nowhere",
}


def in_use(folder: Path, *pins: int) -> dict[str, str]:
    """The environment of a program that finds these pins in use."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from gpiozero import Device, OutputDevice\n"
        "from gpiozero.pins.mock import MockFactory\n"
        "Device.pin_factory = MockFactory()\n"
        f"kettle = [OutputDevice(pin) for pin in {pins}]\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def test_a_door_without_its_button_and_its_lamp_talks_and_opens_and_tells_of_it(
    town: Lab, tmp_path: Path
) -> None:
    with baresip(town, tmp_path / "indoor", "indoor") as phone:
        settings = {**PINS, "leds.second": {"pin": 5}, "peers.indoor.uri": phone.uri}
        kettle = in_use(tmp_path / "kettle", 17, 22)
        with station(town, tmp_path / "door", settings, environment=kettle) as door:
            assert door.wait_event("part_missing", part="button call")["why"].startswith(
                "button on pin 17: "
            )
            door.wait_event("part_missing", part="LED status")
            assert "already in use" in door.status()["faults"][0]
            assert door.status()["leds"] == {"second": {"pattern": "fault"}}
            door.command("call", uri="indoor")
            door.wait_call("connected")
            phone.send_digits(CODE)
            door.wait_event("release", relay="door")
            phone.hangup()
            door.wait_idle()


def test_a_door_without_its_relay_rings_and_says_that_it_does_not_open(
    town: Lab, tmp_path: Path
) -> None:
    with baresip(town, tmp_path / "indoor", "indoor") as phone:
        settings = {**PINS, "peers.indoor.uri": phone.uri}
        kettle = in_use(tmp_path / "kettle", 27)
        with station(town, tmp_path / "door", settings, environment=kettle) as door:
            door.wait_event("part_missing", part="relay door")
            door.press()
            door.wait_call("connected")
            phone.send_digits(CODE)
            door.wait_event("relay_fault", relay="door", why="it is missing")
            assert door.new_events("release") == []
            phone.hangup()
            door.wait_idle()


def test_a_change_to_a_pin_in_use_goes_back_with_the_reason(town: Lab, tmp_path: Path) -> None:
    settings = {
        **PINS,
        "peers.indoor.uri": "sip:198.51.100.1",
        "provisioning.state": str(tmp_path / "state"),
    }
    kettle = in_use(tmp_path / "kettle", 5)
    with station(town, tmp_path / "door", settings, environment=kettle) as door:
        done = door.config("set", "leds.status.pin=5")
        assert done.returncode == 1
        assert "rolled back: LED on pin 5: " in done.stderr
        assert "LED" not in str(door.status()["faults"])
        assert door.config("set", "leds.status.pin=7").returncode == 0
