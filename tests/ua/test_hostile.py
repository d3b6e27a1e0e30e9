"""Far ends that are broken or mean: the door answers, ignores or hangs up, and stays a door."""

import re
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import pytest
from doorstation.media.digits import RELAY
from doorstation.sip.digest import digest_response
from doorstation.sip.uri import SipUri
from doorstation.ua.config import Account, AgentConfig, Peer
from doorstation.ua.events import (
    CallArrived,
    GroupAnswered,
    GroupFailed,
    InfoDigit,
    MediaChanged,
    Refused,
    RegistrationChanged,
)
from doorstation.ua.guesses import LIMIT, LOCKED, MAX_SOURCES, Guesses

from tests.support.wire import LOCAL, REMOTE, SDP, Wire, request, respond, udp

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
    w.change_network()
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


def loaded(w: Wire) -> dict[str, int]:
    """The tables of the transaction layer that hold something."""
    return {table: count for table, count in w.endpoint.load.items() if count}


@pytest.mark.parametrize(
    "method", ["OPTIONS", "INVITE", "MESSAGE", "REGISTER", "BANANA", "BYE", "INFO", "CANCEL", "ACK"]
)
@pytest.mark.parametrize("to_tag", ["", "guessed"])
def test_a_flood_of_strangers_leaves_no_state_and_peers_get_through(
    method: str, to_tag: str
) -> None:
    """8.2.7 of RFC 3261: forged addresses are free, our memory is not."""
    peer = Peer("porter", SipUri(host="192.0.2.5"), password="p")
    w = Wire(AgentConfig(peers=(*PEER.peers, peer)))
    for number in range(250):
        source = udp(f"10.0.0.{number}")
        call = f"flood-{number}"
        w.receive(request(method, call_id=call, to_tag=to_tag, body=b"x"), source)
        w.receive(
            request(method, call_id=call, to_tag=to_tag, from_uri="sip:porter@192.0.2.5"), source
        )
    assert w.agent.deadline is None
    assert loaded(w) == {}
    assert len(w.sent()) == (0 if method == "ACK" else 500)
    w.receive(request("INVITE", body=SDP))
    assert len(w.told(CallArrived)) == 1


def test_200_to_an_invite_never_sent_makes_us_write_to_nobody() -> None:
    """A stranger's Contact would else get our ACK and eleven BYEs for one datagram of his."""
    w = Wire(PEER)
    w.do(w.agent.place("g", (f"sip:phone@{REMOTE}",), 16384, w.now))
    invite = w.request("INVITE")
    invite.headers.set("Call-ID", "made-up")
    invite.headers.set("Via", f"SIP/2.0/UDP {LOCAL}:5060;branch=z9hG4bKmade-up")
    w.answer(invite, 200, ("Contact", "<sip:victim@198.51.100.1>"), body=SDP)
    assert w.sent() == []


def test_late_200_of_a_call_of_ours_is_still_acknowledged_and_ended() -> None:
    w = Wire(PEER)
    w.do(w.agent.place("g", (f"sip:phone@{REMOTE}",), 16384, w.now))
    invite = w.request("INVITE")
    w.wait(40)
    w.sent()
    w.answer(invite, 200, body=SDP)
    assert [m.method for m in w.sent()] == ["ACK", "BYE"]


@pytest.mark.parametrize("name", ["Accept", "Content-Disposition", "Content-Encoding", "RAck"])
@pytest.mark.parametrize("value", ['"', "<", 'text/plain;x="', ",,,", "x" * 3000])
def test_headers_that_cannot_be_read_get_an_answer(name: str, value: str) -> None:
    w = Wire(PEER)
    w.receive(request("INVITE", (name, value), body=SDP))
    answers = [m.status for m in w.sent()]
    assert answers in ([], [400], [406], [415])
    assert len(w.told(CallArrived)) == (not answers)


@pytest.mark.parametrize("contact", ["*", "<tel:+4930>", "<http://x/>"])
def test_invite_whose_contact_is_nowhere_to_send_to_gets_400(contact: str) -> None:
    w = Wire(PEER)
    w.receive(request("INVITE", ("Contact", contact), body=SDP))
    assert w.response().status == 400
    assert w.agent.calls == {}


