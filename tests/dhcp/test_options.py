"""Options of DHCPv4 and DHCPv6, byte for byte: the fault is named, the rest is used."""

import struct

import pytest
from doorstation.dhcp.offered import Location, offered_v4, offered_v6
from doorstation.dhcp.options import (
    MAX_LIST,
    format_option,
    parse_addresses,
    parse_names,
    parse_options,
    parse_options6,
    parse_sip_servers,
    parse_sub_options,
    parse_text,
    parse_vendor_options,
)
from doorstation.errors import MalformedPacket
from hypothesis import given
from hypothesis import strategies as st

NAMES = b"\x04sip1\x07example\x04test\x00"


def test_pads_are_passed_over_and_the_end_ends() -> None:
    assert parse_options(b"\x00\x00\x0f\x01a\xff\x0f\x01b") == ({15: b"a"}, [])


def test_option_that_comes_twice_is_one_long_option() -> None:
    """RFC 3396 7."""
    found, faults = parse_options(b"\x78\x03\x00\x04s\x0f\x01x\x78\x04ip1\x00\xff")
    assert (found[120], faults) == (b"\x00\x04sip1\x00", [])


@pytest.mark.parametrize(
    ("data", "kept", "fault"),
    [
        (b"\x0f\x01a\x78", {15: b"a"}, "option 120: cut off before its length"),
        (b"\x0f\x01a\x78\x05ab", {15: b"a"}, "option 120: 5 bytes announced, 2 there"),
    ],
)
def test_overlong_option_is_named_and_what_stood_before_it_is_used(
    data: bytes, kept: dict[int, bytes], fault: str
) -> None:
    assert parse_options(data) == (kept, [fault])


def test_options_of_dhcpv6() -> None:
    data = struct.pack("!HH", 21, 3) + b"\x01a\x00" + struct.pack("!HH", 22, 16) + b"\xfd" * 16
    assert parse_options6(data) == ({21: b"\x01a\x00", 22: b"\xfd" * 16}, [])
    assert parse_options6(data[:-1])[1] == ["option 22: 16 bytes announced, 15 there"]
    assert parse_options6(data + b"\0")[1] == ["an option is cut off before its length"]


def test_nuls_that_end_a_text_are_no_part_of_it() -> None:
    assert parse_text(b"https://conf.example/door\0\0") == "https://conf.example/door"


@pytest.mark.parametrize("value", [b"", b"\0", b"a b", b"a\nb", "ä".encode()])
def test_text_that_could_be_no_address_is_refused(value: bytes) -> None:
    with pytest.raises(MalformedPacket):
        parse_text(value)


def test_option_120_as_names() -> None:
    assert parse_sip_servers(b"\0" + NAMES) == ("sip1.example.test",)


def test_option_120_as_names_with_pointers() -> None:
    """RFC 3397 2: dnsmasq compresses, counted from the byte after the encoding."""
    value = b"\0" + NAMES + b"\x04sip2\xc0\x05"
    assert parse_sip_servers(value) == ("sip1.example.test", "sip2.example.test")


def test_option_120_as_addresses() -> None:
    assert parse_sip_servers(bytes((1, 10, 0, 0, 1, 10, 0, 0, 2))) == ("10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (b"", "empty"),
        (b"\0", "empty"),
        (b"\0\0", "no name in it"),
        (b"\2abc", "encoding 2: 0 (names) and 1 (addresses) exist"),
        (b"\1\x0a\0\0", "3 bytes are no list of IPv4 addresses"),
        (b"\1\0\0\0\0", "0.0.0.0 is no server's address"),
        (b"\1\xe0\0\0\1", "224.0.0.1 is no server's address"),
        (b"\0\x04si", "byte 0: the label is cut off"),
        (b"\0\x03sip", "byte 4: the name is cut off"),
        (b"\0\xc0", "byte 0: the pointer is cut off"),
        (b"\0\xc0\0", "byte 0: the pointer leads in a circle"),
        (b"\0\x01a\xc0\x04\xc0\x02", "byte 2: the pointer leads in a circle"),
        (b"\0\x41a", "byte 0: 0x41 is no label's length"),
        (b"\0\x03a b\0", "byte 0: 'a b' is no part of a host name"),
        (b"\0" + b"\x3fabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk" * 5,
         "byte 192: a name of more than 255 bytes"),
    ],
)  # fmt: skip
def test_option_120_that_is_wrong_says_where(value: bytes, fault: str) -> None:
    with pytest.raises(MalformedPacket) as raised:
        parse_sip_servers(value)
    assert str(raised.value) == fault


