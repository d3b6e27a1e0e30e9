"""WAV announcements: 8 or 16 bit PCM or G.711, mono or stereo, read whole from bytes into mono S16.

The reader is ours because the standard library's refuses WAVE_FORMAT_EXTENSIBLE, which is what
several editors write.
"""

import struct
from typing import Final

import msgspec

from doorstation.errors import DoorstationError
from doorstation.media.pcm import audioop

_CHUNK: Final = struct.Struct("<4sI")
_FORMAT: Final = struct.Struct("<HHIIHH")

MAX_SECONDS: Final = 60
"""An announcement at a door; bounds memory: 5.8 MB at 48 kHz."""

_PCM: Final = 1
_ALAW: Final = 6
_ULAW: Final = 7
_EXTENSIBLE: Final = 0xFFFE


class WavError(DoorstationError):
    """A file that is no WAV this firmware plays; the message says what would be."""


class Wav(msgspec.Struct, frozen=True):
    """Mono S16 samples at `rate` Hz."""

    rate: int
    pcm: bytes

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / self.rate


def parse_wav(data: bytes) -> Wav:
    """Read a RIFF WAVE file. Raises WavError saying what is wrong and what would be right."""
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise WavError("not a WAV file: it begins without RIFF and WAVE")
    at = 12
    layout: _Layout | None = None
    while at + 8 <= len(data):
        name, size = _CHUNK.unpack_from(data, at)
        at += 8
        if name == b"fmt ":
            layout = _parse_format(data[at : at + size])
        elif name == b"data":
            if layout is None:
                raise WavError("WAV file with data before its format")
            # Writers that stream leave the size at 0 or at the maximum: the rest of the file it is.
            if size in (0, 0xFFFFFFFF) or at + size > len(data):
                size = len(data) - at
            return _mono(layout, data, at, size)
        at += size + (size & 1)
    raise WavError("WAV file without sound data")


class _Layout(msgspec.Struct, frozen=True):
    code: int
    channels: int
    rate: int
    bits: int


def _parse_format(chunk: bytes) -> _Layout:
    if len(chunk) < 16:
        raise WavError(f"WAV format of {len(chunk)} bytes, 16 needed")
    code, channels, rate, _, _, bits = _FORMAT.unpack_from(chunk)
    if code == _EXTENSIBLE and len(chunk) >= 26:
        code = struct.unpack_from("<H", chunk, 24)[0]
    if code not in (_PCM, _ALAW, _ULAW):
        raise WavError(f"WAV encoding {code}: PCM (1), A-law (6) and mu-law (7) are played")
    if channels not in (1, 2):
        raise WavError(f"WAV with {channels} channels: 1 or 2 are played")
    if bits not in ((8, 16) if code == _PCM else (8,)):
        raise WavError(f"WAV with {bits} bits a sample: 8 or 16 are played, of G.711 8")
    if not 8000 <= rate <= 48000:
        raise WavError(f"WAV at {rate} Hz: 8000 to 48000 are played")
    return _Layout(code, channels, rate, bits)


def _mono(layout: _Layout, data: bytes, at: int, size: int) -> Wav:
    rate = layout.rate
    frame = layout.channels * layout.bits // 8
    frames = size // frame
    if frames == 0:
        raise WavError("WAV file without sound data")
    if frames > MAX_SECONDS * rate:
        raise WavError(f"WAV of {frames // rate} s: {MAX_SECONDS} are played")
    pcm = data[at : at + frames * frame]
    if layout.code == _ALAW:
        pcm = audioop.alaw2lin(pcm, 2)
    elif layout.code == _ULAW:
        pcm = audioop.ulaw2lin(pcm, 2)
    elif layout.bits == 8:
        pcm = audioop.lin2lin(audioop.bias(pcm, 1, 128), 1, 2)  # 8 bits are unsigned in WAV
    if layout.channels == 2:
        pcm = audioop.tomono(pcm, 2, 0.5, 0.5)
    return Wav(rate, pcm)
