"""RFC 3263: each rule by its name, the zone as a dict."""

from collections import Counter
from collections.abc import Mapping

import pytest
from doorstation.ids import SeededIds
from doorstation.sip.locate import (
    FAILED_SECONDS,
    FAULT_SECONDS,
    MAX_CACHED,
    MAX_FAILED,
    MAX_NEGATIVE_TTL,
    MAX_TARGETS,
    Located,
    Locator,
    is_address,
    order_by_weight,
)
from doorstation.sip.transport import (
    AddressRecord,
    DnsAnswer,
    DnsFailure,
    DnsQuery,
    DnsRecord,
    DnsResult,
    NaptrRecord,
    SrvRecord,
    Target,
    Transport,
)
from doorstation.sip.uri import SipUri, parse_uri

UDP, TCP, TLS = Transport.UDP, Transport.TCP, Transport.TLS
Zone = Mapping[tuple[str, str], DnsResult]

NAPTR_ALL = DnsAnswer(
    (
        NaptrRecord(50, 50, "s", "SIPS+D2T", "", "_sips._tcp.example.com"),
        NaptrRecord(90, 50, "s", "SIP+D2T", "", "_sip._tcp.example.com"),
        NaptrRecord(100, 50, "s", "SIP+D2U", "", "_sip._udp.example.com"),
    ),
    300,
)


def found(*records: DnsRecord, ttl: float = 300) -> DnsAnswer:
    return DnsAnswer(records, ttl)


def address(text: str, ttl: float = 300) -> DnsAnswer:
    return found(AddressRecord(text), ttl=ttl)


def locator(*transports: Transport, ipv6: bool = True) -> Locator:
    return Locator(SeededIds(1), transports or (UDP, TCP, TLS), ipv6=ipv6)


def search(
    machine: Locator,
    uri: str,
    zone: Zone,
    now: float = 0.0,
    *,
    large: bool = False,
    asked: list[DnsQuery] | None = None,
) -> Located:
    parsed = parse_uri(uri)
    assert isinstance(parsed, SipUri)
    progress = machine.locate(7, parsed, now, large=large)
    queue = list(progress.queries)
    results = list(progress.found)
    while queue:
        query = queue.pop(0)
        if asked is not None:
            asked.append(query)
        answer = zone.get((query.kind, query.name), DnsAnswer((), 60))
        step = machine.resolved(query, answer, now)
        queue += step.queries
        results += step.found
    assert machine.searching == 0
    [(key, located)] = results
    assert key == 7
    return located


def targets(machine: Locator, uri: str, zone: Zone, now: float = 0.0) -> tuple[Target, ...]:
    return search(machine, uri, zone, now).targets


# Transport selection, RFC 3263 4.1


def test_numeric_host_needs_no_dns_and_is_udp() -> None:
    asked: list[DnsQuery] = []
    result = search(locator(), "sip:192.0.2.7", {}, asked=asked)
    assert result.targets == (Target(UDP, "192.0.2.7", 5060),)
    assert asked == []


def test_numeric_ipv6_host_with_port() -> None:
    assert targets(locator(), "sip:[2001:db8::1]:5070", {}) == (Target(UDP, "2001:db8::1", 5070),)


def test_numeric_sips_host_is_tls_at_5061() -> None:
    assert targets(locator(), "sips:192.0.2.7", {}) == (
        Target(TLS, "192.0.2.7", 5061, "192.0.2.7"),
    )


def test_numeric_host_with_a_transport_parameter() -> None:
    assert targets(locator(), "sip:192.0.2.7;transport=tcp", {}) == (
        Target(TCP, "192.0.2.7", 5060),
    )
    assert targets(locator(), "sip:192.0.2.7;transport=TLS", {}) == (
        Target(TLS, "192.0.2.7", 5061, "192.0.2.7"),
    )


def test_explicit_port_asks_for_addresses_only_and_is_udp() -> None:
    asked: list[DnsQuery] = []
    zone = {("A", "pbx.example.com"): address("192.0.2.1")}
    result = search(locator(), "sip:pbx.example.com:5080", zone, asked=asked)
    assert result.targets == (Target(UDP, "192.0.2.1", 5080),)
    assert {query.kind for query in asked} == {"A", "AAAA"}


