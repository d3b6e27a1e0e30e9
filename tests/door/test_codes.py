"""Codes: when an entry is over, what it opens, and the lock-out."""

import pytest
from doorstation.door.codes import MAX_FAR_ENDS, CodeBook, CodeEntry, Finished, LockOut
from doorstation.settings.option import Secret
from doorstation.settings.tree import Relay


def book(**relays: tuple[str, ...]) -> CodeBook:
    return CodeBook(
        {name: Relay(codes=tuple(Secret(code) for code in codes)) for name, codes in relays.items()}
    )


def enter(
    entry: CodeEntry, digits: str, *, eager: bool = True
) -> list[tuple[int, str | None, bool]]:
    """Types digits; (digits typed so far, relay, complete) of each finished entry."""
    results = []
    for number, digit in enumerate(digits, 1):
        finished = entry.add(digit, "rfc4733", eager=eager)
        if finished is not None:
            relay = finished.code.relay if finished.code else None
            results.append((number, relay, finished.complete))
    return results


def entry_for(codes: CodeBook, *, short_codes: bool = False) -> CodeEntry:
    return CodeEntry(codes, short_codes=short_codes)


def test_code_opens_with_its_last_digit() -> None:
    assert enter(entry_for(book(door=("4711",))), "4711") == [(4, "door", True)]


def test_wrong_code_ends_with_the_last_digit_it_could_have() -> None:
    assert enter(entry_for(book(door=("4711",))), "4712") == [(4, None, True)]


def test_each_of_several_codes_opens_its_relay() -> None:
    codes = book(door=("4711", "0815"), gate=("123456",))
    for code, relay in (("4711", "door"), ("0815", "door"), ("123456", "gate")):
        assert enter(entry_for(codes), code) == [(len(code), relay, True)]


def test_entries_follow_one_another() -> None:
    entry = entry_for(book(door=("4711",)))
    assert enter(entry, "00004711") == [(4, None, True), (8, "door", True)]


def test_wrong_digit_before_a_code_does_not_slide_out() -> None:
    """Otherwise one long row of digits would hold every code."""
    assert enter(entry_for(book(door=("4711",))), "14711#") == [(4, None, True), (6, None, False)]


def test_code_that_begins_a_longer_one_waits_for_more_digits() -> None:
    codes = book(door=("4711",), gate=("471122",))
    assert enter(entry_for(codes), "471122") == [(6, "gate", True)]
    entry = entry_for(codes)
    assert enter(entry, "4711") == []
    finished = entry.finish()
    assert finished.code is not None
    assert finished.code.relay == "door"


def test_hash_ends_an_entry() -> None:
    codes = book(door=("4711",), gate=("471122",))
    assert enter(entry_for(codes), "4711#") == [(5, "door", True)]
    assert enter(entry_for(codes), "4712#") == [(5, None, True)]


def test_hash_alone_is_no_entry() -> None:
    assert enter(entry_for(book(door=("4711",))), "###") == []


def test_hash_after_a_code_that_opened_is_no_entry() -> None:
    assert enter(entry_for(book(door=("4711",))), "4711#") == [(4, "door", True)]


def test_star_clears_an_entry_that_could_not_be_a_code() -> None:
    assert enter(entry_for(book(door=("4711",))), "47*4711") == [(7, "door", True)]


def test_star_after_a_whole_guess_counts_it() -> None:
    codes = book(door=("4711",), gate=("471122",))
    entry = entry_for(codes)
    assert enter(entry, "1234") == []
    assert entry.add("*", "info", eager=True) == Finished(4, None, True, "rfc4733", quiet=True)
    assert entry.count == 0


def test_call_that_ends_after_a_whole_guess_counts_it() -> None:
    entry = entry_for(book(door=("4711",), gate=("471122",)))
    assert enter(entry, "1234") == []
    assert entry.abandon() == Finished(4, None, True, "rfc4733", quiet=True)
    assert entry.abandon() is None


def test_entry_shorter_than_every_code_is_incomplete() -> None:
    assert enter(entry_for(book(door=("4711",))), "47#") == [(3, None, False)]


def test_letters_and_nonsense_are_no_digits() -> None:
    entry = entry_for(book(door=("4711",)))
    for value in ("A", "D", "", "12", "٣", "flash"):
        assert entry.add(value, "info", eager=True) is None
    assert entry.count == 0


