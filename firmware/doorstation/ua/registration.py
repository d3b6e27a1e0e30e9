"""One account's registration (RFC 3261 §10): kept for ever, by itself.

A registrar that is silent, gone or unwilling is tried again with the back-off of RFC 5626 §4.5:
the wait doubles with each failure up to a limit, and each door waits a random half to whole of it,
so that a street of doors does not come back in one second after a power cut.
"""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

import msgspec

from doorstation.ids import Ids
from doorstation.sip.dialog import MAX_FORWARDS, loose_route
from doorstation.sip.grammar import is_digits
from doorstation.sip.headers import Headers, NameAddr, format_name_addr
from doorstation.sip.message import Request, Response
from doorstation.sip.transport import Flow
from doorstation.sip.uri import SipUri, Uri, same_uri
from doorstation.ua.config import Account, AgentConfig
from doorstation.ua.events import RegistrationChanged, RegistrationState
from doorstation.ua.inspect import METHODS
from doorstation.ua.requester import NOBODY, Asker, Requester, Ticket

RETRY_BASE: Final = 4.0
RETRY_LIMIT: Final = 120.0
"""A visitor should not stand at a dumb door for longer than this after the router is back."""
REFUSED_LIMIT: Final = 600.0
"""A wrong password is repeated slowly: many PBXs ban an address after a few."""
MOST_RAISES: Final = 3
"""423 in a row: each may be another registrar on the way, more are a loop."""
MOST_MOVES: Final = 2
"""Registrations in a row for a changed address: some routers choose a port for each request."""
LONGEST_INTERVAL: Final = 86400
DOUBT_AFTER: Final = 60.0
"""Seconds from a registration on in which no mere sign that it is lost has us register again."""
MAX_ROUTES: Final = 8
"""Servers of a Service-Route; bounds what each call then has to name."""


class Learned(msgspec.Struct, frozen=True):
    """How the registrar sees us: the address and port of our datagrams (RFC 3581)."""

    host: str
    port: int | None


