"""Digest authentication, client and server (RFC 7616, 8760, 2617)."""

import pytest
from doorstation.ids import SeededIds
from doorstation.sip.digest import (
    MAX_NONCES,
    MAX_ROUNDS,
    MAX_SPACES,
    NONCE_SECONDS,
    Credential,
    DigestClient,
    DigestServer,
    digest_response,
)
from doorstation.sip.headers import Credentials, Headers, parse_challenge, parse_credentials
from doorstation.sip.message import Request, Response, make_response
from doorstation.sip.uri import SipUri

URI = SipUri(host="fritz.box")


def register(cseq: int = 1, call_id: str = "1@h", body: bytes = b"") -> Request:
    headers = Headers(
        [
            ("Via", "SIP/2.0/UDP h;branch=z9hG4bK1"),
            ("From", "<sip:620@fritz.box>;tag=1"),
            ("To", "<sip:620@fritz.box>"),
            ("Call-ID", call_id),
            ("CSeq", f"{cseq} REGISTER"),
        ]
    )
    return Request("REGISTER", URI, headers, body)


def challenged(*lines: str, status: int = 401, proxy: tuple[str, ...] = ()) -> Response:
    response = make_response(register(), status)
    for line in lines:
        response.headers.add("WWW-Authenticate", line)
    for line in proxy:
        response.headers.add("Proxy-Authenticate", line)
    return response


def client(*credentials: Credential) -> DigestClient:
    return DigestClient(credentials or (Credential("620", "secret"),), SeededIds(1))


def sent(request: Request | None, name: str = "Authorization") -> Credentials:
    assert request is not None
    (line,) = request.headers.get_all(name)
    return parse_credentials(line)


def expected(credentials: Credentials, method: str = "REGISTER", body: bytes = b"") -> str:
    def param(name: str) -> str:
        return credentials.param(name) or ""

    return digest_response(
        algorithm=param("algorithm"),
        username=param("username"),
        realm=param("realm"),
        password="secret",
        nonce=param("nonce"),
        method=method,
        uri=param("uri"),
        qop=param("qop"),
        nc=param("nc"),
        cnonce=param("cnonce"),
        body=body,
    )


# -- Vectors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_rfc_7616_section_3_9_1(algorithm: str, response: str) -> None:
    assert response == digest_response(
        algorithm=algorithm,
        username="Mufasa",
        realm="http-auth@example.org",
        password="Circle of Life",
        nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        method="GET",
        uri="/dir/index.html",
        qop="auth",
        nc="00000001",
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    )


def test_rfc_7616_section_3_9_2_as_corrected_by_erratum_4897() -> None:
    assert (
        digest_response(
            algorithm="SHA-512-256",
            username="J\u00e4s\u00f8n Doe",
            realm="api@example.org",
            password="Secret, or not?",
            nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
            method="GET",
            uri="/doe.json",
            qop="auth",
            nc="00000001",
            cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
        )
        == "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"
    )


@pytest.mark.parametrize(
    ("qop", "nc", "cnonce", "response"),
    [
        ("auth", "00000001", "0a4f113b", "6629fae49393a05397450978507c4ef1"),
        ("", "", "", "670fd8c2df070c60b045671b8b24ff02"),
    ],
)
def test_rfc_2617_section_3_5_and_without_qop(
    qop: str, nc: str, cnonce: str, response: str
) -> None:
    assert response == digest_response(
        algorithm="",
        username="Mufasa",
        realm="testrealm@host.com",
        password="Circle Of Life",
        nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093",
        method="GET",
        uri="/dir/index.html",
        qop=qop,
        nc=nc,
        cnonce=cnonce,
    )


# -- Client ----------------------------------------------------------------------------------------


def test_fritzbox_challenge_without_qop_and_algorithm() -> None:
    request = client().answer(register(), challenged('Digest realm="fritz.box", nonce="E8F0"'))
    credentials = sent(request)
    assert [name for name, _ in credentials.params] == [
        "username",
        "realm",
        "nonce",
        "uri",
        "response",
    ]
    assert credentials.param("uri") == "sip:fritz.box"
    assert credentials.param("response") == expected(credentials)


