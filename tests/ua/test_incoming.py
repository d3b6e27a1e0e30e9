"""Calls and requests that come in: who may, what is answered, what is refused and why."""

import weakref
from dataclasses import replace

import pytest
from doorstation.ids import SeededIds
from doorstation.sip.digest import Credential, DigestClient
from doorstation.sip.headers import parse_challenge
from doorstation.sip.message import Request, parse_message
from doorstation.sip.transport import Flow, Transport
from doorstation.sip.uri import SipUri
from doorstation.ua.config import Account, AgentConfig, Peer
from doorstation.ua.events import (
    CallArrived,
    CallConnected,
    CallEnded,
    MediaChanged,
    MessageReceived,
    OutcomeKind,
    Refused,
)
from doorstation.ua.inspect import METHODS

from tests.support.wire import LOCAL, REMOTE, SDP, Wire, leaves_nothing, request, udp

INDOOR = Peer("indoor", SipUri(user="indoor", host=REMOTE))
PORT = 16384


def wire(*peers: Peer, **more: object) -> Wire:
    return Wire(AgentConfig(peers=peers or (INDOOR,), **more))  # type: ignore[arg-type]


def arrived(*headers: tuple[str, str], body: bytes = SDP, **more: object) -> tuple[Wire, str]:
    w = wire(**more)
    w.receive(request("INVITE", *headers, body=body))
    [call] = w.told(CallArrived)
    return w, call.call


def ack(w: Wire, call: str, body: bytes = b"") -> bytes:
    tag = w.agent.calls[call].dialog.local_tag  # type: ignore[union-attr]
    return request("ACK", to_tag=tag, body=body)


def inside(w: Wire, call: str, method: str, *headers: tuple[str, str], cseq: int = 2) -> bytes:
    tag = w.agent.calls[call].dialog.local_tag  # type: ignore[union-attr]
    return request(method, *headers, to_tag=tag, cseq=cseq)


def connected(*headers: tuple[str, str], **more: object) -> tuple[Wire, str]:
    w, call = arrived(*headers, **more)  # type: ignore[arg-type]
    w.do(w.agent.answer(call, PORT, w.now))
    w.receive(ack(w, call))
    w.sent()
    return w, call


@pytest.mark.parametrize(
    ("uri", "header"),
    [
        (f"sips:door@{LOCAL}", ("Record-Route", f"<sip:{REMOTE};lr;transport=tls>")),
        (f"sip:door@{LOCAL}", ("Record-Route", f"<sips:{REMOTE};lr>")),
        (f"sip:door@{LOCAL}", ("Contact", f"<sips:indoor@{REMOTE}>")),
    ],
)
def test_a_call_by_sips_is_answered_by_a_sips_contact(uri: str, header: tuple[str, str]) -> None:
    """RFC 3261 §12.1.1: pjsip ends a call of sips: that is answered otherwise."""
    w = wire()
    flow = Flow(77, Transport.TLS, (LOCAL, 5061), (REMOTE, 49152))
    w.receive(request("INVITE", header, uri=uri, body=SDP), flow)
    [arrival] = w.told(CallArrived)
    w.do(w.agent.answer(arrival.call, PORT, w.now))
    assert w.response().headers.get("Contact") == f"<sips:door@{LOCAL}:5061>"


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("transport", [Transport.TCP, Transport.TLS])
def test_a_call_by_a_connection_is_ended_by_it(transport: Transport, named: bool) -> None:
    """A phone with TLS has no certificate to be called on; many listen to nobody by TCP.

    Some do not even say in their Contact how they are called.
    """
    w = wire()
    theirs = Flow(77, transport, (LOCAL, transport.default_port), (REMOTE, 49152))
    via = f"SIP/2.0/{transport} {REMOTE}:5060;branch=z9hG4bK77;rport"
    how = f";transport={transport.lower()}" if named else ""
    headers = (("Via", via), ("Contact", f"<sip:indoor@{REMOTE}{how}>"))
    w.receive(request("INVITE", *headers, body=SDP), theirs)
    [arrival] = w.told(CallArrived)
    w.do(w.agent.answer(arrival.call, PORT, w.now))
    tag = w.agent.calls[arrival.call].dialog.local_tag  # type: ignore[union-attr]
    w.receive(request("ACK", *headers, to_tag=tag), theirs)
    w.sent()
    w.do(w.agent.hang_up(arrival.call, w.now))
    [(flow, bye)] = w.sent_with_flows()
    assert (flow, bye.method) == (theirs, "BYE")


