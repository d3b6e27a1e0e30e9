"""`doorstation doctor audio`: the acoustic self-test on the card of the settings, and a report."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
from doorboard.interfaces import AudioPort, BoardError

from doorstation import parts
from doorstation.errors import DoorstationError
from doorstation.media import echo, path, selftest
from doorstation.media.levels import MicrophoneLevels
from doorstation.settings.tree import Settings
from doorstation.sound import path_options

_BUSY: Final = "in a call the station holds the card: try again when it is over"


class Tape:
    """In the canceller's place: nothing is changed, and both sides are kept."""

    def __init__(self) -> None:
        self.occurred: list[Any] = []
        self.microphone = b""
        self.reference = b""

    def call_began(self, lead: float) -> None:
        """Nothing to align."""

    def process(self, microphone: bytes, reference: bytes) -> bytes:
        """The microphone as it is."""
        self.microphone, self.reference = microphone, reference
        return microphone

    def figures(self) -> echo.Figures:
        """None."""
        return echo.Figures()

    def close(self) -> None:
        """Nothing to free."""


def next_mode(mode: echo.Mode) -> echo.Mode | None:
    """What to try where `mode` takes too little of the echo away, of what can run here."""
    match mode:
        case "off":
            return "speex"
        case "half_duplex":
            return None
        case "speex":
            try:
                echo.make(echo.Options("cascade"), path.RATE).close()
            except DoorstationError:
                return "half_duplex"
            return "cascade"
        case "aec3" | "cascade":
            return "half_duplex"


def measure(
    port: AudioPort, options: path.Options, microphone_volume: int | None = None
) -> selftest.SelfTest:
    """Run the whole test on a card, some 20 seconds. Raises BoardError when the card fails.

    Raises DoorstationError when the canceller's library is missing, before anything is played.
    `microphone_volume`: what the card's is set to, percent; None: unknown.
    """
    echo.make(options.canceller, path.RATE).close()
    test = selftest.SelfTest(
        lambda: echo.make(options.canceller, path.RATE),
        options.speaker.volume_db,
        microphone_volume,
        next_mode(options.canceller.mode),
    )
    tape = Tape()
    way = path.SoundPath(
        msgspec.structs.replace(options, microphone=MicrophoneLevels(gain_control=False)), tape
    )
    with contextlib.closing(port):
        port.open()
        way.card_opened(port.rate)
        while not test.finished:
            way.heard(port.read())
            pcm = test.tick(tape.microphone, tape.reference)
            way.written(port.write(way.sounding(way.mixed(pcm, None))))
        test.xruns = port.overruns + port.underruns
    return test


def audio(settings: Settings, *, room: str, as_json: bool, plot: Path | None) -> int:
    """Measure, print, draw; 0 for a good verdict only."""
    port = parts.simulated_card(room) if room else parts.card(settings)
    if not as_json:
        print("Listening, then a sweep, noise and a sweep again: please keep quiet for 20 s.")
    try:
        test = measure(port, path_options(settings.audio), settings.audio.microphone_volume)
    except BoardError as error:
        raise DoorstationError(f"{error}; {_BUSY}") from error
    report = test.report()
    if as_json:
        print(json.dumps(msgspec.to_builtins(report)))
    else:
        print("\n".join(lines(report)))
    if plot is not None:
        from doorstation.doctor_plot import picture

        try:
            plot.write_text(picture(test.pictures(), report.verdict))
        except OSError as error:
            raise DoorstationError(f"{plot}: {error.strerror}") from error
        print(f"picture: {plot}", file=sys.stderr)
    return 0 if report.verdict == "good" else 1


def lines(report: selftest.Report) -> list[str]:
    """The report for a person."""

    def row(name: str, value: float | None, unit: str, meaning: str) -> list[str]:
        return [] if value is None else [f"{name:<22}{value:8.1f} {unit:<5} {meaning}"]

    out = [
        *row("noise", report.noise_dbfs, "dBFS", "what the microphone hears of nothing"),
        *row("coupling", report.coupling_db, "dB", "echo beside what is played"),
        *row("delay", report.delay_ms, "ms", "from writing a sound to hearing it"),
        *row("distortion", report.distortion_db, "dB", "harmonics beside the sound"),
        *row("clock drift", report.drift_ppm, "ppm", "of the loudspeaker against the microphone"),
        *row("echo cancelled", report.erle_db, "dB", "with the settings' canceller"),
        f"verdict: {report.verdict}" + (f": {report.explanation}" if report.explanation else ""),
    ]
    if report.xruns:
        out.append(f"the card lost sound {report.xruns} times: delay and drift are in doubt")
    for name, value in report.advice.items():
        out.append(f"advice:  {name} = {json.dumps(value)}")
    return out
