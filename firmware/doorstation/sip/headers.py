"""The header fields of a message as text in order, and the typed values of those that carry calls.

`Headers` keeps every line as it came, unknown ones too, so that what is not understood is neither
lost nor changed. Typed values are read when asked for (see message.py) and forgotten on a change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from doorstation.sip.grammar import (
    MAX_PARAMS,
    PLAIN_HOST,
    PLAIN_PARAM,
    TOKEN_CHARS,
    WHITESPACE,
    MalformedMessage,
    Params,
    format_params,
    is_digits,
    is_token,
    param_of,
    parse_params,
    plain_params,
    quote,
    read_quoted,
    split_list,
)
from doorstation.sip.uri import (
    MAX_URI,
    PLAIN_URI,
    Uri,
    format_host,
    format_uri,
    parse_host,
    parse_uri,
    plain_uri,
)

# RFC 3261 §7.3.3 and the IANA registry of compact forms.
_COMPACT: Final = {
    "a": "Accept-Contact", "b": "Referred-By", "c": "Content-Type", "d": "Request-Disposition",
    "e": "Content-Encoding", "f": "From", "i": "Call-ID", "j": "Reject-Contact", "k": "Supported",
    "l": "Content-Length", "m": "Contact", "n": "Identity-Info", "o": "Event", "r": "Refer-To",
    "s": "Subject", "t": "To", "u": "Allow-Events", "v": "Via", "x": "Session-Expires",
    "y": "Identity",
}  # fmt: skip
_NAMES: Final = (
    *_COMPACT.values(),
    "Accept", "Accept-Encoding", "Accept-Language", "Alert-Info", "Allow", "Answer-Mode",
    "Authentication-Info", "Authorization", "CSeq", "Call-Info", "Content-Disposition",
    "Content-Language", "Date", "Diversion", "Error-Info", "Expires", "Flow-Timer", "History-Info",
    "In-Reply-To", "Info-Package", "MIME-Version", "Max-Forwards", "Min-Expires", "Min-SE",
    "Organization", "P-Asserted-Identity", "P-Associated-URI", "P-Preferred-Identity", "Path",
    "Priority", "Priv-Answer-Mode", "Privacy", "Proxy-Authenticate", "Proxy-Authorization",
    "Proxy-Require", "RAck", "RSeq", "Reason", "Record-Route", "Recv-Info", "Remote-Party-ID",
    "Replaces", "Reply-To", "Require", "Retry-After", "Route", "SIP-ETag", "SIP-If-Match",
    "Server", "Service-Route", "Subscription-State", "Timestamp", "Unsupported", "User-Agent",
    "Warning", "WWW-Authenticate",
)  # fmt: skip


class _Spellings(dict[str, str]):
    """From any usual spelling of a name to one form of it; others are made when asked for."""

    def __init__(self, form: Callable[[str], str]) -> None:
        known = {
            spelling: form(name)
            for name in _NAMES
            for spelling in (name, name.lower(), name.upper(), name.title(), name.capitalize())
        }
        for letter, name in _COMPACT.items():
            known[letter] = known[letter.upper()] = form(name)
        super().__init__(known)
        self._form = form

    def __missing__(self, name: str) -> str:
        return self.get(name.lower()) or self._form(name)


def _written(name: str) -> str:
    if not is_token(name):
        raise ValueError(f"header name {name!r}")
    return name


# What all spellings of a name have in common: the full name in lower case.
KEYS: Final = _Spellings(str.lower)
# The name as we write it. ValueError for what is none.
FULL_NAMES: Final = _Spellings(_written)


class Headers:
    """An ordered multi-map of header lines; names match in any case and in their compact form."""

    __slots__ = ("_index", "_items", "memo")

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._items = list(items)  # names as they came
        # Both live until the next change: values by key, and typed values (message.py's).
        self._index: dict[str, Sequence[str]] | None = None
        self.memo: dict[str, Any] = {}

    def lines(self, key: str) -> Sequence[str]:
        """As `get_all`, for a full name in lower case, without copying: not to be changed."""
        index = self._index
        if index is None:
            index = self._index = {}
            for name, value in self._items:
                found = KEYS[name]
                if found in index:
                    index[found] = (*index[found], value)
                else:
                    index[found] = (value,)
        return index.get(key, ())

    def written(self) -> list[str]:
        """The lines as they are written; ValueError for a name that is none."""
        return [f"{FULL_NAMES[name]}: {value}" for name, value in self._items]

    def _changed(self) -> None:
        self._index = None
        self.memo.clear()

    def get(self, name: str) -> str | None:
        """The value of the first line of that name, as written."""
        found = self.lines(KEYS[name])
        return found[0] if found else None

    def get_all(self, name: str) -> list[str]:
        """One value for each line of that name, as written."""
        return list(self.lines(KEYS[name]))

    def values(self, name: str) -> list[str]:
        """The values of all lines of that name, comma lists taken apart, empty ones left out.

        Raises MalformedMessage for a quote or bracket without end.
        """
        found: list[str] = []
        for line in self.lines(KEYS[name]):
            found += [value for value in split_list(line, name) if value]
        return found

    def add(self, name: str, value: str) -> None:
        """Append a line."""
        self._items.append((name, value))
        self._changed()

    def prepend(self, name: str, value: str) -> None:
        """Put a line before all others (a Via, a Route)."""
        self._items.insert(0, (name, value))
        self._changed()

    def set(self, name: str, value: str) -> None:
        """Replace all lines of that name by one, in the place of the first, or append it."""
        key = KEYS[name]
        for index, (found, _) in enumerate(self._items):
            if KEYS[found] == key:
                rest = [line for line in self._items[index + 1 :] if KEYS[line[0]] != key]
                self._items[index:] = [(name, value), *rest]
                break
        else:
            self._items.append((name, value))
        self._changed()

    def remove(self, name: str) -> None:
        """Drop all lines of that name; none is fine."""
        key = KEYS[name]
        self._items = [line for line in self._items if KEYS[line[0]] != key]
        self._changed()

    def remove_first(self, name: str) -> None:
        """Drop the first value of that name: the first of a comma list, or its whole line."""
        key = KEYS[name]
        for index, (found, value) in enumerate(self._items):
            if KEYS[found] == key:
                rest = split_list(value, name)[1:]
                if rest:
                    self._items[index] = (found, ", ".join(rest))
                else:
                    del self._items[index]
                break
        self._changed()

    def copy(self) -> Headers:
        """An independent copy."""
        return Headers(self._items)

    def __contains__(self, name: str) -> bool:
        return bool(self.lines(KEYS[name]))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Names of known headers as we write them, others as they came."""
        return iter([(FULL_NAMES[name], value) for name, value in self._items])

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return [(KEYS[name], value) for name, value in self._items] == [
            (KEYS[name], value) for name, value in other._items
        ]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Headers({list(self)!r})"


