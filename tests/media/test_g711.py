"""G.711 (ITU-T G.711): known values, any length."""

import bisect
from array import array
from pathlib import Path

import pytest
from doorstation.media import g711

CODECS = {"PCMA": g711.Pcma(), "PCMU": g711.Pcmu()}
DATA = Path(__file__).parents[1] / "data" / "g711"


def pcm(*samples: int) -> bytes:
    return b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)


def test_known_values_of_a_law() -> None:
    assert g711.encode_pcma(pcm(0, 8, -8, 32767, -32768)) == bytes.fromhex("d5d555aa2a")
    assert g711.decode_pcma(bytes.fromhex("d5 55 aa 2a")) == pcm(8, -8, 32256, -32256)


def test_known_values_of_mu_law() -> None:
    assert g711.encode_pcmu(pcm(0, 32767, -32768)) == bytes.fromhex("ff8000")
    assert g711.decode_pcmu(bytes.fromhex("ff 80 00")) == pcm(0, 32124, -32124)


@pytest.mark.parametrize("name", ["PCMA", "PCMU"])
def test_every_octet_is_the_sample_that_others_hear(name: str) -> None:
    heard = CODECS[name].decode(bytes(range(256)))
    assert heard == (DATA / f"{name.lower()}.decoded.pcm").read_bytes()


@pytest.mark.parametrize("name", ["PCMA", "PCMU"])
def test_every_sample_is_written_as_one_of_the_two_octets_around_it(name: str) -> None:
    decode = CODECS[name].decode
    levels = sorted({*array("h", decode(bytes(range(256))))})
    samples = array("h", range(-32768, 32768))
    written = array("h", decode(CODECS[name].encode(samples.tobytes())))
    for sample, heard in zip(samples, written, strict=True):
        place = bisect.bisect(levels, sample)
        assert heard in levels[max(0, place - 2) : place + 2]
    assert [*array("h", decode(CODECS[name].encode(array("h", levels).tobytes())))] == levels


@pytest.mark.parametrize("name", ["PCMA", "PCMU"])
@pytest.mark.parametrize("length", [0, 1, 37, 80, 160, 240, 1440])
def test_any_length_comes_back_within_the_laws_error(name: str, length: int) -> None:
    samples = pcm(*((i * 517) % 65536 - 32768 for i in range(length)))
    payload = CODECS[name].encode(samples)
    assert len(payload) == length
    back = memoryview(CODECS[name].decode(payload)).cast("h")
    for one, other in zip(memoryview(samples).cast("h"), back, strict=True):
        assert abs(one - other) <= max(16, abs(one) // 24)
