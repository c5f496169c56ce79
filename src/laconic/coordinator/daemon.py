"""The coordinator as a process: its configuration, its held-out data, its engine on an MQTT link."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from laconic.config import load, read_file
from laconic.coordinator.advance import Evaluate, Score
from laconic.coordinator.campaign import Campaign, Subject
from laconic.coordinator.configuration import CampaignSection, CoordinatorConfig, campaign_named, campaigns_of
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.migrations import upgrade
from laconic.errors import ConfigError
from laconic.node import Note
from laconic.runtime import Bundle, Trainer, read_arrays
from laconic.schema import Vector
from laconic.storage import SqliteStore
from laconic.transport.driver import Driver
from laconic.transport.mqtt import MqttLink, address_of
from laconic.transport.process import Print, drive


async def run(path: Path, environment: Mapping[str, str], show: Print) -> None:
    """Run the coordinator that `path` configures until a signal, or until its rounds are over.

    Raises `ConfigError`, `ModelError`, `StorageError` for what cannot be used.
    """
    config, folder = load(CoordinatorConfig, path, environment, who="coordinator"), path.resolve().parent
    campaigns = []
    for section, campaign in campaigns_of(config, folder):
        with campaign_named(config, section.cohort):
            campaigns.append((campaign, subject_of(campaign, section, folder)))
    engine = CoordinatorEngine(campaigns, max_devices=config.max_devices)
    store = SqliteStore(folder / config.store)
    upgrade(store, campaigns[0][0].cohort)
    who = f"coordinator-{config.fleet}"
    link = MqttLink(address_of(config.broker, folder), who, persistent=True)
    driver = Driver(engine, link, store, observe=lambda note, now: show(who, note, now))
    leaves = all(section.rounds.exit_when_finished for section, _ in campaigns_of(config, folder))

    async def finished() -> None:
        while not (leaves and engine.finished):
            await asyncio.sleep(0.05)

    try:
        await drive([driver], finished)
    finally:
        store.close()
        wire = link.wire_bytes()
        fields = {"bytes_up": wire.up, "bytes_down": wire.down, "bytes_measured": wire.measured}
        show(who, Note("stopped", fields), time.time())


def subject_of(campaign: Campaign, section: CampaignSection, folder: Path) -> Subject:
    """What a campaign trains. Raises `ConfigError` or `ModelError` for files that cannot be used."""
    assert section.bundle is not None
    bundle = Bundle.read(read_file(folder / section.bundle, "bundle"))
    if campaign.training.proximal_mu and not bundle.manifest.proximal:
        raise ConfigError(
            "training.proximal_mu",
            value=campaign.training.proximal_mu,
            limit=0,
            remedy="prepare the bundle with --proximal",
        )
    return Subject(bundle.hash[:16], bundle.schema, bundle.initial, _evaluator(bundle, section, folder))


def _evaluator(bundle: Bundle, section: CampaignSection, folder: Path) -> Evaluate:
    if section.held_out is None:
        return lambda weights: None
    x, y = read_arrays(folder / section.held_out)
    trainer = Trainer(bundle)

    def evaluate(weights: Vector) -> Score:
        metrics = trainer.evaluate(weights, x, y)
        return Score(metrics.loss, metrics.accuracy)

    return evaluate
