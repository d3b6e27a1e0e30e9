"""The configuration at work: on disk before it is applied, back by itself, a fault never fatal."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from doorstation.config_commands import ConfigCommands
from doorstation.configurator import MAX_LINES, Configurator
from doorstation.errors import DoorstationError, SettingsError, StoreError
from doorstation.ids import SeededIds
from doorstation.provision.configuration import CUT, LOST_WORD, UNWELL, Refused
from doorstation.provision.identity import Identity
from doorstation.provision.layers import Change
from doorstation.provision.state import RECORDINGS
from doorstation.settings.tree import Settings
from doorstation.store.audit import ASKED, AuditLog
from doorstation.store.identity import NAME
from doorstation.store.state import StateStore

from tests.support.disk import Disk, Inline
from tests.support.owner import issue, pem
from tests.support.virtual_time import run

LOCAL: dict[str, Any] = {
    "account": {"user": "door", "domain": "pbx.example", "password": "geheim"},
    "buttons": {"call": {"pin": 17, "steps": [{"ring": ["**9"]}]}},
    "relays": {"door": {"pin": 27, "codes": ["4711"]}},
}
VOLUME = Change({"audio.speaker_gain": -6.0})
ACCOUNT = Change({"account.registrar": "192.0.2.99"})


class Door:
    """A station as the configurator sees it; the one that is built anew is this one again."""

    def __init__(self, configurator: Configurator) -> None:
        self.configurator = configurator
        self.busy = False
        self.registered = True
        self.taken: list[Settings] = []
        self.ended = 0
        self.records: list[tuple[str, Mapping[str, object]]] = []
        self.refuses = ""
        configurator.attach(self, configurator.settings)

    def take(self, settings: Settings) -> None:
        if self.refuses:
            raise DoorstationError(self.refuses)
        self.taken.append(settings)

    def end(self) -> None:
        self.ended += 1
        self.registered = False

    def built_anew(self, *, registered: bool) -> None:
        self.registered = registered
        self.configurator.attach(self, self.configurator.settings)

    def record(self, kind: str, fields: Mapping[str, object]) -> None:
        self.records.append((kind, fields))

    def changes(self) -> None:
        self.configurator.station_changed()


@contextlib.asynccontextmanager
async def door(disk: Disk | None = None, local: Mapping[str, Any] = LOCAL) -> AsyncIterator[Door]:
    configurator = Configurator({"local": local}, disk or Disk(), disk=Inline())
    async with contextlib.aclosing(configurator):
        await configurator.start()
        made = Door(configurator)
        await settled()
        yield made


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def stage(door: Door, change: Change, *, needs_word: bool = False) -> int:
    number = await door.configurator.stage(change, by="office", how="test", needs_word=needs_word)
    await settled()
    return number


def results(door: Door) -> list[str]:
    return [past.result for past in door.configurator.history()]


def test_volume_is_taken_live_and_kept() -> None:
    async def story() -> None:
        disk = Disk()
        async with door(disk) as one:
            await stage(one, VOLUME)
            assert [settings.audio.speaker_gain for settings in one.taken] == [-6.0]
            assert one.ended == 0
            assert results(one) == ["confirmed"]
            kinds = [fields["state"] for kind, fields in one.records]
            assert kinds == ["staged", "applied", "confirmed"]
        async with door(disk) as again:
            assert again.configurator.settings.audio.speaker_gain == -6.0
        lines = [entry["kind"] for entry in AuditLog(disk).entries()]
        assert lines == ["staged", "confirmed"]

    run(story())


def test_change_that_is_told_as_staged_is_not_yet_what_the_door_runs_with() -> None:
    async def story() -> None:
        async with door() as one:
            told: list[tuple[str, bool, bool]] = []
            office = one.configurator
            office.followers.append(
                lambda kind, number, why: told.append((kind, office.waiting, office.well))
            )
            await stage(one, VOLUME, needs_word=True)
            assert told == [("staged", True, False), ("applied", False, True)]

    run(story())


def test_another_registrar_needs_another_station_and_a_registration() -> None:
    async def story() -> None:
        async with door() as one:
            await stage(one, ACCOUNT)
            assert one.ended == 1
            assert one.configurator.waiting
            one.built_anew(registered=False)
            await settled()
            assert not one.configurator.well
            assert results(one) == []
            one.registered = True
            one.changes()
            await settled()
            assert results(one) == ["confirmed"]

    run(story())


def test_registrar_that_does_not_answer_is_taken_back_in_time() -> None:
    async def story() -> None:
        async with door() as one:
            await stage(one, ACCOUNT)
            one.built_anew(registered=False)
            await asyncio.sleep(119)
            assert results(one) == []
            await asyncio.sleep(2)
            assert results(one) == [f"rolled back: {UNWELL}"]
            assert one.ended == 2
            account = one.configurator.settings.account
            assert account is not None
            assert account.registrar == ""

    run(story())


def test_other_servers_of_the_network_keep_no_change_that_left_the_door_unregistered() -> None:
    async def story() -> None:
        async with door() as one:
            await stage(one, Change({"sip.transports": ["tcp"]}))
            one.built_anew(registered=False)
            await settled()
            await one.configurator.base_changed("dhcp", {"sip": {"servers": ["192.0.2.5"]}})
            await settled()
            one.built_anew(registered=False)
            await settled()
            assert results(one) == []
            await asyncio.sleep(121)
            assert results(one) == [f"rolled back: {UNWELL}"]

    run(story())


def test_another_account_has_to_register_though_the_one_before_it_never_did() -> None:
    async def story() -> None:
        async with door() as one:
            one.registered = False
            await stage(one, ACCOUNT)
            one.built_anew(registered=False)
            await settled()
            assert results(one) == []
            await asyncio.sleep(121)
            assert results(one) == [f"rolled back: {UNWELL}"]

    run(story())


def test_change_owes_no_registration_that_only_the_one_before_it_had_to_show() -> None:
    async def story() -> None:
        async with door() as one:
            await stage(one, VOLUME)
            one.registered = False  # its registrar is down
            await stage(one, Change({"audio.country": "at"}))
            assert results(one) == ["confirmed", "confirmed"]

    run(story())


def test_change_that_needs_a_word_goes_back_without_it() -> None:
    async def story() -> None:
        async with door() as one:
            number = await stage(one, VOLUME, needs_word=True)
            assert one.configurator.well
            await asyncio.sleep(121)
            assert results(one) == [f"rolled back: {LOST_WORD}"]
            assert one.taken[-1].audio.speaker_gain == 0.0
            with pytest.raises(Refused):
                await one.configurator.confirm(number)

    run(story())


def test_word_in_time_keeps_it() -> None:
    async def story() -> None:
        async with door() as one:
            number = await stage(one, VOLUME, needs_word=True)
            await one.configurator.confirm(number)
            await asyncio.sleep(500)
            assert results(one) == ["confirmed"]

    run(story())


def test_other_way_to_a_registrar_that_was_silent_before_has_to_be_seen_to_work() -> None:
    async def story() -> None:
        async with door() as one:
            one.registered = False
            await stage(one, Change({"sip.transports": ["tcp"]}))
            one.built_anew(registered=False)
            await asyncio.sleep(119)
            assert results(one) == []
            await asyncio.sleep(2)
            assert results(one) == [f"rolled back: {UNWELL}"]
            await stage(one, Change({"buttons.call.debounce": 0.05}))
            one.built_anew(registered=False)
            await settled()
            assert results(one)[1:] == ["confirmed"], "of no matter to the registrar"

    run(story())


def test_call_that_is_up_is_not_disturbed() -> None:
    async def story() -> None:
        async with door() as one:
            one.busy = True
            number = await stage(one, VOLUME, needs_word=True)
            one.changes()
            await asyncio.sleep(500)
            assert one.taken == []
            with pytest.raises(Refused, match="not applied"):
                await one.configurator.confirm(number)
            one.busy = False
            one.changes()
            await settled()
            assert len(one.taken) == 1
            await one.configurator.confirm(number)

    run(story())


def test_second_change_is_refused_while_one_is_tried() -> None:
    async def story() -> None:
        async with door() as one:
            await stage(one, VOLUME, needs_word=True)
            with pytest.raises(Refused, match="change 1 by office is being tried"):
                await stage(one, ACCOUNT)

    run(story())


def test_two_changes_at_once_one_wins_and_the_other_is_told() -> None:
    async def story() -> None:
        async with door() as one:
            both = await asyncio.gather(
                stage(one, VOLUME, needs_word=True),
                stage(one, ACCOUNT, needs_word=True),
                return_exceptions=True,
            )
            assert sorted(type(each).__name__ for each in both) == ["Refused", "int"]

    run(story())


def test_settings_that_the_station_cannot_take_go_back_with_the_reason() -> None:
    async def story() -> None:
        async with door() as one:
            one.refuses = "no codec can be spoken here"
            await stage(one, VOLUME)
            assert results(one) == ["rolled back: no codec can be spoken here"]
            assert one.configurator.settings.audio.speaker_gain == 0.0

    run(story())


def test_station_that_cannot_be_built_goes_back_with_the_reason() -> None:
    async def story() -> None:
        async with door() as one:
            await stage(one, Change({"sip.port": 5070}))
            assert await one.configurator.failed("port 5070 is in use")
            assert results(one) == ["rolled back: port 5070 is in use"]
            assert one.configurator.settings.sip.port == 5060
            one.built_anew(registered=True)
            await settled()
            assert not await one.configurator.failed("no GPIO"), "then the service ends"

    run(story())


def test_power_cut_before_the_confirmation_starts_with_what_was_before() -> None:
    async def story() -> None:
        disk = Disk()
        async with door(disk) as one:
            await stage(one, VOLUME, needs_word=True)
        async with door(disk) as again:
            assert again.configurator.settings.audio.speaker_gain == 0.0
            assert results(again) == [f"rolled back: {CUT}"]
            assert again.records[0][1]["state"] == "rolled_back"
            assert StateStore(disk).read().pending is None

    run(story())


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_disk_that_fails_is_told_and_the_door_stays_as_it_is(how: str) -> None:
    async def story() -> None:
        disk = Disk()
        async with door(disk) as one:
            if how == "full":
                disk.full_after = 10
            else:
                disk.broken = 30
            with pytest.raises(StoreError):
                await stage(one, VOLUME)
            assert one.taken == []
            assert one.configurator.fault
            assert one.configurator.pending is None
            disk.full_after, disk.broken = None, 0
            await stage(one, VOLUME)
            assert results(one) == ["confirmed"]
            assert one.configurator.fault == ""

    run(story())


def test_change_whose_confirmation_the_disk_does_not_take_is_told_as_what_it_is() -> None:
    async def story() -> None:
        disk = Disk()
        async with door(disk) as one:
            number = await stage(one, VOLUME, needs_word=True)
            commands = ConfigCommands(one.configurator)
            assert await commands.handle("config result", {"number": number}) == ""
            disk.broken = 30
            await one.configurator.confirm(number)
            unsaved = "not on disk, a restart takes it back: state.b: "
            assert one.configurator.unsaved.startswith(unsaved)
            told = await commands.handle("config result", {"number": number})
            assert str(told).startswith(unsaved)
            recorded = [fields for kind, fields in one.records if kind == "configuration"]
            assert recorded[-1]["state"] == "confirmed"
            assert str(recorded[-1]["why"]).startswith(unsaved)
            assert one.configurator.settings.audio.speaker_gain == -6.0
            assert StateStore(disk).read().pending is not None, "as it was told"
            disk.broken = 0
            await one.configurator.remember("orders", {})
            assert one.configurator.unsaved == "", "it took the whole state meanwhile"
            told = await commands.handle("config result", {"number": number})
            assert (told, StateStore(disk).read().pending) == ("confirmed", None)

    run(story())


def test_without_a_folder_nothing_changes_and_it_is_said_why() -> None:
    async def story() -> None:
        configurator = Configurator({"local": LOCAL}, None)
        with pytest.raises(StoreError, match=r"provisioning\.state names no folder"):
            await configurator.stage(VOLUME, by="office", how="test", needs_word=False)
        assert configurator.check(VOLUME)[0].new == -6.0

    run(story())


def test_changes_that_no_longer_go_with_the_file_are_left_out_and_kept() -> None:
    async def story() -> None:
        disk = Disk()
        async with door(disk) as one:
            await stage(one, Change({"buttons.call.steps": [{"ring": ["kitchen"]}],
                                     "peers.kitchen.uri": "sip:k@192.0.2.7"}))  # fmt: skip
            assert results(one) == ["confirmed"]
            await stage(one, Change({"relays.door.pulse": 9.0}))
        edited = {**LOCAL, "relays": {"door": {"pin": 27, "codes": ["4711"], "hold_limit": 5.0}}}
        async with door(disk, edited) as again:
            assert again.configurator.settings.relays["door"].pulse == 3.0
            assert "relays.door.pulse" in again.configurator.fault
            with pytest.raises(StoreError, match="mend the file"):
                await stage(again, VOLUME)
        async with door(disk) as mended:
            assert mended.configurator.settings.relays["door"].pulse == 9.0

    run(story())


def test_reset_forgets_all_but_the_audit_log() -> None:
    async def story() -> None:
        disk = Disk()
        async with door(disk) as one:
            await stage(one, VOLUME)
            await one.configurator.remember("counters", {"kid": 7})
            await one.configurator.reset(by="button", how="button")
            await settled()
            assert one.configurator.settings.audio.speaker_gain == 0.0
            assert one.taken[-1].audio.speaker_gain == 0.0
            assert one.configurator.remembered("counters") is None
            assert one.configurator.history() == ()
        assert [entry["kind"] for entry in AuditLog(disk).entries()][-1] == "reset"
        assert AuditLog(disk).verify() == ""

    run(story())


def test_reset_does_not_forget_where_recordings_are_still_to_be_deleted() -> None:
    async def story() -> None:
        async with door() as one:
            await one.configurator.remember(RECORDINGS, ["/srv/calls"])
            await one.configurator.remember("files", {"serial": 7})
            await one.configurator.reset(by="owner", how="test")
            assert one.configurator.remembered(RECORDINGS) == ["/srv/calls"]
            assert one.configurator.remembered("files") is None

    run(story())


def test_reset_is_the_way_out_of_changes_that_do_not_go_with_the_file() -> None:
    async def story() -> None:
        disk = Disk()
        async with door(disk) as one:
            await stage(one, Change({"relays.door.pulse": 9.0}))
        edited = {**LOCAL, "relays": {"door": {"pin": 27, "hold_limit": 5.0}}}
        async with door(disk, edited) as again:
            await again.configurator.reset(by="root", how="ctl")
            await stage(again, VOLUME)
            assert results(again) == ["confirmed"]

    run(story())


def test_undo_brings_back_what_was_before() -> None:
    async def story() -> None:
        async with door() as one:
            await stage(one, VOLUME)
            await one.configurator.undo(by="office", how="test", needs_word=False)
            await settled()
            assert one.taken[-1].audio.speaker_gain == 0.0
            assert results(one) == ["confirmed", "confirmed"]

    run(story())


def test_change_with_a_problem_is_refused_whole() -> None:
    async def story() -> None:
        async with door() as one:
            with pytest.raises(SettingsError) as caught:
                await stage(one, Change({"audio.speaker_gain": 99, "audio.contry": "at"}))
            assert len(caught.value.problems) == 2
            assert one.configurator.pending is None

    run(story())


def test_followers_hear_each_state() -> None:
    async def story() -> None:
        async with door() as one:
            heard: list[tuple[str, int, str]] = []
            one.configurator.followers.append(lambda *told: heard.append(told))
            await stage(one, VOLUME)
            assert heard == [("staged", 1, ""), ("applied", 1, ""), ("confirmed", 1, "")]

    run(story())


def test_door_without_a_registration_before_needs_none_for_a_volume() -> None:
    async def story() -> None:
        async with door() as one:
            one.registered = False
            await stage(one, VOLUME)
            assert results(one) == ["confirmed"]

    run(story())


def test_lines_that_wait_for_a_disk_that_stands_still_are_bounded() -> None:
    async def story() -> None:
        configurator = Configurator({"local": LOCAL}, Disk(), disk=Inline())
        for number in range(MAX_LINES + 50):
            configurator.audit("order", {"status": number}, done=False)
        assert len(configurator._lines) == MAX_LINES // 2, "strangers leave room"
        for number in range(MAX_LINES + 50):
            configurator.audit("order", {"status": number})
        assert len(configurator._lines) == MAX_LINES
        assert "lines of the audit log are lost" in configurator.fault
        await configurator.aclose()

    run(story())


def test_door_that_keeps_nothing_keeps_no_lines_either() -> None:
    async def story() -> None:
        configurator = Configurator({"local": LOCAL}, None)
        configurator.audit("order", {"status": 403})
        assert not configurator._lines
        await configurator.aclose()

    run(story())


def test_refusals_push_nothing_out_of_the_audit_log() -> None:
    async def story() -> None:
        disk = Disk()
        async with door(disk) as one:
            await stage(one, VOLUME)
            for _ in range(5):
                for number in range(MAX_LINES):
                    one.configurator.audit("order", {"status": 403, "rule": number}, done=False)
                await asyncio.sleep(1)
            assert await one.configurator.verify() == ""
        assert [entry["kind"] for entry in AuditLog(disk).entries()] == ["staged", "confirmed"]
        assert len(list(AuditLog(disk, ASKED).entries())) >= 1000
        disk.remove("asked.jsonl")
        assert "asked.jsonl: the lines after 0 are missing" in await one.configurator.verify()

    run(story())


def test_certificate_that_is_not_over_the_doors_key_is_refused_before_anything_is_staged() -> None:
    async def story() -> None:
        disk = Disk()
        async with door(disk) as one:
            configurator = one.configurator
            uuid = configurator.identify(SeededIds())
            own = configurator.identity(SeededIds())
            for chain, why in (
                (pem(issue(Identity.new(uuid).request())), "not over this door's key"),
                ("-----BEGIN CERTIFICATE-----", "tls.own_certificate: "),
            ):
                change = Change({"tls.own_certificate": chain})
                with pytest.raises(SettingsError, match=why):
                    configurator.check(change)
                with pytest.raises(SettingsError, match=why):
                    await stage(one, change)
            assert results(one) == []
            chain = pem(issue(own.request()))
            await stage(one, Change({"tls.own_certificate": chain}))
            await configurator.identity_file()
            assert str(configurator.certificate).startswith("signed by CN=house until ")
            assert disk.read(NAME) == own.pem(chain)

    run(story())


@pytest.mark.parametrize("place", ["/nowhere/audit.jsonl", "/nowhere/a/../identity.pem"])
def test_event_log_takes_the_place_of_nothing_that_is_kept(place: str) -> None:
    async def story() -> None:
        async with door() as one:
            with pytest.raises(SettingsError, match=r"log\.events: lies among"):
                await stage(one, Change({"log.events": place}))
            assert one.configurator.check(Change({"log.events": "/elsewhere/audit.jsonl"}))

    run(story())


def test_files_certificate_of_another_door_is_passed_over_and_the_door_runs() -> None:
    async def story() -> None:
        chain = pem(issue(Identity.new("other").request()))
        async with door(local={**LOCAL, "tls": {"own_certificate": chain}}) as one:
            one.configurator.identify(SeededIds())
            await settled()
            assert await one.configurator.identity_file() is not None
            assert one.configurator.certificate is None

    run(story())
