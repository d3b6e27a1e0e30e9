"""What the pure SIP rooms and the sockets say to each other: flows, targets, DNS, outputs.

The shell (`net/`) gives every input with the time, carries the outputs out in order and re-arms
one timer. It answers each `OpenFlow` with `flow_opened` or `flow_failed`, and each `Resolve` with
`resolved`, sooner or later or never: the machines have time limits of their own.
"""

from enum import StrEnum
from ipaddress import ip_address
from typing import Literal, TypeAlias

import msgspec
from msgspec.structs import replace


class Transport(StrEnum):
    """What carries SIP, spelled as in Via."""

    UDP = "UDP"
    TCP = "TCP"
    TLS = "TLS"

    @property
    def reliable(self) -> bool:
        """True when the transport itself repeats what is lost."""
        return self is not Transport.UDP

    @property
    def default_port(self) -> int:
        """The port when a URI or a Via names none (RFC 3261 §19.1.2)."""
        return 5061 if self is Transport.TLS else 5060


class Target(msgspec.Struct, frozen=True):
    """One place to send to, the result of RFC 3263: `host` is an IP literal without brackets.

    `tls_name` is the domain that the certificate must prove (RFC 5922), empty without TLS.
    """

    transport: Transport
    host: str
    port: int
    tls_name: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport.lower()}:{host}:{self.port}"


class Flow(msgspec.Struct, frozen=True):
    """A way to one peer.

    Streams: `id` names the connection. UDP: `id` names the *socket*, and `id` and `remote` the
    way; the shell keeps no table of UDP flows and sends to whatever `remote` says. Ids are never
    used again. `local` is the address really used and the port really listened on, what Via and
    Contact should say; IPv6 addresses have no brackets, and a link-local `remote` its interface.
    """

    id: int
    transport: Transport
    local: tuple[str, int]
    remote: tuple[str, int]

    def towards(self, host: str, port: int) -> "Flow":
        """The same UDP socket with another far end."""
        return replace(self, remote=(host, port))


DnsKind: TypeAlias = Literal["NAPTR", "SRV", "A", "AAAA"]


class DnsQuery(msgspec.Struct, frozen=True):
    """One question; `name` in lower case without the final dot."""

    kind: DnsKind
    name: str


class NaptrRecord(msgspec.Struct, frozen=True):
    """RFC 3403, as far as RFC 3263 uses it: `service` "SIP+D2U", `flags` "s", a `replacement`."""

    order: int
    preference: int
    flags: str
    service: str
    regexp: str
    replacement: str


class SrvRecord(msgspec.Struct, frozen=True):
    """RFC 2782; the target "." (or "") says that there is no such service."""

    priority: int
    weight: int
    port: int
    target: str


class AddressRecord(msgspec.Struct, frozen=True):
    """The address of an A or AAAA record, as text."""

    address: str


DnsRecord: TypeAlias = NaptrRecord | SrvRecord | AddressRecord


class DnsAnswer(msgspec.Struct, frozen=True):
    """What the name server said; no records: the name or the type does not exist. `ttl` seconds."""

    records: tuple[DnsRecord, ...]
    ttl: float


class DnsFailure(msgspec.Struct, frozen=True):
    """No use of the name server: `temporary` for no answer or SERVFAIL, else the name is wrong."""

    reason: str
    temporary: bool


DnsResult: TypeAlias = DnsAnswer | DnsFailure


class Send(msgspec.Struct, frozen=True):
    """Put these bytes on the flow: one datagram, or a piece of the stream."""

    flow: Flow
    data: bytes


class OpenFlow(msgspec.Struct, frozen=True):
    """Connect (TCP, TLS) or choose the socket and the local address (UDP), then say which."""

    target: Target


class CloseFlow(msgspec.Struct, frozen=True):
    """Close the connection after what was sent on it; `why` goes to the log."""

    flow: Flow
    why: str


class Resolve(msgspec.Struct, frozen=True):
    """Ask the name server."""

    query: DnsQuery


Wire: TypeAlias = Send | OpenFlow | CloseFlow | Resolve


def stranger_of(host: str) -> str:
    """Who is counted as one: an IPv4 address, or the /64 that any IPv6 host has to itself."""
    if ":" not in host:
        return host
    try:
        return ip_address(host.partition("%")[0]).packed[:8].hex()
    except ValueError:
        return host
