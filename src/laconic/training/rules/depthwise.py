"""Convolutions of planes that lie channel by channel: form and gradient rule.

`laconic.training.channel_major` marks them. What a depthwise convolution does to one channel is a product
with a banded matrix that holds the weights of its taps: rows of pixels that a group of output rows sees,
times the matrix, for all groups and samples in one product, and all channels in one batched product. That is
up to W / 3 times the arithmetic, at the pace of a matrix product, where onnxruntime's own kernels do little
more than two multiplications in a nanosecond. The gradient of the weight is the same product turned around,
summed along the bands; that of the input is the product with a banded matrix of the same weights.

CPU time of one layer in ms at batch 32 and 1, onnxruntime 1.32, one thread, AVX-512; in brackets that of a
Conv, a ConvTranspose and `depthwise_each` (`laconic.training.rules.convolution_weight`). dW is shown with
the laying of rows, which in a step it shares with the forward pass.

    layer                     forward                dX                     dW
    16, 3x3, 32x32            2.4 .08  (1.9 .06)     2.4 .08  (2.2 .07)     2.9 .08  (3.9 .14)
    32, 3x3, stride 2, 32x32  1.7 .07  (2.2 .08)     1.5 .07  (2.6 .07)     2.0 .08  (2.1 .09)
    64, 3x3, 16x16            2.2 .09  (2.5 .09)     2.3 .08  (2.4 .08)     2.6 .08  (3.3 .12)
    64, 3x3, stride 2, 16x16  0.8 .07  (1.3 .05)     0.9 .05  (1.5 .05)     1.0 .06  (1.1 .05)
    128, 3x3, 8x8             1.1 .08  (2.0 .07)     1.1 .08  (2.1 .08)     1.1 .08  (1.4 .07)
    128, 3x3, stride 2, 8x8   0.5 .08  (1.1 .04)     0.6 .05  (1.3 .05)     0.5 .07  (0.6 .03)
    256, 3x3, 4x4             0.4 .06  (2.0 .07)     0.4 .06  (2.4 .09)     0.2 .07  (0.8 .04)
    128, 5x5, 14x14           5.8 .24  (11  .35)     5.9 .27  (7.4 .26)     6.5 .26  (15  .49)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients, Saved, Training, only
from laconic.training.rules.window import Window

PLANES = "planes"
"""The attribute that marks a Conv of planes: height and width of one sample's input, and of its output.

Input and output are (1, channels, samples * height, width): samples one below the other in each channel.
Such a node has its strides, dilations and pads spelled out.
"""

WHOLE_ENTRIES = 256
"""Entries of a banded matrix up to which it maps a plane as a whole, and nothing has to be moved.

Of the MobileNet-like, a step at batch 1 and 32 takes 5.2 and 60 ms with 4096, 4.2 and 61 with 1024, 4.0 and
61 with 256: at batch 1 a large matrix costs more to make than it saves.
"""

WIDE = 8
"""Pixels in a row up to which a group has two rows; with more, the matrix would grow out of proportion."""


@dataclass(frozen=True, slots=True)
class Bands:
    """A linear map from rows of a plane to groups of rows of another, the same for each group.

    Group k is made of the rows k * step + r for r in `rows`; rows outside of the plane are zeros. Of what
    each tap of the window joins, `down` says it for rows (tap, row in, row out), `across` for columns.
    """

    size: tuple[int, int]
    groups: int
    step: int
    rows: tuple[int, ...]
    down: NDArray[np.float64]
    across: NDArray[np.float64]

    @property
    def inside(self) -> int:
        """Pixels of a group's rows: the height of the matrix."""
        return len(self.rows) * self.size[1]

    @property
    def outside(self) -> int:
        """Pixels made of them: the width of the matrix."""
        return int(self.down.shape[2] * self.across.shape[2])

    def seen(self, g: GraphBuilder, x: str, channels: int) -> str:
        """The rows of each group, as (channels, groups of all samples, pixels)."""
        height, width = self.size
        if self.rows == tuple(range(self.step)) and height == self.step * self.groups:
            return g.reshape(x, channels, -1, self.inside)
        above = tuple(range(-len(self.rows), 0))
        if self.rows == above and len(above) <= self.step and height == self.step * self.groups:
            apart = g.reshape(x, -1, self.groups, self.step * width)
            start, end = (self.step - len(above)) * width, self.step * width
            last = g.op("Slice", apart, g.ints(0, start), g.ints(self.groups - 1, end), g.ints(1, 2))
            return g.reshape(g.op("Pad", last, g.ints(0, 1, 0, 0, 0, 0)), channels, -1, self.inside)
        places = np.arange(self.groups)[:, None] * self.step + np.array(self.rows)
        places = np.where((places < 0) | (places >= height), height, places)
        with_zeros = g.op("Pad", g.reshape(x, -1, height, width), g.ints(0, 0, 0, 0, 1, 0))
        rows = g.op("Gather", with_zeros, g.constant(places.reshape(-1).astype(np.int64)), axis=1)
        return g.reshape(rows, channels, -1, self.inside)

    def taps(self, g: GraphBuilder) -> str:
        """For each tap a banded matrix of ones, flat: a product that onnxruntime works out when it loads."""
        down, across = self.down[:, None, :, None, :, None], self.across[None, :, None, :, None, :]
        count = len(self.down) * len(self.across)
        return g.reshape(g.op("Mul", g.floats(down), g.floats(across)), count, self.inside * self.outside)

    def matrix(self, g: GraphBuilder, w: str, taps: str, channels: int) -> str:
        """The banded matrix of each channel."""
        flat = g.op("MatMul", g.reshape(w, channels, -1), taps)
        return g.reshape(flat, channels, self.inside, self.outside)


