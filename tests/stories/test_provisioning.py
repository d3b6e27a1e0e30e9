"""Signed files from the network: a door is claimed and kept up to date; nobody else gets in.

Each attack is tried on a real door by a real server, and fails.
"""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from doorstation.net import dhcp
from doorstation.net.order_client import KeyFile, order_client
from doorstation.provision.files import MAX_FILE
from doorstation.provision.identity import Identity
from doorstation.provision.jws import PrivateKey

from tests.support.avahi import avahi
from tests.support.dhcp import dhcp_server
from tests.support.files import WebServer, signed, web_server
from tests.support.lab import Lab, Process, lab
from tests.support.nginx import nginx
from tests.support.peers import Kamailio, kamailio
from tests.support.station import Station, doorstation, station, toml
from tests.support.tls import Authority

OWNER, ROGUE = PrivateKey.new(), PrivateKey.new()
QUIET = {"audio": {"country": "fr"}}
"""Settings that show that a file was applied."""
USEFUL_6 = "dhcp-option-force=option6:22,[fd00::6]"
USEFUL = ("dhcp-option-force=42,10.0.0.6", USEFUL_6)
"""Of no use for files; but nobody waits for a better answer."""


@pytest.fixture
def network() -> Iterator[Lab]:
    with lab() as made:
        yield made


@pytest.fixture
def web(network: Lab, tmp_path: Path) -> Iterator[WebServer]:
    with web_server(network, tmp_path / "web", network.address()) as server:
        yield server


def door_settings(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "peers.indoor.uri": "sip:198.18.0.99",
        "provisioning.state": str(tmp_path / "state"),
        **{key.replace("__", "."): value for key, value in more.items()},
    }


CLAIMED: Mapping[str, Any] = {
    "keys__owner": {"public": OWNER.public.text, "role": "owner"},
}


def wait_line(door: Station, text: str, seconds: float = 20.0) -> None:
    door.process.ready(lambda: text in door.process.log_text(), f"says {text!r}", seconds)


def refused(network: Lab, tmp_path: Path, url: str, why: str, **more: Any) -> str:
    """A claimed door that was given a place passes it over for this reason; its log."""
    settings = door_settings(tmp_path, **{**CLAIMED, "provisioning__url": url, **more})
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, why)
        assert not door.events("configuration")
        return door.process.log_text()


# -- as it should be


