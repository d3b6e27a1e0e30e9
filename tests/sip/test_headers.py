"""Header lines and the typed values of RFC 3261 §20 and §25."""

import pytest
from doorstation.sip.grammar import MAX_LIST, MAX_PARAMS
from doorstation.sip.headers import (
    Challenge,
    Credentials,
    CSeq,
    Headers,
    NameAddr,
    Via,
    format_challenge,
    format_credentials,
    format_name_addr,
    format_via,
    parse_challenge,
    parse_credentials,
    parse_cseq,
    parse_name_addr,
    parse_via,
)
from doorstation.sip.message import MalformedMessage
from doorstation.sip.uri import OtherUri, SipUri

ALICE = SipUri(user="alice", host="example.com")


# -- Headers ---------------------------------------------------------------------------------------


def test_compact_and_odd_spellings_are_one_name() -> None:
    headers = Headers([("v", "1"), ("VIA", "2"), ("vIa", "3")])
    assert headers.get_all("Via") == ["1", "2", "3"]
    assert list(headers) == [("Via", "1"), ("Via", "2"), ("Via", "3")]
    assert "V" in headers


def test_unknown_headers_keep_their_spelling_and_match_in_any() -> None:
    headers = Headers([("x-Door", "1")])
    assert headers.get("X-DOOR") == "1"
    assert list(headers) == [("x-Door", "1")]


def test_set_replaces_all_lines_in_the_place_of_the_first() -> None:
    headers = Headers([("Via", "1"), ("To", "a"), ("Via", "2"), ("From", "b")])
    headers.set("v", "3")
    assert list(headers) == [("Via", "3"), ("To", "a"), ("From", "b")]
    headers.set("CSeq", "1 INVITE")
    assert list(headers)[-1] == ("CSeq", "1 INVITE")


def test_prepend_remove_and_copy_are_independent() -> None:
    headers = Headers([("Route", "<sip:a>"), ("To", "x")])
    copy = headers.copy()
    headers.prepend("Via", "1")
    headers.remove("route")
    headers.remove("Contact")
    assert list(headers) == [("Via", "1"), ("To", "x")]
    assert list(copy) == [("Route", "<sip:a>"), ("To", "x")]
    assert headers != copy
    assert headers == Headers([("v", "1"), ("t", "x")])


def test_remove_first_takes_one_value_off_a_comma_list() -> None:
    headers = Headers([("Route", "<sip:a;lr>, <sip:b,c;lr>"), ("Route", "<sip:d>")])
    headers.remove_first("Route")
    assert headers.get_all("Route") == ["<sip:b,c;lr>", "<sip:d>"]
    headers.remove_first("Route")
    assert headers.get_all("Route") == ["<sip:d>"]
    headers.remove_first("Route")
    headers.remove_first("Route")
    assert "Route" not in headers


def test_lists_are_cut_outside_quotes_and_brackets_only() -> None:
    headers = Headers([("Contact", '"a, \\"b" <sip:x,y@h>, <sip:z@h>'), ("m", ",sip:q@h,")])
    assert headers.values("Contact") == ['"a, \\"b" <sip:x,y@h>', "<sip:z@h>", "sip:q@h"]


@pytest.mark.parametrize("value", ['a, "b', "a, <b", "," * (MAX_LIST + 1)])
def test_list_that_cannot_be_cut_is_refused(value: str) -> None:
    with pytest.raises(MalformedMessage, match="Contact"):
        Headers([("Contact", value)]).values("Contact")


# -- Via -------------------------------------------------------------------------------------------


def test_via_in_all_its_parts() -> None:
    via = parse_via("SIP/2.0/udp Host.Example:5070;branch=z9hG4bKx;rport=4321;received=192.0.2.1")
    assert (via.transport, via.host, via.port) == ("UDP", "host.example", 5070)
    assert (via.branch, via.received, via.rport) == ("z9hG4bKx", "192.0.2.1", 4321)
    assert via.sent_by == ("host.example", 5070)


