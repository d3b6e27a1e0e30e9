"""SIP servers that the network offers, for an account that names none.

The first answer that offers any is used at once: a door that just woke registers by it. Later ones
count when nothing offered the servers in use any more, so that two DHCP servers of one network, or
its IPv4 and its IPv6, do not have the door move to and fro.
"""

from doorstation.dhcp.offered import Offered
from doorstation.settings.text import parse_host_port

MOST_SERVERS = 8
"""Of one answer: each that is dead costs half a minute before the next is asked."""


class Servers:
    """What is used, and what this round of questions has found."""

    def __init__(self) -> None:
        self.used: tuple[str, ...] = ()
        self._found: list[tuple[str, ...]] = []
        self._answered = False
        self._guessed = True
        """What is used was written down somewhere, perhaps of another network."""

    @property
    def found(self) -> bool:
        """Whether this round has found any."""
        return bool(self._found)

    def begin(self) -> None:
        """A round begins."""
        self._found.clear()
        self._answered = False

    def heard(self, offered: Offered) -> bool:
        """An answer; whether other servers are used from now on: at once in place of a guess."""
        self._answered = True
        before, usable = self.used, self._usable(offered.sip_servers)
        if usable and self._guessed:
            self.used, self._guessed = usable, False
        return self.used != before

    def guessed(self, names: tuple[str, ...]) -> None:
        """Servers from elsewhere."""
        usable = self._usable(names)
        if usable and not self.used:
            self.used, self._guessed = usable, True

    def _usable(self, names: tuple[str, ...]) -> tuple[str, ...]:
        usable = tuple(name for name in names if _usable(name))[:MOST_SERVERS]
        if usable:
            self._found.append(usable)
        return usable

    def end(self) -> None:
        """The round is over. A silent network takes nothing away: its server may be starting."""
        if self.used not in self._found and (self._found or self._answered):
            self.used = self._found[0] if self._found else ()


def _usable(name: str) -> bool:
    try:
        host, _ = parse_host_port(name)
    except ValueError:
        return False
    # One of the link alone would have to say of which link.
    return not host.lower().startswith("fe80:")
