"""RTP packets, byte for byte (RFC 3550 5.1)."""

import pytest
from doorstation.errors import MalformedPacket
from doorstation.media.rtp import is_rtcp, payload_bounds
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rtp import RtpPacket, format_rtp

PLAIN = bytes.fromhex("80880001 000000a0 deadbeef") + b"\xd5" * 4

packets = st.builds(
    RtpPacket,
    payload_type=st.integers(0, 127),
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
    ssrc=st.integers(0, 0xFFFFFFFF),
    payload=st.binary(max_size=400),
    marker=st.booleans(),
    csrcs=st.lists(st.integers(0, 0xFFFFFFFF), max_size=15).map(tuple),
    extension=st.none()
    | st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=16).map(lambda b: b[: len(b) // 4 * 4])),
    padding=st.integers(0, 255),
)


def payload(data: bytes) -> bytes:
    start, end = payload_bounds(data)
    return data[start:end]


def test_a_packet_as_a_phone_writes_it() -> None:
    assert payload(PLAIN) == b"\xd5" * 4


def test_csrcs_extension_and_padding_are_not_payload() -> None:
    data = bytes.fromhex(
        "b2000002 00000140 00000001"  # version 2, padding, extension, two CSRCs
        "00000011 00000012"
        "bede0001 10aa0000"
        "d5d5d5 000002"
    )
    assert payload(data) == bytes.fromhex("d5d5d500")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "0 bytes, 12 needed"),
        (PLAIN[:11], "11 bytes, 12 needed"),
        (b"\x00" + PLAIN[1:], "byte 0: RTP version 0"),
        (b"\x8f" + PLAIN[1:], "byte 0: 15 CSRCs need 72 bytes, the packet has 16"),
        (b"\x90" + PLAIN[1:12] + b"\xbe\xde", "byte 12: extension header cut off"),
        (b"\x90" + PLAIN[1:12] + b"\xbe\xde\x00\x09", "byte 14: extension of 9 words"),
        (b"\xa0" + PLAIN[1:15] + b"\x00", "byte 15: padding of 0 bytes"),
        (b"\xa0" + PLAIN[1:15] + b"\x05", "byte 15: padding of 5 bytes, 1 to 4 possible"),
    ],
)
def test_a_malformed_packet_names_the_byte(data: bytes, fault: str) -> None:
    with pytest.raises(MalformedPacket, match=fault):
        payload_bounds(data)


def test_rtcp_on_the_same_port_is_told_by_its_second_byte() -> None:
    assert is_rtcp(bytes.fromhex("80c80006"))
    assert not is_rtcp(PLAIN)
    assert not is_rtcp(b"\x80")


@given(packets)
def test_payload_is_found_behind_whatever_a_header_may_hold(packet: RtpPacket) -> None:
    assert payload(format_rtp(packet)) == packet.payload


@given(st.binary(max_size=200))
def test_any_bytes_give_a_payload_inside_of_them_or_our_own_error(data: bytes) -> None:
    try:
        start, end = payload_bounds(data)
    except MalformedPacket:
        return
    assert 12 <= start <= end <= len(data)
