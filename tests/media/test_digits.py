"""Digits by RFC 4733 and INFO, with everything that phones do to them."""

import pytest
from doorstation.errors import MalformedPacket, ProtocolError
from doorstation.media.digits import (
    DIGITS,
    MAX_A_SECOND,
    MAX_QUEUED,
    PLAIN,
    RELAY,
    Digit,
    DigitMerger,
    EventReceiver,
    EventSender,
    InfoDigit,
    TelephoneEvent,
    format_event,
    format_info,
    parse_event,
    parse_info,
)
from hypothesis import given
from hypothesis import strategies as st

SSRC = 0x1234


def five(duration: int, end: bool = False, event: int = 5) -> bytes:
    return bytes((event, 0x8A if end else 0x0A)) + duration.to_bytes(2, "big")


class Phone:
    """What a receiver makes of packets (timestamp, payload)."""

    def __init__(self) -> None:
        self.receiver = EventReceiver()
        self.digits = ""

    def sends(self, *packets: tuple[int, bytes], ssrc: int = SSRC) -> None:
        for timestamp, payload in packets:
            digit = self.receiver.received(ssrc, timestamp, payload, 1.0)
            if digit is not None:
                assert digit.source == "rfc4733"
                self.digits += digit.value


# Receiving.


def test_a_digit_counts_at_its_first_packet() -> None:
    assert EventReceiver().received(SSRC, 1000, five(160), 7.5) == Digit("5", "rfc4733", 7.5)


def test_updates_and_three_ends_are_one_digit() -> None:
    phone = Phone()
    phone.sends((1000, five(160)), (1000, five(320)), *[(1000, five(480, end=True))] * 3)
    assert phone.digits == "5"


def test_an_end_repeated_five_times_is_one_digit() -> None:
    phone = Phone()
    phone.sends(*[(1000, five(480, end=True))] * 5)
    assert phone.digits == "5"


def test_all_ends_lost_and_the_same_digit_again_is_two_digits() -> None:
    phone = Phone()
    phone.sends((1000, five(160)), (1000, five(320)), (4000, five(160)), (4000, five(320)))
    assert phone.digits == "55"


def test_a_gateway_that_writes_a_new_timestamp_into_each_packet_is_understood() -> None:
    """Sonus: FreeSWITCH has a switch for it."""
    phone = Phone()
    for press in (1000, 5000):
        phone.sends(*[(press + 160 * n, five(160 * n + 160)) for n in range(5)])
        phone.sends(*[(press + 800 + 160 * n, five(960, end=True)) for n in range(3)])
    assert phone.digits == "55"


def test_only_the_last_end_arrives() -> None:
    phone = Phone()
    phone.sends((1000, five(800, end=True)))
    assert phone.digits == "5"


def test_an_update_that_comes_after_the_end_is_no_new_digit() -> None:
    phone = Phone()
    phone.sends((1000, five(480, end=True)), (1000, five(320)))
    assert phone.digits == "5"


def test_a_late_end_of_the_digit_before_is_no_new_digit() -> None:
    phone = Phone()
    phone.sends((1000, five(160)), (3000, five(160, event=7)), (1000, five(480, end=True)))
    phone.sends((3000, five(320, event=7)))
    assert phone.digits == "57"


def test_a_zero_duration_start_counts() -> None:
    phone = Phone()
    phone.sends((1000, five(0)), (1000, five(160)))
    assert phone.digits == "5"


def test_a_key_held_for_twenty_seconds_is_one_digit() -> None:
    phone = Phone()
    sender = EventSender()
    sender.send("5", duration_ms=20_000)
    timestamp = 0xFFFF0000  # wraps on the way
    segments = set()
    while sender.active:
        for start, _, payload in sender.tick(timestamp):
            segments.add(start)
            phone.sends((start, payload))
        timestamp = (timestamp + 160) & 0xFFFFFFFF
    assert len(segments) == 3
    assert phone.digits == "5"


@pytest.mark.parametrize(
    ("last", "later", "first"),
    [
        (65280, 65280, 960),  # FreeSWITCH: begins where it had come to, in whole packets
        (65535, 66240, 705),  # WebRTC: fills the segment, and begins the next one now
        (63360, 65280, 1920),  # the last packets of the segment were lost
    ],
)
def test_a_key_held_into_another_segment_is_one_digit_with_every_sender(
    last: int, later: int, first: int
) -> None:
    phone = Phone()
    phone.sends((1000, five(960)), (1000, five(last)))
    phone.sends((1000 + later, five(first)), (1000 + later, five(first + 960, end=True)))
    assert phone.digits == "5"


