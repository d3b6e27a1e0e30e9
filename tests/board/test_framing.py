from functools import reduce
from operator import xor

import pytest
from doorboard.framing import LINE_LIMIT, Frame, Framing
from hypothesis import given
from hypothesis import strategies as st

CARD = b"\x020A00F8D3C5E4\x03"
ID12 = b"\x020A00F8D3C5E4\r\n\x03"
SEEN = Frame("card", "0A00F8D3C5")


def frame_of(card: int) -> bytes:
    data = card.to_bytes(5, "big")
    return b"\x02%s%02X\x03" % (data.hex().upper().encode(), reduce(xor, data))


def keys(value: str) -> Frame:
    return Frame("keys", value)


@pytest.mark.parametrize("data", [CARD, ID12])
def test_a_card_is_read_whole_and_in_pieces(data: bytes) -> None:
    assert Framing().receive(data, 1.0) == [SEEN]
    framing = Framing()
    pieces = [framing.receive(data[n : n + 1], 1.0 + n / 1000) for n in range(len(data))]
    assert pieces == [[]] * (len(data) - 1) + [[SEEN]]
    assert framing.bad_bytes == 0


def test_lower_case_digits_are_taken_and_reported_in_upper_case() -> None:
    assert Framing().receive(CARD.lower(), 1.0) == [SEEN]


def test_a_card_that_lies_there_is_reported_once() -> None:
    framing = Framing()
    seen = [framing.receive(CARD, 1.0 + tick * 0.065) for tick in range(300)]
    assert sum(map(len, seen)) == 1


def test_a_card_that_comes_again_is_reported_again() -> None:
    framing = Framing()
    assert framing.receive(CARD, 1.0) == [SEEN]
    assert framing.receive(CARD, 3.0) == [SEEN]


def test_another_card_is_reported_at_once() -> None:
    framing = Framing()
    assert framing.receive(CARD, 1.0) == [SEEN]
    assert framing.receive(frame_of(1), 1.1) == [Frame("card", "0000000001")]
    assert framing.receive(CARD, 1.2) == [SEEN]


def test_a_wrong_checksum_is_no_card() -> None:
    framing = Framing()
    assert framing.receive(CARD.replace(b"E4", b"E5"), 1.0) == []
    assert framing.bad_bytes == len(CARD)
    assert framing.receive(CARD, 1.1) == [SEEN]


@pytest.mark.parametrize(
    "broken", [b"\x020A00\x03", b"\x020A00F8D3C5E40\x03", b"\x020A00F8XX", b"\x02\x02\x02"]
)
def test_a_broken_frame_is_counted_and_the_next_one_read(broken: bytes) -> None:
    framing = Framing()
    assert framing.receive(broken + CARD, 1.0) == [SEEN]
    assert framing.bad_bytes > 0


def test_half_a_frame_does_not_wait_for_the_next_card() -> None:
    framing = Framing()
    framing.receive(CARD[:6], 1.0)
    assert framing.receive(CARD[6:], 9.0) == []
    assert framing.receive(CARD, 10.0) == [SEEN]


@pytest.mark.parametrize("end", [b"\r", b"\n", b"#", b"\r\n"])
def test_a_line_of_keys_ends_with_return_or_hash(end: bytes) -> None:
    framing = Framing()
    assert framing.receive(b"1234" + end, 1.0) == [keys("1234")]
    assert framing.receive(b"5" + end, 2.0) == [keys("5")]
    assert framing.bad_bytes == 0


@pytest.mark.parametrize(
    "typed",
    [b"12*4711#", b"*4711#", b"1*2**4711\r", b"1" * 99 + b"*4711#", CARD + b"0*4711#"],
)
def test_a_star_clears_what_was_typed_so_far(typed: bytes) -> None:
    assert Framing().receive(typed, 1.0)[-1] == keys("4711")


def test_what_was_cleared_is_neither_a_line_nor_noise() -> None:
    framing = Framing()
    assert framing.receive(b"4711*#\r*\n", 1.0) == []
    assert framing.bad_bytes == 0


def test_keys_come_one_by_one() -> None:
    framing = Framing()
    seen = [framing.receive(bytes([key]), 1.0 + n) for n, key in enumerate(b"1234#")]
    assert seen == [[], [], [], [], [keys("1234")]]


def test_keys_left_behind_are_not_the_beginning_of_the_next_code() -> None:
    framing = Framing()
    framing.receive(b"12", 1.0)
    assert framing.receive(b"34#", 20.0) == [keys("34")]


def test_an_empty_line_is_nothing() -> None:
    framing = Framing()
    assert framing.receive(b"\r\n#\r\n  \r", 1.0) == []
    assert framing.bad_bytes == 0


def test_noise_between_keys_is_skipped_and_counted() -> None:
    framing = Framing()
    assert framing.receive(b"\xff\x0012\x8034\x07#", 1.0) == [keys("1234")]
    assert framing.bad_bytes == 4


def test_an_endless_line_is_dropped_to_its_end() -> None:
    framing = Framing()
    assert framing.receive(b"1" * 5000, 1.0) == []
    assert framing.receive(b"22#", 1.1) == []
    assert framing.bad_bytes == 5002
    assert framing.receive(b"33#", 1.2) == [keys("33")]


def test_the_longest_line_is_taken() -> None:
    assert Framing().receive(b"9" * LINE_LIMIT + b"\n", 1.0) == [keys("9" * LINE_LIMIT)]


def test_cards_and_keys_may_share_a_line() -> None:
    framing = Framing()
    assert framing.receive(b"12#" + CARD + b"34\r" + ID12, 1.0) == [keys("12"), SEEN, keys("34")]
    assert framing.bad_bytes == 0


def test_a_cut_line_forgets_the_card_that_lay_there() -> None:
    framing = Framing()
    framing.receive(CARD + b"12", 1.0)
    framing.reset()
    assert framing.receive(b"3#" + CARD, 1.1) == [keys("3"), SEEN]


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_any_bytes_are_survived_and_kept_in_bounds(chunks: list[bytes]) -> None:
    framing = Framing()
    for n, chunk in enumerate(chunks):
        for frame in framing.receive(chunk, float(n)):
            assert 0 < len(frame.value) <= LINE_LIMIT
        assert len(framing._collected) <= LINE_LIMIT
    assert framing.bad_bytes <= sum(map(len, chunks))
    framing.reset()
    assert framing.receive(CARD, 1e6) == [SEEN]


@given(st.integers(0, 2**40 - 1), st.binary(max_size=40))
def test_every_card_is_read_after_any_noise(card: int, noise: bytes) -> None:
    frames = Framing().receive(noise + frame_of(card), 1.0)
    assert frames[-1] == Frame("card", f"{card:010X}")
