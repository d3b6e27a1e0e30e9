"""Results are told in the end, but not for ever."""

import pytest
from doorstation.provision.outbox import MAX_RESULTS, PAUSES, Outbox


def test_result_that_is_answered_is_not_sent_again() -> None:
    outbox = Outbox[str]()
    outbox.add("applied", 1.0)
    assert outbox.take(1.0) == ["applied"]
    outbox.sent("applied", "m1")
    assert outbox.deadline(0.0) is None
    outbox.answered("m1", 202, 2.0)
    outbox.station_ended(3.0)
    assert outbox.take(100.0) == []


@pytest.mark.parametrize("status", [408, 500, 503])
def test_result_that_fails_for_a_moment_is_sent_a_few_times_more(status: int) -> None:
    outbox = Outbox[str]()
    outbox.add("applied", 0.0)
    now = 0.0
    assert outbox.take(now) == ["applied"]
    for number, pause in enumerate(PAUSES):
        outbox.sent("applied", f"m{number}")
        outbox.answered(f"m{number}", status, now)
        assert outbox.deadline(now) == now + pause
        assert outbox.take(now + pause - 0.1) == []
        now += pause
        assert outbox.take(now) == ["applied"]
    outbox.sent("applied", "last")
    outbox.answered("last", status, now)
    assert outbox.deadline(0.0) is None


def test_result_that_is_refused_is_not_sent_again() -> None:
    outbox = Outbox[str]()
    outbox.add("applied", 0.0)
    assert outbox.take(0.0) == ["applied"]
    outbox.sent("applied", "m1")
    outbox.answered("m1", 404, 0.0)
    assert outbox.deadline(0.0) is None


def test_result_whose_station_ended_is_sent_by_the_next() -> None:
    outbox = Outbox[str]()
    outbox.add("rolled back", 0.0)
    assert outbox.take(0.0) == ["rolled back"]
    outbox.sent("rolled back", "m1")
    outbox.station_ended(5.0)
    outbox.answered("m1", 202, 5.0)
    assert outbox.take(5.0) == ["rolled back"]


def test_results_that_wait_are_bounded() -> None:
    outbox = Outbox[str]()
    for number in range(MAX_RESULTS + 5):
        outbox.add(str(number), 0.0)
    assert outbox.take(0.0) == [str(number) for number in range(5, MAX_RESULTS + 5)]


def test_result_that_may_not_be_sent_yet_waits() -> None:
    outbox = Outbox[str]()
    outbox.add("applied", 0.0)
    assert outbox.take(0.0, lambda result: False) == []
    assert outbox.take(1.0) == ["applied"]
