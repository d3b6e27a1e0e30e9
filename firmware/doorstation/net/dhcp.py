"""DHCP questions beside whatever client the system runs, which holds port 68 for itself.

Both questions and answers go by a packet socket: a datagram socket of ours would have to share the
client's port, and NetworkManager's, being connected, would get every answer. Needs CAP_NET_RAW.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from doorstation.dhcp.exchange import (
    Found,
    Inform,
    InformationRequest,
    NoAnswer,
    Output,
    Send,
)
from doorstation.dhcp.offered import Offered
from doorstation.errors import TransportError
from doorstation.ids import Ids

_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFADDR: Final = 0x8915
_SIOCGIFNETMASK: Final = 0x891B
_SIOCGIFHWADDR: Final = 0x8927
_ETHERNET: Final = 1  # ARPHRD_ETHER; wireless interfaces say so too
_UP_AND_RUNNING: Final = 0x41
_SO_ATTACH_FILTER: Final = 26
_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_UDP: Final = 17
_ALL_HOSTS: Final = b"\xff" * 6
_ALL_DHCP_AGENTS: Final = bytes.fromhex("333300010002")

_IP4: Final = struct.Struct("!BBHHHBBH4s4s")
_IP6: Final = struct.Struct("!IHBB16s16s")
_PORTS: Final = struct.Struct("!HHHH")


class Interface(msgspec.Struct, frozen=True):
    """An Ethernet or wireless interface that is up. `mac`: six bytes."""

    name: str
    mac: bytes
    address: str
    """Its IPv4 address, "" while it has none."""
    link_local: str
    """Its IPv6 link-local address, "" while it has none."""
    networks: tuple[str, ...] = ()
    """What is on its link, of both families."""


def interfaces() -> list[Interface]:
    """The interfaces that a DHCP server may be behind, in the system's order."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:

        def look(request: int, name: str) -> bytes:
            """The answer's second half: what was asked for."""
            return fcntl.ioctl(any_socket, request, struct.pack("256s", name.encode()))[16:]

        for _, name in socket.if_nameindex():
            try:
                (flags,) = struct.unpack_from("=H", look(_SIOCGIFFLAGS, name))
                kind, mac = struct.unpack_from("=H6s", look(_SIOCGIFHWADDR, name))
            except OSError:  # gone again
                continue
            if kind == _ETHERNET and flags & _UP_AND_RUNNING == _UP_AND_RUNNING:
                address, networks = "", []
                with contextlib.suppress(OSError):
                    address = socket.inet_ntoa(look(_SIOCGIFADDR, name)[4:8])
                    netmask = socket.inet_ntoa(look(_SIOCGIFNETMASK, name)[4:8])
                    networks.append(str(ipaddress.IPv4Interface(f"{address}/{netmask}").network))
                own = _addresses6(name)
                link_local = next((str(each.ip) for each in own if each.is_link_local), "")
                networks += [str(each.network) for each in own]
                found.append(Interface(name, mac, address, link_local, tuple(networks)))
    return found


def _addresses6(name: str) -> list[ipaddress.IPv6Interface]:
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            address, _, prefix, _, _, interface = line.split()
            if interface == name:
                ip = ipaddress.IPv6Address(bytes.fromhex(address))
                found.append(ipaddress.IPv6Interface((ip, int(prefix, 16))))
    return found


async def ask(interface: Interface, ids: Ids, heard: Callable[[Offered], None]) -> list[str]:
    """Ask by DHCPv4 and DHCPv6 at the same time; `heard` gets each answer as it comes.

    Returns what there was in place of answers. Raises TransportError when we may not ask: no
    CAP_NET_RAW.
    """
    loop = asyncio.get_running_loop()
    asked: list[_Asked] = []
    silences: list[str] = []
    try:
        if interface.address:
            inform = Inform(ids, interface.mac, interface.address, loop.time())
            asked.append(_Asked4(interface, inform))
        if interface.link_local:
            asked.append(_Asked6(interface, InformationRequest(ids, interface.mac, loop.time())))
        for one in asked:
            one.begin()
        for next_one in asyncio.as_completed([one.outcome for one in asked]):
            outcome = await next_one
            if isinstance(outcome, Found):
                heard(outcome.offered)
            else:
                silences.append(f"{interface.name}: {outcome.why}")
    finally:
        for one in asked:
            one.close()
    return silences


