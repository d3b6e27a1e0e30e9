"""Offer and answer (RFC 3264) for one audio stream.

An offer lists what its sender wants to *receive*, numbers included; so does an answer. Hence two
rules that carry this module: we send with the numbers the far end wrote, and we receive on the
numbers we wrote. A FRITZ!Box answers our event number 101 with 100, and both then arrive.

Encryption is offered in one of two shapes. Where it is required, as RTP/SAVP (or its DTLS form),
which says that there is no other way. Where it is only wished for, as keys in plain RTP/AVP
(RFC 8643): an answerer has to repeat the protocol, so a phone that does not encrypt could answer
RTP/SAVP by a refusal alone, while it passes over attributes that it does not know.

Every m-line either side ever wrote stays for the rest of the call: answers mirror the offer line by
line, later offers repeat all lines, and what we do not do has port 0 (RFC 3264 §6, §8).
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address, ip_address
from typing import Final

import msgspec
from msgspec.structs import replace

from doorstation.errors import ProtocolError
from doorstation.ids import Ids
from doorstation.media import dtls
from doorstation.media.srtp import SUITES, DtlsPeer, Keys
from doorstation.sdp.codecs import (
    COMFORT_NOISE,
    PCMA,
    PCMU,
    TELEPHONE_EVENT,
    Codec,
    payload_type,
    read_codecs,
    write_codecs,
)
from doorstation.sdp.crypto import (
    Crypto,
    format_crypto,
    read_cryptos,
    read_fingerprints,
    read_setup,
)
from doorstation.sdp.description import (
    Attribute,
    Connection,
    Media,
    Origin,
    SessionDescription,
    format_sdp,
    parse_sdp,
)

# (we send, we receive) <-> the word for it, seen from the side that writes it.
_FLOWS: Final = {
    "sendrecv": (True, True),
    "sendonly": (True, False),
    "recvonly": (False, True),
    "inactive": (False, False),
}
_WORDS: Final = {flows: word for word, flows in _FLOWS.items()}

# AVPF differs in when RTCP may be sent, not in the packets: RFC 4585 §5 lets both meet.
_PLAIN: Final = frozenset({"RTP/AVP", "RTP/AVPF"})
_ENCRYPTED: Final = {
    "RTP/SAVP": "SRTP",
    "RTP/SAVPF": "SRTP",
    "UDP/TLS/RTP/SAVP": "DTLS-SRTP",
    "UDP/TLS/RTP/SAVPF": "DTLS-SRTP",
}
_REQUIRED_AS: Final = {"sdes": "RTP/SAVP", "dtls": "UDP/TLS/RTP/SAVP"}

# The first suite is the one that every phone has, since some read the first line alone. The 32-bit
# tag of AES_CM_128_HMAC_SHA1_32 is taken from who has nothing better, and never offered.
_OFFERED_SUITES: Final = ("AES_CM_128_HMAC_SHA1_80", "AEAD_AES_256_GCM", "AEAD_AES_128_GCM")

_EVENT_NUMBER: Final = 101  # what every phone expects; RFC 4733 leaves it open
_DYNAMIC: Final = range(96, 128)  # RFC 3551 §6
_OTHERS: Final = tuple(number for number in _DYNAMIC if number != _EVENT_NUMBER)
_PTIME_RANGE: Final = (10, 120)  # ms we are ready to put into one packet
_L16_BYTES: Final = 1280  # what of uncompressed sound fits one Ethernet frame, encrypted too


class NothingInCommon(ProtocolError):
    """No stream both sides can do: answer 488 with the reason (RFC 3261 §21.4.26)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, 488)


class Encryption(msgspec.Struct, frozen=True):
    """What this side wants of SRTP.

    `offered`: "" not at all, "beside" as keys in RTP/AVP, "alone" as RTP/SAVP; `accepted`: taken
    where it is offered; `required`: nothing plain is taken. `keys`: ways to agree on keys, best
    first: "sdes" (RFC 4568), "dtls" (RFC 5763).
    """

    offered: str = ""
    accepted: bool = False
    required: bool = False
    keys: tuple[str, ...] = ("sdes",)


