"""The canonical order of a model's parameters: how named tensors lie in one flat float32 vector.

Weights, updates and residuals travel and are added as flat vectors. A `Schema` says which stretch of the
vector is which tensor; its `digest` is the short identity that both ends compare before they trust a frame.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.errors import ModelError

Vector: TypeAlias = NDArray[np.float32]
"""A flat float32 vector in a schema's order, shape `(schema.size,)`."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: its name in the source model and its shape (`()` is a scalar).

    A `statistic` is measured, not trained (the running mean and variance of a batch normalisation): codecs
    spare it. So is a `control` variate (SCAFFOLD), which the coordinator sums up instead of stepping along
    it. Neither is part of the tensor's identity.
    """

    name: str
    shape: tuple[int, ...]
    statistic: bool = field(default=False, compare=False)
    control: bool = field(default=False, compare=False)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Schema:
    """The tensors of a flat vector, in order."""

    tensors: tuple[TensorSpec, ...]

    @cached_property
    def size(self) -> int:
        """Number of float32 values in the flat vector."""
        return sum(t.size for t in self.tensors)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each tensor lies in the flat vector, in order."""
        out, start = [], 0
        for t in self.tensors:
            out.append(slice(start, start + t.size))
            start += t.size
        return tuple(out)

    @cached_property
    def controls(self) -> slice:
        """Where the control variates lie, all together at the end; an empty stretch without any."""
        count = sum(t.size for t in self.tensors if t.control)
        return slice(self.size - count, self.size)

    @cached_property
    def digest(self) -> bytes:
        """8 bytes that differ (almost surely) whenever names, shapes or order differ."""
        h = hashlib.sha256()
        for t in self.tensors:
            name = t.name.encode()
            h.update(len(name).to_bytes(4, "little") + name)
            h.update(len(t.shape).to_bytes(4, "little"))
            for d in t.shape:
                h.update(d.to_bytes(8, "little"))
        return h.digest()[:8]

    def flatten(self, tensors: Mapping[str, NDArray[np.float32]]) -> Vector:
        """Named tensors to a flat vector.

        Raises `ModelError` for a missing tensor or a wrong shape.
        """
        out = np.empty(self.size, np.float32)
        for spec, where in zip(self.tensors, self.slices, strict=True):
            if spec.name not in tensors:
                raise ModelError(f"tensor {spec.name!r} is missing", remedy="give every tensor of the schema")
            a = tensors[spec.name]
            if tuple(a.shape) != spec.shape:
                raise ModelError(f"shape of tensor {spec.name!r}", value=tuple(a.shape), limit=spec.shape)
            out[where] = a.ravel()
        return out

    def unflatten(self, vector: Vector) -> dict[str, NDArray[np.float32]]:
        """A flat vector to named tensors; views, not copies.

        Raises `ModelError` for a vector of another size.
        """
        if vector.shape != (self.size,):
            raise ModelError("shape of the flat vector", value=vector.shape, limit=(self.size,))
        return {t.name: vector[s].reshape(t.shape) for t, s in zip(self.tensors, self.slices, strict=True)}
