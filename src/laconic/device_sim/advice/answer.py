"""What came of the runs: what federation brings at each size of a fleet, what it costs, and a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from laconic.device_sim.scenario.results import Result, ScoreRow
from laconic.device_sim.scenario.sweep import Run
from laconic.quantities import format_bytes, format_joules, format_percent, plural

_LEAST: Final = 0.005
"""A difference below half a point, or half a per cent of the loss, is none."""
_SURE: Final = 2.0
"""Standard errors from which on a difference is one."""


@dataclass(frozen=True)
class Size:
    """A fleet of so many devices: means over its devices and all seeds.

    Scores are accuracies, or losses where the model is none of classes. `gain`: what a device has of
    federation, above 0 if that is good, relative for losses; `gain_error`: its standard error over devices
    and seeds. Bytes and joules are of one device in a day of virtual time: computing and radio, without what
    the board takes anyway.
    """

    devices: int
    alone: float
    federated: float
    pooled: float
    gain: float
    gain_error: float
    newcomer_alone: float | None
    newcomer_federated: float | None
    newcomer_pooled: float | None
    bytes_up: float
    bytes_down: float
    joules: float
    all_joules: float

    @property
    def worth(self) -> bool:
        """Whether the gain is more than chance."""
        return self.gain > max(_LEAST, _SURE * self.gain_error)

    @property
    def harm(self) -> bool:
        """Whether devices are better off alone."""
        return -self.gain > max(_LEAST, _SURE * self.gain_error)


@dataclass(frozen=True)
class Answer:
    """All sizes, from the smallest, and whether scores are accuracies."""

    sizes: tuple[Size, ...]
    accuracies: bool
    newcomers: bool


def answer(runs: Sequence[Run], *, newcomers: bool) -> Answer:
    """What runs of `question.asked` say. `newcomers`: held-out examples are those of other devices."""
    by_size: dict[int, list[Result]] = {}
    for run in runs:
        by_size.setdefault(run.result.totals.devices, []).append(run.result)
    accuracies = all(r.federated_accuracy is not None for run in runs for r in run.result.scores)
    sizes = tuple(_size(n, found, accuracies, newcomers) for n, found in sorted(by_size.items()))
    return Answer(sizes, accuracies, newcomers)


def _size(devices: int, results: Sequence[Result], accuracies: bool, newcomers: bool) -> Size:
    rows = [row for r in results for row in r.scores]
    alone, federated, pooled = (
        [_score(row, kind, accuracies) for row in rows] for kind in ("alone", "federated", "pooled")
    )
    gains = [f - a if accuracies else (a - f) / max(a, 1e-30) for a, f in zip(alone, federated, strict=True)]
    gain = _mean(gains)
    error = sqrt(sum((g - gain) ** 2 for g in gains) / max(1, len(gains) - 1) / len(gains))
    name = "accuracy" if accuracies else "loss"
    last = [{b.kind: b for b in r.baselines} for r in results]
    device_days = [_days(r) * r.totals.devices for r in results]

    def a_day(values: Iterable[float]) -> float:
        return _mean([v / d for v, d in zip(values, device_days, strict=True)])

    joules = a_day(r.totals.work_j for r in results)
    idle_w = _mean([_idle_j(r) / (r.totals.hours * 3600 * r.totals.devices) for r in results])

    return Size(
        devices=devices,
        alone=_mean(alone),
        federated=_mean(federated),
        pooled=_mean(pooled),
        gain=gain,
        gain_error=error,
        newcomer_alone=_mean([getattr(b["alone"], name) for b in last]) if newcomers else None,
        newcomer_federated=_mean([getattr(r.totals, name) for r in results]) if newcomers else None,
        newcomer_pooled=_mean([getattr(b["pooled"], name) for b in last]) if newcomers else None,
        bytes_up=a_day(float(r.totals.bytes_up) for r in results),
        bytes_down=a_day(float(r.totals.bytes_down) for r in results),
        joules=joules,
        all_joules=joules + idle_w * 86_400,
    )


def _days(result: Result) -> float:
    """Days that the rounds stand for: the run ends with the last of them, not when the next would begin."""
    interval_s: float = result.settings["coordinator"]["rounds"]["interval_s"]
    return max(result.totals.hours / 24, result.totals.rounds * interval_s / 86_400)


def _idle_j(result: Result) -> float:
    return result.totals.joules - result.totals.work_j


def _score(row: ScoreRow, kind: str, accuracies: bool) -> float:
    found: float = getattr(row, f"{kind}_{'accuracy' if accuracies else 'loss'}")
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def verdict(found: Answer, board: str) -> list[str]:
    """The answer in sentences."""
    last = found.sizes[-1]
    fleet = plural(last.devices, "device")
    scores = f"{told(last.federated, found)} against {told(last.alone, found)} each alone"
    lines = []
    if last.devices == 1:
        lines.append("One device has nobody to learn with: give more files, or a larger --devices.")
    elif last.worth:
        best = max(0.0, _better(last.pooled, last.alone, found.accuracies))
        share = f", {format_percent(last.gain / best, 0)} of what pooling all data would" if best else ""
        lines.append(f"Worth it: with {fleet} federation brings {_gain(last, found)}{share} ({scores}).")
    elif last.harm:
        lines.append(f"Not worth it: with {fleet} each is better off alone ({scores}).")
    else:
        lines.append(f"Not worth it: with {fleet} nothing is gained that is more than chance ({scores}).")
    first = next((s for s in found.sizes if s.worth and s.devices > 1), None)
    if last.worth and first is not None and first.devices < last.devices:
        lines.append(f"It is from {plural(first.devices, 'device')} on, of the sizes that were tried.")
    single = found.sizes[0]
    if single.devices == 1 < last.devices and single.harm:
        lines.append(
            f"One device's updates through the same codec already lose {_gain(single, found)}:"
            " more --rounds make up for it, or another --preset does."
        )
    if found.newcomers and last.newcomer_federated is not None and last.newcomer_alone is not None:
        lines.append(
            f"A new device, which has learnt nothing yet, would begin with"
            f" {told(last.newcomer_federated, found)}; with another one's own model"
            f" {told(last.newcomer_alone, found)}."
        )
    lines.append(
        f"A device and day: {format_bytes(last.bytes_up)} up, {format_bytes(last.bytes_down)} down,"
        f" {format_joules(last.joules)} beside the {format_joules(last.all_joules - last.joules)} that"
        f" {board} takes anyway."
    )
    return lines


def told(score: float, found: Answer) -> str:
    """A score in words."""
    return format_percent(score) if found.accuracies else f"{score:.4g}"


def _better(a: float, b: float, accuracies: bool) -> float:
    return a - b if accuracies else (b - a) / max(b, 1e-30)


def _gain(size: Size, found: Answer) -> str:
    points = 100 * abs(size.gain)
    error = 100 * size.gain_error
    what = "points" if found.accuracies else "% of the loss"
    return f"{points:.1f} ± {error:.1f} {what}"
