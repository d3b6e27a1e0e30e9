"""A day.

A day of the user agent in simulated time, in a process of its own: registered for 300 s at a time
at a registrar that challenges, keep-alives every 30 s, a call out and a call in every ten minutes,
two minutes each, and a stranger's call refused every minute; 1 % of all packets are lost. *Memory*
is what Python holds for living objects after a collection.
"""

import json
import subprocess
import sys

from bench.run import Bench
from bench.table import OURS, Row


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    hours = bench.count(24, 3)
    done = subprocess.run(
        [sys.executable, "-m", "bench.simulated_day", str(hours)],
        cwd=bench.root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found = json.loads(done.stdout)
    return [
        Row("memory after the first simulated hour", "MB", {OURS: found["first"]}),
        Row(f"memory after {hours} simulated hours", "MB", {OURS: found["last"]}),
        Row("objects that came in between", "", {OURS: found["objects"]}),
        Row("a simulated hour takes", "s", {OURS: found["seconds"]}),
    ], [
        f"{found['calls']} calls, {found['refused']} refused, "
        f"{found['registrations']} registrations, {found['packets']} packets",
        f"left at the end: {found['left']}",
    ]
