"""Reading, checking and writing whole messages (RFC 3261 §7, §8.1, §8.2.6, §18.3)."""

import pytest
from doorstation.sip.headers import Headers, NameAddr
from doorstation.sip.message import (
    MAX_HEAD,
    MAX_HEADERS,
    MAX_MESSAGE,
    REASONS,
    MalformedMessage,
    Request,
    Response,
    check_request,
    check_response,
    format_message,
    make_response,
    parse_message,
)
from doorstation.sip.uri import SipUri

INVITE = b"""\
INVITE sip:**9@fritz.box;user=phone SIP/2.0\r
Via: SIP/2.0/UDP 192.0.2.42:5060;branch=z9hG4bK7f3a;rport\r
Max-Forwards: 70\r
From: "Front door" <sip:620@fritz.box>;tag=4f1c\r
To: <sip:**9@fritz.box;user=phone>\r
Call-ID: 9b1e@192.0.2.42\r
CSeq: 20 INVITE\r
Contact: <sip:620@192.0.2.42:5060;ob>\r
Allow: INVITE, ACK, BYE\r
Content-Type: application/sdp\r
Content-Length: 5\r
\r
v=0\r
"""


def request_of(*lines: str, method: str = "OPTIONS", body: str = "") -> bytes:
    """A well-formed request with lines replaced or added by header name."""
    headers = {
        "Via": "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1",
        "From": "From: <sip:a@example.com>;tag=1",
        "To": "To: <sip:b@example.com>",
        "Call-ID": "Call-ID: 1@example.com",
        "CSeq": f"CSeq: 1 {method}",
        "Max-Forwards": "Max-Forwards: 70",
    }
    extra: list[str] = []
    for line in lines:
        name = line.partition(":")[0]
        if name in headers:
            headers[name] = line
        else:
            extra.append(line)
    kept = [line for line in headers.values() if not line.endswith(":-")]
    head = "\r\n".join([f"{method} sip:b@example.com SIP/2.0", *kept, *extra])
    return f"{head}\r\n\r\n{body}".encode()


def parsed(data: bytes) -> Request:
    request = parse_message(data)
    assert isinstance(request, Request)
    check_request(request)
    return request


# -- Reading ---------------------------------------------------------------------------------------


def test_request_is_read_into_typed_values() -> None:
    request = parsed(INVITE)
    assert request.method == "INVITE"
    assert request.uri == SipUri(user="**9", host="fritz.box", params=(("user", "phone"),))
    assert request.top_via.branch == "z9hG4bK7f3a"
    assert [via.host for via in request.vias] == ["192.0.2.42"]
    assert (request.from_.display, request.from_.tag) == ("Front door", "4f1c")
    assert request.to.tag is None
    assert (request.cseq.number, request.cseq.method) == (20, "INVITE")
    assert request.call_id == "9b1e@192.0.2.42"
    assert [str(contact.uri) for contact in request.contacts] == ["sip:620@192.0.2.42:5060;ob"]
    assert request.max_forwards == 70
    assert request.allow == ["INVITE", "ACK", "BYE"]
    assert request.content_type == "application/sdp"
    assert (request.routes, request.record_routes) == ((), ())
    assert (request.require, request.supported, request.challenges) == ([], [], [])
    assert (request.expires, request.min_expires) == (None, None)
    assert request.body == b"v=0\r\n"


def test_message_is_written_as_it_was_read() -> None:
    assert format_message(parse_message(INVITE)) == INVITE


def test_response_is_read() -> None:
    response = parse_message(
        b"sip/2.0 401 Nicht berechtigt\r\n"
        b"v: SIP/2.0/UDP h;branch=z9hG4bK1\r\nf: <sip:a@h>;tag=1\r\nt: <sip:a@h>;tag=2\r\n"
        b"i: 1\r\nCSeq: 1 REGISTER\r\nk: timer, 100rel\r\nExpires: 60;x=y\r\n"
        b'WWW-Authenticate: Digest realm="a", nonce="1"\r\nProxy-Authenticate: Basic realm="b"\r\n'
        b"WWW-Authenticate: ?\r\nMin-Expires: 90\r\nl: 0\r\n\r\n"
    )
    assert isinstance(response, Response)
    check_response(response)
    assert (response.status, response.reason) == (401, "Nicht berechtigt")
    assert [challenge.scheme for challenge in response.challenges] == ["Digest", "Basic"]
    assert (response.expires, response.min_expires) == (60, 90)
    assert response.supported == ["timer", "100rel"]


