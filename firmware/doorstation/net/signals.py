"""The signals that end a program in order."""

import asyncio
import signal


def stop_event() -> asyncio.Event:
    """Set by Ctrl-C, by SIGTERM, and by a terminal that is closed (not under nohup)."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is signal.SIG_DFL:
            loop.add_signal_handler(number, stop.set)
    return stop
