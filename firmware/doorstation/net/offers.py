"""Asks the network which SIP servers there are, for an account that names none.

At the start, whenever an address or link changes, and again from time to time: DHCP first, then
the SRV and NAPTR records of the offered domain, then what the system's own DHCP client was given.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from doorstation.dhcp import leases
from doorstation.dhcp.offered import Offered
from doorstation.errors import TransportError
from doorstation.ids import Ids
from doorstation.net import dhcp
from doorstation.net.dns import Resolver
from doorstation.provision.discovery import described
from doorstation.provision.servers import Servers
from doorstation.sip.transport import DnsAnswer, DnsQuery

log = logging.getLogger(__name__)

SOON: Final = 4.0
LATEST: Final = 300.0
"""Seconds between two rounds: the wait doubles from the one to the other while nobody answers."""
MAX_LEASE: Final = 65536
MAX_LEASES: Final = 16

Read = Callable[[bytes], Offered]
LEASES: Final[Sequence[tuple[str, Read]]] = (
    ("run/systemd/netif/leases/*", leases.of_networkd),
    ("var/lib/dhcp/dhclient*.leases", leases.of_dhclient),
    ("var/lib/dhcpcd/*.lease", leases.of_dhcpcd),
)
_SRV: Final = ("_sip._udp", "_sip._tcp", "_sips._tcp")


async def ask_everywhere(ids: Ids, heard: Callable[[Offered], None]) -> list[str]:
    """Ask by DHCP on every interface at the same time; what there was in place of answers."""

    async def ask(interface: dhcp.Interface) -> list[str]:
        try:
            return await dhcp.ask(interface, ids, heard)
        except (TransportError, OSError) as fault:  # perhaps it has just gone: the others go on
            return [f"DHCP: {fault}"]

    try:
        interfaces = dhcp.interfaces()
    except OSError as fault:
        return [f"DHCP: {fault}"]
    if not interfaces:
        return ["DHCP: no interface is up"]
    asked = await asyncio.gather(*map(ask, interfaces))
    return list(dict.fromkeys(line for lines in asked for line in lines))


AskDhcp = Callable[[Ids, Callable[[Offered], None]], Awaitable[list[str]]]
"""As `ask_everywhere`."""


class Offers:
    """Runs the questions. `use` is told of the servers, the preferred first."""

    def __init__(
        self,
        ids: Ids,
        names: Resolver,
        wanted: Callable[[], bool],
        use: Callable[[tuple[str, ...]], Awaitable[None]],
        *,
        ask_dhcp: AskDhcp = ask_everywhere,
        folder: Path = Path("/"),
    ) -> None:
        """`wanted`: whether anybody needs to know. `folder`: where the system's files are."""
        self._ids = ids
        self._names = names
        self._wanted = wanted
        self._use = use
        self._ask_dhcp = ask_dhcp
        self._folder = folder
        self._servers = Servers()
        self._changed = asyncio.Event()
        self._told: list[str] = []

    @property
    def found(self) -> bool:
        """Whether any servers are offered."""
        return bool(self._servers.used)

    def look(self) -> None:
        """Ask again: the network changed, or what is wanted."""
        self._changed.set()

    async def run(self) -> None:
        """Ask for ever."""
        wait = SOON
        while True:
            self._changed.clear()
            if self._wanted():
                interrupted = await self._round()
                wait = LATEST if self._servers.found else min(LATEST, wait * 2)
                if interrupted:
                    wait = SOON
                    continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait if self._wanted() else None):
                    await self._changed.wait()
                    wait = SOON

    async def _round(self) -> bool:
        """Ask everybody once; whether a change of the network came between."""
        asking = asyncio.create_task(self.ask())
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait((asking, changed), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return True
            self._tell(asking.result())
            return False
        finally:
            for task in (asking, changed):
                task.cancel()
            await asyncio.gather(asking, changed, return_exceptions=True)

    def _tell(self, lines: list[str]) -> None:
        """Once: the same again every few minutes would be noise."""
        if lines != self._told:
            for line in lines:
                log.info("SIP servers: %s", line)
        self._told = lines

    async def ask(self) -> list[str]:
        """One round; what happened, in plain lines. Raises what `use` raises.

        `use` hears what there is after each round, new or not: the settings may take today what
        did not go with them before.
        """
        self._servers.begin()
        lines: list[str] = []
        domains: list[str] = []
        news = asyncio.Event()

        def heard(offered: Offered) -> None:
            lines.append(f"DHCP: {described(offered)}")
            domains.extend(offered.domains)
            if self._servers.heard(offered):
                news.set()

        telling = asyncio.create_task(self._use_soon(news))
        try:
            lines += await self._ask_dhcp(self._ids, heard)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        if not self._servers.found:
            await self._by_domain(domains, lines)
        if not self._servers.found and dhcp.interfaces():
            for offered in self._leases():
                lines.append(described(offered))
                self._servers.guessed(offered.sip_servers)
                domains = [name for name in offered.domains if name not in domains]
                if not self._servers.found:
                    await self._by_domain(domains, lines)
        self._servers.end()
        await self._use(self._servers.used)
        lines.append(f"used: {', '.join(self._servers.used) or 'none'}")
        return lines

    async def _use_soon(self, news: asyncio.Event) -> None:
        """The first answer is used before the last one has come."""
        await news.wait()
        await self._use(self._servers.used)

    async def _by_domain(self, domains: Iterable[str], lines: list[str]) -> None:
        """The first domain whose DNS names SIP servers; an address alone is any computer's."""
        for domain in list(dict.fromkeys(domains))[:2]:
            questions = [DnsQuery("NAPTR", domain)]
            questions += [DnsQuery("SRV", f"{service}.{domain}") for service in _SRV]
            answers = await asyncio.gather(*map(self._names.resolve, questions))
            if any(isinstance(answer, DnsAnswer) and answer.records for answer in answers):
                lines.append(f"DNS: {domain} names SIP servers")
                self._servers.guessed((domain,))
                return
            lines.append(f"DNS: {domain} names no SIP server")

    def _leases(self) -> list[Offered]:
        """What the system's clients were given, the newest of each kind first."""
        found = []
        for pattern, read in LEASES:
            with contextlib.suppress(OSError):
                files = list(self._folder.glob(pattern))[:MAX_LEASES]
                for file in sorted(files, key=lambda file: -file.stat().st_mtime):
                    with file.open("rb") as opened:
                        found.append(read(opened.read(MAX_LEASE)))
        return found
