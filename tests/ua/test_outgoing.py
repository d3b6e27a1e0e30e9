"""Calls that we place, as the far ends of the field really answer them."""

import weakref
from dataclasses import replace

import pytest
from doorstation.sip.message import Request
from doorstation.sip.uri import SipUri
from doorstation.ua.config import Account, AgentConfig, Peer
from doorstation.ua.events import (
    CallConnected,
    CallEnded,
    CallState,
    CommandResult,
    GroupAnswered,
    GroupFailed,
    GroupRinging,
    MediaChanged,
    MessageReceived,
    OutcomeKind,
)
from doorstation.ua.outgoing import MAX_FORKS, OutgoingCall

from tests.support.wire import LOCAL, REMOTE, SDP, Wire, leaves_nothing, request, respond, udp

PHONE = f"sip:phone@{REMOTE}"


def wire(config: AgentConfig | None = None, **more: object) -> Wire:
    return Wire(config or AgentConfig(), **more)  # type: ignore[arg-type]


def calling(*targets: str, config: AgentConfig | None = None) -> tuple[Wire, list[Request]]:
    w = wire(config)
    w.do(w.agent.place("step1", targets or (PHONE,), 16384, w.now))
    return w, [m for m in w.sent() if isinstance(m, Request) and m.method == "INVITE"]


def talking(**headers: str) -> tuple[Wire, Request]:
    w, [invite] = calling()
    w.answer(invite, 200, *headers.items(), body=SDP)
    w.sent()
    return w, invite


def only_call(w: Wire) -> str:
    [name] = w.agent.calls
    return name


def test_offer_is_short_and_names_the_address_of_the_flow() -> None:
    """Under one datagram, nothing fragmented."""
    _, [invite] = calling()
    assert f"c=IN IP4 {LOCAL}".encode() in invite.body
    assert b"m=audio 16384 RTP/AVP 8 0 101" in invite.body
    assert len(invite.body) < 350


def test_answer_is_acknowledged_and_the_first_answer_wins() -> None:
    w, [invite] = calling()
    w.answer(invite, 180)
    w.answer(invite, 200, body=SDP)
    ack = w.request("ACK")
    assert ack.cseq.number == invite.cseq.number
    assert str(ack.uri) == f"sip:phone@{REMOTE}:5060"
    [answered] = w.told(GroupAnswered)
    assert (answered.group, answered.peer) == ("step1", PHONE)
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4000)


def test_repeated_200_is_acknowledged_again() -> None:
    w, invite = talking()
    w.answer(invite, 200, body=SDP)
    assert w.request("ACK").cseq.method == "ACK"
    assert w.told(GroupAnswered)[1:] == []


def test_a_call_that_is_over_leaves_no_request_behind() -> None:
    w, _ = talking()
    w.do(w.agent.hang_up(only_call(w), w.now))
    w.answer(w.request("BYE"), 200)
    assert w.agent.calls == {}
    assert len(w.agent._requester) == 0


@pytest.mark.parametrize("answered", [True, False])
def test_a_call_that_is_over_is_gone_without_the_garbage_collector(answered: bool) -> None:
    w, [invite] = calling()
    call = weakref.ref(w.agent.calls[only_call(w)])
    if answered:
        w.answer(invite, 200, body=SDP)
        w.request("ACK")
        w.do(w.agent.hang_up(only_call(w), w.now))
        w.answer(w.request("BYE"), 200)
    else:
        w.answer(invite, 486)
    assert leaves_nothing(w, call)


def test_far_end_that_forks_without_end_is_kept_track_of_for_a_part() -> None:
    w, [invite] = calling()
    for number in range(100):
        w.answer(invite, 180, tag=f"rings-{number}")
    [call] = w.agent.calls.values()
    assert isinstance(call, OutgoingCall)
    assert len(call._branches) == MAX_FORKS
    w.answer(invite, 200, body=SDP, tag="rings-0")
    assert [m.method for m in w.sent()] == ["ACK"]
    for number in range(100):
        w.answer(invite, 200, body=SDP, tag=f"answers-{number}")
    said = [m.method for m in w.sent()]
    assert (said.count("ACK"), said.count("BYE")) == (100, MAX_FORKS)


def test_change_of_a_call_that_ends_does_not_wait_for_ever() -> None:
    w, _ = talking()
    w.do(w.agent.hold(only_call(w), w.now))
    hold = w.request("INVITE")
    w.answer(hold, 100)
    w.do(w.agent.hang_up(only_call(w), w.now))
    w.answer(next(m for m in w.sent() if m.method == "BYE"), 200)
    w.wait(80)
    assert not any(w.endpoint.load.values())


def from_the_phone(method: str, invite: Request, phone: str = "peer") -> bytes:
    tag = invite.from_.tag or ""
    return request(method, call_id=invite.call_id, from_tag=phone, to_tag=tag)


def test_bye_of_a_phone_whose_200_was_lost_ends_the_call_and_the_invite() -> None:
    w, [invite] = calling()
    w.answer(invite, 180)
    w.receive(from_the_phone("BYE", invite))
    ok, cancel = w.sent()
    assert (ok.status, cancel.method) == (200, "CANCEL")
    [failed] = w.told(GroupFailed)
    assert failed.outcomes[0].kind is OutcomeKind.DECLINED
    w.wait(80)
    assert w.agent.calls == {}
    assert not any(w.endpoint.load.values())


