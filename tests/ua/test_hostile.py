"""Far ends that are broken or mean: the door answers, ignores or hangs up, and stays a door."""

import pytest
from doorstation.sip.uri import SipUri
from doorstation.ua.config import Account, AgentConfig, Peer
from doorstation.ua.events import CallArrived, GroupAnswered

from tests.support.wire import LOCAL, REMOTE, SDP, Wire, request, respond

PEER = AgentConfig(peers=(Peer("indoor", SipUri(host=REMOTE)),))
ACCOUNT = Account(user="door", domain="pbx.test", registrar=SipUri(host=REMOTE), keep_alive=0)

# Digits to `str.isdigit`, but not to `int`, and digits to both that are not SIP's.
NO_NUMBERS = ("²", "٣", "-1", "1_0", "", "9" * 30, '"', "x;y")


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_timer_headers_that_are_no_numbers_do_no_harm(value: str) -> None:
    w = Wire(PEER)
    timers = [("Session-Expires", value), ("Min-SE", value), ("Supported", "timer, 100rel")]
    w.receive(request("INVITE", *timers, body=SDP))
    [arrived] = w.told(CallArrived)
    w.do(w.agent.answer(arrived.call, 16384, w.now))
    assert w.response().status == 200

    w.do(w.agent.place("g", (f"sip:phone@{REMOTE}",), 16384, w.now))
    invite = w.request("INVITE")
    w.answer(invite, 183, ("Require", "100rel"), ("RSeq", value))
    w.answer(invite, 200, *timers[:2], body=SDP)
    assert len(w.told(GroupAnswered)) == 1


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_granted_times_that_are_no_numbers_count_as_absent(value: str) -> None:
    w = Wire(AgentConfig(account=ACCOUNT))
    w.do(w.agent.start(w.now))
    register = w.request("REGISTER")
    contact = ("Contact", f'{register.contacts[0]};expires="{value}"'.replace('"""', '""'))
    w.answer(register, 200, contact, ("Expires", value))
    assert w.agent.deadline is not None  # registered or tried again
    w.do(w.agent.network_changed(w.now))
    w.answer(w.request("REGISTER"), 503, ("Retry-After", value))
    assert w.agent.deadline is not None


@pytest.mark.parametrize("name", ["Require", "Supported", "Allow", "Proxy-Require"])
def test_lists_with_a_stray_quote_are_read_as_they_stand(name: str) -> None:
    w = Wire(PEER)
    w.receive(request("INVITE", (name, '"100rel'), body=SDP))
    refused = [m.status for m in w.sent()]
    assert refused == ([420] if name == "Require" else [])

    w.do(w.agent.place("g", (f"sip:phone@{REMOTE}",), 16384, w.now))
    invite = w.request("INVITE")
    w.answer(invite, 180, (name, '"100rel'))
    w.answer(invite, 200, (name, '"100rel'), body=SDP)
    assert len(w.told(GroupAnswered)) == 1


@pytest.mark.parametrize(
    ("seen", "contact"),
    [
        (';received="a b";rport=5060', f"sip:door@{LOCAL}:5060"),
        (";received=evil.example;rport=5060", f"sip:door@{LOCAL}:5060"),
        (";received=<x>;rport=99999", f"sip:door@{LOCAL}:5060"),
        (";received=198.51.100.7;rport=99999", "sip:door@198.51.100.7:5060"),
        (";received=198.51.100.7;rport=0", "sip:door@198.51.100.7:5060"),
        (";received=198.51.100.7;rport=40001", "sip:door@198.51.100.7:40001"),
    ],
)
def test_only_an_address_and_a_port_are_learned_from_a_via(seen: str, contact: str) -> None:
    w = Wire(AgentConfig(account=ACCOUNT))
    w.do(w.agent.start(w.now))
    register = w.request("REGISTER")
    ok = respond(register, 200, ("Contact", f"{register.contacts[0]};expires=300"))
    via = (register.headers.get("Via") or "").replace(";rport", seen)
    ok.headers.set("Via", via)
    w.receive(ok)
    w.sent()
    w.wait(300)
    assert str(w.sent()[-1].contacts[0].uri) == contact
