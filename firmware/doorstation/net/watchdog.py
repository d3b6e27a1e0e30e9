"""systemd's watchdog: a door that hangs gives no signs of life, is killed and started again."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

log = logging.getLogger(__name__)

SIGNS: Final = 3
"""In the time after which systemd acts: one that is late must not be the end."""


def wanted(environment: Mapping[str, str]) -> tuple[str, float] | None:
    """(address of systemd's socket, seconds between signs), None: nobody waits for any.

    As sd_watchdog_enabled(3) and sd_notify(3) have it.
    """
    address, limit = environment.get("NOTIFY_SOCKET", ""), environment.get("WATCHDOG_USEC", "")
    if not address or not limit.isdecimal() or not int(limit):
        return None
    if address.startswith("@"):  # a name in no file system
        address = "\0" + address[1:]
    return address, int(limit) / 1e6 / SIGNS


async def give_signs(silent: Callable[[], float]) -> None:
    """Tell systemd that the loop turns, while the media thread does: its last turn is `silent()`
    seconds ago. Returns where systemd does not ask."""
    found = wanted(os.environ)
    if found is None:
        return
    address, pause = found
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        while True:
            if silent() < pause:
                with contextlib.suppress(OSError):  # systemd being replaced by a new one
                    sender.sendto(b"WATCHDOG=1", address)
            else:
                log.error("the media thread hangs: systemd will start the service again")
            await asyncio.sleep(pause)
