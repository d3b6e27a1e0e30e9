"""Requests that answer digest challenges by themselves, and whoever waits for their responses."""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

import msgspec

from doorstation.ids import Ids
from doorstation.sip.digest import Credential, DigestClient
from doorstation.sip.endpoint import Endpoint, Output
from doorstation.sip.message import Request, Response
from doorstation.sip.transport import Flow
from doorstation.sip.uri import SipUri
from doorstation.ua.inspect import DOOR_REALM

Build = Callable[[Flow], Request]

MAX_ADDRESSES: Final = 32
"""Addresses of the account's servers remembered; the oldest is learned again at its next use."""


class Asker(Protocol):
    """Somebody who sent a request and waits for what comes of it."""

    def response_received(
        self, request: Request, response: Response, flow: Flow, now: float
    ) -> None: ...

    def request_failed(self, method: str, status: int, why: str, now: float) -> None:
        """No answer (408) or no way there (503), as RFC 3261 §8.1.3.1 counts them."""
        ...


class _Nobody:
    """For requests whose outcome changes nothing."""

    def response_received(
        self, request: Request, response: Response, flow: Flow, now: float
    ) -> None:
        pass

    def request_failed(self, method: str, status: int, why: str, now: float) -> None:
        pass


NOBODY: Final[Asker] = _Nobody()


class _Pending(msgspec.Struct):
    asker: Asker
    method: str
    next_cseq: Callable[[], int]
    next_hop: SipUri | Flow
    account: bool
    number: int = 0
    cancelled: bool = False


class Requester:
    """The one way out for requests.

    Endpoint outputs go to `emit`, which queues them: no asker is called before `send` returns.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        ids: Ids,
        credential: Credential | None,
        emit: Callable[[list[Output]], None],
        servers: Collection[str] = (),
        proves: Sequence[Credential] = (),
    ) -> None:
        """`servers`: hosts of the account; nobody else is shown what its password answers.

        `proves`: what anybody is shown who names its realm.
        """
        self._endpoint = endpoint
        self._servers = frozenset(servers)
        self._addresses: deque[str] = deque(maxlen=MAX_ADDRESSES)
        self._stranger = False
        self._emit = emit
        self._pending: dict[int, _Pending] = {}
        # Nonces outlive one request: one client serves them all (RFC 7616 §3.3).
        self._digest = DigestClient((*proves, credential), ids, DOOR_REALM) if credential else None
        self._open = DigestClient(proves, ids) if proves else None

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def fault(self) -> str:
        """Why the last challenge was left unanswered."""
        if self._stranger:
            return "the challenge came from no server of the account"
        return self._digest.fault if self._digest else "no password is set"

    def send(
        self,
        build: Build,
        next_hop: SipUri | Flow,
        method: str,
        asker: Asker,
        next_cseq: Callable[[], int],
        now: float,
        *,
        first: Flow | None = None,
        last: Flow | None = None,
        account: bool = True,
    ) -> "Ticket":
        """Send a request; `next_cseq` is asked again for each challenge that is answered.

        `first` is the flow to try before the targets of `next_hop`, `last` the one to take where it
        has no address. Without `account` no challenge
        is answered, even where it goes to the account's own server.
        """
        pending = _Pending(asker, method, next_cseq, next_hop, account)

        def authorised(flow: Flow) -> Request:
            request = build(flow)
            if self._digest is None or not self._may_prove(pending, flow):
                return request
            return self._digest.preauthorize(request, flow.remote[0])

        self._start(pending, authorised, next_hop, now, first, last)
        return Ticket(self, pending)

    def _start(
        self,
        pending: _Pending,
        build: Build,
        next_hop: SipUri | Flow,
        now: float,
        first: Flow | None = None,
        last: Flow | None = None,
    ) -> None:
        pending.number, outputs = self._endpoint.send_request(
            build, next_hop, now, first=first, last=last
        )
        self._pending[pending.number] = pending
        self._emit(outputs)

    def cancel(self, pending: _Pending, reason: str, now: float) -> None:
        pending.cancelled = True
        if pending.number in self._pending:
            self._emit(self._endpoint.cancel(pending.number, now, reason))

    def response_received(
        self, number: int, request: Request, response: Response, flow: Flow, now: float
    ) -> bool:
        """Hand a response on, or answer its challenge. False: nobody waits for it."""
        pending = self._pending.get(number)
        if pending is None:
            return False
        if response.status >= 300 or (response.status >= 200 and request.method != "INVITE"):
            del self._pending[number]
        if response.status in (401, 407) and not pending.cancelled:
            known = self._may_prove(pending, flow)
            self._stranger = self._digest is not None and not known
            digest = self._digest if known and self._digest is not None else self._open
            retry = None
            if digest is not None:
                retry = digest.answer(request, response, flow.remote[0])
            if retry is not None:
                # RFC 3261 §22.2: the same request, a new branch and a higher CSeq.
                retry.headers.remove("Via")
                retry.headers.set("CSeq", f"{pending.next_cseq()} {retry.method}")
                self._send_again(pending, retry, flow, now)
                return True
        elif response.status >= 200 and self._digest is not None:
            self._digest.accepted(request, response, flow.remote[0])
        pending.asker.response_received(request, response, flow, now)
        return True

    def _send_again(self, pending: _Pending, retry: Request, flow: Flow, now: float) -> None:
        """A request that answers the challenge of the server at the end of `flow`."""
        if retry.method != "INVITE" or not isinstance(pending.next_hop, SipUri):
            self._start(pending, lambda _: retry.copy(), flow, now)
            return

        # The credentials are what makes an INVITE too large for UDP: so not bound to the flow.
        def build(way: Flow) -> Request:
            request = retry.copy()
            if way.remote[0] != flow.remote[0]:
                request.headers.remove("Authorization")
                request.headers.remove("Proxy-Authorization")
            return request

        self._start(pending, build, pending.next_hop, now, flow)

    def _may_prove(self, pending: _Pending, flow: Flow) -> bool:
        """Whether a request may carry proof of the password.

        A phone called directly, the target of a 3xx, a Contact or a Record-Route may be anybody:
        one answer to his challenge, and he can guess the password at leisure, or use it at the
        registrar at once. A REGISTER goes where the registrar itself sent us.
        """
        if not pending.account:
            return False
        hop, address = pending.next_hop, flow.remote[0]
        named = isinstance(hop, SipUri) and hop.host in self._servers
        if (named or pending.method == "REGISTER") and address not in self._addresses:
            self._addresses.append(address)
        return address in self._addresses

    def leads_to_account(self, flow: Flow) -> bool:
        """Whether a server of the account is at the other end, as far as was learned."""
        return flow.remote[0] in self._addresses

    def request_failed(self, number: int, status: int, why: str, now: float) -> None:
        pending = self._pending.pop(number, None)
        if pending is not None:
            pending.asker.request_failed(pending.method, status, why, now)

    def forget(self, pending: _Pending) -> None:
        self._pending.pop(pending.number, None)


class Ticket(msgspec.Struct, frozen=True):
    """One request under way, through all its challenges."""

    _requester: Requester
    _pending: _Pending

    def cancel(self, now: float, reason: str = "") -> None:
        """CANCEL an INVITE (RFC 3261 §9.1)."""
        self._requester.cancel(self._pending, reason, now)

    def forget(self) -> None:
        """Nobody waits any more (an INVITE stays in the books for its later forks until then)."""
        self._requester.forget(self._pending)
