"""Session descriptions: what the reader takes and refuses; the writer is its mirror.

The descriptions in `tests/data` are in the manner of the devices they name, set down by hand: not
recorded from one.
"""

from pathlib import Path

import pytest
from doorstation.errors import MalformedPacket
from doorstation.sdp.description import (
    MAX_BYTES,
    MAX_LINES,
    MAX_MEDIA,
    Attribute,
    Bandwidth,
    Connection,
    Media,
    Origin,
    SessionDescription,
    Timing,
    format_sdp,
    parse_sdp,
)
from hypothesis import given, settings
from hypothesis import strategies as st

DATA = Path(__file__).parent.parent / "data"
CAPTURES = sorted(DATA.glob("sdp_*.sdp"))

# Captures whose bytes are not what the writer makes of them: no last line end, LF only, empty s=.
TOLERATED = {"sdp_grandstream_hold_without_last_newline", "sdp_lf_only_session_direction"}

MINIMAL = b"v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n"


def test_there_are_captures_to_read() -> None:
    assert len(CAPTURES) > 15


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_capture_is_read_and_written_back(path: Path) -> None:
    data = path.read_bytes()
    written = format_sdp(parse_sdp(data))
    if path.stem not in TOLERATED:
        assert written == data
    assert parse_sdp(written) == parse_sdp(data)


def test_every_kind_of_line_has_its_place() -> None:
    data = (
        b"v=0\r\n"
        b"o=jdoe 3724394400 3724394405 IN IP4 198.51.100.1\r\n"
        b"s=Call to John Smith\r\n"
        b"i=SDP Offer #1\r\n"
        b"u=http://www.jdoe.example.com/home.html\r\n"
        b"e=Jane Doe <jane@jdoe.example.com>\r\n"
        b"p=+1 617 555-6011\r\n"
        b"c=IN IP4 198.51.100.1\r\n"
        b"b=X-YZ:128\r\n"
        b"t=3724394400 3724398000\r\n"
        b"r=604800 3600 0 90000\r\n"
        b"z=3730928400 -1h 3749680800 0\r\n"
        b"k=prompt\r\n"
        b"a=recvonly\r\n"
        b"m=audio 49170/2 RTP/AVP 0\r\n"
        b"i=the door\r\n"
        b"c=IN IP4 224.2.1.1/127/3\r\n"
        b"b=AS:64\r\n"
        b"k=clear:secret\r\n"
        b"a=x-vendor:kept as it is:really\r\n"
    )
    session = parse_sdp(data)
    assert session == SessionDescription(
        origin=Origin("3724394400", "3724394405", "198.51.100.1", "jdoe"),
        name="Call to John Smith",
        information="SDP Offer #1",
        uri="http://www.jdoe.example.com/home.html",
        emails=("Jane Doe <jane@jdoe.example.com>",),
        phones=("+1 617 555-6011",),
        connection=Connection("198.51.100.1"),
        bandwidth=(Bandwidth("X-YZ", "128"),),
        times=(Timing("3724394400", "3724398000", ("604800 3600 0 90000",)),),
        zone="3730928400 -1h 3749680800 0",
        key="prompt",
        attributes=(Attribute("recvonly"),),
        media=(
            Media(
                "audio",
                49170,
                "RTP/AVP",
                ("0",),
                ports=2,
                title="the door",
                connections=(Connection("224.2.1.1/127/3"),),
                bandwidth=(Bandwidth("AS", "64"),),
                key="clear:secret",
                attributes=(Attribute("x-vendor", "kept as it is:really"),),
            ),
        ),
    )
    assert format_sdp(session) == data


def test_line_feed_alone_ends_a_line() -> None:
    assert parse_sdp(MINIMAL.replace(b"\r\n", b"\n")) == parse_sdp(MINIMAL)


def test_carriage_return_alone_ends_a_line() -> None:
    assert parse_sdp(MINIMAL.replace(b"\r\n", b"\r")) == parse_sdp(MINIMAL)


def test_last_line_needs_no_end() -> None:
    session = parse_sdp(MINIMAL + b"m=audio 4000 RTP/AVP 0\r\na=sendonly")
    assert session.media[0].attributes == (Attribute("sendonly"),)


