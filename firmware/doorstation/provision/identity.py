"""What a door proves itself by: an EC P-256 key, and a certificate over it that names the door.

P-256, as secure elements hold it and every TLS server takes it. The same key signs the results of
orders (ES256, RFC 7518 3.4). Its fingerprint and its claim code stand on the door's label: they
stay when the door gets another name, which only means another certificate.

`cryptography` is loaded when the key is used, not to know whether there is one.
"""

import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from doorstation.hashes import sha256
from doorstation.printable import printable
from doorstation.provision.jws import NotSigned, Token, decoded, encoded, parse_token

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ALGORITHM: Final = "ES256"

MAX_CHAIN: Final = 8
"""Certificates of an owner's chain."""
EXPIRES_SOON: Final = datetime.timedelta(days=30)

_SIGNED_BY: Final = "signed by "
_UNTIL: Final = " until "
_END: Final = b"-----END CERTIFICATE-----\n"
_COORDINATE: Final = 32
# A SubjectPublicKeyInfo of P-256 (RFC 5480 2) up to the point's coordinates.
_SPKI_HEAD: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")


class DoorKey(msgspec.Struct, frozen=True):
    """The public half of a door's key: both coordinates, 64 bytes."""

    raw: bytes

    @classmethod
    def of(cls, token: Token) -> "DoorKey":
        """The key that a result brings along. Raises NotSigned if there is none."""
        match token.jwk:
            case {"crv": "P-256", "kty": "EC", "x": str(x), "y": str(y)}:
                try:
                    raw = decoded(x), decoded(y)
                except ValueError as fault:
                    raise NotSigned(f"the key: {fault}") from None
                if [len(each) for each in raw] == [_COORDINATE] * 2:
                    return cls(b"".join(raw))
        raise NotSigned("the result names no key")

    @property
    def jwk(self) -> str:
        """The key as JSON, with its members in the thumbprint's order (RFC 7638 3.2)."""
        x, y = encoded(self.raw[:_COORDINATE]), encoded(self.raw[_COORDINATE:])
        return f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key as certificates hold it (SubjectPublicKeyInfo), in hexadecimal."""
        return sha256(_SPKI_HEAD + self.raw).hexdigest()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        if len(signature) != 2 * _COORDINATE:
            return False
        r, s = (int.from_bytes(signature[n : n + _COORDINATE]) for n in (0, _COORDINATE))
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + self.raw)
            key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            return False
        return True


class Signed(msgspec.Struct, frozen=True):
    """What an owner's certificate over the door's key says. `until`: as "2027-01-31T12:00:00Z"."""

    issuer: str
    until: str

    def __str__(self) -> str:
        return f"{_SIGNED_BY}{self.issuer}{_UNTIL}{self.until}"

    def state(self, now: float) -> str:
        """ "valid", "expires soon" or "expired", at this second since 1970."""
        left = datetime.datetime.fromisoformat(self.until).timestamp() - now
        if left < 0:
            return "expired"
        return "expires soon" if left < EXPIRES_SOON.total_seconds() else "valid"


class Identity:
    """A door's key, and which door's it is. It is never printed."""

    def __init__(self, key: "EllipticCurvePrivateKey", door: str) -> None:
        """`door`: its UUID."""
        self._key = key
        self.door = door

    @classmethod
    def new(cls, door: str) -> "Identity":
        from cryptography.hazmat.primitives.asymmetric import ec

        return cls(ec.generate_private_key(ec.SECP256R1()), door)

    @classmethod
    def parse(cls, pem: bytes, door: str) -> "Identity":
        """Read the key of `pem`; whatever door its certificate names. Raises ValueError."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(pem, password=None)
        except TypeError:
            raise ValueError("the key is locked with a password") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise ValueError("not an EC P-256 key")
        return cls(key, door)

    def pem(self, chain: str = "") -> bytes:
        """Key and certificate, as TLS libraries read them from one file; what stands before them
        names the door and who signed, see `is_of` and `signed_of`.

        `chain`: as an owner signed it, in PEM; "": the door signs. Raises ValueError, as `signed`.
        """
        from cryptography.hazmat.primitives import serialization as form

        head = f"{_urn(self.door)}\n{self.signed(chain)}\n" if chain else f"{_urn(self.door)}\n"
        key = self._key.private_bytes(
            form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
        )
        return head.encode() + key + (chain.encode() or self._certificate())

    def signed(self, chain: str) -> Signed:
        """What a chain in PEM says: the door's certificate, then each signer's.

        Raises ValueError: it is not over this door's key, or not of this door, or no chain.
        """
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

        own, *signers = certificates = x509.load_pem_x509_certificates(chain.encode())
        if len(certificates) > MAX_CHAIN:
            raise ValueError(f"{len(certificates)} certificates, {MAX_CHAIN} are taken")
        try:
            is_over_key = own.public_key() == self._key.public_key()
        except UnsupportedAlgorithm:
            is_over_key = False
        if not is_over_key:
            raise ValueError("the first certificate is not over this door's key")
        if _urn(self.door) not in _uris(own):
            raise ValueError(f"the first certificate does not name {_urn(self.door)}")
        for one, signer in zip(certificates, signers, strict=False):
            try:
                one.verify_directly_issued_by(signer)
            except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
                name = printable(signer.subject.rfc4514_string())
                raise ValueError(f"{name} did not sign what stands before it") from None
        issuer = printable(own.issuer.rfc4514_string())
        return Signed(issuer, f"{own.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")

    def request(self) -> bytes:
        """What an authority signs: a PKCS #10 request in PEM (RFC 2986)."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.serialization import Encoding

        builder = x509.CertificateSigningRequestBuilder(_subject(self.door), _extensions(self.door))
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _certificate(self) -> bytes:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.serialization import Encoding

        return (
            x509.CertificateBuilder(extensions=_extensions(self.door))
            .subject_name(_subject(self.door))
            .issuer_name(_subject(self.door))
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            # Never runs out: a door's clock may be years wrong.
            .not_valid_before(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
            .not_valid_after(datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC))
            .sign(self._key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )

    @property
    def public(self) -> DoorKey:
        numbers = self._key.public_key().public_numbers()
        return DoorKey(numbers.x.to_bytes(_COORDINATE) + numbers.y.to_bytes(_COORDINATE))

    @property
    def claim_code(self) -> str:
        """Nine digits that only who reads them at the door knows: of the key's secret half, so
        what the door shows of itself in certificates and signatures does not tell them."""
        secret = self._key.private_numbers().private_value.to_bytes(_COORDINATE)
        digest = sha256(b"doorstation claim code\n" + secret).digest()
        digits = f"{int.from_bytes(digest) % 10**9:09}"
        return f"{digits[:3]} {digits[3:6]} {digits[6:]}"

    def sign(self, payload: bytes) -> str:
        """A compact token over the payload, with the key in its head."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        public = self.public
        head = f'{{"alg":"{ALGORITHM}","kid":"{public.fingerprint[:16]}","jwk":{public.jwk}}}'
        signed = f"{encoded(head.encode())}.{encoded(payload)}"
        r, s = utils.decode_dss_signature(
            self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        )
        return f"{signed}.{encoded(r.to_bytes(_COORDINATE) + s.to_bytes(_COORDINATE))}"


