"""The sound card that nobody uses yet; what looks for it is a program of a line."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from doorstation.net import card_watch
from doorstation.net.card_watch import CardWatch

NONE = "no card; there are: a, b"


class Watched:
    """A watch, and what it told."""

    def __init__(self, script: str) -> None:
        self.state = "closed"
        self.told: list[str] = []
        self._changed = asyncio.Event()
        self.watch = CardWatch(("sh", "-c", script), lambda: self.state, self._tell)

    def _tell(self, why: str) -> None:
        self.told.append(why)
        self._changed.set()

    async def change(self) -> None:
        async with asyncio.timeout(10):
            await self._changed.wait()
        self._changed.clear()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_watch, "FIRST_WAIT", 0.02)


@asynccontextmanager
async def running(script: str) -> AsyncIterator[Watched]:
    watched = Watched(script)
    task = asyncio.get_running_loop().create_task(watched.watch.run())
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def card(plug: Path) -> str:
    """A program for which the card is there when the file is."""
    return f"test -e {plug} || {{ echo '{NONE}'; exit 1; }}"


async def test_a_card_that_is_missing_at_the_start_is_told_and_so_is_its_return(
    tmp_path: Path,
) -> None:
    plug = tmp_path / "plug"
    async with running(card(plug)) as watched:
        await watched.change()
        assert watched.told == [NONE]
        assert watched.watch.fault == NONE
        plug.touch()
        await watched.change()
        assert watched.told == [NONE, ""]
        assert watched.watch.fault == ""


async def test_a_card_that_is_there_is_looked_for_once_and_nothing_is_told(tmp_path: Path) -> None:
    looks = tmp_path / "looks"
    async with running(f"echo >> {looks}") as watched:
        while not looks.exists():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert looks.read_text() == "\n"
        assert watched.told == []


async def test_a_card_lost_in_a_call_is_looked_for_when_the_call_is_over(tmp_path: Path) -> None:
    plug = tmp_path / "plug"
    plug.touch()
    async with running(card(plug)) as watched:
        watched.state = "lost"
        watched.watch.lost("unplugged")
        assert watched.told == ["unplugged"]
        watched.state = "closed"
        await watched.change()
        await watched.change()
        assert watched.told == ["unplugged", ""]


async def test_a_card_that_is_only_busy_with_a_call_is_not_missing(tmp_path: Path) -> None:
    async with running("sleep 0.2; echo busy; exit 1") as watched:
        await asyncio.sleep(0.1)
        watched.state = "running"
        await asyncio.sleep(0.4)
        assert watched.told == []


@pytest.mark.parametrize(
    ("script", "why"),
    [("exit 1", "cannot be looked for"), ("exec sleep 60", "does not return")],
)
async def test_a_driver_that_says_nothing_is_told_as_well(
    script: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card_watch, "LOOK_WITHIN", 0.3)
    async with running(script) as watched:
        await watched.change()
        assert why in watched.told[0]


async def test_look_for_which_the_system_has_no_process_is_told_and_ends_nothing() -> None:
    watched = Watched("")
    watched.watch = CardWatch(("/nowhere/at/all",), lambda: watched.state, watched.told.append)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await watched.watch.run()
    assert watched.told == ["the sound card cannot be looked for: No such file or directory"]


async def test_without_a_command_nothing_is_looked_for() -> None:
    watched = Watched("")
    watched.watch = CardWatch((), lambda: watched.state, watched.told.append)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await watched.watch.run()
    assert watched.told == []
