"""What the door is told and what it asks for. The station translates to and from `ua` and board.

Names of buttons, relays, contacts, readers and peers are those of the settings. A `group` is one
step's attempt, named by the door; a `call` is one dialogue, named by the user agent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

Field = str | int | float | bool | None


# --- Inputs -------------------------------------------------------------------------------------


class Pressed(msgspec.Struct, frozen=True):
    button: str


class Held(msgspec.Struct, frozen=True):
    """A long press."""

    button: str


class Stuck(msgspec.Struct, frozen=True):
    """A button stays pressed (`on`), or came free again."""

    button: str
    on: bool


class CallRequested(msgspec.Struct, frozen=True):
    """Somebody in charge asks for a call: a number, a peer's name or a SIP URI."""

    uri: str


class AnswerRequested(msgspec.Struct, frozen=True):
    """`call` empty: the call that rings at the door."""

    call: str = ""


class RejectRequested(msgspec.Struct, frozen=True):
    """`call` empty: the call that rings at the door."""

    call: str = ""
    status: int = 603


class HangUpRequested(msgspec.Struct, frozen=True):
    """`call` is a call or a group; empty: whatever there is."""

    call: str = ""


class StepRinging(msgspec.Struct, frozen=True):
    """A target rings. `early_media`: it says that it sends a sound of its own."""

    group: str
    early_media: bool = False


class EarlyMedia(msgspec.Struct, frozen=True):
    """The sound of a target that rings has begun to arrive, or (`heard` false) it gave up."""

    group: str
    heard: bool


class StepAnswered(msgspec.Struct, frozen=True):
    """`peer` is the target of the PlaceCall that answered, as written there."""

    group: str
    call: str
    peer: str


class Outcome(msgspec.Struct, frozen=True):
    """`kind`: "busy", "declined", "no_answer", "unreachable" or "failed"."""

    target: str
    kind: str
    status: int = 0
    why: str = ""


class StepFailed(msgspec.Struct, frozen=True):
    """No target of the step is left."""

    group: str
    outcomes: tuple[Outcome, ...] = ()


class CallArrived(msgspec.Struct, frozen=True):
    """A call that may come in by `rule`.

    `peer` names a [peers] entry; empty: it came through the account's registrar.
    """

    call: str
    peer: str
    rule: str
    uri: str = ""


class CallConfirmed(msgspec.Struct, frozen=True):
    """Its far end has acknowledged the answer, so it is who it says: its sound may begin."""

    call: str


class CallEnded(msgspec.Struct, frozen=True):
    call: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class DigitReceived:
    """`source`: "rfc4733", "info", "inband", which count where the far end's settings say so, or
    "stray" (of another host), which never do."""

    call: str
    value: str = field(repr=False)
    source: str


class RegistrationChanged(msgspec.Struct, frozen=True):
    """False when it failed or was lost, not while the first attempt is under way."""

    registered: bool
    why: str = ""


class ContactChanged(msgspec.Struct, frozen=True):
    name: str
    closed: bool


class SoundCardChanged(msgspec.Struct, frozen=True):
    """There is none (`fault` says why), or (`fault` empty) there is one again."""

    fault: str


class ReaderChanged(msgspec.Struct, frozen=True):
    """A card reader or keypad was pulled out, or is back."""

    reader: str
    plugged: bool


class PartMissing(msgspec.Struct, frozen=True):
    """A button, relay, contact or LED that cannot be used, as long as this door runs."""

    part: str
    why: str


class Claimed(msgspec.Struct, frozen=True):
    """By first use somebody has become the door's owner: shown for `seconds`; 0: no more."""

    seconds: float


class RelayPulled(msgspec.Struct, frozen=True):
    """The driver did what a PulseRelay asked for; each is answered by this or RelayFailed."""

    relay: str


class RelayFailed(msgspec.Struct, frozen=True):
    """The driver did not, and was told to release."""

    relay: str
    why: str


@dataclass(frozen=True, slots=True)
class CardRead:
    """A card (upper-case hexadecimal) or a line of keys (`typed`)."""

    reader: str
    value: str = field(repr=False)
    typed: bool = False


class OpenRequested(msgspec.Struct, frozen=True):
    """Somebody whose key opens this relay ordered it; `by` says who."""

    relay: str
    by: str


Input = (
    Pressed
    | Held
    | Stuck
    | CallRequested
    | AnswerRequested
    | RejectRequested
    | HangUpRequested
    | StepRinging
    | EarlyMedia
    | StepAnswered
    | StepFailed
    | CallArrived
    | CallConfirmed
    | CallEnded
    | DigitReceived
    | RegistrationChanged
    | ContactChanged
    | SoundCardChanged
    | ReaderChanged
    | PartMissing
    | Claimed
    | RelayPulled
    | RelayFailed
    | CardRead
    | OpenRequested
)


# --- Outputs ------------------------------------------------------------------------------------


class PlaceCall(msgspec.Struct, frozen=True):
    """Ring all targets (SIP URIs) at the same time; the first answer wins.

    The door itself cancels after `seconds`.
    """

    group: str
    targets: tuple[str, ...]
    seconds: float


class CancelCall(msgspec.Struct, frozen=True):
    """End every attempt of the group; an answer on its way is hung up."""

    group: str


class RingCall(msgspec.Struct, frozen=True):
    """Tell the caller that the door rings (180)."""

    call: str


class AcceptCall(msgspec.Struct, frozen=True):
    call: str


class RejectCall(msgspec.Struct, frozen=True):
    call: str
    status: int


class HangUp(msgspec.Struct, frozen=True):
    call: str


class PulseRelay(msgspec.Struct, frozen=True):
    """Energise for `seconds` from now; replaces a pulse that is still running."""

    relay: str
    seconds: float


class Play(msgspec.Struct, frozen=True):
    """Replace the present sound. `far_end`: the other side of the call hears it too.

    `sound`: "calling", "ringback", "ring" (a call rings at the door), "busy", "nobody_answers",
    "no_connection", "error", "refused", "opened" or "warning"; `then` is one that repeats
    afterwards.
    """

    sound: str
    loop: bool = False
    then: str = ""
    far_end: bool = False


class TellWhoRings(msgspec.Struct, frozen=True):
    """The far end that has answered may hear, over the visitor's voice, at which button he is."""

    button: str


class StopSound(msgspec.Struct, frozen=True):
    """End what repeats; a single sound is heard to its end."""


class Show(msgspec.Struct, frozen=True):
    """A pattern of `doorboard.interfaces.Indicator`, for every LED."""

    pattern: str


class Record(msgspec.Struct, frozen=True):
    """One line of the event log. Never holds a code, a card or a digit."""

    kind: str
    fields: Mapping[str, Field]


Output = (
    PlaceCall
    | CancelCall
    | RingCall
    | AcceptCall
    | RejectCall
    | HangUp
    | PulseRelay
    | Play
    | TellWhoRings
    | StopSound
    | Show
    | Record
)
