"""One call's audio without sockets, threads or clocks: packets and sound in, sound and packets out.

The owner calls, once per 20 ms and in this order:

    microphone(period)         -> packets for `to`, at once: the far end's clock hangs on it
    datagram(data, source, …)  for each datagram that has arrived
    loudspeaker()              -> the next period for the loudspeaker

and a few times a second, for what is never urgent:

    upkeep(now)                -> RTCP to send

and reads `occurred` (digits, media starting or falling silent). `tick` does all of it in one call.
The first three run with cold caches, 50 times a second for as long as a call lasts: what is not
needed for every packet is kept out of them.

*Where packets go.* Symmetric RTP: to the address in the SDP until packets come from elsewhere. If
the SDP's address has sent nothing valid (a far end behind NAT), the first other address whose
packets are RTP of one SSRC, in sequence, with an agreed payload type, is taken in its place; the
SDP's own address takes over again as soon as it is heard, and is never left.

*Whose digits count.* Anybody may be the first to send two packets to our port, and a digit opens
doors: so digits count only from the host in the SDP, the host that signals the call, or, if the
SDP's address is a private one, from outside: a far end behind NAT. The first one from elsewhere is
told as "stray", which counts nowhere.

*What is encrypted.* Once keys are agreed, nothing leaves plain and nothing plain is taken, neither
RTP nor RTCP: what does not open is dropped, counted, and has no other effect. What opens is the far
end's, wherever it comes from, so its digits count.
"""

import ipaddress
import math
from collections.abc import Iterable, Sequence
from typing import Final

from doorstation.errors import MalformedPacket
from doorstation.ids import Ids
from doorstation.media import codecs, quality, rtcp, tones
from doorstation.media.codec import Codec
from doorstation.media.digits import INBAND, STRAY, Digit, EventReceiver, EventSender
from doorstation.media.g711 import Pcma
from doorstation.media.inband import InbandDigits
from doorstation.media.jitter import LONGEST_DELAY, JitterBuffer
from doorstation.media.levels import Speaker, SpeakerLevels
from doorstation.media.pcm import SILENCE_DBFS, audioop, dbfs
from doorstation.media.protection import Protection, load_libraries
from doorstation.media.resample import Resampler
from doorstation.media.rtp import HEADER, is_rtcp, payload_bounds
from doorstation.media.session import (
    Address,
    AgreedAudio,
    AgreedCodec,
    CallStatistics,
    CardSeen,
    Datagram,
    EchoSeen,
    KeysAgreed,
    KeysRefused,
    MediaResumed,
    MediaSilent,
    MediaStarted,
    Occurrence,
)
from doorstation.media.srtp import DtlsPeer, Keys

SILENT_AFTER: Final = 30.0

_OWN_DELAY: Final = 0.04
"""Seconds: a period at the microphone and one at the loudspeaker. The card's queue is not known."""

_RX_CONFIG: Final = 0b10_11_0000
"""Enhanced concealment, adaptive jitter buffer (RFC 3611 4.7.6)."""

_NEW: Final = rtcp.Reception.NEW

_OLDEST: Final = 0.5
"""Seconds that a packet may be taken to have waited: the rest is a clock that was set."""

_SOURCE_GONE: Final = 2.0
"""Seconds of silence after which another address may take the place of one not in the SDP, and in
which packets still under way from before a re-INVITE do not pull us back."""


class Level:
    """Average level of what passed."""

    __slots__ = ("_count", "_squares")

    def __init__(self) -> None:
        self._squares = 0.0
        self._count = 0

    def passed(self, pcm: bytes) -> None:
        rms = audioop.rms(pcm, 2)
        self._squares += rms * rms
        self._count += 1

    @property
    def dbfs(self) -> float:
        return dbfs(math.sqrt(self._squares / self._count)) if self._count else SILENCE_DBFS


def literal(address: Address | None) -> Address | None:
    """An address as the sockets write it, None for a host name, port 0 or the 0.0.0.0 of a hold.

    Nor a group's: one call would speak to a whole network.
    """
    if address is None or not 0 < address[1] < 65536:
        return None
    try:
        ip = ipaddress.ip_address(address[0])
    except ValueError:
        return None
    return None if ip.is_unspecified or ip.is_multicast else (str(ip), address[1])


def _fitted(pcm: bytes, size: int) -> bytes:
    """A period of a rate that has no whole number of frames in 20 ms."""
    return pcm if len(pcm) == size else pcm[:size].ljust(size, b"\0")


def _shown(address: Address | None) -> str:
    if address is None:
        return ""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_agreed(session: AgreedAudio) -> None:
    """Raise ValueError for a codec that the engine does not speak."""
    if why := codecs.missing(session.codec.name, session.codec.clock):
        raise ValueError(why)
    load_libraries(session.protection)


