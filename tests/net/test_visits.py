"""A page that strangers reach holds little for them, and not for long."""

import asyncio
import contextlib
import gc
import socket
import ssl
from asyncio import sslproto
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from doorstation.net import visits
from doorstation.net.tls import TlsFiles, server_context
from doorstation.net.visits import MOST, listening

from tests.support.tls import Authority


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


@contextlib.asynccontextmanager
async def page(
    folder: Path, protocol: type[asyncio.Protocol] = Echo
) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """Its port, and who trusts it."""
    authority = Authority(folder)
    made = authority.issue("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context = server_context(TlsFiles(certificate=made.certificate, key=made.key))
    async with listening(port, protocol, context):
        yield port, ssl.create_default_context(cafile=authority.ca)


async def test_strangers_that_say_nothing_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "HANDSHAKE", 60.0)  # not by that, then
    async with asyncio.timeout(30.0), page(tmp_path) as (port, trust):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST + 4)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        writer.write(b"here")
        assert await reader.readexactly(4) == b"here"
        for oldest, _ in silent[:5]:
            with contextlib.suppress(ConnectionError):
                assert await oldest.read() == b""
        assert not silent[-1][0].at_eof()
        for _, each in (*silent, (reader, writer)):
            each.close()


async def test_stranger_that_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "HANDSHAKE", 0.1)
    async with asyncio.timeout(20.0), page(tmp_path) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


async def test_connection_is_cut_after_its_time_whatever_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "LONGEST", 0.2)
    async with asyncio.timeout(30.0), page(tmp_path) as (port, trust):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"still here")
                if not await reader.read(64):
                    break
        writer.close()


class Closing(asyncio.Protocol):
    """Closes what is closed already, as a web server's does."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, fault: Exception | None) -> None:
        self._transport.close()


async def test_visitors_who_leave_first_are_no_fault_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[object] = []
    abort = sslproto._SSLProtocolTransport.abort

    def abort_as_python_3_11_2(transport: asyncio.Transport) -> None:
        if transport.is_closing():
            raise AttributeError("'NoneType' object has no attribute '_abort'")
        abort(transport)

    monkeypatch.setattr(sslproto._SSLProtocolTransport, "abort", abort_as_python_3_11_2)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    monkeypatch.setattr(visits, "LONGEST", 0.1)
    async with asyncio.timeout(30.0), page(tmp_path, Closing) as (port, trust):
        for _ in range(MOST * 2):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
            writer.close()
            await writer.wait_closed()
        gc.collect()
        await asyncio.sleep(0)
    assert faults == []


async def test_end_of_the_page_ends_its_connections_and_frees_its_port(tmp_path: Path) -> None:
    async with page(tmp_path) as (port, trust):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    with (
        socket.create_server(("127.0.0.1", port)),
        socket.create_server(("::1", port), family=socket.AF_INET6),
    ):
        pass


async def test_port_that_is_taken_is_told_and_nothing_stays_open(tmp_path: Path) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            async with listening(port, Echo, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)):
                pass
        with socket.create_server(("127.0.0.1", port)):
            pass
