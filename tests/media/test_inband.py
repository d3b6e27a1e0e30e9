"""Tones as digits (ITU-T Q.24): the far end's count, the panel's own and a voice's do not."""

import math
import random
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import doorstation
import pytest
from doorstation.media.inband import ECHO_SECONDS, HIGH, KEYS, LOW, InbandDigits
from doorstation.media.pcm import audioop
from doorstation.media.wav import parse_wav

from tests.support.sounds import voice

RATES = [8000, 16000]
ALL = "".join(KEYS)
PROMPTS = Path(doorstation.__file__).parent / "prompts"


def tone(
    key: str, rate: int, ms: float = 50, dbfs: float = -16, twist: float = 0, off: float = 0
) -> list[float]:
    """`twist`: dB by which the high tone is louder; `off`: part by which both are too high."""
    row = next(row for row, keys in enumerate(KEYS) if key in keys)
    low, high = LOW[row] * (1 + off), HIGH[KEYS[row].index(key)] * (1 + off)
    peak = 32768 * 10 ** (dbfs / 20) * math.sqrt(2)
    louder, softer = peak, peak * 10 ** (-abs(twist) / 20)
    a, b = (softer, louder) if twist > 0 else (louder, softer)
    step = 2 * math.pi / rate
    return [
        a * math.sin(low * step * n) + b * math.sin(high * step * n + 1)
        for n in range(round(rate * ms / 1000))
    ]


def pause(rate: int, ms: float) -> list[float]:
    return [0.0] * round(rate * ms / 1000)


def periods(samples: Sequence[float], rate: int) -> Iterator[bytes]:
    frames = rate // 50
    pcm = array("h", (max(-32768, min(32767, round(x))) for x in samples)).tobytes()
    for at in range(0, len(pcm) + 4 * frames, 2 * frames):
        yield pcm[at : at + 2 * frames].ljust(2 * frames, b"\0")


def heard(samples: Sequence[float], rate: int, sent: Sequence[float] = ()) -> str:
    digits = InbandDigits(rate, rate)
    ours = periods(sent, rate)
    keys = (digits.take(period, next(ours, b"")) for period in periods(samples, rate))
    return "".join(key for key in keys if key is not None)


def noisy(samples: Sequence[float], ratio_db: float, seed: int = 1) -> list[float]:
    chance = random.Random(seed)
    loud = [x for x in samples if x]
    rms = math.sqrt(sum(x * x for x in loud) / len(loud)) * 10 ** (-ratio_db / 20)
    return [x + chance.gauss(0, rms) for x in samples]


@pytest.mark.parametrize("rate", RATES)
def test_all_sixteen_keys_at_the_shortest_that_must_be_taken(rate: int) -> None:
    samples: list[float] = []
    for key in ALL:
        samples += tone(key, rate, 40) + pause(rate, 40)
    assert heard(samples, rate) == ALL


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("start", [0, 3, 7, 11, 18])
@pytest.mark.parametrize("off", [-0.015, 0.015])
def test_keys_at_the_edges_of_frequency_twist_and_anywhere_in_time(
    rate: int, start: float, off: float
) -> None:
    for key, twist in zip(ALL, (4, -8) * 8, strict=True):
        samples = pause(rate, start) + tone(key, rate, 40, off=off, twist=twist) + pause(rate, 40)
        assert heard(samples, rate) == key


@pytest.mark.parametrize("rate", RATES)
def test_tones_beside_the_frequencies_are_no_key(rate: int) -> None:
    for key in ALL:
        for off in (-0.035, 0.035):
            assert heard(tone(key, rate, 100, off=off), rate) == ""


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_much_louder_than_the_other_is_no_key(rate: int) -> None:
    for key in ALL:
        assert heard(tone(key, rate, 100, twist=7), rate) == ""
        assert heard(tone(key, rate, 100, twist=-12), rate) == ""


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("start", [0, 5, 9, 13])
def test_a_tone_of_23_ms_is_no_key(rate: int, start: float) -> None:
    for key in ALL:
        assert heard(pause(rate, start) + tone(key, rate, 23) + pause(rate, 40), rate) == ""


@pytest.mark.parametrize("rate", RATES)
def test_keys_in_noise_of_12_db_less(rate: int) -> None:
    for seed, key in enumerate(ALL):
        samples = noisy(tone(key, rate, 60) + pause(rate, 100), 12, seed)
        assert heard(samples, rate) == key


