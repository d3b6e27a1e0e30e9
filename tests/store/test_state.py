"""The state on disk: the old one or the new one, never a third, never none."""

import errno
import os
import random
import stat
from pathlib import Path

import msgspec
import pytest
from doorstation.errors import StoreError
from doorstation.provision.state import Past, State
from doorstation.store.files import Files, Folder
from doorstation.store.state import MAX_STATE, SLOTS, StateStore

from tests.support.disk import Disk, PowerCut

STATES = [State(number=n, remote={"door": {"max_call": 100 + n}}, kept={"x": "y" * n * 40})
          for n in range(1, 6)]  # fmt: skip


def write_all(files: Files, states: list[State]) -> list[State]:
    """Write one after the other; those that were written, in order."""
    store, written = StateStore(files), list[State]()
    try:
        store.read()
        for state in states:
            store.write(state)
            written.append(state)
    except PowerCut:
        pass
    return written


def calls_of(states: list[State]) -> int:
    disk = Disk()
    write_all(disk, states)
    return disk.calls


@pytest.mark.parametrize("cut", range(calls_of(STATES) + 1))
def test_power_cut_at_any_call_leaves_the_old_state_or_the_new_one(cut: int) -> None:
    for seed in range(200):
        disk = Disk(cut_at=cut)
        written = write_all(disk, STATES)
        old = written[-1] if written else State()
        allowed = [old, *STATES[len(written) : len(written) + 1]]
        found = StateStore(disk.after_cut(random.Random(seed))).read()
        assert found in allowed


def test_power_cut_after_power_cut_leaves_a_state_that_was_written() -> None:
    for seed in range(2000):
        chance = random.Random(seed)
        disk, number, old = Disk(), 0, State()
        for _ in range(6):
            disk.cut_at = chance.randrange(14)
            store = StateStore(disk)
            new = old
            try:
                assert store.read() == old
                while True:
                    number += 1
                    new = State(number=number)
                    store.write(new)
                    old = new
            except PowerCut:
                disk = disk.after_cut(chance)
            found = StateStore(disk).read()
            assert found in (old, new)
            old = found


@pytest.mark.parametrize("room", range(0, 280, 7))
def test_full_disk_is_a_clear_fault_and_the_old_state_stays(room: int) -> None:
    disk = Disk()
    store = StateStore(disk)
    store.write(STATES[0])
    store.write(STATES[1])
    disk.full_after = room
    with pytest.raises(StoreError, match="No space left on device"):
        store.write(STATES[4])
    assert StateStore(disk).read() == STATES[1]
    disk.full_after = None
    store.write(STATES[4])
    assert StateStore(disk).read() == STATES[4]


def test_disk_that_can_only_be_read_is_a_clear_fault_and_the_old_state_stays() -> None:
    disk = Disk()
    store = StateStore(disk)
    store.write(STATES[0])
    disk.broken = errno.EROFS
    with pytest.raises(StoreError, match="Read-only file system"):
        store.write(STATES[1])
    assert StateStore(disk).read() == STATES[0]


@pytest.mark.parametrize("slot", SLOTS)
def test_state_with_a_changed_byte_is_not_used(slot: str) -> None:
    disk = Disk()
    store = StateStore(disk)
    store.write(STATES[0])
    store.write(STATES[1])
    whole = disk.read(slot)
    for place in range(len(whole)):
        disk.spoil(slot, whole[:place] + bytes((whole[place] ^ 1,)) + whole[place + 1 :])
        again = StateStore(disk)
        assert again.read() in STATES[:2]
        assert again.faults[0].startswith(f"{slot}: ")


def test_no_whole_state_is_a_fault_and_no_fresh_state() -> None:
    disk = Disk()
    for slot in SLOTS:
        disk.spoil(slot, b"doorstation-state 1 5 00 0\n")
    with pytest.raises(StoreError, match=r"state\.a: .*; state\.b: "):
        StateStore(disk).read()


def test_past_changes_that_do_not_fit_go_the_oldest_first_and_the_rest_is_kept() -> None:
    disk = Disk()
    large = {"peers": {f"p{n}": {"uri": "sip:192.0.2.7"} for n in range(8000)}}
    past = [
        Past(number=n, at="", by="", how="", origin="provisioned", differences=(),
             before=large, result="confirmed")
        for n in range(20)
    ]  # fmt: skip
    state = State(number=20, provisioned=large, history=tuple(past), kept={"orders": 7})
    StateStore(disk).write(state)
    found = StateStore(disk).read()
    assert 5 < len(found.history) < 20
    assert found.history == state.history[-len(found.history) :]
    assert found == msgspec.structs.replace(state, history=found.history)


def test_state_that_cannot_fit_is_a_clear_fault() -> None:
    with pytest.raises(StoreError, match="are kept"):
        StateStore(Disk()).write(State(kept={"x": "y" * MAX_STATE}))


def test_new_disk_has_a_fresh_state() -> None:
    assert StateStore(Disk()).read() == State()


def test_real_files_are_for_the_service_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    before = os.umask(0)
    try:
        store = StateStore(Folder(folder))
        for state in STATES:
            store.write(state)
    finally:
        os.umask(before)
    assert StateStore(Folder(folder)).read() == STATES[-1]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_link_in_the_place_of_a_slot_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / SLOTS[0]).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=SLOTS[0]):
        StateStore(Folder(folder)).write(STATES[0])
    assert not (tmp_path / "elsewhere").exists()


def test_root_may_look_at_the_services_state_and_writes_nothing_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "state"
    StateStore(Folder(folder)).write(STATES[0])
    before = sorted(folder.iterdir())
    os.chown(folder, os.getuid() or 65534, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    looking = StateStore(Folder(folder, look=True))
    assert looking.read() == STATES[0]
    with pytest.raises(StoreError, match="Read-only"):
        looking.write(STATES[1])
    assert sorted(folder.iterdir()) == before
    with pytest.raises(StoreError, match="belongs to another user"):
        Folder(folder)
    monkeypatch.setattr(os, "geteuid", lambda: 77)
    with pytest.raises(StoreError, match="belongs to another user"):
        Folder(folder, look=True)


def test_folder_that_nobody_has_any_more_costs_no_descriptor(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        StateStore(Folder(tmp_path / "state")).write(STATES[0])
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_who_only_looks_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        Folder(tmp_path / "state", look=True)
    assert not (tmp_path / "state").exists()


def test_folder_that_cannot_be_made_is_a_clear_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Not a directory"):
        Folder(tmp_path / "file" / "state")
