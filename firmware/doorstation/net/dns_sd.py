"""DNS-SD (RFC 6763): `_door-config._tcp`, by unicast DNS in the domain that the network names, and
by multicast DNS on the door's own link."""

from collections.abc import Iterable, Sequence
from typing import Any

from doorstation.dhcp.offered import Location
from doorstation.ids import Ids
from doorstation.net import mdns
from doorstation.provision.mdns import PTR, SRV, TXT

SERVICE = "_door-config._tcp"
WITHIN = 5.0
MOST = 4
"""Instances looked at."""

_TYPES = {"PTR": PTR, "SRV": SRV, "TXT": TXT}


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
        # A zone may lead every name elsewhere (`* CNAME`): that is in the answer too, or all of it.
        return [each.data for each in found.answer if each.type == _TYPES[kind]]

    places = []
    try:
        for pointer in (await query(f"{SERVICE}.{domain}", "PTR"))[:MOST]:
            services = await query(pointer.dname, "SRV")
            texts = [each.data for each in await query(pointer.dname, "TXT")]
            texts = [each.encode() if isinstance(each, str) else each for each in texts]
            for service in services[:1]:
                # pycares hands bytes out where a zone has other than ASCII in it.
                if isinstance(service.target, str):
                    places.append(_place(service.target.rstrip("."), service.port, texts, "dns-sd"))
    finally:
        await resolver.close()
    return places


async def ask_link(ids: Ids) -> list[Location]:
    """The addresses of the instances that somebody on the door's link names."""
    asked = await mdns.ask(ids, f"{SERVICE}.local", PTR)
    found = dict.fromkeys(each for question in asked for each in question.services)
    return [_place(service.host, service.port, texts, "mdns") for service, texts in found]


def _place(host: str, port: int, texts: Iterable[bytes], option: str) -> Location:
    path = next((each[5:] for each in texts if each[:5].lower() == b"path="), b"/")
    where = path.decode("ascii", "replace").lstrip("/")
    return Location(f"https://{host}:{port}/{where}", option)
