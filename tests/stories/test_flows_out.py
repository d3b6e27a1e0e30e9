"""Literal flows of called phones, by SIPp: what the door does with each answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.peers import Kamailio, baresip, sipp
from tests.support.station import Station, account, station


class Plan:
    """One door for all flows of this module: its button rings `first`, then `second`."""

    def __init__(self, town: Lab, door: Station, first: str, second: str) -> None:
        self.town = town
        self.door = door
        self.first = first
        self.second = second


@pytest.fixture(scope="module")
def module_plan(
    town: Lab, proxy: Kamailio, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plan]:
    first, second = town.address(), town.address()
    settings: dict[str, Any] = {
        **account(proxy),
        "relays.door.codes": ["5"],
        "peers.first.uri": f"sip:first@{first}",
        "peers.first.short_codes": True,
        "peers.second.uri": f"sip:second@{second}",
        "buttons.call.steps": [
            {"ring": ["first"], "seconds": 5},
            {"ring": ["second"], "seconds": 5},
        ],
        "buttons.first.steps": [{"ring": ["first"], "seconds": 5}],
    }
    with station(town, tmp_path_factory.mktemp("door"), settings) as door:
        door.wait_registered()
        yield Plan(town, door, first, second)


@pytest.fixture
def plan(module_plan: Plan) -> Iterator[Plan]:
    module_plan.door.skip_events()
    yield module_plan
    module_plan.door.wait_idle(20)


def phone(plan: Plan, directory: Path, scenario: str, **options: Any) -> Any:
    options.setdefault("address", plan.first)
    options.setdefault("pause_ms", 200)
    return sipp(plan.town, directory, scenario, service="first", **options)


def test_a_phone_rings_answers_and_is_hung_up_on(plan: Plan, tmp_path: Path) -> None:
    with phone(plan, tmp_path, "uas_answer") as running:
        plan.door.command("press", name="first")
        plan.door.wait_event("ringing")
        plan.door.wait_call("connected")
        plan.door.command("hangup")
        running.finish()


def test_a_phone_sends_sound_before_it_answers(plan: Plan, tmp_path: Path) -> None:
    with phone(plan, tmp_path, "uas_early_media", pause_ms=800) as running:
        with plan.door.listening("speaker") as speaker:
            plan.door.command("press", name="first")
            assert plan.door.wait_event("ringing", early_media=True)
            plan.door.wait_call("connected")
        assert any(speaker)
        plan.door.command("hangup")
        running.finish()


def test_a_phone_answers_sends_its_digit_both_ways_and_hangs_up(plan: Plan, tmp_path: Path) -> None:
    before = plan.door.pulses()
    with phone(plan, tmp_path, "uas_hangup", pause_ms=500) as running:
        plan.door.command("press", name="first")
        running.finish()
    plan.door.wait_event("call_ended")
    assert plan.door.pulses() >= before + 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("486", "busy"),
        ("603", "declined"),
        ("404", "unreachable"),
        ("480", "unreachable"),
        ("500", "failed"),
    ],
)
def test_a_phone_that_refuses_leads_to_the_next_step(
    plan: Plan, tmp_path: Path, status: str, kind: str
) -> None:
    with (
        phone(plan, tmp_path / "1", "uas_reject", keys={"status": status}) as first,
        phone(plan, tmp_path / "2", "uas_answer", address=plan.second) as second,
    ):
        plan.door.press()
        failed = plan.door.wait_event("target_failed")
        assert (failed["status"], failed["rule"]) == (int(status), kind)
        assert plan.door.wait_event("answered")["peer"] == "second"
        plan.door.wait_call("connected")
        plan.door.command("hangup")
        first.finish()
        second.finish()


def test_a_silent_phone_leads_to_the_next_step(plan: Plan, tmp_path: Path) -> None:
    with (
        phone(plan, tmp_path / "1", "uas_silent"),
        phone(plan, tmp_path / "2", "uas_answer", address=plan.second) as second,
    ):
        plan.door.press()
        assert plan.door.wait_event("step_over", 8)["rule"] == "no_answer"
        assert plan.door.wait_event("answered")["peer"] == "second"
        plan.door.wait_call("connected")
        plan.door.command("hangup")
        second.finish()


def test_a_phone_that_is_not_there_leads_to_the_next_step_at_once(
    plan: Plan, tmp_path: Path
) -> None:
    with phone(plan, tmp_path, "uas_answer", address=plan.second) as second:
        plan.door.press()
        assert plan.door.wait_event("target_failed", 4)["rule"] == "unreachable"
        plan.door.wait_call("connected")
        plan.door.command("hangup")
        second.finish()


def test_a_phone_that_rings_too_long_is_cancelled(plan: Plan, tmp_path: Path) -> None:
    with phone(plan, tmp_path, "uas_ring") as running:
        plan.door.command("press", name="first")
        plan.door.wait_event("ringing")
        assert plan.door.wait_event("step_over", 8)["rule"] == "no_answer"
        running.finish()
        assert plan.door.wait_event("call_failed")["rule"] == "no_answer"


def test_an_answer_that_crosses_the_cancel_is_acknowledged_and_ended(
    plan: Plan, tmp_path: Path
) -> None:
    with phone(plan, tmp_path, "uas_crossed") as running:
        plan.door.command("press", name="first")
        plan.door.wait_event("ringing")
        plan.door.command("hangup")
        running.finish()
        assert plan.door.status()["door"] == "idle"


def test_a_phone_that_points_elsewhere_is_followed(plan: Plan, tmp_path: Path) -> None:
    with baresip(plan.town, tmp_path / "indoor", "indoor") as indoor:
        keys = {"contact": indoor.uri}
        with phone(plan, tmp_path / "sipp", "uas_redirect", keys=keys) as running:
            plan.door.command("press", name="first")
            indoor.wait_event("CALL_ESTABLISHED")
            running.finish()
            plan.door.wait_call("connected")
            plan.door.command("hangup")
            indoor.wait_event("CALL_CLOSED")


def test_a_circle_of_redirections_ends(plan: Plan, tmp_path: Path) -> None:
    keys = {"contact": f"sip:first@{plan.first}"}
    with phone(plan, tmp_path, "uas_redirect", keys=keys) as running:
        plan.door.command("press", name="first")
        running.finish()
        assert plan.door.wait_event("target_failed")["status"] == 302


def test_ringing_that_wants_to_be_confirmed_is(plan: Plan, tmp_path: Path) -> None:
    with phone(plan, tmp_path, "uas_prack") as running:
        plan.door.command("press", name="first")
        assert plan.door.wait_call("connected")["codec"] == "PCMA"
        plan.door.command("hangup")
        running.finish()


def test_every_request_of_a_call_may_be_challenged_by_the_account_s_server(
    town: Lab, tmp_path: Path
) -> None:
    keys = {"realm": "elsewhere"}
    with sipp(town, tmp_path / "sipp", "uas_challenge", keys=keys, calls=2) as running:
        settings = {
            "account.user": "door",
            "account.domain": running.address,
            "account.password": "door-secret",
            "sip.keep_alive": 0,
            "sip.port": 5080,
        }
        with station(town, tmp_path, settings) as door:
            door.wait_registered()
            door.command("call", uri="**9")
            door.wait_call("connected")
            door.command("hold")
            door.wait_call("held")
            door.command("hangup")
            running.finish()


def test_a_phone_called_directly_is_shown_no_proof_of_the_account_s_password(
    plan: Plan, tmp_path: Path
) -> None:
    keys = {"realm": "example.test"}
    with phone(plan, tmp_path, "uas_challenge", keys=keys) as running:
        plan.door.command("press", name="first")
        assert plan.door.wait_event("target_failed")["status"] == 401
        assert "Authorization" not in running.messages()


def test_a_phone_asks_for_a_fresh_offer_and_takes_another_codec(plan: Plan, tmp_path: Path) -> None:
    with phone(plan, tmp_path, "uas_reinvite") as running:
        plan.door.command("press", name="first")
        assert plan.door.wait_call("connected")["codec"] == "PCMA"
        plan.door.wait_status(lambda status: status["calls"][0]["codec"] == "PCMU", "PCMU")
        plan.door.command("hangup")
        running.finish()


def test_an_answer_with_nothing_in_common_is_ended_in_order(plan: Plan, tmp_path: Path) -> None:
    with phone(plan, tmp_path, "uas_nothing_in_common") as running:
        plan.door.command("press", name="first")
        running.finish()
        assert plan.door.wait_event("target_failed")["status"] == 488
