"""Tones: the right frequency at the right time, without clicks and without rendering ahead."""

import math
from array import array
from itertools import pairwise

import pytest
from doorstation.media import tones
from doorstation.media.pcm import audioop
from doorstation.media.tones import BUSY, RINGBACK, Segment, Tone, WavPlayer, player
from doorstation.media.wav import Wav

from tests.support.sounds import sine

BEEP = Tone((Segment(0.06, (1000,)),))


def play(sound: tones.Sound, seconds: float, rate: int = 8000, loop: bool | None = None) -> bytes:
    source = player(sound, rate, loop)
    frames = rate // 50
    pieces = [source.read(frames) for _ in range(round(seconds * 50))]
    assert {len(piece) for piece in pieces} == {2 * frames}
    source.close()
    return b"".join(pieces)


def strength(pcm: bytes, frequency: float, rate: int) -> float:
    """Peak amplitude of one frequency (Goertzel by definition)."""
    samples = memoryview(pcm).cast("h")
    step = 2 * math.pi * frequency / rate
    cosine = sum(s * math.cos(step * i) for i, s in enumerate(samples))
    sine = sum(s * math.sin(step * i) for i, s in enumerate(samples))
    return 2 * math.hypot(cosine, sine) / len(samples)


def on_and_off(pcm: bytes, rate: int) -> list[tuple[bool, int]]:
    """Runs of sound and silence in periods of 20 ms."""
    runs: list[tuple[bool, int]] = []
    step = 2 * (rate // 50)
    for i in range(0, len(pcm), step):
        on = audioop.rms(pcm[i : i + step], 2) > 200
        if runs and runs[-1][0] == on:
            runs[-1] = (on, runs[-1][1] + 1)
        else:
            runs.append((on, 1))
    return runs


@pytest.mark.parametrize(
    ("country", "cadence"),
    [
        ("de", [(True, 50), (False, 200), (True, 50)]),
        ("uk", [(True, 20), (False, 10), (True, 20), (False, 100), (True, 20)]),
        ("us", [(True, 100), (False, 200), (True, 100)]),
        ("fr", [(True, 75), (False, 175), (True, 75)]),
        ("at", [(True, 50), (False, 250), (True, 50)]),
        ("es", [(True, 75), (False, 150), (True, 75)]),
    ],
)
def test_ringback_has_the_countrys_cadence(country: str, cadence: list[tuple[bool, int]]) -> None:
    periods = sum(count for _, count in cadence)
    assert on_and_off(play(RINGBACK[country], periods / 50), 8000) == cadence


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_frequencies_are_exact_at_every_rate(rate: int) -> None:
    pcm = play(RINGBACK["us"], 1.0, rate)[rate // 5 * 2 :]
    level = 32767 * 10 ** (-15 / 20)
    assert strength(pcm, 440, rate) == pytest.approx(level, rel=0.05)
    assert strength(pcm, 480, rate) == pytest.approx(level, rel=0.05)
    assert strength(pcm, 620, rate) < level / 50


def test_every_country_has_both_tones() -> None:
    assert {"de", "uk", "us", "fr", "it", "nl", "ch", "at", "es"} <= set(RINGBACK)
    assert set(BUSY) == set(RINGBACK)
    for country in RINGBACK:
        assert tones.named("ringback", country).repeat
        assert BUSY[country].repeat


@pytest.mark.parametrize("name", ["error", "refused", "opened", "warning"])
def test_signals_of_the_door_end_by_themselves(name: str) -> None:
    source = player(tones.named(name), 8000)
    periods = 0
    while not source.finished:
        source.read(160)
        periods += 1
    assert 3 <= periods <= 60
    assert source.read(160) == bytes(320)


@pytest.mark.parametrize("country", RINGBACK)
def test_busy_is_heard_for_about_three_seconds_and_ends_by_itself(country: str) -> None:
    source = player(tones.named("busy", country), 8000)
    periods = 0
    while not source.finished:
        source.read(160)
        periods += 1
    assert 130 <= periods <= 170


def test_no_sample_clips_and_no_edge_clicks() -> None:
    for country in RINGBACK:
        samples = memoryview(play(tones.named("busy", country), 2.0)).cast("h")
        assert max(samples) < 32767
        steepest = 2 * math.pi * 620 / 8000 * 32767 * 10 ** (-15 / 20) * 2
        assert max(abs(a - b) for a, b in pairwise(samples)) < steepest


def test_a_tone_can_be_looped_or_played_once_against_its_habit() -> None:
    once = player(RINGBACK["de"], 8000, loop=False)
    for _ in range(250):
        once.read(160)
    assert once.finished
    beeps = play(BEEP, 0.6, loop=True)
    assert len(on_and_off(beeps, 8000)) == 1


def test_an_empty_tone_is_silence() -> None:
    assert play(Tone(()), 0.1) == bytes(1600)
    assert play(Tone((Segment(0.1),)), 0.2) == bytes(3200)


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        tones.named("fanfare")


def test_a_wav_plays_once_to_its_end() -> None:
    sound = Wav(8000, array("h", range(1, 401)).tobytes())
    pcm = play(sound, 0.08)
    assert pcm[:800] == sound.pcm
    assert pcm[800:] == bytes(2 * 240)


def test_a_wav_loops_without_a_seam() -> None:
    sound = Wav(8000, array("h", range(1, 401)).tobytes())
    assert play(sound, 0.2, loop=True) == (sound.pcm * 4)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("card", [8000, 16000, 48000])
def test_a_wav_of_any_rate_keeps_pitch_and_length(rate: int, card: int) -> None:
    source = WavPlayer(Wav(rate, sine(500, rate, rate, peak=8000)), card)
    heard = b""
    while not source.finished:
        heard += source.read(card // 50)
    assert len(heard) / 2 / card == pytest.approx(1.0, abs=0.021)
    middle = heard[card // 2 : card // 2 + card]
    assert strength(middle, 500, card) == pytest.approx(8000, rel=0.05)


def test_a_sound_of_our_own_plays_to_its_end() -> None:
    local = tones.LocalSound()
    assert local.read(8000) == bytes(320)
    local.play(Tone((Segment(0.04, (1000,)),)), 8000)
    assert audioop.rms(local.read(8000), 2) > 3000
    assert local.playing
    local.read(8000)
    assert not local.playing
