"""MESSAGEs that are handed up: orders to the door, and lines that a typist sends."""

import pytest
from doorstation.sip.digest import Credential
from doorstation.sip.uri import SipUri
from doorstation.ua.config import Account, AgentConfig, Peer
from doorstation.ua.events import ContentReceived, MessageReceived, MessageResult
from doorstation.ua.inspect import ORDERS

from tests.support.wire import REMOTE, Wire, request, respond, udp

STRANGER = "203.0.113.5"
ACCOUNT = Account("door", "pbx.example", SipUri(host=REMOTE), password="secret")
REALM = "8e2b1c34.config"
CHALLENGE = (
    "WWW-Authenticate", f'Digest realm="{REALM}", nonce="n1", algorithm=SHA-256, qop="auth"'
)  # fmt: skip


def wire(**more: object) -> Wire:
    return Wire(
        AgentConfig(
            peers=(Peer("indoor", SipUri(user="indoor", host=REMOTE)),),
            contents=(ORDERS,),
            typists=frozenset({"caretaker"}),
            **more,  # type: ignore[arg-type]
        )
    )


def order(**more: object) -> bytes:
    return request("MESSAGE", body=b"a.b.c", content_type=ORDERS, **more)  # type: ignore[arg-type]


def received(w: Wire) -> ContentReceived:
    [event] = w.told(ContentReceived)
    assert isinstance(event, ContentReceived)
    return event


def test_order_is_handed_up_whoever_sends_it_and_whatever_the_call_in_policy_says() -> None:
    w = wire()
    w.receive(order(), udp(STRANGER))
    event = received(w)
    assert (event.request.body, event.flow.remote[0], event.by_account) == (
        b"a.b.c", STRANGER, False,
    )  # fmt: skip
    assert w.sent() == []


def test_without_commanders_an_order_is_a_content_that_is_not_understood() -> None:
    w = Wire(AgentConfig(peers=wire().agent.config.peers))
    w.receive(order())
    answer = w.response()
    assert (answer.status, answer.headers.get("Accept")) == (415, "text/plain")


@pytest.mark.parametrize(("user", "handed_up"), [("caretaker", True), ("indoor", False)])
def test_text_of_who_seems_to_be_a_typist_is_handed_up(user: str, handed_up: bool) -> None:
    w = wire()
    text = request(
        "MESSAGE", body=b"status", content_type="text/plain", from_uri=f"sip:{user}@{REMOTE}"
    )
    w.receive(text)
    assert len(w.told(ContentReceived)) == handed_up
    assert len(w.told(MessageReceived)) == (not handed_up)


def test_answer_without_state_lets_the_repeated_request_come_up_again() -> None:
    w = wire()
    message = order()
    for _ in range(2):
        w.receive(message, udp(STRANGER))
        challenge = ("WWW-Authenticate", 'Digest realm="x"')
        w.do(w.agent.answer_content(received(w), 401, w.now, headers=(challenge,), once=True))
        assert w.response().headers.get("WWW-Authenticate") == 'Digest realm="x"'


def test_answer_with_state_is_given_again_to_the_repeated_request() -> None:
    w = wire()
    message = order()
    w.receive(message)
    w.do(w.agent.answer_content(received(w), 409, w.now, body=b"the counter is at 7"))
    first = w.response()
    assert first.body == b"the counter is at 7"
    assert first.to.tag
    w.receive(message)
    assert w.response() == first
    assert w.told(ContentReceived) == []


def test_merged_order_is_refused() -> None:
    """RFC 3261 §8.2.2.2: by two ways from one commander; it shall happen once."""
    w = wire()
    w.receive(order(branch="one"))
    received(w)
    w.receive(order(branch="two"))
    assert w.response().status == 482


def test_reply_takes_the_way_that_the_order_came() -> None:
    w = wire()
    w.receive(order(from_uri="sip:office@192.0.2.77:5070"), udp(STRANGER, 5080))
    event = received(w)
    _, outputs = w.agent.reply(
        str(event.request.from_.uri), event.flow, "x.y.z", "application/x", w.now
    )
    w.do(outputs)
    [(flow, message)] = w.sent_with_flows()
    assert flow.remote == (STRANGER, 5080)
    assert (str(message.uri), message.content_type) == (
        "sip:office@192.0.2.77:5070",
        "application/x",
    )


