"""Faults of an order, told by JSON pointer."""

from typing import Any

import pytest
from doorstation.provision.pointers import as_typed, pointed

FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"audio.country": 5}, "audio.country: a number", "/set/audio.country: a number"),
    ({"audio": {"country": 5}}, "audio.country: a number", "/set/audio/country: a number"),
    (
        {"audio": {"volume": 1}, "audio.country": 5},
        "audio.country: a number",
        "/set/audio.country: a number",
    ),
    (
        {"buttons.front": {"steps": [{}, {"ring": ["x y"]}]}},
        "buttons.front.steps[1].ring[0]: wrong",
        "/set/buttons.front/steps/1/ring/0: wrong",
    ),
    ({"a/b~c": 1}, "a/b~c: unknown", "/set/a~1b~0c: unknown"),
    ({"x\n/url: y": 1}, "x\n/url: y: unknown", r"/set: x\n/url: y: unknown"),
    # A table that is written in the keys alone.
    ({"adio.country": "at"}, "adio: unknown", "/set/adio.country: adio: unknown"),
    # What was not sent: the pointer to what is nearest.
    ({"door.max_call": 10}, "door.warning: too late", "/set: door.warning: too late"),
    ({"relays.a": {}}, "relays.a.pin: missing", "/set/relays.a: relays.a.pin: missing"),
    ({"relays.b.codes": []}, "relays.a.codes[0]: twice", "/set: relays.a.codes[0]: twice"),
    ({"relays.a.codes": []}, "relays.a.codes[0]: x", "/set/relays.a.codes: relays.a.codes[0]: x"),
]


@pytest.mark.parametrize(("sent", "problem", "line"), FAULTS)
def test_fault_is_behind_the_pointer_to_where_it_stands_in_the_order(
    sent: dict[str, Any], problem: str, line: str
) -> None:
    assert pointed(sent, problem) == line


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("/set/audio.country: a number", "audio.country: a number"),
        ("/set/a.b/steps/1/ring/0: wrong", "a.b.steps[1].ring[0]: wrong"),
        ("/set/a~1b~01: unknown", "a/b~1: unknown"),
        ("/set/7: unknown", "7: unknown"),
        ("/set/adio.country: adio: unknown", "adio.country: adio: unknown"),
        ("/set: door.warning: too late", "door.warning: too late"),
        ("/set/relays.a: relays.a.pin: missing", "relays.a.pin: missing"),
        ("/set/relays.a.codes: relays.a.codes[0]: x", "relays.a.codes[0]: x"),
        ("/url: not https", "url: not https"),
        ("relays/a~1: no line of ours", "relays/a~1: no line of ours"),
    ],
)
def test_person_reads_the_key_as_it_was_typed(line: str, typed: str) -> None:
    assert as_typed(line) == typed
