"""The fake board's rooms: the microphone hears the loudspeaker, later and coloured."""

import math

import pytest
from doorboard.fake import FakeAudioPort
from doorboard.fake_room import ROOMS, FakeRoom
from doorstation.media.pcm import audioop

from tests.support import sounds


def sine(rate: int, level: int) -> bytes:
    return sounds.sine(500, rate // 50, rate, peak=level)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_a_sound_is_heard_at_the_rooms_level(rate: int) -> None:
    room = FakeRoom("good", rate)
    loud = [room.heard(sine(rate, 10000), bytes(rate // 25)) for _ in range(20)][-1]
    assert -26 < 20 * math.log10(audioop.rms(loud, 2) / audioop.rms(sine(rate, 10000), 2)) < -12


def test_a_broken_microphone_hears_nothing_at_all() -> None:
    room = FakeRoom("broken-mic", 16000)
    assert room.heard(sine(16000, 10000), sine(16000, 10000)) == bytes(640)


def test_the_card_plays_into_its_room_after_its_queue() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    port = FakeAudioPort(rate=16000, room="good", clock=lambda: now[0], sleep=sleep)
    port.open()
    levels = []
    for tick in range(6):
        levels.append(audioop.rms(port.read(), 2))
        port.write(sine(16000, 20000) if tick == 0 else bytes(640))
    # Two periods were queued at the start: the first write sounds in the third read.
    assert max(levels[:2]) < 30
    assert levels[2] > 500


def test_rooms_have_names_that_the_command_line_knows() -> None:
    assert set(ROOMS) == {"good", "loud", "howl", "broken-mic"}
