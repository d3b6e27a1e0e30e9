"""Where tags, nonces and jitter come from: a source handed in, so tests know the bytes."""

import os
from typing import Protocol


class Ids(Protocol):
    def token(self) -> str:
        """A fresh, unguessable token: letters and digits, at least 64 bits (RFC 3261 §19.3)."""
        ...

    def fraction(self) -> float:
        """A number in [0, 1): jitter for timers, SRV weights."""
        ...

    def number(self, bits: int) -> int:
        """A random unsigned integer of `bits` bits: SSRC, RTP timestamps, ports."""
        ...


class SystemIds:
    """From the operating system's random source.

    The module `secrets` does the same, and loads OpenSSL by way of hmac: 4 MB of every door.
    """

    def token(self) -> str:
        return os.urandom(10).hex()

    def fraction(self) -> float:
        return self.number(53) / (1 << 53)

    def number(self, bits: int) -> int:
        return int.from_bytes(os.urandom((bits + 7) // 8)) >> (-bits % 8)


class SeededIds:
    """The same sequence every time: for tests and simulations, never for a real door."""

    def __init__(self, seed: int = 0) -> None:
        import random

        self._random = random.Random(seed)

    def token(self) -> str:
        return f"{self._random.getrandbits(80):020x}"

    def fraction(self) -> float:
        return self._random.random()

    def number(self, bits: int) -> int:
        return self._random.getrandbits(bits)
