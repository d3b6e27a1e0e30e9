"""Between the sound card and the calls, when echo is cancelled: 16 kHz inside, whatever the card.

    clean = path.heard(period)           what the card captured, without the loudspeaker's echo
    card.write(path.sounding(pcm))       what is to be played, at the card's rate
    path.written(taken)                  what the card took of it: the reference for the next period

The reference is what was written, not what was meant: the card's driver leaves a period out, or
adds a frame, to keep its queue where it belongs. It passes the same converter as the microphone.
"""

from typing import Any, Final, Protocol

from doorstation.media.engine import EchoSeen
from doorstation.media.resample import Resampler

RATE: Final = 16000

_BYTES: Final = RATE // 50 * 2
"""Of a period."""


class Canceller(Protocol):
    """What is needed of `echo.Canceller`."""

    occurred: list[Any]

    def call_began(self, lead: float) -> None: ...
    def process(self, microphone: bytes, reference: bytes) -> bytes: ...
    def figures(self) -> EchoSeen: ...


class EchoPath:
    """One card and one canceller, for all calls one after the other."""

    def __init__(self, canceller: Canceller) -> None:
        self.canceller = canceller
        self._reference = b""
        self._card_rate = RATE
        self._microphone: Resampler | None = None
        self._played: Resampler | None = None
        self._loudspeaker: Resampler | None = None

    def card_opened(self, rate: int) -> None:
        """The card runs, perhaps at another rate than before."""
        self._reference = b""
        if rate == self._card_rate:
            return
        self._card_rate = rate
        for old in (self._microphone, self._played, self._loudspeaker):
            if old is not None:
                old.close()
        self._microphone = self._played = self._loudspeaker = None
        if rate != RATE:
            self._microphone = Resampler(rate, RATE)
            self._played = Resampler(rate, RATE)
            self._loudspeaker = Resampler(RATE, rate)

    def call_began(self, lead: float) -> None:
        """Sound goes out from now on; `lead`: seconds from `written` to the sound, by the card."""
        self._reference = b""
        self.canceller.call_began(lead)

    def heard(self, period: bytes) -> bytes:
        """A captured period at the card's rate: 20 ms at 16 kHz without echo."""
        if self._microphone is not None:
            period = self._microphone.process(period)
        reference, self._reference = self._reference, b""
        return self.canceller.process(period[:_BYTES].ljust(_BYTES, b"\0"), reference)

    def sounding(self, pcm: bytes) -> bytes:
        """20 ms at 16 kHz: a period at the card's rate."""
        if self._loudspeaker is None:
            return pcm
        size = self._card_rate // 50 * 2
        return self._loudspeaker.process(pcm)[:size].ljust(size, b"\0")

    def written(self, taken: bytes) -> None:
        """What the card took to play, at its own rate: nothing, a period, or near it."""
        if self._played is not None:
            taken = self._played.process(taken)
        self._reference += taken
