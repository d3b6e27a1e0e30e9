"""For the few tests with real threads: wait for what should happen, and not a moment longer."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Return as soon as the condition holds; AssertionError when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.002)


async def until(condition: Callable[[], T], seconds: float = 10.0) -> T:
    """The same on a loop, which goes on meanwhile: the first true value, or TimeoutError."""
    async with asyncio.timeout(seconds):
        while not (value := condition()):
            await asyncio.sleep(0.002)
    return value
