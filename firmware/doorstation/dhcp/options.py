"""DHCP options, read as they come: what is wrong in one is named, the rest is used."""

import ipaddress
import struct
from collections.abc import Iterator
from typing import Final

from doorstation.errors import MalformedPacket

Options = dict[int, bytes]

MAX_LIST: Final = 16
"""Servers, names or addresses taken from one option: bounds what a rogue server can have us try."""

_MAX_NAME: Final = 255
_MAX_POINTERS: Final = 16

_PAD: Final = 0
_END: Final = 255


def parse_options(data: bytes) -> tuple[Options, list[str]]:
    """One options field (RFC 2132 2): ({code: value}, faults).

    An option that comes several times is one long one, in that order (RFC 3396).
    """
    found: Options = {}
    position = 0
    while position < len(data) and data[position] != _END:
        code = data[position]
        position += 1
        if code == _PAD:
            continue
        if position >= len(data):
            return found, [f"option {code}: cut off before its length"]
        length = data[position]
        value = data[position + 1 : position + 1 + length]
        if len(value) < length:
            return found, [f"option {code}: {length} bytes announced, {len(value)} there"]
        found[code] = found.get(code, b"") + value
        position += 1 + length
    return found, []


def parse_options6(data: bytes) -> tuple[Options, list[str]]:
    """DHCPv6 options (RFC 8415 21.1): ({code: value of the first}, faults)."""
    found: Options = {}
    position = 0
    while position < len(data):
        if position + 4 > len(data):
            return found, ["an option is cut off before its length"]
        code, length = struct.unpack_from("!HH", data, position)
        value = data[position + 4 : position + 4 + length]
        if len(value) < length:
            return found, [f"option {code}: {length} bytes announced, {len(value)} there"]
        found.setdefault(code, value)
        position += 4 + length
    return found, []


def format_option(code: int, value: bytes) -> bytes:
    """One option of DHCPv4. Raises ValueError when it is too long for one."""
    if len(value) > 255:
        raise ValueError(f"option {code}: {len(value)} bytes, 255 fit")
    return bytes((code, len(value))) + value


def parse_text(value: bytes) -> str:
    """Text, without the NULs that some servers end it with (RFC 2132 2).

    Raises MalformedPacket when it is empty or not printable ASCII.
    """
    text = value.rstrip(b"\0")
    if not text:
        raise MalformedPacket("empty")
    for place, octet in enumerate(text):
        if not 0x20 < octet < 0x7F:
            raise MalformedPacket(f"byte {place} is 0x{octet:02x}: no text without blanks")
    return text.decode("ascii")


def parse_addresses(value: bytes) -> tuple[str, ...]:
    """IPv4 addresses, four bytes each. Raises MalformedPacket."""
    if not value or len(value) % 4:
        raise MalformedPacket(f"{len(value)} bytes are no list of IPv4 addresses")
    return _addresses(value, 4)


def parse_addresses6(value: bytes) -> tuple[str, ...]:
    """IPv6 addresses, sixteen bytes each. Raises MalformedPacket."""
    if not value or len(value) % 16:
        raise MalformedPacket(f"{len(value)} bytes are no list of IPv6 addresses")
    return _addresses(value, 16)


def _addresses(value: bytes, size: int) -> tuple[str, ...]:
    found = []
    for place in range(0, len(value), size):
        address = ipaddress.ip_address(value[place : place + size])
        if address.is_unspecified or address.is_multicast:
            raise MalformedPacket(f"{address} is no server's address")
        found.append(str(address))
    return tuple(found[:MAX_LIST])


def parse_names(value: bytes) -> tuple[str, ...]:
    """Domain names in DNS wire form (RFC 1035 3.1), with pointers back into the list (RFC 3397 2).

    Raises MalformedPacket: cut off, a pointer that does not lead back, a label that is no host's.
    """
    if not value:
        raise MalformedPacket("empty")
    names: list[str] = []
    position = 0
    while position < len(value) and len(names) < MAX_LIST:
        start = position
        labels, position = parse_name(value, start)
        if labels:
            names.append(host_name(labels, start))
    if not names:
        raise MalformedPacket("no name in it")
    return tuple(names)


def parse_name(value: bytes, position: int) -> tuple[list[bytes], int]:
    """The labels of the name at `position`, and where what follows it begins (RFC 1035 4.1.4).

    Raises MalformedPacket.
    """
    labels: list[bytes] = []
    after: int | None = None
    pointers = length = 0
    while True:
        if position >= len(value):
            raise MalformedPacket(f"byte {position}: the name is cut off")
        octet = value[position]
        if octet == 0:
            return labels, position + 1 if after is None else after
        if octet >= 0xC0:
            if position + 1 >= len(value):
                raise MalformedPacket(f"byte {position}: the pointer is cut off")
            target = (octet & 0x3F) << 8 | value[position + 1]
            pointers += 1
            # Only backwards, and not for ever: two that point at each other would be a loop.
            if target >= position or pointers > _MAX_POINTERS:
                raise MalformedPacket(f"byte {position}: the pointer leads in a circle")
            after = position + 2 if after is None else after
            position = target
            continue
        if octet > 63:
            raise MalformedPacket(f"byte {position}: 0x{octet:02x} is no label's length")
        label = value[position + 1 : position + 1 + octet]
        if len(label) < octet:
            raise MalformedPacket(f"byte {position}: the label is cut off")
        length += octet + 1
        if length > _MAX_NAME:
            raise MalformedPacket(f"byte {position}: a name of more than {_MAX_NAME} bytes")
        labels.append(label)
        position += 1 + octet


def host_name(labels: list[bytes], position: int) -> str:
    """The name of a host with these labels. Raises MalformedPacket, for the name at `position`."""
    for label in labels:
        text = label.decode("ascii", "replace")
        if not all(sign.isascii() and (sign.isalnum() or sign in "-_") for sign in text):
            raise MalformedPacket(f"byte {position}: {text!r} is no part of a host name")
    return b".".join(labels).decode("ascii").lower()


def parse_sip_servers(value: bytes) -> tuple[str, ...]:
    """Option 120 of DHCPv4 (RFC 3361): encoding 0 names, encoding 1 addresses, in order.

    Raises MalformedPacket.
    """
    if not value:
        raise MalformedPacket("empty")
    match value[0]:
        case 0:
            return parse_names(value[1:])
        case 1:
            return parse_addresses(value[1:])
        case encoding:
            raise MalformedPacket(f"encoding {encoding}: 0 (names) and 1 (addresses) exist")


def parse_sub_options(value: bytes) -> dict[int, bytes]:
    """Vendor-specific information, option 43, as sub-options (RFC 2132 8.4).

    Raises MalformedPacket.
    """
    found, faults = parse_options(value)
    if faults:
        raise MalformedPacket(f"sub-{faults[0]}")
    return found


def parse_vendor_options(value: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Option 125 (RFC 3925 4): (enterprise number, its sub-options). Raises MalformedPacket."""
    position = 0
    while position < len(value):
        if position + 5 > len(value):
            raise MalformedPacket(f"byte {position}: cut off before the length")
        (enterprise,) = struct.unpack_from("!I", value, position)
        length = value[position + 4]
        data = value[position + 5 : position + 5 + length]
        if len(data) < length:
            raise MalformedPacket(f"enterprise {enterprise}: {length} bytes announced")
        yield enterprise, parse_sub_options(data)
        position += 5 + length
