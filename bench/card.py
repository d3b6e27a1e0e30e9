"""The virtual card from this side: building it, speaking into it, reading what it played.

Both signals are bursts of one millisecond, so that an instant can be told from them. The microphone
hears one every 203 ms, which falls on every place in a packet in turn. The far end sends one at the
beginning of each packet; eight loudnesses in turn tell a packet from its neighbours, so that one
that was skipped, repeated or made up is seen.
"""

import os
import subprocess
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from doorstation.media.pcm import audioop

SOURCE: Final = Path(__file__).parent / "vcard"

BURST: Final = 0.001
MICROPHONE_SPACING: Final = 0.203
MICROPHONE_BURSTS: Final = 50
LOUD: Final = 28000

MARKER_EVERY: Final = 50
"""A packet in a second is the loudest, so that a listener who lost count finds it again."""
LOUDNESS: Final = tuple(round(3200 * 1.35**step) for step in range(7))


@dataclass(frozen=True, slots=True)
class Card:
    """A built card and a folder for what it hears and plays."""

    library: Path
    folder: Path

    def environment(self, *, record: bool = True) -> dict[str, str]:
        """What a program needs to find the card, by the ALSA name `vcard`.

        The machine's own settings stay out: on a desktop they load a sound server's libraries into
        every program that opens a card, 3 MB that a door does not have.
        """
        settings = self.folder / "asoundrc"
        settings.write_text(
            f'pcm_type.vcard {{ lib "{self.library}" }}\n'
            'pcm.vcard { type vcard hint { show on description "virtual measuring card" } }\n'
            "pcm.!default { type vcard }\n"
        )
        found = {
            "ALSA_CONFIG_PATH": str(settings),
            "VCARD_DIR": str(self.folder),
        }
        return found if record else {**found, "VCARD_NOREC": "1"}

    def speak(self, rate: int) -> None:
        """Give the microphone its bursts."""
        spacing = round(MICROPHONE_SPACING * rate)
        length = round(BURST * rate)
        one = array("h", [LOUD] * length + [0] * (spacing - length))
        (self.folder / f"cap-{rate}.raw").write_bytes(one.tobytes() * MICROPHONE_BURSTS)

    def clear(self) -> None:
        """Forget the recordings so far."""
        for pattern in ("play-*", "capt-*"):
            for path in self.folder.glob(pattern):
                path.unlink()


