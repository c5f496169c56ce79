"""A scenario's tables. The coordinator's and the limits of devices are those of the production files."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from laconic.config import Section
from laconic.coordinator.configuration import CampaignSection
from laconic.edge_sdk.policy import Limits
from laconic.errors import ConfigError

MOST_DEVICES: Final = 100_000
MOST_HOURS: Final = 24 * 366 * 10
BUILT_IN: Final = ("digits_cnn", "softmax", "mlp", "linear", "signal_cnn")
SOURCES: Final = ("digits", "npz", "mnist", "cmapss", "har")
FETCHED: Final = ("mnist", "cmapss", "har")
DRIFTS: Final = ("none", "turn", "sensor", "classes")
DIVISIONS: Final = ("uniform", "own_class", "dirichlet", "group")
CHARGERS: Final = ("none", "always", "nightly", "solar")
PRESENCES: Final = ("always", "sessions", "synthetic")
PHASES: Final = ("own", "start")
TLS: Final = ("none", "server", "mutual", "resumed")


class EndSection(Section, frozen=True):
    """`[end]`: when the run is over, whichever comes first."""

    hours: float = 168.0
    rounds: int | None = None
    """None: `coordinator.rounds.rounds`."""
    accuracy: float | None = None
    """None: `coordinator.schedule.until_accuracy`."""


class ModelSection(Section, frozen=True):
    """`[model]`: what is trained: one of the three."""

    built_in: str | None = None
    hidden: tuple[int, ...] = (64,)
    """Of `mlp`: the widths of its hidden layers."""
    bundle: str | None = None
    onnx: str | None = None
    loss: str = "cross_entropy"
    """For `onnx`, as `laconic prepare --loss`."""
    local: tuple[str, ...] = ()
    """For all but `bundle`, as `laconic prepare --local`: patterns of weights that stay on their device."""


class CmapssSection(Section, frozen=True):
    """`[data.cmapss]`: how engines' records become examples."""

    subset: str = "FD001"
    window: int = 30
    stride: int = 1
    cap_cycles: float = 125.0
    unit_cycles: float = 1.0
    channels: tuple[str, ...] = ()
    """Empty: the sensors that vary."""


class HarSection(Section, frozen=True):
    """`[data.har]`: which people nobody learns from."""

    held_out: tuple[int, ...] = (2, 4, 9, 10, 12, 13, 18, 20, 24)


class DriftSection(Section, frozen=True):
    """`[data.drift]`: how data change over virtual time, on devices and held out alike."""

    kind: str = "none"
    begin_hour: float = 0.0
    hours: float = 24.0
    steps: int = 10
    degrees: float = 90.0
    gain: float = 0.0
    offset: float = 0.0
    classes: int = 1


class DataSection(Section, frozen=True):
    """`[data]`: what devices learn from, and how it is divided among them."""

    source: str = "digits"
    path: str | None = None
    download: bool = False
    """Fetch what lacks in the folder."""
    held_out: float = 0.2
    own_held_out: float = 0.0
    division: str = "uniform"
    own_class: float = 0.9
    alpha: float = 0.5
    groups_each: int = 0
    """Of `group`: as many groups a device, and no others; 0: all there are."""
    samples: int = 0
    cmapss: CmapssSection = CmapssSection()
    har: HarSection = HarSection()
    drift: DriftSection = DriftSection()


class BaselinesSection(Section, frozen=True):
    """`[baselines]`: what is trained without communication, to be compared with."""

    alone: bool = False
    pooled: bool = False
    alone_devices: int = 32
    """As many devices, drawn at random; 0: all."""
    every: int = 1


class RecordSection(Section, frozen=True):
    """`[record]`: what is written down beside the usual."""

    losses: bool = False
    models: bool = False


class MediumSection(Section, frozen=True):
    """`[[media]]`: a cell or an access point that devices share."""

    name: str
    up_mbps: float
    down_mbps: float


class ConnectionSection(Section, frozen=True):
    """`[devices.connection]`: the link to the broker."""

    latency_s: float = 0.05
    jitter_s: float = 0.0
    up_mbps: float | None = None
    down_mbps: float | None = None
    loss: float = 0.0
    up_trace: str | None = None
    down_trace: str | None = None
    trace_phase: str = "own"
    medium: str | None = None
    tls: str = "none"
    keep_alive_s: float = 60.0


class BatterySection(Section, frozen=True):
    """`[devices.battery]`: without it a device is on mains."""

    mah: float | None = None
    charge_least: float = 0.3
    charge_most: float = 1.0
    charger: str = "nightly"
    charger_w: float = 10.0
    begin_hour: float = 22.0
    hours: float = 8.0
    jitter_hours: float = 1.0
    user_w: tuple[float, ...] = ()


class PresenceSection(Section, frozen=True):
    """`[devices.presence]`: when the owner lets the device run."""

    kind: str = "always"
    mean: float = 0.3
    swing: float = 4.0
    peak_hour: float = 3.0
    share: float = 0.5
    period_hours: float = 4.0


class FailuresSection(Section, frozen=True):
    """`[devices.failures]`: what happens to a share of its jobs."""

    drop_out: float = 0.0
    away_s: float = 600.0
    crash: float = 0.0
    slow: float = 1.0


class SpeedSection(Section, frozen=True):
    """`[devices.speed]`: seconds for a sample: given, by FLOPs, or as measured for a task's batch."""

    job_s: float = 0.01
    sample_s: float | None = None
    flops: float | None = None
    efficiency: float = 1.0
    task: str | None = None
    batch: int = 10
    spread: float = 0.0


class DevicesSection(Section, frozen=True):
    """`[[devices]]`: devices of a class."""

    name: str
    count: int | None = None
    share: float | None = None
    board: str = "rpi_4b"
    radio: str | None = "wifi_2012"
    cores: int = 1
    metered: bool = False
    time_zone: str = ""
    start_spread_s: float = 0.0
    speed: SpeedSection = SpeedSection()
    connection: ConnectionSection = ConnectionSection()
    battery: BatterySection | None = None
    presence: PresenceSection = PresenceSection()
    failures: FailuresSection = FailuresSection()
    limits: Limits = Limits()


class ScenarioSettings(Section, frozen=True):
    """A scenario's file."""

    name: str
    seed: int = 0
    fleet_size: int | None = None
    """How many devices there are of which the classes say their shares."""
    start_hour: float = 0.0
    end: EndSection = EndSection()
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    coordinator: CampaignSection = CampaignSection()
    baselines: BaselinesSection = BaselinesSection()
    record: RecordSection = RecordSection()
    media: tuple[MediumSection, ...] = ()
    devices: tuple[DevicesSection, ...] = ()
    sweep: dict[str, list[Any]] = msgspec.field(default_factory=dict)
    """Keys by their dots, and the values that each takes: all combinations are run."""


def counts(s: ScenarioSettings) -> list[int]:
    """How many devices there are of each class. Raises `ConfigError` for none, or too many."""
    found = [round((d.share or 0.0) * (s.fleet_size or 0)) if d.count is None else d.count for d in s.devices]
    if not 1 <= sum(found) <= MOST_DEVICES:
        raise ConfigError("devices altogether", value=sum(found), limit=f"1 to {MOST_DEVICES}")
    return found
