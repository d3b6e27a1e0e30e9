"""DHCP questions on a real network, beside whoever holds port 68."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from doorstation.dhcp.offered import Offered
from doorstation.ids import SystemIds
from doorstation.net import dhcp

from tests.support.dhcp import dhcp_server, kea, network_manager
from tests.support.lab import Lab
from tests.support.lab import lab as network


@pytest.fixture
def lab() -> Iterator[Lab]:
    with network() as made:
        yield made


def interface(lab: Lab) -> dhcp.Interface:
    (found,) = (one for one in dhcp.interfaces() if one.name == lab.interface)
    return found


async def asked(lab: Lab, *, both: bool = False) -> dict[bool, Offered]:
    """The answers up to the one by DHCPv4, or one of each; by whether they came by DHCPv6."""
    found: dict[bool, Offered] = {}
    enough = asyncio.Event()

    def heard(offered: Offered) -> None:
        found[":" in offered.server] = offered
        if False in found and (True in found or not both):
            enough.set()

    asking = asyncio.create_task(dhcp.ask(interface(lab), SystemIds(), heard))
    await asyncio.wait_for(enough.wait(), 10)
    asking.cancel()
    return found


def test_interface_is_known_with_its_addresses(lab: Lab) -> None:
    found = interface(lab)
    assert found.address == lab.station
    assert found.link_local.startswith("fe80::")
    assert len(found.mac) == 6


def test_loopback_is_no_interface_to_ask_on() -> None:
    assert "lo" not in [one.name for one in dhcp.interfaces()]


async def test_options_of_both_versions_are_found(lab: Lab, tmp_path: Path) -> None:
    with dhcp_server(
        lab, tmp_path,
        "dhcp-option-force=120,sip1.example.test,sip2.example.test",
        "dhcp-option-force=66,conf.example.test", "dhcp-option-force=67,door.json",
        "dhcp-option-force=160,https://conf.example.test/door",
        "dhcp-option=option:ntp-server,10.0.0.7", "dhcp-option=option:domain-name,example.test",
        "dhcp-option=option6:sip-server-domain,sip.example.test",
        "dhcp-option=option6:sip-server,[fd77::1]",
    ):  # fmt: skip
        found = await asked(lab, both=True)
    four, six = found[False], found[True]
    assert four.faults == ()
    assert four.sip_servers == ("sip1.example.test", "sip2.example.test")
    assert [place.url for place in four.locations] == [
        "https://conf.example.test/door",
        "tftp://conf.example.test/door.json",
    ]
    assert (four.ntp_servers, four.domains) == (("10.0.0.7",), ("example.test",))
    assert six.sip_servers == ("sip.example.test", "fd77::1")


async def test_option_120_as_addresses(lab: Lab, tmp_path: Path) -> None:
    with dhcp_server(lab, tmp_path, "dhcp-option-force=120,10.0.0.5,10.0.0.6"):
        found = await asked(lab)
    assert found[False].sip_servers == ("10.0.0.5", "10.0.0.6")


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        ("120,02:aa", "option 120: encoding 2: 0 (names) and 1 (addresses) exist"),
        ("120,00:04:73", "option 120: byte 0: the label is cut off"),
        ("120,00:c0:00", "option 120: byte 0: the pointer leads in a circle"),
        ("120,01:0a:00", "option 120: 2 bytes are no list of IPv4 addresses"),
        ("160,00:00", "option 160: empty"),
    ],
)
async def test_fault_of_an_option_is_named_and_the_rest_is_used(
    lab: Lab, tmp_path: Path, option: str, fault: str
) -> None:
    with dhcp_server(
        lab, tmp_path, f"dhcp-option-force={option}", "dhcp-option=option:domain-name,example.test"
    ):
        found = await asked(lab)
    assert found[False].faults == (fault,)
    assert found[False].domains == ("example.test",)


async def test_answer_comes_beside_a_client_that_holds_its_port_and_is_connected(
    lab: Lab, tmp_path: Path
) -> None:
    """As NetworkManager does: no other socket on port 68 gets an answer then."""
    with (
        dhcp_server(lab, tmp_path, "dhcp-option-force=120,10.0.0.5") as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        theirs.bind((lab.station, 68))
        theirs.connect((lab.run("hostname", "-I").split()[0], 67))
        found = await asked(lab)
        assert server.returncode is None
    assert found[False].sip_servers == ("10.0.0.5",)


async def test_question_that_is_given_up_leaves_no_socket_and_no_timer(lab: Lab) -> None:
    task = asyncio.create_task(dhcp.ask(interface(lab), SystemIds(), lambda offered: None))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("data", "servers"),
    [
        ("00 04 73697031 07 6578616d706c65 04 74657374 00", ("sip1.example.test",)),
        ("01 0a000005 0a000006", ("10.0.0.5", "10.0.0.6")),
    ],
    ids=["names", "addresses"],
)
async def test_kea_answers_with_both_encodings(
    lab: Lab, tmp_path: Path, data: str, servers: tuple[str, ...]
) -> None:
    option = {"code": 120, "csv-format": False, "data": data.replace(" ", ""), "always-send": True}
    with kea(lab, tmp_path, lab.address(), option):
        found = await asked(lab)
    assert found[False].sip_servers == servers


@pytest.mark.parametrize("client", ["dhclient", "dhcpcd"])
async def test_answer_comes_beside_the_systems_own_client(
    lab: Lab, tmp_path: Path, client: str
) -> None:
    """Each on the interface that is asked on, with a lease of the same server."""
    own = tmp_path / "dhclient.conf"
    own.write_text("request subnet-mask;\n")
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    commands = {
        "dhclient": (
            "/usr/sbin/dhclient", "-4", "-d", "-cf", str(own), "-sf", str(script),
            "-lf", str(tmp_path / "leases.client"), "-pf", str(tmp_path / "pid"), lab.interface,
        ),
        # It keeps leases and sockets in folders of the system's own.
        "dhcpcd": (
            "unshare", "--mount", "sh", "-c",
            'mount -t tmpfs none /var/lib/dhcpcd; mount -t tmpfs none /run; exec "$@"', "sh",
            "/usr/sbin/dhcpcd", "-4", "-B", "-f", "/dev/null", "-c", str(script), "-G", "-A",
            "--noalias", lab.interface,
        ),
    }  # fmt: skip
    bound = {"dhclient": "bound to", "dhcpcd": "leased"}
    with (
        dhcp_server(lab, tmp_path, "dhcp-option-force=120,10.0.0.5"),
        lab.program(*commands[client], directory=tmp_path, log="client.log", here=True) as theirs,
    ):
        await asyncio.to_thread(
            theirs.ready, lambda: bound[client] in theirs.log_text(), "has a lease", 20
        )
        found = await asked(lab)
    assert found[False].sip_servers == ("10.0.0.5",)


async def test_answer_comes_beside_network_manager(lab: Lab, tmp_path: Path) -> None:
    """Which gave the interface its address, and holds port 68 by a socket that is connected."""
    with (
        dhcp_server(lab, tmp_path, "dhcp-option-force=120,10.0.0.5"),
        contextlib.ExitStack() as end,
    ):
        await asyncio.to_thread(end.enter_context, network_manager(lab, tmp_path))
        assert int(interface(lab).address.rpartition(".")[2]) >= 200
        found = await asked(lab)
    assert found[False].sip_servers == ("10.0.0.5",)
