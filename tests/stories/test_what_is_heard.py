"""What the visitor hears and sees, and the resident hears: sounds at the loudspeakers, the light,
the record. A door and a phone of ours on loopback, in real time."""

import asyncio
import logging
import socket
from array import array
from pathlib import Path
from typing import cast

import pytest
from doorboard.fake import FakeRelay
from doorboard.interfaces import BoardError
from doorstation.media.tones import player
from doorstation.media.wav import parse_wav
from doorstation.sound import PROMPTS

from tests.support.sounds import likeness, sine
from tests.support.two_stations import CALL_BUTTON, Side, seconds_of, silent, two_stations
from tests.support.wav import wav_bytes

RINGBACK = BUSY = 425
ERROR = (950, 1400, 1800)
REFUSED = (300, 220)
OPENED = (800, 1200)
WARNING = 1400
BELL = (660, 528)

RELAY = '[relays.door]\ncodes = ["4711"]\npulse = 0.5\n'
READER = '[readers.gate]\nopens = "door"\naccepts = ["0A1B2C3D4E"]\n'
CARD = "0A1B2C3D4E"


def tone(path: Path, frequency: float, seconds: float, rate: int = 8000, channels: int = 1) -> Path:
    samples = memoryview(sine(frequency, round(seconds * rate), rate)).cast("h")
    pcm = array("h", (sample for sample in samples for _ in range(channels)))
    path.write_bytes(wav_bytes(pcm.tobytes(), rate, channels=channels))
    return path


async def talk(door: Side, phone: Side) -> None:
    door.press()
    await phone.until("ringing")
    await phone.ask("answer")
    await door.until("talking")


async def both_listen(door: Side, phone: Side, seconds: float) -> tuple[bytes, bytes]:
    heard, far = await asyncio.gather(door.listen(seconds), phone.listen(seconds))
    return heard, far


async def test_ringback_is_heard_from_the_press_to_the_answer(tmp_path: Path) -> None:
    async with two_stations(tmp_path) as (door, phone):
        assert door.light == "idle"
        door.press()
        heard = await door.listen(0.6)
        assert seconds_of(heard, RINGBACK) > 0.4
        assert door.light == "ringing"
        await phone.until("ringing")
        await phone.ask("answer")
        await door.until("talking")
        assert door.light == "in_call"
        await door.listen(0.1)
        assert silent(await door.listen(0.5))


async def test_early_media_takes_the_place_of_the_ringback_and_is_heard(tmp_path: Path) -> None:
    hum = tone(tmp_path / "hum.wav", 1000, 2)
    audio = f'[audio]\nrate = 8000\nmicrophone = "{hum}"\n'
    async with two_stations(tmp_path, phone=audio) as (door, phone):
        door.press()
        await phone.until("ringing")
        assert seconds_of(await door.listen(0.3), RINGBACK) > 0.2
        await phone.ask("progress")
        await door.listen(0.3)
        assert seconds_of(await door.listen(0.5), 1000) > 0.4
        await phone.ask("reject", code=603)
        await door.until("idle")
        heard = await door.listen(1.0)
        assert seconds_of(heard, BUSY) > 0.4
        assert seconds_of(heard, 1000) == 0


@pytest.mark.parametrize(("code", "rule"), [(486, "busy"), (603, "declined")])
async def test_a_visitor_who_is_not_answered_hears_busy_for_three_seconds_and_no_longer(
    tmp_path: Path, code: int, rule: str
) -> None:
    async with two_stations(tmp_path) as (door, phone):
        door.press()
        await phone.until("ringing")
        await phone.ask("reject", code=code)
        await door.until("idle")
        heard = await door.listen(3.4)
        assert 1.3 < seconds_of(heard, BUSY) < 1.7, "on for half of three seconds"
        assert silent(await door.listen(0.5))
        assert door.light == "idle"
        assert (await door.events("call_failed"))[-1]["rule"] == rule


