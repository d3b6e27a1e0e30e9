"""Offer and answer, rule by rule (RFC 3264, and what phones and exchanges make of it)."""

from pathlib import Path

import pytest
from doorstation.errors import MalformedPacket, ProtocolError
from doorstation.ids import SeededIds
from doorstation.sdp import codecs
from doorstation.sdp.codecs import G722, PCMA, PCMU, Codec
from doorstation.sdp.description import Media, SessionDescription, format_sdp, parse_sdp
from doorstation.sdp.negotiation import AudioSession, LocalAudio, NothingInCommon, OfferAnswer
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

DATA = Path(__file__).parent.parent / "data"
DOOR = LocalAudio("192.168.178.50", 10000)
DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
OPUS = Codec("opus", 48000, 2, fmtp="useinbandfec=1")


def capture(name: str) -> bytes:
    return DATA.joinpath(f"sdp_{name}.sdp").read_bytes()


def side(local: LocalAudio = DOOR, seed: int = 1) -> OfferAnswer:
    return OfferAnswer(SeededIds(seed), local)


def sdp(*lines: str, address: str = "192.0.2.9", version: int = 1) -> bytes:
    """A far end's description; lines from the first m-line (or session attribute) on."""
    family = "IP6" if ":" in address else "IP4"
    head = ("v=0", f"o=- 7 {version} IN {family} {address}", "s=-", f"c=IN {family} {address}")
    return "\r\n".join((*head, "t=0 0", *lines, "")).encode()


def agreed(party: OfferAnswer) -> AudioSession:
    assert party.session is not None
    return party.session


def media_of(body: bytes) -> Media:
    (media,) = parse_sdp(body).media
    return media


def version_of(body: bytes) -> int:
    return int(parse_sdp(body).origin.version)


def direction_of(body: bytes) -> str:
    media = next(m for m in parse_sdp(body).media if m.port)
    (direction,) = [a.name for a in media.attributes if a.name in DIRECTIONS]
    return direction


def answered(name: str, local: LocalAudio = DOOR) -> tuple[SessionDescription, AudioSession]:
    party = side(local)
    answer = party.answer(capture(name))
    return parse_sdp(answer), agreed(party)


# --- wide-band ----------------------------------------------------------------------------------

WIDE = LocalAudio(
    "192.0.2.1", 4000, codecs=(G722, codecs.OPUS, PCMA), also=(codecs.L16, codecs.L16_NARROW)
)


def test_wide_band_offer_has_events_for_the_clock_of_each_codec() -> None:
    media = media_of(side(WIDE).offer())
    assert media.formats == ("9", "96", "8", "101", "97")
    assert tuple(media.values("rtpmap")) == (
        "9 G722/8000",  # its clock, not its sampling rate: RFC 3551 §4.5.2
        "96 opus/48000/2",
        "8 PCMA/8000",
        "101 telephone-event/8000",
        "97 telephone-event/48000",
    )
    assert "useinbandfec=1" in next(v for v in media.values("fmtp") if v.startswith("96 "))


def test_wide_band_offer_leaves_room_in_a_datagram() -> None:
    """Of the 1300 octets of an INVITE by UDP (RFC 3261 §18.1.1): headers with credentials."""
    longest = LocalAudio(
        "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65535, codecs=tuple(codecs.OFFERED.values())
    )
    assert len(side(longest).offer()) < 600


def test_g722_without_rtpmap_is_agreed_by_its_number() -> None:
    party = side(WIDE)
    party.offer()
    party.answer_received(sdp("m=audio 5000 RTP/AVP 9 101", "a=rtpmap:101 telephone-event/8000"))
    session = agreed(party)
    assert (session.codec.name, session.codec.clock, session.payload_type) == ("G722", 8000, 9)
    assert (session.event_payload_type, session.event_clock) == (101, 8000)


@pytest.mark.parametrize(
    ("formats", "clock", "number"), [("111 8", 48000, 112), ("8 111", 8000, 101)]
)
def test_events_are_sent_with_the_clock_of_the_codec_that_is_sent(
    formats: str, clock: int, number: int
) -> None:
    lines = (
        f"m=audio 5000 RTP/AVP {formats} 101 112",
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 maxaveragebitrate=20000;usedtx=1",
        "a=rtpmap:101 telephone-event/8000",
        "a=rtpmap:112 telephone-event/48000",
    )
    answering, offering = side(WIDE), side(WIDE, seed=2)
    answer = answering.answer(sdp(*lines))
    offering.offer()
    offering.answer_received(sdp(*lines))
    for party in (answering, offering):
        session = agreed(party)
        assert (session.event_payload_type, session.event_clock) == (number, clock)
    assert {"101 telephone-event/8000", "112 telephone-event/48000"} < {
        *media_of(answer).values("rtpmap")
    }
    # We send as they would like to receive, and tell them what we would.
    if clock == 48000:
        assert agreed(answering).codec.fmtp == "maxaveragebitrate=20000;usedtx=1"
    assert f"111 {codecs.OPUS.fmtp}" in media_of(answer).values("fmtp")


def test_l16_is_taken_where_it_is_offered_and_not_offered() -> None:
    party = side(WIDE)
    answer = party.answer(sdp("m=audio 5000 RTP/AVP 96 8", "a=rtpmap:96 L16/16000"))
    assert media_of(answer).formats == ("96", "8")
    assert (agreed(party).codec.name, agreed(party).codec.clock) == ("L16", 16000)
    assert not any("L16" in value for value in media_of(side(WIDE).offer()).values("rtpmap"))


