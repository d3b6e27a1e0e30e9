"""The published schema says what the door says."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from doorstation.errors import SettingsError
from doorstation.settings.page import SMALLEST, describe
from doorstation.settings.reader import build
from doorstation.settings.schema import schema
from jsonschema import Draft202012Validator

VALIDATOR = Draft202012Validator(schema())


def test_published_schema_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.schema.json"
    made = json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
    assert page.read_text() == made, "run make pages"


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_documented_smallest_file_is_valid() -> None:
    assert SMALLEST in describe()
    assert list(VALIDATOR.iter_errors(tomllib.loads(SMALLEST))) == []


@pytest.mark.parametrize(
    "raw",
    [
        {"audio": {"country": "atlantis"}},
        {"audio": {"scent": "lilac"}},
        {"door": {"max_call": -1}},
        {"door": {"max_call": "long"}},
        {"relays": {"Front door": {}}},
        {"relays": {"door": {"codes": "4711"}}},
        {"account": {"password": 4711}},
        {"hovering": {}},
    ],
    ids=json.dumps,
)
def test_what_the_schema_refuses_the_door_refuses_too(raw: dict[str, Any]) -> None:
    assert list(VALIDATOR.iter_errors(raw))
    with pytest.raises(SettingsError):
        build(raw)


def test_a_secret_is_written_and_never_read() -> None:
    account = schema()["properties"]["account"]["properties"]
    assert account["password"]["writeOnly"]
    assert "writeOnly" not in account["user"]
