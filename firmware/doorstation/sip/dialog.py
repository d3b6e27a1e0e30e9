"""Dialogs: the peer-to-peer relation that an INVITE sets up (RFC 3261 §12)."""

import msgspec

from doorstation.errors import ProtocolError
from doorstation.sip.headers import Headers, NameAddr, format_name_addr
from doorstation.sip.message import Message, Request, Response
from doorstation.sip.uri import SipUri, Uri

MAX_FORWARDS = "70"


def _tagged(party: NameAddr, tag: str) -> str:
    params = tuple(p for p in party.params if p[0] != "tag")
    if tag:
        params = (*params, ("tag", tag))
    return format_name_addr(NameAddr(party.uri, party.display, params))


def _sip_target(message: Message) -> SipUri | None:
    """The Contact that later requests go to (RFC 3261 §12.1.1, §12.2.1.2)."""
    for contact in message.contacts:
        if isinstance(contact.uri, SipUri):
            return contact.uri
    return None


def loose_route(proxy: SipUri) -> SipUri:
    """A proxy as a Route writes it: with `lr`, or its strict kin would rewrite the target."""
    return proxy if proxy.has_param("lr") else proxy.with_(params=(*proxy.params, ("lr", None)))


class Dialog(msgspec.Struct):
    """One side of one dialog. `confirmed` is False while it is early."""

    call_id: str
    local: NameAddr
    local_tag: str
    remote: NameAddr
    remote_tag: str
    remote_target: SipUri
    route_set: tuple[NameAddr, ...] = ()
    local_cseq: int = 0
    remote_cseq: int | None = None
    confirmed: bool = False
    peer_allows: frozenset[str] = msgspec.field(default_factory=frozenset)

    @classmethod
    def from_response(cls, request: Request, response: Response) -> "Dialog":
        """The caller's dialog: made by a 101-199 or 2xx with a To tag (RFC 3261 §12.1.2).

        A provisional and an RFC 2543 phone may leave Contact out: the request's own target serves.
        """
        target = _sip_target(response) or request.uri
        assert isinstance(target, SipUri)
        return cls(
            call_id=request.call_id,
            local=request.from_,
            local_tag=request.from_.tag or "",
            remote=response.to,
            remote_tag=response.to.tag or "",
            remote_target=target,
            route_set=tuple(reversed(response.record_routes)),
            local_cseq=request.cseq.number,
            confirmed=response.status >= 200,
            peer_allows=frozenset(response.allow),
        )

    @classmethod
    def from_request(cls, request: Request, local_tag: str) -> "Dialog":
        """The called side's dialog (RFC 3261 §12.1.1); ProtocolError with nowhere to send to.

        An RFC 2543 caller may leave Contact out; From is then where it is reached.
        """
        target = _sip_target(request)
        if "Contact" not in request.headers and isinstance(request.from_.uri, SipUri):
            target = request.from_.uri
        if target is None:
            raise ProtocolError(f"{request.method} without a usable Contact")
        return cls(
            call_id=request.call_id,
            local=request.to,
            local_tag=local_tag,
            remote=request.from_,
            remote_tag=request.from_.tag or "",
            remote_target=target,
            route_set=tuple(request.record_routes),
            remote_cseq=request.cseq.number,
            peer_allows=frozenset(request.allow),
        )

    @property
    def next_hop(self) -> SipUri:
        """Where requests of this dialog are sent first (RFC 3261 §12.2.1.1, §8.1.2)."""
        if self.route_set and isinstance(self.route_set[0].uri, SipUri):
            return self.route_set[0].uri
        return self.remote_target

    def next_cseq(self) -> int:
        self.local_cseq += 1
        return self.local_cseq

    def request(self, method: str, cseq: int | None = None) -> Request:
        """A request inside the dialog, without Via and Contact (RFC 3261 §12.2.1.1).

        `cseq` is given for ACK (the INVITE's) and otherwise counted up.
        """
        number = self.next_cseq() if cseq is None else cseq
        uri: Uri = self.remote_target
        routes = list(self.route_set)
        if routes and isinstance(routes[0].uri, SipUri) and not routes[0].uri.has_param("lr"):
            # A strict router wants itself in the Request-URI and the target last.
            uri = routes[0].uri.with_(headers=())
            routes = [*routes[1:], NameAddr(self.remote_target)]
        headers = Headers()
        for route in routes:
            headers.add("Route", format_name_addr(route))
        headers.add("Max-Forwards", MAX_FORWARDS)
        headers.add("From", _tagged(self.local, self.local_tag))
        headers.add("To", _tagged(self.remote, self.remote_tag))
        headers.add("Call-ID", self.call_id)
        headers.add("CSeq", f"{number} {method}")
        return Request(method, uri, headers)

    def request_received(self, request: Request) -> None:
        """Keep the order of the peer's requests (RFC 3261 §12.2.2).

        Raises ProtocolError(500) for a CSeq lower than one already seen.
        """
        number = request.cseq.number
        if request.method == "ACK":
            return
        if self.remote_cseq is not None and number < self.remote_cseq:
            raise ProtocolError(f"CSeq {number} after {self.remote_cseq}", status=500)
        self.remote_cseq = number

    def refresh_target(self, message: Message) -> None:
        """A target refresh request, or its 2xx, may move the peer (RFC 3261 §12.2.1.2)."""
        target = _sip_target(message)
        if target is not None:
            self.remote_target = target
        if message.allow:
            self.peer_allows = frozenset(message.allow)

    def matches(self, message: Message, *, ours_in_to: bool) -> bool:
        """Whether a message's tags are this dialog's (RFC 3261 §12)."""
        ours, theirs = (message.to, message.from_) if ours_in_to else (message.from_, message.to)
        return (
            message.call_id == self.call_id
            and (ours.tag or "") == self.local_tag
            and (theirs.tag or "") == self.remote_tag
        )
