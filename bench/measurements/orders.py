"""Orders by SIP MESSAGE.

*Received to applied*: from sending a signed change with its credentials by UDP, the challenge
answered, to the event `configuration` that says that the door runs with it: judged, checked whole,
on disk (two syncs), taken over. *To kept*: from sending `confirm` to the event that says so.
*Hostile*: the call of *In a call*, the program kept on one core, while strangers on the others send
2,000 orders a second without a signature, half of them with credentials that prove nothing, from 50
addresses. Only Doorstation has it.
"""

import hashlib
import itertools
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from doorstation.net import control_client
from doorstation.provision.jws import PrivateKey
from doorstation.ua.inspect import ORDERS

from bench.agents import Doorstation, Running, RunningDoorstation, Setup
from bench.measurements.talk import SETTLING, cadence
from bench.process import Watched
from bench.run import Bench, cores
from bench.table import OURS, Row, Target, median, percentile

WORD = "proved-by-the-office"
PER_SECOND = 2000
NEAR_MS = 5.0


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    key = PrivateKey.new()
    more = (
        f'[keys.office]\npublic = "{key.public.text}"\nrole = "admin"\n'
        f'[commanders.office]\npassword = "{WORD}"\n'
    )
    addresses = _addresses(bench)
    applied, kept = _changes(bench, addresses, key, more)
    return [
        Row("order received to applied, median", "ms", {OURS: median(applied)}, Target(20)),
        Row("order received to applied, 99 %", "ms", {OURS: percentile(applied, 0.99)}),
        Row("confirm received to kept, median", "ms", {OURS: median(kept)}, Target(50)),
        *_hostile(bench, addresses, more),
    ], []


def _addresses(bench: Bench) -> list[str]:
    """Fifty more on the far end's side, from the top: the programs' own count up from 2."""
    network, made = bench.lab.station.rpartition(".")[0], []
    for host in range(205, 255):
        made.append(f"{network}.{host}")
        command = ["ip", "addr", "replace", f"{made[-1]}/24", "dev", bench.lab.interface]
        subprocess.run(command, check=True)
    return made