def test_via_with_blanks_everywhere() -> None:
    via = parse_via('SIP / 2.0 /\tTLS   [2001:DB8::9] : 5061 ; branch = z9hG4bKx ; x = "a;,\\""')
    assert (via.transport, via.host, via.port) == ("TLS", "2001:db8::9", 5061)
    assert via.params == (("branch", "z9hG4bKx"), ("x", 'a;,"'))


def test_via_default_port_is_the_transports() -> None:
    assert parse_via("SIP/2.0/UDP h").sent_by == ("h", 5060)
    assert parse_via("SIP/2.0/TLS h").sent_by == ("h", 5061)


def test_rport_asked_for_absent_and_unreadable() -> None:
    assert parse_via("SIP/2.0/UDP h;rport").rport == ""
    assert parse_via("SIP/2.0/UDP h").rport is None
    assert parse_via("SIP/2.0/UDP h;rport=x").rport is None


def test_received_with_brackets_as_fritzbox_writes_it() -> None:
    assert parse_via("SIP/2.0/UDP h;received=[fd00::1];rport=5060").received == "fd00::1"


def test_via_is_written_with_brackets_round_ipv6_and_none_in_received() -> None:
    via = Via("UDP", "2001:db8::1", 5060, (("branch", "z9hG4bKx"), ("received", "fd00::1")))
    text = "SIP/2.0/UDP [2001:db8::1]:5060;branch=z9hG4bKx;received=fd00::1"
    assert format_via(via) == str(via) == text
    assert parse_via(text) == via


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIP/2.0/UDP",
        "SIP/2.0 UDP h",
        "SIP/2.0/UDP h:99999",
        "SIP/2.0/UDP h:",
        "SIP/2.0/UDP h x",
        "SIP/2.0/UDP h;;branch=x",
        'SIP/2.0/UDP h;branch="x',
        "SIP/2.0/UDP 2001:db8::1",
        "HTTP/1.1/UDP h",
        "SIP/2.0/UDP h" + ";x" * (MAX_PARAMS + 1),
    ],
)
def test_malformed_via_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessage, match="Via"):
        parse_via(text)


def test_branch_of_base64_keeps_its_equals_signs() -> None:
    assert parse_via("SIP/2.0/UDP h;branch=z9hG4bKYWI==;rport").branch == "z9hG4bKYWI=="


def test_one_semicolon_too_many_is_forgiven() -> None:
    assert parse_via("SIP/2.0/UDP h;rport;").params == (("rport", None),)


# -- From, To, Contact -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sip:alice@example.com", NameAddr(ALICE)),
        ("<sip:alice@example.com>", NameAddr(ALICE)),
        ("  <sip:alice@example.com>  ;tag=1", NameAddr(ALICE, "", (("tag", "1"),))),
        ("sip:alice@example.com;tag=1", NameAddr(ALICE, "", (("tag", "1"),))),
        ("Alice <sip:alice@example.com>", NameAddr(ALICE, "Alice")),
        ("Alice B<sip:alice@example.com>", NameAddr(ALICE, "Alice B")),
        ("Haustür <sip:alice@example.com>", NameAddr(ALICE, "Haustür")),
        ('"" <sip:alice@example.com>', NameAddr(ALICE, "")),
        ('"A \\"B\\\\" <sip:alice@example.com>', NameAddr(ALICE, 'A "B\\')),
        ('"<sip:x@y>" <sip:alice@example.com>', NameAddr(ALICE, "<sip:x@y>")),
        (
            '<sip:alice@example.com>;+sip.instance="<urn:uuid:0>";Q=0.5;x',
            NameAddr(ALICE, "", (("+sip.instance", "<urn:uuid:0>"), ("q", "0.5"), ("x", None))),
        ),
        ("<tel:+4930>", NameAddr(OtherUri("tel", "+4930"))),
    ],
)
def test_address_is_read(text: str, value: NameAddr) -> None:
    assert parse_name_addr(text) == value
    assert parse_name_addr(format_name_addr(value)) == value


