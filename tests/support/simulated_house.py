"""A whole door in virtual time: the real `Station`, its phones and its PBX on a bad network.

    async def story() -> None:
        async with House(PLAN, seed=7, log=tmp_path / "events.jsonl") as house:
            house.press("call")
            await house.until_quiet()
            house.check_quiet()
    run(story())

Real: the station with its door, user agent, endpoint and event log; user agents of ours as
phones. Simulated: the network (`support.network`), sound (`SimulatedMedia`: no samples, but ports,
telephone-events, silence) and the PBX. All chance comes from the seed.

`Oracle` says what must open. It reads the door's wire and knows nothing of the door's code: an
opening that it does not expect fails at once, one that it expects and does not see at the check.
"""

import asyncio
import contextlib
import hashlib
import random
import re
import tomllib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

from doorboard.fake import FakeBoard, FakeRelay
from doorstation.configurator import Configurator
from doorstation.errors import DoorstationError
from doorstation.ids import Ids, SeededIds
from doorstation.media.digits import Digit
from doorstation.net.agent_shell import AgentShell
from doorstation.net.media import events as media
from doorstation.net.sockets import Sink
from doorstation.parts import Missing, Parts
from doorstation.sdp.negotiation import AudioSession
from doorstation.settings.reader import parse
from doorstation.settings.tree import Settings
from doorstation.sip.digest import DigestServer, Verdict
from doorstation.sip.endpoint import Endpoint
from doorstation.sip.headers import NameAddr, Via, format_name_addr, format_via
from doorstation.sip.message import (
    MalformedMessage,
    Request,
    Response,
    format_message,
    make_response,
    parse_message,
)
from doorstation.sip.transport import (
    CloseFlow,
    DnsAnswer,
    DnsFailure,
    DnsQuery,
    DnsResult,
    Flow,
    OpenFlow,
    Send,
    Target,
    Transport,
)
from doorstation.sip.uri import SipUri
from doorstation.station import Outside, Station
from doorstation.ua import events as ua
from doorstation.ua.agent import UserAgent
from doorstation.ua.config import Account, AgentConfig, Peer

from tests.support.disk import Disk, Inline
from tests.support.network import Conditions, Host, Network, address
from tests.support.virtual_time import VirtualLoop, virtual_loop

DOOR = "192.0.2.1"
PBX = "192.0.2.2"
DOMAIN = "pbx.example"
SILENT_AFTER = 30.0
LONGEST_STORY = 600.0
"""Seconds in which everything has to be over: a ring, a call, and 64 T1 for each loose end."""


# -- network


class LoopNetwork(Network):
    """The simulated network on the loop's clock."""

    def __init__(self, loop: VirtualLoop, seed: int, conditions: Conditions) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        super().__init__(seed, conditions)

    @property
    def now(self) -> float:
        return self._loop.clock

    @now.setter
    def now(self, at: float) -> None:
        """The loop keeps the time."""

    def at(self, delay: float, action: Callable[[], None]) -> None:
        super().at(delay, action)
        self._arm()

    def _arm(self) -> None:
        head = self._events[0][0]
        if self._timer is not None:
            if self._timer.when() <= head:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(head, self._due)

    def _due(self) -> None:
        timer, self._timer = self._timer, None
        assert timer is not None
        # The loop's clock, a sum of waits, may be a rounding short of the time that was set.
        until = self._loop.clock = max(self.now, timer.when())
        while self._events and self._events[0][0] <= until:
            self._step(until)
        if self._events:
            self._arm()

    @property
    def under_way(self) -> int:
        """Packets and answers that have not arrived yet."""
        return len(self._events)


class Nic:
    """One machine's sockets: `SipSockets` for a shell, a node for the network."""

    deadline: float | None = None

    def __init__(self, network: LoopNetwork, name: str, tap: "Tap | None" = None) -> None:
        self._network = network
        self._name = name
        self._tap = tap
        self._pieces: dict[int, bytes] = {}
        self._sink: Sink | None = None
        self.host: Host[Nic]
        self.network_changed: Callable[[], None] = lambda: None
        self.listening: tuple[tuple[Transport, str, int], ...] = ()

    # what a shell uses

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sink = None

    def attach(self, sink: Sink) -> None:
        self._sink = sink

    def send(self, flow: Flow, data: bytes) -> None:
        if self._tap is not None and self.host.up:
            self._tap("sent", flow, data)
        self.host.do((Send(flow, data),))

    def open(self, target: Target) -> None:
        self.host.do((OpenFlow(target),))

    def close(self, flow: Flow, why: str) -> None:
        self.host.do((CloseFlow(flow, why),))

    def moved(self, flow: Flow) -> bool:
        """Always: a change of network has here the most that can follow of it."""
        return True

    # what the network uses

    def data_received(self, flow: Flow, data: bytes, now: float) -> Sequence[object]:
        if self._sink is not None:
            if self._tap is not None:
                for message in self._whole(flow, data):
                    self._tap("received", flow, message)
            self._sink.data_received(flow, data)
        return ()

    def _whole(self, flow: Flow, data: bytes) -> list[bytes]:
        """The messages that end with this piece."""
        if not flow.transport.reliable:
            return [data]
        data = self._pieces.pop(flow.id, b"") + data
        messages = []
        while (head := data.find(b"\r\n\r\n") + 4) > 3:
            length = _LENGTH.search(data, 0, head)
            end = head + (int(length[1]) if length is not None else 0)
            if len(data) < end:
                break
            messages.append(data[:end])
            data = data[end:]
        if data:
            self._pieces[flow.id] = data
        return messages

    def flow_opened(self, target: Target, flow: Flow, now: float) -> Sequence[object]:
        if self._sink is not None:
            self._sink.flow_opened(target, flow)
        return ()

    def flow_failed(self, target: Target, reason: str, now: float) -> Sequence[object]:
        if self._sink is not None:
            self._sink.flow_failed(target, reason)
        return ()

    def flow_closed(self, flow: Flow, reason: str, now: float) -> Sequence[object]:
        self._pieces.pop(flow.id, None)
        if self._sink is not None:
            self._sink.flow_closed(flow, reason)
        return ()

    def send_failed(self, flow: Flow, reason: str, now: float) -> Sequence[object]:
        if self._sink is not None:
            self._sink.send_failed(flow, reason)
        return ()

    def resolved(self, query: DnsQuery, result: DnsResult, now: float) -> Sequence[object]:
        raise AssertionError("names are asked elsewhere")

    def timer_fired(self, now: float) -> Sequence[object]:
        raise AssertionError("the shell has its own timers")


