"""The transaction layer by literal bytes: matching, what it answers by itself, flows, limits."""

from collections.abc import Callable

import pytest
from doorstation.ids import SeededIds
from doorstation.sip import endpoint as module
from doorstation.sip.endpoint import (
    MAX_OPENING,
    AckReceived,
    CancelReceived,
    Endpoint,
    FlowLost,
    Output,
    RequestFailed,
    RequestReceived,
    ResponseReceived,
    StrayResponse,
)
from doorstation.sip.headers import Headers
from doorstation.sip.message import Request, Response, format_message, make_response, parse_message
from doorstation.sip.transport import (
    CloseFlow,
    DnsAnswer,
    DnsQuery,
    Flow,
    OpenFlow,
    Resolve,
    Send,
    Target,
    Transport,
)
from doorstation.sip.uri import SipUri

from tests.support.network import address

US = ("192.0.2.1", 5060)
PEER = ("192.0.2.2", 5060)
UDP = Flow(1, Transport.UDP, US, PEER)
TCP = Flow(2, Transport.TCP, US, ("192.0.2.2", 40000))


def endpoint(**options: int) -> Endpoint:
    return Endpoint(SeededIds(1), **options)  # type: ignore[arg-type]


def wire(
    method: str = "INVITE",
    *,
    branch: str = "z9hG4bKone",
    via: str = "",
    call_id: str = "c1",
    cseq: int = 1,
    to_tag: str = "",
    from_tag: str = "f",
    body: bytes = b"",
) -> bytes:
    via = via or f"SIP/2.0/UDP 192.0.2.2:5060;branch={branch}"
    to = f"<sip:door@192.0.2.1>;tag={to_tag}" if to_tag else "<sip:door@192.0.2.1>"
    return (
        f"{method} sip:door@192.0.2.1 SIP/2.0\r\n"
        f"Via: {via}\r\n"
        "Max-Forwards: 70\r\n"
        f"From: <sip:bob@192.0.2.2>;tag={from_tag}\r\n"
        f"To: {to}\r\n"
        f"Call-ID: {call_id}\r\n"
        f"CSeq: {cseq} {method}\r\n"
        "Contact: <sip:bob@192.0.2.2>\r\n"
        f"Content-Length: {len(body)}\r\n"
        "\r\n"
    ).encode() + body


def build(method: str = "OPTIONS", *, size: int = 0) -> Callable[[Flow], Request]:
    def make(flow: Flow) -> Request:
        return Request(
            method,
            SipUri(user="bob", host="192.0.2.2"),
            Headers(
                [
                    ("Max-Forwards", "70"),
                    ("From", "<sip:door@192.0.2.1>;tag=d"),
                    ("To", "<sip:bob@192.0.2.2>"),
                    ("Call-ID", "ours"),
                    ("CSeq", f"1 {method}"),
                    ("Contact", f"<sip:door@{flow.local[0]}:{flow.local[1]}>"),
                ]
            ),
            b"x" * size,
        )

    return make


def sent(outputs: list[Output]) -> list[Request | Response]:
    return [parse_message(output.data) for output in outputs if isinstance(output, Send)]


def one_response(outputs: list[Output]) -> Response:
    [message] = sent(outputs)
    assert isinstance(message, Response)
    return message


def one_request(outputs: list[Output]) -> Request:
    [message] = sent(outputs)
    assert isinstance(message, Request)
    return message


def received(machine: Endpoint, data: bytes, flow: Flow = UDP, now: float = 0.0) -> RequestReceived:
    [output] = machine.data_received(flow, data, now)
    assert isinstance(output, RequestReceived)
    return output


def reply(request: Request, status: int, tag: str = "b") -> bytes:
    return format_message(make_response(request, status, to_tag=tag))


def settle(machine: Endpoint, until: float = 10_000.0) -> list[Output]:
    """Fire all timers."""
    outputs: list[Output] = []
    while (at := machine.deadline) is not None and at <= until:
        outputs += machine.timer_fired(at)
    return outputs


def assert_empty(machine: Endpoint) -> None:
    assert machine.deadline is None
    assert {name: n for name, n in machine.load.items() if n and name != "flows"} == {}


# Requests in: matching, RFC 3261 17.2.3


def test_new_request_is_passed_on() -> None:
    machine = endpoint()
    event = received(machine, wire())
    assert event.request.method == "INVITE"
    assert event.flow == UDP


def test_repeated_request_is_absorbed_and_answered_with_the_last_response() -> None:
    machine = endpoint()
    event = received(machine, wire())
    assert machine.data_received(UDP, wire(), 0.05) == []
    last = machine.respond(event.server_id, make_response(event.request, 180, to_tag="d"), 0.1)
    assert machine.data_received(UDP, wire(), 0.5) == last


def test_branch_used_again_after_a_401_makes_a_new_request() -> None:
    machine = endpoint()
    event = received(machine, wire())
    machine.respond(event.server_id, make_response(event.request, 401, to_tag="d"), 0.1)
    again = received(machine, wire(cseq=2))
    assert again.server_id != event.server_id


