"""What the microphone heard of the loudspeaker is taken out of what is sent.

    canceller = make(options, rate=16000)   kept between calls: what it learned of the room stays
    canceller.call_began(lead)              seconds from hand-over of a period to its sound
    clean = canceller.process(microphone, reference)    once per 20 ms, S16 mono
    canceller.occurred                      what the log should say, to be taken by the owner
    canceller.figures()                     what has been measured
    canceller.close()

`microphone` is 20 ms, `reference` what was written to the card in the last 20 ms: as long, or a
little longer or shorter where the card's driver corrects its queue. The standard mode's output is
20 ms late.

*Modes.* `speex` is the standard: libspeexdsp's adaptive filter and its preprocessor, an estimate of
the clocks' drift (`reference`) and a gate (below). `aec3` is WebRTC's canceller alone: it needs no
time to learn, and takes much of the visitor away when both talk. `cascade`: libspeexdsp's filter,
then AEC3. `half_duplex`: while the far end talks the microphone is turned down.

*The cone.* A loudspeaker driven too far adds to a sound what no linear filter can make of it, most
of it the sound's square and cube: so these are given to the filter as two more loudspeakers, and it
learns for each the way to the microphone. Where the loudspeaker is good a filter of the sound alone
leaves as little for 40 % of the cost: in each call's first seconds both are tried.

*The gate.* Before the filter has learned a room, or when the room has changed, there is much left
of the echo. How much the level falls in the filter while only the far end talks is followed (the
`leak`); as long as that is little, sound that falls about as much is nothing but echo and is turned
down; when it falls clearly less for three frames a visitor talks too, and for a second everything
passes. Once the filter does well the gate stays open.

*Rest.* Half of a talk the far end listens. Then there is nothing to take away and nothing to learn,
and the filter, three quarters of the cost, is left out.
"""

import ctypes
import math
from array import array
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

import msgspec

from doorstation.errors import DoorstationError
from doorstation.media import speexdsp
from doorstation.media.delay import SURE, DelayFinder
from doorstation.media.pcm import audioop, crossfade, dbfs
from doorstation.media.reference import Drift, Reference

Mode = Literal["speex", "aec3", "cascade", "half_duplex", "off"]

TAIL: Final = 0.2
"""Seconds of echo that the filter covers. A porch rings for less; in a hall of hard walls 0.13 took
24 dB away, these take 30 for a sixth more CPU (docs/audio.md)."""

_NOISE_SUPPRESS: Final = -20
_ECHO_SUPPRESS: Final = -55
_ECHO_SUPPRESS_ACTIVE: Final = -10

FAR_TALKS: Final = 100
"""RMS of a reference frame that makes audible echo (-50 dBFS)."""

_UNHEARD: Final = 32
"""RMS of a reference frame whose echo nobody hears (-60 dBFS); the silence of A-law is 8."""

_RESTS_AFTER: Final = 50
"""Ticks without a reference after which the filter is left out: a second, several times what it
holds. Pauses between two words are not worth what the changes there and back cost."""

_TRIAL: Final = 400
"""Ticks in which the far end talks, of a call's beginning, while both filters run."""

_JUDGED: Final = 200
"""The last of them, by when both have learned."""

_WORTH: Final = 0.25
"""dB less that a filter with the cone's sounds has to leave, on the average of all ticks: not much,
as a visitor may talk in most of them. With a good loudspeaker it leaves 0.7 dB more."""

_ERLE_FRAMES: Final = 250
"""Echo is judged over five seconds of the far end's talk, once it was found at all: what a street
drowns is none; the best five count: nobody knows when the visitor talked too."""

_LOUDER: Final = 1.4
"""Times the microphone's RMS that a filter may leave; one that leaves more adds, and takes nothing
away, until it leaves less than that."""

_LOOK_TICKS: Final = 50
"""Ticks in which the far end talked between two looks at the impulse response."""

