"""The user agent: registration, calls and texts over one transaction layer. Pure.

Whoever owns it gives every input with the time and carries out what is returned, in order:
`sip.transport` values go to the sockets, `ua.events` values to the house.
"""

from collections import deque
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Final

from doorstation.errors import ProtocolError
from doorstation.ids import Ids
from doorstation.sip.dialog import Dialog
from doorstation.sip.digest import Credential, DigestServer, realms
from doorstation.sip.endpoint import (
    AckReceived,
    CancelReceived,
    Endpoint,
    FlowLost,
    Output,
    RequestFailed,
    RequestReceived,
    ResponseReceived,
    StrayResponse,
)
from doorstation.sip.headers import NameAddr
from doorstation.sip.message import Request, Response, make_response
from doorstation.sip.transport import DnsQuery, DnsResult, Flow, Target, Wire
from doorstation.sip.uri import SipUri, parse_uri
from doorstation.ua.call import Call, Line, Phase, base_headers, refusal, sdp_alone, send_ack
from doorstation.ua.config import Account, AgentConfig, Peer
from doorstation.ua.events import (
    CallArrived,
    ContentReceived,
    Event,
    MessageReceived,
    MessageResult,
    Refused,
    RegistrationState,
    SyncAsked,
)
from doorstation.ua.group import CallGroup
from doorstation.ua.guesses import Guesses
from doorstation.ua.incoming import IncomingCall
from doorstation.ua.inspect import add_capabilities, inspect
from doorstation.ua.outgoing import Destination, Identity, OutgoingCall
from doorstation.ua.policy import Decision, Verdict, may_call_in, same_host
from doorstation.ua.registration import Registration
from doorstation.ua.requester import NOBODY, Requester

Out = Wire | Event

MAX_PLACED = 64
"""Call-IDs of calls placed lately, whose late answers are still acknowledged and ended."""

AS_NOBODY: Final = (403, 404, 480)
"""What a call gets of a PBX that was restarted, and has lost us or whom we call."""

# Rules of refusals, beside those of `policy`.
STALE = "nonce-outdated"
WRONG_PASSWORD = "wrong-password"  # noqa: S105 - a rule's name
GUESSING = "guessing-passwords"

TEXT = "text/plain;charset=UTF-8"

MAX_TEXT = 4096
"""Octets of a text that is handed on: bounds what a stranger behind the PBX can push into logs."""


