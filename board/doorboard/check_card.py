"""Whether a sound card can be opened: `python -m doorboard.check_card DEVICE RATE`.

Exit status 0 if it can, else 1 and why not is written, with the names of those there are.
A program of its own: alsa-lib in memory would cost a door that waits for its first visitor 4 MB.
"""

import sys

from doorboard.interfaces import BoardError


def main(device: str, rate: str) -> int:
    try:
        from doorboard.alsa import AlsaAudioPort

        with AlsaAudioPort(device, rate=int(rate)) as port:
            port.open()
    except (BoardError, ImportError) as error:
        sys.stdout.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
