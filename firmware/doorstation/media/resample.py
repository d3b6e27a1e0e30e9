"""Sample rate conversion by libspeexdsp, loaded only when two rates differ."""

import ctypes
import math
from typing import Final

from doorstation.errors import DoorstationError
from doorstation.media import speexdsp

_QUALITY: Final = 1
"""Of 0 to 10: a filter of 2 ms, flat to 3.4 kHz as a telephone is; each step adds delay."""


def require() -> None:
    """Raise DoorstationError naming the package when libspeexdsp is not installed."""
    speexdsp.library()


class Resampler:
    """Mono S16 from one rate to another, in pieces of any length, without drift.

    Raises DoorstationError naming the package when libspeexdsp is not installed.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self.rate_in = rate_in
        self.rate_out = rate_out
        self._state: int | None = None
        if rate_in == rate_out:
            return
        self._speex = speexdsp.library()
        error = ctypes.c_int(0)
        self._state = self._speex.speex_resampler_init(
            1, rate_in, rate_out, _QUALITY, ctypes.byref(error)
        )
        if not self._state:
            raise DoorstationError(
                f"libspeexdsp cannot convert {rate_in} Hz to {rate_out} Hz (error {error.value})"
            )
        self._frames_in = ctypes.c_uint32(0)
        self._frames_out = ctypes.c_uint32(0)
        self._room = 0
        self._output = ctypes.create_string_buffer(0)

    def process(self, pcm: bytes) -> bytes:
        """Convert the next piece. The output's length follows the ratio, exactly over time."""
        if self._state is None:
            return pcm
        count = len(pcm) // 2
        room = math.ceil(count * self.rate_out / self.rate_in) + 1
        if room > self._room:
            self._room = room
            self._output = ctypes.create_string_buffer(2 * room)
        self._frames_in.value = count
        self._frames_out.value = self._room
        self._speex.speex_resampler_process_int(
            self._state,
            0,
            pcm,
            ctypes.byref(self._frames_in),
            self._output,
            ctypes.byref(self._frames_out),
        )
        return ctypes.string_at(self._output, 2 * self._frames_out.value)

    def close(self) -> None:
        """Free the converter; may be called twice."""
        if self._state is not None:
            self._speex.speex_resampler_destroy(self._state)
            self._state = None
            self.rate_in = self.rate_out

    def __del__(self) -> None:
        if getattr(self, "_state", None) is not None:
            self.close()
