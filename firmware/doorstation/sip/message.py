"""SIP requests and responses: a strict writer and a tolerant, bounded reader (RFC 3261 §7, §25).

Reading takes two steps. `parse_message` finds the start line, the header lines and the body;
`check_request` and `check_response` then decide whether what stands there may be acted upon. In
between nothing is interpreted: a header is read when it is asked for, and the result is kept until
the headers change. Whatever the octets, the only exception is MalformedMessage (StreamBroken where
a stream's framing is lost), and the time taken grows with the length and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from doorstation.errors import ProtocolError
from doorstation.sip.grammar import (
    TOKEN_CHARS,
    WHITESPACE,
    MalformedMessage,
    is_digits,
    is_token,
    split_list,
)
from doorstation.sip.headers import (
    Challenge,
    CSeq,
    Headers,
    NameAddr,
    Via,
    check_name_addrs,
    check_vias,
    parse_challenge,
    parse_cseq,
    parse_name_addr,
    parse_via,
    read_sent_by,
)
from doorstation.sip.uri import (
    MAX_URI,
    PLAIN_URI,
    OtherUri,
    SipUri,
    Uri,
    format_uri,
    parse_uri,
    plain_uri,
)

__all__ = [
    "MAX_BODY", "MAX_HEAD", "MAX_HEADERS", "MAX_MESSAGE", "REASONS", "KeepAlive",
    "MalformedMessage", "Message", "Request", "Response", "StreamBroken", "StreamReader",
    "check_request", "check_response", "format_message", "make_response", "parse_message",
]  # fmt: skip

# Attack bounded: memory per message. A UDP datagram cannot be longer; a stream could send for ever.
MAX_MESSAGE: Final = 65_535
MAX_RETRY_AFTER: Final = 3600.0  # a server may not have itself left alone for longer
# Attack bounded: a stream that never ends its header section, held in memory meanwhile.
MAX_HEAD: Final = 32_768
# Attack bounded: a stream's Content-Length of gigabytes, which we would wait for.
MAX_BODY: Final = 65_535
# Attack bounded: tens of thousands of two-letter lines, each of them an object and a search step.
MAX_HEADERS: Final = 200

REASONS: Final[dict[int, str]] = {
    100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued",
    183: "Session Progress", 199: "Early Dialog Terminated",
    200: "OK", 202: "Accepted", 204: "No Notification",
    300: "Multiple Choices", 301: "Moved Permanently", 302: "Moved Temporarily", 305: "Use Proxy",
    380: "Alternative Service",
    400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable",
    407: "Proxy Authentication Required", 408: "Request Timeout", 410: "Gone",
    412: "Conditional Request Failed", 413: "Request Entity Too Large",
    414: "Request-URI Too Long", 415: "Unsupported Media Type", 416: "Unsupported URI Scheme",
    420: "Bad Extension", 421: "Extension Required", 422: "Session Interval Too Small",
    423: "Interval Too Brief", 428: "Use Identity Header", 429: "Provide Referrer Identity",
    430: "Flow Failed", 433: "Anonymity Disallowed", 436: "Bad Identity Info",
    437: "Unsupported Credential", 438: "Invalid Identity Header",
    439: "First Hop Lacks Outbound Support", 440: "Max-Breadth Exceeded",
    469: "Bad Info Package", 470: "Consent Needed", 480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist", 482: "Loop Detected", 483: "Too Many Hops",
    484: "Address Incomplete", 485: "Ambiguous", 486: "Busy Here", 487: "Request Terminated",
    488: "Not Acceptable Here", 489: "Bad Event", 491: "Request Pending", 493: "Undecipherable",
    494: "Security Agreement Required",
    500: "Server Internal Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Server Time-out", 505: "Version Not Supported",
    513: "Message Too Large", 555: "Push Notification Service Not Supported",
    580: "Precondition Failure",
    600: "Busy Everywhere", 603: "Decline", 604: "Does Not Exist Anywhere",
    606: "Not Acceptable", 607: "Unwanted", 608: "Rejected",
}  # fmt: skip


class StreamBroken(ProtocolError):
    """The stream's framing is lost: close the connection.

    `received` is what could be read before the fault; its last may be a MalformedMessage that can
    still be answered.
    """

    def __init__(self, reason: str, received: list[Message | KeepAlive | MalformedMessage]) -> None:
        super().__init__(reason)
        self.received = received


# -- Messages --------------------------------------------------------------------------------------


class _Typed:
    """Typed values of the headers; each raises MalformedMessage when it is absent or unreadable.

    Values are kept in the headers' memo, which every change of the headers clears.
    """

    __slots__ = ()
    headers: Headers

    @property
    def vias(self) -> tuple[Via, ...]:
        lines = self.headers.lines("via")
        if not lines:
            raise MalformedMessage("no Via")
        return tuple([parse_via(value) for line in lines for value in split_list(line, "Via")])

    @property
    def top_via(self) -> Via:
        """The topmost Via; the others need not be readable."""
        via: Via = self.headers.memo.get("via") or self._read("via")
        return via

    @property
    def from_(self) -> NameAddr:
        address: NameAddr = self.headers.memo.get("from") or self._read("from")
        return address

    @property
    def to(self) -> NameAddr:
        address: NameAddr = self.headers.memo.get("to") or self._read("to")
        return address

    @property
    def cseq(self) -> CSeq:
        cseq: CSeq = self.headers.memo.get("cseq") or self._read("cseq")
        return cseq

    @property
    def call_id(self) -> str:
        call_id: str = self.headers.memo.get("call-id") or self._read("call-id")
        return call_id

    @property
    def contacts(self) -> tuple[NameAddr, ...]:
        """All contacts; none for `Contact: *`."""
        addresses: tuple[NameAddr, ...] = self.headers.memo.get("contact") or self._read("contact")
        return addresses

    @property
    def routes(self) -> tuple[NameAddr, ...]:
        addresses: tuple[NameAddr, ...] = self.headers.memo.get("route") or self._read("route")
        return addresses

    @property
    def record_routes(self) -> tuple[NameAddr, ...]:
        memo = self.headers.memo
        addresses: tuple[NameAddr, ...] = memo.get("record-route") or self._read("record-route")
        return addresses

    @property
    def max_forwards(self) -> int | None:
        """None when absent."""
        number: int | None = self.headers.memo.get("max-forwards") or self._read("max-forwards")
        return number

    @property
    def expires(self) -> int | None:
        """Seconds; None when absent or unreadable, which counts as absent (RFC 3261 §20.19)."""
        return self._seconds("Expires")

    @property
    def min_expires(self) -> int | None:
        return self._seconds("Min-Expires")

    @property
    def content_type(self) -> str:
        """`type/subtype` in lower case without parameters; "" when absent."""
        value = self.headers.get("Content-Type") or ""
        kind, _, subtype = value.partition(";")[0].partition("/")
        return f"{kind.strip(WHITESPACE)}/{subtype.strip(WHITESPACE)}".lower() if subtype else ""

    @property
    def require(self) -> list[str]:
        """Option tags in lower case."""
        return [value.lower() for value in self._tokens("require")]

    @property
    def supported(self) -> list[str]:
        """Option tags in lower case."""
        return [value.lower() for value in self._tokens("supported")]

    @property
    def allow(self) -> list[str]:
        """Method names: their case counts."""
        return self._tokens("allow")

    @property
    def challenges(self) -> list[Challenge]:
        """WWW-Authenticate, then Proxy-Authenticate; lines that cannot be read are left out."""
        challenges: list[Challenge] = []
        for name in ("WWW-Authenticate", "Proxy-Authenticate"):
            for line in self.headers.get_all(name):
                try:
                    challenges.append(parse_challenge(line))
                except MalformedMessage:
                    continue  # another scheme's syntax must not hide the one we can answer
        return challenges

    def _read(self, key: str) -> Any:
        value = self.headers.memo[key] = _READERS[key](self.headers.lines(key))
        return value

    def _tokens(self, key: str) -> list[str]:
        """The elements of a list of tokens, which have no quotes: whatever stands there is read."""
        lines = self.headers.lines(key)
        return [text for line in lines for part in line.split(",") if (text := part.strip())]

    def _seconds(self, name: str) -> int | None:
        value = (self.headers.get(name) or "").partition(";")[0].rstrip(WHITESPACE)
        if not is_digits(value):
            return None
        # Beyond 32 bits counts as the highest value there is (RFC 4475 §3.1.2.4).
        return min(int(value[:20]), 0xFFFFFFFF)


# What each header says, from the values of all its lines.


def _read_top_via(lines: Sequence[str]) -> Via:
    if not lines:
        raise MalformedMessage("no Via")
    first = lines[0]
    return parse_via(split_list(first, "Via")[0] if "," in first else first)


def _read_call_id(lines: Sequence[str]) -> str:
    call_id = _only(lines, "Call-ID")
    if not call_id or " " in call_id or "\t" in call_id:
        raise MalformedMessage("Call-ID cannot be read")
    return call_id


def _read_contacts(lines: Sequence[str]) -> tuple[NameAddr, ...]:
    return () if lines == ("*",) else _addresses(lines, "Contact")


def _read_max_forwards(lines: Sequence[str]) -> int | None:
    if not lines:
        return None
    value = _only(lines, "Max-Forwards")
    if not is_digits(value) or len(value) > 10 or int(value) > 255:
        raise MalformedMessage("Max-Forwards cannot be read")
    return int(value)


def _only(lines: Sequence[str], name: str) -> str:
    """The value of a header that must stand exactly once."""
    if len(lines) != 1:
        raise MalformedMessage(f"no {name}" if not lines else f"{len(lines)} {name} headers")
    return lines[0]


def _addresses(lines: Sequence[str], name: str) -> tuple[NameAddr, ...]:
    """The values of all lines, comma lists taken apart."""
    if len(lines) == 1 and "," not in lines[0]:
        return (parse_name_addr(lines[0], name),)
    return tuple(
        [parse_name_addr(value, name) for line in lines for value in split_list(line, name)]
    )


def _readable(lines: Sequence[str], name: str) -> Iterator[NameAddr]:
    for line in lines:
        with suppress(MalformedMessage):
            for value in split_list(line, name):
                with suppress(MalformedMessage):
                    yield parse_name_addr(value, name)


_READERS: Final[dict[str, Callable[[Sequence[str]], Any]]] = {
    "via": _read_top_via,
    "from": lambda lines: parse_name_addr(_only(lines, "From"), "From"),
    "to": lambda lines: parse_name_addr(_only(lines, "To"), "To"),
    "call-id": _read_call_id,
    "cseq": lambda lines: parse_cseq(_only(lines, "CSeq")),
    "contact": _read_contacts,
    "route": lambda lines: _addresses(lines, "Route"),
    "record-route": lambda lines: _addresses(lines, "Record-Route"),
    "max-forwards": _read_max_forwards,
}


class Request(_Typed, msgspec.Struct):
    """A request; the case of `method` counts. Content-Length is the writer's: set `body` alone."""

    method: str
    uri: Uri
    headers: Headers
    body: bytes = b""

    def copy(self) -> Request:
        """A copy whose headers can be changed on their own."""
        return Request(self.method, self.uri, self.headers.copy(), self.body)


