"""RFC 4475 and RFC 5118: each message gets the verdict that the RFC asks of a parser and a UAS.

Verdicts that need a transaction user (405, 415, 416, 420 ...) are "accepted" here: the message has
to parse so that it can be answered. Where the RFC leaves a choice the comment says which we took.
"""

from pathlib import Path

import pytest
from doorstation.sip.message import (
    MalformedMessage,
    Message,
    Request,
    Response,
    StreamBroken,
    StreamReader,
    check_request,
    check_response,
    format_message,
    make_response,
    parse_message,
)
from doorstation.sip.uri import OtherUri, SipUri

DATA = Path(__file__).parent.parent / "data" / "torture"

ACCEPTED = [
    "rfc4475/short_tortuous_invite",
    "rfc4475/wide_range_of_valid_characters",
    "rfc4475/valid_percent_escapes",
    "rfc4475/escaped_nulls_in_uris",
    "rfc4475/percent_that_is_no_escape",
    "rfc4475/no_blank_between_display_name_and_bracket",
    "rfc4475/long_values_in_header_fields",
    "rfc4475/octets_after_the_body_in_a_datagram",
    "rfc4475/semicolon_parameters_in_user_part",
    "rfc4475/unknown_transports_in_via",
    "rfc4475/binary_multipart_body",
    "rfc4475/unusual_reason_phrase",
    "rfc4475/empty_reason_phrase",
    # §3.1.2.12: "an element shouldn't" refuse it unless it needs the date. We do not.
    "rfc4475/date_not_in_gmt",
    "rfc4475/branch_of_the_magic_cookie_alone",
    "rfc4475/request_uri_of_unknown_scheme",
    "rfc4475/request_uri_of_atypical_scheme",
    "rfc4475/unknown_schemes_in_headers",
    "rfc4475/require_and_proxy_require_unknown",
    "rfc4475/unknown_content_type",
    "rfc4475/unknown_authorization_scheme",
    # §3.3.10: dropping it for its second Via is the transaction layer's: it matches nothing.
    "rfc4475/response_with_broadcast_via",
    "rfc4475/max_forwards_zero",
    "rfc4475/contact_with_unknown_header_parameter",
    "rfc4475/contact_with_unknown_uri_parameter",
    "rfc4475/contact_uri_with_escaped_route",
    "rfc4475/accept_of_unknown_type",
    "rfc4475/invite_of_rfc_2543",
    "rfc5118/ipv6_reference",
    "rfc5118/port_within_the_brackets",
    "rfc5118/port_after_the_brackets",
    "rfc5118/received_with_brackets",
    "rfc5118/received_without_brackets",
    "rfc5118/ipv6_in_session_description",
    "rfc5118/ipv4_and_ipv6_vias",
    "rfc5118/ipv4_and_ipv6_media",
    "rfc5118/ipv4_mapped_addresses",
    "rfc5118/three_colons",
    "rfc5118/two_colons",
]

# Answered with the status, and a reason that names the fault.
REFUSED = [
    ("rfc4475/extraneous_separators", 400, "Via"),
    ("rfc4475/content_length_beyond_the_datagram", 400, "Content-Length 9999"),
    ("rfc4475/negative_content_length", 400, "Content-Length"),
    ("rfc4475/request_numbers_too_large", 400, "CSeq"),
    ("rfc4475/display_name_without_closing_quote", 400, "To: quoted string"),
    ("rfc4475/request_uri_in_brackets", 400, "Request-URI"),
    ("rfc4475/blank_in_request_uri", 400, "request line"),
    # §3.1.2.9 and §3.1.2.10 allow repair as well; a strict answer is what both name first.
    ("rfc4475/several_blanks_in_request_line", 400, "request line"),
    ("rfc4475/blanks_at_end_of_request_line", 400, "request line"),
    ("rfc4475/headers_in_request_uri", 400, "Request-URI with headers"),
    ("rfc4475/contact_uri_with_headers_without_brackets", 400, "Contact"),
    ("rfc4475/blanks_within_brackets", 400, "To"),
    ("rfc4475/comma_in_unquoted_display_name", 400, "From: display name"),
    ("rfc4475/unknown_protocol_version", 505, "version 7.0"),
    ("rfc4475/cseq_of_another_method", 400, "CSeq method INVITE"),
    # §3.1.2.18: 400 or 501.
    ("rfc4475/unknown_method_with_cseq_of_another", 400, "CSeq method INVITE"),
    ("rfc4475/required_headers_missing", 400, "no From"),
    ("rfc4475/single_headers_twice", 400, "2 From headers"),
    ("rfc4475/content_length_twice", 400, "2 Content-Length headers"),
    ("rfc5118/ipv6_without_brackets_in_request_uri", 400, "Request-URI"),
]

