"""Opus (RFC 6716, in RTP by RFC 7587) by libopus, mono at 16 kHz, speech.

The stream in the SDP is always opus/48000/2: any decoder makes mono of 16 kHz out of anything, and
that is all a loudspeaker ten centimetres wide has use for. What the two sides would like to
*receive* stands in `a=fmtp`.

A packet may repeat its predecessor at a lower rate (in-band FEC). It is sent when the far end asks
for it, more of it with more loss reported; it is used when the predecessor did not come.
"""

import ctypes
import functools
from typing import Final

from doorstation.errors import DoorstationError, MalformedPacket
from doorstation.media.codec import Codec

FMTP: Final = "maxplaybackrate=16000;useinbandfec=1"
"""What we would like to receive; short, since an INVITE has to fit into a datagram."""

_RATE: Final = 16000
_LONGEST: Final = _RATE * 120 // 1000
"""Samples of the longest packet that there is (RFC 6716 §3.2.5)."""

_FRAMES_MS: Final = (120, 100, 80, 60, 40, 20, 10)
_ROOM: Final = 1275
"""Octets of a packet: more than ours ever has."""

_BITRATE: Final = 32000
"""Speech of 8 kHz is good at 20 kbit/s (RFC 7587 §3.1.1); the rest is there for the FEC."""

_LEAST_LOSS: Final = 5
"""Percent expected before anything is reported: without any, libopus repeats nothing."""
_MOST_LOSS: Final = 30

# opus_defines.h
_VOIP: Final = 2048
_VOICE: Final = 3001
_SET_BITRATE: Final = 4002
_SET_MAX_BANDWIDTH: Final = 4004
_SET_VBR: Final = 4006
_SET_COMPLEXITY: Final = 4010
_SET_INBAND_FEC: Final = 4012
_SET_PACKET_LOSS_PERC: Final = 4014
_SET_DTX: Final = 4016
_SET_SIGNAL: Final = 4024
_BANDWIDTHS: Final = ((8000, 1101), (12000, 1102), (16000, 1103))
"""The far end's playback rate, and the widest sound that makes sense for it."""


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libopus.so.0")
    except OSError as error:
        raise DoorstationError(
            "libopus is missing: without it no call speaks Opus. Install the package libopus0"
        ) from error
    number, pointer, text = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
    for name, arguments in (
        ("opus_encoder_get_size", [number]),
        ("opus_encoder_init", [pointer, ctypes.c_int32, number, number]),
        ("opus_encode", [pointer, text, number, pointer, ctypes.c_int32]),
        ("opus_encoder_ctl", [pointer, number]),
        ("opus_decoder_get_size", [number]),
        ("opus_decoder_init", [pointer, ctypes.c_int32, number]),
        ("opus_decode", [pointer, text, ctypes.c_int32, pointer, number, number]),
        ("opus_packet_get_nb_samples", [text, ctypes.c_int32, ctypes.c_int32]),
    ):
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = number
    return library


def require() -> None:
    """Raise DoorstationError naming the package when libopus is not installed."""
    _library()


def _parameters(fmtp: str) -> dict[str, int]:
    """`"useinbandfec=1; usedtx=0"` -> numbers by lower-case name; what is no number is left out."""
    found: dict[str, int] = {}
    for part in fmtp.split(";"):
        name, _, value = part.partition("=")
        value = value.strip()
        if value.isascii() and value.isdigit() and len(value) <= 9:
            found.setdefault(name.strip().lower(), int(value))
    return found


