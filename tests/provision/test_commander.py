"""Orders by MESSAGE: the five checks, each alone, and the whole refusal table."""

import json
from typing import Any

import pytest
from doorstation.errors import ProtocolError
from doorstation.ids import SeededIds
from doorstation.provision.commander import (
    CONTENT,
    MAX_BY_UDP,
    MAX_PACES,
    Answer,
    Audit,
    Commander,
    Count,
    Execute,
    Key,
    Output,
    Typed,
    refusal,
)
from doorstation.provision.jws import PrivateKey
from doorstation.provision.orders import Role
from doorstation.sip.digest import Credential, DigestClient
from doorstation.sip.message import Request, make_response, parse_message

from tests.support import wire

DOOR = "8e2b1c34-0000-4000-8000-b827eb010203"
OFFICE = "192.0.2.9"
WALL = 1_800_000_000.0
KEYS = {role: PrivateKey.new() for role in ("admin", "viewer", "opener")}
SERIAL = iter(range(1, 100_000))


def commander(**more: Any) -> Commander:
    roles: tuple[Role, ...] = ("admin", "viewer", "opener")
    return Commander(
        door=DOOR,
        names=lambda: ["b827eb010203"],
        keys={KEYS[r].public.kid: Key(r, KEYS[r].public, r, opens=("door",)) for r in roles},
        users={"office": "secret", "caretaker": "word"},
        typists=frozenset({"caretaker"}),
        counters=more.pop("counters", {}),
        secret=b"seal",
        ids=SeededIds(1),
        **more,
    )


def payload(**more: Any) -> bytes:
    order = {"sub": DOOR, "ctr": 1, "iat": int(WALL), "op": "set", "set": {"audio.country": "at"}}
    return json.dumps(order | more).encode()


def signed(role: str = "admin", **more: Any) -> bytes:
    return KEYS[role].sign(payload(**more)).encode()


def message(body: bytes, kind: str = CONTENT, cseq: int = 1, call_id: str = "") -> Request:
    data = wire.request(
        "MESSAGE", body=body, content_type=kind, cseq=cseq,
        call_id=call_id or f"order-{next(SERIAL)}",
    )  # fmt: skip
    request = parse_message(data)
    assert isinstance(request, Request)
    return request


class Office:
    """A commander with its digest, at one address."""

    def __init__(
        self,
        door: Commander,
        user: str = "office",
        password: str = "secret",
        at: str = OFFICE,
        waits: float = 0.0,
    ) -> None:
        """`waits`: seconds until it answers a challenge."""
        self.door = door
        self.waits = waits
        self.now = 0.0
        self.at = at
        self.digest = DigestClient(Credential(user, password), SeededIds(7))
        self.sent: Request | None = None

    def sends(
        self, body: bytes, kind: str = CONTENT, *, reliable: bool = True, wall: float | None = WALL
    ) -> list[Output]:
        """The whole exchange; what the door does with the request that carries credentials."""
        self.now += 30.0
        first = message(body, kind)
        (challenge,) = self.door.received(first, self.at, self.now, wall, reliable=reliable)
        assert isinstance(challenge, Answer)
        assert challenge.status == 401
        response = make_response(first, 401)
        for name, value in challenge.headers:
            response.headers.add(name, value)
        self.sent = self.digest.answer(first, response)
        assert self.sent is not None
        self.now += self.waits
        return self.door.received(self.sent, self.at, self.now, wall, reliable=reliable)


def status(outputs: list[Output]) -> int:
    (answer,) = (output for output in outputs if isinstance(output, Answer))
    return answer.status


def rule(outputs: list[Output]) -> str:
    (audit,) = (output for output in outputs if isinstance(output, Audit))
    return audit.rule


