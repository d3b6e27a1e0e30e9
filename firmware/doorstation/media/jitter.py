"""The jitter buffer: playout by RTP timestamp, any packet length, no more delay than needed.

A cursor walks along the far end's samples, one period for each `get`. Packets wait, not decoded,
sorted by their place until the cursor reaches them. What is decoded, or invented, and not played
yet is the rest.

*Nothing there.* When nothing is there, sound is invented (see conceal.py) and the cursor stands
still. If the missing packet turns out to be lost, the next one lies a gap ahead, and the gap is
what was just invented: the cursor jumps over it. If it was only late, it still plays, and the delay
has grown by what was invented. So a first estimate of the delay makes itself.

*How much delay.* The slack of a packet is how long before the `get` that needs it it arrived. Each
second, the smallest slacks of the last minute are looked at, but for one packet in 500 which may
come too late. Negative: the delay has to grow. A whole period and some guard: it may shrink. Both
happen in whole periods, since what matters is which `get` needs a packet's first sample. A clock
that is a little fast or slow shows itself in the slack and is followed by the same means. Where
the worst are far worse than the rest, a reserve is put in at once: such lines have more to come.

*Without being heard.* Time is put in and taken out in pauses, or where sound is missing anyway;
when none comes for seconds, by pitch periods (see timescale.py). A single period too much always
waits. What comes too late meanwhile is played all the same, so the delay grows by itself.

*Loss.* A gap is bridged better when the packet after it is there. When packets are lost again and
again, the buffer keeps one more for this.

*Pauses.* After 60 ms of nothing the buffer is empty in earnest (silence suppression, hold,
telephone-events, a restarted sender). Timestamps that went on meanwhile are played when they are
due; others start afresh. After comfort noise (RFC 3389) what is missing is silence of that colour.
"""

from typing import Final

from doorstation.errors import MalformedPacket
from doorstation.media.codec import Codec
from doorstation.media.comfort_noise import ComfortNoise
from doorstation.media.conceal import Concealer
from doorstation.media.pcm import audioop, crossfade
from doorstation.media.slack import Slack
from doorstation.media.timescale import QUIET, best_shift, spliced

_MAX_HELD_MS: Final = 400
"""Sound kept at most beyond the delay: what comes on top after a stall is dropped."""

_MAX_PACKETS: Final = 128
"""Bounds memory against a sender of one-sample packets."""

_MAX_DELAY: Final = 16
"""Periods of delay that jitter may ask for."""

LONGEST_DELAY: Final = _MAX_DELAY * 0.02 + _MAX_HELD_MS / 1000
"""Seconds that a sample waits at most."""

_RESET_SECONDS: Final = 2
"""A timestamp this far from the cursor is a new time base, not jitter."""

_GONE_MS: Final = 60
"""Nothing for so long is a pause."""

_NOISE_CLOCK: Final = 8000
"""Of comfort noise, whose payload type 13 is static (RFC 3389 4)."""

_BRIDGED_MS: Final = 40
"""The longest gap between two sides that is worth more than a fade."""

_FEW: Final = 10
_MANY: Final = 500
"""Packets at least, and at most, between two looks at it: else a second's."""
_PLENTY: Final = 3
"""Periods too much that are seen at once; fewer have to be watched for some seconds."""
_SECOND: Final = 50
_IMPATIENCE: Final = 0.02
"""What is a pause, as a share of the usual loudness: -34 dB at first, ..."""
_PATIENCE: Final = 0.25
"""... -12 dB after ten seconds without one, sooner where more than one period is wanted; then
speech is spliced too."""
_BREATH: Final = 0.1
"""A pause has to last: 100 ms at first, else it is a stop within a word; in the end 20 ms will do.
By patience: periods times this share."""


