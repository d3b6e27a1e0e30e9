"""Orders by SIP MESSAGE to a whole door: by `doorstation command`, directly and through a PBX."""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doorstation.net import dhcp
from doorstation.net.order_client import KeyFile, OrderRefused, order_client
from doorstation.provision.identity import Identity
from doorstation.ua import events as ua
from doorstation.ua.inspect import ORDERS

from tests.support.lab import Lab
from tests.support.owner import issue, pem
from tests.support.peers import Kamailio, baresip, kamailio, sipp
from tests.support.station import Station, account, doorstation, station

WORD = "a-word-of-the-office"
ACCOUNT_WORD = "the-office-at-the-PBX"


class Office:
    """A machine with keys, and the door that they order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.admin = KeyFile.new(folder / "admin.key")
        self.opener = KeyFile.new(folder / "opener.key")
        (folder / "word").write_text(f"{WORD}\n")
        (folder / "account").write_text(f"{ACCOUNT_WORD}\n")

    def settings(self, state: Path) -> dict[str, Any]:
        return {
            "provisioning.state": state,
            "provisioning.confirm_within": 5,
            "keys.admin": {"public": self.admin.key.public.text, "role": "admin"},
            "keys.opener": {
                "public": self.opener.key.public.text, "role": "opener", "opens": ["door"],
            },
            "commanders.office.password": WORD,
            "commanders.caretaker": {"password": WORD, "types": True, "digest": ["md5"]},
            "commanders.sipp": {"password": WORD, "digest": ["md5"]},  # it knows nothing else
            "words.pulse.sets": "relays.door.pulse",
        }  # fmt: skip

    def orders(
        self,
        door: Station,
        *words: str,
        key: str = "admin",
        to: str = "",
        account: str = "",
        named: str = "",
    ) -> "subprocess.CompletedProcess[str]":
        """`doorstation command … WORDS`, to its end."""
        way = ["--account", account, "--account-password-file", str(self.folder / "account")]
        return doorstation(
            "command", "--key", str(self.folder / f"{key}.key"), "--to", to or door.uri(),
            "--door", named or identity(door), "--user", "office",
            "--password-file", str(self.folder / "word"),
            *(way if account else ()), *words,
        )  # fmt: skip


def identity(door: Station) -> str:
    return str(door.command("keys")["door"]["door"])


@pytest.fixture
def office(tmp_path: Path) -> Office:
    (tmp_path / "office").mkdir()
    return Office(tmp_path / "office")


@pytest.fixture
def door(town: Lab, tmp_path: Path, office: Office) -> Iterator[Station]:
    with station(town, tmp_path / "door", office.settings(tmp_path / "state")) as running:
        yield running


def test_a_change_shows_its_difference_is_applied_confirmed_and_stays(
    office: Office, door: Station
) -> None:
    done = office.orders(door, "set", "relays.door.pulse=1.5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "relays.door.pulse: 0.5 -> 1.5\nconfirmed number=1\n"
    assert office.orders(door, "get", "relays.door.pulse").stdout == (
        "relays.door.pulse = 1.5  (remote)\n"
    )
    assert "confirmed  relays.door.pulse" in office.orders(door, "history").stdout


def test_an_office_that_orders_faster_than_the_door_takes_it_is_held_up_and_loses_nothing(
    office: Office, door: Station
) -> None:
    async def story() -> list[str]:
        async with order_client(office.admin, door.uri(), identity(door), "office", WORD) as client:
            states = []
            for pulse in (1.5, 2.5, 3.5, 4.5):
                change = {"relays.door.pulse": pulse}
                await client.order("check", set=change)
                applied = await client.order("set", set=change)
                states.append((await client.order("confirm", of=applied["number"]))["state"])
            return states

    assert asyncio.run(story()) == ["confirmed"] * 4


def test_a_change_that_ends_the_station_and_builds_another_is_confirmed_too(
    office: Office, door: Station
) -> None:
    done = office.orders(door, "set", "sip.user=gate")
    assert (done.returncode, done.stdout) == (
        0,
        'sip.user: not set -> "gate"\nconfirmed number=1\n',
    )


def test_a_certificate_that_the_owners_authority_signed_comes_by_order_if_it_is_this_doors(
    office: Office, door: Station
) -> None:
    other = Identity.new(identity(door)).request()
    refused = office.orders(door, "set", f"tls.own_certificate={pem(issue(other))}")
    assert refused.returncode == 1
    assert "not over this door's key" in refused.stderr
    request = door.command("certificate_request").encode()
    done = office.orders(door, "set", f"tls.own_certificate={pem(issue(request))}")
    assert (done.returncode, done.stdout[-19:]) == (0, "confirmed number=1\n")
    label = door.command("keys")["door"]
    assert label["certificate"] == "signed by CN=house until 2027-01-31T12:00:00Z"


def test_a_change_that_nobody_confirms_goes_back_and_who_ordered_it_is_told(
    office: Office, door: Station
) -> None:
    async def story() -> list[Any]:
        async with order_client(office.admin, door.uri(), identity(door), "office", WORD) as client:
            counter = await client.send("set", set={"relays.door.pulse": 1.5}, within=5)
            return [await client.result(counter), await client.result(counter)]

    applied, back = asyncio.run(story())
    assert (applied["state"], applied["number"]) == ("applied", 1)
    assert applied["differences"] == [{"key": "relays.door.pulse", "old": 0.5, "new": 1.5}]
    assert (back["state"], back["why"]) == ("rolled-back", "nobody confirmed it in time")


def test_two_masters_push_at_once_and_one_wins_and_the_other_is_told(
    office: Office, door: Station
) -> None:
    second = KeyFile.new(office.folder / "second.key")
    door.command("key_add", name="second", public=second.key.public.text, role="admin")
    door.wait_event("configuration", state="confirmed")

    async def pushes(keys: KeyFile, value: float) -> str:
        async with order_client(keys, door.uri(), identity(door), "office", WORD) as client:
            try:
                result = await client.order("set", set={"relays.door.pulse": value})
            except OrderRefused as refused:
                return str(refused)
            return str((await client.order("confirm", of=result["number"]))["state"])

    async def both() -> list[str]:
        return list(await asyncio.gather(pushes(office.admin, 1.5), pushes(second, 2.5)))

    outcomes = sorted(asyncio.run(both()))
    assert outcomes[1] == "confirmed"
    assert outcomes[0].startswith("409 change 2 by office, key ")


def test_a_key_has_no_say_in_a_change_that_it_may_not_make(office: Office, door: Station) -> None:
    owner = KeyFile.new(office.folder / "owner.key")
    door.command("key_add", name="owner", public=owner.key.public.text, role="owner")
    door.wait_event("configuration", state="confirmed")
    limited = KeyFile.new(office.folder / "limited.key")
    change = {"public": limited.key.public.text, "role": "admin", "scope": ["audio"]}

    async def story() -> Any:
        async with order_client(owner, door.uri(), identity(door), "office", WORD) as client:
            number = (await client.order("set", set={"keys.limited": change}))["number"]
            async with order_client(
                office.admin, door.uri(), identity(door), "office", WORD
            ) as other:
                for op in ("rollback", "confirm"):
                    with pytest.raises(OrderRefused, match=r"403 keys\.limited.*: only an owner's"):
                        await other.order(op, of=number)
            return await client.order("confirm", of=number)

    assert asyncio.run(story())["state"] == "confirmed"


def test_an_order_may_name_the_door_by_its_mac_address(office: Office, door: Station) -> None:
    async def story(sub: str) -> Any:
        way = order_client(office.admin, door.uri(), identity(door), "office", WORD)
        async with way as client:
            return await client.order("status", sub=sub)

    ours = {each.mac.hex() for each in dhcp.interfaces()}
    assert asyncio.run(story(ours.pop()))["state"] == "done"
    with pytest.raises(OrderRefused, match="403 for another door"):
        asyncio.run(story("b827eb000000"))


def test_an_order_of_an_opener_opens_by_the_doors_own_way(office: Office, door: Station) -> None:
    done = office.orders(door, "open", "door", key="opener")
    assert (done.returncode, done.stdout) == (0, 'done relay="door"\n')
    assert door.wait_event("release")["rule"] == "order"
    refused = office.orders(door, "open", "door")
    assert (refused.returncode, door.pulses()) == (1, 1)
    assert "403 a key of role admin may not open" in refused.stderr


def test_a_key_that_is_revoked_orders_nothing_any_more(office: Office, door: Station) -> None:
    extra = KeyFile.new(office.folder / "extra.key")
    public = extra.key.public.text
    added = doorstation(
        "keys", "add", "extra", "--public", public, "--role", "viewer", "--socket", str(door.socket)
    )
    assert (added.returncode, added.stderr) == (0, "kept\n")
    door.wait_event("configuration", state="confirmed")
    assert office.orders(door, "status", key="extra").returncode == 0
    listed = doorstation("keys", "list", "--socket", str(door.socket)).stdout
    assert f"extra  {extra.key.public.kid}  viewer  remote\n" in listed
    assert "  admin  local\n" in listed
    revoked = doorstation("keys", "revoke", "extra", "--socket", str(door.socket))
    assert (revoked.returncode, revoked.stderr) == (0, "kept\n")
    assert 'keys.extra.role: "viewer" -> not set' in revoked.stdout
    door.wait_event("configuration", state="confirmed")
    assert "403 no key of this kid" in office.orders(door, "status", key="extra").stderr


def test_a_key_of_the_file_is_not_revoked_by_halves(office: Office, door: Station) -> None:
    assert door.config("set", 'keys.admin.scope=["audio"]').returncode == 0
    revoked = doorstation("keys", "revoke", "admin", "--socket", str(door.socket))
    assert revoked.returncode == 1
    assert "a key of the file is taken out there" in revoked.stderr
    assert "403 relays.door.pulse: this key is kept to audio" in (
        office.orders(door, "set", "relays.door.pulse=1.5").stderr
    )


def test_the_counter_outlives_a_restart(town: Lab, tmp_path: Path, office: Office) -> None:
    settings = office.settings(tmp_path / "state")
    with station(town, tmp_path / "door", settings) as door:
        assert office.orders(door, "set", "relays.door.pulse=1.5").returncode == 0
        known = identity(door)
    (office.folder / "admin.key.counter").write_text("1")
    with station(town, tmp_path / "door", settings) as door:
        assert identity(door) == known
        low = asyncio.run(_with_counter(office, door, 5))
    assert low.startswith("409 the counter is at")


def test_an_order_that_only_looked_does_not_come_again_after_a_power_cut(
    town: Lab, tmp_path: Path, office: Office
) -> None:
    settings = office.settings(tmp_path / "state")
    with station(town, tmp_path / "door", settings) as door:
        assert office.orders(door, "status").returncode == 0
        used = int((office.folder / "admin.key.counter").read_text())
        door.wait_event("order", op="status")
        time.sleep(0.5)
        door.cut_power()
    with station(town, tmp_path / "door", settings) as door:
        assert asyncio.run(_with_counter(office, door, used)) == f"409 the counter is at {used}"


async def _with_counter(office: Office, door: Station, counter: int) -> str:
    async with order_client(office.admin, door.uri(), identity(door), "office", WORD) as client:
        office.admin.next_counter = lambda: counter  # type: ignore[method-assign]
        with pytest.raises(OrderRefused) as refused:
            await client.send("status")
        return str(refused.value)


def test_a_door_that_was_reset_is_another_and_obeys_the_keys_of_its_file(
    office: Office, door: Station
) -> None:
    assert office.orders(door, "set", "relays.door.pulse=1.5").returncode == 0
    before = identity(door)
    assert door.config("reset").returncode == 0
    door.wait_event("configuration", state="reset")
    assert identity(door) != before
    assert office.orders(door, "get", "relays.door.pulse").stdout == (
        "relays.door.pulse = 0.5  (local)\n"
    )


def test_an_ordered_restart_ends_with_the_status_that_systemd_restarts(
    office: Office, door: Station
) -> None:
    assert office.orders(door, "reboot").returncode == 0
    assert door.process.wait(8) == 75


def test_a_result_that_its_commander_cannot_take_now_comes_again(
    office: Office, door: Station
) -> None:
    async def story() -> tuple[Any, int]:
        async with order_client(office.admin, door.uri(), identity(door), "office", WORD) as client:
            takes, came = client._result_received, []

            def takes_the_second(event: ua.ContentReceived) -> None:
                came.append(event)
                if len(came) > 1:
                    takes(event)
                else:
                    client.shell.tell(lambda now: client.agent.answer_content(event, 503, now))

            client._result_received = takes_the_second  # type: ignore[method-assign]
            return await client.order("status"), len(came)

    result, came = asyncio.run(story())
    assert (result["state"], came) == ("done", 2)


def test_an_order_that_ends_the_station_is_answered_with_its_result_all_the_same(
    office: Office, door: Station
) -> None:
    async def story() -> list[Any]:
        async with order_client(office.admin, door.uri(), identity(door), "office", WORD) as client:
            applied = await client.order("set", set={"sip.user": "gate"})
            return [applied, await client.order("rollback", of=applied["number"])]

    applied, back = asyncio.run(story())
    assert applied["state"] == "applied"
    assert (back["op"], back["state"]) == ("rollback", "rolled-back")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"op": "get", "keys": ["commanders.office.password._text"]},
         '["commanders.office.password._text", null, "default"]'),
        ({"op": "get", "keys": ["__class__", "audio.__struct_fields__"]},
         '["audio.__struct_fields__", null, "default"]'),
        ({"op": "check", "set": {"audio" + ".a" * 2900: 1}}, "422 audio.a.a"),
        ({"op": "status", "iat": 10**400}, "422 iat: "),
    ],
    ids=["secret", "class", "deep", "huge"],
)  # fmt: skip
def test_an_order_that_is_out_to_do_harm_is_answered_like_any_other(
    office: Office, door: Station, fields: dict[str, Any], told: str
) -> None:
    async def story() -> str:
        async with order_client(office.admin, door.uri(), identity(door), "office", WORD) as client:
            try:
                return json.dumps(await client.order(**fields))
            except OrderRefused as refused:
                return str(refused)

    assert told in asyncio.run(story())
    assert office.orders(door, "status").returncode == 0


def test_each_fault_is_pointed_at_in_the_order_and_shown_as_it_was_typed(
    office: Office, door: Station
) -> None:
    typed = office.orders(door, "set", "relays.door.pulse=99", 'peers.hall={"uri":"x y"}')
    assert typed.returncode == 1
    shown = typed.stderr.removeprefix("doorstation: 422 ").splitlines()
    assert [line.partition(": ")[0] for line in shown] == ["peers.hall.uri", "relays.door.pulse"]
    script = Path(__file__).parents[2] / "deploy" / "examples" / "order.sh"
    sent = '"op":"set","set":{"relays.door.pulse":99,"peers":{"hall":{"uri":"x y"}}},"within":1'
    key = office.folder / "admin.key"
    words = [str(script), str(key), f"{door.address}:5060", identity(door), "office", WORD, sent]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    first, *rest = done.stdout.splitlines()
    assert first.startswith("SIP/2.0 422 Unprocessable Content /set/peers/hall/uri: ")
    assert [line.partition(": ")[0] for line in rest] == ["/set/relays.door.pulse", "/within"]


# -- through a PBX


@pytest.fixture
def pbx(town: Lab, tmp_path: Path) -> Iterator[Kamailio]:
    users = {"door": "door-secret", "office": ACCOUNT_WORD, "caretaker": WORD}
    with kamailio(town, tmp_path / "pbx", users) as running:
        yield running


@pytest.fixture
def guest(town: Lab, tmp_path: Path, office: Office, pbx: Kamailio) -> Iterator[Station]:
    """A door that is registered at the PBX."""
    settings = office.settings(tmp_path / "state") | account(pbx)
    with station(town, tmp_path / "door", settings) as running:
        running.wait_registered()
        yield running


def test_who_names_another_door_is_told_which_one_answered(
    office: Office, guest: Station, pbx: Kamailio
) -> None:
    other = "8e2b1c34-0000-4000-8000-b827eb010203"
    told = f"doorstation: 401 the door there says that it is {identity(guest)}, not {other}\n"
    assert office.orders(guest, "status", named=other).stderr == told
    by_pbx = {"to": f"sip:door@{pbx.address}", "account": f"sip:office@{pbx.address}"}
    assert office.orders(guest, "status", named=other, **by_pbx).stderr == told
    # No password was shown to it, so that none was refused.
    assert guest.events("order") == []


def test_order_to_the_doors_gruu_reaches_it(
    town: Lab, tmp_path: Path, office: Office, pbx: Kamailio
) -> None:
    settings = office.settings(tmp_path / "state") | account(pbx) | {"account.instance": True}
    with station(town, tmp_path / "guest", settings) as named:
        named.wait_registered()
        gruu = f"sip:door@{pbx.address};gr=urn:uuid:"
        way = f"sip:office@{pbx.address}"
        done = office.orders(named, "status", to=gruu + identity(named), account=way)
        assert (done.returncode, done.stderr) == (0, "")
        other = "8e2b1c34-0000-4000-8000-b827eb010203"
        assert office.orders(named, "status", to=gruu + other, account=way).returncode == 1


def test_through_the_pbx_its_challenge_and_the_doors_are_both_answered(
    office: Office, guest: Station, pbx: Kamailio
) -> None:
    uri = f"sip:office@{pbx.address}"
    to = f"sip:door@{pbx.address}"
    done = office.orders(guest, "set", "relays.door.pulse=1.5", to=to, account=uri)
    assert (done.returncode, done.stderr) == (0, "")
    assert "confirmed number=1" in done.stdout


def test_a_caretaker_types_lines_at_his_phone(
    town: Lab, tmp_path: Path, guest: Station, pbx: Kamailio
) -> None:
    to = f"sip:door@{pbx.domain}"
    with baresip(
        town, tmp_path / "phone", "caretaker", registrar=pbx, auto_answer=False, contacts=[to]
    ) as phone:
        for line, expected in (
            ("status", "registered; door idle"),
            ("pulse 2", "relays.door.pulse is 2, was 0.5"),
            ("undo", "relays.door.pulse is 0.5, was 2"),
            ("open", "not understood; status, undo, help, pulse VALUE"),
        ):
            phone.command("message", line)
            guest.wait_log(expected)  # what the phone shows, it logs nowhere


# -- by a program of another make, with prepared bodies


def signed(key: KeyFile, door: Station, **more: Any) -> str:
    order = {
        "sub": identity(door),
        "ctr": int(time.time()),
        "iat": int(time.time()),
        "op": "status",
    }
    return key.key.sign(json.dumps(order | more).encode())


def sends(town: Lab, folder: Path, door: Station, body: str, status: int, **more: Any) -> None:
    """SIPp sends a body, answers the door's challenge, and is answered with a status."""
    keys = {
        "kind": ORDERS, "text": body, "status": str(status), "user": "sipp", "word": WORD,
        **more.pop("keys", {}),
    }  # fmt: skip
    target = f"{door.address}:5060"
    with sipp(town, folder, "uac_order", target=target, keys=keys, **more) as running:
        running.finish()


