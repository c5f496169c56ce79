"""A call or a result as bytes: a head, and the arrays' memory apart from it, which is not copied."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Buffer: TypeAlias = NDArray[np.uint8]

LARGE_BYTES = 2**16
"""From here on it pays to ask whether a worker has an array already."""

_MOST_KNOWN = 100_000


def packed(value: object) -> tuple[bytes, list[Buffer]]:
    """`value` as a head and its arrays' bytes."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return head, [np.frombuffer(b.raw(), np.uint8) for b in buffers]


def unpacked(head: bytes, buffers: Sequence[Buffer]) -> Any:
    """What was packed. Its arrays lie in the buffers' memory, and can be written to if that can."""
    return pickle.loads(head, buffers=buffers)


class Kept:
    """Puts what is sent more than once into a store that all workers read, and sends its name from then on.

    So a device's examples and a round's weights are there once, however many jobs need them, and what goes to
    one job only does not stay.
    """

    def __init__(self, put: Callable[[Buffer], object], limit_bytes: float) -> None:
        """`put` gives a name for what it is given, which lasts as long as somebody holds it."""
        self._put, self._limit = put, limit_bytes
        self._known: OrderedDict[bytes, tuple[object | None, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def sent(self, buffer: Buffer) -> object:
        """What to send: the buffer, or its name."""
        if buffer.nbytes < LARGE_BYTES:
            return buffer
        digest = hashlib.sha256(buffer.data).digest()
        with self._lock:
            name, size = self._known.pop(digest, (None, -1))
            if size == 0:
                # The second time.
                name, size = self._put(buffer), buffer.nbytes
                self._bytes += size
            self._known[digest] = name, max(size, 0)
            while self._bytes > self._limit or len(self._known) > _MOST_KNOWN:
                self._bytes -= self._known.popitem(last=False)[1][1]
        return buffer if name is None else name
