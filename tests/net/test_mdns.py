"""A real multicast DNS responder on a real link."""

import asyncio
from pathlib import Path

from doorstation.ids import SystemIds
from doorstation.net import mdns
from doorstation.net.dns import Resolver
from doorstation.sip.transport import AddressRecord, DnsAnswer, DnsQuery

from tests.support.avahi import avahi
from tests.support.lab import eventually, lab


def test_host_of_the_link_has_its_addresses_of_both_families(tmp_path: Path) -> None:
    def addresses(host: str) -> set[str]:
        return set(asyncio.run(mdns.addresses(SystemIds(), host)))

    with lab() as network:
        known = {network.address(), network.address(ipv6=True)}
        with avahi(network, tmp_path / "avahi", "office", "_door-config._tcp", 443, "path=/"):
            # A link-local address that is new cannot be asked from yet.
            eventually(lambda: addresses("OFFICE.local") == known, "both families")
            assert addresses("nobody.local") == set()


def test_only_names_of_two_labels_are_the_links() -> None:
    assert mdns.on_link("Phone.local.")
    assert mdns.on_link(f"{'a' * 63}.local")
    for other in ("local", ".local", "pbx.office.local", f"{'a' * 64}.local", "a.test", "ü.local"):
        assert not mdns.on_link(other)


def test_sip_server_of_the_link_is_found_where_the_c_library_knows_no_mdns(tmp_path: Path) -> None:
    async def found(name: str) -> list[object]:
        resolver = Resolver(hosts="/nowhere")
        answers = [await resolver.resolve(DnsQuery(kind, name)) for kind in ("A", "AAAA")]
        await resolver.aclose()
        return [answer.records for answer in answers if isinstance(answer, DnsAnswer)]

    with lab() as network:
        known = [
            (AddressRecord(network.address()),),
            (AddressRecord(network.address(ipv6=True)),),
        ]
        with avahi(network, tmp_path / "avahi", "office", "_sip._udp", 5060, "path=/"):
            eventually(lambda: asyncio.run(found("office.local")) == known, "both families")
