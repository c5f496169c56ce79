"""The coordinator's side of the echo: one vector for the whole fleet, added to each round's mean.

See `laconic.compression.echo` for what a device does about it, and docs/decisions/0016 for what it is worth.
All is float32, value by value: the same on every machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from laconic.compression import norm
from laconic.compression.echo import EchoSettings
from laconic.coordinator.aggregation.settings import AggregationSettings
from laconic.errors import ConfigError, NonFinite, StorageError
from laconic.schema import Vector

NEGLIGIBLE: Final = 1e-6
"""Of the model's norm: an echo below it is not worth a version of its own."""


@dataclass(frozen=True, slots=True)
class FleetEcho:
    """What the next step adds to the round's mean.

    * `values`: float32, shape `(size,)`; None for nothing.
    * `tick`: how many steps it has made since it began.
    * `began`: the round of its first step; 0 before that.
    """

    values: Vector | None = None
    tick: int = 0
    began: int = 0

    def source(self, campaign: str, number: int) -> str:
        """What devices know this echo by, a short hash; `number`: the round that is open, or comes next.

        `campaign`: what no other store has.
        """
        text = f"{campaign}/echo/{self.began or number}"
        return hashlib.sha256(text.encode()).digest()[:8].hex()

    def added(self, mean: Vector) -> Vector:
        """What the server optimizer is given."""
        return mean if self.values is None else mean + self.values

    def after(self, mean: Vector, settings: EchoSettings, number: int) -> FleetEcho:
        """The echo of the step after the one with the `mean` of round `number`.

        Raises `NonFinite` when it overflows.
        """
        if not settings.gain:
            return self
        more = np.float32(settings.gain) * mean
        with np.errstate(over="ignore"):
            values = more if self.values is None else np.float32(settings.memory) * self.values + more
        if not np.isfinite(values).all():
            raise NonFinite("the echo of a step", remedy="lower gate.echo_gain or gate.echo_memory")
        return FleetEcho(values if values.any() else None, self.tick + 1, self.began or number)

    def outweighs_silence(self, weights: Vector) -> bool:
        """Whether a round in which all who trained are silent makes a version, for the echo's sake.

        Below `NEGLIGIBLE` times the norm of `weights` it waits for the next frame as it is: no tick passes.
        """
        return self.values is not None and norm(self.values) > NEGLIGIBLE * norm(weights)


NOTHING_SAID: Final = FleetEcho()
"""The echo of a campaign without one, or before its first step."""


def checked(settings: EchoSettings, rule: AggregationSettings) -> EchoSettings:
    """`settings`, if a device can know what is added on its behalf.

    Raises `ConfigError` for an echo with any rule but the mean weighted by samples: behind a median or a clip
    nobody knows what became of a frame.
    """
    if settings.gain and not rule.weighted:
        raise ConfigError(
            "gate.echo_gain with an aggregation rule other than the plain mean",
            value=settings.gain,
            limit=0,
            remedy="use aggregation rule 'mean' without mixing and buckets, or no echo",
        )
    return settings


class SavedEcho(msgspec.Struct, frozen=True):
    """The echo on disk. It belongs to one version: after a rollback it belongs to none, and begins anew."""

    gain: float
    memory: float
    version: str
    """Short hash of the model version that the next step starts from."""
    tick: int
    began: int
    values: bytes = b""
    """float32, little-endian; empty for nothing."""


def save(settings: EchoSettings, echo: FleetEcho, version: str) -> bytes | None:
    """The record of `SavedEcho`; None where there is nothing to remember."""
    if not settings.gain or not echo.tick:
        return None
    values = b"" if echo.values is None else echo.values.astype("<f4").tobytes()
    return msgspec.msgpack.encode(
        SavedEcho(settings.gain, settings.memory, version, echo.tick, echo.began, values)
    )


def restore(blob: bytes | None, settings: EchoSettings, version: str, size: int) -> FleetEcho:
    """The echo that was saved for `version` with the same settings; else one that has not begun.

    Raises `StorageError` for a record that is not what `save` writes.
    """
    if blob is None:
        return NOTHING_SAID
    remedy = "restore the store from a copy"
    try:
        saved = msgspec.msgpack.decode(blob, type=SavedEcho)
    except msgspec.DecodeError as e:
        raise StorageError(f"record server-echo ({e})", remedy=remedy) from e
    if len(saved.values) not in (0, 4 * size):
        raise StorageError(
            "vector of server-echo, in bytes", value=len(saved.values), limit=4 * size, remedy=remedy
        )
    values = np.frombuffer(saved.values, "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise StorageError("vector of server-echo is not finite", remedy=remedy)
    if (saved.gain, saved.memory, saved.version) != (settings.gain, settings.memory, version):
        return NOTHING_SAID
    return FleetEcho(values if values.size else None, saved.tick, saved.began)
