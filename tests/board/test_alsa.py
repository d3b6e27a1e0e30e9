"""The ALSA driver on the real alsa-lib; the card is a sound server's (tests/support)."""

import os
import select
import socket
import threading
import wave
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alsaaudio
import pytest
from doorboard import alsa
from doorboard.alsa import AlsaAudioPort, mixer_device, sound_cards
from doorboard.fake import VISITOR
from doorboard.interfaces import AudioPort, BoardError

from tests.support.sound_server import SoundServer
from tests.support.sounds import likeness as likeness_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoundServer]:
    with SoundServer(tmp_path_factory.mktemp("sound")) as made:
        before = {name: os.environ.get(name) for name in made.env}
        os.environ.update(made.env)
        yield made
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture
def port(server: SoundServer) -> Iterator[AlsaAudioPort]:
    with AlsaAudioPort("station") as made:
        yield made


def likeness(said: bytes, heard: bytes) -> float:
    return likeness_of(said, heard, piece_seconds=0.3)


def samples_of(path: Path) -> bytes:
    with wave.open(str(path), "rb") as file:
        return file.readframes(file.getnframes())


def test_the_measure_of_likeness_tells_a_voice_from_another_sound() -> None:
    said = samples_of(VISITOR)
    assert likeness(said, said[16000:48000]) > 0.999
    backwards = array("h", said[16000:48000])
    backwards.reverse()
    assert likeness(said, backwards.tobytes()) < 0.7
    assert likeness(said, bytes(32000)) == 0.0


def play(port: AudioPort, sound: bytes, periods: int) -> bytes:
    """Run the card for some periods with a sound on the loudspeaker; returns the microphone."""
    size, heard = 2 * port.period, []
    for number in range(periods):
        heard.append(port.read())
        port.write(sound[number * size :][:size].ljust(size, b"\0"))
    return b"".join(heard)


def test_what_is_said_to_the_microphone_is_heard(server: SoundServer, port: AlsaAudioPort) -> None:
    port.open()
    speaker = server.speak(VISITOR)
    heard = play(port, b"", 200)
    speaker.terminate()
    speaker.wait(5)
    assert likeness(samples_of(VISITOR), heard) > 0.9


