"""The door as a household knows it: each test is one rule, in virtual time."""

from typing import TypeVar

import pytest
from doorstation.door.controller import TRANSITIONS, Action, Door, Phase, Trigger
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
from doorstation.settings.reader import parse

HOUSE = """
[board]
kind = "fake"
[account]
user = "door"
domain = "fritz.box"
[buttons.call]
steps = [
  { ring = ["**9"], seconds = 30 },
  { ring = ["kitchen", "sip:office@10.0.0.9"], seconds = 20 },
]
[buttons.upstairs]
steps = [{ ring = ["sip:up@10.0.0.7"] }]
hang_up_after_open = 2
[relays.door]
pulse = 3
hold_limit = 5
codes = ["4711"]
[relays.gate]
codes = ["0815", "123456"]
[peers.kitchen]
uri = "sip:192.168.1.20"
auto_answer = true
[peers.child]
uri = "sip:192.168.1.21"
may_open = false
[peers.barred]
uri = "sip:192.168.1.22"
may_call = false
[contacts.door]
left_open_after = 60
[readers.tag]
opens = "door"
accepts = ["0A1B2C3D4E"]
[readers.keys]
protocol = "keypad"
opens = "gate"
accepts = ["7788"]
[door]
max_call = 120
warning = 10
digit_timeout = 3
wrong_codes = 3
lock_out = 60
ring_in = 40
"""

UP = "sip:up@10.0.0.7"
GROUP = "sip:**9@fritz.box"
KITCHEN = "sip:192.168.1.20"
OFFICE = "sip:office@10.0.0.9"

T = TypeVar("T")


class House:
    """A door, its clock, and what it asked for."""

    def __init__(self, settings: str = HOUSE, *, registered: bool | None = True) -> None:
        self.now = 1000.0
        self.relay_fault = ""
        """Why no relay pulls."""
        self.door = Door(parse(settings))
        self.outputs = self.door.start(self.now)
        self.records: list[Record] = [o for o in self.outputs if isinstance(o, Record)]
        if registered is not None:
            self.tell(RegistrationChanged(registered))

    def tell(self, event: Input) -> list[Output]:
        """The outputs of one input without the records; the relays answer at once."""
        outputs = self._keep(self.door.handle(event, self.now))
        for pulse in [output for output in outputs if isinstance(output, PulseRelay)]:
            outputs += self.tell(
                RelayFailed(pulse.relay, self.relay_fault)
                if self.relay_fault
                else RelayPulled(pulse.relay)
            )
        return outputs

    def wait(self, seconds: float) -> list[Output]:
        end, outputs = self.now + seconds, []
        while (deadline := self.door.deadline) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            outputs += self._keep(self.door.timer_fired(self.now))
        self.now = end
        return outputs

    def press(self, digits: str, call: str = "c1", source: str = "rfc4733") -> list[Output]:
        outputs = []
        for digit in digits:
            outputs += self.tell(DigitReceived(call, digit, source))
        return outputs

    def talk(self, button: str = "call", peer: str = "", call: str = "c1") -> None:
        """Presses and is answered."""
        self.tell(Pressed(button))
        target = next(o for o in reversed(self.outputs) if isinstance(o, PlaceCall)).targets[0]
        self.tell(StepAnswered(self.door.call, call, peer or target))

    def last(self, kind: str) -> dict[str, Field]:
        return dict(next(r for r in reversed(self.records) if r.kind == kind).fields)

    def rules(self, kind: str) -> list[Field]:
        return [record.fields.get("rule") for record in self.records if record.kind == kind]

    def count(self, kind: type[Output]) -> int:
        return sum(isinstance(output, kind) for output in self.outputs)

    def _keep(self, outputs: list[Output]) -> list[Output]:
        self.records += [o for o in outputs if isinstance(o, Record)]
        self.outputs += outputs
        return [o for o in outputs if not isinstance(o, Record)]


# --- A press ------------------------------------------------------------------------------------


def test_visitor_rings_resident_presses_the_code_door_opens() -> None:
    house = House()
    assert house.tell(Pressed("call")) == [
        PlaceCall("step-1", (GROUP,), 30.0),
        Play("calling", then="ringback"),
        Show("ringing"),
    ]
    assert house.tell(StepRinging("step-1")) == []
    assert house.tell(StepAnswered("step-1", "c1", GROUP)) == [
        StopSound(),
        TellWhoRings("call"),
        Show("in_call"),
    ]
    assert house.press("471") == []
    assert house.press("1") == [
        PulseRelay("door", 3.0),
        Play("opened", far_end=True),
        Show("door_open"),
    ]
    assert house.wait(3.0) == [Show("in_call")]
    assert house.tell(CallEnded("c1", "bye")) == [Show("idle")]
    assert [record.kind for record in house.records if record.kind != "digit"] == [
        "registration",
        "press",
        "call_out",
        "ringing",
        "answered",
        "code",
        "release",
        "call_ended",
    ]
    assert house.door.phase is Phase.IDLE
    assert house.door.deadline is None


def test_who_rings_is_told_of_a_press_alone() -> None:
    house = House()
    house.tell(Pressed("upstairs"))
    assert TellWhoRings("upstairs") in house.tell(StepAnswered("step-1", "c1", UP))
    asked = House()
    asked.tell(CallRequested(UP))
    assert asked.tell(StepAnswered("step-1", "c1", UP)) == [StopSound(), Show("in_call")]