def test_200_after_that_bye_is_acknowledged_and_ended() -> None:
    w, [invite] = calling()
    w.answer(invite, 180)
    w.receive(from_the_phone("BYE", invite))
    w.sent()
    w.answer(invite, 200, body=SDP)
    assert [m.method for m in w.sent()] == ["ACK", "BYE"]
    assert w.told(GroupAnswered) == []


def forked() -> tuple[Wire, Request]:
    """A call to a proxy that rings two phones; the one called "heard" sends early media."""
    w, [invite] = calling()
    w.answer(invite, 183, body=SDP, tag="heard")
    w.answer(invite, 180, tag="other")
    w.sent()
    return w, invite


def test_bye_of_one_fork_leaves_the_others_ringing() -> None:
    w, invite = forked()
    w.receive(from_the_phone("BYE", invite, "other"))
    assert [m.status for m in w.sent()] == [200]
    assert w.told(GroupFailed) == []
    w.answer(invite, 200, body=SDP, tag="heard")
    assert [m.method for m in w.sent()] == ["ACK"]
    assert len(w.told(GroupAnswered)) == 1


def test_bye_of_the_last_fork_ends_the_call() -> None:
    w, invite = forked()
    for tag in ("other", "heard"):
        w.receive(from_the_phone("BYE", invite, tag))
    assert [getattr(m, "method", None) for m in w.sent()] == [None, None, "CANCEL"]
    assert len(w.told(GroupFailed)) == 1


def test_answer_of_a_fork_that_hung_up_before_is_acknowledged_and_ends_the_call() -> None:
    w, invite = forked()
    w.receive(from_the_phone("BYE", invite, "other"))
    w.sent()
    w.answer(invite, 200, body=SDP, tag="other")
    assert [m.method for m in w.sent()] == ["ACK"]
    assert w.told(GroupAnswered) == []
    [failed] = w.told(GroupFailed)
    assert failed.outcomes[0].kind is OutcomeKind.DECLINED
    assert w.agent.calls == {}


@pytest.mark.parametrize("how", ["BYE", "199"])
def test_end_of_the_fork_that_was_heard_gives_the_ring_tone_back(how: str) -> None:
    w, invite = forked()
    [early] = w.told(MediaChanged)
    assert early.session is not None
    if how == "BYE":
        w.receive(from_the_phone("BYE", invite, "heard"))
    else:
        w.answer(invite, 199, tag="heard")
    assert w.told(MediaChanged)[-1].session is None
    assert w.told(GroupFailed) == []
    w.answer(invite, 200, body=SDP, tag="other")
    assert len(w.told(GroupAnswered)) == 1


def test_digit_that_overtakes_the_answer_gets_500_and_costs_no_call() -> None:
    """481 would end it at the phone (RFC 5057)."""
    w, [invite] = calling()
    w.receive(from_the_phone("INFO", invite))
    assert w.response().status == 500
    w.answer(invite, 200, body=SDP)
    assert len(w.told(GroupAnswered)) == 1


def test_401_then_407_inside_a_call_are_both_answered() -> None:
    """2: ACK, then new branch, higher CSeq, same Call-ID and From tag."""
    account = Account(user="door", domain="pbx.test", registrar=SipUri(host=REMOTE), password="x")
    w, [invite] = calling("**9", config=AgentConfig(account=account))
    w.answer(invite, 407, ("Proxy-Authenticate", 'Digest realm="p", nonce="1", qop="auth"'))
    ack, second = w.sent()
    assert ack.method == "ACK"
    assert second.cseq.number == invite.cseq.number + 1
    assert (second.call_id, second.from_.tag) == (invite.call_id, invite.from_.tag)
    assert second.top_via.branch != invite.top_via.branch
    w.answer(second, 401, ("WWW-Authenticate", 'Digest realm="r", nonce="2", qop="auth"'))
    _, third = w.sent()
    assert {"Authorization", "Proxy-Authorization"} <= {name for name, _ in third.headers}


def test_dial_strings_with_star_and_hash_go_out_untouched() -> None:
    """11: `**9`, `**621`; the grammar wants # escaped, and every PBX reads it back."""
    account = Account(user="door", domain="fritz.box", registrar=SipUri(host=REMOTE))
    for dialled, written in (("**9", "**9"), ("**621", "**621"), ("#96*5*", "%2396*5*")):
        _, [invite] = calling(dialled, config=AgentConfig(account=account))
        assert str(invite.uri) == f"sip:{written}@fritz.box"


def test_invite_leaves_on_the_flow_of_the_registration() -> None:
    """10."""
    account = Account(
        user="door",
        domain="pbx.test",
        registrar=SipUri(host=REMOTE, params=(("transport", "tcp"),)),
        keep_alive=0,
    )
    w = wire(AgentConfig(account=account))
    w.do(w.agent.start(w.now))
    [(flow, register)] = w.sent_with_flows()
    w.answer(register, 200, flow=flow)
    w.do(w.agent.place("g", ("**9",), 16384, w.now))
    [(used, _)] = w.sent_with_flows()
    assert used == flow


def test_early_media_is_told_before_anybody_answers() -> None:
    w, [invite] = calling()
    w.answer(invite, 183, body=SDP)
    [changed] = w.told(MediaChanged)
    assert changed.early
    assert w.told(GroupRinging)[-1].early_media


def test_another_branch_may_answer_with_other_sdp_than_the_first_183() -> None:
    """Ring groups."""
    w, [invite] = calling()
    w.answer(invite, 183, body=SDP, tag="first")
    w.answer(invite, 200, body=SDP.replace(b"4000", b"4444"), tag="second")
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4444)