def test_stereo_l16_is_another_codec() -> None:
    with pytest.raises(NothingInCommon, match="L16 there, G722, opus, PCMA, L16"):
        side(WIDE).answer(sdp("m=audio 5000 RTP/AVP 96", "a=rtpmap:96 L16/16000/2"))


def test_comfort_noise_is_heard_and_answered_but_never_asked_for() -> None:
    party = side(WIDE)
    answer = party.answer(sdp("m=audio 5000 RTP/AVP 9 13"))
    assert media_of(answer).formats == ("9", "13")
    assert agreed(party).noise_receive == (13,)
    assert [number for number, _ in agreed(party).receive] == [9]
    # Not offered: it would invite the far end to leave out what is soft. Yet some send it.
    party = side(WIDE)
    assert "13" not in media_of(party.offer()).formats
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8"))
    assert agreed(party).noise_receive == (13,)


def test_comfort_noise_of_another_clock_than_the_codecs_is_not_heard() -> None:
    lines = "m=audio 5000 RTP/AVP 96 97 13", "a=rtpmap:96 L16/16000", "a=rtpmap:97 CN/16000"
    party = side(WIDE)
    assert media_of(party.answer(sdp(*lines))).formats == ("96", "97")
    assert agreed(party).noise_receive == (97,)


def test_comfort_noise_on_a_number_of_ours_is_what_we_said_it_is() -> None:
    party = side(WIDE)
    party.offer()
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8 101", "a=rtpmap:101 CN/8000"))
    assert agreed(party).noise_receive == (13,)
    assert (101, 8000) in agreed(party).event_receive


# --- our offers ---------------------------------------------------------------------------------


def test_offer_is_short_and_complete() -> None:
    offer = side().offer()
    assert offer == (
        b"v=0\r\n"
        b"o=- 288545018 1 IN IP4 192.168.178.50\r\n"
        b"s=-\r\n"
        b"c=IN IP4 192.168.178.50\r\n"
        b"t=0 0\r\n"
        b"m=audio 10000 RTP/AVP 8 0 101\r\n"
        b"a=rtpmap:8 PCMA/8000\r\n"
        b"a=rtpmap:0 PCMU/8000\r\n"
        b"a=rtpmap:101 telephone-event/8000\r\n"
        b"a=fmtp:101 0-15\r\n"
        b"a=ptime:20\r\n"
        b"a=sendrecv\r\n"
    )
    longest = LocalAudio("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65535)
    assert len(side(longest).offer()) < 350


def test_offer_without_events_lists_none() -> None:
    offer = side(LocalAudio("192.0.2.1", 4000, telephone_event=False)).offer()
    assert media_of(offer).formats == ("8", "0")


def test_offer_over_ipv6_says_so() -> None:
    session = parse_sdp(side(LocalAudio("2001:db8::1", 4000)).offer())
    assert session.connection is not None
    assert (session.origin.family, session.connection.family) == ("IP6", "IP6")


def test_codec_without_static_number_gets_a_dynamic_one() -> None:
    media = media_of(side(LocalAudio("192.0.2.1", 4000, codecs=(OPUS, PCMA))).offer())
    assert media.formats == ("96", "8", "101", "97")
    assert "96 opus/48000/2" in media.values("rtpmap")
    assert "96 useinbandfec=1" in media.values("fmtp")


def test_event_number_gives_way_to_a_codec_configured_on_101() -> None:
    opus = Codec("opus", 48000, 2, payload_type=101)
    offer = side(LocalAudio("192.0.2.1", 4000, codecs=(opus,))).offer()
    assert media_of(offer).formats == ("101", "96", "97")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_offer_carries_the_direction_asked_for(direction: str) -> None:
    assert direction_of(side().offer(direction)) == direction


def test_unknown_direction_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="both"):
        side().offer("both")


# --- answers to our offers ----------------------------------------------------------------------


def test_fritzbox_answer_with_event_on_100_and_two_codecs() -> None:
    """linphone-desktop#118: send with the answer's number, hear both, expect either codec."""
    party = side()
    party.offer()
    party.answer_received(capture("fritzbox_answer_event_on_100"))
    session = agreed(party)
    assert session.remote == ("192.168.178.1", 7082)
    assert session.remote_rtcp == ("192.168.178.1", 7083)
    assert (session.codec, session.payload_type) == (PCMU, 0)
    assert session.receive == ((0, PCMU), (8, PCMA))
    assert session.event_payload_type == 100
    assert session.event_receive == ((101, 8000), (100, 8000))


def test_dynamic_number_remapped_by_the_answer_is_sent_and_both_are_heard() -> None:
    party = side(LocalAudio("192.0.2.1", 4000, codecs=(OPUS,)))
    party.offer()
    party.answer_received(
        sdp("m=audio 5000 RTP/AVP 120", "a=rtpmap:120 opus/48000/2", "a=fmtp:120 stereo=0")
    )
    session = agreed(party)
    assert session.payload_type == session.codec.payload_type == 120
    assert session.codec.fmtp == "stereo=0"
    assert [number for number, _ in session.receive] == [96, 120]


