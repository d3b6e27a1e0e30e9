"""Orders by SIP MESSAGE: `provision.commander` judges them, here they are carried out.

A change by order goes up a ladder, each rung told to who ordered it by the door's own MESSAGE:

    set ─> 202, on disk ─> applied, and the door is well ─> result "applied" ─> confirm ─> kept
                                                       └─ no confirm in time ─> result "rolled-back"

Who ordered the change that is tried is kept with it on disk: a station that is built anew, or
starts after a power cut, tells how it ended.
"""

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from doorstation import BUILT, __version__
from doorstation.commands import Reach
from doorstation.configurator import Configurator
from doorstation.door.events import Field, OpenRequested
from doorstation.errors import DoorstationError, ProtocolError, SettingsError, StoreError
from doorstation.hashes import sha256
from doorstation.ids import Ids
from doorstation.net import dhcp
from doorstation.provision.commander import (
    Answer,
    Audit,
    Commander,
    Count,
    Execute,
    Key,
    Typed,
    refusal,
)
from doorstation.provision.jws import PublicKey
from doorstation.provision.layers import Change, Difference, Row, shown
from doorstation.provision.orders import Order, may_set
from doorstation.provision.outbox import Outbox
from doorstation.provision.state import Past, Pending
from doorstation.provisioner import Provisioner
from doorstation.results import Asked, Result, Results
from doorstation.settings.option import Section, options
from doorstation.settings.rules import RESERVED_WORDS
from doorstation.settings.text import url_fault
from doorstation.settings.tree import Settings, Word
from doorstation.sip.message import Request
from doorstation.sip.transport import Flow
from doorstation.ua import events as ua
from doorstation.ua.inspect import ORDERS

log = logging.getLogger(__name__)

PART: Final = "orders"
"""Our name in the configurator's memory."""

SHORTEST_TRIAL: Final = 5.0
LONGEST_TRIAL: Final = 3600.0
"""Seconds for `within`, as for `provisioning.confirm_within`."""
REBOOT_AFTER: Final = 1.0
"""Seconds for the answer and the result to leave."""
BUILT_ANEW: Final = "the station ended and another was built before it was done; order again"
PULLED_WITHIN: Final = 2.0
"""Seconds until a relay's driver must have answered."""

_LOOKS: Final = frozenset({"get", "check", "history", "status"})


class Kept(msgspec.Struct, frozen=True):
    """What must outlive a restart."""

    counters: Mapping[str, int] = {}
    issued: Mapping[str, int] = {}
    asked: Asked | None = None


