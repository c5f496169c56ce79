"""What the demonstration found: the structure of its JSON, which the report draws."""

from __future__ import annotations

import msgspec


class Bytes(msgspec.Struct, frozen=True):
    """Bytes at the devices' sockets: MQTT framing, acknowledgements and control messages included."""

    up: int
    down: int

    @property
    def total(self) -> int:
        """Both ways."""
        return self.up + self.down


class RoundPoint(msgspec.Struct, frozen=True):
    """The state of a fleet after a round; round 0 is the untrained model."""

    round: int
    accuracy: float
    loss: float
    updates: int
    silent: int
    bytes_up: int
    """Sum over the devices since the beginning."""
    bytes_down: int
    seconds: float
    """Since the fleet's start."""


class DeviceResult(msgspec.Struct, frozen=True):
    """One device over a whole run."""

    name: str
    samples: int
    main_class: int
    """The class that most of its samples are of."""
    committed: int
    silent: int
    bytes_up: int
    bytes_down: int
    joules_compute: float
    joules_radio: float
    charge_begin: float
    charge_end: float


class FleetResult(msgspec.Struct, frozen=True):
    """One federated run."""

    name: str
    points: list[RoundPoint]
    devices: list[DeviceResult]
    bytes: Bytes
    coordinator_bytes: Bytes
    seconds: float
    """Of the run's own clock: the wall's, or that of the simulator's world."""
    model: str = ""
    """Name of the last version: the first 16 hexadecimal digits of SHA-256 of its schema and weights."""

    @property
    def accuracy(self) -> float:
        """On held-out data, of the last version."""
        return self.points[-1].accuracy

    @property
    def joules(self) -> float:
        """All devices, compute and radio."""
        return sum(d.joules_compute + d.joules_radio for d in self.devices)


class DemoResult(msgspec.Struct, frozen=True):
    """Everything that the demonstration shows. The first block is what `--json` promises."""

    accuracy: float
    accuracy_fedavg: float
    accuracy_alone: float
    """Mean over the devices."""
    accuracy_pooled: float
    bytes: Bytes
    bytes_fedavg: Bytes
    ratio: float
    """Bytes of uncompressed FedAvg over bytes of Laconic, up plus down."""
    joules: float
    joules_fedavg: float
    seconds: float
    """The whole demonstration."""
    rounds: int
    devices: int

    seed: int
    parameters: int
    held_out: int
    """Samples on which accuracy is measured."""
    broker: str
    settings: dict[str, object]
    laconic: FleetResult
    fedavg: FleetResult
    alone: list[float]
    """Mean accuracy of devices that never communicate, after each round's worth of training, from round 0."""
    pooled: list[float]
    """Accuracy of one model on all devices' data, after each round's worth of training, from round 0."""
    report: str
    machine: str
    version: str
