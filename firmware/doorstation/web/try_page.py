"""The page of `doorstation try`: the door panel, the indoor phone, and the SIP between them.

The page knows nothing that the two control sockets do not say and can do nothing that they cannot.
What happens on either side goes to every open page by one WebSocket; a page that comes late is
first told what it missed, within bounds. Anybody who can open a connection to the port could ring
the bell, so the page, its files and its socket all ask for the token in the printed address, and
for a Host and an Origin of this machine: a web site elsewhere that has its name resolve to
127.0.0.1 gets nothing (DNS rebinding), nor does one that opens a WebSocket here.
"""

import asyncio
import contextlib
import hmac
import json
import logging
from base64 import b64decode
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

from aiohttp import WSMsgType, web
from aiohttp.typedefs import Handler, Middleware

from doorstation.errors import DoorstationError
from doorstation.net.control import ControlClient

log = logging.getLogger(__name__)

STATIC: Final = Path(__file__).with_name("static")
FILES: Final = {
    "/": ("try.html", "text/html"),
    "/try.js": ("try.js", "text/javascript"),
    "/try.css": ("try.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
SIDES: Final = ("door", "phone")
KINDS: Final = ("state", "sip", "record", "levels")
SOUND: Final = "audio:speaker"
COMMANDS: Final = frozenset({"press", "answer", "reject", "hangup", "hold", "resume", "dtmf"})

MAX_HISTORY = 300
"""Messages and records kept for a page that opens later."""
MAX_QUEUE = 500
"""Messages a page may be behind; one that is slower is closed and comes back by itself."""
MAX_FLEETING = 50
"""A page this many messages behind gets no sound and no levels: they are old by then."""
MAX_PAGES = 16
MAX_REQUEST = 4096
"""Bytes of one message from a page."""


Event = dict[str, Any]


def create_app(door: ControlClient, phone: ControlClient, token: str) -> web.Application:
    """The page over two connected control clients; serve it on 127.0.0.1 only."""
    hub = _Hub({"door": door, "phone": phone})

    async def follow_both(_: web.Application) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(hub.follow(side)) for side in SIDES]
        yield
        await hub.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def socket(request: web.Request) -> web.StreamResponse:
        return await _serve_page(request, hub)

    app = web.Application(middlewares=[_guard(token)], client_max_size=MAX_REQUEST)
    app.cleanup_ctx.append(follow_both)
    app.router.add_get("/socket", socket)
    for path in FILES:
        app.router.add_get(path, _file)
    return app


def _guard(token: str) -> Middleware:
    """Who may see anything at all, and what the browser may do with it."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        port = _local_port(request)
        hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        cookie = f"doorstation-{port}"  # cookies know no ports: each try has a name of its own
        if request.host not in hosts:
            return _refused("wrong Host")
        origin = request.headers.get("Origin")
        if origin is None and request.path == "/socket":
            return _refused("no Origin")
        if origin is not None and origin != f"http://{request.host}":
            return _refused("wrong Origin")
        given = request.query.get("t", "") if request.path == "/" else ""
        if not _same(given, token) and not _same(request.cookies.get(cookie, ""), token):
            return _refused("wrong token")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_headers(request.host))
            if given:
                # On the page itself: a redirect would lose a Strict cookie when the link was
                # clicked in another site.
                response.set_cookie(cookie, token, httponly=True, samesite="Strict", path="/")
        return response

    return guard


def _local_port(request: web.Request) -> int:
    if request.transport is None:
        raise web.HTTPForbidden
    port: int = request.transport.get_extra_info("sockname")[1]
    return port


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def _refused(why: str) -> web.Response:
    log.info("page refused: %s", why)
    return web.Response(
        status=403, text="Please open the whole address that doorstation try printed.\n"
    )


def _headers(host: str) -> dict[str, str]:
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }


async def _file(request: web.Request) -> web.StreamResponse:
    name, content_type = FILES[request.path]
    return web.Response(
        body=(STATIC / name).read_bytes(), content_type=content_type, charset="utf-8"
    )


class _Hub:
    """What happens on both sides, kept within bounds and handed to every open page."""

    def __init__(self, controls: Mapping[str, ControlClient]) -> None:
        self._controls = controls
        self._pages: set[_Page] = set()
        self._states: dict[str, Event] = {}
        self._history: deque[Event] = deque(maxlen=MAX_HISTORY)

    async def follow(self, side: str) -> None:
        """Pass one side's events on until its connection ends."""
        control = self._controls[side]
        try:
            await self._subscribe(side)  # before the snapshot, so that no change falls between
            snapshot = await control.request("status")
            assert isinstance(snapshot, dict)
            self._publish({**snapshot, "side": side, "kind": "state"})
            async for event in control.events(self._kinds(side)):
                self._publish({**event, "side": side})
        except (DoorstationError, OSError) as fault:
            log.warning("%s: %s", side, fault)
        self._publish({"side": side, "kind": "gone"})

    def open_page(self, page: "_Page") -> None:
        """Tell a page what it missed, and from now on what happens."""
        for event in (*self._states.values(), *self._history):
            page.push(event)
        page.push({"kind": "ready"})
        self._pages.add(page)

    async def close_page(self, page: "_Page") -> None:
        self._pages.discard(page)
        await self.listen(page, None)

    async def listen(self, page: "_Page", side: str | None) -> None:
        """Send the page the sound at the loudspeaker of one side, or none."""
        before, page.listens_to = page.listens_to, side
        for each in {before, side} - {None}:
            assert each is not None
            await self._subscribe(each)

    async def command(self, side: str, command: str, arguments: Event) -> None:
        if command not in COMMANDS:
            raise ValueError(command)
        await self._controls[side].request(command, arguments)

    @property
    def full(self) -> bool:
        return len(self._pages) >= MAX_PAGES

    async def close(self) -> None:
        for page in tuple(self._pages):
            await page.close()

    def _kinds(self, side: str) -> list[str]:
        """Sound is asked for while somebody listens: it costs the station 50 lines a second."""
        listened = any(page.listens_to == side for page in self._pages)
        return [*KINDS, SOUND] if listened else list(KINDS)

    async def _subscribe(self, side: str) -> None:
        with contextlib.suppress(DoorstationError):  # gone: `follow` says so
            await self._controls[side].request("events", {"kinds": self._kinds(side)})

    def _publish(self, event: Event) -> None:
        side = event["side"]
        match event["kind"]:
            case "state" | "gone":
                self._states[side] = event
            case "sip" | "record" | "gap":
                self._history.append(event)
            case kind if kind == SOUND:
                for page in self._pages:
                    if page.listens_to == side:
                        page.push_sound(int(event["rate"]), b64decode(event["pcm"]))
                return
        for page in self._pages:
            page.push(event)


class _Page:
    """One open page and what it is still to be told, in order."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        self._socket = socket
        self._transport = transport
        self._queue: asyncio.Queue[Event | bytes] = asyncio.Queue(MAX_QUEUE)
        self._rate = 0
        self.listens_to: str | None = None

    def push(self, event: Event) -> None:
        if event["kind"] != "levels" or self._queue.qsize() < MAX_FLEETING:
            self._put(event)

    def push_sound(self, rate: int, pcm: bytes) -> None:
        if rate != self._rate:
            self._rate = rate
            self._put({"kind": "sound", "rate": rate})
        if self._queue.qsize() < MAX_FLEETING:
            self._put(pcm)

    async def send(self) -> None:
        """Send what is pushed, for ever."""
        while True:
            message = await self._queue.get()
            if isinstance(message, bytes):
                await self._socket.send_bytes(message)
            else:
                await self._socket.send_str(json.dumps(message))

    async def close(self) -> None:
        await self._socket.close(code=1001)

    def _put(self, message: Event | bytes) -> None:
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self._transport.abort()


async def _serve_page(request: web.Request, hub: _Hub) -> web.StreamResponse:
    if hub.full:
        return web.Response(status=503, text=f"{MAX_PAGES} pages are open already\n")
    socket = web.WebSocketResponse(heartbeat=20, max_msg_size=MAX_REQUEST, compress=False)
    await socket.prepare(request)
    if request.transport is None:
        return socket
    page = _Page(socket, request.transport)
    hub.open_page(page)
    sender = asyncio.create_task(page.send())
    try:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            try:
                await _carry_out(json.loads(message.data), page, hub)
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                break  # not our page
    finally:
        sender.cancel()
        await hub.close_page(page)
        await asyncio.gather(sender, return_exceptions=True)
        await socket.close()
    return socket


async def _carry_out(message: Event, page: _Page, hub: _Hub) -> None:
    """Do what a page asks: {"listen": side or null}, or {"id", "side", "command", "args"}."""
    if "listen" in message:
        side = message["listen"]
        if side is not None and side not in SIDES:
            raise ValueError(side)
        await hub.listen(page, side)
        return
    reply: Event = {"kind": "reply", "id": int(message["id"]), "error": None}
    try:
        await hub.command(message["side"], message["command"], dict(message["args"]))
    except DoorstationError as fault:
        reply["error"] = str(fault)
    page.push(reply)