def test_terminating_nul_of_a_c_string_is_dropped() -> None:
    assert parse_sdp(MINIMAL + b"\0") == parse_sdp(MINIMAL)


def test_blank_lines_and_blanks_at_line_ends_are_ignored() -> None:
    data = MINIMAL + b"\r\nm=audio 4000  RTP/AVP 0 8 \r\na=sendonly \r\n \t\r\na= ptime: 20\r\n"
    media = parse_sdp(data).media[0]
    assert media.formats == ("0", "8")
    assert media.attributes == (Attribute("sendonly"), Attribute("ptime", " 20"))


def test_missing_name_and_time_are_tolerated() -> None:
    session = parse_sdp(b"v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\n")
    assert (session.name, session.times) == ("-", (Timing("0", "0"),))


def test_username_with_blanks_or_none_leaves_the_rest_of_the_origin_right() -> None:
    for line, name in (
        (b"o=Front Door 1 2 IN IP4 192.0.2.1", "Front_Door"),
        (b"o= 1 2 IN IP4 192.0.2.1", "-"),
    ):
        origin = parse_sdp(b"v=0\n" + line + b"\n").origin
        assert origin == Origin("1", "2", "192.0.2.1", name)


def test_text_that_is_not_utf8_is_no_fault() -> None:
    session = parse_sdp(MINIMAL.replace(b"s=-", b"s=T\xfcr"))
    assert session.name == "T\N{REPLACEMENT CHARACTER}r"
    assert parse_sdp(format_sdp(session)) == session


def test_unknown_attributes_are_kept_in_order() -> None:
    session = parse_sdp(MINIMAL + b"a=x\r\na=y:\r\na=x:1\r\n")
    assert session.attributes == (Attribute("x"), Attribute("y", ""), Attribute("x", "1"))
    assert list(session.values("x")) == ["", "1"]


def test_refused_line_may_come_without_formats() -> None:
    assert parse_sdp(MINIMAL + b"m=video 0 RTP/AVP\r\n").media == (Media("video", 0),)


def test_host_is_the_address_without_ttl_and_brackets() -> None:
    assert Connection("224.2.1.1/127").host == "224.2.1.1"
    assert Connection("[2001:db8::1]", "IP6").host == "2001:db8::1"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "SDP is empty"),
        (b"\r\n\r\n", "SDP is empty"),
        (b"o=- 1 2 IN IP4 192.0.2.1\r\n", "SDP line 1 is not v=0"),
        (b"v=1\r\n", "SDP line 1 is not v=0"),
        (b"v=0\r\ns=-\r\n", "SDP has no o= line"),
        (b"v=0\r\no=1 2\r\n", "SDP line 2 needs o=username id version network type address"),
        (MINIMAL + b"hello", "SDP line 5 is not of the form x=value"),
        (MINIMAL + b"x=1", "SDP line 5 has a type that is unknown or out of place"),
        (MINIMAL + b"v=0", "SDP line 5 has a type that is unknown or out of place"),
        (MINIMAL + b"s=twice", "SDP line 5 is a second s="),
        (MINIMAL + b"c=IN IP4", "SDP line 5 needs c=network type address"),
        (MINIMAL + b"c=IN IP4 192.0.2.1\nc=IN IP4 192.0.2.1", "SDP line 6 is a second c= of the"),
        (MINIMAL + b"b=64", "SDP line 5 needs b=type:value"),
        (MINIMAL + b"a=x\0y", "SDP line 5 holds a NUL"),
        (MINIMAL + b"m=audio", "SDP line 5 needs m=media port protocol formats"),
        (MINIMAL + b"m=audio 65536 RTP/AVP 0", "SDP line 5 has a port that is not 0 to 65535"),
        (MINIMAL + b"m=audio -1 RTP/AVP 0", "SDP line 5 has a port that is not 0 to 65535"),
        (MINIMAL + b"m=audio 4000/0 RTP/AVP 0", "SDP line 5 has a port that is not 0 to 65535"),
        (
            MINIMAL + "m=audio ٤٠ RTP/AVP 0".encode(),
            "SDP line 5 has a port that is not 0 to 65535",
        ),
        (
            MINIMAL + b"m=audio 4000 RTP/AVP 0\r\nt=0 0",
            "SDP line 6 has a type that is unknown or out of place",
        ),
    ],
)
def test_refusal_names_the_line(data: bytes, reason: str) -> None:
    with pytest.raises(MalformedPacket) as caught:
        parse_sdp(data)
    assert caught.value.reason.startswith(reason)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (MINIMAL + b"a=" + b"x" * MAX_BYTES, 413),
        (MINIMAL + b"a=x\n" * MAX_LINES, 413),
        (MINIMAL + b"m=audio 1 RTP/AVP 0\n" * (MAX_MEDIA + 1), 488),
    ],
)
def test_body_beyond_a_bound_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(MalformedPacket) as caught:
        parse_sdp(data)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "session",
    [
        SessionDescription(Origin("1", "1", "192.0.2.1"), name="a\r\nm=audio 9 RTP/AVP 0"),
        SessionDescription(Origin("1", "1", "192.0.2.1"), name=""),
        SessionDescription(Origin("1", "1", "192.0.2.1"), times=()),
        SessionDescription(Origin("1", "1", "192.0.2.1", "two words")),
        SessionDescription(Origin("1", "1", "192.0.2.1"), attributes=(Attribute("a:b"),)),
        SessionDescription(Origin("1", "1", "192.0.2.1"), attributes=(Attribute("a", "x\0"),)),
        SessionDescription(Origin("1", "1", "192.0.2.1"), media=(Media("audio", 1, "", ("0",)),)),
    ],
)
def test_writer_refuses_what_could_not_be_read_back(session: SessionDescription) -> None:
    with pytest.raises(ValueError):
        format_sdp(session)


