"""Digits: RFC 4733 telephone-events in both directions, INFO bodies, and one stream out of all."""

import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from doorstation.errors import MalformedPacket, ProtocolError

_EVENT: Final = struct.Struct("!BBH")

DIGITS: Final = "0123456789*#ABCD"
"""The sixteen DTMF digits, in the order of their event codes (RFC 4733 3.2)."""

MAX_DURATION: Final = 0xFFFF
"""Ticks in one packet's duration; longer events go on in segments (RFC 4733 2.5.1.3)."""

_NEARLY: Final = 0x2000
"""Ticks by which a segment may fall short of that, or the next one begin beyond it: senders count
in whole packets. A key held for 1.4 s is two segments at 48 kHz."""

_VOLUME: Final = 10
"""-10 dBm0: what most phones send; receivers ignore it."""

_DIGIT_MS: Final = 100
"""Length of a digit where a body or a caller names none."""

_MIN_DIGIT_MS: Final = 40
_MIN_GAP_MS: Final = 100
"""Shorter ones are missed by gateways that turn events back into tones."""

MAX_QUEUED: Final = 64
"""Digits waiting to be sent: more than any code has; bounds what a wrong caller can pile up."""


STRAY: Final = "stray"
"""The source of a digit that came from a host which is not the far end's."""


INBAND: Final = "inband"
"""The source of a digit that came as tones in the voice."""


@dataclass(frozen=True, slots=True)
class Digit:
    """One key of the far end, pressed at `at`. `source`: "rfc4733", "info", INBAND or STRAY."""

    value: str = field(repr=False)  # asyncio logs the arguments of a callback that fails
    source: str
    at: float


MAX_A_SECOND: Final = 25
"""Digits: as many as RFC 4733's shortest allow. Attack bounded: packets that each begin another
digit, three thousand a second, would fill the event log and take the loop's time."""


class TelephoneEvent(msgspec.Struct, frozen=True):
    """One telephone-event payload; `duration` in ticks of its RTP clock."""

    event: int
    end: bool
    duration: int
    volume: int = _VOLUME


def parse_event(payload: bytes | memoryview) -> TelephoneEvent:
    """Read a telephone-event payload (RFC 4733 2.3). Raises MalformedPacket if under 4 bytes.

    Octets after the fourth are ignored: some gateways pad.
    """
    if len(payload) < 4:
        raise MalformedPacket(f"telephone-event payload of {len(payload)} bytes, 4 needed")
    event, flags, duration = _EVENT.unpack_from(payload)
    return TelephoneEvent(event, bool(flags & 0x80), duration, flags & 0x3F)


def format_event(event: TelephoneEvent) -> bytes:
    """Write a telephone-event payload."""
    return _EVENT.pack(event.event, (0x80 if event.end else 0) | event.volume, event.duration)


def check_digits(digits: str) -> None:
    """Raise ValueError for a digit that does not exist, or for more than can be queued."""
    for digit in digits:
        if digit.upper() not in DIGITS:
            raise ValueError(f"no such digit: {digit!r}; there are {DIGITS}")
    if len(digits) > MAX_QUEUED:
        raise ValueError(f"{len(digits)} digits at once, {MAX_QUEUED} can be sent")


