"""SIP's sockets on real loopback."""

import asyncio
import contextlib
import errno
import gc
import socket
from asyncio.sslproto import SSLProtocol, _SSLProtocolTransport
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from doorstation.errors import TransportError
from doorstation.net.sockets import CS3, Limits, Listen, SipSockets
from doorstation.net.tls import TlsFiles, wrong_name
from doorstation.sip.transport import Flow, Target, Transport
from msgspec.structs import replace

from tests.support.tls import Authority

LOOPBACKS = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
UDP, TCP, TLS = Transport.UDP, Transport.TCP, Transport.TLS


class Notes:
    """A sink that writes everything down; `next` waits for the next note of a kind."""

    def __init__(self) -> None:
        self.queues: dict[str, asyncio.Queue[tuple[object, ...]]] = {}

    def _queue(self, kind: str) -> asyncio.Queue[tuple[object, ...]]:
        return self.queues.setdefault(kind, asyncio.Queue())

    def data_received(self, flow: Flow, data: bytes) -> None:
        self._queue("data").put_nowait((flow, data))

    def flow_opened(self, target: Target, flow: Flow) -> None:
        self._queue("opened").put_nowait((target, flow))

    def flow_failed(self, target: Target, reason: str) -> None:
        self._queue("failed").put_nowait((target, reason))

    def flow_closed(self, flow: Flow, reason: str) -> None:
        self._queue("closed").put_nowait((flow, reason))

    def send_failed(self, flow: Flow, reason: str) -> None:
        self._queue("unsent").put_nowait((flow, reason))

    async def next(self, kind: str) -> tuple[object, ...]:
        async with asyncio.timeout(10):
            return await self._queue(kind).get()

    async def flow(self) -> Flow:
        flow = (await self.next("opened"))[1]
        assert isinstance(flow, Flow)
        return flow

    async def data(self) -> tuple[Flow, bytes]:
        flow, data = await self.next("data")
        assert isinstance(flow, Flow)
        assert isinstance(data, bytes)
        return flow, data

    async def reason(self, kind: str) -> str:
        return str((await self.next(kind))[1])

    def count(self, kind: str) -> int:
        return self._queue(kind).qsize()


Side = tuple[SipSockets, Notes]


@asynccontextmanager
async def side(
    *listen: Listen,
    tls: TlsFiles | None = None,
    limits: Limits | None = None,
    changed: Callable[[], None] | None = None,
) -> AsyncIterator[Side]:
    notes = Notes()
    sockets = SipSockets(
        listen, tls=tls or TlsFiles(), limits=limits or Limits(), network_changed=changed
    )
    async with sockets:
        sockets.attach(notes)
        yield sockets, notes


def port_of(sockets: SipSockets, transport: Transport, host: str) -> int:
    for kind, address, port in sockets.listening:
        if kind is transport and (":" in address) == (":" in host):
            return port
    raise AssertionError(f"nothing listens for {transport} on {host}")


def everything(transport: Transport = UDP) -> Listen:
    return Listen(transport, 0)


# -- UDP


async def test_a_flow_has_moved_when_packets_would_leave_from_another_address() -> None:
    async with side(everything()) as (ours, notes):
        ours.open(Target(UDP, "127.0.0.1", 5060))
        flow = await notes.flow()
        assert not ours.moved(flow)
        assert ours.moved(replace(flow, local=("192.0.2.1", flow.local[1])))
        assert ours.moved(replace(flow, remote=("255.255.255.255", 5060)))  # no way leads there


async def test_a_connection_has_moved_when_it_is_gone() -> None:
    listen = (everything(), everything(Transport.TCP))
    async with side(*listen) as (ours, notes), side(*listen) as (theirs, _):
        port = port_of(theirs, Transport.TCP, "127.0.0.1")
        ours.open(Target(Transport.TCP, "127.0.0.1", port))
        flow = await notes.flow()
        assert not ours.moved(flow)
        ours.close(flow, "enough")
        assert ours.moved(flow)


@LOOPBACKS
async def test_a_datagram_reaches_the_other_side_and_comes_back(host: str) -> None:
    async with side(everything()) as (ours, our_notes), side(everything()) as (theirs, their_notes):
        ours.open(Target(UDP, host, port_of(theirs, UDP, host)))
        out = await our_notes.flow()
        assert out.local == (host, port_of(ours, UDP, host))
        ours.send(out, b"ping")
        back, data = await their_notes.data()
        assert data == b"ping"
        assert back.remote == out.local
        assert back.local == out.remote
        theirs.send(back, b"pong")
        assert await our_notes.data() == (out, b"pong")


