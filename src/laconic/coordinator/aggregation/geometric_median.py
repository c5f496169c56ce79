"""The geometric median by the smoothed Weiszfeld algorithm.

Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning" (IEEE Transactions on Signal
Processing 70, 2022; arXiv 1912.13445), algorithm 2. Every iterate is a combination of the rows, so that the
inner products are all it takes.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from laconic.coordinator.aggregation.rows import Counts, Matrix

SMOOTHING: Final = 1e-6
"""Shortest distance that is divided by."""
ITERATIONS: Final = 100
"""At the most; near the median a step is far below the updates' quantisation after ten."""
_SETTLED: Final = 1e-9


def weiszfeld(
    products: Matrix,
    counts: Counts,
    *,
    start: Matrix | None = None,
    smoothing: float = SMOOTHING,
    iterations: int = ITERATIONS,
) -> Matrix:
    """Coefficients of the distinct rows in their geometric median, each row with its count as weight.

    `start`: coefficients of the first iterate; None for the mean. Ends when no coefficient changes any more.
    """
    share = counts / counts.sum()
    at = share if start is None else start
    norms = np.diagonal(products)
    for _ in range(iterations):
        along = products @ at
        distances = np.sqrt(np.maximum(norms - 2 * along + float(at @ along), 0.0))
        weights = share / np.maximum(distances, smoothing)
        after = weights / weights.sum()
        settled = float(np.max(np.abs(after - at))) < _SETTLED
        at = after
        if settled:
            break
    return np.asarray(at, np.float64)
