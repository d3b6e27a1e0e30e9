"""DTLS-SRTP (RFC 5763, RFC 5764): the two ends agree on keys by themselves, over the sound's path.

Each end makes its own certificate, and the session description says its fingerprint: so who cannot
change the signalling cannot come between. OpenSSL does the work, loaded for the first call that
needs it. It sees no socket: datagrams go in and come out here. Its retransmission timer reads
OpenSSL's own clock; whoever drives a handshake looks after it a few times a second.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
from typing import TYPE_CHECKING, Final

from doorstation.errors import DoorstationError
from doorstation.hashes import compare_digest, sha256
from doorstation.media.srtp import SUITES, DtlsPeer, Keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate
    from OpenSSL import SSL

MTU: Final = 1200  # octets of a datagram of ours: fits whatever tunnel is on the way

_DTLS_1_2: Final = 0xFEFD
_EXTRACTOR: Final = b"EXTRACTOR-dtls_srtp"
_RECORD_HEADER: Final = 13

_PROFILES: Final = {
    b"SRTP_AEAD_AES_256_GCM": "AEAD_AES_256_GCM",
    b"SRTP_AEAD_AES_128_GCM": "AEAD_AES_128_GCM",
    b"SRTP_AES128_CM_SHA1_80": "AES_CM_128_HMAC_SHA1_80",
}
"""OpenSSL's names of what we take, best first."""


class HandshakeFailed(DoorstationError):
    """No keys will come of it; the message says why."""


def is_dtls(data: bytes) -> bool:
    """Whether a datagram on the sound's port is of a handshake (RFC 7983 §7)."""
    return len(data) > _RECORD_HEADER and 20 <= data[0] <= 63


@functools.cache
def _identity() -> tuple[EllipticCurvePrivateKey, Certificate]:
    """Key and certificate of this process; each call's signalling says its fingerprint."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # Says nothing of the house, and never runs out: a door's clock may be years wrong.
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "doorstation")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC))
        .sign(key, hashes.SHA256())
    )
    return key, certificate


@functools.cache
def fingerprint() -> str:
    """Ours, as `a=fingerprint` writes it. The first time it loads OpenSSL: tenths of a second."""
    from cryptography.hazmat.primitives.serialization import Encoding

    der = _identity()[1].public_bytes(Encoding.DER)
    return f"sha-256 {sha256(der).digest().hex(':').upper()}"


@functools.cache
def _context() -> SSL.Context:
    from OpenSSL import SSL

    key, certificate = _identity()
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_min_proto_version(_DTLS_1_2)
    context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(b"ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES")
    context.use_privatekey(key)
    context.use_certificate(certificate)
    # Any certificate, whoever signed it: the fingerprint is what is checked.
    required = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    context.set_verify(required, lambda *_: True)
    context.set_tlsext_use_srtp(b":".join(_PROFILES))
    # Who forges the far end's address does not see the cookie, so what he began goes no further.
    context.set_cookie_generate_callback(lambda connection: connection.get_app_data())
    context.set_cookie_verify_callback(
        lambda connection, cookie: compare_digest(cookie, connection.get_app_data())
    )
    return context


def load() -> None:
    """Load what the first handshake needs."""
    _context()


class Handshake:
    """One handshake with one far end.

    `keys` is None until it is done. What every input returns is to be sent.
    """

    __slots__ = ("_connection", "_listening", "keys", "peer")

    def __init__(self, peer: DtlsPeer) -> None:
        from OpenSSL import SSL

        self.peer = peer
        self.keys: Keys | None = None
        self._connection = SSL.Connection(_context(), None)
        self._connection.set_ciphertext_mtu(MTU)
        self._connection.set_app_data(os.urandom(16))
        self._listening = not peer.active
        if peer.active:
            self._connection.set_connect_state()
        else:
            self._connection.set_accept_state()

    def start(self) -> list[bytes]:
        """The first flight, where it is ours to begin."""
        return self._step() if self.peer.active else []

    def received(self, data: bytes) -> list[bytes]:
        """A datagram of the far end's. Raises HandshakeFailed."""
        if self.keys is None:
            self._connection.bio_write(data)
            return self._step()
        # Its last flight once more, since ours was lost: OpenSSL answers while it reads.
        from OpenSSL import SSL

        self._connection.bio_write(data)
        with contextlib.suppress(SSL.Error):
            self._connection.recv(MTU)
        return self._outgoing()

    def timer_fired(self) -> list[bytes]:
        """The last flight once more, if it is time. Raises HandshakeFailed after the last time."""
        from OpenSSL import SSL

        if self.keys is not None:
            return []
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error:
            raise HandshakeFailed("no answer to the DTLS handshake") from None
        return self._outgoing()

    def _step(self) -> list[bytes]:
        from OpenSSL import SSL

        try:
            if self._listening:
                self._connection.DTLSv1_listen()
                self._listening = False
            self._connection.do_handshake()
        except SSL.WantReadError:
            return self._outgoing()
        except SSL.Error as error:
            raise HandshakeFailed(f"DTLS: {_reason(error)}") from None
        self._check_fingerprint()
        self.keys = self._export()
        return self._outgoing()

    def _check_fingerprint(self) -> None:
        import hashlib

        from OpenSSL import crypto

        certificate = self._connection.get_peer_certificate()
        assert certificate is not None
        # Its octets alone: nobody has proved yet to be the far end, and cryptography, which would
        # read them, raises what it likes at some that OpenSSL takes.
        der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
        for name, digest in self.peer.fingerprints:
            if hashlib.new(name.replace("-", ""), der).digest() == digest:
                return
        raise HandshakeFailed("the certificate is not the one whose fingerprint was signalled")

    def _export(self) -> Keys:
        """RFC 5764 §4.2: both keys, then both salts, the client's first."""
        suite = _PROFILES.get(self._connection.get_selected_srtp_profile())
        if suite is None:
            raise HandshakeFailed("DTLS: no SRTP suite in common")
        key, salt = SUITES[suite].key, SUITES[suite].salt
        material = self._connection.export_keying_material(_EXTRACTOR, 2 * (key + salt))
        client = material[:key] + material[2 * key : 2 * key + salt]
        server = material[key : 2 * key] + material[2 * key + salt :]
        ours, theirs = (client, server) if self.peer.active else (server, client)
        return Keys(suite, ours, theirs)

    def _outgoing(self) -> list[bytes]:
        """What OpenSSL has to say, as datagrams: it writes one record after the other."""
        from OpenSSL import SSL

        written = b""
        while True:
            try:
                written += self._connection.bio_read(65_536)
            except SSL.WantReadError:
                break
        datagrams: list[bytes] = []
        at = 0
        while at < len(written):
            end = at + _RECORD_HEADER + int.from_bytes(written[at + 11 : at + 13], "big")
            if datagrams and len(datagrams[-1]) + end - at <= MTU:
                datagrams[-1] += written[at:end]
            else:
                datagrams.append(written[at:end])
            at = end
        return datagrams


def _reason(error: Exception) -> str:
    """OpenSSL's own words for what went wrong; an alert of the far end's is among them."""
    stack = error.args[0] if error.args else None
    if isinstance(stack, list) and stack:
        return str(stack[-1][-1])
    return type(error).__name__