async def test_udp_flow_names_the_address_really_used_and_the_port_really_listened_on() -> None:
    async with side(Listen(UDP, 0, "127.0.0.5")) as (sockets, notes):
        sockets.open(Target(UDP, "127.0.0.1", 5060))
        assert (await notes.flow()).local == ("127.0.0.5", sockets.listening[0][2])


async def test_udp_flow_can_be_sent_to_another_far_end() -> None:
    async with side(everything()) as (ours, our_notes), side(everything()) as (theirs, their_notes):
        ours.open(Target(UDP, "127.0.0.1", 9))
        flow = (await our_notes.flow()).towards("127.0.0.1", port_of(theirs, UDP, "127.0.0.1"))
        ours.send(flow, b"x")
        assert (await their_notes.data())[1] == b"x"


async def test_port_zero_gives_udp_and_tcp_of_both_families_one_number() -> None:
    async with side(everything(UDP), everything(TCP)) as (sockets, _):
        assert len(sockets.listening) == 4
        assert len({port for _, _, port in sockets.listening}) == 1


@LOOPBACKS
async def test_icmp_unreachable_fails_the_flow_it_belongs_to(host: str) -> None:
    with socket.socket(
        socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM
    ) as taken:
        taken.bind((host, 0))
        closed_port = taken.getsockname()[1]
    async with side(everything()) as (sockets, notes):
        sockets.open(Target(UDP, host, closed_port))
        flow = await notes.flow()
        sockets.send(flow, b"anybody?")
        assert await notes.next("unsent") == (flow, "Connection refused")


async def test_an_earlier_icmp_error_does_not_swallow_the_next_datagram() -> None:
    async with side(everything()) as (ours, our_notes), side(everything()) as (theirs, their_notes):
        ours.open(Target(UDP, "127.0.0.1", 1))
        dead = await our_notes.flow()
        alive = dead.towards("127.0.0.1", port_of(theirs, UDP, "127.0.0.1"))
        # Both in one go: the ICMP answer to the first is pending when the second is sent.
        ours.send(dead, b"1")
        ours.send(alive, b"2")
        assert (await their_notes.data())[1] == b"2"
        assert (await our_notes.next("unsent"))[0] == dead


async def test_no_socket_of_the_family_fails_the_flow() -> None:
    async with side(Listen(UDP, 0, "127.0.0.1")) as (sockets, notes):
        target = Target(UDP, "::1", 5060)
        sockets.open(target)
        assert (await notes.next("failed"))[0] == target


@pytest.mark.parametrize("transport", [UDP, TCP])
@pytest.mark.parametrize("host", ["::1.2.3", "1:2", "host"])
async def test_what_is_no_address_is_not_looked_up(host: str, transport: Transport) -> None:
    async with side(everything()) as (sockets, notes):
        sockets.open(Target(transport, host, 5060))
        assert await notes.next("failed") == (
            Target(transport, host, 5060),
            f"{host} is no address",
        )


@pytest.mark.parametrize("transport", [UDP, TCP])
async def test_an_interface_that_does_not_exist_fails_the_flow(transport: Transport) -> None:
    async with side(everything()) as (sockets, notes):
        sockets.open(Target(transport, "fe80::1%²", 5060))
        await notes.next("failed")


async def test_failures_are_reported_after_the_call_not_within_it() -> None:
    async with side(everything()) as (sockets, notes):
        sockets.send(Flow(999, UDP, ("127.0.0.1", 1), ("127.0.0.1", 2)), b"x")
        sockets.send(Flow(998, TCP, ("127.0.0.1", 1), ("127.0.0.1", 2)), b"x")
        assert notes.count("unsent") == 0
        await notes.next("unsent")
        await notes.next("unsent")


async def test_a_datagram_too_large_fails() -> None:
    async with side(everything()) as (sockets, notes):
        sockets.open(Target(UDP, "127.0.0.1", 9))
        sockets.send(await notes.flow(), b"x" * 70_000)
        assert await notes.reason("unsent") == "Message too long"


