"""An asyncio loop in virtual time: when nothing is ready, its clock jumps to the next timer.

    def test_something() -> None:
        run(story())          # hours inside `story` cost what they compute

Nothing sleeps and nothing outside is waited for: sockets, threads and executors have no place in
such a test. A loop in which nothing can ever happen again fails at once instead of hanging.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Jump(selectors.BaseSelector):
    """Asked to wait, it moves the loop's clock instead."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop
        self._inner = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.turns += 1
        if timeout is None:
            raise RuntimeError("nothing is ready and no timer is set: this would wait for ever")
        if timeout > 0:
            self._loop.clock += timeout
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """`turns` counts how often the loop came round; `faults` are exceptions nobody took."""

    def __init__(self) -> None:
        self.clock = 1000.0
        self.turns = 0
        self.faults: list[BaseException] = []
        super().__init__(_Jump(self))

    def time(self) -> float:
        return self.clock

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        # There is one thread and no waiting: nobody has to be woken.
        return self.call_soon(callback, *args, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # Whatever handler there is: a station's own takes its own faults, and logs all others.
        self.faults.append(context.get("exception") or RuntimeError(context["message"]))
        super().call_exception_handler(context)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time; an exception that nobody took fails as well."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        result = runner.run(main)
        if loop.faults:
            raise loop.faults[0]
        return result


def virtual_loop() -> VirtualLoop:
    """The running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop
