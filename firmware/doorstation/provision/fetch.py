"""The rules of fetching a file: which addresses, how far to follow, how large, when again.

Sans-I/O: `Fetch` says what to get and judges each answer's head; `Poll` says when.
"""

from typing import Final, TypeAlias
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from doorstation.hashes import sha256
from doorstation.ids import Ids
from doorstation.provision.files import MAX_FILE
from doorstation.settings.text import url_fault

MAX_REDIRECTS: Final = 3
MAX_ETAG: Final = 256
WITHIN: Final = 5.0
"""Seconds for one place, all redirects together."""

DAY: Final = 86400.0
_SHORTEST: Final = 30.0
_LONGEST: Final = 3600.0


class Get(msgspec.Struct, frozen=True):
    """Get it, at most `MAX_FILE` bytes. `etag`: for If-None-Match, "" for none."""

    url: str
    etag: str


class Fetched(msgspec.Struct, frozen=True):
    """A file, from where it really came."""

    url: str
    body: bytes
    etag: str


class Unchanged(msgspec.Struct, frozen=True):
    """304: what we have is what there is."""


class Failed(msgspec.Struct, frozen=True):
    """Nothing from there. `after`: seconds that the server asks to wait, None if it does not."""

    why: str
    after: float | None = None


Output: TypeAlias = Get | Fetched | Unchanged | Failed


class Fetch:
    """One file."""

    def __init__(self, url: str, etag: str = "") -> None:
        self._url = url
        self._etag = etag
        self._redirects = 0

    def start(self) -> list[Output]:
        fault = url_fault(self._url)
        return [Failed(fault)] if fault else [Get(self._url, self._etag)]

    def answered(
        self, status: int, body: bytes, *, etag: str = "", location: str = "", retry: str = ""
    ) -> list[Output]:
        """An answer. `body`: what was read of it, one byte more than allowed if there was more."""
        if status == 304:
            return [Unchanged()] if self._etag else [Failed("304 to a question without an ETag")]
        if status in (301, 302, 303, 307, 308):
            return self._redirected(location)
        if status != 200:
            return [Failed(f"status {status}", retry_after(retry))]
        if len(body) > MAX_FILE:
            return [Failed(f"more than {MAX_FILE} bytes")]
        if not body:
            return [Failed("an empty file")]
        # It is kept on disk and sent back: other than text it would be in the way of both.
        kept = len(etag) <= MAX_ETAG and etag.isascii() and etag.isprintable()
        return [Fetched(self._url, body, etag if kept else "")]

    def _redirected(self, location: str) -> list[Output]:
        self._redirects += 1
        if self._redirects > MAX_REDIRECTS:
            return [Failed(f"more than {MAX_REDIRECTS} redirections")]
        before = self._url
        self._url = urljoin(before, location)
        fault = url_fault(self._url) if location else "nowhere"
        if fault:
            return [Failed(f"redirected to {fault}")]
        if urlsplit(before).scheme == "https" != urlsplit(self._url).scheme:
            return [Failed("redirected from https to what nobody protects")]
        return [Get(self._url, self._etag)]


def beside(url: str, name: str) -> str:
    """Where a file of this name lies beside another."""
    # urljoin knows nothing of tftp.
    scheme, _, rest = url.partition(":")
    return scheme + urljoin(f"http:{rest}", quote(name)).removeprefix("http")


def retry_after(text: str) -> float | None:
    """Seconds of a Retry-After header, at most a day; None for none or a date."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), DAY)
    return None


class Poll:
    """When to look again: once a day at this door's own minute, sooner after a failure."""

    def __init__(self, uuid: str, ids: Ids) -> None:
        digest = sha256(uuid.encode()).digest()
        self.minute = int.from_bytes(digest[:4]) % 1440
        """Of the day, UTC: an operator's thousand doors spread over it."""
        self._ids = ids
        self._failures = 0

    def after_success(self, seconds_of_day: float) -> float:
        """Seconds until the next look; `seconds_of_day`: what the clock says now, UTC."""
        self._failures = 0
        wait = (self.minute * 60 - seconds_of_day) % DAY
        return wait if wait > 60 else wait + DAY

    def after_failure(self, asked: float | None) -> float:
        """Seconds until the next attempt: half to whole of 30 s, 60 s, … 1 h; not before asked."""
        wait = min(_LONGEST, _SHORTEST * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        return max(asked or 0.0, wait * (0.5 + 0.5 * self._ids.fraction()))