@pytest.mark.parametrize("contact", ["*", "<tel:+4930>", ""])
def test_reinvite_whose_contact_is_nowhere_to_send_to_leaves_the_target(contact: str) -> None:
    w = Wire(PEER)
    w.receive(request("INVITE", body=SDP))
    [arrived] = w.told(CallArrived)
    w.do(w.agent.answer(arrived.call, 16384, w.now))
    tag = w.response().to.tag or ""
    w.receive(request("ACK", to_tag=tag))
    w.receive(request("INVITE", ("Contact", contact), to_tag=tag, cseq=2, body=SDP))
    assert w.response().status == 200
    w.receive(request("ACK", to_tag=tag, cseq=2))
    w.do(w.agent.hang_up(arrived.call, w.now))
    assert str(w.request("BYE").uri) == f"sip:indoor@{REMOTE}:5060"


def test_registrar_that_answers_with_contact_star_grants_what_was_asked() -> None:
    w = Wire(AgentConfig(account=ACCOUNT))
    w.do(w.agent.start(w.now))
    w.answer(w.request("REGISTER"), 200, ("Contact", "*"))
    assert w.told(RegistrationChanged)[-1].expires == 300


def test_dialogs_are_found_by_both_tags_and_the_call_id_whoever_sends() -> None:
    """Tags are our secret, addresses are not: a phone may move, nobody can guess."""
    w = Wire(PEER)
    w.receive(request("INVITE", body=SDP))
    [arrived] = w.told(CallArrived)
    w.do(w.agent.answer(arrived.call, 16384, w.now))
    tag = w.response().to.tag or ""
    w.receive(request("ACK", to_tag=tag))
    for wrong in (
        {"to_tag": "guess"},
        {"to_tag": tag, "from_tag": "other"},
        {"to_tag": tag, "call_id": "other"},
    ):
        w.receive(request("BYE", cseq=2, **wrong))  # type: ignore[arg-type]
        assert w.response().status == 481
    assert arrived.call in w.agent.calls
    w.receive(request("BYE", cseq=2, to_tag=tag), udp("198.51.100.4"))
    assert w.response().status == 200


def test_forged_source_address_has_our_sound_sent_nowhere_and_can_type_no_code() -> None:
    """Return routability: only who received our 200 knows the tag that the ACK must carry."""
    w = Wire(PEER)
    w.receive(request("INVITE", body=SDP))
    [arrived] = w.told(CallArrived)
    w.do(w.agent.answer(arrived.call, 16384, w.now))
    tag = w.response().to.tag or ""
    w.receive(request("ACK", to_tag="guessed"))
    w.receive(request("INFO", to_tag="guessed", cseq=2, content_type=RELAY, body=b"Signal=5"))
    w.receive(request("UPDATE", to_tag="guessed", cseq=3, body=SDP))
    assert w.told(MediaChanged) == w.told(InfoDigit) == []
    w.receive(request("ACK", to_tag=tag))
    [changed] = w.told(MediaChanged)
    assert changed.session.remote == (REMOTE, 4000)


# -- credentials

SECRET = replace(ACCOUNT, password="secret")
STRANGER = "198.51.100.9"


def registered() -> Wire:
    w = Wire(AgentConfig(account=SECRET, peers=PEER.peers), zone={})
    w.do(w.agent.start(w.now))
    challenge = ("WWW-Authenticate", 'Digest realm="pbx", nonce="n1", qop="auth"')
    w.answer(w.request("REGISTER"), 401, challenge)
    register = w.request("REGISTER")
    assert "Authorization" in register.headers
    w.answer(register, 200, ("Contact", f"{register.contacts[0]};expires=300"))
    w.sent()
    return w


CHALLENGES = (
    (401, "WWW-Authenticate", 'Digest realm="pbx", nonce="evil", qop="auth"'),
    (407, "Proxy-Authenticate", 'Digest realm="pbx", nonce="evil", algorithm=MD5'),
)


def proof(message: Any) -> bool:
    return "Authorization" in message.headers or "Proxy-Authorization" in message.headers


@pytest.mark.parametrize(("status", "name", "challenge"), CHALLENGES)
def test_phone_called_directly_gets_no_answer_to_its_challenge(
    status: int, name: str, challenge: str
) -> None:
    w = registered()
    w.do(w.agent.place("g", (f"sip:phone@{STRANGER}",), 16384, w.now))
    invite = w.request("INVITE")
    assert not proof(invite)
    w.answer(invite, status, (name, challenge), flow=udp(STRANGER))
    assert [m.method for m in w.sent()] == ["ACK"]
    assert len(w.told(GroupFailed)) == 1
    _, outputs = w.agent.message(f"sip:phone@{STRANGER}", "hello", w.now)
    w.do(outputs)
    w.answer(w.request("MESSAGE"), status, (name, challenge), flow=udp(STRANGER))
    assert w.sent() == []


