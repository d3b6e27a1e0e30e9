"""The ALSA driver on a kernel's sound loopback, in simulated time; run inside the guest."""

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from doorboard.alsa import AlsaAudioPort, sound_cards
from doorboard.interfaces import BoardError

LOUD = b"\x00\x40" * 160


@pytest.fixture
def station() -> Iterator[AlsaAudioPort]:
    with AlsaAudioPort("plughw:CARD=Loopback,DEV=0") as port:
        port.open()
        yield port


@pytest.fixture
def street() -> Iterator[AlsaAudioPort]:
    """The other end of the loopback: the air in front of the door."""
    with AlsaAudioPort("plughw:CARD=Loopback,DEV=1") as port:
        port.open()
        yield port


def wake_ups() -> int:
    status = Path("/proc/thread-self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("voluntary_ctxt"))
    return int(line.split()[1])


def test_a_period_comes_every_20_ms_and_costs_one_wake_up(station: AlsaAudioPort) -> None:
    for _ in range(10):
        station.write(station.read())
    times, before = [], wake_ups()
    for _ in range(500):
        station.write(station.read())
        times.append(time.monotonic())
    assert wake_ups() - before <= 502
    gaps = [later - sooner for sooner, later in pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(0.02, abs=0.0001)
    assert max(gaps) < 0.021
    assert (station.overruns, station.underruns) == (0, 0)


def test_the_loudspeaker_is_40_ms_behind(station: AlsaAudioPort) -> None:
    levels = []
    for _ in range(200):
        station.write(station.read())
        levels.append(station.queued)
    assert max(levels) <= 2 * station.period
    assert min(levels) >= 1.5 * station.period


def test_sound_crosses_the_loopback_both_ways(
    station: AlsaAudioPort, street: AlsaAudioPort
) -> None:
    heard: dict[str, int] = {}
    for number in range(60):
        for name, port in (("station", station), ("street", street)):
            if max(port.read()) and name not in heard:
                heard[name] = number
            port.write(LOUD if number == 30 else bytes(320))
    assert set(heard) == {"station", "street"}
    assert all(30 <= number <= 34 for number in heard.values())


def test_overrun_and_underrun_are_counted_and_survived(station: AlsaAudioPort) -> None:
    for _ in range(10):
        station.write(station.read())
    time.sleep(0.5)
    for _ in range(100):
        station.write(station.read())
    assert (station.overruns, station.underruns) == (1, 1)
    assert station.queued <= 2 * station.period


def test_an_hour_runs_without_a_gap_and_without_more_delay(station: AlsaAudioPort) -> None:
    for _ in range(
        60 * 50
    ):  # a minute is what fits in the test's time; the queue test has the rest
        station.write(station.read())
    assert (station.overruns, station.underruns) == (0, 0)
    assert station.queued <= 2 * station.period


def test_a_card_with_other_rates_is_taken_at_its_own() -> None:
    # The loopback knows nothing below 8 kHz.
    with AlsaAudioPort("hw:CARD=Loopback,DEV=0", rate=4000) as port:
        port.open()
        assert port.rate == 8000
        assert port.period == 160
        assert len(port.read()) == 320


def test_a_card_in_use_is_told() -> None:
    # The loopback has eight substreams: nine ports are one too many.
    with ExitStack() as ports:
        for _ in range(8):
            ports.enter_context(AlsaAudioPort("plughw:CARD=Loopback,DEV=0")).open()
        with pytest.raises(BoardError, match="busy"):
            AlsaAudioPort("plughw:CARD=Loopback,DEV=0").open()


def test_the_cards_of_this_machine_are_listed() -> None:
    assert "plughw:CARD=Loopback,DEV=0" in sound_cards()
    with pytest.raises(BoardError, match=r"plughw:9,0, capture.*plughw:CARD=Loopback,DEV=0"):
        AlsaAudioPort("plughw:9,0").open()


def test_volume_is_set_on_a_card_that_has_one() -> None:
    import alsaaudio

    port = AlsaAudioPort("plughw:CARD=Dummy,DEV=0", playback_volume=50, capture_volume=60)
    port.open()
    port.close()
    assert alsaaudio.Mixer("Master", device="hw:Dummy").getvolume(
        alsaaudio.PCM_PLAYBACK
    ) == pytest.approx([50, 50], abs=1)


def test_a_card_without_a_volume_names_what_it_has_and_works(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with AlsaAudioPort("plughw:CARD=Loopback,DEV=0", playback_volume=50) as port:
        port.open()
        port.read()
    assert "has no playback volume; its controls: " in caplog.text