def test_what_is_refused_by_udp_is_refused_to_sipp_and_the_door_stays_as_it_was(
    town: Lab, tmp_path: Path, office: Office, door: Station
) -> None:
    now = int(time.time())
    change = {"op": "set", "set": {"relays.door.pulse": 2}}
    stranger = KeyFile.new(office.folder / "stranger.key")
    cases: dict[str, tuple[str, int, dict[str, Any]]] = {
        "good": (signed(office.admin, door), 202, {}),
        "replayed": (signed(office.admin, door), 409, {}),
        "stale": (signed(office.admin, door, ctr=now + 50, iat=now - 400, **change), 403, {}),
        "unsigned": (json.dumps(change), 403, {}),
        "wrong key": (signed(stranger, door, **change), 403, {}),
        "wrong door": (signed(office.admin, door, ctr=now + 51, sub="another", **change), 403, {}),
        "unlisted user": (signed(office.admin, door, **change), 403, {"user": "somebody"}),
        "wrong word": (signed(office.admin, door, **change), 403, {"word": "guessed-and-wrong"}),
    }
    for name, (body, status, keys) in cases.items():
        sends(town, tmp_path / name, door, body, status, keys=keys)
    assert "relays.door.pulse = 0.5" in office.orders(door, "get", "relays.door.pulse").stdout
    rules = [event["rule"] for event in door.events("order")]
    assert [rule.split(" ")[0] for rule in rules[:8]] == [
        "role", "the", "signed", "no", "no", "for", "unknown", "wrong",
    ]  # fmt: skip


