"""Encryption by policy in whole calls: to whom it is offered, what is refused or tried again."""

import pytest
from doorstation.ids import SeededIds
from doorstation.media.srtp import Keys
from doorstation.sdp.crypto import read_cryptos
from doorstation.sdp.description import Media, parse_sdp
from doorstation.sdp.negotiation import Encryption, LocalAudio, OfferAnswer
from doorstation.settings.reader import parse
from doorstation.sip.message import Request
from doorstation.sip.transport import AddressRecord, DnsAnswer, Flow, Transport
from doorstation.sip.uri import SipUri
from doorstation.ua.config import Account, AgentConfig, Peer, SrtpPolicy, config_from
from doorstation.ua.events import (
    CallArrived,
    CallEnded,
    GroupAnswered,
    GroupFailed,
    MediaChanged,
    OutcomeKind,
    Refused,
)

from tests.support.wire import LOCAL, REMOTE, SDP, Wire, request

OPTIONAL, REQUIRED = SrtpPolicy("optional"), SrtpPolicy("required")
PHONE = f"sip:indoor@{REMOTE}"
KEY = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
OTHER_KEY = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
CRYPTO = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\n".encode()
ENCRYPTED = SDP.replace(b"RTP/AVP", b"RTP/SAVP") + CRYPTO
BY_TLS = Flow(7, Transport.TLS, (LOCAL, 5061), (REMOTE, 34567))


def wire(srtp: SrtpPolicy, **more: object) -> Wire:
    indoor = Peer("indoor", SipUri(user="indoor", host=REMOTE), srtp=srtp)
    return Wire(AgentConfig(peers=(indoor,), **more))  # type: ignore[arg-type]


def calling(w: Wire, *targets: str) -> list[Request]:
    w.do(w.agent.place("step1", targets or (PHONE,), 16384, w.now))
    return invites(w)


def invites(w: Wire) -> list[Request]:
    return [m for m in w.sent() if isinstance(m, Request) and m.method == "INVITE"]


def line(message: Request) -> Media:
    return parse_sdp(message.body).media[0]


def agreed(w: Wire) -> Keys | None:
    session = w.told(MediaChanged)[-1].session
    found = session.protection
    assert found is None or isinstance(found, Keys)
    return found


# --- calls out ----------------------------------------------------------------------------------


def test_the_peers_own_policy_counts_then_the_accounts_then_the_doors() -> None:
    account = Account("door", "pbx.test", SipUri(host="192.0.2.7"), srtp=OPTIONAL)
    indoor = Peer("indoor", SipUri(user="indoor", host=REMOTE), srtp=REQUIRED)
    config = AgentConfig(account=account, peers=(indoor,), srtp=SrtpPolicy("off"))
    for target, proto, offered in (
        (PHONE, "RTP/SAVP", True),
        ("**9", "RTP/AVP", True),
        (f"sip:attic@{REMOTE}", "RTP/AVP", False),
    ):
        [invite] = calling(Wire(config), target)
        assert line(invite).proto == proto, target
        assert line(invite).has("crypto") == offered, target


def test_without_a_setting_keys_are_offered_over_tls_only() -> None:
    w = wire(SrtpPolicy())
    assert not line(calling(w)[0]).has("crypto")
    w = Wire(AgentConfig(), zone={("A", "pbx.test"): DnsAnswer((AddressRecord(REMOTE),), 60.0)})
    [invite] = calling(w, "sip:indoor@pbx.test;transport=tls")
    assert line(invite).has("crypto")


def test_an_answer_without_keys_ends_a_call_that_requires_them() -> None:
    w = wire(REQUIRED)
    [invite] = calling(w)
    w.answer(invite, 200, body=SDP)
    assert [m.method for m in w.sent() if isinstance(m, Request)] == ["ACK", "BYE"]
    [failed] = w.told(GroupFailed)
    assert failed.outcomes[0].kind is OutcomeKind.FAILED
    assert failed.outcomes[0].status == 488
    assert "not encrypted" in failed.outcomes[0].why
    assert all(event.session is None for event in w.told(MediaChanged))


def test_early_media_without_keys_is_not_heard_where_they_are_required() -> None:
    w = wire(REQUIRED)
    [invite] = calling(w)
    w.answer(invite, 183, body=SDP)
    assert w.told(MediaChanged) == []
    w.answer(invite, 200, body=ENCRYPTED)
    assert agreed(w) is not None