def test_same_branch_of_another_sender_is_another_request() -> None:
    machine = endpoint()
    received(machine, wire(via="SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKone", call_id="a"))
    received(machine, wire(via="SIP/2.0/UDP 192.0.2.3:5060;branch=z9hG4bKone", call_id="b"))


def test_request_without_the_magic_cookie_is_matched_by_rfc_2543() -> None:
    machine = endpoint()
    old = wire(via="SIP/2.0/UDP 192.0.2.2:5060")
    event = received(machine, old)
    assert machine.data_received(UDP, old, 0.1) == []
    machine.respond(event.server_id, make_response(event.request, 486, to_tag="d"), 0.2)
    via = "SIP/2.0/UDP 192.0.2.2:5060"
    wrong = machine.data_received(UDP, wire("ACK", via=via, to_tag="x"), 0.3)
    assert wrong == []
    assert machine.counters["stray_acks"] == 1
    machine.data_received(UDP, wire("ACK", via=via, to_tag="d"), 0.4)
    assert sent(settle(machine)) == []
    assert_empty(machine)


def test_cancel_of_an_rfc_2543_peer_finds_its_invite() -> None:
    machine = endpoint()
    via = "SIP/2.0/UDP 192.0.2.2:5060"
    event = received(machine, wire(via=via))
    outputs = machine.data_received(UDP, wire("CANCEL", via=via), 0.1)
    assert isinstance(outputs[-1], CancelReceived)
    assert outputs[-1].server_id == event.server_id


def test_merged_request_is_answered_482() -> None:
    machine = endpoint()
    received(machine, wire(branch="z9hG4bKone"))
    outputs = machine.data_received(UDP, wire(branch="z9hG4bKtwo"), 0.1)
    assert one_response(outputs).status == 482
    assert machine.counters["merged_requests"] == 1
    assert machine.load["server_transactions"] == 1


def test_request_within_a_dialog_is_never_merged() -> None:
    machine = endpoint()
    received(machine, wire(branch="z9hG4bKone", to_tag="d"))
    received(machine, wire(branch="z9hG4bKtwo", to_tag="d"))


# ACK


def test_ack_for_a_failure_is_absorbed() -> None:
    machine = endpoint()
    event = received(machine, wire())
    machine.respond(event.server_id, make_response(event.request, 486, to_tag="d"), 0.1)
    assert machine.data_received(UDP, wire("ACK", to_tag="d"), 0.2) == []
    assert sent(settle(machine)) == []
    assert_empty(machine)


def test_ack_for_a_2xx_is_passed_on() -> None:
    machine = endpoint()
    event = received(machine, wire())
    machine.respond(event.server_id, make_response(event.request, 200, to_tag="d"), 0.1)
    [output] = machine.data_received(UDP, wire("ACK", branch="z9hG4bKack", to_tag="d"), 0.2)
    assert isinstance(output, AckReceived)


def test_ack_with_the_branch_of_the_invite_is_passed_on_after_a_2xx() -> None:
    machine = endpoint()
    event = received(machine, wire())
    machine.respond(event.server_id, make_response(event.request, 200, to_tag="d"), 0.1)
    [output] = machine.data_received(UDP, wire("ACK", to_tag="d"), 0.2)
    assert isinstance(output, AckReceived)


def test_ack_without_tag_or_for_an_unanswered_invite_is_counted_as_stray() -> None:
    machine = endpoint()
    assert machine.data_received(UDP, wire("ACK"), 0.1) == []
    assert machine.counters["stray_acks"] == 1


def test_ack_for_an_answer_without_state_is_absorbed() -> None:
    machine = endpoint()
    received(machine, wire())
    tag = one_response(machine.data_received(UDP, wire(branch="z9hG4bKtwo"), 0.1)).to.tag
    assert tag is not None
    assert machine.data_received(UDP, wire("ACK", branch="z9hG4bKtwo", to_tag=tag), 0.2) == []
    assert machine.counters["stray_acks"] == 0


# CANCEL, server side


def test_cancel_is_answered_200_and_passed_on_once() -> None:
    machine = endpoint()
    event = received(machine, wire())
    machine.respond(event.server_id, make_response(event.request, 180, to_tag="d"), 0.1)
    outputs = machine.data_received(UDP, wire("CANCEL"), 0.2)
    response = parse_message(outputs[0].data)  # type: ignore[union-attr]
    assert isinstance(response, Response)
    assert (response.status, response.cseq.method, response.to.tag) == (200, "CANCEL", "d")
    assert isinstance(outputs[1], CancelReceived)
    assert outputs[1].server_id == event.server_id
    assert one_response(machine.data_received(UDP, wire("CANCEL"), 0.7)).status == 200


def test_cancel_without_invite_is_answered_481() -> None:
    machine = endpoint()
    assert one_response(machine.data_received(UDP, wire("CANCEL"), 0.0)).status == 481
    assert machine.counters["stray_cancels"] == 1
    assert_empty(machine)


def test_cancel_that_loses_against_the_final_is_answered_200_and_changes_nothing() -> None:
    machine = endpoint()
    event = received(machine, wire())
    machine.respond(event.server_id, make_response(event.request, 200, to_tag="d"), 0.1)
    assert one_response(machine.data_received(UDP, wire("CANCEL"), 0.2)).status == 200


