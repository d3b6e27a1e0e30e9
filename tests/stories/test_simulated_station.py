"""Short stories of one station in virtual time: what must happen at once, and what must not."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from doorboard.interfaces import BoardError
from doorstation.media.digits import Digit
from doorstation.net.media import events as media
from doorstation.parts import Missing

from tests.support.network import Conditions
from tests.support.simulated_house import (
    DOMAIN,
    DOOR,
    PBX,
    House,
    HousePlan,
    PhonePlan,
    SimulatedMedia,
    Step,
)
from tests.support.virtual_time import run
from tests.support.wire import request

QUICK = Conditions(delay=0.005)
RULES = """
[relays.door]
pulse = 3
hold_limit = 4
codes = ["4711"]
"""
DIRECT = f"""
[buttons.call]
steps = [{{ ring = ["kitchen", "study"], seconds = 10 }}]
[peers.kitchen]
uri = "sip:kitchen@192.0.2.21"
[peers.study]
uri = "sip:study@192.0.2.22"
{RULES}
"""
AT_EXCHANGE = f"""
[account]
user = "door"
domain = "{DOMAIN}"
password = "secret"
transport = "udp"
[buttons.call]
steps = [{{ ring = ["**1"], seconds = 10 }}]
{RULES}
"""
CALLERS = {"192.0.2.21": ("kitchen", True), "192.0.2.22": ("study", True), PBX: ("", False)}
CALLED = {
    "sip:kitchen@192.0.2.21": ("kitchen", True),
    "sip:study@192.0.2.22": ("study", True),
    f"sip:**1@{DOMAIN}": (f"sip:**1@{DOMAIN}", True),
}


def tell(
    story: Callable[[House], Awaitable[None]],
    folder: Path,
    *phones: PhonePlan,
    settings: str = DIRECT,
    missing: Mapping[str, Missing] = {},
) -> None:
    plan = HousePlan(
        "story", settings, phones, CALLERS, CALLED, QUICK, exchange="[account]" in settings
    )

    async def whole() -> None:
        log = folder / "events.jsonl"
        async with House(plan, seed=1, log=log, missing=missing) as house:
            await asyncio.sleep(2)
            try:
                await story(house)
            finally:
                print(house.story())
            await house.until_quiet()
            house.check()

    run(whole())


def kitchen(digits: str = "rfc4733") -> PhonePlan:
    return PhonePlan("kitchen", "192.0.2.21", digits, wild=False)


def same_moment(before: Step, after: Step) -> int:
    """Turns of the loop between two steps of one instant."""
    assert before.at == after.at
    return after.turn - before.turn


async def in_talk(house: House) -> str:
    """The kitchen answers; its name of the call."""
    house.press("call")
    await asyncio.sleep(1)
    [call] = house.phones["kitchen"].agent.calls
    return call


def test_press_sends_the_invite_at_once(tmp_path: Path) -> None:
    """The driver's thread hands the press over; the UDP socket is chosen in the turn after."""

    async def story(house: House) -> None:
        house.press("call")
        await asyncio.sleep(0.1)
        assert same_moment(house.find("press"), house.find("INVITE sip:kitchen")) <= 2
        house.command("hangup")

    tell(story, tmp_path, kitchen())


def test_press_sends_the_invite_in_the_turn_that_hears_of_it(tmp_path: Path) -> None:
    """Through the account: on the flow of the registration."""

    async def story(house: House) -> None:
        house.press("call")
        await asyncio.sleep(0.1)
        assert same_moment(house.find("press"), house.find("INVITE")) <= 1
        house.command("hangup")

    phone = PhonePlan("indoor", "192.0.2.31", account="**1", wild=False)
    tell(story, tmp_path, phone, settings=AT_EXCHANGE)


@pytest.mark.parametrize("way", ["rfc4733", "info"])
def test_last_digit_switches_the_relay_in_the_turn_that_brings_it(way: str, tmp_path: Path) -> None:
    async def story(house: House) -> None:
        call = await in_talk(house)
        house.phones["kitchen"].press(call, "4711")
        await asyncio.sleep(4)
        digit = house.find("door hears 1" if way == "rfc4733" else "INFO", nth=-1)
        # The media thread posts the digit; the loop takes it in its next turn.
        assert same_moment(digit, house.find("door on")) <= (1 if way == "rfc4733" else 0)
        house.phones["kitchen"].hang_up(call)

    tell(story, tmp_path, kitchen(way))


