"""Simulated rooms: a loudspeaker, a visitor and a street, as the microphone hears them.

Impulse responses by the image-source method (Allen and Berkley 1979): a shoebox whose walls mirror
the source, each image later and weaker by its distance and by every wall it passed. The
loudspeaker bends what it plays (`distorted`), its clock may run at another pace (`drifting`), and
the street is pink noise. Speech: Debian's asterisk-core-sounds-en-g722 and -it-g722, 16 kHz.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from doorstation.media.g722 import G722

RATE: Final = 16000
FRAME: Final = RATE // 50
SPEED_OF_SOUND: Final = 343.0
FULL_SCALE: Final = 32768.0

Samples = np.ndarray[Any, np.dtype[np.float64]]
Point = tuple[float, float, float]

_FOLDER: Final = Path("/usr/share/asterisk/sounds")


@functools.cache
def speech(name: str, seconds: float) -> Samples:
    """So much of a recording of that package. Raises OSError naming what to install."""
    path = _FOLDER / name
    try:
        coded = path.read_bytes()
    except FileNotFoundError as error:
        raise OSError(
            f"{path} is missing: install asterisk-core-sounds-en-g722 and -it-g722"
        ) from error
    count = round(seconds * RATE)
    pcm = G722().decode(coded[: count // 2])
    return np.frombuffer(pcm, np.int16).astype(np.float64)


def woman(seconds: float) -> Samples:
    """The far end."""
    return speech("en_US_f_Allison/demo-instruct.g722", seconds)


def man(seconds: float) -> Samples:
    """The visitor."""
    return speech("it_IT_m_Carlo/demo-instruct.g722", seconds)


def at_level(samples: Samples, dbfs: float) -> Samples:
    """Scaled so that its talk, pauses left out, has that RMS."""
    power = frames(samples)
    talk = float(power[power > power.max() * 1e-3].mean())
    scaled: Samples = samples * (FULL_SCALE * 10.0 ** (dbfs / 20) / talk**0.5)
    return scaled


def frames(samples: Samples) -> Samples:
    """Power of each 20 ms."""
    whole = len(samples) // FRAME * FRAME
    power: Samples = (samples[:whole].reshape(-1, FRAME) ** 2).mean(axis=1)
    return power


@dataclass(frozen=True, slots=True)
class Room:
    """Metres; `absorption` is the share of the power that each wall takes."""

    size: Point
    absorption: float
    loudspeaker: Point
    microphone: Point
    visitor: Point


# Ten centimetres apart in one wall of the porch; the visitor stands before them.
PORCH: Final = Room((2.6, 3.2, 2.5), 0.35, (1.3, 0.05, 1.4), (1.3, 0.05, 1.5), (1.3, 0.6, 1.6))
HALL: Final = Room((4.0, 6.0, 3.0), 0.15, (2.0, 0.05, 1.4), (2.0, 0.05, 1.5), (2.0, 0.6, 1.6))
# A hand before the loudspeaker: the direct sound goes around it, another wall is near.
HAND: Final = Room((2.6, 3.2, 2.5), 0.5, (1.3, 0.09, 1.38), (1.31, 0.05, 1.5), (1.3, 0.6, 1.6))


@functools.cache
def response(room: Room, source: Point, seconds: float = 0.25) -> Samples:
    """From `source` to the microphone."""
    length = round(seconds * RATE)
    out = np.zeros(length + 32)
    reflection = np.sqrt(1 - room.absorption)
    reach = [int(np.ceil(seconds * SPEED_OF_SOUND / (2 * side))) for side in room.size]
    counts = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    taps = np.arange(-8, 9)
    for mirrored in np.ndindex(2, 2, 2):
        squares = np.zeros(counts[0].shape)
        walls = np.zeros(counts[0].shape)
        for axis, mirror in enumerate(mirrored):
            image = (1 - 2 * mirror) * source[axis] + 2 * counts[axis] * room.size[axis]
            squares += (image - room.microphone[axis]) ** 2
            walls += abs(counts[axis] - mirror) + abs(counts[axis])
        distance = np.sqrt(squares).ravel()
        strength = reflection ** walls.ravel() / np.maximum(distance, 0.05)
        place = distance / SPEED_OF_SOUND * RATE
        near = (place < length - 8) & (place > 8)
        whole = place[near].astype(int)
        offset = taps[None, :] - (place[near] - whole)[:, None]
        pulse = np.sinc(offset) * np.cos(np.pi * offset / 18) ** 2
        np.add.at(out, whole[:, None] + taps, strength[near][:, None] * pulse)
        # The direct sound over ten centimetres comes within the first taps.
        for one in np.flatnonzero(place <= 8):
            index = int(place[one]) + taps
            valid = index >= 0
            bent = taps - (place[one] - int(place[one]))
            shape = np.sinc(bent) * np.cos(np.pi * bent / 18) ** 2
            out[index[valid]] += strength[one] * shape[valid]
    return out[:length]


def convolved(samples: Samples, impulse: Samples) -> Samples:
    """Of the length of `samples`."""
    size = 1 << (len(samples) + len(impulse)).bit_length()
    product = np.fft.rfft(samples, size) * np.fft.rfft(impulse, size)
    out: Samples = np.fft.irfft(product, size)[: len(samples)]
    return out


def distorted(samples: Samples, drive: float) -> Samples:
    """A small loudspeaker driven too far: it saturates, and not alike in both directions."""
    x = samples / FULL_SCALE
    return FULL_SCALE * (np.tanh(drive * x) / drive + 0.15 * drive * x * x)


def linear_limit_db(samples: Samples, bent: Samples) -> float:
    """The most that a linear filter could take away of `bent`."""
    share = (bent * samples).sum() / (samples * samples).sum()
    rest = bent - share * samples
    return float(10 * np.log10((bent**2).sum() / (rest**2).sum()))


def drifting(samples: Samples, ppm: float) -> Samples:
    """Played by a clock that is faster by so much."""
    place = np.arange(len(samples)) * (1 + ppm * 1e-6)
    whole = place.astype(int)
    part = place - whole
    padded = np.pad(samples, (16, 64))
    out = np.zeros(len(samples))
    for tap in range(-15, 17):
        weight = np.sinc(tap - part) * np.cos(np.pi * (tap - part) / 34) ** 2
        out += weight * padded[np.minimum(whole + tap + 16, len(padded) - 1)]
    return out


def street(length: int, seed: int) -> Samples:
    """Pink noise above 300 Hz' knee, of RMS 1."""
    white = np.fft.rfft(np.random.default_rng(seed).standard_normal(length))
    knee = np.sqrt(1 + (np.fft.rfftfreq(length, 1 / RATE) / 300) ** 2)
    pink: Samples = np.fft.irfft(white / knee, length)
    pink /= float((pink**2).mean()) ** 0.5
    return pink


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens at the door for `seconds`."""

    room: Room = PORCH
    seconds: float = 30.0
    drive: float = 0.0
    """Of the loudspeaker; 0: linear."""
    ppm: float = 0.0
    noise_db: float = -27.0
    """The street, beside the echo."""
    visitor_at: float | None = None
    """From when on the visitor talks, over the far end."""
    visitor_db: float = 0.0
    """The visitor's level at the microphone, beside the echo's."""
    hand_at: float | None = None
    """From when on a hand covers the loudspeaker."""


LEAD: Final = 0.04
"""Seconds from writing to sounding: a card's queue."""

