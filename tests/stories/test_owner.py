"""What the owner types: `doorstation check`, `run` and `ctl`, and what the log tells of it."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.lab import Lab, eventually
from tests.support.peers import baresip
from tests.support.station import CODE, WRONG, doorstation, station, toml

WRONG_FILE = """\
[account]
user = "door"
domain = "fritz.box"
pasword = "secret-word"

[sip]
port = 99999
transports = ["udp", "tcp", "pigeon"]

[buttons.call]
pin = 17
steps = [{ ring = ["grandma"], seconds = 1 }]

[relays.door]
pin = 17
codes = ["12"]
pulse = "long"

[peers.kitchen]
uri = "kitchen"

[door]
wrong_code = 3
"""


@pytest.mark.parametrize("command", [("check",), ("run", "--config")])
def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "door.toml"
    file.write_text(WRONG_FILE)
    done = doorstation(*command, str(file))
    assert done.returncode == 1
    told = (done.stdout + done.stderr).splitlines()
    for key, help_text in {
        "account.pasword": '"password"',
        "sip.port": "0 to 65535",
        "sip.transports[2]": '"tls"',
        "buttons.call.steps[0].seconds": "5 to 180 s",
        "buttons.call.steps[0].ring[0]": "kitchen",
        "relays.door.pin": "buttons.call.pin",
        "relays.door.codes[0]": "at least 4",
        "relays.door.pulse": "0.1 to 300 s",
        "peers.kitchen.uri": "sip:user@host",
        "door.wrong_code": '"wrong_codes"',
    }.items():
        assert any(f"{key}: " in line and help_text in line for line in told), (key, told)
    assert "secret-word" not in done.stdout + done.stderr


def test_a_good_file_has_no_problems(tmp_path: Path) -> None:
    file = tmp_path / "door.toml"
    file.write_text(toml({"board.kind": "fake", "peers.indoor.uri": "sip:198.51.100.1"}))
    done = doorstation("check", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "no problems" in done.stdout


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    for command in (("check",), ("run", "--config")):
        done = doorstation(*command, str(tmp_path / "nothing.toml"))
        assert done.returncode == 1
        assert "nothing.toml" in done.stdout + done.stderr


@pytest.mark.parametrize(("mode", "told"), [(0o644, True), (0o640, False), (0o600, False)])
def test_codes_that_everybody_on_the_machine_can_read_are_told(
    tmp_path: Path, mode: int, told: bool
) -> None:
    file = tmp_path / "door.toml"
    nowhere = {"control.socket": str(tmp_path / ("long" * 40)), "log.events": ""}
    own = {"board.kind": "fake", "peers.indoor.uri": "sip:198.51.100.1", "sip.port": 0}
    file.write_text(toml({**own, **nowhere}))
    file.chmod(mode)
    done = doorstation("run", "--config", str(file))
    assert done.returncode == 1, "its control socket has no place"
    assert ("everybody here can read" in done.stderr) is told


def test_a_certificate_over_a_key_that_nothing_keeps_is_refused_by_its_key(tmp_path: Path) -> None:
    file = tmp_path / "door.toml"
    settings = {
        "board.kind": "fake",
        "control.socket": "",
        "log.events": "",
        "sip.transports": ["udp", "tls"],
        "tls.own_certificate": "-----BEGIN CERTIFICATE-----",
    }
    file.write_text(toml(settings))
    assert "remark: tls.own_certificate: " in doorstation("check", str(file)).stdout
    done = doorstation("run", "--config", str(file))
    assert done.returncode == 1
    assert "tls.own_certificate: its key has no place: nothing is kept here" in done.stderr


def test_a_door_whose_port_is_taken_says_so_and_does_not_start(town: Lab, tmp_path: Path) -> None:
    settings = {"peers.indoor.uri": "sip:198.51.100.1"}
    with station(town, tmp_path / "one", settings) as door:
        second = tmp_path / "two.toml"
        second.write_text(
            door.file.read_text().replace(str(door.socket), str(tmp_path / "two.sock"))
        )
        done = doorstation("run", "--config", str(second))
        assert done.returncode == 1
        assert f"{door.address}" in done.stderr
        assert "5060" in done.stderr
        assert "Traceback" not in done.stderr
        assert door.ctl("status").returncode == 0


def test_the_exit_status_says_whether_it_worked(town: Lab, tmp_path: Path) -> None:
    with (
        baresip(town, tmp_path / "indoor", "indoor") as phone,
        station(
            town,
            tmp_path / "door",
            {
                "peers.indoor.uri": phone.uri,
                "buttons.call.steps": [{"ring": ["indoor"]}],
                "contacts.door": {"left_open_after": 1},
                "readers.gate": {"opens": "door", "accepts": ["0A00F8D3C5"]},
            },
        ) as door,
    ):
        for words, why in (
            (("press", "cal"), "call"),
            (("answer",), "no call"),
            (("hangup",), "no call"),
            (("hold",), "no call"),
            (("dtmf", "5"), "no call"),
            (("mute", "microphone", "on"), "no call"),
            (("call", "grandma"), "grandma"),
            (("call", "**9"), "account"),
            (("register",), "account"),
            (("reject", "200"), "400 to 699"),
            (("message", "sip:a@192.0.2.1;transport=sctp", "hello"), "transport=sctp is not"),
            (("contact", "window", "open"), "door"),
        ):
            done = door.ctl(*words)
            assert done.returncode == 1, words
            assert why in done.stderr, (words, done.stderr)
            assert "Traceback" not in done.stderr
        for words in (
            ("contact", "door", "open"),
            ("reader", "gate", "0A00F8D3C5"),
            ("press", "call"),
        ):
            done = door.ctl(*words)
            assert (done.returncode, done.stderr) == (0, ""), words
        door.wait_event("contact", closed=False)
        assert door.wait_event("card")["allowed"] is True
        door.wait_call("connected")
        assert door.ctl("mute", "microphone", "on").returncode == 0
        assert "  microphone muted" in door.ctl("status").stdout
        assert door.ctl("dtmf", "12").returncode == 0
        assert door.ctl("dtmf", "x").returncode == 1
        assert door.ctl("hangup").returncode == 0
        door.wait_event("left_open")
        assert "fault  contact door is open for too long" in door.ctl("status").stdout
        assert doorstation("ctl", "--socket", str(tmp_path / "none"), "status").returncode == 1


def test_status_is_one_object_that_other_programs_can_read(town: Lab, tmp_path: Path) -> None:
    with station(town, tmp_path, {"peers.indoor.uri": "sip:198.51.100.1"}) as door:
        done = door.ctl("status", "--json")
        assert done.returncode == 0
        status = json.loads(done.stdout)
        assert status["registration"]["state"] == "off"
        assert status["calls"] == []
        assert status["relays"]["door"] == {"on": False, "pulses": 0}
        assert "doorstation" in status["versions"]
        assert stat.S_IMODE(door.socket.stat().st_mode) == 0o600


def test_events_are_followed_as_they_happen(town: Lab, tmp_path: Path) -> None:
    with (
        baresip(town, tmp_path / "indoor", "indoor") as phone,
        station(
            town,
            tmp_path / "door",
            {"peers.indoor.uri": phone.uri, "buttons.call.steps": [{"ring": ["indoor"]}]},
        ) as door,
    ):
        output = tmp_path / "followed"
        words = ["ctl", "--socket", str(door.socket), "events", "--follow", "--json"]
        with (
            output.open("wb") as file,
            subprocess.Popen(
                [sys.executable, "-m", "doorstation", *words], stdout=file
            ) as follower,
        ):
            try:

                def kinds() -> list[str]:
                    lines = output.read_text().splitlines()
                    return [json.loads(line)["event"] for line in lines]

                def pressed() -> bool:
                    """Until the follower is there, it hears of nothing."""
                    door.press()
                    return "press" in kinds()

                eventually(pressed, "the follower sees a press")
                door.wait_call("connected")
                door.command("hangup")
                eventually(lambda: "call_ended" in kinds(), "it sees the end")
            finally:
                follower.send_signal(signal.SIGINT)
                assert follower.wait(10) == 130
        recent = door.ctl("events", "--json").stdout.splitlines()
        assert {"press", "call_out", "answered", "call_ended"} <= {
            json.loads(line)["event"] for line in recent
        }


def test_no_code_digit_or_password_is_in_any_log(town: Lab, tmp_path: Path) -> None:
    secrets = [CODE, WRONG, "0A00F8D3C5", "kitchen-password"]
    with (
        baresip(town, tmp_path / "indoor", "indoor") as phone,
        station(
            town,
            tmp_path / "door",
            {
                "peers.indoor.uri": phone.uri,
                "peers.kitchen.uri": "sip:198.51.100.9",
                "peers.kitchen.password": secrets[3],
                "buttons.call.steps": [{"ring": ["indoor"]}],
                "readers.gate": {"opens": "door", "accepts": [secrets[2]]},
                "readers.keys": {"opens": "door", "accepts": [CODE], "protocol": "keypad"},
            },
        ) as door,
    ):
        door.press()
        door.wait_call("connected")
        phone.wait_event("CALL_ESTABLISHED")
        phone.send_digits(f"{WRONG}#{CODE}")
        door.wait_event("release")
        door.command("reader", name="gate", value=secrets[2])
        assert door.wait_event("card")["allowed"] is True
        door.command("reader", name="keys", value=WRONG)
        assert door.wait_event("card")["allowed"] is False
        assert door.ctl("dtmf", "31415").returncode == 0
        door.command("hangup")
        door.wait_idle()
        door.wait_event("call_statistics")
        everything = door.events_file.read_text() + json.dumps(door.command("recent"))
        everything += json.dumps(door.status())
        for event in door.events("digit"):
            assert set(event) == {"at", "kind", "call", "source", "count", "rule"}
        for secret in (*secrets, "31415"):
            assert secret not in everything
        for secret in (*secrets[2:], f"{WRONG}#", "31415"):
            assert secret not in door.process.log_text()


def test_the_relay_falls_when_the_door_is_stopped_while_it_opens(town: Lab, tmp_path: Path) -> None:
    settings = {
        "peers.indoor.uri": "sip:198.51.100.1",
        "readers.gate": {"opens": "door", "accepts": ["0A00F8D3C5"]},
        "relays.door.pulse": 10,
    }
    with station(town, tmp_path, settings) as door:
        door.command("reader", name="gate", value="0A00F8D3C5")
        door.wait_status(lambda status: status["relays"]["door"]["on"], "the relay is on")
        assert door.stop() == 0
        assert not door.socket.exists()


def test_a_service_that_works_gives_signs_of_life(town: Lab, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        settings = {"peers.indoor.uri": "sip:198.51.100.1"}
        with station(town, tmp_path, settings, environment=environment):
            assert [systemd.recv(100) for _ in range(5)] == [b"WATCHDOG=1"] * 5


def test_a_full_disk_does_not_keep_the_door_shut(town: Lab, tmp_path: Path) -> None:
    settings = {
        "log.events": "/dev/full",
        "peers.indoor.uri": "sip:198.51.100.1",
        "readers.gate": {"opens": "door", "accepts": ["0A00F8D3C5"]},
    }
    assert os.path.exists("/dev/full")
    with station(town, tmp_path, settings) as door:
        door.command("reader", name="gate", value="0A00F8D3C5")
        door.wait_status(lambda status: status["relays"]["door"]["pulses"] == 1, "it opens")
        door.wait_status(lambda status: "No space" in status["log"]["fault"], "it is told")
        assert door.status()["log"]["lost"] >= 1
