"""Which codecs the settings and this machine make a call offer and take."""

import logging

import pytest
from doorstation.errors import DoorstationError
from doorstation.media import opus
from doorstation.settings.reader import parse
from doorstation.ua.config import AgentConfig, config_from


def configured(codecs: str = "") -> AgentConfig:
    return config_from(parse(f'peers.kitchen.uri = "sip:192.0.2.5"\n[audio]\n{codecs}\n'))


@pytest.fixture
def no_opus(monkeypatch: pytest.MonkeyPatch) -> None:
    def library() -> None:
        raise DoorstationError("libopus is missing: install libopus0")

    monkeypatch.setattr(opus, "_library", library)


def test_wide_band_is_offered_first_and_g711_always() -> None:
    assert [codec.name for codec in configured().codecs] == ["G722", "opus", "PCMA", "PCMU"]


def test_the_order_of_the_settings_is_that_of_the_offer() -> None:
    found = configured('codecs = ["PCMU", "L16/16000", "L16/8000", "opus"]').codecs
    assert [(codec.name, codec.clock) for codec in found] == [
        ("PCMU", 8000),
        ("L16", 16000),
        ("L16", 8000),
        ("opus", 48000),
    ]


def test_l16_is_taken_though_it_is_not_offered() -> None:
    assert {(codec.name, codec.clock) for codec in configured().also} == {
        ("L16", 16000),
        ("L16", 8000),
    }


def test_a_codec_without_its_library_is_not_offered_and_the_log_says_why(
    no_opus: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = configured()
    assert [codec.name for codec in found.codecs] == ["G722", "PCMA", "PCMU"]
    assert caplog.messages == ["opus is not offered: libopus is missing: install libopus0"]


def test_settings_that_leave_nothing_to_speak_are_a_fault(no_opus: None) -> None:
    with pytest.raises(DoorstationError, match="none of opus can be spoken"):
        configured('codecs = ["opus"]')
