"""Run as a program: hours of one user agent's life in simulated time, as JSON.

python -m bench.simulated_day HOURS
"""

import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

from doorstation.ids import SeededIds
from doorstation.sip.digest import DigestServer
from doorstation.sip.endpoint import Endpoint
from doorstation.sip.headers import Headers
from doorstation.sip.message import Request, Response, format_message, make_response, parse_message
from doorstation.sip.transport import DnsQuery, DnsResult, Flow, Send, Target, Transport
from doorstation.sip.uri import SipUri
from doorstation.ua.agent import UserAgent
from doorstation.ua.config import Account, AgentConfig
from doorstation.ua.events import CallArrived, CallConnected, GroupAnswered, Refused

from tests.support.network import Conditions, Host, Network

DOOR: Final = "192.0.2.10"
PBX: Final = "192.0.2.1"
STRANGER: Final = "192.0.2.66"
PORT: Final = 40_000
TALK: Final = 120.0
RING: Final = 30.0

SDP: Final = (
    f"v=0\r\no=pbx 1 1 IN IP4 {PBX}\r\ns=-\r\nc=IN IP4 {PBX}\r\nt=0 0\r\n"
    "m=audio 4000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
).encode()


class Far:
    """A registrar that calls and is called; at another address, a stranger.

    It sends things once: the door's retransmissions make up for what is lost.
    """

    deadline: float | None = None

    def __init__(self, address: str) -> None:
        self.address = address
        self.registrations = 0
        self._guard = DigestServer("example.test", b"secret", {"door": "secret"}, SeededIds(3))
        self._numbers = count()
        self._flow = Flow(0, Transport.UDP, (address, 5060), (DOOR, 5060))

    def invite(self) -> list[object]:
        """A call to the door."""
        number = next(self._numbers)
        headers = Headers(
            [
                ("Via", f"SIP/2.0/UDP {self.address}:5060;branch=z9hG4bKfar{number};rport"),
                ("From", f"<sip:900@{self.address}>;tag=far{number}"),
                ("To", f"<sip:door@{DOOR}>"),
                ("Call-ID", f"far{number}@{self.address}"),
                ("CSeq", "1 INVITE"),
                ("Max-Forwards", "70"),
                ("Contact", f"<sip:900@{self.address}:5060>"),
                ("Content-Type", "application/sdp"),
            ]
        )
        request = Request("INVITE", SipUri(user="door", host=DOOR, port=5060), headers, SDP)
        return [Send(self._flow, format_message(request))]

    def data_received(self, flow: Flow, data: bytes, now: float) -> list[object]:
        if not data.strip():
            return []
        message = parse_message(data)
        if isinstance(message, Response):
            return self._answered(message, flow)
        responses = self._responses(message, now)
        return [Send(flow, format_message(response)) for response in responses]

    def _answered(self, response: Response, flow: Flow) -> list[object]:
        if response.cseq.method != "INVITE" or response.status < 200:
            return []
        branch = response.top_via.branch if response.status >= 300 else "z9hG4bKack"
        headers = Headers(
            [
                ("Via", f"SIP/2.0/UDP {self.address}:5060;branch={branch}"),
                *((name, response.headers.get(name) or "") for name in ("From", "To", "Call-ID")),
                ("CSeq", "1 ACK"),
                ("Max-Forwards", "70"),
            ]
        )
        uri = SipUri(user="door", host=DOOR, port=5060)
        return [Send(flow, format_message(Request("ACK", uri, headers)))]

    def _responses(self, request: Request, now: float) -> list[Response]:
        match request.method:
            case "ACK":
                return []
            case "REGISTER":
                return [self._registered(request, now)]
            case "INVITE":
                answer = make_response(request, 200, to_tag="pbx")
                answer.headers.add("Contact", f"<sip:900@{PBX}:5060>")
                answer.headers.add("Content-Type", "application/sdp")
                answer.body = SDP
                return [make_response(request, 180, to_tag="pbx"), answer]
            case _:
                return [make_response(request, 200, to_tag="pbx")]

    def _registered(self, request: Request, now: float) -> Response:
        verdict = self._guard.verify(request, now)
        if not verdict.ok:
            response = make_response(request, 401, to_tag="pbx")
            for challenge in self._guard.challenge(now, verdict.stale):
                response.headers.add("WWW-Authenticate", challenge)
            return response
        self.registrations += 1
        response = make_response(request, 200, to_tag="pbx")
        contact = request.headers.get("Contact")
        response.headers.add("Contact", f"{contact};expires=300")
        return response

    def flow_opened(self, target: Target, flow: Flow, now: float) -> Sequence[object]:
        return []

    def flow_failed(self, target: Target, reason: str, now: float) -> Sequence[object]:
        return []

    def flow_closed(self, flow: Flow, reason: str, now: float) -> Sequence[object]:
        return []

    def send_failed(self, flow: Flow, reason: str, now: float) -> Sequence[object]:
        return []

    def resolved(self, query: DnsQuery, result: DnsResult, now: float) -> Sequence[object]:
        return []

    def timer_fired(self, now: float) -> Sequence[object]:
        return []


