"""One call in the media thread: its sockets and its audio."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from doorstation.media.dtls import is_dtls
from doorstation.media.engine import CallAudio
from doorstation.media.recording import Packet, Tick
from doorstation.media.session import Address, CardSeen, Datagram
from doorstation.net.addresses import remote_of, sockaddr
from doorstation.net.media.card import PERIOD, Card
from doorstation.net.media.ports import ANCILLARY, Sockets, age_of, sender


class Sink(Protocol):
    """Called in the media thread, so it never waits."""

    def tick(self, tick: Tick) -> None: ...
    def packet(self, packet: Packet) -> None: ...


_DATAGRAM: Final = 2048
"""Longest datagram read: an Ethernet frame and a bit."""


_PER_TICK: Final = 64
"""Datagrams read per tick and socket: bounds what a flood can take from the sound."""


_WHOLE_PERIOD: Final = 172
"""Bytes of an RTP packet with 20 ms of G.711."""


UPKEEP_TICKS: Final = 10
"""The RTCP socket is looked at five times a second: a report is never urgent."""


_OLDEST: Final = 1.0
"""Seconds that a report may be taken to have waited: the rest is a clock that was set, and a far
end heard a day ago would be a dead one."""


class Leg:
    """A session as the thread sees it."""

    __slots__ = (
        "audio",
        "clock",
        "ended",
        "microphone_muted",
        "name",
        "receive",
        "send_rtcp_to",
        "send_to",
        "sink",
        "sockets",
        "speaker_muted",
        "xruns_before",
    )

    def __init__(
        self, name: str, sockets: Sockets, audio: CallAudio, clock: Callable[[], float]
    ) -> None:
        self.name = name
        self.clock = clock
        self.sockets = sockets
        self.audio = audio
        self.ended: float | None = None
        self.sink: Sink | None = None
        self.microphone_muted = False
        self.speaker_muted = False
        self.xruns_before: tuple[int, int] | None = None
        self.use(sockets.address)

    def use(self, remote: str, source: str = "") -> None:
        """Speak with an address, see `Sockets.use`."""
        self.sockets.use(remote)
        self.receive = self.sockets.rtp.recvmsg
        self.send_to = sender(self.sockets.rtp, source)
        self.send_rtcp_to = sender(self.sockets.rtcp, source)

    def mute(self, part: str, *, on: bool) -> None:
        if part == "microphone":
            self.microphone_muted = on
            self.audio.mute(on)
        else:
            self.speaker_muted = on

    def speak(self, period: bytes) -> None:
        """Send what the microphone heard."""
        audio = self.audio
        for packet in audio.microphone(period):
            to = audio.to
            if to is None:
                break
            try:
                self.send_to(packet, sockaddr(*to))
            except OSError:
                continue  # unreachable for now: the next packet tries again
            if self.sink is not None:
                self.trace(packet, to=to)

    def listen(self, now: float) -> bytes | None:
        """Read what has arrived; the next period for the loudspeaker.

        One packet of a whole period, younger than a period, is what this tick is about: asking for
        another would nearly always end in an exception, the dearest part of the tick. What is
        left behind shows its age in the next tick, which then reads on.
        """
        audio = self.audio
        for _ in range(_PER_TICK):
            try:
                data, ancillary, _, source = self.receive(_DATAGRAM, ANCILLARY)
            except OSError:
                break
            age = age_of(ancillary)
            if len(source) != 2:
                source = remote_of(source)
            if self.sink is not None:
                self.trace(data, source=source, age=age)
            audio.datagram(data, source, now, age)
            if 0.0 <= age < PERIOD and len(data) >= _WHOLE_PERIOD:
                break
        heard = audio.loudspeaker()
        return None if self.speaker_muted else heard

    def upkeep(self, now: float, captured: bytes) -> None:
        """RTCP both ways; `captured`: the last period, as the card gave it."""
        for _ in range(_PER_TICK):
            try:
                data, ancillary, _, source = self.sockets.rtcp.recvmsg(_DATAGRAM, ANCILLARY)
            except OSError:
                break
            # It may have waited for a few ticks, which is no part of the round trip.
            arrived = now - min(max(0.0, age_of(ancillary)), _OLDEST)
            source = remote_of(source)
            if self.sink is not None:
                self.trace(data, source=source, age=now - arrived, rtcp=True)
            self.audio.rtcp_datagram(data, source, arrived)
        self.send(self.audio.upkeep(now, captured))

    def send(self, datagrams: Iterable[Datagram]) -> None:
        """Send what goes elsewhere than the packets of sound."""
        for data, to, rtcp in datagrams:
            if self.sink is not None:
                self.trace(data, to=to, rtcp=rtcp)
            with contextlib.suppress(OSError):
                (self.send_rtcp_to if rtcp else self.send_to)(data, sockaddr(*to))

    def watch_card(self, card: "Card") -> None:
        """Count what it did since this call began."""
        overruns, underruns = card.xruns
        if self.xruns_before is None:
            self.xruns_before = overruns, underruns
        before = self.xruns_before
        lost = self.audio.card.seconds_lost
        if card.state == "lost":
            lost += UPKEEP_TICKS * PERIOD
        self.audio.card = CardSeen(overruns - before[0], underruns - before[1], lost)

    def trace(
        self,
        data: bytes,
        *,
        to: Address | None = None,
        source: Address | None = None,
        age: float = 0.0,
        rtcp: bool = False,
    ) -> None:
        """Tell the sink of a datagram: as it is on the wire, so encrypted if the call is."""
        own = (self.sockets.address, self.sockets.rtp_port + rtcp)
        at = self.clock() - max(0.0, age)
        assert self.sink is not None
        self.sink.packet(Packet(at, source or own, to or own, data))

    def discard(self, now: float) -> None:
        """Throw away what came before the audio began: it would only be delay.

        But for a handshake, which the far end would begin again only after a second.
        """
        for _ in range(4096):
            try:
                data, source = self.sockets.rtp.recvfrom(_DATAGRAM)
            except OSError:
                break
            if is_dtls(data):
                self.audio.datagram(data, remote_of(source), now)
