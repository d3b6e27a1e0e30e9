"""The reference: held back as the card reports, drift measured and followed, never late."""

import math
from array import array

import pytest
from doorstation.media import delay
from doorstation.media.delay import DelayFinder
from doorstation.media.reference import MARGIN, Drift, Reference, shift

from tests.media.rooms import FRAME, RATE, delayed, frames, heard, noise, voice


def counted(first: int, length: int = 320) -> bytes:
    """Samples that say which they are."""
    return array("h", (i % 30000 for i in range(first, first + length))).tobytes()


def test_the_reference_is_held_back_for_the_cards_delay_less_a_margin() -> None:
    reference = Reference(RATE)
    reference.align(0.040)
    assert reference.delay == pytest.approx(0.040 - MARGIN)
    out = array("h", b"".join(reference.next(counted(320 * tick)) for tick in range(10)))
    back = 320 * 5 - out[320 * 5]
    assert back / RATE == pytest.approx(0.040 - MARGIN, abs=0.001)


def test_a_delay_shorter_than_the_margin_holds_nothing_back() -> None:
    reference = Reference(RATE)
    reference.align(0.005)
    assert reference.delay == 0.0


def test_the_first_period_of_a_call_has_silence_for_a_reference_and_delays_nothing() -> None:
    begun, ready = Reference(RATE), Reference(RATE)
    for one in (begun, ready):
        one.align(0.040)
    assert begun.next(b"") == ready.next(bytes(FRAME)) == bytes(FRAME)
    for tick in range(5):
        assert begun.next(counted(320 * tick)) == ready.next(counted(320 * tick))


def test_what_the_cards_driver_left_out_or_added_is_followed() -> None:
    reference = Reference(RATE)
    reference.align(0.060)
    reference.next(counted(0))
    before = reference.delay
    reference.next(b"")
    assert before - reference.delay == pytest.approx(0.02)
    reference.next(counted(0, 640))
    assert reference.delay == pytest.approx(before)


def test_what_waits_is_bounded() -> None:
    reference = Reference(RATE)
    for _ in range(100):
        assert len(reference.next(bytes(4 * FRAME))) == FRAME
    assert reference.delay < 0.3


def phase(sine: "array[int]") -> float:
    """Of 440 Hz at the first sample, in turns."""
    step = 2 * math.pi * 440 / RATE
    across = sum(value * math.sin(step * i) for i, value in enumerate(sine))
    along = sum(value * math.cos(step * i) for i, value in enumerate(sine))
    return math.atan2(along, across) / (2 * math.pi)


@pytest.mark.parametrize("ppm", [-100.0, 100.0])
def test_a_followed_reference_is_the_same_sound_at_another_pace(ppm: float) -> None:
    step = 2 * math.pi * 440 / RATE
    sine = array("h", (round(8000 * math.sin(step * i)) for i in range(20 * RATE)))
    reference = Reference(RATE)
    reference.align(0.1)
    reference.follow(ppm)
    assert reference.following
    out = array("h", b"".join(reference.next(frame) for frame in frames(sine.tobytes())))
    # In 19 s a sine of 440 Hz gets ahead by its share of the drift, whole turns left out.
    turns = ppm * 1e-6 * 19 * 440
    first, last = phase(out[RATE : RATE + 4000]), phase(out[20 * RATE - 4000 :])
    ahead = (last - first - 440 * (19 - 4000 / RATE) - turns + 0.5) % 1.0 - 0.5
    assert ahead == pytest.approx(0.0, abs=0.03)
    assert reference.slipped == pytest.approx(ppm * 1e-6 * len(out), rel=0.01)


def test_a_small_drift_is_left_alone() -> None:
    reference = Reference(RATE)
    reference.follow(3.0)
    assert not reference.following


def response(place: float, length: int = 400) -> list[int]:
    """A direct sound and two reflections, at a place between taps."""
    taps = [0.0] * length
    for offset, gain in ((0.0, 1.0), (17.3, 0.5), (33.9, -0.3)):
        for tap in range(length):
            x = tap - place - offset
            if abs(x) < 8:
                sinc = math.sin(math.pi * x) / (math.pi * x) if x else 1.0
                taps[tap] += gain * sinc * math.cos(math.pi * x / 16) ** 2
    return [round(1e6 * tap) for tap in taps]


@pytest.mark.parametrize("moved", [-3.4, -0.2, 0.0, 0.7, 4.1])
def test_a_movement_is_measured_between_taps(moved: float) -> None:
    assert shift(response(150.0), response(150.0 + moved)) == pytest.approx(moved, abs=0.15)


def test_another_room_is_no_movement() -> None:
    assert shift(response(150.0), response(190.0)) is None
    assert shift([0] * 400, response(100.0)) is None


def test_the_slope_is_believed_after_some_measurements_and_begins_again_in_another_room() -> None:
    drift = Drift(RATE)
    for second in range(12):
        assert (drift.ppm is None) == (second < 6)
        drift.measured(response(150.0 - 1.28 * second), 0.0, float(second))
    assert drift.ppm == pytest.approx(80.0, abs=10.0)
    drift.measured(response(50.0), 0.0, 12.0)
    assert drift.ppm is None


@pytest.mark.parametrize("delay", [-0.03, 0.0, 0.02, 0.15, 0.28])
def test_the_delay_is_found_early_late_or_in_time(delay: float) -> None:
    far = voice(4.0, seed=3)
    microphone = noise(delayed(heard(far, 0.0), delay), 30)
    finder = DelayFinder(RATE)
    pairs = zip(frames(microphone), frames(far), strict=True)
    found = [told for one, other in pairs if (told := finder.take(one, other)) is not None]
    assert found[0] == pytest.approx(delay, abs=0.0015)


@pytest.mark.parametrize("late", [0.1, 0.29])
def test_a_reference_that_is_later_than_any_card_makes_it_is_found_after_a_while(
    late: float,
) -> None:
    far = voice(20.0, seed=3)
    microphone = noise(delayed(heard(far, 0.0), -late), 30)
    finder = DelayFinder(RATE)
    pairs = zip(frames(microphone), frames(far), strict=True)
    found = [told for one, other in pairs if (told := finder.take(one, other)) is not None]
    assert found[0] == pytest.approx(-late, abs=0.0015)


def test_without_an_echo_no_delay_is_made_up() -> None:
    finder = DelayFinder(RATE)
    pairs = zip(frames(voice(4.0, seed=5)), frames(voice(4.0, seed=6, pitch=170)), strict=True)
    assert [found for one, other in pairs if (found := finder.take(one, other)) is not None] == []


def test_an_echo_that_is_not_heard_is_looked_for_less_often_and_found_when_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[int] = []
    find = delay.find_delay

    def counted(microphone: bytes, loudspeaker: bytes) -> tuple[float, float]:
        looked.append(tick)
        return find(microphone, loudspeaker)

    monkeypatch.setattr(delay, "find_delay", counted)
    finder = DelayFinder(RATE)
    far = voice(12.0, seed=3)
    microphone = [bytes(FRAME)] * 600 + frames(noise(delayed(heard(far, 0.0), 0.05), 30))
    played = 2 * frames(far)
    found: list[float] = []
    for tick in range(1200):
        if (seconds := finder.take(microphone[tick], played[tick])) is not None:
            found.append(seconds)
    early = [tick for tick in looked if tick < 300]
    assert 15 <= len(early) <= 20
    assert len(looked) - len(early) <= 5
    assert found[0] == pytest.approx(0.05, abs=0.0015)
