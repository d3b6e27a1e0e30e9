"""Codecs as SDP names them: static numbers (RFC 3551 §6), `a=rtpmap` and `a=fmtp`."""

from collections.abc import Iterable
from typing import Final

import msgspec

from doorstation.media import opus
from doorstation.sdp.description import Attribute, Media


class Codec(msgspec.Struct, frozen=True):
    """One encoding; `payload_type` is its number where it has one, `fmtp` its parameters as text.

    `clock` is the RTP clock in Hz, which is not always the sampling rate (G.722, RFC 3551 §4.5.2).
    """

    name: str
    clock: int
    channels: int = 1
    payload_type: int | None = None
    fmtp: str = ""

    @property
    def key(self) -> tuple[str, int, int]:
        """What makes two descriptions the same codec, whatever their numbers."""
        return self.name.lower(), self.clock, self.channels

    def numbered(self, payload_type: int, fmtp: str) -> "Codec":
        return Codec(self.name, self.clock, self.channels, payload_type, fmtp)


PCMU: Final = Codec("PCMU", 8000, payload_type=0)
PCMA: Final = Codec("PCMA", 8000, payload_type=8)
G722: Final = Codec("G722", 8000, payload_type=9)
OPUS: Final = Codec("opus", 48000, 2, fmtp=opus.FMTP)  # always these two numbers, RFC 7587 §7
L16: Final = Codec("L16", 16000)
L16_NARROW: Final = Codec("L16", 8000)

COMFORT_NOISE: Final = Codec("CN", 8000, payload_type=13)  # RFC 3389

# DTMF and its letters A to D; RFC 4733 §3.2.
TELEPHONE_EVENT: Final = Codec("telephone-event", 8000, fmtp="0-15")

OFFERED: Final = {
    "G722": G722,
    "opus": OPUS,
    "PCMA": PCMA,
    "PCMU": PCMU,
    "L16/16000": L16,
    "L16/8000": L16_NARROW,
}
"""What can be offered, by its name in the settings."""

STATIC: Final = {
    codec.payload_type: codec
    for codec in (
        PCMU,
        Codec("GSM", 8000, payload_type=3),
        Codec("G723", 8000, payload_type=4),
        Codec("DVI4", 8000, payload_type=5),
        Codec("DVI4", 16000, payload_type=6),
        Codec("LPC", 8000, payload_type=7),
        PCMA,
        G722,
        Codec("L16", 44100, 2, payload_type=10),
        Codec("L16", 44100, payload_type=11),
        Codec("QCELP", 8000, payload_type=12),
        COMFORT_NOISE,
        Codec("MPA", 90000, payload_type=14),
        Codec("G728", 8000, payload_type=15),
        Codec("DVI4", 11025, payload_type=16),
        Codec("DVI4", 22050, payload_type=17),
        Codec("G729", 8000, payload_type=18),
    )
}


def read_codecs(media: Media) -> tuple[Codec, ...]:
    """The codecs of an RTP m-line in its order, each with its number there.

    A number without a readable `a=rtpmap` takes its static meaning or is left out.
    """
    maps = _by_number(media.values("rtpmap"))
    parameters = _by_number(media.values("fmtp"))
    codecs: dict[int, Codec] = {}
    for text in media.formats:
        number = payload_type(text)
        if number is None or number in codecs:
            continue
        codec = _parse_rtpmap(maps.get(number, "")) or STATIC.get(number)
        if codec is not None:
            codecs[number] = codec.numbered(number, parameters.get(number, ""))
    return tuple(codecs.values())


def write_codecs(codecs: Iterable[Codec]) -> tuple[tuple[str, ...], tuple[Attribute, ...]]:
    """The formats and attributes of an m-line; every codec must have its number."""
    formats: list[str] = []
    attributes: list[Attribute] = []
    for codec in codecs:
        number = codec.payload_type
        if number is None:
            raise ValueError(f"{codec.name} has no payload type yet")
        formats.append(str(number))
        channels = "" if codec.channels == 1 else f"/{codec.channels}"
        # Also for static numbers: some stacks look for the map and nothing else.
        attributes.append(Attribute("rtpmap", f"{number} {codec.name}/{codec.clock}{channels}"))
        if codec.fmtp:
            attributes.append(Attribute("fmtp", f"{number} {codec.fmtp}"))
    return tuple(formats), tuple(attributes)


def _by_number(values: Iterable[str]) -> dict[int, str]:
    """`"101 0-15"` -> `{101: "0-15"}`; the first line of a number counts."""
    found: dict[int, str] = {}
    for value in values:
        head, *rest = value.split(None, 1)[:2] or [""]
        number = payload_type(head)
        if number is not None and rest:
            found.setdefault(number, rest[0])
    return found


def payload_type(text: str) -> int | None:
    """0 to 127 as written in an m-line, else None."""
    if not (1 <= len(text) <= 3 and text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= 127 else None


def _parse_rtpmap(text: str) -> Codec | None:
    """`"opus/48000/2"` -> Codec; None if it cannot be read."""
    name, _, rest = text.strip().partition("/")
    clock_text, _, channels_text = rest.partition("/")
    clock = _number(clock_text)
    channels = _number(channels_text or "1")
    if not name or not clock or not channels:
        return None
    if name.upper() == G722.name and clock == 16000:
        clock = G722.clock  # some phones write the sampling rate and send by RFC 3551
    return Codec(name, clock, channels)


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if 1 <= len(text) <= 6 and text.isascii() and text.isdigit() else None
