"""Every option once: type, default, unit, range, help, and whether it is secret.

The sections below are the only place that knows an option. Loading, `doorstation check`,
`docs/settings.md` and `docs/settings.schema.json` all read them.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from doorstation.settings.option import Option, Secret, Section, nearest
from doorstation.settings.text import (
    TLS_NEEDS_NAME,
    address_fault,
    bare_host,
    card_fault,
    certificate_fault,
    code_fault,
    host_fault,
    host_port_fault,
    is_dial_string,
    is_name,
    port_range_fault,
    secure_address,
    sip_uri_fault,
    split_uri,
    target_fault,
    url_fault,
    user_fault,
)

Country = Literal[
    "at", "be", "ch", "cz", "de", "dk", "es", "fi", "fr", "hu",
    "ie", "it", "lu", "nl", "no", "pl", "pt", "se", "uk", "us",
]  # fmt: skip


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

    user: Annotated[str, Option(help="User part of the account, its number.", check=user_fault)]
    domain: Annotated[
        str,
        Option(
            help="Domain of the account, the part after the @.",
            check=host_fault,
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
        Option(
            help="Where to register: host or host:port.", check=host_port_fault, absent="`domain`"
        ),
    ] = ""
    backup_registrar: Annotated[
        str,
        Option(
            help="Used while the registrar does not answer.", check=host_port_fault, absent="none"
        ),
    ] = ""
    outbound_proxy: Annotated[
        str, Option(help="Every request goes there first.", check=host_port_fault, absent="none")
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
        str, Option(help="The door's user part in calls without an account.", check=user_fault)
    ] = "door"
    display_name: Annotated[str, Option(help="Name the called phone shows.")] = "Door"
    port: Annotated[
        int, Option(help="UDP and TCP port listened on; 0: any free one.", low=0, high=65535)
    ] = 5060
    listen: Annotated[
        tuple[str, ...],
        Option(help="Local addresses to listen on.", least=1, check=address_fault),
    ] = ("0.0.0.0", "::")  # noqa: S104 - a door is called from its network
    transports: Annotated[
        tuple[Literal["udp", "tcp", "tls"], ...],
        Option(help="Transports listened on. `tls` needs `tls.certificate`.", least=1),
    ] = ("udp", "tcp")
    contact_host: Annotated[
        str,
        Option(
            help="Host to put into Contact, when others must reach the door under a name.",
            check=host_fault,
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
            check=host_port_fault,
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
    own_certificate: Annotated[
        str,
        Option(
            help="A certificate over the door's own key, as its owner's authority signed it, and "
            "the chain after it: the PEM text itself. `certificate` goes before it.",
            document=True,
            check=certificate_fault,
            absent="the door signs its own",
        ),
    ] = ""
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
            check=target_fault,
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
            help="What a resident presses to open; `*` clears, `#` ends an entry.", check=code_fault
        ),
    ] = ()


class Peer(Section, frozen=True, kw_only=True):
    """A phone or another door that is known by its address."""

    uri: Annotated[str, Option(help="`sip:user@host` or `sip:host`.", check=sip_uri_fault)]
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

    port: Annotated[str, Option(help="The serial port.", absent="that of the board's header")] = ""
    baud: Annotated[int, Option(help="Its speed.", unit="bit/s", low=300, high=4_000_000)] = 9600
    protocol: Annotated[
        Literal["rdm6300", "keypad"],
        Option(help="`rdm6300`: card frames. `keypad`: lines of digits."),
    ] = "rdm6300"
    opens: Annotated[str, Option(help="The relay that it opens.")]
    accepts: Annotated[
        tuple[Secret, ...],
        Option(help="Cards (hexadecimal) or keypad codes that open.", check=card_fault),
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
        str, Option(help="UDP ports for sound, first-last.", check=port_range_fault)
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
        str,
        Option(
            help="WAV file heard as the fake board's microphone: mono, 16 bits, of this `rate`.",
            absent="silence",
        ),
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
    """The event log: one JSON line per event, a flood cut short; no code or password in it."""

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
        str,
        Option(
            help="Where a configuration file lies, typed by hand.",
            check=url_fault,
            absent="discovered",
        ),
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
    claim_port: Annotated[
        int,
        Option(
            help="HTTPS port of a page that takes an owner's key from who types the claim code, "
            "while the door has no owner; 0: no page.",
            low=0,
            high=65535,
        ),
    ] = 0
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

    password: Annotated[
        Secret,
        Option(help="Password of the digest that the door asks for; at least 12 characters."),
    ]
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
        return account.domain or next((bare_host(server) for server in servers if server), "")

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
        if fault := target_fault(target):
            return fault
        if is_dial_string(target) and self.account is None:
            return f'"{target}" needs an account; [account], a peer or sip:user@host'
        if is_name(target) and target not in self.peers:
            return f'"{target}" is not the name of a peer; {nearest(target, list(self.peers))}'
        if ":" in target and secure_address(target):
            return TLS_NEEDS_NAME
        return ""

    def through_account(self, uri: str) -> bool:
        """Whether a call to `uri` needs the account: its host is the account's domain."""
        if self.account is None:
            return False
        return is_dial_string(uri) or bare_host(split_uri(uri)[2]) == self.domain.lower()