async def test_a_datagram_that_the_line_has_no_room_for_is_lost_and_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full:
        def sendto(self, data: bytes, address: object) -> int:
            raise OSError(errno.ENOBUFS, "No buffer space available")

    async with side(everything()) as (sockets, notes):
        sockets.open(Target(UDP, "127.0.0.1", 9))
        flow = await notes.flow()
        with monkeypatch.context() as patch:
            patch.setattr(sockets._udp[flow.id], "socket", Full())
            sockets.send(flow, b"x")
        unknown = Flow(999, UDP, ("127.0.0.1", 1), ("127.0.0.1", 2))
        sockets.send(unknown, b"x")
        assert (await notes.next("unsent"))[0] == unknown
        assert sockets.counters["udp_congested"] == 1


async def test_a_taken_port_is_an_error_that_names_it() -> None:
    async with side(everything()) as (sockets, _):
        port = sockets.listening[0][2]
        again = SipSockets([Listen(UDP, port)])
        with pytest.raises(TransportError, match=f"UDP .* port {port}: Address already in use"):
            await again.start()
        await again.aclose()


@LOOPBACKS
async def test_signalling_is_marked_cs3(host: str) -> None:
    v6 = ":" in host
    level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
    with socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((host, 0))
        peer.settimeout(5)
        peer.setsockopt(level, socket.IPV6_RECVTCLASS if v6 else socket.IP_RECVTOS, 1)
        async with side(everything()) as (sockets, notes):
            sockets.open(Target(UDP, host, peer.getsockname()[1]))
            sockets.send(await notes.flow(), b"x")
            _, extra, _, _ = await asyncio.to_thread(peer.recvmsg, 100, 100)
    assert extra[0][2][0] >> 2 == CS3


# -- TCP


@LOOPBACKS
async def test_a_tcp_connection_carries_both_ways_and_its_end_is_reported(host: str) -> None:
    async with (
        side(everything(TCP)) as (ours, our_notes),
        side(everything(TCP)) as (theirs, their_notes),
    ):
        ours.open(Target(TCP, host, port_of(theirs, TCP, host)))
        out = await our_notes.flow()
        assert out.local == (host, port_of(ours, TCP, host))
        ours.send(out, b"ping")
        back, data = await their_notes.data()
        assert data == b"ping"
        assert back.local == (host, port_of(theirs, TCP, host))
        theirs.send(back, b"pong")
        assert await our_notes.data() == (out, b"pong")
        ours.close(out, "done")
        assert await their_notes.next("closed") == (back, "closed by the peer")
        assert our_notes.count("closed") == 0


async def test_what_was_sent_before_the_close_arrives() -> None:
    async with (
        side(everything(TCP)) as (ours, our_notes),
        side(everything(TCP)) as (theirs, their_notes),
    ):
        ours.open(Target(TCP, "127.0.0.1", port_of(theirs, TCP, "127.0.0.1")))
        flow = await our_notes.flow()
        ours.send(flow, b"x" * 200_000)
        ours.close(flow, "done")
        received = 0
        while received < 200_000:
            received += len((await their_notes.data())[1])


async def test_a_refused_connection_fails_with_its_reason() -> None:
    async with side(everything(TCP)) as (sockets, notes):
        sockets.open(Target(TCP, "127.0.0.1", 1))
        assert await notes.reason("failed") == "connecting: Connection refused"


async def test_a_connection_that_nobody_answers_times_out() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)
            async with side(limits=Limits(connect=0.2)) as (sockets, notes):
                sockets.open(Target(TCP, "127.0.0.1", address[1]))
                assert await notes.reason("failed") == "connecting: no answer in time"


async def test_one_stranger_gets_only_so_many_connections() -> None:
    limits = Limits(per_stranger=3)
    async with side(everything(TCP), limits=limits) as (sockets, _):
        address = ("127.0.0.1", port_of(sockets, TCP, "127.0.0.1"))
        writers = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*address)
            writers.append(writer)
        reader, refused = await asyncio.open_connection(*address)
        assert await ended(reader)
        # Another address still gets in, and a place that falls free is given again.
        _, other = await asyncio.open_connection(*address, local_addr=("127.0.0.2", 0))
        writers[0].close()
        await writers[0].wait_closed()
        for writer in (*writers, refused, other):
            writer.close()


async def test_the_connection_idle_longest_makes_room() -> None:
    limits = Limits(connections=2)
    async with side(everything(TCP), limits=limits) as (sockets, notes):
        address = ("127.0.0.1", port_of(sockets, TCP, "127.0.0.1"))
        ends = [await asyncio.open_connection(*address) for _ in range(2)]
        for _, writer in ends:
            writer.write(b"x")
        oldest = (await notes.data())[0]
        newer = (await notes.data())[0]
        ends.append(await asyncio.open_connection(*address))
        assert await notes.next("closed") == (oldest, "made room for another connection")
        sockets.send(newer, b"still here")
        for _, writer in ends:
            writer.close()


