"""What a recording is made of: four tracks in step, a packet trace, one tar."""

import io
import struct
import tarfile
import wave
from array import array

import pytest
from doorstation.media.recording import (
    Packet,
    Tick,
    Tracks,
    archive,
    pcap_header,
    pcap_record,
    wav_header,
)


def level(value: int, rate: int) -> bytes:
    return array("h", [value] * (rate // 50)).tobytes()


def tick(card_rate: int = 16000, rate: int = 16000) -> Tick:
    return Tick(
        card_rate,
        rate,
        level(1000, card_rate),
        level(2000, card_rate),
        level(3000, rate),
        level(4000, rate),
    )


def test_tracks_are_the_channels_in_their_order() -> None:
    frames = array("h", Tracks().frames([tick(), tick()]))
    assert len(frames) == 4 * 640
    assert list(frames[:8]) == [1000, 2000, 3000, 4000] * 2


@pytest.mark.parametrize(("card_rate", "rate"), [(48000, 16000), (44100, 16000), (8000, 8000)])
def test_tracks_of_other_rates_are_converted_and_stay_in_step(card_rate: int, rate: int) -> None:
    tracks = Tracks()
    frames = array("h")
    for _ in range(10):
        frames.frombytes(tracks.frames([tick(card_rate, rate)] * 5))
    assert len(frames) // 4 == pytest.approx(50 * 320, abs=4)
    for channel, value in enumerate((1000, 2000, 3000, 4000)):
        assert frames[4 * 8000 + channel] == pytest.approx(value, abs=30)
    tracks.close()


def test_a_card_that_plays_nothing_is_a_silent_reference() -> None:
    silent = Tick(16000, 16000, level(1000, 16000), b"", level(3000, 16000), level(4000, 16000))
    frames = array("h", Tracks().frames([silent]))
    assert list(frames[:4]) == [1000, 0, 3000, 4000]


def test_the_file_holds_a_wav_and_a_trace() -> None:
    sound = Tracks().frames([tick()] * 50)
    pieces = list(archive([("sound.wav", wav_header(len(sound)), sound)], 1.5e9))
    assert any(piece is sound for piece in pieces), "two minutes of it are 15 MB"
    data = b"".join(pieces)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        entry = tar.getmember("sound.wav")
        assert (entry.mode, entry.mtime) == (0o600, 1500000000)
        content = tar.extractfile(entry)
        assert content is not None
        with wave.open(content) as wav:
            assert (wav.getnchannels(), wav.getframerate(), wav.getnframes()) == (4, 16000, 16000)


def test_a_datagram_is_a_packet_with_its_addresses() -> None:
    packet = Packet(12.25, ("192.0.2.1", 4000), ("192.0.2.9", 16384), b"payload")
    record = pcap_record(packet, 1e9)
    seconds, micros, kept, length = struct.unpack_from("<IIII", record)
    assert (seconds, micros, kept, length) == (1000000012, 250000, 35, 35)
    ip = record[16:]
    assert ip[0] == 0x45
    assert ip[12:20] == bytes((192, 0, 2, 1, 192, 0, 2, 9))
    assert struct.unpack_from("!HHHH", ip, 20) == (4000, 16384, 15, 0)
    assert ip[28:] == b"payload"
    assert struct.unpack_from("<IHHiIII", pcap_header())[6] == 101


@pytest.mark.parametrize(
    ("source", "to", "version"),
    [
        (("::", 1), ("192.0.2.9", 2), 4),
        (("0.0.0.0", 1), ("2001:db8::1", 2), 6),
        (("fe80::1%eth0", 1), ("2001:db8::1", 2), 6),
    ],
)
def test_the_far_ends_family_is_the_packets(
    source: tuple[str, int], to: tuple[str, int], version: int
) -> None:
    record = pcap_record(Packet(0.0, source, to, b""), 0.0)
    assert record[16] >> 4 == version
    record = pcap_record(Packet(0.0, to, source, b""), 0.0)
    assert record[16] >> 4 == version
