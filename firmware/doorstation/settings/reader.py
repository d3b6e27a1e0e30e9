"""Files and nested tables into a settings tree.

Every problem is told together, each as `key.path: what is wrong; what would be valid`. A value
that cannot be used is replaced by its default while the other checks go on; the tree is thrown
away if there was any problem.
"""

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

from doorstation.errors import SettingsError
from doorstation.settings.option import (
    Option,
    Secret,
    Section,
    dotted,
    is_section,
    nearest,
    options,
)
from doorstation.settings.rules import contradictions
from doorstation.settings.text import MAX_DOCUMENT, MAX_TEXT, is_name
from doorstation.settings.tree import Settings

MAX_FILE: Final = 1_000_000  # bytes; far more than 1,000 peers take


def load(path: Path | str) -> Settings:
    """Read a settings file. Raises SettingsError with every problem."""
    return build(read(path))


def read(path: Path | str) -> dict[str, Any]:
    """A settings file as nested tables, unchecked. Raises SettingsError when it is no such file."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise SettingsError([f"{path}: more than {MAX_FILE} bytes; a configuration"])
        text = data.decode("utf-8-sig")  # Windows editors begin a file with a byte order mark
    except OSError as error:
        raise SettingsError(
            [f"{path}: cannot be read: {error.strerror}; a file that can be read"]
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(
            [f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8"]
        ) from None
    return _tables(text)


def parse(text: str) -> Settings:
    """Read settings from TOML text. Raises SettingsError with every problem."""
    return build(_tables(text))


def _tables(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        known = isinstance(error, tomllib.TOMLDecodeError)
        what = error if known else "a number or a list of lists beyond all measure"
        raise SettingsError(
            [f"file: not TOML: {what}; key = value lines under [sections]"]
        ) from None


def build(raw: Mapping[str, Any]) -> Settings:
    """Make settings of nested tables, as TOML or JSON have them. Raises SettingsError."""
    loader = Loader()
    settings = loader.section(Settings, raw, "")
    loader.cross_check(settings)
    if loader.problems:
        raise SettingsError(loader.problems)
    return settings


def without_unknown(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(what this version knows of nested tables, the keys that it does not).

    Any other fault stays in there, for `build` to tell.
    """
    unknown: list[str] = []
    return _known(Settings, raw, "", unknown), unknown


def _known(kind: Any, raw: Any, path: str, unknown: list[str]) -> Any:
    inner = get_args(kind)
    match raw:
        case Mapping() if is_section(kind):
            fields = options(kind)
            unknown += [dotted(path, key) for key in raw if key not in fields]
            return {
                key: _known(fields[key][1], value, dotted(path, key), unknown)
                for key, value in raw.items()
                if key in fields
            }
        case Mapping() if get_origin(kind) is Mapping:
            return {
                name: _known(inner[1], value, dotted(path, name), unknown)
                for name, value in raw.items()
            }
        case list() if get_origin(kind) is tuple:
            return [_known(inner[0], value, f"{path}[{n}]", unknown) for n, value in enumerate(raw)]
    return raw


def problems(text: str) -> list[str]:
    """Every problem of a settings text; none means that the door starts with it."""
    try:
        parse(text)
    except SettingsError as error:
        return error.problems
    return []


def remarks(settings: Settings) -> list[str]:
    """What is allowed, and perhaps not meant."""
    found = []
    does = settings.buttons or settings.peers or settings.account
    learns = settings.keys or settings.provisioning.discovery != "off"
    if not (does or learns):
        found.append(
            "nothing to do, ever: no button, no peer, no account; no key, and the network is not "
            "asked for a file; a [buttons.NAME] with steps"
        )
    if settings.tls.own_certificate and not settings.provisioning.state:
        found.append(
            "tls.own_certificate: is over the door's own key, which needs a place: systemd gives "
            "one (StateDirectory=), else provisioning.state names it"
        )
    account = settings.account
    if account and not (
        account.domain or account.registrar or account.outbound_proxy or settings.sip.servers
    ):
        found.append(
            "account: registers only where the network names a SIP server (DHCP); "
            "a domain, such as fritz.box"
        )
    return found


_S = TypeVar("_S", bound=Section)

_UNUSABLE: Final = object()
_TABLE_NEEDED: Final = "a table of its own, [section] or { key = value }"


