"""SRTP: the vectors of RFC 3711 and RFC 7714, and what an attacker or a bad line does to it."""

import subprocess
import sys

import pytest
from doorstation.media.srtp import MAX_SSRCS, SUITES, Keys, Srtp

from tests.media import srtp_reference as reference

NAMES = tuple(SUITES)
MASTER = bytes.fromhex("e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6")
"""Key and salt of RFC 3711 B.3."""


def hexed(text: str) -> bytes:
    return bytes.fromhex(text.replace("\n", " "))


def keys(suite: str, send: int = 1, receive: int = 2, mki: bytes = b"") -> Keys:
    size = SUITES[suite].master
    return Keys(suite, bytes([send]) * size, bytes([receive]) * size, mki)


def pair(suite: str = NAMES[0]) -> tuple[Srtp, Srtp]:
    return Srtp(keys(suite)), Srtp(keys(suite, 2, 1))


def rtp(sequence: int, ssrc: int = 0xCAFEBABE, payload: bytes = b"sound") -> bytes:
    head = b"\x80\x08" + (sequence & 0xFFFF).to_bytes(2, "big") + bytes(4)
    return head + ssrc.to_bytes(4, "big") + payload


def rtcp(ssrc: int = 0xCAFEBABE) -> bytes:
    return b"\x80\xc9\x00\x01" + ssrc.to_bytes(4, "big")


# --- vectors ------------------------------------------------------------------------------------


def test_counter_mode_of_rfc_3711_b2() -> None:
    key = hexed("2B7E151628AED2A6ABF7158809CF4F3C")
    iv = reference.cm_iv(hexed("F0F1F2F3F4F5F6F7F8F9FAFBFCFD"), bytes(4), 0)
    stream = reference.key_stream(key, iv, 0xFF02 * 16)
    assert stream[:48] == hexed(
        "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB"
        "41E95B3BB0A2E8DD477901E4FCA894C0"
    )
    assert stream[-48:] == hexed(
        "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE"
        "6A2CC3787889374FBEB4C81B17BA6C44"
    )


def test_key_derivation_of_rfc_3711_b3() -> None:
    key, salt = MASTER[:16], MASTER[16:]
    assert reference.derive(key, salt, reference.ENCRYPTION, 16) == hexed(
        "C61E7A93744F39EE10734AFE3FF7A087"
    )
    assert reference.derive(key, salt, reference.SALT, 14) == hexed("30CBBC08863D8C85D49DB34A9AE1")
    assert reference.derive(key, salt, reference.AUTHENTICATION, 94)[:20] == hexed(
        "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"
    )


RFC_7714_RTP = hexed(
    "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976"
    "69736120 696e2070 61727465 73207472 6573"
)
RFC_7714_RTCP = hexed(
    "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61"
    "deadbeef deadbeef deadbeef deadbeef deadbeef"
)
RFC_7714_SALT = hexed("517569642070726f2071756f")


