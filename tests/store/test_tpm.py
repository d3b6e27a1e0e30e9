"""A door's key that only a TPM tells, with a TPM made of software."""

import gc
import os
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from doorstation.errors import TransportError
from doorstation.net.tls import TlsFiles, server_context
from doorstation.provision.identity import Identity, is_of, read_result
from doorstation.store import tpm
from doorstation.store.files import Folder
from doorstation.store.identity import NAME, IdentityFile

from tests.support.owner import issue, pem
from tests.support.tpm import software_tpm

DOOR, RENAMED = "8e2b1c34-0000-4000-8000-000000000001", "8e2b1c34-0000-4000-8000-000000000002"


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with software_tpm(tmp_path_factory.mktemp("one") / "tpm") as way:
        yield way


@pytest.fixture
def here(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has the TPM."""
    monkeypatch.setenv(tpm.WAY, way)


def shown(path: Path | None) -> x509.Certificate:
    """What a TLS server shows that reads this file; the handshake proves that it has the key."""
    server_in, server_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context(TlsFiles(certificate=str(path))).wrap_bio(
        server_in, server_out, server_side=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = context.wrap_bio(server_out, server_in)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    client.do_handshake()
    server.do_handshake()
    return x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")


def is_shown(path: Path | None, own: Identity) -> bool:
    key = x509.load_pem_x509_csr(own.request()).public_key()
    return shown(path).public_key() == key


@pytest.mark.usefixtures("here")
def test_new_door_has_a_key_that_is_in_no_file(tmp_path: Path) -> None:
    files = IdentityFile(Folder(tmp_path))
    path = files.made(DOOR)
    assert path is not None
    assert not path.is_relative_to(tmp_path)
    on_disk = (tmp_path / NAME).read_bytes()
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    assert is_of(on_disk, DOOR)
    assert on_disk.count(b"-----BEGIN TSS2 PRIVATE KEY-----") == 1
    assert b"-----BEGIN PRIVATE KEY-----" not in on_disk
    with pytest.raises(ValueError, match=r".+"):
        Identity.parse(on_disk, DOOR)
    with pytest.raises(TransportError, match=r"^certificate "):
        shown(tmp_path / NAME)


@pytest.mark.usefixtures("here")
def test_label_stays_at_every_start_and_with_another_name(tmp_path: Path) -> None:
    first = IdentityFile(Folder(tmp_path)).identity(DOOR)
    lock = tpm.lock_of((tmp_path / NAME).read_bytes())
    for door in (DOOR, RENAMED, DOOR):
        own = IdentityFile(Folder(tmp_path)).identity(door)
        assert (own.public, own.claim_code) == (first.public, first.claim_code)
        assert is_of((tmp_path / NAME).read_bytes(), door)
        assert tpm.lock_of((tmp_path / NAME).read_bytes()) == lock
        assert b"-----BEGIN PRIVATE KEY-----" not in (tmp_path / NAME).read_bytes()


BOTH = """
openssl_conf = openssl_init
[openssl_init]
providers = provider_sect
[provider_sect]
default = default_sect
[default_sect]
activate = 1
"""


@pytest.mark.usefixtures("here")
def test_key_is_the_tpms_where_openssl_has_its_own_ready_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openssl.cnf").write_text(BOTH)
    monkeypatch.setenv("OPENSSL_CONF", str(tmp_path / "openssl.cnf"))
    lock = tpm.new_lock()
    assert lock.startswith(b"-----BEGIN TSS2 PRIVATE KEY-----")
    assert tpm.key(lock) == tpm.key(lock) != tpm.key(tpm.new_lock())


@pytest.mark.usefixtures("here")
def test_two_doors_with_one_tpm_have_two_keys(tmp_path: Path) -> None:
    one, other = (IdentityFile(Folder(tmp_path / name)).identity(DOOR) for name in ("1", "2"))
    assert one.public != other.public


@pytest.mark.usefixtures("here")
def test_key_serves_tls_requests_and_results(tmp_path: Path) -> None:
    files = IdentityFile(Folder(tmp_path))
    path = files.made(DOOR)
    assert files.found(DOOR) == path
    own = files.identity(DOOR)
    assert is_shown(path, own)
    assert x509.load_pem_x509_csr(own.request()).is_signature_valid
    assert read_result(own.sign(b"done")) == (b"done", own.public)


@pytest.mark.usefixtures("here")
def test_owners_certificate_comes_and_goes(tmp_path: Path) -> None:
    files = IdentityFile(Folder(tmp_path))
    own = files.identity(DOOR)
    chain = pem(issue(own.request()))
    path = files.made(DOOR, chain)
    assert pem(shown(path)) == chain
    again = IdentityFile(Folder(tmp_path))
    assert again.found(DOOR, chain) is None  # that would be a wait for the TPM
    assert pem(shown(again.made(DOOR, chain))) == chain
    assert str(again.signed).startswith("signed by CN=house until ")
    assert pem(shown(again.made(DOOR))) != chain
    assert is_shown(again.found(DOOR), own)


@pytest.mark.usefixtures("here")
def test_door_that_has_a_key_keeps_it_where_it_is(tmp_path: Path) -> None:
    before = Identity.new(DOOR)
    (tmp_path / NAME).write_bytes(before.pem())
    files = IdentityFile(Folder(tmp_path))
    assert files.made(DOOR) == tmp_path / NAME
    assert files.identity(RENAMED).public == before.public
    assert b"-----BEGIN PRIVATE KEY-----" in (tmp_path / NAME).read_bytes()


def test_file_in_another_machine_is_kept_and_the_door_has_a_key_of_today(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "door"
    monkeypatch.setenv(tpm.WAY, way)
    first = IdentityFile(Folder(folder)).identity(DOOR)
    chain = pem(issue(first.request()))
    IdentityFile(Folder(folder)).made(DOOR, chain)
    before = (folder / NAME).read_bytes()
    with software_tpm(tmp_path / "other") as other:
        monkeypatch.setenv(tpm.WAY, other)
        files = IdentityFile(Folder(folder))
        path = files.made(DOOR, chain)
        own = files.identity(DOOR, chain)
    assert own.public != first.public
    assert files.signed is None
    assert files.found(DOOR, chain) == path
    assert is_shown(path, own)
    assert is_shown(files.made(RENAMED), own)
    assert "identity.pem: TPM: " in caplog.text
    assert "another key is used until the next start" in caplog.text
    assert (folder / NAME).read_bytes() == before
    monkeypatch.setenv(tpm.WAY, way)
    assert IdentityFile(Folder(folder)).identity(DOOR, chain).public == first.public


@pytest.mark.parametrize("lacking", ["OPENSSL_MODULES", "PATH", tpm.WAY])
@pytest.mark.usefixtures("here")
def test_tpm_that_cannot_be_asked_leaves_the_key_in_the_file(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(lacking, "/nowhere")
    files = IdentityFile(Folder(tmp_path))
    assert files.made(DOOR) == tmp_path / NAME
    assert is_shown(tmp_path / NAME, files.identity(DOOR))
    assert "the key is in the file" in caplog.text


def test_tpm_that_hangs_is_not_waited_for(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(tpm.WAY, way)
    IdentityFile(Folder(tmp_path / "door")).made(DOOR)
    before = (tmp_path / "door" / NAME).read_bytes()
    (tmp_path / "openssl").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "openssl").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(tpm, "WITHIN", 0.2)
    for name in ("door", "new door"):
        files = IdentityFile(Folder(tmp_path / name))
        assert is_shown(files.made(DOOR), files.identity(DOOR))
    assert caplog.text.count("timed out") == 2
    assert (tmp_path / "door" / NAME).read_bytes() == before


NEXT_START = """
import sys, pathlib
from doorstation.store.files import Folder
from doorstation.store.identity import IdentityFile
assert IdentityFile(Folder(pathlib.Path(sys.argv[1]))).made(sys.argv[2]) is not None
for library in ("cryptography", "ssl", "_hashlib"):
    assert library not in sys.modules, library
"""


@pytest.mark.usefixtures("here")
def test_start_loads_no_library_for_the_key(tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run((sys.executable, "-c", NEXT_START, str(tmp_path), DOOR), check=True)
    assert tpm.lock_of((tmp_path / NAME).read_bytes())


def test_file_in_memory_is_replaced_in_its_place_and_ends_with_its_owner() -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    file = tpm.MemoryFile(b"before")
    reader = file.path.open("rb")
    file.replace(b"after, and longer")
    assert (reader.read(), file.path.read_bytes()) == (b"before", b"after, and longer")
    reader.close()
    del file
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
