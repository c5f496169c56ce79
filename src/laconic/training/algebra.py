"""A window of a graph seen as algebra: what a tensor is, as a polynomial in other tensors.

Exporters write one formula in many orders; as polynomials they are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from laconic.training.assemble import uses

Polynomial: TypeAlias = dict[tuple[str, ...], float]
"""Coefficients by monomial; a monomial is the sorted names of its factors, the empty one is the constant."""

ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Pow", "Reciprocal", "Sum"})

_TERMS, _DEPTH = 16, 12
"""A formula that is longer or deeper than this is none that anybody looks for."""

_TOLERANCE = 1e-5


@dataclass(slots=True)
class Window:
    """Nodes by what they make and what they use; `constants` are the tensors that are known numbers."""

    nodes: Sequence[NodeProto]
    constants: Mapping[str, NDArray[Any]]
    makers: dict[str, int] = field(default_factory=dict)
    users: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for i, node in enumerate(self.nodes):
            self.makers.update((o, i) for o in node.output if o)
            for name in uses(node):
                self.users.setdefault(name, []).append(i)

    def maker(self, name: str, *op_types: str) -> NodeProto | None:
        """The node that makes a tensor, if it is of one of these operators."""
        i = self.makers.get(name)
        node = None if i is None else self.nodes[i]
        return node if node is not None and node.op_type in op_types else None

    def number(self, name: str) -> float | None:
        """The value of a constant of one element."""
        value = self.constants.get(name)
        return float(np.ravel(value)[0]) if value is not None and np.size(value) == 1 else None

    def above(self, name: str, depth: int) -> Iterator[str]:
        """Tensors from which arithmetic makes `name`, itself first, to `depth` nodes away."""
        yield name
        node = self.maker(name, *ARITHMETIC)
        if node is not None and depth:
            for i in node.input:
                if i not in self.constants:
                    yield from self.above(i, depth - 1)

    def below(self, name: str, depth: int) -> set[int]:
        """Nodes of arithmetic that use `name`, or what such a node makes of it, to `depth` nodes away."""
        found: set[int] = set()
        edge = {name}
        for _ in range(depth):
            reached = {u for n in edge for u in self.users.get(n, ()) if self.nodes[u].op_type in ARITHMETIC}
            edge = {self.nodes[u].output[0] for u in reached - found}
            found |= reached
        return found


class Expansion:
    """Tensors as polynomials in the atoms `at` (tensor to name; `inverse` of a tensor is an atom as well).

    What no arithmetic makes is an atom by its own name. `seen` collects the nodes that were expanded.
    """

    def __init__(
        self, window: Window, at: Mapping[str, str], inverse: Mapping[str, str] | None = None
    ) -> None:
        self._window, self._at, self._inverse = window, at, inverse or {}
        self.seen: set[int] = set()

    def of(self, name: str, depth: int = _DEPTH) -> Polynomial | None:
        """The polynomial, or None where arithmetic goes beyond polynomials."""
        if name in self._at:
            return {(self._at[name],): 1.0}
        value = self._window.number(name)
        if value is not None:
            return {(): value}
        node = self._window.maker(name, *ARITHMETIC)
        if node is None:
            # A tensor that bears the name of an atom must not be taken for it.
            taken = name in self._at.values() or name in self._inverse.values()
            return None if taken else {(name,): 1.0}
        if not depth:
            return None
        self.seen.add(self._window.makers[name])
        return self._combined(node, depth - 1)

    def _combined(self, node: NodeProto, depth: int) -> Polynomial | None:
        if node.op_type == "Reciprocal":
            return self._inverted(node.input[0], depth)
        left = self.of(node.input[0], depth)
        if node.op_type == "Sum":
            for term in node.input[1:]:
                left = None if left is None else _plus(left, self.of(term, depth))
            return left
        if left is None or node.op_type == "Neg":
            return None if left is None else _times(left, {(): -1.0})
        if node.op_type == "Pow":
            exponent = self._window.number(node.input[1])
            if exponent not in (2.0, 3.0):
                return None
            square = _times(left, left)
            return square if exponent == 2.0 else _times(square, left)
        right = (self._inverted if node.op_type == "Div" else self.of)(node.input[1], depth)
        if right is None:
            return None
        if node.op_type in ("Mul", "Div"):
            return _times(left, right)
        sign = 1.0 if node.op_type == "Add" else -1.0
        return _plus(left, _times(right, {(): sign}))

    def _inverted(self, name: str, depth: int) -> Polynomial | None:
        if name in self._inverse:
            return {(self._inverse[name],): 1.0}
        divisor = self.of(name, depth)
        if divisor is None or set(divisor) != {()} or not divisor[()]:
            return None
        return {(): 1 / divisor[()]}


def same(found: Polynomial | None, due: Polynomial) -> bool:
    """Equal up to the rounding of constants."""
    if found is None:
        return False
    kept = {m: c for m, c in found.items() if abs(c) > _TOLERANCE * 1e-3}
    due = {tuple(sorted(m)): c for m, c in due.items()}
    return kept.keys() == due.keys() and all(close(kept[m], c) for m, c in due.items())


def close(a: float, b: float) -> bool:
    """Equal up to the rounding of constants."""
    return abs(a - b) <= _TOLERANCE * abs(b)


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value, or `default`."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _plus(a: Polynomial, b: Polynomial | None) -> Polynomial | None:
    if b is None:
        return None
    total = dict(a)
    for monomial, c in b.items():
        total[monomial] = total.get(monomial, 0.0) + c
    return total if len(total) <= _TERMS else None


def _times(a: Polynomial, b: Polynomial) -> Polynomial:
    total: Polynomial = {}
    for m, c in a.items():
        for n, d in b.items():
            monomial = tuple(sorted(m + n))
            total[monomial] = total.get(monomial, 0.0) + c * d
    return total
