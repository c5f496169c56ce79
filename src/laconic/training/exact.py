"""ONNX's reference implementation with its windowed operators written anew, in any floating-point precision.

onnx's own are wrong in places (ConvTranspose with groups, pooling with automatic padding or a ceiling,
GlobalMaxPool other than in two dimensions) and loop over single windows in Python. Here every operator
follows its definition in the ONNX operator specification, with numpy doing the loops. Where the specification
leaves room (a last window that would begin after the data, a ConvTranspose whose kernel is smaller than its
stride) onnxruntime decides. It departs from the specification in the automatic padding of a pooling window
that is dilated or far smaller than its stride; nothing here follows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from laconic.training import exact_recurrent

Array = NDArray[Any]
Ints = Sequence[int]


def evaluator(model: ModelProto | NodeProto | bytes) -> ReferenceEvaluator:
    """Runs `model` by the definitions of its operators, in the precision of what it is fed."""
    return ReferenceEvaluator(model, new_ops=[*OPERATORS, *exact_recurrent.OPERATORS])


@dataclass(frozen=True, slots=True)
class _Geometry:
    """Where the windows over the spatial axes lie; one entry for each axis.

    `after` is the padding that was asked for, which the last window need not reach and, rounded up, may pass.
    """

    kernel: Ints
    strides: Ints
    dilations: Ints
    before: Ints
    after: Ints
    output: Ints


def _geometry(
    size: Ints,
    kernel: Ints,
    strides: Ints | None,
    dilations: Ints | None,
    pads: Ints | None,
    auto_pad: str | None,
    *,
    ceil: bool = False,
) -> _Geometry:
    rank = len(kernel)
    strides = strides or [1] * rank
    dilations = dilations or [1] * rank
    extent = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        output = [-(-n // s) for n, s in zip(size, strides, strict=True)]
        total = [
            max(0, (o - 1) * s + e - n) for o, s, e, n in zip(output, strides, extent, size, strict=True)
        ]
        before = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
        after = [t - b for t, b in zip(total, before, strict=True)]
        return _Geometry(kernel, strides, dilations, before, after, output)
    pads = [0] * (2 * rank) if auto_pad == "VALID" or not pads else pads
    output = []
    for n, b, a, e, s in zip(size, pads[:rank], pads[rank:], extent, strides, strict=True):
        room = n + b + a - e
        steps = -(-room // s) if ceil else room // s
        if ceil and steps * s >= n + b:
            steps -= 1  # A window must begin inside the data or the padding before it.
        output.append(steps + 1)
    return _Geometry(kernel, strides, dilations, pads[:rank], pads[rank:], output)


def _windows(x: Array, w: _Geometry, fill: float) -> Array:
    """A view of `x` [batch, channel, space...], filled up, as [batch, channel, tap..., window...]."""
    reach = [
        (o - 1) * s + d * (k - 1) + 1
        for o, s, d, k in zip(w.output, w.strides, w.dilations, w.kernel, strict=True)
    ]
    size = x.shape[2:]
    held = [max(r, b + n) for r, b, n in zip(reach, w.before, size, strict=True)]
    if tuple(held) != size:
        padded = np.full((*x.shape[:2], *held), fill, x.dtype)
        padded[_at(slice(b, b + n) for b, n in zip(w.before, size, strict=True))] = x
        x = padded
    steps = x.strides[2:]
    return as_strided(
        x,
        (*x.shape[:2], *w.kernel, *w.output),
        (
            *x.strides[:2],
            *(d * step for d, step in zip(w.dilations, steps, strict=True)),
            *(s * step for s, step in zip(w.strides, steps, strict=True)),
        ),
        writeable=False,
    )


def _at(places: Iterable[slice]) -> tuple[Any, ...]:
    """An index into the spatial axes."""
    return (..., *places)


def _tap_axes(w: _Geometry) -> tuple[int, ...]:
    return tuple(range(2, 2 + len(w.kernel)))


def _with_bias(y: Array, b: Array | None) -> Array:
    return y if b is None else y + b.reshape(-1, *[1] * (y.ndim - 2))


class _Operator(OpRun):
    op_domain = ""


class Conv(_Operator):
    """Each output channel is the product of its kernel with every window."""

    def _run(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        *,
        auto_pad: str | None = None,
        dilations: Ints | None = None,
        group: int | None = None,
        pads: Ints | None = None,
        strides: Ints | None = None,
        **_: Any,
    ) -> tuple[Array]:
        groups = group or 1
        shape = _geometry(x.shape[2:], w.shape[2:], strides, dilations, pads, auto_pad)
        columns = _windows(x, shape, 0.0).reshape(len(x), groups, w[0].size, math.prod(shape.output))
        kernels = w.reshape(groups, -1, w[0].size)
        return (_with_bias((kernels @ columns).reshape(len(x), len(w), *shape.output), b),)


class ConvTranspose(_Operator):
    """Each input element adds its kernel, scaled, to the output, which is then cut to its size."""

    def _run(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        *,
        auto_pad: str | None = None,
        dilations: Ints | None = None,
        group: int | None = None,
        output_padding: Ints | None = None,
        output_shape: Ints | None = None,
        pads: Ints | None = None,
        strides: Ints | None = None,
        **_: Any,
    ) -> tuple[Array]:
        size, kernel, groups = x.shape[2:], w.shape[2:], group or 1
        rank = len(kernel)
        strides, dilations = strides or [1] * rank, dilations or [1] * rank
        full = [
            s * (n - 1) + d * (k - 1) + 1 for s, n, d, k in zip(strides, size, dilations, kernel, strict=True)
        ]
        asked = [f + p for f, p in zip(full, output_padding or [0] * rank, strict=True)]
        if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            same = [min(n * s, f) for n, s, f in zip(size, strides, asked, strict=True)]
            output = list(output_shape or same)[-rank:]
            total = [max(0, f - o) for f, o in zip(asked, output, strict=True)]
            before = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
        else:
            pads = [0] * (2 * rank) if auto_pad == "VALID" or not pads else pads
            before = list(pads[:rank])
            output = [f - b - a for f, b, a in zip(asked, before, pads[rank:], strict=True)]
        channels = groups * w.shape[1]
        kernels = w.reshape(groups, -1, w[0].size).swapaxes(1, 2)
        parts = (kernels @ x.reshape(len(x), groups, -1, math.prod(size))).reshape(
            len(x), channels, *kernel, *size
        )
        held = [max(f, o + c) for f, o, c in zip(full, output, before, strict=True)]
        y = np.zeros((len(x), channels, *held), x.dtype)
        for tap in np.ndindex(*kernel):
            places = _at(
                slice(t * d, t * d + s * (n - 1) + 1, s)
                for t, d, s, n in zip(tap, dilations, strides, size, strict=True)
            )
            y[places] += parts[(slice(None), slice(None), *tap)]
        return (_with_bias(y[_at(slice(c, c + o) for c, o in zip(before, output, strict=True))], b),)


class MaxPool(_Operator):
    """The largest element of each window, and where it lies: the first in row-major order among equals."""

    def _run(
        self,
        x: Array,
        *,
        auto_pad: str | None = None,
        ceil_mode: int | None = None,
        dilations: Ints | None = None,
        kernel_shape: Ints = (),
        pads: Ints | None = None,
        storage_order: int | None = None,
        strides: Ints | None = None,
        **_: Any,
    ) -> tuple[Array, ...]:
        size = x.shape[2:]
        shape = _geometry(size, kernel_shape, strides, dilations, pads, auto_pad, ceil=bool(ceil_mode))
        lowest = float(np.finfo(x.dtype).min) if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        seen = _windows(x, shape, lowest)
        y = seen.max(_tap_axes(shape))
        if len(self.onnx_node.output) < 2:
            return (y,)
        # Padding is nobody's maximum: it counts as equal to nothing.
        own = _windows(np.ones(x.shape, np.bool_), shape, 0.0)
        hit = ((seen == np.expand_dims(y, _tap_axes(shape))) & own).reshape(*x.shape[:2], -1, *shape.output)
        taps = np.unravel_index(hit.argmax(2), tuple(kernel_shape))
        index = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * len(size))
        weights = np.cumprod([1, *size[::-1]])[:-1][::-1]
        if storage_order:
            weights = np.cumprod([1, *size])[:-1]
        index = index * math.prod(size)
        for axis, tap in enumerate(taps):
            windows = np.arange(shape.output[axis]) * shape.strides[axis] - shape.before[axis]
            windows = windows.reshape(-1, *[1] * (len(size) - axis - 1))
            index = index + (windows + tap * shape.dilations[axis]) * weights[axis]
        return y, index.astype(np.int64)


class AveragePool(_Operator):
    """The mean of each window, over its elements of data or also those of the padding."""

    def _run(
        self,
        x: Array,
        *,
        auto_pad: str | None = None,
        ceil_mode: int | None = None,
        count_include_pad: int | None = None,
        dilations: Ints | None = None,
        kernel_shape: Ints = (),
        pads: Ints | None = None,
        strides: Ints | None = None,
        **_: Any,
    ) -> tuple[Array]:
        shape = _geometry(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil=bool(ceil_mode))
        total = _windows(x, shape, 0.0).sum(_tap_axes(shape))
        counted = np.ones((1, 1, *x.shape[2:]), x.dtype)
        if count_include_pad:
            around = [(0, 0), (0, 0), *zip(shape.before, shape.after, strict=True)]
            counted = np.pad(counted, around, constant_values=1)
            shape = replace(shape, before=[0] * len(kernel_shape))
        return (total / _windows(counted, shape, 0.0).sum(_tap_axes(shape)),)


class LpPool(_Operator):
    """The p-norm of each window."""

    def _run(
        self,
        x: Array,
        *,
        auto_pad: str | None = None,
        ceil_mode: int | None = None,
        dilations: Ints | None = None,
        kernel_shape: Ints = (),
        p: int | None = None,
        pads: Ints | None = None,
        strides: Ints | None = None,
        **_: Any,
    ) -> tuple[Array]:
        shape = _geometry(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil=bool(ceil_mode))
        order = 2 if p is None else p
        total = (np.abs(_windows(x, shape, 0.0)) ** order).sum(_tap_axes(shape))
        return ((total ** (1 / order)).astype(x.dtype),)


def _spatial(x: Array) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


class GlobalAveragePool(_Operator):
    """The mean of each channel."""

    def _run(self, x: Array) -> tuple[Array]:
        return (x.mean(_spatial(x), keepdims=True, dtype=x.dtype),)


class GlobalMaxPool(_Operator):
    """The largest element of each channel."""

    def _run(self, x: Array) -> tuple[Array]:
        return (x.max(_spatial(x), keepdims=True),)


class GlobalLpPool(_Operator):
    """The p-norm of each channel."""

    def _run(self, x: Array, *, p: int | None = None) -> tuple[Array]:
        order = 2 if p is None else p
        total = (np.abs(x) ** order).sum(_spatial(x), keepdims=True)
        return ((total ** (1 / order)).astype(x.dtype),)


class Erf(_Operator):
    """The error function; onnx approximates it with an error of 1e-8, too coarse for differences."""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


OPERATORS: tuple[type[OpRun], ...] = (
    AveragePool,
    Conv,
    ConvTranspose,
    Erf,
    GlobalAveragePool,
    GlobalLpPool,
    GlobalMaxPool,
    LpPool,
    MaxPool,
)
"""The operators that take the place of onnx's; a class bears its operator's name."""
