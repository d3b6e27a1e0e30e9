"""Two ends of a call that speak G.722, Opus and L16: sound, clocks, losses, pauses, changes."""

import random
from array import array

import pytest
from doorstation.ids import SeededIds
from doorstation.media import rtcp
from doorstation.media.digits import Digit
from doorstation.media.engine import CallAudio
from doorstation.media.pcm import audioop
from doorstation.media.resample import Resampler
from doorstation.media.session import CallStatistics

from tests.support import sounds
from tests.support.agreed import PCMA, Agreed, Codec, agreed
from tests.support.rtp import RtpPacket, format_rtp, parse_rtp
from tests.support.sounds import correlation

DOOR, PHONE = ("192.0.2.1", 4000), ("192.0.2.2", 4000)
G722 = Codec("G722")
OPUS = Codec("opus", 48000, "useinbandfec=1")
L16 = Codec("L16", 16000)
NUMBERS = {"PCMA": 8, "G722": 9, "opus": 96, "L16": 97}
RECEIVE = tuple((NUMBERS[codec.name], codec) for codec in (PCMA, G722, OPUS, L16))
CODECS = pytest.mark.parametrize("codec", [PCMA, G722, OPUS, L16], ids=lambda codec: codec.name)


def speaking(codec: Codec, remote: tuple[str, int], **changes: object) -> Agreed:
    changes = {"receive": RECEIVE, **changes}
    return agreed(remote, codec=codec, payload_type=NUMBERS[codec.name], **changes)


def voice(seconds: float) -> list[bytes]:
    # High: Opus takes out what lies below a voice, and turns the phase of what is near.
    return sounds.voice(seconds, pitch=280)


