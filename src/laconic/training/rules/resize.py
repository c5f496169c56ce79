"""The gradient rule of Resize.

Every mode is linear and works axis by axis, so that along each axis it is a product with a constant matrix
(laconic.training.rules.interpolation), and its gradient the product with the transposed matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients, Rule, only
from laconic.training.rules.axes import refuse, vector
from laconic.training.rules.interpolation import Axis, Interpolation, matrix


def resize(a: Application, dys: Gradients) -> Gradients:
    """dx is the product of dy with the transposed interpolation matrix of each axis."""
    g, dy = a.graph, only(dys)
    none = (None for _ in a.inputs[1:])
    matrices = {axis: m for axis, m in _matrices(a).items() if not _is_identity(m)}
    factors = {axis: _repetitions(m) for axis, m in matrices.items()}
    rank = len(a.output_shape)
    spatial = range(2, rank)
    if matrices and rank in (3, 4, 5) and all(f and axis in spatial for axis, f in factors.items()):
        return _block_sums(g, dy, [factors.get(axis) or 1 for axis in spatial]), *none
    # The axis that shrinks most goes first: less is left for the others.
    for axis in sorted(matrices, key=lambda i: matrices[i].shape[1] / matrices[i].shape[0]):
        dy = _along(g, dy, axis, rank, matrices[axis])
    return dy, *none


def _block_sums(g: GraphBuilder, dy: str, kernel: list[int]) -> str:
    """The gradient of whole-number enlargement by repetition: the average of each block, times its size.

    A third of the time of a sum over axes of its own.
    """
    mean = g.op("AveragePool", dy, kernel_shape=kernel, strides=kernel)
    return g.op("Mul", mean, g.scalar(float(math.prod(kernel))))


def _along(g: GraphBuilder, dy: str, axis: int, rank: int, m: NDArray[np.float64]) -> str:
    if axis == rank - 1:
        return g.op("MatMul", dy, g.floats(m))
    across = g.floats(np.ascontiguousarray(m.T))
    if axis == rank - 2:
        return g.op("MatMul", across, dy)
    # Axes behind this one become one, and come back as they were.
    behind = g.op("Shape", dy, start=axis + 1)
    flat = g.op("Reshape", dy, g.ints(*[0] * (axis + 1), -1))
    return g.op("Reshape", g.op("MatMul", across, flat), vector(g, *[0] * axis, m.shape[1], behind))


def _matrices(a: Application) -> dict[int, NDArray[np.float64]]:
    """The interpolation matrix of each axis that is not left as it is, [output, input]."""
    g, x = a.graph, a.inputs[0]
    shape, out = g.shape(x), a.output_shape
    rank = len(shape)
    if shape[1:] == out[1:] and not (isinstance(shape[0], int) and shape[0] != out[0]):
        return {}  # onnxruntime copies what keeps its shape, in every mode
    if a.attribute("antialias", 0):
        refuse(a, "antialias", 1, 0)
    axes = [n % rank for n in a.attribute("axes", range(rank))]
    scales = dict(zip(axes, _floats(a, 2), strict=False))
    mode = a.attribute("coordinate_transformation_mode", "half_pixel")
    roi = _floats(a, 1) if mode == "tf_crop_and_resize" else []
    interpolation = Interpolation(
        mode=a.attribute("mode", "nearest"),
        coordinates=mode,
        nearest=a.attribute("nearest_mode", "round_prefer_floor"),
        cubic=a.attribute("cubic_coeff_a", -0.75),
        exclude_outside=bool(a.attribute("exclude_outside", 0)),
    )
    asked = dict(scales)
    if scales == {} and a.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        scales = _common_scale(a, axes)
    found = {}
    for position, axis in enumerate(axes):
        length, wanted = shape[axis], out[axis]
        if scales.get(axis, 1.0 if length == wanted else None) == 1.0:
            continue
        if axis == 0 and not isinstance(length, int) and not isinstance(wanted, int):
            continue  # the batch, whatever its size is called after a computation; nobody resizes it
        if not isinstance(length, int) or not isinstance(wanted, int):
            refuse(a, f"size of axis {axis}", (length, wanted), "known sizes", "give `input_shapes`")
        start, end = (roi[position], roi[len(axes) + position]) if roi else (0.0, 1.0)
        if axis in asked and int(np.float32(length) * np.float32(asked[axis])) != wanted:
            # onnx and onnxruntime disagree about the size of the result.
            refuse(
                a, f"scale of axis {axis}", asked[axis], "one that makes a whole size", "export with sizes"
            )
        scale = scales.get(axis, float(np.float32(wanted) / np.float32(length)))
        found[axis] = matrix(interpolation, Axis(length, wanted, scale, start, end))
    return found


def _common_scale(a: Application, axes: list[int]) -> dict[int, float]:
    """The one scale that keeps the aspect ratio, from the sizes asked for (Resize, opset 18)."""
    g = a.graph
    sizes = g.value(a.inputs[3])
    if sizes is None:
        refuse(a, "sizes", "known only at run time", remedy="export them as constants")
    shape = g.shape(a.inputs[0])
    lengths = [shape[axis] for axis in axes]
    if any(not isinstance(n, int) for n in lengths):
        refuse(a, "sizes", lengths, "known sizes", "give `input_shapes`")
    each = [float(np.float32(s) / np.float32(n)) for s, n in zip(sizes, lengths, strict=True)]
    chosen = min(each) if a.attribute("keep_aspect_ratio_policy") == "not_larger" else max(each)
    return dict.fromkeys(axes, chosen)


def _floats(a: Application, position: int) -> list[float]:
    """An optional constant input; [] if it is left out or empty."""
    if len(a.inputs) <= position or not a.inputs[position]:
        return []
    value = a.graph.value(a.inputs[position])
    if value is None:
        refuse(
            a,
            "roi" if position == 1 else "scales",
            "known only at run time",
            remedy="export it as a constant",
        )
    return [float(v) for v in value]


def _is_identity(m: NDArray[np.float64]) -> bool:
    return m.shape[0] == m.shape[1] and np.array_equal(m, np.eye(len(m)))


def _repetitions(m: NDArray[np.float64]) -> int | None:
    """k, if the matrix repeats every element k times."""
    k, rest = divmod(m.shape[0], m.shape[1])
    return k if rest == 0 and np.array_equal(m, np.repeat(np.eye(m.shape[1]), k, axis=0)) else None


RULES: Mapping[str, Rule] = MappingProxyType({"Resize": resize})
