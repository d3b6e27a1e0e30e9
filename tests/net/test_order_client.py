"""The sender of orders: its key, what it keeps beside it, and what is wrong with them."""

import re
from pathlib import Path

import pytest
from doorstation.cli import main
from doorstation.errors import DoorstationError
from doorstation.net.order_client import KeyFile
from doorstation.provision.identity import DoorKey


def test_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "office.key"
    KeyFile.new(path)
    path.chmod(0o640)
    with pytest.raises(DoorstationError, match="others can read this key; chmod 600"):
        KeyFile(path)


def test_counter_rises_and_a_spoilt_one_begins_at_the_time(tmp_path: Path) -> None:
    keys = KeyFile.new(tmp_path / "office.key")
    first = keys.next_counter()
    assert keys.next_counter() > first
    (tmp_path / "office.key.counter").write_bytes(b"\xff")
    assert keys.next_counter() >= first


def test_what_lies_in_the_place_of_a_counter_is_named(tmp_path: Path) -> None:
    keys = KeyFile.new(tmp_path / "office.key")
    (tmp_path / "office.key.counter").mkdir()
    with pytest.raises(DoorstationError, match=re.escape("office.key.counter: Is a directory")):
        keys.next_counter()


@pytest.mark.parametrize("spoilt", [b"[]", b"x", b"\xff", b'"\xff"', b'{"door": 5}'])
def test_fingerprints_that_cannot_be_read_are_not_begun_anew(tmp_path: Path, spoilt: bytes) -> None:
    keys = KeyFile.new(tmp_path / "office.key")
    (tmp_path / "office.key.doors").write_bytes(spoilt)
    with pytest.raises(DoorstationError, match=re.escape("office.key.doors: ")):
        keys.check_door("door", DoorKey(bytes(64)))
    assert (tmp_path / "office.key.doors").read_bytes() == spoilt


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("confirm", "abc"), "abc: no number of a change"),
        (("rollback", "9" * 30), "no number of a change"),
        (("open",), "open needs 1 word"),
        (("set", "pulse"), "pulse: key=value"),
    ],
)
def test_wrong_words_are_told_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    key, word = tmp_path / "office.key", tmp_path / "word"
    KeyFile.new(key)
    word.write_text("secret")
    way = ("--key", str(key), "--to", "sip:door@127.0.0.1:9", "--door", "x", "--user", "office")
    assert main(["command", *way, "--password-file", str(word), *words]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "office.key.counter").exists()


@pytest.mark.parametrize("within", ["inf", "nan", "1e999", "soon"])
def test_time_that_is_no_number_of_seconds_is_told(
    capsys: pytest.CaptureFixture[str], within: str
) -> None:
    way = ("--key", "x", "--to", "x", "--door", "x", "--user", "x", "--password-file", "x")
    with pytest.raises(SystemExit):
        main(["command", *way, "--within", within, "status"])
    assert "argument --within: a number of seconds" in capsys.readouterr().err


def test_password_file_of_bytes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, word = tmp_path / "office.key", tmp_path / "word"
    KeyFile.new(key)
    word.write_bytes(b"\xff\xfe")
    way = ("--key", str(key), "--to", "sip:door@127.0.0.1:9", "--door", "x", "--user", "office")
    assert main(["command", *way, "--password-file", str(word), "status"]) == 1
    assert "word: no text in UTF-8" in capsys.readouterr().err
