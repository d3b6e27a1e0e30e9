"""Packet loss concealment: the last pitch period again, fading (after G.711 appendix I).

The pitch is searched once per loss, in about a tenth of a millisecond; without loss this costs two
references.
"""

from typing import Final

from doorstation.media.pcm import audioop, crossfade

_STEPS: Final = (1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
"""Gain of each 5 ms; nothing after 60 ms."""


class Concealer:
    """Keeps the last 40 ms played and continues them when asked."""

    __slots__ = ("_before", "_block", "_clock", "_cycle", "_last", "_phase", "_spent", "_steps")

    def __init__(self, clock: int = 8000) -> None:
        self._clock = clock
        self._block = clock // 200
        self._last = b""
        self._before = b""
        self._cycle = b""
        self._phase = 0
        self._spent = 0

    @property
    def exhausted(self) -> bool:
        """Whether the invented sound has faded to nothing."""
        return self._spent >= len(_STEPS) * self._block

    @property
    def sounding(self) -> bool:
        """Whether the last invented piece was within the 60 ms that continue a sound."""
        return 0 < self._spent <= len(_STEPS) * self._block + 3 * self._block

    def real(self, pcm: bytes) -> bytes:
        """Sound from the far end; faded into when sound was invented just before."""
        if self._spent:
            pcm = self._joined(pcm)
            self._spent = 0
            self._cycle = b""
        if len(pcm) >= 8 * self._block:
            self._before = self._last
            self._last = pcm
        else:
            self._last = (self._last + pcm)[-16 * self._block :]
        return pcm

    def silence(self, count: int) -> bytes:
        """Samples of a pause; ends what was invented."""
        return bytes(2 * count)

    def conceal(self, count: int) -> bytes:
        """Invent `count` samples."""
        if self._spent == 0:
            self._begin()
        pieces: list[bytes] = []
        while count:
            step, inside = divmod(self._spent, self._block)
            if step >= len(_STEPS) or not self._cycle:
                pieces.append(bytes(2 * count))
                self._spent += count
                break
            take = min(count, self._block - inside)
            piece = self._continued(take)
            gain = _STEPS[step]
            pieces.append(piece if gain == 1.0 else audioop.mul(piece, 2, gain))
            self._spent += take
            count -= take
        return b"".join(pieces)

    def _begin(self) -> None:
        history = (self._before + self._last)[-self._clock * 2 // 25 :]
        template = 2 * (self._clock // 100)
        longest = 2 * (self._clock // 50)
        shortest = 2 * (self._clock // 200)
        self._phase = 0
        self._cycle = b""
        if len(history) < template + longest or audioop.max(history, 2) < 8:
            return
        # The lag, 5 to 20 ms, at which the last 10 ms look most like what came before them.
        # (audioop.findfit would do it in one call, but takes the opposite phase for a match.)
        sought = history[-template:]
        best, lag = 0.0, longest
        for candidate in range(shortest, longest + 1, 4):
            before = history[-template - candidate : -candidate]
            factor = audioop.findfactor(sought, before) if audioop.max(before, 2) else 0.0
            if factor > 0.0:
                match = factor * audioop.findfactor(before, sought)  # correlation, squared
                if match > best:
                    best, lag = match, candidate
        self._cycle = history[-lag:]

    def _continued(self, count: int) -> bytes:
        cycle = self._cycle
        size = 2 * count
        start = self._phase
        self._phase = (start + size) % len(cycle)
        piece = cycle[start : start + size]
        while len(piece) < size:
            piece += cycle[: size - len(piece)]
        return piece

    def _joined(self, pcm: bytes) -> bytes:
        overlap = min(len(pcm) // 2, self._clock // 250)
        if overlap == 0 or not self._cycle or self.exhausted:
            return pcm
        gain = _STEPS[min(self._spent // self._block, len(_STEPS) - 1)]
        tail = audioop.mul(self._continued(overlap), 2, gain)
        return crossfade(tail, pcm[: 2 * overlap]) + pcm[2 * overlap :]
