"""A TLS listener for a page that few need: what strangers hold of it is little, and not for long.

asyncio's own servers take as many connections as come, and each may wait a minute before its
handshake: one host could hold every descriptor that the door has, and no call would get sockets.
"""

import asyncio
import contextlib
import gc
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

from doorstation.net.sockets import NO_IPV6

if TYPE_CHECKING:
    import ssl

MOST: Final = 16
"""Connections at a time on each family; the one that is there for longest makes room."""
LONGEST: Final = 30.0
"""Seconds that a connection lasts, whatever it does."""
HANDSHAKE: Final = 5.0
"""Seconds."""
_LINGER: Final = 1.0
# As in `sockets`: what a failed handshake leaves behind, the collector finds far too seldom.
_COLLECT_EVERY: Final = 16


@contextlib.asynccontextmanager
async def listening(
    port: int, protocol: Callable[[], asyncio.Protocol], context: "ssl.SSLContext"
) -> AsyncIterator[None]:
    """Serve on every address; at the end every connection is cut. Raises OSError."""
    listeners = _bound(port)
    async with asyncio.TaskGroup() as group:
        accepting = [group.create_task(_accept(each, protocol, context)) for each in listeners]
        try:
            yield
        finally:
            for task in accepting:
                task.cancel()


def _bound(port: int) -> list[socket.socket]:
    found: list[socket.socket] = []
    for family, host in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
        try:
            listener = socket.create_server((host, port), family=family)
        except OSError as fault:
            if family == socket.AF_INET6 and fault.errno in NO_IPV6:
                continue
            for each in found:
                each.close()
            raise
        listener.setblocking(False)
        found.append(listener)
    return found


async def _accept(
    listener: socket.socket, protocol: Callable[[], asyncio.Protocol], context: "ssl.SSLContext"
) -> None:
    loop = asyncio.get_running_loop()
    visits: deque[asyncio.Task[None]] = deque()
    count = 0
    with listener:
        try:
            while True:
                try:
                    made, _ = await loop.sock_accept(listener)
                except OSError:  # out of descriptors: it stays readable, so rest
                    await asyncio.sleep(1.0)
                    continue
                visits.append(loop.create_task(_visit(made, protocol, context)))
                await asyncio.sleep(0)  # in its first step the socket becomes a transport's
                if len(visits) > MOST:
                    oldest = visits.popleft()
                    oldest.cancel()
                    await asyncio.wait([oldest])
                count += 1
                if count % _COLLECT_EVERY == 0:
                    gc.collect()
        finally:
            for visit in visits:
                visit.cancel()
            await asyncio.gather(*visits, return_exceptions=True)


async def _visit(
    made: socket.socket, protocol: Callable[[], asyncio.Protocol], context: "ssl.SSLContext"
) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):  # no handshake, or none in time
        transport, _ = await loop.connect_accepted_socket(
            protocol,
            made,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE,
            ssl_shutdown_timeout=_LINGER,
        )
        try:
            await asyncio.sleep(LONGEST)
        finally:
            # One that was closed twice is nobody's any more in Python 3.11.2: abort raises then.
            if not transport.is_closing():
                transport.abort()
