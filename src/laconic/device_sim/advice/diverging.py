"""Whether training came to anything: a verdict on models that diverged would be one on nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isfinite
from typing import Final, NamedTuple

from laconic.device_sim.scenario.examples import examples_of
from laconic.device_sim.scenario.model import bundle_of
from laconic.device_sim.scenario.results import Result
from laconic.device_sim.scenario.scenario import Scenario
from laconic.device_sim.scenario.scores import Models, scored
from laconic.device_sim.scenario.sweep import Run
from laconic.errors import ConfigError
from laconic.runtime import Trainer

_KINDS: Final = ("alone", "federated", "pooled")
_FAR: Final = 10.0
"""Few examples, noise, or devices that contradict one another end a little worse than they began. Not by so
much."""
_MANY: Final = 0.1
"""Of all trainings: a few that fail leave a verdict on the others."""


class Score(NamedTuple):
    """Means over devices on what each has kept of its own; no accuracy where there are no classes."""

    loss: float
    accuracy: float | None

    def no_better(self, other: Score) -> bool:
        """Whether this is as bad as the other: with classes by what is right, else by the loss."""
        if self.accuracy is None or other.accuracy is None:
            return self.loss >= other.loss
        return self.accuracy <= other.accuracy


def doubts(scenario: Scenario, runs: Sequence[Run]) -> list[str]:
    """What is to be said beside a verdict on the runs of a scenario's sweep.

    Raises `ConfigError`, with a learning rate to try, where they allow of none: a tenth of all trainings
    failed, a loss is not finite, or that of some kind of model ended tenfold, and is no more often right.
    """
    rate = scenario.settings.coordinator.training.learning_rate
    said = list(_failures([run.result for run in runs], rate))
    most = max(run.result.totals.devices for run in runs)
    learnt = False
    for (_, one), run in zip(scenario.swept({}), runs, strict=True):
        _refuse_infinite(run.result, rate)
        if run.result.totals.devices == most:
            began, ended = untrained(one), {kind: _ended(run.result, kind) for kind in _KINDS}
            for kind, score in ended.items():
                if score.loss > _FAR * began.loss and score.no_better(began):
                    limit = f"{_FAR:g} times {began.loss:.4g}, as before training"
                    raise _diverged(f"loss ({kind})", rate, value=f"{score.loss:.4g}", limit=limit)
            learnt = learnt or not all(score.no_better(began) for score in ended.values())
    if not learnt:
        said.append(
            "Nothing was learnt: alone, federated and pooled, models are no better than untrained ones."
            f" Either there is nothing to be learnt, or --learning-rate {rate:g} is not the right one."
        )
    return said


def untrained(scenario: Scenario) -> Score:
    """What the model is worth before training."""
    s = scenario.settings
    devices = s.devices[0].count or 1
    examples = examples_of(s.data, devices, s.seed, scenario.folder)
    bundle = bundle_of(s.model, examples, seed=s.seed, proximal=False, folder=scenario.folder)
    names = [str(i) for i in range(devices)]
    models = Models(bundle, bundle.initial, {}, {}, None)
    rows = scored(Trainer(bundle), models, names, dict.fromkeys(names, ("", 0)), examples.own, threads=1)
    losses = [r.federated_loss for r in rows if r.federated_loss is not None]
    accuracies = [r.federated_accuracy for r in rows if r.federated_accuracy is not None]
    return Score(_mean(losses), _mean(accuracies) if accuracies else None)


def _failures(results: Sequence[Result], rate: float) -> list[str]:
    """What is to be said of trainings that failed: their models stayed as they were."""
    by_error: Counter[str] = Counter()
    for result in results:
        by_error.update(result.totals.failures)
    work = sum(d.trained for result in results for d in result.devices)
    # A baseline's rows count from the beginning.
    ends = [row for result in results for row in {row.kind: row for row in result.baselines}.values()]
    told = f": {by_error.most_common(1)[0][0]}" if by_error else ""
    said = []
    for failed, of, words in (
        (by_error.total(), work, f"the fleet's trainings came to nothing{told}"),
        (
            sum(row.failed for row in ends),
            sum(row.devices * row.round for row in ends),
            "the trainings without it came to nothing",
        ),
    ):
        if failed > _MANY * of:
            raise _diverged(f"{failed} of {of} of {words}", rate)
        if failed:
            said.append(f"{failed} of {of} of {words}.")
    return said


def _refuse_infinite(result: Result, rate: float) -> None:
    losses = [b.loss for b in result.baselines] + [r.loss for r in result.rounds]
    losses += [getattr(row, f"{kind}_loss") for row in result.scores for kind in _KINDS]
    # In a file an infinite loss is none.
    broken = [loss for loss in losses if loss is None or not isfinite(loss)]
    if broken:
        raise _diverged("loss", rate, value=str(broken[0] or "none"), limit="finite")


def _ended(result: Result, kind: str) -> Score:
    accuracies = [getattr(row, f"{kind}_accuracy") for row in result.scores]
    known = all(accuracy is not None for accuracy in accuracies)
    return Score(
        _mean([getattr(row, f"{kind}_loss") for row in result.scores]), _mean(accuracies) if known else None
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
