"""Whatever the far ends send, the agent neither raises nor keeps anything for ever.

Real sequences (registration, calls both ways, re-INVITE, UPDATE, PRACK, INFO, texts) are played
between the agent and a far end that now and then spoils one of its messages: the shell above stops
the door at the first exception that is not the peer's fault.
"""

import random
from collections.abc import Callable

import pytest
from doorstation.sip.message import Request, Response, check_request, check_response
from doorstation.sip.message import format_message as write
from doorstation.sip.transport import Flow, Transport
from doorstation.sip.uri import SipUri
from doorstation.ua.config import Account, AgentConfig, Peer

from tests.support.wire import LOCAL, REMOTE, SDP, Wire, request, respond, udp

STRANGER = "203.0.113.9"

NASTY = (
    "", " ", "²", "٣", "-1", "0", "99999999999999999999", "4294967296", "NaN", '"', '"a', "<", "<>",
    "*", ",", ";", ";;;", "a,,b", "\\", "a\\\0b", "\x01", "\x7f", "\x85", "\u2028", "é", "%00",
    "sip:", "<sip:@>", "<tel:1>", "tel:1", "sip:²@[::1]:0;a=²", '<sip:a@b;x="y>', "x" * 3000,
    "<sip:x@h..h>", "<sip:x@[1:2]>", "<sips:x@h;transport=udp>;q=²;expires=²", "1 2 3", "1 INVITE",
    "²;refresher=uac", "90;refresher=²", "100rel, ²", "timer", '"100rel', "100rel,timer,x",
    "Digest", 'Digest realm="²", nonce="', 'Digest realm=a, nonce=b, algorithm=²', "é/é", "a/b;c=",
    "application/sdp;x=", "SIP/2.0/UDP h;branch=z9hG4bK²;received=a b", "SIP/2.0/²",
    'SIP/2.0/UDP 1.2.3.4:1;rport=99999;received="a b"', "<sip:p.test>, <tel:1>", "<tel:1>;lr",
)  # fmt: skip

NUMBERS = (
    "Session-Expires", "Min-SE", "RSeq", "Expires", "Min-Expires", "Retry-After", "Max-Forwards",
)  # fmt: skip
NO_NUMBERS = ("²", "٣", "-1", "1e3", "9" * 25, "²;refresher=uac", "0", " ")

ADDED = (
    ("Via:", ";rport=99999"), ("Via:", ';received="a b"'), ("Via:", ";received=[::1"),
    ("Contact:", ";expires=²"), ("Contact:", ";q=²"), ("Contact:", ', "'), ("To:", ";tag=x"),
    ("From:", ";tag="), ("CSeq:", "9"), ("Require:", ', "'), ("Allow:", ', "'), ("RAck:", "²"),
)  # fmt: skip

HEADERS = (
    "Via", "From", "To", "Call-ID", "CSeq", "Contact", "Record-Route", "Route", "Require", "Allow",
    "Supported", "Session-Expires", "Min-SE", "RSeq", "RAck", "Expires", "Min-Expires", "Accept",
    "Retry-After", "Content-Type", "Content-Disposition", "Content-Encoding", "Content-Length",
    "WWW-Authenticate", "Proxy-Authenticate", "Authorization", "Info-Package", "Reason",
    "Max-Forwards", "Proxy-Require", "Timestamp", "Unsupported", "Date", "P-Odd",
)  # fmt: skip

SDP_LINES = (
    "c=IN IP4 ²", "m=audio ² RTP/AVP 8", "m=audio 0 RTP/AVP 8", "a=rtpmap:² x", "a=ptime:²", "\0",
    "m=video 1 RTP/AVP 31", "a=rtcp:² IN IP4 x", "o=", "t=²", "a=sendonly", "c=IN IP4 0.0.0.0",
    "m=audio 4000 RTP/AVP 96 97", "a=maxptime:-1", "b=AS:²", "v=1",
)  # fmt: skip


