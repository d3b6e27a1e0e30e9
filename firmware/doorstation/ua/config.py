"""What the user agent needs to know of the settings, in its own words."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from doorstation.errors import DoorstationError
from doorstation.media.codecs import missing
from doorstation.sdp.codecs import L16, L16_NARROW, OFFERED, PCMA, PCMU, Codec
from doorstation.sdp.negotiation import Encryption
from doorstation.settings import tree
from doorstation.settings.text import parse_host_port
from doorstation.settings.tree import Settings
from doorstation.sip.digest import ALGORITHMS, Credential
from doorstation.sip.transport import Transport
from doorstation.sip.uri import SipUri, parse_uri
from doorstation.ua.inspect import ORDERS

log = logging.getLogger(__name__)


class SrtpPolicy(msgspec.Struct, frozen=True):
    """Encryption of sound with somebody. `mode`: "off", "optional" or "required"; "" is optional,
    and offers no keys where the signalling that would carry them can be read."""

    mode: str = ""
    keys: tuple[str, ...] = ("sdes",)

    def over(self, transport: Transport | None) -> Encryption:
        """What that means for a call that is signalled over `transport`."""
        required = self.mode == "required"
        secret = transport is Transport.TLS or "sdes" not in self.keys
        wished = self.mode == "optional" or (self.mode == "" and secret)
        return Encryption(
            offered="alone" if required else "beside" if wished else "",
            accepted=self.mode != "off",
            required=required,
            keys=self.keys,
        )


USUAL_SRTP: Final = SrtpPolicy()


@dataclass(frozen=True, slots=True)
class Account:
    """Who we are at a registrar. Domain, registrar, proxy, user and auth user are five settings."""

    user: str
    domain: str
    registrar: SipUri
    password: str = field(default="", repr=False)
    auth_user: str = ""
    display_name: str = ""
    backup_registrars: tuple[SipUri, ...] = ()
    """Asked in this order while the registrar does not answer."""
    outbound_proxy: SipUri | None = None
    expires: int = 300
    may_call: bool = True
    """Whether calls that come through the registrar are let in."""
    keep_alive: float = 30.0
    """Seconds between OPTIONS to the registrar; 0: none."""
    srtp: SrtpPolicy = USUAL_SRTP
    inband_digits: bool = False
    instance: str = ""
    """Our name (RFC 5626 §4.1), a URN that REGISTER holds, "" for none."""

    @property
    def servers(self) -> frozenset[str]:
        """Hosts that the settings name for this account."""
        known = (self.aor, self.registrar, *self.backup_registrars, self.outbound_proxy)
        return frozenset(uri.host for uri in known if uri is not None)

    @property
    def aor(self) -> SipUri:
        """The address of record, as From and To of REGISTER write it."""
        return SipUri.of(self.user, self.domain)


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody who may be called, and perhaps may call in, without a registrar."""

    name: str
    uri: SipUri
    may_call: bool = True
    password: str = field(default="", repr=False)
    digest: tuple[str, ...] = ALGORITHMS
    """Algorithms by which it may prove its password, the preferred first."""
    srtp: SrtpPolicy = USUAL_SRTP
    inband_digits: bool = False
    """Whether tones in its voice are digits."""


class AgentConfig(msgspec.Struct, frozen=True):
    account: Account | None = None
    peers: tuple[Peer, ...] = ()
    local_user: str = "door"
    display_name: str = ""
    user_agent: str = "Doorstation"
    contact_host: str = ""
    codecs: tuple[Codec, ...] = (PCMA, PCMU)
    also: tuple[Codec, ...] = ()
    """Codecs taken where they are offered, but not offered."""
    answer_order: str = "offerer"
    max_calls: int = 8
    session_expires: int = 1800
    """Session timer (RFC 4028), seconds; 0: never asked for, still kept when the peer asks."""
    min_session_expires: int = 90
    srtp: SrtpPolicy = USUAL_SRTP
    """With who is neither the account nor a peer."""
    redirect_limit: int = 5
    contents: tuple[str, ...] = ()
    """What a MESSAGE may bring beside text: handed up, whoever sends it (`ContentReceived`)."""
    typists: frozenset[str] = frozenset()
    """Users whose texts are handed up likewise."""
    proves: tuple[Credential, ...] = ()
    """Proved to whoever names the realm; the account's password to the account's servers only."""

    @property
    def by_dtls(self) -> bool:
        """Whether anybody's call may get its keys by DTLS."""
        known = (*self.peers, *(() if self.account is None else (self.account,)), self)
        return any(each.srtp.mode != "off" and "dtls" in each.srtp.keys for each in known)


