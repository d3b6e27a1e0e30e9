"""RTCP reports and the arithmetic behind them (RFC 3550 6, A.1, A.3, A.8)."""

import contextlib

import pytest
from doorstation.errors import MalformedPacket
from doorstation.media import rtcp
from doorstation.media.rtcp import (
    Bye,
    ExtendedReport,
    OtherReport,
    OtherRtcp,
    Reception,
    ReportBlock,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    VoipMetrics,
    format_rtcp,
    parse_rtcp,
)
from hypothesis import given
from hypothesis import strategies as st

u32 = st.integers(0, 0xFFFFFFFF)
blocks = st.builds(
    ReportBlock, u32, st.integers(0, 255), st.integers(-0x800000, 0x7FFFFF), u32, u32, u32, u32
)
words = st.binary(max_size=12).map(lambda b: b[: len(b) // 4 * 4])
some_blocks = st.lists(blocks, max_size=4).map(tuple)
items = st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=30)), max_size=3).map(tuple)
u16, u8, i8 = st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(-128, 127)
metrics = st.builds(
    VoipMetrics, u32, u8, u8, u8, u8, u16, u16, u16, u16, i8, i8, *[u8] * 7, u16, u16, u16
)
others = st.builds(OtherReport, st.sampled_from([1, 4, 6, 8, 255]), u8, words)
rtcp_packets = st.one_of(
    st.builds(ExtendedReport, u32, st.lists(st.one_of(metrics, others), max_size=3).map(tuple)),
    st.builds(SenderReport, u32, st.integers(0, 2**64 - 1), u32, u32, u32, some_blocks, words),
    st.builds(rtcp.ReceiverReport, u32, some_blocks, words),
    st.builds(SourceDescription, st.lists(st.tuples(u32, items), max_size=3).map(tuple)),
    st.builds(Bye, st.lists(u32, max_size=3).map(tuple), st.binary(max_size=40)),
    st.builds(OtherRtcp, st.sampled_from([192, 204, 205, 206]), st.integers(0, 31), words),
)

COMPOUND = bytes.fromhex(
    "81c8000c 00000001 83aa7e80 40000000 000000a0 0000000a 00000640"  # SR of SSRC 1
    "00000002 40ffffff 00010005 00000008 7e804000 00010000"  # about SSRC 2, one packet too many
    "81ca0003 00000001 01036162 63000000"  # SDES CNAME abc
    "81cb0001 00000001"  # BYE
)


def test_a_compound_as_on_the_wire() -> None:
    block = ReportBlock(2, 0x40, -1, 0x10005, 8, 0x7E804000, 0x10000)
    expected: list[RtcpPacket] = [
        SenderReport(1, 0x83AA7E8040000000, 160, 10, 1600, (block,)),
        SourceDescription(((1, ((rtcp.CNAME, b"abc"),)),)),
        Bye((1,)),
    ]
    assert parse_rtcp(COMPOUND) == expected
    assert format_rtcp(expected) == COMPOUND


@given(st.lists(rtcp_packets, min_size=1, max_size=4))
def test_what_is_written_is_read_back(packets: list[RtcpPacket]) -> None:
    assert parse_rtcp(format_rtcp(packets)) == packets


@given(st.binary(max_size=120))
def test_any_bytes_give_packets_or_our_own_error(data: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        parse_rtcp(data)


@given(st.binary(max_size=120))
def test_a_compound_with_any_end_gives_packets_or_our_own_error(tail: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        assert parse_rtcp(COMPOUND + tail)[:3] == parse_rtcp(COMPOUND)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\x80\xc8\x00", "3 bytes, 4 needed"),
        (bytes.fromhex("40c80000"), "byte 0: RTCP version 1"),
        (bytes.fromhex("80640000"), "byte 1: packet type 100"),
        (bytes.fromhex("80c90002 00000001"), "byte 2: length reaches byte 12"),
        (bytes.fromhex("81c90001 00000001"), "byte 4: 4 bytes, 28 needed"),
        (bytes.fromhex("a0c90001 00000007"), "byte 7: padding of 7 bytes"),
        (bytes.fromhex("81ca0002 00000001 01096162"), "byte 4: 8 bytes"),
        (COMPOUND + b"\x80\xc8", "byte 76: 2 bytes left over"),
    ],
)
def test_a_malformed_compound_names_the_byte(data: bytes, fault: str) -> None:
    with pytest.raises(MalformedPacket, match=fault):
        parse_rtcp(data)


def test_sequence_numbers_go_on_past_the_wrap() -> None:
    reception = Reception(1, 8000)
    for sequence in (65534, 65535, 0, 1):
        assert reception.arrived(sequence) == Reception.NEW
    assert (reception.received, reception.lost) == (4, 0)
    assert reception.report(0.0).highest_sequence == 0x10001


def test_loss_is_what_never_came() -> None:
    reception = Reception(1, 8000)
    for sequence in (10, 11, 14, 12):
        reception.arrived(sequence)
    assert (reception.expected, reception.lost) == (5, 1)


def test_a_packet_overtaken_by_the_first_one_is_not_a_loss() -> None:
    reception = Reception(1, 8000)
    assert [reception.arrived(sequence) for sequence in (1, 0, 2)] == [Reception.NEW] * 3
    assert (reception.expected, reception.received, reception.lost) == (3, 3, 0)


def test_a_duplicate_is_counted_once_and_replaces_no_lost_packet() -> None:
    reception = Reception(1, 8000)
    for sequence in (1, 2, 2, 4):
        reception.arrived(sequence)
    assert (reception.received, reception.duplicates, reception.lost) == (3, 1, 1)