def test_parameters_belong_to_the_uri_only_within_brackets() -> None:
    outside = parse_name_addr("sip:alice@example.com;transport=tcp")
    assert outside.uri == ALICE
    assert outside.param("transport") == "tcp"
    inside = parse_name_addr("<sip:alice@example.com;transport=tcp>")
    assert inside.uri == ALICE.with_(params=(("transport", "tcp"),))
    assert inside.param("transport") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<sip:a@h",
        '"A <sip:a@h>',
        '"A" sip:a@h',
        '"A"',
        "A, B <sip:a@h>",
        'A "B" <sip:a@h>',
        "<sip:a@h>x",
        "<sip:a@h>;;",
        "<>",
        "sip:a@h?x=y",
        "<sip:a@h>;tag=1,<sip:b@h>",
        "sip:a@h>",
        "*",
    ],
)
def test_malformed_address_is_refused_by_header_name(text: str) -> None:
    with pytest.raises(MalformedMessage, match=r"^From: "):
        parse_name_addr(text, "From")


def test_display_name_cannot_break_out_of_its_quotes() -> None:
    address = NameAddr(ALICE, '"><sip:evil@h>;x="')
    assert parse_name_addr(format_name_addr(address)) == address


# -- CSeq ------------------------------------------------------------------------------------------


def test_cseq_with_leading_zeros_and_blanks() -> None:
    assert parse_cseq("0009 \t INVITE") == CSeq(9, "INVITE")
    assert str(CSeq(9, "INVITE")) == "9 INVITE"


@pytest.mark.parametrize(
    "text", ["", "1", "INVITE", "-1 INVITE", "1_0 INVITE", "٣ INVITE", f"{2**31} X", "1" * 5000]
)
def test_malformed_cseq_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessage, match="CSeq"):
        parse_cseq(text)


# -- Challenges ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "params"),
    [
        # FRITZ!Box, Asterisk, 3CX, Kamailio
        ('Digest realm="fritz.box", nonce="E8F0"', (("realm", "fritz.box"), ("nonce", "E8F0"))),
        (
            'Digest  realm="asterisk",nonce="1/ab==",opaque="0f",algorithm=MD5,qop="auth"',
            (
                ("realm", "asterisk"),
                ("nonce", "1/ab=="),
                ("opaque", "0f"),
                ("algorithm", "MD5"),
                ("qop", "auth"),
            ),
        ),
        (
            'Digest nonce="414d", algorithm=md5, realm="3CXPhoneSystem", stale=FALSE, ',
            (
                ("nonce", "414d"),
                ("algorithm", "md5"),
                ("realm", "3CXPhoneSystem"),
                ("stale", "FALSE"),
            ),
        ),
        (
            'digest qop = "auth,auth-int" , realm="a \\"b\\", c"',
            (("qop", "auth,auth-int"), ("realm", 'a "b", c')),
        ),
    ],
)
def test_challenge_is_read(text: str, params: tuple[tuple[str, str], ...]) -> None:
    assert parse_challenge(text).params == params


def test_credentials_of_an_unknown_scheme_are_read() -> None:
    credentials = parse_credentials("NoOneKnowsThisScheme opaque-data=here")
    assert credentials.scheme == "NoOneKnowsThisScheme"
    assert credentials.param("opaque-data") == "here"


def test_quotes_are_where_rfc_7616_puts_them() -> None:
    challenge = Challenge(
        "Digest",
        (("realm", "r"), ("nonce", "n"), ("algorithm", "SHA-256"), ("qop", "auth")),
    )
    assert (
        format_challenge(challenge) == 'Digest realm="r", nonce="n", algorithm=SHA-256, qop="auth"'
    )
    credentials = Credentials(
        "Digest",
        (("username", "620"), ("uri", "sip:h"), ("response", "ab"), ("qop", "auth"), ("nc", "01")),
    )
    assert (
        format_credentials(credentials)
        == 'Digest username="620", uri="sip:h", response="ab", qop=auth, nc=01'
    )


@pytest.mark.parametrize("text", ["", 'Digest realm="x', "Digest realm", "Di,gest x=y", "D a=b c"])
def test_malformed_challenge_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessage):
        parse_challenge(text)
