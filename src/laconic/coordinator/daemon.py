"""The coordinator as a process: its engine on an MQTT link, and everything around it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from laconic.compression import native
from laconic.config import load, read_file
from laconic.coordinator import metrics, orders, scaffold
from laconic.coordinator.advance import Evaluate, Score
from laconic.coordinator.campaign import Campaign, Subject
from laconic.coordinator.configuration import (
    CampaignSection,
    CoordinatorConfig,
    campaign_named,
    campaigns_of,
    control_path,
)
from laconic.coordinator.control_socket import ControlServer
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.metrics_server import MetricsServer
from laconic.coordinator.migrations import upgrade
from laconic.coordinator.status import Live, Request, answer, chosen
from laconic.coordinator.verdict import check_judge
from laconic.errors import ConfigError, ModelError, RemoteProtocolError, WireError
from laconic.node import Note
from laconic.runtime import Bundle, Trainer, read_arrays
from laconic.schema import Vector
from laconic.storage import SqliteStore
from laconic.transport.driver import Driver
from laconic.transport.mqtt import MqttLink, address_of
from laconic.transport.process import Print, at_least, drive, print_json
from laconic.transport.supervision import Supervisor

_LOOK_S: Final = 0.05


@dataclass(frozen=True)
class Desk:
    """Takes what comes over the control socket to the engine."""

    engine: CoordinatorEngine
    driver: Driver

    def act(self, request: Request) -> dict[str, object]:
        """The answer to a request. Raises `LaconicError` for what cannot be done."""
        courses = self.engine.courses
        match request.ask:
            case "pause":
                return self._order(orders.Pause(chosen(request.campaign, list(courses))))
            case "resume":
                return self._order(orders.Resume(chosen(request.campaign, list(courses))))
            case "rollback":
                campaign = chosen(request.campaign, list(courses))
                return self._order(orders.Rollback(campaign, _version(request)))
            case "pin":
                campaign = chosen(request.campaign, list(courses))
                return self._order(orders.Pin(campaign, _version(request), request.pinned))
            case "finish":
                return self._order(orders.Drain())
            case _:
                return answer(request, Live(courses), time.time())

    def _order(self, order: orders.Order) -> dict[str, object]:
        self.driver.order(order)
        return answer(Request("status"), Live(self.engine.courses), time.time())


def _version(request: Request) -> int:
    if request.number is None:
        raise RemoteProtocolError("number of the version", value="none", limit="0 or more")
    return request.number


async def run(path: Path, environment: Mapping[str, str], show: Print) -> None:
    """Run the coordinator that `path` configures until a signal, or until its rounds are over.

    Raises `ConfigError`, `ModelError`, `StorageError`, `BrokerRefused` for what cannot be used.
    """
    config, folder = load(CoordinatorConfig, path, environment, who="coordinator"), path.resolve().parent
    show = at_least(config.log.level, print_json if config.log.json else show)
    supervisor = Supervisor.of(environment)
    # Where they are asked for: no device waits for them to be loaded.
    native.ready(0)
    sections = campaigns_of(config, folder)
    campaigns = []
    for section, campaign in sections:
        with campaign_named(config, section.cohort):
            campaigns.append((campaign, subject_of(campaign, section, folder)))
    engine = CoordinatorEngine(campaigns, max_devices=config.max_devices)
    who = f"coordinator-{config.fleet}"
    link = MqttLink(address_of(config.broker, folder), who, persistent=True)
    counters = metrics.Counters()

    def observe(note: Note, now: float) -> None:
        counters.noted(note)
        show(who, note, now)

    store = SqliteStore(folder / config.store)
    try:
        upgrade(store, campaigns[0][0].cohort)
        driver = Driver(engine, link, store, observe=observe, watch=counters.handled, must_be_let_in=True)

        def exposition() -> str:
            now = time.time()
            process = metrics.process_samples(
                link.wire_bytes(), connected=driver.connected, waiting=link.waiting(), store=store.path
            )
            return metrics.exposition(
                {**counters.samples(), **metrics.gauges(engine.courses, now), **process}
            )

        control = ControlServer(control_path(config, folder), Desk(engine, driver).act)
        scraped = MetricsServer(config.metrics.address, config.metrics.port, exposition)

        async def attended() -> None:
            """Everything around the engine, until there is nothing more to do."""
            await driver.started.wait()
            await control.open()
            if config.metrics.port:
                await scraped.open()
            supervisor.tell("READY=1", f"STATUS={len(campaigns)} campaigns")
            alive = asyncio.ensure_future(supervisor.keep_alive())
            try:
                leaves = all(section.rounds.exit_when_finished for section, _ in sections)
                while not (leaves and engine.finished) and not engine.drained:
                    await asyncio.sleep(_LOOK_S)
            finally:
                alive.cancel()

        try:
            await drive([driver.run()], attended, last=lambda: _farewell(driver, supervisor))
        finally:
            await control.close()
            await scraped.close()
    finally:
        store.close()
        wire = link.wire_bytes()
        fields = {"bytes_up": wire.up, "bytes_down": wire.down, "bytes_measured": wire.measured}
        show(who, Note("stopped", fields), time.time())


def _farewell(driver: Driver, supervisor: Supervisor) -> None:
    """Save what is only in memory: what devices told of themselves since the last write."""
    supervisor.tell("STOPPING=1")
    if driver.started.is_set():
        driver.order(orders.Keep())


def subject_of(campaign: Campaign, section: CampaignSection, folder: Path) -> Subject:
    """What a campaign trains. Raises `ConfigError` or `ModelError` for files that cannot be used."""
    assert section.bundle is not None
    file = folder / section.bundle
    try:
        bundle = Bundle.read(read_file(file, "bundle"))
    except WireError as e:
        raise ModelError(f"bundle {file} cannot be read ({e})", remedy="prepare it again") from e
    if campaign.training.proximal_mu and not bundle.manifest.proximal:
        raise ConfigError(
            "training.proximal_mu",
            value=campaign.training.proximal_mu,
            limit=0,
            remedy="prepare the bundle with --proximal",
        )
    scaffold.checked(
        bundle.schema, rule=campaign.aggregation, lateness=campaign.lateness, echo_gain=campaign.echo.gain
    )
    check_judge(campaign.models, held_out=section.held_out is not None, local=bundle.local_schema.size)
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