class Opus(Codec):
    """Both directions of a call; `fmtp`: what the far end would like to receive.

    `complexity`, 0 to 10: CPU time for quality; below 2 libopus repeats nothing, whoever asks.
    Raises DoorstationError without libopus.
    """

    __slots__ = ("_decoder", "_encoder", "_fec", "_library", "_payload", "_pcm")
    rate = _RATE
    clock = 48000

    def __init__(self, fmtp: str = "", complexity: int = 3) -> None:
        self._library = opus = _library()
        # libopus keeps its state in memory of ours, which needs no end.
        self._encoder = ctypes.create_string_buffer(opus.opus_encoder_get_size(1))
        self._decoder = ctypes.create_string_buffer(opus.opus_decoder_get_size(1))
        self._payload = ctypes.create_string_buffer(_ROOM)
        self._pcm = ctypes.create_string_buffer(2 * _LONGEST)
        opus.opus_encoder_init(self._encoder, _RATE, 1, _VOIP)
        opus.opus_decoder_init(self._decoder, _RATE, 1)
        wishes = _parameters(fmtp)
        playback = wishes.get("maxplaybackrate", _RATE)
        wide = next((width for rate, width in _BANDWIDTHS if playback <= rate), 1103)
        self._fec = wishes.get("useinbandfec") == 1
        for request, value in (
            (_SET_SIGNAL, _VOICE),
            (_SET_COMPLEXITY, complexity),
            (_SET_MAX_BANDWIDTH, wide),
            (_SET_BITRATE, max(6000, min(_BITRATE, wishes.get("maxaveragebitrate", _BITRATE)))),
            (_SET_VBR, wishes.get("cbr") != 1),
            (_SET_DTX, wishes.get("usedtx") == 1),
            (_SET_INBAND_FEC, self._fec),
            (_SET_PACKET_LOSS_PERC, _LEAST_LOSS),
        ):
            self._set(request, value)

    def encode(self, pcm: bytes) -> bytes:
        size = self._library.opus_encode(self._encoder, pcm, len(pcm) // 2, self._payload, _ROOM)
        # One or two octets: nothing but a mark that silence goes on, which a gap says too.
        return ctypes.string_at(self._payload, size) if size > 2 else b""

    def decode(self, payload: bytes) -> bytes:
        if not payload:
            raise MalformedPacket("Opus payload of 0 octets")
        count = self._library.opus_decode(
            self._decoder, payload, len(payload), self._pcm, _LONGEST, 0
        )
        if count <= 0:
            raise MalformedPacket(f"Opus payload of {len(payload)} octets: libopus says {count}")
        return ctypes.string_at(self._pcm, 2 * count)

    def samples(self, payload: bytes) -> int:
        count: int = self._library.opus_packet_get_nb_samples(payload, len(payload), _RATE)
        return max(0, count)

    def packet_ms(self, wanted: int) -> int:
        return next((ms for ms in _FRAMES_MS if ms <= wanted), _FRAMES_MS[-1])

    def conceal(self, count: int) -> bytes:
        return self._missing(None, count)

    def recover(self, payload: bytes, count: int) -> bytes:
        return self._missing(payload, count)

    def expect_loss(self, percent: float) -> None:
        if self._fec:
            expected = max(_LEAST_LOSS, min(_MOST_LOSS, round(percent)))
            self._set(_SET_PACKET_LOSS_PERC, expected)

    def _missing(self, payload: bytes | None, count: int) -> bytes:
        """What libopus makes of a loss, in the pieces it can make: 2.5 ms, at most 120 at once."""
        step = _RATE // 400
        pieces: list[bytes] = []
        left = -(-count // step) * step
        while left:
            piece = min(left, _LONGEST)
            left -= piece
            last = None if left else payload  # only what is next to the packet is in it
            made = self._library.opus_decode(
                self._decoder, last, len(last) if last else 0, self._pcm, piece, bool(last)
            )
            if made != piece:
                made = self._library.opus_decode(self._decoder, None, 0, self._pcm, piece, 0)
            pieces.append(ctypes.string_at(self._pcm, 2 * max(0, made)))
        return b"".join(pieces)[: 2 * count].ljust(2 * count, b"\0")

    def _set(self, request: int, value: int) -> None:
        # A variable number of arguments in C: the value has to be of C's type by itself.
        self._library.opus_encoder_ctl(self._encoder, request, ctypes.c_int(value))