def test_step_without_answer_is_cancelled_and_the_next_rings_everybody_at_once() -> None:
    house = House()
    house.tell(Pressed("call"))
    assert house.wait(30.0) == [
        CancelCall("step-1"),
        PlaceCall("step-2", (KITCHEN, OFFICE), 20.0),
    ]
    assert house.last("step_over")["rule"] == "no_answer"


def test_step_that_fails_is_followed_by_the_next_at_once() -> None:
    house = House()
    house.tell(Pressed("call"))
    outputs = house.tell(StepFailed("step-1", (Outcome(GROUP, "busy", 486),)))
    assert outputs == [PlaceCall("step-2", (KITCHEN, OFFICE), 20.0)]
    assert house.last("target_failed") == {
        "group": "step-1",
        "target": GROUP,
        "status": 486,
        "rule": "busy",
    }


@pytest.mark.parametrize(
    ("kind", "sound"), [("busy", "busy"), ("declined", "busy"), ("no_answer", "nobody_answers")]
)
def test_the_visitor_hears_whether_it_is_busy_or_nobody_answers(kind: str, sound: str) -> None:
    house = House()
    house.tell(Pressed("upstairs"))
    outputs = house.tell(StepFailed("step-1", (Outcome(UP, kind, 480),)))
    assert outputs == [StopSound(), Play(sound), Show("idle")]
    assert house.wait(30.0) == []
    assert house.last("call_failed") == {"button": "upstairs", "rule": kind}


@pytest.mark.parametrize("kind", ["unreachable", "failed"])
def test_nobody_who_can_be_reached_sounds_and_shows_a_fault(kind: str) -> None:
    house = House()
    house.tell(Pressed("upstairs"))
    outputs = house.tell(StepFailed("step-1", (Outcome(UP, kind, 503),)))
    assert outputs == [StopSound(), Play("no_connection"), Show("fault")]
    assert house.last("call_failed")["rule"] == kind
    assert house.wait(5.0) == [Show("idle")]


def test_new_press_while_the_busy_tone_plays_rings_in_its_place() -> None:
    house = House()
    house.tell(Pressed("upstairs"))
    house.tell(StepFailed("step-1", (Outcome(UP, "busy", 486),)))
    house.wait(1.0)
    assert Play("calling", then="ringback") in house.tell(Pressed("upstairs"))


def test_failure_without_any_outcome_is_a_fault() -> None:
    house = House()
    house.tell(Pressed("upstairs"))
    assert Play("no_connection") in house.tell(StepFailed("step-1"))
    assert house.last("call_failed")["rule"] == "failed"


def test_most_telling_outcome_of_a_plan_is_its_result() -> None:
    house = House()
    house.tell(Pressed("call"))
    house.tell(StepFailed("step-1", (Outcome(GROUP, "unreachable"),)))
    outputs = house.tell(
        StepFailed("step-2", (Outcome(KITCHEN, "busy", 486), Outcome(OFFICE, "declined", 603)))
    )
    assert Play("busy") in outputs
    assert house.last("call_failed")["rule"] == "declined"


def test_plan_that_rings_out_ends_idle() -> None:
    house = House()
    house.tell(Pressed("call"))
    house.wait(30.0)
    outputs = house.wait(20.0)
    assert outputs == [
        CancelCall("step-2"),
        StopSound(),
        Play("nobody_answers"),
        Show("idle"),
    ]
    assert house.last("call_failed")["rule"] == "no_answer"
    assert house.door.deadline is None


def test_same_button_while_calling_changes_nothing() -> None:
    """The visitor hears the ringing already."""
    house = House()
    house.tell(Pressed("call"))
    assert house.tell(Pressed("call")) == []
    assert house.rules("press") == ["starts_call", "already_calling"]


def test_other_button_while_calling_replaces_the_call() -> None:
    """Somebody pressed the wrong bell first."""
    house = House()
    house.tell(Pressed("call"))
    assert house.tell(Pressed("upstairs")) == [
        CancelCall("step-1"),
        PlaceCall("step-2", (UP,), 30.0),
    ]
    assert house.rules("press") == ["starts_call", "replaces_call"]
    assert house.tell(StepAnswered("step-1", "late", GROUP)) == [HangUp("late")]


def test_same_button_while_talking_changes_nothing() -> None:
    house = House()
    house.talk()
    assert house.tell(Pressed("call")) == []
    assert house.last("press")["rule"] == "already_talking"


def test_other_button_while_talking_is_refused_with_a_tone() -> None:
    house = House()
    house.talk()
    assert house.tell(Pressed("upstairs")) == [Play("refused")]
    assert house.last("press")["rule"] == "one_call"


def test_call_in_that_nobody_confirms_gives_way_to_a_press() -> None:
    """One forged datagram has the door answer: no visitor stands there in vain for it."""
    house = House()
    house.tell(CallArrived("in", "kitchen", "peer-address"))
    house.now += 1
    asked = house.tell(Pressed("call"))
    assert asked[:2] == [HangUp("in"), PlaceCall("step-1", (GROUP,), 30.0)]
    assert house.last("call_ended")["rule"] == "unconfirmed"
    assert house.rules("press") == ["starts_call"]
    assert house.tell(CallArrived("again", "kitchen", "peer-address")) == [RejectCall("again", 486)]


def test_call_in_keeps_the_door_once_confirmed_and_in_its_first_second() -> None:
    house = House()
    house.tell(CallArrived("in", "kitchen", "peer-address"))
    house.now += 0.9
    assert house.tell(Pressed("call")) == [Play("refused")]
    house.tell(CallConfirmed("another"))
    house.tell(CallConfirmed("in"))
    house.now += 30
    assert house.tell(Pressed("call")) == [Play("refused")]