class UserAgent:
    """One door's presence in SIP."""

    def __init__(self, config: AgentConfig, ids: Ids, endpoint: Endpoint) -> None:
        self.config = config
        self._ids = ids
        self._endpoint = endpoint
        self._queue: deque[Output] = deque()
        self._out: list[Out] = []
        self._now = 0.0
        self._count = 0
        account = config.account
        credential = None
        if account is not None and account.password:
            credential = Credential(account.auth_user or account.user, account.password)
        servers = account.servers if account is not None else ()
        self._requester = Requester(
            endpoint, ids, credential, self._queue.extend, servers, config.proves
        )
        self.registration: Registration | None = None
        if account is not None:
            self.registration = Registration(account, config, ids, self._requester, self._report)
        self._line = Line(
            config, ids, endpoint, self._requester, self._queue.extend, self._report, self._contact
        )
        self.calls: dict[str, Call] = {}
        self._groups: dict[str, CallGroup] = {}
        self._servers: dict[int, IncomingCall] = {}
        self._placed: deque[str] = deque(maxlen=MAX_PLACED)
        self._guard = self._guard_for(config)
        self._guesses = Guesses()

    def _guard_for(self, config: AgentConfig) -> DigestServer | None:
        passwords = {peer.name: peer.password for peer in config.peers if peer.password}
        if not passwords:
            return None
        secret = self._ids.token().encode()
        algorithms = {peer.name: peer.digest for peer in config.peers}
        return DigestServer("doorstation", secret, passwords, self._ids, algorithms)

    # -- what the shell asks

    @property
    def deadline(self) -> float | None:
        times = [self._endpoint.deadline]
        times += [call.deadline for call in self.calls.values()]
        if self.registration is not None:
            times.append(self.registration.deadline)
        return min((t for t in times if t is not None), default=None)

    @property
    def idle(self) -> bool:
        """Nothing is under way any more: after `stop`, time to close the sockets."""
        return not self.calls and (self.registration is None or self.registration.idle)

    # -- inputs from the network

    def data_received(self, flow: Flow, data: bytes, now: float) -> list[Out]:
        return self._take(self._endpoint.data_received(flow, data, now), now)

    def flow_opened(self, target: Target, flow: Flow, now: float) -> list[Out]:
        return self._take(self._endpoint.flow_opened(target, flow, now), now)

    def flow_failed(self, target: Target, reason: str, now: float) -> list[Out]:
        return self._take(self._endpoint.flow_failed(target, reason, now), now)

    def flow_closed(self, flow: Flow, reason: str, now: float) -> list[Out]:
        return self._take(self._endpoint.flow_closed(flow, reason, now), now)

    def send_failed(self, flow: Flow, reason: str, now: float) -> list[Out]:
        return self._take(self._endpoint.send_failed(flow, reason, now), now)

    def resolved(self, query: DnsQuery, answer: DnsResult, now: float) -> list[Out]:
        return self._take(self._endpoint.resolved(query, answer, now), now)

    def timer_fired(self, now: float) -> list[Out]:
        self._queue.extend(self._endpoint.timer_fired(now))
        self._now = now
        if self.registration is not None:
            self.registration.timer_fired(now)
        for call in list(self.calls.values()):
            call.timer_fired(now)
        return self._drain(now)

    def network_changed(self, moved: Callable[[Flow], bool], now: float) -> list[Out]:
        """Addresses or links changed: register again at once, and move the calls.

        `moved` says whether what a flow says of us holds no more. A call on another flow is left
        alone: a re-INVITE costs some phones a gap, and can only be refused.
        """
        self._now = now
        if self.registration is not None:
            self.registration.network_changed(now)
        for call in self.calls.values():
            call.network_changed(moved, now)
        return self._drain(now)

    # -- commands from the house

    def take(self, config: AgentConfig) -> None:
        """Other peers, codecs and encryption, from the next call on; the account stays who it is,
        and so does its registration."""
        if config.peers != self.config.peers:
            self._guard = self._guard_for(config)
        self.config = self._line.config = config

    def start(self, now: float) -> list[Out]:
        return self.register(now)

    def stop(self, now: float) -> list[Out]:
        """End every call and take the registration back."""
        for group in list(self._groups.values()):
            group.cancel(now)
        for call in list(self.calls.values()):
            self._end_call(call, now)
        return self.unregister(now)

    def register(self, now: float) -> list[Out]:
        self._now = now
        if self.registration is not None:
            self.registration.start(now)
        return self._drain(now)

    def unregister(self, now: float) -> list[Out]:
        self._now = now
        if self.registration is not None:
            self.registration.stop(now)
        return self._drain(now)

    def place(self, group: str, targets: Iterable[str], port: int, now: float) -> list[Out]:
        """Call every target at once. `port` is where our sound will be.

        A target is a SIP URI or what is dialled at the account (`**9`). ProtocolError, and nobody
        is called, when one cannot be read.
        """
        self._now = now
        calls: dict[str, OutgoingCall] = {}
        names: dict[str, str] = {}
        for target in targets:
            uri = self._uri(target)
            destination = self._way(uri)
            identity = self._identity(self._account_for(uri))
            known = self._known(uri)
            srtp = known.srtp if known is not None else self.config.srtp
            call = OutgoingCall(
                self._name(), self._line, destination, identity, port, self._way, srtp
            )
            call.inband_digits = known is not None and known.inband_digits
            calls[call.id] = call
            names[call.id] = target
            self._placed.append(call.call_id)
        self.calls.update(calls)
        ring = CallGroup(group, calls, names, self._tell)
        self._groups[group] = ring
        ring.start(now)
        return self._drain(now)

    def cancel_group(self, group: str, now: float) -> list[Out]:
        self._now = now
        ring = self._groups.get(group)
        if ring is not None:
            ring.cancel(now)
        return self._drain(now)

    def ring(self, call: str, now: float) -> list[Out]:
        """Tell the caller that it rings here (180)."""
        self._now = now
        found = self.calls.get(call)
        if isinstance(found, IncomingCall):
            found.ring(now)
        return self._drain(now)

    def progress(self, call: str, port: int, now: float) -> list[Out]:
        self._now = now
        found = self.calls.get(call)
        if isinstance(found, IncomingCall):
            found.progress(port, now)
        return self._drain(now)

    def answer(self, call: str, port: int, now: float) -> list[Out]:
        self._now = now
        found = self.calls.get(call)
        if isinstance(found, IncomingCall):
            found.answer(port, now)
        return self._drain(now)

    def reject(self, call: str, status: int, now: float, reason: str = "") -> list[Out]:
        self._now = now
        found = self.calls.get(call)
        if isinstance(found, IncomingCall):
            found.reject(status, reason, now)
        return self._drain(now)

    def hang_up(self, call: str, now: float, why: str = "hung up") -> list[Out]:
        """End a call, whatever its state: CANCEL, refusal or BYE."""
        self._now = now
        found = self.calls.get(call)
        if found is not None:
            self._end_call(found, now, why)
        return self._drain(now)

    def hold(self, call: str, now: float) -> list[Out]:
        self._now = now
        found = self.calls.get(call)
        if found is not None:
            found.hold(now)
        return self._drain(now)

    def resume(self, call: str, now: float) -> list[Out]:
        self._now = now
        found = self.calls.get(call)
        if found is not None:
            found.resume(now)
        return self._drain(now)

    def send_info_digit(
        self, call: str, digit: str, now: float, duration_ms: int = 160
    ) -> list[Out]:
        self._now = now
        found = self.calls.get(call)
        if found is not None:
            found.send_info_digit(digit, duration_ms, now)
        return self._drain(now)

    def message(
        self, target: str, text: str, now: float, kind: str = TEXT
    ) -> tuple[str, list[Out]]:
        """Send a text or other content (RFC 3428).

        A MessageResult with the name returned here says how it went.
        """
        self._now = now
        return self._send_message(self._way(self._uri(target)), text, kind, now)

    def _send_message(
        self, destination: Destination, text: str, kind: str, now: float
    ) -> tuple[str, list[Out]]:
        name = self._name()
        account = self.config.account
        known = account if account is not None and destination.by_account else None
        sender = _Message(self, name, destination, self._identity(known), text, kind)
        self._requester.send(
            sender.build,
            destination.hop,
            "MESSAGE",
            sender,
            sender.next_cseq,
            now,
            first=destination.first,
            account=destination.by_account,
        )
        return name, self._drain(now)

    def answer_content(
        self,
        received: ContentReceived,
        status: int,
        now: float,
        *,
        reason: str = "",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        once: bool = False,
    ) -> list[Out]:
        """Answer a MESSAGE that was handed up. `once`: without state, as strangers are answered.

        RFC 3428 §7 forbids a body in a 2xx.
        """
        response = make_response(received.request, status, reason)
        for name, value in headers:
            response.headers.add(name, value)
        if body:
            response.headers.add("Content-Type", TEXT)
            response.body = body
        if once:
            self._queue.extend(self._endpoint.answer_once(received.server, response))
        else:
            self._respond(received.server, response, now)
        return self._drain(now)

    def reply(
        self, target: str, flow: Flow | None, body: str, kind: str, now: float
    ) -> tuple[str, list[Out]]:
        """Send content to who sent us some, by the account, or (`flow`) the way that it came."""
        self._now = now
        uri = self._uri(target)
        if flow is not None:
            return self._send_message(Destination(uri, uri, first=flow), body, kind, now)
        account = self.config.account
        destination = self._way(uri)
        if account is not None and self.registration is not None and not destination.by_account:
            # Of another domain: only our server knows the way.
            destination = self._by_account(uri, self.registration)
        return self._send_message(destination, body, kind, now)

    # -- the queue

    def _take(self, outputs: list[Output], now: float) -> list[Out]:
        self._queue.extend(outputs)
        return self._drain(now)

    def _drain(self, now: float) -> list[Out]:
        """Act on everything the transaction layer said, in order; nothing runs inside another."""
        self._now = now
        while self._queue:
            self._act(self._queue.popleft(), now)
        for name in [name for name, call in self.calls.items() if call.over]:
            self.calls.pop(name).forget()
        for name in [
            n for n, g in self._groups.items() if g.over and not g.calls.keys() & self.calls
        ]:
            del self._groups[name]
        self._servers = {s: c for s, c in self._servers.items() if not c.over}
        out, self._out = self._out, []
        return out

    def _act(self, output: Output, now: float) -> None:
        match output:
            case RequestReceived(server, request, flow):
                try:
                    self._request_received(server, request, flow, now)
                except ProtocolError as fault:
                    answer = refusal(request, fault, self._line)
                    self._refuse(server, request, flow, answer, fault.reason)
            case ResponseReceived(number, request, received, flow):
                response = sdp_alone(received)
                unknown = request.method == "INVITE" and response.status in AS_NOBODY
                if unknown and self.registration is not None:
                    self.registration.doubted(flow, now)
                if not self._requester.response_received(number, request, response, flow, now):
                    self._unawaited(request, response, flow, now)
            case RequestFailed():
                self._requester.request_failed(output.request_id, output.status, output.why, now)
            case AckReceived(request, _):
                for call in self._in_dialog(request):
                    call.ack_received(sdp_alone(request), now)
            case CancelReceived(server, _):
                if server in self._servers:
                    self._servers[server].cancelled(now)
            case FlowLost(flow, _):
                if self.registration is not None:
                    self.registration.flow_lost(flow, now)
            case StrayResponse():
                self._stray(output.response, now)
            case _:
                self._out.append(output)

    def _tell(self, event: Event) -> None:
        self._out.append(event)

    def _report(self, event: Event) -> None:
        """Every event of a call passes here; what belongs to a group is the group's to tell."""
        call = getattr(event, "call", "")
        for group in self._groups.values():
            if call in group.calls and group.event(event, self._now):
                # A winner's end and everything after it is the call's own story.
                return
        self._tell(event)

    # -- requests from outside

    def _in_dialog(self, request: Request) -> list[Call]:
        return [call for call in self.calls.values() if call.matches(request)]

    def _too_early(self, request: Request) -> bool:
        return any(
            isinstance(call, OutgoingCall) and call.invited(request) for call in self.calls.values()
        )

    def _request_received(self, server: int, request: Request, flow: Flow, now: float) -> None:
        if _is_check_sync(request):
            self._guarded(server, request, flow, now)
            return
        plain = sdp_alone(request)
        unfit = inspect(plain, self.config.contents)
        if unfit is not None:
            self._refuse(server, request, flow, unfit, "inspection")
            return
        if request.to.tag:
            calls = self._in_dialog(request)
            # A text within a call is judged as any other; a 481 would have the far end hang up.
            if calls and request.method != "MESSAGE":
                calls[0].request_received(server, plain, flow, now)
                return
            if not calls and request.method != "BYE" and self._too_early(request):
                # Its 200 was lost or overtaken: a 481 would make the phone give the call up.
                fault = ProtocolError("Not answered yet", status=500)
                self._respond(server, refusal(request, fault, self._line), now)
                return
            if not calls and request.method != "OPTIONS":
                gone = make_response(request, 481)
                self._refuse(server, request, flow, gone, "no-such-dialog")
                return
        if self._would_be_forwarded(request, flow):
            self._refuse(server, request, flow, make_response(request, 483), "hops")
            return
        match request.method:
            case "OPTIONS":
                # 200 whatever the user part: a PBX takes anything else for a dead door.
                answer = add_capabilities(make_response(request, 200))
                self._queue.extend(self._endpoint.answer_once(server, answer))
            case "MESSAGE" if self._is_handed_up(request):
                registered = self._registered_flow
                by_account = registered is not None and same_host(
                    flow.remote[0], registered.remote[0]
                )
                self._tell(ContentReceived(server, request, flow, by_account))
            case "INVITE" | "MESSAGE":
                self._guarded(server, request, flow, now)
            case _:
                gone = make_response(request, 481)
                self._refuse(server, request, flow, gone, "no-such-dialog")

    def _is_handed_up(self, request: Request) -> bool:
        """Content for somebody above; of texts those that a typist seems to send."""
        if request.content_type != "text/plain":
            return bool(request.body) and request.content_type in self.config.contents
        sender = request.from_.uri
        return isinstance(sender, SipUri) and sender.user_text in self.config.typists

    def _would_be_forwarded(self, request: Request, flow: Flow) -> bool:
        """Out of hops, and addressed to another host: a proxy's 483 (RFC 3261 §16.3)."""
        if request.max_forwards != 0 or not isinstance(request.uri, SipUri):
            return False
        host = request.uri.host
        ours = {self.config.contact_host, flow.local[0], "localhost"}
        if self.config.account is not None:
            ours.add(self.config.account.domain)
        if self.registration is not None and self.registration.learned is not None:
            ours.add(self.registration.learned.host)
        return host not in ours and not any(same_host(host, known) for known in ours)

    def _guarded(self, server: int, request: Request, flow: Flow, now: float) -> None:
        decision = self._decide(request, flow, now)
        match decision.verdict:
            case Verdict.ALLOW if request.method == "INVITE":
                # Not before: proof of a password may count the whole body (RFC 7616 §3.4.3).
                self._call_in(server, sdp_alone(request), flow, decision, now)
            case Verdict.ALLOW if request.method == "NOTIFY":
                self._respond(server, make_response(request, 200), now)
                self._tell(SyncAsked(flow.remote[0], decision.rule))
            case Verdict.ALLOW:
                self._respond(server, make_response(request, 200), now)
                text = request.body[:MAX_TEXT].decode("utf-8", "replace")
                peer = str(request.from_.uri)
                self._tell(MessageReceived(peer, text, decision.rule))
            case Verdict.CHALLENGE:
                assert self._guard is not None
                challenged = make_response(request, 401)
                stale = decision.rule == STALE
                assert decision.peer is not None
                for value in self._guard.challenge(
                    now, stale, source=flow.remote[0], algorithms=decision.peer.digest
                ):
                    challenged.headers.add("WWW-Authenticate", value)
                if decision.rule == WRONG_PASSWORD:
                    self._refuse(server, request, flow, challenged, decision.rule)
                else:
                    self._queue.extend(self._endpoint.answer_once(server, challenged))
            case Verdict.REFUSE:
                self._refuse(server, request, flow, make_response(request, 403), decision.rule)

    @property
    def _registered_flow(self) -> Flow | None:
        registration = self.registration
        if registration is None or registration.state is not RegistrationState.REGISTERED:
            return None
        return registration.flow

    def _decide(self, request: Request, flow: Flow, now: float) -> Decision:
        registered = self._registered_flow
        source = flow.remote[0]
        proved = fault = ""
        if self._guard is not None and "Authorization" in request.headers:
            if self._guesses.locked(source, now):
                fault = GUESSING
            else:
                verdict = self._guard.verify(request, now, source=source)
                proved = verdict.user if verdict.ok else ""
                fault = WRONG_PASSWORD if verdict.guessed else STALE if verdict.stale else ""
                if verdict.guessed:
                    self._guesses.wrong(source, now)
                elif verdict.ok:
                    self._guesses.right(source)
        user = request.from_.uri.user_text if isinstance(request.from_.uri, SipUri) else ""
        decision = may_call_in(
            source,
            registrar_addresses=(registered.remote[0],) if registered else (),
            on_registered_flow=bool(
                registered and registered.transport.reliable and registered.id == flow.id
            ),
            registrar_may_call=self.config.account is not None and self.config.account.may_call,
            peers=self.config.peers,
            user=user,
            proved=proved,
        )
        if decision.verdict is not Verdict.CHALLENGE or not fault:
            return decision
        asked = Verdict.REFUSE if fault == GUESSING else Verdict.CHALLENGE
        return Decision(asked, fault, decision.peer)

    def _call_in(
        self, server: int, request: Request, flow: Flow, decision: Decision, now: float
    ) -> None:
        # Not those that we gave up: a phone without power answers no CANCEL, and a visitor who
        # tries one bell after the other would keep residents out for half a minute.
        kept = sum(call.phase is not Phase.CANCELLING for call in self.calls.values())
        if kept >= self.config.max_calls:
            self._refuse(server, request, flow, make_response(request, 486), "calls-full")
            return
        peer, account = decision.peer, self.config.account
        known = peer if peer is not None else account
        srtp = known.srtp if known is not None else self.config.srtp
        call = IncomingCall(self._name(), self._line, server, request, flow, srtp, now)
        call.by_account = peer is None
        call.inband_digits = known is not None and known.inband_digits
        self.calls[call.id] = call
        self._servers[server] = call
        self._tell(
            CallArrived(
                call.id,
                call.peer,
                request.from_.display,
                decision.rule,
                peer.name if peer is not None else "",
            )
        )

    def _unawaited(self, request: Request, response: Response, flow: Flow, now: float) -> None:
        """A response to a request that is done with. The 200 of a re-INVITE that comes again has
        lost our ACK: without another, the far end ends the call after 32 s (RFC 3261 §14.2)."""
        if request.method == "INVITE" and 200 <= response.status < 300:
            for call in self.calls.values():
                if call.dialog is not None and call.dialog.matches(response, ours_in_to=False):
                    call.acknowledge(request, flow, now)
                    return
        self._stray(response, now)

    def _stray(self, response: Response, now: float) -> None:
        """A 200 of a phone that nobody waits for any more: ACK and BYE, or it stays off-hook."""
        if response.cseq.method != "INVITE" or not 200 <= response.status < 300:
            return
        if response.call_id not in self._placed:
            # No call of ours: whoever sends it wants us to write to the address in its Contact.
            return
        contacts = [c.uri for c in response.contacts if isinstance(c.uri, SipUri)]
        if not contacts or any(
            c.dialog is not None and c.dialog.matches(response, ours_in_to=False)
            for c in self.calls.values()
        ):
            return
        dialog = Dialog(
            call_id=response.call_id,
            local=response.from_,
            local_tag=response.from_.tag or "",
            remote=response.to,
            remote_tag=response.to.tag or "",
            remote_target=contacts[0],
            route_set=tuple(reversed(response.record_routes)),
            local_cseq=response.cseq.number,
        )
        invite = dialog.request("INVITE", response.cseq.number)
        self._queue.extend(send_ack(self._line, dialog, invite, now))
        self._requester.send(
            lambda _: dialog.request("BYE"), dialog.next_hop, "BYE", NOBODY, dialog.next_cseq, now
        )

    def _respond(self, server: int, response: Response, now: float) -> None:
        if not response.to.tag:
            response.headers.set("To", f"{response.headers.get('To')};tag={self._ids.token()}")
        self._queue.extend(self._endpoint.respond(server, response, now))

    def _refuse(
        self, server: int, request: Request, flow: Flow, response: Response, rule: str
    ) -> None:
        """Without state: a scanner gets its answer and nothing of ours."""
        self._queue.extend(self._endpoint.answer_once(server, response))
        self._tell(Refused(request.method, flow.remote[0], response.status, rule))

    # -- parts

    def _end_call(self, call: Call, now: float, why: str = "hung up") -> None:
        if isinstance(call, OutgoingCall):
            call.cancel(now)
        if isinstance(call, IncomingCall):
            call.reject(480, "", now)
        call.hang_up(now, why)

    def _name(self) -> str:
        self._count += 1
        return f"{self._count:x}-{self._ids.token()[:6]}"

    def _contact(self, flow: Flow) -> SipUri:
        """Where the far end of this flow reaches us.

        What the registrar sees of us beyond a router is no use to a phone on this side of it.
        """
        registration = self.registration
        known = registration.flow if registration is not None else None
        if registration is not None and known is not None and known.id == flow.id:
            remote = flow.remote[0]
            if same_host(remote, known.remote[0]) or not ip_address(remote).is_private:
                return registration.contact_uri(flow)
        host, port = flow.local
        params = () if flow.transport == "UDP" else (("transport", flow.transport.lower()),)
        account = self.config.account
        user = account.user if account is not None else self.config.local_user
        base = SipUri.of(user, self.config.contact_host or host, port)
        return SipUri(user=base.user, host=base.host, port=port, params=params)

    def _identity(self, account: Account | None) -> Identity:
        if account is not None:
            known = NameAddr(account.aor, account.display_name)
            return lambda _: known
        config = self.config

        def identity(flow: Flow) -> NameAddr:
            host, port = flow.local
            usual = port == flow.transport.default_port
            here = SipUri.of(config.local_user, host, None if usual else port)
            return NameAddr(here, config.display_name)

        return identity

    def _uri(self, target: str) -> SipUri:
        """What a target names: a SIP URI, or what is dialled at the account."""
        account = self.config.account
        if not target.isprintable():
            raise ProtocolError(f"{target!r} cannot be written into a request")
        if account is not None and ":" not in target and "@" not in target:
            return SipUri.of(target, account.domain)
        uri = parse_uri(target if ":" in target.split("@")[0] else f"sip:{target}")
        if not isinstance(uri, SipUri):
            raise ProtocolError(f"{target!r} is not a SIP URI", status=416)
        return uri

    def _account_for(self, uri: SipUri) -> Account | None:
        """The account as which somebody is called, if its server is the way there."""
        account = self.config.account
        if account is None or (account.outbound_proxy is None and uri.host != account.aor.host):
            return None
        return account

    def _known(self, uri: SipUri) -> Peer | Account | None:
        """Whose settings count in a call to somebody."""
        for peer in self.config.peers:
            host = peer.uri.host
            if peer.uri.user == uri.user and (host == uri.host or same_host(host, uri.host)):
                return peer
        return self._account_for(uri)

    def _way(self, uri: SipUri) -> Destination:
        """By which way somebody is called."""
        account = self._account_for(uri)
        if account is None or self.registration is None:
            return Destination(uri, uri)
        return self._by_account(uri, self.registration)

    def _by_account(self, uri: SipUri, registration: Registration) -> Destination:
        hop, route = registration.next_hop, registration.route
        return Destination(uri, hop, route, registration.flow, by_account=True)