class Loader:
    """Turns raw TOML into sections; collects problems and the paths that have one."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._bad: set[str] = set()
        self._not_tables: set[str] = set()

    def fault(self, path: str, text: str) -> None:
        """Note a problem, unless this very value has one already."""
        inside = any(path.startswith(f"{table}.") for table in self._not_tables)
        if path not in self._bad and not inside:
            self._bad.add(path)
            self.problems.append(f"{path}: {text}")

    def section(self, cls: type[_S], raw: object, path: str) -> _S:
        if not isinstance(raw, Mapping):
            self.fault(path, f"{_kind_name(raw)}; {_TABLE_NEEDED}")
            self._not_tables.add(path)
            raw = {}
        fields = options(cls)
        for key in raw:
            if key not in fields:
                self.fault(dotted(path, key), f"unknown; {nearest(key, list(fields))}")
        values: dict[str, Any] = {}
        for name, (field, kind, option) in fields.items():
            here = dotted(path, name)
            if name in raw:
                value = self._value(kind, option, raw[name], here, empty=field.default == "")
                if value is not _UNUSABLE:
                    values[name] = value
            elif field.required:
                self.fault(here, f"missing; {valid_values(kind, option)}")
            if field.required and name not in values:
                values[name] = _blank(kind)
        return cls(**values)

    def _value(
        self, kind: Any, option: Option, raw: object, path: str, *, empty: bool = False
    ) -> Any:
        if is_section(kind):
            return self.section(kind, raw, path)
        origin = get_origin(kind)
        if origin is Mapping:
            return self._named(get_args(kind)[1], raw, path)
        if origin is tuple:
            return self._list(get_args(kind)[0], option, raw, path)
        if not (empty and raw == "") and (fault := _scalar_fault(kind, option, raw)):
            self.fault(path, fault)
            return _UNUSABLE
        if kind is Secret:
            return Secret(str(raw))
        return float(raw) if kind is float and isinstance(raw, int) else raw

    def _named(self, cls: type[Section], raw: object, path: str) -> Any:
        if not isinstance(raw, Mapping):
            self.fault(path, f"{_kind_name(raw)}; tables, written [{path}.NAME]")
            return _UNUSABLE
        found = {}
        for name, value in raw.items():
            here = dotted(path, name)
            if not is_name(name):
                self.fault(
                    here,
                    "not a name; at most 32 small letters, digits, _ and -, a letter first",
                )
            found[name] = self.section(cls, value, here)
        return found

    def _list(self, kind: Any, option: Option, raw: object, path: str) -> Any:
        if not isinstance(raw, list):
            self.fault(path, f"{_kind_name(raw)}; a list in square brackets")
            return _UNUSABLE
        if not option.least <= len(raw) <= option.most:
            self.fault(path, f"{len(raw)} entries; {option.least} to {option.most} of them")
        blank = kind("") if kind in (str, Secret) else _UNUSABLE  # keeps the places in the list
        values = [self._value(kind, option, v, f"{path}[{i}]") for i, v in enumerate(raw)]
        values = [blank if value is _UNUSABLE else value for value in values]
        return tuple(value for value in values if value is not _UNUSABLE)

    def cross_check(self, settings: Settings) -> None:
        """Everything that takes more than one value to see."""
        for path, text in contradictions(settings):
            self.fault(path, text)


def _blank(kind: Any) -> Any:
    """A value in the place of one that is missing, so that the rest is looked at."""
    match get_origin(kind):
        case None:
            return kind("")
        case origin:
            return () if origin is tuple else get_args(kind)[0]


def _kind_name(raw: object) -> str:
    """What was written, without its value: it may be a secret."""
    match raw:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def _scalar_fault(kind: Any, option: Option, raw: object) -> str:
    """ "" or 'what is wrong; what would be valid'. A secret's value is never in it."""
    valid = valid_values(kind, option)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if any(raw == choice and type(raw) is type(choice) for choice in choices):
            return ""
        found = _kind_name(raw) if isinstance(raw, list | dict) or _is_huge(raw) else repr(raw)
        return f"{found} is none of the choices; {valid}"
    if kind in (Secret, str):
        if not isinstance(raw, str):
            return f"{_kind_name(raw)}; a text in quotes"
        most = MAX_DOCUMENT if option.document else MAX_TEXT
        if len(raw) > most:
            return f"{len(raw)} characters; at most {most}"
        if any((c < " " and not (option.document and c in "\r\n")) or c == "\x7f" for c in raw):
            # A line end here would become a header of its own in a SIP message.
            return "a control character; printable text on one line"
        return option.check(raw) if option.check else ""
    if kind is bool:
        return "" if isinstance(raw, bool) else f"{_kind_name(raw)}; {valid}"
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return f"{_kind_name(raw)}; {valid}"
    if kind is int and not isinstance(raw, int):
        return f"{raw} is not a whole number; {valid}"
    if not option.low <= raw <= option.high:
        shown = "too large" if _is_huge(raw) else f"{raw} is out of range"
        return f"{shown}; {valid}"
    return ""


def _is_huge(raw: object) -> bool:
    """Python writes no number of more than 4300 digits, which hexadecimal ones may have."""
    return isinstance(raw, int | float) and abs(raw) > sys.maxsize


def valid_values(kind: Any, option: Option) -> str:
    """What an option takes, in words."""
    origin = get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(as_toml(choice) for choice in get_args(kind))
    if origin is tuple:
        inner = get_args(kind)[0]
        return "a list of tables" if is_section(inner) else f"a list: {valid_values(inner, option)}"
    if kind is bool:
        return "true or false"
    if kind is int or kind is float:
        unit = f" {option.unit}" if option.unit else ""
        return f"{option.low:.10g} to {option.high:.10g}{unit}"
    return "a text in quotes"


def as_toml(value: object) -> str:
    """A default value as it is written in the file."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"'
        case float():
            return f"{value:.10g}"
        case tuple():
            return f"[{', '.join(as_toml(v) for v in value)}]"
        case _:
            return str(value)
