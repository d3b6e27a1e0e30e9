"""Ten thousand calls of whole houses on bad networks, in virtual time.

Each story is one to four things that happen at a door within half a minute: presses, calls in,
crashes. Then everything has to come to rest by itself. What must hold is checked after each story
(`House.check`) and, for what may open, at every opening (`Oracle`).

A failure prints its house, its seed and the end of its trace; the same seed is the same story.
"""

import asyncio
import gc
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.support.network import Conditions
from tests.support.simulated_house import DOMAIN, PBX, House, HousePlan, PhonePlan
from tests.support.virtual_time import run

CALLS = 2000
"""Of each house; there are five."""

COMMON = """
[sip]
keep_alive = 120
[leds.led]
[relays.door]
pulse = 3
hold_limit = 4
codes = ["4711", "90210"]
[relays.gate]
pulse = 2
hold_limit = 2
codes = ["47112"]
[door]
max_call = 40
ring_in = 20
lock_out = 90
wrong_codes_in_all = 4
"""

DIRECT = f"""
[buttons.call]
steps = [{{ ring = ["kitchen", "study"], seconds = 10 }}, {{ ring = ["attic"], seconds = 6 }}]
[buttons.up]
hang_up_after_open = 1
steps = [{{ ring = ["attic", "garage", "study"], seconds = 8 }}]
[peers.kitchen]
uri = "sip:kitchen@192.0.2.21"
auto_answer = true
[peers.study]
uri = "sip:study@192.0.2.22"
[peers.attic]
uri = "sip:attic@192.0.2.23"
may_open = false
auto_answer = true
[peers.garage]
uri = "sip:garage@192.0.2.24;transport=tcp"
may_call = false
{COMMON}
"""

PHONES = (
    PhonePlan("kitchen", "192.0.2.21"),
    PhonePlan("study", "192.0.2.22", digits="info"),
    PhonePlan("attic", "192.0.2.23", digits="info", transport="tcp"),
    PhonePlan("garage", "192.0.2.24", transport="tcp"),
    PhonePlan("stranger", "192.0.2.66", digits="info"),
)
CALLERS = {
    "192.0.2.21": ("kitchen", True),
    "192.0.2.22": ("study", True),
    "192.0.2.23": ("attic", False),
}
CALLED = {
    "sip:kitchen@192.0.2.21": ("kitchen", True),
    "sip:study@192.0.2.22": ("study", True),
    "sip:attic@192.0.2.23": ("attic", False),
    "sip:garage@192.0.2.24;transport=tcp": ("garage", True),
}

AT_EXCHANGE = f"""
[account]
user = "door"
domain = "{DOMAIN}"
password = "secret"
transport = "udp"
auto_answer = true
may_open = true
[buttons.call]
steps = [{{ ring = ["**1", "12"], seconds = 10 }}, {{ ring = ["attic"], seconds = 6 }}]
[buttons.up]
steps = [{{ ring = ["12", "attic"], seconds = 8 }}]
[peers.attic]
uri = "sip:attic@192.0.2.23"
may_open = false
{COMMON}
"""
AT_EXCHANGE_PHONES = (
    PhonePlan("indoor", "192.0.2.31", account="**1", digits="info"),
    PhonePlan("upstairs", "192.0.2.32", account="12"),
    PhonePlan("attic", "192.0.2.23"),
)
AT_EXCHANGE_CALLERS = {PBX: ("", True), "192.0.2.23": ("attic", False)}
AT_EXCHANGE_CALLED = {
    f"sip:**1@{DOMAIN}": (f"sip:**1@{DOMAIN}", True),
    f"sip:12@{DOMAIN}": (f"sip:12@{DOMAIN}", True),
    "sip:attic@192.0.2.23": ("attic", False),
}

GOOD = Conditions(delay=0.004, jitter=0.004)
MIDDLING = Conditions(delay=0.01, jitter=0.08, loss=0.05, duplicate=0.05, split=0.2)
BAD = Conditions(delay=0.02, jitter=0.5, loss=0.2, duplicate=0.1, split=0.5)

BOTH_WAYS = (PhonePlan("kitchen", "192.0.2.21", digits="both"), *PHONES[1:])

HOUSES = (
    HousePlan("wired", DIRECT, BOTH_WAYS, CALLERS, CALLED, GOOD),
    HousePlan("wireless", DIRECT, PHONES, CALLERS, CALLED, MIDDLING),
    HousePlan("awful", DIRECT, PHONES, CALLERS, CALLED, BAD),
    HousePlan(
        "exchange",
        AT_EXCHANGE,
        AT_EXCHANGE_PHONES,
        AT_EXCHANGE_CALLERS,
        AT_EXCHANGE_CALLED,
        GOOD,
        exchange=True,
    ),
    HousePlan(
        "exchange-wireless",
        AT_EXCHANGE,
        AT_EXCHANGE_PHONES,
        AT_EXCHANGE_CALLERS,
        AT_EXCHANGE_CALLED,
        MIDDLING,
        exchange=True,
    ),
)


