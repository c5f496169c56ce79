"""Interpolation along one axis as a matrix, by the definition of Resize (ONNX operator `Resize`, opset 18).

Coordinates of nearest mode and of crops are computed in float32 and in the order in which onnxruntime does
it: which neighbour is nearest, or whether a place lies outside, can hang on the last bit. Of all modes,
`tf_crop_and_resize` and `half_pixel_symmetric` still leave ties (one place in a thousand) that onnxruntime's
compiled code breaks the other way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Interpolation:
    """The attributes of a Resize node that decide what an output element is made of."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its size before and after, their ratio as the node says it, and the region of interest."""

    length: int
    resized: int
    scale: float
    start: float = 0.0
    end: float = 1.0


def matrix(how: Interpolation, axis: Axis) -> NDArray[np.float64]:
    """The weights of the input's elements (columns) in each of the output's (rows)."""
    weights = np.zeros((axis.resized, axis.length))
    places = positions(how, axis)
    for row, place in enumerate(places.tolist()):
        if how.coordinates == "tf_crop_and_resize" and not 0 <= place <= axis.length - 1:
            continue  # this element is the extrapolation value
        for column, weight in _neighbours(how, place):
            if not 0 <= column < axis.length and how.exclude_outside and how.mode == "cubic":
                continue
            weights[row, min(max(column, 0), axis.length - 1)] += weight
    if how.exclude_outside and how.mode == "cubic":
        totals = weights.sum(axis=1, keepdims=True)
        weights = np.divide(weights, totals, out=weights, where=totals != 0)
    return weights


def positions(how: Interpolation, axis: Axis) -> NDArray[Any]:
    """Where each output element lies between the input's elements (`coordinate_transformation_mode`)."""
    cropped = how.coordinates == "tf_crop_and_resize"
    real: Any = np.float32 if how.mode == "nearest" or cropped else np.float64
    out = np.arange(axis.resized).astype(real)
    one, half = real(1), real(0.5)
    scale, length, resized = real(axis.scale), real(axis.length), real(axis.resized)
    centres: NDArray[Any] = (out + half) / scale - half
    single: NDArray[Any] = np.zeros(1, real)
    match how.coordinates:
        case "asymmetric":
            centres = out / scale
        case "pytorch_half_pixel":
            centres = centres if axis.resized > 1 else single
        case "align_corners":
            centres = out * (length - one) / (resized - one) if axis.resized > 1 else single
        case "tf_crop_and_resize":
            start, end = real(axis.start), real(axis.end)
            if axis.resized > 1:
                centres = start * (length - one) + out * (end - start) * (length - one) / (resized - one)
            else:
                centres = single + half * (start + end) * (length - one)
        case "half_pixel_symmetric":
            shift = length / real(2) * (one - resized / (scale * length))
            centres = (float(shift) + (out + 0.5) / scale - 0.5).astype(real)
    return centres


def _neighbours(how: Interpolation, place: float) -> list[tuple[int, float]]:
    """The input's elements around a place, before the ends are taken care of, with their weights."""
    if how.mode == "nearest":
        return [(_rounded(how.nearest, place), 1.0)]
    below = math.floor(place)
    t = place - below
    if how.mode == "linear":
        return [(below, 1.0 - t), (below + 1, t)]
    c = how.cubic
    near = [((c + 2) * d - (c + 3)) * d * d + 1 for d in (t, 1 - t)]
    far = [((c * d - 5 * c) * d + 8 * c) * d - 4 * c for d in (1 + t, 2 - t)]
    return list(zip(range(below - 1, below + 3), (far[0], near[0], near[1], far[1]), strict=True))


def _rounded(how: str, place: float) -> int:
    match how:
        case "floor":
            return math.floor(place)
        case "ceil":
            return math.ceil(place)
        case "round_prefer_ceil":
            return math.floor(place + 0.5)
        case _:
            return math.ceil(place - 0.5)
