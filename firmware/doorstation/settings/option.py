"""What an option is: its description, and whether it is secret; a section is a table of them."""

import functools
import math
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from doorstation.hashes import compare_digest


class Secret:
    """Text that prints as `***` however it is printed; `reveal()` is the one way out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def matches(self, text: str) -> bool:
        """Compare in a time that tells nothing about the secret but its length."""
        return compare_digest(self._text.encode(), text.encode(errors="replace"))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __len__(self) -> int:
        return len(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._text)

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "***"


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one option beside its type and default."""

    help: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    least: int = 0
    """Entries a list needs."""
    most: int = 1000
    """Entries a list may have."""
    check: Callable[[str], str] | None = None
    """Given a text: "" or 'what is wrong; what would be valid'."""
    document: bool = False
    """A text of many lines, which stands in no message."""
    absent: str = ""
    """What is done when the option is not set and has no default value."""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A table of the file."""


@functools.cache
def options(cls: type[Section]) -> Mapping[str, tuple[msgspec.structs.FieldInfo, Any, Option]]:
    """Of each option of a section: its field, type and description; a file may have 1,000 peers."""
    found = {}
    for field in msgspec.structs.fields(cls):
        kind, option = unwrap(field.type)
        found[field.name] = (field, without_none(kind), option)
    return found


def unwrap(annotation: Any) -> tuple[Any, Option]:
    if get_origin(annotation) is Annotated:
        kind, option = get_args(annotation)
        return kind, option
    return annotation, Option(help="")


def without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        return next(a for a in get_args(kind) if a is not type(None))
    return kind


def is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def dotted(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def nearest(word: str, known: list[str]) -> str:
    import difflib  # for people's mistakes only: a door that starts needs none

    close = difflib.get_close_matches(word, known, 1, 0.6)
    return f'did you mean "{close[0]}"?' if close else f"known here: {', '.join(known) or 'none'}"
