"""What `doorstation command` makes of a door's results."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from doorstation import ordering
from doorstation.net.order_client import KeyFile


class Client:
    """A door that answers every order with one result."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        self._result = result
        self.ordered: list[str] = []

    async def order(self, op: str, **fields: Any) -> Mapping[str, Any]:
        self.ordered.append(op)
        return {"op": op, **self._result}


@pytest.fixture
def key(tmp_path: Path) -> KeyFile:
    return KeyFile.new(tmp_path / "office.key")


def ordered(
    client: Client, key: KeyFile, monkeypatch: pytest.MonkeyPatch, op: str, *words: str
) -> int:
    @contextlib.asynccontextmanager
    async def order_client(*_: Any) -> AsyncIterator[Client]:
        yield client

    monkeypatch.setattr(ordering, "order_client", order_client)
    way = ordering.Way(key, "sip:door@192.0.2.7", "uuid", "office", "x")
    return ordering.run(way, op, words)


@pytest.mark.parametrize(
    "order", [("get",), ("history",), ("check", "sip.user=gate"), ("set", "sip.user=gate")]
)
def test_a_result_too_large_to_be_sent_is_told_and_no_success(
    order: tuple[str, ...],
    key: KeyFile,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = Client({"state": "too-large", "number": 0, "why": "ask for fewer keys"})
    assert ordered(client, key, monkeypatch, *order) == 1
    assert capsys.readouterr().out == 'too-large number=0 why="ask for fewer keys"\n'
    assert "set" not in client.ordered


def test_what_a_door_says_does_nothing_to_the_offices_terminal(
    key: KeyFile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    past = {"number": 1, "at": "now", "by": "a\x1b[2J", "result": "confirmed", "keys": []}
    difference = {"key": "a\x1b[2J", "old": None, "new": "\x9b31m"}
    for op, member in (
        ("get", {"rows": [["a\x1b[2J", "\x9b31m", "local"]]}),
        ("history", {"changes": [past]}),
        ("check", {"differences": [difference]}),
    ):
        assert ordered(Client({"state": "done", **member}), key, monkeypatch, op) == 0
        assert capsys.readouterr().out.rstrip("\n").isprintable()
    assert ordered(Client({"state": "\x1b[2J"}), key, monkeypatch, "status") == 1
    assert capsys.readouterr().out == "\\x1b[2J\n"
