"""The campaign of a scenario: its coordinator's settings, and what is trained and scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from laconic.coordinator import scaffold
from laconic.coordinator.advance import Evaluate, Score
from laconic.coordinator.campaign import Campaign, Subject
from laconic.coordinator.configuration import CampaignSection, CoordinatorConfig, campaign_of
from laconic.coordinator.verdict import check_judge
from laconic.device_sim.learning.workshop import Workshop
from laconic.device_sim.scenario.examples import Part
from laconic.device_sim.scenario.scenario import Scenario
from laconic.device_sim.scenario.settings import ScenarioSettings
from laconic.errors import ConfigError
from laconic.schema import Vector

_LEAST_BATCH: Final = 32
_SCORED_BYTES: Final = 1 << 22
"""Of held-out examples in a batch: a tiny model's take less time than their calls otherwise."""


def campaign_in(scenario: Scenario) -> Campaign:
    """The scenario's campaign. Raises `ConfigError` that names the key below `coordinator`."""
    s = scenario.settings
    config = CoordinatorConfig(**_fields(_campaign_section(s)), fleet=f"sim-{s.seed}")
    try:
        return campaign_of(config, scenario.folder)
    except ConfigError as e:
        raise ConfigError(
            f"{scenario.where}: coordinator.{e.thing}", value=e.value, limit=e.limit, remedy=e.remedy
        ) from e


def subject_of(campaign: Campaign, workshop: Workshop, held_out: Callable[[], Part]) -> Subject:
    """What is trained; `held_out` gives the examples that versions are scored on at the moment.

    Raises `ConfigError` for settings that the bundle was not prepared for.
    """
    trainer = workshop.trainer
    bundle = trainer.bundle
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
            found = trainer.evaluate(
                weights, today.x, today.y, batch_size=batch_size, executor=workshop.parts
            )
            return Score(found.loss, found.accuracy)

        return evaluate

    return Subject(bundle.hash[:16], bundle.schema, bundle.initial, scorer(), today=scorer)


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
