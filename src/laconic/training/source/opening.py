"""Opens an ONNX file: one graph in memory, float32, all values at hand, nothing read from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    Version,
    checker,
    defs,
    helper,
    inliner,
)

from laconic.errors import ModelError
from laconic.training.assemble import uses
from laconic.training.backward import STANDARD_DOMAINS, unsupported
from laconic.training.source.microsoft import UNLISTED
from laconic.training.source.precision import to_float32
from laconic.training.source.tensors import LARGEST, array_of
from laconic.training.source.upgrade import OLDEST

QUANTISED = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"),
        *("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu"),
        *("QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearConcat", "QLinearSoftmax", "QGemm"),
        *("QAttention", "MatMulNBits", "MatMulBnb4", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
        *("DynamicQuantizeLSTM", "GatherBlockQuantized"),
    }
)
"""Operators on integers that stand for real numbers."""


_NEWEST_IR = int(Version.IR_VERSION)


@dataclass(frozen=True, slots=True)
class Opened:
    """A file's graph, the values of its initializers in order, and the opset of each domain."""

    graph: GraphProto
    initializers: Mapping[str, NDArray[Any]]
    versions: Mapping[str, int]


def opened(data: bytes, external_data: Mapping[str, bytes] | None = None) -> Opened:
    """Parse a file; `external_data` gives the bytes of other files by the locations that tensors name.

    Raises `ModelError` for bytes that are no model or that point to files which were not given, and for
    quantised models.
    """
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as e:  # protobuf's implementations raise different types
        raise ModelError("the file is not an ONNX model", value=str(e)) from e
    _require_text(model)
    if not model.graph.node:
        raise ModelError("the file is not an ONNX model", value="no nodes")
    for tensor in _tensors(model):
        _place(tensor, external_data)
    versions = _versions(model)
    _refuse_quantised(model)
    if model.graph.sparse_initializer:
        raise ModelError("sparse initializers cannot be trained", remedy="export dense weights")
    if model.functions:
        _give_defaults(model)
        try:
            model = inliner.inline_local_functions(model)
        except Exception as e:  # onnx raises RuntimeError or ValueError, by what is wrong
            raise ModelError("the functions of the model cannot be written out", value=str(e)) from e
    # onnx tells the standard's second spelling from the first, here and in its schemas.
    for node in _nodes(model.graph):
        if node.domain in STANDARD_DOMAINS:
            node.domain = "com.microsoft" if node.op_type in UNLISTED else ""
    del model.opset_import[:]
    for domain, version in versions.items():
        model.opset_import.add(domain=domain, version=version)
    model.ir_version = max(min(model.ir_version, _NEWEST_IR), 4)
    _refuse_unknown(model.graph, versions)
    _sort(model.graph)
    _check(model)
    to_float32(model.graph)
    values = {i.name: array_of(i) for i in model.graph.initializer}
    return Opened(model.graph, values, versions)


def _require_text(model: ModelProto) -> None:
    """Names that are no text come as bytes, which nothing after this expects."""
    texts = [o.domain for o in model.opset_import]
    texts += [i.name for i in (*model.graph.input, *model.graph.output, *model.graph.initializer)]
    for node in _all_nodes(model):
        texts += [node.op_type, node.domain, node.name, *node.input, *node.output]
        texts += [a.name for a in node.attribute]
    if any(not isinstance(t, str) for t in texts):
        raise ModelError("the file is not a valid ONNX model", value="a name that is not UTF-8")


def _refuse_quantised(model: ModelProto) -> None:
    for node in _all_nodes(model):
        if node.op_type in QUANTISED:
            raise ModelError(
                f"the model is quantised: its weights at node {node.name or _first(node)!r} are integers",
                value=node.op_type,
                limit="real numbers",
                remedy="prepare the float32 model that was quantised",
            )