# Malformed and unanswerable


def test_malformed_request_is_answered_400_naming_the_fault() -> None:
    machine = endpoint()
    data = wire(via="SIP/2.0/UDP x;branch=z9hG4bKx").replace(b"CSeq: 1", b"CSeq: one")
    response = one_response(machine.data_received(UDP, data, 0.0))
    assert response.status == 400
    assert "CSeq" in response.reason
    assert response.top_via.received == "192.0.2.2"
    assert machine.counters["answered_malformed"] == 1
    assert_empty(machine)


def test_other_version_is_answered_505() -> None:
    data = wire("OPTIONS").replace(b"SIP/2.0\r\nVia", b"SIP/7.0\r\nVia")
    assert one_response(endpoint().data_received(UDP, data, 0.0)).status == 505


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"\x00\x01\x00\x00\x21\x12\xa4\x42aaaaaaaaaaaa",
        wire().replace(b"Via: SIP/2.0/UDP", b"Via: nonsense"),
        wire("ACK").replace(b"CSeq: 1 ACK", b"CSeq: x"),
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP x;branch=z9hG4bKa\r\n\r\n",
    ],
)
def test_what_cannot_be_answered_is_dropped_and_counted(data: bytes) -> None:
    machine = endpoint()
    assert machine.data_received(UDP, data, 0.0) == []
    assert machine.counters["dropped_malformed"] == 1


def test_malformed_request_on_a_stream_is_answered_and_the_stream_goes_on() -> None:
    machine = endpoint()
    bad = wire("OPTIONS").replace(b"CSeq: 1 OPTIONS", b"CSeq: x OPTIONS")
    outputs = machine.data_received(TCP, bad + wire("OPTIONS"), 0.0)
    assert one_response(outputs[:1]).status == 400
    assert isinstance(outputs[1], RequestReceived)


def test_broken_stream_is_closed() -> None:
    machine = endpoint()
    bad = wire("OPTIONS").replace(b"Content-Length: 0", b"Content-Length: x")
    outputs = machine.data_received(TCP, wire("INVITE") + bad, 0.0)
    assert isinstance(outputs[0], RequestReceived)
    assert one_response(outputs[1:2]).status == 400
    assert isinstance(outputs[2], CloseFlow)
    assert isinstance(outputs[3], FlowLost)
    assert machine.load["flows"] == 0


# Where responses go, RFC 3261 18.2, RFC 3581


def test_received_and_rport_are_filled_in() -> None:
    flow = Flow(1, Transport.UDP, US, ("203.0.113.9", 61000))
    event = received(endpoint(), wire(via="SIP/2.0/UDP 10.0.0.2;rport;branch=z9hG4bKx"), flow)
    via = event.request.top_via
    assert (via.host, via.received, via.rport) == ("10.0.0.2", "203.0.113.9", 61000)


def test_response_to_rport_goes_to_the_source_port() -> None:
    machine = endpoint()
    flow = Flow(1, Transport.UDP, US, ("203.0.113.9", 61000))
    event = received(machine, wire(via="SIP/2.0/UDP 10.0.0.2;rport;branch=z9hG4bKx"), flow)
    [send] = machine.respond(event.server_id, make_response(event.request, 200), 0.0)
    assert isinstance(send, Send)
    assert send.flow == flow


def test_response_without_rport_goes_to_the_source_address_and_the_port_in_via() -> None:
    machine = endpoint()
    flow = Flow(1, Transport.UDP, US, ("203.0.113.9", 61000))
    for via, port in (("10.0.0.2:5080", 5080), ("10.0.0.2", 5060)):
        event = received(machine, wire(via=f"SIP/2.0/UDP {via};branch=z9hG4bKx", call_id=via), flow)
        assert event.request.top_via.received == "203.0.113.9"
        [send] = machine.respond(event.server_id, make_response(event.request, 200), 0.0)
        assert isinstance(send, Send)
        assert send.flow == flow.towards("203.0.113.9", port)


def test_via_that_tells_the_truth_is_left_as_it_is() -> None:
    event = received(endpoint(), wire())
    assert event.request.headers.get("Via") == "SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKone"


def test_forged_received_is_replaced() -> None:
    event = received(endpoint(), wire(via="SIP/2.0/UDP h;received=9.9.9.9;branch=z9hG4bKx"))
    assert event.request.top_via.received == "192.0.2.2"


def test_ipv6_received_has_no_brackets() -> None:
    flow = Flow(1, Transport.UDP, ("2001:db8::1", 5060), ("2001:db8::2", 5070))
    event = received(endpoint(), wire(via="SIP/2.0/UDP [fd00::9];rport;branch=z9hG4bKx"), flow)
    text = event.request.headers.get("Via") or ""
    assert "received=2001:db8::2" in text
    assert "[fd00::9]" in text


def test_received_names_no_interface_of_ours() -> None:
    flow = Flow(1, Transport.UDP, ("fe80::1", 5060), ("fe80::2%3", 5070))
    event = received(endpoint(), wire(via="SIP/2.0/UDP [fe80::2];rport;branch=z9hG4bKx"), flow)
    assert event.request.top_via.received == "fe80::2"


