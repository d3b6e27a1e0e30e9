"""What the user agent tells the house above it, beside the network outputs of `sip.transport`."""

from dataclasses import dataclass, field
from enum import StrEnum

from doorstation.sdp.negotiation import AudioSession


class RegistrationState(StrEnum):
    OFF = "off"
    REGISTERING = "registering"
    REGISTERED = "registered"
    RETRYING = "retrying"
    """Nobody answered, or the network failed; tried again by itself."""
    REFUSED = "refused"
    """Answered and refused (wrong password, forbidden); tried again, slowly."""


class CallState(StrEnum):
    CALLING = "calling"
    RINGING = "ringing"
    CONNECTED = "connected"
    HELD = "held"
    ENDED = "ended"


class OutcomeKind(StrEnum):
    """How a call that was placed came to nothing. Ordinary results, never errors."""

    BUSY = "busy"
    DECLINED = "declined"
    NO_ANSWER = "no_answer"
    UNREACHABLE = "unreachable"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RegistrationChanged:
    state: RegistrationState
    registrar: str
    why: str
    expires: float = 0.0
    """Seconds granted; 0 unless registered."""
    contacts: int = 0
    """Bindings of this account that the registrar lists."""


@dataclass(frozen=True, slots=True)
class CallArrived:
    """Somebody allowed calls in, by `rule`; nothing but 100 is answered yet.

    `peer` is what From says, `known_as` the name of a peer, or empty when it came through the
    registrar.
    """

    call: str
    peer: str
    display: str
    rule: str
    known_as: str


@dataclass(frozen=True, slots=True)
class CallRinging:
    call: str
    status: int
    early_media: bool


@dataclass(frozen=True, slots=True)
class CallConnected:
    call: str
    peer: str


@dataclass(frozen=True, slots=True)
class CallHeld:
    """`held` says whether anybody holds; `by_peer` who."""

    call: str
    held: bool
    by_peer: bool


@dataclass(frozen=True, slots=True)
class CallEnded:
    call: str
    kind: OutcomeKind | None
    """None: the call had been connected and ended as calls do."""
    status: int
    why: str
    by_peer: bool


@dataclass(frozen=True, slots=True)
class MediaChanged:
    """What was agreed for the call's sound; None: nothing (yet, or any more)."""

    call: str
    session: AudioSession | None
    early: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    target: str
    kind: OutcomeKind
    status: int


@dataclass(frozen=True, slots=True)
class GroupRinging:
    group: str
    call: str
    early_media: bool


@dataclass(frozen=True, slots=True)
class GroupAnswered:
    group: str
    call: str
    peer: str


@dataclass(frozen=True, slots=True)
class GroupFailed:
    group: str
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class InfoDigit:
    """A digit that came in an INFO (RFC 6086 and the older kinds)."""

    call: str
    value: str = field(repr=False)
    duration_ms: int


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A text from somebody allowed (RFC 3428); already answered 200."""

    peer: str
    text: str
    rule: str


@dataclass(frozen=True, slots=True)
class MessageResult:
    message: str
    status: int
    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A request from outside was turned away, and by which rule."""

    method: str
    source: str
    status: int
    rule: str


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a hold, resume or INFO digit of ours on a call ended."""

    call: str
    command: str
    ok: bool
    why: str


Event = (
    RegistrationChanged
    | CallArrived
    | CallRinging
    | CallConnected
    | CallHeld
    | CallEnded
    | MediaChanged
    | GroupRinging
    | GroupAnswered
    | GroupFailed
    | InfoDigit
    | MessageReceived
    | MessageResult
    | Refused
    | CommandResult
)
