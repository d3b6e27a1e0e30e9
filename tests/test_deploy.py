"""What is installed on a machine beside the program."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import doorstation
import pytest

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "deploy/doorstation.service"


def test_systemd_finds_nothing_wrong_with_the_service(tmp_path: Path) -> None:
    # The program is not installed where the tests run.
    text = UNIT.read_text()
    for program in ("/opt/doorstation/bin/doorstation run", "/opt/doorstation/bin/python"):
        assert program in text
        text = text.replace(program, "/bin/true")
    unit = tmp_path / UNIT.name
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert UNIT.name not in done.stderr, done.stderr


def test_service_keeps_a_state_may_be_in_time_and_always_comes_back() -> None:
    lines = UNIT.read_text().splitlines()
    for wanted in (
        "StateDirectory=doorstation", "LimitRTPRIO=50", "Restart=always", "WatchdogSec=20",
    ):  # fmt: skip
        assert wanted in lines


# Pins that keep their level when their program dies, as those of a Raspberry Pi do.
LEVELS = """
import os
from gpiozero import Device
from gpiozero.pins.mock import MockFactory, MockPin

class Pin(MockPin):
    def _set_state(self, value):
        with open(os.environ["LEVELS"], "a") as levels:
            levels.write(f"{self.info.name}={int(value)} ")
        super()._set_state(value)

Device.pin_factory = MockFactory(pin_class=Pin)
"""

KILLED = """
import os, signal, sys
from doorstation import parts
from doorstation.settings.reader import parse
with parts.make(parse(sys.argv[1])) as board:
    board.relays["door"].energise()
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("high_is_on", "rest"), [("true", 0), ("false", 1)])
def test_a_door_that_is_killed_while_it_opens_is_put_to_rest_by_the_service(
    tmp_path: Path, high_is_on: str, rest: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(LEVELS)
    levels = tmp_path / "levels"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "LEVELS": str(levels),
        "RUNTIME_DIRECTORY": str(tmp_path),
    }
    settings = f"relays.door = {{ pin = 27, active_high = {high_is_on} }}"

    def door(ending: str) -> int:
        command = [sys.executable, "-c", KILLED, settings, ending]
        return subprocess.run(command, env=environment, check=False).returncode

    line = next(line for line in UNIT.read_text().splitlines() if line.startswith("ExecStopPost="))
    python, *module = shlex.split(line.partition("=")[2])
    assert python == "-/opt/doorstation/bin/python"
    after = [sys.executable, *module]

    assert door("killed") == -signal.SIGKILL
    assert levels.read_text().split()[-1] == f"GPIO27={1 - rest}"
    subprocess.run(after, env=environment, check=True)
    assert levels.read_text().split()[-1] == f"GPIO27={rest}"

    assert door("in order") == 0
    written = levels.read_text()
    assert written.split()[-1] == f"GPIO27={rest}"
    subprocess.run(after, env=environment, check=True)
    assert levels.read_text() == written


def test_a_release_writes_its_version_and_its_time_where_the_program_reads_them(
    tmp_path: Path,
) -> None:
    for name in ("deploy/release.sh", "firmware/doorstation/__init__.py", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run([tmp_path / "deploy/release.sh", "7.8.9"], check=True)
    found: dict[str, object] = {}
    exec((tmp_path / "firmware/doorstation/__init__.py").read_text(), found)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    assert found["__version__"] == project["version"] == "7.8.9"
    assert isinstance(found["BUILT"], float)
    assert abs(found["BUILT"] - time.time()) < 60


def test_this_version_is_the_packages_and_was_not_built_in_the_future() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert doorstation.__version__ == project["version"]
    assert time.time() > doorstation.BUILT
