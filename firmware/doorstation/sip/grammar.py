"""The grammar that all SIP headers share (RFC 3261 §25.1), and the one fault a reader raises.

All patterns are possessive: each octet is looked at a bounded number of times, so no text that a
stranger sends can make a match take longer than its length (catastrophic backtracking).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from doorstation.errors import ProtocolError

if TYPE_CHECKING:
    from doorstation.sip.message import Request

Params = tuple[tuple[str, str | None], ...]

WHITESPACE: Final = " \t"
TOKEN_CHARS: Final = r"A-Za-z0-9\-.!%*_+`'~"  # noqa: S105 - a character class

# Attack bounded: one value of thousands of elements (commas, semicolons), each of which would
# become several objects. Real lists (Via on a long path, Record-Route) stay below thirty.
MAX_LIST: Final = 128
MAX_PARAMS: Final = 64

# Possessive only on single classes, here and in the other readers: Python before 3.11.5 (Debian 12
# has 3.11.2) takes a possessive group for matched where it is not.
_TOKEN = re.compile(rf"[{TOKEN_CHARS}]++")
# Sources of patterns for what nearly everyone writes: an address or a Via is read in one match,
# whose groups need no more looking into. All else goes to the readers of the whole grammar, which
# must say the same of these. `(?:...|)` is `(?:...)?` in two thirds of the time: no repeating.
PLAIN_PARAM: Final = rf"(?:;([a-z0-9\-]++)(?:=([{TOKEN_CHARS}]++)|)|)"
PLAIN_HOST: Final = r"([a-z0-9_][a-z0-9_.\-]*+)(?::([1-5]?[0-9]{1,4})|)"
_PARAM = re.compile(
    rf"[ \t]*+;[ \t]*+([{TOKEN_CHARS}]++)[ \t]*+"
    r'(=[ \t]*+(?:"((?:[^"\\]++|\\.)*)"|([^;,"<>\s]*+))[ \t]*+)?',
    re.DOTALL,
)
_PLAIN_VALUE = re.compile(rf"[{TOKEN_CHARS}:\[\]]++")
_QUOTED = re.compile(r'"((?:[^"\\]++|\\.)*)"', re.DOTALL)
_PAIR = re.compile(r"\\(.)", re.DOTALL)
# Backslash and quote must be escaped; so must controls, which qdtext leaves out.
_TO_ESCAPE = re.compile(r'(["\\\x00-\x08\x0b\x0c\x0e-\x1f\x7f])')
_LIST_STOP = re.compile(r'[,"<]')


class MalformedMessage(ProtocolError):
    """What the peer sent cannot be used; `reason` names the fault, `status` answers it.

    `request` is the request to answer, when one was read as far as its topmost Via. Its other
    headers may be missing or unreadable: `make_response` copies what there is and never raises.
    None: there is nobody to answer (no Via, a response, an ACK), so drop and count.
    """

    def __init__(self, reason: str, status: int = 400, request: Request | None = None) -> None:
        super().__init__(reason, status)
        self.request = request


def is_token(text: str) -> bool:
    """Whether `text` is a token: a method, a header name, a parameter name."""
    return _TOKEN.fullmatch(text) is not None


def is_digits(text: str) -> bool:
    """ASCII digits only: `str.isdigit` and `int` also take other scripts, signs and underscores."""
    return text.isascii() and text.isdecimal()


def quote(text: str) -> str:
    """Write `text` as a quoted string."""
    return '"' + _TO_ESCAPE.sub(r"\\\1", text) + '"'


def unescape(inner: str) -> str:
    """The text that the inside of a quoted string stands for."""
    return _PAIR.sub(r"\1", inner) if "\\" in inner else inner


def read_quoted(text: str, start: int, where: str) -> tuple[str, int]:
    """The unescaped quoted string that begins at `start`, and where it ends."""
    match = _QUOTED.match(text, start)
    if match is None:
        raise MalformedMessage(f"{where}: quoted string without end")
    return unescape(match[1]), match.end()


def split_list(value: str, where: str) -> list[str]:
    """The elements of a comma list, commas inside quotes and <> apart; empty ones are kept."""
    if "," not in value:
        return [value.strip(WHITESPACE)]
    parts: list[str] = []
    begin = position = 0
    while (stop := _LIST_STOP.search(value, position)) is not None:
        position = stop.start()
        if value[position] == ",":
            parts.append(value[begin:position].strip(WHITESPACE))
            if len(parts) >= MAX_LIST:
                raise MalformedMessage(f"{where}: more than {MAX_LIST} values")
            begin = position = position + 1
        elif value[position] == '"':
            match = _QUOTED.match(value, position)
            if match is None:
                raise MalformedMessage(f"{where}: quoted string without end")
            position = match.end()
        else:
            position = value.find(">", position)
            if position < 0:
                raise MalformedMessage(f"{where}: '<' without '>'")
    parts.append(value[begin:].strip(WHITESPACE))
    return parts


def parse_params(text: str, where: str) -> Params:
    """Header parameters: `;name`, `;name=value`, `;name="value"`; names come out in lower case."""
    params: list[tuple[str, str | None]] = []
    position = 0
    while (match := _PARAM.match(text, position)) is not None:
        position = match.end()
        if len(params) >= MAX_PARAMS:
            raise MalformedMessage(f"{where}: more than {MAX_PARAMS} parameters")
        name, assigned, quoted, plain = match.groups()
        if assigned is None:
            params.append((name.lower(), None))
        else:
            params.append((name.lower(), plain if quoted is None else unescape(quoted)))
    # One semicolon too many at the very end is a habit of some phones; two are a fault.
    if text[position:].strip(WHITESPACE) not in ("", ";"):
        raise MalformedMessage(f"{where}: parameters cannot be read")
    return tuple(params)


def plain_params(
    name: str | None,
    value: str | None,
    second: str | None,
    second_value: str | None,
    third: str | None = None,
    third_value: str | None = None,
) -> Params:
    """From the groups of PLAIN_PARAM, twice or three times."""
    if name is None:
        return ()
    if second is None:
        return ((name, value),)
    if third is None:
        return ((name, value), (second, second_value))
    return ((name, value), (second, second_value), (third, third_value))


def format_params(params: Params) -> str:
    """Write header parameters, quoting the values that need it."""
    text = ""
    for name, value in params:
        if value is None:
            text += f";{name}"
        elif _PLAIN_VALUE.fullmatch(value) is not None:
            text += f";{name}={value}"
        else:
            text += f";{name}={quote(value)}"
    return text


def param_of(params: Params, name: str) -> str | None:
    """The value of the first parameter of that name; "" for one without a value; None: absent."""
    for key, value in params:
        if key == name:
            return "" if value is None else value
    return None
