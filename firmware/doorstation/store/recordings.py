"""Recordings for diagnosis on disk: `call-TIME.tar`, readable by the service alone, not for long.

While one is made it lies in two parts, which are of no use by themselves: those that a power cut
leaves are removed at the next start.
"""

import contextlib
import datetime
from collections.abc import Callable, Iterator
from typing import Final

from doorstation.store.files import Files, write_all

_TIME: Final = "call-%Y%m%dT%H%M%SZ.tar"
_PARTS: Final = ("sound.part", "packets.part")


class Recordings:
    """One folder, for one thread. Every call may raise OSError."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._open: list[int] = []
        self.size = 0
        """Bytes of the recording that is being made."""

    def begin(self, at: float) -> str:
        """Start the parts; the name that the file will have. `at`: time of day, seconds."""
        self.abandon()
        for name in _PARTS:
            self._open.append(self._files.create(name))
        self.size = 0
        return f"{datetime.datetime.fromtimestamp(at, datetime.UTC):{_TIME}}"

    def add(self, sound: bytes, packets: bytes) -> None:
        """More of both parts."""
        for file, data in zip(self._open, (sound, packets), strict=True):
            write_all(self._files, file, data)
            self.size += len(data)

    def finish(self, name: str, made_of: Callable[[bytes, bytes], Iterator[bytes]]) -> None:
        """Put the file together, of the two parts; it is there whole or not at all."""
        sound, packets = (self._files.read(part) for part in _PARTS)
        unfinished = f"{name}.part"
        file = self._files.create(unfinished)
        try:
            for piece in made_of(sound, packets):
                write_all(self._files, file, piece)
            self._files.sync(file)
        finally:
            self._files.close(file)
        self._files.rename(unfinished, name)
        self.abandon()
        self._files.sync_names()

    def abandon(self) -> None:
        """Remove what is not finished."""
        for file in self._open:
            self._files.close(file)
        self._open.clear()
        for name in self._files.names():
            if name in _PARTS or (name.endswith(".part") and _made(name.removesuffix(".part"))):
                self._files.remove(name)

    def expire(self, now: float, keep: float) -> float | None:
        """Delete what is older than `keep` seconds; when the next one will be, None for never."""
        due: float | None = None
        for name in self._files.names():
            at = _made(name)
            if at is None:
                continue
            # One from the future was made before the clock was set: it would stay for ever.
            if not now - keep < at <= now + keep:
                self._files.remove(name)
            elif due is None or at + keep < due:
                due = at + keep
        return due


def _made(name: str) -> float | None:
    with contextlib.suppress(ValueError):
        return datetime.datetime.strptime(name, _TIME).replace(tzinfo=datetime.UTC).timestamp()
    return None
