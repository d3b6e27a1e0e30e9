"""What a door must remember of its configuration across a power cut. Written whole, by `store`."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from doorstation.provision.layers import Difference

KEPT_ORIGINS: Final = ("provisioned", "remote")
"""Layers that are kept here; the others are read anew at each start."""

RECORDINGS: Final = "recordings"
"""Under which it is kept where recordings lie; over a reset, too: they are still to be deleted."""

HISTORY: Final = 20
"""Changes remembered, and able to be undone one after the other."""


class Past(msgspec.Struct, frozen=True):
    """One change that was tried. `at`: UTC, as RFC 3339 writes it; `how`: "message", "file", …"""

    number: int
    at: str
    by: str
    how: str
    origin: str
    differences: tuple[Difference, ...]
    before: Mapping[str, Any]
    """The layer before it, secrets in it."""
    result: str
    """ "confirmed", or "rolled back: " and why."""

    @property
    def undoable(self) -> bool:
        """Whether it was kept, and anything was different after it."""
        return self.result == "confirmed" and bool(self.differences)


class Pending(msgspec.Struct, frozen=True):
    """A change that is being tried: it stays if it is confirmed in time."""

    number: int
    at: str
    by: str
    how: str
    origin: str
    differences: tuple[Difference, ...]
    before: Mapping[str, Any]
    needs_word: bool
    """Whether somebody has to confirm it; otherwise a door that is well again is enough."""
    seconds: float
    """How long it may take."""
    then: Mapping[str, Any] = {}
    """What other parts keep once it is confirmed, in the same write."""


class State(msgspec.Struct, frozen=True):
    """The whole of it. A new door begins with this one."""

    remote: Mapping[str, Any] = {}
    provisioned: Mapping[str, Any] = {}
    number: int = 0
    """Of the last change that was tried."""
    pending: Pending | None = None
    history: tuple[Past, ...] = ()
    kept: Mapping[str, Any] = {}
    """What other parts keep here by their name: counters, keys, the file's ETag."""

    def layer(self, origin: str) -> Mapping[str, Any]:
        """The layer of an origin that is kept here. Raises KeyError for any other."""
        return {"remote": self.remote, "provisioned": self.provisioned}[origin]

    def with_layer(self, origin: str, raw: Mapping[str, Any]) -> "State":
        self.layer(origin)
        return msgspec.structs.replace(self, **{origin: raw})
