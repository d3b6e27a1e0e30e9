"""The station's end of the control socket: what `doorstation ctl` asks, what followers see."""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import msgspec
from msgspec.structs import asdict

from doorstation import __version__
from doorstation.config_commands import ConfigCommands, tried
from doorstation.configurator import Configurator
from doorstation.door.controller import Door
from doorstation.door.events import (
    AnswerRequested,
    CallRequested,
    HangUpRequested,
    Input,
    Pressed,
    RejectRequested,
)
from doorstation.errors import DoorstationError
from doorstation.journal import Journal
from doorstation.media.digits import check_digits
from doorstation.media.verdict import verdict
from doorstation.net.agent_shell import AgentShell, Direction, masked
from doorstation.net.card_watch import CardWatch
from doorstation.net.control import KINDS, ControlServer
from doorstation.net.media.thread import MediaThread
from doorstation.parts import FakeInputs, Parts
from doorstation.provision.jws import PublicKey
from doorstation.provision.layers import Change, Tree
from doorstation.provisioner import first_use, remembered
from doorstation.recorder import Recorder
from doorstation.relays import Relays
from doorstation.settings.tree import Settings
from doorstation.sip.endpoint import Endpoint
from doorstation.sip.transport import Flow
from doorstation.sound import Sound
from doorstation.ua import events as ua
from doorstation.ua.agent import UserAgent

REGISTER_WITHIN: Final = 40.0
CHANGE_WITHIN: Final = 40.0


class Reach(msgspec.Struct, frozen=True):
    """The parts of a running station that commands act on and the status tells of."""

    settings: Settings
    board: Parts
    door: Door
    tell_door: Callable[[Input], None]
    agent: UserAgent
    endpoint: Endpoint
    shell: AgentShell
    media: MediaThread
    card: CardWatch
    sound: Sound
    relays: Relays
    journal: Journal
    recorder: Recorder
    configurator: Configurator | None


