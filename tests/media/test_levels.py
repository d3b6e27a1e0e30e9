"""Levels: nothing ever clips, quiet sound is not touched, the street makes it louder."""

import math
from array import array

import pytest
from doorstation.media.levels import (
    CEILING,
    TARGET_DBFS,
    Limiter,
    Microphone,
    MicrophoneLevels,
    Speaker,
    SpeakerLevels,
)
from doorstation.media.pcm import audioop, dbfs
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sounds import sine

PERIOD = 320
samples = st.integers(-32768, 32767)
periods = st.lists(st.lists(samples, min_size=1, max_size=9), min_size=1, max_size=6).map(
    # Few numbers make many periods: each one's pattern is repeated over its 20 ms.
    lambda rows: [array("h", (row * PERIOD)[:PERIOD]).tobytes() for row in rows]
)


def tone(peak: int, frequency: float = 500.0, periods: int = 1) -> list[bytes]:
    return [sine(frequency, PERIOD, peak=peak, begin=PERIOD * number) for number in range(periods)]


@given(periods, st.floats(0.0, 100.0))
@settings(max_examples=200)
def test_no_sample_is_ever_above_the_ceiling(sounds: list[bytes], gain: float) -> None:
    limiter = Limiter()
    for period in sounds:
        out = limiter.process(period, gain)
        assert len(out) == len(period)
        assert audioop.max(out, 2) <= CEILING


@given(periods, periods, st.floats(-40.0, 30.0))
@settings(max_examples=100)
def test_neither_is_a_sum(ones: list[bytes], others: list[bytes], volume_db: float) -> None:
    speaker = Speaker(SpeakerLevels(volume_db=volume_db))
    for one, other in zip(ones, others, strict=False):
        out = speaker.play(one, other)
        assert audioop.max(out, 2) <= CEILING
        # Turned down by the sum's own peak alone, never inverted, never cut: the form is kept.
        assert len(out) == len(one)


def test_what_is_not_too_loud_is_not_touched() -> None:
    limiter = Limiter()
    for period in tone(20000, periods=5):
        assert limiter.process(period) == period


def test_a_sum_that_fits_is_the_sum() -> None:
    speaker = Speaker(SpeakerLevels())
    one, other = tone(8000, 500)[0], tone(8000, 1500)[0]
    difference = audioop.add(
        speaker.play(one, other), audioop.mul(audioop.add(one, other, 2), 2, -1), 2
    )
    assert audioop.max(difference, 2) <= 4


def test_loud_sound_is_turned_down_and_keeps_its_form() -> None:
    limiter = Limiter()
    loud = tone(20000, periods=20)
    out = [limiter.process(period, 4.0) for period in loud]
    settled = out[10]
    factor = audioop.findfactor(settled, loud[10])
    left = audioop.add(settled, audioop.mul(loud[10], 2, -factor), 2)
    assert audioop.max(settled, 2) > 0.9 * CEILING
    assert audioop.rms(left, 2) < 0.02 * audioop.rms(settled, 2)


def test_the_gain_comes_back_after_a_loud_moment() -> None:
    limiter = Limiter()
    limiter.process(tone(32000)[0], 4.0)
    for period in tone(1000, periods=40):
        out = limiter.process(period, 4.0)
    assert audioop.max(out, 2) == pytest.approx(4000, rel=0.01)


def test_volume() -> None:
    speaker = Speaker(SpeakerLevels(volume_db=-20.0))
    period = tone(10000)[0]
    assert audioop.max(speaker.play(period), 2) == pytest.approx(1000, rel=0.01)
    microphone = Microphone(MicrophoneLevels(volume_db=6.0, gain_control=False))
    assert audioop.max(microphone.process(period, 0), 2) == pytest.approx(19950, rel=0.01)


def rms_of(level_dbfs: float) -> float:
    return 32768 * math.pow(10.0, level_dbfs / 20)


def test_louder_with_the_street_up_to_the_cap_and_back() -> None:
    levels = SpeakerLevels(street_gain_db=9.0, street_threshold_dbfs=-50.0)
    speaker = Speaker(levels)
    quiet = bytes(2 * PERIOD)

    def listen(seconds: float, level: float) -> float:
        for _ in range(round(seconds * 50)):
            speaker.play(quiet)
            speaker.street(rms_of(level))
        return speaker.gain_db

    assert listen(10, -60) == 0.0
    assert listen(20, -44) == pytest.approx(6.0, abs=0.2)
    assert listen(20, -20) == 9.0
    assert listen(20, -60) == 0.0


def test_the_loudspeakers_own_echo_is_not_the_street() -> None:
    speaker = Speaker(SpeakerLevels(street_gain_db=12.0, street_threshold_dbfs=-50.0))
    for period in tone(20000, periods=1000):
        speaker.play(period)
        speaker.street(rms_of(-20))
    assert speaker.gain_db == 0.0


def talk(microphone: Microphone, level: float, seconds: float, far: int = 0) -> None:
    """Syllables: two thirds of talk, one of pause."""
    voiced = tone(round(rms_of(level) * math.sqrt(2)))[0]
    pause = tone(12)[0]
    for tick in range(round(seconds * 50)):
        microphone.process(pause if tick % 15 >= 10 else voiced, far)


@pytest.mark.parametrize(("level", "gain"), [(-33.0, 10.0), (-45.0, 12.0), (-16.0, -7.0)])
def test_quiet_and_loud_visitors_come_to_one_level(level: float, gain: float) -> None:
    microphone = Microphone(MicrophoneLevels())
    talk(microphone, level, 10)
    assert microphone.gain_db == pytest.approx(gain, abs=1.0)
    assert TARGET_DBFS == -23.0


def test_rest_of_echo_and_silence_teach_the_gain_nothing() -> None:
    microphone = Microphone(MicrophoneLevels())
    talk(microphone, -40, 10, far=2000)
    assert microphone.gain_db == 0.0
    for _ in range(500):
        microphone.process(tone(12)[0], 0)
    assert microphone.gain_db == 0.0


def test_noise_is_not_raised_for_a_quiet_visitor() -> None:
    microphone = Microphone(MicrophoneLevels())
    noise, voiced = tone(round(rms_of(-50) * math.sqrt(2)))[0], tone(round(rms_of(-35) * 1.41))[0]
    for tick in range(1500):
        microphone.process(noise if tick % 15 >= 10 else voiced, 0)
    assert microphone.gain_db == pytest.approx(2.0, abs=1.0)
    assert dbfs(audioop.rms(noise, 2)) == pytest.approx(-50, abs=0.1)
