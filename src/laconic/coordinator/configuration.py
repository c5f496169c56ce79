"""The coordinator's configuration: its tables, and the campaigns that they describe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from laconic.compression import CodecSettings
from laconic.compression.echo import MOST_MEMORY, EchoSettings
from laconic.compression.gate import GateSettings
from laconic.config import BrokerSection, Section, SecuritySection, read_secret, within
from laconic.coordinator.aggregation import echo
from laconic.coordinator.aggregation.optimizers import ServerSettings
from laconic.coordinator.aggregation.settings import AggregationSettings, checked, named
from laconic.coordinator.budgets import Budget, allowances_of
from laconic.coordinator.campaign import Campaign, HistorySettings
from laconic.coordinator.round_settings import RoundsSection, ScheduleSection, lateness_of, plan_of
from laconic.coordinator.schedule import schedule_of
from laconic.coordinator.selection import SelectionSection, selection_of
from laconic.coordinator.verdict import ModelSettings
from laconic.errors import ConfigError, LaconicError
from laconic.protocol.chunks import DEFAULT_CHUNK_BYTES, MAX_CHUNK_BYTES, MIN_CHUNK_BYTES
from laconic.protocol.messages import Eligibility, Feedback, Gate, Training
from laconic.protocol.topics import TOPIC_LIMIT_BYTES, check_name
from laconic.transport.mqtt import address_of
from laconic.transport.process import LEVELS


class TrainingSection(Section, frozen=True):
    """`[training]`: what a device does in a round."""

    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 0.1
    learning_rate_decay: float = 1.0
    proximal_mu: float = 0.0
    keep_optimizer: bool = False


class AggregationSection(Section, frozen=True):
    """`[aggregation]`: how a round's updates become one, and which are refused."""

    rule: str = "mean"
    mixing: bool = False
    malicious_share: float = 0.2
    bucket_size: int = 1
    norm_limit: float = 0.0
    norm_multiple: float = 1.0
    memory_mb: int = 512
    absurd_multiple: float = 100.0


class ServerSection(Section, frozen=True):
    """`[server]`: how the model steps along the round's update."""

    optimizer: str = "fedavg"
    learning_rate: float = 1.0
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3


class CompressionSection(Section, frozen=True):
    """`[compression]`: presets, or tables of settings, for updates (up) and models (down)."""

    up: str | dict[str, Any] = "small"
    down: str | dict[str, Any] = "small"
    chunk_bytes: int = DEFAULT_CHUNK_BYTES


class GateSection(Section, frozen=True):
    """`[gate]`: when a device stays silent."""

    mode: str = "running"
    threshold: float = 0.0
    force_after: int = 4
    target_rate: float = 0.0
    bytes_per_day: float = 0.0
    loss_factor: float = 0.0
    echo_gain: float = 0.0
    echo_memory: float = 0.995


class FeedbackSection(Section, frozen=True):
    """`[feedback]`: what a device keeps of an old residual."""

    cap: float = 30.0
    decay: float = 0.97
    stale_after: int = 50


class ModelsSection(Section, frozen=True):
    """`[models]`: when a version is worse than it may be, and how new ones are tried."""

    margin_loss: float | None = None
    margin_accuracy: float | None = None
    compare_with: str = "best"
    window: int = 8
    patience: int = 1
    min_reports: int = 5
    significance: float = 0.05
    canary_share: float = 0.0
    canary_reports: int = 5
    canary_deadline_s: float = 600.0


class EligibilitySection(Section, frozen=True):
    """`[eligibility]`: what a device must have to be asked."""

    min_charge: float = 0.0
    only_charging: bool = False
    only_unmetered: bool = False


class HistorySection(Section, frozen=True):
    """`[history]`: what is kept of rounds that are over."""

    rounds: int = 1000
    names: int = 1000


class ControlSection(Section, frozen=True):
    """`[control]`: the socket that `laconic fleet`, `round`, `model` and `campaign` talk to."""

    socket: str | None = None
    """None: beside the store, with its name and `.sock`."""


class MetricsSection(Section, frozen=True):
    """`[metrics]`: where Prometheus reads."""

    port: int = 0
    address: str = "127.0.0.1"


class LogSection(Section, frozen=True):
    """`[log]`: what is said of what happens, and how."""

    level: str = "debug"
    json: bool = False


