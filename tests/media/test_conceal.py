"""Concealment: a steady voice goes on, silence stays silent, everything fades."""

import math
from array import array
from itertools import pairwise

import pytest
from doorstation.media.conceal import Concealer
from doorstation.media.pcm import audioop


def sine(frequency: float, begin: int, count: int) -> bytes:
    step = 2 * math.pi * frequency / 8000
    return array("h", (round(8000 * math.sin(step * (begin + i))) for i in range(count))).tobytes()


@pytest.mark.parametrize("frequency", [80, 125, 200, 300])
def test_a_lost_packet_in_a_voice_is_continued(frequency: float) -> None:
    concealer = Concealer()
    for i in range(3):
        concealer.real(sine(frequency, i * 160, 160))
    invented = concealer.conceal(80)
    truth = sine(frequency, 480, 80)
    difference = audioop.add(invented, audioop.mul(truth, 2, -1), 2)
    assert audioop.rms(difference, 2) < 0.35 * audioop.rms(truth, 2)


def test_what_is_invented_fades_within_sixty_milliseconds() -> None:
    concealer = Concealer()
    for i in range(3):
        concealer.real(sine(200, i * 160, 160))
    levels = [audioop.rms(concealer.conceal(160), 2) for _ in range(4)]
    assert levels[0] > levels[1] > levels[2] > levels[3] == 0
    assert concealer.exhausted


def test_silence_is_continued_as_silence() -> None:
    concealer = Concealer()
    for _ in range(3):
        concealer.real(bytes(320))
    assert concealer.conceal(160) == bytes(320)


def test_without_history_there_is_nothing_to_continue() -> None:
    concealer = Concealer()
    concealer.real(sine(200, 0, 40))
    assert concealer.conceal(160) == bytes(320)


def test_short_packets_make_history_too() -> None:
    concealer = Concealer()
    for i in range(12):
        concealer.real(sine(200, i * 80, 80))
    assert audioop.rms(concealer.conceal(80), 2) > 3000


def test_the_next_packet_is_faded_in() -> None:
    concealer = Concealer()
    for _ in range(3):
        concealer.real(array("h", [4000] * 160).tobytes())
    concealer.conceal(160)
    joined = memoryview(concealer.real(array("h", [-4000] * 160).tobytes())).cast("h")
    assert joined[0] > 2000
    assert joined[31] < -3000
    assert list(joined[32:]) == [-4000] * 128
    assert max(abs(a - b) for a, b in pairwise(joined)) < 400
