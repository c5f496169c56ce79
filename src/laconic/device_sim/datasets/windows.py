"""Cuts records of several channels into windows, each channel on the same scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scale:
    """Which columns there are, and what is subtracted from each and divided by: float64 `(channels,)`."""

    columns: tuple[int, ...]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def scaled(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Rows `(n, columns of the file)` as float32 `(n, channels)`."""
        return ((values[:, self.columns] - self.mean) / self.deviation).astype(np.float32)


def scale_of(values: NDArray[np.float64], columns: Sequence[int]) -> Scale:
    """Mean and standard deviation of some columns; 1 for the deviation of one that does not vary."""
    chosen = values[:, list(columns)]
    deviation = chosen.std(axis=0)
    return Scale(tuple(columns), chosen.mean(axis=0), np.where(deviation > 0, deviation, 1.0))


def windows_of(
    values: NDArray[np.float64],
    starts: NDArray[np.int64],
    scale: Scale,
    width: int,
    *,
    stride: int = 1,
    last_only: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Windows of `width` rows of each record, record after record and in the order of their ends.

    `starts`: at which row each record begins, and the number of rows. Every `stride`-th window is taken,
    counted from a record's end, or the last only. A shorter record is continued backwards with its first row.
    Returns float32 `(windows, channels, width)`, the row at which each ends, and its record from 0.
    """
    cut, ends, records = [], [], []
    for record, (begin, end) in enumerate(pairwise(starts)):
        rows = scale.scaled(values[begin:end])
        lacking = max(0, width - len(rows))
        if lacking:
            rows = np.concatenate([np.repeat(rows[:1], lacking, axis=0), rows])
        windows = np.lib.stride_tricks.sliding_window_view(rows, width, axis=0)
        taken = np.arange(len(windows) - 1, -1, -(len(windows) if last_only else stride))[::-1]
        cut.append(windows[taken])
        ends.append(begin + taken + width - 1 - lacking)
        records.append(np.full(len(taken), record, np.int64))
    return np.concatenate(cut), np.concatenate(ends), np.concatenate(records)
