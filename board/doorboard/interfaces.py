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
    """What every driver can do."""

    def close(self) -> None:
        """Let the hardware go, at rest; no callback any more."""
        ...


class Button(Device, Protocol):
    """A bell button, debounced."""

    @property
    def pressed(self) -> bool:
        """Whether it is in now; one that was in before the start is, and reports no press."""
        ...

    def watch(self, callback: Callable[[ButtonEvent], None]) -> None:
        """Report every event from now on; one watcher."""
        ...


class Contact(Device, Protocol):
    """A door contact, debounced."""

    @property
    def closed(self) -> bool:
        """Whether the door is shut now."""
        ...

    def watch(self, callback: Callable[[bool, float], None]) -> None:
        """Report every debounced change as (closed, at) from now on; one watcher."""
        ...


class Relay(Device, Protocol):
    """Rests released. `close()` releases; the driver enforces `hold_limit` seconds by itself."""

    @property
    def on(self) -> bool:
        """Whether it is energised, as far as its driver knows."""
        ...

    @property
    def pulses(self) -> int:
        """How often it went from released to energised."""
        ...

    def watch(self, callback: Callable[[bool, float], None]) -> None:
        """Report every change as (on, at), a release by the hold limit too; one watcher."""
        ...

    def energise(self) -> None:
        """Pull; one that is pulled already stays, and its limit counts from the first time.

        Raises BoardError when it cannot be, or may not have been.
        """
        ...

    def release(self) -> None:
        """Back to rest. Raises BoardError."""
        ...


class Indicator(Device, Protocol):
    """Shows "idle", "registering", "ringing", "in_call", "door_open", "fault", "claimed", "off"."""

    @property
    def pattern(self) -> str:
        """What it shows now."""
        ...

    def show(self, pattern: str) -> None:
        """Show this until told otherwise. Raises ValueError for another pattern, BoardError."""
        ...


@dataclass(frozen=True, slots=True)
class ReaderEvent:
    """`kind`: "card" (upper-case hex), "keys" (a keypad line), "unplugged", "back", "bad_bytes"."""

    kind: str
    value: str = field(repr=False)
    at: float


class Reader(Device, Protocol):
    """A card reader or keypad; one that is pulled out is waited for."""

    def watch(self, callback: Callable[[ReaderEvent], None]) -> None:
        """Report every event from now on; one watcher."""
        ...


class AudioPort(Device, Protocol):
    """A sound card, mono S16LE, both directions, one clock: the capture period.

    Used by one thread only. `open()` may be called again after a BoardError or `close()`.
    """

    rate: int
    """Hz; known after `open()`."""
    period: int
    """Frames in one period of 20 ms: rate // 50; known after `open()`."""
    overruns: int
    """How often captured sound was lost, since the driver was made."""
    underruns: int
    """How often the loudspeaker had nothing to play, likewise."""

    def open(self) -> None:
        """Start both directions, stale capture dropped, playback primed with silence.

        Raises BoardError, naming the cards that there are.
        """
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