class CampaignSection(Section, frozen=True):
    """What a campaign is: a `[[campaign]]` table, or, with a single one, the top of the file."""

    bundle: str | None = None
    cohort: str = "default"
    held_out: str | None = None
    """`.npz` with `x` and `y` on which every version is evaluated."""
    keep_versions: int = 16
    rounds: RoundsSection = RoundsSection()
    schedule: ScheduleSection = ScheduleSection()
    selection: SelectionSection = SelectionSection()
    training: TrainingSection = TrainingSection()
    aggregation: AggregationSection = AggregationSection()
    server: ServerSection = ServerSection()
    models: ModelsSection = ModelsSection()
    compression: CompressionSection = CompressionSection()
    gate: GateSection = GateSection()
    feedback: FeedbackSection = FeedbackSection()
    eligibility: EligibilitySection = EligibilitySection()
    budget: Budget = Budget()
    history: HistorySection = HistorySection()


class CoordinatorConfig(CampaignSection, frozen=True):
    """A coordinator's configuration file."""

    fleet: str = "default"
    store: str = "coordinator.db"
    max_devices: int = 100_000
    broker: BrokerSection = BrokerSection()
    security: SecuritySection = SecuritySection()
    control: ControlSection = ControlSection()
    metrics: MetricsSection = MetricsSection()
    log: LogSection = LogSection()
    campaign: tuple[CampaignSection, ...] = ()
    """Several campaigns, each with a cohort of its own; none of their keys may then stand at the top."""


def control_path(config: CoordinatorConfig, folder: Path) -> Path:
    """Where the control socket is."""
    return (folder / (config.control.socket or f"{config.store}.sock")).absolute()


def sections_of(config: CoordinatorConfig) -> tuple[CampaignSection, ...]:
    """The tables of the campaigns: those in `[[campaign]]`, or the top of the file.

    Raises `ConfigError` for a file with both, and for two campaigns of one cohort.
    """
    if not config.campaign:
        return (config,)
    for f in msgspec.structs.fields(CampaignSection):
        if getattr(config, f.name) != f.default:
            raise ConfigError(
                f"{f.name} at the top of the file",
                value="a value beside [[campaign]]",
                limit="keys of a campaign in one place",
                remedy="move it into each [[campaign]] table",
            )
    cohorts = [section.cohort for section in config.campaign]
    if len(set(cohorts)) < len(cohorts):
        raise ConfigError(
            "cohorts of the campaigns",
            value=cohorts,
            limit="each once",
            remedy="give each [[campaign]] a cohort of its own",
        )
    return config.campaign


@contextmanager
def campaign_named(config: CoordinatorConfig, cohort: str) -> Iterator[None]:
    """Errors in this context say which campaign they are about, if there are several."""
    try:
        yield
    except LaconicError as e:
        if len(config.campaign) < 2:
            raise
        e.thing = f'campaign "{cohort}": {e.thing}'
        e.args = (f'campaign "{cohort}": {e}',)
        raise


def campaigns_of(config: CoordinatorConfig, folder: Path) -> list[tuple[CampaignSection, Campaign]]:
    """Every campaign with its table. Raises `ConfigError` that names the campaign and the key."""
    found = []
    for section in sections_of(config):
        with campaign_named(config, section.cohort):
            found.append((section, campaign_of(config, folder, section)))
    return found


