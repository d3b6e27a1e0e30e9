"""The table of codecs: what holds for each of them."""

import pytest
from doorstation.media import codecs
from doorstation.media.pcm import audioop

from tests.support.sounds import sine

SPOKEN = [
    ("PCMA", 8000, 8000),
    ("PCMU", 8000, 8000),
    ("G722", 8000, 16000),
    ("opus", 48000, 16000),
    ("L16", 8000, 8000),
    ("L16", 16000, 16000),
]


@pytest.mark.parametrize(("name", "clock", "rate"), SPOKEN)
def test_a_tone_arrives_as_loud_as_it_was_sent(name: str, clock: int, rate: int) -> None:
    codec = codecs.make(name, clock)
    assert (codec.rate, codec.clock) == (rate, clock)
    tone = sine(440, rate // 2, rate, peak=8000)
    size = 2 * rate // 50
    heard = b""
    for at in range(0, len(tone), size):
        payload = codec.encode(tone[at : at + size])
        assert codec.samples(payload) == size // 2
        heard += codec.decode(payload)
    last = heard[-10 * size :]
    assert abs(audioop.rms(last, 2) - audioop.rms(tone, 2)) < 600


@pytest.mark.parametrize(("name", "clock", "rate"), SPOKEN)
def test_names_of_codecs_have_no_case(name: str, clock: int, rate: int) -> None:
    for spelt in (name.upper(), name.lower()):
        assert codecs.is_spoken(spelt, clock)
        assert codecs.make(spelt, clock).rate == rate


@pytest.mark.parametrize(("name", "clock"), [("GSM", 8000), ("opus", 8000), ("L16", 44100)])
def test_what_is_not_spoken_is_named(name: str, clock: int) -> None:
    assert not codecs.is_spoken(name, clock)
    with pytest.raises(ValueError, match=f"{name}/{clock}"):
        codecs.make(name, clock)


def test_only_opus_repairs_losses_by_itself() -> None:
    for name, clock, rate in SPOKEN:
        codec = codecs.make(name, clock)
        payload = codec.encode(bytes(2 * rate // 50))
        repaired = codec.conceal(rate // 50), codec.recover(payload, rate // 50)
        assert (None not in repaired) == (name == "opus")
