"""The door's sound: what the visitor hears, and the one call that has microphone and speaker."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeAlias

from doorstation.door.events import Field, Play
from doorstation.errors import DoorstationError, TransportError
from doorstation.media import echo, path, tones, wav
from doorstation.media.digits import STRAY, Digit, DigitMerger
from doorstation.media.levels import MicrophoneLevels, SpeakerLevels
from doorstation.media.session import CallStatistics
from doorstation.media.srtp import Keys
from doorstation.net.media.thread import MediaSession, MediaThread
from doorstation.sdp.negotiation import AudioSession
from doorstation.settings.tree import Audio, Prompts
from doorstation.sip.transport import Transport

log = logging.getLogger(__name__)

PROMPTS: Final = Path(__file__).parent / "prompts"
"""Made by deploy/make-prompts.sh: LANGUAGE/MOMENT.wav."""

WHO_RINGS: Final = "who_rings"
"""The moment at which the far end has answered: words or nothing, never a tone."""

Record: TypeAlias = Callable[[str, Mapping[str, Field]], None]


class Sound:
    """Which call is heard, through which ports, with which codec. On the loop only.

    A session's ports are opened when a call is placed or answered, and closed with the last use.
    """

    def __init__(
        self, media: MediaThread, listen: Sequence[str], audio: Audio, prompts: Prompts,
        record: Record,
    ) -> None:  # fmt: skip
        """`listen`: local addresses of SIP."""
        self._media = media
        self._listen = frozenset(map(ip_address, listen))
        self._record = record
        self._visitor_hears, self._far_end_hears = read_sounds(audio, prompts)
        self._sessions = 0
        self._calls: dict[str, str] = {}  # of each session, until it has ended
        self._digits = DigitMerger()
        self.session: MediaSession | None = None
        self.talking = ""
        """The call that was answered and has the sound, or ""."""
        self.early = ""
        """The call that is heard before it is answered, or ""."""
        self.progressing = ""
        """The caller who hears the door before it answers, or ""."""
        self.codecs: dict[str, str] = {}
        self.encryption: dict[str, dict[str, Field]] = {}
        """What protects each call's sound: suite, how the keys came, whether others could read
        them; a call without an entry is plain."""
        self._told_of_readable_keys = False
        self.muted: set[str] = set()
        """Of the call that talks."""
        self._words: tones.Sound | None = None
        """For the far end that has answered, as soon as there is a way to it."""

    def take(self, audio: Audio, prompts: Prompts) -> None:
        """Other tones, announcements and words, from the next one on."""
        self._visitor_hears, self._far_end_hears = read_sounds(audio, prompts)

    def play(self, wish: Play) -> None:
        """Play to the visitor and, if the door wants so, to the far end."""
        heard = self._visitor_hears
        then = heard[wish.then] if wish.then else None
        self._media.play(heard[wish.sound], wish.loop, then)
        if wish.far_end and self.session is not None:
            self.session.play(self._far_end_hears[wish.sound])

    def tell_who_rings(self, button: str) -> None:
        """Say it to the far end, if the settings want so or the owner has words for it."""
        heard = self._far_end_hears
        self._words = heard.get(f"{WHO_RINGS}_{button}") or heard.get(WHO_RINGS)

    def stop(self) -> None:
        """End what is played to the visitor."""
        self._media.stop_sound()

    def open(self) -> MediaSession:
        """The session of the next or current call. Raises TransportError without free ports."""
        if self.session is None:
            self._sessions += 1
            self.session = self._media.start_session("::", f"session-{self._sessions}")
            self.early = ""
        return self.session

    def close_if_unused(self) -> None:
        """Free the ports unless a call is talking."""
        if not self.talking:
            self.close()

    def close(self) -> None:
        """End the session, if there is one."""
        if self.session is not None:
            self.session.stop()
            self.session = None
            self.early = ""

    def start_talking(self, call: str) -> None:
        """This call was answered and has the sound from now on."""
        self.talking = call
        self._words = None
        # A key pressed while it rang, perhaps on another phone, repeats none in the call.
        self._digits = DigitMerger()

    def mute(self, part: str, *, on: bool) -> None:
        """Silence the "microphone" or the "speaker" of the call that talks until it ends."""
        if self.session is None or on == (part in self.muted):
            return
        self.muted ^= {part}
        self.session.mute(part, on=on)
        self._record("mute", {"call": self.talking, "part": part, "on": on})

    def is_new(self, call: str, digit: Digit, held: float) -> bool:
        """Whether this is a key's first report: RTP and INFO may tell of the same."""
        if call != self.talking or digit.source == STRAY:
            # A stray one is no key of the far end's: waiting for its repetition would swallow one.
            return True
        return self._digits.heard(digit, held) is not None

    def is_current(self, session: str) -> bool:
        """Whether this is not one that has ended since: the media thread may still tell of it."""
        return self.session is not None and session == self.session.name

    def agreed(
        self, call: str, session: AudioSession, *, early: bool, inband: bool = False
    ) -> None:
        """Both sides agreed on sound; it is heard if the call has it or nobody else rings early."""
        if early and not self.talking and self.early in ("", call):
            self.early = call
        elif call != self.talking:
            return
        self.codecs[call] = session.codec.name
        if isinstance(session.protection, Keys):
            readable = session.signalled_over != Transport.TLS
            self._protected(call, session.protection.suite, "sdes", readable=readable)
            if readable and not self._told_of_readable_keys:
                self._told_of_readable_keys = True
                log.warning(
                    "keys of encrypted sound travel readable in SIP over %s, for whoever reads it; "
                    'use TLS to the telephone system, or srtp_keys = ["dtls"]',
                    session.signalled_over,
                )
        elif session.protection is None and self.encryption.pop(call, None) is not None:
            self._record("encryption", {"call": call, "suite": None})
        try:
            own = self.open()
            own.configure(session, inband=inband, source=self._source(session))
            self._calls[own.name] = call
            if call == self.talking and self._words is not None:
                # The visitor is heard, too: he says who he is.
                own.play(self._words, mix=True)
                self._words = None
        except (ValueError, TransportError) as error:
            log.warning("the call has no sound: %s", error)

    def _source(self, session: AudioSession) -> str:
        """Where sound leaves from: the SDP's address if SIP listens there, or any ("").

        On a machine with several the kernel might choose another, and a far end takes DTLS from
        the address of the SDP only. A connection that we opened may have yet another there.
        """
        return session.local if ip_address(session.local) in self._listen else ""

    def keys_ready(self, session: str, suite: str) -> None:
        """The two ends agreed on keys by themselves."""
        call = self._calls.get(session)
        if call:
            self._protected(call, suite, "dtls", readable=False)

    def _protected(self, call: str, suite: str, keys: str, *, readable: bool) -> None:
        """Show it, and record it where it is new."""
        shown: dict[str, Field] = {"suite": suite, "keys": keys, "keys_readable": readable}
        if self.encryption.get(call) != shown:
            self.encryption[call] = shown
            self._record("encryption", {"call": call, **shown})

    def gave_up(self, call: str) -> bool:
        """A call has no sound any more before it was answered; whether it was the one heard."""
        if call != self.talking:
            # Of the end of a phone that only rang nothing else is told here.
            self.codecs.pop(call, None)
            self.encryption.pop(call, None)
        if call != self.early:
            return False
        # Another phone that rings may be heard instead.
        self.early = ""
        return True

    def call_ended(self, call: str) -> None:
        """Close what this call used; any other, a caller refused meanwhile, leaves it alone."""
        self.codecs.pop(call, None)
        self.encryption.pop(call, None)
        if call in (self.talking, self.progressing):
            self.talking = self.progressing = ""
            self.muted.clear()
            self.close_if_unused()

    def call_of(self, session: str) -> str:
        """The call that a session, ended now, was for; "" if nothing was agreed in it."""
        return self._calls.pop(session, "")

    def statistics(self, call: str) -> CallStatistics | None:
        """Of the call that talks; None for any other."""
        if call != self.talking or self.session is None:
            return None
        return self.session.statistics()


