"""The door and its registrar: a Kamailio that is there, refuses, dies, and comes back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.stories.conftest import USERS
from tests.support.lab import Lab, eventually
from tests.support.peers import Kamailio, kamailio
from tests.support.station import account, station

Transport = Literal["udp", "tcp", "tls"]


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_the_door_registers_and_leaves_no_binding_behind_when_it_stops(
    town: Lab, proxy: Kamailio, tmp_path: Path, transport: Transport
) -> None:
    with station(town, tmp_path, account(proxy, transport)) as door:
        door.wait_registered()
        contacts = proxy.contacts("door")
        assert len(contacts) == 1
        assert contacts[0].startswith(f"sip:door@{door.address}:")
        assert door.stop() == 0
        assert proxy.contacts("door") == []


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_the_door_proves_its_password_by_sha_256(
    town: Lab, tmp_path: Path, transport: Transport
) -> None:
    with (
        kamailio(town, tmp_path / "proxy", USERS, algorithm="SHA-256") as proxy,
        station(town, tmp_path / "door", account(proxy, transport)) as door,
    ):
        door.wait_registered()
        assert "algorithm=SHA-256" in door.process.log_text()
        assert len(proxy.contacts("door")) == 1


def test_a_wrong_password_is_said_clearly_and_not_repeated(
    town: Lab, proxy: Kamailio, tmp_path: Path
) -> None:
    settings = {**account(proxy), "account.password": "not-it"}
    with station(town, tmp_path, settings) as door:
        found = door.wait_registration("refused")
        assert "password" in found["why"]
        event = door.wait_event("registration", registered=False)
        assert "password" in event["why"]
        assert door.status()["leds"]["status"]["pattern"] == "fault"
        assert door.process.log_text().count("REGISTER sip:") == 2
        assert "not-it" not in door.process.log_text() + door.events_file.read_text()


def test_a_registrar_that_died_and_came_back_has_the_door_again(town: Lab, tmp_path: Path) -> None:
    with kamailio(town, tmp_path / "proxy", USERS) as first:
        settings = {**account(first), "sip.keep_alive": 1}
        with station(town, tmp_path / "door", settings) as door:
            door.wait_registered()
            first.stop()
            door.wait_registration("retrying")
            door.wait_event("registration", registered=False)
            with kamailio(town, tmp_path / "proxy", USERS, address=first.address) as second:
                second.wait_registered("door", 20)
                door.wait_registered()
                door.wait_event("registration", registered=True)


def test_a_registrar_that_lost_its_connection_has_the_door_again(town: Lab, tmp_path: Path) -> None:
    with (
        kamailio(town, tmp_path / "proxy", USERS) as first,
        station(town, tmp_path / "door", account(first, "tcp")) as door,
    ):
        door.wait_registered()
        first.stop()
        door.wait_registration("retrying")
        with kamailio(town, tmp_path / "proxy", USERS, address=first.address) as second:
            second.wait_registered("door", 20)
            door.wait_registered()


def test_the_owner_unregisters_and_registers_by_hand(
    town: Lab, proxy: Kamailio, tmp_path: Path
) -> None:
    with station(town, tmp_path, account(proxy)) as door:
        door.wait_registered()
        assert door.ctl("unregister").returncode == 0
        eventually(lambda: proxy.contacts("door") == [], "no binding left")
        assert door.status()["registration"]["state"] == "off"
        assert door.ctl("unregister").returncode == 0, "it is so already"
        assert door.ctl("register").returncode == 0
        assert len(proxy.contacts("door")) == 1
        assert door.ctl("register").returncode == 0, "again, though nothing changes"


def test_the_door_tries_the_backup_registrar_when_the_first_is_dead(
    town: Lab, proxy: Kamailio, tmp_path: Path
) -> None:
    dead = town.address()
    settings: Mapping[str, Any] = {
        **account(proxy),
        "account.registrar": dead,
        "account.backup_registrar": proxy.address,
    }
    with station(town, tmp_path, settings) as door:
        door.wait_registered()
        assert len(proxy.contacts("door")) == 1
        assert proxy.address in door.status()["registration"]["registrar"]