def test_only_the_top_via_of_a_list_is_stamped() -> None:
    via = "SIP/2.0/UDP p;rport;branch=z9hG4bKx, SIP/2.0/UDP q;branch=z9hG4bKy"
    vias = received(endpoint(), wire(via=via)).request.vias
    assert [v.received for v in vias] == ["192.0.2.2", None]


def test_response_takes_the_connection_of_the_request() -> None:
    machine = endpoint()
    event = received(machine, wire(via="SIP/2.0/TCP x;branch=z9hG4bKx"), TCP)
    [send] = machine.respond(event.server_id, make_response(event.request, 200), 0.0)
    assert isinstance(send, Send)
    assert send.flow == TCP


def test_response_whose_connection_is_gone_takes_a_new_one() -> None:
    machine = endpoint()
    event = received(machine, wire(via="SIP/2.0/TCP 192.0.2.2:5070;branch=z9hG4bKx"), TCP)
    assert machine.flow_closed(TCP, "reset", 0.1) == [FlowLost(TCP, "reset")]
    target = Target(Transport.TCP, "192.0.2.2", 5070)
    outputs = machine.respond(event.server_id, make_response(event.request, 180), 0.2)
    assert outputs == [OpenFlow(target)]
    new = Flow(9, Transport.TCP, US, ("192.0.2.2", 5070))
    assert one_response(machine.flow_opened(target, new, 0.3)).status == 180
    [send] = machine.respond(event.server_id, make_response(event.request, 200), 0.4)
    assert isinstance(send, Send)
    assert send.flow == new


def test_connections_back_to_those_who_left_are_bounded() -> None:
    machine = endpoint()
    opened = 0
    for n in range(200):
        flow = Flow(100 + n, Transport.TCP, US, (f"192.0.2.{n}", 40_000))
        via = f"SIP/2.0/TCP 192.0.2.{n}:5070;branch=z9hG4bK{n}"
        event = received(machine, wire(via=via, call_id=f"c{n}"), flow)
        machine.flow_closed(flow, "reset", 0.1)
        opened += len(machine.respond(event.server_id, make_response(event.request, 180), 0.2))
    assert opened == MAX_OPENING


def test_response_that_cannot_be_brought_back_is_given_up() -> None:
    machine = endpoint()
    event = received(machine, wire("OPTIONS", via="SIP/2.0/UDP x;branch=z9hG4bKx"), TCP)
    machine.flow_closed(TCP, "reset", 0.1)
    machine.respond(event.server_id, make_response(event.request, 200), 0.2)
    machine.flow_failed(Target(Transport.TCP, "192.0.2.2", 5060), "refused", 0.3)
    assert_empty(machine)


def test_answer_after_the_end_of_the_transaction_is_counted() -> None:
    machine = endpoint()
    event = received(machine, wire("OPTIONS"))
    settle(machine)
    assert machine.respond(event.server_id, make_response(event.request, 200), 40.0) == []
    assert machine.counters["late_responses"] == 1


# Answers without state


def challenge(request: Request) -> Response:
    response = make_response(request, 401)
    response.headers.add("WWW-Authenticate", "Digest x")
    return response


def test_refused_request_leaves_no_state() -> None:
    machine = endpoint()
    event = received(machine, wire())
    response = one_response(machine.answer_once(event.server_id, challenge(event.request)))
    assert response.status == 401
    assert response.headers.get("WWW-Authenticate") == "Digest x"
    assert machine.load["server_transactions"] == machine.load["merge_keys"] == 0
    tag = response.to.tag or ""
    assert machine.data_received(UDP, wire("ACK", to_tag=tag), 0.1) == []
    received(machine, wire())


def test_flood_of_refused_requests_leaves_nothing_behind() -> None:
    machine = endpoint()
    for n in range(3000):
        event = received(machine, wire("OPTIONS", branch=f"z9hG4bK{n}", call_id=str(n)))
        machine.answer_once(event.server_id, make_response(event.request, 403))
        assert machine.load["timers"] < 70
    assert machine.deadline is None
    assert_empty(machine)


def test_full_table_answers_503_with_retry_after() -> None:
    machine = endpoint(max_transactions=5)
    for n in range(5):
        received(machine, wire(branch=f"z9hG4bK{n}", call_id=str(n)))
    response = one_response(machine.data_received(UDP, wire(branch="z9hG4bKx", call_id="x"), 0.0))
    assert response.status == 503
    assert response.headers.get("Retry-After") == "32"
    assert machine.counters["refused_full"] == 1
    assert machine.load["server_transactions"] == 5


def test_what_is_screened_out_is_answered_and_leaves_nothing_but_known_requests_go_on() -> None:
    machine = endpoint()
    known = received(machine, wire(branch="z9hG4bKknown"))
    machine.respond(known.server_id, make_response(known.request, 180, to_tag="d"), 0.1)
    machine.screen = lambda request, flow, now: (503, "Too many", (("Retry-After", "7"),))
    response = one_response(machine.data_received(UDP, wire(branch="z9hG4bKx", call_id="x"), 0.2))
    assert (response.status, response.reason) == (503, "Too many")
    assert response.headers.get("Retry-After") == "7"
    assert machine.load["server_transactions"] == 1
    again = machine.data_received(UDP, wire(branch="z9hG4bKknown"), 0.3)
    assert one_response(again).status == 180


