"""G.722 against another implementation, octet by octet and sample by sample."""

from pathlib import Path

import pytest
from doorstation.media.g722 import G722
from hypothesis import given
from hypothesis import strategies as st

DATA = Path(__file__).parents[1] / "data" / "g722"


def test_the_coder_writes_the_reference_octets() -> None:
    assert G722().encode((DATA / "in.pcm").read_bytes()) == (DATA / "in.g722").read_bytes()


@pytest.mark.parametrize("name", ["in", "random"])
def test_the_decoder_gives_the_reference_samples(name: str) -> None:
    payload = (DATA / f"{name}.g722").read_bytes()
    assert G722().decode(payload) == (DATA / f"{name}.decoded.pcm").read_bytes()


@pytest.mark.parametrize("milliseconds", [10, 20, 30, 60])
def test_the_length_of_the_packets_does_not_matter(milliseconds: int) -> None:
    pcm = (DATA / "in.pcm").read_bytes()
    size = 32 * milliseconds
    codec = G722()
    pieces = [codec.encode(pcm[at : at + size]) for at in range(0, len(pcm), size)]
    assert b"".join(pieces) == (DATA / "in.g722").read_bytes()
    decoded = b"".join(codec.decode(piece) for piece in pieces)
    assert decoded == (DATA / "in.decoded.pcm").read_bytes()


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_octets_are_sound(payloads: list[bytes]) -> None:
    codec = G722()
    for payload in payloads:
        pcm = codec.decode(payload)
        assert len(pcm) == 2 * codec.samples(payload) == 4 * len(payload)
