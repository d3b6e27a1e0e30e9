"""The claim code: who reads it at a door without an owner may name one."""

from typing import Final, Literal

FREE: Final = 5
"""Wrong codes in a row until none is looked at for a while,"""

PAUSE: Final = 60.0
"""of so many seconds: who tries them all from the network needs some 200 years on the average."""

MOST: Final = 20
"""Signs of a code that is looked at: nine digits, with whatever stands between them."""


class Attempts:
    """Compares what is typed with the door's code; whoever types, they are counted together."""

    def __init__(self, code: str) -> None:
        self._code = _digits(code)
        self._wrong = 0
        self._until = 0.0

    def typed(self, code: str, now: float) -> Literal["right", "wrong", "wait"]:
        """`wait`: it was not looked at; `now`: seconds of any clock."""
        if now < self._until:
            return "wait"
        if len(code) <= MOST and _digits(code) == self._code:
            return "right"
        self._wrong += 1
        if self._wrong == FREE:
            self._wrong = 0
            self._until = now + PAUSE
        return "wrong"


def _digits(code: str) -> str:
    return "".join(sign for sign in code if sign in "0123456789")
