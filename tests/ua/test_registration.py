"""Registration (RFC 3261 §10) as the registrars of homes and offices really behave."""

from dataclasses import replace

import pytest
from doorstation.sip.digest import Credential
from doorstation.sip.transport import AddressRecord, DnsAnswer, SrvRecord, Target, Transport
from doorstation.sip.uri import SipUri
from doorstation.ua.config import Account, AgentConfig
from doorstation.ua.events import RegistrationChanged, RegistrationState

from tests.support.wire import LOCAL, REMOTE, Wire, udp

ACCOUNT = Account(
    user="door",
    domain="fritz.box",
    registrar=SipUri(host=REMOTE),
    password="secret",
    expires=300,
    keep_alive=0,
)
CHALLENGE = ("WWW-Authenticate", 'Digest realm="fritz.box", nonce="abc", qop="auth"')


def wire(account: Account = ACCOUNT, **more: object) -> Wire:
    return Wire(AgentConfig(account=account), **more)  # type: ignore[arg-type]


def started(account: Account = ACCOUNT, **more: object) -> Wire:
    w = wire(account, **more)
    return w.do(w.agent.start(w.now))


def ok(w: Wire, expires: str = "300") -> Wire:
    request = w.request("REGISTER")
    contact = request.headers.get("Contact")
    return w.answer(request, 200, ("Contact", f"{contact};expires={expires}"))


def states(w: Wire) -> list[RegistrationState]:
    return [event.state for event in w.told(RegistrationChanged)]


def test_request_uri_is_the_bare_registrar() -> None:
    """1: a user part there makes a FRITZ!Box silent, and RFC 3261 §10.2 forbids it."""
    request = started().request("REGISTER")
    assert str(request.uri) == f"sip:{REMOTE}"
    assert str(request.to.uri) == "sip:door@fritz.box"


def test_contact_is_plain_unless_the_doors_name_is_wanted_in_it() -> None:
    """8."""
    plain = started().request("REGISTER")
    assert "instance" not in (plain.headers.get("Contact") or "")
    urn = "urn:uuid:8e2b1c34-0000-4000-8000-b827eb010203"
    named = started(replace(ACCOUNT, instance=urn)).request("REGISTER")
    assert (named.headers.get("Contact") or "").endswith(f'>;+sip.instance="<{urn}>"')
    assert named.headers.get("Supported") == "path, gruu"


def test_a_registrar_behind_an_edge_proxy_hears_that_path_is_known() -> None:
    """RFC 3327 §5.1: Kamailio and OpenSIPS otherwise refuse the registration with 420."""
    assert started().request("REGISTER").headers.get("Supported") == "path"


def test_challenge_gets_a_new_branch_and_a_higher_cseq_with_call_id_and_tag_kept() -> None:
    """2."""
    w = started()
    first = w.request("REGISTER")
    w.answer(first, 401, CHALLENGE)
    second = w.request("REGISTER")
    assert second.cseq.number == first.cseq.number + 1
    assert second.top_via.branch != first.top_via.branch
    assert (second.call_id, second.from_.tag) == (first.call_id, first.from_.tag)
    assert 'username="door"' in (second.headers.get("Authorization") or "")


def test_a_silent_registrar_is_asked_for_64_t1_before_it_counts_as_dead() -> None:
    """3."""
    w = started()
    w.wait(31.9)
    assert len([m for m in w.sent() if m.method == "REGISTER"]) == 11
    assert RegistrationState.RETRYING not in states(w)
    w.wait(0.2)
    assert states(w) == [RegistrationState.RETRYING]


def test_nonce_is_used_again_with_rising_nc() -> None:
    """4."""
    w = started()
    w.answer(w.request("REGISTER"), 401, CHALLENGE)
    ok(w)
    w.until_sent(290)
    refresh = w.request("REGISTER")
    assert "nc=00000002" in (refresh.headers.get("Authorization") or "")


def test_nonce_that_the_registrar_names_for_the_next_request_is_used_for_it() -> None:
    w = started()
    w.answer(w.request("REGISTER"), 401, CHALLENGE)
    w.answer(w.request("REGISTER"), 200, ("Authentication-Info", 'nextnonce="def"'))
    credentials = w.until_sent(290).request("REGISTER").headers.get("Authorization") or ""
    assert 'nonce="def"' in credentials
    assert "nc=00000001" in credentials