@pytest.mark.parametrize(("status", "name", "challenge"), CHALLENGES)
def test_target_of_a_redirection_gets_no_answer_to_its_challenge(
    status: int, name: str, challenge: str
) -> None:
    w = registered()
    w.do(w.agent.place("g", ("**9",), 16384, w.now))
    w.answer(w.request("INVITE"), 302, ("Contact", f"<sip:phone@{STRANGER}>"))
    invite = w.request("INVITE")
    assert not proof(invite)
    w.answer(invite, status, (name, challenge), flow=udp(STRANGER))
    assert [m.method for m in w.sent()] == ["ACK"]


@pytest.mark.parametrize(
    "where",
    [("Contact", f"<sip:phone@{STRANGER}>"), ("Record-Route", f"<sip:{STRANGER};lr>")],
)
def test_contact_or_record_route_elsewhere_gets_no_answer_to_its_challenge(
    where: tuple[str, str],
) -> None:
    w = registered()
    w.do(w.agent.place("g", ("**9",), 16384, w.now))
    w.answer(w.request("INVITE"), 200, where, body=SDP)
    [answered] = w.told(GroupAnswered)
    [(flow, ack)] = w.sent_with_flows()
    assert flow.remote[0] == STRANGER
    assert not proof(ack)
    w.do(w.agent.hang_up(answered.call, w.now))
    bye = w.request("BYE")
    assert not proof(bye)
    w.answer(bye, 407, ("Proxy-Authenticate", CHALLENGES[1][2]), flow=udp(STRANGER))
    assert w.sent() == []


# -- passwords of peers

PORTER = Peer("porter", SipUri(host="192.0.2.5"), password="right")
NONCE = re.compile(r'nonce="([^"]+)"')


def attempt(w: Wire, password: str, source: str, *, nonce: str = "") -> Any:
    """Ask for a nonce, unless there is one, and try a password; the answer, or None: let in."""
    count = next(_COUNT)
    ask = partial(
        request, "INVITE", call_id=f"guess-{count}", from_uri="sip:porter@192.0.2.5", body=SDP
    )
    if not nonce:
        w.receive(ask(), udp(source))
        challenged = w.response()
        if challenged.status != 401:
            return challenged
        found = NONCE.search(challenged.headers.get("WWW-Authenticate") or "")
        assert found
        nonce = found[1]
    uri = f"sip:door@{LOCAL}"
    proof = digest_response(
        algorithm="MD5",
        username="porter",
        realm="doorstation",
        password=password,
        nonce=nonce,
        method="INVITE",
        uri=uri,
    )
    value = (
        f'Digest username="porter", realm="doorstation", nonce="{nonce}", uri="{uri}", '
        f'response="{proof}", algorithm=MD5'
    )
    w.receive(ask(("Authorization", value), cseq=2), udp(source))
    sent = w.sent()
    return sent[-1] if sent else None


_COUNT = count(1)


def test_guessing_a_peers_password_is_slowed_down_and_recorded() -> None:
    w = Wire(AgentConfig(peers=(PORTER,)))
    answers = [attempt(w, f"wrong-{n}", STRANGER).status for n in range(20)]
    assert answers == [401] * LIMIT + [403] * (20 - LIMIT)
    assert attempt(w, "right", STRANGER).status == 403
    rules = [refused.rule for refused in w.told(Refused)]
    assert rules[0] == "wrong-password"
    assert rules[-1] == "guessing-passwords"
    assert "wrong-1" not in repr(w.events)
    assert attempt(w, "right", "192.0.2.77") is None
    w.wait(LOCKED)
    w.sent()
    assert attempt(w, "wrong", STRANGER).status == 401


def test_guesses_from_ever_new_addresses_fill_no_table() -> None:
    guesses = Guesses()
    for number in range(2000):
        guesses.wrong(f"10.0.{number // 250}.{number % 250}", float(number))
        guesses.wrong(f"2001:db8::{number:x}", float(number))
    assert len(guesses) <= MAX_SOURCES
    assert guesses.locked("2001:db8::ffff:1", 2000.0)  # one /64 is one source


def test_nonce_fetched_at_one_address_is_no_good_at_another() -> None:
    """Else one could guess, or have a peer locked out, in the name of any address."""
    w = Wire(AgentConfig(peers=(PORTER,)))
    asked = request("INVITE", from_uri="sip:porter@192.0.2.5", body=SDP)
    w.receive(asked, udp(STRANGER))
    found = NONCE.search(w.response().headers.get("WWW-Authenticate") or "")
    assert found
    for _ in range(2 * LIMIT):
        answer = attempt(w, "wrong", "192.0.2.5", nonce=found[1])
        assert answer.status == 401
        assert "stale=true" in (answer.headers.get("WWW-Authenticate") or "")
    assert attempt(w, "right", "192.0.2.5") is None


