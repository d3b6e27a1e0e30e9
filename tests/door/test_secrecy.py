"""What people type and show at the door is in no repr: asyncio logs arguments of what fails."""

import pytest
from doorboard.interfaces import ReaderEvent
from doorstation.door.events import CardRead, DigitReceived
from doorstation.ua.events import InfoDigit


@pytest.mark.parametrize(
    "event",
    [
        CardRead("gate", "0A00F8D3C5"),
        DigitReceived("call", "0A00F8D3C5", "info"),
        InfoDigit("call", "0A00F8D3C5", 160),
        ReaderEvent("card", "0A00F8D3C5", 0.0),
    ],
)
def test_card_or_digit_in_a_traceback_is_not_readable(event: object) -> None:
    assert "0A00F8D3C5" not in repr(event)
