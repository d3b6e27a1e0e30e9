"""How good a call sounds: bursts of loss (RFC 3611 4.7.2), talk and noise, MOS by the E-model.

The E-model (ITU-T G.107) rates a call R from 0 to 93.2 and takes off what spoils it. Of its twenty
parameters the three are kept that a call changes: codec, loss and delay. Loss in a burst and loss
in the gap between two bursts are rated apart and weighted by how long each lasts: ten lost packets
in a row are worse to hear than ten spread over a minute.
"""

from typing import Final

import msgspec

from doorstation.media.pcm import SILENCE_DBFS, dbfs

GMIN: Final = 16
"""Packets in a row that arrive and end a burst (RFC 3611 4.7.2)."""

BEST_R: Final = 93.2

_SPOILT: Final = {"OPUS": (0.0, 43.0)}
_SPOILT_ELSE: Final = (0.0, 25.1)
"""Equipment impairment and robustness against loss: G.711 with concealment has 0 and 25.1 (G.113
appendix I), which G.722 and L16 share here on the narrow-band scale; Opus sends a second copy."""


class BurstGap(msgspec.Struct, frozen=True):
    """Fractions of packets that were missed in bursts and between them; seconds of each, mean."""

    burst_density: float = 0.0
    gap_density: float = 0.0
    burst_seconds: float = 0.0
    gap_seconds: float = 0.0
    in_bursts: float = 0.0
    """Fraction of all packets whose time was within bursts."""


class Bursts:
    """Sorts missed packets into bursts and gaps, by their numbers (RFC 3611 4.7.2, A.2).

    A burst begins and ends with a missed packet, and no GMIN in a row arrive in it. A single
    missed packet with so many on both sides belongs to the gap.
    """

    __slots__ = ("_first", "_last", "_missed", "bursts", "in_bursts", "missed_in", "missed_out")

    def __init__(self) -> None:
        self.bursts = 0
        self.in_bursts = 0
        """Packets of all bursts."""
        self.missed_in = 0
        self.missed_out = 0
        self._first = 0
        self._last = 0
        self._missed = 0

    def missed(self, number: int) -> None:
        """A packet was not there in time; numbers rise."""
        if self._missed and number - self._last <= GMIN:
            self._missed += 1
        else:
            self._end()
            self._first = number
            self._missed = 1
        self._last = number

    def restarted(self) -> None:
        """Numbers begin anew."""
        self._end()

    def _end(self) -> None:
        if self._missed > 1:
            self.bursts += 1
            self.in_bursts += self._last - self._first + 1
            self.missed_in += self._missed
        else:
            self.missed_out += self._missed
        self._missed = 0

    def figures(self, packets: int, packet_seconds: float) -> BurstGap:
        """Over `packets` sent so far, each of so many seconds."""
        bursts, inside, missed_in, missed_out = (
            self.bursts,
            self.in_bursts,
            self.missed_in,
            self.missed_out,
        )
        if self._missed > 1:
            bursts += 1
            inside += self._last - self._first + 1
            missed_in += self._missed
        else:
            missed_out += self._missed
        outside = max(0, packets - inside)
        return BurstGap(
            burst_density=missed_in / inside if inside else 0.0,
            gap_density=min(1.0, missed_out / outside) if outside else 0.0,
            burst_seconds=inside * packet_seconds / bursts if bursts else 0.0,
            gap_seconds=outside * packet_seconds / (bursts + 1),
            in_bursts=inside / (inside + outside) if inside else 0.0,
        )


class TalkLevel:
    """Level of talk and of the noise in its pauses, from a few periods a second."""

    __slots__ = ("_count", "_floor", "_squares")

    _ABOVE: Final = 10.0
    """dB over the noise from which a period is talk."""
    _QUIETEST_TALK: Final = -55.0
    _RISE: Final = 0.3
    """dB a period by which the noise may be more than thought."""

    def __init__(self) -> None:
        self._floor: float | None = None
        self._squares = 0.0
        self._count = 0

    def take(self, rms: float) -> None:
        """RMS of one period."""
        level = max(dbfs(rms), -90.0)
        self._floor = level if self._floor is None else min(level, self._floor + self._RISE)
        if level > max(self._floor + self._ABOVE, self._QUIETEST_TALK):
            self._squares += rms * rms
            self._count += 1

    @property
    def talk_dbfs(self) -> float | None:
        """None while nobody has talked."""
        return dbfs((self._squares / self._count) ** 0.5) if self._count else None

    @property
    def noise_dbfs(self) -> float | None:
        """None before the first period."""
        return None if self._floor is None else max(self._floor, SILENCE_DBFS)


DBM0: Final = 6.15
"""dBm0 of an RMS of 0 dBFS: a full-scale sine, -3.01 dBFS, is 3.14 dBm0 (ITU-T G.711)."""


def r_factor(codec: str, seen: BurstGap, delay: float) -> float:
    """R from 0 to 93.2 of what is heard `delay` seconds after it was said (G.107, simplified)."""
    impairment = seen.in_bursts * _by_loss(codec, seen.burst_density) + (
        1.0 - seen.in_bursts
    ) * _by_loss(codec, seen.gap_density)
    delay_ms = delay * 1000.0
    by_delay = 0.024 * delay_ms + 0.11 * max(0.0, delay_ms - 177.3)
    return min(BEST_R, max(0.0, BEST_R - impairment - by_delay))


def _by_loss(codec: str, fraction: float) -> float:
    base, robust = _SPOILT.get(codec.upper(), _SPOILT_ELSE)
    percent = 100.0 * fraction
    return base + (95.0 - base) * percent / (percent + robust)


def mos(r: float) -> float:
    """Mean opinion from 1 to 4.4 that R stands for (G.107 annex B)."""
    if r <= 6.5:  # below, the polynomial falls under 1
        return 1.0
    return 1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6