def test_a_refusal_of_keys_in_the_plain_protocol_is_asked_again_in_the_encrypted_one() -> None:
    """FreeSWITCH answers 488 (signalwire/freeswitch#1254), and takes RTP/SAVP."""
    w = wire(OPTIONAL)
    [first] = calling(w)
    assert (line(first).proto, line(first).has("crypto")) == ("RTP/AVP", True)
    w.answer(first, 488)
    [second] = invites(w)
    assert (line(second).proto, line(second).has("crypto")) == ("RTP/SAVP", True)
    assert second.cseq.number > first.cseq.number
    w.answer(second, 200, body=ENCRYPTED)
    assert w.told(GroupAnswered)
    assert agreed(w) is not None


def test_who_has_no_encryption_at_all_is_asked_a_third_time_without() -> None:
    w = wire(OPTIONAL)
    w.answer(calling(w)[0], 488)
    w.answer(invites(w)[0], 488)
    [third] = invites(w)
    assert (line(third).proto, line(third).has("crypto")) == ("RTP/AVP", False)
    w.answer(third, 200, body=SDP)
    assert w.told(GroupAnswered)
    assert agreed(w) is None


def test_it_is_not_asked_for_ever_and_never_otherwise_where_encryption_is_required() -> None:
    w = wire(OPTIONAL)
    w.answer(calling(w)[0], 488)
    w.answer(invites(w)[0], 488)
    w.answer(invites(w)[0], 488)
    assert invites(w) == []
    assert w.told(GroupFailed)[0].outcomes[0].status == 488
    for srtp in (REQUIRED, SrtpPolicy("off"), SrtpPolicy()):
        w = wire(srtp)
        w.answer(calling(w)[0], 488)
        assert invites(w) == []
        assert w.told(GroupFailed)[0].outcomes[0].status == 488


def test_phones_called_at_once_get_a_key_each() -> None:
    w = Wire(AgentConfig(srtp=REQUIRED))
    invites = calling(w, "sip:a@192.0.2.5", "sip:b@192.0.2.6", "sip:c@192.0.2.7")
    keys = [each.key for invite in invites for each in read_cryptos(line(invite))]
    assert len(keys) == len(set(keys)) == 9


def test_a_redirected_call_stays_as_encrypted_as_it_was_meant() -> None:
    w = wire(REQUIRED)
    [invite] = calling(w)
    w.answer(invite, 302, ("Contact", "<sip:mobile@198.51.100.4>"))
    [second] = invites(w)
    assert line(second).proto == "RTP/SAVP"


# --- calls in -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("srtp", "body", "rule"),
    [
        (REQUIRED, SDP, "not encrypted"),
        (REQUIRED, ENCRYPTED.replace(CRYPTO, b""), "no common keys"),
        (SrtpPolicy("off"), ENCRYPTED, "switched off"),
    ],
)
def test_a_call_that_does_not_fit_the_policy_is_refused_at_once(
    srtp: SrtpPolicy, body: bytes, rule: str
) -> None:
    w = wire(srtp)
    w.receive(request("INVITE", body=body))
    assert w.response().status == 488
    [refused] = w.told(Refused)
    assert rule in refused.rule
    assert w.told(CallArrived) == []


@pytest.mark.parametrize("srtp", [SrtpPolicy(), OPTIONAL, REQUIRED])
def test_an_encrypted_call_is_taken_whatever_carries_it(srtp: SrtpPolicy) -> None:
    for flow in (None, BY_TLS):
        w = wire(srtp)
        w.receive(request("INVITE", body=ENCRYPTED), flow)
        [arrived] = w.told(CallArrived)
        w.do(w.agent.answer(arrived.call, 16384, w.now))
        tag = w.agent.calls[arrived.call].dialog.local_tag  # type: ignore[union-attr]
        w.receive(request("ACK", to_tag=tag), flow)
        changed = w.told(MediaChanged)[-1].session
        assert isinstance(changed.protection, Keys)
        assert changed.signalled_over == ("TLS" if flow else "UDP")


