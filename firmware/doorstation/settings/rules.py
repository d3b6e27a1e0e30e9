"""What takes more than one value to see: pins used twice, codes too short, orders for nobody."""

from collections.abc import Iterator, Mapping
from typing import Final

from doorstation.settings.keys import OWNERS_ONLY, holds_secret, key_fault
from doorstation.settings.option import nearest
from doorstation.settings.text import (
    MAX_CODE_DIGITS,
    MIN_CODE_DIGITS,
    TLS_NEEDS_NAME,
    bare_host,
    bound_twice,
    code_fault,
    is_address,
    secure_address,
    split_uri,
)
from doorstation.settings.tree import Button, Contact, Led, Relay, Settings


def contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    yield from _pin_faults(settings)
    yield from _listening_faults(settings)
    yield from _code_faults(settings)
    yield from _tls_faults(settings)
    yield from _command_faults(settings)
    yield from _echo_faults(settings.audio.echo)
    for name, button in settings.buttons.items():
        for i, step in enumerate(button.steps):
            for j, target in enumerate(step.ring):
                if fault := settings.target_fault(target):
                    yield f"buttons.{name}.steps[{i}].ring[{j}]", fault
    ports: dict[str, str] = {}
    for name, reader in settings.readers.items():
        if reader.opens not in settings.relays:
            known = nearest(reader.opens, list(settings.relays))
            yield f"readers.{name}.opens", f'no relay "{reader.opens}"; {known}'
        holder = ports.setdefault(reader.port, name)
        if holder != name and settings.board.kind == "pi":
            port = f'"{reader.port}"' if reader.port else "the board's own"
            yield (
                f"readers.{name}.port",
                f"{port} is used by readers.{holder} already; a port for each reader",
            )
    for name, peer in settings.peers.items():
        host = bare_host(split_uri(peer.uri)[2])
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
        known = nearest(reset, list(settings.buttons))
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


def _listening_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    sip = settings.sip
    for i, transport in enumerate(sip.transports):
        if transport in sip.transports[:i]:
            yield f"sip.transports[{i}]", f'"{transport}" is there already; each once'
    for i, other in bound_twice(sip.listen):
        yield f"sip.listen[{i}]", f"{sip.listen[i]!r} is listened on by {other!r}; one of them"
    if {"tcp", "tls"} <= set(sip.transports) and settings.tls.port == sip.port != 0:
        yield "tls.port", f"{sip.port} is the port of TCP, sip.port; another one"


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
            elif reader.protocol == "keypad" and (fault := code_fault(code.reveal())):
                yield path, fault


def _tls_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    account = settings.account
    if account is not None and account.transport == "tls" and is_address(settings.domain):
        yield "account.domain", TLS_NEEDS_NAME
    for name, peer in settings.peers.items():
        if secure_address(peer.uri):
            yield f"peers.{name}.uri", TLS_NEEDS_NAME
    if "tls" in settings.sip.transports and not settings.tls.own_certificate:
        if not settings.tls.certificate:
            yield "tls.certificate", 'missing; a PEM file, because sip.transports holds "tls"'
        if not settings.tls.key:
            yield "tls.key", 'missing; a PEM file, because sip.transports holds "tls"'


def _echo_faults(mode: str) -> Iterator[tuple[str, str]]:
    if mode not in ("aec3", "cascade"):
        return
    from importlib.util import find_spec  # most doors need none; it only looks, numpy takes 20 MB

    for module in ("pywebrtc_audio", "numpy"):
        if find_spec(module) is None:
            yield (
                "audio.echo",
                f'"{mode}" needs the module {module}; install doorstation[aec3], which there is '
                'for x86-64 and 64-bit ARM, or "speex"',
            )


_KEY_LENGTH: Final = 43  # 32 bytes in base64url without padding
_KEY_ENDS: Final = frozenset("AEIMQUYcgkosw048")
"""The last sign holds four bits only; whoever reads a key takes no other."""


MIN_COMMANDER_PASSWORD: Final = 12
"""Characters: a captured digest can be guessed at as fast as a machine hashes."""


def _command_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    holders: dict[str, str] = {}
    for name, key in settings.keys.items():
        if (other := holders.setdefault(key.public, name)) != name:
            yield f"keys.{name}.public", f"the same key as keys.{other}; each key once"
        plain = key.public.replace("-", "a").replace("_", "a")
        right = len(plain) == _KEY_LENGTH and plain.isascii() and plain.isalnum()
        if not right or key.public[-1] not in _KEY_ENDS:
            yield f"keys.{name}.public", "not an Ed25519 key; what `doorstation keys new` printed"
        for i, relay in enumerate(key.opens):
            if relay not in settings.relays:
                known = nearest(relay, list(settings.relays))
                yield f"keys.{name}.opens[{i}]", f'no relay "{relay}"; {known}'
        if key.opens and key.role != "opener":
            yield f"keys.{name}.opens", f'a key of role {key.role} opens nothing; role = "opener"'
        for i, scope in enumerate(key.scope):
            if fault := key_fault(scope):
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
        elif fault := key_fault(word.sets):
            yield f"words.{name}.sets", fault
        elif holds_secret(word.sets) or word.sets.partition(".")[0] in OWNERS_ONLY:
            yield f"words.{name}.sets", "not by a typed word; a signed order"


RESERVED_WORDS: Final = ("status", "undo", "help")
