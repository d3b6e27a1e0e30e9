"""Which encryption two descriptions agree on, and which keys, over the whole of a call."""

from pathlib import Path

import pytest
from doorstation.errors import ProtocolError
from doorstation.ids import SeededIds
from doorstation.media import dtls
from doorstation.media.srtp import DtlsPeer, Keys
from doorstation.sdp.crypto import read_cryptos, read_fingerprints
from doorstation.sdp.description import Media, parse_sdp
from doorstation.sdp.negotiation import (
    AudioSession,
    Encryption,
    LocalAudio,
    NothingInCommon,
    OfferAnswer,
)

DATA = Path(__file__).parent.parent / "data"
CM = "AES_CM_128_HMAC_SHA1_80"
GCM = "AEAD_AES_256_GCM"
OFF = Encryption()
TAKEN = Encryption(accepted=True)
OPTIONAL = Encryption(offered="beside", accepted=True)
REQUIRED = Encryption(offered="alone", accepted=True, required=True)
BY_DTLS = Encryption(offered="beside", accepted=True, keys=("dtls",))
DTLS_REQUIRED = Encryption(offered="alone", accepted=True, required=True, keys=("dtls",))
EITHER = Encryption(offered="beside", accepted=True, keys=("dtls", "sdes"))

KEY = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
OTHER_KEY = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
PRINT = "sha-256 " + ":".join(["AB"] * 32)
OTHER_PRINT = "sha-256 " + ":".join(["CD"] * 32)


def side(wish: Encryption = OPTIONAL, address: str = "192.0.2.1", seed: int = 1) -> OfferAnswer:
    return OfferAnswer(SeededIds(seed), LocalAudio(address, 10000, encryption=wish))


def sdp(*lines: str, version: int = 1) -> bytes:
    head = ("v=0", f"o=- 7 {version} IN IP4 192.0.2.9", "s=-", "c=IN IP4 192.0.2.9", "t=0 0")
    return "\r\n".join((*head, *lines, "")).encode()


def savp(*lines: str, proto: str = "RTP/SAVP", version: int = 1) -> bytes:
    return sdp(f"m=audio 5000 {proto} 8", *lines, version=version)


def crypto(key: str = KEY, tag: int = 1, suite: str = CM) -> str:
    return f"a=crypto:{tag} {suite} inline:{key}"


def media(body: bytes) -> Media:
    return next(line for line in parse_sdp(body).media if line.port)


def agreed(party: OfferAnswer) -> AudioSession:
    assert party.session is not None
    return party.session


def keys(party: OfferAnswer) -> Keys:
    found = agreed(party).protection
    assert isinstance(found, Keys)
    return found


def peer(party: OfferAnswer) -> DtlsPeer:
    found = agreed(party).protection
    assert isinstance(found, DtlsPeer)
    return found


def capture(name: str) -> bytes:
    return DATA.joinpath(f"sdp_{name}.sdp").read_bytes()


def talking(one: OfferAnswer, other: OfferAnswer) -> None:
    one.answer_received(other.answer(one.offer()))


def opposite(one: OfferAnswer, other: OfferAnswer) -> bool:
    """Whether each receives with what the other sends with."""
    a, b = keys(one), keys(other)
    return (a.suite, a.send, a.receive) == (b.suite, b.receive, b.send)


# --- what is offered ----------------------------------------------------------------------------


def test_required_offers_no_other_way() -> None:
    line = media(side(REQUIRED).offer())
    assert line.proto == "RTP/SAVP"
    assert [each.suite for each in read_cryptos(line)] == [CM, GCM, "AEAD_AES_128_GCM"]
    assert len({each.key for each in read_cryptos(line)}) == 3


def test_optional_offers_keys_in_the_plain_protocol() -> None:
    """RFC 8643: a phone without encryption passes over what it does not know."""
    line = media(side(OPTIONAL).offer())
    assert line.proto == "RTP/AVP"
    assert read_cryptos(line)[0].suite == CM


@pytest.mark.parametrize("wish", [OFF, TAKEN])
def test_nothing_is_offered_where_it_is_not_wished_for(wish: Encryption) -> None:
    line = media(side(wish).offer())
    assert line.proto == "RTP/AVP"
    assert not line.has("crypto")
    assert not line.has("fingerprint")


