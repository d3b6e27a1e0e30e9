"""Session timers (RFC 4028): a call whose far end died without a BYE does not stay up for ever."""

from doorstation.errors import ProtocolError
from doorstation.sip.grammar import is_digits
from doorstation.sip.headers import Headers
from doorstation.sip.message import Message, Request, Response

MIN_SE = 90
LONGEST = 86400
MOST_RAISES = 3
"""422 in one call: each may be another proxy on the way, more are a loop."""


def _session_expires(message: Message) -> tuple[int, str] | None:
    """Seconds and refresher ("uac", "uas" or "") of Session-Expires; unreadable counts as absent.

    A call is worth more than its timer (RFC 3261 §16.3: ignore what is not needed).
    """
    value = message.headers.get("Session-Expires") or ""
    seconds, *params = (part.strip() for part in value.split(";"))
    if not is_digits(seconds) or len(seconds) > 10:
        return None
    refresher = ""
    for param in params:
        name, _, text = param.partition("=")
        if name.strip().lower() == "refresher":
            refresher = text.strip().lower()
    return min(int(seconds), LONGEST), refresher if refresher in ("uac", "uas") else ""


def _min_se(message: Message) -> int:
    value = (message.headers.get("Min-SE") or "").split(";")[0].strip()
    return int(value) if is_digits(value) and len(value) < 10 else 0


class SessionTimer:
    """Both roles, for one call."""

    def __init__(self, wanted: int, minimum: int = MIN_SE) -> None:
        self._wanted = wanted
        self._minimum = max(minimum, MIN_SE)
        self._raises = 0
        self.interval = 0
        """Seconds agreed; 0: no timer runs."""
        self.we_refresh = False
        self._refresh_at: float | None = None
        self._expire_at: float | None = None

    @property
    def deadline(self) -> float | None:
        times = [t for t in (self._refresh_at, self._expire_at) if t is not None]
        return min(times, default=None)

    def add_to_request(self, headers: Headers) -> None:
        """Ask for a timer in an INVITE or UPDATE of ours (RFC 4028 §7.1, §7.4)."""
        interval = self.interval or self._wanted
        if not interval:
            return
        refresher = ""
        if self.interval:
            # The agreed refresher is kept: peers get confused when it changes sides.
            refresher = ";refresher=" + ("uac" if self.we_refresh else "uas")
        headers.add("Session-Expires", f"{interval}{refresher}")
        headers.add("Min-SE", str(self._minimum))

    def interval_too_small(self, response: Response) -> bool:
        """422: take the peer's Min-SE; False when that leads nowhere (RFC 4028 §7.3)."""
        wanted = _min_se(response)
        self._raises += 1
        asked = self.interval or self._wanted
        if not asked < wanted <= LONGEST or self._raises > MOST_RAISES:
            return False
        self._wanted = self._minimum = wanted
        self.interval = 0
        return True

    def answer_received(self, response: Response, now: float) -> None:
        """A 2xx to our request settles interval and refresher (RFC 4028 §7.2)."""
        agreed = _session_expires(response)
        if agreed is None:
            self._stop()
            return
        interval, refresher = agreed
        self._start(max(interval, MIN_SE), refresher != "uas", now)

    def check_request(self, request: Request) -> None:
        """Raise ProtocolError(422) for too short an interval from a peer that can raise it."""
        asked = _session_expires(request)
        peer_can = "timer" in request.supported or "timer" in request.require
        if asked is not None and asked[0] < self._minimum and peer_can:
            raise ProtocolError("Session Interval Too Small", status=422)

    def answer_request(self, request: Request, response: Response, now: float) -> None:
        """Settle the timer in our 2xx to the peer's INVITE or UPDATE (RFC 4028 §9)."""
        asked = _session_expires(request)
        peer_can = "timer" in request.supported or "timer" in request.require
        if asked is None and not (peer_can and self._wanted):
            self._stop()
            return
        interval, refresher = asked if asked is not None else (self._wanted, "uas")
        interval = max(interval, self._minimum, _min_se(request))
        if not refresher:
            refresher = "uac" if peer_can else "uas"
        response.headers.set("Session-Expires", f"{interval};refresher={refresher}")
        if refresher == "uac":
            response.headers.set("Require", "timer")
        self._start(interval, refresher == "uas", now)

    def refresh_due(self, now: float) -> bool:
        if self._refresh_at is None or now < self._refresh_at:
            return False
        self._refresh_at = None
        return True

    def expired(self, now: float) -> bool:
        return self._expire_at is not None and now >= self._expire_at

    def retry_refresh(self, now: float) -> None:
        """The refresh was refused or met a 491 or a 408: once more before the session expires."""
        if self._expire_at is not None and self.we_refresh:
            self._refresh_at = now + max(1.0, (self._expire_at - now) / 4)

    def _start(self, interval: int, we_refresh: bool, now: float) -> None:
        self.interval = interval
        self.we_refresh = we_refresh
        self._refresh_at = now + interval / 2 if we_refresh else None
        # RFC 4028 §10: the side that hears nothing ends the call a little before the end.
        self._expire_at = now + interval - min(32.0, interval / 3)

    def _stop(self) -> None:
        self.interval = 0
        self._refresh_at = self._expire_at = None
