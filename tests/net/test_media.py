"""The media thread over real loopback sockets, its card driven period by period by the test."""

import asyncio
import contextlib
import errno
import os
import socket
import time
from array import array
from collections.abc import AsyncIterator, Iterator

import pytest
from doorstation.errors import DoorstationError, TransportError
from doorstation.ids import SeededIds
from doorstation.media import echo, resample, rtcp, tones
from doorstation.media.digits import Digit
from doorstation.media.engine import CallAudio
from doorstation.media.g711 import decode_pcma, encode_pcma
from doorstation.media.levels import CEILING, MicrophoneLevels
from doorstation.media.path import Options, SoundPath
from doorstation.media.pcm import audioop
from doorstation.media.recording import Packet, Tick
from doorstation.media.wav import Wav
from doorstation.net.media.events import (
    CardBack,
    CardLost,
    DigitHeard,
    FarEndResumed,
    FarEndSilent,
    FarEndStarted,
    MediaEvent,
    MediaFailed,
    SessionEnded,
    SoundEnded,
    SoundFailed,
    SoundFault,
)
from doorstation.net.media.leg import Leg
from doorstation.net.media.ports import sender
from doorstation.net.media.thread import MediaSession, MediaThread

from tests.support.agreed import Codec, agreed
from tests.support.audio_port import StepClock, SteppedPort
from tests.support.rtp import RtpPacket, format_rtp, parse_rtp
from tests.support.waiting import until

LOUD = array("h", [8000, -8000] * 80).tobytes()
BEEP = tones.Tone((tones.Segment(0.06, (1000,)),))
PORTS = (23000, 23200)


