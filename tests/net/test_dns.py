"""Names, against a real name server on loopback."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from doorstation.net.dns import Resolver, hosts_of
from doorstation.sip.transport import (
    AddressRecord,
    DnsAnswer,
    DnsFailure,
    DnsQuery,
    NaptrRecord,
    SrvRecord,
)

from tests.support.dnsmasq import NameServer, name_server
from tests.support.waiting import until

RECORDS = (
    "host-record=sip1.example.test,192.0.2.1,2001:db8::1,77",
    "host-record=only4.example.test,192.0.2.4,30",
    "cname=alias.example.test,sip1.example.test,12",
    "srv-host=_sip._udp.example.test,sip1.example.test,5060,10,60",
    "srv-host=_sip._udp.example.test,only4.example.test,5070,20,0",
    "naptr-record=example.test,20,50,s,SIP+D2U,,_sip._udp.example.test",
    "naptr-record=example.test,10,50,s,SIPS+D2T,,_sips._tcp.example.test",
)


@asynccontextmanager
async def asking(
    hosts: Path | None = None, within: float = 4.0
) -> AsyncIterator[tuple[Resolver, NameServer]]:
    async with name_server(RECORDS) as server:
        resolver = Resolver([server.address], hosts=str(hosts or "/nowhere"), within=within)
        try:
            yield resolver, server
        finally:
            await resolver.aclose()


@contextmanager
def silent_server() -> Iterator[str]:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{silent.getsockname()[1]}"


async def test_addresses_come_with_their_ttl() -> None:
    async with asking() as (resolver, _):
        assert await resolver.resolve(DnsQuery("A", "sip1.example.test")) == DnsAnswer(
            (AddressRecord("192.0.2.1"),), 77.0
        )
        assert await resolver.resolve(DnsQuery("AAAA", "sip1.example.test")) == DnsAnswer(
            (AddressRecord("2001:db8::1"),), 77.0
        )


async def test_a_cname_is_followed_and_its_ttl_counts() -> None:
    async with asking() as (resolver, _):
        assert await resolver.resolve(DnsQuery("A", "alias.example.test")) == DnsAnswer(
            (AddressRecord("192.0.2.1"),), 12.0
        )


async def test_services_are_told_whole() -> None:
    async with asking() as (resolver, _):
        answer = await resolver.resolve(DnsQuery("SRV", "_sip._udp.example.test"))
        assert isinstance(answer, DnsAnswer)
        assert set(answer.records) == {
            SrvRecord(10, 60, 5060, "sip1.example.test"),
            SrvRecord(20, 0, 5070, "only4.example.test"),
        }
        answer = await resolver.resolve(DnsQuery("NAPTR", "example.test"))
        assert isinstance(answer, DnsAnswer)
        assert set(answer.records) == {
            NaptrRecord(20, 50, "s", "SIP+D2U", "", "_sip._udp.example.test"),
            NaptrRecord(10, 50, "s", "SIPS+D2T", "", "_sips._tcp.example.test"),
        }


@pytest.mark.parametrize(
    "query",
    [
        DnsQuery("A", "nobody.example.test"),
        DnsQuery("AAAA", "only4.example.test"),
        DnsQuery("SRV", "_sip._tcp.example.test"),
        DnsQuery("NAPTR", "sip1.example.test"),
    ],
)
async def test_what_does_not_exist_is_an_answer_without_records(query: DnsQuery) -> None:
    async with asking() as (resolver, _):
        answer = await resolver.resolve(query)
        assert isinstance(answer, DnsAnswer)
        assert answer.records == ()
        assert answer.ttl > 0


async def test_a_refusing_server_is_a_temporary_failure() -> None:
    async with asking() as (resolver, _):
        answer = await resolver.resolve(DnsQuery("A", "not.ours.example"))
        assert isinstance(answer, DnsFailure)
        assert answer.temporary


async def test_a_silent_server_is_a_temporary_failure_in_time() -> None:
    with silent_server() as silent:
        resolver = Resolver([silent], within=0.3, hosts="/nowhere")
        async with asyncio.timeout(10):
            answer = await resolver.resolve(DnsQuery("SRV", "_sip._udp.example.test"))
        assert isinstance(answer, DnsFailure)
        assert answer.temporary
        await resolver.aclose()


async def test_a_port_nobody_listens_on_is_a_temporary_failure() -> None:
    with silent_server() as gone:
        pass
    resolver = Resolver([gone], within=2.0, hosts="/nowhere")
    answer = await resolver.resolve(DnsQuery("A", "example.test"))
    assert isinstance(answer, DnsFailure)
    assert answer.temporary
    await resolver.aclose()


@pytest.mark.parametrize(
    "name",
    ["a..b.test", "x" * 64 + ".test", "ſ.test", "x." * 140 + "test", "ä" * 254 + ".test"],
)
async def test_no_domain_name_is_a_failure_for_good(name: str) -> None:
    async with asking() as (resolver, _):
        answer = await resolver.resolve(DnsQuery("SRV", name))
        assert isinstance(answer, DnsFailure)
        assert not answer.temporary


async def test_the_second_server_answers_when_the_first_is_silent() -> None:
    with silent_server() as silent:
        async with name_server(RECORDS) as server:
            resolver = Resolver([silent, server.address], within=3.0, hosts="/nowhere")
            answer = await resolver.resolve(DnsQuery("A", "only4.example.test"))
            assert answer == DnsAnswer((AddressRecord("192.0.2.4"),), 30.0)
            await resolver.aclose()


async def test_questions_after_a_network_change_are_asked_afresh() -> None:
    async with asking() as (resolver, server):
        for _ in range(2):
            await resolver.resolve(DnsQuery("A", "only4.example.test"))
            resolver.network_changed()
        question = "query[A] only4.example.test"
        await until(lambda: server.questions().count(question) == 2)


async def test_a_network_change_ends_questions_under_way() -> None:
    with silent_server() as silent:
        resolver = Resolver([silent], within=30.0, hosts="/nowhere")
        asking = asyncio.ensure_future(resolver.resolve(DnsQuery("A", "x.test")))
        async with asyncio.timeout(10):
            while not asking.done():
                await asyncio.sleep(0.001)
                resolver.network_changed()
        answer = await asking
        assert isinstance(answer, DnsFailure)
        assert answer.temporary
        await resolver.aclose()
        await resolver.aclose()


# -- /etc/hosts


async def test_the_hosts_file_comes_first_and_is_read_again(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.99 sip1.example.test\n")
    async with asking(hosts) as (resolver, server):
        query = DnsQuery("A", "sip1.example.test")
        answer = await resolver.resolve(query)
        assert isinstance(answer, DnsAnswer)
        assert answer.records == (AddressRecord("192.0.2.99"),)
        # The line is the whole answer: no name server is asked for the other family.
        answer = await resolver.resolve(DnsQuery("AAAA", "sip1.example.test"))
        assert isinstance(answer, DnsAnswer)
        assert answer.records == ()
        assert server.questions() == []
        hosts.write_text("# nothing any more\n")
        assert await resolver.resolve(query) == DnsAnswer((AddressRecord("192.0.2.1"),), 77.0)


def test_hosts_lines_are_read_as_hosts_5_says() -> None:
    lines = [
        "# comment",
        "",
        "127.0.0.1\tlocalhost  Door.Example # ours",
        "::1 localhost",
        "127.0.0.1 localhost",
        "fe80::1%eth0 router",
        "not-an-address name",
        "192.0.2.1",
    ]
    assert hosts_of(lines) == {
        "localhost": ("127.0.0.1", "::1"),
        "door.example": ("127.0.0.1",),
        "router": ("fe80::1%eth0",),
    }


# -- names the DNS does not know


async def test_localhost_needs_nobody() -> None:
    resolver = Resolver(["192.0.2.53"], hosts="/nowhere")
    for kind, address in (("A", "127.0.0.1"), ("AAAA", "::1")):
        answer = await resolver.resolve(DnsQuery(kind, "localhost"))  # type: ignore[arg-type]
        assert isinstance(answer, DnsAnswer)
        assert answer.records == (AddressRecord(address),)
    answer = await resolver.resolve(DnsQuery("SRV", "_sip._udp.localhost"))
    assert isinstance(answer, DnsAnswer)
    assert answer.records == ()


async def test_local_names_are_the_c_librarys_or_the_links_and_never_the_name_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []

    def library(name: str, port: None, family: int, kind: int) -> list[tuple[object, ...]]:
        asked.append((name, family, threading.current_thread() is threading.main_thread()))
        if family == socket.AF_INET:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(family, kind, 17, "", ("fe80::1", 0, 0, 2))] * 2

    monkeypatch.setattr(socket, "getaddrinfo", library)
    async with asking() as (resolver, server):
        answer = await resolver.resolve(DnsQuery("AAAA", "phone.local"))
        assert answer == DnsAnswer((AddressRecord("fe80::1%2"),), 120.0)
        answer = await resolver.resolve(DnsQuery("A", "pbx"))
        assert isinstance(answer, DnsAnswer)
        assert answer.records == ()
        answer = await resolver.resolve(DnsQuery("AAAA", "pbx.office.local"))
        assert answer == DnsAnswer((AddressRecord("fe80::1%2"),), 120.0)
        for kind, name in (("NAPTR", "phone.local"), ("SRV", "_sip._udp.phone.local")):
            answer = await resolver.resolve(DnsQuery(kind, name))  # type: ignore[arg-type]
            assert isinstance(answer, DnsAnswer)
            assert answer.records == ()
        assert server.questions() == []
    assert asked == [
        ("phone.local", socket.AF_INET6, False),
        ("pbx", socket.AF_INET, False),
        ("pbx.office.local", socket.AF_INET6, False),
    ]


async def test_a_c_library_that_hangs_costs_a_bounded_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = threading.Event()

    def library(*_: object) -> list[tuple[object, ...]]:
        free.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", library)
    resolver = Resolver(hosts="/nowhere", within=0.1)
    before = threading.active_count()
    answers = await asyncio.gather(
        *(resolver.resolve(DnsQuery("A", f"phone{number}.local")) for number in range(10))
    )
    assert threading.active_count() - before <= 4
    assert all(isinstance(each, DnsFailure) and each.temporary for each in answers)
    free.set()
    await until(lambda: threading.active_count() <= before)


# -- cost


def test_aiodns_is_loaded_at_the_first_real_question_only() -> None:
    code = """
import asyncio, sys
from doorstation.net.dns import Resolver
from doorstation.sip.transport import DnsQuery
async def main():
    resolver = Resolver()
    await resolver.resolve(DnsQuery("A", "localhost"))
    await resolver.aclose()
asyncio.run(main())
print("aiodns" in sys.modules or "pycares" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
