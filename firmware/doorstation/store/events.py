"""The event log.

One JSON object per line, appended with one write; when the file is full it is renamed to `.1`,
`.1` to `.2` and so on, and the oldest goes. A door must open with a full or broken disk too: a
fault is reported once, the events of that time are lost and counted, and writing starts again by
itself when the disk takes lines again.
"""

import contextlib
import datetime
import json
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from doorstation.errors import StoreError

log = logging.getLogger(__name__)

MAX_LINE: Final = 8192  # bytes; far more than any event of ours, far less than a log file

Scalar = str | int | float | bool | None


class EventLog:
    """Events of the door, one JSON line each, at most `files` files of about `size` bytes.

    Used by one thread. `append` never raises: `fault` says what is wrong at the moment, and the
    diagnostic log holds each change once. Lines are not synced one by one (an SD card would wear
    out); a rotation and `close` sync.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        size: int = 1_000_000,
        files: int = 5,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self.path = Path(path)
        self.lost = 0
        """Events that could not be written."""
        self._size = size
        self._files = files
        self._now = now
        self._fault = ""
        self._file: int | None = None
        self._written = 0
        self._torn = False

    @property
    def fault(self) -> str:
        """What keeps events from being written, or ""."""
        return self._fault

    def append(
        self, kind: str, fields: Mapping[str, Scalar], at: datetime.datetime | None = None
    ) -> None:
        """Write one event with its kind and when it happened (UTC; None: now)."""
        stamp = (at or self._now()).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event: dict[str, Scalar] = {"at": stamp, "kind": kind, **fields}
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        if len(line) >= MAX_LINE:
            event = {"at": stamp, "kind": kind, "too_long": len(line)}
            line = json.dumps(event, separators=(",", ":")).encode()
        try:
            self._write(line + b"\n")
        except OSError as error:
            self.lost += 1
            self._drop_file()
            self._set_fault(f"{self.path}: {error.strerror or error}")
        else:
            self._set_fault("")

    def close(self) -> None:
        """Sync and close; may be called twice. A later `append` opens the file again."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._file)
        self._drop_file()

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        file = self._file if self._file is not None else self._open()
        if self._written and self._written + len(line) > self._size:
            self._rotate(file)
            file = self._open()
        if self._torn:
            line = b"\n" + line
        written = os.write(file, line)
        self._written += written
        self._torn = written < len(line)
        if self._torn:
            raise OSError(0, f"only {written} of {len(line)} bytes written")

    def _open(self) -> int:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self.path, flags, 0o600)
        try:
            found = os.fstat(file)
            if stat.S_ISREG(found.st_mode):
                os.fchmod(file, 0o600)  # a file from before may be readable by others
            self._written = found.st_size
            # A line torn by a power cut, or by a full disk, ends here; the next begins a new one.
            self._torn = self._written > 0 and os.pread(file, 1, self._written - 1) != b"\n"
        except OSError:
            os.close(file)
            raise
        self._file = file
        return file

    def _rotate(self, file: int) -> None:
        with contextlib.suppress(OSError):
            os.fsync(file)
        self._drop_file()
        if self._files == 1:
            self.path.unlink(missing_ok=True)
            return
        for number in range(self._files - 1, 0, -1):
            older = _numbered(self.path, number)
            newer = _numbered(self.path, number - 1)
            if newer.exists():
                newer.replace(older)

    def _drop_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None

    def _set_fault(self, fault: str) -> None:
        if bool(fault) == bool(self._fault):
            return
        self._fault = fault
        if fault:
            log.warning("event log: %s; events are lost until it can be written again", fault)
        else:
            log.warning("event log: written again; %d events were lost", self.lost)


def read_events(path: Path | str) -> Iterator[dict[str, Scalar]]:
    """Events from the oldest to the newest file; torn or foreign lines are left out.

    Raises StoreError when a file exists and cannot be read.
    """
    path = Path(path)
    number = 0
    while _numbered(path, number + 1).exists():
        number += 1
    for one in range(number, -1, -1):
        yield from _read_file(_numbered(path, one))


def _read_file(path: Path) -> Iterator[dict[str, Scalar]]:
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE + 1):
                with contextlib.suppress(ValueError, RecursionError):
                    event = json.loads(line)
                    if isinstance(event, dict):
                        yield event
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path
