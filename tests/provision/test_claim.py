"""The claim code: right as it stands on the label, and too many for a machine to try."""

from doorstation.provision.claim import FREE, MOST, PAUSE, Attempts

LABEL = "012 345 678"


def test_the_code_is_right_as_it_stands_on_the_label_and_without_its_spaces() -> None:
    assert Attempts(LABEL).typed(LABEL, 0.0) == "right"
    assert Attempts(LABEL).typed("012345678", 0.0) == "right"
    assert Attempts(LABEL).typed("012-345-678", 0.0) == "right"


def test_a_code_of_other_or_fewer_or_more_digits_is_wrong() -> None:
    for typed in ("", "12345678", "0123456789", "012345679", "٠١٢٣٤٥٦٧٨", LABEL + " " * MOST):
        assert Attempts(LABEL).typed(typed, 0.0) == "wrong"


def test_after_too_many_wrong_codes_none_is_looked_at_for_a_while_not_even_the_right_one() -> None:
    attempts = Attempts(LABEL)
    for _ in range(FREE):
        assert attempts.typed("1", 100.0) == "wrong"
    assert attempts.typed(LABEL, 100.0) == "wait"
    assert attempts.typed(LABEL, 100.0 + PAUSE - 0.1) == "wait"
    assert attempts.typed(LABEL, 100.0 + PAUSE) == "right"


def test_a_machine_that_never_stops_gets_five_a_minute() -> None:
    attempts = Attempts(LABEL)
    looked_at = [attempts.typed("1", tick / 10) for tick in range(36000)].count("wrong")
    assert looked_at <= FREE * 61
