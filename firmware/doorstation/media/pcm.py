"""Sample arithmetic in C: audioop, from the standard library up to 3.12, from audioop-lts after.

Sound inside the firmware is mono S16 in the machine's byte order, as `bytes`.
"""

import math
import warnings

with warnings.catch_warnings():
    # 3.11 and 3.12 announce the removal on every import; pyproject.toml already follows it.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

__all__ = ["SILENCE_DBFS", "audioop", "crossfade", "dbfs"]

SILENCE_DBFS = -100.0


def dbfs(rms: float) -> float:
    """Level of an RMS value in dB below full scale; a full-scale sine is -3; silence is -100."""
    return 20.0 * math.log10(rms / 32768.0) if rms > 0.33 else SILENCE_DBFS


def crossfade(old: bytes, new: bytes) -> bytes:
    """Fade from `old` to `new`, both of the same length, over all of it. Sample by sample: rare."""
    a = memoryview(old).cast("h")
    b = memoryview(new).cast("h")
    count = len(a)
    mixed = bytearray(len(old))
    out = memoryview(mixed).cast("h")
    for i in range(count):
        out[i] = (a[i] * (count - i) + b[i] * i) // count
    return bytes(mixed)
