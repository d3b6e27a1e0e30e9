"""The relays: energised for a time, released by every way out."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from doorboard.interfaces import BoardError, Relay

from doorstation.door.events import RelayFailed, RelayPulled

CONFIRM_WITHIN: Final = 1.0
"""Seconds until a relay that does not say that it is on counts as one that is not."""


class Relays:
    """Every relay of the door, one running pulse each; the driver's own hold limit stands behind.

    `tell` hears for each pulse whether the driver did it, `changed()` that a relay changed without
    that, `fault(relay, why)` that one could not be released.
    """

    def __init__(
        self,
        relays: Mapping[str, Relay],
        tell: Callable[[RelayPulled | RelayFailed], None],
        changed: Callable[[], None],
        fault: Callable[[str, str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._relays = relays
        self._tell = tell
        self._changed = changed
        self._fault = fault
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._unconfirmed: dict[str, int] = dict.fromkeys(relays, 0)
        self._too_late: dict[str, asyncio.TimerHandle] = {}

    @property
    def pulsing(self) -> bool:
        """Whether a pulse runs."""
        return bool(self._ends)

    def status(self) -> dict[str, object]:
        """Of each relay what its driver says: whether it is on, and how often it pulled."""
        return {
            name: {"on": relay.on, "pulses": relay.pulses} for name, relay in self._relays.items()
        }

    def pulse(self, name: str, seconds: float) -> None:
        """Energise for so long from now; a pulse that runs is prolonged or cut to that."""
        relay = self._relays.get(name)
        if relay is None:
            self._tell(RelayFailed(name, "it is missing"))
            return
        running = self._ends.pop(name, None)
        if running is not None:
            running.cancel()
        self._unconfirmed[name] += 1
        try:
            relay.energise()
        except BoardError as error:
            self._failed(name, str(error))
            return
        self._ends[name] = self._loop.call_later(seconds, self._over, name)
        if relay.on:
            self._confirmed(name)
        elif name not in self._too_late:
            self._too_late[name] = self._loop.call_later(CONFIRM_WITHIN, self._not_confirmed, name)

    def reported(self, name: str, on: bool, at: float) -> None:
        """A relay's driver says that it changed, perhaps by its hold limit."""
        if on:
            self._confirmed(name)
        self._changed()

    def release_all(self) -> None:
        """End every pulse; one that fails lets the others be released all the same."""
        for timer in (*self._ends.values(), *self._too_late.values()):
            timer.cancel()
        self._ends.clear()
        self._too_late.clear()
        for name in self._relays:
            self._release(name)

    def _confirmed(self, name: str) -> None:
        for _ in range(self._answered(name)):
            self._tell(RelayPulled(name))

    def _failed(self, name: str, why: str) -> None:
        for _ in range(self._answered(name)):
            self._tell(RelayFailed(name, why))
        self._end(name)

    def _not_confirmed(self, name: str) -> None:
        self._failed(name, f"not on {CONFIRM_WITHIN:g} s after it was told to")

    def _answered(self, name: str) -> int:
        """How many pulses wait for an answer; from now on none."""
        timer = self._too_late.pop(name, None)
        if timer is not None:
            timer.cancel()
        count, self._unconfirmed[name] = self._unconfirmed[name], 0
        return count

    def _end(self, name: str) -> None:
        timer = self._ends.pop(name, None)
        if timer is not None:
            timer.cancel()
        self._release(name)

    def _over(self, name: str) -> None:
        self._end(name)
        self._changed()

    def _release(self, name: str) -> None:
        try:
            self._relays[name].release()
        except BoardError as error:  # its driver goes on trying
            self._fault(name, str(error))