@pytest.mark.parametrize("rate", RATES)
def test_loud_and_soft_keys(rate: int) -> None:
    for key in ALL:
        assert heard(tone(key, rate, 60, dbfs=-6.1), rate) == key
        assert heard(tone(key, rate, 60, dbfs=-40), rate) == key
        assert heard(tone(key, rate, 60, dbfs=-55), rate) == ""


@pytest.mark.parametrize("rate", RATES)
def test_a_key_held_down_is_one_and_an_interruption_of_10_ms_divides_nothing(rate: int) -> None:
    samples = tone("5", rate, 1000)
    begin = rate // 3
    samples[begin : begin + rate // 100] = pause(rate, 10)
    assert heard(samples, rate) == "5"
    assert heard((tone("5", rate, 60) + pause(rate, 45)) * 4, rate) == "5555"


@pytest.mark.parametrize("rate", RATES)
def test_one_tone_alone_and_a_countrys_tones_are_no_key(rate: int) -> None:
    step = 2 * math.pi / rate
    for together in [(697,), (1336,), (425,), (440, 480), (350, 440), (480, 620), (950,), (1400,)]:
        samples = [sum(4000 * math.sin(f * step * n) for f in together) for n in range(rate)]
        assert heard(samples, rate) == ""


def test_what_is_spoken_is_no_key() -> None:
    """Talk-off: all the shipped words, at five speeds, and a hum with its overtones."""
    digits = InbandDigits(16000, 16000)
    seconds = 0.0
    for path in sorted(PROMPTS.glob("*/*.wav")):
        wav = parse_wav(path.read_bytes())
        for speed in (0.8, 0.9, 1.0, 1.1, 1.25):
            pcm, _ = audioop.ratecv(wav.pcm, 2, 1, int(wav.rate * speed), 16000, None)
            seconds += len(pcm) / 32000
            for at in range(0, len(pcm), 640):
                assert digits.take(pcm[at : at + 640], b"") is None
    assert seconds > 60
    for pitch in (90, 130, 170, 220, 300):
        for period in voice(4, 16000, pitch):
            assert digits.take(period, b"") is None


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.7, ECHO_SECONDS - 0.1])
@pytest.mark.parametrize("gain_db", [-20, 0, 9])
def test_a_tone_played_at_the_panel_and_echoed_by_the_far_end_is_no_key(
    rate: int, delay: float, gain_db: float
) -> None:
    for key in "159D#":
        played = tone(key, rate, 80, dbfs=-20)
        factor = 10 ** (gain_db / 20)
        echo = pause(rate, 1000 * delay) + [factor * x for x in played]
        assert heard(echo, rate) == key, "as anybody's"
        assert heard(echo, rate, sent=played) == ""


def test_noise_over_the_tones_at_the_panel_hides_nothing() -> None:
    """A far end's noise suppression would send back the tones alone."""
    for seed, key in enumerate("159D#"):
        played = tone(key, 8000, 80, dbfs=-20)
        masked = noisy(played, -15, seed)
        assert heard(pause(8000, 300) + played, 8000, sent=masked) == ""


def test_the_panel_may_be_at_another_rate() -> None:
    digits = InbandDigits(8000, 16000)
    found = [
        digits.take(far, near)
        for far, near in zip(
            periods(tone("5", 8000, 100), 8000),
            periods(tone("5", 16000, 100), 16000),
            strict=True,
        )
    ]
    assert set(found) == {None}


def test_a_visitor_who_talks_keeps_no_key_from_counting() -> None:
    near = b"".join(voice(3, 8000, 170))
    quieter = audioop.mul(near, 2, 0.3)
    digits = InbandDigits(8000, 8000)
    found = ""
    samples: list[float] = []
    for key in "147*2580369#":
        samples += tone(key, 8000, 100, dbfs=-13) + pause(8000, 100)
    for at, far in enumerate(periods(samples, 8000)):
        found += digits.take(far, quieter[320 * at : 320 * at + 320]) or ""
    assert found == "147*2580369#"


def test_echoes_of_long_ago_are_forgotten() -> None:
    played = tone("5", 8000, 80)
    later = pause(8000, 1000 * ECHO_SECONDS + 150) + played
    assert heard(later, 8000, sent=played) == "5"