def test_dtls_is_offered_with_fingerprint_role_and_one_port() -> None:
    for wish, proto in ((BY_DTLS, "RTP/AVP"), (DTLS_REQUIRED, "UDP/TLS/RTP/SAVP")):
        line = media(side(wish).offer())
        assert line.proto == proto
        assert [*line.values("setup")] == ["actpass"]
        assert [*line.values("fingerprint")] == [dtls.fingerprint()]
        assert line.has("rtcp-mux")
        assert not line.has("crypto")


def test_two_calls_have_different_keys() -> None:
    one, other = side(REQUIRED, seed=1), side(REQUIRED, seed=2)
    assert read_cryptos(media(one.offer()))[0].key != read_cryptos(media(other.offer()))[0].key


# --- what is answered ---------------------------------------------------------------------------


@pytest.mark.parametrize("wish", [OPTIONAL, REQUIRED, TAKEN, EITHER])
@pytest.mark.parametrize("proto", ["RTP/SAVP", "RTP/SAVPF", "RTP/AVP", "RTP/AVPF"])
def test_keys_are_taken_in_whatever_protocol_they_come(wish: Encryption, proto: str) -> None:
    party = side(wish)
    line = media(party.answer(savp(crypto(tag=7), proto=proto)))
    assert line.proto == proto
    (own,) = read_cryptos(line)
    assert (own.tag, own.suite, own.key) == ("7", CM, keys(party).send)
    assert keys(party).receive != keys(party).send


def test_the_far_ends_first_suite_that_we_have_is_taken() -> None:
    party = side()
    line = media(
        party.answer(
            savp(
                "a=crypto:1 AES_256_CM_HMAC_SHA1_80 inline:" + "A" * 62,
                crypto(suite="AES_CM_128_HMAC_SHA1_32", tag=2),
                crypto(tag=3),
            )
        )
    )
    assert [each.tag for each in read_cryptos(line)] == ["2"]
    assert keys(party).suite == "AES_CM_128_HMAC_SHA1_32"


def test_phones_of_the_field_are_answered_encrypted() -> None:
    for name, proto, suite in (
        ("yealink_offer_crypto_in_avp", "RTP/AVP", CM),
        ("snom_offer_savp_then_avp", "RTP/SAVP", "AES_CM_128_HMAC_SHA1_32"),
    ):
        party = side(OPTIONAL, "192.168.178.50")
        # The snom's key was shortened when the capture was made fit to be shown.
        offer = capture(name).replace(b"WlJ5aGV0bWVwcXZ1cW9pYzFkNm1uYjV0c2Yz", KEY.encode())
        body = party.answer(offer)
        assert media(body).proto == proto
        assert [each.suite for each in read_cryptos(media(body))] == [suite]
        assert keys(party).suite == suite


def test_a_plain_offer_is_answered_plain_where_encryption_is_optional() -> None:
    party = side(OPTIONAL)
    line = media(party.answer(savp(proto="RTP/AVP")))
    assert not line.has("crypto")
    assert agreed(party).protection is None


@pytest.mark.parametrize(
    ("wish", "offer", "reason"),
    [
        (REQUIRED, savp(proto="RTP/AVP"), "the far end's sound is not encrypted"),
        (DTLS_REQUIRED, savp(proto="RTP/AVP"), "the far end's sound is not encrypted"),
        (DTLS_REQUIRED, savp(crypto()), "no common keys: SRTP (RTP/SAVP) there, DTLS here"),
        (REQUIRED, savp(), "no common keys: SRTP (RTP/SAVP) there, SDES here"),
        (OPTIONAL, savp(), "no common keys"),
        (OPTIONAL, savp(crypto(KEY[:-4])), "no common keys"),
        (
            OPTIONAL,
            savp(f"a=fingerprint:{PRINT}", "a=setup:actpass", proto="UDP/TLS/RTP/SAVP"),
            "no common keys: DTLS-SRTP (UDP/TLS/RTP/SAVP) there, SDES here",
        ),
        (
            EITHER,
            savp("a=fingerprint:sha-1 " + ":".join(["AB"] * 20), proto="UDP/TLS/RTP/SAVP"),
            "no common keys: DTLS-SRTP (UDP/TLS/RTP/SAVP) there, DTLS or SDES here",
        ),
        (OFF, savp(crypto()), "SRTP (RTP/SAVP) is switched off here"),
    ],
)
def test_what_cannot_be_agreed_gets_488_with_the_reason(
    wish: Encryption, offer: bytes, reason: str
) -> None:
    party = side(wish)
    with pytest.raises(NothingInCommon) as caught:
        party.answer(offer)
    assert caught.value.status == 488
    assert caught.value.reason.startswith(reason)
    assert KEY not in caught.value.reason
    assert party.session is None