def test_asterisk_challenge_is_answered_with_all_it_asked() -> None:
    line = 'Digest realm="asterisk",nonce="1/ab==",opaque="0f",algorithm=MD5,qop="auth"'
    request = client().answer(register(), challenged(line))
    credentials = sent(request)
    assert credentials.param("opaque") == "0f"
    assert credentials.param("nc") == "00000001"
    assert credentials.param("response") == expected(credentials)
    assert request is not None
    text = request.headers.get("Authorization") or ""
    assert "algorithm=MD5, " in text
    assert "qop=auth, nc=00000001, " in text


def test_3cx_challenges_register_with_407() -> None:
    line = 'Digest nonce="414d", algorithm=MD5, realm="3CXPhoneSystem"'
    request = client(Credential("auth-id-7", "secret")).answer(
        register(), challenged(status=407, proxy=(line,))
    )
    credentials = sent(request, "Proxy-Authorization")
    assert credentials.param("username") == "auth-id-7"
    assert request is not None
    assert "Authorization" not in request.headers


def test_the_request_sent_stays_as_it_was() -> None:
    request = register()
    client().answer(request, challenged('Digest realm="r", nonce="1"'))
    assert "Authorization" not in request.headers


@pytest.mark.parametrize(
    "algorithms", [("SHA-256", "MD5"), ("MD5", "SHA-256"), ("MD5", "X-1", "SHA-256", "SHA-999")]
)
def test_strongest_supported_of_several_challenges_is_taken(algorithms: tuple[str, ...]) -> None:
    lines = [f'Digest realm="r", nonce="{name}", algorithm={name}' for name in algorithms]
    lines.insert(0, 'Basic realm="r"')
    lines.insert(1, "broken")
    credentials = sent(client().answer(register(), challenged(*lines)))
    assert credentials.param("algorithm") == credentials.param("nonce") == "SHA-256"
    assert credentials.param("response") == expected(credentials)


@pytest.mark.parametrize("base", ["MD5", "SHA-256", "SHA-512-256"])
@pytest.mark.parametrize("suffix", ["", "-sess"])
@pytest.mark.parametrize("qop", ["auth", "auth-int"])
def test_every_algorithm_and_qop_is_accepted_by_our_server(
    base: str, suffix: str, qop: str
) -> None:
    server = DigestServer("r", b"key", {"620": "secret"}, SeededIds(2))
    line = server.challenge(0.0)[0].replace("SHA-256", base + suffix).replace('"auth"', f'"{qop}"')
    request = client().answer(register(body=b"hello"), challenged(line))
    assert request is not None
    assert server.verify(request, 1.0).ok
    if qop == "auth-int":
        request.body = b"other"
        assert server.verify(request, 1.0).rule == "wrong password"


def test_auth_is_preferred_to_auth_int() -> None:
    line = 'Digest realm="r", nonce="1", qop="auth-int, auth"'
    assert sent(client().answer(register(), challenged(line))).param("qop") == "auth"


def test_unknown_qop_alone_is_given_up() -> None:
    ours = client()
    assert ours.answer(register(), challenged('Digest realm="r", nonce="1", qop="x"')) is None
    assert "qop" in ours.fault


@pytest.mark.parametrize(
    "lines", [(), ('Basic realm="r"',), ('Digest realm="r", nonce="1", algorithm=X',), ("?",)]
)
def test_nothing_supported_is_given_up(lines: tuple[str, ...]) -> None:
    ours = client()
    assert ours.answer(register(), challenged(*lines)) is None
    assert "supported" in ours.fault


def test_credential_of_the_realm_is_taken_before_the_one_for_any() -> None:
    ours = client(Credential("any", "x"), Credential("620", "secret", "fritz.box"))
    line = 'Digest realm="fritz.box", nonce="1"'
    assert sent(ours.answer(register(), challenged(line))).param("username") == "620"
    line = 'Digest realm="other", nonce="1"'
    assert sent(ours.answer(register(), challenged(line))).param("username") == "any"