class LocalAudio(msgspec.Struct, frozen=True):
    """What this side brings: where it listens and what it can do, best codec first."""

    address: str
    port: int
    codecs: tuple[Codec, ...] = (PCMA, PCMU)
    also: tuple[Codec, ...] = ()  # taken where they are offered, never offered
    telephone_event: bool = True
    ptime_ms: int = 20
    answer_order: str = "offerer"  # or "ours": whose order of codecs an answer of ours follows
    signalled_by: str = ""  # the address that the far end's signalling comes from
    signalled_over: str = ""  # and the transport: keys written in it are read by who reads that
    encryption: Encryption = Encryption()


class AudioSession(msgspec.Struct, frozen=True):
    """What both sides agreed on, as the media side needs it."""

    local: str  # our address, as we described it
    remote: tuple[str, int]
    remote_rtcp: tuple[str, int] | None  # None: the far end wants no RTCP
    rtcp_mux: bool
    codec: Codec  # to send; its fmtp is what the far end asks for
    payload_type: int  # to send
    receive: tuple[tuple[int, Codec], ...]  # any of these may arrive, at any time
    event_payload_type: int | None  # to send telephone-events; None: the far end takes none
    event_clock: int  # Hz of the events we send
    event_receive: tuple[tuple[int, int], ...]  # (payload type, clock in Hz)
    noise_receive: tuple[int, ...]  # payload types that may arrive in place of a pause
    direction: str  # ours
    ptime_ms: int  # to send
    maxptime: int | None  # ms, the far end's limit
    held: bool  # the far end put us on hold
    signalled_by: str = ""  # as in LocalAudio: besides `remote` the host that sound may come from
    signalled_over: str = ""
    protection: Keys | DtlsPeer | None = None  # None: plain RTP

    @property
    def may_send(self) -> bool:
        return _FLOWS[self.direction][0]

    @property
    def may_receive(self) -> bool:
        return _FLOWS[self.direction][1]


class _Slot(msgspec.Struct, frozen=True):
    """One m-line of the call, kept so that it can be repeated with port 0."""

    kind: str
    proto: str
    formats: tuple[str, ...]

    def refused(self) -> Media:
        # A line without formats breaks the grammar; some phones write it when they refuse.
        return Media(self.kind, 0, self.proto, self.formats or ("0",))


class _Offer(msgspec.Struct, frozen=True):
    """An offer of ours: what an answer is read against."""

    slots: tuple[_Slot, ...]
    audio: int
    codecs: tuple[Codec, ...]
    events: tuple[Codec, ...]
    direction: str
    rtcp_mux: bool
    cryptos: tuple[Crypto, ...]
    by_dtls: bool


class _Stream(msgspec.Struct, frozen=True):
    """An audio m-line of the far end that can carry a call."""

    index: int
    media: Media
    address: str
    on_hold: bool  # the unspecified address: RFC 2543 hold, RFC 3264 §8.4
    codecs: tuple[tuple[Codec, Codec], ...]  # (theirs, ours), in the far end's order
    events: tuple[Codec, ...]
    noises: tuple[Codec, ...]
    flows: tuple[bool, bool]  # (they send, they receive)
    protection: Crypto | DtlsPeer | None  # the far end's part of it