def test_cancelled_early_media_gives_its_ports_back(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        phone = house.phones["kitchen"]
        phone.call_door()
        await asyncio.sleep(0.5)
        house.command("progress")
        await asyncio.sleep(0.5)
        assert [at for at in house.sound.sessions if at[0] == DOOR]
        phone.give_up("g1")
        await asyncio.sleep(0.5)
        assert not house.sound.sessions

    tell(story, tmp_path, kitchen())


def test_early_media_of_a_phone_that_nobody_answers_leaves_nothing(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        house.press("call")
        await asyncio.sleep(0.5)
        phone = house.phones["kitchen"]
        [ringing] = phone.agent.calls
        phone.progress(ringing)
        await asyncio.sleep(0.5)
        sound = house.station._sound
        assert len(sound.codecs) == 1
        await asyncio.sleep(15)
        assert (sound.codecs, sound.encryption, sound.session) == ({}, {}, None)

    silent = PhonePlan("kitchen", "192.0.2.21", wild=False, answers=False)
    tell(story, tmp_path, silent)


def test_key_pressed_while_it_rang_swallows_none_of_the_call(tmp_path: Path) -> None:
    """The kitchen types into its early media, the study answers and types the same by INFO."""

    async def story(house: House) -> None:
        early, study = house.phones["kitchen"], house.phones["study"]
        house.press("call")
        await asyncio.sleep(0.5)
        [ringing], [answered] = early.agent.calls, study.agent.calls
        early.progress(ringing)
        await asyncio.sleep(0.1)
        early.press(ringing, "4711")
        await asyncio.sleep(1.5)
        study.answer(answered)
        study.press(answered, "4711")
        await asyncio.sleep(4)
        assert house.oracle.openings == 1
        study.hang_up(answered)

    silent = PhonePlan("kitchen", "192.0.2.21", wild=False, answers=False)
    tell(
        story, tmp_path, silent, replace(silent, name="study", address="192.0.2.22", digits="info")
    )


def test_digits_and_silence_of_an_ended_session_concern_nobody(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        call = await in_talk(house)
        for value in "4711":
            digit = Digit(value, "rfc4733", house.loop.time())
            house.station._media_event(media.DigitHeard("session-0", digit))
        house.station._media_event(media.FarEndSilent("session-0", 30.0))
        await asyncio.sleep(1)
        assert house.oracle.openings == 0
        assert call in house.phones["kitchen"].agent.calls
        house.phones["kitchen"].hang_up(call)

    tell(story, tmp_path, kitchen())


def test_phone_without_power_is_hung_up_after_the_silence(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await in_talk(house)
        since = house.loop.time()
        house.phones["kitchen"].crash(back_after=100)
        await asyncio.sleep(40)
        assert 30 < house.find("BYE").at - since < 40

    tell(story, tmp_path, kitchen())


def test_power_cut_in_the_middle_of_a_pulse_releases_the_relay(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        call = await in_talk(house)
        house.phones["kitchen"].press(call, "4711")
        await asyncio.sleep(3)
        assert house.board.relays["door"].on
        await house.switch_off(power_cut=True)
        assert not house.board.relays["door"].on
        house.switch_on()
        await asyncio.sleep(0)

    tell(story, tmp_path, kitchen())


def test_relay_is_released_before_the_station_waits_for_anybody_at_its_end(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        call = await in_talk(house)
        house.phones["kitchen"].press(call, "4711")
        await asyncio.sleep(3)
        assert house.board.relays["door"].on
        house.exchange_host.go_down()  # who un-registers waits for an answer
        ending = asyncio.create_task(house.switch_off())
        await asyncio.sleep(0.01)
        assert not house.board.relays["door"].on
        assert not ending.done()
        await ending
        house.exchange_host.come_up()
        house.switch_on()
        await asyncio.sleep(5)

    phone = PhonePlan("kitchen", "192.0.2.31", account="**1", wild=False)
    tell(story, tmp_path, phone, settings=AT_EXCHANGE)


def test_lamp_that_fails_ends_no_call_and_keeps_no_door_shut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(house: House) -> None:
        def broken(pattern: str) -> None:
            raise BoardError("led-22: no such line")

        monkeypatch.setattr(house.board.indicators["led"], "show", broken)
        call = await in_talk(house)
        house.phones["kitchen"].press(call, "4711")
        await asyncio.sleep(4)
        assert house.oracle.openings == 1
        records = house.station._journal.recent()
        told = [event for event in records if event["event"] == "led_fault"]
        assert [(event["led"], event["why"]) for event in told] == [("led", "led-22: no such line")]
        house.phones["kitchen"].hang_up(call)

    tell(story, tmp_path, kitchen())


def test_part_that_is_missing_is_told_and_used_once_it_is_back_and_no_call_is_on(
    tmp_path: Path,
) -> None:
    free = False
    led = Missing("LED on pin 5: in use by kettle", lambda: free)

    async def story(house: House) -> None:
        nonlocal free
        fault = "LED porch is missing: LED on pin 5: in use by kettle"
        assert house.station.commands.status()["faults"] == [fault]
        assert house.board.indicators["led"].pattern == "fault"
        records = house.station._journal.recent()
        assert [one["part"] for one in records if one["event"] == "part_missing"] == ["LED porch"]
        call = await in_talk(house)
        await asyncio.sleep(30)
        free = True
        await asyncio.sleep(40)
        assert not house.station._end.is_set(), "somebody talks"
        house.phones["kitchen"].hang_up(call)
        await asyncio.sleep(60)
        assert house.station._end.is_set(), "for a station that has it"
        await house.switch_off()
        house.switch_on()
        await asyncio.sleep(0)

    tell(story, tmp_path, kitchen(), missing={"LED porch": led})


def test_press_while_the_station_ends_rings_nobody(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        house.exchange_host.go_down()  # who un-registers waits for an answer
        ending = asyncio.create_task(house.switch_off())
        await asyncio.sleep(0.5)
        assert not ending.done()
        house.press("call")
        await ending
        assert not [step for step in house.trace if step.text.startswith("INVITE")]
        house.exchange_host.come_up()
        house.switch_on()
        await asyncio.sleep(5)

    phone = PhonePlan("indoor", "192.0.2.31", account="**1", wild=False)
    tell(story, tmp_path, phone, settings=AT_EXCHANGE)


def test_call_that_comes_while_the_station_ends_is_sent_away(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        house.exchange_host.go_down()
        ending = asyncio.create_task(house.switch_off())
        await asyncio.sleep(0.5)
        house.phones["kitchen"].call_door()
        await ending
        assert house.find("SIP/2.0 480")
        assert not [step for step in house.trace if step.text.startswith("SIP/2.0 180")]
        house.exchange_host.come_up()
        house.switch_on()
        await asyncio.sleep(5)

    settings = f'{AT_EXCHANGE}[peers.kitchen]\nuri = "sip:kitchen@192.0.2.21"\n'
    tell(story, tmp_path, kitchen(), settings=settings)


def test_stranger_who_knows_code_and_dialog_opens_nothing(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await in_talk(house)
        stranger = house.phones["stranger"]
        stranger.call_door()
        call = house.station._agent.calls[house.station._sound.talking]
        assert call.dialog is not None
        code = request(
            "INFO",
            body=b"4711",
            content_type="application/dtmf",
            call_id=call.dialog.call_id,
            to_tag=call.dialog.local_tag,
            from_tag="guessed",
        )
        stranger.send(code)
        await asyncio.sleep(2)
        assert house.find("SIP/2.0 403")
        assert house.find("SIP/2.0 481")
        assert house.oracle.openings == 0
        house.command("hangup")

    tell(story, tmp_path, kitchen(), PhonePlan("stranger", "192.0.2.66", wild=False))


def test_the_collection_after_the_start_waits_until_nobody_talks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected: list[float] = []
    monkeypatch.setattr(SimulatedMedia, "running", True)
    monkeypatch.setattr(
        "doorstation.station._freeze",
        lambda: collected.append(asyncio.get_running_loop().time()),
    )

    async def story(house: House) -> None:
        await asyncio.sleep(10)
        assert not collected
        monkeypatch.setattr(SimulatedMedia, "running", False)
        await asyncio.sleep(2)
        assert len(collected) == 1

    tell(story, tmp_path, kitchen())
