"""Whatever happens in whatever order, the door's promises hold."""

from dataclasses import dataclass, field

from doorstation.door.controller import Door, Phase
from doorstation.door.events import (
    AcceptCall,
    AnswerRequested,
    CallArrived,
    CallEnded,
    CallRequested,
    CancelCall,
    CardRead,
    ContactChanged,
    DigitReceived,
    EarlyMedia,
    HangUp,
    HangUpRequested,
    Held,
    Input,
    Outcome,
    Output,
    PlaceCall,
    Play,
    Pressed,
    PulseRelay,
    Record,
    RegistrationChanged,
    RejectCall,
    RejectRequested,
    RelayFailed,
    RelayPulled,
    RingCall,
    Show,
    StepAnswered,
    StepFailed,
    StepRinging,
    StopSound,
    Stuck,
)
from doorstation.settings.reader import parse
from doorstation.settings.tree import Settings
from hypothesis import given, settings
from hypothesis import strategies as st

HOUSE = parse(
    """
    [board]
    kind = "fake"
    [account]
    user = "door"
    domain = "fritz.box"
    [buttons.call]
    short_codes = true
    steps = [{ ring = ["**9", "child"], seconds = 10 }, { ring = ["kitchen"] }]
    [buttons.up]
    hang_up_after_open = 1
    steps = [{ ring = ["sip:up@10.0.0.7"] }]
    [relays.door]
    pulse = 3
    hold_limit = 5
    codes = ["4711", "5"]
    [relays.gate]
    pulse = 2
    hold_limit = 2
    codes = ["47112"]
    [peers.kitchen]
    uri = "sip:192.168.1.20"
    auto_answer = true
    [peers.child]
    uri = "sip:192.168.1.21"
    may_open = false
    [contacts.door]
    [readers.keys]
    protocol = "keypad"
    opens = "gate"
    accepts = ["7788"]
    [door]
    wrong_codes_in_all = 5
    """
)
CODES = {"4711": "door", "5": "door", "47112": "gate"}
LIMITS = {"door": 5.0, "gate": 2.0}
TARGETS = ("sip:**9@fritz.box", "sip:192.168.1.21", "sip:192.168.1.20", "sip:up@10.0.0.7")
MAY_OPEN = {target: target != "sip:192.168.1.21" for target in TARGETS}
LOOPS = ("ringback", "ring")


