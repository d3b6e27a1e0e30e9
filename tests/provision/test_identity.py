"""The door's own key: others can check what it signs, and its certificate names the door."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from doorstation.provision.identity import (
    DoorKey,
    Identity,
    Signed,
    is_of,
    read_result,
    signed_of,
)
from doorstation.provision.jws import NotSigned, PrivateKey, Token, encoded, parse_token

from tests.support.owner import UNTIL, issue, pem

DOOR = "8e2b1c34-0000-4000-8000-b827eb010203"
OWN = Identity.new(DOOR)


def openssl(*arguments: object, data: bytes | None = None) -> bytes:
    done = subprocess.run(
        ["openssl", *map(str, arguments)], input=data, capture_output=True, timeout=30, check=True
    )
    return done.stdout


def test_certificate_names_the_door_and_is_of_the_key_that_signs_results() -> None:
    certificate = x509.load_pem_x509_certificate(OWN.pem())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"urn:uuid:{DOOR}"]
    point = certificate.public_key().public_numbers()  # type: ignore[union-attr]
    assert DoorKey(point.x.to_bytes(32) + point.y.to_bytes(32)) == OWN.public  # type: ignore[union-attr]


def test_fingerprint_is_what_openssl_says_of_the_certificate(tmp_path: Path) -> None:
    (tmp_path / "identity.pem").write_bytes(OWN.pem())
    public = openssl("x509", "-in", tmp_path / "identity.pem", "-pubkey", "-noout")
    der = openssl("pkey", "-pubin", "-outform", "DER", data=public)
    said = openssl("dgst", "-sha256", "-r", data=der)
    assert said.split()[0].decode() == OWN.public.fingerprint


def test_result_is_read_with_the_key_that_signed_it() -> None:
    assert read_result(OWN.sign(b'{"ctr":1}')) == (b'{"ctr":1}', OWN.public)


def test_openssl_checks_what_a_door_signed(tmp_path: Path) -> None:
    token = parse_token(OWN.sign(b"{}"), algorithm="ES256")
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    r, s = (int.from_bytes(token.signature[n : n + 32]) for n in (0, 32))
    (tmp_path / "signature").write_bytes(encode_dss_signature(r, s))
    (tmp_path / "identity.pem").write_bytes(OWN.pem())
    check = ("dgst", "-sha256", "-prverify", tmp_path / "identity.pem", "-signature")
    assert openssl(*check, tmp_path / "signature", data=token.signed) == b"Verified OK\n"


def test_result_that_was_changed_or_signed_otherwise_is_refused() -> None:
    head, payload, signature = OWN.sign(b"{}").split(".")
    with pytest.raises(NotSigned, match="not this key's"):
        read_result(f"{head}.{encoded(b'{ }')}.{signature}")
    with pytest.raises(NotSigned, match="not this key's"):
        read_result(f"{head}.{payload}.{encoded(bytes(64))}")
    with pytest.raises(NotSigned, match="not this key's"):
        read_result(f"{head}.{payload}.{encoded(b'short')}")
    with pytest.raises(NotSigned, match="only ES256"):
        read_result(PrivateKey.new().sign(b"{}", with_key=True))


def test_what_a_door_signed_is_no_order_and_no_file() -> None:
    with pytest.raises(NotSigned, match="only EdDSA"):
        parse_token(OWN.sign(b"{}"))


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        {},
        {"crv": "P-256", "kty": "EC", "x": "AA", "y": "AA"},
        {"crv": "P-256", "kty": "EC", "x": "!", "y": "AA"},
        {"crv": "P-256", "kty": "EC", "x": encoded(bytes(32))},
        {"crv": "Ed25519", "kty": "OKP", "x": PrivateKey.new().public.text},
    ],
)
def test_key_that_is_none_is_refused(jwk: object) -> None:
    with pytest.raises(NotSigned, match="key"):
        DoorKey.of(Token("kid", b"", b"", b"", jwk))


def test_point_that_is_not_on_the_curve_verifies_nothing() -> None:
    assert not DoorKey(b"\1" * 64).verifies(bytes(64), b"")


def test_key_outlives_the_doors_name_and_so_does_what_its_label_says() -> None:
    again = Identity.parse(OWN.pem(), "another")
    assert (again.public, again.claim_code) == (OWN.public, OWN.claim_code)
    assert is_of(OWN.pem(), DOOR)
    assert is_of(again.pem(), "another")
    assert not is_of(again.pem(), DOOR)


def test_claim_code_is_nine_digits_and_another_for_each_key() -> None:
    codes = {Identity.new(DOOR).claim_code for _ in range(20)}
    assert len(codes) == 20
    assert all(len(code.replace(" ", "")) == 9 and len(code.split()) == 3 for code in codes)
    assert all(code.replace(" ", "").isdigit() for code in codes)


@pytest.mark.parametrize("pem", [b"", b"nonsense", PrivateKey.new().pem])
def test_file_that_is_no_key_of_this_kind_is_refused(pem: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Identity.parse(pem, DOOR)


# -- signed by an owner


def test_request_is_of_the_doors_key_and_names_the_door(tmp_path: Path) -> None:
    (tmp_path / "door.csr").write_bytes(OWN.request())
    said = openssl("req", "-in", tmp_path / "door.csr", "-noout", "-verify", "-text").decode()
    assert f"URI:urn:uuid:{DOOR}" in said
    public = openssl("req", "-in", tmp_path / "door.csr", "-noout", "-pubkey")
    der = openssl("pkey", "-pubin", "-outform", "DER", data=public)
    assert hashlib.sha256(der).hexdigest() == OWN.public.fingerprint


def test_chain_over_the_key_that_names_the_door_is_in_the_file_and_said_before_it() -> None:
    chain = pem(issue(OWN.request()))
    file = OWN.pem(chain)
    assert is_of(file, DOOR, chain)
    assert not is_of(file, DOOR)
    assert not is_of(file, "another", chain)
    assert not is_of(OWN.pem(), DOOR, chain)
    assert signed_of(file) == OWN.signed(chain) == Signed("CN=house", "2027-01-31T12:00:00Z")
    assert signed_of(OWN.pem()) is None
    assert str(signed_of(file)) == "signed by CN=house until 2027-01-31T12:00:00Z"
    assert Identity.parse(file, DOOR).public == OWN.public


def test_signers_follow_each_other_up() -> None:
    between = Identity.new("between")
    door = issue(OWN.request(), between, "between")
    chain = pem(door, issue(between.request()))
    assert OWN.signed(chain).issuer == "CN=between"
    stranger = Identity.new("between")
    with pytest.raises(ValueError, match="CN=between did not sign"):
        OWN.signed(pem(door, issue(stranger.request())))


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        (pem(issue(Identity.new(DOOR).request())), "not over this door's key"),
        (pem(issue(Identity.parse(OWN.pem(), "other").request())), "does not name urn:uuid:8e2b"),
        (pem(*[issue(OWN.request())] * 9), "9 certificates, 8 are taken"),
        ("", "PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "."),
    ],
    ids=["key", "name", "long", "empty", "nonsense"],
)
def test_chain_that_is_not_this_doors_is_refused(chain: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        OWN.signed(chain)


def test_certificate_without_names_is_refused() -> None:
    request = x509.load_pem_x509_csr(OWN.request())
    bare = x509.CertificateSigningRequestBuilder(request.subject)
    key = load_pem_private_key(OWN.pem(), None)
    signed = bare.sign(key, SHA256())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not name"):
        OWN.signed(pem(issue(signed.public_bytes(Encoding.PEM))))


def test_end_of_a_certificate_is_near_for_thirty_days() -> None:
    signed = Signed("CN=house", "2027-01-31T12:00:00Z")
    end = UNTIL.timestamp()
    assert signed.state(end - 31 * 86400) == "valid"
    assert signed.state(end - 29 * 86400) == "expires soon"
    assert signed.state(end + 1) == "expired"


def test_signer_can_forge_no_line_of_the_file() -> None:
    chain = pem(issue(OWN.request(), name="x\n-----BEGIN PRIVATE KEY-----"))
    assert OWN.pem(chain).count(b"\n-----BEGIN PRIVATE KEY-----") == 1
