"""Relays: a pulse ends by itself, and every way out releases."""

import asyncio

from doorboard.fake import FakeRelay
from doorboard.interfaces import BoardError
from doorstation.door.events import RelayFailed, RelayPulled
from doorstation.relays import CONFIRM_WITHIN, Relays

from tests.support.virtual_time import run


class Stuck(FakeRelay):
    """One whose driver cannot let go."""

    def release(self) -> None:
        raise BoardError("no such line")


class House:
    def __init__(self, *relays: FakeRelay) -> None:
        self.told: list[RelayPulled | RelayFailed] = []
        self.faults: list[tuple[str, str]] = []
        self.relays = Relays(
            {relay.name: relay for relay in relays},
            self.told.append,
            lambda: None,
            lambda relay, why: self.faults.append((relay, why)),
        )


def test_a_second_pulse_counts_from_its_own_start() -> None:
    async def story() -> None:
        door = FakeRelay("door")
        house = House(door)
        house.relays.pulse("door", 3)
        await asyncio.sleep(2)
        house.relays.pulse("door", 3)
        await asyncio.sleep(2)
        assert door.on
        assert house.relays.pulsing
        await asyncio.sleep(1.1)
        assert not door.on
        assert not house.relays.pulsing
        assert house.told == [RelayPulled("door"), RelayPulled("door")]
        assert house.relays.status() == {"door": {"on": False, "pulses": 1}}

    run(story())


def test_one_relay_that_cannot_let_go_holds_no_other() -> None:
    async def story() -> None:
        gate, door = Stuck("gate"), FakeRelay("door")
        house = House(gate, door)
        house.relays.pulse("gate", 3)
        house.relays.pulse("door", 3)
        house.relays.release_all()
        assert not door.on
        assert not house.relays.pulsing
        assert house.faults == [("gate", "no such line")]

    run(story())


def test_a_relay_that_is_missing_is_told_like_one_that_fails() -> None:
    async def story() -> None:
        house = House()
        house.relays.pulse("door", 3)
        assert house.told == [RelayFailed("door", "it is missing")]

    run(story())


def test_a_relay_that_cannot_pull_is_told_at_once() -> None:
    async def story() -> None:
        door = FakeRelay("door")
        door.close()
        house = House(door)
        house.relays.pulse("door", 3)
        assert house.told == [RelayFailed("door", "relay door is closed")]
        assert not house.relays.pulsing

    run(story())


class Unsure(FakeRelay):
    """One whose driver says later, or never, whether it pulled."""

    releases = 0

    def energise(self) -> None:
        """Perhaps it pulls."""

    def release(self) -> None:
        self.releases += 1


def test_a_relay_that_does_not_say_that_it_is_on_is_told_as_failed_and_released() -> None:
    async def story() -> None:
        door = Unsure("door")
        house = House(door)
        house.relays.pulse("door", 3)
        await asyncio.sleep(CONFIRM_WITHIN - 0.1)
        assert house.told == []
        await asyncio.sleep(0.2)
        assert house.told == [RelayFailed("door", "not on 1 s after it was told to")]
        assert door.releases == 1
        assert not house.relays.pulsing

    run(story())


def test_a_relay_that_says_so_in_time_has_pulled_once_for_each_pulse() -> None:
    async def story() -> None:
        house = House(Unsure("door"))
        house.relays.pulse("door", 3)
        house.relays.pulse("door", 3)
        house.relays.reported("door", True, 0.0)
        await asyncio.sleep(2 * CONFIRM_WITHIN)
        assert house.told == [RelayPulled("door")] * 2
        assert house.relays.pulsing

    run(story())


def test_after_the_release_of_all_nothing_more_is_told_or_done() -> None:
    async def story() -> None:
        door = Unsure("door")
        house = House(door)
        house.relays.pulse("door", 3)
        house.relays.release_all()
        await asyncio.sleep(5)
        assert (house.told, door.releases) == ([], 1)

    run(story())


class Worn(FakeRelay):
    """One whose driver fails when the relay is on already."""

    def energise(self) -> None:
        if self.on:
            raise BoardError("no acknowledgement")
        super().energise()


def test_a_relay_that_fails_in_a_pulse_is_released_at_once() -> None:
    async def story() -> None:
        door = Worn("door")
        house = House(door)
        house.relays.pulse("door", 3)
        assert door.on
        house.relays.pulse("door", 3)
        assert house.told == [RelayPulled("door"), RelayFailed("door", "no acknowledgement")]
        assert not door.on
        assert not house.relays.pulsing

    run(story())
