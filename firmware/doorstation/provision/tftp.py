"""Reading one file by TFTP (RFC 1350), with options where the server knows them (RFC 2347 to 2349).

Nobody protects what comes this way, so only signed files are worth reading by it.

    door, port A                              server
      | RRQ name octet blksize tsize timeout -> port 69
      | <- OACK blksize tsize                   port B, from here on
      | ACK 0 ->                                (or DATA 1 at once, in blocks of 512)
      | <- DATA 1
      | ACK 1 ->                                a block that is not full is the last

Sans-I/O: the caller sends to and receives from the server's address; `now` is loop seconds.
"""

import struct
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

PORT: Final = 69
BLOCK: Final = 512
BLOCK_WANTED: Final = 1428
"""Goes in one packet of Ethernet, tunnels included."""
AGAIN: Final = 1.0
"""Seconds without a packet until ours is sent again; the server is asked to do the same."""
TRIES: Final = 4
MAX_NAME: Final = 400
"""Bytes: servers read requests of 512."""

_RRQ, _DATA, _ACK, _ERROR, _OACK = 1, 3, 4, 5, 6
_FULL, _ILLEGAL, _UNKNOWN_PORT, _BAD_OPTION = 3, 4, 5, 8


class Send(msgspec.Struct, frozen=True):
    """To this port of the server."""

    data: bytes
    port: int


class Done(msgspec.Struct, frozen=True):
    body: bytes


class Failed(msgspec.Struct, frozen=True):
    why: str


Output: TypeAlias = Send | Done | Failed


class Place(msgspec.Struct, frozen=True):
    """What a tftp: address names (RFC 3617)."""

    host: str
    port: int
    name: bytes

    @classmethod
    def of(cls, url: str) -> "Place":
        """Raises ValueError for an address without a file, or with one that cannot be asked for."""
        parts = urlsplit(url)
        path = parts.path.removesuffix(";mode=octet")
        name = unquote_to_bytes(path.removeprefix("/"))
        if not name:
            raise ValueError("no file")
        if len(name) > MAX_NAME or b"\0" in name:
            raise ValueError("no name of a file")
        return cls(parts.hostname or "", parts.port or PORT, name)


class Read:
    """One file, at most `limit` bytes of it."""

    def __init__(self, name: bytes, port: int, limit: int) -> None:
        self._limit = limit
        self._first_port = port
        self._port: int | None = None
        """The server's for this file, from its first answer on."""
        self._block = BLOCK
        self._blocks = 0
        self._body = bytearray()
        options = {"blksize": BLOCK_WANTED, "tsize": 0, "timeout": round(AGAIN)}
        words = [name, b"octet", *(b"%s\0%d" % (k.encode(), v) for k, v in options.items())]
        self._last = struct.pack("!H", _RRQ) + b"".join(word + b"\0" for word in words)
        self._tries = 0
        self._over = False
        self.deadline: float | None = None

    def start(self, now: float) -> list[Output]:
        return self._send(now)

    def timer_fired(self, now: float) -> list[Output]:
        if self._over or self.deadline is None or now < self.deadline:
            return []
        if self._tries >= TRIES:
            return self._ended(Failed("the server is silent"))
        return self._send(now)

    def received(self, data: bytes, port: int, now: float) -> list[Output]:
        """A packet from the server's address. What is none of TFTP's is as good as lost."""
        if self._over or len(data) < 4:
            return []
        kind, number = struct.unpack_from("!HH", data)
        if self._port is not None and port != self._port:
            # RFC 1350 4: an answer to a request of ours that was doubled on the way.
            return [] if kind == _ERROR else [_error(_UNKNOWN_PORT, "unknown port", port)]
        if kind == _ERROR:
            said = data[4:].partition(b"\0")[0][:80].decode("ascii", "replace")
            return self._ended(Failed(f"error {number}: {said}".rstrip(": ")))
        if kind == _OACK and not self._blocks:
            return self._options(data[2:], port, now)
        if kind == _DATA:
            return self._data(number, data[4:], port, now)
        return []

    def _options(self, data: bytes, port: int, now: float) -> list[Output]:
        if self._port is not None:
            return self._send(now, again=True)  # ours to its first was lost
        self._port = port
        words = data.split(b"\0")
        if words.pop() or len(words) % 2:
            return self._refuse(_BAD_OPTION, "options that cannot be read")
        for name, value in zip(words[::2], words[1::2], strict=True):
            number = int(value) if value.isdigit() and len(value) < 10 else -1
            match name.lower():
                case b"blksize" if 8 <= number <= BLOCK_WANTED:
                    self._block = number
                case b"tsize" if number > self._limit:
                    return self._refuse(_FULL, f"more than {self._limit} bytes")
                case b"tsize" if number >= 0:
                    pass
                case b"timeout" if number == round(AGAIN):
                    pass
                case _:
                    return self._refuse(_BAD_OPTION, "an option that was not asked for so")
        return self._acknowledge(0, now)

    def _data(self, number: int, content: bytes, port: int, now: float) -> list[Output]:
        if number == self._blocks and self._blocks:
            return self._send(now, again=True)
        if number != self._blocks + 1:
            return []
        self._port = port
        if len(content) > self._block:
            return self._refuse(_ILLEGAL, f"a block of {len(content)} bytes, {self._block} agreed")
        if len(self._body) + len(content) > self._limit:
            return self._refuse(_FULL, f"more than {self._limit} bytes")
        self._blocks = number
        self._body += content
        outputs = self._acknowledge(number, now)
        if len(content) < self._block:
            outputs += self._ended(Done(bytes(self._body)))
        return outputs

    def _acknowledge(self, number: int, now: float) -> list[Output]:
        self._last, self._tries = struct.pack("!HH", _ACK, number), 0
        return self._send(now)

    def _send(self, now: float, *, again: bool = False) -> list[Output]:
        """`again`: asked for by a packet that came twice, which is no sign of life."""
        if not again:
            self._tries += 1
            self.deadline = now + AGAIN
        return [Send(self._last, self._first_port if self._port is None else self._port)]

    def _refuse(self, code: int, why: str) -> list[Output]:
        assert self._port is not None, "it has just answered"
        return [_error(code, why, self._port), *self._ended(Failed(why))]

    def _ended(self, output: Output) -> list[Output]:
        self._over, self.deadline = True, None
        return [output]


def _error(code: int, why: str, port: int) -> Send:
    return Send(struct.pack("!HH", _ERROR, code) + why.encode() + b"\0", port)
