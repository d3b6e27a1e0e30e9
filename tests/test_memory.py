"""What is not in the memory of a door that does not use it."""

import subprocess
import sys


def test_a_door_that_records_nothing_has_no_archives_and_compression_in_memory() -> None:
    look = (
        "import sys, doorstation.station;"
        "from doorstation.cli import main;"
        "main(['check', '/dev/null']);"
        "print(sorted({'tarfile', 'shutil', 'zlib', 'bz2', 'lzma'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
