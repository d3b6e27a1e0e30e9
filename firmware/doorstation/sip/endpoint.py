"""The transaction layer: bytes from the sockets in, requests and responses for the user agent out.

`Endpoint` finds the transaction for each message (RFC 3261 §17.1.3, §17.2.3), finds the way for
each request (RFC 3263, `locate.py`), opens flows and uses them again, and takes the next target
when one fails. What can be answered without a user agent is answered here and leaves no state
behind: malformed and merged requests, CANCEL, everything above the limits.

Each input returns the outputs to carry out in order: those of `transport.Wire` are for the shell,
the others for the transaction user. The shell gives nothing more from a flow after `CloseFlow`.

The life of one request: locate -> open -> send -> answered. The steps in front of `->` may each
fail and then begin again with the next target, in a new transaction with a new branch (RFC 3263
§4.3); `_Outgoing` is what stays the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias, assert_never

import msgspec
from msgspec.structs import replace

from doorstation.ids import Ids
from doorstation.sip.alarms import Alarms
from doorstation.sip.headers import Via, format_via
from doorstation.sip.locate import FAILED_SECONDS, Located, Locator, Progress
from doorstation.sip.message import (
    KeepAlive,
    MalformedMessage,
    Message,
    Request,
    Response,
    StreamBroken,
    StreamReader,
    check_request,
    check_response,
    format_message,
    make_response,
    parse_message,
)
from doorstation.sip.transaction import (
    AckDelivered,
    ClientTransaction,
    Delivered,
    Outcome,
    ServerTransaction,
    State,
    TimedOut,
    Timing,
    Unreachable,
    make_cancel,
)
from doorstation.sip.transport import (
    CloseFlow,
    DnsFailure,
    DnsQuery,
    DnsResult,
    Flow,
    OpenFlow,
    Resolve,
    Send,
    Target,
    Transport,
    Wire,
)
from doorstation.sip.uri import SipUri

# Attack bounded: a flood of requests from forged addresses, each held for 32 s after its answer.
# A host that comes to a limit gives up what was answered longest ago (a repeat would be all that
# still finds it), so that no number of finished calls keeps it from the next one.
MAX_TRANSACTIONS: Final = 4096
# Attack bounded: one scanner that would leave no room for anybody else.
MAX_TRANSACTIONS_PER_HOST: Final = 2048
# Attack bounded: transactions of 64 kB each. Characters of the headers that name one: they are kept
# with it, and in the answer, which copies them. Seventy hops have room.
MAX_NAMES: Final = 8192
# Attack bounded: connections opened and left idle. The one silent for longest makes room.
MAX_STREAMS_IN: Final = 64
# Attack bounded: a Contact, Route or Via that sends us to ever new addresses.
MAX_STREAMS_OUT: Final = 64
# Attack bounded: requests over TCP that are answered after their connection was closed, each with
# another port in Via to connect back to.
MAX_OPENING: Final = 64

MAX_UDP_REQUEST: Final = 1300  # bytes; above, a datagram may be fragmented and lost (§18.1.1)
CONNECT_SECONDS: Final = 5.0  # two SYN repeats; the next target is better than a longer wait
# One SYN repeat: behind a stream that is only tried for a large request UDP waits, and a visitor.
STREAM_SECONDS: Final = 2.0
STREAM_FAILED_SECONDS: Final = (
    3600.0  # until it is tried again: a firewall does not change its mind
)
DNS_SECONDS: Final = 10.0  # the shell gives up before; this holds should it not
RETRY_AFTER_SECONDS: Final = 32  # by then the transactions that filled the table are gone

PONG: Final = b"\r\n"
_COOKIE: Final = "z9hg4bk"  # in lower case


class RequestReceived(msgspec.Struct, frozen=True):
    """A new, well-formed request; answer with `respond` or `answer_once`."""

    server_id: int
    request: Request
    flow: Flow


class AckReceived(msgspec.Struct, frozen=True):
    """An ACK that belongs to a 2xx; the dialog it names tells which."""

    request: Request
    flow: Flow


class CancelReceived(msgspec.Struct, frozen=True):
    """The INVITE `server_id` is cancelled; `request` is the CANCEL, answered already.

    Answer the INVITE with 487.
    """

    server_id: int
    request: Request


class ResponseReceived(msgspec.Struct, frozen=True):
    """A response but 100; `request` as it was sent. 2xx to INVITE come repeated and forked too."""

    request_id: int
    request: Request
    response: Response
    flow: Flow


class StrayResponse(msgspec.Struct, frozen=True):
    """A 2xx to an INVITE whose transaction is gone: it must be acknowledged, and ended with BYE."""

    response: Response
    flow: Flow


class RequestFailed(msgspec.Struct, frozen=True):
    """No final response: take it as this status.

    408 no answer, 503 nowhere to send to, 487 cancelled and never answered (RFC 3261 §9.1).
    """

    request_id: int
    request: Request | None
    status: int
    why: str


class FlowLost(msgspec.Struct, frozen=True):
    """A connection or socket is gone, and with it what was registered over it."""

    flow: Flow
    reason: str


Output: TypeAlias = (
    Wire
    | RequestReceived
    | AckReceived
    | CancelReceived
    | ResponseReceived
    | StrayResponse
    | RequestFailed
    | FlowLost
)
Build: TypeAlias = Callable[[Flow], Request]
_ServerKey: TypeAlias = tuple[str | int | None, ...]


class _Outgoing(msgspec.Struct, eq=False):
    """One request of the transaction user, through all its attempts."""

    id: int
    build: Build
    next_hop: SipUri | Flow
    first: Flow | None = None  # tried before anything is located
    last: Flow | None = None  # taken when nothing can be located
    is_ack: bool = False
    targets: list[Target] = msgspec.field(default_factory=list)
    target: Target | None = None
    located: bool = False
    large: bool = False  # located again with streams first
    reused: bool = False  # the attempt runs on a flow that was there before
    client: "_Client | None" = None
    request: Request | None = None
    cancelled: bool = False
    cancel_sent: bool = False
    cancel_reason: str = ""
    done: bool = False
    status: int = 503  # of the last attempt that failed
    why: str = "no target"


class _Client(msgspec.Struct, eq=False):
    """A client transaction; without an owner it only absorbs what is repeated."""

    key: tuple[str, str]
    transaction: ClientTransaction
    owner: _Outgoing | None
    started: float
    wake: float | None = None

    @property
    def deadline(self) -> float | None:
        return self.transaction.deadline


class _Server(msgspec.Struct, eq=False):
    id: int
    key: _ServerKey
    merge_key: _ServerKey
    host: str
    transaction: ServerTransaction
    back: Target | None  # where to connect to when the stream is gone; None for UDP
    cancelled: bool = False
    wake: float | None = None

    @property
    def deadline(self) -> float | None:
        return self.transaction.deadline


class _Late(msgspec.Struct, eq=False):
    """A response that waits for a new connection, its own being gone (RFC 3261 §18.2.2)."""

    server: _Server
    data: bytes


class _Opening(msgspec.Struct, eq=False):
    target: Target
    deadline: float
    waiting: list[_Outgoing | _Late] = msgspec.field(default_factory=list)
    wake: float | None = None


class _Question(msgspec.Struct, eq=False):
    query: DnsQuery
    deadline: float
    wake: float | None = None


class _Stream(msgspec.Struct, eq=False):
    flow: Flow
    target: Target | None  # None: the peer connected to us
    heard: float  # when something last came
    reader: StreamReader = msgspec.field(default_factory=StreamReader)


Screen: TypeAlias = Callable[
    [Request, Flow, float], tuple[int, str, tuple[tuple[str, str], ...]] | None
]
"""Status, reason and headers to refuse a request with, or None."""


class Endpoint:
    """All transactions and flows of one user agent."""

    def __init__(
        self,
        ids: Ids,
        *,
        transports: Sequence[Transport] = (Transport.UDP, Transport.TCP, Transport.TLS),
        t1: float = 0.5,
        t2: float = 4.0,
        t4: float = 5.0,
        user_agent: str = "",
        ipv6: bool = True,
        max_transactions: int = MAX_TRANSACTIONS,
        max_transactions_per_host: int = MAX_TRANSACTIONS_PER_HOST,
    ) -> None:
        """`transports`: those with sockets, the preferred first. Times in seconds."""
        self._ids = ids
        self._timing = Timing(t1, t2, t4)
        self._transports = tuple(transports)
        self._user_agent = user_agent
        self._max_transactions = max_transactions
        self._max_per_host = max_transactions_per_host
        self._locator = Locator(ids, transports, ipv6=ipv6)
        # The To tag of every answer without state, so that the ACK for it is recognised (§8.2.7).
        self._stateless_tag = ids.token()
        self._alarms: Alarms[_Client | _Server | _Opening | _Question] = Alarms()
        self._last_id = 0
        self._requests: dict[int, _Outgoing] = {}
        self._clients: dict[tuple[str, str], _Client] = {}
        self._servers: dict[_ServerKey, _Server] = {}
        self._servers_by_id: dict[int, _Server] = {}
        self._merge: dict[_ServerKey, _Server] = {}
        self._hosts: dict[str, dict[int, _Server]] = {}  # by id, the oldest first
        self.screen: Screen | None = None
        """Who may refuse a new request before anything is kept of it."""
        self._streams: dict[int, _Stream] = {}  # by flow id, the one silent for longest first
        self._by_target: dict[Target, Flow] = {}
        self._opening: dict[Target, _Opening] = {}
        self._questions: dict[DnsQuery, _Question] = {}
        self._counters = {
            "acks_lost": 0,
            "answered_malformed": 0,
            "dropped_malformed": 0,
            "late_responses": 0,
            "merged_requests": 0,
            "refused_full": 0,
            "stray_acks": 0,
            "stray_cancels": 0,
            "stray_responses": 0,
        }

    @property
    def deadline(self) -> float | None:
        """When to call `timer_fired`; None: nothing is pending."""
        return self._alarms.next()

    @property
    def counters(self) -> Mapping[str, int]:
        """What was dropped or answered without the user agent, since the start."""
        return self._counters

    @property
    def load(self) -> Mapping[str, int]:
        """How full each table is: all zero but `flows` when nothing is going on."""
        return {
            "requests": len(self._requests),
            "client_transactions": len(self._clients),
            "server_transactions": len(self._servers),
            "merge_keys": len(self._merge),
            "server_ids": len(self._servers_by_id),
            "hosts": len(self._hosts),
            "opening": len(self._opening),
            "questions": len(self._questions),
            "searches": self._locator.searching,
            "timers": len(self._alarms),
            "flows": len(self._streams),
        }

    # Inputs from the shell

    def data_received(self, flow: Flow, data: bytes, now: float) -> list[Output]:
        """One datagram, or the next piece of a stream."""
        if not flow.transport.reliable:
            return self._datagram_received(flow, data, now)
        outputs: list[Output] = []
        stream = self._streams.pop(flow.id, None)
        if stream is None:
            outputs += self._make_room(now)
            stream = _Stream(flow, None, now)
        self._streams[flow.id] = stream
        stream.heard = now
        broken = ""
        answered = False
        try:
            received = stream.reader.receive(data)
        except StreamBroken as fault:
            received = fault.received
            broken = fault.reason
        for item in received:
            if isinstance(item, KeepAlive):
                # Only the side that connected pings (RFC 5626 §4.4.1). One pong answers all pings
                # of a piece: thousands fit into it, and each would be written by itself.
                if stream.target is None and not item.pong:
                    if not answered:
                        outputs.append(Send(flow, PONG))
                    answered = True
            else:
                outputs += self._item_received(item, flow, now)
        if broken:
            outputs += self._close(stream, broken, now)
        return outputs

    def flow_opened(self, target: Target, flow: Flow, now: float) -> list[Output]:
        """`OpenFlow(target)` succeeded; a late one is kept for the next request."""
        opening = self._opening.pop(target, None)
        outputs: list[Output] = []
        if flow.transport.reliable:
            self._streams[flow.id] = _Stream(flow, target, now)
            self._by_target[target] = flow
            outputs += self._close_idle(now)
        if opening is not None:
            self._alarms.drop(opening)
            for waiting in opening.waiting:
                if isinstance(waiting, _Late):
                    waiting.server.transaction.flow = flow
                    outputs.append(Send(flow, waiting.data))
                elif not waiting.done:
                    outputs += self._launch(waiting, flow, now)
        return outputs

    def flow_failed(self, target: Target, reason: str, now: float) -> list[Output]:
        """`OpenFlow(target)` failed."""
        opening = self._opening.pop(target, None)
        if opening is None:
            return []
        self._alarms.drop(opening)
        large = all(isinstance(one, _Outgoing) and one.large for one in opening.waiting)
        self._locator.target_failed(target, now, STREAM_FAILED_SECONDS if large else FAILED_SECONDS)
        outputs: list[Output] = []
        for waiting in opening.waiting:
            if isinstance(waiting, _Late):
                outcomes = waiting.server.transaction.transport_failed(now)
                outputs += self._server_did(waiting.server, outcomes, now)
            elif not waiting.done:
                waiting.status, waiting.why = 503, f"{target}: {reason}"
                outputs += self._next_target(waiting, now)
        return outputs

    def flow_closed(self, flow: Flow, reason: str, now: float) -> list[Output]:
        """A connection ended, or a UDP socket was closed: all flows with its id are gone."""
        if flow.transport.reliable:
            stream = self._streams.pop(flow.id, None)
            if stream is None:
                return []
            if stream.target is not None and self._by_target.get(stream.target) == flow:
                del self._by_target[stream.target]
        outputs: list[Output] = [FlowLost(flow, reason)]
        for client in list(self._clients.values()):
            if client.transaction.flow.id == flow.id:
                outputs += self._client_lost(client, reason, now)
        return outputs

    def send_failed(self, flow: Flow, reason: str, now: float) -> list[Output]:
        """UDP: the peer does not listen (ICMP) or the network is down; other flows are well.

        What has an answer already goes on: it was something else that failed.
        """
        if flow.transport.reliable:
            return self.flow_closed(flow, reason, now)
        outputs: list[Output] = []
        for client in list(self._clients.values()):
            used = client.transaction.flow
            if (used.id, used.remote) == (flow.id, flow.remote) and not client.transaction.answered:
                outputs += self._client_lost(client, reason, now)
        return outputs

    def resolved(self, query: DnsQuery, result: DnsResult, now: float) -> list[Output]:
        """The answer to `Resolve(query)`."""
        question = self._questions.pop(query, None)
        if question is not None:
            self._alarms.drop(question)
        return self._progress(self._locator.resolved(query, result, now), now)

    def timer_fired(self, now: float) -> list[Output]:
        """Do what is due; call at `deadline`, later or more often does no harm."""
        outputs: list[Output] = []
        while (item := self._alarms.pop(now)) is not None:
            match item:
                case _Client():
                    outputs += self._client_did(item, item.transaction.timer_fired(now), now)
                case _Server():
                    outputs += self._server_did(item, item.transaction.timer_fired(now), now)
                case _Opening():
                    why = f"no connection in {CONNECT_SECONDS:g} s"
                    outputs += self.flow_failed(item.target, why, now)
                case _Question():
                    failure = DnsFailure(f"no DNS answer in {DNS_SECONDS:g} s", temporary=True)
                    outputs += self.resolved(item.query, failure, now)
                case _:
                    assert_never(item)
        return outputs

    # Inputs from the transaction user

    def send_request(
        self,
        build: Build,
        next_hop: SipUri | Flow,
        now: float,
        *,
        first: Flow | None = None,
        last: Flow | None = None,
    ) -> tuple[int, list[Output]]:
        """Send a request; its id comes back in the outputs that concern it.

        `build(flow)` makes it, without Via, once for each attempt. A `Flow` binds the request to
        this flow: no other target, no change of transport. With `first` that flow is tried before
        the targets of `next_hop`; what is too large for UDP goes to its far end by TCP, if that
        can be had (RFC 3261 §18.1.1). `last` is taken where `next_hop` has no address.
        """
        self._last_id += 1
        outgoing = _Outgoing(self._last_id, build, next_hop, first, last)
        return outgoing.id, self._begin(outgoing, now)

    def send_ack(
        self,
        build: Build,
        next_hop: SipUri | Flow,
        now: float,
        *,
        first: Flow | None = None,
        last: Flow | None = None,
    ) -> list[Output]:
        """Send the ACK for a 2xx, which has no transaction; nobody hears of it when it fails."""
        self._last_id += 1
        return self._begin(_Outgoing(self._last_id, build, next_hop, first, last, is_ack=True), now)

    def cancel(self, request_id: int, now: float, reason: str = "") -> list[Output]:
        """Cancel an INVITE (RFC 3261 §9.1); `reason` is the value of a Reason header.

        Held back until a provisional response; nothing when a final one came. An INVITE that was
        not sent yet, and one that stays unanswered, ends with RequestFailed 487.
        """
        outgoing = self._requests.get(request_id)
        if outgoing is None or outgoing.cancelled:
            return []
        if outgoing.client is None:
            return self._fail(outgoing, 487, "cancelled before it was sent")
        if outgoing.client.transaction.request.method != "INVITE":
            return []
        outgoing.cancelled = True
        outgoing.cancel_reason = reason
        if outgoing.client.transaction.machine.state is State.PROCEEDING:
            return self._send_cancel(outgoing, outgoing.client, now)
        return []

    def respond(self, server_id: int, response: Response, now: float) -> list[Output]:
        """Answer a request; a 2xx to INVITE may be sent again (RFC 6026).

        After the end of the transaction nothing is sent. ValueError for a provisional other than
        100 to anything but INVITE (RFC 4320).
        """
        server = self._servers_by_id.get(server_id)
        if server is None:
            self._counters["late_responses"] += 1
            return []
        if self._user_agent and "Server" not in response.headers:
            response.headers.add("Server", self._user_agent)
        return self._server_did(server, server.transaction.respond(response, now), now)

    def answer_once(self, server_id: int, response: Response) -> list[Output]:
        """Answer and forget the request at once: what strangers get leaves no state (§8.2.7).

        For finals, but no 2xx to INVITE. A repeated request comes up as a new one.
        """
        server = self._servers_by_id.get(server_id)
        if server is None:
            self._counters["late_responses"] += 1
            return []
        self._forget_server(server)
        if not response.to.tag:
            tagged = f"{response.headers.get('To')};tag={self._stateless_tag}"
            response.headers.set("To", tagged)
        return self._send_once(server.transaction.flow, response)

    # Requests going out

    def _begin(self, outgoing: _Outgoing, now: float) -> list[Output]:
        self._requests[outgoing.id] = outgoing
        next_hop = outgoing.next_hop
        first = outgoing.first
        if first is not None and first.transport.reliable:
            stream = self._streams.get(first.id)
            if stream is not None:
                outgoing.target = stream.target
                outgoing.reused = stream.target is not None
                return self._launch(outgoing, first, now)
        elif first is not None:
            outgoing.target = Target(first.transport, *first.remote)
            return self._launch(outgoing, first, now)
        if isinstance(next_hop, SipUri):
            return self._locate(outgoing, next_hop, now)
        if next_hop.transport.reliable and next_hop.id not in self._streams:
            return self._fail(outgoing, 503, "the flow is gone")
        return self._launch(outgoing, next_hop, now)

    def _locate(self, outgoing: _Outgoing, uri: SipUri, now: float) -> list[Output]:
        progress = self._locator.locate(outgoing.id, uri, now, large=outgoing.large)
        return self._progress(progress, now)

    def _progress(self, progress: Progress, now: float) -> list[Output]:
        outputs: list[Output] = []
        for query in progress.queries:
            question = _Question(query, now + DNS_SECONDS)
            self._questions[query] = question
            self._alarms.arm(question)
            outputs.append(Resolve(query))
        for request_id, located in progress.found:
            outputs += self._located(self._requests[request_id], located, now)
        return outputs

    def _located(self, outgoing: _Outgoing, located: Located, now: float) -> list[Output]:
        if not located.targets:
            last = outgoing.last
            if last is None or (last.transport.reliable and last.id not in self._streams):
                return self._fail(outgoing, 503, located.fault)
            outgoing.located = True
            return self._launch(outgoing, last, now)
        # What `first` led to has had its turn.
        failed = outgoing.target if not outgoing.located else None
        known = outgoing.first or outgoing.last
        targets = [_on_link_of(known, target) for target in located.targets]
        outgoing.targets = [target for target in targets if target != failed]
        outgoing.located = True
        return self._next_target(outgoing, now)

    def _next_target(self, outgoing: _Outgoing, now: float) -> list[Output]:
        """Begin the next attempt, or give up with what the last one brought."""
        outgoing.client = None
        if outgoing.cancelled:
            return self._fail(outgoing, 487, "cancelled")
        if not outgoing.targets and not outgoing.located and isinstance(outgoing.next_hop, SipUri):
            return self._locate(outgoing, outgoing.next_hop, now)
        if not outgoing.targets:
            return self._fail(outgoing, outgoing.status, outgoing.why)
        target = outgoing.targets.pop(0)
        outgoing.target = target
        flow = self._by_target.get(target) or self._connected(target)
        outgoing.reused = flow is not None
        first = outgoing.first
        if first is not None and first.transport is Transport.UDP:
            flow = first if target == Target(Transport.UDP, *first.remote) else flow
        if flow is not None:
            return self._launch(outgoing, flow, now)
        return self._open(target, outgoing, now)

    def _connected(self, target: Target) -> Flow | None:
        """A connection with this very address and port, from whichever side it was opened.

        A Contact often names the connection it came over, where nobody listens; and with an address
        instead of a name no certificate would prove it: over TLS the connection that has proved a
        name already is the better one (RFC 5923). Who connected to us has proved none.
        """
        if target.tls_name not in ("", target.host):
            return None
        for stream in reversed(self._streams.values()):
            flow = stream.flow
            if stream.target is None and flow.transport is Transport.TLS:
                continue
            if (flow.transport, *flow.remote) == (target.transport, target.host, target.port):
                return flow
        return None

    def _open(self, target: Target, waiting: _Outgoing | _Late, now: float) -> list[Output]:
        opening = self._opening.get(target)
        if opening is not None:
            opening.waiting.append(waiting)
            return []
        large = isinstance(waiting, _Outgoing) and waiting.large
        limit = STREAM_SECONDS if large and target.transport.reliable else CONNECT_SECONDS
        opening = _Opening(target, now + limit, [waiting])
        self._opening[target] = opening
        self._alarms.arm(opening)
        return [OpenFlow(target)]

    def _launch(self, outgoing: _Outgoing, flow: Flow, now: float) -> list[Output]:
        """Send on this flow, unless the request turns out too large for UDP."""
        request = outgoing.build(flow).copy()
        if self._user_agent and "User-Agent" not in request.headers:
            request.headers.add("User-Agent", self._user_agent)
        branch = f"z9hG4bK{self._ids.token()}"
        via = Via(str(flow.transport), *flow.local, (("branch", branch), ("rport", None)))
        request.headers.prepend("Via", format_via(via))
        if outgoing.is_ack:
            self._finish(outgoing)
            return [Send(flow, format_message(request))]
        transaction = ClientTransaction(request, flow, self._timing, now)
        if (
            transaction.size > MAX_UDP_REQUEST
            and flow.transport is Transport.UDP
            and isinstance(outgoing.next_hop, SipUri)
            and not outgoing.large
            and Transport.TCP in self._transports
        ):
            outgoing.large = True
            if outgoing.located:
                return self._locate(outgoing, outgoing.next_hop, now)
            # `first` stands for one server: the same one by a stream, else as it was to be.
            stream = Target(Transport.TCP, *flow.remote)
            if not self._locator.failed_lately(stream, now):
                outgoing.targets = [stream, Target(flow.transport, *flow.remote)]
                return self._next_target(outgoing, now)
        outgoing.request = request
        client = _Client((branch, request.method), transaction, outgoing, now)
        outgoing.client = client
        self._clients[client.key] = client
        return self._client_did(client, transaction.start(), now)

    def _send_cancel(self, outgoing: _Outgoing, invite: _Client, now: float) -> list[Output]:
        outgoing.cancel_sent = True
        invite.transaction.cancelled(now)
        self._alarms.arm(invite)
        cancel = make_cancel(invite.transaction.request, outgoing.cancel_reason)
        transaction = ClientTransaction(cancel, invite.transaction.flow, self._timing, now)
        client = _Client((invite.key[0], "CANCEL"), transaction, None, now)
        self._clients[client.key] = client
        return self._client_did(client, transaction.start(), now)

    def _client_did(
        self, client: _Client, outcomes: list[Outcome], now: float, flow: Flow | None = None
    ) -> list[Output]:
        """Carry out what a client transaction decided; `flow`: where the response came from."""
        if client.transaction.ended:
            self._clients.pop(client.key, None)
            self._alarms.drop(client)
        else:
            self._alarms.arm(client)
        outputs: list[Output] = []
        for outcome in outcomes:
            owner = client.owner
            match outcome:
                case Send():
                    outputs.append(outcome)
                case Delivered(response):
                    if owner is not None:
                        back = flow or client.transaction.flow
                        outputs += self._answered(owner, client, response, back, now)
                case TimedOut():
                    if owner is not None:
                        outputs += self._timed_out(owner, client, now)
                case Unreachable():
                    if owner is not None:
                        outputs += self._unreachable(owner, client, now)
                case AckDelivered():
                    pass
                case _:
                    assert_never(outcome)
        if client.transaction.ended and client.owner is not None:
            # The end of Accepted: no more 2xx is expected.
            self._finish(client.owner)
            client.owner = None
        return outputs

    def _answered(
        self, outgoing: _Outgoing, client: _Client, response: Response, flow: Flow, now: float
    ) -> list[Output]:
        outputs: list[Output] = []
        if response.status < 200:
            if outgoing.cancelled and not outgoing.cancel_sent:
                outputs += self._send_cancel(outgoing, client, now)
            if response.status == 100:
                return outputs
        elif response.status == 503:
            if outgoing.target is not None:
                seconds = FAILED_SECONDS if response.retry_after is None else response.retry_after
                self._locator.target_failed(outgoing.target, now, seconds)
            elsewhere = outgoing.targets or (outgoing.first is not None and not outgoing.located)
            if elsewhere and not outgoing.cancelled:
                client.owner = None
                outgoing.why = f"503 {response.reason}"
                return outputs + self._next_target(outgoing, now)
        elif outgoing.target is not None:
            self._locator.target_worked(outgoing.target)
        request = client.transaction.request
        outputs.append(ResponseReceived(outgoing.id, request, response, flow))
        if client.transaction.machine.state not in (State.PROCEEDING, State.ACCEPTED):
            client.owner = None
            self._finish(outgoing)
        return outputs

    def _timed_out(self, outgoing: _Outgoing, client: _Client, now: float) -> list[Output]:
        client.owner = None
        outgoing.status = 408
        outgoing.why = f"no final response from {client.transaction.flow.remote[0]}"
        if client.transaction.answered:
            # The server is there and took its time; another one would do the work twice.
            outgoing.targets.clear()
            outgoing.located = True
        elif outgoing.target is not None:
            self._locator.target_failed(outgoing.target, now)
        outputs: list[Output] = []
        stream = self._streams.get(client.transaction.flow.id)
        if stream is not None and stream.heard < client.started:
            # Nothing at all came in 64 T1: a router forgot the connection, or the peer is gone
            # without a word. Kept open it would swallow the next request as well.
            outputs += self._close(stream, "silent", now)
        return outputs + self._next_target(outgoing, now)

    def _unreachable(self, outgoing: _Outgoing, client: _Client, now: float) -> list[Output]:
        client.owner = None
        if outgoing.target is not None:
            if outgoing.reused and not client.transaction.answered:
                # The server may just have closed an old connection: one new one is worth a try.
                outgoing.targets.insert(0, outgoing.target)
            else:
                self._locator.target_failed(outgoing.target, now)
        return self._next_target(outgoing, now)

    def _client_lost(self, client: _Client, reason: str, now: float) -> list[Output]:
        if client.owner is not None:
            client.owner.status = 503
            client.owner.why = f"{client.transaction.flow.remote[0]}: {reason}"
        return self._client_did(client, client.transaction.transport_failed(now), now)

    def _fail(self, outgoing: _Outgoing, status: int, why: str) -> list[Output]:
        self._locator.forget(outgoing.id)
        self._finish(outgoing)
        if outgoing.is_ack:
            self._counters["acks_lost"] += 1
            return []
        return [RequestFailed(outgoing.id, outgoing.request, status, why)]

    def _finish(self, outgoing: _Outgoing) -> None:
        outgoing.done = True
        outgoing.client = None
        self._requests.pop(outgoing.id, None)

    # Messages coming in

    def _datagram_received(self, flow: Flow, data: bytes, now: float) -> list[Output]:
        if not data.strip(b"\r\n\0"):
            return []  # NAT keep-alives of a peer
        try:
            message = parse_message(data)
        except MalformedMessage as fault:
            return self._item_received(fault, flow, now)
        return self._item_received(message, flow, now)

    def _item_received(
        self, item: Message | MalformedMessage, flow: Flow, now: float
    ) -> list[Output]:
        try:
            if isinstance(item, MalformedMessage):
                raise item
            if isinstance(item, Response):
                check_response(item)
                return self._response_received(item, flow, now)
            via_text = item.headers.get("Via") or ""
            check_request(item)
            _stamp(item, flow)
            return self._request_received(item, via_text, flow, now)
        except MalformedMessage as fault:
            return self._malformed_received(fault, flow)

    def _malformed_received(self, fault: MalformedMessage, flow: Flow) -> list[Output]:
        request = fault.request
        if request is None or request.method == "ACK":
            self._counters["dropped_malformed"] += 1
            return []
        _stamp(request, flow)
        self._counters["answered_malformed"] += 1
        # RFC 3261 §21.4.1: the reason phrase should name the fault.
        reason = fault.reason if fault.status == 400 else ""
        return self._answer(request, _way_back(request, flow), fault.status, reason)

    def _response_received(self, response: Response, flow: Flow, now: float) -> list[Output]:
        # The branch of ours is a secret, so sent-by is not compared: some NATs rewrite it.
        cseq = response.cseq
        if len(response.vias) == 1:  # §8.1.3.3: with more it was misrouted
            client = self._clients.get((response.top_via.branch or "", cseq.method))
            if client is not None:
                outcomes = client.transaction.response_received(response, now)
                return self._client_did(client, outcomes, now, flow)
            if cseq.method == "INVITE" and 200 <= response.status < 300:
                return [StrayResponse(response, flow)]
        self._counters["stray_responses"] += 1
        return []

    def _request_received(
        self, request: Request, via_text: str, flow: Flow, now: float
    ) -> list[Output]:
        if request.method == "ACK":
            return self._ack_received(request, via_text, flow, now)
        if request.method == "CANCEL":
            return self._cancel_received(request, via_text, flow)
        key = _server_key(request, via_text, request.method)
        known = self._servers.get(key)
        if known is not None:
            return self._server_did(known, known.transaction.request_received(now), now)
        cseq = request.cseq
        merge_key = (request.from_.tag, request.call_id, cseq.number, cseq.method)
        way = _way_back(request, flow)
        if request.to.tag is None and merge_key in self._merge:
            self._counters["merged_requests"] += 1
            return self._answer(request, way, 482)
        if _length_of_names(request) > MAX_NAMES:
            return self._answer(request, way, 513)
        if self.screen is not None and (refusal := self.screen(request, flow, now)) is not None:
            status, reason, headers = refusal
            return self._answer(request, way, status, reason, headers=headers)
        host = flow.remote[0]
        of_host = self._hosts.get(host, {})
        if len(self._servers) >= self._max_transactions or len(of_host) >= self._max_per_host:
            oldest = next((s for s in of_host.values() if not s.transaction.pending), None)
            if oldest is None:
                self._counters["refused_full"] += 1
                retry = (("Retry-After", str(RETRY_AFTER_SECONDS)),)
                return self._answer(request, way, 503, headers=retry)
            self._forget_server(oldest)
        back = None
        if flow.transport.reliable:
            via = request.top_via
            tls_name = via.host if flow.transport is Transport.TLS else ""
            back = Target(flow.transport, host, via.sent_by[1], tls_name)
        self._last_id += 1
        transaction = ServerTransaction(request, way, self._timing, now)
        server = _Server(self._last_id, key, merge_key, host, transaction, back)
        self._servers[key] = server
        self._servers_by_id[server.id] = server
        self._merge.setdefault(merge_key, server)
        self._hosts.setdefault(host, {})[server.id] = server
        self._alarms.arm(server)
        return [RequestReceived(server.id, request, flow)]

    def _ack_received(
        self, request: Request, via_text: str, flow: Flow, now: float
    ) -> list[Output]:
        to_tag = request.to.tag
        key = _server_key(request, via_text, "INVITE")
        server = self._servers.get(key)
        # Without the cookie the To tag decides as well; with it, some phones get the tag wrong.
        if server is not None and (_has_cookie(key[0]) or server.transaction.to_tag == to_tag):
            outcomes = server.transaction.ack_received(now)
            if AckDelivered() in outcomes:
                return [AckReceived(request, flow)]
            return self._server_did(server, outcomes, now)
        if to_tag == self._stateless_tag:
            return []
        if to_tag is None or server is not None:
            self._counters["stray_acks"] += 1
            return []
        return [AckReceived(request, flow)]

    def _cancel_received(self, request: Request, via_text: str, flow: Flow) -> list[Output]:
        """Answered without a transaction of its own: a repeated CANCEL finds the INVITE again."""
        way = _way_back(request, flow)
        server = self._servers.get(_server_key(request, via_text, "INVITE"))
        if server is None:
            self._counters["stray_cancels"] += 1
            return self._answer(request, way, 481)
        outputs = self._answer(request, way, 200, to_tag=server.transaction.to_tag)
        if server.transaction.pending and not server.cancelled:
            server.cancelled = True
            outputs.append(CancelReceived(server.id, request))
        return outputs

    def _server_did(self, server: _Server, outcomes: list[Outcome], now: float) -> list[Output]:
        """Carry out what a server transaction decided.

        A missing ACK concerns the dialog of a 2xx only, which counts by itself: nothing to tell.
        """
        outputs: list[Output] = []
        for outcome in outcomes:
            if isinstance(outcome, Send):
                if server.back is None or outcome.flow.id in self._streams:
                    outputs.append(outcome)
                else:
                    outputs += self._send_anew(server, server.back, outcome.data, now)
        if server.transaction.ended:
            self._forget_server(server)
        else:
            self._alarms.arm(server)
        return outputs

    def _send_anew(self, server: _Server, back: Target, data: bytes, now: float) -> list[Output]:
        """The request's connection is gone: use or open another to the sender (§18.2.2)."""
        flow = self._by_target.get(back)
        if flow is not None:
            server.transaction.flow = flow
            return [Send(flow, data)]
        if back not in self._opening and len(self._opening) >= MAX_OPENING:
            return []
        return self._open(back, _Late(server, data), now)

    def _forget_server(self, server: _Server) -> None:
        if self._servers_by_id.pop(server.id, None) is None:
            return
        server.transaction.end()
        self._alarms.drop(server)
        del self._servers[server.key]
        if self._merge.get(server.merge_key) is server:
            del self._merge[server.merge_key]
        of_host = self._hosts[server.host]
        del of_host[server.id]
        if not of_host:
            del self._hosts[server.host]

    def _answer(
        self,
        request: Request,
        way: Flow,
        status: int,
        reason: str = "",
        *,
        to_tag: str = "",
        headers: Iterable[tuple[str, str]] = (),
    ) -> list[Output]:
        """A response without a transaction, always with the same To tag (RFC 3261 §8.2.7)."""
        response = make_response(request, status, reason, to_tag or self._stateless_tag)
        for name, value in headers:
            response.headers.add(name, value)
        return self._send_once(way, response)

    def _send_once(self, way: Flow, response: Response) -> list[Output]:
        if self._user_agent:
            response.headers.add("Server", self._user_agent)
        try:
            return [Send(way, format_message(response))]
        except ValueError:
            # A malformed request may hold what cannot be written back.
            self._counters["dropped_malformed"] += 1
            return []

    # Streams

    def _make_room(self, now: float) -> list[Output]:
        """Close the accepted connection that was silent for longest, above the limit."""
        accepted = [stream for stream in self._streams.values() if stream.target is None]
        if len(accepted) < MAX_STREAMS_IN:
            return []
        return self._close(accepted[0], "too many connections", now)

    def _close_idle(self, now: float) -> list[Output]:
        """Close the opened connection that was silent for longest and carries no request."""
        opened = [stream for stream in self._streams.values() if stream.target is not None]
        if len(opened) <= MAX_STREAMS_OUT:
            return []
        busy = {client.transaction.flow.id for client in self._clients.values()}
        idle = [stream for stream in opened[:-1] if stream.flow.id not in busy]
        return self._close(idle[0], "too many connections", now) if idle else []

    def _close(self, stream: _Stream, why: str, now: float) -> list[Output]:
        close: list[Output] = [CloseFlow(stream.flow, why)]
        return close + self.flow_closed(stream.flow, why, now)


