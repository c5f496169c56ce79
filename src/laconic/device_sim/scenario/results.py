"""What a run leaves: totals, and a row for each round, device, class and step of some rounds."""

from __future__ import annotations

from math import isfinite
from typing import Any

import msgspec


def finite(value: float | None) -> float | None:
    """What a file can say of it: a model that has diverged may have a loss that is no number."""
    return value if value is not None and isfinite(value) else None


class RoundRow(msgspec.Struct, frozen=True):
    """The fleet when a version was made of a round, or refused."""

    round: int
    version: int | None
    """None: what the round had made was refused."""
    hours: float
    """Since the run began, as all hours."""
    opened_hours: float
    accuracy: float | None
    loss: float | None
    asked: int
    updates: int
    late: int
    silent: int
    absent: int
    fairness: float
    """Jain's index of how often devices have been asked."""
    bytes_up: int
    """So far, of all devices, above TCP."""
    bytes_down: int
    joules: float
    """So far, of all devices: all that was spent."""
    work_joules: float
    """Of these: computing, and the radio but for its idling."""


class ClassRow(msgspec.Struct, frozen=True):
    """A class of devices at that moment."""

    round: int
    hours: float
    name: str
    devices: int
    on: int
    """How many have power."""
    charge_least: float | None
    charge_mean: float | None
    charge_most: float | None
    bytes_up: int
    bytes_down: int
    joules: float


class DeviceRow(msgspec.Struct, frozen=True):
    """One device over the whole run. Joules and bytes are totals."""

    name: str
    kind: str
    samples: int
    trained: int
    committed: int
    skipped: dict[str, int]
    """By why."""
    failed: int
    lives: int
    """How often its process was started."""
    jobs: int
    bytes_up: int
    bytes_down: int
    ip_bytes_up: int
    ip_bytes_down: int
    idle_j: float
    user_j: float
    compute_j: float
    promotion_j: float
    active_j: float
    tail_j: float
    radio_idle_j: float
    self_discharge_j: float
    charged_j: float
    """Into it: with a battery start + charged - end = the eight others."""
    battery_start_j: float
    battery_end_j: float
    battery_j: float | None
    """Its capacity; None: on mains."""
    on: bool
    useful_j: float
    """Work, from its beginning to its update's commit: computing and transfers."""
    silent_j: float
    """Work after which the gate was shut."""
    wasted_j: float
    """Work of which nothing was committed."""
    upkeep_j: float
    """Computing and transfers outside of work: models, offers, pings."""


class StepRow(msgspec.Struct, frozen=True):
    """Something that happened in one of the rounds that are kept (`laconic.device_sim.scenario.stepping`)."""

    round: int
    seconds: float
    """Since the round was opened."""
    device: str
    what: str


class BaselineRow(msgspec.Struct, frozen=True):
    """What training without communication has come to after a round's worth, on held-out examples."""

    kind: str
    """`alone`: means over the devices that were trained; `pooled`: all data in one place."""
    round: int
    devices: int
    accuracy: float | None
    """None: the loss is not one of classification."""
    accuracy_least: float | None
    accuracy_most: float | None
    loss: float | None
    """Of those that are finite; None: none is."""
    loss_least: float | None
    loss_most: float | None
    failed: int
    """Trainings that have diverged so far, whose models stayed as they were, and models of which the loss is
    not finite."""


class ScoreRow(msgspec.Struct, frozen=True):
    """The end's models on a device's own held-out examples. Accuracies are None where the loss is not one of
    classification; all of a model is None that there is not."""

    device: str
    kind: str
    samples: int
    """How many examples are held out."""
    federated_accuracy: float | None
    """With the weights that never leave this device, if the model has such."""
    federated_loss: float | None
    shared_accuracy: float | None
    """The same without them: with the bundle's own in their place. None for a model without such weights."""
    shared_loss: float | None
    alone_accuracy: float | None
    alone_loss: float | None
    pooled_accuracy: float | None
    pooled_loss: float | None


class LossRow(msgspec.Struct, frozen=True):
    """A loss of training."""

    kind: str
    """`device`: of a step in a device's round; `alone`: of one that never communicates; `federation`: of the
    version that a round has made, on all devices' examples."""
    round: int
    device: str
    """Empty for the federation."""
    step: int
    """Within the round, from 0."""
    loss: float | None
    """Mean over the step's batch, before the step. None: not finite."""


class Totals(msgspec.Struct, frozen=True):
    """The whole run."""

    ended: str
    """`finished`: the coordinator's rounds or goal; `hours`: time was up."""
    hours: float
    rounds: int
    """That were closed, whether they made a version or not."""
    accuracy: float | None
    best_accuracy: float | None
    loss: float | None
    devices: int
    parameters: int
    held_out: int
    way: str
    """How devices trained: `stacks`, many in one graph, or `threads`, one by one."""
    bytes_up: int
    bytes_down: int
    ip_bytes_up: int
    ip_bytes_down: int
    joules: float
    joules_by_part: dict[str, float]
    joules_by_origin: dict[str, float]
    """Shares: what the figures behind the joules rest on."""
    charged_j: float
    useful_j: float
    silent_j: float
    wasted_j: float
    upkeep_j: float
    jain: float
    """Jain's index of the devices' committed updates."""
    never: int
    """Devices of which no update was committed."""
    committed: int
    skipped: dict[str, int]
    imbalance: float
    """The worst device's: what its energy is off by, relative to what has passed through it."""
    events: int
    opened: int | None = None
    """Rounds that were opened. None, as of versions: an earlier release did not count them."""
    versions: int | None = None
    """Of the model, that they made."""
    failures: dict[str, int] = {}
    """Work that ended in an error, by the error."""

    @property
    def work_j(self) -> float:
        """Computing and transfers, whatever came of them."""
        return self.useful_j + self.silent_j + self.wasted_j + self.upkeep_j


class Result(msgspec.Struct, frozen=True):
    """A run."""

    digest: str
    version: str
    settings: dict[str, Any]
    totals: Totals
    rounds: list[RoundRow]
    classes: list[ClassRow] = []
    devices: list[DeviceRow] = []
    steps: list[StepRow] = []
    baselines: list[BaselineRow] = []
    losses: list[LossRow] = []
    scores: list[ScoreRow] = []
