"""Plain FedAvg on a scenario's own examples and first weights, apart from all that simulates."""

from __future__ import annotations

import numpy as np
from reference_fedavg import Examples, Layers, fedavg

from laconic.device_sim import Scenario
from laconic.device_sim.scenario.examples import Part, examples_of
from laconic.device_sim.scenario.model import bundle_of
from laconic.device_sim.scenario.settings import counts


def reference(scenario: Scenario, seed: int) -> list[float]:
    """Accuracy after each round, for models of dense layers; `seed` is of the order of samples alone."""
    s = scenario.settings
    found = examples_of(s.data, sum(counts(s)), s.seed, scenario.folder)
    bundle = bundle_of(s.model, found, seed=s.seed, proximal=False, folder=scenario.folder)
    tensors = bundle.schema.unflatten(bundle.initial).values()
    matrices, biases = ([t for t in tensors if t.ndim == axes] for axes in (2, 1))
    layers: Layers = list(zip(matrices, biases, strict=True))
    training = s.coordinator.training
    return fedavg(
        layers,
        [_flat(part) for part in found.devices],
        _flat(found.held_out),
        rounds=s.end.rounds or s.coordinator.rounds.rounds,
        epochs=training.epochs,
        batch=training.batch_size,
        rate=training.learning_rate,
        decay=training.learning_rate_decay,
        seed=seed,
    )


def _flat(part: Part) -> Examples:
    return np.reshape(part.x, (len(part.x), -1)), part.y
