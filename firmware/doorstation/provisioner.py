"""Configuration files from the network: where they lie, whose they are, and that they are applied.

The rules are `provision`'s: the order of the places in `discovery`, what may be fetched in `fetch`,
whose files count in `files`. Here they are carried out, one plain line in the log for each step.
"""

import asyncio
import contextlib
import datetime
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from doorstation import BUILT, __version__
from doorstation.configurator import Configurator
from doorstation.dhcp.offered import Location, Offered
from doorstation.errors import DoorstationError, StoreError
from doorstation.hashes import sha256
from doorstation.ids import Ids
from doorstation.net import dhcp, dns_sd, https, ua_profile
from doorstation.net.offers import AskDhcp, ask_everywhere
from doorstation.printable import printable
from doorstation.provision.discovery import (
    Ask,
    Discovery,
    Line,
    Over,
    Placeholders,
    Source,
    Try,
    described,
)
from doorstation.provision.fetch import Failed, Fetched, Poll, Unchanged, beside
from doorstation.provision.files import FIRST_USE, MAX_FILE, Trust, assembled, read_signed
from doorstation.provision.jws import PublicKey
from doorstation.store.card import SIGNED, Card, read_card, read_file

log = logging.getLogger(__name__)

PART: Final = "files"
"""Under which the configurator keeps what is known of files and their owners."""
BY_FILE: Final = "file "
"""How a change came that nobody ordered; its serial follows."""
QUIET: Final = 1.0
"""Seconds between two looks at whether a call is still up."""
REGISTERED_WITHIN: Final = 10.0
"""Seconds in which a registrar that is there has registered the door."""
APART: Final = 2.0
"""Seconds between two rounds, however often somebody who may says that there is something new: the
server that has the files shall not hear of each time."""
CLAIM_SHOWN: Final = 1800.0
"""Seconds for which a door shows that it was claimed by first use."""
MAX_NAMED: Final = 10
"""Unknown keys of a file that a line of the log names."""


class FirstUse(msgspec.Struct, frozen=True):
    """A key became the owner's by first use. `since`: seconds of the boot of the first start."""

    kid: str
    since: float

    @property
    def left(self) -> float:
        """Seconds for which it is still shown; 0: not any more."""
        return max(0.0, self.since + CLAIM_SHOWN - _uptime())

    def __str__(self) -> str:
        # Reckoned back from now: the clock may have been set since.
        at = datetime.datetime.fromtimestamp(time.time() - _uptime() + self.since, datetime.UTC)
        return f"claimed by first use at {at:%Y-%m-%dT%H:%M:%SZ} by key {self.kid}"


class Kept(msgspec.Struct, frozen=True):
    """What is remembered of files: none of it is secret."""

    url: str = ""
    """Of the last file that was taken."""
    etag: str = ""
    sha256: str = ""
    tried: str = ""
    """SHA-256 of a file that was tried and not kept: it is not tried again."""
    serial: int = 0
    """The highest that an owner's file had, kept or not."""
    owners: dict[str, str] = {}
    """Keys that became the owner's by a file: kid -> key."""
    rule: str = ""
    """By which they did."""
    first_use: FirstUse | None = None
    """The last claim by it; what a file of its key says since changes nothing of it."""
    boot: str = ""
    """The first start's name of its boot: the first half hour ends with it at the latest."""
    began: float = 0.0
    """Seconds of that boot at the first start."""


def remembered(configurator: Configurator) -> Kept:
    """What is known of files and owners; nothing, where it cannot be read."""
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(configurator.remembered(PART) or {}, Kept)
    return Kept()


def first_use(configurator: Configurator) -> FirstUse | None:
    """How the door was claimed by first use, while that is shown: a restart of the machine ends it,
    as it ends the half hour in which it can be."""
    kept = remembered(configurator)
    found = kept.first_use
    return found if found is not None and found.left and kept.boot == _boot() else None


class File(msgspec.Struct, frozen=True):
    """A signed file that counts, with all that it names. `kept`: what is known once it is used."""

    raw: Mapping[str, Any]
    signer: str
    claims: bool
    """Whether its key becomes the owner's by it."""
    kept: Kept
    judged_by: Kept
    """What was known when it was found to count."""


