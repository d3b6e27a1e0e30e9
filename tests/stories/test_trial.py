"""`doorstation try` as a newcomer meets it: a browser, two stations, one call."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from doorstation.net.control_client import Refused, call, follow
from playwright.async_api import expect

from tests.support.browser import chromium
from tests.support.lab import eventually

VISITOR_DBFS = -40.0
"""The spoken sample is louder than this at the indoor phone; silence is far below."""


TRY = [sys.executable, *["-m", "doorstation", "try", "--no-browser", "--port", "0", "--runtime"]]


class Trial:
    def __init__(self, folder: Path, process: "subprocess.Popen[str]", address: str) -> None:
        self.folder = folder
        self.process = process
        self.address = address

    def ask(self, side: str, command: str, **args: object) -> object:
        return call(str(self.folder / f"{side}.sock"), command, args)


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    folder = tmp_path / 'a "try" {1}'
    with (tmp_path / "complaints").open("w") as complaints:
        process = subprocess.Popen(
            [*TRY, str(folder)], stdout=subprocess.PIPE, stderr=complaints, text=True
        )
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/\?t=\S+", process.stdout.readline())
        assert found is not None
        yield Trial(folder, process, found.group())
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
        assert process.stdout is not None
        process.stdout.close()
    assert (tmp_path / "complaints").read_text() == ""


async def test_press_answer_five_and_the_lamp_is_on(trial: Trial) -> None:
    async with chromium() as browser:
        page = await browser.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        await page.goto(trial.address)
        await expect(page.locator("#connection")).to_have_text("Running")
        await page.click("#call-button")
        await expect(page.locator("#phone-state")).to_have_text("Front door is ringing")
        await page.click("#answer")
        await expect(page.locator("#phone-state")).to_have_text("Talking to Front door")
        for method in ("INVITE", "180 Ringing", "200 OK", "ACK"):
            await expect(page.locator("#ladder")).to_contain_text(method)
        await page.click("#key-5")
        await expect(page.locator("#relay-lamp")).to_have_attribute("data-on", "true")
        await page.click("#hangup")
        await expect(page.locator("#phone-state")).to_have_text("Ready")
        await expect(page.locator("#ladder")).to_contain_text("BYE")
        assert faults == []
    assert trial.ask("door", "status")["relays"]["door"]["pulses"] == 1  # type: ignore[index]


def test_the_visitor_is_heard_at_the_indoor_phone(trial: Trial) -> None:
    trial.ask("door", "press", name="call")
    ring(trial)
    trial.ask("phone", "answer")
    for event in follow(str(trial.folder / "phone.sock"), ["levels"]):
        level = event["speaker_db"]
        assert isinstance(level, float)
        if level > VISITOR_DBFS:
            break


def test_it_prints_one_address_and_nothing_else(trial: Trial, tmp_path: Path) -> None:
    trial.ask("door", "press", name="call")
    ring(trial)
    trial.ask("phone", "answer")
    eventually(lambda: codecs(trial) == ["PCMA"], "they talk, by what needs no library")
    trial.ask("phone", "hangup")
    assert (tmp_path / "complaints").read_text() == ""


def codecs(trial: Trial) -> list[object]:
    return [call["codec"] for call in trial.ask("door", "status")["calls"]]  # type: ignore[index]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--runtime", "/dev/null"], "/dev/null: File exists; choose another --runtime"),
        (["--runtime", "/proc/try"], "/proc/try: No such file or directory; choose another"),
        (["--port", "99999"], "argument --port: a number from 0 to 65535"),
        (["--port=-1"], "argument --port: a number from 0 to 65535"),
    ],
)
def test_what_cannot_be_used_is_said_with_what_to_do(
    tmp_path: Path, more: list[str], why: str
) -> None:
    done = subprocess.run(
        [*TRY, str(tmp_path), *more], check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode in (1, 2)
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_try_leaves_the_first_ones_folder_and_port_alone(
    trial: Trial, tmp_path: Path
) -> None:
    port = trial.address.split("/")[2].partition(":")[2]
    for more, why in (
        ([str(trial.folder)], "a try runs there; choose another --runtime"),
        (
            [str(tmp_path / "two"), "--port", port],
            f"port {port} of 127.0.0.1: Address already in use; choose another with --port",
        ),
    ):
        done = subprocess.run([*TRY, *more], check=False, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert why in done.stderr
    assert (trial.folder / "door.toml").exists()
    assert trial.ask("door", "status")


def ring(trial: Trial) -> None:
    eventually(lambda: trial.ask("phone", "status")["calls"], "the phone rings")  # type: ignore[index]


def test_commands_that_cannot_work_say_why_and_fail(trial: Trial) -> None:
    for command, args, why in (
        ("answer", {}, "no call rings"),
        ("hangup", {}, "no call"),
        ("hold", {}, "no call"),
        ("press", {"name": "back"}, "there are: call"),
        ("register", {}, "no account"),
        ("contact", {"name": "gate", "state": "open"}, "there are: door"),
        ("dance", {}, "no command"),
    ):
        with pytest.raises(Refused, match=why):
            trial.ask("door", command, **args)


def test_fake_inputs_are_driven_by_ctl(trial: Trial) -> None:
    ctl = [sys.executable, "-m", "doorstation", "ctl", "--socket", str(trial.folder / "door.sock")]
    assert subprocess.run([*ctl, "contact", "door", "open"], check=False).returncode == 0
    status = trial.ask("door", "status")
    assert status["contacts"]["door"] == {"closed": False}  # type: ignore[index]
    assert subprocess.run([*ctl, "reader", "gate", "0A00F8D3C5"], check=False).returncode == 0
    assert trial.ask("door", "status")["relays"]["door"]["pulses"] == 1  # type: ignore[index]
    assert subprocess.run([*ctl, "reader", "gate", "0A00000000"], check=False).returncode == 0
    assert trial.ask("door", "status")["relays"]["door"]["pulses"] == 1  # type: ignore[index]
    wrong = subprocess.run([*ctl, "answer"], check=False, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (1, "doorstation: no call rings here\n")


def test_nothing_secret_stays_on_the_disk(trial: Trial) -> None:
    trial.ask("door", "press", name="call")
    ring(trial)
    trial.ask("phone", "answer")
    trial.ask("phone", "dtmf", digits="5")
    log = trial.folder / "door-events.jsonl"
    eventually(lambda: "release" in log.read_text(), "the release is recorded")
    lines = log.read_text()
    assert '"5"' not in lines
    for name in ("door.sock", "phone.sock", "door.toml", "door-events.jsonl"):
        assert os.stat(trial.folder / name).st_mode & 0o077 == 0, name


def test_a_follower_is_told_when_the_station_ends(trial: Trial) -> None:
    socket = str(trial.folder / "door.sock")
    ctl = [sys.executable, "-m", "doorstation", "ctl", "--socket", socket]
    with subprocess.Popen(
        [*ctl, "events", "--follow", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as follower:
        assert follower.stdout is not None
        while not select.select([follower.stdout], [], [], 0.05)[0]:  # it follows from now on
            trial.ask("door", "contact", name="door", state="open")
            trial.ask("door", "contact", name="door", state="closed")
        assert json.loads(follower.stdout.readline())["event"] == "contact"
        trial.process.send_signal(signal.SIGINT)
        _, complaint = follower.communicate(timeout=20)
        assert (follower.returncode, complaint) == (1, "doorstation: the station ended\n")
    trial.process.wait(15)  # a second Ctrl-C would end it at once, and not with 0


def test_a_terminal_that_is_closed_ends_door_and_phone_too(trial: Trial) -> None:
    trial.ask("door", "press", name="call")
    ring(trial)
    pid = trial.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 2
    trial.process.send_signal(signal.SIGHUP)
    assert trial.process.wait(15) == 0
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    left = {path.name for path in trial.folder.iterdir()}
    assert left == {"door-events.jsonl", "phone-events.jsonl"}
