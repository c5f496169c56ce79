"""Inner products and distances of all pairs of rows: all that the geometric rules need to know of them."""

from __future__ import annotations

import numpy as np

from laconic.coordinator.aggregation.rows import Matrix, Rows


def gram(rows: Rows, width: int) -> Matrix:
    """Inner products of the distinct rows, float64 `(n, n)`, from blocks of `width` columns."""
    n = len(rows.counts)
    out = np.zeros((n, n))
    for _, block in rows.blocks(width):
        values = block.astype(np.float64)
        out += values @ values.T
    return out


def mixed(products: Matrix, mix: Matrix) -> Matrix:
    """Inner products of the rows `mix @ rows`."""
    return mix @ products @ mix.T


def squared_distances(products: Matrix) -> Matrix:
    """Squared distances of rows from their inner products, float64 `(n, n)`, never below zero."""
    norms = np.diagonal(products)
    out = norms[:, None] + norms[None, :] - 2 * products
    # Rounding makes them differ in the last bit across the diagonal, and a tie must be a tie.
    out = np.maximum((out + out.T) / 2, 0.0)
    np.fill_diagonal(out, 0.0)
    return out
