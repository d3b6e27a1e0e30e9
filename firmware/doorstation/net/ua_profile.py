"""Asking a network for its `ua-profile`; the question is `provision.ua_profile`'s."""

import asyncio
import contextlib
import socket

from doorstation.dhcp.offered import Location
from doorstation.ids import Ids
from doorstation.net.datagrams import receive
from doorstation.provision.discovery import Placeholders
from doorstation.provision.ua_profile import GROUP, MOST_JITTER, PORT, ProfileQuestion

WITHIN = 5.0
"""Seconds for an answer."""


async def ask(ids: Ids, address: str, door: Placeholders) -> list[Location]:
    """Ask from this address. Raises OSError."""
    await asyncio.sleep(MOST_JITTER * ids.fraction())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as link:
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        link.bind((address, 0))
        question = ProfileQuestion(ids, address, link.getsockname()[1], door)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WITHIN):
                link.sendto(question.data, (GROUP, PORT))
                while True:
                    data, source = await receive(link, 65536)
                    if named := question.received(data):
                        link.sendto(named.answer, source)
                        return [Location(named.url, f"multicast, {source[0]}")]
    return []
