"""Laws of a radio's joules, and the one-packet figures of Huang et al., MobiSys 2012."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim.radio import Radio, RadioPower, State, compiled
from laconic.errors import LocalProtocolError
from laconic.profiles import Origin, profiles, radio
from often import examples

NAMES = sorted(profiles().radios)
Spans = list[tuple[float, float, int, int]]

moments = st.floats(0, 100)
spans = st.lists(
    st.tuples(moments, st.floats(0.001, 5), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=6
)


def made(power: RadioPower, transfers: Spans) -> Radio:
    r = Radio(power)
    for begin, seconds, up, down in transfers:
        r.transfer(begin, begin + seconds, up_bytes=up, down_bytes=down)
    return r


@pytest.mark.parametrize(("name", "joules"), [("lte_2012", 12.76), ("umts_2012", 7.38), ("wifi_2012", 0.04)])
def test_one_packet_costs_what_was_published(name: str, joules: float) -> None:
    """A packet of 1,500 bytes down, promotion and tail included; what the radio takes when idle is apart."""
    power = compiled(radio(name))
    r = Radio(power)
    begin = r.ready(50.0)
    r.transfer(begin, begin + 1500 / power.down_bytes_per_s, down_bytes=1500)
    spent = sum(r.joules(0.0, 100.0)[1:])
    assert spent == pytest.approx(joules, rel=0.02)
    published = radio(name).one_packet_j
    assert published
    assert published.value == joules


def test_without_discontinuous_reception_lte_is_too_cheap() -> None:
    """The 12.59 J of tables that leave it out are 1.3 % too low."""
    profile = radio("lte_2012")
    plain = profile.promotion_s.value * profile.promotion_mw.value * 1e-3
    plain += sum(s.time_s.value * s.power_mw.value * 1e-3 for s in profile.tail)
    assert plain == pytest.approx(12.59, abs=0.005)


@settings(max_examples=examples(60))
@given(st.sampled_from(NAMES), spans, st.floats(0, 150), st.floats(0, 150), st.floats(0, 150))
def test_energy_is_additive_in_time(name: str, transfers: Spans, a: float, b: float, c: float) -> None:
    a, b, c = sorted((a, b, c))
    r = made(compiled(radio(name)), transfers)
    whole, parts = r.joules(a, c), zip(r.joules(a, b), r.joules(b, c), strict=True)
    assert whole == pytest.approx([x + y for x, y in parts], rel=1e-9, abs=1e-9)


@settings(max_examples=examples(60))
@given(st.sampled_from(NAMES), spans, st.randoms(use_true_random=False))
def test_the_order_in_which_transfers_are_told_does_not_matter(name: str, transfers: Spans, chance) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(transfers)
    chance.shuffle(shuffled)
    power = compiled(radio(name))
    told, otherwise = made(power, transfers), made(power, shuffled)
    assert told.joules(0, 150) == pytest.approx(otherwise.joules(0, 150), rel=1e-9, abs=1e-9)


@settings(max_examples=examples(60))
@given(st.sampled_from(NAMES), spans, st.integers(0, 5), st.floats(0, 20))
def test_bytes_wait_for_a_promotion_and_for_nothing_else(
    name: str, transfers: Spans, which: int, later_s: float
) -> None:
    """From the end of any transfer on, where the next of many begins."""
    power = compiled(radio(name))
    r = made(power, transfers)
    t = sum(transfers[which % len(transfers)][:2]) + later_s if transfers else later_s
    state, _, until = r.at(t)
    waits = {State.IDLE: t + power.promotion_s, State.PROMOTION: until}
    assert r.ready(t) == waits.get(state, t)


@settings(max_examples=examples(60))
@given(st.sampled_from(NAMES), spans, moments)
def test_what_is_over_can_be_forgotten(name: str, transfers: Spans, t: float) -> None:
    power = compiled(radio(name))
    whole, forgetful = made(power, transfers), made(power, transfers)
    forgetful.forget(t)
    assert forgetful.joules(t, 150) == pytest.approx(whole.joules(t, 150), rel=1e-12, abs=1e-12)


@settings(max_examples=examples(60))
@given(st.sampled_from(NAMES), st.floats(0, 30))
def test_the_tail_is_charged_only_until_the_next_transfer(name: str, gap: float) -> None:
    """Two transfers a gap apart: the tail for the gap or for its whole length, and one more at the end."""
    power = compiled(radio(name))
    r = Radio(power)
    first = r.ready(10.0)
    r.transfer(first, first + 1.0)
    second = r.ready(first + 1.0 + gap)
    r.transfer(second, second + 1.0)
    _, promotion, active, tail = r.joules(0.0, 200.0)

    def until(seconds: float) -> float:
        spent, since = 0.0, 0.0
        for end, watts in power.tail:
            spent += watts * (min(max(seconds, since), end) - since)
            since = end
        return spent

    promoted = 1 if gap < power.tail_s else 2
    assert tail == pytest.approx(until(gap) + until(inf), rel=1e-9, abs=1e-9)
    assert promotion == pytest.approx(promoted * power.promotion_s * power.promotion_w, rel=1e-9, abs=1e-9)
    assert active == pytest.approx(2 * power.active_w, rel=1e-6)


@settings(max_examples=examples(60))
@given(st.sampled_from(NAMES), st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.01, 50))
def test_a_byte_costs_the_same_at_any_rate(name: str, up: int, down: int, seconds: float) -> None:
    """Over an empty transfer of the same length."""
    power = compiled(radio(name))
    empty, full = made(power, [(1.0, seconds, 0, 0)]), made(power, [(1.0, seconds, up, down)])
    extra = full.joules(0, 100)[State.ACTIVE] - empty.joules(0, 100)[State.ACTIVE]
    want = up * power.up_j_per_byte + down * power.down_j_per_byte
    assert extra == pytest.approx(want, rel=1e-9, abs=1e-9)


@settings(max_examples=examples(60))
@given(st.sampled_from(NAMES), spans, moments)
def test_a_broken_link_ends_every_transfer_and_begins_the_tail(name: str, transfers: Spans, t: float) -> None:
    r = made(compiled(radio(name)), transfers)
    before = r.joules(0, t)
    r.cut(t)
    assert r.joules(0, t)[State.ACTIVE] == pytest.approx(before[State.ACTIVE], rel=1e-9, abs=1e-9)
    assert r.joules(t, 200)[State.ACTIVE] == 0


@settings(max_examples=examples(60))
@given(st.sampled_from(NAMES), spans, st.floats(0, 120))
def test_every_piece_has_a_length_and_no_power_is_above_the_most(
    name: str, transfers: Spans, t: float
) -> None:
    r = made(compiled(radio(name)), [(b, s, 0, 0) for b, s, _, _ in transfers])
    _, watts, until = r.at(t)
    assert until > t
    assert 0 <= watts <= r.power.most_w


def test_bytes_wait_for_a_promotion_once() -> None:
    power = compiled(radio("lte_2012"))
    r = Radio(power)
    begin = r.ready(10.0)
    assert begin == 10.0 + power.promotion_s
    r.transfer(begin, begin + 0.01)
    assert r.ready(10.1) == begin, "a promotion is under way"
    assert r.ready(begin) == begin
    assert r.ready(begin + 5.0) == begin + 5.0, "the tail is as good as active"
    late = begin + 0.01 + power.tail_s
    assert r.ready(late) == late + power.promotion_s


def test_a_transfer_does_not_end_before_it_begins() -> None:
    with pytest.raises(LocalProtocolError):
        Radio(compiled(radio("lte_2012"))).transfer(2.0, 1.0)


def test_a_radio_known_by_its_states_takes_their_power_at_its_own_rates() -> None:
    profile = radio("wifi_phone_2020")
    power = compiled(profile)
    sending = made(power, [(1.0, 1.0, round(power.up_bytes_per_s), 0)]).joules(0, 10)[State.ACTIVE]
    receiving = made(power, [(1.0, 1.0, 0, round(power.down_bytes_per_s))]).joules(0, 10)[State.ACTIVE]
    assert sending == pytest.approx(0.703)
    assert receiving == pytest.approx(0.562)


def test_what_a_radio_takes_is_known_as_badly_as_the_worst_of_its_figures() -> None:
    assert compiled(radio("lte_2012")).origins[State.ACTIVE] is Origin.PUBLISHED
    assert compiled(radio("lte_2021")).origins[State.ACTIVE] is Origin.ASSUMED
