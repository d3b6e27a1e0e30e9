"""The audit log: a line that is changed or removed is found, whatever else happens."""

import errno
import random

import pytest
from doorstation.errors import StoreError
from doorstation.store.audit import AuditLog

from tests.support.disk import Disk, PowerCut

LINES, HEAD = "audit.jsonl", "audit.head"
NOON = "2026-11-22T12:00:00Z"


def filled(count: int = 6, kept: int = 1000) -> Disk:
    disk = Disk()
    log = AuditLog(disk, kept=kept)
    for number in range(count):
        log.append(NOON, "set", {"by": "office", "keys": [f"door.key{number}"]})
    return disk


def lines(disk: Disk) -> list[bytes]:
    return disk.read(LINES).splitlines(keepends=True)


def test_what_was_appended_is_there() -> None:
    entries = list(AuditLog(filled(2)).entries())
    assert [entry["number"] for entry in entries] == [1, 2]
    assert entries[1]["keys"] == ["door.key1"]
    assert (entries[1]["at"], entries[1]["kind"], entries[1]["by"]) == (NOON, "set", "office")


def test_log_that_nobody_touched_is_whole_also_over_a_restart() -> None:
    disk = filled(3)
    AuditLog(disk).append(NOON, "confirm", {})
    assert AuditLog(disk).verify() == ""
    assert AuditLog(Disk()).verify() == ""


@pytest.mark.parametrize("number", range(6))
def test_changed_line_is_found(number: int) -> None:
    disk = filled(6)
    all_lines = lines(disk)
    all_lines[number] = all_lines[number].replace(b"office", b"nobody")
    disk.spoil(LINES, b"".join(all_lines))
    assert AuditLog(disk).verify() == f"line {number + 1} was changed"


@pytest.mark.parametrize("number", range(1, 6))
def test_removed_line_is_found(number: int) -> None:
    disk = filled(6)
    all_lines = lines(disk)
    del all_lines[number]
    disk.spoil(LINES, b"".join(all_lines))
    assert AuditLog(disk).verify() == f"the lines after {number} are missing, up to {number + 1}"


@pytest.mark.parametrize("kept", [3, 1000])
@pytest.mark.parametrize("goes_on", [False, True])
def test_removed_first_line_is_found(kept: int, goes_on: bool) -> None:
    disk = filled(8, kept=kept)
    all_lines = lines(disk)
    disk.spoil(LINES, b"".join(all_lines[1:]))
    if goes_on:
        AuditLog(disk, kept=kept).append(NOON, "set", {})
    first = 9 - len(all_lines)
    missing = f"the lines before {first + 1} are missing, from {first}"
    assert AuditLog(disk, kept=kept).verify() == missing


@pytest.mark.parametrize(
    ("removed", "missed"),
    [
        (1, "the lines after 5 are missing, up to 6"),
        (2, "the lines after 4 are missing, up to 6"),
        (6, "the lines before 7 are missing, from 1"),
    ],
)
def test_lines_taken_off_the_end_are_missed_when_the_log_goes_on_too(
    removed: int, missed: str
) -> None:
    disk = filled(6)
    disk.spoil(LINES, b"".join(lines(disk)[:-removed]))
    AuditLog(disk).append(NOON, "set", {})
    assert AuditLog(disk).verify() == missed


def test_changed_last_line_is_found_when_the_log_goes_on_too() -> None:
    disk = filled(6)
    disk.spoil(LINES, disk.read(LINES)[:-20].replace(b"key5", b"key6") + disk.read(LINES)[-20:])
    AuditLog(disk).append(NOON, "set", {})
    assert AuditLog(disk).verify() == "line 6 was changed"


def test_last_line_without_its_end_is_missed_when_the_log_goes_on() -> None:
    disk = filled(6)
    disk.spoil(LINES, disk.read(LINES)[:-1])
    AuditLog(disk).append(NOON, "set", {})
    assert AuditLog(disk).verify() == "the lines after 5 are missing, up to 6"


def test_log_that_is_gone_is_found() -> None:
    disk = filled(6)
    disk.remove(LINES)
    assert AuditLog(disk).verify() == "the lines after 0 are missing, up to 6"


@pytest.mark.parametrize(
    "line",
    [b"[]", b"[" * 100_000, b'{"number": 1e999, "before": ""}', b'{"number": ' + b"9" * 5000],
)
def test_line_of_another_kind_is_found(line: bytes) -> None:
    disk = filled(2)
    disk.spoil(LINES, disk.read(LINES) + line + b"\n")
    assert AuditLog(disk).verify() == "the line after 2 is no line of this log"
    AuditLog(disk).append(NOON, "set", {})
    assert len(list(AuditLog(disk).entries())) >= 3


def test_log_goes_on_behind_a_spoilt_line_and_the_spoilt_line_is_found() -> None:
    disk = filled(3)
    disk.spoil(LINES, disk.read(LINES) + b"nonsense\n")
    AuditLog(disk).append(NOON, "set", {})
    assert AuditLog(disk).verify() == "the line after 3 is no line of this log"


def test_log_is_bounded_and_what_stays_is_a_chain() -> None:
    disk = filled(47, kept=10)
    entries = list(AuditLog(disk).entries())
    assert 10 <= len(entries) <= 20
    assert entries[-1]["number"] == 47
    assert AuditLog(disk, kept=10).verify() == ""


def test_power_cut_at_any_call_costs_no_line_that_was_written() -> None:
    for cut in range(160):  # it is shortened twice
        for seed in range(20):
            disk = Disk(cut_at=cut)
            written = 0
            try:
                log = AuditLog(disk, kept=4)
                while True:
                    log.append(NOON, "set", {"n": written})
                    written += 1
            except PowerCut:
                pass
            disk = disk.after_cut(random.Random(seed))
            log = AuditLog(disk, kept=4)
            log.append(NOON, "after", {})
            numbers = [entry["n"] for entry in log.entries() if entry["kind"] == "set"]
            if written:
                assert written - 1 in numbers
            assert log.verify() == ""


def test_full_disk_is_a_clear_fault_and_the_log_goes_on_when_there_is_room() -> None:
    disk = filled(2)
    log = AuditLog(disk)
    faults = []
    for room in range(0, 300, 11):
        disk.full_after = room
        try:
            log.append(NOON, "set", {"by": "office"})
        except StoreError as fault:
            faults.append(str(fault))
        disk.full_after = None
        log.append(NOON, "set", {"by": "office"})
        assert log.verify() == ""
    assert faults
    assert all("No space left" in fault for fault in faults)


def test_disk_that_can_only_be_read_is_a_clear_fault() -> None:
    disk = filled(2)
    disk.broken = errno.EROFS
    with pytest.raises(StoreError, match="Read-only file system"):
        AuditLog(disk).append(NOON, "set", {})
    assert AuditLog(disk).verify() == ""


@pytest.mark.parametrize("spoilt", [None, b"", b"\0" * 40, b'{"number":3,"hash":"\xff"}'])
def test_head_that_is_lost_takes_nothing_from_the_chain(spoilt: bytes | None) -> None:
    disk = filled(3)
    disk.remove(HEAD)
    if spoilt is not None:
        disk.spoil(HEAD, spoilt)
    log = AuditLog(disk)
    assert log.verify() == ""
    log.append(NOON, "set", {})
    assert log.verify() == ""