class FarEnd:
    """Everybody outside, seeded: plausible most of the time."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.malice = self.random.choice((0.0, 0.2, 0.5))
        account = Account(
            user="door",
            domain="pbx.test",
            registrar=SipUri(host=REMOTE, params=self.random.choice(((), (("transport", "tcp"),)))),
            password="secret",
            backup_registrars=self.random.choice(((), (SipUri(host="192.0.2.3"),))),
        )
        peers = (Peer("indoor", SipUri(host=REMOTE)), Peer("far", SipUri(host="x"), password="p"))
        self.wire = Wire(AgentConfig(account=account, peers=peers, session_expires=90), seed=seed)
        self.seen: list[tuple[Flow, Request | Response]] = []
        self.invites: list[Request] = []  # of ours, not answered for good
        self.dialogs: list[tuple[str, str, str]] = []  # Call-ID, their tag, our tag
        self.cseq = 1
        self.calls = 0
        self.rseq = "1"

    def begin(self) -> None:
        """Get somewhere first: registered, and into a call, from whichever side."""
        w, pick = self.wire, self.random
        if pick.random() < 0.7:
            w.do(w.agent.start(w.now))
            self.look()
            self.answer(200)
            self.look()
        way = pick.randrange(3)
        if way == 0:
            self.place()
            self.look()
            for status in (pick.choice((180, 183)), pick.choice((183, 200)), 200):
                self.answer(status)
                self.look()
        elif way == 1:
            self.call_in("INVITE", REMOTE)
            for name in list(w.agent.calls):
                w.do(w.agent.ring(name, w.now))
                if pick.random() < 0.5:
                    w.do(w.agent.progress(name, 16384, w.now))
                    self.look()
                    self.in_dialog("PRACK")
                w.do(w.agent.answer(name, 16384, w.now))
                self.look()
                self.in_dialog("ACK")

    def step(self) -> None:
        w, pick = self.wire, self.random
        names = [*w.agent.calls, "nobody"]
        acts: tuple[Callable[[], object], ...] = (
            *[self.in_dialog] * 8, *[self.answer] * 8, self.call_in, self.noise,
            lambda: w.wait(pick.choice((0.1, 0.6, 5, 33, 100))),
            lambda: w.do(w.agent.ring(pick.choice(names), w.now)),
            lambda: w.do(w.agent.progress(pick.choice(names), 16384, w.now)),
            lambda: w.do(w.agent.answer(pick.choice(names), 16384, w.now)),
            lambda: w.do(w.agent.reject(pick.choice(names), 486, w.now)),
            lambda: w.do(w.agent.hang_up(pick.choice(names), w.now)),
            lambda: w.do(w.agent.hold(pick.choice(names), w.now)),
            lambda: w.do(w.agent.resume(pick.choice(names), w.now)),
            lambda: w.do(w.agent.send_info_digit(pick.choice(names), "5", w.now)),
            lambda: w.change_network(),
            lambda: w.do(w.agent.register(w.now)),
            lambda: w.do(w.agent.unregister(w.now)),
            lambda: w.do(w.agent.message(f"sip:x@{REMOTE}", "hello", w.now)[1]),
            lambda: w.do(w.agent.cancel_group("g", w.now)),
            self.place, self.place, self.lose,
        )  # fmt: skip
        pick.choice(acts)()
        self.look()

    def look(self) -> None:
        """What the agent sent is well formed, always; and is answered later."""
        for flow, message in self.wire.sent_with_flows():
            if isinstance(message, Request):
                check_request(message)
                if message.method == "INVITE" and not message.to.tag:
                    self.invites = [*self.invites[-4:], message]
            elif message.status not in (400, 505, 513):  # those copy what there is
                check_response(message)
                self.rseq = message.headers.get("RSeq") or self.rseq
                if message.cseq.method == "INVITE" and message.to.tag:
                    self.dialogs.append((message.call_id, message.from_.tag or "", message.to.tag))
            self.seen = [*self.seen[-10:], (flow, message)]

    def place(self) -> None:
        targets = self.random.sample(("**9", f"sip:a@{REMOTE}", "sip:b@192.0.2.7"), 2)
        self.wire.do(self.wire.agent.place("g", targets, 16384, self.wire.now))

    def lose(self) -> None:
        if self.seen:
            flow = self.random.choice(self.seen)[0]
            act = self.random.choice((self.wire.agent.flow_closed, self.wire.agent.send_failed))
            self.wire.do(act(flow, "lost", self.wire.now))

    def body(self) -> bytes:
        return self.random.choice((SDP, SDP, SDP.replace(b"sendrecv", b"sendonly"), b""))

    def headers(self) -> list[tuple[str, str]]:
        usual = (
            ("Supported", "100rel, timer"), ("Require", "100rel"), ("RSeq", "1"), ("RSeq", "2"),
            ("Session-Expires", "90;refresher=uac"), ("Session-Expires", "90;refresher=uas"),
            ("Allow", "INVITE, ACK, UPDATE"), ("Record-Route", f"<sip:{REMOTE};lr>"),
            ("Contact", f"<sip:else@{REMOTE}>"), ("Min-SE", "100"), ("Min-Expires", "400"),
            ("Expires", "60"), ("Retry-After", "10"), ("Accept", "application/sdp"),
            ("WWW-Authenticate", 'Digest realm="r", nonce="n", qop="auth"'),
            ("Proxy-Authenticate", 'Digest realm="p", nonce="m", algorithm=SHA-256'),
        )  # fmt: skip
        return self.random.sample(usual, self.random.randrange(5))

    def call_in(self, method: str = "", source: str = "") -> None:
        pick = self.random
        self.calls += pick.random() < 0.8
        method = method or pick.choice(("INVITE", "INVITE", "OPTIONS", "MESSAGE", "CANCEL"))
        text = method == "MESSAGE"
        data = request(
            method,
            *self.headers(),
            body=b"hello" if text else self.body(),
            content_type="text/plain" if text else "application/sdp",
            call_id=f"in-{self.calls}",
            branch=f"in{self.calls}",
        )
        self.deliver(data, udp(source or pick.choice((REMOTE, REMOTE, STRANGER))))

    def in_dialog(self, method: str = "") -> None:
        dialogs = self.dialogs[-6:]
        dialogs += [(i.call_id, "peer", i.from_.tag or "") for i in self.invites]
        if not dialogs:
            return
        call_id, theirs, ours = self.random.choice(dialogs)
        method = method or self.random.choice(
            ("ACK", "ACK", "PRACK", "INVITE", "UPDATE", "INFO", "OPTIONS", "BYE", "MESSAGE")
        )
        self.cseq += self.random.choice((0, 1, 1, 1))
        digit = method == "INFO"
        self.deliver(
            request(
                method,
                *self.headers(),
                ("RAck", f"{self.rseq} 1 INVITE"),
                body=b"Signal=5\r\nDuration=160\r\n" if digit else self.body(),
                content_type="application/dtmf-relay" if digit else "application/sdp",
                call_id=call_id,
                from_tag=theirs,
                to_tag=ours,
                cseq=1 if method == "ACK" else self.cseq,
            ),
            udp(),
        )

    def answer(self, status: int = 0) -> None:
        asked = [(f, m) for f, m in self.seen if isinstance(m, Request) and m.method != "ACK"]
        if not asked:
            return
        flow, message = self.random.choice(asked[-3:])
        status = status or self.random.choice(
            (
                100,
                180,
                183,
                183,
                200,
                200,
                200,
                200,
                301,
                401,
                407,
                422,
                423,
                481,
                486,
                491,
                500,
                503,
            )
        )
        tag = self.random.choice(("peer", "peer", "fork"))
        body = self.body() if message.method in ("INVITE", "UPDATE", "PRACK") else b""
        self.deliver(write(respond(message, status, *self.headers(), body=body, tag=tag)), flow)

    def noise(self) -> None:
        tcp = Flow(900 + self.random.randrange(3), Transport.TCP, (LOCAL, 5060), (STRANGER, 4000))
        data = self.random.randbytes(self.random.randrange(60))
        self.deliver(data, self.random.choice((udp(STRANGER), tcp)))

    def deliver(self, data: bytes, flow: Flow) -> None:
        while self.random.random() < self.malice:
            data = self.spoil(data)
        self.wire.receive(data, flow)

    def spoil(self, data: bytes) -> bytes:
        pick = self.random
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode(errors="replace").split("\r\n")
        at = pick.randrange(len(lines))
        name = lines[at].partition(":")[0] if at and pick.random() < 0.5 else pick.choice(HEADERS)
        match pick.randrange(10):
            case 0:
                del lines[at]
            case 1:
                lines.append(lines[at])
            case 2:
                place = pick.randrange(len(lines[at]) + 1)
                junk = pick.choice(('"', "<", ">", ";", ",", "\0", "²", "=", " ", ":"))
                lines[at] = lines[at][:place] + junk + lines[at][place + 1 :]
            case 3 if body:
                body += f"{pick.choice(SDP_LINES)}\r\n".encode()
            case 4 if body:
                body = body.replace(b"4000", pick.choice((b"0", b"1", b"65535", b"-1")))
            case 5 | 6:
                start, more = pick.choice(ADDED)
                lines = [line + more if line.startswith(start) else line for line in lines]
            case 7 | 8:
                name = pick.choice(NUMBERS)
                lines = [line for line in lines if not line.startswith(name)]
                lines.append(f"{name}: {pick.choice(NO_NUMBERS)}")
            case _:
                lines = [line for line in lines if not line.startswith(name)]
                lines.append(f"{name}: {pick.choice(NASTY)}")
        head = "\r\n".join(lines).encode()
        return head + b"\r\n\r\n" + body


@pytest.mark.parametrize("part", range(10))
def test_no_message_stops_the_agent_and_nothing_stays_behind(part: int) -> None:
    for seed in range(part * 20, part * 20 + 20):
        far_end = FarEnd(seed)
        agent, wire = far_end.wire.agent, far_end.wire
        try:
            far_end.begin()
            for _ in range(40):
                far_end.step()
            wire.do(agent.stop(wire.now))
            wire.wait(400)
        except Exception as fault:
            raise AssertionError(f"seed {seed}") from fault
        assert agent.calls == {}, f"seed {seed}"
        assert agent.idle, f"seed {seed}"
        load = dict(wire.endpoint.load)
        del load["flows"]
        assert not any(load.values()), f"seed {seed}: {load}"
        assert len(agent._requester) == 0, f"seed {seed}"
        assert not agent._groups
        assert not agent._servers
