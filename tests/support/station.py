"""A whole door station in a process of its own, driven as its owner drives it.

    with lab() as network, station(network, tmp_path, {"peers.indoor.uri": phone.uri}) as door:
        door.command("press", name="call")
        door.wait_call("connected")
        door.wait_event("release", relay="door")

The settings are written in full TOML with dotted keys; `DEFAULTS` make a door on the fake board
with one button, one relay and one LED. What happened is read from the event log on disk, what is
the case from the control socket.
"""

import base64
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from doorstation.errors import TransportError
from doorstation.net import control_client
from doorstation.station import RESTART

from tests.support.lab import Lab, Process
from tests.support.peers import Kamailio

T = TypeVar("T")

FAULTS = ("Traceback", "was never awaited", "was destroyed but it is pending")
"""What no log may hold, its end included."""

CODE = "4711"
WRONG = "9876"

# The speech of the stories is noise, so as to be like nothing else: a door would take it out.
AS_IT_IS: Mapping[str, Any] = {
    "audio.echo": "off",
    "audio.noise_suppression": False,
    "audio.gain_control": False,
}

DEFAULTS: Mapping[str, Any] = {
    **AS_IT_IS,
    "board.kind": "fake",
    "relays.door.codes": [CODE],
    "relays.door.pulse": 0.5,
    "leds.status": {},
    "audio.rate": 8000,
    "door.digit_timeout": 1.0,
    "door.wrong_codes": 10,
    "log.level": "debug",
}