def test_stale_nonce_is_answered_quietly() -> None:
    """4."""
    w = started()
    w.answer(w.request("REGISTER"), 401, CHALLENGE)
    ok(w)
    w.until_sent(290)
    stale = ("WWW-Authenticate", 'Digest realm="fritz.box", nonce="new", qop="auth", stale=true')
    w.answer(w.request("REGISTER"), 401, stale)
    ok(w)
    assert states(w) == [RegistrationState.REGISTERING, RegistrationState.REGISTERED]


def test_changed_nonce_without_stale_is_answered_quietly() -> None:
    """4: Asterisk."""
    w = started()
    w.answer(w.request("REGISTER"), 401, CHALLENGE)
    ok(w)
    w.until_sent(290)
    w.answer(
        w.request("REGISTER"),
        401,
        ("WWW-Authenticate", 'Digest realm="fritz.box", nonce="new", qop="auth"'),
    )
    ok(w)
    assert states(w) == [RegistrationState.REGISTERING, RegistrationState.REGISTERED]


def test_423_raises_the_interval_to_min_expires() -> None:
    """5."""
    w = started()
    w.answer(w.request("REGISTER"), 423, ("Min-Expires", "900"))
    assert w.request("REGISTER").expires == 900


def test_423_without_a_usable_min_expires_is_no_loop() -> None:
    w = started()
    w.answer(w.request("REGISTER"), 423, ("Min-Expires", "10"))
    assert w.sent() == []
    assert RegistrationState.RETRYING in states(w)


def test_srv_is_asked_before_addresses_and_a_domain_without_a_record_works() -> None:
    """6."""
    zone = {
        ("SRV", "_sip._udp.example.test"): DnsAnswer(
            (SrvRecord(1, 1, 5070, "sip1.example.test"),), 60
        ),
        ("A", "sip1.example.test"): DnsAnswer((AddressRecord("192.0.2.77"),), 60),
    }
    account = replace(ACCOUNT, domain="example.test", registrar=SipUri(host="example.test"))
    w = started(account, zone=zone)
    [(flow, _)] = w.sent_with_flows()
    assert flow.remote == ("192.0.2.77", 5070)


def test_domain_registrar_proxy_user_and_auth_user_are_five_settings() -> None:
    """7."""
    account = Account(
        user="100",
        auth_user="login-100",
        password="secret",
        domain="office.example",
        registrar=SipUri(host="192.0.2.5"),
        outbound_proxy=SipUri(host="192.0.2.6", port=5065),
        keep_alive=0,
    )
    w = started(account)
    [(flow, request)] = w.sent_with_flows()
    assert flow.remote == ("192.0.2.6", 5065)
    assert str(request.uri) == "sip:192.0.2.5"
    assert str(request.to.uri) == "sip:100@office.example"
    w.answer(request, 407, ("Proxy-Authenticate", 'Digest realm="3CXPhoneSystem", nonce="n"'))
    again = w.request("REGISTER")
    assert 'username="login-100"' in (again.headers.get("Proxy-Authorization") or "")


def test_contact_is_plain_and_its_user_is_the_account() -> None:
    """8: no ob, no reg-id, no sip.instance unless asked."""
    request = started().request("REGISTER")
    assert request.headers.get("Contact") == f"<sip:door@{LOCAL}:5060>"


def test_contact_and_via_carry_the_port_listened_on() -> None:
    """9."""
    request = started().request("REGISTER")
    assert request.top_via.sent_by == (LOCAL, 5060)
    contact = request.contacts[0].uri
    assert isinstance(contact, SipUri)
    assert contact.port == 5060


def test_learned_address_is_registered_and_the_first_binding_taken_back() -> None:
    """9: `received` and `rport` of the 200 differ from what Contact said."""
    w = started()
    request = w.request("REGISTER")
    via = (request.headers.get("Via") or "").replace(";rport", ";rport=61000;received=203.0.113.9")
    request.headers.set("Via", via)
    w.answer(request, 200, ("Contact", f"{request.headers.get('Contact')};expires=300"))
    removed = w.request("REGISTER")  # alone: RFC 3261 §10.2 has the next one wait for its answer
    assert (removed.expires, removed.headers.get("Contact")) == (0, f"<sip:door@{LOCAL}:5060>")
    w.answer(removed, 200)
    bound = w.request("REGISTER")
    assert bound.headers.get("Contact") == "<sip:door@203.0.113.9:61000>"
    assert bound.expires == 300