class JitterBuffer:
    """Sound of one source (one SSRC) at `rate` Hz, read in periods of 20 ms."""

    __slots__ = (
        "_begun",
        "_bytes",
        "_calm",
        "_codec",
        "_concealer",
        "_cursor",
        "_due_later",
        "_epoch",
        "_event_periods",
        "_grid",
        "_history",
        "_invented",
        "_last_at",
        "_limit",
        "_loudness",
        "_next_timestamp",
        "_noise",
        "_over",
        "_packets",
        "_patience",
        "_plain",
        "_playing",
        "_previous",
        "_reset",
        "_rest",
        "_resting",
        "_slack",
        "_step",
        "_step_ticks",
        "_tries",
        "_urgent",
        "_waiting",
        "_wish",
        "concealed",
        "cuts",
        "dropped",
        "late",
        "lost",
        "period",
        "rate",
    )

    def __init__(self, rate: int = 8000) -> None:
        self.rate = rate
        self.period = rate // 50
        self.late = 0
        """Packets that came after their playout."""
        self.lost = 0
        """Gaps between packets that had to be filled."""
        self.concealed = 0
        """Periods in which sound was invented for packets that should have been there."""
        self.dropped = 0
        """Packets thrown away because too much waited, or that no codec could read."""
        self.cuts = 0
        """Splices by which the delay was made shorter or longer."""
        self._bytes = 2 * self.period
        self._reset = _RESET_SECONDS * rate
        self._concealer = Concealer(rate)
        self._noise: ComfortNoise | None = None
        self._resting = False

        # What waits: (place, payload, its codec; None: comfort noise).
        self._packets: list[tuple[int, bytes, Codec | None]] = []
        self._codec: Codec | None = None
        self._begun = False
        self._playing = False
        self._waiting = 0
        self._due_later = False
        self._plain = False
        self._event_periods = 0

        # Places are samples on the far end's clock, without end.
        self._cursor = 0
        self._last_at = 0
        self._next_timestamp = 0
        self._step = self._step_ticks = 0
        self._epoch = _SECOND
        self._limit = 0
        self._grid = 1
        """Samples that a place is rounded down to: which `get` needs it is what counts."""
        self._rest = b""
        self._invented = 0
        self._over = 0
        """Samples between the cursor and what is played next: of the rest, less those invented."""
        self._previous = self._history = bytes(self._bytes)

        # The delay.
        self._slack = Slack(self.period)
        self._wish = 0
        """Samples of delay to put in, or to take out if negative."""
        self._urgent = False
        self._tries = 0
        self._calm = 0
        """Periods of a pause so far."""
        self._loudness = 0.0
        self._patience = _IMPATIENCE

    @property
    def delay(self) -> float:
        """Seconds of sound waiting."""
        waiting = len(self._rest) // 2
        if self._packets:
            waiting += max(0, self._packets[-1][0] + self._step - self._cursor)
        return waiting / self.rate

    def put(self, timestamp: int, payload: bytes, codec: Codec | None, age: float = 0.0) -> None:
        """Take one packet.

        `codec` decodes it when it is played; None: the payload is comfort noise. `age`: seconds
        since it arrived at this machine.
        """
        at = self._last_at + self._step
        ahead = at - self._cursor + self._over
        if (
            timestamp != self._next_timestamp
            or codec is not self._codec
            or not 0 <= ahead < self._limit
            or not self._playing
        ):
            self._put_otherwise(timestamp, payload, codec, age)
            return
        self._last_at = at
        self._next_timestamp = (timestamp + self._step_ticks) & 0xFFFFFFFF
        slack = self._slack
        latest = slack.latest
        latest.append(ahead - ahead % self._grid + age * self.rate - slack.offset)
        self._packets.append((at, payload, codec))
        if len(latest) >= self._epoch:
            self._review()

    def expect_silence(self) -> None:
        """The far end sends a telephone-event: what is missing now was never sent."""
        self._event_periods = 4

    def skip(self, periods: int) -> None:
        """The loudspeaker has missed so many: what they would have played is over, not late."""
        if self._playing:
            self._cursor += periods * self.period
            self._plain = False

    def get(self) -> bytes:
        """The next period of samples."""
        packets = self._packets
        if self._plain and packets:
            at, payload, codec = packets[0]
            if at == self._cursor and codec is not None:
                del packets[0]
                pcm = self._decoded(payload, codec)
                if len(pcm) == self._bytes:
                    self._cursor = at + self.period
                    self._previous = self._history
                    self._history = pcm
                    return pcm
                self._cursor += len(pcm) // 2
                self._rest = pcm
        return self._get_otherwise()

    def restart(self) -> None:
        """Another source, or the same one afresh: forget what waits, keep the delay learned."""
        self._packets.clear()
        self._begun = self._playing = self._plain = False
        self._waiting = 0
        self._resting = False
        self._rest = b""
        self._invented = self._over = 0

    # Packets that are not simply the next one.

    def _put_otherwise(
        self, timestamp: int, payload: bytes, codec: Codec | None, age: float
    ) -> None:
        heard = codec or self._codec
        clock = heard.clock if heard is not None else _NOISE_CLOCK
        step = 0
        if codec is not None:
            step = codec.samples(payload)
            if step == 0:
                self.dropped += 1
                return
            self._codec = codec
        since = (timestamp - self._next_timestamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        at = self._last_at + self._step + since * self.rate // clock
        packets = self._packets
        if not self._begun:
            self._begin(at)
        elif not self._playing and not packets:
            self._resume(at)
        ahead = at - self._cursor + self._over
        if not -self._reset < ahead < self._reset:
            self._begin(at)
            ahead = self._over
        elif at < self._cursor and not self._playing:
            self._cursor = at  # overtaken by the packet that began
        if at >= self._last_at:
            self._last_at = at
            ticks = step * clock // self.rate
            self._next_timestamp = (timestamp + ticks) & 0xFFFFFFFF
            if (step, ticks) != (self._step, self._step_ticks):
                self._stepping(step, ticks)
        slack = self._slack
        measured = ahead - ahead % self._grid + age * self.rate
        slack.latest.append(measured - slack.offset)
        late = at + step <= self._cursor and codec is not None
        if late:
            self.late += 1
            slack.late += measured < 0  # else it was here in time, and we were not
        if slack.trouble or len(slack.latest) >= self._epoch:
            self._review()
        if late:
            return
        place = len(packets)
        while place and packets[place - 1][0] > at:
            place -= 1
        packets.insert(place, (at, payload, codec))
        if len(packets) > _MAX_PACKETS:
            del packets[0]
            self.dropped += 1
        if self._step and ahead >= self._limit:
            self._shed()

    def _stepping(self, step: int, ticks: int) -> None:
        """Packets are of `step` samples from now on; 0: comfort noise, which measures nothing."""
        self._step = step
        self._step_ticks = ticks
        if not step:
            self._limit = 0  # whatever comes next is looked at again
            return
        # Not quite a second: what comes every second would be met every time, or never.
        self._epoch = max(_FEW, min(_MANY, int(0.94 * self.rate) // step))
        even = self.period % step == 0 or step % self.period == 0
        self._grid = 1 if even else self.period
        self._bound()

    def _bound(self) -> None:
        held = self._usual + _MAX_HELD_MS * self.rate // 1000
        self._limit = min(held, _MAX_PACKETS * self._step)

    def _begin(self, at: int) -> None:
        """A new time base: its first packet is played after the usual delay."""
        self._packets.clear()
        self._begun = True
        self._playing = self._plain = False
        self._waiting = max(1, self._usual // self.period)
        self._cursor = self._last_at = at
        self._rest = b""
        self._invented = 0
        self._over = self._waiting * self.period

    def _resume(self, at: int) -> None:
        """The first packet after a pause: on the old time base, if that may be."""
        ahead = at - self._cursor - self._invented
        if not -_MAX_DELAY * self.period <= ahead <= self._slack.typical + 5 * self.period:
            self._begin(at)
            return
        self._playing = True
        self._due_later = True
        if ahead >= 0:
            self._cursor += self._invented
        else:
            self._cursor = at
            self._slack.moved(-ahead)
        self._invented = self._over = 0

    @property
    def _usual(self) -> int:
        """Samples that a packet waits, most of the time."""
        return min(int(self._slack.typical), _MAX_DELAY * self.period)

    def _shed(self) -> None:
        """More waits than any delay wants: go on at the usual one before the newest packet."""
        self._cursor = max(self._cursor, self._last_at - self._usual)
        packets = self._packets
        while packets and packets[0][0] + self._step <= self._cursor:
            del packets[0]
            self.dropped += 1
        self._rest = b""
        self._invented = self._over = 0
        self._slack.forget()

    # Sound that is not simply the next packet.

    def _get_otherwise(self) -> bytes:
        if self._event_periods:
            self._event_periods -= 1
        if not self._playing:
            pcm = self._between()
        else:
            if self._tries:
                self._tries -= 1
                self._rescale()
            concealed = False
            while len(self._rest) < self._bytes:
                concealed |= self._fetch()
            self.concealed += concealed
            pcm = self._rest[: self._bytes]
            self._rest = self._rest[self._bytes :]
            if self._invented >= _GONE_MS * self.rate // 1000 and not self._packets:
                self._playing = False
                self._rest = b""
                self._concealer.end()
        self._previous = self._history
        self._history = pcm
        self._over = len(self._rest) // 2 - self._invented
        if self._waiting:
            self._over = self._waiting * self.period
        self._plain = (
            self._playing
            and not self._over
            and not self._invented
            and not self._tries
            and not self._resting
            and not self._due_later
            and not self._event_periods
            and not self._concealer.active
        )
        return pcm

    def _between(self) -> bytes:
        """A period while nothing plays: before the first packet, and in a pause."""
        if self._packets:
            self._waiting -= 1
            if self._waiting <= 0:
                self._waiting = 0
                self._playing = True
                self._due_later = True
                if self._last_at - self._cursor > max(self._usual, self.period):
                    self._shed()  # what came all at once has waited elsewhere
        elif self._begun:
            self._invented += self.period
            return self._silence(self.period)
        return bytes(self._bytes)

    def _silence(self, count: int) -> bytes:
        """`count` samples of what is heard while the far end sends no sound."""
        if self._resting and self._noise is not None:
            return self._noise.read(count)
        made = self._codec.conceal(count) if self._codec is not None else None
        return bytes(2 * count) if made is None else made

    def _decoded(self, payload: bytes, codec: Codec | None) -> bytes:
        """Samples; b"" for comfort noise, and for what cannot be read."""
        try:
            if codec is not None:
                return codec.decode(payload)
            if self._noise is None:
                self._noise = ComfortNoise()
            self._noise.received(payload)
            self._resting = True
        except MalformedPacket:
            self.dropped += 1
        return b""

    def _fetch(self) -> bool:
        """One piece more for the rest; whether it had to be invented for sound that was sent."""
        packets = self._packets
        while packets:
            at, payload, codec = packets[0]
            gap = at - self._cursor
            if gap > 0 and self._invented:
                # Lost: what was invented stands for it.
                covered = min(gap, self._invented)
                self._cursor += covered
                self._invented -= covered
                self.lost += 1
                gap -= covered
            if gap > 0:
                return self._fill(gap, payload, codec)
            del packets[0]
            pcm = (
                self._decoded(payload, codec)[-2 * gap :] if gap else self._decoded(payload, codec)
            )
            if not pcm:
                continue
            if self._invented:
                # Not lost but late, and played all the same.
                self._slack.moved(self._invented)
                self._wish = min(self._wish, max(0, self._wish - self._invented))
                self._invented = 0
            self._cursor += len(pcm) // 2
            self._append(pcm)
            return False
        count = self.period - len(self._rest) // 2
        if count <= 0:  # more than a period was wanted, to be cut from; nothing is missing
            return False
        self._invented += count
        if self._resting:
            self._rest += self._silence(count)
            return False
        made = self._codec.conceal(count) if self._codec is not None else None
        if made is None:
            made = self._extended(count)
        self._rest += made
        return not self._event_periods

    def _fill(self, gap: int, payload: bytes, codec: Codec | None) -> bool:
        """Sound for a gap with a packet behind it."""
        if self._due_later or self._resting or codec is None:
            count = min(gap, self.period)
            self._rest += self._silence(count)
            self._cursor += count
            return False
        self.lost += 1
        missed = not self._event_periods
        made = codec.recover(payload, gap) or codec.conceal(gap)
        if made is not None:
            self._rest += made
            self._cursor += gap
            return missed
        if gap > _BRIDGED_MS * self.rate // 1000:
            self._rest += self._extended(self.period)
            self._cursor += self.period
            return missed
        del self._packets[0]
        following = self._decoded(payload, codec)
        self._cursor += gap
        if not following:
            self._rest += self._extended(gap)
            return missed
        if self._wish >= self.period:
            # Time to be put in is heard least here.
            gap += self.period
            self._wish -= self.period
            self._slack.moved(self.period)
        concealer = self._concealer
        if not concealer.active:
            concealer.begin(self._heard())
        self._rest += concealer.bridge(gap, following) + following
        concealer.end()
        self._cursor += len(following) // 2
        return missed

    def _append(self, pcm: bytes) -> None:
        """Real sound after whatever was before."""
        self._due_later = False
        if self._concealer.active:
            pcm = self._concealer.joined(pcm)
            self._concealer.end()
        elif self._resting:
            overlap = min(len(pcm), self._bytes // 4)
            noise = self._silence(overlap // 2)
            pcm = crossfade(noise, pcm[:overlap]) + pcm[overlap:]
            self._resting = False
        self._rest += pcm

    def _extended(self, count: int) -> bytes:
        if not self._concealer.active:
            self._concealer.begin(self._heard())
        return self._concealer.extend(count)

    def _heard(self) -> bytes:
        """The last 40 ms before what is to be invented."""
        return (self._previous + self._history + self._rest)[-2 * self._bytes :]

    # The delay.

    def _review(self) -> None:
        """Decide whether the delay should be another: about once a second."""
        slack = self._slack
        slack.review(self.lost, len(slack.latest) >= self._epoch)
        self._bound()
        # Packets are needed a fraction of a period sooner than they are played, if that is where
        # splices have left them: without it nothing is lost.
        astray = self._over % self.period if self._grid == 1 else 0
        spare = slack.spare - astray
        margin = self.rate // 300
        guard = 1.1 * margin + (slack.typical - spare) / 8 + slack.reserve
        periods = 0
        if spare < margin:
            periods = int((margin + slack.reserve - spare) // self.period) + 1
            periods = max(0, min(periods, _MAX_DELAY - int(slack.typical // self.period)))
        elif spare >= self.period + guard:
            surplus = int((spare - guard) // self.period)
            periods = -surplus if slack.sure or surplus >= _PLENTY else 0
        self._patience = self._patience * 1.3 ** max(1, -periods) if periods else _IMPATIENCE
        # A single period too much always waits.
        self._urgent = self._patience >= _PATIENCE and periods != -1
        self._wish = periods * self.period - astray
        self._loudness += (audioop.rms(self._history, 2) - self._loudness) / 16.0
        self._tries = 0
        if self._wish:
            self._plain = False
            self._tries = _SECOND

    def _rescale(self) -> None:
        """Put time in, or take it out, if it is not heard here."""
        packets = self._packets
        if self._concealer.active or self._invented or self._resting or self._due_later:
            return
        if self._wish == 0:
            self._tries = 0
            return
        most = max(-self._bytes, min(self._bytes, -2 * self._wish))
        need = self._bytes + max(0, most)
        while len(self._rest) < need:
            if not packets or packets[0][0] > self._cursor:
                return
            self._fetch()
        before = self._previous + self._history
        sound = before + self._rest
        place = len(before)
        around = sound[place - self._bytes : place + need]
        patience = min(self._patience, _PATIENCE)
        quiet = audioop.rms(around, 2) <= max(QUIET, self._loudness * patience)
        self._calm = self._calm + 1 if quiet else 0
        if quiet and (self._urgent or self._calm * patience >= _BREATH):
            shift = most
            overlap = min(self._bytes, len(self._rest) - max(0, shift))
        elif self._urgent:
            # Longer by more than is needed does no harm, shorter would.
            overlap = self._bytes // 2
            shift = best_shift(
                sound, place, most if most > 0 else -self._bytes, overlap, self._bytes // 8
            )
        else:
            return
        if not shift:
            return
        self._rest = spliced(sound, place, shift, overlap)[place:]
        self._wish += shift // 2
        self._slack.moved(-shift // 2)
        self.cuts += 1
