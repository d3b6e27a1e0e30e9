"""The acoustic self-test: what a loudspeaker and a microphone are worth, measured by themselves.

    test = SelfTest()
    while not test.finished:
        play(test.tick(heard, reference))       20 ms of 16 kHz S16 each, the reference one tick old
    report = test.report()

First silence, for the noise; then a quiet sweep, and if that already comes back louder than it was
sent the test ends there; then two louder sweeps some seconds apart, and noise in syllables for the
echo canceller. Sweeps are exponential (Farina 2000): after division by the sweep's spectrum the
harmonics that a loudspeaker adds stand before the impulse response, each at its own distance, so
coupling, delay and distortion come out of one sound; and the clocks' drift is what the delay has
changed by from the first sweep to the second.
"""

import cmath
import math
from array import array
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from doorstation.media import echo
from doorstation.media.pcm import SILENCE_DBFS, audioop, dbfs

RATE: Final = 16000
FRAMES: Final = RATE // 50

_LOW_HZ: Final = 100.0
_HIGH_HZ: Final = 7000.0
_SWEEP: Final = 16000
"""Samples of a sweep: one second."""

_WINDOW: Final = 32768
"""Samples looked at: a sweep, its echo, and room before it for the harmonics."""

_QUIET_DBFS: Final = -40.0
_LOUD_DBFS: Final = -18.0
_VOICE_DBFS: Final = -20.0

# Ticks of each part. The sweeps' windows begin with the sweep and end in silence.
_SILENCE: Final = 50
_SWEEP_TICKS: Final = 103
_VOICE: Final = 500

_RATE_OF_CHANGE: Final = math.log(_HIGH_HZ / _LOW_HZ)

HOWLS_DB: Final = 6.0
"""Coupling from which a canceller cannot keep a loop with the far end's loudspeaker apart."""

MOST_COUPLING_DB: Final = -6.0
"""Echo up to there leaves the microphone room for a visitor on top of it."""

MOST_DISTORTION_DB: Final = -12.0
LEAST_ERLE_DB: Final = 25.0
MOST_NOISE_DBFS: Final = -35.0
MOST_DELAY: Final = 0.3
"""Seconds that an echo is looked for, after its sound and, where the reference is late, before."""

HEARD_DB: Final = 12.0
"""By how much a sweep must stand out of the noise to count as heard."""

LEAST_GAIN_DB: Final = -40.0
"""The settings take no less."""

_USUAL_VOLUME: Final = 80
"""Percent of a card's mixer at which most microphones and loudspeakers work."""


class Report(msgspec.Struct, frozen=True):
    """Figures and what follows from them; None: could not be measured.

    `verdict`: "good", "would howl", "too loud", "microphone broken", "loudspeaker not heard",
    "echo remains", "too noisy" or "reference late". `advice`: settings to try, by their paths.
    """

    verdict: str
    explanation: str
    noise_dbfs: float
    coupling_db: float | None = None
    delay_ms: float | None = None
    distortion_db: float | None = None
    drift_ppm: float | None = None
    erle_db: float | None = None
    clipped: bool = False
    xruns: int = 0
    """How often the card lost sound meanwhile: delay and drift are then in doubt."""
    advice: dict[str, float | str] = {}


class Pictures(msgspec.Struct, frozen=True):
    """What `--plot` draws. Decibels against milliseconds, hertz and seconds."""

    response: list[tuple[float, float]]
    spectrum: list[tuple[float, float]]
    heard: list[tuple[float, float]]
    played: list[tuple[float, float]]
    sent: list[tuple[float, float]]


def sweep(level_dbfs: float) -> bytes:
    """One second from 100 Hz to 7 kHz, faded in and out."""
    peak = 32768 * math.pow(10.0, level_dbfs / 20) * math.sqrt(2)
    out = array("h")
    scale = 2 * math.pi * _LOW_HZ / _RATE_OF_CHANGE
    for index in range(_SWEEP):
        phase = scale * (math.exp(index / _SWEEP * _RATE_OF_CHANGE) - 1.0) * _SWEEP / RATE
        fade = min(1.0, index / 400, (_SWEEP - index) / 400)
        out.append(round(peak * fade * math.sin(phase)))
    return out.tobytes()


