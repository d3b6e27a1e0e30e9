"""What the media thread tells the loop: frozen structs, in order."""

import msgspec

from doorstation.media import tones
from doorstation.media.digits import Digit
from doorstation.media.session import Address, CallStatistics


class DigitHeard(msgspec.Struct, frozen=True):
    session: str
    digit: Digit


class FarEndStarted(msgspec.Struct, frozen=True):
    session: str
    source: Address


class FarEndSilent(msgspec.Struct, frozen=True):
    session: str
    seconds: float


class FarEndResumed(msgspec.Struct, frozen=True):
    session: str


class KeysReady(msgspec.Struct, frozen=True):
    session: str
    suite: str


class KeysFailed(msgspec.Struct, frozen=True):
    session: str
    why: str


class SessionEnded(msgspec.Struct, frozen=True):
    session: str
    statistics: CallStatistics | None


class SoundEnded(msgspec.Struct, frozen=True):
    sound: tones.Sound


class SoundFailed(msgspec.Struct, frozen=True):
    sound: tones.Sound
    reason: str


class CardLost(msgspec.Struct, frozen=True):
    reason: str


class CardBack(msgspec.Struct, frozen=True):
    pass


class SoundFault(msgspec.Struct, frozen=True):
    reason: str


class MediaFailed(msgspec.Struct, frozen=True):
    error: BaseException


MediaEvent = (
    DigitHeard
    | FarEndStarted
    | FarEndSilent
    | FarEndResumed
    | KeysReady
    | KeysFailed
    | SessionEnded
    | SoundEnded
    | SoundFailed
    | CardLost
    | CardBack
    | SoundFault
    | MediaFailed
)
