"""What preparing a model would give, in numbers: parameters, operators, arithmetic, memory, bytes.

Estimates are made on the step graph itself, with a batch of known size; onnxruntime's own fusions are not
known here, so memory is an upper estimate of what lives at once, not a measurement.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, shape_inference

from laconic.training.assemble import uses
from laconic.training.builder import BATCH, TensorType
from laconic.training.decided import decide
from laconic.training.graphs import inference_model, step_model, training_step
from laconic.training.inferred import tensor_types
from laconic.training.plan import Plan

FREE_AXIS = 32
"""Assumed length of axes that may have any, other than the batch."""


@dataclass(frozen=True, slots=True)
class Explained:
    """A plan in numbers, for one step with `batch` samples.

    `backward` counts the operators that the training step has beyond the forward pass, losses and optimizer
    among them. `flops_*` count multiplications and additions; `memory_bytes` is the largest sum of tensors
    that live at once, weights twice (before and after the step) and optimizer state included; `update_bytes`
    is a full update as float32, before any compression.
    """

    parameters: tuple[tuple[str, tuple[int, ...], str, str], ...]
    inputs: Mapping[str, tuple[str, tuple[int | None, ...]]]
    losses: tuple[tuple[str, str, str], ...]
    optimizer: str
    batch: int
    forward: Mapping[str, int]
    backward: Mapping[str, int]
    flops_forward: int
    flops_step: int
    memory_bytes: int
    update_bytes: int
    trained: int
    total: int


def explained(plan: Plan, *, batch: int = 8) -> Explained:
    """Numbers for `plan` with a batch of `batch` samples. Raises `ModelError`."""
    source = plan.source
    step = training_step(
        source,
        plan.goals,
        plan.optimizer,
        proximal=plan.proximal,
        clip_norm=plan.clip_norm,
        scaffold=plan.scaffold,
    )
    forward, whole = (_sized(graph, batch) for graph in (inference_model(source), step_model(step)))
    before, after = _operators(forward.graph), _operators(whole.graph)
    sizes = {p.name: math.prod(p.value.shape) for p in source.parameters}
    types = source.types
    travelling = [p for p in source.parameters if p.role == "trainable"]
    controlled = [p for p in travelling if plan.scaffold and p.kind == "weight"]
    return Explained(
        parameters=(
            *((p.name, p.value.shape, p.role, p.kind) for p in source.parameters),
            *((f"control/{p.name}", p.value.shape, p.role, "control") for p in controlled),
        ),
        inputs={
            n: (
                str(helper.tensor_dtype_to_np_dtype(types[n].dtype)),
                tuple(d if isinstance(d, int) else None for d in (types[n].shape or ())[1:]),
            )
            for n in source.inputs
        },
        losses=tuple((goal.loss.name, goal.output, goal.prediction) for goal in plan.goals),
        optimizer=plan.optimizer.name,
        batch=batch,
        forward=dict(before),
        backward=dict(after - before),
        flops_forward=_flops(forward.graph),
        flops_step=_flops(whole.graph),
        memory_bytes=_peak_bytes(whole.graph),
        update_bytes=4 * sum(sizes[p.name] for p in (*travelling, *controlled)),
        trained=sum(sizes[p.name] for p in source.parameters if p.role != "frozen"),
        total=sum(sizes.values()),
    )


def step_flops(step: bytes, batch: int) -> int:
    """Multiplications and additions of a training step, as bundles have it, on `batch` samples."""
    return _flops(_sized(step, batch).graph)


def _sized(data: bytes, batch: int) -> ModelProto:
    """The graph with all axes known, and the shapes of all tensors that follow from that."""
    model = ModelProto()
    model.ParseFromString(data)
    for declared in model.graph.input:
        for dim in declared.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = batch if dim.dim_param == BATCH else FREE_AXIS
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    model = shape_inference.infer_shapes(model, data_prop=True)
    # A branch may hold another one, and the shapes within are known only once it is chosen.
    while decide(model.graph):
        model = shape_inference.infer_shapes(model, data_prop=True)
    return model


def _operators(graph: GraphProto) -> Counter[str]:
    return Counter(str(node.op_type) for node in graph.node)


def _flops(graph: GraphProto) -> int:
    types = tensor_types(graph)
    return sum(_node_flops(node, types) for node in graph.node)


def _node_flops(node: NodeProto, types: Mapping[str, TensorType]) -> int:
    out = _count(types, node.output[0])
    match node.op_type:
        case "MatMul" | "Gemm":
            shape = _shape(types, node.input[0])
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            inner = (shape[0] if transposed else shape[-1]) if shape else 1
            return 2 * out * inner
        case "Conv":
            weight = _shape(types, node.input[1])
            return 2 * out * math.prod(weight[1:])
        case "ConvTranspose":
            weight = _shape(types, node.input[1])
            return 2 * _count(types, node.input[0]) * math.prod(weight[1:])
        case "LSTM" | "GRU" | "RNN":
            x, w, r = (_shape(types, i) for i in node.input[:3])
            return 2 * math.prod(x[:2]) * (math.prod(w) + math.prod(r)) if len(x) == 3 else 0
        case "Scan":
            return _scan_flops(node, types)
        case "ReduceSum" | "ReduceMean" | "ReduceSumSquare" | "ReduceMax" | "Softmax" | "LogSoftmax":
            return _count(types, node.input[0])
        case "AveragePool" | "MaxPool":
            kernel = [int(k) for a in node.attribute if a.name == "kernel_shape" for k in a.ints]
            return out * math.prod(kernel)
        case name if name in _MOVING:
            return 0
        case _:
            return out


_MOVING = frozenset(
    {
        "Reshape",
        "Transpose",
        "Concat",
        "Split",
        "Slice",
        "Gather",
        "Shape",
        "Identity",
        "Squeeze",
        "Unsqueeze",
    }
    | {"Flatten", "Pad", "Expand", "Tile", "Cast", "Constant", "Resize", "OneHot", "Size", "Range"}
)


def _scan_flops(node: NodeProto, types: Mapping[str, TensorType]) -> int:
    """One turn's work times the number of turns."""
    body = next(a.g for a in node.attribute if a.name == "body")
    states = len(node.input) - next(a.i for a in node.attribute if a.name == "num_scan_inputs")
    inner = dict(types)
    for position, (own, given) in enumerate(zip(body.input, node.input, strict=True)):
        shape = _shape(types, given)
        inner[own.name] = TensorType(TensorProto.FLOAT, shape if position < states else shape[1:])
    inner.update({n: t for n, t in tensor_types(body).items() if t.shape is not None})
    turns = (_shape(types, node.input[states]) or (1,))[0]
    return turns * sum(_node_flops(n, inner) for n in body.node)


