"""A change is tried, then kept or taken back: nothing in between, whatever fails."""

from typing import Any

import pytest
from doorstation.errors import SettingsError
from doorstation.provision.configuration import (
    CUT,
    LOST_WORD,
    UNWELL,
    Apply,
    Configuration,
    Output,
    Refused,
    Save,
    Tell,
    restarted,
)
from doorstation.provision.layers import Change, Difference
from doorstation.provision.state import HISTORY, State

LOCAL: dict[str, Any] = {
    "account": {"user": "door", "domain": "fritz.box", "password": "geheim"},
    "buttons": {"call": {"pin": 17, "steps": [{"ring": ["**9"]}]}},
}
NOON = "2026-11-22T12:00:00Z"


def door(state: State | None = None) -> Configuration:
    return Configuration({"local": LOCAL}, state or State())


def stage(
    configuration: Configuration, change: dict[str, Any], *, needs_word: bool = True, **more: Any
) -> list[Output]:
    return configuration.stage(
        Change(change), by="office", how="message", at=NOON, seconds=120.0,
        needs_word=needs_word, **more,
    )  # fmt: skip


def test_change_is_saved_as_pending_before_it_is_applied() -> None:
    configuration = door()
    save, tell, apply = stage(configuration, {"audio.country": "at"})
    assert isinstance(save, Save)
    assert save.must
    assert save.state.pending is not None
    assert save.state.remote == {"audio": {"country": "at"}}
    assert tell == Tell("staged", 1, "office", "message", ("audio.country",))
    assert isinstance(apply, Apply)
    assert (apply.before.audio.country, apply.settings.audio.country) == ("de", "at")


def test_confirmed_change_stays() -> None:
    configuration = door()
    stage(configuration, {"audio.country": "at"})
    configuration.applied(10.0)
    assert configuration.deadline == 130.0
    save, tell = configuration.confirm(1, well=True)
    assert isinstance(save, Save)
    assert save.state.pending is None
    assert tell == Tell("confirmed", 1, "office", "message", ("audio.country",))
    assert configuration.settings.audio.country == "at"
    assert configuration.deadline is None
    assert door(restarted(configuration.state)).settings.audio.country == "at"


def test_change_that_nobody_confirms_goes_back_by_itself() -> None:
    configuration = door()
    stage(configuration, {"account.domain": "wrong.test"})
    configuration.applied(10.0)
    assert configuration.timer_fired(129.9) == []
    save, tell, apply = configuration.timer_fired(130.0)
    assert isinstance(save, Save)
    assert save.state.remote == {}
    assert tell == Tell("rolled_back", 1, "office", "message", ("account.domain",), LOST_WORD)
    assert isinstance(apply, Apply)
    assert apply.settings == door().settings
    assert configuration.state.history[-1].result == f"rolled back: {LOST_WORD}"


def test_time_counts_from_when_it_is_applied_not_from_when_a_call_held_it_up() -> None:
    configuration = door()
    stage(configuration, {"audio.country": "at"})
    assert configuration.deadline is None
    assert configuration.timer_fired(1e9) == []
    with pytest.raises(Refused, match="not applied yet"):
        configuration.confirm(1, well=True)


def test_door_that_is_not_registered_takes_no_confirmation() -> None:
    configuration = door()
    stage(configuration, {"account.domain": "wrong.test"})
    configuration.applied(0.0)
    with pytest.raises(Refused, match="unregistered"):
        configuration.confirm(1, well=False)
    assert configuration.deadline == 120.0


def test_change_that_needs_no_word_is_kept_when_the_door_is_well_again() -> None:
    configuration = door()
    stage(configuration, {"audio.country": "at"}, needs_word=False)
    assert configuration.well_again() == []  # still the old tree that is well
    configuration.applied(0.0)
    assert isinstance(configuration.well_again()[0], Save)
    assert configuration.state.pending is None
    assert configuration.state.history[-1].result == "confirmed"


def test_change_that_needs_a_word_is_not_kept_for_being_well_alone() -> None:
    configuration = door()
    stage(configuration, {"audio.country": "at"})
    configuration.applied(0.0)
    assert configuration.well_again() == []
    assert configuration.state.pending is not None


def test_door_that_does_not_get_well_again_goes_back() -> None:
    configuration = door()
    stage(configuration, {"account.domain": "wrong.test"}, needs_word=False)
    configuration.applied(0.0)
    tell = configuration.timer_fired(120.0)[1]
    assert isinstance(tell, Tell)
    assert tell.why == UNWELL


def test_start_that_finds_a_change_pending_goes_back_and_says_why() -> None:
    configuration = door()
    (save, *_) = stage(configuration, {"account.domain": "wrong.test"})
    assert isinstance(save, Save)
    again = door(restarted(save.state))
    assert again.settings == door().settings
    assert again.state.history[-1].result == f"rolled back: {CUT}"
    assert again.state.number == 1  # the number is not given twice


