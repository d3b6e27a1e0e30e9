"""The relays: energised for a time, released by every way out."""

import asyncio
from collections.abc import Callable, Mapping

from doorboard.interfaces import BoardError, Relay


class Relays:
    """Every relay of the door, one running pulse each; the driver's own hold limit stands behind.

    `changed()` hears that a pulse is over, `fault(relay, why)` that a driver could not do it.
    """

    def __init__(
        self,
        relays: Mapping[str, Relay],
        changed: Callable[[], None],
        fault: Callable[[str, str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._relays = relays
        self._changed = changed
        self._fault = fault
        self._pulses = dict.fromkeys(relays, 0)
        self._ends: dict[str, asyncio.TimerHandle] = {}

    @property
    def pulsing(self) -> bool:
        """Whether a pulse runs."""
        return bool(self._ends)

    def status(self) -> dict[str, object]:
        """Of each relay: whether it is on, and how many pulses it gave."""
        return {
            name: {"on": relay.on, "pulses": self._pulses[name]}
            for name, relay in self._relays.items()
        }

    def pulse(self, name: str, seconds: float) -> None:
        """Energise for so long from now; a pulse that runs is prolonged or cut to that."""
        running = self._ends.pop(name, None)
        if running is not None:
            running.cancel()
        try:
            self._relays[name].energise()
        except BoardError as error:
            self._fault(name, str(error))
            return
        self._pulses[name] += 1
        self._ends[name] = self._loop.call_later(seconds, self._over, name)

    def release_all(self) -> None:
        """End every pulse; one that fails lets the others be released all the same."""
        for timer in self._ends.values():
            timer.cancel()
        self._ends.clear()
        for name in self._relays:
            self._release(name)

    def _over(self, name: str) -> None:
        del self._ends[name]
        self._release(name)
        self._changed()

    def _release(self, name: str) -> None:
        try:
            self._relays[name].release()
        except BoardError as error:  # its driver goes on trying
            self._fault(name, str(error))
