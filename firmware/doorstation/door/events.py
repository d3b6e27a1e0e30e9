"""What the door is told and what it asks for. The station translates to and from `ua` and board.

Names of buttons, relays, contacts, readers and peers are those of the settings. A `group` is one
step's attempt, named by the door; a `call` is one dialogue, named by the user agent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Field = str | int | float | bool | None


# --- Inputs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pressed:
    button: str


@dataclass(frozen=True, slots=True)
class Held:
    """A long press."""

    button: str


@dataclass(frozen=True, slots=True)
class Stuck:
    """A button stays pressed (`on`), or came free again."""

    button: str
    on: bool


@dataclass(frozen=True, slots=True)
class CallRequested:
    """Somebody in charge asks for a call: a number, a peer's name or a SIP URI."""

    uri: str


@dataclass(frozen=True, slots=True)
class AnswerRequested:
    """`call` empty: the call that rings at the door."""

    call: str = ""


@dataclass(frozen=True, slots=True)
class RejectRequested:
    """`call` empty: the call that rings at the door."""

    call: str = ""
    status: int = 603


@dataclass(frozen=True, slots=True)
class HangUpRequested:
    """`call` is a call or a group; empty: whatever there is."""

    call: str = ""


@dataclass(frozen=True, slots=True)
class StepRinging:
    """A target rings. `early_media`: it says that it sends a sound of its own."""

    group: str
    early_media: bool = False


@dataclass(frozen=True, slots=True)
class EarlyMedia:
    """The sound of a target that rings has begun to arrive, or (`heard` false) it gave up."""

    group: str
    heard: bool


@dataclass(frozen=True, slots=True)
class StepAnswered:
    """`peer` is the target of the PlaceCall that answered, as written there."""

    group: str
    call: str
    peer: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """`kind`: "busy", "declined", "no_answer", "unreachable" or "failed"."""

    target: str
    kind: str
    status: int = 0


@dataclass(frozen=True, slots=True)
class StepFailed:
    """No target of the step is left."""

    group: str
    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class CallArrived:
    """A call that may come in by `rule`.

    `peer` names a [peers] entry; empty: it came through the account's registrar.
    """

    call: str
    peer: str
    rule: str
    uri: str = ""


@dataclass(frozen=True, slots=True)
class CallEnded:
    call: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class DigitReceived:
    """`source`: "rfc4733", "info", "inband" or "stray" (of another host); those never count."""

    call: str
    value: str = field(repr=False)
    source: str


@dataclass(frozen=True, slots=True)
class RegistrationChanged:
    """False when it failed or was lost, not while the first attempt is under way."""

    registered: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class ContactChanged:
    name: str
    closed: bool


@dataclass(frozen=True, slots=True)
class CardRead:
    """A card (upper-case hexadecimal) or a keypad's line of digits."""

    reader: str
    value: str = field(repr=False)


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
    | CallEnded
    | DigitReceived
    | RegistrationChanged
    | ContactChanged
    | CardRead
)


# --- Outputs ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlaceCall:
    """Ring all targets (SIP URIs) at the same time; the first answer wins.

    The door itself cancels after `seconds`.
    """

    group: str
    targets: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class CancelCall:
    """End every attempt of the group; an answer on its way is hung up."""

    group: str


@dataclass(frozen=True, slots=True)
class RingCall:
    """Tell the caller that the door rings (180)."""

    call: str


@dataclass(frozen=True, slots=True)
class AcceptCall:
    call: str


@dataclass(frozen=True, slots=True)
class RejectCall:
    call: str
    status: int


@dataclass(frozen=True, slots=True)
class HangUp:
    call: str


@dataclass(frozen=True, slots=True)
class PulseRelay:
    """Energise for `seconds` from now; replaces a pulse that is still running."""

    relay: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Play:
    """Replace the present sound. `far_end`: the other side of the call hears it too.

    `sound`: "ringback", "ring" (a call rings at the door), "busy", "error", "refused", "opened"
    or "warning"; `then` is one that repeats afterwards.
    """

    sound: str
    loop: bool = False
    then: str = ""
    far_end: bool = False


@dataclass(frozen=True, slots=True)
class StopSound:
    """End what repeats; a single sound is heard to its end."""


@dataclass(frozen=True, slots=True)
class Show:
    """A pattern of `doorboard.interfaces.Indicator`, for every LED."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Record:
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
    | StopSound
    | Show
    | Record
)
