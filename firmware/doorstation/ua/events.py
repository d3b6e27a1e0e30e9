"""What the user agent tells the house above it, beside the network outputs of `sip.transport`."""

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from doorstation.sdp.negotiation import AudioSession
from doorstation.sip.message import Request
from doorstation.sip.transport import Flow


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


class RegistrationChanged(msgspec.Struct, frozen=True):
    state: RegistrationState
    registrar: str
    why: str
    expires: float = 0.0
    """Seconds granted; 0 unless registered."""
    contacts: int = 0
    """Bindings of this account that the registrar lists."""


class CallArrived(msgspec.Struct, frozen=True):
    """Somebody allowed calls in, by `rule`; nothing but 100 is answered yet.

    `peer` is what From says, `known_as` the name of a peer, or empty when it came through the
    registrar.
    """

    call: str
    peer: str
    display: str
    rule: str
    known_as: str


class CallRinging(msgspec.Struct, frozen=True):
    call: str
    status: int
    early_media: bool


class CallConnected(msgspec.Struct, frozen=True):
    call: str
    peer: str


class CallHeld(msgspec.Struct, frozen=True):
    """`held` says whether anybody holds; `by_peer` who."""

    call: str
    held: bool
    by_peer: bool


class CallEnded(msgspec.Struct, frozen=True):
    call: str
    kind: OutcomeKind | None
    """None: the call had been connected and ended as calls do."""
    status: int
    why: str
    by_peer: bool


class MediaChanged(msgspec.Struct, frozen=True):
    """What was agreed for the call's sound; None: nothing (yet, or any more)."""

    call: str
    session: AudioSession | None
    early: bool = False


class Outcome(msgspec.Struct, frozen=True):
    target: str
    kind: OutcomeKind
    status: int
    why: str = ""
    """When it was this side that could not."""


class GroupRinging(msgspec.Struct, frozen=True):
    group: str
    call: str
    early_media: bool


class GroupAnswered(msgspec.Struct, frozen=True):
    group: str
    call: str
    peer: str


class GroupFailed(msgspec.Struct, frozen=True):
    group: str
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class InfoDigit:
    """A digit that came in an INFO (RFC 6086 and the older kinds)."""

    call: str
    value: str = field(repr=False)
    duration_ms: int


class MessageReceived(msgspec.Struct, frozen=True):
    """A text from somebody allowed (RFC 3428); already answered 200."""

    peer: str
    text: str
    rule: str


class ContentReceived(msgspec.Struct, frozen=True):
    """A MESSAGE for somebody above: to be answered by `UserAgent.answer_content`.

    Nothing was asked of who sends it. `by_account`: it came by the account's server.
    """

    server: int
    request: Request
    flow: Flow
    by_account: bool


class MessageResult(msgspec.Struct, frozen=True):
    message: str
    status: int
    why: str
    retry_after: float | None = None
    """Seconds after which it is worth sending again, if that was said."""
    realms: tuple[str, ...] = ()
    """Of a 401: whose password is asked for, and was not shown or was refused."""


class SyncAsked(msgspec.Struct, frozen=True):
    """A NOTIFY of somebody allowed: there may be another configuration. Already answered 200."""

    source: str
    rule: str


class Refused(msgspec.Struct, frozen=True):
    """A request from outside was turned away, and by which rule."""

    method: str
    source: str
    status: int
    rule: str


class CommandResult(msgspec.Struct, frozen=True):
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
    | ContentReceived
    | MessageResult
    | SyncAsked
    | Refused
    | CommandResult
)
