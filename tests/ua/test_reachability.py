"""Calls through servers that fail, connections that break and networks that change."""

from dataclasses import replace

import msgspec
import pytest
from doorstation.sip.message import Request, Response, format_message
from doorstation.sip.transport import AddressRecord, DnsAnswer, Flow, SrvRecord, Target, Transport
from doorstation.sip.uri import SipUri
from doorstation.ua.config import Account, AgentConfig, Peer
from doorstation.ua.events import (
    CallArrived,
    CallEnded,
    CommandResult,
    GroupAnswered,
    GroupFailed,
    MediaChanged,
    OutcomeKind,
)

from tests.support.wire import LOCAL, REMOTE, SDP, Wire, request, udp

SECOND = "192.0.2.2"
ACCOUNT = Account(user="door", domain="pbx.test", registrar=SipUri(host="pbx.test"), keep_alive=0)
ZONE = {
    ("SRV", "_sip._udp.pbx.test"): DnsAnswer(
        (SrvRecord(1, 0, 5060, "a.pbx.test"), SrvRecord(2, 0, 5060, "b.pbx.test")), 300
    ),
    ("A", "a.pbx.test"): DnsAnswer((AddressRecord(REMOTE),), 300),
    ("A", "b.pbx.test"): DnsAnswer((AddressRecord(SECOND),), 300),
}


def registered(transport: str = "", account: Account = ACCOUNT) -> tuple[Wire, Flow]:
    """Registered at the first of two servers, or over one connection."""
    if transport:
        params = (("transport", transport),)
        account = replace(account, registrar=SipUri(host=REMOTE, params=params))
    w = Wire(AgentConfig(account=account), zone=dict(ZONE))
    w.do(w.agent.start(w.now))
    [(flow, register)] = w.sent_with_flows()
    w.answer(register, 200, flow=flow)
    return w, flow


def invites(w: Wire) -> list[tuple[Flow, Request]]:
    return [(f, m) for f, m in w.sent_with_flows() if getattr(m, "method", "") == "INVITE"]


def place(w: Wire, *targets: str) -> list[tuple[Flow, Request]]:
    w.do(w.agent.place("g", targets or ("**9",), 16384, w.now))
    return invites(w)


# -- servers that fail


def test_call_over_a_connection_that_just_broke_goes_out_on_a_new_one() -> None:
    w, flow = registered("tcp")
    [(used, _)] = place(w)
    assert used == flow
    w.do(w.agent.flow_closed(flow, "reset by peer", w.now))
    [(again, invite)] = invites(w)
    assert again.id != flow.id
    assert w.told(GroupFailed) == []
    w.answer(invite, 200, flow=again, body=SDP)
    assert len(w.told(GroupAnswered)) == 1


def test_call_after_the_connection_broke_goes_out_at_once() -> None:
    w, flow = registered("tcp")
    w.do(w.agent.flow_closed(flow, "reset by peer", w.now))
    [(used, _)] = place(w)
    assert used.id != flow.id


def test_call_that_the_registered_server_cannot_take_goes_to_the_next_one() -> None:
    """RFC 3263 §4.3: 503, with or without Retry-After."""
    w, flow = registered()
    [(used, invite)] = place(w)
    assert used == flow
    w.answer(invite, 503, ("Retry-After", "60"), flow=used)
    [(other, second)] = invites(w)
    assert other.remote[0] == SECOND
    assert second.top_via.branch != invite.top_via.branch
    w.answer(second, 200, flow=other, body=SDP)
    assert len(w.told(GroupAnswered)) == 1
    [(_, again)] = place(w)
    w.answer(again, 486, flow=flow)


def test_call_that_every_server_refuses_with_503_is_unreachable_and_asks_nobody_twice() -> None:
    w, _ = registered()
    asked = []
    found = place(w)
    while found:
        [(used, invite)] = found
        asked.append(used.remote[0])
        w.answer(invite, 503, ("Retry-After", "60"), flow=used)
        found = invites(w)
    assert asked == [REMOTE, SECOND]
    [failed] = w.told(GroupFailed)
    assert failed.outcomes[0].kind is OutcomeKind.UNREACHABLE


