"""Wide-band calls with a phone of another make, called and calling, known sound at both ends."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from doorstation.media.pcm import audioop
from doorstation.media.resample import Resampler

from tests.support.lab import Lab, eventually
from tests.support.peers import Baresip, baresip
from tests.support.sounds import likeness, read_pcm, whistle_in, write_speech
from tests.support.station import CODE, Station, station

RATE = 16000
SECOND = 2 * RATE
LOUDNESS = 2000
OFFERED = [("G722/16000/1", "G722"), ("opus/48000/2", "opus")]
ALSO = ("L16/16000/1", "L16")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What is said at the door, again and again, and indoors."""
    folder = tmp_path_factory.mktemp("said")

    def written(name: str, seconds: float, seed: int) -> Path:
        # Not as low as the other stories' speech: Opus takes out what lies below a voice.
        path = folder / f"{name}.wav"
        return write_speech(path, seconds, seed, RATE, pole=0.5, gain=5, whistle=LOUDNESS)

    return written("visitor", 6, 1), written("resident", 30, 2)


@contextmanager
def both(
    town: Lab, folder: Path, said: tuple[Path, Path], codec: str
) -> Iterator[tuple[Station, Baresip]]:
    visitor, resident = said
    with baresip(
        town, folder / "indoor", "indoor", source=resident, codecs=codec, rate=RATE
    ) as phone:
        settings = {
            "peers.indoor.uri": phone.uri,
            "peers.indoor.auto_answer": True,
            "buttons.call.steps": [{"ring": ["indoor"]}],
            "audio.microphone": visitor,
            "audio.rate": RATE,
        }
        with station(town, folder / "door", settings) as door:
            yield door, phone


def recorded(phone: Baresip) -> bytes:
    """What the phone hears in this call, at 16 kHz; it records at the codec's own rate."""
    file = phone.heard()
    channels, rate = struct.unpack_from("<HI", file.read_bytes().ljust(44, b"\0"), 22)
    pcm = read_pcm(file)
    if channels == 2:
        pcm = audioop.tomono(pcm[: len(pcm) // 4 * 4], 2, 0.5, 0.5)
    return Resampler(rate, RATE).process(pcm) if rate else b""


def both_hear(door: Station, phone: Baresip, said: tuple[Path, Path], codec: str) -> None:
    """The words, and what only wide-band carries."""
    # Opus spends its bits on what voices are made of, and noise like ours comes out a little other.
    least = 0.7 if codec == "opus" else 0.9
    visitor, resident = (read_pcm(path) for path in said)
    with door.listening("speaker") as speaker:
        indoors = eventually(
            lambda: pcm if len(pcm := recorded(phone)) > 3 * SECOND else b"", "sound indoors", 15
        )
        eventually(lambda: len(speaker) > 1.5 * SECOND, "sound at the door", 12)
        at_the_door = bytes(speaker)
    for words, heard in ((visitor + visitor, indoors), (resident, at_the_door)):
        assert likeness(words, heard, sure=least) > least
        assert whistle_in(heard[-SECOND:], RATE) > LOUDNESS / 2


@pytest.mark.parametrize(("codec", "name"), OFFERED)
def test_visitor_rings_both_talk_in_wide_band_and_the_code_opens(
    town: Lab, tmp_path: Path, said: tuple[Path, Path], codec: str, name: str
) -> None:
    with both(town, tmp_path, said, codec) as (door, phone):
        door.press()
        assert door.wait_call("connected")["codec"] == name
        both_hear(door, phone, said, name)
        phone.send_digits(CODE)
        door.wait_event("release")
        phone.hangup()
        door.wait_idle()


@pytest.mark.parametrize(("codec", "name"), [*OFFERED, ALSO])
def test_a_phone_calls_both_talk_in_wide_band_and_the_code_opens(
    town: Lab, tmp_path: Path, said: tuple[Path, Path], codec: str, name: str
) -> None:
    with both(town, tmp_path, said, codec) as (door, phone):
        phone.dial(door.uri())
        phone.wait_event("CALL_ESTABLISHED")
        assert door.wait_call("connected")["codec"] == name
        both_hear(door, phone, said, name)
        phone.send_digits(CODE)
        door.wait_event("release")
        phone.hangup()
        door.wait_idle()


def test_digits_typed_at_the_door_arrive_beside_opus(
    town: Lab, tmp_path: Path, said: tuple[Path, Path]
) -> None:
    with both(town, tmp_path, said, "opus/48000/2") as (door, phone):
        phone.dial(door.uri())
        door.wait_call("connected")
        door.command("dtmf", digits="159#")
        eventually(lambda: phone.digits() == "159#", "the digits at the phone", 10)
        phone.hangup()
        door.wait_idle()
