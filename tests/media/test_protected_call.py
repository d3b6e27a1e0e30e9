"""A call whose sound is encrypted, and who would like to be heard in it without the keys."""

import pytest
from doorstation.ids import SeededIds
from doorstation.media import dtls, rtcp
from doorstation.media.digits import Digit
from doorstation.media.engine import CallAudio
from doorstation.media.g711 import encode_pcma
from doorstation.media.session import (
    CallStatistics,
    Datagram,
    KeysAgreed,
    KeysRefused,
)
from doorstation.media.srtp import DtlsPeer, Keys, Srtp

from tests.support.agreed import Address, agreed
from tests.support.rtp import RtpPacket, format_rtp, parse_rtp

DOOR = ("192.0.2.10", 16384)
PHONE = ("192.0.2.1", 4000)
PHONE_RTCP = ("192.0.2.1", 4001)
ELSEWHERE = ("203.0.113.66", 9)
SUITE = "AES_CM_128_HMAC_SHA1_80"
OURS, THEIRS, OTHER = bytes([1]) * 30, bytes([2]) * 30, bytes([3]) * 30
KEYS = Keys(SUITE, OURS, THEIRS)
SILENT = bytes(320)
SOUND = encode_pcma(bytes(range(64)) * 5)
DIGIT_FIVE = "05 8a 03 20"
NAME, TEXT = dtls.fingerprint().split()
SAME = ((NAME, bytes.fromhex(TEXT.replace(":", ""))),)


class Call:
    """One side's audio, tick by tick."""

    def __init__(
        self,
        protection: Keys | DtlsPeer | None = KEYS,
        remote: Address = PHONE,
        seed: int = 1,
        **more: object,
    ) -> None:
        self.now = 1000.0
        self.more = more
        self.remote = remote
        self.audio = CallAudio(SeededIds(seed), self.now, cname="door")
        self.configure(protection)
        self.sent: list[Datagram] = []

    def configure(self, protection: Keys | DtlsPeer | None, **more: object) -> None:
        session = agreed(self.remote, protection=protection, **{**self.more, **more})
        self.audio.configure(session, self.now)

    def tick(self, *datagrams: tuple[bytes, Address]) -> list[Datagram]:
        self.now += 0.02
        _, out = self.audio.tick(SILENT, datagrams, self.now)
        self.sent += out
        return out

    @property
    def statistics(self) -> CallStatistics:
        return self.audio.statistics(self.now)

    def occurred(self) -> list[object]:
        found: list[object] = list(self.audio.occurred)
        self.audio.occurred.clear()
        return found


class Phone:
    """The far end's packets, plain; `srtp` seals them."""

    def __init__(self, keys: Keys = Keys(SUITE, THEIRS, OURS)) -> None:  # noqa: B008 - never changed
        self.srtp = Srtp(keys)
        self.sequence = 100

    def sound(self) -> bytes:
        return self._next(8, SOUND)

    def digit(self) -> list[bytes]:
        """A whole key: begin, and its end three times."""
        payloads = ["05 0a 00 a0", *[DIGIT_FIVE] * 3]
        return [self._next(101, bytes.fromhex(payload), 7000) for payload in payloads]

    def _next(self, payload_type: int, payload: bytes, timestamp: int | None = None) -> bytes:
        self.sequence += 1
        stamp = self.sequence * 160 if timestamp is None else timestamp
        return format_rtp(RtpPacket(payload_type, self.sequence, stamp, 0xFA, payload))


def digits(call: Call) -> list[str]:
    return [one.value for one in call.occurred() if isinstance(one, Digit)]


# --- keys that signalling told ------------------------------------------------------------------


