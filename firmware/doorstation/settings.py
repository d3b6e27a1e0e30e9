"""Every option once: type, default, unit, range, help, and whether it is secret.

The sections below are the only place that knows an option. Loading, `doorstation check` and
`docs/settings.md` all read them. Loading reports every problem together, each as
`key.path: what is wrong; what would be valid`. A value that cannot be used is replaced by its
default while the other checks go on; the tree is thrown away if there was any problem.
"""

import functools
import hmac
import ipaddress
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from doorstation.errors import SettingsError

MIN_CODE_DIGITS: Final = 4
MAX_CODE_DIGITS: Final = 16
MAX_TEXT: Final = 1024  # longer than any URI or path in use; keeps requests inside one datagram
_TLS_NEEDS_NAME: Final = "TLS proves a name, not an address; a domain name, or another transport"
_PARAM_SIGNS: Final = frozenset("-_.!%*+'~")
DIAL_CHARACTERS: Final = frozenset("0123456789*#+")


class Secret:
    """Text that prints as `***` however it is printed; `reveal()` is the one way out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def matches(self, text: str) -> bool:
        """Compare in a time that tells nothing about the secret but its length."""
        return hmac.compare_digest(self._text.encode(), text.encode(errors="replace"))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __len__(self) -> int:
        return len(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._text)

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "***"


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one option beside its type and default."""

    help: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    least: int = 0
    """Entries a list needs."""
    most: int = 1000
    """Entries a list may have."""
    check: Callable[[str], str] | None = None
    """Given a text: "" or 'what is wrong; what would be valid'."""
    absent: str = ""
    """What is done when the option is not set and has no default value."""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A table of the file."""


# --- Checks of one text -------------------------------------------------------------------------


def parse_host_port(text: str) -> tuple[str, int | None]:
    """Split `host`, `host:port`, `[v6]:port` or a bare IPv6 address; the host without brackets.

    Raises ValueError, saying what would be valid.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise ValueError(f"{text!r} is not an address; write [IPv6] or [IPv6]:port")
        port = rest[1:] if rest else None
    elif text.count(":") > 1:
        host, port = text, None
    else:
        host, colon, tail = text.partition(":")
        port = tail if colon else None
    if fault := _host_fault(host):
        raise ValueError(fault)
    if port is None:
        return host, None
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise ValueError(f"{port!r} is not a port; a number from 1 to 65535")
    return host, int(port)


def is_address(host: str) -> bool:
    """Whether `host` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _host_fault(host: str) -> str:
    if is_address(host) and "[" not in host:
        return ""
    wrong = f"{host!r} is not a host; a name such as fritz.box or an IP address"
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or labels[-1].isdigit():
        return wrong
    for label in labels:
        plain = label.replace("-", "a")
        if not (plain.isascii() and plain.isalnum() and len(label) < 64):
            return wrong
        if label.startswith("-") or label.endswith("-"):
            return wrong
    return ""


def _host_only(text: str) -> str:
    return _host_fault(text)


def _host_port(text: str) -> str:
    try:
        parse_host_port(text)
    except ValueError as error:
        return str(error)
    return ""


def _local_address(text: str) -> str:
    return (
        "" if is_address(text) else f"{text!r} is not an IP address; 0.0.0.0 and :: mean every one"
    )


def split_uri(text: str) -> tuple[str, str, str, tuple[str, ...]]:
    """Scheme, user part (raw), host[:port] and parameters of a SIP URI; no check of any."""
    scheme, _, rest = text.partition(":")
    user, _, host = rest.rpartition("@")
    host, *params = host.split(";")
    return scheme.lower(), user, host, tuple(params)


def _sip_uri(text: str) -> str:
    """The light check that settings need; `doorstation.sip.uri` has the whole grammar."""
    scheme, user, host, params = split_uri(text)
    if scheme not in {"sip", "sips"}:
        return f"{text!r} is not a SIP URI; write sip:user@host or sip:host"
    if ":" in user:
        return "a URI must not hold a password; write sip:user@host"
    if "@" in user:
        return "a URI has one @; write sip:user@host"
    for character in text:
        if not "!" <= character <= "~" or character in '<>"#\\^`{|}':
            valid = "write %23 for #" if character == "#" else "escape it as %XX"
            return f"{character!r} cannot stand in a SIP URI; {valid}"
    for escape in text.split("%")[1:]:
        if len(escape) < 2 or not set(escape[:2]) <= set("0123456789abcdefABCDEF"):
            return "% must be followed by two hexadecimal digits; write %25 for a % itself"
    if "?" in host or any("?" in param for param in params):
        return "a URI here has no ?headers; write sip:user@host;param=value"
    for param in params:
        name = param.partition("=")[0]
        if not (name and all(c.isalnum() or c in _PARAM_SIGNS for c in name)) or len(params) > 16:
            return f"';{param}' cannot stand in a SIP URI; ;name or ;name=value, at most 16 of them"
    if host.count(":") > 1 and not host.startswith("["):
        return f"{host!r} is not a host; an IPv6 address stands in [brackets]"
    return _host_port(host)


def _target(text: str) -> str:
    if is_dial_string(text) or is_name(text):
        return ""
    if ":" in text:
        return _sip_uri(text)
    return f"{text!r} cannot be rung; a number, the name of a peer, or sip:user@host"


def _digits(text: str) -> str:
    if text and text.isascii() and text.isdigit() and len(text) <= MAX_CODE_DIGITS:
        return ""
    return (
        f"not a code; {MIN_CODE_DIGITS} to {MAX_CODE_DIGITS} digits 0 to 9 "
        "(* clears and # ends an entry, so neither is part of a code)"
    )


def _card_or_digits(text: str) -> str:
    if 4 <= len(text) <= 20 and all(c in "0123456789ABCDEF" for c in text):
        return ""
    return "not a card or code; 4 to 20 characters 0 to 9 and A to F"


def parse_port_range(text: str) -> tuple[int, int]:
    """First and last port of `first-last`. Raises ValueError, saying what would be valid."""
    first, dash, last = text.partition("-")
    numbers = [int(t) for t in (first, last) if t.isascii() and t.isdigit() and len(t) < 6]
    if not dash or len(numbers) != 2 or not 1024 <= numbers[0] <= numbers[1] - 3 <= 65532:
        raise ValueError(
            f"{text!r} is not a range of ports; first-last with at least four ports from 1024 "
            "to 65535, for example 16384-16482"
        )
    return numbers[0], numbers[1]


def _port_range(text: str) -> str:
    try:
        parse_port_range(text)
    except ValueError as error:
        return str(error)
    return ""


def _user(text: str) -> str:
    if text and all("!" <= c <= "~" and c not in '@:<>"' for c in text):
        return ""
    return f"{text!r} is not a user; letters, digits and signs, without @ and without the domain"


def is_dial_string(text: str) -> bool:
    """Whether `text` is dialled at the account's domain: digits, `*`, `#`, `+`."""
    return bool(text) and DIAL_CHARACTERS.issuperset(text)


