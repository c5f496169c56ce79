"""Grows an ONNX graph: names, constants and types while nodes are appended.

Rules, losses and optimizers only ever append; what turns out to be unused is dropped when the graph is
assembled (`laconic.training.assemble`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from laconic.errors import ModelError

Dim: TypeAlias = int | str
"""A known size, or the name of one that is known only at run time."""

Shape: TypeAlias = tuple[Dim, ...]

BATCH = "batch"
"""The name of the batch axis in every graph."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type (an `onnx.TensorProto` code) and shape; None for a shape nobody could infer."""

    dtype: int
    shape: Shape | None


class GraphBuilder:
    """Nodes in topological order, with the constants they use and the types of what they make.

    `types` and `constants` describe what `nodes` start from; both are copied.
    """

    def __init__(
        self,
        nodes: Iterable[NodeProto] = (),
        types: Mapping[str, TensorType] | None = None,
        constants: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self.nodes: list[NodeProto] = list(nodes)
        self.types: dict[str, TensorType] = dict(types or {})
        self.constants: dict[str, NDArray[Any]] = dict(constants or {})
        self._taken = {n for node in self.nodes for n in (*node.input, *node.output)}
        self._taken.update(self.types, self.constants)
        self._producers = {o: node for node in self.nodes for o in node.output}
        self._interned: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._counter = 0

    def fresh(self, hint: str) -> str:
        """A tensor name that nothing bears yet."""
        while True:
            self._counter += 1
            name = f"{hint}_{self._counter}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def declare(self, name: str, dtype: int, shape: Shape) -> str:
        """Make a graph input known; returns `name`."""
        self._taken.add(name)
        self.types[name] = TensorType(dtype, shape)
        return name

    def op(self, op_type: str, *inputs: str, shape: Shape | None = None, **attributes: Any) -> str:
        """Append a node with one output and return the output's name; `shape` if a later rule will ask."""
        output = self.fresh(op_type)
        node = helper.make_node(op_type, inputs, [output], **attributes)
        self.nodes.append(node)
        self._producers[output] = node
        if shape is not None:
            self.types[output] = TensorType(TensorProto.FLOAT, shape)
        return output

    def constant(self, array: NDArray[Any]) -> str:
        """The name of a constant; equal constants share one name."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._interned:
            name = self.fresh("constant")
            self._interned[key] = name
            self.constants[name] = array
            self.types[name] = TensorType(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        return self._interned[key]

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(np.array(value, np.float32))

    def producer(self, name: str) -> NodeProto | None:
        """The node that makes `name`; None for inputs and constants."""
        return self._producers.get(name)

    def shape(self, name: str) -> Shape:
        """The shape of a tensor of the model, sizes known at run time by name.

        Raises `ModelError` when shape inference did not find it.
        """
        found = self.types.get(name)
        if found is None or found.shape is None:
            raise ModelError(
                f"shape of tensor {name!r} cannot be inferred", remedy="export with static shapes"
            )
        return found.shape

    def static(self, name: str, start: int = 0) -> tuple[int, ...]:
        """The shape of a tensor from axis `start` on, when known in full.

        Raises `ModelError` otherwise.
        """
        shape = self.shape(name)[start:]
        known = tuple(d for d in shape if isinstance(d, int))
        if len(known) != len(shape):
            raise ModelError(
                f"shape of tensor {name!r}",
                value=self.shape(name),
                limit=f"sizes known from axis {start} on",
                remedy="give `input_shapes`, or export with only the batch axis dynamic",
            )
        return known

    def reshape(self, x: str, *dims: int, shape: Shape | None = None) -> str:
        """Reshape to constant dims; 0 copies an axis, -1 takes what is left."""
        return self.op("Reshape", x, self.ints(*dims), shape=shape)

    def reshape_like(self, x: str, like: str) -> str:
        """Reshape `x` to the shape of `like`, a tensor of the model."""
        shape = self.shape(like)
        unknown = [d for d in shape if not isinstance(d, int)]
        if len(unknown) > 1:
            return self.op("Reshape", x, self.op("Shape", like))
        return self.reshape(x, *(d if isinstance(d, int) else -1 for d in shape))

    def sum_to(self, x: str, shape: Shape, like: str) -> str:
        """Undo broadcasting: sum `x`, of `shape`, down to the shape of `like`.

        Raises `ModelError` when two run-time sizes meet that cannot be told apart.
        """
        target = self.shape(like)
        if target == shape:
            return x
        missing = len(shape) - len(target)
        axes = list(range(missing))
        for axis, (wide, narrow) in enumerate(zip(shape[missing:], target, strict=True), start=missing):
            if wide == narrow:
                continue
            if narrow != 1:
                raise ModelError(
                    f"broadcast of tensor {like!r}",
                    value=f"{target} to {shape}",
                    remedy="export the model with only the batch axis dynamic",
                )
            axes.append(axis)
        if axes == list(range(missing)):
            return self.op("ReduceSum", x, self.ints(*axes), keepdims=0)
        if missing == 0:
            return self.op("ReduceSum", x, self.ints(*axes), keepdims=1)
        return self.reshape_like(self.op("ReduceSum", x, self.ints(*axes), keepdims=0), like)
