"""A round's committed updates, read back from the store when the round is over: a row for each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from laconic.compression import decode
from laconic.coordinator.aggregation.rows import Rows, held
from laconic.coordinator.campaign import Committed
from laconic.errors import StorageError, WireError
from laconic.node import StoreView
from laconic.schema import Schema, Vector


def gathered(
    store: StoreView,
    keys: Mapping[str, Sequence[str]],
    schema: Schema,
    *,
    silent: int,
    memory_bytes: int,
) -> Rows:
    """The updates under `keys`, by device; in the order of the devices' names, whatever order they came in.

    A device is one row: what it sent for several tasks is added up, so that no device outvotes the others.
    """
    devices = [sorted(keys[name]) for name in sorted(keys)]

    def read(i: int) -> Vector:
        total = np.zeros(schema.size, np.float32)
        for key in devices[i]:
            total += _update(store, key, schema)
        return total

    return held(read, len(devices), schema.size, silent=silent, memory_bytes=memory_bytes)


def _update(store: StoreView, key: str, schema: Schema) -> Vector:
    try:
        c = msgspec.msgpack.decode(store.get(key) or b"", type=Committed)
        return decode(c.frame, schema, limit_bytes=4 * schema.size) * np.float32(c.discount)
    except (msgspec.DecodeError, WireError) as e:
        raise StorageError(f"committed update {key} ({e})", remedy="restore the store from a copy") from e
