"""`doorstation doctor audio`: every room its report, and a good verdict alone is success."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from doorboard.fake import FakeAudioPort
from doorstation import doctor, parts
from doorstation.cli import main
from doorstation.errors import DoorstationError
from doorstation.media import echo
from doorstation.media.levels import SpeakerLevels
from doorstation.media.path import Options
from doorstation.media.selftest import Report


@pytest.mark.parametrize(
    ("room", "verdict", "status"),
    [
        ("good", "good", 0),
        ("loud", "too loud", 1),
        ("howl", "would howl", 1),
        ("broken-mic", "microphone broken", 1),
    ],
)
def test_every_room_of_the_fake_board_has_its_verdict(
    room: str, verdict: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "audio", "--board", "fake", "--room", room, "--json"]) == status
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == verdict
    assert {"erle_db", "delay_ms", "noise_dbfs", "coupling_db"} <= report.keys()


@pytest.mark.parametrize("room", ["loud", "howl"])
def test_the_advice_makes_the_verdict_good(room: str) -> None:
    first = doctor.measure(parts.simulated_card(room), Options()).report()
    gain = first.advice["audio.speaker_gain"]
    assert isinstance(gain, float | int)
    options = Options(speaker=SpeakerLevels(volume_db=gain))
    assert doctor.measure(parts.simulated_card(room), options).report().verdict == "good"


def test_the_fake_boards_rooms_take_the_settings_of_a_file_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "door.toml"
    config.write_text('[board]\nkind = "fake"\n[buttons.call]\n[[buttons.call.steps]]\n'
                      'ring = ["sip:a@192.0.2.1"]\n[audio]\necho = "off"\n')  # fmt: skip
    command = ["doctor", "audio", "--board", "fake", "--json", "--config", str(config)]
    assert main(command) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["verdict"], report["advice"]["audio.echo"]) == ("echo remains", "speex")


def test_the_report_is_plain_and_the_picture_can_be_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "room.svg"
    assert main(["doctor", "audio", "--board", "fake", "--plot", str(picture)]) == 0
    said = capsys.readouterr()
    assert "verdict: good" in said.out
    assert str(picture) in said.err
    root = ElementTree.parse(picture).getroot()
    assert len(root.findall(".//{http://www.w3.org/2000/svg}polyline")) == 5


@pytest.mark.parametrize(
    ("mode", "installed", "advised"),
    [
        ("off", True, "speex"),
        ("speex", True, "cascade"),
        ("speex", False, "half_duplex"),
        ("cascade", True, "half_duplex"),
        ("half_duplex", True, None),
    ],
)
def test_no_mode_is_advised_that_is_in_use_or_cannot_run_here(
    mode: echo.Mode, installed: bool, advised: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    assert doctor.next_mode(mode) == advised


def test_a_room_needs_the_fake_board(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "audio", "--room", "good"]) == 1
    assert "--board fake" in capsys.readouterr().err


def test_a_card_that_is_not_there_is_a_fault_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "door.toml"
    config.write_text('[audio]\ndevice = "plughw:CARD=nowhere"\n[buttons.call]\npin = 17\n'
                      '[[buttons.call.steps]]\nring = ["sip:a@192.0.2.1"]\n')  # fmt: skip
    assert main(["doctor", "audio", "--config", str(config)]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_a_canceller_that_is_missing_is_told_before_anything_is_played(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    port = FakeAudioPort(room="good", rate=16000)
    with pytest.raises(DoorstationError, match="aec3"):
        doctor.measure(port, Options(canceller=echo.Options("aec3")))
    assert port.written == 0


def test_sound_that_the_card_lost_meanwhile_is_told() -> None:
    port = parts.simulated_card("broken-mic")
    port.underruns = 3
    report = doctor.measure(port, Options()).report()
    assert report.xruns >= 3
    assert any("lost sound" in line for line in doctor.lines(report))
    assert not any("lost sound" in line for line in doctor.lines(Report("good", "", -60.0)))
