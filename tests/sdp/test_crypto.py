"""`a=crypto`, `a=fingerprint` and `a=setup`: what is read, what is skipped, what is never shown."""

import base64

import pytest
from doorstation.media.srtp import SUITES
from doorstation.sdp.crypto import (
    MAX_LINES,
    Crypto,
    format_crypto,
    parse_crypto,
    read_cryptos,
    read_fingerprints,
    read_setup,
)
from doorstation.sdp.description import Attribute, Media, Origin, SessionDescription
from hypothesis import given
from hypothesis import strategies as st

KEY = bytes(range(30))
TEXT = base64.b64encode(KEY).decode()
CM = "AES_CM_128_HMAC_SHA1_80"
DIGEST = ":".join(["AB"] * 32)


def media(*attributes: tuple[str, str]) -> Media:
    return Media("audio", 4000, attributes=tuple(Attribute(*each) for each in attributes))


def session(*attributes: tuple[str, str]) -> SessionDescription:
    return SessionDescription(
        Origin("1", "1", "192.0.2.1"), attributes=tuple(Attribute(*each) for each in attributes)
    )


@pytest.mark.parametrize(
    "value",
    [
        f"1 {CM} inline:{TEXT}",
        f"0 {CM} inline:{TEXT}",
        f"1   {CM.lower()}  INLINE:{TEXT}",
        f"1 {CM} inline:{TEXT}|2^20",
        f"1 {CM} inline:{TEXT}|2^31",
        f"1 {CM} inline:{TEXT}|1048576",
        f"1 {CM} inline:{TEXT} KDR=0 WSH=128",
        f"1 {CM} inline:{TEXT} -UNKNOWN=1",
    ],
)
def test_lines_as_phones_write_them_are_read(value: str) -> None:
    crypto = parse_crypto(value)
    assert crypto is not None
    assert (crypto.suite, crypto.key, crypto.mki) == (CM, KEY, b"")


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_is_read_as_it_is_written(suite: str) -> None:
    crypto = Crypto("3", suite, bytes(range(SUITES[suite].master)))
    written = format_crypto(crypto)
    assert written.name == "crypto"
    assert written.value is not None
    assert parse_crypto(written.value) == crypto


def test_padding_may_be_left_out() -> None:
    key = bytes(range(28))
    text = base64.b64encode(key).decode().rstrip("=")
    crypto = parse_crypto(f"1 AEAD_AES_128_GCM inline:{text}")
    assert crypto is not None
    assert crypto.key == key


@pytest.mark.parametrize(
    ("option", "mki"),
    [
        ("2^20|1:4", b"\0\0\0\1"),
        ("2^31|1:1", b"\1"),
        ("1:32", bytes(31) + b"\1"),
        ("258:2", b"\1\2"),
    ],
)
def test_a_key_identifier_is_read_with_its_length(option: str, mki: bytes) -> None:
    crypto = parse_crypto(f"1 {CM} inline:{TEXT}|{option}")
    assert crypto is not None
    assert crypto.mki == mki


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        f"1 {CM}",
        f"x {CM} inline:{TEXT}",
        f"1 AES_256_CM_HMAC_SHA1_80 inline:{TEXT}",
        f"1 F8_128_HMAC_SHA1_80 inline:{TEXT}",
        f"1 {CM} inline:",
        f"1 {CM} inline:{TEXT[:-4]}",
        f"1 {CM} inline:{TEXT}{TEXT}",
        f"1 {CM} inline:{TEXT[:-1]}!",
        f"1 {CM} inline:{TEXT[:-1]}ü",
        f"1 {CM} uri:{TEXT}",
        f"1 {CM} {TEXT}",
        f"1 {CM} inline:{TEXT}|1:4;inline:{TEXT}|2:4",
        f"1 {CM} inline:{TEXT}|2^",
        f"1 {CM} inline:{TEXT}|soon",
        f"1 {CM} inline:{TEXT}|1:0",
        f"1 {CM} inline:{TEXT}|1:129",
        f"1 {CM} inline:{TEXT}|256:1",
        f"1 {CM} inline:{TEXT}|x:1",
        f"1 {CM} inline:{TEXT} UNENCRYPTED_SRTP",
        f"1 {CM} inline:{TEXT} UNENCRYPTED_SRTCP",
        f"1 {CM} inline:{TEXT} UNAUTHENTICATED_SRTP",
        f"1 {CM} inline:{TEXT} FEC_ORDER=FEC_SRTP",
        f"1 {CM} inline:{TEXT} KDR=24",
        f"1 {CM} inline:{TEXT} WSH=128 NEW_THING",
    ],
)
def test_lines_that_cannot_be_kept_to_are_skipped(value: str) -> None:
    assert parse_crypto(value) is None
    crypto = read_cryptos(media(("crypto", value), ("crypto", f"2 {CM} inline:{TEXT}")))
    assert [each.tag for each in crypto] == ["2"]


@given(st.text(max_size=200))
def test_no_line_does_harm(value: str) -> None:
    parse_crypto(value)
    parse_crypto(f"1 {CM} inline:{value}")
    read_fingerprints(session(), media(("fingerprint", value), ("fingerprint", f"sha-256 {value}")))


def test_only_so_many_lines_are_looked_at() -> None:
    lines = [("crypto", f"{tag} {CM} inline:{TEXT}") for tag in range(1, 100)]
    assert len(read_cryptos(media(*lines))) == MAX_LINES


def test_a_key_is_never_printed() -> None:
    crypto = Crypto("1", CM, KEY)
    assert TEXT not in repr(crypto)
    assert repr(KEY) not in repr(crypto)


def test_a_fingerprint_is_read_of_the_line_or_else_of_the_session() -> None:
    own = ("fingerprint", f"SHA-256 {DIGEST.lower()}")
    other = ("fingerprint", "sha-256 " + ":".join(["CD"] * 32))
    assert read_fingerprints(session(other), media(own)) == (("sha-256", b"\xab" * 32),)
    assert read_fingerprints(session(other), media()) == (("sha-256", b"\xcd" * 32),)
    assert read_fingerprints(session(), media()) == ()


@pytest.mark.parametrize(
    "value",
    [
        "sha-1 " + ":".join(["AB"] * 20),
        "sha-256 " + ":".join(["AB"] * 31),
        "sha-256 " + "AB" * 32,
        "sha-256 " + ":".join(["XY"] * 32),
        "sha-256",
        "",
    ],
)
def test_fingerprints_that_prove_too_little_are_skipped(value: str) -> None:
    assert read_fingerprints(session(), media(("fingerprint", value))) == ()


def test_setup_is_read_of_the_line_or_else_of_the_session() -> None:
    assert read_setup(session(("setup", "active")), media(("setup", " ActPass "))) == "actpass"
    assert read_setup(session(("setup", "active")), media()) == "active"
    assert read_setup(session(), media()) == ""
