"""Opus: what others encode is decoded, losses are repaired, nonsense is refused."""

import ctypes
import random
from array import array
from pathlib import Path

import pytest
from doorboard.profile import load_profile, profile_names
from doorstation.errors import DoorstationError, MalformedPacket
from doorstation.media import codecs, opus
from doorstation.media.opus import FMTP, Opus
from doorstation.media.pcm import audioop
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sounds import correlation, voice

DATA = Path(__file__).parents[1] / "data" / "opus"
BOARDS = profile_names()
PERIOD = 320


def ogg_packets(path: Path) -> list[bytes]:
    """The audio packets of an Ogg file (RFC 3533, RFC 7845: the first two are headers)."""
    data = path.read_bytes()
    packets: list[bytes] = []
    at, begun = 0, b""
    while data[at : at + 4] == b"OggS":
        lacing = data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + len(lacing)
        for size in lacing:
            begun += data[at : at + size]
            at += size
            if size < 255:
                packets.append(begun)
                begun = b""
    return packets[2:]


def distortion(one: bytes, other: bytes) -> float:
    """RMS of the difference."""
    return audioop.rms(audioop.add(one, audioop.mul(other, 2, -1), 2), 2)


@pytest.mark.parametrize("name", ["speech", "music"])
def test_what_opusenc_writes_is_decoded_as_by_opusdec(name: str) -> None:
    codec = Opus()
    decoded = b"".join(codec.decode(packet) for packet in ogg_packets(DATA / f"{name}.opus"))
    reference = (DATA / f"{name}.decoded.pcm").read_bytes()
    size = 16000  # half a second
    part = reference[2000 : 2000 + size]
    place = 2 * audioop.findfit(decoded[:20000], part)[0]
    assert correlation(part, decoded[place : place + size]) > 0.995
    assert abs(audioop.rms(decoded[place : place + size], 2) / audioop.rms(part, 2) - 1) < 0.05


