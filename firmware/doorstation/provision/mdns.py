"""Multicast DNS in one-shot queries: names and services of the door's own link (RFC 6762 5.1).

A question goes out by multicast from a port that is not 5353; whoever knows answers that port. An
answer may leave out what belongs to it, which is asked for then. Whoever is on the link may say
anything, and as often as he likes: only what was asked for counts, and all of it is bounded.
"""

import ipaddress
import struct
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from doorstation.dhcp.options import host_name, parse_name
from doorstation.errors import MalformedPacket
from doorstation.ids import Ids

GROUP: Final = "224.0.0.251"
GROUP_6: Final = "ff02::fb"
PORT: Final = 5353
MAX_MESSAGE: Final = 9000
"""Bytes of a message (RFC 6762 17)."""
MAX_LABEL: Final = 63
"""Bytes (RFC 1035 2.3.4)."""
WITHIN: Final = 3.0
"""Seconds that a question takes at most."""
AGAIN: Final = 1.0
"""Seconds between two questions for the same (RFC 6762 5.2)."""
SETTLED: Final = 0.5
"""Seconds that others have to answer after all that the first named is known (RFC 6762 6)."""

_MOST_DATAGRAMS: Final = 64
"""Looked at for one question: what comes after them is a flood."""
_MOST_RECORDS: Final = 64
"""Of one message."""
_MOST_VALUES: Final = 4
"""Of one kind for one name: instances of a service, addresses of a host."""

A: Final = 1
PTR: Final = 12
TXT: Final = 16
AAAA: Final = 28
SRV: Final = 33
_IN: Final = 1
_UNICAST: Final = 0x8000
"""In a question's class: answer me alone (RFC 6762 5.4)."""
_RESPONSE: Final = 0x8000
_OPCODE_AND_RCODE: Final = 0x780F

Name: TypeAlias = tuple[bytes, ...]
"""The labels; letters are small."""


class Service(msgspec.Struct, frozen=True):
    """An SRV record's target (RFC 2782)."""

    host: str
    port: int


Value: TypeAlias = Name | Service | tuple[bytes, ...] | str
"""Of PTR, SRV, TXT, and A or AAAA."""


class Record(msgspec.Struct, frozen=True):
    name: Name
    kind: int
    value: Value


class LinkQuestion:
    """One question on one link, with what follows from its answers. Time is in seconds."""

    def __init__(
        self,
        ids: Ids,
        name: str,
        kind: int,
        networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network],
        now: float,
    ) -> None:
        """`networks`: what is on the link."""
        self._ident = ids.number(16)
        self._networks = networks
        self._first = (tuple(name.lower().encode().split(b".")), kind)
        self._found: dict[tuple[Name, int], list[Value]] = {}
        self._datagrams = 0
        self._next = now
        self._end = now + WITHIN
        self._over = False

    @property
    def deadline(self) -> float | None:
        """When to call `timer_fired`; None: it is over."""
        return None if self._over else min(self._next, self._end)

    @property
    def values(self) -> list[Value]:
        """What was asked for."""
        return self._found.get(self._first, [])

    @property
    def services(self) -> list[tuple[Service, tuple[bytes, ...]]]:
        """Where each instance of the service is, with its text."""
        found = []
        for instance in self.values:
            if isinstance(instance, tuple):
                for service in self._found.get((instance, SRV), [])[:1]:
                    texts = self._found.get((instance, TXT), [()])[0]
                    if isinstance(service, Service) and isinstance(texts, tuple):
                        found.append((service, texts))
        return found

    def timer_fired(self, now: float) -> list[bytes]:
        """What to send to the group."""
        if now >= self._end:
            self._over = True
        elif now >= self._next:
            return self._ask(now)
        return []

    def received(self, data: bytes, source: str, port: int, now: float) -> list[bytes]:
        """Take in what came from there; what to send to the group."""
        self._datagrams += 1
        self._over = self._over or self._datagrams >= _MOST_DATAGRAMS
        # RFC 6762 6 and 11: an answer comes from the port, and from the link.
        address = ipaddress.ip_address(source.partition("%")[0])
        on_link = any(address in network for network in self._networks)
        if port != PORT or not on_link or not self._takes(data):
            return []
        if self._missing():
            return self._ask(now)
        self._next = self._end = min(self._end, now + SETTLED)
        return []

    def _ask(self, now: float) -> list[bytes]:
        self._next = now + AGAIN
        return [format_question(self._ident, self._missing())]

    def _asked(self) -> list[tuple[Name, int]]:
        names = [name for name in self.values if isinstance(name, tuple)]
        return [self._first, *((name, kind) for name in names for kind in (SRV, TXT))]

    def _missing(self) -> list[tuple[Name, int]]:
        return [each for each in self._asked() if each not in self._found]

    def _takes(self, data: bytes) -> bool:
        """Whether there was anything new in it."""
        try:
            ident, records = parse_answer(data)
        except MalformedPacket:
            return False
        if ident != self._ident:  # RFC 6762 6.7
            return False
        new = False
        # Instances first: what is known of them stands behind them or before.
        for record in sorted(records, key=lambda record: record.kind != PTR):
            key = (record.name, record.kind)
            values = self._found.get(key, [])
            if key in self._asked() and record.value not in values and len(values) < _MOST_VALUES:
                self._found[key] = [*values, record.value]
                new = True
        return new


