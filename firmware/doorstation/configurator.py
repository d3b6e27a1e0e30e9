"""The door's configuration at work: its state on disk, its audit log, the change that is tried.

`provision.configuration` decides; this carries out what it returns. It outlives the station: a
change that the running one cannot take over ends it in order, and `station.run` builds another.

What must be on disk before the door goes on is written in a thread; the loop never waits for it.
A disk that fails is a fault that is shown, and the door works on with the settings that it has.
"""

import asyncio
import contextlib
import datetime
import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from doorstation.door.events import Field
from doorstation.errors import DoorstationError, SettingsError, StoreError
from doorstation.ids import Ids
from doorstation.provision.configuration import (
    Apply,
    Configuration,
    Output,
    Save,
    Tell,
    restarted,
)
from doorstation.provision.identity import Identity, Signed
from doorstation.provision.layers import Change, Difference, Raw, Row, Tree
from doorstation.provision.state import Past, Pending, State
from doorstation.settings.running import registers_alike, same_parts
from doorstation.settings.tree import Settings
from doorstation.store.audit import ASKED, AuditLog
from doorstation.store.files import Files, Folder
from doorstation.store.identity import IdentityFile
from doorstation.store.state import StateStore

log = logging.getLogger(__name__)

T = TypeVar("T")

CLOSE_WITHIN: Final = 2.0
"""Seconds given to the disk when the service ends."""

LINES_AFTER: Final = 0.05
"""Seconds that lines of the audit log let the change go first that they are about."""

MAX_LINES: Final = 1000
"""Lines that wait while the disk stands still, half as many of those who are refused or look."""

DOOR: Final = "door"
"""Under which the door's own name is kept."""

NOTHING_KEPT: Final = (
    "nothing is kept here, so nothing can be changed while the door runs: "
    "provisioning.state names no folder and systemd gave none (StateDirectory=)"
)


class Runs(Protocol):
    """What is wanted of the station that runs."""

    @property
    def busy(self) -> bool:
        """Whether a call is up, or a relay."""
        ...

    @property
    def registered(self) -> bool: ...

    def take(self, settings: Settings) -> None:
        """Go on with settings that need no new part. Raises DoorstationError: as before, then."""
        ...

    def end(self) -> None:
        """Stop in order: another station is built with the settings that there are then."""
        ...

    def record(self, kind: str, fields: Mapping[str, Field]) -> None: ...


