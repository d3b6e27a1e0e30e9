"""Certificates for tests: an authority of our own, and leaves with every kind of name."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    certificate: str
    key: str


class Authority:
    """A certificate authority in a folder; `ca` is its PEM file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self._key = serialization.load_pem_private_key(
            self._authority.private_key_pem.bytes(), password=None
        )
        self._certificate = x509.load_pem_x509_certificate(self._authority.cert_pem.bytes())
        self._made = 0
        path = folder / f"ca-{id(self):x}.pem"
        self._authority.cert_pem.write_to_path(str(path))
        self.ca = str(path)

    def issue(self, *names: str, expired: bool = False) -> CertificateFiles:
        """A certificate for DNS names and IP addresses."""
        now = datetime.datetime.now(datetime.UTC)
        past = now - datetime.timedelta(days=1)
        leaf = self._authority.issue_cert(*names, not_after=past if expired else None)
        return self._write(
            b"".join(each.bytes() for each in leaf.cert_chain_pems), leaf.private_key_pem.bytes()
        )

    def issue_sip(self, *uris: str, common_name: str = "sip") -> CertificateFiles:
        """A certificate with URI names only (RFC 5922); without any, only the common name."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        if uris:
            names = [x509.UniformResourceIdentifier(uri) for uri in uris]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())  # type: ignore[arg-type]
        return self._write(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    def _write(self, certificate: bytes, key: bytes) -> CertificateFiles:
        self._made += 1
        stem = self._folder / f"leaf-{id(self):x}-{self._made}"
        stem.with_suffix(".pem").write_bytes(certificate)
        stem.with_suffix(".key").write_bytes(key)
        stem.with_suffix(".key").chmod(0o600)
        return CertificateFiles(str(stem.with_suffix(".pem")), str(stem.with_suffix(".key")))
