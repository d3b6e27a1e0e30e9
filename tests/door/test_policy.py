"""Every decision of the door over all combinations of what it looks at."""

from itertools import product

import pytest
from doorstation.door.policy import (
    CardAttempt,
    CodeAttempt,
    Decision,
    counts_as_guess,
    may_count,
    may_release,
    receive_call,
)

CODE_FACTS = ("may_open", "locked_out", "known", "short", "short_codes", "complete")
ATTEMPTS = [
    CodeAttempt(**dict(zip(CODE_FACTS, facts, strict=True)))
    for facts in product([False, True], repeat=len(CODE_FACTS))
]


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_code_opens_only_if_known_allowed_not_locked_out_and_long_enough(
    attempt: CodeAttempt,
) -> None:
    decision = may_release(attempt)
    assert decision.allowed == (
        attempt.may_open
        and not attempt.locked_out
        and attempt.known
        and (attempt.short_codes or not attempt.short)
    )
    assert (decision.rule == "code") == decision.allowed


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_refusal_names_the_first_rule_that_applies(attempt: CodeAttempt) -> None:
    rule = may_release(attempt).rule
    if not attempt.may_open:
        assert rule == "may_not_open"
    elif attempt.locked_out:
        assert rule == "locked_out"
    elif not attempt.known:
        assert rule == ("wrong_code" if attempt.complete else "incomplete")
    elif attempt.short and not attempt.short_codes:
        assert rule == "short_code"


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_refusal_of_a_far_end_that_may_not_open_tells_nothing_of_the_code(
    attempt: CodeAttempt,
) -> None:
    decision = may_release(attempt)
    if decision.rule in {"may_not_open", "locked_out"}:
        assert not counts_as_guess(decision)


@pytest.mark.parametrize(
    ("locked_out", "known", "expected"),
    [
        (False, False, Decision(False, "unknown_card")),
        (False, True, Decision(True, "card")),
        (True, False, Decision(False, "locked_out")),
        (True, True, Decision(False, "locked_out")),
    ],
)
def test_card_opens_only_if_known_and_not_locked_out(
    locked_out: bool, known: bool, expected: Decision
) -> None:
    assert may_release(CardAttempt(locked_out=locked_out, known=known)) == expected


@pytest.mark.parametrize(
    ("rule", "guess"),
    [
        ("wrong_code", True),
        ("short_code", True),
        ("unknown_card", True),
        ("incomplete", False),
        ("locked_out", False),
        ("may_not_open", False),
    ],
)
def test_only_what_could_have_been_a_code_counts_as_a_guess(rule: str, guess: bool) -> None:
    assert counts_as_guess(Decision(False, rule)) is guess


@pytest.mark.parametrize("source", ["rfc4733", "info", "inband", "", "INFO"])
@pytest.mark.parametrize("in_call", [False, True])
@pytest.mark.parametrize("inband", [False, True])
def test_digit_counts_from_the_call_by_signalling_or_as_tones_where_they_are_wanted(
    in_call: bool, source: str, inband: bool
) -> None:
    decision = may_count(in_call=in_call, source=source, inband_digits=inband)
    wanted = {"rfc4733", "info", "inband"} if inband else {"rfc4733", "info"}
    assert decision.allowed == (in_call and source in wanted)
    if not decision.allowed:
        assert decision.rule == ("in_band" if in_call else "no_call")


def test_digit_injected_by_another_host_never_counts() -> None:
    for inband in (False, True):
        decision = may_count(in_call=True, source="stray", inband_digits=inband)
        assert decision == Decision(False, "stray")


@pytest.mark.parametrize(
    ("known", "may_call", "idle", "auto_answer"), list(product([False, True], repeat=4))
)
def test_call_in_is_taken_only_from_an_allowed_far_end_by_an_idle_door(
    known: bool, may_call: bool, idle: bool, auto_answer: bool
) -> None:
    reception = receive_call(known=known, may_call=may_call, idle=idle, auto_answer=auto_answer)
    if not (known and may_call):
        assert (reception.answer, reception.status) == ("reject", 403)
    elif not idle:
        assert (reception.answer, reception.status) == ("reject", 486)
    else:
        assert reception.answer == ("accept" if auto_answer else "ring")