# The gate, in dB and ticks. Tried on speech in rooms: docs/audio.md.
_CLOSED: Final = -24.0
_LEAST_LEAK: Final = -22.0
_MOST_LEAK: Final = -7.0
_ABOVE: Final = 6.0
_VISITOR: Final = 3
_HOLD: Final = 50
_RINGS: Final = 6
_FALL: Final = 1.5
_INAUDIBLE: Final = 8
_LEARNED: Final = -14.0
"""A filter that leaves less than this needs no gate,"""

_FORGOTTEN: Final = -8.0
"""until it leaves as much as this: another path, or a loudspeaker that no filter follows;"""

_PROVED: Final = 250
"""but not within so many ticks of the far end's talk in which it did well once: then a visitor, who
talks all the time too, is what is left."""

_SLOW: Final = 0.998
"""Of what is remembered from tick to tick: ten seconds of talk."""


class HalfDuplex(msgspec.Struct, frozen=True):
    """Voice switching: above `threshold_dbfs` the far end talks, and `hold` seconds after it."""

    threshold_dbfs: float = -45.0
    hold: float = 0.25
    attenuation_db: float = 40.0


class Options(msgspec.Struct, frozen=True):
    """What the settings say."""

    mode: Mode = "speex"
    noise_suppression: bool = True
    half_duplex: HalfDuplex = HalfDuplex()


class ReferenceLate(msgspec.Struct, frozen=True):
    """The echo came before its reference: nothing is cancelled.

    `seconds` by which it was late; `or_more`: perhaps by more.
    """

    seconds: float
    or_more: bool = False


class EchoDelay(msgspec.Struct, frozen=True):
    """Measured at a call's start: seconds from the reference to its echo."""

    seconds: float


class DriftFound(msgspec.Struct, frozen=True):
    """Loudspeaker and microphone run on different clocks, and are followed from now on."""

    ppm: float


Occurrence = ReferenceLate | EchoDelay | DriftFound


class Figures(msgspec.Struct, frozen=True):
    """Measured so far; None: not known.

    `erle_db`: by how much the echo was turned down, in the best five seconds of the far end's talk;
    None also where no echo stands out of the noise.
    """

    erle_db: float | None = None
    delay_ms: float | None = None
    drift_ppm: float | None = None
    late: bool = False


class Canceller(Protocol):
    """One of the modes."""

    occurred: list[Occurrence]

    def call_began(self, lead: float) -> None:
        """A call begins; `lead`: the card's reported delay of playback, seconds."""
        ...

    def process(self, microphone: bytes, reference: bytes) -> bytes:
        """20 ms of the microphone without what it heard of the loudspeaker; same length."""
        ...

    def figures(self) -> Figures:
        """A snapshot; may be taken from another thread."""
        ...

    def close(self) -> None:
        """Free what the libraries hold; may be called twice."""
        ...


def make(options: Options, rate: int) -> Canceller:
    """The canceller that the settings ask for, at `rate` Hz.

    Raises DoorstationError naming the package that is missing.
    """
    match options.mode:
        case "speex":
            return Speex(rate, noise_suppression=options.noise_suppression)
        case "aec3":
            return Aec3(rate, noise_suppression=options.noise_suppression)
        case "cascade":
            return Cascade(rate, noise_suppression=options.noise_suppression)
        case "half_duplex":
            return VoiceSwitched(rate, options)
        case "off":
            return Plain(rate, noise_suppression=options.noise_suppression)


def _bent(power: int, scale: float) -> bytes:
    """x -> scale * x ** power, full scale 1, as a table from mu-law to mu-law."""
    octets = audioop.ulaw2lin(bytes(range(256)), 2)
    curve = array("h")
    for sample in array("h", octets):
        value = round(32768 * scale * (sample / 32768) ** power)
        curve.append(max(-32768, min(value, 32767)))
    return audioop.lin2ulaw(curve.tobytes(), 2)


