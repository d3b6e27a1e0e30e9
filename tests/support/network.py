"""A simulated network in virtual time: joins objects that have the inputs of `sip.Endpoint`.

    network = Network(seed=7, conditions=Conditions(loss=0.1, duplicate=0.05))
    network.zone["A", "pbx.example"] = address("192.0.2.2")
    door = network.attach(Endpoint(SeededIds(1)), "192.0.2.1", on_output=door_user.output)
    pbx = network.attach(Endpoint(SeededIds(2)), "192.0.2.2")
    door.do(door.node.send_request(build, uri, network.now)[1])
    network.run(40)
    assert pbx.seen == [RequestReceived(...), ...]

What a node returns is carried out in order: `Send`, `OpenFlow`, `CloseFlow` and `Resolve` here,
everything else goes to `on_output(output, now)` of its host, whose result is carried out as well,
and into `seen`. All chance comes from one seeded generator: a run can be repeated exactly.

UDP loses, repeats, delays and thereby reorders; to a port nobody listens on it comes back as
`send_failed`, to a host that is down or does not exist it vanishes. TCP and TLS keep order, lose
nothing (a loss costs one more delay) and arrive in pieces; connecting is refused where nobody
listens and unanswered where there is no host.
"""

import heapq
import random
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from doorstation.net.agent_shell import Agent as Node
from doorstation.sip.transport import (
    AddressRecord,
    CloseFlow,
    DnsAnswer,
    DnsQuery,
    DnsResult,
    Flow,
    OpenFlow,
    Resolve,
    Send,
    Target,
    Transport,
)

N = TypeVar("N", bound=Node)
OnOutput = Callable[[object, float], Sequence[object] | None]
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Conditions:
    """How bad the network is: delays in seconds, the rest chances from 0 to 1."""

    delay: float = 0.010
    jitter: float = 0.0  # up to this much more, each packet by itself: reorders
    loss: float = 0.0
    duplicate: float = 0.0
    split: float = 0.0  # that a piece of a stream is cut in two


@dataclass(frozen=True, slots=True)
class Packet:
    """One datagram or one write to a stream, as it was sent."""

    at: float
    transport: Transport
    source: Address
    destination: Address
    data: bytes

    @property
    def first_line(self) -> str:
        return self.data.split(b"\r\n", 1)[0].decode(errors="replace")


@dataclass(slots=True, eq=False)
class _Connection:
    """A stream: two ends, by the id of their flow."""

    ends: dict[int, tuple["Host[Node]", Flow]]
    free_at: dict[int, float] = field(default_factory=dict)  # order is kept in each direction
    open: bool = True


@dataclass(slots=True, eq=False)
class Host(Generic[N]):
    """A node and its place in the network."""

    network: "Network"
    node: N
    addresses: tuple[str, ...]
    ports: dict[Transport, int]
    on_output: OnOutput | None
    tls_names: frozenset[str] | None  # what its certificate proves; None: anything
    seen: list[object] = field(default_factory=list)
    up: bool = True
    sockets: dict[str, int] = field(default_factory=dict)  # UDP socket ids by address

    def do(self, outputs: Iterable[object]) -> None:
        """Carry out what the node returned."""
        self.network.do(self, outputs)

    def move(self, *addresses: str, reason: str = "address changed") -> None:
        """Change addresses: sockets and connections of the old ones are gone, the node is told."""
        old = [
            Flow(number, Transport.UDP, (address, self.ports.get(Transport.UDP, 0)), ("", 0))
            for address, number in self.sockets.items()
        ]
        self.network.break_connections(self, reason, both=True)
        self.addresses = addresses
        self.sockets = {address: self.network.new_flow_id() for address in addresses}
        for flow in old:
            self.do(self.node.flow_closed(flow, reason, self.network.now))

    def saw(self, kind: type[object]) -> list[object]:
        """The outputs of one kind, in order."""
        return [output for output in self.seen if isinstance(output, kind)]

    def go_down(self) -> None:
        """Fall silent: nothing arrives, nothing leaves, timers rest. Connections just hang."""
        self.up = False

    def come_up(self, node: N | None = None) -> None:
        """Be there again; with a new node all connections of the old one break."""
        self.up = True
        if node is not None:
            self.node = node
            self.network.break_connections(self, "peer restarted")