DROPPED = ["rfc4475/response_numbers_too_large", "rfc4475/response_code_too_large"]


def read(name: str) -> bytes:
    return (DATA / f"{name}.sip").read_bytes()


def judged(data: bytes) -> Message:
    message = parse_message(data)
    if isinstance(message, Request):
        check_request(message)
    else:
        check_response(message)
    return message


def accepted_request(name: str) -> Request:
    message = judged(read(name))
    assert isinstance(message, Request)
    return message


def test_every_message_has_a_verdict() -> None:
    files = {f"{path.parent.name}/{path.stem}" for path in DATA.glob("*/*.sip")}
    assert files == {*ACCEPTED, *(name for name, _, _ in REFUSED), *DROPPED}
    assert len(list((DATA / "rfc4475").glob("*.sip"))) == 49
    assert len(list((DATA / "rfc5118").glob("*.sip"))) == 12


@pytest.mark.parametrize("name", ACCEPTED)
def test_message_is_accepted(name: str) -> None:
    judged(read(name))


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_message_reads_back_as_written(name: str) -> None:
    message = judged(read(name))
    message.headers.set("Content-Length", str(len(message.body)))
    assert judged(format_message(message)) == message


@pytest.mark.parametrize(("name", "status", "reason"), REFUSED)
def test_message_is_refused_and_answered(name: str, status: int, reason: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        judged(read(name))
    fault = caught.value
    assert fault.status == status
    assert reason in fault.reason
    assert fault.request is not None
    answer = make_response(fault.request, fault.status, fault.reason, to_tag="torture")
    assert format_message(answer).startswith(f"SIP/2.0 {status} {fault.reason}\r\n".encode())
    assert answer.top_via.sent_by == fault.request.top_via.sent_by


@pytest.mark.parametrize("name", DROPPED)
def test_message_is_dropped(name: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        judged(read(name))
    assert caught.value.request is None


@pytest.mark.parametrize("name", ACCEPTED)
def test_stream_gives_the_same_message(name: str) -> None:
    expected = judged(read(name))
    if "Content-Length" not in expected.headers:
        expected.body = b""  # RFC 2543 let it out; a stream cannot know where the body ends
    try:
        received = StreamReader().receive(read(name))
    except StreamBroken as fault:  # the one with octets after the body, which is no body here
        received = fault.received
    assert received[0] == expected


def test_short_tortuous_invite_means_what_the_rfc_says() -> None:
    request = accepted_request("rfc4475/short_tortuous_invite")
    assert isinstance(request.uri, SipUri)
    assert request.uri.has_param("unknownparam")
    assert request.to.tag == "1918181833n"
    assert request.from_.display == 'J Rosenberg \\"'
    assert request.from_.tag == "98asjd8"
    assert request.max_forwards == 68
    assert (request.cseq.number, request.cseq.method) == (9, "INVITE")
    assert [via.host for via in request.vias] == [
        "192.0.2.2",
        "spindle.example.com",
        "192.168.255.111",
    ]
    assert [via.branch for via in request.vias] == ["390skdjuw", "z9hG4bK9ikj8", "z9hG4bK30239"]
    assert request.headers.get("Subject") == ""
    assert request.headers.get("newfangledheader") == "newfangled value continued newfangled value"
    assert request.headers.get("UnknownHeaderWithUnusualValue") == ";;,,;;,;"
    (contact,) = request.contacts
    assert contact.display == 'Quoted string ""'
    assert contact.params == (("newparam", "newvalue"), ("secondparam", None), ("q", "0.33"))
    assert len(request.body) == 150


def test_wide_range_of_characters_is_kept() -> None:
    request = accepted_request("rfc4475/wide_range_of_valid_characters")
    assert request.method == "!interesting-Method0123456789_*+`.%indeed'~"
    assert isinstance(request.uri, SipUri)
    assert request.uri.user == "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
    assert request.uri.password == "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"
    assert request.to.display == "BEL:\x07 NUL:\x00 DEL:\x7f"
    assert request.from_.display == "token1~` token2'+_ token3*%!.-"
    assert request.from_.param("fromparam''~+*_!.-%") == "работающий"
    assert request.from_.tag == "_token~1'+`*%!-."


def test_escapes_stay_on_the_wire_and_resolve_for_people() -> None:
    request = accepted_request("rfc4475/valid_percent_escapes")
    assert isinstance(request.uri, SipUri)
    assert request.uri.user_text == "sips:user@example.com"
    assert isinstance(request.to.uri, SipUri)
    assert request.to.uri.user == "%75se%72"
    assert request.to.uri.user_text == "user"


def test_escaped_nulls_are_two_contacts() -> None:
    contacts = accepted_request("rfc4475/escaped_nulls_in_uris").contacts
    assert [contact.uri.user_text for contact in contacts if isinstance(contact.uri, SipUri)] == [
        "\0",
        "\0\0",
    ]


def test_escapes_in_method_and_header_name_are_not_escapes() -> None:
    request = accepted_request("rfc4475/percent_that_is_no_escape")
    assert request.method == "RE%47IST%45R"
    assert request.to.display == "%Z%45"
    assert len(request.contacts) == 2
    assert request.headers.get("C%6Fntact") == "<sip:alias2@host2.example.com>"


def test_octets_after_the_body_are_dropped_from_a_datagram() -> None:
    request = accepted_request("rfc4475/octets_after_the_body_in_a_datagram")
    assert request.method == "REGISTER"
    assert request.body == b""


def test_user_part_keeps_its_semicolon() -> None:
    request = accepted_request("rfc4475/semicolon_parameters_in_user_part")
    assert isinstance(request.uri, SipUri)
    assert request.uri.user_text == "user;par=u@example.net"
    assert request.uri.host == "example.com"
    assert request.uri.params == ()


def test_all_thirty_four_vias_of_the_long_request_are_read() -> None:
    request = accepted_request("rfc4475/long_values_in_header_fields")
    assert len(request.vias) == 34
    assert request.vias[-1].received == "192.0.2.5"


def test_binary_body_is_kept_octet_by_octet() -> None:
    data = read("rfc4475/binary_multipart_body")
    assert accepted_request("rfc4475/binary_multipart_body").body == data.partition(b"\r\n\r\n")[2]


def test_reason_phrase_is_utf_8_or_empty() -> None:
    response = judged(read("rfc4475/unusual_reason_phrase"))
    assert isinstance(response, Response)
    assert response.reason == "= 2**3 * 5**2 но сто девяносто девять - простое"
    response = judged(read("rfc4475/empty_reason_phrase"))
    assert isinstance(response, Response)
    assert (response.status, response.reason) == (100, "")


def test_unknown_schemes_are_kept_for_the_transaction_user() -> None:
    request = accepted_request("rfc4475/request_uri_of_unknown_scheme")
    assert request.uri == OtherUri("nobodyknowsthisscheme", "totallyopaquecontent")
    request = accepted_request("rfc4475/unknown_schemes_in_headers")
    assert request.to.uri == OtherUri("isbn", "2983792873")


def test_unknown_header_parameter_is_not_the_uris() -> None:
    (contact,) = accepted_request("rfc4475/contact_with_unknown_header_parameter").contacts
    assert (contact.params, contact.uri.params) == ((("unknownparam", None),), ())  # type: ignore[union-attr]
    (contact,) = accepted_request("rfc4475/contact_with_unknown_uri_parameter").contacts
    assert (contact.params, contact.uri.params) == ((), (("unknownparam", None),))  # type: ignore[union-attr]


def test_expires_beyond_32_bits_counts_as_the_highest() -> None:
    message = parse_message(read("rfc4475/request_numbers_too_large"))
    assert message.expires == 2**32 - 1


def test_port_within_brackets_belongs_to_the_address() -> None:
    uri = accepted_request("rfc5118/port_within_the_brackets").uri
    assert isinstance(uri, SipUri)
    assert (uri.host, uri.port) == ("2001:db8::10:5070", None)
    uri = accepted_request("rfc5118/port_after_the_brackets").uri
    assert isinstance(uri, SipUri)
    assert (uri.host, uri.port) == ("2001:db8::10", 5070)


def test_received_is_read_with_and_without_brackets() -> None:
    for name in ("rfc5118/received_with_brackets", "rfc5118/received_without_brackets"):
        assert accepted_request(name).top_via.received == "2001:db8::9:255"


def test_three_colons_are_read_as_two() -> None:
    assert (
        accepted_request("rfc5118/three_colons").uri == accepted_request("rfc5118/two_colons").uri
    )