def test_no_credential_for_the_realm_is_given_up() -> None:
    ours = client(Credential("620", "secret", "fritz.box"))
    assert ours.answer(register(), challenged('Digest realm="other", nonce="1"')) is None
    assert "'other'" in ours.fault


def test_401_and_407_at_once_are_both_answered() -> None:
    request = client().answer(
        register(),
        challenged('Digest realm="a", nonce="1"', proxy=('Digest realm="b", nonce="2"',)),
    )
    assert sent(request).param("realm") == "a"
    assert sent(request, "Proxy-Authorization").param("realm") == "b"


def test_two_proxies_of_different_realms_are_both_answered() -> None:
    request = client().answer(
        register(), challenged(proxy=('Digest realm="a", nonce="1"', 'Digest realm="b", nonce="2"'))
    )
    assert request is not None
    assert len(request.headers.get_all("Proxy-Authorization")) == 2


def test_401_behind_a_407_keeps_the_proxys_credentials_with_a_higher_count() -> None:
    ours = client()
    first = ours.answer(register(), challenged(proxy=('Digest realm="p", nonce="1", qop="auth"',)))
    assert first is not None
    second = ours.answer(first, challenged('Digest realm="r", nonce="2", qop="auth"'))
    assert sent(second).param("nc") == "00000001"
    proxy = sent(second, "Proxy-Authorization")
    assert proxy.param("nc") == "00000002"
    assert proxy.param("response") == expected(proxy)


def test_nonce_is_used_again_with_a_rising_count() -> None:
    ours = client()
    assert ours.preauthorize(register()) == register()
    ours.answer(register(), challenged('Digest realm="r", nonce="1", qop="auth"'))
    for count in ("00000002", "00000003"):
        credentials = sent(ours.preauthorize(register()))
        assert credentials.param("nc") == count
        assert credentials.param("response") == expected(credentials)


def accepted(*headers: tuple[str, str]) -> Response:
    response = make_response(register(), 200)
    for name, value in headers:
        response.headers.add(name, value)
    return response


def test_next_nonce_that_a_server_names_is_used_next() -> None:
    """RFC 7616 §3.5."""
    ours = client()
    request = ours.answer(register(), challenged('Digest realm="r", nonce="1", qop="auth"'))
    assert request is not None
    info = ("Authentication-Info", 'nextnonce="2", qop=auth, nc=00000001, rspauth="x"')
    for _ in range(2):  # a 200 may come again
        ours.accepted(request, accepted(info))
        credentials = sent(ours.preauthorize(register()))
        assert credentials.param("nonce") == "2"
        assert credentials.param("response") == expected(credentials)
    assert credentials.param("nc") == "00000002"


@pytest.mark.parametrize(
    ("algorithm", "name", "value", "server"),
    [
        ("MD5", "Authentication-Info", 'nextnonce=""', ""),
        ("MD5", "Authentication-Info", 'nextnonce="', ""),
        ("MD5", "Authentication-Info", "qop=auth", ""),
        ("MD5", "Proxy-Authentication-Info", 'nextnonce="2"', ""),
        ("MD5", "Authentication-Info", 'nextnonce="2"', "192.0.2.9"),
        ("MD5-sess", "Authentication-Info", 'nextnonce="2"', ""),
    ],
)
def test_next_nonce_counts_only_where_it_is_meant(
    algorithm: str, name: str, value: str, server: str
) -> None:
    ours = client()
    line = f'Digest realm="r", nonce="1", qop="auth", algorithm={algorithm}'
    request = ours.answer(register(), challenged(line))
    assert request is not None
    ours.accepted(request, accepted((name, value)), server)
    credentials = sent(ours.preauthorize(register()))
    assert (credentials.param("nonce"), credentials.param("nc")) == ("1", "00000002")


def test_request_with_credentials_is_not_authorized_twice() -> None:
    ours = client()
    request = ours.answer(register(), challenged('Digest realm="r", nonce="1", qop="auth"'))
    assert request is not None
    assert ours.preauthorize(request) is request


