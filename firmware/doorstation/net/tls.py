"""TLS under SIP: contexts, and what a certificate proves (RFC 5922)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

import msgspec

from doorstation.errors import TransportError
from doorstation.net.addresses import in_words, packed_address

if TYPE_CHECKING:
    import ssl


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files. Without `ca` the system's authorities are trusted; `certificate` (with its chain)
    is needed to listen and shown to servers that ask."""

    ca: str = ""
    certificate: str = ""
    key: str = ""


NO_FILES: Final = TlsFiles()


def client_context(files: TlsFiles) -> "ssl.SSLContext":
    """For connections that we make. Raises TransportError that names the file."""
    import ssl

    _small_buffers()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The name is checked by `wrong_name`, after the handshake: OpenSSL knows no SIP URIs.
    context.check_hostname = False
    try:
        if files.ca:
            context.load_verify_locations(files.ca)
        else:
            context.load_default_certs()
    except OSError as fault:
        raise TransportError(f"CA file {files.ca}: {in_words(fault)}") from fault
    if files.certificate:
        _load_certificate(context, files)
    return context


def server_context(files: TlsFiles) -> "ssl.SSLContext":
    """For connections that come in. Raises TransportError that names the file."""
    import ssl

    _small_buffers()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_certificate(context, files)
    return context


def _small_buffers() -> None:
    """asyncio gives every TLS connection 256 kB before its first byte is read, and leaves them to
    the garbage collector: handshakes that never end cost 80 MB. A TLS record has 16 kB at most."""
    from asyncio.sslproto import SSLProtocol

    SSLProtocol.max_size = 16 * 1024


def _load_certificate(context: "ssl.SSLContext", files: TlsFiles) -> None:
    def never() -> str:
        # Without this OpenSSL asks at the terminal, and the service hangs.
        raise TransportError(f"key of {files.certificate}: it is protected by a password")

    try:
        context.load_cert_chain(files.certificate, files.key or None, password=never)
    except OSError as fault:
        raise TransportError(f"certificate {files.certificate}: {in_words(fault)}") from fault


def wrong_name(certificate: Mapping[str, object] | None, domain: str) -> str:
    """Why a verified certificate does not prove `domain` (RFC 5922 §7.1), "" when it does.

    A subjectAltName proves the domain by a URI "sip:domain" without user, a DNS name or, for a
    literal, an IP address; the common name counts only without any of them. A wildcard in the
    first label is taken, against §7.2: providers' certificates have them and every phone takes
    them.
    """
    domain = domain.lower().rstrip(".")
    names: list[tuple[str, str]] = []
    if certificate:
        names = [
            (kind, value.lower())
            for kind, value in cast(
                Sequence[tuple[str, str]], certificate.get("subjectAltName", ())
            )
            if kind in ("URI", "DNS", "IP Address")
        ]
        if not names:
            subject = cast(Sequence[Sequence[tuple[str, str]]], certificate.get("subject", ()))
            names = [
                ("DNS", value.lower())
                for attributes in subject
                for kind, value in attributes
                if kind == "commonName"
            ]
    if any(_proves(kind, value, domain) for kind, value in names):
        return ""
    found = ", ".join(value for _, value in names[:5]) or "no name"
    return f"the certificate is for {found}, not for {domain}"


def _proves(kind: str, value: str, domain: str) -> bool:
    literal = packed_address(domain)
    if kind == "IP Address":
        return literal is not None and packed_address(value.strip()) == literal
    if kind == "URI":
        return value.startswith("sip:") and value[4:].split(";")[0].rstrip(".") == domain
    if literal is not None:
        return False
    value = value.rstrip(".")
    if value.startswith("*."):
        _, dot, rest = domain.partition(".")
        return bool(dot) and rest == value[2:] and "." in rest
    return value == domain
