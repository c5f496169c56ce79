"""The forward pass of a convolution in training, in the way that onnxruntime runs fastest.

Its Conv reaches a third to two thirds of its Gemm's speed while the weight is no constant. Where few channels
come out, a transposed convolution with the weight turned round does better: it folds many small products
instead of unfolding its input. Where many come out of small images, what each window sees is gathered in
pieces of all channels, one sample at a time, and multiplied in one product.

Step times as multiples of onnxruntime 1.32's Conv, one thread, AVX-512, medians of CPU time at batch 1, 8
and 32; an asterisk marks what `choice` takes, where it is not Conv:

    layer (channels, kernel, pixels)   transposed          gathered
    8 -> 8, 3x3, 32x32                 0.93  0.82  0.83*   1.60  1.71  1.68
    16 -> 16, 3x3, 32x32               0.90  0.91  0.73*   1.28  1.17  1.16
    24 -> 24, 3x3, 24x24               0.96  0.75  0.73*   1.01  0.93  0.93
    32 -> 32, 3x3, 16x16               1.24  0.79  0.80*   1.03  0.86  0.93
    32 -> 16, 3x3, 32x32               0.72  0.57  0.55*   1.15  1.11  1.01
    64 -> 32, 3x3, 16x16               1.15  0.65  0.64*   0.98  0.84  0.83
    16 -> 32, 3x3, 28x28               1.01  0.93  1.02    1.02  1.05  1.03
    6 -> 16, 5x5, 14x14                1.48  1.44  1.44    1.38  1.46  1.51
    32 -> 64, 5x5, 14x14               1.60  1.07  1.01    0.85  0.84  0.83*
    64 -> 64, 3x3, 8x8                 2.14  1.24  0.99    0.96  0.86  0.75*
    64 -> 128, 3x3, 16x16              1.80  1.22  1.11    1.03  0.96  0.95*
    16 -> 32, 3x3, stride 2, 32x32                         0.98  0.90  0.85*
    32 -> 64, 3x3, stride 2, 16x16                         1.02  0.90  0.87*
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from onnx import helper

from laconic.training.builder import GraphBuilder
from laconic.training.rules.unfolding import flat_images, pixels, places
from laconic.training.rules.window import Window

Way: TypeAlias = Literal["conv", "transposed", "gathered"]


def choice(window: Window, group: int, channels_in: int, channels_out: int) -> Way:
    """The fastest way by the shapes that are known before the batch size is."""
    if group != 1 or window.taps == 1 or window.rank != 2:
        return "conv"
    if turns(window) and 8 <= channels_out <= min(channels_in, 32):
        return "transposed"
    if channels_in >= 16 and channels_out >= 32 and math.prod(window.output) <= 256:
        return "gathered"
    return "conv"


def transposed(g: GraphBuilder, inputs: Sequence[str], window: Window, made: str) -> None:
    """The convolution with stride 1 of `inputs` (x, weight and perhaps bias), named `made`."""
    x, w, *bias = inputs
    axes = range(2, 2 + window.rank)
    back = [-1] * window.rank
    ends = [-1 - k for k in window.kernel]
    turned = g.op("Slice", w, g.ints(*back), g.ints(*ends), g.ints(*axes), g.ints(*back))
    turned = g.op("Transpose", turned, perm=[1, 0, *axes])
    other = _turned(window)
    pads = [*other.before, *other.after]
    settings: dict[str, Any] = {
        "kernel_shape": window.kernel,
        "dilations": window.dilations,
        "pads": pads,
    }
    g.append(helper.make_node("ConvTranspose", [x, turned, *bias], [made], **settings))


def gathered(g: GraphBuilder, inputs: Sequence[str], window: Window, made: str) -> None:
    """The convolution of `inputs` (x, weight and perhaps bias), named `made`."""
    x, w, *bias = inputs
    channels_out, channels_in = g.static(w)[:2]
    rows = g.op("Transpose", g.reshape(w, channels_out, channels_in, window.taps), perm=[0, 2, 1])
    rows = g.reshape(rows, channels_out, window.taps * channels_in)
    seen = places(g, window)
    flat = _each_product(g, x, rows, seen, window, channels_in, bias)
    g.append(helper.make_node("Reshape", [flat, g.ints(-1, channels_out, *window.output)], [made]))


def gathered_data_gradient(g: GraphBuilder, w: str, dy: str, window: Window) -> str:
    """dX of a convolution with stride 1: dY convolved with the weight turned round."""
    channels_out, channels_in = g.static(w)[:2]
    rows, seen = turned_rows(g, w, window)
    flat = _each_product(g, dy, rows, seen, _turned(window), channels_out, ())
    return g.reshape(flat, -1, channels_in, *window.input)


def turned_rows(g: GraphBuilder, w: str, window: Window) -> tuple[str, str]:
    """The weight turned round, [channel in, tap * channel out], and the pixels of dY that it meets."""
    channels_out, channels_in = g.static(w)[:2]
    rows = g.op("Transpose", g.reshape(w, channels_out, channels_in, window.taps), perm=[1, 2, 0])
    rows = g.reshape(rows, channels_in, window.taps * channels_out)
    return rows, places(g, _turned(window), backwards=True)


def data_gradient_choice(window: Window, group: int, channels_in: int, channels_out: int) -> Way:
    """As `choice`, for the gradient of the input of the convolution that maps `channels_in`."""
    if not turns(window):
        return "transposed"
    way = choice(_turned(window), group, channels_out, channels_in)
    return "transposed" if way == "conv" else way


def turns(window: Window) -> bool:
    """Whether the adjoint is a convolution without cropping."""
    margins = [d * (k - 1) for d, k in zip(window.dilations, window.kernel, strict=True)]
    pads = zip(window.before, window.after, margins, strict=True)
    return set(window.strides) == {1} and all(0 <= b <= m and 0 <= a <= m for b, a, m in pads)


def _turned(window: Window) -> Window:
    """The window of the adjoint of a convolution with stride 1."""
    margins = [d * (k - 1) for d, k in zip(window.dilations, window.kernel, strict=True)]
    before = tuple(m - b for m, b in zip(margins, window.before, strict=True))
    return replace(window, before=before, input=window.output, output=window.input)


def _each_product(
    g: GraphBuilder, x: str, rows: str, seen: str, window: Window, channels: int, bias: Sequence[str]
) -> str:
    """[sample, channel out, window]: `rows` times what each window sees."""
    windows, width = math.prod(window.output), window.taps * channels
    added = [g.reshape(b, -1, 1) for b in bias]

    def body(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        columns = b.reshape(b.op("Gather", pixels(b, items[0], channels), seen, axis=0), windows, width)
        return [], [b.op("Gemm", rows, columns, *added, transB=1)]

    _, (made,) = g.scan(body, [], [flat_images(g, x, channels, window.input)])
    return made
