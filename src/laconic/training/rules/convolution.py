"""Gradient rules of convolutions, for any number of spatial axes.

A transposed convolution is the adjoint of a convolution: each one's rule is made of the other's forward pass,
and both have the same gradient of the weight, with input and output exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from onnx import NodeProto

from laconic.training.builder import GraphBuilder
from laconic.training.rules import convolution_forward, convolution_joint, depthwise
from laconic.training.rules.application import Application, Form, Gradients, Rule, Saved, Training, only
from laconic.training.rules.batch_normalisation import scaled_by_channel
from laconic.training.rules.convolution_weight import Correlation, weight_gradient
from laconic.training.rules.depthwise import PLANES, conv_of_planes
from laconic.training.rules.window import Window, transposed_window_of, window_of


def conv(a: Application, dys: Gradients) -> Gradients:
    """dX is the transposed convolution of dY; dW correlates X with dY; db sums dY.

    Where dY is a product with a factor for each channel, and that saves time, its factor goes into the
    weight and into dW: a step of ResNet-8 or MobileNet blocks takes 1 to 2 % less at batch 32.
    """
    dy = only(dys)
    if not a.wanted[1] or not _many_windows(a) or (found := scaled_by_channel(a.graph, dy)) is None:
        return _conv(a, dy)
    g, (inner, factor) = a.graph, found
    w = a.inputs[1]
    column = g.reshape(factor, -1, *[1] * (len(g.shape(w)) - 1))
    scaled = NodeProto()
    scaled.CopyFrom(a.node)
    scaled.input[1] = g.op("Mul", w, column, shape=g.shape(w))
    dx, dw, *db = _conv(replace(a, node=scaled), inner)
    return (
        dx,
        None if dw is None else g.op("Mul", dw, column, shape=g.shape(w)),
        *(None if b is None else g.op("Mul", b, factor) for b in db),
    )


def _many_windows(a: Application) -> bool:
    """Whether a pass over what the convolution of a sample makes is longer than two over its weight."""
    shape, made = a.graph.shape(a.inputs[1]), a.output_shape[2:]
    if (planes := a.attribute(PLANES)) is not None:
        made = tuple(planes[2:])
    windows = [d for d in made if isinstance(d, int)]
    seen = [d for d in shape[1:] if isinstance(d, int)]
    known = len(windows) == len(made) and len(seen) + 1 == len(shape)
    return int(a.attribute("group", 1)) == 1 and known and 2 * math.prod(windows) >= math.prod(seen)


def _conv(a: Application, dy: str) -> Gradients:
    if a.attribute(PLANES) is not None:
        return conv_of_planes(a, (dy,))
    g = a.graph
    x, w = a.inputs[:2]
    window = window_of(a, g.static(w)[2:])
    group = int(a.attribute("group", 1))
    channels_out, channels_in = g.static(w)[:2]
    shape = Correlation(window, group, channels_in * group, channels_out, g.shape(x)[0])
    dx = dw = None
    if a.wanted[0] and a.wanted[1] and convolution_joint.gains(shape):
        dx, dw = convolution_joint.joint_gradients(g, x, w, dy, shape)
        return (dx, dw, *_bias_gradients(a, dy, window.rank))
    if a.wanted[0]:
        dx = _data_gradient(g, w, dy, window, group)
    if a.wanted[1]:
        dw = weight_gradient(g, x, dy, shape)
    return (dx, dw, *_bias_gradients(a, dy, window.rank))


def conv_form(a: Application, training: Training | None) -> Saved:
    """In training, the convolution in the way that is fastest; else the node, or its form on planes."""
    if training is not None and a.attribute(PLANES) is None:
        g, w = a.graph, a.inputs[1]
        window = window_of(a, g.static(w)[2:])
        channels_out, channels_in = g.static(w)[:2]
        way = convolution_forward.choice(window, int(a.attribute("group", 1)), channels_in, channels_out)
        if way != "conv":
            made = {"transposed": convolution_forward.transposed, "gathered": convolution_forward.gathered}
            made[way](g, [i for i in a.inputs if i], window, a.output)
            return {}
    return depthwise.conv_form(a, training)


def conv_transpose(a: Application, dys: Gradients) -> Gradients:
    """dX is the convolution of dY; dW correlates dY with X; db sums dY."""
    g, dy = a.graph, only(dys)
    x, w = a.inputs[:2]
    window = transposed_window_of(a, g.static(w)[2:])
    group = int(a.attribute("group", 1))
    dx = dw = None
    if a.wanted[0] or a.wanted[1]:
        seen = window.cropped(g, dy, axis=2)
    if a.wanted[0]:
        pads = [*window.before, *(max(0, p) for p in window.after)]
        settings: dict[str, Any] = {"strides": window.strides, "dilations": window.dilations, "pads": pads}
        dx = g.op("Conv", seen, w, group=group, kernel_shape=window.kernel, **settings)
    if a.wanted[1]:
        channels_in, channels_out = g.static(w)[:2]
        shape = Correlation(window.exact, group, channels_out * group, channels_in, g.shape(x)[0])
        dw = weight_gradient(g, seen, x, shape)
    return (dx, dw, *_bias_gradients(a, dy, window.rank))


def _data_gradient(g: GraphBuilder, w: str, dy: str, window: Window, group: int) -> str:
    """A 1x1 convolution stays one, with the weight transposed: in onnxruntime 1.2 to 2.5 times as fast."""
    channels_out, channels_in = g.static(w)[:2]
    if convolution_forward.data_gradient_choice(window, group, channels_in, channels_out) == "gathered":
        return convolution_forward.gathered_data_gradient(g, w, dy, window)
    if not window.pointwise or group != 1:
        return g.op("ConvTranspose", dy, w, group=group, **window.transposed())
    turned = g.op("Transpose", g.reshape(w, channels_out, channels_in), perm=[1, 0])
    return g.op("Conv", dy, g.reshape(turned, channels_in, channels_out, *window.kernel))


def _bias_gradients(a: Application, dy: str, rank: int) -> Gradients:
    if len(a.inputs) < 3:
        return ()
    if not a.wanted[2]:
        return (None,)
    return (a.graph.op("ReduceSum", dy, a.graph.ints(0, *range(2, 2 + rank)), keepdims=0),)


RULES: Mapping[str, Rule] = MappingProxyType({"Conv": conv, "ConvTranspose": conv_transpose})
FORMS: Mapping[str, Form] = MappingProxyType({"Conv": conv_form})