def test_200_without_sdp_keeps_the_answer_of_its_own_183() -> None:
    w, [invite] = calling()
    w.answer(invite, 183, body=SDP)
    w.answer(invite, 200)
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4000)
    assert len(w.told(GroupAnswered)) == 1


def test_answer_among_other_parts_of_the_200_is_found() -> None:
    w, [invite] = calling()
    answer = respond(invite, 200, body=b"--x\nContent-Type: application/sdp\n\n" + SDP + b"\n--x--")
    answer.headers.set("Content-Type", 'multipart/mixed; boundary="x"')
    w.receive(answer)
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4000)
    assert len(w.told(GroupAnswered)) == 1


def test_200_without_any_answer_is_acknowledged_and_ended() -> None:
    w, [invite] = calling()
    w.answer(invite, 200)
    assert [m.method for m in w.sent()] == ["ACK", "BYE"]
    assert w.told(GroupFailed)[0].outcomes[0].kind is OutcomeKind.FAILED


def test_a_second_fork_that_answers_gets_ack_and_bye() -> None:
    w, invite = talking()
    w.answer(invite, 200, body=SDP, tag="another")
    ack, bye = w.sent()
    assert (ack.method, bye.method) == ("ACK", "BYE")
    assert ack.to.tag == bye.to.tag == "another"
    assert len(w.agent.calls) == 1


def test_cancel_waits_for_a_provisional_response() -> None:
    """16, RFC 3261 §9.1."""
    w, [invite] = calling()
    w.do(w.agent.cancel_group("step1", w.now))
    assert w.sent() == []
    w.answer(invite, 180)
    cancel = w.request("CANCEL")
    assert cancel.top_via.branch == invite.top_via.branch
    w.answer(cancel, 200)
    w.answer(invite, 487)
    assert [m.method for m in w.sent()] == ["ACK"]
    assert w.agent.calls == {}


def test_cancel_that_loses_against_200_is_followed_by_ack_and_bye() -> None:
    """16."""
    w, [invite] = calling()
    w.answer(invite, 180)
    w.do(w.agent.cancel_group("step1", w.now))
    w.sent()
    w.answer(invite, 200, body=SDP)
    ack, bye = w.sent()
    assert (ack.method, bye.method) == ("ACK", "BYE")
    w.answer(bye, 200)
    assert w.agent.calls == {}
    assert w.told(GroupAnswered) == []


def test_cancel_nobody_answers_leaves_nothing_behind() -> None:
    w, [invite] = calling()
    w.answer(invite, 180)
    w.do(w.agent.cancel_group("step1", w.now))
    w.wait(64)
    assert w.agent.calls == {}


def test_losers_are_cancelled_with_completed_elsewhere() -> None:
    w, [first, second] = calling(PHONE, "sip:other@192.0.2.2")
    w.answer(first, 180)
    w.answer(second, 180, flow=udp("192.0.2.2"))
    w.answer(first, 200, body=SDP)
    cancel = next(m for m in w.sent() if m.method == "CANCEL")
    assert cancel.call_id == second.call_id
    assert cancel.headers.get("Reason") == 'SIP;cause=200;text="Call completed elsewhere"'


def test_both_answering_at_once_leaves_one_call() -> None:
    w, [first, second] = calling(PHONE, "sip:other@192.0.2.2")
    w.answer(first, 200, body=SDP)
    w.answer(second, 200, body=SDP, flow=udp("192.0.2.2"))
    byes = [m for m in w.sent() if m.method == "BYE"]
    assert [m.call_id for m in byes] == [second.call_id]
    w.answer(byes[0], 200, flow=udp("192.0.2.2"))
    assert len(w.agent.calls) == 1
    assert len(w.told(GroupAnswered)) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (486, OutcomeKind.BUSY),
        (600, OutcomeKind.BUSY),
        (603, OutcomeKind.DECLINED),
        (404, OutcomeKind.UNREACHABLE),
        (480, OutcomeKind.UNREACHABLE),
        (503, OutcomeKind.UNREACHABLE),
        (408, OutcomeKind.NO_ANSWER),
        (500, OutcomeKind.FAILED),
    ],
)
def test_how_a_call_came_to_nothing_is_told(status: int, kind: OutcomeKind) -> None:
    w, [invite] = calling()
    w.answer(invite, status)
    [failed] = w.told(GroupFailed)
    assert [(o.target, o.kind, o.status) for o in failed.outcomes] == [(PHONE, kind, status)]
    assert w.agent.calls == {}


def test_phone_that_is_gone_is_unreachable_after_64_t1() -> None:
    w, _ = calling()
    w.wait(33)
    assert w.told(GroupFailed)[0].outcomes[0].kind is OutcomeKind.UNREACHABLE


def test_redirection_is_followed_best_contact_first() -> None:
    w, [invite] = calling()
    contacts = f"<sip:a@{REMOTE}>;q=0.2, <sip:b@{REMOTE}>;q=0.9"
    w.answer(invite, 302, ("Contact", contacts))
    moved = next(m for m in w.sent() if m.method == "INVITE")
    assert str(moved.uri) == f"sip:b@{REMOTE}"
    assert moved.cseq.number > invite.cseq.number