def test_unknown_button_is_recorded_only() -> None:
    house = House()
    assert house.tell(Pressed("nobody")) == []
    assert house.last("press") == {"button": "nobody", "rule": "unknown_button"}


def test_long_press_is_recorded() -> None:
    house = House()
    assert house.tell(Held("call")) == []
    assert house.last("held") == {"button": "call"}


def test_stuck_button_shows_a_fault_and_calls_nobody_until_it_is_free() -> None:
    house = House()
    assert house.tell(Stuck("call", True)) == [Show("fault")]
    assert house.tell(Pressed("call")) == []
    assert house.last("press")["rule"] == "stuck_button"
    assert house.tell(Stuck("call", False)) == [Show("idle")]
    assert PlaceCall("step-1", (GROUP,), 30.0) in house.tell(Pressed("call"))


def test_early_media_is_heard_instead_of_our_ringback() -> None:
    house = House()
    house.tell(Pressed("call"))
    assert house.tell(EarlyMedia("step-1", heard=True)) == [StopSound()]
    assert house.tell(StepRinging("step-1")) == [], "another phone's 180 does not cover it"


def test_ringback_goes_on_while_announced_early_media_does_not_come() -> None:
    house = House()
    house.tell(Pressed("call"))
    assert house.tell(StepRinging("step-1", early_media=True)) == []
    assert house.last("ringing")["early_media"] is True


def test_ringback_comes_back_when_the_phone_that_was_heard_gives_up() -> None:
    house = House()
    house.tell(Pressed("call"))
    house.tell(EarlyMedia("step-1", heard=True))
    assert house.tell(EarlyMedia("step-1", heard=False)) == [Play("ringback", loop=True)]


def test_ringback_comes_back_in_the_step_after_early_media() -> None:
    house = House()
    house.tell(Pressed("call"))
    house.tell(EarlyMedia("step-1", heard=True))
    assert Play("ringback", loop=True) in house.wait(30.0)


def test_early_media_that_comes_after_the_answer_changes_nothing() -> None:
    house = House()
    house.talk()
    assert house.tell(EarlyMedia("step-1", heard=False)) == []


def test_answer_that_crossed_the_cancellation_is_hung_up() -> None:
    house = House()
    house.tell(Pressed("call"))
    house.wait(30.0)
    assert house.tell(StepAnswered("step-1", "late", GROUP)) == [HangUp("late")]
    assert house.last("answered")["rule"] == "too_late"
    assert house.door.phase is Phase.CALLING


def test_second_answer_of_a_step_is_hung_up() -> None:
    house = House()
    house.talk()
    assert house.tell(StepAnswered("step-1", "c2", GROUP)) == [HangUp("c2")]
    assert house.door.call == "c1"


def test_late_news_of_a_step_that_is_over_changes_nothing() -> None:
    house = House()
    house.tell(Pressed("call"))
    house.wait(30.0)
    assert house.tell(StepFailed("step-1", (Outcome(GROUP, "no_answer"),))) == []
    assert house.tell(StepRinging("step-1", early_media=True)) == []


# --- Registration -------------------------------------------------------------------------------


def test_without_registration_the_account_is_skipped_with_a_fault_and_the_next_step_rings() -> None:
    house = House(registered=False)
    assert house.door.pattern == "fault"
    assert house.tell(Pressed("call")) == [
        PlaceCall("step-1", (KITCHEN, OFFICE), 20.0),
        Play("error", then="ringback"),
    ]
    assert house.wait(1.5) == [Show("ringing")]
    assert house.last("targets_skipped")["rule"] == "not_registered"


def test_without_registration_a_step_rings_its_direct_targets() -> None:
    mixed = HOUSE.replace('"kitchen", "sip:office@10.0.0.9"', '"**1", "kitchen"')
    house = House(mixed, registered=False)
    assert PlaceCall("step-1", (KITCHEN,), 20.0) in house.tell(Pressed("call"))
    assert house.last("targets_skipped")["targets"] == 1


def test_without_registration_and_direct_targets_the_visitor_hears_of_no_connection() -> None:
    house = House(HOUSE.replace('"sip:up@10.0.0.7"', '"**7"'), registered=False)
    outputs = house.tell(Pressed("upstairs"))
    assert outputs == [Play("no_connection")]
    assert house.door.pattern == "fault"
    assert house.last("call_failed") == {"button": "upstairs", "rule": "not_registered"}
    assert house.door.phase is Phase.IDLE


def test_while_the_first_registration_is_under_way_the_account_is_tried() -> None:
    house = House(registered=None)
    assert PlaceCall("step-1", (GROUP,), 30.0) in house.tell(Pressed("call"))


def test_claim_by_first_use_is_shown_for_its_time_over_faults_and_under_calls() -> None:
    house = House()
    assert house.tell(Claimed(1800.0)) == [Show("claimed")]
    house.tell(RegistrationChanged(False, "no answer"))
    assert house.door.pattern == "claimed"
    assert Show("ringing") in house.tell(Pressed("upstairs"))
    assert Show("in_call") in house.tell(StepAnswered("step-1", "c1", UP))
    assert house.tell(CallEnded("c1", "bye")) == [Show("claimed")]
    assert house.wait(1800.0) == [Show("fault")]
    assert house.door.deadline is None


def test_claim_that_is_forgotten_is_shown_no_more() -> None:
    house = House()
    assert house.tell(Claimed(0.0)) == []
    house.tell(Claimed(1800.0))
    assert house.tell(Claimed(0.0)) == [Show("idle")]
    assert house.door.deadline is None


