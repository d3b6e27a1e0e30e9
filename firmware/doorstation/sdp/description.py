"""Session descriptions (RFC 8866): a tolerant, bounded reader and a strict writer.

The reader takes what phones and exchanges really send: lines ended by LF alone, no end on the last
line, blanks at line ends, sections out of order, no `s=` or `t=`. What it does not know about
attributes it keeps. An unknown *type letter* refuses the description, as RFC 8866 §5 asks.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from doorstation.errors import MalformedPacket

MAX_BYTES: Final = 65_536  # bounds reading time and memory of one body; browsers reach 10 kB
MAX_LINES: Final = 2_000  # bounds the objects made of a body full of empty attributes
MAX_MEDIA: Final = 32  # every m-line is mirrored in each later answer and offer of the call


class Attribute(msgspec.Struct, frozen=True):
    """One `a=` line; `value` is None for a flag such as `a=sendrecv`."""

    name: str
    value: str | None = None


class Origin(msgspec.Struct, frozen=True):
    """The `o=` line. Numbers stay text: peers send more digits than 64 bits hold."""

    session_id: str
    version: str
    address: str
    username: str = "-"
    family: str = "IP4"
    network: str = "IN"


class Connection(msgspec.Struct, frozen=True):
    """A `c=` line; `address` as written, with TTL and count if multicast."""

    address: str
    family: str = "IP4"
    network: str = "IN"

    @property
    def host(self) -> str:
        """The address alone, without `/ttl` and without the brackets some phones add to IPv6."""
        return self.address.partition("/")[0].strip("[]")


class Bandwidth(msgspec.Struct, frozen=True):
    """A `b=` line: kbit/s for AS and CT, bit/s for RS and RR (RFC 3556)."""

    kind: str
    value: str


class Timing(msgspec.Struct, frozen=True):
    """A `t=` line with its `r=` lines as text."""

    start: str = "0"
    stop: str = "0"
    repeats: tuple[str, ...] = ()


class Media(msgspec.Struct, frozen=True):
    """One m-line and all that follows it."""

    kind: str
    port: int
    proto: str = "RTP/AVP"
    formats: tuple[str, ...] = ()
    ports: int = 1
    title: str | None = None
    connections: tuple[Connection, ...] = ()
    bandwidth: tuple[Bandwidth, ...] = ()
    key: str | None = None
    attributes: tuple[Attribute, ...] = ()

    @property
    def connection(self) -> Connection | None:
        return self.connections[0] if self.connections else None

    def values(self, name: str) -> Iterator[str]:
        """The values of every attribute of that name, in order; a flag counts as ""."""
        return _values(self.attributes, name)

    def has(self, name: str) -> bool:
        return any(True for _ in self.values(name))


class SessionDescription(msgspec.Struct, frozen=True):
    origin: Origin
    name: str = "-"
    information: str | None = None
    uri: str | None = None
    emails: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()
    connection: Connection | None = None
    bandwidth: tuple[Bandwidth, ...] = ()
    times: tuple[Timing, ...] = msgspec.field(default=(Timing(),))
    zone: str | None = None
    key: str | None = None
    attributes: tuple[Attribute, ...] = ()
    media: tuple[Media, ...] = ()

    def values(self, name: str) -> Iterator[str]:
        """The values of every session-level attribute of that name; a flag counts as ""."""
        return _values(self.attributes, name)

    def has(self, name: str) -> bool:
        return any(True for _ in self.values(name))


def _values(attributes: Iterable[Attribute], name: str) -> Iterator[str]:
    return (a.value or "" for a in attributes if a.name.lower() == name)


# --- reading ------------------------------------------------------------------------------------


class _Section:
    """The lines of the session or of one m-line while they are being collected."""

    __slots__ = ("attributes", "bandwidth", "connections", "m_line", "single", "texts", "times")

    def __init__(self, m_line: Media | None = None) -> None:
        self.m_line = m_line
        self.single: dict[str, str] = {}
        self.texts: dict[str, list[str]] = {"e": [], "p": []}
        self.connections: list[Connection] = []
        self.bandwidth: list[Bandwidth] = []
        self.attributes: list[Attribute] = []
        self.times: list[Timing] = []

    def media(self) -> Media:
        line = self.m_line
        assert line is not None
        return Media(
            kind=line.kind,
            port=line.port,
            proto=line.proto,
            formats=line.formats,
            ports=line.ports,
            title=self.single.get("i"),
            connections=tuple(self.connections),
            bandwidth=tuple(self.bandwidth),
            key=self.single.get("k"),
            attributes=tuple(self.attributes),
        )


@functools.lru_cache(maxsize=4)
def parse_sdp(data: bytes) -> SessionDescription:
    """Read one body; kept for a moment, as an offer is looked at when it comes and when answered.

    Raises MalformedPacket naming the line: 400, 413 if too long, 488 for too many m-lines.
    """
    if len(data) > MAX_BYTES:
        raise MalformedPacket(f"SDP of {len(data)} bytes, at most {MAX_BYTES} are read", 413)
    # Some stacks count the terminating NUL of a C string into Content-Length.
    text = data.rstrip(b"\0 \t\r\n").decode("utf-8", "replace")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if len(lines) > MAX_LINES:
        raise MalformedPacket(f"SDP of {len(lines)} lines, at most {MAX_LINES} are read", 413)

    session = section = _Section()
    sections: list[_Section] = []
    first = True
    for number, line in enumerate(lines, 1):
        if not line.strip(" \t"):
            continue
        if line[1:2] != "=":
            raise _fault(number, "is not of the form x=value")
        letter, value = line[0], line[2:].strip(" \t")
        if "\0" in value:
            raise _fault(number, "holds a NUL")
        if first:
            if letter != "v" or value != "0":
                raise _fault(number, "is not v=0")
            first = False
        elif letter == "m":
            if len(sections) >= MAX_MEDIA:
                raise MalformedPacket(f"SDP of more than {MAX_MEDIA} m-lines", 488)
            section = _Section(_parse_media(number, value))
            sections.append(section)
        else:
            _read_line(section, number, letter, value)

    if first:
        raise MalformedPacket("SDP is empty")
    if "o" not in session.single:
        raise MalformedPacket("SDP has no o= line")
    return SessionDescription(
        origin=_parse_origin(session.single["o"]),
        name=session.single.get("s") or "-",
        information=session.single.get("i"),
        uri=session.single.get("u"),
        emails=tuple(session.texts["e"]),
        phones=tuple(session.texts["p"]),
        connection=session.connections[0] if session.connections else None,
        bandwidth=tuple(session.bandwidth),
        times=tuple(session.times) or (Timing(),),
        zone=session.single.get("z"),
        key=session.single.get("k"),
        attributes=tuple(session.attributes),
        media=tuple(item.media() for item in sections),
    )


def _read_line(section: _Section, number: int, letter: str, value: str) -> None:
    in_media = section.m_line is not None
    match letter:
        case "a":
            name, colon, rest = value.partition(":")
            name = name.rstrip(" \t")
            if name:
                section.attributes.append(Attribute(name, rest if colon else None))
        case "c":
            if section.connections and not in_media:
                raise _fault(number, "is a second c= of the session")
            section.connections.append(_parse_connection(number, value))
        case "b":
            kind, colon, rate = value.partition(":")
            kind = kind.rstrip(" \t")
            if not colon or not kind:
                raise _fault(number, "needs b=type:value")
            section.bandwidth.append(Bandwidth(kind, rate.lstrip(" \t")))
        case "i" | "k":
            _keep_single(section, number, letter, value)
        case "o" | "s" | "u" | "z" if not in_media:
            _keep_single(section, number, letter, value)
        case "e" | "p" if not in_media:
            section.texts[letter].append(value)
        case "t" if not in_media:
            start, stop, *_ = [*value.split(), "0", "0"]
            section.times.append(Timing(start, stop))
        case "r" if not in_media and section.times:
            last = section.times[-1]
            section.times[-1] = Timing(last.start, last.stop, (*last.repeats, value))
        case _:
            raise _fault(number, "has a type that is unknown or out of place")


def _keep_single(section: _Section, number: int, letter: str, value: str) -> None:
    if letter in section.single:
        raise _fault(number, f"is a second {letter}=")
    if letter == "o" and len(value.split()) < 5:
        raise _fault(number, "needs o=username id version network type address")
    section.single[letter] = value


def _parse_origin(value: str) -> Origin:
    # From the right: some stacks write a display name with blanks, or nothing, as the username.
    *names, session_id, version, network, family, address = value.split()
    return Origin(session_id, version, address, "_".join(names) or "-", family, network)


def _parse_connection(number: int, value: str) -> Connection:
    parts = value.split()
    if len(parts) != 3:
        raise _fault(number, "needs c=network type address")
    network, family, address = parts
    return Connection(address, family, network)


def _parse_media(number: int, value: str) -> Media:
    parts = value.split()
    if len(parts) < 3:
        raise _fault(number, "needs m=media port protocol formats")
    kind, port_text, proto, *formats = parts
    port_text, slash, ports_text = port_text.partition("/")
    port = _small_number(port_text)
    ports = _small_number(ports_text) if slash else 1
    if port is None or ports is None or ports < 1:
        raise _fault(number, "has a port that is not 0 to 65535")
    return Media(kind, port, proto, tuple(formats), ports)


def _small_number(text: str) -> int | None:
    """0 to 65535 of plain ASCII digits, else None."""
    if not (1 <= len(text) <= 5 and text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= 65_535 else None


def _fault(number: int, what: str) -> MalformedPacket:
    return MalformedPacket(f"SDP line {number} {what}")


# --- writing ------------------------------------------------------------------------------------


def format_sdp(description: SessionDescription) -> bytes:
    """Write in the order of RFC 8866 §5, CRLF after every line.

    Raises ValueError for a value that could not be read back: line breaks, NUL, stray blanks.
    """
    session = description
    if not session.times or not session.name:
        raise ValueError("a session needs a name and a t= line")
    origin = session.origin
    lines = [
        "v=0",
        "o="
        + _words(
            origin.username,
            origin.session_id,
            origin.version,
            origin.network,
            origin.family,
            origin.address,
        ),
        "s=" + _text(session.name),
        *_optional("i", session.information),
        *_optional("u", session.uri),
        *("e=" + _text(email) for email in session.emails),
        *("p=" + _text(phone) for phone in session.phones),
        *(() if session.connection is None else (_connection_line(session.connection),)),
        *map(_bandwidth_line, session.bandwidth),
    ]
    for time in session.times:
        lines.append("t=" + _words(time.start, time.stop))
        lines += ("r=" + _text(repeat) for repeat in time.repeats)
    lines += _optional("z", session.zone)
    lines += _optional("k", session.key)
    lines += map(_attribute_line, session.attributes)
    for media in session.media:
        port = str(media.port) if media.ports == 1 else f"{media.port}/{media.ports}"
        lines.append("m=" + _words(media.kind, port, media.proto, *media.formats))
        lines += _optional("i", media.title)
        lines += map(_connection_line, media.connections)
        lines += map(_bandwidth_line, media.bandwidth)
        lines += _optional("k", media.key)
        lines += map(_attribute_line, media.attributes)
    return ("\r\n".join(lines) + "\r\n").encode("utf-8")


def _optional(letter: str, value: str | None) -> tuple[str, ...]:
    return () if value is None else (f"{letter}={_text(value)}",)


def _connection_line(connection: Connection) -> str:
    return "c=" + _words(connection.network, connection.family, connection.address)


def _bandwidth_line(bandwidth: Bandwidth) -> str:
    return f"b={_name(bandwidth.kind)}:{_text(bandwidth.value)}"


def _attribute_line(attribute: Attribute) -> str:
    name = _name(attribute.name)
    if attribute.value is None:
        return f"a={name}"
    # A leading blank belongs to the value: browsers write `a=msid-semantic: WMS`.
    _text(attribute.value.lstrip(" \t") or attribute.value)
    return f"a={name}:{attribute.value}"


def _text(value: str) -> str:
    if "\r" in value or "\n" in value or "\0" in value or value != value.strip(" \t"):
        raise ValueError(f"{value!r} does not fit on an SDP line")
    return value


def _name(value: str) -> str:
    if not value or ":" in value:
        raise ValueError(f"{value!r} is no name of an SDP attribute or bandwidth")
    return _text(value)


def _words(*values: str) -> str:
    for value in values:
        if "\0" in value or value.split() != [value]:
            raise ValueError(f"{value!r} is not one word of an SDP line")
    return " ".join(values)
