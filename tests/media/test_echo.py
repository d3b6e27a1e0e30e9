"""Echo: taken away with what was learned before, never the visitor; faults are said."""

import ctypes
import functools
import math
import random
import sys
import wave
from array import array
from collections.abc import Callable
from itertools import pairwise

import pytest
from doorboard.fake import VISITOR
from doorstation.errors import DoorstationError
from doorstation.media import speexdsp
from doorstation.media.echo import (
    Bend,
    Canceller,
    DriftFound,
    EchoDelay,
    Filter,
    Gate,
    HalfDuplex,
    Mode,
    Options,
    ReferenceLate,
    make,
)
from doorstation.media.pcm import audioop
from doorstation.media.resample import Resampler

from tests.media.rooms import (
    FRAME,
    RATE,
    added,
    delayed,
    fell_db,
    frames,
    heard,
    noise,
    seconds,
    voice,
)

LATE = 0.02
"""Seconds by which libspeexdsp's preprocessor is behind."""


@functools.cache
def far_end() -> bytes:
    return voice(12.0, seed=1)


@functools.cache
def visitor() -> bytes:
    """Six seconds of real words."""
    with wave.open(str(VISITOR)) as file:
        spoken, _ = audioop.ratecv(file.readframes(48000), 2, 1, 8000, RATE, None)
    return audioop.mul(spoken, 2, 0.5).ljust(12 * RATE, b"\0")[: 12 * RATE]


def run(canceller: Canceller, microphone: bytes, reference: bytes) -> bytes:
    pairs = zip(frames(microphone), frames(reference), strict=True)
    return b"".join(canceller.process(one, other) for one, other in pairs)


def canceller(mode: Mode = "speex", lead: float = 0.04) -> Canceller:
    made = make(Options(mode=mode), RATE)
    made.call_began(lead)
    return made


@pytest.mark.parametrize(("mode", "least"), [("speex", 35), ("aec3", 30), ("cascade", 30)])
def test_echo_is_taken_away_once_learned(mode: Mode, least: float) -> None:
    microphone = noise(heard(far_end()), 20)
    out = run(canceller(mode), microphone, far_end())
    assert len(out) == len(microphone)
    assert fell_db(seconds(microphone, 6, 12), seconds(out, 6, 12)) > least


def test_a_second_call_begins_with_what_the_first_one_learned() -> None:
    kept = canceller()
    microphone = noise(heard(far_end()), 20)
    run(kept, microphone, far_end())
    kept.call_began(0.04)
    out = run(kept, microphone, far_end())
    assert fell_db(seconds(microphone, 0.1, 0.5), seconds(out, 0.1, 0.5)) > 20


def test_a_visitor_who_talks_at_the_same_time_is_heard() -> None:
    both = canceller()
    far = far_end()
    run(both, noise(heard(far), 20), far)
    voiced = visitor()
    microphone = noise(added(seconds(heard(far), 0, 6), voiced), 20)
    out = run(both, microphone, seconds(far, 0, 6))
    late = seconds(delayed(voiced, LATE), 1, 6)
    # How much of the visitor is in what is sent.
    gain = audioop.findfactor(seconds(out, 1, 6), late)
    assert 20 * math.log10(gain) > -1


def test_a_visitor_alone_passes() -> None:
    alone = canceller()
    out = run(alone, noise(visitor(), 5), bytes(len(visitor())))
    late = seconds(delayed(visitor(), LATE), 1, 6)
    assert fell_db(late, seconds(out, 1, 6)) == pytest.approx(0, abs=1)


def test_the_gate_forgets_no_room_because_both_talk_for_long_but_where_it_changes() -> None:
    gate = Gate(RATE)

    def passed(heard: int, left: int) -> bool:
        """Whether a frame did, while the far end talked."""
        gate.decide(heard, left, far=1000)
        return gate.open

    assert [passed(1000, 150) for _ in range(200)][-1]
    louder_and_softer = [900, 700, 700, 600, 500, 400, 300, 180]
    for _ in range(500):
        assert all(passed(1400, left) for left in louder_and_softer)
    assert not [passed(1000, 600) for _ in range(500)][-1]