def campaign_of(
    coordinator: CoordinatorConfig, folder: Path, section: CampaignSection | None = None
) -> Campaign:
    """The campaign that `section` describes, or the top of the file.

    Raises `ConfigError` for values that cannot be.
    """
    config = coordinator if section is None else section
    if not config.bundle:
        raise ConfigError(
            "bundle", value="none", limit="the file that `laconic prepare` wrote", remedy="name it in bundle"
        )
    r, t, c, g, e = config.rounds, config.training, config.compression, config.gate, config.eligibility
    f, s = config.feedback, config.schedule
    address = address_of(coordinator.broker, folder)
    most_chunk = min(MAX_CHUNK_BYTES, address.max_packet_bytes - TOPIC_LIMIT_BYTES)
    within("keep_versions", config.keep_versions, 1, 10**9)
    within("max_devices", coordinator.max_devices, 1, 10**9)
    within("metrics.port", coordinator.metrics.port, 0, 65_535)
    if coordinator.log.level not in LEVELS:
        raise ConfigError("log.level", value=coordinator.log.level, limit=", ".join(LEVELS))
    allowances_of(config.budget)
    within("rounds.share", r.share, 0.0, 1.0)
    within("schedule.until_accuracy", config.schedule.until_accuracy or 0.0, 0.0, 1.0)
    if config.schedule.until_accuracy is not None and config.held_out is None:
        raise ConfigError(
            "schedule.until_accuracy",
            value=config.schedule.until_accuracy,
            limit="none without held_out",
            remedy="name held-out data, on which accuracy is measured",
        )
    within("training.learning_rate", t.learning_rate, 1e-12, 1e3)
    within("training.learning_rate_decay", t.learning_rate_decay, 1e-3, 1.0)
    within("training.proximal_mu", t.proximal_mu, 0.0, 1e6)
    within("training.epochs", t.epochs, 1, 10_000)
    within("training.batch_size", t.batch_size, 1, 65_536)
    within("compression.chunk_bytes", c.chunk_bytes, MIN_CHUNK_BYTES, most_chunk)
    within("eligibility.min_charge", e.min_charge, 0.0, 1.0)
    within("gate.bytes_per_day", g.bytes_per_day, 0.0, 1e15)
    within("gate.threshold", g.threshold, 0.0, 1e15)
    within("gate.loss_factor", g.loss_factor, 0.0, 1e15)
    within("gate.echo_gain", g.echo_gain, 0.0, 1.0)
    within("gate.echo_memory", g.echo_memory, 0.0, MOST_MEMORY)
    within("feedback.cap", f.cap, 0.0, 1e15)
    within("feedback.decay", f.decay, 0.0, 1.0)
    within("feedback.stale_after", f.stale_after, 0, 2**48)
    gate = Gate(g.mode, g.threshold, g.force_after, g.target_rate, g.bytes_per_day, g.loss_factor)
    GateSettings(
        g.mode,  # type: ignore[arg-type]
        g.threshold,
        g.force_after,
        target_rate=g.target_rate,
        bytes_per_day=g.bytes_per_day,
        loss_factor=g.loss_factor,
    )
    aggregation = _aggregation(config)
    plan = plan_of(r)
    chosen_by = selection_of(
        config.selection, everybody=plan.asks_all or (not plan.target_reports and r.share >= 1.0)
    )
    key = coordinator.security.fleet_key_file
    return Campaign(
        fleet=check_name(coordinator.fleet, "fleet"),
        cohort=check_name(config.cohort, "cohort"),
        plan=plan,
        lateness=lateness_of(r),
        schedule=schedule_of(start=s.start, end=s.end, days=s.days, time_zone=s.time_zone, paused=s.paused),
        until_accuracy=s.until_accuracy,
        training=Training(t.epochs, t.batch_size, t.learning_rate, t.proximal_mu, t.keep_optimizer),
        codec=CodecSettings.from_builtins(c.up),
        delta_codec=CodecSettings.from_builtins(c.down),
        gate=gate,
        echo=echo.checked(EchoSettings(g.echo_gain, g.echo_memory), aggregation),
        feedback=Feedback(f.cap, f.decay, f.stale_after),
        eligibility=Eligibility(e.min_charge, e.only_charging, e.only_unmetered),
        budget=config.budget,
        share=r.share,
        targeted=r.targeted or chosen_by.by_name,
        selection=chosen_by,
        learning_rate_decay=t.learning_rate_decay,
        aggregation=aggregation,
        server=ServerSettings(**msgspec.structs.asdict(config.server)),
        models=ModelSettings(**msgspec.structs.asdict(config.models)),
        history=HistorySettings(config.history.rounds, config.history.names),
        key=None if key is None else read_secret(folder / key, "fleet key file"),
        chunk_bytes=c.chunk_bytes,
        keep_versions=config.keep_versions,
    )


def _aggregation(config: CampaignSection) -> AggregationSettings:
    a = config.aggregation
    within("aggregation.memory_mb", a.memory_mb, 1, 2**20)
    rule = named(a.rule)
    settings = replace(
        rule,
        mixing=rule.mixing or a.mixing,
        malicious_share=a.malicious_share,
        bucket_size=a.bucket_size,
        norm_limit=a.norm_limit,
        norm_multiple=a.norm_multiple,
        memory_bytes=a.memory_mb * 2**20,
        absurd_multiple=a.absurd_multiple,
    )
    # Whether a model's updates fit is known when there is a model.
    return checked(settings, size=1, min_reports=config.rounds.min_reports)
