"""What a stranger wrote does nothing to the terminal it is shown on."""

import logging

import pytest
from doorstation import cli
from doorstation.printable import printable
from doorstation.station import PlainFormatter

ESCAPES = ["\x1b[2J", "\x07", "\x9b31m", "\u202e", "\x85", "\u2028", "\x00", "\r"]


@pytest.mark.parametrize("escape", ESCAPES)
def test_terminal_escapes_in_a_log_line_are_made_visible(escape: str) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "ended: %s", (f"a{escape}b",), None)
    shown = PlainFormatter("%(message)s").format(record)
    assert shown.isprintable()
    assert shown.startswith("ended: a\\")


def test_line_ends_stay_where_they_are_ours() -> None:
    assert printable("a\n\tb", lines=True) == "a\n\tb"
    assert printable("a\nb") == "a\\nb"
    assert printable("größer") == "größer"


def test_what_a_registrar_says_does_nothing_to_the_terminal_that_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    none: dict[str, object] = {}
    status = {
        "registration": {"state": "retrying", "why": "503 \x1b]0;a door\x07"},
        "configuration": {"pending": None, "fault": ""},
        "first_use": "",
        **dict.fromkeys(("calls", "faults", "recording", "relays", "leds", "versions"), none),
    }
    monkeypatch.setattr("doorstation.net.control_client.call", lambda *_: status)
    assert cli.main(["ctl", "status"]) == 0
    assert capsys.readouterr().out == "registration  retrying  503 \\x1b]0;a door\\x07\n"
