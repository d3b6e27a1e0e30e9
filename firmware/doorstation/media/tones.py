"""What the door station sounds like: call progress tones by country, signals of its own, WAVs.

A tone is a table of segments. Each segment's sines repeat after rate / gcd(rate, frequencies)
samples, so one such cycle is computed once and then sliced: nothing is rendered ahead.
"""

import math
from array import array
from functools import reduce
from typing import Final

import msgspec

from doorstation.media.pcm import audioop
from doorstation.media.resample import Resampler
from doorstation.media.wav import Wav


class Segment(msgspec.Struct, frozen=True):
    """`seconds` of the sum of some sines in Hz; of silence, with none."""

    seconds: float
    frequencies: tuple[int, ...] = ()


class Tone(msgspec.Struct, frozen=True):
    """Segments in order, once or for ever. `level` is each sine's peak in dB below full scale."""

    segments: tuple[Segment, ...]
    repeat: bool = False
    level: float = -15.0


Sound = Tone | Wav


def _cadence(frequencies: tuple[int, ...], *on_off: float) -> Tone:
    return Tone(
        tuple(
            Segment(seconds, () if index % 2 else frequencies)
            for index, seconds in enumerate(on_off)
        ),
        repeat=True,
    )


# ITU-T E.180 supplement 2, the tones each country's residents grew up with.
RINGBACK: Final[dict[str, Tone]] = {
    "at": _cadence((420,), 1.0, 5.0),
    "be": _cadence((425,), 1.0, 3.0),
    "ch": _cadence((425,), 1.0, 4.0),
    "cz": _cadence((425,), 1.0, 4.0),
    "de": _cadence((425,), 1.0, 4.0),
    "dk": _cadence((425,), 1.0, 4.0),
    "es": _cadence((425,), 1.5, 3.0),
    "fi": _cadence((425,), 1.0, 4.0),
    "fr": _cadence((440,), 1.5, 3.5),
    "hu": _cadence((425,), 1.25, 3.75),
    "ie": _cadence((400, 450), 0.4, 0.2, 0.4, 2.0),
    "it": _cadence((425,), 1.0, 4.0),
    "lu": _cadence((425,), 1.0, 4.0),
    "nl": _cadence((425,), 1.0, 4.0),
    "no": _cadence((425,), 1.0, 4.0),
    "pl": _cadence((425,), 1.0, 4.0),
    "pt": _cadence((425,), 1.0, 5.0),
    "se": _cadence((425,), 1.0, 5.0),
    "uk": _cadence((400, 450), 0.4, 0.2, 0.4, 2.0),
    "us": _cadence((440, 480), 2.0, 4.0),
}

BUSY: Final[dict[str, Tone]] = {
    "at": _cadence((420,), 0.4, 0.4),
    "be": _cadence((425,), 0.5, 0.5),
    "ch": _cadence((425,), 0.5, 0.5),
    "cz": _cadence((425,), 0.33, 0.33),
    "de": _cadence((425,), 0.48, 0.48),
    "dk": _cadence((425,), 0.5, 0.5),
    "es": _cadence((425,), 0.2, 0.2),
    "fi": _cadence((425,), 0.3, 0.3),
    "fr": _cadence((440,), 0.5, 0.5),
    "hu": _cadence((425,), 0.3, 0.3),
    "ie": _cadence((425,), 0.5, 0.5),
    "it": _cadence((425,), 0.5, 0.5),
    "lu": _cadence((425,), 0.48, 0.48),
    "nl": _cadence((425,), 0.5, 0.5),
    "no": _cadence((425,), 0.5, 0.5),
    "pl": _cadence((425,), 0.5, 0.5),
    "pt": _cadence((425,), 0.5, 0.5),
    "se": _cadence((425,), 0.25, 0.25),
    "uk": _cadence((400,), 0.375, 0.375),
    "us": _cadence((480, 620), 0.5, 0.5),
}

