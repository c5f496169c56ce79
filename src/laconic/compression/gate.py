"""The norm gate: is there enough to say that sending is worth its bytes?

Sending only when the change is large enough is lazy aggregation (Chen et al., "LAG", NeurIPS 2018, section
2) and dynamic averaging (Kamp et al., ECML 2018, section 3). The norm is that of change plus residual, and
what is not sent stays in the residual: a gate that dropped it would not converge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from laconic.errors import ConfigError, NonFinite

GateMode: TypeAlias = Literal["absolute", "model", "running"]

Reason: TypeAlias = Literal["first", "above", "below", "forced"]


@dataclass(frozen=True, slots=True)
class GateSettings:
    """When to stay silent.

    * `mode`: what `threshold` is a multiple of: "absolute" 1, "model" the model's norm, "running" the running
      mean of this device's earlier norms.
    * `threshold`: not negative; 0 opens the gate for good.
    * `force_after_rounds`: after so many silent rounds the next one is sent, whatever its norm; 0 sends
      always.
    * `memory`: share of the old running norm that one round keeps, 0 to below 1.

    Raises `ConfigError` for a value out of range.
    """

    mode: GateMode = "running"
    threshold: float = 0.0
    force_after_rounds: int = 4
    memory: float = 0.8

    def __post_init__(self) -> None:
        if self.mode not in ("absolute", "model", "running"):
            raise ConfigError("gate mode", value=self.mode, limit="absolute, model or running")
        if not (math.isfinite(self.threshold) and self.threshold >= 0):
            raise ConfigError("gate threshold", value=self.threshold, limit="finite, 0 or more")
        if self.force_after_rounds < 0:
            raise ConfigError("gate force_after_rounds", value=self.force_after_rounds, limit="0 or more")
        if not 0 <= self.memory < 1:
            raise ConfigError("gate memory", value=self.memory, limit="0 to below 1")


@dataclass(frozen=True, slots=True)
class GateState:
    """What a gate remembers: rounds of silence since the last send; running norm, None before the first."""

    silent_rounds: int = 0
    running_norm: float | None = None


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Send or not, with the numbers behind it, and the state for the next round.

    `reason`: "above" or "below" the threshold, "forced" by silence although below, "first" when there is no
    running norm to compare with.
    """

    send: bool
    norm: float
    threshold: float
    reason: Reason
    state: GateState


def decide(settings: GateSettings, state: GateState, norm: float, model_norm: float) -> GateDecision:
    """Hold `norm`, that of change plus residual, against the threshold; a norm equal to it is sent.

    `model_norm`: of the weights the change was made from, used by mode "model" only. Whether silent or not,
    the norm enters the running mean, so that a device whose changes grow or shrink for good adapts.

    Raises `NonFinite` for a norm that is not finite.
    """
    for thing, value in (("norm of an update", norm), ("norm of a model", model_norm)):
        if not math.isfinite(value) or value < 0:
            raise NonFinite(thing, value=value, limit="finite, 0 or more")
    running = state.running_norm
    reason: Reason
    if settings.mode == "running" and running is None:
        threshold, reason = 0.0, "first"
    else:
        reference = {"absolute": 1.0, "model": model_norm, "running": running or 0.0}[settings.mode]
        threshold = settings.threshold * reference
        if norm >= threshold:
            reason = "above"
        else:
            reason = "forced" if state.silent_rounds >= settings.force_after_rounds else "below"
    send = reason != "below"
    mean = norm if running is None else settings.memory * running + (1 - settings.memory) * norm
    return GateDecision(
        send, norm, threshold, reason, GateState(0 if send else state.silent_rounds + 1, mean)
    )
