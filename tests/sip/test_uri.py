"""SIP and other URIs: RFC 3261 §19.1, RFC 5118."""

import pytest
from doorstation.sip.message import MalformedMessage
from doorstation.sip.uri import (
    MAX_URI,
    OtherUri,
    SipUri,
    format_host,
    format_uri,
    parse_host,
    parse_uri,
    same_uri,
)


def sip(text: str) -> SipUri:
    uri = parse_uri(text)
    assert isinstance(uri, SipUri)
    return uri


@pytest.mark.parametrize(
    "text",
    [
        # RFC 3261 §19.1.3
        "sip:alice@atlanta.com",
        "sip:alice:secretword@atlanta.com;transport=tcp",
        "sips:alice@atlanta.com?subject=project%20x&priority=urgent",
        "sip:+1-212-555-1212:1234@gateway.com;user=phone",
        "sips:1212@gateway.com",
        "sip:alice@192.0.2.4",
        "sip:atlanta.com;method=REGISTER?to=alice%40atlanta.com",
        "sip:alice;day=tuesday@atlanta.com",
        # what phones register must come back octet by octet
        "sip:620@192.168.178.20:5060;ob",
        "sip:620@192.168.178.20:5060;line=a1b2c3",
        "sip:620@192.168.178.20:49152;rinstance=0f1e2d3c4b5a6978;transport=TLS",
        "sip:**621@fritz.box",
        "sip:%23%2331@fritz.box",
        "sip:user@[2001:db8::1]:5061;transport=tls",
        "sip:[::ffff:192.0.2.1]",
        "tel:+49-30-123456;ext=7",
        "urn:service:sos",
        "http://www.example.com/ring.wav",
    ],
)
def test_uri_reads_back_as_written(text: str) -> None:
    assert str(parse_uri(text)) == text


def test_parts_of_a_uri() -> None:
    uri = sip("SIPS:Alice:pw@Example.COM:5081;Transport=TCP;lr?Subject=x&y=")
    assert uri == SipUri(
        "sips",
        "Alice",
        "example.com",
        5081,
        "pw",
        (("transport", "TCP"), ("lr", None)),
        (("Subject", "x"), ("y", "")),
    )
    assert uri.is_secure
    assert uri.param("transport") == "TCP"
    assert uri.param("lr") == ""
    assert uri.has_param("lr")
    assert uri.param("maddr") is None
    assert not uri.has_param("maddr")


def test_dial_string_keeps_stars_and_escapes_the_hash() -> None:
    assert str(SipUri.of("**9", "fritz.box")) == "sip:**9@fritz.box"
    assert str(SipUri.of("*31#0171", "fritz.box")) == "sip:*31%230171@fritz.box"
    assert SipUri.of("*31#0171", "fritz.box").user_text == "*31#0171"
    assert SipUri.of("tür @1", "h").user == "t%C3%BCr%20%401"


def test_hash_left_unescaped_by_a_phone_is_read() -> None:
    assert sip("sip:*31#0171@fritz.box").user_text == "*31#0171"


def test_interface_of_a_link_local_address_is_never_written() -> None:
    """RFC 4007 §11.2."""
    assert str(SipUri.of("a", "fe80::1%eth0", 5070)) == "sip:a@[fe80::1]:5070"
    assert format_host("fe80::1%3", 5060) == "[fe80::1]:5060"


def test_ipv6_host_goes_without_brackets_inside_and_with_them_outside() -> None:
    uri = SipUri.of("a", "[2001:DB8::1]", 5060)
    assert uri.host == "2001:db8::1"
    assert str(uri) == "sip:a@[2001:db8::1]:5060"
    assert sip(str(uri)) == uri


def test_user_text_shows_what_is_no_utf_8() -> None:
    assert sip("sip:%FF%zz@h").user_text == "\ufffd%zz"


def test_empty_uri_parameters_are_passed_over() -> None:
    assert sip("sip:a@h;;lr;").params == (("lr", None),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip:",
        "sip",
        "alice@example.com",
        "sip:2001:db8::10",
        "sip:a@[2001:db8::10",
        "sip:a@[1:2]",
        "sip:a@[12345::1]",
        "sip:a@[1::2::3]",
        "sip:a@[1:2:3:4:5:6:7]",
        "sip:a@[fe80::1%25eth0]",
        "sip:a@h:",
        "sip:a@h:65536",
        "sip:a@h:999999",
        "sip:a@h:-1",
        "sip:a@b@c",
        "sip:a b@h",
        "sip:a@h;x y",
        "sip:a@h;=x",
        "sip:a@h\r\n",
        "sip:a@h\0",
        "<sip:a@h>",
        'sip:"a"@h',
        "sip:a@-h",
        "sip:a@h\u0660:5060",
        "sip:a@h:\u0665060",
        "1tel:12",
        "tel:",
        "tel:1 2",
    ],
)
def test_malformed_uri_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessage):
        parse_uri(text)


def test_uri_has_a_length_limit() -> None:
    parse_uri("sip:" + "a" * (MAX_URI - 6) + "@h")
    with pytest.raises(MalformedMessage, match=str(MAX_URI)):
        parse_uri("sip:" + "a" * (MAX_URI - 5) + "@h")


def test_uri_has_a_parameter_limit() -> None:
    with pytest.raises(MalformedMessage):
        parse_uri("sip:a@h" + ";p" * 100)
    with pytest.raises(MalformedMessage):
        parse_uri("sip:a@h?" + "p=1&" * 100)


@pytest.mark.parametrize(
    "uri",
    [
        SipUri(user="a b", host="h"),
        SipUri(user="a>", host="h"),
        SipUri(user="a", host="h\r\nX: y"),
        SipUri(user="a", host="h", params=(("x", 'y"'),)),
        OtherUri("tel", "1>;tag=2"),
    ],
)
def test_uri_that_would_end_early_is_not_written(uri: SipUri | OtherUri) -> None:
    with pytest.raises(ValueError, match="not escaped"):
        format_uri(uri)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        # RFC 3261 §19.1.4
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("tel:+4930", "tel:+4930"),
    ],
)
def test_uris_that_are_the_same(a: str, b: str) -> None:
    assert same_uri(parse_uri(a), parse_uri(b))
    assert same_uri(parse_uri(b), parse_uri(a))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        # RFC 3261 §19.1.4
        (
            "SIP:ALICE@AtLanTa.CoM;Transport=udp",
            "sip:alice@AtLanTa.CoM;Transport=UDP",
        ),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
        ("sip:a:x@h", "sip:a:y@h"),
        ("sip:a@h", "sips:a@h"),
        ("sip:a%3Bb@h", "sip:a;b@h"),
        ("tel:+4930", "tel:+4931"),
        ("tel:+4930", "sip:+4930@h"),
    ],
)
def test_uris_that_differ(a: str, b: str) -> None:
    assert not same_uri(parse_uri(a), parse_uri(b))
    assert not same_uri(parse_uri(b), parse_uri(a))


def test_host_is_read_in_lower_case_without_brackets() -> None:
    assert parse_host("Example.COM") == "example.com"
    assert parse_host("[FD00::1]") == "fd00::1"
    with pytest.raises(MalformedMessage):
        parse_host("fd00::1")
