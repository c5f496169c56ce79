"""One training step for many devices: a bundle's step graph with every operator in its stacked form.

Each device's weights, optimizer state, data and settings lie on a new leading axis of length D. An operator
of which nothing depends on a device stays as it is. Needs onnx.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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

from laconic.device_sim.learning.operators import RULES
from laconic.device_sim.learning.phases import Phase, phases
from laconic.device_sim.learning.place import Place
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
    carried_bytes: int
    """What is handed into and out of the loop besides, for each sample of a step, about."""


def stacked(bundle: Bundle, *, single: bool = False) -> Stacked:
    """The stacked form of a bundle's training; a `single` one is for batches of one sample, of which nothing
    need be summed.

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
    work = _Work(data, state, settings, single)
    work.values.update({t.name: numpy_helper.to_array(t) for t in step.initializer})
    for info in (*step.input, *step.output, *step.value_info):
        if info.type.tensor_type.HasField("shape"):
            work.shapes[info.name] = [
                d.dim_value or d.dim_param or None for d in info.type.tensor_type.shape.dim
            ]
            work.types[info.name] = info.type.tensor_type.elem_type
    work.shapes.update({n: list(a.shape) for n, a in work.values.items()})
    work.limits.update({t.name: t.classes for t in manifest.targets if t.classes})
    work.stacked.update(inputs)
    sized = [n for n in work.shapes if work.places["outer"].sample(n) is not None]
    for node, phase in zip(step.node, phases(step.node, data, state, settings, sized), strict=True):
        work.turn(node, phase)
    if alone := [o.name for o in step.output if o.name not in work.stacked]:
        raise ModelError("result of a step that is the same for all devices", value=alone[0])
    carried = sum(
        4 * math.prod(d for d in work.shapes[n] if isinstance(d, int))
        for n in (*work.entering, *work.leaving)
    )
    return Stacked(_assembled(work), state, data, settings, carried)


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
    """What has been turned so far: `stacked`, `shapes`, `types`, `values` and `limits` speak of the step's
    tensors; a size that is not known is a name or None."""

    data: Sequence[str]
    state: Sequence[str]
    settings: Sequence[str]
    single: bool
    stacked: set[str] = field(default_factory=set)
    shapes: dict[str, list[int | str | None]] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    values: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    """Above integers that are not negative, by the tensor that holds them."""
    entering: list[str] = field(default_factory=list)
    """What is made ahead and read in the loop."""
    leaving: list[str] = field(default_factory=list)
    """What is made in the loop and read behind."""
    unfolded: list[str] = field(default_factory=list)
    """Data that are read ahead or behind."""
    places: dict[Phase, Place] = field(init=False)
    made: dict[str, Phase] = field(init=False)
    """Where each tensor is made."""

    def __post_init__(self) -> None:
        outer = Place(self, "outer")
        self.places = {"outer": outer, "body": Place(self, "body", outer)}
        self.places |= {"ahead": Place(self, "ahead"), "behind": Place(self, "behind")}
        self.made = dict.fromkeys(self.data, "ahead")
        self.made.update(dict.fromkeys(self.state, "body"))

    def turn(self, node: NodeProto, phase: Phase) -> None:
        """Append the stacked form of a node."""
        place, read = self.places[phase], [i for i in node.input if i]
        self.made.update(dict.fromkeys(node.output, phase))
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

    def name(self, tensor: str, phase: Phase) -> str:
        """A tensor's name where it is read or made: settings keep theirs."""
        if tensor in self.settings:
            return tensor
        made = self.made.get(tensor, "outer")
        if made == "outer" or phase == "outer":
            return f"outer/{tensor}"
        if made == "body" and phase == "behind":
            _once(self.leaving, tensor)
            return f"behind/{tensor}"
        if made == "ahead" and phase == "body" and tensor not in self.data:
            _once(self.entering, tensor)
        if made == "ahead" and phase != "body" and tensor in self.data:
            _once(self.unfolded, tensor)
        return f"{'body' if phase == 'body' else made}/{tensor}"

    def shaped(self, tensor: str, phase: Phase) -> tuple[str, int]:
        """What has a stacked tensor's shape behind so many leading axes: data have two around the loop."""
        return (tensor, 2) if tensor in self.data and phase == "outer" else (self.name(tensor, phase), 1)


def _once(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)


def _assembled(work: _Work) -> bytes:
    def info(tensor: str, name: str, *leading: str) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, work.types[tensor], [*leading, *work.shapes[tensor]])

    outer, ahead, body, behind = (work.places[p] for p in ("outer", "ahead", "body", "behind"))
    new = [f"{n}:new" for n in work.state]
    inside = work.made["loss"] == "body"
    told = [*new, *(["loss"] if inside else []), *work.leaving]
    made = {o for node in body.nodes for o in node.output}
    leaving: list[str] = []
    for tensor in (work.name(n, "body") for n in told):
        own = tensor in made and tensor not in leaving
        leaving.append(tensor if own else body.op("Identity", tensor))
    inner = helper.make_graph(
        body.nodes,
        "step",
        [info(n, f"body/{n}", _DEVICES) for n in (*work.state, *work.data, *work.entering)],
        [info(n, out, _DEVICES) for n, out in zip(told, leaving, strict=True)],
        initializer=body.constants,
    )
    before, after = Place(work, "outer", prefix="before/"), Place(work, "outer", prefix="after/")
    for n in work.unfolded:
        before.merged(n, f"ahead/{n}")
    around = before.op("Shape", work.data[0], start=0, end=2) if work.entering or not inside else ""
    before.nodes += ahead.nodes
    entering = [before.parted(f"ahead/{n}", around) for n in work.entering]
    scanned = [*work.state, *work.data, *entering]
    results = [*new, *(n if n == "loss" else f"after/{n}" for n in told[len(new) :])]
    scan = helper.make_node(
        "Scan", scanned, results, body=inner, num_scan_inputs=len(scanned) - len(work.state)
    )
    for n in work.leaving:
        after.merged(f"after/{n}", f"behind/{n}")
    after.nodes += behind.nodes
    if not inside:
        after.parted("behind/loss", around, "loss")
    graph = helper.make_graph(
        [*outer.nodes, *before.nodes, scan, *after.nodes],
        "stacked",
        [
            *(info(n, n, _DEVICES) for n in work.state),
            *(info(n, n, _STEPS, _DEVICES) for n in work.data),
            *(info(n, n, _DEVICES) for n in work.settings),
        ],
        [*(info(n, n, _DEVICES) for n in new), info("loss", "loss", _STEPS, _DEVICES)],
        initializer=[c for p in (outer, before, ahead, after, behind) for c in p.constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    encoded: bytes = model.SerializeToString(deterministic=True)
    return encoded
