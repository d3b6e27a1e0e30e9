"""A card or stick that somebody put into a door without an owner.

    doorstation.json    {"fingerprint": "kPrK_qmxVWaYVA9w", "url": "https://..."}: whom to trust,
                        where to look; both may be left out
    doorstation.jws     a signed file, with the files that it names beside it; may be left out

It says nothing by being there: a file counts by its signature, wherever it comes from.
"""

import os
import stat
from pathlib import Path
from typing import Final

import msgspec

from doorstation.errors import StoreError

NOTE: Final = "doorstation.json"
SIGNED: Final = "doorstation.jws"


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody wrote for the door. `fingerprint`: kid of who may become its owner."""

    fingerprint: str = ""
    url: str = ""


class Card(msgspec.Struct, frozen=True):
    """What lies on a card. `signed`: whether a signed file is there."""

    folder: Path
    note: Note
    signed: bool

    @property
    def places(self) -> list[str]:
        """Addresses to try: the signed file, then where the note says."""
        return [*([self.signed_url] if self.signed else []), *filter(None, [self.note.url])]

    @property
    def signed_url(self) -> str:
        return (self.folder / SIGNED).absolute().as_uri()


def read_card(folder: Path) -> Card | None:
    """None if nothing for a door is there. Raises StoreError for a note that cannot be read."""
    signed = False
    try:
        signed = (folder / SIGNED).is_file()
        note = msgspec.json.decode(read_file(folder, NOTE, 4096), type=Note)
    except FileNotFoundError:
        return Card(folder, Note(), signed=True) if signed else None
    except (OSError, ValueError, msgspec.DecodeError, RecursionError) as fault:
        raise StoreError(f"{folder / NOTE}: {fault}") from None
    return Card(folder, note, signed)


def read_file(folder: Path, name: str, limit: int) -> bytes:
    """A plain file, at most one byte more than `limit` of it. Raises OSError.

    Who makes a stick may lay a link or a pipe there, so that a door reads what is not on it or
    waits for ever.
    """
    with open(os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("not a file")
        return file.read(limit + 1)
