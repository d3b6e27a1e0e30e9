"""The journal: what happened is told at once, and written when the disk takes it."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
from doorstation.journal import Event, Journal
from doorstation.settings.tree import Log
from doorstation.store.events import read_events

from tests.support.waiting import until


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


async def test_flood_of_a_known_phones_records_leaves_older_ones_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A datagram under its address is enough for each: a call in, a text."""
    path = tmp_path / "events.jsonl"
    monkeypatch.setattr("doorstation.journal.AT_ONCE", 20)
    monkeypatch.setattr("doorstation.journal.TOLD_AFTER", 0.1)
    journal = Journal(Log(events=str(path), size=10_000, files=2))
    heard: list[Event] = []
    journal.follower = heard.append
    journal.record("release", {"relay": "door", "rule": "code"})
    for number in range(2000):
        journal.record("call_in", {"number": number, "rule": "one_call"})
    journal.record("release", {"relay": "door", "rule": "card"})
    await until(lambda: heard and heard[-1]["event"] == "not_kept")
    journal.record("call_in", {"number": 2000})
    journal.close()
    kinds = [event["kind"] for event in read_events(path)]
    assert kinds == ["release", *["call_in"] * 20, "release", "not_kept", "not_kept"]
    told = [event["events"] for event in heard if event["event"] == "not_kept"]
    assert told == [1980, 1]
    assert len(heard) == 2 + 2001 + 2  # who follows hears all
