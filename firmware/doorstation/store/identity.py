"""The door's key and certificate on disk: one file, for the service alone.

Where there is a TPM, a new door's key is not in it but a lock that only that TPM opens
(`store.tpm`); TLS then reads it from memory, as it is with the key.
"""

import contextlib
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from doorstation.errors import StoreError
from doorstation.provision.identity import Identity, Signed, is_of, signed_of
from doorstation.store import tpm
from doorstation.store.files import Files, replace_file

log = logging.getLogger(__name__)

NAME: Final = "identity.pem"


class IdentityFile:
    """Made when it is first asked for. Threads may ask.

    `chain`: the certificate as an owner signed it; one that is not this door's is passed over.
    """

    def __init__(self, files: Files | None) -> None:
        """`files`: None where nothing can be kept: the key is another at each start then."""
        self._files = files
        self._identity: Identity | None = None
        self._lock = threading.Lock()
        self._passed_over = ("", "")
        """A door and a chain that is not its."""
        self._key_lock = b""
        """What stands on the disk in the key's place; b"" also if the TPM does not open it."""
        self._opened: tpm.MemoryFile | None = None
        """The file with the key, where the one on the disk has a lock."""
        self.signed: Signed | None = None
        """Of the file as it was last found or made; None where the door signs."""

    def found(self, door: str, chain: str = "") -> Path | None:
        """Where it lies, if it is there already and this door's."""
        pem = self._read()
        if self._files is None or not is_of(pem, door, self._usable(door, chain)):
            return None
        self.signed = signed_of(pem)
        return self._path(self._files)

    def made(self, door: str, chain: str = "") -> Path | None:
        """Where it lies, with a certificate that names this door; None if nothing can be kept.

        Raises StoreError when the disk does not take it.
        """
        if self._files is None:
            return None
        with self._lock:
            self._open(door)
            pem = self._read()
            if not pem and self._identity is None:
                replace_file(self._files, NAME, _new(door))
                self._open(door)
                pem = self._read()
            if not is_of(pem, door, self._usable(door, chain)):
                self._identity = self._of(pem, door)
                pem = self._signed(self._identity, self._usable(door, chain))
                self._write(self._files, pem)
            self.signed = signed_of(pem)
        return self._path(self._files)

    def _usable(self, door: str, chain: str) -> str:
        return "" if (door, chain) == self._passed_over else chain

    def _signed(self, own: Identity, chain: str) -> bytes:
        try:
            return own.pem(chain)
        except ValueError as fault:
            log.warning("tls.own_certificate: %s: the door signs its own", fault)
            self._passed_over = (own.door, chain)
            return own.pem()

    def identity(self, door: str, chain: str = "") -> Identity:
        """What this door proves itself by, whether or not the disk takes it."""
        own = self._identity
        if own is None or own.door != door:
            with contextlib.suppress(StoreError):
                self.made(door, chain)
            with self._lock:
                own = self._identity = self._of(self._read(), door)
        return own

    def _path(self, files: Files) -> Path:
        return files.path(NAME) if self._opened is None else self._opened.path

    def _read(self) -> bytes:
        """With its key; b"" as long as the TPM was not asked for it."""
        if self._opened is not None:
            return self._opened.data
        pem = self._on_disk()
        return b"" if tpm.lock_of(pem) else pem

    def _on_disk(self) -> bytes:
        if self._files is not None:
            with contextlib.suppress(OSError):
                return self._files.read(NAME)
        return b""

    def _open(self, door: str) -> None:
        """Ask the TPM for the key if there is a lock. One that does not tell it may do so again at
        the next start: so the file stays, and the door has a key of today."""
        if self._opened is not None or not (lock := tpm.lock_of(pem := self._on_disk())):
            return
        try:
            pem = pem.replace(lock, tpm.key(lock))
            self._key_lock = lock
            log.info("%s: the TPM opened it", NAME)
        except StoreError as fault:
            log.warning("%s: %s; another key is used until the next start", NAME, fault)
            pem = Identity.new(door).pem()
        self._opened = tpm.MemoryFile(pem)

    def _write(self, files: Files, pem: bytes) -> None:
        if self._opened is None or self._key_lock:
            replace_file(files, NAME, tpm.locked(pem, self._key_lock))
        if self._opened is not None:
            self._opened.replace(pem)

    def _of(self, pem: bytes, door: str) -> Identity:
        """With the key that there is: a door that was given another name keeps its key."""
        if self._identity is not None:
            if self._identity.door == door:
                return self._identity
            pem = self._identity.pem()
        if pem:
            try:
                return Identity.parse(pem, door)
            except ValueError as fault:
                log.warning("%s: %s; another key is made", NAME, fault)
        return Identity.new(door)


def _new(door: str) -> bytes:
    """The file of a new identity, made by a program of its own where `cryptography` is not loaded.

    Loading it takes tenths of a second, in which the loop is late for whoever calls a new door
    first, and 10 MB that stay.
    """
    if "cryptography.x509" not in sys.modules:
        program = (sys.executable, "-P", "-m", "doorstation.store.identity", door)
        with contextlib.suppress(OSError):
            done = subprocess.run(program, stdout=subprocess.PIPE, check=False)  # noqa: S603 - us
            if not done.returncode and is_of(done.stdout, door):
                return done.stdout
    return _new_here(door)


def _new_here(door: str) -> bytes:
    if tpm.is_there():
        try:
            lock = tpm.new_lock()
            return tpm.locked(Identity.parse(tpm.key(lock), door).pem(), lock)
        except (StoreError, ValueError) as fault:
            log.warning("%s: %s; the key is in the file", NAME, fault)
    return Identity.new(door).pem()


if __name__ == "__main__":
    sys.stdout.buffer.write(_new_here(sys.argv[1]))