def test_where_a_redirection_fails_the_next_contact_is_tried() -> None:
    """RFC 3261 §8.1.3.4; a 6xx speaks for all of them."""
    for status, tried in ((404, ["a"]), (486, ["a"]), (0, ["a"]), (603, [])):
        w, [invite] = calling()
        contacts = f"<sip:a@{REMOTE}>;q=0.2, <sip:b@{REMOTE}>;q=0.9"
        w.answer(invite, 302, ("Contact", contacts))
        moved = next(m for m in w.sent() if m.method == "INVITE")
        if status:
            w.answer(moved, status)
        else:
            w.wait(31.9)
            w.sent()
            w.wait(1)
        assert [m.uri.user for m in w.sent() if m.method == "INVITE"][:1] == tried
        assert len(w.told(GroupFailed)) == 1 - len(tried)


def test_redirection_to_what_is_no_sip_uri_is_passed_over_and_says_so() -> None:
    w, [invite] = calling()
    contacts = f"<tel:+4930123>;q=0.9, <mailto:a@b.test>, <sip:b@{REMOTE}>;q=0.1"
    w.answer(invite, 302, ("Contact", contacts))
    moved = next(m for m in w.sent() if m.method == "INVITE")
    assert str(moved.uri) == f"sip:b@{REMOTE}"
    w.answer(moved, 486)
    [outcome] = w.told(GroupFailed)[0].outcomes
    assert (outcome.kind, outcome.status) == (OutcomeKind.BUSY, 486)
    assert outcome.why == "Busy Here; redirected to tel:, which is not spoken here"
    w, [invite] = calling()
    w.answer(invite, 302, ("Contact", "<tel:+4930123>"))
    [outcome] = w.told(GroupFailed)[0].outcomes
    assert outcome.status == 302
    assert "tel:" in outcome.why


def test_305_leads_to_the_same_phone_by_way_of_a_proxy() -> None:
    """RFC 3261 §21.3.4."""
    w, [invite] = calling()
    w.answer(invite, 305, ("Contact", "<sip:192.0.2.77>"))
    [(flow, moved)] = [(f, m) for f, m in w.sent_with_flows() if m.method == "INVITE"]
    assert (flow.remote, str(moved.uri)) == (("192.0.2.77", 5060), PHONE)
    assert moved.headers.get("Route") == "<sip:192.0.2.77;lr>"


def test_redirection_in_a_circle_ends() -> None:
    w, [invite] = calling()
    for _ in range(10):
        w.answer(invite, 302, ("Contact", f"<{PHONE}>, <sip:b@{REMOTE}>"))
        found = [m for m in w.sent() if m.method == "INVITE"]
        if not found:
            break
        [invite] = found
    assert len(w.told(GroupFailed)) == 1


def test_redirection_has_a_limit() -> None:
    w, [invite] = calling()
    for turn in range(20):
        w.answer(invite, 302, ("Contact", f"<sip:n{turn}@{REMOTE}>"))
        found = [m for m in w.sent() if m.method == "INVITE"]
        if not found:
            break
        [invite] = found
    assert turn == 5
    assert len(w.told(GroupFailed)) == 1


def test_422_raises_the_session_interval() -> None:
    w, [invite] = calling(config=AgentConfig(session_expires=120))
    w.answer(invite, 422, ("Min-SE", "600"))
    again = next(m for m in w.sent() if m.method == "INVITE")
    assert again.headers.get("Session-Expires") == "600"
    assert again.headers.get("Min-SE") == "600"


def test_reliable_provisional_is_acknowledged_in_order() -> None:
    """RFC 3262 §4."""
    w, [invite] = calling()
    reliable = ("Require", "100rel")
    w.answer(invite, 183, reliable, ("RSeq", "7"), body=SDP)
    prack = w.request("PRACK")
    assert prack.headers.get("RAck") == f"7 {invite.cseq.number} INVITE"
    w.answer(invite, 180, reliable, ("RSeq", "9"))
    assert w.sent() == []
    w.answer(invite, 180, reliable, ("RSeq", "8"))
    assert w.request("PRACK").headers.get("RAck") == f"8 {invite.cseq.number} INVITE"


def test_update_changes_early_media_that_a_reliable_response_settled() -> None:
    """RFC 3311: before anybody answers."""
    w, [invite] = calling()
    w.answer(invite, 183, ("Require", "100rel"), ("RSeq", "1"), body=SDP)
    w.sent()
    w.receive(bye_from_peer(w, invite, "UPDATE", body=SDP.replace(b"4000", b"4010")))
    assert w.response().status == 200
    updated = w.told(MediaChanged)[-1]
    assert (updated.session.remote, updated.early) == ((REMOTE, 4010), True)
    assert w.agent.calls[only_call(w)].state == "ringing", "nobody answered"
    w.answer(invite, 200)
    answered = w.told(MediaChanged)[-1]
    assert (answered.session.remote, answered.early) == ((REMOTE, 4010), False)
    assert w.agent.calls[only_call(w)].state == "connected"


def test_update_with_an_offer_before_ours_is_settled_gets_491() -> None:
    """RFC 3311 §5.2."""
    w, [invite] = calling()
    w.answer(invite, 180)
    w.receive(bye_from_peer(w, invite, "UPDATE", body=SDP))
    assert w.response().status == 491


def test_bye_uses_the_route_set_of_the_200_in_reverse() -> None:
    """Two Record-Routes."""
    w, [invite] = calling()
    routes = [("Record-Route", "<sip:p2@192.0.2.1;lr>"), ("Record-Route", "<sip:p1@192.0.2.1;lr>")]
    w.answer(invite, 200, *routes, body=SDP)
    ack = w.request("ACK")
    assert [str(r.uri) for r in ack.routes] == ["sip:p1@192.0.2.1;lr", "sip:p2@192.0.2.1;lr"]
    w.do(w.agent.hang_up(only_call(w), w.now))
    assert [str(r.uri) for r in w.request("BYE").routes] == [
        "sip:p1@192.0.2.1;lr",
        "sip:p2@192.0.2.1;lr",
    ]


