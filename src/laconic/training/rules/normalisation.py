"""Forms and gradient rules of normalisations that have weights: by batch, layer, instance and group.

All of them are y = scale * h + bias with h = (x - mean) / sqrt(var + epsilon). Where mean and variance are
those of x itself, with d = scale * dy and means over the elements that they are taken over,
dx = (d - mean(d) - h * mean(d * h)) / sqrt(var + epsilon) (Ioffe & Szegedy, ICML 2015, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from laconic.errors import ModelError
from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Form, Gradients, Rule, Saved, Training, only

_LARGE = 4096
"""Elements of a sample from which on BatchNormalization spares a pass over them by a choice at run time."""


def batch_normalization_form(a: Application, training: Training | None) -> Saved:
    """By the statistics of the batch where this step moves the running ones, else by those given.

    onnxruntime's own kernel for training writes its new statistics over its inputs, and its variance is the
    biased one; means and inference-mode BatchNormalization take 4 % longer and do neither. A variance that
    lossy averaging has made negative counts as 0. Saves `var`, and for the batch's statistics `x` and the
    `mean` of each channel of that, where it is not 0.
    """
    g = a.graph
    x, scale, bias, mean, var = a.inputs
    if training is None or mean not in training.statistics or var not in training.statistics:
        held = var if g.value(var) is not None else g.op("Max", var, g.scalar(0.0))
        _append(a, "BatchNormalization", [x, scale, bias, mean, held], [a.output], epsilon=_epsilon(a))
        return {"var": held}
    batch_mean = g.op("ReduceMean", x, g.ints(*_but_channels(g, x)), keepdims=0)
    if _is_large(g, x):
        batch_var = _variance(a, batch_mean)
        saved = {"x": x, "mean": batch_mean, "var": batch_var}
    else:
        centred, batch_var = _centred(g, a, batch_mean)
        saved = {"x": centred, "var": batch_var}
    inputs = [saved["x"], scale, bias, saved.get("mean", _vector(g, x, 0.0)), batch_var]
    _append(a, "BatchNormalization", inputs, [a.output], epsilon=_epsilon(a))
    _move_statistics(a, training, {mean: batch_mean, var: batch_var})
    return saved


def batch_normalization(a: Application, dys: Gradients) -> Gradients:
    """dx, dscale and dbias; in training mode no gradient reaches the running statistics."""
    if "x" in a.saved:
        return _by_batch(a, only(dys))
    return _by_given(a, only(dys))


def layer_normalization_form(a: Application, training: Training | None) -> Saved:
    """The node itself, asked for the mean and the inverse deviation that it computes anyway."""
    g, x = a.graph, a.inputs[0]
    shown = [*map(str, a.node.output), "", ""]
    mean, inverse = (shown[i] or g.fresh(hint) for i, hint in ((1, "mean"), (2, "inverse")))
    axis = int(a.attribute("axis", -1)) % len(g.shape(x))
    if g.real == TensorProto.FLOAT:
        attributes = {"axis": axis, "epsilon": _epsilon(a)}
        _append(a, "LayerNormalization", a.inputs, [a.output, mean, inverse], **attributes)
        return {"mean": mean, "inverse": inverse}
    # The operator's second and third output are float32 by its definition.
    mean, inverse, normal = _moments(g, x, range(axis, len(g.shape(x))), _epsilon(a))
    scaled = g.op("Mul", normal, a.inputs[1])
    if len(a.inputs) > 2 and a.inputs[2]:
        scaled = g.op("Add", scaled, a.inputs[2])
    _append(a, "Identity", [scaled], [a.output])
    return {"mean": mean, "inverse": inverse}


def layer_normalization(a: Application, dys: Gradients) -> Gradients:
    """dx, dscale and dbias (Ba et al., 2016); a loss on the outputs Mean or InvStdDev is refused."""
    if any(dys[1:]):
        raise ModelError(
            f"mean of LayerNormalization {a.output!r} reaches the loss", remedy="compute it by ReduceMean"
        )
    g, dy = a.graph, only(dys)
    x, scale = a.inputs[:2]
    shape = g.shape(x)
    axis = int(a.attribute("axis", -1)) % len(shape)
    tail = [d for d in shape[axis:] if isinstance(d, int)]
    if all(g.shape(i) == tuple(tail) for i in a.inputs[1:]) and len(tail) == len(shape) - axis:
        return _by_rows(a, dy, math.prod(tail))
    inverse = a.saved["inverse"]
    normal = g.op("Mul", g.op("Sub", x, a.saved["mean"]), inverse)
    dx = dscale = dbias = None
    if a.wanted[0]:
        d = g.op("Mul", dy, scale)
        axes = g.ints(*range(axis, len(shape)))
        level = g.op("ReduceMean", d, axes, keepdims=1)
        slope = g.op("ReduceMean", g.op("Mul", d, normal), axes, keepdims=1)
        rest = g.op("Sub", g.op("Sub", d, level), g.op("Mul", normal, slope))
        dx = g.op("Mul", rest, inverse)
    if a.wanted[1]:
        dscale = g.sum_to(g.op("Mul", dy, normal), shape, scale)
    if len(a.inputs) < 3:
        return dx, dscale
    if a.wanted[2]:
        dbias = g.sum_to(dy, shape, a.inputs[2])
    return dx, dscale, dbias


def _by_rows(a: Application, dy: str, width: int) -> Gradients:
    """The same with x as (1, rows, width): a row's affine map is a BatchNormalization's of a channel.

    Against products with broadcasting: 0.24 ms for 0.29 ms at 1024 rows of 64, 1 microsecond more at 32 rows.
    """
    g = a.graph
    x, scale = a.inputs[:2]
    mean, inverse = (g.reshape(a.saved[n], -1) for n in ("mean", "inverse"))
    # With an epsilon of 1, a variance of 0 divides by 1: no second vector of that length is needed.
    zero = g.op("Sub", inverse, inverse)
    dy = g.reshape(dy, 1, -1, width)
    normal = g.op("BatchNormalization", g.reshape(x, 1, -1, width), inverse, zero, mean, zero, epsilon=1.0)
    dx = dscale = dbias = None
    if a.wanted[0]:
        d = g.op("Mul", dy, g.reshape(scale, width))
        level = g.op("ReduceMean", d, g.ints(0, 2), keepdims=0)
        slope = g.op("ReduceMean", g.op("Mul", d, normal), g.ints(0, 2), keepdims=0)
        straight = g.op("BatchNormalization", d, inverse, zero, level, zero, epsilon=1.0)
        slope = g.op("Mul", slope, inverse)
        back = g.op("BatchNormalization", normal, slope, zero, zero, zero, epsilon=1.0)
        dx = g.reshape_like(g.op("Sub", straight, back), x)
    if a.wanted[1]:
        dscale = g.op("ReduceSum", g.op("Mul", dy, normal), g.ints(0, 1), keepdims=0)
        dscale = g.reshape_like(dscale, scale)
    if len(a.inputs) < 3:
        return dx, dscale
    if a.wanted[2]:
        dbias = g.reshape_like(g.op("ReduceSum", dy, g.ints(0, 1), keepdims=0), a.inputs[2])
    return dx, dscale, dbias


def group_normalization_form(a: Application, training: Training | None) -> Saved:
    """InstanceNormalization (a group is a channel) and GroupNormalization, by LayerNormalization of rows.

    A scale has one entry for each group, as at opset 18, or one for each channel, as from opset 21 on: its
    length tells. Saves `normal`, as (batch, groups, elements), and the `inverse` deviation of each group.
    """
    g = a.graph
    x, scale, bias = a.inputs
    groups, width = _groups(a), g.static(scale)[0]
    rows = g.reshape(x, 0, groups, -1)
    if g.real == TensorProto.FLOAT:
        known = [d for d in g.shape(x)[1:] if isinstance(d, int)]
        size = g.op("Shape", rows, start=2)
        if len(known) == len(g.shape(x)) - 1:
            size = g.ints(math.prod(known) // groups)
        ones = g.op("Expand", g.scalar(1.0), size)
        normal, _, inverse = g.ops("LayerNormalization", rows, ones, outputs=3, axis=-1, epsilon=_epsilon(a))
    else:
        _, inverse, normal = _moments(g, rows, [2], _epsilon(a))
    if training is None and a.node.op_type == "InstanceNormalization":
        # One kernel; what is saved is dropped where nobody asks for it.
        _append(a, "InstanceNormalization", a.inputs, [a.output], epsilon=_epsilon(a))
    else:
        by_scale = normal if width == groups else g.reshape(normal, 0, width, -1)
        zero, one = (g.floats(np.full(width, v)) for v in (0.0, 1.0))
        scaled = g.op("BatchNormalization", by_scale, scale, bias, zero, one, epsilon=0.0)
        _append(a, "Identity", [g.reshape_like(scaled, x)], [a.output])
    return {"normal": normal, "inverse": inverse}


def group_normalization(a: Application, dys: Gradients) -> Gradients:
    """dx, dscale and dbias of InstanceNormalization and GroupNormalization (Wu & He, ECCV 2018)."""
    g = a.graph
    x, scale = a.inputs[:2]
    groups, width = _groups(a), g.static(scale)[0]
    normal, inverse = a.saved["normal"], a.saved["inverse"]
    dy = g.reshape(only(dys), 0, width, -1)
    by_scale = normal if width == groups else g.reshape(normal, 0, width, -1)
    along = g.op("ReduceSum", g.op("Mul", dy, by_scale), g.ints(2), keepdims=1)
    total = g.op("ReduceSum", dy, g.ints(2), keepdims=1)
    dx = None
    if a.wanted[0]:
        column = g.reshape(scale, width, 1)
        d, factor, level, slope = dy, inverse, total, along
        if width == groups:
            factor = g.op("Mul", inverse, column)
        else:
            d = g.reshape(g.op("Mul", dy, column), 0, groups, -1)
            level, slope = (_by_group(g, g.op("Mul", t, column), groups) for t in (total, along))
        count = _count(g, x, range(2, len(g.shape(x))), g.static(x, 1)[0] // groups)
        level, slope = g.op("Div", level, count), g.op("Div", slope, count)
        rest = g.op("Sub", g.op("Sub", d, level), g.op("Mul", normal, slope))
        dx = g.reshape_like(g.op("Mul", rest, factor), x)
    dscale = g.op("ReduceSum", along, g.ints(0, 2), keepdims=0) if a.wanted[1] else None
    dbias = g.op("ReduceSum", total, g.ints(0, 2), keepdims=0) if a.wanted[2] else None
    return dx, dscale, dbias


def _is_large(g: GraphBuilder, x: str) -> bool:
    """Whether a pass over `x` takes longer than the handful of small nodes that can save it."""
    sizes = g.shape(x)[1:]
    return math.prod(d for d in sizes if isinstance(d, int)) >= _LARGE or any(
        isinstance(d, str) for d in sizes
    )


def _centred(b: GraphBuilder, a: Application, mean: str) -> tuple[str, str]:
    """x less its mean, and its variance.

    A BatchNormalization subtracts from each channel in 0.24 ms (512 thousand elements), Sub in 0.32 to 0.4.
    """
    x = a.inputs[0]
    one, zero = (_vector(a.graph, x, v) for v in (1.0, 0.0))
    centred = b.op("BatchNormalization", x, one, zero, mean, one, epsilon=0.0)
    return centred, _mean_square(b, a, centred)


def _mean_square(b: GraphBuilder, a: Application, x: str) -> str:
    return b.op("ReduceMean", b.op("Mul", x, x), b.ints(*_but_channels(a.graph, a.inputs[0])), keepdims=0)


def _variance(a: Application, mean: str) -> str:
    """The mean of squares less the square of the mean, where that keeps its digits; else of what is centred.

    Rounding grows with mean^2 / (var + epsilon). Only where that exceeds 64 for some channel, so that an
    error of 4e-6 is possible, x is centred first. That spares most layers a pass over x and a copy of it: a
    step of ResNet-8 or MobileNet blocks takes 5 % less at batch 32, and as long as before at batch 1.
    """
    g = a.graph
    power = _mean_square(g, a, a.inputs[0])
    square = g.op("Mul", mean, mean)
    difference = g.op("Sub", power, square)
    least = g.op("Add", g.op("Mul", square, g.scalar(-1 / 64)), g.scalar(_epsilon(a)))
    near = g.op("ReduceMin", g.op("Add", difference, least), keepdims=0)
    var = g.fresh("var")
    g.either(
        g.op("Greater", near, g.scalar(0.0)),
        lambda b: [b.op("Max", difference, b.scalar(0.0))],
        lambda b: [_centred(b, a, mean)[1]],
        [var],
    )
    return var


def _by_batch(a: Application, dy: str) -> Gradients:
    """Six passes over the data: two sums, a product, a difference and two affine maps by channel.

    The affine maps are inference-mode BatchNormalization, which onnxruntime runs up to three times as fast as
    a product with broadcasting; ReduceSum is at least as fast as any product with ones. As a difference of
    sums, that of dy (x - mean) loses no more digits than x has lost by being far from 0.
    """
    g = a.graph
    scale, x, var, mean = a.inputs[1], a.saved["x"], a.saved["var"], a.saved.get("mean")
    every = _but_channels(g, a.inputs[0])
    epsilon = _epsilon(a)
    shifted = g.op("Add", var, g.scalar(epsilon))
    total = g.op("ReduceSum", dy, g.ints(*every), keepdims=0)
    along = g.op("ReduceSum", g.op("Mul", dy, x), g.ints(*every), keepdims=0)
    if mean is not None:
        along = g.op("Sub", along, g.op("Mul", total, mean))
    dx = None
    if a.wanted[0]:
        count, zero = _count(g, a.inputs[0], every), _vector(g, a.inputs[0], 0.0)
        slope = g.op("Div", g.op("Mul", along, scale), g.op("Mul", shifted, count))
        level = g.op("Div", total, count)
        straight = g.op("BatchNormalization", dy, scale, zero, level, var, epsilon=epsilon)
        back = g.op("BatchNormalization", x, slope, zero, mean or zero, var, epsilon=epsilon)
        dx = g.op("Sub", straight, back)
    dscale = g.op("Div", along, g.op("Sqrt", shifted)) if a.wanted[1] else None
    return dx, dscale, total if a.wanted[2] else None, None, None


def _by_given(a: Application, dy: str) -> Gradients:
    """With statistics that do not depend on x, the operator is an affine map of each channel."""
    g = a.graph
    x, scale, _, mean, var = a.inputs
    var = a.saved.get("var", var)
    epsilon = _epsilon(a)
    axes = g.ints(*_but_channels(g, x))
    zero, one = _vector(g, x, 0.0), _vector(g, x, 1.0)
    dx = dscale = dmean = dvar = None
    if a.wanted[0]:
        dx = g.op("BatchNormalization", dy, scale, zero, zero, var, epsilon=epsilon)
    dbias = g.op("ReduceSum", dy, axes, keepdims=0)
    if a.wanted[1] or a.wanted[4]:
        normal = g.op("BatchNormalization", x, one, zero, mean, var, epsilon=epsilon)
        dscale = g.op("ReduceSum", g.op("Mul", dy, normal), axes, keepdims=0)
    if a.wanted[3] or a.wanted[4]:
        shifted = g.op("Add", var, g.scalar(epsilon))
        if a.wanted[3]:
            dmean = g.op("Neg", g.op("Div", g.op("Mul", dbias, scale), g.op("Sqrt", shifted)))
        if dscale is not None and a.wanted[4]:
            dvar = g.op("Div", g.op("Mul", g.op("Mul", dscale, scale), g.scalar(-0.5)), shifted)
    return dx, dscale, dbias, dmean, dvar


def _move_statistics(a: Application, training: Training, found: Mapping[str, str]) -> None:
    """Enter momentum * old + (1 - momentum) * new, with PyTorch's unbiased variance.

    One element has no unbiased variance, and its mean says little: it leaves both statistics alone.
    """
    g, x = a.graph, a.inputs[0]
    var = a.inputs[4]
    share = g.scalar(1 - float(a.attribute("momentum", 0.9)))
    every = _but_channels(g, x)
    count = _count(g, x, every)
    others = g.op("Sub", count, g.scalar(1.0))
    if math.prod(d for d in g.shape(x)[2:] if isinstance(d, int)) == 1:
        share = g.op("Mul", share, g.op("Min", others, g.scalar(1.0)))
        others = g.op("Max", others, g.scalar(1.0))
    for name, new in found.items():
        if name == var:
            new = g.op("Mul", new, g.op("Div", count, others))
        # A layer used twice moves its statistics twice.
        old = training.updates.get(name, name)
        training.updates[name] = g.op("Add", old, g.op("Mul", g.op("Sub", new, old), share))


def _count(g: GraphBuilder, x: str, axes: Sequence[int], times: int = 1) -> str:
    """How many elements of `x` lie along `axes`, `times` so many, as a real number."""
    known = [d for d in (g.shape(x)[i] for i in axes) if isinstance(d, int)]
    unknown = [i for i in axes if not isinstance(g.shape(x)[i], int)]
    if len(unknown) == 1:
        # The common case in three small nodes; as long as one is small, it stays a vector of one element.
        axis = g.to_real(g.op("Shape", x, start=unknown[0], end=unknown[0] + 1))
        return g.op("Mul", axis, g.scalar(float(math.prod(known) * times)))
    counted = g.count(x, axes)
    return counted if times == 1 else g.op("Mul", counted, g.scalar(float(times)))


def _moments(g: GraphBuilder, x: str, axes: Sequence[int], epsilon: float) -> tuple[str, str, str]:
    """Mean, inverse deviation, and x normalised by them over `axes`."""
    over = g.ints(*axes)
    mean = g.op("ReduceMean", x, over, keepdims=1)
    centred = g.op("Sub", x, mean)
    var = g.op("ReduceMean", g.op("Mul", centred, centred), over, keepdims=1)
    inverse = g.op("Reciprocal", g.op("Sqrt", g.op("Add", var, g.scalar(epsilon))))
    return mean, inverse, g.op("Mul", centred, inverse)


def _by_group(g: GraphBuilder, x: str, groups: int) -> str:
    """Sums of (batch, channels, 1) over the channels of each group."""
    return g.op("ReduceSum", g.reshape(x, 0, groups, -1), g.ints(2), keepdims=1)


def _groups(a: Application) -> int:
    return int(a.attribute("num_groups", a.graph.static(a.inputs[1])[0]))


def _but_channels(g: GraphBuilder, x: str) -> list[int]:
    return [0, *range(2, len(g.shape(x)))]


def _vector(g: GraphBuilder, x: str, value: float) -> str:
    """`value` for every channel of `x`."""
    # Only the channels need be known: in laconic.training.channel_major the batch is part of axis 2.
    channels = g.shape(x)[1]
    return g.floats(np.full(channels if isinstance(channels, int) else g.static(x, 1)[0], value))


def _epsilon(a: Application) -> float:
    return float(a.attribute("epsilon", 1e-5))


def _append(
    a: Application, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
) -> None:
    a.graph.append(helper.make_node(op_type, inputs, outputs, **attributes))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "BatchNormalization": batch_normalization,
        "GroupNormalization": group_normalization,
        "InstanceNormalization": group_normalization,
        "LayerNormalization": layer_normalization,
    }
)
FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "BatchNormalization": batch_normalization_form,
        "GroupNormalization": group_normalization_form,
        "InstanceNormalization": group_normalization_form,
        "LayerNormalization": layer_normalization_form,
    }
)
