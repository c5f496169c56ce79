"""The geometry of sliding windows, shared by convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.errors import ModelError
from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application


@dataclass(frozen=True, slots=True)
class Window:
    """A window sliding over the spatial axes (those after batch and channel), one entry for each axis.

    `before` is the padding before the first element. How far the last window reaches follows from `output`;
    `asked`, the padding after the last element that the node asks for, matters only to means that count it.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    input: tuple[int, ...]
    output: tuple[int, ...]
    asked: tuple[int, ...] = ()

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def taps(self) -> int:
        """Number of elements of a window."""
        return math.prod(self.kernel)

    @property
    def after(self) -> tuple[int, ...]:
        """Padding that the last window reaches; negative where elements stay unseen."""
        return tuple(
            (o - 1) * s + d * (k - 1) + 1 - b - i
            for o, s, d, k, b, i in zip(
                self.output, self.strides, self.dilations, self.kernel, self.before, self.input, strict=True
            )
        )

    @property
    def reach(self) -> tuple[int, ...]:
        """Size of the input once it is padded, elements that no window sees included."""
        return tuple(b + i + max(0, a) for b, i, a in zip(self.before, self.input, self.after, strict=True))

    @property
    def pointwise(self) -> bool:
        """Each window is one element, and each element is one window."""
        return self.taps == 1 and self.plain and set(self.strides) == {1}

    @property
    def plain(self) -> bool:
        """No padding, and every element is seen."""
        return not any(self.before) and not any(self.after)

    @property
    def tiled(self) -> bool:
        """Windows lie side by side, without padding or dilation."""
        whole = self.kernel == self.strides and set(self.dilations) == {1}
        return whole and not any(self.before) and max(self.after) <= 0

    @property
    def covered(self) -> tuple[int, ...]:
        """How many elements windows that lie side by side cover."""
        return tuple(o * k for o, k in zip(self.output, self.kernel, strict=True))

    def counts(self, *, padding: bool) -> list[NDArray[np.int64]]:
        """For each axis how many elements each window sees, those of the padding counted or not."""
        found = []
        for axis, kernel in enumerate(self.kernel):
            places = np.arange(self.output[axis])[:, None] * self.strides[axis]
            places = places + np.arange(kernel) * self.dilations[axis] - self.before[axis]
            low, high = 0, self.input[axis]
            if padding:
                low, high = -self.before[axis], high + self.asked[axis]
            found.append(((places >= low) & (places < high)).sum(1))
        return found

    def padded(self, g: GraphBuilder, x: str, value: float, axis: int) -> str:
        """`x`, whose spatial axes start at `axis`, filled up with `value` to what the windows reach."""
        after = [max(0, p) for p in self.after]
        if not any(self.before) and not any(after):
            return x
        lead = [0] * axis
        pads = g.ints(*lead, *self.before, *lead, *after)
        return g.op("Pad", x, pads, g.scalar(value)) if value else g.op("Pad", x, pads)

    def tap_slices(self, g: GraphBuilder, x: str, axis: int) -> Iterator[str]:
        """For each element of the window in row-major order, what it sees: slices of a padded `x`."""
        axes = g.ints(*range(axis, axis + self.rank))
        for tap in np.ndindex(*self.kernel):
            starts = [t * d for t, d in zip(tap, self.dilations, strict=True)]
            ends = [b + (o - 1) * s + 1 for b, o, s in zip(starts, self.output, self.strides, strict=True)]
            yield g.op("Slice", x, g.ints(*starts), g.ints(*ends), axes, g.ints(*self.strides))

    def axis_slices(self, g: GraphBuilder, x: str, which: int, axis: int) -> Iterator[str]:
        """For each element along spatial axis `which`, what it sees: slices of a padded `x` along `axis`."""
        stride, dilation = self.strides[which], self.dilations[which]
        span = (self.output[which] - 1) * stride + 1
        for tap in range(self.kernel[which]):
            start = tap * dilation
            whole = start == 0 and stride == 1 and span == self.reach[which]
            yield (
                x
                if whole
                else g.op("Slice", x, g.ints(start), g.ints(start + span), g.ints(axis), g.ints(stride))
            )

    def cropped(self, g: GraphBuilder, x: str, axis: int) -> str:
        """`x`, whose spatial axes start at `axis`, without the elements at its end that no window sees."""
        ends = [i + min(0, p) for i, p in zip(self.input, self.after, strict=True)]
        if tuple(ends) == self.input:
            return x
        axes = range(axis, axis + self.rank)
        return g.op("Slice", x, g.ints(*[0] * self.rank), g.ints(*ends), g.ints(*axes))

    @property
    def exact(self) -> Window:
        """The same window over an input that has been cropped."""
        ends = tuple(i + min(0, p) for i, p in zip(self.input, self.after, strict=True))
        return replace(self, input=ends)

    def transposed(self) -> dict[str, Any]:
        """Attributes of the ConvTranspose that maps what the windows see back to the input's size."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            "pads": [*self.before, *(max(0, p) for p in self.after)],
            "output_padding": [max(0, -p) for p in self.after],
        }


def window_of(a: Application, kernel: tuple[int, ...]) -> Window:
    """The window of a Conv or pooling node (ONNX operators `Conv` and `MaxPool`, opset 18)."""
    rank = len(kernel)
    strides = tuple(a.attribute("strides", [1] * rank))
    dilations = tuple(a.attribute("dilations", [1] * rank))
    size = a.graph.static(a.inputs[0], 2)
    output = a.graph.static(a.output, 2)
    if {len(strides), len(dilations), len(size), len(output)} != {rank}:
        raise ModelError(f"axes of {a.node.op_type} {a.output!r}", value=len(size), limit=rank)
    automatic = a.attribute("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (o - 1) * s + d * (k - 1) + 1 - i)
            for o, s, d, k, i in zip(output, strides, dilations, kernel, size, strict=True)
        ]
        before = tuple(t // 2 if automatic == "SAME_UPPER" else t - t // 2 for t in total)
        after = tuple(t - b for t, b in zip(total, before, strict=True))
    else:
        pads = [0] * (2 * rank) if automatic == "VALID" else a.attribute("pads", [0] * (2 * rank))
        before, after = tuple(pads[:rank]), tuple(pads[rank:])
    return Window(kernel, strides, dilations, before, size, output, after)


def transposed_window_of(a: Application, kernel: tuple[int, ...]) -> Window:
    """The window that a ConvTranspose node slides over its output (ONNX operator `ConvTranspose`, opset 11).

    Its places are the elements of the node's input. Raises `ModelError` where shape inference and onnxruntime
    disagree about the size of the output.
    """
    rank = len(kernel)
    strides = tuple(a.attribute("strides", [1] * rank))
    dilations = tuple(a.attribute("dilations", [1] * rank))
    places = a.graph.static(a.inputs[0], 2)
    made = a.graph.static(a.output, 2)
    if {len(strides), len(dilations), len(places), len(made)} != {rank}:
        raise ModelError(f"axes of {a.node.op_type} {a.output!r}", value=len(places), limit=rank)
    extra = a.attribute("output_padding", [0] * rank)
    automatic = a.attribute("auto_pad", "NOTSET")
    asked = a.attribute("output_shape")
    if not asked and automatic not in ("SAME_UPPER", "SAME_LOWER"):
        pads = [0] * rank if automatic == "VALID" else a.attribute("pads", [0] * (2 * rank))
        return Window(kernel, strides, dilations, tuple(pads[:rank]), made, places)
    before = []
    for n, k, s, d, p, m in zip(places, kernel, strides, dilations, extra, made, strict=True):
        full = (n - 1) * s + d * (k - 1) + 1 + p
        if not asked and m != min(full, n * s):
            raise ModelError(
                f"automatic padding of ConvTranspose {a.output!r}",
                value=f"output of {m}",
                limit=min(full, n * s),
                remedy="export the model with explicit pads",
            )
        total = max(0, full - m)
        before.append(total // 2 if automatic == "SAME_UPPER" else total - total // 2)
    return Window(kernel, strides, dilations, tuple(before), made, places)