def test_strict_router_gets_itself_in_the_request_uri() -> None:
    w, [invite] = calling()
    w.answer(invite, 200, ("Record-Route", "<sip:strict@192.0.2.1>"), body=SDP)
    ack = w.request("ACK")
    assert str(ack.uri) == "sip:strict@192.0.2.1"
    assert [str(r.uri) for r in ack.routes] == [f"sip:phone@{REMOTE}:5060"]


def test_who_is_called_by_sips_is_told_a_sips_contact() -> None:
    """RFC 3261 §8.1.1.8."""
    _, [secure] = calling(f"sips:phone@{REMOTE}")
    assert secure.headers.get("Contact") == f"<sips:door@{LOCAL}:5061>"
    _, [by_tls] = calling(f"sip:phone@{REMOTE};transport=tls")
    assert by_tls.headers.get("Contact") == f"<sip:door@{LOCAL}:5061;transport=tls>"


def test_contact_of_the_200_is_called_whole() -> None:
    w, [invite] = calling()
    w.answer(invite, 200, ("Contact", "<sip:p@192.0.2.1:5066;line=ab12;ob>"), body=SDP)
    assert str(w.request("ACK").uri) == "sip:p@192.0.2.1:5066;line=ab12;ob"


@pytest.mark.parametrize("contact", ["", "<tel:+4930123>", "<sip:a b@192.0.2.9>"])
def test_200_that_names_nowhere_to_send_to_is_acknowledged_where_we_called(contact: str) -> None:
    """RFC 2543 phones leave Contact out; without an ACK they would repeat it and give up."""
    w, [invite] = calling()
    answer = respond(invite, 200, ("Contact", contact), body=SDP)
    if not contact:
        answer.headers.remove("Contact")
    w.receive(answer)
    assert str(w.request("ACK").uri) == PHONE
    w.do(w.agent.hang_up(only_call(w), w.now))
    assert str(w.request("BYE").uri) == PHONE


def test_bye_from_the_far_end_ends_the_call() -> None:
    w, invite = talking()
    w.receive(bye_from_peer(w, invite))
    assert w.response().status == 200
    [ended] = w.told(CallEnded)
    assert (ended.kind, ended.by_peer) == (None, True)
    assert w.agent.calls == {}


def bye_from_peer(
    w: Wire, invite: Request, method: str = "BYE", cseq: int = 1, **more: object
) -> bytes:
    return request(
        method,
        call_id=invite.call_id,
        from_tag="peer",
        to_tag=invite.from_.tag or "",
        cseq=cseq,
        **more,  # type: ignore[arg-type]
    )


def test_bye_that_nobody_answers_leaves_nothing_behind() -> None:
    w, _ = talking()
    w.do(w.agent.hang_up(only_call(w), w.now))
    assert len(w.told(CallEnded)) == 1
    w.wait(33)
    assert w.agent.calls == {}


def test_request_with_an_unknown_tag_gets_481() -> None:
    w, invite = talking()
    w.receive(request("BYE", call_id=invite.call_id, from_tag="peer", to_tag="wrong"))
    assert w.response().status == 481
    assert len(w.agent.calls) == 1


def test_cseq_that_went_back_gets_500() -> None:
    w, invite = talking()
    w.receive(bye_from_peer(w, invite, "OPTIONS", cseq=10))
    w.sent()
    w.receive(bye_from_peer(w, invite, "OPTIONS", cseq=9))
    assert w.response().status == 500


def test_text_inside_a_call_is_judged_as_any_other_and_ends_no_call() -> None:
    """Asterisk's SendText: after a 481 the far end would hang up (RFC 3261 §12.2.1.2)."""
    known = AgentConfig(peers=(Peer("indoor", SipUri(host=REMOTE)),))
    for config, status in ((known, 200), (None, 403)):
        w, [invite] = calling(config=config)
        w.answer(invite, 200, body=SDP)
        w.sent()
        w.receive(
            request(
                "MESSAGE",
                call_id=invite.call_id,
                from_tag="peer",
                to_tag=invite.from_.tag or "",
                body=b"Hello",
                content_type="text/plain",
            )
        )
        assert w.response().status == status
        assert [message.text for message in w.told(MessageReceived)] == ["Hello"] * (status == 200)


def test_options_inside_a_dialog_is_answered() -> None:
    w, invite = talking()
    w.receive(bye_from_peer(w, invite, "OPTIONS"))
    response = w.response()
    assert response.status == 200
    assert "INVITE" in response.allow


# -- hold, resume, glare


def held_by_us() -> tuple[Wire, Request]:
    w, _ = talking()
    w.do(w.agent.hold(only_call(w), w.now))
    invite = w.request("INVITE")
    return w, invite


def test_hold_offers_sendonly_and_raises_the_version() -> None:
    w, reinvite = held_by_us()
    assert b"a=sendonly" in reinvite.body
    w.answer(reinvite, 200, body=SDP.replace(b"sendrecv", b"recvonly"))
    assert w.request("ACK").cseq.number == reinvite.cseq.number
    assert w.told(CommandResult) == [CommandResult(only_call(w), "hold", True, "")]
    w.do(w.agent.resume(only_call(w), w.now))
    resume = w.request("INVITE")
    assert b"a=sendrecv" in resume.body
    w.answer(resume, 200, body=SDP)
    assert w.told(CommandResult)[-1].ok
    assert w.told(MediaChanged)[-1].session.direction == "sendrecv"


