"""One call's audio in virtual time: what is sent, to whom, and who is heard."""

from array import array
from collections.abc import Iterable
from itertools import pairwise

import pytest
from doorstation.ids import SeededIds
from doorstation.media import codecs, levels, rtcp, tones
from doorstation.media.digits import Digit
from doorstation.media.engine import CallAudio, literal
from doorstation.media.g711 import encode_pcma, encode_pcmu
from doorstation.media.pcm import audioop
from doorstation.media.session import (
    CallStatistics,
    Datagram,
    MediaResumed,
    MediaSilent,
    MediaStarted,
)
from doorstation.media.verdict import verdict
from doorstation.media.wav import Wav

from tests.support.agreed import PCMA, PCMU, Agreed, Codec, agreed
from tests.support.rtp import RtpPacket, format_rtp, parse_rtp
from tests.support.sounds import sine

PHONE = ("192.0.2.1", 4000)
NAT = ("198.51.100.7", 61000)
STRANGER = ("203.0.113.66", 9)
LOUD = array("h", [8000, -8000] * 80).tobytes()
SOFT = array("h", [800, -800] * 80).tobytes()
SILENT = bytes(320)


class Far:
    """The far end's RTP stream."""

    def __init__(self, ssrc: int = 0xFA, payload_type: int = 8, size: int = 160) -> None:
        self.ssrc = ssrc
        self.payload_type = payload_type
        self.sequence = 100
        self.timestamp = 5000
        self.payload = (encode_pcmu if payload_type == 0 else encode_pcma)(LOUD)[:1] * size

    def next(self, payload: bytes | None = None) -> bytes:
        data = format_rtp(
            RtpPacket(
                self.payload_type,
                self.sequence,
                self.timestamp,
                self.ssrc,
                self.payload if payload is None else payload,
            )
        )
        self.sequence = (self.sequence + 1) & 0xFFFF
        self.timestamp = (self.timestamp + len(self.payload)) & 0xFFFFFFFF
        return data

    def event(self, payload: str, payload_type: int = 101, timestamp: int = 9000) -> bytes:
        data = format_rtp(
            RtpPacket(payload_type, self.sequence, timestamp, self.ssrc, bytes.fromhex(payload))
        )
        self.sequence = (self.sequence + 1) & 0xFFFF
        return data


class Call:
    def __init__(self, session: Agreed | None = None, rate: int = 8000, seed: int = 1) -> None:
        self.now = 1000.0
        self.audio = CallAudio(SeededIds(seed), self.now, rate=rate, cname="door")
        self.audio.configure(session or agreed(PHONE), self.now)
        self.sent: list[Datagram] = []

    def tick(
        self, *datagrams: tuple[bytes, tuple[str, int]], microphone: bytes = SILENT
    ) -> bytes | None:
        self.now += 0.02
        heard, out = self.audio.tick(microphone, datagrams, self.now)
        self.sent += out
        return heard

    def ticks_of(self, periods: Iterable[bytes]) -> None:
        for period in periods:
            self.tick(microphone=period)

    def ticks(self, count: int) -> None:
        for _ in range(count):
            self.tick()

    @property
    def rtp(self) -> list[RtpPacket]:
        return [parse_rtp(one.data) for one in self.sent if not one.rtcp]

    @property
    def reports(self) -> list[list[rtcp.RtcpPacket]]:
        return [rtcp.parse_rtcp(one.data) for one in self.sent if one.rtcp]

    @property
    def to(self) -> tuple[str, int]:
        return [one.to for one in self.sent if not one.rtcp][-1]

    @property
    def statistics(self) -> CallStatistics:
        return self.audio.statistics(self.now)

    def occurred(self) -> list[object]:
        occurred: list[object] = list(self.audio.occurred)
        self.audio.occurred.clear()
        return occurred


# Sending.


def test_every_tick_sends_one_packet_of_twenty_milliseconds() -> None:
    call = Call()
    for _ in range(3):
        call.tick(microphone=LOUD)
    one, two, three = call.rtp
    assert one.payload == encode_pcma(LOUD)
    assert (one.payload_type, one.marker, two.marker) == (8, True, False)
    assert [two.sequence - one.sequence, three.sequence - two.sequence] == [1, 1]
    assert [two.timestamp - one.timestamp, three.timestamp - two.timestamp] == [160, 160]
    assert one.ssrc == two.ssrc
    assert {packet.to for packet in call.sent} == {PHONE}


def test_the_answered_codec_and_number_are_used() -> None:
    call = Call(agreed(PHONE, codec=PCMU, payload_type=97))
    call.tick(microphone=LOUD)
    assert (call.rtp[0].payload_type, call.rtp[0].payload) == (97, encode_pcmu(LOUD))