def test_name_that_contains_itself_ends() -> None:
    with pytest.raises(MalformedPacket, match="byte 2: the pointer leads in a circle"):
        parse_names(b"\x01a\xc0\x00")


def test_list_is_bounded() -> None:
    assert len(parse_addresses(bytes((10, 0, 0, 1)) * 60)) == MAX_LIST
    assert len(parse_names(b"\x01a\x00" * 60)) == MAX_LIST


def test_vendor_information() -> None:
    assert parse_sub_options(b"\x01\x02ab\x02\x00") == {1: b"ab", 2: b""}
    with pytest.raises(MalformedPacket, match="sub-option 1: 9 bytes announced, 1 there"):
        parse_sub_options(b"\x01\x09a")
    block = struct.pack("!IB", 3561, 3) + b"\x01\x01x"
    assert list(parse_vendor_options(block)) == [(3561, {1: b"x"})]
    with pytest.raises(MalformedPacket, match="enterprise 3561"):
        list(parse_vendor_options(block[:-1]))


def options(**values: bytes) -> dict[int, bytes]:
    return {int(code[1:]): value for code, value in values.items()}


def test_places_are_tried_in_the_order_of_the_options() -> None:
    found = offered_v4(
        "10.0.0.1",
        options(
            o66=b"conf.example\0", o67=b"/door.json\0", o160=b"https://a.example/\0",
            o159=b"b.example/x", o150=bytes((10, 0, 0, 9)), o43=b"\x02\x0ehttps://v.test",
        ),
        [],
    )  # fmt: skip
    assert found.locations == (
        Location("https://v.test", "43.2"),
        Location("https://a.example/", "160"),
        Location("https://b.example/x", "159"),
        Location("tftp://conf.example/door.json", "66"),
        Location("tftp://10.0.0.9/door.json", "150"),
    )
    assert found.faults == ()


def test_bare_server_means_tftp_and_the_doors_own_file() -> None:
    found = offered_v4("10.0.0.1", options(o66=b"10.0.0.9\0", o150=bytes((10, 0, 0, 8))), [])
    assert found.locations == (
        Location("tftp://10.0.0.9/{mac}.jws", "66"),
        Location("tftp://10.0.0.8/{mac}.jws", "150"),
    )


def test_server_with_a_scheme_is_asked_for_what_it_says() -> None:
    found = offered_v4("10.0.0.1", options(o66=b"https://conf.example/"), [])
    assert found.locations == (Location("https://conf.example/", "66"),)


@pytest.mark.parametrize(
    ("value", "places"),
    [
        (b"https://door.test/c", (Location("https://door.test/c", "43"),)),
        (b"\x01\x04\x0a\x00\x00\x01", ()),  # an address for somebody else's phones
        (b"\x09\x0ehttps://v.test", ()),
    ],
)
def test_vendor_option_counts_where_a_url_is_in_it(
    value: bytes, places: tuple[Location, ...]
) -> None:
    found = offered_v4("10.0.0.1", {43: value}, [])
    assert (found.locations, found.faults) == (places, ())


def test_url_in_the_boot_file_needs_no_server() -> None:
    found = offered_v4("10.0.0.1", options(o66=b"10.0.0.2", o67=b"https://c.example/door"), [])
    assert found.locations == (Location("https://c.example/door", "67"),)


def test_fault_in_one_option_costs_that_option_only() -> None:
    found = offered_v4(
        "10.0.0.1",
        options(o120=b"\1\x0a\0", o15=b"example.test\0", o42=bytes((10, 0, 0, 7)), o66=b"\0\0"),
        ["option 77: cut off before its length"],
    )
    assert found.sip_servers == ()
    assert found.domains == ("example.test",)
    assert found.ntp_servers == ("10.0.0.7",)
    assert found.faults == (
        "option 77: cut off before its length",
        "option 120: 2 bytes are no list of IPv4 addresses",
        "option 66: empty",
    )


def test_dhcpv6_names_come_before_addresses() -> None:
    address = bytes.fromhex("fd770000000000000000000000000001")
    found = offered_v6("fe80::1", {21: NAMES, 22: address, 24: b"\x04test\0"}, [])
    assert found.sip_servers == ("sip1.example.test", "fd77::1")
    assert found.domains == ("test",)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_of_their_own(data: bytes) -> None:
    found, faults = parse_options(data)
    offered_v4("10.0.0.1", found, faults)
    found, faults = parse_options6(data)
    offered_v6("fe80::1", found, faults)


@given(st.integers(1, 254), st.binary(max_size=255))
def test_option_is_read_as_it_was_written(code: int, value: bytes) -> None:
    assert parse_options(format_option(code, value)) == ({code: value}, [])