class Remote:
    """Whoever may order the door from elsewhere, for as long as one station runs."""

    def __init__(
        self,
        reach: Reach,
        configurator: Configurator,
        ids: Ids,
        *,
        status: Callable[[], Mapping[str, Any]],
        is_busy: Callable[[], bool],
        is_registered: Callable[[], bool],
        restart: Callable[[], None],
        provisioner: Provisioner | None,
        outbox: Outbox[Result],
    ) -> None:
        self._reach = reach
        self._results = Results(reach, configurator, ids, is_registered, outbox)
        self._configurator = configurator
        self._status = status
        self._is_busy = is_busy
        self._restart = restart
        self._provisioner = provisioner
        self._ids = ids
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_writes = asyncio.Lock()
        """What is kept is written as it is then, never over something newer."""
        self._staging: Callable[[Pending], None] | None = None
        self._applied_told = False
        self._openings: dict[str, asyncio.Future[str]] = {}
        self._kept: Kept | None = None
        self._commander: Commander | None = None
        self._settings = reach.settings
        configurator.followers.append(self._change_told)
        reach.endpoint.screen = self._screen
        self.take(reach.settings)

    def close(self) -> None:
        """The station ends."""
        self._results.close()
        self._configurator.followers.remove(self._change_told)
        for task in self._tasks:
            task.cancel()

    def take(self, settings: Settings) -> None:
        """The station goes on with other settings."""
        before, self._settings = self._settings, settings
        if not (settings.keys and settings.commanders):
            self._commander = None
            return
        if self._kept is None:
            self._kept = self._remembered()
        if self._commander is not None and (before.keys, before.commanders) == (
            settings.keys,
            settings.commanders,
        ):
            return
        keys: dict[str, Key] = {}
        for name, key in settings.keys.items():
            try:
                public = PublicKey.parse(key.public)
            except ValueError as fault:
                log.warning("keys.%s: %s", name, fault)
                continue
            keys[public.kid] = Key(name, public, key.role, key.opens, key.scope)
        commanders = settings.commanders
        self._commander = Commander(
            door=self._configurator.identify(self._ids),
            names=lambda: [each.mac.hex() for each in dhcp.interfaces()],
            keys=keys,
            users={name: who.password.reveal() for name, who in commanders.items()},
            typists=frozenset(name for name, who in commanders.items() if who.types),
            algorithms={
                name: tuple(algorithm.upper() for algorithm in who.digest)
                for name, who in commanders.items()
            },
            counters=self._kept.counters,
            issued=self._kept.issued,
            secret=self._ids.token().encode(),
            ids=self._ids,
            stands_against=self._stands_against,
        )

    @property
    def identity(self) -> Mapping[str, str]:
        """What stands on the door's label: its name, its key's fingerprint, its claim code; and
        who signed its certificate."""
        own = self._configurator.identity(self._ids)
        return {
            "door": own.door,
            "key": own.public.fingerprint,
            "claim": own.claim_code,
            "certificate": str(self._configurator.certificate or "signed by itself"),
        }

    def _remembered(self) -> Kept:
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.convert(self._configurator.remembered(PART) or {}, Kept)
        return Kept()

    # -- an order comes

    def received(self, event: ua.ContentReceived) -> None:
        """Judge a MESSAGE, answer it, and carry out what it orders."""
        if self._commander is None:
            self._answer(event, Answer(403, once=True))
            return
        wall = time.time()
        outputs = self._commander.received(
            event.request,
            event.flow.remote[0],
            self._loop.time(),
            wall if wall > BUILT else None,
            reliable=event.flow.transport.reliable,
        )
        answer, signed_by = Answer(500), ""
        for output in outputs:
            match output:
                case Answer():
                    answer = output
                case Audit():
                    self._audited(output)
                case Count(kid, counter, issued):
                    signed_by, known = kid, self._known
                    self._keep(
                        counters={**known.counters, kid: counter},
                        issued={**known.issued, kid: issued},
                    )
                case Execute():
                    self._spawn(self._ordered(event, output, signed_by))
                    return
                case Typed():
                    self._answer(event, answer)
                    self._spawn(self._typed(event, output))
                    return
        self._answer(event, answer)
        if signed_by:
            self._spawn(self._remember())

    def _screen(
        self, request: Request, flow: Flow, now: float
    ) -> tuple[int, str, tuple[tuple[str, str], ...]] | None:
        """Refuse a storm's orders before the user agent looks at them."""
        if request.method != "MESSAGE" or request.content_type != ORDERS or self._commander is None:
            return None
        source = flow.remote[0]
        reliable = flow.transport.reliable
        answer = self._commander.waits(request, source, now, reliable=reliable)
        if answer is None:
            return None
        self._reach.journal.refused(ua.Refused("MESSAGE", source, answer.status, "orders"))
        return answer.status, answer.reason, answer.headers

    def _answer(self, event: ua.ContentReceived, answer: Answer) -> None:
        if answer.once and answer.status not in (401, 200):
            source = event.flow.remote[0]
            self._reach.journal.refused(ua.Refused("MESSAGE", source, answer.status, "orders"))
        self._reach.shell.tell(
            lambda now: self._reach.agent.answer_content(
                event,
                answer.status,
                now,
                reason=answer.reason,
                headers=answer.headers,
                body=answer.body,
                once=answer.once,
            )
        )

    def _audited(self, audit: Audit) -> None:
        fields = msgspec.structs.asdict(audit) | {"keys": list(audit.keys)}
        # What a typed line changes is told as a change.
        done = audit.status == 202 and audit.op not in {*_LOOKS, "text"}
        self._configurator.audit("order", fields, done=done)
        self._reach.journal.record("order", fields | {"keys": ", ".join(audit.keys)})

    def _stands_against(self, order: Order, key: Key) -> ProtocolError | None:
        """Why what the key's role allows cannot be carried out now."""
        configurator = self._configurator
        if order.op not in _LOOKS and configurator.closed:
            return ProtocolError(configurator.closed, status=503)
        faults: list[str] = []
        match order.op:
            case "set" | "check":
                try:
                    configurator.check(order.change)
                except SettingsError as fault:
                    faults = order.faults(fault)
            case "confirm" | "rollback":
                tried = configurator.pending
                if tried is None or tried.number != order.of:
                    return ProtocolError(f"change {order.of} is not being tried", status=409)
                if not self._ordered_by(key, tried):
                    changed = (each.key for each in tried.differences)
                    decision = may_set(changed, key.role, key.scope)
                    if not decision.allowed:
                        return ProtocolError(decision.rule, status=403)
                if order.op == "confirm" and not configurator.well:
                    return ProtocolError("the door is not registered", status=409)
            case "reboot" if self._is_busy():
                return ProtocolError("a call is up; later", status=409)
            case "fetch" if self._provisioner is None:
                return ProtocolError("this door fetches nothing", status=501)
            case "fetch":
                if why := url_fault(order.url):
                    faults.append(f"/url: {why}")
                if not _SHA256.fullmatch(order.sha256):
                    faults.append("/sha256: 64 hexadecimal digits")
        if order.within is not None and not SHORTEST_TRIAL <= order.within <= LONGEST_TRIAL:
            limits = f"{SHORTEST_TRIAL:g} to {LONGEST_TRIAL:g} s"
            faults.append(f"/within: {order.within:g} s is out of range; {limits}")
        if faults:
            return ProtocolError("\n".join(faults), status=422)
        if order.op in ("set", "fetch") and (tried := configurator.pending) is not None:
            return ProtocolError(_is_tried(tried), status=409)
        return None

    def _ordered_by(self, key: Key, tried: Pending) -> bool:
        asked = self._known.asked
        return asked is not None and _is_of(tried, asked) and asked.kid == key.public.kid

    # -- carrying out

    async def _ordered(self, event: ua.ContentReceived, execute: Execute, kid: str) -> None:
        order = execute.order
        by = f"{execute.by}, key {execute.key}"
        asked = Asked(
            by, f"message {order.ctr}", str(event.request.from_.uri), event.by_account,
            order.op, kid, order.ctr,
        )  # fmt: skip
        self._results.came_by(asked.target, event.flow)
        accepted = partial(self._answer, event, Answer(202))
        if order.op == "set":
            await self._set(event, order, asked, accepted)
            return
        if order.op in _LOOKS:
            # Behind the answer: a door whose disk stands still can be looked at too.
            if not self._configurator.closed:
                self._spawn(self._remember())
        else:
            # Kept before anything happens: a power cut must not let the order come again.
            try:
                await self._remember()
            except StoreError as fault:
                self._refuse(event, fault)
                return
        accepted()
        if order.op == "fetch":
            await self._fetch(order, asked)
            return
        try:
            result = await self._done(order, by)
        except DoorstationError as fault:
            result = {"state": "failed", "why": str(fault)}
        except asyncio.CancelledError:
            self._results.tell(asked, order.op, {"state": "failed", "why": BUILT_ANEW})
            raise
        self._results.tell(asked, order.op, result)

    async def _done(self, order: Order, by: str) -> Mapping[str, Any]:
        """Do it; the result. Raises DoorstationError with why not."""
        configurator = self._configurator
        match order.op:
            case "get":
                return {"state": "done", "rows": [_row(row) for row in self._rows(order.keys)]}
            case "check":
                return {"state": "done", **_told(configurator.check(order.change))}
            case "history":
                return {
                    "state": "done",
                    "changes": [_past(past) for past in configurator.history()],
                }
            case "status":
                return {"state": "done", **self._summary()}
            case "confirm":
                await configurator.confirm(order.of)
                if why := configurator.unsaved:
                    return {"state": "applied", "number": order.of, "why": why}
                return {"state": "confirmed", "number": order.of}
            case "rollback":
                await configurator.roll_back(order.of, f"by {by}")
                return {"state": "rolled-back", "number": order.of}
            case "open":
                return await self._open(order.relay, by)
            case "reboot":
                self._loop.call_later(REBOOT_AFTER, self._restart)
                return {"state": "done"}
        raise DoorstationError(f"{order.op} is not known here")

    async def _set(
        self,
        event: ua.ContentReceived,
        order: Order,
        asked: Asked,
        accepted: Callable[[], None],
    ) -> None:
        """Try a change; that it is on the disk is what 202 means."""
        fault = await self._stage(
            asked,
            lambda kept: self._configurator.stage(
                order.change,
                by=asked.by,
                how=asked.how,
                needs_word=True,
                confirm_within=order.within,
                kept=kept,
            ),
            accepted,
        )
        if isinstance(fault, SettingsError):  # something else was set meanwhile
            fault = ProtocolError("\n".join(order.faults(fault)), status=422)
        if fault is not None:
            self._refuse(event, fault)

    def _refuse(self, event: ua.ContentReceived, fault: DoorstationError) -> None:
        """Answer an order that was to be carried out and cannot be."""
        status = fault.status if isinstance(fault, ProtocolError) else 409
        if isinstance(fault, StoreError):
            status = 503
        answer = refusal(status, str(fault))
        if self._commander is not None:
            self._commander.answered(event.request, answer)
        self._answer(event, answer)

    async def _fetch(self, order: Order, asked: Asked) -> None:
        """Try the file that an order names; 202 is out, as a server may be slow."""
        provisioner = self._provisioner
        assert provisioner is not None, "refused otherwise"
        fault: DoorstationError | None
        try:
            file = await provisioner.ordered(order.url, order.sha256)
        except DoorstationError as found:
            fault = found
        except asyncio.CancelledError:
            self._results.tell(asked, "fetch", {"state": "failed", "why": BUILT_ANEW})
            raise
        else:
            fault = await self._stage(
                asked,
                lambda kept: provisioner.try_ordered(
                    file, by=asked.by, how=asked.how, confirm_within=order.within, kept=kept
                ),
            )
        if fault is not None:
            self._results.tell(asked, "fetch", {"state": "failed", "why": str(fault)})

    async def _stage(
        self,
        asked: Asked,
        stage: Callable[[Mapping[str, Any]], Awaitable[int]],
        accepted: Callable[[], None] = lambda: None,
    ) -> DoorstationError | None:
        """Begin a change and keep who asked for it. Why not, if not."""
        fault: DoorstationError
        async with self._one_writes:
            kept = msgspec.structs.replace(self._known, asked=asked)
            self._staging = partial(self._staged, asked, accepted)
            try:
                await stage({PART: msgspec.to_builtins(kept)})
            except DoorstationError as found:
                fault = found
            else:
                return None
            finally:
                self._staging = None
        with contextlib.suppress(StoreError):
            await self._remember()  # the counter all the same
        return fault

    def _staged(self, asked: Asked, accepted: Callable[[], None], tried: Pending) -> None:
        if not _is_of(tried, asked):
            return  # somebody's who was before us in the queue
        self._keep(asked=asked)
        self._applied_told = False
        accepted()

    async def _open(self, relay: str, by: str) -> Mapping[str, Any]:
        """Pulse a relay by the door's own way; done is what its driver confirms."""
        opening = self._openings.setdefault(relay, self._loop.create_future())
        self._reach.tell_door(OpenRequested(relay, by))
        try:
            why = await asyncio.wait_for(asyncio.shield(opening), PULLED_WITHIN)
        except TimeoutError:
            why = "its driver does not answer"
        finally:
            self._openings.pop(relay, None)
        if why:
            raise DoorstationError(f"relay {relay}: {why}")
        return {"state": "done", "relay": relay}

    def recorded(self, kind: str, fields: Mapping[str, Field]) -> None:
        """What the door recorded of a relay."""
        opening = self._openings.get(str(fields.get("relay")))
        if opening is not None and not opening.done() and kind in ("release", "relay_fault"):
            opening.set_result(str(fields.get("why", "")))

    # -- how a change goes on

    def _change_told(self, kind: str, number: int, why: str) -> None:
        pending = self._configurator.pending
        if kind == "reset" and self._kept is not None:
            self._kept = self._remembered()
            self._commander = None
            self.take(self._settings)
        if kind != "staged":
            self.station_changed()
        elif self._staging is not None and pending is not None:
            self._staging(pending)

    def station_changed(self) -> None:
        """Something is different at the station: tell who asked what became of his change."""
        self._results.send_due()
        asked = None if self._kept is None else self._kept.asked
        configurator = self._configurator
        if asked is None or configurator.waiting or not self._results.can_tell:
            return
        pending = configurator.pending
        if pending is not None and _is_of(pending, asked):
            if asked.kid and configurator.well and not self._applied_told:
                self._applied_told = True
                self._results.tell(
                    asked,
                    asked.op,
                    {"state": "applied", "number": pending.number, **_told(pending.differences)},
                )
            return
        past = next((p for p in reversed(configurator.history()) if _is_of(p, asked)), None)
        if past is None:
            return
        self._keep(asked=None)
        kept = past.result == "confirmed"
        why = past.result.partition(": ")[2]
        if not asked.kid:
            changed = ", ".join(_plainly(each) for each in past.differences) or "nothing changed"
            if unsaved := configurator.unsaved:
                changed += f"; {unsaved}"
            self._results.tell_text(asked, changed if kept else f"taken back: {why}")
        elif not kept:
            result = {"state": "rolled-back", "number": past.number, "why": why}
            self._results.tell(asked, asked.op, result)
        self._spawn(self._remember())

    # -- typed lines

    async def _typed(self, event: ua.ContentReceived, typed: Typed) -> None:
        call = sha256(typed.call_id.encode()).hexdigest()[:8]
        asked = Asked(typed.by, f"text {call}", str(event.request.from_.uri), event.by_account)
        self._results.came_by(asked.target, event.flow)
        configurator = self._configurator
        words = self._settings.words
        fault: DoorstationError | None = None
        match typed.words:
            case ("status",):
                self._results.tell_text(asked, self._status_line())
            case ("help",):
                self._results.tell_text(asked, _help(words))
            case ("undo",):
                last = self._last_kept()
                if last is not None and not _may_undo(last, words):
                    why = "not done: the last change is more than a typed word's"
                    self._results.tell_text(asked, why)
                    return
                # Of this one alone: an owner's may be kept before it is our turn.
                of = 0 if last is None else last.number
                fault = await self._stage(
                    asked,
                    lambda kept: configurator.undo(
                        by=asked.by, how=asked.how, needs_word=False, kept=kept, of=of
                    ),
                )
            case (word, value) if word in words:
                change = Change({words[word].sets: _value(value)})
                fault = await self._stage(
                    asked,
                    lambda kept: configurator.stage(
                        change, by=asked.by, how=asked.how, needs_word=False, kept=kept
                    ),
                )
            case _:
                self._results.tell_text(asked, f"not understood; {_help(words)}")
        if fault is not None:
            self._results.tell_text(asked, f"not done: {fault}")

    def _last_kept(self) -> Past | None:
        history = reversed(self._configurator.history())
        return next((past for past in history if past.undoable), None)

    def _status_line(self) -> str:
        found = self._summary()
        change = f"; change {found['change']} is being tried" if found["change"] else ""
        return f"{found['registration']}; door {found['phase']}; {found['version']}{change}"

    # -- what is told

    def _summary(self) -> dict[str, Any]:
        status, pending = self._status(), self._configurator.pending
        return {
            "registration": status["registration"]["state"],
            "phase": status["door"],
            "calls": len(status["calls"]),
            "relays": status["relays"],
            "card": status["card"],
            "change": 0 if pending is None else pending.number,
            "fault": self._configurator.fault,
            "version": __version__,
        }

    def _rows(self, keys: Iterable[str]) -> list[Row]:
        """The values at these keys and below; of those that nobody set, the default."""
        rows = self._configurator.rows()
        if not keys:
            return rows
        found = []
        for key in keys:
            below = [row for row in rows if row.key == key or row.key.startswith(f"{key}.")]
            found += below or [Row(key, _default(self._configurator.settings, key), "default")]
        return found

    def message_result(self, event: ua.MessageResult) -> None:
        """How a message of ours fared, perhaps a result."""
        self._results.message_result(event)

    # -- what is kept

    @property
    def _known(self) -> Kept:
        assert self._kept is not None, "nothing is judged before"
        return self._kept

    def _keep(self, **fields: Any) -> None:
        self._kept = msgspec.structs.replace(self._known, **fields)

    async def _remember(self) -> None:
        async with self._one_writes:
            await self._configurator.remember(PART, msgspec.to_builtins(self._known))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        try:
            task.result()
        except StoreError as fault:
            log.warning("orders: %s", fault)


