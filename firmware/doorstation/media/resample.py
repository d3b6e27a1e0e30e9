"""Sample rate conversion by libspeexdsp, loaded only when two rates differ."""

import ctypes
import math
from typing import Final

from doorstation.errors import DoorstationError
from doorstation.media import speexdsp

_QUALITY: Final = 1
"""Of 0 to 10: a filter of 2 ms, flat to 3.4 kHz as a telephone is; each step adds delay."""

_FINER: Final = 3
"""The first whose table has eight places between two samples: what it holds need not be
interpolated, which is half of the cost, for a filter of 6 ms."""


def require() -> None:
    """Raise DoorstationError naming the package when libspeexdsp is not installed."""
    speexdsp.library()


def _quality(rate_in: int, rate_out: int) -> int:
    """The lowest, but for 8 kHz to 48: its table at four places has not what that needs."""
    times, over = divmod(rate_out, rate_in)
    return _FINER if not over and 4 < times <= 8 else _QUALITY


class Resampler:
    """Mono S16 from one rate to another, in pieces of any length, without drift.

    Raises DoorstationError naming the package when libspeexdsp is not installed.
    """

    __slots__ = (
        "_convert",
        "_frames_in",
        "_frames_out",
        "_given",
        "_library_state",
        "_output",
        "_room",
        "_size",
        "_speex",
        "_state",
        "_taken",
        "rate_in",
        "rate_out",
    )

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self.rate_in = rate_in
        self.rate_out = rate_out
        self._state: int | None = None
        if rate_in == rate_out:
            return
        self._speex = library = speexdsp.library()
        error = ctypes.c_int(0)
        self._state = library.speex_resampler_init(
            1, rate_in, rate_out, _quality(rate_in, rate_out), ctypes.byref(error)
        )
        if not self._state:
            raise DoorstationError(
                f"libspeexdsp cannot convert {rate_in} Hz to {rate_out} Hz (error {error.value})"
            )
        # What each call is given is made once: with cold caches it costs more than converting.
        self._convert = library.speex_resampler_process_int
        self._library_state = ctypes.c_void_p(self._state)
        self._frames_in = ctypes.c_uint32(0)
        self._frames_out = ctypes.c_uint32(0)
        self._taken = ctypes.byref(self._frames_in)
        self._given = ctypes.byref(self._frames_out)
        self._size = 0
        self._room = 0
        self._output = ctypes.create_string_buffer(0)

    def process(self, pcm: bytes) -> bytes:
        """Convert the next piece. The output's length follows the ratio, exactly over time."""
        if self._state is None:
            return pcm
        if len(pcm) > self._size:
            self._make_room(len(pcm))
        self._frames_in.value = len(pcm) // 2
        self._frames_out.value = self._room
        self._convert(self._library_state, 0, pcm, self._taken, self._output, self._given)
        return self._output.raw[: 2 * self._frames_out.value]

    def _make_room(self, size: int) -> None:
        """For what comes out of so many bytes."""
        self._size = size
        self._room = math.ceil(size // 2 * self.rate_out / self.rate_in) + 1
        self._output = ctypes.create_string_buffer(2 * self._room)

    def close(self) -> None:
        """Free the converter; may be called twice."""
        if self._state is not None:
            self._speex.speex_resampler_destroy(self._state)
            self._state = None
            self.rate_in = self.rate_out

    def __del__(self) -> None:
        if getattr(self, "_state", None) is not None:
            self.close()