def test_a_call_by_a_connection_that_is_gone_is_ended_where_its_contact_says() -> None:
    w = wire()
    theirs = Flow(77, Transport.TCP, (LOCAL, 5060), (REMOTE, 49152))
    via = f"SIP/2.0/TCP {REMOTE}:5060;branch=z9hG4bK77;rport"
    headers = (("Via", via), ("Contact", f"<sip:indoor@{REMOTE};transport=tcp>"))
    w.receive(request("INVITE", *headers, body=SDP), theirs)
    [arrival] = w.told(CallArrived)
    w.do(w.agent.answer(arrival.call, PORT, w.now))
    tag = w.agent.calls[arrival.call].dialog.local_tag  # type: ignore[union-attr]
    w.receive(request("ACK", *headers, to_tag=tag), theirs)
    w.sent()
    w.do(w.agent.flow_closed(theirs, "closed by the far end", w.now))
    w.do(w.agent.hang_up(arrival.call, w.now))
    [(flow, bye)] = w.sent_with_flows()
    assert (flow.transport, flow.remote) == (Transport.TCP, (REMOTE, 5060))
    assert bye.method == "BYE"


def test_allowed_call_rings_and_is_answered() -> None:
    w, call = arrived()
    w.do(w.agent.ring(call, w.now))
    ringing = w.response()
    assert ringing.status == 180
    w.do(w.agent.answer(call, PORT, w.now))
    answer = w.response()
    assert answer.status == 200
    assert answer.to.tag == ringing.to.tag
    assert f"m=audio {PORT} RTP/AVP 8 101".encode() in answer.body
    assert len(w.told(CallConnected)) == 1
    w.receive(ack(w, call))
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4000)


def test_a_call_in_that_is_over_is_gone_without_the_garbage_collector() -> None:
    w, name = connected()
    call = weakref.ref(w.agent.calls[name])
    w.receive(inside(w, name, "BYE"))
    assert w.response().status == 200
    assert leaves_nothing(w, call)


def test_ringing_after_the_answer_says_nothing() -> None:
    w, call = arrived()
    w.do(w.agent.answer(call, PORT, w.now))
    w.sent()
    w.do(w.agent.ring(call, w.now))
    assert w.sent() == []


def test_200_is_repeated_until_ack_and_then_given_up_with_bye() -> None:
    """RFC 3261 §13.3.1.4."""
    w, call = arrived()
    w.do(w.agent.answer(call, PORT, w.now))
    w.wait(31.9)
    assert len([m for m in w.sent() if getattr(m, "status", 0) == 200]) == 11
    w.until_sent(0.2)
    assert w.request("BYE")
    assert len(w.told(CallEnded)) == 1


def test_hanging_up_before_the_ack_waits_for_it() -> None:
    """RFC 3261 §15: the called side may not send BYE before the ACK."""
    w, call = arrived()
    w.do(w.agent.answer(call, PORT, w.now))
    w.sent()
    w.do(w.agent.hang_up(call, w.now))
    assert w.sent() == []
    w.receive(ack(w, call))
    assert w.request("BYE")


def test_call_lost_before_the_ack_sends_no_bye_until_it() -> None:
    w, call = arrived()
    w.do(w.agent.answer(call, PORT, w.now))
    w.do(w.agent.send_info_digit(call, "5", w.now))
    _, info = w.sent()
    w.answer(info, 481)
    assert len(w.told(CallEnded)) == 1
    assert w.sent() == []
    w.receive(ack(w, call))
    assert w.request("BYE")


def test_cancel_gets_200_and_the_invite_487() -> None:
    """16."""
    w, _ = arrived()
    invite = request("INVITE", body=SDP, branch="same", call_id="c2")
    w.receive(invite)
    w.sent()
    w.receive(request("CANCEL", branch="same", call_id="c2"))
    answers = [(m.cseq.method, m.status) for m in w.sent()]
    assert answers == [("CANCEL", 200), ("INVITE", 487)]
    assert w.told(CallEnded)[0].kind is OutcomeKind.CANCELLED


