"""What the network says, while stations come and go."""

import asyncio
import contextlib
import errno
from collections.abc import Callable
from typing import Any, cast

import pytest
from doorstation.configurator import Configurator
from doorstation.dhcp.offered import Offered
from doorstation.ids import Ids, SeededIds
from doorstation.net import dhcp
from doorstation.network import Network
from doorstation.provision.layers import Change

from tests.support.disk import Disk, Inline

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


async def test_servers_that_do_not_go_with_the_settings_are_told_once_and_used_as_soon_as_they_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask(each: dhcp.Interface, ids: Ids, heard: Callable[[Offered], None]) -> list[str]:
        heard(Offered("10.0.0.1", sip_servers=("192.0.2.66",)))
        return []

    here = dhcp.Interface("eth0", bytes(6), "192.0.2.7", "")
    monkeypatch.setattr(dhcp, "interfaces", lambda: [here])
    monkeypatch.setattr(dhcp, "ask", ask)
    account = {"user": "door", "password": "geheim", "transport": "tls"}
    configurator = Configurator({"local": {**LOCAL, "account": account}}, Disk(), disk=Inline())
    offers = cast(Any, Network(configurator, SeededIds(1)))._offers
    for _ in range(2):
        await offers.ask()
        assert configurator.settings.sip.servers == ()
    assert caplog.text.count("TLS proves a name") == 1
    change = Change({"account.transport": "udp"})
    await configurator.stage(change, by="office", how="test", needs_word=False)
    await offers.ask()
    assert configurator.settings.sip.servers == ("192.0.2.66",)
    await configurator.aclose()
