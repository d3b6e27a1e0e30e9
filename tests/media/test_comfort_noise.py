"""Comfort noise: its level and its colour are the far end's (RFC 3389)."""

import math

import pytest
from doorstation.errors import MalformedPacket
from doorstation.media.comfort_noise import ComfortNoise
from doorstation.media.pcm import audioop, dbfs
from hypothesis import given
from hypothesis import strategies as st


def noise_of(payload: bytes, periods: int = 50, count: int = 160) -> bytes:
    noise = ComfortNoise()
    noise.received(payload)
    return b"".join(noise.read(count) for _ in range(periods))


def brightness(pcm: bytes) -> float:
    """Correlation of neighbours: 1.0 dark as thunder, 0.0 white, -1.0 sharp as steam."""
    return audioop.findfactor(pcm[2:], pcm[:-2])


def coefficient(k: float) -> int:
    return round(k * 32768 / 258) + 127


@pytest.mark.parametrize("level", [30, 40, 50, 60, 70])
@pytest.mark.parametrize("shape", [b"", bytes([coefficient(-0.9), coefficient(0.5)])])
def test_the_level_is_the_one_that_was_sent(level: int, shape: bytes) -> None:
    pcm = noise_of(bytes([level]) + shape)
    assert abs(dbfs(audioop.rms(pcm, 2)) + level) < 1


@pytest.mark.parametrize("level", [0, 10, 29, 0x80])
def test_no_payload_makes_it_loud(level: int) -> None:
    assert dbfs(audioop.rms(noise_of(bytes([level])), 2)) < -29


@pytest.mark.parametrize("k", [-0.9, -0.5, 0.0, 0.5, 0.9])
def test_the_first_coefficient_is_the_colour(k: float) -> None:
    pcm = noise_of(bytes([40, coefficient(k)]))
    assert brightness(pcm) == pytest.approx(-k, abs=0.06)


def test_a_resonance_is_where_it_was_sent() -> None:
    # Poles at 0.95 and 1 kHz of 8: A(z) = 1 + a z^-1 + b z^-2 with k2 = b, k1 = a / (1 + b).
    b = 0.95**2
    a = -2 * 0.95 * math.cos(2 * math.pi / 8)
    pcm = noise_of(bytes([40, coefficient(a / (1 + b)), coefficient(b)]))
    samples = memoryview(pcm).cast("h")

    def power(frequency: float) -> float:
        step = 2 * math.pi * frequency / 8000
        total = 0.0
        for at in range(0, len(samples), 160):
            piece = samples[at : at + 160]
            real = sum(s * math.cos(step * n) for n, s in enumerate(piece))
            imaginary = sum(s * math.sin(step * n) for n, s in enumerate(piece))
            total += real * real + imaginary * imaginary
        return total

    assert power(1000) > 50 * power(3000)


def test_another_level_is_reached_without_a_step() -> None:
    noise = ComfortNoise()
    noise.received(b"\x46")
    quiet = audioop.rms(noise.read(160), 2)
    noise.received(b"\x28")
    first, *_, last = (audioop.rms(noise.read(160), 2) for _ in range(20))
    assert quiet < first < 0.5 * last
    assert abs(dbfs(last) + 40) < 1.5


def test_nothing_is_heard_before_anything_was_said() -> None:
    assert ComfortNoise().read(160) == bytes(320)


def test_the_noise_does_not_repeat_within_a_second() -> None:
    pcm = noise_of(b"\x32", periods=50)
    periods = {pcm[at : at + 320] for at in range(0, len(pcm), 320)}
    assert len(periods) == 50


def test_a_payload_without_a_level_is_malformed() -> None:
    with pytest.raises(MalformedPacket, match="0 octets"):
        ComfortNoise().received(b"")


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5))
def test_any_octets_are_quiet_noise(payloads: list[bytes]) -> None:
    noise = ComfortNoise()
    for payload in payloads:
        noise.received(payload)
        pcm = noise.read(160)
        assert len(pcm) == 320
        assert dbfs(audioop.rms(pcm, 2)) < -20