class _Asked:
    """One question on one interface, with its socket and its timer."""

    kind = ""
    """For people."""
    protocol = 0
    server_port = 0
    client_port = 0

    def __init__(self, interface: Interface, question: Inform | InformationRequest) -> None:
        """Raises TransportError."""
        self._interface = interface
        self._question = question
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.outcome: asyncio.Future[Found | NoAnswer] = self._loop.create_future()
        try:
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0
            )
        except PermissionError:
            raise TransportError("DHCP cannot be asked: it needs CAP_NET_RAW") from None
        _attach(self._socket, self._filter())
        # Bound after the filter is there: not a packet of a call's sound wakes us.
        self._socket.bind((interface.name, self.protocol))

    def begin(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._arm()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _arm(self) -> None:
        deadline = self._question.deadline
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._due)

    def _due(self) -> None:
        now = max(self._loop.time(), self._question.deadline or 0.0)
        self._carry_out(self._question.timer_fired(now))
        self._arm()

    def _readable(self) -> None:
        try:
            packet, _ = self._socket.recvfrom(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:  # the interface went down: asked again when it is back
            self._over(NoAnswer(f"{self.kind}: {error.strerror or error}"))
            return
        datagram = self._payload(packet)
        if datagram is not None:
            self._carry_out(self._question.received(*datagram))

    def _carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send(data):
                    # A link that is just going: the next repetition, or the time-out.
                    with contextlib.suppress(OSError):
                        self._send(data)
                case NoAnswer(why):
                    self._over(NoAnswer(f"{self.kind}: {why}"))
                case Found():
                    self._over(output)

    def _over(self, outcome: Found | NoAnswer) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def _send(self, data: bytes) -> None:
        raise NotImplementedError

    def _payload(self, packet: bytes) -> tuple[bytes, str] | None:
        """(the datagram, who sent it), None if it is not from a server to a client."""
        raise NotImplementedError

    def _filter(self) -> list[tuple[int, int, int, int]]:
        """Classic BPF: UDP from the server's port to the client's."""
        raise NotImplementedError


class _Asked4(_Asked):
    kind = "DHCPv4"
    protocol = _IPV4
    server_port = 67
    client_port = 68

    def _send(self, data: bytes) -> None:
        source = socket.inet_aton(self._interface.address)
        length = _IP4.size + _PORTS.size + len(data)
        head = _IP4.pack(0x45, 0, length, 0, 0, 64, _UDP, 0, source, b"\xff" * 4)
        head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
        # No checksum of its own: IPv4 allows that (RFC 768).
        ports = _PORTS.pack(self.client_port, self.server_port, _PORTS.size + len(data), 0)
        where = (self._interface.name, self.protocol, 0, 0, _ALL_HOSTS)
        self._socket.sendto(head + ports + data, where)

    def _payload(self, packet: bytes) -> tuple[bytes, str] | None:
        head = (packet[0] & 15) * 4 if packet else 0
        if len(packet) < head + _PORTS.size or head < _IP4.size or packet[9] != _UDP:
            return None
        source, _, length, _ = _PORTS.unpack_from(packet, head)
        if source != self.server_port or length < _PORTS.size:
            return None
        data = packet[head + _PORTS.size : head + length]
        return data, socket.inet_ntoa(packet[12:16])

    def _filter(self) -> list[tuple[int, int, int, int]]:
        return [
            (0x30, 0, 0, 9), (0x15, 0, 6, _UDP),  # protocol
            (0xB1, 0, 0, 0),  # length of the header into X
            (0x48, 0, 0, 0), (0x15, 0, 3, self.server_port),
            (0x48, 0, 0, 2), (0x15, 0, 1, self.client_port),
            (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0),
        ]  # fmt: skip


class _Asked6(_Asked):
    kind = "DHCPv6"
    protocol = _IPV6
    server_port = 547
    client_port = 546

    def _send(self, data: bytes) -> None:
        source = socket.inet_pton(socket.AF_INET6, self._interface.link_local)
        to = socket.inet_pton(socket.AF_INET6, "ff02::1:2")
        length = _PORTS.size + len(data)
        ports = _PORTS.pack(self.client_port, self.server_port, length, 0)
        pseudo = source + to + struct.pack("!II", length, _UDP)
        check = _checksum(pseudo + ports + data) or 0xFFFF
        head = _IP6.pack(6 << 28, length, _UDP, 1, source, to)
        where = (self._interface.name, self.protocol, 0, 0, _ALL_DHCP_AGENTS)
        self._socket.sendto(head + ports[:6] + struct.pack("!H", check) + data, where)

    def _payload(self, packet: bytes) -> tuple[bytes, str] | None:
        if len(packet) < _IP6.size + _PORTS.size or packet[6] != _UDP:
            return None
        source, _, length, _ = _PORTS.unpack_from(packet, _IP6.size)
        if source != self.server_port or length < _PORTS.size:
            return None
        data = packet[_IP6.size + _PORTS.size : _IP6.size + length]
        return data, socket.inet_ntop(socket.AF_INET6, packet[8:24])

    def _filter(self) -> list[tuple[int, int, int, int]]:
        return [
            (0x30, 0, 0, 6), (0x15, 0, 5, _UDP),  # next header
            (0x28, 0, 0, 40), (0x15, 0, 3, self.server_port),
            (0x28, 0, 0, 42), (0x15, 0, 1, self.client_port),
            (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0),
        ]  # fmt: skip


def _attach(link: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    kept = ctypes.create_string_buffer(code)
    link.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("@HP", len(program), ctypes.addressof(kept)),
    )


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
