"""Where servers come from when no DHCP server names any."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from doorstation.dhcp.offered import Offered
from doorstation.ids import Ids, SystemIds
from doorstation.net import dhcp
from doorstation.net.dns import Resolver
from doorstation.net.offers import Offers

from tests.support.dnsmasq import name_server

RECORDS = ("srv-host=_sip._udp.house.test,pbx.house.test,5060", "host-record=plain.test,192.0.2.7")
UP = [dhcp.Interface("eth0", bytes(6), "192.0.2.9", "")]


async def used(monkeypatch: pytest.MonkeyPatch, folder: Path, *answers: Offered) -> tuple[str, ...]:
    """The servers in the end, when DHCP answers so."""

    async def ask(interface: object, ids: object, heard: object) -> list[str]:
        for answer in answers:
            heard(answer)  # type: ignore[operator]
        return []

    monkeypatch.setattr(dhcp, "ask", ask)
    monkeypatch.setattr(dhcp, "interfaces", lambda: UP)
    found: list[tuple[str, ...]] = [()]

    async def use(servers: tuple[str, ...]) -> None:
        found.append(servers)

    async with name_server(RECORDS) as server:
        names = Resolver([server.address])
        await Offers(SystemIds(), names, lambda: True, use, folder=folder).ask()
        await names.aclose()
    return found[-1]


async def test_domain_with_srv_records_serves_where_no_server_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = Offered("10.0.0.1", domains=("house.test",))
    assert await used(monkeypatch, tmp_path, answer) == ("house.test",)


async def test_domain_that_is_only_an_address_is_any_computers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = Offered("10.0.0.1", domains=("plain.test",))
    assert await used(monkeypatch, tmp_path, answer) == ()


async def test_lease_of_the_systems_client_serves_where_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    leases = tmp_path / "run/systemd/netif/leases"
    leases.mkdir(parents=True)
    (leases / "2").write_text("SIP=10.0.0.5 10.0.0.6\n")
    assert await used(monkeypatch, tmp_path) == ("10.0.0.5", "10.0.0.6")


async def test_interface_that_goes_takes_nothing_from_what_another_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    going = dhcp.Interface("wlan0", bytes(6), "192.0.2.8", "")

    async def ask(each: dhcp.Interface, ids: Ids, heard: Callable[[Offered], None]) -> list[str]:
        if each is going:
            raise OSError(19, "No such device")
        await asyncio.sleep(0.02)
        heard(Offered("10.0.0.1", sip_servers=("10.0.0.5",)))
        return []

    found: list[tuple[str, ...]] = []

    async def use(servers: tuple[str, ...]) -> None:
        found.append(servers)

    monkeypatch.setattr(dhcp, "ask", ask)
    monkeypatch.setattr(dhcp, "interfaces", lambda: [going, *UP])
    offers = Offers(SystemIds(), Resolver(), lambda: True, use, folder=tmp_path)
    assert "DHCP: [Errno 19] No such device" in await offers.ask()
    assert set(found) == {("10.0.0.5",)}
