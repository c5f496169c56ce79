"""Laws of lateness: what is remembered, how it is discounted, and what the settings mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.compression import whole
from laconic.coordinator.fold import Fold
from laconic.coordinator.round_settings import RoundsSection, lateness_of, plan_of
from laconic.coordinator.rounds import EVERYBODY
from laconic.coordinator.staleness import Lateness, PastTask, discount, discounted, remember, staleness
from laconic.errors import ConfigError, RemoteProtocolError

VALUES = st.lists(st.floats(-64.0, 64.0, width=32), min_size=3, max_size=3)


@given(st.integers(0, 1000), st.floats(0.0, 10.0))
def test_a_discount_is_a_float32_from_one_down(behind: int, exponent: float) -> None:
    factor = discount(behind, exponent)
    assert factor == np.float32(factor)
    assert 0.0 < factor <= 1.0
    assert factor <= discount(max(0, behind - 1), exponent)
    assert discount(0, exponent) == 1.0


@pytest.mark.parametrize(("behind", "factor"), [(0, 1.0), (3, 0.5), (8, 1 / 3), (99, 0.1)])
def test_the_papers_discount(behind: int, factor: float) -> None:
    """FedBuff, section 5: 1 / sqrt(1 + staleness)."""
    assert discount(behind, 0.5) == pytest.approx(factor)


@given(
    st.lists(st.tuples(VALUES, st.integers(1, 2**14), st.integers(0, 50)), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_any_order_gives_the_same_bits(updates: list[tuple[list[float], int, int]], random: object) -> None:
    def folded(order: list[tuple[list[float], int, int]]) -> bytes:
        fold = Fold(3)
        for values, weight, behind in order:
            fold.add(whole(discounted(np.array(values, np.float32), discount(behind, 0.5))), weight)
        return fold.mean().tobytes()

    shuffled = list(updates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert folded(shuffled) == folded(updates)


def test_only_stale_updates_make_a_small_step() -> None:
    """FedBuff, algorithm 1: the sum of discounted updates is divided by their number, not their discounts."""
    fold = Fold(3)
    for _ in range(4):
        fold.add(whole(discounted(np.ones(3, np.float32), discount(3, 0.5))), 10)
    assert fold.mean().tolist() == [0.5, 0.5, 0.5]


@given(st.lists(st.integers(0, 2), max_size=60), st.integers(0, 20))
def test_what_is_remembered_is_what_may_still_be_folded(steps: list[int], most: int) -> None:
    """Versions rise by 0 or more from round to round."""
    lateness, tasks, made, version = Lateness(most), [], [], 0
    for number, up in enumerate(steps, 1):
        version += up
        made.append(PastTask(number, f"{number:016x}", "b", version))
        tasks = remember(tasks, made[-1], lateness)
    if not most:
        assert tasks == []
        return
    assert tasks == [t for t in made if version - t.version <= most]
    for task in made:
        if task in tasks:
            assert staleness(task, version, lateness) == version - task.version
        else:
            with pytest.raises(RemoteProtocolError):
                staleness(task, version, lateness)


def test_the_modes() -> None:
    plain, target = RoundsSection(), RoundsSection(target_reports=10, late="fold")
    assert (plan_of(plain).target_reports, lateness_of(plain).folds) == (0, False)
    assert (plan_of(target).asked(100), lateness_of(target).max_staleness) == (13, 50)
    buffered = RoundsSection(mode="buffered", buffer=7)
    assert (plan_of(buffered).target_reports, plan_of(buffered).over_selection) == (7, EVERYBODY)
    assert lateness_of(buffered) == Lateness(50, 0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "asynchronous"},
        {"mode": "buffered"},
        {"buffer": 3},
        {"mode": "buffered", "buffer": 3, "late": "refuse"},
        {"mode": "buffered", "buffer": 3, "target_reports": 3},
        {"target_reports": 3, "share": 0.5},
        {"target_reports": 3, "min_reports": 4},
        {"late": "drop"},
        {"late": "fold", "max_staleness": 0},
    ],
    ids=str,
)
def test_settings_that_contradict_one_another_are_refused(wrong: dict[str, object]) -> None:
    section = RoundsSection(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"rounds\."):
        _ = plan_of(section), lateness_of(section)
