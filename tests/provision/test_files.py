"""Whose files count, and when: every trust state, and every way of being the wrong file."""

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doorstation.errors import ProtocolError
from doorstation.provision.files import (
    FIRST_USE_SECONDS,
    MAX_FILE,
    NOT_BY_FIRST_USE,
    Accepted,
    Trust,
    assembled,
    read_signed,
)
from doorstation.provision.jws import PrivateKey, encoded

OWNER, OTHER = PrivateKey.new(), PrivateKey.new()
NAMES = frozenset({"*", "b827eb010203"})
WALL = 1_800_000_000.0
BUILT = WALL - 30 * 86400
CLAIMED = Trust(owners={OWNER.public.kid: OWNER.public}, serial=5)
FIRST_USE = Trust(owners={}, first_use=True, since_reset=60.0, private_source=True)


def signed(key: PrivateKey = OWNER, *, with_key: bool = False, **more: Any) -> bytes:
    payload = {"sub": "*", "iat": int(WALL), "serial": 6, "settings": {"audio": {"country": "at"}}}
    return key.sign(json.dumps(payload | more).encode(), with_key=with_key).encode()


def read(data: bytes, trust: Trust = CLAIMED, wall: float | None = WALL) -> Accepted:
    return read_signed(data, NAMES, trust, wall, BUILT)


def refused(data: bytes, trust: Trust = CLAIMED) -> str:
    with pytest.raises(ProtocolError) as raised:
        read(data, trust)
    return raised.value.reason


def test_file_of_the_owner_is_taken() -> None:
    accepted = read(signed())
    assert (accepted.rule, accepted.new_owner) == ("owner", None)
    assert accepted.manifest.settings == {"audio": {"country": "at"}}


def test_claimed_door_takes_no_other_key_even_one_that_the_file_brings() -> None:
    assert refused(signed(OTHER, with_key=True)) == "signed by no owner of this door"


def test_old_file_with_a_good_signature_is_stopped_by_its_serial() -> None:
    for serial in (5, 4, 0, -1):
        assert "5 was taken already" in refused(signed(serial=serial))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"sub": "b827eb999999"}, "for another door"),
        ({"iat": int(BUILT) - 1}, "before this firmware was made"),
        ({"iat": int(WALL) + 90_000}, "in the future"),
        ({"expires": int(WALL) - 1}, "expired"),
        ({"serial": "7"}, "serial"),
        ({"firmware": "https://evil.test"}, "firmware"),
        ({"files": [{"name": "../passwd", "sha256": ""}]}, "beside the signed one"),
        ({"files": [{"name": ".x", "sha256": ""}]}, "beside the signed one"),
        ({"files": [{"name": "a\\b", "sha256": ""}]}, "beside the signed one"),
        ({"files": [{"name": f"{n}.json", "sha256": ""} for n in range(17)]}, "16 are read"),
    ],
)
def test_file_that_is_not_right_is_refused(more: dict[str, Any], why: str) -> None:
    assert why in refused(signed(**more))


def test_door_without_a_clock_takes_the_file_by_its_serial() -> None:
    assert read(signed(expires=5), wall=None).rule == "owner"


def test_unsigned_or_huge_file_is_refused() -> None:
    assert "no token" in refused(b'{"audio": {"country": "at"}}')
    assert "are read" in refused(b"a" * (MAX_FILE + 1))
    assert "utf-8" in refused(OWNER.sign(b'{"sub":"\xff"}').encode())


def test_door_without_an_owner_takes_none_by_itself() -> None:
    unclaimed = Trust(owners={}, private_source=True)
    assert "takes none by itself" in refused(signed(with_key=True), unclaimed)


def test_key_whose_fingerprint_the_door_was_given_becomes_its_owner() -> None:
    given = Trust(owners={}, fingerprint=OWNER.public.kid)
    accepted = read(signed(with_key=True), given)
    assert (accepted.rule, accepted.new_owner) == ("fingerprint", OWNER.public)
    assert "not the key" in refused(signed(OTHER, with_key=True), given)
    assert "whole key" in refused(signed(), given)


def test_first_key_in_the_first_half_hour_from_a_private_address_becomes_the_owner() -> None:
    accepted = read(signed(OTHER, with_key=True), FIRST_USE)
    assert (accepted.rule, accepted.new_owner) == ("first use", OTHER.public)


def trust(**more: Any) -> Trust:
    return msgspec.structs.replace(FIRST_USE, **more)


def test_first_use_is_over_after_half_an_hour_and_never_from_outside() -> None:
    late = trust(since_reset=FIRST_USE_SECONDS + 1)
    assert "half hour is over" in refused(signed(with_key=True), late)
    assert "private address" in refused(signed(with_key=True), trust(private_source=False))


@pytest.mark.parametrize("section", NOT_BY_FIRST_USE)
def test_first_use_sets_nothing_that_says_who_may_do_what(section: str) -> None:
    accepted = read(signed(with_key=True, settings={section: {"x": {"y": 1}}}), FIRST_USE)
    with pytest.raises(ProtocolError, match="nobody has confirmed"):
        assembled(accepted, {})


