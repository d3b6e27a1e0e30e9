"""What the door did and why: one line each in the event log, in its own log, and for followers."""

import asyncio
import datetime
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from doorstation.door.events import Field
from doorstation.door.ration import Ration
from doorstation.settings.tree import Log
from doorstation.store.events import EventLog
from doorstation.ua.events import Refused

log = logging.getLogger(__name__)

RECENT: Final = 200
"""Events kept for `ctl events`."""
REFUSALS_EVERY: Final = 10.0
"""Seconds between records of strangers turned away: bounds what a scanner writes into the log."""

AT_ONCE: Final = 2000
EVERY: Final = 4.0
"""Records of the file in a row, and seconds for each one after that: more than a large house makes.
Who forges a known phone's address, or has taken the phone over, would else write over in half a
minute who came last night, and wear out the card."""
ALWAYS: Final = frozenset(
    ("release", "relay_fault", "lock_out", "configuration", "owner", "refused", "not_kept")
)
"""What the file keeps all the same."""
STRANGERS_TEXT: Final = 80
"""Characters kept of a URI or method that came: few records with long ones would fill the file."""
TOLD_AFTER: Final = 600.0
"""Seconds until the file says how many it did not keep."""

DISK_AFTER: Final = 0.05
"""Seconds that records wait for the disk, to be written together: its thread wants the interpreter
too, and would get it just when a call is to be answered."""
MAX_WAITING: Final = 10_000
"""Records that a stalled disk may keep waiting in memory, a few megabytes; later ones are lost."""
CLOSE_WITHIN: Final = 2.0
"""Seconds given to the disk when the service ends."""

Event: TypeAlias = dict[str, Field]
_Record: TypeAlias = tuple[str, Event, datetime.datetime]


class Journal:
    """Takes one record at a time; nothing waits for it."""

    def __init__(self, settings: Log) -> None:
        self._loop = asyncio.get_running_loop()
        self._kept = bool(settings.events)
        self._file = EventLog(
            settings.events or "/dev/null", size=settings.size, files=settings.files
        )
        self._disk = _Disk(self._file)
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._unwritten: list[_Record] = []
        self._for_disk: list[_Record] = []
        self._refusals = 0
        self._refusals_due = 0.0
        self._ration = Ration(AT_ONCE, EVERY)
        self._untold: asyncio.TimerHandle | None = None
        self.follower: Callable[[Event], None] = lambda event: None
        """Hears every record when it is written."""

    @property
    def fault(self) -> str:
        """What keeps events from being written, or ""."""
        return self._file.fault

    @property
    def lost(self) -> int:
        """Events that could not be written."""
        return self._file.lost + self._disk.lost

    def record(self, kind: str, fields: Mapping[str, Field]) -> None:
        """Keep one record. It is written at the end of this turn of the loop:

        what goes out to phones and relays in this turn goes first.
        """
        if not self._unwritten:
            self._loop.call_soon(self._write)
        self._unwritten.append((kind, dict(fields), datetime.datetime.now(datetime.UTC)))

    def refused(self, event: Refused) -> None:
        """Record the first of a flood and how many went before it: the log is not theirs."""
        self._refusals += 1
        now = self._loop.time()
        if now < self._refusals_due:
            return
        self._refusals_due = now + REFUSALS_EVERY
        self.record(
            "refused",
            {
                "method": event.method[:STRANGERS_TEXT],
                "source": event.source,
                "status": event.status,
                "rule": event.rule[:STRANGERS_TEXT],
                "so_far": self._refusals,
            },
        )

    def recent(self) -> list[Event]:
        """The last records, the oldest first."""
        self._write()
        return list(self._recent)

    def close(self) -> None:
        """Write what is left, and close the event log."""
        self._write()
        if self._untold is not None:
            self._untold.cancel()
            self._tell_untold()
            self._write()
        self._hand_over()
        self._disk.close()

    def _write(self) -> None:
        """Tell what this turn recorded, in its order, and keep it for the disk."""
        records, self._unwritten = self._unwritten, []
        kept = [record for record in records if self._keeps(record[0])] if self._kept else []
        if kept:
            if not self._for_disk:
                self._loop.call_later(DISK_AFTER, self._hand_over)
            self._for_disk += kept
        for kind, fields, at in records:
            event = {"event": kind, "at": f"{at:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z", **fields}
            self._recent.append(event)
            self.follower(event)
            detail = " ".join(f"{k}={value}" for k, value in fields.items() if value is not None)
            log.info("%s: %s", kind, detail)

    def _keeps(self, kind: str) -> bool:
        """Whether the file takes one more of this kind."""
        if kind in ALWAYS or self._ration.take(self._loop.time()):
            return True
        if self._untold is None:
            self._untold = self._loop.call_later(TOLD_AFTER, self._tell_untold)
        return False

    def _tell_untold(self) -> None:
        self._untold = None
        self.record("not_kept", {"events": self._ration.tell(self._loop.time())})

    def _hand_over(self) -> None:
        records, self._for_disk = self._for_disk, []
        for record in records:
            self._disk.write(record)


class _Disk:
    """Writes in a thread of its own: an SD card can stall for seconds, and a door must not."""

    def __init__(self, file: EventLog) -> None:
        self.lost = 0
        """Records dropped because the disk stood still for too long."""
        self._file = file
        self._records: queue.SimpleQueue[_Record | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def write(self, record: _Record) -> None:
        if self._records.qsize() >= MAX_WAITING:
            self.lost += 1
            return
        self._records.put(record)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="event log", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Let the disk take what waits, but not for ever. May be called twice."""
        if self._thread is None:
            self._file.close()
            return
        self._records.put(None)
        self._thread.join(CLOSE_WITHIN)
        if self._thread.is_alive():
            log.warning("the disk stands still: %d events are lost", self._records.qsize())
        self._thread = None

    def _run(self) -> None:
        while (record := self._records.get()) is not None:
            self._file.append(*record)
        self._file.close()
