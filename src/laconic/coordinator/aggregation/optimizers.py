"""Server optimizers: the round's mean update as a negative gradient, with a memory of earlier ones.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar and McMahan, "Adaptive Federated Optimization" (ICLR
2021), algorithm 2, without bias correction, as there: FedAdagrad, FedAdam, FedYogi. FedAvgM: Hsu, Qi and
Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification" (arXiv
1909.06335), section 4.3. All is float32, value by value: the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

import msgspec
import numpy as np

from laconic.errors import ConfigError, NonFinite, StorageError
from laconic.schema import Vector

OptimizerName: TypeAlias = Literal["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"]
OPTIMIZERS: Final[tuple[OptimizerName, ...]] = get_args(OptimizerName)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The coordinator's step.

    * `momentum`: of "fedavgm": m = momentum m + mean.
    * `beta1`, `beta2`: of the adaptive ones: how much of the old m and v stays; "fedadagrad" has no `beta2`.
    * `tau`: of the adaptive ones: what is added to the root of v, which begins at its square.

    Raises `ConfigError` for values out of range.
    """

    optimizer: OptimizerName = "fedavg"
    learning_rate: float = 1.0
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError("server.optimizer", value=self.optimizer, limit=", ".join(OPTIMIZERS))
        for name, most in (("momentum", 0.9999), ("beta1", 0.9999), ("beta2", 0.999999)):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"server.{name}", value=getattr(self, name), limit=f"0.0 to {most}")
        for name, least, most in (("learning_rate", 1e-6, 1e3), ("tau", 1e-12, 1e3)):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"server.{name}", value=getattr(self, name), limit=f"{least} to {most}")


@dataclass(frozen=True, slots=True)
class Moments:
    """What an optimizer remembers: vectors of the model's size by name ("m", "v"); none for FedAvg."""

    vectors: Mapping[str, Vector]


NO_MOMENTS: Final = Moments(MappingProxyType({}))


def step(settings: ServerSettings, moments: Moments, mean: Vector) -> tuple[Moments, Vector]:
    """What is added to the weights, float32, and the memory afterwards. Empty moments begin anew.

    Raises `NonFinite` when the memory or the step overflows.
    """
    rate = np.float32(settings.learning_rate)
    match settings.optimizer:
        case "fedavg":
            return NO_MOMENTS, mean * rate
        case "fedavgm":
            m = np.float32(settings.momentum) * _or(moments, "m", mean, 0.0) + mean
            vectors, moved = {"m": m}, rate * m
        case _:
            beta1, tau = np.float32(settings.beta1), np.float32(settings.tau)
            m = beta1 * _or(moments, "m", mean, 0.0) + (np.float32(1) - beta1) * mean
            square = mean * mean
            start = settings.tau * settings.tau
            v = _SECOND[settings.optimizer](
                _or(moments, "v", mean, start), square, np.float32(settings.beta2)
            )
            vectors, moved = {"m": m, "v": v}, rate * m / (np.sqrt(v) + tau)
    if not all(np.isfinite(a).all() for a in (*vectors.values(), moved)):
        raise NonFinite("the server optimizer's step", remedy="lower server.learning_rate")
    return Moments(vectors), moved


def _or(moments: Moments, name: str, like: Vector, start: float) -> Vector:
    found = moments.vectors.get(name)
    return np.full(like.shape, start, np.float32) if found is None else found


_One: TypeAlias = np.float32


def _adagrad(v: Vector, square: Vector, beta2: _One) -> Vector:
    return v + square


def _adam(v: Vector, square: Vector, beta2: _One) -> Vector:
    return beta2 * v + (np.float32(1) - beta2) * square


def _yogi(v: Vector, square: Vector, beta2: _One) -> Vector:
    sign: Vector = np.sign(v - square)
    return v - (np.float32(1) - beta2) * square * sign


_SECOND: Final[Mapping[str, Callable[[Vector, Vector, _One], Vector]]] = MappingProxyType(
    {"fedadagrad": _adagrad, "fedadam": _adam, "fedyogi": _yogi}
)


class SavedMoments(msgspec.Struct, frozen=True):
    """The memory on disk. It belongs to one version: after a rollback it belongs to none, and begins anew."""

    optimizer: str
    version: str
    """Short hash of the model version that the next step starts from."""
    vectors: dict[str, bytes] = {}
    """float32, little-endian."""


def save(settings: ServerSettings, moments: Moments, version: str) -> bytes:
    """The record of `SavedMoments`."""
    vectors = {name: v.astype("<f4").tobytes() for name, v in moments.vectors.items()}
    return msgspec.msgpack.encode(SavedMoments(settings.optimizer, version, vectors))


def restore(blob: bytes | None, settings: ServerSettings, version: str, size: int) -> Moments:
    """The moments that were saved for `version` by the same optimizer; else none.

    Raises `StorageError` for a record that is not what `save` writes.
    """
    if blob is None:
        return NO_MOMENTS
    remedy = "restore the store from a copy"
    try:
        saved = msgspec.msgpack.decode(blob, type=SavedMoments)
    except msgspec.DecodeError as e:
        raise StorageError(f"record server-optimizer ({e})", remedy=remedy) from e
    if (saved.optimizer, saved.version) != (settings.optimizer, version):
        return NO_MOMENTS
    vectors = {}
    for name, raw in saved.vectors.items():
        if len(raw) != 4 * size:
            what = f"vector {name} of server-optimizer, in bytes"
            raise StorageError(what, value=len(raw), limit=4 * size, remedy=remedy)
        vectors[name] = np.frombuffer(raw, "<f4").astype(np.float32)
        if not np.isfinite(vectors[name]).all():
            raise StorageError(f"vector {name} of server-optimizer is not finite", remedy=remedy)
    return Moments(vectors)
