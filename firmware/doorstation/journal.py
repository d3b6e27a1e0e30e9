"""What the door did and why: one line each in the event log, in its own log, and for followers."""

import asyncio
import datetime
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from doorstation.door.events import Field
from doorstation.settings import Log
from doorstation.store import EventLog
from doorstation.ua.events import Refused

log = logging.getLogger(__name__)

RECENT: Final = 200
"""Events kept for `ctl events`."""
REFUSALS_EVERY: Final = 10.0
"""Seconds between records of strangers turned away: bounds what a scanner writes into the log."""

Event: TypeAlias = dict[str, Field]


class Journal:
    """Takes one record at a time; nothing waits for it."""

    def __init__(self, settings: Log) -> None:
        self._loop = asyncio.get_running_loop()
        self._kept = bool(settings.events)
        self._file = EventLog(
            settings.events or "/dev/null", size=settings.size, files=settings.files
        )
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._unwritten: list[tuple[str, Event]] = []
        self._refusals = 0
        self._refusals_due = 0.0
        self.follower: Callable[[Event], None] = lambda event: None
        """Hears every record when it is written."""

    @property
    def fault(self) -> str:
        """What keeps events from being written, or ""."""
        return self._file.fault

    @property
    def lost(self) -> int:
        """Events that could not be written."""
        return self._file.lost

    def record(self, kind: str, fields: Mapping[str, Field]) -> None:
        """Keep one record. It is written at the end of this turn of the loop:

        what goes out to phones and relays in this turn goes first.
        """
        if not self._unwritten:
            self._loop.call_soon(self._write)
        at = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        self._unwritten.append((kind, {"event": kind, "at": at, **fields}))

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
                "method": event.method,
                "source": event.source,
                "status": event.status,
                "rule": event.rule,
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
        self._file.close()

    def _write(self) -> None:
        """Write what this turn recorded, in its order; at the end also what the last one did."""
        records, self._unwritten = self._unwritten, []
        for kind, event in records:
            fields = {name: value for name, value in event.items() if name not in ("event", "at")}
            if self._kept:
                self._file.append(kind, fields)
            self._recent.append(event)
            self.follower(event)
            detail = " ".join(f"{k}={value}" for k, value in fields.items() if value is not None)
            log.info("%s: %s", kind, detail)
