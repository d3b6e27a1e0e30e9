"""What a running door takes over between two calls; anything else needs a door built anew."""

from typing import Final

import msgspec

from doorstation.settings.tree import Audio, Door, Prompts, Provisioning, Settings


def same_parts(one: Settings, other: Settings) -> bool:
    """Whether a running door can go from one to the other between two calls.

    Otherwise it needs another connection, socket or pin. An option that is not named here does.
    """
    return _fixed(one) == _fixed(other)


def registers_alike(one: Settings, other: Settings) -> bool:
    """Whether both register by the same account in the same way: what the registrar said to one it
    says to the other."""
    return (one.account, one.sip, one.tls) == (other.account, other.sip, other.tls)


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
