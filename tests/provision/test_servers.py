"""Which SIP servers are used of those that the network offers."""

from doorstation.dhcp.offered import Offered
from doorstation.provision.servers import Servers

A, B = Offered("10.0.0.1", sip_servers=("10.0.0.5",)), Offered("fe80::1", sip_servers=("b.test",))
NONE = Offered("10.0.0.1", domains=("house.test",))


def after(*rounds: list[Offered]) -> tuple[str, ...]:
    servers = Servers()
    for answers in rounds:
        servers.begin()
        for answer in answers:
            servers.heard(answer)
        servers.end()
    return servers.used


def test_first_answer_is_used_before_the_round_is_over() -> None:
    servers = Servers()
    servers.begin()
    assert servers.heard(A)
    assert servers.used == ("10.0.0.5",)
    assert not servers.heard(B)
    servers.end()
    assert servers.used == ("10.0.0.5",)


def test_door_stays_with_servers_that_are_still_offered() -> None:
    assert after([A, B], [B, A]) == ("10.0.0.5",)


def test_other_answers_replace_servers_that_nobody_offers_any_more() -> None:
    assert after([A], [B]) == ("b.test",)
    assert after([A], [NONE]) == ()


def test_silence_takes_nothing_away() -> None:
    assert after([A], []) == ("10.0.0.5",)


def test_names_that_are_no_hosts_and_addresses_of_one_link_are_not_used() -> None:
    assert after([Offered("x", sip_servers=("fe80::5", "a_b.test", "c.test"))]) == ("c.test",)


def test_servers_of_one_answer_are_bounded() -> None:
    assert len(after([Offered("x", sip_servers=tuple(f"s{i}.test" for i in range(100)))])) == 8


def test_answer_of_the_network_takes_the_place_of_a_guess_at_once() -> None:
    servers = Servers()
    servers.begin()
    servers.guessed(("old.test",))
    assert servers.used == ("old.test",)
    servers.begin()
    assert servers.heard(A)
    assert servers.used == ("10.0.0.5",)