def syllables(ticks: int) -> bytes:
    """Noise with the low-pass of a voice, louder and softer; always the same."""
    out = array("h")
    state, smooth = 12345, 0.0
    peak = 32768 * math.pow(10.0, _VOICE_DBFS / 20) * 3.0
    for index in range(ticks * FRAMES):
        state = (1103515245 * state + 12345) & 0x7FFFFFFF
        smooth += 0.35 * ((state / 0x40000000 - 1.0) - smooth)
        loud = 0.1 + 0.9 * max(0.0, math.sin(2 * math.pi * 4 * index / RATE))
        out.append(round(max(-32767.0, min(peak * smooth * loud, 32767.0))))
    return out.tobytes()


class SelfTest:
    """Plays and listens.

    `canceller` makes the one to be judged. `gain_db`: what the settings add to all that is played,
    and so to this; coupling is from before it, as the far end's voice is. `microphone_volume`: the
    card's, in percent, as far as it is known. `next_mode`: what to advise where the canceller takes
    too little; None: there is nothing better.
    """

    def __init__(
        self,
        canceller: Callable[[], echo.Canceller],
        gain_db: float = 0.0,
        microphone_volume: int | None = None,
        next_mode: echo.Mode | None = "half_duplex",
    ) -> None:
        self._canceller = canceller
        self._next_mode = next_mode
        self._gain_db = gain_db
        self._microphone_volume = microphone_volume
        loud = sweep(_LOUD_DBFS) + bytes(2 * (_SWEEP_TICKS * FRAMES - _SWEEP))
        quiet = sweep(_QUIET_DBFS) + bytes(2 * (_SWEEP_TICKS * FRAMES - _SWEEP))
        silence = bytes(2 * _SILENCE * FRAMES)
        self._script = silence + quiet + loud + syllables(_VOICE) + silence + loud + silence
        self._at = 0
        self._heard = bytearray()
        self._played = bytearray()
        self._refused = False
        self.xruns = 0
        """To be set by the owner, from the card."""

    @property
    def finished(self) -> bool:
        """Whether all was played, or the quiet sweep has said enough."""
        return self._refused or self._at >= len(self._script)

    @property
    def progress(self) -> float:
        """0 to 1."""
        return min(1.0, self._at / len(self._script))

    def tick(self, microphone: bytes, reference: bytes) -> bytes:
        """What was heard in the last 20 ms, and what was written then; what is to be played."""
        self._heard += microphone
        self._played += reference
        out = self._script[self._at : self._at + 2 * FRAMES]
        self._at += 2 * FRAMES
        if self._at == 2 * FRAMES * (_SILENCE + _SWEEP_TICKS):
            coupling = self._coupling_db(_SILENCE)
            self._refused = coupling is not None and coupling > HOWLS_DB
        return out.ljust(2 * FRAMES, b"\0")

    # Figures.

    def _piece(self, sound: bytearray, first: int, ticks: int) -> bytes:
        return bytes(sound[2 * FRAMES * first : 2 * FRAMES * (first + ticks)])

    def _noise_rms(self) -> int:
        # The first quarter of a second is the card's start.
        return audioop.rms(self._piece(self._heard, 13, _SILENCE - 14), 2)

    def _coupling_db(self, first: int) -> float | None:
        """Of the sweep from that tick on: what was heard beside what was sent; None: nothing."""
        heard = audioop.rms(self._piece(self._heard, first, _SWEEP_TICKS), 2)
        played = audioop.rms(self._script[2 * FRAMES * first :][: 2 * FRAMES * _SWEEP_TICKS], 2)
        noise = self._noise_rms()
        if heard <= noise * math.pow(10.0, HEARD_DB / 20) * 0.5 or heard < 3:
            return None
        return 10 * math.log10((heard**2 - noise**2) / played**2)

    def report(self) -> Report:
        """What was found. Raises ValueError before the test has finished."""
        if not self.finished:
            raise ValueError("the test has not finished")
        return msgspec.structs.replace(self._report(), xruns=self.xruns)

    def _report(self) -> Report:
        noise_dbfs = round(dbfs(self._noise_rms()), 1)
        if self._refused:
            coupling = self._coupling_db(_SILENCE)
            assert coupling is not None
            report = Report(
                "would howl",
                f"a quiet sweep came back {coupling:.0f} dB louder than it was sent: at this "
                "volume the door would howl, so nothing louder was played",
                noise_dbfs,
                coupling_db=round(coupling, 1),
            )
            return _turned_down(report, self._gain_db, _less(coupling))
        first = _SILENCE + _SWEEP_TICKS
        coupling = self._coupling_db(first)
        if coupling is None:
            return self._not_heard(noise_dbfs)
        figures = self._figures(first, first + _SWEEP_TICKS + _VOICE + _SILENCE)
        heard = self._piece(self._heard, first, _SWEEP_TICKS)
        return judged(
            Report(
                "good",
                "",
                noise_dbfs,
                coupling_db=round(coupling, 1),
                delay_ms=round(figures.delay * 1000, 1),
                distortion_db=round(figures.distortion_db, 1),
                drift_ppm=round(figures.drift_ppm, 1) + 0.0,  # no minus zero
                erle_db=round(self._erle_db(first + _SWEEP_TICKS, figures.delay), 1),
                clipped=audioop.max(heard, 2) > 32000,
            ),
            self._gain_db,
            self._microphone_volume,
            self._next_mode,
        )

    def _not_heard(self, noise_dbfs: float) -> Report:
        if noise_dbfs <= SILENCE_DBFS + 5:
            return Report(
                "microphone broken",
                "the microphone gives digital silence, not even its own noise: it is not "
                "connected, muted in the mixer, or another card",
                noise_dbfs,
                advice={"audio.microphone_volume": _USUAL_VOLUME},
            )
        if noise_dbfs > MOST_NOISE_DBFS:
            return _too_noisy(Report("", "", noise_dbfs), self._microphone_volume)
        return Report(
            "loudspeaker not heard",
            "the microphone works, but hears nothing of the loudspeaker: it is not connected, "
            "turned down in the mixer, or another card",
            noise_dbfs,
            advice={"audio.speaker_volume": _USUAL_VOLUME},
        )

    def _figures(self, first: int, second: int) -> "_Figures":
        one, two = self._impulse(first), self._impulse(second)
        place, later = _peak(one), _peak(two)
        seconds = (second - first) * 0.02
        return _Figures(
            delay=place / RATE,
            distortion_db=_distortion_db(one, round(place)),
            drift_ppm=(place - later) / (seconds * RATE) * 1e6,
        )

    def _impulse(self, first: int) -> list[float]:
        """Response from reference to microphone; negative times at its end."""
        played = _padded(self._piece(self._played, first, _SWEEP_TICKS))
        heard = _padded(self._piece(self._heard, first, _SWEEP_TICKS))
        return divided(heard, played)

    def _erle_db(self, first: int, delay: float) -> float:
        """What the settings' canceller makes of it, in the last three seconds of the syllables."""
        canceller = self._canceller()
        canceller.call_began(delay)
        size = 2 * FRAMES
        before = after = 0
        for tick in range(first - _SWEEP_TICKS, first + _VOICE):
            heard = bytes(self._heard[size * tick : size * (tick + 1)])
            out = canceller.process(heard, bytes(self._played[size * tick : size * (tick + 1)]))
            if tick >= first + _VOICE - 150:
                before += audioop.rms(heard, 2) ** 2
                after += audioop.rms(out, 2) ** 2
        canceller.close()
        return 10 * math.log10((before + 1) / (after + 1))

    def pictures(self) -> Pictures:
        """Of a test that has finished."""
        first = _SILENCE if self._refused else _SILENCE + _SWEEP_TICKS
        impulse = self._impulse(first)
        top = max(abs(value) for value in impulse) or 1.0
        response = [
            (index / RATE * 1000, 20 * math.log10(max(abs(impulse[index]) / top, 1e-4)))
            for index in range(-160, 2400)
        ]
        transfer = fourier(impulse[:4096])
        spectrum = []
        for band in range(24):
            low = 100 * 2 ** (band / 4)
            bins = range(round(low * 4096 / RATE), max(round(low * 1.19 * 4096 / RATE), 1) + 1)
            power = sum(abs(transfer[k]) ** 2 for k in bins) / len(bins)
            spectrum.append((low, 10 * math.log10(power + 1e-10)))
        canceller = self._canceller()
        canceller.call_began(0.0)
        levels: tuple[list[tuple[float, float]], ...] = ([], [], [])
        size = 2 * FRAMES
        for tick in range(len(self._heard) // size):
            heard = bytes(self._heard[size * tick : size * (tick + 1)])
            played = bytes(self._played[size * tick : size * (tick + 1)])
            sent = canceller.process(heard, played)
            for line, pcm in zip(levels, (heard, played, sent), strict=True):
                line.append((tick * 0.02, max(dbfs(audioop.rms(pcm, 2)), -90.0)))
        canceller.close()
        return Pictures(response, spectrum, *levels)


class _Figures(msgspec.Struct, frozen=True):
    delay: float
    distortion_db: float
    drift_ppm: float


def _less(coupling_db: float) -> float:
    """What the gain must change by for the coupling to be where it belongs, and a bit."""
    return math.floor(MOST_COUPLING_DB - 6.0 - coupling_db)


def judged(
    report: Report, gain_db: float, microphone_volume: int | None, next_mode: echo.Mode | None
) -> Report:
    """The verdict on a test in which the loudspeaker was heard: the worst fault first."""
    coupling = report.coupling_db or 0.0
    verdict, explanation = "good", "loudspeaker, microphone and canceller get along"
    advice: dict[str, float | str] = {}
    change_db = 0.0
    if report.delay_ms is not None and report.delay_ms < 0:
        verdict = "reference late"
        explanation = (
            "the microphone hears a sound before the card says that it was played; "
            "another device name of the same card may do better"
        )
    elif coupling > HOWLS_DB:
        verdict = "would howl"
        explanation = f"the echo is {coupling:.0f} dB louder than what is played"
        change_db = _less(coupling)
    elif report.clipped or coupling > MOST_COUPLING_DB or _distorts(report):
        verdict = "too loud"
        reasons = [
            "the microphone is driven to its limit" if report.clipped else "",
            f"the loudspeaker distorts ({report.distortion_db:.0f} dB)"
            if _distorts(report)
            else "",
            f"the echo is only {-coupling:.0f} dB below what is played"
            if coupling > MOST_COUPLING_DB
            else "",
        ]
        explanation = "; ".join(reason for reason in reasons if reason)
        change_db = min(_less(coupling), -6.0)
    elif report.noise_dbfs > MOST_NOISE_DBFS:
        return _too_noisy(report, microphone_volume)
    elif report.erle_db is not None and report.erle_db < LEAST_ERLE_DB:
        verdict = "echo remains"
        explanation = f"the canceller takes only {report.erle_db:.0f} dB of the echo away"
        if next_mode is not None:
            advice["audio.echo"] = next_mode
        change_db = -6.0
    report = msgspec.structs.replace(
        report, verdict=verdict, explanation=explanation, advice=advice
    )
    return _turned_down(report, gain_db, change_db)


def _turned_down(report: Report, gain_db: float, change_db: float) -> Report:
    """With the gain to set; where that cannot be, with the least one and the rest in words."""
    wanted, explanation = gain_db + change_db, report.explanation
    if wanted < LEAST_GAIN_DB:
        explanation += (
            f"; it has to be {-change_db:.0f} dB quieter, more than audio.speaker_gain can: "
            "turn the card's own volume (audio.speaker_volume) or its amplifier down"
        )
        wanted = LEAST_GAIN_DB
    advice = report.advice if wanted == gain_db else report.advice | {"audio.speaker_gain": wanted}
    return msgspec.structs.replace(report, explanation=explanation, advice=advice)


def _too_noisy(report: Report, microphone_volume: int | None) -> Report:
    # Not microphone_gain: that comes after the place where this was measured.
    volume = _USUAL_VOLUME if microphone_volume is None else microphone_volume
    return msgspec.structs.replace(
        report,
        verdict="too noisy",
        explanation="with nobody talking the microphone is as loud as a voice",
        advice={"audio.microphone_volume": volume // 2},
    )


def _distorts(report: Report) -> bool:
    return report.distortion_db is not None and report.distortion_db > MOST_DISTORTION_DB


# Mathematics on a few thousand points, for a command that somebody waits for anyway.


def _padded(pcm: bytes) -> list[complex]:
    samples: list[complex] = [complex(sample) for sample in array("h", pcm)]
    fade = 200
    for index in range(fade):
        samples[-1 - index] *= index / fade
    return samples[:_WINDOW] + [0j] * (_WINDOW - len(samples))


def fourier(samples: Sequence[complex]) -> list[complex]:
    """The discrete Fourier transform of 2 ** n samples."""
    count = len(samples)
    if count == 1:
        return list(samples)
    even, odd = fourier(samples[0::2]), fourier(samples[1::2])
    half = count // 2
    step = -2j * math.pi / count
    turned = [cmath.exp(step * k) * value for k, value in enumerate(odd)]
    return [a + b for a, b in zip(even, turned, strict=True)] + [
        even[k] - turned[k] for k in range(half)
    ]


def divided(heard: Sequence[complex], played: Sequence[complex]) -> list[float]:
    """The impulse response that makes `heard` of `played`, where `played` has power."""
    ours, theirs = fourier(played), fourier(heard)
    least = max(abs(value) ** 2 for value in ours) * 1e-4
    ratio = [b * a.conjugate() / (abs(a) ** 2 + least) for a, b in zip(ours, theirs, strict=True)]
    # The inverse transform by the forward one.
    back = fourier([value.conjugate() for value in ratio])
    return [value.real / len(back) for value in back]


def _peak(impulse: Sequence[float]) -> float:
    """Place of the strongest sample, between samples; negative in the second half."""
    count = len(impulse)
    reach = range(-round(MOST_DELAY * RATE), round(MOST_DELAY * RATE))
    best = max(reach, key=lambda index: abs(impulse[index]))
    left, top, right = (abs(impulse[(best + k) % count]) for k in (-1, 0, 1))
    bend = left - 2 * top + right
    return best + (0.5 * (left - right) / bend if bend else 0.0)


def _distortion_db(impulse: Sequence[float], place: int) -> float:
    """Second and third harmonic beside the sound itself, what stands between them taken off."""
    count = len(impulse)

    def power(first: int, length: int) -> float:
        return sum(impulse[(first + k) % count] ** 2 for k in range(length))

    length = round(0.06 * RATE)
    spacing = _SWEEP / _RATE_OF_CHANGE
    itself = power(place - 16, length)
    between = power(place - round(0.09 * RATE), length)
    harmonics = sum(power(place - round(spacing * math.log(n)) - 16, length) for n in (2, 3))
    return 10 * math.log10(max(harmonics - 2 * between, itself * 1e-7) / (itself + 1e-12))
