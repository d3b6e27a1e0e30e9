"""Codes: which relay an entry of digits opens, when an entry is finished, and the lock-out.

An entry opens as soon as it is a code that no longer code begins with. Otherwise it ends with
`#`, with a pause, or when no longer code is left to type. `*` clears it; but an entry that could
have been a code counts even when it is cleared or the call ends, or a guess would cost nothing.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from doorstation.settings.option import Secret
from doorstation.settings.text import MAX_CODE_DIGITS, MIN_CODE_DIGITS
from doorstation.settings.tree import Relay

MAX_FAR_ENDS: Final = 64  # callers with a wrong code at one time; bounds what callers can fill


class Code(msgspec.Struct, frozen=True):
    relay: str
    digits: Secret

    @property
    def short(self) -> bool:
        return len(self.digits) < MIN_CODE_DIGITS


class CodeBook:
    """Every code of every relay."""

    __slots__ = ("_codes",)

    def __init__(self, relays: Mapping[str, Relay]) -> None:
        self._codes = tuple(
            Code(name, code) for name, relay in relays.items() for code in relay.codes
        )

    def find(self, entered: str) -> Code | None:
        """The code that was entered. Compares with every code, in constant time each."""
        found = None
        for code in self._codes:
            if code.digits.matches(entered):
                found = code
        return found

    def lengths(self, *, short_codes: bool) -> tuple[int, ...]:
        """Lengths, rising, of the codes that may be used."""
        return tuple(sorted({len(c.digits) for c in self._codes if short_codes or not c.short}))

    def continues(self, entered: str, *, short_codes: bool) -> bool:
        """Whether a longer code that may be used begins like this."""
        size = len(entered)
        longer = False
        for code in self._codes:
            if len(code.digits) > size and (short_codes or not code.short):
                longer |= Secret(code.digits.reveal()[:size]).matches(entered)
        return longer


class Finished(msgspec.Struct, frozen=True):
    """An entry is over. `quiet`: nobody waits for an answer to it."""

    digits: int
    code: Code | None
    complete: bool
    """Long enough to be a code that may be used."""
    source: str
    quiet: bool = False


class CodeEntry:
    """The digits of one call, up to a finished entry."""

    __slots__ = ("_book", "_digits", "_lengths", "_short_codes", "_source")

    def __init__(self, book: CodeBook, *, short_codes: bool) -> None:
        self._book = book
        self._short_codes = short_codes
        self._lengths = book.lengths(short_codes=short_codes)
        self._digits = ""
        self._source = ""

    @property
    def count(self) -> int:
        """Digits entered so far."""
        return len(self._digits)

    def add(self, value: str, source: str, *, eager: bool) -> Finished | None:
        """Take one digit.

        Without `eager` nothing tells from the length of the entry whether it was right: for calls
        whose entries are refused anyway.
        """
        if value == "*":
            return self.abandon()
        if value == "#":
            return self.finish() if self._digits else None
        if len(value) != 1 or value not in "0123456789":
            return None
        self._digits += value
        self._source = source
        longest = MAX_CODE_DIGITS
        if eager:
            longest = self._lengths[-1] if self._lengths else MAX_CODE_DIGITS
            code = self._book.find(self._digits)
            if (
                code is not None
                and (self._short_codes or not code.short)
                and not self._book.continues(self._digits, short_codes=self._short_codes)
            ):
                return self.finish()
        return self.finish() if len(self._digits) >= longest else None

    def finish(self) -> Finished:
        """End the entry: `#` or a pause."""
        entered, self._digits = self._digits, ""
        shortest = self._lengths[0] if self._lengths else MIN_CODE_DIGITS
        return Finished(
            digits=len(entered),
            code=self._book.find(entered),
            complete=len(entered) >= shortest,
            source=self._source,
        )

    def abandon(self) -> Finished | None:
        """Clear the entry; what was long enough to be a guess is reported as one."""
        finished = self.finish()
        if not finished.complete:
            return None
        return Finished(finished.digits, None, True, finished.source, quiet=True)


class LockOut:
    """Wrong codes in a row, for each far end and for all together.

    A row is over with a right code, or `seconds` after the last wrong one: guessing slowly is
    then no faster than guessing into lock-outs.
    """

    __slots__ = ("_limit", "_limit_in_all", "_rows", "_seconds", "_total", "_total_until")

    def __init__(self, limit: int, limit_in_all: int, seconds: float) -> None:
        self._limit = limit
        self._limit_in_all = limit_in_all
        self._seconds = seconds
        self._rows: dict[str, tuple[int, float]] = {}  # far end -> wrong codes, forgotten at
        self._total = 0
        self._total_until = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, limit: int, limit_in_all: int, seconds: float) -> None:
        """Other limits; what was counted counts on."""
        self._limit, self._limit_in_all, self._seconds = limit, limit_in_all, seconds

    def locked(self, far_end: str, now: float) -> bool:
        wrong, until = self._rows.get(far_end, (0, 0.0))
        if now < until and wrong >= self._limit:
            return True
        return now < self._total_until and self._total >= self._limit_in_all

    def wrong(self, far_end: str, now: float) -> bool:
        """Count a wrong code; whether the far end is locked out from now on."""
        self._rows = {key: row for key, row in self._rows.items() if now < row[1]}
        count = self._rows.pop(far_end, (0, 0.0))[0] + 1
        if len(self._rows) >= MAX_FAR_ENDS:
            del self._rows[next(iter(self._rows))]  # the oldest; the total still counts it
        self._rows[far_end] = (count, now + self._seconds)
        self._total = self._total + 1 if now < self._total_until else 1
        self._total_until = now + self._seconds
        return self.locked(far_end, now)

    def right(self, far_end: str) -> None:
        """A right code ends the far end's row. The total ends by time alone: a caller who knows
        one code could otherwise guess others for ever."""
        self._rows.pop(far_end, None)
