"""Who a device is and how it behaves on the wire."""

from __future__ import annotations

from dataclasses import dataclass, field

from laconic.edge_sdk.policy import Limits
from laconic.protocol.chunks import DEFAULT_CHUNK_BYTES


@dataclass(frozen=True)
class DeviceSettings:
    """What is fixed for the life of the process."""

    name: str
    cohort: str = "default"
    limits: Limits = field(default_factory=Limits)
    zone: str = ""
    """Where its days and months begin: see `laconic.budget.calendar`."""
    standing_bytes_per_s: float = 0.0
    """What being connected costs while nothing is said."""
    key: bytes | None = None
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    retry_s: float = 10.0
    """First wait for an answer; doubles up to `retry_most_s`."""
    retry_most_s: float = 300.0
    software: str = ""