def test_binding_taken_back_without_an_answer_is_no_end_of_trying() -> None:
    w = started()
    request = w.request("REGISTER")
    via = (request.headers.get("Via") or "").replace(";rport", ";rport=61000;received=203.0.113.9")
    request.headers.set("Via", via)
    w.answer(request, 200, ("Contact", f"{request.headers.get('Contact')};expires=300"))
    w.wait(32)
    assert {m.expires for m in w.sent()} == {0}
    w.until_sent(10)
    request = w.request("REGISTER")
    assert request.headers.get("Contact") == "<sip:door@203.0.113.9:61000>"
    assert request.expires == 300


def test_registers_again_when_the_learned_port_changes() -> None:
    """9: the router forgot us and chose another port."""
    w = started()
    ok(w)
    w.until_sent(290)
    request = w.request("REGISTER")
    request.headers.set("Via", (request.headers.get("Via") or "").replace(";rport", ";rport=7777"))
    w.answer(request, 200, ("Contact", f"{request.headers.get('Contact')};expires=300"))
    w.answer(w.request("REGISTER"), 200)
    assert w.request("REGISTER").headers.get("Contact") == f"<sip:door@{LOCAL}:7777>"


def test_a_router_with_a_new_port_for_each_request_is_no_loop() -> None:
    w = started()
    port = 50000
    rounds = 0
    while found := [m for m in w.sent() if m.method == "REGISTER"]:
        for message in found:
            port += 1
            via = (message.headers.get("Via") or "").replace(";rport", f";rport={port}")
            message.headers.set("Via", via)
            w.answer(message, 200, ("Contact", f"{message.headers.get('Contact')};expires=300"))
        rounds += 1
        assert rounds < 10
    assert states(w)[-1] is RegistrationState.REGISTERED


def test_an_own_binding_left_out_of_the_200_falls_back_to_expires() -> None:
    """chan_sip leaves Contact out."""
    w = started()
    w.answer(w.request("REGISTER"), 200, ("Expires", "100"))
    [_, changed] = w.told(RegistrationChanged)
    assert changed.expires == 100
    w.until_sent(95)
    assert len(w.sent()) == 1


def test_a_binding_rewritten_on_the_way_still_says_how_long_it_lasts() -> None:
    """Else we would be bound for a minute in every five."""
    w = started()
    rewritten = ("Contact", "<sip:door@198.51.100.7:61000>;expires=60")
    w.answer(w.request("REGISTER"), 200, rewritten)
    assert w.told(RegistrationChanged)[-1].expires == 60


def test_neither_contact_nor_expires_falls_back_to_what_was_asked() -> None:
    w = started()
    w.answer(w.request("REGISTER"), 200)
    assert w.told(RegistrationChanged)[-1].expires == 300


def test_our_own_contact_decides_among_all_bindings() -> None:
    w = started()
    request = w.request("REGISTER")
    others = f"<sip:door@10.0.0.9>;expires=9, {request.headers.get('Contact')};expires=120"
    w.answer(request, 200, ("Contact", others))
    changed = w.told(RegistrationChanged)[-1]
    assert (changed.expires, changed.contacts) == (120, 2)


@pytest.mark.parametrize(
    "contact",
    [
        "<sip:bob@[fe80::1%25eth0]:5060>;expires=9",
        "<sip:bob smith@10.0.0.9>",
        'bob, the "first <sip:bob@10.0.0.9>',
    ],
)
def test_binding_of_another_device_that_cannot_be_read_is_passed_over(contact: str) -> None:
    """Else the 200 would be dropped, and the door never registered beside that device."""
    for theirs_first in (True, False):
        w = started()
        request = w.request("REGISTER")
        ours = ("Contact", f"{request.headers.get('Contact')};expires=120")
        both = (("Contact", contact), ours) if theirs_first else (ours, ("Contact", contact))
        w.answer(request, 200, *both)
        changed = w.told(RegistrationChanged)[-1]
        assert (changed.state, changed.expires) == (RegistrationState.REGISTERED, 120)


