"""Where a web server is, and what it says beside its file."""

import socket

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from doorstation.net.https import in_seconds
from doorstation.net.link_names import LinkResolver

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


async def test_server_by_an_offices_own_local_name_is_asked_of_its_name_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NameServers(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            return [
                ResolveResult(
                    hostname=host, host="192.0.2.1", port=port, family=family, proto=0, flags=0
                )
            ]

        async def close(self) -> None: ...

    monkeypatch.setattr(aiohttp, "DefaultResolver", NameServers)
    (found,) = await LinkResolver().resolve("files.office.local", 443)
    assert found["host"] == "192.0.2.1"