def test_what_leaves_opens_with_our_key_and_nothing_is_plain() -> None:
    call = Call()
    phone = Phone()
    for _ in range(500):
        call.tick()
    rtp = [one.data for one in call.sent if not one.rtcp]
    reports = [one.data for one in call.sent if one.rtcp]
    assert len(rtp) == 500
    assert len(reports) >= 1
    opened = [phone.srtp.unprotect(data) for data in rtp]
    assert {parse_rtp(data).payload for data in opened if data} == {encode_pcma(SILENT)}
    assert None not in opened
    for data in reports:
        report = phone.srtp.unprotect_rtcp(data)
        assert report is not None
        assert rtcp.parse_rtcp(report)
    bye = phone.srtp.unprotect_rtcp(call.audio.bye(call.now)[0].data)
    assert bye is not None
    assert isinstance(rtcp.parse_rtcp(bye)[-1], rtcp.Bye)


def test_what_the_far_end_says_is_heard_and_its_digits_count() -> None:
    call, phone = Call(), Phone()
    for _ in range(20):
        call.tick((phone.srtp.protect(phone.sound()), PHONE))
    for packet in phone.digit():
        call.tick((phone.srtp.protect(packet), PHONE))
    assert digits(call) == ["5"]
    statistics = call.statistics
    assert (statistics.received, statistics.unauthentic) == (24, 0)
    assert statistics.encryption == SUITE


def test_the_first_sequence_number_leaves_room_before_it_wraps() -> None:
    """RFC 3711 §3.3.1: else packets lost at a wrap leave the far end deaf for good."""
    for seed in range(50):
        call = Call(seed=seed)
        call.tick()
        assert int.from_bytes(call.sent[0].data[2:4], "big") < 1 << 15


@pytest.mark.parametrize("source", [PHONE, ELSEWHERE])
@pytest.mark.parametrize("already", [False, True], ids=["silent", "talking"])
def test_a_forged_digit_opens_no_door(source: Address, already: bool) -> None:
    """Plain, from the phone's address, in its sequence, with its SSRC: it counts for nothing."""
    call, phone = Call(), Phone()
    if already:
        for _ in range(5):
            call.tick((phone.srtp.protect(phone.sound()), PHONE))
        call.occurred()
    before = call.statistics
    for packet in phone.digit():
        call.tick((packet, source))
    assert call.occurred() == []
    after = call.statistics
    assert after.unauthentic == before.unauthentic + 4
    assert (after.received, after.remote) == (before.received, before.remote)


def test_a_digit_sealed_with_another_key_opens_no_door() -> None:
    call, forger = Call(), Phone(Keys(SUITE, OTHER, OTHER))
    for packet in forger.digit():
        call.tick((forger.srtp.protect(packet), PHONE))
    assert call.occurred() == []


def test_a_recorded_digit_is_no_second_one() -> None:
    call, phone = Call(), Phone()
    recorded = [phone.srtp.protect(packet) for packet in phone.digit()]
    for packet in recorded:
        call.tick((packet, PHONE))
    assert digits(call) == ["5"]
    for _ in range(5):
        call.tick((phone.srtp.protect(phone.sound()), PHONE))
    unauthentic = call.statistics.unauthentic
    for source in (PHONE, ELSEWHERE):
        for packet in recorded:
            call.tick((packet, source))
    assert digits(call) == []
    assert call.statistics.unauthentic == unauthentic + 8


def test_our_own_packets_sent_back_are_not_the_far_ends() -> None:
    call = Call()
    for _ in range(5):
        for one in call.tick():
            call.tick((one.data, PHONE))
    assert call.statistics.received == 0
    assert call.statistics.unauthentic > 0


def test_plain_reports_are_dropped_and_sealed_ones_heard() -> None:
    call, phone = Call(), Phone()
    call.tick((phone.srtp.protect(phone.sound()), PHONE))
    ssrc = parse_rtp(phone_opened(phone, call.sent[0].data)).ssrc
    block = rtcp.ReportBlock(ssrc, 0, 77, 0, 0, 0, 0)
    report = rtcp.format_rtcp([rtcp.ReceiverReport(0xFA, (block,))])
    call.audio.rtcp_datagram(report, PHONE_RTCP, call.now)
    assert call.statistics.remote_lost is None
    assert call.statistics.unauthentic == 1
    call.audio.rtcp_datagram(phone.srtp.protect_rtcp(report), PHONE_RTCP, call.now)
    assert call.statistics.remote_lost == 77