def test_call_whose_registered_server_is_gone_goes_to_the_next_one() -> None:
    w, flow = registered()
    place(w)
    w.do(w.agent.send_failed(flow, "port unreachable", w.now))
    [(other, _)] = invites(w)
    assert other.remote[0] == SECOND


def test_call_that_is_cancelled_goes_to_no_further_server() -> None:
    w, _ = registered()
    [(used, invite)] = place(w)
    w.do(w.agent.cancel_group("g", w.now))
    w.answer(invite, 503, flow=used)
    assert invites(w) == []
    assert w.agent.calls == {}


@pytest.mark.parametrize("status", [403, 404, 480])
def test_call_that_is_refused_as_if_nobody_were_known_has_the_door_register_again(
    status: int,
) -> None:
    """A PBX that was restarted has lost every phone; by itself that showed at the next refresh."""
    w, flow = registered()
    w.wait(70)
    first, second = place(w, "**1", "**2")
    w.answer(first[1], status, flow=flow)
    w.answer(second[1], status, flow=flow)
    assert [m.method for m in w.sent()] == ["ACK", "REGISTER", "ACK"]


def test_calls_to_a_phone_that_is_switched_off_cost_no_more_than_a_registration_a_minute() -> None:
    w, flow = registered()
    registrations = 0
    for _ in range(30):
        [(_, invite)] = place(w)
        w.answer(invite, 480, flow=flow)
        for register in [m for m in w.sent() if m.method == "REGISTER"]:
            w.answer(register, 200, flow=flow)
            registrations += 1
        w.wait(5)
    assert registrations == 2


def test_call_refused_by_another_server_says_nothing_of_the_registration() -> None:
    w, _ = registered()
    w.wait(70)
    [(flow, invite)] = place(w, "sip:phone@192.0.2.77")
    w.answer(invite, 404, flow=flow)
    assert [m.method for m in w.sent()] == ["ACK"]


def test_call_while_registered_at_the_back_up_goes_through_it() -> None:
    account = replace(
        ACCOUNT, registrar=SipUri(host=REMOTE), backup_registrars=(SipUri(host=SECOND),)
    )
    w = Wire(AgentConfig(account=account))
    w.refused.add(REMOTE)
    w.do(w.agent.start(w.now))
    [(flow, register)] = w.sent_with_flows()
    w.answer(register, 200, flow=flow)
    [(used, _)] = place(w)
    assert used.remote[0] == SECOND


# -- redirection


def test_redirection_within_the_account_stays_on_its_flow() -> None:
    """A PBX forwards to an extension of its own: the registered connection all the same."""
    w, flow = registered("tcp")
    [(_, invite)] = place(w)
    w.answer(invite, 302, ("Contact", "<sip:**620@pbx.test>"), flow=flow)
    [(used, moved)] = invites(w)
    assert used == flow
    assert str(moved.uri) == "sip:**620@pbx.test"
    assert moved.from_.uri == invite.from_.uri


def test_redirection_keeps_the_outbound_proxy() -> None:
    account = replace(ACCOUNT, outbound_proxy=SipUri(host=REMOTE, params=(("lr", None),)))
    w, flow = registered(account=account)
    [(_, invite)] = place(w)
    w.answer(invite, 301, ("Contact", "<sip:else@elsewhere.test>"), flow=flow)
    [(used, moved)] = invites(w)
    assert used == flow
    assert [str(route.uri) for route in moved.routes] == [f"sip:{REMOTE};lr"]


def test_redirection_out_of_the_account_goes_where_it_points() -> None:
    w, flow = registered()
    [(_, invite)] = place(w)
    w.answer(invite, 302, ("Contact", "<sip:me@198.51.100.3:5070>"), flow=flow)
    [(used, _)] = invites(w)
    assert used.remote == ("198.51.100.3", 5070)


# -- connections used again


