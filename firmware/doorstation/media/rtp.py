"""RTP packets (RFC 3550 5.1): a strict writer and a bounded reader."""

import struct
from typing import Final

import msgspec

from doorstation.errors import MalformedPacket

HEADER: Final = struct.Struct("!BBHII")
_EXTENSION: Final = struct.Struct("!HH")
_WORD: Final = struct.Struct("!I")

VERSION: Final = 2


class RtpPacket(msgspec.Struct, frozen=True):
    """One packet. `timestamp` in ticks of the payload's clock.

    `extension` is (profile, whole 32-bit words); `padding` counts the octets after the payload.
    """

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes = b""
    marker: bool = False
    csrcs: tuple[int, ...] = ()
    extension: tuple[int, bytes] | None = None
    padding: int = 0


def is_rtcp(data: bytes | memoryview) -> bool:
    """Whether a datagram on a shared port is RTCP: second octet 192 to 223 (RFC 5761 4)."""
    return len(data) > 1 and 192 <= data[1] <= 223


def payload_bounds(data: bytes | memoryview) -> tuple[int, int]:
    """Where the payload of a packet begins and ends, after CSRCs, extension and padding.

    Raises MalformedPacket naming the octet that is wrong.
    """
    size = len(data)
    if size < 12:
        raise MalformedPacket(f"RTP packet of {size} bytes, 12 needed")
    first = data[0]
    if first >> 6 != VERSION:
        raise MalformedPacket(f"byte 0: RTP version {first >> 6}, {VERSION} needed")
    start = 12 + 4 * (first & 0x0F)
    if start > size:
        raise MalformedPacket(
            f"byte 0: {first & 0x0F} CSRCs need {start} bytes, the packet has {size}"
        )
    if first & 0x10:
        if start + 4 > size:
            raise MalformedPacket(f"byte {start}: extension header cut off, the packet has {size}")
        words = _EXTENSION.unpack_from(data, start)[1]
        end_of_extension = start + 4 + 4 * words
        if end_of_extension > size:
            raise MalformedPacket(
                f"byte {start + 2}: extension of {words} words needs {end_of_extension} bytes, "
                f"the packet has {size}"
            )
        start = end_of_extension
    end = size
    if first & 0x20:
        padding = data[size - 1]
        if padding == 0 or padding > size - start:
            raise MalformedPacket(
                f"byte {size - 1}: padding of {padding} bytes, 1 to {size - start} possible"
            )
        end -= padding
    return start, end


def parse_rtp(data: bytes) -> RtpPacket:
    """Read one datagram. Raises MalformedPacket naming the octet that is wrong."""
    start, end = payload_bounds(data)
    first, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
    count = first & 0x0F
    csrcs = tuple(_WORD.unpack_from(data, 12 + 4 * i)[0] for i in range(count))
    extension = None
    if first & 0x10:
        at = 12 + 4 * count
        extension = (_EXTENSION.unpack_from(data, at)[0], bytes(data[at + 4 : start]))
    return RtpPacket(
        payload_type=second & 0x7F,
        sequence=sequence,
        timestamp=timestamp,
        ssrc=ssrc,
        payload=bytes(data[start:end]),
        marker=bool(second & 0x80),
        csrcs=csrcs,
        extension=extension,
        padding=len(data) - end,
    )


def format_rtp(packet: RtpPacket) -> bytes:
    """Write one datagram. Raises ValueError for a field that does not fit."""
    if len(packet.csrcs) > 15:
        raise ValueError(f"{len(packet.csrcs)} CSRCs, 15 fit")
    if not 0 <= packet.payload_type <= 127:
        raise ValueError(f"payload type {packet.payload_type}, 0 to 127 fit")
    if not 0 <= packet.padding <= 255:
        raise ValueError(f"padding of {packet.padding} bytes, 0 to 255 fit")
    first = VERSION << 6 | len(packet.csrcs)
    if packet.padding:
        first |= 0x20
    tail = b""
    if packet.extension is not None:
        profile, words = packet.extension
        if len(words) % 4:
            raise ValueError(f"extension of {len(words)} bytes, whole words needed")
        first |= 0x10
        tail = _EXTENSION.pack(profile, len(words) // 4) + words
    header = HEADER.pack(
        first,
        packet.payload_type | (0x80 if packet.marker else 0),
        packet.sequence,
        packet.timestamp,
        packet.ssrc,
    )
    padding = bytes(packet.padding - 1) + bytes((packet.padding,)) if packet.padding else b""
    csrcs = b"".join(map(_WORD.pack, packet.csrcs))
    return b"".join((header, csrcs, tail, packet.payload, padding))