class Commands:
    """One command at a time from each client; events go to whoever subscribed to their kind."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._loop = asyncio.get_running_loop()
        self._registration = ua.RegistrationChanged(ua.RegistrationState.OFF, "", "")
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._state_due = False
        self.config = ConfigCommands(reach.configurator)
        self.identity: Callable[[], Mapping[str, str]] = dict
        """By what a commander knows the door."""
        self.certificate_request: Callable[[], bytes] = bytes
        """What its owner's authority signs, in PEM."""
        self.server: ControlServer | None = None
        """To be entered and run by the owner; None: no socket is wanted."""
        path = reach.settings.control.socket
        if path:
            self.server = ControlServer(
                path,
                self.handle,
                kinds=KINDS | {"state", "message"},
                wanted_changed=self._followers_changed,
            )
            reach.journal.follower = partial(self.server.publish, "record")

    def take(self, settings: Settings) -> None:
        """The station goes on with other settings."""
        self._reach = msgspec.structs.replace(self._reach, settings=settings)

    @property
    def pending(self) -> bool:
        """Whether a command waits for its outcome."""
        return bool(self._waiting)

    async def handle(self, command: str, args: Mapping[str, object]) -> object:
        """Carry out one command. Raises DoorstationError with why it did not work."""

        def text(name: str) -> str:
            value = args.get(name)
            if not isinstance(value, str) or not value:
                raise DoorstationError(f"{command} needs {name!r}")
            return value

        tell_door = self._reach.tell_door
        match command:
            case "status":
                return self.status()
            case "recent":
                return self._reach.journal.recent()
            case "press":
                self._press(text("name"))
            case "call":
                self._call(text("uri"))
            case "progress":
                self._progress()
            case "answer":
                self._ringing_call()
                tell_door(AnswerRequested())
            case "reject":
                code = args.get("code", 603)
                if not isinstance(code, int) or not 400 <= code <= 699:
                    raise DoorstationError("code: a status from 400 to 699")
                self._ringing_call()
                tell_door(RejectRequested(status=code))
            case "hangup":
                if not self._reach.door.call:
                    raise DoorstationError("there is no call")
                tell_door(HangUpRequested())
            case "hold" | "resume":
                await self._change(command)
            case "mute":
                self._mute(text("part"), text("state"))
            case "record":
                self._record(text("action"))
            case "dtmf":
                self._send_digits(text("digits"))
            case "message":
                await self._message(text("uri"), text("text"))
            case "register" | "unregister":
                await self._register(command)
            case "contact":
                self._fake().contact(text("name"), text("state"))
            case "reader":
                self._fake().reader(text("name"), text("value"))
            case "keys":
                return self._keys()
            case "certificate_request":
                return self.certificate_request().decode()
            case "key_add":
                key = {n: args[n] for n in ("public", "role", "opens", "scope") if args.get(n)}
                return await self._change_keys(Change({f"keys.{text('name')}": key}))
            case "key_revoke":
                return await self._revoke(text("name"))
            case _:
                return await self.config.handle(command, args)
        return {}

    # -- what the station tells

    def registration_changed(self, event: ua.RegistrationChanged) -> None:
        """The new state, for the status and for who waits for it."""
        self._registration = event
        match event.state:
            case ua.RegistrationState.REGISTERED:
                self._resolve("register", "")
            case ua.RegistrationState.RETRYING | ua.RegistrationState.REFUSED:
                self._resolve("register", event.why)
            case ua.RegistrationState.OFF:
                self._resolve("unregister", "")
            case _:
                pass

    def message_result(self, event: ua.MessageResult) -> None:
        """How a text that was sent fared."""
        why = "" if event.status < 300 else f"{event.status} {event.why}"
        self._resolve(f"message:{event.message}", why)

    def message_received(self, peer: str, text: str) -> None:
        """The words are the followers' business alone: they stand in no log."""
        if self.server is not None:
            self.server.publish("message", {"peer": peer, "text": text})

    def change_result(self, event: ua.CommandResult) -> None:
        """How a hold or resume ended."""
        self._resolve(f"{event.command}:{event.call}", "" if event.ok else event.why or "refused")

    def call_ended(self, call: str) -> None:
        """Nothing more comes of what was asked of this call."""
        for command in ("hold", "resume"):
            self._resolve(f"{command}:{call}", "the call ended")

    def state_changed(self) -> None:
        """Tell followers once for everything that happens in this turn of the loop."""
        if self.server is not None and not self._state_due:
            self._state_due = True
            self._loop.call_soon(self._publish_state)

    # -- status

    def status(self) -> dict[str, object]:
        """What `ctl status` shows. No secret in it."""
        reach, registration = self._reach, self._registration
        board = reach.board
        overruns, underruns = reach.media.xruns
        claim = None if reach.configurator is None else first_use(reach.configurator)
        return {
            "registration": {
                "state": registration.state.value,
                "registrar": registration.registrar,
                "why": registration.why,
                "expires": registration.expires,
                "contacts": registration.contacts,
            },
            "door": reach.door.phase.value,
            "faults": reach.door.faults,
            "calls": [
                self._call_status(name)
                for name, call in reach.agent.calls.items()
                if call.state is not ua.CallState.ENDED
            ],
            "relays": reach.relays.status(),
            "leds": {name: {"pattern": led.pattern} for name, led in board.leds.items()},
            "contacts": {
                name: {"closed": contact.closed} for name, contact in board.contacts.items()
            },
            "buttons": {name: {} for name in board.buttons},
            "card": "lost" if reach.card.fault else reach.media.card,
            "xruns": {"overruns": overruns, "underruns": underruns},
            "recording": reach.recorder.status(),
            "log": {"fault": reach.journal.fault, "lost": reach.journal.lost},
            "configuration": self.config.status(),
            "first_use": str(claim or ""),
            "counters": {k: v for k, v in reach.endpoint.counters.items() if v},
            "versions": {
                "doorstation": __version__,
                "python": ".".join(map(str, sys.version_info[:3])),
            },
        }

    def _call_status(self, name: str) -> dict[str, object]:
        call = self._reach.agent.calls[name]
        statistics = self._reach.sound.statistics(name)
        return {
            "id": name,
            "state": call.state.value,
            "direction": call.direction,
            "peer": call.peer,
            "codec": self._reach.sound.codecs.get(name),
            "encryption": self._reach.sound.encryption.get(name),
            "muted": sorted(self._reach.sound.muted) if name == self._reach.sound.talking else [],
            "verdict": verdict(statistics) if statistics is not None else None,
            "statistics": asdict(statistics) if statistics is not None else None,
        }

    # -- commands

    def _press(self, name: str) -> None:
        buttons = self._reach.settings.buttons
        if name not in buttons:
            known = ", ".join(buttons) or "none"
            raise DoorstationError(f"no button {name!r}; there are: {known}")
        self._reach.tell_door(Pressed(name))

    def _call(self, uri: str) -> None:
        fault = self._reach.settings.target_fault(uri)
        if fault:
            raise DoorstationError(fault)
        if self._reach.door.call:
            raise DoorstationError(f"busy: {self._reach.door.phase.value}")
        self._reach.tell_door(CallRequested(uri))

    def _ringing_call(self) -> str:
        call = self._reach.agent.calls.get(self._reach.door.call)
        if call is None or call.direction != "in" or call.state is not ua.CallState.RINGING:
            raise DoorstationError("no call rings here")
        return call.id

    def _progress(self) -> None:
        call = self._ringing_call()
        sound = self._reach.sound
        port = sound.open().rtp_port
        sound.progressing = call
        self._reach.shell.tell(lambda now: self._reach.agent.progress(call, port, now))

    async def _change(self, command: str) -> None:
        call = self._talking()
        agent, shell = self._reach.agent, self._reach.shell
        act = agent.hold if command == "hold" else agent.resume
        await self._outcome(
            f"{command}:{call}", lambda: shell.tell(lambda now: act(call, now)), CHANGE_WITHIN
        )

    async def _register(self, command: str) -> None:
        if self._reach.settings.account is None:
            raise DoorstationError("there is no account in the settings")
        if self._reach.agent.registration is None:
            raise DoorstationError("nothing says where to register: no setting, and no network")
        if command == "unregister" and self._registration.state is ua.RegistrationState.OFF:
            return  # as it was asked for
        agent, shell = self._reach.agent, self._reach.shell
        act = agent.register if command == "register" else agent.unregister
        await self._outcome(command, lambda: shell.tell(act), REGISTER_WITHIN)

    async def _message(self, uri: str, text: str) -> None:
        names: list[str] = []

        def send(now: float) -> list[object]:
            target = self._reach.settings.target_uri(uri)
            name, outputs = self._reach.agent.message(target, text, now)
            names.append(name)
            self._expect(f"message:{name}")  # the outputs may say already that there is no way
            return list(outputs)

        self._reach.shell.tell(send)
        await self._outcome(f"message:{names[0]}", lambda: None, CHANGE_WITHIN)

    async def _outcome(self, key: str, act: Callable[[], None], limit: float) -> None:
        """Do something, and wait for how it ends. Raises DoorstationError with why not."""
        waiting = self._expect(key)
        try:
            act()
            why = await asyncio.wait_for(asyncio.shield(waiting), limit)
        except TimeoutError:
            raise DoorstationError(f"no result within {limit:.0f} s") from None
        finally:
            self._waiting.pop(key, None)
        if why:
            raise DoorstationError(why)

    def _expect(self, key: str) -> asyncio.Future[str]:
        if key not in self._waiting:
            self._waiting[key] = self._loop.create_future()
        return self._waiting[key]

    def _resolve(self, key: str, why: str) -> None:
        waiting = self._waiting.get(key)
        if waiting is not None and not waiting.done():
            waiting.set_result(why)

    def _send_digits(self, digits: str) -> None:
        call, session = self._talking(), self._reach.sound.session
        if session is None:
            raise DoorstationError("there is no call")
        try:
            if session.can_send_events:
                session.send_digits(digits)
                return
            check_digits(digits)
            for digit in digits.upper():
                self._reach.shell.tell(partial(self._reach.agent.send_info_digit, call, digit))
        except ValueError as error:
            raise DoorstationError(str(error)) from error

    def _mute(self, part: str, state: str) -> None:
        if part not in ("microphone", "speaker") or state not in ("on", "off"):
            raise DoorstationError("mute needs microphone or speaker, and on or off")
        self._talking()
        self._reach.sound.mute(part, on=state == "on")

    def _record(self, action: str) -> None:
        match action:
            case "start":
                self._reach.recorder.ask(self._reach.sound.talking)
            case "stop":
                self._reach.recorder.stop()
            case _:
                raise DoorstationError("record needs start or stop")

    def _talking(self) -> str:
        call = self._reach.sound.talking
        if not call:
            raise DoorstationError("there is no call")
        return call

    def _keys(self) -> dict[str, object]:
        """Whom the door trusts: who may order it or sign its files; and by what they know it."""
        configurator, origins = self._reach.configurator, Tree({})
        owners: dict[str, str] = {}
        if configurator is not None:
            origins, known = configurator.tree, remembered(configurator)
            owners = dict.fromkeys(known.owners, known.rule)
        return {
            "door": dict(self.identity()),
            "keys": {
                name: {
                    "kid": PublicKey.parse(key.public).kid,
                    "origin": origins.origin(f"keys.{name}.public"),
                    **asdict(key),
                }
                for name, key in self._reach.settings.keys.items()
            },
            "owners": owners,
        }

    async def _revoke(self, name: str) -> object:
        configurator, change = self._reach.configurator, Change(unset=(f"keys.{name}",))
        if configurator is not None:
            left = configurator.tree.changed(change).raw.get("keys", {})
            # Without what was changed of it since, say its scope, it could do more than before.
            if name.partition(".")[0] in left:
                raise DoorstationError("a key of the file is taken out there; nothing was changed")
        return await self._change_keys(change)

    async def _change_keys(self, change: Change) -> object:
        configurator = self._reach.configurator
        if configurator is None:
            raise DoorstationError("nothing can be changed here")
        if not configurator.check(change):
            raise DoorstationError("nothing would change; a key of the file is taken out there")
        return tried(
            configurator,
            await configurator.stage(change, by="owner", how="keys", needs_word=False),
        )

    def _fake(self) -> FakeInputs:
        inputs = self._reach.board.inputs
        if inputs is None:
            raise DoorstationError("only the fake board can be driven; this one is real")
        return inputs

    # -- followers

    def _followers_changed(self) -> None:
        """Levels, frames and the wire cost something: only while somebody looks."""
        server, media = self._server, self._reach.media
        self._reach.shell.on_wire = self._on_wire if server.wanted("sip") else None
        media.watch_levels(self._levels if server.wanted("levels") else None)
        listening = server.wanted("audio:microphone") or server.wanted("audio:speaker")
        media.listen(self._frames if listening else None)

    @property
    def _server(self) -> ControlServer:
        assert self.server is not None, "who follows came by it"
        return self.server

    def _publish_state(self) -> None:
        self._state_due = False
        if self._server.wanted("state"):
            self._server.publish("state", self.status())

    def _levels(self, microphone_db: float, speaker_db: float) -> None:
        self._server.publish(
            "levels",
            {"microphone_db": round(microphone_db, 1), "speaker_db": round(speaker_db, 1)},
        )

    def _frames(self, microphone: bytes, speaker: bytes, rate: int) -> None:
        self._server.publish("audio:microphone", {"rate": rate, "pcm": microphone})
        self._server.publish("audio:speaker", {"rate": rate, "pcm": speaker})

    def _on_wire(self, direction: Direction, flow: Flow, data: bytes) -> None:
        if not data.strip():
            return
        text = masked(data)
        self._server.publish(
            "sip",
            {
                "direction": direction,
                "first_line": text.partition("\n")[0],
                "text": text,
                "at": time.monotonic(),
                "transport": flow.transport.value,
                "remote": f"{flow.remote[0]}:{flow.remote[1]}",
            },
        )