def test_door_without_an_owner_is_claimed_by_the_first_key_and_says_so(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    url = web.put("door.json", signed(OWNER, settings=QUIET))
    settings = door_settings(tmp_path, provisioning__first_use=True)
    with (
        dhcp_server(network, tmp_path, f"dhcp-option-force=160,{url}"),
        station(network, tmp_path / "door", settings) as door,
    ):
        wait_line(door, f"used: {url} (160)")
        door.wait_event("configuration", state="confirmed")
        text = door.process.log_text()
        assert f"key {OWNER.public.kid} is this door's owner now, by first use" in text
        assert door.wait_event("owner", rule="first use", url=url)["kid"] == OWNER.public.kid
        assert "asked: dhcp" in text
        listed = doorstation("keys", "list", "--socket", str(door.socket)).stdout
        assert f"-  {OWNER.public.kid}  owner of files  by first use" in listed
        seen = told_of_claim(door)
    with station(network, tmp_path / "door", settings) as door:  # for the rest of its half hour
        assert told_of_claim(door) == seen
    # Root, beside the service, which is another user.
    state = Path(settings["provisioning.state"])
    os.chown(state, 65534, -1)
    looked = doorstation("doctor", "network", "--config", str(door.file)).stdout
    os.chown(state, os.getuid(), -1)
    assert looked.startswith(f"state: looked at: {state}\n")
    assert f"asked: {url}" in looked or f"used: {url} (confirmed)" in looked


def told_of_claim(door: Station) -> str:
    """What the status tells of a claim by first use, and the light shows it."""
    door.wait_status(lambda now: now["leds"]["status"]["pattern"] == "claimed", "its light")
    said: str = door.status()["first_use"]
    assert said.startswith("claimed by first use at 20")
    assert said.endswith(f"Z by key {OWNER.public.kid}")
    assert f"owner  {said}\n" in door.ctl("status").stdout
    return said.partition(" at ")[2][:16]  # the reckoned second may differ by one


def test_light_tells_of_a_claim_until_all_is_forgotten(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    url = web.put("door.json", signed(OWNER, settings=QUIET))
    settings = door_settings(tmp_path, provisioning__first_use=True, provisioning__url=url)
    with station(network, tmp_path / "door", settings) as door:
        door.wait_event("configuration", state="confirmed")
        told_of_claim(door)
        (web.folder / "door.json").unlink()
        door.command("config reset")
        door.wait_status(lambda now: now["leds"]["status"]["pattern"] == "idle", "its light")
        assert door.status()["first_use"] == ""


def test_key_whose_fingerprint_the_door_was_given_becomes_its_owners(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    url = web.put("door.json", signed(OWNER, settings=QUIET))
    settings = door_settings(
        tmp_path, provisioning__fingerprint=OWNER.public.kid, provisioning__url=url
    )
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, f"used: {url} (typed)")
        door.wait_event("configuration", state="confirmed")
        assert "owner now, by fingerprint" in door.process.log_text()
        assert door.status()["first_use"] == ""
        assert door.status()["leds"]["status"]["pattern"] == "idle"


def test_file_may_name_a_door_without_commanders_by_its_uuid(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    settings = door_settings(tmp_path, **CLAIMED)
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, "no configuration from the network")
        uuid = door.command("keys")["door"]["door"]
    url = web.put("door.jws", signed(OWNER, sub=uuid, settings=QUIET))
    with station(network, tmp_path / "door", settings | {"provisioning.url": url}) as door:
        door.wait_event("configuration", state="confirmed")
        assert door.command("keys")["door"]["door"] == uuid


def test_key_change_the_old_owner_names_the_new_one_who_revokes_the_old(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    new, old = PrivateKey.new(), {"public": OWNER.public.text, "role": "owner"}
    added = {"public": new.public.text, "role": "owner"}
    settings = door_settings(
        tmp_path, provisioning__fingerprint=OWNER.public.kid,
        provisioning__url=f"{web.url}/door.jws",
    )  # fmt: skip

    def serves(key: PrivateKey, serial: int, keys: dict[str, Any]) -> None:
        web.put("door.jws", signed(key, serial, settings=QUIET | {"keys": keys}))

    def taken(serial: int) -> None:
        with station(network, tmp_path / "door", settings) as door:
            door.wait_event("configuration", state="confirmed", how=f"file {serial}")

    def passed_over(why: str) -> None:
        with station(network, tmp_path / "door", settings) as door:
            wait_line(door, why)

    serves(OWNER, 1, {})
    taken(1)
    serves(new, 2, {"new": added})
    passed_over("signed by no owner of this door")
    serves(OWNER, 3, {"new": added})
    taken(3)
    serves(OWNER, 4, {"new": added})
    taken(4)  # both are valid
    serves(new, 5, {"old": old, "new": added})
    taken(5)
    serves(new, 6, {})
    passed_over("it names no owner's key, and the door would have none")
    serves(new, 7, {"new": added})
    taken(7)
    serves(OWNER, 8, {"old": old})
    passed_over("signed by no owner of this door")


NOWHERE = {"account": {"user": "door", "password": "geheim", "domain": "198.18.0.98"}}
"""A registrar that does not answer: a door with it goes back."""


def test_owners_file_that_went_back_is_not_tried_again_and_lets_no_older_one_in(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    first = signed(OWNER, 2, settings=QUIET)
    url = web.put("door.jws", first)
    settings = door_settings(
        tmp_path, **CLAIMED, provisioning__url=url, provisioning__confirm_within=5
    )
    with station(network, tmp_path / "door", settings) as door:
        door.wait_event("configuration", state="confirmed")
    web.put("door.jws", signed(OWNER, 4, settings=NOWHERE))
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, "passed over: file 4: the door was not well again in time")

    def says(content: bytes, line: str) -> None:
        web.put("door.jws", content)
        with station(network, tmp_path / "door", settings) as door:
            wait_line(door, line)
            assert door.command("config show")[0]["value"] == "fr"

    tried = (web.folder / "door.jws").read_bytes()
    says(tried, "this file was tried already, and taken back")
    says(signed(OWNER, 3, settings={}), "serial 3: 4 was taken already")
    says(first, f"used: {url} (confirmed)")
    web.put("door.jws", signed(OWNER, 5, settings={}))
    with station(network, tmp_path / "door", settings) as door:
        door.wait_event("configuration", state="confirmed", how="file 5")


def test_key_whose_first_file_went_back_owns_nothing_and_stands_in_nobodys_way(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    url = web.put("door.jws", signed(ROGUE, 10**9, settings=NOWHERE))
    settings = door_settings(
        tmp_path, provisioning__first_use=True, provisioning__url=url,
        provisioning__confirm_within=5,
    )  # fmt: skip
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, "passed over: file 1000000000")
        assert "is this door's owner" not in door.process.log_text()
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, "this file was tried already, and taken back")
    web.put("door.jws", signed(OWNER, 1, settings=QUIET))
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, f"key {OWNER.public.kid} is this door's owner now, by first use")
        door.wait_event("configuration", state="confirmed", how="file 1")


def test_files_of_a_list_are_laid_over_each_other(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    parts = {
        "common.json": json.dumps({"audio": {"country": "de"}, "door": {"max_call": 60}}).encode(),
        "model.json": json.dumps(QUIET).encode(),
    }
    for name, content in parts.items():
        web.put(name, content)
    files = [{"name": n, "sha256": hashlib.sha256(c).hexdigest()} for n, c in parts.items()]
    url = web.put("door.jws", signed(OWNER, files=files))
    settings = door_settings(tmp_path, **CLAIMED, provisioning__url=url)
    with station(network, tmp_path / "door", settings) as door:
        found = door.wait_event("configuration", state="confirmed")
        assert found["keys"] == "audio.country, door.max_call"


def test_file_that_is_the_same_costs_one_answer_without_a_body(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    url = web.put("door.jws", signed(OWNER, settings=QUIET))
    settings = door_settings(tmp_path, **CLAIMED, provisioning__url=url)
    with station(network, tmp_path / "door", settings) as door:
        door.wait_event("configuration", state="confirmed")
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, f"used: {url} (confirmed)")
        assert not door.events("configuration", state="staged")[1:]
    first, second = web.requests()
    assert first == "door.jws"
    assert second.startswith('door.jws "')


def test_door_shows_its_certificate_to_a_server_that_asks(network: Lab, tmp_path: Path) -> None:
    authority, address = Authority(tmp_path), network.address()
    mine = authority.issue("door.test")
    with web_server(
        network, tmp_path / "web", address, authority.issue(address), clients=authority.ca
    ) as web:
        url = web.put("door.jws", signed(OWNER, settings=QUIET))
        settings = door_settings(
            tmp_path, **CLAIMED, provisioning__url=url, provisioning__ca_file=authority.ca,
            tls__certificate=mine.certificate, tls__key=mine.key,
        )  # fmt: skip
        with station(network, tmp_path / "door", settings) as door:
            door.wait_event("configuration", state="confirmed")


def test_door_shows_its_own_certificate_where_no_other_is_configured(
    network: Lab, tmp_path: Path
) -> None:
    authority, address = Authority(tmp_path), network.address()
    settings = door_settings(tmp_path, **CLAIMED)
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, "no configuration from the network")
        label = door.command("keys")["door"]
    own = (tmp_path / "state" / "identity.pem").read_text()
    assert f"urn:uuid:{label['door']}\n" in own
    assert len(label["key"]) == 64
    assert len(label["claim"].replace(" ", "")) == 9
    shown = tmp_path / "shown.pem"
    shown.write_text(own[own.index("-----BEGIN CERTIFICATE") :])
    with web_server(
        network, tmp_path / "web", address, authority.issue(address), clients=str(shown)
    ) as web:
        url = web.put("door.jws", signed(OWNER, settings=QUIET))
        more = {"provisioning.url": url, "provisioning.ca_file": authority.ca}
        with station(network, tmp_path / "door", settings | more) as door:
            door.wait_event("configuration", state="confirmed")
            assert door.command("keys")["door"] == label


def test_nginx_serves_a_list_of_files_over_tls_and_a_second_look_costs_nothing(
    network: Lab, tmp_path: Path
) -> None:
    authority, address = Authority(tmp_path), network.address()
    mine, part = authority.issue("door.test"), json.dumps(QUIET).encode()
    listed = [{"name": "common.json", "sha256": hashlib.sha256(part).hexdigest()}]
    with nginx(network, tmp_path / "web", address, authority.issue(address), authority.ca) as web:
        web.put("common.json", part)
        url = web.put("door.jws", signed(OWNER, files=listed))
        settings = door_settings(
            tmp_path, **CLAIMED, provisioning__url=url, provisioning__ca_file=authority.ca,
            tls__certificate=mine.certificate, tls__key=mine.key,
        )  # fmt: skip
        with station(network, tmp_path / "door", settings) as door:
            assert door.wait_event("configuration", state="confirmed")["keys"] == "audio.country"
        with station(network, tmp_path / "door", settings) as door:
            wait_line(door, f"used: {url} (confirmed)")
        asked = (tmp_path / "web" / "requests.log").read_text().split("\n")
    assert asked[:2] == ["/door.jws - 200 SUCCESS", "/common.json - 200 SUCCESS"]
    assert asked[2].startswith("/door.jws \\x22")  # as its log writes the quote of an ETag
    assert asked[2].endswith(" 304 SUCCESS")


@pytest.mark.parametrize("more", [(), ("tftp-no-blocksize",)], ids=["options", "plain"])
@pytest.mark.parametrize("option", [66, 150])
def test_tftp_server_that_dhcp_names_has_the_doors_own_file(
    network: Lab, tmp_path: Path, option: int, more: tuple[str, ...]
) -> None:
    served = tmp_path / "tftp"
    served.mkdir()
    part = json.dumps(QUIET | {"words": {}}).encode() + b" " * 3000
    (served / "common.json").write_bytes(part)
    named = [{"name": "common.json", "sha256": hashlib.sha256(part).hexdigest()}]
    mac = next(iter(dhcp.interfaces())).mac.hex()
    (served / f"{mac}.jws").write_bytes(signed(OWNER, files=named))
    settings = door_settings(tmp_path, provisioning__fingerprint=OWNER.public.kid)
    address = network.address()
    options = (f"dhcp-option-force={option},{address}", "enable-tftp", f"tftp-root={served}")
    with (
        dhcp_server(network, tmp_path, *options, *more),
        station(network, tmp_path / "door", settings) as door,
    ):
        wait_line(door, f"used: tftp://{address}/{mac}.jws ({option})")
        door.wait_event("configuration", state="confirmed")


def test_tftp_server_that_is_named_as_a_host_of_the_link_is_found_there(
    network: Lab, tmp_path: Path
) -> None:
    mac = next(iter(dhcp.interfaces())).mac.hex()
    (tmp_path / f"{mac}.jws").write_bytes(signed(OWNER, settings=QUIET))
    settings = door_settings(tmp_path, provisioning__fingerprint=OWNER.public.kid)
    options = ("dhcp-option-force=66,office.local", "enable-tftp", f"tftp-root={tmp_path}")
    with (
        dhcp_server(network, tmp_path, *options),
        avahi(network, tmp_path / "avahi", "office", "_tftp._udp", 69, "path=/"),
        station(network, tmp_path / "door", settings) as door,
    ):
        wait_line(door, f"used: tftp://office.local/{mac}.jws (66)")
        door.wait_event("configuration", state="confirmed")


def test_file_by_tftp_that_nobody_signed_is_refused(network: Lab, tmp_path: Path) -> None:
    (tmp_path / "door.jws").write_bytes(signed(ROGUE, settings=QUIET))
    with dhcp_server(network, tmp_path, "enable-tftp", f"tftp-root={tmp_path}"):
        url = f"tftp://{network.address()}/door.jws"
        refused(network, tmp_path, url, f"passed over: {url} (typed): signed by no owner")


def test_tftp_server_without_the_file_is_passed_over(network: Lab, tmp_path: Path) -> None:
    with dhcp_server(network, tmp_path, "enable-tftp", f"tftp-root={tmp_path}"):
        refused(network, tmp_path, f"tftp://{network.address()}/none", "error 1: file ")


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A card that trusts the owner's key."""
    folder = tmp_path / "card"
    folder.mkdir()
    (folder / "doorstation.json").write_text(json.dumps({"fingerprint": OWNER.public.kid}))
    return folder


def test_signed_file_on_a_card_claims_a_door_which_then_reads_no_card_any_more(
    network: Lab, tmp_path: Path, card: Path
) -> None:
    part = json.dumps(QUIET).encode()
    (card / "common.json").write_bytes(part)
    named = [{"name": "common.json", "sha256": hashlib.sha256(part).hexdigest()}]
    (card / "doorstation.jws").write_bytes(signed(OWNER, files=named))
    settings = door_settings(tmp_path, provisioning__cards=[str(card)])
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, f"used: file://{card}/doorstation.jws (card)")
        door.wait_event("configuration", state="confirmed")
        assert f"key {OWNER.public.kid} is this door's owner now" in door.process.log_text()
    (card / "doorstation.json").write_text(json.dumps({"fingerprint": ROGUE.public.kid}))
    (card / "doorstation.jws").write_bytes(signed(ROGUE, 2))
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, "no configuration from the network")
        assert "doorstation.jws" not in door.process.log_text()


