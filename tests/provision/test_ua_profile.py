"""`ua-profile`, asked by multicast, byte for byte (RFC 6080)."""

from doorstation.ids import SeededIds
from doorstation.provision.discovery import Placeholders
from doorstation.provision.ua_profile import ProfileQuestion
from doorstation.sip.message import Request, parse_message

DOOR = Placeholders("b827eb010203", "s1", "pi-4", "0.1")


def question() -> ProfileQuestion:
    return ProfileQuestion(SeededIds(), "192.0.2.9", 5099, DOOR)


def notify(asked: ProfileQuestion, body: str, **changed: str) -> bytes:
    request = parse_message(asked.data)
    headers = {
        "Via": "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1",
        "From": "<sip:a@192.0.2.1>;tag=1",
        "To": "<sip:b@192.0.2.9>;tag=2",
        "Call-ID": request.call_id,
        "CSeq": "1 NOTIFY",
        "Event": "ua-profile",
        "Content-Type": "application/url",
        "Content-Length": str(len(body)),
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(["NOTIFY sip:b@192.0.2.9 SIP/2.0", *lines, "", body]).encode()


def test_question_names_the_door() -> None:
    request = parse_message(question().data)
    assert isinstance(request, Request)
    assert request.method == "SUBSCRIBE"
    assert str(request.uri) == "sip:MAC%3ab827eb010203@224.0.1.75"
    assert 'model="pi-4"' in (request.headers.get("Event") or "")


def test_notify_to_it_names_a_place_and_is_answered() -> None:
    asked = question()
    named = asked.received(notify(asked, "https://a.test/door\r\n"))
    assert named is not None
    assert named.url == "https://a.test/door"
    assert named.answer.startswith(b"SIP/2.0 200 ")


def test_what_answers_nothing_that_was_asked_is_ignored() -> None:
    asked = question()
    assert asked.received(notify(asked, "https://a.test/door", Call_ID="other")) is None
    assert asked.received(notify(asked, "")) is None
    assert asked.received(notify(asked, "https://a.test/" + "x" * 9000)) is None
    for data in (b"", b"NOTIFY", b"\xff" * 100, b"x" * 9000, asked.data):
        assert asked.received(data) is None
