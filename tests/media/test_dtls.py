"""DTLS-SRTP handshakes without a network: who is believed, what is lost, what is forged."""

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import InvalidVersion, load_der_x509_certificate
from doorstation.media import dtls
from doorstation.media.dtls import Handshake, HandshakeFailed, is_dtls
from doorstation.media.srtp import DtlsPeer
from OpenSSL import crypto

from tests.support.lab import eventually

NAME, TEXT = dtls.fingerprint().split()
DIGEST = bytes.fromhex(TEXT.replace(":", ""))
SAME = ((NAME, DIGEST),)


def both() -> tuple[Handshake, Handshake]:
    """The one that begins, and the one that waits."""
    return Handshake(DtlsPeer(SAME, active=True)), Handshake(DtlsPeer(SAME, active=False))


def shake(first: Handshake, second: Handshake) -> None:
    flight, here, there = first.start(), second, first
    while flight:
        answer = [out for data in flight for out in here.received(data)]
        flight, here, there = answer, there, here


def test_both_ends_have_each_others_keys() -> None:
    active, passive = both()
    shake(active, passive)
    assert active.keys is not None
    assert passive.keys is not None
    assert active.keys.suite == passive.keys.suite == "AEAD_AES_256_GCM"
    assert active.keys.send == passive.keys.receive
    assert active.keys.receive == passive.keys.send
    assert active.keys.send != active.keys.receive


def test_every_handshake_has_keys_of_its_own() -> None:
    found = set()
    for _ in range(3):
        active, passive = both()
        shake(active, passive)
        assert active.keys is not None
        found.add(active.keys.send)
    assert len(found) == 3


def test_the_fingerprint_is_that_of_the_process_and_does_not_change() -> None:
    assert dtls.fingerprint() == dtls.fingerprint()
    assert NAME == "sha-256"
    assert len(DIGEST) == 32


@pytest.mark.parametrize("active", [True, False])
def test_who_shows_another_certificate_gets_no_keys(active: bool) -> None:
    deceived = Handshake(DtlsPeer((("sha-256", bytes(32)),), active=active))
    other = Handshake(DtlsPeer(SAME, active=not active))
    first, second = (deceived, other) if active else (other, deceived)
    with pytest.raises(HandshakeFailed, match="not the one whose fingerprint was signalled"):
        shake(first, second)
    assert deceived.keys is None


def test_one_of_several_fingerprints_is_enough() -> None:
    several = (("sha-512", bytes(64)), *SAME)
    active = Handshake(DtlsPeer(several, active=True))
    shake(active, Handshake(DtlsPeer(SAME, active=False)))
    assert active.keys is not None


@pytest.mark.parametrize("active", [True, False])
def test_a_certificate_of_a_version_that_does_not_exist_is_known_by_its_octets(
    active: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = dtls._identity()[1].public_bytes(Encoding.DER)
    octets = plain.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    with pytest.raises(InvalidVersion):
        load_der_x509_certificate(octets)
    file = tmp_path / "odd.der"
    file.write_bytes(octets)
    odd = dtls._context.__wrapped__()
    odd.use_certificate_file(file, crypto.FILETYPE_ASN1)
    signalled = ("sha-256", hashlib.sha256(octets).digest())
    seen = Handshake(DtlsPeer((signalled,), active=active))
    unseen = Handshake(DtlsPeer((("sha-256", bytes(32)),), active=active))
    monkeypatch.setattr(dtls, "_context", lambda: odd)
    for here in (seen, unseen):
        other = Handshake(DtlsPeer(SAME, active=not active))
        first, second = (here, other) if active else (other, here)
        if here is seen:
            shake(first, second)
            assert here.keys is not None
        else:
            with pytest.raises(HandshakeFailed, match="not the one whose fingerprint"):
                shake(first, second)


def test_the_one_that_waits_says_nothing_first() -> None:
    _, passive = both()
    assert passive.start() == []


def test_datagrams_fit_a_tunnel_and_are_known_as_handshakes() -> None:
    active, passive = both()
    flight, here, there = active.start(), passive, active
    while flight:
        assert all(len(data) <= dtls.MTU and is_dtls(data) for data in flight)
        answer = [out for data in flight for out in here.received(data)]
        flight, here, there = answer, there, here


@pytest.mark.parametrize("data", [b"", b"\x80" + bytes(20), b"\x00\x01" + bytes(20), b"\x16"])
def test_sound_and_stun_are_no_handshakes(data: bytes) -> None:
    assert not is_dtls(data)


def test_a_forged_beginning_does_not_stop_the_real_one() -> None:
    """Who forges the far end's address never sees the cookie that is sent there."""
    active, passive = both()
    for _ in range(20):
        forger, _ = both()
        for data in forger.start():
            (reply,) = passive.received(data)
            assert len(reply) < len(data), "nor is anybody flooded through us"
    shake(active, passive)
    assert active.keys is not None
    assert passive.keys is not None


@pytest.mark.parametrize("begun", [False, True])
def test_junk_between_the_flights_is_passed_over(begun: bool) -> None:
    active, passive = both()
    first = active.start() if begun else []
    for junk in (b"\x16\xfe\xfd" + bytes(60), b"\x17" * 100, b"\x3f" + bytes(50), b"\x14" * 14):
        assert passive.received(junk) == []
        assert active.received(junk) == [] if begun else True
    if begun:
        for data in first:
            passive.received(data)
    else:
        shake(active, passive)
        assert active.keys is not None


def test_the_last_flight_is_said_again_when_it_was_lost() -> None:
    active, passive = both()
    flight, here, there = active.start(), passive, active
    while not passive.keys:
        answer = [out for data in flight for out in here.received(data)]
        flight, here, there = answer, there, here
    assert flight
    assert active.keys is None
    repeated = eventually(active.timer_fired, "OpenSSL's second is over")
    for data in [out for each in repeated for out in passive.received(each)]:
        active.received(data)
    assert active.keys is not None
    assert passive.keys is not None
    assert active.keys.send == passive.keys.receive


def test_nothing_is_repeated_before_its_time() -> None:
    active, _ = both()
    assert active.start()
    assert active.timer_fired() == []
