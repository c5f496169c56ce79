"""Runs a scenario: the production coordinator, devices and learner in a world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, Final, NamedTuple

import msgspec

from laconic import __version__
from laconic.coordinator import scaffold
from laconic.coordinator.advance import Evaluate, Score
from laconic.coordinator.campaign import Campaign, Subject
from laconic.coordinator.configuration import CampaignSection, CoordinatorConfig, campaign_of
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.verdict import check_judge
from laconic.device_sim.cluster import Engine, workshop_of
from laconic.device_sim.scenario.baselines import Practice
from laconic.device_sim.scenario.drift import Drift, Today
from laconic.device_sim.scenario.examples import Part, examples_of
from laconic.device_sim.scenario.fleet import Device, devices_of
from laconic.device_sim.scenario.losses import Losses
from laconic.device_sim.scenario.model import bundle_of
from laconic.device_sim.scenario.recorder import COORDINATOR, Recorder, federated
from laconic.device_sim.scenario.results import Result
from laconic.device_sim.scenario.scenario import Scenario
from laconic.device_sim.scenario.scores import Models, baselines, scored
from laconic.device_sim.scenario.settings import ScenarioSettings, counts
from laconic.device_sim.sensors import SimSensors
from laconic.device_sim.signals import HOUR_S
from laconic.device_sim.world import Connection, World
from laconic.edge_sdk.engine import DeviceEngine
from laconic.edge_sdk.learner import Learner
from laconic.edge_sdk.records import restore
from laconic.errors import ConfigError
from laconic.node import Node
from laconic.runtime import Bundle, Trainer
from laconic.schema import Vector

_BACKBONE: Final = Connection(0.001, 1e8, 1e8)
"""The coordinator's own link."""
_LOOK_EVENTS: Final = 256
_LEAST_BATCH: Final = 32
_SCORED_BYTES: Final = 1 << 22
"""Of held-out examples in a batch: a tiny model's take less time than their calls otherwise."""


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
    s = scenario.settings
    section = _campaign_section(s)
    try:
        campaign = campaign_of(CoordinatorConfig(**_fields(section), fleet=f"sim-{s.seed}"), scenario.folder)
    except ConfigError as e:
        raise ConfigError(
            f"{scenario.where}: coordinator.{e.thing}", value=e.value, limit=e.limit, remedy=e.remedy
        ) from e
    with ThreadPoolExecutor(1) as beside:
        if s.model.bundle is None:
            # What makes bundles takes half a second to load; files are unpacked without the interpreter.
            beside.submit(import_module, "laconic.training")
        examples = examples_of(s.data, sum(counts(s)), s.seed, scenario.folder)
    bundle = bundle_of(
        s.model,
        examples,
        seed=s.seed,
        proximal=campaign.training.proximal_mu > 0,
        folder=scenario.folder,
    )
    with workshop_of(bundle, threads=threads, engine=engine) as workshop:
        fleet = list(devices_of(s, scenario.folder))
        world = World(seed=s.seed, tracing=False, executor=workshop.executor)
        world.now = s.start_hour * HOUR_S
        trainer = workshop.trainer
        drift = Drift(s.data.drift, examples, world.now)
        today = Today(examples.held_out, drift)
        subject = _subject(campaign, bundle, trainer, lambda: today.at(world.now))
        world.add(
            COORDINATOR,
            lambda: CoordinatorEngine([(campaign, subject)]),
            connection=_BACKBONE,
            start_s=world.now,
        )
        names = [device.name for device in fleet]
        losses = None
        if s.record.losses:
            losses = Losses(trainer, examples.devices, lambda part: drift.seen(part, drift.step(world.now)))
        kinds = {}
        for device, part in zip(fleet, examples.devices, strict=True):
            learner = drift.learner(trainer, part, lambda: world.now)
            _add(world, device, losses.learner(device.name, learner) if losses else learner)
            kinds[device.name] = (device.kind, len(part.y))
        recorder = Recorder(world, kinds, losses)
        ended = _played(world, recorder, s, campaign, watch)
        recorder.look()
        steps = _steps(drift, recorder, s.start_hour)
        found = baselines(
            s.baselines,
            workshop,
            names,
            examples,
            _practice(campaign, recorder.rounds[-1].round if recorder.rounds else 0),
            seen=lambda part, number: drift.seen(part, steps[number]),
            seed=s.seed,
            threads=threads,
            with_losses=s.record.losses,
            watch=_watched(watch, campaign, recorder, s),
        )
        models = Models(
            bundle,
            federated(world) if recorder.rounds else bundle.initial,
            _private(world, names, bundle),
            found.alone,
            found.pooled,
        )
        own = [drift.seen(part, drift.step(world.now)) for part in examples.own]
        scores = scored(trainer, models, names, kinds, own, threads=threads)
    devices = recorder.devices()
    result = Result(
        digest=scenario.digest(),
        version=__version__,
        # Through JSON: what is read from the file is the same, lists and all.
        settings=msgspec.json.decode(msgspec.json.encode(s)),
        totals=recorder.totals(
            devices,
            ended=ended,
            parameters=bundle.schema.size,
            held_out=len(examples.held_out.y),
            way=workshop.way,
        ),
        rounds=recorder.rounds,
        classes=recorder.classes,
        devices=devices,
        steps=recorder.steps,
        baselines=found.rows,
        losses=[*(losses.rows if losses else ()), *found.losses],
        scores=scores,
    )
    return result, models