def test_refresh_comes_before_expiry_with_jitter() -> None:
    times = []
    for seed in range(5):
        w = ok(started(seed=seed))
        assert w.agent.registration is not None
        start = w.now
        while not w.sent():
            w.wait(1)
        times.append(w.now - start)
    assert all(240 <= t <= 271 for t in times)
    assert len(set(times)) > 1


def test_who_asks_for_a_registration_hears_how_it_ends_also_if_nothing_changes() -> None:
    w = ok(started())
    states(w)
    w.do(w.agent.register(w.now))
    assert states(w) == []
    ok(w, "200")
    [told] = w.told(RegistrationChanged)
    assert (told.state, told.expires) == (RegistrationState.REGISTERED, 200)
    ok(w.until_sent(190))
    assert states(w) == [], "a refresh is no news"


def test_wrong_password_ends_after_one_retry_and_says_so() -> None:
    """No loop of challenges."""
    w = started()
    rounds = 0
    while sent := w.sent():
        rounds += 1
        nonce = f'Digest realm="fritz.box", nonce="n{rounds}", qop="auth"'
        w.answer(sent[0], 401, ("WWW-Authenticate", nonce))
    assert rounds <= 3
    refused = w.told(RegistrationChanged)[-1]
    assert refused.state is RegistrationState.REFUSED
    assert "password" in refused.why


def test_realm_need_not_be_the_domain() -> None:
    w = started()
    w.answer(w.request("REGISTER"), 401, ("WWW-Authenticate", 'Digest realm="asterisk", nonce="x"'))
    assert 'realm="asterisk"' in (w.request("REGISTER").headers.get("Authorization") or "")


def test_the_strongest_of_several_challenges_is_answered() -> None:
    """SHA-256 first, then MD5, each in a header of its own."""
    w = started()
    w.answer(
        w.request("REGISTER"),
        401,
        ("WWW-Authenticate", 'Digest realm="a", nonce="x", algorithm=SHA-256, qop="auth"'),
        ("WWW-Authenticate", 'Digest realm="a", nonce="x", algorithm=MD5, qop="auth"'),
    )
    assert "SHA-256" in (w.request("REGISTER").headers.get("Authorization") or "")


def test_401_and_407_in_turn_are_both_answered() -> None:
    w = started()
    w.answer(w.request("REGISTER"), 407, ("Proxy-Authenticate", 'Digest realm="p", nonce="1"'))
    w.answer(w.request("REGISTER"), 401, ("WWW-Authenticate", 'Digest realm="r", nonce="2"'))
    third = w.request("REGISTER")
    assert "Authorization" in third.headers
    assert "Proxy-Authorization" in third.headers


def test_registration_retries_never_stop() -> None:
    """15: a day of a dead registrar, then it is back."""
    w = started()
    w.wait(86400)
    attempts = {m.top_via.branch for m in w.sent() if m.method == "REGISTER"}
    assert len(attempts) > 86400 / 160
    w.until_sent(160)
    w.answer(w.sent()[-1], 200)
    assert states(w)[-1] is RegistrationState.REGISTERED


def test_back_off_doubles_up_to_its_limit() -> None:
    waits: list[float] = []
    w = wire()
    w.refused.add(REMOTE)
    w.do(w.agent.start(w.now))
    for _ in range(8):
        registration = w.agent.registration
        assert registration is not None
        assert registration.deadline is not None
        waits.append(registration.deadline - w.now)
        w.wait(waits[-1])
    assert waits[0] <= 4
    assert all(60 <= wait <= 120 for wait in waits[-2:])


def test_send_error_is_tried_again() -> None:
    """15: no network at all at start."""
    w = wire()
    w.refused.add(REMOTE)
    w.do(w.agent.start(w.now))
    assert states(w)[-1] is RegistrationState.RETRYING
    w.refused.clear()
    # The address that failed is also remembered below, for a while (RFC 3263 §4.3).
    w.until_sent(120)
    ok(w)
    assert states(w)[-1] is RegistrationState.REGISTERED


def test_network_change_registers_at_once() -> None:
    """15: link down, address change."""
    w = ok(started())
    w.wait(10)
    w.change_network()
    assert w.request("REGISTER").expires == 300


