"""L16 (RFC 3551 §4.5.11): samples as they are, in network byte order."""

import sys
from typing import Final

from doorstation.errors import MalformedPacket
from doorstation.media.codec import Codec
from doorstation.media.pcm import audioop

_LONGEST: Final = 1280
"""Octets of a payload: with all headers, SRTP's too, still one packet on any line."""

_SWAP: Final = sys.byteorder == "little"


class L16(Codec):
    """Mono at 8 or 16 kHz. Remembers nothing."""

    __slots__ = ("clock", "rate")

    def __init__(self, rate: int) -> None:
        self.rate = self.clock = rate

    def encode(self, pcm: bytes) -> bytes:
        return audioop.byteswap(pcm, 2) if _SWAP else pcm

    def decode(self, payload: bytes) -> bytes:
        if len(payload) % 2:
            raise MalformedPacket(f"L16 payload of {len(payload)} octets, an even number needed")
        return audioop.byteswap(payload, 2) if _SWAP else payload

    def samples(self, payload: bytes) -> int:
        return 0 if len(payload) % 2 else len(payload) // 2

    def packet_ms(self, wanted: int) -> int:
        return min(wanted, _LONGEST * 1000 // (2 * self.rate) // 10 * 10)
