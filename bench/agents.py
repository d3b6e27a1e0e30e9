"""The programs measured, each started the way its users start it, on the same card and network."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from doorstation.errors import TransportError
from doorstation.net import control_client

from bench.card import Card
from bench.far_end import FarEnd
from tests.support.lab import Lab, Process, eventually
from tests.support.tls import Authority, CertificateFiles

REGISTERED_WITHIN: Final = 10.0

PLAIN_SOUND: Final = 'echo = "off"\nnoise_suppression = false\ngain_control = false'
"""Doorstation's sound as the others have it: as it comes from the card."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a measurement asks of a program."""

    auto_answer: bool = True
    rate: int = 8000
    """Of the sound card."""
    record: bool = True
    """Whether the card keeps what was played: costs a little CPU."""
    sound: bool = True
    """False: no sound card is opened (Doorstation: the fake board); else, with Doorstation, the
    drivers of a Pi over gpiozero's mock pins."""
    one_core: bool = False
    """Kept on the last core; the far end has the others."""
    peers: int = 0
    """How many other phones it knows."""
    calls: int = 1
    tls: bool = False
    """Whether it listens for TLS, on port 5061."""
    wide_band: bool = False
    """Whether it speaks G.722 and Opus too; Doorstation always does."""
    plain: bool = True
    """False: Doorstation's sound as its defaults have it: without echo and noise, at one level."""
    more: str = ""
    """Further sections of Doorstation's settings."""


class Running:
    """A program that has registered at the far end."""

    def __init__(self, process: Process, pid: int, peer: tuple[str, int], started: int) -> None:
        self.process = process
        self.pid = pid
        self.peer = peer
        """Where it listens for SIP."""
        self.started = started
        """When its process was made, ns of CLOCK_REALTIME."""

    def place_call(self) -> int:
        """Have it call the far end, as a press of its button would; when it was told."""
        raise NotImplementedError

    def hang_up(self) -> None:
        """Have it end the call."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.process.tail()


class Agent(Protocol):
    """A program that can be measured."""

    name: str

    def version(self) -> str:
        """Its version, "" when it is not installed."""
        ...

    def run(
        self, lab: Lab, far_end: FarEnd, card: Card, folder: Path, setup: Setup
    ) -> contextlib.AbstractContextManager[Running]:
        """Start it; returns once it has registered."""
        ...


def program_id(process: Process) -> int:
    """The process below the wrapper that entered the network for it."""
    outer = process._popen.pid
    children = Path(f"/proc/{outer}/task/{outer}/children")
    return eventually(lambda: int(children.read_text() or 0), "the program's start")


@contextlib.contextmanager
def _started(
    lab: Lab, far_end: FarEnd, card: Card, folder: Path, setup: Setup, command: list[str], log: str
) -> Iterator[tuple[Process, int, int]]:
    """(process, its id, when it was started) once it has registered."""
    folder.mkdir(parents=True, exist_ok=True)
    card.clear()
    card.speak(setup.rate)
    far_end.forget()
    if setup.one_core:
        command = ["taskset", "-c", str(_last_core()), *command]
    at = time.time_ns()
    environment = {
        **card.environment(record=setup.record),
        "GPIOZERO_PIN_FACTORY": "mock",  # gpiozero as on a Pi, over pins that are not there
    }
    with lab.program(*command, directory=folder, log=log, environment=environment) as process:
        try:
            process.ready(lambda: far_end.registered, "sends a REGISTER", REGISTERED_WITHIN)
        except AssertionError as fault:
            raise AssertionError(f"did not start: {process.tail(1)}\n{fault}") from None
        yield process, program_id(process), at


def _last_core() -> int:
    return max(os.sched_getaffinity(0))


# Doorstation


class Doorstation:
    name = "Doorstation"

    def version(self) -> str:
        from doorstation import __version__

        return __version__

    @contextlib.contextmanager
    def run(
        self, lab: Lab, far_end: FarEnd, card: Card, folder: Path, setup: Setup
    ) -> Iterator["RunningDoorstation"]:
        folder.mkdir(parents=True, exist_ok=True)
        address = lab.address()
        (folder / "doorstation.toml").write_text(_settings(far_end, address, folder, setup))
        program = str(Path(sys.executable).parent / "doorstation")
        command = [program, "run", "--config", str(folder / "doorstation.toml")]
        with _started(lab, far_end, card, folder, setup, command, "doorstation.log") as (
            process,
            pid,
            at,
        ):
            running = RunningDoorstation(process, pid, (address, 5060), at)
            running.control = folder / "control.sock"
            # Registered is what `status` says; the 200 may still be on its way.
            eventually(running.registered, "registered")
            yield running


class RunningDoorstation(Running):
    control: Path

    def registered(self) -> bool:
        try:
            status = control_client.call(str(self.control), "status")
        except TransportError:
            return False  # the REGISTER that was seen was another program's, again
        assert isinstance(status, dict)
        return bool(status["registration"]["state"] == "registered")

    def story(self) -> str:
        """All that it can say about itself: for a failure that may not come again."""
        try:
            status = json.dumps(control_client.call(str(self.control), "status"))
        except Exception as fault:  # that it does not answer is what is to be told
            status = f"no status: {fault}"
        return f"{self}\n{status}"

    def place_call(self) -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.connect(str(self.control))
            request = {"id": 1, "command": "press", "args": {"name": "call"}}
            line = json.dumps(request).encode() + b"\n"
            at = time.time_ns()
            link.sendall(line)
            link.recv(65536)
        return at

    def hang_up(self) -> None:
        control_client.call(str(self.control), "hangup")

    @contextlib.contextmanager
    def follow(self, kinds: str, seen: Callable[[dict[str, object]], None]) -> Iterator[None]:
        """Hand every event of these kinds over, in a thread, as it comes."""
        events = control_client.follow(str(self.control), kinds.split(","))

        def read() -> None:
            with contextlib.suppress(Exception):  # the program ended
                for event in events:
                    seen(event)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        time.sleep(0.3)  # subscribed
        yield


def _settings(far_end: FarEnd, address: str, folder: Path, setup: Setup) -> str:
    peers = "".join(
        f'[peers.phone{n}]\nuri = "sip:{n}@198.51.{n >> 8 & 0xFF}.{n & 0xFF}"\n'
        for n in range(setup.peers)
    )
    button = '[buttons.call]\npin = 17\nsteps = [{ ring = ["900"] }]\nshort_codes = true\n'
    relay = '[relays.door]\npin = 27\ncodes = ["5"]\npulse = 0.1\n'
    return f"""\
{button}{relay}{peers}
[board]
kind = "{"pi" if setup.sound else "fake"}"