@pytest.mark.parametrize("milliseconds", [10, 20, 40, 60, 120])
def test_speech_comes_through_in_packets_of_any_length(milliseconds: int) -> None:
    codec = Opus()
    pcm = b"".join(voice(1.2))
    size = 32 * milliseconds
    payloads = [codec.encode(pcm[at : at + size]) for at in range(0, len(pcm), size)]
    assert [codec.samples(payload) for payload in payloads] == [size // 2] * len(payloads)
    decoded = b"".join(codec.decode(payload) for payload in payloads)
    assert len(decoded) == len(pcm)
    part = pcm[16000:24000]
    place = 2 * audioop.findfit(decoded[15000:26000], part)[0] + 15000
    # Not more: libopus takes out what lies below a voice, which turns its phase.
    assert correlation(part, decoded[place : place + len(part)]) > 0.75


@pytest.mark.parametrize("complexity", {load_profile(name).opus_complexity for name in BOARDS})
def test_a_lost_packet_is_taken_from_what_the_next_one_repeats(complexity: int) -> None:
    sender = Opus(FMTP, complexity)
    sender.expect_loss(20)
    payloads = [sender.encode(period) for period in voice(2)]
    whole, concealing, recovering = Opus(), Opus(), Opus()
    concealed = recovered = 0.0
    for n, payload in enumerate(payloads):
        true = whole.decode(payload)
        if n % 5 == 4 and n + 1 < len(payloads):
            concealed += distortion(true, concealing.conceal(PERIOD))
            recovered += distortion(true, recovering.recover(payloads[n + 1], PERIOD))
        else:
            concealing.decode(payload)
            recovering.decode(payload)
    assert recovered < concealed / 2


def test_fec_is_sent_only_to_who_asks_for_it() -> None:
    def octets(fmtp: str, loss: float) -> int:
        codec = Opus(fmtp)
        codec.expect_loss(loss)
        return sum(len(codec.encode(period)) for period in voice(1))

    # Without, and with a loss that nothing can be done about, it is the same stream.
    assert octets("", 30) == octets("useinbandfec=0", 0)
    assert octets("useinbandfec=1", 30) != octets("", 30)


def test_a_pause_is_not_sent_to_who_asks_for_that() -> None:
    chance = random.Random(1)
    hiss = [
        array("h", (chance.randint(-12, 12) for _ in range(PERIOD))).tobytes() for _ in range(150)
    ]
    silent = Opus("usedtx=1")
    sent = [silent.encode(period) for period in [*voice(1), *hiss]]
    assert all(sent[:50])
    assert sent[50:].count(b"") > 100
    codec = Opus()
    assert all(codec.encode(period) for period in [*voice(1), *hiss])


def test_the_far_end_hears_a_pause_as_noise_and_not_as_the_last_sound_held() -> None:
    codec = Opus("usedtx=1")
    for payload in map(codec.encode, voice(1)):
        codec.decode(payload)
    for payload in (codec.encode(bytes(2 * PERIOD)) for _ in range(50)):
        pause = codec.decode(payload) if payload else codec.conceal(PERIOD)
    assert audioop.rms(pause, 2) < 50


@pytest.mark.parametrize(
    ("fmtp", "bits"),
    [("maxaveragebitrate=12000", 12000), ("maxaveragebitrate=1", 6000), ("cbr=1", 32000)],
)
def test_the_far_end_limits_the_bit_rate(fmtp: str, bits: int) -> None:
    codec = Opus(fmtp)
    octets = sum(len(codec.encode(period)) for period in voice(2))
    assert octets * 8 / 2 < 1.2 * bits


def test_a_far_end_that_plays_eight_kilohertz_is_sent_no_more() -> None:
    narrow, wide = Opus("maxplaybackrate=8000"), Opus("maxplaybackrate=48000")
    for period in voice(0.5):
        # RFC 6716 §3.1: configurations 0 to 3 are narrow-band, 8 to 11 wide-band.
        assert narrow.encode(period)[0] >> 3 in range(4)
        assert wide.encode(period)[0] >> 3 in range(8, 12)


def test_parameters_that_cannot_be_read_are_left_out() -> None:
    codec = Opus("maxaveragebitrate=-1; usedtx=yes;;=;useinbandfec;maxplaybackrate=" + "9" * 400)
    assert codec.encode(bytes(2 * PERIOD))


@pytest.mark.parametrize("complexity", range(11))
def test_every_complexity_speaks(complexity: int) -> None:
    codec = Opus(complexity=complexity)
    assert all(len(codec.decode(codec.encode(p))) == 2 * PERIOD for p in voice(0.2))


@pytest.mark.parametrize(
    ("wanted", "written"), [(10, 10), (20, 20), (30, 20), (50, 40), (120, 120)]
)
def test_packets_have_a_length_that_opus_has(wanted: int, written: int) -> None:
    assert Opus().packet_ms(wanted) == written


@pytest.mark.parametrize("payload", [b"", b"\x03", b"\xff\xff", b"\x4b\xbf\x00"])
def test_a_payload_that_is_none_is_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedPacket):
        Opus().decode(payload)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("drc"), st.binary(max_size=300)), max_size=12))
def test_any_octets_are_sound_or_malformed_and_speech_goes_on(
    steps: list[tuple[str, bytes]],
) -> None:
    codec = Opus()
    for what, payload in steps:
        if what == "d":
            try:
                pcm = codec.decode(payload)
            except MalformedPacket:
                continue
            assert len(pcm) == 2 * codec.samples(payload) <= 2 * 1920
        elif what == "r":
            assert len(codec.recover(payload, PERIOD)) == 2 * PERIOD
        else:
            assert len(codec.conceal(PERIOD)) == 2 * PERIOD
    for period in voice(0.1):
        assert len(codec.decode(codec.encode(period))) == 2 * PERIOD


@pytest.mark.parametrize("count", [1, 40, 160, 441, 1920, 5000])
def test_a_gap_of_any_length_is_filled(count: int) -> None:
    codec = Opus(FMTP)
    payloads = [codec.encode(period) for period in voice(0.2)]
    for payload in payloads[:-1]:
        codec.decode(payload)
    assert len(codec.conceal(count)) == 2 * count
    assert len(codec.recover(payloads[-1], count)) == 2 * count


def test_without_libopus_the_fault_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", not_there)
    opus._library.cache_clear()
    with pytest.raises(DoorstationError, match="libopus0"):
        Opus()
    assert "libopus0" in codecs.missing("opus", 48000)
    monkeypatch.undo()
    assert codecs.missing("opus", 48000) == ""
