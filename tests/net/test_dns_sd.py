"""DNS-SD of a real name server."""

import asyncio
import struct
from typing import Any, cast

import pytest
from doorstation.net import dns_sd

from tests.support.dnsmasq import name_server

RECORDS = (
    "ptr-record=_door-config._tcp.house.test,office._door-config._tcp.house.test",
    "srv-host=office._door-config._tcp.house.test,conf.house.test,8443",
    "txt-record=office._door-config._tcp.house.test,path=/doors/{mac}.jws",
)


async def test_instance_of_the_domain_is_a_place_with_its_port_and_path() -> None:
    async with name_server(RECORDS) as names:
        [place] = await dns_sd.ask("house.test", [names.address])
    assert place.url == "https://conf.house.test:8443/doors/{mac}.jws"


@pytest.mark.parametrize("domain", ["other.test", "x" * 300, "a..b", "\udcff.test"])
async def test_domain_that_has_none_or_is_none_gives_no_place(domain: str) -> None:
    async with name_server(RECORDS) as names:
        assert await dns_sd.ask(domain, [names.address]) == []


class Wildcard(asyncio.DatagramProtocol):
    """A zone with `* CNAME www`, as many companies have: whatever is asked for leads there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, source: tuple[Any, ...]) -> None:
        question = data[12 : data.index(b"\0", 12) + 5]
        target = b"\3www\5house\4test\0"
        alias = b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, len(target)) + target
        head = data[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0)
        self._transport.sendto(head + question + alias, source)


async def test_domain_whose_names_all_lead_elsewhere_gives_no_place() -> None:
    made = asyncio.get_running_loop().create_datagram_endpoint(
        Wildcard, local_addr=("127.0.0.1", 0)
    )
    transport, _ = await made
    try:
        port = transport.get_extra_info("sockname")[1]
        assert await dns_sd.ask("house.test", [f"127.0.0.1:{port}"]) == []
    finally:
        transport.close()
