"""What clients write down, as they write it."""

import time

from doorstation.dhcp.leases import of_dhclient, of_dhcpcd, of_networkd

DHCLIENT = """lease {
  interface "eth0";
  option sip-servers 1:a:0:0:1;
}
lease {
  interface "eth0";
  fixed-address 10.77.0.141;
  option subnet-mask 255.255.255.0;
  option domain-name "example.test";
  option sip-servers 0:4:73:69:70:31:7:65:78:61:6d:70:6c:65:4:74:65:73:74:0;
  renew 0 2026/11/22 10:00:00;
}
"""


def test_last_lease_of_dhclient_counts() -> None:
    found = of_dhclient(DHCLIENT.encode())
    assert found.sip_servers == ("sip1.example.test",)
    assert found.domains == ("example.test",)


def test_networkd_keeps_addresses() -> None:
    found = of_networkd(b"# private\nADDRESS=10.0.0.9\nSIP=10.0.0.5 10.0.0.6\nDOMAINNAME=a.test\n")
    assert (found.sip_servers, found.domains) == (("10.0.0.5", "10.0.0.6"), ("a.test",))


def test_dhcpcd_keeps_the_packet() -> None:
    packet = (
        bytes(236) + bytes.fromhex("63825363") + b"\x35\x01\x05\x78\x05\x01\x0a\x00\x00\x05\xff"
    )
    assert of_dhcpcd(packet).sip_servers == ("10.0.0.5",)


def test_files_of_no_sense_give_nothing() -> None:
    for data in (b"", b"\xff" * 400, b"lease {", b"option sip-servers zz:1;\n"):
        assert not of_dhcpcd(data).useful
        assert not of_dhclient(data).useful
        assert not of_networkd(data).useful


def test_file_of_empty_lines_takes_time_by_its_length_and_no_more() -> None:
    def cost(lines: int) -> float:
        began = time.process_time()
        of_dhclient(b"lease {" + b"\n" * lines)
        return time.process_time() - began

    assert min(cost(32_000) for _ in range(3)) < 30 * max(cost(4_000), 1e-4)