def is_of(pem: bytes, door: str, chain: str = "") -> bool:
    """Whether a file as `Identity.pem` writes it is whole, this door's, and signed so."""
    head, _, rest = pem.partition(b"\n")
    named = head == _urn(door).encode() and rest.endswith(chain.encode() or _END)
    return named and rest.startswith(_SIGNED_BY.encode()) == bool(chain)


def signed_of(pem: bytes) -> Signed | None:
    """What such a file says of its certificate; None where the door signs."""
    line = pem.partition(b"\n")[2].partition(b"\n")[0].decode("utf-8", "replace")
    if not line.startswith(_SIGNED_BY):
        return None
    issuer, _, until = line.removeprefix(_SIGNED_BY).rpartition(_UNTIL)
    return Signed(issuer, until)


def read_result(text: str) -> tuple[bytes, DoorKey]:
    """(payload, the key that signed it) of a result. Raises NotSigned."""
    token = parse_token(text, algorithm=ALGORITHM)
    key = DoorKey.of(token)
    return token.check(key), key


def _urn(door: str) -> str:
    return f"urn:uuid:{door}"


def _subject(door: str) -> "x509.Name":
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, door)])


def _extensions(door: str) -> "list[x509.Extension[x509.ExtensionType]]":
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    values = (
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_urn(door))]),
        x509.ExtendedKeyUsage(uses),
    )
    return [x509.Extension(value.oid, critical=False, value=value) for value in values]


def _uris(certificate: "x509.Certificate") -> list[str]:
    """Those among its names. Raises ValueError for extensions that cannot be read."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as fault:
        raise ValueError(str(fault)) from None
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)