def phone_opened(phone: Phone, data: bytes) -> bytes:
    opened = phone.srtp.unprotect(data)
    assert opened is not None
    return opened


def test_reports_on_the_sounds_port_are_opened_as_reports() -> None:
    call, phone = Call(rtcp_mux=True, remote_rtcp=PHONE), Phone()
    call.tick((phone.srtp.protect(phone.sound()), PHONE))
    ssrc = parse_rtp(phone_opened(phone, call.sent[0].data)).ssrc
    block = rtcp.ReportBlock(ssrc, 0, 5, 0, 0, 0, 0)
    report = rtcp.format_rtcp([rtcp.ReceiverReport(0xFA, (block,))])
    call.tick((phone.srtp.protect_rtcp(report), PHONE))
    assert call.statistics.remote_lost == 5
    assert call.statistics.unauthentic == 0


def test_digits_that_open_count_wherever_the_far_end_has_moved() -> None:
    """Behind a router that gives it another address: the keys say who it is."""
    call, phone = Call(), Phone()
    for _ in range(3):
        call.tick((phone.srtp.protect(phone.sound()), ELSEWHERE))
    for packet in phone.digit():
        call.tick((phone.srtp.protect(packet), ELSEWHERE))
    assert digits(call) == ["5"]


def test_a_hold_and_resume_goes_on_counting() -> None:
    call, phone = Call(), Phone()
    sealed = [phone.srtp.protect(phone.sound()) for _ in range(6)]
    call.tick((sealed[0], PHONE))
    call.configure(KEYS, direction="inactive")
    call.tick((sealed[1], PHONE))
    call.configure(KEYS)
    call.tick((sealed[2], PHONE))
    assert call.statistics.received == 3
    call.tick((sealed[0], PHONE))
    assert call.statistics.unauthentic == 1, "a resume makes no room for what was recorded"
    rtp = [one.data for one in call.sent if not one.rtcp]
    assert None not in [phone.srtp.unprotect(data) for data in rtp]


def test_a_new_key_takes_over_without_a_gap() -> None:
    call, phone = Call(), Phone()
    call.tick((phone.srtp.protect(phone.sound()), PHONE))
    under_way = phone.srtp.protect(phone.sound())
    call.configure(Keys(SUITE, OURS, OTHER))
    call.tick((under_way, PHONE))
    phone.srtp = phone.srtp.rekeyed(Keys(SUITE, OTHER, OURS))
    late = Srtp(Keys(SUITE, THEIRS, OURS)).protect(phone.sound())
    call.tick((phone.srtp.protect(phone.sound()), PHONE))
    assert (call.statistics.received, call.statistics.unauthentic) == (3, 0)
    call.tick((late, PHONE))
    assert call.statistics.unauthentic == 1


def test_a_call_may_become_encrypted_and_plain_again() -> None:
    call, phone = Call(None), Phone()
    call.tick((phone.sound(), PHONE))
    call.configure(KEYS)
    call.tick((phone.srtp.protect(phone.sound()), PHONE), (phone.sound(), PHONE))
    assert (call.statistics.received, call.statistics.unauthentic) == (2, 1)
    call.configure(None)
    call.tick((phone.sound(), PHONE))
    assert call.statistics.received == 3
    assert call.statistics.encryption == ""


def test_after_a_plain_time_the_same_keys_go_on_and_open_nothing_twice() -> None:
    call, phone = Call(), Phone()
    recorded = [phone.srtp.protect(packet) for packet in phone.digit()]
    for packet in recorded:
        call.tick((packet, PHONE))
    call.configure(None)
    call.tick((phone.sound(), PHONE))
    call.configure(KEYS)
    call.tick((phone.srtp.protect(phone.sound()), PHONE))
    assert (call.statistics.received, call.statistics.unauthentic) == (6, 0)
    for packet in recorded:
        call.tick((packet, PHONE))
    assert call.statistics.unauthentic == 4
    assert digits(call) == ["5"]