def test_nobody_but_the_server_that_challenged_is_sent_credentials_unasked() -> None:
    ours = client()
    challenge = challenged('Digest realm="r", nonce="1", qop="auth"')
    ours.answer(register(), challenge, "192.0.2.1")
    assert ours.preauthorize(register(), "192.0.2.9") == register()
    assert sent(ours.preauthorize(register(), "192.0.2.1")).param("nonce") == "1"


def test_wrong_password_on_the_same_nonce_ends_at_once() -> None:
    ours = client()
    line = 'Digest realm="r", nonce="1", qop="auth"'
    request = ours.answer(register(), challenged(line))
    assert request is not None
    assert ours.answer(request, challenged(line)) is None
    assert "password refused" in ours.fault
    assert "secret" not in ours.fault
    assert ours.preauthorize(register()) == register()


def test_wrong_password_ends_after_one_retry_when_every_refusal_has_a_new_nonce() -> None:
    ours = client()
    request = ours.answer(register(), challenged('Digest realm="r", nonce="0"'))
    rounds = 0
    while request is not None:
        rounds += 1
        request = ours.answer(request, challenged(f'Digest realm="r", nonce="{rounds}"'))
    assert rounds == 2
    assert "password refused" in ours.fault


def test_stale_nonce_is_quietly_answered() -> None:
    ours = client()
    request = ours.answer(register(), challenged('Digest realm="r", nonce="1"'))
    assert request is not None
    again = ours.answer(request, challenged('Digest realm="r", nonce="2", stale=TRUE'))
    assert sent(again).param("nonce") == "2"
    assert ours.fault == ""


def test_server_that_calls_everything_stale_makes_no_loop() -> None:
    ours = client()
    request = ours.answer(register(), challenged('Digest realm="r", nonce="0"'))
    rounds = 0
    while request is not None:
        rounds += 1
        line = f'Digest realm="r", nonce="{rounds}", stale=true'
        request = ours.answer(request, challenged(line))
    assert rounds == MAX_ROUNDS + 1
    assert "in a row" in ours.fault


def test_nonce_changed_without_stale_is_quietly_answered_every_time() -> None:
    """A registrar that restarts between refreshes, for months, is never taken for a refusal."""
    ours = client()
    ours.answer(register(), challenged('Digest realm="r", nonce="0", qop="auth"'))
    for number in range(1, 20):
        request = ours.preauthorize(register(cseq=number))
        assert sent(request).param("nc") == "00000002"
        line = f'Digest realm="r", nonce="{number}", qop="auth"'
        assert sent(ours.answer(request, challenged(line))).param("nonce") == str(number)


def test_requests_under_way_at_once_do_not_share_their_rounds() -> None:
    ours = client()
    for number in range(10):
        first = ours.answer(
            register(call_id=f"{number}"), challenged('Digest realm="r", nonce="1"')
        )
        assert first is not None
        again = ours.answer(first, challenged('Digest realm="r", nonce="2", stale=true'))
        assert again is not None


def test_realms_a_stranger_names_are_bounded() -> None:
    ours = client()
    lines = [f'Digest realm="{n}", nonce="1"' for n in range(150)]
    request = ours.answer(register(), challenged(*lines))
    assert request is not None
    assert len(request.headers.get_all("Authorization")) == MAX_SPACES
    for number in range(200, 300):
        ours.answer(register(), challenged(f'Digest realm="{number}", nonce="1"'))
    again = ours.preauthorize(register())
    assert len(again.headers.get_all("Authorization")) == MAX_SPACES


def test_ever_new_realms_make_no_loop() -> None:
    ours = client()
    request: Request | None = register()
    rounds = 0
    while request is not None:
        rounds += 1
        request = ours.answer(request, challenged(f'Digest realm="{rounds}", nonce="1"'))
    assert rounds == MAX_SPACES + 1
    assert ours.fault == "credentials for more than 8 realms are asked for"


