"""Reading a file by TFTP: whole or not at all, from one port of the server, bounded."""

import random
import struct

import pytest
from doorstation.provision.tftp import (
    AGAIN,
    BLOCK_WANTED,
    PORT,
    TRIES,
    Done,
    Failed,
    Output,
    Place,
    Read,
    Send,
)

LIMIT, SERVER = 5000, 40001


def data(number: int, content: bytes) -> bytes:
    return struct.pack("!HH", 3, number) + content


def oack(**options: int) -> bytes:
    words = [word for name, value in options.items() for word in (name, str(value))]
    return struct.pack("!H", 6) + b"".join(word.encode() + b"\0" for word in words)


def ack(number: int, port: int = SERVER) -> Send:
    return Send(struct.pack("!HH", 4, number), port)


def error(code: int, why: str, port: int = SERVER) -> Send:
    return Send(struct.pack("!HH", 5, code) + why.encode() + b"\0", port)


def started() -> Read:
    read = Read(b"door.jws", PORT, LIMIT)
    read.start(0.0)
    return read


def test_request_asks_for_large_blocks_the_size_and_quick_repeats() -> None:
    asked = b"\0\1door.jws\0octet\0blksize\x001428\0tsize\x000\0timeout\x001\0"
    assert Read(b"door.jws", PORT, LIMIT).start(0.0) == [Send(asked, PORT)]


def test_file_of_a_server_that_knows_the_options_comes_in_large_blocks() -> None:
    read, whole = started(), bytes(range(256)) * 6
    assert read.received(oack(blksize=BLOCK_WANTED, tsize=len(whole), timeout=1), SERVER, 0.1) == [
        ack(0)
    ]
    assert read.received(data(1, whole[:1428]), SERVER, 0.2) == [ack(1)]
    assert read.received(data(2, whole[1428:]), SERVER, 0.3) == [ack(2), Done(whole)]
    assert read.deadline is None


def test_file_of_a_server_of_1992_comes_in_blocks_of_512() -> None:
    read = started()
    assert read.received(data(1, b"a" * 512), SERVER, 0.1) == [ack(1)]
    assert read.received(data(2, b""), SERVER, 0.2) == [ack(2), Done(b"a" * 512)]


def test_lost_packets_are_asked_for_again_and_silence_ends_it() -> None:
    read = Read(b"door.jws", PORT, LIMIT)
    first, now = read.start(0.0), 0.0
    for _ in range(TRIES - 1):
        assert read.deadline == now + AGAIN
        now = read.deadline
        assert read.timer_fired(now) == first
    assert read.timer_fired(now + AGAIN) == [Failed("the server is silent")]
    assert read.deadline is None


def test_block_that_comes_twice_counts_once_and_is_acknowledged_again() -> None:
    read = started()
    read.received(data(1, b"a" * 512), SERVER, 0.1)
    assert read.received(data(1, b"a" * 512), SERVER, 0.2) == [ack(1)]
    assert read.deadline == 0.1 + AGAIN, "it is no sign of life"
    assert read.received(data(2, b"b"), SERVER, 0.3) == [ack(2), Done(b"a" * 512 + b"b")]


def test_options_that_come_twice_are_acknowledged_again() -> None:
    read = started()
    assert read.received(oack(blksize=600), SERVER, 0.1) == [ack(0)]
    assert read.received(oack(blksize=600), SERVER, 0.2) == [ack(0)]
    assert read.received(data(1, b"x"), SERVER, 0.3) == [ack(1), Done(b"x")]


def test_block_out_of_order_is_as_good_as_lost() -> None:
    read = started()
    assert read.received(data(2, b"x"), SERVER, 0.1) == []
    assert read.received(data(0, b"x"), SERVER, 0.1) == []


