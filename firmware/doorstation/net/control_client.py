"""The control socket from outside, without asyncio: `doorstation ctl` has to start fast."""

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, Final

from doorstation.errors import DoorstationError, TransportError

# What a station that lost its mind could make us keep.
LONGEST_REPLY: Final = 4 * 1024 * 1024

REPLY_WITHIN: Final = 45.0
"""Seconds a command may take: longer than a request that nobody answers (32 s)."""


class Refused(DoorstationError):
    """The station did not do it; the text says why."""


def call(
    path: str,
    command: str,
    args: Mapping[str, object] | None = None,
    timeout: float = REPLY_WITHIN,
) -> object:
    """Ask the station listening at `path` and return the result.

    Raises Refused with the station's reason, TransportError when there is no station or no answer
    within `timeout` seconds.
    """
    with _connected(path, timeout) as connection:
        _send(connection, command, args or {})
        with connection.makefile("rb") as lines:
            return result_of(_line(lines, timeout))


def follow(path: str, kinds: Sequence[str], timeout: float = 10.0) -> Iterator[dict[str, object]]:
    """The station's events of these kinds as they happen, until it ends.

    An event of kind "gap" says how many were `lost` because this side was slow. Raises as `call`.
    """
    with _connected(path, timeout) as connection:
        _send(connection, "events", {"kinds": list(kinds)})
        with connection.makefile("rb") as lines:
            result_of(_line(lines, timeout))
            connection.settimeout(None)
            while line := lines.readline(LONGEST_REPLY):
                event = decoded(line).get("event")
                if isinstance(event, dict):
                    yield event


def result_of(reply: Mapping[str, object]) -> object:
    """The result in a reply. Raises Refused."""
    if reply.get("ok") is not True:
        raise Refused(str(reply.get("error", "no reason given")))
    return reply.get("result")


def decoded(line: bytes) -> dict[str, object]:
    """One line of the station. Raises TransportError when it is no JSON object."""
    try:
        value = json.loads(line)
    except ValueError as fault:
        raise TransportError(f"the station sent no JSON: {line[:80]!r}") from fault
    if not isinstance(value, dict):
        raise TransportError(f"the station sent no JSON object: {line[:80]!r}")
    return value


def _connected(path: str, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
    except OSError as fault:
        connection.close()
        raise unreachable(path, fault) from fault
    return connection


def unreachable(path: str, fault: OSError) -> TransportError:
    """Why nobody could be asked, in words for whoever typed the command."""
    if isinstance(fault, FileNotFoundError | ConnectionRefusedError):
        return TransportError(f"no station is running at {path}")
    return TransportError(f"cannot reach the station at {path}: {fault.strerror or fault}")


def _send(connection: socket.socket, command: str, args: Mapping[str, object]) -> None:
    request = {"id": 1, "command": command, "args": dict(args)}
    try:
        line = json.dumps(request, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as fault:
        raise DoorstationError(f"a value that no setting can have: {fault}") from None
    try:
        connection.sendall(line)
    except OSError:
        # A station that refused us has closed already; its reason may still be there to read.
        return


def _line(lines: BinaryIO, timeout: float) -> dict[str, object]:
    try:
        line = lines.readline(LONGEST_REPLY)
    except TimeoutError as fault:
        raise TransportError(f"the station did not answer within {timeout:g} seconds") from fault
    except OSError as fault:
        raise TransportError(f"the station closed the connection: {fault}") from fault
    if not line.endswith(b"\n"):
        raise TransportError("the station closed the connection without an answer")
    return decoded(line)