def test_short_code_ends_an_entry_only_where_allowed() -> None:
    codes = book(door=("5", "4711"))
    assert enter(entry_for(codes, short_codes=True), "5") == [(1, "door", True)]
    entry = entry_for(codes)
    assert enter(entry, "5") == []
    finished = entry.finish()
    assert finished.code is not None
    assert finished.code.short
    assert not finished.complete


def test_short_code_that_begins_a_usable_code_does_not_stop_it() -> None:
    assert enter(entry_for(book(door=("4", "4711"))), "4711") == [(4, "door", True)]


def test_entry_that_is_refused_anyway_does_not_tell_the_codes_length() -> None:
    codes = book(door=("4711",), gate=("123456",))
    for digits in ("4711", "123456", "999999"):
        assert enter(entry_for(codes), digits, eager=False) == []
    assert enter(entry_for(codes), "0" * 16, eager=False) == [(16, None, True)]


def test_door_without_codes_bounds_an_entry() -> None:
    assert enter(entry_for(book()), "1" * 32) == [(16, None, True), (32, None, True)]


@pytest.mark.parametrize("code", ["4711", "1234567890123456"])
def test_codes_have_four_to_sixteen_digits(code: str) -> None:
    assert enter(entry_for(book(door=(code,))), code) == [(len(code), "door", True)]


# --- Lock-out -----------------------------------------------------------------------------------


def test_wrong_codes_in_a_row_lock_the_far_end_out() -> None:
    lock = LockOut(3, 100, 60.0)
    assert [lock.wrong("a", now) for now in (0.0, 1.0, 2.0)] == [False, False, True]
    assert lock.locked("a", 61.9)
    assert not lock.locked("a", 62.0)
    assert not lock.locked("b", 3.0)


def test_right_code_ends_the_row() -> None:
    lock = LockOut(3, 100, 60.0)
    lock.wrong("a", 0.0)
    lock.wrong("a", 1.0)
    lock.right("a")
    assert [lock.wrong("a", 2.0), lock.wrong("a", 3.0)] == [False, False]


def test_row_is_forgotten_after_the_lock_outs_time() -> None:
    lock = LockOut(3, 100, 60.0)
    assert not any(lock.wrong("a", now) for now in (0.0, 59.0, 119.5, 200.0))


def test_guessing_slowly_is_a_row_all_the_same() -> None:
    lock = LockOut(3, 100, 60.0)
    assert [lock.wrong("a", now) for now in (0.0, 59.0, 118.0)] == [False, False, True]
    in_all = LockOut(100, 3, 60.0)
    assert [in_all.wrong(f"{now}", now) for now in (0.0, 59.0, 118.0)] == [False, False, True]


def test_wrong_codes_of_many_far_ends_lock_everybody_out() -> None:
    lock = LockOut(3, 5, 60.0)
    for number in range(5):
        lock.wrong(f"phone-{number}", float(number))
    assert lock.locked("somebody-else", 5.0)
    assert not lock.locked("somebody-else", 64.0)


def test_right_code_does_not_end_the_total() -> None:
    lock = LockOut(100, 5, 60.0)
    for number in range(5):
        lock.wrong("a", float(number))
        lock.right("a")
    assert lock.locked("a", 5.0)


def test_far_ends_without_number_do_not_fill_the_table() -> None:
    lock = LockOut(3, 1_000_000, 60.0)
    for number in range(10 * MAX_FAR_ENDS):
        lock.wrong(f"stranger-{number}", 0.0)
    assert len(lock) == MAX_FAR_ENDS


def test_rows_that_are_over_leave_the_table() -> None:
    lock = LockOut(3, 100, 60.0)
    for number in range(20):
        lock.wrong(f"phone-{number}", 0.0)
    lock.wrong("late", 60.0)
    assert len(lock) == 1


def test_other_limits_count_on_from_what_was_counted() -> None:
    lock_out = LockOut(3, 10, 60.0)
    lock_out.wrong("phone", 0.0)
    lock_out.take(2, 10, 60.0)
    assert lock_out.wrong("phone", 1.0), "a change of the rules gives no fresh guesses"