def is_name(text: str) -> bool:
    """Whether `text` can name a part: a small letter, then small letters, digits, `_`, `-`."""
    plain = text.replace("_", "a").replace("-", "a")
    return (
        0 < len(text) <= 32
        and text.isascii()
        and text[0].isalpha()
        and plain.isalnum()
        and text == text.lower()
    )


Country = Literal[
    "at", "be", "ch", "cz", "de", "dk", "es", "fi", "fr", "hu",
    "ie", "it", "lu", "nl", "no", "pl", "pt", "se", "uk", "us",
]  # fmt: skip


# --- The tree -----------------------------------------------------------------------------------

Pin = Annotated[
    int | None,
    Option(
        help="GPIO number (BCM, not the header's pin).",
        low=0,
        high=27,
        absent="must be set on a Pi",
    ),
]
ActiveHigh = Annotated[bool, Option(help="`false` when a low level switches it on.")]
Pull = Annotated[
    Literal["up", "down", "none"],
    Option(help="Resistor on the input. `up`: it switches to ground; `down`: to 3.3 V."),
]
Debounce = Annotated[
    float, Option(help="A level counts when it lasted this long.", unit="s", low=0.001, high=1)
]
ShortCodes = Annotated[
    bool, Option(help="Accept codes of fewer than four digits in these calls: easy to guess.")
]

InbandDigits = Annotated[
    bool,
    Option(
        help="Tones in the voice count as digits, for a phone or gateway that sends nothing else. "
        "Not those that the door itself sent just before: an echo opens nothing."
    ),
]

Srtp = Literal["off", "optional", "required"]
SrtpKeys = tuple[Literal["sdes", "dtls"], ...]
PeerSrtp = Annotated[Srtp | None, Option(help="As `audio.srtp`, here.", absent="`audio.srtp`")]
PeerSrtpKeys = Annotated[
    SrtpKeys, Option(help="As `audio.srtp_keys`, here.", least=1, absent="`audio.srtp_keys`")
]


class Account(Section, frozen=True, kw_only=True):
    """The account at a telephone system. Without it only direct calls are possible."""

    user: Annotated[str, Option(help="User part of the account, its number.", check=_user)]
    domain: Annotated[
        str,
        Option(
            help="Domain of the account, the part after the @.",
            check=_host_only,
            absent="the registrar's host, or `sip.servers`",
        ),
    ] = ""
    password: Annotated[Secret, Option(help="Password of the account.")] = Secret("")
    auth_user: Annotated[
        str, Option(help="Name to log in with, when it is not `user`.", absent="`user`")
    ] = ""
    instance: Annotated[
        bool,
        Option(
            help="The registrar is told the door's own name (`+sip.instance`), so that its GRUU "
            "reaches this door and no other of the account."
        ),
    ] = False
    registrar: Annotated[
        str,
        Option(help="Where to register: host or host:port.", check=_host_port, absent="`domain`"),
    ] = ""
    backup_registrar: Annotated[
        str,
        Option(help="Used while the registrar does not answer.", check=_host_port, absent="none"),
    ] = ""
    outbound_proxy: Annotated[
        str, Option(help="Every request goes there first.", check=_host_port, absent="none")
    ] = ""
    transport: Annotated[
        Literal["auto", "udp", "tcp", "tls"],
        Option(help="`auto`: what the domain's DNS records say, UDP if they say nothing."),
    ] = "auto"
    expires: Annotated[
        float, Option(help="Registration lifetime asked for.", unit="s", low=60, high=86400)
    ] = 600.0
    may_call: Annotated[
        bool, Option(help="Calls that come through the account's registrar are let in.")
    ] = True
    auto_answer: Annotated[
        bool, Option(help="Such calls are answered at once; otherwise the door rings.")
    ] = False
    may_open: Annotated[
        bool, Option(help="Codes count in calls that come in through the registrar.")
    ] = False
    short_codes: ShortCodes = False
    inband_digits: InbandDigits = False
    srtp: PeerSrtp = None
    srtp_keys: PeerSrtpKeys = ()


class Sip(Section, frozen=True, kw_only=True):
    """How the door speaks SIP."""

    user: Annotated[
        str, Option(help="The door's user part in calls without an account.", check=_user)
    ] = "door"
    display_name: Annotated[str, Option(help="Name the called phone shows.")] = "Door"
    port: Annotated[
        int, Option(help="UDP and TCP port listened on; 0: any free one.", low=0, high=65535)
    ] = 5060
    listen: Annotated[
        tuple[str, ...],
        Option(help="Local addresses to listen on.", least=1, check=_local_address),
    ] = ("0.0.0.0", "::")  # noqa: S104 - a door is called from its network
    transports: Annotated[
        tuple[Literal["udp", "tcp", "tls"], ...],
        Option(help="Transports listened on. `tls` needs `tls.certificate`.", least=1),
    ] = ("udp", "tcp")
    contact_host: Annotated[
        str,
        Option(
            help="Host to put into Contact, when others must reach the door under a name.",
            check=_host_only,
            absent="the address in use",
        ),
    ] = ""
    session_timer: Annotated[
        float,
        Option(
            help="Session interval (RFC 4028); at least 90, or 0: off.", unit="s", low=0, high=86400
        ),
    ] = 1800.0
    t1: Annotated[
        float, Option(help="Round-trip estimate (RFC 3261 T1).", unit="s", low=0.1, high=4)
    ] = 0.5
    keep_alive: Annotated[
        float,
        Option(help="Keeps the way through a router open; 0: off.", unit="s", low=0, high=600),
    ] = 30.0
    user_agent: Annotated[
        str, Option(help="Name in User-Agent and Server.", absent="no such header")
    ] = "Doorstation"
    servers: Annotated[
        tuple[str, ...],
        Option(
            help="SIP servers, the preferred first, of an account that names neither domain nor "
            "registrar nor proxy: host or host:port.",
            most=8,
            check=_host_port,
            absent="what the network offers (DHCP)",
        ),
    ] = ()


class Tls(Section, frozen=True, kw_only=True):
    """Certificates."""

    port: Annotated[
        int, Option(help="TLS port listened on; 0: any free one.", low=0, high=65535)
    ] = 5061
    certificate: Annotated[
        str, Option(help="The door's certificate chain, a PEM file.", absent="none")
    ] = ""
    key: Annotated[str, Option(help="Its private key, a PEM file.", absent="none")] = ""
    ca_file: Annotated[
        str, Option(help="Authorities to trust, a PEM file.", absent="the system's")
    ] = ""


