"""The page on which a door without an owner takes one, from who types its claim code.

It is there as long as there is no owner, by HTTPS with the door's own certificate, for the LAN
alone. It shows what the certificate shows and nothing more; the code is all its authority, so a
form that another site sends here, or a name that resolves to the door, gains nothing.

A door that was claimed by first use says so in its place, to who only reads.
"""

import html
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from string import Template
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

STATIC: Final = Path(__file__).with_name("static")
FIELDS: Final = ("code", "key", "url")
MAX_REQUEST: Final = 4096
"""Bytes of a form."""

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Claim = Callable[[str, str, str], Awaitable[tuple[int, str]]]
"""(code, key, url) -> the answer's status and what it says."""


def claim_app(door: Mapping[str, str], claim: Claim) -> web.Application:
    """The page with its form. `door`: its name and its key's fingerprint, as in `keys list`."""

    async def page(request: web.Request) -> web.Response:
        return _page(200, "", {})

    async def form(request: web.Request) -> web.Response:
        posted = await request.post()
        typed = {name: str(posted.get(name, "")).strip() for name in FIELDS}
        status, said = await claim(typed["code"], typed["key"], typed["url"])
        return _page(status, said, typed)

    def _page(status: int, said: str, typed: Mapping[str, str]) -> web.Response:
        # The code is not given back: it is typed again.
        shown = {"key": typed.get("key", ""), "url": typed.get("url", "")}
        return _filled("claim.html", status, {**door, **shown, "said": said})

    app = _app()
    app.router.add_get("/", page)
    app.router.add_post("/", form)
    return app


def notice_app(door: Mapping[str, str], says: Callable[[], str]) -> web.Application:
    """What it `says` of the claim and nothing else; who still has the form and sends it reads it,
    too, and what was sent is not looked at."""

    async def page(request: web.Request) -> web.Response:
        status = 410 if request.method == "POST" else 200
        return _filled("claimed.html", status, {**door, "said": says()})

    app = _app()
    app.router.add_get("/", page)
    app.router.add_post("/", page)
    return app


def _app() -> web.Application:
    async def style(request: web.Request) -> web.FileResponse:
        return web.FileResponse(STATIC / "claim.css")

    app = web.Application(middlewares=[_for_the_lan], client_max_size=MAX_REQUEST)
    app.router.add_get("/claim.css", style)
    return app


def _filled(name: str, status: int, values: Mapping[str, str]) -> web.Response:
    text = Template((STATIC / name).read_text("utf-8")).substitute(
        {name: html.escape(value) for name, value in values.items()}
    )
    return web.Response(status=status, text=text, content_type="text/html")


@web.middleware
async def _for_the_lan(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not ipaddress.ip_address((request.remote or "::").partition("%")[0]).is_private:
        return web.Response(status=403, text="Only for the door's own network.\n")
    response = await handler(request)
    response.headers.update(_HEADERS)
    return response
