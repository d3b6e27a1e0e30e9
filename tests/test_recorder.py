"""Recording a call: only when asked, bounded, off the media thread, and deleted again."""

import asyncio
import io
import tarfile
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from doorstation.door.events import Field
from doorstation.errors import DoorstationError
from doorstation.media.recording import Packet, Tick
from doorstation.recorder import Recorder
from doorstation.settings.tree import Recording

from tests.support.waiting import until

PERIOD = bytes(640)
TICK = Tick(16000, 16000, PERIOD, PERIOD, PERIOD, PERIOD)
PACKET = Packet(1.0, ("192.0.2.1", 4000), ("192.0.2.9", 16384), bytes(172))


class Bench:
    def __init__(self, folder: Path | str, *, held: Sequence[str] = (), **settings: float) -> None:
        self.folder = Path(folder)
        self.held = held
        self.events: list[tuple[str, Mapping[str, Field]]] = []
        self.attached: list[bool] = []
        self.wall = 1_767_225_600.0
        self.recorder = Recorder(
            Recording(folder=str(folder), **settings),  # type: ignore[arg-type]
            lambda sink: self.attached.append(sink is not None),
            lambda kind, fields: self.events.append((kind, fields)),
            held=held,
            hold=self.hold,
            wall=lambda: self.wall,
        )

    def hold(self, folders: Sequence[str]) -> None:
        self.held = folders

    def sound(self, ticks: int) -> None:
        for _ in range(ticks):
            self.recorder.tick(TICK)
            self.recorder.packet(PACKET)

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*"))

    async def file(self) -> Path:
        await until(lambda: [one.suffix for one in self.files()] == [".tar"])
        return self.files()[0]


async def test_a_call_is_recorded_on_request_and_until_it_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "recordings")
    assert bench.recorder.status() is None
    bench.recorder.ask("call-1")
    assert bench.attached == [True]
    name = "call-20260101T000000Z.tar"
    assert bench.recorder.status() == {"state": "on", "call": "call-1", "file": name}
    bench.sound(60)
    bench.recorder.call_ended("another")
    assert bench.attached == [True]
    bench.recorder.call_ended("call-1")
    assert bench.attached == [True, False]
    await until(lambda: bench.recorder.status() is None)
    file = await bench.file()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    with tarfile.open(file) as tar:
        assert tar.getnames() == ["sound.wav", "packets.pcap"]
        assert tar.getmember("packets.pcap").size == 24 + 60 * (16 + 28 + 172)
        content = tar.extractfile("sound.wav")
        assert content is not None
        with wave.open(io.BytesIO(content.read())) as wav:
            assert (wav.getnchannels(), wav.getnframes()) == (4, 60 * 320)
    assert bench.events == [("recording", {"call": "call-1", "file": name})], "one record"
    bench.recorder.close()


async def test_nothing_of_one_call_is_in_the_recording_of_the_next(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.recorder.ask("call-1")
    bench.sound(30)
    bench.recorder.call_ended("call-1")
    bench.sound(2)  # the media thread hears of the end a little later
    await until(lambda: bench.recorder.status() is None)
    (await bench.file()).unlink()
    bench.recorder.ask("call-2")
    bench.sound(10)
    bench.recorder.call_ended("call-2")
    await until(lambda: bench.recorder.status() is None)
    with tarfile.open(await bench.file()) as tar:
        assert tar.getmember("packets.pcap").size == 24 + 10 * (16 + 28 + 172)
        assert tar.getmember("sound.wav").size == 44 + 10 * 320 * 4 * 2
    bench.recorder.close()


async def test_the_next_call_can_be_asked_for_and_only_that_one_is_recorded(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    bench.recorder.call_began("call-1")
    assert bench.attached == []
    bench.recorder.ask("")
    assert bench.recorder.status() == {"state": "waiting", "call": None, "file": None}
    with pytest.raises(DoorstationError, match="waiting already"):
        bench.recorder.ask("")
    bench.recorder.call_began("call-2")
    bench.recorder.call_ended("call-2")
    bench.recorder.call_began("call-3")
    assert bench.attached == [True, False]
    await bench.file()
    bench.recorder.close()


async def test_what_waits_can_be_called_off(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.recorder.ask("")
    bench.recorder.stop()
    bench.recorder.call_began("call-1")
    assert (bench.attached, bench.files()) == ([], [])
    bench.recorder.close()


async def test_without_a_folder_nothing_is_recorded() -> None:
    recorder = Recorder(Recording(), lambda sink: None, lambda kind, fields: None)
    with pytest.raises(DoorstationError, match=r"recording\.folder"):
        recorder.ask("call-1")
    recorder.close()


@pytest.mark.parametrize("size", [1_000_000, 973_000])  # in this one headers alone do not fit
async def test_a_recording_ends_before_it_is_larger_than_it_may_be(
    size: int, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, size=size)
    bench.recorder.ask("call-1")
    while bench.attached == [True]:
        bench.sound(25)
        await asyncio.sleep(0.001)
    assert 900_000 < (await bench.file()).stat().st_size <= size
    bench.recorder.close()


async def test_it_is_deleted_by_a_timer(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep=60.0)
    bench.recorder.ask("call-1")
    bench.sound(30)
    bench.recorder.stop()
    await bench.file()
    bench.wall += 61
    bench.recorder.close()
    again = Bench(tmp_path, keep=60.0)
    again.wall = bench.wall
    await until(lambda: not again.files())
    again.recorder.close()


@pytest.mark.parametrize("folder", ["", "another"])
async def test_it_is_deleted_by_a_timer_where_the_folder_is_another_or_none_since(
    tmp_path: Path, folder: str
) -> None:
    bench = Bench(tmp_path / "old", keep=60.0)
    bench.recorder.ask("call-1")
    assert bench.held == [str(tmp_path / "old")], "a power cut leaves parts there"
    bench.sound(30)
    bench.recorder.stop()
    await bench.file()
    bench.recorder.close()
    now = Bench(folder and tmp_path / folder, held=bench.held, keep=60.0)
    now.wall = bench.wall + 59
    await asyncio.sleep(0)
    assert (len(bench.files()), now.held) == (1, bench.held)
    now.recorder.close()
    now = Bench(folder and tmp_path / folder, held=now.held, keep=60.0)
    now.wall = bench.wall + 61
    await until(lambda: not bench.files())
    assert now.held == [], "it is looked at no more"
    now.recorder.close()


async def test_a_folder_of_before_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    bench = Bench("", held=[str(tmp_path / "gone")])
    await until(lambda: bench.held == [])
    assert not (tmp_path / "gone").exists()
    bench.recorder.close()


async def test_parts_of_before_are_removed_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "sound.part").write_bytes(b"torn")
    bench = Bench(tmp_path)
    await until(lambda: not bench.files())
    bench.recorder.close()


async def test_a_folder_that_cannot_be_written_is_a_record_and_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    bench = Bench(tmp_path / "file" / "folder")
    bench.recorder.ask("call-1")
    assert bench.attached == []
    [(kind, fields)] = bench.events
    assert (kind, fields["call"]) == ("recording_failed", "call-1")
    bench.recorder.close()


async def test_the_end_of_the_station_keeps_what_was_recorded(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.recorder.ask("call-1")
    bench.sound(30)
    bench.recorder.close()
    assert [one.suffix for one in bench.files()] == [".tar"]
