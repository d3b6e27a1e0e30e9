"""SRTP in the session description: `a=crypto` (RFC 4568), `a=fingerprint`, `a=setup` (RFC 8122).

The readers skip what cannot be kept to: unknown suites and hashes, more than one key, session
parameters that change what is on the wire. The writer writes tag, suite and key alone.
"""

import binascii
from dataclasses import dataclass, field
from typing import Final

from doorstation.media.srtp import SUITES
from doorstation.sdp.description import Attribute, Media, SessionDescription

MAX_LINES: Final = 16  # bounds the keys decoded of one m-line; the longest offers seen have nine

_HASHES: Final = {"sha-256": 32, "sha-384": 48, "sha-512": 64}  # octets; SHA-1 proves too little

# Told for information, or switched on for what we do not do: neither changes the packets.
_HARMLESS: Final = ("-", "wsh=", "kdr=0")


@dataclass(frozen=True, slots=True)
class Crypto:
    """One usable line. `key`: master key and salt, never printed; `mki`: in each of its packets."""

    tag: str
    suite: str
    key: bytes = field(repr=False)
    mki: bytes = b""


def read_cryptos(media: Media) -> tuple[Crypto, ...]:
    """The lines of an m-line that can be used, in the far end's order."""
    lines = list(media.values("crypto"))[:MAX_LINES]
    return tuple(found for line in lines if (found := parse_crypto(line)) is not None)


def parse_crypto(value: str) -> Crypto | None:
    """Read what stands after `a=crypto:`; None for a line that we cannot keep to."""
    tag, suite_name, key_params, *session_params = [*value.split(), "", "", ""]
    suite = SUITES.get(suite_name.upper())
    if suite is None or not _number(tag, 9):
        return None
    if any(not param.lower().startswith(_HARMLESS) for param in session_params if param):
        return None
    method, colon, info = key_params.partition(":")
    if not colon or method.lower() != "inline" or ";" in info:
        return None
    text, *options = info.split("|")
    key = _decode(text)
    mki: bytes | None = b""
    for option in options:
        if ":" in option:
            mki = _mki(option)
        elif not _number(option.removeprefix("2^"), 15):
            # How long a key lasts is for its sender to keep to: he sends another in time.
            return None
    if key is None or len(key) != suite.master or mki is None:
        return None
    return Crypto(tag, suite.name, key, mki)


def format_crypto(crypto: Crypto) -> Attribute:
    """The attribute that says what we send with."""
    key = binascii.b2a_base64(crypto.key, newline=False).decode()
    return Attribute("crypto", f"{crypto.tag} {crypto.suite} inline:{key}")


def _number(text: str, digits: int) -> bool:
    return 1 <= len(text) <= digits and text.isascii() and text.isdigit()


def _decode(text: str) -> bytes | None:
    """Base64, whose padding some phones leave out."""
    text = text.rstrip("=")
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:  # also of characters outside ASCII
        return None


def _mki(text: str) -> bytes | None:
    """`value:length`: a decimal number and the octets that it takes in each packet."""
    number, _, length = text.partition(":")
    if not (_number(number, 39) and _number(length, 3) and 1 <= int(length) <= 128):
        return None
    try:
        return int(number).to_bytes(int(length), "big")
    except OverflowError:
        return None


def read_fingerprints(
    description: SessionDescription, media: Media
) -> tuple[tuple[str, bytes], ...]:
    """(hash, digest) of the certificates that the far end may show; the line's own come first."""
    values = [*media.values("fingerprint")] or [*description.values("fingerprint")]
    found = []
    for value in values[:MAX_LINES]:
        name, digest = [*value.lower().split(), "", ""][:2]
        pairs = digest.split(":")
        if len(pairs) == _HASHES.get(name) and all(len(pair) == 2 for pair in pairs):
            try:
                found.append((name, binascii.unhexlify("".join(pairs))))
            except ValueError:
                continue
    return tuple(found)


def read_setup(description: SessionDescription, media: Media) -> str:
    """Who begins, in the far end's word for itself; "" when it says nothing."""
    for value in (*media.values("setup"), *description.values("setup")):
        return value.strip().lower()
    return ""