# --- any description, any bytes -----------------------------------------------------------------

_plain = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=12)
text = _plain.map(lambda value: value.strip(" \t"))
word = _plain.map(lambda value: "".join(value.split())).filter(bool)
name = text.map(lambda value: value.replace(":", "").strip(" \t")).filter(bool)
optional = st.none() | text
connections = st.builds(Connection, word, word, word)
bandwidths = st.lists(st.builds(Bandwidth, name, text), max_size=2).map(tuple)
attributes = st.lists(
    st.builds(Attribute, name, optional | text.filter(bool).map(" ".__add__)), max_size=4
).map(tuple)
medias = st.builds(
    Media,
    kind=word,
    port=st.integers(0, 65_535),
    proto=word,
    formats=st.lists(word, max_size=4).map(tuple),
    ports=st.integers(1, 65_535),
    title=optional,
    connections=st.lists(connections, max_size=2).map(tuple),
    bandwidth=bandwidths,
    key=optional,
    attributes=attributes,
)
descriptions = st.builds(
    SessionDescription,
    origin=st.builds(Origin, word, word, word, word, word, word),
    name=text.filter(bool),
    information=optional,
    uri=optional,
    emails=st.lists(text, max_size=2).map(tuple),
    phones=st.lists(text, max_size=2).map(tuple),
    connection=st.none() | connections,
    bandwidth=bandwidths,
    times=st.lists(
        st.builds(Timing, word, word, st.lists(text, max_size=2).map(tuple)), min_size=1, max_size=2
    ).map(tuple),
    zone=optional,
    key=optional,
    attributes=attributes,
    media=st.lists(medias, max_size=3).map(tuple),
)

# Line starts make deep paths likely; pure noise hardly gets past the first line.
lines = st.sampled_from(
    [b"v=0", b"o=- 1 2 IN IP4 192.0.2.1", b"s=", b"t=", b"c=IN IP4 ", b"m=audio 4000 RTP/AVP ",
     b"m=", b"a=rtpmap:", b"a=", b"b=", b"r=", b"\n", b"\r\n", b"0 8", b"=", b"\0", b" "]
)  # fmt: skip
noise = st.lists(lines | st.binary(max_size=8), max_size=30).map(b"".join)


@given(descriptions)
@settings(max_examples=200)
def test_what_is_written_is_read_back_equal(session: SessionDescription) -> None:
    assert parse_sdp(format_sdp(session)) == session


@given(noise | noise.map(lambda tail: MINIMAL + tail))
@settings(max_examples=500)
def test_any_bytes_are_read_or_refused_by_name(data: bytes) -> None:
    try:
        session = parse_sdp(data)
    except MalformedPacket:
        return
    assert parse_sdp(format_sdp(session)) == session
