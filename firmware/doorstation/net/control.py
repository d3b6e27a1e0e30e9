"""The control socket: JSON lines over an owner-only Unix socket.

A request `{"id": 1, "command": "press", "args": {"name": "call"}}` is answered by
`{"id": 1, "ok": true, "result": ...}` or `{"id": 1, "ok": false, "error": "..."}`, in order. The
command "events" with `{"kinds": ["record", ...]}` subscribes the connection; events then come as
`{"event": {"kind": "record", ...}}`. A subscriber that reads too slowly loses the oldest ones and
is told how many: `{"event": {"kind": "gap", "lost": 7}}`. Bytes travel as base64.

Only root and the user the station runs as get in: the file's mode says so first, the kernel's word
on who connects (SO_PEERCRED) a second time.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from doorstation.errors import DoorstationError, TransportError
from doorstation.net.control_client import LONGEST_REPLY, decoded, result_of, unreachable

log = logging.getLogger(__name__)

KINDS: Final = frozenset({"record", "sip", "levels", "audio:microphone", "audio:speaker"})

# A request is a command and a few words. The longest are dial strings and messages.
_LONGEST_REQUEST: Final = 64 * 1024
# A script that forgets to hang up; `ctl`, the try page and a few followers need less.
_MOST_CLIENTS: Final = 16
# Bytes kept for one subscriber that does not read: some ten seconds of both sides' sound.
_MOST_UNREAD: Final = 256 * 1024
_UNSENT: Final = 32 * 1024
_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid

Handler: TypeAlias = Callable[[str, dict[str, object]], Awaitable[object]]


class _Request(msgspec.Struct):
    command: str
    id: int | str | None = None
    args: dict[str, object] = {}


class ControlServer:
    """Listens while entered. `handle(command, args)` returns what JSON can carry.

    A DoorstationError of the handler is the asker's answer; any other is a fault of ours and
    rises from `run`.
    """

    def __init__(
        self,
        path: str,
        handle: Handler,
        *,
        kinds: frozenset[str] = KINDS,
        wanted_changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`wanted_changed` hears when a follower comes or goes."""
        self._path = path
        self._handle = handle
        self._wanted_changed = wanted_changed
        self._kinds = kinds
        self._requests = msgspec.json.Decoder(_Request)
        self._encoder = msgspec.json.Encoder()
        self._clients: set[_Client] = set()
        self._wanted: frozenset[str] = frozenset()
        self._listener: socket.socket | None = None
        self._inode = 0
        self._fault: asyncio.Future[None] | None = None

    async def __aenter__(self) -> "ControlServer":
        """Raises TransportError (another station listens here, the folder is not ours)."""
        loop = asyncio.get_running_loop()
        self._fault = loop.create_future()
        self._listener = _listener(self._path)
        self._inode = os.stat(self._path).st_ino
        # Accepted by hand: asyncio's server loses a connection that comes while it closes, and
        # asks who is there only after it has built everything for him.
        self._listener.listen(_MOST_CLIENTS)
        loop.add_reader(self._listener.fileno(), self._acceptable, self._listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()
        self._listener = None
        with contextlib.suppress(OSError):
            # Not the file of a station that took over.
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        clients = list(self._clients)
        for client in clients:
            client.task.cancel()
        await asyncio.gather(*(client.task for client in clients), return_exceptions=True)

    async def run(self) -> None:
        """Wait for ever; raises what a handler raised and should not have."""
        assert self._fault is not None, "entered first"
        await asyncio.shield(self._fault)

    def wanted(self, kind: str) -> bool:
        """Whether somebody listens to events of this kind; cheap enough for every frame."""
        return kind in self._wanted

    def publish(self, kind: str, event: Mapping[str, object]) -> None:
        """Hand an event to whoever subscribed to its kind. Never waits; on the loop only."""
        if kind not in self._wanted:
            return
        line = self._line({"event": {"kind": kind, **event}})
        for client in self._clients:
            if kind in client.kinds:
                client.put(line)

    def _line(self, value: object) -> bytes:
        return self._encoder.encode(value) + b"\n"

    def _acceptable(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as fault:
            # Out of descriptors: it stays readable, so rest instead of spinning.
            log.warning("control socket: nobody gets in for a second: %s", fault.strerror)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener.fileno())
            loop.call_later(1.0, self._accept_again, listener)
            return
        connection.setblocking(False)
        _, uid, _ = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid not in (0, os.geteuid()):
            log.warning("control socket: user %d was turned away", uid)
            self._turn_away(connection, "only root and the station's own user may control it")
        elif len(self._clients) >= _MOST_CLIENTS:
            self._turn_away(connection, f"{_MOST_CLIENTS} clients are connected already")
        else:
            client = _Client()
            client.task = asyncio.get_running_loop().create_task(self._serve(connection, client))
            client.task.add_done_callback(lambda _: self._left(connection, client))
            self._clients.add(client)

    def _accept_again(self, listener: socket.socket) -> None:
        if listener is self._listener:
            asyncio.get_running_loop().add_reader(listener.fileno(), self._acceptable, listener)

    def _turn_away(self, connection: socket.socket, why: str) -> None:
        with contextlib.suppress(OSError):
            connection.send(self._line({"id": None, "ok": False, "error": why}))
        connection.close()

    def _left(self, connection: socket.socket, client: "_Client") -> None:
        self._clients.discard(client)
        self._count_wanted()
        if client.writer is None:
            connection.close()

    async def _serve(self, connection: socket.socket, client: "_Client") -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_LONGEST_REQUEST)
        client.writer = writer
        writer.transport.set_write_buffer_limits(high=_UNSENT)
        try:
            async with asyncio.TaskGroup() as group:
                events = group.create_task(client.write_events(writer, self._line))
                while True:
                    try:
                        line = await reader.readline()
                    except ValueError:
                        why = f"a request longer than {_LONGEST_REQUEST} bytes"
                        writer.write(self._line({"id": None, "ok": False, "error": why}))
                        break
                    if not line.endswith(b"\n"):
                        break
                    writer.write(self._line(await self._answer(client, line)))
                    await writer.drain()
                events.cancel()
        except* OSError:
            log.debug("a control client left before its answer")
        finally:
            if self._listener is None:
                writer.transport.abort()
            else:
                writer.close()
                # One that does not read would keep it open.
                asyncio.get_running_loop().call_later(1.0, writer.transport.abort)

    async def _answer(self, client: "_Client", line: bytes) -> dict[str, object]:
        try:
            request = self._requests.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
            return {"id": None, "ok": False, "error": f"not a request: {fault}"}
        try:
            if request.command == "events":
                result: object = self._subscribe(client, request.args)
            else:
                result = await self._handle(request.command, request.args)
        except DoorstationError as fault:
            return {"id": request.id, "ok": False, "error": str(fault)}
        except Exception as fault:
            if self._fault is not None and not self._fault.done():
                self._fault.set_exception(fault)
            return {"id": request.id, "ok": False, "error": "a fault of the station; see its log"}
        return {"id": request.id, "ok": True, "result": result}

    def _subscribe(self, client: "_Client", args: dict[str, object]) -> object:
        kinds = args.get("kinds")
        if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
            raise DoorstationError('events needs "kinds": a list of names')
        unknown = sorted(set(kinds) - self._kinds)
        if unknown:
            valid = ", ".join(sorted(self._kinds))
            raise DoorstationError(f"no events of kind {unknown[0]!r}; there are {valid}")
        client.kinds = frozenset(kinds)
        self._count_wanted()
        return {"kinds": sorted(client.kinds)}

    def _count_wanted(self) -> None:
        wanted = frozenset[str]().union(*(client.kinds for client in self._clients))
        if wanted != self._wanted:
            self._wanted = wanted
            self._wanted_changed()