Sounds: TypeAlias = Mapping[str, tones.Sound]


def path_options(audio: Audio) -> path.Options:
    """What the settings say of echo, noise and levels."""
    return path.Options(
        echo.Options(
            audio.echo,
            audio.noise_suppression,
            echo.HalfDuplex(
                audio.half_duplex_threshold, audio.half_duplex_hold, audio.half_duplex_attenuation
            ),
        ),
        MicrophoneLevels(audio.microphone_gain, audio.gain_control),
        SpeakerLevels(audio.speaker_gain, audio.street_gain, audio.street_threshold),
    )


def sound_path(audio: Audio) -> Callable[[], path.SoundPath] | None:
    """What makes the path that the settings ask for; None: the sound goes straight."""
    options = path_options(audio)
    return None if options.idle else lambda: path.SoundPath(options)


def read_sounds(audio: Audio, prompts: Prompts) -> tuple[Sounds, Sounds]:
    """What the visitor and what the far end hears at each moment: the owner's announcement, else
    the words in the language of the settings, else the country's tone.

    Read once, at the start: no press waits for a disk, and what is wrong is said at once.
    """
    own = _announcements(audio.announcements) if audio.announcements else {}
    spoken: dict[str, tones.Sound] = {}
    if prompts.language != "off":
        for name in {*prompts.visitor, *prompts.resident} - own.keys():
            spoken[name] = wav.parse_wav((PROMPTS / prompts.language / f"{name}.wav").read_bytes())
    usual = {name: tones.named(name, audio.country) for name in tones.NAMES} | own

    def heard(moments: Collection[str]) -> Sounds:
        return usual | {name: sound for name, sound in spoken.items() if name in moments}

    return heard(prompts.visitor), heard(prompts.resident)


def _announcements(path: str) -> dict[str, tones.Sound]:
    """The WAV files of the owner's folder that can be played, by their moments."""
    folder = Path(path)
    found: dict[str, tones.Sound] = {}
    who = sorted(file.stem for file in folder.glob(f"{WHO_RINGS}_*.wav"))
    for name in (*tones.NAMES, WHO_RINGS, *who):
        try:
            found[name] = wav.parse_wav((folder / f"{name}.wav").read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, DoorstationError) as error:
            log.warning("announcement %s/%s.wav: %s; it is not played", folder, name, error)
    if not found:
        names = ", ".join(f"{name}.wav" for name in (*tones.NAMES, WHO_RINGS))
        log.warning("announcements: nothing to play in %s; it may hold %s", folder, names)
    return found
