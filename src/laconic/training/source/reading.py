"""Goes through a foreign graph once, front to back, and writes down what it means in opset 18.

Every node is looked at with the types of its inputs known. It may be translated into others (an older or
newer opset, another domain, a function body), computed at once (constants, the arithmetic of shapes), dropped
(Identity, sequences), or kept. What is kept gets its types, open axes with names of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, helper

from laconic.errors import ModelError
from laconic.training.assemble import OPSET
from laconic.training.builder import Shape, TensorType
from laconic.training.source.evaluation import evaluated
from laconic.training.source.inference import CONTRADICTION, Inference, shape_values
from laconic.training.source.known import Known
from laconic.training.source.shape_values import Values, numbers
from laconic.training.source.sizes import Size
from laconic.training.source.tensors import array_of, attributes, constant_of

Translate = Callable[["Reading", NodeProto, int], bool]
"""`translate(reading, node, version)` writes what `node` means through `reading`, or says False: it stays."""

_FOLDED_ELEMENTS = 1 << 24
"""The most elements of a constant that is computed here: a hostile file asks for more."""

_NODES = 200_000
"""The most nodes that a file may come to when functions and branches are written out."""

_RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"})

_ARRANGING = frozenset(
    {
        "Expand",
        "Reshape",
        "Transpose",
        "Slice",
        "Squeeze",
        "Unsqueeze",
        "Concat",
        "Identity",
        "Tile",
        "Gather",
    }
)
"""Operators that only place the elements of their input anew."""


class Reading:
    """What is known so far: nodes of opset 18 in order, constants, weights, types."""

    def __init__(self, translate: Translate, taken: Collection[str], traced: int | None) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, NDArray[np.float32]] = {}
        self.varying: set[str] = set()
        self.traced = traced
        self.inputs: set[str] = set()
        self.outputs: set[str] = set()
        self._known = Known()
        self.types = self._known.types
        self.constants = self._known.constants
        self._inference = Inference(self._known)
        self._translate = translate
        self._taken = set(taken)
        self._aliases: dict[str, str] = {"": ""}
        self._sequences: dict[str, list[str]] = {}
        self._zeros: set[str] = set()
        self._made: dict[str, NodeProto] = {}
        self._read = 0

    # --- names and values ---

    def fresh(self, hint: str) -> str:
        """A name that nothing bears."""
        name, i = hint, 0
        while name in self._taken:
            i += 1
            name = f"{hint}/{i}"
        self._taken.add(name)
        return name

    def constant(self, value: Any, dtype: Any = None, *, name: str | None = None) -> str:
        """A new constant."""
        array = np.asarray(value) if dtype is None else np.asarray(value, dtype)
        return self.enter(name or self.fresh("read/constant"), array)

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(values, np.int64)

    def floats(self, value: Any) -> str:
        """A float32 constant, a scalar unless `value` has axes."""
        return self.constant(value, np.float32)

    def enter(self, name: str, array: NDArray[Any]) -> str:
        """Give a constant its name."""
        self._known.enter(name, array)
        return name

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """Enter a weight that the file does not hold as a tensor; its name may get a number."""
        name = self.fresh(name)
        self.weights[name] = np.ascontiguousarray(array, np.float32)
        self.declare(name, TensorType(TensorProto.FLOAT, self.weights[name].shape))
        self.varying.add(name)
        return name

    def declare(self, name: str, kind: TensorType) -> None:
        """Make a tensor from outside known."""
        self._taken.add(name)
        self.types[name] = kind

    def now(self, name: str) -> str:
        """The tensor that stands for a name of the file."""
        return self._aliases.get(name, name)

    def value(self, name: str) -> NDArray[Any] | None:
        """The value of a constant, else None."""
        return self.constants.get(name)

    def maker(self, name: str) -> NodeProto | None:
        """The kept node that makes a tensor."""
        return self._made.get(name)

    def shape(self, name: str) -> Shape:
        """A tensor's shape; raises `ModelError` where it is unknown."""
        return self._known.shape(name)

    def rank(self, name: str) -> int | None:
        """The number of axes, if known."""
        return self._known.rank(name)

    def sizes(self, name: str) -> list[Size] | None:
        """A tensor's shape as sizes, if known."""
        return self._known.sizes(name)

    def values(self, name: str) -> Values | None:
        """The elements of a tensor of whole numbers or truth values as sizes, if all are known."""
        return self._known.values(name)

    def holds_zeros(self, name: str) -> bool:
        """Whether a tensor is known to be zero everywhere."""
        value = self.constants.get(name)
        return name in self._zeros or (value is not None and value.dtype.kind == "f" and not value.any())

    def sequence(self, name: str) -> list[str] | None:
        """The tensors of a sequence, if `name` is one."""
        return self._sequences.get(name)

    # --- writing ---

    def op(self, op_type: str, *inputs: str, outputs: Sequence[str] | int = 1, **settings: Any) -> str:
        """Write a node of opset 18; the name of its first output."""
        names = (
            [self.fresh(f"read/{op_type}") for _ in range(outputs)] if isinstance(outputs, int) else outputs
        )
        self.read(helper.make_node(op_type, list(inputs), list(names), **settings), OPSET)
        return self.now(names[0])

    def alias(self, name: str, target: str) -> None:
        """Let `name` be another name of `target`."""
        target = self.now(target)
        if name in self.outputs:
            self._keep(helper.make_node("Identity", [target], [name]))
        elif target in self.constants or target in self.types or target in self._sequences:
            self._aliases[name] = target
        else:
            raise ModelError(f"tensor {target!r} is used before it is made", remedy=CONTRADICTION)

    def read(self, node: NodeProto, version: int) -> None:
        """Take in one node of the file, or of a translation; `version` is its domain's opset."""
        self._read += 1
        if self._read > _NODES:
            raise ModelError("nodes with all functions and branches written out", limit=_NODES)
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self.now(i) for i in node.input]
        if not self._simple(copy) and not self._translate(self, copy, version):
            self._settle(copy)

    def enter_sequence(self, name: str, items: Sequence[str]) -> None:
        """Make a sequence of tensors known."""
        self._sequences[name] = list(items)

    # --- one node ---

    def _simple(self, node: NodeProto) -> bool:
        """Nodes that leave nothing behind."""
        if node.domain:
            return False
        if node.op_type == "Constant":
            self.enter(node.output[0], constant_of(node))
            return True
        same = node.op_type == "Identity"
        if node.op_type == "Cast" and node.input:
            known = self.types.get(node.input[0])
            same = known is not None and attributes(node).get("to") == known.dtype
        if same:
            self.alias(node.output[0], node.input[0])
        return same

    def _settle(self, node: NodeProto) -> None:
        """Compute the node, or keep it."""
        for name in filter(None, node.input):
            if name not in self.types and name not in self.constants:
                raise ModelError(
                    f"input {name!r} of node {node.name or node.output[0]!r} is made nowhere before it",
                    remedy=CONTRADICTION,
                )
        values = shape_values(self._known, node)
        if values is not None and node.output[0] not in self.outputs:
            known = numbers(values)
            kind = self._inference.types(node)[node.output[0]]
            if known is not None and kind.dtype != TensorProto.UNDEFINED:
                self.enter(node.output[0], known.astype(helper.tensor_dtype_to_np_dtype(kind.dtype)))
                return
        results = self._computed(node)
        if results is not None:
            for name, array in zip(node.output, results, strict=False):
                if name:
                    self.enter(name, np.asarray(array))
            self._reinstate(node)
            return
        self._keep(node)
        if values is not None:
            self._known.enter_values(node.output[0], values)

    def _reinstate(self, node: NodeProto) -> None:
        """A graph output must be made by a node, even when it is constant."""
        for name in node.output:
            if name in self.outputs:
                inner = self.constant(self.constants.pop(name))
                self._keep(helper.make_node("Identity", [inner], [name]))

    def _keep(self, node: NodeProto) -> None:
        self.types.update(self._inference.types(node))
        self.nodes.append(node)
        for name in filter(None, node.output):
            self._made[name] = node
            self._taken.add(name)
        if self._is_zero(node):
            self._zeros.update(node.output)
        if any(i in self.varying for i in node.input):
            real = (TensorProto.FLOAT, TensorProto.UNDEFINED)
            self.varying.update(o for o in node.output if o and self.types[o].dtype in real)

    def _is_zero(self, node: NodeProto) -> bool:
        """Whether the node makes nothing but zeros, as exporters make initial states."""
        if node.op_type == "ConstantOfShape":
            value = attributes(node).get("value")
            return value is None or not array_of(value).any()
        inputs = node.input if node.op_type == "Concat" else node.input[:1]
        return node.op_type in _ARRANGING and all(self.holds_zeros(i) for i in inputs)

    def _computed(self, node: NodeProto) -> Sequence[Any] | None:
        if node.op_type in _RANDOM or not all(i in self.constants for i in node.input if i):
            return None
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            return None
        if node.op_type == "Dropout" and len(node.input) > 2:
            return None
        for kind in self._inference.types(node).values():
            shape = kind.shape or ()
            if np.prod([float(d) for d in shape if isinstance(d, int)]) > _FOLDED_ELEMENTS:
                raise ModelError(f"elements of constant {node.output[0]!r}", limit=_FOLDED_ELEMENTS)
        return evaluated(node, {i: self.constants[i] for i in node.input if i})