class CallAudio:
    """Drives one call. `rate`: Hz of the sound card, which need not be the codec's.

    Microphone to encoder and decoder to loudspeaker, the sound is converted once or not at all.
    """

    __slots__ = (
        "_began",
        "_buffer",
        "_buffer_late",
        "_candidate",
        "_captured",
        "_clock",
        "_cname",
        "_codec",
        "_codec_name",
        "_collected",
        "_conflict",
        "_digits_waiting",
        "_down",
        "_dropped",
        "_encode",
        "_event_payload_type",
        "_event_receiver",
        "_event_sender",
        "_event_types",
        "_heard",
        "_hearing",
        "_hosts",
        "_ids",
        "_inband",
        "_inband_wanted",
        "_limited",
        "_made",
        "_marker",
        "_muted",
        "_mux",
        "_noise_types",
        "_opus_complexity",
        "_ordinary",
        "_outbox",
        "_packet_samples",
        "_past_concealed",
        "_past_duplicates",
        "_past_late",
        "_past_lost",
        "_past_received",
        "_payload_type",
        "_period",
        "_played",
        "_previous",
        "_previous_until",
        "_protection",
        "_protection_before",
        "_rate",
        "_rates",
        "_readable",
        "_receiving",
        "_reception",
        "_remote",
        "_remote_jitter",
        "_remote_lost",
        "_remote_metrics",
        "_report_due",
        "_round_trip",
        "_rtcp_to",
        "_rtcp_wanted",
        "_sdp_heard",
        "_sdp_rtcp",
        "_sending",
        "_sent",
        "_sent_at_reports",
        "_sent_octets",
        "_sequence",
        "_silent",
        "_silent_after",
        "_sound",
        "_sound_asked",
        "_sound_mixed",
        "_source",
        "_source_heard",
        "_ssrc",
        "_stray_told",
        "_talk",
        "_timestamp",
        "_trusted",
        "_unauthentic",
        "_up",
        "card",
        "echo",
        "loudspeaker_level",
        "microphone_level",
        "occurred",
        "to",
    )

    def __init__(
        self,
        ids: Ids,
        now: float,
        *,
        rate: int = 8000,
        cname: str = "",
        silent_after: float = SILENT_AFTER,
        opus_complexity: int = codecs.COMPLEXITY,
    ) -> None:
        self.occurred: list[Occurrence] = []
        self.microphone_level = Level()
        self.loudspeaker_level = Level()
        self.echo: EchoSeen | None = None
        """To be told by who cancels it."""
        self.card = CardSeen()
        self._talk = quality.TalkLevel()
        self._ids = ids
        self._cname = (cname or ids.token()).encode()[:255]
        self._rate = rate
        self._began = now
        self._silent_after = silent_after
        self._opus_complexity = opus_complexity

        self._made: dict[tuple[str, int], tuple[str, Codec]] = {}
        self._codec: Codec = Pcma()
        """What is sent."""
        self._hearing: Codec = self._codec
        """What came last."""
        self._clock = 8000
        self._period = 160
        """Ticks of the clock of what is sent, in 20 ms."""
        self._codec_name = ""
        self._receiving = False
        self._sending = False
        self._payload_type = 0
        self._encode = self._codec.encode
        self._readable: dict[int, Codec] = {}
        self._event_types: frozenset[int] = frozenset()
        self._noise_types: frozenset[int] = frozenset()
        self._event_payload_type: int | None = None
        self._mux = False
        self._packet_samples = 160
        self._collected = b""
        self._down: Resampler | None = None
        self._up: Resampler | None = None
        self._rates = (0, 0, 0)

        self._ssrc = ids.number(32)
        # In the lower half: a wrap while the first packets are lost leaves the far end with a wrong
        # roll-over counter, and it opens none (RFC 3711 3.3.1).
        self._sequence = ids.number(15)
        self._timestamp = ids.number(32)
        self._marker = True
        self._sent = 0
        self._sent_octets = 0
        self._sent_at_reports = (0, 0)
        self._outbox: list[Datagram] = []
        self._captured = b""
        self._played: bytes | None = None
        self._ordinary = False
        self._digits_waiting = False
        self._event_sender = EventSender()
        self._sound: tones.Player | None = None
        self._sound_asked: tuple[tones.Sound, bool | None] | None = None
        self._sound_mixed = False
        self._limited = Speaker(SpeakerLevels())
        self._muted = False

        self._protection: Protection | None = None
        self._protection_before: Protection | None = None
        self._unauthentic = 0

        self._remote: Address | None = None
        self.to: Address | None = None
        """Where RTP goes now."""
        self._rtcp_to: Address | None = None
        self._rtcp_wanted = True
        self._sdp_rtcp: Address | None = None
        self._sdp_heard = False
        self._conflict: Address | None = None
        self._candidate: tuple[Address, int, int] | None = None
        self._source: Address | None = None
        self._source_heard = now
        self._hosts: frozenset[str] = frozenset()
        self._trusted = False
        self._stray_told = False
        self._previous: Address | None = None
        self._previous_until = 0.0
        self._reception: rtcp.Reception | None = None
        self._past_received = 0
        self._past_lost = 0
        self._past_duplicates = 0
        self._past_late = 0
        self._past_concealed = 0
        self._buffer = JitterBuffer(self._hearing.rate)
        self._buffer_late = 0
        self._event_receiver = EventReceiver()
        self._inband_wanted = False
        self._inband: InbandDigits | None = None
        self._dropped = 0

        self._heard = now
        self._silent = False
        self._report_due = now + rtcp.report_interval(ids.fraction(), first=True)
        self._round_trip: float | None = None
        self._remote_lost: int | None = None
        self._remote_jitter = 0
        self._remote_metrics: rtcp.VoipMetrics | None = None

    # What signalling agrees.

    def configure(self, session: AgreedAudio, now: float, *, inband: bool = False) -> None:
        """Take what was agreed, also again after a re-INVITE. `inband`: tones may be digits too.

        Raises ValueError for a codec that this engine does not speak.
        """
        check_agreed(session)
        agreed = session.codec
        self._codec_name = agreed.name
        self._inband_wanted = inband
        rate = self._codec.rate
        self._codec = codec = self._spoken(agreed, agreed.fmtp)
        if self._sound is not None and self._sound_asked is not None and codec.rate != rate:
            self.play(*self._sound_asked, mix=self._sound_mixed)  # begins again, at its own pitch
        self._encode = codec.encode
        self._clock = codec.clock
        self._period = codec.clock // 50
        self._payload_type = session.payload_type
        self._readable = {
            payload_type: self._spoken(codec)
            for payload_type, codec in session.receive
            if codecs.is_spoken(codec.name, codec.clock)
            and not codecs.missing(codec.name, codec.clock)
        }
        self._event_types = frozenset(payload_type for payload_type, _ in session.event_receive)
        self._noise_types = frozenset(session.noise_receive)
        self._event_payload_type = session.event_payload_type
        self._mux = session.rtcp_mux
        if not self._event_sender.active:
            self._event_sender = EventSender(session.event_clock)
        packet_ms = codec.packet_ms(max(10, min(session.ptime_ms, 120)))
        samples = packet_ms * codec.rate // 1000
        if samples != self._packet_samples:
            self._packet_samples = samples
            self._collected = b""
        self._protect(session.protection)
        sending = session.direction in ("sendrecv", "sendonly")
        receiving = session.direction in ("sendrecv", "recvonly")
        self._ordinary = False
        if sending and not self._sending:
            self._marker = True
        if receiving and not self._receiving:
            self._buffer.restart()
        if sending and receiving and not (self._sending and self._receiving):
            self._heard = now
        self._sending = sending
        self._receiving = receiving
        if self._source is None:
            self._hear(codec)  # most likely
        self._take_rate(self._rate)
        self._listen_for_tones()
        remote = literal(session.remote)
        # None is a host name, to be learned from what arrives, or 0.0.0.0: a hold, not a new place.
        if remote is not None and remote != self._remote:
            self._previous = self._source
            self._previous_until = now + _SOURCE_GONE
            self._remote = remote
            self.to = remote
            self._sdp_heard = False
            self._source = None
            self._candidate = None
        self._hosts = frozenset(((self._remote or session.remote)[0], session.signalled_by))
        self._trusted = self._source is not None and self._may_type(self._source)
        self._rtcp_wanted = session.remote_rtcp is not None
        self._sdp_rtcp = literal(session.remote_rtcp)
        self._aim_rtcp()

    def _protect(self, protection: Keys | DtlsPeer | None) -> None:
        """Take the keys that were agreed; contexts whose keys stay go on.

        Also after a plain time: told again, the same keys begun anew would take what was recorded
        with them, and encrypt twice with one key stream.
        """
        before = self._protection
        if protection is None:
            self._protection_before = before or self._protection_before
            self._protection = None
            return
        if before is None and isinstance(protection, Keys):
            before = self._protection_before
        if before is None:
            self._protection = Protection(protection, mux=self._mux)
        else:
            self._protection = before.changed(protection, mux=self._mux)

    def card_opened(self, rate: int) -> None:
        """The card runs, perhaps at another rate than before."""
        self._take_rate(rate)

    def _take_rate(self, rate: int) -> None:
        self._rate = rate
        rates = (rate, self._codec.rate, self._buffer.rate)
        if self._rates == rates:
            return
        self._rates = rates
        self._inband = None
        self._listen_for_tones()
        for old in (self._down, self._up):
            if old is not None:
                old.close()
        self._down = Resampler(rate, rates[1]) if rate != rates[1] else None
        self._up = Resampler(rates[2], rate) if rate != rates[2] else None

    def _listen_for_tones(self) -> None:
        if not self._inband_wanted:
            self._inband = None
        elif self._inband is None:
            self._inband = InbandDigits(self._buffer.rate, self._codec.rate)

    def _spoken(self, agreed: AgreedCodec, fmtp: str | None = None) -> Codec:
        """The call's one codec of this name, which remembers; another `fmtp` makes a new one."""
        key = agreed.name.upper(), agreed.clock
        asked, codec = self._made.get(key, (None, None))
        if codec is None or fmtp not in (None, asked):
            codec = codecs.make(*key, fmtp or "", self._opus_complexity)
            self._made[key] = fmtp or "", codec
        return codec

    @property
    def can_send_events(self) -> bool:
        """Whether the far end takes RFC 4733; if not, digits go by INFO."""
        return self._event_payload_type is not None

    def send_digits(self, digits: str, duration_ms: int = 100, gap_ms: int = 100) -> None:
        """Send digits by RFC 4733 in place of audio.

        Raises ValueError when the far end takes none, or for a digit that does not exist.
        """
        if self._event_payload_type is None:
            raise ValueError("the far end takes no telephone-events: send INFO")
        self._event_sender.send(digits, duration_ms, gap_ms)
        self._digits_waiting = True
        self._ordinary = False

    def play(self, sound: tones.Sound, loop: bool | None = None, mix: bool = False) -> None:
        """Play towards the far end, in place of the microphone or mixed with it."""
        self.stop_sound()
        self._sound = tones.player(sound, self._codec.rate, loop)
        self._sound_asked = sound, loop
        self._sound_mixed = mix
        self._limited = Speaker(SpeakerLevels())
        self._ordinary = False

    def stop_sound(self) -> None:
        """End what plays towards the far end."""
        if self._sound is not None:
            self._sound.close()
            self._sound = None

    def mute(self, on: bool) -> None:
        """Send silence in place of the microphone; sounds played to the far end are heard."""
        self._muted = on
        self._ordinary = False

    # One tick.

    def microphone(self, period: bytes) -> Sequence[bytes]:
        """One captured period of 20 ms at the card's rate; the packets for `to`, to be sent now."""
        timestamp = self._timestamp
        self._timestamp = timestamp + self._period & 0xFFFFFFFF
        pcm = period
        if self._down is not None:
            pcm = _fitted(self._down.process(period), self._codec.rate // 25)
        self._captured = pcm
        if not self._ordinary:
            return self._extraordinary(pcm, timestamp)
        payload = self._encode(pcm)
        if not payload:  # silence, which is not sent
            self._mark()
            return ()
        return (self._packet(self._payload_type, timestamp, False, payload),)

    def _extraordinary(self, pcm: bytes, timestamp: int) -> list[bytes]:
        """The packets of any period, and whether the next one is simply one packet again."""
        out: list[bytes] = []
        if self.to is None:
            return out
        protection = self._protection
        if protection is not None:
            out.extend(protection.flight())
        if not self._sending or (protection is not None and not protection.ready):
            return out
        if self._muted:
            pcm = bytes(len(pcm))
        if self._sound is not None:
            pcm = self._with_sound(pcm)
        if not self._send_events(timestamp, out):
            self._collect(pcm, timestamp, out)
        self._ordinary = (
            self._sound is None
            and not self._muted
            and not self._digits_waiting
            and not self._marker
            and self._packet_samples * 50 == self._codec.rate
        )
        return out

    def datagram(self, data: bytes, source: Address, now: float, age: float = 0.0) -> None:
        """Take a datagram of the RTP socket; `age`: seconds it has waited in the socket."""
        if self._protection is not None:
            opened = self._opened(data, source, rtcp_port=False)
            if opened is None:
                return
            data = opened
        try:
            if self._mux and is_rtcp(data):
                self._rtcp_received(data, source, now)
                return
            if len(data) > 12 and data[0] == 0x80:
                start, end = 12, len(data)  # what nearly every packet is
            else:
                start, end = payload_bounds(data)
        except MalformedPacket:
            self._dropped += 1
            return
        _, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
        payload_type = second & 0x7F
        codec = self._readable.get(payload_type)
        if (
            codec is None
            and payload_type not in self._event_types
            and payload_type not in self._noise_types
        ):
            self._dropped += 1
            return
        reception = self._reception
        if reception is None or source != self._source or ssrc != reception.ssrc:
            reception = self._another_source(source, ssrc, sequence, now)
            if reception is None:
                self._dropped += 1
                return
        self._candidate = None
        verdict = reception.arrived(sequence)
        if verdict != _NEW:
            if verdict == rtcp.Reception.DUPLICATE:
                return
            if verdict == rtcp.Reception.JUMP:
                self._dropped += 1
                return
            self._buffer.restart()
        self._heard = self._source_heard = now
        if self._silent:
            self._resume()
        if codec is None and payload_type in self._event_types:
            self._event(ssrc, timestamp, data[start:end], now)
            return
        if not 0.0 <= age <= _OLDEST:
            age = 0.0 if age < 0.0 else _OLDEST
        if codec is not self._hearing and codec is not None:
            self._hear(codec)
        reception.timed(timestamp, now - age)
        if self._receiving:
            buffer = self._buffer
            buffer.put(timestamp, data[start:end], codec, age)
            if buffer.late != self._buffer_late:
                self._buffer_late = buffer.late
                reception.discarded(sequence)

    def rtcp_datagram(self, data: bytes, source: Address, now: float) -> None:
        """Take a datagram of the RTCP socket."""
        if self._protection is not None:
            opened = self._opened(data, source, rtcp_port=True)
            if opened is None:
                return
            data = opened
        try:
            self._rtcp_received(data, source, now)
        except MalformedPacket:
            self._dropped += 1

    def loudspeaker(self) -> bytes | None:
        """The next period for the loudspeaker at the card's rate; None when we do not listen."""
        if not self._receiving:
            return None
        pcm = self._played = self._buffer.get()
        if self._inband is not None:
            key = self._inband.take(pcm, self._captured)
            if key is not None:
                self._digit_heard(Digit(key, INBAND, self._heard))
        return pcm if self._up is None else _fitted(self._up.process(pcm), self._rate // 50 * 2)

    def upkeep(self, now: float, captured: bytes = b"") -> list[Datagram]:
        """What a few times a second is enough for: levels, silence, RTCP; to be sent is RTCP.

        `captured`: the microphone's last period, where something was taken out of it before it
        came here: a dead one has less than the noise of any other, a cleaned one too.
        """
        out, self._outbox = self._outbox, []
        self.microphone_level.passed(captured or self._captured)
        if self._receiving:
            if self._played is not None:
                self.loudspeaker_level.passed(self._played)
                self._talk.take(audioop.rms(self._played, 2))
            if self._sending and not self._silent and now - self._heard > self._silent_after:
                self._silent = True
                self.occurred.append(MediaSilent(now - self._heard))
        if self._protection is not None:
            self._keep_up_handshake(self._protection, out)
        if now >= self._report_due:
            self._report(now, out)
        return out

    def _keep_up_handshake(self, protection: Protection, out: list[Datagram]) -> None:
        failed = protection.failed
        protection.timer_fired()
        if protection.failed != failed:
            self.occurred.append(KeysRefused(protection.failed))
        to = self._rtcp_to
        if to is not None:
            out += (Datagram(data, to, True) for data in protection.flight(rtcp_port=True))

    def tick(
        self, period: bytes, datagrams: Iterable[tuple[bytes, Address]], now: float
    ) -> tuple[bytes | None, list[Datagram]]:
        """All of one tick: (for the loudspeaker, to send)."""
        to = self.to
        packets = self.microphone(period)
        out = [Datagram(packet, to) for packet in packets if to is not None]
        for data, source in datagrams:
            self.datagram(data, source, now)
        return self.loudspeaker(), out + self.upkeep(now)

    def periods_lost(self, count: int) -> None:
        """The card has lost `count` periods of capture: all timestamps go on as time did."""
        self._timestamp = self._timestamp + count * self._period & 0xFFFFFFFF
        self._buffer.skip(count)
        self._mark()

    def bye(self, now: float) -> list[Datagram]:
        """The call ends: the last report with BYE."""
        self.stop_sound()
        return self._compound(now, rtcp.Bye((self._ssrc,))) if self._sent else []

    def statistics(self, now: float) -> CallStatistics:
        """A snapshot; may be taken from another thread."""
        reception = self._reception
        buffer = self._buffer
        remote = self.to
        seen = self._seen()
        rating = self._rating(seen)
        theirs = self._remote_metrics
        echo = self.echo
        return CallStatistics(
            seconds=round(now - self._began, 3),
            codec=self._codec_name,
            encryption="" if self._protection is None else self._protection.suite,
            remote=_shown(remote),
            sent=self._sent,
            received=self._past_received + (reception.received if reception else 0),
            lost=self._past_lost + (reception.lost if reception else 0),
            late=self._past_late + buffer.late,
            duplicated=self._past_duplicates + (reception.duplicates if reception else 0),
            concealed=self._past_concealed + buffer.concealed,
            dropped=self._dropped,
            unauthentic=self._unauthentic,
            jitter_ms=round(reception.jitter * 1000 / reception.clock, 2) if reception else 0.0,
            delay_ms=round(buffer.delay * 1000, 1),
            microphone_dbfs=round(self.microphone_level.dbfs, 1),
            loudspeaker_dbfs=round(self.loudspeaker_level.dbfs, 1),
            round_trip_ms=None if self._round_trip is None else round(self._round_trip * 1000, 1),
            burst_loss_percent=round(100 * seen.burst_density, 1),
            burst_ms=round(1000 * seen.burst_seconds, 1),
            gap_loss_percent=round(100 * seen.gap_density, 1),
            mos_lq=None if rating is None else round(quality.mos(rating[0]), 1),
            mos_cq=None if rating is None else round(quality.mos(rating[1]), 1),
            echo_db=None if echo is None else echo.erle_db,
            echo_late=echo is not None and echo.late,
            overruns=self.card.overruns,
            underruns=self.card.underruns,
            card_lost_seconds=round(self.card.seconds_lost, 1),
            remote_lost=self._remote_lost,
            remote_jitter_ms=None
            if self._remote_lost is None
            else round(self._remote_jitter * 1000 / self._clock, 2),
            remote_discarded_percent=None
            if theirs is None
            else round(theirs.discard_rate / 2.56, 1),
            remote_delay_ms=None if theirs is None else theirs.end_system_delay,
            remote_mos=None
            if theirs is None or theirs.mos_lq == rtcp.UNKNOWN
            else theirs.mos_lq / 10,
            remote_echo_db=None if theirs is None or theirs.rerl == rtcp.UNKNOWN else theirs.rerl,
        )

    def _seen(self) -> quality.BurstGap:
        """Bursts and gaps of what is heard now."""
        reception = self._reception
        if reception is None:
            return quality.BurstGap()
        return reception.bursts.figures(reception.expected, reception.packet_seconds)

    def _rating(self, seen: quality.BurstGap) -> tuple[float, float] | None:
        """R of listening, and of talking with each other; None while nothing has come."""
        if self._reception is None:
            return None
        delay = (self._round_trip or 0.0) / 2 + self._buffer.delay + _OWN_DELAY
        name = self._codec_name
        return quality.r_factor(name, seen, 0.0), quality.r_factor(name, seen, delay)

    def _metrics(self) -> list[rtcp.RtcpPacket]:
        """How we hear the far end (RFC 3611 4.7).

        Sent without being asked for in SDP, which RFC 3611 5 leaves free: a receiver that does not
        know the block skips it.
        """
        reception = self._reception
        if reception is None:
            return []
        reception.review()
        buffer = self._buffer
        seen = self._seen()
        rating = self._rating(seen)
        assert rating is not None
        expected = max(1, reception.expected)
        delay_ms = round(1000 * buffer.delay)
        talk, noise = self._talk.talk_dbfs, self._talk.noise_dbfs
        erle = self.echo.erle_db if self.echo is not None else None
        metrics = rtcp.VoipMetrics(
            ssrc=reception.ssrc,
            loss_rate=min(255, (reception.lost << 8) // expected),
            discard_rate=min(255, (buffer.late << 8) // expected),
            burst_density=min(255, int(256 * seen.burst_density)),
            gap_density=min(255, int(256 * seen.gap_density)),
            burst_duration=min(0xFFFF, round(1000 * seen.burst_seconds)),
            gap_duration=min(0xFFFF, round(1000 * seen.gap_seconds)),
            round_trip=min(0xFFFF, round(1000 * (self._round_trip or 0.0))),
            end_system_delay=min(0xFFFF, delay_ms + round(1000 * _OWN_DELAY)),
            signal_level=rtcp.UNKNOWN if talk is None else round(talk + quality.DBM0),
            noise_level=rtcp.UNKNOWN if noise is None else round(noise + quality.DBM0),
            rerl=rtcp.UNKNOWN if erle is None else max(0, min(126, round(erle))),
            gmin=quality.GMIN,
            r_factor=round(rating[1]),
            mos_lq=round(10 * quality.mos(rating[0])),
            mos_cq=round(10 * quality.mos(rating[1])),
            rx_config=_RX_CONFIG,
            jb_nominal=delay_ms,
            jb_maximum=delay_ms,
            jb_absolute_maximum=round(1000 * LONGEST_DELAY),
        )
        return [rtcp.ExtendedReport(self._ssrc, (metrics,))]

    # Sending.

    def _mark(self) -> None:
        """The next packet begins a talk spurt."""
        self._marker = True
        self._ordinary = False

    def _packet(self, payload_type: int, timestamp: int, marker: bool, payload: bytes) -> bytes:
        sequence = self._sequence
        self._sequence = sequence + 1 & 0xFFFF
        self._sent += 1
        self._sent_octets += len(payload)
        second = payload_type | (0x80 if marker else 0)
        data = HEADER.pack(0x80, second, sequence, timestamp, self._ssrc) + payload
        return data if self._protection is None else self._protection.protect(data)

    def _collect(self, pcm: bytes, timestamp: int, out: list[bytes]) -> None:
        """Packets of the agreed length, which need not be a period's."""
        rate, clock = self._codec.rate, self._clock
        begins = timestamp - len(self._collected) // 2 * clock // rate & 0xFFFFFFFF
        self._collected += pcm
        size = 2 * self._packet_samples
        while len(self._collected) >= size:
            piece, self._collected = self._collected[:size], self._collected[size:]
            payload = self._encode(piece)
            if payload:
                out.append(self._packet(self._payload_type, begins, self._marker, payload))
            self._marker = not payload
            begins = begins + self._packet_samples * clock // rate & 0xFFFFFFFF

    def _with_sound(self, pcm: bytes) -> bytes:
        sound = self._sound
        assert sound is not None
        played = sound.read(len(pcm) // 2)
        if sound.finished:
            self.stop_sound()
        return self._limited.play(pcm, played) if self._sound_mixed else self._limited.play(played)

    def _send_events(self, timestamp: int, out: list[bytes]) -> bool:
        """Digits in place of this period's audio, if it is their turn."""
        if not self._digits_waiting:
            return False
        self._digits_waiting = self._event_sender.active
        if self._event_payload_type is None:
            return False
        events = self._event_sender.tick(timestamp)
        for start, marker, payload in events:
            out.append(self._packet(self._event_payload_type, start, marker, payload))
        if events:
            self._collected = b""
            self._marker = True
        return bool(events)

    # Receiving.

    def _opened(self, data: bytes, source: Address, *, rtcp_port: bool) -> bytes | None:
        """What is in a packet of a protected call; None when it is not the far end's to hear."""
        protection = self._protection
        assert protection is not None
        if protection.is_handshake(data):
            self._handshake(protection, data, source, rtcp_port=rtcp_port)
            return None
        if rtcp_port or (self._mux and is_rtcp(data)):
            opened = protection.unprotect_rtcp(data)
        else:
            opened = protection.unprotect(data)
        if opened is None:
            self._unauthentic += 1
        return opened

    def _handshake(
        self, protection: Protection, data: bytes, source: Address, *, rtcp_port: bool
    ) -> None:
        """Only from where the far end may be: anybody can write a first flight."""
        if protection.failed or not self._may_be_there(source):
            self._unauthentic += 1
            return
        was_ready = protection.ready
        if not was_ready and not rtcp_port and not self._sdp_heard:
            self.to = source
            self._aim_rtcp()
        protection.handshake_received(data, rtcp_port=rtcp_port)
        self._ordinary = False
        if protection.failed:
            self.occurred.append(KeysRefused(protection.failed))
        elif protection.ready and not was_ready:
            self._mark()
            self.occurred.append(KeysAgreed(protection.suite))

    def _another_source(
        self, source: Address, ssrc: int, sequence: int, now: float
    ) -> rtcp.Reception | None:
        """A packet from another address or SSRC than the last: whether it may be heard from now."""
        from_sdp = source == self._remote
        if not from_sdp and source != self._source:
            if self._sdp_heard or (source == self._previous and now < self._previous_until):
                return None
            if self._source is not None and now - self._source_heard < _SOURCE_GONE:
                return None
        first = self._reception is None or (from_sdp and source != self._source)
        if not (first and from_sdp):
            # On trial: two in sequence, while the one heard so far sends nothing.
            trial = self._candidate
            self._candidate = (source, ssrc, (sequence + 1) & 0xFFFF)
            if trial != (source, ssrc, sequence):
                return None
        if ssrc == self._ssrc and source != self._conflict:
            self._collision(source, now)
        if from_sdp:
            self._sdp_heard = True
        if self._source is None:
            self.occurred.append(MediaStarted(source))
        if source != self._source:
            self._source = source
            self._trusted = self._may_type(source)
            self.to = source
            self._aim_rtcp()
        old = self._reception
        if old is not None and old.ssrc != ssrc:
            self._past_received += old.received
            self._past_lost += old.lost
            self._past_duplicates += old.duplicates
        if old is None or old.ssrc != ssrc:
            self._reception = rtcp.Reception(ssrc, self._hearing.clock)
            self._buffer.restart()
        return self._reception

    def _hear(self, codec: Codec) -> None:
        """Another codec than before: clock and rate may be others too."""
        self._hearing = codec
        reception, buffer = self._reception, self._buffer
        if reception is not None and reception.clock != codec.clock:
            reception.jitter *= codec.clock / reception.clock
            reception.clock = codec.clock
        if buffer.rate != codec.rate:
            self._past_late += buffer.late
            self._past_concealed += buffer.concealed
            self._buffer = JitterBuffer(codec.rate)
            self._buffer_late = 0
        self._take_rate(self._rate)

    def _collision(self, source: Address, now: float) -> None:
        """The far end has chosen our SSRC: we take another (RFC 3550 8.2).

        Once per address: one that follows us to the new SSRC only sends our packets back.
        """
        self._conflict = source
        self._outbox += self._compound(now, rtcp.Bye((self._ssrc,)))
        self._ssrc = self._ids.number(32)
        self._sequence = self._ids.number(15)
        self._mark()

    def _event(self, ssrc: int, timestamp: int, payload: bytes, now: float) -> None:
        self._buffer.expect_silence()
        if self._stray_told and not self._trusted:
            return
        try:
            digit = self._event_receiver.received(ssrc, timestamp, payload, now)
        except MalformedPacket:
            self._dropped += 1
            return
        if digit is not None:
            self._digit_heard(digit)

    def _digit_heard(self, digit: Digit) -> None:
        if self._trusted:
            self.occurred.append(digit)
        elif not self._stray_told:
            # Once: who sends a flood of them would write the event log full.
            self._stray_told = True
            self.occurred.append(Digit(digit.value, STRAY, digit.at))

    def _may_type(self, source: Address) -> bool:
        """Whether digits from there are taken for the far end's."""
        return self._protection is not None or self._may_be_there(source)

    def _may_be_there(self, source: Address) -> bool:
        """Whether signalling leads to expect the far end's packets from there."""
        if source[0] in self._hosts:
            return True
        remote = self._remote
        # An address that means nothing outside of the far end's own network.
        behind_nat = remote is not None and ipaddress.ip_address(remote[0]).is_private
        return behind_nat and not ipaddress.ip_address(source[0]).is_private

    def _resume(self) -> None:
        self._silent = False
        self.occurred.append(MediaResumed())

    # RTCP.

    def _aim_rtcp(self) -> None:
        to = self.to
        if to is None or not self._rtcp_wanted:
            self._rtcp_to = None
        elif self._mux:
            self._rtcp_to = to
        elif to == self._remote and self._sdp_rtcp is not None:
            self._rtcp_to = self._sdp_rtcp
        else:
            self._rtcp_to = (to[0], to[1] + 1) if to[1] < 65535 else None

    def _rtcp_received(self, data: bytes, source: Address, now: float) -> None:
        known = self.to is not None and source[0] == self.to[0]
        if not known and source != self._rtcp_to:
            self._dropped += 1
            return
        for packet in rtcp.parse_rtcp(data):
            match packet:
                case rtcp.SenderReport():
                    if self._reception is not None and packet.ssrc == self._reception.ssrc:
                        self._reception.sender_report_received(packet.ntp, now)
                    self._blocks(packet.blocks, now)
                case rtcp.ReceiverReport():
                    self._blocks(packet.blocks, now)
                case rtcp.ExtendedReport():
                    for report in packet.reports:
                        if isinstance(report, rtcp.VoipMetrics) and report.ssrc == self._ssrc:
                            self._remote_metrics = report
                case rtcp.SourceDescription() | rtcp.Bye() | rtcp.OtherRtcp():
                    pass
        self._heard = now
        if self._silent:
            self._resume()

    def _blocks(self, blocks: tuple[rtcp.ReportBlock, ...], now: float) -> None:
        for block in blocks:
            if block.ssrc == self._ssrc:
                self._remote_lost = block.cumulative_lost
                self._codec.expect_loss(block.fraction_lost / 2.56)
                self._remote_jitter = block.jitter
                measured = rtcp.round_trip(block, now)
                if measured is not None:
                    self._round_trip = measured

    def _report(self, now: float, out: list[Datagram]) -> None:
        self._report_due = now + rtcp.report_interval(self._ids.fraction(), first=False)
        out += self._compound(now)

    def _compound(self, now: float, *more: rtcp.RtcpPacket) -> list[Datagram]:
        """Our report with what goes behind it; nothing while there is nowhere or no key for it."""
        to, protection = self._rtcp_to, self._protection
        if to is None or (protection is not None and not protection.rtcp_ready):
            return []
        data = rtcp.format_rtcp(
            [self._own_report(now), self._description(), *self._metrics(), *more]
        )
        if protection is not None:
            data = protection.protect_rtcp(data)
        return [Datagram(data, to, not self._mux)]

    def _own_report(self, now: float) -> rtcp.RtcpPacket:
        blocks: tuple[rtcp.ReportBlock, ...] = ()
        if self._reception is not None:
            blocks = (self._reception.report(now),)
        # A sender is who has sent since the report before the last one (RFC 3550 6.3.8).
        before, last = self._sent_at_reports
        self._sent_at_reports = (last, self._sent)
        if self._sent == before:
            return rtcp.ReceiverReport(self._ssrc, blocks)
        return rtcp.SenderReport(
            ssrc=self._ssrc,
            ntp=rtcp.ntp_time(now),
            timestamp=self._timestamp,
            packets=self._sent & 0xFFFFFFFF,
            octets=self._sent_octets & 0xFFFFFFFF,
            blocks=blocks,
        )

    def _description(self) -> rtcp.SourceDescription:
        return rtcp.SourceDescription(((self._ssrc, ((rtcp.CNAME, self._cname),)),))
