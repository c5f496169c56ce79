"""A matrix to few integer factors: warm-started subspace iteration, then steps from the price of a bit.

An error of the factors is an error of every value that they make, while their bits are paid once a row and
once a column. With a unit vector quantised in steps of `s / size`, `size` being its singular value, the error
of the matrix is that of values quantised in steps of `s`; so the steps follow from the singular values alone,
and the product of a component's two steps is `s * s / size` (reverse water-filling: Cover and Thomas,
"Elements of Information Theory", 2nd edition, section 10.3.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.compression.factors import (
    EXACT,
    MAX_CODE,
    MAX_INTEGER,
    MAX_RANK,
    MIN_FACTOR_SCALE,
    IntegerFactors,
    most_entries,
    multiplier,
)
from laconic.compression.seeded import sign_bits

Matrix = NDArray[np.float32]

STEP = 3.1
"""A component's step, in roots of the price. Theory says 2.94 at high rates (the error of a step `s` is
`s * s / 12`, and a bit more takes `2 * ln 2` of it away); from 2.4 to 3.5 the Lagrangian of real updates
changes by less than 1 %."""

_DEAD = 0.6
_FIRST_RANK = 8
_SPARE = 2
_CROWDED = 0.75
_SEED = 0x1A77
_HEADER_BITS = 8.0
_LARGEST_SCALE = 2.0**100
_PEAKS = (2.0**-40, 2.0**40)
# Far below what float32 tells apart in a matrix whose peak is within `_PEAKS`.
_LEAST_PRICE = 2.0**-140


@dataclass(frozen=True, slots=True)
class Factors:
    """Principal components of a matrix, the largest first: about `left * sizes @ right.T`.

    `left`: float32, shape `(rows, rank)`, orthonormal; `sizes`: float64, shape `(rank,)`, falling; `right`:
    float32, shape `(columns, rank)`, orthonormal.
    """

    left: Matrix
    sizes: NDArray[np.float64]
    right: Matrix


def factorise(matrix: Matrix, rank: int, start: Matrix | None = None, iterations: int = 2) -> Factors:
    """The principal `rank` components, nearly: subspace iteration with `iterations` products each way.

    * `matrix`: finite float32, shape `(rows, columns)`, neither of them 0.
    * `start`: float32, shape `(any, columns)`, directions to begin with, such as `Factors.right.T` of the
      round before (Vogels et al., "PowerSGD", NeurIPS 2019, section 3); missing ones are signs from a fixed
      seed.

    One iteration is enough from a good start, two otherwise. Bits of the result may differ between platforms.
    """
    columns = matrix.shape[1]
    rank = min(rank, *matrix.shape)
    matrix, exponent = _moderate(matrix)
    basis = _signs(rank, columns)
    if start is not None and start.shape[1:] == (columns,):
        known = min(len(start), rank)
        basis[:known] = start[:known]
    for _ in range(max(iterations, 1)):
        left = np.linalg.qr(matrix @ basis.T)[0]
        basis = left.T @ matrix
    turn, sizes, right = np.linalg.svd(basis, full_matrices=False)
    return Factors(left @ turn, np.ldexp(sizes.astype(np.float64), exponent), right.T)


def principal(matrix: Matrix, price: float, start: Matrix | None = None) -> Factors:
    """As many components as are worth their bits at `price`, squared error a bit, and one or two more.

    Begins with as many as `start` has, and doubles them while most turn out to be worth it. The `right.T` of
    the result is the `start` of the next round: at most `MAX_RANK` directions.
    """
    matrix, exponent = _moderate(matrix)
    price = max(price * 4.0**-exponent, _LEAST_PRICE)
    most = max(min(*matrix.shape, _most_components(matrix)), 1)
    rank = min(most, max(len(start) if start is not None else 0, _FIRST_RANK))
    found = factorise(matrix, rank, start, iterations=1 if start is not None else 2)
    while True:
        # No component is worth it that takes away less than a bit for each of its entries.
        kept = int(np.count_nonzero(found.sizes**2 > price * sum(matrix.shape)))
        if rank == most or kept <= _CROWDED * rank:
            break
        trial = _trial(matrix, found, price)
        kept = trial.kept if trial is not None else rank
        if kept <= _CROWDED * rank:
            break
        rank = min(2 * rank, most)
        found = factorise(matrix, rank, found.right.T, iterations=1)
    kept += _SPARE
    sizes = np.ldexp(found.sizes[:kept], exponent)
    return Factors(found.left[:, :kept], sizes, np.ascontiguousarray(found.right[:, :kept]))


def quantise_factors(matrix: Matrix, factors: Factors, price: float) -> IntegerFactors | None:
    """Those components that are worth their bits at `price` (squared error a bit) as integers, or None.

    Each side is fitted once more to the other's integers, by least squares: it makes good some of the
    rounding. `matrix` is what was factorised. Steps grow where the sums would not be exact otherwise. Raises
    nothing: a matrix too small for a float32 scale has no factors.
    """
    matrix, exponent = _moderate(matrix)
    sizes = np.ldexp(factors.sizes, -exponent)
    price = max(price * 4.0**-exponent, _LEAST_PRICE)
    while True:
        trial = _trial(matrix, Factors(factors.left, sizes, factors.right), price)
        if trial is None:
            price *= 4
            continue
        kept = trial.kept
        if not kept:
            return None
        codes, scale = _multipliers(trial.products[:kept])
        outside = math.ldexp(scale, exponent)
        if not MIN_FACTOR_SCALE <= outside <= _LARGEST_SCALE or scale < MIN_FACTOR_SCALE:
            return None
        weights = np.array([multiplier(c) for c in codes]) * scale
        left = _rounded(_fitted(matrix, trial.right[:, :kept], weights))
        right = _rounded(_fitted(matrix.T, left, weights))
        found = IntegerFactors(left, right, codes, outside)
        if _in_range(left) and _in_range(right) and found.ceiling() < EXACT:
            return found
        price *= 4


@dataclass(frozen=True, slots=True)
class _Trial:
    """Rounded components, the products of their steps, and how many of them have the least Lagrangian."""

    right: NDArray[np.int32]
    products: NDArray[np.float64]
    kept: int


def _trial(matrix: Matrix, factors: Factors, price: float) -> _Trial | None:
    """What rounding makes of the components at `price`; None if an integer would be out of range."""
    tried = min(int(np.count_nonzero(factors.sizes**2 > price)), _most_components(matrix))
    sizes = factors.sizes[:tried]
    if not tried:
        return _Trial(np.zeros((matrix.shape[1], 0), np.int32), sizes, 0)
    unit = STEP * math.sqrt(price) / sizes
    left = _rounded(factors.left[:, :tried] / unit)
    right = _rounded(factors.right[:, :tried] / unit)
    if not (_in_range(left) and _in_range(right)):
        return None
    bits = _bits(left) + _bits(right) + _HEADER_BITS
    caught = sizes * _caught(factors.left[:, :tried], left, factors.right[:, :tried], right, unit)
    costs = _rest(matrix, factors, caught, price) + price * np.append(0, np.cumsum(bits))
    return _Trial(right, unit * unit * sizes, int(np.argmin(costs)))


def _caught(
    left: Matrix,
    left_integers: NDArray[np.int32],
    right: Matrix,
    right_integers: NDArray[np.int32],
    unit: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The share of each component that its integers catch: 1 if nothing is lost, 0 if nothing is won."""
    p, q = left_integers * unit, right_integers * unit
    inner = (left * p).sum(axis=0) * (right * q).sum(axis=0)
    lengths = np.square(p).sum(axis=0) * np.square(q).sum(axis=0)
    share: NDArray[np.float64] = np.sqrt(np.maximum(2 * inner - lengths, 0))
    return share


