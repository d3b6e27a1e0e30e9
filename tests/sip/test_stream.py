"""Cutting a stream into messages (RFC 3261 §18.3, RFC 5626 §4.4.1)."""

import pytest
from doorstation.sip.message import (
    KeepAlive,
    MalformedMessage,
    Request,
    StreamBroken,
    StreamReader,
    parse_message,
)

HEAD = (
    b"MESSAGE sip:b@h SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n"
    b"To: <sip:b@h>\r\nCall-ID: 1\r\nCSeq: 1 MESSAGE\r\n"
)
MESSAGE = HEAD + b"Content-Length: 8\r\n\r\na\r\n\r\nb\r\n"
PONG, PING = KeepAlive(pong=True), KeepAlive(pong=False)


def test_messages_come_out_however_the_stream_is_cut() -> None:
    expected = parse_message(MESSAGE)
    stream = MESSAGE + MESSAGE
    for cut in range(len(stream) + 1):
        reader = StreamReader()
        received = reader.receive(stream[:cut]) + reader.receive(stream[cut:])
        assert received == [expected, expected]


def test_octet_by_octet() -> None:
    reader = StreamReader()
    received = [item for octet in MESSAGE * 2 for item in reader.receive(bytes([octet]))]
    assert received == [parse_message(MESSAGE)] * 2


def test_message_is_delivered_with_its_last_octet_and_not_before() -> None:
    reader = StreamReader()
    assert reader.receive(MESSAGE[:-1]) == []
    assert len(reader.receive(MESSAGE[-1:])) == 1


def test_crlf_is_a_pong_and_a_pair_a_ping() -> None:
    reader = StreamReader()
    assert reader.receive(b"\r") == []
    assert reader.receive(b"\n") == [PONG]
    assert reader.receive(b"\r\n") == [PONG, PING]
    assert reader.receive(b"\r\n\r\n") == [PONG, PONG, PING]


def test_keep_alive_stands_between_messages() -> None:
    message = parse_message(MESSAGE)
    assert StreamReader().receive(b"\r\n\r\n" + MESSAGE + b"\r\n" + MESSAGE + b"\r\n") == [
        PONG,
        PONG,
        PING,
        message,
        PONG,
        message,
        PONG,
    ]


def test_no_content_length_means_no_body() -> None:
    (request,) = StreamReader().receive(HEAD + b"\r\n")
    assert isinstance(request, Request)
    assert request.body == b""


def test_malformed_message_does_not_lose_its_successor() -> None:
    fault, message = StreamReader().receive(
        MESSAGE.replace(b"CSeq", b"C Seq").replace(b"sip:b@h SIP/2.0", b"sip:b@h SIP/9.0") + MESSAGE
    )
    assert isinstance(fault, MalformedMessage)
    assert fault.status == 505
    assert fault.request is not None
    assert message == parse_message(MESSAGE)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"\n\n",
        b"hello\n\n",
        b"x" * 40_000,
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Content-Length: 99999\r\n\r\n",
        HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
    ],
)
def test_lost_framing_breaks_the_stream_for_good(data: bytes) -> None:
    reader = StreamReader()
    with pytest.raises(StreamBroken) as caught:
        reader.receive(MESSAGE + data)
    assert caught.value.received[0] == parse_message(MESSAGE)
    with pytest.raises(StreamBroken):
        reader.receive(MESSAGE)


def test_what_broke_the_stream_can_still_be_answered() -> None:
    with pytest.raises(StreamBroken) as caught:
        StreamReader(max_body=100).receive(HEAD + b"Content-Length: 101\r\n\r\n")
    (fault,) = caught.value.received
    assert isinstance(fault, MalformedMessage)
    assert (fault.status, fault.request is not None) == (413, True)


def test_head_that_never_ends_is_given_up_at_the_limit() -> None:
    reader = StreamReader(max_head=1000)
    assert reader.receive(b"INVITE sip:h SIP/2.0\r\n" + b"X: y\r\n" * 160) == []
    with pytest.raises(StreamBroken, match="1000"):
        reader.receive(b"X: y\r\n" * 10)


def test_head_of_the_very_limit_is_read() -> None:
    head = MESSAGE.partition(b"\r\n\r\n")[0]
    for slack in range(3):
        assert len(StreamReader(max_head=len(head) + slack).receive(MESSAGE)) == 1


def test_head_is_searched_once_however_slowly_it_comes() -> None:
    """Each octet is looked at a bounded number of times: the scan starts where it ended."""
    reader = StreamReader()
    for _ in range(2_000):
        reader.receive(b"X: yyyy\r\n"[:9])
    assert reader.receive(b"") == []
    assert reader._scanned == 2_000 * 9 - 2
