"""Fetching a file: where from, how far, how large, and when again."""

import pytest
from doorstation.ids import SeededIds
from doorstation.provision.fetch import (
    DAY,
    Failed,
    Fetch,
    Fetched,
    Get,
    Output,
    Poll,
    Unchanged,
    beside,
    retry_after,
)
from doorstation.provision.files import MAX_FILE
from doorstation.settings.text import url_fault

URL = "https://c.test/door"


def why(outputs: list[Output]) -> str:
    (output,) = outputs
    assert isinstance(output, Failed)
    return output.why


def started(url: str = URL, etag: str = "") -> Fetch:
    fetch = Fetch(url, etag)
    assert fetch.start() == [Get(url, etag)]
    return fetch


def test_file_is_fetched_with_its_etag() -> None:
    assert started().answered(200, b"file", etag='"v1"') == [Fetched(URL, b"file", '"v1"')]


@pytest.mark.parametrize("etag", ["a" * 257, '"\udcff"', '"ü"', '"a\x7f"'])
def test_etag_that_cannot_be_kept_is_left_out(etag: str) -> None:
    assert started().answered(200, b"file", etag=etag) == [Fetched(URL, b"file", "")]


def test_file_that_has_not_changed_costs_nothing() -> None:
    assert started(etag='"v1"').answered(304, b"") == [Unchanged()]
    assert "without an ETag" in why(started().answered(304, b""))


@pytest.mark.parametrize(
    "url",
    ["", "door", "ftp://c.test/", "file:///etc/shadow", "https://", "https://u:p@c.test/",
     "https://c.test/a b", "https://c.test/\r\nX: y", "https://c.test:0/", "https://c.test:x/",
     "https://c.test/" + "a" * 1100, "https://ü.test/", "https://[::1"],
)  # fmt: skip
def test_address_that_is_none_is_never_asked(url: str) -> None:
    assert url_fault(url)
    assert why(Fetch(url).start())


@pytest.mark.parametrize("url", [URL, "http://10.0.0.1/x", "tftp://10.0.0.1/x", "https://[::1]:1/"])
def test_addresses_that_may_be_asked(url: str) -> None:
    assert url_fault(url) == ""


def test_redirection_is_followed_three_times() -> None:
    fetch = started()
    for number in range(3):
        assert fetch.answered(302, b"", location=f"/{number}") == [
            Get(f"https://c.test/{number}", "")
        ]
    assert "more than 3" in why(fetch.answered(302, b"", location="/3"))


@pytest.mark.parametrize(
    ("location", "fault"),
    [
        ("http://c.test/door", "nobody protects"),
        ("tftp://c.test/door", "nobody protects"),
        ("HTTP://c.test/door", "nobody protects"),
        ("file:///etc/shadow", "file"),
        ("", "nowhere"),
    ],
)
def test_redirection_leads_to_nothing_less_than_where_it_began(location: str, fault: str) -> None:
    assert fault in why(started().answered(301, b"", location=location))


@pytest.mark.parametrize("status", [201, 204, 400, 401, 403, 404, 500])
def test_other_status_is_a_failure(status: int) -> None:
    assert why(started().answered(status, b"x")) == f"status {status}"


def test_server_that_asks_to_wait_is_obeyed() -> None:
    (failed,) = started().answered(503, b"", retry="120")
    assert failed == Failed("status 503", 120.0)
    poll = Poll("door", SeededIds(1))
    assert poll.after_failure(120.0) == 120.0
    assert retry_after("Wed, 21 Oct 2026 07:28:00 GMT") is None
    assert retry_after("99999999999999") is None
    assert retry_after("999999999") == DAY


def test_file_is_bounded_and_not_empty() -> None:
    assert "more than" in why(started().answered(200, bytes(MAX_FILE + 1)))
    assert "empty" in why(started().answered(200, b""))


def test_each_door_has_its_own_minute_of_the_day() -> None:
    polls = [Poll(f"door-{n}", SeededIds(n)) for n in range(300)]
    assert len({poll.minute for poll in polls}) > 200
    poll = polls[0]
    at = poll.minute * 60.0
    assert poll.after_success((at - 3600) % DAY) == 3600.0
    assert poll.after_success(at) == DAY  # not again at once
    assert poll.after_success((at + 3600) % DAY) == DAY - 3600


def test_failures_wait_longer_and_longer_with_chance_in_it() -> None:
    poll = Poll("door", SeededIds(1))
    waits = [poll.after_failure(None) for _ in range(12)]
    for number, wait in enumerate(waits):
        whole = min(3600.0, 30.0 * 2**number)
        assert whole / 2 <= wait <= whole
    poll.after_success(0.0)
    assert poll.after_failure(None) <= 30.0


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("tftp://10.0.0.1/a/door.jws", "tftp://10.0.0.1/a/common.json"),
        ("https://c.test/door.jws?x=/y", "https://c.test/common.json"),
        ("http://c.test", "http://c.test/common.json"),
    ],
)
def test_file_of_a_list_lies_beside_the_signed_one(url: str, place: str) -> None:
    assert beside(url, "common.json") == place


def test_name_that_looks_like_an_address_is_a_name() -> None:
    assert beside("tftp://10.0.0.1/door.jws", "http:x?y") == "tftp://10.0.0.1/http%3Ax%3Fy"
