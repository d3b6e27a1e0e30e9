"""What one text may be. A check gives "" or 'what is wrong; what would be valid'."""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

MIN_CODE_DIGITS: Final = 4
MAX_CODE_DIGITS: Final = 16
MAX_TEXT: Final = 1024
"""Longer than any URI or path in use; keeps requests inside one datagram."""
MAX_DOCUMENT: Final = 16384
"""Of an option that holds a whole document."""
DIAL_CHARACTERS: Final = frozenset("0123456789*#+")
TLS_NEEDS_NAME: Final = "TLS proves a name, not an address; a domain name, or another transport"

_PARAM_SIGNS: Final = frozenset("-_.!%*+'~")


def parse_host_port(text: str) -> tuple[str, int | None]:
    """Split `host`, `host:port`, `[v6]:port` or a bare IPv6 address; the host without brackets.

    Raises ValueError, saying what would be valid.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise ValueError(f"{text!r} is not an address; write [IPv6] or [IPv6]:port")
        port = rest[1:] if rest else None
    elif text.count(":") > 1:
        host, port = text, None
    else:
        host, colon, tail = text.partition(":")
        port = tail if colon else None
    if fault := host_fault(host):
        raise ValueError(fault)
    if port is None:
        return host, None
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise ValueError(f"{port!r} is not a port; a number from 1 to 65535")
    return host, int(port)


def is_address(host: str) -> bool:
    """Whether `host` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def host_fault(host: str) -> str:
    if is_address(host) and "[" not in host:
        return ""
    wrong = f"{host!r} is not a host; a name such as fritz.box or an IP address"
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or labels[-1].isdigit():
        return wrong
    for label in labels:
        plain = label.replace("-", "a")
        if not (plain.isascii() and plain.isalnum() and len(label) < 64):
            return wrong
        if label.startswith("-") or label.endswith("-"):
            return wrong
    return ""


def host_port_fault(text: str) -> str:
    try:
        parse_host_port(text)
    except ValueError as error:
        return str(error)
    return ""


def bare_host(host_port: str) -> str:
    """The host in small letters, without its port; a text that is none as it stands."""
    try:
        return parse_host_port(host_port)[0].lower()
    except ValueError:
        return host_port.lower()


def address_fault(text: str) -> str:
    if is_address(text) and "[" not in text:
        return ""
    return f"{text!r} is not an IP address; 0.0.0.0 and :: mean every one"


