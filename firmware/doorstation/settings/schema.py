"""`docs/settings.schema.json`: the settings tree as JSON Schema, for who writes files with tools.

A file says a part of the whole, so nothing is required in it. What takes more than a look at one
value (`doorstation check` does that) is not in it.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from doorstation.settings.option import Option, Secret, Section, options
from doorstation.settings.text import MAX_DOCUMENT, MAX_TEXT
from doorstation.settings.tree import Settings

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
NAME: Final = "^[a-z][a-z0-9_-]{0,31}$"


def schema() -> dict[str, Any]:
    """Of a settings file, or of `settings` in a signed one."""
    return {"$schema": DIALECT, "title": "Doorstation settings", **_section(Settings)}


def _section(cls: type[Section]) -> dict[str, Any]:
    properties = {
        name: _described(_value(kind, option), field, option)
        for name, (field, kind, option) in options(cls).items()
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _described(
    value: dict[str, Any], field: msgspec.structs.FieldInfo, option: Option
) -> dict[str, Any]:
    words = f"{option.help} ({option.unit})" if option.unit else option.help
    if words:
        value["description"] = words
    if isinstance(field.default, str | int | float) and field.default != "":
        value["default"] = field.default
    return value


def _value(kind: Any, option: Option) -> dict[str, Any]:
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Section):
        return _section(kind)
    if origin is Mapping:
        return {
            "type": "object",
            "propertyNames": {"pattern": NAME},
            "additionalProperties": _section(inner[1]),
        }
    if origin is tuple:
        return {
            "type": "array",
            "items": _value(inner[0], option),
            "minItems": option.least,
            "maxItems": option.most,
        }
    if origin is Literal:
        return {"enum": list(inner)}
    if kind is bool:
        return {"type": "boolean"}
    if kind in (int, float):
        found: dict[str, Any] = {"type": "integer" if kind is int else "number"}
        bounds = {"minimum": option.low, "maximum": option.high}
        return found | {name: limit for name, limit in bounds.items() if math.isfinite(limit)}
    text: dict[str, Any] = {
        "type": "string",
        "maxLength": MAX_DOCUMENT if option.document else MAX_TEXT,
    }
    return text | {"writeOnly": True} if kind is Secret else text