def test_requests_inside_a_tls_call_stay_on_the_connection_that_proved_its_name() -> None:
    """RFC 5923: the Contact is an address, which no certificate proves."""
    w, flow = registered("tls", replace(ACCOUNT, registrar=SipUri(host="x")))
    w.opened.clear()
    [(_, invite)] = place(w)
    contact = ("Contact", f"<sip:pbx@{REMOTE}:5061;transport=tls>")
    w.answer(invite, 200, contact, flow=flow, body=SDP)
    [call] = w.agent.calls
    w.do(w.agent.hang_up(call, w.now))
    sent = w.sent_with_flows()
    assert [(used.id, m.method) for used, m in sent] == [(flow.id, "ACK"), (flow.id, "BYE")]
    assert w.opened == []


def test_requests_inside_a_call_use_the_callers_connection_where_its_contact_names_it() -> None:
    """Phones behind NAT write the port of their connection, where nobody listens."""
    w = Wire(AgentConfig(peers=(Peer("indoor", SipUri(host=REMOTE)),)))
    flow = Flow(77, Transport.TCP, (LOCAL, 5060), (REMOTE, 49152))
    contact = ("Contact", f"<sip:indoor@{REMOTE}:49152;transport=tcp>")
    w.receive(request("INVITE", contact, body=SDP), flow)
    [arrived] = w.told(CallArrived)
    w.do(w.agent.answer(arrived.call, 16384, w.now))
    w.receive(request("ACK", to_tag=w.response().to.tag or ""), flow)
    w.do(w.agent.hang_up(arrived.call, w.now))
    [(used, bye)] = w.sent_with_flows()
    assert (used, bye.method) == (flow, "BYE")
    assert w.opened == []


def test_a_phone_that_names_no_transport_is_answered_by_the_connection_it_was_called_by() -> None:
    """RFC 3263 would have UDP; but that the phone listens at the connection is certain."""
    w = Wire(AgentConfig())
    [(flow, invite)] = place(w, f"sip:phone@{REMOTE};transport=tcp")
    contact = ("Contact", f"<sip:phone@{REMOTE}:5060>")
    w.answer(invite, 183, ("Require", "100rel"), ("RSeq", "1"), contact, body=SDP, flow=flow)
    w.answer(invite, 200, contact, body=SDP, flow=flow)
    w.answer(invite, 200, contact, body=SDP, flow=flow, tag="another")
    sent = [(used, message.method) for used, message in w.sent_with_flows()]
    assert sent == [(flow, "PRACK"), (flow, "ACK"), (flow, "ACK"), (flow, "BYE")]
    w.do(w.agent.flow_closed(flow, "closed by the far end", w.now))
    w.sent()
    [call] = w.agent.calls
    w.do(w.agent.hang_up(call, w.now))
    [(used, bye)] = w.sent_with_flows()
    assert (used.transport, bye.method) == (Transport.UDP, "BYE")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_who_names_itself_by_a_name_without_an_address_is_answered_where_it_is(
    transport: str,
) -> None:
    """A PBX in a container knows itself by a name that nobody else knows."""
    w = Wire(AgentConfig())
    [(flow, invite)] = place(w, f"sip:pbx@{REMOTE};transport={transport}")
    contact = ("Contact", f"<sip:pbx@container-7;transport={transport}>")
    w.answer(invite, 183, ("Require", "100rel"), ("RSeq", "1"), contact, body=SDP, flow=flow)
    w.answer(invite, 200, contact, body=SDP, flow=flow)
    [call] = w.agent.calls
    w.do(w.agent.hang_up(call, w.now))
    sent = [(used, message.method) for used, message in w.sent_with_flows()]
    assert sent == [(flow, "PRACK"), (flow, "ACK"), (flow, "BYE")]


