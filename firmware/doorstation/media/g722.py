"""G.722 (ITU-T G.722, 64 kbit/s): 7 kHz of speech in the octets of G.711, by the library G722.

The RTP clock is 8000 though the sound is sampled at 16 kHz: an error of RFC 1890 that stayed for
the sake of those who had followed it (RFC 3551 §4.5.2).
"""

import functools
from typing import Any

from doorstation.errors import DoorstationError
from doorstation.media.codec import Codec


@functools.cache
def _library() -> Any:
    try:
        from G722 import G722
    except ImportError as error:
        raise DoorstationError(
            f"the Python package G722 is missing or was built for another Python: {error}"
        ) from error
    return G722


def require() -> None:
    """Raise DoorstationError when the library is not installed."""
    _library()


class G722(Codec):
    """Both directions of a call. Any length that is whole milliseconds; one octet is two samples.

    Raises DoorstationError when the library is not installed.
    """

    __slots__ = ("_codec",)
    rate = 16000
    clock = 8000

    def __init__(self) -> None:
        # The third argument keeps it from looking for numpy.
        self._codec = _library()(self.rate, 64000, False)

    def encode(self, pcm: bytes) -> bytes:
        # A view of samples: `bytes` would be taken for samples of eight bits.
        payload: bytes = self._codec.encode(memoryview(pcm).cast("h"))
        return payload

    def decode(self, payload: bytes) -> bytes:
        pcm: bytes = self._codec.decode(payload).tobytes()
        return pcm

    def samples(self, payload: bytes) -> int:
        return 2 * len(payload)
