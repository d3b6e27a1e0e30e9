"""G.711, both laws (ITU-T G.711; payload types 0 and 8 of RFC 3551). Eight bits a sample."""

from doorstation.media.codec import Codec
from doorstation.media.pcm import audioop


def encode_pcma(pcm: bytes) -> bytes:
    """A-law octets of mono S16 samples."""
    return audioop.lin2alaw(pcm, 2)


def decode_pcma(payload: bytes | memoryview) -> bytes:
    """Mono S16 samples of A-law octets; any length."""
    return audioop.alaw2lin(payload, 2)


def encode_pcmu(pcm: bytes) -> bytes:
    """mu-law octets of mono S16 samples."""
    return audioop.lin2ulaw(pcm, 2)


def decode_pcmu(payload: bytes | memoryview) -> bytes:
    """Mono S16 samples of mu-law octets; any length."""
    return audioop.ulaw2lin(payload, 2)


class _G711(Codec):
    __slots__ = ()
    rate = clock = 8000

    def samples(self, payload: bytes) -> int:
        return len(payload)


class Pcma(_G711):
    """A-law. Remembers nothing."""

    __slots__ = ()
    # The functions themselves: no call more than without a class around them.
    encode = staticmethod(encode_pcma)
    decode = staticmethod(decode_pcma)


class Pcmu(_G711):
    """mu-law. Remembers nothing."""

    __slots__ = ()
    encode = staticmethod(encode_pcmu)
    decode = staticmethod(decode_pcmu)
