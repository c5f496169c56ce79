"""Data that change over virtual time: what devices and whoever scores models see at an hour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from laconic.device_sim.datasets.labelled import Part
from laconic.device_sim.datasets.turning import turned
from laconic.device_sim.scenario.examples import Examples
from laconic.device_sim.scenario.settings import DriftSection
from laconic.device_sim.signals import HOUR_S
from laconic.edge_sdk.data import Arrays, Signature, Snapshot
from laconic.edge_sdk.learner import Interrupted, Learner, Measured, OnnxLearner, Trained
from laconic.errors import ConfigError
from laconic.protocol.messages import Training
from laconic.runtime import Trainer
from laconic.schema import Schema, Vector

Clock = Callable[[], float]
"""The world's time, in seconds."""


class Drift:
    """How examples look at a time: as in the files before it begins, wholly changed when it is over.

    In between it goes in equal steps, the first when it begins: there everything changes, everywhere at once.
    """

    def __init__(self, s: DriftSection, examples: Examples, start_s: float) -> None:
        """`examples`: those that are to drift; hours count from `start_s`.

        Raises `ConfigError` for a drift that such examples cannot have.
        """
        self._s, self._start_s = s, start_s
        if s.kind == "turn" and examples.held_out.x.ndim != 4:
            raise ConfigError(
                "data.drift.kind", value="turn", limit="images: samples, channels, height, width"
            )
        self._classes = 0
        if s.kind == "classes":
            y = examples.labels()
            if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
                raise ConfigError("data.drift.kind", value="classes", limit="where y are classes")
            self._classes = int(y.max()) + 1
            if s.classes > self._classes:
                raise ConfigError("data.drift.classes", value=s.classes, limit=self._classes)

    def step(self, now_s: float) -> int:
        """The step that a time lies in: from 0, as in the files, to `data.drift.steps`."""
        if self._s.kind == "none":
            return 0
        since_h = (now_s - self._start_s) / HOUR_S - self._s.begin_hour
        # A step begins at its hour, though the division may round to just before it.
        passed = int(np.floor(since_h / self._s.hours * self._s.steps + 1e-9))
        return min(max(passed + 1, 0), self._s.steps)

    def samples(self, part: Part, step: int) -> int:
        """How many of the examples there are in a step."""
        return int(np.count_nonzero(part.y < self._known(step))) if self._classes else len(part.y)

    def seen(self, part: Part, step: int) -> Part:
        """The examples as they are in a step: those that do not change where they lie, others as copies."""
        s, progress = self._s, step / self._s.steps
        if self._classes:
            known = part.y < self._known(step)
            return part if known.all() else Part(part.x[known], part.y[known])
        if not step:
            return part
        if s.kind == "turn":
            return Part(turned(part.x, s.degrees * progress), part.y)
        x = part.x * np.float32(1 + s.gain * progress) + np.float32(s.offset * progress)
        return Part(x.astype(np.float32, copy=False), part.y)

    def _known(self, step: int) -> int:
        """How many classes there are in a step."""
        return self._s.classes + (self._classes - self._s.classes) * step // self._s.steps

    def learner(self, trainer: Trainer, part: Part, clock: Clock) -> Learner:
        """What learns from a device's examples. Raises `DataError` for those that do not fit the model."""
        if self._s.kind != "none":
            return DriftingLearner(trainer, part, self, clock)
        if part.divisor is None:
            return OnnxLearner(trainer, (part.x, part.y))
        signature = Signature.of(trainer.bundle.manifest)
        # Shapes that do not fit are told before the run; values are unpacked when they are learnt from.
        Arrays(signature, part.stored, part.y)
        return OnnxLearner(trainer, _Seen(part, self, 0, signature))


class Today:
    """Examples that drift, as they are at a time: one step's are kept at once."""

    def __init__(self, part: Part, drift: Drift) -> None:
        self._part, self._drift = part, drift
        self._kept = (0, drift.seen(part, 0))

    def at(self, now_s: float) -> Part:
        """What they are then."""
        step = self._drift.step(now_s)
        if self._kept[0] != step:
            self._kept = (step, self._drift.seen(self._part, step))
        return self._kept[1]


@dataclass(frozen=True)
class _Seen:
    """A source of the examples of one step: they are made where and when they are learnt from."""

    part: Part
    drift: Drift
    step: int
    signature: Signature

    @property
    def samples(self) -> int:
        return self.drift.samples(self.part, self.step)

    def snapshot(self) -> Snapshot:
        seen = self.drift.seen(self.part, self.step)
        return Arrays(self.signature, seen.x, seen.y).snapshot()


class DriftingLearner:
    """A device's learner whose examples drift: it learns from those of the moment at which a work begins."""

    def __init__(self, trainer: Trainer, part: Part, drift: Drift, clock: Clock) -> None:
        self._trainer, self._part, self._drift, self._clock = trainer, part, drift, clock

    @property
    def schema(self) -> Schema:
        return self._trainer.bundle.schema

    @property
    def bundle(self) -> str:
        return self._trainer.bundle.hash[:16]

    @property
    def initial(self) -> Vector:
        return self._trainer.bundle.initial

    @property
    def samples(self) -> int:
        return self._drift.samples(self._part, self._drift.step(self._clock()))

    def at(self, now: float) -> OnnxLearner:
        """The learner with the examples of a time."""
        signature = Signature.of(self._trainer.bundle.manifest)
        return OnnxLearner(self._trainer, _Seen(self._part, self._drift, self._drift.step(now), signature))

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained | Interrupted:
        return self.at(self._clock()).train(weights, training, seed, private, checkpoint)

    def measure(self, weights: Vector, private: bytes) -> Measured | Interrupted:
        return self.at(self._clock()).measure(weights, private)
