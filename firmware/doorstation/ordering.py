"""`doorstation command`: from an office machine to a door, one order and what became of it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from doorstation.errors import DoorstationError
from doorstation.net.order_client import KeyFile, OrderClient, account_of, order_client
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
                _print_differences(await client.order("check", **_change(words)))
            case "get":
                for key, value, origin in (await client.order("get", keys=words))["rows"]:
                    print(f"{key} = {json.dumps(value, ensure_ascii=False)}  ({origin})")
            case "history":
                for past in (await client.order("history"))["changes"]:
                    keys = ", ".join(past["keys"])
                    print(f"{past['number']}  {past['at']}  {past['by']}  {past['result']}  {keys}")
            case "confirm" | "rollback":
                return _outcome(await client.order(op, of=_number(words[0])))
            case "fetch":
                return await _fetch(client, words[0], words[1], within)
            case "open":
                return _outcome(await client.order("open", relay=words[0]))
            case _:
                return _outcome(await client.order(op))
    return 0


async def _set(client: OrderClient, change: Mapping[str, Any], within: float | None) -> int:
    """What it would change, then the change, then the word that it shall stay."""
    looked = await client.order("check", **change)
    if not looked["differences"]:
        print("nothing to change")
        return 0
    _print_differences(looked)
    return await _confirmed(client, await _applied(client, "set", within, **change))


async def _fetch(client: OrderClient, url: str, sha256: str, within: float | None) -> int:
    """What the file changes is known when the door has it."""
    result = await _applied(client, "fetch", within, url=url, sha256=sha256)
    _print_differences(result)
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
        return json.loads(text)
    except ValueError:
        return text


def _print_differences(result: Mapping[str, Any]) -> None:
    for each in result.get("differences", ()):
        old, new = (json.dumps(each[name], ensure_ascii=False) for name in ("old", "new"))
        print(f"{each['key']}: {old} -> {new}")


def _outcome(result: Mapping[str, Any]) -> int:
    """Print a result; whether it is what was wanted."""
    told = {name: value for name, value in result.items() if name not in _FRAME}
    state = told.pop("state")
    print(" ".join([state, *(f"{name}={json.dumps(value)}" for name, value in told.items())]))
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