def test_what_is_played_comes_out_of_the_loudspeaker(
    server: SoundServer, port: AlsaAudioPort, tmp_path: Path
) -> None:
    said = samples_of(VISITOR)
    with server.recorded(tmp_path / "speaker.wav"):
        port.open()
        play(port, said, 200)
    with open(tmp_path / "speaker.wav", "rb") as file:  # its header may lack the length
        heard = file.read()[44:]
    assert likeness(said, heard[: len(heard) // 2 * 2]) > 0.9


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_a_period_is_20_ms_at_any_rate(server: SoundServer, rate: int) -> None:
    with AlsaAudioPort("station", rate=rate) as port:
        port.open()
        assert (port.rate, port.period) == (rate, rate // 50)
        assert len(port.read()) == 2 * port.period
        with pytest.raises(ValueError, match="needed"):
            port.write(bytes(10))


def test_the_queue_before_the_loudspeaker_stays_two_periods(port: AlsaAudioPort) -> None:
    port.open()
    levels = []
    for _ in range(100):
        port.read()
        port.write(bytes(320))
        levels.append(port.queued)
    # Of a busy machine's late wake-ups only the median is the driver's.
    assert sorted(levels)[50] <= 3 * port.period


def test_sound_from_before_the_opening_is_dropped(server: SoundServer, port: AlsaAudioPort) -> None:
    port.open()
    port._capture.read()
    threading.Event().wait(0.3)  # the server keeps all that while
    port._drop_captured()
    assert port._capture.avail() < port.period


def test_a_hold_up_is_counted_and_survived_on_both_sides(port: AlsaAudioPort) -> None:
    port.open()
    play(port, b"", 5)
    before = port.underruns
    threading.Event().wait(1.0)
    play(port, b"", 100)
    assert port.underruns > before
    assert port.overruns >= 1
    assert port._capture.avail() < 4 * port.period


def test_only_what_the_card_took_is_told_as_played(
    port: AlsaAudioPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an echo canceller's reference would fall behind by what did not fit."""

    class Full:
        def __init__(self) -> None:
            self.room = iter([port.period, port.period, -32])
            self.takes = iter([40, 0, -32, 120])

        def avail(self) -> int:
            return next(self.room)

        def write(self, data: bytes) -> int:
            return next(self.takes)

    port.open()
    sound = bytes(range(160)) * 2
    with monkeypatch.context() as patched:
        patched.setattr(port, "_playback", Full())
        assert port.write(sound) == sound[:80]
        assert port.write(sound) == b""
        assert len(port.write(sound)) == 240


def test_a_card_pulled_out_fails_at_once_and_works_again_when_it_is_back(
    server: SoundServer, port: AlsaAudioPort
) -> None:
    port.open()
    play(port, b"", 3)
    server.kill()
    try:
        with pytest.raises(BoardError, match="sound card station is gone"):
            play(port, b"", 50)
        with pytest.raises(BoardError, match="not open"):
            port.read()
        with pytest.raises(BoardError, match="station"):
            port.open()
    finally:
        server.start()
    port.open()
    play(port, b"", 3)


def test_a_card_that_does_not_exist_is_told_with_those_that_do(server: SoundServer) -> None:
    with pytest.raises(BoardError, match=r"sound card nonesuch, capture: .*there are: .*station"):
        AlsaAudioPort("nonesuch").open()
    with pytest.raises(BoardError, match="sound card nonesuch, playback"):
        AlsaAudioPort("station", playback_device="nonesuch").open()


def test_the_list_of_cards_leaves_out_what_nobody_means(server: SoundServer) -> None:
    cards = sound_cards()
    assert "station" in cards
    assert "null" not in cards


def test_volumes_are_set_at_the_opening(server: SoundServer) -> None:
    import alsaaudio

    with AlsaAudioPort("station", playback_volume=40, capture_volume=70) as port:
        port.open()
    assert alsaaudio.Mixer("Master", device="station").getvolume()[0] == 40
    assert alsaaudio.Mixer("Capture", device="station").getvolume()[0] == 70


def test_a_card_without_that_volume_is_used_as_it_is(
    server: SoundServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alsaaudio, "mixers", lambda **_: [])
    with AlsaAudioPort("station", playback_volume=40, capture_volume=70) as port:
        port.open()
        assert len(port.read()) == 2 * port.period
    for direction in ("playback", "capture"):
        assert f"has no {direction} volume; its controls: none; it stays as it is" in caplog.text


@pytest.mark.parametrize(
    ("device", "mixer"),
    [
        ("plughw:CARD=Device,DEV=0", "hw:Device"),
        ("plughw:1,0", "hw:1"),
        ("hw:CARD=wm8960soundcard", "hw:wm8960soundcard"),
        ("default", "default"),
        ("station", "station"),
    ],
)
def test_the_mixer_belongs_to_the_card(device: str, mixer: str) -> None:
    assert mixer_device(device) == mixer


def test_a_closed_port_may_be_closed_again_and_opened(port: AlsaAudioPort) -> None:
    port.close()
    port.open()
    port.close()
    port.close()
    port.open()
    assert len(port.read()) == 320


class Insisting:
    """alsaaudio's PCM of a card that knows 48 kHz only."""

    def __init__(self, kind: int, mode: int, *, periodsize: int, **asked: object) -> None:
        self.periodsize = periodsize
        self.asked = asked

    def info(self) -> dict[str, object]:
        return {
            "rate": 48000,
            "channels": 1,
            "format": alsaaudio.PCM_FORMAT_S16_LE,
            "period_size": self.periodsize,
            "buffer_size": 4 * self.periodsize,
        }

    def close(self) -> None: ...
    def drop(self) -> None: ...


@pytest.mark.parametrize("asked", [8000, 16000, 44100, 48000])
def test_a_card_that_runs_at_48_khz_only_is_used_at_48_khz(
    asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alsaaudio, "PCM", Insisting)
    monkeypatch.setattr(AlsaAudioPort, "_start", lambda self: None)
    port = AlsaAudioPort("hw:Codec", rate=asked)
    port.open()
    assert (port.rate, port.period) == (48000, 960)
    port.close()


class Dumb(Insisting):
    """alsaaudio's PCM of a card whose clock stands still."""

    def __init__(self, *arguments: Any, **asked: Any) -> None:
        super().__init__(*arguments, **asked)
        self.end, self.other = socket.socketpair()

    def read(self) -> tuple[int, bytes]:
        return 0, b""

    def write(self, data: bytes) -> int:
        return len(data) // 2

    def avail(self) -> int:
        return 0

    def polldescriptors(self) -> list[tuple[int, int]]:
        return [(self.end.fileno(), select.POLLIN)]

    def close(self) -> None:
        self.end.close()
        self.other.close()


def test_a_card_that_gives_no_sound_is_none_and_is_told_at_the_opening(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alsaaudio, "PCM", Dumb)
    monkeypatch.setattr(alsa, "SILENCE_MS", 10)
    with pytest.raises(BoardError, match="sound card hw:Codec is gone: no sound for 20 ms"):
        AlsaAudioPort("hw:Codec", rate=48000).open()