def test_led_shows_registering_then_idle_then_fault() -> None:
    house = House(registered=None)
    assert house.outputs == [Show("registering")]
    assert house.tell(RegistrationChanged(True)) == [Show("idle")]
    assert house.tell(RegistrationChanged(True)) == []
    assert house.tell(RegistrationChanged(False, "no answer")) == [Show("fault")]
    assert house.last("registration") == {"registered": False, "why": "no answer"}


def test_another_reason_for_being_unregistered_is_news_the_same_one_is_not() -> None:
    house = House(registered=None)
    house.tell(RegistrationChanged(False, "no answer"))
    house.tell(RegistrationChanged(False, "no answer"))
    house.tell(RegistrationChanged(False, "wrong password"))
    assert [r.fields["why"] for r in house.records if r.kind == "registration"] == [
        "no answer",
        "wrong password",
    ]


def test_door_without_account_is_idle_at_once() -> None:
    house = House('[board]\nkind="fake"\n[peers.a]\nuri="sip:10.0.0.1"', registered=None)
    assert house.outputs == [Show("idle")]


# --- A call in ----------------------------------------------------------------------------------


def test_call_in_from_an_auto_answer_peer_is_accepted() -> None:
    house = House()
    assert house.tell(CallArrived("in", "kitchen", "peer-address")) == [
        AcceptCall("in"),
        Show("in_call"),
    ]
    assert house.last("call_in")["let_in_by"] == "peer-address"
    assert house.last("answered")["rule"] == "auto_answer"


def test_other_call_in_rings_at_the_door_until_somebody_presses() -> None:
    house = House()
    assert house.tell(CallArrived("in", "", "registrar", "sip:**1@fritz.box")) == [
        RingCall("in"),
        Play("ring", loop=True),
        Show("ringing"),
    ]
    assert house.tell(Pressed("upstairs")) == [AcceptCall("in"), StopSound(), Show("in_call")]
    assert house.last("press")["rule"] == "answers_call"


def test_call_in_is_answered_by_hand() -> None:
    house = House()
    house.tell(CallArrived("in", "", "registrar"))
    assert house.tell(AnswerRequested("other")) == []
    assert AcceptCall("in") in house.tell(AnswerRequested("in"))
    assert house.last("answered")["rule"] == "answered_by_hand"


def test_call_in_is_rejected_by_hand_with_the_status_asked_for() -> None:
    house = House()
    house.tell(CallArrived("in", "", "registrar"))
    outputs = house.tell(RejectRequested(status=480))
    assert outputs == [RejectCall("in", 480), StopSound(), Show("idle")]


def test_hang_up_of_a_ringing_call_in_declines_it() -> None:
    house = House()
    house.tell(CallArrived("in", "", "registrar"))
    assert RejectCall("in", 603) in house.tell(HangUpRequested())


def test_call_in_that_nobody_answers_is_rejected_after_its_time() -> None:
    house = House()
    house.tell(CallArrived("in", "", "registrar"))
    assert house.wait(40.0) == [RejectCall("in", 480), StopSound(), Show("idle")]
    assert house.last("call_ended")["rule"] == "rung_out"


def test_caller_who_gives_up_stops_the_ringing() -> None:
    house = House()
    house.tell(CallArrived("in", "", "registrar"))
    assert house.tell(CallEnded("in", "cancelled")) == [StopSound(), Show("idle")]
    assert house.last("call_ended")["rule"] == "caller_gone"


@pytest.mark.parametrize("situation", ["calling", "ringing", "talking"])
def test_call_in_while_there_is_a_call_gets_busy(situation: str) -> None:
    house = House()
    if situation == "calling":
        house.tell(Pressed("call"))
    elif situation == "ringing":
        house.tell(CallArrived("in", "", "registrar"))
    else:
        house.talk()
    assert house.tell(CallArrived("second", "kitchen", "peer-address")) == [
        RejectCall("second", 486)
    ]
    assert house.last("call_in")["rule"] == "one_call"


@pytest.mark.parametrize(("peer", "rule"), [("barred", "may_not_call"), ("x", "unknown_caller")])
def test_call_in_that_may_not_call_is_refused_here_too(peer: str, rule: str) -> None:
    house = House()
    assert house.tell(CallArrived("in", peer, "mistake")) == [RejectCall("in", 403)]
    assert house.last("call_in")["rule"] == rule


def test_call_through_the_registrar_is_refused_when_the_account_says_so() -> None:
    house = House(HOUSE.replace('user = "door"', 'user = "door"\nmay_call = false'))
    assert house.tell(CallArrived("in", "", "registrar")) == [RejectCall("in", 403)]


def test_call_in_without_an_account_is_no_registrars() -> None:
    house = House('[board]\nkind="fake"\n[peers.a]\nuri="sip:10.0.0.1"', registered=None)
    assert house.tell(CallArrived("in", "", "registrar")) == [RejectCall("in", 403)]


# --- A call asked for by hand -------------------------------------------------------------------


def test_call_asked_for_rings_its_target() -> None:
    house = House()
    assert PlaceCall("step-1", ("sip:**1@fritz.box",), 40.0) in house.tell(CallRequested("**1"))
    assert house.last("call_request")["rule"] == "starts_call"


def test_call_asked_for_while_there_is_a_call_is_refused() -> None:
    house = House()
    house.talk()
    assert house.tell(CallRequested("**1")) == []
    assert house.last("call_request")["rule"] == "one_call"


def test_call_asked_for_to_nobody_is_refused() -> None:
    house = House()
    assert house.tell(CallRequested("kitchn")) == []
    assert house.last("call_request")["rule"] == "not_a_target"
    assert house.door.phase is Phase.IDLE


