"""Laws of a host's energy: what the battery loses is what the parts took, to rounding, whatever happens."""

from __future__ import annotations

from functools import reduce
from math import inf
from operator import add

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim.body import MONTH_S, Body, Build, Cell, build, cell
from laconic.device_sim.energy import SPENT, Ledger, Part, shares, spent_and_worked
from laconic.device_sim.radio import RadioPower, compiled
from laconic.device_sim.signals import DAY_S, HOUR_S, Constant, Daily, Nightly, Recorded, Signal, Solar
from laconic.errors import ConfigError, LocalProtocolError
from laconic.profiles import Origin, board, profiles, radio
from often import examples

LTE = compiled(radio("lte_2012"))
PHONE = Build(0.1, 0.5, LTE, Cell(500.0, 1e-3, 0.2), {})

chargers = st.one_of(
    st.builds(Constant, st.floats(0, 3)),
    st.builds(Nightly, st.floats(0, 5), st.integers(0, 99)),
    st.builds(Solar, st.floats(0, 5), st.integers(0, 99)),
    st.just(Recorded((0.0, 600.0), (0.0, 2.0), 900.0)),
)
users = st.one_of(
    st.builds(Constant, st.floats(0, 0.5)), st.builds(Daily, st.tuples(*[st.floats(0, 0.3)] * 24))
)
acts = st.lists(
    st.tuples(st.sampled_from(["job", "end", "send", "cut", "wait", "on"]), st.floats(0, 20_000)), max_size=12
)


def lived(
    charger: Signal,
    user: Signal,
    charge: float,
    what: list[tuple[str, float]],
    steps: int = 1,
    *,
    build: Build = PHONE,
    kind: type[Body] = Body,
) -> Body:
    """A life: each act after so many seconds, the time between them passing in `steps`."""
    b = kind(build, charge=charge, charger=charger, user=user)
    jobs = 0
    for act, seconds in what:
        since = b.t
        for i in range(1, steps + 1):
            b.advance(since + seconds * i / steps)
        if not b.on:
            jobs = 0
            if act == "on" and b.charged_at(b.t + 1.0) == b.t:
                b.switch_on()
        elif act == "job":
            b.begin_job()
            jobs += 1
        elif act == "end" and jobs:
            b.end_job()
            jobs -= 1
        elif act == "send" and b.radio:
            begin = b.radio.ready(b.t)
            b.radio.transfer(begin, begin + 3.0, up_bytes=100_000)
        elif act == "cut":
            b.stop()
            jobs = 0
    b.advance(b.t + 1000.0)
    return b


@settings(max_examples=examples(150))
@given(chargers, users, st.floats(0, 1), acts)
def test_what_the_battery_loses_is_what_the_parts_took(
    charger: Signal, user: Signal, charge: float, what: list[tuple[str, float]]
) -> None:
    b = lived(charger, user, charge, what)
    assert b.imbalance() < 1e-9
    assert 0 <= b.energy_j <= 500.0
    assert all(b.ledger[p] >= 0 for p in Part)


@settings(max_examples=examples(60))
@given(chargers, users, st.floats(0, 1), acts, st.integers(2, 7))
def test_looking_more_often_changes_nothing(
    charger: Signal, user: Signal, charge: float, what: list[tuple[str, float]], steps: int
) -> None:
    once = lived(charger, user, charge, [w for w in what if w[0] != "on"])
    often = lived(charger, user, charge, [w for w in what if w[0] != "on"], steps)
    assert often.energy_j == pytest.approx(once.energy_j, rel=1e-9, abs=1e-6)
    assert list(often.ledger.joules) == pytest.approx(list(once.ledger.joules), rel=1e-9, abs=1e-6)
    assert often.on == once.on


class Walker(Body):
    """Takes no short cut where nothing changes."""

    __slots__ = ()

    def _rests_until(self, to: float) -> bool:
        return False


@settings(max_examples=examples(60))
@given(chargers, users, acts, st.sampled_from([None, LTE]))
def test_a_host_at_rest_on_mains_is_booked_as_any_other_bit_for_bit(
    charger: Signal, user: Signal, what: list[tuple[str, float]], power: RadioPower | None
) -> None:
    mains = Build(0.1, 0.5, power)
    short = lived(charger, user, 1.0, what, build=mains)
    long = lived(charger, user, 1.0, what, build=mains, kind=Walker)
    assert (short.t, short.ledger.joules) == (long.t, long.ledger.joules)
    assert short.ledger[Part.RADIO_IDLE] > 0 or power is None


