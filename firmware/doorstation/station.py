"""Composition: builds the parts from the settings, joins them, stops them in order.

The rooms below know nothing of each other; what one says is translated here into what another
hears. `Station` holds no rule of its own: who may open is `door`'s, who may call is `ua`'s.
"""

import asyncio
import contextlib
import datetime
import gc
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from doorboard.interfaces import BoardError, ButtonEvent, Reader, ReaderEvent

from doorstation import __version__, parts
from doorstation.door import events as door
from doorstation.door.controller import Door
from doorstation.errors import DoorstationError, ProtocolError, TransportError
from doorstation.ids import Ids, SystemIds
from doorstation.media import tones, wav
from doorstation.media.events import STRAY, Digit, DigitMerger, check_digits
from doorstation.net import media
from doorstation.net.agent_shell import AgentShell, Direction, masked
from doorstation.net.control import KINDS, ControlServer
from doorstation.net.dns import Resolver
from doorstation.net.media import MediaThread
from doorstation.net.signals import stop_event
from doorstation.net.sockets import Listen, SipSockets, TlsFiles
from doorstation.printable import printable
from doorstation.sdp.negotiation import AudioSession
from doorstation.settings import Audio, Settings, parse_port_range
from doorstation.sip.endpoint import Endpoint
from doorstation.sip.transport import Flow, Transport
from doorstation.store import EventLog
from doorstation.ua import events as ua
from doorstation.ua.agent import UserAgent
from doorstation.ua.config import config_from

log = logging.getLogger(__name__)

STOP_WITHIN: Final = 2.0
"""Seconds that hanging up and un-registering may take at the end."""
RECENT: Final = 200
"""Events kept for `ctl events`."""
REFUSALS_EVERY: Final = 10.0
"""Seconds between records of strangers turned away: bounds what a scanner writes into the log."""
REGISTER_WITHIN: Final = 40.0
CHANGE_WITHIN: Final = 40.0


def _is_ours(error: Exception) -> bool:
    """Whether code of ours was running when it was raised."""
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_globals.get("__name__", "").startswith("doorstation."):
            return True
        at = at.tb_next
    return False


