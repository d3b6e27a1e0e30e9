"""The door hears its own loudspeaker: what the log says when its echo cannot be cancelled."""

import asyncio
import re
from collections import deque
from pathlib import Path
from typing import cast

import pytest
from doorboard.fake_room import FakeRoom

from tests.support.sounds import voice, write_pcm
from tests.support.two_stations import CALL_BUTTON, two_stations

RATE = 16000


@pytest.mark.parametrize("late", [3, 0])
async def test_a_reference_that_comes_after_its_echo_is_a_fault_in_the_log_and_in_the_verdict(
    tmp_path: Path, late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card tells what it took `late` periods later than it did, and plays it after one."""
    speech = tmp_path / "resident.wav"
    write_pcm(speech, b"".join(voice(20, 8000)), 8000)
    phone_settings = f'[audio]\nrate = 8000\nmicrophone = "{speech}"\n'
    async with two_stations(tmp_path, CALL_BUTTON, phone_settings, rate=RATE) as (door, phone):
        write = door.card.write
        told = deque([bytes(RATE // 50 * 2)] * late)

        def written(period: bytes) -> bytes:
            told.append(write(period))
            return told.popleft()

        monkeypatch.setattr(door.card, "write", written)
        monkeypatch.setattr(door.card, "_room", FakeRoom("good", RATE))
        door.press()
        await phone.until("ringing")
        await phone.ask("answer")
        await door.until("talking")

        async def looked() -> bool:
            [call] = cast(list[dict[str, object]], door.station.commands.status()["calls"])
            if call["verdict"] in (None, "too short to tell"):
                return False
            if late:
                return bool(await door.events("sound_fault"))
            path = door.station._media._worker.path
            return path is not None and path.canceller.figures().delay_ms is not None

        async with asyncio.timeout(30):
            while not await looked():
                await asyncio.sleep(0.02)
        await phone.ask("hangup")
        await door.until("idle")
        async with asyncio.timeout(5):
            while not (ended := await door.events("call_statistics")):
                await asyncio.sleep(0.02)
        faults = [str(fault["why"]) for fault in await door.events("sound_fault")]
        verdict = "the echo was not cancelled: its reference came late"
        if late:
            assert len(faults) == 1
            assert re.search(r"cannot be cancelled: the echo comes [2-5]\d ms before", faults[0])
            assert verdict in str(ended[-1]["verdict"])
        else:
            assert faults == []
            assert verdict not in str(ended[-1]["verdict"])
