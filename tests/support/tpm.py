"""A TPM made of software: one of its own, with what it keeps in a folder."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until


@contextmanager
def software_tpm(folder: Path) -> Iterator[str]:
    """How the provider reaches it, as TPM2OPENSSL_TCTI says it."""
    folder.mkdir()
    process, port = _start(folder)
    while process.poll() is not None:  # somebody else took a port meanwhile
        process, port = _start(folder)
    try:
        yield f"swtpm:host=127.0.0.1,port={port}"
    finally:
        process.terminate()
        process.wait()


def _start(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Either it answers at this port, or it has ended."""
    port = _two_free_ports()
    process = subprocess.Popen(
        (
            "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}",
            "--server", f"type=tcp,bindaddr=127.0.0.1,port={port}",
            "--ctrl", f"type=tcp,bindaddr=127.0.0.1,port={port + 1}",
            "--flags", "not-need-init,startup-clear",
        )
    )  # fmt: skip
    wait_until(lambda: process.poll() is not None or _answers(port), 20)
    return process, port


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def _two_free_ports() -> int:
    """The first of two that follow each other, as the library expects them."""
    while True:
        with socket.socket() as data, socket.socket() as control:
            data.bind(("127.0.0.1", 0))
            port = int(data.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                control.bind(("127.0.0.1", port + 1))
                return port