def test_typed_values_follow_a_change_of_the_headers() -> None:
    request = parsed(INVITE)
    assert request.from_.tag == "4f1c"
    request.headers.set("From", "<sip:x@h>;tag=9")
    assert request.from_.tag == "9"
    request.headers.prepend("Via", "SIP/2.0/TCP new;branch=z9hG4bK2")
    assert request.top_via.host == "new"
    assert len(request.vias) == 2


def test_contact_star_is_no_address() -> None:
    request = parsed(request_of("Contact: *", "Expires: 0", method="REGISTER"))
    assert request.contacts == ()


def test_names_in_latin_1_are_read_and_others_stay_utf_8() -> None:
    request = parsed(request_of("Subject: Tür").replace(b"<sip:a@", b"T\xfcr <sip:a@", 1))
    assert request.from_.display == "Tür"
    assert request.headers.get("Subject") == "Tür"


def test_crlf_before_the_start_line_is_ignored() -> None:
    assert parse_message(b"\r\n\r\n" + INVITE) == parse_message(INVITE)


def test_bare_line_feeds_end_lines() -> None:
    assert parse_message(INVITE.replace(b"\r\n", b"\n").replace(b"v=0\n", b"v=0\r\n")) == (
        parse_message(INVITE)
    )


def test_body_without_content_length_goes_to_the_end_of_the_datagram() -> None:
    assert parsed(request_of(body="rest")).body == b"rest"


def test_octets_after_the_body_are_dropped() -> None:
    assert parsed(INVITE + b"trailing").body == b"v=0\r\n"


def test_equal_content_lengths_twice_are_one() -> None:
    assert parsed(request_of("Content-Length: 2", "l: 2", body="ab")).body == b"ab"


