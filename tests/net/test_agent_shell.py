"""The bridge between an agent without I/O and the loop."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import pytest
from doorstation.errors import ProtocolError
from doorstation.net.agent_shell import AgentShell, masked
from doorstation.sip.transport import (
    CloseFlow,
    DnsAnswer,
    DnsQuery,
    DnsResult,
    Flow,
    OpenFlow,
    Resolve,
    Send,
    Target,
    Transport,
)

from tests.support.waiting import until

FLOW = Flow(1, Transport.UDP, ("127.0.0.1", 5060), ("127.0.0.2", 5060))
TARGET = Target(Transport.TCP, "127.0.0.2", 5060)
QUERY = DnsQuery("A", "example.com")


class ScriptedAgent:
    """Writes its inputs down and returns what the test says."""

    def __init__(self) -> None:
        self.inputs: list[tuple[object, ...]] = []
        self.outputs: list[object] = []
        self.deadline: float | None = None
        self.fault: Exception | None = None

    def _input(self, *what: object) -> Sequence[object]:
        self.inputs.append(what)
        if self.fault is not None:
            raise self.fault
        outputs, self.outputs = self.outputs, []
        return outputs

    def data_received(self, flow: Flow, data: bytes, now: float) -> Sequence[object]:
        return self._input("data", flow, data)

    def flow_opened(self, target: Target, flow: Flow, now: float) -> Sequence[object]:
        return self._input("opened", target, flow)

    def flow_failed(self, target: Target, reason: str, now: float) -> Sequence[object]:
        return self._input("failed", target, reason)

    def flow_closed(self, flow: Flow, reason: str, now: float) -> Sequence[object]:
        return self._input("closed", flow, reason)

    def send_failed(self, flow: Flow, reason: str, now: float) -> Sequence[object]:
        return self._input("unsent", flow, reason)

    def resolved(self, query: DnsQuery, answer: DnsResult, now: float) -> Sequence[object]:
        return self._input("resolved", query, answer)

    def timer_fired(self, now: float) -> Sequence[object]:
        assert self.deadline is not None
        assert now >= self.deadline
        self.deadline = None
        return self._input("timer")


class Recorder:
    """Network, names and everything above, as one list in order."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    def send(self, flow: Flow, data: bytes) -> None:
        self.done.append(Send(flow, data))

    def open(self, target: Target) -> None:
        self.done.append(OpenFlow(target))

    def close(self, flow: Flow, why: str) -> None:
        self.done.append(CloseFlow(flow, why))

    async def resolve(self, query: DnsQuery) -> DnsResult:
        self.asked.set()
        await self.answer.wait()
        return DnsAnswer((), 5.0)


def shell_of(
    agent: ScriptedAgent, recorder: Recorder, deliver: Callable[[object], None] | None = None
) -> AgentShell:
    return AgentShell(agent, recorder, recorder, deliver or recorder.done.append)


async def test_outputs_are_carried_out_in_order_and_events_go_up() -> None:
    agent, recorder = ScriptedAgent(), Recorder()
    shell = shell_of(agent, recorder)
    agent.outputs = [Send(FLOW, b"1"), "ringing", OpenFlow(TARGET), CloseFlow(FLOW, "why")]
    shell.data_received(FLOW, b"x")
    assert agent.inputs == [("data", FLOW, b"x")]
    assert recorder.done == [Send(FLOW, b"1"), "ringing", OpenFlow(TARGET), CloseFlow(FLOW, "why")]
    await shell.aclose()


async def test_outputs_of_an_event_come_after_those_in_hand() -> None:
    agent, recorder = ScriptedAgent(), Recorder()

    def deliver(event: object) -> None:
        recorder.done.append(event)
        shell.tell(lambda now: [Send(FLOW, b"answer to the event")])

    shell = shell_of(agent, recorder, deliver)
    agent.outputs = ["event", Send(FLOW, b"first")]
    shell.flow_opened(TARGET, FLOW)
    assert recorder.done == ["event", Send(FLOW, b"first"), Send(FLOW, b"answer to the event")]
    await shell.aclose()


async def test_one_timer_follows_the_deadline() -> None:
    agent, recorder = ScriptedAgent(), Recorder()
    shell = shell_of(agent, recorder)
    now = asyncio.get_running_loop().time()
    agent.deadline = now + 3600
    shell.flow_failed(TARGET, "far away")
    agent.deadline = now + 0.01
    shell.flow_closed(FLOW, "near")
    await until(lambda: ("timer",) in agent.inputs)
    assert agent.inputs.count(("timer",)) == 1
    await shell.aclose()


