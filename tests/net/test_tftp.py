"""A file by TFTP over real sockets, whatever the server does. A real server: tests/stories."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from doorstation.net import tftp
from doorstation.net.https import Credentials, fetch
from doorstation.provision.fetch import Failed, Fetched
from doorstation.provision.tftp import Place

Answer = Callable[["Server", bytes, tuple[str, int]], None]


class Server(asyncio.DatagramProtocol):
    """Answers each packet as a test says, from its own port or from `other`."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.other = socket.socket(type=socket.SOCK_DGRAM)
        self.other.bind(("127.0.0.1", 0))
        self.elsewhere = socket.socket(type=socket.SOCK_DGRAM)
        self.elsewhere.bind(("127.0.0.2", 0))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        self.asked.append(data)
        self.answer(self, data, source)


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[tuple[Server, int]]:
    loop = asyncio.get_running_loop()
    transport, made = await loop.create_datagram_endpoint(
        lambda: Server(answer), local_addr=("127.0.0.1", 0)
    )
    try:
        yield made, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()
        made.other.close()
        made.elsewhere.close()


def data(number: int, content: bytes) -> bytes:
    return struct.pack("!HH", 3, number) + content


async def test_packet_from_another_address_is_not_the_servers() -> None:
    def answer(made: Server, _: bytes, source: tuple[str, int]) -> None:
        made.elsewhere.sendto(data(1, b"evil"), source)
        made.other.sendto(data(1, b"good"), source)

    async with server(answer) as (_, port):
        body = await tftp.read(Place("127.0.0.1", port, b"door.jws"), 100, [])
    assert body == b"good"


async def test_request_that_is_lost_is_sent_again() -> None:
    def answer(made: Server, _: bytes, source: tuple[str, int]) -> None:
        if len(made.asked) == 2:
            made.other.sendto(data(1, b"late"), source)

    async with server(answer) as (made, port):
        answer_ = await fetch(f"tftp://127.0.0.1:{port}/door.jws", "", Credentials())
    assert answer_.result == Fetched(f"tftp://127.0.0.1:{port}/door.jws", b"late", "")
    assert answer_.private
    assert made.asked[0] == made.asked[1]


async def test_server_that_never_answers_costs_no_more_than_a_place_may() -> None:
    loop = asyncio.get_running_loop()
    async with server(lambda *_: None) as (made, port):
        began = loop.time()
        answer = await fetch(f"tftp://127.0.0.1:{port}/door.jws", "", Credentials())
        assert loop.time() - began < 60
    assert answer.result == Failed("the server is silent")
    assert len(made.asked) == 4


@pytest.mark.parametrize("url", ["tftp://127.0.0.1", "tftp://127.0.0.1/", "tftp://no.invalid/x"])
async def test_place_that_cannot_be_asked_is_a_fault_and_no_more(url: str) -> None:
    assert isinstance((await fetch(url, "", Credentials())).result, Failed)
