"""What stands between one call's packets and the network when its sound is encrypted.

Keys were told by signalling, or come by a handshake on the sound's own ports; until they are there,
nothing is sent and nothing opens. Without `rtcp-mux` a DTLS far end shakes hands on the RTCP port
too, and reports have keys of their own (RFC 5764 §3).
"""

from collections.abc import Sequence

from doorstation.media import dtls
from doorstation.media.dtls import Handshake, HandshakeFailed
from doorstation.media.srtp import DtlsPeer, Keys, Srtp


class _Port:
    """One port's keys, or the way to them."""

    __slots__ = ("flight", "handshake", "srtp")

    def __init__(self, agreed: Keys | DtlsPeer) -> None:
        self.srtp: Srtp | None = None
        self.handshake: Handshake | None = None
        self.flight: list[bytes] = []
        """Datagrams of the handshake that wait to be sent."""
        if isinstance(agreed, Keys):
            self.srtp = Srtp(agreed)
        else:
            self.handshake = Handshake(agreed)
            self.flight = self.handshake.start()

    def received(self, data: bytes) -> None:
        handshake = self.handshake
        if handshake is None:
            return
        self.flight += handshake.received(data)
        if handshake.keys is not None and self.srtp is None:
            self.srtp = Srtp(handshake.keys)


class Protection:
    """One call's encryption, from the first agreement to the last re-INVITE."""

    __slots__ = ("_agreed", "_mux", "_rtcp", "_rtp", "failed")

    def __init__(self, agreed: Keys | DtlsPeer, *, mux: bool) -> None:
        self._agreed = agreed
        self._mux = mux
        self._rtp = _Port(agreed)
        self._rtcp = self._rtp if mux or isinstance(agreed, Keys) else _Port(agreed)
        self.failed = ""
        """Why there will be no keys."""

    def changed(self, agreed: Keys | DtlsPeer, *, mux: bool) -> "Protection":
        """After a re-INVITE: itself where the keys are to stay, else what follows it."""
        before = self._agreed
        if isinstance(agreed, Keys) and isinstance(before, Keys):
            if agreed != before:
                assert self._rtp.srtp is not None
                self._agreed = agreed
                self._rtp.srtp = self._rtp.srtp.rekeyed(agreed)
            return self
        if isinstance(agreed, Keys) or isinstance(before, Keys):
            return Protection(agreed, mux=mux)
        # One certificate, one association, whoever would begin it now (RFC 8842 §4).
        same = agreed.fingerprints == before.fingerprints and mux == self._mux
        return self if same and not self.failed else Protection(agreed, mux=mux)

    @property
    def suite(self) -> str:
        """The name of what protects the sound; "" before there are keys."""
        return self._rtp.srtp.keys.suite if self._rtp.srtp is not None else ""

    @property
    def ready(self) -> bool:
        """Whether sound can be sent."""
        return self._rtp.srtp is not None

    @property
    def rtcp_ready(self) -> bool:
        return self._rtcp.srtp is not None

    def protect(self, packet: bytes) -> bytes:
        """An RTP packet as it may leave; only when `ready`."""
        assert self._rtp.srtp is not None
        return self._rtp.srtp.protect(packet)

    def protect_rtcp(self, packet: bytes) -> bytes:
        """A compound RTCP packet as it may leave; only when `rtcp_ready`."""
        assert self._rtcp.srtp is not None
        return self._rtcp.srtp.protect_rtcp(packet)

    def unprotect(self, packet: bytes) -> bytes | None:
        """The RTP packet; None when the keys, if there are any, do not open it."""
        return self._rtp.srtp.unprotect(packet) if self._rtp.srtp is not None else None

    def unprotect_rtcp(self, packet: bytes) -> bytes | None:
        """The compound RTCP packet, or None as in `unprotect`."""
        return self._rtcp.srtp.unprotect_rtcp(packet) if self._rtcp.srtp is not None else None

    # The handshakes.

    def is_handshake(self, data: bytes) -> bool:
        """Whether a datagram is of a handshake that this call has."""
        return isinstance(self._agreed, DtlsPeer) and dtls.is_dtls(data)

    def handshake_received(self, data: bytes, *, rtcp_port: bool) -> None:
        """Take a datagram of a handshake; then `ready`, `failed` and the flights tell."""
        port = self._rtcp if rtcp_port else self._rtp
        try:
            port.received(data)
        except HandshakeFailed as fault:
            self._fail(port, fault)

    def timer_fired(self) -> None:
        """To be called a few times a second: a flight that was lost is sent once more."""
        for port in (self._rtp, self._rtcp):
            if port.handshake is not None and port.srtp is None:
                try:
                    port.flight += port.handshake.timer_fired()
                except HandshakeFailed as fault:
                    self._fail(port, fault)

    def _fail(self, port: _Port, fault: HandshakeFailed) -> None:
        port.handshake = None
        if port is self._rtp:
            self.failed = str(fault)  # without reports a call goes on

    def flight(self, *, rtcp_port: bool = False) -> Sequence[bytes]:
        """Datagrams of the handshake to send now, from this port."""
        port = self._rtcp if rtcp_port else self._rtp
        if not port.flight or (rtcp_port and port is self._rtp):
            return ()
        flight, port.flight = port.flight, []
        return flight


def load_libraries(agreed: Keys | DtlsPeer | None) -> None:
    """Load the libraries that the first such call needs, before its sound runs."""
    if agreed is None:
        return
    import pylibsrtp  # noqa: F401

    if isinstance(agreed, DtlsPeer):
        dtls.load()
