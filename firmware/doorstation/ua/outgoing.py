"""A call that we place: INVITE, forks, early media, redirection, CANCEL (RFC 3261 §13.2, §9.1)."""

from collections.abc import Callable
from copy import deepcopy
from typing import Final

import msgspec
from msgspec.structs import replace

from doorstation.errors import ProtocolError
from doorstation.sdp.negotiation import Encryption, OfferAnswer
from doorstation.sip.dialog import Dialog, loose_route
from doorstation.sip.grammar import is_digits
from doorstation.sip.headers import NameAddr
from doorstation.sip.message import Request, Response, make_response
from doorstation.sip.transport import Flow, Transport
from doorstation.sip.uri import SipUri
from doorstation.ua.call import (
    Call,
    Line,
    Phase,
    base_headers,
    is_sdp,
    send_ack,
    set_sdp,
)
from doorstation.ua.config import SrtpPolicy
from doorstation.ua.events import (
    CallConnected,
    CallRinging,
    CallState,
    MediaChanged,
    OutcomeKind,
)
from doorstation.ua.policy import same_host
from doorstation.ua.requester import Ticket

MAX_FORKS: Final = 16
"""Bounds the early dialogs that one INVITE can be made to open by a proxy gone wild."""

_KINDS: Final = {
    403: OutcomeKind.DECLINED,
    404: OutcomeKind.UNREACHABLE,
    408: OutcomeKind.NO_ANSWER,
    410: OutcomeKind.UNREACHABLE,
    480: OutcomeKind.UNREACHABLE,
    484: OutcomeKind.UNREACHABLE,
    486: OutcomeKind.BUSY,
    487: OutcomeKind.CANCELLED,
    503: OutcomeKind.UNREACHABLE,
    600: OutcomeKind.BUSY,
    603: OutcomeKind.DECLINED,
    604: OutcomeKind.UNREACHABLE,
}


Identity = Callable[[Flow], NameAddr]
"""Who we are towards somebody; without an account that is our address on the flow."""


class _Branch(msgspec.Struct):
    """One early dialog: a phone behind a forking proxy."""

    dialog: Dialog
    rseq: int = 0
    answer: bytes | None = None
    settled: bool = False
    """The answer came in a reliable response: the peer may make an offer of its own."""


class Destination(msgspec.Struct, frozen=True):
    """Whom to call and by which way."""

    uri: SipUri
    hop: SipUri
    route: str = ""
    """The Route header, "" for none."""
    first: Flow | None = None
    """The flow of the registration, tried before `hop` is looked up."""
    by_account: bool = False


Way = Callable[[SipUri], Destination]


