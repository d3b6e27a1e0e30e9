"""Decisions with a reason: pure functions that allow or refuse and name the rule."""

from typing import Final

import msgspec

COUNTED_SOURCES: Final = frozenset({"rfc4733", "info"})
"""Where a digit must come from. Tones in the sound can be whistled by the visitor."""


class Decision(msgspec.Struct, frozen=True):
    allowed: bool
    rule: str


class CodeAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """A finished entry of digits in a call."""

    may_open: bool
    """The far end of this call may open: the door called it, or its settings say so."""
    locked_out: bool
    known: bool
    """The entry is a code of some relay."""
    short: bool
    """It has fewer digits than a code normally needs."""
    short_codes: bool
    """Short codes are allowed in this call."""
    complete: bool
    """It is long enough to be a code of this call."""


class CardAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """A card or a keypad line at a reader."""

    locked_out: bool
    known: bool


def may_count(*, in_call: bool, source: str, inband_digits: bool) -> Decision:
    """Whether a digit is taken into an entry. `in_call`: from the call that is connected now.

    `inband_digits`: tones in the far end's voice are digits, by its settings.
    """
    if not in_call:
        return Decision(False, "no_call")
    if source not in COUNTED_SOURCES and not (source == "inband" and inband_digits):
        return Decision(False, "stray" if source == "stray" else "in_band")
    return Decision(True, "counted")


def may_release(attempt: CodeAttempt | CardAttempt) -> Decision:
    """Whether the door opens, by the first rule that applies."""
    if isinstance(attempt, CardAttempt):
        if attempt.locked_out:
            return Decision(False, "locked_out")
        return Decision(True, "card") if attempt.known else Decision(False, "unknown_card")
    if not attempt.may_open:
        return Decision(False, "may_not_open")
    if attempt.locked_out:
        return Decision(False, "locked_out")
    if attempt.known:
        if attempt.short and not attempt.short_codes:
            return Decision(False, "short_code")
        return Decision(True, "code")
    return Decision(False, "wrong_code" if attempt.complete else "incomplete")


def counts_as_guess(decision: Decision) -> bool:
    """Whether a refusal brings the lock-out nearer: the entry could have been a code."""
    return decision.rule in {"wrong_code", "short_code", "unknown_card"}


class Reception(msgspec.Struct, frozen=True):
    """What happens with a call in: `answer` is "accept", "ring" or "reject" with `status`."""

    answer: str
    rule: str
    status: int = 0


def receive_call(*, known: bool, may_call: bool, idle: bool, auto_answer: bool) -> Reception:
    """How the door takes a call in. Only a far end that is known may get as far as ringing."""
    if not known:
        return Reception("reject", "unknown_caller", 403)
    if not may_call:
        return Reception("reject", "may_not_call", 403)
    if not idle:
        return Reception("reject", "one_call", 486)
    return Reception("accept", "auto_answer") if auto_answer else Reception("ring", "rings")
