"""The gate: is there enough to say that sending is worth its bytes?

Sending only when the change is large enough is lazy aggregation (Chen et al., "LAG", NeurIPS 2018, section
2) and dynamic averaging (Kamp et al., ECML 2018, section 3). The norm is that of change plus residual, and
what is not sent stays in the residual: a gate that dropped it would not converge.

A norm alone cannot tell what is new. On data of mostly one class a device's change does not shrink where the
fleet's model is at its best, since its own optimum lies elsewhere: when its images were inverted, such a
device's norm rose 2.6-fold, its loss 16-fold. So the loss before training, which costs nothing, can open the
gate too.

Where silence is not an accident but the rule, mode "model" is the one to use: what a device gathers while
silent is many times one and the same step, and only a bound in the model's own lengths keeps it harmless. A
threshold of 0.05 with a `loss_factor` of 2 and a long `force_after_rounds` followed the run without a gate
to a tenth of a point before and after a drift, with 41 % of its bytes, and 64 % where devices held 90 % of
one class; 0.1 took 26 % and 37 %, a third to half a point, and 2 to 6 rounds more to recover. A low rate that
is steered for from the start costs more: see `decide`.

Silence goes only so far: after 150 rounds on data that stays, devices still speak in a quarter of rounds, in
half of them with 90 % of one class. Their updates are then nearly the same in every round, cancel in the sum
alone, and gather until they cross any threshold. What silences them is an echo (`laconic.compression.echo`).
See docs/decisions/0016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, get_args

from laconic.errors import ConfigError, NonFinite

GateMode: TypeAlias = Literal["absolute", "model", "running", "steered"]

Reason: TypeAlias = Literal["first", "above", "below", "forced", "unsettled"]

STEP: Final = 0.5
"""Of the steered threshold's logarithm for each send more or fewer than the target: a factor of 1.65."""

SPAN: Final = math.log(64)
"""How far the steered threshold may leave the running norm, as a logarithm."""

RATE_MEMORY: Final = 0.99
"""Of the achieved rate that is shown: about the last 100 rounds."""

FALLING: Final = 0.9
RISING: Final = 0.98
"""Share of a loss level's logarithm that a round with a lower, or a higher, loss keeps."""

LOSS_FLOOR: Final = 0.01
"""Losses below this share of the highest level seen are all alike: near zero, ratios are noise."""

_SECONDS_PER_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class GateSettings:
    """When to stay silent.

    * `mode`: what `threshold` is a multiple of: "absolute" 1, "model" the model's norm, "running" the running
      mean of this device's earlier norms. "steered" is "running" with a multiple that is adapted until the
      device speaks as often as it should, but never below `threshold`.
    * `threshold`: not negative; 0 opens the gate for good, except with "steered".
    * `force_after_rounds`: after so many silent rounds the next one is sent, whatever its norm; 0 sends
      always.
    * `memory`: share of the old running norm that one round keeps, 0 to below 1.
    * `target_rate`: share of rounds in which the device is to speak, 0 to 1; 0 for no target.
    * `bytes_per_day`: of sent frames; 0 for no target. The rate follows from the bytes of a frame and the
      seconds of a round, as measured. With both targets the lower rate counts. "steered" only, like
      `target_rate`, and one of the two is needed there.
    * `loss_factor`: 0, or above 1: the device also speaks while its loss before training is more than this
      factor above or below its own slow mean. That is: while it learns, and when its data or the model
      changed. The achieved rate counts these sends, the steered threshold does not follow them: a burst of
      news is not paid for with silence.

    Raises `ConfigError` for a value out of range.
    """

    mode: GateMode = "running"
    threshold: float = 0.0
    force_after_rounds: int = 4
    memory: float = 0.8
    target_rate: float = 0.0
    bytes_per_day: float = 0.0
    loss_factor: float = 0.0

    def __post_init__(self) -> None:
        _check("mode", self.mode, ", ".join(get_args(GateMode)), self.mode in get_args(GateMode))
        fine = math.isfinite(self.threshold) and self.threshold >= 0
        _check("threshold", self.threshold, "finite, 0 or more", fine)
        _check("force_after_rounds", self.force_after_rounds, "0 or more", self.force_after_rounds >= 0)
        _check("memory", self.memory, "0 to below 1", 0 <= self.memory < 1)
        _check("target_rate", self.target_rate, "0 to 1", 0 <= self.target_rate <= 1)
        fine = math.isfinite(self.bytes_per_day) and self.bytes_per_day >= 0
        _check("bytes_per_day", self.bytes_per_day, "finite, 0 or more", fine)
        factor = self.loss_factor
        _check("loss_factor", factor, "0, or above 1", factor == 0 or (math.isfinite(factor) and factor > 1))
        if (self.mode == "steered") != bool(self.target_rate or self.bytes_per_day):
            raise ConfigError(
                f"target of a gate of mode {self.mode!r}",
                value=(self.target_rate, self.bytes_per_day),
                limit="above 0 with mode 'steered', 0 with every other",
            )


