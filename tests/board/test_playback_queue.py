"""The loudspeaker's queue against clocks that drift, in frames and without a card."""

import math
from array import array

import pytest
from doorboard.playback_queue import (
    LIMIT_PERIODS,
    RELAPSE_PERIODS,
    TARGET_PERIODS,
    PlaybackQueue,
    stretch,
)

P = 160


def run(queue: PlaybackQueue, periods: int, *, drift: float = 0.0, level: float = 2 * P) -> float:
    """Play `periods` periods on a card whose clock is `drift` (0.001: 1000 ppm) too fast.

    Returns the level after the last write.
    """
    for _ in range(periods):
        level -= P * (1 + drift)
        if level < 0:
            queue.ran_dry()
            level = queue.target
            continue
        level += max(0, P + queue.correction(int(level)))
    return level


def test_a_shared_clock_needs_no_correction() -> None:
    queue = PlaybackQueue(P)
    assert all(queue.correction(P) == 0 for _ in range(1000))


@pytest.mark.parametrize("drift", [-500e-6, -50e-6, 50e-6, 500e-6])
def test_drift_of_an_hour_neither_runs_dry_nor_grows(drift: float) -> None:
    queue = PlaybackQueue(P)
    level = run(queue, 180_000, drift=drift)
    assert queue.target == TARGET_PERIODS * P
    assert 1.5 * P < level < 2.5 * P


def test_small_differences_are_walked_off_one_frame_per_period() -> None:
    queue = PlaybackQueue(P)
    steps = [queue.correction(P + 60) for _ in range(50 + 60)]
    assert steps == [0] * 50 + [-1] * 60


def test_a_standing_surplus_of_a_period_is_dropped_within_a_fifth_of_a_second() -> None:
    queue = PlaybackQueue(P)
    steps = [queue.correction(2 * P) for _ in range(10)]
    assert steps == [0] * 9 + [-P]


def test_one_late_wake_up_is_not_a_surplus() -> None:
    queue = PlaybackQueue(P)
    steps = [queue.correction(3 * P if tick % 10 == 5 else P) for tick in range(49)]
    assert set(steps) == {0}


@pytest.mark.parametrize("found", [P - 100, 2 * P])
def test_what_only_some_writes_find_is_no_difference(found: int) -> None:
    queue = PlaybackQueue(P)
    steps = [queue.correction(P if tick % 7 == 3 else found) for tick in range(1000)]
    assert set(steps) == {0}


def test_after_a_hold_up_the_delay_comes_back_to_its_target() -> None:
    assert run(PlaybackQueue(P), 60, level=5 * P) <= 3 * P
    assert run(PlaybackQueue(P), 400, level=5 * P) < 2.3 * P


def test_running_dry_once_changes_nothing_and_twice_lengthens_the_queue() -> None:
    queue = PlaybackQueue(P)
    queue.ran_dry()
    assert queue.target == 2 * P
    queue.ran_dry()
    assert queue.target == 2.5 * P


def test_a_card_that_is_never_content_gets_a_bounded_queue() -> None:
    queue = PlaybackQueue(P)
    for _ in range(100):
        queue.ran_dry()
    assert queue.target == LIMIT_PERIODS * P


def test_running_dry_once_in_a_long_while_is_forgiven() -> None:
    queue = PlaybackQueue(P)
    for _ in range(5):
        queue.ran_dry()
        for _ in range(RELAPSE_PERIODS):
            queue.correction(P)
    assert queue.target == TARGET_PERIODS * P


def test_a_card_that_moves_more_than_a_period_at_once_gets_that_much() -> None:
    assert PlaybackQueue(P, least=256).target == 256 + P


@pytest.mark.parametrize("frames", [159, 161])
def test_a_stretched_period_sounds_the_same(frames: int) -> None:
    tone = array("h", (round(8000 * math.sin(0.2 * n)) for n in range(160)))
    changed = array("h", stretch(tone.tobytes(), frames))
    assert len(changed) == frames
    assert (changed[0], changed[-1]) == (tone[0], tone[-1])
    step = 159 / (frames - 1)
    assert all(
        abs(value - 8000 * math.sin(0.2 * n * step)) < 100 for n, value in enumerate(changed)
    )