# --- keys that the two ends agree on ------------------------------------------------------------


def ends(*, mux: bool = True, expected: tuple[tuple[str, bytes], ...] = SAME) -> tuple[Call, Call]:
    """Two doors, of which the first waits for the other to begin; `expected` by the first."""
    more: dict[str, object] = {"rtcp_mux": mux}
    first = Call(DtlsPeer(expected, active=False), PHONE, seed=1, **more)
    second = Call(DtlsPeer(SAME, active=True), DOOR, seed=2, **more)
    return first, second


def run(first: Call, second: Call, ticks: int) -> None:
    """Let packets pass; what is sent by the one is with the other in its next tick."""
    to_first: list[Datagram] = []
    for _ in range(ticks):
        to_second = deliver(first, to_first, PHONE)
        to_first = deliver(second, to_second, DOOR)


def deliver(call: Call, datagrams: list[Datagram], source: Address) -> list[Datagram]:
    for one in datagrams:
        if one.rtcp:
            call.audio.rtcp_datagram(one.data, (source[0], source[1] + 1), call.now)
    return call.tick(*((one.data, source) for one in datagrams if not one.rtcp))


@pytest.mark.parametrize("mux", [True, False])
def test_two_ends_shake_hands_and_hear_each_other(mux: bool) -> None:
    first, second = ends(mux=mux)
    run(first, second, 700)
    for call in (first, second):
        assert call.occurred()[0] == KeysAgreed("AEAD_AES_256_GCM")
        statistics = call.statistics
        assert statistics.encryption == "AEAD_AES_256_GCM"
        assert statistics.received > 650
        assert statistics.unauthentic == 0
        assert statistics.remote_lost == 0, "reports pass too"


def test_nothing_plain_leaves_before_there_are_keys() -> None:
    first, second = ends()
    for _ in range(400):
        sent = first.tick() + second.tick()
        assert all(dtls.is_dtls(one.data) for one in sent)
    assert first.statistics.sent == 0


def test_a_digit_before_there_are_keys_is_nobodys() -> None:
    first, _ = ends()
    for packet in Phone().digit():
        first.tick((packet, PHONE))
    assert first.occurred() == []
    assert first.statistics.unauthentic == 4


def test_another_certificate_than_the_signalled_one_ends_the_sound() -> None:
    first, second = ends(expected=(("sha-256", bytes(32)),))
    run(first, second, 100)
    refused = [one for one in first.occurred() if isinstance(one, KeysRefused)]
    assert refused == [
        KeysRefused("the certificate is not the one whose fingerprint was signalled")
    ]
    assert first.statistics.received == first.statistics.sent == 0


def test_a_handshake_from_where_nobody_is_expected_is_not_answered() -> None:
    first, second = ends()
    begin = [one.data for one in second.tick()]
    assert begin
    assert first.tick(*((data, ELSEWHERE) for data in begin)) == []
    assert first.tick() == []
    assert first.statistics.unauthentic == len(begin)
    run(first, second, 5)


def test_a_re_invite_leaves_the_keys_as_they_are_unless_the_certificate_is_another() -> None:
    first, second = ends()
    run(first, second, 20)
    received = first.statistics.received
    assert received > 0
    first.configure(DtlsPeer(SAME, active=True), direction="sendonly")
    first.configure(DtlsPeer(SAME, active=False))
    run(first, second, 20)
    assert first.statistics.received > received + 15
    first.configure(DtlsPeer((("sha-256", bytes(32)),), active=False))
    assert first.statistics.encryption == ""
    assert all(dtls.is_dtls(one.data) for _ in range(50) for one in first.tick())