def test_an_invitation_that_nobody_answers_in_its_time_gets_487() -> None:
    """RFC 3261 §13.3.1: Expires in an INVITE."""
    w, call = arrived(("Expires", "20"))
    w.do(w.agent.ring(call, w.now))
    w.sent()
    w.wait(19)
    assert w.sent() == []
    w.wait(1)
    assert w.response().status == 487
    assert w.told(CallEnded)[0].kind is OutcomeKind.CANCELLED
    w, call = connected(("Expires", "20"))
    w.wait(25)
    assert call in w.agent.calls


def test_cancel_after_the_answer_changes_nothing() -> None:
    """16."""
    w = wire()
    w.receive(request("INVITE", body=SDP, branch="same"))
    [call] = w.told(CallArrived)
    w.do(w.agent.answer(call.call, PORT, w.now))
    w.sent()
    w.receive(request("CANCEL", branch="same"))
    assert [(m.cseq.method, m.status) for m in w.sent()] == [("CANCEL", 200)]
    assert len(w.agent.calls) == 1


def test_reject_with_a_code() -> None:
    w, call = arrived()
    w.do(w.agent.reject(call, 486, w.now))
    assert w.response().status == 486
    w.receive(ack_of_refusal(w))
    w.wait(40)
    assert w.agent.calls == {}


def ack_of_refusal(w: Wire) -> bytes:
    return request("ACK", to_tag="whatever")


def test_early_media_out_is_a_183_with_the_answer_of_the_200() -> None:
    w, call = arrived()
    w.do(w.agent.progress(call, PORT, w.now))
    early = w.response()
    assert (early.status, early.content_type) == (183, "application/sdp")
    assert w.told(MediaChanged)[-1].early
    w.do(w.agent.answer(call, PORT, w.now))
    assert w.response().body == early.body


def test_late_offer_puts_ours_into_the_200_and_reads_the_ack() -> None:
    w, call = arrived(body=b"")
    w.do(w.agent.answer(call, PORT, w.now))
    offer = w.response()
    assert b"m=audio 16384 RTP/AVP 8 0 101" in offer.body
    assert w.told(MediaChanged) == []
    w.receive(ack(w, call, SDP))
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4000)


def test_late_offer_without_an_answer_in_the_ack_ends_the_call() -> None:
    w, call = arrived(body=b"")
    w.do(w.agent.answer(call, PORT, w.now))
    w.sent()
    w.receive(ack(w, call))
    assert w.request("BYE")


def test_nothing_in_common_gets_488_before_it_rings() -> None:
    w = wire()
    w.receive(request("INVITE", body=SDP.replace(b"RTP/AVP 8 101", b"RTP/AVP 18 101")))
    assert w.response().status == 488
    assert w.told(CallArrived) == []


def test_webrtc_offer_gets_488_at_once_and_says_why() -> None:
    w = wire()
    w.receive(request("INVITE", body=SDP.replace(b"RTP/AVP", b"UDP/TLS/RTP/SAVPF")))
    assert w.response().status == 488
    assert "SAVPF" in w.told(Refused)[0].rule


# -- reliable provisional responses (RFC 3262)


def test_183_is_reliable_for_who_supports_it_and_repeated_until_prack() -> None:
    w, call = arrived(("Supported", "100rel"))
    w.do(w.agent.progress(call, PORT, w.now))
    early = w.response()
    assert early.require == ["100rel"]
    w.wait(1.6)
    assert [m.status for m in w.sent()] == [183, 183]
    rack = ("RAck", f"{early.headers.get('RSeq')} 1 INVITE")
    w.receive(inside(w, call, "PRACK", rack))
    assert w.response().status == 200
    w.wait(30)
    assert w.sent() == []


def test_200_waits_for_the_prack_and_repeats_no_sdp() -> None:
    w, call = arrived(("Supported", "100rel"))
    w.do(w.agent.progress(call, PORT, w.now))
    early = w.response()
    w.do(w.agent.answer(call, PORT, w.now))
    assert w.sent() == []
    w.receive(inside(w, call, "PRACK", ("RAck", f"{early.headers.get('RSeq')} 1 INVITE")))
    prack, answer = w.sent()
    assert (prack.cseq.method, answer.cseq.method) == ("PRACK", "INVITE")
    assert answer.body == b""
    assert w.told(MediaChanged)[-1].session is not None


