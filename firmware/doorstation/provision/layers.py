"""One typed tree out of several origins: each value knows where it came from.

A *layer* is what one origin says, as nested tables the way a settings file has them. Layers are
laid over each other in the order of `ORIGINS`, value by value; a list is one value. A *key* is a
dotted path to a value or a table: `audio.country`, `relays.door`.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from doorstation.errors import SettingsError
from doorstation.settings.keys import holds_secret
from doorstation.settings.reader import build
from doorstation.settings.tree import Settings

ORIGINS: Final = ("dhcp", "provisioned", "local", "remote")
"""From the weakest to the strongest. `default` stands below all of them and is no layer."""

DEFAULT: Final = "default"
MASK: Final = "***"

MAX_KEYS: Final = 200
"""Keys in one change: more is a file's job."""

DEEPEST: Final = 8
"""Names in a key, the indices of lists not counted: more than any option has. Bounds recursion."""

Raw: TypeAlias = Mapping[str, Any]


class Change(msgspec.Struct, frozen=True):
    """What is to be set, by key, and which keys are to fall back to the layers below."""

    set: Mapping[str, Any] = {}
    unset: tuple[str, ...] = ()

    @property
    def written(self) -> list[str]:
        """The key of each value in it."""
        return [key for key, _ in leaves(self.set)]


class Row(msgspec.Struct, frozen=True):
    """One value of the tree as it may be shown: a secret that is set is `***`."""

    key: str
    value: Any
    origin: str


class Difference(msgspec.Struct, frozen=True):
    """One value before and after; None where there was or will be none. Secrets are `***`."""

    key: str
    old: Any
    new: Any


class Tree:
    """Layers over each other. Immutable: a change makes another tree."""

    def __init__(self, layers: Mapping[str, Raw]) -> None:
        unknown = set(layers) - set(ORIGINS)
        if unknown:
            raise ValueError(f"no origin {', '.join(sorted(unknown))}")
        self.layers = {origin: layers[origin] for origin in ORIGINS if origin in layers}
        self.raw: dict[str, Any] = {}
        self._origins: dict[str, str] = {}
        for origin, raw in self.layers.items():
            for key, value in leaves(raw):
                _put(self.raw, key, value)
                self._origins[key] = origin

    def settings(self) -> Settings:
        """The whole tree, checked. Raises SettingsError with every problem."""
        return build(self.raw)

    def origin(self, key: str) -> str:
        """Where a value comes from; of a value that nobody set, `default`."""
        return self._origins.get(key, DEFAULT)

    def with_layer(self, origin: str, raw: Raw) -> "Tree":
        """The tree with one layer in place of what that origin said before."""
        return Tree({**self.layers, origin: raw})

    def changed(self, change: Change, origin: str = "remote") -> "Tree":
        """The tree with a change in one layer. Raises SettingsError for a key that cannot be.

        The values are not checked: `settings()` of the result does, all together.
        """
        if len(change.set) + len(change.unset) > MAX_KEYS:
            raise SettingsError([f"change: more than {MAX_KEYS} keys; a file for so many"])
        layer = _copied(self.layers.get(origin, {}))
        for key in change.unset:
            _take(layer, key)
        faults = []
        for key, value in leaves(change.set):
            try:
                _put(layer, key, value)
            except SettingsError as fault:
                faults += fault.problems
        if faults:
            raise SettingsError(faults)
        return self.with_layer(origin, layer)

    def rows(self) -> list[Row]:
        """Every value that somebody set, in the order of the keys."""
        return [
            Row(key, shown(key, value), self.origin(key)) for key, value in sorted(leaves(self.raw))
        ]

    def differences(self, new: "Tree", written: Collection[str] = ()) -> list[Difference]:
        """What `new` would change, in the order of the keys.

        A secret that was `written` counts as one: nobody hears whether it is what it was before.
        """
        before, after = dict(leaves(self.raw)), dict(leaves(new.raw))
        return [
            Difference(key, shown(key, before.get(key)), shown(key, after.get(key)))
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key) or (key in written and holds_secret(key))
        ]

    def exported(self, *, secrets: bool) -> str:
        """The tree as a settings file, one line a value; secrets only when they are asked for."""
        lines = [
            f"{'.'.join(map(_name, key.split('.')))} = {_toml(value)}\n"
            for key, value in leaves(self.raw)
            if secrets or not holds_secret(key)
        ]
        return "".join(lines)

    def imported(self, raw: Raw) -> dict[str, Any]:
        """The remote layer by which the tree says what a file says.

        What the layers below say already is left to them, and a secret that the file does not
        name stays.
        """
        remote = dict(leaves(self.layers.get("remote", {})))
        below = Tree({name: layer for name, layer in self.layers.items() if name != "remote"})
        known, wanted = dict(leaves(below.raw)), dict(leaves(raw))
        stays = {k: v for k, v in remote.items() if k not in wanted and holds_secret(k)}
        new = {key: value for key, value in wanted.items() if known.get(key) != value}
        found: dict[str, Any] = {}
        for key, value in {**stays, **new}.items():
            _put(found, key, value)
        return found


