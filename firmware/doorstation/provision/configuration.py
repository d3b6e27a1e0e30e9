"""A change is checked whole, tried, and kept when it is confirmed; else the old tree comes back.

    stage ──> Save(pending) ──> Apply(new) ──> applied ──┬─ confirm, or well again ──> Save(kept)
                                                         ├─ time is up, or rollback ─┐
    a start that finds one pending ──────────────────────┴───────────────────────────┴─> Save, Apply

Sans-I/O: each input returns what to do, in order. `Save` comes before `Apply`, so that a power cut
finds the change pending, and what was before it beside it. One change is tried at a time.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from doorstation.errors import DoorstationError, SettingsError
from doorstation.provision.layers import Change, Difference, Raw, Tree, with_steps
from doorstation.provision.state import (
    HISTORY,
    KEPT_ORIGINS,
    RECORDINGS,
    Past,
    Pending,
    State,
)
from doorstation.settings.tree import Settings

LOST_WORD: Final = "nobody confirmed it in time"
UNWELL: Final = "the door was not well again in time"
CUT: Final = "the door started again before it was confirmed"


class Refused(DoorstationError):
    """A change that cannot be tried now, or a word about one that is not being tried."""


class Save(msgspec.Struct, frozen=True):
    """Write the state.

    When the disk does not take it and `must` is true, call `save_failed` and do nothing of what
    follows. Otherwise go on: a change that is not kept on the disk ends with the next start.
    """

    state: State
    must: bool


class Apply(msgspec.Struct, frozen=True):
    """Let the door run with these settings, as soon as no call is up; then call `applied`."""

    settings: Settings
    before: Settings


class Tell(msgspec.Struct, frozen=True):
    """A line for the audit log: `kind` "staged", "confirmed", "rolled_back", "reset"."""

    kind: str
    number: int
    by: str
    how: str
    keys: tuple[str, ...]
    why: str = ""


Output: TypeAlias = Save | Apply | Tell


class Configuration:
    """The door's settings, and the change that is being tried."""

    def __init__(
        self,
        layers: Mapping[str, Raw],
        state: State,
        judge: Callable[[Settings], None] = lambda settings: None,
    ) -> None:
        """`layers`: those that are not kept in the state: dhcp, local. `judge` raises SettingsError
        for settings to be tried that do not go with what only this door knows.

        Raises SettingsError when there is no tree that works: the local file is at fault then.
        """
        self.state = state
        self._base = dict(layers)
        self._judge = judge
        self.tree = self._tree(state)
        self.settings = self.tree.settings()
        self._former = (state, self.tree, self.settings)
        self._applied_at: float | None = None

    @property
    def deadline(self) -> float | None:
        pending = self.state.pending
        if pending is None or self._applied_at is None:
            return None
        return self._applied_at + pending.seconds

    # -- looking

    def check(self, change: Change, origin: str = "remote") -> list[Difference]:
        """What a change would change. Raises SettingsError with every problem of the new tree."""
        new = self.tree.changed(change, origin)
        self._judge(new.settings())
        return self.tree.differences(new, change.written)

    # -- changing

    def stage(
        self,
        change: Change,
        *,
        by: str,
        how: str,
        at: str,
        seconds: float,
        needs_word: bool,
        origin: str = "remote",
        kept: Mapping[str, Any] | None = None,
    ) -> list[Output]:
        """Try a change of one layer. `kept`: what is to be remembered with it, in one write.

        Raises SettingsError for a tree with problems, Refused while another change is tried.
        """
        tree = self.tree.changed(change, origin)
        return self._stage(
            tree, by, how, at, seconds, needs_word, origin, kept, written=change.written
        )

    def replace(
        self,
        raw: Raw,
        *,
        by: str,
        how: str,
        at: str,
        seconds: float,
        needs_word: bool,
        origin: str,
        kept: Mapping[str, Any] | None = None,
        then: Mapping[str, Any] | None = None,
    ) -> list[Output]:
        """Try a whole layer in place of the one there is. Raises as `stage` does.

        `then`: what is to be remembered if it is confirmed, in that one write.
        """
        tree = self.tree.with_layer(origin, raw)
        return self._stage(tree, by, how, at, seconds, needs_word, origin, kept, then)

    def undo(
        self,
        *,
        by: str,
        how: str,
        at: str,
        seconds: float,
        needs_word: bool,
        kept: Mapping[str, Any] | None = None,
        of: int | None = None,
    ) -> list[Output]:
        """Try what was before the last change that was kept; `of`: if it is still this one.

        What a later one wrote that changed nothing stays: a value held against other layers.
        Raises Refused: there is none, or another.
        """
        history = self.state.history
        last = next((past for past in reversed(history) if past.undoable), None)
        if last is None:
            raise Refused("there is no change to undo")
        if of not in (None, last.number):
            raise Refused(f"change {last.number} came meanwhile")
        now = self.state.layer(last.origin)
        later = (past for past in history if past.number > last.number)
        after = next((past.before for past in later if past.origin == last.origin), now)
        return self.replace(
            with_steps(last.before, after, now),
            by=by, how=how, at=at, seconds=seconds, needs_word=needs_word, origin=last.origin,
            kept=kept,
        )  # fmt: skip

    def _stage(
        self,
        tree: Tree,
        by: str,
        how: str,
        at: str,
        seconds: float,
        needs_word: bool,
        origin: str,
        kept: Mapping[str, Any] | None,
        then: Mapping[str, Any] | None = None,
        written: Collection[str] = (),
    ) -> list[Output]:
        if (tried := self.state.pending) is not None:
            raise Refused(f"change {tried.number} by {tried.by} is being tried")
        settings = tree.settings()
        self._judge(settings)
        differences = tuple(self.tree.differences(tree, written))
        pending = Pending(
            number=self.state.number + 1,
            at=at,
            by=by,
            how=how,
            origin=origin,
            differences=differences,
            before=self.state.layer(origin),
            needs_word=needs_word,
            seconds=seconds,
            then=then or {},
        )
        state = msgspec.structs.replace(
            self.state.with_layer(origin, tree.layers.get(origin, {})),
            number=pending.number,
            pending=pending,
            kept={**self.state.kept, **(kept or {})},
        )
        before = self.settings
        self._former = (self.state, self.tree, before)
        self.state, self.tree, self.settings = state, tree, settings
        self._applied_at = None
        return [Save(state, must=True), _tell("staged", pending), Apply(settings, before)]

    # -- what happens then

    def save_failed(self) -> None:
        """The disk did not take what had to be saved: all is as it was before."""
        self.state, self.tree, self.settings = self._former

    def applied(self, now: float) -> None:
        """The door runs with the new settings: from here on time counts."""
        if self.state.pending is not None:
            self._applied_at = now

    def confirm(self, number: int, *, well: bool) -> list[Output]:
        """Keep the change. `well`: whether the door is registered as it was before.

        Raises Refused when it is not this one that is being tried, or the door is not well.
        """
        pending = self._tried(number)
        if self._applied_at is None:
            raise Refused(f"change {number} is not applied yet")
        if not well:
            raise Refused(f"change {number} leaves the door unregistered")
        return self._end(pending, "confirmed")

    def well_again(self) -> list[Output]:
        """The door is registered as before: enough for a change that needs nobody's word."""
        pending = self.state.pending
        if pending is None or pending.needs_word or self._applied_at is None:
            return []
        return self._end(pending, "confirmed")

    def roll_back(self, number: int, why: str) -> list[Output]:
        """Put back what was before. Raises Refused when it is not this one that is being tried."""
        return self._roll_back(self._tried(number), why)

    def timer_fired(self, now: float) -> list[Output]:
        deadline, pending = self.deadline, self.state.pending
        if deadline is None or now < deadline or pending is None:
            return []
        return self._roll_back(pending, LOST_WORD if pending.needs_word else UNWELL)

    def base_changed(self, origin: str, raw: Raw) -> list[Output]:
        """A layer that is not kept says something else: DHCP. Raises SettingsError: not used."""
        tree = Tree({**self._base, origin: raw, **self._layers(self.state)})
        settings = tree.settings()
        self._base[origin] = raw
        before, self.tree, self.settings = self.settings, tree, settings
        return [] if settings == before else [Apply(settings, before)]

    def remember(self, part: str, value: Any) -> list[Output]:
        """Keep something for another part, by its name."""
        self._former = (self.state, self.tree, self.settings)
        self.state = msgspec.structs.replace(self.state, kept={**self.state.kept, part: value})
        return [Save(self.state, must=True)]

    def reset(self, *, by: str, how: str) -> list[Output]:
        """As it came: every layer, key, counter and change that is kept here is forgotten."""
        keys = tuple(row.key for row in self.tree.rows() if row.origin in KEPT_ORIGINS)
        tell = Tell("reset", self.state.number, by, how, keys)
        before = self.settings
        self._former = (self.state, self.tree, before)
        # The number goes on: a late word about a change of before is about none of the new ones.
        kept = {part: value for part, value in self.state.kept.items() if part == RECORDINGS}
        self.state = State(number=self.state.number, kept=kept)
        self.settings = self._former_settings()
        return [Save(self.state, must=True), tell, Apply(self.settings, before)]

    def _tried(self, number: int) -> Pending:
        pending = self.state.pending
        if pending is None or pending.number != number:
            raise Refused(f"change {number} is not being tried")
        return pending

    def _roll_back(self, pending: Pending, why: str) -> list[Output]:
        outputs = self._end(pending, f"rolled back: {why}", before=pending.before)
        before, self.settings = self.settings, self._former_settings()
        return [*outputs, Apply(self.settings, before)]

    def _end(self, pending: Pending, result: str, before: Raw | None = None) -> list[Output]:
        self._applied_at = None
        self.state = _ended(self.state, pending, result, before)
        self.tree = self._tree(self.state)
        kind, _, why = result.partition(": ")
        return [Save(self.state, must=False), _tell(kind.replace(" ", "_"), pending, why)]

    def _former_settings(self) -> Settings:
        """Those of layers that worked before. What the network says meanwhile keeps nothing from
        going back: where it goes with the tried settings alone, it goes with them."""
        self.tree = self._tree(self.state)
        try:
            return self.tree.settings()
        except SettingsError:
            self._base.pop("dhcp", None)
            self.tree = self._tree(self.state)
            return self.tree.settings()

    def _layers(self, state: State) -> dict[str, Raw]:
        return {origin: state.layer(origin) for origin in KEPT_ORIGINS}

    def _tree(self, state: State) -> Tree:
        return Tree({**self._base, **self._layers(state)})


def restarted(state: State) -> State:
    """The state to start with: a change that was being tried when the door stopped is gone."""
    pending = state.pending
    if pending is None:
        return state
    return _ended(state, pending, f"rolled back: {CUT}", pending.before)


def _ended(state: State, pending: Pending, result: str, before: Raw | None) -> State:
    past = Past(
        number=pending.number,
        at=pending.at,
        by=pending.by,
        how=pending.how,
        origin=pending.origin,
        differences=pending.differences,
        before=pending.before,
        result=result,
    )
    kept = state.kept
    if before is None:
        kept = {**kept, **pending.then}
    else:
        state = state.with_layer(pending.origin, before)
    history = (*state.history, past)[-HISTORY:]
    return msgspec.structs.replace(state, pending=None, history=history, kept=kept)


def _tell(kind: str, pending: Pending, why: str = "") -> Tell:
    keys = tuple(difference.key for difference in pending.differences)
    return Tell(kind, pending.number, pending.by, pending.how, keys, why)
