"""When a contact counts: bouncing, long presses and buttons that stay in, as arithmetic on times.

A level counts once it has stood still for the debounce period; the time reported is that of the
edge after which it stood still. A period of 0 trusts every edge: the kernel has done it before.
"""

from doorboard.interfaces import ButtonEvent


class Debounce:
    """One debounced level. Feed it edges with their times, and `timer_fired` at `deadline`."""

    __slots__ = ("_level", "_pending_since", "_period")

    def __init__(self, level: bool, period: float):
        self._level = level
        self._period = period
        self._pending_since: float | None = None

    @property
    def level(self) -> bool:
        """The last level that counted."""
        return self._level

    @property
    def deadline(self) -> float | None:
        return None if self._pending_since is None else self._pending_since + self._period

    def edge(self, level: bool, at: float) -> list[tuple[bool, float]]:
        """The contact is at `level` since `at`; returns the levels that count, with their times."""
        changes = self.timer_fired(at)  # the timer may be late, and the edge overtake it
        if level == self._level:
            self._pending_since = None
        elif self._pending_since is None:
            self._pending_since = at
            if self._period <= 0:
                changes += self.timer_fired(at)
        return changes

    def timer_fired(self, now: float) -> list[tuple[bool, float]]:
        deadline = self.deadline
        if self._pending_since is None or deadline is None or now < deadline:
            return []
        since, self._pending_since = self._pending_since, None
        self._level = not self._level
        return [(self._level, since)]


class ButtonLogic:
    """Debounced presses, long presses, and a report when the button stays in.

    A button that is in already at the start is not a visitor: it is silent until it counts as
    stuck, and its release only frees it.
    """

    __slots__ = (
        "_debounce",
        "_hold",
        "_hold_at",
        "_reported",
        "_stuck",
        "_stuck_after",
        "_stuck_at",
    )

    def __init__(
        self,
        *,
        pressed: bool,
        now: float,
        debounce: float,
        hold: float | None,
        stuck: float | None,
    ):
        """Seconds: `debounce` until an edge counts, `hold` to a long press, `stuck` to a fault."""
        self._debounce = Debounce(pressed, debounce)
        self._hold = hold
        self._stuck_after = stuck
        self._reported = False  # a "pressed" is out and wants its "released"
        self._stuck = False
        self._hold_at: float | None = None
        self._stuck_at = now + stuck if pressed and stuck is not None else None

    @property
    def pressed(self) -> bool:
        """The last level that counted."""
        return self._debounce.level

    @property
    def deadline(self) -> float | None:
        """When `timer_fired` is due; None: nothing pending."""
        times = (self._debounce.deadline, self._hold_at, self._stuck_at)
        return min((time for time in times if time is not None), default=None)

    def edge(self, pressed: bool, at: float) -> list[ButtonEvent]:
        """The contact is in (or out) since `at`."""
        events = self._due(at)
        for level, since in self._debounce.edge(pressed, at):
            events += self._changed(level, since)
        return events

    def timer_fired(self, now: float) -> list[ButtonEvent]:
        events: list[ButtonEvent] = []
        for level, since in self._debounce.timer_fired(now):
            events += self._changed(level, since)
        return events + self._due(now)

    def _changed(self, pressed: bool, at: float) -> list[ButtonEvent]:
        if pressed:
            self._reported = True
            self._hold_at = None if self._hold is None else at + self._hold
            self._stuck_at = None if self._stuck_after is None else at + self._stuck_after
            return [ButtonEvent("pressed", at)]
        events = [ButtonEvent("released", at)] if self._reported else []
        if self._stuck:
            events.append(ButtonEvent("freed", at))
        self._reported = self._stuck = False
        self._hold_at = self._stuck_at = None
        return events

    def _due(self, now: float) -> list[ButtonEvent]:
        events: list[ButtonEvent] = []
        if self._hold_at is not None and now >= self._hold_at:
            events.append(ButtonEvent("held", self._hold_at))
            self._hold_at = None
        if self._stuck_at is not None and now >= self._stuck_at:
            events.append(ButtonEvent("stuck", self._stuck_at))
            self._stuck = True
            self._stuck_at = None
        return events