class EventReceiver:
    """Turns the far end's telephone-event packets into digits, each once, at its start.

    An event is known by (SSRC, timestamp, code): the marker bit may be missing, the end may be lost
    or come three times, and packets may be reordered. Sonus gateways write a new timestamp into
    each packet of an event: what grows by as much as it comes later is no other press.
    """

    def __init__(self) -> None:
        # Enough for every event whose late repeats can still be on their way.
        self._recent: deque[tuple[int, int, int]] = deque(maxlen=16)
        self._last: tuple[int, int, int] = (-1, -1, -1)
        self._lasted = 0
        self._ended = True
        self._times: deque[float] = deque(maxlen=MAX_A_SECOND)

    def received(
        self, ssrc: int, timestamp: int, payload: bytes | memoryview, now: float
    ) -> Digit | None:
        """The digit that this packet starts, None for the rest of a known event.

        Raises MalformedPacket for a payload that is too short.
        """
        event = parse_event(payload)
        key = (ssrc, timestamp, event.event)
        if key == self._last:
            self._lasted = max(self._lasted, event.duration)
            self._ended |= event.end
            return None
        if key in self._recent:
            return None
        later = (timestamp - self._last[1]) & 0xFFFFFFFF
        continues = (self._last[0], self._last[2]) == (ssrc, event.event) and (
            (not self._ended and later in (event.duration - self._lasted, MAX_DURATION))
            or (event.end and later < self._lasted)
            or (
                not self._ended
                and self._lasted >= MAX_DURATION - _NEARLY
                and self._lasted <= later <= MAX_DURATION + _NEARLY
            )
        )
        self._recent.append(key)
        self._last = key
        self._lasted = event.duration
        self._ended = event.end
        if continues or event.event >= len(DIGITS):
            return None
        if len(self._times) == MAX_A_SECOND and now - self._times[0] < 1.0:
            return None
        self._times.append(now)
        return Digit(DIGITS[event.event], "rfc4733", now)