@pytest.mark.parametrize("cookie", ["z9hG4bK", ""])
def test_request_whose_names_are_too_long_to_keep_is_answered_513(cookie: str) -> None:
    machine = endpoint()
    for long in (
        wire(call_id="c" * 9000),
        wire(from_tag="f" * 9000),
        wire(via=f"SIP/2.0/UDP 192.0.2.2;branch={cookie}{'b' * 9000}"),
        wire(branch=f"{cookie}b").replace(b"CSeq: 1 ", b"CSeq: 1 " + b" " * 9000),
    ):
        assert one_response(machine.data_received(UDP, long, 0.0)).status == 513
    assert_empty(machine)
    received(machine, wire(call_id="c" * 4000))


def test_one_host_cannot_fill_the_table_for_others() -> None:
    machine = endpoint(max_transactions=100, max_transactions_per_host=5)
    for n in range(5):
        received(machine, wire(branch=f"z9hG4bK{n}", call_id=str(n)))
    full = machine.data_received(UDP, wire(branch="z9hG4bKx", call_id="x"), 0.0)
    assert one_response(full).status == 503
    other = Flow(1, Transport.UDP, US, ("192.0.2.77", 5060))
    received(machine, wire(branch="z9hG4bKx", call_id="x"), other)


def test_host_at_its_limit_gives_up_what_was_answered_longest_ago() -> None:
    machine = endpoint(max_transactions_per_host=3)
    for n in range(3):
        event = received(machine, wire("OPTIONS", branch=f"z9hG4bK{n}", call_id=str(n)))
        if n:
            machine.respond(event.server_id, make_response(event.request, 200, to_tag="a"), 0.0)
    for n in range(3, 5):
        received(machine, wire("OPTIONS", branch=f"z9hG4bK{n}", call_id=str(n)))
    assert machine.load["server_transactions"] == machine.load["merge_keys"] == 3
    unanswered = wire("OPTIONS", branch="z9hG4bK0", call_id="0")
    assert machine.data_received(UDP, unanswered, 0.0) == []  # known still: a repeat
    full = machine.data_received(UDP, wire("OPTIONS", branch="z9hG4bK5", call_id="5"), 0.0)
    assert one_response(full).status == 503


# Requests out


def send(
    machine: Endpoint, next_hop: SipUri | Flow = UDP, method: str = "OPTIONS", now: float = 0.0
) -> tuple[int, Request]:
    number, outputs = machine.send_request(build(method), next_hop, now)
    return number, one_request(outputs)


def test_request_gets_a_via_of_the_flow_with_rport_and_a_fresh_branch() -> None:
    machine = endpoint()
    _, first = send(machine)
    _, second = send(machine)
    via = first.top_via
    assert (via.transport, via.host, via.port, via.rport) == ("UDP", "192.0.2.1", 5060, "")
    assert (via.branch or "").startswith("z9hG4bK")
    assert via.branch != second.top_via.branch


def test_response_is_matched_by_branch_and_method() -> None:
    machine = endpoint()
    number, request = send(machine)
    [output] = machine.data_received(UDP, reply(request, 200), 0.1)
    assert isinstance(output, ResponseReceived)
    assert (output.request_id, output.response.status, output.flow) == (number, 200, UDP)
    assert output.request.method == "OPTIONS"
    wrong = reply(request, 200).replace(b"1 OPTIONS", b"1 BYE")
    assert machine.data_received(UDP, wrong, 0.2) == []
    assert machine.counters["stray_responses"] == 1


def test_trying_is_not_passed_on() -> None:
    machine = endpoint()
    _, request = send(machine, method="INVITE")
    assert machine.data_received(UDP, reply(request, 100), 0.1) == []
    assert machine.deadline is None


def test_repeated_final_is_absorbed() -> None:
    machine = endpoint()
    _, request = send(machine)
    machine.data_received(UDP, reply(request, 200), 0.1)
    assert machine.data_received(UDP, reply(request, 200), 0.2) == []
    settle(machine)
    assert_empty(machine)


def test_response_with_two_vias_was_misrouted() -> None:
    machine = endpoint()
    _, request = send(machine)
    data = reply(request, 200).replace(
        b"\r\nFrom", b"\r\nVia: SIP/2.0/UDP z;branch=z9hG4bKz\r\nFrom", 1
    )
    assert machine.data_received(UDP, data, 0.1) == []
    assert machine.counters["stray_responses"] == 1


def test_stray_response_is_counted_and_dropped() -> None:
    machine = endpoint()
    other = endpoint()
    _, request = send(other)
    assert machine.data_received(UDP, reply(request, 200), 0.1) == []
    assert machine.counters["stray_responses"] == 1


def test_2xx_of_several_forks_are_all_passed_on() -> None:
    machine = endpoint()
    number, request = send(machine, method="INVITE")
    for tag in ("one", "two", "one"):
        [output] = machine.data_received(UDP, reply(request, 200, tag), 1.0)
        assert isinstance(output, ResponseReceived)
        assert (output.request_id, output.response.to.tag) == (number, tag)


