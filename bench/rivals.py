"""Other Python SIP libraries, in an environment of their own: measured, never depended upon."""

import subprocess
import sys
from pathlib import Path

LIBRARIES = ("sipmessage", "aiosip", "pyVoIP")


def _folder(root: Path) -> Path:
    return root / "build" / "bench" / "rivals"


def prepare(root: Path) -> None:
    """Install what is not there yet. Without a network the others are measured alone."""
    folder = _folder(root)
    done = folder / "installed"
    if done.exists() and done.read_text() == " ".join(LIBRARIES):
        return
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for library in LIBRARIES:
            command = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check"]
            installed = subprocess.run([*command, "install", "-q", library], check=False)
            if installed.returncode:
                print(f"{library} is not installed", file=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as fault:
        print(f"other libraries are not installed: {fault}", file=sys.stderr)
        return
    done.write_text(" ".join(LIBRARIES))


def python(root: Path) -> Path | None:
    """The environment's Python, where there is one."""
    found = _folder(root) / "bin/python"
    return found if found.exists() else None
