"""What the system's own DHCP client was given, where a server does not answer our question.

Each client keeps it in its own way: dhclient as a text of blocks, networkd as lines of KEY=VALUE,
dhcpcd as the packet itself. Readers take what they can and never fail: the files are not ours.
"""

import contextlib
import re
from typing import Final

from doorstation.dhcp import offered
from doorstation.dhcp.offered import Offered
from doorstation.dhcp.options import parse_options
from doorstation.errors import MalformedPacket

_MAGIC: Final = bytes.fromhex("63825363")
_OPTIONS_AT: Final = 240
"""Bytes of BOOTP's fixed fields, the magic cookie the last four."""
_NUMBERS: Final = {"domain-name": offered.DOMAIN, "sip-servers": offered.SIP, "unknown-120": 120}
# Blanks within the line: with line ends among them, empty lines would be read from each anew.
_OPTION: Final = re.compile(r"^[ \t]*option ([a-z0-9-]+) (.*);[ \t\r]*$", re.MULTILINE)


def of_dhclient(file: bytes) -> Offered:
    """The last lease of a file of ISC's dhclient (dhclient.leases(5))."""
    found: dict[int, bytes] = {}
    for name, value in _OPTION.findall(file.decode("latin-1").rpartition("lease {")[2]):
        number = _NUMBERS.get(name)
        if number is None:
            continue
        if value.startswith('"'):
            found[number] = value.strip('"').encode("ascii", "replace")
        else:
            with contextlib.suppress(ValueError):
                found[number] = bytes(int(octet, 16) for octet in value.split(":"))
    return offered.offered_v4("dhclient's lease", found, [])


def of_networkd(file: bytes) -> Offered:
    """A file of /run/systemd/netif/leases; it knows addresses of SIP servers only."""
    lines = dict(line.split("=", 1) for line in file.decode("latin-1").splitlines() if "=" in line)
    domain = lines.get("DOMAINNAME", "")
    return Offered(
        server="networkd's lease",
        sip_servers=tuple(lines.get("SIP", "").split()),
        domains=(domain,) if domain else (),
    )


def of_dhcpcd(packet: bytes) -> Offered:
    """A file of /var/lib/dhcpcd: the server's last answer as it came."""
    faults: list[str] = []
    found: dict[int, bytes] = {}
    if packet[_OPTIONS_AT - 4 : _OPTIONS_AT] == _MAGIC:
        with contextlib.suppress(MalformedPacket):
            found, faults = parse_options(packet[_OPTIONS_AT:])
    return offered.offered_v4("dhcpcd's lease", found, faults)