class TwoEnds:
    """A door and a phone, 20 ms apart; `lost(n)`: whether the door's n-th packet is."""

    def __init__(self, codec: Codec, rate: int = 16000, **changes: object) -> None:
        self.now = 1000.0
        self.rate = rate
        self.door = CallAudio(SeededIds(1), self.now, rate=rate)
        self.phone = CallAudio(SeededIds(2), self.now, rate=rate)
        self.agree(codec, **changes)
        self.packets: list[RtpPacket] = []
        self.heard = b""

    def agree(self, codec: Codec, **changes: object) -> None:
        self.door.configure(speaking(codec, PHONE, **changes), self.now)
        self.phone.configure(speaking(codec, DOOR, **changes), self.now)

    def tick(self, period: bytes, lost: bool = False) -> None:
        self.now += 0.02
        _, sent = self.door.tick(period, [], self.now)
        self.packets += [parse_rtp(one.data) for one in sent if not one.rtcp]
        arrived = [(one.data, DOOR) for one in sent if not one.rtcp and not lost]
        heard, _ = self.phone.tick(bytes(self.rate // 50 * 2), arrived, self.now)
        assert heard is not None
        assert len(heard) == self.rate // 50 * 2
        self.heard += heard

    def talk(self, periods: list[bytes], lost: frozenset[int] = frozenset()) -> None:
        for n, period in enumerate(periods):
            self.tick(period, n in lost)

    @property
    def statistics(self) -> CallStatistics:
        return self.phone.statistics(self.now)


def likeness(said: bytes, heard: bytes, rate: int) -> float:
    """Correlation of the last 200 ms with where they fit best in what was said."""
    if rate != 16000:
        converter = Resampler(rate, 16000)
        heard = converter.process(heard)
    part = heard[-6400:]
    place = 2 * audioop.findfit(said, part)[0]
    return correlation(said[place : place + len(part)], part)


@CODECS
@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_what_one_says_the_other_hears_at_any_cards_rate(codec: Codec, rate: int) -> None:
    said = voice(2)
    convert = Resampler(16000, rate)
    call = TwoEnds(codec, rate)
    call.talk([convert.process(period) for period in said])
    assert likeness(b"".join(said), call.heard, rate) > 0.9
    assert call.statistics.lost == call.statistics.dropped == 0


@CODECS
def test_the_clock_of_the_packets_is_that_of_the_sdp(codec: Codec) -> None:
    call = TwoEnds(codec)
    call.talk(voice(0.2))
    steps = {
        (after.timestamp - before.timestamp) & 0xFFFFFFFF
        for before, after in zip(call.packets, call.packets[1:], strict=False)
    }
    assert steps == {codec.clock // 50}


@CODECS
@pytest.mark.parametrize(
    ("ptime", "octets"),
    [(40, {"PCMA": 320, "G722": 320, "L16": 1280}), (60, {"PCMA": 480, "G722": 480, "L16": 1280})],
)
def test_longer_packets_are_sent_where_they_are_asked_for(
    codec: Codec, ptime: int, octets: dict[str, int]
) -> None:
    call = TwoEnds(codec, ptime_ms=ptime)
    said = voice(2)
    call.talk(said)
    if codec is not OPUS:
        assert {len(packet.payload) for packet in call.packets} == {octets[codec.name]}
    milliseconds = 40 if codec is L16 else ptime
    steps = {
        (after.timestamp - before.timestamp) & 0xFFFFFFFF
        for before, after in zip(call.packets, call.packets[1:], strict=False)
    }
    assert steps == {codec.clock * milliseconds // 1000}
    assert likeness(b"".join(said), call.heard, 16000) > 0.9


def test_thirty_milliseconds_of_opus_are_sent_as_twenty() -> None:
    call = TwoEnds(OPUS, ptime_ms=30)
    call.talk(voice(0.4))
    assert len(call.packets) == 20


@pytest.mark.parametrize("codec", [G722, OPUS], ids=lambda codec: codec.name)
def test_losses_are_filled_and_speech_goes_on(codec: Codec) -> None:
    said = voice(3)
    call = TwoEnds(codec)
    call.talk(said, lost=frozenset(range(20, 100, 9)))
    assert call.statistics.lost == 9
    assert call.statistics.concealed > 0
    assert likeness(b"".join(said), call.heard, 16000) > 0.9


def test_what_the_far_end_loses_makes_opus_repeat_more() -> None:
    lossy, clean = TwoEnds(OPUS), TwoEnds(OPUS)
    for call, loss in ((clean, 0), (lossy, 60)):
        call.talk(voice(0.2))
        ours = call.packets[0].ssrc
        block = rtcp.ReportBlock(ours, loss, 0, 0, 0, 0, 0)
        report = rtcp.format_rtcp([rtcp.ReceiverReport(7, (block,))])
        call.door.rtcp_datagram(report, (PHONE[0], PHONE[1] + 1), call.now)
        call.packets.clear()
        call.talk(voice(1))
    octets = [sum(len(packet.payload) for packet in call.packets) for call in (clean, lossy)]
    assert octets[0] != octets[1]


def test_a_pause_of_opus_is_a_gap_and_no_loss_and_the_next_packet_is_marked() -> None:
    chance = random.Random(1)
    pause = [array("h", (chance.randint(-9, 9) for _ in range(320))).tobytes() for _ in range(150)]
    call = TwoEnds(Codec("opus", 48000, "usedtx=1"))
    call.talk([*voice(1), *pause])
    in_pause = len(call.packets)
    assert in_pause < 120, "200 periods"
    call.talk(voice(1))
    assert call.statistics.lost == 0
    assert call.packets[in_pause].marker
    assert [p.sequence - call.packets[0].sequence & 0xFFFF for p in call.packets] == [
        *range(len(call.packets))
    ]


@CODECS
def test_any_agreed_codec_may_come_whatever_we_send(codec: Codec) -> None:
    """An answer with two codecs: the far end may send either, at any time (RFC 3264 §5.1)."""
    said = voice(2)
    call = TwoEnds(codec)
    for ours in (PCMA, G722):
        call.phone.configure(speaking(ours, DOOR), call.now)
        call.heard = b""
        call.talk(said)
        assert likeness(b"".join(said), call.heard, 16000) > 0.9


def test_a_reinvite_changes_the_codec_and_the_statistics_go_on() -> None:
    call = TwoEnds(PCMA)
    said = voice(1)
    received = 0
    for codec in (PCMA, G722, OPUS, L16, G722, PCMA):
        call.agree(codec)
        call.heard = b""
        call.talk(said)
        received += len(said)
        assert likeness(b"".join(said), call.heard, 16000) > 0.9
        assert call.statistics.received == received
        assert call.statistics.codec == codec.name
        assert call.statistics.jitter_ms < 5


def test_an_agreement_that_changes_nothing_forgets_nothing() -> None:
    once, twice = TwoEnds(G722), TwoEnds(G722)
    for call in (once, twice):
        call.talk(voice(0.5))
        if call is twice:
            call.agree(G722)
        call.talk(voice(0.5))
    assert [p.payload for p in once.packets] == [p.payload for p in twice.packets]


def test_digits_beside_opus_count_its_clock() -> None:
    call = TwoEnds(OPUS, event_clock=48000, event_receive=((101, 48000),))
    call.talk(voice(0.1))
    call.door.send_digits("5")
    call.packets.clear()
    call.talk(voice(0.5))
    events = [packet for packet in call.packets if packet.payload_type == 101]
    assert events[0].payload[2:] == (960).to_bytes(2, "big")
    assert events[-1].payload[2:] == (4800).to_bytes(2, "big")
    assert [one.value for one in call.phone.occurred if isinstance(one, Digit)] == ["5"]


def test_malformed_opus_is_counted_and_the_call_goes_on() -> None:
    call = TwoEnds(OPUS)
    said = voice(2)
    for n, period in enumerate(said):
        call.tick(period, lost=n % 10 == 9)
        if n % 10 == 9:
            last = call.packets[-1]
            junk = RtpPacket(96, last.sequence, last.timestamp, last.ssrc, b"\xff\xff\xff")
            call.phone.datagram(format_rtp(junk), DOOR, call.now)
    call.talk(said)
    assert likeness(b"".join(said), call.heard, 16000) > 0.9


def test_comfort_noise_is_heard_in_place_of_a_pause() -> None:
    call = TwoEnds(G722)
    call.talk(voice(1))
    last = call.packets[-1]
    for n in range(50):
        call.now += 0.02
        datagrams = []
        if n % 10 == 0:
            noise = RtpPacket(
                13,
                last.sequence + 1 + n // 10 & 0xFFFF,
                last.timestamp + 160 * (n + 1),
                last.ssrc,
                b"\x28",
            )
            datagrams.append((format_rtp(noise), DOOR))
        heard, _ = call.phone.tick(bytes(640), datagrams, call.now)
    assert heard is not None
    assert 200 < audioop.rms(heard, 2) < 500  # -40 dBov is 328
    assert call.statistics.concealed == 0
    assert call.statistics.dropped == 0
