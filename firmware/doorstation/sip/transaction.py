"""The four transaction machines of RFC 3261 §17, as tables, with RFC 6026 and RFC 4320 built in.

A transaction carries one request and its responses over one flow: it repeats what UDP may lose,
recognises what was repeated, and ends by itself. It knows nothing of targets, dialogs or other
transactions; `endpoint.py` finds the transaction for a message and acts on what it returns.

What the later RFCs changed: an INVITE answered 2xx stays as *Accepted* for 64 T1 on both sides, so
that repeated 2xx and 2xx of other forks find it (RFC 6026). A non-INVITE request is never answered
408, and provisionally only by 100, late: whoever asked has given up by himself, and a 408 would
arrive after that and be taken for a fault of the next hop (RFC 4320).
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, TypeAlias, assert_never

import msgspec

from doorstation.sip.headers import Headers
from doorstation.sip.message import Request, Response, format_message, make_response
from doorstation.sip.transport import Flow, Send


class State(Enum):
    """The states of figures 5 to 8, in their words; ACCEPTED from RFC 6026."""

    CALLING = auto()
    TRYING = auto()
    PROCEEDING = auto()
    ACCEPTED = auto()
    COMPLETED = auto()
    CONFIRMED = auto()
    TERMINATED = auto()


class Trigger(Enum):
    """What may happen to a transaction: timers by their RFC letters, messages, the network."""

    TIMER_A = auto()
    TIMER_B = auto()
    TIMER_D = auto()
    TIMER_E = auto()
    TIMER_F = auto()
    TIMER_G = auto()
    TIMER_H = auto()
    TIMER_I = auto()
    TIMER_J = auto()
    TIMER_K = auto()
    TIMER_L = auto()
    TIMER_M = auto()
    TIMER_TRYING = auto()  # the transaction user took its time: send 100 by ourselves
    TIMER_CANCEL = auto()  # cancelled, and no final response came (RFC 3261 §9.1)
    TIMER_TOO_LATE = auto()  # no answer of ours can arrive in time any more (RFC 4320 §4.2)
    PROVISIONAL = auto()  # client: received; server: to be sent
    SUCCESS = auto()
    FAILURE = auto()
    REQUEST = auto()  # the request again
    ACK = auto()
    TRANSPORT_ERROR = auto()


class Action(Enum):
    """What to do on a transition."""

    NOTHING = auto()
    RETRANSMIT = auto()  # the request, or the last response
    DELIVER = auto()  # the response, to the transaction user
    DELIVER_AND_ACK = auto()
    ACKNOWLEDGE = auto()  # the failure came again, so our ACK was lost
    RESPOND = auto()  # send the response of the transaction user
    SEND_TRYING = auto()
    DELIVER_ACK = auto()
    TIME_OUT = auto()
    FAIL = auto()


class Delay(Enum):
    """How long a timer runs, in terms of `Timing`."""

    NONE = auto()
    T1 = auto()
    T4 = auto()
    T1_64 = auto()
    INVITE_TRYING = auto()
    OTHER_TRYING = auto()


class Timing(msgspec.Struct, frozen=True):
    """RFC 3261 table 4: round trip estimate, longest retransmission interval, longest stay."""

    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0

    def seconds(self, delay: Delay) -> float:
        match delay:
            case Delay.NONE:
                return 0.0
            case Delay.T1:
                return self.t1
            case Delay.T4:
                return self.t4
            case Delay.T1_64:
                return 64 * self.t1
            case Delay.INVITE_TRYING:
                return 0.2  # RFC 3261 §17.2.1
            case Delay.OTHER_TRYING:
                # RFC 4320 §4.1: not before the client's timer E has grown to T2.
                waited, interval = 0.0, self.t1
                while interval < self.t2:
                    waited += interval
                    interval *= 2
                return waited
            case _:
                assert_never(delay)


class Arm(msgspec.Struct, frozen=True):
    """A timer that runs in a state; `reliable` None: not at all over TCP and TLS."""

    timer: Trigger
    unreliable: Delay
    reliable: Delay | None


class Figure(msgspec.Struct, frozen=True):
    """One machine as data.

    A pair missing from `transitions` is ignored. On entering a state the timers listed for it
    start, those that run already go on, and all others stop.
    """

    name: str
    first: State
    transitions: Mapping[tuple[State, Trigger], tuple[State, Action]]
    arms: Mapping[State, tuple[Arm, ...]]


# RFC 3261 figure 5, with Accepted from RFC 6026 §7.2 and the end of a cancelled one from §9.1.
# A connection lost while it rings ends the request: neither the answer nor our CANCEL would pass.
INVITE_CLIENT: Final = Figure(
    "INVITE client",
    State.CALLING,
    {
        (State.CALLING, Trigger.TIMER_A): (State.CALLING, Action.RETRANSMIT),
        (State.CALLING, Trigger.TIMER_B): (State.TERMINATED, Action.TIME_OUT),
        (State.CALLING, Trigger.TIMER_CANCEL): (State.TERMINATED, Action.TIME_OUT),
        (State.CALLING, Trigger.TRANSPORT_ERROR): (State.TERMINATED, Action.FAIL),
        (State.CALLING, Trigger.PROVISIONAL): (State.PROCEEDING, Action.DELIVER),
        (State.CALLING, Trigger.SUCCESS): (State.ACCEPTED, Action.DELIVER),
        (State.CALLING, Trigger.FAILURE): (State.COMPLETED, Action.DELIVER_AND_ACK),
        (State.PROCEEDING, Trigger.TIMER_CANCEL): (State.TERMINATED, Action.TIME_OUT),
        (State.PROCEEDING, Trigger.TRANSPORT_ERROR): (State.TERMINATED, Action.FAIL),
        (State.PROCEEDING, Trigger.PROVISIONAL): (State.PROCEEDING, Action.DELIVER),
        (State.PROCEEDING, Trigger.SUCCESS): (State.ACCEPTED, Action.DELIVER),
        (State.PROCEEDING, Trigger.FAILURE): (State.COMPLETED, Action.DELIVER_AND_ACK),
        (State.ACCEPTED, Trigger.SUCCESS): (State.ACCEPTED, Action.DELIVER),
        (State.ACCEPTED, Trigger.TIMER_M): (State.TERMINATED, Action.NOTHING),
        (State.COMPLETED, Trigger.FAILURE): (State.COMPLETED, Action.ACKNOWLEDGE),
        (State.COMPLETED, Trigger.TRANSPORT_ERROR): (State.TERMINATED, Action.NOTHING),
        (State.COMPLETED, Trigger.TIMER_D): (State.TERMINATED, Action.NOTHING),
    },
    {
        State.CALLING: (
            Arm(Trigger.TIMER_A, Delay.T1, None),
            Arm(Trigger.TIMER_B, Delay.T1_64, Delay.T1_64),
        ),
        State.ACCEPTED: (Arm(Trigger.TIMER_M, Delay.T1_64, Delay.T1_64),),
        State.COMPLETED: (Arm(Trigger.TIMER_D, Delay.T1_64, Delay.NONE),),
    },
)

# RFC 3261 figure 6.
OTHER_CLIENT: Final = Figure(
    "non-INVITE client",
    State.TRYING,
    {
        (State.TRYING, Trigger.TIMER_E): (State.TRYING, Action.RETRANSMIT),
        (State.TRYING, Trigger.TIMER_F): (State.TERMINATED, Action.TIME_OUT),
        (State.TRYING, Trigger.TRANSPORT_ERROR): (State.TERMINATED, Action.FAIL),
        (State.TRYING, Trigger.PROVISIONAL): (State.PROCEEDING, Action.DELIVER),
        (State.TRYING, Trigger.SUCCESS): (State.COMPLETED, Action.DELIVER),
        (State.TRYING, Trigger.FAILURE): (State.COMPLETED, Action.DELIVER),
        (State.PROCEEDING, Trigger.TIMER_E): (State.PROCEEDING, Action.RETRANSMIT),
        (State.PROCEEDING, Trigger.TIMER_F): (State.TERMINATED, Action.TIME_OUT),
        (State.PROCEEDING, Trigger.TRANSPORT_ERROR): (State.TERMINATED, Action.FAIL),
        (State.PROCEEDING, Trigger.PROVISIONAL): (State.PROCEEDING, Action.DELIVER),
        (State.PROCEEDING, Trigger.SUCCESS): (State.COMPLETED, Action.DELIVER),
        (State.PROCEEDING, Trigger.FAILURE): (State.COMPLETED, Action.DELIVER),
        (State.COMPLETED, Trigger.TIMER_K): (State.TERMINATED, Action.NOTHING),
    },
    {
        State.TRYING: (
            Arm(Trigger.TIMER_E, Delay.T1, None),
            Arm(Trigger.TIMER_F, Delay.T1_64, Delay.T1_64),
        ),
        State.PROCEEDING: (
            Arm(Trigger.TIMER_E, Delay.T1, None),
            Arm(Trigger.TIMER_F, Delay.T1_64, Delay.T1_64),
        ),
        State.COMPLETED: (Arm(Trigger.TIMER_K, Delay.T4, Delay.NONE),),
    },
)

# RFC 3261 figure 7, with Accepted from RFC 6026 §7.1: there the transaction user repeats its 2xx
# itself, the machine only swallows the INVITE. A transport error leaves the states before
# Completed alone: the response may still go another way.
INVITE_SERVER: Final = Figure(
    "INVITE server",
    State.PROCEEDING,
    {
        (State.PROCEEDING, Trigger.TIMER_TRYING): (State.PROCEEDING, Action.SEND_TRYING),
        (State.PROCEEDING, Trigger.REQUEST): (State.PROCEEDING, Action.RETRANSMIT),
        (State.PROCEEDING, Trigger.PROVISIONAL): (State.PROCEEDING, Action.RESPOND),
        (State.PROCEEDING, Trigger.SUCCESS): (State.ACCEPTED, Action.RESPOND),
        (State.PROCEEDING, Trigger.FAILURE): (State.COMPLETED, Action.RESPOND),
        (State.ACCEPTED, Trigger.SUCCESS): (State.ACCEPTED, Action.RESPOND),
        (State.ACCEPTED, Trigger.ACK): (State.ACCEPTED, Action.DELIVER_ACK),
        (State.ACCEPTED, Trigger.TIMER_L): (State.TERMINATED, Action.NOTHING),
        (State.COMPLETED, Trigger.REQUEST): (State.COMPLETED, Action.RETRANSMIT),
        (State.COMPLETED, Trigger.TIMER_G): (State.COMPLETED, Action.RETRANSMIT),
        (State.COMPLETED, Trigger.ACK): (State.CONFIRMED, Action.NOTHING),
        (State.COMPLETED, Trigger.TIMER_H): (State.TERMINATED, Action.TIME_OUT),
        (State.COMPLETED, Trigger.TRANSPORT_ERROR): (State.TERMINATED, Action.FAIL),
        (State.CONFIRMED, Trigger.TIMER_I): (State.TERMINATED, Action.NOTHING),
    },
    {
        State.PROCEEDING: (Arm(Trigger.TIMER_TRYING, Delay.INVITE_TRYING, Delay.INVITE_TRYING),),
        State.ACCEPTED: (Arm(Trigger.TIMER_L, Delay.T1_64, Delay.T1_64),),
        State.COMPLETED: (
            Arm(Trigger.TIMER_G, Delay.T1, None),
            Arm(Trigger.TIMER_H, Delay.T1_64, Delay.T1_64),
        ),
        State.CONFIRMED: (Arm(Trigger.TIMER_I, Delay.T4, Delay.NONE),),
    },
)

# RFC 3261 figure 8 with RFC 4320 §4.1 and §4.2: 100 after a while, nothing when it is too late.
OTHER_SERVER: Final = Figure(
    "non-INVITE server",
    State.TRYING,
    {
        (State.TRYING, Trigger.TIMER_TRYING): (State.PROCEEDING, Action.SEND_TRYING),
        (State.TRYING, Trigger.TIMER_TOO_LATE): (State.TERMINATED, Action.NOTHING),
        (State.TRYING, Trigger.PROVISIONAL): (State.PROCEEDING, Action.RESPOND),
        (State.TRYING, Trigger.SUCCESS): (State.COMPLETED, Action.RESPOND),
        (State.TRYING, Trigger.FAILURE): (State.COMPLETED, Action.RESPOND),
        (State.PROCEEDING, Trigger.TIMER_TOO_LATE): (State.TERMINATED, Action.NOTHING),
        (State.PROCEEDING, Trigger.REQUEST): (State.PROCEEDING, Action.RETRANSMIT),
        (State.PROCEEDING, Trigger.PROVISIONAL): (State.PROCEEDING, Action.RESPOND),
        (State.PROCEEDING, Trigger.SUCCESS): (State.COMPLETED, Action.RESPOND),
        (State.PROCEEDING, Trigger.FAILURE): (State.COMPLETED, Action.RESPOND),
        (State.COMPLETED, Trigger.REQUEST): (State.COMPLETED, Action.RETRANSMIT),
        (State.COMPLETED, Trigger.TIMER_J): (State.TERMINATED, Action.NOTHING),
        (State.COMPLETED, Trigger.TRANSPORT_ERROR): (State.TERMINATED, Action.FAIL),
    },
    {
        State.TRYING: (
            Arm(Trigger.TIMER_TRYING, Delay.OTHER_TRYING, Delay.OTHER_TRYING),
            Arm(Trigger.TIMER_TOO_LATE, Delay.T1_64, Delay.T1_64),
        ),
        State.PROCEEDING: (Arm(Trigger.TIMER_TOO_LATE, Delay.T1_64, Delay.T1_64),),
        State.COMPLETED: (Arm(Trigger.TIMER_J, Delay.T1_64, Delay.NONE),),
    },
)


class Machine:
    """Runs one figure: its state and its timers, nothing else."""

    __slots__ = ("_due", "_figure", "_interval", "_reliable", "_timing", "state")

    def __init__(self, figure: Figure, timing: Timing, reliable: bool, now: float) -> None:
        self._figure = figure
        self._timing = timing
        self._reliable = reliable
        self._interval = timing.t1
        self._due: dict[Trigger, float] = {}
        self.state = figure.first
        self._enter(figure.first, now)

    @property
    def deadline(self) -> float | None:
        """When the next timer is due."""
        return min(self._due.values()) if self._due else None

    def fire(self, trigger: Trigger, now: float) -> Action:
        """Make the transition, if there is one."""
        state, action = self._figure.transitions.get(
            (self.state, trigger), (self.state, Action.NOTHING)
        )
        if state is not self.state:
            self._enter(state, now)
        elif trigger in _REPEATED:
            self._repeat(trigger, now)
        return action

    def take_due(self, now: float) -> Trigger | None:
        """The timer that is due first, taken out; None when none is."""
        if not self._due:
            return None
        timer = min(self._due, key=self._due.__getitem__)
        if self._due[timer] > now:
            return None
        del self._due[timer]
        return timer

    def start(self, timer: Trigger, delay: Delay, now: float) -> None:
        self._due[timer] = now + self._timing.seconds(delay)

    def stop(self, timer: Trigger) -> None:
        self._due.pop(timer, None)

    def end(self) -> None:
        """Leave at once, without any action."""
        self._enter(State.TERMINATED, 0.0)

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        running, self._due = self._due, {}
        for arm in self._figure.arms.get(state, ()):
            delay = arm.reliable if self._reliable else arm.unreliable
            if arm.timer in running:
                self._due[arm.timer] = running[arm.timer]
            elif delay is Delay.NONE:
                self.fire(arm.timer, now)  # nothing can be repeated: the state is left at once
            elif delay is not None:
                self.start(arm.timer, delay, now)

    def _repeat(self, timer: Trigger, now: float) -> None:
        """Start a retransmission timer again, counted from now: a late wake-up makes no burst."""
        timing = self._timing
        if self.state is State.PROCEEDING:
            self._interval = timing.t2  # §17.1.2.2: the server is there, so ask seldom
        elif timer is Trigger.TIMER_A:
            self._interval *= 2
        else:
            self._interval = min(self._interval * 2, timing.t2)
        self._due[timer] = now + self._interval


_REPEATED: Final = frozenset((Trigger.TIMER_A, Trigger.TIMER_E, Trigger.TIMER_G))


class Delivered(msgspec.Struct, frozen=True):
    """A response for the transaction user."""

    response: Response


class AckDelivered(msgspec.Struct, frozen=True):
    """An ACK for our 2xx with the INVITE's own branch, which RFC 2543 peers send."""