class Response(_Typed, msgspec.Struct):
    """A response; `reason` is for people."""

    status: int
    reason: str
    headers: Headers
    body: bytes = b""

    @property
    def contacts(self) -> tuple[NameAddr, ...]:
        """Those that can be read: a registrar also lists what other devices wrote."""
        try:
            return super().contacts
        except MalformedMessage:
            return tuple(_readable(self.headers.lines("contact"), "Contact"))

    @property
    def service_routes(self) -> tuple[NameAddr, ...]:
        """By which servers a registrar wants to be sent requests (RFC 3608)."""
        return tuple(_readable(self.headers.lines("service-route"), "Service-Route"))

    @property
    def retry_after(self) -> float | None:
        """Seconds to be left alone, an hour at most; None if it does not say (RFC 3261 §20.33)."""
        text = (self.headers.get("Retry-After") or "").partition(";")[0].partition("(")[0].strip()
        return min(float(text), MAX_RETRY_AFTER) if is_digits(text) and len(text) < 10 else None

    def copy(self) -> Response:
        """A copy whose headers can be changed on their own."""
        return Response(self.status, self.reason, self.headers.copy(), self.body)


Message = Request | Response


# -- Reading ---------------------------------------------------------------------------------------

_HEAD_END = re.compile(rb"\n\r?\n")
# A line as nearly everyone writes it, from the LF before to the CR.
_PLAIN_LINE = re.compile(rf"\n([{TOKEN_CHARS}]++): (\S[^\r]*+)(?<![ \t])\r$", re.MULTILINE)
_PLAIN_REQUEST_LINE = re.compile(rf"([A-Z]++) {PLAIN_URI} SIP/2\.0")
_FOLD = re.compile(r"\r?\n[ \t]+")
_REQUEST_LINE = re.compile(rf"([{TOKEN_CHARS}]++) ([^ ]++) ([A-Za-z]++)/([0-9]++)\.([0-9]++)")
_STATUS_LINE = re.compile(r"[sS][iI][pP]/([0-9]++)\.([0-9]++) ([0-9]++)(?: (.*+))?", re.DOTALL)
_METHOD = re.compile(rf"([{TOKEN_CHARS}]++)[ \t]")
# NUL may stand in a quoted pair only (RFC 4475 §3.1.1.2 does it).
_BARE_NUL = re.compile(r"(?<!\\)\x00")


