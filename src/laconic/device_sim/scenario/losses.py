"""Losses of training: each step's of each device, and each version's on all devices' examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from laconic.device_sim.scenario.examples import Part
from laconic.device_sim.scenario.results import LossRow, finite
from laconic.device_sim.scenario.scores import BATCH, loss_rows, pooled
from laconic.edge_sdk.learner import Interrupted, Learner, Measured, Trained
from laconic.edge_sdk.work import seed_of
from laconic.protocol.messages import Training
from laconic.runtime import Trainer
from laconic.schema import Schema, Vector

FEDERATION: Final = "federation"


class Losses:
    """Keeps what learners lose until their devices say that they have trained: what a crash ended is not
    counted."""

    def __init__(self, trainer: Trainer, parts: Sequence[Part], seen: Callable[[Part], Part]) -> None:
        """`seen`: what examples look like now."""
        self._trainer, self._all, self._seen = trainer, pooled(parts), seen
        self._trained: dict[str, dict[int, NDArray[np.float32]]] = {}
        self.rows: list[LossRow] = []

    def learner(self, device: str, learner: Learner) -> Learner:
        """A device's learner, whose losses are kept."""
        return _Watched(learner, self._trained.setdefault(device, {}))

    def trained(self, device: str, number: int, task: str) -> None:
        """A device has trained in a round, for a task."""
        found = self._trained[device].pop(seed_of(device, task), None)
        if found is not None:
            self.rows += loss_rows("device", number, device, found)
        self._trained[device].clear()

    def version(self, number: int, weights: Vector) -> None:
        """A round has made a version."""
        now = self._seen(self._all)
        found = self._trainer.evaluate(weights, now.x, now.y, batch_size=BATCH)
        self.rows.append(LossRow(FEDERATION, number, "", 0, finite(found.loss)))


class _Watched:
    def __init__(self, learner: Learner, kept: dict[int, NDArray[np.float32]]) -> None:
        self._learner, self._kept = learner, kept

    @property
    def schema(self) -> Schema:
        return self._learner.schema

    @property
    def bundle(self) -> str:
        return self._learner.bundle

    @property
    def initial(self) -> Vector:
        return self._learner.initial

    @property
    def samples(self) -> int:
        return self._learner.samples

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained | Interrupted:
        trained = self._learner.train(weights, training, seed, private, checkpoint)
        if isinstance(trained, Trained):
            # By seed: one that crashed may still be computing while the device trains for another task.
            self._kept[seed] = trained.losses
        return trained

    def measure(self, weights: Vector, private: bytes) -> Measured | Interrupted:
        return self._learner.measure(weights, private)
