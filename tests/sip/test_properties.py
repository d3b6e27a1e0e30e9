"""What holds for every message: written reads back, any octets are survived, cuts do not matter."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from doorstation.ids import SeededIds
from doorstation.sip.digest import Credential, DigestClient, DigestServer
from doorstation.sip.headers import (
    KEYS,
    Challenge,
    Credentials,
    CSeq,
    Headers,
    NameAddr,
    Via,
    format_challenge,
    format_credentials,
    format_cseq,
    format_name_addr,
    format_via,
    parse_challenge,
    parse_credentials,
    parse_cseq,
    parse_name_addr,
    parse_via,
)
from doorstation.sip.message import (
    KeepAlive,
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
from doorstation.sip.uri import OtherUri, SipUri, Uri, format_uri, parse_uri, same_uri
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

quick = settings(max_examples=150, suppress_health_check=list(HealthCheck))

ALPHANUMERIC = "abcXYZ019"
tokens = st.text(ALPHANUMERIC + "-.!%*_+`'~", min_size=1, max_size=12)
names = tokens.map(str.lower)
# Quoted strings hold anything but line ends; lone surrogates are no text at all.
quotable = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
hosts = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]{1,5}){0,2}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)
ports = st.none() | st.integers(0, 65535)
header_params = st.lists(st.tuples(names, st.none() | tokens | quotable), max_size=4).map(tuple)
uri_values = st.text(ALPHANUMERIC + "-_.!~*'()[]/:&+$%", max_size=8)
user_parts = st.text(ALPHANUMERIC + "-_.!~*'()&=+$,;?/%#é", max_size=12)
sip_uris = st.builds(
    SipUri,
    scheme=st.sampled_from(["sip", "sips"]),
    user=user_parts.filter(bool),
    host=hosts,
    port=ports,
    password=st.none() | st.text(ALPHANUMERIC + "-_.!~*'()&=+$,", max_size=6),
    params=st.lists(
        st.tuples(st.text("abc019-_.+", min_size=1, max_size=6), st.none() | uri_values), max_size=3
    ).map(tuple),
    headers=st.lists(
        st.tuples(st.text("abcXYZ-", min_size=1, max_size=6), st.text("abc%20+$/?", max_size=6)),
        max_size=3,
    ).map(tuple),
)
other_uris = st.builds(
    OtherUri,
    st.sampled_from(["tel", "http", "urn", "im"]),
    st.text("abc019+-.;=/:%", min_size=1, max_size=12),
)
uris: st.SearchStrategy[Uri] = sip_uris | other_uris
displays = quotable
addresses = st.builds(NameAddr, uris, displays, header_params)
vias = st.builds(Via, tokens.map(str.upper), hosts, ports, header_params)
cseqs = st.builds(CSeq, st.integers(0, 2**31 - 1), tokens)
auth_params = st.lists(st.tuples(names, tokens | quotable), max_size=6).map(tuple)
header_values = st.text(
    st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=30
).map(lambda text: text.strip(" \t"))
header_lines = st.lists(
    st.tuples(
        st.sampled_from(["Via", "v", "From", "TO", "call-id", "m", "X-Door", "Subject"]) | tokens,
        header_values,
    ).filter(lambda line: KEYS[line[0]] != "content-length"),
    max_size=12,
).map(Headers)
requests = st.builds(Request, tokens, uris, header_lines, st.binary(max_size=40))
reasons = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=9)
responses = st.builds(
    Response,
    st.integers(100, 699),
    reasons,
    header_lines,
    st.binary(max_size=40),
)
messages: st.SearchStrategy[Message] = requests | responses

CALL = b"""\
INVITE sip:**9@fritz.box;user=phone SIP/2.0\r
Via: SIP/2.0/UDP 192.0.2.42:5060;branch=z9hG4bK7f3a;rport, SIP/2.0/TCP [2001:db8::1]\r
Max-Forwards: 70\r
From: "Front \\"door" <sip:620@fritz.box>;tag=4f1c\r
t: <sip:**9@fritz.box;user=phone>\r
Call-ID: 9b1e@192.0.2.42\r
CSeq: 20 INVITE\r
m: <sip:620@192.0.2.42:5060;ob>;+sip.instance="<urn:uuid:1>",\r
 sip:x@y;q=1\r
