"""What operators of older and newer opsets are in opset 18.

Only those stand here whose inputs, attributes or meaning changed; all others are taken over as they are.
Sources: the operator changelog of the ONNX standard, opsets 7 to 28.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, defs, helper

from laconic.errors import ModelError
from laconic.training.assemble import OPSET
from laconic.training.backward import unsupported
from laconic.training.source.average_pool import as_convolution, needs_convolution
from laconic.training.source.reading import Reading
from laconic.training.source.tensors import attributes

OLDEST = 7
"""Before opset 7, broadcasting was an attribute of arithmetic."""

Upgrade = Callable[[Reading, NodeProto, dict[str, Any]], None]


def upgraded(r: Reading, node: NodeProto, version: int) -> bool:
    """Write a standard operator of another opset; False if opset 18 says the same with the same words."""
    for until, upgrade in _OLDER.get(node.op_type, ()):
        if version < until:
            upgrade(r, node, attributes(node))
            return True
    if version > OPSET and node.op_type in _NEWER:
        since, rewrite = _NEWER[node.op_type]
        if version >= since:
            rewrite(r, node, attributes(node))
            return True
    return False


def taken_over(node: NodeProto, version: int) -> bool:
    """Whether a node of a newer opset means the same at opset 18: it then uses only what that knows."""
    try:
        then = defs.get_schema(node.op_type, OPSET)
    except defs.SchemaError:
        return False
    if version <= OPSET:
        return True
    settings = attributes(node)
    if any(settings.get(name) in later for name, later in _LATER_VALUES.get(node.op_type, {}).items()):
        return False
    return len(node.input) <= then.max_input and all(
        name in then.attributes or _is_default(node.op_type, version, name, value)
        for name, value in settings.items()
    )


def without_defaults(node: NodeProto, version: int) -> NodeProto:
    """The node without attributes that opset 18 does not know: they have their default value."""
    if version <= OPSET:
        return node
    then = defs.get_schema(node.op_type, OPSET)
    kept = [a for a in node.attribute if a.name in then.attributes]
    if len(kept) == len(node.attribute):
        return node
    copy = NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    copy.attribute.extend(kept)
    return copy


_LATER_VALUES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Pad": {"mode": ("wrap",)},
    "Resize": {"coordinate_transformation_mode": ("half_pixel_symmetric",)},
}

_HARMLESS = frozenset({"saturate", "round_mode", "stash_type"})
"""Attributes of newer opsets that change nothing about float32."""


def _is_default(op_type: str, version: int, name: str, value: Any) -> bool:
    if name in _HARMLESS:
        return True
    try:
        schema = defs.get_schema(op_type, min(version, defs.onnx_opset_version()))
    except defs.SchemaError:
        return False
    known = schema.attributes.get(name)
    if known is None:
        return False
    default = helper.get_attribute_value(known.default_value) if known.default_value.name else None
    default = default.decode() if isinstance(default, bytes) else default
    return bool(value == default) or (name == "dilations" and all(d == 1 for d in value))


# --- attributes that became inputs ---


def _emit(r: Reading, node: NodeProto, inputs: list[str], settings: Mapping[str, Any]) -> None:
    while inputs and not inputs[-1]:
        inputs = inputs[:-1]
    known = {k: v for k, v in settings.items() if v is not None}
    r.op(node.op_type, *inputs, outputs=list(node.output), **known)


def _axes_input(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    axes = settings.pop("axes", None)
    _emit(r, node, [node.input[0], "" if axes is None else r.ints(*axes)], settings)


def _clip(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    bounds = [r.floats(settings[n]) if n in settings else "" for n in ("min", "max")]
    _emit(r, node, [node.input[0], *bounds], {})


def _pad(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    pads = settings.pop("pads", None) or settings.pop("paddings", [])
    value = r.floats(settings.pop("value", 0.0))
    _emit(r, node, [node.input[0], r.ints(*pads), value], settings)


def _slice(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    starts, ends = settings["starts"], settings["ends"]
    axes = settings.get("axes", list(range(len(starts))))
    _emit(r, node, [node.input[0], r.ints(*starts), r.ints(*ends), r.ints(*axes)], {})


def _split(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    sizes = settings.pop("split", None)
    if sizes is None:
        _even_split(r, node, settings)
    else:
        _emit(r, node, [node.input[0], r.ints(*sizes)], settings)


def _even_split(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    """Since opset 18 the number of equal parts is an attribute."""
    if len(node.input) > 1 and node.input[1]:
        _emit(r, node, list(node.input), settings)
    else:
        _emit(r, node, [node.input[0]], {**settings, "num_outputs": len(node.output)})


def _top_k(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    _emit(r, node, [node.input[0], r.ints(settings.pop("k"))], settings)


def _dropout(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    """Before opset 12 a Dropout in an exported file does nothing at inference."""
    _emit(r, node, [node.input[0], r.floats(settings.get("ratio", 0.5))], {})


# --- meanings that changed ---


def _coerced(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    """Softmax and its kin before opset 13: over all axes from `axis` on, taken as one."""
    axis, rank = settings.get("axis", 1), r.rank(node.input[0])
    if axis == -1 or (rank is not None and axis == rank - 1):
        r.op(node.op_type, node.input[0], outputs=list(node.output), axis=-1)
        return
    flat = r.op(node.op_type, r.op("Flatten", node.input[0], axis=axis), axis=-1)
    r.op("Reshape", flat, r.op("Shape", node.input[0]), outputs=list(node.output))


def _upsample(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    scales = node.input[1] if len(node.input) > 1 else r.floats(settings.get("scales", []))
    _resize_asymmetric(r, node, settings, scales)


def _resize_10(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    _resize_asymmetric(r, node, settings, node.input[1])


def _resize_asymmetric(r: Reading, node: NodeProto, settings: dict[str, Any], scales: str) -> None:
    """Before opset 11, output positions times 1 / scale, rounded down, gave input positions."""
    mode = {"bilinear": "linear"}.get(settings.get("mode", "nearest"), settings.get("mode", "nearest"))
    how = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if mode == "nearest":
        how["nearest_mode"] = "floor"
    r.op("Resize", node.input[0], "", scales, outputs=list(node.output), **how)


def _resize_11(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    """Opset 11 asks for all inputs, left out as empty tensors; a mode of TensorFlow 1 is gone since 13."""
    if settings.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        raise ModelError(
            f"Resize {node.name or node.output[0]!r}",
            value="tf_half_pixel_for_nn",
            limit="half_pixel, asymmetric, align_corners, pytorch_half_pixel",
            remedy="export at opset 13",
        )
    _resize(r, node, settings)


def _resize(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    inputs = ["" if i in r.constants and r.constants[i].size == 0 else i for i in node.input]
    if settings.get("coordinate_transformation_mode") != "tf_crop_and_resize" and len(inputs) > 1:
        inputs[1] = ""
    _emit(r, node, inputs, settings)


def _scatter(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    r.op("ScatterElements", *node.input, outputs=list(node.output), **settings)


def _grid_sample(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(
        settings.get("mode", "linear"), settings.get("mode")
    )
    r.op("GridSample", *node.input, outputs=list(node.output), **{**settings, "mode": mode})


def _group_normalization(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    """Since opset 21, scale and bias are those of channels, not of groups."""
    x, scale, bias = node.input[:3]
    rank = r.rank(x)
    if rank is None:
        raise unsupported(node)
    groups = int(settings["num_groups"])
    # (N, C, ...) as (N, groups, C/groups * ...): each group is what InstanceNormalization calls a channel.
    grouped = r.op("Reshape", x, r.ints(0, groups, -1))
    ones, zeros = r.floats(np.ones(groups)), r.floats(np.zeros(groups))
    normed = r.op("InstanceNormalization", grouped, ones, zeros, epsilon=settings.get("epsilon", 1e-5))
    back = r.op("Reshape", normed, r.op("Shape", x))
    axes = r.ints(*range(1, rank - 1))
    if rank > 2:
        scale, bias = r.op("Unsqueeze", scale, axes), r.op("Unsqueeze", bias, axes)
    r.op("Add", r.op("Mul", back, scale), bias, outputs=list(node.output))


def _average_pool(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    """Since opset 19: dilations, and windows that reach past the padding are counted in another way."""
    if needs_convolution(settings):
        as_convolution(r, node, settings)
        return
    settings.pop("dilations", None)
    _emit(r, node, list(node.input), settings)


def _cast_like(r: Reading, node: NodeProto, settings: dict[str, Any]) -> None:
    r.op("Cast", node.input[0], outputs=list(node.output), to=r.types[node.input[1]].dtype)


_REDUCTIONS = tuple(
    f"Reduce{name}" for name in ("Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
)

_OLDER: Mapping[str, tuple[tuple[int, Upgrade], ...]] = {
    **dict.fromkeys(_REDUCTIONS, ((18, _axes_input),)),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), ((13, _coerced),)),
    **dict.fromkeys(("ReduceSum", "Squeeze", "Unsqueeze"), ((13, _axes_input),)),
    "Clip": ((11, _clip),),
    "Pad": ((11, _pad),),
    "Slice": ((10, _slice),),
    "Split": ((13, _split), (18, _even_split)),
    "TopK": ((10, _top_k),),
    "Dropout": ((12, _dropout),),
    "Upsample": ((OPSET + 100, _upsample),),
    "Resize": ((11, _resize_10), (13, _resize_11), (18, _resize)),
    "Scatter": ((OPSET + 100, _scatter),),
    "CastLike": ((OPSET + 100, _cast_like),),
}
"""Operator -> (opset, upgrade): how it is written if it comes from before that opset."""

_NEWER: Mapping[str, tuple[int, Upgrade]] = {
    "GridSample": (20, _grid_sample),
    "GroupNormalization": (21, _group_normalization),
    "AveragePool": (19, _average_pool),
}
"""Operator -> (opset, downgrade): how it is written if it comes from that opset or later."""