def test_reinvite_asks_for_no_reliable_response_that_nobody_would_acknowledge() -> None:
    w, invite = talking()
    assert invite.supported == ["100rel", "timer"]
    w.do(w.agent.hold(only_call(w), w.now))
    assert w.request("INVITE").supported == ["timer"]


def test_glare_491_is_tried_again_after_its_wait() -> None:
    """RFC 3261 §14.1: the caller waits 2.1 to 4 s."""
    w, reinvite = held_by_us()
    w.answer(reinvite, 491)
    w.sent()
    start = w.now
    w.until_sent(4.1)
    assert 2.1 <= w.now - start <= 4.0
    assert b"a=sendonly" in w.request("INVITE").body


@pytest.mark.parametrize("status", [491, 500])
def test_a_change_that_always_meets_glare_is_refused_and_no_loop(status: int) -> None:
    w, _ = talking()
    call = only_call(w)
    for _ in range(2):
        w.do(w.agent.hold(call, w.now))
        tries = 0
        while not (results := w.told(CommandResult)):
            w.answer(w.until_sent(5).request("INVITE"), status)
            w.sent()
            tries += 1
        assert (tries, results[0].ok) == (6, False)
    w.wait(60)
    assert w.sent() == []
    assert call in w.agent.calls


def test_a_refused_hold_leaves_the_call_as_it_was() -> None:
    w, reinvite = held_by_us()
    w.answer(reinvite, 488)
    assert not w.told(CommandResult)[0].ok
    assert len(w.agent.calls) == 1
    w.do(w.agent.hang_up(only_call(w), w.now))
    assert [m.method for m in w.sent()] == ["ACK", "BYE"]


def test_200_to_a_reinvite_without_sdp_leaves_the_call_as_it_was() -> None:
    w, _ = talking()
    call = only_call(w)
    w.told(MediaChanged)
    w.do(w.agent.hold(call, w.now))
    w.answer(w.request("INVITE"), 200)
    assert [m.method for m in w.sent()] == ["ACK"]
    [result] = w.told(CommandResult)
    assert (result.ok, result.why) == (False, "the answer carries no SDP")
    assert w.told(MediaChanged) == []
    w.do(w.agent.hold(call, w.now))
    w.answer(w.request("INVITE"), 200, body=SDP.replace(b"sendrecv", b"recvonly"))
    assert w.told(CommandResult)[0].ok


def test_their_reinvite_during_ours_gets_491() -> None:
    w, _ = held_by_us()
    [call] = w.agent.calls.values()
    assert call.dialog is not None
    w.receive(
        request(
            "INVITE",
            call_id=call.dialog.call_id,
            from_tag="peer",
            to_tag=call.dialog.local_tag,
            body=SDP,
        )
    )
    assert w.response().status == 491


def reinvited(body: bytes) -> tuple[Wire, Request]:
    w, invite = talking()
    w.receive(bye_from_peer(w, invite, "INVITE", body=body))
    return w, invite


def test_hold_by_the_far_end_is_answered_recvonly() -> None:
    """Also as the last line without a newline."""
    body = SDP.replace(b"a=sendrecv\r\n", b"a=sendonly").replace(b" 1 1 IN", b" 1 2 IN")
    w, _ = reinvited(body)
    answer = w.response()
    assert b"a=recvonly" in answer.body
    assert w.agent.calls[only_call(w)].state == "held"


def test_old_hold_with_0_0_0_0_is_a_hold() -> None:
    w, _ = reinvited(SDP.replace(b"c=IN IP4 192.0.2.1", b"c=IN IP4 0.0.0.0"))
    assert w.response().status == 200
    assert w.agent.calls[only_call(w)].state == "held"


def test_reinvite_without_sdp_gets_a_fresh_full_offer() -> None:
    """FreeSWITCH."""
    w, invite = reinvited(b"")
    answer = w.response()
    assert b"a=sendrecv" in answer.body
    ack = bye_from_peer(w, invite, "ACK", body=SDP.replace(b"4000", b"4242"))
    w.receive(ack)
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4242)


def test_reinvite_without_sdp_whose_ack_has_none_either_leaves_all_as_agreed() -> None:
    w, invite = reinvited(b"")
    w.sent()
    w.told(MediaChanged)
    w.receive(bye_from_peer(w, invite, "ACK"))
    assert w.sent() == []
    assert w.told(MediaChanged) == []
    again = SDP.replace(b"4000", b"4242").replace(b" 1 1 IN", b" 1 2 IN")
    w.receive(bye_from_peer(w, invite, "INVITE", cseq=2, body=again))
    assert w.response().status == 200
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4242)


def test_direct_media_reinvite_moves_the_sound_and_is_no_second_call() -> None:
    """Asterisk; 486 would kill the call."""
    w, _ = reinvited(SDP.replace(b"c=IN IP4 192.0.2.1", b"c=IN IP4 192.0.2.50"))
    assert w.response().status == 200
    assert w.told(MediaChanged)[-1].session.remote == ("192.0.2.50", 4000)
    assert len(w.agent.calls) == 1


def test_reinvite_that_switches_the_sound_off_makes_the_call_silent_until_it_is_on_again() -> None:
    w, invite = reinvited(SDP.replace(b"audio 4000", b"audio 0"))
    answer = w.response()
    assert answer.status == 200
    assert b"m=audio 0 RTP/AVP 8 101" in answer.body
    w.receive(bye_from_peer(w, invite, "ACK"))
    assert w.agent.calls[only_call(w)].state == "held"
    assert not w.told(MediaChanged)[-1].session.may_send
    w.receive(bye_from_peer(w, invite, "INVITE", cseq=2, body=SDP))
    assert b"m=audio 16384" in w.response().body
    assert w.agent.calls[only_call(w)].state == "connected"