_ECHO_DBFS: Final = -24.0


@dataclass(frozen=True, slots=True)
class Heard:
    """S16 of one length: what the microphone has, what was written, and the visitor alone."""

    microphone: bytes
    reference: bytes
    visitor: Samples


@functools.cache
def heard(scene: Scene) -> Heard:
    """Play a scene."""
    far = at_level(woman(scene.seconds), -22.0)
    played = distorted(far, scene.drive) if scene.drive else far
    if scene.ppm:
        played = drifting(played, scene.ppm)
    plain = convolved(far, response(scene.room, scene.room.loudspeaker))
    volume = np.sqrt((at_level(plain, _ECHO_DBFS) ** 2).mean() / (plain**2).mean())
    echo = convolved(played, response(scene.room, scene.room.loudspeaker)) * volume
    hiss = np.sqrt((echo**2).mean()) * 10 ** (scene.noise_db / 20)
    if scene.hand_at is not None:
        covered = convolved(played, response(HAND, HAND.loudspeaker)) * volume
        start = round(scene.hand_at * RATE)
        echo[start:] = covered[start:]
    late = round(LEAD * RATE)
    echo = np.concatenate([np.zeros(late), echo])[: len(far)]
    visitor = np.zeros(len(far))
    if scene.visitor_at is not None:
        start = round(scene.visitor_at * RATE)
        spoken = convolved(
            man(scene.seconds - scene.visitor_at), response(scene.room, scene.room.visitor)
        )
        spoken = at_level(spoken, _ECHO_DBFS + scene.visitor_db)
        visitor[start : start + len(spoken)] = spoken
    sum_of_all = echo + visitor + hiss * street(len(far), seed=1)
    return Heard(_s16(sum_of_all), _s16(far), visitor)


def _s16(samples: Samples) -> bytes:
    return np.clip(np.round(samples), -32768, 32767).astype(np.int16).tobytes()