def test_a_key_pressed_again_is_another_digit_though_its_end_was_lost() -> None:
    phone = Phone()
    for press in range(3):
        phone.sends((1000 + 12000 * press, five(960)), (1000 + 12000 * press, five(6720)))
    assert phone.digits == "555"


def test_the_same_digit_one_long_segment_later_but_ended_is_a_new_one() -> None:
    phone = Phone()
    phone.sends((1000, five(480, end=True)), (1000 + 0xFFFF, five(160)))
    assert phone.digits == "55"


def test_another_ssrc_with_the_same_timestamp_is_a_new_digit() -> None:
    phone = Phone()
    phone.sends((1000, five(160)))
    phone.sends((1000, five(160)), ssrc=SSRC + 1)
    assert phone.digits == "55"


def test_a_phone_that_pads_its_payload_is_understood() -> None:
    phone = Phone()
    phone.sends((1000, five(160) + b"\0\0\0\0"))
    assert phone.digits == "5"


def test_flash_and_fax_tones_are_no_digits() -> None:
    phone = Phone()
    phone.sends((1000, five(160, event=16)), (2000, five(160, event=36)))
    assert phone.digits == ""


def test_a_payload_that_is_too_short_says_so() -> None:
    with pytest.raises(MalformedPacket, match="3 bytes, 4 needed"):
        EventReceiver().received(SSRC, 0, b"\x05\x0a\x00", 0.0)


@given(
    st.builds(
        TelephoneEvent,
        st.integers(0, 255),
        st.booleans(),
        st.integers(0, 0xFFFF),
        st.integers(0, 63),
    )
)
def test_an_event_written_is_read_back(event: TelephoneEvent) -> None:
    assert parse_event(format_event(event)) == event


@given(
    st.text(alphabet=DIGITS, min_size=1, max_size=12),
    st.lists(st.booleans(), min_size=40, max_size=40),
    st.integers(0, 0xFFFFFFFF),
)
def test_loss_never_doubles_a_digit_and_a_packet_of_each_is_enough(
    digits: str, lost: list[bool], timestamp: int
) -> None:
    sender = EventSender()
    sender.send(digits)
    phone = Phone()
    expected = ""
    seen: set[int] = set()
    sent = 0
    starts: list[int] = []
    while sender.active:
        for start, _, payload in sender.tick(timestamp):
            if start not in starts:
                starts.append(start)
            sent += 1
            if lost[sent % len(lost)]:
                continue
            if start not in seen:
                seen.add(start)
                expected += digits[starts.index(start)]
            phone.sends((start, payload))
        timestamp = (timestamp + 160) & 0xFFFFFFFF
    assert phone.digits == expected


# Sending.


def sent(sender: EventSender, ticks: int, step: int = 160) -> list[list[tuple[int, bool, str]]]:
    return [
        [(start, marker, payload.hex()) for start, marker, payload in sender.tick(i * step)]
        for i in range(ticks)
    ]


def test_a_digit_on_the_wire() -> None:
    sender = EventSender()
    sender.send("5", duration_ms=60)
    assert sent(sender, 7) == [
        [(0, True, "050a00a0")],
        [(0, False, "050a0140")],
        [(0, False, "058a01e0")],
        [(0, False, "058a01e0")],
        [(0, False, "058a01e0")],
        [],
        [],
    ]


def test_between_two_digits_are_a_hundred_milliseconds() -> None:
    sender = EventSender()
    sender.send("12", duration_ms=40)
    starts = [tick for tick, packets in enumerate(sent(sender, 30)) if packets and packets[0][1]]
    # The first ends with tick 1; five ticks of 20 ms are free, the second starts with tick 7.
    assert starts == [0, 7]


def test_a_longer_gap_for_slow_intercoms() -> None:
    sender = EventSender()
    sender.send("12", duration_ms=40, gap_ms=500)
    starts = [tick for tick, packets in enumerate(sent(sender, 60)) if packets and packets[0][1]]
    assert starts == [0, 27]


def test_too_short_a_digit_or_gap_is_lengthened() -> None:
    sender = EventSender()
    sender.send("11", duration_ms=1, gap_ms=0)
    starts = [tick for tick, packets in enumerate(sent(sender, 30)) if packets and packets[0][1]]
    assert starts == [0, 7]


