"""Orders by SIP MESSAGE: five checks in this order, the cheap ones first, then one answer.

    1. how often       each source, each commander behind it, all together (bounds a storm);
                       datagrams, whose source anybody may write, apart from connections
    2. digest          the door's own realm, SHA-256, a nonce for one use: a live commander, now
    3. who             the digest's user is a commander (From and P-Asserted-Identity do not count)
    4. signature       a key that the door knows, whose role and scope allow the order
    5. for us, and new `sub` is this door, `ctr` is higher, `iat` is near

Digest shows a live session with a known commander, the signature outlives a hostile proxy. A person
may type one line as text/plain instead: after 1 to 3, for the words that the settings list.
Sans-I/O: the owner sends the answers, carries `Execute` out and keeps the counters.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from doorstation.errors import ProtocolError
from doorstation.hashes import sha256
from doorstation.ids import Ids
from doorstation.provision.jws import MAX_TOKEN, NotSigned, PublicKey, parse_token
from doorstation.provision.orders import Order, Role, may_order, parse_order
from doorstation.sip.digest import DigestServer
from doorstation.sip.message import Request
from doorstation.sip.transport import stranger_of
from doorstation.sip.uri import SipUri
from doorstation.ua.inspect import ORDERS

CONTENT: Final = ORDERS
TEXT: Final = "text/plain"

MAX_BY_UDP: Final = 1300
"""Bytes of a whole MESSAGE outside a session (RFC 3428 8)."""
MAX_LINE: Final = 200
"""Characters of a typed line."""

MAX_WHY: Final = 800
"""Bytes of a refusal's reason: with the headers it still fits a datagram."""

NEAR: Final = 300.0
"""Seconds by which an order's `iat` may differ from our clock."""
NONCE_SECONDS: Final = 60.0

_ALGORITHMS: Final = ("SHA-256",)

_BURST: Final = 10.0
_PER_SECOND: Final = 1.0
_ALL_BURST: Final = 100.0
_ALL_PER_SECOND: Final = 50.0
MAX_PACES: Final = 256
"""Sources, and commanders behind them, whose pace is known: a storm from many addresses forgets the
oldest."""
_LONGEST_PAUSE: Final = 300.0
_REMEMBERED: Final = 64
"""Requests whose answer is kept: one that is repeated after its transaction gets it again."""


class Key(msgspec.Struct, frozen=True):
    """A key that orders may be signed with."""

    name: str
    public: PublicKey
    role: Role
    opens: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """The response to the MESSAGE. `once`: no state is to be kept for it."""

    status: int
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    once: bool = False


class Execute(msgspec.Struct, frozen=True):
    """Carry out an order; its result goes to the commander."""

    order: Order
    by: str
    key: str
    call_id: str


class Typed(msgspec.Struct, frozen=True):
    """Carry out a typed line; its result goes back as a text."""

    words: tuple[str, ...]
    by: str
    call_id: str


class Count(msgspec.Struct, frozen=True):
    """Keep a key's counter on disk before the order is carried out, and when it was signed."""

    kid: str
    counter: int
    issued: int


class Audit(msgspec.Struct, frozen=True):
    """A line for the audit log: what was asked and why it was refused, or that it was taken."""

    source: str
    user: str
    key: str = ""
    """Its name; like `op`, `keys`, `kid` and `ctr` only of what a known key has signed."""
    op: str = ""
    keys: tuple[str, ...] = ()
    status: int = 0
    rule: str = ""
    kid: str = ""
    ctr: int = 0


class _Refused(ProtocolError):
    """An order that a known key has signed."""

    def __init__(self, reason: str, status: int, audit: Audit) -> None:
        super().__init__(reason, status=status)
        self.audit = audit


Output: TypeAlias = Answer | Execute | Typed | Count | Audit


class _Pace:
    """A bucket that fills by time; who was refused waits longer each time."""

    __slots__ = ("at", "refused", "tokens", "until")

    def __init__(self, now: float, burst: float) -> None:
        self.tokens = burst
        self.at = now
        self.refused = 0
        self.until = 0.0

    def has(self, now: float, burst: float, per_second: float) -> bool:
        self.tokens = min(burst, self.tokens + (now - self.at) * per_second)
        self.at = now
        return now >= self.until and self.tokens >= 1

    def takes(self, now: float, burst: float, per_second: float) -> bool:
        if not self.has(now, burst, per_second):
            return False
        self.tokens -= 1
        return True

    def pause(self, now: float) -> int:
        """Whole seconds until it is worth coming again."""
        return max(1, round(self.until - now))


