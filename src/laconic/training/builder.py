"""Grows an ONNX graph: names, constants and types while nodes are appended.

Rules, losses and optimizers only ever append; what turns out to be unused is dropped when the graph is
assembled (`laconic.training.assemble`).
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

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


def value_info(name: str, dtype: int, shape: Shape | None) -> ValueInfoProto:
    """The declaration of one input or output."""
    info: ValueInfoProto = helper.make_tensor_value_info(name, dtype, shape)
    return info


class GraphBuilder:
    """Nodes in topological order, with the constants they use and the types of what they make.

    `types` and `constants` describe what `nodes` start from; both are copied. `real` is the element type of
    all real numbers in the graph: FLOAT for a device, DOUBLE where a gradient is checked.
    """

    def __init__(
        self,
        nodes: Iterable[NodeProto] = (),
        types: Mapping[str, TensorType] | None = None,
        constants: Mapping[str, NDArray[Any]] | None = None,
        *,
        real: int = TensorProto.FLOAT,
    ) -> None:
        self.real = real
        self.nodes: list[NodeProto] = list(nodes)
        self.types: MutableMapping[str, TensorType] = dict(types or {})
        self.constants: dict[str, NDArray[Any]] = dict(constants or {})
        self._taken = {n for node in self.nodes for n in (*node.input, *node.output)}
        self._taken.update(self.types, self.constants)
        self._producers = {o: node for node in self.nodes for o in node.output}
        self._interned: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._parent: GraphBuilder | None = None
        self._counter = 0

    def fresh(self, hint: str) -> str:
        """A tensor name that nothing bears yet, here or in a graph around or within this one."""
        if self._parent is not None:
            return self._parent.fresh(hint)
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

    def append(self, node: NodeProto) -> None:
        """Append a node whose outputs have names already."""
        self.nodes.append(node)
        self._taken.update(node.output)
        for output in node.output:
            self._producers[output] = node

    def op(self, op_type: str, *inputs: str, shape: Shape | None = None, **attributes: Any) -> str:
        """Append a node with one output and return the output's name; `shape` if a later rule will ask."""
        return self.ops(op_type, *inputs, outputs=1, shape=shape, **attributes)[0]

    def ops(
        self, op_type: str, *inputs: str, outputs: int, shape: Shape | None = None, **attributes: Any
    ) -> list[str]:
        """As `op`, for a node with several outputs; `shape`, if given, is that of each."""
        made = [self.fresh(op_type) for _ in range(outputs)]
        self.append(helper.make_node(op_type, inputs, made, **attributes))
        if shape is not None:
            self.types.update({name: TensorType(self.real, shape) for name in made})
        return made

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Cut `x` along `axis` into pieces of these sizes."""
        if len(sizes) == 1:
            return [x]
        return self.ops("Split", x, self.ints(*sizes), outputs=len(sizes), axis=axis)

    def constant(self, array: NDArray[Any]) -> str:
        """The name of a constant; equal constants share one name."""
        if self._parent is not None:
            return self._parent.constant(array)
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

    def floats(self, values: NDArray[Any] | Sequence[float] | float) -> str:
        """A constant of real numbers, in the graph's precision."""
        return self.constant(np.array(values, helper.tensor_dtype_to_np_dtype(self.real)))

    def scalar(self, value: float) -> str:
        """A real number without axes."""
        return self.floats(value)

    def to_real(self, x: str) -> str:
        """`x`, truth values or integers, as real numbers."""
        return self.op("Cast", x, to=self.real)

    def value(self, name: str) -> NDArray[Any] | None:
        """The value of a constant; None for what is known only at run time."""
        return self.constants.get(name)

    def scan(
        self,
        body: Callable[[GraphBuilder, Sequence[str], Sequence[str]], tuple[Sequence[str], Sequence[str]]],
        states: Sequence[str],
        sequences: Sequence[str],
        *,
        reverse: bool = False,
    ) -> tuple[list[str], list[str]]:
        """A loop over axis 0 of `sequences`: the states after the last turn, and each turn's results stacked.

        `body(inner, states, items)` appends one turn to `inner` and returns its next states and its results;
        it may use any tensor of this graph. With `reverse` the loop runs from the last item to the first, and
        results are stacked so that each stands where its item stood.
        """
        inner = self._within()
        inputs: list[str] = []
        for name, dropped in [*((s, 0) for s in states), *((s, 1) for s in sequences)]:
            known = self.types.get(name, TensorType(self.real, None))
            shape = None if known.shape is None else known.shape[dropped:]
            inputs.append(self.fresh("item" if dropped else "state"))
            inner.types[inputs[-1]] = TensorType(known.dtype, shape)
        carried, results = body(inner, inputs[: len(states)], inputs[len(states) :])
        outputs = inner._leaving([*carried, *results])
        graph = helper.make_graph(
            inner.nodes,
            "body",
            [value_info(n, inner.types[n].dtype, inner.types[n].shape) for n in inputs],
            [value_info(n, self.real, None) for n in outputs],
        )
        directions: dict[str, Any] = {}
        if reverse:
            directions["scan_input_directions"] = [1] * len(sequences)
            if results:
                directions["scan_output_directions"] = [1] * len(results)
        made = self.ops(
            "Scan",
            *states,
            *sequences,
            outputs=len(outputs),
            body=graph,
            num_scan_inputs=len(sequences),
            **directions,
        )
        return made[: len(states)], made[len(states) :]

    def either(
        self,
        condition: str,
        yes: Callable[[GraphBuilder], Sequence[str]],
        no: Callable[[GraphBuilder], Sequence[str]],
        outputs: Sequence[str],
    ) -> None:
        """Make the tensors `outputs`, real numbers all, in one of two ways, by a truth value without axes.

        Each way appends to a graph of its own, where all tensors of this one are at hand, and returns what
        becomes the outputs.
        """
        branches = {}
        for key, way in (("then_branch", yes), ("else_branch", no)):
            inner = self._within()
            made = inner._leaving(way(inner))
            infos = [value_info(n, self.real, None) for n in made]
            branches[key] = helper.make_graph(inner.nodes, key, [], infos)
        self.append(helper.make_node("If", [condition], outputs, **branches))

    def _within(self) -> GraphBuilder:
        """A builder for a graph inside this one, such as a loop's body."""
        inner = GraphBuilder(real=self.real)
        inner._parent, inner.constants, inner.types = self, self.constants, ChainMap({}, self.types)
        return inner

    def _leaving(self, names: Sequence[str]) -> list[str]:
        """Names under which results leave an inner graph: what is not made there, or leaves it already, goes
        through a copy."""
        outputs: list[str] = []
        for name in names:
            own = self.producer(name) is not None and name not in outputs
            outputs.append(name if own else self.op("Identity", name))
        return outputs

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
            return self.op("Reshape", x, self.op("Shape", like), shape=shape)
        return self.reshape(x, *(d if isinstance(d, int) else -1 for d in shape), shape=shape)

    def shape_of(self, name: str) -> str:
        """The shape of a tensor of the model as an int64 vector: a constant where it is known."""
        shape = self.shape(name)
        if all(isinstance(d, int) for d in shape):
            return self.ints(*(int(d) for d in shape))
        return self.op("Shape", name)

    def count(self, name: str, axes: Sequence[int]) -> str:
        """How many elements lie along `axes` of a tensor of the model, as a real number without axes."""
        sizes = [self.shape(name)[a] for a in axes]
        if all(isinstance(d, int) for d in sizes):
            return self.scalar(float(math.prod(int(d) for d in sizes)))
        picked = self.op("Gather", self.op("Shape", name), self.ints(*axes))
        return self.to_real(self.op("ReduceProd", picked, keepdims=0))

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