def _peak_bytes(graph: GraphProto) -> int:
    """The largest sum of sizes of tensors alive at once when nodes run in order; inputs and outputs stay."""
    types = tensor_types(graph)
    lasting = {i.name for i in graph.input} | {o.name for o in graph.output}
    lasting |= {i.name for i in graph.initializer}
    last = {name: position for position, node in enumerate(graph.node) for name in uses(node)}
    alive = sum(_bytes(types, name) for name in lasting)
    peak = alive
    for position, node in enumerate(graph.node):
        alive += sum(_bytes(types, o) for o in node.output if o not in lasting)
        peak = max(peak, alive)
        done = {n for n in (*uses(node), *node.output) if n and n not in lasting}
        alive -= sum(_bytes(types, n) for n in done if last.get(n, position) == position)
    return peak


def _bytes(types: Mapping[str, TensorType], name: str) -> int:
    known = types.get(name)
    width = 8 if known is not None and known.dtype in (TensorProto.INT64, TensorProto.DOUBLE) else 4
    return width * _count(types, name) if known is not None and known.shape is not None else 0


def _count(types: Mapping[str, TensorType], name: str) -> int:
    return math.prod(_shape(types, name))


def _shape(types: Mapping[str, TensorType], name: str) -> tuple[int, ...]:
    known = types.get(name)
    return tuple(d for d in (known.shape or ()) if isinstance(d, int)) if known is not None else ()


def lines(found: Explained) -> Iterator[str]:
    """What a person reads."""
    yield f"trains {found.trained:,} of {found.total:,} numbers with {found.optimizer}"
    for loss, output, prediction in found.losses:
        yield f"  {loss} on {output}" + (f" (put on {prediction})" if prediction != output else "")
    yield "inputs"
    for name, (dtype, shape) in found.inputs.items():
        yield f"  {name:40} {dtype:8} {_times(shape)}"
    yield "parameters"
    for name, shape, role, kind in found.parameters:
        yield f"  {name:40} {_times(shape):16} {role}{'' if kind == 'weight' else ', ' + kind}"
    yield f"forward pass: {_counted(found.forward)}"
    yield f"added for training: {_counted(found.backward)}"
    work = f"{_si(found.flops_step)}FLOP ({_si(found.flops_forward)}FLOP forward)"
    memory = f"about {found.memory_bytes / 1e6:.1f} MB of tensors at once"
    yield f"per step of {found.batch} samples: {work}, {memory}"
    yield f"a full update before compression: {found.update_bytes:,} bytes"


def _times(shape: tuple[int | None, ...]) -> str:
    return "x".join("any" if d is None else str(d) for d in shape) or "scalar"


def _counted(operators: Mapping[str, int]) -> str:
    ordered = sorted(operators.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered) or "nothing"


def _si(number: int) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number} "