class Commander:
    """Judges the MESSAGEs that want to change or see something."""

    def __init__(
        self,
        *,
        door: str,
        names: Callable[[], Iterable[str]],
        keys: Mapping[str, Key],
        users: Mapping[str, str],
        typists: frozenset[str],
        counters: Mapping[str, int],
        secret: bytes,
        ids: Ids,
        issued: Mapping[str, int] | None = None,
        algorithms: Mapping[str, Sequence[str]] | None = None,
        stands_against: Callable[[Order, Key], ProtocolError | None] = lambda order, key: None,
    ) -> None:
        """`door`: its UUID, in the digest realm; `names`: what else `sub` may say; `keys` by kid;
        `users`: commanders and their digest passwords; `typists`: those who may type lines;
        `counters`: the highest of each key; `issued`: when its latest order was signed;
        `algorithms`: by which a user may prove his password, SHA-256 where nothing is said;
        `stands_against`: why what its role allows cannot be carried out now."""
        self._stands_against = stands_against
        self._door = door
        self._names = names
        self._keys = keys
        self._algorithms = {**dict.fromkeys(users, _ALGORITHMS), **(algorithms or {})}
        self._typists = typists
        self._counters = dict(counters)
        self._issued = dict(issued or {})
        self._guard = DigestServer(
            f"{door}.config", secret, users, ids,
            self._algorithms, seconds=NONCE_SECONDS, once=True,
        )  # fmt: skip
        self._paces: OrderedDict[str, _Pace] = OrderedDict()
        self._all: dict[bool, _Pace] = {}
        """Of all together that come by connections, and of all that come by datagrams."""
        self._answered: OrderedDict[bytes, Answer] = OrderedDict()

    def received(
        self, request: Request, source: str, now: float, wall: float | None, *, reliable: bool
    ) -> list[Output]:
        """Judge a MESSAGE from an address. `wall`: seconds since 1970, None without a clock.

        `reliable`: whether it came by TCP or TLS.
        """
        pace = self._pace(_pace_key(source, self._named(request), reliable), now)
        pause = self._too_often(pace, now, reliable)
        if pause is not None:
            return [_told_to_wait(pause)]
        same = _identity(request)
        if (before := self._answered.get(same)) is not None:
            return [before]
        verdict = self._guard.verify(request, now, source=source)
        if not verdict.ok:
            if verdict.guessed:
                return self._refuse(pace, now, Audit(source, verdict.user), 403, verdict.rule)
            challenge = self._guard.challenge(
                now, verdict.stale, source=source, algorithms=self._asks_for(request)
            )
            headers = tuple(("WWW-Authenticate", value) for value in challenge)
            return [Answer(401, "", headers, once=True)]
        audit = Audit(source, verdict.user)
        try:
            outputs = self._judge(request, audit, wall, reliable=reliable)
        except _Refused as fault:
            outputs = self._refuse(pace, now, fault.audit, fault.status, fault.reason)
        except ProtocolError as fault:
            outputs = self._refuse(pace, now, audit, fault.status, fault.reason)
        else:
            pace.refused = 0
        self._remember(same, outputs)
        return outputs

    def waits(self, request: Request, source: str, now: float, *, reliable: bool) -> Answer | None:
        """The refusal of one who comes too often, for very little: most of a storm ends here.

        Nothing changes by it; `received` judges those that pass.
        """
        pace = self._paces.get(_pace_key(source, self._named(request), reliable))
        if pace is None or pace.has(now, _BURST, _PER_SECOND):
            return None
        return _told_to_wait(pace.pause(now))

    def _asks_for(self, request: Request) -> Sequence[str]:
        """Algorithms of who seems to send it: a phone may know MD5 alone."""
        sender = request.from_.uri
        user = sender.user_text if isinstance(sender, SipUri) else ""
        return self._algorithms.get(user, _ALGORITHMS)

    # -- how often

    def _named(self, request: Request) -> str | None:
        """The commander that the credentials name, "" for somebody else, None without any."""
        named = self._guard.named(request)
        return named if named is None or named in self._algorithms else ""

    def _pace(self, key: str, now: float) -> _Pace:
        """Of a source's challenges, of one commander behind it, or of all others that it names.

        A PBX is one source for everybody who is behind it: only who shows credentials is refused
        for longer, and only he. Who names another can still make that one wait. So can who sends
        datagrams under another's address; but not who comes by a connection, which nobody opens
        under an address of another.
        """
        pace = self._paces.get(key)
        if pace is None:
            if len(self._paces) >= MAX_PACES:
                self._paces.popitem(last=False)
            pace = self._paces[key] = _Pace(now, _BURST)
        self._paces.move_to_end(key)
        return pace

    def _too_often(self, pace: _Pace, now: float, reliable: bool) -> int | None:
        """Seconds to wait, None if it may be looked at."""
        if reliable not in self._all:
            self._all[reliable] = _Pace(now, _ALL_BURST)
        if not pace.takes(now, _BURST, _PER_SECOND):
            return pace.pause(now)
        if not self._all[reliable].takes(now, _ALL_BURST, _ALL_PER_SECOND):
            return 1
        return None

    def _refuse(
        self, pace: _Pace, now: float, audit: Audit, status: int, rule: str
    ) -> list[Output]:
        """A refusal costs a pause that doubles."""
        pace.refused += 1
        if pace.refused > 3:
            pace.until = now + min(_LONGEST_PAUSE, 2.0 ** min(pace.refused - 3, 9))
        return [
            msgspec.structs.replace(audit, status=status, rule=rule),
            msgspec.structs.replace(refusal(status, rule), once=True),
        ]

    # -- what it says

    def _judge(
        self, request: Request, audit: Audit, wall: float | None, *, reliable: bool
    ) -> list[Output]:
        """Raises ProtocolError with the status to refuse it with, _Refused for what is signed."""
        kind = request.content_type
        if kind == TEXT:
            return self._typed(request, audit)
        if kind != CONTENT:
            raise ProtocolError(f"{CONTENT} and {TEXT} are understood", status=415)
        if len(request.body) > MAX_TOKEN or (not reliable and len(request.body) > MAX_BY_UDP):
            where = "8 KB at most; op fetch for more" if reliable else "come by TCP"
            raise ProtocolError(f"{len(request.body)} bytes: {where}", status=413)
        token = parse_token(request.body.decode("ascii", "replace").strip())
        key = self._keys.get(token.kid)
        if key is None:
            raise NotSigned("no key of this kid is known")
        order = parse_order(token.check(key.public))
        decision = may_order(order, key.role, opens=key.opens, scope=key.scope)
        audit = Audit(
            audit.source, audit.user, key.name, order.op,
            (*order.change.set, *order.unset, *order.keys), 202, decision.rule,
            token.kid, order.ctr,
        )  # fmt: skip
        if not decision.allowed:
            raise _Refused(decision.rule, 403, audit)
        try:
            self._check_new(order, token.kid, wall)
        except ProtocolError as why:
            raise _Refused(why.reason, why.status, audit) from None
        self._counters[token.kid] = order.ctr
        self._issued[token.kid] = max(order.iat, self._issued.get(token.kid, 0))
        count = Count(token.kid, order.ctr, self._issued[token.kid])
        if (fault := self._stands_against(order, key)) is not None:
            audit = msgspec.structs.replace(audit, status=fault.status, rule=fault.reason)
            return [count, audit, refusal(fault.status, fault.reason)]
        return [count, audit, Answer(202), Execute(order, audit.user, key.name, request.call_id)]

    def _check_new(self, order: Order, kid: str, wall: float | None) -> None:
        if order.sub not in (self._door, "*") and order.sub not in self._names():
            raise ProtocolError("for another door", status=403)
        last = self._counters.get(kid, 0)
        if order.ctr <= last:
            raise ProtocolError(f"the counter is at {last}", status=409)
        if wall is None:
            # All that a door without a clock knows of the time: it goes on.
            if order.iat < self._issued.get(kid, 0):
                raise ProtocolError("signed before the last one", status=403)
        elif abs(wall - order.iat) > NEAR:
            apart = round(wall - order.iat)
            when = f"{apart} s ago" if apart > 0 else f"{-apart} s ahead"
            raise ProtocolError(f"signed {when} by our clock", status=403)

    def _typed(self, request: Request, audit: Audit) -> list[Output]:
        if audit.user not in self._typists:
            raise ProtocolError("this user may not type lines", status=403)
        line = request.body.decode("utf-8", "replace").strip()
        if not line or len(line) > MAX_LINE or not line.isprintable():
            raise ProtocolError("one line of text", status=400)
        words = tuple(line.lower().split())
        return [
            Audit(audit.source, audit.user, "", "text", words[:1], 202, "typist"),
            Answer(202),
            Typed(words, audit.user, request.call_id),
        ]

    def answered(self, request: Request, answer: Answer) -> None:
        """What was to be carried out got another answer: whoever repeats it gets that one too."""
        self._remember(_identity(request), [answer])

    def _remember(self, same: bytes, outputs: Sequence[Output]) -> None:
        for output in outputs:
            if isinstance(output, Answer):
                self._answered[same] = output
        while len(self._answered) > _REMEMBERED:
            self._answered.popitem(last=False)


def _identity(request: Request) -> bytes:
    """What makes two requests one that was repeated: not by whom or on which way it came."""
    text = f"{request.call_id} {request.cseq.number} {request.from_.tag}"
    return sha256(text.encode() + b"\0" + request.body).digest()


def _pace_key(source: str, named: str | None, reliable: bool) -> str:
    key = f"{stranger_of(source)} {'by a connection' if reliable else 'by datagrams'}"
    return key if named is None else f"{key} {named}"


def _told_to_wait(pause: int) -> Answer:
    return Answer(503, "Too many", (("Retry-After", str(pause)),), once=True)


def refusal(status: int, rule: str) -> Answer:
    """With the reason in its body."""
    return Answer(status, _REASONS.get(status, ""), body=rule.encode()[:MAX_WHY])


_REASONS: Final = {
    403: "Forbidden",
    409: "Conflict",
    413: "Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    501: "Not Implemented",
}