class Configurator:
    """Looks at the settings and changes them, for whoever may: that is asked elsewhere.

    Reading (`check`, `rows`, `history`, `pending`, `settings`, `well`, `remembered`) answers at
    once. Changing (`stage`, `replace`, `confirm`, `roll_back`, `undo`, `reset`, `remember`,
    `base_changed`) is awaited: on return it is on disk, and the door does it as soon as no call is
    up. One after the other; a caller that is cancelled leaves nothing half done. They raise
    Refused (not now), SettingsError (every problem of the new tree), StoreError (the disk).

    `followers` hear `(kind, number, why)` of each change: "staged", "applied", then "confirmed" or
    "rolled_back"; "reset".
    """

    def __init__(
        self,
        base: Mapping[str, Raw],
        files: Files | None,
        *,
        why_not: str = NOTHING_KEPT,
        disk: Executor | None = None,
    ) -> None:
        """`base`: the layers that are not kept, by origin. `files`: where the others are, None
        and `why_not` when there is no such place.

        Raises SettingsError when the layers of `base` alone make no tree.
        """
        self.followers: list[Callable[[str, int, str], None]] = []
        self.fault = "" if files is not None or why_not == NOTHING_KEPT else why_not
        """What is wrong with the disk or with what is kept there, or ""."""
        self.closed = "" if files is not None else why_not
        """Why nothing can be changed, or ""."""
        self.unsaved = ""
        """Why the change that was confirmed last ends with the next start, or ""."""
        self._disk = disk
        self._store: StateStore | None = None
        self._audit: AuditLog | None = None
        self._identity = IdentityFile(files)
        self._folder = None if files is None else files.path(DOOR).parent
        self._asked: AuditLog | None = None
        state = State()
        if files is not None:
            self._store, self._audit = StateStore(files), AuditLog(files)
            self._asked = AuditLog(files, ASKED)
            state = self._read(self._store)
        self._lines: deque[tuple[AuditLog, str, str, Mapping[str, Any]]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._unrecorded: list[tuple[str, Mapping[str, Field]]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._turn = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._station: Runs | None = None
        self._running: Settings | None = None
        """What the station runs with."""
        self._wanted: Settings | None = None
        """What it is to run with once no call is up."""
        self._must_register = False
        self._door = ""
        """Its name, from when it was made until it is kept."""
        self._look_due = False
        self._cut_short = state.pending
        self._configuration = self._configure(base, restarted(state))

    def _read(self, store: StateStore) -> State:
        try:
            state = store.read()
        except (StoreError, OSError) as fault:
            self._close(f"{fault}; `doorstation config reset` begins anew")
            return State()
        for torn in store.faults:
            log.warning("configuration: %s; the slot before it is used", torn)
        return state

    def _configure(self, base: Mapping[str, Raw], state: State) -> Configuration:
        try:
            return Configuration(base, state, self._judge)
        except SettingsError as fault:
            alone = msgspec.structs.replace(state, remote={}, provisioned={})
            configuration = Configuration(base, alone, self._judge)
            self._close(
                "the changes that are kept here do not go with the file any more: "
                f"{'; '.join(fault.problems)}; mend the file and start again, or forget them: "
                "`doorstation config reset`"
            )
            return configuration

    def _judge(self, settings: Settings) -> None:
        events = settings.log.events
        if events and events != self.settings.log.events and self._is_kept(events):
            # It is rotated away: the audit log, the door's key and the state are not.
            raise SettingsError(["log.events: lies among what is kept here; another folder"])
        chain = settings.tls.own_certificate
        if chain and chain != self.settings.tls.own_certificate:
            try:
                self._identity.identity(self.door, self.settings.tls.own_certificate).signed(chain)
            except ValueError as fault:
                raise SettingsError([f"tls.own_certificate: {fault}"]) from None

    def _is_kept(self, path: str) -> bool:
        """Whether a file would lie beside the state."""
        if self._folder is None:
            return False
        return os.path.dirname(os.path.realpath(path)) == os.path.realpath(self._folder)

    def _close(self, why: str) -> None:
        self.fault = self.closed = why
        log.error("configuration: %s", why)

    # -- life

    async def start(self) -> None:
        """Save and tell of a change that the last end of the service cut short."""
        if self._cut_short is not None and not self.closed:
            past = self._configuration.state.history[-1]
            keys = tuple(difference.key for difference in past.differences)
            why = past.result.partition(": ")[2]
            tell = Tell("rolled_back", past.number, past.by, past.how, keys, why)
            save = Save(self._configuration.state, must=False)
            self._spawn(self._do(lambda: [save, tell]))

    async def aclose(self) -> None:
        """Let the disk take what waits, but not for ever."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._tasks, *([] if self._writing is None else [self._writing])]
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_WITHIN)
        for task in tasks:
            task.cancel()
        if self._disk is not None:
            self._disk.shutdown(wait=False, cancel_futures=True)

    # -- looking

    @property
    def settings(self) -> Settings:
        """What the door runs with, or will as soon as no call is up."""
        return self._configuration.settings

    @property
    def pending(self) -> Pending | None:
        """The change that is being tried."""
        return self._configuration.state.pending

    @property
    def busy(self) -> bool:
        """Whether a call is up, or a relay."""
        return self._station is not None and self._station.busy

    @property
    def registered(self) -> bool:
        """Whether the registrar has the door, or it has none."""
        if self.settings.account is None:
            return True
        return self._station is not None and self._station.registered

    @property
    def waiting(self) -> bool:
        """Whether the door still runs with what was before."""
        staged = self.pending is not None and self._configuration.deadline is None
        return staged or self._wanted is not None or self._running is None

    @property
    def well(self) -> bool:
        """Whether the door is registered, if it was before the change or registers another way."""
        if self.waiting or self._station is None:
            return False
        return not self._must_register or self._station.registered

    def check(self, change: Change, origin: str = "remote") -> list[Difference]:
        """What a change would change. Raises SettingsError with every problem of the new tree."""
        return self._configuration.check(change, origin)

    def rows(self) -> list[Row]:
        """Every value that somebody set, with its origin; secrets masked."""
        return self._configuration.tree.rows()

    @property
    def tree(self) -> Tree:
        """All layers, secrets in them."""
        return self._configuration.tree

    def history(self) -> tuple[Past, ...]:
        """The last changes that were tried, the oldest first."""
        return self._configuration.state.history

    def remembered(self, part: str) -> Any:
        """What a part keeps here, None if nothing."""
        return self._configuration.state.kept.get(part)

    @property
    def door(self) -> str:
        """The door's UUID: in its realm, and what orders and files name it by; "" for none yet."""
        return str(self.remembered(DOOR) or self._door)

    def identify(self, ids: Ids) -> str:
        """The same, made at the first need; after a reset another."""
        if not self.door:
            self._door = str(uuid.UUID(int=ids.number(128), version=4))
            self.remember_soon(DOOR, self._door)
        return self.door

    def identity(self, ids: Ids) -> Identity:
        """What the door proves itself by. At its first start this makes a key."""
        return self._identity.identity(self.identify(ids), self.settings.tls.own_certificate)

    @property
    def certificate(self) -> Signed | None:
        """The owner's certificate that the door shows; None while it signs its own."""
        return self._identity.signed

    async def identity_file(self) -> Path | None:
        """The file with key and certificate of a door that has a name, None if there is none."""
        if self.closed or not self.door:
            return None
        chain = self.settings.tls.own_certificate
        if (found := self._identity.found(self.door, chain)) is not None:
            return found  # and no thread for the disk
        try:
            return await self._on_disk(partial(self._identity.made, self.door, chain))
        except StoreError as fault:
            self._disk_failed(fault)
            return None

    async def verify(self) -> str:
        """ "" if no line of the audit log was changed or removed, else what is wrong and where."""
        if self._audit is None or self._asked is None:
            raise StoreError(self.closed)
        for audit in (self._audit, self._asked):
            if fault := await self._on_disk(audit.verify):
                return f"{audit.lines}: {fault}"
        return ""

    # -- changing

    async def stage(
        self,
        change: Change,
        *,
        by: str,
        how: str,
        needs_word: bool,
        origin: str = "remote",
        confirm_within: float | None = None,
        kept: Mapping[str, Any] | None = None,
    ) -> int:
        """Try a change; its number. `kept`: what is to be remembered with it, in one write."""
        await self._do(
            lambda: self._configuration.stage(
                change, by=by, how=how, at=_now(), seconds=self._seconds(confirm_within),
                needs_word=needs_word, origin=origin, kept=kept,
            )
        )  # fmt: skip
        return self._configuration.state.number

    async def replace(
        self,
        raw: Raw,
        *,
        by: str,
        how: str,
        needs_word: bool,
        origin: str,
        confirm_within: float | None = None,
        kept: Mapping[str, Any] | None = None,
        then: Mapping[str, Any] | None = None,
    ) -> int:
        """Try a whole layer in place of the one there is; the change's number.

        `then`: what is to be remembered once it is confirmed, in that one write.
        """
        await self._do(
            lambda: self._configuration.replace(
                raw, by=by, how=how, at=_now(), seconds=self._seconds(confirm_within),
                needs_word=needs_word, origin=origin, kept=kept, then=then,
            )
        )  # fmt: skip
        return self._configuration.state.number

    async def undo(
        self,
        *,
        by: str,
        how: str,
        needs_word: bool,
        kept: Mapping[str, Any] | None = None,
        of: int | None = None,
    ) -> int:
        """Try what was before the last change that was kept; the number of this change.

        `of`: only if the last one is this one.
        """
        await self._do(
            lambda: self._configuration.undo(
                by=by, how=how, at=_now(), seconds=self._seconds(None), needs_word=needs_word,
                kept=kept, of=of,
            )
        )  # fmt: skip
        return self._configuration.state.number

    async def confirm(self, number: int) -> None:
        """Keep the change that is being tried. Raises Refused while the door is not well."""
        await self._do(lambda: self._configuration.confirm(number, well=self.well))

    async def roll_back(self, number: int, why: str) -> None:
        """Put back what was before the change that is being tried."""
        await self._do(lambda: self._configuration.roll_back(number, why))

    async def reset(self, *, by: str, how: str) -> None:
        """As it came: only the file and what is compiled in count; the audit log stays."""
        if self._store is None:
            raise StoreError(self.closed)
        closed, self.closed = self.closed, ""
        try:
            await self._do(lambda: self._configuration.reset(by=by, how=how))
        except StoreError:
            self.closed = closed
            raise

    async def remember(self, part: str, value: Any) -> None:
        """Keep something for a part by its name: on disk on return. None of it is shown."""
        await self._do(lambda: self._configuration.remember(part, value))

    def remember_soon(self, part: str, value: Any) -> None:
        """The same, and nobody waits for it."""
        if not self.closed:
            self._spawn(self.remember(part, value))

    async def base_changed(self, origin: str, raw: Raw) -> None:
        """A layer that is not kept says something else. Raises SettingsError: it is not used."""
        await self._do(lambda: self._configuration.base_changed(origin, raw), kept=False)

    def audit(self, kind: str, fields: Mapping[str, Any], *, done: bool = True) -> None:
        """A line for the audit log, where there is one; nobody waits for it.

        `done`: of something that was done or changed, not of who was refused or only looked.
        """
        audit = self._audit if done else self._asked
        if audit is None:
            return
        if len(self._lines) >= (MAX_LINES if done else MAX_LINES // 2):
            self._disk_failed(StoreError("the disk stands still: lines of the audit log are lost"))
            return
        self._lines.append((audit, _now(), kind, fields))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_lines())

    def _seconds(self, wanted: float | None) -> float:
        return wanted if wanted is not None else self.settings.provisioning.confirm_within

    # -- the station's side

    def attach(self, station: Runs, settings: Settings) -> None:
        """A station is up, with these settings."""
        self._station = station
        self._running = settings
        for kind, fields in self._unrecorded:
            station.record(kind, fields)
        self._unrecorded.clear()
        self._wanted = self.settings
        self.station_changed()

    def detach(self) -> None:
        """No station runs."""
        self._station = None

    def station_changed(self) -> None:
        """Something is different at the station: a call is over, the door is registered."""
        if (self._wanted is not None or self.pending is not None) and not self._look_due:
            # In a turn of its own: the station is in the middle of something.
            self._look_due = True
            asyncio.get_running_loop().call_soon(self._look)

    async def failed(self, why: str) -> bool:
        """No station can be built with these settings; whether there are others to try now."""
        pending = self.pending
        if pending is None or self._configuration.deadline is not None:
            return False
        await self.roll_back(pending.number, why)
        return True

    def _look(self) -> None:
        self._look_due = False
        station, wanted = self._station, self._wanted
        if station is None:
            return
        if wanted is not None and not station.busy:
            self._hand_over(station, wanted)
        pending = self.pending
        if self.well and pending is not None and not pending.needs_word:
            self._spawn(self._do(self._configuration.well_again))

    def _hand_over(self, station: Runs, wanted: Settings) -> None:
        """Let the station run with these settings: as it is, or another."""
        assert self._running is not None
        if wanted != self._running and not same_parts(wanted, self._running):
            self.detach()
            station.end()
            return
        if wanted != self._running:
            try:
                station.take(wanted)
            except DoorstationError as fault:
                log.warning("configuration: the door goes on as before: %s", fault)
                self._wanted = None
                self._spawn(self.failed(str(fault)))
                return
        self._running, self._wanted = wanted, None
        loop = asyncio.get_running_loop()
        pending = self.pending
        if pending is not None and self._configuration.deadline is None:
            self._configuration.applied(loop.time())
            self.record("configuration", {"state": "applied", "change": pending.number})
            self._told("applied", pending.number, "")
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._configuration.deadline
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._due)

    def _due(self) -> None:
        # The loop may call a moment early, by its clock's resolution.
        now = max(asyncio.get_running_loop().time(), self._configuration.deadline or 0.0)
        self._spawn(self._do(lambda: self._configuration.timer_fired(now)))

    # -- carrying out

    async def _do(self, act: Callable[[], list[Output]], *, kept: bool = True) -> None:
        """One input, and all that comes of it, before the next."""
        if kept and self.closed:
            raise StoreError(self.closed)
        await asyncio.shield(self._spawn(self._in_turn(act)))

    async def _in_turn(self, act: Callable[[], list[Output]]) -> None:
        async with self._turn:
            for output in act():
                match output:
                    case Save():
                        await self._save(output)
                    case Tell():
                        self._tell(output)
                    case Apply():
                        self._apply(output)
            self._arm()

    async def _save(self, save: Save) -> None:
        assert self._store is not None, "closed otherwise"
        try:
            await self._on_disk(partial(self._store.write, save.state))
        except StoreError as fault:
            self._disk_failed(fault)
            if save.must:
                self._configuration.save_failed()
                raise
            if save.state.history[-1].result == "confirmed":
                self.unsaved = f"not on disk, a restart takes it back: {fault}"
            return
        self.unsaved = ""
        if self.fault:
            self.fault = ""
            self.record("configuration_fault", {"why": None})

    def _apply(self, apply: Apply) -> None:
        registered = self._station is not None and self._station.registered
        # What the network says meanwhile takes nothing off what a change has to show.
        owed = self.pending is not None and self._must_register
        self._must_register = apply.settings.account is not None and (
            registered or owed or not registers_alike(apply.settings, apply.before)
        )
        self._wanted = apply.settings
        self.station_changed()

    def _tell(self, tell: Tell) -> None:
        fields: dict[str, Field] = {
            "change": tell.number,
            "by": tell.by,
            "how": tell.how,
            "why": tell.why or self.unsaved or None,
        }
        self.audit(tell.kind, {**fields, "keys": list(tell.keys)})
        if tell.kind == "reset":
            self._door = ""
        if tell.kind == "staged":
            self._must_register = False  # of a change before
        keys = ", ".join(tell.keys)
        self.record("configuration", {"state": tell.kind, **fields, "keys": keys})
        self._told(tell.kind, tell.number, tell.why)

    def _told(self, kind: str, number: int, why: str) -> None:
        for follower in self.followers:
            follower(kind, number, why)

    def record(self, kind: str, fields: Mapping[str, Field]) -> None:
        """One record in the event log of the station that runs, or of the next one."""
        if self._station is not None:
            self._station.record(kind, fields)
        else:
            self._unrecorded.append((kind, fields))

    def _disk_failed(self, fault: StoreError) -> None:
        if self.fault != str(fault):
            self.fault = str(fault)
            log.warning("configuration: %s", fault)
            self.record("configuration_fault", {"why": self.fault})

    async def _write_lines(self) -> None:
        await asyncio.sleep(LINES_AFTER)
        while self._lines:
            audit, at, kind, fields = self._lines.popleft()
            try:
                await self._on_disk(partial(audit.append, at, kind, fields))
            except StoreError as fault:
                self._disk_failed(fault)

    async def _on_disk(self, act: Callable[[], T]) -> T:
        if self._disk is None:
            from concurrent.futures.thread import ThreadPoolExecutor  # a door that starts has none

            self._disk = ThreadPoolExecutor(1, thread_name_prefix="configuration")
        return await asyncio.get_running_loop().run_in_executor(self._disk, act)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        # Whoever asked has been told; a fault of ours rises by the loop's handler.
        with contextlib.suppress(DoorstationError):
            task.result()


def place(base: Mapping[str, Raw]) -> Path | None:
    """The folder for what is kept: `provisioning.state` of the file, else the one that systemd
    gives; None: nothing is kept."""
    named = ""
    for raw in base.values():
        with contextlib.suppress(AttributeError):
            named = raw.get("provisioning", {}).get("state", "") or named
    named = named or os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(named) if named else None


def open_configurator(
    base: Mapping[str, Raw], *, alone: bool = False, look: bool = False
) -> Configurator:
    """The configuration of this machine. Raises SettingsError for layers that make no tree.

    `alone`: nobody else may have it open; raises StoreError otherwise. `look`: root may, beside the
    service, and changes nothing.
    """
    folder = place(base)
    if folder is None:
        return Configurator(base, None)
    try:
        files = Folder(folder, look=look)
    except StoreError as fault:
        log.error("configuration: %s; the door works by its file alone", fault)  # noqa: TRY400
        return Configurator(base, None, why_not=str(fault))
    if alone:
        files.claim()
    return Configurator(base, files)


def _now() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
