"""The journal: what happened is told at once, and written when the disk takes it."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
from doorstation.journal import Event, Journal
from doorstation.settings.tree import Log
from doorstation.store.events import read_events


async def test_disk_that_stands_still_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    stands, moves = threading.Event(), threading.Event()
    write = os.write

    def stalled(file: int, data: bytes) -> int:
        stands.set()
        assert moves.wait(60)
        return write(file, data)

    monkeypatch.setattr("doorstation.store.events.os.write", stalled)
    journal = Journal(Log(events=str(path)))
    heard: list[Event] = []
    journal.follower = heard.append
    for number in range(3):
        journal.record("press", {"number": number})
    assert [event["number"] for event in journal.recent()] == [0, 1, 2]
    assert [event["number"] for event in heard] == [0, 1, 2]
    assert await asyncio.to_thread(stands.wait, 60)
    assert not list(read_events(path))

    moves.set()
    journal.close()
    written = list(read_events(path))
    assert [event["number"] for event in written] == [0, 1, 2]
    assert [event["at"] for event in written] == [event["at"] for event in heard]


async def test_records_beyond_what_a_stalled_disk_may_keep_in_memory_are_counted_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stands, moves = threading.Event(), threading.Event()
    write = os.write

    def stalled(file: int, data: bytes) -> int:
        stands.set()
        assert moves.wait(60)
        return write(file, data)

    monkeypatch.setattr("doorstation.store.events.os.write", stalled)
    monkeypatch.setattr("doorstation.journal.MAX_WAITING", 5)
    journal = Journal(Log(events=str(tmp_path / "events.jsonl")))
    for _ in range(20):
        journal.record("press", {})
    assert await asyncio.to_thread(stands.wait, 60)
    kept = 20 - journal.lost
    assert kept in (5, 6)  # the sixth: the one that the thread already holds
    moves.set()
    journal.close()
    assert len(list(read_events(tmp_path / "events.jsonl"))) == kept
