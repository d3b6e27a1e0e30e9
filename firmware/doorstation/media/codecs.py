"""Every codec a call can speak, by its name and RTP clock in the SDP."""

from collections.abc import Callable
from typing import Final

from doorstation.errors import DoorstationError
from doorstation.media import g722, opus, resample
from doorstation.media.codec import Codec
from doorstation.media.g711 import Pcma, Pcmu
from doorstation.media.g722 import G722
from doorstation.media.l16 import L16
from doorstation.media.opus import Opus

COMPLEXITY: Final = 3
"""Of Opus, where nothing is known of the board."""

_Maker = Callable[[str, int], Codec]
_Need = Callable[[], None]
_MAKERS: Final[dict[tuple[str, int], tuple[_Maker, tuple[_Need, ...]]]] = {
    ("PCMA", 8000): (lambda _fmtp, _complexity: Pcma(), ()),
    ("PCMU", 8000): (lambda _fmtp, _complexity: Pcmu(), ()),
    ("G722", 8000): (lambda _fmtp, _complexity: G722(), (g722.require, resample.require)),
    ("OPUS", 48000): (Opus, (opus.require, resample.require)),
    ("L16", 8000): (lambda _fmtp, _complexity: L16(8000), ()),
    ("L16", 16000): (lambda _fmtp, _complexity: L16(16000), (resample.require,)),
}
"""How each is made, and what it needs: where sound of two rates meets, also the converter."""


def is_spoken(name: str, clock: int) -> bool:
    """Whether `make` knows it."""
    return (name.upper(), clock) in _MAKERS


def make(name: str, clock: int, fmtp: str = "", complexity: int = COMPLEXITY) -> Codec:
    """A codec for one payload type of one call; `fmtp`: what the far end asks for.

    Raises ValueError for one that is not spoken, DoorstationError when its library is missing.
    """
    maker, _ = _known(name, clock)
    return maker(fmtp, complexity)


def missing(name: str, clock: int) -> str:
    """Why a codec that is spoken cannot be on this machine, for the log; "" when it can."""
    _, needs = _known(name, clock)
    try:
        for need in needs:
            need()
    except DoorstationError as error:
        return str(error)
    return ""


def _known(name: str, clock: int) -> tuple[_Maker, tuple[_Need, ...]]:
    try:
        return _MAKERS[name.upper(), clock]
    except KeyError:
        known = ", ".join(f"{name}/{clock}" for name, clock in _MAKERS)
        raise ValueError(f"codec {name}/{clock}: {known} are spoken") from None
