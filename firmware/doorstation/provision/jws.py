"""Signed orders and files: compact JWS with EdDSA over Ed25519 (RFC 7515, RFC 8037).

`cryptography` is loaded at the first key: a door without an owner key never pays for it.
"""

import base64
import binascii
import contextlib
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from doorstation.errors import ProtocolError
from doorstation.hashes import sha256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_TOKEN: Final = 8192
"""Bytes of one token: what a proxy's buffer lets through by TCP. Bounds the work of a stranger."""

_KEY_BYTES: Final = 32
_SHORT: Final = 16


class NotSigned(ProtocolError):
    """A token that cannot be read or whose signature is not right."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, status=403)


class Verifier(Protocol):
    """The public half of a key."""

    def verifies(self, signature: bytes, data: bytes) -> bool: ...


class PublicKey(msgspec.Struct, frozen=True):
    """An Ed25519 key that signatures are checked with: 32 bytes."""

    raw: bytes

    @classmethod
    def parse(cls, text: str) -> "PublicKey":
        """Read base64url, as `text` writes it. Raises ValueError."""
        raw = decoded(text)
        if len(raw) != _KEY_BYTES:
            raise ValueError(f"{len(raw)} bytes are no Ed25519 key, which has {_KEY_BYTES}")
        return cls(raw)

    @property
    def text(self) -> str:
        return encoded(self.raw)

    @property
    def kid(self) -> str:
        """The first 16 signs of the key's thumbprint (RFC 7638 3, RFC 8037 2)."""
        return encoded(sha256(self.jwk.encode()).digest())[:_SHORT]

    @property
    def jwk(self) -> str:
        """The key as JSON, with its members in the thumbprint's order (RFC 8037 2)."""
        return f'{{"crv":"Ed25519","kty":"OKP","x":"{self.text}"}}'

    def verifies(self, signature: bytes, data: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


class PrivateKey:
    """A key that signs. It is never printed."""

    def __init__(self, key: "Ed25519PrivateKey") -> None:
        self._key = key

    @classmethod
    def new(cls) -> "PrivateKey":
        """A key whose public half is no option of a command line: it begins with no minus."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        while (key := cls(Ed25519PrivateKey.generate())).public.text.startswith("-"):
            pass
        return key

    @classmethod
    def parse(cls, pem: bytes) -> "PrivateKey":
        """Read PKCS #8 in PEM, as `openssl genpkey -algorithm ed25519` writes it.

        Raises ValueError.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(pem, password=None)
        except TypeError:
            raise ValueError("the key is locked with a password") from None
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError("no private key in PEM") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")  # noqa: TRY004 - of the file, not of an argument
        return cls(key)

    @property
    def pem(self) -> bytes:
        from cryptography.hazmat.primitives import serialization as form

        return self._key.private_bytes(
            form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
        )

    @property
    def public(self) -> PublicKey:
        return PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, payload: bytes, *, with_key: bool = False) -> str:
        """A compact token over the payload. `with_key`: for doors that do not know the key yet."""
        jwk = f',"jwk":{self.public.jwk}' if with_key else ""
        head = f'{{"alg":"EdDSA","kid":"{self.public.kid}"{jwk}}}'
        signed = f"{encoded(head.encode())}.{encoded(payload)}"
        return f"{signed}.{encoded(self._key.sign(signed.encode()))}"


class Token(msgspec.Struct, frozen=True):
    """A token that was read and not yet checked."""

    kid: str
    payload: bytes
    signed: bytes
    signature: bytes
    jwk: object = None
    """The key that the token brings along: it proves nothing by being there."""

    @property
    def header_key(self) -> PublicKey | None:
        """The same, if it is an Ed25519 key."""
        match self.jwk:
            case {"crv": "Ed25519", "kty": "OKP", "x": str(text)}:
                with contextlib.suppress(ValueError):
                    return PublicKey.parse(text)
        return None

    def check(self, key: Verifier) -> bytes:
        """The payload. Raises NotSigned if `key` did not sign it."""
        if not key.verifies(self.signature, self.signed):
            raise NotSigned("the signature is not this key's")
        return self.payload


def parse_token(text: str, limit: int = MAX_TOKEN, algorithm: str = "EdDSA") -> Token:
    """Read a compact token of at most `limit` bytes, signed by this algorithm.

    Raises NotSigned: another algorithm or extension, or no token.
    """
    if len(text) > limit:
        raise NotSigned(f"a token of {len(text)} bytes, {limit} are read")
    parts = text.split(".")
    if len(parts) != 3:
        raise NotSigned("no token: three parts with dots between")
    try:
        head = msgspec.json.decode(decoded(parts[0]), type=dict[str, Any])
        payload, signature = decoded(parts[1]), decoded(parts[2])
    except (ValueError, RecursionError) as fault:
        raise NotSigned(f"no token: {fault}") from None
    if head.get("alg") != algorithm:
        raise NotSigned(f"only {algorithm} is taken")
    if "crit" in head:
        raise NotSigned("an extension that is not known (crit)")
    kid = head.get("kid")
    if not isinstance(kid, str) or not kid:
        raise NotSigned("no kid: which key signed it?")
    signed = f"{parts[0]}.{parts[1]}".encode()
    return Token(kid, payload, signed, signature, head.get("jwk"))


def encoded(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Strict base64url without padding (RFC 7515 2): one text for one value. Raises ValueError."""
    try:
        raw = text.encode("ascii")
        data = base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise ValueError("not base64url") from None
    if encoded(data) != text:
        raise ValueError("not base64url as it is to be written")
    return data
