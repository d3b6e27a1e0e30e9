"""What the network says, while stations come and go."""

import asyncio
import contextlib
import errno
from typing import Any

import pytest
from doorstation.configurator import Configurator
from doorstation.ids import SeededIds
from doorstation.network import Network

LOCAL: dict[str, Any] = {"buttons": {"call": {"pin": 17, "steps": [{"ring": ["sip:a@192.0.2.1"]}]}}}


async def test_a_host_that_tells_nothing_of_its_network_has_a_door_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("doorstation.network.NetworkWatch", refused)
    running = asyncio.create_task(Network(Configurator({"local": LOCAL}, None), SeededIds(1)).run())
    await asyncio.sleep(0.05)
    assert not running.done()
    assert "network changes go unnoticed" in caplog.text
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