def _rest(matrix: Matrix, factors: Factors, sizes: NDArray[np.float64], price: float) -> NDArray[np.float64]:
    """About the Lagrangian of what the first 0, 1, ... components leave, shape `(rank + 1,)`.

    A value of variance `v` costs `v` if it is not sent, and else as a Gaussian one does at the same price;
    rows (or columns, whichever tells more) have variances of their own.
    """
    squares = np.square(matrix)
    # Up to this variance a Gaussian value is not worth any bit.
    level = price / (2 * math.log(2))
    estimates = []
    for axis, side in ((1, factors.left), (0, factors.right)):
        energy = np.tensordot(squares, np.ones(matrix.shape[axis], np.float32), (axis, 0))[:, None]
        taken = np.cumsum(np.square(side[:, : sizes.size] * sizes), axis=1)
        left = np.maximum(np.concatenate([energy, energy - taken], axis=1), 0) / matrix.shape[axis]
        each = np.where(left < level, left, level * (1 + np.log(np.maximum(left, level) / level)))
        estimates.append(matrix.shape[axis] * each.sum(axis=0))
    least: NDArray[np.float64] = np.minimum(*estimates)
    return least


def _most_components(matrix: Matrix) -> int:
    """What a frame may hold."""
    return min(MAX_RANK, most_entries(matrix.size) // sum(matrix.shape))


def _moderate(matrix: Matrix) -> tuple[Matrix, int]:
    """The matrix over a power of two, and its exponent: 0 unless sums of squares would leave float32."""
    peak = float(np.abs(matrix).max())
    if not peak or _PEAKS[0] < peak < _PEAKS[1]:
        return matrix, 0
    exponent = math.frexp(peak)[1]
    return np.ldexp(matrix, -exponent), exponent


def _signs(rank: int, columns: int) -> Matrix:
    width = -(-columns // 64) * 64
    bits = sign_bits(_SEED, 0, rank * width).reshape(rank, width)[:, :columns]
    return 1 - 2 * bits.astype(np.float32)


def _rounded(values: NDArray[np.floating]) -> NDArray[np.int32]:
    """To integers, with a zone around zero that is wider than half a step: zeros are cheap."""
    wide = np.minimum(np.floor(np.abs(values) + (1 - _DEAD)), 2.0**30)
    integers: NDArray[np.int32] = np.copysign(wide, values).astype(np.int32)
    return integers


def _multipliers(products: NDArray[np.float64]) -> tuple[tuple[int, ...], float]:
    """Codes and the scale by which the multipliers come near to `products`, the products of the steps.

    A step may be off by an eighth at no cost worth speaking of.
    """
    scale = float(np.float32(products.min() / multiplier(0)))
    table = np.array([multiplier(c) for c in range(MAX_CODE + 1)], np.float64)
    nearest = np.abs(np.log2(products / max(scale, 1e-300))[:, None] - np.log2(table)).argmin(axis=1)
    return tuple(nearest.tolist()), scale


def _fitted(matrix: Matrix, side: NDArray[np.int32], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The other side that fits best: least squares of `matrix` against `side * weights`.

    The result has the shape `(rows, rank)`. `matrix`: shape `(rows, columns)`; `side`: `(columns, rank)`.
    """
    exact = side.astype(np.float64)
    gram = exact.T @ exact
    # A component without integers on this side has none on the other.
    gram[np.diag_indices_from(gram)] += np.where(np.diag(gram) > 0, 1e-6 * np.diag(gram), 1.0)
    seen = (matrix @ side.astype(np.float32)).astype(np.float64)
    return np.linalg.solve(gram, seen.T).T / weights


def _bits(integers: NDArray[np.int32]) -> NDArray[np.float64]:
    """About the bits of each component's integers, shape `(rank,)`.

    The entropy of the magnitudes, in those rows that are not all zero, and the signs.
    """
    live = np.abs(integers[integers.any(axis=1)])
    out = np.empty(integers.shape[1])
    for k in range(out.size):
        counts = np.bincount(np.minimum(live[:, k], 255))
        counts = counts[counts > 0]
        out[k] = (counts * np.log2(len(live) / counts)).sum() + np.count_nonzero(live[:, k])
    return out


def _in_range(integers: NDArray[np.int32]) -> bool:
    return int(np.abs(integers).max()) <= MAX_INTEGER
