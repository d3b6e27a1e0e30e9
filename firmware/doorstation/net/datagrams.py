"""Receiving by a socket of one's own."""

import asyncio
import contextlib
import socket
from typing import Any


async def receive(link: socket.socket, size: int) -> tuple[bytes, Any]:
    """(data, source) of the next datagram. Raises OSError.

    The loop's own `sock_recvfrom` and its kin look whether the socket is of TLS, and so load it.
    """
    loop = asyncio.get_running_loop()
    while True:
        readable = loop.create_future()
        loop.add_reader(link, _settle, readable)
        try:
            await readable
        finally:
            loop.remove_reader(link)
        with contextlib.suppress(BlockingIOError):  # its checksum was wrong
            return link.recvfrom(size)


def _settle(readable: "asyncio.Future[None]") -> None:
    # Whoever waits may have been told to stop in the same turn of the loop.
    if not readable.done():
        readable.set_result(None)
