"""What the field does to user agents, one test per habit that no other file here has."""

from dataclasses import replace

import pytest
from doorstation.errors import ProtocolError
from doorstation.sip.transport import Resolve
from doorstation.sip.uri import SipUri
from doorstation.ua.config import Account, AgentConfig, Peer
from doorstation.ua.events import CallArrived, GroupAnswered, RegistrationChanged, RegistrationState

from tests.support.wire import REMOTE, SDP, Wire, request

ACCOUNT = Account(
    user="door", domain="fritz.box", registrar=SipUri(host=REMOTE), password="x", keep_alive=30
)
PEER = Peer("indoor", SipUri(host=REMOTE))


def started(account: Account = ACCOUNT) -> Wire:
    w = Wire(AgentConfig(account=account))
    return w.do(w.agent.start(w.now))


def test_no_answer_is_told_apart_from_a_refusal() -> None:
    silent = started()
    silent.wait(33)
    told = silent.told(RegistrationChanged)[-1]
    assert (told.state, told.why) == (RegistrationState.RETRYING, "no answer")
    refused = started()
    refused.answer(refused.request("REGISTER"), 403)
    told = refused.told(RegistrationChanged)[-1]
    assert (told.state, told.why) == (RegistrationState.REFUSED, "403 Forbidden")


def test_however_often_it_is_tried_there_is_one_binding() -> None:
    """A FRITZ!Box reported four; one Call-ID, one Contact, a rising CSeq."""
    w = started()
    w.wait(1000)
    registers = [m for m in w.sent() if m.method == "REGISTER"]
    assert len({m.top_via.branch for m in registers}) > 5
    assert len({(m.call_id, m.headers.get("Contact")) for m in registers}) == 1
    numbers = [m.cseq.number for m in registers]
    assert numbers == sorted(numbers)


def test_nothing_is_subscribed_to_or_published() -> None:
    """A FRITZ!Box refuses SUBSCRIBE; presence is no condition for calling."""
    w = started()
    w.answer(w.request("REGISTER"), 200)
    methods = set()
    for _ in range(20):
        w.wait(20)
        for message in w.sent():
            methods.add(message.method)
            w.answer(message, 200)
    assert methods == {"REGISTER", "OPTIONS"}


def test_routes_of_a_call_in_are_used_in_their_order() -> None:
    """Reversed on the called side is the classic."""
    w = Wire(AgentConfig(peers=(PEER,)))
    routes = f"<sip:p1@{REMOTE};lr>, <sip:p2@{REMOTE};lr>"
    w.receive(request("INVITE", ("Record-Route", routes), body=SDP))
    [arrived] = w.told(CallArrived)
    w.do(w.agent.answer(arrived.call, 16384, w.now))
    answer = w.response()
    assert answer.headers.get_all("Record-Route") == [routes]
    w.receive(request("ACK", to_tag=answer.to.tag or ""))
    w.do(w.agent.hang_up(arrived.call, w.now))
    assert [str(route.uri) for route in w.request("BYE").routes] == [
        f"sip:p1@{REMOTE};lr",
        f"sip:p2@{REMOTE};lr",
    ]


@pytest.mark.parametrize(
    "header",
    [
        ("Answer-Mode", "Auto"),
        ("P-Auto-Answer", "normal"),
        ("Alert-Info", "<http://127.0.0.1>;info=alert-autoanswer"),
        ("Alert-Info", "Ring Answer"),
        ("Call-Info", "<sip:pbx.test>;answer-after=0"),
    ],
)
def test_no_spelling_of_auto_answer_lets_a_caller_listen(header: tuple[str, str]) -> None:
    """The house decides who is answered at once, never the caller."""
    w = Wire(AgentConfig(peers=(PEER,)))
    w.receive(request("INVITE", header, body=SDP))
    assert len(w.told(CallArrived)) == 1
    w.wait(60)
    assert [m.status for m in w.sent()] == [100]


def test_contact_host_of_the_settings_and_allow_in_every_options() -> None:
    """Teams, through an SBC."""
    config = AgentConfig(account=ACCOUNT, contact_host="door.example.com")
    w = Wire(config)
    w.do(w.agent.start(w.now))
    register = w.request("REGISTER")
    assert register.headers.get("Contact") == "<sip:door@door.example.com:5060>"
    w.answer(register, 200)
    w.until_sent(40)
    assert "INVITE" in w.request("OPTIONS").allow
    w.do(w.agent.place("g", ("**9",), 16384, w.now))
    invite = w.request("INVITE")
    assert invite.headers.get("Contact") == "<sip:door@door.example.com:5060>"
    w.receive(request("OPTIONS"))
    assert "INVITE" in w.response().allow


def test_a_name_server_that_is_silent_stops_nothing_else() -> None:
    w = Wire(AgentConfig(peers=(PEER,)))
    outputs = w.agent.place("g", ("sip:phone@nowhere.test",), 16384, w.now)
    assert outputs
    assert all(isinstance(output, Resolve) for output in outputs)
    w.receive(request("OPTIONS"))
    assert w.response().status == 200
    w.receive(request("INVITE", body=SDP))
    assert len(w.told(CallArrived)) == 1
    w.do(w.agent.cancel_group("g", w.now))
    assert len(w.agent.calls) == 1


@pytest.mark.parametrize("refresher", ["uac", "uas"])
def test_a_refresh_keeps_the_refresher_that_was_agreed(refresher: str) -> None:
    """FreeSWITCH is silent, and old Asterisk confused, when it changes sides."""
    w = Wire(AgentConfig(peers=(PEER,)))
    w.do(w.agent.place("g", (f"sip:phone@{REMOTE}",), 16384, w.now))
    invite = w.request("INVITE")
    w.answer(invite, 200, ("Session-Expires", f"90;refresher={refresher}"), body=SDP)
    w.sent()
    [answered] = w.told(GroupAnswered)
    if refresher == "uas":
        w.do(w.agent.hold(answered.call, w.now))
    else:
        w.until_sent(46)
    again = w.request("INVITE")
    assert again.headers.get("Session-Expires") == f"90;refresher={refresher}"


def test_an_account_at_an_ipv6_address_is_called_through_its_registrar() -> None:
    account = replace(ACCOUNT, domain="[2001:db8::1]", registrar=SipUri(host="2001:db8::1"))
    w = started(account)
    w.local = "2001:db8::2"
    [(flow, register)] = w.sent_with_flows()
    w.answer(register, 200, flow=flow)
    w.do(w.agent.place("g", ("**9",), 16384, w.now))
    [(used, invite)] = w.sent_with_flows()
    assert used == flow
    assert str(invite.uri) == "sip:**9@[2001:db8::1]"
    assert str(invite.from_.uri) == "sip:door@[2001:db8::1]"


@pytest.mark.parametrize("target", ["**9\r\nX: y", "\ud800", "sip:\ud800@host", "sip:a@h\n"])
def test_a_target_that_cannot_be_written_is_refused_and_calls_nobody(target: str) -> None:
    w = started()
    w.sent()
    with pytest.raises(ProtocolError):
        w.agent.place("g", (f"sip:{REMOTE}", target), 16384, w.now)
    assert w.agent.calls == {}
    assert w.sent() == []


def test_a_text_that_is_no_unicode_is_sent_as_far_as_it_is() -> None:
    w = Wire(AgentConfig())
    w.do(w.agent.message(f"sip:phone@{REMOTE}", "a\ud800b", w.now)[1])
    assert w.request("MESSAGE").body == b"a?b"
