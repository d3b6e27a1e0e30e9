"""Digest authentication, both sides (RFC 7616, RFC 8760; RFC 2617 where the peer is that old).

The client keeps what it learned of each protection space, so that later requests carry credentials
at once. A refusal is told apart from an outdated nonce as far as servers allow: the same nonce
refused is a wrong password; a new nonce after one that had been in use before is quietly answered;
a new nonce after a fresh one is tried once more and then believed to be a wrong password, because
Asterisk and FRITZ!Box send a new nonce with every refusal.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from doorstation.hashes import compare_digest, md5, sha256
from doorstation.ids import Ids
from doorstation.sip.grammar import MalformedMessage
from doorstation.sip.headers import (
    Challenge,
    Credentials,
    Headers,
    format_challenge,
    format_credentials,
    parse_challenge,
    parse_credentials,
)
from doorstation.sip.message import Request, Response
from doorstation.sip.uri import format_uri

# Attack bounded: a phone or a proxy that names a new realm in each challenge, and would be answered
# for ever, by a request that is longer each time.
MAX_SPACES: Final = 8
# Attack bounded: a server that calls every nonce stale, and so keeps us answering for ever.
MAX_ROUNDS: Final = 3
# A fresh answer refused with yet another nonce: once may be two servers behind one name.
MAX_REFUSALS: Final = 1
# How many requests under way are remembered; each costs two short strings.
MAX_CHAINS: Final = 64

Hash = Callable[[bytes], str]


def _md5(data: bytes) -> str:
    return md5(data, usedforsecurity=False).hexdigest()


def _sha256(data: bytes) -> str:
    return sha256(data).hexdigest()


def _sha512_256(data: bytes) -> str:
    import hashlib  # with OpenSSL, which alone has it

    return hashlib.new("sha512_256", data).hexdigest()


# From weak to strong; the place in this table is the strength.
_HASHES: Final[Mapping[str, Hash]] = {"MD5": _md5, "SHA-256": _sha256, "SHA-512-256": _sha512_256}
_STRENGTH: Final = {name: strength for strength, name in enumerate(_HASHES)}


def split_algorithm(name: str) -> tuple[str, bool] | None:
    """(base algorithm, whether a -sess form); None when it is not one of the six known."""
    upper = name.upper() or "MD5"
    base, session = (upper[:-5], True) if upper.endswith("-SESS") else (upper, False)
    return (base, session) if base in _HASHES else None


def digest_response(
    *,
    algorithm: str,
    username: str,
    realm: str,
    password: str,
    nonce: str,
    method: str,
    uri: str,
    qop: str = "",
    nc: str = "",
    cnonce: str = "",
    body: bytes = b"",
) -> str:
    """The `response` value in lower-case hex (RFC 7616 §3.4.1). KeyError: unknown algorithm."""
    known = split_algorithm(algorithm)
    if known is None:
        raise KeyError(algorithm)
    base, session = known
    digest = _HASHES[base]
    ha1 = digest(f"{username}:{realm}:{password}".encode())
    if session:
        ha1 = digest(f"{ha1}:{nonce}:{cnonce}".encode())
    a2 = f"{method}:{uri}"
    if qop == "auth-int":
        a2 = f"{a2}:{digest(body)}"
    ha2 = digest(a2.encode())
    between = f"{nonce}:{nc}:{cnonce}:{qop}" if qop else nonce
    return digest(f"{ha1}:{between}:{ha2}".encode())


# -- Client ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Credential:
    """What to answer a realm with; `realm=None` answers any (a FRITZ!Box names its own)."""

    username: str
    password: str = field(repr=False)
    realm: str | None = None


class _Space(msgspec.Struct):
    """One protection space: what its last challenge said, and how often its nonce was used."""

    credential: Credential
    proxy: bool
    realm: str
    nonce: str
    algorithm: str  # as the challenge wrote it; "" when it did not
    qop: str
    opaque: str | None
    cnonce: str
    server: str
    """Who challenged: nobody else is sent these credentials unasked."""
    count: int = 0


class _Chain(msgspec.Struct):
    """The attempts at one request: how often it was challenged although it had credentials."""

    rounds: int = 0
    refusals: int = 0


class DigestClient:
    """Answers challenges for one account; `fault` says in words why it last gave up."""

    def __init__(
        self,
        credentials: Credential | Sequence[Credential],
        ids: Ids,
        reserved: re.Pattern[str] | None = None,
    ) -> None:
        """`reserved`: realms that only a credential of theirs answers, never one for any."""
        self._credentials = (
            (credentials,) if isinstance(credentials, Credential) else tuple(credentials)
        )
        self._ids = ids
        self._reserved = reserved
        self._spaces: OrderedDict[tuple[bool, str], _Space] = OrderedDict()
        self._chains: OrderedDict[tuple[str, str], _Chain] = OrderedDict()
        self.fault = ""

    def answer(self, request: Request, response: Response, server: str = "") -> Request | None:
        """A copy of `request` that answers the 401 or 407; None: give up, see `fault`.

        `server` is whom the response came from. The caller gives the copy a higher CSeq and a new
        branch.
        """
        self.fault = ""
        offers = _strongest(response.headers)
        if not offers:
            self.fault = "no challenge with a supported algorithm"
            return None
        carried = _carried(request.headers)
        if len(carried.keys() | offers.keys()) > MAX_SPACES:
            self.fault = f"credentials for more than {MAX_SPACES} realms are asked for"
            return None
        chain = self._chain(request)
        if not any(key in carried for key in offers):
            chain.rounds = chain.refusals = 0
        answered = [
            space
            for key, challenge in offers.items()
            if (space := self._take(key, challenge, carried.get(key), chain, server)) is not None
        ]
        if self.fault:
            return None
        if not answered:
            self.fault = f"no credential for realm {next(iter(offers))[1]!r}"
            return None
        # Spaces further up the path accepted their credentials, but those are used up: RFC 7616
        # §3.4 wants a higher count each time.
        for key in carried:
            space = self._spaces.get(key)
            if space is not None and space not in answered:
                answered.append(space)
        return self._with_credentials(request, answered)

    def preauthorize(self, request: Request, server: str = "") -> Request:
        """A copy with credentials for the nonces of `server`, or the request unchanged.

        What the registrar may know is no business of a phone that is called directly.
        """
        if "Authorization" in request.headers or "Proxy-Authorization" in request.headers:
            return request
        self._chains.pop(_chain_key(request), None)
        spaces = [space for space in self._spaces.values() if space.server == server]
        return self._with_credentials(request, spaces) if spaces else request

    def accepted(self, request: Request, response: Response, server: str = "") -> None:
        """Learn the nonce that `server` wants to see next (RFC 7616 §3.5).

        Servers whose nonces are good for one request would else challenge every other one.
        """
        for name, proxy in (("Authentication-Info", False), ("Proxy-Authentication-Info", True)):
            line = response.headers.get(name)
            if line is None:
                continue
            try:
                nonce = parse_challenge(f"Digest {line}").param("nextnonce")
            except MalformedMessage:
                continue
            proved = {k: v for k, v in _carried(request.headers).items() if k[0] is proxy}
            if not nonce or len(proved) != 1:  # it does not say for which realm
                continue
            [(key, carried)] = proved.items()
            space = self._spaces.get(key)
            if space is None or space.server != server or carried.param("nonce") != space.nonce:
                continue
            if not space.algorithm.upper().endswith("-SESS"):  # their key holds the first nonce
                space.nonce, space.count = nonce, 0

    def _take(
        self,
        key: tuple[bool, str],
        challenge: Challenge,
        carried: Credentials | None,
        chain: _Chain,
        server: str,
    ) -> _Space | None:
        """Learn a challenge; None, with `fault` set where it is final, when not to answer it."""
        proxy, realm = key
        credential = self._credential(realm)
        if credential is None:
            return None
        nonce = challenge.param("nonce") or ""
        if carried is not None:
            stale = (challenge.param("stale") or "").lower() == "true"
            chain.rounds += 1
            if not stale:
                chain.refusals += _nonce_count(carried) <= 1
                if nonce == carried.param("nonce") or chain.refusals > MAX_REFUSALS:
                    self._spaces.pop(key, None)
                    self.fault = f"user name or password refused by realm {realm!r}"
                    return None
            if chain.rounds > MAX_ROUNDS:
                self.fault = f"realm {realm!r} refused {MAX_ROUNDS} nonces in a row"
                return None
        qop = _choose_qop(challenge)
        if qop is None:
            self.fault = f"realm {realm!r} offers no supported qop"
            return None
        space = _Space(
            credential,
            proxy,
            realm,
            nonce,
            challenge.param("algorithm") or "",
            qop,
            challenge.param("opaque"),
            self._ids.token(),
            server,
        )
        known = self._spaces.get(key)
        if known is not None and known.nonce == nonce and known.algorithm == space.algorithm:
            space = known  # the nonce goes on being used: its count must go on rising
            space.server = server
        self._spaces[key] = space
        self._spaces.move_to_end(key)
        while len(self._spaces) > MAX_SPACES:
            self._spaces.popitem(last=False)
        return space

    def _credential(self, realm: str) -> Credential | None:
        for credential in self._credentials:
            if credential.realm == realm:
                return credential
        if self._reserved is not None and self._reserved.fullmatch(realm):
            return None
        for credential in self._credentials:
            if credential.realm is None:
                return credential
        return None

    def _chain(self, request: Request) -> _Chain:
        key = _chain_key(request)
        chain = self._chains.setdefault(key, _Chain())
        self._chains.move_to_end(key)
        while len(self._chains) > MAX_CHAINS:
            self._chains.popitem(last=False)
        return chain

    def _with_credentials(self, request: Request, spaces: list[_Space]) -> Request:
        copy = request.copy()
        for name, proxy in (("Authorization", False), ("Proxy-Authorization", True)):
            ours = {space.realm for space in spaces if space.proxy == proxy}
            if not ours:
                continue
            kept = [line for line in copy.headers.get_all(name) if _realm_of(line) not in ours]
            copy.headers.remove(name)
            for line in kept:
                copy.headers.add(name, line)
            for space in spaces:
                if space.proxy == proxy:
                    copy.headers.add(name, format_credentials(_answer(space, request)))
        return copy


def _chain_key(request: Request) -> tuple[str, str]:
    return request.headers.get("Call-ID") or "", request.method


def _realm_of(line: str) -> str | None:
    try:
        return parse_credentials(line).param("realm")
    except MalformedMessage:
        return None


def realms(response: Response) -> tuple[str, ...]:
    """Whose password a 401 or 407 asks for, as far as it can be answered at all."""
    return tuple(realm for _, realm in _strongest(response.headers))


def _strongest(headers: Headers) -> dict[tuple[bool, str], Challenge]:
    """The strongest supported Digest challenge of each (proxy, realm), in order of appearance."""
    chosen: dict[tuple[bool, str], tuple[int, Challenge]] = {}
    for name, proxy in (("WWW-Authenticate", False), ("Proxy-Authenticate", True)):
        for line in headers.get_all(name):
            try:
                challenge = parse_challenge(line)
            except MalformedMessage:
                continue  # another scheme's syntax must not hide the one we can answer
            algorithm = split_algorithm(challenge.param("algorithm") or "")
            realm = challenge.param("realm")
            if challenge.scheme.lower() != "digest" or algorithm is None or realm is None:
                continue
            strength = _STRENGTH[algorithm[0]]
            best = chosen.get((proxy, realm))
            if best is None and len(chosen) >= MAX_SPACES:
                continue
            if best is None or strength > best[0]:
                chosen[proxy, realm] = strength, challenge
    return {key: challenge for key, (_, challenge) in chosen.items()}


def _carried(headers: Headers) -> dict[tuple[bool, str], Credentials]:
    found: dict[tuple[bool, str], Credentials] = {}
    for name, proxy in (("Authorization", False), ("Proxy-Authorization", True)):
        for line in headers.get_all(name):
            try:
                credentials = parse_credentials(line)
            except MalformedMessage:
                continue
            realm = credentials.param("realm")
            if credentials.scheme.lower() == "digest" and realm is not None:
                found[proxy, realm] = credentials
    return found


def _choose_qop(challenge: Challenge) -> str | None:
    """`auth` before `auth-int`; "" for an RFC 2617 server that names none; None: only unknown."""
    offered = [value.strip().lower() for value in (challenge.param("qop") or "").split(",")]
    for qop in ("auth", "auth-int", ""):
        if qop in offered:
            return qop
    return None


def _answer(space: _Space, request: Request) -> Credentials:
    space.count += 1
    uri = format_uri(request.uri)
    nc = f"{space.count:08x}" if space.qop else ""
    response = digest_response(
        algorithm=space.algorithm,
        username=space.credential.username,
        realm=space.realm,
        password=space.credential.password,
        nonce=space.nonce,
        method=request.method,
        uri=uri,
        qop=space.qop,
        nc=nc,
        cnonce=space.cnonce,
        body=request.body,
    )
    params: list[tuple[str, str | None]] = [
        ("username", space.credential.username),
        ("realm", space.realm),
        ("nonce", space.nonce),
        ("uri", uri),
        ("response", response),
    ]
    if space.algorithm:
        params.append(("algorithm", space.algorithm))
    if space.opaque is not None:
        params.append(("opaque", space.opaque))
    if space.qop:
        params += [("qop", space.qop), ("nc", nc)]
    # A -sess form cannot be checked without it, even where RFC 2617 leaves it out (no qop).
    if space.qop or space.algorithm.upper().endswith("-SESS"):
        params.append(("cnonce", space.cnonce))
    return Credentials("Digest", tuple(params))


# -- Server ----------------------------------------------------------------------------------------

# Seconds a nonce is good for: longer than a busy phone's pauses, shorter than a capture is useful.
NONCE_SECONDS: Final = 300.0
# Attack bounded: a peer that knows a password and takes a new nonce for every request. The oldest
# are forgotten, and what is as old as they counts as stale, so that none can be used again.
MAX_NONCES: Final = 1024
# Attack bounded: megabytes of hashing and hex for one request.
_MAX_VALUE: Final = 1024

ALGORITHMS: Final = ("SHA-256", "MD5")

WRONG_PASSWORD: Final = "wrong password"  # noqa: S105 - a rule
UNKNOWN_USER: Final = "unknown user"


class Verdict(msgspec.Struct, frozen=True):
    """Whether a request proved who sent it; `rule` names what decided, for the event log."""

    ok: bool
    user: str = ""
    stale: bool = False
    rule: str = ""

    @property
    def guessed(self) -> bool:
        """A password was tried, and it was not the right one."""
        return self.rule in (WRONG_PASSWORD, UNKNOWN_USER)


class DigestServer:
    """Challenges and verifies. Nothing is kept for those who have not shown a password."""

    def __init__(
        self,
        realm: str,
        secret: bytes,
        passwords: Mapping[str, str],
        ids: Ids,
        algorithms: Mapping[str, Sequence[str]] | None = None,
        *,
        seconds: float = NONCE_SECONDS,
        once: bool = False,
    ) -> None:
        """`algorithms`: all that count for a user; who is not in there may answer with any.

        `seconds`: how long a nonce is good; `once`: for one request only.
        """
        self._realm = realm
        self._seconds = seconds
        self._once = once
        self._algorithms = algorithms or {}
        self._secret = secret
        self._passwords = passwords
        self._ids = ids
        self._used: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._forgotten_up_to = float("-inf")

    def challenge(
        self,
        now: float,
        stale: bool = False,
        proxy: bool = False,
        source: str = "",
        algorithms: Sequence[str] = ALGORITHMS,
    ) -> list[str]:
        """Header values, the preferred algorithm first (RFC 8760 §2.3).

        The nonce is good for requests from `source` alone: nobody can guess passwords, or have
        another locked out, under an address at which he receives nothing.
        """
        issued = f"{int(now * 1000):x}"
        nonce = self._nonce(issued, self._ids.token(), proxy=proxy, source=source)
        return [
            format_challenge(
                Challenge(
                    "Digest",
                    (
                        ("realm", self._realm),
                        ("nonce", nonce),
                        ("algorithm", algorithm),
                        ("qop", "auth"),
                        *((("stale", "true"),) if stale else ()),
                    ),
                )
            )
            for algorithm in algorithms
        ]

    def named(self, request: Request) -> str | None:
        """Whom the credentials for our realm name, as nobody has proved yet; None without any."""
        if "Authorization" not in request.headers:
            return None
        credentials = _carried(request.headers).get((False, self._realm))
        return None if credentials is None else credentials.param("username") or ""

    def verify(
        self, request: Request, now: float, proxy: bool = False, source: str = ""
    ) -> Verdict:
        """Judge the credentials that `request` carries for our realm."""
        credentials = _carried(request.headers).get((proxy, self._realm))
        if credentials is None:
            return Verdict(False, rule="no credentials for this realm")
        user = credentials.param("username") or ""
        nonce = credentials.param("nonce") or ""
        issued = self._issued(nonce, proxy=proxy, source=source)
        if issued is None:
            # Stale, not refused: after a restart the peer's nonce was a good one (RFC 7616 §3.3).
            return Verdict(False, user, stale=True, rule="nonce not ours")
        if not 0.0 <= now - issued <= self._seconds:
            return Verdict(False, user, stale=True, rule="nonce too old")
        refusal = self._check_response(request, credentials, user)
        if refusal:
            return Verdict(False, user, rule=refusal)
        count = _nonce_count(credentials)
        last = self._used.get(nonce, (0.0, 0))[1]
        used = last > 0 if self._once else count <= last
        if used or (last == 0 and issued <= self._forgotten_up_to):
            return Verdict(False, user, stale=True, rule="nonce used before")
        self._remember(nonce, issued, count, now)
        return Verdict(True, user, rule="password proved")

    def _check_response(self, request: Request, credentials: Credentials, user: str) -> str:
        """Why the response does not prove the password; "" when it does.

        The digest's `uri` is the one that the caller wrote: a proxy on the way has sent the request
        on to another (RFC 3261 §22.4 asks for no comparison).
        """
        algorithm = credentials.param("algorithm") or ""
        qop = (credentials.param("qop") or "").lower()
        uri = credentials.param("uri") or ""
        cnonce = credentials.param("cnonce") or ""
        if split_algorithm(algorithm) is None or qop not in ("auth", "auth-int", ""):
            return "algorithm or qop not offered"
        allowed = self._algorithms.get(user)
        if allowed is not None and (algorithm or "MD5").upper() not in allowed:
            return "algorithm or qop not offered"
        if max(len(uri), len(cnonce), len(user)) > _MAX_VALUE:
            return "credentials too long"
        if qop and _nonce_count(credentials) == 0:
            return "nonce count cannot be read"
        password = self._passwords.get(user)
        expected = digest_response(
            algorithm=algorithm,
            username=user,
            realm=self._realm,
            # Unknown users cost the same time as known ones.
            password="" if password is None else password,
            nonce=credentials.param("nonce") or "",
            method=request.method,
            uri=uri,
            qop=qop,
            nc=credentials.param("nc") or "",
            cnonce=cnonce,
            body=request.body,
        )
        given = (credentials.param("response") or "").lower()
        same = compare_digest(expected.encode(), given.encode())
        if password is None:
            return UNKNOWN_USER
        return "" if same else WRONG_PASSWORD

    def _nonce(self, issued: str, salt: str, *, proxy: bool, source: str) -> str:
        import hmac  # loads OpenSSL, which a door that challenges nobody does without

        text = f"{issued}-{salt}"
        sealed = f"{text}-{proxy}-{source}-{self._realm}"
        seal = hmac.new(self._secret, sealed.encode(), sha256)
        return f"{text}-{seal.hexdigest()[:32]}"

    def _issued(self, nonce: str, *, proxy: bool, source: str) -> float | None:
        """When we made this nonce; None when we did not."""
        parts = nonce.split("-")
        if len(parts) != 3 or len(nonce) > 128:
            return None
        if not compare_digest(
            self._nonce(parts[0], parts[1], proxy=proxy, source=source).encode(), nonce.encode()
        ):
            return None
        return int(parts[0], 16) / 1000

    def _remember(self, nonce: str, issued: float, count: int, now: float) -> None:
        self._used[nonce] = issued, count
        self._used.move_to_end(nonce)
        while self._used:
            oldest_issued, _ = next(iter(self._used.values()))
            too_old = now - oldest_issued > self._seconds
            if not too_old and len(self._used) <= MAX_NONCES:
                break
            self._used.popitem(last=False)
            self._forgotten_up_to = max(self._forgotten_up_to, oldest_issued)


def _nonce_count(credentials: Credentials) -> int:
    """The nonce count; 1 for RFC 2617 without qop, so that such a nonce is good once; 0: bad."""
    if not credentials.param("qop"):
        return 1
    text = credentials.param("nc") or ""
    if len(text) != 8 or any(character not in "0123456789abcdefABCDEF" for character in text):
        return 0
    return int(text, 16)
