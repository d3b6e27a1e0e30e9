"""Which driver serves which part of the settings: the only module that knows both.

A driver is imported when the settings ask for it, so the fake board runs where no library for
hardware is installed.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final, TypeVar

import msgspec
from doorboard.closing import Closing
from doorboard.interfaces import (
    AudioPort,
    BoardError,
    Button,
    Contact,
    Indicator,
    Reader,
    Relay,
)

from doorstation.errors import DoorstationError
from doorstation.media import codecs
from doorstation.settings.tree import Audio, Settings

SERIAL_PORT: Final = "/dev/serial0"
"""Of the header, on a board that is none of the profiles'."""


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


class Missing(msgspec.Struct, frozen=True):
    """A part whose pin could not be opened."""

    why: str
    is_back: Callable[[], bool]
    """Whether it could be now."""


class Parts(msgspec.Struct, frozen=True):
    """The hardware of one door, by the names of the settings."""

    buttons: Mapping[str, Button]
    relays: Mapping[str, Relay]
    leds: Mapping[str, Indicator]
    contacts: Mapping[str, Contact]
    readers: Mapping[str, Reader]
    open_audio: Callable[[Audio], AudioPort]
    """With the volumes of these settings."""
    check_audio: tuple[str, ...] = ()
    """A command that says whether the sound card can be opened; empty: it always can."""
    inputs: FakeInputs | None = None
    missing: Mapping[str, Missing] = {}
    """What is not among the above, by kind and name: "button call"."""
    opus_complexity: int = codecs.COMPLEXITY


@contextlib.contextmanager
def make(settings: Settings) -> Iterator[Parts]:
    """The parts that the settings name; closed, and every relay released, at the end.

    A pin that cannot be opened makes its part a missing one: the others serve without it. Raises
    BoardError where there are no pins at all.
    """
    with contextlib.ExitStack() as stack:
        yield _fake(settings) if settings.board.kind == "fake" else _real(settings, stack)


def card(settings: Settings) -> AudioPort:
    """The sound card alone, for a look at it. Raises BoardError for one that is not there."""
    if settings.board.kind == "fake":
        from doorboard.fake import FakeBoard

        return FakeBoard(rate=settings.audio.rate).audio()
    return _alsa(settings.audio)


def simulated_card(room: str) -> AudioPort:
    """A card in one of the rooms of the fake board, at 16 kHz, whose time costs nothing."""
    from doorboard.fake import FakeBoard

    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return FakeBoard(room=room, rate=16000, clock=lambda: now[0], sleep=sleep).audio()


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
        open_audio=lambda _: board.audio(),
        inputs=FakeInputs(
            {name: contact.set for name, contact in contacts.items()},
            {name: presenting(name) for name in readers},
        ),
    )


def _real(settings: Settings, stack: contextlib.ExitStack) -> Parts:
    from doorboard.profile import detect_profile, load_profile

    name = settings.board.profile
    profile = load_profile(name) if name else detect_profile()
    complexity = codecs.COMPLEXITY if profile is None else profile.opus_complexity
    port = SERIAL_PORT if profile is None else profile.serial_port
    if not (settings.relays or settings.buttons or settings.leds or settings.contacts):
        # A device that nobody has configured yet: it may have no pins at all.
        return Parts(
            buttons={},
            relays={},
            leds={},
            contacts={},
            readers=_serial_readers(settings, port, stack),
            open_audio=_alsa,
            check_audio=_alsa_check(settings),
            opus_complexity=complexity,
        )
    from doorboard.gpio import (
        GpioButton,
        GpioContact,
        GpioIndicator,
        GpioRelay,
        ensure_pin_factory,
    )
    from doorboard.rest import noted

    chip = None if profile is None else profile.chip
    ensure_pin_factory(chip)
    high_is_on = {_pin(relay.pin): relay.active_high for relay in settings.relays.values()}
    stack.enter_context(noted(chip, high_is_on))
    missing: dict[str, Missing] = {}

    def opened(
        kind: str, wanted: Mapping[str, _Wanted], way: Callable[[_Wanted], _Driver]
    ) -> dict[str, _Driver]:
        found: dict[str, _Driver] = {}
        for name, one in wanted.items():
            try:
                found[name] = driver = way(one)
            except BoardError as error:
                missing[f"{kind} {name}"] = Missing(str(error), partial(_opens, way, one))
            else:
                stack.callback(driver.close)
        return found

    # Relays first: nothing that fails later may leave one undecided.
    relays = opened(
        "relay",
        settings.relays,
        lambda relay: GpioRelay(
            _pin(relay.pin), active_high=relay.active_high, hold_limit=relay.hold_limit
        ),
    )
    buttons = opened(
        "button",
        settings.buttons,
        lambda button: GpioButton(
            _pin(button.pin),
            pull=button.pull,
            active_high=button.pull == "down",
            debounce=button.debounce,
            hold=button.long_press,
            stuck=button.stuck_after,
        ),
    )
    leds = opened(
        "LED",
        settings.leds,
        lambda led: GpioIndicator(_pin(led.pin), active_high=led.active_high),
    )
    contacts = opened(
        "contact",
        settings.contacts,
        lambda contact: GpioContact(
            _pin(contact.pin),
            pull=contact.pull,
            active_high=contact.closed_when == "high",
            debounce=contact.debounce,
        ),
    )
    return Parts(
        buttons=buttons,
        relays=relays,
        leds=leds,
        contacts=contacts,
        readers=_serial_readers(settings, port, stack),
        open_audio=_alsa,
        check_audio=_alsa_check(settings),
        missing=missing,
        opus_complexity=complexity,
    )


_Wanted = TypeVar("_Wanted")
_Driver = TypeVar("_Driver", bound=Closing)


def _opens(way: Callable[[_Wanted], Closing], wanted: _Wanted) -> bool:
    try:
        way(wanted).close()
    except BoardError:
        return False
    return True


def _serial_readers(
    settings: Settings, port: str, stack: contextlib.ExitStack
) -> Mapping[str, Reader]:
    if not settings.readers:
        return {}
    from doorboard.serial_reader import SerialReader

    return {
        name: stack.enter_context(SerialReader(reader.port or port, baud_rate=reader.baud))
        for name, reader in settings.readers.items()
    }


def _alsa(audio: Audio) -> AudioPort:
    # In the media thread, when sound is first needed: alsa-lib costs memory and time.
    from doorboard.alsa import AlsaAudioPort

    return AlsaAudioPort(
        audio.device,
        rate=audio.rate,
        playback_volume=audio.speaker_volume,
        capture_volume=audio.microphone_volume,
    )


def _alsa_check(settings: Settings) -> tuple[str, ...]:
    audio = settings.audio
    # -P: nothing of the folder that the service was started in.
    python = (sys.executable, "-P", "-m", "doorboard.check_card")
    return (*python, audio.device, str(audio.rate))


def _pin(pin: int | None) -> int:
    assert pin is not None  # `settings` asks for it unless the board is fake
    return pin
