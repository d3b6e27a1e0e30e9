"""DNS-SD of a real name server."""

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
