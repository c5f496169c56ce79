"""The echo: the coordinator repeats what was said, and each device counts on it.

After the step in which a frame was folded, `gain` times it is added to the next step, `gain * memory` to the
one after, and so on. A device takes off its change, in every step, what is added on its behalf; so it has to
speak only when its change is no longer what it was. Silence repeats, as in LAG (Chen et al., NeurIPS 2018,
section 2) and EF21 (Richtarik et al., NeurIPS 2021, algorithm 2); but the coordinator keeps one vector for
the whole fleet (`laconic.coordinator.aggregation.echo`), whose step is that of a momentum on account.

Both ends count *ticks*, the steps that the coordinator's vector has made, not rounds or versions: a round
that ends without a step is counted by neither. At every moment, of every device, up to rounding and to what
age and cap of the residual have taken,

    committed frames + their echoes until its tick + residual = all changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from laconic.compression.stages import finite
from laconic.errors import ConfigError, NonFinite
from laconic.schema import Vector

MOST_MEMORY: Final = 0.9999
"""A frame sounds for `1 / (1 - memory)` steps or so, and must end."""


@dataclass(frozen=True, slots=True)
class EchoSettings:
    """How loudly and how long a frame is repeated.

    * `gain`: share of a frame in the step after it, 0 to 1; 0 for no echo.
    * `memory`: what is left of an echo from one step to the next, 0 to 0.9999.

    A frame sounds for `gain / (1 - memory)` of itself in all. Raises `ConfigError` for a value out of range.
    """

    gain: float = 0.0
    memory: float = 0.995

    def __post_init__(self) -> None:
        if not 0 <= self.gain <= 1:
            raise ConfigError("echo gain", value=self.gain, limit="0 to 1")
        if not 0 <= self.memory <= MOST_MEMORY:
            raise ConfigError("echo memory", value=self.memory, limit=f"0 to {MOST_MEMORY}")


SILENT: Final = EchoSettings()
"""No echo."""


@dataclass(frozen=True, slots=True)
class Echo:
    """What the coordinator adds on one device's behalf; nothing changes in place.

    * `values`: of the next tick, float32, shape `(size,)`; None for nothing.
    * `tick`: the last whose part has been taken off the residual.
    * `source`: which echo of the coordinator's it counts on; "" for none. When that begins anew, so does
      this.
    * `settings`: of that source.
    """

    values: Vector | None = None
    tick: int = 0
    source: str = ""
    settings: EchoSettings = SILENT

    def at(self, source: str, tick: int, settings: EchoSettings) -> tuple[Echo, Vector | None]:
        """The echo at `tick`, from 0, and what is to be taken off the residual for the ticks since its own.

        Ticks that the device missed have sounded too: what is to be taken off is
        `values (1 + memory + ... + memory^(k-1))` for k ticks, None for nothing. From another source, or from
        an earlier tick (the coordinator has gone back), it begins anew, with nothing.

        Raises `NonFinite` when the sum overflows; the echo then stays as it was.
        """
        if source != self.source or tick < self.tick or self.values is None:
            return Echo(None, tick, source, settings), None
        passed = tick - self.tick
        if passed == 0:
            return self, None
        faded = settings.memory**passed
        with np.errstate(over="ignore"):
            due = self.values * np.float32((1 - faded) / (1 - settings.memory))
        if not finite(due):
            raise NonFinite("echoes of missed steps", value="infinity", remedy="lower the echo's memory")
        left = self.values * np.float32(faded)
        return Echo(left if left.any() else None, tick, source, settings), due

    def folded(
        self, frame: Vector, source: str, tick: int, discount: float = 1.0
    ) -> tuple[Echo, Vector | None]:
        """With a committed frame, decoded, that was folded into the step `tick`; else as `at`.

        `discount`: factor with which it was folded. Raises `NonFinite` when the sum overflows.
        """
        # An answer speaks of the past: an earlier tick than its own tells nothing about where it stands.
        tick = max(tick, self.tick) if source == self.source else tick
        echo, due = self.at(source, tick, self.settings)
        gain = np.float32(self.settings.gain * discount)
        if not gain:
            return echo, due
        with np.errstate(over="ignore", invalid="ignore"):
            values = gain * frame if echo.values is None else echo.values + gain * frame
        if not finite(values):
            raise NonFinite("sum of echo and sent update", value="NaN or infinity")
        return replace(echo, values=values), due


NO_ECHO: Final = Echo()
"""Of a device on whose behalf nothing is added."""
