"""The sockets of one call's media: an even port for RTP, the next for RTCP."""

import contextlib
import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Final

from doorstation.errors import TransportError
from doorstation.ids import Ids

_DSCP_EF: Final = 46 << 2

# Linux's receive time of a datagram (SO_TIMESTAMPNS_NEW), which Python's socket does not name: the
# thread reads the socket once per period, and jitter is to be that of the line.
_SO_TIMESTAMPNS: Final = 64
_TIMESPEC: Final = struct.Struct("=qq")
ANCILLARY: Final = socket.CMSG_SPACE(_TIMESPEC.size)

_IP_PKTINFO: Final = 8  # which Python's socket does not name either

_IN_USE: Final = (98, 13)  # EADDRINUSE, EACCES: the next port may do

_Pair = tuple[socket.socket, socket.socket]


class Sockets:
    """An RTP socket on an even port and an RTCP socket on the next, once for each IP family.

    Which family a call needs shows when its offer is written or read, long after the port number
    was wanted: so both are there, on one number, and `use` says which.
    """

    def __init__(self, address: str, pairs: Sequence[_Pair]) -> None:
        self.address = address
        self.rtp, self.rtcp = pairs[0]
        self.rtp_port: int = self.rtp.getsockname()[1]
        self._pairs = {pair[0].family == socket.AF_INET6: pair for pair in pairs}
        self.ipv6 = self.rtp.family == socket.AF_INET6
        for ipv6, pair in self._pairs.items():
            for one in pair:
                one.setblocking(False)
                with contextlib.suppress(OSError):  # marking is a wish; some containers refuse it
                    if ipv6:
                        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _DSCP_EF)
                    else:
                        one.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _DSCP_EF)
                with contextlib.suppress(OSError):  # kernels before 5.1: the tick's time serves
                    one.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def use(self, remote: str) -> None:
        """Speak with an address: by the sockets of its family, where there are any."""
        ipv6 = ":" in remote
        if ipv6 in self._pairs:
            self.ipv6 = ipv6
            self.rtp, self.rtcp = self._pairs[ipv6]

    def close(self) -> None:
        for pair in self._pairs.values():
            _close(pair)


def bind_pair(address: str, ports: tuple[int, int], ids: Ids) -> Sockets:
    """Sockets on a free even port of the range and the next. Raises TransportError for none."""
    first = ports[0] + (ports[0] & 1)
    pairs = (ports[1] - first + 1) // 2
    if pairs <= 0:
        raise TransportError(f"media ports {ports[0]} to {ports[1]}: no even port and the next")
    # Begin anywhere, so that the next call's port cannot be foretold.
    begin = ids.number(16) % pairs
    why = ""
    for i in range(pairs):
        port = first + 2 * ((begin + i) % pairs)
        try:
            return Sockets(address, _bind(address, port))
        except OSError as error:
            why = error.strerror or str(error)
            if error.errno not in _IN_USE:
                break
    raise TransportError(f"no media port pair on {address} in {ports[0]} to {ports[1]}: {why}")


def _bind(address: str, port: int) -> list[_Pair]:
    """Sockets on `port` and the next; "::" is every address of both families. Raises OSError."""
    if address != "::":
        ip = ipaddress.ip_address(address.partition("%")[0])
        return [_bind_one(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, address, port)]
    pair = _bind_one(socket.AF_INET, "0.0.0.0", port)  # noqa: S104 - phones are outside
    try:
        return [pair, _bind_one(socket.AF_INET6, address, port)]
    except OSError as error:
        if error.errno in _IN_USE:
            _close(pair)
            raise
        return [pair]  # IPv6 is switched off here


def _bind_one(family: int, address: str, port: int) -> _Pair:
    pair = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
    try:
        for one, number in zip(pair, (port, port + 1), strict=True):
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address, number))
    except OSError:
        _close(pair)
        raise
    return pair


def _close(pair: _Pair) -> None:
    for one in pair:
        one.close()


def sender(one: socket.socket, source: str) -> Callable[..., int]:
    """What sends (data, sockaddr) by this socket, from `source`, a local address of its family.

    As the kernel chooses, and at less cost, where that is "" or of the other family.
    """
    ipv6 = one.family == socket.AF_INET6
    if not source or (":" in source) is not ipv6:
        return one.sendto
    address = ipaddress.ip_address(source).packed
    said = (
        (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("=16sI", address, 0))
        if ipv6
        else (socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=I4s4s", 0, address, bytes(4)))
    )
    return lambda data, to: one.sendmsg((data,), (said,), 0, to)


def age_of(ancillary: list[tuple[int, int, bytes]]) -> float:
    """Seconds since the datagram arrived; -1.0 when the kernel does not say."""
    if not ancillary:
        return -1.0
    seconds: int
    nanoseconds: int
    seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
    return time.time() - seconds - nanoseconds * 1e-9
