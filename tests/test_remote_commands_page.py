"""docs/remote-commands.md says what the code does: its test vectors, byte by byte."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from doorstation.errors import SettingsError
from doorstation.provision.jws import PrivateKey, parse_token
from doorstation.provision.layers import Change, Tree
from doorstation.provision.orders import MAY, parse_order
from doorstation.remote import LONGEST_TRIAL, SHORTEST_TRIAL
from doorstation.ua.inspect import ORDERS, RESULTS

PAGE = (Path(__file__).parent.parent / "docs" / "remote-commands.md").read_text()


def blocks(kind: str) -> list[str]:
    return [found.strip() for found in re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)]


def test_the_key_of_the_vectors_is_named_by_its_kid() -> None:
    [pem] = blocks("pem")
    assert f"`{PrivateKey.parse(pem.encode()).public.kid}`" in PAGE


@pytest.mark.parametrize(
    ("payload", "token"), list(zip(blocks("json"), blocks("jws"), strict=True))
)
def test_each_vector_is_what_is_signed_and_read(payload: str, token: str) -> None:
    [pem] = blocks("pem")
    key = PrivateKey.parse(pem.encode())
    assert key.sign(payload.encode()) == token
    assert parse_token(token).check(key.public) == payload.encode()
    parse_order(payload.encode())


def test_example_of_a_refusal_is_what_the_door_says() -> None:
    order, told = re.findall("```\n([{/].*?)```", PAGE, re.DOTALL)
    read = parse_order(order.encode())
    with pytest.raises(SettingsError) as raised:
        Tree({}).changed(read.change).settings()
    *faults, within = told.replace("…", "").splitlines()
    for line, fault in zip(faults, read.faults(raised.value), strict=True):
        assert fault.startswith(line)
    assert within == f"/within: 2 s is out of range; {SHORTEST_TRIAL:g} to {LONGEST_TRIAL:g} s"


def test_content_types_and_roles_are_those_of_the_code() -> None:
    assert ORDERS in PAGE
    assert RESULTS in PAGE
    for role in MAY:
        assert f"| `{role}` |" in PAGE


def test_the_word_that_is_shown_takes_the_value_that_is_shown() -> None:
    [page] = [block for block in blocks("toml") if "[words.volume]" in block]
    [value] = re.findall(r"`volume (\S+)`", PAGE)
    key = tomllib.loads(page)["words"]["volume"]["sets"]
    Tree({}).changed(Change({key: json.loads(value)})).settings()
