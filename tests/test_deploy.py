"""What is installed on a machine beside the program."""

import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import doorstation

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "deploy/doorstation.service"


def test_systemd_finds_nothing_wrong_with_the_service(tmp_path: Path) -> None:
    # The program is not installed where the tests run.
    text = UNIT.read_text().replace("/opt/doorstation/bin/doorstation run", "/bin/true")
    unit = tmp_path / UNIT.name
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert UNIT.name not in done.stderr, done.stderr


def test_service_keeps_a_state_may_be_in_time_and_always_comes_back() -> None:
    lines = UNIT.read_text().splitlines()
    for wanted in ("StateDirectory=doorstation", "LimitRTPRIO=50", "Restart=always"):
        assert wanted in lines


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