@dataclass
class Watcher:
    """Plays the world around a door and checks, without its code, what it asks for."""

    house: Settings = HOUSE
    now: float = 0.0
    door: Door = field(init=False)
    calls: dict[str, bool] = field(default_factory=dict)
    """Calls that are connected -> the far end may open."""
    ringing: dict[str, bool] = field(default_factory=dict)
    """Calls in, not answered -> the far end may open."""
    ending: dict[str, bool] = field(default_factory=dict)
    """The call whose end is being told -> the far end may open."""
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    """Calls and groups that ended by themselves: what the door says of them crossed that."""
    typed: dict[str, str] = field(default_factory=dict)
    typed_before: dict[str, str] = field(default_factory=dict)
    """What was typed when a timer that is late now should have fired; else empty."""
    on_since: dict[str, float] = field(default_factory=dict)
    on_until: dict[str, float] = field(default_factory=dict)
    shown: str = ""
    sound: str = ""
    number: int = 0
    pulses: int = 0
    relay_fault: bool = False

    def __post_init__(self) -> None:
        self.door = Door(self.house)
        self.check(self.door.start(self.now), None)

    def tell(self, event: Input) -> None:
        deadline = self.door.deadline
        if deadline is not None and deadline <= self.now:
            self.typed_before = dict(self.typed)
        if isinstance(event, DigitReceived) and event.source != "inband":
            self.typed[event.call] = self.typed.get(event.call, "") + event.value
        outputs = self.door.handle(event, self.now)
        self.check(outputs, event)
        self.typed_before = {}
        for pulse in [output for output in outputs if isinstance(output, PulseRelay)]:
            if self.relay_fault:
                self.on_since.pop(pulse.relay, None)
                self.on_until.pop(pulse.relay, None)
                self.tell(RelayFailed(pulse.relay, "why"))
            else:
                self.tell(RelayPulled(pulse.relay))

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (deadline := self.door.deadline) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.check(self.door.timer_fired(self.now), None)
            after = self.door.deadline
            assert after is None or after > self.now, "a timer that is due is done"
        self.now = end

    def check(self, outputs: list[Output], event: Input | None) -> None:
        for output in outputs:
            match output:
                case PlaceCall():
                    assert not self.groups, "one step at a time"
                    assert not self.calls or isinstance(event, StepAnswered)
                    assert output.group not in self.groups
                    self.groups[output.group] = output.targets
                case CancelCall():
                    assert output.group in self.groups or output.group in self.gone
                    self.groups.pop(output.group, None)
                case AcceptCall():
                    self.calls[output.call] = self.ringing.pop(output.call)
                    assert len(self.calls) == 1
                case RingCall():
                    assert output.call in self.ringing
                case RejectCall():
                    assert output.call in self.ringing or output.call in self.gone
                    self.ringing.pop(output.call, None)
                    assert 400 <= output.status < 700
                case HangUp():
                    assert output.call in self.calls or output.call in self.gone
                    self.calls.pop(output.call, None)
                case PulseRelay():
                    self.check_pulse(output, event)
                case Play():
                    assert output.loop or output.sound not in LOOPS
                    self.sound = output.sound if output.loop else output.then
                case StopSound():
                    self.sound = ""
                case Show():
                    assert output.pattern != self.shown, "shown once"
                    self.shown = output.pattern
                case Record():
                    for value in output.fields.values():
                        assert value is None or isinstance(value, str | int | float | bool)
                        assert not isinstance(value, str) or not any(
                            c in value for c in CODES if c != "5"
                        )
        assert self.shown == self.door.pattern
        assert len(self.door._timers) < 16
        if self.door.phase is Phase.IDLE:
            assert not self.groups
            assert not self.calls
            assert not self.ringing
            assert self.sound not in LOOPS
            assert self.door.call == ""

    def check_pulse(self, pulse: PulseRelay, event: Input | None) -> None:
        self.pulses += 1
        by_card = CardRead("keys", "7788")
        if not (event == by_card and pulse.relay == "gate"):
            # Whatever came after a timer that is late, even the next digit, finds its entry, or
            # its call, ending.
            entered = [
                typed.get(call, "").rstrip("#")
                for call, may_open in {**self.calls, **self.ending}.items()
                for typed in (self.typed, self.typed_before)
                if may_open
            ]
            assert any(
                digits.endswith(code)
                for digits in entered
                for code, relay in CODES.items()
                if relay == pulse.relay
            ), "only a valid code of an allowed far end"
        if self.on_until.get(pulse.relay, -1.0) <= self.now:
            self.on_since[pulse.relay] = self.now
        until = self.now + pulse.seconds
        assert until >= self.on_until.get(pulse.relay, 0.0), "never shortened"
        self.on_until[pulse.relay] = until
        held = until - self.on_since[pulse.relay]
        assert pulse.seconds > 0
        assert held <= LIMITS[pulse.relay] + 1e-6, "never beyond the hold limit"

    # --- What the world does --------------------------------------------------------------------

    def answer(self, which: int) -> None:
        for group, targets in list(self.groups.items()):
            target = targets[which % len(targets)]
            self.number += 1
            call = f"out-{self.number}"
            del self.groups[group]
            self.gone.add(group)
            self.calls[call] = MAY_OPEN[target]
            self.tell(StepAnswered(group, call, target))

    def answer_late(self) -> None:
        self.number += 1
        self.calls[f"out-{self.number}"] = False
        self.tell(StepAnswered("step-0", f"out-{self.number}", TARGETS[0]))

    def fail(self, kind: str) -> None:
        for group, targets in list(self.groups.items()):
            del self.groups[group]
            self.gone.add(group)
            self.tell(StepFailed(group, tuple(Outcome(target, kind) for target in targets)))

    def call_in(self, peer: str) -> None:
        self.number += 1
        call = f"in-{self.number}"
        self.ringing[call] = peer == "kitchen"
        self.tell(CallArrived(call, peer, "rule"))

    def end(self) -> None:
        for call in [*self.calls, *self.ringing]:
            self.ending = {call: self.calls.pop(call)} if call in self.calls else {}
            self.ringing.pop(call, None)
            self.gone.add(call)
            self.tell(CallEnded(call, "bye"))
        self.ending = {}

    def digits(self, text: str, source: str) -> None:
        for call in [*self.calls, *self.ringing, "nobody"][:1]:
            for digit in text:
                if call in self.calls or call in self.ringing or call == "nobody":
                    self.tell(DigitReceived(call, digit, source))

    def act(self, action: tuple[str, str | int | float | bool]) -> None:
        match action:
            case ("tell_press", str(name)):
                self.tell(Pressed(name))
            case ("talk", str(who)):  # to get deep into a call often enough
                self.end()
                if who in HOUSE.buttons:
                    self.tell(Pressed(who))
                    self.answer(self.number)
                else:
                    self.call_in(who)
                    self.tell(AnswerRequested())
            case ("wait", float(seconds)):
                self.wait(seconds)
            case ("skip", float(seconds)):
                self.now += seconds  # the timer comes late
            case ("answer", int(which)):
                self.answer(which)
            case ("late", _):
                self.answer_late()
            case ("fail", str(kind)):
                self.fail(kind)
            case ("ring", bool(early)):
                for group in list(self.groups):
                    self.tell(StepRinging(group, early))
                    self.tell(EarlyMedia(group, early))
            case ("call_in", str(peer)):
                self.call_in(peer)
            case ("end", _):
                self.end()
            case ("digits", str(text)):
                self.digits(text, "rfc4733")
            case ("stray", str(text)):
                for digit in text:
                    self.tell(DigitReceived("nobody", digit, "info"))
            case ("inband", str(text)):
                self.digits(text, "inband")
            case ("card", str(value)):
                self.tell(CardRead("keys", value))
            case ("contact", bool(closed)):
                self.tell(ContactChanged("door", closed))
            case ("registered", bool(registered)):
                self.tell(RegistrationChanged(registered))
            case ("relay_fault", bool(on)):
                self.relay_fault = on
            case ("stuck", bool(on)):
                self.tell(Stuck("up", on))
            case ("by_hand", int(which)):
                by_hand: tuple[Input, ...] = (
                    CallRequested("kitchen"),
                    AnswerRequested(),
                    RejectRequested(),
                    HangUpRequested(),
                    Held("call"),
                )
                self.tell(by_hand[which])


