"""The media thread: the only place where sockets, the sound card and a call's audio meet.

API, for the event loop's thread only:

    media = MediaThread(open_port, loop, on_event, ids=SystemIds(), ports=(10000, 20000))
        open_port: Callable[[], AudioPort]       in the media thread, when sound is first needed
        on_event:  Callable[[MediaEvent], None]  on the loop
    session = media.start_session(local_address, name="")   "::" (every address, IPv4 too),
                                                            "0.0.0.0" or an address of ours
        session.rtp_port, session.rtcp_port, session.address, session.name
        raises TransportError when no port pair is free
    session.configure(agreed: sdp.negotiation.AudioSession, inband=False)
        audio runs from here; again on re-INVITE; raises ValueError for a codec we do not speak
    session.play(sound, loop=None, mix=False)       to the far end, in place of or over our mic
    session.stop_sound()
    session.mute("microphone", on=True)             the far end hears silence; "speaker": we do
    session.can_send_events -> bool                 RFC 4733 agreed; else send INFO
    session.send_digits("5#", duration_ms=100, gap_ms=100)
        raises ValueError: no such digit, or no telephone-events agreed
    session.statistics() -> CallStatistics | None   any time; None before the first configure
    session.stop()                                  BYE by RTCP, sockets closed, SessionEnded

    media.play(sound, loop=None, then=None)
        our loudspeaker, call or not; replaces the sound that plays; `then` repeats when it is over
        Sound: tones.named("ringback", "uk") or wav.parse_wav(data)
    media.stop_sound()              what repeats ends; a single sound is heard to its end
    media.watch_levels(callback | None, per_second=10)
        callback(microphone_dbfs, loudspeaker_dbfs), on the loop
    media.record(sink | None)       what sounds and passes the sockets, in the thread: see `Sink`
    media.listen(callback | None)
        callback(microphone, loudspeaker, rate), on the loop: 100 ms of mono S16 each, 10 a second
    media.card -> "closed" | "running" | "lost"
    media.xruns -> (overruns, underruns)    of the card, since the start
    media.running -> bool           whether the thread lives
    media.close()                   ends all, joins the thread (a few 20 ms); may be called twice

Events (every one a frozen struct, on the loop, in order):

    DigitHeard(session, digit: Digit)         RFC 4733, tones; merge with INFO by DigitMerger
    FarEndStarted(session, source)            first valid packet since the address was agreed
    FarEndSilent(session, seconds)            dead call; once, until FarEndResumed(session)
    KeysReady(session, suite)                 a DTLS handshake is done: sound passes
    KeysFailed(session, why)                  it will never be: the session stays without sound
    SessionEnded(session, statistics)         after stop(); statistics None if never configured
    SoundEnded(sound)                         played to its end (not when stopped or replaced)
    SoundFailed(sound, reason)                it cannot be played
    CardLost(reason), CardBack()              the call goes on with silence in between
    SoundFault(reason)                        the call goes on, its sound is not what it should be
    MediaFailed(error)                        a fault of ours, the thread is gone: end the service

The thread sleeps in `AudioPort.read()` and wakes once per 20 ms. In each tick it encodes and sends
first, since the far end hears our jitter, and then empties the sockets and writes the loudspeaker.
It runs only while a session is configured or a sound plays, and shortly after; idle means no thread
and a closed card. Loop to thread: one queue of calls, looked at each tick. Thread to loop:
`call_soon_threadsafe`. Nothing else is shared, except that statistics read plain numbers.
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec
from doorboard.interfaces import AudioPort, BoardError

from doorstation.errors import DoorstationError, TransportError
from doorstation.ids import Ids, SystemIds
from doorstation.media import codecs, echo, path, resample, tones
from doorstation.media.dtls import is_dtls
from doorstation.media.engine import (
    Address,
    AgreedAudio,
    CallAudio,
    CallStatistics,
    CardSeen,
    Datagram,
    KeysAgreed,
    KeysRefused,
    LocalSound,
    MediaResumed,
    MediaSilent,
    MediaStarted,
    check_agreed,
)
from doorstation.media.events import Digit, check_digits
from doorstation.media.levels import Speaker, SpeakerLevels
from doorstation.media.pcm import audioop, dbfs
from doorstation.media.recording import Packet, Tick

_log = logging.getLogger(__name__)


class DigitHeard(msgspec.Struct, frozen=True):
    session: str
    digit: Digit


class FarEndStarted(msgspec.Struct, frozen=True):
    session: str
    source: Address


class FarEndSilent(msgspec.Struct, frozen=True):
    session: str
    seconds: float


class FarEndResumed(msgspec.Struct, frozen=True):
    session: str


class KeysReady(msgspec.Struct, frozen=True):
    session: str
    suite: str


class KeysFailed(msgspec.Struct, frozen=True):
    session: str
    why: str


class SessionEnded(msgspec.Struct, frozen=True):
    session: str
    statistics: CallStatistics | None


class SoundEnded(msgspec.Struct, frozen=True):
    sound: tones.Sound


class SoundFailed(msgspec.Struct, frozen=True):
    sound: tones.Sound
    reason: str


class CardLost(msgspec.Struct, frozen=True):
    reason: str


class CardBack(msgspec.Struct, frozen=True):
    pass


class SoundFault(msgspec.Struct, frozen=True):
    reason: str


class MediaFailed(msgspec.Struct, frozen=True):
    error: BaseException


MediaEvent = (
    DigitHeard
    | FarEndStarted
    | FarEndSilent
    | FarEndResumed
    | KeysReady
    | KeysFailed
    | SessionEnded
    | SoundEnded
    | SoundFailed
    | CardLost
    | CardBack
    | SoundFault
    | MediaFailed
)

LevelCallback = Callable[[float, float], None]
FrameCallback = Callable[[bytes, bytes, int], None]


class Sink(Protocol):
    """Called in the media thread, so it never waits."""

    def tick(self, tick: Tick) -> None: ...
    def packet(self, packet: Packet) -> None: ...


PERIOD: Final = 0.02

_DATAGRAM: Final = 2048
"""Longest datagram read: an Ethernet frame and a bit."""

_PER_TICK: Final = 64
"""Datagrams read per tick and socket: bounds what a flood can take from the sound."""

_WHOLE_PERIOD: Final = 172
"""Bytes of an RTP packet with 20 ms of G.711."""

_UPKEEP_TICKS: Final = 10
"""The RTCP socket is looked at five times a second: a report is never urgent."""

_FRAME_PERIODS: Final = 5
"""Periods handed to a listener at once: waking the loop for each costs as much as the call."""

_LINGER_TICKS: Final = 25
"""Silence written after the last sound, so that the card plays it to its end, and a second sound
right after it finds the card open."""

_CATCH_UP: Final = 10
"""Periods made up for after a stall on the timer; what is beyond is skipped."""

_RETRY: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds between attempts to open a lost card; the last one stays."""

