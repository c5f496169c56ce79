"""Makes a finished ONNX graph of what a builder holds: drops what is unused, names the rest compactly.

Names of inputs and outputs are the contract with the device and stay; all others are only bytes to carry.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from laconic.errors import ModelError
from laconic.training.builder import GraphBuilder, TensorType, value_info

OPSET = 18
IR_VERSION = 8


def assemble(
    builder: GraphBuilder, name: str, inputs: Sequence[str], outputs: Mapping[str, tuple[str, TensorType]]
) -> GraphProto:
    """A graph whose inputs keep their names, and whose outputs map a public name to (tensor, type)."""
    names = _Names(inputs, avoid=[*inputs, *outputs])
    return _graph(builder, name, inputs, outputs, names)


def assemble_body(
    builder: GraphBuilder,
    name: str,
    inputs: Sequence[str],
    outputs: Mapping[str, tuple[str, TensorType]],
    captured: Sequence[str],
    avoid: Collection[str],
) -> GraphProto:
    """The same as the body of a Scan: inputs and outputs go by position and get new names, since a body must
    not redefine a name of the graph around it (`avoid`); `captured` tensors are read from there."""
    names = _Names(captured, avoid=[*captured, *avoid])
    return _graph(builder, name, inputs, outputs, names, public=False)


def model(graph: GraphProto) -> bytes:
    """The graph as a checked ONNX file, opset 18, IR version 8; equal graphs give equal bytes."""
    proto: ModelProto = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="laconic",
    )
    try:
        checker.check_model(proto, full_check=True)
    except Exception as e:  # onnx raises its own ValidationError or InferenceError here
        raise ModelError(f"the {graph.name} graph made of the model is not valid", value=str(e)) from e
    encoded: bytes = proto.SerializeToString(deterministic=True)
    return encoded


def live_nodes(nodes: Sequence[NodeProto], results: Collection[str]) -> list[NodeProto]:
    """The nodes that some result depends on, in their order."""
    needed, kept = set(results), []
    for node in reversed(nodes):
        if any(o in needed for o in node.output):
            kept.append(node)
            needed.update(uses(node))
    return kept[::-1]


def uses(node: NodeProto) -> Iterator[str]:
    """Names of the tensors that a node reads, those that its loop's body reads from around it included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            own = {i.name for i in attribute.g.input} | {o for n in attribute.g.node for o in n.output}
            yield from (name for n in attribute.g.node for name in uses(n) if name not in own)


class _Names:
    """New names for tensors: `kept` stay, the others are numbered in order of appearance."""

    def __init__(self, kept: Collection[str], avoid: Collection[str]) -> None:
        self._known = {"": "", **{n: n for n in kept}}
        taken = set(avoid)
        self._numbered: Iterator[str] = (n for n in (f"t{i}" for i in itertools.count()) if n not in taken)

    def fix(self, tensor: str, name: str) -> bool:
        """Give `tensor` this very name, unless it has one."""
        return self._known.setdefault(tensor, name) == name

    def __getitem__(self, tensor: str) -> str:
        if tensor not in self._known:
            self._known[tensor] = next(self._numbered)
        return self._known[tensor]


def _graph(
    builder: GraphBuilder,
    name: str,
    inputs: Sequence[str],
    outputs: Mapping[str, tuple[str, TensorType]],
    names: _Names,
    public: bool = True,
) -> GraphProto:
    live = live_nodes(builder.nodes, [tensor for tensor, _ in outputs.values()])
    made = {o for node in live for o in node.output}
    used = {i for node in live for i in uses(node)} | {tensor for tensor, _ in outputs.values()}
    declared = [value_info(names[i], builder.types[i].dtype, builder.types[i].shape) for i in inputs]
    tail, results, seen = [], [], set()
    for public_name, (tensor, kind) in outputs.items():
        # A tensor that nobody makes here, or that is a result already, reaches the outside through a copy.
        own = tensor in made and tensor not in seen
        seen.add(tensor)
        if public:
            result = public_name
            own = own and names.fix(tensor, public_name)
        else:
            result = names[tensor] if own else names[f"copy of {tensor} as {public_name}"]
        if not own:
            tail.append(helper.make_node("Identity", [names[tensor]], [result], name=result))
        results.append(value_info(result, kind.dtype, kind.shape))
    nodes = [_renamed(node, names, used) for node in live]
    constants = [
        numpy_helper.from_array(array, names[n]) for n, array in builder.constants.items() if n in used
    ]
    graph: GraphProto = helper.make_graph([*nodes, *tail], name, declared, results, initializer=constants)
    return graph


def _renamed(node: NodeProto, names: _Names, used: Collection[str]) -> NodeProto:
    out = NodeProto()
    out.op_type = node.op_type
    out.input.extend(names[i] for i in node.input)
    out.output.extend(names[o] for o in node.output)
    # Releases of onnxruntime up to 1.20 at least take nameless nodes that they fuse for one and the same.
    out.name = next(filter(None, out.output), "")
    for attribute in node.attribute:
        kept = out.attribute.add()
        kept.CopyFrom(attribute)
        if attribute.type == AttributeProto.GRAPH:
            kept.g.CopyFrom(_renamed_body(attribute.g, names))
    # Optional outputs that nobody reads are not asked for: some cost time.
    while (
        node.op_type not in _ALL_OUTPUTS
        and len(out.output) > 1
        and node.output[len(out.output) - 1] not in used
    ):
        del out.output[-1]
    return out


_ALL_OUTPUTS = frozenset({"If", "Loop", "Scan", "Split", "TopK"})
"""Operators that must name as many outputs as they make."""


def _renamed_body(body: GraphProto, names: _Names) -> GraphProto:
    """A loop's body: its names are unique in the whole model, so one mapping serves all depths."""
    live = live_nodes(body.node, [o.name for o in body.output])
    used = {i for node in live for i in uses(node)} | {o.name for o in body.output}
    out = GraphProto(name=body.name)
    for source, target in ((body.input, out.input), (body.output, out.output)):
        for info in source:
            copy = target.add()
            copy.CopyFrom(info)
            copy.name = names[info.name]
    out.node.extend(_renamed(node, names, used) for node in live)
    return out


SCALAR = TensorType(TensorProto.FLOAT, ())
"""A float32 scalar."""