@pytest.mark.parametrize(
    ("ptime", "lengths"), [(10, [80, 80] * 6), (30, [240] * 4), (40, [320] * 3), (60, [480] * 2)]
)
def test_another_packet_length_is_sent_when_asked_for(ptime: int, lengths: list[int]) -> None:
    call = Call(agreed(PHONE, ptime_ms=ptime))
    call.ticks(6)
    packets = call.rtp
    assert [len(packet.payload) for packet in packets] == lengths
    steps = [b.timestamp - a.timestamp for a, b in pairwise(packets)]
    assert steps == lengths[1:]


@pytest.mark.parametrize("direction", ["recvonly", "inactive"])
def test_on_hold_nothing_is_sent_and_time_goes_on(direction: str) -> None:
    call = Call()
    call.ticks(2)
    call.audio.configure(agreed(PHONE, direction=direction), call.now)
    call.ticks(10)
    assert len(call.rtp) == 2
    call.audio.configure(agreed(PHONE), call.now)
    call.tick()
    resumed = call.rtp[-1]
    assert resumed.marker
    assert resumed.timestamp - call.rtp[0].timestamp == 12 * 160
    assert resumed.sequence - call.rtp[0].sequence == 2


def test_nothing_goes_to_the_old_hold_address() -> None:
    call = Call(agreed(("0.0.0.0", 4000)))
    call.ticks(3)
    assert call.rtp == []


def test_a_hold_by_address_does_not_forget_where_the_far_end_is() -> None:
    call = Call()
    far = Far()
    for _ in range(3):
        call.tick((far.next(), NAT))
    call.audio.configure(agreed(("0.0.0.0", 4000), direction="recvonly"), call.now)
    call.ticks(3)
    call.audio.configure(agreed(PHONE), call.now)
    call.tick()
    assert call.to == NAT


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="codec speex/8000: PCMA/8000"):
        Call(agreed(PHONE, codec=Codec("speex")))


WIDE = {"G722": Codec("G722"), "L16": Codec("L16", 16000), "opus": Codec("opus", 48000)}


def wide(name: str) -> Agreed:
    return agreed(PHONE, codec=WIDE[name], payload_type=9, receive=((9, WIDE[name]), (8, PCMA)))


def wide_tone(periods: int, hertz: int = 5000, rate: int = 16000) -> list[bytes]:
    """Periods of a tone that no telephone of old carries."""
    return [sine(hertz, 320, rate)] * periods  # 5 kHz: a whole number of waves in a period


@pytest.mark.parametrize(("name", "ticks"), [("G722", 160), ("L16", 320), ("opus", 960)])
def test_wide_band_goes_out_with_the_codecs_own_clock(name: str, ticks: int) -> None:
    call = Call(wide(name), rate=16000)
    for period in wide_tone(20):
        call.tick(microphone=period)
    steps = {b.timestamp - a.timestamp & 0xFFFFFFFF for a, b in pairwise(call.rtp)}
    assert steps == {ticks}
    far = codecs.make(name, WIDE[name].clock)
    heard = [far.decode(packet.payload) for packet in call.rtp]
    assert min(audioop.rms(pcm, 2) for pcm in heard[5:]) > 4000


