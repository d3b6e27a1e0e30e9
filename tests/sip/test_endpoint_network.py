"""Two or more endpoints on a simulated network: failover, transports, loss, a long day."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from doorstation.ids import SeededIds
from doorstation.sip.endpoint import (
    AckReceived,
    CancelReceived,
    Endpoint,
    FlowLost,
    RequestFailed,
    RequestReceived,
    ResponseReceived,
    StrayResponse,
)
from doorstation.sip.headers import Headers
from doorstation.sip.locate import FAILED_SECONDS
from doorstation.sip.message import Request, make_response
from doorstation.sip.transport import (
    DnsAnswer,
    Flow,
    NaptrRecord,
    OpenFlow,
    SrvRecord,
    Transport,
)
from doorstation.sip.uri import SipUri

from tests.support.network import Conditions, Host, Network, address

DOOR, ONE, TWO = "192.0.2.1", "192.0.2.11", "192.0.2.12"


def build(
    method: str = "OPTIONS", call_id: str = "c", cseq: int = 1, size: int = 0, to_tag: str = ""
) -> Callable[[Flow], Request]:
    to = f"<sip:bob@pbx.example>;tag={to_tag}" if to_tag else "<sip:bob@pbx.example>"

    def make(flow: Flow) -> Request:
        headers = [
            ("Max-Forwards", "70"),
            ("From", "<sip:door@pbx.example>;tag=d"),
            ("To", to),
            ("Call-ID", call_id),
            ("CSeq", f"{cseq} {method}"),
            ("Contact", f"<sip:door@{flow.local[0]}:{flow.local[1]}>"),
        ]
        return Request(
            method, SipUri(user="bob", host="pbx.example"), Headers(headers), b"x" * size
        )

    return make


@dataclass
class Server:
    """Answers what it gets after a while: the statuses, in order."""

    network: Network
    statuses: tuple[int, ...] = (200,)
    wait: float = 0.1
    headers: tuple[tuple[str, str], ...] = ()
    host: Host[Endpoint] = field(init=False)
    acks: Counter[str] = field(default_factory=Counter)
    got: list[RequestReceived] = field(default_factory=list)

    def start(
        self, *addresses: str, seed: int = 2, transports: Sequence[Transport] = tuple(Transport)
    ) -> "Server":
        node = Endpoint(SeededIds(seed), transports=transports)
        self.host = self.network.attach(
            node, *addresses, transports=transports, on_output=self.output
        )
        return self

    def output(self, output: object, now: float) -> Sequence[object] | None:
        match output:
            case RequestReceived():
                self.got.append(output)
                for n, status in enumerate(self.statuses):
                    if status < 200 and output.request.method != "INVITE":
                        continue
                    self.network.at(self.wait * (n + 1), self.answer(output, status))
            case AckReceived(request, _):
                self.acks[request.call_id] += 1
            case CancelReceived(server_id, _):
                request = next(r.request for r in self.got if r.server_id == server_id)
                response = make_response(request, 487, to_tag="s")
                return self.host.node.respond(server_id, response, now)
        return None

    def answer(self, event: RequestReceived, status: int) -> Callable[[], None]:
        def answer() -> None:
            response = make_response(event.request, status, to_tag="s")
            for name, value in self.headers:
                response.headers.add(name, value)
            now = self.network.now
            self.host.do(self.host.node.respond(event.server_id, response, now))

        return answer


def door(
    network: Network,
    transports: Sequence[Transport] = tuple(Transport),
    on_output: Callable[[object, float], Sequence[object] | None] | None = None,
    ipv6: bool = False,
) -> Host[Endpoint]:
    node = Endpoint(SeededIds(1), transports=transports, ipv6=ipv6)
    return network.attach(node, DOOR, on_output=on_output)


def ask(host: Host[Endpoint], uri: str | SipUri = "pbx.example", **request: object) -> int:
    next_hop = SipUri(host=uri) if isinstance(uri, str) else uri
    make = build(**request)  # type: ignore[arg-type]
    number, outputs = host.node.send_request(make, next_hop, host.network.now)
    host.do(outputs)
    return number


def finals(host: Host[Endpoint]) -> list[int]:
    """Statuses of all requests that ended, as the user sees them."""
    return [
        output.response.status if isinstance(output, ResponseReceived) else output.status
        for output in host.seen
        if isinstance(output, RequestFailed)
        or (isinstance(output, ResponseReceived) and output.response.status >= 200)
    ]


def assert_empty(host: Host[Endpoint]) -> None:
    assert host.node.deadline is None
    assert {name: n for name, n in host.node.load.items() if n and name != "flows"} == {}


def two_servers(network: Network, port: int = 5060) -> None:
    network.zone["SRV", "_sip._udp.pbx.example"] = DnsAnswer(
        (SrvRecord(1, 1, port, "one.example"), SrvRecord(2, 1, port, "two.example")), 3600
    )
    network.zone["A", "one.example"] = address(ONE)
    network.zone["A", "two.example"] = address(TWO)


# Failover within a request and across requests, RFC 3263 4.3


def test_silent_target_is_left_after_64_t1_for_the_next() -> None:
    network = Network()
    two_servers(network)
    client = door(network, [Transport.UDP])
    server = Server(network).start(TWO)
    ask(client)
    network.run(31)
    assert server.got == []
    network.run(3)
    assert finals(client) == [200]
    network.run_until_quiet()
    assert_empty(client)


def test_next_request_begins_with_the_target_that_worked() -> None:
    network = Network()
    two_servers(network)
    client = door(network, [Transport.UDP])
    Server(network).start(TWO)
    ask(client)
    network.run(40)
    ask(client, call_id="second")
    network.run(1)
    assert finals(client) == [200, 200]


def test_first_target_is_used_again_after_a_while() -> None:
    network = Network()
    two_servers(network)
    client = door(network, [Transport.UDP])
    second = Server(network).start(TWO)
    ask(client)
    network.run(33)
    first = Server(network).start(ONE, seed=3)
    network.run(FAILED_SECONDS)
    ask(client, call_id="second")
    network.run(1)
    assert (len(first.got), len(second.got)) == (1, 1)


def test_closed_port_is_left_at_once() -> None:
    network = Network()
    two_servers(network)
    client = door(network, [Transport.UDP])
    Server(network).start(ONE, transports=[Transport.TCP])
    Server(network, wait=0.01).start(TWO, seed=3)
    ask(client)
    network.run(0.5)
    assert finals(client) == [200]


def test_503_leads_to_the_next_target_with_a_new_branch() -> None:
    network = Network(trace=True)
    two_servers(network)
    client = door(network, [Transport.UDP])
    busy = Server(network, statuses=(503,)).start(ONE)
    good = Server(network, statuses=(180, 200)).start(TWO, seed=3)
    ask(client, method="INVITE")
    network.run(2)
    assert finals(client) == [200]
    branches = [server.got[0].request.top_via.branch for server in (busy, good)]
    assert branches[0] != branches[1]
    assert any(p.first_line.startswith("ACK") and p.destination[0] == ONE for p in network.packets)


def test_last_503_is_delivered_with_its_retry_after() -> None:
    network = Network()
    two_servers(network)
    client = door(network, [Transport.UDP])
    headers = (("Retry-After", "600"),)
    for n, host in enumerate((ONE, TWO)):
        Server(network, statuses=(503,), headers=headers).start(host, seed=5 + n)
    ask(client)
    network.run(2)
    [output] = client.saw(ResponseReceived)
    assert isinstance(output, ResponseReceived)
    assert output.response.status == 503
    assert output.response.headers.get("Retry-After") == "600"


def test_retry_after_of_a_503_says_how_long_the_target_comes_last() -> None:
    network = Network()
    two_servers(network)
    client = door(network, [Transport.UDP])
    busy = Server(network, statuses=(503,), headers=(("Retry-After", "600 (lunch)"),)).start(ONE)
    Server(network).start(TWO, seed=3)
    for n, wait in enumerate((0, 500, 200)):
        network.run(wait)
        ask(client, call_id=f"c{n}")
        network.run(2)
    assert finals(client) == [200, 200, 200]
    assert len(busy.got) == 2


def test_no_server_has_itself_left_alone_for_more_than_an_hour() -> None:
    network = Network()
    two_servers(network)
    client = door(network, [Transport.UDP])
    busy = Server(network, statuses=(503,), headers=(("Retry-After", "999999999"),)).start(ONE)
    Server(network).start(TWO, seed=3)
    for n, (wait, tried) in enumerate(((0, 1), (3500, 1), (150, 2))):
        network.run(wait)
        ask(client, call_id=f"c{n}")
        network.run(2)
        assert len(busy.got) == tried
    assert finals(client) == [200, 200, 200]


def test_every_target_silent_fails_with_408() -> None:
    network = Network()
    two_servers(network)
    client = door(network, [Transport.UDP])
    ask(client)
    network.run(70)
    assert finals(client) == [408]
    assert_empty(client)


def test_server_that_said_trying_is_not_passed_over_for_another() -> None:
    network = Network()
    two_servers(network)
    client = door(network, [Transport.UDP])
    Server(network, wait=1000).start(ONE)
    other = Server(network).start(TWO, seed=3)
    ask(client)
    network.run(100)
    assert finals(client) == [408]
    assert other.got == []


def test_refused_connection_leads_to_the_next_target() -> None:
    network = Network()
    client = door(network)
    network.zone["A", "pbx.example"] = address(ONE, TWO)
    Server(network).start(ONE, transports=[Transport.UDP])
    Server(network).start(TWO, seed=3)
    ask(client, SipUri(host="pbx.example", port=5060, params=(("transport", "tcp"),)))
    network.run(1)
    assert finals(client) == [200]


def test_certificate_that_names_somebody_else_fails_the_target() -> None:
    network = Network()
    client = door(network)
    network.zone["A", "pbx.example"] = address(ONE, TWO)
    for n, (host, name) in enumerate(((ONE, "evil.example"), (TWO, "pbx.example"))):
        server = Server(network).start(host, seed=3 + n)
        server.host.tls_names = frozenset((name,))
    ask(client, SipUri(scheme="sips", host="pbx.example", port=5061))
    network.run(1)
    assert finals(client) == [200]
    [lost] = [t for t in client.node._locator._failed if t.host == ONE]
    assert lost.tls_name == "pbx.example"


def test_cancelled_invite_does_not_go_on_to_the_next_target() -> None:
    network = Network()
    two_servers(network)
    client = door(network, [Transport.UDP])
    other = Server(network).start(TWO)
    number = ask(client, method="INVITE")
    network.run(1)
    client.do(client.node.cancel(number, network.now))
    network.run(60)
    assert finals(client) == [487]
    assert other.got == []
    assert_empty(client)


# Flows


def test_connection_is_used_again() -> None:
    network = Network()
    client = door(network)
    server = Server(network).start(ONE)
    uri = SipUri(host=ONE, params=(("transport", "tcp"),))
    for n in range(3):
        ask(client, uri, call_id=str(n))
        network.run(1)
    assert finals(client) == [200, 200, 200]
    assert network.connections == 1
    assert len({event.flow for event in server.got}) == 1


def test_old_connection_that_breaks_under_a_request_is_replaced_once() -> None:
    network = Network()
    client = door(network)
    server = Server(network, wait=1.0).start(ONE)
    uri = SipUri(host=ONE, params=(("transport", "tcp"),))
    ask(client, uri)
    network.run(2)
    ask(client, uri, call_id="second")
    [flow] = client.node._by_target.values()
    network.cut(flow)
    network.run(3)
    assert finals(client) == [200, 200]
    assert len(client.saw(FlowLost)) == 1
    assert len(server.got) == 2


def test_restarted_peer_breaks_the_connection_and_the_next_request_opens_another() -> None:
    network = Network()
    client = door(network)
    server = Server(network).start(ONE)
    uri = SipUri(host=ONE, params=(("transport", "tcp"),))
    ask(client, uri)
    network.run(1)
    server.host.come_up(Endpoint(SeededIds(9)))
    network.run(1)
    assert len(client.saw(FlowLost)) == 1
    ask(client, uri, call_id="second")
    network.run(1)
    assert finals(client) == [200, 200]


def test_response_finds_back_after_its_connection_was_lost() -> None:
    network = Network()
    client = door(network)
    Server(network, statuses=(180, 200), wait=1.0).start(ONE)
    uri = SipUri(host=ONE, params=(("transport", "tcp"),))
    ask(client, uri, method="INVITE")
    network.run(1.5)
    [flow] = client.node._by_target.values()
    network.cut(flow)
    network.run(3)
    # The caller has given up with its connection, so the 200 is a stray one to end with BYE.
    assert finals(client) == [503]
    assert len(client.saw(StrayResponse)) == 1


def test_address_change_loses_every_flow() -> None:
    network = Network()
    client = door(network)
    Server(network, wait=5.0).start(ONE)
    ask(client, SipUri(host=ONE))
    ask(client, SipUri(host=ONE, params=(("transport", "tcp"),)), call_id="second")
    network.run(1)
    client.move("192.0.2.99")
    network.run(1)
    assert len(client.saw(FlowLost)) == 2
    assert finals(client) == [503, 503]
    ask(client, SipUri(host=ONE), call_id="third")
    network.run(6)
    assert finals(client) == [503, 503, 200]


# Above the UDP limit, RFC 3261 18.1.1


def test_large_request_moves_from_udp_to_tcp_when_the_peer_has_it() -> None:
    network = Network()
    client = door(network)
    server = Server(network).start(ONE)
    ask(client, ONE, size=1200)
    network.run(1)
    assert finals(client) == [200]
    assert [event.flow.transport for event in server.got] == [Transport.TCP]
    assert server.got[0].request.top_via.transport == "TCP"


def test_small_request_stays_with_udp() -> None:
    network = Network()
    client = door(network)
    server = Server(network).start(ONE)
    ask(client, ONE, size=300)
    network.run(1)
    assert [event.flow.transport for event in server.got] == [Transport.UDP]
    assert network.connections == 0


@pytest.mark.parametrize("refuses", [True, False])
def test_large_request_falls_back_to_udp_when_tcp_fails(refuses: bool) -> None:
    network = Network()
    client = door(network)
    server = Server(network).start(ONE, transports=[Transport.UDP])
    if not refuses:
        # A firewall that swallows the SYN.
        open_flow = network._open
        network._open = lambda host, target: (  # type: ignore[method-assign]
            None if target.transport is Transport.TCP else open_flow(host, target)
        )
    ask(client, ONE, size=1200)
    network.run(7)
    assert finals(client) == [200]
    assert [event.flow.transport for event in server.got] == [Transport.UDP]
    ask(client, ONE, size=1200, call_id="second")
    network.run(1)
    assert finals(client) == [200, 200]


def test_large_request_uses_the_tcp_service_of_the_domain() -> None:
    network = Network()
    client = door(network)
    server = Server(network).start(ONE)
    network.zone["NAPTR", "pbx.example"] = DnsAnswer(
        (
            NaptrRecord(1, 1, "s", "SIP+D2U", "", "_sip._udp.pbx.example"),
            NaptrRecord(2, 1, "s", "SIP+D2T", "", "_sip._tcp.pbx.example"),
        ),
        60,
    )
    for name in ("_sip._udp.pbx.example", "_sip._tcp.pbx.example"):
        network.zone["SRV", name] = DnsAnswer((SrvRecord(1, 1, 5060, "one.example"),), 60)
    network.zone["A", "one.example"] = address(ONE)
    ask(client, size=1200)
    ask(client, call_id="small")
    network.run(1)
    used = {event.request.call_id: event.flow.transport for event in server.got}
    assert used == {"c": Transport.TCP, "small": Transport.UDP}


def test_large_request_on_a_given_udp_flow_stays_there() -> None:
    network = Network()
    client = door(network)
    server = Server(network).start(ONE)
    flow = Flow(client.sockets[DOOR], Transport.UDP, (DOOR, 5060), (ONE, 5060))
    _, outputs = client.node.send_request(build(size=1400), flow, network.now)
    assert not any(isinstance(output, OpenFlow) for output in outputs)
    client.do(outputs)
    network.run(1)
    assert [event.flow.transport for event in server.got] == [Transport.UDP]


# Bad networks


class Caller:
    """Calls like a user agent would: ACKs every 2xx, counts how each request ended."""

    def __init__(self, network: Network, transports: Sequence[Transport]) -> None:
        self.network = network
        self.ended: dict[int, list[int]] = {}
        self.methods: dict[int, str] = {}
        self.host = door(network, transports, self.output)

    def ask(self, uri: SipUri, method: str, call_id: str) -> int:
        make = build(method, call_id)
        number, outputs = self.host.node.send_request(make, uri, self.network.now)
        self.ended[number] = []
        self.methods[number] = method
        self.uri = uri
        self.host.do(outputs)
        return number

    def cancel(self, number: int) -> None:
        self.host.do(self.host.node.cancel(number, self.network.now))

    def output(self, output: object, now: float) -> Sequence[object] | None:
        self.host.seen.clear()
        match output:
            case RequestFailed(number, _, status, _):
                self.ended[number].append(status)
            case ResponseReceived(number, request, response, _) if response.status >= 200:
                if response.status < 300 and request.method == "INVITE":
                    if not self.ended[number]:
                        self.ended[number].append(response.status)
                    ack = build("ACK", request.call_id, to_tag=response.to.tag or "")
                    return self.host.node.send_ack(ack, self.uri, now)
                self.ended[number].append(response.status)
        return None


class Callee(Server):
    """Rings, answers, and repeats its 200 until the ACK, as RFC 3261 13.3.1.4 asks."""

    def output(self, output: object, now: float) -> Sequence[object] | None:
        self.host.seen.clear()
        result = super().output(output, now)
        if isinstance(output, RequestReceived):
            del self.got[:-50]
            if output.request.method == "INVITE":
                self.repeat(output, self.wait * 2 + 0.5, 0.5)
        return result

    def repeat(self, event: RequestReceived, delay: float, interval: float) -> None:
        def again() -> None:
            if self.acks[event.request.call_id] or interval > 16:
                return
            known = self.host.node._servers_by_id.get(event.server_id)
            if known is not None and known.transaction.machine.state.name == "ACCEPTED":
                self.answer(event, 200)()
                self.repeat(event, min(interval * 2, 4.0), min(interval * 2, 4.0))

        self.network.at(delay, again)


BAD = Conditions(delay=0.005, jitter=0.3, loss=0.2, duplicate=0.1, split=0.5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_every_request_ends_exactly_once_on_a_bad_network(seed: int, transport: str) -> None:
    network = Network(seed, BAD)
    caller = Caller(network, tuple(Transport))
    callee = Callee(network, statuses=(180, 200), wait=0.3).start(ONE)
    uri = SipUri(host=ONE, params=(("transport", transport),))
    numbers = []
    for n in range(60):
        method = ("INVITE", "OPTIONS", "MESSAGE")[n % 3]
        number = caller.ask(uri, method, f"call{n}")
        numbers.append(number)
        network.run(0.4)
        if n % 12 == 3:
            caller.cancel(number)
    network.run_until_quiet()
    assert [len(caller.ended[number]) for number in numbers] == [1] * 60
    answered = Counter(status for ends in caller.ended.values() for status in ends)
    assert answered[200] >= 50
    assert set(answered) <= {200, 487, 408}
    accepted = [n for n in numbers if caller.methods[n] == "INVITE" and caller.ended[n] == [200]]
    assert len([c for c in callee.acks if callee.acks[c]]) >= len(accepted)
    assert_empty(caller.host)
    assert_empty(callee.host)


def test_cancelled_calls_end_with_487_on_a_bad_network() -> None:
    network = Network(11, BAD)
    caller = Caller(network, [Transport.UDP])
    callee = Callee(network, statuses=(180,), wait=0.2).start(ONE)
    numbers = []
    for n in range(40):
        number = caller.ask(SipUri(host=ONE), "INVITE", f"call{n}")
        numbers.append(number)
        network.at(1.0 + n * 0.05, lambda number=number: caller.cancel(number))  # type: ignore[misc]
    network.run_until_quiet()
    assert {tuple(caller.ended[number]) for number in numbers} == {(487,)}
    assert_empty(caller.host)
    assert_empty(callee.host)


def test_tables_are_empty_after_a_long_day() -> None:
    network = Network(5, Conditions(delay=0.01, jitter=0.05, loss=0.05, duplicate=0.05))
    network.zone["A", "pbx.example"] = address(ONE, ttl=600)
    caller = Caller(network, [Transport.UDP, Transport.TCP])
    callee = Callee(network, statuses=(180, 200), wait=0.2).start(ONE)
    for n in range(1440):  # one a minute: 24 hours
        params = (("transport", "tcp"),) if n % 4 == 0 else ()
        method = "INVITE" if n % 2 else "OPTIONS"
        caller.ask(SipUri(host="pbx.example", port=5060, params=params), method, f"call{n}")
        network.run(60)
        callee.acks.clear()
        if n == 100:
            plateau = dict(caller.host.node.load)
    assert max(caller.host.node.load.values()) <= max(plateau.values()) + 10
    network.run_until_quiet()
    assert network.now > 86_000
    assert all(len(ends) == 1 for ends in caller.ended.values())
    for host in (caller.host, callee.host):
        assert_empty(host)
        assert host.node.load["flows"] <= 1
