"""A simulated GPIO chip (the kernel's gpio-sim, through configfs). Only inside run.sh."""

import time
from collections.abc import Mapping
from pathlib import Path

CONFIG = Path("/sys/kernel/config/gpio-sim")


class GpioSim:
    """`pull()` is the finger on an input, `level()` what an output does."""

    def __init__(
        self,
        name: str = "door",
        *,
        lines: int = 28,
        label: str = "pinctrl-bcm2711",
        names: Mapping[int, str] | None = None,
    ):
        self._config = CONFIG / name
        bank = self._config / "bank0"
        bank.mkdir(parents=True)
        (bank / "num_lines").write_text(str(lines))
        (bank / "label").write_text(label)
        for line, line_name in (names or {}).items():
            (bank / f"line{line}").mkdir()
            (bank / f"line{line}" / "name").write_text(line_name)
        (self._config / "live").write_text("1")
        chip = (bank / "chip_name").read_text().strip()
        device = (self._config / "dev_name").read_text().strip()
        self.path = Path("/dev") / chip
        self._lines = Path("/sys/devices/platform") / device / chip
        while not self.path.exists():
            time.sleep(0.01)

    def pull(self, line: int, level: int) -> None:
        (self._lines / f"sim_gpio{line}" / "pull").write_text("pull-up" if level else "pull-down")

    def level(self, line: int) -> int:
        return int((self._lines / f"sim_gpio{line}" / "value").read_text())

    def close(self) -> None:
        (self._config / "live").write_text("0")
        for line in (self._config / "bank0").glob("line*"):
            line.rmdir()
        (self._config / "bank0").rmdir()
        self._config.rmdir()