def test_one_change_at_a_time() -> None:
    configuration = door()
    stage(configuration, {"audio.country": "at"})
    with pytest.raises(Refused, match="change 1 by office is being tried"):
        stage(configuration, {"audio.country": "ch"})
    with pytest.raises(Refused, match="change 2 is not being tried"):
        configuration.confirm(2, well=True)


def test_tree_with_problems_is_never_staged() -> None:
    configuration = door()
    with pytest.raises(SettingsError, match=r"door\.max_call"):
        stage(configuration, {"door.max_call": 5, "audio.country": "at"})
    assert configuration.state == State()
    assert configuration.settings.audio.country == "de"


def test_disk_that_does_not_take_a_change_leaves_all_as_it_was() -> None:
    configuration = door()
    stage(configuration, {"audio.country": "at"})
    configuration.save_failed()
    assert configuration.state == State()
    assert configuration.settings == door().settings
    assert configuration.tree.rows() == door().tree.rows()


def test_what_comes_back_comes_back_even_if_the_disk_does_not_take_it() -> None:
    configuration = door()
    stage(configuration, {"audio.country": "at"})
    configuration.applied(0.0)
    save, _, apply = configuration.roll_back(1, "asked for")
    assert isinstance(save, Save)
    assert not save.must
    assert isinstance(apply, Apply)


def test_undo_tries_what_was_before_the_last_change_that_was_kept() -> None:
    configuration = door()
    for country in ("at", "ch"):
        stage(configuration, {"audio.country": country}, needs_word=False)
        configuration.applied(0.0)
        configuration.well_again()
    stage(configuration, {"audio.country": "fr"})
    configuration.roll_back(3, "asked for")
    configuration.undo(by="keyboard", how="command", at=NOON, seconds=60.0, needs_word=False)
    assert configuration.settings.audio.country == "at"


def test_undo_passes_over_a_change_that_changed_nothing() -> None:
    configuration = door()
    for _ in range(2):
        stage(configuration, {"audio.country": "at"}, needs_word=False)
        configuration.applied(0.0)
        configuration.well_again()
    configuration.undo(by="keyboard", how="command", at=NOON, seconds=60.0, needs_word=False)
    assert configuration.settings.audio.country == "de"


def test_undo_leaves_what_a_later_change_wrote_that_changed_nothing() -> None:
    file = {"audio": {"country": "at", "speaker_gain": 3.0}}
    configuration = Configuration({"local": LOCAL}, State(provisioned=file))
    for change in (
        Change({"audio.microphone_gain": -6.0, "audio.speaker_gain": 3.0}),
        Change({"audio.country": "at"}, unset=("audio.speaker_gain",)),
    ):
        configuration.stage(
            change, by="office", how="message", at=NOON, seconds=60.0, needs_word=False
        )
        configuration.applied(0.0)
        configuration.well_again()
    configuration.undo(by="phone", how="text", at=NOON, seconds=60.0, needs_word=False)
    assert configuration.state.remote == {"audio": {"country": "at"}}


def test_undo_of_a_change_that_is_not_the_last_one_any_more_is_refused() -> None:
    configuration = door()
    for country in ("at", "ch"):
        stage(configuration, {"audio.country": country}, needs_word=False)
        configuration.applied(0.0)
        configuration.well_again()

    def undo(of: int) -> None:
        configuration.undo(by="phone", how="text", at=NOON, seconds=60.0, needs_word=False, of=of)

    for other in (0, 1):
        with pytest.raises(Refused, match="change 2 came meanwhile"):
            undo(other)
    undo(2)
    assert configuration.settings.audio.country == "at"


def test_nothing_to_undo_is_said() -> None:
    with pytest.raises(Refused, match="no change to undo"):
        door().undo(by="keyboard", how="command", at=NOON, seconds=60.0, needs_word=False)


def test_history_is_bounded_and_shows_no_secret() -> None:
    configuration = door()
    for number in range(HISTORY + 5):
        stage(configuration, {"account.password": f"word-{number}"}, needs_word=False)
        configuration.applied(0.0)
        configuration.well_again()
    assert [past.number for past in configuration.state.history] == list(range(6, HISTORY + 6))
    assert "word-" not in str([past.differences for past in configuration.state.history])


@pytest.mark.parametrize("word", ["geheim", "guess"])
def test_difference_does_not_tell_whether_a_secret_is_the_right_one(word: str) -> None:
    configuration = door()
    told = [Difference("account.password", "***", "***")]
    assert configuration.check(Change({"account.password": word})) == told
    assert configuration.check(Change({"account": {"password": word}})) == told
    stage(configuration, {"account.password": word})
    assert configuration.state.pending is not None
    assert list(configuration.state.pending.differences) == told


