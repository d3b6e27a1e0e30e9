"""A door and an indoor phone of ours in this process, on fake boards and loopback, in real time.

    async with two_stations(tmp_path, door="[relays.door]\\n...") as (door, phone):
        door.press()
        await phone.until("ringing")
        assert seconds_of(await door.listen(0.5), 425) > 0.4

The sound is what reached the loudspeaker of the fake card, through the media threads and the
network; the light is what the LED showed.
"""

import asyncio
import contextlib
import math
import socket
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

from doorboard.fake import FakeAudioPort, FakeButton, FakeIndicator, FakeReader
from doorstation import parts
from doorstation.net.control import ControlClient
from doorstation.settings.reader import parse
from doorstation.station import Station

PERIOD = 0.02

DOOR = """
[board]
kind = "fake"
[sip]
user = "door"
port = {own}
listen = ["127.0.0.1"]
[peers.indoor]
uri = "sip:indoor@127.0.0.1:{other}"
[leds.status]
[log]
events = "{directory}/events.jsonl"
[control]
socket = "{directory}/control.sock"
"""

CALL_BUTTON = '[buttons.call]\nsteps = [{ ring = ["indoor"] }]\n'

PHONE = DOOR.replace('"door"', '"indoor"').replace("[peers.indoor]", "[peers.door]")
PHONE = PHONE.replace("sip:indoor@", "sip:door@")


class Side:
    """One of the two, from outside: its board and its control socket."""

    def __init__(
        self,
        station: Station,
        board: parts.Parts,
        control: ControlClient,
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        self.station = station
        self.board = board
        self.control = control
        self.stop = stop
        self.card = cast(FakeAudioPort, board.open_audio(station._settings.audio))

    @property
    def light(self) -> str:
        return self.lights[-1]

    @property
    def lights(self) -> list[str]:
        """What the LED has shown so far."""
        return list(cast(FakeIndicator, self.board.leds["status"]).history)

    def press(self, name: str = "call") -> None:
        button = cast(FakeButton, self.board.buttons[name])
        button.press()
        button.release()

    @property
    def reader(self) -> FakeReader:
        return cast(FakeReader, self.board.readers["gate"])

    def present(self, card: str) -> None:
        self.reader.present(card)

    async def ask(self, command: str, **args: object) -> object:
        return await self.control.request(command, args)

    async def until(self, phase: str, seconds: float = 5.0) -> None:
        """Wait until the door is "idle", "calling", "ringing" or "talking"."""
        async with asyncio.timeout(seconds):
            while self.station.commands.status()["door"] != phase:
                await asyncio.sleep(PERIOD / 2)

    async def until_light(self, pattern: str, seconds: float = 5.0) -> None:
        """Wait until the LED shows it."""
        async with asyncio.timeout(seconds):
            while self.light != pattern:
                await asyncio.sleep(PERIOD / 2)

    async def listen(self, seconds: float) -> bytes:
        """What the loudspeaker plays from now on; silence where the card was closed."""
        begin = self.card.written
        await asyncio.sleep(seconds)
        periods = self.card.written - begin
        size = 2 * self.card.period
        return self.card.heard()[-periods * size :] if periods else b""

    async def events(self, kind: str) -> list[dict[str, object]]:
        found = cast(list[dict[str, object]], await self.ask("recent"))
        return [event for event in found if event["event"] == kind]


@contextlib.asynccontextmanager
async def two_stations(
    directory: Path, door: str = CALL_BUTTON, phone: str = "", *, rate: int = 8000
) -> AsyncIterator[tuple[Side, Side]]:
    """Both, running until the block ends; `door` and `phone` are settings added to the usual."""
    ports = _free_ports()
    async with (
        _side(directory / "door", DOOR, door, ports, rate) as one,
        _side(directory / "phone", PHONE, phone, ports[::-1], 8000) as other,
    ):
        yield one, other


@contextlib.asynccontextmanager
async def _side(
    directory: Path, usual: str, more: str, ports: tuple[int, int], rate: int
) -> AsyncIterator[Side]:
    directory.mkdir()
    text = usual.format(own=ports[0], other=ports[1], directory=directory)
    # What is added may go on in the usual sections.
    audio = f"[audio]\nrate = {rate}\n" if "[audio]" not in more else ""
    settings = parse(text + more + audio)
    stop = asyncio.Event()
    with parts.make(settings) as board:
        station = Station(settings, board)
        running = asyncio.get_running_loop().create_task(station.run(stop))

        async def end() -> None:
            stop.set()
            await running

        try:
            while not (directory / "control.sock").exists():
                await asyncio.sleep(PERIOD / 2)
            async with ControlClient(str(directory / "control.sock")) as control:
                yield Side(station, board, control, end)
        finally:
            await end()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def seconds_of(pcm: bytes, frequency: float, rate: int = 8000) -> float:
    """How long a frequency is most of what is heard, by periods of 20 ms."""
    samples = array("h", pcm)
    size = rate // 50
    turns = [2 * math.pi * frequency * i / rate for i in range(size)]
    cosines, sines = [math.cos(turn) for turn in turns], [math.sin(turn) for turn in turns]
    count = 0
    for begin in range(0, len(samples) - size + 1, size):
        period = samples[begin : begin + size]
        energy = sum(s * s for s in period)
        cosine = sum(s * c for s, c in zip(period, cosines, strict=True))
        sine = sum(s * c for s, c in zip(period, sines, strict=True))
        # A pure tone of this frequency has all its energy here: 1.0.
        share = 2 * (cosine * cosine + sine * sine) / size / energy if energy else 0.0
        count += share > 0.6 and energy > size * 100 * 100
    return count * PERIOD


def silent(pcm: bytes) -> bool:
    return not any(abs(sample) > 100 for sample in array("h", pcm))
