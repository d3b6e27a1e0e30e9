"""Signs of life for systemd, in virtual time, and to a socket as systemd's."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from doorstation.net.watchdog import give_signs, wanted

from tests.support.virtual_time import run


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where the signs arrive; it wants one within 21 s."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "21000000")
        yield receiver


def arrived(systemd: socket.socket) -> int:
    count = 0
    while True:
        try:
            assert systemd.recv(100) == b"WATCHDOG=1"
        except BlockingIOError:
            return count
        count += 1


def test_signs_come_three_in_a_time_out_and_none_while_the_media_thread_hangs(
    systemd: socket.socket,
) -> None:
    silent = 0.0

    async def story() -> None:
        nonlocal silent
        giving = asyncio.create_task(give_signs(lambda: silent))
        await asyncio.sleep(20)
        assert arrived(systemd) == 3
        silent = 8.0
        await asyncio.sleep(60)
        assert arrived(systemd) == 0
        silent = 0.02
        await asyncio.sleep(7)
        assert arrived(systemd) == 1
        giving.cancel()

    run(story())


def test_a_systemd_that_is_away_for_a_moment_ends_no_door(
    systemd: socket.socket, tmp_path: Path
) -> None:
    async def story() -> None:
        giving = asyncio.create_task(give_signs(lambda: 0.0))
        (tmp_path / "notify").rename(tmp_path / "away")
        await asyncio.sleep(10)
        assert not giving.done()
        assert arrived(systemd) == 0
        (tmp_path / "away").rename(tmp_path / "notify")
        await asyncio.sleep(10)
        assert arrived(systemd) > 0
        giving.cancel()

    run(story())


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": "/run/n"}, None),
        ({"WATCHDOG_USEC": "3000000"}, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "soon"}, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "3000000"}, ("/run/n", 1.0)),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "3000000"}, ("\0n", 1.0)),
    ],
)
def test_signs_are_wanted_by_who_names_a_socket_and_a_time(
    environment: dict[str, str], found: tuple[str, float] | None
) -> None:
    assert wanted(environment) == found
