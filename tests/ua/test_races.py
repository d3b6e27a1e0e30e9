"""Messages that cross: each pair of things that may happen at once, in the order nobody wants."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from doorstation.sip.message import Request
from doorstation.sip.uri import SipUri
from doorstation.ua.config import Account, AgentConfig, Peer
from doorstation.ua.events import (
    CallArrived,
    CallConnected,
    CallEnded,
    CommandResult,
    GroupAnswered,
    GroupFailed,
    MediaChanged,
    MessageResult,
)

from tests.support.wire import REMOTE, SDP, Wire, request

PHONE = f"sip:phone@{REMOTE}"
ACCOUNT = Account(
    user="door", domain="pbx.test", registrar=SipUri(host=REMOTE), password="x", keep_alive=0
)
CONFIG = AgentConfig(account=ACCOUNT, peers=(Peer("indoor", SipUri(host=REMOTE)),))
CHALLENGE = ("Proxy-Authenticate", 'Digest realm="p", nonce="1", qop="auth"')


def calling(target: str = PHONE, config: AgentConfig = CONFIG) -> tuple[Wire, Request]:
    w = Wire(config)
    w.do(w.agent.place("g", (target,), 16384, w.now))
    return w, w.request("INVITE")


def connected() -> tuple[Wire, Request, str]:
    w, invite = calling()
    w.answer(invite, 200, body=SDP)
    [call] = w.agent.calls
    w.sent()
    return w, invite, call


def called(*headers: tuple[str, str], body: bytes = SDP) -> tuple[Wire, str]:
    w = Wire(CONFIG)
    w.receive(request("INVITE", *headers, body=body))
    [arrived] = w.told(CallArrived)
    return w, arrived.call


def theirs(invite: Request, method: str, cseq: int = 1, tag: str = "peer", **more: Any) -> bytes:
    """A request of the phone that we called."""
    return request(
        method,
        call_id=invite.call_id,
        from_tag=tag,
        to_tag=invite.from_.tag or "",
        cseq=cseq,
        **more,
    )


def methods(w: Wire) -> list[str]:
    return [getattr(m, "method", None) or str(m.status) for m in w.sent()]


# -- CANCEL against everything


def test_cancel_before_a_challenge_leaves_it_unanswered() -> None:
    w, invite = calling("**9")
    w.do(w.agent.cancel_group("g", w.now))
    w.answer(invite, 407, CHALLENGE)
    assert methods(w) == ["ACK"]
    assert w.agent.calls == {}


def test_cancel_after_a_challenge_cancels_the_second_invite() -> None:
    w, invite = calling("**9")
    w.answer(invite, 407, CHALLENGE)
    second = w.request("INVITE")
    w.do(w.agent.cancel_group("g", w.now))
    assert w.sent() == []
    w.answer(second, 180)
    cancel = w.request("CANCEL")
    assert cancel.top_via.branch == second.top_via.branch
    assert cancel.cseq.number == second.cseq.number
    w.answer(cancel, 200)
    w.answer(second, 487)
    assert methods(w) == ["ACK"]
    assert w.agent.calls == {}


def test_cancel_that_is_challenged_or_unknown_still_ends_the_call() -> None:
    w, invite = calling("**9")
    w.answer(invite, 180)
    w.do(w.agent.cancel_group("g", w.now))
    w.answer(w.request("CANCEL"), 481)
    w.answer(invite, 487)
    assert methods(w) == ["ACK"]
    assert w.agent.calls == {}


def test_cancel_that_crosses_a_busy_is_over_with_the_busy() -> None:
    w, invite = calling()
    w.answer(invite, 180)
    w.do(w.agent.cancel_group("g", w.now))
    w.answer(invite, 486)
    assert methods(w) == ["CANCEL", "ACK"]
    assert w.agent.calls == {}


def test_cancel_that_crosses_a_redirection_follows_nothing() -> None:
    w, invite = calling()
    w.answer(invite, 180)
    w.do(w.agent.cancel_group("g", w.now))
    w.answer(invite, 302, ("Contact", f"<sip:else@{REMOTE}>"))
    assert methods(w) == ["CANCEL", "ACK"]
    assert w.agent.calls == {}


def test_cancel_that_crosses_two_forks_ends_both() -> None:
    w, invite = calling()
    w.answer(invite, 180)
    w.do(w.agent.cancel_group("g", w.now))
    w.sent()
    for tag in ("one", "two"):
        w.answer(invite, 200, body=SDP, tag=tag)
        ack, bye = w.sent()
        assert (ack.method, bye.method, bye.to.tag) == ("ACK", "BYE", tag)
        w.answer(bye, 200)
    assert w.told(GroupAnswered) == []
    assert w.agent.calls == {}


# -- 2xx, ACK and re-INVITE


def test_late_ack_of_the_first_invite_does_not_settle_the_second() -> None:
    w, call = called()
    w.do(w.agent.answer(call, 16384, w.now))
    tag = w.response().to.tag or ""
    w.receive(request("INVITE", to_tag=tag, cseq=2, body=SDP))
    assert w.response().cseq.number == 2
    w.receive(request("ACK", to_tag=tag, cseq=1))
    w.wait(0.6)
    assert [m.cseq.number for m in w.sent()] == [2]
    w.receive(request("ACK", to_tag=tag, cseq=2))
    w.wait(40)
    assert w.sent() == []
    assert call in w.agent.calls


def test_reinvite_refused_with_488_leaves_the_session_timer_as_it_was() -> None:
    w, call = called(("Supported", "timer"), ("Session-Expires", "1800;refresher=uac"))
    w.do(w.agent.answer(call, 16384, w.now))
    tag = w.response().to.tag or ""
    w.receive(request("ACK", to_tag=tag))
    agreed = w.agent.calls[call].timer.interval
    refused = SDP.replace(b"AVP 8 101", b"AVP 18")
    brief = (("Supported", "timer"), ("Session-Expires", "90;refresher=uac"))
    w.receive(request("INVITE", *brief, to_tag=tag, cseq=2, body=refused))
    assert w.response().status == 488
    assert w.agent.calls[call].timer.interval == agreed == 1800


def test_bye_that_crosses_our_reinvite_ends_the_call_once() -> None:
    w, invite, call = connected()
    w.do(w.agent.hold(call, w.now))
    ours = w.request("INVITE")
    w.receive(theirs(invite, "BYE"))
    assert w.response().status == 200
    assert len(w.told(CallEnded)) == 1
    w.answer(ours, 481)
    assert methods(w) == ["ACK"]
    assert w.agent.calls == {}


def test_200_to_a_reinvite_of_a_call_that_ended_meanwhile_is_acknowledged() -> None:
    w, _, call = connected()
    w.do(w.agent.hold(call, w.now))
    ours = w.request("INVITE")
    w.do(w.agent.hang_up(call, w.now))
    bye = w.request("BYE")
    w.answer(ours, 200, body=SDP)
    assert w.request("ACK").cseq.number == ours.cseq.number
    w.answer(bye, 200)
    assert w.agent.calls == {}


def test_200_to_a_reinvite_that_comes_again_is_acknowledged_again() -> None:
    """RFC 3261 §13.2.2.4: our ACK was lost; unanswered, the far end ends the call after 32 s."""
    outgoing, _, placed = connected()
    incoming, received = called()
    incoming.do(incoming.agent.answer(received, 16384, incoming.now))
    tag = incoming.response().to.tag or ""
    incoming.receive(request("ACK", to_tag=tag))
    held = SDP.replace(b"sendrecv", b"recvonly")
    for w, call, far_end in ((outgoing, placed, "peer"), (incoming, received, "theirs")):
        w.do(w.agent.hold(call, w.now))
        hold = w.request("INVITE")
        w.answer(hold, 200, body=held, tag=far_end)
        w.request("ACK")
        w.answer(hold, 200, body=held, tag=far_end)
        assert w.request("ACK").cseq.number == hold.cseq.number
        w.do(w.agent.resume(call, w.now))
        resume = w.request("INVITE")
        w.answer(hold, 200, body=held, tag=far_end)
        assert w.request("ACK").cseq.number == hold.cseq.number
        w.answer(resume, 200, body=SDP, tag=far_end)
        assert w.request("ACK").cseq.number == resume.cseq.number
        assert [told.command for told in w.told(CommandResult)] == ["hold", "resume"]


def test_200_to_a_reinvite_is_acknowledged_where_it_says_that_the_far_end_is() -> None:
    w, _, call = connected()
    w.do(w.agent.hold(call, w.now))
    moved = ("Contact", f"<sip:moved@{REMOTE}:5070>")
    w.answer(w.request("INVITE"), 200, moved, body=SDP.replace(b"sendrecv", b"recvonly"))
    [(flow, ack)] = w.sent_with_flows()
    assert (ack.method, str(ack.uri)) == ("ACK", f"sip:moved@{REMOTE}:5070")
    assert flow.remote == (REMOTE, 5070)


@pytest.mark.parametrize("status", [100, 180])
@pytest.mark.parametrize("answers_cancel", [True, False])
def test_reinvite_without_a_final_answer_is_given_up_and_the_call_goes_on_as_it_was(
    status: int, answers_cancel: bool
) -> None:
    w, invite, call = connected()
    w.do(w.agent.hold(call, w.now))
    hold = w.request("INVITE")
    w.answer(hold, status)
    w.told(MediaChanged)
    w.until_sent(70)
    cancel = w.request("CANCEL")
    assert cancel.top_via.branch == hold.top_via.branch
    if answers_cancel:
        w.answer(cancel, 200)
        w.answer(hold, 487)
        assert methods(w) == ["ACK"]
    else:
        w.wait(33)
        w.sent()
    assert w.told(CommandResult) == [CommandResult(call, "hold", False, "no final answer")]
    assert w.told(MediaChanged) == []
    w.do(w.agent.resume(call, w.now))
    assert w.told(CommandResult) == [CommandResult(call, "resume", True, "already so")]
    w.receive(theirs(invite, "INVITE", body=SDP))
    assert w.response().status == 200


def test_answer_that_crosses_the_cancel_of_a_reinvite_is_taken() -> None:
    """RFC 6141 §3.3: with its 200 the far end has changed the session."""
    w, _, call = connected()
    w.do(w.agent.hold(call, w.now))
    hold = w.request("INVITE")
    w.answer(hold, 100)
    w.until_sent(70)
    w.answer(hold, 200, body=SDP.replace(b"sendrecv", b"recvonly"))
    assert "ACK" in methods(w)
    assert w.told(CommandResult) == [CommandResult(call, "hold", True, "")]


def test_refresh_without_a_final_answer_is_tried_again_before_the_session_expires() -> None:
    w, invite = calling()
    w.answer(invite, 200, ("Session-Expires", "1800;refresher=uac"), body=SDP)
    w.sent()
    w.until_sent(900)
    refresh = w.request("INVITE")
    w.answer(refresh, 100)
    w.until_sent(70)
    w.answer(w.request("CANCEL"), 200)
    w.answer(refresh, 487)
    w.sent()
    w.until_sent(300)
    again = w.request("INVITE")
    w.answer(again, 200, ("Session-Expires", "1800;refresher=uac"), body=SDP)
    w.wait(800)
    assert len(w.agent.calls) == 1


def test_both_sides_hanging_up_at_once_both_get_200() -> None:
    w, invite, call = connected()
    w.do(w.agent.hang_up(call, w.now))
    bye = w.request("BYE")
    w.receive(theirs(invite, "BYE"))
    assert w.response().status == 200
    w.answer(bye, 481)
    assert len(w.told(CallEnded)) == 1
    assert w.agent.calls == {}


# -- reliable provisional responses, late offers and UPDATE


def test_late_offer_goes_in_the_183_and_its_answer_comes_in_the_prack() -> None:
    """RFC 3262 §5."""
    w, call = called(("Supported", "100rel"), body=b"")
    w.do(w.agent.progress(call, 16384, w.now))
    early = w.response()
    assert (early.status, b"m=audio 16384" in early.body) == (183, True)
    tag = early.to.tag or ""
    rack = ("RAck", f"{early.headers.get('RSeq')} 1 INVITE")
    w.receive(request("PRACK", rack, to_tag=tag, cseq=2, body=SDP))
    assert w.response().status == 200
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4000)
    w.do(w.agent.answer(call, 16384, w.now))
    assert w.response().body == b""
    w.receive(request("ACK", to_tag=tag))
    w.wait(40)
    assert call in w.agent.calls


def test_prack_of_a_180_without_sdp_is_no_answer_the_200_still_carries_ours() -> None:
    w, call = called(("Require", "100rel"))
    w.do(w.agent.ring(call, w.now))
    ringing = w.response()
    w.do(w.agent.progress(call, 16384, w.now))
    assert w.sent() == []
    tag = ringing.to.tag or ""
    rack = ("RAck", f"{ringing.headers.get('RSeq')} 1 INVITE")
    w.receive(request("PRACK", rack, to_tag=tag, cseq=2))
    [ok, early] = w.sent()
    assert (ok.status, early.status, early.require) == (200, 183, ["100rel"])
    assert b"m=audio 16384" in early.body
    rack = ("RAck", f"{early.headers.get('RSeq')} 1 INVITE")
    w.receive(request("PRACK", rack, to_tag=tag, cseq=3))
    w.do(w.agent.answer(call, 16384, w.now))
    assert [m.body for m in w.sent()] == [b"", b""]


def test_answering_while_a_180_waits_for_its_prack_puts_sdp_into_the_200() -> None:
    w, call = called(("Require", "100rel"))
    w.do(w.agent.ring(call, w.now))
    ringing = w.response()
    w.do(w.agent.answer(call, 16384, w.now))
    assert w.sent() == []
    rack = ("RAck", f"{ringing.headers.get('RSeq')} 1 INVITE")
    w.receive(request("PRACK", rack, to_tag=ringing.to.tag or "", cseq=2))
    answer = w.sent()[-1]
    assert answer.cseq.method == "INVITE"
    assert b"m=audio 16384" in answer.body


def test_caller_may_update_after_the_prack_and_before_the_answer() -> None:
    """RFC 3311 §5.2, the called side."""
    w, call = called(("Supported", "100rel"))
    w.do(w.agent.progress(call, 16384, w.now))
    early = w.response()
    tag = early.to.tag or ""
    rack = ("RAck", f"{early.headers.get('RSeq')} 1 INVITE")
    w.receive(request("PRACK", rack, to_tag=tag, cseq=2))
    w.sent()
    w.receive(request("UPDATE", to_tag=tag, cseq=3, body=SDP.replace(b"4000", b"4010")))
    assert w.response().status == 200
    updated = w.told(MediaChanged)[-1]
    assert (updated.session.remote, updated.early) == ((REMOTE, 4010), True)
    assert w.agent.calls[call].state == "ringing"
    w.do(w.agent.answer(call, 16384, w.now))
    assert w.response().body == b""
    w.receive(request("ACK", to_tag=tag))
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4010)


def test_prack_may_bring_another_offer() -> None:
    """RFC 3262 §5."""
    w, call = called(("Supported", "100rel"))
    w.do(w.agent.progress(call, 16384, w.now))
    early = w.response()
    rack = ("RAck", f"{early.headers.get('RSeq')} 1 INVITE")
    moved = SDP.replace(b"4000", b"4010")
    w.receive(request("PRACK", rack, to_tag=early.to.tag or "", cseq=2, body=moved))
    assert b"m=audio 16384" in w.response().body
    updated = w.told(MediaChanged)[-1]
    assert (updated.session.remote, updated.early) == ((REMOTE, 4010), True)


def test_phone_that_updated_its_early_media_while_another_was_heard_is_heard_when_it_answers() -> (
    None
):
    w, invite = calling()
    reliable = (("Require", "100rel"), ("RSeq", "1"))
    w.answer(invite, 183, *reliable, body=SDP, tag="a")
    w.answer(invite, 183, *reliable, body=SDP.replace(b"4000", b"4444"), tag="b")
    w.receive(theirs(invite, "UPDATE", tag="a", body=SDP.replace(b"4000", b"4010")))
    w.answer(invite, 200, tag="a")
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4010)


def test_cancel_while_a_reliable_183_waits_ends_its_repetition() -> None:
    w = Wire(CONFIG)
    w.receive(request("INVITE", ("Supported", "100rel"), body=SDP, branch="first"))
    [arrived] = w.told(CallArrived)
    w.do(w.agent.progress(arrived.call, 16384, w.now))
    w.sent()
    w.receive(request("CANCEL", branch="first"))
    assert methods(w) == ["200", "487"]
    w.receive(request("ACK", branch="first"))
    w.wait(60)
    assert w.sent() == []
    assert w.agent.calls == {}


def test_prack_that_is_challenged_is_sent_again_with_credentials() -> None:
    w, invite = calling("**9")
    w.answer(invite, 183, ("Require", "100rel"), ("RSeq", "1"), body=SDP)
    w.answer(w.request("PRACK"), 407, CHALLENGE)
    again = w.request("PRACK")
    assert "Proxy-Authorization" in again.headers


# -- several phones behind one INVITE


def test_early_media_follows_the_phone_heard_last_and_the_call_the_one_that_answers() -> None:
    w, invite = calling()
    ports = {"a": b"4001", "b": b"4002", "c": b"4003"}
    for tag in ("a", "b"):
        w.answer(invite, 183, body=SDP.replace(b"4000", ports[tag]), tag=tag)
        assert w.told(MediaChanged)[-1].session.remote == (REMOTE, int(ports[tag]))
    w.answer(invite, 180, tag="c")
    w.answer(invite, 200, tag="a")  # its answer stood in its own 183
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4001)
    assert w.request("ACK").to.tag == "a"
    w.answer(invite, 200, body=SDP.replace(b"4000", ports["c"]), tag="c")
    assert methods(w) == ["ACK", "BYE"]


def test_reliable_responses_of_several_phones_are_counted_apart() -> None:
    w, invite = calling()
    for tag, number in (("a", "7"), ("b", "100"), ("a", "8"), ("b", "101")):
        w.answer(invite, 183, ("Require", "100rel"), ("RSeq", number), body=SDP, tag=tag)
        prack = w.request("PRACK")
        assert (prack.to.tag, prack.headers.get("RAck")) == (
            tag,
            f"{number} {invite.cseq.number} INVITE",
        )


def test_another_phone_may_answer_after_one_updated_its_early_media() -> None:
    w, invite = calling()
    w.answer(invite, 183, ("Require", "100rel"), ("RSeq", "1"), body=SDP, tag="a")
    w.receive(theirs(invite, "UPDATE", tag="a", body=SDP.replace(b"4000", b"4010")))
    w.sent()
    w.answer(invite, 200, body=SDP.replace(b"4000", b"4444"), tag="b")
    assert methods(w) == ["ACK"]
    assert len(w.told(GroupAnswered)) == 1
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4444)


# -- challenges outside INVITE


@pytest.mark.parametrize("status", [401, 407])
def test_text_that_is_challenged_is_sent_again_with_credentials(status: int) -> None:
    w = Wire(CONFIG)
    name, outputs = w.agent.message("**9", "hello", w.now)
    w.do(outputs)
    text = w.request("MESSAGE")
    header = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    w.answer(text, status, (header, CHALLENGE[1]))
    again = w.request("MESSAGE")
    assert (again.body, again.cseq.number) == (b"hello", text.cseq.number + 1)
    w.answer(again, 202)
    assert w.told(MessageResult) == [MessageResult(name, 202, "Accepted")]


def test_digit_hold_and_bye_that_are_challenged_are_sent_again_with_credentials() -> None:
    w, invite = calling("**9")
    w.answer(invite, 200, body=SDP)
    [call] = w.agent.calls
    w.sent()
    number = invite.cseq.number
    acts: dict[str, Callable[[], list[Any]]] = {
        "INFO": lambda: w.agent.send_info_digit(call, "5", w.now),
        "INVITE": lambda: w.agent.hold(call, w.now),
        "BYE": lambda: w.agent.hang_up(call, w.now),
    }
    for method, act in acts.items():
        w.do(act())
        first = w.request(method)
        nonce = f'Digest realm="p", nonce="{method}", qop="auth", stale=true'
        w.answer(first, 407, ("Proxy-Authenticate", nonce))
        again = w.request(method)
        assert first.cseq.number < again.cseq.number > number
        number = again.cseq.number
        w.answer(
            again, 200, body=SDP.replace(b"sendrecv", b"recvonly") if method == "INVITE" else b""
        )
    assert w.agent.calls == {}


def test_keep_alive_that_is_challenged_proves_the_registrar() -> None:
    w = Wire(AgentConfig(account=replace(ACCOUNT, keep_alive=10, password="")))
    w.do(w.agent.start(w.now))
    w.answer(w.request("REGISTER"), 200)
    for _ in range(5):
        w.until_sent(20)
        w.answer(w.request("OPTIONS"), 401, ("WWW-Authenticate", CHALLENGE[1]))
    assert w.sent() == []


# -- session timers


def test_422_that_rises_for_ever_is_no_loop() -> None:
    w, invite = calling()
    for interval in range(1801, 1900):
        w.answer(invite, 422, ("Min-SE", str(interval)))
        found = [m for m in w.sent() if m.method == "INVITE"]
        if not found:
            break
        [invite] = found
    assert interval < 1810
    assert len(w.told(GroupFailed)) == 1


@pytest.mark.parametrize("least", ["1900", "300"])
def test_422_to_a_refresh_asks_again_with_the_longer_interval(least: str) -> None:
    w, invite = calling()
    allow = ("Allow", "INVITE, ACK, BYE, UPDATE")
    w.answer(invite, 200, allow, ("Session-Expires", "90;refresher=uac"), body=SDP)
    w.sent()
    w.until_sent(50)
    w.answer(w.request("UPDATE"), 422, ("Min-SE", least))
    again = w.request("UPDATE")
    assert (again.headers.get("Session-Expires") or "").startswith(least)
    w.answer(again, 200, ("Session-Expires", f"{least};refresher=uac"))
    w.wait(120)
    assert len(w.agent.calls) == 1


def test_422_to_a_hold_holds_with_the_longer_interval() -> None:
    w, invite = calling()
    timer = ("Session-Expires", "1800;refresher=uac")
    w.answer(invite, 200, ("Allow", "INVITE, ACK, UPDATE, BYE"), timer, body=SDP)
    w.sent()
    [call] = w.agent.calls
    w.do(w.agent.hold(call, w.now))
    w.answer(w.request("INVITE"), 422, ("Min-SE", "2000"))
    hold = next(m for m in w.sent() if m.method == "INVITE")
    assert hold.headers.get("Session-Expires") == "2000"
    assert b"a=sendonly" in hold.body
    w.answer(hold, 200, body=SDP.replace(b"sendrecv", b"recvonly"))
    assert w.told(CommandResult)[0].ok


def test_call_connected_is_told_before_the_far_end_may_end_it() -> None:
    w, call = called()
    w.do(w.agent.answer(call, 16384, w.now))
    tag = w.response().to.tag or ""
    w.receive(request("BYE", to_tag=tag, cseq=2))  # its ACK is lost or late
    assert w.response().status == 200
    kinds = [type(e) for e in w.events]
    assert kinds.index(CallConnected) < kinds.index(CallEnded)
    w.receive(request("ACK", to_tag=tag))
    w.wait(60)
    assert w.sent() == []


def test_a_hold_that_the_end_of_the_call_overtakes_is_told_as_failed() -> None:
    w, invite, call = connected()
    w.do(w.agent.hold(call, w.now))
    w.receive(theirs(invite, "BYE"))
    assert w.told(CommandResult) == [CommandResult(call, "hold", False, "the call ended")]


def test_reinvite_to_another_codec_changes_what_both_send() -> None:
    w, invite = calling()
    w.answer(invite, 200, body=SDP)
    w.sent()
    w.receive(theirs(invite, "INVITE", body=SDP.replace(b"AVP 8 101", b"AVP 0 101")))
    assert b"m=audio 16384 RTP/AVP 0 101" in w.response().body
    session = w.told(MediaChanged)[-1].session
    assert (session.codec.name, session.payload_type) == ("PCMU", 0)


def test_calls_given_up_that_no_phone_answered_keep_nobody_from_calling() -> None:
    w = Wire(CONFIG)
    for bell in range(CONFIG.max_calls + 1):
        w.do(w.agent.place(f"g{bell}", (PHONE,), 16384, w.now))
        w.do(w.agent.cancel_group(f"g{bell}", w.now))
    assert len(w.agent.calls) > CONFIG.max_calls
    w.receive(request("INVITE", body=SDP))
    assert w.told(CallArrived)