def build(folder: Path) -> Path:
    """Compile the plugin; the library. Raises RuntimeError with the compiler's words."""
    made = subprocess.run(
        ["make", "-s", f"OUT={folder}"], cwd=SOURCE, capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise RuntimeError(f"the virtual card does not compile:\n{made.stderr}")
    return folder / "libasound_module_pcm_vcard.so"


def packet_loudness(number: int) -> int:
    """Height of the burst in the far end's packet `number`."""
    return LOUD if number % MARKER_EVERY == 0 else LOUDNESS[number % len(LOUDNESS)]


def packet_sound(number: int, rate: int = 8000) -> bytes:
    """20 ms of S16 with the burst of packet `number` at its beginning."""
    length = round(BURST * rate)
    sound = array("h", [packet_loudness(number)] * length + [0] * (rate // 50 - length))
    return sound.tobytes()


@dataclass(frozen=True, slots=True)
class Stream:
    """One opening of the card, as its log tells it: times in ns of CLOCK_REALTIME."""

    rate: int
    channels: int
    starts: tuple[tuple[int, int, int], ...]
    """(mono ns, real ns, frame) of each start: one more after each xrun."""
    xruns: tuple[int, ...]
    """When it ran dry or over."""
    raw: Path

    def instant(self, frame: int) -> int:
        """When the converter put this frame out."""
        place = bisect_right(self.starts, frame, key=lambda start: start[2]) - 1
        _, real, first = self.starts[max(place, 0)]
        return real + round((frame - first) * 1e9 / self.rate)


def streams(folder: Path, kind: str) -> list[Stream]:
    """Every opening of `play` or `capt` that moved something, oldest first."""
    found = []
    for path in sorted(folder.glob(f"{kind}-*.log"), key=lambda p: p.stat().st_mtime_ns):
        shape: Mapping[str, int] = {}
        starts: list[tuple[int, int, int]] = []
        xruns: list[int] = []
        for line in path.read_text().splitlines():
            event, *words = line.split()
            if event == "open":
                pairs = zip(words[1::2], words[2::2], strict=True)
                shape = {name: int(value) for name, value in pairs}
            elif event == "start":
                mono, real, frame = map(int, words)
                starts.append((mono, real, frame))
            elif event == "xrun":
                xruns.append(int(words[1]))
        if starts:
            raw = path.with_suffix(".raw")
            made = Stream(shape["rate"], shape["channels"], tuple(starts), tuple(xruns), raw)
            found.append(made)
    return found


def played(folder: Path, begin: int, seconds: float, rate: int = 8000) -> bytes:
    """What came out of the loudspeaker from `begin` (ns) on: S16, silence where nothing did."""
    heard = bytearray(2 * int(seconds * rate))
    for stream in streams(folder, "play"):
        if stream.rate != rate or not stream.raw.exists():
            continue
        data = stream.raw.read_bytes()
        if stream.channels == 2:
            data = audioop.tomono(data, 2, 1, 0)
        ends = [first for _, _, first in stream.starts[1:]] + [len(data) // 2]
        for (_, real, first), end in zip(stream.starts, ends, strict=True):
            place = 2 * round((real - begin) * 1e-9 * rate)
            piece = data[2 * first : 2 * end][max(0, -place) :]
            place = max(0, place)
            piece = piece[: max(0, len(heard) - place)]
            heard[place : place + len(piece)] = piece
    return bytes(heard)


def bursts(stream: Stream) -> Iterator[tuple[int, int]]:
    """(instant ns, height) of each burst that the loudspeaker played, in order."""
    data = stream.raw.read_bytes()
    frame_bytes = 2 * stream.channels
    block = stream.rate // 400 * frame_bytes  # 2.5 ms: short enough to hold one burst at most
    quiet_until = 0
    for start in range(0, len(data) - block, block):
        piece = data[start : start + block]
        if audioop.max(piece, 2) < 1200:
            continue
        # From here a burst's length and a block's: a burst may begin in one and end in the next.
        begin = max(start, quiet_until)
        window = array("h", data[begin : start + 2 * block])[:: stream.channels]
        if not window:
            continue
        height = max(window)
        if height < 1200:
            continue
        onset = next(i for i, sample in enumerate(window) if 2 * sample >= height)
        frame = begin // frame_bytes + onset
        end = frame + round(3 * BURST * stream.rate)
        quiet_until = end * frame_bytes
        yield stream.instant(frame), height


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of the far end's packets at the loudspeaker."""

    delays: list[float]
    """Seconds from sending a packet to its first sample coming out, packet by packet."""
    gaps: int
    """Places where the next sound was not the next packet, in time."""
    packets: int


def listen(folder: Path, sent: list[int], begin: int, end: int) -> Heard:
    """Match what was played between two instants (ns) with the packets sent.

    `sent[n]` is when packet n left. The first loudest burst tells where we are in the count.
    """
    played = [
        (at, height)
        for stream in streams(folder, "play")
        if stream.raw.exists()
        for at, height in bursts(stream)
        if begin <= at < end
    ]
    top = max((height for _, height in played), default=0)
    delays: list[float] = []
    gaps = 0
    expected: int | None = None
    last = 0
    for at, height in played:
        if expected is None:
            if height > 0.9 * top:
                expected = _number(at, sent)
        elif not (abs(at - last - 20_000_000) < 3_000_000 and _is(expected, height, top)):
            gaps += 1
            # Skipped or repeated a little, or something made up: then wait for the loudest.
            near = (expected + step for step in (0, 1, -1, 2, -2, 3, -3))
            expected = next((number for number in near if _is(number, height, top)), None)
        if expected is not None:
            delays.append((at - sent[expected]) * 1e-9)
            expected, last = expected + 1, at
    return Heard(delays, gaps, len(delays))


def _is(number: int, height: int, top: int) -> bool:
    """Whether a burst of this height is packet `number`, where the loudest ones are `top` high."""
    right = packet_loudness(number) / LOUD * top
    return abs(height - right) < 0.12 * right


def _number(at: int, sent: list[int]) -> int:
    """The latest loudest packet sent before this instant."""
    latest = bisect_right(sent, at) - 1
    return max(0, latest - latest % MARKER_EVERY)


def microphone_delays(folder: Path, marks: list[tuple[int, int]]) -> list[float]:
    """Seconds from a packet's last sample being taken in to the packet being there.

    `marks` are (arrival ns, place of the burst's onset) of packets with a burst, 8000 Hz.
    """
    delays = []
    captures = streams(folder, "capt")
    for arrival, place in marks:
        capture = next((c for c in reversed(captures) if c.starts[0][1] < arrival), None)
        if capture is None:
            continue
        mono, real, _ = next(s for s in reversed(capture.starts) if s[1] < arrival)
        rate = capture.rate
        spacing = round(MICROPHONE_SPACING * rate)
        first = int(mono * 1e-9 * rate)  # of the card's file, at the start
        now = first + (arrival - real) * 1e-9 * rate
        onset = int(now) // spacing * spacing
        if onset < first:
            continue
        last = real + (onset - first) * 1e9 / rate + (160 - place) * 1e9 / 8000
        delays.append((arrival - last) * 1e-9)
    return delays


def library_folder(root: Path) -> Path:
    """Where the built card is kept between runs."""
    folder = root / "build" / "bench"
    os.makedirs(folder, exist_ok=True)
    return folder