def test_prack_that_matches_nothing_gets_481() -> None:
    w, call = arrived(("Supported", "100rel"))
    w.do(w.agent.progress(call, PORT, w.now))
    w.sent()
    w.receive(inside(w, call, "PRACK", ("RAck", "1 1 INVITE")))
    assert w.response().status == 481


def test_no_prack_ends_the_attempt_with_5xx() -> None:
    w, call = arrived(("Supported", "100rel"))
    w.do(w.agent.progress(call, PORT, w.now))
    w.wait(33)
    assert w.sent()[-1].status == 504
    assert w.told(CallEnded)[0].kind is OutcomeKind.FAILED


def test_required_100rel_makes_the_180_reliable() -> None:
    w, call = arrived(("Require", "100rel"))
    w.do(w.agent.ring(call, w.now))
    ringing = w.response()
    assert (ringing.status, ringing.require) == (180, ["100rel"])
    w.receive(inside(w, call, "PRACK", ("RAck", f"{ringing.headers.get('RSeq')} 1 INVITE")))
    w.sent()
    w.do(w.agent.answer(call, PORT, w.now))
    assert b"m=audio" in w.response().body


# -- session timer, called side


def test_session_timer_asked_for_is_agreed_and_expires() -> None:
    w, call = arrived(("Session-Expires", "90;refresher=uac"), ("Supported", "timer"))
    w.do(w.agent.answer(call, PORT, w.now))
    answer = w.response()
    assert answer.headers.get("Session-Expires") == "90;refresher=uac"
    assert answer.require == ["timer"]
    w.receive(ack(w, call))
    w.until_sent(61)
    assert w.request("BYE")


def test_too_small_a_session_interval_gets_422_with_min_se() -> None:
    w = wire()
    w.receive(request("INVITE", ("Session-Expires", "30"), ("Supported", "timer"), body=SDP))
    refusal = w.response()
    assert (refusal.status, refusal.headers.get("Min-SE")) == (422, "90")
    assert w.agent.calls == {}


def test_we_refresh_for_a_caller_without_session_timers() -> None:
    w, _ = connected(("Session-Expires", "100"))
    w.until_sent(51)
    assert w.request("INVITE").headers.get("Session-Expires") == "100;refresher=uac"


# -- glare and order


def test_a_second_invite_before_the_first_is_answered_gets_500_with_retry_after() -> None:
    w, call = arrived()
    w.receive(inside(w, call, "INVITE"))
    refusal = w.response()
    assert refusal.status == 500
    assert "Retry-After" in refusal.headers


def test_glare_as_the_called_side_waits_less_than_two_seconds() -> None:
    w, call = connected()
    w.do(w.agent.hold(call, w.now))
    w.answer(w.request("INVITE"), 491)
    w.sent()
    start = w.now
    w.until_sent(2)
    assert w.now - start <= 2.0


def test_update_before_the_answer_while_our_answer_is_open_gets_500() -> None:
    """RFC 3311 §5.2."""
    w, call = arrived()
    w.do(w.agent.ring(call, w.now))
    w.sent()
    tag = w.agent.calls[call].dialog.local_tag  # type: ignore[union-attr]
    w.receive(request("UPDATE", to_tag=tag, cseq=2, body=SDP))
    assert w.response().status == 500


def test_update_while_our_late_offer_waits_for_the_ack_gets_491() -> None:
    """RFC 3311 §5.2."""
    w, call = arrived(body=b"")
    w.do(w.agent.answer(call, PORT, w.now))
    tag = w.response().to.tag or ""
    w.receive(request("UPDATE", to_tag=tag, cseq=2, body=SDP))
    assert w.response().status == 491


def test_bye_of_an_unanswered_call_ends_it_with_487() -> None:
    w, call = arrived()
    w.receive(inside(w, call, "BYE"))
    assert sorted(m.status for m in w.sent()) == [200, 487]
    assert w.agent.calls == {}


# -- who may


def test_strangers_are_refused_with_403_and_leave_no_call() -> None:
    w = wire()
    w.receive(request("INVITE", body=SDP), udp("203.0.113.5"))
    assert w.response().status == 403
    assert w.told(Refused)[0].rule == "stranger"
    assert w.agent.calls == {}


def test_from_saying_a_peers_name_lets_nobody_in() -> None:
    w = wire()
    w.receive(request("INVITE", body=SDP, from_uri=f"sip:indoor@{REMOTE}"), udp("203.0.113.5"))
    assert w.response().status == 403


