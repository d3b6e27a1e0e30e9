"""The parts of libspeexdsp (Debian's libspeexdsp1) that this firmware calls, typed for ctypes."""

import ctypes
import functools
from typing import Final

from doorstation.errors import DoorstationError

# Requests of speex_echo_ctl and speex_preprocess_ctl, by their names in the library's headers.
ECHO_SET_SAMPLING_RATE: Final = 24
ECHO_GET_IMPULSE_RESPONSE_SIZE: Final = 27
ECHO_GET_IMPULSE_RESPONSE: Final = 29
PREPROCESS_SET_DENOISE: Final = 0
PREPROCESS_SET_NOISE_SUPPRESS: Final = 18
PREPROCESS_SET_ECHO_SUPPRESS: Final = 20
PREPROCESS_SET_ECHO_SUPPRESS_ACTIVE: Final = 22
PREPROCESS_SET_ECHO_STATE: Final = 24

_STATE: Final = ctypes.c_void_p
_UINT: Final = ctypes.c_uint32
_INT: Final = ctypes.c_int
_PCM: Final = ctypes.c_char_p
_COUNT: Final = ctypes.POINTER(ctypes.c_uint32)

_FUNCTIONS: Final[dict[str, tuple[object, tuple[object, ...]]]] = {
    "speex_echo_state_init_mc": (_STATE, (_INT, _INT, _INT, _INT)),
    "speex_echo_state_destroy": (None, (_STATE,)),
    "speex_echo_ctl": (_INT, (_STATE, _INT, _STATE)),
    "speex_echo_cancellation": (None, (_STATE, _PCM, _PCM, _STATE)),
    "speex_preprocess_state_init": (_STATE, (_INT, _INT)),
    "speex_preprocess_state_destroy": (None, (_STATE,)),
    "speex_preprocess_ctl": (_INT, (_STATE, _INT, _STATE)),
    "speex_preprocess_run": (_INT, (_STATE, _STATE)),
    "speex_resampler_init": (_STATE, (_UINT, _UINT, _UINT, _INT, ctypes.POINTER(_INT))),
    "speex_resampler_set_rate_frac": (_INT, (_STATE, _UINT, _UINT, _UINT, _UINT)),
    "speex_resampler_process_int": (_INT, (_STATE, _UINT, _PCM, _COUNT, _STATE, _COUNT)),
    "speex_resampler_destroy": (None, (_STATE,)),
}


@functools.cache
def library() -> ctypes.CDLL:
    """libspeexdsp. Raises DoorstationError naming the package when it is missing or another one."""
    try:
        found = ctypes.CDLL("libspeexdsp.so.1")
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(found, name)
            function.restype = result
            function.argtypes = arguments
    except (OSError, AttributeError) as error:
        raise DoorstationError(
            f"libspeexdsp cannot be used ({error}): it cancels echo and converts between the "
            "sound card's rate and the call's. Install the package libspeexdsp1"
        ) from error
    return found
