"""Median and trimmed mean of each coordinate by itself.

Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
Rates" (ICML 2018), definitions 1 and 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from laconic.coordinator.aggregation.rows import Counts, Matrix


def median(block: NDArray[np.floating], counts: Counts) -> Matrix:
    """The median of each column of `block` `(n, columns)`, whose rows count `counts` times; float64."""
    columns = _sorted(block, counts)
    n = columns.shape[1]
    return (columns[:, (n - 1) // 2].astype(np.float64) + columns[:, n // 2]) / 2


def trimmed_mean(block: NDArray[np.floating], counts: Counts, trimmed: int) -> Matrix:
    """The mean of each column without its `trimmed` largest and `trimmed` smallest values; float64."""
    columns = _sorted(block, counts)
    kept = columns[:, trimmed : columns.shape[1] - trimmed]
    return np.asarray(kept.mean(axis=1, dtype=np.float64))


def _sorted(block: NDArray[np.floating], counts: Counts) -> NDArray[np.floating]:
    """Columns as rows, each in ascending order: neighbours in memory are what is compared."""
    columns = np.ascontiguousarray(np.repeat(block, counts, axis=0).T)
    columns.sort(axis=1)
    return columns