def _private(world: World, names: Sequence[str], bundle: Bundle) -> dict[str, bytes]:
    """What devices' learners have left in their stores, whether the devices run just now or not."""
    stores = {name: store for name in names if (store := world.host(name).store).get("private") is not None}
    return {
        name: restore(store, bundle.schema, bundle=bundle.hash[:16], initial=bundle.initial).private
        for name, store in stores.items()
    }


def _steps(drift: Drift, recorder: Recorder, start_hour: float) -> list[int]:
    """In which step of the drift each round was when its version was made, from round 0."""
    at = {r.round: drift.step((start_hour + r.hours) * HOUR_S) for r in recorder.rounds}
    found = [drift.step(start_hour * HOUR_S)]
    for number in range(1, max(at, default=0) + 1):
        found.append(at.get(number, found[-1]))
    return found


def _practice(campaign: Campaign, rounds: int) -> Practice:
    t = campaign.training
    return Practice(
        rounds, t.epochs, t.batch_size, t.learning_rate, campaign.learning_rate_decay, t.keep_optimizer
    )


def _progress(
    campaign: Campaign, recorder: Recorder, s: ScenarioSettings, baselines: int | None = None
) -> Progress:
    last = recorder.rounds[-1] if recorder.rounds else None
    return Progress(
        last.round if last else 0,
        campaign.plan.rounds,
        recorder.hours,
        s.end.hours,
        last.accuracy if last else None,
        campaign.until_accuracy,
        baselines,
    )


def _watched(
    watch: Watch | None, campaign: Campaign, recorder: Recorder, s: ScenarioSettings
) -> Callable[[int], None]:
    if watch is None:
        return lambda number: None
    return lambda number: watch(_progress(campaign, recorder, s, number))


def _played(
    world: World, recorder: Recorder, s: ScenarioSettings, campaign: Campaign, watch: Watch | None
) -> str:
    """Let the world run to the scenario's end; why it ended."""
    looks = 0

    def finished() -> bool:
        node: Node | None = world.node(COORDINATOR)
        return isinstance(node, CoordinatorEngine) and node.finished

    def stop() -> bool:
        nonlocal looks
        looks += 1
        # Whatever is said is looked at before anything else happens: bodies are still at that moment.
        said = bool(world.notes)
        new = recorder.look() if said else False
        if watch is not None and (new or looks % _LOOK_EVENTS == 0):
            watch(_progress(campaign, recorder, s))
        # A last round in which everybody was silent makes no version.
        return said and finished()

    until_s = world.now + s.end.hours * HOUR_S
    world.run(until_s, stop=stop)
    recorder.look()
    if finished():
        return "finished"
    # Nothing more may have been going to happen: batteries leak all the same.
    world.now = until_s
    return "hours"


def _add(world: World, device: Device, learner: Learner) -> None:
    def make() -> DeviceEngine:
        return DeviceEngine(
            device.settings, learner, SimSensors(world.host(device.name), metered=device.metered)
        )

    world.add(
        device.name,
        make,
        connection=device.connection,
        speed=device.speed,
        start_s=device.start_s,
        body=device.body,
        presence=device.presence,
        failures=device.failures,
    )


def _campaign_section(s: ScenarioSettings) -> CampaignSection:
    """The scenario's coordinator, with its own end, and what stands elsewhere named as if it were files."""
    section = msgspec.structs.replace(s.coordinator, bundle="model", held_out="data")
    if s.end.rounds is not None:
        rounds = msgspec.structs.replace(section.rounds, rounds=s.end.rounds)
        section = msgspec.structs.replace(section, rounds=rounds)
    if s.end.accuracy is not None:
        schedule = msgspec.structs.replace(section.schedule, until_accuracy=s.end.accuracy)
        section = msgspec.structs.replace(section, schedule=schedule)
    return section


def _fields(section: CampaignSection) -> dict[str, Any]:
    return {f: getattr(section, f) for f in section.__struct_fields__}


def _subject(campaign: Campaign, bundle: Bundle, trainer: Trainer, held_out: Callable[[], Part]) -> Subject:
    """What is trained. Raises `ConfigError` for settings that the bundle was not prepared for."""
    if campaign.training.proximal_mu and not bundle.manifest.proximal:
        raise ConfigError(
            "coordinator.training.proximal_mu",
            value=campaign.training.proximal_mu,
            limit=0,
            remedy="prepare the bundle with --proximal",
        )
    scaffold.checked(
        bundle.schema, rule=campaign.aggregation, lateness=campaign.lateness, echo_gain=campaign.echo.gain
    )
    check_judge(campaign.models, held_out=True, local=bundle.local_schema.size)

    def scorer() -> Evaluate:
        today = held_out()
        batch_size = max(_LEAST_BATCH, _SCORED_BYTES // max(1, today.x[:1].nbytes))

        def evaluate(weights: Vector) -> Score:
            found = trainer.evaluate(weights, today.x, today.y, batch_size=batch_size)
            return Score(found.loss, found.accuracy)

        return evaluate

    return Subject(bundle.hash[:16], bundle.schema, bundle.initial, scorer(), today=scorer)
