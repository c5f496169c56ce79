"""How many training steps make a stretch of about a given time."""

from __future__ import annotations

import math

CHUNK_STEPS = 64
"""Steps in a stretch at most, however fast they are."""


class Pace:
    """How many steps the next stretch of a run may have, by the time that the last one took.

    The first has one step, as nothing is known; from then on the number at most doubles, up to `CHUNK_STEPS`
    and to what fits into `stretch_s` seconds at the last stretch's speed.
    """

    def __init__(self, stretch_s: float, batch_size: int, *, earlier: Pace | None = None) -> None:
        """`earlier`: that of another run with the same graph. A larger batch takes at most as much longer as
        it is larger, and a smaller one no longer."""
        self.steps = 1
        """Steps in the next stretch at most."""
        self._stretch_s, self._batch_size = stretch_s, batch_size
        if earlier is not None:
            self.steps = max(1, min(earlier.steps, earlier.steps * earlier._batch_size // batch_size))

    def took(self, steps: int, batch: int, seconds: float) -> None:
        """A stretch of `steps` steps with `batch` samples each has taken `seconds`."""
        if batch < self._batch_size:
            # The end of an epoch says nothing of whole batches.
            return
        fitting = (
            CHUNK_STEPS if seconds <= 0 else min(CHUNK_STEPS, math.floor(self._stretch_s * steps / seconds))
        )
        self.steps = max(1, min(fitting, 2 * self.steps))
