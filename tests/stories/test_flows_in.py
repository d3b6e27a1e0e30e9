"""Literal flows of callers, by SIPp: what the door answers to each; it comes to rest each time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab, eventually
from tests.support.peers import Sipp, sipp
from tests.support.station import Station, station

CODE = "5"


class Front:
    """One door for all flows of this module, and who may call it."""

    def __init__(self, town: Lab, door: Station, friend: str, bell: str) -> None:
        self.town = town
        self.door = door
        self.friend = friend
        """The address of a phone whose calls are answered at once."""
        self.bell = bell
        """The address of a phone whose calls ring."""


@pytest.fixture(scope="module")
def module_front(town: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    friend, bell = town.address(), town.address()
    settings: dict[str, Any] = {
        "relays.door.codes": [CODE],
        "peers.friend.uri": f"sip:sipp@{friend}",
        "peers.friend.auto_answer": True,
        "peers.friend.short_codes": True,
        "peers.bell.uri": f"sip:sipp@{bell}",
    }
    with station(town, tmp_path_factory.mktemp("door"), settings) as door:
        yield Front(town, door, friend, bell)


@pytest.fixture
def front(module_front: Front) -> Iterator[Front]:
    module_front.door.skip_events()
    yield module_front
    module_front.door.wait_idle()


def flow(front: Front, directory: Path, scenario: str, **options: Any) -> Any:
    options.setdefault("address", front.friend)
    options.setdefault("pause_ms", 200)
    return sipp(front.town, directory, scenario, target=f"{front.door.address}:5060", **options)


def run(front: Front, directory: Path, scenario: str, **options: Any) -> Sipp:
    """Run one flow to its end; AssertionError when the door answered anything else."""
    with flow(front, directory, scenario, **options) as running:
        running.finish()
        found: Sipp = running
        return found


def test_a_call_is_answered_has_sound_and_is_hung_up(front: Front, tmp_path: Path) -> None:
    run(front, tmp_path, "uac_call", pause_ms=600)
    assert front.door.wait_event("call_statistics")["received"] > 10


def test_a_call_comes_by_a_connection(front: Front, tmp_path: Path) -> None:
    run(front, tmp_path, "uac_call", transport="t1")


def test_a_digit_of_captured_packets_opens(front: Front, tmp_path: Path) -> None:
    before = front.door.pulses()
    run(front, tmp_path, "uac_dtmf", keys={"digit": "5"})
    assert front.door.wait_event("digit")["source"] == "rfc4733"
    front.door.wait_event("release")
    assert front.door.pulses() == before + 1
    assert len(front.door.new_events("digit")) == 0


def test_a_pound_key_whose_end_is_cut_off_counts_once(front: Front, tmp_path: Path) -> None:
    run(front, tmp_path, "uac_dtmf", keys={"digit": "pound"})
    assert front.door.wait_event("digit")["source"] == "rfc4733"
    assert len(front.door.new_events("digit")) == 0


def test_digits_by_info_in_both_spellings_count(front: Front, tmp_path: Path) -> None:
    before = front.door.pulses()
    run(front, tmp_path, "uac_info_dtmf", keys={"digit": "5", "second": "5"})
    front.door.wait_idle()
    # The relay may confirm the first pull after the second digit has come.
    assert [event["source"] for event in front.door.new_events("digit")] == ["info", "info"]
    assert len(front.door.new_events("release")) == 2
    assert front.door.pulses() > before  # the second one may prolong the first


def test_the_caller_gives_up_while_it_rings(front: Front, tmp_path: Path) -> None:
    run(front, tmp_path, "uac_cancel", address=front.bell)
    assert front.door.wait_event("call_ended")["rule"] == "caller_gone"


def test_a_call_without_an_offer_is_given_one(front: Front, tmp_path: Path) -> None:
    run(front, tmp_path, "uac_late_offer")
    assert front.door.wait_event("call_statistics")["sent"] > 2


def test_the_caller_holds_and_takes_the_call_back(front: Front, tmp_path: Path) -> None:
    run(front, tmp_path, "uac_hold")
    assert front.door.wait_event("hold")["held"] is True
    assert front.door.wait_event("hold")["held"] is False


def test_update_options_fresh_offer_and_another_codec_in_one_call(
    front: Front, tmp_path: Path
) -> None:
    with flow(front, tmp_path, "uac_changes", pause_ms=500) as running:
        front.door.wait_event("hold", held=True)
        front.door.wait_event("hold", held=False)
        running.finish()
    assert "PCMU/8000" in running.messages()


def test_every_ringing_is_confirmed_when_the_caller_asks_for_it(
    front: Front, tmp_path: Path
) -> None:
    with flow(front, tmp_path, "uac_prack", address=front.bell) as running:
        front.door.wait_call("ringing")
        eventually(lambda: running.messages().count("CSeq: 2 PRACK") == 2, "180 confirmed")
        front.door.command("progress")
        eventually(lambda: running.messages().count("CSeq: 3 PRACK") == 2, "183 confirmed")
        front.door.command("answer")
        running.finish()


def test_too_short_a_session_is_refused_and_a_refreshed_one_lives(
    front: Front, tmp_path: Path
) -> None:
    run(front, tmp_path, "uac_session_timer")


def test_an_extension_that_nobody_has_is_refused_by_name(front: Front, tmp_path: Path) -> None:
    run(front, tmp_path, "uac_unknown_extension")


def test_the_same_call_by_two_ways_is_one_call(front: Front, tmp_path: Path) -> None:
    with flow(front, tmp_path, "uac_merged", address=front.bell) as running:
        front.door.wait_call("ringing")
        front.door.wait_log("482")
        front.door.command("answer")
        running.finish()


@pytest.mark.parametrize(
    ("method", "to_tag", "status"),
    [
        ("BYE", "nobody", "481"),
        ("INFO", "nobody", "481"),
        ("UPDATE", "nobody", "481"),
        ("PRACK", "nobody", "481"),
        ("REFER", "nobody", "405"),
        ("DANCE", "nobody", "501"),
        ("OPTIONS", "nobody", "200"),
    ],
)
def test_a_request_outside_any_call_is_told_so(
    front: Front, tmp_path: Path, method: str, to_tag: str, status: str
) -> None:
    keys = {"method": method, "to_tag": to_tag, "status": status}
    run(front, tmp_path, "uac_outside", keys=keys)


@pytest.mark.parametrize("service", ["door", "nobody", "**9"])
def test_the_door_says_that_it_is_alive_whatever_name_is_asked(
    front: Front, tmp_path: Path, service: str
) -> None:
    run(front, tmp_path, "uac_options", service=service, address=front.town.address())


def test_a_text_is_taken_and_recorded_without_its_words(front: Front, tmp_path: Path) -> None:
    run(front, tmp_path, "uac_message", keys={"text": "the cat is out"})
    front.door.wait_event("message")
    assert "the cat" not in front.door.events_file.read_text()


def test_a_crowd_of_callers_is_told_busy_and_the_first_call_goes_on(
    front: Front, tmp_path: Path
) -> None:
    keys = {"status": "486"}
    with flow(front, tmp_path / "first", "uac_call", pause_ms=1500) as first:
        front.door.wait_call("connected")
        others = tmp_path / "others"
        run(front, others, "uac_refused", keys=keys, calls=20, rate=50, address=front.bell)
        assert len(front.door.calls()) == 1
        first.finish()
