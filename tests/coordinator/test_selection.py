"""Laws of selection: what every strategy gives, what each is for, and that nobody waits for ever."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.coordinator.ledger import participation
from laconic.coordinator.ledger.participation import Participation
from laconic.coordinator.selection import (
    Candidate,
    Context,
    SelectionSection,
    SelectionSettings,
    choose,
    jain,
    selection_of,
    strategy_of,
)
from laconic.coordinator.selection import oort as oort_module
from laconic.errors import ConfigError
from often import examples

# --- plug-ins, by the names `test_selection:...` ------------------------------------------------------------


def the_first(devices: Sequence[Candidate], count: int, context: Context) -> list[str]:
    """Always the same few, as long as nobody minds."""
    return [c.name for c in devices][:count]


def nobody(devices: Sequence[Candidate], count: int, context: Context) -> tuple[str, ...]:
    return ()


def too_many(devices: Sequence[Candidate], count: int, context: Context) -> list[str]:
    return [c.name for c in devices][: count + 1] * 2


def strangers(devices: Sequence[Candidate], count: int, context: Context) -> list[str]:
    return ["nobody-knows"][:count]


def twice(devices: Sequence[Candidate], count: int, context: Context) -> list[str]:
    return [devices[0].name] * count


def numbers(devices: Sequence[Candidate], count: int, context: Context) -> Any:
    return [7][:count]


def one_word(devices: Sequence[Candidate], count: int, context: Context) -> Any:
    return devices[0].name


def nothing(devices: Sequence[Candidate], count: int, context: Context) -> Any:
    return None


def failing(devices: Sequence[Candidate], count: int, context: Context) -> list[str]:
    raise ZeroDivisionError("of no avail")


not_a_function = 7

GOOD = ("uniform", "oort", "stratified", "test_selection:the_first", "test_selection:nobody")
BAD = tuple(
    f"test_selection:{f.__name__}" for f in (too_many, strangers, twice, numbers, one_word, nothing, failing)
)
EXACT = ("uniform", "oort", "stratified", "test_selection:the_first", *BAD)
"""Those that always choose as many as they are to."""


def with_strategy(name: str, **more: Any) -> SelectionSettings:
    return selection_of(SelectionSection(strategy=name, **more))


def chosen(
    chosen_by: SelectionSettings,
    candidates: Sequence[Candidate],
    count: int,
    number: int = 1,
    task: str = "t",
) -> list[str]:
    context = Context("fleet", "cohort", task, number)
    return choose(chosen_by, strategy_of(chosen_by), candidates, count, context).names


def device(i: int, **more: Any) -> Candidate:
    return Candidate(f"d{i:03d}", **{"samples": 10, "joules": 5.0, "bytes": 1000, **more})


AMOUNTS = st.sampled_from([0.0, 1e-9, 0.3, 1.0, 7.0, 1e15])
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        st.integers(0, 60).map(lambda i: f"d{i}"),
        st.sampled_from([0, 1, 3, 50, 2**48]),
        AMOUNTS,
        st.sampled_from([0, 1, 5000, 2**60]),
        charge=st.none() | st.floats(0, 1),
        charging=st.booleans(),
        seconds=st.none() | AMOUNTS,
        loss=st.none() | AMOUNTS | AMOUNTS.map(lambda x: -x),
        asked=st.integers(0, 2),
        asked_round=st.integers(0, 40),
        waited=st.integers(0, 30),
        reliability=st.floats(0, 1),
    ),
    max_size=25,
    unique_by=lambda c: c.name,
)


# --- every strategy -----------------------------------------------------------------------------------------


@given(
    st.sampled_from(EXACT),
    CANDIDATES,
    st.integers(0, 30),
    st.integers(1, 300),
    st.sampled_from([1, 5, 100]),
    st.sampled_from(["samples", "charge", "groups"]),
    st.randoms(use_true_random=False),
)
def test_a_choice_is_of_candidates_each_once_as_many_as_wanted_and_the_same_in_any_order(
    name: str, candidates: list[Candidate], count: int, number: int, waiting: int, strata: str, random: Any
) -> None:
    how = with_strategy(name, most_rounds_waiting=waiting, strata=strata, groups="d1*, d?")
    names = chosen(how, candidates, count, number)
    assert len(set(names)) == len(names) == min(count, len(candidates))
    assert set(names) <= {c.name for c in candidates}
    random.shuffle(candidates)
    assert chosen(how, candidates, count, number) == names


@given(st.sampled_from((*GOOD, *BAD)), CANDIDATES, st.integers(1, 30), st.integers(1, 30))
def test_those_who_have_waited_too_long_are_asked_first_the_longest_first(
    name: str, candidates: list[Candidate], count: int, most: int
) -> None:
    names = chosen(with_strategy(name, most_rounds_waiting=most), candidates, count)
    waited = {c.name: c.waited for c in candidates}
    late = sorted((w for w in waited.values() if w >= most), reverse=True)[:count]
    assert [waited[n] for n in names[: len(late)]] == late


@settings(max_examples=examples(60), deadline=None)
@given(
    st.sampled_from((*GOOD, *BAD)),
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(1, 3),
    st.data(),
)
def test_nobody_is_passed_over_more_often_than_the_stated_bound(
    name: str, fleet: int, most: int, fewest: int, data: st.DataObject
) -> None:
    """Over random histories: devices come and go, tell losses, and are asked now and then out of turn."""
    how = with_strategy(name, most_rounds_waiting=most)
    strategy = strategy_of(how)
    names = [f"d{i}" for i in range(fleet)]
    always = data.draw(st.sets(st.sampled_from(names)))
    random = data.draw(st.randoms(use_true_random=False))
    records = dict.fromkeys(names, Participation())
    passed_over, worst = dict.fromkeys(names, 0), 0
    for number in range(1, 35):
        here = [n for n in names if n in always or random.random() < 0.6]
        records |= {n: participation.seen(records[n], "c", number) for n in here}
        candidates = [
            Candidate(
                n,
                random.choice([1, 100]),
                random.choice([1.0, 50.0]),
                1000,
                loss=records[n].loss,
                asked=records[n].asked,
                asked_round=records[n].asked_round,
                waited=records[n].waited(number),
            )
            for n in here
        ]
        count = random.randint(fewest, fewest + 2)
        asked = choose(how, strategy, candidates, count, Context("f", "c", f"task {number}", number)).names
        for n in here:
            passed_over[n] = 0 if n in asked else passed_over[n] + 1
            worst = max(worst, passed_over[n])
        extra = [n for n in here if n not in asked and random.random() < 0.05]
        for n in (*asked, *extra):
            passed_over[n] = 0
            records[n] = participation.asked(records[n], "c", number)
            records[n] = participation.told(records[n], "c", random.choice([None, 0.1, 9.0]))
    assert worst <= most + (fleet - 1) // fewest


def test_the_bound_is_reached() -> None:
    """Ten devices, one a round, a plug-in that asks nobody: the last is asked after 3 + 9 rounds."""
    how = with_strategy("test_selection:nobody", most_rounds_waiting=3)
    records = {f"d{i}": Participation() for i in range(10)}
    first: dict[str, int] = {}
    for number in range(1, 14):
        records = {n: participation.seen(p, "c", number) for n, p in records.items()}
        candidates = [Candidate(n, 1, 1.0, 1, waited=p.waited(number)) for n, p in records.items()]
        for n in chosen(how, candidates, 1, number, f"task {number}"):
            first.setdefault(n, number - 1)
            records[n] = participation.asked(records[n], "c", number)
    assert sorted(first.values()) == list(range(3, 13))


def test_a_choice_depends_on_fleet_and_task_alone() -> None:
    candidates = [device(i) for i in range(40)]
    for name in ("uniform", "oort", "stratified"):
        how = with_strategy(name)
        by_task = {tuple(sorted(chosen(how, candidates, 5, 1, f"task {i}"))) for i in range(20)}
        assert len(by_task) == 20
        here, there = (Context(fleet, "c", "t", 1) for fleet in ("here", "there"))
        strategy = strategy_of(how)
        assert choose(how, strategy, candidates, 5, here) == choose(how, strategy, candidates, 5, here)
        assert choose(how, strategy, candidates, 5, here) != choose(how, strategy, candidates, 5, there)


# --- participation ------------------------------------------------------------------------------------------


def test_waiting_begins_with_the_first_round_that_could_have_asked_and_anew_with_each_that_asks() -> None:
    p = participation.seen(Participation(), "c", 7)
    assert [p.waited(n) for n in (7, 8, 12)] == [0, 1, 5]
    assert participation.seen(p, "c", 9) == p
    p = participation.told(participation.asked(p, "c", 12), "c", 0.5)
    assert [p.waited(n) for n in (12, 13, 14)] == [0, 0, 1]
    assert (p.asked, p.asked_round, p.loss) == (1, 12, 0.5)
    assert participation.told(p, "c", None).loss == 0.5
    other = participation.asked(p, "another", 3)
    assert other == Participation("another", 1, 3, 3), "another campaign counts from the beginning"


# --- uniform ------------------------------------------------------------------------------------------------


def share_of_rounds(
    how: SelectionSettings, candidates: Sequence[Candidate], count: int, rounds: int
) -> Counter[str]:
    return Counter(n for i in range(rounds) for n in chosen(how, candidates, count, 1 + i, f"task {i}"))


@pytest.mark.parametrize("name", ["uniform", "stratified"])
def test_everybody_is_asked_equally_often(name: str) -> None:
    candidates = [device(i, samples=1 + i % 7, charge=i / 20) for i in range(20)]
    often = share_of_rounds(with_strategy(name), candidates, 5, 2000)
    # 500 of 2000 are expected; five standard deviations of a binomial are 97.
    assert all(abs(often[c.name] - 500) < 97 for c in candidates)


# --- stratified ---------------------------------------------------------------------------------------------


@given(CANDIDATES, st.integers(0, 25), st.sampled_from(["samples", "charge", "groups"]))
def test_every_stratum_has_its_part(candidates: list[Candidate], count: int, strata: str) -> None:
    how = with_strategy("stratified", strata=strata, groups="d1?,d2?")
    names = set(chosen(how, candidates, count))

    def stratum(c: Candidate) -> object:
        if strata == "samples":
            return c.samples
        if strata == "groups":
            return next((p for p in ("d1", "d2") if len(c.name) == 3 and c.name.startswith(p)), "")
        return 2.0 if c.charging or c.charge is None else c.charge

    part = Fraction(min(count, len(candidates)), max(1, len(candidates)))
    for label in {stratum(c) for c in candidates}:
        members = {c.name for c in candidates if stratum(c) == label}
        due = part * len(members)
        assert math.floor(due) <= len(names & members) <= math.ceil(due)


# --- Oort ---------------------------------------------------------------------------------------------------

EXPLOIT = with_strategy("oort", exploration=0.0, exploration_least=0.0)


def worth(
    candidates: Sequence[Candidate], number: int = 1, how: SelectionSettings = EXPLOIT
) -> dict[str, float]:
    return oort_module.utilities(candidates, number, how, oort_module._prices(candidates, how))


def test_utility_as_in_the_paper() -> None:
    """Samples times loss in parts of the highest, plus sqrt(0.1 log R / L); times (T / t)^alpha if slow."""
    how = replace(EXPLOIT, joules_exponent=0.0, bytes_exponent=0.0, fast_share=0.5, clip=1.0)
    found = worth(
        [
            device(0, samples=10, loss=2.0, asked=1, asked_round=4, seconds=10.0),
            device(1, samples=40, loss=1.0, asked=3, asked_round=9, seconds=40.0),
        ],
        number=10,
        how=how,
    )
    assert found["d000"] == pytest.approx(20 / 40 + math.sqrt(0.1 * math.log(10) / 4))
    assert found["d001"] == pytest.approx((1.0 + math.sqrt(0.1 * math.log(10) / 9)) / 16)


@given(
    st.lists(st.tuples(st.integers(1, 100), st.floats(0.01, 10.0)), min_size=2, max_size=12),
    st.floats(1.01, 50.0),
    st.sampled_from(["loss", "samples", "joules", "bytes", "seconds", "asked_round"]),
)
def test_more_to_learn_is_worth_more_and_what_costs_more_less(
    others: list[tuple[int, float]], factor: float, what: str
) -> None:
    made = [
        device(i, samples=n, loss=x, asked=1, asked_round=5, seconds=10.0) for i, (n, x) in enumerate(others)
    ]
    one = made[0]
    before = worth(made, 20)[one.name]
    value = getattr(one, what) * factor
    more = replace(one, **{what: round(value) + 1 if what in ("samples", "bytes", "asked_round") else value})
    # Beside the same others: that the whole fleet's scale moves along is another matter.
    fixed = oort_module._prices(made, EXPLOIT)
    prices = fixed | {one.name: oort_module._prices([more, *made[1:], *made[1:]], EXPLOIT)[one.name]}
    if what in ("loss", "samples"):
        after = oort_module.utilities([more, *made[1:]], 20, EXPLOIT, fixed)
        rank = {n: sum(v > after[one.name] for v in after.values()) for n in after}
        earlier = oort_module.utilities(made, 20, EXPLOIT, fixed)
        assert rank[one.name] <= sum(v > earlier[one.name] for v in earlier.values())
    elif what == "asked_round":
        assert oort_module.utilities([more, *made[1:]], 20, EXPLOIT, fixed)[one.name] < before
    else:
        assert prices[one.name] >= fixed[one.name]


def test_an_outlier_is_worth_no_more_than_the_quantile() -> None:
    usual = [device(i, loss=1.0 + i / 100, asked=1, asked_round=1) for i in range(40)]
    liar = device(99, loss=1e15, samples=2**48, asked=1, asked_round=1)
    found = worth([*usual, liar])
    assert found["d099"] == max(found.values()) < 1.01 * found["d039"]


def test_a_round_of_exploration_asks_the_new_ones_and_the_share_falls() -> None:
    made = [device(i, asked=1, asked_round=1, loss=1.0) for i in range(50)] + [
        device(i) for i in range(50, 100)
    ]
    how = with_strategy("oort", most_rounds_waiting=0)

    def new(number: int) -> list[int]:
        return [sum(n >= "d050" for n in chosen(how, made, 10, number, f"t{i}")) for i in range(200)]

    assert set(new(1)) == {9}
    assert set(new(20)) == {6, 7} or set(new(20)) == {6}, "0.9 x 0.98^19 is 0.613"
    assert set(new(1000)) == {2}
    assert sum(new(20)) / 200 == pytest.approx(6.13, abs=0.15)


def test_exploration_and_exploitation_stand_in_for_one_another() -> None:
    known = [device(i, asked=1, asked_round=1, loss=1.0) for i in range(3)]
    fresh = [device(i) for i in range(10, 13)]
    how = with_strategy("oort")
    assert sorted(chosen(how, known, 3, 1)) == ["d000", "d001", "d002"]
    assert sorted(chosen(how, fresh, 3, 1000)) == ["d010", "d011", "d012"]
    assert len(chosen(how, [*known, *fresh], 5, 1)) == 5


def test_a_draw_is_in_proportion_to_weight() -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 5.0}
    first: Counter[str] = Counter()
    for i in range(4000):
        context = Context("f", "c", str(i), 1)
        draws = context.draws([device(0), device(1), device(2)])
        first += Counter(oort_module._drawn(weights, 1, dict(zip("abc", draws.values(), strict=True))))
    assert [first[n] / 4000 for n in "abc"] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.04)


def test_a_cheap_device_is_asked_before_a_dear_one_that_teaches_as_much() -> None:
    made = [device(i, joules=1.0 + 9 * (i % 2), loss=1.0, asked=1, asked_round=1) for i in range(20)]
    assert all(int(n[1:]) % 2 == 0 for n in chosen(EXPLOIT, made, 8, 5))
    indifferent = replace(EXPLOIT, joules_exponent=0.0)
    assert any(int(n[1:]) % 2 for n in chosen(indifferent, made, 8, 5))


# --- plug-ins -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD)
def test_a_plug_in_that_answers_wrongly_is_named_and_the_round_goes_on_without_it(name: str) -> None:
    how = with_strategy(name)
    made = [device(i) for i in range(9)]
    choice = choose(how, strategy_of(how), made, 4, Context("f", "c", "t", 1))
    assert len(choice.names) == 4
    assert isinstance(choice.failure, ConfigError)
    assert name in str(choice.failure)


@pytest.mark.parametrize("name", GOOD)
def test_one_that_answers_rightly_is_not_blamed(name: str) -> None:
    how = with_strategy(name)
    made = [device(i) for i in range(9)]
    assert choose(how, strategy_of(how), made, 4, Context("f", "c", "t", 1)).failure is None


@pytest.mark.parametrize(
    "path",
    ["test_selection:no_such", "no_such_module_at_all:f", "test_selection:not_a_function", ":f", "math:"],
)
def test_a_plug_in_that_is_not_there_is_a_configuration_error(path: str) -> None:
    with pytest.raises(ConfigError, match=r"selection\.strategy"):
        strategy_of(with_strategy(path))


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"strategy": "best"}, "selection.strategy"),
        ({"strata": "colour"}, "selection.strata"),
        ({"strategy": "stratified", "strata": "groups"}, "selection.groups"),
        ({"most_rounds_waiting": -1}, "selection.most_rounds_waiting"),
        ({"exploration": 1.5}, "selection.exploration"),
        ({"exploration_decay": 1.5}, "selection.exploration_decay"),
        ({"exploration_least": -0.1}, "selection.exploration_least"),
        ({"clip": 2.0}, "selection.clip"),
        ({"joules_exponent": -1.0}, "selection.joules_exponent"),
        ({"bytes_exponent": 11.0}, "selection.bytes_exponent"),
        ({"slow_exponent": -1.0}, "selection.slow_exponent"),
        ({"fast_share": 1.1}, "selection.fast_share"),
    ],
)
def test_settings_that_cannot_be(given_: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        selection_of(SelectionSection(**given_))


def test_only_a_uniform_choice_without_a_promise_can_be_left_to_the_devices() -> None:
    assert not with_strategy("uniform").by_name
    assert with_strategy("uniform", most_rounds_waiting=5).by_name
    assert with_strategy("oort", most_rounds_waiting=0).by_name
    assert with_strategy("oort").most_rounds_waiting == 100


# --- Jain's index -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=40), st.integers(1, 1000))
def test_jains_index_is_between_one_in_n_and_one_and_blind_to_scale_and_order(
    counts: list[int], k: int
) -> None:
    index = jain(counts)
    assert 1 / len(counts) - 1e-12 <= index <= 1 + 1e-12
    assert jain([k * x for x in counts]) == pytest.approx(index)
    assert jain(sorted(counts)) == pytest.approx(index)


def test_jains_index_of_k_among_n_is_their_part() -> None:
    """The paper's example: who shares something equally with k of n gives k / n."""
    assert [jain([20] * k + [0] * (100 - k)) for k in (1, 10, 100)] == [0.01, 0.1, 1.0]
    assert jain([]) == jain([0, 0]) == 1.0
    spread = [jain([5 - d, 5 + d]) for d in range(6)]
    assert all(a > b for a, b in pairwise(spread))
