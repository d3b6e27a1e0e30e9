"""Whose tones are digits: those of the peers and the account whose settings say so."""

from doorstation.settings.reader import parse
from doorstation.ua.config import config_from

from tests.support.wire import REMOTE, SDP, Wire, request

SETTINGS = f"""
[account]
user = "door"
domain = "192.0.2.77"
password = "secret"
{{account}}
[peers.gateway]
uri = "sip:gateway@{REMOTE}"
inband_digits = true
[peers.indoor]
uri = "sip:indoor@{REMOTE}"
"""


def wanted_when_calling(target: str, account: str = "") -> bool:
    w = Wire(config_from(parse(SETTINGS.format(account=account))))
    w.do(w.agent.place("step", (target,), 16384, w.now))
    [call] = w.agent.calls.values()
    return call.inband_digits


def test_tones_are_digits_only_where_it_is_set() -> None:
    assert wanted_when_calling(f"sip:gateway@{REMOTE}")
    assert not wanted_when_calling(f"sip:indoor@{REMOTE}")
    assert not wanted_when_calling(f"sip:stranger@{REMOTE}")
    assert not wanted_when_calling("**9")
    assert wanted_when_calling("**9", "inband_digits = true")


def test_tones_of_a_peer_who_calls_are_digits_where_it_is_set() -> None:
    for setting, wanted in (("true", True), ("false", False)):
        peer = f'[peers.gateway]\nuri = "sip:gateway@{REMOTE}"\ninband_digits = {setting}'
        w = Wire(config_from(parse(peer)))
        w.receive(request("INVITE", body=SDP))
        [call] = w.agent.calls.values()
        assert call.inband_digits == wanted
