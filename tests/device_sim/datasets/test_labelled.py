"""Examples that are stored in few bytes: what is learnt from is the same as if they had been unpacked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim.datasets.labelled import Labelled, Part
from laconic.device_sim.scenario.drift import Drift
from laconic.device_sim.scenario.examples import Examples
from laconic.device_sim.scenario.model import bundle_of
from laconic.device_sim.scenario.settings import DriftSection, ModelSection
from laconic.edge_sdk.learner import Learner
from laconic.errors import DataError
from laconic.protocol.messages import Training
from laconic.runtime import Trainer
from often import examples

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (30, 1, 4, 5)).astype(np.uint8)
LABELS = np.arange(30) % 3


@settings(max_examples=examples(50), deadline=None)
@given(st.integers(0, 3000), st.integers(1, 300), st.floats(0.1, 1000), st.randoms(use_true_random=False))
def test_a_part_is_divided_value_by_value(samples: int, width: int, divisor: float, chance) -> None:  # type: ignore[no-untyped-def]
    stored = np.random.default_rng(chance.getrandbits(32)).integers(0, 256, (samples, width)).astype(np.uint8)
    part = Part(stored, np.zeros(samples, np.int64), divisor)
    whole = stored.astype(np.float32) / np.float32(divisor)
    assert part.x.dtype == np.float32
    np.testing.assert_array_equal(part.x, whole)
    some = chance.sample(range(samples), samples // 2)
    np.testing.assert_array_equal(part.at(some).x, whole[some])
    np.testing.assert_array_equal(part.plain().stored, whole)


def test_nothing_is_unpacked_before_it_is_learnt_from() -> None:
    kept = Labelled(BYTES, LABELS, divisor=255.0).gathered(np.arange(20))
    assert kept.stored.dtype == np.uint8
    assert Labelled(BYTES, LABELS, divisor=255.0).whole().stored.dtype == np.float32


def learner(part: Part, model: Part) -> Learner:
    given = Examples([model], model)
    bundle = bundle_of(ModelSection(built_in="softmax"), given, seed=0, proximal=False, folder=Path())
    return Drift(DriftSection(), given, 0.0).learner(Trainer(bundle), part, lambda: 0.0)


def test_a_device_learns_the_same_from_stored_examples_bit_for_bit() -> None:
    stored = Part(BYTES, LABELS, 255.0)
    found = []
    for part in (stored, stored.plain()):
        one = learner(part, stored.plain())
        trained = one.train(one.initial, Training(epochs=2, batch_size=4, learning_rate=0.1), 7, b"")
        assert one.samples == 30
        found.append(trained.weights.tobytes())  # type: ignore[union-attr]
    assert found[0] == found[1]


def test_stored_examples_of_another_shape_are_refused_at_once() -> None:
    with pytest.raises(DataError, match="shape"):
        learner(Part(BYTES[:, :, :3], LABELS, 255.0), Part(BYTES, LABELS, 255.0).plain())
