"""What signalling would have agreed, for tests of the media alone."""

from dataclasses import dataclass

from doorstation.media.srtp import DtlsPeer, Keys

Address = tuple[str, int]


@dataclass(frozen=True)
class Codec:
    name: str
    clock: int = 8000
    fmtp: str = ""


PCMA = Codec("PCMA")
PCMU = Codec("PCMU")


@dataclass(frozen=True)
class Agreed:
    """Has the fields of `sdp.negotiation.AudioSession` that the engine reads."""

    remote: Address
    remote_rtcp: Address | None
    rtcp_mux: bool = False
    codec: Codec = PCMA
    payload_type: int = 8
    receive: tuple[tuple[int, Codec], ...] = ((8, PCMA), (0, PCMU))
    event_payload_type: int | None = 101
    event_clock: int = 8000
    event_receive: tuple[tuple[int, int], ...] = ((101, 8000), (100, 8000), (110, 16000))
    noise_receive: tuple[int, ...] = (13,)
    direction: str = "sendrecv"
    ptime_ms: int = 20
    signalled_by: str = ""
    protection: Keys | DtlsPeer | None = None


def agreed(remote: Address, **changes: object) -> Agreed:
    """PCMA in both directions with `remote`, RTCP on its next port."""
    changes.setdefault("remote_rtcp", (remote[0], remote[1] + 1))
    return Agreed(remote, **changes)  # type: ignore[arg-type]