def test_lowest_usable_naptr_order_decides_the_transport() -> None:
    zone = {
        ("NAPTR", "example.com"): NAPTR_ALL,
        ("SRV", "_sips._tcp.example.com"): found(SrvRecord(0, 1, 5061, "s1.example.com")),
        ("SRV", "_sip._tcp.example.com"): found(SrvRecord(0, 1, 5060, "s1.example.com")),
        ("A", "s1.example.com"): address("192.0.2.1"),
    }
    assert targets(locator(), "sip:example.com", zone) == (
        Target(TLS, "192.0.2.1", 5061, "example.com"),
    )
    assert targets(locator(UDP, TCP), "sip:example.com", zone) == (Target(TCP, "192.0.2.1", 5060),)


def test_naptr_that_leads_nowhere_is_passed_over() -> None:
    zone = {
        ("NAPTR", "example.com"): NAPTR_ALL,
        ("SRV", "_sip._udp.example.com"): found(SrvRecord(0, 1, 5060, "s1.example.com")),
        ("A", "s1.example.com"): address("192.0.2.1"),
    }
    assert targets(locator(), "sip:example.com", zone) == (Target(UDP, "192.0.2.1", 5060),)


def test_naptr_that_cannot_be_used_is_left_out() -> None:
    asked: list[DnsQuery] = []
    zone = {
        ("NAPTR", "example.com"): found(
            NaptrRecord(1, 1, "s", "SIP+D2U", "", "."),
            NaptrRecord(2, 1, "u", "SIP+D2U", "!^.*$!sip:x@y!", "."),
            NaptrRecord(3, 1, "s", "SIP+D2S", "", "_sip._sctp.example.com"),
            NaptrRecord(4, 1, "s", "E2U+sip", "", "_sip._udp.evil.example"),
        ),
        ("A", "example.com"): address("192.0.2.1"),
    }
    result = search(locator(UDP), "sip:example.com", zone, asked=asked)
    assert result.targets == (Target(UDP, "192.0.2.1", 5060),)
    assert [query.name for query in asked if query.kind == "SRV"] == ["_sip._udp.example.com"]


def test_sips_uses_only_tls_services() -> None:
    zone = {
        ("NAPTR", "example.com"): found(
            NaptrRecord(10, 1, "s", "SIP+D2U", "", "_sip._udp.example.com"),
            NaptrRecord(20, 1, "S", "sips+d2t", "", "_sips._tcp.example.com."),
        ),
        ("SRV", "_sip._udp.example.com"): found(SrvRecord(0, 1, 5060, "s1.example.com")),
        ("SRV", "_sips._tcp.example.com"): found(SrvRecord(0, 1, 5099, "s1.example.com.")),
        ("A", "s1.example.com"): address("192.0.2.1"),
    }
    assert targets(locator(), "sips:example.com", zone) == (
        Target(TLS, "192.0.2.1", 5099, "example.com"),
    )


def test_certificate_must_prove_the_domain_not_the_server_name() -> None:
    zone = {
        ("NAPTR", "example.com"): found(
            NaptrRecord(10, 1, "s", "SIPS+D2T", "", "_sips._tcp.hoster.example.net")
        ),
        ("SRV", "_sips._tcp.hoster.example.net"): found(
            SrvRecord(0, 1, 5061, "s7.hoster.example.net")
        ),
        ("A", "s7.hoster.example.net"): address("192.0.2.1"),
    }
    [target] = targets(locator(), "sip:example.com", zone)
    assert target.tls_name == "example.com"


def test_without_naptr_srv_of_each_configured_transport_is_asked() -> None:
    asked: list[DnsQuery] = []
    zone = {
        ("SRV", "_sip._udp.example.com"): found(SrvRecord(0, 1, 5062, "u.example.com")),
        ("SRV", "_sip._tcp.example.com"): found(SrvRecord(0, 1, 5063, "t.example.com")),
        ("A", "u.example.com"): address("192.0.2.1"),
        ("A", "t.example.com"): address("192.0.2.2"),
    }
    result = search(locator(UDP, TCP), "sip:example.com", zone, asked=asked)
    assert result.targets == (Target(UDP, "192.0.2.1", 5062), Target(TCP, "192.0.2.2", 5063))
    assert DnsQuery("SRV", "_sips._tcp.example.com") not in asked


