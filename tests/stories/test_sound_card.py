"""Sound through alsa-lib: a real card by name, spoken into and listened to, pulled and put back.

The card is a sound server in user space, the pins are gpiozero's mock: everything else is what
runs on a Pi.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from doorstation.media.pcm import audioop

from tests.stories.sound import SECOND, heard_by
from tests.support.lab import Lab, eventually
from tests.support.peers import baresip
from tests.support.sound_server import SoundServer
from tests.support.sounds import likeness, read_pcm, voice, write_pcm
from tests.support.station import CODE, station

PINS: Mapping[str, Any] = {
    "board.kind": "pi",
    "buttons.call.pin": 17,
    "buttons.call.steps": [{"ring": ["indoor"]}],
    "relays.door.pin": 27,
    "leds.status": {"pin": 22},
    "audio.device": "station",
}


@pytest.fixture
def card(tmp_path: Path) -> Iterator[SoundServer]:
    with SoundServer(tmp_path / "card") as server:
        yield server


def environment(card: SoundServer) -> dict[str, str]:
    return {**card.env, "GPIOZERO_PIN_FACTORY": "mock"}


@pytest.mark.parametrize("rate", [8000, 48000])
def test_who_speaks_at_the_card_is_heard_indoors_and_the_other_way_round(
    town: Lab, tmp_path: Path, visitor: Path, resident: Path, card: SoundServer, rate: int
) -> None:
    with baresip(town, tmp_path / "indoor", "indoor", source=resident) as phone:
        settings = {
            **PINS,
            "audio.rate": rate,
            "peers.indoor.uri": phone.uri,
        }
        with station(town, tmp_path / "door", settings, environment=environment(card)) as door:
            door.press()
            door.wait_call("connected")
            loudspeaker = tmp_path / "loudspeaker.wav"
            card.speak(visitor)
            with card.recorded(loudspeaker):
                indoors = heard_by(phone, 2)
                eventually(lambda: len(read_pcm(loudspeaker)) > 2 * SECOND, "sound recorded")
            assert likeness(read_pcm(visitor), indoors) > 0.9
            assert likeness(read_pcm(resident), read_pcm(loudspeaker)) > 0.9
            phone.send_digits(CODE)
            door.wait_event("release")
            phone.hangup()
            door.wait_idle()
            assert door.wait_event("call_statistics")["lost"] == 0


@pytest.mark.parametrize(("rate", "mode"), [(16000, "speex"), (48000, "speex"), (48000, "aec3")])
def test_a_door_as_it_comes_sends_no_echo_and_has_measured_where_it_is(
    town: Lab, tmp_path: Path, card: SoundServer, rate: int, mode: str
) -> None:
    resident = tmp_path / "resident.wav"
    write_pcm(resident, b"".join(voice(30)), 16000)
    card.couple()
    with baresip(town, tmp_path / "indoor", "indoor", source=resident, rate=16000) as phone:
        settings = {
            **PINS,
            "audio.rate": rate,
            "audio.echo": mode,
            "audio.noise_suppression": True,
            "audio.gain_control": True,
            "peers.indoor.uri": phone.uri,
        }
        with station(town, tmp_path / "door", settings, environment=environment(card)) as door:
            door.press()
            door.wait_call("connected")
            with door.listening("speaker") as speaker:
                eventually(lambda: len(speaker) > 12 * 2 * 16000, "it learns", 20)
            echo = audioop.rms(bytes(speaker), 2) / 8
            assert echo > 200

            def is_down() -> bool:
                heard = heard_by(phone, 2)
                pieces = range(0, len(heard), 3200)
                return median(audioop.rms(heard[at : at + 3200], 2) for at in pieces) < echo / 3

            # Where the machine is busy this card's queue jumps, and the echo is another one then.
            eventually(is_down, "the echo is down", 25)
            phone.hangup()
            door.wait_idle()
            measured = door.wait_event("call_statistics")
            door.wait_log("the echo comes after ")
            assert measured["echo_late"] is False
            assert measured["echo_db"] > 6


def test_a_card_pulled_in_a_call_is_told_and_used_again_when_it_is_back(
    town: Lab, tmp_path: Path, visitor: Path, resident: Path, card: SoundServer
) -> None:
    with baresip(town, tmp_path / "indoor", "indoor", source=resident) as phone:
        settings = {**PINS, "audio.rate": 8000, "peers.indoor.uri": phone.uri}
        with station(town, tmp_path / "door", settings, environment=environment(card)) as door:
            door.command("call", uri="indoor")
            door.wait_call("connected")
            eventually(lambda: door.status()["card"] == "running", "the card runs")
            card.kill()
            assert door.wait_event("card_lost")["why"]
            assert door.status()["card"] == "lost"
            sent = door.calls()[0]["statistics"]["sent"]
            eventually(
                lambda: door.calls()[0]["statistics"]["sent"] > sent + 25,
                "the call goes on with silence",
            )
            phone.send_digits(CODE)
            door.wait_event("release")
            card.start()
            door.wait_event("card_back")
            assert door.calls()[0]["state"] == "connected"
            card.speak(visitor)
            assert likeness(read_pcm(visitor), heard_by(phone, 2)) > 0.9
            phone.hangup()
            door.wait_idle()
            assert door.wait_event("call_statistics")["card_lost_seconds"] > 0


def test_a_card_that_is_not_there_is_told_at_the_start_and_the_door_works_without(
    town: Lab, tmp_path: Path, card: SoundServer
) -> None:
    with baresip(town, tmp_path / "indoor", "indoor") as phone:
        settings = {**PINS, "audio.device": "plughw:Nowhere", "peers.indoor.uri": phone.uri}
        with station(town, tmp_path / "door", settings, environment=environment(card)) as door:
            why = door.wait_event("card_lost")["why"]
            assert "plughw:Nowhere" in why
            assert "station" in why, "the cards that there are"
            door.wait_status(lambda now: now["leds"]["status"]["pattern"] == "fault", "its light")
            assert door.status()["card"] == "lost"
            door.command("call", uri="indoor")
            door.wait_call("connected")
            phone.send_digits(CODE)
            door.wait_event("release")
            phone.hangup()
            door.wait_idle()
            assert door.new_events("card_lost") == [], "told once"


def test_a_card_plugged_in_after_the_start_is_found_without_a_call(
    town: Lab, tmp_path: Path, card: SoundServer
) -> None:
    card.kill()
    settings = {**PINS, "buttons.call.steps": [{"ring": ["sip:nobody@192.0.2.1"]}]}
    with station(town, tmp_path / "door", settings, environment=environment(card)) as door:
        door.wait_event("card_lost")
        card.start()
        door.wait_event("card_back", seconds=20)
        door.wait_status(lambda now: now["leds"]["status"]["pattern"] == "idle", "its light")
