"""`doorstation config` and `doorstation log`: what they print, and how they wait for a change."""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from doorstation.errors import DoorstationError, SettingsError, TransportError
from doorstation.printable import printable

ASKED_EVERY: Final = 0.1
MISSING_FOR: Final = 30.0
"""Seconds in which a station that is built anew has to answer again."""


def add_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", socket: str
) -> None:
    """The commands `config` and `log`, with what runs them."""
    where = f"of the station, {socket} unless given"
    config = commands.add_parser("config", help="look at the settings and change them")
    config.add_argument("--socket", metavar="PATH", default=socket, help=where)
    config.add_argument(
        "--config", type=Path, metavar="FILE", help="without a station: this file and its state"
    )
    parts = config.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, help_text: str) -> argparse.ArgumentParser:
        parser = parts.add_parser(name, help=help_text)
        parser.set_defaults(run=_run, command=f"config {name}")
        return parser

    show = command("show", "every value that somebody set; secrets as ***")
    show.add_argument("--origin", action="store_true", help="and where it comes from")
    show.add_argument("--json", action="store_true", help="one JSON list")
    change = command("set", "change values, as one change")
    change.add_argument("values", nargs="+", metavar="KEY=VALUE", help='audio.country="at"')
    change.add_argument("--dry-run", action="store_true", help="only say what it would change")
    unset = command("unset", "let values fall back to what the file says, as one change")
    unset.add_argument("values", nargs="+", metavar="KEY")
    unset.add_argument("--dry-run", action="store_true", help="only say what it would change")
    command("undo", "bring back what was before the last change")
    history = command("history", "the last changes: who, when, how, what, and what became of them")
    history.add_argument("--json", action="store_true", help="one JSON list")
    export = command("export", "all settings as one file")
    export.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="made for you alone; none: printed"
    )
    export.add_argument("--with-secrets", action="store_true", help="passwords and codes too")
    imported = command("import", "settings of a file, as one change")
    imported.add_argument("file", type=Path, metavar="FILE")
    command("reset", "forget every change, key and counter; the audit log stays")

    log = commands.add_parser("log", help="the audit log")
    log.add_argument("--socket", metavar="PATH", default=socket, help=where)
    log.add_argument(
        "--config", type=Path, metavar="FILE", help="without a station: the state of this file"
    )
    verify = log.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "verify", help="whether a line was changed or removed"
    )
    verify.set_defaults(run=_run, command="log verify")


def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "config show":
            rows = _ask(options, {})
            if options.json:
                print(json.dumps(rows))
            else:
                _print_rows(rows, origin=options.origin)
        case "config set" | "config unset":
            return _change(options)
        case "config history":
            past = _ask(options, {})
            if options.json:
                print(json.dumps(past))
            else:
                _print_history(past)
        case "config export":
            _export(options)
        case "config import":
            from doorstation.provision.layers import leaves
            from doorstation.settings.reader import read

            raw = read(options.file)
            for key, value in leaves(raw):
                _check_sendable(key, value)
            return follow(options, _ask(options, {"raw": raw}))
        case "config undo":
            return follow(options, _ask(options, {}))
        case "log verify":
            fault = _ask(options, {})
            print(f"audit log: {fault or 'no line was changed or removed'}")
            return 1 if fault else 0
        case _:
            _ask(options, {})
    return 0


def _ask(options: argparse.Namespace, args: Mapping[str, object]) -> Any:
    by = os.environ.get("SUDO_USER") or os.environ.get("USER") or "ctl"
    if options.config is not None:
        return _offline(options, args)
    from doorstation.net.control_client import call

    return call(options.socket, options.command, {**args, "by": by})