[account]
user = "door"
domain = "{far_end.address}"
transport = "udp"
auto_answer = {"true" if setup.auto_answer else "false"}
may_open = true
short_codes = true

[sip]
listen = ["{address}"]
{_tls(address, folder) if setup.tls else ""}

[audio]
device = "vcard"
rate = {setup.rate}
{PLAIN_SOUND if setup.plain else ""}

[door]
max_call = 7200

[log]
events = "{folder}/events.jsonl"

[control]
socket = "{folder}/control.sock"

[provisioning]
state = "{folder}/state"
{setup.more}
"""


def _tls(address: str, folder: Path) -> str:
    files = _certificate(address, folder)
    return (
        'transports = ["udp", "tcp", "tls"]\n'
        f'[tls]\ncertificate = "{files.certificate}"\nkey = "{files.key}"'
    )


def _certificate(address: str, folder: Path) -> CertificateFiles:
    return Authority(folder).issue(address)


# baresip


class Baresip:
    name = "baresip"

    def version(self) -> str:
        if shutil.which("baresip") is None:
            return ""
        said = subprocess.run(
            ["dpkg-query", "-W", "-f=${Version}", "baresip-core"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        return said.partition("-")[0] or "of unknown version"

    @contextlib.contextmanager
    def run(
        self, lab: Lab, far_end: FarEnd, card: Card, folder: Path, setup: Setup
    ) -> Iterator["RunningBaresip"]:
        folder.mkdir(parents=True, exist_ok=True)
        address = lab.address()
        (folder / "config").write_text(_baresip_config(address, folder, setup))
        answer = ";answermode=auto" if setup.auto_answer else ""
        account = f"<sip:door@{far_end.address};transport=udp>;regint=3600"
        codecs = "PCMA/8000/1" + (",G722/16000/1,opus/48000/2" if setup.wide_band else "")
        (folder / "accounts").write_text(f"{account};audio_codecs={codecs}{answer}\n")
        (folder / "contacts").write_text(
            "".join(f"<sip:{n}@198.51.{n >> 8 & 0xFF}.{n & 0xFF}>\n" for n in range(setup.peers))
        )
        command = ["baresip", "-f", str(folder)]
        with _started(lab, far_end, card, folder, setup, command, "baresip.log") as (
            process,
            pid,
            at,
        ):
            running = RunningBaresip(process, pid, (address, 5060), at)
            running.callee = f"sip:900@{far_end.address}"
            eventually(running.connected, "its control port")
            yield running
            running.link.close()


class RunningBaresip(Running):
    link: socket.socket
    callee: str

    def connected(self) -> bool:
        try:
            self.link = socket.create_connection((self.peer[0], 4444), 1)
        except OSError:
            return False
        return True

    def place_call(self) -> int:
        return self.command("dial", self.callee)

    def hang_up(self) -> None:
        self.command("hangup")

    def command(self, name: str, params: str = "") -> int:
        text = json.dumps({"command": name, "params": params, "token": "1"}).encode()
        at = time.time_ns()
        self.link.sendall(b"%d:%s," % (len(text), text))
        return at


def _baresip_config(address: str, folder: Path, setup: Setup) -> str:
    """As its own template writes it, where nothing here asks for another value."""
    modules = [
        *Path("/usr/lib").glob("baresip/modules"),
        *Path("/usr/lib").glob("*/baresip/modules"),
    ]
    if not modules:
        raise AssertionError("no baresip/modules below /usr/lib: install baresip-core")
    return f"""\
poll_method epoll
sip_listen {address}:5060
net_interface {address}
{_baresip_tls(address, folder) if setup.tls else ""}
call_max_calls {max(4, 2 * setup.calls)}
call_hold_other_calls no
audio_player alsa,vcard
audio_source alsa,vcard
audio_alert alsa,vcard
ausrc_srate {setup.rate}
auplay_srate {setup.rate}
ausrc_channels 1
auplay_channels 1
rtp_tos 184
rtp_ports 16384-16482
jitter_buffer_delay 5-10
ctrl_tcp_listen {address}:4444
module_path {modules[0]}
module g711.so
{"module g722.so" if setup.wide_band else ""}
{"module opus.so" if setup.wide_band else ""}
module alsa.so
module ctrl_tcp.so
module uuid.so
module_tmp account.so
module_app contact.so
module_app menu.so
statmode_default off
"""


def _baresip_tls(address: str, folder: Path) -> str:
    files = _certificate(address, folder)
    both = folder / "both.pem"
    both.write_bytes(Path(files.certificate).read_bytes() + Path(files.key).read_bytes())
    return f"sip_certificate {both}"


AGENTS: Final[tuple[Agent, ...]] = (Doorstation(), Baresip())

OTHERS: Final = {"pjsua": "pjsua", "linphone": "linphone-daemon"}
"""Phones that would be worth a column, and their programs."""
