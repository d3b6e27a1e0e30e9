"""Orders carried out, beside others who change something. Whole ones are told by the stories."""

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any, cast

from doorstation.configurator import Configurator
from doorstation.ids import SeededIds
from doorstation.provision.configuration import Refused
from doorstation.provision.layers import Change
from doorstation.provision.orders import Order
from doorstation.provision.outbox import Outbox
from doorstation.remote import Kept, Remote
from doorstation.results import MAX_FLOWS, Asked, Results
from doorstation.settings.reader import parse

from tests.support.disk import Disk, Inline
from tests.support.virtual_time import run
from tests.test_configurator import VOLUME, door, settled, stage

ASKED = Asked("office, key admin", "message 1", "sip:office@192.0.2.9", False)


def remote(configurator: Configurator) -> Remote:
    """One of a station of which nothing is wanted here."""
    reach = SimpleNamespace(settings=parse(""), endpoint=SimpleNamespace(screen=None))
    made = Remote(
        cast(Any, reach), configurator, SeededIds(), status=dict, is_busy=bool,
        is_registered=bool, restart=lambda: None, provisioner=None, outbox=Outbox(),
    )  # fmt: skip
    made._kept = Kept()
    return made


def test_order_that_comes_second_is_not_accepted_by_the_change_that_was_first() -> None:
    async def story() -> None:
        configurator = Configurator({"local": {}}, Disk(), disk=Inline())
        async with contextlib.aclosing(configurator):
            office, accepted = remote(configurator), list[str]()
            first = asyncio.create_task(
                configurator.stage(
                    Change({"audio.country": "at"}), by="root", how="ctl", needs_word=False
                )
            )
            await asyncio.sleep(0)  # it is the next one to be carried out
            refused = await office._stage(
                ASKED,
                lambda kept: configurator.stage(
                    Change({"audio.country": "fr"}), by=ASKED.by, how=ASKED.how, needs_word=True,
                    kept=kept,
                ),
                lambda: accepted.append("202"),
            )  # fmt: skip
            assert isinstance(refused, Refused)
            assert (await first, accepted, office._known.asked) == (1, [], None)
            office.close()

    run(story())


def test_order_that_the_disk_does_not_take_is_refused_also_when_it_is_repeated() -> None:
    async def story() -> None:
        disk = Disk()
        disk.broken = 30
        configurator = Configurator({"local": {}}, disk, disk=Inline())
        async with contextlib.aclosing(configurator):
            office, answers = remote(configurator), list[tuple[str, object, int]]()
            commander = SimpleNamespace(
                answered=lambda request, answer: answers.append(("kept", request, answer.status))
            )
            office._commander = cast(Any, commander)
            sent = SimpleNamespace(request=object())
            cast(Any, office)._answer = lambda event, answer: answers.append(
                ("sent", event.request, answer.status)
            )
            order = Order(sub="*", ctr=1, iat=0, op="set", set={"audio.country": "fr"})
            await office._set(cast(Any, sent), order, ASKED, lambda: None)
            assert answers == [("kept", sent.request, 503), ("sent", sent.request, 503)]
            office.close()

    run(story())


def test_word_that_the_disk_does_not_take_is_told_as_applied_and_not_as_confirmed() -> None:
    async def story() -> None:
        disk = Disk()
        async with door(disk) as one:
            office, told = remote(one.configurator), list[str]()
            number = await stage(one, VOLUME, needs_word=True)
            disk.broken = 30
            result = await office._done(Order(sub="*", ctr=1, iat=0, op="confirm", of=number), "x")
            assert (result["state"], result["number"]) == ("applied", number)
            assert result["why"].startswith("not on disk, a restart takes it back: ")
            # To who typed it at his phone.
            typed = Asked("office", "test", "sip:office@192.0.2.9", by_account=False)
            cast(Any, office)._results = SimpleNamespace(
                can_tell=True, tell_text=lambda asked, text: told.append(text),
                send_due=lambda: None, close=lambda: None,
            )  # fmt: skip
            office._kept = Kept(asked=typed)
            office.station_changed()
            assert "audio.speaker_gain is -6.0, was not set; not on disk, a restart" in told[0]
            office.close()
            await settled()

    run(story())


def test_order_that_is_staged_is_accepted_once_it_is_on_disk() -> None:
    async def story() -> None:
        configurator = Configurator({"local": {}}, Disk(), disk=Inline())
        async with contextlib.aclosing(configurator):
            office, accepted = remote(configurator), list[bool]()
            refused = await office._stage(
                ASKED,
                lambda kept: configurator.stage(
                    Change({"audio.country": "fr"}), by=ASKED.by, how=ASKED.how, needs_word=True,
                    kept=kept,
                ),
                lambda: accepted.append(configurator.pending is not None),
            )  # fmt: skip
            assert (refused, accepted, office._known.asked) == (None, [True], ASKED)
            office.close()

    run(story())


def test_ways_that_orders_came_are_bounded_and_the_latest_are_known() -> None:
    async def story() -> None:
        results = Results(cast(Any, None), cast(Any, None), SeededIds(), bool, Outbox())
        for number in range(MAX_FLOWS * 3):
            results.came_by(f"sip:office-{number}@192.0.2.9", cast(Any, number))
        assert list(results._flows.values()) == [*range(MAX_FLOWS * 2, MAX_FLOWS * 3)]

    run(story())
