"""What the network says, made part of the configuration: SIP servers, and files with settings.

It outlives the station, as the configurator does: another answer may have another station built.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from doorstation.claiming import Claiming
from doorstation.configurator import Configurator, open_configurator, place
from doorstation.dhcp.offered import Offered
from doorstation.errors import SettingsError
from doorstation.ids import Ids, SystemIds
from doorstation.net.dns import Resolver
from doorstation.net.netlink import NetworkWatch
from doorstation.net.offers import Offers, ask_everywhere
from doorstation.printable import printable
from doorstation.provisioner import Provisioner

log = logging.getLogger(__name__)

SETTLED: Final = 0.02
"""Seconds after a change: an address is worth nothing before its route."""


class Network:
    """Runs beside the stations, one after the other."""

    def __init__(self, configurator: Configurator, ids: Ids) -> None:
        self._configurator = configurator
        self._names = Resolver()
        self._not_used = ""
        """Why the servers that are offered are not used, as it was told."""
        self._offers = Offers(ids, self._names, self._wants_servers, self._use_servers)
        self.provisioner = Provisioner(configurator, ids)
        self._claiming = Claiming(configurator, ids, lambda: self.provisioner.claimed)
        configurator.followers.append(lambda kind, number, why: self._offers.look())

    async def run(self) -> None:
        """For ever."""
        with self._watch():
            async with contextlib.aclosing(self._names), asyncio.TaskGroup() as group:
                group.create_task(self._offers.run())
                group.create_task(self.provisioner.run())
                group.create_task(self._claiming.run())

    def _watch(self) -> contextlib.AbstractContextManager[object]:
        try:
            return contextlib.closing(NetworkWatch(self._changed, settle=SETTLED))
        except OSError as fault:
            # No netlink in some containers: a door that is not told is one all the same.
            log.warning("network changes go unnoticed: %s", fault)
            return contextlib.nullcontext()

    def _changed(self) -> None:
        self._names.network_changed()
        self._offers.look()
        self.provisioner.network_changed()

    def _wants_servers(self) -> bool:
        account = self._configurator.settings.account
        if account is None:
            return False
        return not (account.domain or account.registrar or account.outbound_proxy)

    async def _use_servers(self, servers: tuple[str, ...]) -> None:
        layer = {"sip": {"servers": list(servers)}} if servers else {}
        why_not = ""
        try:
            await self._configurator.base_changed("dhcp", layer)
        except SettingsError as fault:
            why_not = f"{', '.join(servers)}: not used: {fault}"
        told, self._not_used = self._not_used, why_not
        if why_not and why_not != told:
            log.warning("SIP servers: %s", why_not)


def examine(base: Mapping[str, Mapping[str, Any]], *, as_json: bool) -> int:
    """Ask the network everything once, print each step, apply nothing; 0 if any of it is usable.

    Raises SettingsError for layers that make no tree.
    """
    return asyncio.run(_examine(base, as_json=as_json))


async def _examine(base: Mapping[str, Mapping[str, Any]], *, as_json: bool) -> int:
    async def nothing(servers: tuple[str, ...]) -> None:
        pass

    def tell(step: str, text: str) -> None:
        line = json.dumps({"step": step, "line": text}) if as_json else printable(f"{step}: {text}")
        print(line)  # noqa: T201

    ids = SystemIds()
    answers: list[Offered] = []
    silences: list[str] | None = None

    async def ask_dhcp_once(ids: Ids, heard: Callable[[Offered], None]) -> list[str]:
        nonlocal silences
        if silences is None:
            silences = await ask_everywhere(ids, answers.append)
        for answer in answers:
            heard(answer)
        return silences

    async with (
        contextlib.aclosing(open_configurator(base, look=True)) as configurator,
        contextlib.aclosing(Resolver()) as names,
    ):
        # Whether there is an owner, say, decides what of the network counts.
        why_not = configurator.closed
        tell("state", f"not looked at: {why_not}" if why_not else f"looked at: {place(base)}")
        offers = Offers(ids, names, lambda: True, nothing, ask_dhcp=ask_dhcp_once)
        for line in await offers.ask():
            tell("SIP servers", line)
        provisioner = Provisioner(
            configurator,
            ids,
            tell=lambda text: tell("configuration", text),
            apply=False,
            ask_dhcp=ask_dhcp_once,
        )
        provisioner.load()
        served = await provisioner.round()
        return 0 if served or offers.found else 1