def test_good_order_is_counted_first_then_audited_answered_and_carried_out() -> None:
    count, audit, answer, execute = Office(commander()).sends(signed())
    assert count == Count(KEYS["admin"].public.kid, 1, int(WALL))
    assert isinstance(audit, Audit)
    assert (audit.user, audit.key, audit.op, audit.keys) == (
        "office", "admin", "set", ("audio.country",),
    )  # fmt: skip
    assert isinstance(count, Count)
    assert (audit.kid, audit.ctr) == (count.kid, count.counter)
    assert answer == Answer(202)
    assert isinstance(execute, Execute)
    assert execute.order.set == {"audio.country": "at"}


REFUSALS: list[tuple[str, bytes, str, int, str]] = [
    ("for another door", signed(sub="another"), CONTENT, 403, "for another door"),
    ("stale", signed(iat=int(WALL) - 301), CONTENT, 403, "301 s ago"),
    ("from the future", signed(iat=int(WALL) + 301), CONTENT, 403, "301 s ahead"),
    ("unsigned", payload(), CONTENT, 403, "no token"),
    ("an unknown key", PrivateKey.new().sign(payload()).encode(), CONTENT, 403, "no key of this"),
    ("a spoilt signature", signed()[:-8] + b"AAAAAAAA", CONTENT, 403, ""),
    ("an unknown operation", signed(op="explode"), CONTENT, 422, "explode"),
    ("an unknown field", signed(force=True), CONTENT, 422, "force"),
    ("a role too low", signed("viewer"), CONTENT, 403, "role viewer may not set"),
    ("opening with an admin's key", signed(op="open", relay="door"), CONTENT, 403, "may not open"),
    ("opening another relay", signed("opener", op="open", relay="gate"), CONTENT, 403, "relay"),
    ("another content", b"{}", "application/json", 415, "understood"),
    ("oversized", signed(set={"x": "y" * 7000}), CONTENT, 413, "8 KB at most"),
    ("typed by no typist", b"status", "text/plain", 403, "may not type"),
]


@pytest.mark.parametrize(
    ("body", "kind", "expected", "why"),
    [row[1:] for row in REFUSALS],
    ids=[row[0] for row in REFUSALS],
)
def test_refusal_table(body: bytes, kind: str, expected: int, why: str) -> None:
    outputs = Office(commander()).sends(body, kind)
    assert status(outputs) == expected
    assert why in rule(outputs)
    assert not any(isinstance(output, Execute | Typed | Count) for output in outputs)
    assert all(output.once for output in outputs if isinstance(output, Answer)), "nothing is kept"


@pytest.mark.parametrize("role", ["viewer", "admin"])
def test_audit_line_of_what_is_refused_says_which_key_signed_it(role: str) -> None:
    outputs = Office(commander(counters={KEYS["admin"].public.kid: 7})).sends(signed(role, ctr=7))
    (audit,) = (output for output in outputs if isinstance(output, Audit))
    assert (audit.key, audit.kid, audit.ctr) == (role, KEYS[role].public.kid, 7)
    assert (audit.user, audit.op, audit.keys) == ("office", "set", ("audio.country",))
    assert audit.status == status(outputs)


def test_wrong_password_is_refused() -> None:
    outputs = Office(commander(), password="wrong").sends(signed())
    assert (status(outputs), rule(outputs)) == (403, "wrong password")


def test_user_who_is_no_commander_is_refused() -> None:
    outputs = Office(commander(), user="somebody").sends(signed())
    assert (status(outputs), rule(outputs)) == (403, "unknown user")


def test_unsigned_stranger_is_only_challenged_and_nothing_is_kept() -> None:
    door = commander()
    (answer,) = door.received(message(signed()), OFFICE, 0.0, WALL, reliable=True)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.once) == (401, True)
    assert 'realm="8e2b1c34-0000-4000-8000-b827eb010203.config"' in answer.headers[0][1]
    assert "SHA-256" in answer.headers[0][1]
    assert len(answer.headers) == 1


def test_replayed_body_is_refused_and_the_counter_told() -> None:
    office = Office(commander())
    body = signed(ctr=5)
    assert status(office.sends(body)) == 202
    outputs = office.sends(body)
    assert (status(outputs), rule(outputs)) == (409, "the counter is at 5")
    assert status(office.sends(signed(ctr=4))) == 409
    assert status(office.sends(signed(ctr=6))) == 202


