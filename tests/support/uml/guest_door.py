"""A whole door on real drivers: GPIO lines, a sound card, a SIP phone; run inside the guest."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from doorstation.errors import TransportError
from doorstation.net.control_client import call

from tests.support.uml.gpiosim import GpioSim
from tests.support.waiting import wait_until

BELL, LED, RELAY = 17, 22, 27

DOOR = """
[sip]
port = 5062
listen = ["127.0.0.1"]

[buttons.call]
pin = 17
steps = [{ ring = ["indoor"] }]

[relays.door]
pin = 27
active_high = false
pulse = 1.0
codes = ["4711"]

[leds.status]
pin = 22

[peers.indoor]
uri = "sip:indoor@127.0.0.1:5064"

[audio]
device = "plughw:CARD=Loopback,DEV=0"
rate = 8000

[log]
events = "FOLDER/events.jsonl"

[control]
socket = "FOLDER/door.sock"
"""

PHONE = """
[board]
kind = "fake"

[sip]
user = "indoor"
port = 5064
listen = ["127.0.0.1"]

[peers.door]
uri = "sip:door@127.0.0.1:5062"

[audio]
rate = 8000
rtp_ports = "30000-30020"

[log]
events = ""

[control]
socket = "FOLDER/phone.sock"
"""


@pytest.fixture
def chip() -> Iterator[GpioSim]:
    sim = GpioSim()
    sim.pull(BELL, 1)
    sim.pull(RELAY, 1)  # an active-low relay board pulls its input up
    yield sim
    sim.close()


@dataclass(frozen=True)
class House:
    folder: Path
    stations: dict[str, "subprocess.Popen[bytes]"]

    def ask(self, name: str, command: str, **args: object) -> Any:
        return call(str(self.folder / f"{name}.sock"), command, args)

    def states(self, name: str) -> list[str]:
        return [one["state"] for one in self.ask(name, "status")["calls"]]


@pytest.fixture
def house(tmp_path: Path, chip: GpioSim) -> Iterator[House]:
    subprocess.run(["/usr/sbin/ip", "link", "set", "lo", "up"], check=True)
    made = House(tmp_path, {})
    try:
        for name, text in (("phone", PHONE), ("door", DOOR)):
            file = tmp_path / f"{name}.toml"
            file.write_text(text.replace("FOLDER", str(tmp_path)))
            command = [sys.executable, "-m", "doorstation", "run", "--config", str(file)]
            made.stations[name] = subprocess.Popen(command)
            soon(partial(answers, made, name))
        yield made
    finally:
        for station in made.stations.values():
            station.terminate()
            station.wait(20)


def soon(condition: Callable[[], object]) -> None:
    """A system call costs a hundred times as much in here."""
    wait_until(condition, seconds=40)


def answers(house: House, name: str) -> bool:
    try:
        house.ask(name, "status")
    except TransportError:
        return False
    return True


def talk(house: House, chip: GpioSim) -> None:
    """The visitor presses, the resident answers."""
    chip.pull(BELL, 0)
    soon(lambda: house.states("phone") == ["ringing"])
    chip.pull(BELL, 1)
    house.ask("phone", "answer")
    soon(lambda: house.states("door") == ["connected"])


def test_visitor_presses_resident_types_the_code_the_lock_opens_and_closes(
    house: House, chip: GpioSim
) -> None:
    assert chip.level(RELAY) == 1
    talk(house, chip)
    soon(lambda: chip.level(LED) == 1)
    soon(lambda: house.ask("door", "status")["card"] == "running")
    house.ask("phone", "dtmf", digits="1234")
    soon(lambda: "wrong" in (house.folder / "events.jsonl").read_text())
    assert chip.level(RELAY) == 1
    house.ask("phone", "dtmf", digits="4711")
    soon(lambda: chip.level(RELAY) == 0)
    soon(lambda: chip.level(RELAY) == 1)
    assert house.ask("door", "status")["relays"]["door"] == {"on": False, "pulses": 1}
    house.ask("phone", "hangup")
    soon(lambda: house.states("door") == [])
    soon(lambda: house.ask("door", "status")["card"] == "closed")


def test_a_door_that_is_killed_leaves_the_lock_closed(house: House, chip: GpioSim) -> None:
    talk(house, chip)
    house.ask("phone", "dtmf", digits="4711")
    soon(lambda: chip.level(RELAY) == 0)
    house.stations["door"].kill()
    soon(lambda: chip.level(RELAY) == 1)