class House:
    """What happens around the user agent."""

    def __init__(self) -> None:
        ids = SeededIds(1)
        account = Account("door", "example.test", SipUri(host=PBX), "secret", expires=300)
        self.network = Network(7, Conditions(loss=0.01, jitter=0.02))
        self.network.drop = self._count
        self.packets = 0
        self.endpoint = Endpoint(ids)
        self.agent = UserAgent(AgentConfig(account), ids, self.endpoint)
        self.door: Host[UserAgent] = self.network.attach(self.agent, DOOR, on_output=self._output)
        self.pbx = self.network.attach(Far(PBX), PBX)
        self.stranger = self.network.attach(Far(STRANGER), STRANGER)
        self.calls = 0
        self.refused = 0
        self._groups = count()
        self._ringing: set[str] = set()
        self.door.do(self.agent.start(self.network.now))
        # Every call and what repeats of it are waited for is over when an hour is.
        self._again(600.0, self._call_out, 60.0)
        self._again(600.0, lambda: self.pbx.do(self.pbx.node.invite()), 300.0)
        self._again(60.0, lambda: self.stranger.do(self.stranger.node.invite()), 30.0)

    def hour(self) -> None:
        self.network.run(3600)
        for host in (self.door, self.pbx, self.stranger):
            host.seen.clear()

    def left(self) -> str:
        """What any table of the door's still holds."""
        tables = {"calls": len(self.agent.calls), **self.endpoint.load}
        held = [f"{count} {name.replace('_', ' ')}" for name, count in tables.items() if count]
        return ", ".join(held) or "nothing"

    def _again(
        self, seconds: float, action: Callable[[], None], first: float | None = None
    ) -> None:
        def run() -> None:
            action()
            self.network.at(seconds, run)

        self.network.at(first or seconds, run)

    def _call_out(self) -> None:
        group = f"group{next(self._groups)}"
        self.door.do(self.agent.place(group, ["900"], PORT, self.network.now))
        # As a door's plan: the far end's only 200 may be lost, and it would ring for ever.
        self._ringing.add(group)
        self.network.at(RING, lambda: self._give_up(group))

    def _give_up(self, group: str) -> None:
        if group in self._ringing:
            self._ringing.remove(group)
            self.door.do(self.agent.cancel_group(group, self.network.now))

    def _output(self, output: object, now: float) -> list[object] | None:
        match output:
            case CallArrived(call):
                return [*self.agent.answer(call, PORT, now)]
            case CallConnected(call) | GroupAnswered(_, call):
                if isinstance(output, GroupAnswered):
                    self._ringing.discard(output.group)
                self.calls += 1
                self.network.at(TALK, lambda: self._hang_up(call))
            case Refused():
                self.refused += 1
        return None

    def _hang_up(self, call: str) -> None:
        self.door.do(self.agent.hang_up(call, self.network.now))

    def _count(self, _: object) -> bool:
        self.packets += 1
        return False


def held() -> float:
    """Megabytes that Python holds for living objects."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0] / 1e6


def main(hours: int) -> None:
    tracemalloc.start()
    house = House()
    house.hour()
    first, objects = held(), len(gc.get_objects())
    begin = time.monotonic()
    for _ in range(hours - 1):
        house.hour()
    seconds = (time.monotonic() - begin) / max(1, hours - 1)
    print(
        json.dumps(
            {
                "first": first,
                "last": held(),
                "objects": len(gc.get_objects()) - objects,
                "seconds": seconds,
                "calls": house.calls,
                "refused": house.refused,
                "registrations": house.pbx.node.registrations,
                "packets": house.packets,
                "left": house.left(),
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
