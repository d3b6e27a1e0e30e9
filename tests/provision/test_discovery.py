"""The order of the places, and who may still be asked."""

import pytest
from doorstation.dhcp.offered import Location, Offered
from doorstation.provision.discovery import (
    MAX_PLACES,
    Ask,
    Discovery,
    Line,
    Mode,
    Output,
    Over,
    Placeholders,
    Source,
    Try,
    described,
)

DOOR = Placeholders(mac="b827eb010203", serial="10000000abcdef01", model="pi-4", version="0.1.0")
DHCP = Location("https://dhcp.test/door", "160")


def discovery(
    confirmed: str = "", typed: str = "", *, claimed: bool = False, mode: Mode = "once"
) -> Discovery:
    return Discovery(
        confirmed=confirmed, typed=typed, claimed=claimed, mode=mode, placeholders=DOOR
    )


def lines(outputs: list[Output]) -> list[str]:
    return [output.text for output in outputs if isinstance(output, Line)]


def walk(one: Discovery, answers: dict[Source, list[Location]]) -> list[str]:
    """Everything that is tried and asked when no place holds anything."""
    steps, outputs = [], one.start()
    while True:
        match outputs[-1]:
            case Try(place):
                steps.append(place.url)
                outputs = one.tried(place, "404")
            case Ask(source):
                steps.append(source)
                outputs = one.answered(source, answers.get(source, []))
            case Over(None):
                return steps


def test_places_are_tried_in_the_order_of_the_design() -> None:
    answers: dict[Source, list[Location]] = {
        "dhcp": [DHCP],
        "multicast": [Location("https://pnp.test/door", "multicast")],
        "dns-sd": [Location("https://sd.test/door", "dns-sd")],
    }
    assert walk(discovery("https://was.test/", "https://typed.test/"), answers) == [
        "https://was.test/", "https://typed.test/",
        "dhcp", "https://dhcp.test/door",
        "multicast", "https://pnp.test/door",
        "dns-sd", "https://sd.test/door",
    ]  # fmt: skip


def test_card_comes_after_what_was_typed_and_before_the_network() -> None:
    one = Discovery(
        confirmed="", typed="https://typed.test/", card=[Location("https://{mac}.test/", "card")],
        claimed=False, mode="once", placeholders=DOOR,
    )  # fmt: skip
    assert walk(one, {})[:3] == ["https://typed.test/", "https://b827eb010203.test/", "dhcp"]


def test_first_place_that_serves_ends_it() -> None:
    one = discovery(typed="https://typed.test/")
    place = Location("https://typed.test/", "typed")
    outputs = one.start()
    assert outputs[-1] == Try(place)
    outputs = one.tried(place, "")
    assert outputs[-1] == Over(place)
    assert lines(outputs) == ["used: https://typed.test/ (typed)"]


def test_place_that_was_found_and_has_nothing_new_keeps_the_door_from_no_other() -> None:
    one, found = discovery("https://was.test/", claimed=True, mode="always"), "https://was.test/"
    place = Location(found, "confirmed")
    assert one.start()[-1] == Try(place)
    assert one.tried(place, None)[-1] == Ask("dhcp")
    assert one.answered("dhcp", [DHCP])[-1] == Try(DHCP)
    outputs = one.tried(DHCP, "404")
    assert outputs[-1] == Over(place)
    assert lines(outputs)[-1] == "used: https://was.test/ (confirmed)"


def test_place_that_the_settings_name_is_asked_where_the_one_that_was_found_has_nothing_new() -> (
    None
):
    one = discovery("https://was.test/", "https://typed.test/", claimed=True, mode="always")
    found = Location("https://was.test/", "confirmed")
    named = Location("https://typed.test/", "typed")
    assert one.start()[-1] == Try(found)
    assert one.tried(found, None)[-1] == Try(named)
    assert one.tried(named, None)[-1] == Over(named)


def test_confirmed_place_that_the_settings_name_too_ends_the_search_with_nothing_new() -> None:
    typed = "https://{mac}.test/"
    one = discovery(DOOR.filled(typed), typed, claimed=True, mode="always")
    place = Location(DOOR.filled(typed), "confirmed")
    assert one.start()[-1] == Try(place)
    assert one.tried(place, None)[-1] == Over(place)


def test_door_with_an_owner_asks_the_network_for_nothing() -> None:
    one = discovery("https://was.test/", claimed=True)
    assert walk(one, {}) == ["https://was.test/"]
    said = lines(discovery("https://was.test/", claimed=True).start())
    assert said[0] == "passed over: the network: the door has an owner"


@pytest.mark.parametrize("claimed", [True, False])
def test_discovery_that_is_off_asks_for_nothing(claimed: bool) -> None:
    assert walk(discovery(claimed=claimed, mode="off"), {}) == []


def test_owner_may_have_dhcp_read_again_and_nothing_else() -> None:
    assert walk(discovery(claimed=True, mode="always"), {"dhcp": [DHCP]}) == ["dhcp", DHCP.url]


def test_place_is_tried_once_however_often_it_is_named() -> None:
    one = discovery(typed=DHCP.url)
    assert walk(one, {"dhcp": [DHCP, DHCP]}) == [DHCP.url, "dhcp", "multicast", "dns-sd"]


def test_rogue_server_that_names_a_thousand_places_has_a_few_of_them_tried() -> None:
    many = [Location(f"https://evil.test/{n}", "160") for n in range(1000)]
    steps = walk(discovery(), {"dhcp": many})
    assert sum(step.startswith("https:") for step in steps) == MAX_PLACES


def test_every_step_is_a_plain_line() -> None:
    one = discovery()
    assert lines(one.start()) == ["asked: dhcp"]
    said = lines(one.answered("dhcp", [DHCP], "10.0.0.1: one place"))
    assert said == ["dhcp: 10.0.0.1: one place", "asked: https://dhcp.test/door (160)"]
    said = lines(one.tried(DHCP, "signed by no owner of this door"))
    assert said[0] == ("passed over: https://dhcp.test/door (160): signed by no owner of this door")


def test_placeholders_are_filled_in() -> None:
    url = "https://c.test/{mac}/{MAC}/{serial}/{model}/{version}/$mac/$MA.json"
    assert DOOR.filled(url) == (
        "https://c.test/b827eb010203/B827EB010203/10000000abcdef01/pi-4/0.1.0/"
        "b827eb010203/B827EB010203.json"
    )


def test_answer_of_a_server_is_one_line() -> None:
    offered = Offered(
        "10.0.0.1", sip_servers=("sip1.test", "sip2.test"), locations=(DHCP,),
        domains=("example.test",), ntp_servers=("10.0.0.7",), faults=("option 66: empty",),
    )  # fmt: skip
    assert described(offered) == (
        "10.0.0.1: SIP sip1.test, sip2.test; https://dhcp.test/door (160); domain example.test; "
        "time 10.0.0.7; fault: option 66: empty"
    )
    assert described(Offered("10.0.0.1")) == "10.0.0.1: nothing for us"