@dataclass(frozen=True, slots=True)
class GateState:
    """What a gate remembers.

    * `silent_rounds`: of silence since the last send; `running_norm`: None before the first round.
    * `gain`: logarithm of the steered multiple; None before the first steered round.
    * `sends`, `rounds`: fading counts, whose quotient is the achieved rate.
    * `loss_level`, `loss_peak`: the slow mean of the loss before training, and the highest it has been.
    * `frame_bytes`, `round_seconds`, `decided_at`: what a frame and a round cost, as running means, and the
      time of the last decision; None before they are known.
    """

    silent_rounds: int = 0
    running_norm: float | None = None
    gain: float | None = None
    sends: float = 0.0
    rounds: float = 0.0
    loss_level: float | None = None
    loss_peak: float = 0.0
    frame_bytes: float | None = None
    round_seconds: float | None = None
    decided_at: float | None = None

    @property
    def rate(self) -> float:
        """Share of the last 100 rounds or so in which the device spoke, for whatever reason; 0 at first."""
        return min(self.sends / self.rounds, 1.0) if self.rounds else 0.0


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Send or not, with the numbers behind it, and the state for the next round.

    `reason`: "above" or "below" the threshold; "unsettled" when the loss opened the gate, "forced" when
    silence did, although the norm is below; "first" when there is no running norm to compare with. `target`:
    the rate that is steered for, 0 without a target. `state.rate` is the achieved one.
    """

    send: bool
    norm: float
    threshold: float
    reason: Reason
    state: GateState
    target: float = 0.0


def decide(
    settings: GateSettings,
    state: GateState,
    norm: float,
    model_norm: float,
    *,
    loss: float | None = None,
    now: float | None = None,
) -> GateDecision:
    """Hold `norm`, that of change plus residual, against the threshold; a norm equal to it is sent.

    `model_norm`: of the weights the change was made from, used by mode "model" only. Whether silent or not,
    the norm enters the running mean, so that a device whose changes grow or shrink for good adapts. `loss`:
    before training, on this device's data; None, negative or not finite where it is not known. `now`:
    seconds, needed for `bytes_per_day` only.

    The steered threshold follows the share `r` of rounds that is aimed at (Robbins and Monro, Annals of
    Mathematical Statistics 1951): its logarithm rises by `STEP * (1 - r)` with a send that the loss did not
    cause, and falls by `STEP * r` with a silence. So sends differ from `r` times the rounds by no more than
    the distance it has gone over `STEP`, whatever the norms were.

    A rate is a budget, not a good gate: with one send in ten a device's steps are ten times as long, and with
    `target_rate` 0.1 and `loss_factor` 2 runs ended 2 to 3 points lower.

    Raises `NonFinite` for a norm that is not finite.
    """
    for thing, value in (("norm of an update", norm), ("norm of a model", model_norm)):
        if not math.isfinite(value) or value < 0:
            raise NonFinite(thing, value=value, limit="finite, 0 or more")
    running = state.running_norm
    state = _timed(state, now)
    target = _target(settings, state)
    gain = 0.0 if state.gain is None else min(max(state.gain, -SPAN), SPAN)
    multiple = settings.threshold
    if settings.mode == "steered" and target < 1:
        multiple = max(multiple, math.exp(gain))
    unsettled, state = _hear(settings, state, loss)
    reason: Reason
    if settings.mode in ("running", "steered") and running is None:
        threshold, reason = 0.0, "first"
    else:
        threshold = multiple * {"absolute": 1.0, "model": model_norm}.get(settings.mode, running or 0.0)
        if norm >= threshold:
            reason = "above"
        elif unsettled:
            reason = "unsettled"
        else:
            reason = "forced" if state.silent_rounds >= settings.force_after_rounds else "below"
    send = reason != "below"
    if settings.mode == "steered" and reason != "unsettled":
        # Below its floor the multiple would only sink out of reach.
        floor = math.log(settings.threshold) if settings.threshold else -SPAN
        gain = min(max(gain + STEP * (send - target), min(max(floor, -SPAN), SPAN)), SPAN)
    after = replace(
        state,
        silent_rounds=0 if send else state.silent_rounds + 1,
        running_norm=norm if running is None else settings.memory * running + (1 - settings.memory) * norm,
        gain=gain if settings.mode == "steered" else None,
        sends=RATE_MEMORY * state.sends + send,
        rounds=RATE_MEMORY * state.rounds + 1,
    )
    return GateDecision(send, norm, threshold, reason, after, target)


def sent(state: GateState, frame_bytes: int) -> GateState:
    """The state once the frame of an open gate is known, from which "bytes_per_day" tells a send's cost."""
    old = state.frame_bytes
    return replace(state, frame_bytes=frame_bytes if old is None else 0.8 * old + 0.2 * frame_bytes)


