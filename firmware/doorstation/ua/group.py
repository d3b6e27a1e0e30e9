"""Several phones rung at the same time: the first answer wins, the rest are cancelled."""

from collections.abc import Callable

import msgspec

from doorstation.ua.events import (
    CallConnected,
    CallEnded,
    CallRinging,
    Event,
    GroupAnswered,
    GroupFailed,
    GroupRinging,
    Outcome,
    OutcomeKind,
)
from doorstation.ua.outgoing import OutgoingCall

ELSEWHERE = 'SIP;cause=200;text="Call completed elsewhere"'
"""Keeps the other phones' lists free of a missed call (RFC 3326)."""


class CallGroup(msgspec.Struct):
    name: str
    calls: dict[str, OutgoingCall]
    targets: dict[str, str]
    report: Callable[[Event], None]
    winner: str = ""
    _outcomes: dict[str, Outcome] = msgspec.field(default_factory=dict)
    _done: bool = False

    @property
    def over(self) -> bool:
        return self._done

    def start(self, now: float) -> None:
        for call in self.calls.values():
            call.start(now)

    def cancel(self, now: float) -> None:
        """Nobody is to answer any more; no event follows."""
        self._done = True
        for name, call in self.calls.items():
            if name != self.winner:
                call.cancel(now)

    def event(self, event: Event, now: float) -> bool:
        """What became of one of the calls. True: the group took it for itself."""
        match event:
            case CallRinging(call, _, early_media) if not self.winner and not self._done:
                self.report(GroupRinging(self.name, call, early_media))
            case CallConnected(call) if not self.winner and not self._done:
                self.winner = call
                self._done = True
                for name, other in self.calls.items():
                    if name != call:
                        other.cancel(now, ELSEWHERE)
                self.report(GroupAnswered(self.name, call, self.targets[call]))
            case CallEnded(call, kind, status, why, by_peer) if call != self.winner:
                self._ended(call, kind or OutcomeKind.FAILED, status, "" if by_peer else why)
            case _:
                return False
        return True

    def _ended(self, call: str, kind: OutcomeKind, status: int, why: str) -> None:
        self._outcomes[call] = Outcome(self.targets[call], kind, status, why)
        if not self._done and len(self._outcomes) == len(self.calls):
            self._done = True
            outcomes = tuple(self._outcomes[name] for name in self.calls)
            self.report(GroupFailed(self.name, outcomes))
