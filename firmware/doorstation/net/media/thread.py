"""The media thread as the event loop sees it.

API, for the event loop's thread only:

    media = MediaThread(open_port, loop, on_event, ids=SystemIds(), ports=(10000, 20000))
        open_port: Callable[[], AudioPort]       in the media thread, when sound is first needed
        on_event:  Callable[[MediaEvent], None]  on the loop
    session = media.start_session(local_address, name="")   "::" (every address, IPv4 too),
                                                            "0.0.0.0" or an address of ours
        session.rtp_port, session.rtcp_port, session.address, session.name
        raises TransportError when no port pair is free
    session.configure(agreed: sdp.negotiation.AudioSession, inband=False, source="")
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
    media.silent -> float           seconds since its last turn; 0 while there is no thread
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
import logging
import threading
import time
from collections.abc import Callable

from doorboard.interfaces import AudioPort

from doorstation.ids import Ids, SystemIds
from doorstation.media import codecs, path, tones
from doorstation.media.digits import check_digits
from doorstation.media.engine import CallAudio, check_agreed
from doorstation.media.session import AgreedAudio, CallStatistics
from doorstation.net.media.card import PERIOD
from doorstation.net.media.events import MediaEvent, SessionEnded
from doorstation.net.media.leg import Leg, Sink
from doorstation.net.media.ports import Sockets, bind_pair
from doorstation.net.media.worker import FrameCallback, LevelCallback, Worker

_log = logging.getLogger(__name__)


class MediaSession:
    """One call's media: a port pair, and audio from `configure` on. Made by `start_session`."""

    def __init__(
        self, media: "MediaThread", name: str, sockets: "Sockets", audio: CallAudio
    ) -> None:
        self.name = name
        self.address = sockets.address
        self.rtp_port = sockets.rtp_port
        self.rtcp_port = sockets.rtp_port + 1
        self._media = media
        self._leg = Leg(name, sockets, audio, media._clock)
        self._agreed: AgreedAudio | None = None
        self._stopped = False

    def configure(self, agreed: AgreedAudio, *, inband: bool = False, source: str = "") -> None:
        """Start the audio as agreed, or change it; `inband`: tones of the far end are digits too.

        `source`: the local address that packets leave from; "": as the kernel chooses.
        Raises ValueError for an unknown codec.
        """
        check_agreed(agreed)
        if self._stopped:
            return
        leg = self._leg
        first = self._agreed is None
        self._agreed = agreed
        self._media._do(lambda worker: worker.configure(leg, agreed, first, source, inband=inband))

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
        self._worker = Worker(open_port, make_path, self._post, on_event, clock, sleep)
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

    @property
    def silent(self) -> float:
        """Seconds since the thread's last turn; 0 while there is none."""
        worker = self._worker
        return self._clock() - worker.card.read_at if worker.running else 0.0

    def start_session(self, local_address: str, name: str = "") -> MediaSession:
        """Bind an RTP/RTCP port pair. Raises TransportError when none is free."""
        sockets = bind_pair(local_address, self._ports, self._ids)
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
        """Another path for the sound, between two calls; the card once it was closed."""
        worker = self._worker
        with worker.lock:
            worker.make_path_next(make_path)
            worker.card.renew()
            if worker.running:
                worker.calls.append(Worker.renew_path)

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

    def _do(self, call: "Callable[[Worker], None]") -> None:
        """Hand a call to the thread, starting it when it does not run."""
        if self._closed:
            return
        worker = self._worker
        with worker.lock:
            worker.calls.append(call)
            if worker.running:
                return
            worker.running = True
            worker.card.read_at = self._clock()  # of a thread that may hang in its first turn
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
