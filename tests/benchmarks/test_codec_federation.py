"""Laws of the benchmark's federation: what an echo adds, a device has taken off, whoever is silent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from often import examples

pytest.importorskip("sklearn", reason="the benchmark's data sets come with scikit-learn")

from _codec.data import DataSet, Part
from _codec.federation import Federation, Sent, State, run
from _codec.tasks import Task

from laconic.compression import GateSettings
from laconic.compression.echo import MOST_MEMORY, SILENT, EchoSettings
from laconic.schema import Schema, TensorSpec, Vector

SIZE, DEVICES = 20, 5
SCHEMA = Schema((TensorSpec("w", (SIZE,)),))
ECHOES = st.builds(EchoSettings, gain=st.floats(0, 0.5), memory=st.floats(0, MOST_MEMORY))


@dataclass
class Drawn:
    """Training whose outcome does not depend on the model; in round `last` all have much to say."""

    last: int
    schema: Schema = SCHEMA
    changes: list[tuple[int, Vector]] = field(default_factory=list)
    weights: Vector = field(default_factory=lambda: np.zeros(SIZE, np.float32))

    @property
    def data(self) -> DataSet:
        part = Part(np.zeros((DEVICES, 1), np.float32), np.arange(DEVICES, dtype=np.int64))
        return DataSet(part, part, DEVICES)

    def initial(self, seed: int, drawn: str) -> Vector:
        return np.zeros(SIZE, np.float32)

    def learn(
        self, weights: Vector, part: Part, rate: float, rng: np.random.Generator
    ) -> tuple[Vector, float]:
        scale = 100.0 if rate == self.last else 1.0
        change = (scale * rng.normal(size=SIZE)).astype(np.float32)
        self.changes.append((len(part), change))
        return change, 1.0

    def accuracy(self, weights: Vector) -> float:
        self.weights = weights
        return 0.0


def exactly(target: Vector, schema: Schema, number: int, state: State, rng: np.random.Generator) -> Sent:
    return Sent(target.nbytes, target)


def coarsely(last: int, target: Vector, number: int) -> Sent:
    """Half of the values, until in round `last` all that is owed is said."""
    return Sent(target.nbytes, target if number == last else np.where(np.arange(SIZE) % 2, target, 0))


def end(echo: EchoSettings, *, seed: int, rounds: int, threshold: float) -> Drawn:
    """A run in whose last round everybody says all."""
    task = Drawn(last=rounds)
    sizes = np.random.default_rng(seed).integers(1, 60, DEVICES)
    shards = [Part(np.zeros((n, 1), np.float32), np.zeros(n, np.int64)) for n in sizes]
    federation = Federation(
        devices=DEVICES,
        rate=lambda number: number,
        residual_ratio=1e9,
        gate=GateSettings("absolute", threshold, force_after_rounds=1000),
        echo=echo,
        shards=lambda number: shards,
    )
    run(
        cast(Task, task),
        skew=0.0,
        seed=seed,
        rounds=rounds,
        up=lambda target, schema, number, state, rng: coarsely(rounds, target, number),
        down=exactly,
        federation=federation,
    )
    return task


@settings(max_examples=examples(60), deadline=None)
@given(echo=ECHOES, seed=st.integers(0, 1000), rounds=st.integers(1, 12), threshold=st.floats(0, 15))
def test_frames_with_their_echoes_are_the_changes(
    echo: EchoSettings, seed: int, rounds: int, threshold: float
) -> None:
    task = end(echo, seed=seed, rounds=rounds, threshold=threshold)
    weight = sum(w for w, _ in task.changes) / rounds
    learnt = np.sum([w * c.astype(np.float64) for w, c in task.changes], axis=0) / weight
    assert np.abs(task.weights - learnt).max() < 0.005


@settings(max_examples=examples(30), deadline=None)
@given(echo=ECHOES, seed=st.integers(0, 1000), rounds=st.integers(2, 12))
def test_with_everybody_speaking_in_full_an_echo_changes_nothing(
    echo: EchoSettings, seed: int, rounds: int
) -> None:
    plain, echoed = Drawn(last=0), Drawn(last=0)
    for task, how in ((plain, SILENT), (echoed, echo)):
        run(
            cast(Task, task),
            skew=0.0,
            seed=seed,
            rounds=rounds,
            up=exactly,
            down=exactly,
            federation=Federation(devices=DEVICES, residual_ratio=1e9, echo=how),
        )
    np.testing.assert_allclose(echoed.weights, plain.weights, atol=1e-4)


def test_an_echo_sounds_on_for_a_device_that_is_away() -> None:
    """It speaks in round 1 and is gone."""
    task = Drawn(last=0)
    one = Part(np.zeros((1, 1), np.float32), np.zeros(1, np.int64))
    said: list[Vector] = []
    run(
        cast(Task, task),
        skew=0.0,
        seed=0,
        rounds=3,
        up=exactly,
        down=exactly,
        federation=Federation(
            devices=1,
            gate=GateSettings(),
            echo=EchoSettings(0.5, 0.25),
            shards=lambda number: [one],
            present=lambda number, i: number == 1,
        ),
        observe=lambda seen: said.append(seen.change) if seen.direction == "down" else None,
    )
    first = task.changes[0][1]
    np.testing.assert_allclose(said, [first, 0.5 * first, 0.125 * first], rtol=1e-5)
