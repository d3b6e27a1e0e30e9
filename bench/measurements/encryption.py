"""Encryption.

Protecting and opening one packet with 20 ms of G.711, and one DTLS handshake, both ends of it: CPU
time of the thread, the best of many batches. A call has a hundred such packets a second.
"""

import time
from collections.abc import Callable

from doorstation.media import dtls
from doorstation.media.dtls import Handshake
from doorstation.media.srtp import SUITES, DtlsPeer, Keys, Srtp, Suite

from bench.run import Bench
from bench.table import OURS, Row

_PACKETS = 1000


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    batches = bench.count(40, 5)
    for suite in SUITES.values():
        best = [_suite(suite) for _ in range(batches)]
        rows.append(Row(f"protect, {suite.name}", "µs", {OURS: min(each[0] for each in best)}))
        rows.append(Row(f"open, {suite.name}", "µs", {OURS: min(each[1] for each in best)}))
    name, digest = dtls.fingerprint().split()
    same = ((name, bytes.fromhex(digest.replace(":", ""))),)
    shake = min(_timed(lambda: _handshake(same)) for _ in range(batches))
    rows.append(Row("DTLS handshake, both ends", "ms", {OURS: 1e3 * shake}))
    return rows, []


def _suite(suite: Suite) -> tuple[float, float]:
    """Microseconds to protect and to open a packet."""
    one, other = bytes(suite.master), bytes([1]) * suite.master
    sender, receiver = Srtp(Keys(suite.name, one, other)), Srtp(Keys(suite.name, other, one))
    plain = [_packet(sequence) for sequence in range(_PACKETS)]
    sealed: list[bytes] = []
    protect = _timed(lambda: sealed.extend(map(sender.protect, plain)))
    opened = _timed(lambda: [*map(receiver.unprotect, sealed)])
    return 1e6 * protect / _PACKETS, 1e6 * opened / _PACKETS


def _packet(sequence: int) -> bytes:
    return b"\x80\x08" + sequence.to_bytes(2, "big") + bytes(7) + b"\1" + bytes(160)


def _timed(work: Callable[[], object]) -> float:
    begin = time.thread_time()
    work()
    return time.thread_time() - begin


def _handshake(same: tuple[tuple[str, bytes], ...]) -> None:
    here, there = (Handshake(DtlsPeer(same, active=active)) for active in (False, True))
    flight = there.start()
    while flight:
        flight = [out for data in flight for out in here.received(data)]
        here, there = there, here