class Provisioner:
    """Rounds of discovery, each at the door's own minute or when it is asked for."""

    def __init__(
        self,
        configurator: Configurator,
        ids: Ids,
        *,
        tell: Callable[[str], None] = log.info,
        apply: bool = True,
        ask_dhcp: AskDhcp = ask_everywhere,
    ) -> None:
        """`apply`: whether a good file is used; otherwise it is only judged."""
        self._configurator = configurator
        self._ids = ids
        # Much of it is a stranger's words.
        self._tell: Callable[[str], None] = lambda text: tell(printable(text))
        self._apply = apply
        self._dhcp = ask_dhcp
        self._kept = Kept()
        self._look = asyncio.Event()
        self._domains: list[str] = []
        self._card: Card | None = None
        """Of this round; only a door without an owner looks for one."""
        self._asked: list[str] = []
        """Places of this round."""
        self._not_before: dict[str, float] = {}
        """Until when some of them asked to be left alone, loop seconds."""
        self._asked_by_multicast = False
        self._certificate_told = ""
        configurator.followers.append(self._heard)

    # -- life

    def check(self) -> None:
        """Somebody allowed says that there is something new (check-sync)."""
        self._look.set()

    def network_changed(self) -> None:
        """Another network may say where the configuration lies, while nobody has said so."""
        if not self._kept.url:
            self._look.set()

    async def run(self) -> None:
        """Rounds for ever; none while nothing can be kept."""
        if self._configurator.closed:
            log.info("configuration from the network: passed over: %s", self._configurator.closed)
            return
        poll = Poll(self._configurator.identify(self._ids), self._ids)
        self.load()
        while True:
            await self._quiet()
            if self._look.is_set():
                self._look.clear()
                self._not_before.clear()
            if not self._kept.boot:
                await self._keep(boot=_boot(), began=_uptime())
            found = await self.round()
            # A first start makes it: tenths of a second, which the registration shall not wait for.
            await self._configurator.identity_file()
            self._tell_of_certificate()
            wait = (
                poll.after_success(_seconds_of_day())
                if found or not self._asked
                else poll.after_failure(min(map(self._wait_for, self._asked)))
            )
            await asyncio.sleep(APART)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait - APART):
                    await self._look.wait()

    async def _quiet(self) -> None:
        """Not in a call, and at a start not before the door is registered: only then can it be told
        whether a file leaves it so. A registrar that is down holds a file up for a moment only."""
        configurator, loop = self._configurator, asyncio.get_running_loop()
        until = loop.time() + REGISTERED_WITHIN
        while configurator.busy or (  # noqa: ASYNC110 - a file can wait
            not configurator.registered and loop.time() < until
        ):
            await asyncio.sleep(QUIET)

    def load(self) -> None:
        """Take in what is kept."""
        self._kept = remembered(self._configurator)

    # -- one round

    async def round(self) -> bool:
        """Look once; whether there was a file that counts."""
        settings = self._configurator.settings.provisioning
        door = self._door()
        self._asked, self._domains = [], []
        self._card = None
        claimed = self.claimed
        if not claimed:
            self._card = await asyncio.to_thread(self._find_card, settings.cards)
        discovery = Discovery(
            confirmed=self._kept.url,
            typed=settings.url,
            card=[Location(url, "card") for url in self._card.places] if self._card else [],
            claimed=claimed,
            mode=settings.discovery,
            placeholders=door,
        )
        outputs = discovery.start()
        while True:
            for output in outputs:
                match output:
                    case Line(text):
                        self._tell(text)
                    case Over(place):
                        kept = self._not_before.keys() & self._asked
                        self._not_before = {url: self._not_before[url] for url in kept}
                        return place is not None
                    case Ask(source):
                        places, said = await self._ask(source, door)
                        outputs = discovery.answered(source, places, said)
                    case Try(place):
                        self._asked.append(place.url)
                        outputs = discovery.tried(place, await self._tried(place))

    def _find_card(self, folders: Iterable[str]) -> Card | None:
        for folder in folders:
            try:
                if (card := read_card(Path(folder))) is not None:
                    return card
            except StoreError as fault:
                self._tell(f"passed over: {fault}")
        return None

    async def _ask(self, source: Source, door: Placeholders) -> tuple[list[Location], str]:
        """What the network says, and that in a few words."""
        match source:
            case "dhcp":
                return await self._ask_dhcp()
            case "multicast":
                return await self._ask_by_multicast(door)
            case "dns-sd":
                domains = self._domains[:2]
                asked = await asyncio.gather(*map(dns_sd.ask, domains), dns_sd.ask_link(self._ids))
                places = [place for each in asked for place in each]
                return places, f"{', '.join((*domains, '.local'))}: {_said(places)}"

    async def _ask_dhcp(self) -> tuple[list[Location], str]:
        heard: list[Offered] = []
        silences = await self._dhcp(self._ids, heard.append)
        for offered in heard:
            self._domains.extend(offered.domains)
        places = [place for offered in heard for place in offered.locations]
        return places, "; ".join([*map(described, heard), *silences])

    async def _ask_by_multicast(self, door: Placeholders) -> tuple[list[Location], str]:
        if self._asked_by_multicast:
            return [], "asked once since the start already"
        self._asked_by_multicast = True
        addresses = [each.address for each in dhcp.interfaces() if each.address]
        asked = await asyncio.gather(
            *(ua_profile.ask(self._ids, address, door) for address in addresses),
            return_exceptions=True,
        )
        places = [place for each in asked if isinstance(each, list) for place in each]
        return places, _said(places)

    def _wait_for(self, url: str) -> float:
        """Seconds until a place may be asked again."""
        return max(0.0, self._not_before.get(url, 0.0) - asyncio.get_running_loop().time())

    async def _tried(self, place: Location) -> str | None:
        """Fetch, judge, apply; "", why not, or None if it is what the door has."""
        if wait := self._wait_for(place.url):
            return f"asked to be left alone for another {wait:.0f} s"
        on_card = self._card is not None and place == Location(self._card.signed_url, "card")
        etag = self._kept.etag if place.url == self._kept.url else ""
        answer = await (self._read(SIGNED) if on_card else self._fetch(place.url, etag))
        match answer.result:
            case Unchanged():
                return None
            case Failed(why, after):
                self._not_before[place.url] = asyncio.get_running_loop().time() + (after or 0.0)
                return why
            case fetched:
                pass
        if _sha256(fetched) == self._kept.sha256:
            return None
        if _sha256(fetched) == self._kept.tried:
            return "this file was tried already, and taken back"
        try:
            # A card is taken out again: it is not where the door looks from now on.
            file = (
                await self._judged(fetched, "", self._read, private=False)
                if on_card
                else await self._judged(fetched, place.url, private=answer.private)
            )
            if self._apply:
                await self._take(file)
        except DoorstationError as fault:
            return str(fault)
        return ""

    async def _fetch(self, url: str, etag: str = "") -> https.Answer:
        return await https.fetch(url, etag, await self._credentials())

    async def _read(self, name: str) -> https.Answer:
        """A file of the card."""
        assert self._card is not None, "it names the place"
        try:
            body = await asyncio.to_thread(read_file, self._card.folder, name, MAX_FILE)
        except (OSError, ValueError) as fault:
            return https.Answer(Failed(str(fault)), private=False)
        return https.Answer(Fetched("", body, ""), private=False)

    async def _judged(
        self,
        fetched: Fetched,
        url: str,
        read: Callable[[str], Awaitable[https.Answer]] | None = None,
        *,
        private: bool,
    ) -> File:
        """A file, with its parts: read by name, else fetched from beside it.

        Raises DoorstationError: it does not count.
        """
        before = self._kept
        accepted = read_signed(
            fetched.body, self._names(), self._trust(private=private), _wall(), BUILT
        )
        contents = {}
        for named in accepted.manifest.files:
            name = named.name
            part = await (read(name) if read else self._fetch(beside(fetched.url, name)))
            try:
                contents[name] = _fetched(part).body
            except DoorstationError as fault:
                raise DoorstationError(f"{named.name}: {fault}") from None
        raw, unknown = assembled(accepted, contents)
        if unknown:
            rest = f" and {len(unknown) - MAX_NAMED} more" if len(unknown) > MAX_NAMED else ""
            keys = ", ".join(key[:80] for key in unknown[:MAX_NAMED])
            self._tell(f"passed over: unknown to this version: {keys}{rest}")
        owners, rule, claim = before.owners, before.rule, before.first_use
        if (owner := accepted.new_owner) is not None:
            owners, rule = {owner.kid: owner.text}, accepted.rule
            claim = FirstUse(owner.kid, _uptime()) if rule == FIRST_USE else claim
        elif accepted.kid not in owners:
            # By a key that the settings name: they alone say from now on who is an owner.
            owners = {}
            self._check_owned(raw)
        kept = msgspec.structs.replace(
            before,
            url=url, etag=fetched.etag, sha256=_sha256(fetched), tried="",
            serial=accepted.manifest.serial, owners=owners, rule=rule, first_use=claim,
        )  # fmt: skip
        return File(raw, accepted.kid, owner is not None, kept, before)

    def _check_owned(self, raw: Mapping[str, Any]) -> None:
        """Raises DoorstationError for a file after which nobody would be the door's owner."""
        settings = self._configurator.tree.with_layer("provisioned", raw).settings()
        if not any(key.role == "owner" for key in settings.keys.values()):
            raise DoorstationError("it names no owner's key, and the door would have none")

    async def _take(self, file: File) -> None:
        """Let the door run with a file. Raises SettingsError, Refused, StoreError.

        Its place and its owner count once the door is well with it; until then it is known as
        tried, and no older file of the same owner counts any more. The serial of one who is no
        owner yet is not kept: it would shut out the real owner's files.
        """
        serial = self._kept.serial if file.claims else file.kept.serial
        tried = msgspec.structs.replace(self._kept, tried=file.kept.sha256, serial=serial)
        await self._try(
            file, by=file.signer, how=f"{BY_FILE}{file.kept.serial}", needs_word=False,
            confirm_within=None, kept={PART: msgspec.to_builtins(tried)},
        )  # fmt: skip

    async def _try(
        self,
        file: File,
        *,
        by: str,
        how: str,
        needs_word: bool,
        confirm_within: float | None,
        kept: Mapping[str, Any],
    ) -> int:
        if self._kept != file.judged_by:
            # Its parts took their time: its serial or its owner may count no more.
            raise DoorstationError("another file came meanwhile")
        then = {PART: msgspec.to_builtins(file.kept)}
        return await self._configurator.replace(
            file.raw, by=by, how=how, needs_word=needs_word, origin="provisioned",
            confirm_within=confirm_within, kept=kept, then=then,
        )  # fmt: skip

    async def ordered(self, url: str, sha256: str) -> File:
        """The file that an order names. Raises DoorstationError: why it does not count."""
        answer = await self._fetch(url)
        fetched = _fetched(answer)
        if _sha256(fetched) != sha256.lower():
            raise DoorstationError("not the file that was ordered: its SHA-256 is another")
        return await self._judged(fetched, url, private=answer.private)

    async def try_ordered(
        self,
        file: File,
        *,
        by: str,
        how: str,
        confirm_within: float | None,
        kept: Mapping[str, Any],
    ) -> int:
        """Try it as a change that needs a word, as `Configurator.replace`; the change's number.

        Its place and serial are remembered when the change is confirmed: what nobody confirms
        changes nothing, and may be ordered again.
        """
        return await self._try(
            file, by=by, how=how, needs_word=True, confirm_within=confirm_within, kept=kept
        )

    def _heard(self, kind: str, number: int, why: str) -> None:
        if kind == "reset":
            self._kept = Kept()
            self._configurator.identify(self._ids)
            self._asked_by_multicast = False
            self._look.set()
        if kind in ("staged", "confirmed"):
            self._remembered_again()
        if kind in ("confirmed", "rolled_back"):
            past = self._configurator.history()[-1]
            by_file = past.how.startswith(BY_FILE)
            if kind == "rolled_back" and by_file:
                self._tell(f"passed over: {past.how}: {why}")
            if kind == "confirmed" and not by_file:
                changed = (difference.key for difference in past.differences)
                if any(key.startswith(("provisioning.", "keys.")) for key in changed):
                    self._look.set()  # somebody says where a file lies, perhaps, or whose counts

    def _remembered_again(self) -> None:
        """A change may have brought what is remembered with it."""
        before = self._kept
        self.load()
        for kid in self._kept.owners.keys() - before.owners.keys():
            log.warning("key %s is this door's owner now, by %s", kid, self._kept.rule)
            fields = {"kid": kid, "rule": self._kept.rule, "url": self._kept.url}
            self._configurator.audit("owner", fields)
            self._configurator.record("owner", fields)

    def _tell_of_certificate(self) -> None:
        """Its end, once when it is near and once when it is there."""
        signed, wall = self._configurator.certificate, _wall()
        state = "valid" if signed is None or wall is None else signed.state(wall)
        told, self._certificate_told = self._certificate_told, state
        if signed is not None and state not in ("valid", told):
            log.warning("the door's certificate, %s: %s", signed, state)
            fields = {"state": state, "issuer": signed.issuer, "until": signed.until}
            self._configurator.record("certificate", fields)

    async def _keep(self, **changes: object) -> None:
        self._kept = msgspec.structs.replace(self._kept, **changes)
        with contextlib.suppress(DoorstationError):
            await self._configurator.remember(PART, msgspec.to_builtins(self._kept))

    # -- who we are, and whom we trust

    @property
    def claimed(self) -> bool:
        """Whether the door has an owner."""
        return bool(self._trust(private=False).owners)

    def _trust(self, *, private: bool) -> Trust:
        settings = self._configurator.settings
        keys = [*self._kept.owners.values()]
        keys += [key.public for key in settings.keys.values() if key.role == "owner"]
        owners = [PublicKey.parse(key) for key in keys]
        here = self._kept.boot == _boot()
        on_card = self._card.note.fingerprint if self._card is not None else ""
        return Trust(
            owners={owner.kid: owner for owner in owners},
            fingerprint=settings.provisioning.fingerprint or on_card,
            first_use=settings.provisioning.first_use,
            since_reset=_uptime() - self._kept.began if here else float("inf"),
            private_source=private,
            serial=self._kept.serial,
        )

    async def _credentials(self) -> https.Credentials:
        settings = self._configurator.settings
        certificate, key = settings.tls.certificate, settings.tls.key
        if not certificate:
            own = await self._configurator.identity_file()
            certificate, key = "" if own is None else str(own), ""
        return https.Credentials(settings.provisioning.ca_file, certificate, key)

    def _names(self) -> frozenset[str]:
        macs = {each.mac.hex() for each in dhcp.interfaces()}
        return frozenset(name for name in ("*", self._configurator.door, *macs) if name)

    def _door(self) -> Placeholders:
        first = next(iter(dhcp.interfaces()), None)
        return Placeholders(
            mac=first.mac.hex() if first is not None else "",
            serial=_of_board("serial-number"),
            model=_of_board("model").replace(" ", "-") or "generic",
            version=__version__,
        )


def _sha256(fetched: Fetched) -> str:
    return sha256(fetched.body).hexdigest()


def _fetched(answer: https.Answer) -> Fetched:
    """Raises DoorstationError: nothing came."""
    if isinstance(answer.result, Fetched):
        return answer.result
    raise DoorstationError(answer.result.why if isinstance(answer.result, Failed) else "unchanged")


def _said(places: list[Location]) -> str:
    return "; ".join(f"{place.url} ({place.option})" for place in places) or "no answer"


def _of_board(name: str) -> str:
    """What the board's device tree says of it; "" without one."""
    try:
        text = Path("/proc/device-tree", name).read_text("ascii", "replace")
    except OSError:
        return ""
    return text.rstrip("\0\n")


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _wall() -> float | None:
    """The clock, None while it is not set: a board without a battery starts in the past."""
    now = time.time()
    return now if now > BUILT else None


def _seconds_of_day() -> float:
    now = datetime.datetime.now(datetime.UTC)
    return now.hour * 3600.0 + now.minute * 60 + now.second