def config_from(settings: Settings, door: str = "") -> AgentConfig:
    """The user agent's part of valid settings. `door`: the UUID of the door, "" for none.

    Raises DoorstationError when no library of any of the codecs is there.
    """
    sip = settings.sip
    commanded = bool(settings.keys and settings.commanders)
    peers = tuple(
        Peer(
            name,
            _uri(peer.uri),
            peer.may_call,
            peer.password.reveal(),
            tuple(algorithm.upper() for algorithm in peer.digest),
            _srtp(peer, settings.audio),
            peer.inband_digits,
        )
        for name, peer in settings.peers.items()
    )
    return AgentConfig(
        account=_account(settings, door),
        peers=peers,
        local_user=sip.user,
        display_name=sip.display_name,
        user_agent=sip.user_agent,
        contact_host=sip.contact_host,
        codecs=_offered(settings.audio.codecs),
        also=tuple(c for c in (L16, L16_NARROW) if not missing(c.name, c.clock)),
        answer_order=settings.audio.answer_order,
        session_expires=int(sip.session_timer),
        srtp=_srtp(settings.audio, settings.audio),
        contents=(ORDERS,) if commanded else (),
        typists=frozenset(name for name, who in settings.commanders.items() if who.types)
        if commanded
        else frozenset(),
    )


def _offered(names: Iterable[str]) -> tuple[Codec, ...]:
    offered: list[Codec] = []
    for name in names:
        codec = OFFERED[name]
        reason = missing(codec.name, codec.clock)
        if reason:
            log.warning("%s is not offered: %s", name, reason)
        else:
            offered.append(codec)
    if not offered:
        raise DoorstationError(f"audio.codecs: none of {', '.join(names)} can be spoken here")
    return tuple(offered)


def _srtp(own: tree.Audio | tree.Account | tree.Peer, audio: tree.Audio) -> SrtpPolicy:
    return SrtpPolicy(own.srtp or audio.srtp or "", own.srtp_keys or audio.srtp_keys)


def _account(settings: Settings, door: str) -> Account | None:
    """None also for an account of which nothing says yet where to register."""
    account, sip = settings.account, settings.sip
    if account is None or not settings.domain:
        return None

    def server(text: str) -> SipUri:
        host, port = parse_host_port(text)
        params = () if account.transport == "auto" else (("transport", account.transport),)
        return SipUri(host=host.lower(), port=port, params=params)

    named = account.registrar or account.domain or account.outbound_proxy
    registrar, *others = map(server, [named] if named else sip.servers)
    if account.backup_registrar:
        others.append(server(account.backup_registrar))
    return Account(
        user=account.user,
        domain=settings.domain,
        registrar=registrar,
        password=account.password.reveal(),
        auth_user=account.auth_user,
        display_name=sip.display_name,
        backup_registrars=tuple(others),
        outbound_proxy=server(account.outbound_proxy) if account.outbound_proxy else None,
        expires=int(account.expires),
        may_call=account.may_call,
        keep_alive=sip.keep_alive,
        srtp=_srtp(account, settings.audio),
        inband_digits=account.inband_digits,
        instance=f"urn:uuid:{door}" if account.instance and door else "",
    )


def _uri(text: str) -> SipUri:
    uri = parse_uri(text)
    assert isinstance(uri, SipUri)  # `settings` has already refused any other
    return uri
