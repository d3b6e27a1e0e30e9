"""Every transition of the four transaction machines, named by its rule, in virtual time."""

from collections.abc import Callable

import pytest
from doorstation.sip.headers import Headers
from doorstation.sip.message import Request, Response, make_response, parse_message
from doorstation.sip.transaction import (
    INVITE_CLIENT,
    INVITE_SERVER,
    OTHER_CLIENT,
    OTHER_SERVER,
    AckDelivered,
    ClientTransaction,
    Delivered,
    Figure,
    Outcome,
    ServerTransaction,
    State,
    TimedOut,
    Timing,
    Trigger,
    Unreachable,
    make_cancel,
)
from doorstation.sip.transport import Flow, Send, Transport
from doorstation.sip.uri import SipUri

TIMING = Timing()
UDP = Flow(1, Transport.UDP, ("192.0.2.1", 5060), ("192.0.2.2", 5060))
TCP = Flow(2, Transport.TCP, ("192.0.2.1", 5060), ("192.0.2.2", 5060))


def request(method: str = "INVITE") -> Request:
    return Request(
        method,
        SipUri(user="bob", host="192.0.2.2"),
        Headers(
            [
                ("Via", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKabc;rport"),
                ("Route", "<sip:192.0.2.9;lr>"),
                ("Route", "<sip:192.0.2.8;lr>"),
                ("Max-Forwards", "70"),
                ("From", "<sip:door@192.0.2.1>;tag=f"),
                ("To", "<sip:bob@192.0.2.2>"),
                ("Call-ID", "c1"),
                ("CSeq", f"7 {method}"),
                ("Contact", "<sip:door@192.0.2.1>"),
            ]
        ),
    )


def answer(status: int, method: str = "INVITE", tag: str = "t") -> Response:
    return make_response(request(method), status, to_tag=tag)


def client(method: str = "INVITE", flow: Flow = UDP, now: float = 0.0) -> ClientTransaction:
    return ClientTransaction(request(method), flow, TIMING, now)


def server(method: str = "INVITE", flow: Flow = UDP, now: float = 0.0) -> ServerTransaction:
    return ServerTransaction(request(method), flow, TIMING, now)


def drain(
    machine: ClientTransaction | ServerTransaction, until: float = 1000.0
) -> list[tuple[float, Outcome]]:
    """Fire every timer at its time; what came of it, and when."""
    seen: list[tuple[float, Outcome]] = []
    while (at := machine.deadline) is not None and at <= until:
        seen += [(at, outcome) for outcome in machine.timer_fired(at)]
    return seen


def sends(outcomes: list[Outcome]) -> list[str]:
    return [o.data.split(b" ", 1)[0].decode() for o in outcomes if isinstance(o, Send)]


def times(seen: list[tuple[float, Outcome]]) -> list[float]:
    return [at for at, outcome in seen if isinstance(outcome, Send)]


def statuses(outcomes: list[Outcome]) -> list[int]:
    return [o.response.status for o in outcomes if isinstance(o, Delivered)]


def state(machine: ClientTransaction | ServerTransaction) -> State:
    return machine.machine.state


# The tables themselves


@pytest.mark.parametrize("figure", [INVITE_CLIENT, OTHER_CLIENT, INVITE_SERVER, OTHER_SERVER])
def test_every_state_is_reached_and_left(figure: Figure) -> None:
    reached = {figure.first} | {target for target, _ in figure.transitions.values()}
    left = {state for state, _ in figure.transitions}
    assert reached == left | {State.TERMINATED}
    assert set(figure.arms) <= left


@pytest.mark.parametrize("figure", [INVITE_CLIENT, OTHER_CLIENT, INVITE_SERVER, OTHER_SERVER])
def test_every_timer_that_runs_does_something(figure: Figure) -> None:
    for state, arms in figure.arms.items():
        for arm in arms:
            assert (state, arm.timer) in figure.transitions


# INVITE client, figure 5


def test_invite_is_repeated_at_doubling_intervals_for_64_t1() -> None:
    machine = client()
    assert sends(machine.start()) == ["INVITE"]
    seen = drain(machine)
    assert times(seen) == [0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert seen[-1] == (32.0, TimedOut())
    assert machine.ended


def test_invite_over_a_stream_is_not_repeated() -> None:
    machine = client(flow=TCP)
    assert drain(machine) == [(32.0, TimedOut())]


def test_late_wake_up_makes_no_burst() -> None:
    machine = client()
    assert len(sends(machine.timer_fired(20.0))) == 1


def test_ringing_stops_retransmission() -> None:
    machine = client()
    assert statuses(machine.response_received(answer(180), 0.2)) == [180]
    assert state(machine) is State.PROCEEDING
    assert machine.deadline is None


def test_trying_stops_retransmission() -> None:
    machine = client()
    machine.response_received(answer(100), 0.2)
    assert machine.deadline is None


def test_every_provisional_is_delivered() -> None:
    machine = client()
    for status in (180, 183, 180):
        assert statuses(machine.response_received(answer(status), 1.0)) == [status]


@pytest.mark.parametrize("before", [None, 180])
def test_2xx_is_delivered_without_ack_and_accepted(before: int | None) -> None:
    machine = client()
    if before:
        machine.response_received(answer(before), 0.1)
    outcomes = machine.response_received(answer(200), 0.2)
    assert statuses(outcomes) == [200]
    assert sends(outcomes) == []
    assert state(machine) is State.ACCEPTED


def test_accepted_takes_repeated_and_forked_2xx_for_64_t1() -> None:
    machine = client()
    machine.response_received(answer(200), 1.0)
    assert statuses(machine.response_received(answer(200), 2.0)) == [200]
    assert statuses(machine.response_received(answer(200, tag="fork"), 3.0)) == [200]
    assert machine.deadline == 33.0
    assert drain(machine) == []
    assert machine.ended


def test_accepted_ignores_provisionals_and_failures() -> None:
    machine = client()
    machine.response_received(answer(200), 1.0)
    assert machine.response_received(answer(180), 2.0) == []
    assert machine.response_received(answer(486), 2.0) == []


@pytest.mark.parametrize("before", [None, 180])
def test_failure_is_delivered_and_acknowledged(before: int | None) -> None:
    machine = client()
    if before:
        machine.response_received(answer(before), 0.1)
    outcomes = machine.response_received(answer(486), 0.2)
    assert sends(outcomes) == ["ACK"]
    assert statuses(outcomes) == [486]
    assert state(machine) is State.COMPLETED


def test_repeated_failure_is_acknowledged_again_but_not_delivered() -> None:
    machine = client()
    first = machine.response_received(answer(486), 0.2)
    assert machine.response_received(answer(486), 1.0) == first[:1]


def test_completed_lasts_64_t1_over_udp_and_not_at_all_over_a_stream() -> None:
    machine = client()
    machine.response_received(answer(486), 0.25)
    assert machine.deadline == 32.25
    drain(machine)
    assert machine.ended
    machine = client(flow=TCP)
    machine.response_received(answer(486), 0.25)
    assert machine.ended


def test_ack_for_a_failure_has_branch_route_and_to_tag_as_asked() -> None:
    machine = client()
    ack = machine.response_received(answer(486), 0.2)[0]
    assert isinstance(ack, Send)
    message = parse_message(ack.data)
    assert isinstance(message, Request)
    assert message.method == "ACK"
    assert str(message.uri) == "sip:bob@192.0.2.2"
    assert message.headers.get_all("Via") == ["SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKabc;rport"]
    assert message.headers.get_all("Route") == ["<sip:192.0.2.9;lr>", "<sip:192.0.2.8;lr>"]
    assert message.to.tag == "t"
    assert message.from_.tag == "f"
    assert (message.cseq.number, message.cseq.method) == (7, "ACK")
    assert message.call_id == "c1"
    assert message.max_forwards == 70
    assert "Contact" not in message.headers


@pytest.mark.parametrize("before", [None, 180])
def test_transport_error_ends_an_unanswered_invite(before: int | None) -> None:
    machine = client()
    if before:
        machine.response_received(answer(before), 0.1)
    assert machine.transport_failed(1.0) == [Unreachable()]
    assert machine.ended


def test_transport_error_after_a_failure_is_not_told() -> None:
    machine = client()
    machine.response_received(answer(486), 0.1)
    assert machine.transport_failed(1.0) == []
    assert machine.ended


def test_transport_error_leaves_accepted_alone() -> None:
    machine = client()
    machine.response_received(answer(200), 0.1)
    assert machine.transport_failed(1.0) == []
    assert state(machine) is State.ACCEPTED


def test_cancelled_invite_waits_64_t1_for_its_final() -> None:
    machine = client()
    machine.response_received(answer(180), 0.1)
    machine.cancelled(10.0)
    assert drain(machine) == [(42.0, TimedOut())]


def test_cancelled_invite_that_is_answered_stops_waiting() -> None:
    machine = client()
    machine.response_received(answer(180), 0.1)
    machine.cancelled(10.0)
    assert statuses(machine.response_received(answer(487), 10.1)) == [487]
    assert [outcome for _, outcome in drain(machine)] == []


# CANCEL, RFC 3261 9.1


def test_cancel_copies_what_the_request_had() -> None:
    cancel = make_cancel(request(), 'SIP;cause=200;text="Call completed elsewhere"')
    assert cancel.method == "CANCEL"
    assert cancel.headers.get_all("Via") == ["SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKabc;rport"]
    assert cancel.headers.get_all("Route") == ["<sip:192.0.2.9;lr>", "<sip:192.0.2.8;lr>"]
    assert cancel.to.tag is None
    assert (cancel.cseq.number, cancel.cseq.method) == (7, "CANCEL")
    assert cancel.headers.get("Reason") == 'SIP;cause=200;text="Call completed elsewhere"'


# Non-INVITE client, figure 6


def test_request_is_repeated_up_to_t2_for_64_t1() -> None:
    machine = client("OPTIONS")
    seen = drain(machine)
    assert times(seen) == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert seen[-1] == (32.0, TimedOut())
    assert machine.ended


def test_request_over_a_stream_is_not_repeated() -> None:
    assert drain(client("OPTIONS", TCP)) == [(32.0, TimedOut())]


def test_provisional_slows_repetition_down_to_t2() -> None:
    machine = client("OPTIONS")
    assert statuses(machine.response_received(answer(100, "OPTIONS"), 0.2)) == [100]
    seen = drain(machine)
    assert times(seen) == [0.5, 4.5, 8.5, 12.5, 16.5, 20.5, 24.5, 28.5]
    assert seen[-1] == (32.0, TimedOut())


@pytest.mark.parametrize("before", [None, 100])
@pytest.mark.parametrize("status", [200, 404])
def test_final_is_delivered_once_and_repeats_are_absorbed_for_t4(
    before: int | None, status: int
) -> None:
    machine = client("OPTIONS")
    if before:
        machine.response_received(answer(before, "OPTIONS"), 0.1)
    assert statuses(machine.response_received(answer(status, "OPTIONS"), 1.0)) == [status]
    assert machine.response_received(answer(status, "OPTIONS"), 2.0) == []
    assert machine.deadline == 6.0
    drain(machine)
    assert machine.ended


def test_final_over_a_stream_ends_at_once() -> None:
    machine = client("OPTIONS", TCP)
    machine.response_received(answer(200, "OPTIONS"), 1.0)
    assert machine.ended
    assert machine.deadline is None


@pytest.mark.parametrize("before", [None, 100])
def test_transport_error_ends_a_request(before: int | None) -> None:
    machine = client("OPTIONS")
    if before:
        machine.response_received(answer(before, "OPTIONS"), 0.1)
    assert machine.transport_failed(1.0) == [Unreachable()]
    assert machine.ended


# INVITE server, figure 7


def test_trying_is_sent_when_the_user_takes_longer_than_200_ms() -> None:
    machine = server()
    assert sends([outcome for _, outcome in drain(machine)]) == ["SIP/2.0"]
    assert machine.deadline is None


def test_no_trying_after_a_response_of_the_user() -> None:
    machine = server()
    machine.respond(answer(180), 0.1)
    assert machine.deadline is None


def test_repeated_invite_before_any_response_is_absorbed() -> None:
    assert server().request_received(0.1) == []


def test_repeated_invite_gets_the_last_provisional() -> None:
    machine = server()
    machine.respond(answer(180), 0.1)
    last = machine.respond(answer(183), 0.2)
    assert machine.request_received(0.5) == last


def test_2xx_is_accepted_and_the_repeated_invite_is_absorbed() -> None:
    machine = server()
    assert len(sends(machine.respond(answer(200), 0.1))) == 1
    assert state(machine) is State.ACCEPTED
    assert machine.request_received(0.6) == []


def test_user_may_repeat_its_2xx_for_64_t1() -> None:
    machine = server()
    first = machine.respond(answer(200), 0.0)
    assert machine.respond(answer(200), 0.5) == first
    assert machine.deadline == 32.0
    assert drain(machine) == []
    assert machine.ended


def test_ack_with_the_branch_of_the_invite_is_passed_on_in_accepted() -> None:
    machine = server()
    machine.respond(answer(200), 0.1)
    assert machine.ack_received(0.2) == [AckDelivered()]


def test_failure_is_repeated_until_the_ack() -> None:
    machine = server()
    machine.respond(answer(486), 0.0)
    assert times(drain(machine, 8.0)) == [0.5, 1.5, 3.5, 7.5]
    assert machine.ack_received(8.0) == []
    assert state(machine) is State.CONFIRMED
    assert drain(machine) == []
    assert machine.ended


def test_failure_without_ack_times_out_after_64_t1() -> None:
    machine = server()
    machine.respond(answer(486), 0.0)
    seen = drain(machine)
    assert times(seen) == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert seen[-1] == (32.0, TimedOut())
    assert machine.ended


def test_failure_over_a_stream_is_not_repeated() -> None:
    machine = server(flow=TCP)
    machine.respond(answer(486), 0.0)
    assert drain(machine) == [(32.0, TimedOut())]


def test_repeated_invite_gets_the_failure_again() -> None:
    machine = server()
    last = machine.respond(answer(486), 0.0)
    assert machine.request_received(0.1) == last


def test_confirmed_absorbs_for_t4_over_udp_and_not_at_all_over_a_stream() -> None:
    machine = server()
    machine.respond(answer(486), 0.0)
    machine.ack_received(1.0)
    assert machine.request_received(2.0) == []
    assert machine.ack_received(2.0) == []
    assert machine.deadline == 6.0
    machine = server(flow=TCP)
    machine.respond(answer(486), 0.0)
    machine.ack_received(1.0)
    assert machine.ended


@pytest.mark.parametrize("first", [200, 486])
def test_only_one_kind_of_final_is_sent(first: int) -> None:
    machine = server()
    machine.respond(answer(first), 0.0)
    assert machine.respond(answer(180), 0.1) == []
    assert machine.respond(answer(480), 0.1) == []


def test_ack_before_any_final_is_ignored() -> None:
    machine = server()
    assert machine.ack_received(0.1) == []
    assert state(machine) is State.PROCEEDING


def test_transport_error_before_the_final_leaves_the_way_open() -> None:
    machine = server()
    assert machine.transport_failed(0.1) == []
    assert len(sends(machine.respond(answer(200), 0.2))) == 1


def test_transport_error_ends_a_failure_that_is_being_repeated() -> None:
    machine = server()
    machine.respond(answer(486), 0.0)
    assert machine.transport_failed(0.1) == [Unreachable()]
    assert machine.ended


# Non-INVITE server, figure 8, RFC 4320


def test_trying_is_sent_only_once_timer_e_of_the_client_is_at_t2() -> None:
    machine = server("OPTIONS")
    assert times(drain(machine, 10.0)) == [3.5]
    assert state(machine) is State.PROCEEDING


def test_repeated_request_before_any_response_is_absorbed_quietly() -> None:
    assert server("OPTIONS").request_received(0.5) == []


def test_repeated_request_gets_the_100_again() -> None:
    machine = server("OPTIONS")
    [trying] = [outcome for _, outcome in drain(machine, 10.0)]
    assert machine.request_received(11.0) == [trying]


def test_own_100_of_the_user_is_sent() -> None:
    machine = server("OPTIONS")
    assert len(sends(machine.respond(answer(100, "OPTIONS"), 4.0))) == 1
    assert state(machine) is State.PROCEEDING


def test_no_provisional_but_100_is_sent_to_a_non_invite() -> None:
    with pytest.raises(ValueError, match="183"):
        server("OPTIONS").respond(answer(183, "OPTIONS"), 0.1)


def test_408_is_never_sent_to_a_non_invite() -> None:
    machine = server("OPTIONS")
    assert machine.respond(answer(408, "OPTIONS"), 0.1) == []
    assert machine.pending


@pytest.mark.parametrize("wait", [0.0, 5.0])
@pytest.mark.parametrize("status", [200, 404])
def test_final_is_sent_and_repeated_on_request_for_64_t1(wait: float, status: int) -> None:
    machine = server("OPTIONS")
    drain(machine, wait)
    last = machine.respond(answer(status, "OPTIONS"), wait)
    assert len(sends(last)) == 1
    assert machine.request_received(wait + 1) == last
    assert machine.respond(answer(500, "OPTIONS"), wait + 2) == []
    assert machine.deadline == wait + 32.0
    drain(machine)
    assert machine.ended


def test_final_response_over_a_stream_ends_at_once() -> None:
    machine = server("OPTIONS", TCP)
    machine.respond(answer(200, "OPTIONS"), 1.0)
    assert machine.ended


def test_answer_that_would_come_too_late_is_not_sent_at_all() -> None:
    machine = server("OPTIONS")
    drain(machine)
    assert machine.ended
    assert machine.respond(answer(200, "OPTIONS"), 40.0) == []


def test_transport_error_ends_a_completed_request() -> None:
    machine = server("OPTIONS")
    machine.respond(answer(200, "OPTIONS"), 1.0)
    assert machine.transport_failed(2.0) == [Unreachable()]


@pytest.mark.parametrize("make", [lambda: client(), lambda: server()])
def test_ended_transaction_has_no_deadline(
    make: Callable[[], ClientTransaction | ServerTransaction],
) -> None:
    machine = make()
    machine.machine.end()
    assert machine.deadline is None
    assert machine.machine.fire(Trigger.SUCCESS, 1.0).name == "NOTHING"