# -- Via -------------------------------------------------------------------------------------------

# The version is read loosely: a request of another version is answered 505 along this very Via.
_VIA = re.compile(
    rf"""
    [sS][iI][pP][ \t]*+/[ \t]*+[0-9]{{1,3}}\.[0-9]{{1,3}}[ \t]*+/[ \t]*+([{TOKEN_CHARS}]++)
    [ \t]++
    (\[[0-9A-Fa-f:.]++\]|[A-Za-z0-9_][A-Za-z0-9_.-]*+)
    (?:[ \t]*+:[ \t]*+([0-9]{{1,5}}))?
    [ \t]*+(?=[;,]|$)
    """,
    re.VERBOSE,
)


class Via(msgspec.Struct, frozen=True, gc=False):
    """One hop; `transport` in upper case, `host` in lower case without brackets."""

    transport: str
    host: str
    port: int | None = None
    params: Params = ()

    @property
    def branch(self) -> str | None:
        return param_of(self.params, "branch")

    @property
    def received(self) -> str | None:
        """The address the request came from, without brackets (some peers write them)."""
        value = param_of(self.params, "received")
        return value.removeprefix("[").removesuffix("]") if value else None

    @property
    def rport(self) -> int | Literal[""] | None:
        """The source port; "" when only asked for (RFC 3581); None: absent or unreadable."""
        value = param_of(self.params, "rport")
        if value is None or value == "":
            return None if value is None else ""
        return int(value) if is_digits(value) and len(value) <= 5 else None

    @property
    def sent_by(self) -> tuple[str, int]:
        """Host and port, the transport's default port filled in (RFC 3261 §18.2.1)."""
        default = 5061 if self.transport in ("TLS", "TLS-SCTP", "WSS") else 5060
        return self.host, default if self.port is None else self.port

    def __str__(self) -> str:
        return format_via(self)


_PLAIN_VIA = re.compile(rf"SIP/2\.0/([A-Z]++) {PLAIN_HOST}{PLAIN_PARAM * 3}")


def parse_via(text: str) -> Via:
    """Read one Via value; raises MalformedMessage."""
    match = _PLAIN_VIA.fullmatch(text)
    if match is not None:
        transport, host, port, a, b, c, d, e, f = match.groups()
        number = None if port is None else int(port)
        return Via(transport, host, number, plain_params(a, b, c, d, e, f))
    match = _VIA.match(text)
    if match is None:
        raise MalformedMessage("Via cannot be read")
    transport, host, port = match.groups()
    if port is not None and int(port) > 65535:
        raise MalformedMessage(f"Via: port {port}")
    host = parse_host(host) if host[0] == "[" else host.lower()
    return Via(
        transport.upper(),
        host,
        None if port is None else int(port),
        parse_params(text[match.end() :], "Via"),
    )


