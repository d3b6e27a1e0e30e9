"""One module a measurement; its docstring says what exactly is measured, and goes into the page.

Each has `measure(bench) -> (rows, notes)`.
"""

import importlib
from types import ModuleType
from typing import Final

NAMES: Final = (
    "start", "option_120", "idle", "talk", "load", "answering", "press", "digit", "changes",
    "orders", "short_calls", "messages", "network", "codecs", "encryption", "more_calls",
    "more_peers", "a_day",
)  # fmt: skip


def chosen(only: str) -> list[ModuleType]:
    """The measurements with these names (separated by commas), or all. Raises ValueError."""
    names = only.split(",") if only else list(NAMES)
    unknown = set(names) - set(NAMES)
    if unknown:
        raise ValueError(f"no measurement {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    return [importlib.import_module(f"{__name__}.{name}") for name in NAMES if name in names]