def test_2xx_after_the_transaction_is_a_stray_response_to_acknowledge() -> None:
    machine = endpoint()
    _, request = send(machine, method="INVITE")
    machine.data_received(UDP, reply(request, 200), 1.0)
    settle(machine)
    assert_empty(machine)
    [output] = machine.data_received(UDP, reply(request, 200, "late"), 40.0)
    assert isinstance(output, StrayResponse)
    assert output.response.to.tag == "late"


def test_failure_is_acknowledged_and_passed_on_once() -> None:
    machine = endpoint()
    _, request = send(machine, method="INVITE")
    outputs = machine.data_received(UDP, reply(request, 486), 1.0)
    assert one_request(outputs[:1]).method == "ACK"
    assert isinstance(outputs[1], ResponseReceived)
    assert one_request(machine.data_received(UDP, reply(request, 486), 1.5)).method == "ACK"
    settle(machine)
    assert_empty(machine)


def test_no_answer_fails_with_408_after_64_t1() -> None:
    machine = endpoint()
    number, _ = send(machine)
    outputs = settle(machine)
    failed = outputs[-1]
    assert isinstance(failed, RequestFailed)
    assert (failed.request_id, failed.status) == (number, 408)
    assert failed.why == "no final response from 192.0.2.2"
    assert len(outputs) == 11
    assert_empty(machine)


def test_request_on_a_lost_flow_fails_with_503() -> None:
    machine = endpoint()
    number, outputs = machine.send_request(build(), TCP, 0.0)
    assert outputs == [RequestFailed(number, None, 503, "the flow is gone")]
    assert_empty(machine)


def test_flow_lost_under_a_request_bound_to_it_fails_with_503() -> None:
    machine = endpoint()
    machine.data_received(TCP, b"\r\n", 0.0)
    number, _ = machine.send_request(build(), TCP, 0.0)
    lost, failed = machine.flow_closed(TCP, "reset", 1.0)
    assert lost == FlowLost(TCP, "reset")
    assert isinstance(failed, RequestFailed)
    assert (failed.request_id, failed.status, failed.why) == (number, 503, "192.0.2.2: reset")


def test_udp_socket_that_closes_takes_all_its_flows_along() -> None:
    machine = endpoint()
    other = UDP.towards("192.0.2.99", 5060)
    machine.send_request(build(), UDP, 0.0)
    machine.send_request(build(), other, 0.0)
    outputs = machine.flow_closed(UDP, "address changed", 1.0)
    assert [type(output) for output in outputs] == [FlowLost, RequestFailed, RequestFailed]


def test_port_unreachable_fails_only_what_has_no_answer_yet() -> None:
    machine = endpoint()
    _, invite = send(machine, method="INVITE")
    machine.data_received(UDP, reply(invite, 180), 0.1)
    number, _ = send(machine)
    machine.send_request(build(), UDP.towards("192.0.2.99", 5060), 0.0)
    [failed] = machine.send_failed(UDP, "port unreachable", 0.2)
    assert isinstance(failed, RequestFailed)
    assert (failed.request_id, failed.status) == (number, 503)


def test_port_unreachable_is_recognised_whatever_local_address_it_names() -> None:
    machine = endpoint()
    machine.send_request(build(), UDP, 0.0)
    other = Flow(UDP.id, Transport.UDP, ("0.0.0.0", 5060), UDP.remote)
    [failed] = machine.send_failed(other, "port unreachable", 0.2)
    assert isinstance(failed, RequestFailed)


def test_connection_on_which_nothing_came_is_closed_with_the_request() -> None:
    machine = endpoint()
    flow = Flow(5, Transport.TCP, US, PEER)
    machine.flow_opened(Target(Transport.TCP, *PEER), flow, 0.0)
    number, _ = machine.send_request(build(), flow, 1.0)
    close, lost, failed = settle(machine)
    assert close == CloseFlow(flow, "silent")
    assert lost == FlowLost(flow, "silent")
    assert isinstance(failed, RequestFailed)
    assert (failed.request_id, failed.status) == (number, 408)


def test_connection_that_is_alive_outlasts_an_unanswered_request() -> None:
    machine = endpoint()
    flow = Flow(5, Transport.TCP, US, PEER)
    machine.flow_opened(Target(Transport.TCP, *PEER), flow, 0.0)
    machine.send_request(build(), flow, 1.0)
    machine.data_received(flow, b"\r\n", 2.0)
    [failed] = settle(machine)
    assert isinstance(failed, RequestFailed)
    assert machine.load["flows"] == 1


def test_request_is_resolved_sent_and_failed_when_there_is_no_address() -> None:
    machine = endpoint(ipv6=False)
    uri = SipUri(host="pbx.example", port=5060)
    number, outputs = machine.send_request(build(), uri, 0.0)
    query = DnsQuery("A", "pbx.example")
    assert outputs == [Resolve(query)]
    target = Target(Transport.UDP, "192.0.2.2", 5060)
    assert machine.resolved(query, address("192.0.2.2"), 0.1) == [OpenFlow(target)]
    assert one_request(machine.flow_opened(target, UDP, 0.1)).method == "OPTIONS"
    number, _ = machine.send_request(build(), SipUri(host="none.example", port=5060), 0.0)
    [failed] = machine.resolved(DnsQuery("A", "none.example"), DnsAnswer((), 60), 0.2)
    assert failed == RequestFailed(number, None, 503, "none.example has no address")