def leaves(raw: Raw, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its key. An empty table is a value: it says that the table is there.

    Raises SettingsError for a table without a name, and for tables deeper than any option.
    """
    for name, value in raw.items():
        if not name:
            raise SettingsError([f'{path}: "": not a key; a name'])
        key = f"{path}.{name}" if path else name
        if key.count(".") >= DEEPEST:
            raise SettingsError([f"{key[:80]}: more than {DEEPEST} names with dots between"])
        if isinstance(value, Mapping) and value:
            yield from leaves(value, key)
        else:
            yield key, value


def merged(layers: Iterable[Raw]) -> dict[str, Any]:
    """Tables over each other, value by value; the last one wins. Raises SettingsError."""
    found: dict[str, Any] = {}
    for raw in layers:
        for key, value in leaves(raw):
            _put(found, key, value)
    return found


def with_steps(raw: Raw, old: Raw, new: Raw) -> dict[str, Any]:
    """A layer, with what was set and taken away from `old` to `new`. Raises SettingsError."""
    found, before, after = _copied(raw), dict(leaves(old)), dict(leaves(new))
    for key in before.keys() - after.keys():
        _take(found, key)
    for key, value in after.items():
        if key not in before or value != before[key]:
            _put(found, key, value)
    return found


def find(raw: Raw, key: str) -> Any:
    """The value or table at a key. Raises KeyError."""
    found: Any = raw
    for name in key.split("."):
        if not isinstance(found, Mapping) or name not in found:
            raise KeyError(key)
        found = found[name]
    return found


def shown(key: str, value: Any) -> Any:
    """A value as it may be shown."""
    if value is None or not holds_secret(key):
        return _masked(key, value)
    return [MASK] * len(value) if isinstance(value, list) else MASK


def _masked(key: str, value: Any) -> Any:
    """Tables in a list may hold secrets too."""
    if isinstance(value, list):
        return [_masked(f"{key}[]", one) for one in value]
    if isinstance(value, Mapping):
        return {name: shown(f"{key}.{name}", one) for name, one in value.items()}
    return value


def _put(raw: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    table = raw
    for place, name in enumerate(path):
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            above = ".".join(path[: place + 1])
            raise SettingsError([f"{key}: {above} is a value, no table; a key below a table"])
        table = inner
    if not all((*path, last)):
        raise SettingsError([f"{key}: not a key; names with dots between, like audio.country"])
    if isinstance(value, Mapping):  # an empty one
        if not isinstance(table.get(last), dict):
            table[last] = {}
        return
    table[last] = value


def _take(raw: dict[str, Any], key: str) -> None:
    """Remove a value or table, and tables that become empty. One that is not there is fine."""
    name, dot, rest = key.partition(".")
    inner = raw.get(name)
    if not dot:
        raw.pop(name, None)
    elif isinstance(inner, dict):
        _take(inner, rest)
        if not inner:
            del raw[name]


def _name(name: str) -> str:
    plain = name.replace("_", "a").replace("-", "a")
    return name if plain.isascii() and plain.isalnum() else _toml(name)


def _toml(value: Any) -> str:
    """A value as TOML writes it in one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # A basic string's escapes are JSON's, and DEL has to be one too.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case Mapping():
            inside = ", ".join(f"{_name(name)} = {_toml(one)}" for name, one in value.items())
            return f"{{{inside}}}"
        case _:
            return str(value)


def _copied(raw: Raw) -> dict[str, Any]:
    return {
        name: _copied(value) if isinstance(value, Mapping) else value for name, value in raw.items()
    }
