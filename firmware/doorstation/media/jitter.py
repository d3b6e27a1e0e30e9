"""The jitter buffer: playout by RTP timestamp, any packet length, no more delay than needed.

A cursor walks along the far end's timestamps, one period of samples for each `get`. Packets wait
sorted by timestamp until the cursor reaches them.

*Too little.* When nothing is there, sound is invented (see conceal.py) and the cursor stands still.
If the missing packet turns out to be lost, the next one lies a gap ahead, and the gap is what was
just invented: the cursor jumps over it. If it was only late, it still plays, and the delay has
grown by what was invented. So the delay follows the jitter up without any estimate of it.

*Too much.* `lead` is how long before its playout a packet arrived. When the smallest lead of the
last seconds leaves a whole period and some guard (more with more measured jitter), one period is
cut out at the next pause in the speech; without a pause only if it leaves more than two. Each
underrun makes the next cut wait longer, up to a minute.

*Pauses.* After 60 ms of nothing the buffer is empty in earnest (silence suppression, hold,
telephone-events, a restarted sender) and the next packet starts afresh with the delay last needed.
"""

import math
from typing import Final

from doorstation.media.conceal import Concealer
from doorstation.media.pcm import audioop, crossfade

_MAX_HELD_MS: Final = 400
"""Sound kept at most beyond the longest packet: what comes on top after a stall is dropped."""

_KEPT_MS: Final = 100
"""What stays of an over-full buffer."""

_MAX_PACKETS: Final = 128
"""Bounds memory against a sender of one-sample packets."""

_MAX_HOLD: Final = 12
"""Periods of delay that reordering, or a start after a pause, may ask for."""

_RESET_SECONDS: Final = 2
"""A timestamp this far from the cursor is a new time base, not jitter."""

_WINDOW: Final = 100
"""Periods in one of the two windows of the smallest lead."""

_PATIENCE: Final = 250
_MAX_PATIENCE: Final = 3000

_QUIET: Final = 330
"""RMS below which a cut is not heard: -40 dBFS."""


