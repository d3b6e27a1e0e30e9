"""The jitter buffer on simulated lines: hours in seconds, every line with its own seed."""

import heapq
import random
from array import array
from collections.abc import Callable

import pytest
from doorstation.media.codec import Codec
from doorstation.media.jitter import JitterBuffer
from doorstation.media.rtcp import Reception
from hypothesis import given, settings
from hypothesis import strategies as st

HOUR = 180_000
"""Periods of 20 ms."""


class Raw(Codec):
    """Samples as they are."""

    rate = clock = 8000

    def decode(self, payload: bytes) -> bytes:
        return payload

    def samples(self, payload: bytes) -> int:
        return len(payload) // 2


RAW = Raw()


def ramp(begin: int, count: int) -> bytes:
    """Samples that say where they belong: 1, 2, 3, ... by timestamp."""
    return array("h", ((begin + i) % 30000 + 1 for i in range(count))).tobytes()


def samples(pcm: bytes) -> list[int]:
    return list(memoryview(pcm).cast("h"))


class Line:
    """A sender, a line and a receiver in virtual time; one `run` is a whole call."""

    def __init__(
        self,
        delay: Callable[[random.Random, float], float],
        *,
        loss: float = 0.0,
        duplicates: float = 0.0,
        slow_ppm: float = 0.0,
        periods_per_packet: int = 1,
        phase: float = 0.010,
        seed: int = 1,
    ) -> None:
        self.delay = delay
        self.loss = loss
        self.duplicates = duplicates
        self.slow = 1.0 + slow_ppm * 1e-6
        self.size = periods_per_packet
        self.phase = phase
        self.random = random.Random(seed)
        self.buffer = JitterBuffer()
        self.reception = Reception(1, 8000)
        self.delays: list[float] = []
        self.most = 0

    def run(self, periods: int) -> None:
        speech = [ramp(i * 160 * self.size, 160 * self.size) for i in range(4)]
        on_the_way: list[tuple[float, int]] = []
        number = 0
        for tick in range(periods):
            now = tick * 0.02 + self.phase
            while (sent := number * self.size * 0.02 * self.slow) <= now:
                if self.random.random() >= self.loss:
                    heapq.heappush(on_the_way, (sent + self.delay(self.random, sent), number))
                    if self.random.random() < self.duplicates:
                        heapq.heappush(on_the_way, (sent + self.delay(self.random, sent), number))
                number += 1
            while on_the_way and on_the_way[0][0] <= now:
                at, this = heapq.heappop(on_the_way)
                if self.reception.arrived(this & 0xFFFF) == Reception.DUPLICATE:
                    continue
                timestamp = this * 160 * self.size & 0xFFFFFFFF
                self.reception.timed(timestamp, at)
                self.buffer.put(timestamp, speech[this % 4], RAW, now - at)
            self.delays.append(self.buffer.delay)
            assert len(self.buffer.get()) == 320
            self.most = max(self.most, len(self.buffer._packets))

    @property
    def median(self) -> float:
        return sorted(self.delays)[len(self.delays) // 2]


def steady(line_random: random.Random, sent: float) -> float:
    return 0.001


def test_a_clean_line_has_no_gap_and_at_most_one_packet_waiting() -> None:
    line = Line(steady)
    line.run(HOUR)
    assert (line.buffer.concealed, line.buffer.late, line.buffer.dropped) == (0, 0, 0)
    assert line.median <= 0.021


def test_on_a_lan_ten_minutes_pass_without_a_gap() -> None:
    line = Line(lambda r, _: 0.0005 + abs(r.gauss(0, 0.0008)))
    line.run(30_000)
    assert line.buffer.concealed == 0
    assert line.median <= 0.041


@pytest.mark.parametrize("phase", [0.0009, 0.00101, 0.0015, 0.005, 0.0195])
def test_no_phase_between_sender_and_card_makes_gaps(phase: float) -> None:
    line = Line(lambda r, _: 0.001 + abs(r.gauss(0, 0.0002)), phase=phase)
    line.run(30_000)
    assert line.buffer.concealed <= 1
    assert line.median <= 0.041


def test_jitter_of_sixty_milliseconds_is_swallowed_after_a_start() -> None:
    line = Line(lambda r, _: r.uniform(0, 0.06))
    line.run(30_000)
    assert line.buffer.concealed <= 5
    assert line.median <= 0.1


def test_the_delay_shrinks_again_when_jitter_ends() -> None:
    line = Line(lambda r, sent: r.uniform(0, 0.08) if sent < 60 else 0.001)
    line.run(15_000)
    assert sorted(line.delays[2000:3000])[500] >= 0.06
    assert sorted(line.delays[-1000:])[500] <= 0.041


def test_each_lost_packet_is_concealed_and_costs_the_delay_of_one_to_bridge_the_gap() -> None:
    line = Line(steady, loss=0.05)
    line.run(30_000)
    assert line.reception.lost > 1000
    assert line.buffer.concealed == pytest.approx(line.reception.lost, abs=3)
    assert line.median <= 0.041


def test_reordering_is_repaired() -> None:
    line = Line(lambda r, _: 0.03 if r.random() < 0.05 else 0.001)
    line.run(30_000)
    assert line.reception.lost == 0
    assert line.buffer.concealed <= 5


def test_a_sender_with_a_slow_or_fast_clock_is_followed() -> None:
    for ppm in (-300.0, 300.0):
        line = Line(steady, slow_ppm=ppm)
        line.run(HOUR)
        assert line.buffer.concealed <= 60
        assert max(line.delays) <= 0.081


def test_duplicates_change_nothing() -> None:
    line = Line(lambda r, _: r.uniform(0, 0.005), duplicates=0.3)
    line.run(30_000)
    assert line.reception.duplicates > 5000
    assert line.buffer.concealed == 0


def test_a_stall_of_a_second_leaves_no_lasting_delay() -> None:
    line = Line(lambda r, sent: 0.001 + max(0.0, 11.0 - sent) if sent > 10 else 0.001)
    line.run(2500)
    assert sorted(line.delays[-200:])[100] <= 0.081


@pytest.mark.parametrize("length", [8, 40, 80, 160, 240, 320, 480, 1440])
def test_any_packet_length_plays_in_order_without_a_gap(length: int) -> None:
    buffer = JitterBuffer()
    heard: list[int] = []
    timestamp = 0
    for tick in range(1, 200):
        while timestamp + length <= tick * 160:
            buffer.put(timestamp, ramp(timestamp, length), RAW, 0.01)
            timestamp += length
        heard += samples(buffer.get())
    begin = heard.index(1)
    want = samples(ramp(0, 160 * 60))
    assert heard[begin : begin + len(want)] == want
    assert buffer.concealed <= length // 160 + 1  # nothing missing once it runs


def test_lengths_may_change_from_packet_to_packet() -> None:
    buffer = JitterBuffer()
    heard: list[int] = []
    timestamp = 0
    lengths = [160, 80, 80, 240, 80, 320, 160, 40, 120]
    for tick in range(90):
        while timestamp < (tick + 3) * 160:
            length = lengths[timestamp // 7 % len(lengths)]
            buffer.put(timestamp, ramp(timestamp, length), RAW, 0.01)
            timestamp += length
        heard += samples(buffer.get())
    begin = heard.index(1)
    want = samples(ramp(0, 160 * 60))
    assert heard[begin : begin + len(want)] == want
    assert buffer.concealed == 0


def test_timestamps_wrap() -> None:
    buffer = JitterBuffer()
    heard: list[int] = []
    for i in range(100):
        timestamp = (0xFFFFFFFF - 50 * 160 + i * 160) & 0xFFFFFFFF
        buffer.put(timestamp, ramp(i * 160, 160), RAW, 0.01)
        heard += samples(buffer.get())
    begin = heard.index(1)
    want = samples(ramp(0, 160 * 90))
    assert heard[begin : begin + len(want)] == want


@pytest.mark.parametrize("jump", [5 * 8000, 0x7FFFFFFF, -5 * 8000, 0x40000000])
def test_a_timestamp_jump_starts_afresh(jump: int) -> None:
    buffer = JitterBuffer()
    for i in range(50):
        buffer.put(i * 160, ramp(0, 160), RAW, 0.01)
        buffer.get()
    heard: list[int] = []
    for i in range(50, 60):
        buffer.put((i * 160 + jump) & 0xFFFFFFFF, ramp(i * 160, 160), RAW, 0.01)
        heard += samples(buffer.get())
    assert samples(ramp(52 * 160, 160 * 5)) == heard[heard.index(52 * 160 + 1) :][: 160 * 5]


def test_a_pause_of_the_far_end_is_silence_and_not_concealment() -> None:
    buffer = JitterBuffer()
    for i in range(50):
        buffer.put(i * 160, ramp(i * 160, 160), RAW, 0.01)
        buffer.get()
    heard = b"".join(buffer.get() for _ in range(200))
    assert samples(heard)[-1600:] == [0] * 1600
    concealed = buffer.concealed
    assert concealed <= 3
    heard = b""
    for i in range(250, 260):  # silence suppression: timestamps went on
        buffer.put(i * 160, ramp(i * 160, 160), RAW, 0.01)
        heard += buffer.get()
    assert buffer.concealed == concealed
    assert 250 * 160 % 30000 + 1 in samples(heard)


def test_digits_in_place_of_audio_are_not_counted_as_concealed() -> None:
    buffer = JitterBuffer()
    for i in range(50):
        buffer.put(i * 160, ramp(i * 160, 160), RAW, 0.01)
        buffer.get()
    for _ in range(10):
        buffer.expect_silence()
        buffer.get()
    assert buffer.concealed == 0


def test_a_restart_forgets_what_waits() -> None:
    buffer = JitterBuffer()
    for i in range(5):
        buffer.put(i * 160, ramp(0, 160), RAW, 0.01)
    buffer.restart()
    assert buffer.delay == 0.0
    assert buffer.get() == bytes(320)


def test_a_flood_of_tiny_packets_is_bounded() -> None:
    buffer = JitterBuffer()
    for i in range(10_000):
        buffer.put(i * 160 % 16000 + i % 7, b"\1\0", RAW, 0.0)
    assert len(buffer._packets) <= 128


def test_sound_far_ahead_does_not_pile_up() -> None:
    buffer = JitterBuffer()
    for i in range(95):  # 1.9 s at once
        buffer.put(i * 160, ramp(i * 160, 160), RAW, 0.0)
    buffer.get()
    assert buffer.delay <= 0.42
    assert buffer.dropped >= 70
    for i in range(95, 700):
        buffer.put(i * 160, bytes(320), RAW, 0.01)
        buffer.get()
    assert buffer.delay <= 0.041


def tone(level: int) -> bytes:
    return array("h", [level] * 160).tobytes()


def test_a_cut_shortens_the_delay_by_one_period_and_clicks_not() -> None:
    buffer = JitterBuffer()
    for i in range(5):
        buffer.put(i * 160, tone(1000), RAW, 0.01)
    for i in range(5, 2000):
        buffer.put(i * 160, tone(1000), RAW, 0.01)
        played = samples(buffer.get())
        assert set(played) <= ({1000} if i > 8 else {0, 1000})
    assert buffer.cuts >= 3
    assert buffer.delay <= 0.041


def test_a_single_period_too_much_waits_for_a_pause_in_the_speech() -> None:
    buffer = JitterBuffer()
    for i in range(3000):
        buffer.put(i * 160, tone(5000), RAW, 0.01)
        buffer.get()
    assert buffer.cuts == 0
    before = buffer.delay
    for i in range(3000, 3010):
        buffer.put(i * 160, tone(900), RAW, 0.01)  # -31 dBFS: a street is never silent
        buffer.get()
    assert buffer.cuts == 1
    assert before - buffer.delay == pytest.approx(0.02)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 0xFFFFFFFF) | st.integers(0, 40).map(lambda i: i * 160),
            st.integers(0, 700),
            st.booleans(),
        ),
        max_size=120,
    )
)
def test_whatever_arrives_a_period_comes_out(packets: list[tuple[int, int, bool]]) -> None:
    buffer = JitterBuffer()
    for timestamp, length, play in packets:
        buffer.put(timestamp, bytes(2 * length), RAW, 0.0)
        if play:
            assert len(buffer.get()) == 320
        assert len(buffer._packets) <= 128
    for _ in range(60):
        assert len(buffer.get()) == 320
