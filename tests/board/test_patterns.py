import pytest
from doorboard.patterns import PATTERNS, lengths, light_at


def test_every_state_of_the_door_has_a_pattern() -> None:
    assert set(PATTERNS) == {
        "off",
        "idle",
        "registering",
        "ringing",
        "in_call",
        "door_open",
        "fault",
        "claimed",
    }


@pytest.mark.parametrize(("pattern", "lit"), [("idle", True), ("off", False)])
def test_a_constant_pattern_never_wakes(pattern: str, lit: bool) -> None:
    assert light_at(lengths(pattern), 1234.5) == (lit, None)


def test_patterns_that_can_be_seen_differ() -> None:
    assert len(set(PATTERNS.values())) == len(PATTERNS)


def test_light_follows_the_row_and_repeats() -> None:
    row = (0.5, 0.25)
    assert light_at(row, 0.0) == (True, 0.5)
    assert light_at(row, 0.5) == (False, 0.75)
    assert light_at(row, 0.75) == (True, 1.25)
    assert light_at(row, 7.5) == (True, 8.0)


def test_late_wake_ups_do_not_add_up() -> None:
    row = lengths("ringing")
    lit, change = light_at(row, 100 * sum(row) + 0.1)
    assert lit
    assert change == pytest.approx(100 * sum(row) + row[0])


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_the_next_change_is_always_ahead(pattern: str) -> None:
    elapsed, row = 0.0, lengths(pattern)
    for _ in range(10_000):
        _, change = light_at(row, elapsed)
        if change is None:
            return
        assert change > elapsed
        elapsed = change


def test_a_wrong_pattern_names_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"no LED pattern 'disco'; there are off, idle"):
        lengths("disco")
