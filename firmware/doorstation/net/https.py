"""Fetching configuration files by https, http and tftp; the rules are `provision.fetch`'s.

aiohttp is loaded when used.
"""

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING, Any

import msgspec

from doorstation.net import tftp
from doorstation.provision.fetch import (
    WITHIN,
    Failed,
    Fetch,
    Fetched,
    Get,
    Output,
    Unchanged,
)
from doorstation.provision.files import MAX_FILE
from doorstation.provision.tftp import Failed as NotRead
from doorstation.provision.tftp import Place

if TYPE_CHECKING:
    import ssl

MAX_LINE = 4096
"""Bytes of a header line."""


class Credentials(msgspec.Struct, frozen=True):
    """PEM files: authorities to trust ("": the system's), the door's own certificate ("": none)."""

    ca_file: str = ""
    certificate: str = ""
    key: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What came of it; `private`: only addresses of private networks were spoken to."""

    result: Fetched | Unchanged | Failed
    private: bool


async def fetch(url: str, etag: str, credentials: Credentials) -> Answer:
    """Fetch one file, `WITHIN` seconds at most for all redirections together; never raises."""
    rules = Fetch(url, etag)
    addresses: list[str] = []
    (output,) = rules.start()
    try:
        async with asyncio.timeout(WITHIN):
            while isinstance(output, Get):
                output = await _get(rules, output, credentials, addresses)
    except TimeoutError:
        output = Failed(f"no file within {WITHIN:g} s")
    return Answer(output, bool(addresses) and all(map(_is_private, addresses)))


async def _get(rules: Fetch, get: Get, credentials: Credentials, addresses: list[str]) -> Output:
    """One request and what the rules say of its answer."""
    if get.url.lower().startswith("tftp:"):
        return await _read(rules, get.url, addresses)
    try:
        import aiohttp

        from doorstation.net.link_names import LinkResolver
    except ImportError:
        return Failed('aiohttp is not installed: pip install "doorstation[web]"')

    def connected(info: Any) -> socket.socket:
        addresses.append(info[4][0])
        return socket.socket(*info[:3])

    try:
        trust = await asyncio.to_thread(_context, credentials)
        connector = aiohttp.TCPConnector(
            ssl=trust, socket_factory=connected, resolver=LinkResolver()
        )
        headers = {"Accept-Encoding": "identity", "User-Agent": "Doorstation"}
        if get.etag:
            headers["If-None-Match"] = get.etag
        async with (
            aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                max_line_size=MAX_LINE,
                max_field_size=MAX_LINE,
            ) as session,
            session.get(get.url, headers=headers, allow_redirects=False) as response,
        ):
            body = b""
            if response.status == 200:
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > MAX_FILE:
                        break  # it need not be read to be refused
            (output,) = rules.answered(
                response.status,
                body,
                etag=response.headers.get("ETag", ""),
                location=response.headers.get("Location", ""),
                retry=in_seconds(
                    response.headers.get("Retry-After", ""), response.headers.get("Date", "")
                ),
            )
            return output
    except (aiohttp.ClientError, OSError, ValueError) as fault:
        return Failed(str(fault) or type(fault).__name__)


async def _read(rules: Fetch, url: str, addresses: list[str]) -> Output:
    """The same by TFTP, which knows no ETag and no redirection."""
    try:
        body = await tftp.read(Place.of(url), MAX_FILE, addresses)
    except (OSError, ValueError) as fault:
        return Failed(str(fault) or type(fault).__name__)
    if isinstance(body, NotRead):
        return Failed(body.why)
    (output,) = rules.answered(200, body)
    return output


def in_seconds(retry: str, date: str) -> str:
    """Retry-After as seconds: a time (RFC 9110 10.2.3) counts from the server's own `date`.

    "" for one that cannot be read.
    """
    if retry.isdigit() or not retry:
        return retry
    from email.utils import parsedate_to_datetime

    try:
        wait = parsedate_to_datetime(retry) - parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return ""
    return str(max(0, int(wait.total_seconds())))


def _context(credentials: Credentials) -> "ssl.SSLContext":
    """Raises OSError for files that cannot be used (SSLError is one)."""
    import ssl

    context = ssl.create_default_context(cafile=credentials.ca_file or None)
    if credentials.certificate:
        context.load_cert_chain(credentials.certificate, credentials.key or None)
    return context


def _is_private(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_private