class Bend:
    """What a loudspeaker's cone adds to a sound when it is driven too far: its square or cube.

    By a table from mu-law to mu-law, all in C: 38 dB of precision for what is 13 dB below the
    sound itself. The part that is a mere copy of the sound is taken out, or the filter could
    not tell both apart.
    """

    def __init__(self, power: int, scale: float) -> None:
        self._table = _bent(power, scale)
        self._copied = 0.0
        self._heard = 1.0

    def process(self, pcm: bytes, rms: int) -> bytes:
        """As many samples."""
        bent = audioop.ulaw2lin(audioop.lin2ulaw(pcm, 2).translate(self._table), 2)
        if rms > FAR_TALKS:
            weight = float(rms * rms)
            self._copied = _SLOW * self._copied + weight * audioop.findfactor(bent, pcm)
            self._heard = _SLOW * self._heard + weight
        return audioop.add(bent, audioop.mul(pcm, 2, -self._copied / self._heard), 2)


class Filter:
    """libspeexdsp's adaptive filter, from the loudspeaker's sound and what its cone made of it."""

    def __init__(self, rate: int, *, bends: bool = True) -> None:
        """`bends`: whether the cone adds anything."""
        self._speex = speexdsp.library()
        self._frames = frames = rate // 50
        self._bends = (Bend(3, 8.0), Bend(2, 3.0)) if bends else ()
        speakers = 1 + len(self._bends)
        self.state: int | None = self._speex.speex_echo_state_init_mc(
            frames, round(TAIL * rate), 1, speakers
        )
        number = ctypes.c_int(rate)
        self._speex.speex_echo_ctl(
            self.state, speexdsp.ECHO_SET_SAMPLING_RATE, ctypes.byref(number)
        )
        self._speex.speex_echo_ctl(
            self.state, speexdsp.ECHO_GET_IMPULSE_RESPONSE_SIZE, ctypes.byref(number)
        )
        self._response = (ctypes.c_int32 * number.value)()
        self._input = array("h", bytes(2 * frames * speakers))
        self._output = ctypes.create_string_buffer(2 * frames)
        self._astray = False

    def process(self, microphone: bytes, reference: bytes) -> bytes:
        """Both exactly 20 ms: the library reads so much, whatever it is given.

        A steady tone in the reference can lead the filter astray: then the microphone as it is.
        """
        size = 2 * self._frames
        if len(microphone) != size or len(reference) != size:
            raise ValueError(
                f"{len(microphone)} and {len(reference)} bytes for an echo filter, {size} needed"
            )
        if self._bends:
            reference = self._with_bends(reference)
        self._speex.speex_echo_cancellation(self.state, microphone, reference, self._output)
        left = self._output.raw
        heard, rms = audioop.rms(microphone, 2), audioop.rms(left, 2)
        was_astray = self._astray
        self._astray = rms > heard * (1.0 if was_astray else _LOUDER) + _UNHEARD
        if self._astray:
            as_loud = audioop.mul(left, 2, heard / rms)
            return microphone if was_astray else crossfade(as_loud, microphone)
        return crossfade(microphone, left) if was_astray else left

    def _with_bends(self, reference: bytes) -> bytes:
        rms = audioop.rms(reference, 2)
        speakers = 1 + len(self._bends)
        together = self._input
        together[0::speakers] = array("h", reference)
        for place, bend in enumerate(self._bends, 1):
            together[place::speakers] = array("h", bend.process(reference, rms))
        return together.tobytes()

    def response(self) -> list[int]:
        """The impulse response from reference to microphone that it has learned: 40 ms of it."""
        self._speex.speex_echo_ctl(
            self.state, speexdsp.ECHO_GET_IMPULSE_RESPONSE, ctypes.byref(self._response)
        )
        # The library lists, for each 20 ms, one loudspeaker after the other.
        step = (1 + len(self._bends)) * self._frames
        return self._response[: self._frames] + self._response[step : step + self._frames]

    def close(self) -> None:
        """May be called twice."""
        state, self.state = self.state, None
        if state is not None:
            self._speex.speex_echo_state_destroy(state)