def test_number_of_the_answer_that_means_something_else_to_us_is_not_heard_as_it() -> None:
    party = side(LocalAudio("192.0.2.1", 4000, codecs=(OPUS, PCMA)))
    party.offer()
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8 96", "a=rtpmap:96 telephone-event/8000"))
    session = agreed(party)
    assert session.event_payload_type == 96
    assert session.event_receive == ((101, 8000), (97, 48000), (96, 8000))
    party.answer_received(
        sdp("m=audio 5000 RTP/AVP 98 96", "a=rtpmap:96 telephone-event/8000",
            "a=rtpmap:98 opus/48000/2")
    )  # fmt: skip
    session = agreed(party)
    assert [number for number, _ in session.receive] == [96, 98]
    assert session.event_receive == ((101, 8000), (97, 48000))


def test_codec_never_offered_is_dropped_from_the_answer() -> None:
    party = side(LocalAudio("192.0.2.1", 4000, codecs=(PCMA,)))
    party.offer()
    party.answer_received(sdp("m=audio 5000 RTP/AVP 9 0 8"))
    assert agreed(party).codec == PCMA
    assert agreed(party).receive == ((8, PCMA),)


def test_answer_with_nothing_that_was_offered_is_refused() -> None:
    party = side()
    party.offer()
    with pytest.raises(NothingInCommon, match="no common codec: G729 there, PCMA, PCMU here"):
        party.answer_received(sdp("m=audio 5000 RTP/AVP 18"))
    assert party.session is None


def test_answer_with_port_0_means_refused() -> None:
    party = side()
    party.offer()
    with pytest.raises(NothingInCommon, match="port 0"):
        party.answer_received(sdp("m=audio 0 RTP/AVP 8"))


def test_answer_without_events_still_lets_digits_in_but_sends_none() -> None:
    party = side()
    party.offer()
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8"))
    assert agreed(party).event_payload_type is None
    assert agreed(party).event_receive == ((101, 8000),)


def test_answer_without_an_offer_is_a_fault() -> None:
    with pytest.raises(ProtocolError, match="without an offer"):
        side().answer_received(capture("fritzbox_answer_event_on_100"))


def test_malformed_answer_changes_nothing_and_a_good_one_may_follow() -> None:
    party = side()
    party.offer()
    with pytest.raises(MalformedPacket):
        party.answer_received(b"v=0\r\nnonsense")
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8"))
    assert agreed(party).remote == ("192.0.2.9", 5000)


def test_answer_of_another_branch_replaces_that_of_the_183() -> None:
    """pjproject#657: the 200 may come from another phone than the early media."""
    party = side()
    party.offer()
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8", address="192.0.2.9"))
    party.answer_received(sdp("m=audio 6000 RTP/AVP 0", address="192.0.2.10"))
    assert agreed(party).remote == ("192.0.2.10", 6000)
    assert agreed(party).codec == PCMU


# --- answering ----------------------------------------------------------------------------------


def test_answer_follows_the_order_of_the_offerer() -> None:
    body, session = answered("asterisk_pjsip_offer")
    assert body.media[0].formats == ("0", "8", "101")
    assert session.codec == PCMU
    assert session.receive == ((0, PCMU), (8, PCMA))


def test_answer_follows_our_order_when_configured() -> None:
    local = LocalAudio("192.168.178.50", 10000, answer_order="ours")
    body, session = answered("asterisk_pjsip_offer", local)
    assert body.media[0].formats == ("8", "0", "101")
    assert session.codec == PCMA


def test_answer_uses_the_numbers_of_the_offer() -> None:
    party = side(LocalAudio("192.0.2.1", 4000, codecs=(OPUS, PCMA)))
    answer = party.answer(capture("zoiper_offer"))
    assert media_of(answer).formats == ("106", "8", "98", "101")
    assert list(media_of(answer).values("fmtp")) == [
        "106 useinbandfec=1",
        "98 0-15",
        "101 0-15",
    ]
    session = agreed(party)
    assert session.payload_type == 106
    assert session.codec.fmtp.startswith("sprop-maxcapturerate")
    assert session.receive[0] == (106, Codec("opus", 48000, 2, 106, "useinbandfec=1"))


def test_static_types_without_rtpmap_are_understood() -> None:
    body, session = answered("cisco_static_types_without_rtpmap")
    assert body.media[0].formats == ("8", "0")
    assert session.codec == PCMA
    assert session.event_payload_type is None
    assert session.event_receive == ()


def test_answer_mirrors_number_and_order_of_the_m_lines() -> None:
    body, session = answered("yealink_offer_crypto_in_avp")
    assert [(m.kind, m.port, m.formats) for m in body.media] == [
        ("audio", 10000, ("8", "0", "101")),
        ("video", 0, ("99", "97")),
    ]
    assert body.media[1].attributes == ()
    assert session.remote == ("192.168.1.77", 12040)


def test_unknown_media_keeps_protocol_and_formats_when_refused() -> None:
    offer = sdp("m=image 4512 udptl t38", "m=x-lamp 9 A/B/C * ?", "m=video 0 RTP/AVP",
                "m=audio 5000 RTP/AVP 8", "m=audio 5002 RTP/AVP 8")  # fmt: skip
    answer = parse_sdp(side().answer(offer))
    assert [(m.kind, m.port, m.proto, m.formats) for m in answer.media] == [
        ("image", 0, "udptl", ("t38",)),
        ("x-lamp", 0, "A/B/C", ("*", "?")),
        ("video", 0, "RTP/AVP", ("0",)),
        ("audio", 10000, "RTP/AVP", ("8",)),
        ("audio", 0, "RTP/AVP", ("8",)),
    ]