@pytest.mark.parametrize(("name", "ticks"), [("G722", 160), ("L16", 320), ("opus", 960)])
@pytest.mark.parametrize("rate", [16000, 48000])
def test_wide_band_that_comes_in_is_heard(name: str, ticks: int, rate: int) -> None:
    call = Call(wide(name), rate=rate)
    codec = codecs.make(name, WIDE[name].clock)
    timestamp = 0xFFFFFFFF - 4 * ticks
    levels = []
    for number, period in enumerate(wide_tone(30)):
        packet = RtpPacket(9, number, timestamp & 0xFFFFFFFF, 0xFA, codec.encode(period))
        timestamp += ticks
        heard = call.tick((format_rtp(packet), PHONE), microphone=bytes(rate // 25)) or b""
        assert len(heard) == rate // 25
        levels.append(audioop.rms(heard, 2))
    assert min(levels[10:]) > 4000
    assert call.statistics.concealed == 0
    assert call.statistics.jitter_ms < 1


def test_a_card_at_the_codecs_rate_is_converted_nowhere() -> None:
    call = Call(wide("G722"), rate=16000)
    assert (call.audio._down, call.audio._up) == (None, None)


def test_the_far_end_may_change_to_any_agreed_codec_at_any_time() -> None:
    call = Call(wide("G722"), rate=16000)
    codec = codecs.make("G722", 8000)
    far = Far(payload_type=9)
    for period in wide_tone(20):
        call.tick((far.next(codec.encode(period)), PHONE), microphone=bytes(640))
    far.payload_type = 8
    levels = []
    for _ in range(20):
        data = far.next(encode_pcma(LOUD))
        levels.append(audioop.rms(call.tick((data, PHONE), microphone=bytes(640)) or b"", 2))
    assert min(levels[5:]) > 1000  # 4 kHz, just where the converter's filter ends


def test_silence_that_a_codec_leaves_out_is_not_sent_and_the_next_packet_is_marked() -> None:
    codec = Codec("opus", 48000, fmtp="usedtx=1")
    call = Call(agreed(PHONE, codec=codec, payload_type=9), rate=16000)
    call.ticks_of(wide_tone(10))
    call.ticks_of([bytes(640)] * 60)
    sent = len(call.rtp)
    assert sent < 50
    assert call.rtp[0].marker
    call.ticks_of(wide_tone(5))
    assert [packet.marker for packet in call.rtp[-5:]] == [True] + [False] * 4
    assert call.rtp[-1].timestamp - call.rtp[0].timestamp & 0xFFFFFFFF == 74 * 960


def test_a_reinvite_keeps_a_codec_that_goes_on_and_what_it_remembers() -> None:
    call = Call(wide("opus"), rate=16000)
    before = call.audio._codec
    call.audio.configure(wide("opus"), call.now)
    assert call.audio._codec is before


def test_periods_lost_by_the_card_are_a_jump_in_the_timestamps() -> None:
    call = Call()
    call.tick()
    call.audio.periods_lost(3)
    call.tick()
    assert call.rtp[1].timestamp - call.rtp[0].timestamp == 4 * 160
    assert call.rtp[1].marker


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_a_card_of_another_rate_is_converted_both_ways(rate: int) -> None:
    call = Call(rate=rate)
    far = Far()
    heard = b""
    for _ in range(20):
        heard = call.tick((far.next(), PHONE), microphone=bytes(rate // 50 * 2)) or b""
    assert len(heard) == rate // 50 * 2
    assert audioop.rms(heard, 2) > 1000
    assert {len(packet.payload) for packet in call.rtp} == {160}


# Receiving.


def test_what_arrives_is_heard() -> None:
    call = Call()
    far = Far()
    heard = [call.tick((far.next(), PHONE)) for _ in range(10)]
    assert audioop.rms(heard[-1] or b"", 2) > 1000
    assert call.occurred() == [MediaStarted(PHONE)]
    assert call.statistics.received == 10


def test_either_agreed_codec_may_come_at_any_time() -> None:
    call = Call()
    far = Far()
    levels = []
    for i in range(20):
        far.payload_type = 8 if i % 2 else 0
        encode = encode_pcma if i % 2 else encode_pcmu
        levels.append(audioop.rms(call.tick((far.next(encode(LOUD)), PHONE)) or SILENT, 2))
    assert all(level == pytest.approx(8000, rel=0.03) for level in levels[3:])


def test_datagrams_that_are_not_ours_are_dropped_and_counted() -> None:
    call = Call()
    far = Far()
    call.tick((far.next(), PHONE))
    call.occurred()
    junk = [
        b"",
        b"hello",
        b"\x00" * 40,
        far.next()[:11],
        format_rtp(RtpPacket(33, 101, 5160, 0xFA, b"x" * 160)),
    ]
    call.tick(*((data, PHONE) for data in junk))
    assert call.statistics.dropped == len(junk)
    assert call.occurred() == []


def test_while_only_sending_nothing_is_heard_but_counted() -> None:
    call = Call(agreed(PHONE, direction="sendonly"))
    far = Far()
    for _ in range(5):
        assert call.tick((far.next(), PHONE)) is None
    assert call.statistics.received == 5


# Where packets go, and who is heard (symmetric RTP).


def test_the_first_valid_packets_from_behind_nat_are_followed() -> None:
    call = Call()
    far = Far()
    call.tick((far.next(), NAT))
    assert call.to == PHONE  # one packet proves nothing
    call.tick((far.next(), NAT))
    call.tick()
    assert call.to == NAT
    assert call.occurred() == [MediaStarted(NAT)]


def test_a_live_sdp_address_is_never_left() -> None:
    call = Call()
    far, intruder = Far(), Far(ssrc=0xBAD)
    call.tick((far.next(), PHONE))
    for _ in range(200):
        call.tick((intruder.next(), STRANGER))
    assert call.to == PHONE
    assert call.statistics.received == 1
    assert call.statistics.dropped == 200


def test_the_sdp_address_takes_over_from_an_early_stranger() -> None:
    call = Call()
    far, intruder = Far(), Far(ssrc=0xBAD)
    for _ in range(5):
        call.tick((intruder.next(), STRANGER))
    assert call.to == STRANGER
    call.tick((far.next(), PHONE))
    call.tick((far.next(), PHONE), (intruder.next(), STRANGER), (intruder.next(), STRANGER))
    call.tick()
    assert call.to == PHONE


def test_packets_out_of_sequence_or_of_two_ssrcs_are_not_followed() -> None:
    call = Call()
    one, two = Far(ssrc=1), Far(ssrc=2)
    for _ in range(5):
        call.tick((one.next(), STRANGER), (two.next(), STRANGER))
        one.next()
    assert call.statistics.received == 0


def test_a_payload_type_nobody_agreed_is_not_followed() -> None:
    call = Call()
    far = Far(payload_type=3)
    for _ in range(5):
        call.tick((far.next(), NAT))
    assert call.statistics.received == 0


def test_a_live_source_behind_nat_is_not_taken_over() -> None:
    call = Call()
    far, intruder = Far(), Far(ssrc=0xBAD)
    for _ in range(3):
        call.tick((far.next(), NAT))
    for _ in range(50):
        call.tick((intruder.next(), STRANGER), (intruder.next(), STRANGER), (far.next(), NAT))
    assert call.to == NAT
    assert call.statistics.received == 52


def test_a_nat_that_forgets_its_binding_is_followed_after_two_seconds() -> None:
    call = Call()
    far = Far()
    for _ in range(10):
        call.tick((far.next(), NAT))
    rebound = (NAT[0], NAT[1] + 5)
    for _ in range(90):
        call.tick((far.next(), rebound))
    assert call.to == NAT
    for _ in range(20):
        call.tick((far.next(), rebound))
    assert call.to == rebound


def test_a_new_address_by_reinvite_is_used_at_once() -> None:
    call = Call()
    far = Far()
    for _ in range(5):
        call.tick((far.next(), PHONE))
    moved = ("192.0.2.2", 4002)
    call.audio.configure(agreed(moved), call.now)
    call.tick((far.next(), PHONE))  # still under way
    call.tick((far.next(), PHONE))
    call.tick((far.next(), PHONE))
    assert call.to == moved
    other = Far(ssrc=0xFB)
    call.tick((other.next(), moved))
    call.tick((other.next(), moved))
    assert call.statistics.received == 7


def test_a_host_name_in_the_sdp_is_learned_from_what_arrives() -> None:
    call = Call(agreed(("phone.example.com", 4000)))
    far = Far()
    call.tick()
    assert call.rtp == []
    call.tick((far.next(), PHONE))
    call.tick((far.next(), PHONE))
    call.tick()
    assert call.to == PHONE


def test_addresses_are_compared_as_the_sockets_write_them() -> None:
    assert literal(("2001:0DB8:0:0::1", 5000)) == ("2001:db8::1", 5000)
    assert literal(("0.0.0.0", 5000)) is None
    assert literal(("::", 5000)) is None
    assert literal(("192.0.2.1", 0)) is None
    assert literal(None) is None


# SSRC.


def test_another_ssrc_from_the_same_source_is_taken_after_two_packets() -> None:
    call = Call()
    early, late = Far(ssrc=1), Far(ssrc=2)
    for _ in range(5):
        call.tick((early.next(), PHONE))
    for _ in range(5):
        call.tick((late.next(), PHONE))
    assert call.statistics.received == 5 + 4
    assert call.statistics.lost == 0


def test_two_interleaved_ssrcs_do_not_take_turns() -> None:
    call = Call()
    one, two = Far(ssrc=1), Far(ssrc=2)
    for _ in range(50):
        call.tick((one.next(), PHONE), (two.next(), PHONE))
    assert call.statistics.received == 50
    assert call.statistics.dropped == 50


def test_our_ssrc_changes_with_bye_when_the_far_end_has_the_same() -> None:
    call = Call()
    call.tick()
    ours = call.rtp[0].ssrc
    call.tick((Far(ssrc=ours).next(), PHONE))
    call.tick()
    assert call.rtp[-1].ssrc != ours
    assert any(rtcp.Bye((ours,)) in report for report in call.reports)


def test_an_echo_of_our_own_packets_changes_the_ssrc_once_and_is_heard() -> None:
    call = Call()
    returned: list[Datagram] = []
    ssrcs: set[int] = set()
    heard: bytes | None = b""
    for _ in range(50):
        before = len(call.sent)
        heard = call.tick(*((one.data, PHONE) for one in returned), microphone=LOUD)
        returned = [one for one in call.sent[before:] if not one.rtcp]
        ssrcs.update(parse_rtp(one.data).ssrc for one in returned)
    assert len(ssrcs) == 2
    assert audioop.rms(heard or b"", 2) > 1000


# RTCP.


def test_reports_go_out_about_every_five_seconds_to_the_next_port() -> None:
    call = Call()
    far = Far()
    for _ in range(50 * 60):
        call.tick((far.next(), PHONE))
    reports = call.reports
    assert 12 <= len(reports) <= 22
    sender, description, extended = reports[-1]
    assert isinstance(sender, rtcp.SenderReport)
    assert sender.ssrc == call.rtp[0].ssrc
    assert sender.packets == pytest.approx(len(call.rtp), abs=400)
    assert sender.blocks[0].ssrc == far.ssrc
    assert sender.blocks[0].fraction_lost == 0
    assert isinstance(description, rtcp.SourceDescription)
    assert description.chunks[0][1] == ((rtcp.CNAME, b"door"),)
    assert isinstance(extended, rtcp.ExtendedReport)
    assert {one.to for one in call.sent if one.rtcp} == {(PHONE[0], PHONE[1] + 1)}


def test_who_sends_nothing_writes_receiver_reports() -> None:
    call = Call(agreed(PHONE, direction="recvonly"))
    call.ticks(1000)
    assert isinstance(call.reports[-1][0], rtcp.ReceiverReport)


def test_rtcp_goes_where_the_sdp_says() -> None:
    call = Call(agreed(PHONE, remote_rtcp=("192.0.2.9", 7777)))
    call.ticks(500)
    assert {one.to for one in call.sent if one.rtcp} == {("192.0.2.9", 7777)}


def test_muxed_rtcp_shares_the_port_both_ways() -> None:
    call = Call(agreed(PHONE, rtcp_mux=True))
    call.ticks(500)
    on_rtp = [rtcp.parse_rtcp(one.data) for one in call.sent if 200 <= one.data[1] <= 201]
    assert on_rtp
    assert not any(one.rtcp for one in call.sent)
    call.tick((rtcp.format_rtcp([rtcp.ReceiverReport(5)]), PHONE))
    assert call.statistics.dropped == 0


def test_a_far_end_that_wants_no_rtcp_gets_none() -> None:
    call = Call(agreed(PHONE, remote_rtcp=None))
    call.ticks(1000)
    assert call.reports == []
    assert call.audio.bye(call.now) == []


def test_round_trip_and_the_far_ends_loss_are_read_from_its_reports() -> None:
    call = Call()
    far = Far()
    while not call.reports:
        call.tick((far.next(), PHONE))
    report = call.reports[0][0]
    assert isinstance(report, rtcp.SenderReport)
    ours = rtcp.ReportBlock(
        ssrc=report.ssrc,
        fraction_lost=3,
        cumulative_lost=17,
        highest_sequence=0,
        jitter=40,
        last_sr=report.ntp >> 16 & 0xFFFFFFFF,
        delay=65536,
    )
    other = rtcp.ReportBlock(1, 255, 999, 0, 0, 0, 0)
    call.now += 1.06
    data = rtcp.format_rtcp([rtcp.ReceiverReport(far.ssrc, (other, ours))])
    call.audio.rtcp_datagram(data, (PHONE[0], 4001), call.now)
    assert call.statistics.round_trip_ms == pytest.approx(60, abs=1)
    assert call.statistics.remote_lost == 17
    assert call.statistics.remote_jitter_ms == 5.0


def test_how_the_far_end_is_heard_is_in_every_report() -> None:
    """RFC 3611 4.7: lost, too late, in bursts, and what it is worth."""
    call = Call()
    far = Far()
    held = b""
    for i in range(1000):
        data = far.next()
        if i in (500, 502, 504):
            call.tick()
        elif i == 700:
            held = data
            call.tick()
        elif i == 720:
            call.tick((data, PHONE), (held, PHONE))
        else:
            call.tick((data, PHONE))
    call.audio.bye(call.now)
    numbers = call.statistics
    assert (numbers.lost, numbers.late) == (3, 1)
    assert numbers.burst_loss_percent == pytest.approx(60)
    assert numbers.burst_ms == pytest.approx(100)
    assert numbers.gap_loss_percent == pytest.approx(0.1)
    assert numbers.mos_lq is not None
    assert numbers.mos_cq is not None
    assert 4.0 < numbers.mos_cq <= numbers.mos_lq <= 4.4
    report = call.reports[-1][-1]
    assert isinstance(report, rtcp.ExtendedReport)
    (metrics,) = report.reports
    assert isinstance(metrics, rtcp.VoipMetrics)
    assert metrics.ssrc == far.ssrc
    assert metrics.gmin == 16
    assert metrics.rx_config == 0b10110000
    assert metrics.rerl == rtcp.UNKNOWN, "nobody cancels echo here"
    assert 40 <= metrics.mos_cq <= metrics.mos_lq <= 44
    assert 60 <= metrics.end_system_delay <= 120


def test_nothing_heard_is_no_extended_report() -> None:
    call = Call()
    call.ticks(1000)
    assert [len(packets) for packets in call.reports] == [2] * len(call.reports)


def test_what_the_far_end_says_of_our_sound_is_kept() -> None:
    call = Call()
    call.ticks(5)
    ours = rtcp.VoipMetrics(
        call.rtp[0].ssrc, discard_rate=26, end_system_delay=140, mos_lq=39, rerl=31
    )
    others = rtcp.VoipMetrics(5, discard_rate=255)
    data = rtcp.format_rtcp([rtcp.ReceiverReport(0xFA), rtcp.ExtendedReport(0xFA, (ours, others))])
    call.audio.rtcp_datagram(data, (PHONE[0], 4001), call.now)
    numbers = call.statistics
    assert numbers.remote_discarded_percent == pytest.approx(10.2)
    assert (numbers.remote_delay_ms, numbers.remote_mos, numbers.remote_echo_db) == (140, 3.9, 31)


def test_rtcp_of_strangers_and_junk_is_dropped() -> None:
    call = Call()
    call.audio.rtcp_datagram(rtcp.format_rtcp([rtcp.ReceiverReport(5)]), STRANGER, call.now)
    call.audio.rtcp_datagram(b"\x80\xc9\xff\xff", (PHONE[0], 4001), call.now)
    assert call.statistics.dropped == 2


def test_the_end_of_the_call_is_a_report_with_bye() -> None:
    call = Call()
    call.ticks(3)
    (last,) = call.audio.bye(call.now)
    kinds = [type(packet) for packet in rtcp.parse_rtcp(last.data)]
    assert kinds == [rtcp.SenderReport, rtcp.SourceDescription, rtcp.Bye]
    assert last.rtcp


# Digits.


@pytest.mark.parametrize("payload_type", [101, 100, 110])
def test_a_digit_of_any_agreed_event_number_occurs_once(payload_type: int) -> None:
    call = Call()
    far = Far()
    call.tick((far.next(), PHONE))
    call.occurred()
    for payload in ("050a00a0", "050a0140", "058a01e0", "058a01e0", "058a01e0"):
        call.tick((far.event(payload, payload_type), PHONE))
    (digit,) = call.occurred()
    assert isinstance(digit, Digit)
    assert (digit.value, digit.source) == ("5", "rfc4733")
    assert digit.at == pytest.approx(1000.04)


@pytest.mark.parametrize("marker", [False, True])
def test_a_digit_counts_with_and_without_a_marker_bit(marker: bool) -> None:
    call = Call()
    far = Far()
    call.tick((far.next(), PHONE))
    packet = RtpPacket(101, far.sequence, 9999, far.ssrc, bytes.fromhex("050a00a0"), marker)
    call.tick((format_rtp(packet), PHONE))
    assert [one.value for one in call.audio.occurred if isinstance(one, Digit)] == ["5"]


def test_a_digit_from_a_stranger_never_counts() -> None:
    call = Call()
    far, intruder = Far(), Far(ssrc=0xBAD)
    call.tick((far.next(), PHONE))
    call.occurred()
    for _ in range(5):
        call.tick((intruder.event("050a00a0"), STRANGER), (far.next(), PHONE))
    assert call.occurred() == []


@pytest.mark.parametrize("said", [PHONE, ("192.168.1.1", 4000)])
def test_digits_injected_by_another_host_before_the_phone_speaks_never_count(
    said: tuple[str, int],
) -> None:
    """He may be the first to send two packets to our port, and then types codes."""
    intruder = ("192.168.1.66", 4000)
    call = Call(agreed(said, signalled_by="192.168.1.2"))
    far = Far(ssrc=0xBAD)
    for number in range(30):
        call.tick((far.event("050a00a0", timestamp=9000 + 200 * number), intruder))
    _, stray = call.occurred()
    assert isinstance(stray, Digit)
    assert stray.source == "stray"
    call.tick((Far().event("060a00a0"), said))
    digits = [one for one in call.occurred() if isinstance(one, Digit)]
    assert [(one.value, one.source) for one in digits] == [("6", "rfc4733")]


@pytest.mark.parametrize(
    ("said", "source"),
    [
        (("192.168.1.1", 4000), ("192.168.1.1", 61000)),  # a NAT that changes ports
        (("172.17.0.2", 4000), ("192.168.1.2", 4000)),  # a PBX in a container, SDP not set right
        (("10.1.2.3", 4000), ("93.184.216.34", 61000)),  # a phone behind a NAT, far away
    ],
)
def test_digits_of_a_far_end_behind_nat_count(
    said: tuple[str, int], source: tuple[str, int]
) -> None:
    call = Call(agreed(said, signalled_by="192.168.1.2"))
    far = Far()
    call.tick((far.next(), source), (far.next(), source), (far.event("050a00a0"), source))
    assert [one.source for one in call.occurred() if isinstance(one, Digit)] == ["rfc4733"]


@pytest.mark.parametrize("group", [("239.1.2.3", 4000), ("ff02::1", 4000)])
def test_sdp_that_names_a_multicast_group_aims_our_sound_nowhere(group: tuple[str, int]) -> None:
    call = Call(agreed(group))
    call.ticks(300)
    assert call.sent == []


def test_the_first_packet_of_a_call_may_be_a_digit() -> None:
    call = Call()
    call.tick((Far().event("0b0a00a0"), PHONE))
    started, digit = call.occurred()
    assert isinstance(started, MediaStarted)
    assert isinstance(digit, Digit)
    assert digit.value == "#"


def test_a_digit_that_is_too_short_is_dropped() -> None:
    call = Call()
    call.tick((Far().event("050a"), PHONE))
    assert call.statistics.dropped == 1


def test_digits_count_while_we_hold_the_far_end() -> None:
    call = Call(agreed(PHONE, direction="sendonly"))
    call.tick((Far().event("050a00a0"), PHONE))
    assert any(isinstance(one, Digit) for one in call.occurred())


def test_digits_we_send_take_the_place_of_audio() -> None:
    call = Call()
    call.ticks(2)
    call.audio.send_digits("5", duration_ms=60)
    call.ticks(8)
    kinds = [packet.payload_type for packet in call.rtp]
    assert kinds == [8, 8, 101, 101, 101, 101, 101, 8, 8, 8]
    event = [packet for packet in call.rtp if packet.payload_type == 101]
    assert {packet.timestamp for packet in event} == {call.rtp[1].timestamp + 160}
    assert [packet.marker for packet in event] == [True] + [False] * 4
    sequences = [packet.sequence for packet in call.rtp]
    assert [b - a for a, b in pairwise(sequences)] == [1] * 9
    after = call.rtp[7]
    assert after.marker
    assert after.timestamp == call.rtp[1].timestamp + 6 * 160


def test_digits_are_refused_when_the_far_end_takes_no_events() -> None:
    call = Call(agreed(PHONE, event_payload_type=None))
    assert not call.audio.can_send_events
    with pytest.raises(ValueError, match="send INFO"):
        call.audio.send_digits("5")


# Silence of the far end.


def test_a_far_end_that_falls_silent_is_reported_once_and_again_when_back() -> None:
    call = Call()
    far = Far()
    call.tick((far.next(), PHONE))
    call.occurred()
    call.ticks(50 * 31)
    (silent,) = call.occurred()
    assert isinstance(silent, MediaSilent)
    assert silent.seconds == pytest.approx(30, abs=0.1)
    call.ticks(5000)
    assert call.occurred() == []
    call.tick((far.next(), PHONE))
    assert call.occurred() == [MediaResumed()]


def test_a_far_end_that_never_sends_is_reported() -> None:
    call = Call()
    call.ticks(50 * 31)
    assert isinstance(call.occurred()[0], MediaSilent)


def test_reports_are_a_sign_of_life_during_silence_suppression() -> None:
    call = Call()
    far = Far()
    call.tick((far.next(), PHONE))
    call.occurred()
    data = rtcp.format_rtcp([rtcp.ReceiverReport(far.ssrc)])
    for _ in range(12):
        call.ticks(250)
        call.audio.rtcp_datagram(data, (PHONE[0], 4001), call.now)
    assert call.occurred() == []


@pytest.mark.parametrize("direction", ["sendonly", "recvonly", "inactive"])
def test_on_hold_nobody_waits_for_packets(direction: str) -> None:
    call = Call(agreed(PHONE, direction=direction))
    call.ticks(50 * 60)
    assert call.occurred() == []
    call.audio.configure(agreed(PHONE), call.now)
    call.ticks(50 * 20)
    assert call.occurred() == []  # counted from the resume


# Sounds and statistics.


KEY_5 = tones.Tone((tones.Segment(0.1, (770, 1336)), tones.Segment(0.1)))


def digits_of(call: Call) -> list[tuple[str, str]]:
    return [(one.value, one.source) for one in call.occurred() if isinstance(one, Digit)]


def with_tones(session: Agreed | None = None) -> Call:
    call = Call(session)
    call.audio.configure(session or agreed(PHONE), call.now, inband=True)
    return call


def test_a_tone_of_the_far_end_is_a_digit_where_that_is_wanted() -> None:
    for call, heard in ((with_tones(), [("5", "inband")]), (Call(), [])):
        far = Far()
        player = tones.player(KEY_5, 8000)
        for _ in range(20):
            call.tick((far.next(encode_pcma(player.read(160))), PHONE))
        assert digits_of(call) == heard


def test_a_tone_of_the_far_end_in_wide_band_is_a_digit() -> None:
    call = with_tones(wide("L16"))
    far = Far(payload_type=9, size=320)
    player = tones.player(KEY_5, 16000)
    for _ in range(20):
        call.tick((far.next(audioop.byteswap(player.read(320), 2)), PHONE))
    assert digits_of(call) == [("5", "inband")]


@pytest.mark.parametrize("periods", [1, 5, 25])
def test_a_tone_played_at_the_panel_opens_nothing_through_a_far_end_that_echoes(
    periods: int,
) -> None:
    call = with_tones()
    far = Far()
    player = tones.player(KEY_5, 8000)
    returned = [encode_pcma(SILENT)] * periods
    for _ in range(60):
        call.tick((far.next(returned.pop(0)), PHONE), microphone=player.read(160))
        returned.append(bytes(call.rtp[-1].payload))
    assert digits_of(call) == []
    assert audioop.rms(call.tick() or b"", 2) < 50
    assert call.statistics.loudspeaker_dbfs > -60, "it was heard"


def test_a_tone_from_elsewhere_than_the_far_end_is_stray() -> None:
    call = with_tones(agreed((PHONE[0], 9)))
    far = Far()
    player = tones.player(KEY_5, 8000)
    for _ in range(20):
        call.tick((far.next(encode_pcma(player.read(160))), STRANGER))
    assert digits_of(call) == [("5", "stray")]


def test_a_sound_takes_the_microphones_place_until_it_ends() -> None:
    call = Call()
    call.audio.play(tones.Tone((tones.Segment(0.1, (1000,)),)))
    for _ in range(8):
        call.tick(microphone=SOFT)
    levels = [audioop.rms(audioop.alaw2lin(packet.payload, 2), 2) for packet in call.rtp]
    assert min(levels[:5]) > 3000
    assert levels[5:] == pytest.approx([800] * 3, rel=0.05)


def test_a_sound_can_be_mixed_with_the_microphone_and_stopped() -> None:
    call = Call()
    call.audio.play(tones.named("ringback"), mix=True)
    call.tick(microphone=LOUD)
    call.audio.stop_sound()
    call.tick(microphone=SILENT)
    assert audioop.rms(audioop.alaw2lin(call.rtp[0].payload, 2), 2) > 8000
    assert audioop.rms(audioop.alaw2lin(call.rtp[1].payload, 2), 2) < 20


def test_a_sound_begins_again_when_another_codec_is_agreed_and_keeps_its_pitch() -> None:
    call = Call()
    call.audio.play(Wav(8000, LOUD * 10))
    call.ticks(3)
    wide = Codec("L16", 16000)
    call.audio.configure(agreed(PHONE, codec=wide, payload_type=96), call.now)
    call.sent.clear()
    call.ticks(15)
    played = [audioop.max(packet.payload, 2) for packet in call.rtp]
    assert [peak > 0 for peak in played[:9]] == [True] * 9
    assert played[12:] == [0] * 3


@pytest.mark.parametrize("mix", [True, False])
def test_sounds_to_the_far_end_pass_a_limiter(mix: bool) -> None:
    call = Call(agreed(PHONE, codec=Codec("L16", 8000), payload_type=96))
    call.audio.play(tones.Tone((tones.Segment(0.2, (1000,)),), level=0.0), mix=mix)
    call.ticks_of([array("h", [32000, -32000] * 80).tobytes()] * 9)
    for packet in call.rtp:
        assert 25000 < audioop.max(audioop.byteswap(packet.payload, 2), 2) <= levels.CEILING


def test_a_muted_microphone_sends_silence_and_sounds_of_ours_in_its_place() -> None:
    call = Call()
    call.ticks_of([LOUD] * 3)
    call.audio.mute(True)
    call.ticks_of([LOUD] * 2)
    call.audio.play(tones.Tone((tones.Segment(0.04, (1000,)),)))
    call.ticks_of([LOUD] * 3)
    call.audio.mute(False)
    call.tick(microphone=LOUD)
    loud, silent = encode_pcma(LOUD), encode_pcma(SILENT)
    payloads = [packet.payload for packet in call.rtp]
    assert payloads[:5] == [loud] * 3 + [silent] * 2
    assert not {silent, loud} & set(payloads[5:7])
    assert payloads[7:] == [silent, loud]
    assert call.statistics.microphone_dbfs > -20, "it is no dead microphone"


def test_statistics_tell_a_call_in_numbers() -> None:
    call = Call()
    far = Far()
    for i in range(100):
        data = far.next(encode_pcma(LOUD))
        if i == 50:
            continue
        call.tick((data, PHONE), *([(data, PHONE)] if i == 60 else []), microphone=SOFT)
    numbers = call.statistics
    assert (numbers.sent, numbers.received, numbers.lost) == (99, 99, 1)
    assert (numbers.duplicated, numbers.late, numbers.concealed) == (1, 0, 1)
    assert numbers.codec == "PCMA"
    assert numbers.remote == "192.0.2.1:4000"
    assert numbers.microphone_dbfs == pytest.approx(-32.2, abs=0.1)
    assert numbers.loudspeaker_dbfs == pytest.approx(-12.3, abs=0.3)


@pytest.mark.parametrize(("payload_type", "payload"), [(8, b"\xd5"), (8, b"\x55"), (0, b"\xff")])
def test_a_phone_whose_microphone_is_switched_off_sent_silence(
    payload_type: int, payload: bytes
) -> None:
    call = Call()
    far = Far(payload_type=payload_type)
    for _ in range(150):
        call.tick((far.next(payload * 160), PHONE), microphone=SOFT)
    assert verdict(call.statistics) == "the phone sent silence"


def test_an_ipv6_far_end_is_shown_in_brackets() -> None:
    assert Call(agreed(("2001:db8::1", 4000))).statistics.remote == "[2001:db8::1]:4000"


def test_codecs_in_one_call_are_the_agreed_ones_only() -> None:
    call = Call(agreed(PHONE, receive=((8, PCMA),)))
    far = Far(payload_type=0)
    call.tick((far.next(), PHONE))
    assert call.statistics.dropped == 1
