"""Where the configuration lies: the first place that holds a file that counts.

    1  the place of the last configuration that was confirmed   a rogue answer later changes nothing
    2  the place that the settings name: typed, or in a file or order of the owner; or on a card
    3  DHCP
    4  SIP multicast (`ua-profile`)                             only while the door has no owner
    5  DNS-SD, `_door-config._tcp`, also in `.local`            only while the door has no owner
    6  nothing: the door works alone

Once the door has an owner, 2 asks no card, and 3 is read again only if its owner says `always`.
Whoever first serves an owner's newer file is 1, be it one that he caught: so 1 with nothing new
ends no search, unless the settings name it too. Sans-I/O: the caller asks and fetches, and tells
what came of it; every step is a plain line for the log.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

import msgspec

from doorstation.dhcp.offered import Location, Offered

Source = Literal["dhcp", "multicast", "dns-sd"]
Mode = Literal["once", "always", "off"]

MAX_PLACES: Final = 16
"""Places tried in one round: bounds what a rogue server can have a door fetch."""


class Ask(msgspec.Struct, frozen=True):
    """Ask the network, for five seconds at most; then call `answered`."""

    source: Source


class Try(msgspec.Struct, frozen=True):
    """Fetch it, judge it; then call `tried`."""

    place: Location


class Line(msgspec.Struct, frozen=True):
    """What happened, for people."""

    text: str


class Over(msgspec.Struct, frozen=True):
    """The place that served, or None: the door works alone."""

    place: Location | None


Output: TypeAlias = Ask | Try | Line | Over


class Discovery:
    """One round."""

    def __init__(
        self,
        *,
        confirmed: str,
        typed: str,
        card: Iterable[Location] = (),
        claimed: bool,
        mode: Mode,
        placeholders: "Placeholders",
    ) -> None:
        self._placeholders = placeholders
        self._places: deque[Location] = deque()
        self._seen: set[str] = set()
        self._sources: deque[Source] = deque()
        self._lines: list[Output] = []
        self._unchanged: Location | None = None
        self._named = placeholders.filled(typed)
        self._add([Location(confirmed, "confirmed")] if confirmed else [])
        self._add([Location(typed, "typed")] if typed else [])
        self._add(card)
        if mode == "off":
            self._pass_over("the network", "discovery is off")
        elif claimed and mode != "always":
            self._pass_over("the network", "the door has an owner")
        else:
            self._sources.append("dhcp")
            if not claimed:
                self._sources.extend(("multicast", "dns-sd"))

    def start(self) -> list[Output]:
        return self._next()

    def answered(self, source: Source, places: Iterable[Location], said: str = "") -> list[Output]:
        """What the network said to a question. `said`: in a few words, for the log."""
        added = self._add(places)
        self._lines.append(Line(f"{source}: {said or f'{added} places'}"))
        return self._next()

    def tried(self, place: Location, fault: str | None) -> list[Output]:
        """Whether a place held a file that counts: `fault` is "" then, None if the door has it."""
        if fault:
            self._pass_over(f"{place.url} ({place.option})", fault)
            return self._next()
        if fault is None and place.option == "confirmed" and place.url != self._named:
            self._unchanged = place
            return self._next()
        return self._used(place)

    def _used(self, place: Location) -> list[Output]:
        return [*self._told(), Line(f"used: {place.url} ({place.option})"), Over(place)]

    def _next(self) -> list[Output]:
        if self._places:
            place = self._places.popleft()
            return [*self._told(), Line(f"asked: {place.url} ({place.option})"), Try(place)]
        if self._sources:
            source = self._sources.popleft()
            return [*self._told(), Line(f"asked: {source}"), Ask(source)]
        if self._unchanged is not None:
            return self._used(self._unchanged)
        return [*self._told(), Line("no configuration from the network"), Over(None)]

    def _add(self, places: Iterable[Location]) -> int:
        added = 0
        for place in places:
            place = Location(self._placeholders.filled(place.url), place.option)
            if place.url in self._seen:
                continue
            if len(self._seen) >= MAX_PLACES:
                self._pass_over(place.url, f"more than {MAX_PLACES} places")
                break
            self._seen.add(place.url)
            self._places.append(place)
            added += 1
        return added

    def _pass_over(self, what: str, why: str) -> None:
        self._lines.append(Line(f"passed over: {what}: {why}"))

    def _told(self) -> list[Output]:
        lines, self._lines = self._lines, []
        return lines


class Placeholders(msgspec.Struct, frozen=True):
    """What a place may say of the door that asks."""

    mac: str
    """Twelve small hexadecimal digits."""
    serial: str
    model: str
    version: str

    def filled(self, url: str) -> str:
        """The place with `{mac}`, `{MAC}`, `{serial}`, `{model}`, `{version}`, `$mac` and `$MA`."""
        for sign, value in (
            ("{mac}", self.mac),
            ("{MAC}", self.mac.upper()),
            ("{serial}", self.serial),
            ("{model}", self.model),
            ("{version}", self.version),
            ("$mac", self.mac),
            ("$MA", self.mac.upper()),
        ):
            url = url.replace(sign, value)
        return url


def described(offered: Offered) -> str:
    """A server's answer in one line."""
    parts = [
        f"SIP {', '.join(offered.sip_servers)}" if offered.sip_servers else "",
        ", ".join(f"{place.url} ({place.option})" for place in offered.locations),
        f"domain {offered.domains[0]}" if offered.domains else "",
        f"time {', '.join(offered.ntp_servers)}" if offered.ntp_servers else "",
        *(f"fault: {fault}" for fault in offered.faults),
    ]
    return f"{offered.server}: {'; '.join(part for part in parts if part) or 'nothing for us'}"
