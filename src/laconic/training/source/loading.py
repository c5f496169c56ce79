"""Reads an ONNX inference model and brings it into the one shape that the rest of the package works on.

That is: opset 18, float32, no functions, branches or sequences, a batch axis of any size, weights lifted out
of the graph, shapes computed where they are known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import count
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

from laconic.errors import ConfigError, ModelError
from laconic.runtime.manifest import Kind, Role, is_reserved
from laconic.training.assemble import live_nodes
from laconic.training.builder import GraphBuilder, TensorType
from laconic.training.forward import lay
from laconic.training.patterns import recognised
from laconic.training.reordering import pooled_first
from laconic.training.rules import RULES
from laconic.training.rules.choice import flat
from laconic.training.source import heads
from laconic.training.source.batch_axis import declared_types
from laconic.training.source.naming import authors_names
from laconic.training.source.opening import Opened, opened
from laconic.training.source.reading import Reading
from laconic.training.source.scopes import rename
from laconic.training.source.translation import translator
from laconic.training.source.weights import lifted


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
    """A model ready to be differentiated; `inputs` and `outputs` are tensor names, described in `types`.

    `trained` are the outputs that losses are put on. Where the model gives names of classes, the output is
    the class's index, and `classes` has the names.
    """

    nodes: tuple[NodeProto, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, NDArray[Any]]
    parameters: tuple[SourceParameter, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    trained: tuple[str, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def builder(self) -> GraphBuilder:
        """A builder that holds the forward pass of inference, with weights and data as inputs."""
        graph = GraphBuilder((), self.types, self.constants)
        lay(graph, self.nodes)
        return graph

    def prediction(self, output: str, absorbs: Collection[str]) -> str:
        """The tensor that a loss on `output` works on: the output, or what goes into a final activation that
        the loss contains itself; for labels, the scores that they were chosen from."""
        return heads.prediction(self.nodes, self.types, self.constants, output, absorbs)


def load(
    data: bytes,
    *,
    trained: Sequence[str] = (),
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    trainable: Sequence[str] = (),
    frozen: Sequence[str] = (),
    local: Sequence[str] = (),
    external_data: Mapping[str, bytes] | None = None,
) -> Source:
    """Read a model.

    `trained` names the outputs that losses are put on; without it, the first output of real numbers. A
    parameter that reaches none of them is frozen. `input_shapes` fixes the shape of one sample of an input
    that was exported with other dynamic axes than the batch. `trainable`, `frozen` and `local` are shell
    patterns of parameter names; with `trainable`, all that match neither it nor `local` are frozen, else all
    others are trainable. `external_data` gives the bytes of files that hold the model's tensors, by the
    location that the model names; nothing is read from disk. Raises `ModelError` (with
    `UnsupportedOperator`) for the model, `ConfigError` for a pattern or output that matches nothing.
    """
    file = opened(data, external_data)
    outputs = [str(o.name) for o in file.graph.output]
    if not outputs:
        raise ModelError("the model has no outputs")
    for name in trained:
        if name not in outputs:
            raise ConfigError("output of the model", value=name, limit=outputs)
    if renamed := authors_names(file.graph, file.initializers):
        for node in file.graph.node:
            rename(node, renamed)
        file = replace(file, initializers={renamed.get(n, n): a for n, a in file.initializers.items()})
    r = _read(file, outputs, input_shapes or {})
    classes = heads.names_as_indices(r)
    for name in outputs:
        if name not in r.types:
            raise ModelError(f"output {name!r} is a sequence", remedy="export tensors as outputs")
    targets = list(trained) or _default_target(r, outputs)
    composites = recognised(r.nodes, r.types, r.constants, r.weights, outputs)
    reordered, moved = pooled_first(composites, r.types, outputs)
    r.types.update(moved)
    nodes = live_nodes(reordered, outputs)
    used = {i for node in nodes for i in node.input} | set(outputs)
    reaching = _reaching(nodes, targets, r.weights)
    statistics = {i for node in nodes if node.op_type == "BatchNormalization" for i in node.input[3:5]}
    roles = _roles([n for n in r.weights if n in used], trainable, frozen, local)
    return Source(
        nodes=tuple(nodes),
        types=r.types,
        constants={n: a for n, a in r.constants.items() if n in used},
        parameters=tuple(
            SourceParameter(
                n,
                r.weights[n],
                role if n in reaching else "frozen",
                "statistic" if n in statistics else "weight",
            )
            for n, role in roles.items()
        ),
        inputs=tuple(i.name for i in file.graph.input if i.name in r.inputs and i.name in used),
        outputs=tuple(outputs),
        trained=tuple(targets),
        classes=classes,
    )


def check_interface(source: Source) -> None:
    """Raise `ModelError` for a model that leaves nothing to feed or to train, or uses a reserved name;
    `ConfigError` where only the patterns leave nothing to train."""
    names = [*(p.name for p in source.parameters), *source.inputs, *source.outputs]
    if taken := [n for n in names if is_reserved(n)]:
        raise ModelError(
            "name of a parameter, input or output is reserved", value=taken[0], remedy="rename it"
        )
    if not source.inputs:
        raise ModelError(f"outputs {source.outputs} depend on no data input")
    weights = [p for p in source.parameters if p.kind == "weight"]
    if not weights:
        raise ModelError("the model has no trainable float32 parameter", remedy="export in float32")
    if not any(p.role == "trainable" for p in weights):
        raise ConfigError(
            "no parameter is left that trains and is sent",
            value={p.name: p.role for p in weights},
            remedy="let fewer be frozen or local, or more be trainable",
        )


_MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What attributes or constants of the wrong kind lead to, where onnx's own checks let them pass."""