def test_counters_outlive_a_restart() -> None:
    counters = {KEYS["admin"].public.kid: 7}
    assert status(Office(commander(counters=counters)).sends(signed(ctr=7))) == 409


def test_captured_request_sent_again_is_answered_as_before_and_does_nothing() -> None:
    office = Office(commander())
    office.sends(signed())
    assert office.sent is not None
    again = office.door.received(office.sent, OFFICE, office.now + 100, WALL, reliable=True)
    assert again == [Answer(202)]


def test_order_that_was_refused_after_all_is_refused_again_when_it_is_repeated() -> None:
    office = Office(commander())
    office.sends(signed())
    assert office.sent is not None
    full = refusal(503, "state.b: No space left on device")
    office.door.answered(office.sent, full)
    again = office.door.received(office.sent, OFFICE, office.now + 100, WALL, reliable=True)
    assert again == [full]


def test_answers_are_kept_for_the_last_requests_only() -> None:
    office = Office(commander())
    for counter in range(1, 101):
        assert status(office.sends(signed(ctr=counter))) == 202
    assert len(office.door._answered) == 64


def test_captured_credentials_do_not_sign_another_body() -> None:
    office = Office(commander())
    office.sends(signed())
    assert office.sent is not None
    stolen = message(signed(ctr=2))
    stolen.headers.add("Authorization", office.sent.headers.get("Authorization") or "")
    (answer,) = office.door.received(stolen, OFFICE, office.now + 1, WALL, reliable=True)
    assert isinstance(answer, Answer)
    assert answer.status == 401  # the nonce was for one use


def test_a_challenge_is_good_for_one_order_and_for_a_minute() -> None:
    office = Office(commander())
    assert status(office.sends(signed())) == 202
    office.now += 2.0
    again = office.digest.preauthorize(message(signed(ctr=2)))
    assert "nc=00000002" in (again.headers.get("Authorization") or "")
    (answer,) = office.door.received(again, OFFICE, office.now, WALL, reliable=True)
    assert isinstance(answer, Answer)
    assert (answer.status, "stale=true" in answer.headers[0][1]) == (401, True)
    for seconds, expected in ((59.0, 202), (61.0, 401)):
        office = Office(commander(), waits=seconds)
        assert status(office.sends(signed())) == expected


def test_captured_credentials_are_worth_nothing_from_another_address() -> None:
    door = commander()
    office = Office(door)
    office.sends(signed())
    assert office.sent is not None
    stolen = message(signed(ctr=2))
    stolen.headers.add("Authorization", office.sent.headers.get("Authorization") or "")
    (answer,) = door.received(stolen, "203.0.113.66", office.now, WALL, reliable=True)
    assert isinstance(answer, Answer)
    assert answer.status == 401


def test_door_without_a_clock_goes_by_the_counter_and_by_when_the_last_order_was_signed() -> None:
    assert status(Office(commander()).sends(signed(iat=5), wall=None)) == 202
    office = Office(commander(issued={KEYS["admin"].public.kid: 5}))
    outputs = office.sends(signed(iat=4), wall=None)
    assert (status(outputs), rule(outputs)) == (403, "signed before the last one")
    assert status(office.sends(signed(ctr=1, iat=5), wall=None)) == 202
    count, *_ = office.sends(signed(ctr=2), wall=WALL)
    assert count == Count(KEYS["admin"].public.kid, 2, int(WALL))
    assert status(office.sends(signed(ctr=3, iat=int(WALL) - 1), wall=None)) == 403
    assert status(office.sends(signed(ctr=3), wall=None)) == 202
    count, *_ = office.sends(signed(ctr=4, iat=int(WALL) - 200), wall=WALL)
    assert count == Count(KEYS["admin"].public.kid, 4, int(WALL)), "the latest"
    assert status(office.sends(signed(ctr=5, iat=int(WALL) - 100), wall=None)) == 403


