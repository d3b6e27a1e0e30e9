"""Multicast DNS on each link of the door; the questions are `provision.mdns`'s."""

import asyncio
import contextlib
import ipaddress
import socket
from typing import Final

import msgspec

from doorstation.ids import Ids
from doorstation.net import dhcp
from doorstation.net.datagrams import receive
from doorstation.provision.mdns import (
    AAAA,
    GROUP,
    GROUP_6,
    MAX_LABEL,
    MAX_MESSAGE,
    PORT,
    SETTLED,
    A,
    LinkQuestion,
)

_HOPS: Final = 255  # RFC 6762 11


def on_link(host: str) -> bool:
    """Whether a name is one of the link's own, "phone.local". A longer one, "pbx.office.local", is
    its name servers', as many an office has it."""
    label, _, rest = host.rstrip(".").lower().partition(".")
    return rest == "local" and label.isascii() and 0 < len(label) <= MAX_LABEL


async def ask(ids: Ids, name: str, kind: int) -> list[LinkQuestion]:
    """Ask on every link, by IPv4 and IPv6 at the same time; the questions with their answers."""
    links = _links()
    return await asyncio.gather(*(link.ask(ids, name, kind) for link in links))


async def addresses(ids: Ids, host: str) -> list[str]:
    """The addresses of a host of ".local", of both families and on every link."""
    asking = [asyncio.create_task(link.addresses(ids, host)) for link in _links()]
    try:
        for next_one in asyncio.as_completed(asking):
            if await next_one:
                break
        if asking:
            # All were asked at the same time: who has not answered by now hardly will.
            await asyncio.wait(asking, timeout=SETTLED)
        return [address for task in asking if task.done() for address in task.result()]
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


class _Link(msgspec.Struct, frozen=True):
    """An interface and a family."""

    interface: str
    address: str
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]

    @property
    def ipv6(self) -> bool:
        return ":" in self.address

    async def ask(self, ids: Ids, name: str, kind: int) -> LinkQuestion:
        loop = asyncio.get_running_loop()
        question = LinkQuestion(ids, name, kind, self.networks, loop.time())
        group = GROUP_6 if self.ipv6 else GROUP
        # An interface that is just going has nobody on it.
        with contextlib.suppress(OSError), self._socket() as link:
            outputs: list[bytes] = []
            while (deadline := question.deadline) is not None:
                for data in outputs:
                    link.sendto(data, (group, PORT))
                try:
                    async with asyncio.timeout_at(deadline):
                        data, source = await receive(link, MAX_MESSAGE + 1)
                except TimeoutError:
                    outputs = question.timer_fired(max(deadline, loop.time()))
                else:
                    outputs = question.received(data, source[0], source[1], loop.time())
        return question

    async def addresses(self, ids: Ids, host: str) -> list[str]:
        """Those of this family; link-local ones with the interface."""
        asked = await self.ask(ids, host, AAAA if self.ipv6 else A)
        found = [each for each in asked.values if isinstance(each, str)]
        return [f"{each}%{self.interface}" if each.startswith("fe80") else each for each in found]

    def _socket(self) -> socket.socket:
        """One for this link alone. Raises OSError."""
        family = socket.AF_INET6 if self.ipv6 else socket.AF_INET
        link = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode())
            if self.ipv6:
                link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
                link.bind((self.address, 0, 0, socket.if_nametoindex(self.interface)))
            else:
                link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _HOPS)
                link.bind((self.address, 0))
        except OSError:
            link.close()
            raise
        return link


def _links() -> list[_Link]:
    found = []
    for each in dhcp.interfaces():
        networks = tuple(map(ipaddress.ip_network, each.networks))
        addresses = filter(None, (each.address, each.link_local))
        found += [_Link(each.name, address, networks) for address in addresses]
    return found
