"""What the network says, made part of the configuration: its SIP servers.

It outlives the station, as the configurator does: another answer may have another station built.
"""

import contextlib
import logging

from doorstation.configurator import Configurator
from doorstation.errors import SettingsError
from doorstation.ids import Ids
from doorstation.net.dns import Resolver
from doorstation.net.offers import Offers

log = logging.getLogger(__name__)


class Network:
    """Runs beside the stations, one after the other."""

    def __init__(self, configurator: Configurator, ids: Ids) -> None:
        self._configurator = configurator
        self._names = Resolver()
        self._offers = Offers(ids, self._names, self._wants_servers, self._use_servers)
        configurator.followers.append(lambda kind, number, why: self._offers.look())

    async def run(self) -> None:
        """For ever."""
        async with contextlib.aclosing(self._names):
            await self._offers.run()

    def _wants_servers(self) -> bool:
        account = self._configurator.settings.account
        if account is None:
            return False
        return not (account.domain or account.registrar or account.outbound_proxy)

    async def _use_servers(self, servers: tuple[str, ...]) -> None:
        try:
            await self._configurator.base_changed("dhcp", {"sip": {"servers": list(servers)}})
        except SettingsError as fault:
            log.warning("SIP servers: %s: not used: %s", ", ".join(servers), fault)