def test_reinvite_with_nothing_in_common_gets_488_and_the_call_goes_on() -> None:
    w, _ = reinvited(SDP.replace(b"RTP/AVP 8 101", b"RTP/AVP 18").replace(b"rtpmap:101", b"x:1"))
    assert w.response().status == 488
    assert len(w.agent.calls) == 1


def test_200_to_a_reinvite_is_repeated_until_its_ack() -> None:
    w, invite = reinvited(SDP)
    w.sent()
    w.wait(2)
    assert len(w.sent()) == 2
    w.receive(bye_from_peer(w, invite, "ACK"))
    w.wait(60)
    assert w.sent() == []


def test_target_refresh_moves_later_requests() -> None:
    w, invite = talking()
    w.receive(
        bye_from_peer(w, invite, "INVITE", body=SDP).replace(
            b"Contact: <sip:indoor@192.0.2.1:5060>", b"Contact: <sip:moved@192.0.2.1:5099>"
        )
    )
    w.sent()
    w.receive(bye_from_peer(w, invite, "ACK"))
    w.do(w.agent.hang_up(only_call(w), w.now))
    assert str(w.request("BYE").uri) == "sip:moved@192.0.2.1:5099"


def test_update_from_the_far_end_is_answered() -> None:
    """RFC 3311."""
    w, invite = talking()
    w.receive(bye_from_peer(w, invite, "UPDATE", body=SDP.replace(b"4000", b"4002")))
    answer = w.response()
    assert answer.status == 200
    assert answer.content_type == "application/sdp"
    assert w.told(MediaChanged)[-1].session.remote == (REMOTE, 4002)


def test_481_to_our_request_ends_the_call() -> None:
    w, reinvite = held_by_us()
    w.answer(reinvite, 481)
    assert len(w.told(CallEnded)) == 1


# -- session timer


def test_we_refresh_at_half_the_interval_with_update_where_the_peer_has_it() -> None:
    w, _ = talking(**{"Session-Expires": "90;refresher=uac", "Allow": "INVITE, UPDATE, BYE"})
    w.wait(44)
    assert w.sent() == []
    w.until_sent(2)
    update = w.request("UPDATE")
    assert update.headers.get("Session-Expires") == "90;refresher=uac"
    assert update.body == b""
    w.answer(update, 200, ("Session-Expires", "90;refresher=uac"))
    w.wait(60)
    assert len(w.agent.calls) == 1


def test_we_refresh_with_a_reinvite_where_the_peer_has_no_update() -> None:
    w, _ = talking(**{"Session-Expires": "90;refresher=uac"})
    w.until_sent(46)
    invite = w.request("INVITE")
    w.answer(invite, 200, ("Session-Expires", "90;refresher=uac"), body=SDP)
    assert w.request("ACK")


def test_a_refresh_by_update_that_is_refused_is_made_by_a_reinvite() -> None:
    """RFC 4028 §10: else the call would end at the expiry, although both sides are well."""
    w, _ = talking(**{"Session-Expires": "90;refresher=uac", "Allow": "INVITE, UPDATE"})
    w.until_sent(46)
    w.answer(w.request("UPDATE"), 405)
    w.until_sent(10)
    w.answer(w.request("INVITE"), 200, ("Session-Expires", "90;refresher=uac"), body=SDP)
    w.sent()
    w.wait(40)
    assert [call.state for call in w.agent.calls.values()] == [CallState.CONNECTED]


def test_a_refused_hold_does_not_make_us_the_refresher() -> None:
    w, _ = talking(**{"Session-Expires": "90;refresher=uas"})
    w.do(w.agent.hold(only_call(w), w.now))
    w.answer(w.request("INVITE"), 488)
    w.sent()
    w.wait(55)
    assert w.sent() == []


def test_a_far_end_that_stops_refreshing_gets_bye_before_the_end() -> None:
    w, _ = talking(**{"Session-Expires": "90;refresher=uas"})
    w.wait(59)
    assert w.sent() == []
    w.until_sent(2)
    assert w.request("BYE")


def test_refresh_from_the_far_end_restarts_the_timer_even_against_the_agreed_role() -> None:
    """Old Asterisk refreshes too."""
    w, invite = talking(**{"Session-Expires": "90;refresher=uac", "Allow": "UPDATE"})
    w.wait(40)
    timer = ("Session-Expires", "90;refresher=uas")
    w.receive(
        request(
            "UPDATE",
            timer,
            ("Supported", "timer"),
            call_id=invite.call_id,
            from_tag="peer",
            to_tag=invite.from_.tag or "",
        )
    )
    answer = w.response()
    assert answer.headers.get("Session-Expires") == "90;refresher=uas"
    w.wait(30)
    assert w.sent() == []


def test_session_expires_nobody_asked_for_is_kept() -> None:
    w = wire(AgentConfig(session_expires=0))
    w.do(w.agent.place("g", (PHONE,), 16384, w.now))
    invite = w.request("INVITE")
    assert "Session-Expires" not in invite.headers
    w.answer(invite, 200, ("Session-Expires", "90;refresher=uac"), body=SDP)
    w.sent()
    w.until_sent(46)
    w.request("INVITE")