def test_lost_connection_registers_again_within_a_second() -> None:
    """15: router restart over TCP."""
    account = replace(ACCOUNT, registrar=SipUri(host=REMOTE, params=(("transport", "tcp"),)))
    w = started(account)
    [(flow, request)] = w.sent_with_flows()
    w.answer(request, 200, flow=flow)
    w.do(w.agent.flow_closed(flow, "reset by peer", w.now))
    w.wait(1)
    [(again, _)] = w.sent_with_flows()
    assert again.id != flow.id


def test_keep_alive_that_nobody_answers_registers_again() -> None:
    """15: the router restarted and forgot us; found within a minute, not at the next refresh."""
    w = ok(started(replace(ACCOUNT, keep_alive=30)))
    w.wait(70)
    methods = [m.method for m in w.sent()]
    assert "OPTIONS" in methods
    assert methods[-1] == "REGISTER"


def test_keep_alive_shows_that_a_router_forgot_our_port() -> None:
    """9: found within half a minute, not at the next refresh."""
    w = ok(started(replace(ACCOUNT, keep_alive=30)))
    options = w.until_sent(34).request("OPTIONS")
    options.headers.set("Via", (options.headers.get("Via") or "").replace(";rport", ";rport=7777"))
    w.answer(options, 200)
    register = w.request("REGISTER")
    assert register.headers.get("Contact") == f"<sip:door@{LOCAL}:7777>"


def test_keep_alive_through_a_router_with_a_new_port_for_each_request_is_no_loop() -> None:
    w = started(replace(ACCOUNT, keep_alive=30))
    registers = set()
    for port in range(50000, 50100):
        for message in w.sent():
            if message.method == "REGISTER":
                registers.add(message.cseq.number)
            via = (message.headers.get("Via") or "").replace(";rport", f";rport={port}")
            message.headers.set("Via", via)
            contact = ("Contact", f"{message.headers.get('Contact')};expires=3600")
            w.answer(message, 200, *((contact,) if message.method == "REGISTER" else ()))
        w.wait(10)
    assert len(registers) < 10


def test_keep_alive_from_before_a_network_change_says_nothing_of_what_is_bound_since() -> None:
    w = ok(started(replace(ACCOUNT, keep_alive=30)))
    old = w.until_sent(34).request("OPTIONS").call_id
    w.change_network()
    ok(w)
    states(w)
    for _ in range(8):
        w.wait(5)
        for message in w.sent():
            if message.call_id != old:
                w.answer(message, 200)
    assert states(w) == []


def test_any_answer_to_the_keep_alive_proves_the_registrar() -> None:
    w = ok(started(replace(ACCOUNT, keep_alive=30)))
    for _ in range(5):
        w.wait(34)
        for message in w.sent():
            if message.method == "OPTIONS":
                w.answer(message, 404)
    assert states(w)[-1] is RegistrationState.REGISTERED


def test_back_up_registrar_takes_over_and_the_first_is_asked_again() -> None:
    w = wire(replace(ACCOUNT, backup_registrars=(SipUri(host="192.0.2.2"),)))
    w.refused.add(REMOTE)
    w.do(w.agent.start(w.now))
    [(flow, request)] = w.sent_with_flows()
    assert flow.remote[0] == "192.0.2.2"
    w.answer(request, 200, flow=flow)
    assert states(w)[-1] is RegistrationState.REGISTERED
    w.refused.clear()
    w.until_sent(290)
    [(flow, request)] = w.sent_with_flows()
    assert flow.remote[0] == REMOTE


def test_servers_that_the_network_offers_are_tried_in_their_order() -> None:
    servers = tuple(SipUri(host=host) for host in ("192.0.2.2", "192.0.2.3"))
    w = wire(replace(ACCOUNT, backup_registrars=servers))
    w.refused |= {REMOTE, "192.0.2.2"}
    w.do(w.agent.start(w.now))
    [(flow, request)] = w.sent_with_flows()
    assert flow.remote[0] == "192.0.2.3"
    w.answer(request, 200, flow=flow)
    assert states(w)[-1] is RegistrationState.REGISTERED


def test_stop_takes_the_binding_back() -> None:
    w = ok(started())
    w.do(w.agent.stop(w.now))
    request = w.request("REGISTER")
    assert request.expires == 0
    assert request.headers.get("Contact") == f"<sip:door@{LOCAL}:5060>"
    assert not w.agent.idle
    w.answer(request, 200)
    assert w.agent.idle