ACTIONS = st.one_of(
    st.tuples(st.just("tell_press"), st.sampled_from(["call", "up", "none"])),
    st.tuples(st.just("talk"), st.sampled_from(["call", "up", "kitchen", "child", ""])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5, 1.0, 3.0, 31.0, 130.0])),
    st.tuples(st.just("skip"), st.sampled_from([0.1, 4.0, 200.0])),
    st.tuples(st.just("answer"), st.integers(0, 1)),
    st.tuples(st.just("late"), st.just(0)),
    st.tuples(st.just("fail"), st.sampled_from(["busy", "unreachable", "cancelled"])),
    st.tuples(st.just("ring"), st.booleans()),
    st.tuples(st.just("call_in"), st.sampled_from(["", "kitchen", "child", "stranger"])),
    st.tuples(st.just("end"), st.just(0)),
    st.tuples(
        st.just("digits"),
        st.sampled_from(["5", "4711", "47112", "4711#", "0", "#", "*", "00000", "1234*"]),
    ),
    st.tuples(st.just("digits"), st.sampled_from(["5#", "4711#"])),
    st.tuples(st.just("stray"), st.sampled_from(["5", "4711#"])),
    st.tuples(st.just("inband"), st.sampled_from(["5#", "4711#"])),
    st.tuples(st.just("card"), st.sampled_from(["7788", "0000"])),
    st.tuples(st.just("contact"), st.booleans()),
    st.tuples(st.just("registered"), st.booleans()),
    st.tuples(st.just("relay_fault"), st.booleans()),
    st.tuples(st.just("stuck"), st.booleans()),
    st.tuples(st.just("by_hand"), st.integers(0, 4)),
)


@given(st.lists(ACTIONS, min_size=20, max_size=60))
@settings(max_examples=300)
def test_promises_hold_in_any_order_of_events(
    actions: list[tuple[str, str | int | float | bool]],
) -> None:
    watcher = Watcher()
    for action in actions:
        watcher.act(action)
    watcher.tell(ContactChanged("door", True))
    watcher.wait(1000.0)
    assert watcher.sound == "", "nothing plays for ever"
    assert watcher.door.phase is Phase.IDLE, "always back to rest"
    assert watcher.door.deadline is None


def test_watcher_sees_a_door_open() -> None:
    """The test above would pass on a door that never opens."""
    watcher = Watcher()
    watcher.tell(Pressed("call"))
    watcher.answer(0)
    watcher.digits("5", "rfc4733")
    watcher.tell(CardRead("keys", "7788"))
    assert watcher.pulses == 2


def test_thousand_calls_leave_nothing_behind() -> None:
    watcher = Watcher()
    for number in range(1000):
        watcher.tell(Pressed("call"))
        watcher.answer(number)
        watcher.digits("00000#4711", "rfc4733")
        watcher.end()
        watcher.wait(200.0)
    assert watcher.door.deadline is None
    assert len(watcher.door._lock_out) <= 2
    assert not watcher.door._relay_since