async def test_a_phone_that_cannot_be_reached_is_heard_and_seen_as_a_fault(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    button = f'[buttons.call]\nsteps = [{{ ring = ["sip:x@127.0.0.1:{port}"] }}]\n'
    async with two_stations(tmp_path, button) as (door, _):
        door.press()
        heard = await door.listen(1.6)
        for frequency in ERROR:
            assert seconds_of(heard, frequency) > 0.2, frequency
        assert door.light == "fault"
        assert (await door.events("call_failed"))[-1]["rule"] == "unreachable"


async def test_without_registration_a_press_is_heard_and_seen_as_a_fault(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        registrar = f"127.0.0.1:{nobody.getsockname()[1]}"
    account = f'[account]\nuser = "door"\ndomain = "house.test"\nregistrar = "{registrar}"\n'
    button = '[buttons.call]\nsteps = [{ ring = ["**9"] }]\n'
    async with two_stations(tmp_path, account + button) as (door, _):
        await door.until_light("fault")
        door.press()
        heard = await door.listen(1.2)
        for frequency in ERROR:
            assert seconds_of(heard, frequency) > 0.2, frequency
        assert seconds_of(heard, RINGBACK) == 0
        assert (await door.events("call_failed"))[-1]["rule"] == "not_registered"


async def test_a_reader_that_is_pulled_out_is_seen_until_it_is_back(tmp_path: Path) -> None:
    async with two_stations(tmp_path, RELAY + READER) as (door, _):
        door.reader.unplug()
        await door.until_light("fault")
        door.reader.plug()
        await door.until_light("idle")
        assert [each["state"] for each in await door.events("reader")] == ["unplugged", "back"]


async def test_the_right_code_is_heard_at_both_ends_and_seen(tmp_path: Path) -> None:
    async with two_stations(tmp_path, CALL_BUTTON + RELAY) as (door, phone):
        await talk(door, phone)
        await phone.ask("dtmf", digits="471")
        await phone.listen(0.8)
        assert door.light == "in_call"
        await phone.ask("dtmf", digits="1")
        heard, far = await both_listen(door, phone, 0.9)
        for frequency in OPENED:
            assert seconds_of(heard, frequency) > 0.05, frequency
            assert seconds_of(far, frequency) > 0.05, frequency
        assert await door.events("release")
        assert door.lights[-2:] == ["door_open", "in_call"]


async def test_a_wrong_code_and_the_lock_out_are_heard_at_both_ends(tmp_path: Path) -> None:
    settings = CALL_BUTTON + RELAY + "[door]\nwrong_codes = 1\n"
    async with two_stations(tmp_path, settings) as (door, phone):
        await talk(door, phone)
        for rule in ("wrong_code", "locked_out"):
            await phone.ask("dtmf", digits="9999#" if rule == "locked_out" else "9999")
            heard, far = await both_listen(door, phone, 1.9)
            for frequency in REFUSED:
                assert seconds_of(heard, frequency) > 0.05, (rule, frequency)
                assert seconds_of(far, frequency) > 0.05, (rule, frequency)
            assert (await door.events("code"))[-1]["rule"] == rule
        assert len(await door.events("lock_out")) == 1
        assert door.light == "in_call"


async def test_the_door_is_heard_to_open_though_the_call_ends_at_that_moment(
    tmp_path: Path,
) -> None:
    async with two_stations(tmp_path, CALL_BUTTON + RELAY + READER) as (door, phone):
        await talk(door, phone)
        door.present(CARD)
        await door.listen(0.04)
        await phone.ask("hangup")
        heard = await door.listen(1.0)
        assert seconds_of(heard, OPENED[1]) > 0.2
        assert silent(await door.listen(0.3))
        assert door.light == "idle"


async def test_another_button_in_a_talk_is_refused_and_the_talk_goes_on(tmp_path: Path) -> None:
    back = CALL_BUTTON.replace("call", "back")
    async with two_stations(tmp_path, CALL_BUTTON + back) as (door, phone):
        await talk(door, phone)
        door.press("back")
        heard = await door.listen(0.9)
        for frequency in REFUSED:
            assert seconds_of(heard, frequency) > 0.05, frequency
        assert door.station.commands.status()["door"] == "talking"
        assert (await door.events("press"))[-1]["rule"] == "one_call"


async def test_a_call_in_rings_at_the_door_until_a_press_answers_it(tmp_path: Path) -> None:
    async with two_stations(tmp_path) as (door, phone):
        await phone.ask("call", uri="door")
        await door.until("ringing")
        heard = await door.listen(1.4)
        for frequency in BELL:
            assert seconds_of(heard, frequency) > 0.3, frequency
        assert door.light == "ringing"
        door.press()
        await phone.until("talking")
        await door.listen(0.1)
        assert silent(await door.listen(0.6))
        assert door.light == "in_call"


async def test_a_caller_who_gives_up_leaves_the_door_silent(tmp_path: Path) -> None:
    async with two_stations(tmp_path) as (door, phone):
        await phone.ask("call", uri="door")
        await door.until("ringing")
        await door.listen(0.3)
        await phone.ask("hangup")
        await door.until("idle")
        await door.listen(0.1)
        assert silent(await door.listen(0.5))


async def test_the_end_of_a_long_call_is_announced_at_both_ends(tmp_path: Path) -> None:
    settings = CALL_BUTTON + "[door]\nmax_call = 10\nwarning = 9\n"
    async with two_stations(tmp_path, settings) as (door, phone):
        await talk(door, phone)
        heard, far = await both_listen(door, phone, 1.8)
        assert seconds_of(heard, WARNING) > 0.25
        assert seconds_of(far, WARNING) > 0.25


@pytest.mark.parametrize("own", [True, False])
async def test_the_resident_hears_who_rings_when_he_answers_and_the_visitor_hears_him_not(
    tmp_path: Path, own: bool
) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    hum = tone(tmp_path / "visitor.wav", 1000, 1)
    audio = f'[audio]\nrate = 8000\nmicrophone = "{hum}"\nmicrophone_gain = -14\n'
    audio += "noise_suppression = false\ngain_control = false\n"
    if own:
        tone(folder / "who_rings_call.wav", 1700, 0.8)
        tone(folder / "who_rings_back.wav", 2300, 0.8)
        audio += f'announcements = "{folder}"\n'
    else:
        audio += '[prompts]\nlanguage = "en"\nvisitor = []\nresident = ["who_rings"]\n'
    async with two_stations(tmp_path, CALL_BUTTON + audio) as (door, phone):
        await talk(door, phone)
        heard, far = await both_listen(door, phone, 2.6)
        assert silent(heard[1600:])
        if own:
            assert seconds_of(far, 1700) > 0.5
        else:
            assert said(far, *MOMENTS, "who_rings") == "who_rings"
        assert seconds_of(await phone.listen(0.3), 1000) > 0.2, "then the visitor alone"


async def test_microphone_and_speaker_are_muted_each_by_itself_until_the_call_ends(
    tmp_path: Path,
) -> None:
    def hums(frequency: float) -> str:
        hum = tone(tmp_path / f"{frequency}.wav", frequency, 1)
        return f'[audio]\nrate = 8000\nmicrophone = "{hum}"\nnoise_suppression = false\n'

    async def hears(door: Side, phone: Side) -> tuple[bool, bool]:
        await door.listen(0.3)  # what was on its way
        heard, far = await both_listen(door, phone, 0.6)
        assert silent(heard) or seconds_of(heard, 1700) > 0.4
        assert silent(far) or seconds_of(far, 1000) > 0.4
        return not silent(heard), not silent(far)

    def muted(door: Side) -> object:
        calls = cast(list[dict[str, object]], door.station.commands.status()["calls"])
        return calls[0]["muted"]

    settings = CALL_BUTTON + RELAY + hums(1000)
    async with two_stations(tmp_path, settings, hums(1700)) as (door, phone):
        await talk(door, phone)
        assert await hears(door, phone) == (True, True)
        for _ in range(2):
            await door.ask("mute", part="microphone", state="on")
        assert await hears(door, phone) == (True, False)
        assert muted(door) == ["microphone"]
        await door.ask("mute", part="speaker", state="on")
        assert await hears(door, phone) == (False, False)
        await phone.ask("dtmf", digits="4711")
        heard, far = await both_listen(door, phone, 1.3)
        assert seconds_of(heard, OPENED[1]) > 0.2, "the door itself is heard"
        assert seconds_of(far, OPENED[1]) > 0.2
        await door.ask("mute", part="microphone", state="off")
        assert await hears(door, phone) == (False, True)
        told = [(event["part"], event["on"]) for event in await door.events("mute")]
        assert told == [("microphone", True), ("speaker", True), ("microphone", False)]
        await phone.ask("hangup")
        await door.until("idle")
        await talk(door, phone)
        assert await hears(door, phone) == (True, True)
        assert muted(door) == []


@pytest.mark.parametrize("kind", ["the driver fails", "the relay never says that it is on"])
async def test_a_relay_that_does_not_pull_is_heard_seen_and_recorded_as_a_fault(
    tmp_path: Path, kind: str
) -> None:
    def broken(relay: FakeRelay) -> None:
        if kind == "the driver fails":
            raise BoardError("relay door: Input/output error")

    async with two_stations(tmp_path, RELAY + READER) as (door, _):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FakeRelay, "energise", broken)
            door.present(CARD)
            heard = await door.listen(2.6)
        for frequency in ERROR:
            assert seconds_of(heard, frequency) > 0.2, frequency
        assert seconds_of(heard, OPENED[0]) == 0
        assert door.light == "fault"
        assert "door_open" not in door.lights
        assert [fault["rule"] for fault in await door.events("relay_fault")] == ["card"]
        assert await door.events("release") == []
        assert door.station.commands.status()["relays"] == {"door": {"on": False, "pulses": 0}}


async def test_status_counts_what_the_relay_really_did(tmp_path: Path) -> None:
    """A release while it is on prolongs the pulse: the lock clicks once."""
    async with two_stations(tmp_path, RELAY + READER) as (door, _):
        door.present(CARD)
        door.present(CARD)
        await door.listen(0.1)
        assert len(await door.events("release")) == 2
        assert door.station.commands.status()["relays"] == {"door": {"on": True, "pulses": 1}}
        await door.listen(0.8)
        assert door.station.commands.status()["relays"] == {"door": {"on": False, "pulses": 1}}


async def test_a_relay_that_fails_to_release_does_not_keep_the_others_on(tmp_path: Path) -> None:
    gate = RELAY.replace("door", "gate").replace("4711", "0815")
    settings = gate + RELAY + READER
    async with two_stations(tmp_path, settings) as (door, _):
        fail = FakeRelay.release

        def broken(relay: FakeRelay) -> None:
            if relay.name == "gate":
                raise BoardError("relay gate: Input/output error")
            fail(relay)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FakeRelay, "release", broken)
            door.present(CARD)
            await door.listen(0.1)
            assert door.board.relays["door"].on
            await door.stop()
            assert not door.board.relays["door"].on
    assert "relay_fault" in (tmp_path / "door" / "events.jsonl").read_text()


