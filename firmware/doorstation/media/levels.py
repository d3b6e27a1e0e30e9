"""How loud: volumes, a limiter that never clips, louder with the street, an even microphone.

    speaker = Speaker(SpeakerLevels(volume_db=-6))
    period = speaker.play(far_end, tone)        all that sounds at once, mixed, never clipped
    speaker.street(rms)                         the microphone's RMS of that tick
    microphone = Microphone(MicrophoneLevels())
    pcm = microphone.process(clean, far)        far: RMS of what the loudspeaker plays

Everything is S16 mono in periods of 20 ms and costs a few microseconds of C.

*The limiter* looks at eight pieces of a period and one piece ahead: a piece too loud is turned
down to just below full scale from the piece before it on, and let go at 40 dB a second. Nothing is
delayed. What is mixed is halved first and doubled by the limiter, so a sum never clips either.
"""

import math
from typing import Final

import msgspec

from doorstation.media.pcm import SILENCE_DBFS, audioop, dbfs

CEILING: Final = 29204
"""Highest sample let through: 1 dB below full scale, since converters overshoot between samples."""

_PIECES: Final = 8

_RELEASE: Final = 10.0 ** (40.0 * 0.0025 / 20.0)
"""Gain won back per piece."""


def _factor(db: float) -> float:
    return math.pow(10.0, db / 20.0)