_SIGNALS: Final[dict[str, Tone]] = {
    # The three rising tones of "cannot be reached" (ITU-T E.180): known without any language.
    "error": Tone((Segment(0.33, (950,)), Segment(0.33, (1400,)), Segment(0.33, (1800,)))),
    # Wrong code, not allowed: two low, short and dull.
    "refused": Tone((Segment(0.18, (300,)), Segment(0.06), Segment(0.36, (220,)))),
    # The door is open, push now: two rising, bright.
    "opened": Tone((Segment(0.12, (800,)), Segment(0.04), Segment(0.3, (1200,)))),
    # The call will end soon.
    "warning": Tone((Segment(0.2, (1400,)), Segment(0.15), Segment(0.2, (1400,)))),
    # Somebody calls this door: two falling notes, as a house bell.
    "ring": Tone((Segment(0.5, (660,)), Segment(0.7, (528,)), Segment(1.8))),
}

NAMES: Final = ("ringback", "busy", "nobody_answers", "no_connection", "calling", *_SIGNALS)
"""The moments at which the door sounds."""


_BUSY_SECONDS: Final = 3.0
"""Nobody lifts off a door station: the tone ends by itself."""


def named(name: str, country: str = "de") -> Tone:
    """The tone of that name, as that country knows it. Raises KeyError for an unknown one."""
    match name:
        case "ringback":
            return RINGBACK[country]
        case "busy" | "nobody_answers":
            beep = BUSY[country].segments
            return Tone(beep * round(_BUSY_SECONDS / sum(segment.seconds for segment in beep)))
        case "no_connection":
            return _SIGNALS["error"]
        case "calling":
            return Tone(())  # for words only: the ring-back says it as well
        case _:
            return _SIGNALS[name]


_RAMP_SECONDS: Final = 0.004
"""Rise and fall of a segment: shorter ones click."""


