"""What a web server says beside its file."""

import pytest
from doorstation.net.https import in_seconds

NOON = "Mon, 23 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("retry", "date", "seconds"),
    [
        ("", NOON, ""),
        ("120", "", "120"),
        ("Mon, 23 Nov 2026 12:10:00 GMT", NOON, "600"),
        ("Mon, 23 Nov 2026 11:00:00 GMT", NOON, "0"),
        ("Mon, 23 Nov 2026 12:10:00 GMT", "", ""),
        ("Mon, 23 Nov 99999999 12:10:00 GMT", NOON, ""),
        ("Mon, 23 Nov 2026 12:10:00 -0000", NOON, ""),
        ("soon", NOON, ""),
    ],
)
def test_time_to_wait_for_counts_from_the_servers_own_clock(
    retry: str, date: str, seconds: str
) -> None:
    assert in_seconds(retry, date) == seconds
