"""RTP packets as a far end writes and reads them, with all that RFC 3550 5.1 lets it send."""

import struct
from dataclasses import dataclass

from doorstation.media.rtp import HEADER


@dataclass(frozen=True)
class RtpPacket:
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


def format_rtp(packet: RtpPacket) -> bytes:
    first = 0x80 | len(packet.csrcs)
    tail = b""
    if packet.padding:
        first |= 0x20
    if packet.extension is not None:
        profile, words = packet.extension
        first |= 0x10
        tail = struct.pack("!HH", profile, len(words) // 4) + words
    second = packet.payload_type | (0x80 if packet.marker else 0)
    header = HEADER.pack(first, second, packet.sequence, packet.timestamp, packet.ssrc)
    csrcs = struct.pack(f"!{len(packet.csrcs)}I", *packet.csrcs)
    padding = bytes(packet.padding - 1) + bytes((packet.padding,)) if packet.padding else b""
    return header + csrcs + tail + packet.payload + padding


def parse_rtp(data: bytes) -> RtpPacket:
    """What the door sends: never with CSRCs, an extension or padding."""
    first, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
    assert first == 0x80
    return RtpPacket(second & 0x7F, sequence, timestamp, ssrc, data[12:], bool(second & 0x80))