@pytest.mark.parametrize("card", [8000, 48000])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 2), (16000, 1), (44100, 2), (48000, 1)])
async def test_an_announcement_is_heard_in_place_of_its_tone(
    tmp_path: Path, rate: int, channels: int, card: int
) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    tone(folder / "opened.wav", 1700, 0.8, rate, channels)
    settings = RELAY + READER + f'[audio]\nrate = {card}\nannouncements = "{folder}"\n'
    async with two_stations(tmp_path, settings, rate=card) as (door, _):
        door.present(CARD)
        heard = await door.listen(1.3)
        assert 0.7 < seconds_of(heard, 1700, card) < 0.9
        assert seconds_of(heard, OPENED[1], card) == 0


async def test_an_announcement_longer_than_any_tone_is_heard_whole_while_it_rings(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    tone(folder / "opened.wav", 1700, 2.2)
    settings = CALL_BUTTON + RELAY + READER + f'[audio]\nrate = 8000\nannouncements = "{folder}"\n'
    async with two_stations(tmp_path, settings) as (door, phone):
        door.press()
        await phone.until("ringing")
        door.present(CARD)
        heard = await door.listen(2.8)
        assert seconds_of(heard, 1700) > 2.1
        assert seconds_of(heard, RINGBACK) > 0.2, "the ring-back goes on after it"


async def test_a_broken_announcement_is_said_at_the_start_and_its_tone_is_heard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "opened.wav").write_bytes(b"RIFF and nothing more")
    tone(folder / "busy.wav", 1700, 0.5)
    settings = RELAY + READER + f'[audio]\nrate = 8000\nannouncements = "{folder}"\n'
    with caplog.at_level(logging.WARNING):
        async with two_stations(tmp_path, settings) as (door, _):
            assert "opened.wav: not a WAV file" in caplog.text
            assert "busy.wav" not in caplog.text
            door.present(CARD)
            assert seconds_of(await door.listen(0.8), OPENED[1]) > 0.2


