"""A sound card through alsa-lib (pyalsaaudio): capture is the clock, playback follows.

`read()` sleeps until the card's own interrupt: one wake-up per period and no timer. Playback holds
two periods (see `playback_queue`) and a write never waits, so it never makes the reader late.
Runs alike on a card, on a sound server's plugin and on snd-aloop; where they differ is said below.
"""

import errno
import logging
import select
from typing import Any, Final

import alsaaudio

from doorboard.closing import Closing
from doorboard.interfaces import BoardError
from doorboard.playback_queue import PlaybackQueue, stretch

log = logging.getLogger(__name__)

BUFFER_PERIODS: Final = 4
"""The card's buffer each way: bounds both delays to 80 ms, whatever happens."""

COMMON_RATES: Final = (16000, 48000, 44100, 32000)

XRUN: Final = -errno.EPIPE

SILENCE_MS: Final = 1000
"""A card whose clock stands still for this long is gone, though it may not say so."""

EMPTY_READS: Final = 50
"""So many wake-ups in a row without sound: a broken driver, which must not eat the processor."""

CHECK_PERIODS: Final = 25
"""How often a backlog of captured sound is looked for."""

# Names that alsa-lib lists and that nobody means: raw devices that convert nothing, and mixers.
UNWANTED: Final = (
    "null",
    "hw:",
    "sysdefault",
    "dmix",
    "dsnoop",
    "front",
    "rear",
    "center_lfe",
    "side",
    "surround",
    "iec958",
    "spdif",
    "modem",
    "phoneline",
    "lavrate",
    "samplerate",
    "speexrate",
    "speex",
    "upmix",
    "vdownmix",
    "jack",
    "oss",
    "usbstream",
)

PLAYBACK_CONTROLS: Final = ("Speaker", "Headphone", "Master", "PCM", "Digital", "HDMI")
CAPTURE_CONTROLS: Final = ("Mic", "Capture", "ADC", "Input")


def sound_cards() -> list[str]:
    """Device names that alsa-lib offers here, in its order, without those nobody means."""
    names: list[str] = []
    for direction in (alsaaudio.PCM_CAPTURE, alsaaudio.PCM_PLAYBACK):
        names.extend(
            name
            for name in alsaaudio.pcms(direction)
            if name not in names and not name.startswith(UNWANTED)
        )
    return names


def mixer_device(device: str) -> str:
    """The control device that belongs to a PCM: plughw:CARD=Device,DEV=0 -> hw:Device."""
    kind, _, rest = device.partition(":")
    if kind in {"hw", "plughw", "sysdefault", "default", "dmix", "dsnoop"} and rest:
        return "hw:" + rest.split(",")[0].removeprefix("CARD=")
    return device