async def test_a_name_is_resolved_and_told() -> None:
    agent, recorder = ScriptedAgent(), Recorder()
    shell = shell_of(agent, recorder)
    agent.outputs = [Resolve(QUERY)]
    shell.send_failed(FLOW, "x")
    await recorder.asked.wait()
    recorder.answer.set()
    await until(lambda: ("resolved", QUERY, DnsAnswer((), 5.0)) in agent.inputs)
    await shell.aclose()


async def test_a_fault_of_ours_rises_from_run_and_stops_the_shell() -> None:
    agent, recorder = ScriptedAgent(), Recorder()
    shell = shell_of(agent, recorder)
    agent.fault = KeyError("bug")
    shell.data_received(FLOW, b"x")
    with pytest.raises(KeyError):
        await shell.run()
    shell.data_received(FLOW, b"y")
    assert agent.inputs == [("data", FLOW, b"x")]
    await shell.aclose()


async def test_a_fault_above_the_agent_rises_from_run_too() -> None:
    def deliver(event: object) -> None:
        raise ZeroDivisionError

    agent, recorder = ScriptedAgent(), Recorder()
    shell = shell_of(agent, recorder, deliver)
    agent.outputs = ["event"]
    shell.data_received(FLOW, b"x")
    with pytest.raises(ZeroDivisionError):
        await shell.run()
    await shell.aclose()


async def test_a_peers_mistake_never_stops_the_service() -> None:
    agent, recorder = ScriptedAgent(), Recorder()
    shell = shell_of(agent, recorder)
    agent.fault = ProtocolError("nonsense")
    shell.data_received(FLOW, b"x")
    agent.fault = None
    agent.outputs = [Send(FLOW, b"1")]
    shell.data_received(FLOW, b"y")
    assert recorder.done == [Send(FLOW, b"1")]
    await shell.aclose()


async def test_telling_raises_a_refusal_to_whoever_asked() -> None:
    def refuse(now: float) -> Sequence[object]:
        raise ProtocolError("no such call", 481)

    agent, recorder = ScriptedAgent(), Recorder()
    shell = shell_of(agent, recorder)
    with pytest.raises(ProtocolError):
        shell.tell(refuse)
    shell.tell(lambda now: [Send(FLOW, b"1")])
    assert recorder.done == [Send(FLOW, b"1")]
    await shell.aclose()


async def test_closing_cancels_timers_and_lookups() -> None:
    agent, recorder = ScriptedAgent(), Recorder()
    shell = shell_of(agent, recorder)
    agent.outputs = [Resolve(QUERY)]
    agent.deadline = asyncio.get_running_loop().time() + 0.01
    shell.data_received(FLOW, b"x")
    await recorder.asked.wait()
    await shell.aclose()
    recorder.answer.set()
    await asyncio.sleep(0.03)
    assert agent.inputs == [("data", FLOW, b"x")]


# -- the wire

REGISTER = (
    b"REGISTER sip:example.com SIP/2.0\r\n"
    b'Authorization: Digest username="door", realm="r", nonce="n",\r\n'
    b' response="0123456789abcdef"\r\n'
    b"proxy-authorization : Digest\trealm=x, username = bob, response=beef\r\n"
    b"Content-Length: 0\r\n\r\n"
)
DTMF = (
    b"INFO sip:door@example.com SIP/2.0\r\n"
    b"c: application/dtmf-relay\r\n\r\nSignal=5\r\nDuration=160\r\n"
)
BARE_DTMF = b"INFO sip:d SIP/2.0\r\nContent-Type: application/DTMF\r\n\r\n5"


async def test_the_wire_is_shown_with_directions(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "doorstation.wire")
    agent, recorder = ScriptedAgent(), Recorder()
    shell = shell_of(agent, recorder)
    seen: list[object] = []
    shell.on_wire = lambda *what: seen.append(what)
    agent.outputs = [Send(FLOW, REGISTER)]
    shell.data_received(FLOW, b"SIP/2.0 200 OK\r\n\r\n")
    assert seen == [("received", FLOW, b"SIP/2.0 200 OK\r\n\r\n"), ("sent", FLOW, REGISTER)]
    texts = [record.getMessage() for record in caplog.records]
    assert texts[0].startswith("< UDP 127.0.0.2:5060\nSIP/2.0 200 OK")
    assert texts[1].startswith("> UDP 127.0.0.2:5060\nREGISTER")
    assert "0123456789abcdef" not in caplog.text
    await shell.aclose()


