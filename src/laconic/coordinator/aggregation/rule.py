"""One update of a round's many, by the rule that a campaign asks for."""

from __future__ import annotations

import numpy as np

from laconic.coordinator.aggregation import clipping, coordinatewise, geometric_median, krum, mixing, pairwise
from laconic.coordinator.aggregation.rows import Counts, Matrix, Rows
from laconic.coordinator.aggregation.settings import AggregationSettings
from laconic.schema import Vector


def aggregate(settings: AggregationSettings, rows: Rows, seed: int) -> Vector:
    """The round's update, float32, shape `(rows.size,)`; zeros where nobody sent anything.

    The same rows in the same order give the same bits on the same machine. `seed` draws buckets. Each device
    counts once. Sums are in float64.
    """
    if not rows.updates:
        return np.zeros(rows.size, np.float32)
    width = settings.width(rows.updates, rows.silent, rows.size)
    if not settings.pairwise:
        return _alone(settings, rows, width)
    products = pairwise.gram(rows, width)
    mix, counts = np.eye(len(rows.counts)), rows.counts
    if settings.bucket_size > 1:
        mix, counts = mixing.buckets(counts, settings.bucket_size, np.random.default_rng(seed))
        products = pairwise.mixed(products, mix)
    total = int(counts.sum())
    hostile = settings.tolerated(total)
    if settings.mixing:
        near = mixing.nearest_neighbours(pairwise.squared_distances(products), counts, total - hostile)
        mix, products = near @ mix, pairwise.mixed(products, near)
    if settings.rule in ("median", "trimmed_mean"):
        return _by_column(settings, rows, width, mix, counts)
    return rows.combined(_coefficients(settings, products, counts) @ mix)


def _coefficients(settings: AggregationSettings, products: Matrix, counts: Counts) -> Matrix:
    """How much of each (mixed) row is in the result of a rule that is a combination of rows."""
    total = int(counts.sum())
    hostile = settings.tolerated(total)
    match settings.rule:
        case "krum" | "multi_krum":
            distances = pairwise.squared_distances(products)
            chosen = 1 if settings.rule == "krum" else total - hostile
            near = krum.neighbours(total, hostile)
            return krum.selected(distances, counts, nearest=near, rows=chosen)
        case "geometric_median":
            return geometric_median.weiszfeld(products, counts)
        case "norm_bound":
            norms = np.sqrt(np.maximum(np.diagonal(products), 0.0))
            limit = settings.norm_limit or settings.norm_multiple * float(np.median(np.repeat(norms, counts)))
            return clipping.factors(norms, limit) * counts / total
        case _:
            return counts / total


def _alone(settings: AggregationSettings, rows: Rows, width: int) -> Vector:
    """Rules that need no pairs, on the rows as they came."""
    if settings.rule == "norm_bound":
        # The silent shorten nobody: the median is that of those who spoke.
        norms = rows.norms()
        limit = settings.norm_limit or settings.norm_multiple * float(np.median(norms))
        return rows.combined(clipping.factors(norms, limit) / rows.total)
    return _by_column(settings, rows, width, None, rows.counts)


def _by_column(
    settings: AggregationSettings, rows: Rows, width: int, mix: Matrix | None, counts: Counts
) -> Vector:
    out = np.empty(rows.size, np.float32)
    hostile = settings.tolerated(int(counts.sum()))
    for where, block in rows.blocks(width):
        values = block if mix is None else mix @ block.astype(np.float64)
        if settings.rule == "median":
            out[where] = coordinatewise.median(values, counts)
        else:
            out[where] = coordinatewise.trimmed_mean(values, counts, hostile)
    return out
