"""Gradient rules of operators that choose among values, round them, or only change their type."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from laconic.training.rules.application import Application, Gradients, Rule, only
from laconic.training.rules.indicator import is_equal, is_not_negative, is_positive_or_half, is_within


def extremum(a: Application, dys: Gradients) -> Gradients:
    """dy goes to the input that is the maximum (minimum); inputs that are equal share it, as in PyTorch."""
    g, dy = a.graph, only(dys)
    if len(a.inputs) == 1:
        return (dy,)
    if len(a.inputs) == 2:
        first, second = a.inputs
        ahead = g.op("Sub", first, second) if a.node.op_type == "Max" else g.op("Sub", second, first)
        share = g.op("Mul", dy, is_positive_or_half(g, ahead))
        shares = [share, g.op("Sub", dy, share)]
    else:
        reached = [is_equal(g, x, a.output) for x in a.inputs]
        each = g.op("Div", dy, g.op("Sum", *reached))
        shares = [g.op("Mul", each, r) for r in reached]
    return tuple(
        g.sum_to(share, a.output_shape, x) if wanted else None
        for share, x, wanted in zip(shares, a.inputs, a.wanted, strict=True)
    )


def clip(a: Application, dys: Gradients) -> Gradients:
    """dx = dy where low <= x <= high, as PyTorch's clamp; a bound gets what it cut off.

    For the constant bounds 0 and 6 the bounds themselves give 0, as PyTorch's ReLU6, and y suffices: x need
    not be kept, and onnxruntime can fuse Clip into the convolution before it.
    """
    g, dy = a.graph, only(dys)
    x, low, high = [*a.inputs, "", ""][:3]
    dx = dlow = dhigh = None
    if a.wanted[0]:
        known = [g.value(bound) if bound else None for bound in (low, high)]
        bounds = [None if value is None else float(value.reshape(())) for value in known]
        if bounds == [0.0, 6.0]:
            # With the product 1.7 ms for 0.8M elements; two comparisons and And 1.6, but 4.7 us against 4.3
            # for 256.
            inside = is_within(g, a.output, 0.0, 6.0)
        elif bounds[0] == 0.0 and not high:
            inside = is_not_negative(g, x)
        else:
            inside = is_equal(g, x, a.output) if low or high else ""
        dx = g.op("Mul", dy, inside) if inside else dy
    if len(a.wanted) > 1 and a.wanted[1]:
        cut = g.op("Less", x, low)
        cut = g.op("And", cut, g.op("Less", low, high)) if high else cut
        dlow = g.sum_to(g.op("Mul", dy, g.to_real(cut)), a.output_shape, low)
    if len(a.wanted) > 2 and a.wanted[2]:
        cut = g.op("Greater", x, high)
        cut = g.op("Or", cut, g.op("Less", high, low)) if low else cut
        dhigh = g.sum_to(g.op("Mul", dy, g.to_real(cut)), a.output_shape, high)
    return (dx, dlow, dhigh)[: len(a.inputs)]


def where(a: Application, dys: Gradients) -> Gradients:
    """dy goes to the input that was taken; the condition has no gradient.

    A product with the condition takes 0.7 ms for 0.8M elements, Where 4.5.
    """
    g, (condition, x, z), dy = a.graph, a.inputs, only(dys)
    dx = dz = None
    if a.wanted[1]:
        dx = g.sum_to(g.op("Mul", dy, g.to_real(condition)), a.output_shape, x)
    if a.wanted[2]:
        other = g.to_real(g.op("Not", condition))
        dz = g.sum_to(g.op("Mul", dy, other), a.output_shape, z)
    return None, dx, dz


def flat(a: Application, dys: Gradients) -> Gradients:
    """No gradient: the derivative of a rounded value, and of a sign, is 0 wherever there is one."""
    return tuple(None for _ in a.inputs)


def cast(a: Application, dys: Gradients) -> Gradients:
    """dx = dy in the type of x; what CastLike takes the type of has no gradient."""
    g, x, dy = a.graph, a.inputs[0], only(dys)
    before, after = g.types[x].dtype, g.types[a.output].dtype
    dx = dy if before == after else g.op("Cast", dy, to=before)
    return (dx, *(None for _ in a.inputs[1:]))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Cast": cast,
        "CastLike": cast,
        "Ceil": flat,
        "Clip": clip,
        "Floor": flat,
        "Max": extremum,
        "Min": extremum,
        "Round": flat,
        "Sign": flat,
        "Where": where,
    }
)
