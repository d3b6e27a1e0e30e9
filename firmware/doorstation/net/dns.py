"""Names: NAPTR, SRV, A and AAAA, asked off the loop and never for longer than a few seconds.

Four sources. /etc/hosts comes first for addresses, as people expect of a name they wrote there.
Names that the DNS knows nothing of, ".local" and single words, are the C library's, which blocks
and so gets a thread; those of the link are also asked there (mDNS, RFC 6762), which few systems'
libraries do. Everything else is asked of the name servers by c-ares, which runs a thread of its
own, follows CNAMEs and notices a changed resolv.conf.
"""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from doorstation.ids import SystemIds
from doorstation.net import mdns
from doorstation.sip.transport import (
    AddressRecord,
    DnsAnswer,
    DnsFailure,
    DnsQuery,
    DnsRecord,
    DnsResult,
    NaptrRecord,
    SrvRecord,
)

if TYPE_CHECKING:
    import aiodns
    import pycares

log = logging.getLogger(__name__)

HOSTS: Final = "/etc/hosts"

# What has no TTL: seconds until a line of /etc/hosts, an mDNS host (RFC 6762 §10) or the absence
# of a record is looked at again.
_HOSTS_TTL: Final = 60.0
_LOCAL_TTL: Final = 120.0
_NEGATIVE_TTL: Final = 60.0

# A block list in /etc/hosts can have a million lines; ours are at its beginning.
_LONGEST_HOSTS: Final = 1024 * 1024
# Threads in the C library at a time: it may take half a minute with a dead name server.
_MOST_THREADS: Final = 4

# Codes of c-ares (ares.h), which pycares has only since 5.
_NO_DATA: Final = 1
_NOT_FOUND: Final = 4
_BAD_NAME: Final = 8

_TYPES: Final = {"A": 1, "AAAA": 28, "SRV": 33, "NAPTR": 35}
_FAMILIES: Final = {"A": socket.AF_INET, "AAAA": socket.AF_INET6}


