"""One way for each section of a frame, so that all together are the shortest or have the least error.

A Lagrangian finds only the combinations on the convex hull of bytes and errors, and those of a short frame
lie far apart: three values more or fewer are a quarter of it. Here all that no other one beats are kept,
section after section (dynamic programming over the front; Bellman, "Dynamic Programming", 1957, chapter 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Cost: TypeAlias = tuple[int, float]
"""Bytes, and weighted squared error."""

Combination: TypeAlias = tuple[int, float, tuple[int, ...]]
"""Bytes and error of all sections, and which way each of them takes."""


def front(ways: Sequence[Sequence[Cost]]) -> list[Combination]:
    """Every combination that no other one beats in bytes and in error, the shortest first."""
    found: list[Combination] = [(0, 0.0, ())]
    for section in ways:
        kept = _unbeaten([(size, error, (i,)) for i, (size, error) in enumerate(section)])
        found = _unbeaten([(a + b, e + f, (*p, *q)) for a, e, p in found for b, f, q in kept])
    return found


def _unbeaten(combinations: list[Combination]) -> list[Combination]:
    kept: list[Combination] = []
    for combination in sorted(combinations):
        if not kept or combination[1] < kept[-1][1]:
            kept.append(combination)
    return kept
