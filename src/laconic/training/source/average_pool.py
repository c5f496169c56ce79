"""AveragePool as opset 19 has it: windows with gaps, and windows that reach past the padding.

Where opset 18 cannot say the same, a convolution with equal weights sums each window, and a constant divides
by what the window counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from laconic.errors import ModelError
from laconic.training.source.reading import Reading


@dataclass(frozen=True, slots=True)
class _Along:
    """How windows lie along one axis."""

    size: int
    window: int
    stride: int
    gap: int
    before: int
    after: int
    ceil: bool

    @property
    def reach(self) -> int:
        return (self.window - 1) * self.gap + 1

    @property
    def outputs(self) -> int:
        room = self.size + self.before + self.after - self.reach
        count = (-(-room // self.stride) if self.ceil else room // self.stride) + 1
        # A window that would begin behind the data is left out.
        return count - 1 if self.ceil and (count - 1) * self.stride >= self.size + self.before else count

    @property
    def needed_after(self) -> int:
        return max(0, (self.outputs - 1) * self.stride + self.reach - self.size - self.before)

    def counted(self, padding: bool) -> NDArray[np.int64]:
        """How many elements of each window are divided by: those of the data, or with its padding."""
        first, last = (-self.before, self.size + self.after) if padding else (0, self.size)
        starts = np.arange(self.outputs)[:, None] * self.stride - self.before
        at = starts + np.arange(self.window) * self.gap
        inside: NDArray[np.int64] = np.sum((at >= first) & (at < last), axis=1)
        return inside


def needs_convolution(settings: Mapping[str, Any]) -> bool:
    """Whether opset 18 has no word for it."""
    gaps = any(d != 1 for d in settings.get("dilations") or ())
    return gaps or bool(settings.get("ceil_mode") and settings.get("count_include_pad"))


def as_convolution(r: Reading, node: NodeProto, settings: Mapping[str, Any]) -> None:
    """Raises `ModelError` where the axes of a sample are not known: the counts depend on them."""
    x, how = node.input[0], "dilations, or with ceil_mode and count_include_pad"
    thing = f"AveragePool {node.name or node.output[0]!r} with {how}"
    known = r.types.get(x)
    sizes = () if known is None or known.shape is None else known.shape[1:]
    channels, *spatial = (d for d in sizes if isinstance(d, int))
    if not sizes or len(spatial) + 1 != len(sizes):
        raise ModelError(
            f"shape of what goes into {thing}",
            value=sizes,
            limit="a sample of known size",
            remedy="give input_shapes, or export with only the batch axis dynamic",
        )
    if settings.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise ModelError(
            f"automatic padding of {thing}",
            value=settings["auto_pad"],
            limit="NOTSET or VALID, as in onnxruntime",
            remedy="export with numbers as pads",
        )
    axes = _layout(spatial, settings)
    counts = reduce(np.multiply.outer, [a.counted(bool(settings.get("count_include_pad"))) for a in axes])
    counts = np.maximum(counts, 1)
    even = counts.min() == counts.max()
    weight = np.full((channels, 1, *(a.window for a in axes)), 1 / counts.flat[0] if even else 1.0)
    summed = r.op(
        "Conv",
        x,
        r.floats(weight),
        outputs=list(node.output) if even else 1,
        group=channels,
        strides=[a.stride for a in axes],
        dilations=[a.gap for a in axes],
        pads=[*(a.before for a in axes), *(a.needed_after for a in axes)],
    )
    if not even:
        r.op("Mul", summed, r.floats(1 / counts), outputs=list(node.output))


def _layout(spatial: Sequence[int], settings: Mapping[str, Any]) -> list[_Along]:
    windows = list(settings["kernel_shape"])
    rank = len(windows)
    strides = list(settings.get("strides") or [1] * rank)
    gaps = list(settings.get("dilations") or [1] * rank)
    pads = list(settings.get("pads") or [0] * 2 * rank)
    ceil = bool(settings.get("ceil_mode"))
    return [
        _Along(size, windows[i], strides[i], gaps[i], pads[i], pads[i + rank], ceil)
        for i, size in enumerate(spatial)
    ]
