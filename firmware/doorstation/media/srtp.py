"""SRTP and SRTCP (RFC 3711, AEAD by RFC 7714): one call's packets under the keys that were agreed.

libsrtp does the work and is loaded for the first call that is protected. It keeps a roll-over
counter and a replay window (128 packets) for every SSRC, so one `Srtp` lives as long as its keys:
made anew in mid-call it would count from zero, and encrypt twice with the same key stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    import pylibsrtp

MAX_SSRCS: Final = 16
"""Streams of one call's far end: each takes memory for good, and a caller who knows the keys could
name a new one in every packet."""

LONGEST: Final = 1352
"""Octets of a packet that can be protected: libsrtp's buffer holds an Ethernet frame."""


class Suite(msgspec.Struct, frozen=True):
    """A crypto suite by its name in SDP; lengths in octets.

    `tag`, `rtcp_tag`: authentication tag that an MKI is written before; with AEAD, which writes
    the MKI last, 0.
    """

    name: str
    key: int
    salt: int
    tag: int
    rtcp_tag: int
    profile: str

    @property
    def master(self) -> int:
        """Master key and salt together."""
        return self.key + self.salt


SUITES: Final[Mapping[str, Suite]] = {
    suite.name: suite
    for suite in (
        Suite("AES_CM_128_HMAC_SHA1_80", 16, 14, 10, 10, "SRTP_PROFILE_AES128_CM_SHA1_80"),
        # RFC 4568 6.2.2: its RTCP has the long tag.
        Suite("AES_CM_128_HMAC_SHA1_32", 16, 14, 4, 10, "SRTP_PROFILE_AES128_CM_SHA1_32"),
        Suite("AEAD_AES_128_GCM", 16, 12, 0, 0, "SRTP_PROFILE_AEAD_AES_128_GCM"),
        Suite("AEAD_AES_256_GCM", 32, 12, 0, 0, "SRTP_PROFILE_AEAD_AES_256_GCM"),
    )
}


@dataclass(frozen=True, slots=True)
class Keys:
    """What both sides send with: master key and salt of each. Never printed.

    `mki`: what the far end puts into every packet; we put none.
    """

    suite: str
    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)
    mki: bytes = b""


class DtlsPeer(msgspec.Struct, frozen=True):
    """Keys come by DTLS-SRTP (RFC 5764) from who shows a certificate of one of these fingerprints.

    `fingerprints`: (hash as in SDP, digest); `active`: we begin the handshake.
    """

    fingerprints: tuple[tuple[str, bytes], ...]
    active: bool


class Srtp:
    """Protects what we send, opens what arrives."""

    __slots__ = ("_known", "_last", "_receive", "_send", "_suite", "_wrong", "keys")

    def __init__(self, keys: Keys) -> None:
        """Raises ValueError for a suite or key length that does not exist."""
        import pylibsrtp

        self._wrong = (pylibsrtp.Error, ValueError)
        self._suite = SUITES[keys.suite]
        self.keys = keys
        self._send = self._session(keys.send, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
        self._receive = self._session(keys.receive, pylibsrtp.Policy.SSRC_ANY_INBOUND)
        self._known: set[bytes] = set()
        self._last: Srtp | None = None

    def _session(self, key: bytes, direction: int) -> pylibsrtp.Session:
        import pylibsrtp

        suite = self._suite
        if len(key) != suite.master:
            raise ValueError(f"{suite.name} with {len(key)} octets of key, {suite.master} needed")
        policy = pylibsrtp.Policy(key, direction, 0, getattr(pylibsrtp.Policy, suite.profile))
        return pylibsrtp.Session(policy)

    def rekeyed(self, keys: Keys) -> Srtp:
        """The same call with other keys; a direction whose key has not changed counts on.

        Packets under way with the far end's last key are still opened, until one with the new key
        has come.
        """
        new = Srtp(keys)
        if keys.suite == self.keys.suite:
            if keys.send == self.keys.send:
                new._send = self._send
            if (keys.receive, keys.mki) == (self.keys.receive, self.keys.mki):
                new._receive, new._known, new._last = self._receive, self._known, self._last
                return new
        self._last = None
        new._last = self
        return new

    def protect(self, packet: bytes) -> bytes:
        """An RTP packet of at most `LONGEST` octets as SRTP."""
        return self._send.protect(packet)

    def protect_rtcp(self, packet: bytes) -> bytes:
        """A compound RTCP packet as SRTCP."""
        return self._send.protect_rtcp(packet)

    def unprotect(self, packet: bytes) -> bytes | None:
        """The RTP packet; None when it is plain, forged, damaged or a repetition."""
        opened = self._open(packet, self._receive.unprotect, packet[8:12], self._suite.tag)
        if opened is None and self._last is not None:
            return self._last.unprotect(packet)
        return opened

    def unprotect_rtcp(self, packet: bytes) -> bytes | None:
        """The compound RTCP packet, or None as in `unprotect`."""
        opened = self._open(packet, self._receive.unprotect_rtcp, packet[4:8], self._suite.rtcp_tag)
        if opened is None and self._last is not None:
            return self._last.unprotect_rtcp(packet)
        return opened

    def _open(
        self, packet: bytes, unprotect: Callable[[bytes], bytes], ssrc: bytes, tag: int
    ) -> bytes | None:
        known = ssrc in self._known
        if not known and len(self._known) >= MAX_SSRCS:
            return None
        mki = self.keys.mki
        if mki:
            at = len(packet) - tag - len(mki)
            if at < 0 or packet[at : at + len(mki)] != mki:
                return None
            packet = packet[:at] + packet[at + len(mki) :]
        try:
            opened = unprotect(packet)
        except self._wrong:
            return None
        if not known:
            self._known.add(ssrc)
        if self._last is not None:
            self._last = None
        return opened
