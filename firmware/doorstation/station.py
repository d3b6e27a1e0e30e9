"""Composition: builds the parts from the settings, joins them, stops them in order.

The rooms below know nothing of each other; what one says is translated here into what another
hears. `Station` holds no rule of its own: who may open is `door`'s, who may call is `ua`'s.
"""

import asyncio
import contextlib
import faulthandler
import gc
import logging
from collections.abc import Callable, Mapping, Set
from functools import partial
from typing import Any, Final

import msgspec
from doorboard.interfaces import BoardError, ButtonEvent, ReaderEvent
from msgspec.structs import asdict

from doorstation import parts
from doorstation.commands import Commands, Reach
from doorstation.configurator import Configurator, open_configurator
from doorstation.door import events as door
from doorstation.door.controller import Door, Phase
from doorstation.errors import (
    DoorstationError,
    ProtocolError,
    SettingsError,
    StoreError,
    TransportError,
)
from doorstation.ids import Ids, SystemIds
from doorstation.journal import STRANGERS_TEXT, Journal
from doorstation.media import dtls
from doorstation.media.digits import Digit
from doorstation.media.verdict import verdict
from doorstation.net.agent_shell import AgentShell
from doorstation.net.card_watch import CardWatch
from doorstation.net.dns import Resolver
from doorstation.net.media import events as media
from doorstation.net.media.thread import MediaThread
from doorstation.net.signals import stop_event
from doorstation.net.sockets import Listen, SipSockets
from doorstation.net.tls import TlsFiles
from doorstation.net.watchdog import give_signs
from doorstation.network import Network
from doorstation.printable import printable
from doorstation.provision.outbox import Outbox
from doorstation.provision.state import RECORDINGS
from doorstation.provisioner import Provisioner, first_use
from doorstation.recorder import Recorder
from doorstation.relays import Relays
from doorstation.remote import Remote
from doorstation.results import Result
from doorstation.sdp.negotiation import AudioSession
from doorstation.settings.text import parse_port_range
from doorstation.settings.tree import Settings
from doorstation.sip.endpoint import Endpoint
from doorstation.sip.transport import Transport
from doorstation.sound import Sound, sound_path
from doorstation.ua import events as ua
from doorstation.ua.agent import UserAgent
from doorstation.ua.config import AgentConfig, config_from

log = logging.getLogger(__name__)

RESTART: Final = 75
"""Exit status of a service that shall be started again (EX_TEMPFAIL; `Restart=on-failure`)."""
STOP_WITHIN: Final = 2.0
"""Seconds that hanging up and un-registering may take at the end."""
RESET_HELD: Final = 10.0
"""Seconds that the reset button is held from the start on."""
RESET_LOOK: Final = 0.1
MISSING_LOOK: Final = 60.0
"""Seconds between looks for a part that was missing at the start."""
SETTLED: Final = 1.0
"""Seconds after the start: a collection takes 15 ms, on a small board 100; REGISTER goes first."""


def _is_ours(error: Exception) -> bool:
    """Whether code of ours was running when it was raised."""
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_globals.get("__name__", "").startswith("doorstation."):
            return True
        at = at.tb_next
    return False


def _freeze() -> None:
    """What start-up made lives as long as the process: the collector never looks at it again."""
    gc.unfreeze()  # a station that was there before is garbage now
    gc.collect()
    gc.freeze()


def log_level(settings: Settings) -> None:
    """How much the diagnostic log holds."""
    logging.getLogger().setLevel(settings.log.level.upper())