class TonePlayer:
    """Renders a tone period by period at `rate` Hz."""

    def __init__(self, tone: Tone, rate: int, repeat: bool | None = None) -> None:
        self._rate = rate
        self._tone = tone
        self.repeat = tone.repeat if repeat is None else repeat
        self._index = 0
        self._position = 0
        self._cycles: dict[tuple[int, ...], tuple[bytes, int]] = {}
        self.finished = not tone.segments

    def read(self, frames: int) -> bytes:
        """The next `frames` samples; silence after the end."""
        pieces: list[bytes] = []
        while frames > 0 and not self.finished:
            segment = self._tone.segments[self._index]
            length = max(1, round(segment.seconds * self._rate))
            take = min(frames, length - self._position)
            pieces.append(self._render(segment, length, take))
            frames -= take
            self._position += take
            if self._position == length:
                self._position = 0
                self._index += 1
                if self._index == len(self._tone.segments):
                    self._index = 0
                    self.finished = not self.repeat
        if frames:
            pieces.append(bytes(2 * frames))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Nothing to free."""

    def _render(self, segment: Segment, length: int, take: int) -> bytes:
        if not segment.frequencies:
            return bytes(2 * take)
        cycle, period = self._cycle(segment.frequencies)
        start = self._position % period
        sound = cycle[2 * start : 2 * (start + take)]
        if len(sound) < 2 * take:
            copies = (start + take) // period + 1
            sound = (cycle * copies)[2 * start : 2 * (start + take)]
        ramp = int(_RAMP_SECONDS * self._rate)
        if self._position < ramp or self._position + take > length - ramp:
            return self._shaped(sound, length, ramp)
        return sound

    def _shaped(self, sound: bytes, length: int, ramp: int) -> bytes:
        samples = array("h", sound)
        for i in range(len(samples)):
            edge = min(self._position + i, length - 1 - self._position - i)
            if edge < ramp:
                samples[i] = samples[i] * edge // ramp
        return samples.tobytes()

    def _cycle(self, frequencies: tuple[int, ...]) -> tuple[bytes, int]:
        known = self._cycles.get(frequencies)
        if known is not None:
            return known
        period = self._rate // reduce(math.gcd, frequencies, self._rate)
        peak = 32767.0 * 10.0 ** (self._tone.level / 20.0)
        steps = [2.0 * math.pi * frequency / self._rate for frequency in frequencies]
        samples = array(
            "h", (round(peak * sum(math.sin(step * i) for step in steps)) for i in range(period))
        )
        self._cycles[frequencies] = (samples.tobytes(), period)
        return self._cycles[frequencies]


class WavPlayer:
    """Plays a WAV period by period at `rate` Hz, converted on the way."""

    def __init__(self, wav: Wav, rate: int, repeat: bool = False) -> None:
        self._pcm = memoryview(wav.pcm)
        self._step = max(1, wav.rate // 50) * 2
        self.repeat = repeat
        self._position = 0
        self._resampler = Resampler(wav.rate, rate) if wav.rate != rate else None
        self._rest = b""
        self.finished = not wav.pcm

    def read(self, frames: int) -> bytes:
        """The next `frames` samples; silence after the end."""
        need = 2 * frames
        while len(self._rest) < need and not self.finished:
            piece = bytes(self._pcm[self._position : self._position + self._step])
            self._position += len(piece)
            if self._position >= len(self._pcm):
                self._position = 0
                self.finished = not self.repeat
            self._rest += self._resampler.process(piece) if self._resampler else piece
        out, self._rest = self._rest[:need], self._rest[need:]
        return out if len(out) == need else out + bytes(need - len(out))

    def close(self) -> None:
        """Free the converter."""
        if self._resampler is not None:
            self._resampler.close()


Player = TonePlayer | WavPlayer


def player(sound: Sound, rate: int, loop: bool | None = None) -> Player:
    """What plays `sound` at `rate` Hz; `loop` None keeps the sound's own way.

    Raises DoorstationError when a WAV needs libspeexdsp and it is missing.
    """
    if isinstance(sound, Wav):
        return WavPlayer(sound, rate, bool(loop))
    return TonePlayer(sound, rate, loop)


def mixed(one: bytes, other: bytes) -> bytes:
    """Two periods of one length together, clipped."""
    return audioop.add(one, other, 2)


class LocalSound:
    """Tones and announcements for our own loudspeaker."""

    def __init__(self) -> None:
        self._player: Player | None = None
        self._rate = 0
        self._asked: tuple[Sound, bool | None] | None = None
        self._then: Sound | None = None

    @property
    def playing(self) -> bool:
        return self._player is not None

    @property
    def single(self) -> bool:
        """Whether what plays ends by itself."""
        return self._player is not None and not self._player.repeat

    def play(
        self,
        sound: Sound,
        rate: int,
        loop: bool | None = None,
        then: Sound | None = None,
    ) -> None:
        """Begin a sound in place of any other; `then` repeats when it is over.

        Raises DoorstationError when a WAV needs libspeexdsp and it is missing.
        """
        self.stop()
        self._player = player(sound, rate, loop)
        self._rate = rate
        self._asked = (sound, loop)
        self._then = then

    def stop_repeating(self) -> None:
        """End what repeats; a single sound is heard to its end."""
        self._then = None
        if not self.single:
            self.stop()

    def stop(self) -> None:
        """End the sound."""
        self._then = None
        if self._player is not None:
            self._player.close()
            self._player = None

    def rate_changed(self, rate: int) -> None:
        """The card has come back at another rate: the sound begins again."""
        if self._player is not None and rate != self._rate and self._asked is not None:
            sound, loop = self._asked
            self.play(sound, rate, loop, self._then)

    def read(self, rate: int) -> bytes:
        """The next period at `rate`; silence when nothing plays."""
        player = self._player
        if player is None:
            return bytes(rate // 50 * 2)
        played = player.read(rate // 50)
        if player.finished:
            then = self._then
            self.stop()
            if then is not None:
                self.play(then, rate, loop=True)
        return played