def test_password_does_not_show_in_a_log() -> None:
    assert "secret" not in repr(Credential("620", "secret"))


def test_realm_with_quotes_goes_back_as_it_came() -> None:
    line = 'Digest realm="a \\"b\\" \\\\c", nonce="1"'
    request = client().answer(register(), challenged(line))
    assert request is not None
    assert 'realm="a \\"b\\" \\\\c"' in (request.headers.get("Authorization") or "")


# -- Server ----------------------------------------------------------------------------------------


def server(**passwords: str) -> DigestServer:
    return DigestServer("door", b"key", passwords or {"620": "secret"}, SeededIds(3))


def answered(
    ours: DigestServer, who: DigestClient, now: float = 0.0, *, proxy: bool = False
) -> Request:
    request = who.answer(register(), challenged(*ours.challenge(now, proxy=proxy)))
    assert request is not None
    return request


def test_challenge_offers_sha_256_first_and_md5() -> None:
    challenges = [parse_challenge(line) for line in server().challenge(0.0, stale=True)]
    assert [challenge.param("algorithm") for challenge in challenges] == ["SHA-256", "MD5"]
    assert challenges[0].param("stale") == "true"
    assert challenges[0].param("realm") == "door"
    assert 'qop="auth"' in server().challenge(0.0)[0]


def test_challenge_offers_what_the_caller_asks_for_in_this_order() -> None:
    for algorithms in (["MD5"], ["MD5", "SHA-256"]):
        lines = server().challenge(0.0, algorithms=algorithms)
        assert [parse_challenge(line).param("algorithm") for line in lines] == algorithms


@pytest.mark.parametrize("algorithm", ["", "MD5", "SHA-256", "MD5-sess", "SHA-256-sess"])
def test_a_password_proved_by_an_algorithm_that_its_user_may_not_use_does_not_count(
    algorithm: str,
) -> None:
    ours = DigestServer("door", b"key", {"620": "secret"}, SeededIds(3), {"620": ("SHA-256",)})
    line = ours.challenge(0.0, algorithms=[algorithm or "MD5"])[0]
    request = client().answer(register(), challenged(line))
    assert request is not None
    verdict = ours.verify(request, 1.0)
    assert (verdict.ok, verdict.guessed) == (algorithm == "SHA-256", False)


def test_right_password_is_accepted_and_its_user_named() -> None:
    ours = server()
    verdict = ours.verify(answered(ours, client()), 1.0)
    assert (verdict.ok, verdict.user) == (True, "620")


def test_md5_alone_is_accepted() -> None:
    ours = server()
    request = client().answer(register(), challenged(ours.challenge(0.0)[1]))
    assert request is not None
    assert ours.verify(request, 1.0).ok


@pytest.mark.parametrize(
    ("who", "rule"),
    [
        (Credential("620", "wrong"), "wrong password"),
        (Credential("621", "secret"), "unknown user"),
        (Credential("621", ""), "unknown user"),
    ],
)
def test_wrong_credentials_are_refused_by_rule(who: Credential, rule: str) -> None:
    ours = server()
    verdict = ours.verify(answered(ours, client(who)), 1.0)
    assert (verdict.ok, verdict.stale, verdict.rule) == (False, False, rule)


def test_no_credentials_and_those_for_others() -> None:
    ours = server()
    assert ours.verify(register(), 0.0).rule == "no credentials for this realm"
    request = answered(ours, client())
    assert ours.verify(request, 0.0, proxy=True).rule == "no credentials for this realm"
    request.headers.set("Authorization", "Digest ???")
    assert ours.verify(request, 0.0).rule == "no credentials for this realm"


def test_request_taken_down_and_sent_again_is_refused() -> None:
    ours = server()
    request = answered(ours, client())
    assert ours.verify(request, 1.0).ok
    again = ours.verify(request, 2.0)
    assert (again.ok, again.stale, again.rule) == (False, True, "nonce used before")


