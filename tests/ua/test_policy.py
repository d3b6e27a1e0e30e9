"""Who may reach us, and as whom."""

import pytest
from doorstation.sip.uri import SipUri
from doorstation.ua.config import Peer
from doorstation.ua.policy import Decision, Verdict, may_call_in

PBX, OPEN, GATE, BARRED, STRANGER = (f"192.0.2.{n}" for n in range(1, 6))
PEERS = (
    Peer("gate", SipUri(host=GATE), password="of the gate"),
    Peer("porter", SipUri(user="desk", host="porter.test"), password="of the porter"),
    Peer("mute", SipUri(host="mute.test"), password="of the mute", may_call=False),
    Peer("open", SipUri(host=OPEN)),
    Peer("barred", SipUri(host=BARRED), may_call=False),
)


def decide(source: str, user: str = "", proved: str = "", **more: bool) -> Decision:
    usual = {"on_registered_flow": False, "registrar_may_call": True}
    return may_call_in(
        source, registrar_addresses=[PBX], peers=PEERS, user=user, proved=proved, **(usual | more)
    )


@pytest.mark.parametrize(
    ("source", "user", "proved", "verdict", "rule", "peer"),
    [
        (OPEN, "anything", "", "allow", "peer-address", "open"),
        (f"::ffff:{OPEN}", "", "", "allow", "peer-address", "open"),
        (BARRED, "", "", "refuse", "peer-may-not-call", "barred"),
        (GATE, "anything", "", "challenge", "peer-password-needed", "gate"),
        (STRANGER, "gate", "", "challenge", "peer-password-needed", "gate"),
        (STRANGER, "desk", "", "challenge", "peer-password-needed", "porter"),
        (STRANGER, "gate", "gate", "allow", "peer-password", "gate"),
        # Who was proved counts, whatever From and the address say.
        (STRANGER, "gate", "porter", "allow", "peer-password", "porter"),
        (GATE, "gate", "porter", "allow", "peer-password", "porter"),
        (OPEN, "open", "porter", "allow", "peer-password", "porter"),
        (STRANGER, "gate", "mute", "refuse", "peer-may-not-call", "mute"),
        (STRANGER, "gate", "desk", "challenge", "peer-password-needed", "gate"),
        # A peer without a password is known by its address alone.
        (STRANGER, "open", "", "refuse", "stranger", ""),
        (STRANGER, "somebody", "open", "refuse", "stranger", ""),
        (STRANGER, "somebody", "", "refuse", "stranger", ""),
        ("porter.test", "somebody", "", "refuse", "stranger", ""),
        ("", "somebody", "", "refuse", "stranger", ""),
    ],
)
def test_a_peer_is_known_by_its_address_or_else_by_its_password(
    source: str, user: str, proved: str, verdict: str, rule: str, peer: str
) -> None:
    decision = decide(source, user, proved)
    name = "" if decision.peer is None else decision.peer.name
    assert (decision.verdict, decision.rule, name) == (verdict, rule, peer)


@pytest.mark.parametrize(("source", "flow"), [(PBX, False), (STRANGER, True), (OPEN, True)])
@pytest.mark.parametrize(("user", "proved"), [("", ""), ("gate", "gate"), ("gate", "")])
def test_what_comes_from_the_registrar_is_the_accounts_whoever_it_says_that_it_is(
    source: str, flow: bool, user: str, proved: str
) -> None:
    allowed = decide(source, user, proved, on_registered_flow=flow)
    assert allowed == Decision(Verdict.ALLOW, "registrar")
    refused = decide(source, user, proved, on_registered_flow=flow, registrar_may_call=False)
    assert refused == Decision(Verdict.REFUSE, "registrar-may-not-call")
