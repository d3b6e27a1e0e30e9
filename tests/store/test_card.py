"""A card is read, whatever somebody laid on it."""

import os
from pathlib import Path

import pytest
from doorstation.errors import StoreError
from doorstation.store.card import NOTE, SIGNED, Card, Note, read_card, read_file


def test_note_says_whom_to_trust_and_where_to_look(tmp_path: Path) -> None:
    (tmp_path / NOTE).write_text('{"fingerprint": "kPrK_qmxVWaYVA9w", "url": "https://c.test/d"}')
    card = read_card(tmp_path)
    assert card == Card(tmp_path, Note("kPrK_qmxVWaYVA9w", "https://c.test/d"), signed=False)
    assert card.places == ["https://c.test/d"]


def test_signed_file_of_the_card_comes_before_the_place_that_it_names(tmp_path: Path) -> None:
    (tmp_path / NOTE).write_text('{"url": "https://c.test/d"}')
    (tmp_path / SIGNED).write_text("x")
    card = read_card(tmp_path)
    assert card is not None
    assert card.places == [f"file://{tmp_path}/{SIGNED}", "https://c.test/d"]


def test_folder_without_anything_for_a_door_is_no_card(tmp_path: Path) -> None:
    assert read_card(tmp_path) is None
    assert read_card(tmp_path / "none") is None


@pytest.mark.parametrize(
    "note", [b"", b"[]", b"\xff", b'{"fingerprnt": "x"}', b'{"url": 7}', b"{" * 5000]
)
def test_note_that_cannot_be_read_is_a_fault_that_names_it(tmp_path: Path, note: bytes) -> None:
    (tmp_path / NOTE).write_bytes(note)
    with pytest.raises(StoreError, match=NOTE):
        read_card(tmp_path)


@pytest.mark.parametrize("folder", ["a\0b", "/dev/null"])
def test_folder_that_is_none_is_a_fault(folder: str) -> None:
    with pytest.raises(StoreError, match=NOTE):
        read_card(Path(folder))


def test_link_on_a_card_leads_nowhere_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(OSError, match=r".+"):
            read_file(tmp_path, name, 10)


def test_no_more_is_read_than_shows_that_it_is_too_much(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 100)
    assert read_file(tmp_path, "large", 10) == b"x" * 11
