"""Layers over each other: the stronger origin wins value by value, and each value knows whose."""

import tomllib
from typing import Any

import pytest
from doorstation.errors import SettingsError
from doorstation.provision.layers import Change, Difference, Row, Tree, find, merged
from doorstation.settings.keys import holds_secret

LOCAL = {
    "account": {"user": "door", "domain": "fritz.box", "password": "geheim"},
    "buttons": {"call": {"pin": 17, "steps": [{"ring": ["**9"], "seconds": 20}]}},
    "relays": {"door": {"pin": 27, "codes": ["4711"]}},
}
TREE = Tree({"local": LOCAL})


def test_stronger_origin_wins_value_by_value() -> None:
    tree = Tree(
        {
            "remote": {"account": {"domain": "pbx.test"}},
            "dhcp": {"account": {"domain": "dhcp.test", "registrar": "10.0.0.5"}},
            "local": LOCAL,
        }
    )
    account = tree.settings().account
    assert account is not None
    assert (account.user, account.domain, account.registrar) == ("door", "pbx.test", "10.0.0.5")
    assert tree.origin("account.domain") == "remote"
    assert tree.origin("account.registrar") == "dhcp"
    assert tree.origin("account.user") == "local"
    assert tree.origin("audio.country") == "default"


def test_list_is_one_value() -> None:
    steps = [{"ring": ["12"]}, {"ring": ["13"]}]
    changed = TREE.changed(Change({"buttons.call.steps": steps}))
    assert len(changed.settings().buttons["call"].steps) == 2
    assert changed.settings().buttons["call"].pin == 17


def test_change_touches_its_layer_only() -> None:
    changed = TREE.changed(Change({"audio.country": "at"}))
    assert changed.layers["local"] == LOCAL
    assert changed.layers["remote"] == {"audio": {"country": "at"}}
    assert "audio" not in LOCAL
    back = changed.changed(Change(unset=("audio.country",)))
    assert back.layers["remote"] == {}
    assert back.settings() == TREE.settings()


def test_table_may_be_set_whole() -> None:
    change = Change({"peers.kitchen": {"uri": "sip:10.0.0.7", "may_open": False}})
    peer = TREE.changed(change).settings().peers["kitchen"]
    assert (peer.uri, peer.may_open) == ("sip:10.0.0.7", False)


def test_key_below_a_value_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"account.user is a value, no table"):
        TREE.changed(Change({"account.user": "a", "account.user.name": "b"}))


@pytest.mark.parametrize("key", ["", ".", "audio.", "audio..country"])
def test_key_without_a_name_is_refused(key: str) -> None:
    with pytest.raises(SettingsError, match="not a key"):
        TREE.changed(Change({key: 1}))


def test_table_without_a_name_is_not_the_way_to_another_section() -> None:
    with pytest.raises(SettingsError, match="not a key"):
        TREE.changed(Change({"": {"keys": {"mine": {"role": "owner"}}}}))


def nested(depth: int) -> Any:
    return {"a": nested(depth - 1)} if depth else 1


@pytest.mark.parametrize(
    "change", [{"audio": nested(400)}, {"audio" + ".a" * 5000: 1}, {"audio" + ".a" * 7: nested(9)}]
)
def test_tables_deeper_than_any_option_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="more than 8 names"):
        TREE.changed(Change(change))
    with pytest.raises(SettingsError, match="more than 8 names"):
        merged([change, change])


def test_change_has_a_bounded_number_of_keys() -> None:
    with pytest.raises(SettingsError, match="more than 200 keys"):
        TREE.changed(Change({f"peers.p{n}.uri": "sip:10.0.0.7" for n in range(201)}))


def test_problems_of_the_whole_tree_are_told_together() -> None:
    with pytest.raises(SettingsError) as raised:
        TREE.changed(Change({"audio.contry": "de", "door.max_call": 5})).settings()
    assert [problem.partition(":")[0] for problem in raised.value.problems] == [
        "audio.contry",
        "door.max_call",
    ]


def test_rows_show_no_secret() -> None:
    rows = TREE.changed(Change({"audio.country": "at"})).rows()
    assert Row("account.password", "***", "local") in rows
    assert Row("relays.door.codes", ["***"], "local") in rows
    assert Row("audio.country", "at", "remote") in rows
    assert "geheim" not in str(rows)
    assert "4711" not in str(rows)


def test_difference_shows_what_changes_and_no_secret() -> None:
    changed = TREE.changed(
        Change({"account.password": "neu", "audio.country": "at"}, unset=("account.user",))
    )
    assert TREE.differences(changed) == [
        Difference("account.password", "***", "***"),
        Difference("audio.country", None, "at"),
    ]
    assert changed.differences(TREE)[1] == Difference("audio.country", "at", None)


def test_secret_is_known_by_its_key() -> None:
    secret = ("account.password", "relays.door.codes", "peers.x.password", "readers.r.accepts")
    assert all(holds_secret(key) for key in secret)
    plain = ("account", "account.user", "relays.door", "relays.door.pulse", "nothing.at.all", "")
    assert not any(holds_secret(key) for key in plain)


def test_value_is_found_by_its_key() -> None:
    assert find(LOCAL, "account.user") == "door"
    assert find(LOCAL, "relays.door") == {"pin": 27, "codes": ["4711"]}
    for key in ("account.nothing", "account.user.more", ""):
        with pytest.raises(KeyError):
            find(LOCAL, key)


def test_what_is_exported_says_the_same_when_it_is_read() -> None:
    raw = {
        "account": {"user": "door", "domain": "pbx.example", "password": 'a"\\\x7fb'},
        "buttons": {"call": {"steps": [{"ring": ["**9"], "seconds": 20}]}},
        "relays": {"door": {"codes": ["4711"], "active_high": False}},
        "leds": {"status": {}},
    }
    tree = Tree({"local": raw})
    assert tomllib.loads(tree.exported(secrets=True)) == raw
    without = tree.exported(secrets=False)
    assert "password" not in without
    assert "4711" not in without


def test_import_leaves_to_the_layers_below_what_they_say_already() -> None:
    local = {"audio": {"country": "at", "rate": 8000}, "account": {"password": "below"}}
    remote = {"account": {"password": "geheim"}, "door": {"max_call": 60}}
    tree = Tree({"local": local, "remote": remote})
    layer = tree.imported({"audio": {"country": "at", "rate": 16000}})
    assert layer == {"audio": {"rate": 16000}, "account": {"password": "geheim"}}
