"""The geometry of sliding windows, shared by convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from laconic.errors import ModelError
from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application


@dataclass(frozen=True, slots=True)
class Window:
    """A window sliding over the spatial axes (those after batch and channel), one entry for each axis.

    `before` is the padding before the first element. The padding after the last is not kept: how far the
    last window reaches follows from `output`.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    input: tuple[int, ...]
    output: tuple[int, ...]

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
    def plain(self) -> bool:
        """No padding, and every element is seen."""
        return not any(self.before) and not any(self.after)

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
    elif automatic == "VALID":
        before = (0,) * rank
    else:
        before = tuple(a.attribute("pads", [0] * (2 * rank)))[:rank]
    return Window(kernel, strides, dilations, before, size, output)