def divides(window: Window) -> bool:
    """Whether the rows of the input fall into groups that are alike."""
    return window.rank == 2 and window.input[0] % window.strides[0] == 0


def forward_bands(window: Window) -> list[Bands]:
    """Maps whose sum is the convolution."""
    height, rows_in, rows_out = _height(window), window.input[0], window.output[0]
    groups, step = rows_out // height, height * window.strides[0]
    made = range(height)
    if groups == 1:
        return [_bands(window, 1, rows_in, range(rows_in), made)]
    shifts = [t * window.dilations[0] - window.before[0] for t in range(window.kernel[0])]
    rows = sorted({r * window.strides[0] + shift for r in made for shift in shifts})
    own, other = [r for r in rows if 0 <= r < step], [r for r in rows if not 0 <= r < step]
    if other and len(own) == step and rows_in == groups * step and -step <= other[0] and other[-1] < 0:
        # A group's own rows are not moved, only those above it: less than the product has to write twice.
        other = list(range(other[0], 0))
        return [_bands(window, groups, step, r, made) for r in (own, other)]
    return [_bands(window, groups, step, rows, made)]


def backward_bands(window: Window) -> Bands:
    """The adjoint, from rows of the output to groups of rows of the input, where `divides`."""
    stride, height = window.strides[0], window.input[0]
    step = 2 if stride == 1 and height % 2 == 0 and window.input[1] <= WIDE else stride
    made = range(step)
    shifts = [t * window.dilations[0] - window.before[0] for t in range(window.kernel[0])]
    rows = sorted({(i - s) // stride for i in made for s in shifts if (i - s) % stride == 0}) or [0]
    turned = _bands(window, 1, step, made, rows)
    return Bands(
        (window.output[0], window.output[1]),
        height // step,
        step // stride,
        tuple(rows),
        turned.down.transpose(0, 2, 1),
        turned.across.transpose(0, 2, 1),
    )


def conv_form(a: Application, training: Training | None) -> Saved:
    """The node itself, or where it is a depthwise one of planes, products with banded matrices.

    Saves what the products are made of: `seen` and `taps` of each map, and the first map's `matrix`.
    """
    g = a.graph
    planes = a.attribute(PLANES)
    if planes is None:
        g.append(a.node)
        return {}
    if _pointwise(a):
        g.append(_unmarked(a.node))
        return {}
    x, w = a.inputs[:2]
    channels, window = g.static(w)[0], _window(a)
    saved: dict[str, str] = {}
    parts: list[str] = []
    for i, bands in enumerate(forward_bands(window)):
        taps, seen = bands.taps(g), bands.seen(g, x, channels)
        matrix = bands.matrix(g, w, taps, channels)
        parts.append(g.op("MatMul", seen, matrix))
        saved |= {f"taps{i}": taps, f"seen{i}": seen, f"matrix{i}": matrix}
    made = parts[0] if len(parts) == 1 else g.op("Add", *parts)
    if len(a.inputs) > 2:
        made = g.op("Add", made, g.reshape(a.inputs[2], channels, 1, 1))
    target = g.ints(1, channels, -1, window.output[1])
    g.append(helper.make_node("Reshape", [made, target], [a.output]))
    return saved


def conv_of_planes(a: Application, dys: Gradients) -> Gradients:
    """dX, dW and db of a convolution of planes, pointwise or depthwise."""
    g, dy = a.graph, only(dys)
    dx, dw = (_pointwise_gradients if _pointwise(a) else _depthwise_gradients)(a, dy)
    if len(a.inputs) < 3:
        return dx, dw
    db = g.op("ReduceSum", dy, g.ints(0, 2, 3), keepdims=0) if a.wanted[2] else None
    return dx, dw, db


def _pointwise_gradients(a: Application, dy: str) -> tuple[str | None, str | None]:
    g, (x, w) = a.graph, a.inputs[:2]
    made, seen = g.static(w)[:2]
    dx = dw = None
    if a.wanted[0]:
        turned = g.op("Transpose", g.reshape(w, made, seen), perm=[1, 0])
        dx = g.op("Conv", dy, g.reshape(turned, seen, made, 1, 1))
    if a.wanted[1]:
        pair = g.reshape(dy, made, -1), g.reshape(x, seen, -1)
        flat = g.op("Gemm", *pair, transB=1, shape=(made, seen))
        dw = g.reshape(flat, made, seen, 1, 1, shape=(made, seen, 1, 1))
    return dx, dw


def _depthwise_gradients(a: Application, dy: str) -> tuple[str | None, str | None]:
    g, w = a.graph, a.inputs[1]
    channels, window = g.static(w)[0], _window(a)
    forward = forward_bands(window)
    dx = dw = None
    if a.wanted[0]:
        if forward[0].groups == 1:
            rows = g.reshape(dy, channels, -1, math.prod(window.output))
            matrix = g.op("Transpose", a.saved["matrix0"], perm=[0, 2, 1])
        else:
            bands = backward_bands(window)
            rows = bands.seen(g, dy, channels)
            matrix = bands.matrix(g, w, bands.taps(g), channels)
        dx = g.reshape(g.op("MatMul", rows, matrix), 1, channels, -1, window.input[1])
    if a.wanted[1]:
        rows = g.reshape(dy, channels, -1, forward[0].outside)
        summed: list[str] = []
        for i in range(len(forward)):
            products = g.op("MatMul", g.op("Transpose", a.saved[f"seen{i}"], perm=[0, 2, 1]), rows)
            flat = g.reshape(products, channels, -1)
            shape = (channels, window.taps)
            summed = [g.op("Gemm", flat, a.saved[f"taps{i}"], *summed, transB=1, shape=shape)]
        dw = g.reshape(summed[0], *g.static(w), shape=g.static(w))
    return dx, dw


def _bands(window: Window, groups: int, step: int, rows: Sequence[int], made: Sequence[int]) -> Bands:
    down = _joined(window, 0, rows, made)
    across = _joined(window, 1, range(window.input[1]), range(window.output[1]))
    return Bands((window.input[0], window.input[1]), groups, step, tuple(rows), down, across)


def _joined(window: Window, axis: int, seen: Iterable[int], made: Iterable[int]) -> NDArray[np.float64]:
    """1 where a tap joins a place of the input to one of the output: (tap, seen, made)."""
    taps = np.arange(window.kernel[axis])[:, None, None] * window.dilations[axis] - window.before[axis]
    places = np.array(list(made)) * window.strides[axis] + taps
    joined: NDArray[np.float64] = (places == np.array(list(seen))[:, None]).astype(np.float64)
    return joined


def _height(window: Window) -> int:
    """Rows of the output in a group."""
    rows = window.output[0]
    if math.prod(window.input) * math.prod(window.output) <= WHOLE_ENTRIES:
        return rows
    return 2 if rows % 2 == 0 and window.input[1] <= WIDE else 1


def _pointwise(a: Application) -> bool:
    return int(a.attribute("group", 1)) == 1


def _window(a: Application) -> Window:
    kernel, planes = a.graph.static(a.inputs[1])[2:], tuple(a.attribute(PLANES))
    strides, dilations, pads = (tuple(a.attribute(n)) for n in ("strides", "dilations", "pads"))
    return Window(kernel, strides, dilations, pads[:2], planes[:2], planes[2:])


def _unmarked(node: NodeProto) -> NodeProto:
    out = NodeProto()
    out.CopyFrom(node)
    kept = [s for s in node.attribute if s.name != PLANES]
    del out.attribute[:]
    out.attribute.extend(kept)
    return out