def test_retry_after_of_a_503_is_kept() -> None:
    w = started()
    w.answer(w.request("REGISTER"), 503, ("Retry-After", "60"))
    w.wait(59)
    assert w.sent() == []
    w.until_sent(2)
    w.request("REGISTER")


def test_password_is_in_no_event_and_no_repr() -> None:
    w = ok(started())
    assert "secret" not in repr(w.events)
    assert "secret" not in repr(w.agent.config)
    assert "secret" not in repr(Credential("door", "secret"))


def test_ipv6_registrar_with_brackets_in_received() -> None:
    """`received=[fd00::5]` in Via."""
    w = started(replace(ACCOUNT, registrar=SipUri(host="fd00::1")))
    [(flow, request)] = w.sent_with_flows()
    via = (request.headers.get("Via") or "").replace(";rport", ";rport=5060;received=[fd00::5]")
    request.headers.set("Via", via)
    w.answer(request, 200, flow=flow)
    w.answer(w.request("REGISTER"), 200, flow=flow)
    assert w.request("REGISTER").headers.get("Contact") == "<sip:door@[fd00::5]:5060>"


def test_udp_flow_is_the_one_of_the_registration() -> None:
    w = ok(started())
    assert w.agent.registration is not None
    assert w.agent.registration.flow == udp()


def test_stop_while_a_register_is_under_way_takes_back_what_it_bound() -> None:
    """RFC 3261 §10.2: one at a time; nothing stays bound that nobody listens for."""
    w = started()
    first = w.request("REGISTER")
    w.do(w.agent.unregister(w.now))
    assert w.sent() == []
    assert not w.agent.idle
    w.answer(first, 200, ("Contact", f"{first.headers.get('Contact')};expires=300"))
    last = w.request("REGISTER")
    assert (last.expires, last.headers.get("Contact")) == (0, first.headers.get("Contact"))
    w.answer(last, 200)
    assert w.agent.idle
    assert states(w)[-1] is RegistrationState.OFF


def test_start_while_unregistering_registers_after_its_answer() -> None:
    w = ok(started())
    w.do(w.agent.unregister(w.now))
    leaving = w.request("REGISTER")
    w.do(w.agent.register(w.now))
    assert w.sent() == []
    w.answer(leaving, 200)
    assert states(w)[-1] is RegistrationState.REGISTERING
    coming = w.request("REGISTER")
    assert (coming.expires, coming.cseq.number) == (300, leaving.cseq.number + 1)
    w.answer(coming, 200)
    assert states(w)[-1] is RegistrationState.REGISTERED


def test_stop_with_a_silent_registrar_is_idle_after_64_t1() -> None:
    w = started()
    w.do(w.agent.stop(w.now))
    w.wait(33)
    assert w.agent.idle
    assert w.agent.deadline is None or w.agent.deadline > w.now


def test_network_change_while_a_register_is_under_way_asks_anew_and_ignores_the_old_answer() -> (
    None
):
    w = started()
    old = w.request("REGISTER")
    w.change_network()
    new = w.request("REGISTER")
    assert new.cseq.number > old.cseq.number
    w.answer(old, 403)
    assert RegistrationState.REFUSED not in states(w)
    w.answer(new, 200)
    assert states(w)[-1] is RegistrationState.REGISTERED


def test_binding_of_the_address_before_is_taken_back_where_the_registrar_kept_it() -> None:
    w = ok(started())
    w.local = "192.0.2.77"
    w.change_network()
    moved = w.request("REGISTER")
    old, new = f"<sip:door@{LOCAL}:5060>", moved.headers.get("Contact")
    assert new == "<sip:door@192.0.2.77:5060>"
    w.answer(moved, 200, ("Contact", f"{old};expires=200, {new};expires=300"))
    back = w.request("REGISTER")
    assert (back.expires, back.headers.get("Contact")) == (0, old)
    assert states(w)[-1] is RegistrationState.REGISTERED


def test_423_that_rises_for_ever_is_no_loop() -> None:
    w = started()
    for interval in range(301, 400):
        found = w.sent()
        if not found:
            break
        w.answer(found[0], 423, ("Min-Expires", str(interval)))
    assert interval < 310
    assert states(w)[-1] is RegistrationState.RETRYING


