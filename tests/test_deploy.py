"""What is installed on a machine beside the program."""

import subprocess
from pathlib import Path

UNIT = Path(__file__).parent.parent / "deploy/doorstation.service"


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
