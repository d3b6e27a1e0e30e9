"""The sockets under SIP: UDP, TCP and TLS, IPv4 and IPv6.

UDP sockets are read by hand, not through asyncio's datagram transports: only so the kernel's error
queue (IP_RECVERR) can be read, which says *which* peer is unreachable. Streams use asyncio's
transports; their listeners accept by hand, so that strangers are counted before a handshake costs
anything.

Nothing here calls the sink from within `send`, `open` or `close`: whoever carries out a list of
outputs is never entered again half-way.
"""

import asyncio
import errno
import gc
import logging
import os
import socket
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol, cast

import msgspec

from doorstation.errors import TransportError
from doorstation.net.addresses import (
    family_of,
    in_words,
    is_address,
    is_ours,
    remote_of,
    sockaddr,
    without_zone,
)
from doorstation.net.netlink import NetworkWatch
from doorstation.net.tls import NO_FILES, TlsFiles, client_context, server_context, wrong_name
from doorstation.sip.transport import Flow, Target, Transport, stranger_of

if TYPE_CHECKING:
    import ssl

log = logging.getLogger(__name__)

CS3: Final = 24  # the DSCP of signalling (RFC 4594 §4.3)

# One wake-up reads at most this many datagrams, so that a flood on one socket leaves time for the
# others, the timers and the door.
_DATAGRAMS_PER_WAKE: Final = 16
_LARGEST_DATAGRAM: Final = 65535
# The same for a TCP connection: asyncio would hand up 256 kB at once, a thousand requests. TLS has
# this limit already (tls.py).
_BYTES_PER_WAKE: Final = 16 * 1024
# Strangers choose the addresses that we look up here (spoofed UDP sources).
_CACHED_ROUTES: Final = 256
# A name server or a Contact may hand us anything to connect to.
_OPENING_AT_ONCE: Final = 32
# Seconds that a closed connection has to send its rest.
_LINGER: Final = 1.0
# Failed handshakes. What asyncio leaves of each hangs together in a circle with OpenSSL's memory,
# of which Python's collector knows nothing: left to itself it comes by far too seldom.
_COLLECT_EVERY: Final = 16

# Not in the socket module of Python 3.11; from linux/in.h, linux/in6.h and linux/errqueue.h.
_IP_RECVERR: Final = 11
_IPV6_RECVERR: Final = 25
_EXTENDED_ERROR: Final = struct.Struct("=IBBBBII")
_ORIGIN_ICMP: Final = 2
_ORIGIN_ICMP6: Final = 3
_ICMP_UNREACHABLE: Final = 3
_ICMP6_UNREACHABLE: Final = 1


class Listen(msgspec.Struct, frozen=True):
    """One thing to listen on; `host` "" is every address of both families, port 0 a free one."""

    transport: Transport
    port: int
    host: str = ""


class Limits(msgspec.Struct, frozen=True):
    """What a stranger, or a slow peer, can take."""

    connections: int = 64  # in all; then the one idle longest makes room
    per_stranger: int = 8  # accepted from one IPv4 address or IPv6 /64: a single flooder
    idle: float = 600.0  # seconds without a byte until an accepted connection is closed
    connect: float = 5.0  # seconds to be connected
    handshake: float = 5.0  # seconds for the TLS handshake, either side: slow strangers
    unsent: int = 256 * 1024  # bytes waiting for a reader that does not read


class Sink(Protocol):
    """Who is told. None of these may raise."""

    def data_received(self, flow: Flow, data: bytes) -> None: ...
    def flow_opened(self, target: Target, flow: Flow) -> None: ...
    def flow_failed(self, target: Target, reason: str) -> None: ...
    def flow_closed(self, flow: Flow, reason: str) -> None: ...
    def send_failed(self, flow: Flow, reason: str) -> None: ...