def test_yealink_crypto_in_plain_avp_is_answered_as_plain() -> None:
    """freeswitch#1254: `a=crypto` under RTP/AVP is an offer of SRTP that may be declined."""
    body, _ = answered("yealink_offer_crypto_in_avp")
    assert not body.media[0].has("crypto")


def test_snom_optional_srtp_takes_the_plain_line_and_refuses_the_other() -> None:
    body, session = answered("snom_offer_savp_then_avp")
    assert [(m.proto, m.port) for m in body.media] == [("RTP/SAVP", 0), ("RTP/AVP", 10000)]
    assert session.codec == PCMU


def test_linphone_avpf_is_mirrored_without_feedback() -> None:
    body, session = answered("linphone_offer_avpf_video")
    assert [(m.kind, m.proto, m.port) for m in body.media] == [
        ("audio", "RTP/AVPF", 10000),
        ("video", "RTP/AVPF", 0),
    ]
    assert not body.media[0].has("rtcp-fb")
    assert session.event_payload_type == 100
    assert session.event_receive == ((101, 48000), (99, 16000), (100, 8000))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("freeswitch_webrtc_offer", "DTLS-SRTP (UDP/TLS/RTP/SAVPF) is switched off here"),
        ("browser_webrtc_offer_bundle", "DTLS-SRTP (UDP/TLS/RTP/SAVPF) is switched off here"),
        ("t38_switch", "the audio stream has port 0"),
    ],
)
def test_offer_that_cannot_be_met_gets_488_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(NothingInCommon) as caught:
        side().answer(capture(name))
    assert caught.value.status == 488
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("m=audio 5000 RTP/SAVP 8",), "SRTP (RTP/SAVP) is switched off here"),
        (("m=audio 5000 RTP/SAVPF 8",), "SRTP (RTP/SAVPF) is switched off here"),
        (("m=audio 5000 TCP/RTP/AVP 8",), "transport TCP/RTP/AVP is not supported"),
        (("m=audio 5000 RTP/AVP 18 9",), "no common codec: G729, G722 there, PCMA, PCMU here"),
        (("m=audio 5000 RTP/AVP 96",), "no common codec: none known there"),
        (("m=audio 5000 RTP/AVP 101", "a=rtpmap:101 telephone-event/8000"), "no common codec"),
        (("m=audio 5000 RTP/AVP 8", "c=IN IP6 2001:db8::1"), "2001:db8::1 is no address that"),
        (("m=audio 5000 RTP/AVP 8", "c=IN IP4 pbx.example"), "pbx.example is no address that"),
        (("m=audio 5000 RTP/AVP 8", "c=IN IP4 224.2.1.1/127"), "224.2.1.1 is no address that"),
        (("m=audio 5000 RTP/AVP 8", "c=IN IP4 255.255.255.255"), "255.255.255.255 is no"),
        (("m=video 5000 RTP/AVP 34",), "no audio in the description"),
        ((), "no audio in the description"),
    ],
)
def test_488_reason_names_what_is_missing(lines: tuple[str, ...], reason: str) -> None:
    with pytest.raises(NothingInCommon) as caught:
        side().answer(sdp(*lines))
    assert caught.value.reason.startswith(reason)


def test_host_name_in_place_of_an_address_stands_for_where_the_signalling_comes_from() -> None:
    """RFC 8866 §5.7 allows it."""
    party = side(replace(DOOR, signalled_by="192.0.2.7"))
    party.answer(sdp("m=audio 5000 RTP/AVP 8", "c=IN IP4 pbx.example"))
    assert agreed(party).remote == ("192.0.2.7", 5000)
    party.answer(sdp("m=audio 5000 RTP/AVP 8", "c=IN IP4 hold.invalid"))
    assert agreed(party).held


def test_488_reason_holds_nothing_that_could_break_a_header() -> None:
    offer = sdp("m=audio 5000 RTP/AVP 96", "a=rtpmap:96 Te\x1bst\x7fü" + "x" * 500 + "/8000")
    with pytest.raises(NothingInCommon) as caught:
        side().answer(offer)
    assert caught.value.reason.isascii()
    assert caught.value.reason.isprintable()
    assert len(caught.value.reason) < 120


def test_audio_line_without_any_connection_is_refused() -> None:
    with pytest.raises(NothingInCommon, match="no c= line"):
        side().answer(b"v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\nm=audio 5000 RTP/AVP 8\r\n")


def test_connection_of_the_m_line_wins_over_that_of_the_session() -> None:
    party = side()
    party.answer(sdp("m=audio 5000 RTP/AVP 8", "c=IN IP4 192.0.2.77"))
    assert agreed(party).remote == ("192.0.2.77", 5000)


def test_ipv6_offer_is_answered_over_ipv6() -> None:
    body, session = answered("ipv6_offer", LocalAudio("2001:db8:17::1", 10000))
    assert body.connection is not None
    assert body.connection.family == "IP6"
    assert session.remote == ("2001:db8:17::20", 30100)


def test_bracketed_zoned_and_mapped_addresses_are_understood() -> None:
    party = side(LocalAudio("2001:db8::1", 10000))
    party.answer(sdp("m=audio 5000 RTP/AVP 8", "c=IN IP6 [2001:db8::2]"))
    assert agreed(party).remote == ("2001:db8::2", 5000)
    party.answer(sdp("m=audio 5000 RTP/AVP 8", "c=IN IP6 fe80::2%eth7"))
    assert agreed(party).remote == ("fe80::2", 5000)
    party = side()
    party.answer(sdp("m=audio 5000 RTP/AVP 8", "c=IN IP6 ::ffff:192.0.2.3"))
    assert agreed(party).remote == ("192.0.2.3", 5000)


