"""Reads an ONNX inference model and brings it into the one shape that the rest of the package works on.

That is: opset 18, no functions, a batch axis of any size, weights lifted out of the graph. Weights are
lifted before anything is folded: an optimizer that saw them as constants would merge and transpose them, and
the parameters would no longer be those of the source model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, shape_inference
from onnx.reference import ReferenceEvaluator

from laconic.errors import ConfigError, ModelError
from laconic.runtime.manifest import Kind, Role, is_reserved
from laconic.training.assemble import live_nodes
from laconic.training.batch_axis import free_batch_axis, tensor_types
from laconic.training.builder import GraphBuilder, TensorType
from laconic.training.forward import lay
from laconic.training.modern import array_of, modernised


@dataclass(frozen=True, slots=True)
class SourceParameter:
    """One parameter of the source model: its name there, its float32 value, and what happens to it.

    A `weight` is moved by gradients, a `statistic` (running mean or variance) by what training sees.
    """

    name: str
    value: NDArray[np.float32]
    role: Role
    kind: Kind = "weight"


@dataclass(frozen=True, slots=True)
class Source:
    """A model ready to be differentiated; `inputs` and `outputs` are tensor names, described in `types`."""

    nodes: tuple[NodeProto, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, NDArray[Any]]
    parameters: tuple[SourceParameter, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def builder(self) -> GraphBuilder:
        """A builder that holds the forward pass of inference, with weights and data as inputs."""
        graph = GraphBuilder((), self.types, self.constants)
        lay(graph, self.nodes)
        return graph

    def prediction(self, output: str, absorbs: Collection[str]) -> str:
        """The tensor that a loss on `output` works on: the output, or what goes into a final activation that
        the loss contains itself."""
        made = {o: node for node in self.nodes for o in node.output}
        tensor = output
        while tensor in made and made[tensor].op_type == "Identity":
            tensor = made[tensor].input[0]
        node = made.get(tensor)
        if node is None or node.op_type not in absorbs:
            return tensor
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        shape = self.types[tensor].shape
        last = axis == -1 or (shape is not None and axis == len(shape) - 1)
        return str(node.input[0]) if last else tensor


def load(
    data: bytes,
    *,
    trained: Sequence[str] = (),
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    trainable: Sequence[str] = (),
    frozen: Sequence[str] = (),
    local: Sequence[str] = (),
) -> Source:
    """Read a model.

    `trained` names the outputs that losses are put on, the first one by default: a parameter that reaches
    none of them is frozen. `input_shapes` fixes the shape of one sample of an input that was exported with
    other dynamic axes than the batch. `trainable`, `frozen` and `local` are shell patterns of parameter names;
    with `trainable`, all that match neither it nor `local` are frozen, else all others are trainable. Raises
    `ModelError` (with `UnsupportedOperator`) for the model, `ConfigError` for a pattern or output that matches
    nothing.
    """
    model, order = modernised(data)
    graph = model.graph
    targets = _chosen_outputs(graph, trained)
    outputs = [str(o.name) for o in graph.output]
    live = live_nodes(graph.node, outputs)
    del graph.node[:]
    graph.node.extend(live)
    _make_way(graph, outputs)
    values = _lift_weights(graph, order)
    free_batch_axis(model, values, input_shapes or {})
    try:
        inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as e:  # onnx raises its own InferenceError, ValueError or RuntimeError here
        raise ModelError("shapes of the model cannot be inferred", value=str(e)) from e
    types = tensor_types(inferred.graph)
    constants = {i.name: array_of(i) for i in inferred.graph.initializer}
    nodes, constants = _folded(inferred.graph.node, types, constants)
    nodes = live_nodes(nodes, outputs)
    used = {i for node in nodes for i in node.input}
    reaching = {i for node in live_nodes(nodes, targets) for i in node.input}
    statistics = {i for node in nodes if node.op_type == "BatchNormalization" for i in node.input[3:5]}
    roles = _roles([n for n in values if n in used], trainable, frozen, local)
    inputs = tuple(i.name for i in inferred.graph.input if i.name not in values and i.name in used)
    return Source(
        nodes=tuple(nodes),
        types=types,
        constants={n: a for n, a in constants.items() if n in used},
        parameters=tuple(
            SourceParameter(
                n,
                values[n],
                role if n in reaching else "frozen",
                "statistic" if n in statistics else "weight",
            )
            for n, role in roles.items()
        ),
        inputs=inputs,
        outputs=tuple(outputs),
    )


def check_interface(source: Source) -> None:
    """Raise `ModelError` for a model that leaves nothing to feed or to train, or uses a reserved name."""
    names = [*(p.name for p in source.parameters), *source.inputs, *source.outputs]
    if taken := [n for n in names if is_reserved(n)]:
        raise ModelError(
            "name of a parameter, input or output is reserved", value=taken[0], remedy="rename it"
        )
    if not source.inputs:
        raise ModelError(f"outputs {source.outputs} depend on no data input")
    if not any(p.role == "trainable" and p.kind == "weight" for p in source.parameters):
        raise ModelError(
            "the model has no trainable float32 parameter", remedy="export in float32, or freeze fewer"
        )


def _chosen_outputs(graph: GraphProto, trained: Sequence[str]) -> list[str]:
    names = [str(o.name) for o in graph.output]
    wanted = list(trained) or names[:1]
    for name in wanted:
        if name not in names:
            raise ConfigError("output of the model", value=name, limit=names)
    return wanted


def _make_way(graph: GraphProto, outputs: Collection[str]) -> None:
    """Rename inner tensors that bear a name which the training graphs need."""
    taken = {n for node in graph.node for n in (*node.input, *node.output)}
    renamed: dict[str, str] = {}
    for node in graph.node:
        for name in node.output:
            if is_reserved(name) and name not in outputs:
                renamed[name] = next(n for n in (f"inner/{name}/{i}" for i in count()) if n not in taken)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(n, n) for n in names]


def _lift_weights(graph: GraphProto, order: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Take the weights out of the graph and make them inputs; their values in canonical order.

    A weight is a float32 initializer with at least one axis, or a Constant node's with several elements;
    scalars are constants of a formula. Initializers come first, in the source's order, then Constants.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for initializer in graph.initializer:
        if initializer.data_type == TensorProto.FLOAT and len(initializer.dims) >= 1:
            found[initializer.name] = array_of(initializer)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 1 and np.prod(tensor.dims) > 1:
                found[node.output[0]] = array_of(tensor)
    used = {i for node in graph.node for i in node.input}
    position = {name: i for i, name in enumerate(order)}
    names = sorted((n for n in found if n in used), key=lambda n: position.get(n, len(position)))
    values = {n: np.ascontiguousarray(found[n], np.float32) for n in names}
    kept = [i for i in graph.initializer if i.name not in values]
    nodes = [n for n in graph.node if not (n.op_type == "Constant" and n.output[0] in values)]
    constant = {i.name for i in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constant]
    for proto_field, items in ((graph.initializer, kept), (graph.node, nodes), (graph.input, inputs)):
        del proto_field[:]
        proto_field.extend(items)
    return values


def _folded(
    nodes: Sequence[NodeProto], types: dict[str, TensorType], constants: dict[str, NDArray[Any]]
) -> tuple[list[NodeProto], dict[str, NDArray[Any]]]:
    """Compute what depends on neither data nor weights: constants, and the arithmetic of known shapes."""
    constants = dict(constants)
    kept: list[NodeProto] = []
    for node in nodes:
        results = _constant_results(node, types, constants)
        if results is None:
            kept.append(node)
            continue
        for name, array in zip(node.output, results, strict=False):
            constants[name] = np.asarray(array)
    return kept, constants


def _constant_results(
    node: NodeProto, types: Mapping[str, TensorType], constants: Mapping[str, NDArray[Any]]
) -> Sequence[Any] | None:
    if node.op_type == "Shape":
        known = types.get(node.input[0])
        if known is None or known.shape is None:
            return None
        bounds = {a.name: a.i for a in node.attribute}
        wanted = known.shape[bounds.get("start", 0) : bounds.get("end", len(known.shape))]
        if any(not isinstance(d, int) for d in wanted):
            return None
        return [np.array(wanted, np.int64)]
    if node.op_type in _RANDOM or any(i and i not in constants for i in node.input):
        return None
    feeds = {i: constants[i] for i in node.input if i}
    try:
        return list(ReferenceEvaluator(node).run(None, feeds))
    except Exception:  # what the reference cannot compute stays in the graph, where onnxruntime may
        return None


_RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"})


def _roles(
    names: Sequence[str], trainable: Sequence[str], frozen: Sequence[str], local: Sequence[str]
) -> dict[str, Role]:
    """The role of every parameter, in order; frozen wins over local, local over trainable."""
    for pattern in (*trainable, *frozen, *local):
        if not any(fnmatchcase(n, pattern) for n in names):
            raise ConfigError("pattern matches no parameter", value=pattern, limit=list(names))
    roles: dict[str, Role] = {}
    for name in names:
        if any(fnmatchcase(name, p) for p in frozen):
            roles[name] = "frozen"
        elif any(fnmatchcase(name, p) for p in local):
            roles[name] = "local"
        else:
            wanted = not trainable or any(fnmatchcase(name, p) for p in trainable)
            roles[name] = "trainable" if wanted else "frozen"
    return roles