def test_reset_forgets_all_but_how_many_changes_there_were() -> None:
    configuration = door()
    stage(configuration, {"audio.country": "at"}, needs_word=False)
    configuration.applied(0.0)
    configuration.well_again()
    stage(configuration, {"audio.country": "ch"}, kept={"counters": {"k": 7}})
    save, tell, apply = configuration.reset(by="root", how="ctl")
    assert save == Save(State(number=2), must=True)
    assert tell == Tell("reset", 2, "root", "ctl", ("audio.country",))
    assert isinstance(apply, Apply)
    assert apply.settings == door().settings
    stage(configuration, {"audio.country": "fr"})
    configuration.applied(0.0)
    for late in (1, 2):
        with pytest.raises(Refused, match=f"change {late} is not being tried"):
            configuration.confirm(late, well=True)


def test_what_a_command_must_remember_is_saved_with_its_change() -> None:
    configuration = door()
    (save, *_) = stage(configuration, {"audio.country": "at"}, kept={"counters": {"k": 7}})
    assert isinstance(save, Save)
    assert save.state.kept == {"counters": {"k": 7}}


def test_what_another_part_remembers_is_forgotten_if_the_disk_fails() -> None:
    configuration = door()
    configuration.remember("counters", {"k": 7})
    configuration.save_failed()
    assert configuration.state.kept == {}


def test_network_that_names_a_registrar_changes_the_tree_below_the_others() -> None:
    local = {**LOCAL, "account": {"user": "door", "domain": "fritz.box"}}
    configuration = Configuration({"local": local}, State())
    (apply,) = configuration.base_changed("dhcp", {"account": {"registrar": "10.0.0.5"}})
    assert isinstance(apply, Apply)
    assert apply.settings.account is not None
    assert apply.settings.account.registrar == "10.0.0.5"
    assert configuration.base_changed("dhcp", {"account": {"registrar": "10.0.0.5"}}) == []
    with pytest.raises(SettingsError):
        configuration.base_changed("dhcp", {"account": {"registrar": "//"}})
    assert configuration.settings.account is not None
    assert configuration.settings.account.registrar == "10.0.0.5"


def test_what_is_to_be_kept_with_the_confirmation_is_in_the_same_write() -> None:
    configuration = door()
    configuration.replace(
        {"audio": {"country": "at"}}, by="owner", how="file 7", at=NOON, seconds=120.0,
        needs_word=True, origin="provisioned", kept={"files": {"serial": 7}},
        then={"files": {"serial": 7, "url": "https://a/7"}},
    )  # fmt: skip
    assert configuration.state.kept == {"files": {"serial": 7}}
    configuration.applied(10.0)
    save, _ = configuration.confirm(1, well=True)
    assert isinstance(save, Save)
    assert save.state.pending is None
    assert save.state.kept == {"files": {"serial": 7, "url": "https://a/7"}}


def test_what_was_to_be_kept_with_the_confirmation_is_not_after_a_rollback_or_a_power_cut() -> None:
    configuration = door()
    configuration.replace(
        {}, by="owner", how="file 7", at=NOON, seconds=120.0, needs_word=True,
        origin="provisioned", then={"files": {"url": "https://a/7"}},
    )  # fmt: skip
    assert restarted(configuration.state).kept == {}
    configuration.roll_back(1, "tried enough")
    assert configuration.state.kept == {}


def without_tls() -> Configuration:
    """A door that tries to do without TLS while the network names a server that cannot prove it."""
    account = {"user": "door", "password": "geheim", "transport": "tls"}
    named = {"sip": {"servers": ["pbx.test"]}}
    configuration = Configuration({"local": {**LOCAL, "account": account}, "dhcp": named}, State())
    stage(configuration, {"account.transport": "udp"})
    configuration.applied(10.0)
    configuration.base_changed("dhcp", {"sip": {"servers": ["192.0.2.66"]}})
    return configuration


def test_what_the_network_says_meanwhile_keeps_no_change_that_nobody_confirms() -> None:
    configuration = without_tls()
    _, tell, apply = configuration.timer_fired(130.0)
    assert tell == Tell("rolled_back", 1, "office", "message", ("account.transport",), LOST_WORD)
    assert isinstance(apply, Apply)
    assert apply.settings.account is not None
    assert apply.settings.account.transport == "tls"
    assert apply.settings.sip.servers == ()
    assert configuration.settings == apply.settings


def test_what_the_network_says_meanwhile_keeps_no_door_from_a_reset() -> None:
    configuration = without_tls()
    *_, apply = configuration.reset(by="owner", how="ctl")
    assert isinstance(apply, Apply)
    assert apply.settings.account is not None
    assert apply.settings.account.transport == "tls"
