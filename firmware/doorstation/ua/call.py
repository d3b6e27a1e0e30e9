"""One call, from the first 2xx on: what both sides do inside the dialog.

How a call comes about differs: `outgoing.py` and `incoming.py`. A call holds one dialog, one
offer/answer state and one session timer, and puts what happens into the agent's queue through
`Line`, so that no other part runs before the call's own step is done.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, TypeVar

import msgspec

from doorstation.errors import ProtocolError
from doorstation.ids import Ids
from doorstation.media import digits as dtmf
from doorstation.sdp.negotiation import Encryption, LocalAudio, OfferAnswer
from doorstation.sip.dialog import Dialog
from doorstation.sip.endpoint import Endpoint, Output
from doorstation.sip.headers import Headers, NameAddr, format_name_addr
from doorstation.sip.message import Message, Request, Response, make_response
from doorstation.sip.multipart import part_of
from doorstation.sip.transport import Flow, Transport
from doorstation.sip.uri import SipUri
from doorstation.ua.config import AgentConfig, SrtpPolicy
from doorstation.ua.events import (
    CallEnded,
    CallHeld,
    CallState,
    CommandResult,
    Event,
    InfoDigit,
    MediaChanged,
    OutcomeKind,
)
from doorstation.ua.inspect import METHODS, SUPPORTED, add_capabilities
from doorstation.ua.requester import Requester, Ticket
from doorstation.ua.session_timer import MIN_SE, SessionTimer

T1: Final = 0.5
T2: Final = 4.0
PATIENCE: Final = 64 * T1
"""How long a 2xx is repeated for its ACK, and a CANCEL waits for its 487."""

LONGEST_CHANGE: Final = 2 * PATIENCE
"""After it a re-INVITE without final answer is cancelled: the client of an INVITE that was answered
100 has no timer (RFC 3261 §17.1.1), and meanwhile nobody can hold, resume or refresh. Long enough
for a second server, where the first is silent."""

MOST_GLARES: Final = 5
"""491 or 500 to one change in a row: each may be an offer that crossed ours, more are a refusal."""

SDP: Final = "application/sdp"

M = TypeVar("M", Request, Response)


class Line(msgspec.Struct):
    """What a call uses of its agent."""

    config: AgentConfig
    ids: Ids
    endpoint: Endpoint
    requester: Requester
    emit: Callable[[list[Output]], None]
    report: Callable[[Event], None]
    contact: Callable[[Flow], SipUri]


class Phase(Enum):
    SETTING_UP = auto()
    CANCELLING = auto()
    """We called and gave up; a 200 that crosses the CANCEL still needs its ACK and BYE."""
    CONFIRMED = auto()
    ENDING = auto()
    """BYE is on its way, or has to wait for the ACK of our 2xx (RFC 3261 §15)."""
    OVER = auto()


class Repeat(msgspec.Struct):
    """A message that is sent again until the peer confirms it (RFC 3261 §13.3.1.4, RFC 3262 §3)."""

    server: int
    response: Response
    at: float
    interval: float
    give_up: float
    slowest: float

    @classmethod
    def start(cls, server: int, response: Response, now: float, slowest: float) -> "Repeat":
        return cls(server, response, now + T1, T1, now + PATIENCE, slowest)

    def again(self, now: float) -> None:
        self.interval = min(self.interval * 2, self.slowest)
        self.at = now + self.interval


def is_sdp(message: Message) -> bool:
    return bool(message.body) and message.content_type == SDP


def set_sdp(message: Message, body: bytes) -> None:
    message.headers.set("Content-Type", SDP)
    message.body = body


def sdp_alone(message: M) -> M:
    """The message with its session description as the body, where that is one part of several.

    What else there is, a location or the words of the telephone network, is not for us.
    """
    part = part_of(message, SDP, "session") if message.body else None
    if part is None:
        return message
    alone = message.copy()
    set_sdp(alone, part)
    return alone


class Call:
    """What outgoing and incoming calls share. Owned by `ua.agent`."""

    direction = ""
    by_account = False
    """The call goes through our account, so its requests may be authorised by it."""

    inband_digits = False
    """Whether tones in the far end's voice are digits."""

    secure = False
    """The dialog began with a sips: URI."""

    def __init__(self, name: str, line: Line, peer: str, srtp: SrtpPolicy) -> None:
        self.id = name
        self.peer = peer
        self._srtp = srtp
        self.phase = Phase.SETTING_UP
        self.state = CallState.CALLING
        self.dialog: Dialog | None = None
        self.media_port = 0
        self.timer = SessionTimer(line.config.session_expires, line.config.min_session_expires)
        self._line = line
        self._offers = OfferAnswer(line.ids, self._local_audio(None, 9))
        self._flow: Flow | None = None
        """What the far end knows of our address is that of this flow."""
        self._repeat: Repeat | None = None
        self._answer_in_ack = False
        self._direction = "sendrecv"
        """What we want: "sendonly" holds the peer."""
        self._agreed_direction = "sendrecv"
        self._offered_direction = "sendrecv"
        self._wish_waits = False
        """A hold or resume of the house's that was not answered for yet."""
        self._untold = False
        """The far end has not heard of our session as it is: our address may be another."""
        self._change: Ticket | None = None
        self._change_with_sdp = False
        self._change_until: float | None = None
        """When the re-INVITE under way is given up."""
        self._change_at: float | None = None
        self._glares = 0
        self._digits: deque[dtmf.InfoDigit] = deque()
        """By INFO; the first one is under way."""
        self._bye: Ticket | None = None

    # -- what the agent asks

    @property
    def deadline(self) -> float | None:
        times = [self._change_at, self._change_until]
        if self.phase is Phase.CONFIRMED:
            times.append(self.timer.deadline)
        if self._repeat is not None:
            times.append(min(self._repeat.at, self._repeat.give_up))
        return min((t for t in times if t is not None), default=None)

    @property
    def way_back(self) -> Flow | None:
        """A connection of the far end's that our requests go out on, before another is opened."""
        return None

    @property
    def over(self) -> bool:
        return self.phase is Phase.OVER

    def forget(self) -> None:
        """The call is over: no answer to it is waited for any more."""
        if self._change is not None:
            self._change.forget()
        # A ticket knows who asked: a circle, and Python looks for those once in 800 calls.
        self._change = self._bye = None

    def matches(self, request: Request) -> bool:
        return self.dialog is not None and self.dialog.matches(request, ours_in_to=True)

    def timer_fired(self, now: float) -> None:
        repeat = self._repeat
        if repeat is not None and now >= repeat.give_up:
            self._repeat = None
            self._never_confirmed(now)
        elif repeat is not None and now >= repeat.at:
            self._respond(repeat.server, repeat.response, now)
            repeat.again(now)
        if self._change_at is not None and now >= self._change_at:
            self._change_at = None
            self._bring_about(now)
        if self._change_until is not None and now >= self._change_until:
            self._change_until = None
            if self._change is not None:
                # A 200 that crosses the CANCEL counts: the session is what both sides have of it.
                self._change.cancel(now)
        if self.phase is Phase.CONFIRMED:
            if self.timer.expired(now):
                self.hang_up(now, why="the session expired: nothing heard of the far end")
            elif self.timer.refresh_due(now):
                self._refresh(now)

    def _never_confirmed(self, now: float) -> None:
        """Our 2xx stayed without ACK: the call is ended, not left half open."""
        if self.phase is Phase.ENDING:
            self._send_bye(now)
        else:
            self._end(None, 408, "no ACK came", now=now, by_peer=False)
            self._send_bye(now)

    # -- commands

    def hang_up(self, now: float, why: str = "hung up") -> None:
        """End a confirmed call with BYE."""
        if self.phase is not Phase.CONFIRMED:
            return
        self._end(None, 200, why, now=now, by_peer=False)
        if self._repeat is None:
            self._send_bye(now)

    def hold(self, now: float) -> None:
        self._want("sendonly", now)

    def resume(self, now: float) -> None:
        self._want("sendrecv", now)

    def send_info_digit(self, digit: str, duration_ms: int, now: float) -> None:
        """A digit as INFO `application/dtmf-relay`, after the answer to the one before.

        All at once they could overtake each other, and a code would arrive in another order.
        """
        if len(self._digits) < dtmf.MAX_QUEUED:
            self._digits.append(dtmf.InfoDigit(digit, duration_ms))
        if len(self._digits) == 1:
            self._send_next_digit(now)

    def _send_next_digit(self, now: float) -> None:
        if self.phase is not Phase.CONFIRMED or not self._digits:
            self._digits.clear()
            return
        digit = self._digits[0]

        def build(flow: Flow) -> Request:
            request = self._in_dialog("INFO", flow)
            request.headers.set("Content-Type", dtmf.RELAY)
            request.body = dtmf.format_info(digit)
            return request

        self._ask(build, "INFO", now)

    # -- requests from the peer

    def request_received(self, server: int, request: Request, flow: Flow, now: float) -> None:
        """A request inside this dialog (RFC 3261 §12.2.2); inspection is already done."""
        assert self.dialog is not None
        try:
            self.dialog.request_received(request)
            self._handle(server, request, flow, now)
        except ProtocolError as fault:
            self._respond(server, refusal(request, fault, self._line), now)

    def _handle(self, server: int, request: Request, flow: Flow, now: float) -> None:
        match request.method:
            case "BYE":
                self._bye_received(server, request, now)
            case "INVITE":
                self._reinvite_received(server, request, flow, now)
            case "UPDATE":
                self._update_received(server, request, flow, now)
            case "INFO":
                self._info_received(server, request, now)
            case "OPTIONS":
                self._respond(server, add_capabilities(make_response(request, 200)), now)
            case "PRACK":
                self._prack_received(server, request, now)
            case _:
                raise ProtocolError("Not in this dialog", status=481)

    def _prack_received(self, server: int, request: Request, now: float) -> None:
        raise ProtocolError("no reliable response waits for this PRACK", status=481)

    def _bye_received(self, server: int, request: Request, now: float) -> None:
        self._respond(server, make_response(request, 200), now)
        self._repeat = None
        if self.phase in (Phase.ENDING, Phase.OVER):
            self.phase = Phase.OVER
            return
        reason = request.headers.get("Reason") or ""
        self._end(None, 200, f"the far end hung up {reason[:80]}".strip(), now=now, by_peer=True)
        self.phase = Phase.OVER

    def ack_received(self, request: Request, now: float) -> None:
        """The ACK of our 2xx; with a late offer it carries the answer (RFC 3264 §5)."""
        if self._repeat is None or self.phase is Phase.OVER:
            return
        if request.cseq.number != self._repeat.response.cseq.number:
            return  # late, of an INVITE before
        self._repeat = None
        if self.phase is Phase.ENDING:
            self._send_bye(now)
            return
        if self._answer_in_ack:
            self._answer_in_ack = False
            if self._offers.session is not None and not is_sdp(request):
                # Who only wanted to refresh the session may leave the answer out: all is as agreed.
                self._offers.discard_offer()
            elif not self._answer_taken(request, self._direction, now):
                return
        if self._untold:
            self._bring_about(now)

    def _reinvite_received(self, server: int, request: Request, flow: Flow, now: float) -> None:
        if self.phase is not Phase.CONFIRMED:
            raise ProtocolError("the call is not set up", status=481 if self.over else 500)
        if self._change is not None:
            raise ProtocolError("Request Pending", status=491)
        if self._repeat is not None and self._answer_in_ack:
            raise ProtocolError("an offer of ours still waits for its answer", status=491)
        self.timer.check_request(request)
        response = self._success(request, flow)
        self._local_from(flow)
        if is_sdp(request):
            set_sdp(response, self._offers.answer(request.body, self._direction))
            self._answer_in_ack = False
        else:
            # No offer asks for a fresh, full one of ours (RFC 3261 §14.2).
            set_sdp(response, self._offers.offer(self._direction))
            self._answer_in_ack = True
        self._untold = False
        self.timer.answer_request(request, response, now)
        self._target_refreshed(request)
        self._respond(server, response, now)
        self._repeat = Repeat.start(server, response, now, T2)
        if not self._answer_in_ack:
            self._media_agreed(self._direction)

    def _update_received(self, server: int, request: Request, flow: Flow, now: float) -> None:
        """RFC 3311 §5.2: offer and answer may pass while the phone still rings."""
        if is_sdp(request):
            if self._offering():
                raise ProtocolError("Request Pending", status=491)
            if not self._may_be_offered():
                raise ProtocolError("an offer is not answered yet", status=500)
        self.timer.check_request(request)
        response = self._success(request, flow)
        if is_sdp(request):
            self._local_from(flow)
            set_sdp(response, self._offers.answer(request.body, self._direction))
        self.timer.answer_request(request, response, now)
        self._target_refreshed(request)
        self._respond(server, response, now)
        if is_sdp(request):
            self._media_agreed(self._direction)

    def _offering(self) -> bool:
        """An offer of ours is not answered yet (RFC 3311 §5.2)."""
        return self._answer_in_ack or (self._change is not None and self._change_with_sdp)

    def _may_be_offered(self) -> bool:
        """No offer of theirs is unanswered (RFC 3311 §5.2)."""
        return self.phase is Phase.CONFIRMED

    def _info_received(self, server: int, request: Request, now: float) -> None:
        package = (request.headers.get("Info-Package") or "").strip().lower()
        if package not in ("", "nil"):
            refusal = make_response(request, 469, "Bad Info Package")
            refusal.headers.set("Recv-Info", "")
            self._respond(server, refusal, now)
            return
        digits = dtmf.parse_info(request.content_type, request.body) if request.body else []
        self._respond(server, make_response(request, 200), now)
        if self.phase is Phase.CONFIRMED:
            for digit in digits:
                self._line.report(InfoDigit(self.id, digit.value, digit.duration_ms))

    # -- changing the session

    def _want(self, direction: str, now: float) -> None:
        if self.phase is not Phase.CONFIRMED:
            self._line.report(CommandResult(self.id, _word(direction), False, "not connected"))
            return
        if direction != self._direction:
            self._wish_ended(False, "superseded")
        self._direction = direction
        self._wish_waits = True
        self._glares = 0
        self._bring_about(now)

    def _wish_ended(self, ok: bool, why: str) -> None:
        if self._wish_waits:
            self._wish_waits = False
            self._line.report(CommandResult(self.id, _word(self._direction), ok, why))

    def network_changed(self, moved: Callable[[Flow], bool], now: float) -> None:
        """Tell the far end where we are now; without a way there the call goes on as it was."""
        if self._flow is not None and moved(self._flow):
            self._untold = True
        if self._untold:
            self._glares = 0
            self._bring_about(now)

    def _bring_about(self, now: float) -> None:
        """Send the re-INVITE for what we want, if that is not what is agreed."""
        if self.phase is not Phase.CONFIRMED:
            return
        if self._change is not None or self._repeat is not None:
            # One of ours is under way, or our 2xx waits for its ACK: this one would cross it.
            self._change_at = now + T1
            return
        if self._direction == self._agreed_direction and not self._untold:
            self._wish_ended(True, "already so")
            return
        self._reinvite(now)

    def _reinvite(self, now: float) -> None:
        self._change_with_sdp = True
        self._change_until = now + LONGEST_CHANGE
        self._change = self._ask(self._build_reinvite, "INVITE", now)

    def _build_reinvite(self, flow: Flow) -> Request:
        request = self._in_dialog("INVITE", flow)
        self._add_abilities(request)
        # Not 100rel: nothing here acknowledges a provisional response to it.
        request.headers.set("Supported", "timer")
        self._local_from(flow)
        self._offers.discard_offer()
        set_sdp(request, self._offers.offer(self._direction))
        self._offered_direction = self._direction
        self._untold = False
        return request

    def _refresh(self, now: float) -> None:
        """Session refresh: UPDATE where the peer has it, else a re-INVITE (RFC 4028 §7.4)."""
        if self._change is not None or self._repeat is not None:
            self.timer.retry_refresh(now)
            return
        if self.dialog is not None and "UPDATE" in self.dialog.peer_allows:
            self._change_with_sdp = False
            self._change = self._ask(self._build_update, "UPDATE", now)
        else:
            self._reinvite(now)

    def _build_update(self, flow: Flow) -> Request:
        request = self._in_dialog("UPDATE", flow)
        self._add_abilities(request)
        return request

    # -- answers to our requests inside the dialog

    def response_received(
        self, request: Request, response: Response, flow: Flow, now: float
    ) -> None:
        if request.method == "INVITE":
            self._reinvite_answered(request, response, flow, now)
        elif response.status >= 200:
            self._finished(request.method, response.status, response.reason, response, now)

    def request_failed(self, method: str, status: int, why: str, now: float) -> None:
        self._finished(method, status, why, None, now)

    def _reinvite_answered(
        self, request: Request, response: Response, flow: Flow, now: float
    ) -> None:
        if response.status < 200:
            return
        if response.status < 300:
            # The ACK goes where the 2xx says that the far end is now (RFC 3261 §12.2.1.2).
            self._target_refreshed(response)
            # Also when the call ended meanwhile: else the far end goes on repeating its 200.
            self.acknowledge(request, flow, now)
            if self._change is None or self.phase is not Phase.CONFIRMED:
                return
        self._finished("INVITE", response.status, response.reason, response, now)

    def _finished(
        self, method: str, status: int, why: str, response: Response | None, now: float
    ) -> None:
        if method == "BYE":
            self._bye = None
            self.phase = Phase.OVER
            return
        if method == "INFO" and self._digits:
            self._digits.popleft()
            self._send_next_digit(now)
        if method == "PRACK":
            # The peer repeats what it needs confirmed; a lost PRACK is no reason to end a call.
            return
        if method in ("INVITE", "UPDATE") and self._change is not None:
            self._change.forget()
            self._change = self._change_until = None
            if self.phase is Phase.CONFIRMED:
                self._change_finished(status, why, response, now)
        if status == 481 and self.phase is Phase.CONFIRMED:
            # RFC 3261 §12.2.1.2: the far end does not know the call any more.
            self._end(None, status, f"the far end lost the call: {why}", now=now, by_peer=True)
            if self._repeat is None:
                self._send_bye(now)

    def _change_finished(
        self, status: int, why: str, response: Response | None, now: float
    ) -> None:
        if response is not None and 200 <= status < 300:
            self._target_refreshed(response)
            self.timer.answer_received(response, now)
            if self._change_with_sdp:
                self._glares = 0
                self._change_answered(response, now)
            return
        if self._change_with_sdp:
            self._offers.discard_offer()
        if status == 422 and response is not None and self.timer.interval_too_small(response):
            if self._change_with_sdp:
                self._untold = True
                self._bring_about(now)
            else:
                self._refresh(now)
        elif status in (491, 500) and self._glares < MOST_GLARES:
            # Glare: RFC 3261 §14.1 sets the two sides' waits apart.
            fraction = self._line.ids.fraction()
            wait = 2.1 + 1.9 * fraction if self.direction == "out" else 2.0 * fraction
            if self._change_with_sdp:
                self._glares += 1
                self._untold = True
                self._change_at = now + round(wait, 2)
            self.timer.retry_refresh(now)
        elif status in (408, 487, 503):
            self.timer.retry_refresh(now)
            self._give_up_wish("no final answer" if status == 487 else why)
        else:
            if not self._change_with_sdp and self.dialog is not None:
                # Refused in spite of its Allow: the next refresh is a re-INVITE.
                self.dialog.peer_allows -= {"UPDATE"}
            self.timer.retry_refresh(now)
            self._give_up_wish(f"{status} {why}")

    def _give_up_wish(self, why: str) -> None:
        if self._direction == self._offered_direction:  # else another wish is next
            self._wish_ended(False, why)
            self._direction = self._agreed_direction

    def _change_answered(self, response: Response, now: float) -> None:
        if not is_sdp(response):
            # Some take any re-INVITE for a refresh of the session: all is as it was agreed.
            self._offers.discard_offer()
            self._give_up_wish("the answer carries no SDP")
            return
        taken = self._answer_taken(response, self._offered_direction, now)
        if taken and self._direction == self._agreed_direction:
            self._wish_ended(True, "")

    def _answer_taken(self, message: Message, direction: str, now: float) -> bool:
        """Take the answer to an offer of ours; a call without common media is ended."""
        try:
            if not is_sdp(message):
                raise ProtocolError("the answer carries no SDP", status=488)
            self._offers.answer_received(message.body)
        except ProtocolError as fault:
            self._offers.discard_offer()
            self.hang_up(now, why=f"no common media: {fault.reason}")
            return False
        self._media_agreed(direction)
        return True

    # -- parts

    def _local_audio(self, flow: Flow | None, port: int) -> LocalAudio:
        config = self._line.config
        return LocalAudio(
            flow.local[0] if flow is not None else "127.0.0.1",
            port,
            codecs=config.codecs,
            also=config.also,
            answer_order=config.answer_order,
            signalled_by=flow.remote[0] if flow is not None else "",
            signalled_over=flow.transport.value if flow is not None else "",
            encryption=self._encryption(flow.transport if flow is not None else None),
        )

    def _encryption(self, transport: Transport | None) -> Encryption:
        return self._srtp.over(transport)

    def _local_from(self, flow: Flow) -> None:
        """The address that this flow really leaves from is where sound can come back to."""
        self._flow = flow
        self._offers.local = self._local_audio(flow, self.media_port)

    def _in_dialog(self, method: str, flow: Flow) -> Request:
        assert self.dialog is not None
        request = self.dialog.request(method)
        if method in ("INVITE", "UPDATE"):
            self._add_contact(request, flow)
        request.headers.add("User-Agent", self._line.config.user_agent)
        return request

    def _add_contact(self, message: Message, flow: Flow) -> None:
        contact = self._line.contact(flow)
        if self.secure and flow.transport is Transport.TLS:
            # RFC 3261 §8.1.1.8, §12.1.1: pjsip ends a call that answers sips: with sip:.
            contact = contact.with_(scheme="sips", params=())
        message.headers.set("Contact", format_name_addr(NameAddr(contact)))

    def _add_abilities(self, request: Request) -> None:
        request.headers.set("Allow", ", ".join(METHODS))
        request.headers.set("Supported", ", ".join(SUPPORTED))
        self.timer.add_to_request(request.headers)

    def _success(self, request: Request, flow: Flow) -> Response:
        assert self.dialog is not None
        response = make_response(request, 200, "OK", self.dialog.local_tag)
        copy_record_route(request, response)
        self._add_contact(response, flow)
        response.headers.set("Allow", ", ".join(METHODS))
        response.headers.set("Supported", ", ".join(SUPPORTED))
        return response

    def _ask(self, build: Callable[[Flow], Request], method: str, now: float) -> Ticket:
        assert self.dialog is not None
        dialog = self.dialog
        return self._line.requester.send(
            build,
            dialog.next_hop,
            method,
            self,
            dialog.next_cseq,
            now,
            first=self.way_back,
            last=self._flow,
            account=self.by_account,
        )

    def acknowledge(self, invite: Request, flow: Flow, now: float) -> None:
        """Send the ACK of a 2xx, the first time or again."""
        assert self.dialog is not None
        self._line.emit(send_ack(self._line, self.dialog, invite, now, self.way_back, flow))

    def _send_bye(self, now: float) -> None:
        if self.dialog is None or self._bye is not None or self.phase is Phase.OVER:
            return
        self.phase = Phase.ENDING
        self._bye = self._ask(lambda flow: self._in_dialog("BYE", flow), "BYE", now)

    def _respond(self, server: int, response: Response, now: float) -> None:
        self._line.emit(self._line.endpoint.respond(server, response, now))

    def _target_refreshed(self, message: Message) -> None:
        assert self.dialog is not None
        self.dialog.refresh_target(message)

    def _media_agreed(self, direction: str) -> None:
        """Tell the house what is agreed now, and who holds whom; `direction` is what we said."""
        session = self._offers.session
        early = self.phase is Phase.SETTING_UP  # by UPDATE or PRACK: it goes on ringing
        self._line.report(MediaChanged(self.id, session, early))
        self._agreed_direction = direction
        if early:
            return
        held_by_peer = session is not None and session.held
        held = held_by_peer or direction == "sendonly"
        before = self.state
        self.state = CallState.HELD if held else CallState.CONNECTED
        if self.phase is Phase.CONFIRMED and before is not self.state:
            self._line.report(CallHeld(self.id, held, held_by_peer))

    def _end(
        self, kind: OutcomeKind | None, status: int, why: str, *, now: float, by_peer: bool
    ) -> None:
        """The call is over for the house; the dialog may still have a BYE to finish."""
        if self.state is CallState.ENDED:
            return
        self.state = CallState.ENDED
        if self.phase is Phase.CONFIRMED:
            self.phase = Phase.ENDING
        self._change_at = self._change_until = None
        if self._change is not None:
            # A re-INVITE that got a 100 and nothing more would otherwise wait for ever.
            self._change.cancel(now)
        self._wish_ended(False, "the call ended")
        self._line.report(MediaChanged(self.id, None))
        self._line.report(CallEnded(self.id, kind, status, why, by_peer))


