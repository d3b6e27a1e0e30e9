"""What runs in the media thread: one turn each 20 ms, between the card and the calls."""

import contextlib
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from doorboard.interfaces import AudioPort

from doorstation.errors import DoorstationError
from doorstation.media import echo, path, resample, tones
from doorstation.media.digits import Digit
from doorstation.media.levels import Speaker, SpeakerLevels
from doorstation.media.pcm import audioop, dbfs
from doorstation.media.recording import Tick
from doorstation.media.session import (
    AgreedAudio,
    KeysAgreed,
    KeysRefused,
    MediaResumed,
    MediaSilent,
    MediaStarted,
)
from doorstation.net.media.card import Card
from doorstation.net.media.events import (
    DigitHeard,
    FarEndResumed,
    FarEndSilent,
    FarEndStarted,
    KeysFailed,
    KeysReady,
    MediaEvent,
    MediaFailed,
    SessionEnded,
    SoundEnded,
    SoundFailed,
    SoundFault,
)
from doorstation.net.media.leg import UPKEEP_TICKS, Leg, Sink

_log = logging.getLogger(__name__)


_FRAME_PERIODS: Final = 5
"""Periods handed to a listener at once: waking the loop for each costs as much as the call."""


_LINGER_TICKS: Final = 25
"""Silence written after the last sound, so that the card plays it to its end, and a second sound
right after it finds the card open."""


_SWITCH_INTERVAL: Final = 0.0001
"""How long a busy event loop may keep the interpreter from the media thread, in seconds. With the
loop busy 8 of 20 ms the packets' cadence deviated by 4.5 ms at Python's 5 ms, by 3.0 at
0.5 ms and by 0.9 at this, on a machine with other work."""


_PRIORITY: Final = 10
"""Real-time priority, where the service is given it (systemd: LimitRTPRIO)."""


LevelCallback = Callable[[float, float], None]


FrameCallback = Callable[[bytes, bytes, int], None]


class Worker:
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
        self.calls: deque[Callable[[Worker], None]] = deque()
        self.running = False
        self.closing = False
        self.sound = tones.LocalSound()
        self.level_callback: LevelCallback | None = None
        self.level_ticks = 5
        self.frame_callback: FrameCallback | None = None
        self.card = Card(open_port, self._report, self._opened, self._missed, clock, sleep)
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
        self._legs: list[Leg] = []
        self._ticks = 0
        self._idle_ticks = 0
        self._sound_playing: tones.Sound | None = None
        self._levels = [0, 0]
        self._frames: list[tuple[bytes, bytes]] = []

    # Calls from the loop, carried out here.

    def configure(
        self, leg: Leg, agreed: AgreedAudio, first: bool, source: str, *, inband: bool
    ) -> None:
        leg.use(agreed.remote[0], source)
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

    def end(self, leg: Leg) -> None:
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

    def play_to(self, leg: Leg, sound: tones.Sound, loop: bool | None, mix: bool) -> None:
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
        # Read once, as below: the loop may take it away meanwhile.
        sink = self.sink
        if sink is not None:
            sent = self._silence if any(leg.microphone_muted for leg in legs) else period
            received = self._silence if far is None else far
            sink.tick(Tick(card.rate, self.rate, captured, taken, sent, received))
        self._ticks += 1
        if self._ticks % UPKEEP_TICKS == 0:
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
        try:
            out = self.sound.read(self.rate)
        except DoorstationError as error:  # of what was to follow it
            assert self._sound_playing is not None
            self._report(SoundFailed(self._sound_playing, str(error)))
            self.silence()
            return self._silence
        if self._sound_playing is not None and not self.sound.playing:
            self._report(SoundEnded(self._sound_playing))
            self._sound_playing = None
        return out

    def _hand_out(self, period: bytes, out: bytes) -> None:
        self._frames.append((period, out))
        if len(self._frames) >= _FRAME_PERIODS:
            microphone, loudspeaker = map(b"".join, zip(*self._frames, strict=True))
            self._frames.clear()
            callback = self.frame_callback
            if callback is not None:
                self._post(callback, microphone, loudspeaker, self.rate)

    def _show_levels(self, period: bytes, out: bytes) -> None:
        self._levels[0] = max(self._levels[0], audioop.rms(period, 2))
        self._levels[1] = max(self._levels[1], audioop.rms(out, 2))
        callback = self.level_callback
        if self._ticks % self.level_ticks == 0 and callback is not None:
            self._post(callback, dbfs(self._levels[0]), dbfs(self._levels[1]))
            self._levels = [0, 0]

    def _occurrences(self, leg: Leg) -> None:
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