def test_rising_count_is_accepted_and_a_falling_one_refused() -> None:
    ours, who = server(), client()
    first = answered(ours, who)
    second, third = who.preauthorize(register()), who.preauthorize(register())
    assert ours.verify(first, 1.0).ok
    assert ours.verify(third, 1.0).ok
    assert ours.verify(second, 1.0).stale


def test_nonce_without_qop_is_good_once() -> None:
    ours = server()
    line = ours.challenge(0.0)[1].replace(', qop="auth"', "")
    request = client().answer(register(), challenged(line))
    assert request is not None
    assert ours.verify(request, 1.0).ok
    assert ours.verify(request, 1.0).stale


@pytest.mark.parametrize("now", [-1.0, NONCE_SECONDS + 1])
def test_old_nonce_is_stale(now: float) -> None:
    ours = server()
    verdict = ours.verify(answered(ours, client()), now)
    assert (verdict.ok, verdict.stale, verdict.rule) == (False, True, "nonce too old")


def test_nonce_of_another_key_realm_or_role_is_stale() -> None:
    other = DigestServer("door", b"other key", {"620": "secret"}, SeededIds(3))
    assert server().verify(answered(other, client()), 1.0).rule == "nonce not ours"
    elsewhere = DigestServer("gate", b"key", {"620": "secret"}, SeededIds(3)).challenge(0.0)
    lines = [line.replace('realm="gate"', 'realm="door"') for line in elsewhere]
    taken_over = client().answer(register(), challenged(*lines))
    assert taken_over is not None
    assert server().verify(taken_over, 1.0).rule == "nonce not ours"
    request = answered(server(), client(), proxy=True)
    assert server().verify(request, 1.0).rule == "nonce not ours"


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ('uri="sip:fritz.box"', 'uri="sip:other"', "wrong password"),
        ("nc=00000001", "nc=1", "nonce count cannot be read"),
        ("nc=00000001", "nc=0000000x", "nonce count cannot be read"),
        ("nc=00000001", "nc=00000002", "wrong password"),
        ("algorithm=SHA-256", "algorithm=SHA-1", "algorithm or qop not offered"),
        ("qop=auth", "qop=x", "algorithm or qop not offered"),
        ('cnonce="', 'cnonce="' + "x" * 2000, "credentials too long"),
        ('uri="', 'uri="' + "x" * 2000, "credentials too long"),
        ('username="', 'username="' + "x" * 2000, "credentials too long"),
    ],
)
def test_tampered_credentials_are_refused_by_rule(old: str, new: str, rule: str) -> None:
    ours = server()
    request = answered(ours, client())
    text = request.headers.get("Authorization") or ""
    assert old in text
    request.headers.set("Authorization", text.replace(old, new))
    assert ours.verify(request, 1.0).rule == rule


@pytest.mark.parametrize("place", [0, 31, 63])
def test_response_that_is_wrong_in_one_place_is_wrong(place: int) -> None:
    ours = server()
    request = answered(ours, client())
    text = request.headers.get("Authorization") or ""
    at = text.index('response="') + len('response="') + place
    other = "0" if text[at] != "0" else "1"
    request.headers.set("Authorization", text[:at] + other + text[at + 1 :])
    assert ours.verify(request, 1.0).rule == "wrong password"


def test_a_proxy_on_the_way_may_have_changed_the_request_uri() -> None:
    ours = server()
    request = answered(ours, client())
    request.uri = SipUri.of("door", "192.0.2.10")
    assert ours.verify(request, 1.0).ok


def test_another_method_with_the_same_credentials_is_refused() -> None:
    ours = server()
    request = answered(ours, client())
    request.method = "MESSAGE"
    assert ours.verify(request, 1.0).rule == "wrong password"


def test_forgotten_nonces_cannot_be_used_again() -> None:
    ours = server()
    first = answered(ours, client(), now=0.0)
    assert ours.verify(first, 0.0).ok
    for number in range(MAX_NONCES):
        assert ours.verify(answered(ours, client(), now=1.0 + number / 1000), 3.0).ok
    assert ours.verify(first, 3.0).rule == "nonce used before"
    assert len(ours._used) == MAX_NONCES