class Step(Section, frozen=True, kw_only=True):
    """One step of a button's plan: who rings, all at the same time, for how long."""

    ring: Annotated[
        tuple[str, ...],
        Option(
            help="Numbers at the account, names of peers, or SIP URIs.",
            least=1,
            most=16,
            check=_target,
        ),
    ]
    seconds: Annotated[
        float, Option(help="How long the step rings.", unit="s", low=5, high=180)
    ] = 30.0


class Button(Section, frozen=True, kw_only=True):
    """A call button."""

    pin: Pin = None
    pull: Pull = "up"
    debounce: Debounce = 0.03
    long_press: Annotated[
        float, Option(help="A press this long is recorded as held.", unit="s", low=0.5, high=60)
    ] = 3.0
    stuck_after: Annotated[
        float,
        Option(
            help="A button pressed this long is stuck: fault shown.", unit="s", low=5, high=3600
        ),
    ] = 30.0
    steps: Annotated[
        tuple[Step, ...], Option(help="Whom a press calls, step after step.", least=1, most=16)
    ]
    hang_up_after_open: Annotated[
        float | None,
        Option(
            help="The call ends this long after the door was opened.",
            unit="s",
            low=1,
            high=60,
            absent="never",
        ),
    ] = None
    short_codes: ShortCodes = False


class Relay(Section, frozen=True, kw_only=True):
    """A relay that opens a door."""

    pin: Pin = None
    active_high: ActiveHigh = True
    pulse: Annotated[float, Option(help="How long it opens.", unit="s", low=0.1, high=300)] = 3.0
    hold_limit: Annotated[
        float,
        Option(
            help="Never on for longer, whatever happens; also kept by the driver.",
            unit="s",
            low=0.1,
            high=300,
        ),
    ] = 10.0
    codes: Annotated[
        tuple[Secret, ...],
        Option(
            help="What a resident presses to open; `*` clears, `#` ends an entry.", check=_digits
        ),
    ] = ()


class Peer(Section, frozen=True, kw_only=True):
    """A phone or another door that is known by its address."""

    uri: Annotated[str, Option(help="`sip:user@host` or `sip:host`.", check=_sip_uri)]
    may_call: Annotated[bool, Option(help="It may call the door.")] = True
    auto_answer: Annotated[
        bool, Option(help="Its calls are answered at once; otherwise the door rings.")
    ] = False
    may_open: Annotated[bool, Option(help="Codes count in calls with it.")] = True
    password: Annotated[
        Secret, Option(help="Its calls must prove this password.", absent="the address decides")
    ] = Secret("")
    digest: Annotated[
        tuple[Literal["sha-256", "md5"], ...],
        Option(
            help="How it may prove its password, the preferred first. Some phones (baresip 1.0) "
            'give up unless it is `["md5"]`.',
            least=1,
        ),
    ] = ("sha-256", "md5")
    short_codes: ShortCodes = False
    inband_digits: InbandDigits = False
    srtp: PeerSrtp = None
    srtp_keys: PeerSrtpKeys = ()


class Led(Section, frozen=True, kw_only=True):
    """A lamp that shows what the door is doing."""

    pin: Pin = None
    active_high: ActiveHigh = True


class Contact(Section, frozen=True, kw_only=True):
    """A contact that tells whether a door is closed."""

    pin: Pin = None
    pull: Pull = "up"
    debounce: Debounce = 0.1
    closed_when: Annotated[
        Literal["low", "high"], Option(help="Level of the input while the door is closed.")
    ] = "low"
    left_open_after: Annotated[
        float,
        Option(
            help="Open for longer is recorded and shown; 0: never.", unit="s", low=0, high=86400
        ),
    ] = 120.0


class Reader(Section, frozen=True, kw_only=True):
    """A card reader or keypad on a serial port."""

    port: Annotated[str, Option(help="The serial port.")] = "/dev/serial0"
    baud: Annotated[int, Option(help="Its speed.", unit="bit/s", low=300, high=4_000_000)] = 9600
    protocol: Annotated[
        Literal["rdm6300", "keypad"],
        Option(help="`rdm6300`: card frames. `keypad`: lines of digits."),
    ] = "rdm6300"
    opens: Annotated[str, Option(help="The relay that it opens.")]
    accepts: Annotated[
        tuple[Secret, ...],
        Option(help="Cards (hexadecimal) or keypad codes that open.", check=_card_or_digits),
    ] = ()


