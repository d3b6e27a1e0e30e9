"""The serial reader on pseudo-terminals: the master end is the reader, the slave end the port."""

import os
import pty
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest
import serial
from doorboard import serial_reader
from doorboard.interfaces import Reader, ReaderEvent
from doorboard.serial_reader import SerialReader

from tests.support.waiting import wait_until

CARD = b"\x020A00F8D3C5E4\x03"


class Plug:
    """A port at a fixed path, as udev would make it; the device behind it comes and goes."""

    def __init__(self, folder: Path):
        self.path = folder / "reader"
        self.master = -1
        self.slave = -1

    def plug(self) -> None:
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        self.path.symlink_to(os.ttyname(self.slave))

    def unplug(self) -> None:
        if self.master >= 0:
            self.path.unlink()
            os.close(self.slave)
            os.close(self.master)
            self.master = -1

    def send(self, data: bytes) -> None:
        os.write(self.master, data)


@pytest.fixture
def plug(tmp_path: Path) -> Iterator[Plug]:
    made = Plug(tmp_path)
    yield made
    made.unplug()


@pytest.fixture
def events() -> SimpleQueue[ReaderEvent]:
    return SimpleQueue()


@pytest.fixture
def reader(plug: Plug, events: SimpleQueue[ReaderEvent]) -> Iterator[SerialReader]:
    with SerialReader(str(plug.path), back_off=(0.01, 0.02)) as made:
        yield made


def following(events: SimpleQueue[ReaderEvent]) -> tuple[str, str]:
    event = events.get(timeout=5)
    return event.kind, event.value


def connect(plug: Plug, reader: Reader, events: SimpleQueue[ReaderEvent]) -> None:
    """Plug in, and wait until the port is open: what is sent before that is flushed."""
    reader.watch(events.put)
    assert following(events)[0] == "unplugged"
    plug.plug()
    assert following(events) == ("back", "")


def test_cards_and_keys_are_reported_as_they_come(
    plug: Plug, reader: SerialReader, events: SimpleQueue[ReaderEvent]
) -> None:
    connect(plug, reader, events)
    plug.send(CARD[:5])
    plug.send(CARD[5:])
    assert following(events) == ("card", "0A00F8D3C5")
    plug.send(CARD)
    plug.send(b"1234#")
    assert following(events) == ("keys", "1234")


def test_noise_is_reported_with_its_count(
    plug: Plug, reader: SerialReader, events: SimpleQueue[ReaderEvent]
) -> None:
    connect(plug, reader, events)
    plug.send(b"\xff\xfe\xfd")
    kind, value = following(events)
    assert (kind, int(value) > 0) == ("bad_bytes", True)
    plug.send(b"7#")
    assert following(events) == ("keys", "7")
    assert reader.bad_bytes == 3


def test_noise_without_end_is_reported_once_a_minute_with_its_count(
    plug: Plug, events: SimpleQueue[ReaderEvent]
) -> None:
    now = 1000.0
    with SerialReader(str(plug.path), back_off=(0.01, 0.02), clock=lambda: now) as reader:
        connect(plug, reader, events)
        plug.send(b"\xff#")
        assert following(events) == ("bad_bytes", "1")
        for _ in range(59):
            now += 1
            plug.send(b"\xff1#")
            assert following(events) == ("keys", "1")
        now += 1
        plug.send(b"\xff")
        assert following(events) == ("bad_bytes", "61")


def test_a_reader_pulled_out_and_put_back_goes_on_by_itself(
    plug: Plug, reader: SerialReader, events: SimpleQueue[ReaderEvent]
) -> None:
    connect(plug, reader, events)
    for _ in range(2):
        plug.send(b"1#")
        assert following(events) == ("keys", "1")
        plug.unplug()
        assert following(events)[0] == "unplugged"
        plug.plug()
        assert following(events) == ("back", "")


def test_an_outage_is_one_event_that_names_the_port(
    plug: Plug, reader: SerialReader, events: SimpleQueue[ReaderEvent]
) -> None:
    reader.watch(events.put)
    kind, why = following(events)
    assert kind == "unplugged"
    assert str(plug.path) in why
    assert "serial ports there are:" in why
    threading.Event().wait(0.1)  # several attempts
    assert events.empty()


def test_a_speed_that_the_port_refuses_is_an_outage_and_tried_again(
    events: SimpleQueue[ReaderEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []

    def refuse(port: str, baud_rate: int, **_: object) -> None:
        attempts.append(baud_rate)
        raise ValueError(f"Failed to set custom baud rate ({baud_rate})")

    monkeypatch.setattr(serial, "Serial", refuse)
    with SerialReader("/dev/serial0", baud_rate=12345, back_off=(0.01,)) as reader:
        reader.watch(events.put)
        kind, why = following(events)
        assert kind == "unplugged"
        assert "custom baud rate (12345)" in why
        wait_until(lambda: len(attempts) >= 3)


def test_half_a_card_before_the_outage_is_forgotten(
    plug: Plug, reader: SerialReader, events: SimpleQueue[ReaderEvent]
) -> None:
    connect(plug, reader, events)
    plug.send(CARD[:8])
    plug.unplug()
    assert following(events)[0] == "unplugged"
    plug.plug()
    assert following(events) == ("back", "")
    plug.send(CARD[8:] + CARD)
    seen = [following(events)[0], following(events)[0]]
    assert sorted(seen) == ["bad_bytes", "card"]


def test_two_readers_do_not_share_a_port(
    plug: Plug, reader: SerialReader, events: SimpleQueue[ReaderEvent]
) -> None:
    connect(plug, reader, events)
    others: SimpleQueue[ReaderEvent] = SimpleQueue()
    with SerialReader(str(plug.path)) as other:
        other.watch(others.put)
        assert "lock" in following(others)[1]


def test_closing_ends_the_thread_though_it_sleeps_in_read(
    plug: Plug, reader: SerialReader, events: SimpleQueue[ReaderEvent]
) -> None:
    connect(plug, reader, events)
    before = threading.active_count()
    reader.close()
    reader.close()
    assert threading.active_count() == before - 1


def test_closing_ends_the_thread_though_it_waits_for_the_port(
    plug: Plug, events: SimpleQueue[ReaderEvent]
) -> None:
    reader = SerialReader(str(plug.path), back_off=(3600.0,))
    reader.watch(events.put)
    assert following(events)[0] == "unplugged"
    reader.close()


def test_a_driver_that_does_not_come_back_holds_up_no_close(
    events: SimpleQueue[ReaderEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, back = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        opening.set()
        back.wait(5)
        raise OSError("too late")

    monkeypatch.setattr(serial, "Serial", hang)
    monkeypatch.setattr(serial_reader, "CLOSE_WITHIN", 0.05)
    reader = SerialReader("/dev/serial0")
    reader.watch(events.put)
    assert opening.wait(5)
    reader.close()
    assert not back.is_set()
    back.set()
    assert events.empty()


def test_a_callback_may_close_its_reader(
    plug: Plug, reader: SerialReader, events: SimpleQueue[ReaderEvent]
) -> None:
    done = threading.Event()

    def seen(event: ReaderEvent) -> None:
        if event.kind == "keys":
            reader.close()
            done.set()
        else:
            events.put(event)

    reader.watch(seen)
    assert following(events)[0] == "unplugged"
    plug.plug()
    assert following(events)[0] == "back"
    plug.send(b"1#2#")
    assert done.wait(5)
