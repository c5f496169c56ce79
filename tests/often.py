"""How often: the counts of generated examples and of crash points, a part of them by default, all in a soak.

The share is hypothesis's own setting, `max_examples` of the loaded profile, in per cent. The profiles, `fast`
and `soak`, are in tests/conftest.py; `scripts/soak` loads the second (`--hypothesis-profile=soak`).
"""

from __future__ import annotations

from hypothesis import settings

LEAST_EXAMPLES = 5


def examples(full: int) -> int:
    """`max_examples` of a law that is tried `full` times in a soak."""
    return max(min(full, LEAST_EXAMPLES), full * settings.default.max_examples // 100)


def points(start: int, stop: int, *, stride: int) -> range:
    """Points of a run at which a fault is provoked: in a soak all, else every `stride`th, from `start`.

    A stride that is odd takes turns between even and odd points.
    """
    return range(start, stop, 1 if settings.default.max_examples >= 100 else stride)
