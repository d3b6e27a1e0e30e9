"""The patterns for what nearly everyone writes say what the readers of the whole grammar say."""

import re
from typing import Any

import pytest
from doorstation.errors import ProtocolError
from doorstation.sip import headers, message, uri
from doorstation.sip.message import Request, check_request, format_message, parse_message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

INVITE = (
    "INVITE sip:door@198.51.100.7:5060;ob SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKc07.9a1f;rport\r\n"
    "v: SIP/2.0/TCP Phone.Example.test;branch=z9hG4bK77=;received=192.0.2.20;rport=60000\r\n"
    "Record-Route: <sip:192.0.2.1;lr;ftag=1928301774>, <sips:[2001:db8::1]:5061;lr=on>\r\n"
    "Max-Forwards: 69\r\n"
    'From: "Kitchen, 1st" <sip:kitchen@example.test>;tag=1928301774\r\n'
    "To: Door <sip:door@example.test;transport=tcp>\r\n"
    "Call-ID: a84b4c76e66710@192.0.2.20\r\n"
    "CSeq: 314159 INVITE\r\n"
    "Contact: <sip:**9%23@192.0.2.20:65535?a=b>;expires=300;q=0.5;+sip.ice\r\n"
    "X-Odd: ((a;b\r\n"
    "Content-Length: 0\r\n\r\n"
)
# What the grammar hangs on, and what it must refuse.
CHARACTERS = '\r\n\t\0 "\\<>@:;=,?%[]./*Aa0196é_'
PIECES = ["", *CHARACTERS, "\r\n", ";;", ";A=", ":70000", "\r\n "]
edits = st.lists(
    st.tuples(st.integers(0, len(INVITE)), st.integers(0, 2), st.sampled_from(PIECES)),
    max_size=3,
)


def understood(data: bytes) -> Any:
    """All that is read from a message, or the fault found in it."""
    try:
        request = parse_message(data)
        assert isinstance(request, Request)
        check_request(request)
        return (
            request.method, request.uri, list(request.headers), request.body, request.vias,
            request.top_via, request.from_, request.to, request.call_id, request.cseq,
            request.contacts, request.record_routes, format_message(request),
        )  # fmt: skip
    except ProtocolError as fault:
        return fault.reason, fault.status


def understood_by_the_whole_grammar(data: bytes) -> Any:
    never = re.compile(r"(?!)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(message, "_PLAIN_LINE", never)
        patch.setattr(message, "_PLAIN_REQUEST_LINE", never)
        patch.setattr(headers, "_PLAIN_VIA", never)
        patch.setattr(headers, "_PLAIN_ADDRESS", never)
        patch.setattr(headers, "_METHODS", frozenset())
        patch.setattr(uri, "_PLAIN_URI", never)
        return understood(data)


@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(edits)
def test_the_plain_forms_are_read_as_by_the_whole_grammar(
    changes: list[tuple[int, int, str]],
) -> None:
    text = INVITE
    for position, dropped, put in changes:
        text = text[:position] + put + text[position + dropped :]
    data = text.encode()
    assert understood(data) == understood_by_the_whole_grammar(data)