def test_an_order_that_is_too_large_for_udp_is_told_to_come_by_tcp_and_does(
    town: Lab, tmp_path: Path, office: Office, door: Station
) -> None:
    keys = [f"relays.door.{'x' * 40}.{number}" for number in range(25)]
    large = signed(office.admin, door, op="get", keys=keys)
    assert len(large) > 1300
    sends(town, tmp_path / "udp", door, large, 413)
    assert "come by TCP" in door.wait_event("order", status=413)["rule"]
    sends(town, tmp_path / "tcp", door, large, 202, transport="t1")


def test_a_storm_of_orders_is_refused_and_an_honest_one_from_elsewhere_is_done(
    town: Lab, tmp_path: Path, office: Office, door: Station
) -> None:
    target = f"{door.address}:5060"
    keys = {"text": "x.y.z"}
    with sipp(
        town, tmp_path / "storm", "uac_order_storm", target=target, keys=keys, calls=600, rate=200
    ) as storm:
        time.sleep(1)
        assert office.orders(door, "status").returncode == 0
        storm.finish()
    assert "503" in storm.messages()
    assert "Retry-After:" in storm.messages()
    assert door.status()["counters"].get("transactions_full", 0) == 0


def test_the_example_sender_of_bash_and_openssl_gives_an_order_and_shows_its_result(
    office: Office, door: Station
) -> None:
    script = Path(__file__).parents[2] / "deploy" / "examples" / "order.sh"
    done = subprocess.run(
        [
            script, office.folder / "admin.key", f"{door.address}:5060", identity(door), "office",
            WORD, '"op":"get","keys":["relays.door.pulse"]',
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    answer, result = done.stdout.splitlines()
    assert answer.startswith("SIP/2.0 202 ")
    assert json.loads(result)["rows"] == [["relays.door.pulse", 0.5, "local"]]


def test_a_power_cut_while_a_change_is_tried_takes_it_back_and_tells_who_ordered_it(
    town: Lab, tmp_path: Path, office: Office
) -> None:
    settings = office.settings(tmp_path / "state") | {"provisioning.confirm_within": 60}

    async def story() -> tuple[Any, Any]:
        with station(town, tmp_path / "door", settings) as door:
            known, uri = identity(door), door.uri()
            async with order_client(office.admin, uri, known, "office", WORD) as client:
                counter = await client.send("set", set={"relays.door.pulse": 1.5})
                applied = await client.result(counter)
                door.cut_power()
                with station(town, tmp_path / "door", settings):
                    return applied, await client.result(counter)

    applied, back = asyncio.run(story())
    assert (applied["state"], back["state"], back["number"]) == ("applied", "rolled-back", 1)
    assert back["why"] == "the door started again before it was confirmed"


def test_a_registrar_that_is_none_is_taken_back_and_the_office_is_told_through_the_old_one(
    office: Office, guest: Station, pbx: Kamailio
) -> None:
    done = office.orders(
        guest, "--within", "5", "set", "account.registrar=127.0.0.1:9",
        to=f"sip:door@{pbx.address}", account=f"sip:office@{pbx.address}",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith('why="nobody confirmed it in time"\n'), done.stdout
    assert "rolled-back" in done.stdout
    guest.wait_registered()
