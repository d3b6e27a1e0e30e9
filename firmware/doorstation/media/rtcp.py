"""RTCP (RFC 3550 6): compound packets, reception statistics (A.1, A.3, A.8), round trip.

With the VoIP metrics of extended reports (RFC 3611 4.7).

Times in reports are 64-bit NTP values of the session's own monotonic clock: RFC 3550 6.4.1 allows
a clock that only counts elapsed time, and the round trip needs no more.
"""

import struct
from typing import Final

import msgspec
from msgspec.structs import astuple

from doorstation.errors import MalformedPacket
from doorstation.media.quality import Bursts

_HEADER: Final = struct.Struct("!BBH")
_WORD: Final = struct.Struct("!I")
_SENDER: Final = struct.Struct("!QIII")
_BLOCK: Final = struct.Struct("!IIIIII")
_XR_BLOCK: Final = struct.Struct("!BBH")
_METRICS: Final = struct.Struct("!IBBBBHHHHbbBBBBBBBxHHH")

SR: Final = 200
RR: Final = 201
SDES: Final = 202
BYE: Final = 203
XR: Final = 207

CNAME: Final = 1

VOIP_METRICS: Final = 7
"""Block type of `VoipMetrics`."""

UNKNOWN: Final = 127
"""A level, R factor or MOS of `VoipMetrics` that is not known."""


class ReportBlock(msgspec.Struct, frozen=True):
    """What one receiver heard of one source. `fraction_lost` in 1/256; `jitter` in ticks.

    `last_sr` and `delay` are in 1/65536 s.
    """

    ssrc: int
    fraction_lost: int
    cumulative_lost: int
    highest_sequence: int
    jitter: int
    last_sr: int
    delay: int


class SenderReport(msgspec.Struct, frozen=True):
    """`ntp`: 64 bits, 2^-32 s since 1900; `timestamp`: the same instant in RTP ticks."""

    ssrc: int
    ntp: int
    timestamp: int
    packets: int
    octets: int
    blocks: tuple[ReportBlock, ...] = ()
    extension: bytes = b""


class ReceiverReport(msgspec.Struct, frozen=True):
    ssrc: int
    blocks: tuple[ReportBlock, ...] = ()
    extension: bytes = b""


class SourceDescription(msgspec.Struct, frozen=True):
    """Chunks of (ssrc, ((item type, text octets), ...))."""

    chunks: tuple[tuple[int, tuple[tuple[int, bytes], ...]], ...]


class Bye(msgspec.Struct, frozen=True):
    ssrcs: tuple[int, ...]
    reason: bytes = b""


class VoipMetrics(msgspec.Struct, frozen=True):
    """How one receiver hears one source (RFC 3611 4.7).

    Rates and densities in 1/256; durations and delays in ms; levels in dBm0; `rerl`: residual echo
    return loss in dB; MOS in tenths. `rx_config`: concealment and kind of jitter buffer, as bits.
    """

    ssrc: int
    loss_rate: int = 0
    discard_rate: int = 0
    burst_density: int = 0
    gap_density: int = 0
    burst_duration: int = 0
    gap_duration: int = 0
    round_trip: int = 0
    end_system_delay: int = 0
    signal_level: int = UNKNOWN
    noise_level: int = UNKNOWN
    rerl: int = UNKNOWN
    gmin: int = 16
    r_factor: int = UNKNOWN
    external_r_factor: int = UNKNOWN
    mos_lq: int = UNKNOWN
    mos_cq: int = UNKNOWN
    rx_config: int = 0
    jb_nominal: int = 0
    jb_maximum: int = 0
    jb_absolute_maximum: int = 0


class OtherReport(msgspec.Struct, frozen=True):
    """A block of an extended report that this firmware does not read."""

    kind: int
    specific: int
    body: bytes


class ExtendedReport(msgspec.Struct, frozen=True):
    """RFC 3611 2."""

    ssrc: int
    reports: tuple[VoipMetrics | OtherReport, ...] = ()


class OtherRtcp(msgspec.Struct, frozen=True):
    """A packet type this firmware does not read: feedback, application."""

    kind: int
    count: int
    body: bytes


