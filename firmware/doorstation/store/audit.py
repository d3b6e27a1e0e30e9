"""The audit log: who wanted what of the configuration, and what became of it.

One JSON line a request, each with the hash of the one before: a line that is changed or taken out
breaks the chain. The log's head names the first and the last line, so that lines taken off either
end are missed too; it is written after the line, and may be one behind when the power was cut
between. It is never ahead: the log goes on from what the head says, and the gap stays to be found.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from doorstation.errors import StoreError
from doorstation.hashes import sha256
from doorstation.store.files import Files, write_all

CHANGES: Final = "audit"
"""Name of the log of what was done."""
ASKED: Final = "asked"
"""Name of the log of who was refused or only looked: it can push nothing out of the other."""

KEPT: Final = 1000
"""Lines that stay when the log is shortened; it is shortened at twice as many."""

Field = str | int | float | bool | None | list[str]

_START: Final = "0" * 64


class _Place(msgspec.Struct, frozen=True):
    """The last line: its number and hash. `first`: number of the oldest, 0 for not known."""

    number: int = 0
    hash: str = _START
    first: int = 0


class AuditLog:
    """Appends, and never changes what is there. Used by one thread."""

    def __init__(self, files: Files, name: str = CHANGES, kept: int = KEPT) -> None:
        self._files = files
        self.lines, self.head = f"{name}.jsonl", f"{name}.head"
        self._kept = kept
        self._count = 0
        self._last: _Place | None = None
        """None: to be read first, at the start and after a fault."""

    def append(self, at: str, kind: str, fields: Mapping[str, Field]) -> None:
        """Write one line; it is on the disk when this returns. Raises StoreError."""
        assert not fields.keys() & {"number", "at", "kind", "before"}, "the log's own fields"
        try:
            last = self._last or self._find_end()
            self._last = None
            entry = {"number": last.number + 1, "at": at, "kind": kind, **fields}
            entry["before"] = last.hash
            line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode()
            first = last.first or 1
            if self._count >= 2 * self._kept:
                first = self._shorten(last)
            self._write(self._files.extend(self.lines), line + b"\n")
            self._files.sync_names()
            place = _Place(last.number + 1, _hash(line), first)
            self._write_head(place)
        except OSError as error:
            raise StoreError(f"{self.lines}: {error.strerror or error}") from error
        self._count += 1
        self._last = place

    def entries(self) -> Iterator[dict[str, Field]]:
        """Every line, the oldest first, as it was appended. Raises StoreError."""
        for line in _lines(self._data()):
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    yield entry

    def verify(self) -> str:
        """ "" if no line was changed or removed, else what is wrong and where."""
        lines = _lines(self._data())
        before = ""
        number = 0
        for line in lines:
            try:
                entry = json.loads(line)
                found, link = int(entry["number"]), str(entry["before"])
            except _NO_LINE:
                return f"the line after {number} is no line of this log"
            if number and found != number + 1:
                return f"the lines after {number} are missing, up to {found - 1}"
            if (before or (_START if found == 1 else link)) != link:
                return f"line {found - 1} was changed"
            number, before = found, _hash(line)
        head = self._head()
        if lines and head.first and (oldest := _place(lines[0])) and oldest.number > head.first:
            return f"the lines before {oldest.number} are missing, from {head.first}"
        if head.number > number:
            return f"the lines after {number} are missing, up to {head.number}"
        if head.number == number and head.number and head.hash != before:
            return f"line {number} was changed"
        return ""

    def _data(self) -> bytes:
        try:
            return self._files.read(self.lines)
        except FileNotFoundError:
            return b""

    def _head(self) -> _Place:
        try:
            return msgspec.json.decode(self._files.read(self.head), type=_Place)
        except (FileNotFoundError, ValueError):
            return _Place()

    def _find_end(self) -> _Place:
        data = self._data()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            # A line that a power cut or a full disk tore was never told to anybody as written.
            file = self._files.extend(self.lines)
            try:
                self._files.cut(file, whole)
                self._files.sync(file)
            finally:
                self._files.close(file)
        lines = _lines(data)
        self._count = len(lines)
        head = self._head()
        # A last line that somebody spoiled is for `verify` to find: the log goes on behind it.
        last = _place(lines[-1]) if lines else None
        if last is None or head.number >= last.number:
            return head
        oldest = _place(lines[0])
        first = head.first or (oldest.number if oldest is not None else 0)
        return msgspec.structs.replace(last, first=first)

    def _write_head(self, place: _Place) -> None:
        self._write(self._files.create(self.head), msgspec.json.encode(place))

    def _write(self, file: int, data: bytes) -> None:
        try:
            write_all(self._files, file, data)
            self._files.sync(file)
        finally:
            self._files.close(file)

    def _shorten(self, last: _Place) -> int:
        """Leave the last lines; the number of the oldest of them."""
        lines = _lines(self._data())[-self._kept :]
        oldest = _place(lines[0])
        first = oldest.number if oldest is not None else 0
        self._write(
            self._files.create(f"{self.lines}.new"), b"".join(line + b"\n" for line in lines)
        )
        self._write_head(msgspec.structs.replace(last, first=first))
        self._files.rename(f"{self.lines}.new", self.lines)
        self._files.sync_names()
        self._count = len(lines)
        return first


_NO_LINE: Final = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""What reading a line raises that somebody spoiled: its number may be 1e999, say."""


def _lines(data: bytes) -> list[bytes]:
    return data.rpartition(b"\n")[0].split(b"\n") if b"\n" in data else []


def _hash(line: bytes) -> str:
    return sha256(line).hexdigest()


def _place(line: bytes) -> _Place | None:
    try:
        return _Place(int(json.loads(line)["number"]), _hash(line))
    except _NO_LINE:
        return None
