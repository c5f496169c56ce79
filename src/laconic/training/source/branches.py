"""Takes the branch of an If whose condition is known, as exporters write them for what a shape decides."""

from __future__ import annotations

from onnx import NodeProto

from laconic.errors import ModelError
from laconic.training.backward import unsupported
from laconic.training.source.reading import Reading
from laconic.training.source.scopes import rename
from laconic.training.source.shape_values import numbers
from laconic.training.source.tensors import array_of
from laconic.training.source.weights import lifted


def taken(r: Reading, node: NodeProto, version: int) -> bool:
    """Read the branch's nodes in place of an If; False for any other node.

    The branch's own names give way to those that exist, since the other branch may have the same; its
    initializers may be weights. Raises `UnsupportedOperator` where the condition is known only at run time.
    """
    if node.op_type != "If":
        return False
    values = r.values(node.input[0]) if node.input else None
    condition = None if values is None else numbers(values)
    if condition is None or condition.size != 1:
        raise unsupported(node, opset=version)
    wanted = "then_branch" if bool(condition.reshape(())) else "else_branch"
    branch = next((a.g for a in node.attribute if a.name == wanted), None)
    if branch is None:
        raise ModelError(f"node {node.name!r} (If) has no {wanted}")
    renamed: dict[str, str] = {}
    initializers = {i.name: array_of(i) for i in branch.initializer}
    weights = lifted(branch, initializers, ())
    for name, array in initializers.items():
        renamed[name] = r.weight(name, array) if name in weights else r.enter(r.fresh(name), array)
    for name in (o for n in branch.node for o in n.output if o):
        renamed[name] = r.fresh(name)
    for inner in branch.node:
        copy = NodeProto()
        copy.CopyFrom(inner)
        rename(copy, renamed)
        r.read(copy, version)
    for name, result in zip(node.output, branch.output, strict=False):
        if name:
            # What the branch returns may come from around it.
            r.alias(name, renamed.get(result.name, result.name))
    return True