def test_name_server_that_never_answers_fails_the_request() -> None:
    machine = endpoint(ipv6=False)
    number, _ = machine.send_request(build(), SipUri(host="pbx.example", port=5060), 0.0)
    assert machine.deadline == module.DNS_SECONDS
    [failed] = machine.timer_fired(10.0)
    assert failed == RequestFailed(number, None, 503, "pbx.example: no DNS answer in 10 s")
    assert_empty(machine)


def test_connection_that_is_never_made_fails_the_request() -> None:
    machine = endpoint()
    uri = SipUri(host="192.0.2.2", params=(("transport", "tcp"),))
    machine.send_request(build(), uri, 0.0)
    [failed] = settle(machine)
    assert isinstance(failed, RequestFailed)
    assert (failed.status, failed.why) == (503, "tcp:192.0.2.2:5060: no connection in 5 s")
    assert_empty(machine)


def test_requests_to_one_target_share_one_connection() -> None:
    machine = endpoint()
    uri = SipUri(host="192.0.2.2", params=(("transport", "tcp"),))
    target = Target(Transport.TCP, "192.0.2.2", 5060)
    flow = Flow(5, Transport.TCP, US, PEER)
    assert machine.send_request(build(), uri, 0.0)[1] == [OpenFlow(target)]
    assert machine.send_request(build(), uri, 0.0)[1] == []
    assert len(sent(machine.flow_opened(target, flow, 0.1))) == 2
    assert len(sent(machine.send_request(build(), uri, 0.2)[1])) == 1


@pytest.mark.parametrize(("transport", "used"), [(Transport.TCP, True), (Transport.TLS, False)])
def test_connection_of_a_stranger_proves_no_address_over_tls(
    transport: Transport, used: bool
) -> None:
    machine = endpoint()
    theirs = Flow(5, transport, US, PEER)
    machine.data_received(theirs, b"\r\n", 0.0)
    uri = SipUri(host=PEER[0], port=PEER[1], params=(("transport", transport.lower()),))
    _, [output] = machine.send_request(build(), uri, 0.1)
    assert isinstance(output, Send if used else OpenFlow)


def test_ack_for_a_2xx_has_no_transaction() -> None:
    machine = endpoint()
    ack = one_request(machine.send_ack(build("ACK"), UDP, 0.0))
    assert ack.method == "ACK"
    assert_empty(machine)
    uri = SipUri(host="192.0.2.2", port=5060)
    [opening] = machine.send_ack(build("ACK"), uri, 0.0)
    assert isinstance(opening, OpenFlow)
    assert machine.flow_failed(opening.target, "unreachable", 0.1) == []
    assert machine.counters["acks_lost"] == 1
    assert_empty(machine)


def test_user_agent_is_named_once() -> None:
    machine = Endpoint(SeededIds(1), user_agent="Doorstation/1")
    assert send(machine)[1].headers.get_all("User-Agent") == ["Doorstation/1"]
    event = received(machine, wire("OPTIONS"))
    response = one_response(
        machine.respond(event.server_id, make_response(event.request, 200), 0.0)
    )
    assert response.headers.get_all("Server") == ["Doorstation/1"]


# CANCEL, client side


def test_cancel_is_held_back_until_a_provisional() -> None:
    machine = endpoint()
    number, invite = send(machine, method="INVITE")
    assert machine.cancel(number, 0.1, "SIP;cause=200") == []
    cancel = one_request(machine.data_received(UDP, reply(invite, 100), 0.2))
    assert cancel.method == "CANCEL"
    assert cancel.top_via == invite.top_via
    assert cancel.headers.get("Reason") == "SIP;cause=200"
    assert machine.cancel(number, 0.3) == []


def test_cancel_goes_out_at_once_while_it_rings() -> None:
    machine = endpoint()
    number, invite = send(machine, method="INVITE")
    machine.data_received(UDP, reply(invite, 180), 0.1)
    cancel = one_request(machine.cancel(number, 0.2))
    assert machine.data_received(UDP, reply(cancel, 200), 0.3) == []
    outputs = machine.data_received(UDP, reply(invite, 487), 0.4)
    assert one_request(outputs[:1]).method == "ACK"
    assert isinstance(outputs[1], ResponseReceived)
    settle(machine)
    assert_empty(machine)


def test_cancel_that_loses_against_a_200_leaves_the_200_to_the_user() -> None:
    machine = endpoint()
    number, invite = send(machine, method="INVITE")
    machine.data_received(UDP, reply(invite, 180), 0.1)
    machine.cancel(number, 0.2)
    [output] = machine.data_received(UDP, reply(invite, 200), 0.25)
    assert isinstance(output, ResponseReceived)
    assert output.response.status == 200


def test_cancel_after_the_final_does_nothing() -> None:
    machine = endpoint()
    number, invite = send(machine, method="INVITE")
    machine.data_received(UDP, reply(invite, 200), 0.1)
    assert machine.cancel(number, 0.2) == []
    assert machine.cancel(999, 0.2) == []