def test_redirected_registration_comes_back_to_the_registrar_of_the_settings() -> None:
    """RFC 3261 §8.1.3.4: a 3xx is about this request, not for ever."""
    w = started()
    w.answer(w.request("REGISTER"), 302, ("Contact", "<sip:192.0.2.9?Subject=x>"))
    [(flow, moved)] = w.sent_with_flows()
    assert (flow.remote[0], str(moved.uri)) == ("192.0.2.9", "sip:192.0.2.9")
    w.answer(moved, 200, flow=flow)
    assert states(w)[-1] is RegistrationState.REGISTERED
    w.until_sent(290)
    [(flow, refresh)] = w.sent_with_flows()
    w.answer(refresh, 503, flow=flow)
    w.until_sent(10)
    [(flow, _)] = w.sent_with_flows()
    assert flow.remote[0] == REMOTE


def test_servers_of_one_domain_take_over_from_each_other_and_back() -> None:
    """RFC 3263 §4.3 within and across requests."""
    zone = {
        ("SRV", "_sip._udp.pbx.test"): DnsAnswer(
            (SrvRecord(1, 0, 5060, "a.pbx.test"), SrvRecord(2, 0, 5060, "b.pbx.test")), 300
        ),
        ("A", "a.pbx.test"): DnsAnswer((AddressRecord(REMOTE),), 300),
        ("A", "b.pbx.test"): DnsAnswer((AddressRecord("192.0.2.2"),), 300),
    }
    w = started(replace(ACCOUNT, registrar=SipUri(host="pbx.test")), zone=zone)

    def answering() -> str:
        """Who answers next, with 200; the others say 503."""
        for _ in range(20):
            for flow, request in w.sent_with_flows():
                host = str(flow.remote[0])
                w.answer(request, 503 if host in dead else 200, flow=flow)
                if host not in dead:
                    return host
            w.until_sent(300)
        raise AssertionError("nobody")

    dead: set[str] = set()
    assert answering() == REMOTE
    dead = {REMOTE}
    assert answering() == "192.0.2.2"
    assert answering() == "192.0.2.2"
    dead = {"192.0.2.2"}
    assert answering() == REMOTE


def test_address_learned_over_tcp_keeps_the_port_listened_on() -> None:
    """9, RFC 3581: a connection's source port is nobody's to call."""
    account = replace(ACCOUNT, registrar=SipUri(host=REMOTE, params=(("transport", "tcp"),)))
    w = started(account)
    for _ in range(3):
        for flow, request in w.sent_with_flows():
            via = (request.headers.get("Via") or "").replace(
                ";rport", ";rport=51000;received=198.51.100.7"
            )
            request.headers.set("Via", via)
            w.answer(request, 200, flow=flow)
            last = request
    assert last.headers.get("Contact") == "<sip:door@198.51.100.7:5060;transport=tcp>"
    assert states(w)[-1] is RegistrationState.REGISTERED


def test_ipv6_is_bracketed_in_contact_and_via() -> None:
    w = wire(replace(ACCOUNT, registrar=SipUri(host="2001:db8::1")))
    w.local = "2001:db8::2"
    w.do(w.agent.start(w.now))
    register = w.request("REGISTER")
    assert str(register.uri) == "sip:[2001:db8::1]"
    assert register.headers.get("Contact") == "<sip:door@[2001:db8::2]:5060>"
    assert (register.headers.get("Via") or "").startswith("SIP/2.0/UDP [2001:db8::2]:5060;")


def test_tls_certificate_must_prove_the_domain_not_the_server_behind_it() -> None:
    """6, RFC 5922."""
    zone = {
        ("SRV", "_sips._tcp.pbx.test"): DnsAnswer((SrvRecord(1, 0, 5061, "x.cloud.test"),), 300),
        ("A", "x.cloud.test"): DnsAnswer((AddressRecord("192.0.2.9"),), 300),
    }
    tls = SipUri(host="pbx.test", params=(("transport", "tls"),))
    w = wire(replace(ACCOUNT, registrar=tls), zone=zone)
    w.do(w.agent.start(w.now))
    assert w.opened == [Target(Transport.TLS, "192.0.2.9", 5061, "pbx.test")]
    assert w.request("REGISTER").headers.get("Contact") == (
        f"<sip:door@{LOCAL}:5061;transport=tls>"
    )
