"""What is not in the memory of a door that does not use it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.lab import Lab, eventually
from tests.support.peers import Kamailio
from tests.support.station import account, station


def test_a_door_that_records_nothing_has_no_archives_and_compression_in_memory() -> None:
    look = (
        "import sys, doorstation.station;"
        "from doorstation.cli import main;"
        "main(['check', '/dev/null']);"
        "print(sorted({'tarfile', 'shutil', 'zlib', 'bz2', 'lzma'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_pins_bring_no_archives_compression_and_mail_into_memory() -> None:
    look = (
        "import doorstation.deferred, sys;"
        "doorstation.deferred.defer();"
        "from doorboard.gpio import GpioRelay;"
        "GpioRelay(27).close();"
        "print(sorted({'email.message', '_bz2', '_lzma', '_csv'} & set(sys.modules)))"
    )
    pins = {**os.environ, "GPIOZERO_PIN_FACTORY": "mock"}
    command = [sys.executable, "-c", look]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=pins)
    assert done.stdout == "[]\n"


def test_a_plain_door_has_no_library_for_keys_names_and_cards_in_memory_at_its_first_start(
    town: Lab, proxy: Kamailio, tmp_path: Path
) -> None:
    settings = {**account(proxy), "provisioning.state": str(tmp_path / "state")}
    with station(town, tmp_path, settings) as door:
        door.wait_event("registration", registered=True)
        eventually((tmp_path / "state" / "identity.pem").exists, "its own key", 20.0)
        mapped = Path(f"/proc/{door.process._popen.pid}/maps").read_text()
    names = {Path(path).name for path in re.findall(r"/\S+\.so\S*", mapped)}
    unused = re.compile(
        r"_rust|_cffi|.*ssl|libcrypto|_hashlib|.*srtp|.*cares|libasound|alsaaudio|.*lzma|.*bz2"
    )
    assert sorted(filter(unused.match, names)) == []
