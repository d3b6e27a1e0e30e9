"""What a DHCP server's answer offers a door: SIP servers, where its configuration lies, time."""

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from doorstation.dhcp import options
from doorstation.dhcp.options import Options
from doorstation.errors import MalformedPacket

T = TypeVar("T")

DOMAIN: Final = 15
NTP: Final = 42
VENDOR: Final = 43
TFTP_NAME: Final = 66
BOOT_FILE: Final = 67
SEARCH: Final = 119
SIP: Final = 120
VENDOR_IDENTIFIED: Final = 125
TFTP_ADDRESSES: Final = 150
URL_159: Final = 159
URL_160: Final = 160

WANTED: Final = (
    SIP, VENDOR, URL_160, URL_159, TFTP_NAME, BOOT_FILE, TFTP_ADDRESSES, VENDOR_IDENTIFIED, NTP,
    DOMAIN, SEARCH,
)  # fmt: skip

SIP_NAMES_6: Final = 21
SIP_ADDRESSES_6: Final = 22
SEARCH_6: Final = 24

WANTED_6: Final = (SIP_NAMES_6, SIP_ADDRESSES_6, SEARCH_6)

OWN_FILE: Final = "{mac}.jws"
"""Asked for where a TFTP server is named and no file."""

_SCHEMES: Final = ("https://", "http://", "tftp://")


class Location(msgspec.Struct, frozen=True):
    """A place for the configuration. `option`: where it was named, for the log."""

    url: str
    option: str


class Offered(msgspec.Struct, frozen=True):
    """One server's answer. Names and addresses stand in the server's order; `faults` name the
    option and the byte of what could not be used."""

    server: str
    sip_servers: tuple[str, ...] = ()
    locations: tuple[Location, ...] = ()
    ntp_servers: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def useful(self) -> bool:
        """Whether there is anything in it that a door looks for."""
        return bool(self.sip_servers or self.locations or self.domains or self.ntp_servers)


class _Reader:
    """Reads one answer's options; a fault costs its option only."""

    def __init__(self, found: Options, faults: list[str]) -> None:
        self._options = found
        self.faults = faults

    def read(self, code: int, parse: Callable[[bytes], T]) -> T | None:
        value = self._options.get(code)
        if value is None:
            return None
        try:
            return parse(value)
        except MalformedPacket as fault:
            self.faults.append(f"option {code}: {fault}")
            return None


def offered_v4(server: str, found: Options, faults: list[str]) -> Offered:
    """What a DHCPv4 answer holds for us."""
    reader = _Reader(found, list(faults))
    domain = reader.read(DOMAIN, options.parse_text)
    search = reader.read(SEARCH, options.parse_names) or ()
    return Offered(
        server=server,
        sip_servers=reader.read(SIP, options.parse_sip_servers) or (),
        locations=_locations(reader),
        ntp_servers=reader.read(NTP, options.parse_addresses) or (),
        domains=tuple(dict.fromkeys(name for name in (domain, *search) if name)),
        faults=tuple(reader.faults),
    )


def offered_v6(server: str, found: Options, faults: list[str]) -> Offered:
    """What a DHCPv6 answer holds for us: names, then addresses (RFC 3319 3.2)."""
    reader = _Reader(found, list(faults))
    names = reader.read(SIP_NAMES_6, options.parse_names) or ()
    addresses = reader.read(SIP_ADDRESSES_6, options.parse_addresses6) or ()
    return Offered(
        server=server,
        sip_servers=names + addresses,
        domains=reader.read(SEARCH_6, options.parse_names) or (),
        faults=tuple(reader.faults),
    )


def _locations(reader: _Reader) -> tuple[Location, ...]:
    """Places in the order in which they are tried: 43, 160, 159, 66 with 67, 150 with 67."""
    found = [*(reader.read(VENDOR, _vendor_locations) or ())]
    for code in (URL_160, URL_159):
        if text := reader.read(code, options.parse_text):
            found.append(Location(_url(text), str(code)))
    file = reader.read(BOOT_FILE, options.parse_text) or ""
    name = reader.read(TFTP_NAME, options.parse_text)
    if file.lower().startswith(_SCHEMES):
        found.append(Location(file, "67"))
    elif name:
        found.append(Location(_joined(name, file), "66"))
    for address in reader.read(TFTP_ADDRESSES, options.parse_addresses) or ():
        found.append(Location(_joined(address, file), "150"))
    reader.read(VENDOR_IDENTIFIED, lambda value: list(options.parse_vendor_options(value)))
    return tuple(dict.fromkeys(found))


def _vendor_locations(value: bytes) -> list[Location]:
    """Sub-options 1 and 2 hold a URL; servers set up by hand put the bare URL into the option."""
    if value[:8].lower().startswith(tuple(scheme.encode() for scheme in _SCHEMES)):
        return [Location(options.parse_text(value), "43")]
    found = []
    for code, content in options.parse_sub_options(value).items():
        if code in (1, 2):
            try:
                text = options.parse_text(content)
            except MalformedPacket:
                continue  # an address or a number of somebody else's phones
            if text.lower().startswith(_SCHEMES):
                found.append(Location(text, f"43.{code}"))
    return found


def _url(text: str) -> str:
    return text if "://" in text else f"https://{text}"


def _joined(server: str, file: str) -> str:
    """A server and a file. A server without a scheme is one of TFTP's, as the options mean it: to
    read anything there a name is needed, so a door asks for the file of its own."""
    if "://" not in server:
        server, file = f"tftp://{server}", file or OWN_FILE
    return f"{server.rstrip('/')}/{file.lstrip('/')}" if file else server
