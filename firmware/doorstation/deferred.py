"""Modules that many doors never use: run when they are first used, or not loaded at all.

asyncio imports ssl for connections that a door without TLS never makes, and ssl maps OpenSSL: 5 MB
for as long as the door runs. Here `import ssl` gives the module before it has run; whoever first
asks it for a name runs it, and finds all as it always is (PEP 562).
"""

import sys
import threading
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, Final

MODULES: Final = frozenset(
    {
        "ssl",
        "asyncio.sslproto",
        "msgspec.inspect",
        # gpiozero imports statistics for sensors, and importlib.metadata to find pin factories by
        # their names; ours are imported.
        "random",
        "csv",
        "tempfile",
        "zipfile",
        "bz2",
        "lzma",
        "importlib.metadata._adapters",
    }
)


def defer() -> None:
    """From now on, to import one of MODULES does not run it."""
    sys.meta_path.insert(0, _Finder)
    # msgspec takes from it what Python has since 3.11: half a megabyte. aiohttp may need the rest.
    _import_without("typing_extensions", "msgspec")


def _import_without(missing: str, name: str) -> None:
    """Import a module as where another, which it can do without, is not installed."""
    if missing not in sys.modules:
        sys.modules[missing] = None  # type: ignore[assignment]  # the import system's word for it
        try:
            import_module(name)
        finally:
            del sys.modules[missing]


class _Finder(PathFinder):
    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MODULES:
            return None
        found = super().find_spec(fullname, path, target)
        if found is not None and isinstance(found.loader, SourceFileLoader):
            found.loader = _WhenUsed(fullname, found.loader.path)
        return found


class _WhenUsed(SourceFileLoader):
    _running = threading.RLock()
    """Another thread that comes meanwhile waits for the whole module."""
    _waits = True

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__getattr__"] = partial(self._missing, module)

    def _missing(self, module: ModuleType, name: str) -> Any:
        if not name.startswith("__"):  # else it is the import system that asks
            with self._running:
                if self._waits:
                    self._waits = False
                    super().exec_module(module)
        try:
            return vars(module)[name]
        except KeyError:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}") from None