def test_a_digit_ends_in_whatever_clock_a_far_end_names() -> None:
    for clock in (1, 20, 49, 999_999):
        sender = EventSender(clock=clock)
        sender.send("5")
        sent(sender, 200)
        assert not sender.active


def test_durations_count_in_the_clock_of_the_events() -> None:
    sender = EventSender(clock=16000)
    sender.send("#", duration_ms=40)
    packets = [payload for tick in sent(sender, 4, step=320) for _, _, payload in tick]
    assert packets == ["0b0a0140", "0b8a0280", "0b8a0280", "0b8a0280"]


def test_a_long_digit_goes_on_in_segments() -> None:
    sender = EventSender()
    sender.send("5", duration_ms=8300)
    ticks = sent(sender, 420)
    # 8.19 s fit into 16 bits: the segment's last packet has no end, the next one no marker.
    assert ticks[408] == [(0, False, "050affa0")]
    assert ticks[409] == [(0, False, "050affff"), (0xFFFF, False, "050a0041")]
    assert ticks[414] == [(0xFFFF, False, "058a0361")]
    assert ticks[415] == ticks[416] == [(0xFFFF, False, "058a0361")]
    assert ticks[417] == []


def test_an_unknown_digit_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match="no such digit: 'x'"):
        EventSender().send("5x")


def test_no_more_digits_wait_than_any_code_has() -> None:
    sender = EventSender()
    assert sender.send("1" * (MAX_QUEUED - 4)) == MAX_QUEUED - 4
    assert sender.send("123456") == 4
    with pytest.raises(ValueError, match="can be sent"):
        sender.send("1" * (MAX_QUEUED + 1))


# INFO.


@pytest.mark.parametrize(
    ("content_type", "body", "digits"),
    [
        (RELAY, b"Signal=5\r\nDuration=160\r\n", [InfoDigit("5", 160)]),
        (RELAY, b"Signal= 5\nDuration= 250", [InfoDigit("5", 250)]),
        (RELAY, b"signal=#\r\n", [InfoDigit("#")]),
        (RELAY, b"Duration=100\r\nSignal=*\r\n\r\n", [InfoDigit("*", 100)]),
        (RELAY, b"Signal=10\r\nDuration=160\r\n", [InfoDigit("*", 160)]),
        (RELAY, b"Signal=11\r\n", [InfoDigit("#")]),
        (RELAY, b"Signal=d\r\nDuration=never\r\n", [InfoDigit("D")]),
        ("Application/DTMF-Relay; charset=x", b"Signal=1", [InfoDigit("1")]),
        (PLAIN, b"5", [InfoDigit("5")]),
        (PLAIN, b"5\r\n", [InfoDigit("5")]),
        (PLAIN, b"Signal=5\r\nDuration=160\r\n", [InfoDigit("5", 160)]),
        (PLAIN, b"10", [InfoDigit("1"), InfoDigit("0")]),
        (RELAY, b"7", [InfoDigit("7")]),
        ("", b"42#", [InfoDigit("4"), InfoDigit("2"), InfoDigit("#")]),
    ],
)
def test_info_bodies_that_phones_send(
    content_type: str, body: bytes, digits: list[InfoDigit]
) -> None:
    assert parse_info(content_type, body) == digits


@pytest.mark.parametrize(
    ("content_type", "body", "status", "fault"),
    [
        ("application/sdp", b"v=0", 415, "application/dtmf-relay and application/dtmf"),
        (RELAY, b"", 400, "without Signal"),
        (RELAY, b"Duration=100\r\n", 400, "without Signal"),
        (RELAY, b"Signal=x", 400, "not one digit"),
        (RELAY, b"Signal=55", 400, "not one digit"),
        (PLAIN, b"hello", 400, "digit that does not exist"),
        (PLAIN, b"1" * 600, 400, "600 bytes, 512 allowed"),
    ],
)
def test_info_bodies_that_are_refused(
    content_type: str, body: bytes, status: int, fault: str
) -> None:
    with pytest.raises(ProtocolError, match=fault) as caught:
        parse_info(content_type, body)
    assert caught.value.status == status


@pytest.mark.parametrize("body", [b"Signal=4711", b"4711 x", b"4711!", b"Signal=4711x", b"4711E"])
@pytest.mark.parametrize("content_type", [RELAY, PLAIN, "text/plain"])
def test_code_in_an_info_we_refuse_is_in_no_answer_and_no_log(
    content_type: str, body: bytes
) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_info(content_type, body)
    assert "4711" not in str(caught.value)