def test_peer_that_may_not_call_is_refused() -> None:
    w = wire(Peer("indoor", SipUri(host=REMOTE), may_call=False))
    w.receive(request("INVITE", body=SDP))
    assert w.response().status == 403
    assert w.told(Refused)[0].rule == "peer-may-not-call"


GUARDED = Peer("office", SipUri(user="office", host="office.example"), password="quite secret")


def test_peer_with_a_password_is_challenged_and_let_in_when_it_proves_it() -> None:
    w = wire(GUARDED)
    first = request("INVITE", body=SDP, from_uri="sip:office@somewhere.example")
    w.receive(first, udp("203.0.113.5"))
    challenge = w.response()
    assert challenge.status == 401
    sent = parse_message(first)
    assert isinstance(sent, Request)
    client = DigestClient(Credential("office", "quite secret"), SeededIds(5))
    proved = client.answer(sent, challenge)
    assert proved is not None
    proved.headers.set("CSeq", "2 INVITE")
    proved.headers.set("Via", f"SIP/2.0/UDP {REMOTE}:5060;branch=z9hG4bKproved")
    w.receive(proved, udp("203.0.113.5"))
    [call] = w.told(CallArrived)
    assert (call.rule, call.known_as) == ("peer-password", "office")


def test_a_peer_is_offered_the_algorithms_of_its_settings_and_no_other_counts() -> None:
    """baresip 1.0.0 gives up when SHA-256 is offered at all."""
    w = Wire(AgentConfig(peers=(replace(GUARDED, digest=("MD5",)),)))
    call = ("From", "<sip:office@else>;tag=t")
    w.receive(request("INVITE", call, body=SDP))
    lines = w.response().headers.get_all("WWW-Authenticate")
    assert [parse_challenge(line).param("algorithm") for line in lines] == ["MD5"]


def test_wrong_password_is_challenged_again_and_never_let_in() -> None:
    w = wire(GUARDED)
    first = request("INVITE", body=SDP, from_uri="sip:office@somewhere.example")
    w.receive(first, udp("203.0.113.5"))
    sent = parse_message(first)
    assert isinstance(sent, Request)
    client = DigestClient(Credential("office", "guess"), SeededIds(5))
    proved = client.answer(sent, w.response())
    assert proved is not None
    proved.headers.set("CSeq", "2 INVITE")
    proved.headers.set("Via", f"SIP/2.0/UDP {REMOTE}:5060;branch=z9hG4bKproved")
    w.receive(proved, udp("203.0.113.5"))
    assert w.response().status == 401
    assert w.told(CallArrived) == []


def registered() -> Wire:
    account = Account(user="door", domain="pbx.test", registrar=SipUri(host=REMOTE), keep_alive=0)
    w = Wire(AgentConfig(account=account))
    w.do(w.agent.start(w.now))
    w.answer(w.request("REGISTER"), 200)
    return w


def test_the_registrar_in_use_may_call() -> None:
    w = registered()
    w.receive(request("INVITE", body=SDP))
    assert w.told(CallArrived)[0].rule == "registrar"


def test_nobody_may_call_by_the_registrars_rule_before_we_are_registered() -> None:
    account = Account(user="door", domain="pbx.test", registrar=SipUri(host=REMOTE), keep_alive=0)
    w = Wire(AgentConfig(account=account))
    w.do(w.agent.start(w.now))
    w.sent()
    w.receive(request("INVITE", body=SDP))
    assert w.response().status == 403


def test_a_registrar_that_does_not_want_us_any_more_may_not_call_either() -> None:
    w = registered()
    w.answer(w.until_sent(300).request("REGISTER"), 403)
    w.receive(request("INVITE", body=SDP))
    assert w.response().status == 403


def test_who_sends_to_the_socket_that_we_registered_by_is_not_the_registrar() -> None:
    w = registered()
    w.receive(request("INVITE", body=SDP), udp("198.51.100.7"))
    assert w.response().status == 403
    assert w.told(CallArrived) == []