def test_nonce_and_response_seen_on_the_way_are_good_once() -> None:
    w = Wire(AgentConfig(peers=(PORTER,)))
    w.receive(request("INVITE", from_uri="sip:porter@192.0.2.5", body=SDP), udp("192.0.2.5"))
    found = NONCE.search(w.response().headers.get("WWW-Authenticate") or "")
    assert found
    assert attempt(w, "right", "192.0.2.5", nonce=found[1]) is None
    assert attempt(w, "right", "192.0.2.5", nonce=found[1]).status == 401
    assert len(w.told(CallArrived)) == 1


def test_phone_called_directly_cannot_have_us_call_numbers_at_the_accounts_cost() -> None:
    w = registered()
    w.do(w.agent.place("g", (f"sip:phone@{STRANGER}",), 16384, w.now))
    moved = ("Contact", "<sip:0900123456@pbx.test>")
    w.answer(w.request("INVITE"), 302, moved, flow=udp(STRANGER))
    assert [m.method for m in w.sent()] == ["ACK"]
    assert len(w.told(GroupFailed)) == 1


def test_inside_calls_of_the_account_its_server_may_challenge() -> None:
    w = registered()
    w.do(w.agent.place("g", ("**9",), 16384, w.now))
    w.answer(w.request("INVITE"), 200, body=SDP)
    [answered] = w.told(GroupAnswered)
    w.sent()
    w.do(w.agent.hang_up(answered.call, w.now))
    w.answer(w.request("BYE"), 407, ("Proxy-Authenticate", CHALLENGES[1][2]))
    assert "Proxy-Authorization" in w.request("BYE").headers


def test_rfc_2543_caller_without_tags_is_one_call_and_can_hang_up() -> None:
    old = (("From", f"<sip:indoor@{REMOTE}>"), ("Via", f"SIP/2.0/UDP {REMOTE}:5060"))
    w = Wire(PEER)
    w.receive(request("INVITE", *old, body=SDP))
    [arrived] = w.told(CallArrived)
    w.do(w.agent.answer(arrived.call, 16384, w.now))
    tag = w.response().to.tag or ""
    w.receive(request("ACK", *old, to_tag=tag))
    w.wait(40)
    assert arrived.call in w.agent.calls
    w.receive(request("BYE", *old, to_tag=tag, cseq=2))
    assert w.response().status == 200
    assert w.agent.calls == {}


def test_rfc_2543_phone_that_answers_without_a_to_tag_is_a_call() -> None:
    w = Wire(PEER)
    w.do(w.agent.place("g", (f"sip:phone@{REMOTE}",), 16384, w.now))
    invite = w.request("INVITE")
    w.answer(invite, 180, tag="")
    w.answer(invite, 200, body=SDP, tag="")
    assert w.request("ACK").to.tag is None
    [answered] = w.told(GroupAnswered)
    w.receive(
        request(
            "BYE",
            ("From", f"<sip:phone@{REMOTE}>"),
            call_id=invite.call_id,
            to_tag=invite.from_.tag or "",
        )
    )
    assert w.response().status == 200
    assert answered.call not in w.agent.calls


@pytest.mark.parametrize("number", [0, 1, 2**31 - 1])
def test_any_legal_cseq_begins_a_call_and_goes_on_counting(number: int) -> None:
    w = Wire(PEER)
    w.receive(request("INVITE", cseq=number, body=SDP))
    [arrived] = w.told(CallArrived)
    w.do(w.agent.answer(arrived.call, 16384, w.now))
    tag = w.response().to.tag or ""
    w.receive(request("ACK", to_tag=tag, cseq=number))
    w.receive(request("OPTIONS", to_tag=tag, cseq=number))
    assert w.response().status == 200
    w.wait(40)
    assert arrived.call in w.agent.calls


def test_proxy_require_is_for_proxies() -> None:
    """RFC 3261 §20.29: not ours to refuse."""
    w = Wire(PEER)
    w.receive(request("INVITE", ("Proxy-Require", "sec-agree"), body=SDP))
    assert w.sent() == []
    assert len(w.told(CallArrived)) == 1


@pytest.mark.parametrize("user", ["door@", "anything@", "", "%00@", "a;b=c@"])
def test_call_in_is_taken_whatever_the_user_part(user: str) -> None:
    w = Wire(PEER)
    w.receive(request("INVITE", uri=f"sip:{user}{LOCAL}", body=SDP))
    assert len(w.told(CallArrived)) == 1
