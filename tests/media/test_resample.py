"""Rate conversion: exact in length, faithful to a telephone's band, or a clear error."""

import ctypes

import pytest
from doorstation.errors import DoorstationError
from doorstation.media import resample, speexdsp
from doorstation.media.pcm import audioop
from doorstation.media.resample import Resampler

from tests.support.sounds import sine


def convert(pcm: bytes, rate_in: int, rate_out: int) -> bytes:
    resampler = Resampler(rate_in, rate_out)
    step = 2 * (rate_in // 50)
    pieces = [resampler.process(pcm[i : i + step]) for i in range(0, len(pcm), step)]
    assert {len(piece) for piece in pieces} == {2 * (rate_out // 50)}
    resampler.close()
    resampler.close()
    return b"".join(pieces)


@pytest.mark.parametrize(
    ("rate_in", "rate_out"),
    [(8000, 48000), (48000, 8000), (44100, 8000), (8000, 44100), (16000, 8000), (8000, 16000)],
)
def test_every_period_is_exact_and_a_tone_keeps_its_level(rate_in: int, rate_out: int) -> None:
    out = convert(sine(1000, rate_in, rate_in, peak=10000), rate_in, rate_out)
    assert len(out) == 2 * rate_out
    assert audioop.rms(out[rate_out // 2 :], 2) == pytest.approx(7071, rel=0.03)


def test_what_a_lower_rate_cannot_carry_is_removed() -> None:
    out = convert(sine(6000, 48000, 48000, peak=10000), 48000, 8000)
    assert audioop.rms(out[4000:], 2) < 100


def test_equal_rates_change_nothing() -> None:
    assert Resampler(8000, 8000).process(b"\1\0\2\0") == b"\1\0\2\0"


def test_without_the_library_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ctypes.CDLL:
        raise OSError(name)

    speexdsp.library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(DoorstationError, match="libspeexdsp1"):
        Resampler(48000, 8000)
    with pytest.raises(DoorstationError, match="libspeexdsp1"):
        resample.require()
    Resampler(8000, 8000)
