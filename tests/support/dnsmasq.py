"""A real name server on loopback: Debian's dnsmasq, with the records a test hands in."""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class NameServer:
    """`address` is "127.0.0.1:port"; `log` grows with every question asked."""

    address: str
    log: list[str] = field(default_factory=list)

    def questions(self) -> list[str]:
        """What was asked, as "query[A] name", in order."""
        return [line.split(": ", 1)[1].split(" from ")[0] for line in self.log if "query[" in line]


@asynccontextmanager
async def name_server(records: Sequence[str], *, port: int = 0) -> AsyncIterator[NameServer]:
    """dnsmasq with `records` in its own words, e.g. "host-record=a.test,192.0.2.1,60".

    It knows nothing else: every other name of "test" does not exist.
    """
    # Debian has it where users without root do not look.
    program = shutil.which(
        "dnsmasq", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    )
    assert program is not None, "dnsmasq is needed: apt-get install dnsmasq-base"
    port = port or _free_port()
    process = await asyncio.create_subprocess_exec(
        program,
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--pid-file=",
        f"--port={port}",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--local=/test/",
        "--local-ttl=30",
        "--log-queries",
        "--log-facility=-",
        *(["--user=root"] if os.geteuid() == 0 else []),
        *(f"--{record}" for record in records),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    server = NameServer(f"127.0.0.1:{port}")
    # Once it has said this, its sockets are there.
    while not any(": started, " in line for line in server.log):
        line = await process.stderr.readline()
        assert line, f"dnsmasq ended: {' '.join(server.log)}"
        server.log.append(line.decode(errors="replace").rstrip())
    reading = asyncio.create_task(_read(process.stderr, server.log))
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        await reading


async def _read(stream: asyncio.StreamReader, log: list[str]) -> None:
    while line := await stream.readline():
        log.append(line.decode(errors="replace").rstrip())


def _free_port() -> int:
    """One that is free for UDP and TCP alike."""
    while True:
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            stream.bind(("127.0.0.1", 0))
            port = int(stream.getsockname()[1])
            try:
                datagrams.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
