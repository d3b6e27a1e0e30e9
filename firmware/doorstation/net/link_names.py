"""Host names for the client that fetches files: "phone.local" is asked on the link, the rest of the
DNS.

Loaded with aiohttp, whose own resolver asks name servers for ".local", which know nothing of it.
"""

import ipaddress
import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from doorstation.ids import SystemIds
from doorstation.net import mdns


class LinkResolver(AbstractResolver):
    def __init__(self) -> None:
        self._rest: AbstractResolver = aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError."""
        if not mdns.on_link(host):
            return await self._rest.resolve(host, port, family)
        addresses = await mdns.addresses(SystemIds(), host.rstrip("."))
        if not addresses:
            raise OSError(f"nobody on the link has the name {host}")
        return [_result(host, port, address) for address in addresses]

    async def close(self) -> None:
        await self._rest.close()


def _result(host: str, port: int, address: str) -> ResolveResult:
    version = ipaddress.ip_address(address.partition("%")[0]).version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return ResolveResult(
        hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
    )
