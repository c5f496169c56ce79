"""Where the nodes of a stack's graph are appended, and what is known there of the step's tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from laconic.device_sim.learning.phases import Phase
from laconic.errors import ModelError


class Tensors(Protocol):
    """What is known of the tensors of the step."""

    stacked: set[str]
    shapes: dict[str, list[int | str | None]]
    data: Sequence[str]
    values: dict[str, NDArray[np.generic]]
    limits: dict[str, int]
    made: dict[str, Phase]
    single: bool

    def name(self, tensor: str, phase: Phase) -> str:
        """A tensor's name in the new graph, where it is read or made."""
        ...

    def shaped(self, tensor: str, phase: Phase) -> tuple[str, int]:
        """What has a stacked tensor's shape, in the new graph, behind so many leading axes."""
        ...


class Place:
    """Where nodes are appended: the loop's body, or the graph around it."""

    def __init__(self, tensors: Tensors, phase: Phase, around: Place | None = None, prefix: str = "") -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._tensors, self._phase, self._around = tensors, phase, around
        self._prefix = prefix or f"{phase}/"
        self._lifted: dict[tuple[str, int], str] = {}
        self._known: dict[str, str] = {}
        self._widths = ""

    def is_stacked(self, tensor: str) -> bool:
        """Whether each device has its own."""
        return tensor in self._tensors.stacked

    def rank(self, tensor: str) -> int:
        """A tensor's rank without the devices' axis. Raises `ModelError`."""
        if tensor not in self._tensors.shapes:
            raise ModelError("rank of a tensor of the training step is not known", value=tensor)
        return len(self._tensors.shapes[tensor])

    def shaped(self, tensor: str) -> tuple[str, int]:
        """What has a stacked tensor's shape behind so many leading axes."""
        return self._tensors.shaped(tensor, self._phase)

    def value(self, tensor: str) -> NDArray[np.generic] | None:
        """A constant's value."""
        return self._tensors.values.get(tensor)

    def limit(self, tensor: str) -> int | None:
        """What integers that are not negative are known to stay below."""
        return self._tensors.limits.get(tensor)

    def input(self, tensor: str) -> str:
        """An input of a node as it is."""
        value = self.value(tensor) if tensor else None
        return self._named(tensor) if value is None and tensor else self._constant(tensor, value)

    def lifted(self, tensor: str, rank: int) -> str:
        """An input of a node, of `rank` without the devices' axis, so that it is broadcast as it was."""
        missing = rank - self.rank(tensor)
        if not missing or not self.is_stacked(tensor):
            return self.input(tensor)
        if self._around is not None and self._tensors.made.get(tensor, "outer") == "outer":
            return self._around.lifted(tensor, rank)
        if (tensor, rank) not in self._lifted:
            axes = self.ints(range(1, 1 + missing))
            self._lifted[tensor, rank] = self.op("Unsqueeze", self.input(tensor), axes)
        return self._lifted[tensor, rank]

    def has_batch(self, tensor: str) -> bool:
        """Whether a tensor's first axis but that of the devices is known to be the samples of a batch."""
        shapes = self._tensors.shapes
        first = shapes.get(tensor, [None])[:1]
        return first == shapes[self._tensors.data[0]][:1] and isinstance(first[0], str)

    def sample(self, tensor: str) -> int | None:
        """How many elements of a tensor there are for each sample of a batch; None if that is not known."""
        rest = [d for d in self._tensors.shapes.get(tensor, [])[1:] if isinstance(d, int)]
        whole = self.has_batch(tensor) and len(rest) + 1 == self.rank(tensor)
        return math.prod(rest) if whole else None

    def samples(self) -> str:
        """The number of samples of a batch, shape `(1,)`, in the graph around the loop."""
        return self.op("Shape", self._tensors.data[0], start=2, end=3)

    def is_single(self, tensor: str) -> bool:
        """Whether that batch has one sample."""
        return self._tensors.single and self.has_batch(tensor)

    def repeated(self, row: str, like: str) -> str:
        """A row for each device, lifted to rank 2; repeated if `like`, to which it is added, has a row for
        each sample of a batch.

        To repeat it and to add the same shape takes two thirds of adding by broadcasting short rows.
        """
        lifted, rank = self.lifted(row, 2), self.rank(row)
        if self._around is None or rank != 1 or self._tensors.single or not self.has_batch(like):
            return lifted
        if not self._widths:
            around = self._around
            self._widths = around.op("Concat", around.ints([1]), around.samples(), around.ints([1]), axis=0)
        return self.op("Expand", lifted, self._widths)

    def ints(self, values: Sequence[int]) -> str:
        """A constant int64 vector."""
        return self._constant(f"ints {tuple(values)}", np.array(values, np.int64))

    def real(self, value: float) -> str:
        """A constant float32 scalar."""
        return self._constant(f"real {value!r}", np.asarray(value, np.float32))

    def constant(self, value: NDArray[np.generic]) -> str:
        """Any constant."""
        return self._constant(f"table {value.tobytes()!r}", value)

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; the name of its result."""
        return self._add(op_type, inputs, f"{self._prefix}made {len(self.nodes)}", attributes)

    def result(self, node: NodeProto, op_type: str, *inputs: str, **attributes: Any) -> bool:
        """Append the node that makes what `node` makes; true, for rules to return."""
        self._add(op_type, inputs, self._named(node.output[0]), attributes)
        return True

    def same(self, node: NodeProto) -> None:
        """Append the node as it is."""
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self.input(i) for i in node.input]
        copy.output[:] = [self._named(o) if o else "" for o in node.output]
        copy.name = copy.output[0]
        self.nodes.append(copy)

    def merged(self, tensor: str, name: str) -> None:
        """Steps and devices as one axis."""
        rest = self.op("Concat", self.ints([-1]), self.op("Shape", tensor, start=2), axis=0)
        self._add("Reshape", [tensor, rest], name, {})

    def parted(self, tensor: str, around: str, name: str = "") -> str:
        """And back: `around` is the length of both."""
        shape = self.op("Concat", around, self.op("Shape", tensor, start=1), axis=0)
        return self._add("Reshape", [tensor, shape], name or f"parted/{tensor}", {})

    def _named(self, tensor: str) -> str:
        return self._tensors.name(tensor, self._phase)

    def _add(self, op_type: str, inputs: Sequence[str], out: str, attributes: Mapping[str, Any]) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [out], name=out, **attributes))
        return out

    def _constant(self, key: str, value: NDArray[np.generic] | None) -> str:
        if value is None:
            return ""
        if key not in self._known:
            self._known[key] = f"{self._prefix}constant {len(self._known)}"
            self.constants.append(numpy_helper.from_array(value, self._known[key]))
        return self._known[key]