def test_hang_up_by_hand_cancels_a_call_that_rings() -> None:
    house = House()
    house.tell(Pressed("call"))
    assert house.tell(HangUpRequested("other")) == []
    assert house.tell(HangUpRequested("step-1")) == [
        CancelCall("step-1"),
        StopSound(),
        Show("idle"),
    ]
    assert house.last("call_ended")["rule"] == "hung_up_by_hand"


def test_hang_up_by_hand_ends_a_call() -> None:
    house = House()
    house.talk()
    assert house.tell(HangUpRequested()) == [HangUp("c1"), Show("idle")]


# --- The end of a call --------------------------------------------------------------------------


def test_call_ends_after_its_longest_time_with_a_warning_before() -> None:
    house = House()
    house.talk()
    assert house.wait(109.9) == []
    assert house.wait(0.1) == [Play("warning", far_end=True)]
    assert house.wait(10.0) == [HangUp("c1"), Show("idle")]
    assert house.last("call_ended") == {
        "call": "c1",
        "peer": GROUP,
        "seconds": 120.0,
        "rule": "max_call",
    }


def test_no_warning_when_it_is_set_to_none() -> None:
    house = House(HOUSE.replace("warning = 10", "warning = 0"))
    house.talk()
    assert house.wait(120.0) == [HangUp("c1"), Show("idle")]


def test_end_of_another_call_changes_nothing() -> None:
    house = House()
    house.talk()
    assert house.tell(CallEnded("c2")) == []
    assert house.door.call == "c1"


def test_call_is_hung_up_after_opening_where_asked_for() -> None:
    house = House()
    house.talk("upstairs")
    house.press("4711")
    assert house.wait(2.0) == [HangUp("c1")]
    assert house.last("call_ended")["rule"] == "hang_up_after_open"
    assert house.door.pattern == "door_open"
    assert house.wait(1.0) == [Show("idle")]


def test_end_of_the_call_does_not_end_the_pulse() -> None:
    house = House()
    house.talk()
    house.press("4711")
    house.tell(CallEnded("c1"))
    assert house.door.pattern == "door_open"
    assert house.wait(3.0) == [Show("idle")]


# --- Digits and codes ---------------------------------------------------------------------------


def test_each_code_opens_its_relay() -> None:
    house = House()
    house.talk()
    assert PulseRelay("gate", 3.0) in house.press("0815")
    assert PulseRelay("gate", 3.0) in house.press("123456")


def test_wrong_code_is_refused_with_a_tone_to_both() -> None:
    house = House()
    house.talk()
    assert house.press("000000") == [Play("refused", far_end=True)]
    assert house.last("code") == {
        "call": "c1",
        "peer": GROUP,
        "digits": 6,
        "source": "rfc4733",
        "allowed": False,
        "rule": "wrong_code",
    }


def test_pause_ends_an_entry() -> None:
    house = House()
    house.talk()
    assert house.press("471") == []
    assert house.wait(3.0) == [Play("refused", far_end=True)]
    assert house.last("code")["rule"] == "incomplete"
    assert PulseRelay("door", 3.0) in house.press("4711")


def test_pause_that_nobody_told_the_door_of_ends_an_entry_too() -> None:
    house = House()
    house.talk()
    house.press("47")
    house.now += 3.0
    house.press("11")
    assert house.count(PulseRelay) == 0


def test_star_clears_the_entry() -> None:
    house = House()
    house.talk()
    assert PulseRelay("door", 3.0) in house.press("99*4711")


def test_digits_may_come_by_info() -> None:
    house = House()
    house.talk()
    assert PulseRelay("door", 3.0) in house.press("4711", source="info")
    assert house.last("code")["source"] == "info"


def test_tones_in_the_sound_do_not_count_unless_settings_say_so() -> None:
    house = House()
    house.talk()
    assert house.press("4711", source="inband") == []
    assert house.rules("digit") == ["in_band"] * 4
    assert house.count(PulseRelay) == 0


def test_digits_of_another_call_never_count() -> None:
    house = House()
    house.talk()
    assert house.press("4711", call="c2") == []
    assert house.rules("digit") == ["no_call"] * 4


@pytest.mark.parametrize("situation", ["idle", "calling", "ringing"])
def test_digits_without_a_connected_call_never_count(situation: str) -> None:
    house = House()
    if situation == "calling":
        house.tell(Pressed("call"))
    elif situation == "ringing":
        house.tell(CallArrived("c1", "", "registrar"))
    house.press("4711", call=house.door.call or "c1")
    assert house.count(PulseRelay) == 0


def test_call_in_from_a_peer_that_may_open_opens() -> None:
    house = House()
    house.tell(CallArrived("c1", "kitchen", "peer-address"))
    assert PulseRelay("door", 3.0) in house.press("4711")


def test_call_in_from_a_peer_that_may_not_open_is_refused() -> None:
    house = House()
    house.tell(CallArrived("c1", "child", "peer-address"))
    house.tell(AnswerRequested())
    house.press("4711")
    assert house.wait(3.0) == [Play("refused", far_end=True)]
    assert house.last("code")["rule"] == "may_not_open"
    assert house.count(PulseRelay) == 0


@pytest.mark.parametrize("may_open", [False, True])
def test_call_in_through_the_registrar_opens_only_if_the_account_says_so(may_open: bool) -> None:
    house = House(HOUSE.replace('user = "door"', f'user = "door"\nmay_open = {may_open}'.lower()))
    house.tell(CallArrived("c1", "", "registrar"))
    house.tell(AnswerRequested())
    house.press("4711")
    assert house.count(PulseRelay) == may_open