class Station:
    """A running station: commands in, status and event log out."""

    def __init__(self, process: Process, directory: Path, address: str) -> None:
        self.process = process
        self.directory = directory
        self.address = address
        self.file = directory / "door.toml"
        self.socket = directory / "door.sock"
        self.events_file = directory / "events.jsonl"
        self._seen = 0
        self.cut = False

    def uri(self, user: str = "door") -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"sip:{user}@{host}"

    def command(self, name: str, /, **args: object) -> Any:
        """One command of the control socket; raises control_client.Refused with why not."""
        return control_client.call(str(self.socket), name, args)

    def ctl(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """`doorstation ctl WORDS`, as typed by the owner."""
        return doorstation("ctl", "--socket", str(self.socket), *words)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.command("status")
        return found

    def press(self) -> None:
        self.command("press", name="call")

    def calls(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.status()["calls"]
        return found

    def wait_call(self, state: str, seconds: float = 10.0) -> dict[str, Any]:
        """Wait until a call is in this state."""

        def found() -> dict[str, Any] | None:
            return next((call for call in self.calls() if call["state"] == state), None)

        call = self._ready(found, f"a call that is {state}", seconds)
        assert call is not None
        return call

    def wait_idle(self, seconds: float = 10.0) -> None:
        """Wait until no call is left, and the door is at rest."""

        def idle() -> bool:
            status = self.status()
            return not status["calls"] and status["door"] == "idle"

        self._ready(idle, "no call left", seconds)

    def wait_registered(self, seconds: float = 10.0) -> None:
        self.wait_registration("registered", seconds)

    def wait_registration(self, state: str, seconds: float = 10.0) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            registration: dict[str, Any] = self.status()["registration"]
            return registration if registration["state"] == state else None

        registration = self._ready(found, f"registration {state}", seconds)
        assert registration is not None
        return registration

    def pulses(self, relay: str = "door") -> int:
        count: int = self.status()["relays"][relay]["pulses"]
        return count

    def events(self, kind: str = "", **fields: object) -> list[dict[str, Any]]:
        """What has happened of this kind and with these fields."""
        self._wait_written()
        return self._in_log(kind, **fields)

    def _in_log(self, kind: str = "", **fields: object) -> list[dict[str, Any]]:
        if not self.events_file.exists():
            return []
        text = self.events_file.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        found = [json.loads(line) for line in lines]
        return [
            event
            for event in found
            if kind in ("", event["kind"]) and fields.items() <= event.items()
        ]

    def wait_event(self, kind: str, seconds: float = 10.0, **fields: object) -> dict[str, Any]:
        """Wait for the next such event after the last one waited for."""

        def found() -> dict[str, Any] | None:
            for index, event in enumerate(self._in_log()):
                if index < self._seen or event["kind"] != kind:
                    continue
                if fields.items() <= event.items():
                    self._seen = index + 1
                    return event
            return None

        try:
            event = self._ready(found, f"the event {kind} {fields or ''}", seconds)
        except AssertionError as fault:
            kinds = "\n".join(json.dumps(each) for each in self._in_log()[self._seen :])
            raise AssertionError(f"{fault}\nevents since the last wait:\n{kinds}") from None
        assert event is not None
        return event

    def new_events(self, kind: str) -> list[dict[str, Any]]:
        """Events of this kind since the last one waited for."""
        return [event for event in self.events()[self._seen :] if event["kind"] == kind]

    def skip_events(self) -> None:
        """Forget what has happened: the next wait is for something new."""
        self._seen = len(self.events())

    def _wait_written(self) -> None:
        """Wait until the disk has what happened, which it gets a moment later."""
        try:
            recent = self.command("recent")
        except OSError:
            return  # it has ended, and wrote everything before
        if recent:
            last = recent[-1]
            self._ready(lambda: self._in_log(last["event"], at=last["at"]), "its event log", 10)

    def wait_status(self, holds: Callable[[dict[str, Any]], bool], what: str) -> None:
        """Wait until something holds of `status`."""
        self._ready(lambda: holds(self.status()), what, 10)

    def wait_log(self, text: str, seconds: float = 10.0) -> None:
        """Wait until the diagnostic log, which shows every message on the wire, holds a text."""
        self._ready(lambda: text in self.process.log_text(), f"{text!r} in the log", seconds)

    @contextmanager
    def listening(self, side: str = "speaker") -> Iterator[bytearray]:
        """The sound of one side (mono S16 at the card's rate) while the block runs."""
        kind = f"audio:{side}"
        pcm = bytearray()
        events = control_client.follow(str(self.socket), [kind])
        ended = threading.Event()

        def collect() -> None:
            for event in events:
                if ended.is_set():
                    break
                if event.get("kind") == kind:
                    pcm.extend(base64.b64decode(str(event["pcm"])))

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        try:
            yield pcm
        finally:
            ended.set()  # the thread ends with the station, or at the next period

    def stop(self, seconds: float = 8.0) -> int:
        """End it in order; the exit status."""
        self.process.send(signal.SIGTERM)
        return self.process.wait(seconds)

    def cut_power(self) -> None:
        """End it in the middle of whatever it does."""
        self.cut = True
        self.process.send(signal.SIGKILL)
        self.process.wait(8.0)

    def config(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """`doorstation config WORDS`, as typed by the owner."""
        return doorstation("config", "--socket", str(self.socket), *words)

    def _ready(self, condition: Callable[[], T], what: str, seconds: float) -> T:
        return self.process.ready(condition, what, seconds)


@contextmanager
def station(
    lab: Lab,
    directory: Path,
    settings: Mapping[str, Any],
    *,
    address: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Station]:
    """Run a station with `DEFAULTS` and `settings` (dotted keys) until the block ends.

    Up on return: its control socket answers. It listens on the lab's station address only, so that
    stations of several labs may sit on port 5060.
    """
    directory.mkdir(parents=True, exist_ok=True)
    address = address or lab.station
    config = directory / "door.toml"
    own = {
        "sip.listen": [address],
        "log.events": str(directory / "events.jsonl"),
        "control.socket": str(directory / "door.sock"),
    }
    config.touch(mode=0o600)
    config.write_text(toml({**own, **DEFAULTS, **settings}))
    command = (sys.executable, "-m", "doorstation", "run", "--config", str(config))
    with lab.program(
        *command, directory=directory, log="station.log", environment=environment, here=True
    ) as process:
        running = Station(process, directory, address)
        process.ready(lambda: _answers(running), "answers at its control socket", 20)
        yield running
        status = running.stop() if process.returncode is None else process.returncode
        assert running.cut or status in (0, RESTART), process.tail()
        log = process.log_text()
        assert not any(fault in log for fault in FAULTS), log


def account(
    proxy: Kamailio, transport: Literal["udp", "tcp", "tls"] = "udp", user: str = "door"
) -> dict[str, Any]:
    """The settings of an account at a registrar."""
    return {
        "account.user": user,
        "account.domain": proxy.domain,
        "account.password": proxy.users[user],
        "account.registrar": f"{proxy.address}:{proxy.port(transport)}",
        "account.transport": transport,
        "tls.ca_file": str(proxy.ca),
    }


def doorstation(*words: str) -> "subprocess.CompletedProcess[str]":
    """One `doorstation` command, to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "doorstation", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def toml(settings: Mapping[str, Any]) -> str:
    """Settings by dotted keys as a file: every value in TOML's inline form."""
    return "".join(f"{key} = {_value(value)}\n" for key, value in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def _answers(running: Station) -> bool:
    if not running.socket.exists():
        return False
    try:
        running.status()
    except TransportError:
        return False
    return True
