"""WAV announcements, in the forms that editors write."""

from array import array
from collections.abc import Callable

import pytest
from doorstation.media.pcm import audioop
from doorstation.media.wav import Wav, WavError, parse_wav
from hypothesis import given
from hypothesis import strategies as st

from tests.support.wav import wav_bytes

MONO = array("h", [0, 1000, -1000, 32767]).tobytes()


def test_mono_sixteen_bits_come_out_as_they_are() -> None:
    assert parse_wav(wav_bytes(MONO, 8000)) == Wav(8000, MONO)


def test_stereo_becomes_the_mean_of_both() -> None:
    stereo = array("h", [1000, 3000, -200, 200]).tobytes()
    assert parse_wav(wav_bytes(stereo, 44100, channels=2)) == Wav(
        44100, array("h", [2000, 0]).tobytes()
    )


def test_eight_bits_are_unsigned() -> None:
    sound = parse_wav(wav_bytes(bytes([128, 255, 0]), 16000, bits=8))
    assert sound == Wav(16000, array("h", [0, 127 * 256, -32768]).tobytes())


@pytest.mark.parametrize(("code", "encode"), [(6, audioop.lin2alaw), (7, audioop.lin2ulaw)])
def test_both_laws_of_g711_are_read(code: int, encode: Callable[[bytes, int], bytes]) -> None:
    data = wav_bytes(encode(MONO, 2), 16000, bits=8, code=code)
    heard = array("h", parse_wav(data).pcm)
    for sample, original in zip(heard, array("h", MONO), strict=True):
        assert abs(sample - original) <= max(8, abs(original) / 16)


def test_the_extensible_format_is_read() -> None:
    assert parse_wav(wav_bytes(MONO, 48000, extensible=True)) == Wav(48000, MONO)


def test_a_stream_of_unknown_length_goes_to_the_end_of_the_file() -> None:
    data = wav_bytes(MONO, 8000)
    for size in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x10\x27\0\0"):
        assert parse_wav(data[: -len(MONO) - 4] + size + MONO).pcm == MONO


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"ID3\4", "not a WAV file"),
        (wav_bytes(MONO, 8000)[:36], "without sound data"),
        (wav_bytes(b"", 8000), "without sound data"),
        (wav_bytes(MONO, 8000, channels=6), "6 channels: 1 or 2"),
        (wav_bytes(MONO, 8000, bits=24), "24 bits a sample: 8 or 16"),
        (wav_bytes(MONO, 96000), "96000 Hz: 8000 to 48000"),
        (wav_bytes(MONO, 8000).replace(b"\x01\0\x01\0", b"\x55\0\x01\0", 1), "encoding 85"),
        (wav_bytes(MONO, 8000, code=6), "16 bits a sample: 8 or 16 are played, of G.711 8"),
        (wav_bytes(bytes(2 * 8000 * 61), 8000), "61 s: 60 are played"),
    ],
)
def test_what_cannot_be_played_says_what_could(data: bytes, fault: str) -> None:
    with pytest.raises(WavError, match=fault):
        parse_wav(data)


@given(st.binary(max_size=120))
def test_any_bytes_give_sound_or_our_own_error(tail: bytes) -> None:
    for data in (tail, b"RIFF\0\0\0\0WAVE" + tail, b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + tail):
        try:
            sound = parse_wav(data)
        except WavError:
            continue
        assert len(sound.pcm) % 2 == 0