_WEIGHTED = frozenset({"Gemm", "Conv", "ConvTranspose"})


def _read(file: Opened, outputs: Sequence[str], input_shapes: Mapping[str, Sequence[int]]) -> Reading:
    graph = file.graph
    live = live_nodes(graph.node, outputs)
    del graph.node[:]
    graph.node.extend(live)
    needed = {name for node in live for name in _names_within(node)} | set(outputs)
    # Up to IR 3, initializers were declared as inputs as well.
    declared = [i for i in graph.input if i.name not in file.initializers and i.name in needed]
    types, traced = declared_types(declared, input_shapes)
    initializers = {n: a for n, a in file.initializers.items() if n in needed}
    classical = any(node.domain == "ai.onnx.ml" for node in graph.node)
    weights = lifted(graph, initializers, types, prepared=classical)
    renamed = _make_way(graph, [n for n in initializers if n not in weights], outputs)
    initializers = {renamed.get(n, n): a for n, a in initializers.items()}
    fed = [n.input[1] for n in graph.node if n.op_type in _WEIGHTED and len(n.input) > 1]
    if not weights and any(name in types for name in fed):
        raise ModelError(
            "the model has no trainable float32 parameter",
            value=f"inputs {sorted(types)} and no weights",
            remedy="export with the weights inside the file",
        )
    r = Reading(translator(file.versions), [*needed, *file.initializers, *renamed.values()], traced)
    r.outputs, r.inputs = set(outputs), set(types)
    for name, kind in types.items():
        r.declare(name, kind)
    for name, value in weights.items():
        r.weights[name] = value
        r.varying.add(name)
        r.declare(name, TensorType(TensorProto.FLOAT, value.shape))
    for name, array in initializers.items():
        if name not in weights:
            r.enter(name, array)
    for node in graph.node:
        if node.op_type == "Constant" and node.output and node.output[0] in weights:
            continue
        try:
            r.read(node, file.versions[""])
        except _MALFORMED as e:
            raise ModelError(f"node {node.name or node.output[0]!r} ({node.op_type})", value=str(e)) from e
    heads.canonical_heads(r, outputs if classical else ())
    return r


def _reaching(nodes: Sequence[NodeProto], targets: Sequence[str], weights: Collection[str]) -> set[str]:
    """Tensors that a gradient may reach from the targets: not those that matter only once rounded.

    Raises `ModelError` if that leaves no weight to train.
    """
    read = {i for node in live_nodes(nodes, targets) for i in node.input}
    carrying = [node for node in nodes if RULES.get(node.op_type) is not flat]
    reached = {i for node in live_nodes(carrying, targets) for i in node.input}
    if read & set(weights) and not reached & set(weights):
        flats = sorted({n.op_type for n in live_nodes(nodes, targets) if RULES.get(n.op_type) is flat})
        raise ModelError(
            f"no gradient reaches a weight from output {targets[0]!r}",
            value=f"behind {', '.join(flats)}",
            remedy="export with what goes into it as an output, and train on that",
        )
    return reached


def _default_target(r: Reading, outputs: Sequence[str]) -> list[str]:
    """The first output of real numbers: scikit-learn's classifiers give labels before probabilities."""
    real = [n for n in outputs if r.types[n].dtype == TensorProto.FLOAT]
    return (real or list(outputs))[:1]


def _names_within(node: NodeProto) -> list[str]:
    names = [*node.input, *node.output]
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            names += [i.name for i in attribute.g.initializer]
            names += [n for inner in attribute.g.node for n in _names_within(inner)]
    return [n for n in names if n]


def _make_way(graph: GraphProto, constants: Sequence[str], outputs: Collection[str]) -> dict[str, str]:
    """Rename inner tensors and constants that bear a name which the training graphs need."""
    taken = {n for node in graph.node for n in _names_within(node)}
    renamed: dict[str, str] = {}
    for name in (*constants, *(o for node in graph.node for o in node.output)):
        if is_reserved(name) and name not in outputs:
            renamed[name] = next(n for n in (f"inner/{name}/{i}" for i in count()) if n not in taken)
    for node in graph.node if renamed else ():
        rename(node, renamed)
    return renamed


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