_SHA256: Final = re.compile("[0-9a-fA-F]{64}")


def _is_tried(tried: Pending) -> str:
    return f"change {tried.number} by {tried.by} is being tried"


def _is_of(change: Pending | Past, asked: Asked) -> bool:
    return (change.by, change.how) == (asked.by, asked.how)


def _told(differences: Iterable[Difference]) -> dict[str, Any]:
    return {"differences": [msgspec.structs.asdict(each) for each in differences]}


def _row(row: Row) -> list[Any]:
    return [row.key, row.value, row.origin]


def _past(past: Past) -> dict[str, Any]:
    keys = [difference.key for difference in past.differences]
    return {
        "number": past.number, "at": past.at, "by": past.by, "how": past.how, "keys": keys,
        "result": past.result,
    }  # fmt: skip


def _may_undo(last: Past, words: Mapping[str, Word]) -> bool:
    """Whether a change is one that words can make: what an owner did, such as taking a key away,
    is not undone by a line of text."""
    typed = {word.sets for word in words.values()}
    return all(each.key in typed for each in last.differences)


def _plainly(difference: Difference) -> str:
    new, old = (
        "not set" if value is None else json.dumps(value)
        for value in (difference.new, difference.old)
    )
    return f"{difference.key} is {new}, was {old}"


def _default(settings: Settings, key: str) -> Any:
    """The value that a key has without anybody setting it; None if there is no such option."""
    found: Any = settings
    for name in key.split("."):
        match found:
            case Mapping():
                found = found.get(name)
            case Section() if name in options(type(found)):
                found = getattr(found, name)
            case _:  # a key is a stranger's: what is behind an option is none of his business
                return None
    return None if isinstance(found, Section | Mapping) else shown(key, found)


def _help(words: Mapping[str, object]) -> str:
    return ", ".join((*RESERVED_WORDS, *(f"{word} VALUE" for word in words)))


def _value(text: str) -> Any:
    """A typed value: on and off, a number, else the text."""
    if text in ("on", "off"):
        return text == "on"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
