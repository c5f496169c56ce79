"""Arithmetic with sizes that are known only at run time, as exporters write it into graphs.

A size is a polynomial in the names of open axes, with integer coefficients: `4*batch` is what a Reshape makes
of the axes (batch, 4). Every open axis has at least one element.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from laconic.training.builder import Dim

Monomial: TypeAlias = tuple[str, ...]
"""Names of axes that are multiplied, sorted, a name as often as its power."""


@dataclass(frozen=True, slots=True)
class Size:
    """A polynomial: pairs of monomial and coefficient, sorted, no coefficient zero."""

    terms: tuple[tuple[Monomial, int], ...]

    @classmethod
    def of(cls, dim: int | str) -> Size:
        """A number, or an axis by its name."""
        return _size({(dim,): 1} if isinstance(dim, str) else {(): int(dim)})

    def __add__(self, other: Size) -> Size:
        total = Counter(dict(self.terms))
        total.update(dict(other.terms))
        return _size(total)

    def __sub__(self, other: Size) -> Size:
        return self + other * Size.of(-1)

    def __mul__(self, other: Size) -> Size:
        total: Counter[Monomial] = Counter()
        for a, x in self.terms:
            for b, y in other.terms:
                total[tuple(sorted(a + b))] += x * y
        return _size(total)

    def __neg__(self) -> Size:
        return self * Size.of(-1)

    def divided(self, other: Size) -> Size | None:
        """The quotient if `other` is one term that divides every term, else None."""
        if len(other.terms) != 1:
            return Size.of(1) if other == self else None
        ((divisor, by),) = other.terms
        total: dict[Monomial, int] = {}
        for monomial, factor in self.terms:
            left = Counter(monomial)
            left.subtract(divisor)
            if factor % by or any(n < 0 for n in left.values()):
                return None
            total[tuple(sorted(left.elements()))] = factor // by
        return _size(total)

    @property
    def number(self) -> int | None:
        """The value of a size without names."""
        if not self.terms:
            return 0
        return self.terms[0][1] if len(self.terms) == 1 and not self.terms[0][0] else None

    @property
    def positive(self) -> bool:
        """Whether this is at least one for all sizes of the axes."""
        return bool(self.terms) and all(factor > 0 for _, factor in self.terms)

    @property
    def names(self) -> frozenset[str]:
        """The axes that this depends on."""
        return frozenset(name for monomial, _ in self.terms for name in monomial)

    def replaced(self, values: Mapping[str, Size]) -> Size:
        """This size with some axes given other sizes."""
        total = Size.of(0)
        for monomial, factor in self.terms:
            total += product([Size.of(factor), *(values.get(n, Size.of(n)) for n in monomial)])
        return total

    def __str__(self) -> str:
        parts = []
        for monomial, factor in self.terms:
            names = "*".join(monomial)
            parts.append(str(factor) if not names else names if factor == 1 else f"{factor}*{names}")
        return " + ".join(parts) or "0"


def product(sizes: Iterable[Size]) -> Size:
    """The product of all; 1 for none."""
    total = Size.of(1)
    for size in sizes:
        total *= size
    return total


class Axes:
    """Translates between sizes and the dimensions of tensor types, where a formula is a name as well."""

    def __init__(self) -> None:
        self._compound: dict[str, Size] = {}

    def size(self, dim: Dim) -> Size:
        """The size that a dimension stands for."""
        if isinstance(dim, int):
            return Size.of(dim)
        return self._compound.get(dim, Size.of(dim))

    def dim(self, size: Size) -> Dim:
        """A number, the name of an axis, or the formula as a name."""
        if size.number is not None:
            return size.number
        name = str(size)
        if size != Size.of(name):
            self._compound[name] = size
        return name


def _size(terms: Mapping[Monomial, int]) -> Size:
    return Size(tuple(sorted((m, f) for m, f in terms.items() if f)))
