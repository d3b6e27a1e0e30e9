"""The other end of orders by MESSAGE: signs, sends, and hears what became of it.

One client is one commander with one key. The counter of the key lives beside its file and rises
before each order is sent, so that one that fails is never sent again. The key of a door is
remembered at its first result; one that changes is refused.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from doorstation.errors import DoorstationError, ProtocolError, TransportError
from doorstation.ids import SystemIds
from doorstation.net.agent_shell import AgentShell
from doorstation.net.dns import Resolver
from doorstation.net.sockets import Listen, SipSockets
from doorstation.provision.identity import DoorKey, read_result
from doorstation.provision.jws import PrivateKey
from doorstation.provision.pointers import as_typed
from doorstation.sip.digest import Credential
from doorstation.sip.endpoint import Endpoint
from doorstation.sip.transport import Transport
from doorstation.sip.uri import SipUri
from doorstation.ua import events as ua
from doorstation.ua.agent import UserAgent
from doorstation.ua.config import Account, AgentConfig
from doorstation.ua.inspect import DOOR_REALM, ORDERS, RESULTS

ANSWERED_WITHIN: Final = 40.0
"""Seconds: longer than a request that nobody answers (32 s)."""
RESULT_WITHIN: Final = 15.0
PATIENCE: Final = 30.0
"""Seconds in which an order is given again to a door that asks to be left alone for a moment: a
change whose word is missing would go back."""
STOP_WITHIN: Final = 2.0
"""Seconds that taking a registration back may take."""


class OrderRefused(DoorstationError):
    """The door, or a server on the way, said no; `status` is the SIP status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"{status} {why}")
        self.status = status


