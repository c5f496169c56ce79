"""What the demonstration runs with, and why these numbers."""

from __future__ import annotations

from typing import Any

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """One federated run's settings; the baseline differs in compression and gate only."""

    rounds: int = 20
    epochs: int = 3
    batch_size: int = 16
    learning_rate: float = 0.15
    learning_rate_decay: float = 0.93
    """A constant rate does not settle on data as skewed as this."""
    skew: float = 0.9
    """Share of a device's samples that are of its own class."""
    up: str | dict[str, Any] = "small"
    down: str | dict[str, Any] = "small"
    gate_mode: str = "model"
    gate_threshold: float = 0.05
    gate_loss_factor: float = 2.0
    gate_force_after: int = 100
    """The gate of docs/decisions/0016-silence-is-zero-by-measurement.md."""
    deadline_s: float = 60.0
    board: str = "rpi_4b"
    radio: str = "wifi_2012"
    battery_wh: float = 10.0


def uncompressed(settings: Settings) -> Settings:
    """The same run as plain FedAvg: every value as float32, every device every round, both ways."""
    return msgspec.structs.replace(
        settings, up="exact", down="exact", gate_threshold=0.0, gate_loss_factor=0.0
    )