def _give_defaults(model: ModelProto) -> None:
    """Let every call of a function name the attributes that it leaves at their defaults: onnx's inliner
    forgets those."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    for node in _all_nodes(model):
        function = functions.get((node.domain, node.op_type, node.overload))
        if function is not None:
            given = {a.name for a in node.attribute}
            node.attribute.extend(a for a in function.attribute_proto if a.name not in given)


def _versions(model: ModelProto) -> dict[str, int]:
    versions: dict[str, int] = {}
    for imported in model.opset_import:
        domain = "" if imported.domain in STANDARD_DOMAINS else imported.domain
        versions[domain] = max(versions.get(domain, 0), imported.version)
    standard = any(n.domain in STANDARD_DOMAINS for n in _nodes(model.graph))
    version = versions.get("", 0)
    if not version:
        if standard and not model.functions:
            raise ModelError("the model names no opset of the standard domain")
        versions[""] = OLDEST + 11
    elif not OLDEST <= version <= defs.onnx_opset_version():
        raise ModelError(
            "opset of the model",
            value=version,
            limit=f"{OLDEST} to {defs.onnx_opset_version()}",
            remedy="export at opset 18",
        )
    return versions


def _refuse_unknown(graph: GraphProto, versions: Mapping[str, int]) -> None:
    for node in _nodes(graph):
        known = defs.has(node.op_type) if not node.domain else node.domain in ("ai.onnx.ml", "com.microsoft")
        if not known:
            raise unsupported(node, opset=versions.get(node.domain, 0))


def _sort(graph: GraphProto) -> None:
    """Put nodes after those that they read from: onnxruntime takes them in any order."""
    makers = {o: i for i, node in enumerate(graph.node) for o in node.output if o}
    state = [0] * len(graph.node)
    order: list[int] = []
    for start in range(len(graph.node)):
        stack = [start]
        while stack:
            i = stack[-1]
            if state[i] == 0:
                state[i] = 1
                before = {makers[n] for n in uses(graph.node[i]) if n in makers}
                waiting = [j for j in sorted(before, reverse=True) if state[j] == 0]
                if any(state[j] == 1 for j in before):
                    raise ModelError(
                        "the graph has a circle", value=graph.node[i].name or _first(graph.node[i])
                    )
                stack += waiting
            else:
                if state[i] == 1:
                    state[i] = 2
                    order.append(i)
                stack.pop()
    if order != sorted(order):
        nodes = [NodeProto() for _ in order]
        for node, i in zip(nodes, order, strict=True):
            node.CopyFrom(graph.node[i])
        del graph.node[:]
        graph.node.extend(nodes)


def _check(model: ModelProto) -> None:
    """onnx's own check of structure, which asks for one thing too much: shapes of outputs."""
    bare = [o for o in model.graph.output if o.type.HasField("tensor_type")]
    bare = [o for o in bare if not o.type.tensor_type.HasField("shape")]
    for output in bare:
        output.type.tensor_type.shape.SetInParent()
    # Operators of onnxruntime have no schema here: the rest is checked without them.
    foreign = any(n.domain == "com.microsoft" for n in _nodes(model.graph))
    try:
        checker.check_model(model) if not foreign else checker.check_graph(
            _standard_part(model), _context(model)
        )
    except Exception as e:  # onnx raises its own ValidationError, ValueError or TypeError here
        raise ModelError("the file is not a valid ONNX model", value=str(e)) from e
    for output in bare:
        output.type.tensor_type.ClearField("shape")


def _standard_part(model: ModelProto) -> GraphProto:
    """The graph with every foreign node reduced to one of a kind that takes anything."""
    graph = GraphProto()
    graph.CopyFrom(model.graph)
    kept = []
    for node in graph.node:
        if node.domain == "com.microsoft":
            inputs = [i for i in node.input if i]
            for output in filter(None, node.output):
                kept.append(helper.make_node("SequenceConstruct", inputs or [output], [output]))
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    return graph


def _context(model: ModelProto) -> Any:
    context = checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {o.domain: o.version for o in model.opset_import}
    return context


def _all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Those of functions and of all branches, too."""
    yield from _nodes(model.graph)
    for function in model.functions:
        yield from _nodes(function)


def _nodes(graph: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)


def _first(node: NodeProto) -> str:
    return next(filter(None, node.output), "")


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of the file, wherever it stands: one that were missed would be read from disk."""
    yield from model.graph.initializer
    for scope in (model.graph, *model.functions):
        for node in scope.node:
            yield from _held(node.attribute)
    for function in model.functions:
        yield from _held(function.attribute_proto)


def _held(attributes: Iterable[AttributeProto]) -> Iterator[TensorProto]:
    """The tensors that attributes hold: values, and all that stand in graphs."""
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for body in (attribute.g, *attribute.graphs):
            yield from body.initializer
            for node in body.node:
                yield from _held(node.attribute)


def _place(tensor: TensorProto, files: Mapping[str, bytes] | None) -> None:
    """Put a tensor's bytes where they belong, from those that the caller gave."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if files is None or location not in files:
        raise ModelError(
            f"tensor {tensor.name!r} lies in another file",
            value=location,
            limit=sorted(files or ()) or None,
            remedy="give that file's bytes as external_data, or save the model as one file "
            "(onnx.save with save_as_external_data=False)",
        )
    content = files[location]
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        size = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (ValueError, KeyError, TypeError) as e:
        raise ModelError(f"place of tensor {tensor.name!r} in {location!r}", value=entries) from e
    length = size if length < 0 else length
    if (
        offset < 0
        or any(d < 0 for d in tensor.dims)
        or size > LARGEST
        or length < size
        or offset + length > len(content)
    ):
        raise ModelError(
            f"tensor {tensor.name!r} reaches past {location!r}", value=(offset, length), limit=len(content)
        )
    tensor.raw_data = bytes(content[offset : offset + size])
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]
