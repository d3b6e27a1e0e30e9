"""The event log: one line per event, bounded, and never in the way of the door."""

import datetime
import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from doorstation.errors import StoreError
from doorstation.store.events import MAX_LINE, EventLog, read_events

NOON = datetime.datetime(2026, 11, 22, 12, 0, 0, 125000, tzinfo=datetime.UTC)


def event_log(path: Path, size: int = 10_000, files: int = 3) -> EventLog:
    return EventLog(path, size=size, files=files, now=lambda: NOON)


def full_disk(monkeypatch: pytest.MonkeyPatch, room: int = 0) -> Callable[[], None]:
    """Every write from now on takes `room` bytes or fails; the returned call frees the disk."""
    write = os.write

    def refuse(file: int, data: bytes) -> int:
        if room:
            return write(file, bytes(data)[:room])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("doorstation.store.events.os.write", refuse)
    return lambda: monkeypatch.setattr("doorstation.store.events.os.write", write)


def test_event_is_one_json_line_with_time_and_kind(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with event_log(path) as log:
        log.append("press", {"button": "call", "rule": "starts_call"})
        log.append("release", {"seconds": 3.0, "allowed": True, "why": None})
    assert path.read_text() == (
        '{"at":"2026-11-22T12:00:00.125Z","kind":"press","button":"call","rule":"starts_call"}\n'
        '{"at":"2026-11-22T12:00:00.125Z","kind":"release","seconds":3.0,"allowed":true,"why":null}\n'
    )


def test_event_is_appended_with_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    write = os.write

    def counted(file: int, data: bytes) -> int:
        writes.append(data)
        return write(file, data)

    monkeypatch.setattr("doorstation.store.events.os.write", counted)
    with event_log(tmp_path / "events.jsonl") as log:
        log.append("press", {})
    assert len(writes) == 1
    assert writes[0].endswith(b"\n")


def test_line_end_in_a_value_stays_in_its_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with event_log(path) as log:
        log.append("call_in", {"uri": 'sip:a@b\n{"kind":"release"}', "x": "\udc80"})
    assert len(path.read_bytes().splitlines()) == 1
    assert [event["kind"] for event in read_events(path)] == ["call_in"]


def test_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "log" / "events.jsonl"
    with event_log(path, size=100) as log:
        for _ in range(3):
            log.append("press", {"button": "call"})
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.touch(0o644)
    with event_log(path) as log:
        log.append("press", {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_device_in_the_place_of_the_file_keeps_its_mode(tmp_path: Path) -> None:
    before = os.stat("/dev/full").st_mode
    log = event_log(Path("/dev/full"))
    log.append("press", {})
    assert "No space left" in log.fault
    assert os.stat("/dev/full").st_mode == before
    log.close()


def test_link_in_the_place_of_the_file_is_a_fault(tmp_path: Path) -> None:
    """Nobody may turn the log into another file's end."""
    target = tmp_path / "other"
    target.touch()
    (tmp_path / "events.jsonl").symlink_to(target)
    log = event_log(tmp_path / "events.jsonl")
    log.append("press", {})
    assert log.fault
    assert target.read_bytes() == b""


def test_log_stays_within_its_size_and_number_of_files(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with event_log(path, size=1000, files=3) as log:
        for number in range(200):
            log.append("press", {"number": number})
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]
    assert all(file.stat().st_size <= 1000 for file in tmp_path.iterdir())
    numbers = [event["number"] for event in read_events(path)]
    assert numbers == list(range(200 - len(numbers), 200)), "the newest, in order"


def test_one_file_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with event_log(path, size=200, files=1) as log:
        for number in range(10):
            log.append("press", {"number": number})
    assert [file.name for file in tmp_path.iterdir()] == ["events.jsonl"]
    assert path.stat().st_size <= 200


def test_rotation_and_close_sync_and_a_line_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("doorstation.store.events.os.fsync", synced.append)
    log = event_log(tmp_path / "events.jsonl", size=150)
    log.append("press", {"button": "call"})
    assert len(synced) == 0
    log.append("press", {"button": "call"})
    log.append("press", {"button": "call"})
    assert len(synced) == 1
    log.close()
    log.close()
    assert len(synced) == 2


def test_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for number in range(3):
        with event_log(path) as log:
            log.append("start", {"number": number})
    assert [event["number"] for event in read_events(path)] == [0, 1, 2]


def test_line_torn_by_a_power_cut_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with event_log(path) as log:
        log.append("press", {"number": 1})
        log.append("press", {"number": 2})
    path.write_bytes(path.read_bytes()[:-20])
    with event_log(path) as log:
        log.append("press", {"number": 3})
        log.append("press", {"number": 4})
    assert [event["number"] for event in read_events(path)] == [1, 3, 4]


def test_foreign_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(
        b'5\n\xff\xfe\n\n{"kind":"a"}\n' + b"[" * 8000 + b"\n" + b"x" * 50_000 + b'\n{"kind":"b"}\n'
    )
    assert [event["kind"] for event in read_events(path)] == ["a", "b"]


def test_no_file_reads_as_no_events(tmp_path: Path) -> None:
    assert list(read_events(tmp_path / "none")) == []


def test_file_that_cannot_be_read_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Is a directory"):
        list(read_events(tmp_path))


def test_event_beyond_all_measure_is_named_but_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with event_log(path, size=100_000) as log:
        log.append("call_in", {"uri": "x" * MAX_LINE})
    (event,) = read_events(path)
    assert event["kind"] == "call_in"
    assert event["too_long"] == 8251


def test_full_disk_is_one_fault_and_writing_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.jsonl"
    log = event_log(path)
    log.append("press", {"number": 1})
    free = full_disk(monkeypatch)
    for number in range(2, 5):
        log.append("press", {"number": number})
    assert log.fault == f"{path}: No space left on device"
    assert len(caplog.messages) == 1
    assert log.fault in caplog.text
    assert log.lost == 3
    free()
    log.append("press", {"number": 5})
    assert log.fault == ""
    assert caplog.messages[1:] == ["event log: written again; 3 events were lost"]
    log.close()
    assert [event["number"] for event in read_events(path)] == [1, 5]


def test_half_a_line_on_a_full_disk_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    log = event_log(path)
    log.append("press", {"number": 1})
    free = full_disk(monkeypatch, room=10)
    log.append("press", {"number": 2})
    assert log.fault == f"{path}: only 10 of 60 bytes written"
    free()
    log.append("press", {"number": 3})
    log.close()
    assert [event["number"] for event in read_events(path)] == [1, 3]


def test_read_only_disk_is_a_fault_and_no_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("doorstation.store.events.os.open", refuse)
    log = event_log(tmp_path / "events.jsonl")
    log.append("press", {})
    log.append("press", {})
    assert log.fault.endswith("Read-only file system")
    assert log.lost == 2
    log.close()


def test_rotation_that_fails_is_a_fault_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    log = event_log(path, size=150)
    log.append("press", {"number": 1})
    log.append("press", {"number": 2})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *a: (_ for _ in ()).throw(OSError(30, "Read-only")))
        log.append("press", {"number": 3})
        assert log.fault == f"{path}: Read-only"
    log.append("press", {"number": 4})
    assert log.fault == ""
    log.close()
    assert [event["number"] for event in read_events(path)] == [1, 2, 4]


def test_descriptors_do_not_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    log = event_log(tmp_path / "events.jsonl", size=100)
    for _ in range(20):
        log.append("press", {"button": "call"})
    free = full_disk(monkeypatch)
    for _ in range(20):
        log.append("press", {"button": "call"})
    free()
    log.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_event_keeps_words_of_any_language(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with event_log(path) as log:
        log.append("press", {"button": "Küche"})
    assert json.loads(path.read_text(encoding="utf-8"))["button"] == "Küche"