class PlainFormatter(logging.Formatter):
    """What a stranger put into a message moves no cursor and hides no line."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), lines=True)


def run(base: Mapping[str, Mapping[str, Any]]) -> int:
    """Run the station until a signal ends it; returns the exit status.

    `base`: what files and network say, by origin; what is kept of changes is laid over it. Raises
    SettingsError when that makes no tree by itself.
    """
    # Nobody reads these of one process with two threads, and each line would look them up.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    faulthandler.enable()  # where it hung, when the watchdog ends it
    return asyncio.run(_run(base))


async def _run(base: Mapping[str, Mapping[str, Any]]) -> int:
    """One station after the other, each as long as it can go on with the settings."""
    stop = stop_event()
    async with contextlib.aclosing(open_configurator(base)) as configurator:
        await configurator.start()
        network = Network(configurator, SystemIds())
        running = asyncio.create_task(network.run())
        running.add_done_callback(lambda _: stop.set())  # it ends by a fault of ours only
        try:
            return await _run_stations(configurator, network, stop)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def _run_stations(configurator: Configurator, network: Network, stop: asyncio.Event) -> int:
    outbox = Outbox[Result]()
    missing: Set[str] = frozenset()
    while not stop.is_set():
        log_level(configurator.settings)
        try:
            with parts.make(configurator.settings) as board:
                lost = board.missing.keys() - missing
                if lost and configurator.pending is not None:  # the change is to blame, and undone
                    raise BoardError("; ".join(board.missing[part].why for part in sorted(lost)))
                missing = board.missing.keys()
                station = Station(
                    configurator.settings,
                    board,
                    configurator=configurator,
                    provisioner=network.provisioner,
                    outbox=outbox,
                )
                await station.run(stop)
            if station.restarting:
                return RESTART
        except (BoardError, DoorstationError) as error:
            if not await configurator.failed(str(error)):
                raise DoorstationError(str(error)) from error
    return 0


class Outside(msgspec.Struct, frozen=True):
    """By what the station reaches the world; a simulation brings its own of the same shape."""

    sockets: Callable[..., SipSockets] = SipSockets
    names: Callable[[], Resolver] = Resolver
    media: Callable[..., MediaThread] = MediaThread


REAL: Final = Outside()


class Station:
    """One running door."""

    def __init__(
        self,
        settings: Settings,
        board: parts.Parts,
        ids: Ids | None = None,
        outside: Outside = REAL,
        configurator: Configurator | None = None,
        provisioner: Provisioner | None = None,
        outbox: Outbox[Result] | None = None,
    ) -> None:
        """`configurator`: by whom the settings may change; None: nobody.

        `provisioner`: by whom files come from the network; None: none come. `outbox`: what the
        station before could not tell any more.
        """
        self._settings = settings
        self._configurator = configurator
        self._provisioner = provisioner
        self._outbox: Outbox[Result] = Outbox() if outbox is None else outbox
        self._end = asyncio.Event()
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
        self._agent = UserAgent(self._agent_config(settings), self._ids, self._endpoint)
        self._journal = Journal(settings.log)
        self._outside = outside
        self._media = outside.media(
            lambda: board.open_audio(self._settings.audio),
            self._loop,
            self._media_event,
            ids=self._ids,
            ports=parse_port_range(settings.audio.rtp_ports),
            opus_complexity=board.opus_complexity,
            make_path=sound_path(settings.audio),
        )
        self._card = CardWatch(board.check_audio, lambda: self._media.card, self._card_changed)
        self._recorder = self._make_recorder(settings)
        self._sound = Sound(
            self._media, settings.sip.listen, settings.audio, settings.prompts, self._journal.record
        )
        self._relays = Relays(board.relays, self._later, self._state_changed, self._relay_fault)
        self._leaving = False
        """Nothing begins any more."""
        self._dark: set[str] = set()
        """LEDs whose drivers fail."""
        self._fault: asyncio.Future[None] = self._loop.create_future()
        self._names = outside.names()
        self._shell: AgentShell
        self.commands: Commands
        self._remote: Remote | None = None
        self.restarting = False
        """Whether the service shall start again: its end was ordered."""

    # -- life

    async def run(self, stop: asyncio.Event) -> None:
        """Everything up, until `stop` is set, `end` is called or a fault of ours rises."""
        if self._agent.config.by_dtls:
            dtls.load()  # tenths of a second, which no call shall wait for
        sockets: SipSockets = self._outside.sockets(
            self._listen(),
            tls=await self._tls(),
            network_changed=lambda: self._network_changed(sockets),
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._relays.release_all)
            stack.callback(self._journal.close)
            stack.callback(self._media.close)
            stack.callback(self._recorder.close)
            await stack.enter_async_context(sockets)
            stack.push_async_callback(self._names.aclose)
            self._shell = AgentShell(self._agent, sockets, self._names, self._deliver)
            stack.push_async_callback(self._shell.aclose)
            self.commands = Commands(self._reach())
            if self.commands.server is not None:
                await stack.enter_async_context(self.commands.server)
            if self._configurator is not None:
                self._remote = self._make_remote(self._configurator)
                stack.callback(self._remote.close)
                show_claim = partial(self._show_claim, self._configurator)
                self._configurator.followers.append(show_claim)
                stack.callback(self._configurator.followers.remove, show_claim)
                show_claim()
            self._loop.set_exception_handler(self._callback_failed)
            sockets.attach(self._shell)
            self._watch_board()
            self._tell_door(self._door.start(self._loop.time()))
            self._shell.tell(self._agent.start)
            for transport, host, port in sockets.listening:
                log.info("listening on %s %s:%d", transport, host, port)
            self._loop.call_later(SETTLED, self._settle)
            if self._configurator is not None:
                self._configurator.attach(self, self._settings)
            try:
                await self._until(stop)
            finally:
                if self._configurator is not None:
                    self._configurator.detach()
                await self._wind_up()

    async def _until(self, stop: asyncio.Event) -> None:
        """Wait for the end; a fault of ours in any part rises from here."""
        async with asyncio.TaskGroup() as group:
            runs = (
                self._shell.run(),
                self._media_runs(),
                self._card.run(),
                self._reset_wish(),
                self._missing_back(),
                give_signs(lambda: self._media.silent),
            )
            watched = [group.create_task(run) for run in runs]
            if self.commands.server is not None:
                watched.append(group.create_task(self.commands.server.run()))
            ends = [group.create_task(event.wait()) for event in (stop, self._end)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in (*watched, *ends):
                task.cancel()

    async def _media_runs(self) -> None:
        await self._fault

    async def _reset_wish(self) -> None:
        """Forget all changes if the button for it is in at the start and is held."""
        name = self._settings.provisioning.reset_button
        if self._configurator is None or name not in self._board.buttons:
            return
        until = self._loop.time() + RESET_HELD
        while self._board.buttons[name].pressed:
            if self._loop.time() >= until:
                log.warning("button %s was held from the start on: all changes are forgotten", name)
                try:
                    await self._configurator.reset(by=name, how="button")
                except StoreError as fault:
                    log.warning("configuration: %s", fault)
                return
            await asyncio.sleep(RESET_LOOK)

    async def _missing_back(self) -> None:
        """A pin that another program had may be free again: a station built anew has it."""
        missing = self._board.missing.values()
        while missing:
            await asyncio.sleep(MISSING_LOOK)
            if not self.busy and any(part.is_back() for part in missing):
                self.end()
                return

    def _settle(self) -> None:
        """Not while somebody talks: a collection holds up the media thread too, and is heard."""
        if self._media.running:
            self._loop.call_later(SETTLED, self._settle)
        else:
            _freeze()

    # -- what the configurator wants

    @property
    def busy(self) -> bool:
        """Whether somebody rings, is rung or talks, or a relay is pulled."""
        rests = self._door.phase is Phase.IDLE and self._sound.session is None
        return not rests or self._relays.pulsing

    @property
    def registered(self) -> bool:
        """Whether the registrar has us."""
        registration = self._agent.registration
        return registration is not None and registration.state is ua.RegistrationState.REGISTERED

    def _agent_config(self, settings: Settings) -> AgentConfig:
        account, door = settings.account, ""
        if self._configurator is not None and account is not None and account.instance:
            door = self._configurator.identify(self._ids)
        return config_from(settings, door)

    def take(self, settings: Settings) -> None:
        """Go on with settings that need no new part (`settings.same_parts`), between two calls.

        Raises DoorstationError when they cannot be; all is as before then.
        """
        config = self._agent_config(settings)
        if config.by_dtls:
            dtls.load()
        self._sound.take(settings.audio, settings.prompts)
        if settings.audio != self._settings.audio:
            self._media.use_path(sound_path(settings.audio))
        self._settings = settings
        self._agent.take(config)
        self._door.take(settings)
        self.commands.take(settings)
        if self._remote is not None:
            self._remote.take(settings)
        log_level(settings)

    def end(self) -> None:
        """Let `run` come to its end, in order."""
        self._end.set()

    def record(self, kind: str, fields: Mapping[str, door.Field]) -> None:
        """One record in the event log."""
        self._journal.record(kind, fields)

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
        self._leaving = True
        self._relays.release_all()
        if self._door_timer is not None:
            self._door_timer.cancel()
        self._shell.tell(self._agent.stop)
        limit = self._loop.time() + STOP_WITHIN
        while not self._agent.idle and self._loop.time() < limit:  # noqa: ASYNC110 - at its end
            await asyncio.sleep(0.02)
        self._sound.close()

    def _make_recorder(self, settings: Settings) -> Recorder:
        """One that also deletes what lies where the settings of before had it."""
        make = partial(Recorder, settings.recording, self._media.record, self._journal.record)
        if self._configurator is None:
            return make()
        return make(
            held=self._configurator.remembered(RECORDINGS) or (),
            hold=partial(self._configurator.remember_soon, RECORDINGS),
        )

    def _reach(self) -> Reach:
        return Reach(
            settings=self._settings,
            board=self._board,
            door=self._door,
            tell_door=self._door_input,
            agent=self._agent,
            endpoint=self._endpoint,
            shell=self._shell,
            media=self._media,
            card=self._card,
            sound=self._sound,
            relays=self._relays,
            journal=self._journal,
            recorder=self._recorder,
            configurator=self._configurator,
        )

    def _make_remote(self, configurator: Configurator) -> Remote:
        remote = Remote(
            self._reach(),
            configurator,
            self._ids,
            status=self.commands.status,
            is_busy=lambda: self.busy,
            is_registered=lambda: self.registered,
            restart=self._restart,
            provisioner=self._provisioner,
            outbox=self._outbox,
        )
        self.commands.identity = lambda: remote.identity
        self.commands.certificate_request = lambda: configurator.identity(self._ids).request()
        return remote

    def _restart(self) -> None:
        """End the service so that it is started again, unless a call has come meanwhile."""
        if not self.busy:
            self.restarting = True
            self.end()

    async def _tls(self) -> TlsFiles:
        """Raises SettingsError where the certificate is over a key that nothing keeps."""
        tls, configurator = self._settings.tls, self._configurator
        if configurator is not None and (tls.own_certificate or configurator.certificate):
            configurator.identify(self._ids)
            own = await configurator.identity_file()
            if tls.own_certificate and not tls.certificate:
                if own is not None:
                    return TlsFiles(tls.ca_file, str(own))
                if "tls" in self._settings.sip.transports:
                    why = configurator.closed or configurator.fault
                    raise SettingsError([f"tls.own_certificate: its key has no place: {why}"])
        return TlsFiles(tls.ca_file, tls.certificate, tls.key)

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

    def _network_changed(self, sockets: SipSockets) -> None:
        log.info("the network changed")
        self._names.network_changed()
        self._shell.tell(partial(self._agent.network_changed, sockets.moved))

    # -- the board

    def _watch_board(self) -> None:
        """Drivers call from their own threads: stamp there, act here."""
        now = self._loop.time()
        for part, missing in self._board.missing.items():
            log.warning("%s is missing and looked for again: %s", part, missing.why)
            self._tell_door(self._door.handle(door.PartMissing(part, missing.why), now))
        for name, button in self._board.buttons.items():
            button.watch(self._from_driver(self._button_event, name))
        for name, contact in self._board.contacts.items():
            contact.watch(self._from_driver(self._contact_event, name))
            self._tell_door(self._door.handle(door.ContactChanged(name, contact.closed), now))
        for name, relay in self._board.relays.items():
            relay.watch(self._from_driver(self._relays.reported, name))
        for name, reader in self._board.readers.items():
            reader.watch(self._from_driver(self._reader_event, name))

    def _from_driver(self, act: Callable[..., None], name: str) -> Callable[..., None]:
        def here(*event: object) -> None:
            # A press at the end would ring phones that nobody cancels any more; one that comes
            # after it would reach closed parts, in the next station's time.
            if not self._leaving:
                act(name, *event)

        def callback(*event: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop closed: the station is stopping
                self._loop.call_soon_threadsafe(here, *event)

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
        match event.kind:
            case "card" | "keys":
                typed = event.kind == "keys"
                self._door_input(door.CardRead(name, event.value, typed))
            case "unplugged" | "back":
                self._door_input(door.ReaderChanged(name, event.kind == "back"))
            case _:
                # Never the bytes: half a card number is in them.
                count = int(event.value)
                self._journal.record(
                    "reader", {"reader": name, "state": event.kind, "so_far": count}
                )

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
        if deadline is not None and not self._leaving:
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
                self._sound.close_if_unused()
            case door.RingCall(call):
                self._shell.tell(lambda now: self._agent.ring(call, now))
            case door.AcceptCall(call):
                self._accept(call)
            case door.RejectCall(call, status):
                self._shell.tell(lambda now: self._agent.reject(call, status, now))
            case door.HangUp(call):
                self._shell.tell(lambda now: self._agent.hang_up(call, now))
            case door.PulseRelay(relay, seconds):
                self._relays.pulse(relay, seconds)
            case door.Play():
                self._sound.play(output)
            case door.TellWhoRings(button):
                self._sound.tell_who_rings(button)
            case door.StopSound():
                self._sound.stop()
            case door.Show(pattern):
                self._show(pattern)
            case door.Record(kind, fields):
                self._journal.record(kind, fields)
                if self._remote is not None:
                    self._remote.recorded(kind, fields)

    def _place(self, wish: door.PlaceCall) -> None:
        try:
            port = self._sound.open().rtp_port
            self._shell.tell(lambda now: self._agent.place(wish.group, wish.targets, port, now))
        except (ProtocolError, TransportError) as error:
            log.warning("the call cannot be placed: %s", error)
            self._sound.close_if_unused()
            outcomes = tuple(door.Outcome(target, "failed") for target in wish.targets)
            self._later(door.StepFailed(wish.group, outcomes))

    def _accept(self, call: str) -> None:
        try:
            port = self._sound.open().rtp_port
        except TransportError as error:
            log.warning("the call cannot be answered: %s", error)
            self._shell.tell(lambda now: self._agent.reject(call, 500, now))
            return
        self._sound.start_talking(call)
        self._recorder.call_began(call)
        self._shell.tell(lambda now: self._agent.answer(call, port, now))

    def _later(self, event: door.Input) -> None:
        """An input that comes of carrying out an output: after all the others."""
        self._loop.call_soon(self._door_input, event)

    def _show(self, pattern: str) -> None:
        """A lamp that fails is recorded, and keeps nobody from talking or from opening."""
        for name, led in self._board.leds.items():
            try:
                led.show(pattern)
            except BoardError as error:
                if name not in self._dark:
                    self._dark.add(name)
                    self._journal.record("led_fault", {"led": name, "why": str(error)})
            else:
                self._dark.discard(name)

    def _show_claim(self, configurator: Configurator, *change: object) -> None:
        """At the start and after each change: a file brings an owner, a reset forgets him."""
        claim = first_use(configurator)
        self._door_input(door.Claimed(claim.left if claim is not None else 0.0))

    def _relay_fault(self, relay: str, why: str) -> None:
        self._journal.record("relay_fault", {"relay": relay, "why": why})

    # -- sound

    def _media_event(self, event: media.MediaEvent) -> None:
        match event:
            # The thread may still tell of a session that has ended since: never the next call.
            case media.DigitHeard(session, digit) if self._sound.is_current(session):
                self._digit(self._sound.talking, digit, 0.0)
            case media.FarEndStarted(session) if self._sound.is_current(session):
                if self._sound.early and not self._sound.talking:
                    self._door_input(door.EarlyMedia(self._door.call, heard=True))
            case media.KeysReady(session, suite):
                self._sound.keys_ready(session, suite)
            case media.KeysFailed(session, why) if self._sound.is_current(session):
                self._no_keys(why)
            case media.FarEndSilent(session, seconds) if self._sound.is_current(session):
                self._far_end_silent(seconds)
            case media.CardLost(reason):
                self._card.lost(reason)
            case media.CardBack():
                self._card.back()
            case media.SoundFault(reason):
                log.warning("%s", reason)
                self._journal.record("sound_fault", {"why": reason})
            case media.SoundFailed(_, reason):
                log.warning("a sound cannot be played: %s", reason)
            case media.MediaFailed(error):
                if not self._fault.done():
                    self._fault.set_exception(error)
            case media.SessionEnded(session, statistics):
                call = self._sound.call_of(session)
                if statistics is not None:
                    said = verdict(statistics)
                    log.info("call %s: %s", call, said)
                    self._journal.record(
                        "call_statistics", {"call": call, "verdict": said, **asdict(statistics)}
                    )
            case _:
                pass
        self._state_changed()

    def _card_changed(self, fault: str) -> None:
        if fault:
            log.warning("sound card: %s", fault)
        self._door_input(door.SoundCardChanged(fault))

    def _far_end_silent(self, seconds: float) -> None:
        """A far end that is gone without a BYE: a router restarted, a phone lost its power."""
        call = self._agent.calls.get(self._sound.talking)
        if call is None or call.state is not ua.CallState.CONNECTED:
            return
        why = f"nothing heard for {seconds:.0f} s"
        self._journal.record("dead_call", {"call": call.id, "why": why})
        self._shell.tell(lambda now: self._agent.hang_up(call.id, now, why))

    def _no_keys(self, why: str) -> None:
        """A call whose sound was to be encrypted and cannot be: nobody would hear anything."""
        call = self._sound.talking
        self._journal.record("encryption_failed", {"call": call or self._sound.early, "why": why})
        if call:
            self._shell.tell(lambda now: self._agent.hang_up(call, now, why))

    def _digit(self, call: str, digit: Digit, held: float) -> None:
        if call and self._sound.is_new(call, digit, held):
            self._door_input(door.DigitReceived(call, digit.value, digit.source))

    # -- the user agent

    def _deliver(self, event: object) -> None:
        match event:
            case ua.RegistrationChanged():
                self._registration_changed(event)
            case ua.CallArrived(call) if self._leaving:
                # It would ring until its caller gives up, or talk to nobody.
                self._shell.tell(lambda now: self._agent.reject(call, 480, now))
            case ua.CallArrived():
                uri = event.peer[:STRANGERS_TEXT]
                self._door_input(door.CallArrived(event.call, event.known_as, event.rule, uri))
            case ua.GroupRinging(group, _, early_media):
                self._door_input(door.StepRinging(group, early_media))
            case ua.GroupAnswered(group, call, peer):
                self._sound.start_talking(call)
                self._recorder.call_began(call)
                self._door_input(door.StepAnswered(group, call, peer))
            case ua.GroupFailed(group, outcomes):
                self._sound.close_if_unused()
                self._door_input(
                    door.StepFailed(
                        group,
                        tuple(
                            door.Outcome(o.target, o.kind.value, o.status, o.why) for o in outcomes
                        ),
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
                self._journal.record("hold", {"call": call, "held": held, "by_peer": by_peer})
            case ua.MessageReceived(peer, text, rule):
                who = peer[:STRANGERS_TEXT]
                self._journal.record("message", {"peer": who, "length": len(text), "rule": rule})
                self.commands.message_received(peer, text)
            case ua.ContentReceived() if self._remote is not None:
                self._remote.received(event)
            case ua.ContentReceived():
                self._shell.tell(lambda now: self._agent.answer_content(event, 403, now, once=True))
            case ua.MessageResult():
                self.commands.message_result(event)
                if self._remote is not None:
                    self._remote.message_result(event)
            case ua.CommandResult():
                self.commands.change_result(event)
            case ua.SyncAsked(source, rule):
                log.info("check-sync from %s (%s)", source, rule)
                if self._provisioner is not None:
                    self._provisioner.check()
            case ua.Refused(method, source, status, rule):
                log.debug("refused %s from %s: %d %s", method, source, status, rule)
                self._journal.refused(event)
            case _:
                pass
        self._state_changed()

    def _registration_changed(self, event: ua.RegistrationChanged) -> None:
        state = event.state
        log.info("registration: %s at %s: %s", state.value, event.registrar, event.why)
        self.commands.registration_changed(event)
        if state is ua.RegistrationState.REGISTERED:
            self._door_input(door.RegistrationChanged(True))
        elif state in (ua.RegistrationState.RETRYING, ua.RegistrationState.REFUSED):
            self._door_input(door.RegistrationChanged(False, event.why))

    def _media_agreed(self, call: str, session: AudioSession | None, *, early: bool) -> None:
        if session is not None:
            # A far end that agrees and hangs up at once: the end is told next.
            found = self._agent.calls.get(call)
            if found is not None:
                self._sound.agreed(call, session, early=early, inband=found.inband_digits)
                if not early:
                    self._door_input(door.CallConfirmed(call))
        elif self._sound.gave_up(call):
            self._door_input(door.EarlyMedia(self._door.call, heard=False))

    def _call_ended(self, event: ua.CallEnded) -> None:
        log.info("call %s ended: %d %s", event.call, event.status, event.why)
        self.commands.call_ended(event.call)
        self._recorder.call_ended(event.call)
        self._sound.call_ended(event.call)
        self._door_input(door.CallEnded(event.call, event.why))

    def _state_changed(self) -> None:
        self.commands.state_changed()
        if self._configurator is not None:
            self._configurator.station_changed()
        if self._remote is not None:
            self._remote.station_changed()
