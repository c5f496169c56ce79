"""Gradient rules of convolutions, for any number of spatial axes.

A transposed convolution is the adjoint of a convolution: each one's rule is made of the other's forward pass,
and both have the same gradient of the weight, with input and output exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from laconic.training.builder import GraphBuilder
from laconic.training.rules import convolution_forward, convolution_joint, depthwise
from laconic.training.rules.application import Application, Form, Gradients, Rule, Saved, Training, only
from laconic.training.rules.convolution_weight import Correlation, weight_gradient
from laconic.training.rules.depthwise import PLANES, conv_of_planes
from laconic.training.rules.window import Window, transposed_window_of, window_of


def conv(a: Application, dys: Gradients) -> Gradients:
    """dX is the transposed convolution of dY; dW correlates X with dY; db sums dY."""
    if a.attribute(PLANES) is not None:
        return conv_of_planes(a, dys)
    g, dy = a.graph, only(dys)
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
