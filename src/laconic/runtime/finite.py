"""Holds vectors to finite numbers."""

from __future__ import annotations

import numpy as np

from laconic.errors import NonFinite
from laconic.schema import Vector


def check_finite(thing: str, vector: Vector, remedy: str) -> None:
    """Raise `NonFinite` unless every element is finite."""
    if not np.isfinite(vector).all():
        bad = int(np.count_nonzero(~np.isfinite(vector)))
        raise NonFinite(thing, value=f"{bad} of {vector.size} not finite", remedy=remedy)