def _on_link_of(known: Flow | None, target: Target) -> Target:
    """A link-local target with the interface that its owner is known by.

    It stands in no Contact (RFC 4007 §11.2), and without it no way leads there.
    """
    zone = known.remote[0].partition("%")[2] if known is not None else ""
    if not zone or "%" in target.host or not target.host.startswith("fe80:"):
        return target
    return replace(target, host=f"{target.host}%{zone}")


def _stamp(request: Request, flow: Flow) -> None:
    """Note in the top Via where the request came from (RFC 3261 §18.2.1, RFC 3581 §4)."""
    via = request.top_via
    host, port = flow.remote
    if via.host == host and via.rport is None and via.received is None:
        return
    # What the sender claims to be received is no use; the address has no brackets (belle-sip).
    params: list[tuple[str, str | None]] = [
        (name, str(port) if name == "rport" else value)
        for name, value in via.params
        if name != "received"
    ]
    # The interface of a link-local address means nothing to its owner (RFC 4007 §11.2).
    params.append(("received", host.partition("%")[0]))
    request.headers.remove_first("Via")
    stamped = Via(via.transport, via.host, via.port, tuple(params))
    request.headers.prepend("Via", format_via(stamped))


def _way_back(request: Request, flow: Flow) -> Flow:
    """Where the response goes: the same stream; UDP: the source, or the port Via names.

    `maddr` in Via is left alone: it would let strangers choose whom our responses hit.
    """
    via = request.top_via
    if flow.transport.reliable or via.rport is not None:
        return flow
    return flow.towards(flow.remote[0], via.sent_by[1] or flow.remote[1])


def _server_key(request: Request, via_text: str, method: str) -> _ServerKey:
    """What a request and its repetitions have in common (RFC 3261 §17.2.3).

    Call-ID and CSeq belong to it as well: some phones use a branch again after a 401. Without the
    magic cookie the peer is of RFC 2543 times, and its Via counts as a whole, as it came.
    """
    via = request.top_via
    branch = via.branch or ""
    number = request.cseq.number
    if _has_cookie(branch):
        return (branch, *via.sent_by, request.call_id, number, method)
    return (str(request.uri), request.from_.tag, request.call_id, number, via_text, method)


def _length_of_names(request: Request) -> int:
    """How long the headers are that every answer copies (RFC 3261 §8.2.6.2)."""
    lines = request.headers.lines
    return sum([len(line) for key in _NAMES for line in lines(key)])


_NAMES: Final = ("via", "from", "to", "call-id", "cseq")


def _has_cookie(branch: str | int | None) -> bool:
    return isinstance(branch, str) and branch[:7].lower() == _COOKIE and len(branch) > 7