class Preprocessor:
    """libspeexdsp's noise suppression; with a filter's state, of its residual echo too.

    Its output is 20 ms late.
    """

    def __init__(self, rate: int, *, noise: bool, echo: Filter | None = None) -> None:
        self._speex = speexdsp.library()
        frames = rate // 50
        self._state: int | None = self._speex.speex_preprocess_state_init(frames, rate)
        for request, value in (
            (speexdsp.PREPROCESS_SET_DENOISE, 1),
            # Denoising carries the suppression of echo; with 0 it does nothing else.
            (speexdsp.PREPROCESS_SET_NOISE_SUPPRESS, _NOISE_SUPPRESS if noise else 0),
            (speexdsp.PREPROCESS_SET_ECHO_SUPPRESS, _ECHO_SUPPRESS),
            (speexdsp.PREPROCESS_SET_ECHO_SUPPRESS_ACTIVE, _ECHO_SUPPRESS_ACTIVE),
        ):
            number = ctypes.c_int(value)
            self._speex.speex_preprocess_ctl(self._state, request, ctypes.byref(number))
        if echo is not None:
            self.follow(echo)
        self._buffer = ctypes.create_string_buffer(2 * frames)

    def follow(self, echo: Filter | None) -> None:
        """Suppress what this filter leaves of the echo, from now on; None: there is no echo."""
        self._speex.speex_preprocess_ctl(
            self._state,
            speexdsp.PREPROCESS_SET_ECHO_STATE,
            None if echo is None else echo.state,
        )

    def process(self, pcm: bytes) -> bytes:
        """Exactly 20 ms."""
        self._buffer.raw = pcm
        self._speex.speex_preprocess_run(self._state, self._buffer)
        return self._buffer.raw

    def close(self) -> None:
        """May be called twice."""
        state, self._state = self._state, None
        if state is not None:
            self._speex.speex_preprocess_state_destroy(state)


class Gate:
    """Turns down what holds nothing but the rest of the echo; see the module's text."""

    def __init__(self, rate: int) -> None:
        self._piece = rate // 50 // 8 * 2
        self._leak_db = _MOST_LEAK
        self._heard_db = 0.0
        self._visitor_frames = 0
        self._learned = False
        self._unproved_ticks = 0
        self._open_ticks = 0
        self._far_ticks = 0
        self._gain_db = 0.0

    @property
    def open(self) -> bool:
        """Whether the next frame passes."""
        return self._open_ticks > 0 or self._learned

    def decide(self, heard: int, left: int, far: int) -> None:
        """RMS of the microphone, of what the filter left of it, and of the reference."""
        heard_db, left_db = _db(heard), _db(left)
        # Reverberation that the filter does not cover is measured against the sound that made it.
        self._heard_db = max(heard_db, self._heard_db - _FALL)
        if far > FAR_TALKS:
            self._far_ticks = _RINGS
        elif self._far_ticks:
            self._far_ticks -= 1
        if not self._far_ticks or heard < _INAUDIBLE:
            self._open_ticks = max(self._open_ticks, 1)
            return
        self._unproved_ticks = 0 if left_db - heard_db < _LEARNED else self._unproved_ticks + 1
        above = left_db - self._heard_db - self._leak_db
        if above > _ABOVE:
            self._visitor_frames = min(self._visitor_frames + 1, 2 * _VISITOR)
            if self._visitor_frames >= _VISITOR:
                self._open_ticks = _HOLD
            self._leak_db += 0.01
        else:
            self._visitor_frames = max(0, self._visitor_frames - 1)
            # Unequal steps settle where five frames of eight leave less.
            self._leak_db += 0.25 if above > 0 else -0.15
            if self._open_ticks:
                self._open_ticks -= 1
        self._leak_db = min(max(self._leak_db, _LEAST_LEAK), _MOST_LEAK)
        if self._leak_db < _LEARNED:
            self._learned = True
        elif self._leak_db > _FORGOTTEN and self._unproved_ticks > _PROVED:
            self._learned = False

    def process(self, pcm: bytes) -> bytes:
        """20 ms with the decision applied: opens within 5 ms, closes within 20 ms."""
        target = 0.0 if self.open else _CLOSED
        gain = self._gain_db
        if gain == target == 0.0:
            return pcm
        pieces: list[bytes] = []
        size = self._piece
        for start in range(0, len(pcm), size):
            gain = min(target, gain + 12.0) if target > gain else max(target, gain - 3.0)
            pieces.append(audioop.mul(pcm[start : start + size], 2, 10.0 ** (gain / 20.0)))
        self._gain_db = gain
        return b"".join(pieces)


