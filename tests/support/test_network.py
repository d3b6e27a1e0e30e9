"""The simulated network keeps its own promises."""

from collections.abc import Sequence

from doorstation.sip.transport import (
    CloseFlow,
    DnsQuery,
    DnsResult,
    Flow,
    OpenFlow,
    Resolve,
    Send,
    Target,
    Transport,
)

from tests.support.network import Conditions, Host, Network, address

A, B = "192.0.2.1", "192.0.2.2"


class Probe:
    """Writes down every input as an output of its own."""

    def __init__(self) -> None:
        self.deadline: float | None = None

    def data_received(self, flow: Flow, data: bytes, now: float) -> Sequence[object]:
        return [("data", flow, data)]

    def flow_opened(self, target: Target, flow: Flow, now: float) -> Sequence[object]:
        return [("opened", flow)]

    def flow_failed(self, target: Target, reason: str, now: float) -> Sequence[object]:
        return [("failed", reason)]

    def flow_closed(self, flow: Flow, reason: str, now: float) -> Sequence[object]:
        return [("closed", flow, reason)]

    def send_failed(self, flow: Flow, reason: str, now: float) -> Sequence[object]:
        return [("send failed", reason)]

    def resolved(self, query: DnsQuery, result: DnsResult, now: float) -> Sequence[object]:
        return [("resolved", query, result)]

    def timer_fired(self, now: float) -> Sequence[object]:
        self.deadline = None
        return [("timer", now)]


def pair(
    conditions: Conditions | None = None, seed: int = 1
) -> tuple[Network, Host[Probe], Host[Probe]]:
    network = Network(seed, conditions or Conditions())
    return network, network.attach(Probe(), A), network.attach(Probe(), B)


def opened(network: Network, host: Host[Probe], transport: Transport) -> Flow:
    host.do([OpenFlow(Target(transport, B, transport.default_port))])
    network.run(1)
    output = host.seen.pop()
    assert isinstance(output, tuple)
    assert output[0] == "opened"
    flow = output[1]
    assert isinstance(flow, Flow)
    return flow


def data(host: Host[Probe]) -> list[bytes]:
    return [o[2] for o in host.seen if isinstance(o, tuple) and o[0] == "data"]


def test_datagrams_are_lost_repeated_and_reordered_the_same_way_each_time() -> None:
    runs = []
    for _ in range(2):
        network, near, far = pair(Conditions(jitter=0.5, loss=0.3, duplicate=0.2), seed=4)
        flow = opened(network, near, Transport.UDP)
        near.do([Send(flow, bytes([n])) for n in range(100)])
        network.run(2)
        runs.append(data(far))
    assert runs[0] == runs[1]
    assert 60 < len(set(runs[0])) < 85
    assert len(runs[0]) > len(set(runs[0]))
    assert runs[0] != sorted(runs[0])


def test_streams_keep_order_and_lose_nothing() -> None:
    network, near, far = pair(Conditions(jitter=0.5, loss=0.3, duplicate=0.2, split=0.5))
    flow = opened(network, near, Transport.TCP)
    near.do([Send(flow, b"%02d" % n) for n in range(50)] + [CloseFlow(flow, "done")])
    network.run(30)
    assert b"".join(data(far)) == b"".join(b"%02d" % n for n in range(50))
    assert far.seen[-1][0] == "closed"  # type: ignore[index]
    assert network.connections == 0


def test_closed_port_and_missing_host_differ() -> None:
    network, near, far = pair()
    far.ports.clear()
    near.do([Send(opened(network, near, Transport.UDP), b"x")])
    near.do(
        [OpenFlow(Target(Transport.TCP, B, 5060)), OpenFlow(Target(Transport.TCP, "9.9.9.9", 1))]
    )
    network.run(5)
    assert near.seen == [("send failed", "port unreachable"), ("failed", "connection refused")]


def test_host_that_is_down_hears_nothing_and_its_timers_rest() -> None:
    network, near, far = pair()
    flow = opened(network, near, Transport.UDP)
    far.node.deadline = 1.5
    far.go_down()
    near.do([Send(flow, b"x")])
    network.run(5)
    assert far.seen == []
    far.come_up()
    network.run_until(lambda: bool(far.seen))
    assert far.seen == [("timer", 6.0)]


def test_names_are_answered_from_the_zone() -> None:
    network, near, _ = pair()
    network.zone["A", "b.example"] = address(B)
    query = DnsQuery("A", "b.example")
    near.do([Resolve(query)])
    network.run_until_quiet()
    assert near.seen == [("resolved", query, address(B))]
