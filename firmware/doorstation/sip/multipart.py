"""Bodies of several parts (RFC 5621): one of them taken out by its type (RFC 2046 §5.1)."""

import re
from typing import Final

from doorstation.sip.message import Message

# Attack bounded: a body made of nothing but delimiters, each of them a piece to look at.
MAX_PARTS: Final = 16

# Unquoted also with characters that would need quotes: some write `boundary=----=_Part_1`.
_BOUNDARY: Final = re.compile(
    r';[ \t]*boundary[ \t]*=[ \t]*(?:"([^"]{1,70})"|([^ \t;"]{1,70}))', re.IGNORECASE
)
_HEAD_END: Final = re.compile(rb"\n\r?\n")


def part_of(message: Message, kind: str, disposition: str) -> bytes | None:
    """The first part of this type, `type/subtype` in lower case, that is meant for `disposition`
    or does not say what for; None where there is none. Parts within parts are not looked for."""
    if not message.content_type.startswith("multipart/"):
        return None
    boundary = _BOUNDARY.search(message.headers.get("Content-Type") or "")
    if boundary is None:
        return None
    delimiter = b"\n--" + (boundary[1] or boundary[2]).encode()
    _, *pieces = (b"\n" + message.body).split(delimiter, MAX_PARTS)
    for piece in pieces:
        padding, _, rest = piece.partition(b"\n")
        if padding.startswith(b"--"):
            break
        if padding.strip():
            continue  # a longer delimiter that begins like ours
        head, content = _divided(rest)
        if head.get("content-type", "") != kind:
            continue
        if head.get("content-disposition", disposition) != disposition:
            continue
        if head.get("content-transfer-encoding", "binary") in ("7bit", "8bit", "binary"):
            return content.removesuffix(b"\r")
    return None


def _divided(part: bytes) -> tuple[dict[str, str], bytes]:
    """The header of a part, values without parameters and all in lower case, and its content."""
    # A part without any header begins with the empty line.
    part = b"\n" + part
    end = _HEAD_END.search(part)
    if end is None:
        return {}, b""
    head: dict[str, str] = {}
    for line in part[: end.start()].decode("ascii", "replace").split("\n"):
        name, _, value = line.partition(":")
        head.setdefault(name.strip().lower(), value.partition(";")[0].strip().lower())
    return head, part[end.end() :]
