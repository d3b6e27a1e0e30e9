"""Signed configuration files: a compact JWS that holds settings, or names the files that do.

    {"sub": "*", "iat": 1800000000, "serial": 7, "expires": 1800086400,
     "settings": {"audio": {"country": "at"}},
     "files": [{"name": "common.json", "sha256": "..."}, {"name": "b827eb010203.json", ...}]}

The files lie beside the signed one; a later one wins, value by value, and `settings` over all. Each
is JSON, a settings tree. Old files with a good signature are stopped by `serial`. One file may
serve doors of several versions: what a door does not know it leaves out, unless it is `required`.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from doorstation.errors import ProtocolError
from doorstation.hashes import sha256
from doorstation.provision.jws import NotSigned, PublicKey, parse_token
from doorstation.provision.layers import Raw, leaves, merged
from doorstation.settings.keys import OWNERS_ONLY
from doorstation.settings.reader import without_unknown

MAX_FILE: Final = 256 * 1024
"""Bytes of one file: a door's whole configuration is a few thousand."""
MAX_FILES: Final = 16

FIRST_USE_SECONDS: Final = 1800.0
"""How long after its first start a door without an owner takes the first key it is shown."""

FIRST_USE: Final = "first use"
"""The rule by which such a key was taken."""

NOT_BY_FIRST_USE: Final = (*OWNERS_ONLY, "tls", "control", "board")
"""Sections that a file of a key nobody has confirmed may not hold. Nor may it hold a pin."""


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the list, by a name beside the signed one."""

    name: str
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payload of a signed file."""

    sub: str
    iat: int
    serial: int
    expires: int | None = None
    settings: dict[str, Any] = {}
    files: tuple[Named, ...] = ()
    required: tuple[str, ...] = ()
    """Options and sections that a door has to know, else the file is not for it."""


class Trust(msgspec.Struct, frozen=True):
    """What decides whose files count. `since_reset`: seconds since the first start."""

    owners: Mapping[str, PublicKey]
    """By kid; none: the door is unclaimed."""
    fingerprint: str = ""
    """Kid of the key that an SD card or the settings name, "" for none."""
    first_use: bool = False
    since_reset: float = 0.0
    private_source: bool = False
    """Whether the file came from a private address."""
    serial: int = 0
    """Of the last file that was taken."""


class Accepted(msgspec.Struct, frozen=True):
    """A signed file that counts. `new_owner`: the key that becomes the owner's by it."""

    manifest: Manifest
    kid: str
    new_owner: PublicKey | None
    rule: str


def read_signed(
    data: bytes, names: frozenset[str], trust: Trust, wall: float | None, built: float
) -> Accepted:
    """Judge a signed file. `built`: when this firmware was made, seconds since 1970.

    Raises ProtocolError, saying which rule refused it.
    """
    if len(data) > MAX_FILE:
        raise ProtocolError(f"{len(data)} bytes, {MAX_FILE} are read", status=413)
    token = parse_token(data.decode("ascii", "replace").strip(), limit=MAX_FILE)
    key, new_owner, rule = _signer(token.kid, token.header_key, trust)
    try:
        manifest = msgspec.json.decode(token.check(key), type=Manifest)
    except (ValueError, RecursionError) as fault:  # not UTF-8 is no DecodeError of msgspec's
        raise ProtocolError(f"file: {fault}", status=422) from None
    _check_manifest(manifest, names, trust, wall, built)
    return Accepted(manifest, token.kid, new_owner, rule)


def _signer(
    kid: str, offered: PublicKey | None, trust: Trust
) -> tuple[PublicKey, PublicKey | None, str]:
    """(the key, the same if it becomes the owner's, the rule). Raises NotSigned."""
    if trust.owners:
        known = trust.owners.get(kid)
        if known is None:
            raise NotSigned("signed by no owner of this door")
        return known, None, "owner"
    if offered is None or offered.kid != kid:
        raise NotSigned("a door without an owner needs the whole key in the file (jwk)")
    if trust.fingerprint:
        if offered.kid != trust.fingerprint:
            raise NotSigned("not the key whose fingerprint this door was given")
        return offered, offered, "fingerprint"
    if not trust.first_use:
        raise NotSigned("this door has no owner yet, and takes none by itself")
    if trust.since_reset > FIRST_USE_SECONDS:
        raise NotSigned("this door has no owner; its first half hour is over")
    if not trust.private_source:
        raise NotSigned("a first owner comes from a private address only")
    return offered, offered, FIRST_USE


def _check_manifest(
    manifest: Manifest, names: frozenset[str], trust: Trust, wall: float | None, built: float
) -> None:
    if manifest.sub not in names:
        raise ProtocolError("for another door", status=403)
    if manifest.serial <= trust.serial:
        raise ProtocolError(
            f"serial {manifest.serial}: {trust.serial} was taken already", status=409
        )
    if manifest.iat < built:
        raise ProtocolError("signed before this firmware was made", status=403)
    if wall is not None and manifest.iat > wall + 86400:
        raise ProtocolError("signed in the future", status=403)
    if wall is not None and manifest.expires is not None and wall > manifest.expires:
        raise ProtocolError("expired", status=403)
    if len(manifest.files) > MAX_FILES:
        raise ProtocolError(f"{len(manifest.files)} files, {MAX_FILES} are read", status=413)
    for named in manifest.files:
        if "/" in named.name or "\\" in named.name or named.name.startswith("."):
            raise ProtocolError(f"{named.name!r}: files lie beside the signed one", status=403)


def assembled(
    accepted: Accepted, contents: Mapping[str, bytes]
) -> tuple[dict[str, Any], list[str]]:
    """(the layer that the files and the settings make together, the unknown keys left out).

    Raises ProtocolError for a file that is missing or is not the one that was signed, for what a
    key that nobody has confirmed may not set, and for an unknown key that is required.
    """
    manifest = accepted.manifest
    layers: list[Raw] = []
    for named in manifest.files:
        content = contents.get(named.name)
        if content is None:
            raise ProtocolError(f"{named.name}: missing", status=422)
        if sha256(content).hexdigest() != named.sha256.lower():
            raise ProtocolError(f"{named.name}: not the file that was signed", status=403)
        try:
            layers.append(msgspec.json.decode(content, type=dict[str, Any]))
        except (ValueError, RecursionError) as fault:
            raise ProtocolError(f"{named.name}: {fault}", status=422) from None
    raw = merged([*layers, manifest.settings])
    if accepted.rule == FIRST_USE:
        for key, _ in leaves(raw):
            section, _, rest = key.partition(".")
            if section in NOT_BY_FIRST_USE or rest.endswith(".pin"):
                raise ProtocolError(f"{key}: not by a key that nobody has confirmed", status=403)
    known, unknown = without_unknown(raw)
    for key in unknown:
        if any(_touches(key, required) for required in manifest.required):
            raise ProtocolError(f"{key}: required, and unknown to this version", status=422)
    return known, unknown


def _touches(key: str, other: str) -> bool:
    """Whether one is the other, or lies in it."""
    return key == other or key.startswith((f"{other}.", f"{other}[")) or other.startswith(f"{key}.")