def check_vias(line: str) -> None:
    """Raises where `parse_via` does for a value of the line, and makes none."""
    if _PLAIN_VIA.fullmatch(line) is None:
        for value in split_list(line, "Via"):
            parse_via(value)


def read_sent_by(text: str) -> str | None:
    """A Via value cut down to what says where to answer; None when that cannot be read."""
    match = _VIA.match(text)
    if match is None or (match[3] is not None and int(match[3]) > 65535):
        return None
    return match[0].rstrip(WHITESPACE)


def format_via(via: Via) -> str:
    """Write one Via value."""
    return f"SIP/2.0/{via.transport} {format_host(via.host, via.port)}{format_params(via.params)}"


# -- From, To, Contact, Route ----------------------------------------------------------------------


class NameAddr(msgspec.Struct, frozen=True, gc=False):
    """A URI with a display name (plain text) and header parameters: From, To, Contact, Route."""

    uri: Uri
    display: str = ""
    params: Params = ()

    @property
    def tag(self) -> str | None:
        return param_of(self.params, "tag")

    def param(self, name: str) -> str | None:
        """The value of a header parameter, "" for a flag, None when absent."""
        return param_of(self.params, name)

    def __str__(self) -> str:
        return format_name_addr(self)


# "name" <uri>;params, without escapes and odd blanks.
_PLAIN_ADDRESS = re.compile(rf'(?:"([^"\\]*+)"[ \t]*+|)<{PLAIN_URI}>{PLAIN_PARAM * 2}')


def parse_name_addr(text: str, where: str = "address") -> NameAddr:
    """Read one name-addr or addr-spec with its parameters; `where` names the header in a fault."""
    match = _PLAIN_ADDRESS.fullmatch(text)
    if match is not None and len(text) <= MAX_URI:
        display, scheme, user, host, port, a, b, c, d, e, f, g, h = match.groups()
        uri: Uri = plain_uri(scheme, user, host, port, a, b, c, d)
        return NameAddr(uri, display or "", () if e is None else plain_params(e, f, g, h))
    text = text.strip(WHITESPACE)
    if text[:1] == '"':
        display, begin = read_quoted(text, 0, where)
        begin = _skip_blanks(text, begin)
        if text[begin : begin + 1] != "<":
            raise MalformedMessage(f"{where}: no <URI> after the display name")
    else:
        begin = text.find("<")
        if begin < 0:
            return _parse_addr_spec(text, where)
        # Unquoted names beyond ASCII tokens are common; a quote or a comma in one is ambiguous.
        display = text[:begin].rstrip(WHITESPACE)
        if display and any(character in display for character in '",;>'):
            raise MalformedMessage(f"{where}: display name needs quotes")
    end = text.find(">", begin)
    if end < 0:
        raise MalformedMessage(f"{where}: '<' without '>'")
    try:
        uri = parse_uri(text[begin + 1 : end])
    except MalformedMessage as fault:
        raise MalformedMessage(f"{where}: {fault.reason}") from None
    return NameAddr(uri, display, parse_params(text[end + 1 :].lstrip(WHITESPACE), where))


def check_name_addrs(line: str, where: str) -> None:
    """Raises where `parse_name_addr` does for a value of the line, and makes none."""
    if _PLAIN_ADDRESS.fullmatch(line) is None or len(line) > MAX_URI:
        for value in split_list(line, where):
            parse_name_addr(value, where)


def _parse_addr_spec(text: str, where: str) -> NameAddr:
    """Without angle brackets every parameter is the header's (RFC 3261 §20)."""
    address, semicolon, params = text.partition(";")
    address = address.rstrip(WHITESPACE)
    if "?" in address:
        raise MalformedMessage(f"{where}: URI with headers needs angle brackets")
    try:
        uri = parse_uri(address)
    except MalformedMessage as fault:
        raise MalformedMessage(f"{where}: {fault.reason}") from None
    return NameAddr(uri, "", parse_params(semicolon + params, where))


def format_name_addr(address: NameAddr) -> str:
    """Write with angle brackets always, and the display name quoted: never ambiguous."""
    uri = format_uri(address.uri)
    if address.display:
        return f"{quote(address.display)} <{uri}>{format_params(address.params)}"
    return f"<{uri}>{format_params(address.params)}"