def test_a_link_local_phone_is_reached_by_the_link_that_it_called_by() -> None:
    """RFC 4007: its Contact and its SDP cannot name the link, and ours must not."""
    w = Wire(AgentConfig(peers=(Peer("indoor", SipUri(host="fe80::2")),)))
    flow = Flow(1, Transport.UDP, ("fe80::10", 5060), ("fe80::2%3", 5060))
    w.local = "fe80::10"
    contact = ("Contact", "<sip:indoor@[fe80::2]:5070>")
    sdp = SDP.replace(b"IP4 192.0.2.1", b"IP6 fe80::2")
    w.receive(request("INVITE", contact, body=sdp), flow)
    [arrived] = w.told(CallArrived)
    w.do(w.agent.answer(arrived.call, 16384, w.now))
    answer = w.response()
    w.receive(request("ACK", to_tag=answer.to.tag or ""), flow)
    assert w.told(MediaChanged)[-1].session.remote == ("fe80::2%3", 4000)
    w.do(w.agent.hang_up(arrived.call, w.now))
    [(used, bye)] = w.sent_with_flows()
    assert (used.remote, bye.method) == (("fe80::2%3", 5070), "BYE")
    assert b"%" not in format_message(answer) + format_message(bye)


def test_a_strangers_tls_connection_is_never_taken_for_a_named_server() -> None:
    w = Wire(AgentConfig(account=replace(ACCOUNT, registrar=SipUri(host=REMOTE))))
    stranger = Flow(77, Transport.TLS, (LOCAL, 5061), (REMOTE, 5061))
    w.receive(request("OPTIONS"), stranger)
    w.sent()
    w.zone["A", "other.test"] = DnsAnswer((AddressRecord(REMOTE),), 300)
    place(w, "sips:y@other.test")
    assert w.opened == [Target(Transport.TLS, REMOTE, 5061, "other.test")]


# -- large requests


def large(w: Wire, target: str) -> list[tuple[Flow, Request]]:
    """An INVITE of more than 1300 bytes."""
    return place(w, target + ";line=" + "x" * 500)


def test_large_invite_goes_by_tcp_where_the_peer_has_it() -> None:
    """RFC 3261 §18.1.1."""
    w = Wire(AgentConfig())
    [(used, invite)] = large(w, f"sip:phone@{REMOTE}")
    assert used.transport is Transport.TCP
    assert b"c=IN IP4" in invite.body


def test_large_invite_falls_back_to_udp_where_tcp_is_refused() -> None:
    w = Wire(AgentConfig())
    w.refused.add(Transport.TCP)
    [(used, _)] = large(w, f"sip:phone@{REMOTE}")
    assert used.transport is Transport.UDP


LARGE = "sip:**9@pbx.test;line=" + "x" * 500


def test_large_invite_of_a_udp_registration_goes_by_tcp_to_the_same_server() -> None:
    """10 and RFC 3261 §18.1.1: who knows us is kept, how it is reached is not."""
    w, flow = registered()
    [(used, invite)] = place(w, LARGE)
    assert (used.transport, used.remote) == (Transport.TCP, flow.remote)
    assert invite.top_via.transport == "TCP"
    w.answer(invite, 200, flow=used, body=SDP)
    assert w.request("ACK")


def test_large_invite_of_a_udp_registration_leaves_on_its_flow_where_tcp_is_refused() -> None:
    w, flow = registered()
    w.refused.add(Transport.TCP)
    for _ in range(2):
        [(used, invite)] = place(w, LARGE)
        assert used == flow
        w.answer(invite, 486, flow=used)
        w.sent()
    assert len([t for t in w.opened if t.transport is Transport.TCP]) == 1


def test_large_invite_waits_two_seconds_for_a_silent_tcp_and_within_the_hour_not_again() -> None:
    w, flow = registered()
    w.silent.add(Transport.TCP)
    assert place(w, LARGE) == []
    w.wait(2.1)
    [(used, invite)] = invites(w)
    assert used == flow
    w.answer(invite, 486, flow=used)
    w.wait(1800)
    w.sent()
    [(used, _)] = place(w, LARGE)
    assert used == flow