def parse_message(data: bytes) -> Message:
    """Read one datagram; octets beyond Content-Length are dropped. Raises MalformedMessage."""
    if len(data) > MAX_MESSAGE:
        raise MalformedMessage(f"{len(data)} bytes, {MAX_MESSAGE} at most", 513)
    start = 0
    if data[:2] == b"\r\n":  # RFC 3261 §7.5: CRLF before the start line is ignored
        start = len(data) - len(data.lstrip(b"\r\n"))
    end = _HEAD_END.search(data, start)
    if end is None:
        return _parse_parts(data[start:], b"", complete=False)
    return _parse_parts(data[start : end.start()], data[end.end() :], complete=True)


def _parse_parts(head: bytes, rest: bytes, *, complete: bool) -> Message:
    """Read a message from its head, without the empty line, and what follows."""
    message, fault = _parse_head(head)
    if not complete:
        fault = MalformedMessage("header section without end")
    if fault is None:
        try:
            length = _content_length(message.headers)
            if length is None:
                message.body = rest
            elif length > len(rest):
                fault = MalformedMessage(f"Content-Length {length}, body of {len(rest)} bytes")
            else:
                message.body = rest[:length]
        except MalformedMessage as caught:
            fault = caught
    if fault is not None:
        raise _answerable(fault, message)
    return message


