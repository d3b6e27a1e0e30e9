"""Where to send a request: RFC 3263 as a machine that asks for DNS records and is given answers.

A search is a generator: it yields the questions it needs next and is resumed with the results, so
the steps read in the order of the RFC (§4.1 transport, §4.2 address and port) and nothing here
waits. `Locator` runs the searches, keeps the answers for their TTL and remembers which targets
failed lately, so that the next request begins with one that works.

Two choices the RFC leaves open. IPv4 addresses come before IPv6 ones: a home network with broken
IPv6 would cost every UDP request 32 s, the other way round fails at once. Of NAPTR records only
the lowest usable order counts (RFC 3403): who blocks TLS must not get the request in clear.
"""

from collections.abc import Generator, Iterable, Sequence
from typing import Final, TypeAlias, TypeVar

import msgspec

from doorstation.ids import Ids
from doorstation.sip.grammar import MalformedMessage
from doorstation.sip.transport import (
    AddressRecord,
    DnsAnswer,
    DnsFailure,
    DnsKind,
    DnsQuery,
    DnsResult,
    NaptrRecord,
    SrvRecord,
    Target,
    Transport,
)
from doorstation.sip.uri import SipUri, parse_host

MAX_TARGETS: Final = 8  # a zone with a thousand records would keep one request busy for a day
MAX_RECORDS: Final = 16  # the same, counted in further queries
MAX_CACHED: Final = 256  # a stranger who makes us look up ever new names (Contact, Record-Route)
MAX_FAILED: Final = 64  # the same, with names that lead to dead addresses

MAX_TTL: Final = 86_400.0
MAX_NEGATIVE_TTL: Final = 300.0  # a slip in a zone must not silence a door for a day
FAULT_SECONDS: Final = 30.0  # how long not to ask again after the name server failed (RFC 8767)
FAILED_SECONDS: Final = 120.0  # how long a target that failed is tried last

_PARAMETER: Final = {"udp": Transport.UDP, "tcp": Transport.TCP, "tls": Transport.TLS}
_NAPTR_SERVICE: Final = {
    "SIP+D2U": Transport.UDP,
    "SIP+D2T": Transport.TCP,
    "SIPS+D2T": Transport.TLS,
}
_SRV_PREFIX: Final = {
    Transport.UDP: "_sip._udp.",
    Transport.TCP: "_sip._tcp.",
    Transport.TLS: "_sips._tcp.",
}


class Located(msgspec.Struct, frozen=True):
    """The targets in the order to try; none: `fault` says why."""

    targets: tuple[Target, ...]
    fault: str = ""


class Progress(msgspec.Struct):
    """What an input brought: searches that ended, by key, and questions to ask now."""

    found: list[tuple[int, Located]] = msgspec.field(default_factory=list)
    queries: list[DnsQuery] = msgspec.field(default_factory=list)


class _Service(msgspec.Struct, frozen=True):
    """A server by name: what is left of a URI after transport selection."""

    transport: Transport
    host: str
    port: int


_Record = TypeVar("_Record", NaptrRecord, SrvRecord, AddressRecord)
_Answers: TypeAlias = dict[DnsQuery, DnsResult]
_Steps: TypeAlias = Generator[list[DnsQuery], _Answers, Located]


class _Search(msgspec.Struct):
    steps: _Steps
    wanted: list[DnsQuery] = msgspec.field(default_factory=list)
    answers: _Answers = msgspec.field(default_factory=dict)


