"""Reading a file by TFTP; the rules are `provision.tftp`'s."""

import asyncio
import socket
from typing import Any, cast

from doorstation.ids import SystemIds
from doorstation.net import mdns
from doorstation.provision.tftp import Done, Failed, Output, Place, Read, Send


async def read(place: Place, limit: int, addresses: list[str]) -> bytes | Failed:
    """A file of at most `limit` bytes; the server's address is added to `addresses`.

    Raises OSError: there is no way to it.
    """
    loop = asyncio.get_running_loop()
    host = place.host
    if mdns.on_link(host):  # which the C library of many a system cannot ask
        host = next(iter(await mdns.addresses(SystemIds(), host)), host)
    found = await loop.getaddrinfo(host, place.port, type=socket.SOCK_DGRAM)
    family, *_, server = found[0]
    addresses.append(str(server[0]))
    rules = Read(place.name, place.port, limit)
    any_address = "::" if family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104 - the route decides
    transport, transfer = await loop.create_datagram_endpoint(
        lambda: _Transfer(rules, server), local_addr=(any_address, 0)
    )
    try:
        return await transfer.over
    finally:
        transport.close()


class _Transfer(asyncio.DatagramProtocol):
    def __init__(self, rules: Read, server: tuple[Any, ...]) -> None:
        self._rules = rules
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.DatagramTransport
        self.over: asyncio.Future[bytes | Failed] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._carry_out(self._rules.start(self._loop.time()))

    def datagram_received(self, data: bytes, source: tuple[Any, ...]) -> None:
        # Its port is another than was asked; its address never is.
        if source[0] == self._server[0]:
            self._carry_out(self._rules.received(data, source[1], self._loop.time()))

    def error_received(self, fault: Exception) -> None:
        self._end(Failed(str(fault)))

    def connection_lost(self, fault: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send(data, port):
                    host, _, *scope = self._server
                    self._transport.sendto(data, (host, port, *scope))
                case Done(body):
                    self._end(body)
                case Failed():
                    self._end(output)
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._rules.deadline
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._due)

    def _due(self) -> None:
        # The loop may call a moment early, by its clock's resolution.
        now = max(self._loop.time(), self._rules.deadline or 0.0)
        self._carry_out(self._rules.timer_fired(now))

    def _end(self, result: bytes | Failed) -> None:
        if not self.over.done():
            self.over.set_result(result)