Authorization: Digest username="a", realm="door", nonce="1-2-3", uri="sip:h", response="00"\r
WWW-Authenticate: Digest realm="door", nonce="1", qop="auth,auth-int", algorithm=SHA-256\r
Expires: 60\r
Content-Type: application/sdp\r
Content-Length: 5\r
\r
v=0\r
"""


# -- Written reads back ----------------------------------------------------------------------------


@quick
@given(uris)
def test_every_uri_reads_back(uri: Uri) -> None:
    assert parse_uri(format_uri(uri)) == uri
    assert same_uri(uri, uri)


@quick
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_every_dial_string_is_what_the_user_part_says(text: str) -> None:
    uri = parse_uri(format_uri(SipUri.of(text, "h")))
    assert isinstance(uri, SipUri)
    assert uri.user_text == text


@quick
@given(addresses)
def test_every_address_reads_back(address: NameAddr) -> None:
    assert parse_name_addr(format_name_addr(address)) == address


@quick
@given(vias)
def test_every_via_reads_back(via: Via) -> None:
    assert parse_via(format_via(via)) == via


@quick
@given(cseqs)
def test_every_cseq_reads_back(cseq: CSeq) -> None:
    assert parse_cseq(format_cseq(cseq)) == cseq


@quick
@given(tokens, auth_params)
def test_every_challenge_reads_back(
    scheme: str, params: tuple[tuple[str, str | None], ...]
) -> None:
    assert parse_challenge(format_challenge(Challenge(scheme, params))) == Challenge(scheme, params)
    credentials = Credentials(scheme, params)
    assert parse_credentials(format_credentials(credentials)) == credentials


@quick
@given(messages)
def test_every_message_reads_back(message: Message) -> None:
    data = format_message(message)
    read = parse_message(data)
    read.headers.remove("Content-Length")
    assert read == message
    assert format_message(parse_message(data)) == data


@quick
@given(st.lists(addresses, min_size=1, max_size=5))
def test_every_list_of_addresses_is_cut_where_it_was_joined(contacts: list[NameAddr]) -> None:
    line = ", ".join(format_name_addr(contact) for contact in contacts)
    request = Request("REGISTER", SipUri(host="h"), Headers([("Contact", line)]))
    assert list(request.contacts) == contacts


# -- Any octets are survived -----------------------------------------------------------------------


def touch_everything(data: bytes) -> None:
    """Read all there is to read, as a transaction user would: only ProtocolErrors may come."""
    try:
        message = parse_message(data)
    except MalformedMessage as fault:
        if fault.request is None:
            return
        answer = make_response(fault.request, fault.status, fault.reason, to_tag="x")
        format_message(answer)
        answer.top_via.sent_by  # noqa: B018
        message = fault.request
    for name in dir(type(message)):
        if not name.startswith("_"):
            try:
                getattr(message, name)
            except MalformedMessage:
                continue
    try:
        if isinstance(message, Request):
            check_request(message)
            DigestServer("door", b"k", {"a": "b"}, SeededIds()).verify(message, 0.0)
            format_message(make_response(message, 200, to_tag="x"))
        else:
            check_response(message)
    except MalformedMessage:
        pass
    challenge = Response(401, "", message.headers)
    DigestClient(Credential("a", "b"), SeededIds()).answer(
        Request("INVITE", SipUri(host="h"), message.headers), challenge
    )
    # Whatever was read can be written: a proxy's copy of it never fails.
    format_message(message)


@quick
@given(st.binary(max_size=200))
def test_any_octets_raise_nothing_but_malformed_message(data: bytes) -> None:
    touch_everything(data)


PIECES = [bytes([octet]) for octet in b'"\\<>,;=:[]%\r\n\0\xff @?'] + [
    b"\r\n",
    b"\r\n\r\n",
    b"9" * 30,
    "\u2028".encode(),
]


@settings(quick, max_examples=300)
@given(st.data())
def test_a_call_with_octets_changed_raises_nothing_but_malformed_message(
    data: st.DataObject,
) -> None:
    octets = bytearray(CALL)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(octets) - 1))
        piece = data.draw(st.sampled_from(PIECES) | st.binary(max_size=3))
        octets[at : at + data.draw(st.integers(0, 3))] = piece
    touch_everything(bytes(octets))


@quick
@given(st.text(max_size=40), st.sampled_from([parse_uri, parse_via, parse_cseq, parse_name_addr]))
def test_any_text_raises_nothing_but_malformed_message(
    text: str, parse: Callable[[str], object]
) -> None:
    with suppress(MalformedMessage):
        parse(text)


# -- Cuts do not matter ----------------------------------------------------------------------------


Received = list[Message | KeepAlive | tuple[str, int]]


def received(pieces: list[bytes]) -> Received:
    """All a stream gives, up to where it breaks; faults by their reason, as they do not compare."""
    reader = StreamReader(max_head=2_000, max_body=100)
    items: list[Message | KeepAlive | MalformedMessage] = []
    end: Received = []
    for piece in pieces:
        try:
            items += reader.receive(piece)
        except StreamBroken as fault:
            items += fault.received
            end.append((fault.reason, 0))
            break
    return [
        (item.reason, item.status) if isinstance(item, MalformedMessage) else item for item in items
    ] + end


stream_parts = st.lists(
    st.sampled_from(
        [
            CALL,
            CALL.replace(b"CSeq", b"CSe q"),
            CALL.replace(b"SIP/2.0\r\n", b"SIP/4.0\r\n", 1),
            CALL.replace(b"Content-Length: 5", b"Content-Length: 999"),
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"SIP/2.0 200 OK\r\nl: 3\r\n\r\nabc",
            b"SIP/2.0 200 OK\n\nSIP/2.0 100 \r\n\r\n",
            b"garbage\r\n",
            b"X: y\r\n" * 400,
        ]
    )
    | st.binary(max_size=5),
    max_size=5,
)


@settings(quick, max_examples=250)
@given(stream_parts, st.lists(st.integers(0, 6_000), max_size=8))
def test_stream_gives_the_same_however_it_is_cut(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [stream[begin:end] for begin, end in pairwise(edges)]
    assert received(pieces) == received([stream])


# -- Time is bounded -------------------------------------------------------------------------------


HOSTILE = [
    b"\r\n" * 30_000,
    b"INVITE sip:h SIP/2.0\r\n" + b"X:y\r\n" * 12_000 + b"\r\n",
    b"INVITE sip:h SIP/2.0\r\nVia: " + b"," * 30_000 + b"\r\n\r\n",
    b"INVITE sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h" + b";a" * 15_000 + b"\r\n\r\n",
    b'INVITE sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h;a="' + b'\\"' * 15_000 + b"\r\n\r\n",
    b"INVITE sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nTo: " + b'\\"' * 15_000 + b"\r\n\r\n",
    b"INVITE sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nTo: " + b"<" * 30_000 + b"\r\n\r\n",
    b"INVITE sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nTo: " + b" " * 30_000 + b"x\r\n\r\n",
    b"INVITE sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nTo:" + b"\r\n " * 10_000 + b"x\r\n\r\n",
    b"INVITE sip:" + b"a" * 30_000 + b" SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n\r\n",
    b"INVITE sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nCSeq: " + b"1" * 30_000 + b" INVITE\r\n\r\n",
    b"INVITE sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nl: " + b"1" * 30_000 + b"\r\n\r\n",
    b"INVITE sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nWWW-Authenticate: D a=" + b",a=" * 10_000,
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_lengths_cost_a_bounded_number_of_steps(data: bytes) -> None:
    """Counted in lines of Python run, so that a loop over each octet would show on any machine."""
    steps = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += event == "line"
        return count

    sys.settrace(count)
    try:
        touch_everything(data)
    finally:
        sys.settrace(None)
    assert steps < 10_000


def seconds(data: bytes) -> float:
    """The least that reading took, of three times."""
    took: list[float] = []
    for _ in range(3):
        began = time.thread_time()
        touch_everything(data)
        took.append(time.thread_time() - began)
    return min(took)


def test_lines_that_end_in_lf_alone_cost_no_more_than_others() -> None:
    """Each value was looked for to the end of the head: 32 kB held the loop for 0.2 s."""
    start = b"INVITE sip:h SIP/2.0\r\n"
    usual = start + b"a: x\r\n" * 5_000 + b"\r\n"
    assert seconds(usual.replace(b"x\r\n", b"x\n")) < 5 * seconds(usual)