class Audio(Section, frozen=True, kw_only=True):
    """Microphone, loudspeaker and sound on the network."""

    device: Annotated[str, Option(help="ALSA card, as `arecord -L` lists it.")] = "default"
    rate: Annotated[
        Literal[8000, 16000, 32000, 44100, 48000], Option(help="Rate of the card.", unit="Hz")
    ] = 48000
    codecs: Annotated[
        tuple[Literal["G722", "opus", "PCMA", "PCMU", "L16/16000", "L16/8000"], ...],
        Option(
            help="Offered, best first. Opus costs the most time and survives the most loss; L16 is "
            "uncompressed, and also taken unnamed from a phone that offers it.",
            least=1,
        ),
    ] = ("G722", "opus", "PCMA", "PCMU")
    answer_order: Annotated[
        Literal["offerer", "ours"], Option(help="Whose codec order counts when the door answers.")
    ] = "offerer"
    srtp: Annotated[
        Srtp | None,
        Option(
            help="Encryption of sound. `optional`: offered and taken, plain sound where the other "
            "side has none. `required`: no call without. `off`: never.",
            absent="`optional`, but `sdes` is offered over TLS only",
        ),
    ] = None
    srtp_keys: Annotated[
        SrtpKeys,
        Option(
            help="How keys are agreed on, best first. `sdes`: they stand in the SIP messages, for "
            "every server on the way to read. `dtls`: the two ends agree by themselves.",
            least=1,
        ),
    ] = ("sdes",)
    country: Annotated[Country, Option(help="Whose ring-back and busy tones are played.")] = "de"
    rtp_ports: Annotated[
        str, Option(help="UDP ports for sound, first-last.", check=_port_range)
    ] = "16384-16482"
    announcements: Annotated[
        str,
        Option(
            help="Folder of WAV files heard in place of tones and spoken prompts: `calling.wav`, "
            "`ringback.wav`, `busy.wav`, `nobody_answers.wav`, `no_connection.wav`, `error.wav`, "
            "`opened.wav`, `refused.wav`, `warning.wav`, `ring.wav`; and for the far end that has "
            "answered `who_rings.wav`, or for one button `who_rings_NAME.wav`.",
            absent="tones",
        ),
    ] = ""
    echo: Annotated[
        Literal["speex", "aec3", "cascade", "half_duplex", "off"],
        Option(
            help="How the loudspeaker's echo is kept out of the microphone. `speex`: both can talk "
            "at once. `aec3`, `cascade`: need the extra `aec3`. `half_duplex`: one at a time."
        ),
    ] = "speex"
    noise_suppression: Annotated[bool, Option(help="Steady noise is taken out of the voice.")] = (
        True
    )
    gain_control: Annotated[
        bool, Option(help="Quiet and loud visitors are brought towards one level.")
    ] = True
    half_duplex_threshold: Annotated[
        float,
        Option(
            help="The far end talks when it is louder than this.", unit="dBFS", low=-70, high=-10
        ),
    ] = -45.0
    half_duplex_hold: Annotated[
        float,
        Option(help="The microphone stays down this long after it.", unit="s", low=0.05, high=2),
    ] = 0.25
    half_duplex_attenuation: Annotated[
        float, Option(help="How far the microphone is turned down.", unit="dB", low=6, high=80)
    ] = 40.0
    speaker_volume: Annotated[
        int | None,
        Option(
            help="The card's own volume.",
            unit="percent",
            low=0,
            high=100,
            absent="as the card is set",
        ),
    ] = None
    microphone_volume: Annotated[
        int | None,
        Option(
            help="The card's own sensitivity.",
            unit="percent",
            low=0,
            high=100,
            absent="as the card is set",
        ),
    ] = None
    speaker_gain: Annotated[
        float,
        Option(help="Added to all that is played; it never clips.", unit="dB", low=-40, high=24),
    ] = 0.0
    microphone_gain: Annotated[
        float,
        Option(help="Added to all that is sent; it never clips.", unit="dB", low=-40, high=24),
    ] = 0.0
    street_gain: Annotated[
        float,
        Option(
            help="The most by which a noisy street makes the loudspeaker louder; 0: never.",
            unit="dB",
            low=0,
            high=18,
        ),
    ] = 0.0
    street_threshold: Annotated[
        float,
        Option(help="Noise at the microphone from which it does.", unit="dBFS", low=-80, high=-20),
    ] = -50.0
    microphone: Annotated[
        str, Option(help="WAV file heard as the fake board's microphone.", absent="silence")
    ] = ""


class Prompts(Section, frozen=True, kw_only=True):
    """Words in place of tones. Other words or another language: `audio.announcements`."""

    language: Annotated[
        Literal["off", "de", "en"], Option(help="What is spoken; `off`: tones only.")
    ] = "off"
    visitor: Annotated[
        tuple[
            Literal[
                "calling",
                "busy",
                "nobody_answers",
                "no_connection",
                "opened",
                "refused",
                "warning",
            ],
            ...,
        ],
        Option(help="Moments at which the visitor hears words; at the others the tone."),
    ] = ("calling", "busy", "nobody_answers", "no_connection", "opened")
    resident: Annotated[
        tuple[Literal["who_rings", "opened", "refused", "warning"], ...],
        Option(
            help="Moments of a call at which the far end hears words; `who_rings`: when it has "
            "answered."
        ),
    ] = ()


class Door(Section, frozen=True, kw_only=True):
    """Rules of the door."""

    wrong_codes: Annotated[
        int, Option(help="Wrong codes in a row that lock a caller's codes out.", low=1, high=20)
    ] = 3
    wrong_codes_in_all: Annotated[
        int,
        Option(
            help="Wrong codes of all callers together that lock everybody's codes out.",
            low=1,
            high=100,
        ),
    ] = 10
    lock_out: Annotated[
        float, Option(help="How long codes then count for nothing.", unit="s", low=1, high=86400)
    ] = 60.0
    digit_timeout: Annotated[
        float, Option(help="A pause this long ends an entry.", unit="s", low=0.5, high=30)
    ] = 3.0
    max_call: Annotated[
        float, Option(help="A call ends after this long.", unit="s", low=10, high=7200)
    ] = 120.0
    warning: Annotated[
        float, Option(help="A tone this long before; 0: none.", unit="s", low=0, high=60)
    ] = 10.0
    ring_in: Annotated[
        float,
        Option(help="How long an incoming call rings at the door.", unit="s", low=5, high=180),
    ] = 60.0


class Log(Section, frozen=True, kw_only=True):
    """The event log: one JSON line per event, no code or password in it."""

    events: Annotated[str, Option(help="The file.", absent="no event log")] = (
        "/var/log/doorstation/events.jsonl"
    )
    size: Annotated[
        int,
        Option(
            help="Size at which a new file begins.", unit="bytes", low=10_000, high=1_000_000_000
        ),
    ] = 1_000_000
    files: Annotated[int, Option(help="Files kept, the one in use too.", low=1, high=100)] = 5
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Option(help="What the diagnostic log holds; `debug` shows every message on the wire."),
    ] = "info"


class Control(Section, frozen=True, kw_only=True):
    """The socket of `doorstation ctl`."""

    socket: Annotated[str, Option(help="Owner-only Unix socket.", absent="none")] = (
        "/run/doorstation/control.sock"
    )


class Recording(Section, frozen=True, kw_only=True):
    """Calls recorded for diagnosis, when `doorstation ctl record` asks for one: never otherwise."""

    folder: Annotated[
        str,
        Option(
            help="Where they lie; each holds all that was said, and codes that were typed.",
            absent="nothing is ever recorded",
        ),
    ] = ""
    seconds: Annotated[
        float, Option(help="The longest that is recorded.", unit="s", low=5, high=600)
    ] = 120.0
    size: Annotated[
        int,
        Option(
            help="Size at which a recording ends.", unit="bytes", low=1_000_000, high=200_000_000
        ),
    ] = 32_000_000
    keep: Annotated[
        float, Option(help="It is deleted after this long.", unit="s", low=60, high=2_592_000)
    ] = 86_400.0


class Board(Section, frozen=True, kw_only=True):
    """The hardware."""

    kind: Annotated[
        Literal["pi", "fake"], Option(help="`fake`: no hardware, driven by `doorstation ctl`.")
    ] = "pi"
    profile: Annotated[
        Literal["", "pi-3", "pi-4", "pi-5", "pi-zero-2w"],
        Option(help="Board profile.", absent="found out by itself"),
    ] = ""


