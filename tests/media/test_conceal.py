"""Concealment: a steady voice goes on, a gap is bridged, silence stays silent, everything fades."""

import math
from array import array
from itertools import pairwise

import pytest
from doorstation.media.conceal import Concealer
from doorstation.media.pcm import audioop

from tests.support import sounds


def sine(hertz: float, begin: int, count: int, rate: int = 8000) -> bytes:
    return sounds.sine(hertz, count, rate, peak=8000, begin=begin)


def begun(history: bytes, rate: int = 8000) -> Concealer:
    concealer = Concealer(rate)
    concealer.begin(history)
    return concealer


def error(made: bytes, truth: bytes) -> float:
    """RMS of what is wrong, as a share of the truth's."""
    assert len(made) == len(truth)
    wrong = audioop.add(made, audioop.mul(truth, 2, -1), 2)
    return audioop.rms(wrong, 2) / audioop.rms(truth, 2)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("frequency", [80, 125, 200, 300])
def test_a_voice_is_continued(frequency: float, rate: int) -> None:
    period = rate // 50
    concealer = begun(sine(frequency, 0, 2 * period, rate), rate)
    truth = sine(frequency, 2 * period, period // 2, rate)
    assert error(concealer.extend(period // 2), truth) < 0.2


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("gap", [1, 2])
@pytest.mark.parametrize("frequency", [80, 125, 200, 300])
def test_a_gap_in_a_voice_is_bridged_from_both_sides(frequency: float, gap: int, rate: int) -> None:
    period = rate // 50
    concealer = begun(sine(frequency, 0, 2 * period, rate), rate)
    following = sine(frequency, (2 + gap) * period, period, rate)
    truth = sine(frequency, 2 * period, gap * period, rate)
    assert error(concealer.bridge(gap * period, following), truth) < 0.3


def test_a_bridge_arrives_in_phase_where_a_repetition_does_not() -> None:
    def gliding(begin: int, count: int) -> bytes:
        """A voice that goes from 150 to 210 Hz in the 100 ms around the gap."""
        return array(
            "h",
            (
                round(8000 * math.sin(2 * math.pi * (150 * t + 300 * t * t)))
                for t in ((begin + i) / 8000 for i in range(count))
            ),
        ).tobytes()

    truth = gliding(320, 160)
    bridged = begun(gliding(0, 320)).bridge(160, gliding(480, 160))
    repeated = begun(gliding(0, 320)).extend(160)
    assert error(bridged, truth) < 0.6 * error(repeated, truth)


def test_a_bridge_begins_and_ends_without_a_step() -> None:
    before, after = sine(200, 0, 320), sine(230, 480, 160)
    made = begun(before).bridge(160, after)
    whole = memoryview(before + made + after).cast("h")
    steepest = max(abs(a - b) for a, b in pairwise(memoryview(after).cast("h")))
    assert max(abs(a - b) for a, b in pairwise(whole)) < 2 * steepest


def test_what_is_invented_fades_within_sixty_milliseconds() -> None:
    concealer = begun(sine(200, 0, 320))
    levels = [audioop.rms(concealer.extend(160), 2) for _ in range(4)]
    assert levels[0] > levels[1] > levels[2] > levels[3] == 0
    assert concealer.exhausted


def test_what_comes_after_a_faded_sound_rises_out_of_silence() -> None:
    concealer = begun(sine(200, 0, 320))
    concealer.extend(480)
    made = concealer.bridge(160, sine(200, 960, 160))
    assert audioop.rms(made[:80], 2) < 1500
    assert audioop.rms(made[-80:], 2) > 3000


def test_silence_is_continued_as_silence() -> None:
    assert begun(bytes(640)).extend(160) == bytes(320)
    assert begun(bytes(640)).bridge(160, bytes(320)) == bytes(320)


def test_without_history_there_is_nothing_to_continue() -> None:
    assert begun(sine(200, 0, 40)).extend(160) == bytes(320)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 79])
def test_any_lengths_go(count: int) -> None:
    following = sine(200, 400, count)
    assert len(begun(sine(200, 0, 320)).bridge(count, following)) == 2 * count
    concealer = begun(sine(200, 0, 320))
    assert len(concealer.extend(count)) == 2 * count
    assert len(concealer.joined(following)) == 2 * count


def test_the_next_packet_is_faded_in() -> None:
    concealer = begun(array("h", [4000] * 320).tobytes())
    concealer.extend(160)
    joined = memoryview(concealer.joined(array("h", [-4000] * 160).tobytes())).cast("h")
    assert joined[0] > 2000
    assert joined[31] < -3000
    assert list(joined[32:]) == [-4000] * 128
    assert max(abs(a - b) for a, b in pairwise(joined)) < 400
