"""The station's end of `doorstation config` and `doorstation log`.

Whoever reaches the control socket is root or the station's own user, and may do anything.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import asdict

from doorstation.configurator import Configurator
from doorstation.errors import DoorstationError
from doorstation.provision.layers import Change, Difference
from doorstation.provision.state import Past, Pending


class ConfigCommands:
    """One command each; what it changes is told with the change's number, which `config result`
    asks for."""

    def __init__(self, configurator: Configurator | None) -> None:
        self._configurator = configurator

    async def handle(self, command: str, args: Mapping[str, object]) -> object:
        """Carry out one command. Raises DoorstationError with why it did not work."""
        configurator = self._configurator
        if configurator is None:
            raise DoorstationError("the settings of this station cannot be changed")
        by = str(args.get("by") or "ctl")[:64]
        match command:
            case "config show":
                return [asdict(row) for row in configurator.rows()]
            case "config export":
                return configurator.tree.exported(secrets=args.get("secrets") is True)
            case "config history":
                return [_past(past) for past in configurator.history()]
            case "config result":
                return _result(configurator, args.get("number"))
            case "config check":
                return _shown(configurator.check(_change(args)))
            case "config set":
                return tried(
                    configurator,
                    await configurator.stage(_change(args), by=by, how="ctl", needs_word=False),
                )
            case "config import":
                layer = configurator.tree.imported(_table(args, "raw"))
                return tried(
                    configurator,
                    await configurator.replace(
                        layer, by=by, how="import", needs_word=False, origin="remote"
                    ),
                )
            case "config undo":
                return tried(
                    configurator, await configurator.undo(by=by, how="undo", needs_word=False)
                )
            case "config reset":
                await configurator.reset(by=by, how="ctl")
                return {}
            case "log verify":
                return await configurator.verify()
            case _:
                raise DoorstationError(f"no command {command!r}")

    def status(self) -> dict[str, object]:
        """What `ctl status` shows of it."""
        configurator = self._configurator
        if configurator is None:
            return {"pending": None, "waiting": False, "fault": "", "certificate": ""}
        pending = configurator.pending
        return {
            "pending": None if pending is None else pending.number,
            "waiting": configurator.waiting,
            "fault": configurator.fault,
            "certificate": str(configurator.certificate or ""),
        }


def _change(args: Mapping[str, object]) -> Change:
    unset = args.get("unset", [])
    if not isinstance(unset, list) or not all(isinstance(key, str) for key in unset):
        raise DoorstationError('"unset" is a list of keys')
    return Change(_table(args, "set"), tuple(unset))


def _table(args: Mapping[str, object], name: str) -> Mapping[str, Any]:
    value = args.get(name, {})
    if not isinstance(value, dict):
        raise DoorstationError(f'"{name}" is a table')
    return value


def _shown(differences: Iterable[Difference]) -> list[dict[str, object]]:
    return [asdict(difference) for difference in differences]


def _past(past: Past) -> dict[str, object]:
    """Without what was before it: secrets are in there."""
    shown = asdict(past)
    del shown["before"]
    return {**shown, "differences": _shown(past.differences)}


def tried(configurator: Configurator, number: int) -> dict[str, object]:
    """What a change that has begun changes, and the number by which to ask for its end."""
    found = _find(configurator, number)
    return {"number": number, "differences": _shown(found.differences)}


def _result(configurator: Configurator, number: object) -> str:
    """How a change ended; "" while it is being tried."""
    found = _find(configurator, number)
    if not isinstance(found, Past):
        return ""
    unsaved = configurator.unsaved if found == configurator.history()[-1] else ""
    return unsaved or found.result


def _find(configurator: Configurator, number: object) -> Past | Pending:
    pending = configurator.pending
    known: tuple[Past | Pending, ...] = (
        *configurator.history(),
        *(() if pending is None else (pending,)),
    )
    for change in known:
        if change.number == number:
            return change
    raise DoorstationError(f"no change {number}")