class Provisioning(Section, frozen=True, kw_only=True):
    """Configuration without a visit to the door."""

    state: Annotated[
        str,
        Option(
            help="Folder for changes, their history and the audit log; by the file alone.",
            absent="the folder that systemd gives (`STATE_DIRECTORY`), else nothing is kept",
        ),
    ] = ""
    url: Annotated[
        str, Option(help="Where a configuration file lies, typed by hand.", absent="discovered")
    ] = ""
    cards: Annotated[
        tuple[str, ...],
        Option(
            help="Folders where a card or stick lies that a door without an owner reads; the "
            "system mounts it.",
            most=4,
        ),
    ] = ("/boot/firmware",)
    discovery: Annotated[
        Literal["once", "always", "off"],
        Option(help="Whether the network is asked for a file: `once`: until there is an owner."),
    ] = "once"
    first_use: Annotated[
        bool,
        Option(help="The first key seen in the first half hour becomes the owner's."),
    ] = False
    fingerprint: Annotated[
        str, Option(help="Kid of the key that may become the owner's.", absent="none")
    ] = ""
    ca_file: Annotated[
        str, Option(help="Authorities to trust for files, a PEM file.", absent="the system's")
    ] = ""
    confirm_within: Annotated[
        float,
        Option(
            help="A change that is not confirmed by then goes back.", unit="s", low=5, high=3600
        ),
    ] = 120.0
    reset_button: Annotated[
        str,
        Option(
            help="A button that forgets all changes when it is held for 10 s while the door "
            "starts.",
            absent="none",
        ),
    ] = ""


class Key(Section, frozen=True, kw_only=True):
    """A key that orders and files are signed with."""

    public: Annotated[str, Option(help="The Ed25519 key, as `doorstation keys` writes it.")]
    role: Annotated[
        Literal["viewer", "admin", "owner", "opener"],
        Option(
            help="`viewer` looks; `admin` changes settings; `owner` also keys and commanders, and "
            "signs files; `opener` opens relays and changes nothing."
        ),
    ]
    opens: Annotated[tuple[str, ...], Option(help="Relays that an opener's key opens.")] = ()
    scope: Annotated[
        tuple[str, ...], Option(help="Sections or options that an admin's key is kept to.")
    ] = ()


class Commander(Section, frozen=True, kw_only=True):
    """Somebody who may send orders by SIP MESSAGE; the name is the user that he proves."""

    password: Annotated[Secret, Option(help="Password of the digest that the door asks for.")]
    types: Annotated[bool, Option(help="He may type lines of text, without a signature.")] = False
    digest: Annotated[
        tuple[Literal["sha-256", "md5"], ...],
        Option(
            help="How he may prove his password, the preferred first; `md5` for a phone that knows "
            "nothing else.",
            least=1,
        ),
    ] = ("sha-256",)


class Word(Section, frozen=True, kw_only=True):
    """A word that a commander may type, with a value behind it: `volume -6`."""

    sets: Annotated[str, Option(help="The option that it sets, by its key.")]


class Settings(Section, frozen=True, kw_only=True):
    """Every option of a door station."""

    account: Account | None = None
    sip: Sip = msgspec.field(default_factory=Sip)
    tls: Tls = msgspec.field(default_factory=Tls)
    buttons: Mapping[str, Button] = msgspec.field(default_factory=dict)
    relays: Mapping[str, Relay] = msgspec.field(default_factory=dict)
    peers: Mapping[str, Peer] = msgspec.field(default_factory=dict)
    leds: Mapping[str, Led] = msgspec.field(default_factory=dict)
    contacts: Mapping[str, Contact] = msgspec.field(default_factory=dict)
    readers: Mapping[str, Reader] = msgspec.field(default_factory=dict)
    audio: Audio = msgspec.field(default_factory=Audio)
    prompts: Prompts = msgspec.field(default_factory=Prompts)
    door: Door = msgspec.field(default_factory=Door)
    log: Log = msgspec.field(default_factory=Log)
    control: Control = msgspec.field(default_factory=Control)
    recording: Recording = msgspec.field(default_factory=Recording)
    board: Board = msgspec.field(default_factory=Board)
    provisioning: Provisioning = msgspec.field(default_factory=Provisioning)
    keys: Mapping[str, Key] = msgspec.field(default_factory=dict)
    commanders: Mapping[str, Commander] = msgspec.field(default_factory=dict)
    words: Mapping[str, Word] = msgspec.field(default_factory=dict)

    @property
    def domain(self) -> str:
        """The account's domain; "" without an account, or while nothing names one."""
        account = self.account
        if account is None:
            return ""
        servers = (account.registrar, account.outbound_proxy, *self.sip.servers)
        return account.domain or next((_bare_host(server) for server in servers if server), "")

    def target_uri(self, target: str) -> str:
        """The SIP URI that a step's `ring` entry means; `#` escaped (RFC 3261 §19.1.2).

        What is dialled stays as it is while the account has no domain.
        """
        if is_dial_string(target) and self.domain:
            host = f"[{self.domain}]" if ":" in self.domain else self.domain
            return f"sip:{target.replace('#', '%23')}@{host}"
        if target in self.peers:
            return self.peers[target].uri
        return target

    def target_fault(self, target: str) -> str:
        """ "" if `target` can be rung, else 'what is wrong; what would be valid'."""
        if fault := _target(target):
            return fault
        if is_dial_string(target) and self.account is None:
            return f'"{target}" needs an account; [account], a peer or sip:user@host'
        if is_name(target) and target not in self.peers:
            return f'"{target}" is not the name of a peer; {_nearest(target, list(self.peers))}'
        if ":" in target and _secure_address(target):
            return _TLS_NEEDS_NAME
        return ""

    def through_account(self, uri: str) -> bool:
        """Whether a call to `uri` needs the account: its host is the account's domain."""
        if self.account is None:
            return False
        return is_dial_string(uri) or _bare_host(split_uri(uri)[2]) == self.domain.lower()


# --- Loading ------------------------------------------------------------------------------------


def load(path: Path | str) -> Settings:
    """Read a settings file. Raises SettingsError with every problem."""
    return build(read(path))