def test_card_says_where_the_file_lies_and_whose_it_is(
    network: Lab, tmp_path: Path, web: WebServer, card: Path
) -> None:
    url = web.put("door.jws", signed(OWNER, settings=QUIET))
    note = {"fingerprint": OWNER.public.kid, "url": url}
    (card / "doorstation.json").write_text(json.dumps(note))
    settings = door_settings(tmp_path, provisioning__cards=[str(tmp_path / "none"), str(card)])
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, f"used: {url} (card)")
        door.wait_event("configuration", state="confirmed")


def test_file_that_the_network_names_is_good_by_the_key_that_the_card_names(
    network: Lab, tmp_path: Path, web: WebServer, card: Path
) -> None:
    url = web.put("door.jws", signed(OWNER, settings=QUIET))
    settings = door_settings(tmp_path, provisioning__cards=[str(card)])
    with (
        dhcp_server(network, tmp_path, f"dhcp-option-force=160,{url}"),
        station(network, tmp_path / "door", settings) as door,
    ):
        wait_line(door, f"used: {url} (160)")


@pytest.mark.parametrize(
    ("note", "content", "why"),
    [
        ({}, signed(OWNER), "takes none by itself"),
        ({"fingerprint": OWNER.public.kid}, signed(ROGUE), "not the key whose fingerprint"),
        ({"url": "file:///etc/passwd"}, b"", "file: https, or"),
        ([], signed(OWNER), "doorstation.json: "),
    ],
    ids=["no-fingerprint", "another-key", "not-from-here", "no-note"],
)
def test_file_on_a_card_counts_by_its_signature_alone(
    network: Lab, tmp_path: Path, card: Path, note: object, content: bytes, why: str
) -> None:
    (card / "doorstation.json").write_text(json.dumps(note))
    if content:
        (card / "doorstation.jws").write_bytes(content)
    settings = door_settings(tmp_path, provisioning__cards=[str(card)])
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, why)
        assert not door.events("configuration")


