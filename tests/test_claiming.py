"""The claim page comes when it can, and what keeps it from coming stops nothing else."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doorstation import claiming, provisioner
from doorstation.claiming import Claiming
from doorstation.configurator import Configurator
from doorstation.ids import SystemIds
from doorstation.net.visits import listening
from doorstation.provisioner import PART, FirstUse, Kept
from doorstation.store.files import Folder

from tests.support.waiting import until


@contextlib.asynccontextmanager
async def door(
    folder: Path, port: int, kept: Kept | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """A door that is to have the page on this port; without an owner, or with what is `kept`."""
    base = {"board": {"kind": "fake"}, "provisioning": {"claim_port": port}}
    configurator = Configurator({"local": base}, Folder(folder))
    if kept is not None:
        await configurator.remember(PART, msgspec.to_builtins(kept))
    claiming = Claiming(configurator, SystemIds(), lambda: kept is not None)
    task = asyncio.create_task(claiming.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await configurator.aclose()


async def test_page_whose_port_was_taken_comes_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(claiming, "AGAIN", 0.05)
    caplog.set_level("INFO")
    asked: list[int] = []

    def counted(port: int, *way: Any) -> contextlib.AbstractAsyncContextManager[None]:
        asked.append(port)
        return listening(port, *way)

    monkeypatch.setattr(claiming, "listening", counted)
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        async with door(tmp_path, port):
            await until(lambda: len(asked) > 2)
            other.close()
            await until(lambda: "until the door has an owner" in caplog.text)
    assert caplog.text.count("in use") == 1


async def test_door_without_the_pages_library_is_a_door_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    async with door(tmp_path, 8443) as task:
        await until(lambda: "aiohttp is not installed" in caplog.text)
        assert not task.done()


async def test_page_that_says_who_claimed_the_door_ends_with_its_half_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
    uptime = 100.0
    monkeypatch.setattr(provisioner, "_uptime", lambda: uptime)
    monkeypatch.setattr(provisioner, "CLAIM_SHOWN", 0.5)
    kept = Kept(boot=provisioner._boot(), first_use=FirstUse("kid", uptime))
    async with door(tmp_path, port, kept):
        await until(lambda: "to say who claimed the door" in caplog.text)
        uptime += 0.5
        await until(lambda: "claim page ended" in caplog.text)
    assert "until the door has an owner" not in caplog.text