@pytest.mark.parametrize("sub", ["*", DOOR, "b827eb010203"])
def test_door_is_meant_by_its_names(sub: str) -> None:
    assert status(Office(commander()).sends(signed(sub=sub))) == 202


def test_what_is_too_large_for_a_datagram_is_told_to_come_by_tcp() -> None:
    body = signed(set={"x": "y" * MAX_BY_UDP})
    outputs = Office(commander()).sends(body, reliable=False)
    assert status(outputs) == 413
    assert "come by TCP" in rule(outputs)
    assert status(Office(commander()).sends(body, reliable=True)) == 202


def test_opener_opens_its_relay() -> None:
    outputs = Office(commander()).sends(signed("opener", op="open", relay="door", set={}))
    assert status(outputs) == 202


def test_person_types_a_line() -> None:
    outputs = Office(commander(), "caretaker", "word").sends(b"Volume -6\r\n", "text/plain")
    typed = outputs[-1]
    assert isinstance(typed, Typed)
    assert (typed.words, typed.by) == (("volume", "-6"), "caretaker")


@pytest.mark.parametrize("line", [b" \r\n", b"a" * 201, b"status\nundo", b"a\x1b[2J"])
def test_what_is_no_line_is_refused(line: bytes) -> None:
    outputs = Office(commander(), "caretaker", "word").sends(line, "text/plain")
    assert status(outputs) == 400


def test_source_that_asks_too_often_is_told_to_wait_and_others_are_not() -> None:
    door = commander()
    answers = [
        door.received(message(b"x"), "203.0.113.66", n * 0.0005, WALL, reliable=True)[0]
        for n in range(2000)
    ]
    statuses = [answer.status for answer in answers if isinstance(answer, Answer)]
    assert statuses.count(401) <= 12
    assert statuses[-1] == 503
    office = Office(door)
    assert status(office.sends(signed())) == 202


def waits(outputs: list[Output]) -> int:
    """Seconds that somebody is told to wait."""
    (answer,) = outputs
    assert isinstance(answer, Answer)
    assert answer.status == 503
    return int(dict(answer.headers)["Retry-After"])


def test_refusals_cost_whoever_shows_wrong_credentials_longer_and_longer() -> None:
    office = Office(commander(), password="wrong")
    for _ in range(8):
        assert status(office.sends(signed())) == 403
    told = []
    for _ in range(3):
        told.append(waits(office.sends(signed())))
        office.now += told[-1]
        assert status(office.sends(signed())) == 403
    assert told == sorted(told)
    assert told[0] < told[-1]


def test_refusals_without_end_cost_five_minutes_and_no_more() -> None:
    """A machine with an old password tries for ever."""
    office = Office(commander(), password="wrong")
    for _ in range(1100):
        assert status(office.sends(signed())) == 403
        office.now += 270.0
    office.now -= 270.0
    assert waits(office.sends(signed())) == 270


def test_commander_is_not_locked_out_by_another_or_by_strangers_behind_the_same_pbx() -> None:
    door = commander()
    for begin, other in enumerate((Office(door, "caretaker", "word"), Office(door, "somebody"))):
        other.now = 400.0 * begin
        for _ in range(10):
            other.sends(signed(sub="another"))
        assert waits(other.sends(signed(sub="another"))) > 30
    office = Office(door)
    office.now = other.now
    assert status(office.sends(signed())) == 202


def test_storm_from_many_addresses_keeps_a_bounded_table() -> None:
    door = commander()
    for n in range(10_000):
        source = f"203.0.{n >> 8}.{n & 255}"
        door.received(message(b"x"), source, n * 0.0005, WALL, reliable=True)
    assert len(door._paces) == MAX_PACES


