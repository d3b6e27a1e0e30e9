"""The far end of one user agent, written by hand: bytes in, parsed messages out, virtual time."""

import gc
import weakref
from collections.abc import Sequence
from typing import Any

from doorstation.ids import SeededIds
from doorstation.sip.endpoint import Endpoint
from doorstation.sip.message import Request, Response, format_message, make_response, parse_message
from doorstation.sip.transport import (
    CloseFlow,
    DnsAnswer,
    DnsFailure,
    DnsQuery,
    Flow,
    OpenFlow,
    Resolve,
    Send,
    Target,
    Transport,
)
from doorstation.ua.agent import UserAgent
from doorstation.ua.config import AgentConfig

LOCAL = "192.0.2.10"
REMOTE = "192.0.2.1"

SDP = (
    b"v=0\r\no=peer 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
)


class Wire:
    """A user agent under test; what it sends is read with `sent()`, in order, once."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        seed: int = 1,
        zone: dict[tuple[str, str], DnsAnswer] | None = None,
    ) -> None:
        self.now = 1000.0
        ids = SeededIds(seed)
        self.endpoint = Endpoint(ids)
        self.agent = UserAgent(config, ids, self.endpoint)
        self.zone = zone or {}
        self.refused: set[str] = set()
        """Addresses, and transports, that cannot be reached."""
        self.silent: set[Transport] = set()
        """Transports over which nobody can be reached, and nobody says so."""
        self.local = LOCAL
        """Our address: what a flow that is opened from now on leaves from."""
        self.opened: list[Target] = []
        self.events: list[Any] = []
        self.closed: list[Flow] = []
        self._sent: list[tuple[Flow, Request | Response]] = []
        self._flows = 100

    # -- driving

    def do(self, outputs: Sequence[Any]) -> "Wire":
        """Carry out what a call on the agent returned."""
        queue = list(outputs)
        while queue:
            output = queue.pop(0)
            match output:
                case Send(flow, data):
                    if data.strip():
                        self._sent.append((flow, parse_message(data)))
                case OpenFlow(target):
                    self.opened.append(target)
                    if target.transport in self.silent:
                        continue
                    if self.refused & {target.host, target.transport}:
                        queue += self.agent.flow_failed(target, "refused", self.now)
                    else:
                        queue += self.agent.flow_opened(target, self.flow_to(target), self.now)
                case Resolve(query):
                    queue += self.agent.resolved(query, self._look_up(query), self.now)
                case CloseFlow(flow, _):
                    self.closed.append(flow)
                case _:
                    self.events.append(output)
        return self

    def flow_to(self, target: Target) -> Flow:
        port = target.transport.default_port
        if target.transport is Transport.UDP:
            return Flow(1, target.transport, (self.local, port), (target.host, target.port))
        self._flows += 1
        return Flow(self._flows, target.transport, (self.local, port), (target.host, target.port))

    def change_network(self) -> "Wire":
        """Tell the agent that something changed; `local` and `refused` say what."""

        def moved(flow: Flow) -> bool:
            gone = flow in self.closed or self.refused & {flow.remote[0], flow.transport}
            return bool(gone) or flow.local[0] != self.local

        return self.do(self.agent.network_changed(moved, self.now))

    def _look_up(self, query: DnsQuery) -> DnsAnswer | DnsFailure:
        return self.zone.get((query.kind, query.name), DnsAnswer((), 60.0))

    def wait(self, seconds: float) -> "Wire":
        """Let time pass, timer by timer."""
        until = self.now + seconds
        while (deadline := self.agent.deadline) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.do(self.agent.timer_fired(self.now))
        self.now = until
        return self

    def until_sent(self, limit: float) -> "Wire":
        """Let time pass until something is sent."""
        end = self.now + limit
        while not self._sent:
            deadline = self.agent.deadline
            assert deadline is not None, "nothing will ever be sent"
            assert deadline <= end, f"nothing was sent within {limit} s"
            self.wait(max(0.0, deadline - self.now))
        return self

    def receive(self, message: Request | Response | bytes, flow: Flow | None = None) -> "Wire":
        data = message if isinstance(message, bytes) else format_message(message)
        return self.do(self.agent.data_received(flow or udp(), data, self.now))

    def answer(
        self,
        request: Request,
        status: int,
        *headers: tuple[str, str],
        body: bytes = b"",
        tag: str = "peer",
        flow: Flow | None = None,
        reason: str = "",
    ) -> "Wire":
        """Answer a request that the agent sent, as its far end would."""
        return self.receive(respond(request, status, *headers, body=body, tag=tag), flow)

    # -- looking

    def sent(self) -> list[Any]:
        """The messages sent since the last look."""
        messages = [message for _, message in self._sent]
        self._sent.clear()
        return messages

    def sent_with_flows(self) -> list[tuple[Flow, Any]]:
        both = list(self._sent)
        self._sent.clear()
        return both

    def request(self, method: str) -> Request:
        """The one request with this method among what was sent since the last look."""
        found = [m for m in self.sent() if isinstance(m, Request) and m.method == method]
        assert len(found) == 1, f"{len(found)} x {method}"
        return found[0]

    def response(self) -> Response:
        """The one response sent since the last look."""
        found = [m for m in self.sent() if isinstance(m, Response)]
        assert len(found) == 1, found
        return found[0]

    def told(self, kind: type) -> list[Any]:
        """Events of one kind so far, taken away."""
        found = [event for event in self.events if isinstance(event, kind)]
        self.events = [event for event in self.events if not isinstance(event, kind)]
        return found


def leaves_nothing(w: Wire, call: "weakref.ref[Any]") -> bool:
    """Whether a call that is over is gone, soon and without the garbage collector.

    With everything of the start frozen, Python looks for circles once in 800 calls.
    """
    gc.disable()
    try:
        w.wait(80)
        return call() is None
    finally:
        gc.enable()


def udp(host: str = REMOTE, port: int = 5060) -> Flow:
    return Flow(1, Transport.UDP, (LOCAL, 5060), (host, port))


def respond(
    request: Request,
    status: int,
    *headers: tuple[str, str],
    body: bytes = b"",
    tag: str = "peer",
) -> Response:
    response = make_response(request, status, to_tag=tag if status > 100 else "")
    for name, value in headers:
        response.headers.add(name, value)
    if request.method == "INVITE" and 100 < status < 300 and "Contact" not in response.headers:
        response.headers.add("Contact", f"<sip:phone@{REMOTE}:5060>")
    if body:
        response.headers.add("Content-Type", "application/sdp")
        response.body = body
    return response


_COUNT = iter(range(1, 1_000_000))


def request(
    method: str,
    *headers: tuple[str, str],
    body: bytes = b"",
    uri: str = f"sip:door@{LOCAL}",
    call_id: str = "call-from-outside",
    cseq: int = 1,
    from_tag: str = "theirs",
    to_tag: str = "",
    from_uri: str = f"sip:indoor@{REMOTE}",
    content_type: str = "application/sdp",
    branch: str = "",
) -> bytes:
    """A request as a phone would write it; `headers` add to or replace the usual ones."""
    lines = {
        "Via": f"SIP/2.0/UDP {REMOTE}:5060;branch=z9hG4bK{branch or next(_COUNT)};rport",
        "Max-Forwards": "70",
        "From": f"<{from_uri}>;tag={from_tag}",
        "To": f"<{uri}>" + (f";tag={to_tag}" if to_tag else ""),
        "Call-ID": call_id,
        "CSeq": f"{cseq} {method}",
        "Contact": f"<sip:indoor@{REMOTE}:5060>",
    }
    if body:
        lines["Content-Type"] = content_type
    lines.update(headers)
    head = f"{method} {uri} SIP/2.0\r\n" + "".join(f"{n}: {v}\r\n" for n, v in lines.items() if v)
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
