"""`doorstation command`: from an office machine to a door, one order and what became of it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from doorstation.config_cli import print_differences
from doorstation.errors import DoorstationError
from doorstation.net.order_client import KeyFile, OrderClient, account_of, order_client
from doorstation.printable import printable
from doorstation.sip.uri import SipUri, parse_uri

TRIED_WITHIN: Final = 150.0
"""Seconds for a change to be applied and the door to be well: what a door gives it, and more."""


class Way(msgspec.Struct, frozen=True):
    """Who orders which door, by which way."""

    keys: KeyFile
    to: str
    door: str
    user: str
    password: str
    account: str = ""
    account_password: str = ""


def run(way: Way, op: str, words: Sequence[str], within: float | None = None) -> int:
    """Give one order and print its result; the exit status. Raises DoorstationError."""
    return asyncio.run(_run(way, op, words, within))


async def _run(way: Way, op: str, words: Sequence[str], within: float | None) -> int:
    account = None
    if way.account:
        uri = parse_uri(way.account)
        if not isinstance(uri, SipUri):
            raise DoorstationError(f"{way.account}: not a SIP URI")
        account = account_of(uri, way.account_password)
    async with order_client(way.keys, way.to, way.door, way.user, way.password, account) as client:
        match op:
            case "set":
                return await _set(client, _change(words), within)
            case "check":
                return _shown(await client.order("check", **_change(words)))
            case "get":
                return _shown(await client.order("get", keys=words))
            case "history":
                return _shown(await client.order("history"))
            case "confirm" | "rollback":
                return _outcome(await client.order(op, of=_number(words[0])))
            case "fetch":
                return await _fetch(client, words[0], words[1], within)
            case "open":
                return _outcome(await client.order("open", relay=words[0]))
            case _:
                return _outcome(await client.order(op))


def _shown(result: Mapping[str, Any]) -> int:
    """Print what was looked at; whether the door could tell it."""
    match result:
        case {"state": "done", "differences": differences}:
            print_differences(differences)
        case {"state": "done", "rows": rows}:
            for key, value, origin in rows:
                line = f"{key} = {json.dumps(value, ensure_ascii=False)}  ({origin})"
                print(printable(line))
        case {"state": "done", "changes": changes}:
            for past in changes:
                keys = ", ".join(past["keys"])
                line = f"{past['number']}  {past['at']}  {past['by']}  {past['result']}  {keys}"
                print(printable(line))
        case _:
            return _outcome(result)
    return 0


async def _set(client: OrderClient, change: Mapping[str, Any], within: float | None) -> int:
    """What it would change, then the change, then the word that it shall stay."""
    looked = await client.order("check", **change)
    status = _shown(looked)
    if status or not looked["differences"]:
        return status
    return await _confirmed(client, await _applied(client, "set", within, **change))


async def _fetch(client: OrderClient, url: str, sha256: str, within: float | None) -> int:
    """What the file changes is known when the door has it."""
    result = await _applied(client, "fetch", within, url=url, sha256=sha256)
    if "differences" in result:
        print_differences(result["differences"])
    return await _confirmed(client, result)


async def _applied(
    client: OrderClient, op: str, within: float | None, **fields: Any
) -> Mapping[str, Any]:
    """The result of an order that tries something."""
    trial = {} if within is None else {"within": within}
    counter = await client.send(op, **fields, **trial)
    return await client.result(counter, TRIED_WITHIN if within is None else within + 30)


async def _confirmed(client: OrderClient, result: Mapping[str, Any]) -> int:
    if result["state"] != "applied":
        return _outcome(result)
    return _outcome(await client.order("confirm", of=result["number"]))


def _change(words: Sequence[str]) -> dict[str, Any]:
    """`key=value` sets, `key=` lets it fall back. Raises DoorstationError."""
    to_set: dict[str, Any] = {}
    unset = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise DoorstationError(f"{word}: key=value, or key= to let it fall back")
        if value:
            to_set[key] = _value(value)
        else:
            unset.append(key)
    return {"set": to_set, "unset": unset}


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise DoorstationError(f"{text}: no number of a change, as `history` shows it")
    return int(text)


def _value(text: str) -> Any:
    """JSON where it is any: numbers, true, lists; else the text itself."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # NaN and 1e999 are Python's alone
    except (ValueError, RecursionError):
        return text
    return value


def _outcome(result: Mapping[str, Any]) -> int:
    """Print a result; whether it is what was wanted."""
    told = {name: value for name, value in result.items() if name not in _FRAME}
    state = told.pop("state")
    words = (str(state), *(f"{name}={json.dumps(value)}" for name, value in told.items()))
    print(printable(" ".join(words)))
    return 0 if state in ("done", "confirmed") or result["op"] == "rollback" else 1


_FRAME: Final = ("door", "kid", "ctr", "op", "iat", "differences")


def read_password(place: Path | None) -> str:
    """The first line of a file. Raises DoorstationError."""
    if place is None:
        return ""
    try:
        return place.read_text("utf-8").partition("\n")[0]
    except OSError as fault:
        raise DoorstationError(f"{place}: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise DoorstationError(f"{place}: no text in UTF-8") from None
