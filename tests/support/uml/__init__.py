"""Tests in a kernel of their own, with simulated GPIO and sound: see `guest`."""

import hashlib
import lzma
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
BESIDE = REPOSITORY.parent / "shared" / "lab" / "linux.uml.xz"
"""Where a kernel built once may lie for several check-outs."""

HOW_TO_GET_ONE = """\
These tests run in a User Mode Linux kernel with gpio-sim and snd-aloop, and there is none.
Build it once, 4 to 6 minutes (what deploy/setup.sh test does, on x86_64):
    tests/support/uml/build.sh
or name one with UML_KERNEL, or leave these tests out: pytest -m 'not kernel'"""


def kernel() -> Path:
    """The kernel to run: UML_KERNEL, the one beside the check-out (unpacked), or the one built."""
    named = os.environ.get("UML_KERNEL")
    path = Path(named) if named else BESIDE if BESIDE.exists() else _built()
    if not path.exists():
        raise RuntimeError(f"no kernel for guests is built\n{path}: not there\n{HOW_TO_GET_ONE}")
    if path.suffix != ".xz":
        return path
    packed = path.read_bytes()
    folder = Path(tempfile.gettempdir()) / f"doorstation-uml-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    unpacked = folder / hashlib.sha256(packed).hexdigest()[:16]
    if not unpacked.exists():
        # Two test runs may do this at once: each writes its own, the rename is atomic.
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(lzma.decompress(packed))
        os.chmod(file.name, 0o700)
        os.rename(file.name, unpacked)
    return unpacked


def _built() -> Path:
    where = subprocess.run(
        [HERE / "build.sh", "--where"], capture_output=True, text=True, check=True
    )
    return Path(where.stdout.strip())


def run_guest(tests: str, *options: str, limit: float = 120) -> None:
    """Run a file of tests from this folder inside the kernel; AssertionError with its output."""
    # No time-out by pytest: an hour of simulated time is not an hour.
    pytest = ["-m", "pytest", "-q", "--color=no", "-pno:cacheprovider", "-otimeout=0"]
    command = [sys.executable, *pytest, "--confcutdir", str(HERE), str(HERE / tests)]
    in_guest(command, *options, limit=limit)


def in_guest(command: list[str], *options: str, limit: float = 120) -> str:
    """Run a command inside the kernel, with options of run.sh; returns all that it wrote.

    AssertionError with that if it fails.
    """
    guest = [str(HERE / "run.sh"), "-k", str(kernel()), "-t", str(round(limit)), *options, "--"]
    done = subprocess.run(
        [*guest, *command],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=limit + 30,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode} in the guest:\n{done.stdout}"
    return done.stdout