_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)", re.IGNORECASE)
Tap = Callable[[str, Flow, bytes], None]


class Names:
    """The network's zone, asked as `net.dns.Resolver` is."""

    def __init__(self, network: LoopNetwork) -> None:
        self._network = network

    async def resolve(self, query: DnsQuery) -> DnsResult:
        await asyncio.sleep(self._network.conditions.delay)
        if not self._network.dns_answers:
            await asyncio.sleep(5.0)
            return DnsFailure("timeout", temporary=True)
        return self._network.zone.get((query.kind, query.name), DnsAnswer((), 60.0))

    def network_changed(self) -> None:
        """Nothing is kept."""

    async def aclose(self) -> None:
        """Nothing to close."""


# -- sound


class SoundNetwork:
    """Who has which RTP port; carries telephone-events and tells who hears somebody."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, conditions: Conditions) -> None:
        self.loop = loop
        self.sessions: dict[tuple[str, int], SimulatedSession] = {}
        self.on_digit: Callable[[str, str, str], None] = lambda host, call_id, value: None
        self._chance = chance
        self._conditions = conditions
        self._last_port = 10_000

    def port(self) -> int:
        """Ports come round again, soon enough to meet late digits of an earlier call."""
        self._last_port = 10_000 + (self._last_port - 10_000 + 2) % 64
        return self._last_port

    def send_digit(self, source: "SimulatedSession", value: str, call_id: str) -> None:
        """One key: lost only when all its packets are."""
        if source.agreed is None or self._chance.random() < self._conditions.loss**3:
            return
        to = source.agreed.remote
        delay = self._conditions.delay + self._conditions.jitter * self._chance.random()
        at = max(self.loop.time() + delay, source.free_at)
        source.free_at = at
        self.loop.call_at(at, self._arrive, source.at, to, value, call_id)

    def _arrive(
        self, source: tuple[str, int], to: tuple[str, int], value: str, call_id: str
    ) -> None:
        target = self.sessions.get(to)
        if target is None or target.agreed is None or target.agreed.remote != source:
            return
        if not target.agreed.event_receive:
            return
        self.on_digit(to[0], call_id, value)
        target.media.tell(media.DigitHeard(target.name, Digit(value, "rfc4733", self.loop.time())))

    def hears(self, session: "SimulatedSession") -> bool:
        assert session.agreed is not None
        far = self.sessions.get(session.agreed.remote)
        return (
            far is not None
            and far.agreed is not None
            and far.agreed.remote == session.at
            and far.agreed.may_send
        )


class SimulatedSession:
    """The shape of `net.media.MediaSession`, without samples."""

    CHECK = 5.0

    def __init__(self, owner: "SimulatedMedia", name: str, at: tuple[str, int]) -> None:
        self.media = owner
        self.name = name
        self.at = at
        self.rtp_port = at[1]
        self.agreed: AudioSession | None = None
        self.free_at = 0.0
        self._heard = 0.0
        self._silent = False
        self._timer: asyncio.TimerHandle | None = None

    def configure(self, agreed: AudioSession, *, inband: bool = False, source: str = "") -> None:
        loop = self.media.network.loop
        if self.agreed is None or not self.agreed.may_receive:
            self._heard = loop.time()
        self.agreed = agreed
        if self._timer is None:
            self._timer = loop.call_later(self.CHECK, self._check)

    def _check(self) -> None:
        loop = self.media.network.loop
        self._timer = loop.call_later(self.CHECK, self._check)
        assert self.agreed is not None
        if self.media.network.hears(self):
            self._heard = loop.time()
            if self._silent:
                self._silent = False
                self.media.tell(media.FarEndResumed(self.name))
        elif (
            self.agreed.may_receive
            and not self._silent
            and loop.time() - self._heard > SILENT_AFTER
        ):
            self._silent = True
            self.media.tell(media.FarEndSilent(self.name, loop.time() - self._heard))

    @property
    def can_send_events(self) -> bool:
        return self.agreed is not None and self.agreed.event_payload_type is not None

    def send_digits(self, digits: str, call_id: str = "") -> None:
        for digit in digits:
            self.media.network.send_digit(self, digit, call_id)

    def play(self, sound: object, loop: bool | None = None, mix: bool = False) -> None:
        """Nobody listens."""

    def stop_sound(self) -> None:
        """Nobody listens."""

    def statistics(self) -> None:
        return None

    def stop(self) -> None:
        if self.vanish():
            self.media.tell(media.SessionEnded(self.name, None))

    def vanish(self) -> bool:
        """As `stop`, without a word."""
        if self._timer is not None:
            self._timer.cancel()
        return self.media.network.sessions.pop(self.at, None) is self


class SimulatedMedia:
    """The shape of `net.media.MediaThread`; events come in a turn of their own."""

    card = "closed"
    xruns = (0, 0)
    running = False
    paths = 0

    def record(self, sink: object) -> None:
        """Nothing is recorded here."""

    def __init__(
        self,
        network: SoundNetwork,
        host: str,
        on_event: Callable[[media.MediaEvent], None],
    ) -> None:
        self.network = network
        self._host = host
        self._on_event = on_event

    def tell(self, event: media.MediaEvent) -> None:
        self.network.loop.call_soon(self._on_event, event)

    def start_session(self, local_address: str, name: str = "") -> SimulatedSession:
        at = (self._host, self.network.port())
        assert at not in self.network.sessions, "ports leak"
        session = self.network.sessions[at] = SimulatedSession(self, name, at)
        return session

    def play(self, sound: object, loop: bool | None = None, then: object = None) -> None:
        """Nobody listens."""

    def stop_sound(self) -> None:
        """Nobody listens."""

    def use_path(self, make_path: object) -> None:
        """No samples; that it came is known."""
        self.paths += 1

    def watch_levels(self, callback: object) -> None:
        """No levels."""

    def listen(self, callback: object) -> None:
        """No samples."""

    def close(self) -> None:
        for session in list(self.network.sessions.values()):
            if session.media is self:
                session.stop()


# -- what must open


@dataclass
class Talk:
    """A call that is up at the door."""

    who: str
    may_open: bool
    since: float
    entered: str = ""
    pressed_at: float = 0.0
    told: deque[tuple[str, str, float]] = field(default_factory=lambda: deque(maxlen=8))


_CSEQ = re.compile(rb"\r\nCSeq: *(\d+) (\w+)", re.IGNORECASE)
_CALL_ID = re.compile(rb"\r\nCall-ID: *([^\r]+)", re.IGNORECASE)
_TO_TAG = re.compile(rb"\r\nTo:[^\r]*;tag=", re.IGNORECASE)
_SIGNAL = re.compile(rb"Signal=(.)")


class Oracle:
    """What must open and when, from the rules as the manual has them and the door's wire.

    `callers` says who calls from an address, `called` who is reached by a URI: a name, under which
    wrong codes are counted, and whether it may open.
    """

    def __init__(
        self,
        house: Settings,
        callers: Mapping[str, tuple[str, bool]],
        called: Mapping[str, tuple[str, bool]],
    ) -> None:
        self.rules = house.door
        self.relays = house.relays
        self.codes = {c.reveal(): name for name, r in house.relays.items() for c in r.codes}
        self.shortest = min(map(len, self.codes))
        self.longest = max(map(len, self.codes))
        self.callers = callers
        self.called = called
        self.openings = 0
        self.refused = 0
        self.reset()

    def reset(self) -> None:
        """The door was switched off and on."""
        self.talks: dict[str, Talk] = {}
        self.over: set[str] = set()
        self.invited: dict[str, tuple[str, bool]] = {}
        self.infos: dict[tuple[str, bytes], str] = {}
        self.counted: set[tuple[str, bytes]] = set()
        self.wrong: dict[str, tuple[int, float]] = {}
        self.wrong_in_all = (0, 0.0)
        self.expected: deque[tuple[float, str]] = deque()
        self.unexplained: deque[tuple[float, str]] = deque()
        self.on: dict[str, tuple[float, float]] = {}

    # the door's wire

    def wire(self, direction: str, data: bytes, now: float, remote: str) -> None:
        cseq, call_id = _CSEQ.search(data), _CALL_ID.search(data)
        if cseq is None or call_id is None:
            return
        call, number, method = call_id[1].decode(), cseq[1], cseq[2]
        first = data[: data.index(b"\r\n")].decode()
        if direction == "received":
            if first.startswith("INVITE") and not _TO_TAG.search(data):
                if remote in self.callers:
                    self.invited[call] = self.callers[remote]
            elif first.startswith("INFO"):
                signal = _SIGNAL.search(data)
                self.infos[call, number] = signal[1].decode() if signal else ""
            elif first.startswith("SIP/2.0 2") and method == b"INVITE":
                # Who lost the race, or was cancelled, gets its BYE in the same moment.
                self._up(call, now)
        elif first.startswith("INVITE") and not _TO_TAG.search(data):
            self.invited[call] = self.called[first.split()[1]]
        elif first.startswith("BYE"):
            self.ended(call, now)
        elif first.startswith("SIP/2.0 200"):
            if method == b"INVITE":
                self._up(call, now)
            elif method == b"BYE":
                self.ended(call, now)
            elif method == b"INFO" and (call, number) not in self.counted:
                self.counted.add((call, number))
                self.digit(call, self.infos[call, number], "info", now)

    def _up(self, call: str, now: float) -> None:
        if call in self.invited and call not in self.talks and call not in self.over:
            self.talks[call] = Talk(*self.invited[call], since=now)

    def ended(self, call: str, now: float) -> None:
        """The call is over, by either side."""
        self.pass_time(now)
        self.over.add(call)
        talk = self.talks.pop(call, None)
        if talk is not None and len(talk.entered) >= self.shortest:
            self._guess(talk, now)

    def all_ended(self, now: float) -> None:
        """The door gave up its call by itself, which the wire shows only later."""
        for call in list(self.talks):
            self.ended(call, now)

    # digits

    def digit(self, call: str, value: str, source: str, now: float) -> None:
        """A key has reached the door, in this call.

        A phone that tells every key both ways does so on a good network only, in the same moment.
        """
        self.pass_time(now)
        talk = self.talks.get(call)
        if talk is None or not value:
            return
        for told in talk.told:
            if told[:1] == (value,) and told[1] != source and now - told[2] < 0.1:
                talk.told.remove(told)
                return
        talk.told.append((value, source, now))
        if value == "#":
            self._finish(talk, now)
        elif value == "*":
            if len(talk.entered) >= self.shortest:
                self._guess(talk, now)
            talk.entered = ""
        else:
            talk.entered += value
            talk.pressed_at = now
            eager = talk.may_open and not self._locked(talk, now)
            more = any(c != talk.entered and c.startswith(talk.entered) for c in self.codes)
            full = self.longest if eager else 16
            known = eager and not more and talk.entered in self.codes
            if known or len(talk.entered) >= full:
                self._finish(talk, now)

    def pass_time(self, now: float) -> None:
        """What happens by itself: a pause ends an entry, the longest call ends."""
        if self.unexplained and self.unexplained[0][0] < now:
            raise AssertionError(f"opened, and nobody entered a code: {self.unexplained.popleft()}")
        for call, talk in list(self.talks.items()):
            until = talk.since + self.rules.max_call
            if talk.entered and talk.pressed_at + self.rules.digit_timeout <= min(now, until):
                self._finish(talk, talk.pressed_at + self.rules.digit_timeout)
            if until <= now:
                self.over.add(call)
                del self.talks[call]
                if len(talk.entered) >= self.shortest:
                    self._guess(talk, until)

    def _finish(self, talk: Talk, now: float) -> None:
        entered, talk.entered = talk.entered, ""
        if not entered or not talk.may_open or self._locked(talk, now):
            self.refused += bool(entered)
        elif entered in self.codes:
            self.wrong.pop(talk.who, None)
            opening = (now, self.codes[entered])
            if self.unexplained and self.unexplained[0] == opening:
                self.unexplained.popleft()
            else:
                self.expected.append(opening)
        elif len(entered) >= self.shortest:
            self._guess(talk, now)

    def _guess(self, talk: Talk, now: float) -> None:
        self.refused += 1
        if not talk.may_open or self._locked(talk, now):
            return
        count, until = self.wrong.get(talk.who, (0, 0.0))
        self.wrong[talk.who] = (count + 1 if now < until else 1, now + self.rules.lock_out)
        count, until = self.wrong_in_all
        self.wrong_in_all = (count + 1 if now < until else 1, now + self.rules.lock_out)

    def _locked(self, talk: Talk, now: float) -> bool:
        count, until = self.wrong.get(talk.who, (0, 0.0))
        if now < until and count >= self.rules.wrong_codes:
            return True
        count, until = self.wrong_in_all
        return now < until and count >= self.rules.wrong_codes_in_all

    # relays

    def energised(self, relay: str, now: float) -> None:
        self.pass_time(now)
        if self.expected:
            at, wanted = self.expected.popleft()
            assert wanted == relay, f"{relay} opens, not {wanted}"
            assert abs(now - at) < 1e-6, f"{relay} opens at {now}, not {at}"
        else:
            # The relay clicks before the key's 200 is on the wire, but in the same moment.
            self.unexplained.append((now, relay))
        self.openings += 1
        rules = self.relays[relay]
        since, _ = self.on.get(relay, (now, now))
        self.on[relay] = (since, min(now + rules.pulse, since + rules.hold_limit))

    def released(self, relay: str, now: float) -> None:
        since, until = self.on.pop(relay)
        assert abs(now - until) < 1e-6, f"{relay} on from {since} to {now}, not {until}"

    def check(self, now: float) -> None:
        """At rest: everything that had to open has, and nothing is on."""
        self.pass_time(now)
        assert not self.unexplained
        assert not self.expected, f"these should have opened: {self.expected}"
        assert not self.on
        assert not self.talks, f"the door still talks: {self.talks}"
        self.over.clear()
        self.counted.clear()
        self.invited.clear()
        self.infos.clear()


class WatchedRelay(FakeRelay):
    """Tells the oracle, a second `energise` too."""

    def __init__(self, name: str, house: "House") -> None:
        super().__init__(name, clock=house.loop.time)
        self._house = house

    def energise(self) -> None:
        self._house.note(f"{self.name} on")
        with self._house.finding_fault():
            self._house.oracle.energised(self.name, self._house.loop.time())
        super().energise()

    def release(self) -> None:
        if self.on and not self._house.switching_off:
            self._house.note(f"{self.name} off")
            with self._house.finding_fault():
                self._house.oracle.released(self.name, self._house.loop.time())
        super().release()


# -- the PBX


class Exchange:
    """A registrar and stateless proxy (RFC 3261 §16.11) with Record-Route; a node of the network.

    REGISTER and INVITE must prove a password. `restart` forgets bindings and nonces.
    """

    deadline: float | None = None

    def __init__(self, seed: int, passwords: Mapping[str, str]) -> None:
        self._ids = SeededIds(seed)
        self._passwords = passwords
        self.restart()

    def restart(self) -> None:
        self.bindings: dict[str, tuple[SipUri, float]] = {}
        self._verdicts: dict[str, Verdict] = {}
        secret = self._ids.token().encode()
        self._guard = DigestServer(DOMAIN, secret, self._passwords, self._ids)

    def data_received(self, flow: Flow, data: bytes, now: float) -> Sequence[object]:
        try:
            message = parse_message(data)
        except MalformedMessage:
            return ()
        if isinstance(message, Response):
            return self._backwards(flow, message)
        via = message.top_via
        stamped = Via(
            via.transport,
            via.host,
            via.port,
            (("branch", via.branch), ("rport", str(flow.remote[1])), ("received", flow.remote[0])),
        )
        message.headers.remove_first("Via")
        message.headers.prepend("Via", format_via(stamped))
        return self._request(flow, message, now)

    def _backwards(self, flow: Flow, response: Response) -> Sequence[object]:
        response.headers.remove_first("Via")
        text = response.headers.get("Via")
        if text is None:
            return ()
        response = Response(response.status, response.reason, response.headers, response.body)
        via = response.top_via
        back = (via.received or via.host, int(via.rport or via.port or 5060))
        return (Send(flow.towards(*back), format_message(response)),)

    def _request(self, flow: Flow, request: Request, now: float) -> Sequence[object]:
        uri = request.uri
        assert isinstance(uri, SipUri)
        routes = request.headers.get_all("Route")
        if routes:
            request.headers.remove("Route")
        elif uri.host == DOMAIN and not uri.user:
            if request.method == "REGISTER":
                return self._register(flow, request, now)
            return () if request.method == "ACK" else self._answer(flow, request, 200)
        elif request.method == "ACK" and request.to.tag == "exchange":
            return ()  # for a refusal of ours
        elif request.method == "INVITE" and not request.to.tag:
            verdict = self._proved(request, now)
            if not verdict.ok:
                challenges = self._guard.challenge(now, stale=verdict.stale, proxy=True)
                headers = [("Proxy-Authenticate", value) for value in challenges]
                return self._answer(flow, request, 407, headers)
            request.headers.remove("Proxy-Authorization")
        to = uri
        if uri.host == DOMAIN:
            bound, until = self.bindings.get(uri.user_text, (uri, 0.0))
            if now >= until:
                return () if request.method == "ACK" else self._answer(flow, request, 480)
            to = bound
        return self._forward(flow, Request(request.method, to, request.headers, request.body), to)

    def _proved(self, request: Request, now: float) -> Verdict:
        """The same for a datagram that comes twice: its nonce count was new once only."""
        branch = request.top_via.branch or ""
        if branch not in self._verdicts:
            if len(self._verdicts) >= 64:
                del self._verdicts[next(iter(self._verdicts))]
            self._verdicts[branch] = self._guard.verify(request, now, proxy=True)
        return self._verdicts[branch]

    def _forward(self, flow: Flow, request: Request, to: SipUri) -> Sequence[object]:
        # The same for an INVITE and its CANCEL and ACK, and for whatever is repeated.
        before = f"{request.top_via.branch} {request.cseq.number} {request.call_id}"
        branch = hashlib.sha1(before.encode()).hexdigest()[:20]
        headers = request.headers
        if request.method == "INVITE" and not request.to.tag:
            record = NameAddr(SipUri(host=flow.local[0], port=5060, params=(("lr", None),)))
            headers.prepend("Record-Route", format_name_addr(record))
        via = Via("UDP", *flow.local, (("branch", f"z9hG4bK{branch}"),))
        headers.prepend("Via", format_via(via))
        headers.set("Max-Forwards", str((request.max_forwards or 70) - 1))
        onward = flow.towards(to.host, to.port or 5060)
        return (Send(onward, format_message(request)),)

    def _register(self, flow: Flow, request: Request, now: float) -> Sequence[object]:
        verdict = self._guard.verify(request, now)
        if not verdict.ok:
            challenges = self._guard.challenge(now, stale=verdict.stale)
            return self._answer(flow, request, 401, [("WWW-Authenticate", v) for v in challenges])
        seconds = request.expires or 0
        contact = request.contacts[0].uri
        assert isinstance(contact, SipUri)
        if seconds:
            self.bindings[verdict.user] = (contact, now + seconds)
        else:
            self.bindings.pop(verdict.user, None)
        bound = [("Contact", f"<{contact}>;expires={seconds}")] if seconds else []
        return self._answer(flow, request, 200, bound)

    def _answer(
        self,
        flow: Flow,
        request: Request,
        status: int,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Sequence[object]:
        response = make_response(request, status, to_tag="exchange")
        for name, value in headers:
            response.headers.add(name, value)
        return (Send(flow, format_message(response)),)

    def flow_opened(self, target: Target, flow: Flow, now: float) -> Sequence[object]:
        return ()

    def flow_failed(self, target: Target, reason: str, now: float) -> Sequence[object]:
        return ()

    def flow_closed(self, flow: Flow, reason: str, now: float) -> Sequence[object]:
        return ()

    def send_failed(self, flow: Flow, reason: str, now: float) -> Sequence[object]:
        return ()

    def resolved(self, query: DnsQuery, result: DnsResult, now: float) -> Sequence[object]:
        return ()

    def timer_fired(self, now: float) -> Sequence[object]:
        return ()


# -- phones


@dataclass(frozen=True)
class PhonePlan:
    """A phone of the house. `digits`: "info", "rfc4733" or "both"."""

    name: str
    address: str
    digits: str = "rfc4733"
    account: str = ""
    """Its user at the PBX; without one it calls the door directly."""
    transport: str = "udp"
    wild: bool = True
    """Acts by chance; otherwise it rings and does what the test says."""
    answers: bool = True
    """A phone that is not wild: at once."""


class Phone:
    """A user agent of ours with somebody who acts by chance."""

    def __init__(self, house: "House", plan: PhonePlan, seed: int) -> None:
        self.house = house
        self.plan = plan
        self.chance = random.Random(seed)
        self.loop = house.loop
        self.sessions: dict[str, SimulatedSession] = {}
        """By call, or by group until somebody answers."""
        self._life = 0
        self._nic = Nic(house.network, plan.name)
        self._nic.host = house.network.attach(
            self._nic, plan.address, transports=(Transport.UDP, Transport.TCP)
        )
        self._groups = 0
        self._typing_until = 0.0
        self._boot()

    def _boot(self) -> None:
        plan = self.plan
        ids = SeededIds(self.chance.getrandbits(64))
        self.endpoint = Endpoint(ids, transports=(Transport.UDP, Transport.TCP))
        account = None
        if plan.account:
            account = Account(
                plan.account, DOMAIN, SipUri(host=DOMAIN), password="secret", keep_alive=0.0
            )
        config = AgentConfig(
            account=account,
            peers=() if plan.account else (Peer("door", SipUri(user="door", host=DOOR)),),
            local_user=plan.name,
            user_agent="",
        )
        self.agent = UserAgent(config, ids, self.endpoint)
        self.media = SimulatedMedia(self.house.sound, plan.address, self._sound)
        self.shell = AgentShell(self.agent, self._nic, self.house.names, self._deliver)
        self._nic.attach(self.shell)
        self._nic.host.up = True
        self.house.background(self.shell.run())
        self.shell.tell(self.agent.start)

    def crash(self, back_after: float) -> None:
        """No power: nothing is said to anybody."""
        if not self._nic.host.up:
            return
        self.house.note(f"{self.plan.name} crashes")
        self._life += 1
        host = self._nic.host
        host.up = False
        for session in self.sessions.values():
            session.vanish()
        self.sessions.clear()
        self.house.background(self.shell.aclose())
        self.loop.call_later(back_after, self._back)

    def _back(self) -> None:
        self.house.network.break_connections(cast(Host[Any], self._nic.host), "peer restarted")
        self._boot()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        life = self._life

        def due() -> None:
            if life == self._life:
                act()

        self.loop.call_later(seconds, due)

    @property
    def quiet(self) -> bool:
        return self._nic.host.up and not self.agent.calls and not self.sessions

    # what a person does

    def call_door(self) -> None:
        if not self._nic.host.up:
            return
        self.house.note(f"{self.plan.name} calls")
        self._groups += 1
        group = f"g{self._groups}"
        session = self.sessions[group] = self.media.start_session("")
        target = "door" if self.plan.account else f"sip:door@{DOOR}"
        if self.plan.transport == "tcp":
            target += ";transport=tcp"
        self.shell.tell(lambda now: self.agent.place(group, (target,), session.rtp_port, now))
        if self.plan.wild and self.chance.random() < 0.25:
            after = self.chance.choice((0.0, 0.02, self.chance.uniform(0, 15)))
            self._later(after, lambda: self.give_up(group))
        else:
            self._later(40.0, lambda: self.give_up(group))

    def give_up(self, group: str) -> None:
        if group in self.sessions:
            self.shell.tell(lambda now: self.agent.cancel_group(group, now))
            self._end(group)

    def press(self, call: str, digits: str) -> None:
        """Type digits, as fast as people do and one after the other."""
        self.house.note(f"{self.plan.name} types {digits}")
        at = max(0.0, self._typing_until - self.loop.time())
        for digit in digits:
            self._later(at, partial(self._key, call, digit))
            at += self.chance.uniform(0.12, 0.6)
        self._typing_until = self.loop.time() + at

    def _key(self, call: str, digit: str) -> None:
        session, found = self.sessions.get(call), self.agent.calls.get(call)
        if session is None or found is None or found.dialog is None:
            return
        if self.plan.digits != "info":
            session.send_digits(digit, found.dialog.call_id)
        if self.plan.digits != "rfc4733":
            self.shell.tell(lambda now: self.agent.send_info_digit(call, digit, now))

    def send(self, data: bytes) -> None:
        """A datagram to the door, whatever it is."""
        host = self._nic.host
        flow = Flow(
            host.sockets[self.plan.address],
            Transport.UDP,
            (self.plan.address, 5060),
            (DOOR, 5060),
        )
        host.do((Send(flow, data),))

    def hang_up(self, call: str) -> None:
        self.shell.tell(lambda now: self.agent.hang_up(call, now))

    # what happens to it

    def _sound(self, event: media.MediaEvent) -> None:
        if isinstance(event, media.FarEndSilent):
            for call, session in list(self.sessions.items()):
                if session.name == event.session:
                    self.hang_up(call)

    def _deliver(self, event: object) -> None:
        match event:
            case ua.CallArrived(call):
                self._arrived(call)
            case ua.CallConnected(call):
                self._connected(call)
            case ua.GroupAnswered(group, call):
                if group in self.sessions:
                    self.sessions[call] = self.sessions.pop(group)
                    self._connected(call)
                else:
                    self.hang_up(call)
            case ua.GroupFailed(group):
                self._end(group)
            case ua.MediaChanged(call, agreed):
                session = self.sessions.get(call)
                if session is not None and agreed is not None:
                    session.configure(agreed)
            case ua.CallEnded(call):
                self._end(call)
            case _:
                pass

    def _end(self, name: str) -> None:
        session = self.sessions.pop(name, None)
        if session is not None:
            session.stop()

    def _arrived(self, call: str) -> None:
        chance = self.chance
        if len(self.sessions) > 3:
            self.shell.tell(lambda now: self.agent.reject(call, 486, now))
            return
        what = chance.random() if self.plan.wild else 0.0
        # As phones do: a caller whose CANCEL is lost must not ring for ever.
        self._later(60.0, lambda: self.shell.tell(lambda now: self.agent.reject(call, 480, now)))
        if what > 0.95:
            return  # not even a ring
        rings_after = chance.choice((0.0, 0.0, chance.uniform(0, 1)))
        self._later(rings_after, lambda: self.shell.tell(lambda now: self.agent.ring(call, now)))
        if what > 0.92:
            self._later(chance.uniform(0, 6), lambda: self.crash(chance.uniform(1, 40)))
            return
        if what > 0.80:
            return  # nobody is at home
        if what > 0.68:
            status = chance.choice((486, 600, 603, 480, 404, 500, 503))
            after = chance.choice((0.0, chance.uniform(0, 12)))
            self._later(
                after, lambda: self.shell.tell(lambda now: self.agent.reject(call, status, now))
            )
            return
        if self.plan.wild and chance.random() < 0.1:
            self._later(chance.uniform(0, 1), lambda: self._press_early(call))
        after = chance.choice((0.0, chance.uniform(0, 3), chance.uniform(0, 12)))
        if self.plan.wild:
            self._later(after, lambda: self.answer(call))
        elif self.plan.answers:
            self.answer(call)

    def _session(self, call: str) -> SimulatedSession | None:
        found = self.agent.calls.get(call)
        if found is None or found.state is not ua.CallState.RINGING:
            return None
        if call not in self.sessions:
            self.sessions[call] = self.media.start_session("", call)
        return self.sessions[call]

    def progress(self, call: str) -> None:
        """Early media."""
        session = self._session(call)
        if session is not None:
            port = session.rtp_port
            self.shell.tell(lambda now: self.agent.progress(call, port, now))

    def _press_early(self, call: str) -> None:
        """Keys pressed before anybody answered: they must not count."""
        self.progress(call)
        self.press(call, self.chance.choice(self.house.codes))

    def answer(self, call: str) -> None:
        session = self._session(call)
        if session is not None:
            port = session.rtp_port
            self.shell.tell(lambda now: self.agent.answer(call, port, now))

    def _connected(self, call: str) -> None:
        if not self.plan.wild:
            return
        chance = self.chance
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
            code = chance.choice(self.house.codes)
            digits = chance.choice(
                (
                    *(code, code, code, code, code, code),
                    code + "#",
                    code[:-1],
                    f"{chance.randrange(10_000):04}",
                    "1*",
                    code[:2] + "*" + code,
                )
            )
            self._later(
                chance.choice((0.0, chance.uniform(0, 20))), partial(self.press, call, digits)
            )
        if chance.random() < 0.08:
            # Somebody guesses, and then somebody knows: too late, perhaps.
            for _ in range(chance.choice((2, 3, 3, 5))):
                self.press(call, f"{chance.randrange(10_000):04}#")
            self.press(call, chance.choice(self.house.codes))
        if chance.random() < 0.15:
            at = chance.uniform(0, 15)
            self._later(at, lambda: self.shell.tell(lambda now: self.agent.hold(call, now)))
            self._later(
                at + chance.choice((0.0, chance.uniform(0, 8))),
                lambda: self.shell.tell(lambda now: self.agent.resume(call, now)),
            )
        ends = chance.random()
        if ends < 0.03:
            self._later(chance.uniform(0, 20), lambda: self.crash(chance.uniform(1, 60)))
        elif ends < 0.7:
            after = chance.choice((0.0, chance.uniform(0, 5), chance.uniform(0, 30)))
            self._later(after, lambda: self.hang_up(call))


# -- all of it


@dataclass(frozen=True)
class HousePlan:
    """What is built: the door's settings, phones, and how bad the network is."""

    name: str
    settings: str
    phones: tuple[PhonePlan, ...]
    callers: Mapping[str, tuple[str, bool]]
    called: Mapping[str, tuple[str, bool]]
    conditions: Conditions
    exchange: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the trace: a message of the door, or what somebody did (`who` is empty)."""

    at: float
    turn: int
    who: str
    text: str

    def __str__(self) -> str:
        first, _, rest = self.text.partition("\r\n")
        cseq = re.search(r"CSeq: *(.*)", rest, re.IGNORECASE)
        call = re.search(r"Call-ID: *(.{6})", rest, re.IGNORECASE)
        more = f"  [{cseq[1].strip()} {call[1]}]" if cseq and call else ""
        return f"{self.at:12.3f} {self.who:22} {first}{more}"


@dataclass
class House:
    """A door, its phones and its network, from `async with` on."""

    plan: HousePlan
    seed: int
    log: Path
    calls: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    """Messages that the door sent, by method."""
    switching_off: bool = False
    disk: Disk | None = None
    """What the configuration is kept on; None: it cannot change."""
    held: tuple[str, ...] = ()
    """Buttons that are in when the door is switched on."""
    missing: Mapping[str, Missing] = field(default_factory=dict)
    """What the board lacks besides."""
    loop: VirtualLoop = field(default_factory=virtual_loop)
    trace: deque[Step] = field(default_factory=lambda: deque(maxlen=250))

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        text = (
            self.plan.settings
            + '\n[control]\nsocket = ""\n[board]\nkind = "fake"\n'
            + f'[log]\nevents = "{self.log}"\nfiles = 50\n'
        )
        self.settings = parse(text)
        self.configurator: Configurator | None = None
        if self.disk is not None:
            base = {"local": tomllib.loads(text)}
            self.configurator = Configurator(base, self.disk, disk=Inline())
        self.network = LoopNetwork(self.loop, self.seed, self.plan.conditions)
        self.sound = SoundNetwork(self.loop, random.Random(self.seed + 1), self.plan.conditions)
        self.names = Names(self.network)
        self.oracle = Oracle(self.settings, self.plan.callers, self.plan.called)
        self.codes = tuple(self.oracle.codes)
        self.sound.on_digit = self._digit_arrives
        self._tasks: set[asyncio.Task[None]] = set()
        self.exchange: Exchange | None = None
        if self.plan.exchange:
            passwords = {"door": "secret"} | {
                phone.account: "secret" for phone in self.plan.phones if phone.account
            }
            self.exchange = Exchange(self.seed, passwords)
            self.exchange_host = self.network.attach(
                self.exchange, PBX, transports=(Transport.UDP,)
            )
            self.network.zone["A", DOMAIN] = address(PBX)
        self._nic = Nic(self.network, "door", self._tap)
        self._nic.host = self.network.attach(
            self._nic, DOOR, transports=(Transport.UDP, Transport.TCP)
        )
        self.phones = {
            plan.name: Phone(self, plan, self.seed + 100 + number)
            for number, plan in enumerate(self.plan.phones)
        }

    async def __aenter__(self) -> Self:
        self.switch_on()
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.switch_off()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def background(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self.loop.faults.append(fault)

    # the door

    def switch_on(self) -> None:
        self.board = FakeBoard(clock=self.loop.time)
        for name in self.settings.relays:
            self.board.relays[name] = WatchedRelay(name, self)
        parts = Parts(
            buttons={name: self.board.button(name) for name in self.settings.buttons},
            relays={name: self.board.relay(name) for name in self.settings.relays},
            leds={"led": self.board.indicator("led")},
            contacts={},
            readers={},
            open_audio=lambda _: self.board.audio(),
            missing=self.missing,
        )
        for name in self.held:
            self.board.buttons[name].pressed = True
        self._nic.host.up = True
        self.switching_off = False

        def sockets(listen: object, *, tls: object, network_changed: Callable[[], None]) -> Nic:
            self._nic.network_changed = network_changed
            return self._nic

        def make_media(
            open_port: object,
            loop: object,
            on_event: Callable[[media.MediaEvent], None],
            *,
            ids: Ids,
            ports: object,
            opus_complexity: object,
            make_path: object,
        ) -> SimulatedMedia:
            return SimulatedMedia(self.sound, DOOR, self._overhear(on_event))

        outside = Outside(
            sockets=cast(Any, sockets),
            names=cast(Any, lambda: self.names),
            media=cast(Any, make_media),
        )
        ids = SeededIds(self.chance.getrandbits(64))
        self.station = Station(self.settings, parts, ids, outside, configurator=self.configurator)
        self._stop = asyncio.Event()
        self._running = self.loop.create_task(self.station.run(self._stop))

    async def switch_off(self, *, power_cut: bool = False) -> None:
        """Stop the station in order, or in the middle of a word."""
        self.switching_off = True
        if power_cut:
            self._nic.host.up = False
            self._running.cancel()
        self._stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running
        assert not any(relay.on for relay in self.board.relays.values())
        assert not [at for at in self.sound.sessions if at[0] == DOOR]
        self._nic.host.up = False
        self.oracle.reset()
        self.network.break_connections(cast(Host[Any], self._nic.host), "door restarted")

    def _overhear(
        self, on_event: Callable[[media.MediaEvent], None]
    ) -> Callable[[media.MediaEvent], None]:
        def heard(event: media.MediaEvent) -> None:
            if isinstance(event, media.FarEndSilent):
                self.note("the door hears nothing")
            on_event(event)

        return heard

    def _digit_arrives(self, host: str, call_id: str, value: str) -> None:
        if host == DOOR:
            self.note(f"door hears {value} by RFC 4733")
            with self.finding_fault():
                self.oracle.digit(call_id, value, "rfc4733", self.loop.time())

    def _tap(self, direction: str, flow: Flow, data: bytes) -> None:
        if direction == "sent":
            self.sent[data.split(b" ", 1)[0].decode()] += 1
        who = f"{direction} {flow.remote[0]}"
        self.trace.append(
            Step(self.loop.clock, self.loop.turns, who, data[:400].decode(errors="replace"))
        )
        with self.finding_fault():
            self.oracle.wire(direction, data, self.loop.time(), flow.remote[0])

    # trouble

    def network_changes(self) -> None:
        """A link went and came: the station hears of it, its sockets stay."""
        self.note("the network changes")
        if self._nic.host.up:
            self._nic.network_changed()

    def exchange_restarts(self) -> None:
        """It forgets its bindings and nonces, and is away for a while."""
        assert self.exchange is not None
        self.note("the exchange restarts")
        self.exchange.restart()
        self.exchange_host.go_down()
        self.loop.call_later(self.chance.uniform(0, 50), self.exchange_host.come_up)

    # the visitor

    def press(self, button: str) -> None:
        self.note(f"press {button}")
        made = self.board.buttons[button]
        made.press()
        made.release()

    def command(self, command: str, **args: object) -> None:
        """As `doorstation ctl` does; what is refused is refused."""
        self.note(f"ctl {command} {args or ''}")

        async def do() -> None:
            with contextlib.suppress(DoorstationError):
                await self.station.commands.handle(command, args)

        if command == "hangup":
            self.oracle.all_ended(self.loop.time())
        self.background(do())

    def note(self, what: str) -> None:
        self.trace.append(Step(self.loop.clock, self.loop.turns, "", what))

    # checks

    @contextlib.contextmanager
    def finding_fault(self) -> Iterator[None]:
        """Inside the station's turn: what the oracle finds is raised outside of it."""
        try:
            yield
        except AssertionError as fault:
            self.note(f"*** {fault}")
            self.loop.faults.append(fault)

    @property
    def busy(self) -> str:
        """What is still going on, or ""."""
        station, agent = self.station, self.station._agent
        if self._running.done():
            return "the station ended"
        if station._door.phase != "idle" or station._door.call:
            return f"the door is {station._door.phase}"
        if agent.calls or agent._groups or agent._servers:
            return f"calls of the door: {list(agent.calls.values())}"
        if station._sound.session or station._sound.talking or station._sound.early:
            return "the door keeps a media session"
        if station._sound.codecs or station._sound.encryption:
            return "the door keeps what a call's sound was"
        for phone in self.phones.values():
            if not phone.quiet:
                return f"{phone.plan.name}: {phone.agent.calls} {phone.sessions}"
        if self.sound.sessions:
            return f"sessions {self.sound.sessions}"
        if station._relays.pulsing or station.commands.pending:
            return "pulses or commands wait"
        load = {k: v for k, v in station._endpoint.load.items() if v and k != "flows"}
        if load:
            return f"endpoint: {load}"
        for phone in self.phones.values():
            load = {k: v for k, v in phone.endpoint.load.items() if v and k != "flows"}
            if load:
                return f"{phone.plan.name}: {load}"
        if len(agent._requester):
            return f"{len(agent._requester)} requests wait for ever"
        if self.settings.account is None and station._door.deadline is not None:
            return "a timer of the door"
        if self.settings.account is None and agent.deadline is not None:
            return "a timer of the agent"
        return ""

    async def until_quiet(self) -> None:
        limit = self.loop.time() + LONGEST_STORY
        while self.busy or self.network.under_way:
            if self._running.done():
                await self._running
            if self.loop.faults:
                raise self.loop.faults[0]
            assert self.loop.time() < limit, f"still busy: {self.busy}"
            await asyncio.sleep(7.0)

    def check(self) -> None:
        """Nothing of the story is left."""
        assert not self.busy
        assert not any(relay.on for relay in self.board.relays.values())
        assert self.station.commands.status()["calls"] == []
        self.oracle.check(self.loop.time())

    def find(self, text: str, *, nth: int = 0) -> Step:
        """The nth step of the trace that begins with, or notes, this text."""
        return [step for step in self.trace if step.text.startswith(text)][nth]

    def story(self) -> str:
        """The end of the trace, one line each."""
        return "\n".join(map(str, self.trace))
