"""Certificates that an owner's authority signs for a door."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID
from doorstation.provision.identity import Identity

OWNER = Identity.new("house")
FROM = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
UNTIL = datetime.datetime(2027, 1, 31, 12, tzinfo=datetime.UTC)


def issue(request: bytes, signer: Identity = OWNER, name: str = "house") -> x509.Certificate:
    """As an authority signs it that takes over what was asked for."""
    asked = x509.load_pem_x509_csr(request)
    builder = (
        x509.CertificateBuilder(extensions=list(asked.extensions))
        .subject_name(asked.subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .public_key(asked.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(FROM)
        .not_valid_after(UNTIL)
    )
    return builder.sign(load_pem_private_key(signer.pem(), None), SHA256())  # type: ignore[arg-type]


def pem(*certificates: x509.Certificate) -> str:
    """One after the other, as a setting holds them."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates).decode()
