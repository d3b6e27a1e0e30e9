"""Who may reach us. Pure functions that say allow, challenge or refuse, and by which rule."""

from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from doorstation.ua.config import Peer


class Verdict(StrEnum):
    ALLOW = "allow"
    CHALLENGE = "challenge"
    REFUSE = "refuse"


class Decision(msgspec.Struct, frozen=True):
    verdict: Verdict
    rule: str
    peer: Peer | None = None


def same_host(a: str, b: str) -> bool:
    """Whether two IP literals are one address: `::ffff:10.0.0.1` is 10.0.0.1, a name is nobody."""
    address = _address(a)
    return address is not None and address == _address(b)


@lru_cache(maxsize=2048)
def _address(literal: str) -> IPv4Address | IPv6Address | None:
    """Kept: the registrar's and the peers' are looked at for each request that comes."""
    try:
        address = ip_address(literal.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def may_call_in(
    source: str,
    *,
    registrar_addresses: Iterable[str],
    on_registered_flow: bool,
    registrar_may_call: bool,
    peers: Iterable[Peer],
    user: str = "",
    proved: str = "",
) -> Decision:
    """Whether a request from the IP address `source` may reach us (RFC 3261 §8.2, §22).

    The registrar in use and the peers in the settings may, nobody else. What From says counts
    only to choose whom to challenge: `user` is its user part, `proved` the digest user that the
    request has just proved. `on_registered_flow` is True on a stream that we opened to the
    registrar, which nobody else can write to.
    """
    peers = tuple(peers)
    if on_registered_flow or any(same_host(source, a) for a in registrar_addresses):
        if registrar_may_call:
            return Decision(Verdict.ALLOW, "registrar")
        return Decision(Verdict.REFUSE, "registrar-may-not-call")
    for peer in peers:
        if peer.password and proved and proved == peer.name:
            if peer.may_call:
                return Decision(Verdict.ALLOW, "peer-password", peer)
            return Decision(Verdict.REFUSE, "peer-may-not-call", peer)
    for peer in peers:
        if not peer.password and same_host(source, peer.uri.host):
            if peer.may_call:
                return Decision(Verdict.ALLOW, "peer-address", peer)
            return Decision(Verdict.REFUSE, "peer-may-not-call", peer)
    for peer in peers:
        if peer.password and (
            peer.name == user or peer.uri.user_text == user or same_host(source, peer.uri.host)
        ):
            return Decision(Verdict.CHALLENGE, "peer-password-needed", peer)
    return Decision(Verdict.REFUSE, "stranger")