def test_invite_that_its_credentials_make_too_large_for_udp_goes_by_tcp() -> None:
    w, flow = registered(account=replace(ACCOUNT, password="x" * 8))
    [(first, invite)] = place(w, LARGE[:-300])
    assert first == flow
    w.answer(invite, 401, ("WWW-Authenticate", f'Digest realm="{"p" * 200}", nonce="1"'))
    [(again, second)] = invites(w)
    assert (again.transport, again.remote) == (Transport.TCP, flow.remote)
    assert "Authorization" in second.headers
    assert second.cseq.number > invite.cseq.number


def test_credentials_for_one_server_are_not_shown_to_the_next() -> None:
    w, flow = registered(account=replace(ACCOUNT, password="x" * 8))
    [(_, invite)] = place(w)
    w.answer(invite, 401, ("WWW-Authenticate", 'Digest realm="p", nonce="1"'), flow=flow)
    [(_, second)] = invites(w)
    assert "Authorization" in second.headers
    w.answer(second, 503, flow=flow)
    [(other, third)] = invites(w)
    assert other.remote[0] == SECOND
    assert "Authorization" not in third.headers


def test_large_invite_stays_with_udp_where_tcp_is_switched_off() -> None:
    w, flow = registered()
    w.endpoint._transports = (Transport.UDP,)
    [(used, _)] = place(w, LARGE)
    assert used == flow


# -- the network changes during a call


def talking() -> tuple[Wire, str]:
    w = Wire(AgentConfig(session_expires=0))
    [(_, invite)] = place(w, f"sip:phone@{REMOTE}")
    w.answer(invite, 200, body=SDP)
    w.sent()
    [call] = w.agent.calls
    return w, call


def test_a_call_survives_a_new_address() -> None:
    """DHCP, or the cable instead of the radio: the far end hears at once where we are now."""
    w, call = talking()
    w.local = "192.0.2.77"
    w.change_network()
    moved = w.request("INVITE")
    assert moved.to.tag == "peer"
    assert b"c=IN IP4 192.0.2.77" in moved.body
    assert str(moved.contacts[0].uri.host) == "192.0.2.77"  # type: ignore[union-attr]
    w.answer(moved, 200, body=SDP)
    assert w.request("ACK").cseq.number == moved.cseq.number
    assert w.told(MediaChanged)[-1].session is not None
    assert w.told(CommandResult) == []
    assert call in w.agent.calls


def test_a_change_of_network_leaves_a_call_alone_whose_own_address_stayed() -> None:
    """The cable beside the radio, another default route: the phone need not hear of that."""
    w, call = talking()
    w.change_network()
    w.wait(40)
    assert w.sent() == []
    assert call in w.agent.calls


def test_of_two_calls_only_the_one_whose_address_changed_is_told() -> None:
    w = Wire(AgentConfig(session_expires=0, peers=(Peer("phone", SipUri(host=REMOTE)),)))
    [(_, invite)] = place(w, f"sip:phone@{REMOTE}")
    w.answer(invite, 200, body=SDP)
    other = msgspec.structs.replace(udp(), id=7)
    w.receive(request("INVITE", body=SDP), other)
    [arrived] = w.told(CallArrived)
    w.do(w.agent.answer(arrived.call, 16386, w.now))
    tag = [m for m in w.sent() if isinstance(m, Response)][-1].to.tag or ""
    w.receive(request("ACK", to_tag=tag), other)
    w.do(w.agent.network_changed(lambda flow: flow.id == other.id, w.now))
    assert w.request("INVITE").call_id == "call-from-outside"


def test_an_incoming_call_that_rings_while_our_address_changes_is_told_after_its_answer() -> None:
    w = Wire(AgentConfig(session_expires=0, peers=(Peer("phone", SipUri(host=REMOTE)),)))
    w.receive(request("INVITE", body=SDP))
    [arrived] = w.told(CallArrived)
    w.local = "192.0.2.77"
    w.change_network()
    w.do(w.agent.answer(arrived.call, 16384, w.now))
    w.receive(request("ACK", to_tag=w.response().to.tag or ""))
    w.until_sent(2)
    assert b"192.0.2.77" in w.request("INVITE").body


