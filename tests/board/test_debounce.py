from doorboard.debounce import ButtonLogic, Debounce
from doorboard.interfaces import ButtonEvent
from hypothesis import given
from hypothesis import strategies as st


def button(pressed: bool = False, *, debounce: float = 0.03) -> ButtonLogic:
    return ButtonLogic(pressed=pressed, now=0.0, debounce=debounce, hold=2.0, stuck=30.0)


def kinds(events: list[ButtonEvent]) -> list[str]:
    return [event.kind for event in events]


def test_a_press_counts_after_the_debounce_period_and_is_dated_at_its_edge() -> None:
    logic = button()
    assert logic.edge(True, 1.0) == []
    assert logic.deadline == 1.03
    assert logic.timer_fired(1.03) == [ButtonEvent("pressed", 1.0)]


def test_bounces_are_one_press_dated_at_the_last_bounce() -> None:
    logic = button()
    for at in (1.0, 1.002, 1.004):
        assert logic.edge(True, at) == []
        assert logic.edge(False, at + 0.001) == []
    assert logic.edge(True, 1.006) == []
    assert logic.timer_fired(1.036) == [ButtonEvent("pressed", 1.006)]


def test_a_spike_shorter_than_the_period_is_nothing() -> None:
    logic = button()
    logic.edge(True, 1.0)
    assert logic.edge(False, 1.02) == []
    assert logic.deadline is None
    assert logic.timer_fired(1.03) == []


def test_repeated_edges_of_one_direction_do_not_postpone_the_press() -> None:
    logic = button()
    logic.edge(True, 1.0)
    logic.edge(True, 1.02)
    assert logic.timer_fired(1.03) == [ButtonEvent("pressed", 1.0)]


def test_an_edge_that_overtakes_a_late_timer_loses_nothing() -> None:
    logic = button()
    logic.edge(True, 1.0)
    assert logic.edge(False, 1.5) == [ButtonEvent("pressed", 1.0)]
    assert logic.timer_fired(1.53) == [ButtonEvent("released", 1.5)]


def test_a_kernel_that_debounced_before_is_trusted_at_once() -> None:
    logic = button(debounce=0.0)
    assert logic.edge(True, 1.0) == [ButtonEvent("pressed", 1.0)]
    assert logic.edge(False, 1.2) == [ButtonEvent("released", 1.2)]
    assert logic.deadline is None


def test_a_long_press_is_held_once() -> None:
    logic = button(debounce=0.0)
    logic.edge(True, 1.0)
    assert logic.deadline == 3.0
    assert logic.timer_fired(3.0) == [ButtonEvent("held", 3.0)]
    assert logic.timer_fired(4.0) == []
    assert kinds(logic.edge(False, 5.0)) == ["released"]


def test_a_short_press_is_not_held() -> None:
    logic = button(debounce=0.0)
    logic.edge(True, 1.0)
    logic.edge(False, 2.9)
    assert logic.deadline is None
    assert logic.timer_fired(10.0) == []


def test_a_button_that_stays_in_is_stuck_once_and_freed_when_it_comes_out() -> None:
    logic = button(debounce=0.0)
    logic.edge(True, 1.0)
    assert kinds(logic.timer_fired(3.0)) == ["held"]
    assert logic.deadline == 31.0
    assert logic.timer_fired(31.0) == [ButtonEvent("stuck", 31.0)]
    assert logic.deadline is None
    assert kinds(logic.edge(False, 99.0)) == ["released", "freed"]
    assert kinds(logic.edge(True, 100.0)) == ["pressed"]


def test_a_button_in_at_the_start_does_not_ring_but_is_reported_stuck() -> None:
    logic = button(True)
    assert logic.deadline == 30.0
    assert kinds(logic.timer_fired(30.0)) == ["stuck"]
    logic.edge(False, 40.0)
    assert kinds(logic.timer_fired(40.03)) == ["freed"]


def test_a_button_in_at_the_start_and_let_go_early_says_nothing() -> None:
    logic = button(True)
    logic.edge(False, 1.0)
    assert logic.timer_fired(1.03) == []
    assert logic.deadline is None


def test_long_and_stuck_reports_can_be_switched_off() -> None:
    logic = ButtonLogic(pressed=False, now=0.0, debounce=0.0, hold=None, stuck=None)
    assert kinds(logic.edge(True, 1.0)) == ["pressed"]
    assert logic.deadline is None


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0001, 0.2)), max_size=60))
def test_presses_and_releases_always_alternate(edges: list[tuple[bool, float]]) -> None:
    logic, now, seen = button(), 0.0, []
    for level, wait in edges:
        now += wait
        while logic.deadline is not None and logic.deadline <= now:
            seen += logic.timer_fired(logic.deadline)
        seen += logic.edge(level, now)
    assert kinds(seen) == (["pressed", "released"] * len(seen))[: len(seen)]
    assert [event.at for event in seen] == sorted(event.at for event in seen)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0001, 0.2)), max_size=60))
def test_a_debounced_level_ends_where_the_contact_rests(edges: list[tuple[bool, float]]) -> None:
    debounce, now = Debounce(False, 0.05), 0.0
    for level, wait in edges:
        now += wait
        debounce.edge(level, now)
    debounce.timer_fired(now + 0.05)
    assert debounce.level == (edges[-1][0] if edges else False)


def test_a_button_that_is_in_at_the_start_is_pressed_and_reports_no_press() -> None:
    button = ButtonLogic(pressed=True, now=0.0, debounce=0.0, hold=None, stuck=30.0)
    assert button.pressed
    assert button.edge(False, 1.0) == []
    assert not button.pressed