class Resolver:
    """Answers DnsQuery. `nameservers` ("192.0.2.1" or "192.0.2.1:5353"): instead of the system's.

    `within` is the most a question may take, in seconds.
    """

    def __init__(
        self, nameservers: Sequence[str] = (), *, within: float = 4.0, hosts: str = HOSTS
    ) -> None:
        self._nameservers = list(nameservers)
        self._within = within
        self._hosts = _HostsFile(hosts)
        self._resolver: aiodns.DNSResolver | None = None
        self._making: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._threads = threading.BoundedSemaphore(_MOST_THREADS)

    async def resolve(self, query: DnsQuery) -> DnsResult:
        """The answer; never raises, and never takes longer than `within`."""
        try:
            async with asyncio.timeout(self._within):
                return await self._resolve(query)
        except TimeoutError:
            reason = f"no answer about {query.name} ({query.kind}) in {self._within:g} seconds"
            return DnsFailure(reason, temporary=True)

    def network_changed(self) -> None:
        """End the questions under way and forget what c-ares remembers: another network may have
        other names, and answers from the old one will not come."""
        if self._resolver is not None:
            resolver, self._resolver = self._resolver, None
            task = asyncio.get_running_loop().create_task(resolver.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """End the questions under way. Closes twice harmlessly."""
        if self._making is not None:
            await asyncio.gather(self._making, return_exceptions=True)
        self.network_changed()
        await asyncio.gather(*self._closing)

    async def _resolve(self, query: DnsQuery) -> DnsResult:
        name = query.name.rstrip(".")
        family = _FAMILIES.get(query.kind)
        local = name == "local" or name.endswith(".local")
        if family is None:
            if local or name == "localhost" or name.endswith(".localhost"):
                # Such names must not be asked of name servers (RFC 6762 §22, RFC 6761 §6.3).
                return DnsAnswer((), _NEGATIVE_TTL)
            return await self._ask(query.kind, name)
        if name == "localhost" or name.endswith(".localhost"):
            loopback = "127.0.0.1" if family == socket.AF_INET else "::1"
            return DnsAnswer((AddressRecord(loopback),), _HOSTS_TTL)
        written = await self._hosts.addresses(name)
        if written:
            # Also when only the other family is written there: the line is the whole answer.
            return DnsAnswer(_of_family(written, family), _HOSTS_TTL)
        if mdns.on_link(name):
            return await self._ask_link(name, family)
        if local or "." not in name:
            return await self._ask_library(name, family)
        return await self._ask(query.kind, name)

    async def _ask(self, kind: str, name: str) -> DnsResult:
        if self._resolver is None:
            if self._making is None:
                self._making = asyncio.get_running_loop().create_task(self._make())
            await asyncio.shield(self._making)
        resolver = self._resolver
        if resolver is None:
            return DnsFailure("the name service is being restarted", temporary=True)
        try:
            result = await resolver.query_dns(name, kind)
        except (UnicodeError, RuntimeError) as fault:
            # RuntimeError: pycares, of a label beyond 253 characters that are not all ASCII.
            return DnsFailure(f"{name} is no domain name: {fault}", temporary=False)
        except self._error as fault:
            code = fault.args[0] if fault.args else None
            if code in (_NO_DATA, _NOT_FOUND):
                return DnsAnswer((), _NEGATIVE_TTL)
            reason = f"{name} ({kind}): {fault.args[-1] if fault.args else fault}"
            return DnsFailure(reason, temporary=code != _BAD_NAME)
        return _answer(kind, result)

    async def _make(self) -> None:
        """Load aiodns, some 25 ms on a large machine and far more on a small one, beside the loop;
        most stations with numeric addresses never do."""
        module = await asyncio.to_thread(_load)
        self._error = module.error.DNSError
        # The second try waits twice as long: both fit in.
        self._resolver = module.DNSResolver(
            nameservers=self._nameservers or None, timeout=self._within / 3, tries=2
        )
        self._making = None

    async def _ask_link(self, name: str, family: socket.AddressFamily) -> DnsResult:
        """By multicast and of the C library at the same time: whoever knows it first."""
        library = asyncio.create_task(self._ask_library(name, family))
        link = asyncio.create_task(_on_link(name, family))
        try:
            for next_one in asyncio.as_completed((library, link)):
                found = await next_one
                if isinstance(found, DnsAnswer) and found.records:
                    return found
            return library.result()
        finally:
            library.cancel()
            link.cancel()
            await asyncio.wait((library, link))

    async def _ask_library(self, name: str, family: socket.AddressFamily) -> DnsResult:
        """By getaddrinfo, in a thread that nobody waits for: it cannot be interrupted, and the
        executor's threads would hold up the end of the service."""
        if not self._threads.acquire(blocking=False):
            return DnsFailure(f"too many names are being looked up for {name}", temporary=True)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[DnsResult] = loop.create_future()

        def settle(result: DnsResult) -> None:
            if not future.done():
                future.set_result(result)

        def run() -> None:
            try:
                result = _library(name, family)
            finally:
                self._threads.release()
            try:
                loop.call_soon_threadsafe(settle, result)
            except RuntimeError:
                log.debug("the answer about %s came after the end", name)

        threading.Thread(target=run, name=f"look up {name}", daemon=True).start()
        return await future


async def _on_link(name: str, family: socket.AddressFamily) -> DnsResult:
    found = await mdns.addresses(SystemIds(), name)
    return DnsAnswer(_of_family(found, family), _LOCAL_TTL)


def _load() -> ModuleType:
    import aiodns

    return aiodns


def _answer(kind: str, result: "pycares.DNSResult") -> DnsAnswer:
    """The records of the asked kind; CNAMEs on the way count for the TTL."""
    records: list[DnsRecord] = []
    ttl = float("inf")
    for each in result.answer:
        ttl = min(ttl, float(each.ttl))
        if each.type == _TYPES[kind]:
            records.append(_record(kind, each.data))
    return DnsAnswer(tuple(records), ttl if records else _NEGATIVE_TTL)


def _record(kind: str, data: Any) -> DnsRecord:
    match kind:
        case "SRV":
            return SrvRecord(data.priority, data.weight, data.port, _text(data.target))
        case "NAPTR":
            return NaptrRecord(
                data.order,
                data.preference,
                _text(data.flags),
                _text(data.service),
                _text(data.regexp),
                _text(data.replacement),
            )
        case _:
            return AddressRecord(_text(data.addr))


def _text(value: str | bytes) -> str:
    # pycares hands bytes out where a zone has other than ASCII in it.
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _library(name: str, family: socket.AddressFamily) -> DnsResult:
    try:
        found = socket.getaddrinfo(name, None, family, socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as fault:
        if isinstance(fault, socket.gaierror) and fault.errno in _UNKNOWN:
            return DnsAnswer((), _NEGATIVE_TTL)
        temporary = not isinstance(fault, UnicodeError)
        return DnsFailure(f"{name}: {getattr(fault, 'strerror', None) or fault}", temporary)
    addresses = dict.fromkeys(_scoped(each[4]) for each in found)
    return DnsAnswer(tuple(AddressRecord(address) for address in addresses), _LOCAL_TTL)


_UNKNOWN: Final = (socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY)


def _scoped(address: tuple[object, ...]) -> str:
    """mDNS finds link-local addresses, which are good for nothing without their interface."""
    host = str(address[0])
    if len(address) == 4 and address[3] and "%" not in host:
        return f"{host}%{address[3]}"
    return host


class _HostsFile:
    """/etc/hosts, read again when it changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._names: dict[str, tuple[str, ...]] = {}

    async def addresses(self, name: str) -> tuple[str, ...]:
        try:
            status = os.stat(self._path)
        except OSError:
            return ()
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            self._names = await asyncio.to_thread(self._read)
            self._stamp = stamp
        return self._names.get(name.lower(), ())

    def _read(self) -> dict[str, tuple[str, ...]]:
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                return hosts_of(file.read(_LONGEST_HOSTS).splitlines())
        except OSError as fault:
            log.warning("%s cannot be read: %s", self._path, fault.strerror)
            return {}


def hosts_of(lines: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The addresses of each name in a hosts file (hosts(5)), names in lower case."""
    names: dict[str, tuple[str, ...]] = {}
    for line in lines:
        address, *aliases = line.partition("#")[0].split() or [""]
        if not _of_family([address], socket.AF_INET) and not _of_family([address], socket.AF_INET6):
            continue
        for alias in aliases:
            known = names.get(alias.lower(), ())
            if address not in known:
                names[alias.lower()] = (*known, address)
    return names


def _of_family(addresses: Iterable[str], family: socket.AddressFamily) -> tuple[AddressRecord, ...]:
    found = []
    for address in addresses:
        try:
            socket.inet_pton(family, address.partition("%")[0])
        except OSError:
            continue
        found.append(AddressRecord(address))
    return tuple(found)