async def test_a_folder_without_announcements_is_said_with_the_names_it_may_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = RELAY + f'[audio]\nrate = 8000\nannouncements = "{tmp_path}/nowhere"\n'
    async with two_stations(tmp_path, settings):
        assert "nothing to play" in caplog.text
        assert "ringback.wav" in caplog.text


def prompt(moment: str, language: str = "en") -> bytes:
    """What the door says at a moment, at 8 kHz."""
    wav = parse_wav((PROMPTS / language / f"{moment}.wav").read_bytes())
    source = player(wav, 8000)
    return source.read(round(8000 * (wav.seconds + 0.1)))


def said(heard: bytes, *moments: str) -> str:
    """Which of the door's words were heard, or "" for none of them."""
    like = {each: likeness(prompt(each), heard, piece_seconds=0.3) for each in moments}
    best = max(like, key=lambda each: like[each])
    return best if like[best] > 0.85 else ""


MOMENTS = ("calling", "busy", "nobody_answers", "no_connection", "opened")


async def test_the_visitor_hears_that_it_rings_and_then_that_nobody_answers(
    tmp_path: Path,
) -> None:
    button = '[buttons.call]\nsteps = [{ ring = ["indoor"], seconds = 5 }]\n'
    async with two_stations(tmp_path, button + '[prompts]\nlanguage = "en"\n') as (door, _):
        door.press()
        heard = await door.listen(1.9)
        await door.until("idle", 10)
        end = await door.listen(2.0)
        assert said(heard[:14400], *MOMENTS) == "calling"
        assert seconds_of(heard, RINGBACK) > 0.4, "then it rings"
        assert said(end, *MOMENTS) == "nobody_answers"
        assert (await door.events("call_failed"))[-1]["rule"] == "no_answer"


@pytest.mark.parametrize("spoken", ["", "opened"])
async def test_the_resident_hears_that_the_door_is_open_where_the_settings_say_so(
    tmp_path: Path, spoken: str
) -> None:
    words = f'[prompts]\nlanguage = "en"\nresident = {[spoken] if spoken else []}\n'
    async with two_stations(tmp_path, CALL_BUTTON + RELAY + words) as (door, phone):
        await talk(door, phone)
        await phone.ask("dtmf", digits="4711")
        while not await door.events("release"):
            await asyncio.sleep(0.01)
        heard, far = await both_listen(door, phone, 1.4)
        assert said(heard, *MOMENTS) == "opened"
        assert said(far, *MOMENTS) == spoken
        if not spoken:
            assert seconds_of(far, OPENED[1]) > 0.05, "the tone"