def test_network_names_no_file_of_the_door_itself(network: Lab, tmp_path: Path, card: Path) -> None:
    url = f"file://{card}/door.jws"
    (card / "door.jws").write_bytes(signed(OWNER, settings=QUIET))
    settings = door_settings(tmp_path, provisioning__cards=[str(card)])
    with (
        dhcp_server(network, tmp_path, f"dhcp-option-force=160,{url}"),
        station(network, tmp_path / "door", settings) as door,
    ):
        wait_line(door, f"passed over: {url} (160): file: https, or")


def test_doctor_says_what_the_network_offers_and_what_of_it_counts(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    url = web.put("door.jws", signed(OWNER, settings=QUIET))
    config = tmp_path / "door.toml"
    config.write_text(
        toml({"board.kind": "fake", "peers.indoor.uri": "sip:198.18.0.99",
              "provisioning.fingerprint": OWNER.public.kid})
    )  # fmt: skip
    options = (f"dhcp-option-force=160,{url}", "dhcp-option-force=120,10.0.0.5", USEFUL_6)
    with dhcp_server(network, tmp_path, *options) as server:
        said = doorstation("doctor", "network", "--config", str(config))
    assert "SIP servers: used: 10.0.0.5" in said.stdout
    assert f"configuration: used: {url} (160)" in said.stdout
    assert said.stdout.startswith("state: not looked at: nothing is kept here")
    assert said.returncode == 0
    assert server.log_text().count("DHCPINFORM(") == 1, "everything once"
    owner = {"public": OWNER.public.text, "role": "owner"}
    config.write_text(toml({"board.kind": "fake", "keys.owner": owner}))
    none = doorstation("doctor", "network", "--json", "--config", str(config))
    assert none.returncode == 1
    assert "passed over: the network: the door has an owner" in none.stdout
    assert json.loads(none.stdout.splitlines()[-1]) == {
        "step": "configuration", "line": "no configuration from the network"
    }  # fmt: skip


# -- by order

WORD = "a-word-of-the-office"


@pytest.fixture
def admin(tmp_path: Path) -> KeyFile:
    (tmp_path / "word").write_text(f"{WORD}\n")
    return KeyFile.new(tmp_path / "admin.key")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secure_web(network: Lab, tmp_path: Path, authority: Authority) -> Iterator[WebServer]:
    address = network.address()
    with web_server(network, tmp_path / "web", address, authority.issue(address)) as server:
        yield server


@pytest.fixture
def claimed(
    network: Lab, tmp_path: Path, admin: KeyFile, authority: Authority
) -> Iterator[Station]:
    """A door with an owner, whose files lie on a server with TLS, and an office that orders it."""
    settings = door_settings(
        tmp_path, **CLAIMED, provisioning__ca_file=authority.ca,
        keys__admin={"public": admin.key.public.text, "role": "admin"},
        commanders__office__password=WORD,
    )  # fmt: skip
    with station(network, tmp_path / "door", settings) as door:
        yield door


def fetch(door: Station, tmp_path: Path, url: str, content: bytes) -> Any:
    """`doorstation command … fetch URL SHA256`, to its end."""
    return doorstation(
        "command", "--key", str(tmp_path / "admin.key"), "--to", door.uri(),
        "--door", door.command("keys")["door"]["door"], "--user", "office",
        "--password-file", str(tmp_path / "word"),
        "fetch", url, hashlib.sha256(content).hexdigest(),
    )  # fmt: skip


def test_file_that_an_order_names_is_applied_and_kept_by_the_commanders_word(
    claimed: Station, tmp_path: Path, secure_web: WebServer
) -> None:
    content = signed(OWNER, settings=QUIET)
    done = fetch(claimed, tmp_path, secure_web.put("door.jws", content), content)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == 'audio.country: not set -> "fr"\nconfirmed number=1\n'
    (staged,) = claimed.events("configuration", state="staged")
    assert staged["by"].startswith("office, key ")
    again = fetch(claimed, tmp_path, f"{secure_web.url}/door.jws", content)
    assert again.stdout == 'failed why="serial 1: 1 was taken already"\n'


def test_file_by_order_that_nobody_confirms_goes_back_and_may_be_ordered_again(
    claimed: Station, tmp_path: Path, admin: KeyFile, secure_web: WebServer
) -> None:
    content = signed(OWNER, settings=QUIET)
    url = secure_web.put("door.jws", content)
    uuid = claimed.command("keys")["door"]["door"]

    async def story() -> list[Any]:
        file = {"url": url, "sha256": hashlib.sha256(content).hexdigest()}
        async with order_client(admin, claimed.uri(), uuid, "office", WORD) as client:
            counter = await client.send("fetch", **file, within=5)
            return [await client.result(counter), await client.result(counter)]

    applied, back = asyncio.run(story())
    assert (applied["op"], applied["state"]) == ("fetch", "applied")
    assert (back["op"], back["state"]) == ("fetch", "rolled-back")
    assert back["why"] == "nobody confirmed it in time"
    assert fetch(claimed, tmp_path, url, content).returncode == 0


@pytest.mark.parametrize(
    ("content", "ordered", "why"),
    [
        (signed(ROGUE, settings=QUIET), None, "signed by no owner of this door"),
        (signed(OWNER, sub="b827eb000000", settings=QUIET), None, "for another door"),
        (signed(OWNER, settings=QUIET), b"another", "not the file that was ordered"),
        (signed(OWNER, settings={"audio": {"country": 7}}), None, "audio.country"),
        (b"", None, "status 404"),
    ],
    ids=["another-key", "another-door", "another-file", "bad-setting", "no-file"],
)
def test_file_by_order_that_does_not_count_is_refused_and_the_office_told_why(
    claimed: Station,
    tmp_path: Path,
    secure_web: WebServer,
    content: bytes,
    ordered: bytes | None,
    why: str,
) -> None:
    url = secure_web.put("door.jws", content) if content else f"{secure_web.url}/none.jws"
    done = fetch(claimed, tmp_path, url, ordered or content)
    assert done.returncode == 1
    assert done.stdout.startswith("failed why=")
    assert why in done.stdout
    assert not claimed.events("configuration")


def test_order_to_fetch_that_the_stations_end_cuts_short_is_told_so(
    claimed: Station, tmp_path: Path, admin: KeyFile, secure_web: WebServer
) -> None:
    secure_web.put("door.jws.slow", b"")
    uuid = claimed.command("keys")["door"]["door"]

    async def story() -> Any:
        file = {"url": f"{secure_web.url}/door.jws", "sha256": "0" * 64}
        async with order_client(admin, claimed.uri(), uuid, "office", WORD) as client:
            counter = await client.send("fetch", **file)
            await asyncio.to_thread(
                claimed.command, "config set", set={"sip.user": "gate"}, unset=[]
            )
            return await client.result(counter)

    result = asyncio.run(story())
    assert result["state"] == "failed"
    assert "another was built" in result["why"]


def test_order_to_fetch_what_is_no_address_is_refused(claimed: Station, tmp_path: Path) -> None:
    assert "422 url: file" in fetch(claimed, tmp_path, "file:///etc/passwd", b"").stderr


# -- attacks


@pytest.mark.parametrize("named", [True, False], ids=["by-the-file", "by-dhcp"])
def test_rogue_that_replays_the_owners_newer_file_keeps_no_later_one_from_the_door(
    network: Lab, tmp_path: Path, web: WebServer, named: bool
) -> None:
    with web_server(network, tmp_path / "rogue", network.address()) as rogue:
        place = {"provisioning": {"url": f"{web.url}/door.jws"}} if named else {}
        url = rogue.put("door.jws", signed(OWNER, settings=QUIET | place))
        settings = door_settings(tmp_path, **CLAIMED, provisioning__discovery="always")
        with (
            dhcp_server(network, tmp_path, USEFUL_6, f"dhcp-option-force=160,{url}"),
            station(network, tmp_path / "door", settings) as door,
        ):
            wait_line(door, f"used: {url} (160)")
            door.wait_event("configuration", state="confirmed", how="file 1")
        later = web.put("door.jws", signed(OWNER, 2, settings={"audio": {"country": "at"}}))
        (tmp_path / "later").mkdir()
        options = USEFUL if named else (USEFUL_6, f"dhcp-option-force=160,{later}")
        with (
            dhcp_server(network, tmp_path / "later", *options),
            station(network, tmp_path / "door", settings) as door,
        ):
            wait_line(door, f"used: {later} ({'typed' if named else '160'})")
            door.wait_event("configuration", state="confirmed", how="file 2")


def test_claimed_door_ignores_everything_that_is_discovered(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    url = web.put("door.jws", signed(ROGUE, settings=QUIET))
    settings = door_settings(tmp_path, **CLAIMED, provisioning__first_use=True)
    with (
        dhcp_server(network, tmp_path, f"dhcp-option-force=160,{url}"),
        station(network, tmp_path / "door", settings) as door,
    ):
        wait_line(door, "passed over: the network: the door has an owner")
        wait_line(door, "no configuration from the network")
    assert web.requests() == []


def test_rogue_file_only_wastes_a_fetch_where_nobody_is_taken_by_first_use(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    url = web.put("door.jws", signed(ROGUE, settings=QUIET))
    with (
        dhcp_server(network, tmp_path, f"dhcp-option-force=160,{url}"),
        station(network, tmp_path / "door", door_settings(tmp_path)) as door,
    ):
        wait_line(door, "this door has no owner yet, and takes none by itself")
        assert not door.events("configuration")
    assert web.requests() == ["door.jws"]


@pytest.mark.parametrize(
    "settings",
    [
        {"account": {"user": "x", "password": "y", "domain": "evil.test"}, "keys": {}},
        {"relays": {"door": {"pin": 5}}},
        {"commanders": {"mallory": {"password": "long enough for it"}}},
        {"provisioning": {"discovery": "always"}},
    ],
)
def test_first_use_sets_no_pins_users_keys_or_ways_in(
    network: Lab, tmp_path: Path, web: WebServer, settings: dict[str, Any]
) -> None:
    settings.pop("keys", None)
    if "account" in settings:
        settings = {"tls": {"ca_file": "/tmp/rogue.pem"}}
    url = web.put("door.jws", signed(ROGUE, settings=settings))
    first_use = door_settings(tmp_path, provisioning__first_use=True, provisioning__url=url)
    with station(network, tmp_path / "door", first_use) as door:
        wait_line(door, "not by a key that nobody has confirmed")
        assert not door.events("configuration")


def test_redirection_from_https_to_http_is_not_followed(network: Lab, tmp_path: Path) -> None:
    authority, address = Authority(tmp_path), network.address()
    with web_server(network, tmp_path / "web", address, authority.issue(address)) as web:
        web.put("door.jws.redirect", f"http://{address}/door.jws".encode())
        refused(
            network, tmp_path, f"{web.url}/door.jws",
            "redirected from https to what nobody protects",
            provisioning__ca_file=authority.ca,
        )  # fmt: skip


def test_circle_of_redirections_ends(network: Lab, tmp_path: Path, web: WebServer) -> None:
    web.put("door.jws.redirect", b"/door.jws")
    refused(network, tmp_path, f"{web.url}/door.jws", "more than 3 redirections")
    assert len(web.requests()) == 4


def test_endless_file_is_not_read_to_its_end(network: Lab, tmp_path: Path, web: WebServer) -> None:
    url = web.put("door.jws", os.urandom(4 * MAX_FILE))
    refused(network, tmp_path, url, f"more than {MAX_FILE} bytes")


def test_server_that_never_answers_is_left(network: Lab, tmp_path: Path, web: WebServer) -> None:
    web.put("door.jws.slow", b"")
    refused(network, tmp_path, f"{web.url}/door.jws", "no file within 5 s")


def test_certificate_of_another_name_is_refused(network: Lab, tmp_path: Path) -> None:
    authority, address = Authority(tmp_path), network.address()
    with web_server(network, tmp_path / "web", address, authority.issue("other.test")) as web:
        url = web.put("door.jws", signed(OWNER, settings=QUIET))
        refused(
            network, tmp_path, url, "certificate verify failed", provisioning__ca_file=authority.ca
        )
    assert web.requests() == []


def test_certificate_of_an_unknown_authority_is_refused(network: Lab, tmp_path: Path) -> None:
    authority, address = Authority(tmp_path), network.address()
    with web_server(network, tmp_path / "web", address, authority.issue(address)) as web:
        url = web.put("door.jws", signed(OWNER, settings=QUIET))
        refused(network, tmp_path, url, "certificate verify failed")


def test_file_for_a_newer_version_is_used_as_far_as_it_is_known_unless_that_is_required(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    newer = {"audio": {"country": "fr", "sc\nent": 1}}
    url = web.put("door.jws", signed(OWNER, 1, settings=newer))
    settings = door_settings(tmp_path, **CLAIMED, provisioning__url=url)
    with station(network, tmp_path / "door", settings) as door:
        assert door.wait_event("configuration", state="confirmed")["keys"] == "audio.country"
        assert r"unknown to this version: audio.sc\nent" in door.process.log_text()
    web.put("door.jws", signed(OWNER, 2, settings=newer, required=["audio"]))
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, r"audio.sc\nent: required, and unknown to this version")


def test_old_file_with_a_good_signature_is_refused(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    url = web.put("door.jws", signed(OWNER, 7, settings=QUIET))
    settings = door_settings(tmp_path, **CLAIMED, provisioning__url=url)
    with station(network, tmp_path / "door", settings) as door:
        door.wait_event("configuration", state="confirmed")
    web.put("door.jws", signed(OWNER, 6, settings={"audio": {"country": "de"}}))
    with station(network, tmp_path / "door", settings) as door:
        wait_line(door, "serial 6: 7 was taken already")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (signed(OWNER, sub="b827eb000000", settings=QUIET), "for another door"),
        (signed(ROGUE, settings=QUIET), "signed by no owner of this door"),
        (json.dumps(QUIET).encode(), "passed over: http://"),
        (signed(OWNER, settings=QUIET)[:-4] + b"AAAA", "passed over: http://"),
        (signed(OWNER, expires=1_790_000_001, settings=QUIET), "expired"),
    ],
    ids=["another-door", "another-key", "unsigned", "broken-signature", "expired"],
)
def test_file_that_is_not_for_us_or_not_the_owners_is_refused(
    network: Lab, tmp_path: Path, web: WebServer, content: bytes, why: str
) -> None:
    refused(network, tmp_path, web.put("door.jws", content), why)


def test_part_that_is_not_the_one_that_was_signed_is_refused(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    web.put("common.json", json.dumps(QUIET).encode())
    files = [{"name": "common.json", "sha256": "0" * 64}]
    url = web.put("door.jws", signed(OWNER, files=files))
    refused(network, tmp_path, url, "common.json: not the file that was signed")


PNP_HOST = """
import socket, struct, sys
address, url = sys.argv[1:]
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind(("224.0.1.75", 5060))
group = socket.inet_aton("224.0.1.75") + socket.inet_aton(address)
link.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
print("ready", flush=True)
while True:
    data, source = link.recvfrom(9000)
    lines = dict(line.split(": ", 1) for line in data.decode().split("\\r\\n")[1:] if ": " in line)
    head = [f"NOTIFY sip:door@{source[0]}:{source[1]} SIP/2.0",
            f"Via: SIP/2.0/UDP {address}:5060;branch=z9hG4bK1", f"From: {lines['To']};tag=9",
            f"To: {lines['From']}", f"Call-ID: {lines['Call-ID']}", "CSeq: 1 NOTIFY",
            "Event: ua-profile", "Content-Type: application/url", f"Content-Length: {len(url)}"]
    answer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    answer.bind((address, 5060))
    answer.sendto("\\r\\n".join([*head, "", url]).encode(), source)
    answer.close()
"""


@contextmanager
def multicast_host(network: Lab, tmp_path: Path, url: str) -> Iterator[None]:
    """A host that answers every door's question by multicast with this address."""
    host = tmp_path / "host.py"
    host.write_text(PNP_HOST)
    command = (sys.executable, str(host), network.address(), url)
    with network.program(*command, directory=tmp_path, log="host.log") as running:
        running.ready(lambda: "ready" in running.log_text(), "listens")
        yield


@pytest.mark.parametrize("key", [OWNER, ROGUE], ids=["owner", "rogue"])
def test_host_that_answers_by_multicast_is_asked_and_its_file_judged(
    network: Lab, tmp_path: Path, web: WebServer, key: PrivateKey
) -> None:
    url = web.put("door.jws", signed(key, settings=QUIET))
    settings = door_settings(tmp_path, provisioning__fingerprint=OWNER.public.kid)
    with (
        multicast_host(network, tmp_path, url),
        dhcp_server(network, tmp_path),
        station(network, tmp_path / "door", settings) as door,
    ):
        wait_line(door, "asked: multicast")
        if key is OWNER:
            door.wait_event("configuration", state="confirmed")
        else:
            wait_line(door, "not the key whose fingerprint this door was given")


@pytest.mark.parametrize(
    "settings",
    [
        {"relays": {"door": {"pin": 5}}},
        {"keys": {"rogue": {"public": ROGUE.public.text, "role": "opener", "opens": ["door"]}}},
        {"commanders": {"mallory": {"password": "long enough for it"}}},
    ],
    ids=["pin", "key", "commander"],
)
def test_rogue_multicast_host_in_the_first_half_hour_gets_no_way_in(
    network: Lab, tmp_path: Path, web: WebServer, settings: dict[str, Any]
) -> None:
    url = web.put("door.jws", signed(ROGUE, settings=settings))
    window_open = door_settings(tmp_path, provisioning__first_use=True)
    with (
        multicast_host(network, tmp_path, url),
        dhcp_server(network, tmp_path),
        station(network, tmp_path / "door", window_open) as door,
    ):
        wait_line(door, "asked: multicast")
        wait_line(door, "not by a key that nobody has confirmed")
        assert not door.events("configuration")
        assert "is this door's owner" not in door.process.log_text()


def test_rogue_multicast_host_is_not_even_asked_by_a_door_that_has_an_owner(
    network: Lab, tmp_path: Path, web: WebServer
) -> None:
    url = web.put("door.jws", signed(ROGUE, settings=QUIET))
    window_open = door_settings(tmp_path, **CLAIMED, provisioning__first_use=True)
    with (
        multicast_host(network, tmp_path, url),
        dhcp_server(network, tmp_path),
        station(network, tmp_path / "door", window_open) as door,
    ):
        wait_line(door, "no configuration from the network")
        assert "asked: multicast" not in door.process.log_text()
    assert web.requests() == []


# -- by multicast DNS

DOOR_CONFIG = "_door-config._tcp"


@pytest.mark.parametrize("ipv4", [True, False], ids=["ipv4", "ipv6"])
def test_owners_server_that_names_itself_on_the_link_claims_the_door(
    network: Lab, tmp_path: Path, ipv4: bool
) -> None:
    authority, address = Authority(tmp_path), network.address()
    with (
        dhcp_server(network, tmp_path, *USEFUL),
        avahi(network, tmp_path / "avahi", "office", DOOR_CONFIG, 443, "path=/door.jws", ipv4=ipv4),
        web_server(
            network, tmp_path / "web", address if ipv4 else "::", authority.issue("office.local")
        ) as web,
    ):
        web.put("door.jws", signed(OWNER, settings=QUIET))
        settings = door_settings(
            tmp_path, provisioning__fingerprint=OWNER.public.kid, provisioning__ca_file=authority.ca
        )
        with station(network, tmp_path / "door", settings) as door:
            wait_line(door, "dns-sd: .local: https://office.local:443/door.jws (mdns)")
            door.wait_event("configuration", state="confirmed")
            assert f"key {OWNER.public.kid} is this door's owner now" in door.process.log_text()
        with station(network, tmp_path / "door", settings) as door:
            wait_line(door, "used: https://office.local:443/door.jws (confirmed)")


MDNS_HOST = """
import socket, struct, sys
address, host, port, what = sys.argv[1:]
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
link.bind(("", 5353))
group = socket.inet_aton("224.0.0.251") + socket.inet_aton(address)
link.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
kind, at = b"\\x0c_door-config\\4_tcp\\5local\\0", b"\\xc0\\x0c"

def record(name, type_, data):
    return name + struct.pack("!HHIH", type_, 1, 10, len(data)) + data

def answer(ident, number=0, count=3):
    name = b"\\5%05d" % number + at
    target = b"".join(bytes((len(x),)) + x.encode() for x in host.split(".")) + b"\\0"
    found = [record(at, 12, name), record(name, 33, struct.pack("!HHH", 0, 0, int(port)) + target),
             record(name, 16, b"\\x0epath=/door.jws")]
    head = struct.pack("!6H", ident, 0x8400, 1, count, 0, 0) + kind + b"\\0\\x0c\\0\\1"
    return head + b"".join(found)

print("ready", flush=True)
while True:
    data, source = link.recvfrom(9000)
    ident = struct.unpack_from("!H", data)[0]
    if data[2] & 0x80 or kind not in data:
        continue
    print("asked", flush=True)
    if what == "malformed":
        good = answer(ident)
        for bad in (good[:40], good + b"x" * 9000, answer(ident, count=65535), b"", ident and
                    struct.pack("!6H", ident, 0x8400, 0, 1, 0, 0) + b"\\xc0\\x0c" * 8):
            link.sendto(bad, source)
    elif what == "endless":
        try:
            for number in range(1 << 20):
                link.sendto(answer(ident, number % 100000), source)
        except OSError:
            pass  # the door does not listen any more
    else:
        link.sendto(answer(ident), source)
"""


@contextmanager
def mdns_host(network: Lab, tmp_path: Path, web: WebServer, what: str = "") -> Iterator[Process]:
    """A host that answers every door's question on the link with this server's file."""
    host = tmp_path / "mdns.py"
    host.write_text(MDNS_HOST)
    server = web.url.removeprefix("https://")
    command = (sys.executable, str(host), network.address(), server, "443", what)
    with network.program(*command, directory=tmp_path, log="mdns.log") as running:
        running.ready(lambda: "ready" in running.log_text(), "listens")
        yield running


def test_rogue_on_the_link_gets_nothing_from_a_door_that_has_an_owner(
    network: Lab, tmp_path: Path, secure_web: WebServer, authority: Authority
) -> None:
    secure_web.put("door.jws", signed(ROGUE, settings=QUIET))
    settings = door_settings(
        tmp_path, **CLAIMED, provisioning__first_use=True, provisioning__ca_file=authority.ca,
        provisioning__discovery="always",
    )  # fmt: skip
    with (
        dhcp_server(network, tmp_path, *USEFUL),
        mdns_host(network, tmp_path, secure_web) as rogue,
        station(network, tmp_path / "door", settings) as door,
    ):
        wait_line(door, "no configuration from the network")
        assert "asked: dns-sd" not in door.process.log_text()
        assert "asked" not in rogue.log_text()
    assert secure_web.requests() == []


def test_rogue_on_the_link_has_its_file_judged_as_any_other(
    network: Lab, tmp_path: Path, secure_web: WebServer, authority: Authority
) -> None:
    secure_web.put("door.jws", signed(ROGUE, settings=QUIET))
    settings = door_settings(
        tmp_path, provisioning__fingerprint=OWNER.public.kid, provisioning__ca_file=authority.ca
    )
    with (
        dhcp_server(network, tmp_path, *USEFUL),
        mdns_host(network, tmp_path, secure_web),
        station(network, tmp_path / "door", settings) as door,
    ):
        wait_line(door, "(mdns): not the key whose fingerprint this door was given")
        assert not door.events("configuration")


def test_rogue_on_the_link_that_answers_nonsense_is_no_answer(
    network: Lab, tmp_path: Path, secure_web: WebServer
) -> None:
    config = tmp_path / "door.toml"
    config.write_text(toml({"board.kind": "fake", "peers.indoor.uri": "sip:198.18.0.99"}))
    with (
        dhcp_server(network, tmp_path, *USEFUL),
        mdns_host(network, tmp_path, secure_web, "malformed") as rogue,
    ):
        said = doorstation("doctor", "network", "--config", str(config))
        assert "asked" in rogue.log_text()
    assert "configuration: dns-sd: .local: no answer" in said.stdout


def test_rogue_on_the_link_that_answers_for_ever_only_wastes_its_time(
    network: Lab, tmp_path: Path, secure_web: WebServer
) -> None:
    with (
        dhcp_server(network, tmp_path, *USEFUL),
        mdns_host(network, tmp_path, secure_web, "endless") as rogue,
        station(network, tmp_path / "door", door_settings(tmp_path)) as door,
    ):
        wait_line(door, "dns-sd: .local: ", 30)
        wait_line(door, "no configuration from the network", 30)
        assert door.process.log_text().count("asked: https:") == 1
        assert door.status()["door"] == "idle"
        assert "asked" in rogue.log_text()
    assert secure_web.requests() == []


# -- a certificate by the owner's authority


class HouseAuthority:
    """The owner's: a root and one below it that signs, by openssl alone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.ca = folder / "root.pem"
        new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        is_authority = ("-addext", "basicConstraints=critical,CA:TRUE")
        for name, more in (("root", ()), ("middle", ("-CA", "root.pem", "-CAkey", "root.key"))):
            files = ("-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
            self._openssl(*new, *files, *is_authority, *more)

    def sign(self, request: str) -> str:
        """The chain for a door, good for 20 days."""
        (self._folder / "door.csr").write_text(request)
        middle = ("-CA", "middle.pem", "-CAkey", "middle.key", "-days", "20")
        self._openssl(
            "x509", "-req", "-in", "door.csr", "-out", "door.pem", "-copy_extensions", "copy",
            *middle,
        )  # fmt: skip
        return "".join((self._folder / f"{name}.pem").read_text() for name in ("door", "middle"))

    def _openssl(self, *words: str) -> None:
        subprocess.run(("openssl", *words), cwd=self._folder, check=True, capture_output=True)


PBX_USERS = {"door": "of-the-door"}


def by_tls(pbx: Kamailio) -> dict[str, Any]:
    """An account at a registrar that asks for the door's certificate."""
    account = {"user": "door", "domain": "pbx.test", "password": PBX_USERS["door"]}
    return {**account, "registrar": f"{pbx.address}:5061", "transport": "tls"}


def test_owners_authority_signs_the_doors_certificate_and_servers_verify_the_door_by_it(
    network: Lab, tmp_path: Path
) -> None:
    house, authority, address = (
        HouseAuthority(tmp_path / "ca"),
        Authority(tmp_path),
        network.address(),
    )
    with (
        nginx(network, tmp_path / "web", address, authority.issue(address), str(house.ca)) as web,
        kamailio(
            network, tmp_path / "pbx", PBX_USERS, domain="pbx.test", clients=house.ca
        ) as pbx,
    ):  # fmt: skip
        web.put("door.jws", signed(OWNER, settings=QUIET))
        settings = door_settings(
            tmp_path, **CLAIMED, provisioning__url=f"{web.url}/door.jws",
            provisioning__ca_file=authority.ca, tls__ca_file=str(pbx.ca), account=by_tls(pbx),
        )  # fmt: skip
        with station(network, tmp_path / "door", settings) as door:
            # A certificate that the door signed itself opens nothing.
            wait_line(door, "status 400")
            label = door.command("keys")["door"]
            assert label["certificate"] == "signed by itself"
            assert not pbx.contacts("door")

            request = doorstation("keys", "request", "--socket", str(door.socket)).stdout
            chain = house.sign(request)
            stranger = Identity.new(label["door"]).request().decode()
            other = house.sign(stranger)
            refused = door.config("set", f"tls.own_certificate='''{other}'''")
            assert refused.returncode != 0
            assert "not over this door's key" in refused.stderr
            done = door.config(
                "set", f"tls.own_certificate='''{chain}'''", 'sip.transports=["udp", "tls"]'
            )
            assert done.returncode == 0, done.stderr

            assert pbx.contacts("door")
            said = doorstation("keys", "list", "--socket", str(door.socket)).stdout
            assert "certificate  signed by CN=middle until 2" in said
            assert "CN=middle" in door.status()["configuration"]["certificate"]
            assert "PRIVATE KEY" not in door.config("show").stdout + door.process.log_text()
            phone = ("openssl", "s_client", "-connect", f"{door.address}:5061", "-CAfile")
            network.run(*phone, str(house.ca), "-verify_return_error", "-brief")
        with station(network, tmp_path / "door", settings) as door:
            wait_line(door, f"used: {web.url}/door.jws (typed)")
            door.wait_event("configuration", state="confirmed", how="file 1")
            assert "/door.jws - 200 SUCCESS" in (tmp_path / "web" / "requests.log").read_text()
            wait_line(door, ": expires soon")
            assert door.events("certificate", state="expires soon", issuer="CN=middle")
            by_udp = ('account.transport="udp"', f'account.registrar="{pbx.address}"')
            assert door.config("set", *by_udp).returncode == 0
            assert door.config("unset", "tls.own_certificate", "sip.transports").returncode == 0
            assert door.command("keys")["door"] == label


def test_signed_file_brings_the_certificate_that_its_next_server_and_the_registrar_ask_for(
    network: Lab, tmp_path: Path
) -> None:
    house, authority = HouseAuthority(tmp_path / "ca"), Authority(tmp_path)
    first, address = network.address(), network.address()
    with (
        web_server(network, tmp_path / "first", first, authority.issue(first)) as office,
        dhcp_server(network, tmp_path, USEFUL_6, f"dhcp-option-force=160,{office.url}/door.jws"),
        nginx(network, tmp_path / "web", address, authority.issue(address), str(house.ca)) as web,
        kamailio(
            network, tmp_path / "pbx", PBX_USERS, domain="pbx.test", clients=house.ca
        ) as pbx,
    ):  # fmt: skip
        settings = door_settings(
            tmp_path, provisioning__fingerprint=OWNER.public.kid,
            provisioning__ca_file=authority.ca, tls__ca_file=str(pbx.ca),
        )  # fmt: skip
        with station(network, tmp_path / "door", settings) as door:
            request = doorstation("keys", "request", "--socket", str(door.socket)).stdout
            label = door.command("keys")["door"]
        brought = {
            "account": by_tls(pbx),
            "provisioning": {"url": f"{web.url}/door.jws"},
            "tls": {"own_certificate": house.sign(request)},
        }
        content = signed(OWNER, sub=label["door"], settings=brought)
        office.put("door.jws", content)
        with station(network, tmp_path / "door", settings) as door:
            door.wait_event("configuration", 20, state="confirmed", how="file 1")
            assert pbx.contacts("door")
            assert "signed by CN=middle" in door.command("keys")["door"]["certificate"]
        web.put("door.jws", signed(OWNER, 2, settings=brought | QUIET))
        with station(network, tmp_path / "door", settings) as door:
            door.wait_event(
                "configuration", 20, state="confirmed", how="file 2", keys="audio.country"
            )
            wait_line(door, f"used: {web.url}/door.jws (typed)")
            assert "PRIVATE KEY" not in door.process.log_text()
        asked = (tmp_path / "web" / "requests.log").read_text()
        assert asked.startswith("/door.jws - 200 SUCCESS")
