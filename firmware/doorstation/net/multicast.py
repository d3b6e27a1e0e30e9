"""Asking by multicast where the configuration lies; the question is `provision.multicast`'s."""

import asyncio
import contextlib
import socket
from typing import cast

from doorstation.dhcp.offered import Location
from doorstation.ids import Ids
from doorstation.provision.discovery import Placeholders
from doorstation.provision.multicast import GROUP, MOST_JITTER, PORT, ProfileQuestion

WITHIN = 5.0
"""Seconds for an answer."""


async def ask(ids: Ids, address: str, door: Placeholders) -> list[Location]:
    """Ask from this address. Raises OSError."""
    await asyncio.sleep(MOST_JITTER * ids.fraction())
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as link:
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        link.bind((address, 0))
        question = ProfileQuestion(ids, address, link.getsockname()[1], door)
        # Not by loop.sock_recvfrom and the like: they look whether it is TLS, and so load it.
        transport, asked = await loop.create_datagram_endpoint(lambda: _Asked(question), sock=link)
        try:
            with contextlib.suppress(TimeoutError):
                return [await asyncio.wait_for(asked.found, WITHIN)]
        finally:
            transport.close()
    return []


class _Asked(asyncio.DatagramProtocol):
    def __init__(self, question: ProfileQuestion) -> None:
        self._question = question
        self._transport: asyncio.DatagramTransport
        self.found: asyncio.Future[Location] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._transport.sendto(self._question.data, (GROUP, PORT))

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        if not self.found.done() and (named := self._question.received(data)):
            self._transport.sendto(named.answer, source)
            self.found.set_result(Location(named.url, f"multicast, {source[0]}"))

    def error_received(self, fault: Exception) -> None:
        if not self.found.done():
            self.found.set_exception(fault)
