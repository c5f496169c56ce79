"""The gradient of a convolution's weight: several ways to write it, and the choice among them.

All unfold the input (im2col), so that each window becomes a row or a column, and contract over batch and
space in a matrix product. What costs time is moving the unfolded elements: they are moved once, in long
pieces, and one sample at a time (a Scan that adds up) where those of a whole batch would leave the cache.

Step times as multiples of PyTorch 2.13's `convolution_backward` for the weight alone, onnxruntime 1.32, one
thread, AVX-512, medians of CPU time at batch 1 and 32; an asterisk marks what `choice` takes:

    layer (channels, kernel, pixels)   sliced       sliced_each   gathered     gathered_each
    1 -> 6, 5x5, 28x28                 0.57  1.34   0.38  1.23    1.13  4.26   1.15  4.47
    1 -> 32, 5x5, 28x28                0.52  1.62   0.32  1.00    0.75  3.32   0.75  3.07
    3 -> 16, 3x3, 32x32                1.04  1.90   0.87  1.40    1.45  2.94   1.40  2.54
    6 -> 16, 5x5, 14x14                0.57  1.67   0.34  1.68    0.29  1.25   0.30  1.52
    32 -> 64, 5x5, 14x14               1.13  3.13   1.06  1.83    0.79  2.44   0.83  1.42*
    16 -> 16, 3x3, 32x32               0.79  3.78   0.69  1.72    0.58  2.78   0.56  1.39
    16 -> 32, 3x3, stride 2, 32x32     1.33  3.25   1.18  2.57    0.53  1.49   0.49  0.90*
    64 -> 64, 3x3, 8x8                 0.93  2.31   1.01  1.70    0.64  1.64   0.67  1.08*
    9 -> 64, 5, 128                    0.92  0.52   0.98  0.59    0.86  0.47*  0.92  0.47
    64 -> 64, 9, 64                    0.93  1.89   1.17  1.41    0.76  1.42   0.91  1.12*

    few channels                       sliced_each  rows_each
    1 -> 6, 5x5, 28x28                 0.52  2.83   0.42  1.49
    1 -> 32, 5x5, 28x28                0.50  1.49   0.47  1.11*
    3 -> 16, 3x3, 32x32                1.00  2.16   0.88  1.78*

    rows_at_once, as multiples of sliced, rows_each and gathered at batch 1, 8 and 32
    1 -> 6, 5x5, 28x28                 0.88  0.83  0.78*  0.94  0.89  1.01   0.34  0.22  0.24
    1 -> 10, 5x5, 24x24                0.94  0.79  0.84*  1.00  0.89  1.08   0.37  0.23  0.26
    1 -> 16, 3x3, 28x28                0.94  0.85  0.89*  0.97  1.04  1.19   0.54  0.39  0.42
    1 -> 32, 3x3, 26x26                0.91  0.89  0.94   0.97  1.14  1.37*  0.56  0.47  0.46
    1 -> 32, 5x5, 28x28                0.91  0.81  0.78   1.04  1.18  1.69*  0.42  0.32  0.41
    3 -> 16, 3x3, 16x16                0.98  0.84  0.88*  0.90  0.87  0.91   0.96  0.63  0.64
    6 -> 16, 3x3, 12x12                0.95  0.82  0.70*  0.86  0.68  0.66   1.02  0.68  0.65
    6 -> 16, 5x5, 10x10                1.08  0.71  0.61*  0.96  0.72  0.69   1.21  0.73  0.67
    7 -> 16, 3x3, 12x12                1.13  0.80  0.76*  1.00  0.73  0.77   1.33  0.89  0.93
    8 -> 16, 5x5, 10x10                1.14  0.71  0.59*  0.94  0.73  0.69   1.32  0.83  0.72
    8 -> 16, 3x3, 8x8                  1.07  0.87  0.79   0.97  0.75  0.68   1.44  1.18  1.17*
    10 -> 20, 5x5, 8x8                 1.41  0.88  0.70   0.97  0.73  0.68   1.75  1.12  0.98*

    shifted_each, as multiples of gathered_each at batch 1, 8 and 32
    6 -> 16, 5x5, 28x28                0.56  0.44  0.44*
    8 -> 8, 3x3, 32x32                 0.57  0.45  0.46*
    16 -> 16, 3x3, 64x64               0.63  0.57  0.61*
    16 -> 16, 3x3, 32x32               0.78  0.62  0.63*
    16 -> 16, 3x3, 16x16               1.07  0.82  0.75*
    24 -> 24, 3x3, 24x24               1.09  0.84  0.84*
    32 -> 32, 3x3, 32x32               0.95  0.83  0.84*
    16 -> 32, 3x3, 16x16               1.30  0.92  0.91
    32 -> 32, 3x3, 16x16               1.45  1.00  0.98
    64 -> 64, 3x3, 16x16               1.61  1.17  1.02

    depthwise                          sliced       sliced_each   depthwise_each
    32, 3x3, 32x32                     1.35  5.56   1.32  2.59    1.14  2.73*
    64, 3x3, stride 2, 32x32           2.51  6.50   2.26  4.49    0.74  1.48*
    128, 3x3, 16x16                    1.83  7.15   1.59  3.38    1.13  3.00*
    256, 3x3, 8x8                      1.69  8.06   1.51  10.7    0.62  2.24*
    128, 3x3, stride 2, 16x16          1.75  6.46   1.49  8.81    0.48  1.31*

    1x1                                at_once      each_sample
    32 -> 64, 32x32                    0.97  0.93   0.84  0.55*
    128 -> 128, 16x16                  0.81  1.19   1.06  0.87*
    256 -> 256, 4x4                    0.47  0.93*  2.19  1.45

    1x1, stride 2: over the pixels seen, as multiples of gathered at batch 1, 8 and 32
    16 -> 32, 32x32                    0.77  0.66  0.66*
    32 -> 64, 16x16                    1.13  0.93  0.76*
    64 -> 128, 28x28                   1.20  0.83  0.70*
    128 -> 256, 14x14                  0.85  0.92  0.94*
    256 -> 512, 7x7                    0.68  0.90  0.94*
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from laconic.training.builder import Dim, GraphBuilder, TensorType
from laconic.training.rules.unfolding import flat_images, pixels, places
from laconic.training.rules.window import Window

CACHED_BYTES = 64 * 1024
"""A sample that unfolds to no more is unfolded with its whole batch: 32 of them stay in a cache of 2 MB."""

ROWS_BYTES = 100 * 1024
"""A sample that unfolds to no more, with the gradient that it meets, is unfolded by rows with its batch."""

GATHERED_CHANNELS = 6
"""From this many channels on, moving pixels with all their channels can be cheaper than moving rows of
pixels."""

ROWS_CHANNELS, ROWS_WINDOWS = 8, 100
"""It is not for up to this many channels of images of at least so many windows, from some samples on."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """The shapes of one weight gradient; `channels_in` counts those of all groups, `batch` is an axis."""

    window: Window
    group: int
    channels_in: int
    channels_out: int
    batch: Dim

    @property
    def windows(self) -> int:
        """Number of places of the window in one sample."""
        return math.prod(self.window.output)

    @property
    def weight(self) -> tuple[int, ...]:
        """Shape of the weight, for each group its input channels."""
        return (self.channels_out, self.channels_in // self.group, *self.window.kernel)

    @property
    def unfolded_bytes(self) -> int:
        """Size of one sample unfolded, in float32."""
        return 4 * self.channels_in * self.window.taps * self.windows


Lowering: TypeAlias = Callable[[GraphBuilder, str, str, Correlation], str]
"""`lowering(graph, x, dy, correlation)` appends the gradient of the weight."""


def weight_gradient(g: GraphBuilder, x: str, dy: str, c: Correlation) -> str:
    """The gradient of the weight that maps windows of `x` to the channels of which `dy` is the gradient."""
    if c.group == 1 and _skips(c.window):
        return weight_gradient(g, *_only_seen(g, x, dy, c))
    return LOWERINGS[choice(c)](g, x, dy, c)


def _skips(window: Window) -> bool:
    """Whether each window is one element, no two the same, and some elements are in none."""
    return window.taps == 1 and not any(window.before) and max(window.after) <= 0 and not window.pointwise


def _only_seen(g: GraphBuilder, x: str, dy: str, c: Correlation) -> tuple[str, str, Correlation]:
    """A correlation over some pixels as one over all, of images of no others.

    They are means of one pixel each: Slice takes 1.1 to 2.3 times as long.
    """
    window, ones = c.window, [1] * c.window.rank
    seen = g.op("AveragePool", x, kernel_shape=ones, strides=window.strides)
    g.types[seen] = TensorType(g.real, (c.batch, c.channels_in, *window.output))
    one, none = tuple(ones), (0,) * window.rank
    return seen, dy, replace(c, window=Window(one, one, one, none, window.output, window.output))


def choice(c: Correlation) -> str:
    """The name of the fastest lowering by the shapes that are known before the batch size is."""
    if c.window.pointwise and c.group == 1:
        # One product a sample writes a whole weight each time; one for all moves input and output.
        moved = (c.channels_in + c.channels_out) * c.windows
        return "at_once" if c.channels_in * c.channels_out > moved else "each_sample"
    small, rows = c.unfolded_bytes <= CACHED_BYTES, c.group == 1 and c.window.rank == 2
    fits = rows and c.unfolded_bytes + 4 * c.channels_out * c.windows <= ROWS_BYTES
    if c.group == c.channels_in == c.channels_out and c.group >= GATHERED_CHANNELS:
        return "depthwise_each"
    if c.group == 1 and c.channels_in >= GATHERED_CHANNELS:
        # What is shifted leaves a weight that has to be reordered, which is felt at batch 1.
        if not small and shifts(c) and c.channels_in * c.channels_out <= c.windows:
            return "shifted_each"
        if fits and c.channels_in <= ROWS_CHANNELS and c.windows >= ROWS_WINDOWS:
            return "rows_at_once"
        return "gathered" if small else "gathered_each"
    if rows:
        return "rows_at_once" if fits else "rows_each"
    return "sliced" if small else "sliced_each"


def shifts(c: Correlation) -> bool:
    """Whether `shifted_each` is possible."""
    same = c.window.rank == 2 and c.window.input[1] == c.window.output[1]
    return same and c.group == 1 and set(c.window.strides) == {1}


def at_once(g: GraphBuilder, x: str, dy: str, c: Correlation) -> str:
    """1x1: one product over all samples, channels first."""
    rows = g.reshape(_channels_first(g, dy, c), c.channels_out, -1)
    columns = g.reshape(_channels_first(g, x, c), c.channels_in, -1)
    made = g.op("Gemm", rows, columns, transB=1, shape=(c.channels_out, c.channels_in))
    return g.reshape(made, *c.weight, shape=c.weight)


def each_sample(g: GraphBuilder, x: str, dy: str, c: Correlation) -> str:
    """1x1: one product for each sample, then their sum; nothing is moved."""
    rows = g.reshape(dy, 0, c.channels_out, -1)
    columns = g.op("Transpose", g.reshape(x, 0, c.channels_in, -1), perm=[0, 2, 1])
    each = g.op("MatMul", rows, columns)
    return g.reshape(g.op("ReduceSum", each, g.ints(0), keepdims=0), *c.weight, shape=c.weight)


def sliced(g: GraphBuilder, x: str, dy: str, c: Correlation) -> str:
    """Any convolution: slices along one axis after the other, one product for the whole batch.

    Rows of the unfolded input are ordered channel, tap, as in the weight: nothing has to be moved after.
    """
    taps = c.window.taps
    padded = c.window.padded(g, _channels_first(g, x, c), 0.0, axis=2)
    columns = _unfolded(g, padded, c.window, axis=2)
    rows = _channels_first(g, dy, c)
    if c.group == 1:
        flat = (c.channels_out, c.channels_in * taps)
        columns, rows = g.reshape(columns, flat[1], -1), g.reshape(rows, c.channels_out, -1)
        return g.reshape(g.op("Gemm", rows, columns, transB=1, shape=flat), *c.weight, shape=c.weight)
    columns = g.reshape(columns, c.group, c.channels_in // c.group * taps, -1)
    rows = g.reshape(rows, c.group, c.channels_out // c.group, -1)
    made = g.op("MatMul", rows, g.op("Transpose", columns, perm=[0, 2, 1]))
    return g.reshape(made, *c.weight, shape=c.weight)


def sliced_each(g: GraphBuilder, x: str, dy: str, c: Correlation) -> str:
    """As `sliced`, one sample at a time."""
    taps = c.window.taps
    padded = c.window.padded(g, x, 0.0, axis=2)
    g.types[padded] = TensorType(g.real, (c.batch, c.channels_in, *c.window.reach))
    group, rows, columns = c.group, c.channels_out // c.group, c.channels_in // c.group * taps

    def body(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        unfolded = _unfolded(b, items[0], c.window, axis=1)
        if group == 1:
            pair = b.reshape(items[1], rows, c.windows), b.reshape(unfolded, columns, c.windows)
            return [b.op("Gemm", *pair, states[0], transB=1)], []
        left = b.reshape(items[1], group, rows, c.windows)
        right = b.op("Transpose", b.reshape(unfolded, group, columns, c.windows), perm=[0, 2, 1])
        return [b.op("Add", states[0], b.op("MatMul", left, right))], []

    zeros = np.zeros((rows, columns) if group == 1 else (group, rows, columns))
    (total,), _ = g.scan(body, [g.floats(zeros)], [padded, dy])
    return g.reshape(total, *c.weight, shape=c.weight)


def gathered(g: GraphBuilder, x: str, dy: str, c: Correlation) -> str:
    """Channels last: what each window sees is picked in pieces of all channels; one product for all."""
    pixels = g.op("Transpose", flat_images(g, x, c.channels_in, c.window.input), perm=[0, 2, 1])
    pixels = g.op("Pad", pixels, g.ints(0, 0, 0, 0, 1, 0))
    rows = g.op("Gather", pixels, places(g, c.window), axis=1)
    rows = g.reshape(rows, -1, c.window.taps * c.channels_in)
    left = g.op("Transpose", flat_images(g, dy, c.channels_out, c.window.output), perm=[1, 0, 2])
    return _taps_last(g, g.op("Gemm", g.reshape(left, c.channels_out, -1), rows), c)


def gathered_each(g: GraphBuilder, x: str, dy: str, c: Correlation) -> str:
    """As `gathered`, one sample at a time."""
    seen = places(g, c.window)
    width = c.window.taps * c.channels_in

    def body(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        rows = b.op("Gather", pixels(b, items[0], c.channels_in), seen, axis=0)
        return [b.op("Gemm", items[1], b.reshape(rows, c.windows, width), states[0])], []

    sequences = [
        flat_images(g, x, c.channels_in, c.window.input),
        flat_images(g, dy, c.channels_out, c.window.output),
    ]
    (total,), _ = g.scan(body, [g.floats(np.zeros((c.channels_out, width)))], sequences)
    return _taps_last(g, total, c)


def shifted_each(g: GraphBuilder, x: str, dy: str, c: Correlation) -> str:
    """Stride 1 and rows of the same length in and out: both images shifted as they lie, one sample at a time.

    A tap is a shift along the flat image. Shifts down are made of dY and shifts along of X, whose pixels that
    would come from the next row are zeros: that is fewer and longer pieces than any unfolding, and a product
    of [channel out * tap down, channel in * tap along].
    """
    window, (down, along) = c.window, c.window.kernel
    width, seen, made = window.input[1], math.prod(window.input), c.windows
    aside = [t * window.dilations[1] - window.before[1] for t in range(along)]
    start = max(0, max(aside) - width * window.before[0])
    low = [start + width * t * window.dilations[0] for t in range(down)]
    right = [start + width * window.before[0] - s for s in aside]
    length = max(low[-1] + made, right[0] + seen)
    columns = np.arange(seen) % width
    masks = [g.floats((columns - s >= 0) & (columns - s < width)) if s else "" for s in aside]

    def row(b: GraphBuilder, images: Sequence[str], starts: Sequence[int], channels: int, size: int) -> str:
        """Every image from its start on, zeros around it, one after the other."""
        pieces: list[str] = []
        for image, at in zip(images, starts, strict=True):
            before, after = (b.floats(np.zeros((channels, n))) if n else "" for n in (at, length - at - size))
            pieces += [p for p in (before, image, after) if p]
        return b.reshape(b.op("Concat", *pieces, axis=1), channels * len(images), length)

    def body(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        masked = [b.op("Mul", items[0], mask) if mask else items[0] for mask in masks]
        left = row(b, [items[1]] * down, low, c.channels_out, made)
        return [b.op("Gemm", left, row(b, masked, right, c.channels_in, seen), states[0], transB=1)], []

    sequences = [
        flat_images(g, x, c.channels_in, window.input),
        flat_images(g, dy, c.channels_out, window.output),
    ]
    zeros = np.zeros((c.channels_out * down, c.channels_in * along))
    (total,), _ = g.scan(body, [g.floats(zeros)], sequences)
    apart = g.reshape(total, c.channels_out, down, c.channels_in, along)
    return g.op("Transpose", apart, perm=[0, 2, 1, 3], shape=c.weight)


def rows_at_once(g: GraphBuilder, x: str, dy: str, c: Correlation) -> str:
    """Images of few channels: the same row of all samples side by side, shifted along; then whole rows are
    picked, and one product is made for the batch."""
    window, (down, along) = c.window, c.window.kernel
    lines = g.op("Transpose", window.padded(g, x, 0.0, axis=2), perm=[1, 2, 0, 3])
    shifted = list(window.axis_slices(g, g.op("Unsqueeze", lines, g.ints(0)), 1, axis=4))
    wide = g.op("Concat", *shifted, axis=0) if along > 1 else shifted[0]
    seen = g.op("Gather", wide, _rows_seen(g, window), axis=2)
    dlines = g.reshape(g.op("Transpose", dy, perm=[1, 2, 0, 3]), c.channels_out, -1)
    made = g.op("Gemm", g.reshape(seen, c.window.taps * c.channels_in, -1), dlines, transB=1)
    apart = g.reshape(made, along, c.channels_in, down, c.channels_out)
    return g.op("Transpose", apart, perm=[3, 1, 2, 0], shape=c.weight)


def rows_each(g: GraphBuilder, x: str, dy: str, c: Correlation) -> str:
    """Images of few channels: shifted along the rows for the whole batch, then whole rows are picked, one
    sample at a time.

    The product has the unfolded input for its long side: Gemm is up to a third faster so than the other way.
    """
    window, (down, along) = c.window, c.window.kernel
    padded = g.op("Unsqueeze", window.padded(g, x, 0.0, axis=2), g.ints(1))
    shifted = list(window.axis_slices(g, padded, 1, axis=4))
    wide = g.op("Concat", *shifted, axis=1)
    g.types[wide] = TensorType(g.real, (c.batch, along, c.channels_in, window.reach[0], window.output[1]))
    rows = _rows_seen(g, window)
    columns = c.window.taps * c.channels_in

    def body(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        seen = b.reshape(b.op("Gather", items[0], rows, axis=2), columns, c.windows)
        return [b.op("Gemm", seen, items[1], states[0], transB=1)], []

    sequences = [wide, flat_images(g, dy, c.channels_out, window.output)]
    (total,), _ = g.scan(body, [g.floats(np.zeros((columns, c.channels_out)))], sequences)
    apart = g.reshape(total, along, c.channels_in, down, c.channels_out)
    return g.op("Transpose", apart, perm=[3, 1, 2, 0], shape=c.weight)


def depthwise_each(g: GraphBuilder, x: str, dy: str, c: Correlation) -> str:
    """One channel in and out for each group: products element by element, channels last, then their sum."""
    seen = places(g, c.window, taps_first=True)

    def body(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        shown = b.op("Gather", pixels(b, items[0], c.channels_in), seen, axis=0)
        products = b.op("Mul", shown, b.op("Transpose", items[1], perm=[1, 0]))
        return [b.op("Add", states[0], b.op("ReduceSum", products, b.ints(1), keepdims=0))], []

    sequences = [
        flat_images(g, x, c.channels_in, c.window.input),
        flat_images(g, dy, c.channels_out, c.window.output),
    ]
    (total,), _ = g.scan(body, [g.floats(np.zeros((c.window.taps, c.channels_in)))], sequences)
    return g.reshape(g.op("Transpose", total, perm=[1, 0]), *c.weight, shape=c.weight)


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "at_once": at_once,
        "each_sample": each_sample,
        "sliced": sliced,
        "sliced_each": sliced_each,
        "gathered": gathered,
        "gathered_each": gathered_each,
        "rows_at_once": rows_at_once,
        "rows_each": rows_each,
        "shifted_each": shifted_each,
        "depthwise_each": depthwise_each,
    }
)
"""The two of 1x1 convolutions take no other, those that gather no groups, `depthwise_each` nothing else."""


def _channels_first(g: GraphBuilder, x: str, c: Correlation) -> str:
    return g.op("Transpose", x, perm=[1, 0, *range(2, 2 + c.window.rank)])


def _unfolded(g: GraphBuilder, x: str, window: Window, axis: int) -> str:
    """A padded `x`, [channel, ..., space...] with space from `axis` on, as [channel, tap..., ..., window...].

    The last axis first: its short slices are then few, and those along the others are of whole rows.
    """
    for a in reversed(range(window.rank)):
        x = g.op("Unsqueeze", x, g.ints(1))
        axis += 1
        pieces = list(window.axis_slices(g, x, a, axis=axis + a))
        x = g.op("Concat", *pieces, axis=1) if len(pieces) > 1 else pieces[0]
    return x


def _rows_seen(g: GraphBuilder, window: Window) -> str:
    """For each tap down the rows that it sees of a padded image."""
    starts = np.arange(window.output[0]) * window.strides[0]
    return g.ints(*(np.arange(window.kernel[0])[:, None] * window.dilations[0] + starts).ravel().tolist())


def _taps_last(g: GraphBuilder, made: str, c: Correlation) -> str:
    """[channel out, tap * channel in] as the weight has it."""
    apart = g.reshape(made, c.channels_out, c.window.taps, c.channels_in)
    return g.reshape(g.op("Transpose", apart, perm=[0, 2, 1]), *c.weight, shape=c.weight)
