"""Run inside a kernel of its own, in simulated time: what a door at rest wakes in an hour.

Writes `wake-ups N`.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.process import Watched
from tests.support.uml.gpiosim import GpioSim

SETTINGS = """
[buttons.call]
pin = 17
steps = [{ ring = ["indoor"] }]

[contacts.door]
pin = 22

[relays.door]
pin = 27
codes = ["4711"]

[leds.status]
pin = 5

[peers.indoor]
uri = "sip:indoor@127.0.0.1:5064"

[sip]
listen = ["127.0.0.1"]

[log]
events = "FOLDER/events.jsonl"

[control]
socket = "FOLDER/control.sock"
"""


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    chip = GpioSim()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "doorstation.toml"
        file.write_text(SETTINGS.replace("FOLDER", folder))
        station = subprocess.Popen(
            [sys.executable, "-m", "doorstation", "run", "--config", str(file)]
        )
        time.sleep(30)
        chip.pull(22, 0)  # the door is closed, as it is most of the time
        time.sleep(30)
        watched = Watched(station.pid)
        time.sleep(3600)
        print("wake-ups", watched.cost().wakeups)
        station.terminate()
        station.wait(20)
    chip.close()


main()
