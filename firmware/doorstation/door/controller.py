"""The door: press, plan, call, talk, digits, release.

One call at a time. Every phase but IDLE has a timer that leads out of it, so the door always
comes back to rest by itself, whatever the network never says.
"""

import enum
from collections import deque
from collections.abc import Mapping
from typing import Final, assert_never

import msgspec

from doorstation.door.codes import CodeBook, CodeEntry, Finished, LockOut
from doorstation.door.events import (
    AcceptCall,
    AnswerRequested,
    CallArrived,
    CallConfirmed,
    CallEnded,
    CallRequested,
    CancelCall,
    CardRead,
    Claimed,
    ContactChanged,
    DigitReceived,
    EarlyMedia,
    Field,
    HangUp,
    HangUpRequested,
    Held,
    Input,
    OpenRequested,
    Outcome,
    Output,
    PartMissing,
    PlaceCall,
    Play,
    Pressed,
    PulseRelay,
    ReaderChanged,
    Record,
    RegistrationChanged,
    RejectCall,
    RejectRequested,
    RelayFailed,
    RelayPulled,
    RingCall,
    Show,
    SoundCardChanged,
    StepAnswered,
    StepFailed,
    StepRinging,
    StopSound,
    Stuck,
    TellWhoRings,
)
from doorstation.door.plan import Plan, PlannedStep, button_plan, direct_plan
from doorstation.door.policy import (
    CardAttempt,
    CodeAttempt,
    counts_as_guess,
    may_count,
    may_release,
    receive_call,
)
from doorstation.door.ration import Ration
from doorstation.settings.tree import Settings

SKIPPED_SECONDS: Final = 1.5  # a step that nothing could reach shows a fault this long
FAULT_SECONDS: Final = 5.0  # a call that nothing could reach, this long
CONFIRM_SECONDS: Final = 1.0  # after it, who has not acknowledged our answer gives way to a visitor


class Phase(enum.StrEnum):
    IDLE = "idle"
    CALLING = "calling"
    RINGING = "ringing"
    """A call in rings at the door until somebody there presses a button."""
    TALKING = "talking"


class Trigger(enum.Enum):
    PRESS = enum.auto()
    PRESS_AGAIN = enum.auto()
    """The button whose call is on."""
    PRESS_UNCONFIRMED = enum.auto()
    """While a call in is on whose far end has not acknowledged our answer."""
    REQUEST = enum.auto()
    TARGET_RINGS = enum.auto()
    EARLY_MEDIA = enum.auto()
    ANSWERED = enum.auto()
    STEP_FAILED = enum.auto()
    STEP_OVER = enum.auto()
    PLAN_OVER = enum.auto()
    CALL_IN_ACCEPTED = enum.auto()
    CALL_IN_RINGS = enum.auto()
    ANSWER = enum.auto()
    REJECT = enum.auto()
    RUNG_OUT = enum.auto()
    HANG_UP = enum.auto()
    CALL_ENDED = enum.auto()
    CALL_ENDS_SOON = enum.auto()
    CALL_TOO_LONG = enum.auto()
    OPENED_LONG_AGO = enum.auto()


class Action(enum.Enum):
    START_PLAN = enum.auto()
    REPLACE_PLAN = enum.auto()
    REPLACE_CALL = enum.auto()
    IGNORE_PRESS = enum.auto()
    REFUSE_PRESS = enum.auto()
    REFUSE_REQUEST = enum.auto()
    NOTE_RINGING = enum.auto()
    CHANGE_RINGBACK = enum.auto()
    NEXT_STEP = enum.auto()
    CANCEL_STEP = enum.auto()
    GIVE_UP = enum.auto()
    CANCEL = enum.auto()
    RING = enum.auto()
    ACCEPT = enum.auto()
    ACCEPT_BY_PRESS = enum.auto()
    TALK = enum.auto()
    REJECT = enum.auto()
    CALLER_GONE = enum.auto()
    WARN = enum.auto()
    HANG_UP = enum.auto()
    CALL_OVER = enum.auto()


