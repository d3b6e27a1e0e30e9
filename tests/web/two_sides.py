"""Two control sockets that play a door and its indoor phone: what the page is tested against."""

import math
import struct
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from doorstation.errors import DoorstationError
from doorstation.net.control import KINDS, ControlClient, ControlServer
from doorstation.web.try_page import create_app

TOKEN = "a-token-of-this-test"
CALL_ID = "3f1c9a@127.0.0.1"
SDP = """\
v=0
o=door 1 1 IN IP4 127.0.0.1
s=-
c=IN IP4 127.0.0.1
t=0 0
m=audio 20000 RTP/AVP 8 0 101
a=rtpmap:101 telephone-event/8000
"""


class Side:
    """One control socket whose state the test sets; it notes what it was asked to do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.refuse = ""
        self.state: dict[str, Any] = {
            "registration": {"state": "off"},
            "calls": [],
            "relays": {"door": {"on": False, "pulses": 0}},
            "leds": {"status": {"pattern": "idle"}},
            "versions": {"doorstation": "0.1.0"},
        }
        self.server = ControlServer(str(path), self._handle, kinds=KINDS | {"state"})

    async def _handle(self, command: str, args: dict[str, object]) -> object:
        if command == "status":
            return self.state
        if self.refuse:
            raise DoorstationError(self.refuse)
        self.asked.append((command, args))
        return None

    def change(self, **parts: Any) -> None:
        self.state = {**self.state, **parts}
        self.server.publish("state", self.state)

    def call(self, state: str, direction: str = "in", peer: str = "sip:door@127.0.0.1") -> None:
        codec = "PCMA" if state in ("connected", "held") else None
        call = {"id": "1", "state": state, "direction": direction, "peer": peer, "codec": codec}
        self.change(calls=[call])

    def record(self, event: str, **fields: object) -> None:
        self.server.publish("record", {"event": event, **fields})

    def sip(self, direction: str, first_line: str, cseq: str, at: float, body: str = "") -> None:
        kind = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n" if body else ""
        text = (
            f"{first_line}\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK77\r\n"
            'From: "Front door" <sip:door@127.0.0.1>;tag=a1\r\nTo: <sip:indoor@127.0.0.1>\r\n'
            f"Call-ID: {CALL_ID}\r\nCSeq: {cseq}\r\n{kind}\r\n{body}"
        )
        event = {"direction": direction, "first_line": first_line, "text": text, "at": at}
        self.server.publish("sip", {**event, "transport": "UDP", "remote": "127.0.0.1:5072"})

    def sound(self, hertz: float, number: int) -> None:
        """One frame of 20 ms at the loudspeaker."""
        samples = (
            int(9000 * math.sin(2 * math.pi * hertz * (160 * number + n) / 8000))
            for n in range(160)
        )
        pcm = b64encode(struct.pack("<160h", *samples)).decode()
        self.server.publish("audio:speaker", {"rate": 8000, "pcm": pcm})


@dataclass
class Trial:
    door: Side
    phone: Side
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/?t={TOKEN}"

    def ring(self) -> None:
        """The door calls the phone, which rings."""
        self.door.record("press", button="call", rule="plan")
        self.door.sip("sent", "INVITE sip:indoor@127.0.0.1 SIP/2.0", "1 INVITE", 10.0, SDP)
        self.door.sip("received", "SIP/2.0 100 Trying", "1 INVITE", 10.002)
        self.door.sip("received", "SIP/2.0 180 Ringing", "1 INVITE", 10.011)
        self.door.change(leds={"status": {"pattern": "ringing"}})
        self.door.call("ringing", "out", "sip:indoor@127.0.0.1")
        self.phone.call("ringing")

    def talk(self) -> None:
        """The phone has answered."""
        self.door.sip("received", "SIP/2.0 200 OK", "1 INVITE", 13.2, SDP)
        self.door.sip("sent", "ACK sip:indoor@127.0.0.1:5072 SIP/2.0", "1 ACK", 13.204)
        self.door.change(leds={"status": {"pattern": "in_call"}})
        self.door.call("connected", "out", "sip:indoor@127.0.0.1")
        self.phone.call("connected")

    def open(self) -> None:
        self.door.record("digit", call="1", source="rfc4733", count=1, rule="digit")
        self.door.record("release", relay="door", seconds=3.0, rule="code")
        self.door.change(
            relays={"door": {"on": True, "pulses": 1}}, leds={"status": {"pattern": "door_open"}}
        )

    def end(self) -> None:
        self.door.sip("received", "BYE sip:door@127.0.0.1:5070 SIP/2.0", "2 BYE", 20.0)
        self.door.sip("sent", "SIP/2.0 200 OK", "2 BYE", 20.001)
        self.door.change(
            calls=[],
            relays={"door": {"on": False, "pulses": 1}},
            leds={"status": {"pattern": "idle"}},
        )
        self.phone.change(calls=[])


@asynccontextmanager
async def trial(directory: Path) -> AsyncIterator[Trial]:
    """The page, served on loopback over two control sockets."""
    door, phone = Side(directory / "door.sock"), Side(directory / "phone.sock")
    async with (
        door.server,
        phone.server,
        ControlClient(str(door.path)) as door_client,
        ControlClient(str(phone.path)) as phone_client,
    ):
        runner = web.AppRunner(create_app(door_client, phone_client, TOKEN), shutdown_timeout=0.5)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield Trial(door, phone, runner.addresses[0][1])
        finally:
            await runner.cleanup()