def test_flood_of_packets_that_each_begin_a_digit_is_no_flood_of_digits() -> None:
    receiver = EventReceiver()
    payload = bytes.fromhex("050a00a0")
    heard = [
        receiver.received(1, 1600 * number, payload, 10.0 + number / 3000) for number in range(6000)
    ]
    assert sum(digit is not None for digit in heard) == 2 * MAX_A_SECOND
    assert receiver.received(1, 7, payload, 13.0) is not None


def test_digit_is_in_no_repr_that_a_failing_callback_would_log() -> None:
    assert "7" not in repr(Digit("7", "info", 0.0))
    assert "7" not in repr(InfoDigit("7"))


@given(st.sampled_from(DIGITS), st.integers(1, 9999))
def test_an_info_written_is_read_back(value: str, duration: int) -> None:
    digit = InfoDigit(value, duration)
    assert parse_info(RELAY, format_info(digit)) == [digit]
    assert parse_info(PLAIN, format_info(digit, PLAIN)) == [InfoDigit(value)]


@given(st.text(max_size=20), st.binary(max_size=600))
def test_any_info_gives_digits_or_our_own_error(content_type: str, body: bytes) -> None:
    try:
        digits = parse_info(content_type, body)
    except ProtocolError:
        return
    assert all(digit.value in DIGITS for digit in digits)


# Both at once.


def merged(*reports: tuple[str, str, float]) -> str:
    merger = DigitMerger()
    heard = (merger.heard(Digit(value, source, at)) for value, source, at in reports)
    return "".join(digit.value for digit in heard if digit is not None)


def test_the_same_key_by_both_ways_is_one_digit() -> None:
    assert merged(("5", "rfc4733", 1.0), ("5", "info", 1.02)) == "5"
    assert merged(("5", "info", 1.0), ("5", "rfc4733", 1.02)) == "5"


def test_a_fast_double_digit_by_both_ways_stays_two() -> None:
    assert (
        merged(
            ("5", "rfc4733", 1.0),
            ("5", "info", 1.05),
            ("5", "rfc4733", 1.2),
            ("5", "info", 1.25),
        )
        == "55"
    )


def test_a_fast_double_digit_whose_infos_come_together_stays_two() -> None:
    assert (
        merged(
            ("5", "rfc4733", 1.0),
            ("5", "rfc4733", 1.2),
            ("5", "info", 1.5),
            ("5", "info", 1.51),
        )
        == "55"
    )


def test_a_key_by_three_ways_is_one_digit_and_two_keys_are_two() -> None:
    ways = ("rfc4733", "inband", "info")
    assert merged(*[("5", way, 1.0 + i / 20) for i, way in enumerate(ways)]) == "5"
    assert (
        merged(
            ("5", "rfc4733", 1.0),
            ("5", "inband", 1.04),
            ("5", "rfc4733", 1.2),
            ("5", "inband", 1.24),
            ("5", "info", 1.3),
            ("5", "info", 1.31),
        )
        == "55"
    )


def test_one_way_only_never_loses_a_repeated_digit() -> None:
    assert merged(*[("1", "info", 1.0 + i / 10) for i in range(6)]) == "111111"


def test_another_digit_in_between_is_kept_in_order() -> None:
    assert (
        merged(
            ("1", "rfc4733", 1.0), ("2", "rfc4733", 1.2), ("1", "info", 1.25), ("2", "info", 1.4)
        )
        == "12"
    )


def test_the_same_key_pressed_later_counts_again() -> None:
    assert merged(("5", "rfc4733", 1.0), ("5", "info", 3.0)) == "55"


def test_an_info_at_the_release_of_a_long_press_is_the_same_key() -> None:
    merger = DigitMerger()
    assert merger.heard(Digit("5", "rfc4733", 1.0)) is not None
    assert merger.heard(Digit("5", "info", 4.1), held=3.0) is None


def test_a_lost_event_packet_is_made_good_by_the_info() -> None:
    assert merged(("1", "rfc4733", 1.0), ("1", "info", 1.1), ("2", "info", 1.3)) == "12"


def test_what_waits_for_its_other_half_is_bounded() -> None:
    merger = DigitMerger()
    for i in range(1000):
        merger.heard(Digit("1", "info", 1.0 + i * 1e-6))
    assert len(merger._waiting) <= 32