RtcpPacket = SenderReport | ReceiverReport | SourceDescription | Bye | ExtendedReport | OtherRtcp


def parse_rtcp(data: bytes | memoryview) -> list[RtcpPacket]:
    """Read one compound packet. Raises MalformedPacket naming the octet that is wrong.

    A compound that begins with something else than a report is taken too (RFC 5506).
    """
    size = len(data)
    if size < 4:
        raise MalformedPacket(f"RTCP packet of {size} bytes, 4 needed")
    packets: list[RtcpPacket] = []
    at = 0
    while at < size:
        if size - at < 4:
            raise MalformedPacket(f"byte {at}: {size - at} bytes left over, an RTCP header has 4")
        first, kind, words = _HEADER.unpack_from(data, at)
        if first >> 6 != 2:
            raise MalformedPacket(f"byte {at}: RTCP version {first >> 6}, 2 needed")
        if not 192 <= kind <= 223:
            raise MalformedPacket(f"byte {at + 1}: packet type {kind}, 192 to 223 are RTCP")
        end = at + 4 + 4 * words
        if end > size:
            raise MalformedPacket(
                f"byte {at + 2}: length reaches byte {end}, the packet has {size}"
            )
        body_end = end
        if first & 0x20:
            padding = data[end - 1] if words else 0
            if end != size or padding == 0 or padding % 4 or padding > 4 * words:
                raise MalformedPacket(f"byte {end - 1}: padding of {padding} bytes")
            body_end -= padding
        body = bytes(data[at + 4 : body_end])
        packets.append(_parse_body(kind, first & 0x1F, body, at + 4))
        at = end
    return packets


def _parse_body(kind: int, count: int, body: bytes, at: int) -> RtcpPacket:
    match kind:
        case 200:
            _need(body, 24 + 24 * count, at)
            ntp, timestamp, sent, octets = _SENDER.unpack_from(body, 4)
            blocks = tuple(_parse_block(body, 24 + 24 * i) for i in range(count))
            ssrc = _WORD.unpack_from(body)[0]
            rest = body[24 + 24 * count :]
            return SenderReport(ssrc, ntp, timestamp, sent, octets, blocks, rest)
        case 201:
            _need(body, 4 + 24 * count, at)
            blocks = tuple(_parse_block(body, 4 + 24 * i) for i in range(count))
            return ReceiverReport(_WORD.unpack_from(body)[0], blocks, body[4 + 24 * count :])
        case 202:
            return _parse_description(count, body, at)
        case 203:
            _need(body, 4 * count, at)
            ssrcs = tuple(_WORD.unpack_from(body, 4 * i)[0] for i in range(count))
            reason = b""
            if len(body) > 4 * count:
                length = body[4 * count]
                _need(body, 4 * count + 1 + length, at)
                reason = body[4 * count + 1 : 4 * count + 1 + length]
            return Bye(ssrcs, reason)
        case 207:
            return _parse_extended(body, at)
        case _:
            return OtherRtcp(kind, count, body)


def _need(body: bytes, size: int, at: int) -> None:
    if len(body) < size:
        raise MalformedPacket(f"byte {at}: {len(body)} bytes, {size} needed")


def _parse_block(body: bytes, at: int) -> ReportBlock:
    ssrc, loss, highest, jitter, last_sr, delay = _BLOCK.unpack_from(body, at)
    cumulative = loss & 0xFFFFFF
    if cumulative & 0x800000:  # signed: duplicates can make it negative
        cumulative -= 0x1000000
    return ReportBlock(ssrc, loss >> 24, cumulative, highest, jitter, last_sr, delay)


def _parse_description(count: int, body: bytes, at: int) -> SourceDescription:
    chunks: list[tuple[int, tuple[tuple[int, bytes], ...]]] = []
    pos = 0
    for _ in range(count):
        _need(body, pos + 4, at)
        ssrc = _WORD.unpack_from(body, pos)[0]
        start = pos
        pos += 4
        items: list[tuple[int, bytes]] = []
        while True:
            _need(body, pos + 1, at)
            if body[pos] == 0:
                break
            _need(body, pos + 2, at)
            length = body[pos + 1]
            _need(body, pos + 2 + length, at)
            items.append((body[pos], body[pos + 2 : pos + 2 + length]))
            pos += 2 + length
        pos = start + (pos - start) // 4 * 4 + 4  # the end mark fills up to a whole word
        chunks.append((ssrc, tuple(items)))
    return SourceDescription(tuple(chunks))