@pytest.mark.parametrize(
    ("octets", "sealed"),
    [
        (
            16,  # RFC 7714 §16.1.1
            "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5"
            "0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        ),
        (
            32,  # §16.2.1
            "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238"
            "9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        ),
    ],
)
def test_rtp_of_rfc_7714_section_16(octets: int, sealed: str) -> None:
    key = bytes(range(octets))
    assert reference.gcm_rtp(key, RFC_7714_SALT, RFC_7714_RTP, 0) == hexed(sealed)


def test_rtcp_of_rfc_7714_section_17() -> None:
    key = bytes(range(16))
    assert reference.gcm_rtcp(key, RFC_7714_SALT, RFC_7714_RTCP, 0x5D4) == hexed(
        "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d"
        "c676a5f1 730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872"
        "45d9eade 800005d4"
    )


@pytest.mark.parametrize(("suite", "tag"), [(NAMES[0], 10), (NAMES[1], 4)])
def test_counter_mode_packets_are_those_of_rfc_3711(suite: str, tag: int) -> None:
    """B.3's master key, so the session keys in use are the RFC's own."""
    srtp = Srtp(Keys(suite, MASTER, MASTER))
    packet = rtp(0x1234, payload=b"\xab" * 16)
    assert srtp.protect(packet) == reference.cm_protected(MASTER, packet, 0, tag)
    compound = RFC_7714_RTCP
    sealed = srtp.protect_rtcp(compound)
    index = int.from_bytes(sealed[-14:-10], "big") & 0x7FFFFFFF
    assert sealed == reference.cm_protected(MASTER, compound, 0, 10, rtcp_index=index)
    assert Srtp(srtp.keys).unprotect_rtcp(sealed) == compound


@pytest.mark.parametrize("suite", NAMES[2:])
def test_aead_packets_are_those_of_rfc_7714(suite: str) -> None:
    master = bytes(range(SUITES[suite].key)) + RFC_7714_SALT
    srtp = Srtp(Keys(suite, master, master))
    assert srtp.protect(RFC_7714_RTP) == reference.gcm_protected(master, RFC_7714_RTP, 0)
    sealed = srtp.protect_rtcp(RFC_7714_RTCP)
    index = int.from_bytes(sealed[-4:], "big") & 0x7FFFFFFF
    assert sealed == reference.gcm_protected(master, RFC_7714_RTCP, 0, rtcp_index=index)
    assert Srtp(srtp.keys).unprotect_rtcp(sealed) == RFC_7714_RTCP


# --- the line and the attacker ------------------------------------------------------------------


@pytest.mark.parametrize("suite", NAMES)
def test_what_one_side_protects_the_other_opens_and_nobody_else(suite: str) -> None:
    one, other = pair(suite)
    assert other.unprotect(one.protect(rtp(1))) == rtp(1)
    assert other.unprotect_rtcp(one.protect_rtcp(rtcp())) == rtcp()
    assert one.unprotect(one.protect(rtp(2))) is None, "our own, sent back to us"
    assert Srtp(keys(suite, 5, 6)).unprotect(one.protect(rtp(3))) is None


@pytest.mark.parametrize("suite", NAMES)
def test_plain_damaged_and_repeated_packets_do_not_open(suite: str) -> None:
    one, other = pair(suite)
    sealed, report = one.protect(rtp(1)), one.protect_rtcp(rtcp())
    assert other.unprotect(rtp(1)) is None
    assert other.unprotect_rtcp(rtcp()) is None
    for place in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[place] ^= 1
        assert other.unprotect(bytes(damaged)) is None, place
    assert other.unprotect(sealed) == rtp(1)
    assert other.unprotect(sealed) is None
    assert other.unprotect_rtcp(report) == rtcp()
    assert other.unprotect_rtcp(report) is None


@pytest.mark.parametrize("size", [0, 1, 4, 8, 11, 12, 13, 27, 1501, 2048])
def test_a_packet_of_any_size_is_only_refused(size: int) -> None:
    _, other = pair()
    for packet in (bytes(size), b"\x80" * size, b"\xff" * size, b"\x8f\x90" + bytes(size)):
        assert other.unprotect(packet) is None
        assert other.unprotect_rtcp(packet) is None


def test_the_replay_window_takes_late_packets_once_and_very_late_ones_never() -> None:
    one, other = pair()
    sealed = {number: one.protect(rtp(number)) for number in range(1, 301)}
    assert other.unprotect(sealed[300]) is not None
    assert other.unprotect(sealed[200]) is not None
    assert other.unprotect(sealed[200]) is None
    assert other.unprotect(sealed[100]) is None


def test_the_roll_over_counter_counts_on_across_wraps_and_losses() -> None:
    one, other = pair()
    for number in range(65_000, 4 * 65_536):
        sealed = one.protect(rtp(number))
        if number % 9_000 in (0, 2_000):  # all others are lost
            assert other.unprotect(sealed) == rtp(number), number


def test_packets_from_before_a_wrap_open_after_it() -> None:
    one, other = pair()
    sealed = [one.protect(rtp(number)) for number in range(65_530, 65_542)]
    for at in (0, 8, 3, 11, 5):
        assert other.unprotect(sealed[at]) == rtp(65_530 + at)


def test_another_ssrc_of_the_far_end_has_a_counter_of_its_own() -> None:
    one, other = pair()
    assert other.unprotect(one.protect(rtp(40_000, ssrc=1))) is not None
    assert other.unprotect(one.protect(rtp(5, ssrc=2))) == rtp(5, ssrc=2)
    assert other.unprotect(one.protect(rtp(40_001, ssrc=1))) is not None


def test_who_names_an_ssrc_in_every_packet_takes_no_memory() -> None:
    one, other = pair()
    for ssrc in range(MAX_SSRCS + 5):
        opened = other.unprotect(one.protect(rtp(1, ssrc=ssrc)))
        assert (opened is not None) == (ssrc < MAX_SSRCS)
    assert other.unprotect(one.protect(rtp(2, ssrc=0))) is not None


def test_forged_ssrcs_do_not_use_up_those_of_the_far_end() -> None:
    one, other = pair()
    for ssrc in range(1000):
        assert other.unprotect(rtp(1, ssrc=ssrc, payload=bytes(40))) is None
    assert other.unprotect(one.protect(rtp(1))) is not None


# --- other keys in mid-call ---------------------------------------------------------------------


def test_a_direction_whose_key_stays_counts_on() -> None:
    one, other = pair()
    for number in (65_535, 65_536):
        assert other.unprotect(one.protect(rtp(number))) is not None
    one = one.rekeyed(keys(NAMES[0], 1, 7))
    other = other.rekeyed(keys(NAMES[0], 7, 1))
    sealed = one.protect(rtp(65_537))
    assert sealed == reference.cm_protected(bytes([1]) * 30, rtp(65_537), 1, 10)
    assert other.unprotect(sealed) == rtp(65_537)
    assert one.unprotect(other.protect(rtp(9))) == rtp(9)


@pytest.mark.parametrize("suite", NAMES)
def test_packets_with_the_last_key_open_until_one_with_the_new_key_comes(suite: str) -> None:
    one, other = pair()
    before = [one.protect(rtp(number)) for number in (1, 2, 3)]
    one, other = one.rekeyed(keys(suite, 8, 9)), other.rekeyed(keys(suite, 9, 8))
    assert other.unprotect(before[0]) == rtp(1)
    assert other.unprotect(before[0]) is None
    assert other.unprotect(before[1]) == rtp(2)
    assert other.unprotect(one.protect(rtp(4))) == rtp(4)
    assert other.unprotect(before[2]) is None


@pytest.mark.parametrize("suite", NAMES)
def test_the_key_identifier_of_the_far_end_is_taken_out(suite: str) -> None:
    """RFC 3711 §3.1: between packet and tag; RFC 7714 §8: after it."""
    mki = b"\0\0\0\x07"
    one, other = Srtp(keys(suite)), Srtp(keys(suite, 2, 1, mki))
    tag, rtcp_tag = SUITES[suite].tag, SUITES[suite].rtcp_tag
    sealed, report = one.protect(rtp(1)), one.protect_rtcp(rtcp())
    at, rtcp_at = len(sealed) - tag, len(report) - rtcp_tag
    assert other.unprotect(sealed) is None
    assert other.unprotect(sealed[:at] + b"\0\0\0\x08" + sealed[at:]) is None
    assert other.unprotect(sealed[:at] + mki + sealed[at:]) == rtp(1)
    assert other.unprotect_rtcp(report[:rtcp_at] + mki + report[rtcp_at:]) == rtcp()


def test_keys_are_never_printed() -> None:
    assert "\\x01" not in repr(keys(NAMES[0]))
    assert repr(keys(NAMES[0])).startswith("Keys(suite='AES_CM_128_HMAC_SHA1_80'")


@pytest.mark.parametrize("suite", NAMES)
def test_a_key_of_another_length_is_our_own_mistake(suite: str) -> None:
    with pytest.raises(ValueError, match="needed"):
        Srtp(Keys(suite, bytes(29), bytes(29)))


def test_libraries_are_loaded_for_a_call_that_needs_them_only() -> None:
    """A door that encrypts nothing has none of them in its memory."""
    look = (
        "import doorstation.station, sys;"
        "print({'pylibsrtp', 'OpenSSL', 'cryptography'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
