import subprocess
import sys
import threading
from pathlib import Path

import pytest
from doorstation import deferred

from tests.support.tls import Authority

WITHOUT_TLS = """
import doorstation.deferred as deferred, sys
deferred.defer()
import asyncio, ssl
from asyncio import sslproto

async def main():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    server.close()

asyncio.run(main())
print("_ssl" in sys.modules, hasattr(sslproto, "__path__"))
source = ssl.__spec__.loader.get_source("ssl")
print(ssl.SSLContext.__module__, hasattr(ssl, "nothing"), source > "")
print("_ssl" in sys.modules)
"""

WITH_TLS = """
import sys
from doorstation.deferred import defer
defer()
import asyncio, ssl

async def main(ca, certificate, key):
    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()

    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(certificate, key)
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=own)
    trust = ssl.create_default_context(cafile=ca)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(*address, ssl=trust)
    writer.write(b"heard\\n")
    print((await reader.readline()).decode(), end="")
    try:
        await asyncio.open_connection(*address, ssl=True)
    except ssl.SSLCertVerificationError as fault:
        print("refused")

asyncio.run(main(*sys.argv[1:]))
"""


def run(script: str, *words: str) -> list[str]:
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def test_asyncio_without_tls_runs_no_ssl_and_the_first_name_that_is_asked_for_runs_all() -> None:
    assert run(WITHOUT_TLS) == ["False False", "ssl False True", "True"]


def test_a_door_runs_without_typing_extensions_which_are_there_for_others() -> None:
    look = (
        "import sys;"
        "from doorstation.cli import main;"
        "main(['run', '--config', '/nonexistent/door.toml']);"
        "print('msgspec' in sys.modules, 'typing_extensions' in sys.modules);"
        "import typing_extensions;"
        "print(typing_extensions.__name__)"
    )
    assert run(look) == ["True False", "typing_extensions"]


def test_tls_is_what_it_always_is_when_it_is_first_used(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("127.0.0.1")
    assert run(WITH_TLS, authority.ca, files.certificate, files.key) == ["heard", "refused"]


def test_another_thread_gets_the_whole_module_though_the_first_one_still_runs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = "import tests.test_deferred as test\ntest.ask_elsewhere()\nlast = 'last name'\n"
    (tmp_path / "deferred_example.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(deferred, "MODULES", {"deferred_example"})
    deferred.defer()
    import deferred_example  # type: ignore[import-not-found]

    assert not ASKED
    assert deferred_example.last == "last name"
    (thread,) = ASKED
    thread.join()
    assert ANSWERS == ["last name"]


ASKED: list[threading.Thread] = []
ANSWERS: list[str] = []


def ask_elsewhere() -> None:
    """Have another thread ask the module that is running for its last name."""
    started = threading.Event()

    def ask() -> None:
        import deferred_example

        started.set()
        ANSWERS.append(deferred_example.last)

    ASKED.append(threading.Thread(target=ask))
    ASKED[0].start()
    started.wait()