def _parse_extended(body: bytes, at: int) -> ExtendedReport:
    _need(body, 4, at)
    reports: list[VoipMetrics | OtherReport] = []
    pos = 4
    while pos < len(body):
        _need(body, pos + 4, at)
        kind, specific, words = _XR_BLOCK.unpack_from(body, pos)
        pos += 4
        _need(body, pos + 4 * words, at)
        block = body[pos : pos + 4 * words]
        if kind == VOIP_METRICS and len(block) == _METRICS.size:
            reports.append(VoipMetrics(*_METRICS.unpack(block)))
        else:
            reports.append(OtherReport(kind, specific, block))
        pos += 4 * words
    return ExtendedReport(_WORD.unpack_from(body)[0], tuple(reports))


def format_rtcp(packets: list[RtcpPacket]) -> bytes:
    """Write one compound packet. Raises ValueError for a field that does not fit."""
    return b"".join(_format_one(packet) for packet in packets)


def _format_one(packet: RtcpPacket) -> bytes:
    match packet:
        case SenderReport():
            count, kind = len(packet.blocks), SR
            body = _WORD.pack(packet.ssrc) + _SENDER.pack(
                packet.ntp, packet.timestamp, packet.packets, packet.octets
            )
            body += b"".join(map(_format_block, packet.blocks)) + packet.extension
        case ReceiverReport():
            count, kind = len(packet.blocks), RR
            body = _WORD.pack(packet.ssrc) + b"".join(map(_format_block, packet.blocks))
            body += packet.extension
        case SourceDescription():
            count, kind = len(packet.chunks), SDES
            body = b"".join(_format_chunk(ssrc, items) for ssrc, items in packet.chunks)
        case Bye():
            count, kind = len(packet.ssrcs), BYE
            body = b"".join(map(_WORD.pack, packet.ssrcs))
            if packet.reason:
                if len(packet.reason) > 255:
                    raise ValueError(f"reason of {len(packet.reason)} bytes, 255 fit")
                text = bytes((len(packet.reason),)) + packet.reason
                body += text + bytes(-len(text) % 4)
        case ExtendedReport():
            count, kind = 0, XR
            body = _WORD.pack(packet.ssrc) + b"".join(map(_format_report, packet.reports))
        case OtherRtcp():
            count, kind, body = packet.count, packet.kind, packet.body
    if count > 31:
        raise ValueError(f"{count} entries in one RTCP packet, 31 fit")
    if len(body) % 4:
        raise ValueError(f"RTCP body of {len(body)} bytes, whole words needed")
    return _HEADER.pack(0x80 | count, kind, len(body) // 4) + body


def _format_block(block: ReportBlock) -> bytes:
    loss = block.fraction_lost << 24 | (block.cumulative_lost & 0xFFFFFF)
    return _BLOCK.pack(
        block.ssrc, loss, block.highest_sequence, block.jitter, block.last_sr, block.delay
    )


def _format_report(report: VoipMetrics | OtherReport) -> bytes:
    if isinstance(report, VoipMetrics):
        body = _METRICS.pack(*astuple(report))
        return _XR_BLOCK.pack(VOIP_METRICS, 0, len(body) // 4) + body
    return _XR_BLOCK.pack(report.kind, report.specific, len(report.body) // 4) + report.body


def _format_chunk(ssrc: int, items: tuple[tuple[int, bytes], ...]) -> bytes:
    text = b""
    for kind, value in items:
        if not 1 <= kind <= 255 or len(value) > 255:
            raise ValueError(f"SDES item {kind} of {len(value)} bytes, 255 fit")
        text += bytes((kind, len(value))) + value
    text += bytes(4 - len(text) % 4)
    return _WORD.pack(ssrc) + text


# RFC 3550 A.1: a jump this far, ahead or back, is a restarted sender, not loss or reordering.
MAX_DROPOUT: Final = 3000
MAX_MISORDER: Final = 100

# How far back a missing packet is remembered, to tell a late one from a duplicate.
_WINDOW: Final = 128

# Packets after which a missing one is called lost, in the bursts: it would come too late anyway.
_SETTLED: Final = 32


class Reception:
    """What arrived of one source (one SSRC): sequence numbers, loss, jitter.

    `clock` is the RTP clock in Hz. Sequence numbers are extended past 16 bits.
    """

    __slots__ = (
        "_bad_sequence",
        "_discarded",
        "_expected_before",
        "_expected_prior",
        "_first_number",
        "_first_timestamp",
        "_last_arrival",
        "_last_ntp",
        "_last_sr_at",
        "_last_timestamp",
        "_missing",
        "_received_prior",
        "_settled",
        "base",
        "bursts",
        "clock",
        "duplicates",
        "highest",
        "jitter",
        "received",
        "ssrc",
    )

    NEW: Final = 0
    DUPLICATE: Final = 1
    JUMP: Final = 2
    RESTART: Final = 3

    def __init__(self, ssrc: int, clock: int) -> None:
        self.ssrc = ssrc
        self.clock = clock
        self.base = -1
        self.highest = -1
        self.received = 0
        self.duplicates = 0
        self.jitter = 0.0
        """Interarrival jitter in ticks (A.8)."""
        self._last_arrival: float | None = None
        self._last_timestamp = 0
        self._bad_sequence = -1
        self._missing: set[int] = set()
        self.bursts = Bursts()
        """What was lost or came too late, but for the last moment."""
        self._discarded: set[int] = set()
        self._settled = 0
        self._first_number = 0
        self._first_timestamp = 0
        self._expected_before = 0
        self._expected_prior = 0
        self._received_prior = 0
        self._last_ntp = 0
        self._last_sr_at = 0.0

    def arrived(self, sequence: int) -> int:
        """Count one packet: NEW, DUPLICATE, JUMP (to be dropped) or RESTART (A.1)."""
        if self.base < 0:
            self._start(sequence)
            return self.NEW
        ahead = (sequence - self.highest) & 0xFFFF
        if ahead == 1:
            self.highest += 1
            self.received += 1
            return self.NEW
        if 0 < ahead < MAX_DROPOUT:
            self._skipped(self.highest + 1, self.highest + ahead)
            self.highest += ahead
            self.received += 1
            return self.NEW
        behind = 0x10000 - ahead if ahead else 0
        if behind <= MAX_MISORDER:
            number = self.highest - behind
            if number < self.base:
                self._skipped(number + 1, self.base)
                self.base = number
            elif number in self._missing:
                self._missing.remove(number)
            else:
                self.duplicates += 1
                return self.DUPLICATE
            self.received += 1
            return self.NEW
        if sequence == self._bad_sequence:
            # Two in a row beyond the jump: the sender started again without telling us. What was
            # counted stays counted.
            self._expected_before = self.expected
            self._start(sequence)
            return self.RESTART
        self._bad_sequence = (sequence + 1) & 0xFFFF
        return self.JUMP

    def _skipped(self, first: int, end: int) -> None:
        oldest = end - _WINDOW
        self._settle(oldest)
        self._missing = {number for number in self._missing if number >= oldest}
        self._missing.update(range(max(first, oldest), end))

    def discarded(self, sequence: int) -> None:
        """A packet came, and too late to be heard."""
        self._discarded.add(self.highest - ((self.highest - sequence) & 0xFFFF))
        if len(self._discarded) > _WINDOW:
            self._settle(self.highest - _SETTLED)

    def _settle(self, before: int) -> None:
        """Tell the bursts, in order, what is not expected any more."""
        if before <= self._settled:
            return
        for number in sorted(self._missing | self._discarded):
            if self._settled <= number < before:
                self.bursts.missed(number)
        self._discarded = {number for number in self._discarded if number >= before}
        self._settled = before

    def review(self) -> None:
        """Bring `bursts` up to date."""
        self._settle(self.highest - _SETTLED)

    @property
    def packet_seconds(self) -> float:
        """Sound in a packet, on average."""
        packets = self.highest - self._first_number
        ticks = self._last_timestamp - self._first_timestamp & 0xFFFFFFFF
        return min(max(ticks / packets / self.clock, 0.005), 0.12) if packets > 0 else 0.02

    def _start(self, sequence: int) -> None:
        # One cycle up, so that packets overtaken by the first one stay positive.
        self.highest = self.base = 0x10000 + sequence
        self._missing.clear()
        self._discarded.clear()
        self._settled = self.base
        self.bursts.restarted()
        self._last_arrival = None
        self._bad_sequence = -1
        self.received += 1

    def timed(self, timestamp: int, arrival: float) -> None:
        """Update the jitter with a packet's timestamp and arrival time in seconds (A.8)."""
        last = self._last_arrival
        if last is not None:
            sent = timestamp - self._last_timestamp
            if not 0 <= sent < 0x80000000:
                sent = (sent + 0x80000000 & 0xFFFFFFFF) - 0x80000000
            d = (arrival - last) * self.clock - sent
            if d < 0.0:
                d = -d
            if d < self.clock:  # more than a second is a pause or a new timestamp base, not jitter
                self.jitter += (d - self.jitter) / 16.0
        else:
            self._first_number = self.highest
            self._first_timestamp = timestamp
        self._last_arrival = arrival
        self._last_timestamp = timestamp

    @property
    def expected(self) -> int:
        """Packets the sender has sent so far, by its sequence numbers."""
        if self.base < 0:
            return 0
        return self._expected_before + self.highest - self.base + 1

    @property
    def lost(self) -> int:
        """Packets that never came; a late one is not lost, a duplicate replaces nothing."""
        return max(0, self.expected - self.received)

    def sender_report_received(self, ntp: int, now: float) -> None:
        self._last_ntp = ntp >> 16 & 0xFFFFFFFF
        self._last_sr_at = now

    def report(self, now: float) -> ReportBlock:
        """The block for the next report; the fraction is that since the last one (A.3)."""
        expected, received = self.expected, self.received + self.duplicates
        expected_interval = expected - self._expected_prior
        lost_interval = expected_interval - (received - self._received_prior)
        self._expected_prior, self._received_prior = expected, received
        fraction = 0
        if expected_interval > 0 and lost_interval > 0:
            fraction = min(255, (lost_interval << 8) // expected_interval)
        cumulative = max(-0x800000, min(0x7FFFFF, expected - received))
        delay = int((now - self._last_sr_at) * 65536) & 0xFFFFFFFF if self._last_ntp else 0
        return ReportBlock(
            ssrc=self.ssrc,
            fraction_lost=fraction,
            cumulative_lost=cumulative,
            highest_sequence=(self.highest - 0x10000) & 0xFFFFFFFF,
            jitter=int(self.jitter) & 0xFFFFFFFF,
            last_sr=self._last_ntp,
            delay=delay,
        )


def ntp_time(now: float) -> int:
    """Seconds as a 64-bit NTP value."""
    return int(now * 4294967296.0) & 0xFFFFFFFFFFFFFFFF


def round_trip(block: ReportBlock, now: float) -> float | None:
    """Seconds there and back by one report about us (RFC 3550 6.4.1), None if it cannot be told."""
    if block.last_sr == 0:
        return None
    ticks = ((ntp_time(now) >> 16) - block.last_sr - block.delay) & 0xFFFFFFFF
    if ticks >= 0x80000000:  # the far end's clock ran a little faster than ours
        return 0.0
    seconds = ticks / 65536.0
    return seconds if seconds < 60.0 else None


def report_interval(fraction: float, first: bool) -> float:
    """Seconds to the next report for two parties (RFC 3550 6.3.1); `fraction` is random, [0, 1)."""
    minimum = 2.5 if first else 5.0
    # Divided by e - 3/2: timer reconsideration would otherwise settle below the wanted rate.
    return minimum * (0.5 + fraction) / 1.21828