def _offline(options: argparse.Namespace, args: Mapping[str, object]) -> object:
    looks = ("config show", "config export", "config history", "log verify")
    if options.command not in (*looks, "config reset"):
        raise DoorstationError(f"{options.command}: the running station does that")
    import asyncio

    from doorstation.config_commands import ConfigCommands
    from doorstation.configurator import Configurator, open_configurator, place
    from doorstation.settings.reader import read

    async def ask() -> object:
        base = {"local": read(options.config)}
        folder = place(base)
        there = folder is not None and folder.is_dir()
        look = options.command in looks
        configurator = (
            open_configurator(base, alone=not look, look=look)
            if there
            else Configurator(base, None)
        )
        async with contextlib.aclosing(configurator):
            return await ConfigCommands(configurator).handle(options.command, args)

    return asyncio.run(ask())


def _change(options: argparse.Namespace) -> int:
    if options.command == "config unset":
        args: dict[str, object] = {"unset": options.values}
    else:
        args = {"set": dict(map(_value, options.values))}
    options.command = "config check" if options.dry_run else "config set"
    answer = _ask(options, args)
    if options.dry_run:
        print_differences(answer)
        return 0
    return follow(options, answer)


def _value(text: str) -> tuple[str, object]:
    """KEY=VALUE with the value as TOML writes it. Raises SettingsError."""
    import tomllib

    key, equals, value = text.partition("=")
    key = key.strip()
    try:
        found = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        what = f"{value!r} is no TOML value" if equals else "no value"
        raise SettingsError(
            [f'{key}: {what}; KEY=VALUE with a text in quotes, like audio.country="at"']
        ) from None
    except (ValueError, RecursionError):  # Python reads no number of more than 4300 digits
        raise SettingsError([f"{key}: {_NO_VALUE}"]) from None
    _check_sendable(key, found)
    return key, found


_NO_VALUE: Final = "a value that no setting can have"


def _check_sendable(key: str, value: object) -> None:
    """Raises SettingsError for what JSON cannot say: a date, nan, a number beyond all measure."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise SettingsError([f"{key}: {_NO_VALUE}"]) from None


def follow(options: argparse.Namespace, answer: Mapping[str, Any]) -> int:
    """Tell what changes, and wait for how it ends."""
    print_differences(answer["differences"])
    options.command = "config result"
    missing_since = None
    while True:
        try:
            result = _ask(options, {"number": answer["number"]})
        except TransportError:
            # Perhaps it is being built anew with these settings.
            missing_since = missing_since or time.monotonic()
            if time.monotonic() - missing_since > MISSING_FOR:
                raise
            result = ""
        else:
            missing_since = None
        if result:
            print("kept" if result == "confirmed" else result, file=sys.stderr)
            return 0 if result == "confirmed" else 1
        time.sleep(ASKED_EVERY)


def _export(options: argparse.Namespace) -> None:
    text = _ask(options, {"secrets": options.with_secrets})
    if options.file is None:
        sys.stdout.write(text)
        return
    try:
        options.file.unlink(missing_ok=True)  # whoever has it open keeps the old one
        file = os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(file, "w") as out:
            out.write(text)
    except OSError as error:
        raise DoorstationError(f"{options.file}: {error.strerror or error}") from error


def _print_rows(rows: Sequence[Mapping[str, Any]], *, origin: bool) -> None:
    for row in rows:
        line = f"{row['key']} = {json.dumps(row['value'], ensure_ascii=False)}"
        print(printable(f"{line}  # {row['origin']}" if origin else line))


def print_differences(differences: Sequence[Mapping[str, Any]]) -> None:
    """One line for each change of `key` from `old` to `new`; None: not set."""
    if not differences:
        print("nothing changes")
    for each in differences:
        old, new = (_written(each[name]) for name in ("old", "new"))
        print(printable(f"{each['key']}: {old} -> {new}"))


def _written(value: object) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _print_history(history: Sequence[Mapping[str, Any]]) -> None:
    for past in history:
        who = f"{past['number']}  {past['at']}  by {past['by']} ({past['how']})"
        print(printable(f"{who}: {past['result']}"))
        for each in past["differences"]:
            line = f"    {each['key']}: {_written(each['old'])} -> {_written(each['new'])}"
            print(printable(line))