class Office:
    """One commander at an address of his own, so that none of his orders has to wait."""

    def __init__(self, address: str, running: Running, key: PrivateKey, door: str) -> None:
        self._link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._link.bind((address, 0))
        self._link.settimeout(5)
        self._peer = running.peer
        self._key = key
        self._door = door
        self._counter = itertools.count(time.time_ns() // 1_000_000)

    def close(self) -> None:
        self._link.close()

    def orders(self, op: str, **fields: Any) -> int:
        """Give an order; when it was sent with its credentials."""
        counter = next(self._counter)
        order = {"sub": self._door, "ctr": counter, "iat": int(time.time()), "op": op, **fields}
        token = self._key.sign(json.dumps(order).encode()).encode()
        here = self._link.getsockname()
        self._link.sendto(_message(here, self._peer, counter, 1, token), self._peer)
        [nonce] = re.findall(r'nonce="([^"]*)"', self._answer("401"))
        proof = _proof(self._door, nonce)
        message = _message(here, self._peer, counter, 2, token, proof)
        at = time.time_ns()
        self._link.sendto(message, self._peer)
        self._answer("202")
        return at

    def _answer(self, status: str) -> str:
        while True:  # results come too
            text = self._link.recv(65535).decode()
            if text.startswith("SIP/2.0 "):
                if not text.startswith(f"SIP/2.0 {status}"):
                    raise AssertionError(text)
                return text


def _changes(
    bench: Bench, addresses: list[str], key: PrivateKey, more: str
) -> tuple[list[float], list[float]]:
    seen: dict[str, list[int]] = {"applied": [], "confirmed": []}

    def heard(event: dict[str, object]) -> None:
        if event.get("event") == "configuration" and event["state"] in seen:
            seen[str(event["state"])].append(time.time_ns())

    def wait(state: str, count: int) -> None:
        limit = time.monotonic() + 5
        while len(seen[state]) < count:
            if time.monotonic() > limit:
                raise AssertionError(f"not {state} within 5 s")
            time.sleep(0.001)

    sent: list[int] = []
    confirmed: list[int] = []
    with bench.start(Doorstation(), Setup(sound=False, more=more)) as running:
        assert isinstance(running, RunningDoorstation)
        keys: Any = control_client.call(str(running.control), "keys")
        with running.follow("record", heard):
            for number, address in enumerate(addresses[: bench.count(50, 5)], 1):
                office = Office(address, running, key, keys["door"]["door"])
                change = {"audio.speaker_gain": -1.0 - number % 20}
                sent.append(office.orders("set", set=change))
                wait("applied", number)
                confirmed.append(office.orders("confirm", of=number))
                wait("confirmed", number)
                office.close()
                time.sleep(0.3)  # what is told and kept of it is on disk
    return _delays(sent, seen["applied"]), _delays(confirmed, seen["confirmed"])


def _delays(sent: list[int], seen: list[int]) -> list[float]:
    return [(at - begun) / 1e6 for at, begun in zip(seen, sent, strict=True)]


def _hostile(bench: Bench, addresses: list[str], more: str) -> list[Row]:
    far_end = bench.far_end
    with bench.start(Doorstation(), Setup(one_core=True, record=False, more=more)) as running:
        call = far_end.connected(far_end.call(running.peer))
        time.sleep(SETTLING)
        watched = Watched(running.pid)
        calm = time.time_ns()
        time.sleep(bench.seconds(30, 5))
        stormy = time.time_ns()
        with _storm(addresses, running.peer) as counted:
            time.sleep(1)
            memory, begin, sent = watched.memory(), time.time_ns(), counted["sent"]
            time.sleep(bench.seconds(30, 5))
            grown, end = watched.memory() - memory, time.time_ns()
            rate = (counted["sent"] - sent) / (end - begin) * 1e9
        far_end.hang_up(call)
        time.sleep(0.5)
    before, meanwhile = (
        _near([at for at in call.media.packets.arrivals if first < at < last])
        for first, last in ((calm, stormy), (begin, end))
    )
    answered = 100 * counted["answered"] / counted["sent"]
    return [
        Row("hostile orders", "a second", {OURS: rate}, Target(0.98 * PER_SECOND, at_least=True)),
        Row("hostile orders answered", "%", {OURS: answered}),
        Row("packets within 5 ms of 20 before", "%", {OURS: before}),
        Row("the same meanwhile", "%", {OURS: meanwhile}, Target(99.9, at_least=True)),
        Row("RSS grown meanwhile", "MB", {OURS: grown}, Target(1)),
    ]


def _near(arrivals: list[int]) -> float:
    """Percentage of packets that come within 5 ms of 20 after the one before."""
    gaps = cadence(arrivals)
    return 100 * sum(abs(gap - 20) <= NEAR_MS for gap in gaps) / len(gaps)


@contextmanager
def _storm(addresses: list[str], peer: tuple[str, int]) -> Iterator[dict[str, int]]:
    links = []
    for address in addresses:
        link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        link.bind((address, 0))
        link.setblocking(False)
        links.append(link)
    counted = {"sent": 0, "answered": 0}
    stop = threading.Event()
    proof = _proof("8e2b1c34-0000-4000-8000-b827eb010203", "1-2.3")

    def run() -> None:
        others, _ = cores()
        os.sched_setaffinity(0, others)
        token = b"x" * 222
        begin = time.monotonic()
        while not stop.wait(0.005):
            due = int((time.monotonic() - begin) * PER_SECOND)
            while counted["sent"] < due:
                number = counted["sent"]
                link = links[number % len(links)]
                extra = proof if number % 2 else ""
                here = link.getsockname()
                link.sendto(_message(here, peer, number, 1, token, extra), peer)
                counted["sent"] += 1
            for link in links:
                try:
                    while link.recv(2048):
                        counted["answered"] += 1
                except BlockingIOError:
                    continue

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield counted
    finally:
        stop.set()
        thread.join()
        for link in links:
            link.close()


def _message(
    here: tuple[str, int],
    peer: tuple[str, int],
    number: int,
    cseq: int,
    token: bytes,
    credentials: str = "",
) -> bytes:
    head = (
        f"MESSAGE sip:door@{peer[0]} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {here[0]}:{here[1]};branch=z9hG4bK{number}.{cseq}\r\n"
        f"Max-Forwards: 70\r\nFrom: <sip:office@{here[0]}:{here[1]}>;tag={number}\r\n"
        f"To: <sip:door@{peer[0]}>\r\nCall-ID: {number}@{here[0]}\r\nCSeq: {cseq} MESSAGE\r\n"
        f"{credentials}Content-Type: {ORDERS}\r\nContent-Length: {len(token)}\r\n\r\n"
    )
    return head.encode() + token


def _proof(door: str, nonce: str) -> str:
    def sha(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    realm, uri = f"{door}.config", "sip:door"
    rest = f"{nonce}:00000001:c:auth:{sha(f'MESSAGE:{uri}')}"
    response = sha(f"{sha(f'office:{realm}:{WORD}')}:{rest}")
    return (
        f'Authorization: Digest username="office", realm="{realm}", nonce="{nonce}", uri="{uri}", '
        f'algorithm=SHA-256, qop=auth, nc=00000001, cnonce="c", response="{response}"\r\n'
    )