def test_domain_without_a_record_is_reached_by_srv() -> None:
    zone = {
        ("SRV", "_sip._udp.tel.t-online.de"): found(SrvRecord(0, 1, 5060, "f-ipn.example.de")),
        ("A", "f-ipn.example.de"): address("192.0.2.9"),
    }
    assert targets(locator(), "sip:tel.t-online.de", zone) == (Target(UDP, "192.0.2.9", 5060),)


def test_plain_domain_without_any_record_prefers_udp() -> None:
    zone = {("A", "fritz.box"): address("192.168.178.1")}
    assert targets(locator(TLS, TCP, UDP), "sip:fritz.box", zone) == (
        Target(UDP, "192.168.178.1", 5060),
    )
    assert targets(locator(TCP), "sip:fritz.box", zone) == (Target(TCP, "192.168.178.1", 5060),)
    assert targets(locator(), "sips:fritz.box", zone) == (
        Target(TLS, "192.168.178.1", 5061, "fritz.box"),
    )


def test_transport_parameter_skips_naptr_and_asks_its_srv() -> None:
    asked: list[DnsQuery] = []
    zone = {
        ("NAPTR", "example.com"): NAPTR_ALL,
        ("SRV", "_sip._tcp.example.com"): found(SrvRecord(0, 1, 5065, "s.example.com")),
        ("A", "s.example.com"): address("192.0.2.3"),
    }
    result = search(locator(), "sip:example.com;transport=tcp", zone, asked=asked)
    assert result.targets == (Target(TCP, "192.0.2.3", 5065),)
    assert "NAPTR" not in {query.kind for query in asked}


def test_transport_that_is_not_configured_has_no_target() -> None:
    result = search(locator(UDP), "sip:example.com;transport=tcp", {})
    assert result == Located((), "transport=tcp is not among the transports in use")
    assert search(locator(), "sip:example.com;transport=sctp", {}).targets == ()
    assert search(locator(UDP, TCP), "sips:example.com", {}).targets == ()


def test_sips_over_udp_does_not_exist_and_over_tcp_means_tls() -> None:
    assert search(locator(), "sips:192.0.2.1;transport=udp", {}).targets == ()
    assert targets(locator(), "sips:192.0.2.1;transport=tcp", {}) == (
        Target(TLS, "192.0.2.1", 5061, "192.0.2.1"),
    )


@pytest.mark.parametrize(
    "maddr", ["fe80::1%²", "fe80::1%1", "ä" * 254 + ".x", ":" + "a" * 70, "a/b", "[]"]
)
def test_maddr_that_is_no_host_leads_nowhere(maddr: str) -> None:
    """In a Contact the first and the third ended the service: in the sockets, in the resolver."""
    asked: list[DnsQuery] = []
    located = search(locator(), f"sip:a@example.com;maddr={maddr}", {}, asked=asked)
    assert located == Located((), "maddr is no host")
    assert asked == []


def test_maddr_replaces_the_host_but_not_the_tls_name() -> None:
    assert targets(locator(), "sip:example.com;maddr=192.0.2.8", {}) == (
        Target(UDP, "192.0.2.8", 5060),
    )
    assert targets(locator(), "sips:example.com;maddr=192.0.2.8", {}) == (
        Target(TLS, "192.0.2.8", 5061, "example.com"),
    )


def test_srv_root_target_says_that_there_is_no_service() -> None:
    zone = {
        ("SRV", "_sip._udp.example.com"): found(SrvRecord(0, 0, 0, ".")),
        ("A", "example.com"): address("192.0.2.1"),
    }
    result = search(locator(UDP), "sip:example.com", zone)
    assert result == Located((), "example.com says that it has no SIP service")


# Order


def test_srv_priority_comes_before_weight() -> None:
    records = [SrvRecord(20, 100, 1, "b"), SrvRecord(10, 0, 2, "a"), SrvRecord(30, 5, 3, "c")]
    assert [r.target for r in order_by_weight(records, SeededIds(3))] == ["a", "b", "c"]


def test_srv_weights_share_the_load() -> None:
    ids = SeededIds(5)
    records = [SrvRecord(1, 60, 1, "a"), SrvRecord(1, 30, 1, "b"), SrvRecord(1, 10, 1, "c")]
    first = Counter(order_by_weight(records, ids)[0].target for _ in range(5000))
    assert 2700 < first["a"] < 3300
    assert 1200 < first["b"] < 1800
    assert 300 < first["c"] < 800