def test_a_browser_is_refused_for_its_ice() -> None:
    with pytest.raises(NothingInCommon, match="ICE"):
        side(EITHER, "192.0.2.1").answer(capture("browser_webrtc_offer_bundle"))


@pytest.mark.parametrize(
    ("theirs", "ours", "active"),
    [
        ("actpass", "active", True),
        ("passive", "active", True),
        ("active", "passive", False),
        ("", "passive", False),
    ],
)
def test_an_answer_begins_the_handshake_unless_the_far_end_does(
    theirs: str, ours: str, active: bool
) -> None:
    setup = (f"a=setup:{theirs}",) if theirs else ()
    party = side(BY_DTLS)
    offer = savp(f"a=fingerprint:{PRINT}", *setup, "a=rtcp-mux", proto="UDP/TLS/RTP/SAVP")
    line = media(party.answer(offer))
    assert [*line.values("setup")] == [ours]
    assert [*line.values("fingerprint")] == [dtls.fingerprint()]
    assert peer(party) == DtlsPeer((("sha-256", b"\xab" * 32),), active)


@pytest.mark.parametrize(
    ("theirs", "active"), [("active", False), ("passive", True), ("", True), ("nonsense", True)]
)
def test_the_answer_to_our_offer_says_who_begins(theirs: str, active: bool) -> None:
    party = side(DTLS_REQUIRED)
    party.offer()
    setup = (f"a=setup:{theirs}",) if theirs else ()
    party.answer_received(savp(f"a=fingerprint:{PRINT}", *setup, proto="UDP/TLS/RTP/SAVP"))
    assert peer(party).active is active


def test_with_both_offered_our_first_way_is_taken() -> None:
    lines = (crypto(), f"a=fingerprint:{PRINT}", "a=setup:actpass")
    one, other = side(EITHER), side(Encryption(accepted=True, keys=("sdes", "dtls")))
    one.answer(savp(*lines, proto="RTP/AVP"))
    other.answer(savp(*lines, proto="RTP/AVP"))
    assert isinstance(agreed(one).protection, DtlsPeer)
    assert isinstance(agreed(other).protection, Keys)


# --- answers to our offers ----------------------------------------------------------------------


@pytest.mark.parametrize("wish", [OPTIONAL, REQUIRED, EITHER, BY_DTLS, DTLS_REQUIRED])
def test_two_doors_agree(wish: Encryption) -> None:
    one, other = side(wish, seed=1), side(wish, "192.0.2.2", seed=2)
    talking(one, other)
    if "dtls" in wish.keys:
        assert peer(one).active is not peer(other).active
    else:
        assert opposite(one, other)


WISHES = [
    Encryption(offered, accepted, required, keys)
    for keys in (("sdes",), ("dtls",), ("dtls", "sdes"), ("sdes", "dtls"))
    for offered, accepted, required in (
        ("", False, False),
        ("", True, False),
        ("beside", True, False),
        ("alone", True, False),
        ("alone", True, True),
    )
]


@pytest.mark.parametrize("theirs", WISHES, ids=str)
def test_whatever_two_sides_wish_they_agree_on_the_same_or_refuse(theirs: Encryption) -> None:
    for ours in WISHES:
        one, other = side(ours, seed=1), side(theirs, "192.0.2.2", seed=2)
        try:
            talking(one, other)
        except NothingInCommon:
            refusable = ours.offered == "alone" or theirs.required
            assert refusable, (ours, theirs)
            continue
        a, b = agreed(one).protection, agreed(other).protection
        assert type(a) is type(b)
        if isinstance(a, Keys):
            assert opposite(one, other)
            assert "sdes" in ours.keys
            assert "sdes" in theirs.keys
        elif isinstance(a, DtlsPeer):
            assert peer(one).active is not peer(other).active
        else:
            assert not ours.required
            assert not theirs.required
        for first, second in ((one, other), (other, one)):
            first.answer_received(second.answer(first.offer("sendonly")))
            assert (agreed(one).protection, agreed(other).protection) == (a, b)


def test_the_answer_decides_the_suite() -> None:
    party = side(REQUIRED)
    offered = {each.suite: each for each in read_cryptos(media(party.offer()))}
    gcm = "A" * 59 + "="
    party.answer_received(savp(crypto(gcm, 2, GCM)))
    assert keys(party).suite == GCM
    assert keys(party).send == offered[GCM].key


