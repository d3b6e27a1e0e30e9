"""DHCPINFORM and information-request: sent, repeated, answered, given up."""

import struct

from doorstation.dhcp.exchange import (
    PATIENCE,
    Found,
    Inform,
    InformationRequest,
    NoAnswer,
    Output,
    Send,
)
from doorstation.dhcp.options import format_option, parse_options, parse_options6
from doorstation.ids import SeededIds

MAC = bytes.fromhex("b827eb010203")
SIP_10 = format_option(120, bytes((1, 10, 0, 0, 5)))


def inform() -> tuple[Inform, bytes]:
    question = Inform(SeededIds(1), MAC, "10.0.0.60", 0.0)
    return question, sent(question.timer_fired(0.0))


def sent(outputs: list[Output]) -> bytes:
    (output,) = outputs
    assert isinstance(output, Send)
    return output.data


def answer(question: bytes, options: bytes, kind: int = 5, **fixed: bytes) -> bytes:
    """A server's answer to a DHCPINFORM."""
    head = bytearray(b"\x02" + question[1:240])
    head[44:108] = fixed.get("server_name", b"").ljust(64, b"\0")
    head[108:236] = fixed.get("file", b"").ljust(128, b"\0")
    return bytes(head) + bytes((53, 1, kind)) + options + b"\xff"


def test_inform_says_who_asks_and_what_for() -> None:
    _, data = inform()
    assert data[:4] == b"\x01\x01\x06\x00"
    assert data[12:16] == bytes((10, 0, 0, 60))
    assert data[28:34] == MAC
    assert len(data) >= 300
    found, faults = parse_options(data[240:])
    assert faults == []
    assert found[53] == b"\x08"
    assert {120, 43, 66, 67, 125, 150, 159, 160, 42, 15, 119} == set(found[55])


def test_answer_is_found() -> None:
    question, data = inform()
    (found,) = question.received(answer(data, SIP_10), "10.0.0.1")
    assert isinstance(found, Found)
    assert found.offered.server == "10.0.0.1"
    assert found.offered.sip_servers == ("10.0.0.5",)
    assert question.deadline is None
    assert question.received(answer(data, SIP_10), "10.0.0.1") == []


def test_answer_for_another_is_not_ours() -> None:
    question, data = inform()
    other = bytearray(answer(data, SIP_10))
    other[4] ^= 1  # another transaction
    assert question.received(bytes(other), "10.0.0.1") == []
    other = bytearray(answer(data, SIP_10))
    other[28] ^= 1  # another's hardware address
    assert question.received(bytes(other), "10.0.0.1") == []
    assert question.received(answer(data, SIP_10, kind=2), "10.0.0.1") == []
    assert question.received(data, "10.0.0.1") == []  # a question like ours
    assert question.received(b"", "10.0.0.1") == []
    assert question.received(answer(data, SIP_10).ljust(5000, b"\0"), "10.0.0.1") == []


def test_it_asks_again_and_gives_up() -> None:
    question, _ = inform()
    now, times = 0.0, 0
    outputs: list[Output] = []
    while question.deadline is not None:
        now = question.deadline
        outputs = question.timer_fired(now)
        times += sum(isinstance(output, Send) for output in outputs)
    assert times == 2
    assert now == PATIENCE
    assert outputs == [NoAnswer("no answer within 5 s")]


def test_answer_with_nothing_in_it_waits_for_a_better_one() -> None:
    question, data = inform()
    assert question.received(answer(data, b""), "10.0.0.1") == []
    (found,) = question.received(answer(data, SIP_10), "10.0.0.2")
    assert isinstance(found, Found)
    assert found.offered.server == "10.0.0.2"


def test_answer_with_nothing_in_it_counts_when_no_better_one_comes() -> None:
    question, data = inform()
    question.received(answer(data, b""), "10.0.0.1")
    (found,) = question.timer_fired(PATIENCE)
    assert isinstance(found, Found)
    assert found.offered.server == "10.0.0.1"


def test_options_that_overflow_into_the_fixed_fields_are_read() -> None:
    """RFC 3396 5: options, then file, then sname, as one."""
    question, data = inform()
    reply = answer(
        data,
        format_option(52, b"\x03") + format_option(120, b"\x00\x04sip1"),
        file=format_option(120, b"\x07example") + b"\xff",
        server_name=format_option(120, b"\x04test\x00") + b"\xff",
    )
    (found,) = question.received(reply, "10.0.0.1")
    assert isinstance(found, Found)
    assert found.offered.sip_servers == ("sip1.example.test",)


def test_options_cut_off_are_named_and_the_rest_is_used() -> None:
    question, data = inform()
    (found,) = question.received(answer(data, SIP_10 + b"\x42\x09ab"), "10.0.0.1")
    assert isinstance(found, Found)
    assert found.offered.sip_servers == ("10.0.0.5",)
    assert found.offered.faults == ("option 66: 9 bytes announced, 3 there",)


def test_information_request_and_its_reply() -> None:
    question = InformationRequest(SeededIds(1), MAC, 0.0)
    first = question.deadline
    assert first is not None
    assert 0.0 <= first < 1.0  # RFC 8415 18.2.6: not all doors of a house at once
    data = sent(question.timer_fired(first))
    assert data[0] == 11
    found, _ = parse_options6(data[4:])
    assert found[1] == b"\0\3\0\1" + MAC
    assert found[6] == struct.pack("!3H", 21, 22, 24)
    assert found[8] == b"\0\0"

    client = struct.pack("!HH", 1, 10) + b"\0\3\0\1" + MAC
    server = struct.pack("!HH", 2, 4) + b"\0\3\0\1"
    names = struct.pack("!HH", 21, 6) + b"\x04door\0"
    reply = b"\x07" + data[1:4]
    assert question.received(reply + client + names, "fe80::1") == []  # from no server
    other = struct.pack("!HH", 1, 10) + b"\0\3\0\1" + bytes(6)
    assert question.received(reply + other + server + names, "fe80::1") == []
    (output,) = question.received(reply + client + server + names, "fe80::1")
    assert isinstance(output, Found)
    assert output.offered.sip_servers == ("door",)


def test_information_request_says_how_long_it_has_asked() -> None:
    question = InformationRequest(SeededIds(1), MAC, 0.0)
    at = question.deadline
    assert at is not None
    question.timer_fired(at)
    again = question.deadline
    assert again is not None
    found, _ = parse_options6(sent(question.timer_fired(again))[4:])
    assert found[8] == struct.pack("!H", round((again - at) * 100))