_SWITCH_INTERVAL: Final = 0.0001
"""How long a busy event loop may keep the interpreter from the media thread, in seconds. With the
loop busy 8 of 20 ms the packets' cadence deviated by 4.5 ms at Python's 5 ms, by 3.0 at
0.5 ms and by 0.9 at this, on a machine with other work."""

_PRIORITY: Final = 10
"""Real-time priority, where the service is given it (systemd: LimitRTPRIO)."""

_DSCP_EF: Final = 46 << 2

# Linux's receive time of a datagram (SO_TIMESTAMPNS_NEW), which Python's socket does not name: the
# thread reads the socket once per period, and jitter is to be that of the line.
_SO_TIMESTAMPNS: Final = 64
_TIMESPEC: Final = struct.Struct("=qq")
_ANCILLARY: Final = socket.CMSG_SPACE(_TIMESPEC.size)


class MediaSession:
    """One call's media: a port pair, and audio from `configure` on. Made by `start_session`."""

    def __init__(
        self, media: "MediaThread", name: str, sockets: "_Sockets", audio: CallAudio
    ) -> None:
        self.name = name
        self.address = sockets.address
        self.rtp_port = sockets.rtp_port
        self.rtcp_port = sockets.rtp_port + 1
        self._media = media
        self._leg = _Leg(name, sockets, audio, media._clock)
        self._agreed: AgreedAudio | None = None
        self._stopped = False

    def configure(self, agreed: AgreedAudio, *, inband: bool = False) -> None:
        """Start the audio as agreed, or change it; `inband`: tones of the far end are digits too.

        Raises ValueError for an unknown codec.
        """
        check_agreed(agreed)
        if self._stopped:
            return
        leg = self._leg
        first = self._agreed is None
        self._agreed = agreed
        self._media._do(lambda worker: worker.configure(leg, agreed, first, inband=inband))

    @property
    def can_send_events(self) -> bool:
        """Whether digits can go by RFC 4733."""
        return self._agreed is not None and self._agreed.event_payload_type is not None

    def send_digits(self, digits: str, duration_ms: int = 100, gap_ms: int = 100) -> None:
        """Send digits by RFC 4733. Raises ValueError: no such digit, or no events agreed."""
        check_digits(digits)
        if not self.can_send_events:
            raise ValueError("the far end takes no telephone-events: send INFO")
        audio = self._leg.audio
        if not self._stopped:
            self._media._do(lambda _: _send_digits(audio, digits, duration_ms, gap_ms))

    def play(self, sound: tones.Sound, loop: bool | None = None, mix: bool = False) -> None:
        """Play to the far end, in place of the microphone or mixed with it."""
        leg = self._leg
        if self._agreed is not None and not self._stopped:
            self._media._do(lambda worker: worker.play_to(leg, sound, loop, mix))

    def stop_sound(self) -> None:
        """End what plays to the far end."""
        audio = self._leg.audio
        if self._agreed is not None and not self._stopped:
            self._media._do(lambda _: audio.stop_sound())

    def mute(self, part: str, *, on: bool) -> None:
        """Silence one way of the call, or no more; sounds of the door's own are heard."""
        leg = self._leg
        if not self._stopped:
            self._media._do(lambda _: leg.mute(part, on=on))

    def statistics(self) -> CallStatistics | None:
        """A snapshot of the counts; None before the first `configure`."""
        if self._agreed is None:
            return None
        return self._leg.audio.statistics(self._leg.ended or self._media._clock())

    def stop(self) -> None:
        """End the session; SessionEnded follows. May be called twice."""
        if self._stopped:
            return
        self._stopped = True
        leg = self._leg
        if self._agreed is None:
            leg.sockets.close()
            self._media._emit(SessionEnded(self.name, None))
        else:
            self._media._do(lambda worker: worker.end(leg))
        self._media._forget(self)


