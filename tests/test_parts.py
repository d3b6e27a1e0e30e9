"""Which driver gets what of the settings and of the board's profile."""

import contextlib
from typing import Any

import pytest
from doorboard.profile import profile_names
from doorstation import parts
from doorstation.settings.tree import Board, Reader, Settings


@pytest.mark.parametrize("name", profile_names())
def test_a_reader_without_a_port_is_on_that_of_the_boards_header(
    name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def reader(port: str, **_: object) -> contextlib.AbstractContextManager[None]:
        opened.append(port)
        return contextlib.nullcontext()

    monkeypatch.setattr("doorboard.serial_reader.SerialReader", reader)
    settings = Settings(
        board=Board(kind="pi", profile=name),
        readers={"gate": Reader(opens="door"), "garage": Reader(opens="door", port="/dev/ttyUSB0")},
    )
    with parts.make(settings):
        pass
    header = "/dev/ttyAMA0" if name == "pi-5" else "/dev/serial0"
    assert opened == [header, "/dev/ttyUSB0"]