def test_a_call_waits_for_the_network_to_come_back() -> None:
    """The link goes, then comes with another address: two changes, the first leads nowhere."""
    w, call = talking()
    w.refused.add(REMOTE)
    w.change_network()
    assert w.sent() == []
    assert call in w.agent.calls
    w.refused.clear()
    w.wait(3)
    w.change_network()
    w.answer(w.request("INVITE"), 200, body=SDP)
    assert w.request("ACK")
    assert call in w.agent.calls


def test_a_change_of_network_during_a_reinvite_is_told_after_it() -> None:
    w, call = talking()
    w.do(w.agent.hold(call, w.now))
    hold = w.request("INVITE")
    w.local = "192.0.2.77"
    w.change_network()
    assert w.sent() == []
    w.answer(hold, 200, body=SDP.replace(b"sendrecv", b"recvonly"))
    w.request("ACK")
    w.until_sent(1)
    moved = w.request("INVITE")
    assert b"192.0.2.77" in moved.body
    assert b"a=sendonly" in moved.body


def test_a_far_end_that_lost_the_call_meanwhile_ends_it() -> None:
    w, call = talking()
    w.local = "192.0.2.77"
    w.change_network()
    w.answer(w.request("INVITE"), 481)
    assert len(w.told(CallEnded)) == 1
    w.wait(40)
    assert call not in w.agent.calls


def test_a_call_with_a_session_timer_ends_when_nobody_is_there_any_more() -> None:
    w = Wire(AgentConfig())
    [(_, invite)] = place(w, f"sip:phone@{REMOTE}")
    w.answer(invite, 200, ("Session-Expires", "90;refresher=uas"), body=SDP)
    w.refused.add(REMOTE)
    w.change_network()
    w.wait(200)
    assert w.agent.calls == {}
    assert len(w.told(CallEnded)) == 1


@pytest.mark.parametrize("first", ["hold", "resume"])
def test_hold_and_resume_in_quick_succession_end_with_the_last_wish(first: str) -> None:
    w, call = talking()
    acts = [w.agent.hold, w.agent.resume]
    if first == "resume":
        w.do(w.agent.hold(call, w.now))
        w.answer(w.request("INVITE"), 200, body=SDP.replace(b"sendrecv", b"recvonly"))
        w.sent()
        acts.reverse()
    w.do(acts[0](call, w.now))
    w.do(acts[1](call, w.now))
    w.told(CommandResult)
    one = w.request("INVITE")
    held = b"a=sendonly" in one.body
    w.answer(one, 200, body=SDP.replace(b"sendrecv", b"recvonly") if held else SDP)
    w.request("ACK")
    w.until_sent(2)
    two = w.request("INVITE")
    assert (b"a=sendonly" in two.body) is not held
    w.answer(two, 200, body=SDP if held else SDP.replace(b"sendrecv", b"recvonly"))
    assert w.told(MediaChanged)[-1].session.direction == ("sendrecv" if held else "sendonly")


@pytest.mark.parametrize(
    ("phone", "contact"),
    [("192.168.1.20", f"sip:door@{LOCAL}:5060"), ("8.8.4.4", "sip:door@198.51.100.7:40001")],
)
def test_a_phone_on_our_side_of_the_router_is_given_our_own_address(
    phone: str, contact: str
) -> None:
    """9: what a provider's registrar sees of us is behind the router for everybody here."""
    w = Wire(AgentConfig(account=replace(ACCOUNT, registrar=SipUri(host="8.8.8.8"))))
    w.do(w.agent.start(w.now))
    for _ in range(4):
        for flow, register in w.sent_with_flows():
            via = (register.headers.get("Via") or "").replace(
                ";rport", ";rport=40001;received=198.51.100.7"
            )
            register.headers.set("Via", via)
            w.answer(register, 200, flow=flow)
    [(_, invite)] = place(w, f"sip:phone@{phone}")
    assert str(invite.contacts[0].uri) == contact