def test_event_with_16_khz_clock_alone_is_accepted() -> None:
    party = side()
    offer = sdp("m=audio 5000 RTP/AVP 8 97", "a=rtpmap:97 telephone-event/16000")
    assert media_of(party.answer(offer)).formats == ("8", "97")
    session = agreed(party)
    assert (session.event_payload_type, session.event_clock) == (97, 16000)
    assert session.event_receive == ((97, 16000),)


def test_event_of_every_offered_clock_is_heard_and_the_codecs_clock_is_sent() -> None:
    body, session = answered("freeswitch_offer")
    assert body.media[0].formats == ("0", "8", "101")
    assert (session.event_payload_type, session.event_clock) == (101, 8000)
    assert session.event_receive == ((103, 48000), (101, 8000))


def test_ice_bundle_and_other_attributes_are_not_answered() -> None:
    offer = sdp("a=group:BUNDLE 0", "a=ice-lite", "m=audio 5000 RTP/AVP 8", "a=mid:0",
                "a=ice-ufrag:x", "a=candidate:1 1 udp 1 192.0.2.9 5000 typ host")  # fmt: skip
    answer = parse_sdp(side().answer(offer))
    assert answer.attributes == ()
    assert [a.name for a in answer.media[0].attributes] == ["rtpmap", "ptime", "sendrecv"]


def test_offer_while_ours_is_open_is_glare() -> None:
    party = side()
    party.offer()
    with pytest.raises(ProtocolError) as caught:
        party.answer(sdp("m=audio 5000 RTP/AVP 8"))
    assert caught.value.status == 491


def test_refused_offer_leaves_the_call_as_it_was() -> None:
    party = side()
    before_body = party.answer(sdp("m=audio 5000 RTP/AVP 8"))
    before = party.session
    with pytest.raises(NothingInCommon):
        party.answer(sdp("m=audio 5000 RTP/AVP 18", "m=video 5002 RTP/AVP 34", version=2))
    assert party.session == before
    assert version_of(party.offer()) == version_of(before_body) + 1
    assert len(parse_sdp(party.offer()).media) == 1


def test_stream_that_is_switched_off_within_a_call_is_answered_so_and_may_come_again() -> None:
    """RFC 3264 §8.2, §6: port 0."""
    party = side()
    off = sdp("m=audio 0 RTP/AVP 8", version=2)
    with pytest.raises(NothingInCommon, match="port 0"):
        party.answer(off)
    party.answer(sdp("m=audio 5000 RTP/AVP 8"))
    assert media_of(party.answer(off)).port == 0
    session = agreed(party)
    assert (session.direction, session.held, session.remote[1]) == ("inactive", True, 5000)
    assert media_of(party.answer(sdp("m=audio 5002 RTP/AVP 8", version=3))).port == 10000
    session = agreed(party)
    assert (session.direction, session.held, session.remote[1]) == ("sendrecv", False, 5002)


def test_offer_of_ours_brings_a_stream_again_that_was_switched_off_unless_it_stays_off() -> None:
    party = side()
    party.answer(sdp("m=audio 5000 RTP/AVP 8", "m=video 0 RTP/AVP 34"))
    party.answer(sdp("m=video 0 RTP/AVP 34", "m=audio 0 RTP/AVP 8", version=2))
    for answer in ("m=audio 0 RTP/AVP 8", "m=audio 5002 RTP/AVP 8"):
        offered = parse_sdp(party.offer()).media
        assert [(m.kind, m.port) for m in offered] == [("video", 0), ("audio", 10000)]
        party.answer_received(sdp("m=video 0 RTP/AVP 34", answer, version=3))
        session = agreed(party)
        assert session.direction == ("inactive" if " 0 " in answer else "sendrecv")
    party.offer()
    with pytest.raises(NothingInCommon, match="port 0"):
        party.answer_received(sdp("m=video 0 RTP/AVP 34", "m=audio 0 RTP/AVP 8", version=4))


def test_switch_from_sound_to_fax_is_refused_and_the_call_goes_on() -> None:
    party = side()
    party.answer(sdp("m=audio 5000 RTP/AVP 8"))
    before = party.session
    with pytest.raises(NothingInCommon, match="port 0"):
        party.answer(capture("t38_switch"))
    assert party.session == before


# --- packet times and RTCP ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "ptime", "maxptime"),
    [
        ((), 20, None),
        (("a=ptime:30",), 30, None),
        (("a=ptime:20", "a=ptime:60"), 20, None),
        (("a=ptime:", "a=ptime:x", "a=ptime:0", "a=ptime:40"), 40, None),
        (("a=ptime:20.0",), 20, None),
        (("a=ptime: 60",), 60, None),
        (("a=ptime:60", "a=maxptime:40"), 40, 40),
        (("a=maxptime:5",), 10, 5),
        (("a=ptime:9000",), 120, None),
        (("a=ptime:99999999999999",), 20, None),
    ],
)
def test_packet_time_to_send_is_what_the_far_end_asks(
    lines: tuple[str, ...], ptime: int, maxptime: int | None
) -> None:
    party = side()
    answer = party.answer(sdp("m=audio 5000 RTP/AVP 8", *lines))
    assert (agreed(party).ptime_ms, agreed(party).maxptime) == (ptime, maxptime)
    assert list(media_of(answer).values("ptime")) == ["20"]