def test_a_stream_we_opened_to_the_registrar_is_the_registrars_whatever_its_address() -> None:
    params = (("transport", "tcp"),)
    account = Account(
        user="door", domain="pbx.test", registrar=SipUri(host=REMOTE, params=params), keep_alive=0
    )
    w = Wire(AgentConfig(account=account))
    w.do(w.agent.start(w.now))
    [(flow, register)] = w.sent_with_flows()
    w.answer(register, 200, flow=flow)
    w.receive(request("INVITE", body=SDP).replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP"), flow)
    assert w.told(CallArrived)[0].rule == "registrar"
    other = Flow(999, Transport.TCP, (LOCAL, 5060), ("198.51.100.7", 40000))
    w.receive(
        request("INVITE", body=SDP, call_id="x").replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP"), other
    )
    assert w.told(CallArrived) == []


def test_ipv4_mapped_source_is_the_same_peer() -> None:
    w = wire()
    w.receive(request("INVITE", body=SDP), udp(f"::ffff:{REMOTE}"))
    assert len(w.told(CallArrived)) == 1


def test_more_calls_than_the_limit_get_486() -> None:
    w = wire(max_calls=2)
    for number in range(3):
        w.receive(request("INVITE", body=SDP, call_id=f"c{number}"))
    assert len(w.told(CallArrived)) == 2
    assert w.sent()[-1].status == 486


def test_of_a_long_text_the_beginning_is_told() -> None:
    w = wire()
    w.receive(request("MESSAGE", body=b"a" * 10_000, content_type="text/plain"))
    assert w.response().status == 200
    assert w.told(MessageReceived)[0].text == "a" * 4096


def test_text_of_a_peer_is_answered_and_told() -> None:
    w = wire()
    w.receive(request("MESSAGE", body="Grüße".encode(), content_type="text/plain;charset=UTF-8"))
    assert w.response().status == 200
    [message] = w.told(MessageReceived)
    assert (message.text, message.rule) == ("Grüße", "peer-address")


def test_text_of_a_stranger_is_refused() -> None:
    w = wire()
    w.receive(request("MESSAGE", body=b"x", content_type="text/plain"), udp("203.0.113.5"))
    assert w.response().status == 403
    assert w.told(MessageReceived) == []


# -- what RFC 3261 §8.2 asks of every request


@pytest.mark.parametrize("user", ["door", "anybody", ""])
@pytest.mark.parametrize("source", [REMOTE, "203.0.113.5"])
def test_options_is_answered_200_whatever_the_user_part(user: str, source: str) -> None:
    """Asterisk's qualify."""
    w = wire()
    uri = f"sip:{user}@{LOCAL}" if user else f"sip:{LOCAL}"
    w.receive(request("OPTIONS", uri=uri), udp(source))
    answer = w.response()
    assert answer.status == 200
    assert answer.allow == list(METHODS)
    assert "application/sdp" in (answer.headers.get("Accept") or "")


def test_allow_lists_only_what_works() -> None:
    """16: each listed method is answered by something else than 405 and 501."""
    for method in METHODS:
        if method in ("ACK", "CANCEL"):
            continue
        w = wire()
        w.receive(request(method, body=SDP if method == "INVITE" else b""))
        if method == "INVITE":
            assert len(w.told(CallArrived)) == 1
        else:
            assert w.response().status not in (405, 501)


@pytest.mark.parametrize(
    ("method", "status"),
    [("REGISTER", 405), ("SUBSCRIBE", 405), ("NOTIFY", 405), ("REFER", 405), ("BANANA", 501)],
)
def test_other_methods_get_405_or_501_with_allow(method: str, status: int) -> None:
    w = wire()
    w.receive(request(method))
    answer = w.response()
    assert answer.status == status
    assert answer.allow == list(METHODS)


def test_required_extension_we_lack_gets_420_with_unsupported() -> None:
    w = wire()
    w.receive(request("INVITE", ("Require", "100rel, nothing, replaces"), body=SDP))
    answer = w.response()
    assert answer.status == 420
    assert answer.headers.get("Unsupported") == "nothing, replaces"


@pytest.mark.parametrize(
    ("method", "kind"),
    [("INVITE", "text/html"), ("MESSAGE", "application/octet-stream"), ("INFO", "image/png")],
)
def test_unknown_content_gets_415_with_accept(method: str, kind: str) -> None:
    w = wire()
    w.receive(request(method, body=b"x", content_type=kind))
    answer = w.response()
    assert answer.status == 415
    assert "Accept" in answer.headers


SEVERAL = "multipart/mixed;boundary=parts"
LOCATION = b"--parts\r\nContent-Type: application/pidf+xml\r\n\r\n<presence/>\r\n"


def several(body: bytes) -> bytes:
    return LOCATION + b"--parts\r\nContent-Type: application/sdp\r\n\r\n" + body + b"\r\n--parts--"


def test_session_description_among_other_parts_is_the_offer() -> None:
    """RFC 5621 §3.1: emergency and trunk lines send a location or ISUP beside it."""
    w = wire()
    w.receive(request("INVITE", body=several(SDP), content_type=SEVERAL))
    [call] = w.told(CallArrived)
    w.do(w.agent.answer(call.call, PORT, w.now))
    assert b"m=audio 16384 RTP/AVP 8 101" in w.response().body
    w.receive(ack(w, call.call))
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4000)
    w, name = connected()
    moved = several(SDP.replace(b"4000", b"4242"))
    tag = w.agent.calls[name].dialog.local_tag  # type: ignore[union-attr]
    again = request("INVITE", to_tag=tag, cseq=2, body=moved, content_type=SEVERAL)
    w.receive(again)
    assert w.response().content_type == "application/sdp"
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4242)