def test_called_peer_that_may_not_open_is_refused() -> None:
    house = House(HOUSE.replace('"sip:up@10.0.0.7"', '"child"'))
    house.talk("upstairs")
    house.press("4711#")
    assert house.count(PulseRelay) == 0
    assert house.last("code")["rule"] == "may_not_open"


def test_redirected_answer_may_do_what_every_target_of_the_step_may() -> None:
    house = House(HOUSE.replace('"kitchen", "sip:office', '"child", "sip:office'))
    house.tell(Pressed("call"))
    house.wait(30.0)
    house.tell(StepAnswered("step-2", "c1", "sip:elsewhere@10.0.0.99"))
    house.press("4711#")
    assert house.count(PulseRelay) == 0


SHORT = HOUSE.replace('codes = ["4711"]', 'codes = ["4711", "5"]')


def test_short_code_opens_where_its_button_allows_it() -> None:
    house = House(SHORT.replace("hang_up_after_open = 2", "short_codes = true"))
    house.talk("upstairs")
    assert PulseRelay("door", 3.0) in house.press("5")


def test_short_code_opens_where_the_peer_allows_it() -> None:
    house = House(SHORT.replace("auto_answer = true", "auto_answer = true\nshort_codes = true"))
    house.tell(CallArrived("c1", "kitchen", "peer-address"))
    assert PulseRelay("door", 3.0) in house.press("5")


def test_short_code_does_not_open_in_other_calls() -> None:
    house = House(SHORT.replace("hang_up_after_open = 2", "short_codes = true"))
    house.talk("call")
    assert house.press("5#") == [Play("refused", far_end=True)]
    assert house.last("code")["rule"] == "short_code"


def test_three_wrong_codes_lock_the_caller_out_for_a_time() -> None:
    house = House(HOUSE.replace("max_call = 120", "max_call = 600"))
    house.talk()
    house.press("000000" * 3)
    assert house.rules("code") == ["wrong_code"] * 3
    assert house.last("lock_out") == {"peer": GROUP, "seconds": 60.0}
    house.press("4711#")
    assert house.last("code")["rule"] == "locked_out"
    assert house.count(PulseRelay) == 0
    house.wait(60.0)
    house.press("4711")
    assert house.count(PulseRelay) == 1


def test_lock_out_answers_the_right_code_as_late_as_a_wrong_one() -> None:
    house = House()
    house.talk()
    house.press("000000" * 3)
    for code in ("4711", "4712", "123456"):
        assert house.press(code) == []
        assert house.wait(3.0) == [Play("refused", far_end=True)]
    assert house.rules("code")[3:] == ["locked_out"] * 3


@pytest.mark.parametrize("peer", ["", "kitchen"])
def test_a_caller_has_one_row_of_wrong_codes_whatever_it_calls_itself(peer: str) -> None:
    house = House(
        HOUSE.replace("[buttons.call]", "auto_answer = true\nmay_open = true\n[buttons.call]")
    )
    for number in range(4):
        call = f"c{number}"
        house.tell(CallArrived(call, peer, "rule", f"sip:caller-{number}@fritz.box"))
        house.press("000000" if number < 3 else "4711#", call=call)
        house.tell(CallEnded(call))
    assert house.rules("code") == ["wrong_code"] * 3 + ["locked_out"]
    assert house.count(PulseRelay) == 0


def test_lock_out_outlasts_the_call() -> None:
    house = House()
    house.talk()
    house.press("000000" * 3)
    house.tell(CallEnded("c1"))
    house.talk(call="c2")
    house.press("4711#", call="c2")
    assert house.count(PulseRelay) == 0


def test_lock_outs_outlast_a_change_of_the_settings() -> None:
    house = House()
    house.talk()
    house.press("000000" * 3)
    house.tell(CallEnded("c1"))
    for _ in range(3):
        house.tell(CardRead("keys", "0000"))
    house.door.take(parse(HOUSE.replace("max_call = 120", "max_call = 60")))
    house.talk(call="c2")
    house.press("4711#", call="c2")
    house.tell(CardRead("keys", "7788"))
    assert house.rules("code")[-1] == house.rules("card")[-1] == "locked_out"
    assert house.count(PulseRelay) == 0


def test_lock_out_of_one_caller_leaves_the_others() -> None:
    house = House()
    house.talk()
    house.press("000000" * 3)
    house.tell(CallEnded("c1"))
    house.talk("upstairs", call="c2")
    assert PulseRelay("door", 3.0) in house.press("4711", call="c2")


def test_many_wrong_codes_in_all_lock_everybody_out() -> None:
    settings = HOUSE.replace("wrong_codes = 3", "wrong_codes = 20\nwrong_codes_in_all = 4")
    house = House(settings)
    house.talk()
    house.press("000000" * 4)
    house.tell(CallEnded("c1"))
    house.talk("upstairs", call="c2")
    house.press("4711#", call="c2")
    assert house.last("code")["rule"] == "locked_out"


def test_guess_that_ends_with_the_call_counts() -> None:
    house = House()
    for call in ("c1", "c2", "c3"):
        house.talk(call=call)
        house.press("0000", call=call)
        house.tell(CallEnded(call))
    assert house.rules("code") == ["wrong_code"] * 3
    assert house.last("lock_out")["peer"] == GROUP