def test_packet_time_written_at_session_level_counts_too() -> None:
    party = side()
    party.answer(sdp("a=ptime:30", "m=audio 5000 RTP/AVP 8"))
    assert agreed(party).ptime_ms == 30


@pytest.mark.parametrize(
    ("port", "lines", "rtcp"),
    [
        (5000, (), ("192.0.2.9", 5001)),
        (5000, ("a=rtcp:6000",), ("192.0.2.9", 6000)),
        (5000, ("a=rtcp:6000 IN IP4 192.0.2.10",), ("192.0.2.10", 6000)),
        (5000, ("a=rtcp:6000 IN IP6 2001:db8::1",), None),
        (5000, ("a=rtcp:6000 IN IP4 0.0.0.0",), None),
        (5000, ("a=rtcp:0",), None),
        (5000, ("a=rtcp:junk",), ("192.0.2.9", 5001)),
        (5000, ("a=rtcp",), ("192.0.2.9", 5001)),
        (5000, ("a=rtcp-mux",), ("192.0.2.9", 5000)),
        (5000, ("b=RS:0", "b=RR:0"), None),
        (65535, (), None),
    ],
)
def test_rtcp_goes_where_the_far_end_says(
    port: int, lines: tuple[str, ...], rtcp: tuple[str, int] | None
) -> None:
    """RFC 3605, RFC 5761, RFC 3556, else the next port."""
    party = side()
    party.answer(sdp(f"m=audio {port} RTP/AVP 8", *lines))
    assert agreed(party).remote_rtcp == rtcp


def test_rtcp_mux_is_answered_when_offered_and_kept_in_later_offers() -> None:
    party = side()
    answer = party.answer(sdp("m=audio 5000 RTP/AVP 8", "a=rtcp-mux"))
    assert media_of(answer).has("rtcp-mux")
    assert agreed(party).rtcp_mux
    assert media_of(party.offer()).has("rtcp-mux")
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8", version=2))
    assert not agreed(party).rtcp_mux


def test_rtcp_mux_that_was_not_offered_is_not_believed() -> None:
    party = side()
    party.offer()
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8", "a=rtcp-mux"))
    assert not agreed(party).rtcp_mux
    assert agreed(party).remote_rtcp == ("192.0.2.9", 5001)


# --- hold ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("theirs", DIRECTIONS)
@pytest.mark.parametrize("wish", DIRECTIONS)
def test_direction_of_an_answer_is_what_both_sides_allow(theirs: str, wish: str) -> None:
    party = side()
    answer = party.answer(sdp("m=audio 5000 RTP/AVP 8", f"a={theirs}"), wish)
    may_send = wish in ("sendrecv", "sendonly") and theirs in ("sendrecv", "recvonly")
    may_receive = wish in ("sendrecv", "recvonly") and theirs in ("sendrecv", "sendonly")
    assert direction_of(answer) == agreed(party).direction
    assert agreed(party).may_send == may_send
    assert agreed(party).may_receive == may_receive


@pytest.mark.parametrize("ours", DIRECTIONS)
@pytest.mark.parametrize("theirs", DIRECTIONS)
def test_direction_after_our_offer_is_what_both_sides_allow(ours: str, theirs: str) -> None:
    party = side()
    party.offer(ours)
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8", f"a={theirs}"))
    session = agreed(party)
    assert session.may_send == (
        ours in ("sendrecv", "sendonly") and theirs in ("sendrecv", "recvonly")
    )
    assert session.may_receive == (
        ours in ("sendrecv", "recvonly") and theirs in ("sendrecv", "sendonly")
    )


@pytest.mark.parametrize(
    ("name", "answer_direction"),
    [
        ("yealink_hold_sendonly", "recvonly"),
        ("asterisk_pjsip_hold", "recvonly"),
        ("grandstream_hold_without_last_newline", "recvonly"),
        ("lf_only_session_direction", "recvonly"),
        ("snom_hold_rfc2543", "recvonly"),
    ],
)
def test_hold_by_the_far_end_is_answered_recvonly(name: str, answer_direction: str) -> None:
    """diago#125: also on the last line without newline, at session level, as c=0.0.0.0."""
    party = side()
    answer = party.answer(capture(name))
    assert direction_of(answer) == answer_direction
    assert agreed(party).held
    assert not agreed(party).may_send


def test_direction_of_the_m_line_wins_over_that_of_the_session() -> None:
    party = side()
    party.answer(sdp("a=inactive", "m=audio 5000 RTP/AVP 8", "a=sendrecv"))
    assert agreed(party).direction == "sendrecv"


def test_inactive_is_answered_inactive_and_means_held() -> None:
    party = side()
    answer = party.answer(sdp("m=audio 5000 RTP/AVP 8", "a=inactive"))
    assert direction_of(answer) == "inactive"
    assert agreed(party).held


@pytest.mark.parametrize("address", ["IP4 0.0.0.0", "IP6 ::", "IP6 anonymous.invalid"])
def test_unspecified_address_means_hold_whatever_the_family(address: str) -> None:
    party = side()
    party.answer(sdp("m=audio 5000 RTP/AVP 8", f"c=IN {address}"))
    assert agreed(party).held
    assert agreed(party).direction == "recvonly"


def test_unspecified_address_in_an_answer_means_held_too() -> None:
    party = side()
    party.offer()
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8", address="0.0.0.0"))
    assert agreed(party).held
    assert agreed(party).direction == "recvonly"


