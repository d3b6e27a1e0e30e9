"""Relays whose program ended without putting them to rest: killed, crashed, hung.

A Raspberry Pi's kernel keeps an output's level when its program dies: a door that was open just
then would stay open. So the service notes in its runtime folder which relays it drives, and systemd
runs this module after each of its ends (`ExecStopPost=`). The note and not the settings: those may
have changed since, or be what keeps the service from starting again.
"""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from doorboard.interfaces import BoardError

log = logging.getLogger(__name__)

NOTE: Final = "relays.json"


def _note() -> Path | None:
    """Where the note lies; None where there is no service."""
    folder = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(folder, NOTE) if folder else None


@contextlib.contextmanager
def noted(chip: str | None, relays: Mapping[int, bool]) -> Iterator[None]:
    """Note the pins of relays, and whether high is on, before they are opened.

    The note goes when they were closed in order, and stays after any failure.
    """
    note = _note()
    try:
        if note is not None:
            note.write_text(json.dumps({"chip": chip, "relays": list(relays.items())}))
    except OSError as error:
        log.warning("should this program be killed, its relays stay as they are: %s", error)
    yield
    if note is not None:
        note.unlink(missing_ok=True)


def main() -> int:
    """Put every relay of the note to rest; those that can be, when one cannot."""
    note = _note()
    if note is None or not note.exists():
        return 0
    noted = json.loads(note.read_text())
    from doorboard.gpio import GpioRelay, ensure_pin_factory

    status = 0
    for pin, active_high in noted["relays"]:
        try:
            ensure_pin_factory(noted["chip"])
            GpioRelay(pin, active_high=active_high).close()
        except BoardError as error:
            print(f"relay on pin {pin} is not at rest: {error}", file=sys.stderr)  # noqa: T201
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
