"""Krum and Multi-Krum: the updates with the nearest neighbours.

Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
Descent" (NeurIPS 2017), section 4: a row's score is the sum of squared distances to its n - f - 2 nearest;
Krum takes the row with the least score, Multi-Krum (section 5) the mean of the best ones, here of n - f.
"""

from __future__ import annotations

import numpy as np

from laconic.coordinator.aggregation.rows import Counts, Matrix


def neighbours(rows: int, tolerated: int) -> int:
    """How many neighbours are counted: n - f - 2, but at least one."""
    return max(1, rows - tolerated - 2)


def scores(distances: Matrix, counts: Counts, nearest: int) -> Matrix:
    """For each distinct row the sum of squared distances to its `nearest` other rows."""
    out = np.empty(len(counts))
    for i in range(len(counts)):
        others = counts.copy()
        others[i] -= 1
        order = np.argsort(distances[i], kind="stable")
        taken = _first(others[order], nearest)
        out[i] = float(np.sum(distances[i][order] * taken))
    return out


def selected(distances: Matrix, counts: Counts, *, nearest: int, rows: int) -> Matrix:
    """Coefficients of the mean of the `rows` rows with the least scores; of equal ones the first."""
    order = np.argsort(scores(distances, counts, nearest), kind="stable")
    out = np.zeros(len(counts))
    out[order] = _first(counts[order], rows)
    return out / rows


def _first(counts: Counts, wanted: int) -> Counts:
    """How many of each are taken when `wanted` are taken from the front."""
    before = np.cumsum(counts) - counts
    taken: Counts = np.minimum(np.maximum(wanted - before, 0), counts)
    return taken