def test_refresh_survives_408_and_491() -> None:
    w, _ = talking(**{"Session-Expires": "1800;refresher=uac", "Allow": "UPDATE"})
    w.until_sent(901)
    w.answer(w.request("UPDATE"), 491)
    w.until_sent(300)
    w.answer(w.request("UPDATE"), 408)
    w.until_sent(300)
    w.answer(w.request("UPDATE"), 200, ("Session-Expires", "1800;refresher=uac"))
    assert len(w.agent.calls) == 1


# -- digits by INFO


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/dtmf-relay", b"Signal=5\r\nDuration=160\r\n"),
        ("application/dtmf", b"5"),
        ("application/dtmf-relay", b"Signal= 5\r\n"),
    ],
)
def test_info_digits_of_both_kinds_count_and_are_answered_200(kind: str, body: bytes) -> None:
    """14."""
    w, invite = talking()
    w.receive(bye_from_peer(w, invite, "INFO", body=body, content_type=kind))
    assert w.response().status == 200
    assert [e.value for e in w.events if type(e).__name__ == "InfoDigit"] == ["5"]


def test_fast_info_digits_are_not_lost() -> None:
    """14."""
    w, invite = talking()
    for number, digit in enumerate(b"4711", start=1):
        body = b"Signal=%c\r\n" % digit
        w.receive(
            bye_from_peer(
                w, invite, "INFO", cseq=number, body=body, content_type="application/dtmf-relay"
            )
        )
    assert [e.value for e in w.events if type(e).__name__ == "InfoDigit"] == list("4711")


def test_our_digit_by_info_survives_a_405() -> None:
    w, _ = talking()
    w.do(w.agent.send_info_digit(only_call(w), "5", w.now))
    info = w.request("INFO")
    assert info.body.startswith(b"Signal=5")
    w.answer(info, 405)
    assert len(w.agent.calls) == 1


def test_our_digits_by_info_go_one_after_the_other() -> None:
    w, _ = talking()
    for digit in "471":
        w.do(w.agent.send_info_digit(only_call(w), digit, w.now))
    for digit, status in (("4", 200), ("7", 405), ("1", 200)):
        info = w.request("INFO")
        assert info.body.startswith(f"Signal={digit}".encode())
        w.answer(info, status)
    assert w.sent() == []
    w.do(w.agent.send_info_digit(only_call(w), "1", w.now))
    assert w.request("INFO").body.startswith(b"Signal=1")


def test_our_digits_that_wait_end_with_the_call() -> None:
    w, invite = talking()
    for digit in "47":
        w.do(w.agent.send_info_digit(only_call(w), digit, w.now))
    info = w.request("INFO")
    w.receive(from_the_phone("BYE", invite))
    w.sent()
    w.answer(info, 481)
    assert w.sent() == []


def test_text_out_is_answered_with_its_result() -> None:
    w = wire()
    name, outputs = w.agent.message(PHONE, "hello", w.now)
    w.do(outputs)
    message = w.request("MESSAGE")
    assert (message.content_type, message.body) == ("text/plain", b"hello")
    w.answer(message, 202)
    [result] = [e for e in w.events if type(e).__name__ == "MessageResult"]
    assert (result.message, result.status) == (name, 202)


def test_a_late_200_of_a_forgotten_call_gets_ack_and_bye() -> None:
    w, [invite] = calling()
    w.wait(33)
    w.sent()
    w.receive(respond(invite, 200, body=SDP))
    assert [m.method for m in w.sent()] == ["ACK", "BYE"]


def test_connected_is_told_once() -> None:
    w, [invite] = calling()
    w.answer(invite, 200, body=SDP)
    w.answer(invite, 200, body=SDP)
    assert len(w.told(GroupAnswered)) == 1
    assert w.told(CallConnected) == []


def test_outbound_proxy_is_a_route_of_calls_too() -> None:
    account = Account(
        user="door",
        domain="pbx.test",
        registrar=SipUri(host=REMOTE),
        outbound_proxy=SipUri(host="192.0.2.6"),
    )
    w = wire(AgentConfig(account=replace(account, keep_alive=0)))
    w.do(w.agent.place("g", ("**9",), 16384, w.now))
    [(flow, invite)] = w.sent_with_flows()
    assert flow.remote[0] == "192.0.2.6"
    assert [str(r.uri) for r in invite.routes] == ["sip:192.0.2.6;lr"]


@pytest.mark.parametrize("proxy", [None, SipUri(host=REMOTE)])
def test_calls_pass_the_servers_that_the_registrar_names(proxy: SipUri | None) -> None:
    """RFC 3608 §6.1; the REGISTER itself does not."""
    account = Account(
        "door", "pbx.test", SipUri(host=REMOTE), outbound_proxy=proxy, keep_alive=0, expires=100
    )
    w = wire(AgentConfig(account=account))
    w.do(w.agent.start(w.now))
    first = w.request("REGISTER")
    w.answer(first, 200, ("Service-Route", "<sip:orig@192.0.2.8;lr>, <sip:192.0.2.9;lr>"))
    w.do(w.agent.place("g", ("**9",), 16384, w.now))
    [(flow, invite)] = w.sent_with_flows()
    assert flow.remote[0] == REMOTE
    own = [f"sip:{REMOTE};lr"] if proxy else []
    named = ["sip:orig@192.0.2.8;lr", "sip:192.0.2.9;lr"]
    assert [str(route.uri) for route in invite.routes] == own + named
    w.answer(invite, 486)
    w.sent()
    w.until_sent(100)
    assert len(w.request("REGISTER").routes) == len(own)