# A missing pair changes nothing. Calls in are decided by policy.receive_call before they come here.
TRANSITIONS: Final[Mapping[tuple[Phase, Trigger], tuple[Phase, Action]]] = {
    (Phase.IDLE, Trigger.PRESS): (Phase.CALLING, Action.START_PLAN),
    (Phase.IDLE, Trigger.REQUEST): (Phase.CALLING, Action.START_PLAN),
    (Phase.IDLE, Trigger.CALL_IN_ACCEPTED): (Phase.TALKING, Action.ACCEPT),
    (Phase.IDLE, Trigger.CALL_IN_RINGS): (Phase.RINGING, Action.RING),
    # The visitor hears the ringing already: the same button again changes nothing. Another button
    # is somebody who pressed the wrong bell first.
    (Phase.CALLING, Trigger.PRESS_AGAIN): (Phase.CALLING, Action.IGNORE_PRESS),
    (Phase.CALLING, Trigger.PRESS): (Phase.CALLING, Action.REPLACE_PLAN),
    (Phase.CALLING, Trigger.REQUEST): (Phase.CALLING, Action.REFUSE_REQUEST),
    (Phase.CALLING, Trigger.TARGET_RINGS): (Phase.CALLING, Action.NOTE_RINGING),
    (Phase.CALLING, Trigger.EARLY_MEDIA): (Phase.CALLING, Action.CHANGE_RINGBACK),
    (Phase.CALLING, Trigger.ANSWERED): (Phase.TALKING, Action.TALK),
    (Phase.CALLING, Trigger.STEP_FAILED): (Phase.CALLING, Action.NEXT_STEP),
    (Phase.CALLING, Trigger.STEP_OVER): (Phase.CALLING, Action.CANCEL_STEP),
    (Phase.CALLING, Trigger.PLAN_OVER): (Phase.IDLE, Action.GIVE_UP),
    (Phase.CALLING, Trigger.HANG_UP): (Phase.IDLE, Action.CANCEL),
    (Phase.RINGING, Trigger.PRESS): (Phase.TALKING, Action.ACCEPT_BY_PRESS),
    (Phase.RINGING, Trigger.PRESS_UNCONFIRMED): (Phase.TALKING, Action.ACCEPT_BY_PRESS),
    (Phase.RINGING, Trigger.REQUEST): (Phase.RINGING, Action.REFUSE_REQUEST),
    (Phase.RINGING, Trigger.ANSWER): (Phase.TALKING, Action.ACCEPT),
    (Phase.RINGING, Trigger.REJECT): (Phase.IDLE, Action.REJECT),
    (Phase.RINGING, Trigger.HANG_UP): (Phase.IDLE, Action.REJECT),
    (Phase.RINGING, Trigger.RUNG_OUT): (Phase.IDLE, Action.REJECT),
    (Phase.RINGING, Trigger.CALL_ENDED): (Phase.IDLE, Action.CALLER_GONE),
    (Phase.TALKING, Trigger.PRESS_AGAIN): (Phase.TALKING, Action.IGNORE_PRESS),
    (Phase.TALKING, Trigger.PRESS): (Phase.TALKING, Action.REFUSE_PRESS),
    # A forged datagram is enough for such a call: it must not keep visitors from ringing.
    (Phase.TALKING, Trigger.PRESS_UNCONFIRMED): (Phase.CALLING, Action.REPLACE_CALL),
    (Phase.TALKING, Trigger.REQUEST): (Phase.TALKING, Action.REFUSE_REQUEST),
    (Phase.TALKING, Trigger.CALL_ENDS_SOON): (Phase.TALKING, Action.WARN),
    (Phase.TALKING, Trigger.CALL_TOO_LONG): (Phase.IDLE, Action.HANG_UP),
    (Phase.TALKING, Trigger.OPENED_LONG_AGO): (Phase.IDLE, Action.HANG_UP),
    (Phase.TALKING, Trigger.HANG_UP): (Phase.IDLE, Action.HANG_UP),
    (Phase.TALKING, Trigger.CALL_ENDED): (Phase.IDLE, Action.CALL_OVER),
}


class Timer(enum.Enum):
    STEP = enum.auto()
    RING = enum.auto()
    WARNING = enum.auto()
    MAX_CALL = enum.auto()
    AFTER_OPEN = enum.auto()
    DIGITS = enum.auto()
    FAULT = enum.auto()
    CLAIMED = enum.auto()
    RELAY = enum.auto()
    """One for each relay that is on."""
    LEFT_OPEN = enum.auto()
    """One for each contact that is open."""
    READER = enum.auto()
    """One for each reader with records that were held back."""


TIMER_TRIGGERS: Final[Mapping[Timer, tuple[Trigger, str]]] = {
    Timer.STEP: (Trigger.STEP_OVER, "no_answer"),
    Timer.RING: (Trigger.RUNG_OUT, "rung_out"),
    Timer.WARNING: (Trigger.CALL_ENDS_SOON, ""),
    Timer.MAX_CALL: (Trigger.CALL_TOO_LONG, "max_call"),
    Timer.AFTER_OPEN: (Trigger.OPENED_LONG_AGO, "hang_up_after_open"),
}

CALL_TIMERS: Final = (Timer.STEP, Timer.RING, Timer.WARNING, Timer.MAX_CALL, Timer.AFTER_OPEN)

# How a plan ends when nobody answered: the most telling outcome comes first. With one of
# these the far end works and the visitor hears "busy"; otherwise it is a fault.
RESULTS: Final = ("declined", "no_answer", "busy")
FAULTS: Final = ("failed", "unreachable", "not_registered")