def test_cancelled_invite_that_never_ends_fails_with_487() -> None:
    machine = endpoint()
    number, invite = send(machine, method="INVITE")
    machine.data_received(UDP, reply(invite, 180), 0.1)
    cancel = one_request(machine.cancel(number, 0.2))
    machine.data_received(UDP, reply(cancel, 200), 0.3)
    [failed] = settle(machine)
    assert isinstance(failed, RequestFailed)
    assert failed.status == 487
    assert_empty(machine)


def test_cancel_before_the_invite_was_sent_ends_it() -> None:
    machine = endpoint(ipv6=False)
    number, _ = machine.send_request(build("INVITE"), SipUri(host="x.example", port=5060), 0.0)
    [failed] = machine.cancel(number, 0.1)
    assert failed == RequestFailed(number, None, 487, "cancelled before it was sent")
    assert machine.resolved(DnsQuery("A", "x.example"), address("192.0.2.2"), 0.2) == []
    assert_empty(machine)


def test_cancel_while_connecting_sends_nothing_afterwards() -> None:
    machine = endpoint()
    uri = SipUri(host="192.0.2.2", params=(("transport", "tcp"),))
    number, _ = machine.send_request(build("INVITE"), uri, 0.0)
    machine.cancel(number, 0.1)
    flow = Flow(5, Transport.TCP, US, PEER)
    assert machine.flow_opened(Target(Transport.TCP, "192.0.2.2", 5060), flow, 0.2) == []


def test_only_an_invite_can_be_cancelled() -> None:
    machine = endpoint()
    number, request = send(machine)
    assert machine.cancel(number, 0.1) == []
    [output] = machine.data_received(UDP, reply(request, 200), 0.2)
    assert isinstance(output, ResponseReceived)


# Keep-alives


def test_who_opened_the_connection_answers_no_ping() -> None:
    machine = endpoint()
    flow = Flow(5, Transport.TCP, US, PEER)
    machine.flow_opened(Target(Transport.TCP, *PEER), flow, 0.0)
    assert machine.data_received(flow, b"\r\n\r\n", 0.1) == []


def test_ping_of_a_peer_is_answered_with_a_pong() -> None:
    machine = endpoint()
    assert machine.data_received(TCP, b"\r\n\r\n", 0.0) == [Send(TCP, b"\r\n")]


def test_flood_of_pings_is_answered_with_one_pong() -> None:
    machine = endpoint()
    assert machine.data_received(TCP, b"\r\n\r\n" * 4_000, 0.0) == [Send(TCP, b"\r\n")]
    assert machine.data_received(TCP, b"\r\n\r\n", 0.1) == [Send(TCP, b"\r\n")]


def test_udp_keep_alives_are_no_messages() -> None:
    machine = endpoint()
    assert machine.data_received(UDP, b"\r\n\r\n", 0.0) == []
    assert machine.data_received(UDP, b"\x00", 0.0) == []
    assert machine.data_received(UDP, b"\r\n", 0.0) == []
    assert machine.counters["dropped_malformed"] == 0


# Limits on connections


def test_strangers_cannot_pile_up_connections() -> None:
    machine = endpoint()
    closed: list[Flow] = []
    for n in range(module.MAX_STREAMS_IN + 3):
        flow = Flow(100 + n, Transport.TCP, US, ("192.0.2.66", n))
        for output in machine.data_received(flow, b"OPTIONS ", 0.0):
            if isinstance(output, CloseFlow):
                closed.append(output.flow)
    assert [flow.id for flow in closed] == [100, 101, 102]
    assert machine.load["flows"] == module.MAX_STREAMS_IN


def test_connections_of_strangers_do_not_push_out_ours() -> None:
    machine = endpoint()
    ours = Flow(5, Transport.TCP, US, PEER)
    machine.flow_opened(Target(Transport.TCP, *PEER), ours, 0.0)
    for n in range(module.MAX_STREAMS_IN * 2):
        stranger = Flow(100 + n, Transport.TCP, US, ("192.0.2.66", n))
        for output in machine.data_received(stranger, b"\r\n", 0.0):
            assert isinstance(output, CloseFlow | FlowLost)
            assert output.flow != ours
    assert machine.load["flows"] == module.MAX_STREAMS_IN + 1


def test_idle_connections_of_ours_are_closed_above_the_limit() -> None:
    machine = endpoint()
    first = Flow(100, Transport.TCP, US, PEER)
    machine.flow_opened(Target(Transport.TCP, "192.0.2.2", 1), first, 0.0)
    machine.send_request(build(), first, 0.0)
    closed: list[int] = []
    for n in range(1, module.MAX_STREAMS_OUT + 1):
        flow = Flow(100 + n, Transport.TCP, US, PEER)
        outputs = machine.flow_opened(Target(Transport.TCP, "192.0.2.2", n + 1), flow, 0.0)
        closed += [output.flow.id for output in outputs if isinstance(output, CloseFlow)]
    assert closed == [101]
    assert machine.load["flows"] == module.MAX_STREAMS_OUT