def test_no_code_card_or_digit_is_in_any_record() -> None:
    house = House()
    house.talk()
    house.press("4711")
    house.press("123457")
    house.tell(CallEnded("c1"))
    house.tell(CardRead("tag", "0A1B2C3D4E"))
    house.tell(CardRead("tag", "DEADBEEF00"))
    house.tell(CardRead("keys", "7788"))
    texts = [str(value) for record in house.records for value in record.fields.values()]
    for secret in ("4711", "123457", "0A1B2C3D4E", "DEADBEEF00", "7788"):
        assert not any(secret in text for text in texts)


# --- Relays -------------------------------------------------------------------------------------


def test_second_code_prolongs_a_pulse_up_to_the_hold_limit() -> None:
    house = House()
    house.talk()
    house.press("4711")
    house.wait(2.0)
    assert PulseRelay("door", 3.0) in house.press("4711")
    house.wait(2.0)
    assert PulseRelay("door", 1.0) in house.press("4711")
    house.wait(0.9)
    assert house.door.pattern == "door_open"
    house.wait(0.2)
    assert house.door.pattern == "in_call"
    assert PulseRelay("door", 3.0) in house.press("4711")


def test_a_relay_that_does_not_pull_is_heard_and_recorded_as_a_fault_and_never_as_open() -> None:
    house = House()
    house.relay_fault = "relay on pin 4: Input/output error"
    house.talk("upstairs")
    assert house.press("4711") == [
        PulseRelay("door", 3.0),
        Play("error", far_end=True),
        Show("fault"),
    ]
    fault = {"relay": "door", "why": house.relay_fault, "rule": "code", "call": "c1"}
    assert house.last("relay_fault") == fault
    assert house.wait(5.0) == [Show("in_call")]  # and no hang-up after an opening
    assert house.rules("release") == []


def test_a_card_whose_relay_does_not_pull_is_told_so_without_a_call() -> None:
    house = House()
    house.relay_fault = "closed"
    assert Play("error") in house.tell(CardRead("tag", "0A1B2C3D4E"))
    assert house.last("relay_fault")["reader"] == "tag"


def test_a_relay_that_fails_while_it_is_on_is_no_open_door_any_more() -> None:
    house = House()
    house.talk()
    house.press("4711")
    house.relay_fault = "closed"
    assert Show("fault") in house.press("4711")
    assert PulseRelay("door", 3.0) in house.press("4711")


def test_an_answer_of_a_relay_that_nobody_asked_changes_nothing() -> None:
    house = House()
    assert house.tell(RelayPulled("door")) == house.tell(RelayFailed("door", "why")) == []
    assert house.rules("release") == house.rules("relay_fault") == []


def test_two_releases_of_one_relay_before_it_answers_are_both_told() -> None:
    house = House()
    house.door.handle(CardRead("tag", "0A1B2C3D4E"), house.now)
    house.door.handle(CardRead("tag", "0A1B2C3D4E"), house.now)
    assert Play("opened") in house.tell(RelayPulled("door"))
    assert Play("error") in house.tell(RelayFailed("door", "closed"))


def test_a_missing_sound_card_is_a_fault_in_light_and_record_until_it_is_back() -> None:
    house = House()
    assert house.tell(SoundCardChanged("no card Door; there are: default")) == [Show("fault")]
    assert house.last("card_lost") == {"why": "no card Door; there are: default"}
    assert Show("ringing") in house.tell(Pressed("call"))
    assert house.tell(HangUpRequested())[-1] == Show("fault")
    assert house.tell(SoundCardChanged("")) == [Show("idle")]
    assert house.last("card_back") == {}


def test_a_reader_pulled_out_is_a_fault_in_light_and_record_until_it_is_back() -> None:
    house = House()
    assert house.tell(ReaderChanged("tag", False)) == [Show("fault")]
    assert house.last("reader") == {"reader": "tag", "state": "unplugged"}
    assert house.tell(ReaderChanged("tag", True)) == [Show("idle")]
    assert house.last("reader") == {"reader": "tag", "state": "back"}


def test_a_missing_part_is_a_fault_in_light_and_record_and_the_others_serve() -> None:
    house = House()
    why = "button on pin 17: in use by kettle"
    assert house.tell(PartMissing("button call", why)) == [Show("fault")]
    assert house.last("part_missing") == {"part": "button call", "why": why}
    assert house.door.faults == [f"button call is missing: {why}"]
    assert PulseRelay("door", 3.0) in house.tell(CardRead("tag", "0A1B2C3D4E"))


def test_what_is_wrong_is_told_in_words_while_it_lasts() -> None:
    house = House()
    assert house.door.faults == []
    wrong = (Stuck("call", True), ReaderChanged("tag", False), SoundCardChanged("no card"))
    for event in (*wrong, RegistrationChanged(False, "no answer")):
        house.tell(event)
    assert house.door.faults == [
        "button call is stuck",
        "reader tag is unplugged",
        "there is no sound card",
        "the account is not registered",
    ]
    for event in (Stuck("call", False), ReaderChanged("tag", True), SoundCardChanged("")):
        house.tell(event)
    house.tell(RegistrationChanged(True))
    assert house.door.faults == []


def test_pulses_of_two_relays_are_apart() -> None:
    house = House()
    house.talk()
    house.press("4711")
    house.wait(2.0)
    house.press("0815")
    assert house.wait(2.0) == []
    assert house.wait(1.0) == [Show("in_call")]


# --- Readers and contacts -----------------------------------------------------------------------


def test_accepted_card_opens() -> None:
    house = House()
    assert house.tell(CardRead("tag", "0A1B2C3D4E")) == [
        PulseRelay("door", 3.0),
        Play("opened"),
        Show("door_open"),
    ]
    assert house.last("card") == {"reader": "tag", "allowed": True, "rule": "card"}
    assert house.last("release")["reader"] == "tag"