async def test_strangers_never_displace_a_connection_of_ours() -> None:
    async with (
        side(everything(TCP)) as (registrar, _),
        side(everything(TCP), limits=Limits(connections=2)) as (sockets, notes),
    ):
        sockets.open(Target(TCP, "127.0.0.1", port_of(registrar, TCP, "127.0.0.1")))
        ours = await notes.flow()
        address = ("127.0.0.1", port_of(sockets, TCP, "127.0.0.1"))
        writers = []
        for _ in range(3):
            _, writer = await asyncio.open_connection(*address)
            writer.write(b"x")
            await notes.data()
            writers.append(writer)
        assert sockets.counters["connections_displaced"] == 2
        for _ in range(2):
            assert (await notes.next("closed"))[0] != ours
        for writer in writers:
            writer.close()


async def test_a_burst_of_connections_stays_within_the_limit() -> None:
    limits = Limits(connections=4, per_stranger=1000)
    async with side(everything(TCP), limits=limits) as (sockets, _):
        address = ("127.0.0.1", port_of(sockets, TCP, "127.0.0.1"))
        ends = await asyncio.gather(*(asyncio.open_connection(*address) for _ in range(40)))
        open_ones = 0
        for reader, _ in ends:
            open_ones += not await ended(reader, wait=0.05)
        assert open_ones <= 4
        for _, writer in ends:
            writer.close()


async def test_an_idle_stranger_is_disconnected() -> None:
    async with side(everything(TCP), limits=Limits(idle=0.1)) as (sockets, notes):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port_of(sockets, TCP, "127.0.0.1")
        )
        assert await ended(reader)
        assert (await notes.reason("closed")).startswith("idle for")
        writer.close()


async def test_a_peer_that_does_not_read_is_disconnected() -> None:
    async with side(everything(TCP), limits=Limits(unsent=50_000)) as (sockets, notes):
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(sockets, TCP, "127.0.0.1"))
        writer.write(b"x")
        flow, _ = await notes.data()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(1000):
            sockets.send(flow, b"x" * 50_000)
            if notes.count("unsent"):
                break
            await asyncio.sleep(0)
        assert await notes.next("closed") == (flow, "the peer does not read")
        writer.transport.abort()


async def test_a_flood_on_one_connection_leaves_time_for_everything_else() -> None:
    async with side(everything(TCP)) as (sockets, notes):
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(sockets, TCP, "127.0.0.1"))
        writer.write(b"x" * 200_000)
        sizes: list[int] = []
        while sum(sizes) < 200_000:
            sizes.append(len((await notes.data())[1]))
        assert max(sizes) <= 16 * 1024
        writer.close()


