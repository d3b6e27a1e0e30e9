"""SIP URIs and the others that a header may carry (RFC 3261 §19.1, RFC 5118).

The user part, password, parameters and headers stay as escaped on the wire: a registered contact
is called back with its URI whole (`;ob`, `;line=`, `;rinstance=`), octet by octet.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from doorstation.sip.grammar import (
    MAX_PARAMS,
    PLAIN_HOST,
    PLAIN_PARAM,
    TOKEN_CHARS,
    MalformedMessage,
    Params,
    param_of,
    plain_params,
)

# Attack bounded: a URI as long as the message, kept per call, per contact and per log line.
MAX_URI: Final = 2048

# Nothing that could end a URI in the place where it stands: blanks, controls, quotes, brackets.
_UNSAFE = re.compile(r'[\x00-\x20<>"\x7f]')
_SIP_URI = re.compile(
    r"""
    (?P<scheme>[sS][iI][pP][sS]?+):
    (?:(?P<user>[^@:\x00-\x20<>"\x7f]*+)(?::(?P<password>[^@\x00-\x20<>"\x7f]*+))?@)?
    (?P<host>\[[0-9A-Fa-f:.]++\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*+))
    (?::(?P<port>[0-9]{1,5}))?
    (?P<params>(?:;[^;?\x00-\x20<>"\x7f]*+)*)
    (?:\?(?P<headers>[^\x00-\x20<>"\x7f]*+))?
    """,
    re.VERBOSE,
)
# See grammar.py. Its groups are what `plain_uri` takes.
PLAIN_URI: Final = rf"(sips?+):(?:([A-Za-z0-9\-_.!~*'()&=+$,%#]++)@|){PLAIN_HOST}{PLAIN_PARAM * 2}"
_PLAIN_URI = re.compile(PLAIN_URI)
_OTHER_URI = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*+):([^\x00-\x20<>"\x7f]++)')
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*+")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]++")
_TO_ESCAPE_IN_USER = re.compile(r"[^A-Za-z0-9\-_.!~*'()&=+$,;?/]")
_PARAM_NAME = re.compile(rf"[{TOKEN_CHARS}\[\]/:&$]++")
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
# RFC 3261 §19.1.4: these five count even when only one side has them.
_MATCH_ALWAYS: Final = ("user", "ttl", "method", "maddr", "transport")


class SipUri(msgspec.Struct, frozen=True, gc=False):
    """A sip: or sips: URI; `host` in lower case, IPv6 without brackets; the rest as on the wire."""

    # gc=False, as in the other values that every message is made of: the collector need not follow
    # them, texts cannot form a circle.
    scheme: str = "sip"
    user: str = ""
    host: str = ""
    port: int | None = None
    password: str | None = None
    params: Params = ()
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        user_text: str,
        host: str,
        port: int | None = None,
        scheme: str = "sip",
        params: Params = (),
    ) -> SipUri:
        """From a plain dial string: `**9` stays `**9`, `#` becomes `%23`."""
        host = host.removeprefix("[").removesuffix("]").lower()
        return cls(scheme=scheme, user=escape_user(user_text), host=host, port=port, params=params)

    @property
    def user_text(self) -> str:
        """The user part with its escapes resolved: for people and for comparing."""
        return unescape_user(self.user)

    @property
    def is_secure(self) -> bool:
        return self.scheme == "sips"

    def param(self, name: str) -> str | None:
        """The value of a parameter as written, "" for a flag, None when absent."""
        return param_of(self.params, name)

    def has_param(self, name: str) -> bool:
        return param_of(self.params, name) is not None

    def with_(self, **changes: Any) -> SipUri:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def __str__(self) -> str:
        return format_uri(self)


class OtherUri(msgspec.Struct, frozen=True, gc=False):
    """Any other scheme (tel:, http:, urn:), kept as it came."""

    scheme: str
    rest: str

    def __str__(self) -> str:
        return format_uri(self)


Uri = SipUri | OtherUri


def escape_user(text: str) -> str:
    """Escape a dial string or account name for the user part (RFC 3261 §19.1.2)."""

    def escaped(match: re.Match[str]) -> str:
        return "".join(f"%{octet:02X}" for octet in match[0].encode())

    return _TO_ESCAPE_IN_USER.sub(escaped, text)


def unescape_user(text: str) -> str:
    """Resolve escapes as UTF-8; what is not UTF-8 or no escape stays visible, not an error."""
    if "%" not in text:
        return text
    return _ESCAPES.sub(
        lambda match: bytes.fromhex(match[0].replace("%", "")).decode(errors="replace"), text
    )


def parse_uri(text: str) -> Uri:
    """Read one URI, without the angle brackets around it; raises MalformedMessage."""
    if len(text) > MAX_URI:
        raise MalformedMessage(f"URI of {len(text)} characters, {MAX_URI} at most")
    match = _PLAIN_URI.fullmatch(text)
    if match is not None:
        return plain_uri(*match.groups())
    match = _SIP_URI.fullmatch(text)
    if match is None:
        return _parse_other(text)
    scheme, user, password, host, port, params, headers = match.groups()
    if host[0] == "[":
        host = read_ipv6(host[1:-1])
    number = None
    if port is not None:
        number = int(port)
        if number > 65535:
            raise MalformedMessage(f"URI: port {port}")
    return SipUri(
        scheme.lower(),
        user or "",
        host.lower(),
        number,
        password,
        _parse_uri_params(params) if params else (),
        _parse_uri_headers(headers) if headers else (),
    )


def plain_uri(
    scheme: str,
    user: str | None,
    host: str,
    port: str | None,
    name: str | None,
    value: str | None,
    second: str | None,
    second_value: str | None,
) -> SipUri:
    """From the groups of PLAIN_URI."""
    number = None if port is None else int(port)
    params = plain_params(name, value, second, second_value) if name is not None else ()
    return SipUri(scheme, user or "", host, number, None, params)


def _parse_other(text: str) -> OtherUri:
    match = _OTHER_URI.fullmatch(text)
    if match is None:
        raise MalformedMessage("URI cannot be read")
    scheme = match[1].lower()
    if scheme in ("sip", "sips"):
        raise MalformedMessage("SIP URI cannot be read")
    return OtherUri(scheme, match[2])


def _parse_uri_params(text: str) -> Params:
    if text.count(";") > MAX_PARAMS:
        raise MalformedMessage(f"URI with more than {MAX_PARAMS} parameters")
    params: list[tuple[str, str | None]] = []
    for part in text[1:].split(";"):
        if not part:
            continue  # `;;` in a URI: harmless, and seen in the field
        name, equals, value = part.partition("=")
        if _PARAM_NAME.fullmatch(name) is None:
            raise MalformedMessage("URI parameter cannot be read")
        params.append((name.lower(), value if equals else None))
    return tuple(params)


def _parse_uri_headers(text: str) -> tuple[tuple[str, str], ...]:
    if text.count("&") > MAX_PARAMS:
        raise MalformedMessage(f"URI with more than {MAX_PARAMS} headers")
    headers: list[tuple[str, str]] = []
    for part in text.split("&"):
        if part:
            name, _, value = part.partition("=")
            headers.append((name, value))
    return tuple(headers)


def read_ipv6(text: str) -> str:
    """An IPv6 address without brackets, in lower case; raises MalformedMessage.

    Looks at shape only. Three colons in a row, which the grammar of RFC 3261 produces by mistake,
    are read as two (RFC 5118 §4.10).
    """
    address = text.lower().replace(":::", "::")
    groups = address.split(":")
    if not 3 <= len(groups) <= 9 or address.count("::") > 1 or _IPV6.fullmatch(address) is None:
        raise MalformedMessage(f"IPv6 address cannot be read: {text[:50]}")
    if any(len(group) > 4 and "." not in group for group in groups):
        raise MalformedMessage(f"IPv6 address cannot be read: {text[:50]}")
    if "::" not in address and len(groups) != (7 if "." in groups[-1] else 8):
        raise MalformedMessage(f"IPv6 address cannot be read: {text[:50]}")
    return address


def parse_host(text: str) -> str:
    """A host name or address in lower case, brackets taken off; raises MalformedMessage."""
    if text.startswith("[") and text.endswith("]"):
        return read_ipv6(text[1:-1])
    if _HOST.fullmatch(text) is None:
        raise MalformedMessage(f"host cannot be read: {text[:50]}")
    return text.lower()


def format_host(host: str, port: int | None = None) -> str:
    """`host`, `host:port`, `[IPv6]:port`."""
    text = _bracketed(host) if ":" in host else host
    return text if port is None else f"{text}:{port}"


def _bracketed(address: str) -> str:
    """An IPv6 address without its interface, which is nobody else's matter (RFC 4007 §11.2)."""
    return f"[{address.partition('%')[0]}]"


def format_uri(uri: Uri) -> str:
    """Write a URI, without angle brackets. ValueError when a part could end it early."""
    if isinstance(uri, OtherUri):
        text = f"{uri.scheme}:{uri.rest}"
    else:
        host = _bracketed(uri.host) if ":" in uri.host else uri.host
        if uri.password is not None:
            host = f"{uri.user}:{uri.password}@{host}"
        elif uri.user:
            host = f"{uri.user}@{host}"
        text = f"{uri.scheme}:{host}" if uri.port is None else f"{uri.scheme}:{host}:{uri.port}"
        for name, value in uri.params:
            text += f";{name}" if value is None else f";{name}={value}"
        if uri.headers:
            text += "?" + "&".join(f"{name}={value}" for name, value in uri.headers)
    if _UNSAFE.search(text) is not None:
        raise ValueError(f"URI part not escaped: {text!r}")
    return text


def same_uri(a: Uri, b: Uri) -> bool:
    """Whether both name the same resource (RFC 3261 §19.1.4)."""
    if isinstance(a, OtherUri) or isinstance(b, OtherUri):
        return a == b
    if (a.scheme, a.host, a.port) != (b.scheme, b.host, b.port):
        return False
    if _resolved(a.user) != _resolved(b.user):
        return False
    if _resolved(a.password or "") != _resolved(b.password or ""):
        return False
    ours, theirs = dict(a.params), dict(b.params)
    for name in _MATCH_ALWAYS:
        if (name in ours) != (name in theirs):
            return False
    for name in ours.keys() & theirs.keys():
        if _resolved(ours[name] or "").lower() != _resolved(theirs[name] or "").lower():
            return False
    return _header_set(a) == _header_set(b)


def _header_set(uri: SipUri) -> list[tuple[str, str]]:
    return sorted((name.lower(), _resolved(value)) for name, value in uri.headers)


def _resolved(text: str) -> str:
    """Escapes resolved, except where the escaped character means something else unescaped."""
    if "%" not in text:
        return text

    def resolve(match: re.Match[str]) -> str:
        character = chr(int(match[0][1:], 16))
        if character.isascii() and (character.isalnum() or character in "-_.!~*'()"):
            return character
        return match[0].upper()

    return _ESCAPE.sub(resolve, text)
