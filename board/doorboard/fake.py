"""A board for people without hardware, and for tests: everything happens when it is told to.

Callbacks run in the thread that calls `press()`, `set()`, `present()`: no thread is made here.
`FakeBoard` hands parts out by name, as the composition of a real board does.
"""

import time
import wave
from collections import deque
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Final

from doorboard.closing import Closing
from doorboard.fake_room import FakeRoom
from doorboard.framing import Framing
from doorboard.interfaces import BoardError, ButtonEvent, ReaderEvent
from doorboard.patterns import lengths

VISITOR: Final = Path(__file__).parent / "sounds" / "visitor.wav"
"""A visitor's words, 8 kHz mono S16: the microphone of the trial door."""

HISTORY: Final = 64
"""Entries kept of what an LED showed."""

BACKLOG_PERIODS: Final = 4
"""As a card with a buffer of four periods: a reader later than that loses sound."""


class FakeButton(Closing):
    """A call button; `press()` and `release()` are the finger."""

    def __init__(self, name: str = "button", *, clock: Callable[[], float] = time.monotonic):
        self.name = name
        self.pressed = False
        self.closed = False
        self._clock = clock
        self._stuck = False
        self._callback: Callable[[ButtonEvent], None] | None = None

    def watch(self, callback: Callable[[ButtonEvent], None]) -> None:
        self._callback = callback

    def press(self) -> None:
        if not self.pressed:
            self.pressed = True
            self._tell("pressed")

    def release(self) -> None:
        if self.pressed:
            self.pressed = False
            self._tell("released")
            if self._stuck:
                self._stuck = False
                self._tell("freed")

    def hold(self) -> None:
        """Press, and keep it pressed until it counts as a long press."""
        self.press()
        self._tell("held")

    def stick(self) -> None:
        """Press, and keep it pressed until the driver calls it stuck; `release()` frees it."""
        self.press()
        if not self._stuck:
            self._stuck = True
            self._tell("stuck")

    def close(self) -> None:
        self.closed = True
        self._callback = None

    def _tell(self, kind: str) -> None:
        if self._callback is not None:
            self._callback(ButtonEvent(kind, self._clock()))