class KeyFile:
    """A commander's key and what is known beside it: its counter, and the fingerprints of doors."""

    def __init__(self, path: Path) -> None:
        """Raises DoorstationError when there is no such key."""
        self.path = path
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise DoorstationError(f"{path}: others can read this key; chmod 600 {path}")
                self.key = PrivateKey.parse(file.read())
        except OSError as fault:
            raise DoorstationError(f"{path}: {fault.strerror}") from None
        except ValueError as fault:
            raise DoorstationError(f"{path}: {fault}") from None

    @classmethod
    def new(cls, path: Path) -> "KeyFile":
        """Make a key that only its owner may read. An existing file is left alone."""
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(PrivateKey.new().pem)
        except OSError as fault:
            raise DoorstationError(f"{path}: {fault.strerror}") from None
        return cls(path)

    def next_counter(self) -> int:
        """One more than ever before, on disk on return."""
        place = self._beside("counter")
        last = 0
        with contextlib.suppress(ValueError):
            last = int(_content(place) or b"0")
        # The time as a floor: a lost file does not end the key.
        counter = max(last + 1, int(time.time()))
        _replace(place, f"{counter}\n")
        return counter

    def check_door(self, door: str, key: DoorKey) -> None:
        """Remember a door's fingerprint, or compare it. Raises DoorstationError: another one."""
        place = self._beside("doors")
        try:
            known = msgspec.json.decode(_content(place) or b"{}", type=dict[str, str])
        except ValueError as fault:
            raise DoorstationError(f"{place}: {fault}") from None
        if known.setdefault(door, key.fingerprint) != key.fingerprint:
            raise DoorstationError(
                f"the door {door} signs with another key than before: not the same door, or reset; "
                f"if that is right, take it out of {place}"
            )
        _replace(place, json.dumps(known, indent=1))

    def _beside(self, what: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{what}")


class OrderClient:
    """Sends orders to one door. Made by `order_client`."""

    def __init__(self, keys: KeyFile, to: str, door: str, config: AgentConfig) -> None:
        self._keys = keys
        self._to = to
        self._door = door
        ids = SystemIds()
        self.agent = UserAgent(config, ids, Endpoint(ids))
        self.shell: AgentShell
        self._answers: dict[str, asyncio.Future[ua.MessageResult]] = {}
        self._results: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self.registered: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def order(self, op: str, **fields: Any) -> Mapping[str, Any]:
        """Give an order; its first result. Raises OrderRefused, TransportError."""
        counter = await self.send(op, **fields)
        return await self.result(counter)

    async def send(self, op: str, **fields: Any) -> int:
        """Give an order; its counter, once the door has accepted it. Raises OrderRefused."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while True:
            counter = self._keys.next_counter()
            answer = await self._sent(counter, op, fields)
            if answer.status < 300:
                return counter
            for realm in answer.realms:
                named = DOOR_REALM.fullmatch(realm)
                if named and named[1] != self._door:
                    why = f"the door there says that it is {named[1]}, not {self._door}"
                    raise OrderRefused(answer.status, why)
            wait = answer.retry_after
            if answer.status != 503 or wait is None or loop.time() + wait > until:
                lines = answer.why.splitlines() if answer.status == 422 else [answer.why]
                raise OrderRefused(answer.status, "\n".join(map(as_typed, lines)))
            await asyncio.sleep(max(wait, 1.0))

    async def _sent(self, counter: int, op: str, fields: Mapping[str, Any]) -> ua.MessageResult:
        """How an order is answered. Raises TransportError."""
        order = {"sub": self._door, "ctr": counter, "iat": int(time.time()), "op": op, **fields}
        token = self._keys.key.sign(json.dumps(order, separators=(",", ":")).encode())
        loop = asyncio.get_running_loop()
        name, outputs = self.agent.message(self._to, token, loop.time(), ORDERS)
        answered = self._answers[name] = loop.create_future()
        self.shell.carry_out(outputs)
        try:
            return await asyncio.wait_for(answered, ANSWERED_WITHIN)
        except TimeoutError:
            raise TransportError(f"no answer within {ANSWERED_WITHIN:.0f} s") from None

    async def result(self, counter: int, within: float = RESULT_WITHIN) -> Mapping[str, Any]:
        """The next result of an order. Raises TransportError: none came."""
        try:
            async with asyncio.timeout(within):
                while (result := await self._results.get()).get("ctr") != counter:
                    pass
        except TimeoutError:
            raise TransportError(f"accepted, but no result within {within:.0f} s") from None
        return result

    def deliver(self, event: object) -> None:
        match event:
            case ua.MessageResult():
                answered = self._answers.pop(event.message, None)
                if answered is not None and not answered.done():
                    answered.set_result(event)
            case ua.ContentReceived():
                self._result_received(event)
            case ua.RegistrationChanged(state, _, why) if not self.registered.done():
                if state is ua.RegistrationState.REGISTERED:
                    self.registered.set_result("")
                elif state in (ua.RegistrationState.REFUSED, ua.RegistrationState.RETRYING):
                    self.registered.set_result(why or state.value)

    def _result_received(self, event: ua.ContentReceived) -> None:
        try:
            self._results.put_nowait(self._read(event.request.body))
            status, why = 200, ""
        except (DoorstationError, ValueError, RecursionError) as fault:
            status, why = 403, str(fault)
        self.shell.tell(
            lambda now: self.agent.answer_content(
                event, status, now, body=why.encode(), once=status != 200
            )
        )

    def _read(self, body: bytes) -> Mapping[str, Any]:
        """Raises NotSigned, DoorstationError."""
        payload, key = read_result(body.decode("ascii", "replace").strip())
        result = msgspec.json.decode(payload, type=dict[str, Any])
        if result.get("door") != self._door or result.get("kid") != self._keys.key.public.kid:
            raise ProtocolError("no result of an order of ours", status=403)
        self._keys.check_door(self._door, key)
        return result


@contextlib.asynccontextmanager
async def order_client(
    keys: KeyFile,
    to: str,
    door: str,
    user: str,
    password: str,
    account: Account | None = None,
) -> AsyncIterator[OrderClient]:
    """A commander `user` who orders the door of UUID `door` at the SIP URI `to`.

    With an account it is registered first, so that results find the way back through the server.
    """
    config = AgentConfig(
        account=account,
        local_user=user,
        contents=(RESULTS,),
        proves=(Credential(user, password, f"{door}.config"),),
    )
    client = OrderClient(keys, to, door, config)
    host = "::" if "[" in to else "0.0.0.0"  # noqa: S104 - results come from wherever the door is
    port = await _free_port(host)
    places = [Listen(transport, port, host) for transport in (Transport.UDP, Transport.TCP)]
    async with contextlib.AsyncExitStack() as stack:
        sockets = await stack.enter_async_context(SipSockets(places))
        names = await stack.enter_async_context(contextlib.aclosing(Resolver()))
        shell = client.shell = AgentShell(client.agent, sockets, names, client.deliver)
        await stack.enter_async_context(contextlib.aclosing(shell))
        sockets.attach(shell)
        if account is not None:
            shell.tell(client.agent.start)
            why = await asyncio.wait_for(client.registered, ANSWERED_WITHIN)
            if why:
                raise TransportError(f"{account.aor}: not registered: {why}")
        yield client
        shell.tell(client.agent.stop)
        loop = asyncio.get_running_loop()
        limit = loop.time() + STOP_WITHIN
        while not client.agent.idle and loop.time() < limit:  # noqa: ASYNC110 - at its end
            await asyncio.sleep(0.02)


def account_of(uri: SipUri, password: str) -> Account:
    """The account of an address of record at its own domain."""
    registrar = SipUri(host=uri.host, port=uri.port, params=uri.params)
    return Account(uri.user_text, uri.host, registrar, password, keep_alive=0)


async def _free_port(host: str) -> int:
    """A port that is free by UDP and by TCP: what From says holds for both."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, host, 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


def _content(place: Path) -> bytes:
    """Of a small file; empty if there is none. Raises DoorstationError."""
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as fault:
        raise DoorstationError(f"{place}: {fault.strerror}") from None


def _replace(place: Path, text: str) -> None:
    """Write a small file whole or not at all. Raises DoorstationError."""
    new = place.with_name(f"{place.name}.new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(place)
    except OSError as fault:
        raise DoorstationError(f"{place}: {fault.strerror}") from None
