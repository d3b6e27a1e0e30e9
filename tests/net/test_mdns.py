"""A real multicast DNS responder on a real link."""

import asyncio
from pathlib import Path

from doorstation.ids import SystemIds
from doorstation.net import mdns

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
