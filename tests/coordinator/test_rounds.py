"""Laws of the round machine, for every history that an engine may give it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from laconic.coordinator.rounds import (
    EVERYBODY,
    TABLE,
    Action,
    Advanced,
    Held,
    Input,
    Joined,
    Left,
    Phase,
    Plan,
    Present,
    Reported,
    Resumed,
    Round,
    TakenBack,
    TimedOut,
    begin,
    buffered,
    resume,
    step,
)

PLANS = st.builds(
    Plan,
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 5),
    st.floats(0.5, 100.0),
    st.floats(0.0, 100.0),
    st.just(0) | st.integers(1, 5),
    st.just(1.3) | st.just(EVERYBODY),
)
INPUTS: st.SearchStrategy[Input] = st.one_of(
    st.builds(Present, st.integers(1, 8)),
    st.just(Joined()),
    st.just(Joined()),
    st.just(Reported()),
    st.just(Reported()),
    st.just(Left()),
    st.just(Resumed()),
    st.just(TimedOut()),
    st.just(Advanced()),
    st.just(Advanced(reached=True)),
    st.builds(Held, st.none() | st.floats(0.0, 1000.0)),
)
HISTORIES = st.lists(st.tuples(INPUTS, st.floats(0.0, 30.0)), max_size=80)


def possible(state: Round, given_: Input, now: float) -> bool:
    """What an engine may say: only an expected device reports or leaves, only a due deadline passes."""
    match given_:
        case Reported() | Left():
            return state.reported < state.expected
        case TimedOut():
            return state.deadline is not None and now >= state.deadline
        case _:
            return True


@given(PLANS, HISTORIES)
def test_every_history_keeps_the_laws(plan: Plan, history: list[tuple[Input, float]]) -> None:
    state, now, opened = begin(1), 0.0, 0
    for event, passed in history:
        now += passed
        if not possible(state, event, now):
            continue
        before = state
        state, action = step(plan, before, event, now)

        assert 0 <= state.reported <= state.expected
        assert before.number <= state.number <= min(before.number + 1, plan.rounds)
        if (before.phase, type(event)) not in TABLE:
            assert (state, action) == (before, None), "what has no row changes nothing"
        if before.phase is Phase.FINISHED:
            assert (state, action) == (before, None), "the end is the end"
        if action is Action.OPEN:
            assert isinstance(event, Present)
            assert event.devices >= plan.min_devices
            assert (state.phase, state.expected, state.reported) == (Phase.COLLECTING, 0, 0)
            assert state.deadline == now + plan.deadline_s
            opened += 1
            assert opened == state.number, "each round opens once"
        if action is Action.CLOSE:
            assert state.phase is Phase.ADVANCING
            assert state.reported >= plan.min_reports
            assert isinstance(event, TimedOut) or state.reported >= plan.enough(state.expected)
            assert state.deadline is None, "nothing is waited for but the computation"
        if action is Action.EXTEND:
            assert isinstance(event, TimedOut)
            assert state.reported < plan.min_reports
        if action is Action.FINISH:
            assert isinstance(event, Advanced)
            assert state.number == plan.rounds or event.reached
        if state.phase is Phase.PAUSED and before.phase is not Phase.PAUSED:
            assert isinstance(event, Held)
            assert (before.phase, state.deadline) == (Phase.WAITING, event.until), "an open round is finished"
        assert (action is Action.CLOSE) == (
            before.phase is Phase.COLLECTING and state.phase is Phase.ADVANCING
        )
        assert (action is Action.FINISH) == (
            before.phase is not Phase.FINISHED and state.phase is Phase.FINISHED
        )
        if isinstance(event, TimedOut):
            assert state.phase is not Phase.PAUSED, "every pause has an end"
            assert state.deadline is None or (
                before.deadline is not None and state.deadline > before.deadline
            )
        if before.phase is Phase.COLLECTING and state.phase is Phase.COLLECTING:
            assert state.deadline is not None, "an open round always wakes again"


@given(PLANS, st.integers(0, 8), st.integers(0, 8))
def test_a_resumed_round_is_closed_exactly_when_an_undisturbed_one_would_be(
    plan: Plan, expected: int, reported: int
) -> None:
    reported = min(reported, expected)
    state, action = step(plan, resume(1, expected=expected, reported=reported, deadline=9.0), Resumed(), 0.0)
    straight, closed = Round(1, Phase.COLLECTING, deadline=9.0), None
    for event in [Joined()] * expected + [Reported()] * reported:
        straight, said = step(plan, straight, event, 0.0)
        closed = closed or said
    assert action == closed
    assert state.phase == straight.phase


@given(PLANS, st.integers(1, 8))
def test_when_all_report_a_campaign_runs_to_its_end(plan: Plan, devices: int) -> None:
    devices = max(devices, plan.min_devices, plan.min_reports)
    enough = plan.enough(devices)
    state, now = begin(1), 0.0
    for number in range(1, plan.rounds + 1):
        state, action = step(plan, state, Present(devices), now)
        assert action is Action.OPEN
        for event in [Joined()] * devices + [Reported()] * (enough - 1):
            state, action = step(plan, state, event, now)
            assert action is None
        state, action = step(plan, state, Reported(), now)
        assert action is Action.CLOSE
        state, action = step(plan, state, Advanced(), now)
        assert action is (Action.FINISH if number == plan.rounds else None)
    assert state.phase is Phase.FINISHED


@given(PLANS, st.integers(0, 4), st.integers(1, 20))
def test_too_few_reports_are_waited_for_however_long(plan: Plan, reported: int, extensions: int) -> None:
    reported = min(reported, plan.min_reports - 1)
    state = resume(1, expected=plan.min_reports, reported=reported, deadline=0.0)
    for _ in range(extensions):
        assert state.deadline is not None
        state, action = step(plan, state, TimedOut(), state.deadline)
        assert action is Action.EXTEND
        assert state.reported == reported, "what has been reported stays reported"
    for _ in range(plan.min_reports - reported):
        state, action = step(plan, state, Reported(), 0.0)
    assert action is Action.CLOSE


def test_every_phase_has_a_way_out_and_every_input_a_row() -> None:
    assert {phase for phase, kind in TABLE if kind is not TakenBack} == set(Phase) - {Phase.FINISHED}
    assert {phase for phase, kind in TABLE if kind is TakenBack} == set(Phase)
    assert {kind for _, kind in TABLE} == {
        Present,
        Held,
        Joined,
        Reported,
        Left,
        Resumed,
        TimedOut,
        TakenBack,
        Advanced,
    }


@given(PLANS, st.sampled_from(Phase), st.integers(1, 9), st.integers(0, 5), st.booleans())
def test_what_is_taken_back_waits_for_nothing_and_ends_a_round_or_none(
    plan: Plan, phase: Phase, number: int, reported: int, again: bool
) -> None:
    state, action = step(plan, Round(number, phase, reported, reported, 7.0), TakenBack(), 1.0)
    assert (state, action) == (Round(number, Phase.ADVANCING), None)
    for late in (Joined(), Reported(), Left(), Present(9), TimedOut(), Held(None)):
        assert step(plan, state, late, 2.0) == (state, None)
    after, _ = step(plan, state, Advanced(again=again), 2.0)
    last = number >= plan.rounds
    assert after == (begin(number) if again else Round(number, Phase.FINISHED) if last else begin(number + 1))


@given(st.integers(1, 500), st.floats(1.0, 3.0), st.integers(0, 2000))
def test_a_target_asks_for_more_than_it_needs_and_never_for_more_than_are_here(
    target: int, over: float, here: int
) -> None:
    plan = Plan(1, 1, 1, 1.0, target_reports=target, over_selection=over)
    asked = plan.asked(here)
    assert min(target, here) <= asked <= here
    assert asked <= over * target + 1
    assert buffered(plan, target).asked(here) == here
    assert Plan(1, 1, 1, 1.0).asked(here) == here


def test_over_selection_is_of_the_target_exactly() -> None:
    plans = [Plan(1, 1, 1, 1.0, target_reports=10, over_selection=f) for f in (1.0, 1.1, 1.3, 1.31)]
    assert [p.asked(100) for p in plans] == [10, 11, 13, 14]


@given(st.integers(2, 8), st.integers(0, 8), st.integers(1, 3))
def test_with_a_target_those_who_never_report_cost_nothing(target: int, dead: int, least: int) -> None:
    """The round closes with the last report that is needed, whoever else was asked; without, it waits."""
    events: list[Input] = [Joined()] * (target + dead) + [Reported()] * target
    for plan, ends in (
        (Plan(1, 1, least, 9.0, target_reports=target), Phase.ADVANCING),
        (Plan(1, 1, least, 9.0), Phase.COLLECTING if dead or least > target else Phase.ADVANCING),
    ):
        state, _ = step(plan, begin(1), Present(99), 0.0)
        for event in events:
            state, _ = step(plan, state, event, 1.0)
        assert state.phase is (ends if least <= target else Phase.COLLECTING)
        state, _ = step(plan, state, TimedOut(), 9.0)
        assert least > target or state.phase is Phase.ADVANCING, "and at most the deadline"