def test_other_port_of_the_server_is_told_off_and_disturbs_nothing() -> None:
    read = started()
    read.received(data(1, b"a" * 512), SERVER, 0.1)
    assert read.received(data(2, b"evil"), 9, 0.2) == [error(5, "unknown port", 9)]
    assert read.received(b"\0\5\0\0evil\0", 9, 0.2) == []
    assert read.received(data(2, b"b"), SERVER, 0.3)[-1] == Done(b"a" * 512 + b"b")


def test_servers_error_ends_it_and_is_told() -> None:
    assert started().received(b"\0\5\0\1file /door.jws not found\0", PORT, 0.1) == [
        Failed("error 1: file /door.jws not found")
    ]
    assert started().received(b"\0\5\0\2", PORT, 0.1) == [Failed("error 2")]


def test_file_that_is_too_large_is_given_up_at_once() -> None:
    why = "more than 5000 bytes"
    assert started().received(oack(tsize=5001), SERVER, 0.1) == [error(3, why), Failed(why)]
    read = started()
    for number in range(1, 10):
        assert read.received(data(number, b"a" * 512), SERVER, 0.1) == [ack(number)]
    assert read.received(data(10, b"a" * 512), SERVER, 0.2) == [error(3, why), Failed(why)]
    assert read.received(data(11, b"a"), SERVER, 0.3) == []


@pytest.mark.parametrize(
    "options",
    [
        oack(blksize=7), oack(blksize=65464), oack(timeout=9), oack(windowsize=4),
        b"\0\6blksize\0-9\0", b"\0\6blksize\0" + b"9" * 4000 + b"\0", b"\0\6blksize\0", b"\0\6xy",
        b"\0\6tsize\0\xb2\0",
    ],
)  # fmt: skip
def test_options_that_were_not_asked_for_so_end_it(options: bytes) -> None:
    refusal, failed = started().received(options, SERVER, 0.1)
    assert isinstance(refusal, Send)
    assert refusal.data[:4] == b"\0\5\0\x08"
    assert isinstance(failed, Failed)


def test_block_larger_than_agreed_ends_it() -> None:
    refusal, failed = started().received(data(1, b"a" * 513), SERVER, 0.1)
    assert (refusal, failed) == (
        error(4, "a block of 513 bytes, 512 agreed"), Failed("a block of 513 bytes, 512 agreed")
    )  # fmt: skip


def test_whatever_comes_it_ends_in_time_within_its_bounds() -> None:
    for seed in range(3000):
        chance = random.Random(seed)
        read, now, over = started(), 0.0, list[Output]()
        kinds = (b"\0\3\0", b"\0\6", b"\0\3\0", b"\0\4", b"\0\1", b"", b"\0\5")
        while read.deadline is not None:
            outputs: list[Output] = []
            for _ in range(chance.randrange(3)):
                packet = chance.choice(kinds) + bytes([chance.randrange(4)])
                packet += chance.randbytes(chance.choice((0, 3, 511, 512, 1429)))
                outputs += read.received(packet, chance.choice((SERVER, PORT)), now)
            if read.deadline is not None:
                now = read.deadline
                outputs += read.timer_fired(now)
            over += [output for output in outputs if not isinstance(output, Send)]
        assert len(over) == 1
        assert now < 60
        if isinstance(over[0], Done):
            assert len(over[0].body) <= LIMIT


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("tftp://10.0.0.1/door.jws", Place("10.0.0.1", 69, b"door.jws")),
        ("tftp://pbx.test:6969/a/b%20c.jws;mode=octet", Place("pbx.test", 6969, b"a/b c.jws")),
        ("tftp://[fd00::1]/x", Place("fd00::1", 69, b"x")),
    ],
)
def test_place_is_what_its_address_names(url: str, place: Place) -> None:
    assert Place.of(url) == place


@pytest.mark.parametrize("path", ["", "/", "/a%00b", "/" + "x" * 401])
def test_place_without_a_file_that_can_be_asked_for_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="file"):
        Place.of(f"tftp://10.0.0.1{path}")