class Network:
    """Hosts, connections, a zone and a clock."""

    def __init__(
        self, seed: int = 0, conditions: Conditions = Conditions(), *, trace: bool = False
    ) -> None:
        self.now = 0.0
        self.conditions = conditions
        self.zone: MutableMapping[tuple[str, str], DnsResult] = {}
        self.dns_answers = True  # False: the name server is dead
        self.trace = trace
        self.packets: list[Packet] = []  # filled with `trace`
        self.drop: Callable[[Packet], bool] | None = None  # True loses this UDP packet
        self._random = random.Random(seed)
        self._hosts: list[Host[Node]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._connections: dict[int, _Connection] = {}
        self._count = 0
        self._last_flow = 0

    def attach(
        self,
        node: N,
        *addresses: str,
        transports: Iterable[Transport] = tuple(Transport),
        port: int = 5060,
        tls_port: int = 5061,
        tls_names: Iterable[str] | None = None,
        on_output: OnOutput | None = None,
    ) -> Host[N]:
        """Give a node its addresses and what it listens on."""
        ports = {t: tls_port if t is Transport.TLS else port for t in transports}
        names = None if tls_names is None else frozenset(tls_names)
        host = Host(self, node, addresses, ports, on_output, names)
        for address in addresses:
            host.sockets[address] = self.new_flow_id()
        self._hosts.append(host)  # type: ignore[arg-type]
        return host

    @property
    def connections(self) -> int:
        """How many streams are open."""
        return len(self._connections) // 2

    def new_flow_id(self) -> int:
        """A flow id that was never used."""
        self._last_flow += 1
        return self._last_flow

    # The clock

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._step(end):
            pass
        self.now = end

    def run_until(self, condition: Callable[[], bool], limit: float = 600.0) -> None:
        """Let time pass until the condition holds; fails above `limit` seconds."""
        end = self.now + limit
        while not condition():
            assert self._step(end), f"not within {limit} s"

    def run_until_quiet(self, limit: float = 600.0) -> None:
        """Let time pass until nothing is under way and no timer is set."""
        end = self.now + limit
        while self._step(end):
            pass
        assert self._next_at() is None, f"still busy after {limit} s"

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, action))

    def _next_at(self) -> float | None:
        times = [self._events[0][0]] if self._events else []
        times += [d for host in self._hosts if host.up and (d := host.node.deadline) is not None]
        return min(times) if times else None

    def _step(self, end: float) -> bool:
        """Do the next thing that happens until `end`; False when there is none."""
        at = self._next_at()
        if at is None or at > end:
            return False
        self.now = max(self.now, at)
        if self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()
            return True
        for host in self._hosts:
            due = host.node.deadline if host.up else None
            if due is not None and due <= self.now:
                self.do(host, host.node.timer_fired(self.now))
        return True

    # What nodes want

    def do(self, host: Host[N], outputs: Iterable[object]) -> None:
        """Carry outputs out in order, and what the host's user makes of them."""
        for output in outputs:
            match output:
                case Send(flow, data):
                    self._send(host, flow, data)
                case OpenFlow(target):
                    self._open(host, target)
                case CloseFlow(flow, why):
                    self.close(flow, why)
                case Resolve(query):
                    self._resolve(host, query)
                case _:
                    host.seen.append(output)
                    reaction = host.on_output(output, self.now) if host.on_output else None
                    if reaction:
                        self.do(host, reaction)

    def _deliver(self, host: Host[N], call: Callable[[N], Sequence[object]]) -> None:
        if host.up:
            self.do(host, call(host.node))

    def _resolve(self, host: Host[N], query: DnsQuery) -> None:
        if not self.dns_answers:
            return
        result = self.zone.get((query.kind, query.name), DnsAnswer((), 60.0))
        self.at(
            self._delay(),
            lambda: self._deliver(host, lambda node: node.resolved(query, result, self.now)),
        )

    def _open(self, host: Host[N], target: Target) -> None:
        local = next((a for a in host.addresses if (":" in a) == (":" in target.host)), None)
        if local is None or target.transport not in host.ports:
            self._refuse(host, target, "network is unreachable")
            return
        near: Address = (local, host.ports[target.transport])
        far: Address = (target.host, target.port)
        if target.transport is Transport.UDP:
            # Choosing a socket sends nothing, so it takes no time and cannot fail.
            flow = Flow(host.sockets[local], Transport.UDP, near, far)
            self.at(
                0.0,
                lambda: self._deliver(host, lambda node: node.flow_opened(target, flow, self.now)),
            )
            return
        peer = self._host_at(target.host)
        if peer is None or not peer.up:
            return
        if peer.ports.get(target.transport) != target.port:
            self._refuse(host, target, "connection refused", self._delay())
        elif (
            target.transport is Transport.TLS
            and peer.tls_names is not None
            and target.tls_name not in peer.tls_names
        ):
            self._refuse(
                host, target, f"certificate does not name {target.tls_name}", self._delay()
            )
        else:
            self.at(2 * self._delay(), lambda: self._connect(host, target, near, peer))

    def _connect(self, host: Host[N], target: Target, near: Address, peer: Host[Node]) -> None:
        if not peer.up:
            return
        far: Address = (target.host, target.port)
        ours = Flow(self.new_flow_id(), target.transport, near, far)
        source = (near[0], 32_768 + ours.id % 28_000)
        theirs = Flow(self.new_flow_id(), target.transport, far, source)
        connection = _Connection({ours.id: (host, ours), theirs.id: (peer, theirs)})  # type: ignore[dict-item]
        self._connections[ours.id] = self._connections[theirs.id] = connection
        self._deliver(host, lambda node: node.flow_opened(target, ours, self.now))

    def _refuse(self, host: Host[N], target: Target, reason: str, delay: float = 0.0) -> None:
        self.at(
            delay,
            lambda: self._deliver(host, lambda node: node.flow_failed(target, reason, self.now)),
        )

    # Bytes under way

    def _send(self, host: Host[N], flow: Flow, data: bytes) -> None:
        if not host.up:
            return
        packet = Packet(self.now, flow.transport, flow.local, flow.remote, data)
        if self.trace:
            self.packets.append(packet)
        if flow.transport.reliable:
            self._send_stream(flow, data)
            return
        chance = self._random.random
        if chance() < self.conditions.loss or (self.drop is not None and self.drop(packet)):
            return
        copies = 2 if chance() < self.conditions.duplicate else 1
        for _ in range(copies):
            self.at(self._delay(), lambda: self._datagram(host, flow, data))

    def _datagram(self, sender: Host[N], flow: Flow, data: bytes) -> None:
        host = self._host_at(flow.remote[0])
        if host is None or not host.up:
            return
        if host.ports.get(Transport.UDP) != flow.remote[1]:
            self._deliver(sender, lambda node: node.send_failed(flow, "port unreachable", self.now))
            return
        arrived = Flow(host.sockets[flow.remote[0]], Transport.UDP, flow.remote, flow.local)
        self._deliver(host, lambda node: node.data_received(arrived, data, self.now))

    def _send_stream(self, flow: Flow, data: bytes) -> None:
        connection = self._connections.get(flow.id)
        if connection is None:
            return
        cut = self._random.randrange(1, len(data)) if len(data) > 1 else 0
        whole = not cut or self._random.random() >= self.conditions.split
        for piece in [data] if whole else [data[:cut], data[cut:]]:
            self._arrive(connection, flow, piece)

    def _arrive(self, connection: _Connection, flow: Flow, data: bytes) -> None:
        delay = self._delay()
        if self._random.random() < self.conditions.loss:
            delay += self._delay() + 0.2
        arrival = max(self.now + delay, connection.free_at.get(flow.id, 0.0))
        connection.free_at[flow.id] = arrival
        host, far = self._far_end(connection, flow)

        def arrive() -> None:
            if connection.open:
                self._deliver(host, lambda node: node.data_received(far, data, self.now))

        self.at(arrival - self.now, arrive)

    def close(self, flow: Flow, why: str = "closed by the peer") -> None:
        """End a connection from one side; the other hears of it after all that was sent."""
        connection = self._connections.pop(flow.id, None)
        if connection is None:
            return
        host, far = self._far_end(connection, flow)
        self._connections.pop(far.id, None)
        last = max(self.now + self._delay(), connection.free_at.get(flow.id, 0.0))

        def closed() -> None:
            connection.open = False
            self._deliver(host, lambda node: node.flow_closed(far, why, self.now))

        self.at(last - self.now, closed)

    def break_connections(self, host: Host[N], reason: str, *, both: bool = False) -> None:
        """End all connections of a host; the far ends are told, with `both` itself as well."""
        for connection in {id(c): c for c in self._connections.values()}.values():
            for end, flow in list(connection.ends.values()):
                if end is host and both:
                    self.cut(flow, reason)
                elif end is host:
                    self.close(flow, reason)

    def cut(self, flow: Flow, reason: str = "connection reset") -> None:
        """Break a connection at once; both ends are told."""
        connection = self._connections.get(flow.id)
        if connection is None:
            return
        connection.open = False
        for host, end in connection.ends.values():
            self._connections.pop(end.id, None)
            self._deliver(host, lambda node, end=end: node.flow_closed(end, reason, self.now))  # type: ignore[misc]

    def _far_end(self, connection: _Connection, flow: Flow) -> tuple[Host[Node], Flow]:
        return next(end for number, end in connection.ends.items() if number != flow.id)

    def _delay(self) -> float:
        return self.conditions.delay + self.conditions.jitter * self._random.random()

    def _host_at(self, address: str) -> Host[Node] | None:
        return next((host for host in self._hosts if address in host.addresses), None)


def address(*addresses: str, ttl: float = 300.0) -> DnsAnswer:
    """The zone's answer with these addresses."""
    return DnsAnswer(tuple(AddressRecord(text) for text in addresses), ttl)
