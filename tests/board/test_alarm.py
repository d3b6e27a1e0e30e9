import logging
import threading
import time
from queue import SimpleQueue

import pytest
from doorboard.alarm import Alarm


def test_calls_back_at_its_time_and_not_before() -> None:
    calls: SimpleQueue[float] = SimpleQueue()
    with Alarm(calls.put, "test") as alarm:
        at = time.monotonic() + 0.03
        alarm.set(at)
        assert calls.get(timeout=5) >= at
        assert calls.empty()


def test_a_sooner_time_replaces_a_later_one() -> None:
    calls: SimpleQueue[float] = SimpleQueue()
    with Alarm(calls.put, "test") as alarm:
        alarm.set(time.monotonic() + 3600)
        alarm.set(time.monotonic())
        calls.get(timeout=5)


def test_a_later_time_replaces_a_sooner_one() -> None:
    calls: SimpleQueue[float] = SimpleQueue()
    with Alarm(calls.put, "test") as alarm:
        later = time.monotonic() + 0.1
        alarm.set(later - 0.05)
        alarm.set(later)
        assert calls.get(timeout=5) >= later


def test_a_time_taken_back_does_not_come() -> None:
    calls: SimpleQueue[float] = SimpleQueue()
    with Alarm(calls.put, "test") as alarm:
        alarm.set(time.monotonic() + 0.02)
        alarm.set(None)
        alarm.set(time.monotonic() + 0.06)
        calls.get(timeout=5)
        assert calls.empty()


def test_an_alarm_never_set_has_no_thread() -> None:
    before = threading.active_count()
    with Alarm(lambda now: None, "test"):
        assert threading.active_count() == before


def test_the_callback_may_set_the_next_time_and_close() -> None:
    calls: SimpleQueue[float] = SimpleQueue()

    def called(now: float) -> None:
        calls.put(now)
        alarm.set(now + 0.01)
        if calls.qsize() == 3:
            alarm.close()
            done.set()

    done = threading.Event()
    alarm = Alarm(called, "test")
    alarm.set(time.monotonic())
    assert done.wait(5)
    assert calls.qsize() == 3


def test_a_callback_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    calls: SimpleQueue[float] = SimpleQueue()

    def fail(now: float) -> None:
        calls.put(now)
        raise OSError("no such pin")

    with caplog.at_level(logging.CRITICAL), Alarm(fail, "test") as alarm:
        for _ in range(2):
            alarm.set(time.monotonic())
            calls.get(timeout=5)


def test_closed_twice_and_set_afterwards_does_nothing() -> None:
    calls: SimpleQueue[float] = SimpleQueue()
    alarm = Alarm(calls.put, "test")
    alarm.close()
    alarm.close()
    alarm.set(time.monotonic())
    assert calls.empty()


def test_a_thread_that_could_not_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    calls: SimpleQueue[float] = SimpleQueue()
    with Alarm(calls.put, "test") as alarm:
        with monkeypatch.context() as crowded:
            crowded.setattr(threading.Thread, "start", full)
            with pytest.raises(RuntimeError):
                alarm.set(time.monotonic())
        alarm.set(time.monotonic())
        calls.get(timeout=5)