def registered() -> Wire:
    w = wire(account=ACCOUNT)
    w.do(w.agent.start(w.now))
    register = w.request("REGISTER")
    w.answer(register, 200, ("Contact", f"{register.contacts[0]};expires=300"))
    w.sent()
    return w


@pytest.mark.parametrize("domain", ["pbx.example", "elsewhere.example"])
def test_reply_to_what_came_by_the_account_goes_by_the_account(domain: str) -> None:
    w = registered()
    w.receive(order(from_uri=f"sip:office@{domain}"))
    event = received(w)
    assert event.by_account
    _, outputs = w.agent.reply(str(event.request.from_.uri), None, "x", "text/plain", w.now)
    w.do(outputs)
    [(flow, message)] = w.sent_with_flows()
    assert flow.remote == (REMOTE, 5060)
    assert (message.from_.uri.user, message.from_.uri.host) == ("door", "pbx.example")


def test_what_is_proved_to_a_realm_is_shown_to_whoever_names_it() -> None:
    w = wire(proves=(Credential("office", "word", REALM),))
    _, outputs = w.agent.message(f"sip:door@{STRANGER}", "x", w.now)
    w.do(outputs)
    w.answer(w.request("MESSAGE"), 401, CHALLENGE, flow=udp(STRANGER))
    assert 'username="office"' in (w.request("MESSAGE").headers.get("Authorization") or "")


def test_account_password_is_not_what_another_realm_is_shown() -> None:
    w = wire(account=ACCOUNT, proves=(Credential("office", "word", REALM),))
    _, outputs = w.agent.message(f"sip:door@{STRANGER}", "x", w.now)
    w.do(outputs)
    other = ("WWW-Authenticate", 'Digest realm="pbx", nonce="n1", qop="auth"')
    w.answer(w.request("MESSAGE"), 401, other, flow=udp(STRANGER))
    assert w.sent() == []
    assert len(w.told(MessageResult)) == 1


def test_account_password_is_not_what_a_door_is_shown_that_is_not_meant() -> None:
    w = wire(account=ACCOUNT, proves=(Credential("office", "word", REALM),))
    w.do(w.agent.start(w.now))
    register = w.request("REGISTER")
    w.answer(register, 200, ("Contact", f"{register.contacts[0]};expires=300"))
    w.sent()
    _, outputs = w.agent.message("sip:other@pbx.example", "x", w.now)
    w.do(outputs)
    realm = "8e2b1c34-0000-4000-8000-b827eb010203.config"
    other = ("WWW-Authenticate", f'Digest realm="{realm}", nonce="n1", qop="auth"')
    w.answer(w.request("MESSAGE"), 401, other)
    assert w.sent() == []
    [result] = w.told(MessageResult)
    assert (result.status, result.realms) == (401, (realm,))


def test_both_are_proved_where_the_way_leads_by_the_account() -> None:
    w = wire(account=ACCOUNT, proves=(Credential("office", "word", REALM),))
    w.do(w.agent.start(w.now))
    register = w.request("REGISTER")
    w.answer(register, 200, ("Contact", f"{register.contacts[0]};expires=300"))
    w.sent()
    _, outputs = w.agent.message("sip:other@pbx.example", "x", w.now)
    w.do(outputs)
    proxy = ("Proxy-Authenticate", 'Digest realm="pbx", nonce="n1", qop="auth"')
    w.answer(w.request("MESSAGE"), 407, proxy)
    w.answer(w.request("MESSAGE"), 401, CHALLENGE)
    last = w.request("MESSAGE")
    assert 'username="door"' in (last.headers.get("Proxy-Authorization") or "")
    assert 'username="office"' in (last.headers.get("Authorization") or "")


def test_why_it_was_refused_is_what_the_body_says() -> None:
    w = wire()
    _, outputs = w.agent.message(f"sip:indoor@{REMOTE}", "x", w.now)
    w.do(outputs)
    refusal = respond(w.request("MESSAGE"), 409, ("Content-Type", "text/plain"))
    refusal.body = b"the counter is at 7"
    w.receive(refusal)
    [result] = w.told(MessageResult)
    assert (result.status, result.why) == (409, "the counter is at 7")
