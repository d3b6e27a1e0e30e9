"""Dotted keys, as `audio.speaker_volume`: whether there is such an option, and what it holds."""

from collections.abc import Mapping
from typing import Any, Final, get_args, get_origin

import msgspec

from doorstation.settings.option import Secret, is_section, nearest, unwrap, without_none
from doorstation.settings.tree import Settings

OWNERS_ONLY: Final = ("keys", "commanders", "words", "provisioning")
"""Sections that say who may do what: only an owner's key changes them."""


def holds_secret(key: str) -> bool:
    """Whether the value at a dotted key is a secret, or a list of them."""
    kind: Any = Settings
    for name in key.replace("[]", "").split("."):
        if get_origin(kind) is Mapping:
            kind = get_args(kind)[1]
            continue
        if get_origin(kind) is tuple:
            kind = get_args(kind)[0]
        fields = msgspec.structs.fields(kind) if is_section(kind) else ()
        found = [field.type for field in fields if field.name == name]
        if not found:
            return False
        kind = without_none(unwrap(found[0])[0])
    return kind is Secret or Secret in get_args(kind)


def key_fault(key: str) -> str:
    """ "" if there is such an option or section, else what would be valid."""
    kind: Any = Settings
    for place, name in enumerate(key.split(".")):
        if get_origin(kind) is Mapping:
            kind = get_args(kind)[1]
            continue
        fields = msgspec.structs.fields(kind) if is_section(kind) else ()
        known = {field.name: field.type for field in fields}
        if name not in known:
            above = ".".join(key.split(".")[:place])
            return f"no option {name!r} in {above or 'the settings'}; {nearest(name, list(known))}"
        kind = without_none(unwrap(known[name])[0])
    return ""