def test_unknown_card_is_refused() -> None:
    house = House()
    assert house.tell(CardRead("tag", "0A1B2C3D4F")) == [Play("refused")]
    assert house.last("card")["rule"] == "unknown_card"


def test_a_reader_that_never_rests_writes_one_line_a_minute_with_the_count() -> None:
    house = House()
    for _ in range(100):
        house.tell(ReaderChanged("tag", False))
        house.tell(CardRead("tag", "0000000000"))
        house.tell(ReaderChanged("tag", True))
    records = [record for record in house.records if record.kind in {"reader", "card"}]
    assert len(records) == 10, "the first ones at once"
    house.tell(ReaderChanged("tag", False))
    house.wait(60)
    assert house.last("reader") == {"reader": "tag", "state": "unplugged", "not_recorded": 291}
    house.tell(ReaderChanged("tag", True))
    house.wait(59)
    assert house.last("reader")["state"] == "unplugged"
    house.wait(1)
    assert house.last("reader") == {"reader": "tag", "state": "plugged", "not_recorded": 1}
    house.tell(CardRead("tag", "0A1B2C3D4E"))
    assert house.last("card")["allowed"], "what opened is always recorded"
    house.wait(600)
    house.tell(ReaderChanged("tag", False))
    assert house.last("reader") == {"reader": "tag", "state": "unplugged"}


def test_keypad_is_locked_out_by_wrong_codes_and_nothing_else_is() -> None:
    house = House()
    for _ in range(3):
        house.tell(CardRead("keys", "0000"))
    house.tell(CardRead("keys", "7788"))
    assert house.last("card")["rule"] == "locked_out"
    assert PulseRelay("door", 3.0) in house.tell(CardRead("tag", "0A1B2C3D4E"))
    house.talk()
    assert PulseRelay("gate", 3.0) in house.press("0815")
    house.wait(60.0)
    assert PulseRelay("gate", 3.0) in house.tell(CardRead("keys", "7788"))


def test_unknown_cards_never_lock_the_residents_cards_out() -> None:
    house = House()
    for _ in range(50):
        house.tell(CardRead("tag", "0000000000"))
    assert PulseRelay("door", 3.0) in house.tell(CardRead("tag", "0A1B2C3D4E"))


def test_codes_typed_at_a_reader_of_cards_are_locked_out_and_its_cards_are_not() -> None:
    house = House(HOUSE.replace('"0A1B2C3D4E"', '"0A1B2C3D4E", "4712"'))
    for _ in range(3):
        assert house.tell(CardRead("tag", "0000", typed=True)) == [Play("refused")]
    assert house.tell(CardRead("tag", "4712", typed=True)) == [Play("refused")]
    assert house.last("card")["rule"] == "locked_out"
    assert PulseRelay("door", 3.0) in house.tell(CardRead("tag", "0A1B2C3D4E"))
    house.wait(60.0)
    assert PulseRelay("door", 3.0) in house.tell(CardRead("tag", "4712", typed=True))


def test_card_while_calling_opens_and_the_ringing_goes_on() -> None:
    house = House()
    house.tell(Pressed("call"))
    assert Play("opened", then="ringback") in house.tell(CardRead("tag", "0A1B2C3D4E"))


def test_reader_that_is_not_in_the_settings_opens_nothing() -> None:
    house = House()
    assert house.tell(CardRead("other", "0A1B2C3D4E")) == []


def test_contact_is_recorded_when_it_changes() -> None:
    house = House()
    for closed in (True, True, False, True):
        house.tell(ContactChanged("door", closed))
    assert [r.fields["closed"] for r in house.records if r.kind == "contact"] == [True, False, True]


def test_door_left_open_is_recorded_and_shown_until_it_is_closed() -> None:
    house = House()
    house.tell(ContactChanged("door", False))
    assert house.wait(60.0) == [Show("fault")]
    assert house.last("left_open") == {
        "contact": "door",
        "seconds": 60.0,
        "rule": "left_open_after",
    }
    assert house.tell(ContactChanged("door", True)) == [Show("idle")]


def test_door_that_is_closed_in_time_is_no_fault() -> None:
    house = House()
    house.tell(ContactChanged("door", False))
    house.wait(59.0)
    house.tell(ContactChanged("door", True))
    assert house.wait(100.0) == []


def test_door_may_stay_open_where_asked_for() -> None:
    house = House(HOUSE.replace("left_open_after = 60", "left_open_after = 0"))
    house.tell(ContactChanged("door", False))
    assert house.wait(86400.0) == []


# --- The table ----------------------------------------------------------------------------------


def test_every_action_trigger_and_phase_is_in_the_table() -> None:
    assert {action for _, action in TRANSITIONS.values()} == set(Action)
    assert {trigger for _, trigger in TRANSITIONS} == set(Trigger)
    assert {phase for phase, _ in TRANSITIONS} == set(Phase)


def test_every_phase_leads_back_to_idle() -> None:
    for phase in (Phase.CALLING, Phase.RINGING, Phase.TALKING):
        assert Phase.IDLE in {
            after for (before, _), (after, _) in TRANSITIONS.items() if before is phase
        }


def test_an_order_opens_its_relay_by_the_way_of_every_opening_and_says_who_it_was() -> None:
    house = House()
    outputs = house.tell(OpenRequested("door", "office, key lodge"))
    assert outputs[0] == PulseRelay("door", 3.0)
    assert Play("opened") in outputs
    assert house.last("release")["rule"] == "order"
    assert house.last("release")["by"] == "office, key lodge"
    assert house.tell(OpenRequested("cellar", "office, key lodge")) == []