class FarEnd(msgspec.Struct, frozen=True):
    """Who is at the other end of a call, and what its digits may do."""

    key: str
    """Its row of wrong codes."""
    uri: str
    may_open: bool
    short_codes: bool
    inband_digits: bool


class _Attempt(msgspec.Struct):
    """A plan under way."""

    plan: Plan
    since: float
    next_step: int = 0
    step: PlannedStep | None = None
    group: str = ""
    results: set[str] = msgspec.field(default_factory=set)


class _Talk(msgspec.Struct):
    """A call in or an answered call."""

    call: str
    far_end: FarEnd
    since: float
    confirmed: bool = False
    button: str = ""
    hang_up_after_open: float | None = None
    entry: CodeEntry | None = None


class _Pull(msgspec.Struct, frozen=True):
    """A release that the relay's driver has not confirmed yet."""

    since: float
    seconds: float
    until: float
    rule: str
    by: Mapping[str, Field]
    talk: _Talk | None
    """The call whose code it was."""


class _Cause(msgspec.Struct, frozen=True):
    """What a trigger brings along."""

    rule: str = ""
    plan: Plan | None = None
    talk: _Talk | None = None
    status: int = 0
    early_media: bool = False
    button: str = ""


class Door:
    """The door's controller: inputs and `now` in, outputs back, in the order to carry them out."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._plans = {name: button_plan(settings, name) for name in settings.buttons}
        self._book = CodeBook(settings.relays)
        rules = settings.door
        self._lock_out = LockOut(rules.wrong_codes, rules.wrong_codes_in_all, rules.lock_out)
        # One for each keypad: somebody who plays with it must not lock the residents' phones out.
        # A reader of cards may have keys, too: what is typed there can be guessed as anywhere.
        self._keypads = {
            name: LockOut(rules.wrong_codes, rules.wrong_codes, rules.lock_out)
            for name in settings.readers
        }
        self._rations = {name: Ration() for name in settings.readers}
        self._phase = Phase.IDLE
        self._attempt: _Attempt | None = None
        self._talk: _Talk | None = None
        self._groups = 0
        self._registered: bool | None = None
        self._registration_fault = ""
        self._missing: dict[str, str] = {}
        self._stuck: set[str] = set()
        self._contacts: dict[str, bool] = {}
        self._left_open: set[str] = set()
        self._unplugged: set[str] = set()
        self._deaf = False
        """There is no sound card."""
        self._relay_since: dict[str, float] = {}
        self._pulls: dict[str, deque[_Pull]] = {name: deque() for name in settings.relays}
        self._timers: dict[tuple[Timer, str], float] = {}
        self._loop = ""
        self._shown = ""
        self._outputs: list[Output] = []

    def take(self, settings: Settings) -> None:
        """Other rules, plans and codes for the same parts, while no call is on.

        Lock-outs, contacts and what a relay does go on.
        """
        assert self._phase is Phase.IDLE, "between two calls"
        self._settings = settings
        self._plans = {name: button_plan(settings, name) for name in settings.buttons}
        self._book = CodeBook(settings.relays)
        rules = settings.door
        self._lock_out.take(rules.wrong_codes, rules.wrong_codes_in_all, rules.lock_out)
        for keypad in self._keypads.values():
            keypad.take(rules.wrong_codes, rules.wrong_codes, rules.lock_out)

    # --- What others see ------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def call(self) -> str:
        """The call that is on or rings at the door, the group while calling, or ""."""
        if self._talk is not None:
            return self._talk.call
        return self._attempt.group if self._attempt is not None else ""

    @property
    def pattern(self) -> str:
        """What the LEDs show: the most important of what is the case."""
        if self._relay_since:
            return "door_open"
        if (Timer.FAULT, "") in self._timers:
            return "fault"
        if self._phase is Phase.TALKING:
            return "in_call"
        if self._phase is not Phase.IDLE:
            return "ringing"
        if (Timer.CLAIMED, "") in self._timers:  # whose door it is goes before what it lacks
            return "claimed"
        if self.faults:
            return "fault"
        account = self._settings.account is not None
        return "registering" if account and self._registered is None else "idle"

    @property
    def faults(self) -> list[str]:
        """In words what is wrong at present; the LEDs show a fault while the door rests."""
        found = [f"{part} is missing: {why}" for part, why in self._missing.items()]
        found += [f"button {name} is stuck" for name in sorted(self._stuck)]
        found += [f"contact {name} is open for too long" for name in sorted(self._left_open)]
        found += [f"reader {name} is unplugged" for name in sorted(self._unplugged)]
        if self._deaf:
            found.append("there is no sound card")
        if self._settings.account is not None and self._registered is False:
            found.append("the account is not registered")
        return found

    @property
    def deadline(self) -> float | None:
        """When `timer_fired` is due; None: nothing pending."""
        return min(self._timers.values(), default=None)

    # --- Inputs ---------------------------------------------------------------------------------

    def start(self, now: float) -> list[Output]:
        """What to do at power-up."""
        return self._flush()

    def handle(self, event: Input, now: float) -> list[Output]:
        """Take one input."""
        self._run_timers(now)
        match event:
            case Pressed():
                self._handle_press(event.button, now)
            case Held():
                self._record("held", button=event.button)
            case Stuck():
                self._handle_stuck(event)
            case CallRequested():
                self._handle_call_request(event, now)
            case AnswerRequested():
                if event.call in ("", self.call):
                    self._dispatch(Trigger.ANSWER, now, _Cause(rule="answered_by_hand"))
            case RejectRequested():
                if event.call in ("", self.call):
                    cause = _Cause(rule="rejected_by_hand", status=event.status)
                    self._dispatch(Trigger.REJECT, now, cause)
            case HangUpRequested():
                if event.call in ("", self.call):
                    self._dispatch(Trigger.HANG_UP, now, _Cause(rule="hung_up_by_hand", status=603))
            case StepRinging():
                if self._is_current(event.group):
                    cause = _Cause(early_media=event.early_media)
                    self._dispatch(Trigger.TARGET_RINGS, now, cause)
            case EarlyMedia():
                if self._is_current(event.group):
                    cause = _Cause(early_media=event.heard)
                    self._dispatch(Trigger.EARLY_MEDIA, now, cause)
            case StepAnswered():
                self._handle_answer(event, now)
            case StepFailed():
                if self._is_current(event.group):
                    self._handle_outcomes(event.outcomes)
                    self._dispatch(Trigger.STEP_FAILED, now)
            case CallArrived():
                self._handle_call_in(event, now)
            case CallConfirmed():
                if self._talk is not None and event.call == self._talk.call:
                    self._talk.confirmed = True
            case CallEnded():
                if self._talk is not None and event.call == self._talk.call:
                    cause = _Cause(rule=event.why or "far_end")
                    self._dispatch(Trigger.CALL_ENDED, now, cause)
            case DigitReceived():
                self._handle_digit(event, now)
            case RegistrationChanged():
                told = (event.registered, "" if event.registered else event.why)
                if told != (self._registered, self._registration_fault):
                    # From "no answer" to "wrong password" is news, too.
                    self._registered, self._registration_fault = told
                    self._record("registration", registered=told[0], why=told[1])
            case ContactChanged():
                self._handle_contact(event, now)
            case Claimed(seconds):
                self._timers.pop((Timer.CLAIMED, ""), None)
                if seconds:
                    self._timers[Timer.CLAIMED, ""] = now + seconds
            case SoundCardChanged(fault):
                self._deaf = bool(fault)
                if fault:
                    self._record("card_lost", why=fault)
                else:
                    self._record("card_back")
            case ReaderChanged():
                self._handle_reader(event, now)
            case PartMissing(part, why):
                self._missing[part] = why
                self._record("part_missing", part=part, why=why)
            case RelayPulled():
                self._handle_pulled(event.relay, now)
            case RelayFailed():
                self._handle_failed(event, now)
            case CardRead():
                self._handle_card(event, now)
            case OpenRequested():
                self._handle_open_request(event, now)
            case _:
                assert_never(event)
        return self._flush()

    def timer_fired(self, now: float) -> list[Output]:
        """Do what is due."""
        self._run_timers(now)
        return self._flush()

    def _run_timers(self, now: float) -> None:
        while self._timers:
            key = min(self._timers, key=self._timers.__getitem__)
            if self._timers[key] > now:
                break
            del self._timers[key]
            self._handle_timer(*key, now)

    def _handle_timer(self, timer: Timer, name: str, now: float) -> None:
        if timer in TIMER_TRIGGERS:
            trigger, rule = TIMER_TRIGGERS[timer]
            self._dispatch(trigger, now, _Cause(rule=rule, status=480))
        elif timer is Timer.DIGITS:
            if self._talk is not None and self._talk.entry is not None:
                self._handle_entry(self._talk, self._talk.entry.finish(), now)
        elif timer is Timer.RELAY:
            del self._relay_since[name]
        elif timer is Timer.LEFT_OPEN:
            self._left_open.add(name)
            seconds = self._settings.contacts[name].left_open_after
            self._record("left_open", contact=name, seconds=seconds, rule="left_open_after")
        elif timer is Timer.READER:
            state = "unplugged" if name in self._unplugged else "plugged"
            untold = self._rations[name].tell(now)
            self._record("reader", reader=name, state=state, not_recorded=untold)

    def _handle_press(self, button: str, now: float) -> None:
        plan = self._plans.get(button)
        if plan is None or button in self._stuck:
            rule = "unknown_button" if plan is None else "stuck_button"
            self._record("press", button=button, rule=rule)
            return
        mine = self._attempt.plan.name if self._attempt is not None else ""
        talk = self._talk
        if talk is not None:
            mine = talk.button
        trigger = Trigger.PRESS_AGAIN if mine == button else Trigger.PRESS
        if talk is not None and not talk.confirmed and now >= talk.since + CONFIRM_SECONDS:
            trigger = Trigger.PRESS_UNCONFIRMED
        self._dispatch(trigger, now, _Cause(plan=plan, button=button))

    def _handle_call_request(self, event: CallRequested, now: float) -> None:
        if self._settings.target_fault(event.uri):
            self._record("call_request", rule="not_a_target")
            return
        plan = direct_plan(self._settings, event.uri, self._settings.door.ring_in)
        self._dispatch(Trigger.REQUEST, now, _Cause(plan=plan))

    def _handle_stuck(self, event: Stuck) -> None:
        if event.on:
            self._stuck.add(event.button)
        else:
            self._stuck.discard(event.button)
        self._record("stuck", button=event.button, on=event.on)

    def _handle_reader(self, event: ReaderChanged, now: float) -> None:
        if event.plugged:
            self._unplugged.discard(event.reader)
        else:
            self._unplugged.add(event.reader)
        state = "back" if event.plugged else "unplugged"
        if self._may_write(event.reader, now):
            self._record("reader", reader=event.reader, state=state)

    def _is_current(self, group: str) -> bool:
        return self._attempt is not None and self._attempt.group == group

    def _handle_answer(self, event: StepAnswered, now: float) -> None:
        attempt = self._attempt
        if attempt is None or attempt.group != event.group or attempt.step is None:
            # The answer crossed our cancellation: nobody is there to talk any more.
            self._outputs.append(HangUp(event.call))
            self._record("answered", call=event.call, group=event.group, rule="too_late")
            return
        target = attempt.step.answered_by(event.peer)
        talk = _Talk(
            call=event.call,
            far_end=FarEnd(
                target.peer or target.uri,
                target.uri,
                target.may_open,
                target.short_codes,
                target.inband_digits,
            ),
            since=now,
            confirmed=True,
            button=attempt.plan.name,
            hang_up_after_open=attempt.plan.hang_up_after_open,
        )
        self._record(
            "answered",
            call=event.call,
            group=event.group,
            peer=target.peer or target.uri,
            seconds=round(now - attempt.since, 3),
            rule="first_answer",
        )
        self._dispatch(Trigger.ANSWERED, now, _Cause(talk=talk))

    def _handle_outcomes(self, outcomes: tuple[Outcome, ...]) -> None:
        attempt = self._attempt
        if attempt is None:
            return
        for outcome in outcomes:
            attempt.results.add(outcome.kind)
            self._record(
                "target_failed",
                group=attempt.group,
                target=outcome.target,
                status=outcome.status,
                rule=outcome.kind,
                **({"why": outcome.why} if outcome.why else {}),
            )
        if not outcomes:
            attempt.results.add("failed")

    def _handle_call_in(self, event: CallArrived, now: float) -> None:
        settings = self._settings
        caller = settings.account if event.peer == "" else settings.peers.get(event.peer)
        reception = receive_call(
            known=caller is not None,
            may_call=caller is not None and caller.may_call,
            idle=self._phase is Phase.IDLE,
            auto_answer=caller is not None and caller.auto_answer,
        )
        self._record(
            "call_in",
            call=event.call,
            peer=event.peer,
            uri=event.uri,
            let_in_by=event.rule,
            answer=reception.answer,
            rule=reception.rule,
        )
        if caller is None or reception.answer == "reject":
            self._outputs.append(RejectCall(event.call, reception.status))
            return
        # What a registrar says of its callers cannot be proved: they share one row of wrong codes.
        far_end = FarEnd(
            event.peer, event.uri, caller.may_open, caller.short_codes, caller.inband_digits
        )
        talk = _Talk(call=event.call, far_end=far_end, since=now)
        if reception.answer == "accept":
            self._dispatch(Trigger.CALL_IN_ACCEPTED, now, _Cause(talk=talk))
        else:
            self._dispatch(Trigger.CALL_IN_RINGS, now, _Cause(talk=talk))

    def _handle_contact(self, event: ContactChanged, now: float) -> None:
        contact = self._settings.contacts.get(event.name)
        if contact is None or self._contacts.get(event.name) is event.closed:
            return
        self._contacts[event.name] = event.closed
        self._record("contact", contact=event.name, closed=event.closed)
        if event.closed:
            self._timers.pop((Timer.LEFT_OPEN, event.name), None)
            self._left_open.discard(event.name)
        elif contact.left_open_after:
            self._timers[Timer.LEFT_OPEN, event.name] = now + contact.left_open_after

    # --- Releases -------------------------------------------------------------------------------

    def _handle_digit(self, event: DigitReceived, now: float) -> None:
        talk = self._talk if self._phase is Phase.TALKING else None
        in_call = talk is not None and talk.call == event.call
        inband = talk is not None and talk.far_end.inband_digits
        decision = may_count(in_call=in_call, source=event.source, inband_digits=inband)
        finished = None
        count = 0
        if decision.allowed and talk is not None and talk.entry is not None:
            eager = talk.far_end.may_open and not self._lock_out.locked(talk.far_end.key, now)
            finished = talk.entry.add(event.value, event.source, eager=eager)
            count = talk.entry.count if finished is None else finished.digits
            self._timers.pop((Timer.DIGITS, ""), None)
            if talk.entry.count:
                self._timers[Timer.DIGITS, ""] = now + self._settings.door.digit_timeout
        self._record("digit", call=event.call, source=event.source, count=count, rule=decision.rule)
        if finished is not None and talk is not None:
            self._handle_entry(talk, finished, now)

    def _handle_entry(self, talk: _Talk, finished: Finished, now: float) -> None:
        code, far_end = finished.code, talk.far_end
        decision = may_release(
            CodeAttempt(
                may_open=far_end.may_open,
                locked_out=self._lock_out.locked(far_end.key, now),
                known=code is not None,
                short=code is not None and code.short,
                short_codes=far_end.short_codes,
                complete=finished.complete,
            )
        )
        self._record(
            "code",
            call=talk.call,
            peer=far_end.key or far_end.uri,
            digits=finished.digits,
            source=finished.source,
            allowed=decision.allowed,
            rule=decision.rule,
        )
        if decision.allowed and code is not None:
            self._lock_out.right(far_end.key)
            self._release(code.relay, decision.rule, now, talk, call=talk.call)
            return
        if counts_as_guess(decision) and self._lock_out.wrong(far_end.key, now):
            seconds = self._settings.door.lock_out
            self._record("lock_out", peer=far_end.key or far_end.uri, seconds=seconds)
        if not finished.quiet:
            self._play_once("refused", far_end=True)

    def _handle_card(self, event: CardRead, now: float) -> None:
        reader = self._settings.readers.get(event.reader)
        if reader is None:
            return
        guessable = event.typed or reader.protocol == "keypad"
        guard = self._keypads[event.reader] if guessable else None
        known = False
        for accepted in reader.accepts:
            known |= accepted.matches(event.value)
        locked_out = guard is not None and guard.locked(event.reader, now)
        decision = may_release(CardAttempt(locked_out=locked_out, known=known))
        if decision.allowed or self._may_write(event.reader, now):
            self._record("card", reader=event.reader, allowed=decision.allowed, rule=decision.rule)
        if decision.allowed:
            if guard is not None:
                guard.right(event.reader)
            self._release(reader.opens, decision.rule, now, None, reader=event.reader)
            return
        if guard is not None and counts_as_guess(decision) and guard.wrong(event.reader, now):
            self._record("lock_out", reader=event.reader, seconds=self._settings.door.lock_out)
        self._play_once("refused")

    def _handle_open_request(self, event: OpenRequested, now: float) -> None:
        if event.relay in self._settings.relays:
            self._release(event.relay, "order", now, None, by=event.by)

    def _release(self, relay: str, rule: str, now: float, talk: _Talk | None, **by: Field) -> None:
        """Pulse a relay. A pulse in a pulse prolongs it, but never beyond the hold limit."""
        limits = self._settings.relays[relay]
        since = self._relay_since.get(relay, now)
        if self._timers.get((Timer.RELAY, relay), now) <= now:
            since = now
        seconds = min(limits.pulse, since + limits.hold_limit - now)
        self._pulls[relay].append(_Pull(since, seconds, now + seconds, rule, by, talk))
        self._outputs.append(PulseRelay(relay, seconds))

    def _handle_pulled(self, relay: str, now: float) -> None:
        """Only what the driver confirms is told as open: in tone, light and record."""
        if not self._pulls[relay]:
            return
        pull = self._pulls[relay].popleft()
        self._relay_since[relay] = pull.since
        self._timers[Timer.RELAY, relay] = max(now, pull.until)
        self._record(
            "release", relay=relay, seconds=round(pull.seconds, 3), rule=pull.rule, **pull.by
        )
        self._play_once("opened", far_end=self._phase is Phase.TALKING)
        talk = pull.talk
        if talk is not None and talk is self._talk and talk.hang_up_after_open is not None:
            self._timers[Timer.AFTER_OPEN, ""] = now + talk.hang_up_after_open

    def _handle_failed(self, event: RelayFailed, now: float) -> None:
        if not self._pulls[event.relay]:
            return
        pull = self._pulls[event.relay].popleft()
        self._relay_since.pop(event.relay, None)  # a pulse that ran is ended with it
        self._timers.pop((Timer.RELAY, event.relay), None)
        self._record("relay_fault", relay=event.relay, why=event.why, rule=pull.rule, **pull.by)
        self._show_fault(FAULT_SECONDS, now)
        self._play_once("error", far_end=self._phase is Phase.TALKING)

    # --- The table's actions --------------------------------------------------------------------

    def _dispatch(self, trigger: Trigger, now: float, cause: _Cause | None = None) -> None:
        row = TRANSITIONS.get((self._phase, trigger))
        if row is None:
            return
        cause = cause or _Cause()
        before, (self._phase, action) = self._phase, row
        match action:
            case Action.START_PLAN:
                self._start_plan(cause, "starts_call", now)
            case Action.REPLACE_PLAN:
                if self._attempt is not None:
                    self._outputs.append(CancelCall(self._attempt.group))
                self._start_plan(cause, "replaces_call", now)
            case Action.REPLACE_CALL:
                self._outputs.append(HangUp(self.call))
                self._end("unconfirmed", now)
                self._start_plan(cause, "starts_call", now)
            case Action.IGNORE_PRESS:
                rule = "already_calling" if before is Phase.CALLING else "already_talking"
                self._record("press", button=cause.button, rule=rule)
            case Action.REFUSE_PRESS:
                self._record("press", button=cause.button, rule="one_call")
                self._play_once("refused")
            case Action.REFUSE_REQUEST:
                self._record("call_request", rule="one_call")
            case Action.NOTE_RINGING:
                self._record("ringing", group=self.call, early_media=cause.early_media)
            case Action.CHANGE_RINGBACK:
                self._change_ringback(early_media=cause.early_media)
            case Action.NEXT_STEP:
                self._next_step(now)
            case Action.CANCEL_STEP:
                self._cancel_step()
                self._next_step(now)
            case Action.GIVE_UP:
                self._give_up(now)
            case Action.CANCEL:
                if self._attempt is not None:
                    self._outputs.append(CancelCall(self._attempt.group))
                self._end(cause.rule, now)
            case Action.RING:
                self._talk = cause.talk
                self._outputs.append(RingCall(self.call))
                self._timers[Timer.RING, ""] = now + self._settings.door.ring_in
                self._play_loop("ring")
            case Action.ACCEPT:
                self._accept(cause, now)
            case Action.ACCEPT_BY_PRESS:
                self._record("press", button=cause.button, rule="answers_call")
                self._accept(cause, now)
            case Action.TALK:
                self._start_talk(cause, now)
                if cause.talk is not None and cause.talk.button:
                    self._outputs.append(TellWhoRings(cause.talk.button))
            case Action.REJECT:
                self._outputs.append(RejectCall(self.call, cause.status))
                self._end(cause.rule, now)
            case Action.CALLER_GONE:
                self._end("caller_gone", now)
            case Action.WARN:
                self._play_once("warning", far_end=True)
            case Action.HANG_UP:
                self._outputs.append(HangUp(self.call))
                self._end(cause.rule, now)
            case Action.CALL_OVER:
                self._end(cause.rule, now)
            case _:
                assert_never(action)

    def _start_plan(self, cause: _Cause, rule: str, now: float) -> None:
        if cause.plan is None:
            return
        if cause.button:
            self._record("press", button=cause.button, rule=rule)
        else:
            self._record("call_request", rule=rule)
        self._timers.pop((Timer.FAULT, ""), None)
        self._attempt = _Attempt(cause.plan, now)
        self._next_step(now)

    def _next_step(self, now: float) -> None:
        """Ring the next step that has somebody to ring, or end the plan."""
        attempt = self._attempt
        if attempt is None:
            return
        self._timers.pop((Timer.STEP, ""), None)
        skipped = False
        while attempt.next_step < len(attempt.plan.steps):
            attempt.step = attempt.plan.steps[attempt.next_step]
            attempt.next_step += 1
            targets = attempt.step.reachable(self._registered)
            if len(targets) < len(attempt.step.targets):
                attempt.results.add("not_registered")
                self._record(
                    "targets_skipped",
                    button=attempt.plan.name,
                    step=attempt.next_step,
                    targets=len(attempt.step.targets) - len(targets),
                    rule="not_registered",
                )
            if not targets:
                skipped = True
                continue
            self._groups += 1
            attempt.group = f"step-{self._groups}"
            uris = tuple(target.uri for target in targets)
            self._outputs.append(PlaceCall(attempt.group, uris, attempt.step.seconds))
            self._timers[Timer.STEP, ""] = now + attempt.step.seconds
            self._record(
                "call_out",
                group=attempt.group,
                button=attempt.plan.name,
                step=attempt.next_step,
                targets=" ".join(uris),
                seconds=attempt.step.seconds,
            )
            # At once, not with the first 180: the visitor must hear that the bell works.
            if skipped:
                self._show_fault(SKIPPED_SECONDS, now)
                self._loop = "ringback"
                self._play_once("error")
            elif attempt.next_step == 1 and not self._loop:
                self._loop = "ringback"
                self._play_once("calling")
            else:
                self._play_loop("ringback")
            return
        self._dispatch(Trigger.PLAN_OVER, now)

    def _cancel_step(self) -> None:
        attempt = self._attempt
        if attempt is None or attempt.step is None:
            return
        self._outputs.append(CancelCall(attempt.group))
        attempt.results.add("no_answer")
        self._record(
            "step_over", group=attempt.group, seconds=attempt.step.seconds, rule="no_answer"
        )

    def _change_ringback(self, *, early_media: bool) -> None:
        """Ours, unless a target is heard: what SIP announces may never come (RFC 3960 §3.2)."""
        if early_media:
            self._silence()
        else:
            self._play_loop("ringback")

    def _give_up(self, now: float) -> None:
        """Nobody answered: the visitor hears and sees why."""
        attempt = self._attempt
        results = attempt.results if attempt is not None else set()
        result = next((r for r in (*RESULTS, *FAULTS) if r in results), "failed")
        self._record("call_failed", button=attempt.plan.name if attempt else "", rule=result)
        self._end(result, now)
        if result in FAULTS:
            self._show_fault(FAULT_SECONDS, now)
            self._play_once("no_connection")
        else:
            self._play_once("nobody_answers" if result == "no_answer" else "busy")

    def _accept(self, cause: _Cause, now: float) -> None:
        self._talk = cause.talk or self._talk
        self._outputs.append(AcceptCall(self.call))
        rule = cause.rule or ("answers_call" if cause.button else "auto_answer")
        self._record("answered", call=self.call, rule=rule)
        self._start_talk(cause, now)

    def _start_talk(self, cause: _Cause, now: float) -> None:
        self._talk = cause.talk or self._talk
        if self._talk is None:
            return
        self._attempt = None
        self._stop_call_timers()
        self._timers.pop((Timer.FAULT, ""), None)
        self._silence()
        rules = self._settings.door
        self._talk.since = now
        self._talk.entry = CodeEntry(self._book, short_codes=self._talk.far_end.short_codes)
        self._timers[Timer.MAX_CALL, ""] = now + rules.max_call
        if rules.warning:
            self._timers[Timer.WARNING, ""] = now + rules.max_call - rules.warning

    def _end(self, rule: str, now: float) -> None:
        """Back to rest, and one record of how the call ended."""
        talk, attempt = self._talk, self._attempt
        self._stop_call_timers()
        self._silence()
        if talk is not None:
            if talk.entry is not None and (guess := talk.entry.abandon()) is not None:
                self._handle_entry(talk, guess, now)
            seconds = round(now - talk.since, 3)
            peer = talk.far_end.key or talk.far_end.uri
            self._record("call_ended", call=talk.call, peer=peer, seconds=seconds, rule=rule)
        elif attempt is not None:
            seconds = round(now - attempt.since, 3)
            self._record("call_ended", call=attempt.group, seconds=seconds, rule=rule)
        self._talk = self._attempt = None

    def _stop_call_timers(self) -> None:
        for timer in (*CALL_TIMERS, Timer.DIGITS):
            self._timers.pop((timer, ""), None)

    # --- Sound, light, records ------------------------------------------------------------------

    def _play_once(self, sound: str, *, far_end: bool = False) -> None:
        self._outputs.append(Play(sound, then=self._loop, far_end=far_end))

    def _play_loop(self, sound: str) -> None:
        if self._loop != sound:
            self._loop = sound
            self._outputs.append(Play(sound, loop=True))

    def _silence(self) -> None:
        if self._loop:
            self._loop = ""
            self._outputs.append(StopSound())

    def _show_fault(self, seconds: float, now: float) -> None:
        self._timers[Timer.FAULT, ""] = now + seconds

    def _record(self, kind: str, **fields: Field) -> None:
        self._outputs.append(Record(kind, fields))

    def _may_write(self, reader: str, now: float) -> bool:
        """Whether one more record of this reader is written, not only counted."""
        ration = self._rations[reader]
        if ration.take(now):
            return True
        self._timers[Timer.READER, reader] = ration.due
        return False

    def _flush(self) -> list[Output]:
        if self.pattern != self._shown:
            self._shown = self.pattern
            self._outputs.append(Show(self._shown))
        outputs, self._outputs = self._outputs, []
        return outputs