def test_fraction_lost_is_since_the_last_report() -> None:
    reception = Reception(1, 8000)
    for sequence in range(100, 200):
        if sequence % 4:
            reception.arrived(sequence)
    first = reception.report(0.0)
    assert first.fraction_lost == pytest.approx(256 / 4, abs=2)
    for sequence in range(200, 250):
        reception.arrived(sequence)
    second = reception.report(5.0)
    assert second.fraction_lost == 0
    assert second.cumulative_lost == first.cumulative_lost


def test_a_jump_is_believed_when_the_next_number_follows() -> None:
    reception = Reception(1, 8000)
    for sequence in range(10):
        reception.arrived(sequence)
    assert reception.arrived(40000) == Reception.JUMP
    assert reception.arrived(40001) == Reception.RESTART
    assert reception.arrived(40002) == Reception.NEW
    assert (reception.received, reception.lost) == (12, 0)


def test_one_stray_packet_far_ahead_changes_nothing() -> None:
    reception = Reception(1, 8000)
    for sequence in range(10):
        reception.arrived(sequence)
    assert reception.arrived(30000) == Reception.JUMP
    assert reception.arrived(10) == Reception.NEW
    assert reception.lost == 0


def test_jitter_is_the_smoothed_difference_of_transit_times() -> None:
    reception = Reception(1, 8000)
    reception.timed(0, 1.000)
    reception.timed(160, 1.022)  # 2 ms = 16 ticks late
    assert reception.jitter == pytest.approx(1.0)
    reception.timed(320, 1.040)
    assert reception.jitter == pytest.approx(1.0 + (16 - 1) / 16)


def test_a_new_timestamp_base_is_not_jitter() -> None:
    reception = Reception(1, 8000)
    reception.timed(0xFFFFFF60, 1.0)
    reception.timed(0, 1.02)
    reception.timed(0x40000000, 1.04)
    reception.timed(0x400000A0, 1.06)
    assert reception.jitter == pytest.approx(0.0, abs=0.01)


def test_round_trip_is_our_clock_less_what_the_far_end_held() -> None:
    reception = Reception(7, 8000)
    reception.arrived(1)
    sent_at = 5000.0
    # The far end receives our report, holds it for 1.5 s, and its answer is back 80 ms later.
    reception.sender_report_received(rtcp.ntp_time(sent_at), now=10.0)
    block = reception.report(now=11.5)
    assert rtcp.round_trip(block, sent_at + 1.58) == pytest.approx(0.08, abs=0.001)


def test_a_far_end_that_has_not_heard_us_gives_no_round_trip() -> None:
    assert rtcp.round_trip(ReportBlock(1, 0, 0, 0, 0, 0, 0), 10.0) is None


def test_reports_are_spread_around_five_seconds() -> None:
    assert rtcp.report_interval(0.0, first=False) == pytest.approx(2.05, abs=0.01)
    assert rtcp.report_interval(0.999, first=False) == pytest.approx(6.15, abs=0.01)
    assert rtcp.report_interval(0.5, first=True) == pytest.approx(2.05, abs=0.01)


def test_voip_metrics_as_on_the_wire() -> None:
    """RFC 3611 4.7's layout, byte for byte."""
    data = bytes.fromhex(
        "80cf000a 00000001"
        "07000008 00000002 0d03401a 01c22710 00500078 ec c4 26 10 5d7f 2c2a b0 00 003c 0064 02d0"
    )
    metrics = VoipMetrics(
        ssrc=2,
        loss_rate=13,
        discard_rate=3,
        burst_density=64,
        gap_density=26,
        burst_duration=450,
        gap_duration=10000,
        round_trip=80,
        end_system_delay=120,
        signal_level=-20,
        noise_level=-60,
        rerl=38,
        r_factor=93,
        mos_lq=44,
        mos_cq=42,
        rx_config=0xB0,
        jb_nominal=60,
        jb_maximum=100,
        jb_absolute_maximum=720,
    )
    expected: list[RtcpPacket] = [ExtendedReport(1, (metrics,))]
    assert parse_rtcp(data) == expected
    assert format_rtcp(expected) == data


def test_blocks_of_other_kinds_or_lengths_are_kept_unread() -> None:
    data = bytes.fromhex("80cf0005 00000001 04000002 0102030405060708 07000000")
    expected: list[RtcpPacket] = [
        ExtendedReport(1, (OtherReport(4, 0, bytes(range(1, 9))), OtherReport(7, 0, b"")))
    ]
    assert parse_rtcp(data) == expected
    assert format_rtcp(expected) == data


def test_packets_too_late_are_told_to_the_bursts_in_order() -> None:
    reception = Reception(1, 8000)
    for sequence in (*range(10, 20), *range(24, 90)):
        reception.arrived(sequence)
        if sequence == 26:
            reception.discarded(25)
    reception.review()
    figures = reception.bursts.figures(reception.expected, 0.02)
    assert figures.burst_density == pytest.approx(5 / 6)
    assert figures.gap_density == 0.0


def test_what_may_still_come_is_no_burst_yet() -> None:
    reception = Reception(1, 8000)
    for sequence in (*range(10, 20), 25, 26):
        reception.arrived(sequence)
    reception.review()
    assert reception.bursts.figures(reception.expected, 0.02).burst_density == 0.0


@pytest.mark.parametrize("samples", [80, 160, 480])
def test_a_packets_length_is_seen_in_its_timestamps(samples: int) -> None:
    reception = Reception(1, 8000)
    for number in range(20):
        reception.arrived(number)
        reception.timed(0xFFFFFF00 + number * samples & 0xFFFFFFFF, number * samples / 8000)
    assert reception.packet_seconds == pytest.approx(samples / 8000)