class SipSockets:
    """All sockets of one user agent. `start`, then `attach` the sink, `aclose` at the end."""

    def __init__(
        self,
        listen: Sequence[Listen],
        *,
        tls: TlsFiles = NO_FILES,
        limits: Limits = Limits(),
        dscp: int = CS3,
        network_changed: Callable[[], None] | None = None,
    ) -> None:
        """`network_changed` is called after addresses, links or routes changed: then `moved`
        says which flows are concerned."""
        self._listen = tuple(listen)
        self._tls = tls
        self._limits = limits
        self._dscp = dscp
        self._network_changed = network_changed
        self._sink: Sink | None = None
        self._ids = 0
        self._udp: dict[int, _UdpSocket] = {}
        self._listeners: list[_Listener] = []
        self._streams: OrderedDict[int, _Stream] = OrderedDict()  # idle longest first
        self._strangers: Counter[str] = Counter()
        self._routes: OrderedDict[str, str] = OrderedDict()
        self._opening: set[asyncio.Task[None]] = set()
        self._accepting: dict[asyncio.Task[None], tuple[socket.socket, _Stream]] = {}
        self._idle_timer: asyncio.TimerHandle | None = None
        self._watch: NetworkWatch | None = None
        self._client_context: asyncio.Task[ssl.SSLContext] | None = None
        self._server_context: ssl.SSLContext | None = None
        self._closed = False
        self.counters: Counter[str] = Counter()

    @property
    def listening(self) -> tuple[tuple[Transport, str, int], ...]:
        """What is really listened on: transport, address, port."""
        every = [(Transport.UDP, udp.host, udp.port) for udp in self._udp.values()]
        every += [(each.transport, each.host, each.port) for each in self._listeners]
        return tuple(every)

    async def start(self) -> None:
        """Bind everything. Raises TransportError (a port is taken, a certificate is unusable)."""
        self._loop = asyncio.get_running_loop()
        if any(each.transport is Transport.TLS for each in self._listen):
            if not self._tls.certificate:
                raise TransportError("listening for TLS needs a certificate")
            self._server_context = await asyncio.to_thread(server_context, self._tls)
        self._bind()
        try:
            self._watch = NetworkWatch(self._changed)
        except OSError as fault:
            log.warning("network changes go unnoticed until something fails: %s", in_words(fault))

    def attach(self, sink: Sink) -> None:
        """Start to receive; from now on `sink` is told."""
        self._sink = sink
        for udp in self._udp.values():
            self._loop.add_reader(udp.socket.fileno(), self._readable, udp)
        for listener in self._listeners:
            listener.socket.listen(64)
            self._loop.add_reader(listener.socket.fileno(), self._acceptable, listener)

    async def aclose(self) -> None:
        """Close everything, giving what was written a second to leave. Closes twice harmlessly."""
        if self._closed:
            return
        self._closed = True
        streams = list(self._streams.values())
        for stream in streams:
            stream.silent = True
        if self._watch is not None:
            self._watch.close()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener.socket.fileno())
            listener.socket.close()
        tasks: list[asyncio.Task[None]] = [*self._opening, *self._accepting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client_context is not None:
            await asyncio.gather(self._client_context, return_exceptions=True)
        for stream in streams:
            # What is closed twice, Python 3.11.2 cannot abort any more.
            if not stream.transport.is_closing():
                stream.transport.close()
        endings = [stream.ended for stream in streams]
        if endings and (await asyncio.wait(endings, timeout=_LINGER))[1]:
            for stream in streams:
                stream.transport.abort()
            await asyncio.wait(endings)
        for udp in self._udp.values():
            self._loop.remove_reader(udp.socket.fileno())
            udp.socket.close()
        self._udp.clear()
        self._listeners.clear()

    async def __aenter__(self) -> "SipSockets":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # -- outputs carried out

    def send(self, flow: Flow, data: bytes) -> None:
        """Put `data` on the flow; what fails is reported later by `send_failed`."""
        if flow.transport is Transport.UDP:
            udp = self._udp.get(flow.id)
            if udp is None:
                self._later_send_failed(flow, "the socket is closed")
            else:
                self._send_datagram(udp, flow, data)
            return
        stream = self._streams.get(flow.id)
        if stream is None or stream.ending:
            self._later_send_failed(flow, "the connection is closed")
            return
        self._used(stream)
        stream.transport.write(data)
        if stream.transport.get_write_buffer_size() > self._limits.unsent:
            self._end(stream, "the peer does not read")

    def open(self, target: Target) -> None:
        """Find the way to `target`; answered later by `flow_opened` or `flow_failed`."""
        if not is_address(target.host):
            # `[::1.2.3]` in a Contact, `1:2` in a zone: the C library would ask name servers for
            # it, and the loop would stand still meanwhile.
            self._later_flow_failed(target, f"{target.host} is no address")
            return
        if target.transport is Transport.UDP:
            self._open_udp(target)
            return
        if len(self._opening) >= _OPENING_AT_ONCE:
            self._later_flow_failed(target, "too many connections are being opened")
            return
        task = self._loop.create_task(self._open_stream(target))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def close(self, flow: Flow, why: str) -> None:
        """Close a connection after what was sent; not reported. A UDP flow has nothing to close."""
        stream = self._streams.get(flow.id)
        if flow.transport is Transport.UDP or stream is None or stream.ending:
            return
        log.debug("closing %s to %s: %s", flow.transport, flow.remote, why)
        stream.silent = True
        stream.transport.close()
        # A peer that does not read would keep it open.
        self._loop.call_later(_LINGER, stream.transport.abort)

    def local_address(self, host: str) -> str:
        """The address of ours that packets to `host`, an IP literal, leave from.

        Raises TransportError when no route leads there.
        """
        known = self._routes.get(host)
        if known is not None:
            self._routes.move_to_end(host)
            return known
        family = family_of(host)
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                # Sends nothing: the kernel looks the route up and fixes the source address.
                probe.connect(sockaddr(host, 9))
                found = str(probe.getsockname()[0])
        except OSError as fault:
            raise TransportError(f"no way to {host}: {in_words(fault)}") from fault
        self._routes[host] = found
        if len(self._routes) > _CACHED_ROUTES:
            self._routes.popitem(last=False)
        return found

    def moved(self, flow: Flow) -> bool:
        """Whether what `flow` says of us holds no more: the connection ended, no way leads there,
        or packets leave from another address."""
        if flow.transport is not Transport.UDP:
            stream = self._streams.get(flow.id)
            return stream is None or stream.ending
        udp = self._udp.get(flow.id)
        if udp is None:
            return True
        try:
            return self._udp_flow(udp, flow.remote).local != flow.local
        except TransportError:
            return True

    # -- binding

    def _bind(self) -> None:
        """Sockets for every `Listen`; port 0 becomes one number for UDP and TCP of both families,
        as Via and Contact expect of a user agent with one port."""
        attempts = 16 if any(each.port == 0 for each in self._listen) else 1
        for attempt in range(attempts):
            chosen: dict[bool, int] = {}
            try:
                for each in self._listen:
                    self._bind_one(each, chosen)
            except OSError as fault:
                for listener in self._listeners:
                    listener.socket.close()
                for udp in self._udp.values():
                    udp.socket.close()
                self._listeners.clear()
                self._udp.clear()
                if fault.errno == errno.EADDRINUSE and attempt < attempts - 1:
                    continue
                where = f"{each.transport} {each.host or '*'} port {each.port}"
                raise TransportError(f"cannot listen on {where}: {in_words(fault)}") from fault
            return

    def _bind_one(self, each: Listen, chosen: dict[bool, int]) -> None:
        secure = each.transport is Transport.TLS
        for host in (each.host,) if each.host else ("0.0.0.0", "::"):  # noqa: S104 -- on purpose
            port = each.port or chosen.get(secure, 0)
            try:
                made = self._bound(each.transport, host, port)
            except OSError as fault:
                if not each.host and host == "::" and fault.errno in NO_IPV6:
                    continue
                raise
            port = int(made.getsockname()[1])
            chosen.setdefault(secure, port)
            if each.transport is Transport.UDP:
                self._ids += 1
                self._udp[self._ids] = _UdpSocket(self._ids, made, host, port)
            else:
                self._listeners.append(_Listener(each.transport, made, host, port))

    def _bound(self, transport: Transport, host: str, port: int) -> socket.socket:
        made = self._socket(
            family_of(host),
            socket.SOCK_DGRAM if transport is Transport.UDP else socket.SOCK_STREAM,
        )
        try:
            if made.family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if transport is not Transport.UDP:
                # Else a restart waits a minute for the connections of before.
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            elif made.family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            else:
                made.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            made.bind(sockaddr(host, port))
        except OSError:
            made.close()
            raise
        return made

    def _socket(self, family: int, kind: int) -> socket.socket:
        made = socket.socket(family, kind)
        made.setblocking(False)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, self._dscp << 2)
        else:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, self._dscp << 2)
        return made

    # -- UDP

    def _open_udp(self, target: Target) -> None:
        family = family_of(target.host)
        for udp in self._udp.values():
            if udp.socket.family == family:
                break
        else:
            self._later_flow_failed(target, f"no UDP socket for {target.host}")
            return
        try:
            # By the number of its interface, as what comes from there has it.
            flow = self._udp_flow(udp, remote_of(sockaddr(target.host, target.port)))
        except (OSError, TransportError) as fault:
            self._later_flow_failed(target, in_words(fault))
            return
        self._later(lambda sink: sink.flow_opened(target, flow))

    def _udp_flow(self, udp: "_UdpSocket", remote: tuple[str, int]) -> Flow:
        local = self.local_address(remote[0]) if udp.host in _ANY else without_zone(udp.host)
        return Flow(udp.id, Transport.UDP, (local, udp.port), remote)

    def _send_datagram(self, udp: "_UdpSocket", flow: Flow, data: bytes) -> None:
        for _ in range(2):
            try:
                udp.socket.sendto(data, sockaddr(*flow.remote))
            except OSError as fault:
                if fault.errno in _LOST:
                    self.counters["udp_congested"] += 1
                elif self._read_errors(udp):
                    continue  # the error was an earlier packet's; this one was not sent
                else:
                    self._later_send_failed(flow, in_words(fault))
            return
        self.counters["udp_congested"] += 1

    def _readable(self, udp: "_UdpSocket") -> None:
        for _ in range(_DATAGRAMS_PER_WAKE):
            try:
                size, source = udp.socket.recvfrom_into(udp.buffer)
            except (BlockingIOError, InterruptedError):
                self._read_errors(udp)
                return
            except OSError:
                if not self._read_errors(udp):
                    return
                continue
            data = bytes(udp.view[:size])
            try:
                flow = self._udp_flow(udp, remote_of(source))
            except TransportError:
                # A source that cannot be answered: spoofed, or our route has just gone.
                self.counters["udp_unanswerable"] += 1
                continue
            if self._sink is not None:
                self._sink.data_received(flow, data)
            if udp.socket.fileno() < 0:
                return

    def _read_errors(self, udp: "_UdpSocket") -> int:
        """Empty the error queue, reporting unreachable peers later; how many errors there were."""
        count = 0
        while count < _DATAGRAMS_PER_WAKE:
            try:
                _, extra, _, source = udp.socket.recvmsg(0, 512, socket.MSG_ERRQUEUE)
            except OSError:
                break
            count += 1
            for level, kind, data in extra:
                if (level, kind) not in _RECVERR or len(data) < _EXTENDED_ERROR.size:
                    continue
                number, origin, icmp_type, *_ = _EXTENDED_ERROR.unpack_from(data)
                # RFC 3261 §18.4: unreachable is a transport error, time exceeded and the like are
                # not. EMSGSIZE (path MTU) neither: the repetition goes out in fragments.
                if number != errno.EMSGSIZE and (origin, icmp_type) in _UNREACHABLE and source:
                    self._unreachable(udp, remote_of(source), os.strerror(number))
        return count

    def _unreachable(self, udp: "_UdpSocket", remote: tuple[str, int], reason: str) -> None:
        try:
            flow = self._udp_flow(udp, remote)
        except TransportError:
            flow = Flow(udp.id, Transport.UDP, (udp.host, udp.port), remote)
        self._later_send_failed(flow, reason)

    # -- streams

    async def _open_stream(self, target: Target) -> None:
        made: socket.socket | None = None
        stage = "connecting"
        try:
            async with asyncio.timeout(self._limits.connect):
                made = self._socket(family_of(target.host), socket.SOCK_STREAM)
                await self._loop.sock_connect(made, sockaddr(target.host, target.port))
            context = None
            if target.transport is Transport.TLS:
                stage = "TLS"
                context = await self._context()
            stream = _Stream(self, target.transport, target=target)
            # asyncio wants a name; ours is checked in `connected`, an address is no server name.
            name = target.tls_name if context and not is_address(target.tls_name) else ""
            if name:
                name.encode("idna")  # `sip:a..b;maddr=` is none: asyncio would lose the socket
            # The socket is the transport's from here on, also when the handshake fails.
            handed, made = made, None
            await self._loop.create_connection(
                lambda: stream,
                sock=handed,
                ssl=context,
                server_hostname=name if context else None,
                ssl_handshake_timeout=self._limits.handshake if context else None,
                ssl_shutdown_timeout=_LINGER if context else None,
            )
            if stream.refused:
                self._later_flow_failed(target, f"{stage}: {stream.refused}")
        except TimeoutError:
            self._later_flow_failed(target, f"{stage}: no answer in time")
        except (OSError, TransportError, UnicodeError) as fault:
            self._later_flow_failed(target, f"{stage}: {in_words(fault)}")
        finally:
            if made is not None:
                made.close()

    async def _context(self) -> "ssl.SSLContext":
        """Loaded at the first TLS connection, off the loop: the system's authorities take a while.

        A failure is not kept, so a CA file put right is found by the next attempt.
        """
        if self._client_context is None:
            self._client_context = self._loop.create_task(
                asyncio.to_thread(client_context, self._tls)
            )
        try:
            return await asyncio.shield(self._client_context)
        except TransportError:
            self._client_context = None
            raise

    def _acceptable(self, listener: "_Listener") -> None:
        for _ in range(_DATAGRAMS_PER_WAKE):
            try:
                made, source = listener.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as fault:
                # Out of descriptors: the listener stays readable, so rest instead of spinning.
                log.warning("cannot accept connections for a second: %s", in_words(fault))
                self._loop.remove_reader(listener.socket.fileno())
                self._loop.call_later(1.0, self._accept_again, listener)
                return
            stranger = stranger_of(str(source[0]))
            if self._strangers[stranger] >= self._limits.per_stranger:
                self.counters["connections_refused"] += 1
                made.close()
                continue
            self._make_room()
            made.setblocking(False)
            stream = _Stream(self, listener.transport, stranger=stranger)
            self._strangers[stranger] += 1
            task = self._loop.create_task(self._accept(made, stream))
            self._accepting[task] = (made, stream)
            task.add_done_callback(self._accepted)

    def _accept_again(self, listener: "_Listener") -> None:
        if not self._closed:
            self._loop.add_reader(listener.socket.fileno(), self._acceptable, listener)

    async def _accept(self, made: socket.socket, stream: "_Stream") -> None:
        secure = stream.kind is Transport.TLS
        stream.handed = True
        try:
            await self._loop.connect_accepted_socket(
                lambda: stream,
                made,
                ssl=self._server_context if secure else None,
                ssl_handshake_timeout=self._limits.handshake if secure else None,
                ssl_shutdown_timeout=_LINGER if secure else None,
            )
        except OSError as fault:
            self.counters["handshakes_failed"] += 1
            if self.counters["handshakes_failed"] % _COLLECT_EVERY == 0:
                gc.collect()
            log.debug("no TLS connection with %s: %s", stream.stranger, in_words(fault))

    def _accepted(self, task: asyncio.Task[None]) -> None:
        """Not in a `finally` of the task: one that is cancelled before its first step has none."""
        made, stream = self._accepting.pop(task)
        if not stream.handed:
            made.close()
        if stream.flow is None:
            self._stranger_left(stream.stranger)

    def _stranger_left(self, stranger: str) -> None:
        if stranger:
            self._strangers[stranger] -= 1
            if self._strangers[stranger] <= 0:
                del self._strangers[stranger]

    def _make_room(self) -> None:
        """Connections in their handshake count too: they hold a descriptor each."""
        streams = [stream for stream in self._streams.values() if not stream.ending]
        handshakes = [task for task in self._accepting if not task.cancelling()]
        if len(streams) + len(handshakes) < self._limits.connections:
            return
        self.counters["connections_displaced"] += 1
        # Half-finished handshakes first: nothing of value is lost with them.
        if handshakes:
            handshakes[0].cancel()
        else:
            # Strangers before the registrar's connection, which may well be idle for longer.
            oldest = next((stream for stream in streams if stream.stranger), streams[0])
            self._end(oldest, "made room for another connection")

    def connected(self, stream: "_Stream", transport: asyncio.Transport) -> None:
        """A stream is there, its handshake done."""
        made = cast(socket.socket, transport.get_extra_info("socket"))
        try:
            remote = remote_of(made.getpeername())
            host, port = made.getsockname()[:2]
        except OSError:
            # Gone already; what comes next is connection_lost, and nobody knew of it.
            stream.refused = "closed by the peer"
            transport.abort()
            return
        if stream.target is not None and stream.kind is Transport.TLS:
            name = stream.target.tls_name or stream.target.host
            stream.refused = wrong_name(transport.get_extra_info("peercert"), name)
            if stream.refused:
                transport.abort()
                return
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # A peer that vanished is noticed when 64*T1 have passed without an acknowledgement.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 32_000)
        transport.set_write_buffer_limits(high=self._limits.unsent)
        if stream.kind is Transport.TCP:
            transport.max_size = _BYTES_PER_WAKE  # type: ignore[attr-defined]  # asyncio's own
        if stream.target is not None:
            self._make_room()
        listened = self._listened(stream.kind, made.family, port)
        self._ids += 1
        stream.flow = Flow(self._ids, stream.kind, (without_zone(str(host)), listened), remote)
        stream.ended = self._loop.create_future()
        self._streams[stream.flow.id] = stream
        self._used(stream)
        if self._closed:
            stream.silent = True
            transport.abort()
        elif stream.target is not None and self._sink is not None:
            self._sink.flow_opened(stream.target, stream.flow)

    def received(self, stream: "_Stream", data: bytes) -> None:
        """Bytes on a connection."""
        if stream.flow is None or stream.ending or self._sink is None:
            return
        self._used(stream)
        self._sink.data_received(stream.flow, data)

    def lost(self, stream: "_Stream", fault: Exception | None) -> None:
        """A connection ended, from whichever side."""
        if stream.flow is None:
            return
        del self._streams[stream.flow.id]
        self._stranger_left(stream.stranger)
        stream.ended.set_result(None)
        if not stream.silent and self._sink is not None:
            reason = stream.reason or (in_words(fault) if fault else "closed by the peer")
            self._sink.flow_closed(stream.flow, reason)

    def _listened(self, kind: Transport, family: int, port: int) -> int:
        """The port peers reach us at over `kind`; without a listener the connection's own."""
        for listener in self._listeners:
            if listener.transport is kind and listener.socket.family == family:
                return listener.port
        return port

    def _end(self, stream: "_Stream", reason: str) -> None:
        """End it at once, unsent bytes and all; reported by `flow_closed`."""
        if not stream.ending:
            stream.reason = reason
            stream.transport.abort()

    def _used(self, stream: "_Stream") -> None:
        stream.last_used = self._loop.time()
        if stream.flow is not None:
            self._streams.move_to_end(stream.flow.id)
        if self._idle_timer is None and stream.stranger and not self._closed:
            at = stream.last_used + self._limits.idle
            self._idle_timer = self._loop.call_at(at, self._close_idle)

    def _close_idle(self) -> None:
        self._idle_timer = None
        now = self._loop.time()
        for stream in list(self._streams.values()):
            if not stream.stranger or stream.ending:
                continue
            if stream.last_used + self._limits.idle > now:
                at = stream.last_used + self._limits.idle
                self._idle_timer = self._loop.call_at(at, self._close_idle)
                return
            self._end(stream, f"idle for {self._limits.idle:.0f} seconds")

    # -- the network under us

    def _changed(self) -> None:
        """Addresses or routes changed: forget what was looked up, end what cannot work again."""
        self._routes.clear()
        for stream in list(self._streams.values()):
            if stream.flow is not None and not is_ours(stream.flow.local[0]):
                # TCP would go on repeating from an address that is gone, for minutes.
                self._end(stream, f"our address {stream.flow.local[0]} is gone")
        if self._network_changed is not None:
            self._network_changed()

    # -- reports, each from the loop itself

    def _later(self, tell: Callable[[Sink], None]) -> None:
        def run() -> None:
            if self._sink is not None and not self._closed:
                tell(self._sink)

        self._loop.call_soon(run)

    def _later_flow_failed(self, target: Target, reason: str) -> None:
        self._later(lambda sink: sink.flow_failed(target, reason))

    def _later_send_failed(self, flow: Flow, reason: str) -> None:
        self._later(lambda sink: sink.send_failed(flow, reason))


