"""The sound between card and calls, without a card: rates, and where the reference comes from."""

from array import array
from random import Random

import pytest
from doorstation.media import echo
from doorstation.media.levels import MicrophoneLevels, SpeakerLevels
from doorstation.media.path import RATE, Options, SoundPath
from doorstation.media.pcm import audioop

from tests.support.sounds import sine

PLAIN = Options(echo.Options("off", False), MicrophoneLevels(gain_control=False))


class Recorder:
    """Cancels nothing, and remembers."""

    def __init__(self) -> None:
        self.occurred: list[object] = []
        self.leads: list[float] = []
        self.references: list[bytes] = []

    def call_began(self, lead: float) -> None:
        self.leads.append(lead)

    def process(self, microphone: bytes, reference: bytes) -> bytes:
        assert len(microphone) == RATE // 25
        self.references.append(reference)
        return microphone

    def close(self) -> None:
        """Nothing is held."""

    def figures(self) -> echo.Figures:
        return echo.Figures()


def tone(rate: int, periods: int) -> list[bytes]:
    count = rate // 50
    return [sine(1000, count, rate, begin=count * number) for number in range(periods)]


@pytest.mark.parametrize("rate", [8000, 16000, 32000, 44100, 48000])
def test_both_directions_are_sixteen_kilohertz_inside(rate: int) -> None:
    path = SoundPath(PLAIN, Recorder())
    path.card_opened(rate)
    heard = [path.heard(period) for period in tone(rate, 10)]
    assert {len(period) for period in heard} == {640}
    assert all(6000 < audioop.rms(period, 2) < 6700 for period in heard[1:])
    played = [path.sounding(period) for period in tone(RATE, 10)]
    assert {len(period) for period in played} == {rate // 25}
    assert all(6000 < audioop.rms(period, 2) < 6700 for period in played[1:])


@pytest.mark.parametrize("rate", [16000, 48000])
def test_the_reference_comes_by_the_microphones_way(rate: int) -> None:
    recorder = Recorder()
    path = SoundPath(PLAIN, recorder)
    path.card_opened(rate)
    heard = []
    for period in tone(rate, 10):
        # A loudspeaker right in the microphone: what was written is what is captured next.
        heard.append(path.heard(period))
        path.written(period)
    assert recorder.references[1:] == heard[:-1]


def test_a_period_more_or_none_is_handed_on_as_it_was_written() -> None:
    recorder = Recorder()
    path = SoundPath(PLAIN, recorder)
    path.card_opened(RATE)
    for taken in (bytes(640), b"", bytes(642), bytes(1280)):
        path.heard(bytes(640))
        path.written(taken)
    path.heard(bytes(640))
    assert [len(one) for one in recorder.references] == [640, 640, 0, 642, 1280]


def test_a_card_that_comes_back_at_another_rate_is_converted_anew() -> None:
    path = SoundPath(PLAIN, Recorder())
    path.card_opened(48000)
    path.heard(bytes(1920))
    path.card_opened(8000)
    assert len(path.heard(bytes(320))) == 640
    assert len(path.sounding(bytes(640))) == 320


def test_voice_and_tone_together_are_limited_and_never_clip() -> None:
    path = SoundPath(PLAIN, Recorder())
    loud = array("h", [32000] * 320).tobytes()
    assert audioop.max(path.mixed(loud, loud), 2) < 32000
    assert path.mixed(None, None) == bytes(640)
    (one,) = tone(RATE, 1)
    path = SoundPath(PLAIN, Recorder())
    assert path.mixed(None, one) == path.mixed(one, None) == one


def test_only_what_changes_no_sound_needs_no_path() -> None:
    assert PLAIN.idle
    assert not Options().idle
    assert not Options(echo.Options("speex", False), PLAIN.microphone).idle
    assert not Options(echo.Options("off", True), PLAIN.microphone).idle
    assert not Options(PLAIN.canceller, MicrophoneLevels()).idle
    assert not Options(PLAIN.canceller, PLAIN.microphone, SpeakerLevels(3.0)).idle


@pytest.mark.parametrize("rate", [16000, 48000])
def test_what_the_microphone_hears_of_the_loudspeaker_is_not_sent(rate: int) -> None:
    """The standard mode; 20 ms in the card's queue, a quarter of a millisecond through the air."""
    path = SoundPath(Options())
    path.card_opened(rate)
    path.call_began(0.02)
    period = rate // 50
    room = array("h", bytes(2 * (2 * period + rate // 4000)))
    random = Random(5)
    sent: list[int] = []
    for tick in range(400):
        captured, room = room[:period], room[period:]
        sent.append(audioop.rms(path.heard(captured.tobytes()), 2))
        talk = 6000 if tick % 50 < 35 else 0
        far = array("h", (round(random.uniform(-talk, talk)) for _ in range(320))).tobytes()
        taken = path.sounding(path.mixed(far, None))
        path.written(taken)
        room.frombytes(audioop.mul(taken, 2, 0.25))
    assert max(sent[:20]) > 100, "before it has learned"
    assert max(sent[300:]) < 20, "of the 860 that are heard"
    assert path.canceller.figures().delay_ms == pytest.approx(20.25, abs=1.0)