def _parse_head(head: bytes) -> tuple[Message, MalformedMessage | None]:
    """The message that a head stands for as far as it can be read, and the first fault in it.

    Raises MalformedMessage when there is no message at all.
    """
    if len(head) > MAX_HEAD:
        raise MalformedMessage(f"header section of {len(head)} bytes, {MAX_HEAD} at most", 513)
    text = _decode(head)
    fault: MalformedMessage | None = None
    begin = text.find("\r\n")
    start_line = text[:begin]
    breaks = text.count("\n")
    # Not where a LF stands alone: each value would be looked for through all lines to the next CR.
    plain = breaks == text.count("\r\n")
    lines: list[tuple[str, str]] = _PLAIN_LINE.findall(text, begin) if plain else []
    count = len(lines)
    # As many as there are LF: there is nothing between these lines, and no CR within one.
    if not 0 < count <= MAX_HEADERS or breaks != count or "\r" in start_line or "\0" in text:
        start_line, lines, fault = _odd_lines(text)
    message, start_fault = _parse_start_line(start_line, Headers(lines))
    return message, start_fault or fault


def _odd_lines(text: str) -> tuple[str, list[tuple[str, str]], MalformedMessage | None]:
    """The start line, names and values of any head at all, and the first fault in it."""
    fault: MalformedMessage | None = None
    if "\n " in text or "\n\t" in text:
        text = _FOLD.sub(" ", text)
    if text[-1:] == "\r":
        text = text[:-1]
    lines = text.split("\r\n")
    breaks = len(lines) - 1
    if text.count("\n") != breaks or text.count("\r") != breaks:
        # Bare LF is taken for a line end (netcat, old test tools); bare CR never.
        if "\r" in text.replace("\r\n", "\n"):
            fault = MalformedMessage("carriage return within a line")
        lines = text.replace("\r\n", "\n").replace("\r", " ").split("\n")
    if "\0" in text and _BARE_NUL.search(text) is not None:
        fault = MalformedMessage("NUL within a line")
        lines = [_BARE_NUL.sub(" ", line) for line in lines]
    if len(lines) > MAX_HEADERS + 1:
        fault = MalformedMessage(f"{len(lines) - 1} header lines, {MAX_HEADERS} at most", 513)
        del lines[MAX_HEADERS + 1 :]
    pairs: list[tuple[str, str]] = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.rstrip(WHITESPACE)
        if colon and is_token(name):
            pairs.append((name, value.strip(WHITESPACE)))
        else:
            fault = fault or MalformedMessage("header line without a name")
    return lines[0], pairs, fault


