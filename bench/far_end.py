"""The far end of every measurement: a SIP peer on plain sockets that knows when things happened.

It is registrar, caller and called phone at once, and the same for every program measured. What
arrives is stamped by the kernel (SO_TIMESTAMPNS), what leaves just before the system call; all
times are nanoseconds of CLOCK_REALTIME. It speaks just enough SIP for well-behaved peers.
"""

import contextlib
import itertools
import os
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from doorstation.media import codecs
from doorstation.media.pcm import audioop

from bench.card import packet_sound
from tests.support.sounds import voice

SO_TIMESTAMPNS: Final = 35
PCMA: Final = 8
EVENT: Final = 101
WITHIN: Final = 10.0

_TIMESPEC: Final = struct.Struct("@qq")
_RTP: Final = struct.Struct("!BBHII")
_HEADER: Final = re.compile(r"^([A-Za-z-]+)\s*:\s*(.*?)\s*$", re.MULTILINE)
_SHORT: Final = {"v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact"}
_COPIED: Final = ("via", "from", "to", "call-id", "cseq", "record-route")
_SOUNDS: Final = [audioop.lin2alaw(packet_sound(number), 2) for number in range(350)]
"""The bursts repeat after 350 packets: 7 loudnesses, and one of 50 the loudest."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a call of the far end speaks: its number, its `a=rtpmap`, RTP ticks and payloads."""

    number: int
    rtpmap: str
    ticks: int
    payloads: Sequence[bytes]
    departures: Sequence[tuple[float, int]] = ()
    """(seconds, number) of each packet sent, if not one every 20 ms: a bad line, to be seen from
    the far end."""


PLAIN: Final = Spoken(PCMA, "PCMA/8000", 160, _SOUNDS)


