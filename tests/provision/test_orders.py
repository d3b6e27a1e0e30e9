"""Who may give which order: every role and every operation."""

import json
from typing import Any, get_args

import pytest
from doorstation.errors import ProtocolError, SettingsError
from doorstation.printable import printable
from doorstation.provision.layers import Tree
from doorstation.provision.orders import MAY, Op, Order, Role, may_order, may_set, parse_order
from hypothesis import given
from hypothesis import strategies as st

ROLES: tuple[Role, ...] = get_args(Role)
OPS: tuple[Op, ...] = get_args(Op)


def order(op: Op, **more: Any) -> Order:
    return Order(sub="*", ctr=1, iat=0, op=op, **more)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("op", OPS)
def test_every_role_may_just_what_stands_in_the_table(role: Role, op: Op) -> None:
    decision = may_order(order(op, relay="door", url="https://c.test"), role, opens=("door",))
    assert decision.allowed == (op in MAY[role])
    assert decision.rule


def test_no_key_that_changes_settings_opens_a_door() -> None:
    for role in ROLES:
        assert not ({"open"} <= MAY[role] and MAY[role] & {"set", "confirm", "fetch", "reboot"})


@pytest.mark.parametrize(("relay", "allowed"), [("door", True), ("gate", False), ("", False)])
def test_opener_opens_the_relays_of_its_key_only(relay: str, allowed: bool) -> None:
    assert may_order(order("open", relay=relay), "opener", opens=("door",)).allowed == allowed


def test_opener_without_a_relay_opens_nothing() -> None:
    assert not may_order(order("open", relay="door"), "opener").allowed


@pytest.mark.parametrize("key", ["keys.other.public", "commanders.x.password", "provisioning.url"])
def test_who_may_do_what_is_set_by_owners_only(key: str) -> None:
    for change in ({"set": {key: "x"}}, {"unset": (key,)}):
        assert not may_order(order("set", **change), "admin").allowed
        assert may_order(order("set", **change), "owner").allowed


@pytest.mark.parametrize("key", ["account.password", "relays.door.codes", "peers.hall.password"])
def test_who_only_looks_tries_no_secret(key: str) -> None:
    assert not may_order(order("check", set={key: "4711"}), "viewer").allowed
    assert may_order(order("check", set={key: "4711"}), "admin").allowed
    assert may_order(order("check", set={"relays.door.pulse": 2}), "viewer").allowed


def test_who_may_not_set_it_has_no_say_in_whether_it_stays() -> None:
    assert not may_set(["audio.country", "keys.stolen.public"], "admin").allowed
    assert not may_set(["door.max_call"], "admin", ("audio",)).allowed
    assert may_set(["keys.stolen.public"], "owner").allowed


@pytest.mark.parametrize(
    ("key", "allowed"),
    [("audio.volume", True), ("audio", True), ("door.max_call", True), ("door", False),
     ("door.max_calls", False), ("account.user", False)],
)  # fmt: skip
def test_key_with_a_scope_is_kept_to_it(key: str, allowed: bool) -> None:
    scope = ("audio", "door.max_call")
    decision = may_order(order("set", set={key: 1}), "admin", scope=scope)
    assert decision.allowed == allowed


@pytest.mark.parametrize("url", ["http://10.0.0.1/?on=1", "HTTP://c.test", "tftp://10.0.0.1/x"])
def test_only_an_owner_sends_the_door_to_servers_that_prove_nothing(url: str) -> None:
    assert not may_order(order("fetch", url=url), "admin").allowed
    assert may_order(order("fetch", url=url), "owner").allowed


def test_key_with_a_scope_does_not_fetch_a_file_of_settings() -> None:
    assert not may_order(order("fetch", url="https://c.test"), "admin", scope=("audio",)).allowed


GOOD = {"sub": "*", "ctr": 1, "iat": 0, "op": "set", "set": {"audio.country": "at"}}


def test_order_is_read() -> None:
    read = parse_order(json.dumps(GOOD).encode())
    assert (read.op, read.set) == ("set", {"audio.country": "at"})


def test_table_in_an_order_is_one_key_for_each_value_in_it() -> None:
    table = {"set": {"peers": {"hall": {"uri": "sip:h", "password": "x"}}}}
    read = parse_order(json.dumps(GOOD | table).encode())
    assert list(read.change.set) == ["peers.hall.uri", "peers.hall.password"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"set": {"": {"keys": {"mine": {"role": "owner"}}}}}, '/set/: "": not a key'),
        ({"set": {"audio" + ".a" * 3000: 1}}, "/set: .*: more than 8 names"),
        ({"op": "open_all"}, "/op: .*open_all"),
        ({"ctr": "1"}, "/ctr: "),
        ({"set": ["audio"]}, "/set: "),
        ({"unset": ["audio", 1]}, "/unset/1: "),
        ({"force": True}, "/force: unknown$"),
        ({"a/b~\n": True}, r"/a~1b~0\\n: unknown$"),
        ({"sub": None}, "/sub: "),
        ({"ctr": 2**53 + 1}, "/ctr: "),
        ({"ctr": -1}, "/ctr: "),
        ({"iat": 10**400}, "/iat: "),
        ({"of": 10**400}, "/of: "),
    ],
)
def test_order_that_is_wrong_points_at_the_fault(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{named}") as raised:
        parse_order(json.dumps(GOOD | change).encode())
    assert raised.value.status == 422


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"[" * 100_000, b"\xff", b'{"sub":"\xff"}', b'{"\xff":1}']
)
def test_payload_that_is_no_order_is_refused_as_a_whole(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^: \S"):
        parse_order(payload)


def test_member_that_is_missing_is_pointed_at() -> None:
    with pytest.raises(ProtocolError, match=r"^/ctr: required$"):
        parse_order(b'{"sub":"*"}')


def found(payload: Any, line: str) -> Any:
    """What a line's pointer leads to (RFC 6901 4). Raises LookupError."""
    for token in line.partition(": ")[0].split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(payload, list):
            payload = payload[int(name)]
        else:
            payload = {printable(key): value for key, value in payload.items()}[name]
    return payload


NAMES = [
    "", ".", "account", "password", "audio", "country", "buttons", "call", "steps", "ring",
    "relays",
    "door", "codes", "pulse", "keys", "office", "public", "role", "opens", "scope", "commanders",
    "words", "volume", "sets", "sip", "listen", "peers", "hall", "uri", "readers", "provisioning",
    "tls", "log", "level", "_text", "__class__", "\u202e", "\x00", "\uff41udio",
]  # fmt: skip
KEYS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=12).map(".".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20) | st.sampled_from(["admin", "A" * 43, "sip:10.0.0.7", "4711"])
    | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.lists(KEYS, max_size=3))
def test_whatever_the_holder_of_a_key_signs_is_judged(set_: Any, unset: list[str]) -> None:
    tree = Tree({"local": {"account": {"user": "6", "domain": "b.test", "password": "geheim"}}})
    try:
        read = parse_order(json.dumps(GOOD | {"set": set_, "unset": unset}).encode())
        change = read.change
        new = tree.changed(change)
        new.settings()
    except ProtocolError:
        return
    except SettingsError as fault:
        for line in read.faults(fault):
            assert line.isprintable()
            found({"set": set_}, line)
        return
    told = tree.differences(new, change.written)
    assert "geheim" not in json.dumps([[each.old, each.new] for each in told])
