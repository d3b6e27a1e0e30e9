"""Rounds of looking for a file: when, and how many. What a round does is told by the stories."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
import pytest
from doorstation import provisioner
from doorstation.configurator import Configurator
from doorstation.dhcp.offered import Location, Offered
from doorstation.errors import DoorstationError
from doorstation.ids import Ids, SeededIds
from doorstation.net import https
from doorstation.provision.fetch import Failed, Poll
from doorstation.provision.layers import Change
from doorstation.provisioner import PART, File, FirstUse, Kept, Provisioner, first_use
from doorstation.settings.tree import Settings

from tests.support.disk import Disk, Inline
from tests.support.virtual_time import run

OWNER = {"public": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "role": "owner"}


class Rounds(Provisioner):
    """Looks and finds what there was before, each time it is asked."""

    looked = 0

    async def round(self) -> bool:
        self.looked += 1
        return True


@contextlib.asynccontextmanager
async def rounds(
    local: Mapping[str, Any] | None = None,
) -> AsyncIterator[tuple[Rounds, Configurator]]:
    configurator = Configurator({"local": local or {}}, Disk(), disk=Inline())
    async with contextlib.aclosing(configurator):
        await configurator.start()
        made = Rounds(configurator, SeededIds())
        running = asyncio.create_task(made.run())
        try:
            yield made, configurator
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def asked_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    def poll(name: str, ids: SeededIds) -> Poll:
        names.append(name)
        return Poll(name, ids)

    monkeypatch.setattr(provisioner, "Poll", poll)
    return names


def test_minute_of_the_day_is_of_the_doors_uuid(asked_of: list[str]) -> None:
    async def story() -> None:
        async with rounds() as (_, configurator):
            await asyncio.sleep(1)
            assert asked_of == [configurator.door]
            assert configurator.door

    run(story())


def test_flood_of_check_syncs_is_a_look_every_two_seconds() -> None:
    async def story() -> None:
        async with rounds() as (door, _):
            for _ in range(1000):
                await asyncio.sleep(0.01)
                door.check()
            assert 4 <= door.looked <= 6
            await asyncio.sleep(50)
            looked = door.looked
            door.check()
            await asyncio.sleep(0.1)
            assert door.looked == looked + 1, "one alone is not kept waiting"

    run(story())


def test_file_that_was_judged_before_another_one_came_is_judged_again() -> None:
    async def story() -> None:
        async with rounds() as (door, configurator):
            await asyncio.sleep(1)
            known = door._kept
            newer, older = (
                File({"audio": {"country": "at"}}, "kid", False, Kept(serial=serial), known)
                for serial in (7, 6)
            )
            await door._take(newer)
            with pytest.raises(DoorstationError, match="another file came meanwhile"):
                await door.try_ordered(older, by="", how="", confirm_within=None, kept={})
            assert configurator.remembered("files")["serial"] == 7

    run(story())


def test_place_or_owner_that_the_settings_name_from_now_on_is_followed_at_once() -> None:
    async def story() -> None:
        async with rounds() as (door, configurator):
            configurator.attach(Door(), configurator.settings)
            await asyncio.sleep(60)
            assert door.looked == 1
            for key, value, looks in (
                ("provisioning.url", "https://office.test/", 2),
                ("audio.country", "at", 2),
                ("keys.office", OWNER, 3),
            ):
                change = Change({key: value})
                await configurator.stage(change, by="owner", how="test", needs_word=False)
                await asyncio.sleep(60)
                assert configurator.pending is None
                assert door.looked == looks

    run(story())


class Door:
    """A station as the configurator sees it, that registers at some time."""

    busy = False
    registered = False

    def take(self, settings: Settings) -> None: ...
    def end(self) -> None: ...
    def record(self, kind: str, fields: Mapping[str, object]) -> None: ...


def test_file_is_looked_for_once_the_door_is_registered_or_its_registrar_is_down() -> None:
    async def story() -> None:
        local = {"account": {"user": "door", "domain": "pbx.example", "password": "geheim"}}
        async with rounds(local) as (door, configurator):
            station = Door()
            configurator.attach(station, configurator.settings)
            await asyncio.sleep(4)
            assert door.looked == 0
            station.registered = True
            await asyncio.sleep(2)
            assert door.looked == 1
        async with rounds(local) as (door, _):
            await asyncio.sleep(12)
            assert door.looked == 1

    run(story())


def test_claim_by_first_use_is_news_for_half_an_hour_and_not_after_a_restart_of_the_machine() -> (
    None
):
    async def story() -> None:
        async with rounds() as (_, configurator):
            await asyncio.sleep(1)
            for boot, since, news in (
                (provisioner._boot(), 60.0, True),
                (provisioner._boot(), 1801.0, False),
                ("another", 60.0, False),
            ):
                claim = FirstUse("kid", provisioner._uptime() - since)
                kept = msgspec.to_builtins(Kept(boot=boot, first_use=claim))
                await configurator.remember(PART, kept)
                assert first_use(configurator) == (claim if news else None)

    run(story())


def test_place_that_asks_to_be_left_alone_is_and_keeps_no_other_from_being_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def fetch(url: str, *_: object) -> https.Answer:
        asked.append(url)
        return https.Answer(Failed("status 503", 86400.0 if "rogue" in url else None), private=True)

    async def ask_dhcp(ids: Ids, heard: Callable[[Offered], None]) -> list[str]:
        heard(Offered("192.0.2.66", locations=(Location("https://rogue.test/", "option 160"),)))
        return []

    monkeypatch.setattr(https, "fetch", fetch)

    async def story() -> None:
        local = {
            "provisioning": {"url": "https://office.test/", "discovery": "always"},
            "keys": {"office": OWNER},
        }
        configurator = Configurator({"local": local}, Disk(), disk=Inline())
        async with contextlib.aclosing(configurator):
            door = Provisioner(configurator, SeededIds(), ask_dhcp=ask_dhcp)
            running = asyncio.create_task(door.run())
            await asyncio.sleep(3600)
            assert asked.count("https://rogue.test/") == 1
            assert asked.count("https://office.test/") > 5
            door.check()
            await asyncio.sleep(10)
            assert asked.count("https://rogue.test/") == 2, "somebody who may says that it is time"
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(story())