def _decode(head: bytes) -> str:
    try:
        return head.decode()
    except UnicodeDecodeError:
        # Old phones write names in ISO 8859-1. Line by line, so that others stay what they are.
        return "\n".join(_decode_line(line) for line in head.split(b"\n"))


def _decode_line(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _parse_start_line(line: str, headers: Headers) -> tuple[Message, MalformedMessage | None]:
    match = _PLAIN_REQUEST_LINE.fullmatch(line)
    if match is not None and len(line) <= MAX_URI:
        method, scheme, user, host, port, a, b, c, d = match.groups()
        return Request(method, plain_uri(scheme, user, host, port, a, b, c, d), headers), None
    match = _REQUEST_LINE.fullmatch(line)
    if match is not None:
        method, target, protocol, major, minor = match.groups()
        fault: MalformedMessage | None = None
        uri: Uri = _NO_URI
        if protocol.upper() != "SIP":
            raise MalformedMessage("not SIP")
        if (major, minor) != ("2", "0"):
            fault = MalformedMessage(f"version {major[:9]}.{minor[:9]}", 505)
        try:
            uri = parse_uri(target)
        except MalformedMessage as caught:
            fault = fault or MalformedMessage(f"Request-URI: {caught.reason}")
        return Request(method, uri, headers), fault
    match = _STATUS_LINE.fullmatch(line)
    if match is not None:
        if (match[1], match[2]) != ("2", "0"):
            raise MalformedMessage(f"response of version {match[1][:9]}.{match[2][:9]}", 505)
        status = int(match[3]) if len(match[3]) == 3 else 0
        if not 100 <= status <= 699:
            raise MalformedMessage(f"response with status {match[3][:12]}")
        return Response(status, match[4] or "", headers), None
    match = _METHOD.match(line)
    if match is None or not line.rstrip(WHITESPACE).upper().endswith("SIP/2.0"):
        raise MalformedMessage("start line cannot be read")
    return Request(match[1], _NO_URI, headers), MalformedMessage("request line cannot be read")


# Stands in where the Request-URI cannot be read; such a request is only ever answered 400.
_NO_URI: Final = OtherUri("invalid", "unreadable")


def _content_length(headers: Headers) -> int | None:
    """The body's length; None when not said. Raises MalformedMessage."""
    values = headers.lines("content-length")
    if not values:
        return None
    if len(values) > 1 and len(set(values)) > 1:
        raise MalformedMessage(f"{len(values)} Content-Length headers")
    if not is_digits(values[0]) or len(values[0]) > 10:
        raise MalformedMessage("Content-Length cannot be read")
    return int(values[0])


def _answerable(fault: MalformedMessage, message: Message) -> MalformedMessage:
    """The same fault with the request to answer, if there is a way back to its sender."""
    if not isinstance(message, Request) or message.method == "ACK":
        return fault
    try:
        message.top_via  # noqa: B018
    except MalformedMessage:
        # RFC 4475 §3.1.2.1: the parameters are past reading, but where to answer is not.
        sent_by = read_sent_by(message.headers.get("Via") or "")
        if sent_by is None:
            return fault
        message = message.copy()
        message.headers.set("Via", sent_by)
    fault.request = message
    return fault


# -- Checking --------------------------------------------------------------------------------------


def check_request(request: Request) -> None:
    """Whether a request may be acted upon (RFC 3261 §8.1.1, §16.3, RFC 4475); raises if not."""
    try:
        _check_common(request)
        _check_request_only(request)
    except MalformedMessage as fault:
        raise _answerable(fault, request) from None


def _check_request_only(request: Request) -> None:
    request.contacts  # noqa: B018
    method, of_cseq = request.method, request.cseq.method
    if of_cseq != method:
        raise MalformedMessage(f"CSeq method {of_cseq[:32]} in a {method[:32]} request")
    uri = request.uri
    if isinstance(uri, SipUri) and uri.headers:
        raise MalformedMessage("Request-URI with headers")  # RFC 3261 §19.1.1
    request.max_forwards  # noqa: B018
    for line in request.headers.lines("route"):
        check_name_addrs(line, "Route")


def check_response(response: Response) -> None:
    """Whether a response may be acted upon; raises MalformedMessage: drop it."""
    _check_common(response)


# What decides about any message, in the order in which a fault is named.
_DECISIVE: Final = [(key, _READERS[key]) for key in ("via", "from", "to", "call-id", "cseq")]


def _check_common(message: Message) -> None:
    headers = message.headers
    lines, memo = headers.lines, headers.memo
    for key, read in _DECISIVE:
        if key not in memo:
            memo[key] = read(lines(key))
    topmost, *others = lines("via")
    if "," in topmost:  # else it was read just now
        check_vias(topmost)
    for line in others:
        check_vias(line)
    for line in lines("record-route"):
        check_name_addrs(line, "Record-Route")


# -- Writing ---------------------------------------------------------------------------------------


def format_message(message: Message) -> bytes:
    """Write a message, Content-Length set to the body's. ValueError for what would not read back.

    CR, LF and unescaped NUL are refused wherever they stand: nobody gets a header in through a
    display name.
    """
    if isinstance(message, Request):
        if not is_token(message.method):
            raise ValueError(f"method {message.method!r}")
        lines = [f"{message.method} {format_uri(message.uri)} SIP/2.0"]
    else:
        if not 100 <= message.status <= 699:
            raise ValueError(f"status {message.status}")
        lines = [f"SIP/2.0 {message.status} {message.reason}"]
    headers, length = message.headers, str(len(message.body))
    if headers.lines("content-length") != (length,):
        headers = headers.copy()
        headers.set("Content-Length", length)
    lines += headers.written()
    text = "".join(lines)
    if "\r" in text or "\n" in text:
        raise ValueError("CR or LF within a header")
    if "\0" in text and _BARE_NUL.search(text) is not None:
        raise ValueError("NUL within a header")
    text = "\r\n".join(lines)
    return (text + "\r\n\r\n").encode() + message.body


def make_response(request: Request, status: int, reason: str = "", to_tag: str = "") -> Response:
    """The response to a request: Via, From, To, Call-ID and CSeq copied (RFC 3261 §8.2.6).

    `to_tag` is added where To has none. Copies what there is, as it stands: it never raises, not
    for a malformed request either. Timestamp is copied into a 100.
    """
    items: list[tuple[str, str]] = []
    for name, value in request.headers:
        if name in _COPIED:
            if name == "To" and to_tag:
                value = _with_tag(request, value, to_tag)
            items.append((name, value))
        elif name == "Timestamp" and status == 100:
            items.append((name, value))
    return Response(status, reason or REASONS.get(status, "Unknown"), Headers(items))


_COPIED: Final = frozenset(("Via", "From", "To", "Call-ID", "CSeq"))


def _with_tag(request: Request, value: str, tag: str) -> str:
    try:
        return value if request.to.tag is not None else f"{value};tag={tag}"
    except MalformedMessage:
        return value


# -- Streams ---------------------------------------------------------------------------------------


class KeepAlive(msgspec.Struct, frozen=True):
    """CRLF between messages (RFC 5626 §4.4.1).

    Each CRLF is reported as a pong; the second of a pair is a ping as well. Whoever opened the
    connection gets pongs and ignores pings; the other side answers pings and ignores pongs.
    """

    pong: bool


class StreamReader:
    """Cuts a TCP or TLS stream into messages, however the octets arrive (RFC 3261 §18.3)."""

    __slots__ = ("_broken", "_buffer", "_crlf", "_max_body", "_max_head", "_scanned", "_waiting")

    def __init__(self, max_head: int = MAX_HEAD, max_body: int = MAX_BODY) -> None:
        self._max_head = max_head
        self._max_body = max_body
        self._buffer = bytearray()
        self._scanned = 0  # octets looked at already for the end of the head
        self._crlf = False  # the octets just before were one CRLF of a possible pair
        self._waiting: tuple[Message, MalformedMessage | None, int] | None = None
        self._broken = ""

    def receive(self, data: bytes) -> list[Message | KeepAlive | MalformedMessage]:
        """What the octets complete, in order. Raises StreamBroken, now and ever after."""
        received: list[Message | KeepAlive | MalformedMessage] = []
        if self._broken:
            raise StreamBroken(self._broken, received)
        self._buffer += data
        try:
            while self._step(received):
                pass
        except MalformedMessage as fault:
            self._broken = fault.reason
            self._buffer.clear()
            if fault.request is not None:
                received.append(fault)
            raise StreamBroken(fault.reason, received) from None
        return received

    def _step(self, received: list[Message | KeepAlive | MalformedMessage]) -> bool:
        """Take one thing off the buffer; False when more octets are needed."""
        if self._waiting is not None:
            return self._take_body(received)
        buffer = self._buffer
        if buffer[:2] == b"\r\n":
            del buffer[:2]
            received.append(KeepAlive(pong=True))
            if self._crlf:
                received.append(KeepAlive(pong=False))
            self._crlf = not self._crlf
            return True
        if not buffer or buffer == b"\r":
            return False
        self._crlf = False
        end = _HEAD_END.search(buffer, self._scanned, self._max_head + 4)
        if end is None:
            if len(buffer) >= self._max_head + 4:
                raise MalformedMessage(f"header section above {self._max_head} bytes", 513)
            self._scanned = max(0, len(buffer) - 2)
            return False
        head = bytes(buffer[: end.start()])
        del buffer[: end.end()]
        self._scanned = 0
        self._begin_body(head)
        return True

    def _begin_body(self, head: bytes) -> None:
        message, fault = _parse_head(head)
        try:
            # RFC 3261 §18.3 demands Content-Length here. Without it there is no body: a peer that
            # forgot it on an empty request is heard, one that sent a body is cut off at the next.
            length = _content_length(message.headers) or 0
        except MalformedMessage as lost:
            raise _answerable(lost, message) from None
        if length > self._max_body:
            large = MalformedMessage(f"body of {length} bytes, {self._max_body} at most", 413)
            raise _answerable(large, message)
        self._waiting = message, fault, length

    def _take_body(self, received: list[Message | KeepAlive | MalformedMessage]) -> bool:
        assert self._waiting is not None
        message, fault, length = self._waiting
        if len(self._buffer) < length:
            return False
        message.body = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._waiting = None
        received.append(message if fault is None else _answerable(fault, message))
        return True
