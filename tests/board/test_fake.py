import wave
from pathlib import Path

import pytest
from doorboard.fake import VISITOR, FakeAudioPort, FakeBoard, FakeRelay, load_microphone
from doorboard.interfaces import (
    AudioPort,
    BoardError,
    Button,
    ButtonEvent,
    Contact,
    Indicator,
    Reader,
    ReaderEvent,
    Relay,
)


class Clock:
    """Virtual time: sleeping takes none."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def port(clock: Clock, **settings: object) -> FakeAudioPort:
    made = FakeAudioPort(clock=clock, sleep=clock.sleep, **settings)  # type: ignore[arg-type]
    made.open()
    return made


def wav(path: Path, samples: bytes, *, rate: int = 8000, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(samples)
    return path


def test_the_fake_board_has_every_part_of_a_real_one() -> None:
    with FakeBoard() as board:
        button: Button = board.button("call")
        contact: Contact = board.contact("leaf")
        relay: Relay = board.relay("door")
        indicator: Indicator = board.indicator("led")
        reader: Reader = board.reader("cards")
        audio: AudioPort = board.audio()
        assert board.buttons["call"] is button
        assert board.contacts["leaf"] is contact
        assert board.relays["door"] is relay
        assert board.indicators["led"] is indicator
        assert board.readers["cards"] is reader
        assert board.ports["default"] is audio
        assert board.button("call") is button


def test_a_finger_on_the_button() -> None:
    clock = Clock()
    seen: list[ButtonEvent] = []
    with FakeBoard(clock=clock) as board:
        button = board.button("call")
        button.watch(seen.append)
        button.press()
        button.press()
        clock.now += 1
        button.release()
        button.hold()
        button.stick()
        button.release()
    assert seen[:2] == [ButtonEvent("pressed", 100.0), ButtonEvent("released", 101.0)]
    assert [event.kind for event in seen[2:]] == ["pressed", "held", "stuck", "released", "freed"]


def test_the_relay_counts_pulses_and_reports_changes() -> None:
    changes: list[bool] = []
    relay = FakeRelay()
    relay.watch(lambda on, at: changes.append(on))
    relay.energise()
    relay.energise()
    relay.release()
    relay.energise()
    relay.expire()
    assert (relay.pulses, relay.on) == (2, False)
    assert changes == [True, False, True, False]


def test_closing_releases_the_relay() -> None:
    relay = FakeRelay()
    relay.energise()
    relay.close()
    relay.close()
    assert not relay.on
    with pytest.raises(BoardError, match="closed"):
        relay.energise()


def test_the_led_knows_its_patterns_and_its_past() -> None:
    with FakeBoard() as board:
        led = board.indicator("led")
        led.show("ringing")
        led.show("ringing")
        led.show("in_call")
        assert list(led.history) == ["off", "ringing", "in_call"]
        with pytest.raises(ValueError, match="disco"):
            led.show("disco")


def test_cards_and_keys_come_from_the_reader() -> None:
    seen: list[ReaderEvent] = []
    with FakeBoard(clock=Clock()) as board:
        reader = board.reader("cards")
        reader.watch(seen.append)
        reader.present("0a00f8d3c5")
        reader.type("1234")
        reader.type("12*4711#")
        reader.type("4711*")
        reader.unplug()
        reader.plug()
    assert [(event.kind, event.value) for event in seen] == [
        ("card", "0A00F8D3C5"),
        ("keys", "1234"),
        ("keys", "4711"),
        ("unplugged", ""),
        ("back", ""),
    ]


def test_periods_end_at_start_plus_n_times_20_ms_however_late_the_reader_was() -> None:
    clock = Clock()
    audio = port(clock)
    ends = []
    for late in (0.0, 0.013, 0.0, 0.019, 0.0) * 100:
        audio.read()
        audio.write(bytes(320))
        ends.append(clock.now)
        clock.now += late
    assert ends[-1] == pytest.approx(100.0 + 500 * 0.02)
    assert (audio.overruns, audio.underruns) == (0, 0)


def test_a_reader_held_up_for_long_loses_sound_and_goes_on() -> None:
    clock = Clock()
    audio = port(clock)
    audio.read()
    audio.write(bytes(320))
    clock.now += 1.0
    audio.read()
    assert audio.overruns == 1
    for _ in range(10):
        audio.read()
        audio.write(bytes(320))
    assert audio.overruns == 1


def test_a_loudspeaker_without_food_runs_dry() -> None:
    audio = port(Clock())
    audio.read()
    audio.write(bytes(320))
    for _ in range(5):
        audio.read()
    assert audio.underruns == 3


def test_the_microphone_plays_a_file_once_and_then_is_silent(tmp_path: Path) -> None:
    audio = port(Clock())
    audio.speak(wav(tmp_path / "one.wav", b"\x01\x00" * 200))
    assert audio.read() == b"\x01\x00" * 160
    assert audio.read() == b"\x01\x00" * 40 + bytes(240)
    assert audio.read() == bytes(320)


def test_the_microphone_loops_and_can_be_hushed(tmp_path: Path) -> None:
    audio = port(Clock(), microphone=wav(tmp_path / "one.wav", b"\x01\x00" * 320))
    assert [audio.read() for _ in range(5)] == [b"\x01\x00" * 160] * 5
    audio.hush()
    assert audio.read() == bytes(320)


def test_the_loudspeaker_remembers_the_last_seconds(tmp_path: Path) -> None:
    audio = port(Clock(), remember=0.06)
    for value in range(5):
        audio.read()
        audio.write(bytes([value, 0]) * 160)
    assert audio.heard() == b"".join(bytes([value, 0]) * 160 for value in (2, 3, 4))


def test_an_unplugged_card_fails_at_once_and_opens_again_when_it_is_back() -> None:
    audio = port(Clock())
    audio.unplug()
    with pytest.raises(BoardError, match="unplugged"):
        audio.read()
    with pytest.raises(BoardError, match="unplugged"):
        audio.open()
    audio.plug()
    audio.open()
    assert len(audio.read()) == 320


def test_a_closed_card_neither_hears_nor_speaks() -> None:
    audio = port(Clock())
    audio.close()
    audio.close()
    with pytest.raises(BoardError, match="not open"):
        audio.read()
    with pytest.raises(BoardError, match="not open"):
        audio.write(bytes(320))


def test_a_file_of_another_shape_is_refused_with_both_shapes(tmp_path: Path) -> None:
    stereo = wav(tmp_path / "cd.wav", bytes(8), rate=44100, channels=2)
    with pytest.raises(BoardError, match="2 channels of 2 bytes at 44100 Hz, 1 channel"):
        load_microphone(stereo, 8000)
    with pytest.raises(BoardError, match=r"none\.wav"):
        load_microphone(tmp_path / "none.wav", 8000)


def test_the_visitor_speaks_for_about_eight_seconds() -> None:
    samples = load_microphone(VISITOR, 8000)
    assert 7 < len(samples) / 16000 < 10
    assert VISITOR.stat().st_size <= 150_000
    assert max(samples[1::2]) > 0x10
