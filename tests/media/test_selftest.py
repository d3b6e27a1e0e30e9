"""The acoustic self-test: figures that are true, a verdict on each fault, nothing that howls."""

import math
from array import array
from collections.abc import Callable

import msgspec
import pytest
from doorstation.media import echo, selftest
from doorstation.media.pcm import audioop
from doorstation.media.selftest import Report, SelfTest, judged
from doorstation.settings.reader import parse

from tests.media.rooms import delayed

Path = Callable[[bytes], bytes]


def perform(path: Path, noise: int = 15) -> SelfTest:
    """Play all of the script through `path` at once: what the microphone has of what is played."""
    test = SelfTest(lambda: echo.make(echo.Options(), selftest.RATE))
    size = 2 * selftest.FRAMES
    heard = path(test._script)
    hiss = array("h", (noise if (i * 7919) % 13 > 6 else -noise for i in range(selftest.FRAMES)))
    written = bytes(size)
    at = 0
    microphone = hiss.tobytes()
    while not test.finished:
        played = test.tick(microphone, written)
        written = played
        microphone = audioop.add(heard[at : at + size].ljust(size, b"\0"), hiss.tobytes(), 2)
        at += size
    return test


def quieter(pcm: bytes) -> bytes:
    return audioop.mul(delayed(pcm, 0.03), 2, 0.1)


def test_delay_and_coupling_are_what_they_are() -> None:
    report = perform(quieter).report()
    assert report.verdict == "good"
    assert report.delay_ms == pytest.approx(30.0, abs=0.2)
    assert report.coupling_db == pytest.approx(-20.0, abs=0.3)
    assert report.noise_dbfs == pytest.approx(-66.8, abs=0.5)
    assert report.distortion_db is not None
    assert report.distortion_db < -35
    assert report.drift_ppm == pytest.approx(0.0, abs=1.0)
    assert report.erle_db is not None
    assert report.erle_db > 30


def test_two_clocks_are_told_apart_to_a_few_ppm() -> None:
    def faster(pcm: bytes) -> bytes:
        source = array("h", quieter(pcm))
        out = array("h")
        for index in range(len(source) - 100):
            place = index * 1.00008
            whole = int(place)
            part = place - whole
            out.append(round(source[whole] * (1 - part) + source[whole + 1] * part))
        return out.tobytes().ljust(len(pcm), b"\0")

    assert perform(faster).report().drift_ppm == pytest.approx(80.0, abs=4.0)


def test_a_cone_driven_too_far_is_heard_by_its_harmonics() -> None:
    table = array("h", (round(3000 * math.tanh(s / 3000)) for s in range(-32768, 32768)))

    def bent(pcm: bytes) -> bytes:
        driven = array("h", (table[sample + 32768] for sample in array("h", pcm)))
        return audioop.mul(delayed(driven.tobytes(), 0.03), 2, 0.3)

    report = perform(bent).report()
    assert report.distortion_db is not None
    assert report.distortion_db > -20
    assert report.distortion_db > (perform(quieter).report().distortion_db or 0) + 15


def test_sound_that_comes_back_louder_ends_the_test_before_anything_loud_is_played() -> None:
    test = perform(lambda pcm: audioop.mul(delayed(pcm, 0.02), 2, 4.0))
    assert test.report().verdict == "would howl"
    assert audioop.max(bytes(test._played), 2) < 500
    assert test.report().erle_db is None


def test_a_dead_microphone_and_a_dead_loudspeaker_are_different_faults() -> None:
    assert perform(lambda pcm: bytes(len(pcm)), noise=0).report().verdict == "microphone broken"
    assert perform(lambda pcm: bytes(len(pcm))).report().verdict == "loudspeaker not heard"


