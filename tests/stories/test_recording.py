"""Somebody has a call recorded, to find out why it sounds bad."""

import tarfile
import wave
from array import array
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from doorstation.media.pcm import audioop

from tests.support.lab import Lab, eventually
from tests.support.peers import baresip
from tests.support.sounds import RATE, likeness, read_pcm
from tests.support.station import station

TAG = 10
"""Octets that SRTP adds."""


def packet_sizes(trace: bytes) -> list[int]:
    """Of the datagrams' contents."""
    sizes: list[int] = []
    at = 24
    while at < len(trace):
        length = int.from_bytes(trace[at + 8 : at + 12], "little")
        sizes.append(length - 28)
        at += 16 + length
    assert at == len(trace)
    return sizes


@pytest.mark.parametrize("encrypted", [False, True])
def test_the_next_call_is_recorded_on_request_with_both_voices_and_its_packets(
    town: Lab, tmp_path: Path, visitor: Path, resident: Path, encrypted: bool
) -> None:
    folder = tmp_path / "recordings"
    with baresip(
        town,
        tmp_path / "indoor",
        "indoor",
        source=resident,
        encryption="srtp-mand" if encrypted else "",
    ) as phone:
        settings: Mapping[str, Any] = {
            "peers.indoor.uri": phone.uri,
            "audio.microphone": str(visitor),
            "audio.echo": "off",
            "audio.noise_suppression": False,
            "audio.gain_control": False,
            "audio.srtp": "required" if encrypted else "off",
            "recording.folder": str(folder),
            "buttons.call.steps": [{"ring": ["indoor"]}],
        }
        with station(town, tmp_path / "door", settings) as door:
            assert door.status()["recording"] is None
            door.command("record", action="start")
            assert door.status()["recording"]["state"] == "waiting"
            door.press()
            call = door.wait_call("connected")
            told = door.wait_event("recording")
            assert told["call"] == call["id"]
            assert door.status()["recording"] == {
                "state": "on",
                "call": call["id"],
                "file": told["file"],
            }
            eventually(
                lambda: (door.calls()[0]["statistics"] or {}).get("received", 0) > 150, "sound"
            )
            phone.hangup()
            door.wait_idle()
            file = folder / told["file"]
            eventually(file.exists, "the file")
            assert file.stat().st_mode & 0o777 == 0o600
            with tarfile.open(file) as tar:
                for name in ("sound.wav", "packets.pcap"):
                    member = tar.extractfile(name)
                    assert member is not None
                    (tmp_path / name).write_bytes(member.read())
            with wave.open(str(tmp_path / "sound.wav")) as wav:
                assert (wav.getnchannels(), wav.getframerate()) == (4, 16000)
                seconds = wav.getnframes() / 16000
                frames = wav.readframes(wav.getnframes())
            assert seconds > 2.5
            samples = array("h", frames)
            microphone, _, sent, received = (
                audioop.ratecv(samples[track::4].tobytes(), 2, 1, 16000, RATE, None)[0]
                for track in range(4)
            )
            assert likeness(read_pcm(visitor), microphone) > 0.9
            assert likeness(read_pcm(visitor), sent) > 0.9
            assert likeness(read_pcm(resident), received) > 0.9
            trace = (tmp_path / "packets.pcap").read_bytes()
            sizes = packet_sizes(trace)
            assert sizes.count(12 + 160 + (TAG if encrypted else 0)) > 200, "both ways"
            assert sizes.count(12 + 160 + (0 if encrypted else TAG)) == 0


@pytest.mark.parametrize("change", ["unset recording.folder", "config reset", "set another"])
def test_a_recording_is_deleted_in_time_whatever_became_of_its_folder_s_setting(
    town: Lab, tmp_path: Path, change: str
) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    fresh = folder / f"call-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar"
    fresh.touch()
    state = {"peers.indoor.uri": "sip:198.18.0.99", "provisioning.state": str(tmp_path / "state")}
    with station(town, tmp_path / "door", state) as door:
        assert door.config("set", f"recording.folder={str(folder)!r}").returncode == 0
        assert fresh.exists()
        old = fresh.rename(folder / "call-20200101T000000Z.tar")
        done = {
            "unset recording.folder": lambda: door.config("unset", "recording.folder"),
            "config reset": lambda: door.config("reset"),
            "set another": lambda: door.config("set", f"recording.folder={str(tmp_path / 'b')!r}"),
        }[change]()
        assert done.returncode == 0
        eventually(lambda: not old.exists(), "old recording is deleted")
