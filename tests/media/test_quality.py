"""Bursts and gaps (RFC 3611 4.7.2), talk and noise, MOS by the E-model."""

from array import array

import pytest
from doorstation.media.pcm import audioop
from doorstation.media.quality import (
    BurstGap,
    Bursts,
    TalkLevel,
    mos,
    r_factor,
)


def of(*missed: int, packets: int = 1000) -> BurstGap:
    bursts = Bursts()
    for number in missed:
        bursts.missed(number)
    return bursts.figures(packets, 0.02)


def test_nothing_missed_is_one_long_gap() -> None:
    assert of() == BurstGap(0.0, 0.0, 0.0, 20.0, 0.0)


def test_losses_far_apart_belong_to_the_gap() -> None:
    seen = of(100, 117, 134)
    assert (seen.burst_density, seen.burst_seconds) == (0.0, 0.0)
    assert seen.gap_density == pytest.approx(3 / 1000)


def test_losses_with_fewer_than_sixteen_received_between_are_a_burst() -> None:
    seen = of(100, 116)
    assert seen.burst_density == pytest.approx(2 / 17)
    assert seen.burst_seconds == pytest.approx(17 * 0.02)
    assert seen.gap_density == 0.0


def test_durations_are_means_over_bursts_and_over_the_gaps_around_them() -> None:
    seen = of(100, 101, 102, 103, 300, 500, 501)
    assert seen.burst_density == 1.0
    assert seen.burst_seconds == pytest.approx(3 * 0.02)
    assert seen.gap_seconds == pytest.approx(994 * 0.02 / 3)
    assert seen.gap_density == pytest.approx(1 / 994)
    assert seen.in_bursts == pytest.approx(6 / 1000)


def test_another_numbering_begins_another_burst() -> None:
    bursts = Bursts()
    bursts.missed(100)
    bursts.missed(101)
    bursts.restarted()
    bursts.missed(5)
    seen = bursts.figures(1000, 0.02)
    assert seen.burst_density == 1.0
    assert seen.gap_density == pytest.approx(1 / 998)


def test_no_packets_are_no_division() -> None:
    assert Bursts().figures(0, 0.02) == BurstGap()


@pytest.mark.parametrize(
    ("percent", "opinion"),
    # Worked by hand: Ie,eff = 95 * p / (p + 25.1), R = 93.2 - Ie,eff, then G.107 annex B.
    [(0, 4.41), (1, 4.33), (5, 3.93), (10, 3.41), (20, 2.63)],
)
def test_opinion_falls_with_loss_as_the_e_model_has_it(percent: int, opinion: float) -> None:
    r = r_factor("PCMA", BurstGap(gap_density=percent / 100), 0.0)
    assert mos(r) == pytest.approx(opinion, abs=0.02)


def test_delay_spoils_talking_with_each_other() -> None:
    assert mos(r_factor("PCMA", BurstGap(), 0.15)) > 4.3
    assert mos(r_factor("PCMA", BurstGap(), 0.4)) < 3.8


def test_loss_in_bursts_is_rated_where_it_was() -> None:
    spread = BurstGap(gap_density=0.05)
    together = BurstGap(burst_density=1.0, in_bursts=0.05)
    assert r_factor("PCMA", together, 0.0) != pytest.approx(r_factor("PCMA", spread, 0.0), abs=1)


def test_opus_bears_more() -> None:
    lossy = BurstGap(gap_density=0.1)
    assert r_factor("opus", lossy, 0.0) > r_factor("PCMA", lossy, 0.0) + 5


@pytest.mark.parametrize("r", [0.0, 3.0, 6.5, 50.0, 93.2])
def test_opinion_is_between_one_and_the_best(r: float) -> None:
    assert 1.0 <= mos(r) <= 4.5


def test_talk_and_the_noise_in_its_pauses_are_told_apart() -> None:
    level = TalkLevel()
    talk, noise = 3000, 30
    for _ in range(20):
        for rms in (*[talk] * 10, *[noise] * 5):
            level.take(audioop.rms(array("h", [rms, -rms] * 80).tobytes(), 2))
    assert level.talk_dbfs == pytest.approx(-20.8, abs=0.2)
    assert level.noise_dbfs == pytest.approx(-60.8, abs=1.5)


def test_silence_is_no_talk() -> None:
    level = TalkLevel()
    assert (level.talk_dbfs, level.noise_dbfs) == (None, None)
    for _ in range(50):
        level.take(0)
    assert (level.talk_dbfs, level.noise_dbfs) == (None, -90.0)