def bound_twice(hosts: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Of local addresses: which of them, and what before it leaves no port to be bound there."""
    before: dict[str, str] = {}
    for place, host in enumerate(hosts):
        if address_fault(host):
            continue
        address = ipaddress.ip_address(host)
        some, every = f"some of IPv{address.version}", f"every of IPv{address.version}"
        takes, free = (every, some) if address.is_unspecified else (str(address), every)
        other = before.get(takes) or before.get(free)
        if other:
            yield place, other
        before.setdefault(takes, host)
        before.setdefault(some, host)


def split_uri(text: str) -> tuple[str, str, str, tuple[str, ...]]:
    """Scheme, user part (raw), host[:port] and parameters of a SIP URI; no check of any."""
    scheme, _, rest = text.partition(":")
    user, _, host = rest.rpartition("@")
    host, *params = host.split(";")
    return scheme.lower(), user, host, tuple(params)


def sip_uri_fault(text: str) -> str:
    """The light check that settings need; `doorstation.sip.uri` has the whole grammar."""
    scheme, user, host, params = split_uri(text)
    if scheme not in {"sip", "sips"}:
        return f"{text!r} is not a SIP URI; write sip:user@host or sip:host"
    if ":" in user:
        return "a URI must not hold a password; write sip:user@host"
    if "@" in user:
        return "a URI has one @; write sip:user@host"
    for character in text:
        if not "!" <= character <= "~" or character in '<>"#\\^`{|}':
            valid = "write %23 for #" if character == "#" else "escape it as %XX"
            return f"{character!r} cannot stand in a SIP URI; {valid}"
    for escape in text.split("%")[1:]:
        if len(escape) < 2 or not set(escape[:2]) <= set("0123456789abcdefABCDEF"):
            return "% must be followed by two hexadecimal digits; write %25 for a % itself"
    if "?" in host or any("?" in param for param in params):
        return "a URI here has no ?headers; write sip:user@host;param=value"
    for param in params:
        name = param.partition("=")[0]
        if not (name and all(c.isalnum() or c in _PARAM_SIGNS for c in name)) or len(params) > 16:
            return f"';{param}' cannot stand in a SIP URI; ;name or ;name=value, at most 16 of them"
    if host.count(":") > 1 and not host.startswith("["):
        return f"{host!r} is not a host; an IPv6 address stands in [brackets]"
    if "%" in host:
        return f"{host!r} cannot stand in a SIP URI; a name for it in /etc/hosts can"
    return host_port_fault(host)


def secure_address(uri: str) -> bool:
    """Whether a SIP URI wants TLS with an address, which no certificate proves."""
    scheme, _, host, params = split_uri(uri)
    secure = scheme == "sips" or "transport=tls" in [param.lower() for param in params]
    return secure and is_address(bare_host(host))


def is_dial_string(text: str) -> bool:
    """Whether `text` is dialled at the account's domain: digits, `*`, `#`, `+`."""
    return bool(text) and DIAL_CHARACTERS.issuperset(text)


def is_name(text: str) -> bool:
    """Whether `text` can name a part: a small letter, then small letters, digits, `_`, `-`."""
    plain = text.replace("_", "a").replace("-", "a")
    return (
        0 < len(text) <= 32
        and text.isascii()
        and text[0].isalpha()
        and plain.isalnum()
        and text == text.lower()
    )


def target_fault(text: str) -> str:
    if is_dial_string(text) or is_name(text):
        return ""
    if ":" in text:
        return sip_uri_fault(text)
    return f"{text!r} cannot be rung; a number, the name of a peer, or sip:user@host"


def code_fault(text: str) -> str:
    if text and text.isascii() and text.isdigit() and len(text) <= MAX_CODE_DIGITS:
        return ""
    return (
        f"not a code; {MIN_CODE_DIGITS} to {MAX_CODE_DIGITS} digits 0 to 9 "
        "(* clears and # ends an entry, so neither is part of a code)"
    )


def card_fault(text: str) -> str:
    if 4 <= len(text) <= 20 and all(c in "0123456789ABCDEF" for c in text):
        return ""
    return "not a card or code; 4 to 20 characters 0 to 9 and A to F"


def parse_port_range(text: str) -> tuple[int, int]:
    """First and last port of `first-last`. Raises ValueError, saying what would be valid."""
    first, dash, last = text.partition("-")
    numbers = [int(t) for t in (first, last) if t.isascii() and t.isdigit() and len(t) < 6]
    if not dash or len(numbers) != 2 or not 1024 <= numbers[0] <= numbers[1] - 3 <= 65532:
        raise ValueError(
            f"{text!r} is not a range of ports; first-last with at least four ports from 1024 "
            "to 65535, for example 16384-16482"
        )
    return numbers[0], numbers[1]


def port_range_fault(text: str) -> str:
    try:
        parse_port_range(text)
    except ValueError as error:
        return str(error)
    return ""


def user_fault(text: str) -> str:
    if text and all("!" <= c <= "~" and c not in '@:<>"' for c in text):
        return ""
    return f"{text!r} is not a user; letters, digits and signs, without @ and without the domain"


def certificate_fault(text: str) -> str:
    if "PRIVATE KEY" in text:
        return "a private key, which belongs into no setting; certificates alone"
    if text and "-----BEGIN CERTIFICATE-----" not in text:
        return "no certificate; the text of a PEM file"
    return ""


def url_fault(url: str) -> str:
    """For a place that files are fetched from."""
    if len(url) > MAX_TEXT or not url.isascii() or not url.isprintable() or " " in url:
        return "not an address; https://HOST/PATH"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "not an address; https://HOST/PATH"
    if parts.scheme not in ("https", "http", "tftp"):
        return f"{parts.scheme or 'no scheme'}: https, or http and tftp for signed files"
    if parts.username is not None or parts.password is not None:
        return "an address with a password in it; one without"
    if not parts.hostname or port == 0:
        return "no host; https://HOST/PATH"
    return ""
