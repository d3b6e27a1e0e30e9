"""Record what a busy line does to packets of speech: how bench/recorded_jitter.txt was made.

    tests/support/own-network.sh python -m bench.record_jitter FILE

A sender with a clock of 20 ms and uploads by TCP (reno) share a line of 1.5 Mbit/s with a queue of
120 ms: the kernel's token bucket on a cable between two networks, as a modem's uplink is one. An
upload of 150 to 600 kB begins every few seconds. Packets, queue and TCP are real, the line is slow
on request only. Written: each packet's milliseconds from when it was due, the least of all taken
away; "-" for one that was lost.
"""

import random
import socket
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from bench.far_end import in_time, stamped
from tests.support.lab import lab

SECONDS: Final = 60
_COUNT: Final = 50 * SECONDS
_PORT: Final = 4000
_LINE: Final = ("rate", "1500kbit", "burst", "3k", "latency", "120ms")
_NUMBER: Final = struct.Struct("!Id")
_PADDING: Final = bytes(172 - _NUMBER.size)


def send(address: str) -> None:
    """On the far side: packets at their times, and uploads beside them."""
    threading.Thread(target=_upload, args=(address,), daemon=True).start()
    in_time()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        begin = time.time() + 1.0
        for number in range(_COUNT):
            due = begin + number * 0.02
            time.sleep(max(0.0, due - time.time()))
            link.sendto(_NUMBER.pack(number, due) + _PADDING, (address, _PORT))
    time.sleep(1.0)


def _upload(address: str) -> None:
    chance = random.Random(1)
    while True:
        time.sleep(chance.uniform(1.0, 5.0))
        with socket.socket() as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
            link.connect((address, _PORT))
            link.sendall(bytes(chance.randrange(150_000, 600_000)))


def _swallow(server: socket.socket) -> None:
    while True:
        link, _ = server.accept()
        with link:
            while link.recv(65536):
                pass


def main(path: Path) -> None:
    with lab() as network, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
        link.bind((network.station, _PORT))
        link.settimeout(5.0)
        server = socket.create_server((network.station, _PORT))
        threading.Thread(target=_swallow, args=(server,), daemon=True).start()
        network.address()
        network.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *_LINE)
        command = (sys.executable, "-m", "bench.record_jitter", "--send", network.station)
        took: dict[int, float] = {}
        with (
            tempfile.TemporaryDirectory() as folder,
            network.program(*command, directory=Path(folder), log="sender.log") as sender,
        ):
            while len(took) < _COUNT:
                try:
                    data, at, _ = stamped(link)
                except TimeoutError:
                    break  # the last ones were lost
                number, due = _NUMBER.unpack(data[: _NUMBER.size])
                took[number] = at * 1e-9 - due
            if not took:
                raise SystemExit(f"nothing came: {sender.tail()}")
    least = min(took.values())
    words = [
        f"{1e3 * (took[number] - least):.1f}" if number in took else "-" for number in range(_COUNT)
    ]
    lines = [" ".join(words[place : place + 20]) for place in range(0, _COUNT, 20)]
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "--send":
        send(sys.argv[2])
    else:
        main(Path(sys.argv[1]).resolve())
