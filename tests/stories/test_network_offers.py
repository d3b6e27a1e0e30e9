"""A door with user and password only finds its servers by itself, whatever the network has."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.dhcp import dhcp_server
from tests.support.lab import Lab, lab
from tests.support.peers import kamailio
from tests.support.station import station

PASSWORD = "secret-of-the-door"
BARE = {"account.user": "door", "account.password": PASSWORD}
USERS = {"door": PASSWORD, "phone": "other"}


@pytest.fixture
def network() -> Iterator[Lab]:
    with lab() as made:
        yield made


def test_user_password_and_option_120_are_enough(network: Lab, tmp_path: Path) -> None:
    address = network.address()
    with (
        kamailio(network, tmp_path / "pbx", USERS, domain=address, address=address) as pbx,
        dhcp_server(network, tmp_path, f"dhcp-option-force=120,{address}"),
        station(network, tmp_path / "door", BARE) as door,
    ):
        pbx.wait_registered("door")
        door.wait_event("registration", registered=True)


def test_second_server_of_option_120_takes_over_from_a_dead_first(
    network: Lab, tmp_path: Path
) -> None:
    dead, address = network.address(), network.address()
    with (
        kamailio(network, tmp_path / "pbx", USERS, domain=dead, address=address) as pbx,
        dhcp_server(network, tmp_path, f"dhcp-option-force=120,{dead},{address}"),
        station(network, tmp_path / "door", {**BARE, "sip.t1": 0.1}) as door,
    ):
        pbx.wait_registered("door", 20)
        door.wait_event("registration", registered=True)


def test_other_servers_after_a_change_of_the_network_are_registered_at(
    network: Lab, tmp_path: Path
) -> None:
    first, second = network.address(), network.address()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with (
        kamailio(network, tmp_path / "one", USERS, domain=first, address=first) as one,
        kamailio(network, tmp_path / "two", USERS, domain=second, address=second) as two,
        ExitStack() as offers,
    ):
        offers.enter_context(dhcp_server(network, tmp_path / "a", f"dhcp-option-force=120,{first}"))
        with station(network, tmp_path / "door", BARE):
            one.wait_registered("door")
            offers.close()
            offers.enter_context(
                dhcp_server(network, tmp_path / "b", f"dhcp-option-force=120,{second}")
            )
            network.cut()
            network.mend()
            two.wait_registered("door", 20)


def test_domain_that_is_set_is_not_overruled_by_the_network(network: Lab, tmp_path: Path) -> None:
    address, rogue = network.address(), network.address()
    with (
        kamailio(network, tmp_path / "pbx", USERS, domain=address, address=address),
        dhcp_server(network, tmp_path, f"dhcp-option-force=120,{rogue}"),
        station(network, tmp_path / "door", {**BARE, "account.domain": address}) as door,
    ):
        door.wait_registered()
        assert "SIP servers" not in door.process.log_text()