def spoken(name: str) -> Spoken:
    """A voice in "PCMA", "G722" or "opus"."""
    number, rtpmap, clock = {
        "PCMA": (PCMA, "PCMA/8000", 8000),
        "G722": (9, "G722/8000", 8000),
        "opus": (96, "opus/48000/2", 48000),
    }[name]
    codec = codecs.make(name, clock)
    payloads = [codec.encode(period) for period in voice(4, codec.rate)]
    return Spoken(number, rtpmap, clock // 50, payloads)


def in_time() -> None:
    """Let this thread run before all others: where allowed, a busy machine delays us less."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_FIFO, os.sched_param(5))


class Silent(AssertionError):
    """The peer did not do in time what it had to."""


@dataclass(slots=True)
class Sip:
    """One message received."""

    at: int
    source: tuple[str, int]
    start: str
    headers: dict[str, list[str]]
    body: str

    @property
    def status(self) -> int:
        """0 for a request."""
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0 ") else 0

    @property
    def method(self) -> str:
        """Of a response, that of its request."""
        return self.headers["cseq"][0].split()[1]

    @property
    def call_id(self) -> str:
        return self.headers["call-id"][0]

    def header(self, name: str) -> str:
        return self.headers.get(name, [""])[0]

    def contact(self) -> str:
        found = re.search(r"<([^>]+)>", self.header("contact"))
        return found[1] if found else self.header("contact").split(";")[0]

    def media(self) -> tuple[str, int]:
        host = re.search(r"^c=IN IP4 (\S+)", self.body, re.MULTILINE)
        port = re.search(r"^m=audio (\d+)", self.body, re.MULTILINE)
        if host is None or port is None:
            raise Silent(f"no audio in the SDP:\n{self.body}")
        return host[1], int(port[1])


def read_sip(data: bytes, at: int, source: tuple[str, int]) -> Sip:
    head, _, body = data.decode("utf-8", "replace").replace("\r\n", "\n").partition("\n\n")
    start, _, rest = head.partition("\n")
    headers: dict[str, list[str]] = {}
    for name, value in _HEADER.findall(rest):
        name = name.lower()
        headers.setdefault(_SHORT.get(name, name), []).append(value)
    return Sip(at, source, start, headers, body)


def stamped(link: socket.socket, flags: int = 0) -> tuple[bytes, int, tuple[str, int]]:
    """Receive one datagram: data, when it arrived, from whom."""
    data, ancillary, _, source = link.recvmsg(4096, 64, flags)
    seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2][: _TIMESPEC.size])
    return data, seconds * 1_000_000_000 + nanoseconds, source


def _udp(address: str, port: int = 0) -> socket.socket:
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    link.bind((address, port))
    return link


@dataclass(slots=True)
class Packets:
    """The RTP that arrived in one call."""

    arrivals: list[int] = field(default_factory=list)
    marks: list[tuple[int, int]] = field(default_factory=list)
    """(arrival, place of the burst's onset) of packets in which one begins."""
    _sounding: bool = False

    def received(self, data: bytes, at: int) -> None:
        if len(data) < 172 or data[1] & 0x7F != PCMA:
            return
        self.arrivals.append(at)
        sound = audioop.alaw2lin(data[12:172], 2)
        height = audioop.max(sound, 2)
        if height < 4000:
            self._sounding = False
            return
        samples = memoryview(sound).cast("h")
        place = next(i for i, sample in enumerate(samples) if 2 * abs(sample) >= height)
        if not (self._sounding and place < 8):  # else the rest of the burst before
            self.marks.append((at, place))
        self._sounding = place > 150


class Media:
    """Both directions of one call's sound; sends at an exact cadence from a thread of its own."""

    def __init__(self, address: str, speech: Spoken = PLAIN) -> None:
        self.speech = speech
        self.link = _udp(address)
        self.port: int = self.link.getsockname()[1]
        self.packets = Packets()
        self.sent: list[int] = []
        """When each packet left."""
        self.began = 0
        """When the first one was due, ns."""
        self._remote: tuple[str, int] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._digit: tuple[str, threading.Event] | None = None
        self.digit_sent = 0

    def start(self, remote: tuple[str, int]) -> None:
        self._remote = remote
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def send_digit(self, digit: str) -> int:
        """Send one digit by RFC 4733 in place of 100 ms of sound; when its first packet left."""
        done = threading.Event()
        self._digit = (digit, done)
        if not done.wait(WITHIN):
            raise Silent("the digit was not sent")
        return self.digit_sent

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.link.close()

    def _run(self) -> None:
        in_time()
        assert self._remote is not None
        start = time.monotonic()
        self.began = time.time_ns()
        source = 0x5EED0000 | self.port
        event: list[bytes] = []
        asked: tuple[str, threading.Event] | None = None
        speech = self.speech
        for due, number in speech.departures or ((n * 0.02, n) for n in itertools.count()):
            wait = start + due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            if self._stop.is_set():
                return
            stamp = number * speech.ticks & 0xFFFFFFFF
            first = asked is None and self._digit is not None
            if first:
                asked, self._digit = self._digit, None
                assert asked is not None
                event = _event(asked[0], number, stamp, source)
            if event:
                data = event.pop(0)
            else:
                head = _RTP.pack(0x80, speech.number, number & 0xFFFF, stamp, source)
                data = head + speech.payloads[number % len(speech.payloads)]
            at = time.time_ns()
            try:
                self.link.sendto(data, self._remote)
            except OSError:
                return  # closed by the call's end
            self.sent.append(at)
            if first:
                self.digit_sent = at
            if asked is not None and not event:
                asked[1].set()
                asked = None


def _event(digit: str, number: int, stamp: int, source: int) -> list[bytes]:
    """RFC 4733: five packets of 20 ms, then the end three times."""
    code = "0123456789*#ABCD".index(digit)
    packets = []
    for step in range(8):
        end = step >= 5
        mark = 0x80 if step == 0 else 0
        head = _RTP.pack(0x80, EVENT | mark, number + step & 0xFFFF, stamp, source)
        duration = min(step + 1, 5) * 160
        packets.append(head + bytes((code, 0x8A if end else 0x0A)) + struct.pack("!H", duration))
    return packets


@dataclass(slots=True)
class Call:
    """A call from here or to here."""

    id: str
    peer: tuple[str, int]
    media: Media
    local: str
    remote: str
    target: str
    cseq: int = 1
    sent: int = 0
    """When our INVITE left, or theirs arrived."""
    heard: dict[int, int] = field(default_factory=dict)
    """When each status came first."""
    ended: int = 0
    invite: Sip | None = None
    """Theirs, while it may still be cancelled."""


class FarEnd:
    """Listens on one address, port 5060, from the beginning to `close`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.registered: list[int] = []
        """When each REGISTER arrived."""
        self.contact: tuple[str, int] | None = None
        """Where the latest one came from."""
        self.refused: list[int] = []
        """Statuses that stray requests of ours got."""
        self.answers = True
        """Whether a call that comes in is answered after the ringing."""
        self.calls: dict[str, Call] = {}
        self.incoming: list[Call] = []
        self._link = _udp(address, 5060)
        self._changed = threading.Condition()
        self._count = time.time_ns() // 1000 % 1_000_000_000
        self._open = True
        self._poll = select.epoll()
        self._poll.register(self._link, select.EPOLLIN)
        self._media: dict[int, Media] = {}
        self._short: ShortCalls | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._open = False
        self._thread.join()
        for media in self._media.values():
            media.close()
        self._link.close()

    def wait(self, condition: Callable[[], object], what: str, seconds: float = WITHIN) -> None:
        """Wait until something arrived that makes it true. Raises Silent."""
        with self._changed:
            if not self._changed.wait_for(condition, seconds):
                raise Silent(f"not within {seconds:g} s: {what}")

    def forget(self) -> None:
        """Ready for the next program."""
        self.registered.clear()
        self.incoming.clear()
        self.calls.clear()
        self.contact = None

    # Calls from here

    def call(self, peer: tuple[str, int], user: str = "door", speech: Spoken = PLAIN) -> Call:
        """Send an INVITE; `call.heard` says what came back."""
        media = self.new_media(speech)
        call = self._new_call(peer, user)
        call.media = media
        self.calls[call.id] = call
        call.sent = self._send(call.peer, self._invite(call))
        return call

    def connected(self, call: Call) -> Call:
        """Wait for the answer, then send sound."""
        self.wait(lambda: 200 in call.heard or max(call.heard, default=0) >= 300, "an answer")
        if 200 not in call.heard:
            raise Silent(f"the call was refused with {max(call.heard)}")
        return call

    def hang_up(self, call: Call) -> None:
        """Send BYE, wait for its 200."""
        call.cseq += 1
        self._send(call.peer, self._request(call, "BYE"))
        self.wait(lambda: call.ended, "200 to the BYE")
        self.drop(call.media)
        self.calls.pop(call.id, None)

    def cancel(self, call: Call) -> None:
        """Send CANCEL, wait for the 487."""
        self._send(call.peer, self._request(call, "CANCEL", branch_of="INVITE"))
        self.wait(lambda: call.ended, "487 to the INVITE")
        self.drop(call.media)
        self.calls.pop(call.id, None)

    def info_digit(self, call: Call, digit: str) -> int:
        """Send a digit by INFO; when it left."""
        call.cseq += 1
        body = f"Signal={digit}\r\nDuration=160\r\n"
        extra = "Content-Type: application/dtmf-relay\r\n"
        return self._send(call.peer, self._request(call, "INFO", extra, body))

    def register_stray(self, peer: tuple[str, int]) -> None:
        """A REGISTER that the program must refuse: it is no registrar."""
        self._count += 1
        call = Call(f"stray{self._count}", peer, _NO_MEDIA, "", "", f"sip:{peer[0]}:{peer[1]}")
        call.local = f"<sip:guess{self._count}@{peer[0]}>;tag=1"
        call.remote = f"<sip:guess{self._count}@{peer[0]}>"
        contact = f"Contact: <sip:guess@{self.address}:5060>\r\nExpires: 60\r\n"
        self._send(peer, self._request(call, "REGISTER", contact))

    def short_calls(
        self, peer: tuple[str, int], seconds: float, user: str = "door"
    ) -> "ShortCalls":
        """INVITE, ACK, BYE, and again, as fast as the program answers."""
        run = ShortCalls(self, peer, user, self.new_media().port)
        self._short = run
        run.begin()
        time.sleep(seconds)
        run.stop()
        self._short = None
        return run

    # The wire

    def new_media(self, speech: Spoken = PLAIN) -> Media:
        """A port of its own for one call's sound; `start` it when the other end is known."""
        media = Media(self.address, speech)
        self._media[media.link.fileno()] = media
        self._poll.register(media.link, select.EPOLLIN)
        return media

    def drop(self, media: Media) -> None:
        """Stop sending, close the port."""
        number = media.link.fileno()
        if number in self._media:
            self._poll.unregister(media.link)
            del self._media[number]
            media.close()

    def _new_call(self, peer: tuple[str, int], user: str) -> Call:
        self._count += 1
        number = f"{self._count:x}"
        return Call(
            id=f"{number}@{self.address}",
            peer=peer,
            media=_NO_MEDIA,
            local=f"<sip:900@{self.address}>;tag=far{number}",
            remote=f"<sip:{user}@{peer[0]}:{peer[1]}>",
            target=f"sip:{user}@{peer[0]}:{peer[1]}",
        )

    def _invite(self, call: Call, rtp: int = 0) -> bytes:
        extra = (
            "Content-Type: application/sdp\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO\r\n"
        )
        speech = PLAIN if rtp else call.media.speech
        body = self._sdp(rtp or call.media.port, speech)
        return self._request(call, "INVITE", extra, body)

    def _sdp(self, port: int, speech: Spoken = PLAIN) -> str:
        return (
            f"v=0\r\no=- {self._count} 1 IN IP4 {self.address}\r\ns=-\r\n"
            f"c=IN IP4 {self.address}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP {speech.number} {EVENT}\r\n"
            f"a=rtpmap:{speech.number} {speech.rtpmap}\r\n"
            f"a=rtpmap:{EVENT} telephone-event/8000\r\n"
            f"a=fmtp:{EVENT} 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
        )

    def _request(
        self, call: Call, method: str, extra: str = "", body: str = "", branch_of: str = ""
    ) -> bytes:
        branch = f"z9hG4bK{call.id.partition('@')[0]}.{call.cseq}{branch_of or method}"
        return (
            f"{method} {call.target} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self.address}:5060;branch={branch};rport\r\n"
            f"Max-Forwards: 70\r\nFrom: {call.local}\r\nTo: {call.remote}\r\n"
            f"Call-ID: {call.id}\r\nCSeq: {call.cseq} {method}\r\n"
            f"Contact: <sip:900@{self.address}:5060>\r\n"
            f"{extra}Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def _respond(self, to: Sip, status: str, extra: str = "", body: str = "") -> None:
        lines = [f"SIP/2.0 {status}\r\n"]
        for name in _COPIED:
            for value in to.headers.get(name, ()):
                if name == "to" and "tag=" not in value:
                    value += f";tag=far{to.call_id[:8]}"
                lines.append(f"{name}: {value}\r\n")
        lines.append(f"{extra}content-length: {len(body)}\r\n\r\n{body}")
        self._send(to.source, "".join(lines).encode())

    def _send(self, to: tuple[str, int], data: bytes) -> int:
        at = time.time_ns()
        self._link.sendto(data, to)
        return at

    def _run(self) -> None:
        in_time()
        link = self._link
        number = link.fileno()
        while self._open:
            for ready, _ in self._poll.poll(0.1):
                try:
                    if ready == number:
                        self._received(*stamped(link, socket.MSG_DONTWAIT))
                    else:
                        media = self._media.get(ready)
                        if media is not None:
                            # A new call's socket may have taken a closed one's number.
                            data, at, _ = stamped(media.link, socket.MSG_DONTWAIT)
                            media.packets.received(data, at)
                except OSError:
                    continue  # closed meanwhile, or the peer's port is

    def _received(self, data: bytes, at: int, source: tuple[str, int]) -> None:
        if not data.strip():
            return
        message = read_sip(data, at, source)
        short = self._short
        if short is not None and message.call_id == short.call.id:
            short.received(message)
            return
        with self._changed:
            if message.status:
                self._response(message)
            else:
                self._request_received(message)
            self._changed.notify_all()

    def _response(self, response: Sip) -> None:
        call = self.calls.get(response.call_id)
        if call is None:
            if response.call_id.startswith("stray"):
                self.refused.append(response.status)
            return
        if response.method == "BYE":
            call.ended = response.at
        if response.method != "INVITE":
            return
        call.heard.setdefault(response.status, response.at)
        if response.status > 100:
            call.remote = response.header("to")
        if response.status == 200:
            call.target = response.contact() or call.target
            self._send(call.peer, self._request(call, "ACK"))
            call.media.start(response.media())
        elif response.status >= 300:
            self._send(call.peer, self._request(call, "ACK", branch_of="INVITE"))
            call.ended = response.at

    def _request_received(self, request: Sip) -> None:
        match request.method:
            case "REGISTER":
                self.registered.append(request.at)
                self.contact = request.source
                lasts = 0 if "expires=0" in request.header("contact") else 3600
                if request.header("expires") == "0":
                    lasts = 0
                contact = f"contact: <{request.contact()}>;expires={lasts}\r\n"
                self._respond(request, "200 OK", contact)
            case "INVITE":
                self._invited(request)
            case "BYE" | "CANCEL":
                self._respond(request, "200 OK")
                call = self.calls.pop(request.call_id, None)
                if call is not None:
                    if request.method == "CANCEL" and call.invite is not None:
                        self._respond(call.invite, "487 Request Terminated")
                    call.ended = request.at
                    self.drop(call.media)
            case "ACK":
                pass
            case _:
                self._respond(request, "200 OK")

    def _invited(self, request: Sip) -> None:
        if request.call_id in self.calls:  # sent again, or a change: as before
            return
        call = Call(
            id=request.call_id,
            peer=request.source,
            media=self.new_media(),
            local=request.header("to") + f";tag=far{request.call_id[:8]}",
            remote=request.header("from"),
            target=request.contact(),
            sent=request.at,
            invite=request,
        )
        self.calls[call.id] = call
        self.incoming.append(call)
        contact = f"contact: <sip:900@{self.address}:5060>\r\n"
        self._respond(request, "180 Ringing", contact)
        if self.answers:
            content = contact + "content-type: application/sdp\r\n"
            self._respond(request, "200 OK", content, self._sdp(call.media.port))
            call.media.start(request.media())


class ShortCalls:
    """One call after the other, in the receiving thread: no time is lost in between."""

    def __init__(self, far_end: FarEnd, peer: tuple[str, int], user: str, rtp: int) -> None:
        self.done = 0
        self.refused = 0
        self._far_end = far_end
        self._peer = peer
        self._user = user
        self._rtp = rtp
        self._running = True
        self.call = far_end._new_call(peer, user)

    def begin(self) -> None:
        self.call = self._far_end._new_call(self._peer, self._user)
        self._far_end._send(self._peer, self._far_end._invite(self.call, self._rtp))

    def stop(self) -> None:
        self._running = False
        time.sleep(1.0)  # the last one ends

    def received(self, message: Sip) -> None:
        far_end, call = self._far_end, self.call
        if not message.status:  # a BYE of theirs would be a surprise
            far_end._respond(message, "200 OK")
        elif message.method == "INVITE" and message.status >= 200:
            call.remote = message.header("to")
            if message.status == 200:
                call.target = message.contact()
                far_end._send(self._peer, far_end._request(call, "ACK"))
                call.cseq += 1
                far_end._send(self._peer, far_end._request(call, "BYE"))
            else:
                self.refused += 1
                far_end._send(self._peer, far_end._request(call, "ACK", branch_of="INVITE"))
                if self._running:
                    self.begin()
        elif message.method == "BYE" and self._running:
            self.done += 1
            self.begin()


_NO_MEDIA: Final = object.__new__(Media)
