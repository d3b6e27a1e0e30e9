"""What a signed order says, and who may give which: pure functions that name the rule."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from doorstation.errors import ProtocolError, SettingsError
from doorstation.provision.layers import Change, leaves
from doorstation.provision.pointers import placed, pointed
from doorstation.settings.keys import OWNERS_ONLY, holds_secret

Op = Literal[
    "set", "get", "check", "confirm", "rollback", "history", "status", "fetch", "reboot", "open"
]
Role = Literal["viewer", "admin", "owner", "opener"]

_LOOKS: Final = frozenset({"get", "check", "history", "status"})
_CHANGES: Final = frozenset({"set", "confirm", "rollback", "fetch", "reboot"})

MAY: Final[Mapping[Role, frozenset[str]]] = {
    "viewer": _LOOKS,
    "admin": _LOOKS | _CHANGES,
    "owner": _LOOKS | _CHANGES,
    # Opening is no setting: a key that opens changes nothing, one that changes opens nothing.
    "opener": frozenset({"open", "status"}),
}


_UNPROVED: Final = ("http:", "tftp:")
"""Anything in the door's network might act on such a request; one by https goes out only once the
server has proved its name."""

Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""What every sender of JSON can write (RFC 8259 6)."""


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payload of a signed order."""

    sub: str
    """The door that is meant: its UUID, its MAC address, or `*`."""
    ctr: Number
    """Counter of the key; each order has a higher one than the last."""
    iat: Number
    """When it was signed, seconds since 1970."""
    op: Op
    set: dict[str, Any] = {}
    """Values by key, or tables of them: as they were sent."""
    unset: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """What `get` asks for; none: all."""
    of: Number = 0
    """The change that `confirm` and `rollback` mean: its number, from the result of `set`."""
    within: float | None = None
    """Seconds in which a change must be confirmed; None: as the door is set."""
    relay: str = ""
    url: str = ""
    sha256: str = ""

    @property
    def change(self) -> Change:
        """What it changes: what was written as a table is one key for each value in it."""
        return Change(dict(leaves(self.set)), self.unset)

    def faults(self, fault: SettingsError) -> list[str]:
        """Each problem of what it sets, behind its place in the order."""
        return [pointed(self.set, problem) for problem in fault.problems]


class Decision(msgspec.Struct, frozen=True):
    allowed: bool
    rule: str


def parse_order(payload: bytes) -> Order:
    """Read a payload. Raises ProtocolError 422 that points at the fault."""
    try:
        order = msgspec.json.decode(payload, type=Order)
    except (ValueError, RecursionError) as fault:  # not UTF-8 is no DecodeError of msgspec's
        raise ProtocolError(placed(str(fault)), status=422) from None
    try:
        dict(leaves(order.set))  # that there can be such keys
    except SettingsError as fault:
        raise ProtocolError("\n".join(order.faults(fault)), status=422) from None
    return order


def may_order(
    order: Order, role: Role, *, opens: tuple[str, ...] = (), scope: tuple[str, ...] = ()
) -> Decision:
    """Whether a key may give an order.

    `opens`: relays that an opener's key may open; `scope`: settings or sections that a key is kept
    to, none: all.
    """
    if order.op not in MAY[role]:
        return Decision(False, f"a key of role {role} may not {order.op}")
    if order.op == "open":
        if order.relay in opens:
            return Decision(True, "key opens this relay")
        return Decision(False, "this key does not open this relay")
    if order.op in ("set", "check"):
        return may_set((*order.change.set, *order.unset), role, scope)
    if order.op == "fetch" and scope:
        return Decision(False, "a key that is kept to some settings may not fetch")
    if order.op == "fetch" and role != "owner" and order.url.lower().startswith(_UNPROVED):
        return Decision(False, f"a key of role {role} may not fetch but by https")
    return Decision(True, f"role {role}")


def may_set(keys: Iterable[str], role: Role, scope: tuple[str, ...] = ()) -> Decision:
    """Whether a key may change these settings, try them, or have a say in whether they stay."""
    for key in keys:
        if role != "owner" and key.partition(".")[0] in OWNERS_ONLY:
            return Decision(False, f"{key}: only an owner's key may set it")
        # What a door says to a secret that is tried tells whether it is the right one.
        if "set" not in MAY[role] and holds_secret(key):
            return Decision(False, f"{key}: a key of role {role} may not try a secret")
        if scope and not any(key == one or key.startswith(f"{one}.") for one in scope):
            return Decision(False, f"{key}: this key is kept to {', '.join(scope)}")
    return Decision(True, f"role {role}")