def _skip_blanks(text: str, position: int) -> int:
    return len(text) - len(text[position:].lstrip(WHITESPACE))


# -- CSeq ------------------------------------------------------------------------------------------

_CSEQ = re.compile(rf"[ \t]*+([0-9]{{1,32}})[ \t]++([{TOKEN_CHARS}]++)[ \t]*+")
_METHODS: Final = frozenset(
    ("INVITE", "ACK", "CANCEL", "BYE", "REGISTER", "OPTIONS", "INFO", "MESSAGE", "UPDATE", "PRACK")
)


class CSeq(msgspec.Struct, frozen=True, gc=False):
    number: int
    method: str

    def __str__(self) -> str:
        return format_cseq(self)


def parse_cseq(text: str) -> CSeq:
    """Read a CSeq; the number is below 2**31 (RFC 3261 §8.1.1.5)."""
    number, _, method = text.partition(" ")
    if method in _METHODS and len(number) <= 9 and is_digits(number):
        return CSeq(int(number), method)
    match = _CSEQ.fullmatch(text)
    if match is None:
        raise MalformedMessage("CSeq cannot be read")
    if int(match[1]) >= 1 << 31:
        # RFC 3261 asks senders to stay below 2**31; nothing legal comes near 2**32.
        raise MalformedMessage("CSeq number of 2**31 or more")
    return CSeq(int(match[1]), match[2])


def format_cseq(cseq: CSeq) -> str:
    return f"{cseq.number} {cseq.method}"


# -- Challenges and credentials --------------------------------------------------------------------

_AUTH_PARAM = re.compile(
    rf"[ \t]*+([{TOKEN_CHARS}]++)[ \t]*+=[ \t]*+"
    r'(?:"((?:[^"\\]++|\\.)*)"|([^",\s]*+))[ \t]*+(?:,|$)',
    re.DOTALL,
)
# RFC 7616 §3.3 and §3.4 fix which values are quoted; FRITZ!Box and older Asterisk insist on it.
_QUOTED_ALWAYS: Final = frozenset(
    ("realm", "domain", "nonce", "opaque", "username", "uri", "response", "cnonce", "username*")
)


class Challenge(msgspec.Struct, frozen=True, gc=False):
    """WWW-Authenticate or Proxy-Authenticate: scheme and parameters, values without quotes."""

    scheme: str
    params: Params = ()

    def param(self, name: str) -> str | None:
        return param_of(self.params, name)

    def __str__(self) -> str:
        return format_challenge(self)


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """Authorization or Proxy-Authorization: scheme and parameters, values without quotes."""

    scheme: str
    params: Params = ()

    def param(self, name: str) -> str | None:
        return param_of(self.params, name)

    def __str__(self) -> str:
        return format_credentials(self)


def parse_challenge(text: str) -> Challenge:
    """Read one WWW-Authenticate or Proxy-Authenticate line; raises MalformedMessage."""
    return Challenge(*_parse_auth(text, "challenge"))


def parse_credentials(text: str) -> Credentials:
    """Read one Authorization or Proxy-Authorization line; raises MalformedMessage."""
    return Credentials(*_parse_auth(text, "credentials"))


def _parse_auth(text: str, where: str) -> tuple[str, Params]:
    scheme, _, rest = text.strip(WHITESPACE).partition(" ")
    if not is_token(scheme):
        raise MalformedMessage(f"{where}: no scheme")
    params: list[tuple[str, str | None]] = []
    position = 0
    while (match := _AUTH_PARAM.match(rest, position)) is not None:
        position = match.end()
        name, quoted, plain = match.groups()
        if quoted is not None and "\\" in quoted:
            quoted = _unescape_auth(quoted)
        params.append((name.lower(), plain if quoted is None else quoted))
        if len(params) > MAX_PARAMS:
            raise MalformedMessage(f"{where}: more than {MAX_PARAMS} parameters")
    if rest[position:].strip(WHITESPACE):
        raise MalformedMessage(f"{where}: parameters cannot be read")
    return scheme, tuple(params)


def _unescape_auth(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)


def format_challenge(challenge: Challenge) -> str:
    return _format_auth(challenge.scheme, challenge.params, qop_quoted=True)


def format_credentials(credentials: Credentials) -> str:
    return _format_auth(credentials.scheme, credentials.params, qop_quoted=False)


def _format_auth(scheme: str, params: Params, *, qop_quoted: bool) -> str:
    written: list[str] = []
    for name, value in params:
        value = value or ""
        quoted = name in _QUOTED_ALWAYS or (name == "qop" and qop_quoted) or not is_token(value)
        written.append(f"{name}={quote(value) if quoted else value}")
    return f"{scheme} {', '.join(written)}" if written else scheme
