"""Integer factors of a matrix: what they stand for, exactly, and their bytes.

A matrix of rank `r` is a sum over components `k` of `multiplier[k] * left[i, k] * right[j, k]`, all integers,
times one float32 scale. While the sum of the largest products stays below 2**24 every partial sum is exact in
float32 in whatever order it is taken, so any matrix product gives the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.compression.adaptive import StreamDecoder, SymbolStream, affordable, encode_streams
from laconic.compression.bits import Codes, Mask
from laconic.compression.stages import BLOCK, entropy_bits
from laconic.errors import Malformed, NonFinite
from laconic.schema import Vector

MAX_RANK = 127
MAX_CODE = 63
"""Multiplier code `c` is `(4 + c % 4) << c // 4`: steps of a quarter at most, all integers."""

MAX_INTEGER = (1 << 15) - 1
EXACT = 1 << 24
"""Integers below this are exact in float32."""

MIN_FACTOR_SCALE = 2.0**-102
"""With this least scale a value plus any other float32 that is normal is zero or normal."""

_SMALL_ENTRIES = 1 << 16
_DIRECT = 12
_CLASSES = 16
_SIGN_COMPONENTS = 16
_HANDS = 32

TOKENS = 35
"""Tokens of the magnitudes 0 to `MAX_INTEGER`."""

Integers = NDArray[np.int32]
Operand = NDArray[np.float32]


def multiplier(code: int) -> int:
    """The integer of a multiplier's code, 0 to `MAX_CODE`."""
    return (4 + code % 4) << (code // 4)


def most_entries(values: int) -> int:
    """Integers that the factors of a tensor may have together: what bounds a decoder's memory and time."""
    return min(values, max(values // 4, _SMALL_ENTRIES))


@dataclass(frozen=True, slots=True)
class IntegerFactors:
    """Two integer matrices, a multiplier's code for each component, and one scale.

    `left`: int32, shape `(rows, rank)`; `right`: int32, shape `(columns, rank)`. Their integers are at most
    `MAX_INTEGER` in magnitude, the rank is 1 to `MAX_RANK`, `scale` is a float32.
    """

    left: Integers
    right: Integers
    codes: tuple[int, ...]
    scale: float

    @property
    def rank(self) -> int:
        """Number of components."""
        return len(self.codes)

    def ceiling(self) -> int:
        """No partial sum of products, in any order, has a larger magnitude."""
        left = np.abs(self.left).max(axis=0, initial=0).tolist()
        right = np.abs(self.right).max(axis=0, initial=0).tolist()
        return sum(multiplier(c) * a * b for c, a, b in zip(self.codes, left, right, strict=True))

    def bound(self) -> float:
        """No value of the product, rounded to float32, has a larger magnitude.

        Raises `Malformed` where the sums may not be exact, `NonFinite` where a value may overflow.
        """
        ceiling = self.ceiling()
        if ceiling >= EXACT:
            raise Malformed("sum of a low rank part's products", value=ceiling, limit=EXACT - 1)
        with np.errstate(over="ignore"):
            bound = float(np.float32(ceiling) * np.float32(self.scale))
        if not math.isfinite(bound):
            raise NonFinite("largest value of a low rank part", value=self.scale)
        return bound

    def operands(self) -> tuple[Operand, Operand]:
        """What to multiply, in any order of summation: float32, `(rows, rank)` and `(rank, columns)`.

        The product's values, which `bound` must allow, times `scale` are the matrix.
        """
        weighted = (self.left * np.array([multiplier(c) for c in self.codes])).astype(np.float32)
        return weighted, np.ascontiguousarray(self.right.T, np.float32)

    def fill(self, out: Vector, *, add: bool = False) -> None:
        """Write the product into `out`, or add it: float32, shape `(rows * columns,)`, row after row.

        Raises `Malformed` and `NonFinite` as `bound` does.
        """
        self.bound()
        left, right = self.operands()
        rows, columns = len(left), right.shape[1]
        grid = out.reshape(rows, columns)
        high = max(BLOCK // columns, 1)
        for start in range(0, rows, high):
            there = grid[start : start + high]
            block = np.empty_like(there) if add else there
            np.matmul(left[start : start + high], right, out=block)
            np.multiply(block, np.float32(self.scale), out=block)
            # A sum of zeros can be -0 in one order and +0 in another; this makes it +0.
            np.add(block, np.float32(0), out=block)
            if add:
                with np.errstate(over="ignore"):
                    np.add(there, block, out=there)


def write_factors(factors: IntegerFactors) -> tuple[int, bytes] | None:
    """The alphabet of the magnitudes and the body of the factors' symbols.

    None where the body is so short that no decoder would take it.
    """
    order = _order(len(factors.left) + len(factors.right))
    both = np.concatenate([factors.left, factors.right])[order]
    column = (order >= len(factors.left)).astype(np.uint8)
    live: Mask = np.asarray(both.any(axis=1))
    both, kinds = both[live], column[live]
    magnitudes = np.abs(both).ravel()
    tokens, widths = _tokens(magnitudes)
    alphabet = int(tokens.max(initial=0)) + 1
    sent = magnitudes > 0
    negative = both.ravel() < 0
    streams = [
        SymbolStream(live.astype(np.uint8), column, 2, 2),
        SymbolStream(tokens, _classes(factors.codes, len(both)), alphabet, _CLASSES),
        SymbolStream(_low_bits(magnitudes[widths > 0], widths[widths > 0]), None, 2),
        SymbolStream(
            negative[sent].astype(np.uint8),
            _sign_contexts(kinds, factors.rank)[sent],
            2,
            2 * _SIGN_COMPONENTS,
        ),
    ]
    body = encode_streams(streams)
    if not all(affordable(s.symbols.size, len(body)) for s in streams):
        return None
    return alphabet, body


@dataclass(frozen=True, slots=True)
class FactorBytes:
    """Factors as they lie in a frame: sizes, multipliers, scale and the body of symbols."""

    rows: int
    columns: int
    codes: tuple[int, ...]
    scale: float
    alphabet: int
    body: memoryview

    def decode(self) -> IntegerFactors:
        """The integers. Raises `Malformed`."""
        rank = len(self.codes)
        order = _order(self.rows + self.columns)
        column = (order >= self.rows).astype(np.uint8)
        self._check(order.size)
        decoder = StreamDecoder(self.body)
        live = decoder.symbols(column, order.size, alphabet=2, contexts_count=2).view(np.bool_)
        count = int(np.count_nonzero(live))
        self._check(count * rank)
        tokens = decoder.symbols(
            _classes(self.codes, count), count * rank, alphabet=self.alphabet, contexts_count=_CLASSES
        )
        # Indices, not masks: a small tensor's decoding is a few dozen calls, and its speed is theirs.
        magnitudes = _BASES.take(tokens)
        wide = (tokens >= _DIRECT).nonzero()[0]
        widths = _WIDTHS.take(tokens.take(wide))
        low_bits = int(widths.sum(dtype=np.int64))
        self._check(low_bits)
        low = decoder.symbols(None, low_bits, alphabet=2)
        if wide.size:
            magnitudes[wide] += _from_low_bits(low, widths)
        sent = tokens.nonzero()[0]
        taken = live.nonzero()[0]
        negative = decoder.symbols(
            _sign_contexts(column.take(taken), rank).take(sent),
            sent.size,
            alphabet=2,
            contexts_count=2 * _SIGN_COMPONENTS,
        )
        decoder.finish()
        below = sent.take(negative.nonzero()[0])
        magnitudes[below] = -magnitudes.take(below)
        both = np.zeros((order.size, rank), np.int32)
        both[order.take(taken)] = magnitudes.reshape(count, rank)
        return IntegerFactors(both[: self.rows], both[self.rows :], self.codes, self.scale)

    def _check(self, symbols: int) -> None:
        if not affordable(symbols, len(self.body)):
            raise Malformed("symbols of a low rank part", value=symbols, limit="131072 and 64 a byte")


def symbol_entropy_bits(factors: IntegerFactors) -> float:
    """The order-0 entropy of the factors' integers."""
    return entropy_bits(np.concatenate([factors.left, factors.right]).ravel())


def _order(count: int) -> NDArray[np.int64]:
    """The order in which `count` rows and columns are coded: dealt from as many places as there are hands.

    Frequencies are learnt from what came before, so rows and columns must come mixed, and far ones early.
    """
    high = -(-count // _HANDS)
    dealt = np.arange(high * _HANDS, dtype=np.int64).reshape(_HANDS, high).T.ravel()
    return dealt[dealt < count]


def _classes(codes: tuple[int, ...], count: int) -> Codes:
    """The contexts of `count` entities' magnitudes: components with about the same multiplier share one."""
    return np.frombuffer(bytearray(min(c // 2, _CLASSES - 1) for c in codes) * count, np.uint8)


def _sign_contexts(kinds: Codes, rank: int) -> Codes:
    """The contexts of the signs, before those of zeros are taken out."""
    component = [2 * min(k, _SIGN_COMPONENTS - 1) for k in range(rank)]
    return (np.array(component, np.uint8) + kinds[:, None]).ravel()


def _tokens(magnitudes: Integers) -> tuple[Codes, Codes]:
    """Each magnitude's token, and how many low bits it leaves out.

    Up to 11 a token is the magnitude; then two tokens for each power of two, told apart by the second bit.
    """
    # The exponent of a double that holds an integer exactly is the number of its bits.
    top = np.frexp(np.maximum(magnitudes, 1).astype(np.float64))[1] - 1
    direct = magnitudes < _DIRECT
    second = (magnitudes >> np.maximum(top - 1, 0)) & 1
    tokens = np.where(direct, magnitudes, _DIRECT - 1 + 2 * (top - 3) + second)
    return tokens.astype(np.uint8), np.where(direct, 0, top - 1).astype(np.uint8)


def _token_tables() -> tuple[Integers, Codes]:
    """The least magnitude of each token, and how many low bits it leaves out."""
    table = np.arange(TOKENS)
    above = np.maximum(table - (_DIRECT - 1), 0)
    widths = np.where(above > 0, 2 + above // 2, 0)
    bases = np.where(above > 0, (2 + above % 2) << widths, table)
    return bases.astype(np.int32), widths.astype(np.uint8)


_BASES, _WIDTHS = _token_tables()


def _low_bits(magnitudes: Integers, widths: Codes) -> Codes:
    """The `widths` low bits of each magnitude, the highest first, one after the other."""
    shifts = _shifts(widths)
    return ((np.repeat(magnitudes, widths) >> shifts) & 1).astype(np.uint8)


def _from_low_bits(low: Codes, widths: Codes) -> Integers:
    """The inverse of `_low_bits`."""
    if not widths.size:
        return np.zeros(0, np.int32)
    starts = np.cumsum(widths, dtype=np.int64) - widths
    return np.add.reduceat(low.astype(np.int32) << _shifts(widths), starts).astype(np.int32)


def _shifts(widths: Codes) -> NDArray[np.int64]:
    """`w - 1, ..., 0` for each width `w`, one after the other."""
    ends = np.cumsum(widths, dtype=np.int64)
    return np.repeat(ends, widths) - 1 - np.arange(int(ends[-1]) if ends.size else 0)
