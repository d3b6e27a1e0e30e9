"""Network changes as the kernel reports them (rtnetlink): addresses, links, default routes.

Most reports change nothing: every router advertisement renews the lifetime of each IPv6 address,
and a wireless link talks about itself all the time. So what is known is kept, and only a
difference counts. One descriptor on the loop, no polling.
"""

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

_RTMGRP_LINK: Final = 0x1
_RTMGRP_IPV4_IFADDR: Final = 0x10
_RTMGRP_IPV4_ROUTE: Final = 0x40
_RTMGRP_IPV6_IFADDR: Final = 0x100
_RTMGRP_IPV6_ROUTE: Final = 0x400

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_RTM_NEWLINK: Final = 16
_RTM_DELLINK: Final = 17
_RTM_GETLINK: Final = 18
_RTM_NEWADDR: Final = 20
_RTM_DELADDR: Final = 21
_RTM_GETADDR: Final = 22
_RTM_NEWROUTE: Final = 24
_RTM_DELROUTE: Final = 25
_RTM_GETROUTE: Final = 26

_NLM_F_REQUEST: Final = 0x1
_NLM_F_MULTI: Final = 0x2
_NLM_F_DUMP: Final = 0x300

_IFF_UP: Final = 0x1
_IFF_RUNNING: Final = 0x40
_IFA_F_TENTATIVE: Final = 0x40
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFA_FLAGS: Final = 8
_RTA_OIF: Final = 4
_RTA_GATEWAY: Final = 5
_RT_TABLE_MAIN: Final = 254
_RT_SCOPE_LINK: Final = 253

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")
_ADDRESS: Final = struct.Struct("=BBBBI")  # family, prefix, flags, scope, index
_LINK: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, ...

_Fact: TypeAlias = tuple[object, ...]


class NetworkWatch:
    """Calls `changed` on the running loop, once per burst, `settle` seconds after its first."""

    def __init__(self, changed: Callable[[], None], *, settle: float = 0.3) -> None:
        self._changed = changed
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        self._facts: set[_Fact] = set()
        # What is asked once at the start, one after the other: the kernel takes one dump at a time.
        self._dumps: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind(
            (
                0,
                _RTMGRP_LINK
                | _RTMGRP_IPV4_IFADDR
                | _RTMGRP_IPV6_IFADDR
                | _RTMGRP_IPV4_ROUTE
                | _RTMGRP_IPV6_ROUTE,
            )
        )
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._learn()

    def close(self) -> None:
        """Stop. Closes twice harmlessly."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _learn(self) -> None:
        self._dumps = [_RTM_GETROUTE, _RTM_GETADDR, _RTM_GETLINK]
        self._ask()

    def _ask(self) -> None:
        body = bytes(16)  # AF_UNSPEC and no filter, large enough for each of the three
        self._socket.send(
            _HEADER.pack(
                _HEADER.size + len(body), self._dumps[-1], _NLM_F_REQUEST | _NLM_F_DUMP, 0, 0
            )
            + body
        )

    def _readable(self) -> None:
        try:
            data = self._socket.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as fault:
            if fault.errno != errno.ENOBUFS:
                raise
            # Reports were lost in a burst: something has changed, and what is known is worth
            # nothing.
            self._facts.clear()
            self._report()
            if not self._dumps:
                self._learn()
            return
        for kind, flags, body in _messages(data):
            if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                if self._dumps:
                    self._dumps.pop()
                if self._dumps:
                    self._ask()
            elif self._learned(kind, body) and not flags & _NLM_F_MULTI:
                self._report()  # not a part of what was asked for

    def _learned(self, kind: int, body: bytes) -> bool:
        """Take one report in; True when it is news."""
        new, fact = fact_of(kind, body)
        if fact is None or (fact in self._facts) == new:
            return False
        if new:
            self._facts.add(fact)
        else:
            self._facts.discard(fact)
        return True

    def _report(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._settle, self._settled)

    def _settled(self) -> None:
        self._timer = None
        self._changed()


def fact_of(kind: int, body: bytes) -> tuple[bool, _Fact | None]:
    """What a report says, as (it holds, the fact); no fact when it does not matter to us."""
    if kind in (_RTM_NEWADDR, _RTM_DELADDR) and len(body) >= _ADDRESS.size:
        family, _, flags, scope, index = _ADDRESS.unpack_from(body)
        if family == socket.AF_INET6 and scope == _RT_SCOPE_LINK:
            # fe80::… comes a second after its link, of whatever kind. Nobody is reached in another
            # way by it, but every call would be told to move to where it is.
            return False, None
        found = dict(_attributes(body[_ADDRESS.size :]))
        if _IFA_FLAGS in found and len(found[_IFA_FLAGS]) == 4:
            flags = struct.unpack("=I", found[_IFA_FLAGS])[0]
        address = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS, b""))
        # A tentative IPv6 address cannot be sent from yet; it is reported again when it can.
        holds = kind == _RTM_NEWADDR and not flags & _IFA_F_TENTATIVE
        return holds, ("address", family, index, address)
    if kind in (_RTM_NEWLINK, _RTM_DELLINK) and len(body) >= _LINK.size:
        _, _, index, flags, _ = _LINK.unpack_from(body)
        running = flags & (_IFF_UP | _IFF_RUNNING) == _IFF_UP | _IFF_RUNNING
        return kind == _RTM_NEWLINK and running, ("link", index)
    if kind in (_RTM_NEWROUTE, _RTM_DELROUTE) and len(body) >= _ROUTE.size:
        family, dst_length, _, _, table, *_ = _ROUTE.unpack_from(body)
        if dst_length or table != _RT_TABLE_MAIN:
            return False, None
        found = dict(_attributes(body[_ROUTE.size :]))
        where = (found.get(_RTA_OIF, b""), found.get(_RTA_GATEWAY, b""))
        return kind == _RTM_NEWROUTE, ("default", family, *where)
    return False, None


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and body of each message in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
