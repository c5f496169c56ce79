"""One training step for many devices: a bundle's step graph with every operator in its stacked form.

Each device's weights, optimizer state, data and settings lie on a new leading axis of length D. An operator
of which nothing depends on a device stays as it is. Needs onnx.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
    shape_inference,
)

from laconic.device_sim.learning.operators import RULES, Place
from laconic.errors import ModelError
from laconic.runtime import Bundle

_DEVICES = "devices"
_STEPS = "steps"


@dataclass(frozen=True, slots=True)
class Stacked:
    """An ONNX file that trains D devices for S steps, and what it takes and gives.

    `state`: arrays `(D, ...)` in, and out under `<name>:new`; `data`: `(S, D, batch, ...)`; `settings`:
    `(D, ...)`; and out `loss`, float32 `(S, D)`.
    """

    graph: bytes
    state: tuple[str, ...]
    data: tuple[str, ...]
    settings: tuple[str, ...]


def stacked(bundle: Bundle) -> Stacked:
    """The stacked form of a bundle's training.

    Raises `ModelError` for a graph with an operator that has none, with randomness (dropout) or SCAFFOLD.
    """
    manifest = bundle.manifest
    if manifest.optimizer.seeded or bundle.control_schema.size:
        raise ModelError("training in a stack", value="dropout or SCAFFOLD", remedy="train one by one")
    model = ModelProto()
    model.ParseFromString(bundle.parts["step"])
    step = _with_values(model, bundle).graph
    data = tuple(n for n in (*(i.name for i in manifest.inputs), *(t.name for t in manifest.targets)))
    state = tuple(o.name.removesuffix(":new") for o in step.output if o.name.endswith(":new"))
    inputs = [i.name for i in step.input]
    settings = tuple(n for n in inputs if n not in state and n not in data)
    work = _Work(data, settings, moving={*data, *state})
    work.values.update({t.name: numpy_helper.to_array(t) for t in step.initializer})
    for info in (*step.input, *step.output, *step.value_info):
        if info.type.tensor_type.HasField("shape"):
            work.ranks[info.name] = len(info.type.tensor_type.shape.dim)
    work.ranks.update({n: a.ndim for n, a in work.values.items()})
    work.stacked.update(inputs)
    for node in step.node:
        work.turn(node)
    if alone := [o.name for o in step.output if o.name not in work.stacked]:
        raise ModelError("result of a step that is the same for all devices", value=alone[0])
    types = {i.name: i for i in (*step.input, *step.output)}
    return Stacked(_assembled(work, types, state, data, settings), state, data, settings)


def _with_values(model: ModelProto, bundle: Bundle) -> ModelProto:
    """The graph with frozen weights inside, and every tensor's rank found."""
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(numpy_helper.from_array(bundle.frozen[tensor.name], tensor.name))
    try:
        found: ModelProto = shape_inference.infer_shapes(model, strict_mode=True)
    except Exception as e:  # onnx raises its own InferenceError here
        raise ModelError("shapes in the training step", value=str(e)) from e
    return found


@dataclass
class _Work:
    """What has been turned so far: `stacked`, `ranks` and `values` speak of tensors of the step."""

    data: Sequence[str]
    settings: Sequence[str]
    moving: set[str]
    """Tensors that change from step to step."""
    stacked: set[str] = field(default_factory=set)
    ranks: dict[str, int] = field(default_factory=dict)
    values: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    outer: Place = field(init=False)
    body: Place = field(init=False)

    def __post_init__(self) -> None:
        self.outer = Place(self, "outer/")
        self.body = Place(self, "body/", self.outer)

    def turn(self, node: NodeProto) -> None:
        """Append the stacked form of a node, where it is computed as seldom as can be."""
        read = [i for i in node.input if i]
        # The data of all steps have the same shape: what depends on that alone is done once.
        shape = node.op_type in ("Shape", "Size") and read[0] in self.data
        place = self.body if any(i in self.moving for i in read) and not shape else self.outer
        if place is self.body:
            self.moving.update(node.output)
        if node.domain or any(a.type == AttributeProto.GRAPH for a in node.attribute):
            raise ModelError("operator without a stacked form", value=f"{node.domain}.{node.op_type}")
        if not any(i in self.stacked for i in read):
            place.same(node)
            return
        rule = RULES.get(node.op_type)
        if rule is None:
            raise ModelError("operator without a stacked form", value=node.op_type, limit=sorted(RULES))
        if rule(place, node):
            self.stacked.update(node.output)

    def name(self, tensor: str) -> str:
        """A tensor's name in the new graph: settings keep theirs."""
        if tensor in self.settings:
            return tensor
        return f"{'body/' if tensor in self.moving else 'outer/'}{tensor}"

    def shaped(self, tensor: str) -> tuple[str, int]:
        """What has a stacked tensor's shape behind so many leading axes: data have two around the loop."""
        return (tensor, 2) if tensor in self.data else (self.name(tensor), 1)


def _assembled(
    work: _Work,
    types: Mapping[str, ValueInfoProto],
    state: Sequence[str],
    data: Sequence[str],
    settings: Sequence[str],
) -> bytes:
    def info(name: str, *leading: str, as_name: str = "") -> ValueInfoProto:
        kind = types[name].type.tensor_type
        own = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim]
        return helper.make_tensor_value_info(as_name or name, kind.elem_type, [*leading, *own])

    results = [*(f"{n}:new" for n in state), "loss"]
    body = work.body
    made = {o for node in body.nodes for o in node.output}
    leaving: list[str] = []
    for tensor in map(work.name, results):
        own = tensor in made and tensor not in leaving
        leaving.append(tensor if own else body.op("Identity", tensor))
    inner = helper.make_graph(
        body.nodes,
        "step",
        [info(n, _DEVICES, as_name=f"body/{n}") for n in (*state, *data)],
        [info(n, _DEVICES, as_name=out) for n, out in zip(results, leaving, strict=True)],
        initializer=body.constants,
    )
    scan = helper.make_node("Scan", [*state, *data], results, body=inner, num_scan_inputs=len(data))
    graph = helper.make_graph(
        [*work.outer.nodes, scan],
        "stacked",
        [
            *(info(n, _DEVICES) for n in state),
            *(info(n, _STEPS, _DEVICES) for n in data),
            *(info(n, _DEVICES) for n in settings),
        ],
        [*(info(n, _DEVICES) for n in results[:-1]), info("loss", _STEPS, _DEVICES)],
        initializer=work.outer.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    encoded: bytes = model.SerializeToString(deterministic=True)
    return encoded