class FakeContact(Closing):
    """A door contact; `set()` is the door."""

    def __init__(
        self,
        name: str = "contact",
        *,
        closed: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.name = name
        self._closed = closed
        self._clock = clock
        self._callback: Callable[[bool, float], None] | None = None

    @property
    def closed(self) -> bool:
        return self._closed

    def watch(self, callback: Callable[[bool, float], None]) -> None:
        self._callback = callback

    def set(self, closed: bool) -> None:
        if closed != self._closed:
            self._closed = closed
            if self._callback is not None:
                self._callback(closed, self._clock())

    def close(self) -> None:
        self._callback = None


class FakeRelay(Closing):
    """A relay with a lamp in place of a lock; `expire()` is its hold limit running out."""

    def __init__(self, name: str = "relay", *, clock: Callable[[], float] = time.monotonic):
        self.name = name
        self.closed = False
        self._clock = clock
        self._on = False
        self._pulses = 0
        self._callback: Callable[[bool, float], None] | None = None

    @property
    def on(self) -> bool:
        return self._on

    @property
    def pulses(self) -> int:
        return self._pulses

    def watch(self, callback: Callable[[bool, float], None]) -> None:
        self._callback = callback

    def energise(self) -> None:
        if self.closed:
            raise BoardError(f"relay {self.name} is closed")
        if not self._on:
            self._on = True
            self._pulses += 1
            self._tell()

    def release(self) -> None:
        if self._on:
            self._on = False
            self._tell()

    def expire(self) -> None:
        """What the driver does when the relay was held for too long."""
        self.release()

    def close(self) -> None:
        self.release()
        self.closed = True
        self._callback = None

    def _tell(self) -> None:
        if self._callback is not None:
            self._callback(self._on, self._clock())


class FakeIndicator(Closing):
    """An LED that remembers what it showed."""

    def __init__(self, name: str = "led"):
        self.name = name
        self.closed = False
        self.history: deque[str] = deque(["off"], HISTORY)
        self._callback: Callable[[str], None] | None = None

    @property
    def pattern(self) -> str:
        return self.history[-1]

    def watch(self, callback: Callable[[str], None]) -> None:
        """Report every change of pattern; only the fake has this: the panel draws it."""
        self._callback = callback

    def show(self, pattern: str) -> None:
        lengths(pattern)  # a wrong name fails here as it does on the real LED
        if pattern != self.pattern:
            self.history.append(pattern)
            if self._callback is not None:
                self._callback(pattern)

    def close(self) -> None:
        self._callback = None
        self.closed = True


class FakeReader(Closing):
    """A card reader or keypad; `present()` and `type()` are the visitor."""

    def __init__(self, name: str = "reader", *, clock: Callable[[], float] = time.monotonic):
        self.name = name
        self._clock = clock
        self._callback: Callable[[ReaderEvent], None] | None = None

    def watch(self, callback: Callable[[ReaderEvent], None]) -> None:
        self._callback = callback

    def present(self, card: str) -> None:
        self._tell("card", card.upper())

    def type(self, keys: str) -> None:
        """Press these keys, and the one that ends the line."""
        for frame in Framing().receive(keys.encode() + b"#", self._clock()):
            self._tell(frame.kind, frame.value)

    def unplug(self) -> None:
        self._tell("unplugged", "")

    def plug(self) -> None:
        self._tell("back", "")

    def close(self) -> None:
        self._callback = None

    def _tell(self, kind: str, value: str) -> None:
        if self._callback is not None:
            self._callback(ReaderEvent(kind, value, self._clock()))


def load_microphone(path: str | PathLike[str], rate: int) -> bytes:
    """Samples of a WAV file that must be mono S16 at `rate`: a fake card converts nothing."""
    try:
        with wave.open(str(path), "rb") as file:
            shape = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            samples = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise BoardError(f"microphone {path}: {error}") from error
    if shape != (1, 2, rate):
        raise BoardError(
            f"microphone {path}: {shape[0]} channels of {shape[1]} bytes at {shape[2]} Hz, "
            f"1 channel of 2 bytes at {rate} Hz needed"
        )
    return samples


class FakeAudioPort(Closing):
    """A sound card without one: a WAV file or silence for a microphone, a short memory for a
    loudspeaker, and a clock whose n-th period ends at start + n * 20 ms, however late anyone was.
    In a `room` (see `fake_room.ROOMS`) the microphone also hears the loudspeaker.

    `heard()` may be called from any thread; the rest belongs to the thread that reads.
    """

    def __init__(
        self,
        name: str = "default",
        *,
        rate: int = 8000,
        microphone: str | PathLike[str] | None = None,
        loop: bool = True,
        room: str = "",
        remember: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.name = name
        self.rate = rate
        self.period = rate // 50
        self.overruns = 0
        self.underruns = 0
        self.written = 0  # periods, since it was made
        self._clock = clock
        self._sleep = sleep
        self._silence = bytes(2 * self.period)
        self._microphone = b""
        self._position = 0
        self._loop = loop
        self._ring: deque[bytes] = deque(maxlen=max(1, round(remember * 50)))
        self._room = FakeRoom(room, rate) if room else None
        self._sounding: deque[bytes] = deque()
        self._plugged = True
        self._open = False
        self._start = 0.0
        self._ticks = 0
        self._queued = 0
        if microphone is not None:
            self.speak(microphone, loop=loop)

    def speak(self, path: str | PathLike[str], *, loop: bool = False) -> None:
        """Play a WAV file to the microphone from its beginning; then silence, unless looped."""
        samples = load_microphone(path, self.rate)
        spare = -len(samples) % len(self._silence)
        self._microphone, self._position, self._loop = samples + bytes(spare), 0, loop

    def hush(self) -> None:
        """Silence before the microphone."""
        self._microphone, self._position = b"", 0

    def heard(self) -> bytes:
        """What the loudspeaker played of late, oldest first, S16."""
        return b"".join(self._ring.copy())

    def unplug(self) -> None:
        self._plugged = False

    def plug(self) -> None:
        self._plugged = True

    def open(self) -> None:
        self._open = False
        self._check_plugged()
        self._open = True
        self._start, self._ticks, self._queued = self._clock(), 0, 2
        self._sounding = deque([self._silence] * 2)

    def read(self) -> bytes:
        if not self._open:
            raise BoardError(f"sound card {self.name} is not open")
        self._ticks += 1
        wait = self._start + self._ticks * 0.02 - self._clock()
        if wait > 0:
            self._sleep(wait)
        elif wait < -0.02 * BACKLOG_PERIODS:
            self.overruns += 1
            self._start, self._ticks = self._clock(), 0
            self._queued = 0
            self._sounding.clear()
        self._check_plugged()
        # The loudspeaker's clock is the same one: each period captured is a period played.
        if self._queued:
            self._queued -= 1
        elif self.written:
            self.underruns += 1
        frame = self._spoken()
        if self._room is None:
            return frame
        played = self._sounding.popleft() if self._sounding else self._silence
        return self._room.heard(played, frame)

    def _spoken(self) -> bytes:
        """What somebody says before the microphone."""
        end = self._position + len(self._silence)
        if not self._microphone or end > len(self._microphone):
            return self._silence
        frame = self._microphone[self._position : end]
        self._position = 0 if self._loop and end == len(self._microphone) else end
        return frame

    def write(self, period: bytes) -> bytes:
        if not self._open:
            raise BoardError(f"sound card {self.name} is not open")
        self._check_plugged()
        if len(period) != len(self._silence):
            raise ValueError(f"period of {len(period)} bytes, {len(self._silence)} needed")
        self.written += 1
        if self._queued == BACKLOG_PERIODS:
            return b""
        self._queued += 1
        self._ring.append(period)
        if self._room is not None:
            self._sounding.append(period)
        return period

    @property
    def delay(self) -> float:
        return max(0, self._queued - 1) * 0.02

    def close(self) -> None:
        self._open = False

    def _check_plugged(self) -> None:
        if not self._plugged:
            self._open = False
            raise BoardError(f"sound card {self.name} is unplugged")


class FakeBoard(Closing):
    """Makes parts by name, once each, and keeps them where a test finds them."""

    def __init__(
        self,
        *,
        microphone: str | PathLike[str] | None = None,
        room: str = "",
        rate: int = 8000,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.buttons: dict[str, FakeButton] = {}
        self.contacts: dict[str, FakeContact] = {}
        self.relays: dict[str, FakeRelay] = {}
        self.indicators: dict[str, FakeIndicator] = {}
        self.readers: dict[str, FakeReader] = {}
        self.ports: dict[str, FakeAudioPort] = {}
        self._microphone = microphone
        self._room = room
        self._rate = rate
        self._clock = clock
        self._sleep = sleep

    def button(self, name: str) -> FakeButton:
        return self.buttons.setdefault(name, FakeButton(name, clock=self._clock))

    def contact(self, name: str) -> FakeContact:
        return self.contacts.setdefault(name, FakeContact(name, clock=self._clock))

    def relay(self, name: str) -> FakeRelay:
        return self.relays.setdefault(name, FakeRelay(name, clock=self._clock))

    def indicator(self, name: str) -> FakeIndicator:
        return self.indicators.setdefault(name, FakeIndicator(name))

    def reader(self, name: str) -> FakeReader:
        return self.readers.setdefault(name, FakeReader(name, clock=self._clock))

    def audio(self, name: str = "default") -> FakeAudioPort:
        if name not in self.ports:
            self.ports[name] = FakeAudioPort(
                name,
                rate=self._rate,
                microphone=self._microphone,
                room=self._room,
                clock=self._clock,
                sleep=self._sleep,
            )
        return self.ports[name]

    def close(self) -> None:
        for parts in (
            self.relays,
            self.buttons,
            self.contacts,
            self.indicators,
            self.readers,
            self.ports,
        ):
            for part in parts.values():
                part.close()