def _is_check_sync(request: Request) -> bool:
    """The one NOTIFY that comes unasked: what PBXs send to have a phone fetch its file again.

    Whether they want it to start anew (`reboot=`) is theirs to wish.
    """
    event = (request.headers.get("Event") or "").partition(";")[0].strip().lower()
    return request.method == "NOTIFY" and event == "check-sync"


class _Message:
    """One MESSAGE on its way out."""

    def __init__(
        self,
        agent: UserAgent,
        name: str,
        destination: Destination,
        identity: Identity,
        text: str,
        kind: str,
    ) -> None:
        self._agent = agent
        self._kind = kind
        self._name = name
        self._destination = destination
        self._identity = identity
        self._text = text
        self._call_id = agent._ids.token()
        self._tag = agent._ids.token()
        self._cseq = 0

    def next_cseq(self) -> int:
        self._cseq += 1
        return self._cseq

    def build(self, flow: Flow) -> Request:
        who = self._identity(flow)
        headers = base_headers(
            from_=NameAddr(who.uri, who.display, (("tag", self._tag),)),
            to=NameAddr(self._destination.uri),
            call_id=self._call_id,
            cseq=self.next_cseq(),
            method="MESSAGE",
        )
        if self._destination.route:
            headers.prepend("Route", self._destination.route)
        headers.add("User-Agent", self._agent.config.user_agent)
        headers.add("Content-Type", self._kind)
        return Request(
            "MESSAGE", self._destination.uri, headers, self._text.encode(errors="replace")
        )

    def response_received(
        self, request: Request, response: Response, flow: Flow, now: float
    ) -> None:
        if response.status >= 200:
            why = response.reason
            if response.status >= 300 and response.content_type == "text/plain":
                why = response.body[:MAX_TEXT].decode("utf-8", "replace").strip() or why
            asks = realms(response) if response.status == 401 else ()
            self._agent._tell(
                MessageResult(self._name, response.status, why, response.retry_after, asks)
            )

    def request_failed(self, method: str, status: int, why: str, now: float) -> None:
        self._agent._tell(MessageResult(self._name, status, why))
