"""The sound card as the media thread sees it: supervised, and never a reason to stop."""

import contextlib
from collections.abc import Callable
from typing import Final

from doorboard.interfaces import AudioPort, BoardError

from doorstation.errors import DoorstationError
from doorstation.media import resample
from doorstation.net.media.events import CardBack, CardLost, MediaEvent

_CATCH_UP: Final = 10
"""Periods made up for after a stall on the timer; what is beyond is skipped."""


_RETRY: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds between attempts to open a lost card; the last one stays, until it gives sound again."""


PERIOD: Final = 0.02


class Card:
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
        "_stale",
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
        self._stale = False
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
                if self._attempt:
                    self._attempt = 0
                    self.state = "running"
                    self._report(CardBack())
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

    def renew(self) -> None:
        """From the next opening on another port: with the volumes of the settings then."""
        self._stale = True

    def _open(self) -> None:
        try:
            if self._port is None or self._stale:
                self._stale = False
                self._port = self._open_port()
            self._port.open()
            if self._port.rate != 8000:
                resample.require()
        except (BoardError, DoorstationError) as error:
            self._lose(str(error))
            return
        self._running = self._port
        self.rate = self._port.rate
        self._overruns = self._port.overruns
        self.read_at = self._clock()
        if not self._attempt:
            self.state = "running"
        self._opened(self.rate)

    def _lose(self, reason: str) -> None:
        if self._port is not None:
            with contextlib.suppress(BoardError):
                self._port.close()
        if self._running is not None:
            self._running = None
            self._deadline = self.read_at  # what was waited for in vain is missed, too
        self._retry_at = self._clock() + _RETRY[min(self._attempt, len(_RETRY) - 1)]
        self._attempt += 1
        if self.state != "lost":
            self.state = "lost"
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