def test_srv_of_weight_zero_has_a_small_chance() -> None:
    ids = SeededIds(5)
    records = [SrvRecord(1, 9, 1, "a"), SrvRecord(1, 0, 1, "z")]
    first = Counter(order_by_weight(records, ids)[0].target for _ in range(2000))
    assert 100 < first["z"] < 320


def test_ipv4_is_tried_before_ipv6() -> None:
    zone = {("A", "x.example"): address("192.0.2.1"), ("AAAA", "x.example"): address("2001:db8::1")}
    assert [t.host for t in targets(locator(), "sip:x.example:5060", zone)] == [
        "192.0.2.1",
        "2001:db8::1",
    ]


def test_ipv6_switched_off() -> None:
    zone = {("AAAA", "x.example"): address("2001:db8::1")}
    assert search(locator(ipv6=False), "sip:x.example:5060", zone) == Located(
        (), "x.example has no address"
    )
    assert search(locator(ipv6=False), "sip:[2001:db8::1]", {}) == Located(
        (), "2001:db8::1: IPv6 is switched off"
    )


# Above the UDP limit, RFC 3261 18.1.1


def test_large_request_takes_the_offered_tcp_service() -> None:
    zone = {
        ("NAPTR", "example.com"): found(
            NaptrRecord(10, 1, "s", "SIP+D2U", "", "_sip._udp.example.com"),
            NaptrRecord(20, 1, "s", "SIP+D2T", "", "_sip._tcp.example.com"),
        ),
        ("SRV", "_sip._udp.example.com"): found(SrvRecord(0, 1, 5060, "s.example.com")),
        ("SRV", "_sip._tcp.example.com"): found(SrvRecord(0, 1, 5070, "s.example.com")),
        ("A", "s.example.com"): address("192.0.2.1"),
    }
    assert search(locator(), "sip:example.com", zone, large=True).targets == (
        Target(TCP, "192.0.2.1", 5070),
        Target(UDP, "192.0.2.1", 5060),
    )


def test_large_request_stays_with_udp_where_srv_names_no_tcp() -> None:
    zone = {
        ("SRV", "_sip._udp.example.com"): found(SrvRecord(0, 1, 5060, "s.example.com")),
        ("A", "s.example.com"): address("192.0.2.1"),
    }
    for uri in ("sip:example.com", "sip:example.com;transport=udp"):
        assert search(locator(), uri, zone, large=True).targets == (Target(UDP, "192.0.2.1", 5060),)


def test_large_request_tries_tcp_first_where_nothing_is_known() -> None:
    both = (Target(TCP, "192.0.2.1", 5060), Target(UDP, "192.0.2.1", 5060))
    assert search(locator(), "sip:192.0.2.1", {}, large=True).targets == both
    zone = {("A", "fritz.box"): address("192.0.2.1")}
    assert search(locator(), "sip:fritz.box", zone, large=True).targets == both
    assert search(locator(UDP), "sip:fritz.box", zone, large=True).targets == both[1:]


# What was learnt


def test_answers_are_kept_for_their_ttl() -> None:
    machine = locator(UDP)
    zone = {("A", "x.example"): address("192.0.2.1", ttl=30)}
    asked: list[DnsQuery] = []
    for now in (0.0, 29.0, 31.0):
        search(machine, "sip:x.example:5060", zone, now, asked=asked)
    assert asked.count(DnsQuery("A", "x.example")) == 2


def test_missing_records_are_kept_too_but_not_for_long() -> None:
    machine = locator(UDP)
    asked: list[DnsQuery] = []
    zone = {("A", "x.example"): DnsAnswer((), 86_400)}
    for now in (0.0, MAX_NEGATIVE_TTL - 1, MAX_NEGATIVE_TTL + 1):
        search(machine, "sip:x.example:5060", zone, now, asked=asked)
    assert asked.count(DnsQuery("A", "x.example")) == 2


def test_two_searches_share_one_question() -> None:
    machine = locator(UDP, ipv6=False)
    uri = SipUri(host="x.example", port=5060)
    assert machine.locate(1, uri, 0.0).queries == [DnsQuery("A", "x.example")]
    assert machine.locate(2, uri, 0.0).queries == []
    progress = machine.resolved(DnsQuery("A", "x.example"), address("192.0.2.1"), 0.1)
    assert [key for key, _ in progress.found] == [1, 2]


