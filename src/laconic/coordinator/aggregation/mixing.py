"""What is done to the rows before a rule sees them, as a matrix to multiply them with.

Nearest-neighbour mixing: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot and Stephan, "Fixing by Mixing: A
Recipe for Optimal Byzantine ML under Heterogeneity" (AISTATS 2023), algorithm 2: each row becomes the mean of
its n - f nearest, itself included. Bucketing: Karimireddy, He and Jaggi, "Byzantine-Robust Learning on
Heterogeneous Datasets via Bucketing" (ICLR 2022), algorithm 1: means of a few rows each, chosen at random.
"""

from __future__ import annotations

import numpy as np

from laconic.coordinator.aggregation.rows import Counts, Matrix


def nearest_neighbours(distances: Matrix, counts: Counts, nearest: int) -> Matrix:
    """Row i: coefficients of the mean of the `nearest` rows closest to row i; of equally far ones the first.

    The result has as many rows, and each counts as often as before.
    """
    n = len(counts)
    out = np.zeros((n, n))
    for i in range(n):
        reach = distances[i].copy()
        # Itself first, whatever else lies at the same place.
        reach[i] = -1.0
        order = np.argsort(reach, kind="stable")
        ahead = np.cumsum(counts[order]) - counts[order]
        out[i, order] = np.clip(nearest - ahead, 0, counts[order]) / nearest
    return out


def buckets(counts: Counts, size: int, rng: np.random.Generator) -> tuple[Matrix, Counts]:
    """Means of `size` rows each (the last of what is left), and how often each mean stands there.

    Buckets with nothing but copies of the last row are one row with a count: silent devices cost nothing.
    """
    rows = np.repeat(np.arange(len(counts)), counts)
    order = rng.permutation(len(rows))
    means: list[Matrix] = []
    alone = 0
    for start in range(0, len(rows), size):
        chosen = rows[order[start : start + size]]
        if counts[-1] > 1 and (chosen == len(counts) - 1).all():
            alone += 1
            continue
        mean = np.bincount(chosen, minlength=len(counts)) / len(chosen)
        means.append(mean)
    times = [1] * len(means)
    if alone:
        means.append(np.eye(len(counts))[-1])
        times.append(alone)
    return np.array(means), np.array(times, np.int64)
