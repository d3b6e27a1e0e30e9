"""What card readers and keypads say on a serial line: bytes in, cards and key lines out.

Cards (RDM6300 and its kin): STX, ten hex digits, two hex digits that are the XOR of the five bytes,
ETX; an ID-12LA puts CR LF before the ETX. Keypads and Wiegand converters: printable text that ends
with CR, LF or "#" and begins anew at "*". Both may share a line. Anything else is noise: skipped,
counted, and never more than a frame of it kept.
"""

from dataclasses import dataclass
from enum import Enum, auto
from functools import reduce
from operator import xor
from typing import Final, Literal

STX: Final = 0x02
ETX: Final = 0x03
LINE_ENDS: Final = b"\r\n#"
CLEAR: Final = ord("*")
HEX: Final = frozenset(b"0123456789ABCDEFabcdef")

CARD_DIGITS: Final = 12
LINE_LIMIT: Final = 32
"""Longer than any code; bounds what a broken line (or a hand on the keypad) may collect."""

CARD_GAP: Final = 1.0
"""A card that lies there is read some ten times a second: seen again within this, it never left."""

FRAME_TIMEOUT: Final = 1.0
"""The rest of a card's frame comes within milliseconds, or not at all."""

LINE_TIMEOUT: Final = 10.0
"""Digits left behind by one visitor must not become the beginning of the next one's code."""


@dataclass(frozen=True, slots=True)
class Frame:
    """`kind`: "card" (ten upper-case hex digits) or "keys" (a line without its end)."""

    kind: Literal["card", "keys"]
    value: str


class State(Enum):
    BETWEEN = auto()
    CARD = auto()
    LINE = auto()
    OVERLONG = auto()  # until the line ends or is cleared


class Framing:
    """Cuts a byte stream into frames; `bad_bytes` counts what belonged to none."""

    __slots__ = ("_card", "_card_at", "_collected", "_last_byte", "_state", "bad_bytes")

    def __init__(self) -> None:
        self.bad_bytes = 0
        self._state = State.BETWEEN
        self._collected = bytearray()
        self._last_byte = 0.0
        self._card = ""
        self._card_at = 0.0

    def receive(self, data: bytes, now: float) -> list[Frame]:
        """Frames completed by these bytes; a card that still lies there is not repeated."""
        patience = FRAME_TIMEOUT if self._state is State.CARD else LINE_TIMEOUT
        if self._state is not State.BETWEEN and now - self._last_byte > patience:
            self._give_up()
        self._last_byte = now
        frames: list[Frame] = []
        for byte in data:
            frame = self._byte(byte, now)
            if frame is not None:
                frames.append(frame)
        return frames

    def reset(self) -> None:
        """The line was cut: what was collected, and the card that lay there, are forgotten."""
        self._give_up()
        self._card = ""

    def _byte(self, byte: int, now: float) -> Frame | None:
        if byte == STX:
            self._give_up()
            self._state = State.CARD
            return None
        if self._state is State.CARD:
            return self._card_byte(byte, now)
        if byte in LINE_ENDS:
            return self._line_end()
        if byte == CLEAR:
            # As in a call. Nothing tells whether what is cleared was a code: it was no guess.
            self._collected.clear()
            self._state = State.BETWEEN
            return None
        if not 0x20 <= byte < 0x7F or self._state is State.OVERLONG:
            self.bad_bytes += 1
        elif len(self._collected) == LINE_LIMIT:
            self._give_up()
            self.bad_bytes += 1
            self._state = State.OVERLONG
        else:
            self._collected.append(byte)
            self._state = State.LINE
        return None

    def _card_byte(self, byte: int, now: float) -> Frame | None:
        if byte in HEX and len(self._collected) < CARD_DIGITS:
            self._collected.append(byte)
            return None
        if byte in b"\r\n" and len(self._collected) == CARD_DIGITS:
            return None
        if byte != ETX or len(self._collected) != CARD_DIGITS:
            self._give_up()
            self.bad_bytes += 1
            return None
        digits = self._collected.decode("ascii").upper()
        values = bytes.fromhex(digits)
        if reduce(xor, values):  # five bytes and their XOR: all six cancel out
            self._give_up()
            self.bad_bytes += 1
            return None
        self._state = State.BETWEEN
        self._collected.clear()
        card, lies_there = digits[:10], digits[:10] == self._card and now - self._card_at < CARD_GAP
        self._card, self._card_at = card, now
        return None if lies_there else Frame("card", card)

    def _line_end(self) -> Frame | None:
        line = self._collected.decode("ascii").strip()
        self._state = State.BETWEEN
        self._collected.clear()
        return Frame("keys", line) if line else None

    def _give_up(self) -> None:
        """What was collected will never be a frame."""
        self.bad_bytes += len(self._collected) + (self._state is State.CARD)
        self._collected.clear()
        self._state = State.BETWEEN