# The same as lost on the way: the transaction repeats it. ENOBUFS is also what a cable just pulled,
# or a line slower than we send, makes of a datagram that the kernel had taken.
_LOST: Final = (errno.EAGAIN, errno.ENOBUFS)
_ANY: Final = ("0.0.0.0", "::")  # noqa: S104 -- compared with, not bound
NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""What binding to an IPv6 address says where that is switched off."""
_RECVERR: Final = (
    (socket.IPPROTO_IP, _IP_RECVERR),
    (socket.IPPROTO_IPV6, _IPV6_RECVERR),
)
_UNREACHABLE: Final = (
    (_ORIGIN_ICMP, _ICMP_UNREACHABLE),
    (_ORIGIN_ICMP6, _ICMP6_UNREACHABLE),
)


class _UdpSocket:
    __slots__ = ("buffer", "host", "id", "port", "socket", "view")

    def __init__(self, id_: int, made: socket.socket, host: str, port: int) -> None:
        self.id = id_
        self.socket = made
        self.host = host
        self.port = port
        self.buffer = bytearray(_LARGEST_DATAGRAM)
        self.view = memoryview(self.buffer)


class _Listener(msgspec.Struct, frozen=True):
    transport: Transport
    socket: socket.socket
    host: str
    port: int


class _Stream(asyncio.Protocol):
    """One TCP or TLS connection. `target` when we opened it, `stranger` when we accepted it."""

    __slots__ = (
        "ended",
        "flow",
        "handed",
        "kind",
        "last_used",
        "owner",
        "reason",
        "refused",
        "silent",
        "stranger",
        "target",
        "transport",
    )

    def __init__(
        self,
        owner: SipSockets,
        kind: Transport,
        *,
        target: Target | None = None,
        stranger: str = "",
    ) -> None:
        self.owner = owner
        self.kind = kind
        self.target = target
        self.stranger = stranger
        self.flow: Flow | None = None
        self.last_used = 0.0
        self.reason = ""  # why we close it
        self.refused = ""  # why it never became a flow
        self.silent = False  # its end is not reported
        self.handed = False  # the accepted socket is a transport's
        self.transport: asyncio.Transport
        self.ended: asyncio.Future[None]

    @property
    def ending(self) -> bool:
        return self.silent or bool(self.reason)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.owner.connected(self, self.transport)

    def data_received(self, data: bytes) -> None:
        self.owner.received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.owner.lost(self, exc)
