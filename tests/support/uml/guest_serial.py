"""The serial reader on a USB serial port that is really unplugged; run inside the guest."""

import os
import tty
from pathlib import Path
from queue import SimpleQueue

from doorboard.interfaces import ReaderEvent
from doorboard.serial_reader import SerialReader

from tests.support.waiting import wait_until

CARD = b"\x020A00F8D3C5E4\x03"
GADGET = Path("/sys/kernel/config/usb_gadget/reader")
PORT = Path("/dev/ttyACM0")


class UsbReader:
    """A USB device made of the kernel's gadget driver: what it writes, the port reads."""

    def __init__(self) -> None:
        GADGET.mkdir()
        (GADGET / "idVendor").write_text("0x1d6b")
        (GADGET / "idProduct").write_text("0x0104")
        for folder in ("strings/0x409", "configs/c.1", "functions/acm.0"):
            (GADGET / folder).mkdir(parents=True)
        (GADGET / "strings/0x409/serialnumber").write_text("RFID1")
        (GADGET / "configs/c.1/acm.0").symlink_to(GADGET / "functions/acm.0")

    def plug(self) -> None:
        (GADGET / "UDC").write_text("dummy_udc.0")

    def unplug(self) -> None:
        (GADGET / "UDC").write_text("\n")

    def send(self, data: bytes) -> None:
        wait_until(Path("/dev/ttyGS0").exists)
        line = os.open("/dev/ttyGS0", os.O_RDWR | os.O_NOCTTY)
        tty.setraw(line)
        os.write(line, data)
        os.close(line)


def test_a_usb_reader_is_unplugged_and_comes_back() -> None:
    usb = UsbReader()
    events: SimpleQueue[ReaderEvent] = SimpleQueue()

    def following() -> tuple[str, str]:
        event = events.get(timeout=20)
        return event.kind, event.value

    with SerialReader(str(PORT), back_off=(0.1,)) as reader:
        reader.watch(events.put)
        assert following()[0] == "unplugged"
        for _ in range(3):
            usb.plug()
            assert following() == ("back", "")
            usb.send(CARD)
            assert following() == ("card", "0A00F8D3C5")
            usb.unplug()
            assert following()[0] == "unplugged"