class Registration:
    """Keeps one address of record bound to us. Owned by `ua.agent`."""

    def __init__(
        self,
        account: Account,
        config: AgentConfig,
        ids: Ids,
        requester: Requester,
        report: Callable[[RegistrationChanged], None],
    ) -> None:
        self._account = account
        self._config = config
        self._ids = ids
        self._requester = requester
        self._report = report
        self._registrars = (account.registrar, *account.backup_registrars)
        self._at = 0
        self._call_id = f"{ids.token()}@{account.domain}"
        self._from_tag = ids.token()
        self._cseq = 0
        self._interval = account.expires
        self._failures = 0
        self._ticket: Ticket | None = None
        self._probe: Ticket | None = None
        self._next: float | None = None
        self._next_probe: float | None = None
        self._registered_at = 0.0
        self._bound: SipUri | None = None
        self._flow_is_to = 0
        self._stopping = False
        self._again = False
        self._asked = False
        """Somebody wants to hear how it ends, also if nothing changes by it."""
        self._moved_to: SipUri | None = None
        """Where a 3xx sent us; the registrar of the settings is asked again once that fails."""
        self._moves = 0
        self._raises = 0
        self._service_route: tuple[str, ...] = ()
        """Servers on the registrar's side that calls are to pass (RFC 3608)."""
        self.state = RegistrationState.OFF
        self.flow: Flow | None = None
        """The flow that the registration is on; calls leave on the same one."""
        self.learned: Learned | None = None
        self.granted = 0.0

    @property
    def deadline(self) -> float | None:
        times = [t for t in (self._next, self._next_probe) if t is not None]
        return min(times, default=None)

    @property
    def idle(self) -> bool:
        """Nothing is under way: after `stop`, time to close the sockets."""
        return self._ticket is None

    @property
    def registrar(self) -> SipUri:
        return self._moved_to or self._registrars[self._at]

    @property
    def next_hop(self) -> SipUri:
        """Where to go while there is no flow."""
        return self._account.outbound_proxy or self.registrar

    @property
    def route(self) -> str:
        """The Route of what goes by the account: the outbound proxy's, then the registrar's own."""
        proxy = self._account.outbound_proxy
        known = () if proxy is None else (f"<{loose_route(proxy)}>",)
        return ", ".join((*known, *self._service_route))

    def start(self, now: float) -> None:
        self._stopping = False
        if self.state is RegistrationState.OFF:
            self._set(RegistrationState.REGISTERING, "start")
        self._asked = True
        self._register(now)

    def stop(self, now: float) -> None:
        """Un-register (RFC 3261 §10.2.2), after the answer to a REGISTER that is under way."""
        self._stopping = True
        self._next = self._next_probe = None
        if self.state is RegistrationState.REGISTERED and self._ticket is None:
            self._ticket = self._send(now, self, expires=0, contact=self._bound)
        self._set(RegistrationState.OFF, "stopped")

    def network_changed(self, now: float) -> None:
        """Another address or link: whatever was bound is stale, so register at once."""
        if self.state is RegistrationState.OFF:
            return
        self.learned = None
        self.flow = None
        self._failures = 0
        if self._probe is not None:
            # From before: that nobody answers it says nothing of what is bound now.
            self._probe.forget()
            self._probe = None
        self._next_probe = None
        self._restart(now)

    def doubted(self, flow: Flow, now: float) -> None:
        """A server at the end of `flow` answers as one that was restarted and knows nobody."""
        known = self.flow if self.state is RegistrationState.REGISTERED else None
        if known is None or flow.remote != known.remote:
            return
        if now >= self._registered_at + DOUBT_AFTER:
            self._register(now)

    def flow_lost(self, flow: Flow, now: float) -> None:
        """The connection that the registrar reaches us on is gone (RFC 5626 §4.4)."""
        if self.flow is None or flow.id != self.flow.id or self._stopping:
            return
        self.flow = None
        self._set(RegistrationState.RETRYING, "connection lost")
        self._next_probe = None
        # A short random wait: every door of a building lost the same proxy in the same second.
        self._next = now + self._ids.fraction()

    def timer_fired(self, now: float) -> None:
        if self._next is not None and now >= self._next:
            self._next = None
            # On a back-up, each refresh asks the first registrar again.
            self._at = 0
            self._register(now)
        if self._next_probe is not None and now >= self._next_probe:
            self._next_probe = None
            self._send_probe(now)

    def _restart(self, now: float) -> None:
        if self._ticket is not None:
            self._ticket.forget()
            self._ticket = None
        self._register(now)

    def _register(self, now: float) -> None:
        if self._ticket is None:
            self._ticket = self._send(now, self, expires=self._interval)

    # -- sending

    def _next_cseq(self) -> int:
        self._cseq += 1
        return self._cseq

    def contact_uri(self, flow: Flow) -> SipUri:
        """Where we can be reached by this flow: the account's user, plain (RFC 3261 §8.1.1.8)."""
        host, port = flow.local
        if self.learned is not None:
            host, port = self.learned.host, self.learned.port or port
        params = () if flow.transport == "UDP" else (("transport", flow.transport.lower()),)
        return SipUri(
            user=self._account.aor.user,
            host=self._config.contact_host or host,
            port=port,
            params=params,
        )

    def _build(self, flow: Flow, expires: int, contact: SipUri | None) -> Request:
        request = self._bare("REGISTER", self._call_id)
        bound = contact or self.contact_uri(flow)
        instance = self._account.instance
        params = (("+sip.instance", f"<{instance}>"),) if instance else ()
        request.headers.add("Contact", format_name_addr(NameAddr(bound, params=params)))
        # A registrar behind an edge proxy refuses who does not know `path` (RFC 3327 §5.1): 420.
        request.headers.add("Supported", "path, gruu" if instance else "path")
        request.headers.add("Expires", str(expires))
        return request

    def _bare(self, method: str, call_id: str) -> Request:
        """A request to the registrar itself."""
        account = self._account
        headers = Headers()
        if account.outbound_proxy is not None:
            headers.add("Route", format_name_addr(NameAddr(loose_route(account.outbound_proxy))))
        headers.add("Max-Forwards", MAX_FORWARDS)
        who = NameAddr(account.aor, account.display_name, (("tag", self._from_tag),))
        headers.add("From", format_name_addr(who))
        headers.add("To", format_name_addr(NameAddr(account.aor)))
        headers.add("Call-ID", call_id)
        headers.add("CSeq", f"{self._next_cseq()} {method}")
        headers.add("User-Agent", self._config.user_agent)
        # The bare registrar: a user part there is forbidden (RFC 3261 §10.2) and makes a
        # FRITZ!Box drop the request without a word. Transport is ours to choose, not its name.
        to = self.registrar
        return Request(method, SipUri(scheme=to.scheme, host=to.host, port=to.port), headers)

    def _send(
        self, now: float, asker: Asker, expires: int, contact: SipUri | None = None
    ) -> Ticket:
        # The flow in use is kept for refreshes, so that the binding stays one.
        kept = self.flow is not None and self._flow_is_to == self._at
        hop: SipUri | Flow = self.flow if self.flow is not None and kept else self.next_hop
        return self._requester.send(
            lambda flow: self._build(flow, expires, contact),
            hop,
            "REGISTER",
            asker,
            self._next_cseq,
            now,
        )

    def _send_probe(self, now: float) -> None:
        """OPTIONS as keep-alive: a dead router or registrar is found before a visitor finds it."""
        if self.flow is None or self._probe is not None:
            return
        call_id = f"{self._ids.token()}@{self._account.domain}"

        def build(_: Flow) -> Request:
            request = self._bare("OPTIONS", call_id)
            # A Teams SBC judges us by what we allow.
            request.headers.add("Allow", ", ".join(METHODS))
            return request

        self._probe = self._requester.send(
            build,
            self.flow,
            "OPTIONS",
            self,
            self._next_cseq,
            now,
        )

    # -- answers

    def response_received(
        self, request: Request, response: Response, flow: Flow, now: float
    ) -> None:
        if response.status < 200:
            return
        if request.method == "OPTIONS":
            # Any answer at all proves that the registrar is there (FRITZ!Box: 404, some: 405).
            self._probe = None
            self._plan_probe(now)
            settled = self.state is RegistrationState.REGISTERED and self._ticket is None
            told = isinstance(response.top_via.rport, int) and self._moves <= MOST_MOVES
            if settled and told and self._learn(response, flow):
                # A router gave us another port meanwhile: what is bound leads nowhere.
                self._register(now)
            return
        self._ticket = None
        if request.expires == 0 or self._stopping:
            self._turned_round(request, response, now)
            return
        moved = self._learn(response, flow)
        if 200 <= response.status < 300:
            self._registered(request, response, flow, moved, now)
        elif response.status == 423:
            self._interval_too_brief(response, now)
        elif 300 <= response.status < 400 and self._redirected(response):
            self._register(now)
        elif response.status in (408, 480, 500, 502, 503, 504) or response.status >= 600:
            self._failed(f"{response.status} {response.reason}", now, response.retry_after)
        else:
            self._refused(response, now)

    def request_failed(self, method: str, status: int, why: str, now: float) -> None:
        if method == "OPTIONS":
            self._probe = None
            if not self._stopping and self.state is RegistrationState.REGISTERED:
                self.flow = None
                self._set(RegistrationState.RETRYING, f"keep-alive: {why}")
                self._restart(now)
            return
        self._ticket = None
        if not self._stopping:
            self._failed("no answer" if status == 408 else why, now, None)

    def _turned_round(self, request: Request, response: Response, now: float) -> None:
        """An answer after `stop`, or after the `start` that followed it: now do what is wanted."""
        if not self._stopping:
            self._register(now)
        elif request.expires and 200 <= response.status < 300:
            self._ticket = self._send(now, self, expires=0, contact=_bound_by(request))

    def _learn(self, response: Response, flow: Flow) -> bool:
        """Take `received` and `rport` from our Via (RFC 3581 §4). True: they are news."""
        via = response.top_via
        host = _address(via.received) or flow.local[0]
        # A stream's source port is not one that we listen on; the connection itself is re-used.
        port = via.rport if flow.transport == "UDP" and isinstance(via.rport, int) else None
        if port is not None and not 0 < port < 65536:
            port = None
        if host == flow.local[0] and port in (None, flow.local[1]):
            learned = None
        else:
            learned = Learned(host, port)
        moved = learned != self.learned
        self.learned = learned
        return moved

    def _registered(
        self, request: Request, response: Response, flow: Flow, moved: bool, now: float
    ) -> None:
        self.flow = flow
        self._flow_is_to = self._at
        self._registered_at = now
        self._failures = 0
        before, bound = self._bound, _bound_by(request)
        self._bound = bound
        self._moves = self._moves + 1 if moved else 0
        if 0 < self._moves <= MOST_MOVES and not same_uri(bound, self.contact_uri(flow)):
            # The registrar sees us elsewhere than this Contact says: take it back, then bind the
            # other. Not both at once (RFC 3261 §10.2): one may lack room for two bindings.
            self._ticket = self._send(now, self, 0, bound)
            return
        if before is not None and not same_uri(before, bound) and _lists(response, before):
            # From before an address change; calls would ring there as well, until it expires.
            self._send(now, NOBODY, 0, before)
        self._again = False
        self._raises = 0
        self._service_route = tuple(str(route) for route in response.service_routes[:MAX_ROUTES])
        self.granted = _granted(request, response, bound, self._interval)
        if self.granted <= 0:
            self._failed("the registrar granted no time", now, None)
            return
        # Between 80 and 90 % of what was granted, so that doors drift apart.
        self._next = now + self.granted * (0.8 + 0.1 * self._ids.fraction())
        self._plan_probe(now)
        self._set(RegistrationState.REGISTERED, "200", len(response.contacts))

    def _plan_probe(self, now: float) -> None:
        every = self._account.keep_alive
        self._next_probe = None
        if every and not self._stopping:
            self._next_probe = now + every * (0.9 + 0.2 * self._ids.fraction())

    def _interval_too_brief(self, response: Response, now: float) -> None:
        wanted = response.min_expires
        self._raises += 1
        if (
            wanted is None
            or not self._interval < wanted <= LONGEST_INTERVAL
            or self._raises > MOST_RAISES
        ):
            self._failed(f"423 with Min-Expires {wanted}", now, None)
            return
        self._interval = wanted
        self._register(now)

    def _redirected(self, response: Response) -> bool:
        """A 3xx moves the registration once per attempt (RFC 3261 §10.2, §8.1.3.4)."""
        if self._again:
            return False
        for contact in response.contacts:
            if isinstance(contact.uri, SipUri):
                self._again = True
                self.flow = None
                self._moved_to = contact.uri.with_(headers=())
                return True
        return False

    def _refused(self, response: Response, now: float) -> None:
        why = f"{response.status} {response.reason}"
        if response.status in (401, 407):
            why = self._requester.fault
        self._failures += 1
        self._forget_flow()
        wait = min(REFUSED_LIMIT, 30.0 * 2 ** min(self._failures - 1, 8))
        self._next = now + wait * (0.5 + 0.5 * self._ids.fraction())
        self._set(RegistrationState.REFUSED, why)

    def _failed(self, why: str, now: float, retry_after: float | None) -> None:
        if self._at + 1 < len(self._registrars):
            # Still bound at the back-up, perhaps: what it has is kept until it too fails.
            self._at += 1
            self._moved_to = None
            self._register(now)
            return
        self._forget_flow()
        self._set(RegistrationState.RETRYING, why)
        self._at = 0
        self._failures += 1
        wait = min(RETRY_LIMIT, RETRY_BASE * 2 ** min(self._failures - 1, 8))
        wait *= 0.5 + 0.5 * self._ids.fraction()
        self._next = now + max(wait, retry_after or 0.0)

    def _forget_flow(self) -> None:
        self.flow = None
        self.granted = 0.0
        self._service_route = ()
        self._next_probe = None
        self._again = False
        self._moved_to = None
        self._raises = 0

    def _set(self, state: RegistrationState, why: str, contacts: int = 0) -> None:
        changed = state is not self.state or self._asked
        self._asked = False
        self.state = state
        if changed or state in (RegistrationState.RETRYING, RegistrationState.REFUSED):
            granted = self.granted if state is RegistrationState.REGISTERED else 0.0
            self._report(RegistrationChanged(state, str(self.registrar), why, granted, contacts))


def _bound_by(request: Request) -> SipUri:
    """The one Contact of a REGISTER of ours."""
    bound = request.contacts[0].uri
    assert isinstance(bound, SipUri)
    return bound


def _lists(response: Response, uri: SipUri) -> bool:
    return any(same_uri(contact.uri, uri) for contact in response.contacts)


def _address(text: str | None) -> str:
    """An IP literal as it is, "" for anything else: it is going to stand in our Contact."""
    try:
        return str(ip_address((text or "").partition("%")[0]))
    except ValueError:
        return ""


def _granted(request: Request, response: Response, bound: Uri, asked: int) -> float:
    """Seconds granted: our Contact's own, else Expires, else what was asked (RFC 3261 §10.2.4).

    chan_sip may leave our Contact out of the 200 altogether. One that stands there alone is ours,
    rewritten on the way.
    """
    for contact in response.contacts:
        if same_uri(contact.uri, bound) or len(response.contacts) == 1:
            text = contact.param("expires")
            if text is not None and is_digits(text):
                return float(min(int(text[:20]), LONGEST_INTERVAL))
    if response.expires is not None:
        return float(min(response.expires, LONGEST_INTERVAL))
    return float(asked)