def test_first_use_sets_no_pin() -> None:
    pins = json.dumps({"relays": {"door": {"pin": 4}}}).encode()
    accepted = read(signed(with_key=True, files=listed(pins=pins)), FIRST_USE)
    with pytest.raises(ProtocolError, match=r"relays\.door\.pin"):
        assembled(accepted, {"pins.json": pins})


def test_key_in_the_header_that_is_not_the_one_that_signed_is_refused() -> None:
    head, body, signature = signed(OTHER, with_key=True).split(b".")
    theirs = signed(OWNER, with_key=True).split(b".")[0]
    assert "not this key's" in refused(b".".join((theirs, body, signature)), FIRST_USE)
    assert head != theirs


def test_key_in_the_header_that_goes_by_the_name_of_another_is_refused() -> None:
    head = f'{{"alg":"EdDSA","kid":"{OWNER.public.kid}","jwk":{OTHER.public.jwk}}}'
    payload = signed(OTHER).split(b".")[1].decode()
    text = f"{encoded(head.encode())}.{payload}"
    forged = f"{text}.{encoded(OTHER._key.sign(text.encode()))}".encode()
    assert "whole key" in refused(forged, FIRST_USE)
    assert "whole key" in refused(forged, Trust(owners={}, fingerprint=OWNER.public.kid))


COMMON = json.dumps({"audio": {"country": "de", "codecs": ["PCMA"]}}).encode()
MINE = json.dumps({"audio": {"country": "ch"}}).encode()


def listed(**contents: bytes) -> list[dict[str, str]]:
    return [
        {"name": f"{name}.json", "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    ]


def test_later_file_wins_value_by_value_and_the_settings_win_over_all() -> None:
    accepted = read(
        signed(files=listed(common=COMMON, mine=MINE), settings={"door": {"max_call": 60}})
    )
    assert assembled(accepted, {"common.json": COMMON, "mine.json": MINE})[0] == {
        "audio": {"country": "ch", "codecs": ["PCMA"]},
        "door": {"max_call": 60},
    }


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        ({}, "common.json: missing"),
        ({"common.json": COMMON + b" "}, "not the file that was signed"),
    ],
)
def test_file_that_is_missing_or_changed_takes_all_of_them_away(
    contents: dict[str, bytes], why: str
) -> None:
    accepted = read(signed(files=listed(common=COMMON)))
    with pytest.raises(ProtocolError, match=why):
        assembled(accepted, contents)


NEWER = {
    "audio": {"country": "ch", "scent": "lilac"},
    "relays": {"door": {"codes": ["4711"], "waves": True}},
    "buttons": {"call": {"steps": [{"ring": ["1"], "smile": 1}]}},
    "hovering": {"height": 3},
}


def test_what_a_newer_version_knows_is_left_out_and_told() -> None:
    known, unknown = assembled(read(signed(settings=NEWER)), {})
    assert known == {
        "audio": {"country": "ch"},
        "relays": {"door": {"codes": ["4711"]}},
        "buttons": {"call": {"steps": [{"ring": ["1"]}]}},
    }
    assert unknown == [
        "hovering",
        "audio.scent",
        "relays.door.waves",
        "buttons.call.steps[0].smile",
    ]


@pytest.mark.parametrize(
    ("required", "key"),
    [
        ("audio.scent", "audio.scent"),
        ("audio", "audio.scent"),
        ("hovering.height", "hovering"),
        ("buttons.call.steps", "buttons.call.steps[0].smile"),
    ],
)
def test_file_whose_required_key_is_unknown_is_refused(required: str, key: str) -> None:
    accepted = read(signed(settings=NEWER, required=[required]))
    with pytest.raises(ProtocolError, match=f"^{re.escape(key)}: required"):
        assembled(accepted, {})


def test_required_key_that_is_known_refuses_nothing() -> None:
    accepted = read(signed(settings=NEWER, required=["audio.country", "hover"]))
    assert assembled(accepted, {})[0]["audio"] == {"country": "ch"}


def test_file_that_is_no_tree_is_refused() -> None:
    for content in (b"[]", b"{", b"[" * 100_000, b'{"\xff":1}'):
        accepted = read(signed(files=listed(common=content)))
        with pytest.raises(ProtocolError):
            assembled(accepted, {"common.json": content})


def test_command_line_of_the_documentation_signs_a_file_that_is_taken(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs/provisioning.md"
    script = page.read_text().partition("```sh\n")[2].partition("```")[0]
    (tmp_path / "owner.pem").write_bytes(OWNER.pem)
    subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, check=True)
    trust = Trust(owners={}, fingerprint=OWNER.public.kid)
    accepted = read_signed((tmp_path / "door.jws").read_bytes(), NAMES, trust, None, 0.0)
    assert accepted.manifest.settings == {"audio": {"country": "at"}}
