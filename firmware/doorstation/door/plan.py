"""A button's plan: steps of targets, resolved once from the settings."""

import msgspec

from doorstation.settings.tree import Settings


class Target(msgspec.Struct, frozen=True):
    uri: str
    peer: str
    """Name of the [peers] entry, or ""."""
    needs_account: bool
    may_open: bool
    short_codes: bool
    inband_digits: bool


class PlannedStep(msgspec.Struct, frozen=True):
    targets: tuple[Target, ...]
    seconds: float

    def reachable(self, registered: bool | None) -> tuple[Target, ...]:
        """Targets worth trying; without registration (False) only those beside the account."""
        if registered is not False:
            return self.targets
        return tuple(target for target in self.targets if not target.needs_account)

    def answered_by(self, uri: str) -> Target:
        """The target behind an answer.

        After a redirection nobody knows which target it was: then it may do what all of them may.
        """
        for target in self.targets:
            if target.uri == uri:
                return target
        return Target(
            uri=uri,
            peer="",
            needs_account=False,
            may_open=all(target.may_open for target in self.targets),
            short_codes=all(target.short_codes for target in self.targets),
            inband_digits=all(target.inband_digits for target in self.targets),
        )


class Plan(msgspec.Struct, frozen=True):
    name: str
    """The button, or "" for a call asked for by hand."""
    steps: tuple[PlannedStep, ...]
    hang_up_after_open: float | None = None


def button_plan(settings: Settings, name: str) -> Plan:
    """The plan of a button. Raises KeyError if there is no such button."""
    button = settings.buttons[name]
    steps = []
    for step in button.steps:
        targets = [_target(settings, text, button.short_codes) for text in step.ring]
        once = {target.uri: target for target in targets}  # a phone rings once, however often named
        steps.append(PlannedStep(tuple(once.values()), step.seconds))
    return Plan(name, tuple(steps), button.hang_up_after_open)


def direct_plan(settings: Settings, text: str, seconds: float) -> Plan:
    """A plan that rings one target: a number, a peer's name or a SIP URI."""
    return Plan("", (PlannedStep((_target(settings, text, False),), seconds),))


def _target(settings: Settings, text: str, short_codes: bool) -> Target:
    uri = settings.target_uri(text)
    name = next((name for name, peer in settings.peers.items() if peer.uri == uri), "")
    peer = settings.peers.get(name)
    needs_account = settings.through_account(uri)
    account = settings.account if needs_account else None
    known = peer if peer is not None else account
    return Target(
        uri=uri,
        peer=name,
        needs_account=needs_account,
        may_open=peer is None or peer.may_open,
        short_codes=short_codes or (peer is not None and peer.short_codes),
        inband_digits=known is not None and known.inband_digits,
    )