class Locator:
    """Runs RFC 3263 searches; one per door, so that all requests share what was learnt."""

    def __init__(self, ids: Ids, transports: Sequence[Transport], *, ipv6: bool = True) -> None:
        """`transports`: those configured, the preferred first."""
        self._ids = ids
        self._transports = tuple(transports)
        self._kinds: tuple[DnsKind, ...] = ("A", "AAAA") if ipv6 else ("A",)
        self._ipv6 = ipv6
        self._searches: dict[int, _Search] = {}
        self._asked: dict[DnsQuery, list[int]] = {}
        self._cache: dict[DnsQuery, tuple[DnsAnswer, float]] = {}
        self._failed: dict[Target, float] = {}

    @property
    def searching(self) -> int:
        """How many searches wait for an answer."""
        return len(self._searches)

    def locate(self, key: int, uri: SipUri, now: float, *, large: bool = False) -> Progress:
        """Begin the search `key`, which may end at once.

        `large`: the request is above the UDP limit, so streams come first (RFC 3261 §18.1.1).
        """
        progress = Progress()
        search = _Search(self._steps(uri, now, large))
        self._searches[key] = search
        self._resume(key, search, now, progress)
        return progress

    def forget(self, key: int) -> None:
        """Drop a search; its questions, once answered, still fill the cache."""
        self._searches.pop(key, None)

    def resolved(self, query: DnsQuery, result: DnsResult, now: float) -> Progress:
        """Take an answer, also a late or unasked one."""
        progress = Progress()
        result = self._remember(query, result, now)
        for key in self._asked.pop(query, ()):
            search = self._searches.get(key)
            if search is not None and query in search.wanted:
                search.answers[query] = result
                if len(search.answers) == len(search.wanted):
                    self._resume(key, search, now, progress)
        return progress

    def target_failed(self, target: Target, now: float, seconds: float = FAILED_SECONDS) -> None:
        """Try this target after all others for some seconds (a 503 may say how many)."""
        self._failed.pop(target, None)
        self._failed[target] = now + seconds
        if len(self._failed) > MAX_FAILED:
            del self._failed[next(iter(self._failed))]

    def failed_lately(self, target: Target, now: float) -> bool:
        """Whether it is one to be tried after all others."""
        return self._failed_until(target, now) > now

    def target_worked(self, target: Target) -> None:
        """Forget that it failed."""
        self._failed.pop(target, None)

    # The run of one search

    def _resume(self, key: int, search: _Search, now: float, progress: Progress) -> None:
        """Go on until the search ends or needs something that is not in the cache."""
        try:
            while len(search.answers) == len(search.wanted):
                if search.wanted:
                    search.wanted = search.steps.send(search.answers)
                else:
                    search.wanted = next(search.steps)
                search.answers = {}
                for query in search.wanted:
                    known = self._known(query, now)
                    if known is not None:
                        search.answers[query] = known
                    elif query in self._asked:
                        self._asked[query].append(key)
                    else:
                        self._asked[query] = [key]
                        progress.queries.append(query)
        except StopIteration as end:
            del self._searches[key]
            located: Located = end.value
            progress.found.append((key, located))

    def _known(self, query: DnsQuery, now: float) -> DnsAnswer | None:
        entry = self._cache.get(query)
        return entry[0] if entry is not None and now < entry[1] else None

    def _remember(self, query: DnsQuery, result: DnsResult, now: float) -> DnsResult:
        """Cache an answer; a failure is replaced by the last good answer or by "no records"."""
        if isinstance(result, DnsAnswer):
            limit = MAX_TTL if result.records else MAX_NEGATIVE_TTL
            self._store(query, result, now + min(result.ttl, limit))
            return result
        entry = self._cache.get(query)
        if result.temporary and entry is not None and entry[0].records:
            self._store(query, entry[0], now + FAULT_SECONDS)
            return entry[0]
        if not result.temporary or query.kind in {"NAPTR", "SRV"}:
            # Many home routers leave NAPTR and SRV unanswered: that reads as "none", for a while.
            self._store(query, DnsAnswer((), FAULT_SECONDS), now + FAULT_SECONDS)
        return result

    def _store(self, query: DnsQuery, answer: DnsAnswer, until: float) -> None:
        self._cache.pop(query, None)
        self._cache[query] = (answer, until)
        if len(self._cache) > MAX_CACHED:
            del self._cache[next(iter(self._cache))]

    # The steps of RFC 3263

    def _steps(self, uri: SipUri, now: float, large: bool) -> _Steps:
        """§4: transport, then port and address."""
        parameter = uri.param("transport")
        usable = self._usable(uri, parameter)
        if not usable:
            wanted = f"transport={parameter}" if parameter else uri.scheme
            return Located((), f"{wanted} is not among the transports in use")
        host = uri.host
        if maddr := uri.param("maddr"):
            # Any text at all, from whoever wrote the Contact: only a host may reach the sockets and
            # the name servers.
            address = maddr.strip("[]")
            try:
                host = parse_host(f"[{address}]" if ":" in address else address)
            except MalformedMessage:
                return Located((), "maddr is no host")
        host = host.lower().removesuffix(".").strip("[]")
        plain = Transport.UDP if Transport.UDP in usable else usable[0]
        services: list[_Service] = []
        guessed = True
        if uri.port is None and not is_address(host):
            if large and usable == (Transport.UDP,) and Transport.TCP in self._transports:
                usable = (Transport.UDP, Transport.TCP)
            if parameter is None:
                services = yield from self._by_naptr(host, usable, large)
            if not services:
                found = yield from self._by_srv(
                    [(transport, _SRV_PREFIX[transport] + host) for transport in usable]
                )
                if found is not None:
                    services = found
                    if not services:
                        return Located((), f"{host} says that it has no SIP service")
            guessed = not services
        if guessed:
            services = [_Service(plain, host, uri.port or plain.default_port)]
        if large:
            services = self._streams_first(services, guessed)
        return (yield from self._addresses(services, uri.host, now))

    def _usable(self, uri: SipUri, parameter: str | None) -> tuple[Transport, ...]:
        """The configured transports that the URI allows."""
        secure = uri.scheme == "sips"
        if parameter is None:
            allowed = {Transport.TLS} if secure else set(Transport)
        else:
            named = _PARAMETER.get(parameter.lower())
            if secure and named is Transport.TCP:
                named = Transport.TLS
            if named is None or (secure and named is Transport.UDP):
                return ()
            allowed = {named}
        return tuple(transport for transport in self._transports if transport in allowed)

    def _by_naptr(
        self, host: str, usable: tuple[Transport, ...], large: bool
    ) -> Generator[list[DnsQuery], _Answers, list[_Service]]:
        """§4.1: the NAPTR records of the domain; an order whose SRV lead nowhere is passed over."""
        query = DnsQuery("NAPTR", host)
        result = (yield [query])[query]
        records = [
            (record, transport)
            for record in _records(result, NaptrRecord)
            if (transport := _NAPTR_SERVICE.get(record.service.upper())) in usable
            and transport is not None
            and record.flags.lower() == "s"
            and _name(record.replacement)
        ]
        records.sort(key=lambda pair: (pair[0].order, pair[0].preference))
        del records[MAX_RECORDS:]
        # A large request takes any order: the choice is between streams and a lost datagram.
        groups: dict[int, list[tuple[Transport, str]]] = {}
        for record, transport in records:
            group = groups.setdefault(0 if large else record.order, [])
            group.append((transport, _name(record.replacement)))
        for names in groups.values():
            services = yield from self._by_srv(names)
            if services:
                return services
        return []

    def _by_srv(
        self, names: list[tuple[Transport, str]]
    ) -> Generator[list[DnsQuery], _Answers, list[_Service] | None]:
        """Servers behind these SRV names, in their order; None when there is no record at all."""
        queries = {pair: DnsQuery("SRV", pair[1]) for pair in names}
        answers = yield list(dict.fromkeys(queries.values()))
        services = []
        seen = False
        for (transport, _), query in queries.items():
            records = _records(answers[query], SrvRecord)
            seen = seen or bool(records)
            services += [
                _Service(transport, _name(record.target), record.port)
                for record in order_by_weight(records[:MAX_RECORDS], self._ids)
                if _name(record.target) and record.port
            ]
        return services if seen else None

    def _streams_first(self, services: list[_Service], guessed: bool) -> list[_Service]:
        """Streams before UDP; where the domain says nothing of TCP, try it at the same port."""
        if guessed and Transport.TCP in self._transports:
            twins = [
                _Service(Transport.TCP, service.host, service.port)
                for service in services
                if service.transport is Transport.UDP
            ]
            services = twins + services
        return sorted(services, key=lambda service: not service.transport.reliable)

    def _addresses(
        self, services: list[_Service], domain: str, now: float
    ) -> Generator[list[DnsQuery], _Answers, Located]:
        """§4.2: A and AAAA of every server, and the targets that failed lately last."""
        names = list(dict.fromkeys(s.host for s in services if not is_address(s.host)))
        del names[MAX_TARGETS:]
        queries = [DnsQuery(kind, name) for name in names for kind in self._kinds]
        answers = (yield queries) if queries else {}
        targets: dict[Target, None] = {}
        for service in services:
            if is_address(service.host):
                addresses = [service.host] if self._ipv6 or ":" not in service.host else []
            else:
                addresses = [
                    record.address
                    for kind in self._kinds
                    for record in _records(answers.get(DnsQuery(kind, service.host)), AddressRecord)
                ]
            for address in addresses:
                tls_name = domain if service.transport is Transport.TLS else ""
                targets[Target(service.transport, address, service.port, tls_name)] = None
        if not targets:
            return Located((), _fault(services[0].host, answers))
        ordered = sorted(targets, key=lambda target: self._failed_until(target, now))
        return Located(tuple(ordered[:MAX_TARGETS]))

    def _failed_until(self, target: Target, now: float) -> float:
        until = self._failed.get(target, 0.0)
        return until if until > now else 0.0


