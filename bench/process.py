"""What a running process costs, from /proc."""

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """Between two looks at one process."""

    seconds: float
    cpu: float
    """Seconds of CPU, all threads."""
    wakeups: int
    """Times that one of its threads that live now went to sleep."""


class Watched:
    """A process, from now on."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        # The kernel's clock of another process's CPU time, to the nanosecond (see
        # clock_getcpuclockid(3)): /proc/PID/stat counts hundredths of a second.
        self._clock = (~pid << 3) | 2
        self._since = self._look()

    def cost(self) -> Cost:
        """Since the last call, or since it was made."""
        then, self._since = self._since, self._look()
        at, cpu, wakeups = (now - before for now, before in zip(self._since, then, strict=True))
        return Cost(at, cpu, int(wakeups))

    def memory(self) -> float:
        """Resident memory in MB of 1,000,000 bytes."""
        return self._status("VmRSS") * 1024 / 1e6

    def _look(self) -> tuple[float, float, float]:
        return time.monotonic(), time.clock_gettime(self._clock), self._wakeups()

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
        raise ProcessLookupError(f"process {self.pid} has no {name}")

    def _wakeups(self) -> int:
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            text = Path(f"/proc/{self.pid}/task/{task}/status").read_text()
            total += int(text.split("voluntary_ctxt_switches:")[1].split()[0])
        return total
