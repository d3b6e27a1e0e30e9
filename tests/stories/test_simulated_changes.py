"""A door whose settings change between two calls, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

from doorstation.configurator import Configurator
from doorstation.provision.layers import Change
from doorstation.ua.events import RegistrationState

from tests.stories.test_simulated_station import (
    AT_EXCHANGE,
    CALLED,
    CALLERS,
    DIRECT,
    QUICK,
    in_talk,
    kitchen,
)
from tests.support.disk import Disk
from tests.support.simulated_house import House, HousePlan, PhonePlan, SimulatedMedia
from tests.support.virtual_time import run

Story = Callable[[House, Configurator], Awaitable[None]]


def tell(
    story: Story, folder: Path, *phones: PhonePlan, settings: str = DIRECT, held: str = ""
) -> None:
    plan = HousePlan(
        "changes", settings, phones, CALLERS, CALLED, QUICK, exchange=settings is AT_EXCHANGE
    )
    held_buttons = (held,) if held else ()

    async def whole() -> None:
        async with House(
            plan, seed=1, log=folder / "events.jsonl", disk=Disk(), held=held_buttons
        ) as house:
            assert house.configurator is not None
            await asyncio.sleep(2)
            await story(house, house.configurator)
            await house.until_quiet()
            house.check()

    run(whole())


async def change(configurator: Configurator, **values: object) -> None:
    wanted = {key.replace("__", "."): value for key, value in values.items()}
    await configurator.stage(Change(wanted), by="office", how="test", needs_word=False)


def results(configurator: Configurator) -> list[str]:
    return [past.result for past in configurator.history()]


def test_next_press_rings_whom_the_new_plan_names(tmp_path: Path) -> None:
    async def story(house: House, configurator: Configurator) -> None:
        await change(configurator, buttons__call__steps=[{"ring": ["study"], "seconds": 10}])
        await asyncio.sleep(0)
        house.press("call")
        await asyncio.sleep(1)
        house.command("hangup")
        assert house.find("INVITE sip:study")
        assert not [s for s in house.trace if s.text.startswith("INVITE sip:kitchen")]
        assert results(configurator) == ["confirmed"]

    tell(story, tmp_path, kitchen(), PhonePlan("study", "192.0.2.22", "rfc4733", wild=False))


def test_call_that_is_up_keeps_its_rules_to_its_end(tmp_path: Path) -> None:
    async def story(house: House, configurator: Configurator) -> None:
        await in_talk(house)
        await change(configurator, door__max_call=20)
        await asyncio.sleep(30)
        assert house.station.commands.status()["calls"], "it had 120 s, and has them"
        assert configurator.waiting
        assert results(configurator) == []
        house.command("hangup")
        await asyncio.sleep(1)
        assert results(configurator) == ["confirmed"]
        await in_talk(house)
        await asyncio.sleep(30)
        assert not house.station.commands.status()["calls"], "the next one has 20 s"

    tell(story, tmp_path, kitchen())


def test_volume_sends_no_register(tmp_path: Path) -> None:
    async def story(house: House, configurator: Configurator) -> None:
        registered = house.sent["REGISTER"]
        await change(configurator, audio__speaker_gain=-6.0, door__max_call=60)
        await asyncio.sleep(5)
        assert results(configurator) == ["confirmed"]
        assert house.sent["REGISTER"] == registered
        assert cast(SimulatedMedia, house.station._media).paths == 1, "the next call has it"
        registration = house.station._agent.registration
        assert registration is not None
        assert registration.state is RegistrationState.REGISTERED

    tell(story, tmp_path, settings=AT_EXCHANGE)


RESET = f'{DIRECT}\n[provisioning]\nreset_button = "call"\n'


def test_reset_button_held_from_the_start_for_ten_seconds_forgets_all_changes(
    tmp_path: Path,
) -> None:
    async def story(house: House, configurator: Configurator) -> None:
        await change(configurator, audio__speaker_gain=-6.0)
        await asyncio.sleep(7)
        assert configurator.settings.audio.speaker_gain == -6.0
        await asyncio.sleep(2)
        assert configurator.settings.audio.speaker_gain == 0.0
        assert configurator.history() == ()

    tell(story, tmp_path, settings=RESET, held="call")


def test_reset_button_that_is_let_go_before_changes_nothing(tmp_path: Path) -> None:
    async def story(house: House, configurator: Configurator) -> None:
        await change(configurator, audio__speaker_gain=-6.0)
        await asyncio.sleep(7)
        house.board.buttons["call"].pressed = False
        await asyncio.sleep(10)
        assert configurator.settings.audio.speaker_gain == -6.0

    tell(story, tmp_path, settings=RESET, held="call")


def test_reset_button_held_later_is_a_long_press_and_no_more(tmp_path: Path) -> None:
    async def story(house: House, configurator: Configurator) -> None:
        await change(configurator, audio__speaker_gain=-6.0)
        house.board.buttons["call"].hold()
        await asyncio.sleep(30)
        house.board.buttons["call"].release()
        house.command("hangup")
        assert configurator.settings.audio.speaker_gain == -6.0

    tell(story, tmp_path, kitchen(), settings=RESET)