class OfferAnswer:
    """The descriptions of one call, from the first offer to the last re-INVITE.

    The version in `o=` rises by one when the content differs from what was sent last, and only
    then: Asterisk takes an unchanged version for an unchanged description (RFC 3264 §8).
    """

    def __init__(self, ids: Ids, local: LocalAudio) -> None:
        self.local = local
        self.session: AudioSession | None = None
        self._ids = ids
        self._session_id = str(ids.number(31))  # some phones keep it in a signed int
        self._sent: SessionDescription | None = None
        self._offer: _Offer | None = None
        self._awaiting_answer = False
        self._slots: tuple[_Slot, ...] = (_Slot("audio", "RTP/AVP", ()),)
        self._audio = 0
        # Within a call a dynamic number never changes its codec (RFC 3264 §8.3.2).
        self._numbers: dict[tuple[str, int, int], int] = {}
        self._taken: set[int] = set()
        self._own_keys: dict[str, bytes] = {}
        """By suite. One is kept for the whole call, unless the far end takes a new one too."""

    def offer(self, direction: str = "sendrecv") -> bytes:
        """An offer with everything we can do; replaces one of ours that is still unanswered."""
        _check_direction(direction)
        local = self.local
        codecs = tuple(self._number(codec) for codec in local.codecs)
        events = self._offered_events(codecs) if local.telephone_event else ()
        slot, cryptos, by_dtls = self._offered_protection(self._slots[self._audio])
        mux = self.session.rtcp_mux if self.session is not None else by_dtls
        protection = [format_crypto(crypto) for crypto in cryptos]
        if by_dtls:
            protection += self._dtls_attributes("actpass")
        media = self._audio_line(slot, (*codecs, *events), direction, mux, protection)
        lines = [old.refused() for old in self._slots]
        lines[self._audio] = media
        slots = list(self._slots)
        slots[self._audio] = replace(slot, formats=media.formats)
        self._offer = _Offer(
            tuple(slots), self._audio, codecs, events, direction, mux, cryptos, by_dtls
        )
        self._awaiting_answer = True
        return self._write(lines)

    def check(self, offer: bytes) -> None:
        """Raises where `answer` would for this offer; changes nothing."""
        description = parse_sdp(offer)
        self._find_stream(description, range(len(description.media)))

    def answer(self, offer: bytes, direction: str = "sendrecv") -> bytes:
        """The answer to the far end's offer; `direction` is what we would like.

        Raises MalformedPacket, NothingInCommon (488), or ProtocolError 491 while an offer of ours
        is unanswered. After a raise everything is as agreed before.
        """
        _check_direction(direction)
        if self._awaiting_answer:
            raise ProtocolError("an offer of this side is not answered yet", 491)
        local = self.local
        description = parse_sdp(offer)
        if self.session is not None and _switched_off(description):
            return self._answer_without_stream(self.session, description)
        stream = self._find_stream(description, range(len(description.media)))
        they_send, they_receive = stream.flows
        wish_send, wish_receive = _FLOWS[direction]
        flows = wish_send and they_receive, wish_receive and they_send

        pairs = stream.codecs
        if local.answer_order == "ours":
            order = {codec.key: place for place, codec in enumerate(self._known())}
            pairs = tuple(sorted(pairs, key=lambda pair: order[pair[1].key]))
        chosen = tuple(ours.numbered(_number_of(theirs), ours.fmtp) for theirs, ours in pairs)
        events = _answered_events(stream.events, chosen) if local.telephone_event else ()
        answered = tuple(
            event.numbered(_number_of(event), TELEPHONE_EVENT.fmtp) for event in events
        )
        noises = tuple(n for n in stream.noises if n.clock == chosen[0].clock)
        mux = stream.media.has("rtcp-mux")
        keys, protection = self._answered_protection(stream.protection)

        slots = tuple(_Slot(m.kind, m.proto, m.formats) for m in description.media)
        formats = (*chosen, *noises, *answered)
        media = self._audio_line(slots[stream.index], formats, _WORDS[flows], mux, protection)
        lines = [slot.refused() for slot in slots]
        lines[stream.index] = media
        body = self._write(lines)

        for codec in formats:
            self._numbers[codec.key] = _number_of(codec)
        if isinstance(keys, Keys):
            self._own_keys[keys.suite] = keys.send
        self._agree(slots, stream)
        self._offer = None
        self.session = self._make_session(
            description,
            stream,
            send=pairs[0][0],
            receive=tuple((_number_of(codec), codec) for codec in chosen),
            events=events,
            event_receive=stream.events if local.telephone_event else (),
            flows=flows,
            mux=mux,
            held=wish_send and not they_receive,
            protection=keys,
        )
        return body

    def _answer_without_stream(
        self, session: AudioSession, description: SessionDescription
    ) -> bytes:
        """Within a call the far end may take the stream away (RFC 3264 §8.2), and bring it back."""
        slots = tuple(_Slot(m.kind, m.proto, m.formats) for m in description.media)
        body = self._write([slot.refused() for slot in slots])
        self._slots = slots
        audio = [index for index, slot in enumerate(slots) if slot.kind.lower() == "audio"]
        self._audio = self._audio if self._audio in audio else audio[0]
        self._offer = None
        self.session = replace(session, direction="inactive", held=True)
        return body

    def answer_received(self, answer: bytes) -> None:
        """Take the answer to our offer; a second one to the same offer (a 183, then the 200 of
        another branch) replaces the first.

        Raises MalformedPacket, NothingInCommon (also for a refused stream, port 0, unless the far
        end holds us anyway), or ProtocolError if we offered nothing. After a raise nothing has
        changed.
        """
        offer = self._offer
        if offer is None:
            raise ProtocolError("an answer without an offer")
        description = parse_sdp(answer)
        before = self.session if self._awaiting_answer else None
        if before is not None and before.held and _switched_off(description):
            self._awaiting_answer = False
            self._slots, self._audio = offer.slots, offer.audio
            self.session = replace(before, direction="inactive")
            return
        lines = range(len(description.media))
        if offer.audio in lines and description.media[offer.audio].kind.lower() == "audio":
            lines = range(offer.audio, offer.audio + 1)
        stream = self._find_stream(description, lines, offer)
        they_send, they_receive = stream.flows
        may_send, may_receive = _FLOWS[offer.direction]

        ours = {codec.key: _number_of(codec) for codec in (*offer.codecs, *offer.events)}
        events = tuple(event for event in stream.events if event.key in ours)
        mapped = tuple(codec.numbered(ours[codec.key], codec.fmtp) for _, codec in stream.codecs)
        own_numbers = {_number_of(codec): codec for codec in (*offer.events, *mapped)}
        # Their number for a codec we numbered otherwise: allowed to differ, and some send with it.
        also = tuple(
            codec.numbered(_number_of(theirs), codec.fmtp)
            for theirs, codec in stream.codecs
            if theirs.payload_type not in own_numbers
        )
        also_events = tuple(e for e in events if e.payload_type not in own_numbers)

        self._awaiting_answer = False
        self._agree(offer.slots, replace(stream, index=offer.audio))
        self.session = self._make_session(
            description,
            stream,
            send=stream.codecs[0][0],
            receive=tuple((_number_of(codec), codec) for codec in (*mapped, *also)),
            events=events,
            # Heard even if the answer leaves events out: a digit lost is a door that stays shut.
            event_receive=(*offer.events, *also_events),
            flows=(may_send and they_receive, may_receive and they_send),
            mux=offer.rtcp_mux and stream.media.has("rtcp-mux"),
            held=may_send and not they_receive,
            protection=_agreed_protection(stream.protection, offer),
        )

    def discard_offer(self) -> None:
        """Our offer was refused (491, 488): what was agreed before holds (RFC 3261 §14.1)."""
        if self._awaiting_answer:
            self._awaiting_answer = False
            self._offer = None

    def _known(self) -> tuple[Codec, ...]:
        return (*self.local.codecs, *self.local.also)

    # --- writing --------------------------------------------------------------------------------

    def _number(self, codec: Codec) -> Codec:
        """The codec with the number it had in this call, its static one, or a free one."""
        number = self._numbers.get(codec.key, codec.payload_type)
        ours = {n for key, n in self._numbers.items() if key != codec.key}
        if number is None or (number in _DYNAMIC and number in ours | self._taken):
            ours |= {c.payload_type for c in self.local.codecs if c.payload_type is not None}
            usual = (_EVENT_NUMBER,) if codec.key == TELEPHONE_EVENT.key else ()
            spare = [n for n in (*usual, *_OTHERS) if n not in ours]
            # A far end may have named all 32 for codecs that were refused; those then serve again.
            number = next((n for n in spare if n not in self._taken), spare[0])
        self._numbers[codec.key] = number
        return codec.numbered(number, codec.fmtp)

    def _offered_events(self, codecs: tuple[Codec, ...]) -> tuple[Codec, ...]:
        """One for each clock: an event has that of the codec it stands in for (RFC 4733 §2.5.1.2);
        that of 8 kHz always, as there are phones which know no other."""
        clocks = dict.fromkeys((TELEPHONE_EVENT.clock, *(codec.clock for codec in codecs)))
        return tuple(self._number(replace(TELEPHONE_EVENT, clock=clock)) for clock in clocks)

    def _offered_protection(self, slot: _Slot) -> tuple[_Slot, tuple[Crypto, ...], bool]:
        """The line's protocol, the keys for SDES, and whether DTLS is offered."""
        wish = self.local.encryption
        agreed = None
        ways: tuple[str, ...] = ()
        if self.session is not None:
            # As it was agreed: who declined encryption once, or the call is refused for it.
            agreed = self.session.protection
            ways = ("sdes",) if isinstance(agreed, Keys) else ("dtls",) if agreed else ()
        elif wish.offered == "alone":
            ways = wish.keys[:1]
            slot = replace(slot, proto=_REQUIRED_AS[wish.keys[0]])
        elif wish.offered:
            ways = wish.keys
        cryptos: tuple[Crypto, ...] = ()
        if "sdes" in ways:
            suites = (agreed.suite,) if isinstance(agreed, Keys) else _OFFERED_SUITES
            for suite in suites:
                if suite not in self._own_keys:
                    self._own_keys[suite] = self._new_key(suite)
            cryptos = tuple(
                Crypto(str(tag), suite, self._own_keys[suite])
                for tag, suite in enumerate(suites, 1)
            )
        return slot, cryptos, "dtls" in ways

    def _answered_protection(
        self, theirs: Crypto | DtlsPeer | None
    ) -> tuple[Keys | DtlsPeer | None, list[Attribute]]:
        """What is agreed, and the lines that say so."""
        if theirs is None:
            return None, []
        before = self.session.protection if self.session is not None else None
        if isinstance(theirs, DtlsPeer):
            if isinstance(before, DtlsPeer) and before.fingerprints == theirs.fingerprints:
                theirs = before  # the association stands, whoever began it (RFC 8842 §5.5)
            return theirs, self._dtls_attributes("active" if theirs.active else "passive")
        own = self._own_keys.get(theirs.suite)
        renewed = isinstance(before, Keys) and before.receive != theirs.key
        if own is None or renewed:
            own = self._new_key(theirs.suite)
        keys = Keys(theirs.suite, own, theirs.key, theirs.mki)
        return keys, [format_crypto(Crypto(theirs.tag, theirs.suite, own))]

    def _new_key(self, suite: str) -> bytes:
        length = SUITES[suite].master
        return self._ids.number(8 * length).to_bytes(length, "big")

    def _dtls_attributes(self, setup: str) -> list[Attribute]:
        return [Attribute("setup", setup), Attribute("fingerprint", dtls.fingerprint())]

    def _audio_line(
        self,
        slot: _Slot,
        codecs: tuple[Codec, ...],
        direction: str,
        mux: bool,
        protection: Iterable[Attribute],
    ) -> Media:
        formats, attributes = write_codecs(codecs)
        extra = [Attribute("ptime", str(self.local.ptime_ms)), Attribute(direction)]
        if mux:
            extra.append(Attribute("rtcp-mux"))
        extra.extend(protection)
        return Media(
            slot.kind, self.local.port, slot.proto, formats, attributes=(*attributes, *extra)
        )

    def _write(self, lines: Iterable[Media]) -> bytes:
        family = "IP6" if ":" in self.local.address else "IP4"
        before = self._sent
        # All of o= but the version stays as it was, even when we moved (RFC 3264 §8).
        origin = (
            before.origin
            if before
            else Origin(self._session_id, "1", self.local.address, family=family)
        )
        now = SessionDescription(
            origin,
            connection=Connection(self.local.address, family),
            media=tuple(lines),
        )
        if before is not None and now != before:
            now = replace(now, origin=replace(origin, version=str(int(origin.version) + 1)))
        self._sent = now
        return format_sdp(now)

    # --- reading --------------------------------------------------------------------------------

    def _find_stream(
        self,
        description: SessionDescription,
        lines: Iterable[int],
        offer: _Offer | None = None,
    ) -> _Stream:
        """The first audio line that can carry the call.

        Raises NothingInCommon with what the first audio line lacks.
        """
        reason = ""
        for index in lines:
            if description.media[index].kind.lower() != "audio":
                continue
            found = self._read_stream(description, index, offer)
            if isinstance(found, _Stream):
                return found
            reason = reason or found
        raise NothingInCommon(reason or "no audio in the description")

    def _read_stream(
        self, description: SessionDescription, index: int, offer: _Offer | None
    ) -> _Stream | str:
        """One audio line of an offer, or of the answer to ours; or why it cannot be used."""
        media = description.media[index]
        if media.port == 0:
            return "the audio stream has port 0"
        protection = self._read_protection(description, media, offer)
        if isinstance(protection, str):
            return protection
        codecs = offer.codecs if offer is not None else self._known()
        connection = media.connection or description.connection
        if connection is None:
            return "the audio stream has no c= line"
        host = connection.host
        if _is_name(host):
            # Looked up nowhere; whoever writes his own name (RFC 8866 §5.7) signals from there.
            host = self.local.signalled_by or host
        address = _usable_address(host, self.local.address)
        if address is None:
            return (
                f"{_printable(connection.host)} is no address that can be reached "
                f"from {self.local.address}"
            )
        if address.startswith("fe80:"):  # theirs on the link that their signalling comes by
            _, percent, link = self.local.signalled_by.partition("%")
            address += percent + link
        if not address and (media.has("ice-ufrag") or description.has("ice-ufrag")):
            return "the audio stream needs ICE, which is not spoken here"

        known = {codec.key: codec for codec in codecs}
        theirs = read_codecs(media)
        pairs: dict[tuple[str, int, int], tuple[Codec, Codec]] = {}
        for codec in theirs:
            if codec.key in known:
                pairs.setdefault(codec.key, (codec, known[codec.key]))
        if not pairs:
            names = ", ".join(_printable(codec.name) for codec in theirs[:8]) or "none known"
            ours = ", ".join(codec.name for codec in codecs)
            return f"no common codec: {names} there, {ours} here"

        they_send, they_receive = _FLOWS[_direction(description, media)]
        on_hold = not address
        return _Stream(
            index,
            media,
            address or connection.host,
            on_hold,
            tuple(pairs.values()),
            tuple(c for c in theirs if c.name.lower() == TELEPHONE_EVENT.name),
            tuple(c for c in theirs if c.name.upper() == COMFORT_NOISE.name),
            (they_send, they_receive and not on_hold),
            protection,
        )

    def _read_protection(
        self, description: SessionDescription, media: Media, offer: _Offer | None
    ) -> Crypto | DtlsPeer | str | None:
        """The far end's part of the line's encryption, None for a plain line, or what is wrong."""
        proto = media.proto.upper()
        wish = self.local.encryption
        kind = _ENCRYPTED.get(proto)
        if kind is None and proto not in _PLAIN:
            return f"transport {_printable(proto)} is not supported, RTP/AVP is"
        prints = read_fingerprints(description, media)
        if kind is not None and not wish.accepted:
            kind = "DTLS-SRTP" if prints else kind
            return f"{kind} ({proto}) is switched off here, plain RTP/AVP is not"
        if wish.accepted:
            for way in wish.keys:
                found = (
                    _matching(read_cryptos(media), offer)
                    if way == "sdes"
                    else _dtls_peer(prints, read_setup(description, media), offer)
                )
                if found is not None:
                    return found
        if kind is not None:
            ways = " or ".join(way.upper() for way in wish.keys)
            return f"no common keys: {kind} ({proto}) there, {ways} here"
        if wish.required:
            return "the far end's sound is not encrypted, as the settings require"
        return None

    def _agree(self, slots: tuple[_Slot, ...], stream: _Stream) -> None:
        self._slots = slots
        self._audio = stream.index
        for text in stream.media.formats:
            number = payload_type(text)
            if number is not None and number not in self._numbers.values():
                self._taken.add(number)

    def _make_session(
        self,
        description: SessionDescription,
        stream: _Stream,
        *,
        send: Codec,
        receive: tuple[tuple[int, Codec], ...],
        events: tuple[Codec, ...],
        event_receive: tuple[Codec, ...],
        flows: tuple[bool, bool],
        mux: bool,
        held: bool,
        protection: Keys | DtlsPeer | None,
    ) -> AudioSession:
        media = stream.media
        maxptime = next(_milliseconds(media.values("maxptime")), None)
        ptime = next(
            _milliseconds((*media.values("ptime"), *description.values("ptime"))),
            self.local.ptime_ms,
        )
        shortest, longest = _PTIME_RANGE
        if send.name.upper() == "L16":
            longest = min(longest, _L16_BYTES * 1000 // (2 * send.clock * send.channels))
        ptime = min(ptime, maxptime or longest, longest) // 10 * 10
        event = next((event for event in events if event.clock == send.clock), None)
        if event is None and events:
            event = events[0]
        # Some send it without a word in their SDP: 13 is nothing else's number.
        noises = {_number_of(n): n for n in (*stream.noises, COMFORT_NOISE)}
        others = {number for number, _ in receive} | {_number_of(e) for e in event_receive}
        return AudioSession(
            local=self.local.address,
            remote=(stream.address, media.port),
            remote_rtcp=_rtcp_address(media, stream, mux),
            rtcp_mux=mux,
            codec=send,
            payload_type=_number_of(send),
            receive=receive,
            event_payload_type=event.payload_type if event else None,
            event_clock=event.clock if event else TELEPHONE_EVENT.clock,
            event_receive=tuple((_number_of(e), e.clock) for e in event_receive),
            noise_receive=tuple(
                number
                for number, noise in noises.items()
                if noise.clock == send.clock and number not in others
            ),
            direction=_WORDS[flows],
            ptime_ms=max(ptime, shortest),
            maxptime=maxptime,
            held=held,
            signalled_by=self.local.signalled_by,
            signalled_over=self.local.signalled_over,
            protection=protection,
        )


def _matching(theirs: tuple[Crypto, ...], offer: _Offer | None) -> Crypto | None:
    """The far end's line to use: of its offer the first, of its answer the one for a line of ours.

    Some answer with a tag of their own: then the suite says which line is meant.
    """
    if offer is None:
        return theirs[0] if theirs else None
    return next((crypto for crypto in theirs if _own_line(crypto, offer) is not None), None)


def _own_line(theirs: Crypto, offer: _Offer) -> Crypto | None:
    fitting = [own for own in offer.cryptos if own.suite == theirs.suite]
    return fitting[0] if fitting else None


def _dtls_peer(
    fingerprints: tuple[tuple[str, bytes], ...], setup: str, offer: _Offer | None
) -> DtlsPeer | None:
    """Who the far end is and which of us begins (RFC 5763 §5, defaults of RFC 4145 §4)."""
    if not fingerprints or (offer is not None and not offer.by_dtls):
        return None
    if offer is None:
        return DtlsPeer(fingerprints, active=setup in ("actpass", "passive"))
    return DtlsPeer(fingerprints, active=setup != "active")


def _agreed_protection(theirs: Crypto | DtlsPeer | None, offer: _Offer) -> Keys | DtlsPeer | None:
    if not isinstance(theirs, Crypto):
        return theirs
    own = _own_line(theirs, offer)
    assert own is not None
    return Keys(theirs.suite, own.key, theirs.key, theirs.mki)


def _check_direction(direction: str) -> None:
    if direction not in _FLOWS:
        raise ValueError(f"{direction!r} is none of {', '.join(_FLOWS)}")


def _number_of(codec: Codec) -> int:
    number = codec.payload_type
    if number is None:
        raise ValueError(f"{codec.name} has no payload type")
    return number


def _direction(description: SessionDescription, media: Media) -> str:
    """The direction the far end wrote; the m-line's wins over the session's (RFC 8866 §6.7)."""
    for attribute in (*media.attributes, *description.attributes):
        if attribute.name.lower() in _FLOWS:
            return attribute.name.lower()
    return "sendrecv"


def _switched_off(description: SessionDescription) -> bool:
    """Whether there is audio, but no stream is on: who wants another one, T.38, is refused."""
    media = description.media
    return any(m.kind.lower() == "audio" for m in media) and not any(m.port for m in media)


def _is_name(host: str) -> bool:
    """Whether a `c=` line names a host that has an address, instead of the address."""
    *_, last = host.split(".")
    return ":" not in host and last[:1].isalpha() and last.lower() != "invalid"


def _usable_address(host: str, near: str) -> str | None:
    """`host` if it can be reached from `near`, "" for the addresses that mean hold, else None."""
    if host.lower().endswith(".invalid"):  # RFC 6157 §4: the IPv6 way to write 0.0.0.0
        return ""
    try:
        address = ip_address(host.partition("%")[0])  # a zone means nothing outside their machine
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified:
        return ""
    if address.is_multicast or str(address) == "255.255.255.255":
        return None  # one INVITE must not make the door talk to a whole network
    return str(address) if (address.version == 6) == (":" in near) else None


def _answered_events(events: tuple[Codec, ...], chosen: tuple[Codec, ...]) -> tuple[Codec, ...]:
    """Those with the clock of a chosen codec, else the first: clocks should not mix in one stream
    (RFC 4733 §2.5.1.2), but a phone with 16 kHz events alone shall be able to open the door."""
    clocks = {codec.clock for codec in chosen}
    fitting: dict[int, Codec] = {}
    for event in events:
        if event.clock in clocks:
            fitting.setdefault(event.clock, event)
    return tuple(fitting.values()) or events[:1]


def _rtcp_address(media: Media, stream: _Stream, mux: bool) -> tuple[str, int] | None:
    """Where RTCP goes: RTP's port if muxed (RFC 5761), `a=rtcp` (RFC 3605), else the next port."""
    rates = {b.kind.upper(): b.value for b in media.bandwidth}
    if rates.get("RS") == "0" and rates.get("RR") == "0":
        return None  # RFC 3556 §2
    if mux:
        return stream.address, media.port
    for value in media.values("rtcp"):
        port, *rest = value.split() or [""]
        if not (1 <= len(port) <= 5 and port.isascii() and port.isdigit()):
            continue
        if not 0 < int(port) <= 65_535:
            return None
        host = _usable_address(rest[2], stream.address) if len(rest) == 3 else stream.address
        return (host, int(port)) if host else None
    return (stream.address, media.port + 1) if media.port < 65_535 else None


def _milliseconds(values: Iterable[str]) -> Iterator[int]:
    """Each value that is a usable time; RFC 8866 §6.4 allows "20" and "20.0"."""
    for value in values:
        whole = value.strip().partition(".")[0]
        if 1 <= len(whole) <= 4 and whole.isascii() and whole.isdigit() and int(whole) > 0:
            yield int(whole)


def _printable(text: str) -> str:
    """A word of the far end made fit for a reason phrase."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:40])
