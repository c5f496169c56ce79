"""Gradient rules of reductions and of CumSum.

dy is spread over the axes that were reduced: mostly by broadcasting, as a factor of something that has the
shape of x anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from onnx import helper

from laconic.errors import ModelError
from laconic.training.rules.application import Application, Form, Gradients, Rule, Saved, Training, only
from laconic.training.rules.indicator import is_equal, is_zero, sign

TINY = 1e-30
"""Less than any norm that is not 0: the squares of what makes up a smaller one are 0 in float32."""

LOWEST = float(np.finfo(np.float32).min)


def reduce_sum(a: Application, dys: Gradients) -> Gradients:
    """dx = dy at every summand."""
    g, x = a.graph, a.inputs[0]
    dy = _aligned(a, only(dys))
    return _for_data(a, dy if not _axes(a) else g.op("Expand", dy, g.shape_of(x)))


def reduce_mean(a: Application, dys: Gradients) -> Gradients:
    """dx = dy / n at each of n summands."""
    return reduce_sum(a, (a.graph.op("Div", only(dys), a.graph.count(a.inputs[0], _axes(a))),))


def reduce_extremum(a: Application, dys: Gradients) -> Gradients:
    """dy goes to the maximum (minimum); elements that are equal share it, as in PyTorch's amax."""
    g, x, axes = a.graph, a.inputs[0], _axes(a)
    reached = is_equal(g, x, _aligned(a, a.output))
    count = g.op("ReduceSum", reached, g.ints(*axes), keepdims=1, noop_with_empty_axes=1)
    return _for_data(a, g.op("Mul", reached, g.op("Div", _aligned(a, only(dys)), count)))


def reduce_l1(a: Application, dys: Gradients) -> Gradients:
    """dx = sign(x) dy; 0 at 0, as in PyTorch."""
    return _for_data(a, a.graph.op("Mul", sign(a.graph, a.inputs[0]), _aligned(a, only(dys))))


def reduce_l2(a: Application, dys: Gradients) -> Gradients:
    """dx = x dy / y; 0 where y is 0, as in PyTorch."""
    g = a.graph
    share = g.op("Div", only(dys), g.op("Max", a.output, g.scalar(TINY)))
    return _for_data(a, g.op("Mul", a.inputs[0], _aligned(a, share)))


def reduce_sum_square(a: Application, dys: Gradients) -> Gradients:
    """dx = 2 x dy."""
    g = a.graph
    twice = g.op("Mul", only(dys), g.scalar(2.0))
    return _for_data(a, g.op("Mul", a.inputs[0], _aligned(a, twice)))


def reduce_log_sum(a: Application, dys: Gradients) -> Gradients:
    """dx = dy / e^y at every summand."""
    return reduce_sum(a, (a.graph.op("Div", only(dys), a.graph.op("Exp", a.output)),))


def reduce_log_sum_exp_form(a: Application, training: Training | None) -> Saved:
    """y = m + log(sum of e^(x - m)) for the maximum m; e^(x - m) and the sum are kept.

    With the gradient 1.1 ms for 0.8M elements, 5.7 with onnxruntime's own kernel.
    """
    g, x, axes = a.graph, a.inputs[0], a.graph.ints(*_axes(a))
    over: dict[str, Any] = {"keepdims": 1, "noop_with_empty_axes": 1}
    # A finite maximum keeps a row of nothing but -inf from becoming NaN: its result is -inf.
    top = g.op("Max", g.op("ReduceMax", x, axes, **over), g.scalar(LOWEST))
    powers = g.op("Exp", g.op("Sub", x, top))
    total = g.op("ReduceSum", powers, axes, **over)
    logarithm = [top, g.op("Log", total)]
    if a.attribute("keepdims", 1) or not _axes(a):
        g.append(helper.make_node("Add", logarithm, [a.output]))
    else:
        g.append(helper.make_node("Squeeze", [g.op("Add", *logarithm), axes], [a.output]))
    return {"powers": powers, "total": total}


def reduce_log_sum_exp(a: Application, dys: Gradients) -> Gradients:
    """dx = e^(x - y) dy: a softmax, which cannot overflow."""
    g = a.graph
    share = g.op("Div", _aligned(a, only(dys)), a.saved["total"])
    return _for_data(a, g.op("Mul", a.saved["powers"], share))


def reduce_prod(a: Application, dys: Gradients) -> Gradients:
    """dx = dy times the product of all other factors, exact also where factors are 0.

    With zeros replaced by 1, dividing the product by a factor gives the product of the others that are not 0;
    it counts where no other factor is 0.
    """
    g, x = a.graph, a.inputs[0]
    axes = g.ints(*_axes(a))
    zero = is_zero(g, x)
    filled = g.op("Add", x, zero)
    product = g.op("ReduceProd", filled, axes, keepdims=1, noop_with_empty_axes=1)
    zeros = g.op("ReduceSum", zero, axes, keepdims=1, noop_with_empty_axes=1)
    no_other = g.op("HardSigmoid", g.op("Sub", zeros, zero), alpha=-1.0, beta=1.0)
    others = g.op("Div", g.op("Mul", product, _aligned(a, only(dys))), filled)
    return _for_data(a, g.op("Mul", others, no_other))


def cum_sum(a: Application, dys: Gradients) -> Gradients:
    """dx = the cumulative sum of dy from the other end; the axis has no gradient."""
    exclusive, reverse = int(a.attribute("exclusive", 0)), int(a.attribute("reverse", 0))
    dx = a.graph.op("CumSum", only(dys), a.inputs[1], exclusive=exclusive, reverse=1 - reverse)
    return dx, None


def _axes(a: Application) -> tuple[int, ...]:
    """The axes that the node reduces, counted from the first; raises `ModelError` for computed ones."""
    g = a.graph
    rank = len(g.shape(a.inputs[0]))
    axes = a.inputs[1] if len(a.inputs) > 1 else ""
    known = g.value(axes) if axes else None
    if axes and known is None:
        raise ModelError(
            f"axes of {a.node.op_type} {a.output!r} are computed", remedy="export them as constants"
        )
    if known is None or known.size == 0:
        return () if a.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(int(axis) % rank for axis in known))


def _aligned(a: Application, reduced: str) -> str:
    """`reduced`, of the shape of y, with axes of length 1 where broadcasting to x needs them."""
    axes = _axes(a)
    if a.attribute("keepdims", 1) or axes == tuple(range(len(axes))):
        return reduced
    return a.graph.op("Unsqueeze", reduced, a.graph.ints(*axes))


def _for_data(a: Application, dx: str) -> Gradients:
    return (dx, *(None for _ in a.inputs[1:]))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "CumSum": cum_sum,
        "ReduceL1": reduce_l1,
        "ReduceL2": reduce_l2,
        "ReduceLogSum": reduce_log_sum,
        "ReduceLogSumExp": reduce_log_sum_exp,
        "ReduceMax": reduce_extremum,
        "ReduceMean": reduce_mean,
        "ReduceMin": reduce_extremum,
        "ReduceProd": reduce_prod,
        "ReduceSum": reduce_sum,
        "ReduceSumSquare": reduce_sum_square,
    }
)
FORMS: Mapping[str, Form] = MappingProxyType({"ReduceLogSumExp": reduce_log_sum_exp_form})
