"""Codecs of an m-line: static numbers, maps and parameters, as phones write them."""

import pytest
from doorstation.sdp.codecs import G722, PCMA, PCMU, STATIC, Codec, read_codecs, write_codecs
from doorstation.sdp.description import Attribute, Media


def media(formats: str, *lines: str) -> Media:
    attributes = tuple(Attribute(*line.split(":", 1)) for line in lines)
    return Media("audio", 4000, "RTP/AVP", tuple(formats.split()), attributes=attributes)


def test_static_numbers_need_no_rtpmap() -> None:
    assert read_codecs(media("8 0 18")) == (PCMA, PCMU, STATIC[18])


def test_dynamic_number_without_rtpmap_is_left_out() -> None:
    assert read_codecs(media("96 0")) == (PCMU,)


def test_rtpmap_and_fmtp_belong_to_their_number() -> None:
    line = media("96 8", "rtpmap:96 opus/48000/2", "fmtp:96 useinbandfec=1; stereo=0")
    opus = Codec("opus", 48000, 2, payload_type=96, fmtp="useinbandfec=1; stereo=0")
    assert read_codecs(line) == (opus, PCMA)


def test_codec_is_the_same_whatever_its_case_and_number() -> None:
    (codec,) = read_codecs(media("97", "rtpmap:97 pcma/8000/1"))
    assert codec.key == PCMA.key


@pytest.mark.parametrize("rtpmap", ["8 PCMA", "8", "8 PCMA/eight", "8 /8000", "8 PCMA/8000/0", ""])
def test_unreadable_rtpmap_leaves_a_static_number_its_meaning(rtpmap: str) -> None:
    assert read_codecs(media("8", f"rtpmap:{rtpmap}")) == (PCMA,)


@pytest.mark.parametrize("number", ["9", "96"])
def test_g722_named_by_its_sampling_rate_is_g722(number: str) -> None:
    (codec,) = read_codecs(media(number, f"rtpmap:{number} G722/16000"))
    assert codec.key == G722.key


def test_numbers_that_are_no_payload_type_are_skipped() -> None:
    assert read_codecs(media("128 -1 t38 * 0x8 ٨ 0008 8 8")) == (PCMA,)


def test_first_rtpmap_of_a_number_counts() -> None:
    line = media("96", "rtpmap:96 opus/48000/2", "rtpmap:96 PCMA/8000")
    assert [codec.name for codec in read_codecs(line)] == ["opus"]


def test_written_codecs_are_read_back() -> None:
    codecs = (PCMA, Codec("opus", 48000, 2, 96, "useinbandfec=1"), Codec("L16", 16000, 1, 97))
    formats, attributes = write_codecs(codecs)
    assert read_codecs(Media("audio", 1, formats=formats, attributes=attributes)) == codecs


def test_codec_without_number_is_not_written() -> None:
    with pytest.raises(ValueError, match="opus has no payload type"):
        write_codecs([Codec("opus", 48000, 2)])
