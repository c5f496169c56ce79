"""How a run is cut into stretches of about a given time, which changes nothing of what is computed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unlike import X, Y, unlike

from laconic.errors import ConfigError
from laconic.runtime import Bundle, Trainer
from laconic.runtime.buffers import Form
from laconic.runtime.pace import CHUNK_STEPS, Pace
from often import examples

SETTINGS: dict[str, Any] = {"learning_rate": 0.01, "seed": 0}
FORMS: tuple[Form, ...] = ("epoch", "step")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return unlike(optimizer="adam")


@given(
    stretch_s=st.floats(0, 10),
    step_s=st.lists(st.floats(1e-7, 100), min_size=1, max_size=30),
)
@settings(max_examples=examples(100))
def test_a_stretch_fits_at_the_last_ones_speed_and_at_most_doubles(
    stretch_s: float, step_s: list[float]
) -> None:
    pace, before = Pace(stretch_s, 8), 1
    assert pace.steps == 1
    for seconds in step_s:
        pace.took(pace.steps, 8, pace.steps * seconds)
        assert 1 <= pace.steps <= min(2 * before, CHUNK_STEPS)
        assert pace.steps == 1 or pace.steps * seconds <= stretch_s * (1 + 1e-9)
        before = pace.steps


def test_a_steady_speed_is_found_and_kept() -> None:
    pace = Pace(0.1, 8)
    found = []
    for _ in range(8):
        found.append(pace.steps)
        pace.took(pace.steps, 8, pace.steps * 0.004)
    assert found == [1, 2, 4, 8, 16, 25, 25, 25]
    # One that was kept waiting, and the small batch at the end of an epoch, which tells nothing.
    pace.took(25, 8, 10.0)
    assert pace.steps == 1
    pace.took(1, 3, 1e-6)
    assert pace.steps == 1


@pytest.mark.parametrize(("batch_size", "due"), [(8, 16), (4, 16), (16, 8), (1000, 1)])
def test_a_run_begins_at_the_pace_of_the_one_before(batch_size: int, due: int) -> None:
    earlier = Pace(1e9, 8)
    earlier.steps = 16
    assert Pace(1e9, batch_size, earlier=earlier).steps == due


@pytest.mark.parametrize("form", FORMS)
def test_a_trainer_cuts_as_its_stretch_says(bundle: Bundle, form: Form) -> None:
    def cuts(trainer: Trainer) -> list[int]:
        run = trainer.start(bundle.initial, X, Y, epochs=2, batch_size=2, **SETTINGS)
        return [len(progress.losses) for progress in run]

    ample = Trainer(bundle, form=form, stretch_s=1e9)
    assert [cuts(ample), cuts(ample)] == [[1, 2, 4, 8, 15], [15, 15]]
    assert cuts(Trainer(bundle, form=form, stretch_s=0)) == [1] * 30
    with pytest.raises(ConfigError, match="stretch in seconds"):
        Trainer(bundle, stretch_s=-1)


@given(
    form=st.sampled_from(FORMS),
    batch_size=st.integers(1, 31),
    chunk_bytes=st.sampled_from([1, 2000, 2**18]),
    stretch_s=st.sampled_from([0.0, 1e-4, 1e9]),
)
@settings(max_examples=examples(60), deadline=None)
def test_cuts_do_not_change_a_bit(
    bundle: Bundle, form: Form, batch_size: int, chunk_bytes: int, stretch_s: float
) -> None:
    wanted = SETTINGS | {"batch_size": batch_size}
    due = Trainer(bundle, form=form, stretch_s=1e9).train(bundle.initial, X, Y, epochs=2, **wanted)
    trainer = Trainer(bundle, form=form, chunk_bytes=chunk_bytes, stretch_s=stretch_s)
    cut = trainer.train(bundle.initial, X, Y, epochs=2, **wanted)
    assert cut.weights.tobytes() == due.weights.tobytes()
    assert cut.losses.tobytes() == due.losses.tobytes()


@given(
    form=st.sampled_from(FORMS),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    batch_size=st.integers(1, 9),
    offset=st.integers(0, 3),
)
@settings(max_examples=examples(40), deadline=None)
def test_groups_of_a_stream_do_not_change_a_bit(
    bundle: Bundle, form: Form, sizes: list[int], batch_size: int, offset: int
) -> None:
    """Wherever in memory they lie."""
    count = min(30, sum(sizes))
    trainer = Trainer(bundle, form=form)
    # A memory of its own for each group, at an address that is no multiple of a vector's.
    groups, start = [], 0
    for size in sizes:
        part = X[start : start + size]
        raw = np.empty(part.size + 4, np.float32)[offset : offset + part.size].reshape(part.shape)
        raw[...] = part
        groups.append((raw, Y[start : start + size]))
        start += size
    found = []
    for stream in ([(X[:count], Y[:count])], groups):
        run = trainer.start_stream(bundle.initial, stream, batch_size=batch_size, **SETTINGS)
        for _ in run:
            pass
        found.append(run.result().weights.tobytes())
    assert found[0] == found[1]


def test_an_evaluation_can_be_stopped(bundle: Bundle) -> None:
    trainer = Trainer(bundle)
    asked: list[int] = []

    def after_two() -> bool:
        asked.append(1)
        return len(asked) == 2

    stopped = trainer.evaluate(bundle.initial, X, Y, batch_size=8, should_stop=after_two)
    assert stopped == trainer.evaluate(bundle.initial, X[:16], Y[:16], batch_size=8)
    # At the end there is nothing left to stop.
    whole = trainer.evaluate(bundle.initial, X[:8], Y[:8], batch_size=8, should_stop=lambda: True)
    assert whole.samples == 8


@pytest.mark.parametrize("threads", [1, 3])
def test_an_evaluation_in_parts_is_the_same_to_the_last_bit(bundle: Bundle, threads: int) -> None:
    trainer = Trainer(bundle)
    with ThreadPoolExecutor(threads) as pool:
        parts = trainer.evaluate(bundle.initial, X, Y, batch_size=3, executor=pool)
        assert parts == trainer.evaluate(bundle.initial, X, Y, batch_size=3)
        stopped = trainer.evaluate(
            bundle.initial, X, Y, batch_size=8, executor=pool, should_stop=lambda: True
        )
    assert stopped == trainer.evaluate(bundle.initial, X[:8], Y[:8], batch_size=8)
