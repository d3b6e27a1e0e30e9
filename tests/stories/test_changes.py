"""Settings change while the door runs: with the least disturbance, and back by themselves."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from doorstation import cli

from tests.stories.conftest import USERS
from tests.support.lab import Lab, eventually
from tests.support.peers import Kamailio
from tests.support.station import Station, account, doorstation, station, toml


@pytest.fixture
def nobody(town: Lab) -> Iterator[str]:
    """A phone that never says a word."""
    with socket.socket(type=socket.SOCK_DGRAM) as phone:
        phone.bind((town.station, 0))
        yield f"sip:nobody@{town.station}:{phone.getsockname()[1]}"


def settings(proxy: Kamailio, tmp_path: Path, **more: object) -> dict[str, Any]:
    return {
        **account(proxy),
        "provisioning.state": str(tmp_path / "state"),
        "provisioning.confirm_within": 5.0,
        **more,
    }


def ringing(phone: str) -> dict[str, Any]:
    return {
        "buttons.call.steps": [{"ring": ["nobody"], "seconds": 60}],
        "peers.nobody": {"uri": phone, "may_call": False},
    }


def results(door: Station) -> list[str]:
    return [past["result"] for past in door.command("config history")]


class Typed:
    """A command that somebody types meanwhile."""

    def __init__(self, act: Callable[[], "subprocess.CompletedProcess[str]"]) -> None:
        self._done: list[subprocess.CompletedProcess[str]] = []
        self._thread = threading.Thread(target=lambda: self._done.append(act()), daemon=True)
        self._thread.start()

    def result(self) -> "subprocess.CompletedProcess[str]":
        self._thread.join(60)
        return self._done[0]


def test_a_volume_changes_without_a_word_to_the_registrar(
    town: Lab, proxy: Kamailio, tmp_path: Path
) -> None:
    with station(town, tmp_path, settings(proxy, tmp_path)) as door:
        door.wait_registered()
        before = door.process.log_text().count("REGISTER sip:")
        done = door.config("set", "audio.speaker_gain=-6.0", 'audio.country="at"')
        assert done.returncode == 0, done.stderr
        assert "audio.speaker_gain: not set -> -6.0" in done.stdout
        assert done.stderr == "kept\n"
        shown = door.config("show", "--origin").stdout
        assert "audio.speaker_gain = -6.0  # remote\n" in shown
        assert "relays.door.pulse = 0.5  # local\n" in shown
        assert USERS["door"] not in shown
        assert door.process.log_text().count("REGISTER sip:") == before
        event = door.wait_event("configuration", state="confirmed")
        assert event["keys"] == "audio.country, audio.speaker_gain"


def test_another_account_takes_the_old_ones_registration_back(
    town: Lab, proxy: Kamailio, tmp_path: Path
) -> None:
    with station(town, tmp_path, settings(proxy, tmp_path)) as door:
        door.wait_registered()
        done = door.config(
            "set", 'account.user="indoor"', f'account.password="{USERS["indoor"]}"'
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert USERS["indoor"] not in done.stdout
        assert "account.password: " in done.stdout
        assert proxy.contacts("door") == []
        assert len(proxy.contacts("indoor")) == 1
        assert door.process.returncode is None, "it is still the same process"
        assert door.config("undo").returncode == 0
        assert proxy.contacts("indoor") == []
        assert len(proxy.contacts("door")) == 1


def test_a_registrar_that_is_not_there_is_taken_back_by_itself(
    town: Lab, proxy: Kamailio, tmp_path: Path
) -> None:
    with station(town, tmp_path, settings(proxy, tmp_path)) as door:
        door.wait_registered()
        done = door.config("set", 'account.registrar="192.0.2.98:5060"')
        assert done.returncode == 1
        assert done.stderr == "rolled back: the door was not well again in time\n"
        door.wait_registered()
        assert len(proxy.contacts("door")) == 1


def test_a_port_that_is_in_use_is_taken_back_with_the_reason(
    town: Lab, proxy: Kamailio, tmp_path: Path
) -> None:
    with (
        station(town, tmp_path, settings(proxy, tmp_path)) as door,
        socket.socket() as taken,
    ):
        door.wait_registered()
        taken.bind((door.address, 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = door.config("set", f"sip.port={port}")
        assert done.returncode == 1
        assert str(port) in done.stderr
        assert "in use" in done.stderr
        door.wait_registered()


def test_a_call_that_is_up_is_let_end_first(
    town: Lab, proxy: Kamailio, tmp_path: Path, nobody: str
) -> None:
    with station(town, tmp_path, settings(proxy, tmp_path, **ringing(nobody))) as door:
        door.wait_registered()
        door.press()
        door.wait_status(lambda status: bool(status["calls"]), "a call")
        typed = Typed(lambda: door.config("set", 'sip.display_name="Gate"'))
        door.wait_status(lambda status: status["configuration"]["waiting"], "a change that waits")
        assert "change 1 is being tried, which waits for" in door.ctl("status").stdout
        assert door.status()["calls"], "the call goes on"
        door.command("hangup")
        assert typed.result().returncode == 0
        door.wait_registered()


def test_power_that_goes_before_the_word_leaves_the_old_settings(
    town: Lab, proxy: Kamailio, tmp_path: Path
) -> None:
    usual = settings(proxy, tmp_path, **{"provisioning.confirm_within": 600.0})
    with station(town, tmp_path, usual) as door:
        door.wait_registered()
        door.command("config set", set={"account.registrar": "192.0.2.98:5060"}, unset=[])
        door.process.ready(lambda: _tries(door), "the new registrar is tried", 10)
        door.cut_power()
    door.socket.unlink(missing_ok=True)
    with station(town, tmp_path, usual) as again:
        again.wait_registered()
        assert results(again) == [
            "rolled back: the door started again before it was confirmed"
        ]  # fmt: skip
        assert again.command("log verify") == ""


def _tries(door: Station) -> bool:
    return "192.0.2.98" in door.process.log_text() and door.socket.exists()


def test_what_was_exported_can_be_imported(town: Lab, proxy: Kamailio, tmp_path: Path) -> None:
    file = tmp_path / "export.toml"
    with station(town, tmp_path, settings(proxy, tmp_path)) as door:
        door.wait_registered()
        assert door.config("set", "audio.speaker_gain=-6.0").returncode == 0
        assert door.config("export", str(file)).returncode == 0
        assert file.stat().st_mode & 0o777 == 0o600
        assert USERS["door"] not in file.read_text()
        assert door.config("undo").returncode == 0
        done = door.config("import", str(file))
        assert done.returncode == 0, done.stderr
        assert "audio.speaker_gain: not set -> -6.0" in done.stdout
        assert done.stdout.count("\n") == 1, "nothing else changes"
        history = json.loads(door.config("history", "--json").stdout)
        assert [past["how"] for past in history] == ["ctl", "undo", "import"]
        whole = door.config("export", "--with-secrets").stdout
        assert USERS["door"] in whole


def test_a_change_with_a_problem_is_refused_whole_and_a_dry_run_changes_nothing(
    town: Lab, proxy: Kamailio, tmp_path: Path
) -> None:
    with station(town, tmp_path, settings(proxy, tmp_path)) as door:
        done = door.config("set", "audio.speaker_gain=99", 'audio.country="xx"')
        assert done.returncode == 1
        assert "audio.speaker_gain" in done.stderr
        assert "audio.country" in done.stderr
        assert door.config("set", "audio.country=at").stderr.startswith(
            "doorstation: audio.country: 'at' is no TOML value"
        )
        dry = door.config("set", "--dry-run", "audio.speaker_gain=-6.0")
        assert dry.stdout == "audio.speaker_gain: not set -> -6.0\n"
        assert results(door) == []


def test_a_reset_forgets_the_changes_and_the_audit_log_tells_of_it(
    town: Lab, proxy: Kamailio, tmp_path: Path
) -> None:
    with station(town, tmp_path, settings(proxy, tmp_path)) as door:
        door.wait_registered()
        assert door.config("set", "audio.speaker_gain=-6.0").returncode == 0
        assert door.config("reset").returncode == 0
        door.wait_event("configuration", state="reset")
        assert "speaker_gain" not in door.config("show").stdout
        done = doorstation("log", "--socket", str(door.socket), "verify")
        assert done.stdout == "audit log: no line was changed or removed\n"
        log = tmp_path / "state" / "audit.jsonl"
        log.write_text(log.read_text().replace('"kind":"confirmed"', '"kind":"denied"'))
        done = doorstation("log", "--config", str(door.file), "verify")
        assert done.returncode == 1
        assert "was changed" in done.stdout


def test_a_reset_without_a_station_forgets_the_changes_but_never_under_a_running_one(
    town: Lab, proxy: Kamailio, tmp_path: Path
) -> None:
    usual = settings(proxy, tmp_path)
    with station(town, tmp_path, usual) as door:
        assert door.config("set", "audio.speaker_gain=-6.0").returncode == 0
        away = ("config", "--config", str(door.file))
        refused = doorstation(*away, "reset")
        assert (refused.returncode, "a station runs with it" in refused.stderr) == (1, True)
    assert "speaker_gain" in doorstation(*away, "show").stdout
    assert doorstation(*away, "reset").returncode == 0
    assert "speaker_gain" not in doorstation(*away, "show").stdout
    log = [json.loads(line) for line in (tmp_path / "state/audit.jsonl").read_text().splitlines()]
    assert [entry["kind"] for entry in log] == ["staged", "confirmed", "reset"]
    with station(town, tmp_path, usual) as door:
        door.wait_registered()
        assert door.command("log verify") == ""


@pytest.mark.parametrize("how", ["full", "gone"])
def test_a_disk_that_takes_nothing_is_a_fault_and_the_door_works(
    town: Lab, proxy: Kamailio, tmp_path: Path, how: str, nobody: str
) -> None:
    folder = tmp_path / "state"
    if how == "gone":
        folder.write_text("a file where the folder should be")
    with station(town, tmp_path, settings(proxy, tmp_path, **ringing(nobody))) as door:
        door.wait_registered()
        if how == "full":
            # A slot that is a folder takes nothing, from root neither.
            for slot in ("state.a", "state.b"):
                (folder / slot).unlink(missing_ok=True)
                (folder / slot).mkdir()
        done = door.config("set", "audio.speaker_gain=-6.0")
        assert done.returncode == 1
        eventually(lambda: door.status()["configuration"]["fault"], "the fault is shown", 5)
        assert "configuration  fault: " in door.ctl("status").stdout
        door.press()
        door.wait_status(lambda status: bool(status["calls"]), "the door rings all the same")
        door.command("hangup")


def test_without_a_folder_it_is_said_why_nothing_can_change(
    town: Lab, proxy: Kamailio, tmp_path: Path
) -> None:
    with station(town, tmp_path, settings(proxy, tmp_path, **{"provisioning.state": ""})) as door:
        done = door.config("set", "audio.speaker_gain=-6.0")
        assert done.returncode == 1
        assert "provisioning.state names no folder" in done.stderr
        assert door.status()["configuration"]["fault"] == ""


def test_a_door_that_nobody_configured_waits_and_then_works(
    town: Lab, proxy: Kamailio, tmp_path: Path, nobody: str
) -> None:
    usual = {"provisioning.state": str(tmp_path / "state"), "provisioning.discovery": "off"}
    with station(town, tmp_path, usual) as door:
        assert door.status()["registration"]["state"] == "off"
        wanted = {**account(proxy), **ringing(nobody)}
        values = [line.replace(" = ", "=", 1) for line in toml(wanted).splitlines()]
        done = door.config("set", *values)
        assert done.returncode == 0, done.stderr
        door.wait_registered()
        door.press()
        door.wait_status(lambda status: bool(status["calls"]), "a call")
        door.command("hangup")
        assert door.process.returncode is None, "it is still the same process"


def test_a_door_starts_without_a_file_where_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[object] = []

    def run(base: object) -> int:
        found.append(base)
        return 0

    monkeypatch.setattr(cli, "DEFAULT_CONFIG", tmp_path / "none.toml")
    monkeypatch.setattr("doorstation.station.run", run)
    assert cli.main(["run"]) == 0
    assert found == [{"local": {}}]
    assert cli.main(["run", "--config", str(tmp_path / "named.toml")]) == 1, "a name is a wish"


@pytest.mark.parametrize("what", ["a link to a disk that is not mounted", "a folder that is none"])
def test_a_file_that_cannot_be_reached_is_no_device_out_of_its_box(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would wait for whoever configures it first."""
    config = tmp_path / "etc" / "doorstation.toml"
    if what == "a folder that is none":
        config.parent.touch()
    else:
        config.parent.mkdir()
        config.symlink_to(tmp_path / "disk" / "doorstation.toml")
    monkeypatch.setattr(cli, "DEFAULT_CONFIG", config)
    monkeypatch.setattr("doorstation.station.run", lambda base: 0)
    assert cli.main(["run"]) == 1
    assert f"{config}: cannot be read: " in capsys.readouterr().err