class Limiter:
    """Applies a gain, less of it where a sample would pass CEILING."""

    def __init__(self) -> None:
        self._held = 1.0
        """What is left of the gain asked for, at the end of the last period."""

    def process(self, pcm: bytes, gain: float = 1.0) -> bytes:
        """A period times `gain`, of the same length, no sample above CEILING."""
        if self._held == 1.0 and audioop.max(pcm, 2) * gain < CEILING:
            return pcm if gain == 1.0 else audioop.mul(pcm, 2, gain)
        size = max(2, len(pcm) // _PIECES // 2 * 2)
        pieces = [pcm[start : start + size] for start in range(0, len(pcm), size)]
        # One less than the ceiling: audioop rounds down, so negative samples away from zero.
        room = [
            min(1.0, (CEILING - 1) / max(1.0, audioop.max(piece, 2) * gain)) for piece in pieces
        ]
        held = self._held
        out: list[bytes] = []
        for index, piece in enumerate(pieces):
            held = min(1.0, held * _RELEASE, *room[index : index + 2])
            out.append(audioop.mul(piece, 2, gain * held))
        self._held = held
        return b"".join(out)


class NoiseFloor:
    """The level that is there when nobody talks: the quietest of late, in dBFS."""

    _RISE: Final = 1.5 / 50
    """dB a tick: a pause within ten seconds of talk is enough."""

    def __init__(self) -> None:
        self.dbfs = -60.0

    def take(self, rms: float) -> None:
        """A period's RMS."""
        level = max(dbfs(rms), -90.0)
        self.dbfs = min(level, self.dbfs + self._RISE)


class SpeakerLevels(msgspec.Struct, frozen=True):
    """`street_gain_db`: the most added for street noise above `street_threshold_dbfs`; 0: none."""

    volume_db: float = 0.0
    street_gain_db: float = 0.0
    street_threshold_dbfs: float = -50.0


_QUIET_TICKS: Final = 15
"""After the loudspeaker the room rings on: what is heard then is not the street."""

_STREET_STEP: Final = 0.06
"""dB a tick: 3 dB a second is not noticed."""


class Speaker:
    """All that the loudspeaker plays goes through here."""

    def __init__(self, levels: SpeakerLevels) -> None:
        self.levels = levels
        self._limiter = Limiter()
        self._floor = NoiseFloor()
        self._street_db = 0.0
        self._gain = _factor(levels.volume_db)
        self._ticks_since_loud = _QUIET_TICKS

    @property
    def gain_db(self) -> float:
        """The gain in force."""
        return self.levels.volume_db + self._street_db

    def play(self, *periods: bytes) -> bytes:
        """What sounds at once, of one length; the period for the card."""
        gain = self._gain
        if len(periods) == 1:
            pcm = periods[0]
        else:
            share = 1.0 / len(periods)
            pcm = audioop.mul(periods[0], 2, share)
            for other in periods[1:]:
                pcm = audioop.add(pcm, audioop.mul(other, 2, share), 2)
            gain *= len(periods)
        out = self._limiter.process(pcm, gain)
        if self.levels.street_gain_db:
            loud = audioop.max(out, 2) > 300
            self._ticks_since_loud = 0 if loud else self._ticks_since_loud + 1
        return out

    def street(self, rms: float) -> None:
        """The microphone's RMS of this tick: street noise, while the loudspeaker is quiet."""
        levels = self.levels
        if not levels.street_gain_db:
            return
        # Else its own echo would make the loudspeaker louder, and that the echo.
        if self._ticks_since_loud >= _QUIET_TICKS:
            self._floor.take(rms)
        over = self._floor.dbfs - levels.street_threshold_dbfs
        wanted = min(max(over, 0.0), levels.street_gain_db)
        step = wanted - self._street_db
        if step:
            self._street_db += min(max(step, -_STREET_STEP), _STREET_STEP)
            self._gain = _factor(self.gain_db)


class MicrophoneLevels(msgspec.Struct, frozen=True):
    """`gain_control`: quiet and loud visitors are brought towards one level."""

    volume_db: float = 0.0
    gain_control: bool = True


TARGET_DBFS: Final = -23.0
"""RMS of talk that a telephone expects (ITU-T P.1100: about -19 dBm0 at the line)."""

_MOST_UP: Final = 12.0
_MOST_DOWN: Final = -9.0
_NOISE_CAP_DBFS: Final = -48.0
"""Noise is not raised above this for a quiet visitor's sake."""

_TALK_ABOVE_FLOOR: Final = 12.0
_AGC_STEP: Final = 0.05
"""dB a tick: 2.5 dB a second."""

_FAR_QUIET: Final = 100
"""RMS of the loudspeaker below which the microphone hears the visitor alone."""


class Microphone:
    """What is sent goes through here, after echo and noise were taken out."""

    def __init__(self, levels: MicrophoneLevels) -> None:
        self.levels = levels
        self._limiter = Limiter()
        self._floor = NoiseFloor()
        self._talk_dbfs = SILENCE_DBFS
        self._control_db = 0.0
        self._gain = _factor(levels.volume_db)

    @property
    def gain_db(self) -> float:
        """The gain in force."""
        return self.levels.volume_db + self._control_db

    def process(self, pcm: bytes, far: int) -> bytes:
        """A period at its level; `far`: RMS of what the loudspeaker plays."""
        # It learns from the visitor alone: rest of echo must not be called quiet talk.
        if far <= _FAR_QUIET and self.levels.gain_control:
            self._control(audioop.rms(pcm, 2))
        return self._limiter.process(pcm, self._gain)

    def _control(self, rms: int) -> None:
        self._floor.take(rms)
        level = dbfs(rms)
        if level < max(self._floor.dbfs + _TALK_ABOVE_FLOOR, -55.0):
            return
        # Half-way in 0.1 s upwards and in a second downwards: the loud syllables count.
        rate = 0.15 if level > self._talk_dbfs else 0.015
        if self._talk_dbfs == SILENCE_DBFS:
            self._talk_dbfs = level
        self._talk_dbfs += rate * (level - self._talk_dbfs)
        cap = min(_MOST_UP, max(0.0, _NOISE_CAP_DBFS - self._floor.dbfs))
        wanted = min(max(TARGET_DBFS - self._talk_dbfs, _MOST_DOWN), cap)
        step = wanted - self._control_db
        if step:
            self._control_db += min(max(step, -_AGC_STEP), _AGC_STEP)
            self._gain = _factor(self.gain_db)