def test_session_description_among_other_parts_of_the_ack_is_the_answer() -> None:
    w, call = arrived(body=b"")
    w.do(w.agent.answer(call, PORT, w.now))
    tag = w.response().to.tag or ""
    w.receive(request("ACK", to_tag=tag, body=several(SDP), content_type=SEVERAL))
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4000)


def test_parts_without_a_session_description_get_415() -> None:
    w = wire()
    w.receive(request("INVITE", body=LOCATION + b"--parts--", content_type=SEVERAL))
    assert w.response().status == 415


def test_unknown_content_with_handling_optional_is_passed_over() -> None:
    w = wire()
    optional = ("Content-Disposition", "session;handling=optional")
    w.receive(request("INVITE", optional, body=b"x", content_type="application/foo"))
    assert len(w.told(CallArrived)) == 1


def test_encoded_content_gets_415_with_accept_encoding() -> None:
    w = wire()
    w.receive(request("INVITE", ("Content-Encoding", "gzip"), body=SDP))
    answer = w.response()
    assert (answer.status, answer.headers.get("Accept-Encoding")) == (415, "identity")


def test_accept_without_sdp_gets_406() -> None:
    w = wire()
    w.receive(request("INVITE", ("Accept", "text/html"), body=SDP))
    assert w.response().status == 406


@pytest.mark.parametrize("accept", ["application/sdp", "*/*", "text/html, application/*;q=0.1"])
def test_accept_with_sdp_is_fine(accept: str) -> None:
    w = wire()
    w.receive(request("INVITE", ("Accept", accept), body=SDP))
    assert len(w.told(CallArrived)) == 1


def test_unknown_uri_scheme_gets_416() -> None:
    w = wire()
    w.receive(request("INVITE", body=SDP, uri="soap.beep://192.0.2.103:3002"))
    assert w.response().status == 416


def test_out_of_hops_for_another_host_gets_483_and_for_us_is_taken() -> None:
    """RFC 3261 §16.3: a proxy's refusal; at the end of the way 0 is no fault."""
    w = wire()
    w.receive(request("OPTIONS", ("Max-Forwards", "0"), uri="sip:other@198.51.100.9"))
    assert w.response().status == 483
    w.receive(request("OPTIONS", ("Max-Forwards", "0"), call_id="y"))
    assert w.response().status == 200


def test_request_inside_a_dialog_nobody_knows_gets_481() -> None:
    w = wire()
    for method in ("BYE", "INFO", "UPDATE", "PRACK"):
        w.receive(request(method, to_tag="gone", call_id=method))
        assert w.response().status == 481


def test_every_final_answer_has_a_to_tag() -> None:
    w = wire()
    for method in ("OPTIONS", "BANANA", "REGISTER", "BYE", "INVITE"):
        w.receive(request(method, call_id=method), udp("203.0.113.5"))
        assert w.response().to.tag


def test_unknown_info_package_gets_469() -> None:
    """RFC 6086 §4.2.2."""
    w, call = connected()
    w.receive(inside(w, call, "INFO", ("Info-Package", "weather")))
    answer = w.response()
    assert answer.status == 469
    assert "Recv-Info" in answer.headers


def test_info_without_a_body_is_answered_200() -> None:
    w, call = connected()
    w.receive(inside(w, call, "INFO"))
    assert w.response().status == 200
