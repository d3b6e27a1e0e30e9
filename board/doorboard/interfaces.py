"""What the firmware knows of the hardware. One driver per file implements these.

Drivers own their threads. A callback runs in a driver's thread: the owner hands it over with
`loop.call_soon_threadsafe` and returns at once. Times are `time.monotonic()` seconds, stamped at
the edge. Every driver is a context manager whose `close()` may be called twice.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class BoardError(Exception):
    """The hardware fails: unplugged, missing, in use. The message names part and what exists."""


@dataclass(frozen=True, slots=True)
class ButtonEvent:
    """A debounced edge. `kind`: "pressed", "released", "held" (long press), "stuck", "freed"."""

    kind: str
    at: float


class Device(Protocol):
    def close(self) -> None: ...


class Button(Device, Protocol):
    @property
    def pressed(self) -> bool:
        """Whether it is in now; one that was in before the start is, and reports no press."""
        ...

    def watch(self, callback: Callable[[ButtonEvent], None]) -> None:
        """Report every event from now on; one watcher."""
        ...


class Contact(Device, Protocol):
    """A door contact: closed is True."""

    @property
    def closed(self) -> bool: ...

    def watch(self, callback: Callable[[bool, float], None]) -> None:
        """Report every debounced change as (closed, at) from now on; one watcher."""
        ...


class Relay(Device, Protocol):
    """Rests released. `close()` releases; the driver enforces `hold_limit` seconds by itself."""

    @property
    def on(self) -> bool: ...

    @property
    def pulses(self) -> int:
        """How often it went from released to energised."""
        ...

    def watch(self, callback: Callable[[bool, float], None]) -> None:
        """Report every change as (on, at), a release by the hold limit too; one watcher."""
        ...

    def energise(self) -> None: ...

    def release(self) -> None: ...


class Indicator(Device, Protocol):
    """Shows "idle", "registering", "ringing", "in_call", "door_open", "fault", "off"."""

    @property
    def pattern(self) -> str: ...

    def show(self, pattern: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ReaderEvent:
    """`kind`: "card" (upper-case hex), "keys" (a keypad line), "unplugged", "back", "bad_bytes"."""

    kind: str
    value: str = field(repr=False)
    at: float


class Reader(Device, Protocol):
    def watch(self, callback: Callable[[ReaderEvent], None]) -> None: ...


class AudioPort(Device, Protocol):
    """A sound card, mono S16LE, both directions, one clock: the capture period.

    Used by one thread only. `open()` may be called again after a BoardError or `close()`.
    """

    rate: int
    """Hz; known after `open()`."""
    period: int
    """Frames in one period of 20 ms: rate // 50; known after `open()`."""
    overruns: int
    underruns: int

    def open(self) -> None:
        """Start both directions, stale capture dropped, playback primed with silence."""
        ...

    def read(self) -> bytes:
        """Block until the next period is captured; raises BoardError when the card is gone."""
        ...

    def write(self, period: bytes) -> bytes:
        """Queue one period for the loudspeaker; raises BoardError when the card is gone.

        Returns what was queued: to keep the queue short or filled it may be less, or more.
        """
        ...

    @property
    def delay(self) -> float:
        """Seconds from the last `write` to its first frame's sound, as the card reports it."""
        ...
