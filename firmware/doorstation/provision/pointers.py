"""Faults of an order, told by JSON pointer (RFC 6901) into the order as it was sent."""

import re
from collections.abc import Mapping
from typing import Any, Final

from doorstation.printable import printable

_NAME: Final = re.compile(r"[^.\[\]]+")
_END: Final = re.compile(r"[.\[]|$")
_INDEX: Final = re.compile(r"\[([0-9]{1,9})\]")
_PLACE: Final = re.compile(r"(.*) - at `\$(.*)`", re.DOTALL)
_MEMBER: Final = re.compile(r"Object (?:contains|missing) (\w+) field `(.*)`", re.DOTALL)


def pointed(sent: Mapping[str, Any], problem: str) -> str:
    """`key: what is wrong` of a settings tree, behind the pointer to the value in `set`.

    Where no such value was sent, it is the pointer to what is nearest, and the key stays.
    """
    key = problem.partition(": ")[0]
    here: Any = {"set": sent}
    pointer, rest = "", f".set.{key}"
    while (found := _inside(here, rest)) is not None:
        name, here, rest = found
        pointer += f"/{_escaped(name)}"
    if not rest:
        return printable(pointer + problem[len(key) :])
    # A table that is written in the keys alone: `adio` of `adio.country`.
    names = here if isinstance(here, Mapping) else ()
    below = (f"/{_escaped(name)}" for name in names if f".{name}".startswith(f"{rest}."))
    return printable(f"{pointer}{next(below, '')}: {problem}")


def _inside(value: Any, path: str) -> tuple[str, Any, str] | None:
    """What a path begins with in there: its name, its value, and the path from there on.

    Names may hold dots: of several, it is the longest.
    """
    if isinstance(value, list) and (found := _INDEX.match(path)) and int(found[1]) < len(value):
        return found[1], value[int(found[1])], path[found.end() :]
    if isinstance(value, Mapping) and path.startswith("."):
        for end in reversed([found.start() for found in _END.finditer(path, 1)]):
            if (name := path[1:end]) in value:
                return name, value[name], path[end:]
    return None


def placed(fault: str) -> str:
    """What msgspec says of a payload, behind the pointer to where that is."""
    if found := _MEMBER.fullmatch(fault):
        return printable(f"/{_escaped(found[2])}: {found[1]}")
    found = _PLACE.fullmatch(fault)
    what, place = found.groups() if found else (fault, "")
    return printable(f"{''.join(f'/{name}' for name in _NAME.findall(place))}: {what}")


def as_typed(fault: str) -> str:
    """A line of a 422 with the key that a person typed in the place of its pointer."""
    if not fault.startswith("/"):
        return fault
    pointer, colon, what = fault.partition(": ")
    key = re.sub("/([0-9]+)(?=/|$)", r"[\1]", pointer.removeprefix("/set").removeprefix("/"))
    key = key.replace("/", ".").replace("~1", "/").replace("~0", "~")
    told = not key or what.startswith((f"{key}.", f"{key}["))
    return what if told else key + colon + what


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