def test_credentials_are_reduced_to_scheme_and_username() -> None:
    assert masked(REGISTER).split("\n")[1:4] == [
        'Authorization: Digest username="door" ***',
        "proxy-authorization : Digest username = bob ***",
        "Content-Length: 0",
    ]


def test_digits_in_info_are_hidden() -> None:
    assert masked(DTMF).split("\n")[3:] == ["Signal=*", "*", ""]
    assert "5" not in masked(BARE_DTMF)


@pytest.mark.parametrize("kind", [b"Content-Type: text/plain\r\n", b"c:\r\n text/x\r\n", b""])
def test_code_sent_by_info_of_an_odd_type_is_hidden(kind: bytes) -> None:
    """`text/plain` and no type at all are taken as digits, so they are secret as well."""
    info = b"INFO sip:d SIP/2.0\r\nCSeq: 2 INFO\r\n" + kind + b"\r\n4711\r\n"
    assert "4711" not in masked(info)
    assert "4711" not in masked(b"SIP/2.0 200 OK\r\nCSeq: 1 INFO\r\n\r\n" + info)
    assert "4711" not in masked(info[4:])
    assert masked(info.replace(b"INFO", b"MESSAGE")).endswith("4711\n")


def test_no_secret_shows_wherever_a_stream_is_cut() -> None:
    for cut in range(1, len(REGISTER)):
        shown = masked(REGISTER[:cut]) + masked(REGISTER[cut:])
        for secret in ("0123456789abcdef", "beef"):
            assert secret not in shown


@pytest.mark.parametrize("message", [DTMF, BARE_DTMF])
def test_no_digit_shows_wherever_a_stream_is_cut(message: bytes) -> None:
    for cut in range(1, len(message)):
        assert "5" not in masked(message[:cut]) + masked(message[cut:])


ORDER = (
    b"MESSAGE sip:door@example.com SIP/2.0\r\nCSeq: 1 MESSAGE\r\n"
    b"Content-Type: application/vnd.doorstation.config+jose\r\n\r\neyJhbGc.eyJzZXQ.c2lnbmVk"
)


def test_orders_are_hidden_wherever_a_stream_is_cut() -> None:
    """What an order sets, a password or a code, stands in it for everybody to read."""
    assert masked(ORDER).split("\n")[3:] == ["", "*"]
    for cut in range(1, len(ORDER)):
        assert "eyJzZXQ" not in masked(ORDER[:cut]) + masked(ORDER[cut:])
    assert "eyJzZXQ" not in masked(b"SIP/2.0 200 OK\r\n\r\n" + ORDER)


@pytest.mark.parametrize("name", ["Authentication-Info", "proxy-authentication-info "])
def test_what_a_server_proves_of_the_password_is_hidden(name: str) -> None:
    """Whoever has it can try passwords by himself, as with what we prove."""
    info = f'{name}: nextnonce="n", rspauth="0123456789abcdef",\r\n nc=00000001'
    shown = masked(f"SIP/2.0 200 OK\r\n{info}\r\nContent-Length: 0\r\n\r\n".encode())
    assert "0123456789abcdef" not in shown
    assert shown.split("\n")[1:3] == [f"{name}: ***", "Content-Length: 0"]


def test_pipelined_messages_are_masked_too() -> None:
    shown = masked(b"SIP/2.0 200 OK\r\n\r\n" + REGISTER + REGISTER)
    assert "0123456789abcdef" not in shown


OFFER = (
    b"INVITE sip:d SIP/2.0\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n"
    b"m=audio 4000 RTP/SAVP 8\r\nk=base64:SECRET0\r\n"
    b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:SECRET1+/==|2^20|1:4 KDR=0\r\n"
    b"A=Crypto :2 AEAD_AES_128_GCM INLINE:SECRET2;inline:SECRET3\r\n"
    b"a=crypto:3 OTHER key:SECRET4\r\na=sendrecv\r\n"
)


def test_keys_of_encrypted_sound_are_hidden() -> None:
    shown = masked(OFFER)
    assert "SECRET" not in shown
    assert "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:***\n" in shown
    assert shown.endswith("a=sendrecv\n")


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_no_key_shows_wherever_a_stream_is_cut(end: bytes) -> None:
    offer = OFFER.replace(b"\r\n", end)
    for cut in range(1, len(offer)):
        assert "SECRET" not in masked(offer[:cut]) + masked(offer[cut:]), cut


def test_any_bytes_can_be_shown() -> None:
    assert "\x1b" not in masked(b"\x1b[2J\xff\x00")
    assert masked(b"") == ""