def format_question(ident: int, asked: list[tuple[Name, int]]) -> bytes:
    """A query for these, to be answered by unicast (RFC 6762 5.4)."""
    data = [struct.pack("!6H", ident, 0, len(asked), 0, 0, 0)]
    for name, kind in asked:
        data += [bytes((len(label),)) + label for label in name]
        data.append(b"\0" + struct.pack("!HH", kind, _IN | _UNICAST))
    return b"".join(data)


def parse_answer(data: bytes) -> tuple[int, list[Record]]:
    """(id, the records of all sections) of a response; kinds that are not used are left out.

    Raises MalformedPacket.
    """
    if len(data) > MAX_MESSAGE:
        raise MalformedPacket(f"a message of {len(data)} bytes, {MAX_MESSAGE} are allowed")
    try:
        ident, flags, questions, *counts = struct.unpack_from("!6H", data)
        if flags & _RESPONSE == 0 or flags & _OPCODE_AND_RCODE:
            raise MalformedPacket("no answer")  # RFC 6762 18.2, 18.3, 18.11
        if questions > _MOST_RECORDS or sum(counts) > _MOST_RECORDS:
            raise MalformedPacket(f"more than {_MOST_RECORDS} records")
        position = 12
        for _ in range(questions):
            position = parse_name(data, position)[1] + 4
        records = []
        for _ in range(sum(counts)):
            labels, position = parse_name(data, position)
            kind, _, _, length = struct.unpack_from("!HHIH", data, position)
            position += 10
            if position + length > len(data):
                raise MalformedPacket(f"byte {position}: {length} bytes announced")
            value = _value(data, kind, position, length)
            if value is not None:
                records.append(Record(_small(labels), kind, value))
            position += length
    except struct.error as fault:
        raise MalformedPacket(str(fault)) from None
    return ident, records


def _value(data: bytes, kind: int, position: int, length: int) -> Value | None:
    if kind == PTR:
        return _small(parse_name(data, position)[0])
    if kind == SRV and length > 6:
        (port,) = struct.unpack_from("!H", data, position + 4)
        labels, _ = parse_name(data, position + 6)
        return Service(host_name(labels, position + 6), port) if labels else None
    if kind == TXT:
        return _strings(data[position : position + length])
    if (kind, length) in ((A, 4), (AAAA, 16)):
        return str(ipaddress.ip_address(data[position : position + length]))
    return None


def _strings(data: bytes) -> tuple[bytes, ...]:
    found, position = [], 0
    while position < len(data):
        end = position + 1 + data[position]
        found.append(data[position + 1 : end])
        position = end
    return tuple(found)


def _small(labels: list[bytes]) -> Name:
    return tuple(label.lower() for label in labels)