async def ended(reader: asyncio.StreamReader, wait: float = 10.0) -> bool:
    try:
        async with asyncio.timeout(wait):
            return await reader.read(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


# -- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def tls_server(authority: Authority, *names: str, sip: bool = False) -> AsyncIterator[Side]:
    made = authority.issue_sip(*names) if sip else authority.issue(*names)
    files = TlsFiles(certificate=made.certificate, key=made.key)
    async with side(everything(TLS), tls=files) as server:
        yield server


@LOOPBACKS
async def test_tls_carries_both_ways(host: str, authority: Authority) -> None:
    async with (
        tls_server(authority, "door.example.com") as (theirs, their_notes),
        side(tls=TlsFiles(ca=authority.ca)) as (ours, our_notes),
    ):
        ours.open(Target(TLS, host, port_of(theirs, TLS, host), "door.example.com"))
        out = await our_notes.flow()
        ours.send(out, b"ping")
        back, data = await their_notes.data()
        assert data == b"ping"
        assert back.transport is TLS
        theirs.send(back, b"pong")
        assert await our_notes.data() == (out, b"pong")
        theirs.close(back, "done")
        assert (await our_notes.next("closed"))[0] == out


@pytest.mark.parametrize(
    ("names", "sip", "asked"),
    [
        (["sip:example.com"], True, "example.com"),
        (["sip:other.example", "sip:EXAMPLE.com"], True, "example.com"),
        (["127.0.0.1"], False, "127.0.0.1"),
        (["127.0.0.1"], False, ""),
        (["*.example.com"], False, "sip.example.com"),
    ],
)
async def test_tls_takes_every_name_of_rfc_5922(
    names: list[str], sip: bool, asked: str, authority: Authority
) -> None:
    async with (
        tls_server(authority, *names, sip=sip) as (theirs, _),
        side(tls=TlsFiles(ca=authority.ca)) as (ours, notes),
    ):
        ours.open(Target(TLS, "127.0.0.1", port_of(theirs, TLS, "127.0.0.1"), asked))
        await notes.flow()


async def test_tls_checks_the_domains_name_not_the_hosts(authority: Authority) -> None:
    async with (
        tls_server(authority, "sip1.provider.example", "127.0.0.1") as (theirs, _),
        side(tls=TlsFiles(ca=authority.ca)) as (ours, notes),
    ):
        ours.open(Target(TLS, "127.0.0.1", port_of(theirs, TLS, "127.0.0.1"), "example.com"))
        assert await notes.reason("failed") == (
            "TLS: the certificate is for sip1.provider.example, 127.0.0.1, not for example.com"
        )
        assert notes.count("opened") == 0


async def test_tls_to_what_is_no_domain_name_fails(authority: Authority) -> None:
    async with (
        tls_server(authority, "example.com") as (theirs, _),
        side(tls=TlsFiles(ca=authority.ca)) as (ours, notes),
    ):
        ours.open(Target(TLS, "127.0.0.1", port_of(theirs, TLS, "127.0.0.1"), "a..b"))
        assert (await notes.reason("failed")).startswith("TLS: ")


async def test_tls_refuses_an_unknown_authority(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path)
    async with (
        tls_server(stranger, "example.com") as (theirs, their_notes),
        side(tls=TlsFiles(ca=authority.ca)) as (ours, notes),
    ):
        ours.open(Target(TLS, "127.0.0.1", port_of(theirs, TLS, "127.0.0.1"), "example.com"))
        assert await notes.reason("failed") == "TLS: unable to get local issuer certificate"
        assert their_notes.count("data") == 0


async def test_tls_refuses_an_expired_certificate(authority: Authority) -> None:
    made = authority.issue("example.com", expired=True)
    files = TlsFiles(certificate=made.certificate, key=made.key)
    async with (
        side(everything(TLS), tls=files) as (theirs, _),
        side(tls=TlsFiles(ca=authority.ca)) as (ours, notes),
    ):
        ours.open(Target(TLS, "127.0.0.1", port_of(theirs, TLS, "127.0.0.1"), "example.com"))
        assert await notes.reason("failed") == "TLS: certificate has expired"


async def test_tls_against_a_plain_server_fails(authority: Authority) -> None:
    async with (
        side(everything(TCP)) as (theirs, their_notes),
        side(tls=TlsFiles(ca=authority.ca)) as (ours, notes),
    ):
        ours.open(Target(TLS, "127.0.0.1", port_of(theirs, TCP, "127.0.0.1"), "example.com"))
        flow, _ = await their_notes.data()
        theirs.send(flow, b"SIP/2.0 400 Bad Request\r\n\r\n")
        assert await notes.reason("failed") == "TLS: wrong version number"


async def test_tls_handshake_has_a_time_limit_on_both_sides(authority: Authority) -> None:
    made = authority.issue("example.com")
    files = TlsFiles(certificate=made.certificate, key=made.key, ca=authority.ca)
    limits = Limits(handshake=0.2)
    async with side(everything(TLS), everything(TCP), tls=files, limits=limits) as (ours, notes):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(ours, TLS, "127.0.0.1"))
        assert await ended(reader)
        writer.close()
        ours.open(Target(TLS, "127.0.0.1", port_of(ours, TCP, "127.0.0.1"), "example.com"))
        assert "handshake" in await notes.reason("failed")


async def test_strangers_in_their_handshake_are_counted(authority: Authority) -> None:
    made = authority.issue("example.com")
    files = TlsFiles(certificate=made.certificate, key=made.key)
    limits = Limits(per_stranger=2)
    async with side(everything(TLS), tls=files, limits=limits) as (sockets, _):
        address = ("127.0.0.1", port_of(sockets, TLS, "127.0.0.1"))
        ends = [await asyncio.open_connection(*address) for _ in range(3)]
        assert await ended(ends[2][0])
        assert sockets.counters["connections_refused"] == 1
        for _, writer in ends:
            writer.close()


