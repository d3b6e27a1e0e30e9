"""WAV files as bytes, from nothing but numbers."""

import struct


def wav_bytes(
    pcm: bytes,
    rate: int,
    *,
    channels: int = 1,
    bits: int = 16,
    code: int = 1,
    extensible: bool = False,
) -> bytes:
    """A RIFF WAVE file around raw sample data."""
    frame = channels * bits // 8
    layout = struct.pack("<HHIIHH", code, channels, rate, rate * frame, frame, bits)
    if extensible:
        layout = b"\xfe\xff" + layout[2:]
        layout += struct.pack("<HHI", 22, bits, 0) + b"\x01\x00" + bytes(14)
    chunks = b"fmt " + struct.pack("<I", len(layout)) + layout
    chunks += b"LIST" + struct.pack("<I", 3) + b"abc\0"  # odd length, padded
    chunks += b"data" + struct.pack("<I", len(pcm)) + pcm
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks
