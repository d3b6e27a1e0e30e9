"""What the engine of a call is told of its session, and what it tells of the call."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import msgspec

from doorstation.media.digits import Digit
from doorstation.media.srtp import DtlsPeer, Keys

Address = tuple[str, int]


class AgreedCodec(Protocol):
    """What the engine needs of `sdp.codecs.Codec`."""

    @property
    def name(self) -> str: ...
    @property
    def clock(self) -> int: ...
    @property
    def fmtp(self) -> str: ...


class AgreedAudio(Protocol):
    """What the engine needs of `sdp.negotiation.AudioSession`."""

    @property
    def remote(self) -> Address: ...
    @property
    def remote_rtcp(self) -> Address | None: ...
    @property
    def rtcp_mux(self) -> bool: ...
    @property
    def codec(self) -> AgreedCodec: ...
    @property
    def payload_type(self) -> int: ...
    @property
    def receive(self) -> "Iterable[tuple[int, AgreedCodec]]": ...
    @property
    def event_payload_type(self) -> int | None: ...
    @property
    def event_clock(self) -> int: ...
    @property
    def event_receive(self) -> Iterable[tuple[int, int]]: ...
    @property
    def noise_receive(self) -> Iterable[int]: ...
    @property
    def direction(self) -> str: ...
    @property
    def ptime_ms(self) -> int: ...
    @property
    def signalled_by(self) -> str: ...
    @property
    def protection(self) -> Keys | DtlsPeer | None: ...


class EchoSeen(Protocol):
    """What the engine tells of `echo.Figures`."""

    @property
    def erle_db(self) -> float | None: ...
    @property
    def late(self) -> bool: ...


class CardSeen(NamedTuple):
    """What the sound card did during a call, as who drives it tells.

    `overruns`: how often the microphone lost sound; `underruns`: the loudspeaker had none.
    """

    overruns: int = 0
    underruns: int = 0
    seconds_lost: float = 0.0


class Datagram(NamedTuple):
    """To be sent: from the RTCP socket if `rtcp`, else from the RTP socket."""

    data: bytes
    to: Address
    rtcp: bool = False


class MediaStarted(msgspec.Struct, frozen=True):
    """The first valid packet from where the far end is now: early media, or the talk."""

    source: Address


class MediaSilent(msgspec.Struct, frozen=True):
    """Neither RTP nor RTCP for `seconds` of a talk: the call is likely dead.

    Not where the far end holds us: it may send music, and most send nothing.
    """

    seconds: float


class MediaResumed(msgspec.Struct, frozen=True):
    """Packets again, after MediaSilent."""


class KeysAgreed(msgspec.Struct, frozen=True):
    """The handshake is done, with who was signalled: sound passes, encrypted with `suite`."""

    suite: str


class KeysRefused(msgspec.Struct, frozen=True):
    """There will be no keys, so no sound."""

    why: str


Occurrence = Digit | MediaStarted | MediaSilent | MediaResumed | KeysAgreed | KeysRefused


class CallStatistics(msgspec.Struct, frozen=True):
    """Counts since the call began; levels are averages in dBFS; what is not known is None.

    `dropped`: datagrams that were not ours: no RTP, wrong source, payload type or sequence.
    `unauthentic`: those that the call's keys did not open: plain, forged, or sent once more.
    `concealed`: periods of 20 ms; `delay_ms`: sound waiting in the jitter buffer now.
    `microphone_dbfs`: as captured, with noise and echo; `loudspeaker_dbfs`: as received.
    `encryption`: the SRTP suite; "" for plain sound. `burst_…`: as RFC 3611 4.7.2 has it.
    `mos_lq`, `mos_cq`: opinion of listening and of talking with each other, estimated, 1 to 4.4.
    `echo_db`: by how much the loudspeaker's echo was turned down; `echo_late`: it came before its
    reference, so it was not. `card_lost_seconds`: without a sound card. `remote_…`: what the
    far end says about how it hears us.
    """

    seconds: float
    codec: str
    encryption: str
    remote: str
    sent: int
    received: int
    lost: int
    late: int
    duplicated: int
    concealed: int
    dropped: int
    unauthentic: int
    jitter_ms: float
    delay_ms: float
    microphone_dbfs: float
    loudspeaker_dbfs: float
    round_trip_ms: float | None
    burst_loss_percent: float
    burst_ms: float
    gap_loss_percent: float
    mos_lq: float | None
    mos_cq: float | None
    echo_db: float | None
    echo_late: bool
    overruns: int
    underruns: int
    card_lost_seconds: float
    remote_lost: int | None
    remote_jitter_ms: float | None
    remote_discarded_percent: float | None
    remote_delay_ms: int | None
    remote_mos: float | None
    remote_echo_db: int | None
