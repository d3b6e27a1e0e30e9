"""A web server for signed files, in a lab, and the files that it serves.

Run as a program: `files.py ADDRESS PORT FOLDER [CERTIFICATE KEY [CA]]`. A request is one line in
requests.log; NAME.redirect holds where a name leads, NAME.slow answers never.
"""

import json
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doorstation.provision.jws import PrivateKey

from tests.support.lab import Lab, Process
from tests.support.tls import CertificateFiles


@dataclass
class WebServer:
    """`url` + name is where a file of `folder` is."""

    url: str
    folder: Path
    process: Process

    def put(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return f"{self.url}/{name}"

    def requests(self) -> list[str]:
        log = self.folder / "requests.log"
        return log.read_text().splitlines() if log.exists() else []


def signed(key: PrivateKey, serial: int = 1, *, whole: bool = True, **more: Any) -> bytes:
    """A signed file; `whole`: with the key in it, as a door without an owner needs it."""
    payload = {"sub": "*", "iat": int(time.time()), "serial": serial, "settings": {}} | more
    return key.sign(json.dumps(payload).encode(), with_key=whole).encode()


@contextmanager
def web_server(
    lab: Lab,
    folder: Path,
    address: str,
    certificate: CertificateFiles | None = None,
    *,
    clients: str | None = None,
) -> Iterator[WebServer]:
    """Serve `folder`; `clients`: a PEM file of whom a client's certificate has to be."""
    folder.mkdir(parents=True, exist_ok=True)
    port = 443 if certificate else 80
    more = [] if certificate is None else [certificate.certificate, certificate.key]
    more += [] if clients is None else [clients]
    command = (sys.executable, "-m", "tests.support.files", address, str(port), str(folder), *more)
    with lab.program(*command, directory=Path.cwd(), log=str(folder / "web.log")) as process:
        process.ready(lambda: "ready" in process.log_text(), "is ready")
        scheme = "https" if certificate else "http"
        yield WebServer(f"{scheme}://{address}", folder, process)


def main() -> None:
    import asyncio

    from aiohttp import web

    address, port, where, *tls = sys.argv[1:]
    folder = Path(where)

    async def answer(request: web.Request) -> web.StreamResponse:
        name = request.path.lstrip("/")
        known = request.headers.get("If-None-Match", "")
        with (folder / "requests.log").open("a") as log:
            log.write(f"{name} {known}".strip() + "\n")
        if (folder / f"{name}.redirect").exists():
            raise web.HTTPFound((folder / f"{name}.redirect").read_text())
        if (folder / f"{name}.slow").exists():
            await asyncio.sleep(60)
        if not (folder / name).is_file():
            raise web.HTTPNotFound
        body = (folder / name).read_bytes()
        etag = f'"{len(body)}-{hash(body)}"'
        if known == etag:
            raise web.HTTPNotModified
        return web.Response(body=body, headers={"ETag": etag})

    application = web.Application()
    application.router.add_get("/{name:.*}", answer)
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls[0], tls[1])
        if len(tls) > 2:
            context.load_verify_locations(tls[2])
            context.verify_mode = ssl.CERT_REQUIRED
    web.run_app(
        application,
        host=address,
        port=int(port),
        ssl_context=context,
        shutdown_timeout=0.1,  # not for who is kept waiting
        print=lambda *_: print("ready", flush=True),
    )


if __name__ == "__main__":
    main()
