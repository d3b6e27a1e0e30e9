"""Rounds of looking for a file: when, and how many. What a round does is told by the stories."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from doorstation import provisioner
from doorstation.configurator import Configurator
from doorstation.errors import DoorstationError
from doorstation.ids import SeededIds
from doorstation.provision.fetch import Poll
from doorstation.provisioner import File, Kept, Provisioner

from tests.support.disk import Disk, Inline
from tests.support.virtual_time import run


class Rounds(Provisioner):
    """Looks and finds what there was before, each time it is asked."""

    looked = 0

    async def round(self) -> bool:
        self.looked += 1
        return True


@contextlib.asynccontextmanager
async def rounds() -> AsyncIterator[tuple[Rounds, Configurator]]:
    configurator = Configurator({"local": {}}, Disk(), disk=Inline())
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
def asked_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    names: list[str] = []

    def poll(name: str, ids: SeededIds) -> Poll:
        names.append(name)
        return Poll(name, ids)

    monkeypatch.setattr(provisioner, "Poll", poll)
    yield names


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
            await asyncio.sleep(100)
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
