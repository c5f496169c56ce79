"""Runs a scenario: the production coordinator, devices and learner in a world."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Final, NamedTuple

import msgspec

from laconic import __version__
from laconic.coordinator.campaign import Campaign
from laconic.device_sim.cluster import Engine, workshop_of
from laconic.device_sim.heap import kept_memory
from laconic.device_sim.learning.workshop import Workshop
from laconic.device_sim.scenario.baselines import Practice
from laconic.device_sim.scenario.campaigning import campaign_in
from laconic.device_sim.scenario.examples import Examples, examples_of
from laconic.device_sim.scenario.model import bundle_of
from laconic.device_sim.scenario.recorder import Recorder, federated
from laconic.device_sim.scenario.results import Result
from laconic.device_sim.scenario.scenario import Scenario
from laconic.device_sim.scenario.scores import Baselines, Models, baselines, scored
from laconic.device_sim.scenario.settings import ScenarioSettings, counts
from laconic.device_sim.scenario.staging import Stage
from laconic.device_sim.signals import HOUR_S
from laconic.errors import ConfigError

_LOOK_EVENTS: Final = 256


class Progress(NamedTuple):
    """How far a run has come."""

    rounds: int
    of_rounds: int
    hours: float
    of_hours: float
    accuracy: float | None
    of_accuracy: float | None
    baselines: int | None = None
    """Rounds of the baselines that are done; None while the federation runs."""


__all__ = ["Models", "Progress", "Watch", "play", "run"]

Watch = Callable[[Progress], None]


def run(
    scenario: Scenario,
    *,
    seed: int | None = None,
    threads: int = 1,
    engine: Engine = "local",
    watch: Watch | None = None,
) -> Result:
    """Run a scenario to its end; the same gives the same result, whatever `threads` and `engine` are.

    `threads`: computations that may go on at once. `engine`: `local`, or `ray` or a `Cluster` for devices
    that train on many machines. Raises `ConfigError`, `ModelError` or `DataError` for what cannot be used,
    `ClusterError` when workers are lost.
    """
    return play(scenario, seed=seed, threads=threads, engine=engine, watch=watch)[0]


def play(
    scenario: Scenario,
    *,
    seed: int | None = None,
    threads: int = 1,
    engine: Engine = "local",
    watch: Watch | None = None,
) -> tuple[Result, Models]:
    """As `run`, with the models that came of it."""
    if threads < 1:
        raise ConfigError("threads", value=threads, limit="1 or more")
    if seed is not None:
        scenario = scenario.replaced({"seed": seed})
    with kept_memory():
        return _through(scenario, threads, engine, watch)


def _through(scenario: Scenario, threads: int, engine: Engine, watch: Watch | None) -> tuple[Result, Models]:
    s = scenario.settings
    campaign = campaign_in(scenario)
    with ThreadPoolExecutor(1) as beside:
        if s.model.bundle is None:
            # What makes bundles takes half a second to load; files are unpacked without the interpreter.
            beside.submit(import_module, "laconic.training")
        examples = examples_of(s.data, sum(counts(s)), s.seed, scenario.folder)
    proximal = campaign.training.proximal_mu > 0
    bundle = bundle_of(s.model, examples, seed=s.seed, proximal=proximal, folder=scenario.folder)
    with workshop_of(bundle, threads=threads, engine=engine) as workshop:
        stage = Stage(scenario, campaign, examples, workshop)
        told = _Told(watch, s, campaign, stage.recorder)
        ended = _played(stage, s.end.hours, told)
        found = _baselines(stage, s, campaign, examples, workshop, threads, told)
        recorder, drift, now = stage.recorder, stage.drift, stage.world.now
        weights = federated(stage.world) if recorder.rounds else bundle.initial
        models = Models(bundle, weights, stage.private(), found.alone, found.pooled)
        own = [drift.seen(part, drift.step(now)) for part in examples.own]
        scores = scored(workshop.trainer, models, stage.names, stage.kinds, own, threads=threads)
    devices = recorder.devices()
    totals = recorder.totals(
        devices,
        ended=ended,
        parameters=bundle.schema.size,
        held_out=len(examples.held_out.y),
        way=workshop.way,
    )
    result = Result(
        digest=scenario.digest(),
        version=__version__,
        # Through JSON: what is read from the file is the same, lists and all.
        settings=msgspec.json.decode(msgspec.json.encode(s)),
        totals=totals,
        rounds=recorder.rounds,
        classes=recorder.classes,
        devices=devices,
        steps=recorder.steps,
        baselines=found.rows,
        losses=[*(stage.losses.rows if stage.losses else ()), *found.losses],
        scores=scores,
    )
    return result, models


class _Told:
    """Tells whoever watches how far a run has come."""

    def __init__(
        self, watch: Watch | None, s: ScenarioSettings, campaign: Campaign, recorder: Recorder
    ) -> None:
        self._watch, self._s, self._campaign, self._recorder = watch, s, campaign, recorder

    def __call__(self, baselines: int | None = None) -> None:
        if self._watch is None:
            return
        recorder = self._recorder
        last = recorder.rounds[-1] if recorder.rounds else None
        self._watch(
            Progress(
                recorder.held,
                self._campaign.plan.rounds,
                recorder.hours,
                self._s.end.hours,
                last.accuracy if last else None,
                self._campaign.until_accuracy,
                baselines,
            )
        )


def _played(stage: Stage, hours: float, told: _Told) -> str:
    """Let the world run to the scenario's end; why it ended."""
    world, recorder = stage.world, stage.recorder
    looks = 0

    def stop() -> bool:
        nonlocal looks
        looks += 1
        # Whatever is said is looked at before anything else happens: bodies are still at that moment.
        said = bool(world.notes)
        new = recorder.look() if said else False
        if new or looks % _LOOK_EVENTS == 0:
            told()
        # A last round in which everybody was silent makes no version.
        return said and stage.finished

    until_s = world.now + hours * HOUR_S
    world.run(until_s, stop=stop)
    recorder.look()
    if stage.finished:
        return "finished"
    # Nothing more may have been going to happen: batteries leak all the same.
    world.now = until_s
    recorder.look()
    return "hours"


def _baselines(
    stage: Stage,
    s: ScenarioSettings,
    campaign: Campaign,
    examples: Examples,
    workshop: Workshop,
    threads: int,
    told: _Told,
) -> Baselines:
    steps = stage.steps()
    return baselines(
        s.baselines,
        workshop,
        stage.names,
        examples,
        _practice(campaign, stage.recorder.held),
        seen=lambda part, number: stage.drift.seen(part, steps[number]),
        seed=s.seed,
        threads=threads,
        with_losses=s.record.losses,
        watch=told,
    )


def _practice(campaign: Campaign, rounds: int) -> Practice:
    t = campaign.training
    return Practice(
        rounds, t.epochs, t.batch_size, t.learning_rate, campaign.learning_rate_decay, t.keep_optimizer
    )
