"""Asking the network for its options beside whatever DHCP client the system runs.

`Inform` is DHCPv4's DHCPINFORM (RFC 2131 4.4.3), `InformationRequest` DHCPv6's (RFC 8415 18.2.6).
Both send, repeat, and end in `Found` or in `NoAnswer`; the owner sends the bytes and hands over
whatever arrives.
"""

import ipaddress
import struct
from typing import Final

import msgspec

from doorstation.dhcp import offered
from doorstation.dhcp.offered import Offered
from doorstation.dhcp.options import Options, format_option, parse_options, parse_options6
from doorstation.ids import Ids

PATIENCE: Final = 5.0
"""Seconds for all attempts: each step of the discovery has as many."""

MAX_PACKET: Final = 4096
"""Bytes of an answer that are looked at; larger ones are no DHCP server's."""


class Send(msgspec.Struct, frozen=True):
    """To every server: 255.255.255.255 port 67, or ff02::1:2 port 547."""

    data: bytes


class Found(msgspec.Struct, frozen=True):
    offered: Offered


class NoAnswer(msgspec.Struct, frozen=True):
    why: str


Output = Send | Found | NoAnswer


class _Question:
    """Sent at once, again after 1, 2 and 4 s with a little chance, given up after `PATIENCE`.

    An answer that holds nothing for a door may be the wrong server's: it counts when no better one
    has come in time.
    """

    def __init__(self, ids: Ids, now: float, delay: float) -> None:
        self._ids = ids
        self._interval = 1.0
        self._next: float | None = now + delay
        self._give_up = now + PATIENCE
        self._poor: Offered | None = None
        self.over = False

    @property
    def deadline(self) -> float | None:
        if self.over:
            return None
        return self._give_up if self._next is None else min(self._next, self._give_up)

    def timer_fired(self, now: float) -> list[Output]:
        if self.over:
            return []
        if now >= self._give_up:
            self.over = True
            if self._poor is not None:
                return [Found(self._poor)]
            return [NoAnswer(f"no answer within {PATIENCE:g} s")]
        if self._next is None or now < self._next:
            return []
        self._next = now + self._interval * (0.9 + 0.2 * self._ids.fraction())
        self._interval *= 2
        return [Send(self._packet(now))]

    def received(self, data: bytes, source: str) -> list[Output]:
        """An answer's bytes from a server's address; what is not ours is ignored."""
        if self.over or len(data) > MAX_PACKET:
            return []
        answer = self._read(data, source)
        if answer is None:
            return []
        if not answer.useful:
            self._poor = self._poor or answer
            return []
        self.over = True
        return [Found(answer)]

    def _packet(self, now: float) -> bytes:
        raise NotImplementedError

    def _read(self, data: bytes, source: str) -> Offered | None:
        raise NotImplementedError


_FIXED: Final = struct.Struct("!BBBBIHH4s4s4s4s16s64s128sI")
_REQUEST: Final = 1
_REPLY: Final = 2
_COOKIE: Final = 0x63825363
_DHCPINFORM: Final = 8
_DHCPACK: Final = 5
_MESSAGE_TYPE: Final = 53
_PARAMETERS: Final = 55
_MAX_SIZE: Final = 57
_VENDOR_CLASS: Final = 60
_CLIENT_ID: Final = 61
_OVERLOAD: Final = 52
_SHORTEST: Final = 300
"""Bytes: what some relays of BOOTP days ask for (RFC 1542 2.1)."""