def test_storm_from_many_addresses_is_looked_at_for_a_part_and_never_keeps_connections() -> None:
    door = commander()

    def challenged(now: float, *, reliable: bool) -> int:
        """How many of 300 hosts are."""
        answers = [
            door.received(message(b"x"), f"203.0.{now:.0f}.{n}", now, WALL, reliable=reliable)[0]
            for n in range(300)
        ]
        statuses = [answer.status for answer in answers if isinstance(answer, Answer)]
        assert set(statuses) == {401, 503}
        return statuses.count(401)

    assert challenged(0.0, reliable=False) == 100
    assert challenged(1.0, reliable=False) == 50
    assert challenged(1.0, reliable=True) == 100


def test_commander_whose_phone_knows_md5_alone_is_asked_for_that_and_nobody_else_is() -> None:
    for algorithms, asked in (({"indoor": ("MD5",)}, "MD5"), ({"other": ("MD5",)}, "SHA-256")):
        door = Commander(
            door=DOOR, names=tuple, keys={}, users={"indoor": "word"},
            typists=frozenset({"indoor"}), counters={}, secret=b"seal", ids=SeededIds(1),
            algorithms=algorithms,
        )  # fmt: skip
        (answer,) = door.received(
            message(b"status", "text/plain"), OFFICE, 0.0, WALL, reliable=True
        )
        assert isinstance(answer, Answer)
        assert [f"algorithm={asked}" in value for _, value in answer.headers] == [True]


def test_what_stands_against_an_order_is_said_and_its_counter_is_used_up() -> None:
    office = Office(commander(stands_against=lambda order, key: ProtocolError("busy", status=409)))
    count, audit, answer = office.sends(signed(ctr=7))
    assert count == Count(KEYS["admin"].public.kid, 7, int(WALL))
    assert isinstance(audit, Audit)
    assert (audit.status, audit.rule) == (409, "busy")
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (409, b"busy")


def test_addresses_of_one_ipv6_network_are_one_source() -> None:
    """Any host has its /64 whole: ever new addresses of it wait like one."""
    door = commander()
    statuses = []
    for n in range(60):
        (answer,) = door.received(message(b"x"), f"2001:db8::{n:x}", 0.0, WALL, reliable=True)
        assert isinstance(answer, Answer)
        statuses.append(answer.status)
    assert statuses.count(401) == 10
    assert len(door._paces) == 1


def test_orders_that_are_refused_after_the_password_cost_a_pause_too() -> None:
    office = Office(commander())
    for _ in range(8):
        assert status(office.sends(signed(sub="another"))) == 403
    assert waits(office.sends(signed())) > 1


def test_storm_is_told_to_wait_before_it_is_judged_and_that_changes_nothing() -> None:
    door = commander()
    assert door.waits(message(b"x"), OFFICE, 0.0, reliable=True) is None
    for _ in range(10):
        door.received(message(b"x"), OFFICE, 0.0, WALL, reliable=True)
    for _ in range(100):
        answer = door.waits(message(b"x"), OFFICE, 0.5, reliable=True)
        assert answer is not None
        assert (answer.status, answer.headers) == (503, (("Retry-After", "1"),))
    assert door.waits(message(b"x"), "203.0.113.7", 0.5, reliable=True) is None
    assert door.waits(message(b"x"), OFFICE, 1.1, reliable=True) is None
    (challenge,) = door.received(message(b"x"), OFFICE, 1.1, WALL, reliable=True)
    assert isinstance(challenge, Answer)
    assert challenge.status == 401


def test_who_sends_datagrams_under_the_address_of_another_keeps_no_connection_waiting() -> None:
    door = commander()
    office = Office(door)
    forged = message(b"x")
    forged.headers.add("Authorization", f'Digest username="office", realm="{DOOR}.config"')
    for n in range(20_000):
        source = OFFICE if n % 2 else f"203.0.{n >> 8 & 255}.{n & 255}"
        door.received(forged, source, n * 0.0005, WALL, reliable=False)
    office.now = 10.0 - 30.0
    assert status(office.sends(signed())) == 202
    assert door.waits(forged, OFFICE, 10.0, reliable=False) is not None
    assert door.waits(forged, OFFICE, 10.0, reliable=True) is None