def test_forgotten_search_ends_without_result() -> None:
    machine = locator(UDP, ipv6=False)
    machine.locate(1, SipUri(host="x.example", port=5060), 0.0)
    machine.forget(1)
    progress = machine.resolved(DnsQuery("A", "x.example"), address("192.0.2.1"), 0.1)
    assert progress.found == []
    assert machine.searching == 0


def test_unanswered_naptr_and_srv_read_as_none_and_are_not_asked_again_at_once() -> None:
    machine = locator()
    silent = DnsFailure("no answer", temporary=True)
    zone: dict[tuple[str, str], DnsResult] = {
        ("NAPTR", "fritz.box"): silent,
        ("SRV", "_sip._udp.fritz.box"): silent,
        ("SRV", "_sip._tcp.fritz.box"): silent,
        ("SRV", "_sips._tcp.fritz.box"): silent,
        ("A", "fritz.box"): address("192.168.178.1"),
    }
    asked: list[DnsQuery] = []
    for now in (0.0, FAULT_SECONDS - 1):
        result = search(machine, "sip:fritz.box", zone, now, asked=asked)
        assert result.targets == (Target(UDP, "192.168.178.1", 5060),)
    assert Counter(query.kind for query in asked) == {"NAPTR": 1, "SRV": 3, "A": 1, "AAAA": 1}


def test_old_address_serves_while_name_servers_are_down() -> None:
    machine = locator(UDP, ipv6=False)
    search(machine, "sip:x.example:5060", {("A", "x.example"): address("192.0.2.1", ttl=5)})
    down = {("A", "x.example"): DnsFailure("no answer", temporary=True)}
    assert targets(machine, "sip:x.example:5060", down, 1000.0) == (Target(UDP, "192.0.2.1", 5060),)


def test_address_failure_names_the_host_and_is_retried_at_once() -> None:
    machine = locator(UDP, ipv6=False)
    down = {("A", "x.example"): DnsFailure("no answer", temporary=True)}
    assert search(machine, "sip:x.example:5060", down) == Located((), "x.example: no answer")
    asked: list[DnsQuery] = []
    search(machine, "sip:x.example:5060", down, 0.1, asked=asked)
    assert asked == [DnsQuery("A", "x.example")]


def test_failed_target_is_tried_last_for_a_while() -> None:
    machine = locator(UDP, ipv6=False)
    zone = {("A", "x.example"): found(AddressRecord("192.0.2.1"), AddressRecord("192.0.2.2"))}
    first, second = targets(machine, "sip:x.example:5060", zone)
    machine.target_failed(first, 10.0)
    assert targets(machine, "sip:x.example:5060", zone, 11.0) == (second, first)
    assert targets(machine, "sip:x.example:5060", zone, 11 + FAILED_SECONDS) == (first, second)
    machine.target_failed(first, 200.0)
    machine.target_worked(first)
    assert targets(machine, "sip:x.example:5060", zone, 201.0) == (first, second)


# Bounds


def test_everything_a_zone_can_fill_is_bounded() -> None:
    machine = locator(UDP, ipv6=False)
    flood = found(*(SrvRecord(0, 1, port, f"h{port}.example") for port in range(1, 500)))
    zone = {("SRV", "_sip._udp.example.com"): flood} | {
        ("A", f"h{port}.example"): address("192.0.2.1") for port in range(1, 500)
    }
    asked: list[DnsQuery] = []
    result = search(machine, "sip:example.com", zone, asked=asked)
    assert len(result.targets) <= MAX_TARGETS
    assert len(asked) <= 2 + MAX_TARGETS


def test_cache_and_failure_memory_are_bounded() -> None:
    machine = locator(UDP, ipv6=False)
    for n in range(MAX_CACHED * 2):
        search(machine, f"sip:h{n}.example:5060", {})
        machine.target_failed(Target(UDP, f"192.0.2.{n}", 5060), 0.0)
    assert len(machine._cache) == MAX_CACHED
    assert len(machine._failed) == MAX_FAILED


def test_addresses_are_told_from_names() -> None:
    assert is_address("192.0.2.1")
    assert is_address("::1")
    for name in (
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "a.b.c.d",
        "1..2.3",
        "1.2.3.٤",
        "",
        "0001.2.3.4",
    ):
        assert not is_address(name)