async def test_tls_handshakes_of_garbage_leave_no_memory_behind(authority: Authority) -> None:
    """85 MB of a Pi's 512 otherwise: the collector counts objects, not OpenSSL's bytes."""
    async with tls_server(authority, "door.example.com") as (sockets, _):
        port = port_of(sockets, TLS, "127.0.0.1")
        gc.disable()
        try:
            for _ in range(100):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"OPTIONS sip:door SIP/2.0\r\n\r\n")
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                writer.close()
            left = [one for one in gc.get_objects() if isinstance(one, SSLProtocol)]
        finally:
            gc.enable()
        assert len(left) <= 32
        assert SSLProtocol.max_size <= 16 * 1024


async def test_tls_is_not_loaded_before_it_is_used(authority: Authority) -> None:
    async with side(everything(), tls=TlsFiles(ca="/nowhere.pem")) as (sockets, notes):
        sockets.open(Target(TLS, "127.0.0.1", 1, "example.com"))
        # Connecting comes first, so a missing file is no fault yet.
        assert await notes.reason("failed") == "connecting: Connection refused"


async def test_a_missing_ca_file_fails_the_flow_and_is_found_once_there(
    authority: Authority, tmp_path: Path
) -> None:
    later = tmp_path / "later.pem"
    async with (
        tls_server(authority, "example.com") as (theirs, _),
        side(tls=TlsFiles(ca=str(later))) as (ours, notes),
    ):
        target = Target(TLS, "127.0.0.1", port_of(theirs, TLS, "127.0.0.1"), "example.com")
        ours.open(target)
        assert await notes.reason("failed") == f"TLS: CA file {later}: No such file or directory"
        later.write_bytes(Path(authority.ca).read_bytes())
        ours.open(target)
        await notes.flow()


async def test_listening_for_tls_needs_a_certificate() -> None:
    sockets = SipSockets([everything(TLS)])
    with pytest.raises(TransportError, match="needs a certificate"):
        await sockets.start()
    await sockets.aclose()


def test_common_name_counts_only_without_alternative_names() -> None:
    subject = ((("commonName", "example.com"),),)
    assert wrong_name({"subject": subject}, "example.com") == ""
    named = {"subject": subject, "subjectAltName": (("DNS", "other.example"),)}
    assert "other.example" in wrong_name(named, "example.com")


@pytest.mark.parametrize(
    ("kind", "value", "domain"),
    [
        ("URI", "sip:alice@example.com", "example.com"),
        ("URI", "https://example.com", "example.com"),
        ("URI", "sip:*.example.com", "sip.example.com"),
        ("DNS", "*.example.com", "a.b.example.com"),
        ("DNS", "*.example.com", "example.com"),
        ("DNS", "*.com", "example.com"),
        ("DNS", "127.0.0.1", "127.0.0.1"),
        ("email", "example.com", "example.com"),
    ],
)
def test_names_that_prove_nothing(kind: str, value: str, domain: str) -> None:
    assert wrong_name({"subjectAltName": ((kind, value),)}, domain)


# -- ending


async def test_closing_ends_open_connections_and_silences_them() -> None:
    async with side(everything(TCP)) as (theirs, their_notes):
        async with side(everything(TCP)) as (ours, our_notes):
            ours.open(Target(TCP, "127.0.0.1", port_of(theirs, TCP, "127.0.0.1")))
            flow = await our_notes.flow()
            ours.send(flow, b"unregister")
        assert (await their_notes.data())[1] == b"unregister"
        await their_notes.next("closed")
        assert our_notes.count("closed") == 0
        await ours.aclose()


async def test_closing_does_not_close_again_what_is_closing_already(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = _SSLProtocolTransport.close

    def once(transport: asyncio.Transport) -> None:
        assert not transport.is_closing(), "Python 3.11.2 could not abort it any more"
        close(transport)

    async with (
        tls_server(authority, "example.com") as (theirs, _),
        side(tls=TlsFiles(ca=authority.ca)) as (ours, notes),
    ):
        port = port_of(theirs, TLS, "127.0.0.1")
        ours.open(Target(TLS, "127.0.0.1", port, "example.com"))
        flow = await notes.flow()
        ours._streams[flow.id].transport.close()  # as its far end's word does
        monkeypatch.setattr(_SSLProtocolTransport, "close", once)
        await ours.aclose()
        monkeypatch.undo()
