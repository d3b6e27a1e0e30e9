"""`doorstation try`: a door and an indoor phone on loopback, and the page that shows both.

Door and phone are two ordinary stations on the fake board, each in a process of its own. The page
is a client of their control sockets, as `doorstation ctl` is: what it can do, anybody at the
machine can do without it.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import socket
import stat
import sys
import tempfile
import webbrowser
from collections.abc import AsyncIterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from doorstation.errors import TransportError
from doorstation.net.signals import stop_event

READY_WITHIN: Final = 20.0
STOP_WITHIN: Final = 5.0

DOOR: Final = """\
# The door of `doorstation try`: made at each start, removed at its end.
[board]
kind = "fake"

[sip]
user = "door"
display_name = "Front door"
port = {door_port}
listen = ["127.0.0.1"]

[buttons.call]
steps = [{{ ring = ["indoor"], seconds = 60 }}]
short_codes = true

[relays.door]
codes = ["5"]

[leds.status]

[contacts.door]

[readers.gate]
opens = "door"
accepts = ["0A00F8D3C5"]

[peers.indoor]
uri = "sip:indoor@127.0.0.1:{phone_port}"
auto_answer = true
short_codes = true

[audio]
rate = 8000
rtp_ports = "{door_rtp}"
microphone = "{visitor}"
{plain}
[log]
events = "{runtime}/door-events.jsonl"
level = "warning"

[control]
socket = "{runtime}/door.sock"
"""

PHONE: Final = """\
# The indoor phone of `doorstation try`: a second user agent of ours.
[board]
kind = "fake"

[sip]
user = "indoor"
display_name = "Indoor phone"
port = {phone_port}
listen = ["127.0.0.1"]

[door]
max_call = 600
ring_in = 120

[peers.door]
uri = "sip:door@127.0.0.1:{door_port}"

[leds.ringer]

[audio]
rate = 8000
rtp_ports = "{phone_rtp}"
{plain}
[log]
events = "{runtime}/phone-events.jsonl"
level = "warning"

[control]
socket = "{runtime}/phone.sock"
"""

PLAIN: Final = """\
# Sound by what Python brings along: nothing echoes here, and nothing is to be installed for it.
codecs = ["PCMA"]
echo = "off"
noise_suppression = false
gain_control = false
"""


def run(port: int, runtime: Path | None, *, browser: bool) -> int:
    """Run the trial until Ctrl-C; returns the exit status."""
    return asyncio.run(_run(port, runtime, browser=browser))


async def _run(port: int, runtime: Path | None, *, browser: bool) -> int:
    loop = asyncio.get_running_loop()
    stop = stop_event()
    with contextlib.ExitStack() as stack:
        if runtime is None:
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="doorstation-try-"))
            runtime = Path(made)
        _take(runtime, stack)
        values = _places(runtime)
        async with (
            _station(runtime, "door", DOOR.format_map(values)) as door,
            _station(runtime, "phone", PHONE.format_map(values)) as phone,
            _page(runtime, port) as address,
        ):
            print(f"Doorstation is ready: {address}", flush=True)  # noqa: T201
            # Without a screen it would be a browser of text, in this terminal, that we waited for.
            if browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
                await loop.run_in_executor(None, webbrowser.open, address)
            ended = [loop.create_task(process.wait()) for process in (door, phone)]
            waiting = loop.create_task(stop.wait())
            await asyncio.wait([waiting, *ended], return_when=asyncio.FIRST_COMPLETED)
            for task in (waiting, *ended):
                task.cancel()
            return 0 if stop.is_set() else 1


def _take(folder: Path, stack: contextlib.ExitStack) -> None:
    """Make the folder, ours alone until `stack` ends. Raises TransportError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_ours(folder)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, held)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TransportError(f"{folder}: a try runs there; choose another --runtime") from None
    except OSError as error:
        raise TransportError(f"{folder}: {error.strerror}; choose another --runtime") from None


def check_ours(folder: Path) -> None:
    """Raise TransportError for a folder in which another user could put links for our files.

    In /tmp somebody may have made it before us.
    """
    for found in (folder.lstat(), folder.stat()):
        if found.st_uid != os.geteuid():
            raise TransportError(f"{folder} belongs to another user; choose another --runtime")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise TransportError(f"{folder} can be written by others; chmod go-w {folder}")


def _places(runtime: Path) -> Mapping[str, Any]:
    """Ports that are free now: two for SIP, UDP and TCP, and a range of RTP for each side."""
    door_port, phone_port = _free_ports(2)
    # Below the kernel's range for outgoing connections, away from the default of a real door.
    first = 20000 + 2 * (os.getpid() % 4000)
    return {
        "runtime": _in_quotes(runtime),
        "plain": PLAIN,
        "visitor": _in_quotes(files("doorboard") / "sounds" / "visitor.wav"),
        "door_port": door_port,
        "phone_port": phone_port,
        "door_rtp": f"{first}-{first + 19}",
        "phone_rtp": f"{first + 20}-{first + 39}",
    }


def _in_quotes(path: object) -> str:
    """A path as it stands between the quotes of a TOML text."""
    return json.dumps(str(path), ensure_ascii=False)[1:-1]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            tcp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            ports.append(tcp.getsockname()[1])
        return ports


@contextlib.asynccontextmanager
async def _station(
    runtime: Path, name: str, config: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A station of its own process, up when its control socket answers."""
    path = runtime / f"{name}.toml"
    path.touch(mode=0o600)
    path.write_text(config)
    # A session of its own: Ctrl-C reaches this process alone, which then ends the others in order.
    # -P: what lies in the present folder, which may be /tmp, is no module of ours.
    command = (sys.executable, "-P", "-m", "doorstation", "run", "--config", str(path))
    process = await asyncio.create_subprocess_exec(*command, start_new_session=True)
    try:
        await _until_ready(process, runtime / f"{name}.sock", name)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_WITHIN)
            except TimeoutError:
                process.kill()
                await process.wait()
        path.unlink(missing_ok=True)


async def _until_ready(process: asyncio.subprocess.Process, path: Path, name: str) -> None:
    loop = asyncio.get_running_loop()
    limit = loop.time() + READY_WITHIN
    while loop.time() < limit:
        if process.returncode is not None:
            raise TransportError(f"the {name} ended at its start, status {process.returncode}")
        try:
            _, writer = await asyncio.open_unix_connection(str(path))
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        await writer.wait_closed()
        return
    raise TransportError(f"the {name} did not come up within {READY_WITHIN:.0f} s")


@contextlib.asynccontextmanager
async def _page(runtime: Path, port: int) -> AsyncIterator[str]:
    from aiohttp import web

    from doorstation.net.control import ControlClient
    from doorstation.web.try_page import create_app

    token = secrets.token_urlsafe(16)
    async with (
        ControlClient(str(runtime / "door.sock")) as door,
        ControlClient(str(runtime / "phone.sock")) as phone,
    ):
        app = create_app(door, phone, token)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", port)
            try:
                await site.start()
            except OSError as error:
                raise TransportError(
                    f"port {port} of 127.0.0.1: {os.strerror(error.errno or 0)}; "
                    "choose another with --port, or 0 for any"
                ) from error
            bound = runner.addresses[0][1]
            yield f"http://127.0.0.1:{bound}/?t={token}"
        finally:
            await runner.cleanup()