def read(path: Path | str) -> dict[str, Any]:
    """A settings file as nested tables, unchecked. Raises SettingsError when it is no such file."""
    try:
        text = Path(path).read_bytes().decode()
    except OSError as error:
        raise SettingsError(
            [f"{path}: cannot be read: {error.strerror}; a file that can"]
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(
            [f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8"]
        ) from None
    return _tables(text)


def parse(text: str) -> Settings:
    """Read settings from TOML text. Raises SettingsError with every problem."""
    return build(_tables(text))


def _tables(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            [f"file: not TOML: {error}; key = value lines under [sections]"]
        ) from None


def build(raw: Mapping[str, Any]) -> Settings:
    """Make settings of nested tables, as TOML or JSON have them. Raises SettingsError."""
    loader = _Loader()
    settings = loader.section(Settings, raw, "")
    loader.cross_check(settings)
    if loader.problems:
        raise SettingsError(loader.problems)
    return settings


def without_unknown(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(what this version knows of nested tables, the keys that it does not).

    Any other fault stays in there, for `build` to tell.
    """
    unknown: list[str] = []
    return _known(Settings, raw, "", unknown), unknown


def _known(kind: Any, raw: Any, path: str, unknown: list[str]) -> Any:
    inner = get_args(kind)
    match raw:
        case Mapping() if _is_section(kind):
            fields = options(kind)
            unknown += [_dotted(path, key) for key in raw if key not in fields]
            return {
                key: _known(fields[key][1], value, _dotted(path, key), unknown)
                for key, value in raw.items()
                if key in fields
            }
        case Mapping() if get_origin(kind) is Mapping:
            return {
                name: _known(inner[1], value, _dotted(path, name), unknown)
                for name, value in raw.items()
            }
        case list() if get_origin(kind) is tuple:
            return [_known(inner[0], value, f"{path}[{n}]", unknown) for n, value in enumerate(raw)]
    return raw


def problems(text: str) -> list[str]:
    """Every problem of a settings text; none means that the door starts with it."""
    try:
        parse(text)
    except SettingsError as error:
        return error.problems
    return []


def remarks(settings: Settings) -> list[str]:
    """What is allowed, and perhaps not meant."""
    does = settings.buttons or settings.peers or settings.account
    learns = settings.keys or settings.provisioning.discovery != "off"
    if does or learns:
        return []
    return [
        "nothing to do, ever: no button, no peer, no account; no key, and the network is not asked "
        "for a file; a [buttons.NAME] with steps"
    ]


def same_parts(one: Settings, other: Settings) -> bool:
    """Whether a running door can go from one to the other between two calls.

    Otherwise it needs another connection, socket or pin. An option that is not named here does.
    """
    return _fixed(one) == _fixed(other)


_LIVE_AUDIO: Final = (
    "codecs", "answer_order", "srtp", "srtp_keys", "country", "announcements",
    "echo", "noise_suppression", "gain_control",
    "half_duplex_threshold", "half_duplex_hold", "half_duplex_attenuation",
    "speaker_volume", "microphone_volume", "speaker_gain", "microphone_gain",
    "street_gain", "street_threshold",
)  # fmt: skip


def _fixed(settings: Settings) -> Settings:
    """The settings without all that a running door takes over."""
    replace, usual = msgspec.structs.replace, Audio()
    return replace(
        settings,
        buttons={
            name: replace(button, steps=(), hang_up_after_open=None, short_codes=False)
            for name, button in settings.buttons.items()
        },
        relays={
            name: replace(relay, pulse=0.1, codes=()) for name, relay in settings.relays.items()
        },
        contacts={
            name: replace(contact, left_open_after=0.0)
            for name, contact in settings.contacts.items()
        },
        readers={
            name: replace(reader, opens="", accepts=()) for name, reader in settings.readers.items()
        },
        peers={},
        audio=replace(settings.audio, **{name: getattr(usual, name) for name in _LIVE_AUDIO}),
        prompts=Prompts(),
        door=Door(),
        log=replace(settings.log, level="info"),
        provisioning=Provisioning(),
        keys={},
        commanders={},
        words={},
    )


def holds_secret(key: str) -> bool:
    """Whether the value at a dotted key is a secret, or a list of them."""
    kind: Any = Settings
    for name in key.replace("[]", "").split("."):
        if get_origin(kind) is Mapping:
            kind = get_args(kind)[1]
            continue
        if get_origin(kind) is tuple:
            kind = get_args(kind)[0]
        fields = msgspec.structs.fields(kind) if _is_section(kind) else ()
        found = [field.type for field in fields if field.name == name]
        if not found:
            return False
        kind = _without_none(_unwrap(found[0])[0])
    return kind is Secret or Secret in get_args(kind)


def _bare_host(host_port: str) -> str:
    try:
        return parse_host_port(host_port)[0].lower()
    except ValueError:
        return host_port.lower()


def _dotted(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _unwrap(annotation: Any) -> tuple[Any, Option]:
    if get_origin(annotation) is Annotated:
        kind, option = get_args(annotation)
        return kind, option
    return annotation, Option(help="")


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        return next(a for a in get_args(kind) if a is not type(None))
    return kind


def _nearest(word: str, known: list[str]) -> str:
    import difflib  # for people's mistakes only: a door that starts needs none

    close = difflib.get_close_matches(word, known, 1, 0.6)
    return f'did you mean "{close[0]}"?' if close else f"known here: {', '.join(known) or 'none'}"


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


_S = TypeVar("_S", bound=Section)
_UNUSABLE: Final = object()
_TABLE_NEEDED: Final = "a table of its own, [section] or { key = value }"


@functools.cache
def options(cls: type[Section]) -> Mapping[str, tuple[msgspec.structs.FieldInfo, Any, Option]]:
    """Of each option of a section: its field, type and description; a file may have 1,000 peers."""
    found = {}
    for field in msgspec.structs.fields(cls):
        kind, option = _unwrap(field.type)
        found[field.name] = (field, _without_none(kind), option)
    return found


class _Loader:
    """Turns raw TOML into sections; collects problems and the paths that have one."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._bad: set[str] = set()
        self._not_tables: set[str] = set()

    def fault(self, path: str, text: str) -> None:
        """Note a problem, unless this very value has one already."""
        inside = any(path.startswith(f"{table}.") for table in self._not_tables)
        if path not in self._bad and not inside:
            self._bad.add(path)
            self.problems.append(f"{path}: {text}")

    def section(self, cls: type[_S], raw: object, path: str) -> _S:
        if not isinstance(raw, Mapping):
            self.fault(path, f"{_kind_name(raw)}; {_TABLE_NEEDED}")
            self._not_tables.add(path)
            raw = {}
        fields = options(cls)
        for key in raw:
            if key not in fields:
                self.fault(_dotted(path, key), f"unknown; {_nearest(key, list(fields))}")
        values: dict[str, Any] = {}
        for name, (field, kind, option) in fields.items():
            here = _dotted(path, name)
            if name in raw:
                value = self._value(kind, option, raw[name], here, empty=field.default == "")
                if value is not _UNUSABLE:
                    values[name] = value
            elif field.required:
                self.fault(here, f"missing; {_valid(kind, option)}")
            if field.required and name not in values:
                values[name] = () if get_origin(kind) is tuple else kind("")
        return cls(**values)

    def _value(
        self, kind: Any, option: Option, raw: object, path: str, *, empty: bool = False
    ) -> Any:
        if _is_section(kind):
            return self.section(kind, raw, path)
        origin = get_origin(kind)
        if origin is Mapping:
            return self._named(get_args(kind)[1], raw, path)
        if origin is tuple:
            return self._list(get_args(kind)[0], option, raw, path)
        if not (empty and raw == "") and (fault := _scalar_fault(kind, option, raw)):
            self.fault(path, fault)
            return _UNUSABLE
        if kind is Secret:
            return Secret(str(raw))
        return float(raw) if kind is float and isinstance(raw, int) else raw

    def _named(self, cls: type[Section], raw: object, path: str) -> Any:
        if not isinstance(raw, Mapping):
            self.fault(path, f"{_kind_name(raw)}; tables, written [{path}.NAME]")
            return _UNUSABLE
        found = {}
        for name, value in raw.items():
            here = _dotted(path, name)
            if not is_name(name):
                self.fault(
                    here,
                    "not a name; at most 32 small letters, digits, _ and -, a letter first",
                )
            found[name] = self.section(cls, value, here)
        return found

    def _list(self, kind: Any, option: Option, raw: object, path: str) -> Any:
        if not isinstance(raw, list):
            self.fault(path, f"{_kind_name(raw)}; a list in square brackets")
            return _UNUSABLE
        if not option.least <= len(raw) <= option.most:
            self.fault(path, f"{len(raw)} entries; {option.least} to {option.most} of them")
        blank = kind("") if kind in (str, Secret) else _UNUSABLE  # keeps the places in the list
        values = [self._value(kind, option, v, f"{path}[{i}]") for i, v in enumerate(raw)]
        values = [blank if value is _UNUSABLE else value for value in values]
        return tuple(value for value in values if value is not _UNUSABLE)

    def cross_check(self, settings: Settings) -> None:
        """Everything that takes more than one value to see."""
        for path, text in _contradictions(settings):
            self.fault(path, text)


def _kind_name(raw: object) -> str:
    """What was written, without its value: it may be a secret."""
    match raw:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def _scalar_fault(kind: Any, option: Option, raw: object) -> str:
    """ "" or 'what is wrong; what would be valid'. A secret's value is never in it."""
    valid = _valid(kind, option)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if any(raw == choice and type(raw) is type(choice) for choice in choices):
            return ""
        return f"{raw!r} is none of the choices; {valid}"
    if kind in (Secret, str):
        if not isinstance(raw, str):
            return f"{_kind_name(raw)}; a text in quotes"
        if len(raw) > MAX_TEXT:
            return f"{len(raw)} characters; at most {MAX_TEXT}"
        if any(c < " " or c == "\x7f" for c in raw):
            # A line end here would become a header of its own in a SIP message.
            return "a control character; printable text on one line"
        return option.check(raw) if option.check else ""
    if kind is bool:
        return "" if isinstance(raw, bool) else f"{_kind_name(raw)}; {valid}"
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return f"{_kind_name(raw)}; {valid}"
    if kind is int and not isinstance(raw, int):
        return f"{raw} is not a whole number; {valid}"
    if not option.low <= raw <= option.high:
        return f"{raw} is out of range; {valid}"
    return ""


def _valid(kind: Any, option: Option) -> str:
    """What an option takes, in words."""
    origin = get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(_toml(choice) for choice in get_args(kind))
    if origin is tuple:
        inner = get_args(kind)[0]
        return "a list of tables" if _is_section(inner) else f"a list: {_valid(inner, option)}"
    if kind is bool:
        return "true or false"
    if kind is int or kind is float:
        unit = f" {option.unit}" if option.unit else ""
        return f"{option.low:.10g} to {option.high:.10g}{unit}"
    return "a text in quotes"


def _toml(value: object) -> str:
    """A default value as it is written in the file."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"'
        case float():
            return f"{value:.10g}"
        case tuple():
            return f"[{', '.join(_toml(v) for v in value)}]"
        case _:
            return str(value)


# --- Checks of several values together ----------------------------------------------------------


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    yield from _pin_faults(settings)
    yield from _code_faults(settings)
    yield from _tls_faults(settings)
    yield from _command_faults(settings)
    for name, button in settings.buttons.items():
        for i, step in enumerate(button.steps):
            for j, target in enumerate(step.ring):
                if fault := settings.target_fault(target):
                    yield f"buttons.{name}.steps[{i}].ring[{j}]", fault
    for name, reader in settings.readers.items():
        if reader.opens not in settings.relays:
            known = _nearest(reader.opens, list(settings.relays))
            yield f"readers.{name}.opens", f'no relay "{reader.opens}"; {known}'
    for name, peer in settings.peers.items():
        host = _bare_host(split_uri(peer.uri)[2])
        if peer.may_call and not peer.password and host and not is_address(host):
            yield (
                f"peers.{name}.uri",
                f"{host!r} does not prove who calls; an IP address, a password, "
                "or may_call = false",
            )
    for name, relay in settings.relays.items():
        if relay.pulse > relay.hold_limit:
            yield (
                f"relays.{name}.pulse",
                f"{relay.pulse:g} s is more than hold_limit; at most {relay.hold_limit:g} s",
            )
    if 0 < settings.sip.session_timer < 90:
        yield "sip.session_timer", f"{settings.sip.session_timer:g} s; 0 or 90 to 86400 s"
    if settings.door.warning >= settings.door.max_call:
        yield "door.warning", f"not before the call's end; less than {settings.door.max_call:g} s"
    reset = settings.provisioning.reset_button
    if reset and reset not in settings.buttons:
        known = _nearest(reset, list(settings.buttons))
        yield "provisioning.reset_button", f'no button "{reset}"; {known}'


def _pin_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    taken: dict[int, str] = {}
    parts: tuple[tuple[str, Mapping[str, Button | Relay | Led | Contact]], ...] = (
        ("buttons", settings.buttons),
        ("relays", settings.relays),
        ("leds", settings.leds),
        ("contacts", settings.contacts),
    )
    for section, entries in parts:
        for name, part in entries.items():
            path = f"{section}.{name}.pin"
            if part.pin is None:
                if settings.board.kind == "pi":
                    yield path, "missing; a GPIO number from 0 to 27"
            elif part.pin in taken:
                yield path, f"{part.pin} is used by {taken[part.pin]} already; a pin for each part"
            else:
                taken[part.pin] = path


def _code_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    short = (
        any(button.short_codes for button in settings.buttons.values())
        or any(peer.short_codes for peer in settings.peers.values())
        or (settings.account is not None and settings.account.short_codes)
    )
    seen: dict[str, tuple[str, str]] = {}
    for name, relay in settings.relays.items():
        for i, code in enumerate(relay.codes):
            path = f"relays.{name}.codes[{i}]"
            if not code:
                yield path, f"empty; {MIN_CODE_DIGITS} to {MAX_CODE_DIGITS} digits"
                continue
            if len(code) < MIN_CODE_DIGITS and not short:
                yield (
                    path,
                    f"only {len(code)} digits; at least {MIN_CODE_DIGITS}, or short_codes = true "
                    "at the button or peer whose calls may use it",
                )
            other = seen.setdefault(code.reveal(), (name, path))
            if other[0] != name:
                yield path, f"the same code as {other[1]}; a code that opens one relay only"
            elif other[1] != path:
                yield path, f"the same code as {other[1]}; each code once"
    for name, reader in settings.readers.items():
        for i, code in enumerate(reader.accepts):
            path = f"readers.{name}.accepts[{i}]"
            if not code:
                yield path, "empty; a card or a code"
            elif reader.protocol == "keypad" and (fault := _digits(code.reveal())):
                yield path, fault


def _tls_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    account = settings.account
    if account is not None and account.transport == "tls" and is_address(settings.domain):
        yield "account.domain", _TLS_NEEDS_NAME
    for name, peer in settings.peers.items():
        if _secure_address(peer.uri):
            yield f"peers.{name}.uri", _TLS_NEEDS_NAME
    if "tls" in settings.sip.transports:
        if not settings.tls.certificate:
            yield "tls.certificate", 'missing; a PEM file, because sip.transports holds "tls"'
        if not settings.tls.key:
            yield "tls.key", 'missing; a PEM file, because sip.transports holds "tls"'


OWNERS_ONLY: Final = ("keys", "commanders", "words", "provisioning")
"""Sections that say who may do what: only an owner's key changes them."""

_KEY_LENGTH: Final = 43  # 32 bytes in base64url without padding
MIN_COMMANDER_PASSWORD: Final = 12
"""Characters: a captured digest can be guessed at as fast as a machine hashes."""


def _command_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, key in settings.keys.items():
        plain = key.public.replace("-", "a").replace("_", "a")
        if len(plain) != _KEY_LENGTH or not (plain.isascii() and plain.isalnum()):
            yield f"keys.{name}.public", "not an Ed25519 key; what `doorstation keys new` printed"
        for i, relay in enumerate(key.opens):
            if relay not in settings.relays:
                known = _nearest(relay, list(settings.relays))
                yield f"keys.{name}.opens[{i}]", f'no relay "{relay}"; {known}'
        if key.opens and key.role != "opener":
            yield f"keys.{name}.opens", f'a key of role {key.role} opens nothing; role = "opener"'
        for i, scope in enumerate(key.scope):
            if fault := _key_fault(scope):
                yield f"keys.{name}.scope[{i}]", fault
    for name, commander in settings.commanders.items():
        if len(commander.password) < MIN_COMMANDER_PASSWORD:
            yield (
                f"commanders.{name}.password",
                f"{len(commander.password)} characters; at least {MIN_COMMANDER_PASSWORD}",
            )
    for name, word in settings.words.items():
        if name in RESERVED_WORDS:
            yield f"words.{name}", "a word of the door's own; another one"
        elif fault := _key_fault(word.sets):
            yield f"words.{name}.sets", fault
        elif holds_secret(word.sets) or word.sets.partition(".")[0] in OWNERS_ONLY:
            yield f"words.{name}.sets", "not by a typed word; a signed order"


RESERVED_WORDS: Final = ("status", "undo", "help")


def _key_fault(key: str) -> str:
    """ "" if there is such an option or section, else what would be valid."""
    kind: Any = Settings
    for place, name in enumerate(key.split(".")):
        if get_origin(kind) is Mapping:
            kind = get_args(kind)[1]
            continue
        fields = msgspec.structs.fields(kind) if _is_section(kind) else ()
        known = {field.name: field.type for field in fields}
        if name not in known:
            above = ".".join(key.split(".")[:place])
            return f"no option {name!r} in {above or 'the settings'}; {_nearest(name, list(known))}"
        kind = _without_none(_unwrap(known[name])[0])
    return ""


def _secure_address(uri: str) -> bool:
    scheme, _, host, params = split_uri(uri)
    secure = scheme == "sips" or "transport=tls" in [param.lower() for param in params]
    return secure and is_address(_bare_host(host))


# --- Documentation ------------------------------------------------------------------------------

_INTRODUCTION: Final = """\
# Settings

One TOML file. `doorstation check FILE` reports every problem of it together; `doorstation run`
refuses to start on the same problems. An unknown key is a mistake. Secrets are never shown again:
they print as `***`.

The smallest file for a door that rings group `**9` of a telephone system and opens with 4711:

```toml
[account]
user = "door"
domain = "fritz.box"
password = "..."

[buttons.call]
pin = 17
steps = [{ ring = ["**9"] }]

[relays.door]
pin = 27
codes = ["4711"]
```

A `ring` entry is a number (digits, `*`, `#`, `+`: that user at the account's domain), the name of
a [peers] entry, or a SIP URI. A name in a heading is yours to choose: small letters, digits, `_`
and `-`. This page is made from the settings tree by `doorstation.settings.describe()`.
"""


def describe() -> str:
    """`docs/settings.md`: every option with what it takes, its default and what it is for."""
    return "\n".join([_INTRODUCTION, *_describe_tables(Settings, "")]).rstrip() + "\n"


def _describe_tables(cls: type[Section], path: str) -> Iterator[str]:
    for field in msgspec.structs.fields(cls):
        kind = _without_none(_unwrap(field.type)[0])
        here = _dotted(path, field.name)
        if get_origin(kind) is Mapping:
            yield from _describe_section(get_args(kind)[1], f"[{here}.NAME]")
        elif get_origin(kind) is tuple and _is_section(get_args(kind)[0]):
            yield from _describe_section(get_args(kind)[0], f"Each entry of {here}")
        elif _is_section(kind):
            yield from _describe_section(kind, f"[{here}]")


def _describe_section(cls: type[Section], heading: str) -> Iterator[str]:
    yield f"## {heading}\n"
    yield f"{cls.__doc__}\n"
    yield "| option | takes | default | |"
    yield "|---|---|---|---|"
    for field in msgspec.structs.fields(cls):
        kind, option = _unwrap(field.type)
        kind = _without_none(kind)
        takes = _valid(kind, option).replace("a text in quotes", "text")
        secret = Secret in (kind, *get_args(kind))
        takes = takes.replace("text", "secret text") if secret else takes
        yield f"| `{field.name}` | {takes} | {_default(field, option)} | {option.help} |"
    yield ""
    yield from _describe_tables(cls, heading.strip("[]"))


def _default(field: msgspec.structs.FieldInfo, option: Option) -> str:
    if field.required:
        return "must be set"
    if option.absent and not field.default:
        return option.absent
    return "none" if isinstance(field.default, Secret) else f"`{_toml(field.default)}`"
