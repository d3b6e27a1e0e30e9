"""The calls on one folder that the stores are made of, each of them one call to the system.

They are few and named so that a test can put a disk in their place that forgets what was not
synced, and cut the power at every one of them.
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Protocol

from doorstation.errors import StoreError


class Files(Protocol):
    """One folder. Names have no folder in them; every call may raise OSError."""

    def read(self, name: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""
        ...

    def names(self) -> list[str]: ...

    def create(self, name: str) -> int:
        """Open to write from the beginning, empty, made if it is not there."""
        ...

    def extend(self, name: str) -> int:
        """Open to write at the end, made if it is not there."""
        ...

    def write(self, file: int, data: bytes) -> int:
        """How many bytes were taken: a full disk may take some."""
        ...

    def cut(self, file: int, size: int) -> None: ...

    def sync(self, file: int) -> None: ...

    def close(self, file: int) -> None: ...

    def rename(self, old: str, new: str) -> None: ...

    def remove(self, name: str) -> None: ...

    def sync_names(self) -> None:
        """Until then the folder may forget what was made, renamed and removed."""
        ...

    def path(self, name: str) -> Path:
        """Where a file lies, for a library that opens it by itself."""
        ...


class Folder:
    """A folder of the real disk, readable by the service alone."""

    def __init__(self, path: Path | str, *, look: bool = False) -> None:
        """Raises StoreError when it cannot be made or is not ours.

        `look`: it is not made, and root may look at another's, but write nothing: what root makes
        there its owner could not read.
        """
        try:
            if not look:
                Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            found = os.fstat(self._folder)
            self._ours = found.st_uid == os.geteuid()
            if not self._ours and not (look and os.geteuid() == 0):
                raise StoreError(f"{path}: belongs to another user ({found.st_uid})")
            if self._ours and found.st_mode & 0o077:
                os.fchmod(self._folder, 0o700)
            self._path = Path(path)
            with contextlib.suppress(OSError):
                fcntl.flock(self._folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or error}") from error

    def __del__(self) -> None:
        # Who looks for old recordings opens one each time, on a broken disk once a minute.
        with contextlib.suppress(AttributeError):
            os.close(self._folder)

    def claim(self) -> None:
        """Make sure that nobody else has the folder open. Raises StoreError."""
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(f"{self._path}: a station runs with it; ask that one") from error

    def read(self, name: str) -> bytes:
        with open(self._open(name, os.O_RDONLY), "rb") as file:
            return file.read()

    def names(self) -> list[str]:
        return os.listdir(self._folder)

    def create(self, name: str) -> int:
        return self._open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def extend(self, name: str) -> int:
        return self._open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, file: int, data: bytes) -> int:
        return os.write(file, data)

    def cut(self, file: int, size: int) -> None:
        os.ftruncate(file, size)

    def sync(self, file: int) -> None:
        os.fsync(file)

    def close(self, file: int) -> None:
        os.close(file)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self._folder)

    def sync_names(self) -> None:
        os.fsync(self._folder)

    def path(self, name: str) -> Path:
        return self._path / name

    def _open(self, name: str, flags: int) -> int:
        # No following: a link laid here by another would have us write somewhere else.
        if not self._ours and flags != os.O_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(name, flags, 0o600, dir_fd=self._folder)


def write_all(files: Files, file: int, data: bytes) -> None:
    """Write every byte. Raises OSError when the disk is full."""
    while data:
        written = files.write(file, data)
        if written <= 0:
            raise OSError(28, "No space left on device")
        data = data[written:]


def replace_file(files: Files, name: str, data: bytes) -> None:
    """Put a file in the place of the one there is, on disk on return: that one or this, never half.

    Raises StoreError.
    """
    new = f"{name}.new"
    try:
        file = files.create(new)
        try:
            write_all(files, file, data)
            files.sync(file)
        finally:
            with contextlib.suppress(OSError):
                files.close(file)
        files.rename(new, name)
        files.sync_names()
    except OSError as error:
        raise StoreError(f"{name}: {error.strerror or error}") from error
