"""What the stories compare: the sound at each end with what was said at the other."""

from pathlib import Path

from tests.support.lab import eventually
from tests.support.peers import Baresip
from tests.support.sounds import likeness, read_pcm
from tests.support.station import Station

SECOND = 16000
"""Octets of a second of sound at 8 kHz."""


def heard_by(phone: Baresip, seconds: float) -> bytes:
    """What the phone hears from now on, for some seconds."""
    size = int(seconds * SECOND)
    at_first = phone.heard()
    before = {at_first: len(read_pcm(at_first))}

    def heard() -> bytes:
        file = phone.heard()  # it begins another one when a call is resumed
        pcm = read_pcm(file)[before.get(file, 0) :]
        return pcm if len(pcm) >= size else b""

    return eventually(heard, f"{seconds:g} s of sound at the phone", seconds + 10)


def both_hear(door: Station, phone: Baresip, visitor: Path, resident: Path) -> None:
    """What each side says from now on reaches the other: correlation above 0.9."""
    said = read_pcm(visitor)
    with door.listening("speaker") as speaker:
        indoors = heard_by(phone, 1.5)
        eventually(lambda: len(speaker) > 1.2 * SECOND, "sound at the door", 12)
    assert likeness(said + said, indoors) > 0.9
    assert likeness(read_pcm(resident), bytes(speaker)) > 0.9


def door_hears(door: Station, resident: Path) -> None:
    with door.listening("speaker") as speaker:
        eventually(lambda: len(speaker) > 1.5 * SECOND, "sound at the door", 12)
    assert likeness(read_pcm(resident), bytes(speaker)) > 0.9