def test_far_end_may_hold_and_resume() -> None:
    party = side()
    party.answer(sdp("m=audio 5000 RTP/AVP 8"))
    party.answer(sdp("m=audio 5000 RTP/AVP 8", "a=sendonly", version=2))
    assert agreed(party).held
    party.answer(sdp("m=audio 5000 RTP/AVP 8", version=3))
    assert not agreed(party).held
    assert agreed(party).direction == "sendrecv"


def test_our_own_hold_is_not_taken_for_theirs() -> None:
    party = side()
    party.offer("sendonly")
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8", "a=recvonly"))
    assert (agreed(party).direction, agreed(party).held) == ("sendonly", False)
    party.offer("inactive")
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8", "a=inactive", version=2))
    assert (agreed(party).direction, agreed(party).held) == ("inactive", False)


def test_phone_that_answers_our_hold_with_sendrecv_is_still_on_hold() -> None:
    party = side()
    party.offer("sendonly")
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8", "a=sendrecv"))
    assert agreed(party).direction == "sendonly"


# --- re-offers and versions ---------------------------------------------------------------------


def test_unchanged_description_keeps_its_version() -> None:
    """baresip#1511: Asterisk takes an unchanged version for an unchanged description."""
    party = side()
    first = party.offer()
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8 0 101", "a=rtpmap:101 telephone-event/8000"))
    assert party.offer() == first


def test_version_rises_by_one_with_every_change_of_content_and_nothing_else_of_o() -> None:
    party = side()
    bodies = []
    for direction in ("sendrecv", "sendonly", "sendonly", "sendrecv"):
        bodies.append(party.offer(direction))
        party.answer_received(sdp("m=audio 5000 RTP/AVP 8"))
    party.local = LocalAudio("192.168.178.51", 10002)
    bodies.append(party.offer())
    assert [version_of(body) for body in bodies] == [1, 2, 2, 3, 4]
    origins = [parse_sdp(body).origin for body in bodies]
    assert {(o.session_id, o.address, o.username) for o in origins} == {
        (origins[0].session_id, "192.168.178.50", "-")
    }


def test_answer_repeated_for_the_same_offer_is_the_same() -> None:
    party = side()
    offer = capture("asterisk_pjsip_offer")
    assert party.answer(offer) == party.answer(offer)


def test_description_that_changed_without_its_version_is_still_obeyed() -> None:
    party = side()
    party.answer(sdp("m=audio 5000 RTP/AVP 8"))
    party.answer(sdp("m=audio 5002 RTP/AVP 8"))
    assert agreed(party).remote == ("192.0.2.9", 5002)


def test_new_address_after_a_move_is_in_the_next_offer() -> None:
    party = side()
    party.offer()
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8"))
    party.local = LocalAudio("192.168.178.99", 12000)
    session = parse_sdp(party.offer())
    assert session.connection is not None
    assert session.connection.address == "192.168.178.99"
    assert session.media[0].port == 12000


def test_request_for_a_fresh_offer_gets_all_codecs_and_sendrecv() -> None:
    """freeswitch#1091: a re-INVITE without SDP, also while held and with one codec agreed."""
    party = side()
    party.answer(capture("yealink_hold_sendonly"))
    offer = party.offer()
    assert media_of(offer).formats == ("8", "0", "101")
    assert direction_of(offer) == "sendrecv"


def test_later_offer_repeats_every_m_line_of_the_call() -> None:
    """RFC 3264 §8: lines are never dropped; what was refused stays with port 0."""
    party = side()
    party.answer(capture("snom_offer_savp_then_avp"))
    session = parse_sdp(party.offer())
    assert [(m.proto, m.port, m.formats) for m in session.media] == [
        ("RTP/SAVP", 0, ("9", "0", "8", "101")),
        ("RTP/AVP", 10000, ("8", "0", "101")),
    ]
    party.answer_received(sdp("m=audio 0 RTP/SAVP 9", "m=audio 5002 RTP/AVP 8", version=2))
    assert agreed(party).remote == ("192.0.2.9", 5002)
    assert len(parse_sdp(party.offer("sendonly")).media) == 2


def test_answer_that_lost_the_refused_lines_is_still_understood() -> None:
    party = side()
    party.answer(capture("snom_offer_savp_then_avp"))
    party.offer()
    party.answer_received(sdp("m=audio 5004 RTP/AVP 8", version=2))
    assert agreed(party).remote == ("192.0.2.9", 5004)
    assert len(parse_sdp(party.offer()).media) == 2


def test_m_lines_added_by_a_later_offer_are_repeated_too() -> None:
    party = side()
    party.offer()
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8"))
    party.answer(sdp("m=audio 5000 RTP/AVP 8", "m=video 5002 RTP/AVP 34", version=2))
    assert [m.port for m in parse_sdp(party.offer()).media] == [10000, 0]


def test_discarded_offer_leaves_what_was_agreed() -> None:
    party = side()
    party.offer()
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8"))
    before = party.session
    party.offer("sendonly")
    party.discard_offer()
    assert party.session == before
    party.answer(sdp("m=audio 5000 RTP/AVP 8", version=2))
    with pytest.raises(ProtocolError, match="without an offer"):
        party.answer_received(sdp("m=audio 5000 RTP/AVP 8"))


def test_version_of_a_discarded_offer_is_not_used_for_other_content() -> None:
    party = side()
    versions = [version_of(party.offer())]
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8"))
    versions.append(version_of(party.offer("sendonly")))
    party.discard_offer()
    versions.append(version_of(party.offer("sendrecv")))
    party.discard_offer()
    versions.append(version_of(party.offer("sendrecv")))
    assert versions == [1, 2, 3, 3]


