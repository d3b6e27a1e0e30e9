"""SIP's way of asking a network where the configuration lies: `ua-profile` by multicast (RFC 6080).

A SUBSCRIBE to 224.0.1.75; whoever knows sends a NOTIFY whose body is the address.
"""

from typing import Final

import msgspec

from doorstation.errors import ProtocolError
from doorstation.ids import Ids
from doorstation.provision.discovery import Placeholders
from doorstation.sip.message import Request, format_message, make_response, parse_message

GROUP: Final = "224.0.1.75"
PORT: Final = 5060
MOST_JITTER: Final = 2.0
"""Seconds waited at most before asking: all doors of a house wake together after a power cut."""
MAX_DATAGRAM: Final = 8192


class Named(msgspec.Struct, frozen=True):
    """An answer to a NOTIFY, and the place that it names."""

    answer: bytes
    url: str


class ProfileQuestion:
    """One SUBSCRIBE, and what comes of it."""

    def __init__(self, ids: Ids, host: str, port: int, door: Placeholders) -> None:
        self._call_id = ids.token()
        uri = f"sip:MAC%3a{door.mac}@{GROUP}"
        vendor = f'vendor="doorstation";model="{door.model}";version="{door.version}"'
        lines = (
            f"SUBSCRIBE {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{ids.token()};rport",
            "Max-Forwards: 1",
            f"From: <{uri}>;tag={ids.token()}",
            f"To: <{uri}>",
            f"Call-ID: {self._call_id}",
            "CSeq: 1 SUBSCRIBE",
            f"Contact: <sip:{host}:{port}>",
            f'Event: ua-profile;profile-type="device";{vendor}',
            "Accept: application/url",
            "Expires: 0",
            "Content-Length: 0",
        )
        self.data = "\r\n".join((*lines, "", "")).encode("ascii", "replace")

    def received(self, data: bytes) -> Named | None:
        """What a datagram says; None if it is no NOTIFY to this question."""
        if len(data) > MAX_DATAGRAM:
            return None
        try:
            message = parse_message(data)
            if not isinstance(message, Request) or message.method != "NOTIFY":
                return None
            if message.call_id != self._call_id:
                return None
            answer = format_message(make_response(message, 200))
        except ProtocolError:
            return None
        url = message.body.decode("ascii", "replace").strip()
        return Named(answer, url) if url else None