def is_address(host: str) -> bool:
    """True for an IPv4 or IPv6 literal (without brackets): nothing to resolve."""
    if ":" in host:
        return True
    parts = host.split(".")
    return len(parts) == 4 and all(
        len(part) < 4 and part.isascii() and part.isdigit() and int(part) < 256 for part in parts
    )


def order_by_weight(records: Iterable[SrvRecord], ids: Ids) -> list[SrvRecord]:
    """The order in which to try SRV records: priority, then chance by weight (RFC 2782)."""
    ordered: list[SrvRecord] = []
    # Weight 0 comes first among equals, which leaves it a small chance beside the others.
    waiting = sorted(records, key=lambda record: (record.priority, record.weight > 0))
    while waiting:
        group = [record for record in waiting if record.priority == waiting[0].priority]
        pick = int(ids.fraction() * (sum(record.weight for record in group) + 1))
        running = 0
        for record in group:
            running += record.weight
            if running >= pick:
                ordered.append(record)
                waiting.remove(record)
                break
    return ordered


def _name(name: str) -> str:
    return name.lower().removesuffix(".")


def _records(result: DnsResult | None, kind: type[_Record]) -> list[_Record]:
    """The records of one type; an alias in between or a failure is no record."""
    if not isinstance(result, DnsAnswer):
        return []
    return [record for record in result.records if isinstance(record, kind)][:MAX_RECORDS]


def _fault(host: str, answers: _Answers) -> str:
    """Why there is no target: the name server, the name, or the address family."""
    failures = [result for result in answers.values() if isinstance(result, DnsFailure)]
    if failures:
        return f"{host}: {failures[0].reason}"
    if is_address(host):
        return f"{host}: IPv6 is switched off"
    return f"{host} has no address"
