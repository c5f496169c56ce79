"""SCAFFOLD on the coordinator: the fleet's control variate as a sum of what devices have said of theirs.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning" (ICML 2020), algorithm
1, lines 16 and 17: c moves by |S| / N times the mean change of the c_i, so that it stays the mean of all c_i.
Here means are weighted by samples, and c is not moved but made anew of the sum of all changes: what a model's
c lacks, for a delta's rounding or because an older model has been put back, is there again in the next one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from laconic.coordinator.aggregation.settings import AggregationSettings
from laconic.coordinator.ledger import DeviceRecord
from laconic.coordinator.staleness import Lateness
from laconic.errors import ConfigError, StorageError
from laconic.schema import Schema, Vector

Sum = NDArray[np.float64]
"""Samples times control variate, over all devices that have ever sent one: the size of `schema.controls`."""

KEY: Final = "control"
"""Of its record in the campaign's part of the store."""


def checked(
    schema: Schema, *, rule: AggregationSettings, lateness: Lateness, echo_gain: float = 0.0
) -> AggregationSettings:
    """`rule`, if a campaign on this schema gives each change of a control variate its full weight, once.

    Raises `ConfigError` for what shortens, drops or repeats updates: the model would stay aside of the joint
    optimum for ever.
    """
    if schema.controls.start == schema.controls.stop:
        return rule
    discounts = lateness.folds and lateness.exponent > 0
    for thing, value, limit, fine in (
        ("aggregation.rule with a bundle of --scaffold", rule.rule, "mean, without mixing", rule.weighted),
        ("rounds.staleness_exponent with one of --scaffold", lateness.exponent, 0, not discounts),
        ("gate.echo_gain with a bundle of --scaffold", echo_gain, 0, not echo_gain),
    ):
        if not fine:
            raise ConfigError(
                thing,
                value=value,
                limit=limit,
                remedy="control variates are sums of what devices say: use a bundle without, or no such rule",
            )
    return rule


def after(total: Sum, mean: Vector, weight: int, controls: slice) -> Sum:
    """The sum with a round's: `mean` is of changes with `weight` samples behind them, silent ones too."""
    return total + mean[controls].astype(np.float64) * weight


def taking_part(records: Iterable[DeviceRecord], cohort: str) -> int:
    """Samples of the cohort's devices that have ever had an update committed: the divisor of the sum.

    It need not be exact. At the joint optimum the sum is zero, whatever it is divided by.
    """
    return sum(max(r.samples, 1) for r in records if r.cohort == cohort and r.committed)


def step(
    change: Vector, total: Sum, samples: int, *, weights: Vector, residual: Vector, schema: Schema
) -> Vector:
    """The server's step, with control variates taken to `total` / `samples` wherever they are now.

    `weights` and `residual` are the newest version's; what the server optimizer makes of control variates is
    put aside.
    """
    if not total.size:
        return change
    controls = schema.controls
    due = (total / max(samples, 1)).astype(np.float32)
    out = change.copy()
    out[controls] = due - weights[controls] - residual[controls]
    return out


def save(total: Sum) -> dict[str, bytes | None]:
    """The record's entry: float64, little-endian; none for a bundle without control variates."""
    return {KEY: total.astype("<f8").tobytes()} if total.size else {}


def restore(blob: bytes | None, schema: Schema) -> Sum:
    """What `save` wrote; zeros before the first. Raises `StorageError` for anything else."""
    size = schema.controls.stop - schema.controls.start
    if blob is None or not size:
        return np.zeros(size)
    remedy = "restore the store from a copy"
    if len(blob) != 8 * size:
        raise StorageError("record control, in bytes", value=len(blob), limit=8 * size, remedy=remedy)
    total = np.frombuffer(blob, "<f8").astype(np.float64)
    if not np.isfinite(total).all():
        raise StorageError("record control is not finite", remedy=remedy)
    return total
