"""SCAFFOLD on a device: what corrects each gradient, and the device's own control variate after a run.

Karimireddy, Kale, Mohri, Reddi, Stich and Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated
Learning" (ICML 2020), algorithm 1 with option II. c is the fleet's control variate, which travels with the
weights; c_i is the device's own, the mean gradient of its last run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from laconic.errors import ConfigError, ModelError
from laconic.runtime.batches import Array
from laconic.runtime.bundle import Bundle
from laconic.schema import Schema, Vector


@dataclass(frozen=True, slots=True)
class Correction:
    """One run's: arrays are float32 and by the weight's name, `own` is c_i in `schema`'s order.

    `start` holds the weights that the run begins with, `shared` c, `corrections` c - c_i.
    """

    schema: Schema
    start: Mapping[str, Array]
    shared: Mapping[str, Array]
    corrections: Mapping[str, Array]
    own: Vector
    rate: np.float32

    @classmethod
    def of(cls, bundle: Bundle, weights: Vector, own: Vector | None, rate: np.float32) -> Correction:
        """That of a run from `weights`, in `bundle.schema`; `own` is zeros by default.

        Raises `ConfigError` for a variate of its own where the bundle has none, `ModelError` for one of
        another size or type.
        """
        schema = bundle.control_schema
        if own is None and not schema.size:
            return cls(schema, {}, {}, {}, np.empty(0, np.float32), rate)
        if own is None:
            own = np.zeros(schema.size, np.float32)
        elif not schema.size:
            raise ConfigError("control variate", limit="none", remedy="prepare the bundle with scaffold=True")
        if own.dtype != np.float32 or not np.isfinite(own).all():
            raise ModelError("control variate", value=str(own.dtype), limit="finite numbers of float32")
        named, mine = bundle.schema.unflatten(weights), schema.unflatten(own)
        names = [p.name for p in bundle.manifest.controlled]
        shared = {n: named[f"control/{n}"] for n in names}
        corrections = {n: np.asarray(shared[n] - mine[f"control/{n}"], np.float32) for n in names}
        return cls(schema, {n: named[n] for n in names}, shared, corrections, own, rate)

    @property
    def constants(self) -> dict[str, Array]:
        """What the training graphs take."""
        return {f"correction/{n}": a for n, a in self.corrections.items()}

    def after(self, state: Mapping[str, Array], steps: int) -> Vector:
        """c_i after `steps` steps that led to the weights in `state`: c_i - c + (x - y) / (steps rate).

        As it was after none, or with a rate of zero. In float64, rounded once.
        """
        if not steps or not self.rate:
            return self.own
        travelled = float(steps) * float(self.rate)
        return self.schema.flatten(
            {
                f"control/{n}": np.asarray(
                    (self.start[n].astype(np.float64) - state[n]) / travelled - correction, np.float32
                )
                for n, correction in self.corrections.items()
            }
        )

    def travelling(self, own: Vector) -> dict[str, Array]:
        """The control variates as a run's result has them: less those of its start, the change of c_i."""
        change = self.schema.unflatten(own - self.own)
        return {f"control/{n}": shared + change[f"control/{n}"] for n, shared in self.shared.items()}
