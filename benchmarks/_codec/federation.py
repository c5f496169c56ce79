"""A whole federated run in one process: the product's arithmetic, any codec, bytes counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from _codec.data import Part, deal
from _codec.models import Drawn
from _codec.tasks import RATES, SAMPLES, OptimizerName, Task
from laconic.compression import GateSettings, GateState, cap, carry, commit, decide, no_residual, norm
from laconic.compression.echo import NO_ECHO, SILENT, Echo, EchoSettings
from laconic.compression.feedback import FeedbackSettings, Residual
from laconic.coordinator.aggregation.echo import FleetEcho
from laconic.schema import Schema, Vector

_SOURCE = "run"
"""Every device counts on one and the same echo."""

State = dict[str, Any]
"""What a codec remembers from one round to the next, of one device or of the coordinator."""


class Sent(NamedTuple):
    """What went over the wire: its size, and the float32 vector that the other side decodes."""

    bytes: int
    vector: Vector


class Codec(Protocol):
    """Encodes and decodes one vector. Rounds count from 1."""

    def __call__(
        self, target: Vector, schema: Schema, number: int, state: State, rng: np.random.Generator
    ) -> Sent:
        """`target`: what is to be said, residual included."""
        ...


class Point(NamedTuple):
    """After a round: accuracy on the test set, and bytes since the start, of all devices together."""

    accuracy: float
    bytes_up: int
    bytes_down: int

    @property
    def bytes(self) -> int:
        """Both directions."""
        return self.bytes_up + self.bytes_down


@dataclass(frozen=True)
class Observation:
    """One vector on its way: `direction` is "up" or "down", `device` -1 for the coordinator.

    `change` is this round's alone, `target` with the residual.
    """

    number: int
    direction: str
    device: int
    change: Vector
    target: Vector
    sent: Sent


class Contribution(NamedTuple):
    """What one device adds to a round."""

    device: int
    vector: Vector
    samples: int


@dataclass(frozen=True)
class Federation:
    """How a run is made, apart from task, skew, seed and codecs.

    * `rate`: the local learning rate of a round, counted from 1; None for the optimizer's constant one.
    * `server_rate`, `server_momentum`: the coordinator's step is rate times m, where m = momentum m + mean
      (FedAvgM, Hsu et al., arXiv 1909.06335).
    * `feedback`: error feedback, on both sides.
    * `residual_ratio`: the device's cap on its residual, as the product's; `residual_decay` multiplies the
      residual of a device before each round.
    * `drawn`: how the initial weights are.
    * `gate`: when a device stays silent; None never. A silent device counts as zero with its weight, or, with
      `silence` "absent", not at all. `silent_decay` multiplies the residual that a silence leaves.
    * `echo`: what a frame is worth in later rounds.
    * `shards`: the devices' data in a round; None for what `deal` gives, in every round.
    * `present`: whether a device takes part in a round; None always. `ageing`: what becomes of the residual
      of one that did not.
    * `score`: the accuracy of a round; None for the task's own test set.
    * `combine`: what makes one update of a round's; None for their mean, weighted by samples.
    """

    devices: int = 20
    optimizer: OptimizerName = "sgd"
    rate: Callable[[int], float] | None = None
    server_rate: float = 1.0
    server_momentum: float = 0.0
    feedback: bool = True
    residual_ratio: float = 30.0
    residual_decay: float = 1.0
    drawn: Drawn = "he"
    gate: GateSettings | None = None
    silence: Literal["zero", "absent"] = "zero"
    silent_decay: float = 1.0
    echo: EchoSettings = SILENT
    shards: Callable[[int], Sequence[Part]] | None = None
    present: Callable[[int, int], bool] | None = None
    ageing: FeedbackSettings = field(default_factory=FeedbackSettings)
    score: Callable[[int, Vector], float] | None = None
    combine: Callable[[int, Sequence[Contribution]], Vector] | None = None


@dataclass
class _Device:
    """One device's memory."""

    residual: Vector
    echo: Echo = NO_ECHO
    """What the coordinator adds on its behalf."""
    codec: State = field(default_factory=dict)
    gate: GateState = field(default_factory=GateState)
    trained: int | None = None
    """The last round in which it took part."""