@pytest.fixture(autouse=True)
def _unfrozen_and_silent() -> Iterator[None]:
    """A station freezes what the collector knows, and pytest would keep what it logs."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    gc.unfreeze()
    gc.collect()


def happen(house: House) -> None:
    """One thing at the door, and perhaps another one aside."""
    chance, later = house.chance, house.loop.call_later
    house.calls += 1
    if chance.random() < 0.68:
        house.press("call" if chance.random() < 0.7 else "up")
        if chance.random() < 0.25:
            again = chance.choice(("call", "up"))
            later(chance.choice((0.0, chance.uniform(0, 20))), house.press, again)
    else:
        chance.choice(list(house.phones.values())).call_door()
        if chance.random() < 0.3:
            later(chance.uniform(0, 4), house.command, "progress")
        if chance.random() < 0.6:
            act = chance.choice(("answer", "answer", "press", "reject", "hangup"))
            at = chance.uniform(0, 15)
            if act == "press":
                later(at, house.press, "call")
            else:
                later(at, house.command, act)
    aside, at = chance.random(), chance.uniform(0, 30)
    if aside < 0.08:
        later(at, house.command, "hold")
        later(at + chance.uniform(0, 10), house.command, "resume")
    elif aside < 0.11:
        later(at, house.command, "hangup")
    elif aside < 0.15:
        later(at, partial(house.command, "dtmf", digits="159"))
    elif aside < 0.17:
        later(at, house.network_changes)
    elif aside < 0.19 and house.exchange is not None:
        later(at, house.exchange_restarts)


async def live(house: House, calls: int) -> list[int]:
    """Stories until so many calls were made. Returns memory blocks in use, now and then."""
    blocks = []
    measured = 0
    while house.calls < calls:
        if house.chance.random() < 0.01:
            await house.switch_off(power_cut=house.chance.random() < 0.5)
            await asyncio.sleep(house.chance.uniform(0, 40))
            house.switch_on()
            await asyncio.sleep(0)
        for _ in range(house.chance.choice((1, 1, 2, 4))):
            happen(house)
            await asyncio.sleep(house.chance.choice((0.0, house.chance.uniform(0, 15))))
        await house.until_quiet()
        house.check()
        if house.calls >= measured:
            measured += calls // 16
            blocks.append(memory_blocks())
    return blocks


def memory_blocks() -> int:
    gc.unfreeze()
    gc.collect()
    count = sys.getallocatedblocks()
    # What there is now, the rest of the test run too, need not be looked at again and again.
    gc.freeze()
    return count


@pytest.mark.parametrize("seed", range(len(HOUSES)), ids=[plan.name for plan in HOUSES])
def test_every_call_ends_and_only_a_valid_code_opens(seed: int, tmp_path: Path) -> None:
    async def story() -> None:
        house = House(HOUSES[seed], seed=seed, log=tmp_path / "events.jsonl")
        try:
            async with house:
                blocks = await live(house, CALLS)
        except BaseException:
            print(f"house {HOUSES[seed].name!r}, seed {seed}, {house.calls} calls; the end of it:")
            print(house.story())
            raise
        assert house.oracle.openings > CALLS / 20
        assert house.oracle.refused > CALLS / 20
        early, late = max(blocks[2:8]), max(blocks[8:])
        assert late - early < CALLS / 8, f"memory grows: {blocks}"
        check_log(tmp_path, house)

    run(story())


def check_log(folder: Path, house: House) -> None:
    """Every release is in the event log, and no code."""
    text = "".join(path.read_text() for path in folder.iterdir())
    assert text.count('"kind":"release"') == house.oracle.openings
    assert text.count('"kind":"press"') > house.calls / 2
    assert not [code for code in house.codes if f'"{code}"' in text]


def test_a_registered_day_leaves_nothing_behind(tmp_path: Path) -> None:
    """About 2,900 keep-alives and 170 refreshes; the registrar restarts twice."""
    settings = AT_EXCHANGE.replace("keep_alive = 120", "keep_alive = 30")
    plan = replace(HOUSES[4], settings=settings, phones=())

    async def story() -> None:
        async with House(plan, seed=1, log=tmp_path / "events.jsonl") as house:
            blocks, objects = [], []
            for hour in range(24):
                await asyncio.sleep(3600)
                if hour in (7, 15):
                    house.exchange_restarts()
                    await asyncio.sleep(200)
                assert house.station.commands.status()["registration"]["state"] == "registered"  # type: ignore[index]
                await house.until_quiet()
                house.check()
                blocks.append(memory_blocks())
                gc.unfreeze()
                objects.append(len(gc.get_objects()))
            assert house.sent["OPTIONS"] > 2500
            assert house.sent["REGISTER"] > 170
            # The interpreter's free lists fill slowly; what is alive does not grow at all.
            assert max(blocks[12:]) - max(blocks[2:12]) < 400, f"memory grows: {blocks}"
            assert max(objects[12:]) - max(objects[2:12]) < 10, f"objects: {objects}"

    run(story())


def test_the_same_seed_is_the_same_story(tmp_path: Path) -> None:
    """Or a failure could not be repeated."""

    async def story() -> str:
        async with House(HOUSES[4], seed=9, log=tmp_path / "events.jsonl") as house:
            await live(house, 20)
            return house.story()

    assert run(story()) == run(story())
