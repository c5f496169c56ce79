"""Whether training came to anything: a verdict on models that diverged would be one on nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isfinite
from typing import Final

from laconic.device_sim.scenario.examples import examples_of
from laconic.device_sim.scenario.model import bundle_of
from laconic.device_sim.scenario.results import Result
from laconic.device_sim.scenario.scenario import Scenario
from laconic.device_sim.scenario.scores import Models, scored
from laconic.device_sim.scenario.sweep import Run
from laconic.errors import ConfigError
from laconic.quantities import plural
from laconic.runtime import Trainer

_KINDS: Final = ("alone", "federated", "pooled")
_TOLERANCE: Final = 1.005
"""What is this little worse has stayed as it was."""
_FAR: Final = 10.0
"""A device alone may end a little worse than it began: it has few examples. Not by so much."""


def refuse_diverged(scenario: Scenario, runs: Sequence[Run]) -> None:
    """Raises `ConfigError`, with a learning rate to try, where the runs of a scenario's sweep tell nothing.

    That is: trainings failed, a loss is not finite, or models ended worse than they began. With all data in
    one place, and as the whole fleet's, a model must not be worse at all; any other not tenfold. One of
    classes may have a larger loss, if it is right more often.
    """
    rate = scenario.settings.coordinator.training.learning_rate
    failures: Counter[str] = Counter()
    for run in runs:
        failures.update(run.result.totals.failures)
    for why, times in failures.most_common(1):
        raise _diverged(f"work came to nothing {plural(times, 'time')} ({why})", rate)
    if failed := sum(_failed(run.result) for run in runs):
        raise _diverged(f"{plural(failed, 'training')} of those alone or pooled failed", rate)
    most = max(run.result.totals.devices for run in runs)
    for (_, one), run in zip(scenario.swept({}), runs, strict=True):
        _refuse_infinite(run.result, rate)
        _refuse_worse(run.result, untrained(one), rate, largest=run.result.totals.devices == most)


def untrained(scenario: Scenario) -> tuple[float, float | None]:
    """Loss and accuracy before training, means over devices on what each has kept of its own."""
    s = scenario.settings
    devices = s.devices[0].count or 1
    examples = examples_of(s.data, devices, s.seed, scenario.folder)
    bundle = bundle_of(s.model, examples, seed=s.seed, proximal=False, folder=scenario.folder)
    names = [str(i) for i in range(devices)]
    models = Models(bundle, bundle.initial, {}, {}, None)
    rows = scored(Trainer(bundle), models, names, dict.fromkeys(names, ("", 0)), examples.own, threads=1)
    losses = [r.federated_loss for r in rows if r.federated_loss is not None]
    accuracies = [r.federated_accuracy for r in rows if r.federated_accuracy is not None]
    return _mean(losses), _mean(accuracies) if accuracies else None


def _failed(result: Result) -> int:
    """Trainings without the federation that failed: their models stayed as they were."""
    # Rows count from the beginning.
    return sum({row.kind: row.failed for row in result.baselines}.values())


def _refuse_infinite(result: Result, rate: float) -> None:
    losses = [b.loss for b in result.baselines] + [r.loss for r in result.rounds]
    losses += [getattr(row, f"{kind}_loss") for row in result.scores for kind in _KINDS]
    # In a file an infinite loss is none.
    broken = [loss for loss in losses if loss is None or not isfinite(loss)]
    if broken:
        raise _diverged("loss", rate, value=str(broken[0] or "none"), limit="finite")


def _refuse_worse(result: Result, began: tuple[float, float | None], rate: float, *, largest: bool) -> None:
    loss_before, accuracy_before = began
    for kind in _KINDS:
        loss = _mean([getattr(row, f"{kind}_loss") for row in result.scores])
        if accuracy_before is None:
            limit = loss_before * (_TOLERANCE if largest and kind != "alone" else _FAR)
            worse = loss > limit
        else:
            accuracy = _mean([getattr(row, f"{kind}_accuracy") for row in result.scores])
            worse = largest and kind != "alone" and accuracy < accuracy_before and loss > loss_before
        if worse:
            raise _diverged(
                f"loss ({kind})", rate, value=f"{loss:.4g}", limit=f"{loss_before:.4g}, as before training"
            )


def _diverged(what: str, rate: float, *, value: str | None = None, limit: str | None = None) -> ConfigError:
    return ConfigError(
        f"training diverged with --learning-rate {rate:g}, so there is no verdict: {what}",
        value=value,
        limit=limit,
        remedy=f"try --learning-rate {rate / 10:g}, or scale features and what is regressed to about 1",
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