class Phone:
    """The far end: an RTP and an RTCP socket on loopback."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.host = host
        self.rtp = socket.socket(family, socket.SOCK_DGRAM)
        self.rtcp = socket.socket(family, socket.SOCK_DGRAM)
        for one in (self.rtp, self.rtcp):
            one.bind((host, 0))
            one.settimeout(5.0)
        self.address: tuple[str, int] = self.rtp.getsockname()[:2]
        self.rtcp_address: tuple[str, int] = self.rtcp.getsockname()[:2]
        self._sequence = 0

    def send(self, session: MediaSession, payload: bytes = encode_pcma(LOUD)) -> None:
        packet = RtpPacket(8, self._sequence, self._sequence * 160, 0xFA, payload)
        self._sequence += 1
        self.rtp.sendto(format_rtp(packet), (self.host, session.rtp_port))

    def press(self, session: MediaSession, payload: str) -> None:
        packet = RtpPacket(101, self._sequence, 999, 0xFA, bytes.fromhex(payload))
        self._sequence += 1
        self.rtp.sendto(format_rtp(packet), (self.host, session.rtp_port))

    def receive(self) -> RtpPacket:
        return parse_rtp(self.rtp.recv(2048))

    def close(self) -> None:
        self.rtp.close()
        self.rtcp.close()


PLAIN = Options(echo.Options("off", False), MicrophoneLevels(gain_control=False))


class Canceller:
    """Cancels nothing, and remembers what it was given."""

    def __init__(self) -> None:
        self.occurred: list[object] = []
        self.closed = False
        self.leads: list[float] = []
        self.given: list[tuple[bytes, bytes]] = []

    def call_began(self, lead: float) -> None:
        self.leads.append(lead)

    def process(self, microphone: bytes, reference: bytes) -> bytes:
        self.given.append((microphone, reference))
        return microphone

    def close(self) -> None:
        self.closed = True

    def figures(self) -> echo.Figures:
        return echo.Figures(erle_db=38.0)


class Door:
    """A media thread on a stepped card, and what it reported."""

    def __init__(self, rate: int = 8000, canceller: Canceller | None = None) -> None:
        self.clock = StepClock()
        self.port = SteppedPort(self.clock, rate)
        self.events: list[MediaEvent] = []
        self.opened = 0
        self.media = MediaThread(
            self._open_port,
            asyncio.get_running_loop(),
            self.events.append,
            ids=SeededIds(1),
            ports=PORTS,
            clock=self.clock,
            sleep=self.port.sleep,
            make_path=None if canceller is None else lambda: SoundPath(PLAIN, canceller),
        )

    def _open_port(self) -> SteppedPort:
        self.opened += 1
        return self.port

    async def step(self, count: int = 1) -> None:
        """Let the thread run `count` periods, and the loop hear of it."""
        await asyncio.sleep(0)  # it is started by the loop
        self.port.step(count)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def until_idle(self) -> None:
        """Step until the thread has ended by itself."""
        await asyncio.sleep(0)
        for _ in range(200):
            if not self.media.running:
                return
            self.port.step_if_running(lambda: self.media.running)
        raise AssertionError("the media thread does not end")

    def call(self, phone: Phone, name: str = "call", **changes: object) -> MediaSession:
        session = self.media.start_session(phone.host, name)
        session.configure(agreed(phone.address, remote_rtcp=phone.rtcp_address, **changes))
        return session

    def close(self) -> None:
        self.port.release()
        self.media.close()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    yield door
    door.close()


@pytest.fixture
def phone() -> Iterator[Phone]:
    phone = Phone()
    yield phone
    phone.close()


def sent_by(session: MediaSession) -> int:
    statistics = session.statistics()
    return statistics.sent if statistics is not None else 0


def received_by(session: MediaSession) -> int:
    statistics = session.statistics()
    return statistics.received if statistics is not None else 0


def heard(door: Door) -> list[int]:
    """Levels of the periods written to the loudspeaker."""
    return [audioop.rms(period, 2) for period in door.port.written]


# Sessions and ports.


async def test_a_port_pair_is_even_and_next_and_ready_before_the_call(door: Door) -> None:
    session = door.media.start_session("127.0.0.1", "one")
    assert session.rtp_port % 2 == 0
    assert session.rtcp_port == session.rtp_port + 1
    assert PORTS[0] <= session.rtp_port < PORTS[1]
    assert session.statistics() is None
    assert not door.media.running
    assert door.opened == 0


async def test_the_card_is_opened_after_what_the_loop_has_in_hand(door: Door, phone: Phone) -> None:
    door.call(phone)
    assert door.media.running
    assert door.opened == 0
    await door.step()
    assert door.opened == 1


async def test_a_call_that_ends_with_the_service_before_its_sound_began_frees_its_ports(
    door: Door, phone: Phone
) -> None:
    session = door.call(phone)
    door.close()
    assert not door.media.running
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((session.address, session.rtp_port))


async def test_two_sessions_have_different_ports(door: Door) -> None:
    ports = {door.media.start_session("127.0.0.1").rtp_port for _ in range(20)}
    assert len(ports) == 20


async def test_a_range_that_is_full_says_so() -> None:
    loop = asyncio.get_running_loop()
    port = SteppedPort(StepClock())
    media = MediaThread(lambda: port, loop, lambda _: None, ports=(23300, 23303))
    media.start_session("127.0.0.1")
    media.start_session("127.0.0.1")
    with pytest.raises(TransportError, match=r"no media port pair on 127\.0\.0\.1 in 23300"):
        media.start_session("127.0.0.1")
    media.close()


async def test_an_address_that_is_not_ours_says_so(door: Door) -> None:
    with pytest.raises(TransportError, match=r"192\.0\.2\.1"):
        door.media.start_session("192.0.2.1")


@pytest.mark.parametrize(
    ("to", "source", "foreign"),
    [("127.0.0.1", "127.0.0.21", "192.0.2.1"), ("::1", "::1", "2001:db8::1")],
)
def test_packets_leave_from_the_address_that_is_named(to: str, source: str, foreign: str) -> None:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one, socket.socket(family, one.type) as far:
        far.bind((to, 0))
        sender(one, source)(b"sound", far.getsockname()[:2])
        assert far.recvfrom(9)[1][0] == source
        with pytest.raises(OSError, match=r".+"):
            sender(one, foreign)(b"sound", far.getsockname()[:2])


async def test_packets_are_marked_as_expedited_forwarding(door: Door) -> None:
    session = door.media.start_session("127.0.0.1")
    assert session._leg.sockets.rtp.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0xB8
    session = door.media.start_session("::1")
    rtp = session._leg.sockets.rtp
    assert rtp.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 0xB8


async def test_a_session_stopped_before_its_call_gives_its_ports_back(door: Door) -> None:
    session = door.media.start_session("127.0.0.1", "early")
    session.stop()
    session.stop()
    await asyncio.sleep(0)
    assert door.events == [SessionEnded("early", None)]
    again = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    again.bind(("127.0.0.1", session.rtp_port))
    again.close()


async def test_an_unknown_codec_is_refused_at_once(door: Door) -> None:
    session = door.media.start_session("127.0.0.1")
    with pytest.raises(ValueError, match="speex"):
        session.configure(agreed(("127.0.0.1", 9), codec=Codec("speex")))
    assert not door.media.running


# A call.


async def test_one_period_in_one_packet_out(door: Door, phone: Phone) -> None:
    door.port.microphone.extend([LOUD, bytes(320), LOUD])
    door.call(phone)
    await door.step(3)
    packets = [phone.receive() for _ in range(3)]
    assert [packet.payload for packet in packets] == [
        encode_pcma(LOUD),
        encode_pcma(bytes(320)),
        encode_pcma(LOUD),
    ]


async def test_without_the_right_to_real_time_the_call_runs_all_the_same(
    door: Door, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refused)
    door.call(phone)
    await door.step()
    assert phone.receive().payload == encode_pcma(bytes(320))


async def test_packets_left_behind_in_one_tick_are_read_in_the_next(
    door: Door, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = door.call(phone)
    await door.step()
    for _ in range(4):
        phone.send(session)
    await door.step()
    assert received_by(session) == 1  # fresh, and a whole period: enough for this tick
    monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9 + 0.03)
    await door.step()
    assert received_by(session) == 4


async def test_the_far_end_is_on_the_loudspeaker(door: Door, phone: Phone) -> None:
    session = door.call(phone)
    await door.step()
    for _ in range(10):
        phone.send(session)
        await door.step()
    assert max(heard(door)[:2]) == 0
    assert min(heard(door)[-5:]) > 7000
    assert door.events == [FarEndStarted("call", phone.address)]
    statistics = session.statistics()
    assert statistics is not None
    assert (statistics.received, statistics.lost, statistics.concealed) == (10, 0, 0)


async def test_a_call_over_ipv6(door: Door) -> None:
    phone = Phone("::1")
    session = door.call(phone)
    await door.step()
    phone.receive()
    for _ in range(5):
        phone.send(session)
        await door.step()
    assert door.events == [FarEndStarted("call", phone.address)]
    phone.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_session_on_every_address_speaks_the_family_that_was_agreed(
    door: Door, host: str
) -> None:
    phone = Phone(host)
    session = door.media.start_session("::", "call")
    session.configure(agreed(phone.address, remote_rtcp=phone.rtcp_address))
    await door.step()
    phone.receive()
    for _ in range(5):
        phone.send(session)
        await door.step()
    assert door.events == [FarEndStarted("call", phone.address)]
    phone.close()


async def test_a_reinvite_may_move_a_call_to_the_other_family(door: Door) -> None:
    old, new = Phone("127.0.0.1"), Phone("::1")
    session = door.media.start_session("::", "call")
    session.configure(agreed(old.address, remote_rtcp=old.rtcp_address))
    await door.step()
    old.receive()
    session.configure(agreed(new.address, remote_rtcp=new.rtcp_address))
    await door.step()
    new.receive()
    old.close()
    new.close()


async def test_without_ipv6_a_session_on_every_address_has_ipv4(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.socket

    def without_ipv6(family: int = -1, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *rest)

    phone = Phone()
    monkeypatch.setattr("doorstation.net.media.ports.socket.socket", without_ipv6)
    session = door.media.start_session("::", "call")
    monkeypatch.undo()
    session.configure(agreed(phone.address, remote_rtcp=phone.rtcp_address))
    await door.step()
    phone.receive()
    phone.close()


async def test_what_came_before_the_answer_is_no_delay(door: Door, phone: Phone) -> None:
    session = door.media.start_session("127.0.0.1", "call")
    for _ in range(200):
        phone.send(session)
    session.configure(agreed(phone.address))
    await door.step()
    for _ in range(5):
        phone.send(session)
        await door.step()
    statistics = session.statistics()
    assert statistics is not None
    assert statistics.received == 5
    assert statistics.delay_ms <= 20


async def test_digits_come_as_events_once(door: Door, phone: Phone) -> None:
    session = door.call(phone)
    await door.step()
    for payload in ("050a00a0", "050a0140", "058a01e0", "058a01e0", "058a01e0"):
        phone.press(session, payload)
        await door.step()
    digits = [event for event in door.events if isinstance(event, DigitHeard)]
    assert len(digits) == 1
    assert digits[0].session == "call"
    assert digits[0].digit.value == "5"
    assert isinstance(digits[0].digit, Digit)


async def test_digits_go_out_as_telephone_events(door: Door, phone: Phone) -> None:
    session = door.call(phone)
    assert session.can_send_events
    session.send_digits("5#", duration_ms=40)
    await door.step(20)
    packets = [phone.receive() for _ in range(20)]
    events = [packet for packet in packets if packet.payload_type == 101]
    assert [packet.payload[0] for packet in events if packet.marker] == [5, 11]


async def test_digits_are_refused_where_they_cannot_go(door: Door, phone: Phone) -> None:
    session = door.call(phone, event_payload_type=None)
    assert not session.can_send_events
    with pytest.raises(ValueError, match="send INFO"):
        session.send_digits("5")
    with pytest.raises(ValueError, match="no such digit"):
        session.send_digits("x")
    await door.step()


async def test_a_reinvite_changes_the_running_call(door: Door, phone: Phone) -> None:
    session = door.call(phone)
    await door.step(2)
    session.configure(agreed(phone.address, direction="recvonly"))
    await door.step(5)
    session.configure(agreed(phone.address, payload_type=0, codec=Codec("PCMU")))
    await door.step()
    assert [phone.receive().payload_type for _ in range(3)] == [8, 8, 0]


async def test_a_sound_goes_to_the_far_end(door: Door, phone: Phone) -> None:
    session = door.call(phone)
    session.play(tones.named("ringback"))
    await door.step(3)
    session.stop_sound()
    await door.step(2)
    levels = [audioop.rms(audioop.alaw2lin(phone.receive().payload, 2), 2) for _ in range(5)]
    assert min(levels[:3]) > 2000
    assert max(levels[3:]) < 20


async def test_the_end_says_bye_and_tells_the_numbers(door: Door, phone: Phone) -> None:
    session = door.call(phone)
    await door.step(4)
    session.stop()
    session.stop()
    await door.step()
    (ended,) = door.events
    assert isinstance(ended, SessionEnded)
    assert ended.statistics is not None
    assert ended.statistics.sent == 4
    assert session.statistics() == ended.statistics
    packets = rtcp.parse_rtcp(phone.rtcp.recv(2048))
    assert isinstance(packets[-1], rtcp.Bye)


async def test_a_report_that_waited_in_the_socket_does_not_lengthen_the_round_trip(
    door: Door, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = door.call(phone)
    phone.send(session)
    await door.step(250)
    sent = rtcp.parse_rtcp(phone.rtcp.recv(2048))[0]
    assert isinstance(sent, rtcp.SenderReport)

    def answer() -> None:
        held = int((door.clock.now - sent.ntp / 2**32) * 65536)
        block = rtcp.ReportBlock(sent.ssrc, 0, 0, 0, 0, sent.ntp >> 16 & 0xFFFFFFFF, held)
        report = rtcp.format_rtcp([rtcp.ReceiverReport(0xFA, (block,))])
        phone.rtcp.sendto(report, (phone.host, session.rtcp_port))

    def round_trip() -> float | None:
        statistics = session.statistics()
        assert statistics is not None
        return statistics.round_trip_ms

    answer()
    while round_trip() is None:
        await door.step()
    answer()  # seen ten ticks later, and by the machine's clock it has waited for eight of them
    later = time.time
    monkeypatch.setattr(time, "time", lambda: later() + 0.16)
    await door.step(10)
    measured = round_trip()
    assert measured is not None
    assert measured < 60


async def test_a_clock_that_is_set_while_a_report_waits_makes_no_far_end_silent(
    door: Door, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = door.call(phone)
    await door.step()
    phone.send(session)
    await door.step()
    report = rtcp.format_rtcp([rtcp.ReceiverReport(0xFA)])
    phone.rtcp.sendto(report, (phone.host, session.rtcp_port))
    before = time.time
    monkeypatch.setattr(time, "time", lambda: before() + 86_400)
    await door.step(11)
    assert [type(event) for event in door.events] == [FarEndStarted]


async def test_a_silent_far_end_is_an_event(door: Door, phone: Phone) -> None:
    session = door.call(phone)
    await door.step(50 * 31)
    assert [type(event) for event in door.events] == [FarEndSilent]
    phone.send(session)
    await door.step()
    assert [type(event) for event in door.events[1:]] == [FarEndStarted, FarEndResumed]


async def test_a_flood_takes_no_more_than_its_share_of_a_tick(door: Door, phone: Phone) -> None:
    session = door.call(phone)
    await door.step()
    for _ in range(150):
        phone.rtp.sendto(b"x" * 12, ("127.0.0.1", session.rtp_port))
    await door.step()
    statistics = session.statistics()
    assert statistics is not None
    assert statistics.dropped == 64


async def test_two_calls_are_mixed_and_both_hear_the_microphone(door: Door, phone: Phone) -> None:
    other = Phone()
    one = door.call(phone, "one")
    two = door.call(other, "two")
    door.port.microphone.extend([LOUD] * 10)
    await door.step()
    for _ in range(6):
        phone.send(one, encode_pcma(audioop.mul(LOUD, 2, 0.25)))
        other.send(two, encode_pcma(audioop.mul(LOUD, 2, 0.25)))
        await door.step()
    assert heard(door)[-1] == pytest.approx(4000, rel=0.05)
    assert phone.receive().payload == other.receive().payload == encode_pcma(LOUD)
    one.stop()
    await door.step(3)
    two.stop()
    await door.step(3)
    assert {e.session for e in door.events if isinstance(e, SessionEnded)} == {"one", "two"}
    other.close()


# Sounds without a call.


async def test_a_muted_speaker_plays_the_doors_own_sounds_alone_until_the_call_ends(
    door: Door, phone: Phone
) -> None:
    session = door.call(phone)
    session.mute("speaker", on=True)
    for _ in range(30):
        phone.send(session)
        await door.step()
    assert max(heard(door)) == 0
    assert received_by(session) > 20
    door.media.play(BEEP)
    await door.step(3)
    assert max(heard(door)) > 1000
    session.stop()
    await door.step(20)
    again = door.call(phone, "again")
    begin = len(heard(door))
    for _ in range(30):
        phone.send(again)
        await door.step()
    assert max(heard(door)[begin:]) > 1000


async def test_a_sound_plays_without_a_call_and_then_all_is_idle(door: Door) -> None:
    sound = tones.named("opened")
    door.media.play(sound)
    await door.step(5)
    assert door.media.running
    assert door.media.card == "running"
    assert min(heard(door)[:5]) > 2000
    await door.until_idle()
    await asyncio.sleep(0)
    assert door.events == [SoundEnded(sound)]
    assert door.media.card == "closed"
    assert not door.port.is_open.is_set()


async def test_the_tail_of_a_sound_is_played_before_the_card_closes(door: Door) -> None:
    door.media.play(BEEP)
    await door.until_idle()
    silent = [level == 0 for level in heard(door)]
    assert silent[3:] == [True] * len(silent[3:])
    assert len(silent) >= 20


async def test_a_loop_plays_until_it_is_stopped(door: Door) -> None:
    door.media.play(BEEP, loop=True)
    await door.step(200)
    assert heard(door)[-1] > 2000
    door.media.stop_sound()
    await door.until_idle()
    assert door.events == []


async def test_another_sound_takes_the_place_of_the_first(door: Door) -> None:
    door.media.play(tones.named("ringback"))
    await door.step(2)
    door.media.play(tones.Tone((tones.Segment(0.1),)))
    await door.step(2)
    assert heard(door)[-1] == 0


async def test_a_sound_that_repeats_goes_on_after_a_single_one_was_heard_to_its_end(
    door: Door,
) -> None:
    hum = tones.Tone((tones.Segment(1.0, (400,)),), repeat=True, level=-40.0)
    door.media.play(hum, loop=True)
    await door.step(5)
    door.media.play(BEEP, then=hum)
    await door.step(50)
    levels = heard(door)
    assert sum(level > 2000 for level in levels) == 3
    assert 0 < levels[-1] < 500


async def test_the_end_of_what_repeats_does_not_cut_a_single_sound(door: Door) -> None:
    hum = tones.Tone((tones.Segment(1.0, (400,)),), repeat=True)
    door.media.play(BEEP, then=hum)
    await door.step(1)
    door.media.stop_sound()
    await door.until_idle()
    await asyncio.sleep(0)
    assert sum(level > 0 for level in heard(door)) == 3
    assert door.events == [SoundEnded(BEEP)]


async def test_a_sound_is_heard_over_the_voice(door: Door, phone: Phone) -> None:
    session = door.call(phone)
    await door.step()
    door.media.play(tones.named("warning"))
    for _ in range(6):
        phone.send(session, encode_pcma(audioop.mul(LOUD, 2, 0.1)))
        await door.step()
    assert heard(door)[-1] > 3000


async def test_the_thread_starts_again_after_idle(door: Door) -> None:
    for _ in range(3):
        door.media.play(BEEP)
        await door.step(2)
        assert heard(door)[-1] > 2000
        await door.until_idle()
    assert door.opened == 1
    assert door.port.opened == 3


async def test_a_sound_that_cannot_be_played_is_an_event(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doorstation.errors import DoorstationError

    def missing(*_: object) -> None:
        raise DoorstationError("libspeexdsp is missing")

    monkeypatch.setattr(tones, "Resampler", missing)
    sound = Wav(44100, bytes(8820))
    door.media.play(sound)
    await door.step()
    assert door.events == [SoundFailed(sound, "libspeexdsp is missing")]


async def test_a_sound_whose_second_part_cannot_be_played_ends_with_the_first(
    door: Door, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise DoorstationError("libspeexdsp is missing")

    monkeypatch.setattr(tones, "Resampler", missing)
    session = door.call(phone)
    door.media.play(BEEP, then=Wav(44100, bytes(8820)))
    await door.step(10)
    assert door.events == [SoundFailed(BEEP, "libspeexdsp is missing")]
    assert sent_by(session) >= 8


# The card.


async def test_a_lost_card_is_reported_and_the_call_goes_on_with_silence(
    door: Door, phone: Phone
) -> None:
    session = door.call(phone)
    door.port.microphone.extend([LOUD] * 3)
    await door.step(3)
    door.port.fault = "USB Audio is unplugged"
    await door.step(20)
    assert door.events == [CardLost("USB Audio is unplugged")]
    assert door.media.card == "lost"
    packets = [phone.receive() for _ in range(22)]
    assert packets[-1].payload == encode_pcma(bytes(320))
    assert packets[-1].timestamp - packets[0].timestamp == 21 * 160
    assert session.statistics() is not None


async def test_a_card_that_comes_back_is_used_again(door: Door, phone: Phone) -> None:
    door.call(phone)
    await door.step(2)
    door.port.fault = "gone"
    await door.step(40)
    door.port.fault = ""
    await door.step(200)
    assert door.events == [CardLost("gone"), CardBack()]
    assert door.media.card == "running"
    assert door.port.opened == 2


async def test_a_card_that_stays_away_is_tried_ever_more_rarely(door: Door, phone: Phone) -> None:
    door.call(phone)
    await door.step(2)
    door.port.fault = "gone"
    await door.step(50 * 30)
    # 0.5, 1, 2, 4, 4, ... seconds apart.
    assert 7 <= door.port.refused <= 10


async def test_a_card_that_opens_and_gives_no_sound_is_told_once_and_tried_ever_more_rarely(
    door: Door, phone: Phone
) -> None:
    door.call(phone)
    await door.step()
    door.port.dumb = True
    began = door.clock.now
    sent = [phone.receive().timestamp]
    phone.rtp.settimeout(0.0)
    while door.clock.now < began + 20:
        await door.step()
        with contextlib.suppress(BlockingIOError):
            while True:
                sent.append(phone.receive().timestamp)
    # A second each, and 0.5, 1, 2, 4, 4, ... seconds between.
    assert 4 <= door.port.opened - 1 <= 6
    assert door.events == [CardLost("no sound for 1000 ms")]
    assert door.media.card == "lost"
    assert (sent[-1] - sent[0]) / 8000 == pytest.approx(door.clock.now - began, abs=0.05)
    door.port.dumb = False
    await door.step(300)
    assert door.events[1:] == [CardBack()]
    assert door.media.card == "running"


async def test_a_card_missing_at_the_start_is_reported(door: Door, phone: Phone) -> None:
    door.port.fault = "no card named Door; there are: default"
    door.call(phone)
    await door.step(5)
    assert door.events == [CardLost("no card named Door; there are: default")]
    assert phone.receive().payload == encode_pcma(bytes(320))


async def test_without_a_card_and_a_call_nothing_polls(door: Door) -> None:
    door.port.fault = "gone"
    door.media.play(BEEP)
    await door.until_idle()
    refused = door.port.refused
    await asyncio.sleep(0)
    assert refused <= 2
    assert not door.media.running


async def test_a_card_that_returns_with_another_rate_is_followed(door: Door, phone: Phone) -> None:
    session = door.call(phone)
    await door.step(2)
    door.port.fault = "gone"
    await door.step(2)
    door.port.change_rate(48000)
    door.port.fault = ""
    await door.step(50)
    for _ in range(10):
        phone.send(session, encode_pcma(array("h", ([8000] * 4 + [-8000] * 4) * 20).tobytes()))
        await door.step()
    assert len(door.port.written[-1]) == 1920
    assert heard(door)[-1] > 2000


async def test_a_missing_converter_counts_as_a_missing_card(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doorstation.errors import DoorstationError
    from doorstation.media import resample

    def missing() -> None:
        raise DoorstationError("Install the package libspeexdsp1")

    monkeypatch.setattr(resample, "require", missing)
    door = Door(rate=48000)
    door.call(phone)
    await door.step(2)
    assert door.events == [CardLost("Install the package libspeexdsp1")]
    door.close()


async def test_an_overrun_moves_the_timestamps_on(door: Door, phone: Phone) -> None:
    door.call(phone)
    await door.step(2)
    door.clock.now += 0.2
    door.port.overruns += 1
    await door.step()
    stamps = [phone.receive().timestamp for _ in range(3)]
    assert stamps[1] - stamps[0] == 160
    assert stamps[2] - stamps[1] == 11 * 160


async def test_what_the_card_did_in_a_call_is_told_with_it(door: Door, phone: Phone) -> None:
    door.port.overruns = 5
    door.port.underruns = 7
    first = door.call(phone)
    await door.step(20)
    door.port.overruns += 2
    door.port.underruns += 1
    await door.step(20)
    door.port.fault = "unplugged"
    await door.step(100)
    statistics = first.statistics()
    assert statistics is not None
    assert (statistics.overruns, statistics.underruns) == (2, 1)
    assert statistics.card_lost_seconds == pytest.approx(2.0, abs=0.2)
    assert statistics.sent >= 135, "the call lives"


async def test_xruns_are_told_also_when_the_card_is_closed(door: Door) -> None:
    assert door.media.xruns == (0, 0)
    door.media.play(BEEP)
    await door.step(2)
    door.port.overruns, door.port.underruns = 2, 3
    await door.until_idle()
    assert door.media.card == "closed"
    assert door.media.xruns == (2, 3)


async def test_late_wake_ups_catch_up_without_drift(door: Door, phone: Phone) -> None:
    session = door.call(phone)
    await door.step(2)
    door.port.fault = "gone"
    await door.step(5)
    before, sent = door.clock.now, sent_by(session)
    door.clock.now += 0.1  # the process was held up for five periods
    await door.step(6)
    assert sent_by(session) - sent == round((door.clock.now - before) / 0.02) == 11


async def test_a_stall_beyond_catching_up_is_skipped(door: Door, phone: Phone) -> None:
    session = door.call(phone)
    await door.step(2)
    door.port.fault = "gone"
    await door.step(5)
    sent = sent_by(session)
    stamps = [phone.receive().timestamp for _ in range(sent)]
    door.clock.now += 3.0
    await door.step(6)
    assert sent_by(session) - sent <= 8
    stamps += [phone.receive().timestamp for _ in range(6)]
    assert stamps[-1] - stamps[sent - 1] == pytest.approx(3.1 * 8000, abs=161)


# Taps.


async def test_levels_are_reported_while_somebody_looks(door: Door, phone: Phone) -> None:
    levels: list[tuple[float, float]] = []
    door.call(phone)
    door.port.microphone.extend([LOUD] * 100)
    await door.step(10)
    assert levels == []
    door.media.watch_levels(lambda microphone, speaker: levels.append((microphone, speaker)), 10)
    await door.step(50)
    door.media.watch_levels(None)
    await door.step(10)
    assert len(levels) == 10
    assert levels[-1] == pytest.approx((-12.2, -100.0), abs=0.1)


async def test_both_directions_can_be_listened_to(door: Door, phone: Phone) -> None:
    frames: list[tuple[bytes, bytes, int]] = []
    door.media.listen(lambda *frame: frames.append(frame))
    door.call(phone)
    door.port.microphone.extend([LOUD] * 10)
    await door.step(14)
    assert frames == [(LOUD * 5, bytes(1600), 8000)] * 2
    door.media.listen(None)
    await door.step(10)
    assert len(frames) == 2


# Echo.


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
async def test_the_canceller_gets_the_microphone_and_what_was_written_just_before(
    phone: Phone, rate: int
) -> None:
    canceller = Canceller()
    door = Door(rate, canceller)
    loud = array("h", [8000] * (rate // 50)).tobytes()
    door.port.microphone.extend([loud] * 4)
    door.media.play(tones.Tone((tones.Segment(1.0, (1000,)),)))
    door.call(phone)
    await door.step(12)
    assert canceller.leads == [0.02]
    microphone = [one for one, _ in canceller.given]
    reference = b"".join(other for _, other in canceller.given[1:])
    assert {len(one) for one in microphone} == {640}
    assert audioop.rms(microphone[2], 2) > 7000
    assert audioop.rms(microphone[6], 2) < 10
    assert canceller.given[0][1] == bytes(640)
    if rate == 16000:
        assert reference == b"".join(list(door.port.written)[: len(canceller.given) - 1])
    else:
        played = b"".join(list(door.port.written)[: len(canceller.given) - 1])
        there = resample.Resampler(rate, 16000).process(played)
        assert reference == there
    assert phone.receive().payload_type == 8
    door.close()


async def test_how_far_the_echo_is_down_is_told_with_the_call(phone: Phone) -> None:
    door = Door(16000, Canceller())
    session = door.call(phone)
    await door.step(12)
    statistics = session.statistics()
    assert statistics is not None
    assert statistics.echo_db == 38.0
    door.close()


async def test_a_microphone_of_which_nothing_is_left_to_send_is_no_dead_one(phone: Phone) -> None:
    class Silent(Canceller):
        def process(self, microphone: bytes, reference: bytes) -> bytes:
            return bytes(len(microphone))

    door = Door(16000, Silent())
    session = door.call(phone)
    door.port.microphone.extend([array("h", [300, -300] * 160).tobytes()] * 40)
    await door.step(30)
    assert not any(phone.receive().payload.strip(b"\xd5") for _ in range(20))
    statistics = session.statistics()
    assert statistics is not None
    assert statistics.microphone_dbfs > -50
    door.close()


class Recorded:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self.packets: list[Packet] = []

    def tick(self, tick: Tick) -> None:
        self.ticks.append(tick)

    def packet(self, packet: Packet) -> None:
        self.packets.append(packet)


async def test_tracks_and_datagrams_of_a_call_can_be_recorded_from_any_moment(
    door: Door, phone: Phone
) -> None:
    session = door.call(phone)
    await door.step(2)
    sink = Recorded()
    door.media.record(sink)
    door.port.microphone.extend([LOUD] * 3)
    phone.send(session)
    phone.rtcp.sendto(
        rtcp.format_rtcp([rtcp.ReceiverReport(0xFA)]), (phone.host, session.rtcp_port)
    )
    await door.step(12)
    door.media.record(None)
    recorded = len(sink.ticks), len(sink.packets)
    await door.step(2)
    assert (len(sink.ticks), len(sink.packets)) == recorded
    assert any(audioop.rms(tick.microphone, 2) > 7000 for tick in sink.ticks)
    assert any(audioop.rms(tick.sent, 2) > 7000 for tick in sink.ticks)
    assert any(audioop.rms(tick.received, 2) > 7000 for tick in sink.ticks)
    assert [tick.reference for tick in sink.ticks[:5]] == list(door.port.written)[2:7]
    own = (session.address, session.rtp_port)
    assert next(one for one in sink.packets if one.source == phone.address).destination == own
    sent = [one for one in sink.packets if one.destination == phone.address]
    assert {one.source for one in sent} == {own}
    assert len(sent) == pytest.approx(12, abs=1)
    reports = [one for one in sink.packets if one.source == phone.rtcp_address]
    assert [one.destination[1] for one in reports] == [session.rtcp_port]


async def test_a_recording_may_end_at_any_point_of_a_period(
    door: Door, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    door.call(phone)
    await door.step()
    sink = Recorded()
    door.media.record(sink)
    await door.step()

    def ended(_: Leg) -> bool:
        door.media.record(None)
        return False

    monkeypatch.setattr(Leg, "microphone_muted", property(ended))
    before = len(sink.ticks)
    await door.step(3)
    assert len(sink.ticks) == before + 1
    assert not [event for event in door.events if isinstance(event, MediaFailed)]


async def test_a_recording_asked_for_before_the_call_opens_no_card(
    door: Door, phone: Phone
) -> None:
    sink = Recorded()
    door.media.record(sink)
    assert not door.media.running
    door.call(phone)
    await door.step(3)
    assert sink.ticks
    assert sink.packets


async def test_a_voice_and_a_tone_together_never_clip_without_a_sound_path_too(
    door: Door, phone: Phone
) -> None:
    session = door.call(phone)
    full = encode_pcma(array("h", [30000, -30000] * 80).tobytes())
    door.media.play(tones.Tone((tones.Segment(1.0, (1000,)),), level=-3.0))
    for _ in range(12):
        phone.send(session, full)
        await door.step()
    assert max(audioop.max(one, 2) for one in door.port.written) <= CEILING
    assert heard(door)[-1] > 10000


async def test_without_a_sound_path_a_loud_far_end_alone_is_played_as_it_was_sent(
    door: Door, phone: Phone
) -> None:
    session = door.call(phone)
    full = encode_pcma(array("h", [32000, -32000] * 80).tobytes())
    for _ in range(12):
        phone.send(session, full)
        await door.step()
    assert decode_pcma(full) in door.port.written


async def test_what_the_card_leaves_out_is_no_reference(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    canceller = Canceller()
    door = Door(16000, canceller)
    monkeypatch.setattr(door.port, "write", lambda _: b"")
    door.call(phone)
    await door.step(5)
    assert {reference for _, reference in canceller.given[1:]} == {b""}
    door.close()


async def test_a_canceller_that_cannot_be_had_leaves_the_call_as_it_is(
    phone: Phone,
) -> None:
    def missing() -> SoundPath:
        raise DoorstationError("libspeexdsp is missing")

    door = Door(8000)
    door.media._worker._make_path = missing
    door.port.microphone.append(LOUD)
    door.call(phone)
    await door.step()
    assert phone.receive().payload == encode_pcma(LOUD)
    assert SoundFault("echo is not cancelled: libspeexdsp is missing") in door.events
    door.close()


@pytest.mark.parametrize("lingering", [True, False])
async def test_another_path_counts_from_the_next_call_on(phone: Phone, lingering: bool) -> None:
    old, new = Canceller(), Canceller()
    door = Door(16000, old)
    first = door.call(phone)
    await door.step(3)
    first.stop()
    await door.step()
    if not lingering:
        await door.until_idle()
    given = len(old.given)
    door.media.use_path(lambda: SoundPath(PLAIN, new))
    assert door.media.running == lingering, "no card is opened for it"
    phone.rtp.settimeout(0)
    door.call(phone)
    await door.step(3)
    assert len(old.given) <= given + 1
    assert len(new.given) >= 2
    assert old.closed
    assert door.opened == (1 if lingering else 2), "the card's own volumes are set at its opening"
    door.close()


async def test_a_card_that_comes_back_in_a_call_has_its_delay_measured_again(phone: Phone) -> None:
    canceller = Canceller()
    door = Door(16000, canceller)
    door.call(phone)
    await door.step(2)
    door.port.fault = "gone"
    await door.step(40)
    assert len(canceller.leads) == 1
    door.port.fault = ""
    await door.step(200)
    assert door.media.card == "running"
    assert len(canceller.leads) == 2
    door.close()


async def test_without_a_card_an_echo_path_has_silence_too(phone: Phone) -> None:
    canceller = Canceller()
    door = Door(48000, canceller)
    door.port.fault = "unplugged"
    door.call(phone)
    await door.step(3)
    assert phone.receive().payload == encode_pcma(bytes(320))
    assert {len(one) for one, _ in canceller.given} == {640}
    door.close()


async def test_a_reference_that_is_late_is_told_as_a_fault(phone: Phone) -> None:
    canceller = Canceller()
    canceller.occurred += [echo.ReferenceLate(0.004), echo.DriftFound(80.0)]
    door = Door(16000, canceller)
    door.call(phone)
    await door.step(10)
    assert door.events == [
        SoundFault("echo cannot be cancelled: the echo comes 4 ms before what makes it")
    ]
    door.close()


# Ends and faults.


async def test_close_ends_sessions_and_joins_the_thread(phone: Phone) -> None:
    door = Door()
    door.call(phone)
    await door.step(2)
    door.port.release()
    door.media.close()
    door.media.close()
    assert not door.media.running
    assert door.media.card == "closed"
    packets = rtcp.parse_rtcp(phone.rtcp.recv(2048))
    assert isinstance(packets[-1], rtcp.Bye)
    door.media.play(BEEP)
    assert not door.media.running


async def test_a_thread_that_hangs_is_known_by_its_silence(door: Door, phone: Phone) -> None:
    assert door.media.silent == 0
    door.clock.now += 3600
    session = door.call(phone)
    assert door.media.silent == 0
    await door.step()
    assert door.media.silent == 0
    door.clock.now += 30  # and no period is read
    assert door.media.silent == 30
    await door.step()
    assert door.media.silent == 0
    session.stop()
    await door.until_idle()
    door.clock.now += 30
    assert door.media.silent == 0


async def test_a_fault_of_ours_in_the_thread_reaches_the_loop(
    door: Door, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("ours")

    door.call(phone)
    await door.step()
    monkeypatch.setattr(CallAudio, "microphone", broken)
    door.port.release()
    await until(lambda: bool(door.events))
    (failed,) = door.events
    assert isinstance(failed, MediaFailed)
    assert isinstance(failed.error, ZeroDivisionError)
    assert door.media.card == "closed"
    assert not door.media.running