def _send_digits(audio: CallAudio, digits: str, duration_ms: int, gap_ms: int) -> None:
    if audio.can_send_events:  # a re-INVITE may have overtaken the digits
        audio.send_digits(digits, duration_ms, gap_ms)


class MediaThread:
    """Owns the thread; see the module's docstring for the whole API."""

    def __init__(
        self,
        open_port: Callable[[], AudioPort],
        loop: asyncio.AbstractEventLoop,
        on_event: Callable[[MediaEvent], None],
        *,
        ids: Ids | None = None,
        ports: tuple[int, int] = (10000, 20000),
        silent_after: float = 30.0,
        opus_complexity: int = codecs.COMPLEXITY,
        make_path: Callable[[], path.SoundPath] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`make_path`: called in the thread, once; None: sound is left as it is."""
        self._loop = loop
        self._on_event = on_event
        self._ids = ids if ids is not None else SystemIds()
        self._ports = ports
        self._silent_after = silent_after
        self._opus_complexity = opus_complexity
        self._clock = clock
        self._worker = _Worker(open_port, make_path, self._post, on_event, clock, sleep)
        self._thread: threading.Thread | None = None
        self._starting: asyncio.Handle | None = None
        self._sessions: set[MediaSession] = set()
        self._closed = False

    @property
    def card(self) -> str:
        """ "closed", "running" or "lost"."""
        return self._worker.card.state

    @property
    def xruns(self) -> tuple[int, int]:
        """How often the microphone lost sound, and how often the loudspeaker had none."""
        return self._worker.card.xruns

    @property
    def running(self) -> bool:
        """Whether the thread lives."""
        return self._worker.running

    def start_session(self, local_address: str, name: str = "") -> MediaSession:
        """Bind an RTP/RTCP port pair. Raises TransportError when none is free."""
        sockets = _bind_pair(local_address, self._ports, self._ids)
        name = name or f"media{sockets.rtp_port}"
        audio = CallAudio(
            self._ids,
            self._clock(),
            silent_after=self._silent_after,
            opus_complexity=self._opus_complexity,
        )
        session = MediaSession(self, name, sockets, audio)
        self._sessions.add(session)
        return session

    def play(
        self, sound: tones.Sound, loop: bool | None = None, then: tones.Sound | None = None
    ) -> None:
        """Play on our loudspeaker, in place of the sound that plays; over a call's voice.

        `then` repeats when the sound is over.
        """
        self._do(lambda worker: worker.play(sound, loop, then))

    def stop_sound(self) -> None:
        """End what repeats on our loudspeaker; a single sound is heard to its end."""
        if self._worker.running:
            self._do(lambda worker: worker.stop_sound())

    def watch_levels(self, callback: LevelCallback | None, per_second: float = 10.0) -> None:
        """Report both levels in dBFS while sound runs; None ends it."""
        worker = self._worker
        worker.level_ticks = max(1, round(1.0 / (per_second * PERIOD)))
        worker.level_callback = callback

    def listen(self, callback: FrameCallback | None) -> None:
        """Hand out all sound of both directions while it runs; None ends it."""
        self._worker.frame_callback = callback

    def record(self, sink: Sink | None) -> None:
        """Hand out every track and datagram of the calls; None ends it."""
        self._worker.sink = sink
        if self._worker.running:
            self._do(lambda worker: worker.record(sink))

    def use_path(self, make_path: Callable[[], path.SoundPath] | None) -> None:
        """Another path for the sound, between two calls; the card stays as it is."""
        worker = self._worker
        with worker.lock:
            worker.make_path_next(make_path)
            if worker.running:
                worker.calls.append(_Worker.renew_path)

    def close(self) -> None:
        """End every session and sound, join the thread."""
        if self._closed:
            return
        for session in list(self._sessions):
            session.stop()
        if self._worker.running:
            self._do(lambda worker: worker.silence())
        self._closed = True
        worker = self._worker
        with worker.lock:
            worker.closing = True
        if self._starting is not None:
            self._starting.cancel()
            self._start()
        if self._thread is not None:
            self._thread.join(2.0)
            if self._thread.is_alive():
                _log.warning("the sound card does not return; its thread is left behind")
        else:
            worker.card.close()

    # For the sessions.

    def _do(self, call: "Callable[[_Worker], None]") -> None:
        """Hand a call to the thread, starting it when it does not run."""
        if self._closed:
            return
        worker = self._worker
        with worker.lock:
            worker.calls.append(call)
            if worker.running:
                return
            worker.running = True
        # After what the loop has in hand, which may be the answer to a call: opening the card, the
        # first time 10 ms and more, would go first.
        self._starting = self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._starting = None
        self._thread = threading.Thread(target=self._worker.run, name="media", daemon=True)
        self._thread.start()

    def _forget(self, session: MediaSession) -> None:
        self._sessions.discard(session)

    def _emit(self, event: MediaEvent) -> None:
        self._loop.call_soon(self._on_event, event)

    def _post(self, callback: Callable[..., object], *arguments: object) -> None:
        """From the thread: call on the loop."""
        # A loop that has been closed has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)


_Pair = tuple[socket.socket, socket.socket]


class _Sockets:
    """An RTP socket on an even port and an RTCP socket on the next, once for each IP family.

    Which family a call needs shows when its offer is written or read, long after the port number
    was wanted: so both are there, on one number, and `use` says which.
    """

    def __init__(self, address: str, pairs: Sequence[_Pair]) -> None:
        self.address = address
        self.rtp, self.rtcp = pairs[0]
        self.rtp_port: int = self.rtp.getsockname()[1]
        self._pairs = {pair[0].family == socket.AF_INET6: pair for pair in pairs}
        self.ipv6 = self.rtp.family == socket.AF_INET6
        for ipv6, pair in self._pairs.items():
            for one in pair:
                one.setblocking(False)
                with contextlib.suppress(OSError):  # marking is a wish; some containers refuse it
                    if ipv6:
                        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _DSCP_EF)
                    else:
                        one.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _DSCP_EF)
                with contextlib.suppress(OSError):  # kernels before 5.1: the tick's time serves
                    one.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def use(self, remote: str) -> None:
        """Speak with an address: by the sockets of its family, where there are any."""
        ipv6 = ":" in remote
        if ipv6 in self._pairs:
            self.ipv6 = ipv6
            self.rtp, self.rtcp = self._pairs[ipv6]

    def close(self) -> None:
        for pair in self._pairs.values():
            _close(pair)


def _bind_pair(address: str, ports: tuple[int, int], ids: Ids) -> _Sockets:
    first = ports[0] + (ports[0] & 1)
    pairs = (ports[1] - first + 1) // 2
    if pairs <= 0:
        raise TransportError(f"media ports {ports[0]} to {ports[1]}: no even port and the next")
    # Begin anywhere, so that the next call's port cannot be foretold.
    begin = ids.number(16) % pairs
    why = ""
    for i in range(pairs):
        port = first + 2 * ((begin + i) % pairs)
        try:
            return _Sockets(address, _bind(address, port))
        except OSError as error:
            why = error.strerror or str(error)
            if error.errno not in _IN_USE:
                break
    raise TransportError(f"no media port pair on {address} in {ports[0]} to {ports[1]}: {why}")


def _bind(address: str, port: int) -> list[_Pair]:
    """Sockets on `port` and the next; "::" is every address of both families. Raises OSError."""
    if address != "::":
        ip = ipaddress.ip_address(address.partition("%")[0])
        return [_bind_one(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, address, port)]
    pair = _bind_one(socket.AF_INET, "0.0.0.0", port)  # noqa: S104 - phones are outside
    try:
        return [pair, _bind_one(socket.AF_INET6, address, port)]
    except OSError as error:
        if error.errno in _IN_USE:
            _close(pair)
            raise
        return [pair]  # IPv6 is switched off here


def _bind_one(family: int, address: str, port: int) -> _Pair:
    pair = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
    try:
        for one, number in zip(pair, (port, port + 1), strict=True):
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address, number))
    except OSError:
        _close(pair)
        raise
    return pair


def _close(pair: _Pair) -> None:
    for one in pair:
        one.close()


_IN_USE: Final = (98, 13)  # EADDRINUSE, EACCES: the next port may do


def _age(ancillary: list[tuple[int, int, bytes]]) -> float:
    """Seconds since the datagram arrived; -1.0 when the kernel does not say."""
    if not ancillary:
        return -1.0
    seconds: int
    nanoseconds: int
    seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
    return time.time() - seconds - nanoseconds * 1e-9


class _Leg:
    """A session as the thread sees it."""

    __slots__ = (
        "audio",
        "clock",
        "ended",
        "microphone_muted",
        "name",
        "receive",
        "send_errors",
        "send_to",
        "sink",
        "sockets",
        "speaker_muted",
        "xruns_before",
    )

    def __init__(
        self, name: str, sockets: _Sockets, audio: CallAudio, clock: Callable[[], float]
    ) -> None:
        self.name = name
        self.clock = clock
        self.sockets = sockets
        self.audio = audio
        self.ended: float | None = None
        self.send_errors = 0
        self.sink: Sink | None = None
        self.microphone_muted = False
        self.speaker_muted = False
        self.xruns_before: tuple[int, int] | None = None
        self.use(sockets.address)

    def use(self, remote: str) -> None:
        """Speak with an address: by the sockets of its family, where there are any."""
        self.sockets.use(remote)
        self.receive = self.sockets.rtp.recvmsg
        self.send_to: Callable[..., int] = self.sockets.rtp.sendto

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
            try:
                self.send_to(packet, audio.to)
            except OSError:
                self.send_errors += 1  # unreachable for now: the next packet tries again
            if self.sink is not None and audio.to is not None:
                self.trace(packet, to=audio.to)

    def listen(self, now: float) -> bytes | None:
        """Read what has arrived; the next period for the loudspeaker.

        One packet of a whole period, younger than a period, is what this tick is about: asking for
        another would nearly always end in an exception, the dearest part of the tick. What is
        left behind shows its age in the next tick, which then reads on.
        """
        audio = self.audio
        for _ in range(_PER_TICK):
            try:
                data, ancillary, _, source = self.receive(_DATAGRAM, _ANCILLARY)
            except OSError:
                break
            age = _age(ancillary)
            if len(source) != 2:
                source = source[:2]
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
                data, ancillary, _, source = self.sockets.rtcp.recvmsg(_DATAGRAM, _ANCILLARY)
            except OSError:
                break
            # It may have waited for a few ticks, which is no part of the round trip.
            arrived = now - max(0.0, _age(ancillary))
            if self.sink is not None:
                self.trace(data, source=source[:2], age=now - arrived, rtcp=True)
            self.audio.rtcp_datagram(data, source[:2], arrived)
        self.send(self.audio.upkeep(now, captured))

    def send(self, datagrams: Iterable[Datagram]) -> None:
        """Send what goes elsewhere than the packets of sound."""
        for data, to, rtcp in datagrams:
            if self.sink is not None:
                self.trace(data, to=to, rtcp=rtcp)
            try:
                (self.sockets.rtcp if rtcp else self.sockets.rtp).sendto(data, to)
            except OSError:
                self.send_errors += 1

    def watch_card(self, card: "_Card") -> None:
        """Count what it did since this call began."""
        overruns, underruns = card.xruns
        if self.xruns_before is None:
            self.xruns_before = overruns, underruns
        before = self.xruns_before
        lost = self.audio.card.seconds_lost
        if card.state == "lost":
            lost += _UPKEEP_TICKS * PERIOD
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
                self.audio.datagram(data, source[:2], now)


class _Card:
    """The sound card, or while there is none a timer that gives silence at the same pace."""

    __slots__ = (
        "_attempt",
        "_clock",
        "_deadline",
        "_missed",
        "_open_port",
        "_opened",
        "_overruns",
        "_port",
        "_report",
        "_retry_at",
        "_running",
        "_sleep",
        "rate",
        "read_at",
        "state",
    )

    def __init__(
        self,
        open_port: Callable[[], AudioPort],
        report: Callable[[MediaEvent], None],
        opened: Callable[[int], None],
        missed: Callable[[int], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        """`opened(rate)`: it runs; `missed(periods)`: so much of the microphone was lost."""
        self.state = "closed"
        self.rate = 8000
        self._open_port = open_port
        self._report = report
        self._opened = opened
        self._missed = missed
        self._clock = clock
        self._sleep = sleep
        self._port: AudioPort | None = None
        self._running: AudioPort | None = None
        self._overruns = 0
        self.read_at = 0.0
        """When the last period was captured."""
        self._deadline = 0.0
        self._retry_at = 0.0
        self._attempt = 0

    @property
    def xruns(self) -> tuple[int, int]:
        port = self._port
        return (port.overruns, port.underruns) if port is not None else (0, 0)

    def start(self) -> None:
        """Open the card for the first time, or again after `close`."""
        self._attempt = 0
        self._deadline = self._clock()
        self._open()

    def capture(self) -> bytes:
        """Wait for the next period of the microphone."""
        port = self._running
        if port is not None:
            try:
                period = port.read()
            except BoardError as error:
                self._lose(str(error))
            else:
                now = self._clock()
                if port.overruns != self._overruns:
                    self._overruns = port.overruns
                    self._missed(max(0, int((now - self.read_at) / PERIOD - 0.5)))
                self.read_at = now
                return period
        period = self._wait()
        self.read_at = self._clock()
        return period

    @property
    def delay(self) -> float:
        """Seconds from `play` to the sound."""
        return 0.0 if self._running is None else self._running.delay

    def play(self, period: bytes) -> bytes:
        """Hand a period to the loudspeaker; what it took."""
        if self._running is not None:
            try:
                return self._running.write(period)
            except BoardError as error:
                self._lose(str(error))
        return b""

    def close(self) -> None:
        """Release the card."""
        if self._port is not None:
            with contextlib.suppress(BoardError):
                self._port.close()
        self._running = None
        self.state = "closed"

    def _open(self) -> None:
        was_lost = self.state == "lost"
        try:
            if self._port is None:
                self._port = self._open_port()
            self._port.open()
            if self._port.rate != 8000:
                resample.require()
        except (BoardError, DoorstationError) as error:
            if self._port is not None:
                with contextlib.suppress(BoardError):
                    self._port.close()
            self._retry_at = self._clock() + _RETRY[min(self._attempt, len(_RETRY) - 1)]
            self._attempt += 1
            if not was_lost:
                self.state = "lost"
                self._report(CardLost(str(error)))
            return
        self._running = self._port
        self.rate = self._port.rate
        self._overruns = self._port.overruns
        self.read_at = self._clock()
        self._attempt = 0
        self.state = "running"
        self._opened(self.rate)
        if was_lost:
            self._report(CardBack())

    def _lose(self, reason: str) -> None:
        assert self._port is not None
        with contextlib.suppress(BoardError):
            self._port.close()
        self._running = None
        self.state = "lost"
        self._deadline = self._clock()
        self._retry_at = self._deadline + _RETRY[0]
        self._attempt = 1
        self._report(CardLost(reason))

    def _wait(self) -> bytes:
        if self._clock() >= self._retry_at:
            self._open()
        self._deadline += PERIOD
        left = self._deadline - self._clock()
        if left > 0:
            self._sleep(left)
        elif left < -_CATCH_UP * PERIOD:
            skipped = int(-left / PERIOD)
            self._missed(skipped)
            self._deadline += skipped * PERIOD
        return bytes(self.rate // 50 * 2)


class _Worker:
    """What runs in the thread."""

    # Slots here, in the card and in the engine: the thread finds cold caches at every wake-up, and
    # an attribute in a dictionary costs three lines of them.
    __slots__ = (
        "_clock",
        "_frames",
        "_idle_ticks",
        "_legs",
        "_levels",
        "_limited",
        "_make_path",
        "_on_event",
        "_path_due",
        "_post",
        "_silence",
        "_sound_playing",
        "_ticks",
        "calls",
        "card",
        "closing",
        "frame_callback",
        "level_callback",
        "level_ticks",
        "lock",
        "path",
        "rate",
        "running",
        "sink",
        "sound",
    )

    def __init__(
        self,
        open_port: Callable[[], AudioPort],
        make_path: Callable[[], path.SoundPath] | None,
        post: Callable[..., None],
        on_event: Callable[[MediaEvent], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self.lock = threading.Lock()
        self.calls: deque[Callable[[_Worker], None]] = deque()
        self.running = False
        self.closing = False
        self.sound = LocalSound()
        self.level_callback: LevelCallback | None = None
        self.level_ticks = 5
        self.frame_callback: FrameCallback | None = None
        self.card = _Card(open_port, self._report, self._opened, self._missed, clock, sleep)
        self.rate = self.card.rate
        """Of all sound between the card and the calls."""
        self._silence = b""
        self._limited = Speaker(SpeakerLevels())
        self.sink: Sink | None = None
        self._make_path = make_path
        self._path_due = True
        self.path: path.SoundPath | None = None
        self._post = post
        self._on_event = on_event
        self._clock = clock
        self._legs: list[_Leg] = []
        self._ticks = 0
        self._idle_ticks = 0
        self._sound_playing: tones.Sound | None = None
        self._levels = [0, 0]
        self._frames: list[tuple[bytes, bytes]] = []

    # Calls from the loop, carried out here.

    def configure(self, leg: _Leg, agreed: AgreedAudio, first: bool, *, inband: bool) -> None:
        leg.use(agreed.remote[0])
        leg.audio.configure(agreed, self._clock(), inband=inband)
        if first:
            leg.audio.card_opened(self.rate)
            leg.discard(self._clock())
            if self.path is not None and not self._legs:
                self.path.call_began(self.card.delay)
            leg.sink = self.sink
            leg.watch_card(self.card)
            self._legs.append(leg)
            self._idle_ticks = 0

    def end(self, leg: _Leg) -> None:
        now = self._clock()
        leg.watch_card(self.card)
        leg.send(leg.audio.bye(now))
        self._occurrences(leg)
        leg.ended = now
        leg.sockets.close()
        self._legs.remove(leg)
        self._report(SessionEnded(leg.name, leg.audio.statistics(now)))

    def play(self, sound: tones.Sound, loop: bool | None, then: tones.Sound | None) -> None:
        self.silence()
        try:
            self.sound.play(sound, self.rate, loop, then)
        except DoorstationError as error:
            self._report(SoundFailed(sound, str(error)))
        else:
            self._sound_playing = sound

    def stop_sound(self) -> None:
        self.sound.stop_repeating()
        if not self.sound.playing:
            self._sound_playing = None

    def silence(self) -> None:
        self.sound.stop()
        self._sound_playing = None

    def play_to(self, leg: _Leg, sound: tones.Sound, loop: bool | None, mix: bool) -> None:
        try:
            leg.audio.play(sound, loop, mix)
        except DoorstationError as error:
            self._report(SoundFailed(sound, str(error)))

    def record(self, sink: Sink | None) -> None:
        self.sink = sink
        for leg in self._legs:
            leg.sink = sink

    def make_path_next(self, make_path: Callable[[], path.SoundPath] | None) -> None:
        self._make_path = make_path
        self._path_due = True

    def renew_path(self) -> None:
        self._begin_path()
        self._opened(self.card.rate)

    # The thread.

    def run(self) -> None:
        # Stays so after the thread: without contention it costs nothing.
        sys.setswitchinterval(_SWITCH_INTERVAL)
        # Other programs then never make a packet late: a quarter of the deviation on a machine
        # whose cores were all taken. Threads of a sound library begun from here do not inherit it.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(
                0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(_PRIORITY)
            )
        try:
            self._run()
        except BaseException as error:
            # Not caught in there, so a fault of ours: the loop's side must know that it is over.
            self.card.close()
            with self.lock:
                self.running = False
            self._report(MediaFailed(error))

    def _run(self) -> None:
        card = self.card
        self._begin_path()
        self._opened(card.rate)  # a card that cannot be opened is silence at this rate
        card.start()
        self._idle_ticks = 0
        while True:
            period = card.capture()
            while self.calls:
                self.calls.popleft()(self)
            if not self._legs and self._rested():
                return
            self._tick(period)

    def _rested(self) -> bool:
        """Without a call: whether nothing has played for a while, and the card is closed."""
        if self.sound.playing:
            self._idle_ticks = 0
            return False
        self._idle_ticks += 1
        if self._idle_ticks <= _LINGER_TICKS and not self.closing and self.card.state != "lost":
            return False
        self.card.close()
        with self.lock:
            if not self.calls:
                self.running = False
                return True
        self.card.start()
        self._idle_ticks = 0
        return False

    def _begin_path(self) -> None:
        """Once, and before any sound: what the canceller learns of the room is kept."""
        if not self._path_due:
            return
        self._path_due = False
        if self.path is not None:
            self.path.close()
            self.path = None
        make = self._make_path
        if make is None:
            return
        try:
            resample.require()
            self.path = make()
        except DoorstationError as error:
            self._report(SoundFault(f"echo is not cancelled: {error}"))

    def _opened(self, rate: int) -> None:
        if self.path is not None:
            self.path.card_opened(rate)
            rate = path.RATE
            if self._legs:
                # Its queue may be another one now: an echo before its reference would go unnoticed.
                self.path.call_began(self.card.delay)
        self.rate = rate
        self._frames.clear()
        self._silence = bytes(rate // 50 * 2)
        for leg in self._legs:
            leg.audio.card_opened(rate)
        self.sound.rate_changed(rate)

    def _missed(self, periods: int) -> None:
        for leg in self._legs:
            leg.audio.periods_lost(periods)

    def _tick(self, period: bytes) -> None:
        card = self.card
        path = self.path
        now = card.read_at
        legs = self._legs
        captured = period
        if path is not None:
            period = path.heard(period)
        for leg in legs:
            leg.speak(period)
        far: bytes | None = None
        for leg in legs:
            heard = leg.listen(now)
            if heard is not None:
                far = heard if far is None else tones.mixed(far, heard)
            if leg.audio.occurred:
                self._occurrences(leg)
        own = None if self._sound_playing is None else self._own_sound()
        if path is not None:
            out = path.mixed(far, own)
            taken = card.play(path.sounding(out))
            path.written(taken)
        else:
            if own is not None:
                out = self._limited.play(own) if far is None else self._limited.play(far, own)
            else:
                out = self._silence if far is None else far  # as it was sent: it cannot clip
            taken = card.play(out)
        if self.sink is not None:
            sent = self._silence if any(leg.microphone_muted for leg in legs) else period
            received = self._silence if far is None else far
            self.sink.tick(Tick(card.rate, self.rate, captured, taken, sent, received))
        self._ticks += 1
        if self._ticks % _UPKEEP_TICKS == 0:
            seen = None if path is None else path.canceller.figures()
            for leg in legs:
                leg.audio.echo = seen
                leg.watch_card(card)
                leg.upkeep(now, captured)
            if path is not None and path.canceller.occurred:
                self._echo_occurred(path.canceller)
        if self.level_callback is not None:
            self._show_levels(period, out)
        if self.frame_callback is not None:
            self._hand_out(period, out)

    def _echo_occurred(self, canceller: path.Canceller) -> None:
        occurred, canceller.occurred = canceller.occurred, []
        for one in occurred:
            match one:
                case echo.ReferenceLate(seconds, or_more):
                    by = f"{seconds * 1000:.0f} ms{' or more' if or_more else ''}"
                    why = f"the echo comes {by} before what makes it"
                    self._report(SoundFault(f"echo cannot be cancelled: {why}"))
                case echo.DriftFound(ppm):
                    _log.info("loudspeaker and microphone differ by %.0f ppm: followed", ppm)
                case echo.EchoDelay(seconds):
                    _log.info("the echo comes after %.1f ms", seconds * 1000)

    def _own_sound(self) -> bytes:
        out = self.sound.read(self.rate)
        if self._sound_playing is not None and not self.sound.playing:
            self._report(SoundEnded(self._sound_playing))
            self._sound_playing = None
        return out

    def _hand_out(self, period: bytes, out: bytes) -> None:
        self._frames.append((period, out))
        if len(self._frames) >= _FRAME_PERIODS:
            microphone, loudspeaker = map(b"".join, zip(*self._frames, strict=True))
            self._frames.clear()
            if self.frame_callback is not None:
                self._post(self.frame_callback, microphone, loudspeaker, self.rate)

    def _show_levels(self, period: bytes, out: bytes) -> None:
        self._levels[0] = max(self._levels[0], audioop.rms(period, 2))
        self._levels[1] = max(self._levels[1], audioop.rms(out, 2))
        callback = self.level_callback
        if self._ticks % self.level_ticks == 0 and callback is not None:
            self._post(callback, dbfs(self._levels[0]), dbfs(self._levels[1]))
            self._levels = [0, 0]

    def _occurrences(self, leg: _Leg) -> None:
        occurred = leg.audio.occurred
        leg.audio.occurred = []
        for one in occurred:
            match one:
                case Digit():
                    self._report(DigitHeard(leg.name, one))
                case MediaStarted():
                    self._report(FarEndStarted(leg.name, one.source))
                case MediaSilent():
                    self._report(FarEndSilent(leg.name, one.seconds))
                case MediaResumed():
                    self._report(FarEndResumed(leg.name))
                case KeysAgreed():
                    self._report(KeysReady(leg.name, one.suite))
                case KeysRefused():
                    self._report(KeysFailed(leg.name, one.why))

    def _report(self, event: MediaEvent) -> None:
        self._post(self._on_event, event)
