"""The sound between card and calls, without a card: rates, and where the reference comes from."""

import math
from array import array

import pytest
from doorstation.media.echo import Figures
from doorstation.media.path import RATE, EchoPath
from doorstation.media.pcm import audioop


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

    def figures(self) -> Figures:
        return Figures()


def tone(rate: int, periods: int) -> list[bytes]:
    samples = rate // 50
    wave = [round(9000 * math.sin(2 * math.pi * 1000 * n / rate)) for n in range(samples * periods)]
    return [array("h", wave[at : at + samples]).tobytes() for at in range(0, len(wave), samples)]


@pytest.mark.parametrize("rate", [8000, 16000, 32000, 44100, 48000])
def test_both_directions_are_sixteen_kilohertz_inside(rate: int) -> None:
    path = EchoPath(Recorder())
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
    path = EchoPath(recorder)
    path.card_opened(rate)
    heard = []
    for period in tone(rate, 10):
        # A loudspeaker right in the microphone: what was written is what is captured next.
        heard.append(path.heard(period))
        path.written(period)
    assert recorder.references[1:] == heard[:-1]


def test_a_period_more_or_none_is_handed_on_as_it_was_written() -> None:
    recorder = Recorder()
    path = EchoPath(recorder)
    path.card_opened(RATE)
    for taken in (bytes(640), b"", bytes(642), bytes(1280)):
        path.written(taken)
        path.heard(bytes(640))
    assert [len(one) for one in recorder.references] == [640, 0, 642, 1280]


def test_a_call_begins_without_what_was_written_before_it() -> None:
    recorder = Recorder()
    path = EchoPath(recorder)
    path.written(bytes(640))
    path.call_began(0.02)
    path.heard(bytes(640))
    assert (recorder.leads, recorder.references) == ([0.02], [b""])


def test_a_card_that_comes_back_at_another_rate_is_converted_anew() -> None:
    path = EchoPath(Recorder())
    path.card_opened(48000)
    path.heard(bytes(1920))
    path.card_opened(8000)
    assert len(path.heard(bytes(320))) == 640
    assert len(path.sounding(bytes(640))) == 320
