"""DNS-SD (RFC 6763) on the domain that the network names: `_door-config._tcp`, by unicast DNS."""

from collections.abc import Sequence
from typing import Any

from doorstation.dhcp.offered import Location

SERVICE = "_door-config._tcp"
WITHIN = 5.0
MOST = 4
"""Instances looked at."""


async def ask(domain: str, nameservers: Sequence[str] = ()) -> list[Location]:
    """The addresses of the instances that the domain's DNS lists. `nameservers`: instead of the
    system's."""
    import aiodns

    resolver = aiodns.DNSResolver(
        nameservers=list(nameservers) or None, timeout=WITHIN / 3, tries=2
    )

    async def query(name: str, kind: str) -> list[Any]:
        try:
            found = await resolver.query_dns(name, kind)
        except (aiodns.error.DNSError, UnicodeError):
            return []
        return [each.data for each in found.answer]

    places = []
    try:
        for pointer in (await query(f"{SERVICE}.{domain}", "PTR"))[:MOST]:
            services = [each for each in await query(pointer.dname, "SRV") if hasattr(each, "port")]
            texts = [each.data for each in await query(pointer.dname, "TXT")]
            texts = [each.encode() if isinstance(each, str) else each for each in texts]
            path = next((each[5:] for each in texts if each[:5].lower() == b"path="), b"/")
            for service in services[:1]:
                host = service.target.rstrip(".")
                where = path.decode("ascii", "replace").lstrip("/")
                places.append(Location(f"https://{host}:{service.port}/{where}", "dns-sd"))
    finally:
        await resolver.close()
    return places