class Inform(_Question):
    """Ask with the address that the system already has. `mac`: six bytes."""

    def __init__(self, ids: Ids, mac: bytes, address: str, now: float) -> None:
        super().__init__(ids, now, delay=0.0)
        self._mac = mac
        self._address = ipaddress.IPv4Address(address).packed
        self._transaction = ids.number(32)

    def _packet(self, now: float) -> bytes:
        fixed = _FIXED.pack(
            _REQUEST, 1, 6, 0, self._transaction, 0, 0,
            self._address, b"", b"", b"", self._mac, b"", b"", _COOKIE,
        )  # fmt: skip
        wishes = b"".join(
            format_option(code, value)
            for code, value in (
                (_MESSAGE_TYPE, bytes((_DHCPINFORM,))),
                (_CLIENT_ID, b"\x01" + self._mac),
                (_VENDOR_CLASS, b"doorstation"),
                (_MAX_SIZE, struct.pack("!H", 1400)),
                (_PARAMETERS, bytes(offered.WANTED)),
            )
        )
        return (fixed + wishes + b"\xff").ljust(_SHORTEST, b"\0")

    def _read(self, data: bytes, source: str) -> Offered | None:
        if len(data) < _FIXED.size:
            return None
        head = _FIXED.unpack_from(data)
        kind, transaction, hardware, cookie = head[0], head[4], head[11], head[14]
        if (kind, transaction, cookie) != (_REPLY, self._transaction, _COOKIE):
            return None
        if hardware[:6] != self._mac:
            return None
        found, faults = _all_options(data, server_name=head[12], file=head[13])
        if found.get(_MESSAGE_TYPE) != bytes((_DHCPACK,)):
            return None
        return offered.offered_v4(source, found, faults)


def _all_options(data: bytes, server_name: bytes, file: bytes) -> tuple[Options, list[str]]:
    """Options, those that overflowed into the fixed fields too (RFC 2132 9.3, RFC 3396 5)."""
    found, faults = parse_options(data[_FIXED.size :])
    overload = found.get(_OVERLOAD, b"\0")[:1]
    for where, flags in ((file, b"\1\3"), (server_name, b"\2\3")):
        if overload and overload in flags:
            more, more_faults = parse_options(where)
            faults += more_faults
            for code, value in more.items():
                found[code] = found.get(code, b"") + value
    return found, faults


_INFORMATION_REQUEST: Final = 11
_REPLY_6: Final = 7
_CLIENT_ID_6: Final = 1
_SERVER_ID_6: Final = 2
_OPTION_REQUEST_6: Final = 6
_ELAPSED_6: Final = 8


class InformationRequest(_Question):
    """Ask without any address. `mac` makes the client's DUID-LL (RFC 8415 11.4).

    The first one waits up to a second, as RFC 8415 18.2.6 asks: all doors of a house may wake at
    the same time.
    """

    def __init__(self, ids: Ids, mac: bytes, now: float) -> None:
        super().__init__(ids, now, delay=ids.fraction())
        self._mac = mac
        self._transaction = ids.number(24)
        self._first: float | None = None

    def _packet(self, now: float) -> bytes:
        if self._first is None:
            self._first = now
        elapsed = min(0xFFFF, round((now - self._first) * 100))
        wanted = struct.pack(f"!{len(offered.WANTED_6)}H", *offered.WANTED_6)
        head = struct.pack("!I", _INFORMATION_REQUEST << 24 | self._transaction)
        return head + b"".join(
            struct.pack("!HH", code, len(value)) + value
            for code, value in (
                (_CLIENT_ID_6, self._duid),
                (_ELAPSED_6, struct.pack("!H", elapsed)),
                (_OPTION_REQUEST_6, wanted),
            )
        )

    @property
    def _duid(self) -> bytes:
        return struct.pack("!HH", 3, 1) + self._mac

    def _read(self, data: bytes, source: str) -> Offered | None:
        if len(data) < 4 or data[:4] != struct.pack("!I", _REPLY_6 << 24 | self._transaction):
            return None
        found, faults = parse_options6(data[4:])
        # RFC 8415 16.10: a reply without a server's name, or for another client, is dropped.
        if _SERVER_ID_6 not in found or found.get(_CLIENT_ID_6, self._duid) != self._duid:
            return None
        return offered.offered_v6(source, found, faults)