@pytest.mark.parametrize("late", [0.01, 0.09, 0.25])
def test_an_echo_before_its_reference_is_found(late: float) -> None:
    report = perform(lambda pcm: audioop.mul(delayed(pcm, -late), 2, 0.1)).report()
    assert report.verdict == "reference late"
    assert report.delay_ms == pytest.approx(-1000 * late, abs=0.2)


def test_a_loudspeaker_that_noise_drowns_is_not_called_unheard() -> None:
    report = perform(quieter, noise=1200).report()
    assert (report.verdict, report.coupling_db) == ("too noisy", None)
    assert report.advice == {"audio.microphone_volume": 40}


def test_the_report_waits_for_the_end() -> None:
    test = SelfTest(lambda: echo.make(echo.Options(), selftest.RATE))
    test.tick(bytes(640), bytes(640))
    assert 0 < test.progress < 0.01
    with pytest.raises(ValueError, match="finished"):
        test.report()


GOOD = Report(
    "good", "", -60.0, coupling_db=-18.0, delay_ms=40.0, distortion_db=-35.0, drift_ppm=0.0,
    erle_db=40.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "verdict", "advice"),
    [
        ({}, "good", {}),
        ({"delay_ms": -3.0}, "reference late", {}),
        ({"coupling_db": 8.0}, "would howl", {"audio.speaker_gain": -22.0}),
        ({"coupling_db": -2.0}, "too loud", {"audio.speaker_gain": -12.0}),
        ({"clipped": True}, "too loud", {"audio.speaker_gain": -8.0}),
        ({"distortion_db": -8.0}, "too loud", {"audio.speaker_gain": -8.0}),
        ({"noise_dbfs": -30.0}, "too noisy", {"audio.microphone_volume": 30}),
        (
            {"erle_db": 18.0},
            "echo remains",
            {"audio.echo": "cascade", "audio.speaker_gain": -8.0},
        ),
    ],
)
def test_each_fault_has_its_verdict_and_advice_beside_the_gain_in_force(
    changed: dict[str, float], verdict: str, advice: dict[str, float | str]
) -> None:
    found = msgspec.structs.replace(GOOD, **changed)
    report = judged(found, gain_db=-2.0, microphone_volume=60, next_mode="cascade")
    assert (report.verdict, report.advice) == (verdict, advice)


@pytest.mark.parametrize("gain", [-40.0, -37.0, -20.0, 24.0])
@pytest.mark.parametrize(
    "changed", [{"coupling_db": 40.0}, {"coupling_db": 9.0}, {"clipped": True}, {"erle_db": 3.0}]
)
def test_no_gain_is_advised_that_the_settings_refuse_and_what_is_missing_is_said(
    changed: dict[str, float], gain: float
) -> None:
    found = msgspec.structs.replace(GOOD, **changed)
    report = judged(found, gain_db=gain, microphone_volume=None, next_mode=None)
    advised = report.advice.get("audio.speaker_gain", gain)
    parse(f'[board]\nkind = "fake"\n[audio]\nspeaker_gain = {advised}\n')
    needed = 6.0 if "coupling_db" not in changed else changed["coupling_db"] + 12.0
    assert advised == max(-40.0, gain - needed)
    assert ("amplifier" in report.explanation) == (gain - needed < -40.0)


def test_a_card_that_howls_at_the_least_gain_is_to_be_turned_down_itself() -> None:
    test = perform(lambda pcm: audioop.mul(delayed(pcm, 0.02), 2, 4.0))
    test._gain_db = -40.0
    report = test.report()
    assert (report.verdict, report.advice) == ("would howl", {})
    assert "audio.speaker_volume" in report.explanation


def test_the_transform_is_its_own_inverse() -> None:
    impulse = [complex(1.0)] + [0j] * 63
    shifted = [0j] * 5 + [complex(0.5)] + [0j] * 58
    found = selftest.divided(shifted, impulse)
    assert found[5] == pytest.approx(0.5, abs=1e-3)
    assert max(abs(value) for index, value in enumerate(found) if index != 5) < 1e-3
