"""Run as a script by either Python: microseconds to read and write an INVITE, as JSON.

    python readers.py FILE NAME...       of doorstation, sipmessage, aiosip, pyVoIP

Reading ends where a user agent could act: topmost Via, From, To, Call-ID, CSeq and Contact are
values, not text, as far as the library goes; `doorstation-lines` stops where header lines are told
apart. The best of many batches counts: what disturbs only
makes slower.
"""

import asyncio
import collections
import importlib
import json
import sys
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

BATCHES = 60
IN_A_BATCH = 50

Pair = tuple[Callable[[bytes], Any], Callable[[Any], Any] | None]


def doorstation() -> Pair:
    from doorstation.sip.message import check_request, format_message, parse_message

    def read(data: bytes) -> Any:
        request: Any = parse_message(data)
        check_request(request)
        _ = request.top_via, request.from_, request.to, request.call_id, request.cseq
        _ = request.contacts
        return request

    return read, format_message


def doorstation_lines() -> Pair:
    from doorstation.sip.message import format_message, parse_message

    return parse_message, format_message


def sipmessage() -> Pair:
    from sipmessage import Message  # type: ignore[import-not-found]

    def read(data: bytes) -> Any:
        request = Message.parse(data)
        _ = request.via, request.from_address, request.to_address, request.call_id, request.cseq
        _ = request.contact
        return request

    return read, bytes


def aiosip() -> Pair:
    # Written for Python 3.5, where this was the way to say `async def`.
    if not hasattr(asyncio, "coroutine"):
        asyncio.coroutine = lambda function: function  # type: ignore[attr-defined]
    if not hasattr(collections, "MutableMapping"):
        collections.MutableMapping = MutableMapping  # type: ignore[attr-defined]
    asyncio.set_event_loop(asyncio.new_event_loop())
    from aiosip.message import Message  # type: ignore[import-not-found]

    def read(data: bytes) -> Any:
        request = Message.from_raw_message(data.decode())
        _ = request.cseq
        return request

    return read, lambda request: str(request).encode()


def pyVoIP() -> Pair:
    importlib.import_module("pyVoIP.VoIP")  # first: the two import each other
    from pyVoIP.SIP import SIPMessage  # type: ignore[import-not-found]

    return SIPMessage, None  # it writes from pieces of text, not from a message


LIBRARIES = {
    "doorstation": doorstation,
    "doorstation-lines": doorstation_lines,
    "sipmessage": sipmessage,
    "aiosip": aiosip,
    "pyVoIP": pyVoIP,
}


def best(action: Callable[[], object]) -> float:
    """Microseconds of one."""
    shortest = float("inf")
    for _ in range(BATCHES):
        begin = time.perf_counter()
        for _ in range(IN_A_BATCH):
            action()
        shortest = min(shortest, time.perf_counter() - begin)
    return shortest / IN_A_BATCH * 1e6


def measure(name: str, data: bytes) -> dict[str, float | str | None]:
    try:
        read, write = LIBRARIES[name]()
        message = read(data)
        reading = best(lambda: read(data))
        # A message that was read and not changed might keep its octets: none of these does.
        writing = None if write is None else best(lambda: write(message))
    except Exception as fault:
        return {"fault": f"{type(fault).__name__}: {fault}"}
    return {"read": reading, "write": writing}


if __name__ == "__main__":
    invite = Path(sys.argv[1]).read_bytes()
    print(json.dumps({name: measure(name, invite) for name in sys.argv[2:]}))
