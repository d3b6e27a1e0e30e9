"""Codecs.

Encoding and decoding 20 ms of speech, through the same interface as a call does: CPU time of
the thread, the best of many batches. Opus at the complexities of
the board profiles, in-band FEC asked for; *concealing* is what a lost packet costs.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from doorstation.media import codecs

from bench.run import Bench
from bench.table import OURS, Row
from tests.support.sounds import voice

_SECONDS = 2
_CODECS: Sequence[tuple[str, int, int]] = (
    ("PCMA", 8000, 0),
    ("L16", 16000, 0),
    ("G722", 8000, 0),
    ("opus", 48000, 2),
    ("opus", 48000, 5),
)


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    batches = bench.count(40, 5)
    for name, clock, complexity in _CODECS:
        codec = codecs.make(name, clock, "useinbandfec=1", complexity)
        spoken = voice(_SECONDS, codec.rate)
        payloads = [codec.encode(period) for period in spoken]
        title = f"{name}, complexity {complexity}" if complexity else f"{name} at {codec.rate} Hz"
        rows.append(Row(f"encode, {title}", "µs", _cost(codec.encode, spoken, batches)))
        rows.append(Row(f"decode, {title}", "µs", _cost(codec.decode, payloads, batches)))
    count = codec.rate // 50
    rows.append(Row("conceal, opus", "µs", _cost(codec.conceal, [count] * len(payloads), batches)))
    return rows, []


def _cost(work: Callable[[Any], object], pieces: Sequence[object], batches: int) -> dict[str, Any]:
    best = math.inf
    for _ in range(batches):
        begin = time.thread_time()
        for piece in pieces:
            work(piece)
        best = min(best, (time.thread_time() - begin) / len(pieces))
    return {OURS: 1e6 * best}
