"""What the door tells to who ordered something, by a MESSAGE of its own: results, and plain text.

It goes by the account to who came by it, as soon as the door is registered, else the way that he
came; what no server takes is sent again (`provision.outbox`).
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from doorstation.commands import Reach
from doorstation.configurator import Configurator
from doorstation.errors import ProtocolError
from doorstation.ids import Ids
from doorstation.provision.outbox import Outbox
from doorstation.sip.transport import Flow
from doorstation.ua import events as ua
from doorstation.ua.agent import TEXT, Out
from doorstation.ua.inspect import RESULTS

log = logging.getLogger(__name__)

MAX_RESULT: Final = 5000
"""Bytes of a result: as a token it still passes a proxy's buffer."""
MAX_FLOWS: Final = 16
"""Ways that orders came: who writes another From each time fills no memory."""


class Asked(msgspec.Struct, frozen=True):
    """Who ordered something, and where he hears of it."""

    by: str
    how: str
    """With `by` what a change's record says: which one it is."""
    target: str
    by_account: bool
    op: str = ""
    kid: str = ""
    ctr: int = 0


class Result(msgspec.Struct, frozen=True):
    """What is told to who ordered something."""

    asked: Asked
    body: str
    kind: str


class Results:
    """On their way for as long as one station runs; the outbox hands what is left to the next."""

    def __init__(
        self,
        reach: Reach,
        configurator: Configurator,
        ids: Ids,
        is_registered: Callable[[], bool],
        outbox: Outbox[Result],
    ) -> None:
        self._reach = reach
        self._configurator = configurator
        self._ids = ids
        self._is_registered = is_registered
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        self._flows: dict[str, Flow] = {}
        self._resend: asyncio.TimerHandle | None = None
        self._closed = False

    def close(self) -> None:
        """The station ends."""
        self._closed = True
        if self._resend is not None:
            self._resend.cancel()
        self._outbox.station_ended(self._loop.time())

    @property
    def can_tell(self) -> bool:
        """Whether a message by the account would leave."""
        return self._reach.agent.config.account is None or self._is_registered()

    def came_by(self, target: str, flow: Flow) -> None:
        """The way that an order came."""
        self._flows.pop(target, None)
        self._flows[target] = flow
        if len(self._flows) > MAX_FLOWS:
            del self._flows[next(iter(self._flows))]

    def tell(self, asked: Asked, op: str, result: Mapping[str, Any]) -> None:
        """A result, signed by the door."""
        told = {
            "door": self._configurator.door, "kid": asked.kid, "ctr": asked.ctr, "op": op,
            "iat": int(time.time()), **result,
        }  # fmt: skip
        payload = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
        if len(payload) > MAX_RESULT:
            why = f"{len(payload)} bytes, {MAX_RESULT} can be sent: ask for fewer keys"
            kept = {name: told[name] for name in ("door", "kid", "ctr", "op", "iat")}
            kept["state"] = result["state"] if result["state"] != "done" else "too-large"
            payload = json.dumps({**kept, "number": told.get("number", 0), "why": why}).encode()
        self._add(asked, self._configurator.identity(self._ids).sign(payload), RESULTS)

    def tell_text(self, asked: Asked, text: str) -> None:
        """A line for who typed one."""
        self._add(asked, text, TEXT)

    def _add(self, asked: Asked, body: str, kind: str) -> None:
        self._outbox.add(Result(asked, body, kind), self._loop.time())
        self.send_due()

    def message_result(self, event: ua.MessageResult) -> None:
        """How a message of ours fared, perhaps one of these."""
        self._outbox.answered(event.message, event.status, self._loop.time())
        self.send_due()

    def send_due(self) -> None:
        """Send what is due, but by the account only while we are registered."""
        if self._closed:
            return
        now = self._loop.time()
        for result in self._outbox.take(
            now, lambda result: not result.asked.by_account or self.can_tell
        ):
            self._send(result)
        if self._resend is not None:
            self._resend.cancel()
        deadline = self._outbox.deadline(now)
        if deadline is not None:
            self._resend = self._loop.call_at(deadline, self.send_due)

    def _send(self, result: Result) -> None:
        asked, body, kind = result.asked, result.body, result.kind
        agent, flow = self._reach.agent, self._flows.get(asked.target)
        if flow is not None:
            self.came_by(asked.target, flow)

        def send(now: float) -> list[Out]:
            if asked.by_account or flow is not None:
                way = None if asked.by_account else flow
                name, outputs = agent.reply(asked.target, way, body, kind, now)
            else:
                name, outputs = agent.message(asked.target, body, now, kind)
            self._outbox.sent(result, name)
            return outputs

        try:
            self._reach.shell.tell(send)
        except ProtocolError as fault:
            log.warning("%s cannot be told: %s", asked.by, fault)
            self._outbox.dropped(result)