@pytest.mark.parametrize("tag", [0, 1, 3, 9])
def test_an_answer_may_number_the_line_otherwise(tag: int) -> None:
    party = side(REQUIRED)
    party.offer()
    party.answer_received(savp(crypto(tag=tag)))
    assert keys(party).suite == CM


def test_keys_stripped_on_the_way_are_no_plain_call_where_they_are_required() -> None:
    for answer in (savp(), savp(proto="RTP/AVP"), savp("a=crypto:1 NULL inline:x")):
        party = side(REQUIRED)
        party.offer()
        with pytest.raises(NothingInCommon):
            party.answer_received(answer)
        assert party.session is None


def test_a_suite_that_was_not_offered_is_no_answer() -> None:
    party = side(REQUIRED)
    party.offer()
    with pytest.raises(NothingInCommon, match="no common keys"):
        party.answer_received(savp(crypto(suite="AES_CM_128_HMAC_SHA1_32")))


def test_a_phone_that_passes_over_the_keys_is_talked_to_plain_where_they_are_optional() -> None:
    party = side(OPTIONAL)
    party.offer()
    party.answer_received(savp(proto="RTP/AVP"))
    assert agreed(party).protection is None
    assert not media(party.offer()).has("crypto"), "it has declined them once"


# --- the rest of the call -----------------------------------------------------------------------


@pytest.mark.parametrize("wish", [OPTIONAL, REQUIRED])
def test_hold_and_resume_of_either_side_keep_the_keys(wish: Encryption) -> None:
    one, other = side(wish, seed=1), side(wish, "192.0.2.2", seed=2)
    talking(one, other)
    before = keys(one), keys(other)
    for first, second in ((one, other), (other, one)):
        for direction in ("sendonly", "sendrecv"):
            first.answer_received(second.answer(first.offer(direction)))
            assert (keys(one), keys(other)) == before
            assert media(first.offer()).proto == media(second.offer()).proto
            first.discard_offer()
            second.discard_offer()


def test_a_new_key_of_the_far_end_is_answered_by_a_new_one_of_ours() -> None:
    party = side(REQUIRED)
    party.answer(savp(crypto()))
    before = keys(party)
    line = media(party.answer(savp(crypto(OTHER_KEY), version=2)))
    assert keys(party).receive != before.receive
    assert keys(party).send != before.send
    assert read_cryptos(line)[0].key == keys(party).send
    again = keys(party)
    party.answer(savp(crypto(OTHER_KEY), version=3))
    assert keys(party) == again


def test_a_new_key_in_the_answer_to_our_offer_is_taken() -> None:
    party = side(REQUIRED)
    party.offer()
    party.answer_received(savp(crypto()))
    before = keys(party)
    party.offer("sendonly")
    party.answer_received(savp(crypto(OTHER_KEY), "a=recvonly"))
    assert keys(party).receive != before.receive
    assert keys(party).send == before.send


def test_two_phones_behind_one_offer_have_keys_of_their_own() -> None:
    """A 183 of one fork, then the 200 of another."""
    party = side(REQUIRED)
    party.offer()
    party.answer_received(savp(crypto()))
    first = keys(party)
    party.answer_received(savp(crypto(OTHER_KEY)))
    assert keys(party).receive != first.receive


def test_an_offer_that_would_end_encryption_is_refused_where_it_is_required() -> None:
    party = side(REQUIRED)
    party.answer(savp(crypto()))
    before = agreed(party)
    for offer in (savp(proto="RTP/AVP", version=2), savp(version=2)):
        with pytest.raises(ProtocolError):
            party.answer(offer)
        assert agreed(party) == before


def test_an_association_stands_while_the_certificate_does() -> None:
    party = side(DTLS_REQUIRED)
    proto = "UDP/TLS/RTP/SAVP"
    party.answer(savp(f"a=fingerprint:{PRINT}", "a=setup:active", proto=proto))
    assert peer(party).active is False
    again = savp(f"a=fingerprint:{PRINT}", "a=setup:actpass", proto=proto, version=2)
    line = media(party.answer(again))
    assert [*line.values("setup")] == ["passive"], "as it was"
    other = savp(f"a=fingerprint:{OTHER_PRINT}", "a=setup:actpass", proto=proto, version=3)
    party.answer(other)
    assert peer(party).active is True
    assert read_fingerprints(parse_sdp(other), media(other)) == peer(party).fingerprints


def test_nothing_that_is_printed_holds_a_key() -> None:
    party = side(REQUIRED)
    party.answer(savp(crypto()))
    shown = repr(party.session)
    assert repr(keys(party).receive) not in shown
    assert repr(keys(party).send) not in shown