class OutgoingCall(Call):
    direction = "out"
    _refused = 0
    """How often an offer of encryption was answered by 488."""
    _unspoken = ""
    """The scheme of a Contact in a 3xx that is no SIP URI."""

    def __init__(
        self,
        name: str,
        line: Line,
        destination: Destination,
        identity: Identity,
        port: int,
        way: Way,
        srtp: SrtpPolicy,
    ) -> None:
        """`way` says how to reach where a 3xx sends us."""
        super().__init__(name, line, str(destination.uri), srtp)
        self.media_port = port
        self._way = way
        self._destination = destination
        self.by_account = destination.by_account
        self.secure = destination.uri.is_secure
        self._identity = identity
        self.call_id = line.ids.token()
        self._tag = line.ids.token()
        self._cseq = 0
        self._invite: Ticket | None = None
        self._branches: dict[str, _Branch] = {}
        self._session_of = ""
        """The To tag of the phone whose answer the early media follows."""
        self._unanswered: OfferAnswer | None = None
        """What the INVITE offered, as it was before one phone's UPDATE: other phones answer it."""
        self._extra: set[str] = set()
        self._hung_up: set[str] = set()
        """To tags of phones that sent BYE before their answer came."""
        self._redirects: list[tuple[int, SipUri]] = []
        self._tried = {str(destination.uri)}

    def start(self, now: float) -> None:
        self._send_invite(now)

    def cancel(self, now: float, reason: str = "") -> None:
        """Give up a call that nobody has answered (RFC 3261 §9.1); Reason by RFC 3326."""
        if self.phase is not Phase.SETTING_UP:
            return
        self.phase = Phase.CANCELLING
        if self._invite is not None:
            self._invite.cancel(now, reason)
        self._end(OutcomeKind.CANCELLED, 487, "cancelled", now=now, by_peer=False)

    @property
    def way_back(self) -> Flow | None:
        return self._connection(self.dialog) if self.dialog is not None else None

    def _connection(self, dialog: Dialog) -> Flow | None:
        """The connection that we called by, where the far end names its address but no transport.

        RFC 3263 §4.1 would then have UDP, which a phone that is called by TCP may not speak.
        """
        flow, hop = self._flow, dialog.next_hop
        if flow is None or not flow.transport.reliable or hop.is_secure or hop.param("transport"):
            return None
        here = same_host(hop.host, flow.remote[0]) and hop.port in (None, flow.remote[1])
        return flow if here else None

    # -- requests of phones that still ring

    def matches(self, request: Request) -> bool:
        return super().matches(request) or self._ringing(request) is not None

    def _ringing(self, request: Request) -> _Branch | None:
        branch = self._branches.get(request.from_.tag or "")
        if self.phase is not Phase.SETTING_UP or branch is None:
            return None
        return branch if branch.dialog.matches(request, ours_in_to=True) else None

    def request_received(self, server: int, request: Request, flow: Flow, now: float) -> None:
        branch = self._ringing(request)
        if branch is not None:
            self.dialog = branch.dialog
        super().request_received(server, request, flow, now)

    def invited(self, request: Request) -> bool:
        """Whether a request comes of our INVITE, by a phone whose answer has not come yet."""
        return (
            self.phase is Phase.SETTING_UP
            and request.call_id == self.call_id
            and request.to.tag == self._tag
        )

    def _bye_received(self, server: int, request: Request, now: float) -> None:
        """A phone may answer and hang up, and only its BYE get through; others may still ring."""
        if self.phase is not Phase.SETTING_UP:
            super()._bye_received(server, request, now)
            return
        self._respond(server, make_response(request, 200), now)
        tag = request.from_.tag or ""
        self._hung_up.add(tag)
        self._fork_ended(tag)
        if self._branches:
            return
        # Not over yet: an INVITE that rang ends by a final response or by CANCEL, never by itself.
        self.phase = Phase.CANCELLING
        if self._invite is not None:
            self._invite.cancel(now)
        self._end_hung_up(now)

    def _end_hung_up(self, now: float) -> None:
        why = "hung up before its answer came"
        self._end(OutcomeKind.DECLINED, 487, why, now=now, by_peer=True)

    def _fork_ended(self, tag: str) -> None:
        """One early dialog less; if it was the one heard, nobody is heard for now."""
        self._branches.pop(tag, None)
        if self.dialog is not None and self.dialog.remote_tag == tag:
            self.dialog = None
        if self._session_of == tag:
            self._session_of = ""
            self._line.report(MediaChanged(self.id, None, early=True))

    def _update_received(self, server: int, request: Request, flow: Flow, now: float) -> None:
        if self.phase is Phase.SETTING_UP and self._unanswered is None:
            self._unanswered = deepcopy(self._offers)
        super()._update_received(server, request, flow, now)
        if self.phase is Phase.SETTING_UP and is_sdp(request) and self.dialog is not None:
            self._session_of = self.dialog.remote_tag

    def _offering(self) -> bool:
        """That of the INVITE, until a reliable response settled it (RFC 3311 §5.1)."""
        if self.phase is Phase.SETTING_UP and self.dialog is not None:
            branch = self._branches.get(self.dialog.remote_tag)
            return branch is None or not branch.settled
        return super()._offering()

    def _may_be_offered(self) -> bool:
        return self.phase is Phase.SETTING_UP or super()._may_be_offered()

    # -- the INVITE

    def _next_cseq(self) -> int:
        self._cseq += 1
        return self._cseq

    def _send_invite(self, now: float) -> None:
        self._invite = self._line.requester.send(
            self._build,
            self._destination.hop,
            "INVITE",
            self,
            self._next_cseq,
            now,
            first=self._destination.first,
            account=self.by_account,
        )

    def _build(self, flow: Flow) -> Request:
        identity = self._identity(flow)
        headers = base_headers(
            from_=NameAddr(identity.uri, identity.display, (("tag", self._tag),)),
            to=NameAddr(self._destination.uri),
            call_id=self.call_id,
            cseq=self._next_cseq(),
            method="INVITE",
        )
        if self._destination.route:
            headers.prepend("Route", self._destination.route)
        request = Request("INVITE", self._destination.uri, headers)
        self._add_contact(request, flow)
        self._add_abilities(request)
        headers.add("User-Agent", self._line.config.user_agent)
        self._local_from(flow)
        self._offers.discard_offer()
        set_sdp(request, self._offers.offer(self._direction))
        self._unanswered = None
        return request

    # -- its answers

    def response_received(
        self, request: Request, response: Response, flow: Flow, now: float
    ) -> None:
        if request.method != "INVITE" or request.to.tag:
            # Only the first INVITE has no To tag: all others are inside the dialog.
            super().response_received(request, response, flow, now)
        elif response.status < 200:
            self._provisional(request, response, flow, now)
        elif response.status < 300:
            self._answered(request, response, flow, now)
        else:
            self._failed(response, now)

    def request_failed(self, method: str, status: int, why: str, now: float) -> None:
        if method == "INVITE" and self.phase in (Phase.SETTING_UP, Phase.CANCELLING):
            if self.phase is Phase.SETTING_UP and self._redirected(now):
                return
            kind = OutcomeKind.UNREACHABLE
            self._end(kind, status, self._and_not_followed(why), now=now, by_peer=False)
            self._over()
        else:
            super().request_failed(method, status, why, now)

    def _branch(self, request: Request, response: Response) -> _Branch | None:
        tag = response.to.tag
        if not tag or tag in self._hung_up:
            return None
        branch = self._branches.get(tag)
        if branch is None and len(self._branches) < MAX_FORKS:
            branch = _Branch(Dialog.from_response(request, response))
            self._branches[tag] = branch
        return branch

    def _provisional(self, request: Request, response: Response, flow: Flow, now: float) -> None:
        if self.phase not in (Phase.SETTING_UP, Phase.CANCELLING):
            return
        branch = self._branch(request, response)
        if branch is not None and not self._in_order(branch, request, response, now):
            return
        if self.phase is not Phase.SETTING_UP:
            return
        if response.status == 199:  # the proxy tells of one phone of several (RFC 6228 §4)
            self._fork_ended(response.to.tag or "")
            return
        early = branch is not None and is_sdp(response) and self._early(branch, response)
        if response.status in (180, 182, 183) and self.state is CallState.CALLING:
            self.state = CallState.RINGING
        if response.status != 181:
            self._line.report(CallRinging(self.id, response.status, early))

    def _in_order(self, branch: _Branch, request: Request, response: Response, now: float) -> bool:
        """Acknowledge a reliable response once, and in order (RFC 3262 §4)."""
        rseq = (response.headers.get("RSeq") or "").strip()
        if "100rel" not in response.require or not is_digits(rseq) or len(rseq) > 10:
            return True
        number = int(rseq)
        if branch.rseq and number != branch.rseq + 1:
            return False
        branch.rseq = number
        dialog = branch.dialog

        def build(flow: Flow) -> Request:
            prack = dialog.request("PRACK")
            prack.headers.set("RAck", f"{number} {request.cseq.number} INVITE")
            prack.headers.set("User-Agent", self._line.config.user_agent)
            return prack

        self._line.requester.send(
            build,
            dialog.next_hop,
            "PRACK",
            self,
            dialog.next_cseq,
            now,
            first=self._connection(dialog),
            last=self._flow,
            account=self.by_account,
        )
        return True

    def _early(self, branch: _Branch, response: Response) -> bool:
        """Early media: an answer before anybody answered (RFC 3261 §13.2.1, RFC 3960)."""
        try:
            self._offers.answer_received(response.body)
        except ProtocolError:
            # Only the 200 decides; a phone that rings with odd SDP still rings.
            return False
        self._session_of = branch.dialog.remote_tag
        branch.answer = response.body
        branch.settled = "100rel" in response.require
        if self.dialog is None or not self.dialog.confirmed:
            self.dialog = branch.dialog
        self._line.report(MediaChanged(self.id, self._offers.session, early=True))
        return True

    def _answered(self, request: Request, response: Response, flow: Flow, now: float) -> None:
        tag = response.to.tag or ""
        if self.dialog is not None and self.dialog.confirmed and tag == self.dialog.remote_tag:
            self.acknowledge(request, flow, now)  # our ACK was lost
            return
        dialog = Dialog.from_response(request, response)
        branch = self._branches.get(tag)
        dialog.local_cseq = max(self._cseq, branch.dialog.local_cseq if branch else 0)
        if self.phase is not Phase.SETTING_UP:
            self._refuse_fork(dialog, request, now)
            return
        self.dialog = dialog
        self.acknowledge(request, flow, now)
        if tag in self._hung_up:
            # Its BYE overtook its answer. With a 200 the proxy has ended the other forks.
            self._end_hung_up(now)
            self._over()
            return
        body = response.body if is_sdp(response) else (branch.answer if branch else None)
        self.phase = Phase.CONFIRMED
        try:
            if branch is None or not branch.settled or self._session_of != tag:
                if body is None:
                    raise ProtocolError("the 200 carries no answer", status=488)
                if self._unanswered is not None and self._session_of != tag:
                    self._offers = self._unanswered
                self._offers.answer_received(body)
        except ProtocolError as fault:
            self._end(OutcomeKind.FAILED, 488, fault.reason, now=now, by_peer=False)
            self._send_bye(now)
            return
        self.timer.answer_received(response, now)
        self.state = CallState.CONNECTED
        self._line.report(CallConnected(self.id, self.peer))
        self._media_agreed(self._direction)
        if self._untold:
            self._bring_about(now)

    def _refuse_fork(self, dialog: Dialog, request: Request, now: float) -> None:
        """A second phone answered, or one that crossed our CANCEL: ACK, then BYE (§13.2.2.4)."""
        way = self._connection(dialog)
        self._line.emit(send_ack(self._line, dialog, request, now, way, self._flow))
        if dialog.remote_tag in self._extra or len(self._extra) >= MAX_FORKS:
            return
        self._extra.add(dialog.remote_tag)

        def build(flow: Flow) -> Request:
            bye = dialog.request("BYE")
            bye.headers.set("Reason", 'SIP;cause=200;text="Call completed elsewhere"')
            return bye

        asker = _LastWords(self if self.phase is Phase.CANCELLING else None)
        self._line.requester.send(
            build,
            dialog.next_hop,
            "BYE",
            asker,
            dialog.next_cseq,
            now,
            first=way,
            last=self._flow,
            account=self.by_account,
        )

    def _failed(self, response: Response, now: float) -> None:
        status = response.status
        if self.phase is Phase.SETTING_UP:
            if status == 422 and self.timer.interval_too_small(response):
                self._send_invite(now)
                return
            if status == 488 and self._offers_otherwise():
                self._send_invite(now)
                return
            if 300 <= status < 400:
                self._note_redirects(response)
            if status < 600 and self._redirected(now):
                return
        why = response.reason
        if status in (401, 407):
            why = f"{status}: {self._line.requester.fault}"
        kind = _KINDS.get(status, OutcomeKind.FAILED)
        why = self._and_not_followed(why)
        self._end(kind, status, why, now=now, by_peer=not self._unspoken)
        self._over()

    def _and_not_followed(self, why: str) -> str:
        if not self._unspoken:
            return why
        return f"{why}; redirected to {self._unspoken}:, which is not spoken here"

    def _encryption(self, transport: Transport | None) -> Encryption:
        wish = super()._encryption(transport)
        if not wish.offered or wish.required or not self._refused:
            return wish
        return replace(wish, offered="alone" if self._refused == 1 else "")

    def _offers_otherwise(self) -> bool:
        """Encryption that is only wished for may be asked for in another way, then not at all.

        FreeSWITCH refuses keys in RTP/AVP and takes RTP/SAVP; so does Asterisk where its settings
        require encryption; others have none.
        """
        if not self._offers.local.encryption.offered or self._srtp.mode == "required":
            return False
        if self._offers.session is not None:
            return False
        self._refused += 1
        return True

    def _note_redirects(self, response: Response) -> None:
        for contact in sorted(response.contacts, key=_preference, reverse=True):
            if not isinstance(contact.uri, SipUri):
                self._unspoken = contact.uri.scheme[:16]
            elif str(contact.uri) not in self._tried:
                self._redirects.append((response.status, contact.uri))

    def _redirected(self, now: float) -> bool:
        """Try the Contacts of a 3xx, best first, none twice (RFC 3261 §8.1.3.4)."""
        while self._redirects and len(self._tried) <= self._line.config.redirect_limit:
            status, uri = self._redirects.pop(0)
            if str(uri) in self._tried:
                continue
            self._tried.add(str(uri))
            clean = SipUri(
                scheme=uri.scheme, user=uri.user, host=uri.host, port=uri.port, params=uri.params
            )
            destination = self._way(clean)
            if status == 305:  # the same phone, by way of a proxy (RFC 3261 §21.3.4)
                destination = Destination(self._destination.uri, clean, f"<{loose_route(clean)}>")
            if destination.by_account and not self.by_account:
                # A phone called directly would have us call, at our account's cost, any number.
                continue
            self._destination = destination
            self.by_account = destination.by_account
            self.secure = destination.uri.is_secure
            self._branches.clear()
            self.dialog = None
            self._send_invite(now)
            return True
        return False

    def _over(self) -> None:
        self.phase = Phase.OVER

    def forget(self) -> None:
        super().forget()
        # An answered INVITE stays in the requester's books for the 200s of other forks.
        if self._invite is not None:
            self._invite.forget()
            self._invite = None


class _LastWords:
    """The BYE of a fork that nobody wanted; with it a cancelled call is over."""

    def __init__(self, call: OutgoingCall | None) -> None:
        self._call = call

    def response_received(
        self, request: Request, response: Response, flow: Flow, now: float
    ) -> None:
        if self._call is not None and response.status >= 200:
            self._call._over()

    def request_failed(self, method: str, status: int, why: str, now: float) -> None:
        if self._call is not None:
            self._call._over()


def _preference(contact: NameAddr) -> float:
    try:
        return min(1.0, max(0.0, float(contact.param("q") or 1.0)))
    except ValueError:
        return 0.0
