"""Turns images about their centres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def turned(images: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    """Images `(samples, channels, height, width)` turned anticlockwise, as float32 arrays of their own.

    Bilinear, with zeros beyond the edges; by 0 degrees they are what they were.
    """
    height, width = images.shape[2:]
    angle = np.deg2rad(degrees)
    down, across = np.mgrid[:height, :width]
    down, across = down - (height - 1) / 2, across - (width - 1) / 2
    # Where each pixel of the result comes from: the turn backwards, with rows counted downwards.
    from_down = np.cos(angle) * down + np.sin(angle) * across + (height - 1) / 2
    from_across = np.cos(angle) * across - np.sin(angle) * down + (width - 1) / 2
    flat = images.reshape(*images.shape[:2], height * width)
    result = np.zeros(flat.shape, np.float32)
    row, column = np.floor(from_down).astype(np.int64), np.floor(from_across).astype(np.int64)
    below, right = from_down - row, from_across - column
    for corner_row, corner_column, weight in (
        (row, column, (1 - below) * (1 - right)),
        (row, column + 1, (1 - below) * right),
        (row + 1, column, below * (1 - right)),
        (row + 1, column + 1, below * right),
    ):
        there = (corner_row >= 0) & (corner_row < height) & (corner_column >= 0) & (corner_column < width)
        source = np.where(there, corner_row * width + corner_column, 0).ravel()
        result += flat[:, :, source] * np.where(there, weight, 0).astype(np.float32).ravel()
    return result.reshape(images.shape)
