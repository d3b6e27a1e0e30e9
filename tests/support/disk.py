"""A disk that forgets what was not synced, and loses its power at any call."""

import errno
import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class PowerCut(BaseException):
    """Nothing of the program runs on: no handler of its own may see this."""


@dataclass
class _Content:
    """What a file holds: on the platter, and what the cache has not written yet."""

    durable: bytes = b""
    now: bytes = b""
    pending: list[bytes] = field(default_factory=list)
    """Every content since the last sync, in order."""

    def becomes(self, data: bytes) -> None:
        self.now = data
        self.pending.append(data)

    def synced(self) -> None:
        self.durable, self.pending = self.now, []

    def after_cut(self, chance: random.Random) -> bytes:
        """Any moment since the last sync; perhaps with a last write that is torn or still zeros."""
        steps = [self.durable, *self.pending]
        last = chance.randrange(len(steps))
        data, before = steps[last], steps[max(0, last - 1)]
        if last and len(data) > len(before) and chance.random() < 0.5:
            grown = len(before) + chance.randrange(len(data) - len(before) + 1)
            rest = bytes(len(data) - grown) if chance.random() < 0.5 else b""
            return data[:grown] + rest
        return data


class Disk:
    """One folder, as `doorstation.store.files.Files`.

    `cut_at`: the call that the power does not outlive. `full_after`: bytes that still fit.
    `broken`: every call that writes fails.
    """

    def __init__(self, cut_at: int | None = None) -> None:
        self.calls = 0
        self.cut_at = cut_at
        self.full_after: int | None = None
        self.broken = 0
        self._names: dict[str, _Content] = {}
        self._durable: dict[str, _Content] = {}
        self._open: dict[int, _Content] = {}

    def after_cut(self, chance: random.Random) -> "Disk":
        """What is there when the power is back."""
        disk = Disk()
        for name in sorted(self._names.keys() | self._durable.keys()):
            content = chance.choice((self._names.get(name), self._durable.get(name)))
            if content is not None:
                data = content.after_cut(chance)
                disk._names[name] = disk._durable[name] = _Content(data, data)
        return disk

    def spoil(self, name: str, data: bytes) -> None:
        """Somebody changes a file behind the program's back."""
        self._names[name] = self._durable[name] = _Content(data, data)

    # The calls.

    def read(self, name: str) -> bytes:
        self._call()
        return self._find(name).now

    def names(self) -> list[str]:
        self._call()
        return list(self._names)

    def create(self, name: str) -> int:
        self._call(writes=True)
        content = self._names.setdefault(name, _Content())
        content.becomes(b"")
        return self._opened(content)

    def extend(self, name: str) -> int:
        self._call(writes=True)
        return self._opened(self._names.setdefault(name, _Content()))

    def write(self, file: int, data: bytes) -> int:
        content = self._open[file]
        if self.full_after is not None:
            data = data[: self.full_after]
            self.full_after -= len(data)
            if not data:
                raise OSError(errno.ENOSPC, "No space left on device")
        if self.cut_at == self.calls:
            content.becomes(content.now + data)  # some of it may be on the way already
        self._call(writes=True)
        content.becomes(content.now + data)
        return len(data)

    def cut(self, file: int, size: int) -> None:
        self._call(writes=True)
        content = self._open[file]
        content.becomes(content.now[:size])

    def sync(self, file: int) -> None:
        self._call(writes=True)
        self._open[file].synced()

    def close(self, file: int) -> None:
        self._call()
        del self._open[file]

    def rename(self, old: str, new: str) -> None:
        self._call(writes=True)
        self._names[new] = self._find(old)
        del self._names[old]

    def remove(self, name: str) -> None:
        self._call(writes=True)
        self._find(name)
        del self._names[name]

    def sync_names(self) -> None:
        self._call(writes=True)
        self._durable = dict(self._names)

    def path(self, name: str) -> Path:
        return Path("/nowhere", name)

    def _opened(self, content: _Content) -> int:
        number = self.calls
        self._open[number] = content
        return number

    def _find(self, name: str) -> _Content:
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        return self._names[name]

    def _call(self, writes: bool = False) -> None:
        self.calls += 1
        if self.cut_at is not None and self.calls > self.cut_at:
            raise PowerCut
        if writes and self.broken:
            raise OSError(self.broken, "Read-only file system")


class Inline(Executor):
    """The disk's thread without a thread, for virtual time."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done
