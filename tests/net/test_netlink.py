"""What the kernel says about the network, and what of it counts as a change."""

import os
import socket
import struct
import subprocess
import sys

import pytest
from doorstation.net.netlink import fact_of

NEWLINK, DELLINK, NEWADDR, DELADDR, NEWROUTE, DELROUTE = 16, 17, 20, 21, 24, 25


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def address(flags: int = 0, scope: int = 0) -> bytes:
    head = struct.pack("=BBBBI", socket.AF_INET6, 64, 0, scope, 2)
    return head + attribute(1, bytes(15) + b"\1") + attribute(8, struct.pack("=I", flags))


def route(dst_length: int, table: int = 254) -> bytes:
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, dst_length, 0, 0, table, 0, 0, 1, 0)
    return head + attribute(4, struct.pack("=I", 2)) + attribute(5, bytes([192, 0, 2, 1]))


def test_a_renewed_address_is_the_same_fact() -> None:
    holds, fact = fact_of(NEWADDR, address())
    assert holds
    assert fact_of(NEWADDR, address(flags=0x80)) == (True, fact)
    assert fact_of(DELADDR, address()) == (False, fact)


def test_a_tentative_address_does_not_hold_yet() -> None:
    assert not fact_of(NEWADDR, address(flags=0x40))[0]


def test_a_link_local_ipv6_address_is_no_change() -> None:
    assert fact_of(NEWADDR, address(scope=253)) == (False, None)


@pytest.mark.parametrize(("flags", "holds"), [(0x41, True), (0x01, False), (0x1043, True)])
def test_a_link_counts_while_it_is_up_and_running(flags: int, holds: bool) -> None:
    assert fact_of(NEWLINK, struct.pack("=BxHiII", 0, 1, 2, flags, 0)) == (holds, ("link", 2))


def test_only_default_routes_of_the_main_table_count() -> None:
    assert fact_of(NEWROUTE, route(0))[0]
    assert fact_of(NEWROUTE, route(24))[1] is None
    assert fact_of(NEWROUTE, route(0, table=255))[1] is None
    assert fact_of(DELROUTE, route(0)) == (False, fact_of(NEWROUTE, route(0))[1])


def test_short_reports_are_ignored() -> None:
    for kind in (NEWLINK, DELLINK, NEWADDR, DELADDR, NEWROUTE, DELROUTE):
        assert fact_of(kind, b"\0\0") == (False, None)


CHANGES = """
import asyncio, subprocess
from doorstation.net.netlink import NetworkWatch

async def happens(noticed):
    try:
        async with asyncio.timeout(0.2):
            return await noticed.wait()
    except TimeoutError:
        return False

async def main():
    noticed = asyncio.Event()
    watch = NetworkWatch(noticed.set, settle=0.01)
    for command in (
        "link set lo up",
        "address add 192.0.2.1/32 dev lo",
        "route add default dev lo",
        "route del default",
        "address del 192.0.2.1/32 dev lo",
    ):
        process = await asyncio.create_subprocess_exec("ip", *command.split())
        assert await process.wait() == 0, command
        async with asyncio.timeout(10):
            await noticed.wait()
        noticed.clear()
    # Once all consequences have been told, the same again is no change.
    while await happens(noticed):
        noticed.clear()
    process = await asyncio.create_subprocess_exec("ip", "link", "set", "lo", "up")
    assert await process.wait() == 0
    print("silent" if not await happens(noticed) else "told again")
    watch.close()
    watch.close()

asyncio.run(main())
"""


def test_links_addresses_and_default_routes_are_noticed() -> None:
    """In a network namespace of its own, so the machine's network is left alone."""
    apart = ["unshare", "--net"]
    if os.geteuid() != 0:
        apart += ["--user", "--map-root-user"]
    done = subprocess.run(
        [*apart, sys.executable, "-X", "dev", "-W", "error", "-c", CHANGES],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("silent\n", "")
