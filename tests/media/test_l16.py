"""L16: network byte order, whole samples, packets that a line carries."""

import pytest
from doorstation.errors import MalformedPacket
from doorstation.media.l16 import L16


def test_the_first_octet_is_the_high_one() -> None:
    assert L16(16000).encode((258).to_bytes(2, "little") * 2) == b"\x01\x02\x01\x02"
    assert L16(16000).decode(b"\x01\x02") == (258).to_bytes(2, "little")


def test_half_a_sample_is_malformed() -> None:
    assert L16(8000).samples(b"abc") == 0
    with pytest.raises(MalformedPacket, match="3 octets"):
        L16(8000).decode(b"abc")


@pytest.mark.parametrize(
    ("rate", "wanted", "written"),
    [(8000, 20, 20), (8000, 120, 80), (16000, 20, 20), (16000, 60, 40)],
)
def test_a_packet_stays_below_what_a_line_carries(rate: int, wanted: int, written: int) -> None:
    assert L16(rate).packet_ms(wanted) == written
