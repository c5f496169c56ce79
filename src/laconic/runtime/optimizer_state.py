"""What an optimizer remembers from one round to the next, and its form on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from laconic.errors import Malformed, ModelError, NonFinite
from laconic.runtime.bundle import Bundle
from laconic.schema import Vector

STEP_LIMIT = 2**62


class _Stored(Struct, array_like=True, frozen=True):
    """MessagePack array; later versions append fields."""

    optimizer: Annotated[str, Meta(max_length=1024)]
    layout: int
    schema: Annotated[bytes, Meta(max_length=64)]
    step: Annotated[int, Meta(ge=0, le=STEP_LIMIT)]
    slots: Annotated[dict[str, bytes], Meta(max_length=16)]


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """The slots of an optimizer, float32 vectors in `bundle.weight_schema`, and the number of steps taken."""

    slots: Mapping[str, Vector] = field(default_factory=lambda: MappingProxyType({}))
    step: int = 0

    @classmethod
    def initial(cls, bundle: Bundle) -> OptimizerState:
        """The state before the first step: all zero."""
        size = bundle.weight_schema.size
        return cls({slot: np.zeros(size, np.float32) for slot in bundle.manifest.optimizer.slots})

    def encode(self, bundle: Bundle) -> bytes:
        """The state as bytes, with what tells whether it still fits when it is read again."""
        info = bundle.manifest.optimizer
        slots = {name: vector.astype("<f4").tobytes() for name, vector in self.slots.items()}
        digest = bundle.weight_schema.digest
        return msgspec.msgpack.encode(_Stored(info.name, info.layout, digest, self.step, slots))

    @classmethod
    def decode(cls, data: bytes, bundle: Bundle) -> OptimizerState:
        """Read what `encode` wrote.

        Raises `Malformed` for other bytes, `ModelError` for the state of another optimizer, layout or model,
        `NonFinite` for values that are not finite.
        """
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise Malformed("optimizer state", value=str(e)) from e
        info = bundle.manifest.optimizer
        found = (stored.optimizer, stored.layout, stored.schema)
        due = (info.name, info.layout, bundle.weight_schema.digest)
        if found != due:
            raise ModelError("optimizer state is of another model or optimizer", value=found, limit=due)
        state = cls(
            {n: np.frombuffer(b, "<f4").astype(np.float32) for n, b in _whole(stored.slots)}, stored.step
        )
        state.check(bundle)
        return state

    def check(self, bundle: Bundle) -> None:
        """Raise `ModelError` or `NonFinite` unless the state fits `bundle`."""
        due = sorted(bundle.manifest.optimizer.slots)
        if sorted(self.slots) != due:
            raise ModelError("slots of the optimizer state", value=sorted(self.slots), limit=due)
        if not isinstance(self.step, int | np.integer) or not 0 <= self.step <= STEP_LIMIT:
            raise ModelError("step of the optimizer state", value=self.step, limit=f"0 to {STEP_LIMIT}")
        for name, vector in self.slots.items():
            if not isinstance(vector, np.ndarray):
                found = type(vector).__name__
                raise ModelError(f"slot {name!r} of the optimizer state", value=found, limit="numpy.ndarray")
            if vector.dtype != np.float32 or vector.shape != (bundle.weight_schema.size,):
                limit = f"float32 of shape ({bundle.weight_schema.size},)"
                found = f"{vector.dtype} of shape {vector.shape}"
                raise ModelError(f"slot {name!r} of the optimizer state", value=found, limit=limit)
            if not np.isfinite(vector).all():
                raise NonFinite(f"slot {name!r} of the optimizer state", remedy="start it anew")


def _whole(slots: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    for name, data in slots.items():
        if len(data) % 4:
            raise Malformed(
                f"slot {name!r} of the optimizer state", value=len(data), limit="whole float32 values"
            )
    return list(slots.items())
