"""NOTIFY check-sync: from whom it counts, and what it starts."""

import pytest
from doorstation.sip.uri import SipUri
from doorstation.ua.config import AgentConfig, Peer
from doorstation.ua.events import Refused, SyncAsked

from tests.support.wire import REMOTE, Wire, request, udp


def wire() -> Wire:
    return Wire(AgentConfig(peers=(Peer("indoor", SipUri(host=REMOTE)),)))


@pytest.mark.parametrize(
    "event", ["check-sync", "check-sync;reboot=true", "Check-Sync ;reboot=false"]
)
def test_check_sync_of_a_peer_asks_for_a_look_with_and_without_reboot(event: str) -> None:
    w = wire()
    w.receive(request("NOTIFY", ("Event", event)))
    assert w.response().status == 200
    assert w.told(SyncAsked) == [SyncAsked(REMOTE, "peer-address")]


def test_check_sync_of_a_stranger_starts_nothing() -> None:
    w = wire()
    w.receive(request("NOTIFY", ("Event", "check-sync")), flow=udp("203.0.113.5"))
    assert w.response().status == 403
    assert w.told(SyncAsked) == []
    assert w.told(Refused)


def test_other_notify_is_refused_as_before() -> None:
    w = wire()
    w.receive(request("NOTIFY", ("Event", "message-summary")))
    assert w.response().status == 405