def refusal(request: Request, fault: ProtocolError, line: Line) -> Response:
    """The response that a fault in a request asks for, with the header that goes with it."""
    response = make_response(request, fault.status, fault.reason)
    if fault.status == 422:
        minimum = max(line.config.min_session_expires, MIN_SE)
        response.headers.set("Min-SE", str(minimum))
    if fault.status == 500:
        # RFC 3261 §14.2: a random time apart, so that two offers do not meet again.
        response.headers.set("Retry-After", str(int(10 * line.ids.fraction())))
    return response


def copy_record_route(request: Request, response: Response) -> None:
    """A response that makes a dialog repeats the whole Record-Route (RFC 3261 §12.1.1)."""
    for value in request.headers.get_all("Record-Route"):
        response.headers.add("Record-Route", value)


def send_ack(
    line: Line,
    dialog: Dialog,
    invite: Request,
    now: float,
    first: Flow | None = None,
    last: Flow | None = None,
) -> list[Output]:
    """The ACK of a 2xx: the INVITE's CSeq number and credentials (RFC 3261 §13.2.2.4).

    Credentials only for the account's servers: a Contact may name anybody.
    """

    def build(flow: Flow) -> Request:
        ack = dialog.request("ACK", invite.cseq.number)
        if not line.requester.leads_to_account(flow):
            return ack
        for name in ("Authorization", "Proxy-Authorization"):
            for value in invite.headers.get_all(name):
                ack.headers.add(name, value)
        return ack

    return line.endpoint.send_ack(build, dialog.next_hop, now, first=first, last=last)


def base_headers(*, from_: NameAddr, to: NameAddr, call_id: str, cseq: int, method: str) -> Headers:
    headers = Headers()
    headers.add("Max-Forwards", "70")
    headers.add("From", format_name_addr(from_))
    headers.add("To", format_name_addr(to))
    headers.add("Call-ID", call_id)
    headers.add("CSeq", f"{cseq} {method}")
    return headers


def _word(direction: str) -> str:
    return "hold" if direction == "sendonly" else "resume"
