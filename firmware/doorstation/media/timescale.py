"""A little more or less time in sound that goes on, without a click and at its own pitch.

A splice leaves something out, or says it twice, and fades from the one place to the other: in a
pause anywhere, in speech where both look alike, a pitch period or several away (as in WSOLA).
"""

from typing import Final

from doorstation.media.conceal import likeness
from doorstation.media.pcm import audioop, crossfade

QUIET: Final = 60
"""RMS below which a splice is not heard: -55 dBFS."""

_ALIKE: Final = 0.8
"""Correlation, squared, at which a splice in speech is not heard."""


def spliced(sound: bytes, place: int, shift: int, overlap: int) -> bytes:
    """`sound`, from `place` on as it is `shift` bytes later: shorter, or longer if negative.

    The fade takes `overlap` bytes. All of them whole samples and within the sound.
    """
    other = place + shift
    fade = crossfade(sound[place : place + overlap], sound[other : other + overlap])
    return sound[:place] + fade + sound[other + overlap :]


def best_shift(sound: bytes, place: int, most: int, overlap: int, least: int) -> int:
    """The shift, of at least `least` and at most `most` bytes, at which the sound is most alike.

    `most` negative: backwards. 0 when nowhere it is alike enough to be spliced unheard.
    """
    sought = sound[place : place + overlap]
    if audioop.max(sought, 2) == 0:
        return most
    sign = 1 if most > 0 else -1
    shifts = range(sign * least, most + sign, sign * 2)
    if not shifts:
        return 0

    def fit(shift: int) -> float:
        return likeness(sought, sound[place + shift : place + shift + overlap])

    best = max(shifts, key=fit)
    return best if fit(best) >= _ALIKE else 0