def _target(settings: GateSettings, state: GateState) -> float:
    """The share of rounds to speak in; 1 while a send's cost is not known, 0 without a target."""
    if settings.mode != "steered":
        return 0.0
    rate = settings.target_rate or 1.0
    if settings.bytes_per_day and state.frame_bytes and state.round_seconds:
        day = state.frame_bytes * _SECONDS_PER_DAY / state.round_seconds
        rate = min(rate, settings.bytes_per_day / day)
    return rate


def _timed(state: GateState, now: float | None) -> GateState:
    """The state with the length of the last round; a clock that was put back says nothing."""
    if now is None or not math.isfinite(now):
        return state
    seconds = state.round_seconds
    if state.decided_at is not None and now > state.decided_at:
        # A device that was away for long did not have long rounds.
        last = min(now - state.decided_at, _SECONDS_PER_DAY)
        seconds = last if seconds is None else 0.9 * seconds + 0.1 * last
    return replace(state, round_seconds=seconds, decided_at=now)


def _hear(settings: GateSettings, state: GateState, loss: float | None) -> tuple[bool, GateState]:
    """Whether `loss` is away from its level, and the state with the level moved towards it."""
    if not settings.loss_factor or loss is None or not math.isfinite(loss) or loss < 0:
        return False, state
    if state.loss_level is None:
        return False, replace(state, loss_level=loss, loss_peak=loss)
    # The smallest normal number, for losses that are zero from the start.
    least = max(LOSS_FLOOR * state.loss_peak, 1e-300)
    level, heard = math.log(max(state.loss_level, least)), math.log(max(loss, least))
    unsettled = abs(heard - level) > math.log(settings.loss_factor)
    memory = FALLING if heard < level else RISING
    moved = math.exp(memory * level + (1 - memory) * heard)
    return unsettled, replace(state, loss_level=moved, loss_peak=max(state.loss_peak, moved))


def _check(name: str, value: object, allowed: str, fine: bool) -> None:
    if not fine:
        raise ConfigError(f"gate {name}", value=value, limit=allowed)