def _db(rms: int) -> float:
    return 20.0 * math.log10(rms) if rms > 1 else 0.0


class Watched:
    """What every mode measures alike: the delay at a call's start, and what is left of the echo."""

    def __init__(self, rate: int) -> None:
        self.occurred: list[Occurrence] = []
        self._rate = rate
        self._reference = Reference(rate)
        self._finder: DelayFinder | None = DelayFinder(rate)
        self._delay: float | None = None
        self._late = False
        self._far_frames = 0
        self._heard = 0
        self._sent = 0
        self._erle_db: float | None = None

    def call_began(self, lead: float) -> None:
        """The delay is measured again: the card may have been opened again."""
        self._reference.align(lead)
        self._finder = DelayFinder(self._rate)
        self._late = False
        self._erle_db = None

    def process(self, microphone: bytes, reference: bytes) -> bytes:
        """See `Canceller`."""
        if self._finder is not None:
            self._verify(self._finder.take(microphone, reference))
        aligned = self._reference.next(reference)
        far = audioop.rms(aligned, 2)
        clean = self._clean(microphone, aligned, far)
        if far > FAR_TALKS and self._finder is None:
            self._measure(audioop.rms(microphone, 2), audioop.rms(clean, 2))
        return clean

    def _clean(self, microphone: bytes, reference: bytes, far: int) -> bytes:
        raise NotImplementedError

    def _verify(self, delay: float | None) -> None:
        """The card's report was taken on trust: what is heard decides."""
        if delay is None:
            return
        self._finder = None
        self._delay = delay
        if delay < 0.0:
            self._late = True
            self.occurred.append(ReferenceLate(-max(delay, SURE), delay < SURE))
        else:
            self.occurred.append(EchoDelay(delay))
        if delay < self._reference.delay + 0.001:
            self._reference.align(delay)

    def _measure(self, heard: int, sent: int) -> None:
        self._heard += heard * heard
        self._sent += sent * sent
        self._far_frames += 1
        if self._far_frames == _ERLE_FRAMES:
            erle_db = 10.0 * math.log10((self._heard + 1) / (self._sent + 1))
            self._erle_db = max(self._erle_db or erle_db, erle_db)
            self._far_frames = self._heard = self._sent = 0

    @property
    def _ppm(self) -> float | None:
        return None

    def figures(self) -> Figures:
        """See `Canceller`."""
        return Figures(
            erle_db=None if self._erle_db is None else round(self._erle_db, 1),
            delay_ms=None if self._delay is None else round(self._delay * 1000, 1),
            drift_ppm=None if self._ppm is None else round(self._ppm, 1),
            late=self._late,
        )

    def close(self) -> None:
        """See `Canceller`."""


class Plain(Watched):
    """Nothing is cancelled; noise may be suppressed."""

    def __init__(self, rate: int, *, noise_suppression: bool = True) -> None:
        super().__init__(rate)
        self._preprocessor = Preprocessor(rate, noise=True) if noise_suppression else None

    def _clean(self, microphone: bytes, reference: bytes, far: int) -> bytes:
        return self._preprocessor.process(microphone) if self._preprocessor else microphone

    def close(self) -> None:
        """See `Canceller`."""
        if self._preprocessor is not None:
            self._preprocessor.close()


