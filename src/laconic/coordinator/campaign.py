"""What a coordinator is to do, and what of its course survives a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec

from laconic.compression import CodecSettings
from laconic.compression.echo import EchoSettings
from laconic.coordinator.advance import Evaluate
from laconic.coordinator.aggregation.optimizers import ServerSettings
from laconic.coordinator.aggregation.settings import AggregationSettings
from laconic.coordinator.budgets import Budget
from laconic.coordinator.rounds import Plan
from laconic.coordinator.schedule import Schedule
from laconic.coordinator.selection import SelectionSettings
from laconic.coordinator.staleness import Lateness, PastTask
from laconic.coordinator.verdict import ModelSettings
from laconic.errors import ConfigError
from laconic.protocol.chunks import DEFAULT_CHUNK_BYTES
from laconic.protocol.messages import Eligibility, Feedback, Gate, Training
from laconic.schema import Schema, Vector


@dataclass(frozen=True, slots=True)
class HistorySettings:
    """How much is kept of rounds that are over. Raises `ConfigError` for a value out of range."""

    rounds: int = 1000
    """Records of so many rounds; 0 for none."""
    names: int = 1000
    """Most devices that each list of a record names; its counts are of all."""

    def __post_init__(self) -> None:
        for name, value, most in (("rounds", self.rounds, 10**6), ("names", self.names, 10**5)):
            if not 0 <= value <= most:
                raise ConfigError(f"history.{name}", value=value, limit=f"0 to {most}")


@dataclass(frozen=True)
class Campaign:
    """What a coordinator is to do: one model, one cohort, so many rounds."""

    fleet: str
    cohort: str
    plan: Plan
    lateness: Lateness = field(default_factory=Lateness)
    schedule: Schedule = field(default_factory=Schedule)
    until_accuracy: float | None = None
    """The campaign is over when a version is so good on held-out data; None for no such goal."""
    training: Training = field(default_factory=Training)
    codec: CodecSettings = field(default_factory=CodecSettings)
    """How devices encode updates."""
    delta_codec: CodecSettings = field(default_factory=CodecSettings)
    """How the coordinator encodes the next model."""
    gate: Gate = field(default_factory=Gate)
    echo: EchoSettings = field(default_factory=EchoSettings)
    """How what devices say is repeated in later rounds."""
    feedback: Feedback = field(default_factory=Feedback)
    eligibility: Eligibility = field(default_factory=Eligibility)
    budget: Budget = field(default_factory=Budget)
    share: float = 1.0
    """The part of the cohort that is asked, in a plan without a target."""
    targeted: bool = False
    """Ask each chosen device by name (the ledger's budgets decide), not the cohort by one retained offer."""
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    """Who is asked, and how long one may wait."""
    learning_rate_decay: float = 1.0
    """Factor on the devices' learning rate from one round to the next."""
    aggregation: AggregationSettings = field(default_factory=AggregationSettings)
    """How a round's updates become one."""
    server: ServerSettings = field(default_factory=ServerSettings)
    """How the model steps along it."""
    models: ModelSettings = field(default_factory=ModelSettings)
    """When a version is worse than it may be, and how new ones are tried."""
    history: HistorySettings = field(default_factory=HistorySettings)
    """What is kept of rounds that are over."""
    key: bytes | None = None
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    keep_versions: int = 16

    def digest(self) -> str:
        """Short hash of all settings but the key: which versions were made under the same ones."""
        encoder = msgspec.msgpack.Encoder(enc_hook=str, order="deterministic")
        return hashlib.sha256(encoder.encode(replace(self, key=None))).hexdigest()[:16]


@dataclass(frozen=True)
class Subject:
    """What a campaign trains."""

    bundle: str
    """Short hash of the training bundle."""
    schema: Schema
    initial: Vector
    """Weights of version 0."""
    evaluate: Evaluate
    today: Callable[[], Evaluate] | None = None
    """Where what versions are scored on changes with time: asked when a version begins to be computed."""

    def scorer(self) -> Evaluate:
        """What scores a version whose computation begins now."""
        return self.evaluate if self.today is None else self.today()


def update_limit_bytes(schema: Schema) -> int:
    """No frame of an update is longer: a frame that says every value raw stays below twice the dense size."""
    return 8 * schema.size + 4096 + 256 * len(schema.tensors)


class Committed(msgspec.Struct, frozen=True):
    """A committed update, until its round is folded into a version."""

    update: str
    device: str
    weight: int
    frame: bytes
    round: int = 0
    """The round whose task it answers, not that in which it came; 0 where that was not written down."""
    base: str = ""
    """Short hash of the version that it was trained from."""
    staleness: int = 0
    """How many versions its base was behind."""
    discount: float = 1.0
    """Factor on its values, for its staleness."""
    loss: float | None = None
    """Of its base on the device's data, before it trained."""
    accuracy: float | None = None


class Standing(msgspec.Struct, frozen=True):
    """What has been ordered of the campaign by hand, until it is ordered otherwise."""

    paused: bool = False


class Progress(msgspec.Struct, frozen=True):
    """Where the campaign stands: what survives a crash of the round machine."""

    number: int = 1
    open: bool = False
    opened_at: float = 0.0
    task: str = ""
    share: float = 1.0
    """The part of the cohort that is asked; it grows while too few are chosen or report."""
    expected: list[str] = []
    """Who was asked when the round opened; who comes later says so by its birth."""
    finished: bool = False
    tasks: list[PastTask] = []
    """Tasks whose updates are still taken, the open one last; none if late updates are refused."""
