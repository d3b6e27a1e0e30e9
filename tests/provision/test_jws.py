"""Compact JWS with Ed25519: RFC 8037's own example, and everything that is not quite one."""

import base64
import contextlib
import json
import subprocess
from pathlib import Path

import pytest
from doorstation.provision.jws import (
    MAX_TOKEN,
    NotSigned,
    PrivateKey,
    PublicKey,
    parse_token,
)
from hypothesis import given
from hypothesis import strategies as st

RFC_8037_KEY = PublicKey.parse("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
RFC_8037_THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
RFC_8037_TOKEN = (
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_thumbprint_of_rfc_8037_a_3() -> None:
    assert RFC_8037_THUMBPRINT.startswith(RFC_8037_KEY.kid)


def test_signature_of_rfc_8037_a_4() -> None:
    signed, _, signature = RFC_8037_TOKEN.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    assert RFC_8037_KEY.verifies(raw, signed.encode())
    assert not RFC_8037_KEY.verifies(raw, signed.encode() + b"a")
    with pytest.raises(NotSigned, match="no kid"):
        parse_token(RFC_8037_TOKEN)


def test_what_a_key_signed_it_checks() -> None:
    key = PrivateKey.new()
    token = parse_token(key.sign(b'{"op":"status"}'))
    assert token.kid == key.public.kid
    assert token.check(key.public) == b'{"op":"status"}'


def test_key_survives_its_file() -> None:
    key = PrivateKey.new()
    assert PrivateKey.parse(key.pem).public == key.public
    assert PublicKey.parse(key.public.text) == key.public


def test_new_key_can_be_written_after_an_option() -> None:
    assert not any(PrivateKey.new().public.text.startswith("-") for _ in range(300))


def test_key_that_openssl_made_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True, timeout=30
    )
    assert len(PrivateKey.parse(path.read_bytes()).public.raw) == 32


@pytest.mark.parametrize("pem", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\n"])
def test_file_that_is_no_key_is_refused(pem: bytes) -> None:
    with pytest.raises(ValueError, match="no private key in PEM"):
        PrivateKey.parse(pem)


def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "x25519", "-out", path], check=True, timeout=30
    )
    with pytest.raises(ValueError, match="not an Ed25519 key"):
        PrivateKey.parse(path.read_bytes())


def test_signature_of_another_key_is_refused() -> None:
    token = parse_token(PrivateKey.new().sign(b"{}"))
    with pytest.raises(NotSigned, match="not this key's"):
        token.check(PrivateKey.new().public)


def test_changed_payload_is_refused() -> None:
    key = PrivateKey.new()
    head, _, signature = key.sign(b'{"a":1}').split(".")
    with pytest.raises(NotSigned, match="not this key's"):
        parse_token(".".join((head, b64(b'{"a":2}'), signature))).check(key.public)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ({"alg": "none", "kid": "k"}, "only EdDSA"),
        ({"alg": "HS256", "kid": "k"}, "only EdDSA"),
        ({"kid": "k"}, "only EdDSA"),
        ({"alg": "EdDSA", "kid": "k", "crit": ["b64"], "b64": False}, "not known"),
        ({"alg": "EdDSA"}, "no kid"),
        ({"alg": "EdDSA", "kid": 1}, "no kid"),
        ([], "no token"),
    ],
)
def test_other_algorithms_and_extensions_are_refused(head: object, why: str) -> None:
    with pytest.raises(NotSigned, match=why):
        parse_token(f"{b64(json.dumps(head).encode())}.e30.AAAA")


HEAD = b64(b'{"alg":"EdDSA","kid":"k"}')


@pytest.mark.parametrize(
    "text",
    ["", "a.b", "a.b.c.d", "..", "é.e30.AAAA", "e31.e30.AAAA", f"{HEAD}.é.AAAA", f"{HEAD}.e30.A"],
)
def test_text_that_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(NotSigned, match="no token"):
        parse_token(text)


@pytest.mark.parametrize("signature", ["AA==", "AB", "AAAB==", "A A", "AA\n", "+/8", "AA="])
def test_signature_has_one_way_to_be_written(signature: str) -> None:
    assert parse_token(f"{HEAD}.e30.AA").signature == b"\0"
    with pytest.raises(NotSigned, match="no token: not base64url"):
        parse_token(f"{HEAD}.e30.{signature}")


def test_token_is_bounded() -> None:
    with pytest.raises(NotSigned, match="are read"):
        parse_token("a" * (MAX_TOKEN + 1))


@given(st.text(max_size=200) | st.binary(max_size=60).map(lambda data: f"{b64(data)}.e30.AAAA"))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    with contextlib.suppress(NotSigned):
        parse_token(text)


@given(st.binary(max_size=300))
def test_payload_comes_back_byte_for_byte(payload: bytes) -> None:
    key = PrivateKey.parse(
        b"-----BEGIN PRIVATE KEY-----\n"
        b"MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
        b"-----END PRIVATE KEY-----\n"
    )
    assert parse_token(key.sign(payload)).check(key.public) == payload
