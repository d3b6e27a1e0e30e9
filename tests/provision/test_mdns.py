"""Questions to the door's own link, byte for byte."""

import ipaddress
import struct

import pytest
from doorstation.errors import MalformedPacket
from doorstation.ids import SeededIds
from doorstation.provision.mdns import (
    MAX_MESSAGE,
    PTR,
    SRV,
    TXT,
    A,
    LinkQuestion,
    Service,
    parse_answer,
)
from hypothesis import given
from hypothesis import strategies as st

LINK = [ipaddress.ip_network(each) for each in ("192.0.2.0/24", "fd00:1::/64")]
PEER = "192.0.2.7"
KIND = "_door-config._tcp.local"
IDENT = SeededIds().number(16)
PLACE = (Service("conf.local", 443), (b"path=/a",))


def question(kind: int = PTR, name: str = KIND) -> LinkQuestion:
    return LinkQuestion(SeededIds(), name, kind, LINK, 100.0)


def wire(name: str) -> bytes:
    return b"".join(bytes((len(x),)) + x.encode() for x in name.split(".") if x) + b"\0"


def record(name: str, kind: int, data: bytes) -> bytes:
    return wire(name) + struct.pack("!HHIH", kind, 1, 10, len(data)) + data


def answer(*records: bytes, ident: int = IDENT, flags: int = 0x8400) -> bytes:
    return struct.pack("!6H", ident, flags, 0, len(records), 0, 0) + b"".join(records)


def pointer(instance: str = "office") -> bytes:
    return record(KIND, PTR, wire(f"{instance}.{KIND}"))


def service(instance: str = "office", host: str = "conf.local", port: int = 443) -> bytes:
    return record(f"{instance}.{KIND}", SRV, struct.pack("!HHH", 0, 0, port) + wire(host))


def text(instance: str = "office", *strings: bytes) -> bytes:
    data = b"".join(bytes((len(each),)) + each for each in strings or (b"path=/a",))
    return record(f"{instance}.{KIND}", TXT, data)


def heard(asked: LinkQuestion, data: bytes, now: float = 100.1) -> list[bytes]:
    return asked.received(data, PEER, 5353, now)


def test_question_asks_for_an_answer_to_itself_alone() -> None:
    asked = question()
    assert asked.deadline == 100.0
    (data,) = asked.timer_fired(100.0)
    assert data == struct.pack("!6H", IDENT, 0, 1, 0, 0, 0) + wire(KIND) + b"\0\x0c\x80\1"


def test_answer_with_all_that_belongs_to_it_is_a_place_once_others_had_their_time() -> None:
    asked = question()
    asked.timer_fired(100.0)
    assert heard(asked, answer(service(), text(), pointer())) == []
    assert asked.services == [PLACE]
    assert asked.deadline == 100.6
    assert asked.timer_fired(100.6) == []
    assert asked.deadline is None


def test_what_an_answer_leaves_out_is_asked_for() -> None:
    asked = question()
    asked.timer_fired(100.0)
    (data,) = heard(asked, answer(pointer()))
    instance = wire(f"office.{KIND}")
    assert data[12:] == instance + b"\0\x21\x80\1" + instance + b"\0\x10\x80\1"
    (data,) = heard(asked, answer(service()), 100.2)
    assert data[12:] == instance + b"\0\x10\x80\1"
    assert heard(asked, answer(text()), 100.3) == []
    assert asked.services == [PLACE]


def test_question_is_asked_again_each_second_and_given_up_after_three() -> None:
    asked = question()
    sent = []
    while (deadline := asked.deadline) is not None:
        sent.append((deadline, len(asked.timer_fired(deadline))))
    assert sent == [(100.0, 1), (101.0, 1), (102.0, 1), (103.0, 0)]
    assert asked.services == []


def test_names_are_the_same_in_capitals() -> None:
    asked = question(A, "Conf.Local")
    heard(asked, answer(record("CONF.local", A, bytes((192, 0, 2, 9)))))
    assert asked.values == ["192.0.2.9"]


@pytest.mark.parametrize(
    ("source", "port"), [("198.51.100.1", 5353), (PEER, 5354), ("fd00:2::1", 5353)]
)
def test_answer_from_elsewhere_is_ignored(source: str, port: int) -> None:
    asked = question()
    assert asked.received(answer(pointer(), service(), text()), source, port, 100.1) == []
    assert asked.values == []


def test_answer_from_any_network_of_the_link_counts() -> None:
    asked = question()
    asked.received(answer(pointer(), service(), text()), "fd00:1::7", 5353, 100.1)
    assert asked.services == [PLACE]


@pytest.mark.parametrize(
    "data",
    [
        answer(pointer(), ident=IDENT ^ 1),
        answer(pointer(), flags=0),
        answer(pointer(), flags=0x8403),
        answer(pointer(), flags=0xA400),
        answer(record("_other._tcp.local", PTR, wire("x.local"))),
        answer(service(), text()),
    ],
    ids=["other id", "question", "no such name", "opcode", "other name", "unasked"],
)
def test_what_answers_nothing_that_was_asked_is_ignored(data: bytes) -> None:
    asked = question()
    assert heard(asked, data) == []
    assert (asked.values, asked.services) == ([], [])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 11,
        answer(pointer())[:-1],
        answer(b"\xc0\x0c"),
        answer(b"\xc0\xff"),
        answer(b"\x41" + b"a" * 70),
        answer((b"\x3f" + b"a" * 63) * 5 + b"\0"),
        answer(pointer() + b"\xff\xff")[:-20],
        struct.pack("!6H", IDENT, 0x8400, 65535, 0, 0, 0),
        struct.pack("!6H", IDENT, 0x8400, 0, 65535, 65535, 65535) + pointer(),
        answer(pointer(), service(host="a b.local")),
        answer(pointer(), service(host="user@evil")),
        answer(*[pointer()] * 65),
        answer(pointer()) + b"\0" * MAX_MESSAGE,
    ],
)
def test_malformed_answer_says_nothing(data: bytes) -> None:
    asked = question()
    assert heard(asked, data) == []
    assert asked.values == []
    with pytest.raises(MalformedPacket):
        parse_answer(data)


def test_what_one_question_takes_in_is_bounded() -> None:
    asked = question()
    sent = 0
    for number in range(1000):
        more = [pointer(f"i{number}"), service(f"i{number}"), service(f"i{number}", port=number)]
        sent += len(heard(asked, answer(*more)))
        if asked.deadline is None:
            break
    assert number == 63
    assert len(asked.values) == len(asked.services) == 4
    assert sent < 10


def test_answers_without_end_do_not_make_it_longer() -> None:
    asked = question()
    now = 100.0
    while (deadline := asked.deadline) is not None and now < 200:
        now += 0.1
        if now >= deadline:
            asked.timer_fired(now)
        heard(asked, answer(pointer(f"i{now:.0f}")), now)
    assert now <= 103.2


@given(st.binary(max_size=200), st.sampled_from([0, 0x8000, 0x8400]))
def test_nothing_that_comes_is_more_than_malformed(data: bytes, flags: int) -> None:
    asked = question()
    heard(asked, struct.pack("!2H", IDENT, flags) + data)
    heard(asked, data)
    _ = asked.services
