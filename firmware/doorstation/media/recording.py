"""What a recording for diagnosis is made of: a WAV of four channels and a packet trace, in a tar.

Both are written raw while the call runs, and get their headers when their lengths are known. The
trace is a classic pcap of raw IP packets, which Wireshark opens and decodes as RTP: addresses and
ports are what the sockets say, the rest of the headers is made up.
"""

import ipaddress
import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from doorstation.media.resample import Resampler

Address = tuple[str, int]

RATE: Final = 16000
TRACKS: Final = ("microphone", "reference", "sent", "received")

_WAV: Final = struct.Struct("<4sI4s4sIHHIIHH4sI")
_PCAP: Final = struct.Struct("<IHHiIII")
_RECORD: Final = struct.Struct("<IIII")
_RAW_IP: Final = 101

OVERHEAD: Final = 4096
"""Most bytes of the file that are neither sound nor packets: headers, and what fills blocks."""


class Tick(msgspec.Struct, frozen=True):
    """What sounded in 20 ms. The first two are at the card's rate, the others at the calls'."""

    card_rate: int
    rate: int
    microphone: bytes
    reference: bytes
    sent: bytes
    received: bytes


class Packet(msgspec.Struct, frozen=True):
    """A datagram as it passed the socket, encrypted if the call is; `at` in seconds, any clock."""

    at: float
    source: Address
    destination: Address
    data: bytes


class Tracks:
    """Brings the four tracks to one rate and length, in frames of four samples."""

    def __init__(self) -> None:
        self._converters: dict[int, Resampler] = {}
        self._rates = [RATE] * len(TRACKS)
        self._waiting = [b""] * len(TRACKS)

    def frames(self, ticks: Sequence[Tick]) -> bytes:
        """What is complete by now; some ticks at once cost the least.

        Raises DoorstationError when libspeexdsp is needed and missing.
        """
        for index, name in enumerate(TRACKS):
            for tick in ticks:
                pcm: bytes = getattr(tick, name)
                self._waiting[index] += self._converted(
                    index, pcm, tick.card_rate if index < 2 else tick.rate
                )
        microphone, reference, sent, received = (len(track) for track in self._waiting)
        size = min(microphone, sent, received)
        if reference < size:  # the card was shut, or took less to keep its queue short
            self._waiting[1] = self._waiting[1].ljust(size, b"\0")
        frames = array("h", bytes(len(TRACKS) * size))
        for index, track in enumerate(self._waiting):
            frames[index :: len(TRACKS)] = array("h", track[:size])
            self._waiting[index] = track[size:]
        return frames.tobytes()

    def _converted(self, index: int, pcm: bytes, rate: int) -> bytes:
        if rate != self._rates[index]:
            self._rates[index] = rate
            old = self._converters.pop(index, None)
            if old is not None:
                old.close()
            if rate != RATE:
                self._converters[index] = Resampler(rate, RATE)
        converter = self._converters.get(index)
        return pcm if converter is None else converter.process(pcm)

    def close(self) -> None:
        """Free the converters."""
        for converter in self._converters.values():
            converter.close()
        self._converters.clear()


def wav_header(size: int) -> bytes:
    """Of `size` bytes of frames."""
    channels = len(TRACKS)
    return _WAV.pack(
        *(b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, channels, RATE),
        *(2 * channels * RATE, 2 * channels, 16, b"data", size),
    )


def pcap_header() -> bytes:
    return _PCAP.pack(0xA1B2C3D4, 2, 4, 0, 0, 65535, _RAW_IP)


def pcap_record(packet: Packet, offset: float) -> bytes:
    """One datagram; `offset`: seconds from its clock to the time of day."""
    at = packet.at + offset
    data = _datagram(packet)
    return _RECORD.pack(int(at), int(at % 1 * 1e6), len(data), len(data)) + data


def _datagram(packet: Packet) -> bytes:
    size = 8 + len(packet.data)
    source = ipaddress.ip_address(packet.source[0].partition("%")[0])
    destination = ipaddress.ip_address(packet.destination[0].partition("%")[0])
    # 0 is no checksum at all: nobody sent these headers.
    udp = struct.pack("!HHHH", packet.source[1], packet.destination[1], size, 0)
    # A socket on every address names none, perhaps of the other family.
    if source.is_unspecified:
        source = type(destination)(0)
    elif destination.is_unspecified:
        destination = type(source)(0)
    if destination.version == 6:
        ip = struct.pack("!IHBB", 6 << 28, size, 17, 64)
    else:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, 17, 0)
    return ip + source.packed + destination.packed + udp + packet.data


def archive(members: Sequence[tuple[str, bytes, bytes]], at: float) -> Iterator[bytes]:
    """A tar of these files, made at a time of day, in pieces to be written one after the other.

    `members`: name, header and content of each; the content, which is long, is never copied.
    """
    import tarfile  # a megabyte, with compression libraries: for who records alone

    for name, header, content in members:
        entry = tarfile.TarInfo(name)
        entry.size = len(header) + len(content)
        entry.mode = 0o600
        entry.mtime = int(at)
        yield entry.tobuf(tarfile.USTAR_FORMAT)
        yield header
        yield content
        yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
