"""The door's key on disk: for the service alone, and never lost once it was used."""

import contextlib
import errno
import random
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from doorstation.errors import StoreError
from doorstation.provision.identity import Identity, is_of
from doorstation.store.files import Folder
from doorstation.store.identity import NAME, IdentityFile

from tests.support.disk import Disk, PowerCut
from tests.support.owner import issue, pem

DOOR, RENAMED = "8e2b1c34-0000-4000-8000-000000000001", "8e2b1c34-0000-4000-8000-000000000002"


def test_key_is_made_once_and_readable_by_the_service_alone(tmp_path: Path) -> None:
    path = IdentityFile(Folder(tmp_path)).made(DOOR)
    assert path == tmp_path / NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert IdentityFile(Folder(tmp_path)).made(DOOR) == path
    assert path.read_bytes() == before
    assert IdentityFile(Folder(tmp_path)).identity(DOOR).public == Identity.parse(before, "").public


def test_door_with_another_name_keeps_its_key_and_has_another_certificate() -> None:
    disk = Disk()
    before = IdentityFile(disk).identity(DOOR)
    renamed = IdentityFile(disk)
    renamed.made(RENAMED)
    assert renamed.identity(RENAMED).public == before.public
    assert is_of(disk.read(NAME), RENAMED)


@pytest.mark.parametrize("cut", range(1, 12))
def test_power_cut_at_any_call_leaves_the_key_that_was_there(cut: int) -> None:
    first = Disk()
    key = IdentityFile(first).identity(DOOR).public
    for seed in range(20):
        disk = Disk()
        disk.spoil(NAME, first.read(NAME))
        disk.cut_at = cut
        with contextlib.suppress(PowerCut):
            IdentityFile(disk).made(RENAMED)
        left = disk.after_cut(random.Random(seed))
        assert IdentityFile(left).identity(RENAMED).public == key


def test_key_whose_file_was_written_is_there_after_a_power_cut() -> None:
    for seed in range(20):
        disk = Disk()
        key = IdentityFile(disk).identity(DOOR).public
        assert IdentityFile(disk.after_cut(random.Random(seed))).identity(DOOR).public == key


def test_disk_that_fails_leaves_a_door_with_a_key_of_today() -> None:
    disk = Disk()
    disk.broken = errno.EROFS
    own = IdentityFile(disk)
    with pytest.raises(StoreError, match="Read-only"):
        own.made(DOOR)
    assert own.identity(DOOR) is own.identity(DOOR)
    disk.broken = 0
    own.made(DOOR)
    assert IdentityFile(disk).identity(DOOR).public == own.identity(DOOR).public


def test_file_is_found_when_it_was_made_for_this_door() -> None:
    disk = Disk()
    assert IdentityFile(disk).found(DOOR) is None
    made = IdentityFile(disk).made(DOOR)
    assert IdentityFile(disk).found(DOOR) == made
    assert IdentityFile(disk).found(RENAMED) is None


def test_nothing_kept_is_a_key_all_the_same() -> None:
    own = IdentityFile(None)
    assert own.made(DOOR) is None
    assert own.found(DOOR) is None
    assert own.identity(DOOR).public == own.identity(DOOR).public


def test_file_that_is_no_key_is_replaced() -> None:
    disk = Disk()
    disk.spoil(NAME, b"nonsense")
    key = IdentityFile(disk).identity(DOOR).public
    assert IdentityFile(disk).identity(DOOR).public == key


def test_file_that_ends_early_is_made_again_with_its_key_if_that_is_whole() -> None:
    disk = Disk()
    key = IdentityFile(disk).identity(DOOR).public
    whole = disk.read(NAME)
    for end, kept in ((-1, True), (-200, True), (whole.index(b"-----BEGIN C"), True), (99, False)):
        disk.spoil(NAME, whole[:end])
        files = IdentityFile(disk)
        assert files.found(DOOR) is None
        files.made(DOOR)
        assert is_of(disk.read(NAME), DOOR)
        assert (Identity.parse(disk.read(NAME), DOOR).public == key) is kept


def test_owners_certificate_takes_the_place_of_the_doors_own_and_gives_it_back() -> None:
    disk = Disk()
    files = IdentityFile(disk)
    own = files.identity(DOOR)
    chain = pem(issue(own.request()))
    files.made(DOOR, chain)
    assert disk.read(NAME) == own.pem(chain)
    assert str(files.signed).startswith("signed by CN=house until ")
    again = IdentityFile(disk)
    assert again.found(DOOR) is None
    assert again.found(DOOR, chain) is not None
    assert again.signed == files.signed
    again.made(DOOR)
    assert is_of(disk.read(NAME), DOOR)
    assert again.signed is None
    assert again.identity(DOOR).public == own.public


def test_certificate_of_before_a_reset_is_passed_over_once_and_the_door_signs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = Disk()
    files = IdentityFile(disk)
    chain = pem(issue(files.identity(DOOR).request()))
    files.made(DOOR, chain)
    for _ in range(2):
        assert files.made(RENAMED, chain) is not None
        assert files.found(RENAMED, chain) is not None
    assert is_of(disk.read(NAME), RENAMED)
    assert files.signed is None
    assert caplog.text.count("does not name urn:uuid") == 1
    files.made(DOOR, chain)
    assert is_of(disk.read(NAME), DOOR, chain)


FIRST_START = """
import sys, pathlib
from doorstation.store.files import Folder
from doorstation.store.identity import IdentityFile
"""


def test_first_start_makes_the_key_without_loading_the_library_for_it(tmp_path: Path) -> None:
    made = f"IdentityFile(Folder(pathlib.Path({str(tmp_path)!r}))).made({DOOR!r})\n"
    without = "assert not [name for name in sys.modules if name.startswith('cryptography')]"
    subprocess.run((sys.executable, "-c", FIRST_START + made + without), check=True)
    pem = (tmp_path / NAME).read_bytes()
    assert is_of(pem, DOOR)
    Identity.parse(pem, DOOR)


@pytest.mark.parametrize("program", ["/bin/false", "/missing"])
def test_no_program_for_the_key_is_a_key_all_the_same(tmp_path: Path, program: str) -> None:
    made = f"IdentityFile(Folder(pathlib.Path({str(tmp_path)!r}))).made({DOOR!r})"
    text = f"{FIRST_START}sys.executable = {program!r}\n{made}"
    subprocess.run((sys.executable, "-c", text), check=True)
    Identity.parse((tmp_path / NAME).read_bytes(), DOOR)
