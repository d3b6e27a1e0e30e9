"""Between the sound card and the calls: echo, noise and levels, at 16 kHz whatever the card.

    clean = path.heard(period)           what the card captured: no echo, no noise, an even level
    pcm = path.mixed(far, own)           what is to be played, never clipped
    taken = card.write(path.sounding(pcm))
    path.written(taken)                  what the card took: the reference for the next period

The reference is what was written, not what was meant: the card's driver leaves a period out, or
adds a frame, to keep its queue where it belongs. It passes the same converter as the microphone.
"""

from typing import Any, Final, Protocol

import msgspec

from doorstation.media import echo
from doorstation.media.levels import Microphone, MicrophoneLevels, Speaker, SpeakerLevels
from doorstation.media.pcm import audioop
from doorstation.media.resample import Resampler

RATE: Final = 16000

_BYTES: Final = RATE // 50 * 2
"""Of a period."""

_SILENCE: Final = bytes(_BYTES)


class Canceller(Protocol):
    """What is needed of `echo.Canceller`."""

    occurred: list[Any]

    def call_began(self, lead: float) -> None: ...
    def process(self, microphone: bytes, reference: bytes) -> bytes: ...
    def figures(self) -> echo.Figures: ...
    def close(self) -> None: ...


class Options(msgspec.Struct, frozen=True):
    """What the settings say; as they stand, all that makes sound better and nothing else."""

    canceller: echo.Options = echo.Options()
    microphone: MicrophoneLevels = MicrophoneLevels()
    speaker: SpeakerLevels = SpeakerLevels()

    @property
    def idle(self) -> bool:
        """Whether nothing is asked for: the sound then needs no path."""
        return (
            self.canceller.mode == "off"
            and not self.canceller.noise_suppression
            and self.microphone == MicrophoneLevels(gain_control=False)
            and (self.speaker.volume_db, self.speaker.street_gain_db) == (0.0, 0.0)
        )


class SoundPath:
    """One card and one canceller, for all calls one after the other.

    Raises DoorstationError naming the package that the canceller asked for needs.
    """

    def __init__(self, options: Options, canceller: Canceller | None = None) -> None:
        self.canceller = echo.make(options.canceller, RATE) if canceller is None else canceller
        self._levelled = Microphone(options.microphone)
        self._speaker = Speaker(options.speaker)
        self._played_rms = 0
        self._reference = _SILENCE
        self._card_rate = RATE
        self._microphone: Resampler | None = None
        self._played: Resampler | None = None
        self._loudspeaker: Resampler | None = None

    def close(self) -> None:
        """Free what the libraries hold; not used any more then."""
        self.canceller.close()
        self._close_resamplers()

    def card_opened(self, rate: int) -> None:
        """The card runs, perhaps at another rate than before; it begins with silence."""
        self._reference = _SILENCE
        if rate == self._card_rate:
            return
        self._card_rate = rate
        self._close_resamplers()
        if rate != RATE:
            self._microphone = Resampler(rate, RATE)
            self._played = Resampler(rate, RATE)
            self._loudspeaker = Resampler(RATE, rate)

    def _close_resamplers(self) -> None:
        for old in (self._microphone, self._played, self._loudspeaker):
            if old is not None:
                old.close()
        self._microphone = self._played = self._loudspeaker = None

    def call_began(self, lead: float) -> None:
        """Sound goes out from now on; `lead`: seconds from `written` to the sound, by the card."""
        self.canceller.call_began(lead)

    def heard(self, period: bytes) -> bytes:
        """A captured period at the card's rate: 20 ms at 16 kHz, to be sent."""
        if self._microphone is not None:
            period = self._microphone.process(period)
        if len(period) != _BYTES:
            period = period[:_BYTES].ljust(_BYTES, b"\0")
        reference, self._reference = self._reference, b""
        if self._speaker.levels.street_gain_db:
            self._speaker.street(audioop.rms(period, 2))
        return self._levelled.process(self.canceller.process(period, reference), self._played_rms)

    def mixed(self, far: bytes | None, own: bytes | None) -> bytes:
        """20 ms at 16 kHz of all that sounds at once: the far end, and sounds of our own."""
        if far is None:
            far, own = own, None
        if far is None:
            self._played_rms = 0
            return self._speaker.play(_SILENCE)
        pcm = self._speaker.play(far) if own is None else self._speaker.play(far, own)
        self._played_rms = audioop.rms(pcm, 2)
        return pcm

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
