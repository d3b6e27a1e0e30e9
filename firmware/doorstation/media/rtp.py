"""RTP packets (RFC 3550 5.1): the fixed header, and where the payload lies."""

import struct
from typing import Final

from doorstation.errors import MalformedPacket

HEADER: Final = struct.Struct("!BBHII")
"""Version and flags, marker and payload type, sequence number, timestamp, SSRC: 12 bytes."""
_EXTENSION: Final = struct.Struct("!HH")

VERSION: Final = 2


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