def driven(pcm: bytes) -> bytes:
    """By a cone that is pushed further than it is pulled, and not as far as it should."""
    out = array("h")
    for sample in array("h", pcm):
        x = sample / 32768
        out.append(round(32767 * max(-1.0, min(math.tanh(5 * x) / 5 + 0.75 * x * x, 1.0))))
    return out.tobytes()


@pytest.mark.parametrize(("loudspeaker", "speakers"), [(bytes, 1), (driven, 3)])
def test_the_filter_follows_the_cone_only_where_that_takes_more_away(
    loudspeaker: Callable[[bytes], bytes], speakers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = voice(12.0, seed=1, peak=12000.0)
    made = canceller()
    microphone = noise(heard(loudspeaker(far)), 20)
    run(made, microphone + microphone, far + far)
    worked: list[Filter] = []
    process = Filter.process

    def counted(echo: Filter, microphone: bytes, reference: bytes) -> bytes:
        worked.append(echo)
        return process(echo, microphone, reference)

    monkeypatch.setattr(Filter, "process", counted)
    out = run(made, microphone, far)
    assert {1 + len(echo._bends) for echo in worked} == {speakers}
    assert len(worked) == 600
    assert fell_db(seconds(microphone, 1, 12), seconds(out, 1, 12)) > 30


def test_the_filter_rests_while_the_far_end_listens_and_begins_where_it_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rested = canceller()
    far = far_end()
    microphone = noise(heard(far), 20)
    run(rested, microphone + microphone, far + far)
    worked: list[bytes] = []
    process = Filter.process

    def counted(echo: Filter, microphone: bytes, reference: bytes) -> bytes:
        worked.append(reference)
        return process(echo, microphone, reference)

    monkeypatch.setattr(Filter, "process", counted)
    out = run(rested, noise(seconds(visitor(), 0, 6), 5), noise(bytes(6 * RATE * 2), 8))
    assert len(worked) < 60  # of 300
    late = seconds(delayed(visitor(), LATE), 2, 6)
    assert fell_db(late, seconds(out, 2, 6)) == pytest.approx(0, abs=1)
    out = run(rested, microphone, far)
    assert fell_db(seconds(microphone, 0.1, 0.5), seconds(out, 0.1, 0.5)) > 20


def test_rest_and_its_end_make_no_click_on_a_card_that_captures_a_direct_voltage() -> None:
    made = make(Options(noise_suppression=False), RATE)
    far = bytes(2 * RATE * 2) + far_end()[: RATE * 2]
    microphone = noise(array("h", [1000] * (3 * RATE)).tobytes(), 5)
    out = array("h", run(made, microphone, far))
    loudest = max(abs(after - before) for before, after in pairwise(out[RATE // 2 :]))
    assert loudest < 60


@pytest.mark.parametrize("seed", range(5))
def test_a_filter_that_tones_lead_astray_makes_nothing_louder(seed: int) -> None:
    chance = random.Random(seed)

    def tone(frequency: float, peak: int, frames: int) -> bytes:
        turn, start = 2 * math.pi * frequency / RATE, chance.random() * 2 * math.pi
        return array(
            "h", (round(peak * math.sin(start + turn * i)) for i in range(frames))
        ).tobytes()

    # What concealment makes of a far end's tone: other phases and levels, in no order.
    far = b"".join(
        tone(1700, chance.choice([8800, 16000, 25000]), chance.randrange(4 * RATE // 50))
        for _ in range(150)
    )[: 2 * RATE * 3]
    microphone = tone(1000, 9000, len(far) // 2)
    made = make(Options(noise_suppression=False), RATE)
    made.call_began(0.06)
    out = frames(run(made, microphone, far))
    loudest = max(audioop.rms(frame, 2) for frame in out[5:])
    assert 20 * math.log10(loudest / audioop.rms(microphone, 2)) < 3.5


def drifting(pcm: bytes, ppm: float) -> bytes:
    """Played by a loudspeaker whose clock is faster by so much."""
    source = array("h", pcm)
    out = array("h")
    for i in range(len(source) - 64):
        place = i * (1 + ppm * 1e-6)
        whole = int(place)
        part = place - whole
        out.append(round(source[whole] * (1 - part) + source[whole + 1] * part))
    return out.tobytes().ljust(len(pcm), b"\0")


@pytest.mark.parametrize("ppm", [80.0, -80.0])
def test_a_loudspeaker_on_another_clock_is_followed(ppm: float) -> None:
    far = voice(20.0, seed=1)
    microphone = noise(heard(drifting(far, ppm)), 20)
    followed = canceller()
    out = run(followed, microphone, far)
    assert fell_db(seconds(microphone, 15, 20), seconds(out, 15, 20)) > 25
    found = followed.figures().drift_ppm
    assert found == pytest.approx(ppm, abs=15)
    assert any(isinstance(one, DriftFound) for one in followed.occurred)


def test_one_clock_is_not_taken_for_two() -> None:
    one = canceller()
    run(one, noise(heard(far_end()), 20), far_end())
    assert not any(isinstance(what, DriftFound) for what in one.occurred)


@pytest.mark.parametrize("mode", ["speex", "aec3", "cascade", "half_duplex", "off"])
def test_the_delay_is_measured_at_a_calls_start_in_every_mode(mode: Mode) -> None:
    measured = canceller(mode)
    run(measured, noise(heard(far_end(), 0.06), 20), far_end())
    [told] = [one for one in measured.occurred if isinstance(one, EchoDelay)]
    assert told.seconds == pytest.approx(0.06, abs=0.002)
    assert measured.figures().delay_ms == pytest.approx(60, abs=2)


def test_a_card_that_reports_too_much_delay_is_not_believed() -> None:
    fooled = canceller(lead=0.1)
    microphone = noise(heard(far_end(), 0.02), 20)
    out = run(fooled, microphone, far_end())
    assert fell_db(seconds(microphone, 8, 12), seconds(out, 8, 12)) > 30


@pytest.mark.parametrize(
    ("seconds", "figure", "or_more"),
    [(0.02, 0.02, False), (0.07, 0.045, True), (0.1, 0.045, True), (0.29, 0.045, True)],
)
def test_a_reference_that_comes_after_its_echo_is_a_fault_that_is_told(
    seconds: float, figure: float, or_more: bool
) -> None:
    late = canceller("off")
    far = far_end() + far_end()
    run(late, noise(delayed(heard(far, 0.0), -seconds), 20), far)
    [told] = late.occurred
    assert isinstance(told, ReferenceLate)
    assert told.seconds == pytest.approx(figure, abs=0.003)
    assert told.or_more == or_more
    assert late.figures().late
    late.call_began(0.04)
    assert not late.figures().late


def test_a_street_without_an_echo_is_no_echo_that_was_left() -> None:
    far_away = make(Options(noise_suppression=False), RATE)
    run(far_away, noise(bytes(len(far_end())), 300), far_end())
    assert far_away.figures().erle_db is None
    near = make(Options(noise_suppression=False), RATE)
    run(near, noise(heard(far_end()), 20), far_end())
    assert (near.figures().erle_db or 0.0) > 20


def test_half_duplex_turns_the_microphone_down_while_the_far_end_talks_and_holds() -> None:
    options = Options(
        mode="half_duplex",
        noise_suppression=False,
        half_duplex=HalfDuplex(threshold_dbfs=-40, hold=0.1, attenuation_db=20),
    )
    switched = make(options, RATE)
    loud = array("h", [4000, -4000] * 160).tobytes()
    quiet = bytes(FRAME)
    levels = []
    for reference in [quiet] * 3 + [loud] * 3 + [quiet] * 10:
        levels.append(audioop.rms(switched.process(loud, reference), 2))
    assert levels[:3] == [4000] * 3
    assert levels[4:11] == [400] * 7
    assert levels[13:] == [4000] * 3


def sine(frequency: float, peak: float) -> bytes:
    step = 2 * math.pi * frequency / RATE
    return array("h", (round(peak * math.sin(step * i + 0.4)) for i in range(320))).tobytes()


def strength(pcm: bytes, frequency: float) -> float:
    """Peak of one frequency in it."""
    step = 2 * math.pi * frequency / RATE
    wave_of = array("h", pcm)
    across = sum(value * math.sin(step * i) for i, value in enumerate(wave_of))
    along = sum(value * math.cos(step * i) for i, value in enumerate(wave_of))
    return 2 * math.hypot(across, along) / len(wave_of)


@pytest.mark.parametrize(
    ("power", "harmonic", "peak"), [(2, 1000, 3 * 0.125), (3, 1500, 8 * 0.03125)]
)
def test_a_bend_is_the_harmonic_of_a_driven_cone_without_a_copy_of_the_sound(
    power: int, harmonic: float, peak: float
) -> None:
    bend = Bend(power, {2: 3.0, 3: 8.0}[power])
    pcm = sine(500, 16384)
    for _ in range(5):
        out = bend.process(pcm, audioop.rms(pcm, 2))
    assert strength(out, 500) < 0.01 * 32768
    assert strength(out, harmonic) == pytest.approx(peak * 32768, rel=0.05)


@pytest.mark.parametrize("bends", [True, False])
@pytest.mark.parametrize(
    ("microphone", "reference"), [(638, 640), (640, 638), (640, 0), (642, 640)]
)
def test_the_filter_reads_nothing_beyond_what_it_is_given(
    bends: bool, microphone: int, reference: int
) -> None:
    made = Filter(RATE, bends=bends)
    with pytest.raises(ValueError, match="640 needed"):
        made.process(bytes(microphone), bytes(reference))
    made.close()


def test_off_without_noise_suppression_changes_nothing() -> None:
    off = make(Options(mode="off", noise_suppression=False), RATE)
    pcm = voice(0.02, seed=9)
    assert off.process(pcm, pcm) == pcm


def test_noise_is_suppressed_without_an_echo_to_cancel() -> None:
    quiet = canceller("off")
    hiss = noise(bytes(2 * 3 * RATE), 200)
    out = run(quiet, hiss, bytes(len(hiss)))
    assert fell_db(seconds(hiss, 2, 3), seconds(out, 2, 3)) > 10


def test_eight_kilohertz_is_cancelled_too() -> None:
    far = Resampler(RATE, 8000).process(far_end())
    microphone = Resampler(RATE, 8000).process(noise(heard(far_end()), 20))
    narrow = make(Options(), 8000)
    narrow.call_began(0.04)
    out = b"".join(
        narrow.process(one, other)
        for one, other in zip(frames(microphone, 320), frames(far, 320), strict=True)
    )
    assert fell_db(microphone[96000:], out[96000:]) > 30


@pytest.mark.parametrize("mode", ["speex", "cascade", "off"])
def test_without_the_library_the_error_names_the_package(
    mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> ctypes.CDLL:
        raise OSError(name)

    speexdsp.library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(DoorstationError, match="libspeexdsp1"):
        make(Options(mode=mode), RATE)
    speexdsp.library.cache_clear()


def test_a_library_of_that_name_without_a_canceller_is_named_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Empty:
        pass

    speexdsp.library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Empty())
    with pytest.raises(DoorstationError, match="speex_echo_state_init_mc"):
        make(Options(), RATE)
    speexdsp.library.cache_clear()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with pytest.raises(DoorstationError, match=r"doorstation\[aec3\]"):
        make(Options(mode="aec3"), RATE)


def test_closing_twice_is_harmless() -> None:
    for mode in ("speex", "aec3", "cascade", "half_duplex", "off"):
        made = canceller(mode)
        made.close()
        made.close()