class PlainFormatter(logging.Formatter):
    """What a stranger put into a message moves no cursor and hides no line."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), lines=True)


def run(settings: Settings) -> int:
    """Run the station until a signal ends it; returns the exit status."""
    # Nobody reads these of one process with two threads, and each line would look them up.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log.level.upper(), handlers=[handler])
    asyncio.run(_run(settings))
    return 0


async def _run(settings: Settings) -> None:
    stop = stop_event()
    try:
        with parts.make(settings) as board:
            await Station(settings, board).run(stop)
    except BoardError as error:
        raise DoorstationError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Outside:
    """By what the station reaches the world; a simulation brings its own of the same shape."""

    sockets: Callable[..., SipSockets] = SipSockets
    names: Callable[[], Resolver] = Resolver
    media: Callable[..., MediaThread] = MediaThread


REAL: Final = Outside()


def _sounds(audio: Audio) -> dict[str, tones.Sound]:
    """Every sound of the door: the announcement of its name, or the country's tone.

    Read once, at the start: no press waits for a disk, and what is wrong is said at once.
    """
    sounds: dict[str, tones.Sound] = {
        name: tones.named(name, audio.country) for name in tones.NAMES
    }
    if not audio.announcements:
        return sounds
    folder = Path(audio.announcements)
    found = False
    for name in tones.NAMES:
        path = folder / f"{name}.wav"
        try:
            sounds[name] = wav.parse_wav(path.read_bytes())
            found = True
        except FileNotFoundError:
            continue
        except (OSError, DoorstationError) as error:
            log.warning("announcement %s: %s; the tone is played", path, error)
    if not found:
        names = ", ".join(f"{name}.wav" for name in tones.NAMES)
        log.warning("announcements: nothing to play in %s; it may hold %s", folder, names)
    return sounds


class Station:
    """One running door."""

    def __init__(
        self,
        settings: Settings,
        board: parts.Parts,
        ids: Ids | None = None,
        outside: Outside = REAL,
    ) -> None:
        self._settings = settings
        self._board = board
        self._ids = ids if ids is not None else SystemIds()
        self._loop = asyncio.get_running_loop()
        self._door = Door(settings)
        self._door_timer: asyncio.TimerHandle | None = None
        transports = tuple(Transport(name.upper()) for name in settings.sip.transports)
        if settings.account is not None and settings.account.transport != "auto":
            wanted = Transport(settings.account.transport.upper())
            transports = (*transports, *({wanted} - set(transports)))
        self._endpoint = Endpoint(
            self._ids,
            transports=transports,
            t1=settings.sip.t1,
            user_agent=settings.sip.user_agent,
        )
        self._agent = UserAgent(config_from(settings), self._ids, self._endpoint)
        self._events = EventLog(
            settings.log.events or "/dev/null",
            size=settings.log.size,
            files=settings.log.files,
        )
        self._recent: deque[dict[str, door.Field]] = deque(maxlen=RECENT)
        self._unwritten: list[tuple[str, dict[str, door.Field]]] = []
        self._outside = outside
        self._media = outside.media(
            board.open_audio,
            self._loop,
            self._media_event,
            ids=self._ids,
            ports=parse_port_range(settings.audio.rtp_ports),
        )
        self._sounds = _sounds(settings.audio)
        self._session: media.MediaSession | None = None
        self._session_calls: dict[str, str] = {}
        self._sessions = 0
        self._talking = ""
        self._early = ""
        self._progressing = ""
        self._digits = DigitMerger()
        self._codecs: dict[str, str] = {}
        self._pulses = dict.fromkeys(settings.relays, 0)
        self._pulse_ends: dict[str, asyncio.TimerHandle] = {}
        self._registration = ua.RegistrationChanged(ua.RegistrationState.OFF, "", "")
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._state_due = False
        self._refusals = 0
        self._refusals_due = 0.0
        self._fault: asyncio.Future[None] = self._loop.create_future()
        self._names = outside.names()
        self._shell: AgentShell
        self._control: ControlServer | None = None

    # -- life

    async def run(self, stop: asyncio.Event) -> None:
        """Everything up, until `stop` is set or a fault of ours rises."""
        sockets = self._outside.sockets(
            self._listen(),
            tls=TlsFiles(
                self._settings.tls.ca_file,
                self._settings.tls.certificate,
                self._settings.tls.key,
            ),
            network_changed=self._network_changed,
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._release_relays)
            stack.callback(self._events.close)
            stack.callback(self._write_records)
            stack.callback(self._media.close)
            await stack.enter_async_context(sockets)
            stack.push_async_callback(self._names.aclose)
            self._shell = AgentShell(self._agent, sockets, self._names, self._deliver)
            stack.push_async_callback(self._shell.aclose)
            if self._settings.control.socket:
                self._control = ControlServer(
                    self._settings.control.socket,
                    self._command,
                    kinds=KINDS | {"state", "message"},
                    wanted_changed=self._followers_changed,
                )
                await stack.enter_async_context(self._control)
            self._loop.set_exception_handler(self._callback_failed)
            sockets.attach(self._shell)
            self._watch_board()
            self._tell_door(self._door.start(self._loop.time()))
            self._shell.tell(self._agent.start)
            for transport, host, port in sockets.listening:
                log.info("listening on %s %s:%d", transport, host, port)
            # What start-up made lives as long as the process: never looked at again.
            gc.collect()
            gc.freeze()
            try:
                await self._until(stop)
            finally:
                await self._wind_up()

    async def _until(self, stop: asyncio.Event) -> None:
        """Wait for the end; a fault of ours in any part rises from here."""
        async with asyncio.TaskGroup() as group:
            watched = [group.create_task(self._shell.run()), group.create_task(self._media_runs())]
            if self._control is not None:
                watched.append(group.create_task(self._control.run()))
            await stop.wait()
            for task in watched:
                task.cancel()

    async def _media_runs(self) -> None:
        await self._fault

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A fault of ours in a timer or a driver's callback ends the service like any other.

        asyncio would log it and go on, with a door whose timers are gone. What fails in asyncio's
        own code, perhaps by what a stranger did to a connection, is only logged.
        """
        loop.default_exception_handler(context)
        error = context.get("exception")
        if isinstance(error, Exception) and _is_ours(error) and not self._fault.done():
            self._fault.set_exception(error)

    async def _wind_up(self) -> None:
        """Relays first, then the calls, then the registration."""
        self._release_relays()
        if self._door_timer is not None:
            self._door_timer.cancel()
        self._shell.tell(self._agent.stop)
        limit = self._loop.time() + STOP_WITHIN
        while not self._agent.idle and self._loop.time() < limit:  # noqa: ASYNC110 - at its end
            await asyncio.sleep(0.02)
        if self._session is not None:
            self._session.stop()

    def _listen(self) -> list[Listen]:
        sip = self._settings.sip
        return [
            Listen(
                Transport(name.upper()),
                self._settings.tls.port if name == "tls" else sip.port,
                host,
            )
            for host in sip.listen
            for name in sip.transports
        ]

    def _network_changed(self) -> None:
        log.info("the network changed")
        self._names.network_changed()
        self._shell.tell(self._agent.network_changed)

    def _release_relays(self) -> None:
        for timer in self._pulse_ends.values():
            timer.cancel()
        self._pulse_ends.clear()
        for name in self._board.relays:
            self._release(name)

    # -- the board

    def _watch_board(self) -> None:
        """Drivers call from their own threads: stamp there, act here."""
        for name, button in self._board.buttons.items():
            button.watch(self._from_driver(self._button_event, name))
        for name, contact in self._board.contacts.items():
            contact.watch(self._from_driver(self._contact_event, name))
            self._tell_door(
                self._door.handle(door.ContactChanged(name, contact.closed), self._loop.time())
            )
        for name, reader in self._board.readers.items():
            self._watch_reader(name, reader)

    def _watch_reader(self, name: str, reader: Reader) -> None:
        reader.watch(self._from_driver(self._reader_event, name))

    def _from_driver(self, act: Callable[..., None], name: str) -> Callable[..., None]:
        def callback(*event: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop closed: the station is stopping
                self._loop.call_soon_threadsafe(act, name, *event)

        return callback

    def _button_event(self, name: str, event: ButtonEvent) -> None:
        match event.kind:
            case "pressed":
                self._door_input(door.Pressed(name))
            case "held":
                self._door_input(door.Held(name))
            case "stuck" | "freed":
                self._door_input(door.Stuck(name, event.kind == "stuck"))

    def _contact_event(self, name: str, closed: bool, at: float) -> None:
        self._door_input(door.ContactChanged(name, closed))

    def _reader_event(self, name: str, event: ReaderEvent) -> None:
        if event.kind in ("card", "keys"):
            self._door_input(door.CardRead(name, event.value))
        else:
            # Never the bytes: half a card number is in them.
            self._record("reader", {"reader": name, "state": event.kind})

    # -- the door

    def _door_input(self, event: door.Input) -> None:
        self._tell_door(self._door.handle(event, self._loop.time()))

    def _tell_door(self, outputs: list[door.Output]) -> None:
        """Carry out what the door wants, then set its one timer."""
        for output in outputs:
            self._carry_out(output)
        if self._door_timer is not None:
            self._door_timer.cancel()
            self._door_timer = None
        deadline = self._door.deadline
        if deadline is not None:
            self._door_timer = self._loop.call_at(deadline, self._door_due)
        self._state_changed()

    def _door_due(self) -> None:
        self._door_timer = None
        # The loop may call a moment early, by its clock's resolution.
        now = max(self._loop.time(), self._door.deadline or 0.0)
        self._tell_door(self._door.timer_fired(now))

    def _carry_out(self, output: door.Output) -> None:
        match output:
            case door.PlaceCall():
                self._place(output)
            case door.CancelCall(group):
                self._shell.tell(lambda now: self._agent.cancel_group(group, now))
                self._end_session_if_unused()
            case door.RingCall(call):
                self._shell.tell(lambda now: self._agent.ring(call, now))
            case door.AcceptCall(call):
                self._accept(call)
            case door.RejectCall(call, status):
                self._shell.tell(lambda now: self._agent.reject(call, status, now))
            case door.HangUp(call):
                self._shell.tell(lambda now: self._agent.hang_up(call, now))
            case door.PulseRelay(relay, seconds):
                self._pulse(relay, seconds)
            case door.Play():
                self._play(output)
            case door.StopSound():
                self._media.stop_sound()
            case door.Show(pattern):
                for led in self._board.leds.values():
                    led.show(pattern)
            case door.Record(kind, fields):
                self._record(kind, fields)

    def _place(self, wish: door.PlaceCall) -> None:
        try:
            port = self._open_session().rtp_port
            self._shell.tell(lambda now: self._agent.place(wish.group, wish.targets, port, now))
        except (ProtocolError, TransportError) as error:
            log.warning("the call cannot be placed: %s", error)
            self._end_session_if_unused()
            outcomes = tuple(door.Outcome(target, "failed") for target in wish.targets)
            self._later(door.StepFailed(wish.group, outcomes))

    def _accept(self, call: str) -> None:
        try:
            port = self._open_session().rtp_port
        except TransportError as error:
            log.warning("the call cannot be answered: %s", error)
            self._shell.tell(lambda now: self._agent.reject(call, 500, now))
            return
        self._start_talking(call)
        self._shell.tell(lambda now: self._agent.answer(call, port, now))

    def _later(self, event: door.Input) -> None:
        """An input that comes of carrying out an output: after all the others."""
        self._loop.call_soon(self._door_input, event)

    def _pulse(self, name: str, seconds: float) -> None:
        relay = self._board.relays[name]
        running = self._pulse_ends.pop(name, None)
        if running is not None:
            running.cancel()
        try:
            relay.energise()
        except BoardError as error:
            self._record("relay_fault", {"relay": name, "why": str(error)})
            return
        self._pulses[name] += 1
        self._pulse_ends[name] = self._loop.call_later(seconds, self._pulse_over, name)

    def _pulse_over(self, name: str) -> None:
        del self._pulse_ends[name]
        self._release(name)
        self._state_changed()

    def _release(self, name: str) -> None:
        try:
            self._board.relays[name].release()
        except BoardError as error:  # its driver goes on trying; the other relays are not let down
            self._record("relay_fault", {"relay": name, "why": str(error)})

    # -- sound

    def _play(self, wish: door.Play) -> None:
        sound = self._sounds[wish.sound]
        self._media.play(sound, wish.loop, self._sounds[wish.then] if wish.then else None)
        if wish.far_end and self._session is not None:
            self._session.play(sound)

    def _open_session(self) -> media.MediaSession:
        """The one audio call's ports; made when a call is placed or answered."""
        if self._session is None:
            self._sessions += 1
            name = f"session-{self._sessions}"
            self._session = self._media.start_session("::", name)
            self._early = ""
        return self._session

    def _end_session_if_unused(self) -> None:
        if self._session is not None and not self._talking:
            self._session.stop()
            self._session = None
            self._early = ""

    def _media_event(self, event: media.MediaEvent) -> None:
        match event:
            # The thread may still tell of a session that has ended since: never the next call.
            case media.DigitHeard(session, digit) if self._is_current(session):
                self._digit(self._talking, digit, 0.0)
            case media.FarEndStarted(session) if self._is_current(session):
                if self._early and not self._talking:
                    self._door_input(door.EarlyMedia(self._door.call, heard=True))
            case media.FarEndSilent(session, seconds) if self._is_current(session):
                self._far_end_silent(seconds)
            case media.CardLost(reason):
                log.warning("sound card: %s", reason)
                self._record("card_lost", {"why": reason})
            case media.CardBack():
                self._record("card_back", {})
            case media.SoundFailed(_, reason):
                log.warning("a sound cannot be played: %s", reason)
            case media.MediaFailed(error):
                if not self._fault.done():
                    self._fault.set_exception(error)
            case media.SessionEnded(session, statistics):
                call = self._session_calls.pop(session, "")
                if statistics is not None:
                    self._record("call_statistics", {"call": call, **asdict(statistics)})
            case _:
                pass
        self._state_changed()

    def _is_current(self, session: str) -> bool:
        return self._session is not None and session == self._session.name

    def _far_end_silent(self, seconds: float) -> None:
        """A far end that is gone without a BYE: a router restarted, a phone lost its power."""
        call = self._agent.calls.get(self._talking)
        if call is None or call.state is not ua.CallState.CONNECTED:
            return
        why = f"nothing heard for {seconds:.0f} s"
        self._record("dead_call", {"call": call.id, "why": why})
        self._shell.tell(lambda now: self._agent.hang_up(call.id, now, why))

    def _start_talking(self, call: str) -> None:
        self._talking = call
        # A key pressed while it rang, perhaps on another phone, repeats none in the call.
        self._digits = DigitMerger()

    def _digit(self, call: str, digit: Digit, held: float) -> None:
        # A stray one is no key of the far end's: waiting for its repetition it would swallow one.
        merged = call == self._talking and digit.source != STRAY
        if not call or (merged and self._digits.heard(digit, held) is None):
            return
        self._door_input(door.DigitReceived(call, digit.value, digit.source))

    # -- the user agent

    def _deliver(self, event: object) -> None:
        match event:
            case ua.RegistrationChanged():
                self._registration_changed(event)
            case ua.CallArrived():
                self._door_input(
                    door.CallArrived(event.call, event.known_as, event.rule, event.peer)
                )
            case ua.GroupRinging(group, _, early_media):
                self._door_input(door.StepRinging(group, early_media))
            case ua.GroupAnswered(group, call, peer):
                self._start_talking(call)
                self._door_input(door.StepAnswered(group, call, peer))
            case ua.GroupFailed(group, outcomes):
                self._end_session_if_unused()
                self._door_input(
                    door.StepFailed(
                        group,
                        tuple(door.Outcome(o.target, o.kind.value, o.status) for o in outcomes),
                    )
                )
            case ua.MediaChanged(call, session, early):
                self._media_agreed(call, session, early=early)
            case ua.CallEnded():
                self._call_ended(event)
            case ua.InfoDigit(call, value, duration_ms):
                held = duration_ms / 1000
                self._digit(call, Digit(value, "info", self._loop.time()), held)
            case ua.CallHeld(call, held, by_peer):
                self._record("hold", {"call": call, "held": held, "by_peer": by_peer})
            case ua.MessageReceived(peer, text, rule):
                # The words are the followers' business; the log keeps that there were some.
                self._record("message", {"peer": peer, "length": len(text), "rule": rule})
                if self._control is not None:
                    self._control.publish("message", {"peer": peer, "text": text})
            case ua.MessageResult(message, status, why):
                self._resolve(f"message:{message}", "" if status < 300 else f"{status} {why}")
            case ua.CommandResult(call, command, ok, why):
                self._resolve(f"{command}:{call}", "" if ok else why or "refused")
            case ua.Refused(method, source, status, rule):
                log.debug("refused %s from %s: %d %s", method, source, status, rule)
                self._refused(event)
            case _:
                pass
        self._state_changed()

    def _registration_changed(self, event: ua.RegistrationChanged) -> None:
        self._registration = event
        state = event.state
        log.info("registration: %s at %s: %s", state.value, event.registrar, event.why)
        if state is ua.RegistrationState.REGISTERED:
            self._resolve("register", "")
            self._door_input(door.RegistrationChanged(True))
        elif state in (ua.RegistrationState.RETRYING, ua.RegistrationState.REFUSED):
            self._resolve("register", event.why)
            self._door_input(door.RegistrationChanged(False, event.why))
        elif state is ua.RegistrationState.OFF:
            self._resolve("unregister", "")

    def _media_agreed(self, call: str, session: AudioSession | None, *, early: bool) -> None:
        if session is None:
            if call == self._early:
                # This phone gave up; another one that rings may be heard instead.
                self._early = ""
                self._door_input(door.EarlyMedia(self._door.call, heard=False))
            return
        if early and not self._talking and self._early in ("", call):
            self._early = call
        elif call != self._talking:
            return
        self._codecs[call] = session.codec.name
        try:
            own = self._open_session()
            own.configure(session)
            self._session_calls[own.name] = call
        except (ValueError, TransportError) as error:
            log.warning("the call has no sound: %s", error)

    def _call_ended(self, event: ua.CallEnded) -> None:
        log.info("call %s ended: %d %s", event.call, event.status, event.why)
        self._codecs.pop(event.call, None)
        for command in ("hold", "resume"):
            self._resolve(f"{command}:{event.call}", "the call ended")
        if event.call in (self._talking, self._progressing):
            # Heard before it was answered, or in talk: a caller that is refused leaves both alone.
            self._talking = self._progressing = ""
            self._end_session_if_unused()
        self._door_input(door.CallEnded(event.call, event.why))

    def _refused(self, event: ua.Refused) -> None:
        """Record the first of a flood and how many went before it: the log is not theirs."""
        self._refusals += 1
        now = self._loop.time()
        if now < self._refusals_due:
            return
        self._refusals_due = now + REFUSALS_EVERY
        self._record(
            "refused",
            {
                "method": event.method,
                "source": event.source,
                "status": event.status,
                "rule": event.rule,
                "so_far": self._refusals,
            },
        )

    # -- the log

    def _record(self, kind: str, fields: Mapping[str, door.Field]) -> None:
        """One line of the event log; the same to whoever follows. Nothing waits for it:

        what goes out to phones and relays in this turn of the loop goes first.
        """
        if not self._unwritten:
            self._loop.call_soon(self._write_records)
        at = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        self._unwritten.append((kind, {"event": kind, "at": at, **fields}))

    def _write_records(self) -> None:
        """Write what this turn recorded, in its order; at the end also what the last one did."""
        records, self._unwritten = self._unwritten, []
        for kind, event in records:
            fields = {name: value for name, value in event.items() if name not in ("event", "at")}
            if self._settings.log.events:
                self._events.append(kind, fields)
            self._recent.append(event)
            if self._control is not None:
                self._control.publish("record", event)
            detail = " ".join(f"{k}={value}" for k, value in fields.items() if value is not None)
            log.info("%s: %s", kind, detail)

    def _on_wire(self, direction: Direction, flow: Flow, data: bytes) -> None:
        if self._control is None or not data.strip():
            return
        text = masked(data)
        self._control.publish(
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

    # -- control

    def status(self) -> dict[str, object]:
        """What `ctl status` shows. No secret in it."""
        registration = self._registration
        overruns, underruns = self._media.xruns
        return {
            "registration": {
                "state": registration.state.value,
                "registrar": registration.registrar,
                "why": registration.why,
                "expires": registration.expires,
                "contacts": registration.contacts,
            },
            "door": self._door.phase.value,
            "calls": [
                self._call_status(name)
                for name, call in self._agent.calls.items()
                if call.state is not ua.CallState.ENDED
            ],
            "relays": {
                name: {"on": relay.on, "pulses": self._pulses[name]}
                for name, relay in self._board.relays.items()
            },
            "leds": {name: {"pattern": led.pattern} for name, led in self._board.leds.items()},
            "contacts": {
                name: {"closed": contact.closed} for name, contact in self._board.contacts.items()
            },
            "buttons": {name: {} for name in self._board.buttons},
            "card": self._media.card,
            "xruns": {"overruns": overruns, "underruns": underruns},
            "log": {"fault": self._events.fault, "lost": self._events.lost},
            "counters": {k: v for k, v in self._endpoint.counters.items() if v},
            "versions": {
                "doorstation": __version__,
                "python": ".".join(map(str, sys.version_info[:3])),
            },
        }

    def _call_status(self, name: str) -> dict[str, object]:
        call = self._agent.calls[name]
        statistics = None
        if name == self._talking and self._session is not None:
            found = self._session.statistics()
            statistics = asdict(found) if found is not None else None
        return {
            "id": name,
            "state": call.state.value,
            "direction": call.direction,
            "peer": call.peer,
            "codec": self._codecs.get(name),
            "statistics": statistics,
        }

    def _state_changed(self) -> None:
        """Tell followers once for everything that happens in this turn of the loop."""
        if self._control is None or self._state_due:
            return
        self._state_due = True
        self._loop.call_soon(self._publish_state)

    def _publish_state(self) -> None:
        self._state_due = False
        control = self._control
        if control is None:
            return
        if control.wanted("state"):
            control.publish("state", self.status())

    def _followers_changed(self) -> None:
        """Levels, frames and the wire cost something: only while somebody looks."""
        control = self._control
        if control is None:
            return
        self._shell.on_wire = self._on_wire if control.wanted("sip") else None
        self._media.watch_levels(self._levels if control.wanted("levels") else None)
        listening = control.wanted("audio:microphone") or control.wanted("audio:speaker")
        self._media.listen(self._frames if listening else None)

    def _levels(self, microphone_db: float, speaker_db: float) -> None:
        if self._control is not None:
            self._control.publish(
                "levels",
                {"microphone_db": round(microphone_db, 1), "speaker_db": round(speaker_db, 1)},
            )

    def _frames(self, microphone: bytes, speaker: bytes, rate: int) -> None:
        control = self._control
        if control is None:
            return
        if control.wanted("audio:microphone"):
            control.publish("audio:microphone", {"rate": rate, "pcm": microphone})
        if control.wanted("audio:speaker"):
            control.publish("audio:speaker", {"rate": rate, "pcm": speaker})

    async def _command(self, command: str, args: dict[str, object]) -> object:
        """One command of the control socket. Raises DoorstationError with why it did not work."""

        def text(name: str) -> str:
            value = args.get(name)
            if not isinstance(value, str) or not value:
                raise DoorstationError(f"{command} needs {name!r}")
            return value

        match command:
            case "status":
                return self.status()
            case "recent":
                self._write_records()
                return list(self._recent)
            case "press":
                return self._press(text("name"))
            case "call":
                return self._call(text("uri"))
            case "progress":
                return self._progress()
            case "answer":
                self._ringing_call()
                self._door_input(door.AnswerRequested())
            case "reject":
                code = args.get("code", 603)
                if not isinstance(code, int) or not 400 <= code <= 699:
                    raise DoorstationError("code: a status from 400 to 699")
                self._ringing_call()
                self._door_input(door.RejectRequested(status=code))
            case "hangup":
                if not self._door.call:
                    raise DoorstationError("there is no call")
                self._door_input(door.HangUpRequested())
            case "hold" | "resume":
                await self._change(command)
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
            case _:
                raise DoorstationError(f"no command {command!r}")
        return {}

    def _press(self, name: str) -> object:
        if name not in self._settings.buttons:
            known = ", ".join(self._settings.buttons) or "none"
            raise DoorstationError(f"no button {name!r}; there are: {known}")
        self._door_input(door.Pressed(name))
        return {}

    def _call(self, uri: str) -> object:
        fault = self._settings.target_fault(uri)
        if fault:
            raise DoorstationError(fault)
        if self._door.call:
            raise DoorstationError(f"busy: {self._door.phase.value}")
        self._door_input(door.CallRequested(uri))
        return {}

    def _ringing_call(self) -> str:
        call = self._agent.calls.get(self._door.call)
        if call is None or call.direction != "in" or call.state is not ua.CallState.RINGING:
            raise DoorstationError("no call rings here")
        return call.id

    def _progress(self) -> object:
        call = self._ringing_call()
        port = self._open_session().rtp_port
        self._progressing = call
        self._shell.tell(lambda now: self._agent.progress(call, port, now))
        return {}

    async def _change(self, command: str) -> None:
        call = self._talking
        if not call:
            raise DoorstationError("there is no call")
        act = self._agent.hold if command == "hold" else self._agent.resume
        await self._outcome(
            f"{command}:{call}", lambda: self._shell.tell(lambda now: act(call, now)), CHANGE_WITHIN
        )

    async def _register(self, command: str) -> None:
        if self._settings.account is None:
            raise DoorstationError("there is no account in the settings")
        if command == "unregister" and self._registration.state is ua.RegistrationState.OFF:
            return  # as it was asked for
        act = self._agent.register if command == "register" else self._agent.unregister
        await self._outcome(command, lambda: self._shell.tell(act), REGISTER_WITHIN)

    async def _message(self, uri: str, text: str) -> None:
        names: list[str] = []

        def send(now: float) -> list[object]:
            name, outputs = self._agent.message(self._settings.target_uri(uri), text, now)
            names.append(name)
            return list(outputs)

        self._shell.tell(send)
        await self._outcome(f"message:{names[0]}", lambda: None, CHANGE_WITHIN)

    async def _outcome(self, key: str, act: Callable[[], None], limit: float) -> None:
        """Do something, and wait for how it ends. Raises DoorstationError with why not."""
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = self._loop.create_future()
        act()
        try:
            why = await asyncio.wait_for(asyncio.shield(waiting), limit)
        except TimeoutError:
            raise DoorstationError(f"no result within {limit:.0f} s") from None
        finally:
            self._waiting.pop(key, None)
        if why:
            raise DoorstationError(why)

    def _resolve(self, key: str, why: str) -> None:
        waiting = self._waiting.get(key)
        if waiting is not None and not waiting.done():
            waiting.set_result(why)

    def _send_digits(self, digits: str) -> None:
        call, session = self._talking, self._session
        if not call or session is None:
            raise DoorstationError("there is no call")
        try:
            if session.can_send_events:
                session.send_digits(digits)
                return
            check_digits(digits)
            for digit in digits.upper():
                self._shell.tell(partial(self._agent.send_info_digit, call, digit))
        except ValueError as error:
            raise DoorstationError(str(error)) from error

    def _fake(self) -> "parts.FakeInputs":
        inputs = self._board.inputs
        if inputs is None:
            raise DoorstationError("only the fake board can be driven; this one is real")
        return inputs