class EventSender:
    """Sends digits as telephone-events with RFC 4733's timing, driven by one `tick` a period.

        start          +20 ms    ...   end       +20 ms    +40 ms    gap: audio     next start
        M=1 dur=160    dur=320         E=1       E=1       E=1       >= 100 ms from the end on

    The timestamp stays that of the start. While an event or its ends are sent, no audio is.
    """

    def __init__(self, clock: int = 8000, period_ms: int = 20) -> None:
        self._clock = clock
        self._step = max(1, clock * period_ms // 1000)  # of any clock an SDP names, events end
        self._queue: deque[tuple[int, int, int]] = deque()
        self._event = -1
        self._start = 0
        self._duration = 0
        self._target = 0
        self._gap = 0
        self._ends_left = 0
        self._pause = 0

    @property
    def active(self) -> bool:
        """Whether the next `tick` has something to do: digits wait, sound or pause."""
        return self._event >= 0 or self._pause > 0 or bool(self._queue)

    def send(self, digits: str, duration_ms: int = _DIGIT_MS, gap_ms: int = _MIN_GAP_MS) -> int:
        """Queue digits; how many of them fit. Raises ValueError for one that does not exist."""
        check_digits(digits)
        codes = [DIGITS.index(digit) for digit in digits.upper()]
        del codes[MAX_QUEUED - len(self._queue) :]
        duration = max(duration_ms, _MIN_DIGIT_MS) * self._clock // 1000
        gap = max(gap_ms, _MIN_GAP_MS) * self._clock // 1000
        self._queue.extend((code, duration, gap) for code in codes)
        return len(codes)

    def tick(self, timestamp: int) -> list[tuple[int, bool, bytes]]:
        """Packets for the period at `timestamp` as (timestamp, marker, payload).

        An empty list means that audio may be sent in this period.
        """
        if self._event < 0:
            if self._pause > 0:
                self._pause -= self._step
            if self._pause > 0 or not self._queue:
                return []
            self._event, self._target, self._gap = self._queue.popleft()
            self._start = timestamp
            self._duration = 0
            self._ends_left = 3
            return self._advance(marker=True)
        return self._advance(marker=False)

    def _advance(self, marker: bool) -> list[tuple[int, bool, bytes]]:
        packets: list[tuple[int, bool, bytes]] = []
        if self._ends_left == 3:
            self._duration += self._step
            self._target -= self._step
            if self._duration > MAX_DURATION:
                packets.append((self._start, False, self._payload(MAX_DURATION, end=False)))
                self._start = (self._start + MAX_DURATION) & 0xFFFFFFFF
                self._duration -= MAX_DURATION
        ending = self._target <= 0
        packets.append((self._start, marker, self._payload(self._duration, end=ending)))
        if ending:
            self._ends_left -= 1
            if self._ends_left == 0:
                self._event = -1
                # Two of the three ends were sent inside the gap; the next tick counts one more.
                self._pause = self._gap - self._step
        return packets

    def _payload(self, duration: int, end: bool) -> bytes:
        return format_event(TelephoneEvent(self._event, end, duration))


@dataclass(frozen=True, slots=True)
class InfoDigit:
    """One digit of an INFO body."""

    value: str = field(repr=False)
    duration_ms: int = _DIGIT_MS


RELAY: Final = "application/dtmf-relay"
PLAIN: Final = "application/dtmf"

_MAX_BODY: Final = 512
"""Octets of a digit body: several times what any phone writes."""

_CODES: Final = {"10": "*", "11": "#", "12": "A", "13": "B", "14": "C", "15": "D"}


def parse_info(content_type: str, body: bytes) -> list[InfoDigit]:
    """Digits of an INFO, by `application/dtmf-relay`, `application/dtmf`, or bare digits.

    Both types are read both ways, as phones mix them; `Signal` may be an event code (10 is *).
    Raises ProtocolError with 415 for another type, 400 naming what is wrong in the body.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (RELAY, PLAIN, "text/plain", ""):
        raise ProtocolError(f"INFO with {kind}: {RELAY} and {PLAIN} are understood", 415)
    if len(body) > _MAX_BODY:
        raise MalformedPacket(f"INFO body of {len(body)} bytes, {_MAX_BODY} allowed")
    lines = [line.strip() for line in body.decode("ascii", "replace").splitlines() if line.strip()]
    signal: str | None = None
    duration = _DIGIT_MS
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals:
            continue
        match name.strip().lower():
            case "signal":
                signal = value.strip().upper()
            case "duration":
                number = value.strip()
                if number.isdecimal() and number.isascii() and len(number) <= 6:
                    duration = int(number)
            case _:
                pass
    if signal is None and len(lines) == 1 and "=" not in lines[0]:
        digits = lines[0].upper().replace(" ", "")
        if digits and len(digits) <= MAX_QUEUED and all(digit in DIGITS for digit in digits):
            return [InfoDigit(digit) for digit in digits]
        # Never the body itself: this goes into the answer and the log, and a code is in it.
        raise MalformedPacket(f"INFO with a digit that does not exist: there are {DIGITS}")
    if signal is None:
        raise MalformedPacket("INFO body without Signal")
    value = _CODES.get(signal, signal)
    if len(value) != 1 or value not in DIGITS:
        raise MalformedPacket(f"INFO Signal is not one digit of {DIGITS}")
    return [InfoDigit(value, duration)]


def format_info(digit: InfoDigit, content_type: str = RELAY) -> bytes:
    """The INFO body that sends one digit. Raises ValueError for one that does not exist."""
    if len(digit.value) != 1 or digit.value not in DIGITS:
        raise ValueError(f"no such digit: {digit.value!r}; there are {DIGITS}")
    if content_type == PLAIN:
        return digit.value.encode("ascii")
    return f"Signal={digit.value}\r\nDuration={digit.duration_ms}\r\n".encode("ascii")


class DigitMerger:
    """One stream of digits out of RFC 4733, INFO and tones, when a key comes in several ways.

    A digit is passed on at once, from whichever source is first. The same digit from another
    source then finds it waiting and is swallowed, once for each source, so that a fast "55" stays
    two digits and a phone that uses one way only never loses any.
    """

    WINDOW: Final = 1.0
    """Seconds between two reports of one key: an INFO may be sent twice over a lossy link."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Digit, set[str]]] = deque(maxlen=32)

    def heard(self, digit: Digit, held: float = 0.0) -> Digit | None:
        """The digit if it is new, None if the other source has reported it.

        `held` is the seconds the key was down before this report: an INFO comes at its release.
        """
        pressed = digit.at - held
        waiting = self._waiting
        while waiting and digit.at - waiting[0][0].at > self.WINDOW + held:
            waiting.popleft()
        for earlier, sources in waiting:
            if (
                digit.source not in sources
                and earlier.value == digit.value
                and abs(pressed - earlier.at) <= self.WINDOW
            ):
                sources.add(digit.source)
                return None
        waiting.append((Digit(digit.value, digit.source, pressed), {digit.source}))
        return digit
