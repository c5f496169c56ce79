"""How often Python looks for cycles while virtual time passes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_ALLOCATIONS: Final = 50_000
_GENERATIONS: Final = 20


@contextmanager
def rare_collections() -> Iterator[None]:
    """Meanwhile it looks seldom: a world is a million objects that stay, each message makes a few more, and
    the looking took up to a tenth of a scenario's time."""
    before = gc.get_threshold()
    # 0: somebody has switched it off.
    if 0 < before[0] < _ALLOCATIONS:
        gc.set_threshold(_ALLOCATIONS, _GENERATIONS, _GENERATIONS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
