"""A whole station under attack from its network: what it does, what it keeps, what it tells."""

import asyncio
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from doorstation import parts
from doorstation.door.controller import CONFIRM_SECONDS, Door
from doorstation.errors import TransportError
from doorstation.net import control_client
from doorstation.settings.reader import parse
from doorstation.station import Station as Composition
from doorstation.web.trial import check_ours

from tests.support.lab import Lab, eventually
from tests.support.station import CODE, Station, station, toml

HERE = "127.0.0.1"
FRIEND = "127.0.0.2"
STRANGER = "127.0.0.66"
PASSWORD = "s3cret-of-the-porter"
CARD = "0A00F8D3C5"


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HERE, 0))
        port: int = probe.getsockname()[1]
        return port


class Caller:
    """A phone made of two sockets, at an address of its own on loopback."""

    def __init__(self, host: str, door: int) -> None:
        self.host = host
        self.user = "friend"
        self.door = (HERE, door)
        self.sip = self._bound()
        self.rtp = self._bound()
        self.calls = 0
        self.tag = ""
        self.media = 0
        self.sequence = 0
        self.ssrc = int(host.rpartition(".")[2])
        self.cseq = 1

    def _bound(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((self.host, 0))
        made.settimeout(10)
        return made

    def close(self) -> None:
        self.sip.close()
        self.rtp.close()

    def send(
        self, method: str, body: str = "", kind: str = "application/sdp", *extra: str, cseq: int = 0
    ) -> None:
        port = self.sip.getsockname()[1]
        self.cseq += not cseq and method != "ACK"
        lines = [
            f"{method} sip:door@{HERE} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.host}:{port};branch=z9hG4bK{self.calls}.{self.cseq}.{method}",
            "Max-Forwards: 70",
            f"From: <sip:{self.user}@{self.host}>;tag=theirs",
            f"To: <sip:door@{HERE}>" + (f";tag={self.tag}" if self.tag else ""),
            f"Call-ID: {self.calls}@{self.host}",
            f"CSeq: {cseq or self.cseq} {method}",
            f"Contact: <sip:friend@{self.host}:{port}>",
            *extra,
            *([f"Content-Type: {kind}"] if body and kind else []),
            f"Content-Length: {len(body)}",
        ]
        self.sip.sendto(("\r\n".join(lines) + "\r\n\r\n" + body).encode(), self.door)

    def answer(self, status: int | str) -> str:
        """The next response of this status (or its beginning) to this call's last request."""
        while True:
            text = self.sip.recv(65535).decode()
            if re.match(rf"SIP/2.0 {status}(?s:.*)CSeq: {self.cseq} ", text):
                return text

    def call(self, *, greet: bool = True) -> None:
        self.calls += 1
        self.tag = ""
        self.send("INVITE", self.sdp())
        answer = self.answer(200)
        self.tag = re.findall(r"^To:.*tag=([^;\s]+)", answer, re.M)[0]
        self.media = int(re.findall(r"m=audio (\d+)", answer)[0])
        self.send("ACK", cseq=self.cseq)
        if greet:
            self.greet()

    def greet(self) -> None:
        """A little sound: what comes before the door's first period is thrown away."""
        for _ in range(5):
            time.sleep(0.02)
            self.speak()

    def hang_up(self) -> None:
        self.send("BYE")
        self.answer(200)

    def sdp(self) -> str:
        port = self.rtp.getsockname()[1]
        return (
            f"v=0\r\no=- 1 1 IN IP4 {self.host}\r\ns=-\r\nc=IN IP4 {self.host}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
        )

    def speak(self, payload_type: int = 8, payload: bytes = b"\xd5" * 160) -> None:
        self.sequence += 1
        header = struct.pack(
            "!BBHII", 0x80, payload_type, self.sequence, self.sequence * 160, self.ssrc
        )
        self.rtp.sendto(header + payload, (HERE, self.media))

    def type(self, digits: str) -> None:
        """By RFC 4733, from wherever this phone is."""
        for digit in digits:
            self.speak(101, bytes([int(digit), 10, 0, 160]))
            time.sleep(0.03)


@contextmanager
def house(network: Lab, folder: Path, **settings: object) -> Iterator[tuple[Station, Caller]]:
    port = free_port()
    known = {"uri": f"sip:friend@{FRIEND}", "auto_answer": True, "may_open": True}
    defaults = {"sip.port": port, "peers.friend": known, "audio.rtp_ports": "24000-24009"}
    with station(network, folder, {**defaults, **settings}, address=HERE) as door:
        friend = Caller(FRIEND, port)
        try:
            yield door, friend
        finally:
            friend.close()


def test_codes_cards_and_passwords_are_in_no_log_event_status_or_command_line(
    network: Lab, tmp_path: Path
) -> None:
    secrets = (CODE, "8662", "5791", CARD, PASSWORD)
    settings = {
        "readers.gate": {"opens": "door", "accepts": [CARD]},
        "peers.porter": {"uri": "sip:porter@127.0.0.9", "password": PASSWORD},
        "log.level": "debug",
    }
    with house(network, tmp_path, **settings) as (door, friend):
        followed: list[str] = []
        with follower(door, followed):
            friend.call()
            friend.type("8662")
            door.wait_event("code", rule="wrong_code", digits=4)
            for kind in ("application/dtmf", "text/plain", "", "application/dtmf-relay"):
                friend.send("INFO", "5791", kind)
                friend.answer("[24]")
            friend.send("INFO", f"{CODE} or {CODE}", "application/dtmf")
            friend.answer(400)
            friend.send("INFO", f"Signal={CODE}", "application/dtmf-relay")
            friend.answer(400)
            for digit in CODE:
                friend.send("INFO", f"Signal={digit}\r\nDuration=100\r\n", "application/dtmf-relay")
                friend.answer(200)
            door.wait_event("release", relay="door", rule="code")
            door.command("reader", name="gate", value=CARD)
            door.wait_event("release", relay="door", rule="card")
            with pytest.raises(control_client.Refused):
                door.command("reader", name=CARD, value=PASSWORD)
            friend.hang_up()
            door.wait_idle()
        told = [
            door.process.log_text(),
            door.events_file.read_text(),
            str(door.status()),
            "".join(followed),
            str(door.command("recent")),
            Path(f"/proc/{door.process._popen.pid}/cmdline").read_bytes().decode(),
        ]
        assert "INFO" in told[0]
        for text in told:
            # Call-IDs, tags and ports are long or short numbers of their own.
            words = set(re.findall(r"(?<![0-9a-zA-Z.-])[0-9A-Za-z-]{4,}(?![0-9a-zA-Z.-])", text))
            assert not words.intersection(secrets)


@contextmanager
def follower(door: Station, lines: list[str]) -> Iterator[None]:
    """Collects everything that a page would be told, but the sound."""

    def collect() -> None:
        kinds = ["record", "sip", "state", "message", "levels"]
        for event in control_client.follow(str(door.socket), kinds):
            lines.append(str(event))

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    yield


def test_call_goes_on_and_memory_stays_flat_in_a_flood_of_strangers(
    network: Lab, tmp_path: Path
) -> None:
    with house(network, tmp_path, **{"log.level": "info"}) as (door, friend):
        friend.call()
        stranger = Caller(STRANGER, friend.door[1])
        try:
            stranger.sip.setblocking(False)
            stranger.media = friend.media
            before = memory(door)
            for number in range(8000):
                stranger.calls += 1
                method = ("INVITE", "REGISTER", "OPTIONS", "MESSAGE", "BYE", "INFO")[number % 6]
                stranger.tag = "guessed" if method in ("BYE", "INFO") else ""
                stranger.send(method, stranger.sdp())
                stranger.speak()
                if number % 40 == 0:
                    friend.speak()
                    empty(stranger.sip)
                    time.sleep(0.02)
        finally:
            stranger.close()
        assert memory(door) < before + 8_000
        [call] = door.calls()
        assert call["state"] == "connected"
        empty(friend.rtp)
        friend.rtp.settimeout(5)
        for _ in range(20):
            assert len(friend.rtp.recv(2048)) == 172
        assert len(door.events("refused")) <= 5
        friend.hang_up()
        door.wait_idle()


def test_long_words_of_strangers_make_no_long_line_in_the_event_log(
    network: Lab, tmp_path: Path
) -> None:
    with house(network, tmp_path) as (door, friend):
        stranger = Caller(STRANGER, friend.door[1])
        try:
            stranger.send("A" * 2000)
            door.wait_event("refused")
        finally:
            stranger.close()
        friend.user = "f" * 1000
        friend.send("MESSAGE", "hello", "text/plain")
        door.wait_event("message")
        friend.calls += 1
        friend.send("INVITE", friend.sdp())
        door.wait_event("call_in")
        assert max(map(len, door.events_file.read_text().splitlines())) < 400


def test_digits_injected_by_another_host_open_nothing(network: Lab, tmp_path: Path) -> None:
    """With the right code, before the phone says a word and while it speaks."""
    with house(network, tmp_path) as (door, friend):
        friend.call(greet=False)
        time.sleep(0.1)
        intruder = Caller(STRANGER, friend.door[1])
        try:
            intruder.media = friend.media
            intruder.type(CODE * 3)
            door.wait_event("digit", source="stray", rule="stray")
            friend.greet()
            intruder.greet()
            intruder.type(CODE * 3)
        finally:
            intruder.close()
        assert door.pulses() == 0
        friend.type(CODE)
        door.wait_event("release", relay="door", rule="code")
        assert door.pulses() == 1


def test_a_call_that_nobody_acknowledges_keeps_no_visitor_from_ringing(
    network: Lab, tmp_path: Path
) -> None:
    """Who forges a known phone's address has the door answer, but never sees its answer."""
    with house(network, tmp_path, **{"buttons.call.steps": [{"ring": ["friend"]}]}) as (
        door,
        friend,
    ):
        friend.calls += 1
        friend.send("INVITE", friend.sdp())
        friend.answer(200)
        time.sleep(CONFIRM_SECONDS + 0.1)
        door.press()
        door.wait_event("call_ended", rule="unconfirmed")
        door.wait_event("call_out")
        door.wait_event("call_failed")
        friend.call()
        time.sleep(CONFIRM_SECONDS + 0.1)
        door.press()
        door.wait_event("press", rule="one_call")
        friend.hang_up()


def test_lock_out_outlives_the_call(network: Lab, tmp_path: Path) -> None:
    """Dialling again, and guessing by another way, is no new row of guesses."""
    with house(network, tmp_path, **{"door.wrong_codes": 2}) as (door, friend):
        for _ in range(2):
            friend.call()
            friend.type("0000")
            door.wait_event("code", rule="wrong_code")
            friend.hang_up()
            door.wait_idle()
        friend.call()
        friend.type(CODE + "000000000000")
        door.wait_event("code", rule="locked_out")
        friend.hang_up()
        door.wait_idle()
        friend.call()
        for digit in CODE:
            friend.send("INFO", f"Signal={digit}", "application/dtmf-relay")
            friend.answer(200)
        door.wait_event("code", rule="locked_out")
        assert door.pulses() == 0


def test_control_socket_and_event_log_are_for_their_owner_alone(
    network: Lab, tmp_path: Path
) -> None:
    with house(network, tmp_path) as (door, friend):
        friend.call()
        door.wait_event("answered")
        assert door.socket.stat().st_mode & 0o777 == 0o600
        assert door.events_file.stat().st_mode & 0o777 == 0o600


def test_trial_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """In /tmp somebody could have made it before us, with links to our files in it."""
    check_ours(tmp_path)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(TransportError, match="written by others"):
        check_ours(shared)
    link = tmp_path / "link"
    link.symlink_to("/tmp")
    with pytest.raises(TransportError):
        check_ours(link)


async def test_fault_in_a_timer_ends_the_service_with_the_relay_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaints: list[str]
) -> None:
    """asyncio logs what a timer raises and goes on: a door that never comes to rest again."""
    settings = parse(
        toml(
            {
                "board.kind": "fake",
                "sip.listen": [HERE],
                "sip.port": free_port(),
                "relays.door.codes": [CODE],
                "relays.door.pulse": 10,
                "peers.friend.uri": f"sip:friend@{FRIEND}",
                "readers.gate": {"opens": "door", "accepts": [CARD]},
                "audio.rate": 8000,
                "control.socket": "",
                "log.events": "",
            }
        )
    )
    with parts.make(settings) as board:
        running = asyncio.create_task(Composition(settings, board).run(asyncio.Event()))
        assert board.inputs is not None
        await asyncio.sleep(0.2)
        board.inputs.reader("gate", CARD)
        await asyncio.to_thread(eventually, lambda: board.relays["door"].on, "the relay is on")

        def broken(*_: object) -> None:
            raise ZeroDivisionError("a fault of ours")

        monkeypatch.setattr(Door, "handle", broken)
        board.inputs.reader("gate", CARD)
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(running, 10)
        assert caught.group_contains(ZeroDivisionError)
        assert "a fault of ours" in complaints.pop()
        assert not board.relays["door"].on


def memory(door: Station) -> int:
    """Kilobytes in use."""
    pid = door.process._popen.pid
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


def empty(channel: socket.socket) -> None:
    channel.setblocking(False)
    try:
        while True:
            channel.recv(65535)
    except BlockingIOError:
        pass
