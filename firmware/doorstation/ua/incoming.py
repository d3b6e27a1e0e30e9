"""A call that comes in: 180, early media, 200 until its ACK, CANCEL (RFC 3261 §13.3, §9.2)."""

from msgspec.structs import replace

from doorstation.errors import ProtocolError
from doorstation.sdp.negotiation import OfferAnswer
from doorstation.sip.dialog import Dialog
from doorstation.sip.message import Request, Response, make_response
from doorstation.sip.transport import Flow, Transport
from doorstation.sip.uri import SipUri
from doorstation.ua.call import (
    PATIENCE,
    T2,
    Call,
    Line,
    Phase,
    Repeat,
    copy_record_route,
    is_sdp,
    set_sdp,
)
from doorstation.ua.config import SrtpPolicy
from doorstation.ua.events import CallConnected, CallState, Event, MediaChanged, OutcomeKind
from doorstation.ua.inspect import METHODS, SUPPORTED
from doorstation.ua.policy import same_host


class IncomingCall(Call):
    direction = "in"

    def __init__(
        self,
        name: str,
        line: Line,
        server: int,
        request: Request,
        flow: Flow,
        srtp: SrtpPolicy,
        now: float,
    ) -> None:
        """Raises ProtocolError with the status to refuse the INVITE with."""
        super().__init__(name, replace(line, report=self._tell), str(request.from_.uri), srtp)
        # The source of a datagram is easily forged: without this, who forges a peer's would have
        # our sound sent wherever his SDP says, and could type codes from there.
        self._proved = flow.transport.reliable
        self._withheld: MediaChanged | None = None
        self._report = line.report
        self.state = CallState.RINGING
        self._server: int | None = server
        self._request = request
        self._flow = self._arrived_on = flow
        self.dialog = Dialog.from_request(request, line.ids.token())
        self.secure = any(
            isinstance(uri, SipUri) and uri.is_secure for uri in (request.uri, self.dialog.next_hop)
        )
        self._answered = False
        self._answer: bytes | None = None
        self._answer_acked = False
        self._rseq = line.ids.number(15)
        self._waiting_prack: Repeat | None = None
        self._rseq_waiting = 0
        self._port_wanted: int | None = None
        self._early_wanted: int | None = None
        self._void_at = now + request.expires if request.expires else None
        """When the caller's invitation lapses (RFC 3261 §13.3.1)."""
        self.timer.check_request(request)
        if is_sdp(request):
            # Refused now, not when the resident lifts the receiver (RFC 3261 §13.3.1.3).
            OfferAnswer(line.ids, self._local_audio(flow, 9)).check(request.body)

    @property
    def way_back(self) -> Flow | None:
        """The connection that the far end opened: it may have nobody who listens for one of ours.

        A phone that speaks TLS has no certificate to be called on (RFC 5923 §1).
        """
        assert self.dialog is not None
        assert self._flow is not None
        flow, hop = self._flow, self.dialog.next_hop
        secure = hop.is_secure or hop.param("transport") == "tls"
        if (secure and flow.transport is not Transport.TLS) or not flow.transport.reliable:
            return None
        return flow if same_host(hop.host, flow.remote[0]) else None

    @property
    def reliable_only(self) -> bool:
        return "100rel" in self._request.require

    @property
    def deadline(self) -> float | None:
        times = [super().deadline]
        if self.phase is Phase.SETTING_UP:
            times.append(self._void_at)
        if self._waiting_prack is not None:
            times.append(min(self._waiting_prack.at, self._waiting_prack.give_up))
        return min((t for t in times if t is not None), default=None)

    def timer_fired(self, now: float) -> None:
        super().timer_fired(now)
        if self._void_at is not None and now >= self._void_at:
            self._terminated("the caller's time was over", now)
        waiting = self._waiting_prack
        if waiting is None:
            return
        if now >= waiting.give_up:
            # RFC 3262 §3: no PRACK for 64 x T1 ends the attempt with a 5xx.
            self._waiting_prack = None
            self._final(make_response(self._request, 504, "No PRACK"), now)
            self._end(OutcomeKind.FAILED, 504, "no PRACK came", now=now, by_peer=False)
            self.phase = Phase.OVER
        elif now >= waiting.at:
            self._respond(waiting.server, waiting.response, now)
            waiting.interval *= 2
            waiting.at = now + waiting.interval

    # -- commands

    def ring(self, now: float) -> None:
        """180. Where only reliable responses count and we make the offer, it waits for media."""
        if self.phase is not Phase.SETTING_UP or self._server is None:
            return
        if self.reliable_only and not is_sdp(self._request):
            return
        self._provisional(180, "Ringing", None, now)

    def progress(self, port: int, now: float) -> None:
        """183 with our SDP: the caller hears us, and we them, before anybody answers."""
        if self.phase is not Phase.SETTING_UP or self._server is None or self._answered:
            return
        if self.reliable_only and self._waiting_prack is not None:
            # RFC 3262 §3: one at a time, and none that is not reliable.
            self._early_wanted = port
            return
        body = self._describe(port)
        self._provisional(183, "Session Progress", body, now)
        if self._offers.session is not None and not self._answer_in_ack:
            self._line.report(MediaChanged(self.id, self._offers.session, early=True))

    def answer(self, port: int, now: float) -> None:
        """200 OK, repeated until its ACK."""
        if self.phase is not Phase.SETTING_UP or self._server is None or self._answered:
            return
        if self._waiting_prack is not None:
            # RFC 3262 §3: the 2xx waits while a reliable response with SDP is unacknowledged.
            self._port_wanted = port
            return
        server = self._server
        self._answered = True
        response = self._success(self._request, self._arrived_on)
        self.timer.answer_request(self._request, response, now)
        if not self._answer_acked:
            set_sdp(response, self._describe(port))
        self._server = None
        self.phase = Phase.CONFIRMED
        if self.dialog is not None:
            self.dialog.confirmed = True
        self._respond(server, response, now)
        self._repeat = Repeat.start(server, response, now, T2)
        self.state = CallState.CONNECTED
        self._line.report(CallConnected(self.id, self.peer))
        if not self._answer_in_ack:
            self._media_agreed(self._direction)

    def reject(self, status: int, reason: str, now: float) -> None:
        if self.phase is not Phase.SETTING_UP or self._server is None:
            return
        kind = OutcomeKind.BUSY if status in (486, 600) else OutcomeKind.DECLINED
        self._final(make_response(self._request, status, reason), now)
        self._end(kind, status, reason or "declined here", now=now, by_peer=False)
        self.phase = Phase.OVER

    # -- what comes in

    def request_received(self, server: int, request: Request, flow: Flow, now: float) -> None:
        self._caller_proved()
        super().request_received(server, request, flow, now)

    def ack_received(self, request: Request, now: float) -> None:
        self._caller_proved()
        super().ack_received(request, now)

    def _caller_proved(self) -> None:
        """A request with our tag: the caller has received what we sent to its address."""
        self._proved = True
        withheld, self._withheld = self._withheld, None
        if withheld is not None:
            self._report(withheld)

    def _tell(self, event: Event) -> None:
        """Report, but no media to a caller that has not proved its address."""
        if isinstance(event, MediaChanged) and not event.early and not self._proved:
            self._withheld = event if event.session is not None else None
            if event.session is not None:
                return
        self._report(event)

    def forget(self) -> None:
        super().forget()
        self._line = replace(self._line, report=self._report)  # `_tell` held this call in a circle

    def cancelled(self, now: float) -> None:
        """The caller gave up; too late once our 200 is out (RFC 3261 §9.2)."""
        self._terminated("the caller gave up", now)

    def _terminated(self, why: str, now: float) -> None:
        if self.phase is not Phase.SETTING_UP or self._server is None:
            return
        self._final(make_response(self._request, 487, "Request Terminated"), now)
        self._end(OutcomeKind.CANCELLED, 487, why, now=now, by_peer=True)
        self.phase = Phase.OVER

    def _bye_received(self, server: int, request: Request, now: float) -> None:
        if self._server is not None:
            self._final(make_response(self._request, 487, "Request Terminated"), now)
        super()._bye_received(server, request, now)

    def _prack_received(self, server: int, request: Request, now: float) -> None:
        waiting = self._waiting_prack
        rack = (request.headers.get("RAck") or "").split()
        wanted = [str(self._rseq_waiting), str(self._request.cseq.number), "INVITE"]
        if waiting is None or rack != wanted:
            raise ProtocolError("this PRACK matches no response of ours", status=481)
        response = make_response(request, 200)
        if is_sdp(request) and self._answer_in_ack:
            # Our offer went in the 18x: the PRACK answers it (RFC 3262 §5).
            self._offers.answer_received(request.body)
            self._answer_in_ack = False
            self._line.report(MediaChanged(self.id, self._offers.session, early=True))
        elif is_sdp(request):
            set_sdp(response, self._offers.answer(request.body, self._direction))
        self._waiting_prack = None
        if waiting.response.body:
            self._answer_acked = True
        self._respond(server, response, now)
        if response.body:
            self._media_agreed(self._direction)
        answer, self._port_wanted = self._port_wanted, None
        early, self._early_wanted = self._early_wanted, None
        if answer is not None:
            self.answer(answer, now)
        elif early is not None:
            self.progress(early, now)

    def _may_be_offered(self) -> bool:
        if self.phase is Phase.SETTING_UP:
            return self._answer_acked
        return super()._may_be_offered()

    # -- parts

    def _describe(self, port: int) -> bytes:
        """Our SDP: the answer to the INVITE's offer, or the offer it asked for. Made once."""
        if self._answer is None:
            self.media_port = port
            self._local_from(self._arrived_on)
            if is_sdp(self._request):
                self._answer = self._offers.answer(self._request.body, self._direction)
            else:
                self._answer = self._offers.offer(self._direction)
                self._answer_in_ack = True
        return self._answer

    def _provisional(self, status: int, reason: str, body: bytes | None, now: float) -> None:
        assert self.dialog is not None
        assert self._server is not None
        response = make_response(self._request, status, reason, self.dialog.local_tag)
        copy_record_route(self._request, response)
        self._add_contact(response, self._arrived_on)
        response.headers.set("Allow", ", ".join(METHODS))
        response.headers.set("Supported", ", ".join(SUPPORTED))
        if body is not None:
            set_sdp(response, body)
        can = "100rel" in self._request.supported or self.reliable_only
        if can and (body is not None or self.reliable_only) and self._waiting_prack is None:
            self._rseq += 1
            self._rseq_waiting = self._rseq
            response.headers.set("Require", "100rel")
            response.headers.set("RSeq", str(self._rseq))
            self._waiting_prack = Repeat.start(self._server, response, now, PATIENCE)
        elif self.reliable_only:
            return
        self._respond(self._server, response, now)

    def _final(self, response: Response, now: float) -> None:
        """The last word on the INVITE, with the tag that the ringing already used."""
        assert self._server is not None
        assert self.dialog is not None
        response.headers.set("To", f"{response.headers.get('To')};tag={self.dialog.local_tag}")
        self._waiting_prack = None
        self._respond(self._server, response, now)
        self._server = None
