"""onnxruntime's own operators that say in one node what the standard says in several."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import NodeProto, helper

from laconic.training.backward import unsupported
from laconic.training.source.reading import Reading
from laconic.training.source.tensors import attributes

Write = Callable[[Reading, NodeProto], None]


def _outputs(node: NodeProto) -> list[str]:
    return [node.output[0]]


def _gelu(r: Reading, x: str, output: str, approximate: str = "none") -> None:
    r.read(helper.make_node("Gelu", [x], [output], approximate=approximate), 20)


def _plain_gelu(r: Reading, node: NodeProto) -> None:
    _gelu(r, node.input[0], node.output[0])


def _bias_gelu(r: Reading, node: NodeProto) -> None:
    _gelu(r, r.op("Add", node.input[0], node.input[1]), node.output[0])


def _fast_gelu(r: Reading, node: NodeProto) -> None:
    x = node.input[0]
    if len(node.input) > 1 and node.input[1]:
        x = r.op("Add", x, node.input[1])
    _gelu(r, x, node.output[0], "tanh")


def _quick_gelu(r: Reading, node: NodeProto) -> None:
    x, alpha = node.input[0], attributes(node).get("alpha", 1.702)
    gate = r.op("Sigmoid", r.op("Mul", x, r.floats(alpha)))
    r.op("Mul", x, gate, outputs=_outputs(node))


def _transposed(r: Reading, x: str, node: NodeProto) -> str:
    rank = r.rank(x)
    if rank is None:
        raise unsupported(node)
    if rank < 2:
        return x
    return r.op("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])


def _fused_matmul(r: Reading, node: NodeProto) -> None:
    settings = attributes(node)
    if settings.get("transBatchA") or settings.get("transBatchB"):
        raise unsupported(node)
    a, b = node.input[:2]
    a = _transposed(r, a, node) if settings.get("transA") else a
    b = _transposed(r, b, node) if settings.get("transB") else b
    alpha = settings.get("alpha", 1.0)
    if alpha == 1.0:
        r.op("MatMul", a, b, outputs=_outputs(node))
    else:
        r.op("Mul", r.op("MatMul", a, b), r.floats(alpha), outputs=_outputs(node))


def _activated(r: Reading, node: NodeProto, x: str) -> None:
    settings = attributes(node)
    name, given = (
        settings.get("activation", ""),
        settings.get("activation_params", settings.get("activation_alpha")),
    )
    params = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    if name in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Identity", ""):
        r.op(name or "Identity", x, outputs=_outputs(node))
    elif name in ("LeakyRelu", "Elu") and len(params) == 1:
        r.op(name, x, outputs=_outputs(node), alpha=params[0])
    elif name == "Clip" and len(params) == 2:
        r.op("Clip", x, r.floats(params[0]), r.floats(params[1]), outputs=_outputs(node))
    elif name == "HardSigmoid" and len(params) == 2:
        r.op("HardSigmoid", x, outputs=_outputs(node), alpha=params[0], beta=params[1])
    else:
        raise unsupported(node)


def _fused_conv(r: Reading, node: NodeProto) -> None:
    settings = {k: v for k, v in attributes(node).items() if not k.startswith("activation")}
    x = r.op("Conv", *[i for i in node.input[:3] if i], **settings)
    if len(node.input) > 3 and node.input[3]:
        x = r.op("Add", x, node.input[3])
    _activated(r, node, x)


def _fused_gemm(r: Reading, node: NodeProto) -> None:
    settings = {k: v for k, v in attributes(node).items() if not k.startswith("activation")}
    _activated(r, node, r.op("Gemm", *[i for i in node.input if i], **settings))


def _optional(node: NodeProto, index: int) -> str:
    return node.input[index] if index < len(node.input) else ""


def _skip_sum(r: Reading, node: NodeProto, bias: str, sum_output: int) -> str:
    total = r.op("Add", node.input[0], node.input[1])
    if bias:
        total = r.op("Add", total, bias)
    if len(node.output) > sum_output and node.output[sum_output]:
        r.alias(node.output[sum_output], total)
    if any(o for i, o in enumerate(node.output) if i not in (0, sum_output)):
        raise unsupported(node)
    return total


def _skip_layer_normalization(r: Reading, node: NodeProto) -> None:
    total = _skip_sum(r, node, _optional(node, 4), 3)
    inputs = [total, node.input[2], *([node.input[3]] if _optional(node, 3) else [])]
    epsilon = attributes(node).get("epsilon", 1e-12)
    r.op("LayerNormalization", *inputs, outputs=_outputs(node), axis=-1, epsilon=epsilon)


def _rms(r: Reading, x: str, scale: str, output: str, axis: int, epsilon: float) -> None:
    node = helper.make_node("RMSNormalization", [x, scale], [output], axis=axis, epsilon=epsilon)
    r.read(node, 23)


def _simplified_layer_normalization(r: Reading, node: NodeProto) -> None:
    if any(node.output[1:]):
        raise unsupported(node)
    settings = attributes(node)
    _rms(
        r,
        node.input[0],
        node.input[1],
        node.output[0],
        settings.get("axis", -1),
        settings.get("epsilon", 1e-5),
    )


def _skip_simplified(r: Reading, node: NodeProto) -> None:
    total = _skip_sum(r, node, _optional(node, 3), 3)
    _rms(r, total, node.input[2], node.output[0], -1, attributes(node).get("epsilon", 1e-12))


def _layer_normalization(r: Reading, node: NodeProto) -> None:
    r.op("LayerNormalization", *node.input, outputs=list(node.output), **attributes(node))


def _split_gelu(r: Reading, node: NodeProto) -> None:
    """BiasSplitGelu: the first half times the Gelu of the second."""
    x = r.op("Add", node.input[0], node.input[1])
    rank = r.rank(x)
    if rank is None:
        raise unsupported(node)
    halves = [r.fresh("read/half"), r.fresh("read/half")]
    r.op("Split", x, outputs=halves, axis=rank - 1, num_outputs=2)
    gate = r.fresh("read/gate")
    _gelu(r, halves[1], gate)
    r.op("Mul", r.now(halves[0]), r.now(gate), outputs=_outputs(node))


def _grid(r: Reading, node: NodeProto) -> None:
    r.op("GridSample", *node.input, outputs=_outputs(node), **attributes(node))


def _pad(r: Reading, node: NodeProto) -> None:
    r.op("Pad", *node.input, outputs=_outputs(node), **attributes(node))


def _expand_dims(r: Reading, node: NodeProto) -> None:
    axis = r.value(node.input[1])
    if axis is None:
        raise unsupported(node)
    r.op(
        "Unsqueeze", node.input[0], r.constant(np.asarray(axis).reshape(-1), np.int64), outputs=_outputs(node)
    )


OPERATORS: Mapping[str, Write] = {
    "Gelu": _plain_gelu,
    "BiasGelu": _bias_gelu,
    "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu,
    "BiasSplitGelu": _split_gelu,
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "LayerNormalization": _layer_normalization,
    "SkipLayerNormalization": _skip_layer_normalization,
    "SimplifiedLayerNormalization": _simplified_layer_normalization,
    "SkipSimplifiedLayerNormalization": _skip_simplified,
    "ExpandDims": _expand_dims,
    "GridSample": _grid,
    "Pad": _pad,
}
"""How each is written in the standard; the others of the domain are refused."""

UNLISTED = frozenset({"SimplifiedLayerNormalization"})
"""Operators that onnxruntime keeps in the standard's domain without being in the standard."""