class AlsaAudioPort(Closing):
    """An AudioPort on a card that alsa-lib knows by name; `rate` is the card's if it insists.

    A name that does not exist raises BoardError, and the message lists the names that do.
    """

    def __init__(
        self,
        device: str = "default",
        *,
        playback_device: str | None = None,
        rate: int = 8000,
        playback_volume: int | None = None,
        capture_volume: int | None = None,
    ):
        """Volumes are percent of the card's scale, set at each open; None leaves them alone."""
        self.device = device
        self.playback_device = playback_device or device
        self.rate = rate
        self.period = rate // 50
        self.overruns = 0
        self.underruns = 0
        self.playback_volume = playback_volume
        self.capture_volume = capture_volume
        self._asked_rate = rate
        self._capture: Any = None
        self._playback: Any = None
        self._poll = select.poll()
        self._reads = 0
        self._empty_reads = 0
        self._captured = b""
        self._bytes = 2 * self.period
        self._buffer = 0
        self._queue = PlaybackQueue(self.period)
        self._queued = 0

    @property
    def queued(self) -> int:
        """Frames written and not yet played."""
        return 0 if self._playback is None else max(0, self._buffer - self._playback.avail())

    @property
    def delay(self) -> float:
        """Seconds of sound that the last write found before it."""
        return self._queued / self.rate

    def open(self) -> None:
        self.close()
        try:
            self._open_both()
            self._set_volumes()
            self._start()
        except BaseException:
            self.close()
            raise

    def read(self) -> bytes:
        if self._capture is None:
            raise BoardError(f"sound card {self.device} is not open")
        try:
            if not self._poll.poll(SILENCE_MS):
                raise self._gone(self.device, f"no sound for {SILENCE_MS} ms")
            period: bytes
            count, period = self._capture.read()
            if count != self.period or self._captured:
                period = self._collected(count, period)
            self._reads += 1
            if self._reads % CHECK_PERIODS == 0:
                self._drop_backlog()
        except alsaaudio.ALSAAudioError as error:
            raise self._gone(self.device, error) from error
        return period

    def write(self, period: bytes) -> bytes:
        if len(period) != self._bytes:
            raise ValueError(f"period of {len(period)} bytes, {self._bytes} needed")
        playback = self._playback
        if playback is None:
            raise BoardError(f"sound card {self.playback_device} is not open")
        try:
            room = playback.avail()
            if room < 0:
                if room != XRUN:
                    raise self._gone(self.playback_device, errno.errorcode.get(-room, room))
                return self._recover(period)
            self._queued = queued = self._buffer - room
            correction = self._queue.correction(queued)
            if correction:
                if correction == -self.period:
                    return b""
                period = stretch(period, self.period + correction)
            # What does not fit is lost: a full queue must not become a longer one.
            written: int = playback.write(period)
            if written == XRUN:
                return self._recover(period)
        except alsaaudio.ALSAAudioError as error:
            raise self._gone(self.playback_device, error) from error
        return period[: 2 * max(0, written)]

    def close(self) -> None:
        playback, self._playback = self._playback, None
        capture, self._capture = self._capture, None
        self._captured = b""
        if playback is not None:
            try:
                playback.drop()  # close() would wait for the queue to be played
            except alsaaudio.ALSAAudioError as error:
                log.debug("drop on %s: %s", self.playback_device, error)
            playback.close()
        if capture is not None:
            capture.close()

    # --- opening ---

    def _open_both(self) -> None:
        wanted = self._asked_rate
        tried: dict[int, tuple[int, int]] = {}
        for rate in (wanted, *COMMON_RATES):
            capture, got = self._open_one(alsaaudio.PCM_CAPTURE, self.device, rate)
            try:
                playback, back = self._open_one(
                    alsaaudio.PCM_PLAYBACK, self.playback_device, got["rate"]
                )
            except BaseException:
                capture.close()
                raise
            self._capture, self._playback = capture, playback
            if got["rate"] == back["rate"]:
                break
            tried[rate] = (got["rate"], back["rate"])
            self.close()
        else:
            raise BoardError(
                f"sound cards {self.device} and {self.playback_device} have no rate in common: "
                + ", ".join(f"{one} and {other} Hz" for one, other in tried.values())
            )
        self.rate = got["rate"]
        self.period = self.rate // 50
        self._bytes = 2 * self.period
        self._buffer = back["buffer_size"]
        self._queue = PlaybackQueue(self.period, least=max(got["period_size"], back["period_size"]))
        self._queued = self._queue.target - self.period
        if self.rate != wanted:
            log.info("sound card %s works at %d Hz, not %d", self.device, self.rate, wanted)
        if got["period_size"] != self.period:
            log.warning(
                "sound card %s wakes every %d frames, not every %d: sound is less even",
                self.device,
                got["period_size"],
                self.period,
            )

    def _open_one(self, direction: int, device: str, rate: int) -> tuple[Any, dict[str, Any]]:
        # Never alsa-lib's own blocking: its pulse plugin sleeps for ever when the server dies.
        capture = direction == alsaaudio.PCM_CAPTURE
        try:
            pcm = alsaaudio.PCM(
                direction,
                alsaaudio.PCM_NONBLOCK,
                device=device,
                rate=rate,
                channels=1,
                format=alsaaudio.PCM_FORMAT_S16_LE,
                periodsize=rate // 50,
                periods=BUFFER_PERIODS,
            )
        except alsaaudio.ALSAAudioError as error:
            raise BoardError(
                f"sound card {device}, {'capture' if capture else 'playback'}: {error}; "
                f"there are: {', '.join(sound_cards()) or 'none'}"
            ) from error
        info: dict[str, Any] = pcm.info()
        if info["rate"] != rate:
            pcm.close()  # the card's own rate: once more, with a period of that rate
            return self._open_one(direction, device, info["rate"])
        if info["channels"] != 1 or info["format"] != alsaaudio.PCM_FORMAT_S16_LE:
            pcm.close()
            raise BoardError(
                f"sound card {device} offers {info['channels']} channels of "
                f"{info['format_name']} only, 1 channel of S16_LE needed: "
                f"name it plug{device} or plug:{device}, which converts"
                if not device.startswith("plug")
                else f"sound card {device} cannot be converted to 1 channel of S16_LE"
            )
        return pcm, info

    def _start(self) -> None:
        try:
            # The first read starts a card; a sound server has collected since the opening, and
            # what is not from now would be delay for the whole call.
            self._capture.read()
            self._poll = select.poll()
            for descriptor, mask in self._capture.polldescriptors():
                self._poll.register(descriptor, mask)
            # A sound server that was asleep takes longer than a card that runs may be silent.
            if not self._poll.poll(2 * SILENCE_MS) and self._capture.avail() <= 0:
                raise self._gone(self.device, f"no sound for {2 * SILENCE_MS} ms")
            self._drop_captured()
            self._playback.write(bytes(2 * self._queue.target))
        except alsaaudio.ALSAAudioError as error:
            raise self._gone(self.device, error) from error

    # --- running ---

    def _collected(self, count: int, data: bytes) -> bytes:
        """A whole period, begun with this read.

        With a rate conversion in between a read need not be one.
        """
        self._take(count, data)
        while len(self._captured) < self._bytes:
            if not self._poll.poll(SILENCE_MS):
                raise self._gone(self.device, f"no sound for {SILENCE_MS} ms")
            self._take(*self._capture.read())
        period, self._captured = self._captured[: self._bytes], self._captured[self._bytes :]
        return period

    def _take(self, count: int, data: bytes) -> None:
        if count == XRUN:
            self.overruns += 1
            self._captured = b""
            count, data = self._capture.read()  # prepared by the last read, started by this one
        self._empty_reads = 0 if data else self._empty_reads + 1
        if self._empty_reads > EMPTY_READS:
            raise self._gone(self.device, "it calls, and has nothing")
        self._captured += data

    def _drop_backlog(self) -> None:
        """A reader held up for long is not served all that it missed, in one burst.

        A card overruns by itself after four periods; a sound server keeps minutes.
        """
        if self._capture.avail() > (BUFFER_PERIODS - 1) * self.period:
            self.overruns += 1
            self._drop_captured()

    def _drop_captured(self) -> None:
        self._captured = b""
        for _ in range(1000):
            if self._capture.avail() < self.period:
                return
            self._capture.read()

    def _recover(self, period: bytes) -> bytes:
        """The loudspeaker ran dry: count it, and fill the queue to its target again."""
        self.underruns += 1
        self._queue.ran_dry()
        data = bytes(2 * self._queue.target - len(period)) + period
        written: int = self._playback.write(data)
        if written == XRUN:  # that one prepares, this one plays
            written = self._playback.write(data)
        self._queued = 0
        return data[: 2 * max(0, written)]

    def _gone(self, device: str, why: object) -> BoardError:
        self.close()
        return BoardError(f"sound card {device} is gone: {why}")

    # --- volume ---

    def _set_volumes(self) -> None:
        """A card without such a volume is used as it is: a door without sound helps nobody."""
        for device, direction, percent in (
            (self.playback_device, "Playback", self.playback_volume),
            (self.device, "Capture", self.capture_volume),
        ):
            if percent is not None:
                try:
                    self._set_volume(device, direction, percent)
                except BoardError as error:
                    log.warning("%s; it stays as it is", error)

    def _set_volume(self, device: str, direction: str, percent: int) -> None:
        control_device = mixer_device(device)
        preferred = PLAYBACK_CONTROLS if direction == "Playback" else CAPTURE_CONTROLS
        pcm_type = alsaaudio.PCM_PLAYBACK if direction == "Playback" else alsaaudio.PCM_CAPTURE
        try:
            names = sorted(
                dict.fromkeys(alsaaudio.mixers(device=control_device)),
                key=lambda name: preferred.index(name) if name in preferred else len(preferred),
            )
            for name in names:
                mixer = alsaaudio.Mixer(control=name, device=control_device)
                try:
                    # "Volume" alone is one scale for both directions.
                    if {"Volume", f"{direction} Volume"} & set(mixer.volumecap()):
                        mixer.setvolume(percent, pcmtype=pcm_type)
                        return
                finally:
                    mixer.close()
        except alsaaudio.ALSAAudioError as error:
            raise BoardError(f"mixer of sound card {device}: {error}") from error
        raise BoardError(
            f"sound card {device} has no {direction.lower()} volume; "
            f"its controls: {', '.join(names) or 'none'}"
        )
