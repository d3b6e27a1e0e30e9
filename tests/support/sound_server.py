"""A sound card in user space: pulseaudio null sinks behind alsa-lib's pulse plugin.

One sink is the loudspeaker, the monitor of another one is the microphone; alsa-lib knows both
together as the device "station". Also a tool, for trying things by hand:

    python -m tests.support.sound_server DIR       runs it until Ctrl-C, prints the variables to set
    paplay --device=mic FILE.wav                   speaks into the microphone (with those variables)
    parecord --device=speaker.monitor FILE.wav     records the loudspeaker

Needs the Debian packages pulseaudio, pulseaudio-utils and libasound2-plugins; works as root,
without D-Bus and without a session.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

ASOUNDRC = """
pcm.station {
  type asym
  playback.pcm { type pulse device "speaker" }
  capture.pcm  { type pulse device "mic.monitor" }
  hint { show on description "Door station (test)" }
}
ctl.station { type pulse device "speaker" source "mic.monitor" }
pcm.!default "pcm.station"
ctl.!default "ctl.station"
"""


class SoundServer:
    """The server, the variables that lead to it, and both of its far ends."""

    def __init__(self, folder: Path, *, rate: int = 16000):
        self.folder = folder.resolve()
        self.rate = rate
        self.socket = self.folder / "native"
        self.env = {
            "PULSE_SERVER": f"unix:{self.socket}",
            "ALSA_CONFIG_PATH": f"/usr/share/alsa/alsa.conf:{self.folder / 'asoundrc'}",
        }
        self._server: subprocess.Popen[bytes] | None = None
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Run the server; starting again after `kill()` is a card plugged back in."""
        for program in ("pulseaudio", "pactl", "paplay", "parecord"):
            if shutil.which(program) is None:
                raise RuntimeError(
                    f"{program} is missing: apt-get install pulseaudio pulseaudio-utils "
                    "libasound2-plugins"
                )
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.socket.unlink(missing_ok=True)
        (self.folder / "asoundrc").write_text(ASOUNDRC)
        # Without norewinds a null sink renders 2 s at a time and a stream starts that much late.
        sink = f"rate={self.rate} channels=1 norewinds=1"
        self._server = subprocess.Popen(
            [
                "pulseaudio",
                "-n",
                "--daemonize=no",
                "--use-pid-file=no",
                "--exit-idle-time=-1",
                "--realtime=no",
                "--high-priority=no",
                "--log-level=error",
                f"--log-target=file:{self.folder / 'log'}",
                f"-Lmodule-native-protocol-unix auth-anonymous=1 socket={self.socket}",
                f"-Lmodule-null-sink sink_name=speaker {sink}",
                f"-Lmodule-null-sink sink_name=mic {sink}",
            ],
            env=os.environ
            | {
                "XDG_RUNTIME_DIR": str(self.folder),
                "PULSE_RUNTIME_PATH": str(self.folder),
                "PULSE_STATE_PATH": str(self.folder / "state"),
                "HOME": str(self.folder),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                log = self.folder / "log"
                self.stop()
                raise RuntimeError(
                    f"pulseaudio did not start: {log.read_text() if log.exists() else 'no log'}"
                )
            time.sleep(0.02)

    def kill(self) -> None:
        """Pull the card out."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def stop(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.terminate()
            child.wait()
        self._children.clear()
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
            self._server = None

    def speak(self, path: Path) -> subprocess.Popen[bytes]:
        """Play a WAV file into the microphone; the process ends at the end of the file."""
        return self._run("paplay", "--device=mic", "--latency-msec=40", str(path))

    def couple(self) -> None:
        """Let the microphone hear the loudspeaker, 18 dB softer."""
        loop = (
            "module-loopback",
            "source=speaker.monitor",
            "sink=mic",
            "latency_msec=30",
            "adjust_time=0",
        )
        self._ask("load-module", *loop)
        self._ask("set-source-volume", "speaker.monitor", "50%")

    @contextmanager
    def recorded(self, path: Path, *, rate: int = 8000) -> Iterator[None]:
        """Record the loudspeaker to a WAV file while the block runs."""
        recorder = self._run(
            "parecord",
            "--device=speaker.monitor",
            "--latency-msec=20",
            "--channels=1",
            f"--rate={rate}",
            "--file-format=wav",
            str(path),
        )
        try:
            deadline = time.monotonic() + 5
            while not (path.exists() and path.stat().st_size > 1000):
                if recorder.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("parecord does not record")
                time.sleep(0.02)
            yield
        finally:
            recorder.send_signal(signal.SIGINT)
            recorder.wait(5)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        return self._ask("info", check=False)

    def _ask(self, *words: str, check: bool = True) -> bool:
        done = subprocess.run(
            ["pactl", *words],
            env=os.environ | self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=check,
        )
        return done.returncode == 0

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            command,
            env=os.environ | self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._children.append(child)
        return child


def main() -> None:
    with SoundServer(Path(sys.argv[1])) as server:
        for name, value in server.env.items():
            print(f"export {name}={value}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
