"""Which driver serves which part of the settings: the only module that knows both.

A driver is imported when the settings ask for it, so the fake board runs where no library for
hardware is installed.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from doorboard.interfaces import AudioPort, Button, Contact, Indicator, Reader, Relay

from doorstation.errors import DoorstationError
from doorstation.settings import Settings


class FakeInputs:
    """The visitor's side of the fake board, for `doorstation ctl`."""

    def __init__(
        self,
        contacts: Mapping[str, Callable[[bool], None]],
        readers: Mapping[str, Callable[[str], None]],
    ) -> None:
        self._contacts = contacts
        self._readers = readers

    def contact(self, name: str, state: str) -> None:
        """Open or close a door contact. Raises DoorstationError for an unknown one."""
        _found("contact", self._contacts, name)(state == "closed")

    def reader(self, name: str, value: str) -> None:
        """Present a card, or type a line of keys. Raises DoorstationError for an unknown one."""
        _found("reader", self._readers, name)(value)


def _found(kind: str, parts: Mapping[str, Callable[..., None]], name: str) -> Callable[..., None]:
    try:
        return parts[name]
    except KeyError:
        known = ", ".join(parts) or "none"
        raise DoorstationError(f"no {kind} {name!r}; there are: {known}") from None


@dataclass(frozen=True, slots=True)
class Parts:
    """The hardware of one door, by the names of the settings."""

    buttons: Mapping[str, Button]
    relays: Mapping[str, Relay]
    leds: Mapping[str, Indicator]
    contacts: Mapping[str, Contact]
    readers: Mapping[str, Reader]
    open_audio: Callable[[], AudioPort]
    inputs: FakeInputs | None = None


@contextlib.contextmanager
def make(settings: Settings) -> Iterator[Parts]:
    """The parts that the settings name; closed, and every relay released, at the end.

    Raises BoardError for a part that is not there.
    """
    with contextlib.ExitStack() as stack:
        yield _fake(settings) if settings.board.kind == "fake" else _real(settings, stack)


def _fake(settings: Settings) -> Parts:
    from doorboard.fake import FakeBoard

    audio = settings.audio
    board = FakeBoard(microphone=audio.microphone or None, rate=audio.rate)
    contacts = {name: board.contact(name) for name in settings.contacts}
    readers = {name: board.reader(name) for name in settings.readers}

    def presenting(name: str) -> Callable[[str], None]:
        if settings.readers[name].protocol == "keypad":
            return readers[name].type
        return readers[name].present

    return Parts(
        buttons={name: board.button(name) for name in settings.buttons},
        relays={name: board.relay(name) for name in settings.relays},
        leds={name: board.indicator(name) for name in settings.leds},
        contacts=contacts,
        readers=readers,
        open_audio=board.audio,
        inputs=FakeInputs(
            {name: contact.set for name, contact in contacts.items()},
            {name: presenting(name) for name in readers},
        ),
    )
