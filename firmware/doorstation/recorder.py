"""Records a call for diagnosis, when somebody asked for it: never by itself, never for long.

The media thread hands over what sounded and what passed its sockets; a thread of its own converts
and writes. One that falls behind loses its recording, not the call its sound.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal

from doorstation.door.events import Field
from doorstation.errors import DoorstationError
from doorstation.media import recording
from doorstation.media.recording import Packet, Tick
from doorstation.settings.tree import Recording
from doorstation.store.files import Folder
from doorstation.store.recordings import Recordings

log = logging.getLogger(__name__)

_BATCH: Final = 25
"""Periods handed over at once: half a second."""

_BEHIND: Final = 40
"""Batches that may wait for the disk: 20 seconds, three megabytes."""


class Recorder:
    """On the loop, but for `tick` and `packet`, which the media thread calls."""

    def __init__(
        self,
        settings: Recording,
        attach: Callable[["Recorder | None"], None],
        record: Callable[[str, Mapping[str, Field]], None],
        *,
        held: Collection[str] = (),
        hold: Callable[[Sequence[str]], None] = lambda folders: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`attach`: connects to the sound, or ends that; `record`: to the event log.

        `held`: folders where recordings lay when `hold` was called last, perhaps by the recorder
        of another folder: they are deleted there, too.
        """
        self._settings = settings
        self._attach = attach
        self._record = record
        self._held = set(held)
        self._hold = hold
        self._closed = False
        self._clock = clock
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._state: Literal["off", "waiting", "on", "being written"] = "off"
        self._call = ""
        self._name = ""
        self._end: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._ticks: list[Tick] = []
        self._packets: list[Packet] = []
        self._writer: _Writer | None = None
        self._last: _Writer | None = None
        if settings.folder or held:
            self._loop.call_soon(self._expire)

    def status(self) -> dict[str, object] | None:
        """For `ctl status`; None while nothing is recorded."""
        if self._state == "off":
            return None
        return {"state": self._state, "call": self._call or None, "file": self._name or None}

    def ask(self, call: str) -> None:
        """Record this call, or with "" the next one. Raises DoorstationError with why not."""
        if not self._settings.folder:
            raise DoorstationError("recording.folder is not set: nothing is ever recorded")
        if self._state != "off":
            raise DoorstationError(f"a recording is {self._state} already")
        self._state = "waiting"
        if call:
            self.call_began(call)

    def call_began(self, call: str) -> None:
        """A call has sound now."""
        if self._state != "waiting":
            return
        at = self._wall()
        try:
            recordings = Recordings(Folder(self._settings.folder))
            writer = _Writer(recordings, self._settings.size, at, at - self._clock())
        except (OSError, DoorstationError) as error:
            self._state = "off"
            self._record("recording_failed", {"call": call, "why": str(error)})
            return
        self._holds({*self._held, self._settings.folder})
        # Of the last call, from between its end and the media thread's hearing of it.
        self._ticks, self._packets = [], []
        self._writer = self._last = writer
        self._state, self._call, self._name = "on", call, writer.name
        self._end = self._loop.call_later(self._settings.seconds, self.stop, "as long as it may be")
        self._record("recording", {"call": call, "file": writer.name})
        self._attach(self)

    def call_ended(self, call: str) -> None:
        """Its recording ends with it."""
        if call == self._call:
            self.stop("the call ended")

    def stop(self, why: str = "asked for") -> None:
        """End what is recorded, or forget what was to be."""
        writer, self._writer = self._writer, None
        if writer is None:
            if self._state == "waiting":
                self._state = "off"
            return
        self._state = "being written"
        self._attach(None)
        if self._end is not None:
            self._end.cancel()
        call, self._call = self._call, ""
        writer.put(self._ticks, self._packets)
        self._ticks, self._packets = [], []

        def done(fault: str) -> None:
            self._loop.call_soon_threadsafe(self._finished, call, writer.name, why, fault)

        writer.finish(done)

    def close(self) -> None:
        """The station ends: what was recorded is kept."""
        self._closed = True
        self.stop("the station stopped")
        if self._expiry is not None:
            self._expiry.cancel()
        if self._last is not None:
            self._last.join()

    # In the media thread.

    def tick(self, tick: Tick) -> None:
        """What sounded in 20 ms."""
        self._ticks.append(tick)
        writer = self._writer
        if len(self._ticks) >= _BATCH and writer is not None:
            ticks, self._ticks = self._ticks, []
            packets, self._packets = self._packets, []
            writer.put(ticks, packets)
            if writer.fault or writer.full:
                why = writer.fault or "as large as it may be"
                self._loop.call_soon_threadsafe(partial(self._stop_this, writer, why))

    def packet(self, packet: Packet) -> None:
        """A datagram of the call, sent or received."""
        self._packets.append(packet)

    # On the loop.

    def _stop_this(self, writer: "_Writer", why: str) -> None:
        if self._writer is writer:
            self.stop(why)

    def _finished(self, call: str, name: str, why: str, fault: str) -> None:
        self._state = "off"
        self._name = ""
        if fault:
            self._record("recording_failed", {"call": call, "why": fault})
        else:
            log.info("call %s is recorded in %s: %s", call, name, why)
        if not self._closed:
            self._expire()

    def _expire(self) -> None:
        """Delete what is too old, and come again when the next one is."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        now, ours = self._wall(), self._settings.folder
        unfinished = {ours} if self._state in ("on", "being written") else set[str]()
        due: dict[str, float] = {}
        for folder in self._held | ({ours} if ours else set()):
            if folder != ours and not Path(folder).is_dir():
                continue
            try:
                recordings = Recordings(Folder(folder))
                if folder not in unfinished:
                    recordings.abandon()  # what a power cut left
                at = recordings.expire(now, self._settings.keep)
            except (OSError, DoorstationError) as error:
                log.warning("old recordings cannot be deleted: %s", error)
                at = now + 60.0
            if at is not None:
                due[folder] = at
        self._holds({*due, *unfinished})
        if due:
            first = min(due.values())
            self._expiry = self._loop.call_later(max(1.0, first - now), self._expire)

    def _holds(self, folders: set[str]) -> None:
        if folders != self._held:
            self._held = folders
            self._hold(sorted(folders))


class _Writer:
    """One recording's thread: an SD card can stall for seconds."""

    def __init__(self, recordings: Recordings, limit: int, at: float, offset: float) -> None:
        self.name = recordings.begin(at)
        self.fault = ""
        self.full = False
        """Whether what comes now would make it larger than `limit`."""
        self._limit = limit - recording.OVERHEAD
        self._recordings = recordings
        self._at = at
        self._offset = offset
        self._tracks = recording.Tracks()
        self._batches: queue.SimpleQueue[tuple[list[Tick], list[Packet]] | None] = (
            queue.SimpleQueue()
        )
        self._done: Callable[[str], None] = lambda fault: None
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def put(self, ticks: list[Tick], packets: list[Packet]) -> None:
        """Take a batch; never waits."""
        if self._batches.qsize() >= _BEHIND:
            self.fault = "the disk is too slow"
        else:
            self._batches.put((ticks, packets))

    def finish(self, done: Callable[[str], None]) -> None:
        """No more comes; `done(fault)`, in the thread, once the file is there."""
        self._done = done
        self._batches.put(None)

    def join(self) -> None:
        """Let the disk take what waits, but not for ever."""
        self._thread.join(2.0)

    def _run(self) -> None:
        try:
            while (batch := self._batches.get()) is not None:
                if not self.fault and not self.full:
                    self._add(*batch)
            if not self.fault:
                self._recordings.finish(self.name, self._members)
        except OSError as error:
            self.fault = str(error)
        if self.fault:
            with contextlib.suppress(OSError):  # the next start removes it
                self._recordings.abandon()
        self._tracks.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._done(self.fault)

    def _add(self, ticks: list[Tick], packets: list[Packet]) -> None:
        try:
            records = b"".join(recording.pcap_record(one, self._offset) for one in packets)
            frames = self._tracks.frames(ticks)
            self.full = self._recordings.size + len(frames) + len(records) > self._limit
            if not self.full:
                self._recordings.add(frames, records)
        except (OSError, DoorstationError) as error:
            self.fault = str(error)

    def _members(self, sound: bytes, packets: bytes) -> Iterator[bytes]:
        return recording.archive(
            [
                ("sound.wav", recording.wav_header(len(sound)), sound),
                ("packets.pcap", recording.pcap_header(), packets),
            ],
            self._at,
        )
