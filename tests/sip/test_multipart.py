"""Bodies of several parts, as gateways write them."""

import pytest
from doorstation.sip.headers import Headers
from doorstation.sip.message import Response
from doorstation.sip.multipart import MAX_PARTS, part_of
from hypothesis import given
from hypothesis import strategies as st

SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n"
WANTED = b"Content-Type: application/sdp\r\n\r\n" + SDP
OTHER = b"Content-Type: application/isup;version=itu-t92+\r\n\r\n\x01\x00\n--\xff\r\n"
MIXED = "multipart/mixed;boundary=b"


def message(*parts: bytes, kind: str = MIXED, end: bytes = b"--") -> Response:
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b" + end
    return Response(200, "OK", Headers([("Content-Type", kind)]), body)


def sdp_of(found: Response) -> bytes | None:
    return part_of(found, "application/sdp", "session")


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/mixed;boundary=b",
        'Multipart/Mixed; charset="x"; Boundary="b"; q=1',
        "multipart/related ; boundary = b",
    ],
)
def test_part_is_found_by_its_type_octet_by_octet(kind: str) -> None:
    assert sdp_of(message(OTHER, WANTED, OTHER, kind=kind)) == SDP


@pytest.mark.parametrize(
    "part",
    [
        b"content-type:Application/SDP ;charset=utf-8\r\nX: y\r\n\r\n" + SDP,
        b"Content-Disposition: session;handling=required\r\n" + WANTED,
        b"Content-Transfer-Encoding: 8BIT\r\n" + WANTED,
        WANTED.replace(b"sdp\r\n\r\n", b"sdp\n\n"),
    ],
)
def test_header_of_a_part_is_read_tolerantly(part: bytes) -> None:
    assert sdp_of(message(part)) == SDP


@pytest.mark.parametrize(
    "part",
    [
        b"Content-Disposition: early-session\r\n" + WANTED,  # RFC 3959
        b"Content-Transfer-Encoding: base64\r\n" + WANTED,
        b"\r\n" + SDP,
        b"Content-Type: application/sdp",
        b"",
    ],
)
def test_part_that_is_something_else_or_is_no_part_is_passed_over(part: bytes) -> None:
    assert sdp_of(message(part)) is None
    assert sdp_of(message(part, WANTED)) == SDP


def test_what_stands_before_the_first_and_after_the_last_part_is_nothing() -> None:
    found = message(OTHER)
    found.body = WANTED + b"\r\n" + found.body + b"\r\n--b\r\n" + WANTED
    assert sdp_of(found) is None


@pytest.mark.parametrize(
    "kind",
    ["application/sdp", "multipart/mixed", "multipart/mixed;boundary=", f"{MIXED}c"],
)
def test_without_parts_there_is_none(kind: str) -> None:
    assert sdp_of(message(WANTED, kind=kind)) is None


def test_only_so_many_parts_are_looked_at() -> None:
    assert sdp_of(message(*[OTHER] * (MAX_PARTS - 1), WANTED)) is not None
    assert sdp_of(message(*[OTHER] * MAX_PARTS, WANTED)) is None


def test_a_missing_end_is_forgiven() -> None:
    assert sdp_of(message(WANTED, end=b"")) == SDP


pieces = st.sampled_from(
    [b"--b", b"--", b"\r\n", b"\n", b"Content-Type:", b"application/sdp", WANTED]
)


@given(
    st.lists(pieces | st.binary(max_size=4), max_size=20).map(b"".join),
    st.text(max_size=8).map(lambda text: f"multipart/mixed;boundary={text}") | st.just(MIXED),
)
def test_any_body_is_read_without_a_fault(body: bytes, kind: str) -> None:
    found = sdp_of(Response(200, "OK", Headers([("Content-Type", kind)]), body))
    assert found is None or found in body