def test_discarding_without_an_open_offer_does_nothing() -> None:
    party = side()
    party.offer()
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8"))
    before = party.session
    party.discard_offer()
    assert party.session == before


def test_offer_made_again_before_its_answer_replaces_the_first() -> None:
    party = side()
    party.offer()
    party.local = LocalAudio("192.168.178.51", 10000)
    assert version_of(party.offer()) == 2
    party.answer_received(sdp("m=audio 5000 RTP/AVP 8"))
    assert agreed(party).remote == ("192.0.2.9", 5000)


def test_number_the_far_end_gave_a_codec_is_kept_in_our_later_offers() -> None:
    """RFC 3264 §8.3.2: within a call a dynamic number never changes its codec."""
    party = side()
    party.answer(sdp("m=audio 5000 RTP/AVP 8 96", "a=rtpmap:96 telephone-event/8000"))
    assert media_of(party.offer()).formats == ("8", "0", "96")


def test_number_the_far_end_uses_for_something_else_is_avoided() -> None:
    party = side()
    party.answer(sdp("m=audio 5000 RTP/AVP 8 101", "a=rtpmap:101 opus/48000/2"))
    media = media_of(party.offer())
    assert media.formats == ("8", "0", "96")
    assert "96 telephone-event/8000" in media.values("rtpmap")


def test_far_end_that_names_every_number_does_not_leave_us_without_one() -> None:
    party = side()
    offer = sdp(
        "m=audio 5000 RTP/AVP 8 " + " ".join(map(str, range(96, 128))),
        *(f"a=rtpmap:{number} x-{number}/8000" for number in range(96, 128)),
    )
    party.answer(offer)
    assert media_of(party.offer()).formats == ("8", "0", "101")


# --- two of us, any captures, any bytes ---------------------------------------------------------


@pytest.mark.parametrize("path", sorted(DATA.glob("sdp_*.sdp")), ids=lambda path: path.stem)
def test_every_capture_is_answered_or_refused_with_488(path: Path) -> None:
    offer = path.read_bytes()
    family = LocalAudio("2001:db8::1", 10000) if b" IP6 " in offer else DOOR
    party = side(family)
    try:
        answer = party.answer(offer)
    except NothingInCommon:
        assert party.session is None
        return
    theirs, ours = parse_sdp(offer).media, parse_sdp(answer).media
    assert [m.kind for m in ours] == [m.kind for m in theirs]
    assert sum(m.port > 0 for m in ours) == 1
    assert len(answer) < 600


local_audios = st.builds(
    LocalAudio,
    address=st.just("192.0.2.1"),
    port=st.integers(1024, 65_534),
    codecs=st.permutations([PCMA, PCMU, OPUS, Codec("L16", 16000)]).map(
        lambda codecs: tuple(codecs[:3])
    ),
    telephone_event=st.booleans(),
    answer_order=st.sampled_from(["offerer", "ours"]),
)


@given(local_audios, local_audios, st.lists(st.tuples(st.booleans(), st.sampled_from(DIRECTIONS))))
@settings(max_examples=100)
def test_both_sides_agree_after_any_sequence_of_offers(
    left: LocalAudio, right: LocalAudio, turns: list[tuple[bool, str]]
) -> None:
    parties = side(left, 1), side(right, 2)
    for swap, direction in [(False, "sendrecv"), *turns]:
        caller, callee = parties[::-1] if swap else parties
        caller.answer_received(callee.answer(caller.offer(direction)))
        ours, theirs = agreed(caller), agreed(callee)
        assert (ours.may_send, ours.may_receive) == (theirs.may_receive, theirs.may_send)
        assert (ours.payload_type, ours.codec.key) in {(n, c.key) for n, c in theirs.receive}
        assert (theirs.payload_type, theirs.codec.key) in {(n, c.key) for n, c in ours.receive}
        assert ours.remote[1] == callee.local.port
        for one, other in ((ours, theirs), (theirs, ours)):
            if one.event_payload_type is not None:
                assert (one.event_payload_type, one.event_clock) in other.event_receive


pieces = st.sampled_from(
    ["m=audio 4000 RTP/AVP 8 0 101", "m=audio 4000 RTP/AVP 96", "m=audio 0 RTP/AVP 0",
     "m=video 9 RTP/AVP 99", "a=rtpmap:101 telephone-event/8000", "a=rtpmap:96 PCMA/8000",
     "a=rtpmap:", "a=fmtp:101", "a=sendonly", "a=rtcp:", "a=rtcp:99999", "a=ptime:", "a=ptime:-1",
     "a=maxptime:1", "c=IN IP4 0.0.0.0", "c=IN IP4 %", "c=IN IP6 ::1", "b=RS:0", "a=rtcp-mux"]
)  # fmt: skip
words = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=6)
far_ends = st.lists(pieces | st.builds(str.__add__, pieces, words), max_size=12).map(
    lambda chosen: sdp(*chosen)
)


@given(far_ends, far_ends)
@settings(max_examples=300)
def test_any_description_is_agreed_or_refused_by_name(offer: bytes, answer: bytes) -> None:
    party = side()
    try:
        body = party.answer(offer)
    except ProtocolError:
        assert party.session is None
    else:
        assert format_sdp(parse_sdp(body)) == body
    party.offer()
    before = party.session
    try:
        party.answer_received(answer)
    except ProtocolError:
        assert party.session == before
