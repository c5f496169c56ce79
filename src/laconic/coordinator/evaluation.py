"""How good a version is by the word of the devices: each measures the model before it trains on it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import msgspec

from laconic.coordinator.records import FleetScore
from laconic.errors import StorageError

MOST_REPORTS = 1000
"""Reports that are kept of a version: those of the devices whose names' hashes are the smallest, which are
the same devices for every version, so that two versions can be compared device by device."""


class Report(msgspec.Struct, frozen=True, array_like=True):
    """What one device has measured, on its own data."""

    device: str
    samples: int
    loss: float | None
    accuracy: float | None


class Evaluation(msgspec.Struct, frozen=True):
    """The reports on one version, by the names of the devices in order."""

    reports: tuple[Report, ...] = ()

    def score(self) -> FleetScore | None:
        """Means and medians weighted by samples; None without a report.

        Only the reports decide, not the order in which they came: `math.fsum` is exact.
        """
        if not self.reports:
            return None
        losses = [(r.loss, r.samples) for r in self.reports if r.loss is not None]
        accuracies = [(r.accuracy, r.samples) for r in self.reports if r.accuracy is not None]
        return FleetScore(
            reports=len(self.reports),
            samples=sum(r.samples for r in self.reports),
            loss_mean=_mean(losses),
            loss_median=_median(losses),
            accuracy_mean=_mean(accuracies),
            accuracy_median=_median(accuracies),
        )


class Gathering:
    """The reports on one version as they come in: one a device, its newest, in bounded memory."""

    def __init__(self, known: Evaluation | None = None) -> None:
        self._reports = {r.device: r for r in (known or Evaluation()).reports}
        self.changed = False
        """Whether there is something that the store does not have."""

    def __contains__(self, device: str) -> bool:
        return device in self._reports

    def __len__(self) -> int:
        return len(self._reports)

    def add(self, report: Report) -> None:
        """Take a report; one without any metric says nothing."""
        if report.samples < 1 or (report.loss is None and report.accuracy is None):
            return
        self._reports[report.device] = report
        self.changed = True
        if len(self._reports) > 2 * MOST_REPORTS:
            self._reports = {r.device: r for r in _kept(self._reports.values())}

    def evaluation(self) -> Evaluation:
        """All of it."""
        return Evaluation(tuple(sorted(_kept(self._reports.values()), key=lambda r: r.device)))


def read_evaluation(key: str, blob: bytes | None) -> Evaluation:
    """What the store has under `key`. Raises `StorageError` for what cannot be read."""
    if blob is None:
        return Evaluation()
    try:
        return msgspec.msgpack.decode(blob, type=Evaluation)
    except msgspec.DecodeError as e:
        raise StorageError(f"record {key} ({e})", remedy="restore the store from a copy") from e


def _kept(reports: Iterable[Report]) -> list[Report]:
    ordered = sorted(reports, key=lambda r: (hashlib.sha256(r.device.encode()).digest(), r.device))
    return ordered[:MOST_REPORTS]


def _mean(values: Sequence[tuple[float, int]]) -> float | None:
    total = sum(weight for _, weight in values)
    return math.fsum(value * weight for value, weight in values) / total if total else None


def _median(values: Sequence[tuple[float, int]]) -> float | None:
    """The lower weighted median: the least value with half of the weight at or below it."""
    total, below = sum(weight for _, weight in values), 0
    for value, weight in sorted(values):
        below += weight
        if 2 * below >= total:
            return value
    return None