class TimedOut(msgspec.Struct, frozen=True):
    """Nothing came in 64 T1: for a client the final response, for a server the ACK."""


class Unreachable(msgspec.Struct, frozen=True):
    """The flow failed before the transaction was through."""


Outcome: TypeAlias = Send | Delivered | AckDelivered | TimedOut | Unreachable


class ClientTransaction:
    """One request of ours on one flow (RFC 3261 §17.1)."""

    __slots__ = ("_ack", "_wire", "answered", "flow", "machine", "request")

    def __init__(self, request: Request, flow: Flow, timing: Timing, now: float) -> None:
        """`request` has its Via already. Send `start()`."""
        figure = INVITE_CLIENT if request.method == "INVITE" else OTHER_CLIENT
        self.machine = Machine(figure, timing, flow.transport.reliable, now)
        self.request = request
        self.flow = flow
        self.answered = False  # any response at all came, 100 too
        self._wire = format_message(request)
        self._ack = b""

    @property
    def deadline(self) -> float | None:
        return self.machine.deadline

    @property
    def ended(self) -> bool:
        return self.machine.state is State.TERMINATED

    @property
    def size(self) -> int:
        """Bytes on the wire: what RFC 3261 §18.1.1 limits for UDP."""
        return len(self._wire)

    def start(self) -> list[Outcome]:
        return [Send(self.flow, self._wire)]

    def response_received(self, response: Response, now: float) -> list[Outcome]:
        self.answered = True
        trigger = _trigger_of(response)
        return self._perform(self.machine.fire(trigger, now), response)

    def cancelled(self, now: float) -> None:
        """A CANCEL went out: wait 64 T1 for the final response and no longer (RFC 3261 §9.1)."""
        self.machine.start(Trigger.TIMER_CANCEL, Delay.T1_64, now)

    def transport_failed(self, now: float) -> list[Outcome]:
        return self._perform(self.machine.fire(Trigger.TRANSPORT_ERROR, now))

    def timer_fired(self, now: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while (timer := self.machine.take_due(now)) is not None:
            outcomes += self._perform(self.machine.fire(timer, now))
        return outcomes

    def _perform(self, action: Action, response: Response | None = None) -> list[Outcome]:
        match action:
            case Action.RETRANSMIT:
                return [Send(self.flow, self._wire)]
            case Action.DELIVER:
                return [Delivered(response)] if response is not None else []
            case Action.DELIVER_AND_ACK:
                if response is None:
                    return []
                self._ack = format_message(make_ack(self.request, response))
                return [Send(self.flow, self._ack), Delivered(response)]
            case Action.ACKNOWLEDGE:
                return [Send(self.flow, self._ack)]
            case Action.TIME_OUT:
                return [TimedOut()]
            case Action.FAIL:
                return [Unreachable()]
            case Action.NOTHING | Action.RESPOND | Action.SEND_TRYING | Action.DELIVER_ACK:
                return []
            case _:
                assert_never(action)


class ServerTransaction:
    """One request of a peer on one flow (RFC 3261 §17.2)."""

    __slots__ = ("_last", "_request", "flow", "invite", "machine", "to_tag")

    def __init__(self, request: Request, flow: Flow, timing: Timing, now: float) -> None:
        """`flow`: where responses go."""
        self.invite = request.method == "INVITE"
        figure = INVITE_SERVER if self.invite else OTHER_SERVER
        self.machine = Machine(figure, timing, flow.transport.reliable, now)
        self.flow = flow
        self.to_tag = ""  # of the last response to an INVITE, for its CANCEL and ACK
        self._request: Request | None = request  # until a response is there to repeat
        self._last = b""

    @property
    def deadline(self) -> float | None:
        return self.machine.deadline

    @property
    def ended(self) -> bool:
        return self.machine.state is State.TERMINATED

    @property
    def pending(self) -> bool:
        """No final response yet."""
        return self.machine.state in (State.TRYING, State.PROCEEDING)

    def request_received(self, now: float) -> list[Outcome]:
        """The same request again."""
        return self._perform(self.machine.fire(Trigger.REQUEST, now))

    def ack_received(self, now: float) -> list[Outcome]:
        return self._perform(self.machine.fire(Trigger.ACK, now))

    def respond(self, response: Response, now: float) -> list[Outcome]:
        """Send a response; one that comes after the final one is not sent.

        A 408 to anything but INVITE is silently kept back (RFC 4320 §4.2). ValueError for a
        provisional other than 100 there (§4.1).
        """
        if not self.invite:
            if response.status == 408:
                return []
            if 100 < response.status < 200:
                raise ValueError(f"{response.status} to a non-INVITE request (RFC 4320 §4.1)")
        action = self.machine.fire(_trigger_of(response), now)
        if action is not Action.RESPOND:
            return []
        self.machine.stop(Trigger.TIMER_TRYING)
        self._last = format_message(response)
        self._request = None
        if self.invite:
            self.to_tag = response.to.tag or ""
        return self._perform(action)

    def transport_failed(self, now: float) -> list[Outcome]:
        return self._perform(self.machine.fire(Trigger.TRANSPORT_ERROR, now))

    def timer_fired(self, now: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while (timer := self.machine.take_due(now)) is not None:
            outcomes += self._perform(self.machine.fire(timer, now))
        return outcomes

    def end(self) -> None:
        """Leave at once, without any action: the request is answered without state."""
        self.machine.end()
        self._request = None

    def _perform(self, action: Action) -> list[Outcome]:
        match action:
            case Action.RESPOND | Action.RETRANSMIT:
                return [Send(self.flow, self._last)] if self._last else []
            case Action.SEND_TRYING:
                if self._request is None:
                    return []
                self._last = format_message(make_response(self._request, 100))
                self._request = None
                return [Send(self.flow, self._last)]
            case Action.DELIVER_ACK:
                return [AckDelivered()]
            case Action.TIME_OUT:
                return [TimedOut()]
            case Action.FAIL:
                return [Unreachable()]
            case Action.NOTHING | Action.DELIVER | Action.DELIVER_AND_ACK | Action.ACKNOWLEDGE:
                return []
            case _:
                assert_never(action)


def make_ack(request: Request, response: Response) -> Request:
    """The ACK for a non-2xx: same branch, To of the response, Route copied (RFC 3261 §17.1.1.3)."""
    return _companion(request, "ACK", response.headers.get("To") or "")


def make_cancel(request: Request, reason: str = "") -> Request:
    """The CANCEL for a request as sent: same branch, To and CSeq number (RFC 3261 §9.1).

    `reason` is the value of a Reason header (RFC 3326).
    """
    cancel = _companion(request, "CANCEL", request.headers.get("To") or "")
    if reason:
        cancel.headers.add("Reason", reason)
    return cancel


def _companion(request: Request, method: str, to: str) -> Request:
    headers = Headers([("Via", str(request.top_via)), ("Max-Forwards", "70")])
    for route in request.headers.get_all("Route"):
        headers.add("Route", route)
    headers.add("From", request.headers.get("From") or "")
    headers.add("To", to)
    headers.add("Call-ID", request.call_id)
    headers.add("CSeq", f"{request.cseq.number} {method}")
    return Request(method, request.uri, headers)


def _trigger_of(response: Response) -> Trigger:
    if response.status < 200:
        return Trigger.PROVISIONAL
    return Trigger.SUCCESS if response.status < 300 else Trigger.FAILURE
