"""The sound card while nobody uses it: a missing one is known before a visitor stands at the door.

It is looked for once at the start, and again as long as it is missing. While it is in use the media
thread knows more, and says so with `lost` and `back`.
"""

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Sequence
from typing import Final

FIRST_WAIT: Final = 5.0
LONGEST_WAIT: Final = 60.0
"""Seconds between looks; the wait doubles."""
LOOK_WITHIN: Final = 10.0
"""Seconds until a driver that does not come back counts as a missing card."""


class CardWatch:
    """`tell(why)` hears of each change: why there is no card, or "" when there is."""

    def __init__(
        self, command: Sequence[str], state: Callable[[], str], tell: Callable[[str], None]
    ) -> None:
        """`command` ends with status 0 if the card can be opened, else it prints why not; empty:
        nothing to look for. `state` is the media thread's: "closed", "running" or "lost"."""
        self._command = tuple(command)
        self._state = state
        self._tell = tell
        self._missing = asyncio.Event()
        self.fault = ""

    async def run(self) -> None:
        """Look, for ever."""
        wait = FIRST_WAIT
        while True:
            why = await self._look() if self._state() == "closed" else self.fault
            # Somebody may have begun to use it, and then it was only busy.
            match self._state():
                case "closed":
                    self._is(why)
                case "running":
                    self.back()
            if not self.fault:
                await self._missing.wait()
                wait = FIRST_WAIT
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def lost(self, why: str) -> None:
        """The media thread cannot use it."""
        self._is(why)

    def back(self) -> None:
        """The media thread uses it."""
        self._is("")

    def _is(self, why: str) -> None:
        changed = bool(why) != bool(self.fault)
        self.fault = why
        if why:
            self._missing.set()
        else:
            self._missing.clear()
        if changed:
            self._tell(why)

    async def _look(self) -> str:
        if not self._command:
            return self.fault
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdout=PIPE, stderr=DEVNULL
            )
        except OSError as fault:  # no memory or no process left: perhaps by the next look
            return f"the sound card cannot be looked for: {fault.strerror}"
        try:
            async with asyncio.timeout(LOOK_WITHIN):
                said, _ = await process.communicate()
        except TimeoutError:
            return f"the sound card's driver does not return within {LOOK_WITHIN:g} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        if not process.returncode:
            return ""
        return said.decode(errors="replace").strip() or "the sound card cannot be looked for"
