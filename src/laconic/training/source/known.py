"""What is known of the tensors of a graph that is being read: types, constants, elements as sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from laconic.errors import ModelError
from laconic.training.builder import Shape, TensorType
from laconic.training.source.shape_values import Values
from laconic.training.source.sizes import Axes, Size

_SIZED_ELEMENTS = 4096
"""The most elements of a constant that are taken for sizes: shapes are short."""


class Known:
    """Types and constants by name; what is computed from shapes alone, as sizes."""

    def __init__(self) -> None:
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, NDArray[Any]] = {}
        self.axes = Axes()
        self._values: dict[str, Values] = {}

    def enter(self, name: str, array: NDArray[Any]) -> None:
        """Make a constant known."""
        self.constants[name] = array
        self.types[name] = TensorType(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

    def enter_values(self, name: str, values: Values) -> None:
        """Make the elements of a tensor known as sizes."""
        self._values[name] = values

    def shape(self, name: str) -> Shape:
        """A tensor's shape; raises `ModelError` where it is unknown."""
        known = self.types.get(name)
        if known is None or known.shape is None:
            raise ModelError(f"shape of {name!r} cannot be inferred", remedy="export with fixed sample axes")
        return known.shape

    def rank(self, name: str) -> int | None:
        """The number of axes, if known."""
        known = self.types.get(name)
        return None if known is None or known.shape is None else len(known.shape)

    def sizes(self, name: str) -> list[Size] | None:
        """A tensor's shape as sizes."""
        known = self.types.get(name)
        return None if known is None or known.shape is None else [self.axes.size(d) for d in known.shape]

    def values(self, name: str, real: bool = False) -> Values | None:
        """A tensor's elements as sizes, if all are known as such; of real numbers only with `real`."""
        if name in self._values:
            return self._values[name] if real or self.types[name].dtype != TensorProto.FLOAT else None
        array = self.constants.get(name)
        if array is None or array.dtype.kind not in "iubf" or array.size > _SIZED_ELEMENTS:
            return None
        if array.dtype.kind == "b":
            return array.astype(object)
        if array.dtype.kind == "f" and not (
            real and array.size < 16 and np.isfinite(array).all() and np.array_equal(array, np.rint(array))
        ):
            return None
        sized = np.empty(array.shape, object)
        for i, v in np.ndenumerate(array):
            sized[i] = Size.of(int(v))
        return sized
