"""The norm bound: no update is longer than a limit, whatever its direction.

Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?" (arXiv 1911.07963), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from laconic.compression import Piece
from laconic.compression.piece import Places
from laconic.coordinator.aggregation.rows import Matrix
from laconic.schema import Vector


@dataclass(frozen=True)
class Shortened:
    """A piece of which every value is multiplied by `factor`, at most 1, and rounded to float32."""

    piece: Piece
    factor: np.float32

    @property
    def bound(self) -> float:
        """That of the piece, shortened too."""
        return float(np.float32(self.piece.bound) * self.factor)

    def blocks(self) -> Iterator[tuple[Places, Vector]]:
        """Those of the piece, with other values."""
        for where, values in self.piece.blocks():
            yield where, values * self.factor


def length(update: Sequence[Piece]) -> float:
    """Euclidean norm of an update in pieces."""
    squares = 0.0
    for piece in update:
        for _, values in piece.blocks():
            doubles = values.astype(np.float64)
            squares += float(np.dot(doubles, doubles))
    return math.sqrt(squares)


def clipped(update: Sequence[Piece], limit: float) -> Sequence[Piece]:
    """The update, shortened to the norm `limit` if it is longer; float32 as before."""
    norm = length(update)
    if norm <= limit:
        return update
    factor = np.float32(limit / norm)
    return tuple(Shortened(p, factor) for p in update)


def factors(norms: Matrix, limit: float) -> Matrix:
    """What rows with these norms are to be multiplied with."""
    return np.minimum(1.0, limit / np.maximum(norms, np.finfo(np.float64).tiny))
