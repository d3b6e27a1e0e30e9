"""What the panel's LED shows: one table, and the arithmetic of blinking.

Each row is the lengths in seconds of light, dark, light, dark ... and repeats; a row of one entry
is constant light and the empty row is dark. Both cost nothing, which matters for "idle": it is
shown for months.
"""

from collections.abc import Mapping
from itertools import accumulate
from typing import Final

PATTERNS: Final[Mapping[str, tuple[float, ...]]] = {
    "off": (),
    "idle": (1.0,),
    "registering": (0.1, 1.9),
    "ringing": (0.25, 0.25),
    "in_call": (1.8, 0.2),
    "door_open": (0.1, 0.1),
    "fault": (0.15, 0.15, 0.15, 1.55),
    "claimed": (1.0, 1.0),
}


def lengths(pattern: str) -> tuple[float, ...]:
    """The row of a pattern; ValueError names those that exist."""
    try:
        return PATTERNS[pattern]
    except KeyError:
        raise ValueError(f"no LED pattern {pattern!r}; there are {', '.join(PATTERNS)}") from None


def light_at(row: tuple[float, ...], elapsed: float) -> tuple[bool, float | None]:
    """Whether the LED is lit `elapsed` seconds into the pattern, and when it changes (None: never).

    The change is counted from the pattern's start, so that late wake-ups do not add up.
    """
    if len(row) < 2:
        return bool(row), None
    whole = sum(row)
    start = elapsed // whole * whole
    for index, end in enumerate(accumulate(row)):
        if elapsed < start + end:
            return index % 2 == 0, start + end
    return True, start + whole + row[0]  # rounding put `elapsed` on the very end of the row
