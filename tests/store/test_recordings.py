"""Recordings on disk: whole or not at all, and not for long."""

import random
from collections.abc import Iterator

import pytest
from doorstation.store.recordings import Recordings

from tests.support.disk import Disk, PowerCut

AT = 1_767_225_600.0
DAY = 86400.0


def joined(sound: bytes, packets: bytes) -> Iterator[bytes]:
    yield sound
    yield packets


def record(disk: Disk, at: float = AT) -> str:
    recordings = Recordings(disk)
    name = recordings.begin(at)
    recordings.add(b"abc", b"1")
    recordings.add(b"def", b"2")
    recordings.finish(name, joined)
    return name


def test_a_recording_is_named_by_its_time_and_leaves_no_parts() -> None:
    disk = Disk()
    assert record(disk) == "call-20260101T000000Z.tar"
    assert disk.names() == ["call-20260101T000000Z.tar"]
    assert disk.read("call-20260101T000000Z.tar") == b"abcdef12"


def test_it_is_deleted_when_its_time_is_over() -> None:
    disk = Disk()
    record(disk)
    recordings = Recordings(disk)
    assert recordings.expire(AT + 10, DAY) == AT + DAY
    assert recordings.expire(AT + DAY, DAY) is None
    assert disk.names() == []


def test_one_made_under_a_clock_that_was_ahead_does_not_stay() -> None:
    disk = Disk()
    record(disk, AT + 400 * DAY)
    Recordings(disk).expire(AT, DAY)
    assert disk.names() == []


def test_other_files_are_left_alone() -> None:
    disk = Disk()
    others = ["call-notes.txt", "film.mkv.part"]
    for name in others:
        disk.close(disk.create(name))
    recordings = Recordings(disk)
    recordings.abandon()
    assert recordings.expire(AT, DAY) is None
    assert disk.names() == others


@pytest.mark.parametrize("seed", range(60))
def test_a_power_cut_leaves_a_whole_recording_or_none(seed: int) -> None:
    disk = Disk(cut_at=seed // 3 + 1)
    try:
        record(disk)
    except PowerCut:
        disk = disk.after_cut(random.Random(seed))
    Recordings(disk).abandon()
    for name in disk.names():
        assert disk.read(name) == b"abcdef12"


@pytest.mark.parametrize("seed", range(20))
def test_a_recording_that_is_finished_outlives_a_power_cut(seed: int) -> None:
    disk = Disk()
    name = record(disk)
    disk = disk.after_cut(random.Random(seed))
    Recordings(disk).abandon()
    assert disk.names() == [name]
    assert disk.read(name) == b"abcdef12"


def test_a_full_disk_is_told_and_its_parts_can_be_removed() -> None:
    disk = Disk()
    disk.full_after = 4
    recordings = Recordings(disk)
    recordings.begin(AT)
    with pytest.raises(OSError, match="space"):
        recordings.add(b"abcdef", b"")
    recordings.abandon()
    assert disk.names() == []
