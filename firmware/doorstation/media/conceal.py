"""Sound for packets that did not come: pitch periods of what came before, and of what comes after.

*From one side*, while nothing else is there: the last pitch period again and again, fading to
nothing in 60 ms (after G.711 appendix I). *Between two sides*, when the packet after the gap is
there already: the period before the gap goes on into it, the period after it goes on backwards, and
the one fades into the other. Each of the two periods is chosen so that it fits its own side and
arrives at the other side in phase, which a voice that glides does by itself and a repetition never
does.

Likeness is correlation by audioop, in C; a search costs a few tenths of a millisecond on a small
board, and only when something is missing.
"""

from typing import Final

from doorstation.media.pcm import audioop, crossfade

_STEPS: Final = (1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
"""Gain of each 5 ms; nothing after 60 ms."""

_SILENT: Final = 8
"""Peak below which there is nothing to continue."""


def likeness(one: bytes, other: bytes) -> float:
    """Correlation, squared: 1 for the same shape at any level, 0 for none, or for the opposite."""
    factor = audioop.findfactor(one, other)
    return factor * audioop.findfactor(other, one) if factor > 0.0 else 0.0


def _turned(cycle: bytes, offset: int, count: int) -> bytes:
    """`count` bytes of a cycle that repeats for ever, from `offset` on."""
    offset %= len(cycle)
    return (cycle * ((offset + count) // len(cycle) + 1))[offset : offset + count]


class Concealer:
    """Invents sound at `rate` Hz. `extend` and `bridge` go on from the history of `begin`."""

    __slots__ = ("_block", "_cycle", "_history", "_spent")

    def __init__(self, rate: int = 8000) -> None:
        self._block = rate // 200
        self._history = b""
        self._cycle = b""
        self._spent = 0

    @property
    def active(self) -> bool:
        """Whether the last sound was invented."""
        return self._spent > 0

    @property
    def sounding(self) -> bool:
        """Whether the last sound was invented and has not faded to nothing yet."""
        return 0 < self._spent <= len(_STEPS) * self._block

    @property
    def exhausted(self) -> bool:
        """Whether the invented sound has faded to nothing."""
        return self._spent >= len(_STEPS) * self._block

    def begin(self, history: bytes) -> None:
        """Something is missing after `history`: at least 40 ms, the last that was heard."""
        self._history = history
        self._spent = 0
        self._cycle = b""

    def end(self) -> None:
        """Real sound goes on."""
        self._spent = 0

    def extend(self, count: int) -> bytes:
        """Invent `count` samples; what comes after them is not known."""
        if self._spent == 0:
            self._cycle = self._chosen(self._history, 0, b"")
        made = self._continued(count)
        self._spent += count
        return made

    def bridge(self, count: int, following: bytes) -> bytes:
        """Invent `count` samples that lead over to `following`."""
        if self.exhausted and self._spent:
            return self._rising(count, following)
        if self._spent == 0:
            self._cycle = self._chosen(self._history, count, following)
        before = self._continued(count)
        after = self._backwards(count, following)
        self._spent += count
        return crossfade(before, after)

    def joined(self, pcm: bytes) -> bytes:
        """Real sound after invented: faded into, if that still sounds."""
        overlap = min(len(pcm) // 2, 4 * self._block // 5)
        if not self.sounding or overlap == 0:
            return pcm
        return crossfade(self._continued(overlap), pcm[: 2 * overlap]) + pcm[2 * overlap :]

    def _continued(self, count: int) -> bytes:
        """The cycle from where it is, fading with the time spent."""
        if not self._cycle:
            return bytes(2 * count)
        pieces: list[bytes] = []
        spent = self._spent
        end = spent + count
        while spent < end:
            step = spent // self._block
            if step >= len(_STEPS):
                pieces.append(bytes(2 * (end - spent)))
                break
            stop = min(end, (step + 1) * self._block)
            piece = _turned(self._cycle, 2 * spent, 2 * (stop - spent))
            pieces.append(audioop.mul(piece, 2, _STEPS[step]))
            spent = stop
        return b"".join(pieces)

    def _rising(self, count: int, following: bytes) -> bytes:
        """Out of silence into `following`."""
        after = self._backwards(count, following)
        self._spent += count
        return crossfade(bytes(2 * count), after)

    def _backwards(self, count: int, following: bytes) -> bytes:
        """`count` samples before `following`, of its own first period."""
        mirrored = audioop.reverse(following[: 8 * self._block * 2], 2)
        gap = self._spent + count
        cycle = self._chosen(mirrored, gap, audioop.reverse(self._history, 2))
        if not cycle:
            return bytes(2 * count)
        return audioop.reverse(_turned(cycle, 0, 2 * count), 2)

    def _chosen(self, history: bytes, gap: int, beyond: bytes) -> bytes:
        """The last period of `history`, of such a length that it repeats best.

        It has to look like the one before it, and after `gap` samples like what is `beyond`.
        """
        template = 4 * self._block
        longest = min(8 * self._block, len(history) - template // 2)
        shortest = self._block
        if longest < shortest or audioop.max(history, 2) < _SILENT:
            return b""
        sought = history[-template:]
        goal = beyond[:template]
        gap *= 2

        def fit(lag: int) -> float:
            before = history[-template - lag : -lag]
            own = likeness(sought[-len(before) :], before)
            if len(goal) < template:
                return own
            return own + likeness(_turned(history[-lag:], gap, template), goal)

        step = 2 * max(1, self._block // 20)
        best = max(range(shortest, longest + 1, step), key=fit)
        near = range(max(shortest, best - step + 2), min(longest, best + step - 2) + 1, 2)
        best = max(near, key=fit)
        return self._smooth(history, best)

    def _smooth(self, history: bytes, lag: int) -> bytes:
        """The last `lag` bytes, their end led over to their beginning."""
        cycle = history[-lag:]
        overlap = lag // 8 * 2
        before = history[-lag - overlap : -lag]
        return cycle[:-overlap] + crossfade(cycle[-overlap:], before)
