"""A gateway that sends keys as tones in the voice only."""

import wave
from array import array
from pathlib import Path

import pytest

from tests.media.test_inband import pause, tone
from tests.support.lab import Lab, eventually
from tests.support.peers import baresip, sipp
from tests.support.station import CODE, station


@pytest.fixture
def typed(tmp_path: Path) -> Path:
    """The code as tones, after two seconds, and once more."""
    keys = [x for key in CODE for x in tone(key, 8000, 90) + pause(8000, 90)]
    path = tmp_path / "typed.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        samples = pause(8000, 2000) + keys + pause(8000, 30000)
        file.writeframes(array("h", map(round, samples)).tobytes())
    return path


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("codec", ["PCMA/8000/1", "G722/16000/1"])
def test_a_code_typed_as_tones_opens_where_tones_count(
    town: Lab, tmp_path: Path, typed: Path, wanted: bool, codec: str
) -> None:
    with baresip(town, tmp_path / "indoor", "indoor", source=typed, codecs=codec) as phone:
        settings = {
            "peers.indoor.uri": phone.uri,
            "peers.indoor.inband_digits": wanted,
            "buttons.call.steps": [{"ring": ["indoor"]}],
        }
        with station(town, tmp_path / "door", settings) as door:
            door.press()
            door.wait_call("connected")
            if wanted:
                assert door.wait_event("release")["relay"] == "door"
            else:
                eventually(
                    lambda: (door.calls()[0]["statistics"] or {}).get("received", 0) > 180, "tones"
                )
            assert door.pulses() == wanted


def test_a_code_played_at_the_panel_opens_nothing_through_a_far_end_that_echoes(
    town: Lab, tmp_path: Path, typed: Path
) -> None:
    with sipp(town, tmp_path / "sipp", "uas_answer", echoes=True, keys={"status": "200"}) as phone:
        settings = {
            "peers.gateway.uri": f"sip:gateway@{phone.address}:5060",
            "peers.gateway.inband_digits": True,
            "audio.microphone": str(typed),
            "audio.codecs": ["PCMA"],
            "audio.echo": "off",
            "sip.port": 5080,
            "buttons.call.steps": [{"ring": ["gateway"]}],
        }
        with station(town, tmp_path / "door", settings) as door:
            door.press()
            door.wait_call("connected")
            eventually(
                lambda: (door.calls()[0]["statistics"] or {}).get("received", 0) > 180, "echo"
            )
            assert door.calls()[0]["statistics"]["loudspeaker_dbfs"] > -40, "the tones came back"
            assert door.new_events("digit") == []
            assert door.pulses() == 0
            door.command("hangup")
            phone.finish()
