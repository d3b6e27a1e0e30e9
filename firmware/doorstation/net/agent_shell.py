"""The bridge between the user agent, which does no I/O, and the event loop.

After any input: call the agent with the loop's time, carry out the outputs in order, re-arm one
timer at its deadline. Outputs that are no business of the network go up to `deliver`.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol, TypeAlias

from doorstation.errors import ProtocolError
from doorstation.printable import printable
from doorstation.sip.transport import (
    CloseFlow,
    DnsQuery,
    DnsResult,
    Flow,
    OpenFlow,
    Resolve,
    Send,
    Target,
)

log = logging.getLogger(__name__)
wire_log = logging.getLogger("doorstation.wire")

Direction: TypeAlias = Literal["sent", "received"]
OnWire: TypeAlias = Callable[[Direction, Flow, bytes], None]


class Agent(Protocol):
    """The inputs of `ua.agent.UserAgent` and of `sip.endpoint.Endpoint`."""

    @property
    def deadline(self) -> float | None: ...
    def data_received(self, flow: Flow, data: bytes, now: float) -> Sequence[object]: ...
    def flow_opened(self, target: Target, flow: Flow, now: float) -> Sequence[object]: ...
    def flow_failed(self, target: Target, reason: str, now: float) -> Sequence[object]: ...
    def flow_closed(self, flow: Flow, reason: str, now: float) -> Sequence[object]: ...
    def send_failed(self, flow: Flow, reason: str, now: float) -> Sequence[object]: ...
    def resolved(self, query: DnsQuery, answer: DnsResult, now: float) -> Sequence[object]: ...
    def timer_fired(self, now: float) -> Sequence[object]: ...


class Network(Protocol):
    """What of `net.sockets.SipSockets` is used here."""

    def send(self, flow: Flow, data: bytes) -> None: ...
    def open(self, target: Target) -> None: ...
    def close(self, flow: Flow, why: str) -> None: ...


class Names(Protocol):
    """What of `net.dns.Resolver` is used here."""

    async def resolve(self, query: DnsQuery) -> DnsResult: ...


class AgentShell:
    """Runs one agent. It is the `Sink` of the sockets: `sockets.attach(shell)`.

    A fault of ours, in the agent or above it, stops the shell and rises from `run`. A
    ProtocolError is the peer's fault: logged, and life goes on.
    """

    def __init__(
        self,
        agent: Agent,
        network: Network,
        names: Names,
        deliver: Callable[[object], None],
        on_wire: OnWire | None = None,
    ) -> None:
        self._agent = agent
        self._network = network
        self._names = names
        self._deliver = deliver
        self.on_wire = on_wire
        self._loop = asyncio.get_running_loop()
        self._outputs: deque[object] = deque()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._lookups: set[asyncio.Task[None]] = set()
        self._fault: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> None:
        """Wait for ever; raises the fault that stopped the agent."""
        await asyncio.shield(self._fault)

    async def aclose(self) -> None:
        """Stop timers and look-ups; inputs are ignored from now on. Closes twice harmlessly."""
        self._fault.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._outputs.clear()
        lookups = list(self._lookups)
        for task in lookups:
            task.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)

    def tell(self, act: Callable[[float], Sequence[object]]) -> None:
        """An input from above: `shell.tell(lambda now: agent.hang_up(call, now))`.

        May be called from `deliver`. Raises what `act` raises; anything but a ProtocolError also
        stops the shell.
        """
        try:
            self.carry_out(act(self._loop.time()))
        except ProtocolError:
            raise
        except Exception as fault:
            self._fail(fault)
            raise

    def carry_out(self, outputs: Sequence[object]) -> None:
        """Outputs of a call on the agent that returns more than outputs: after those in hand."""
        if self._fault.done():
            return
        self._outputs.extend(outputs)
        if self._busy:
            return
        self._busy = True
        try:
            while self._outputs:
                output = self._outputs.popleft()
                try:
                    self._carry_out_one(output)
                except ProtocolError as fault:
                    # The other outputs still have to happen.
                    log.warning("a peer's mistake got through, ignored: %s", fault)
        finally:
            self._busy = False
        self._arm()

    # -- Sink

    def data_received(self, flow: Flow, data: bytes) -> None:
        if wire_log.isEnabledFor(logging.DEBUG):
            wire_log.debug("< %s %s\n%s", flow.transport, _peer(flow), masked(data))
        if self.on_wire is not None:
            self.on_wire("received", flow, data)
        self._input(lambda now: self._agent.data_received(flow, data, now))

    def flow_opened(self, target: Target, flow: Flow) -> None:
        self._input(lambda now: self._agent.flow_opened(target, flow, now))

    def flow_failed(self, target: Target, reason: str) -> None:
        wire_log.debug("no way to %s: %s", target, reason)
        self._input(lambda now: self._agent.flow_failed(target, reason, now))

    def flow_closed(self, flow: Flow, reason: str) -> None:
        wire_log.debug("closed: %s %s: %s", flow.transport, _peer(flow), reason)
        self._input(lambda now: self._agent.flow_closed(flow, reason, now))

    def send_failed(self, flow: Flow, reason: str) -> None:
        wire_log.debug("not sent: %s %s: %s", flow.transport, _peer(flow), reason)
        self._input(lambda now: self._agent.send_failed(flow, reason, now))

    # -- inside

    def _input(self, act: Callable[[float], Sequence[object]]) -> None:
        if self._fault.done():
            return
        try:
            self.carry_out(act(self._loop.time()))
        except ProtocolError as fault:
            log.warning("a peer's mistake got through, ignored: %s", fault)
            self._arm()
        except Exception as fault:
            self._fail(fault)

    def _carry_out_one(self, output: object) -> None:
        match output:
            case Send(flow, data):
                if wire_log.isEnabledFor(logging.DEBUG):
                    wire_log.debug("> %s %s\n%s", flow.transport, _peer(flow), masked(data))
                if self.on_wire is not None:
                    self.on_wire("sent", flow, data)
                self._network.send(flow, data)
            case OpenFlow(target):
                self._network.open(target)
            case CloseFlow(flow, why):
                self._network.close(flow, why)
            case Resolve(query):
                task = self._loop.create_task(self._resolve(query))
                self._lookups.add(task)
                task.add_done_callback(self._lookups.discard)
            case _:
                self._deliver(output)

    async def _resolve(self, query: DnsQuery) -> None:
        try:
            answer = await self._names.resolve(query)
        except Exception as fault:
            self._fail(fault)
            return
        self._input(lambda now: self._agent.resolved(query, answer, now))

    def _arm(self) -> None:
        deadline = self._agent.deadline
        if self._timer is not None:
            if self._timer.when() == deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None and not self._fault.done():
            self._timer = self._loop.call_at(deadline, self._timer_fired)

    def _timer_fired(self) -> None:
        timer, self._timer = self._timer, None
        # The loop may call a moment early, by its clock's resolution.
        early = timer.when() if timer is not None else 0.0
        self._input(lambda now: self._agent.timer_fired(max(now, early)))

    def _fail(self, fault: Exception) -> None:
        if not self._fault.done():
            self._fault.set_exception(fault)
        self._outputs.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _peer(flow: Flow) -> str:
    host, port = flow.remote
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# -- the wire without secrets

_START: Final = re.compile(r"SIP/2\.0 |[A-Za-z0-9.!%*_+`'~-]{1,32} \S{1,2000} SIP/2\.0$")
_CREDENTIALS: Final = re.compile(
    r"((?:(?:Proxy-)?Authorization|(?:Proxy-)?Authentication-Info)[ \t]*:[ \t]*)(\S*)",
    re.IGNORECASE,
)
_USERNAME: Final = re.compile(r'\busername\*?[ \t]*=[ \t]*("[^"]*"|[^ ,]*)', re.IGNORECASE)
# Start line, CSeq or content type: an INFO may carry digits as any type, or as none. An order is
# signed, and anybody can read in it the passwords and codes that it sets.
_DIGITS: Final = re.compile(
    r"^INFO |[ \t]INFO[ \t]*$|application/(?:dtmf|vnd\.doorstation\.config)", re.IGNORECASE
)
_SIGNAL: Final = re.compile(r"([ \t]*Signal[ \t]*=).*", re.IGNORECASE)
# SRTP keys, in whatever line: RFC 4568's attribute, and the `k=` that came before it.
_KEYS: Final = re.compile(
    r"(.*?\binline[ \t]*:|[ \t]*a[ \t]*=[ \t]*crypto[ \t]*:[ \t]*\S*|[ \t]*k[ \t]*=).*",
    re.IGNORECASE,
)


def masked(data: bytes) -> str:
    """A message as text for people: no digest, key or door code; control characters made visible.

    Authorization values are reduced to scheme and username, bodies of DTMF and of orders to `*`.
    """
    lines: list[str] = []
    hidden = digits = body = started = False
    for line in data.decode("utf-8", "backslashreplace").split("\n"):
        line = line.removesuffix("\r")
        if not started:
            started = bool(line)
            # A stream may be cut anywhere: this could be the rest of credentials, and what
            # follows the body of a message whose headers were in the piece before.
            hidden = started and not _START.match(line)
            digits = hidden or bool(_DIGITS.search(line))
            lines.append("..." if hidden else printable(line))
            continue
        if hidden and line[:1] in (" ", "\t"):
            continue
        hidden = False
        if body and _START.match(line):
            body, digits = False, bool(_DIGITS.search(line))
        elif not line and not body:
            body = True
        elif body and digits and line:
            found = _SIGNAL.match(line)
            line = f"{found[1]}*" if found else "*"
        elif found := _CREDENTIALS.match(line):
            hidden = True
            user = _USERNAME.search(line)
            scheme = "" if "=" in found[2] else f"{found[2]} "
            line = f"{found[1]}{scheme}{user[0] + ' ' if user else ''}***"
        elif found := _SIGNAL.match(line):
            line = f"{found[1]}*"
        elif not body and _DIGITS.search(line):
            digits = True
        elif found := _KEYS.match(line):
            line = f"{found[1]}***"
        lines.append(printable(line))
    return "\n".join(lines)