def decaying(rate: float, decay: float) -> Callable[[int], float]:
    """`rate` in round 1, and `decay` times the last round's in every other."""
    return lambda number: rate * decay ** (number - 1)


def run(
    task: Task,
    *,
    skew: float,
    seed: int,
    rounds: int,
    up: Codec,
    down: Codec,
    federation: Federation = Federation(),
    observe: Callable[[Observation], None] | None = None,
) -> list[Point]:
    """Train for `rounds` rounds; a point after each.

    The arithmetic is that of `laconic.edge_sdk.work` and `laconic.coordinator.advance`: a device sends its
    change plus its residual and keeps what its frame leaves out; the next weights are the old ones plus what
    the downlink's frame decodes to, and the coordinator keeps the rest. Every device pays for every downlink
    frame. The same arguments give the same points on the same machine.
    """
    schema, count = task.schema, federation.devices
    devices = [_Device(no_residual(schema.size)) for _ in range(count)]
    fleet_echo = FleetEcho()
    dealt = [task.data.train.at(i) for i in deal(task.data.train.y, count, skew, seed)]
    weights, kept = task.initial(seed, federation.drawn), no_residual(schema.size)
    momentum = np.zeros(schema.size)
    coordinator: State = {}
    rate = federation.rate or decaying(RATES[federation.optimizer], 1.0)
    bytes_up = bytes_down = 0
    points = []
    for number in range(1, rounds + 1):
        shards = dealt if federation.shards is None else federation.shards(number)
        total, weight = np.zeros(schema.size), 0
        said: list[Contribution] = []
        for i, device in enumerate(devices):
            if federation.present is not None and not federation.present(number, i):
                continue
            device.echo, due = device.echo.at(_SOURCE, fleet_echo.tick, federation.echo)
            if due is not None:
                device.residual = commit(device.residual, due)
            rng = np.random.default_rng([seed, number, i])
            change, loss = task.learn(weights, shards[i], rate(number), rng)
            target = _target(device, change, number, federation)
            share = min(len(shards[i]), SAMPLES)
            if not _speaks(device, target, weights, loss, federation):
                device.residual = target * np.float32(federation.silent_decay)
                weight += share if federation.silence == "zero" else 0
                continue
            weight += share
            sent = up(target, schema, number, device.codec, rng)
            if observe is not None:
                observe(Observation(number, "up", i, change, target, sent))
            device.residual = commit(target, sent.vector)
            device.echo, _ = device.echo.folded(sent.vector, _SOURCE, fleet_echo.tick)
            bytes_up += sent.bytes
            total += sent.vector.astype(np.float64) * share
            said.append(Contribution(i, sent.vector, share))
        mean = total / max(weight, 1)
        if federation.combine is not None:
            mean = federation.combine(number, said).astype(np.float64)
        momentum = federation.server_momentum * momentum + fleet_echo.added(mean.astype(np.float32))
        fleet_echo = fleet_echo.after(mean.astype(np.float32), federation.echo, number)
        step = (federation.server_rate * momentum).astype(np.float32)
        target = carry(kept, step) if federation.feedback else step
        sent = down(target, schema, number, coordinator, np.random.default_rng([seed, number, count]))
        if observe is not None:
            observe(Observation(number, "down", -1, step, target, sent))
        kept = commit(target, sent.vector)
        weights = weights + sent.vector
        bytes_down += count * sent.bytes
        found = task.accuracy(weights) if federation.score is None else federation.score(number, weights)
        points.append(Point(found, bytes_up, bytes_down))
    return points


def _target(device: _Device, change: Vector, number: int, federation: Federation) -> Vector:
    if not federation.feedback:
        return change
    residual = Residual(device.residual, device.trained).aged(number, federation.ageing).values
    device.trained = number
    if federation.residual_decay != 1:
        residual = residual * np.float32(federation.residual_decay)
    usual = max(norm(change), device.gate.running_norm or 0.0)
    return cap(carry(residual, change), usual, federation.residual_ratio)


def _speaks(device: _Device, target: Vector, weights: Vector, loss: float, federation: Federation) -> bool:
    """Ask the gate; without one, a gate that is always open keeps the running norm that the cap needs."""
    gate = federation.gate or GateSettings()
    decision = decide(gate, device.gate, norm(target), norm(weights), loss=loss)
    device.gate = decision.state
    return decision.send