class VoiceSwitched(Plain):
    """One at a time: the microphone is turned down while the far end talks, and shortly after."""

    def __init__(self, rate: int, options: Options) -> None:
        super().__init__(rate, noise_suppression=options.noise_suppression)
        self._threshold_dbfs = options.half_duplex.threshold_dbfs
        self._hold_ticks = round(options.half_duplex.hold * 50)
        self._gain = 10.0 ** (-options.half_duplex.attenuation_db / 20.0)
        self._ticks_left = 0
        self._before = 1.0

    def _clean(self, microphone: bytes, reference: bytes, far: int) -> bytes:
        if dbfs(far) > self._threshold_dbfs:
            self._ticks_left = self._hold_ticks + 1
        elif self._ticks_left:
            self._ticks_left -= 1
        clean = super()._clean(microphone, reference, far)
        before, self._before = self._before, self._gain if self._ticks_left else 1.0
        if before == self._before:
            return clean if before == 1.0 else audioop.mul(clean, 2, before)
        return crossfade(audioop.mul(clean, 2, before), audioop.mul(clean, 2, self._before))


class Speex(Watched):
    """The standard mode."""

    def __init__(self, rate: int, *, noise_suppression: bool = True) -> None:
        super().__init__(rate)
        self._bent = self._filter = Filter(rate)
        self._straight = self._other = Filter(rate, bends=False)
        self._trial_ticks = _TRIAL
        self._saved_db = 0.0
        self._preprocessor = Preprocessor(rate, noise=noise_suppression, echo=self._filter)
        self._gate = Gate(rate)
        self._drift = DriftWatch(rate, self._filter, self._reference, self.occurred.append)
        self._before = self._silence = self._voltage = bytes(2 * (rate // 50))
        self._quiet_ticks = 0
        self._rests = False

    def _clean(self, microphone: bytes, reference: bytes, far: int) -> bytes:
        left = self._filtered(microphone, reference, far)
        clean = self._preprocessor.process(left)
        self._drift.tick(far)
        self._gate.decide(audioop.rms(microphone, 2), audioop.rms(left, 2), far)
        return self._gate.process(clean)

    def call_began(self, lead: float) -> None:
        """See `Canceller`."""
        super().call_began(lead)
        self._trial_ticks = _TRIAL
        self._saved_db = 0.0

    def _filtered(self, microphone: bytes, reference: bytes, far: int) -> bytes:
        """What the filter leaves; all but a direct voltage while that rests."""
        before, self._before = self._before, microphone
        self._quiet_ticks = 0 if far > _UNHEARD else self._quiet_ticks + 1
        rested, self._rests = self._rests, self._quiet_ticks > _RESTS_AFTER
        if rested:
            unfiltered = audioop.add(microphone, self._voltage, 2)
            if self._rests:
                return unfiltered
            # It goes on from the last sample that it was given, which is an old one.
            self._filter.process(before, self._silence)
            self._preprocessor.follow(self._filter)
            return crossfade(unfiltered, self._tried(microphone, reference, far))
        left = self._tried(microphone, reference, far)
        if not self._rests:
            return left
        # The filter takes out what is not sound: it must not come and go.
        voltage = audioop.avg(left, 2) - audioop.avg(microphone, 2)
        self._voltage = audioop.bias(self._silence, 2, voltage)
        self._preprocessor.follow(None)
        return crossfade(left, audioop.add(microphone, self._voltage, 2))

    def _tried(self, microphone: bytes, reference: bytes, far: int) -> bytes:
        """What the filter leaves; the other one is judged meanwhile."""
        left = self._filter.process(microphone, reference)
        if not self._trial_ticks:
            return left
        others = self._other.process(microphone, reference)
        if far <= FAR_TALKS:
            return left
        self._trial_ticks -= 1
        if self._trial_ticks < _JUDGED:
            # In dB, so that a visitor's loud words weigh no more than the far end's.
            self._saved_db += (_db(audioop.rms(left, 2)) - _db(audioop.rms(others, 2))) / _JUDGED
        if self._trial_ticks:
            return left
        saved_by_bends = self._saved_db if self._other is self._bent else -self._saved_db
        if self._filter is (self._bent if saved_by_bends > _WORTH else self._straight):
            return left
        self._filter, self._other = self._other, self._filter
        self._preprocessor.follow(self._filter)
        self._drift.watch(self._filter)
        return crossfade(left, others)

    @property
    def _ppm(self) -> float | None:
        return self._drift.ppm

    def close(self) -> None:
        """See `Canceller`."""
        self._preprocessor.close()
        self._bent.close()
        self._straight.close()


class DriftWatch:
    """Looks at the filter once a second of the far end's talk, and has the reference follow."""

    def __init__(
        self,
        rate: int,
        echo: Filter,
        reference: Reference,
        tell: Callable[[Occurrence], None],
    ) -> None:
        self._filter = echo
        self._reference = reference
        self._tell = tell
        self._line = Drift(rate)
        self._ticks = 0
        self._far_ticks = 0
        self._told = False

    @property
    def ppm(self) -> float | None:
        """How much faster the loudspeaker's clock is."""
        return self._line.ppm

    def watch(self, echo: Filter) -> None:
        """Look at another filter from now on."""
        self._filter = echo

    def tick(self, far: int) -> None:
        """Every 20 ms, with the reference's RMS."""
        self._ticks += 1
        if far <= FAR_TALKS:
            return
        self._far_ticks += 1
        if self._far_ticks < _LOOK_TICKS:
            return
        self._far_ticks = 0
        reference = self._reference
        self._line.measured(self._filter.response(), reference.slipped, self._ticks * 0.02)
        ppm = self._line.ppm
        if ppm is None:
            return
        reference.follow(ppm)
        if reference.following and not self._told:
            self._told = True
            self._tell(DriftFound(ppm))


class Aec3(Watched):
    """WebRTC's canceller alone, with its noise suppression."""

    def __init__(self, rate: int, *, noise_suppression: bool = True) -> None:
        super().__init__(rate)
        self._processor, self._samples = _webrtc(rate, noise_suppression)

    def _clean(self, microphone: bytes, reference: bytes, far: int) -> bytes:
        out = self._processor.process(self._samples(microphone), self._samples(reference))
        clean: bytes = out.tobytes()
        return clean


class Cascade(Aec3):
    """libspeexdsp's filter, and WebRTC's canceller for what is left."""

    def __init__(self, rate: int, *, noise_suppression: bool = True) -> None:
        super().__init__(rate, noise_suppression=noise_suppression)
        self._filter = Filter(rate)
        self._drift = DriftWatch(rate, self._filter, self._reference, self.occurred.append)

    def _clean(self, microphone: bytes, reference: bytes, far: int) -> bytes:
        left = self._filter.process(microphone, reference)
        self._drift.tick(far)
        return super()._clean(left, reference, far)

    @property
    def _ppm(self) -> float | None:
        return self._drift.ppm

    def close(self) -> None:
        """See `Canceller`."""
        self._filter.close()


def _webrtc(rate: int, noise_suppression: bool) -> tuple[Any, Callable[[bytes], Any]]:
    """WebRTC's processor, and what turns bytes into the arrays that it takes."""
    try:
        # Here alone: the extra brings numpy, which costs 20 MB and start-up time.
        import numpy
        from pywebrtc_audio import AudioProcessor
    except ImportError as error:
        raise DoorstationError(
            f"WebRTC's echo canceller is missing ({error}); install doorstation[aec3], "
            'which there is for x86-64 and 64-bit ARM, or set audio.echo = "speex"'
        ) from error
    processor = AudioProcessor(
        sample_rate=rate,
        echo_cancellation=True,
        high_pass_filter=True,
        noise_suppression=noise_suppression,
    )
    return processor, lambda pcm: numpy.frombuffer(pcm, numpy.int16)
