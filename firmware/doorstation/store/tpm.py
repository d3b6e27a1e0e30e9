"""A door's key that only this machine's TPM can tell: the file holds a lock where the key would be.

The lock is two keys: one that the TPM made and never gives away, and the public half of another,
whose secret half nobody kept. What they agree on (ECDH) only this TPM works out, and from that
comes the secret half of the door's key. So who copies the file, card and all, has no key.

The TPM is asked once at a start, by a program that may hang or fail. It does not sign by itself: in
our process each TLS context would hold one of the three places that the kernel gives, each
handshake, a stranger's too, would hold the loop until the TPM has signed, and the provider of
Debian 12 is not made for threads.
"""

import binascii
import os
import re
import subprocess
from pathlib import Path
from typing import Final

from doorstation.errors import StoreError
from doorstation.hashes import sha256

DEVICE: Final = "/dev/tpmrm0"
WAY: Final = "TPM2OPENSSL_TCTI"
"""Variable that names another way to a TPM to the provider; empty: no new key is made with one."""
WITHIN: Final = 10.0
"""Seconds; the service's watchdog waits for 20."""

_LOCK: Final = re.compile(
    rb"^-----BEGIN TSS2 PRIVATE KEY-----.+?-----END PUBLIC KEY-----\n", re.MULTILINE | re.DOTALL
)
_KEY: Final = re.compile(
    rb"^-----BEGIN PRIVATE KEY-----.+?-----END PRIVATE KEY-----\n", re.MULTILINE | re.DOTALL
)
# PKCS #8 of a P-256 key (RFC 5208, RFC 5915) up to the 32 bytes of its secret half.
_PKCS8_HEAD: Final = bytes.fromhex(
    "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420"
)


def is_there() -> bool:
    """Whether a new key shall be one of a TPM."""
    return bool(os.environ.get(WAY, os.access(DEVICE, os.R_OK | os.W_OK)))


def new_lock() -> bytes:
    """In PEM. Raises StoreError where there is no TPM or no tpm2-openssl."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    own = _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-256")
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    lock = own + other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if not _LOCK.fullmatch(lock):
        raise StoreError("TPM: the key that was made is not its own")
    return lock


def lock_of(pem: bytes) -> bytes:
    """The lock in a file; b"" for one whose key is in it."""
    found = _LOCK.search(pem)
    return b"" if found is None else found[0]


def locked(pem: bytes, lock: bytes) -> bytes:
    """The file with the lock, if there is one, in the key's place."""
    return _KEY.sub(lock, pem) if lock else pem


def key(lock: bytes) -> bytes:
    """The door's key, PKCS #8 in PEM. Raises StoreError when this TPM does not tell it."""
    file = MemoryFile(lock)
    secret = _openssl(
        "pkeyutl", "-derive", "-inkey", str(file.path), "-peerkey", str(file.path), file=file
    )
    if len(secret) != 32:
        raise StoreError(f"TPM: a secret of {len(secret)} bytes, 32 needed")
    own = _PKCS8_HEAD + sha256(b"doorstation key\n" + secret).digest()
    text = binascii.b2a_base64(own, newline=False)
    lines = b"".join(text[n : n + 64] + b"\n" for n in range(0, len(text), 64))
    return b"-----BEGIN PRIVATE KEY-----\n" + lines + b"-----END PRIVATE KEY-----\n"


class MemoryFile:
    """A file without a place on any disk, for a library that opens it by its `path`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.descriptor = _in_memory(data)
        self.path = Path(f"/proc/self/fd/{self.descriptor}")

    def replace(self, data: bytes) -> None:
        """Whoever reads meanwhile reads all of that or all of this."""
        self.data = data
        new = _in_memory(data)
        os.dup2(new, self.descriptor, inheritable=False)
        os.close(new)

    def __del__(self) -> None:
        os.close(self.descriptor)


def _in_memory(data: bytes) -> int:
    file = os.memfd_create("doorstation")
    os.write(file, data)
    return file


def _openssl(*command: str, file: MemoryFile | None = None) -> bytes:
    """What it prints. Raises StoreError."""
    # The query is for systems whose openssl.cnf loads "default" besides: that one would do it.
    providers = ("-provider", "tpm2", "-provider", "base", "-propquery", "?provider=tpm2")
    try:
        done = subprocess.run(  # noqa: S603 - nothing of a stranger's
            ("openssl", *command, *providers),  # noqa: S607 - wherever the system has it
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=WITHIN,
            env={**os.environ, WAY: os.environ.get(WAY) or f"device:{DEVICE}"},
            pass_fds=() if file is None else (file.descriptor,),
        )
    except subprocess.CalledProcessError as fault:
        lines = fault.stderr.decode(errors="replace").splitlines()
        raise StoreError(f"TPM: {'; '.join(lines[:3])}") from None
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise StoreError(f"TPM: {fault}") from fault
    return done.stdout
