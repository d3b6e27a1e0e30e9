"""What a user agent checks of every request before it acts on it (RFC 3261 §8.2)."""

import re
from collections.abc import Collection
from typing import Final

from doorstation.sip.message import Request, Response, make_response
from doorstation.sip.uri import SipUri

ORDERS = "application/vnd.doorstation.config+jose"
"""A signed order to a door, in a MESSAGE."""
RESULTS = "application/vnd.doorstation.result+jose"
"""What became of it."""
DOOR_REALM: Final = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.config")
"""Where orders are proved: a door's UUID is in it. No account's password is anybody's there."""

METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "PRACK", "UPDATE", "INFO", "MESSAGE")
"""What really works here, and nothing more: a listed method that fails is worse than none."""

KNOWN_ELSEWHERE = frozenset({"REGISTER", "SUBSCRIBE", "NOTIFY", "REFER", "PUBLISH"})
SUPPORTED = ("100rel", "timer")
DTMF_BODIES = ("application/dtmf-relay", "application/dtmf")
ACCEPTS: dict[str, tuple[str, ...]] = {
    "INVITE": ("application/sdp",),
    "ACK": ("application/sdp",),
    "PRACK": ("application/sdp",),
    "UPDATE": ("application/sdp",),
    "INFO": (*DTMF_BODIES, "text/plain"),
    "MESSAGE": ("text/plain",),
}


def add_capabilities(response: Response) -> Response:
    """Say what we can do: Allow, Accept, Supported (RFC 3261 §11.2)."""
    response.headers.set("Allow", ", ".join(METHODS))
    response.headers.set("Accept", ", ".join(("application/sdp", *DTMF_BODIES, "text/plain")))
    response.headers.set("Accept-Encoding", "identity")
    response.headers.set("Accept-Language", "en")
    response.headers.set("Supported", ", ".join(SUPPORTED))
    return response


def _accepts_sdp(request: Request) -> bool:
    if "Accept" not in request.headers:
        return True
    for value in request.headers.values("Accept"):
        kind, *params = value.lower().replace(" ", "").split(";")
        if kind in ("application/sdp", "application/*", "*/*") and "q=0" not in params:
            return True
    return False


def inspect(request: Request, contents: Collection[str] = ()) -> Response | None:
    """The refusal that RFC 3261 §8.2.1 to §8.2.3 asks for, or None when all is well.

    `contents`: what a MESSAGE may bring beside text.
    """
    method = request.method
    if method not in METHODS:
        if method in KNOWN_ELSEWHERE:
            refusal = make_response(request, 405, "Method Not Allowed")
        else:
            refusal = make_response(request, 501, f"Method {method[:32]} Not Implemented")
        refusal.headers.set("Allow", ", ".join(METHODS))
        return refusal
    if not isinstance(request.uri, SipUri):
        return make_response(request, 416, f"Unsupported URI Scheme {request.uri.scheme[:16]}")
    if method in ("ACK", "CANCEL"):
        # Neither can be refused for an extension (RFC 3261 §8.2.2.3).
        return None
    unknown = [option for option in request.require if option not in SUPPORTED]
    if unknown:
        refusal = make_response(request, 420, "Bad Extension")
        refusal.headers.set("Unsupported", ", ".join(unknown))
        return refusal
    return _inspect_content(request, contents) or _inspect_accept(request)


def _inspect_content(request: Request, contents: Collection[str]) -> Response | None:
    if not request.body:
        return None
    disposition = (request.headers.get("Content-Disposition") or "").lower().replace(" ", "")
    if "handling=optional" in disposition:
        return None
    encoding = (request.headers.get("Content-Encoding") or "identity").strip().lower()
    accepted = ACCEPTS.get(request.method)
    if request.method == "MESSAGE" and accepted is not None:
        accepted = (*accepted, *contents)
    if encoding == "identity" and (accepted is None or request.content_type in accepted):
        return None
    refusal = make_response(request, 415, "Unsupported Media Type")
    refusal.headers.set("Accept", ", ".join(accepted or ("application/sdp",)))
    if encoding != "identity":
        refusal.headers.set("Accept-Encoding", "identity")
    return refusal


def _inspect_accept(request: Request) -> Response | None:
    if request.method == "INVITE" and not _accepts_sdp(request):
        refusal = make_response(request, 406, "Not Acceptable")
        refusal.headers.set("Accept", "application/sdp")
        return refusal
    return None