class _Client:
    """One connection, and the events that wait for it."""

    __slots__ = ("_ready", "_unread", "_waiting", "kinds", "lost", "task", "writer")

    def __init__(self) -> None:
        self.writer: asyncio.StreamWriter | None = None
        self.kinds: frozenset[str] = frozenset()
        self.lost = 0
        self.task: asyncio.Task[None]
        self._waiting: deque[bytes] = deque()
        self._unread = 0
        self._ready = asyncio.Event()

    def put(self, line: bytes) -> None:
        self._waiting.append(line)
        self._unread += len(line)
        while self._unread > _MOST_UNREAD:
            self._unread -= len(self._waiting.popleft())
            self.lost += 1
        self._ready.set()

    async def write_events(
        self, writer: asyncio.StreamWriter, line_of: Callable[[object], bytes]
    ) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._waiting or self.lost:
                if self.lost:
                    lost, self.lost = self.lost, 0
                    writer.write(line_of({"event": {"kind": "gap", "lost": lost}}))
                if self._waiting:
                    line = self._waiting.popleft()
                    self._unread -= len(line)
                    writer.write(line)
                await writer.drain()


def _listener(path: str) -> socket.socket:
    """A bound Unix socket that only its owner can connect to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        _remove_stale(path)
        listener.bind(path)
        # Nobody can connect before `listen`, so there is no moment at which the mode is too wide,
        # and the umask, which belongs to every thread, stays as it is.
        os.chmod(path, 0o600)
    except OSError as fault:
        listener.close()
        raise TransportError(f"control socket {path}: {fault.strerror or fault}") from fault
    except TransportError:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """Remove the socket a killed station left. Raises TransportError when it is in use."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise TransportError(f"control socket {path}: there is something else of this name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        # A full queue (EAGAIN) is somebody listening, too.
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise TransportError(f"control socket {path}: another station is listening")
    os.unlink(path)


