"""Sums of products over named axes, written as matrix products.

A term is a tensor with one letter for each axis. onnxruntime runs a Gemm or MatMul in less time than the
Einsum that says the same, and an optimizer can merge a Gemm with its own work.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from laconic.training.builder import Dim, GraphBuilder


@dataclass(frozen=True, slots=True)
class Term:
    """A tensor and the letters of its axes, none twice."""

    tensor: str
    letters: str


def contraction(g: GraphBuilder, terms: Sequence[Term], letters: str, sizes: Mapping[str, Dim]) -> str:
    """The product of `terms`, summed over every letter that is not in `letters`, with axes in that order.

    Every one of `letters` must stand in some term. `sizes` has the size of every letter.
    """
    first, *rest = terms
    while rest:
        second, *rest = rest
        later = set(letters).union(*(t.letters for t in rest))
        # The last product may choose the final order; earlier ones keep what later ones need.
        both = first.letters + "".join(c for c in second.letters if c not in first.letters)
        kept = "".join(c for c in both if c in later) if rest else letters
        first = Term(_pair(g, first, second, kept, sizes), kept)
    return _arranged(g, _summed(g, first, letters), letters)


def _pair(g: GraphBuilder, a: Term, b: Term, letters: str, sizes: Mapping[str, Dim]) -> str:
    a = _summed(g, a, letters + b.letters)
    b = _summed(g, b, letters + a.letters)
    shared = [c for c in a.letters if c in b.letters]
    batch = "".join(c for c in letters if c in shared)
    inner = "".join(c for c in a.letters if c in shared and c not in letters)
    rows, columns = ("".join(c for c in letters if c in t.letters and c not in shared) for t in (a, b))
    if rows and columns and letters.index(rows[0]) > letters.index(columns[0]):
        a, b, rows, columns = b, a, columns, rows
    if not inner:
        return _outer(g, a, b, letters)
    if not all(_reshapes(*pair, sizes) for pair in itertools.combinations((rows, inner, columns), 2)):
        return g.op("Einsum", a.tensor, b.tensor, equation=f"{a.letters},{b.letters}->{letters}")
    if not batch and rows and columns:
        made = _gemm(g, a, b, rows, inner, columns, sizes)
    else:
        made = _matmul(g, a, b, batch, rows, inner, columns, sizes)
    return _arranged(g, Term(made, batch + rows + columns), letters)


def _gemm(
    g: GraphBuilder, a: Term, b: Term, rows: str, inner: str, columns: str, sizes: Mapping[str, Dim]
) -> str:
    """One product of matrices; a transposed factor costs nothing."""
    # The order of summation is free: take the one that the second factor has already.
    inner = "".join(c for c in b.letters if c in inner)
    left, turn_left = _matrix(g, a, rows, inner, sizes)
    right, turn_right = _matrix(g, b, inner, columns, sizes)
    shape = (_merged(rows, sizes), _merged(columns, sizes))
    known = tuple(s for s in shape if s != -1)
    turned = {k: 1 for k, on in (("transA", turn_left), ("transB", turn_right)) if on}
    made = g.op("Gemm", left, right, shape=known if len(known) == 2 else None, **turned)
    return made if len(rows) == len(columns) == 1 else _reshaped(g, made, rows + columns, sizes)


def _matrix(g: GraphBuilder, t: Term, rows: str, columns: str, sizes: Mapping[str, Dim]) -> tuple[str, bool]:
    """A term as a matrix, and whether that is the transposed one."""
    turned = t.letters == columns + rows
    if not turned:
        t = Term(_arranged(g, t, rows + columns), rows + columns)
    if len(t.letters) == 2:
        return t.tensor, turned
    halves = (columns, rows) if turned else (rows, columns)
    return g.reshape(t.tensor, *(_merged(half, sizes) for half in halves)), turned


def _matmul(
    g: GraphBuilder,
    a: Term,
    b: Term,
    batch: str,
    rows: str,
    inner: str,
    columns: str,
    sizes: Mapping[str, Dim],
) -> str:
    """A batch of products of matrices; the batch's axes stay apart."""
    factors = []
    for term, halves in ((a, (rows, inner)), (b, (inner, columns))):
        tensor = _arranged(g, term, batch + halves[0] + halves[1])
        if any(len(half) != 1 for half in halves):
            tensor = g.reshape(tensor, *[0] * len(batch), *(_merged(half, sizes) for half in halves))
        factors.append(tensor)
    made = g.op("MatMul", *factors)
    if len(rows) == len(columns) == 1:
        return made
    return _reshaped(g, made, rows + columns, sizes, kept=len(batch))


def _outer(g: GraphBuilder, a: Term, b: Term, letters: str) -> str:
    """Nothing to sum: a product with broadcasting."""
    factors = []
    for t in (a, b):
        tensor = _arranged(g, t, "".join(c for c in letters if c in t.letters))
        missing = [i for i, c in enumerate(letters) if c not in t.letters]
        factors.append(g.op("Unsqueeze", tensor, g.ints(*missing)) if missing else tensor)
    return g.op("Mul", *factors)


def _reshaped(g: GraphBuilder, x: str, letters: str, sizes: Mapping[str, Dim], kept: int = 0) -> str:
    """Merged axes as they were; at most one of their sizes is unknown."""
    return g.reshape(x, *[0] * kept, *(d if isinstance(d, int) else -1 for d in (sizes[c] for c in letters)))


def _reshapes(one: str, other: str, sizes: Mapping[str, Dim]) -> bool:
    """Whether a Reshape can merge the axes of each group, or need not."""
    unknown = sum(not isinstance(sizes[c], int) for c in one + other)
    return len(one) == len(other) == 1 or unknown <= 1


def _merged(letters: str, sizes: Mapping[str, Dim]) -> int:
    """The size of axes made one; -1 if it is known only at run time."""
    known = [d for d in (sizes[c] for c in letters) if isinstance(d, int)]
    return math.prod(known) if len(known) == len(letters) else -1


def _summed(g: GraphBuilder, t: Term, kept: str) -> Term:
    axes = [i for i, c in enumerate(t.letters) if c not in kept]
    if not axes:
        return t
    summed = g.op("ReduceSum", t.tensor, g.ints(*axes), keepdims=0)
    return Term(summed, "".join(c for c in t.letters if c in kept))


def _arranged(g: GraphBuilder, t: Term, letters: str) -> str:
    if t.letters == letters:
        return t.tensor
    return g.op("Transpose", t.tensor, perm=[t.letters.index(c) for c in letters])
