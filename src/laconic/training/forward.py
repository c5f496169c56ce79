"""Lays the forward pass: every node of the source model as it is, or in the form that its family gives it.

Forms exist for operators that act differently in training (BatchNormalization, Dropout), that opset 18 does
not have (Gelu), or whose gradient can use something that the forward pass computes anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from onnx import NodeProto

from laconic.training.builder import GraphBuilder
from laconic.training.rules import FORMS, Application, Form, Saved, Training, key


def lay(
    graph: GraphBuilder,
    nodes: Sequence[NodeProto],
    training: Training | None = None,
    moving: Collection[str] | None = None,
    forms: Mapping[str, Form] = FORMS,
) -> dict[str, Saved]:
    """Append the forward pass of `nodes` to `graph`; what forms saved, by `key` of the node.

    Without `training` the pass is that of evaluation and inference. `moving` are the tensors that depend on a
    trained weight (`laconic.training.backward.varying`): a form may spare itself what only a gradient needs.
    """
    saved: dict[str, Saved] = {}
    for node in nodes:
        form = forms.get(node.op_type)
        if form is None:
            graph.append(node)
        else:
            wanted = tuple(moving is None or i in moving for i in node.input)
            saved[key(node)] = form(Application(graph, node, wanted), training)
    return saved