class ControlClient:
    """The other end, for code on the loop: `async with ControlClient(path) as client`.

    Requests may be made while events are read. Raises TransportError when there is no station,
    Refused when it does not do what it is asked.
    """

    # Events kept for a reader that is busy; then the oldest go and a gap event is put in.
    _MOST_EVENTS: Final = 1000

    def __init__(self, path: str) -> None:
        self._path = path
        self._next = 0
        self._answers: dict[int, asyncio.Future[object]] = {}
        self._events: deque[dict[str, object]] = deque()
        self._lost = 0
        self._ready = asyncio.Event()
        self._ended: TransportError | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "ControlClient":
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(
                self._path, limit=LONGEST_REPLY
            )
        except OSError as fault:
            raise unreachable(self._path, fault) from fault
        self._reading = asyncio.get_running_loop().create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def request(
        self, command: str, args: Mapping[str, object] | None = None, within: float = 10.0
    ) -> object:
        """Ask and return the result; `within` so many seconds, else TransportError."""
        if self._ended is not None:
            raise self._ended
        self._next += 1
        number = self._next
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        request = {"id": number, "command": command, "args": dict(args or {})}
        try:
            self._writer.write(msgspec.json.encode(request) + b"\n")
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError as fault:
            raise TransportError(f"no answer to {command} within {within:g} seconds") from fault
        finally:
            del self._answers[number]

    async def events(self, kinds: Sequence[str]) -> AsyncIterator[dict[str, object]]:
        """Subscribe, then every event as it comes; ends with the station."""
        await self.request("events", {"kinds": list(kinds)})
        while self._ended is None or self._events:
            if self._lost:
                lost, self._lost = self._lost, 0
                yield {"kind": "gap", "lost": lost}
            elif self._events:
                yield self._events.popleft()
            else:
                self._ready.clear()
                await self._ready.wait()

    async def _read(self) -> None:
        ended = TransportError("the station closed the connection")
        try:
            while (line := await self._reader.readline()).endswith(b"\n"):
                self._received(decoded(line))
        except (OSError, ValueError) as fault:
            ended = TransportError(f"the station closed the connection: {fault}")
        except TransportError as fault:
            ended = fault
        finally:
            self._ended = ended
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ended)
            self._ready.set()

    def _received(self, message: dict[str, object]) -> None:
        event = message.get("event")
        if isinstance(event, dict):
            self._events.append(event)
            if len(self._events) > self._MOST_EVENTS:
                self._events.popleft()
                self._lost += 1
            self._ready.set()
            return
        number = message.get("id")
        answers = self._answers
        if number is None:  # turned away, or a request that could not be read
            waiting = list(answers.values())
        else:
            waiting = [answers[number]] if isinstance(number, int) and number in answers else []
        for answer in waiting:
            if answer.done():
                continue
            try:
                answer.set_result(result_of(message))
            except DoorstationError as fault:
                answer.set_exception(fault)