def test_an_offer_that_is_asked_for_late_carries_keys_and_the_ack_answers_them() -> None:
    w = wire(REQUIRED)
    w.receive(request("INVITE"))
    [arrived] = w.told(CallArrived)
    w.do(w.agent.answer(arrived.call, 16384, w.now))
    ok = w.sent()[-1]
    assert line(ok).proto == "RTP/SAVP"
    far = OfferAnswer(SeededIds(5), LocalAudio(REMOTE, 4000, encryption=Encryption(accepted=True)))
    tag = w.agent.calls[arrived.call].dialog.local_tag  # type: ignore[union-attr]
    w.receive(request("ACK", to_tag=tag, body=far.answer(ok.body)))
    ours, theirs = agreed(w), far.session.protection  # type: ignore[union-attr]
    assert isinstance(ours, Keys)
    assert isinstance(theirs, Keys)
    assert (ours.send, ours.receive) == (theirs.receive, theirs.send)


def test_a_late_offer_that_is_answered_plain_ends_the_call() -> None:
    w = wire(REQUIRED)
    w.receive(request("INVITE"))
    [arrived] = w.told(CallArrived)
    w.do(w.agent.answer(arrived.call, 16384, w.now))
    w.sent()
    tag = w.agent.calls[arrived.call].dialog.local_tag  # type: ignore[union-attr]
    w.receive(request("ACK", to_tag=tag, body=SDP))
    assert w.request("BYE")
    assert "not encrypted" in w.told(CallEnded)[0].why


def talking(srtp: SrtpPolicy) -> tuple[Wire, str, Keys]:
    w = wire(srtp)
    w.receive(request("INVITE", body=ENCRYPTED))
    [arrived] = w.told(CallArrived)
    w.do(w.agent.answer(arrived.call, 16384, w.now))
    tag = w.agent.calls[arrived.call].dialog.local_tag  # type: ignore[union-attr]
    w.receive(request("ACK", to_tag=tag))
    w.sent()
    keys = agreed(w)
    assert keys is not None
    return w, tag, keys


def test_a_re_invite_may_bring_a_new_key_and_hold_keeps_it() -> None:
    w, tag, before = talking(REQUIRED)
    body = ENCRYPTED.replace(KEY.encode(), OTHER_KEY.encode())
    w.receive(request("INVITE", to_tag=tag, cseq=2, body=body))
    w.receive(request("ACK", to_tag=tag, cseq=2))
    after = agreed(w)
    assert after is not None
    assert after.receive != before.receive
    assert after.send != before.send
    held = body.replace(b"a=sendrecv", b"a=sendonly")
    w.receive(request("INVITE", to_tag=tag, cseq=3, body=held))
    w.receive(request("ACK", to_tag=tag, cseq=3))
    assert agreed(w) == after


def test_a_re_invite_that_would_end_encryption_is_refused_and_the_call_goes_on() -> None:
    w, tag, _ = talking(REQUIRED)
    w.receive(request("INVITE", to_tag=tag, cseq=2, body=SDP))
    assert w.response().status == 488
    assert w.told(MediaChanged) == []
    assert w.told(CallEnded) == []


def test_what_is_set_for_a_peer_or_the_account_wins_over_the_general_setting() -> None:
    config = config_from(
        parse(
            """
            [audio]
            srtp = "optional"
            srtp_keys = ["dtls", "sdes"]
            [account]
            user = "door"
            domain = "pbx.test"
            srtp = "required"
            [peers.kitchen]
            uri = "sip:192.0.2.5"
            srtp = "off"
            [peers.office]
            uri = "sip:192.0.2.6"
            srtp_keys = ["sdes"]
            """
        )
    )
    assert config.srtp == SrtpPolicy("optional", ("dtls", "sdes"))
    assert config.account is not None
    assert config.account.srtp == SrtpPolicy("required", ("dtls", "sdes"))
    kitchen, office = config.peers
    assert kitchen.srtp.mode == "off"
    assert office.srtp == SrtpPolicy("optional", ("sdes",))
    assert config.by_dtls
    assert not AgentConfig().by_dtls


def test_without_settings_encryption_is_taken_everywhere_and_offered_over_tls() -> None:
    policy = config_from(parse('peers.kitchen.uri = "sip:192.0.2.5"')).srtp
    for transport in Transport:
        wish = policy.over(transport)
        assert (wish.accepted, wish.required) == (True, False)
        assert wish.offered == ("beside" if transport is Transport.TLS else "")
        assert SrtpPolicy("", ("dtls",)).over(transport).offered == "beside", "none can be read"
