"""The configuration's state on disk: two slots, written in turn, each with its checksum.

The slot that holds the newer whole state is never touched by the next write, so a power cut at any
moment leaves the old state or the new one. A slot is one line

    doorstation-state 1 GENERATION SHA256 LENGTH

and then the state as JSON. The checksum covers the generation too.
"""

import contextlib
from typing import Final

import msgspec

from doorstation.errors import StoreError
from doorstation.hashes import sha256
from doorstation.provision.state import State
from doorstation.store.files import Files, write_all

SLOTS: Final = ("state.a", "state.b")
MAX_STATE: Final = 4_000_000
"""Bytes; a state with its whole history of full layers is far below."""

_FORMAT: Final = b"doorstation-state 1"


class StateStore:
    """Reads and writes the whole state. Used by one thread."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._generation = 0
        self._next = SLOTS[0]
        self.faults: tuple[str, ...] = ()
        """What was wrong with a slot when they were read: one torn slot is what a cut leaves."""

    def read(self) -> State:
        """The last state that was written whole; a fresh one on a new disk.

        Raises StoreError when there are slots and none is whole: better no change of the
        configuration than one that forgets which counters and keys were used.
        """
        faults: list[str] = []
        best: tuple[int, str, State] | None = None
        there = 0
        for slot in SLOTS:
            try:
                data = self._files.read(slot)
            except FileNotFoundError:
                continue
            except OSError as error:
                there += 1
                faults.append(f"{slot}: {error.strerror or error}")
                continue
            there += 1
            try:
                generation, state = _read(data)
            except ValueError as fault:
                faults.append(f"{slot}: {fault}")
                continue
            if best is None or generation > best[0]:
                best = generation, slot, state
        self.faults = tuple(faults)
        if best is None:
            # One slot, torn: the very first write was cut; nothing had been kept before it.
            if there > 1:
                raise StoreError(f"no state can be read: {'; '.join(faults)}")
            return State()
        self._generation = best[0]
        self._next = SLOTS[1 - SLOTS.index(best[1])]
        return best[2]

    def write(self, state: State) -> None:
        """Keep a state; it is on the disk when this returns.

        Raises StoreError when it is not: the one before is still whole then.
        """
        data = _format(self._generation + 1, state)
        while len(data) > MAX_STATE and state.history:
            # Each past change holds the layer before it. Rather no undo that far back than nothing
            # kept any more, neither changes nor counters.
            state = msgspec.structs.replace(state, history=state.history[1:])
            data = _format(self._generation + 1, state)
        if len(data) > MAX_STATE:
            raise StoreError(f"the state has {len(data)} bytes, {MAX_STATE} are kept")
        try:
            file = self._files.create(self._next)
            try:
                write_all(self._files, file, data)
                self._files.sync(file)
            finally:
                with contextlib.suppress(OSError):
                    self._files.close(file)
            self._files.sync_names()
        except OSError as error:
            raise StoreError(f"{self._next}: {error.strerror or error}") from error
        self._generation += 1
        self._next = SLOTS[1 - SLOTS.index(self._next)]


def _format(generation: int, state: State) -> bytes:
    body = msgspec.json.encode(state)
    digest = _digest(generation, body)
    return b"%s %d %s %d\n%s" % (_FORMAT, generation, digest.encode(), len(body), body)


def _digest(generation: int, body: bytes) -> str:
    return sha256(b"%d\n%s" % (generation, body)).hexdigest()


def _read(data: bytes) -> tuple[int, State]:
    """(generation, state). Raises ValueError, saying what is wrong."""
    head, _, body = data.partition(b"\n")
    if len(data) > MAX_STATE or not head.startswith(_FORMAT + b" "):
        raise ValueError("not a state of this kind")
    fields = head[len(_FORMAT) + 1 :].split(b" ")
    if len(fields) != 3 or not all(fields[n].isdigit() for n in (0, 2)):
        raise ValueError("its first line is torn")
    generation, length = int(fields[0]), int(fields[2])
    if len(body) != length:
        raise ValueError(f"{len(body)} bytes of {length}")
    if _digest(generation, body) != fields[1].decode("ascii", "replace"):
        raise ValueError("its checksum is wrong")
    return generation, msgspec.json.decode(body, type=State)
