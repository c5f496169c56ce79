"""What a training run begins with, apart from data: checked, and as the graphs take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from laconic.errors import ConfigError, ModelError
from laconic.runtime.batches import Array, check_rate
from laconic.runtime.bundle import Bundle
from laconic.runtime.checkpoint import digest_of
from laconic.runtime.control import Correction
from laconic.runtime.finite import check_finite
from laconic.runtime.optimizer_state import OptimizerState
from laconic.schema import Schema, Vector


@dataclass(frozen=True, slots=True)
class Beginning:
    """Vectors and settings of one run; `parameters` are those that the graphs take, by name."""

    bundle: Bundle
    weights: Vector
    local: Vector
    optimizer: OptimizerState
    correction: Correction
    parameters: Mapping[str, Array]
    learning_rate: np.float32
    proximal_mu: np.float32
    seed: int

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        weights: Vector,
        learning_rate: float,
        seed: int,
        proximal_mu: float,
        local: Vector | None,
        control: Vector | None,
        optimizer: OptimizerState | None,
    ) -> Beginning:
        """See `Trainer.start` for the arguments, what they are by default, and what is raised."""
        mu = np.float32(check_rate("proximal mu", proximal_mu))
        if mu and not bundle.manifest.proximal:
            raise ConfigError(
                "proximal mu", value=proximal_mu, limit=0, remedy="prepare the bundle with proximal=True"
            )
        local = bundle.initial_local if local is None else local
        parameters = parameters_of(bundle, weights, local)
        rate = np.float32(check_rate("learning rate", learning_rate))
        correction = Correction.of(bundle, weights, control, rate)
        optimizer = OptimizerState.initial(bundle) if optimizer is None else optimizer
        optimizer.check(bundle)
        return cls(bundle, weights, local, optimizer, correction, parameters, rate, mu, seed)

    @property
    def constants(self) -> dict[str, Array]:
        """What the training graphs take besides data and state."""
        manifest = self.bundle.manifest
        constants: dict[str, Array] = {"lr": np.asarray(self.learning_rate), **self.correction.constants}
        if manifest.proximal:
            constants["prox_mu"] = np.asarray(self.proximal_mu)
            pulled = [p for p in manifest.weights if p.role == "trainable"]
            constants.update({f"ref/{p.name}": self.parameters[p.name] for p in pulled})
        if manifest.optimizer.seeded:
            constants["seed"] = np.asarray(self.seed % 2**63, np.int64)
        return constants

    @property
    def state(self) -> dict[str, Array]:
        """What changes from step to step, by the graphs' names."""
        state = dict(self.parameters)
        for slot, vector in self.optimizer.slots.items():
            named = self.bundle.weight_schema.unflatten(vector)
            state.update({f"opt/{slot}/{n}": a for n, a in named.items()})
        if self.bundle.manifest.optimizer.counts:
            state["step"] = np.asarray(self.optimizer.step, np.int64)
        return state

    def digest(self) -> bytes:
        """16 bytes that stand for the vectors."""
        slots = [self.optimizer.slots[name] for name in self.bundle.manifest.optimizer.slots]
        vectors = [self.weights, self.local, self.correction.own, *slots]
        return digest_of(vectors, int(self.optimizer.step))


def parameters_of(bundle: Bundle, weights: Vector, local: Vector | None) -> dict[str, Array]:
    """What the graphs take of the trained parameters, by name, as contiguous arrays; the caller's vectors are
    never written to. `local` is the bundle's own by default.

    Raises `ModelError` for a vector of another type or size, `NonFinite` for one that is not finite.
    """
    out: dict[str, Array] = {}
    pairs: tuple[tuple[str, Schema, Vector], ...] = (
        ("weights", bundle.schema, weights),
        ("local weights", bundle.local_schema, bundle.initial_local if local is None else local),
    )
    for thing, schema, vector in pairs:
        if not isinstance(vector, np.ndarray) or vector.dtype != np.float32:
            found = vector.dtype if isinstance(vector, np.ndarray) else type(vector).__name__
            raise ModelError(f"dtype of the {thing}", value=str(found), limit="float32 array")
        named = schema.unflatten(vector)
        check_finite(thing, vector, "ask for the model again")
        steered = {t.name for t in schema.tensors if not t.control}
        out.update({n: np.ascontiguousarray(a) for n, a in named.items() if n in steered})
    return out