def test_unreadable_expires_counts_as_absent() -> None:
    assert parsed(request_of("Expires: soon")).expires is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (request_of("Content-Length: 9", body="ab"), "Content-Length 9, body of 2 bytes"),
        (request_of("Content-Length: +2", body="ab"), "Content-Length"),
        (request_of("Content-Length: ٢", body="ab"), "Content-Length"),
        (request_of("Content-Length: " + "1" * 5000), "Content-Length"),
        (request_of("From:-"), "no From"),
        (request_of("To:-"), "no To"),
        (request_of("Call-ID:-"), "no Call-ID"),
        (request_of("CSeq:-"), "no CSeq"),
        (request_of("f: <sip:c@h>;tag=2"), "2 From headers"),
        (request_of("i: 2"), "2 Call-ID headers"),
        (request_of("Call-ID: a b"), "Call-ID"),
        (request_of("CSeq: 1 INVITE"), "CSeq method INVITE in a OPTIONS request"),
        (request_of("Max-Forwards: 256"), "Max-Forwards"),
        (request_of("Max-Forwards: x"), "Max-Forwards"),
        (request_of("Contact: <sip:a@h"), "Contact"),
        (request_of("Record-Route: a"), "Record-Route"),
        (request_of("Route: <sip:a>;;"), "Route"),
        (request_of("no colon here"), "header line"),
        (request_of("na me: x"), "header line"),
        (request_of("X: a\rb"), "carriage return"),
        (request_of("X: a\0b"), "NUL"),
        (request_of(*[f"X: {n}" for n in range(MAX_HEADERS)]), "header lines"),
        (request_of()[:-4], "without end"),
        (request_of().replace(b"sip:b@example.com SIP", b"sip:b@exa mple.com SIP"), "request line"),
        (request_of().replace(b"SIP/2.0\r\n", b"SIP/2.1\r\n", 1), "version 2.1"),
    ],
)
def test_fault_is_named_and_can_be_answered(data: bytes, reason: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parsed(data)
    fault = caught.value
    assert reason in fault.reason
    assert fault.request is not None
    format_message(make_response(fault.request, fault.status, fault.reason, to_tag="x"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"\0" * 100,
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"OPTIONS sip:h SIP/2.0\r\n\r\n",
        request_of("Via:-"),
        request_of("Via: SIP/2.0/UDP ;branch=z9hG4bK1"),
        request_of("From:-", method="ACK"),
        b"SIP/2.0 099 x\r\n\r\n",
        b"SIP/2.0 700 x\r\n\r\n",
        b"SIP/3.0 200 OK\r\n\r\n",
        b"x" * (MAX_HEAD + 1),
        b"x" * (MAX_MESSAGE + 1),
    ],
)
def test_what_nobody_waits_for_is_not_answered(data: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parsed(data)
    assert caught.value.request is None


def test_first_fault_of_several_is_the_one_named() -> None:
    with pytest.raises(MalformedMessage, match="Request-URI"):
        parse_message(request_of("broken line").replace(b"sip:b@example.com SIP", b"<sip:b> SIP"))


def test_broken_response_is_refused() -> None:
    with pytest.raises(MalformedMessage):
        check_response(Response(200, "OK", Headers([("Via", "SIP/2.0/UDP h")])))


# -- Writing ---------------------------------------------------------------------------------------


def test_content_length_is_set_whatever_stood_there() -> None:
    request = parsed(request_of("l: 0", "Content-Length: 0"))
    request.body = b"four"
    data = format_message(request)
    assert data.count(b"Content-Length:") == 1
    assert b"Content-Length: 4\r\n" in data
    request.headers = Headers([("To", "x")])
    assert format_message(request).endswith(b"To: x\r\nContent-Length: 4\r\n\r\nfour")


@pytest.mark.parametrize(
    "message",
    [
        Request("INVITE", SipUri(host="h"), Headers([("To", "a\r\nEvil: yes")])),
        Request("INVITE", SipUri(host="h"), Headers([("To", "a\n"), ("From", "b\r")])),
        Request("INVITE", SipUri(host="h"), Headers([("To", "a\r"), ("From", "\nb")])),
        Request("INVITE", SipUri(host="h"), Headers([("To", "a\0")])),
        Request("INVITE", SipUri(host="h"), Headers([("E vil", "a")])),
        Request("INVITE", SipUri(host="h"), Headers([("Evil:", "a")])),
        Request("INVITE", SipUri(host="h"), Headers([("", "a")])),
        Request("INV ITE", SipUri(host="h"), Headers()),
        Request("INVITE", SipUri(user="a b", host="h"), Headers()),
        Request("INVITE", SipUri(host="h"), Headers([("To", "\ud800")])),
        Response(200, "OK\r\nEvil: yes", Headers()),
        Response(99, "x", Headers()),
    ],
)
def test_what_would_not_read_back_is_not_written(message: Request | Response) -> None:
    with pytest.raises(ValueError):
        format_message(message)


def test_display_name_from_a_stranger_cannot_add_a_header() -> None:
    address = NameAddr(SipUri(host="h"), "x\r\nEvil: yes")
    with pytest.raises(ValueError, match="CR or LF"):
        format_message(Request("INVITE", SipUri(host="h"), Headers([("From", str(address))])))


# -- Responses -------------------------------------------------------------------------------------


def test_response_copies_what_names_the_transaction() -> None:
    request = parsed(
        INVITE.replace(b"Max-F", b"v: SIP/2.0/TCP p;branch=z9hG4bK2\r\nTimestamp: 54\r\nMax-F")
    )
    response = make_response(request, 180, to_tag="ours")
    assert (response.status, response.reason) == (180, "Ringing")
    assert list(response.headers) == [
        ("Via", "SIP/2.0/UDP 192.0.2.42:5060;branch=z9hG4bK7f3a;rport"),
        ("Via", "SIP/2.0/TCP p;branch=z9hG4bK2"),
        ("From", '"Front door" <sip:620@fritz.box>;tag=4f1c'),
        ("To", "<sip:**9@fritz.box;user=phone>;tag=ours"),
        ("Call-ID", "9b1e@192.0.2.42"),
        ("CSeq", "20 INVITE"),
    ]
    check_response(response)
    assert make_response(request, 100).headers.get("Timestamp") == "54"


def test_response_keeps_a_to_tag_that_is_there() -> None:
    request = parsed(request_of("To: <sip:b@example.com>;tag=there"))
    assert make_response(request, 200, to_tag="ours").to.tag == "there"


def test_reason_is_the_usual_one_unless_given() -> None:
    request = parsed(INVITE)
    assert make_response(request, 486).reason == REASONS[486] == "Busy Here"
    assert make_response(request, 400, "no From").reason == "no From"
    assert make_response(request, 499).reason == "Unknown"