@settings(max_examples=examples(60))
@given(chargers, users, st.floats(0.01, 1), st.booleans())
def test_a_battery_is_empty_when_it_was_foreseen(
    charger: Signal, user: Signal, charge: float, busy: bool
) -> None:
    b = Body(PHONE, charge=charge, charger=charger, user=user)
    if busy:
        b.begin_job()
        assert b.radio
        b.radio.transfer(50.0, 90.0, up_bytes=10**6)
    when = b.empty_at(2 * DAY_S)
    assert when >= b.lasts_s() * (1 - 1e-9) - 1e-6
    if when == inf:
        b.advance(2 * DAY_S)
        assert b.on
        return
    b.advance(when * (1 - 1e-9) - 1e-6)
    assert b.on
    b.advance(when + 1e-6)
    assert not b.on
    back = b.charged_at(b.t + 5 * DAY_S)
    if back < inf:
        b.advance(back + 1e-6)
        assert b.charge == pytest.approx(PHONE.cell.restart if PHONE.cell else 0, rel=1e-3)
        b.switch_on()
        assert b.on


def test_an_empty_host_takes_nothing_and_starts_above_its_level_only() -> None:
    b = Body(PHONE, charge=0.01, charger=Recorded((0.0, DAY_S), (0.0, 1.0), 2 * DAY_S))
    b.advance(HOUR_S)
    assert not b.on
    assert b.energy_j == 0
    spent = b.ledger.spent
    b.advance(DAY_S)
    assert b.ledger.spent == spent
    with pytest.raises(LocalProtocolError, match="charge"):
        b.switch_on()
    when = b.charged_at(2 * DAY_S)
    # Charging while it leaks, from nothing to a fifth of 500 J.
    assert when == pytest.approx(DAY_S + 100 / (1 - 1e-3), rel=1e-9)


def test_a_full_battery_is_not_overcharged_and_the_charger_bears_the_load() -> None:
    b = Body(PHONE, charge=1.0, charger=Constant(2.0))
    b.advance(10_000.0)
    assert b.energy_j == 500.0
    want = 10_000.0 * (0.1 + LTE.idle_w + 1e-3)
    assert b.ledger[Part.CHARGED] == pytest.approx(want)
    assert b.ledger.spent == pytest.approx(want)


def test_a_host_on_mains_never_ends() -> None:
    b = Body(Build(2.7, 0.9))
    b.begin_job()
    b.advance(100.0)
    b.end_job()
    b.advance(200.0)
    assert b.on
    assert b.charge is None
    assert b.charging
    assert b.empty_at(inf) == inf
    assert b.ledger[Part.IDLE] == pytest.approx(540.0)
    assert b.ledger[Part.COMPUTE] == pytest.approx(90.0)


def test_a_phone_that_is_off_on_a_shelf_loses_a_fortieth_a_month() -> None:
    c = cell(5160)
    assert c.capacity_j == pytest.approx(5160 * 3.6 * 3.85)
    b = Body(Build(cell=c))
    b.advance(MONTH_S)
    assert b.charge == pytest.approx(0.975)


def test_a_host_by_the_profiles_knows_what_its_figures_rest_on() -> None:
    p = profiles()
    b = build(board("rpi_4b"), radio("lte_2021"), cores=2, battery=cell(3000))
    assert b.compute_w == pytest.approx(2 * 0.925)
    assert b.origins is not None
    assert b.origins[Part.IDLE] is p.boards["rpi_4b"].idle_w.origin
    assert b.origins[Part.ACTIVE] is Origin.ASSUMED
    with pytest.raises(ConfigError, match="cores"):
        build(board("rpi_4b"), cores=5)


def test_the_shares_of_the_joules_add_up_to_all() -> None:
    ledger = Ledger()
    for part in SPENT:
        ledger.add(part, 2.0)
    ledger.add(Part.CHARGED, 100.0)
    found = shares({"d": ledger}, {"d": {Part.IDLE: Origin.PUBLISHED, Part.COMPUTE: Origin.MEASURED}})
    assert found[Origin.PUBLISHED] == found[Origin.MEASURED] == pytest.approx(1 / 8)
    assert sum(found.values()) == pytest.approx(1)
    assert found[Origin.ASSUMED] == pytest.approx(6 / 8)
    assert sum(shares({}, {}).values()) == 0


@given(st.lists(st.lists(st.floats(0, 1e9), min_size=len(Part), max_size=len(Part)), min_size=1, max_size=20))
def test_a_fleets_joules_are_added_one_after_the_other_bit_for_bit(fleet: list[list[float]]) -> None:
    ledgers = [Ledger() for _ in fleet]
    for ledger, joules in zip(ledgers, fleet, strict=True):
        for part in Part:
            ledger.add(part, joules[part])
    all_j = work_j = 0.0
    for joules in fleet:
        all_j += reduce(add, [joules[part] for part in SPENT])
        work_j += joules[Part.COMPUTE] + (joules[Part.PROMOTION] + joules[Part.ACTIVE] + joules[Part.TAIL])
    assert spent_and_worked(ledgers) == (all_j, work_j)


@pytest.mark.parametrize("charge", [-0.1, 1.1, float("nan")])
def test_a_charge_outside_is_refused(charge: float) -> None:
    with pytest.raises(ConfigError):
        Body(PHONE, charge=charge)


def test_a_job_that_did_not_begin_does_not_end() -> None:
    with pytest.raises(LocalProtocolError):
        Body(PHONE).end_job()
