"""`docs/settings.md`, made of the tree."""

from collections.abc import Iterator, Mapping
from typing import Final, get_args, get_origin

import msgspec

from doorstation.settings.option import (
    Option,
    Secret,
    Section,
    dotted,
    is_section,
    unwrap,
    without_none,
)
from doorstation.settings.reader import as_toml, valid_values
from doorstation.settings.tree import Settings

SMALLEST: Final = """\
[account]
user = "door"
domain = "fritz.box"
password = "..."

[buttons.call]
pin = 26
steps = [{ ring = ["**9"] }]

[relays.door]
pin = 25
codes = ["4711"]
"""
"""A whole file: a door that rings a group and opens with a code."""

_INTRODUCTION: Final = f"""\
# Settings

One TOML file. `doorstation check FILE` reports every problem of it together; `doorstation run`
refuses to start on the same problems. An unknown key is a mistake. Secrets are never shown again:
they print as `***`.

The smallest file for a door that rings group `**9` of a telephone system and opens with 4711:

```toml
{SMALLEST}```

A `ring` entry is a number (digits, `*`, `#`, `+`: that user at the account's domain), the name of
a [peers] entry, or a SIP URI. A name in a heading is yours to choose: small letters, digits, `_`
and `-`. This page is made from the settings tree by `make pages`.
"""


def describe() -> str:
    """`docs/settings.md`: every option with what it takes, its default and what it is for."""
    return "\n".join([_INTRODUCTION, *_describe_tables(Settings, "")]).rstrip() + "\n"


def _describe_tables(cls: type[Section], path: str) -> Iterator[str]:
    for field in msgspec.structs.fields(cls):
        kind = without_none(unwrap(field.type)[0])
        here = dotted(path, field.name)
        if get_origin(kind) is Mapping:
            yield from _describe_section(get_args(kind)[1], f"[{here}.NAME]")
        elif get_origin(kind) is tuple and is_section(get_args(kind)[0]):
            yield from _describe_section(get_args(kind)[0], f"Each entry of {here}")
        elif is_section(kind):
            yield from _describe_section(kind, f"[{here}]")


def _describe_section(cls: type[Section], heading: str) -> Iterator[str]:
    yield f"## {heading}\n"
    yield f"{cls.__doc__}\n"
    yield "| option | takes | default | |"
    yield "|---|---|---|---|"
    for field in msgspec.structs.fields(cls):
        kind, option = unwrap(field.type)
        kind = without_none(kind)
        takes = valid_values(kind, option).replace("a text in quotes", "text")
        secret = Secret in (kind, *get_args(kind))
        takes = takes.replace("text", "secret text") if secret else takes
        yield f"| `{field.name}` | {takes} | {_default(field, option)} | {option.help} |"
    yield ""
    yield from _describe_tables(cls, heading.strip("[]"))


def _default(field: msgspec.structs.FieldInfo, option: Option) -> str:
    if field.required:
        return "must be set"
    if option.absent and not field.default:
        return option.absent
    return "none" if isinstance(field.default, Secret) else f"`{as_toml(field.default)}`"