class JitterBuffer:
    """Sound of one source (one SSRC), `clock` samples a second, read in periods of 20 ms."""

    __slots__ = (
        "_at_start",
        "_before",
        "_concealer",
        "_cursor",
        "_event_periods",
        "_hold",
        "_invented",
        "_jitter",
        "_last_growth",
        "_longest",
        "_loudness",
        "_packets",
        "_patience",
        "_playing",
        "_reset",
        "_since_trouble",
        "_smallest",
        "_smallest_before",
        "_ticks",
        "_usual",
        "_waited",
        "clock",
        "concealed",
        "cuts",
        "dropped",
        "late",
        "period",
        "rate",
    )

    def __init__(self, clock: int = 8000) -> None:
        self.rate = self.clock = clock
        self.period = clock // 50
        self.late = 0
        """Packets that came after their playout."""
        self.concealed = 0
        """Periods in which sound was invented for packets that should have been there."""
        self.dropped = 0
        """Packets thrown away because too much waited."""
        self.cuts = 0
        """Periods cut out to shorten the delay."""
        self._concealer = Concealer(clock)
        self._packets: list[tuple[int, bytes]] = []
        self._cursor = 0
        self._playing = False
        self._waited = 0
        self._hold = 1
        self._invented = 0
        self._longest = self.period
        self._reset = _RESET_SECONDS * clock
        self._jitter = 0.0
        self._event_periods = 0
        self._ticks = 0
        self._last_growth = 0
        self._smallest: float = math.inf
        self._smallest_before: float = math.inf
        self._at_start = 0
        self._usual = 0.0
        self._loudness = 0.0
        self._since_trouble = 0
        self._patience = _PATIENCE

    @property
    def delay(self) -> float:
        """Seconds of sound waiting."""
        if not self._packets:
            return 0.0
        last, pcm = self._packets[-1]
        return max(0.0, (last + len(pcm) // 2 - self._cursor) / self.clock)

    def put(self, timestamp: int, pcm: bytes, age: float = 0.0, jitter: float = 0.0) -> None:
        """Take one packet's samples.

        `age`: seconds since it arrived at this machine, at most one period; `jitter`: the measured
        interarrival jitter in ticks (RFC 3550 A.8).
        """
        count = len(pcm) // 2
        if count == 0:
            return
        packets = self._packets
        at = self._cursor + ((timestamp - self._cursor + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        ahead = at - self._cursor
        if not packets and not self._playing:
            if -count < ahead < self._invented:
                self._trouble()  # no pause of the far end: the line held everything back
            self._begin(timestamp)
            at, ahead = timestamp, 0
        if not -self._reset < ahead < self._reset:
            packets.clear()
            self._begin(timestamp)
            at, ahead = timestamp, 0
        if ahead < 0 and not self._playing:
            self._cursor = at  # overtaken by the packet that began
            ahead = 0
        self._jitter = jitter
        lead = ahead - ahead % self.period + age * self.clock
        if self._playing:
            self._usual += (lead - self._usual) / 16.0
            if lead < self._smallest:
                self._smallest = lead
        if ahead + count <= 0:
            self.late += 1
            if not self._grow():
                return
            if at + count <= self._cursor:
                return
        if count > self._longest:
            self._longest = count
        item = (at, pcm)
        if not packets or at > packets[-1][0]:
            packets.append(item)
        else:
            place = len(packets)
            while place and packets[place - 1][0] > at:
                place -= 1
            packets.insert(place, item)
        if len(packets) > _MAX_PACKETS:
            del packets[0]
            self.dropped += 1

    def expect_silence(self) -> None:
        """The far end sends a telephone-event: what is missing now was never sent."""
        self._event_periods = 4

    def get(self) -> bytes:
        """The next period of samples."""
        self._ticks += 1
        if self._event_periods:
            self._event_periods -= 1
        if not self._playing:
            if not self._packets:
                return self._concealer.silence(self.period)
            if self._waited < self._hold:
                self._waited += 1
                return self._concealer.silence(self.period)
            self._playing = True
            self._forget_leads()
        packets = self._packets
        if packets and len(packets) > 1:
            self._bound()
        if self._ticks - self._at_start >= _WINDOW:
            self._smallest_before = self._smallest
            self._smallest = math.inf
            self._at_start = self._ticks
        self._since_trouble += 1
        pcm = self._next()
        if self._since_trouble > self._patience and self._too_much(pcm):
            return self._cut(pcm)
        return pcm

    def restart(self) -> None:
        """Another source, or the same one afresh: forget what waits, keep the delay learned."""
        self._packets.clear()
        self._playing = False
        self._invented = 0

    # The cursor's bookkeeping.

    def _begin(self, timestamp: int) -> None:
        self._cursor = timestamp
        self._playing = False
        self._waited = 0
        self._invented = 0

    def _forget_leads(self) -> None:
        self._smallest = self._smallest_before = math.inf
        self._at_start = self._ticks
        self._since_trouble = 0

    def _trouble(self) -> None:
        """Sound was missing in time: the delay grows by a period, and stays for longer."""
        if self._since_trouble < 2 * self._patience:
            self._patience = min(2 * self._patience, _MAX_PATIENCE)
        else:
            self._patience = _PATIENCE
        self._forget_leads()

    def _grow(self) -> bool:
        """Reordering deeper than the delay: step back by a period, invented or still to come.

        Everything on its way now is late by the same, so once is enough for it.
        """
        if not self._packets or self._ticks - self._last_growth <= 5:
            return False
        if self._usual > _MAX_HOLD * self.period:
            return False
        self._last_growth = self._ticks
        self._cursor -= self.period
        self._invented = 0
        self._trouble()
        return True

    def _bound(self) -> None:
        packets = self._packets
        last, pcm = packets[-1]
        end = last + len(pcm) // 2
        limit = _MAX_HELD_MS * self.clock // 1000 + self._longest
        if end - self._cursor <= limit:
            return
        keep = max(_KEPT_MS * self.clock // 1000, self._longest)
        self._cursor = max(self._cursor, end - keep)
        while packets and packets[0][0] + len(packets[0][1]) // 2 <= self._cursor:
            del packets[0]
            self.dropped += 1
        self._invented = 0
        self._forget_leads()

    def _too_much(self, pcm: bytes) -> bool:
        guard = max(self.clock / 250, 3.0 * self._jitter)
        spare = min(self._smallest, self._smallest_before) - guard
        if spare < self.period or not self._packets or math.isinf(spare):
            return False
        # A single period too much waits for a pause in the speech, however long; more does not.
        if spare > 5 * self.period:
            return True
        if spare > 2 * self.period and self._since_trouble > self._patience + _WINDOW:
            return True
        rms = audioop.rms(pcm, 2)
        self._loudness += (rms - self._loudness) / 64.0
        return rms <= _QUIET or rms < self._loudness / 4.0

    def _cut(self, pcm: bytes) -> bytes:
        """The next two periods as one."""
        following = self._next()
        self._smallest -= self.period
        self._smallest_before -= self.period
        self._usual -= self.period
        self._since_trouble = self._patience - 10  # the next cut 200 ms later at the earliest
        self.cuts += 1
        return crossfade(pcm, following)

    def _next(self) -> bytes:
        packets = self._packets
        if packets and not self._invented:
            at, pcm = packets[0]
            if at == self._cursor and len(pcm) == 2 * self.period:
                del packets[0]
                self._cursor += self.period
                return self._concealer.real(pcm)
        return self._assemble()

    def _assemble(self) -> bytes:
        """A period out of parts of packets, gaps and invented sound."""
        need = self.period
        pieces: list[bytes] = []
        invented = False
        packets = self._packets
        while need:
            if not packets:
                pieces.append(self._concealer.conceal(need))
                invented = True
                self._invented += need
                break
            at, pcm = packets[0]
            count = len(pcm) // 2
            gap = at - self._cursor
            if gap > 0:
                if self._invented:
                    covered = min(gap, self._invented)
                    self._cursor += covered
                    self._invented -= covered
                    continue
                fill = min(gap, need)
                pieces.append(self._concealer.conceal(fill))
                invented = True
                self._cursor += fill
                need -= fill
                continue
            if count + gap <= 0:
                del packets[0]  # wholly overlapped by another one
                continue
            if self._invented:
                # Not lost but late, and played all the same: the delay has grown.
                self._invented = 0
                self._trouble()
            take = min(count + gap, need)
            piece = pcm[-2 * gap : 2 * (take - gap)] if gap or take != count else pcm
            pieces.append(self._concealer.real(piece))
            self._cursor += take
            need -= take
            if take == count + gap:
                del packets[0]
        if invented:
            if not self._event_periods and self._concealer.sounding:
                self.concealed += 1
            if not packets and self._concealer.exhausted:
                self._playing = False
                self._hold = min(_MAX_HOLD, int(self._usual // self.period))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
